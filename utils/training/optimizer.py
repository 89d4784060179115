"""SGDW: SGD with Nesterov momentum, decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

import warnings
from importlib.util import find_spec
from typing import Any

import tensorflow as tf

from utils.config import Profile
from utils.training.schedule import OneCycle


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
        raise NotImplementedError(
            "SGDW takes dense gradients only: an embedding layer would give sparse ones."
        )

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
    """The profile's learning rate: one cycle over all epochs."""
    return OneCycle(
        max_lr=profile.max_lr,
        cycle_steps=profile.epochs * steps_per_epoch,
        initial_lr_scale=profile.initial_lr_scale,
        final_lr_scale=profile.final_lr_scale,
        warmup_fraction=profile.warmup_fraction,
    )


def make_optimizer(profile: Profile, steps_per_epoch: int) -> tf.keras.optimizers.legacy.Optimizer:
    """The profile's SGDW on its one cycle; `model.compile` adds loss scaling for mixed_float16."""
    return sgdw(make_schedule(profile, steps_per_epoch), profile.weight_decay, profile.momentum)
