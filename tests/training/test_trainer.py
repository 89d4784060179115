"""A training step: the classifier's heads, moving average, accumulation, and what changes between epochs."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tiny

from utils.config import Profile, load_profile
from utils.data.labels import LabelMap
from utils.data.pixels import augmented_on_device
from utils.training.losses import make_loss
from utils.training.network import (
    CosineClassifier,
    NoiseClock,
    StepDropout,
    _rescaling,
    build_model,
    classifier,
    last_feature_map,
    under_policy,
)
from utils.training.optimizer import sgdw
from utils.training.trainer import Trainer, WeightAverage, stays_random

LABELS = LabelMap(
    names=np.array(["A a", "A b", "B a", "C a", "D a", "D b"]),
    category_ids=np.arange(6),
    genera=np.array(list("AABCDD")),
    families=np.array(list("XXXYYY")),
)
COUNTS = np.array([40, 7, 20, 10, 12, 30])
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
CLASSES = np.arange(12, dtype=np.int32) % 6


def trainer(profile: Profile, network: tf.keras.Model | None = None, rate: float = 0.1) -> Trainer:
    tf.keras.utils.set_random_seed(0)
    return Trainer(
        network or tiny.tiny_network(profile, 6, None),
        profile,
        LABELS,
        optimizer=sgdw(rate, 0.0, 0.9),
        loss=make_loss(profile, COUNTS, LABELS),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


def weights(model: tf.keras.Model) -> dict[str, np.ndarray]:
    return {weight.name: weight.numpy() for weight in model.weights}


def changed(before: dict[str, np.ndarray], model: tf.keras.Model) -> set[str]:
    """Names of the layers of which a weight is another than before."""
    after = weights(model)
    return {name.split("/")[0] for name in before if not np.array_equal(before[name], after[name])}


def test_a_network_in_mixed_precision_has_its_loss_scaled() -> None:
    profile = tiny.tiny_profile(1)
    assert not hasattr(trainer(profile).optimizer, "get_scaled_loss")
    with under_policy("mixed_float16"):
        network = tiny.tiny_network(profile, 6, None)
    half = trainer(profile, network)
    assert half.optimizer.initial_scale > 1
    before = weights(half)
    half.fit(IMAGES, CLASSES, batch_size=6, verbose=0)
    assert half.optimizer.iterations.numpy() == 2 and changed(before, half)
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_a_step_with_resize_in_the_model_is_the_step_on_what_the_device_makes_of_the_crops() -> None:
    crops = np.random.default_rng(1).integers(0, 256, (12, 40, 40, 3)).astype(np.uint8)
    numbers = np.random.default_rng(2).random((12, 5)).astype(np.float32)
    images = augmented_on_device(tf.constant(crops), tf.constant(numbers), image_size=32, augment="light")
    resized, plain = trainer(tiny.tiny_profile(1, resize="model")), trainer(tiny.tiny_profile(1))
    before = weights(plain)
    resized.fit((crops, numbers), CLASSES, batch_size=12, shuffle=False, verbose=0)
    plain.fit(images, CLASSES, batch_size=12, shuffle=False, verbose=0)
    assert changed(before, plain)
    for name, weight in weights(plain).items():
        np.testing.assert_allclose(weights(resized)[name], weight, rtol=1e-4, atol=1e-5)


# Heads


def test_the_cosine_classifier_takes_the_nearest_centre_of_each_class() -> None:
    layer = CosineClassifier(4, centres=3, scale=20.0)
    features = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    eager = layer(features).numpy()
    kernel = layer.kernel.numpy()
    expected = np.empty((5, 4))
    for row, x in enumerate(features):
        for label in range(4):
            centres = kernel[:, 3 * label : 3 * label + 3].T
            expected[row, label] = max(x @ w / np.linalg.norm(x) / np.linalg.norm(w) for w in centres)
    np.testing.assert_allclose(eager, 20 * expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tf.function(layer)(features), eager, rtol=1e-5)
    again = CosineClassifier.from_config(layer.get_config())
    assert (again.classes, again.centres, again.scale) == (4, 3, 20.0)


def test_heads_for_genus_and_family_stand_beside_that_of_the_species() -> None:
    profile = tiny.tiny_profile(1, genus_weight=0.5, family_weight=0.2)
    network = tiny.tiny_network(profile, 6, None)
    species = network(IMAGES).numpy()
    model = trainer(profile, network)
    logits = model(IMAGES).numpy()
    assert logits.shape == (12, 6 + 4 + 2) and logits.dtype == np.float32
    np.testing.assert_array_equal(logits[:, :6], species)
    before = weights(model)
    model.fit(IMAGES, CLASSES, verbose=0)
    assert {"genus_logits", "family_logits", "logits"} <= changed(before, model)
    only_genus = trainer(replace(profile, family_weight=0.0))
    assert only_genus.output_shape == (None, 10)


def test_scores_are_of_the_species_head_and_of_the_larger_part() -> None:
    profile = tiny.tiny_profile(1, genus_weight=0.5, dropout=0.0)
    model = trainer(profile)
    model.get_layer("genus_logits").bias.assign([50.0, 0, 0, 0])  # larger than any of the species
    best = model(IMAGES).numpy()[:, :6].argmax(axis=1)
    score = model.evaluate(IMAGES, best, verbose=0, return_dict=True)
    assert score["accuracy"] == 1.0
    mixed = np.stack([best, (best + 1) % 6, np.full(12, 0.6)], axis=1).astype(np.float32)
    assert model.evaluate(IMAGES, mixed, verbose=0, return_dict=True)["accuracy"] == 1.0
    mixed[:, 2] = 0.4
    assert model.evaluate(IMAGES, mixed, verbose=0, return_dict=True)["accuracy"] == 0.0


# The moving average


def test_the_moving_average_is_that_of_tensorflow() -> None:
    weight = tf.Variable([1.0, -2.0])
    ours = WeightAverage([weight], 0.9)
    steps = tf.Variable(0)
    theirs = tf.train.ExponentialMovingAverage(0.9, num_updates=steps)
    theirs.apply([weight])
    in_graph = tf.function(ours.update)
    for step in range(1, 120):
        weight.assign([np.sin(step), step / 10])
        steps.assign(step)
        theirs.apply([weight])
        (in_graph if step % 2 else ours.update)(steps)
    np.testing.assert_allclose(ours.averages[0], theirs.average(weight), rtol=1e-5)


def test_the_average_is_scored_and_the_weights_come_back() -> None:
    model = trainer(tiny.tiny_profile(1, ema=0.5))
    model.fit(IMAGES, CLASSES, batch_size=4, epochs=2, verbose=0)
    trained = model.get_weights()
    with model.averaged():
        for weight, average in zip(model.weights, model.average.averages, strict=True):
            np.testing.assert_array_equal(weight, average)
        assert not np.array_equal(model.get_weights()[0], trained[0])
    for before, after in zip(trained, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_without_an_average_the_weights_are_scored() -> None:
    model = trainer(tiny.tiny_profile(1))
    assert model.average is None
    before = weights(model)
    with model.averaged():
        assert not changed(before, model)


# Accumulation


@pytest.mark.parametrize("mixed", [False, True])
def test_parts_of_a_batch_make_the_step_of_the_whole(mixed: bool) -> None:
    def plain_network() -> tf.keras.Model:
        """Without batch normalisation and dropout, which see the parts one by one."""
        tf.keras.utils.set_random_seed(3)
        images = tf.keras.Input((32, 32, 3))
        layer = _rescaling("tf")(images)
        layer = tf.keras.layers.Conv2D(4, 3, strides=4, activation="relu")(layer)
        layer = tf.keras.layers.GlobalAveragePooling2D(name="avg_pool")(layer)
        model = tf.keras.Model(images, tf.keras.layers.Dense(6, name="logits")(layer))
        model.rescale_mode, model.noise_clock = "tf", NoiseClock()
        return model

    labels = CLASSES
    if mixed:
        labels = np.stack([CLASSES, CLASSES[::-1], np.linspace(0, 1, 12)], axis=1).astype(np.float32)
    after, figures = [], []
    for parts in (1, 4):
        profile = tiny.tiny_profile(1, batch_size=12, accumulate=parts, class_weights="class_balanced")
        model = trainer(profile, plain_network())
        history = model.fit(IMAGES, labels, batch_size=12, epochs=3, shuffle=False, verbose=0).history
        after.append(model.get_weights())
        figures.append(history)
        assert int(model.optimizer.iterations) == 3
    for whole, parted in zip(*after, strict=True):
        np.testing.assert_allclose(parted, whole, rtol=1e-4, atol=1e-6)
    assert figures[1]["loss"] == pytest.approx(figures[0]["loss"], rel=1e-5)
    assert figures[1]["accuracy"] == figures[0]["accuracy"]


def test_every_part_has_noise_of_its_own() -> None:
    clock = NoiseClock()
    layer = StepDropout(0.5, 1, clock)
    ones = tf.ones([4, 64])
    masks = []
    for part in range(3):
        clock.part = part
        masks.append(layer(ones, training=True).numpy())
    assert not np.array_equal(masks[0], masks[1]) and not np.array_equal(masks[1], masks[2])
    clock.part = 0
    np.testing.assert_array_equal(layer(ones, training=True), masks[0])


# From epoch to epoch


def test_a_frozen_backbone_stays_as_it_is_and_then_learns() -> None:
    profile = tiny.tiny_profile(3, frozen_epochs=1, genus_weight=0.3)
    model = trainer(profile)
    before = weights(model)
    model.prepare(0)
    model.fit(IMAGES, CLASSES, verbose=0)
    assert changed(before, model) == {"logits", "genus_logits"}
    model.prepare(1)
    before = weights(model)
    model.fit(IMAGES, CLASSES, verbose=0)
    assert changed(before, model) == {"conv", "bn", "logits", "genus_logits"}


def test_deferred_weights_count_from_their_part_of_the_run_on() -> None:
    settings = {"class_weights": "class_balanced", "class_balanced_n": 50}
    profile = tiny.tiny_profile(4, class_weights_from=0.6, **settings)
    model = trainer(profile)
    always, never = (trainer(tiny.tiny_profile(4, **options)) for options in (settings, {}))
    for other in (always, never):
        other.set_weights(model.get_weights())
    expected = {
        name: other.evaluate(IMAGES, CLASSES, verbose=0)[0]
        for name, other in (("weighted", always), ("plain", never))
    }
    assert expected["weighted"] != pytest.approx(expected["plain"], rel=1e-3)
    for epoch, name in ((0, "plain"), (2, "plain"), (3, "weighted"), (1, "plain")):
        model.prepare(epoch)
        assert model.evaluate(IMAGES, CLASSES, verbose=0)[0] == pytest.approx(expected[name], rel=1e-6)


def test_one_network_takes_all_sizes_of_a_growing_image() -> None:
    options = {"loss": "arcface", "arcface_centres": 2, "arcface_scale": 8}
    profile = load_profile("smoke", image_size=64, first_image_size=32, epochs=4, **options)
    model = build_model(profile, 5)
    assert model.get_layer("logits").kernel.shape == (1280, 10)
    assert model.input_shape == (None, None, None, 3)
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    feature_map = tf.keras.Model(model.input, model.get_layer(last_feature_map(model)).output)
    assert np.abs(model(images)).max() <= 8
    assert model(images).shape == model(images[:, :32, :32]).shape == (2, 5)
    assert (feature_map(images).shape[1], feature_map(images[:, :32, :32]).shape[1]) == (2, 1)


def test_a_worker_that_gets_nothing_of_the_last_batch_leaves_the_figures_as_they_are() -> None:
    profile = tiny.tiny_profile(1)
    images = layer = tf.keras.Input((32, 32, 3))
    for filters, kernel in ((8, 3), (16, 1)):  # TensorFlow refuses them on a CPU when there are no images
        layer = tf.keras.layers.Conv2D(filters, kernel, use_bias=False)(layer)
        layer = tf.keras.layers.BatchNormalization()(layer)
        layer = tf.keras.layers.Activation("swish")(layer)
    layer = tf.keras.layers.GlobalAveragePooling2D(name="avg_pool")(layer)
    network = tf.keras.Model(images, classifier(profile, 6)(layer))
    network.rescale_mode, network.noise_clock = "tf", NoiseClock()
    model = trainer(profile, network)
    step = tf.function(model.test_step, reduce_retracing=True)
    step((IMAGES[:3], CLASSES[:3]))
    some = {name: value.numpy() for name, value in step((IMAGES, CLASSES)).items()}
    none = step((tf.zeros((0, 32, 32, 3), tf.uint8), tf.zeros(0, tf.int32)))
    assert {name: value.numpy() for name, value in none.items()} == some
    assert np.isfinite(list(some.values())).all()


@pytest.mark.parametrize(
    ("name", "overrides", "left"),
    [
        ("sheets", {}, False),
        ("sheets", {"weights": "random"}, True),
        ("laptop", {"weights": "random"}, True),  # it freezes four stages
        ("laptop", {"weights": "random", "frozen_stages": 0}, False),
        ("scratch", {}, False),
        ("scratch", {"fixed_statistics": True}, True),
        ("scratch", {"frozen_epochs": 20}, True),
    ],
)
def test_it_is_known_where_frozen_parts_would_stay_random(name, overrides, left):
    assert stays_random(load_profile(name, **overrides)) == left
