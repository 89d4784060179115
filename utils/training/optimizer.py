"""SGDW with Nesterov momentum and decoupled weight decay, on one cycle of the learning rate.

Loshchilov & Hutter 2019 (arXiv:1711.05101); Smith 2018 (arXiv:1803.09820).
"""

import math
import warnings
from importlib.util import find_spec
from typing import Any

import tensorflow as tf

from utils.config import Profile


@tf.keras.utils.register_keras_serializable(package="naflora")
class OneCycle(tf.keras.optimizers.schedules.LearningRateSchedule):
    """From max_lr x initial_lr_scale up to max_lr, then down to (max_lr x initial_lr_scale) x final_lr_scale.

    Both arcs are half cosines. Step `warmup_fraction` x `cycle_steps` has max_lr, step `cycle_steps` and all
    after it the final rate. The published run: 0.007 to 0.7 at 20% of 49,230 steps, then to 0.00007.

    Unlike one-cycle-tf 0.0.3, `get_config` keeps every argument, so that a saved schedule is the same
    schedule.
    """

    def __init__(
        self,
        max_lr: float,
        cycle_steps: int,
        initial_lr_scale: float = 0.01,
        final_lr_scale: float = 0.01,
        warmup_fraction: float = 0.2,
    ) -> None:
        super().__init__()
        self.max_lr = max_lr
        self.cycle_steps = cycle_steps
        self.initial_lr_scale = initial_lr_scale
        self.final_lr_scale = final_lr_scale
        self.warmup_fraction = warmup_fraction

    def __call__(self, step: Any) -> tf.Tensor:
        """The learning rate at optimizer step `step`, float32 scalar."""
        step = tf.cast(step, tf.float32)
        warmup = tf.constant(max(self.warmup_fraction * self.cycle_steps, 1e-9), tf.float32)
        rest = tf.constant(max((1 - self.warmup_fraction) * self.cycle_steps, 1e-9), tf.float32)
        initial = self.max_lr * self.initial_lr_scale
        up = _cosine(initial, self.max_lr, step / warmup)
        down = _cosine(self.max_lr, initial * self.final_lr_scale, (step - warmup) / rest)
        return tf.where(step < warmup, up, down)

    def get_config(self) -> dict[str, Any]:
        return {
            "max_lr": self.max_lr,
            "cycle_steps": self.cycle_steps,
            "initial_lr_scale": self.initial_lr_scale,
            "final_lr_scale": self.final_lr_scale,
            "warmup_fraction": self.warmup_fraction,
        }


def _cosine(start: float, end: float, part: tf.Tensor) -> tf.Tensor:
    """Half a cosine from `start` (part 0) to `end` (part 1), flat outside; exact at both ends."""
    weight = 0.5 * (1 - tf.cos(math.pi * tf.clip_by_value(part, 0.0, 1.0)))
    return start * (1 - weight) + end * weight


@tf.keras.utils.register_keras_serializable(package="naflora")
class SGDW(tf.keras.optimizers.legacy.SGD):
    """tensorflow-addons' SGDW where tensorflow-addons does not install (Python 3.12 and later).

    A step first shrinks a weight by `weight_decay` times itself, **not** multiplied by the learning rate
    (Keras' own SGD(weight_decay=) does multiply), then takes the momentum step on the gradient of the weight
    before shrinking. It decays every trainable variable, and takes dense gradients only. It is a
    legacy-optimizer class as the original is: its momentum step is one fused kernel a variable, which is also
    what is quickest on a CPU.
    """

    def __init__(self, weight_decay: float, name: str = "SGDW", **options: Any) -> None:
        super().__init__(name=name, **options)
        self._set_hyper("weight_decay", weight_decay)

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: Any = None) -> Any:
        decay = self._get_hyper("weight_decay", var.dtype.base_dtype)
        with tf.control_dependencies([var.assign_sub(decay * var, use_locking=self._use_locking)]):
            return super()._resource_apply_dense(grad, var, apply_state=apply_state)

    def _resource_apply_sparse_duplicate_indices(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError("SGDW takes dense gradients only: an embedding layer gives sparse ones.")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight_decay": self._serialize_hyperparameter("weight_decay")}


def sgdw_class() -> type:
    """tensorflow-addons' SGDW where it is installed, else the class above with the same update rule."""
    if find_spec("tensorflow_addons") is None:
        return SGDW
    with warnings.catch_warnings():
        # Its end-of-life notice, known and answered by the class above; nothing else is silenced.
        warnings.filterwarnings("ignore", r"\s*TensorFlow Addons \(TFA\) has ended development", UserWarning)
        import tensorflow_addons as tfa
    return tfa.optimizers.SGDW


def sgdw(learning_rate: Any, weight_decay: float, momentum: float) -> tf.keras.optimizers.legacy.Optimizer:
    """An SGDW with Nesterov momentum; `learning_rate` is a number or a schedule."""
    return sgdw_class()(
        weight_decay=weight_decay, learning_rate=learning_rate, momentum=momentum, nesterov=True
    )


def make_schedule(profile: Profile, steps_per_epoch: int) -> OneCycle:
    """The profile's learning rate: one cycle over all epochs of gradient steps."""
    return OneCycle(
        max_lr=profile.max_lr,
        cycle_steps=profile.sgd_epochs * steps_per_epoch,
        initial_lr_scale=profile.initial_lr_scale,
        final_lr_scale=profile.final_lr_scale,
        warmup_fraction=profile.warmup_fraction,
    )


def make_optimizer(profile: Profile, steps_per_epoch: int) -> tf.keras.optimizers.legacy.Optimizer:
    """The profile's SGDW on its one cycle; `model.compile` adds loss scaling for mixed_float16."""
    return sgdw(make_schedule(profile, steps_per_epoch), profile.weight_decay, profile.momentum)
