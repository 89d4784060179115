"""Macro-F1, the score of the competition, and its kin: in numpy for predictions, in Keras for training."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


def _counts(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> tuple[np.ndarray, ...]:
    """Images by class: rightly predicted, predicted, actual. Each int64 [C]."""
    true, predicted = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(
            f"true and predicted must be vectors of one length, not {true.shape}, {predicted.shape}"
        )
    for name, values in (("true", true), ("predicted", predicted)):
        if values.size and (values.min() < 0 or values.max() >= n_classes):
            outside = values[(values < 0) | (values >= n_classes)][0]
            raise ValueError(f"{name}: class {outside} is not in 0..{n_classes - 1}")
    right = np.bincount(true[true == predicted], minlength=n_classes)
    return right, np.bincount(predicted, minlength=n_classes), np.bincount(true, minlength=n_classes)


def per_class_f1(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """F1 of every class: 2 x right / (predicted + actual), 0 where a class is neither predicted nor actual.

    Args:
        true, predicted: int [N], class indices in 0..n_classes-1.
        n_classes: number of classes C of the label map.

    Returns:
        float64 [C].

    Raises:
        ValueError: a class index is out of range, or the lengths differ.
    """
    right, guessed, actual = _counts(true, predicted, n_classes)
    return 2 * right / np.maximum(guessed + actual, 1)


def macro_f1(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Mean F1 over all classes of the label map, those without an image included (they count 0).

    The same as scikit-learn's f1_score(labels=range(n_classes), average="macro", zero_division=0).
    """
    return float(per_class_f1(true, predicted, n_classes).mean())


def scores(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float | int]:
    """Macro-F1 and accuracy, with the number of images, of classes, and of classes without an image."""
    right, _, actual = _counts(true, predicted, n_classes)
    return {
        "macro_f1": macro_f1(true, predicted, n_classes),
        "accuracy": float(right.sum() / max(actual.sum(), 1)),
        "images": int(actual.sum()),
        "classes": int(n_classes),
        "classes_without_images": int((actual == 0).sum()),
    }


def make_metric(n_classes: int, name: str = "f1_score") -> "tf.keras.metrics.Metric":
    """A streaming Keras metric: `macro_f1` of all batches since the last reset.

    Labels are sparse (int [B]), predictions logits or probabilities (float [B, C]). It keeps three counters a
    class, never a one-hot, and sums them over replicas. The counters are float32: exact up to 16.7 million
    images a class.
    """
    import tensorflow as tf

    class SparseMacroF1(tf.keras.metrics.Metric):
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
            for counter, amounts, classes in (
                (self.right, hits, true),
                (self.predicted, weights, guess),
                (self.actual, weights, true),
            ):
                counter.assign_add(tf.math.unsorted_segment_sum(amounts, classes, self.n_classes))

        def result(self) -> tf.Tensor:
            return tf.reduce_mean(tf.math.divide_no_nan(2 * self.right, self.predicted + self.actual))

        def reset_state(self) -> None:
            for counter in (self.right, self.predicted, self.actual):
                counter.assign(tf.zeros_like(counter))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "n_classes": self.n_classes}

    return SparseMacroF1(n_classes, name=name)
