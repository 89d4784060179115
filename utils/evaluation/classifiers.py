"""Decoupling: keep what the network sees, learn its classifier anew. Seconds a method, on cached features.

Kang et al. (2020, Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217): a
network trained on all images as they come has good features, and it is mostly its classifier that neglects
rare classes.
"""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from utils.data.tail import class_counts, class_weights, logit_adjustment
from utils.files import InputError, UsageError, replacing
from utils.training.losses import Focal, LogitAdjusted, SparseCrossentropy
from utils.training.weights import CLASSIFIER

# a class with n images is drawn as often as n ** power says
SAMPLINGS = {"instance": 1.0, "square_root": 0.5, "class_balanced": 0.0}


@dataclass(frozen=True)
class Features:
    """What a network's classifier gets to see of N images: float32 [N, F], and their classes, int32 [N]."""

    features: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def save(self, path: Path) -> Path:
        """Write an .npz file, whole. 1,280 features of 1,173 images are 6 MB, of 839,772 images 4.3 GB."""
        with replacing(Path(path)) as temporary:
            np.savez(temporary, features=self.features, classes=self.classes)
        return Path(path)

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is missing or holds no features.
        """
        try:
            with np.load(path) as stored:
                return cls(stored["features"], stored["classes"])
        except FileNotFoundError:
            raise InputError(f"{path}: no such file. Extract the features again.") from None
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile):
            raise InputError(f"{path}: not a file of features. Extract them again.") from None


@dataclass(frozen=True)
class Linear:
    """A linear classifier: kernel float32 [F, C], bias float32 [C]."""

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 [N, C] of float32 [N, F]."""
        return features @ self.kernel + self.bias

    def predicted(self, features: np.ndarray, chunk: int = 4096) -> np.ndarray:
        """The best class of every image, int64 [N]; some thousand images at a time."""
        parts = [features[start : start + chunk] for start in range(0, len(features), chunk)]
        return np.concatenate([self.logits(part).argmax(axis=1) for part in parts])


def extract_features(
    network: tf.keras.Model,
    dataset: Iterable,
    *,
    total: int | None = None,
    progress: bool = True,
    cache: Path | None = None,
) -> Features:
    """One pass over images, without augmentation, to what the classifier would get.

    Args:
        network: from `build_model` or `load_trained`.
        dataset: batches of (images, classes, ...), from evaluation_dataset(); `only_ids` takes the train part.
        total: number of images, for the time left in the bar.
        cache: file that keeps them: it is read where it is there, and written where not. Name it by the network.

    Raises:
        InputError: the data set gave no image, or `cache` is damaged.
    """
    from tqdm import tqdm

    if cache is not None and cache.exists():
        return Features.load(cache)

    body = tf.keras.Model(network.input, network.get_layer(CLASSIFIER).input)
    run = None
    features, classes = [], []
    with tqdm(total=total, unit=" sheets", desc="features", disable=not progress) as bar:
        for images, labels, *_ in dataset:
            if run is None:  # one graph for batches of all lengths
                batch = tf.TensorSpec([None, *images.shape[1:]], images.dtype)
                run = tf.function(
                    lambda x: tf.cast(body(x, training=False), tf.float32), input_signature=[batch]
                )
            features.append(run(images).numpy())
            classes.append(np.asarray(labels, dtype=np.int32))
            bar.update(len(classes[-1]))
    if not features:
        raise InputError("There was no image to take features of. Check the shards and the chosen image ids.")
    found = Features(np.concatenate(features), np.concatenate(classes))
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        found.save(cache)
    return found


def classifier_of(network: tf.keras.Model) -> Linear:
    """The classifier that a network was trained with.

    Raises:
        UsageError: it is not linear, as with ArcFace.
    """
    layer = network.get_layer(CLASSIFIER)
    if not isinstance(layer, tf.keras.layers.Dense):
        raise UsageError(f"The classifier is a {type(layer).__name__}; only a dense one can be taken apart.")
    return Linear(*layer.get_weights())


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
