"""Losses from sparse labels: no one-hot of 15,501 classes anywhere."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="naflora")
class SparseCrossentropy(tf.keras.losses.Loss):
    """Cross-entropy from logits and integer labels, with label smoothing and class weights.

    The same values as CategoricalCrossentropy(from_logits=True, label_smoothing) on one-hot labels, times the
    weight of the true class. Since sum_c log p_c is known from the logits alone, the smoothed target is never
    built: loss = CE + smoothing x (logit of the true class - mean logit).

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
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Loss of every image, float32 [B], of labels int [B] or [B, 1] and logits float [B, C]."""
        labels = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
        logits = tf.cast(y_pred, tf.float32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if self.label_smoothing:
            true_logit = tf.gather(logits, labels, batch_dims=1)
            loss += self.label_smoothing * (true_logit - tf.reduce_mean(logits, axis=-1))
        if self.class_weights is not None:
            loss *= tf.gather(tf.constant(self.class_weights, tf.float32), labels)
        return loss

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "class_weights": self.class_weights,
        }
