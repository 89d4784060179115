"""Classifiers on cached features, against scikit-learn and numpy."""

import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny
from sklearn.linear_model import LogisticRegression

from utils.experiments import classifiers
from utils.files import InputError, UsageError
from utils.training.features import Features, Linear, classifier_of, extract_features
from utils.training.losses import LogitAdjusted, SparseCrossentropy

CLASSES = 5
COUNTS = np.array([100, 60, 30, 12, 6])


def clouds(counts: np.ndarray, width: int = 16, seed: int = 1) -> Features:
    """Overlapping normal clouds around fixed centres."""
    centres = np.random.default_rng(0).normal(size=(len(counts), width))
    classes = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).normal(scale=1.6, size=(len(classes), width))
    return Features((centres[classes] + noise).astype(np.float32), classes.astype(np.int32))


TRAIN, TEST = clouds(COUNTS), clouds(np.full(CLASSES, 200), seed=2)


def recall(classifier: Linear) -> np.ndarray:
    predicted = classifier.predicted(TEST.features)
    return np.array([(predicted[TEST.classes == label] == label).mean() for label in range(CLASSES)])


def test_features_are_what_the_classifier_sees() -> None:
    network = tiny.tiny_network(tiny.tiny_profile(1), CLASSES, None)
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    classes = np.arange(10, dtype=np.int32) % CLASSES
    ids = [str(number) for number in range(10)]
    dataset = tf.data.Dataset.from_tensor_slices((images, classes, ids)).batch(4)
    found = extract_features(network, dataset, progress=False)
    assert found.features.shape == (10, 8) and found.features.dtype == np.float32
    np.testing.assert_array_equal(found.classes, classes)
    own = classifier_of(network)
    np.testing.assert_allclose(own.logits(found.features), network(images), atol=1e-4)
    np.testing.assert_array_equal(
        own.predicted(found.features, chunk=3), network(images).numpy().argmax(axis=1)
    )
    with pytest.raises(InputError, match="no image"):
        extract_features(network, dataset.take(0), progress=False)


def test_only_a_dense_classifier_comes_apart() -> None:
    network = tiny.tiny_network(tiny.tiny_profile(1, loss="arcface"), CLASSES, None)
    with pytest.raises(UsageError, match="CosineClassifier"):
        classifier_of(network)


def test_features_are_saved_whole_and_read_back(tmp_path: Path) -> None:
    back = Features.load(TRAIN.save(tmp_path / "features.npz"))
    np.testing.assert_array_equal(back.features, TRAIN.features)
    np.testing.assert_array_equal(back.classes, TRAIN.classes)
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        Features.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"text")
    with pytest.raises(InputError, match=r"bad\.npz: not a file of features"):
        Features.load(tmp_path / "bad.npz")


def test_retraining_finds_what_scikit_learn_finds() -> None:
    many = clouds(10 * COUNTS)  # enough of them to overlap, so that there is one best classifier
    ours = classifiers.retrain(
        many, CLASSES, sampling="instance", epochs=400, batch_size=2080, learning_rate=0.05
    )
    theirs = LogisticRegression(C=1e6, max_iter=2000).fit(many.features, many.classes)
    assert (ours.predicted(TEST.features) == theirs.predict(TEST.features)).mean() > 0.98
    loss = SparseCrossentropy()
    expected = float(loss(many.classes, theirs.decision_function(many.features).astype(np.float32)))
    assert float(loss(many.classes, ours.logits(many.features))) == pytest.approx(expected, rel=0.02)


def test_the_same_seed_gives_the_same_classifier() -> None:
    first, again, other = (classifiers.retrain(TRAIN, CLASSES, epochs=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.kernel, again.kernel)
    assert not np.array_equal(first.kernel, other.kernel)


def test_sampling_draws_classes_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    drawn = np.concatenate([classifiers.draws(TRAIN.classes, "class_balanced", generator) for _ in range(50)])
    shares = np.bincount(TRAIN.classes[drawn]) / len(drawn)
    assert shares == pytest.approx(np.full(5, 0.2), abs=0.02)
    drawn = np.concatenate([classifiers.draws(TRAIN.classes, "square_root", generator) for _ in range(50)])
    expected = np.sqrt(COUNTS) / np.sqrt(COUNTS).sum()
    assert np.bincount(TRAIN.classes[drawn]) / len(drawn) == pytest.approx(expected, abs=0.02)
    once = classifiers.draws(TRAIN.classes, "instance", generator)
    np.testing.assert_array_equal(np.sort(once), np.arange(len(TRAIN)))
    with pytest.raises(UsageError, match="instance, square_root, class_balanced"):
        classifiers.draws(TRAIN.classes, "balanced", generator)


def test_balancing_moves_recall_from_the_head_to_the_tail() -> None:
    plain = recall(classifiers.retrain(TRAIN, CLASSES, sampling="instance"))
    for balanced in (
        classifiers.retrain(TRAIN, CLASSES, sampling="class_balanced"),
        classifiers.retrain(TRAIN, CLASSES, sampling="instance", loss=LogitAdjusted(COUNTS)),
    ):
        found = recall(balanced)
        assert found[4] > plain[4] + 0.05 and found[0] < plain[0]


def test_tau_normalisation_divides_by_the_length_to_the_power_of_tau() -> None:
    own = Linear(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.ones(3, np.float32))
    for tau in (0.0, 0.5, 1.0):
        found = classifiers.tau_normalised(own, tau)
        for label in range(3):
            column = own.kernel[:, label]
            np.testing.assert_allclose(
                found.kernel[:, label], column / np.sqrt((column**2).sum()) ** tau, rtol=1e-5
            )
        assert not found.bias.any()


def test_learnt_scales_change_lengths_and_no_directions() -> None:
    own = classifiers.retrain(TRAIN, CLASSES, sampling="instance")
    found = classifiers.learn_scales(own, TRAIN)
    factors = found.kernel / own.kernel
    np.testing.assert_allclose(factors, np.tile(factors[:1], (16, 1)), rtol=1e-4)
    np.testing.assert_allclose(found.bias, own.bias * factors[0], rtol=1e-4, atol=1e-6)
    assert recall(found)[4] > recall(own)[4]


def test_adjusting_a_classifier_is_adjusting_its_logits() -> None:
    own = classifiers.retrain(TRAIN, CLASSES, sampling="instance", epochs=2)
    shifted = own.logits(TEST.features) - 0.5 * np.log(COUNTS / COUNTS.sum())
    np.testing.assert_allclose(
        classifiers.adjusted(own, COUNTS, 0.5).logits(TEST.features), shifted, rtol=1e-4, atol=1e-4
    )


def test_classes_beyond_the_label_map_are_refused() -> None:
    with pytest.raises(InputError, match="classes 0 to 4 of 3"):
        classifiers.retrain(TRAIN, 3)


def test_a_dozen_methods_at_the_size_of_the_sample_flora_take_less_than_a_minute() -> None:
    counts = np.linspace(6, 52, 40).astype(int)
    train = clouds(counts, width=1280)
    assert 1100 < len(train) < 1250
    start = time.process_time()
    own = classifiers.retrain(train, 40, sampling="instance", epochs=3)
    methods = classifiers.classifier_methods(own, train, np.arange(40) // 4)
    assert time.process_time() - start < 120, "processor seconds, of two cores"
    assert len(methods) >= 18 and methods["the network's own"] is own
    assert list(methods) == list(classifiers.IDEAS), "each is explained"
    assert len(
        {classifier.kernel.tobytes() + classifier.bias.tobytes() for classifier in methods.values()}
    ) == (len(methods))


def test_features_are_kept_in_a_file_and_read_from_it(tmp_path):
    network = tf.keras.Sequential(
        [tf.keras.layers.Flatten(input_shape=(2, 2, 3)), tf.keras.layers.Dense(3, name="logits")]
    )
    batches = [(tf.random.stateless_uniform([4, 2, 2, 3], [1, 2]), tf.constant([0, 1, 2, 0]))]
    cache = tmp_path / "new" / "features.npz"
    first = extract_features(network, batches, progress=False, cache=cache)
    again = extract_features(network, [], progress=False, cache=cache)
    assert (again.features == first.features).all() and again.classes.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("centred", [False, True])
def test_a_nearest_mean_is_the_mean_of_the_smallest_angle(centred: bool) -> None:
    found = classifiers.nearest_mean(TRAIN, CLASSES + 1, centred=centred)  # the last class has no image
    centre = TRAIN.features.mean(axis=0) if centred else 0
    means = np.stack([TRAIN.features[TRAIN.classes == label].mean(axis=0) for label in range(CLASSES)])
    means, images = means - centre, TEST.features - centre
    lengths = np.linalg.norm(images, axis=1, keepdims=True) * np.linalg.norm(means, axis=1)
    cosines = images @ means.T / lengths
    logits = found.logits(TEST.features)
    scale = classifiers.COSINE_SCALE / np.linalg.norm(TRAIN.features - centre, axis=1).mean()
    expected = scale * cosines * np.linalg.norm(images, axis=1, keepdims=True)
    np.testing.assert_allclose(logits[:, :CLASSES], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(logits[:, CLASSES], 0, atol=1e-5)


def test_every_image_counts_the_same_for_the_means_of_rare_and_common_classes() -> None:
    found, plain = (
        recall(classifier)
        for classifier in (
            classifiers.nearest_mean(TRAIN, CLASSES),
            classifiers.retrain(TRAIN, CLASSES, sampling="instance"),
        )
    )
    assert found[4] > plain[4]


def test_a_species_gets_the_logits_of_its_genus_too() -> None:
    genus = np.array([0, 1, 0, 1, 2])
    found = classifiers.genus_beside_species(TRAIN, CLASSES, genus, 0.1)
    species = LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000)
    species.fit(TRAIN.features, TRAIN.classes)
    genera = LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000)
    genera.fit(TRAIN.features, genus[TRAIN.classes])
    both = species.decision_function(TEST.features) + genera.decision_function(TEST.features)[:, genus]
    np.testing.assert_allclose(found.logits(TEST.features), both, atol=0.02)
    alone = classifiers.genus_beside_species(TRAIN, CLASSES, np.zeros(CLASSES, int), 0.1)
    plain = classifiers.logistic_regression(TRAIN, CLASSES, 0.1)
    np.testing.assert_array_equal(alone.kernel, plain.kernel)


def test_class_balanced_weights_raise_the_tail() -> None:
    weighted = classifiers.retrain(
        TRAIN, CLASSES, sampling="instance", loss=classifiers.class_balanced(COUNTS)
    )
    assert recall(weighted)[4] > recall(classifiers.retrain(TRAIN, CLASSES, sampling="instance"))[4]


@pytest.mark.parametrize(
    ("settings", "mirrored"),
    [
        ({"augment": "upright", "weights": "imagenet"}, True),
        ({"augment": "none", "weights": "imagenet"}, False),
        ({"augment": "upright"}, False),
    ],
)
def test_mirror_images_are_learnt_from_where_training_has_them_and_starts_pretrained(
    settings, mirrored
) -> None:
    assert classifiers.learns_mirrored(tiny.tiny_profile(1, **settings)) == mirrored


def test_on_very_many_images_and_classes_regressions_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(classifiers, "REGRESSION_MOST", len(TRAIN) * CLASSES - 1)
    monkeypatch.setattr(classifiers, "retrain", lambda *_, **__: Linear(np.zeros((16, 5)), np.zeros(5)))
    own = Linear(np.ones((16, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    methods = classifiers.classifier_methods(own, TRAIN, np.arange(CLASSES))
    assert classifiers.IDEAS.keys() - methods.keys() == {"logistic regression", "genus beside species"}
