"""What the number of species costs: the head and its loss in a training step, and the score at full size."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.harness import Bench, Stage, Target, repeated
from benchmarks.inputs import BATCH, CLASSES, tensorflow

FEATURES = 1280  # that B0 gives of an image
TEST_IMAGES = 210_407


def _classes(bench: Bench) -> int:
    return 151 if bench.quick else CLASSES


def _head(classes: int) -> Any:
    """What stands on B0's pooled features: one dense layer, and a scale that wants the features' gradient."""
    import tensorflow as tf

    from utils.config import load_profile
    from utils.training.network import NoiseClock, classifier

    class Backbone(tf.keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight("scale", shape[1:], initializer="ones")

        def call(self, features: Any) -> Any:
            return features * self.scale

    profile = load_profile("laptop", batch_size=BATCH)
    features = tf.keras.Input([FEATURES])
    network = tf.keras.Model(features, classifier(profile, classes)(Backbone()(features)))
    network.rescale_mode, network.noise_clock = "tf", NoiseClock()
    return profile, network


def _batch(classes: int) -> tuple[Any, Any]:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    features = tf.constant(rng.random((BATCH, FEATURES)), tf.float32)
    return features, tf.constant(rng.integers(0, classes, BATCH), tf.int32)


def _training(bench: Bench, model: Any, batch: tuple[Any, Any]) -> Callable[[], float]:
    import tensorflow as tf

    step = tf.function(model.train_step)
    for _ in range(2):
        step(batch)
    return repeated(bench, lambda: step(batch))


def ours(bench: Bench) -> Callable[[], float]:
    """Sparse labels, smoothing from the logits alone, macro-F1 by three counters a class."""
    tf = tensorflow()
    from utils.training.losses import SparseMacroF1, make_loss
    from utils.training.optimizer import sgdw
    from utils.training.trainer import Trainer

    classes = _classes(bench)
    profile, network = _head(classes)
    model = Trainer(
        network,
        profile,
        SimpleNamespace(n_classes=classes),
        optimizer=sgdw(0.01, profile.weight_decay, profile.momentum),
        loss=make_loss(profile, np.ones(classes, int)),
        metrics=[SparseMacroF1(classes), tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return _training(bench, model, _batch(classes))


def published(bench: Bench) -> Callable[[], float]:
    """Dense one-hot labels, a softmax layer, categorical cross-entropy and F1 of all classes at every step.

    The F1 is what tensorflow-addons' F1Score does with threshold None, which installs on Python 3.11 only.
    """
    tf = tensorflow()
    from utils.training.optimizer import sgdw

    classes = _classes(bench)

    class DenseF1(tf.keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="f1_score")
            names = ("right", "wrong", "missed")
            self.counters = [self.add_weight(name, [classes], initializer="zeros") for name in names]

        def update_state(self, true: Any, guess: Any, sample_weight: Any = None) -> None:
            largest = tf.reduce_max(guess, axis=-1, keepdims=True)
            chosen = tf.cast(tf.logical_and(guess >= largest, tf.abs(guess) > 1e-12), tf.float32)
            parts = (chosen * true, chosen * (1 - true), (1 - chosen) * true)
            for counter, part in zip(self.counters, parts, strict=True):
                counter.assign_add(tf.reduce_sum(part, axis=0))

        def result(self) -> Any:
            right, wrong, missed = self.counters
            precision = tf.math.divide_no_nan(right, right + wrong)
            recall = tf.math.divide_no_nan(right, right + missed)
            return tf.math.divide_no_nan(2 * precision * recall, precision + recall)

    profile, network = _head(classes)
    model = tf.keras.Model(network.input, tf.keras.layers.Softmax()(network.output))
    model.compile(
        optimizer=sgdw(0.01, profile.weight_decay, profile.momentum),
        loss=tf.keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=[DenseF1()],
    )
    features, labels = _batch(classes)
    return _training(bench, model, (features, tf.one_hot(labels, classes)))


def three_matmuls(bench: Bench) -> Callable[[], float]:
    """The head's products: logits, gradient of its weights, gradient of the features."""
    tf = tensorflow()
    rng = np.random.default_rng(0)
    classes = _classes(bench)
    shapes = ([BATCH, FEATURES], [FEATURES, classes], [BATCH, classes])
    features, weights, gradient = (tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes)

    @tf.function
    def products() -> Any:
        return (
            tf.matmul(features, weights),
            tf.matmul(features, gradient, transpose_a=True),
            tf.matmul(gradient, weights, transpose_b=True),
        )

    products()
    return repeated(bench, products)


# ---------------------------------------------------------------- the score


def scores_and_report(bench: Bench) -> Callable[[], float]:
    """Macro-F1, accuracy, F1 of every class, and the tables of notebook 04, of all test images at once."""
    from utils.data.labels import LabelMap
    from utils.evaluation import scores
    from utils.evaluation.scores import overall_scores, per_class_f1

    classes, images = _classes(bench), TEST_IMAGES // (100 if bench.quick else 1)
    rng = np.random.default_rng(0)
    true = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    predicted = np.where(rng.random(images) < 0.8, true, rng.integers(0, classes, images))
    counts = rng.integers(5, 81, classes)
    number = np.arange(classes)
    labels = LabelMap(  # 6 species a genus, 9 genera a family, as in the published set
        names=np.char.mod("Species %05d", number),
        category_ids=number,
        genera=np.char.mod("Genus %04d", number // 6),
        families=np.char.mod("Family %03d", number // 54),
    )

    def run() -> float:
        overall_scores(true, predicted, classes)
        per_class_f1(true, predicted, classes)
        scores.scores_by_bin(true, predicted, counts)
        scores.scores_by_family(true, predicted, labels, counts)
        scores.mistakes_by_kind(true, predicted, labels)
        return 1

    return run


STAGES = (
    Stage(
        "training step, 15,501 classes",
        "ms",
        {"ours": ours, "published": published, "limit": three_matmuls},
        (Target("speed / published", 1.5),),
        note="Milliseconds of a step of 32 images for what stands on the features of B0. Ours and the published "
        "way include the same optimizer's pass over 19.8 million weights, the limit does not.",
    ),
    Stage(
        "macro-F1 and report, full size",
        "s",
        {"ours": scores_and_report},
        (Target("seconds", 2), Target("MB", 500)),
        note="210,407 test images of 15,501 species, from class indices; with the tables by bin and family.",
    ),
)
