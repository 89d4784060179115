"""What a network's classifier gets to see, kept as arrays, and the classifier that a regression makes of it.

With a few hundred sheets the plainest way is hard to beat: a pretrained network stays as it is, and its classifier is
a logistic regression with balanced classes. Fine-tuning starts from there (Kumar et al. 2022, arXiv:2202.10054).
"""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from utils.files import InputError, UsageError, replacing
from utils.training.losses import SparseMacroF1
from utils.training.network import ranks_of
from utils.training.weights import CLASSIFIER

if TYPE_CHECKING:
    from utils.training.task import Task
    from utils.training.trainer import Trainer


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
    mirrored: bool = False,
    cache: Path | None = None,
) -> Features:
    """One pass over images, without augmentation, to what the classifier would get.

    Args:
        network: from `build_model` or `load_trained`.
        dataset: batches of (images, classes, ...), from evaluation_dataset(); `only_ids` takes the train part.
        total: number of images, for the time left in the bar.
        mirrored: take every image's mirror image (left and right) too; these come after all others.
        cache: file that keeps them: it is read where it is there, and written where not. Name it by the network.

    Raises:
        InputError: the data set gave no image, or `cache` is damaged.
    """
    from tqdm.auto import tqdm

    if cache is not None and cache.exists():
        return Features.load(cache)

    body = tf.keras.Model(network.input, network.get_layer(CLASSIFIER).input)
    run = None
    views = (lambda x: x, lambda x: tf.reverse(x, axis=[2])) if mirrored else (lambda x: x,)
    features: list[list[np.ndarray]] = [[] for _ in views]  # of each view, by batch
    classes = []
    with tqdm(total=total, unit=" sheets", desc="features", disable=not progress) as bar:
        for images, labels, *_ in dataset:
            if run is None:  # one graph for batches of all lengths
                batch = tf.TensorSpec([None, *images.shape[1:]], images.dtype)
                run = tf.function(
                    lambda x: tf.cast(body(x, training=False), tf.float32), input_signature=[batch]
                )
            for view, of_view in zip(views, features, strict=True):
                of_view.append(run(view(images)).numpy())
            classes.append(np.asarray(labels, dtype=np.int32))
            bar.update(len(classes[-1]))
    if not classes:
        raise InputError("There was no image to take features of. Check the shards and the chosen image ids.")
    found = Features(
        np.concatenate([batch for of_view in features for batch in of_view]),
        np.concatenate(classes * len(views)),
    )
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


def fit_regression(train: Features, n_classes: int, strength: float) -> Linear:
    """A multinomial logistic regression with balanced classes, by scikit-learn's L-BFGS.

    Features are taken as they are: with mean 0 and variance 1 pretrained ones score two to three points less. 1,700
    features of 2,300 images and 40 classes take a few seconds and all images at once in memory.

    Args:
        train: of the training images; the same image may come several times, as its mirror image.
        n_classes: of the label map; a class without an image gets the lowest bias.
        strength: C of scikit-learn, the inverse of the L2 penalty.

    Raises:
        InputError: fewer than two classes have images.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(train.classes)) < 2:
        raise InputError("A classifier needs training images of two species or more; only one has some.")
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
    model.fit(train.features.astype(np.float64), train.classes)
    kernel = np.zeros((train.features.shape[1], n_classes), np.float32)
    bias = np.full(n_classes, model.intercept_.min() - 10, np.float32)
    if len(model.classes_) == 2:  # one row for two classes
        kernel[:, model.classes_[1]] = model.coef_[0]
        bias[model.classes_] = 0, model.intercept_[0]
    else:
        kernel[:, model.classes_] = model.coef_.T
        bias[model.classes_] = model.intercept_
    return Linear(kernel, bias)


def fit_classifier(task: "Task", model: "Trainer", progress: bool = False) -> dict[str, list[float]]:
    """The epoch of a regression: classifier and heads are fitted to the features as they are, without a gradient step.

    Every training image counts as it is and, where training mirrors images, as its mirror image.

    Returns:
        loss and f1_score on these images, as fit() gives them.
    """
    profile, labels = task.profile, task.labels
    train = extract_features(
        model,
        task.sheets(task.training_ids),
        total=len(task.training_ids),
        progress=progress,
        mirrored=profile.augment != "none",
    )
    fitted = {}
    for name, rank in ((CLASSIFIER, None), *((f"{rank}_logits", rank) for rank in ranks_of(profile))):
        of = getattr(labels, f"{rank}_index") if rank else np.arange(labels.n_classes)
        rows = Features(train.features, of[train.classes].astype(np.int32))
        fitted[name] = fit_regression(rows, int(of.max()) + 1, profile.regression)
    model.take_classifier({name: [linear.kernel, linear.bias] for name, linear in fitted.items()})
    logits = np.concatenate([linear.logits(train.features) for linear in fitted.values()], axis=1)
    score = SparseMacroF1(labels.n_classes)
    score.update_state(train.classes, logits[:, : labels.n_classes])
    return {"loss": [float(model.loss(train.classes, logits))], "f1_score": [float(score.result())]}
