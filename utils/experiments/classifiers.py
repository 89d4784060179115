"""Decoupling: keep what the network sees, learn its classifier anew. Seconds a method, on cached features.

Kang et al. (2020, Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217): a
network trained on all images as they come has good features, and it is mostly its classifier that neglects
rare classes.
"""

import numpy as np
import tensorflow as tf

from utils.data.tail import class_counts, class_weights, logit_adjustment
from utils.files import InputError, UsageError
from utils.training.features import Features, Linear
from utils.training.losses import Focal, LogitAdjusted, SparseCrossentropy

# a class with n images is drawn as often as n ** power says
SAMPLINGS = {"instance": 1.0, "square_root": 0.5, "class_balanced": 0.0}


def retrain(
    train: Features,
    n_classes: int,
    *,
    loss: SparseCrossentropy | None = None,
    sampling: str = "class_balanced",
    start: Linear | None = None,
    epochs: int = 30,
    batch_size: int = 128,
    learning_rate: float = 0.01,
    seed: int = 0,
) -> Linear:
    """Classifier re-training (cRT of Kang et al. 2020): a new classifier on features that stay as they are.

    With `sampling` "instance" every image comes once an epoch; "class_balanced" draws every class equally
    often, "square_root" as the root of its images. Kang et al. use SGD; this is Adam with a cosine down to 0,
    which needs no search for a learning rate.

    Args:
        loss: cross-entropy without it; any loss of `utils.training.losses` that takes logits.
        start: go on from this classifier; a new one starts at 0.

    Raises:
        UsageError: the sampling is not known.
    """
    width = train.features.shape[1]
    start = start or Linear(np.zeros((width, n_classes), np.float32), np.zeros(n_classes, np.float32))
    kernel, bias = tf.Variable(start.kernel), tf.Variable(start.bias)
    _fit(
        lambda features: tf.matmul(features, kernel) + bias,
        [kernel, bias],
        *(train, n_classes, loss, sampling, epochs, batch_size, learning_rate, seed),
    )
    return Linear(kernel.numpy(), bias.numpy())


def learn_scales(
    classifier: Linear,
    train: Features,
    *,
    sampling: str = "class_balanced",
    epochs: int = 30,
    batch_size: int = 128,
    learning_rate: float = 0.01,
    seed: int = 0,
) -> Linear:
    """Learnable weight scaling (LWS of Kang et al. 2020): one factor a class, all else stays.

    A class's weights keep their direction; only their length, and that of its bias, is learnt.
    """
    n_classes = len(classifier.bias)
    scales = tf.Variable(tf.ones(n_classes))
    kernel, bias = tf.constant(classifier.kernel), tf.constant(classifier.bias)
    _fit(
        lambda features: scales * (tf.matmul(features, kernel) + bias),
        [scales],
        *(train, n_classes, None, sampling, epochs, batch_size, learning_rate, seed),
    )
    return Linear(classifier.kernel * scales.numpy(), classifier.bias * scales.numpy())


def tau_normalised(classifier: Linear, tau: float) -> Linear:
    """tau-normalisation (Kang et al. 2020): weights of a class over their length ** tau, without bias.

    Common classes have longer weights; tau = 1 makes all equally long, tau = 0 changes only the bias.
    """
    lengths = np.linalg.norm(classifier.kernel, axis=0)
    kernel = classifier.kernel / np.maximum(lengths, 1e-12) ** tau
    return Linear(kernel.astype(np.float32), np.zeros_like(classifier.bias))


def adjusted(classifier: Linear, counts: np.ndarray, tau: float = 1.0) -> Linear:
    """Post-hoc logit adjustment (Menon et al. 2021, arXiv:2007.07314): bias - tau x log share of the class."""
    return Linear(classifier.kernel, classifier.bias - logit_adjustment(counts, tau))


def classifier_methods(own: Linear, train: Features, *, tau: float = 1.0, seed: int = 0) -> dict[str, Linear]:
    """Fourteen classifiers on the same features, by name; some ten seconds for 1,173 images of 40 species.

    Args:
        own: the network's own classifier, from `classifier_of`.
        tau: strength of the logit adjustments and of tau-normalisation.
    """
    n_classes = len(own.bias)
    counts = class_counts(train.classes, n_classes)
    weights = class_weights(counts, "class_balanced", 100)

    def new(loss: SparseCrossentropy | None = None, sampling: str = "instance", **options: Linear) -> Linear:
        return retrain(train, n_classes, loss=loss, sampling=sampling, seed=seed, **options)

    plain = new()
    return {
        "the network's own": own,
        "post-hoc logit adjustment": adjusted(own, counts, tau),
        "tau-normalisation, half": tau_normalised(own, tau / 2),
        "tau-normalisation": tau_normalised(own, tau),
        "learnable scaling": learn_scales(own, train, seed=seed),
        "cross-entropy": plain,
        "label smoothing": new(SparseCrossentropy(0.1)),
        "square-root sampling": new(sampling="square_root"),
        "class-balanced sampling (cRT)": new(sampling="class_balanced"),
        "class-balanced weights": new(SparseCrossentropy(class_weights=weights)),
        "deferred re-weighting": new(SparseCrossentropy(class_weights=weights), start=plain),
        "focal": new(Focal()),
        "balanced softmax": new(LogitAdjusted(counts)),
        "balanced softmax, smoothed": new(LogitAdjusted(counts, label_smoothing=0.1)),
    }


def draws(classes: np.ndarray, sampling: str, generator: np.random.Generator) -> np.ndarray:
    """Numbers of the images of one epoch, int64 [N].

    Raises:
        UsageError: the sampling is not known.
    """
    if sampling not in SAMPLINGS:
        raise UsageError(f"sampling is {sampling!r}, must be one of {', '.join(SAMPLINGS)}.")
    if sampling == "instance":
        return generator.permutation(len(classes))
    counts = np.bincount(classes)
    odds = counts[classes] ** (SAMPLINGS[sampling] - 1)
    return generator.choice(len(classes), size=len(classes), p=odds / odds.sum())


def _fit(
    logits, variables, train, n_classes, loss, sampling, epochs, batch_size, learning_rate, seed
) -> None:
    """Minimise the loss of logits(features) by its variables."""
    if len(train) and not 0 <= train.classes.min() <= train.classes.max() < n_classes:
        raise InputError(
            f"Features have classes {train.classes.min()} to {train.classes.max()} of {n_classes}."
        )
    loss = loss or SparseCrossentropy()
    generator = np.random.default_rng(seed)
    batch_size = min(batch_size, len(train))
    steps = len(train) // batch_size
    schedule = tf.keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)
    optimizer = tf.keras.optimizers.Adam(schedule)
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(features: tf.Tensor, classes: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss.call(classes, logits(features)))
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))

    for _ in range(epochs):
        order = draws(train.classes, sampling, generator)
        for start in range(0, steps * batch_size, batch_size):
            rows = order[start : start + batch_size]
            step(train.features[rows], train.classes[rows])
