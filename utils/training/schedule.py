"""The learning rate over a run: one cycle, up and down along cosines (Smith 2018, arXiv:1803.09820)."""

import math
from typing import Any

import tensorflow as tf


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
