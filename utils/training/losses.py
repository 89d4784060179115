"""Losses and the metric, from sparse labels: no one-hot of 15,501 classes anywhere.

A label is a class index; after mixup or CutMix it is three numbers: a class, another class, and the part of the
first in the image (see `utils.data.augment.mix`). The loss of a mixed image is the same mixture of losses.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from utils.config import Profile
from utils.data.labels import LabelMap
from utils.data.tail import class_weights, logit_adjustment


@tf.keras.utils.register_keras_serializable(package="naflora")
class SparseCrossentropy(tf.keras.losses.Loss):
    """Cross-entropy from logits and integer labels, with label smoothing and class weights.

    The same values as CategoricalCrossentropy(from_logits=True, label_smoothing) on one-hot labels, times the
    weight of the true class. Since sum_c log p_c is known from the logits alone, the smoothed target is never
    built: loss = CE + smoothing x (logit of the true class - mean logit).

    Attributes:
        weighted: whether the class weights count; deferred re-weighting sets it in the middle of a run.

    Args:
        label_smoothing: part of the target spread evenly over all classes (Szegedy 2016, arXiv:1512.00567).
        class_weights: float [C], or None for equal weights.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str = "sparse_crossentropy",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self.label_smoothing = label_smoothing
        self.class_weights = _plain(class_weights)
        self.weighted = True

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Loss of every image, float32 [B], of labels int [B] or [B, 1] or mixed [B, 3] and logits [B, C]."""
        logits = tf.cast(y_pred, tf.float32)
        first, second, part = unmixed(y_true)
        if second is None:
            return self._weighted(first, logits)
        return part * self._weighted(first, logits) + (1 - part) * self._weighted(second, logits)

    def _weighted(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        loss = self.unweighted(labels, logits)
        if self.class_weights is not None and self.weighted:
            loss *= tf.gather(tf.constant(self.class_weights, tf.float32), labels)
        return loss

    def unweighted(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Loss of every image without class weights, float32 [B], of int32 [B] and float32 [B, C]."""
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if self.label_smoothing:
            true_logit = tf.gather(logits, labels, batch_dims=1)
            loss += self.label_smoothing * (true_logit - tf.reduce_mean(logits, axis=-1))
        return loss

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "class_weights": self.class_weights,
        }


@tf.keras.utils.register_keras_serializable(package="naflora")
class LogitAdjusted(SparseCrossentropy):
    """Cross-entropy of logits + tau x log(share of the class in training).

    The network then learns what is left when the frequencies are taken out, and its own logits, which
    predictions use, favour no class for being common. Logit adjustment of Menon et al. (2021,
    arXiv:2007.07314); at tau = 1 it is the balanced softmax of Ren et al. (2020, arXiv:2007.10740).

    Args:
        counts: training images by class, int [C]; a class without any counts as one image.
        tau: strength; 0 is plain cross-entropy.
        options: those of SparseCrossentropy. Smoothing is of the adjusted softmax.
    """

    def __init__(
        self, counts: Sequence[int], tau: float = 1.0, name: str = "logit_adjusted", **options: Any
    ) -> None:
        super().__init__(name=name, **options)
        self.counts, self.tau = _plain(counts), tau

    def unweighted(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return super().unweighted(labels, logits + tf.constant(logit_adjustment(self.counts, self.tau)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "counts": self.counts, "tau": self.tau}


@tf.keras.utils.register_keras_serializable(package="naflora")
class Focal(SparseCrossentropy):
    """Cross-entropy times (1 - probability) ** gamma: what is known already counts less.

    Lin et al. (2017, arXiv:1708.02002), over a softmax as in Keras' CategoricalFocalCrossentropy(alpha=1), with
    the same meaning of label smoothing; gamma = 0 is plain cross-entropy.
    """

    def __init__(self, gamma: float = 2.0, name: str = "focal", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.gamma = gamma

    def unweighted(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        log_p = tf.nn.log_softmax(logits)
        # 1 - p is never quite 0, where the power has no gradient for gamma below 1
        losses = -tf.pow(tf.maximum(-tf.math.expm1(log_p), 1e-7), self.gamma) * log_p
        loss = (1 - self.label_smoothing) * tf.gather(losses, labels, batch_dims=1)
        if self.label_smoothing:
            loss += self.label_smoothing * tf.reduce_mean(losses, axis=-1)
        return loss

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}


@tf.keras.utils.register_keras_serializable(package="naflora")
class ArcFace(SparseCrossentropy):
    """Cross-entropy in which the true class must win by an angle, larger for rarer classes.

    Logits are scale x cosine, from `network.CosineClassifier` with its sub-centres (Deng et al. 2020, Sub-center
    ArcFace). The angle t to the true class is replaced by t + its margin (Deng et al. 2019,
    arXiv:1801.07698), and beyond pi, where the cosine would turn round, by the straight line that ArcFace's
    own code uses. Margins by class size: see `class_margins`.

    Args:
        margins: radians by class, float [C].
        scale: what the cosines were multiplied with.
        options: those of SparseCrossentropy.
    """

    def __init__(
        self, margins: Sequence[float], scale: float = 30.0, name: str = "arcface", **options: Any
    ) -> None:
        super().__init__(name=name, **options)
        self.margins, self.scale = _plain(margins), scale

    def unweighted(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        true_logit = tf.gather(logits, labels, batch_dims=1)
        cosine = true_logit / self.scale
        # the root has no gradient at 0, where image and centre agree
        sine = tf.sqrt(tf.maximum(1 - cosine**2, 1e-7))
        margin = tf.gather(tf.constant(self.margins, tf.float32), labels)
        beyond = cosine <= -tf.cos(margin)  # t + margin >= pi
        moved = tf.where(
            beyond, cosine - margin * tf.sin(margin), cosine * tf.cos(margin) - sine * tf.sin(margin)
        )
        rows = tf.stack([tf.range(tf.shape(labels)[0]), labels], axis=1)
        moved_logits = tf.tensor_scatter_nd_update(logits, rows, self.scale * moved)
        return super().unweighted(labels, moved_logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margins": self.margins, "scale": self.scale}


class WithRelatives(tf.keras.losses.Loss):
    """The species' loss, plus weighted cross-entropies of the heads for genus and family.

    Heads of several ranks were worth a point of macro-F1 to the winner of Herbarium 2022.

    Args:
        species: loss of the first C logits.
        ranks: for every further head, in the order of its logits: class index of the rank by species
            (int [C]), and the weight of its loss.
    """

    def __init__(self, species: SparseCrossentropy, ranks: Sequence[tuple[np.ndarray, float]]) -> None:
        super().__init__(name="with_relatives")
        self.species, self.ranks = species, tuple(ranks)

    @property
    def weighted(self) -> bool:
        """Whether class weights count, which only the species' loss has; see `SparseCrossentropy`."""
        return self.species.weighted

    @weighted.setter
    def weighted(self, counts: bool) -> None:
        self.species.weighted = counts

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Loss of every image, float32 [B], of labels as for `species` and all heads' logits side by side."""
        n_species = len(self.ranks[0][0])
        sizes = [n_species, *(int(index.max()) + 1 for index, _ in self.ranks)]
        logits = tf.split(tf.cast(y_pred, tf.float32), sizes, axis=-1)
        loss = self.species.call(y_true, logits[0])
        for (index, weight), rank_logits in zip(self.ranks, logits[1:], strict=True):
            first, second, part = unmixed(y_true)
            of = tf.constant(index, tf.int32)
            entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(of, first), rank_logits)
            if second is not None:
                other = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(of, second), rank_logits)
                entropy = part * entropy + (1 - part) * other
            loss += weight * entropy
        return loss


def unmixed(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]:
    """Class int32 [B], other class int32 [B], part of the first float32 [B]; the last two None where not mixed."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == 3:
        return tf.cast(labels[:, 0], tf.int32), tf.cast(labels[:, 1], tf.int32), labels[:, 2]
    return tf.cast(tf.reshape(labels, [-1]), tf.int32), None, None


def class_margins(
    counts: Sequence[int] | np.ndarray, margin: float = 0.5, power: float = 0.25, least: float = 0.05
) -> np.ndarray:
    """ArcFace margins in radians, float32 [C]: margin x images ** -power + least; no images count as one.

    Ha et al. (2020, Google Landmark Recognition 2020, arXiv:2010.05350), whose figures are the defaults.
    """
    counts = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    return (margin * counts**-power + least).astype(np.float32)


def make_loss(
    profile: Profile, counts: np.ndarray, labels: LabelMap | None = None
) -> SparseCrossentropy | WithRelatives:
    """The profile's loss.

    Args:
        counts: training images by class, int [C].
        labels: genus and family of the classes, for the heads that the profile gives weight to.
    """
    weights = None
    if profile.class_weights != "none":
        weights = class_weights(counts, profile.class_weights, profile.class_balanced_n)
    options: dict[str, Any] = {"label_smoothing": profile.label_smoothing, "class_weights": weights}
    if profile.loss == "cross_entropy":
        loss = SparseCrossentropy(**options)
    elif profile.loss == "focal":
        loss = Focal(profile.focal_gamma, **options)
    elif profile.loss == "arcface":
        margins = class_margins(
            counts, profile.arcface_margin, profile.arcface_margin_power, profile.arcface_margin_least
        )
        loss = ArcFace(margins, profile.arcface_scale, **options)
    else:
        loss = LogitAdjusted(counts, 1.0 if profile.loss == "balanced_softmax" else profile.tau, **options)
    ranks = [
        (getattr(labels, f"{rank}_index"), weight)
        for rank, weight in (("genus", profile.genus_weight), ("family", profile.family_weight))
        if weight
    ]
    return WithRelatives(loss, ranks) if ranks else loss


def _plain(values: Sequence[float] | np.ndarray | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


@tf.keras.utils.register_keras_serializable(package="naflora")
class SparseMacroF1(tf.keras.metrics.Metric):
    """`macro_f1` of all batches since the last reset.

    Labels are sparse (int [B]), predictions logits or probabilities (float [B, C]). It keeps three counters a
    class, never a one-hot, and sums them over replicas. The counters are float32: exact up to 16.7 million
    images a class.
    """

    def __init__(self, n_classes: int, name: str = "f1_score", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.n_classes = n_classes
        self.right, self.predicted, self.actual = (
            self.add_weight(name=counter, shape=(n_classes,), initializer="zeros")
            for counter in ("right", "predicted", "actual")
        )

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: Any = None) -> None:
        true = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
        guess = tf.argmax(y_pred, axis=-1, output_type=tf.int32)
        weights = tf.ones_like(true, tf.float32) if sample_weight is None else sample_weight
        weights = tf.cast(tf.reshape(weights, [-1]), tf.float32)
        hits = weights * tf.cast(true == guess, tf.float32)
        counted = ((self.right, hits, true), (self.predicted, weights, guess), (self.actual, weights, true))
        for counter, amounts, classes in counted:
            counter.assign_add(tf.math.unsorted_segment_sum(amounts, classes, self.n_classes))

    def result(self) -> tf.Tensor:
        return tf.reduce_mean(tf.math.divide_no_nan(2 * self.right, self.predicted + self.actual))

    def reset_state(self) -> None:
        for counter in (self.right, self.predicted, self.actual):
            counter.assign(tf.zeros_like(counter))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_classes": self.n_classes}
