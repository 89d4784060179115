"""Decoupling: keep what the network sees, learn its classifier anew. Seconds a method, on cached features.

Every classifier is linear, so it takes the place of the network's own; `IDEAS` says in a sentence what each does.

Kang et al. (2020, Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217): a
network trained on all images as they come has good features, and it is mostly its classifier that neglects
rare classes.
"""

import numpy as np
import tensorflow as tf

from utils.config import Profile
from utils.data.tail import class_counts, class_weights, logit_adjustment
from utils.files import InputError, UsageError
from utils.training.features import Features, Linear, fit_regression
from utils.training.losses import Focal, LogitAdjusted, SparseCrossentropy

# a class with n images is drawn as often as n ** power says
SAMPLINGS = {"instance": 1.0, "square_root": 0.5, "class_balanced": 0.0}
STRENGTH = 0.3  # C of a logistic regression, where the profile sets no `regression`
WEIGHTS_N = 100  # of class-balanced weights
REGRESSION_MOST = 20_000_000  # images times classes; on more a regression would take hours
# Logits of a nearest mean are this times a cosine, for an image with features of mean length.
COSINE_SCALE = 30.0

# What each of `classifier_methods` does.
IDEAS = {
    "the network's own": "as training left it",
    "post-hoc logit adjustment": "the log of a species' share of the images is taken from its logit, so that being "
    "common counts for nothing (Menon et al. 2021)",
    "tau-normalisation, half": "the weights of common species, which are longer, are shortened by half as much as in "
    "tau-normalisation",
    "tau-normalisation": "the weights of every species are made equally long, since common ones have longer ones "
    "(Kang et al. 2020)",
    "learnable scaling": "one factor a species is learnt, every species drawn as often (LWS, Kang et al. 2020)",
    "cross-entropy": "learnt anew from all images as they come",
    "label smoothing": "learnt anew by cross-entropy, a tenth of the target spread over all species "
    "(Szegedy et al. 2016)",
    "square-root sampling": "learnt anew, a species drawn as often as the root of its images says "
    "(Mahajan et al. 2018)",
    "class-balanced sampling (cRT)": "learnt anew, every species drawn as often (Kang et al. 2020)",
    "class-balanced weights": "the loss of a rare species weighs more, by the effective number of its images, N = "
    f"{WEIGHTS_N} (Cui et al. 2019)",
    "deferred re-weighting": "learnt by cross-entropy first, then by class-balanced weights (Cao et al. 2019)",
    "focal": "learnt anew, sheets that are named right for sure already count less (Lin et al. 2017)",
    "balanced softmax": "while learning, the log of a species' share is added to its logit, so that the classifier "
    "need not learn it (Ren et al. 2020)",
    "balanced softmax, smoothed": "balanced softmax with a tenth of the target spread over all species",
    "nearest mean": "nothing but the mean of every species' features; the nearest by angle wins (Kang et al. 2020)",
    "nearest mean, centred": "nearest mean after the mean of all images is taken off, which all features have in "
    "common (Wang et al. 2019)",
    "logistic regression": "the weights that fit the training sheets best, with a penalty on long ones; every species "
    "counts the same (King & Zeng 2001)",
    "genus beside species": "a second regression tells genera apart, and a species gets the sum of both logits, so "
    "that rare species lean on their relatives (after Salakhutdinov et al. 2011)",
}


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


def class_balanced(counts: np.ndarray, label_smoothing: float = 0.0) -> SparseCrossentropy:
    """Cross-entropy weighted by the effective number of images, N = `WEIGHTS_N` (Cui et al. 2019, arXiv:1901.05555)."""
    weights = class_weights(counts, "class_balanced", WEIGHTS_N)
    return SparseCrossentropy(label_smoothing, class_weights=weights)


def logistic_regression(train: Features, n_classes: int, strength: float = STRENGTH) -> Linear:
    """Multinomial logistic regression in which every class weighs the same, see `fit_regression`.

    The weights are those of King & Zeng (2001, Logistic Regression in Rare Events Data). On frozen features of a
    pretrained network it is the usual yardstick (Kornblith et al. 2019, arXiv:1805.08974).
    """
    return fit_regression(train, n_classes, strength)


def genus_beside_species(
    train: Features, n_classes: int, genus_index: np.ndarray, strength: float = STRENGTH
) -> Linear:
    """The logits of a logistic regression of species plus those of one of their genera.

    A species shares the weights of its genus, as in the trees of Salakhutdinov et al. (2011, Learning to Share Visual
    Appearance for Multiclass Object Detection), who learn both together. With one genus among the training images it is
    the regression of species alone.

    Args:
        genus_index: the genus of every class, int [C], counted from 0.
    """
    species = logistic_regression(train, n_classes, strength)
    of_images = Features(train.features, genus_index[train.classes].astype(np.int32))
    if len(np.unique(of_images.classes)) < 2:
        return species
    genera = logistic_regression(of_images, int(genus_index.max()) + 1, strength)
    return Linear(species.kernel + genera.kernel[:, genus_index], species.bias + genera.bias[genus_index])


def nearest_mean(train: Features, n_classes: int, *, centred: bool = False) -> Linear:
    """Nearest class mean by cosine (NCM of Kang et al. 2020): the class whose mean has the smallest angle.

    Nothing is learnt, so no class can win by its number of images; one without an image has the logit 0 or, centred,
    that of the common mean. Dividing by the length of an image's features would change no answer, only make it not
    linear.

    Args:
        centred: take the mean of all training images off first (CL2N of Wang et al. 2019, SimpleShot,
            arXiv:1911.04623), which features that are never negative, such as means after ReLU, have in common.
    """
    centre = train.features.mean(axis=0) if centred else np.zeros(train.features.shape[1], np.float32)
    features = train.features - centre
    sums = np.zeros((n_classes, features.shape[1]))
    np.add.at(sums, train.classes, features)
    directions = (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).T
    scale = COSINE_SCALE / max(float(np.linalg.norm(features, axis=1).mean()), 1e-12)
    kernel = (scale * directions).astype(np.float32)
    return Linear(kernel, -(centre @ kernel).astype(np.float32))


def learns_mirrored(profile: Profile) -> bool:
    """Whether classifiers are learnt from the mirror images of the training images too.

    They are where training mirrors images, as in the epoch of a regression (`features.fit_classifier`), so that all
    that are compared have seen the same. They are not after random weights: long_tail_results.csv was made without.
    """
    return profile.augment != "none" and profile.weights != "random"


def classifier_methods(
    own: Linear,
    train: Features,
    genus_index: np.ndarray,
    *,
    tau: float = 1.0,
    strength: float = STRENGTH,
    seed: int = 0,
) -> dict[str, Linear]:
    """The classifiers of `IDEAS` on the same features, by name; half a minute for 1,173 images of 40 species.

    Logistic regressions are left out beyond `REGRESSION_MOST`.

    Args:
        own: the network's own classifier, from `classifier_of`.
        genus_index: the genus of every class, int [C], counted from 0.
        tau: strength of the logit adjustments and of tau-normalisation.
        strength: C of the logistic regressions.
    """
    n_classes = len(own.bias)
    counts = class_counts(train.classes, n_classes)

    def new(loss: SparseCrossentropy | None = None, sampling: str = "instance", **options: Linear) -> Linear:
        return retrain(train, n_classes, loss=loss, sampling=sampling, seed=seed, **options)

    plain = new()
    found = {
        "the network's own": own,
        "post-hoc logit adjustment": adjusted(own, counts, tau),
        "tau-normalisation, half": tau_normalised(own, tau / 2),
        "tau-normalisation": tau_normalised(own, tau),
        "learnable scaling": learn_scales(own, train, seed=seed),
        "cross-entropy": plain,
        "label smoothing": new(SparseCrossentropy(0.1)),
        "square-root sampling": new(sampling="square_root"),
        "class-balanced sampling (cRT)": new(sampling="class_balanced"),
        "class-balanced weights": new(class_balanced(counts)),
        "deferred re-weighting": new(class_balanced(counts), start=plain),
        "focal": new(Focal()),
        "balanced softmax": new(LogitAdjusted(counts)),
        "balanced softmax, smoothed": new(LogitAdjusted(counts, label_smoothing=0.1)),
        "nearest mean": nearest_mean(train, n_classes),
        "nearest mean, centred": nearest_mean(train, n_classes, centred=True),
    }
    if len(train) * n_classes <= REGRESSION_MOST:
        found["logistic regression"] = logistic_regression(train, n_classes, strength)
        found["genus beside species"] = genus_beside_species(train, n_classes, genus_index, strength)
    return found


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
