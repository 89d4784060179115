"""Losses from sparse labels against Keras' own on one-hot labels, and against the papers' formulas in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from utils.config import load_profile
from utils.data.labels import LabelMap
from utils.training import losses
from utils.training.losses import ArcFace, Focal, LogitAdjusted, SparseCrossentropy

CLASSES = 7
LABELS = np.array([0, 3, 6, 3, 1], dtype=np.int32)
OTHERS = np.array([2, 3, 0, 5, 4], dtype=np.int32)
PARTS = np.array([0.9, 0.5, 0.25, 1.0, 0.0], dtype=np.float32)
MIXED = np.stack([LABELS, OTHERS, PARTS], axis=1).astype(np.float32)
LOGITS = np.random.default_rng(0).normal(scale=4, size=(5, CLASSES)).astype(np.float32)
COUNTS = np.array([80, 7, 30, 0, 12, 55, 10])
WEIGHTS = np.array([2.0, 1.0, 0.5, 0.25, 1.0, 1.0, 1.25])
ONE_HOT = np.eye(CLASSES, dtype=np.float32)
MIXED_TARGET = PARTS[:, None] * ONE_HOT[LABELS] + (1 - PARTS[:, None]) * ONE_HOT[OTHERS]
ALL = [
    SparseCrossentropy(0.1, WEIGHTS),
    LogitAdjusted(COUNTS, 0.7, label_smoothing=0.1, class_weights=WEIGHTS),
    Focal(1.5, label_smoothing=0.1, class_weights=WEIGHTS),
    ArcFace(losses.class_margins(COUNTS), 6.0, label_smoothing=0.1, class_weights=WEIGHTS),
]


def both_ways(loss: tf.keras.losses.Loss, labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Losses of the images, the same eager and in a graph."""
    eager = loss.call(labels, tf.constant(logits)).numpy()
    graph = tf.function(lambda y, x: loss.call(y, x))(tf.constant(labels), tf.constant(logits)).numpy()
    np.testing.assert_allclose(graph, eager, rtol=1e-5, atol=1e-6)
    return eager


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, [2.0, 1.0, 0.5, 0.25, 1.0, 1.0, 1.25]])
def test_it_equals_keras_on_one_hot_labels(smoothing: float, weights: list[float] | None) -> None:
    keras = tf.keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing, reduction="none")
    expected = keras(ONE_HOT[LABELS], LOGITS).numpy()
    if weights is not None:
        expected = expected * np.array(weights)[LABELS]
    loss = SparseCrossentropy(smoothing, weights)
    np.testing.assert_allclose(both_ways(loss, LABELS, LOGITS), expected, rtol=1e-5)
    assert float(loss(LABELS, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(loss(LABELS[:, None], LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)


def test_gradients_equal_keras() -> None:
    logits = tf.Variable(LOGITS)
    with tf.GradientTape(persistent=True) as tape:
        ours = SparseCrossentropy(0.1)(LABELS, logits)
        keras = tf.keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1)(ONE_HOT[LABELS], logits)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(keras, logits), atol=1e-6)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_a_saved_loss_is_the_same_loss(loss: SparseCrossentropy) -> None:
    again = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert float(again(LABELS, LOGITS)) == float(loss(LABELS, LOGITS))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_labels_equal_keras_on_soft_targets(smoothing: float) -> None:
    keras = tf.keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing, reduction="none")
    loss = both_ways(SparseCrossentropy(smoothing), MIXED, LOGITS)
    np.testing.assert_allclose(loss, keras(MIXED_TARGET, LOGITS), rtol=1e-5)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_every_loss_mixes_labels_and_weighs_classes_until_it_is_told_not_to(loss: SparseCrossentropy) -> None:
    first, other = (both_ways(loss, labels, LOGITS) for labels in (LABELS, OTHERS))
    expected = PARTS * first + (1 - PARTS) * other
    np.testing.assert_allclose(both_ways(loss, MIXED, LOGITS), expected, rtol=1e-5, atol=1e-6)
    loss.weighted = False
    plain = both_ways(loss, LABELS, LOGITS)
    loss.weighted = True
    np.testing.assert_allclose(first, plain * WEIGHTS[LABELS], rtol=1e-5)


@pytest.mark.parametrize(("tau", "smoothing"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.1), (1.5, 0.1)])
def test_logit_adjustment_is_cross_entropy_of_logits_plus_tau_log_prior(tau: float, smoothing: float) -> None:
    prior = np.where(COUNTS == 0, 1, COUNTS) / np.where(COUNTS == 0, 1, COUNTS).sum()
    keras = tf.keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing, reduction="none")
    expected = keras(ONE_HOT[LABELS], (LOGITS + tau * np.log(prior)).astype(np.float32))
    loss = LogitAdjusted(COUNTS, tau, label_smoothing=smoothing)
    np.testing.assert_allclose(both_ways(loss, LABELS, LOGITS), expected, rtol=1e-5, atol=1e-6)


def test_balanced_softmax_is_the_softmax_weighted_by_images() -> None:
    """Equation 3 of Ren et al.: n_y e^x_y / sum of n_c e^x_c."""
    profile = replace(load_profile("smoke"), loss="balanced_softmax", tau=0.3)
    counts = np.maximum(COUNTS, 1)
    powers = counts * np.exp(LOGITS.astype(np.float64))
    expected = -np.log(powers[np.arange(5), LABELS] / powers.sum(axis=1))
    loss = losses.make_loss(profile, counts)
    np.testing.assert_allclose(both_ways(loss, LABELS, LOGITS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_equals_keras(gamma: float, smoothing: float) -> None:
    keras = tf.keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=gamma, from_logits=True, label_smoothing=smoothing, reduction="none"
    )
    logits = LOGITS / 2  # Keras cuts probabilities off at 1e-7
    expected = keras(ONE_HOT[LABELS], logits)
    np.testing.assert_allclose(
        both_ways(Focal(gamma, label_smoothing=smoothing), LABELS, logits), expected, rtol=1e-4, atol=1e-6
    )


def test_focal_has_a_gradient_where_the_answer_is_certain() -> None:
    logits = tf.Variable([[200.0, 0.0], [0.0, 200.0]])
    with tf.GradientTape() as tape:
        loss = Focal(0.5)(np.zeros(2, np.int32), logits)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_arcface_adds_the_class_margin_to_the_angle_of_the_true_class() -> None:
    scale, cosines = 16.0, np.random.default_rng(1).uniform(-0.95, 0.95, (6, CLASSES))
    labels = np.array([0, 1, 2, 3, 4, 5])
    margins = np.linspace(0.1, 0.9, CLASSES)
    cosines[5, 5] = -0.99  # the angle and its margin are more than pi
    moved = cosines.copy()
    for row, label in enumerate(labels[:5]):
        moved[row, label] = np.cos(np.arccos(cosines[row, label]) + margins[label])
    moved[5, 5] = -0.99 - margins[5] * np.sin(margins[5])
    keras = tf.keras.losses.CategoricalCrossentropy(True, reduction="none")
    expected = keras(ONE_HOT[labels], (scale * moved).astype(np.float32))
    found = both_ways(ArcFace(margins, scale), labels.astype(np.int32), (scale * cosines).astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_arcface_has_a_gradient_where_image_and_centre_agree() -> None:
    logits = tf.Variable([[10.0, 0.0], [-10.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = ArcFace([0.5, 0.5], 10.0)(np.zeros(2, np.int32), logits)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_margins_fall_with_the_images_of_a_class() -> None:
    assert losses.class_margins([1, 16, 81], 0.5, 0.25, 0.05) == pytest.approx([0.55, 0.3, 0.5 / 3 + 0.05])
    assert (np.diff(losses.class_margins(np.arange(1, 101))) < 0).all()


@pytest.mark.parametrize("labels", [LABELS % 6, np.stack([LABELS % 6, OTHERS % 6, PARTS], 1)])
def test_genus_and_family_heads_add_their_cross_entropies(labels: np.ndarray) -> None:
    names = np.array(["A a", "A b", "B a", "C a", "D a", "D b"])
    genera, families = np.array(list("AABCDD")), np.array(list("XXXYYY"))
    species = LabelMap(names, np.arange(6), genera, families)
    profile = replace(load_profile("smoke"), genus_weight=0.5, family_weight=0.25, loss="focal")
    logits = np.random.default_rng(2).normal(size=(5, 6 + 4 + 2)).astype(np.float32)
    keras = tf.keras.losses.SparseCategoricalCrossentropy(True, reduction="none")
    genus, family = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 0, 0, 1, 1, 1])

    def one(classes: np.ndarray) -> np.ndarray:
        classes = classes.astype(np.int32)
        own = Focal(2.0).call(classes, logits[:, :6]).numpy()
        return (
            own + 0.5 * keras(genus[classes], logits[:, 6:10]) + 0.25 * keras(family[classes], logits[:, 10:])
        )

    mixed = labels.ndim == 2
    expected = PARTS * one(labels[:, 0]) + (1 - PARTS) * one(labels[:, 1]) if mixed else one(labels)
    found = both_ways(losses.make_loss(profile, COUNTS[:6], species), labels.astype(np.float32), logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cross_entropy", SparseCrossentropy),
        ("balanced_softmax", LogitAdjusted),
        ("logit_adjusted", LogitAdjusted),
        ("focal", Focal),
        ("arcface", ArcFace),
    ],
)
def test_a_profile_chooses_the_loss_and_its_weights(name: str, kind: type) -> None:
    profile = replace(load_profile("smoke"), loss=name, class_weights="inverse", label_smoothing=0.2, tau=0.5)
    loss = losses.make_loss(profile, COUNTS)
    assert type(loss) is kind and loss.label_smoothing == 0.2
    assert loss.class_weights[1] > loss.class_weights[0] and loss.class_weights[3] == 0
    assert getattr(loss, "tau", None) == {"balanced_softmax": 1.0, "logit_adjusted": 0.5}.get(name)
