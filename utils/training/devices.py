"""Which devices train, and how they share the work: the cluster that Slurm or TF_CONFIG tells of, GPUs, TPU.

TensorFlow is imported inside the functions that need it: TF_CONFIG is read before its start is paid for.
"""

import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils.files import InputError, cores

if TYPE_CHECKING:
    import tensorflow as tf

_FORM = '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The machines of one training, this one among them; of Slurm its tasks, of which a machine may have several."""

    machines: int
    rank: int  # of this machine, from 0; 0 writes the files
    source: str = "TF_CONFIG"


def read_cluster() -> Cluster | None:
    """The cluster of an srun with several tasks, else that of TF_CONFIG; None where this machine trains alone.

    TF_CONFIG says so without the variable, where it is empty or names no machines, and where it names only this one, as
    managed services set it for jobs of one machine: as chief, as master (TensorFlow 1) or as worker.

    Raises:
        InputError: TF_CONFIG is not JSON or not of its form, has tasks that this training has no part for, or
            does not say which of its machines this is.
    """
    if (tasks := int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))) > 1:
        return Cluster(tasks, int(os.environ["SLURM_PROCID"]), f"Slurm job {os.environ['SLURM_JOB_ID']}")
    if not (text := os.environ.get("TF_CONFIG", "").strip()):
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _broken(f"is not JSON ({error}): {_cut(text)}") from None
    if not isinstance(config, dict):
        raise _broken(f"is not a JSON object: {_cut(text)}")
    if config.get("sparseCluster"):
        raise _broken("has a sparseCluster, whose machines come and go: switch dynamic workers off")
    cluster, task = config.get("cluster") or {}, config.get("task") or {}
    for name, value in (("cluster", cluster), ("task", task)):
        if not isinstance(value, dict):
            raise _broken(f"has {name} {_cut(value)}, which is not a JSON object")
    jobs = {kind: _addresses(kind, hosts) for kind, hosts in cluster.items() if hosts}
    kind, index = task.get("type"), _index(task)
    for name in filter(None, [*jobs, kind]):
        if name not in ("chief", "master", "worker"):
            raise _broken(f"has tasks of the kind {_cut(name)}; every machine is chief or worker")
    addresses = [address for hosts in jobs.values() for address in hosts]
    many = f"{len(addresses)} machines"
    if kind is not None and jobs and kind not in jobs:
        raise _broken(f"says that this is a {kind}, and its cluster has only {', '.join(jobs)}")
    if index >= max(len(jobs.get(kind or next(iter(jobs), ""), ())), 1):
        raise _broken(f"says that this is {kind or 'task'} {index}, and its cluster has {many}")
    if len(addresses) < 2:
        return None
    if kind in jobs and len(jobs[kind]) > 1 and "index" not in task:
        raise _broken(f"says that this is a {kind} and not which of {len(jobs[kind])} (task index)")
    return _several(jobs, addresses, kind, index)


def _several(jobs: dict[str, list[str]], addresses: list[str], kind: str | None, index: int) -> Cluster:
    if "master" in jobs:
        raise _broken("names a master among several machines, which TensorFlow 2 calls chief: rename it")
    if len(jobs.get("chief", ())) > 1:
        raise _broken(f"names {len(jobs['chief'])} chiefs, and there is one: make the others workers")
    if repeated := [address for address in addresses if addresses.count(address) > 1]:
        raise _broken(f"names {repeated[0]} twice: every machine needs an address of its own")
    for address in addresses:
        if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
            raise _broken(f"has the address {_cut(address)}, which is not host:port")
    if kind is None:
        raise _broken(f"names {len(addresses)} machines and no task, which says which of them this is")
    return Cluster(len(addresses), index + (kind == "worker" and "chief" in jobs))


def _addresses(kind: str, hosts: Any) -> list[str]:
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise _broken(f"has {_cut(hosts)} as addresses of {_cut(kind)}, which is not a list of texts")
    return hosts


def _index(task: dict[str, Any]) -> int:
    value = task.get("index", 0)
    if not str(value).isdecimal():
        raise _broken(f"has the task index {_cut(value)}, which is not a number from 0")
    return int(value)


def _broken(what: str) -> InputError:
    return InputError(f"TF_CONFIG {what}. Write it as {_FORM}, or unset it to train on this machine alone.")


def _cut(value: Any) -> str:
    """A value in one line, of at most 80 characters."""
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


def choose_strategy(precision: str = "float32") -> "tuple[tf.distribute.Strategy, str]":
    """The tf.distribute strategy for what is there, and one line that says so.

    In this order: a TPU that TensorFlow finds; the tasks of an srun with several, one a machine or one a GPU; the
    machines of the TF_CONFIG variable, where it names several; several GPUs of this machine; one GPU or the CPU. Call
    it before anything else uses TensorFlow: workers and TPUs must be set up first.

    Raises:
        InputError: `precision` is mixed_float16 and there is no GPU, TF_CONFIG is broken, a node of Slurm has no
            address, or its GPUs cannot be divided among its tasks.
    """
    cluster = read_cluster()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    check_precision(precision)
    if "TPU_NAME" in os.environ or tf.config.list_physical_devices("TPU"):
        tpu = os.environ.get("TPU_NAME", "local")
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu)
        strategy, how = tf.distribute.TPUStrategy(resolver), "TPU"
    elif cluster is not None:
        from_variable = cluster.source == "TF_CONFIG"  # which the strategy reads by itself
        strategy = tf.distribute.MultiWorkerMirroredStrategy(None if from_variable else _of_slurm(gpus))
        workers = f"{cluster.machines} workers of {cluster.source}"
        how = f"MultiWorkerMirrored over {workers}, this is {cluster.rank}"
    elif len(gpus) > 1:
        strategy, how = tf.distribute.MirroredStrategy(), f"Mirrored over {len(gpus)} GPUs"
    else:
        strategy, how = tf.distribute.get_strategy(), "1 GPU" if gpus else f"CPU, {cores()} cores"
    replicas = strategy.num_replicas_in_sync
    return strategy, f"Devices: {how}; {replicas} replica{'s' * (replicas > 1)}; precision {precision}"


def _of_slurm(gpus: list[Any]) -> "tf.distribute.cluster_resolver.ClusterResolver":
    """Host and port of every task of this srun, and which of them this is; it is left one's share of a node's GPUs.

    TensorFlow sorts the nodes as text (n10 before n9), Slurm as numbers, and it may deal out the tasks in turn. So a
    task is known by its node and its place there.
    """
    import tensorflow as tf

    resolvers = tf.distribute.cluster_resolver
    node, place = os.environ["SLURMD_NODENAME"], int(os.environ["SLURM_LOCALID"])
    # Of another job on this node, or another step of this one, the ports are others.
    step = int(os.environ["SLURM_JOB_ID"]) + int(os.environ["SLURM_STEP_ID"])
    ports = 20_000 + step % 150 * 64
    # The resolver counts ports by GPUs, one a task; without auto_set_gpu it leaves the real ones alone.
    counted = {"gpus_per_node": int(os.environ["SLURM_STEP_NUM_TASKS"]), "gpus_per_task": 1}
    cluster = resolvers.SlurmClusterResolver(port_base=ports, auto_set_gpu=False, **counted).cluster_spec()
    addresses = cluster.job_tasks("worker")
    for host in {address.rpartition(":")[0] for address in addresses}:
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:  # the strategy would wait for it without a word
            raise InputError(f"{host}: a node of this srun has no address here ({error.strerror}).") from None
    here = sum(address.startswith(f"{node}:") for address in addresses)
    if here > 1 and gpus and len(gpus) == int(os.environ.get("SLURM_GPUS_ON_NODE", 0)):  # each task sees all
        if len(gpus) % here:
            way_out = "Start one task a node (--ntasks-per-node=1) or one a GPU (--gpus-per-task=1)."
            raise InputError(f"{node}: {here} tasks of srun cannot share {len(gpus)} GPUs evenly. {way_out}")
        tf.config.set_visible_devices(gpus := gpus[place::here], "GPU")
    index, shares = addresses.index(f"{node}:{ports + place}"), {"GPU": len(gpus)} if gpus else {}
    return resolvers.SimpleClusterResolver(cluster, "", "worker", index, "", shares, "grpc")


def wait_for_all(strategy: "tf.distribute.Strategy | None") -> None:
    """Return once every worker of the strategy has come here; at once where there is only this process."""
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        one = tf.function(lambda: tf.constant(1.0))
        strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(one), axis=None).numpy()


def check_precision(precision: str) -> None:
    """Raise InputError where `precision` needs a GPU and there is none: on a CPU it would train for weeks."""
    import tensorflow as tf

    if precision == "mixed_float16" and not tf.config.list_physical_devices("GPU"):
        raise InputError(
            "precision is mixed_float16 and TensorFlow finds no GPU. On Kaggle choose Settings > Accelerator > GPU T4 "
            'x2 and run again; without a GPU use PROFILE = "smoke" (or "scratch"), or set precision to float32.'
        )


def is_chief() -> bool:
    """Whether this process writes the files: always, but for workers other than the first of several."""
    cluster = read_cluster()
    return cluster is None or cluster.rank == 0
