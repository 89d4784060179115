"""Which devices train, and how they share the work."""

import os

import tensorflow as tf

from utils.errors import InputError
from utils.training.cluster import read_cluster


def choose_strategy(precision: str = "float32") -> tuple[tf.distribute.Strategy, str]:
    """The tf.distribute strategy for what is there, and one line that says so.

    In this order: a TPU that TensorFlow finds; the machines of the TF_CONFIG variable, where it names several;
    several GPUs of this machine; one GPU or the CPU. Call it before anything else uses TensorFlow: workers and
    TPUs must be set up first.

    Raises:
        InputError: `precision` is mixed_float16 and there is no GPU, or TF_CONFIG is broken.
    """
    cluster = read_cluster()
    gpus = tf.config.list_physical_devices("GPU")
    check_precision(precision)
    if "TPU_NAME" in os.environ or tf.config.list_physical_devices("TPU"):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
            os.environ.get("TPU_NAME", "local")
        )
        strategy, how = tf.distribute.TPUStrategy(resolver), "TPU"
    elif cluster is not None:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()  # it reads TF_CONFIG too
        how = f"MultiWorkerMirrored over {cluster.machines} workers, this is {cluster.rank}"
    elif len(gpus) > 1:
        strategy, how = tf.distribute.MirroredStrategy(), f"Mirrored over {len(gpus)} GPUs"
    else:
        strategy, how = tf.distribute.get_strategy(), "1 GPU" if gpus else f"CPU, {os.cpu_count()} cores"
    replicas = strategy.num_replicas_in_sync
    return strategy, f"Devices: {how}; {replicas} replica{'s' * (replicas > 1)}; precision {precision}"


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Return once every worker of the strategy has come here; at once where there is only this process."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        one = tf.function(lambda: tf.constant(1.0))
        strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(one), axis=None).numpy()


def check_precision(precision: str) -> None:
    """Raise InputError where `precision` needs a GPU and there is none: on a CPU it would train for weeks."""
    if precision == "mixed_float16" and not tf.config.list_physical_devices("GPU"):
        raise InputError(
            "precision is mixed_float16 and TensorFlow finds no GPU. On Kaggle choose Settings > Accelerator > "
            'GPU T4 x2 and run again; without a GPU use PROFILE = "smoke" (or "laptop"), or set precision to '
            "float32."
        )
