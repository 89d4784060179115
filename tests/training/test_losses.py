"""The sparse loss against Keras' categorical one on one-hot labels."""

import numpy as np
import pytest
import tensorflow as tf

from utils.training.losses import SparseCrossentropy

CLASSES = 7
LABELS = np.array([0, 3, 6, 3, 1], dtype=np.int32)
LOGITS = np.random.default_rng(0).normal(scale=4, size=(5, CLASSES)).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, [2.0, 1.0, 0.5, 0.25, 1.0, 1.0, 1.25]])
def test_it_equals_keras_on_one_hot_labels(smoothing: float, weights: list[float] | None) -> None:
    keras = tf.keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing, reduction="none")
    expected = keras(np.eye(CLASSES, dtype=np.float32)[LABELS], LOGITS).numpy()
    if weights is not None:
        expected = expected * np.array(weights)[LABELS]
    loss = SparseCrossentropy(smoothing, weights)
    np.testing.assert_allclose(loss.call(LABELS, tf.constant(LOGITS)), expected, rtol=1e-5)
    assert float(loss(LABELS, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(loss(LABELS[:, None], LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)


def test_gradients_equal_keras() -> None:
    logits = tf.Variable(LOGITS)
    with tf.GradientTape(persistent=True) as tape:
        ours = SparseCrossentropy(0.1)(LABELS, logits)
        keras = tf.keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1)(
            np.eye(CLASSES)[LABELS], logits
        )
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(keras, logits), atol=1e-6)


def test_a_saved_loss_is_the_same_loss() -> None:
    loss = SparseCrossentropy(0.2, np.linspace(0.5, 1.5, CLASSES, dtype=np.float32))
    again = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert isinstance(again, SparseCrossentropy)
    assert again.get_config() == loss.get_config()
    assert float(again(LABELS, LOGITS)) == float(loss(LABELS, LOGITS))
