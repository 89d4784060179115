"""SGDW: one update rule, in tensorflow-addons, in our class and in numpy."""

import numpy as np
import pytest
import tensorflow as tf

from utils.training.optimizer import SGDW, OneCycle, sgdw, sgdw_class

STEPS = 12
RATES = OneCycle(0.4, STEPS, warmup_fraction=0.3)


def _gradients() -> list[np.ndarray]:
    return [np.random.default_rng(step).normal(size=(3, 4)).astype(np.float32) for step in range(STEPS)]


def _start() -> np.ndarray:
    return np.random.default_rng(99).normal(size=(3, 4)).astype(np.float32)


def _weights_of(optimizer: tf.keras.optimizers.legacy.Optimizer) -> list[np.ndarray]:
    """The weights after every step."""
    variable, after = tf.Variable(_start()), []
    for gradient in _gradients():
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        after.append(variable.numpy())
    return after


def _options(nesterov: bool) -> dict:
    return {"weight_decay": 0.01, "learning_rate": RATES, "momentum": 0.9, "nesterov": nesterov}


@pytest.mark.parametrize("nesterov", [True, False])
def test_our_rule_is_the_published_one_in_numpy(nesterov: bool) -> None:
    weights, momentum, expected = _start().astype(np.float64), np.zeros((3, 4)), []
    for step, gradient in enumerate(_gradients()):
        rate = float(RATES(step))
        weights = weights - 0.01 * weights  # decay first, not times the learning rate
        momentum = 0.9 * momentum - rate * gradient
        weights = weights + (0.9 * momentum - rate * gradient if nesterov else momentum)
        expected.append(weights)
    np.testing.assert_allclose(_weights_of(SGDW(**_options(nesterov))), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
def test_our_rule_is_that_of_tensorflow_addons_step_by_step(nesterov: bool) -> None:
    if sgdw_class() is SGDW:
        pytest.skip("tensorflow-addons is not installed: it has no wheel for this Python")
    ours, theirs = _weights_of(SGDW(**_options(nesterov))), _weights_of(sgdw_class()(**_options(nesterov)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_it_runs_under_loss_scaling() -> None:
    optimizer = tf.keras.mixed_precision.LossScaleOptimizer(
        sgdw(0.1, 0.01, 0.9), dynamic=False, initial_scale=8
    )
    variable = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        loss = optimizer.get_scaled_loss(tf.reduce_sum(variable**2))
    gradients = optimizer.get_unscaled_gradients(tape.gradient(loss, [variable]))
    optimizer.apply_gradients(zip(gradients, [variable], strict=True))
    expected = np.array([0.99, 1.98]) - 0.1 * 1.9 * np.array([2.0, 4.0])
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)


def test_it_runs_under_a_distribution_strategy() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        variable, optimizer = tf.Variable([1.0, 2.0]), SGDW(0.01, learning_rate=0.1)
        strategy.run(lambda: optimizer.apply_gradients([(tf.constant([1.0, 1.0]), variable)]))
    np.testing.assert_allclose(variable.numpy(), [0.89, 1.88], rtol=1e-5)


def test_a_saved_optimizer_is_the_same_optimizer() -> None:
    optimizer = SGDW(**_options(True))
    again = tf.keras.optimizers.legacy.SGD.__new__(SGDW)
    again.__init__(**{**optimizer.get_config(), "learning_rate": RATES, "decay": 0.0})
    assert again.get_config() == optimizer.get_config()


def test_sparse_gradients_are_refused() -> None:
    gradient = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), tf.constant([3, 2]))
    with pytest.raises(NotImplementedError, match="dense"):
        SGDW(0.01).apply_gradients([(gradient, tf.Variable(tf.ones((3, 2))))])
