"""Devices: what is chosen on a machine without a GPU, and what is refused there."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner

from utils.__main__ import main
from utils.config import load_profile
from utils.files import REPOSITORY, InputError, UsageError
from utils.training import devices
from utils.training.devices import Cluster, choose_strategy, is_chief, read_cluster

GETADDRINFO = socket.getaddrinfo
without_gpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU"
)


@without_gpu
def test_cpu_takes_the_default_strategy_and_says_so_in_one_line() -> None:
    strategy, line = choose_strategy()
    assert strategy is tf.distribute.get_strategy()
    assert "CPU" in line and "1 replica" in line and "float32" in line and "\n" not in line


@without_gpu
def test_mixed_float16_without_a_gpu_names_the_menu_entry_and_the_profile() -> None:
    with pytest.raises(InputError, match=r"Settings > Accelerator > GPU T4 x2.*PROFILE = \"smoke\""):
        choose_strategy("mixed_float16")


def test_several_gpus_are_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"] if kind == "GPU" else [])
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: tf.distribute.get_strategy())
    assert "Mirrored over 2 GPUs" in choose_strategy("mixed_float16")[1]


# Two virtual CPUs stand in for T4 x2; the script replaces the choice of devices and nothing else.
ON_TWO_DEVICES = """
import json, sys
from pathlib import Path
import utils
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import tiny
from utils.experiments import range_test
from utils.sources import find_data
from utils.training import loop, network, task


def half_network(*arguments):
    with network.under_policy("mixed_float16"):
        model = tiny.tiny_network(*arguments)
    logits = tf.keras.layers.Activation("linear", dtype="float32")(model.output)
    half = tf.keras.Model(model.input, logits, name="Half")
    half._set_dtype_policy("mixed_float16")
    half.rescale_mode, half.noise_clock = model.rescale_mode, model.noise_clock
    return half


network._network = half_network
two_devices = lambda precision: (tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), "two devices")
loop.choose_strategy = range_test.choose_strategy = two_devices
compiled, optimizers = loop.compiled, []


def keep(*arguments):
    model = compiled(*arguments)
    optimizers.append(model.optimizer)
    return model


loop.compiled = keep
data, out = sys.argv[1], Path(sys.argv[2])
profile = tiny.tiny_profile(2)
loop.train(profile, find_data(profile, data), out, progress=False, stop_after=1)
result = loop.train(profile, find_data(profile, data), out, progress=False)
last = optimizers[-1]
tested = range_test.learning_rate_range_test(profile, find_data(profile, data), steps=4, highest=0.1)
print(json.dumps({
    "optimizer": type(last).__mro__[1].__name__ + " " + type(last).__name__,
    "inner": type(last.inner_optimizer).__name__,
    "scale": float(last.loss_scale),
    "iterations": int(last.iterations.numpy()),
    "steps": task._task(profile, find_data(profile, data)).steps,
    "range_test": tested["learning_rate"].tolist(),
    "history": result.history.to_dict("list"),
}))
"""


@pytest.mark.long
def test_mirrored_mixed_float16_trains_with_loss_scaling_and_resumes(
    sample_flora: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(sample_flora), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'tests' / 'support'}:{REPOSITORY}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert "LossScaleOptimizer" in told["optimizer"] and told["inner"] == "SGDW" and told["scale"] > 1
    assert told["history"]["epoch"] == [1, 2]
    assert all(0 < loss < 10 for loss in told["history"]["loss"] + told["history"]["val_loss"])
    assert told["range_test"][0] == pytest.approx(1e-4) and told["range_test"][-1] == pytest.approx(0.1)
    # the second call went on counting; a step whose gradients overflow is skipped and not counted
    assert told["steps"] < told["iterations"] <= 2 * told["steps"]


# One of two workers of this machine; they find each other by TF_CONFIG, as on two machines.
WORKER = """
import json, sys, zlib
from pathlib import Path
import utils
from utils.training.devices import choose_strategy

strategy, line = choose_strategy()  # before anything else uses TensorFlow
import tiny
from utils.sources import find_data
from utils.training import loop, network

network._network = tiny.tiny_network
loop.choose_strategy = lambda precision: (strategy, line)
compiled, models = loop.compiled, []


def keep(*arguments):
    models.append(compiled(*arguments))
    return models[-1]


loop.compiled = keep
data, out = sys.argv[1], Path(sys.argv[2])
profile = tiny.tiny_profile(3)
loop.train(profile, find_data(profile, data), out, progress=False, stop_after=1)
result = loop.train(profile, find_data(profile, data), out, progress=False)
weights = b"".join(weight.tobytes() for weight in models[-1].get_weights())
print(json.dumps({
    "line": line,
    "weights": zlib.crc32(weights),
    "steps": int(models[-1].optimizer.iterations.numpy()),
    "history": result.history.drop(columns="time").to_dict("list"),
}))
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@pytest.mark.long
def test_two_workers_train_one_network_and_resume(sample_flora: Path, tmp_path: Path) -> None:
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    workers = []
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {
            **os.environ,
            "TF_CONFIG": config,
            "PYTHONPATH": f"{REPOSITORY / 'tests' / 'support'}:{REPOSITORY}",
        }
        command = [sys.executable, "-c", WORKER, str(sample_flora), str(tmp_path / "run")]
        pipe = subprocess.PIPE
        workers.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    try:
        outputs = [worker.communicate(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(
        error[-3000:] for _, error in outputs
    )
    told = [json.loads(text.splitlines()[-1]) for text, _ in outputs]
    assert all("MultiWorkerMirrored over 2 workers" in each["line"] for each in told)
    assert ["this is 0" in told[0]["line"], "this is 1" in told[1]["line"]] == [True, True]
    assert told[0]["weights"] == told[1]["weights"]
    assert told[0]["history"] == told[1]["history"] and told[0]["history"]["epoch"] == [1, 2, 3]
    steps = len(list((tmp_path / "run").glob("*.csv"))) and told[0]["steps"]
    assert steps == told[1]["steps"] > 3
    weights = list((tmp_path / "run").glob("*_weights.h5"))
    assert len(weights) == 1 and not list((tmp_path / "run" / "state").glob("*tmp*"))


def config(task: object = {"type": "worker", "index": 0}, **cluster: object) -> str:
    return json.dumps({"cluster": cluster, "task": task})


CHIEF, MASTER = {"type": "chief", "index": 0}, {"type": "master", "index": 0}
VERTEX = json.dumps(
    {"cluster": {"chief": ["pool0-0:2222"]}, "environment": "cloud", "task": CHIEF, "job": "{}"}
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "{}",
        '{"environment": "cloud"}',
        '{"cluster": {}, "task": {}}',
        '{"cluster": null, "task": null}',
        VERTEX,
        config(CHIEF, chief=["localhost:1"]),
        config(MASTER, master=["localhost:1"]),
        config(MASTER, master=["localhost:1"], worker=[], ps=[]),
        config(worker=["localhost:1"]),
        config({"type": "worker", "index": "0"}, worker=["localhost:1"]),
        config({}, worker=["localhost:1"]),
        config(CHIEF),
    ],
)
@without_gpu
def test_one_machine_of_tf_config_trains_alone_and_writes_the_files(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    assert read_cluster() is None and is_chief()
    assert choose_strategy()[0] is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        (config(worker=["a:1", "b:1"]), 0),
        (config({"type": "worker", "index": 1}, worker=["a:1", "b:1"]), 1),
        (config(CHIEF, chief=["a:1"], worker=["b:1"]), 0),
        (config({"type": "worker", "index": 0}, chief=["a:1"], worker=["b:1"]), 1),
    ],
)
def test_the_first_of_several_machines_writes_the_files(
    text: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    assert read_cluster() == Cluster(2, rank) and is_chief() == (rank == 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{'cluster': 1}", "is not JSON"),
        ("worker", "is not JSON"),
        ('["a:1"]', "is not a JSON object"),
        ("null", "is not a JSON object"),
        ('{"cluster": 1}', "has cluster 1, which is not a JSON object"),
        ('{"cluster": {"worker": ["a:1"]}, "task": "worker"}', "has task 'worker'"),
        (config({"type": "worker"}, worker=["a:1", "b:1"]), "says that this is a worker and not which of 2"),
        (config(worker="a:1"), "has 'a:1' as addresses of 'worker'"),
        (config(worker=[1, 2]), "which is not a list of texts"),
        (
            config({"type": "worker", "index": 2}, worker=["a:1", "b:1"]),
            "worker 2, and its cluster has 2 machines",
        ),
        (config({"type": "worker", "index": 1}, worker=["a:1"]), "worker 1, and its cluster has 1 machines"),
        (config({"type": "worker", "index": 1}), "worker 1, and its cluster has 0 machines"),
        (config({"type": "worker", "index": -1}, worker=["a:1"]), "index -1, which is not a number from 0"),
        (config({"type": "worker", "index": "x"}, worker=["a:1"]), "index 'x'"),
        (config(CHIEF, worker=["a:1"]), "says that this is a chief, and its cluster has only worker"),
        (config({}, worker=["a:1", "b:1"]), "names 2 machines and no task"),
        (config(worker=["a:1", "a:1"]), "names a:1 twice"),
        (config(worker=["a", "b"]), "has the address 'a', which is not host:port"),
        (config(CHIEF, chief=["a:1", "b:1"]), "names 2 chiefs"),
        (config(MASTER, master=["a:1"], worker=["b:1"]), "which TensorFlow 2 calls chief"),
        (config(workerpool0=["a:1"]), "has tasks of the kind 'workerpool0'"),
        (config({"type": "ps", "index": 0}, worker=["a:1"], ps=["b:1"]), "tasks of the kind 'ps'"),
        (config(CHIEF, chief=["a:1"], ps=["b:1"]), "tasks of the kind 'ps'"),
        (config({"type": "evaluator", "index": 0}, chief=["a:1"]), "tasks of the kind 'evaluator'"),
        (
            '{"sparseCluster": {"worker": {}, "ps": []}, "task": {"type": "chief", "index": 0}}',
            "a sparseCluster",
        ),
    ],
)
def test_a_broken_tf_config_is_one_line_before_anything_is_read(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    monkeypatch.setattr("utils.sources.find_data", lambda *_: pytest.fail("looks for data"))
    shown = CliRunner().invoke(main, ["train", "--profile", "smoke", "--out", str(tmp_path / "run")])
    assert shown.exit_code == 1 and len(shown.stderr.splitlines()) == 1
    assert re.match(f"Error: TF_CONFIG .*{told}", shown.stderr) and "unset" in shown.stderr
    with pytest.raises(InputError, match="TF_CONFIG"):
        choose_strategy()
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_workers_is_refused_a_time_to_stop_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.training import loop

    monkeypatch.setenv("TF_CONFIG", config(worker=["a:1", "b:2"]))
    with pytest.raises(UsageError, match=r"stop_at \(--max-hours\) is for one process"):
        loop.train(load_profile("smoke"), None, tmp_path / "run", stop_at=1.0)
    assert not (tmp_path / "run").exists()


def slurm_task(patch: pytest.MonkeyPatch, **variables: object) -> None:
    """The environment of one task of an srun, on nodes that are found by their names."""
    patch.setattr(socket, "getaddrinfo", lambda host, port: [])
    patch.setenv("TF_CONFIG", "not to be read")
    for name, value in {"JOB_ID": 12, "STEP_ID": 0, **variables}.items():
        patch.setenv(name if name.startswith("SLURMD") else f"SLURM_{name}", str(value))


def test_tasks_of_srun_come_before_tf_config_and_one_alone_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slurm_task(monkeypatch, STEP_NUM_TASKS=4, PROCID=2)
    assert read_cluster() == Cluster(4, 2, "Slurm job 12") and not is_chief()
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert is_chief()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")  # of the job, in a script that called no srun
    monkeypatch.delenv("TF_CONFIG")
    assert read_cluster() is None


def test_a_task_knows_its_address_by_its_node_and_place_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow's own resolver goes by the task's number, and sorts n10 before n9."""
    tasks = [("n9", 0), ("n10", 0), ("n9", 1), ("n10", 1)]  # as --distribution=cyclic deals them out
    found = []
    for number, (node, place) in enumerate(tasks):
        slurm_task(monkeypatch, STEP_NUM_TASKS=4, PROCID=number, LOCALID=place, SLURMD_NODENAME=node)
        slurm_task(monkeypatch, STEP_NODELIST="n[9-10]", STEP_TASKS_PER_NODE="2(x2)")
        resolver = devices._of_slurm([])
        workers = resolver.cluster_spec().job_tasks("worker")
        assert resolver.task_type == "worker" and resolver.num_accelerators() == {}
        assert workers[resolver.task_id] == f"{node}:{20_000 + 12 * 64 + place}"
        found.append(resolver.task_id)
    assert sorted(found) == [0, 1, 2, 3] and len(set(workers)) == 4


@pytest.mark.parametrize(
    ("gpus", "on_node", "here", "share"),
    [
        ("abcd", 4, 2, "bd"),  # all are seen by both tasks
        ("ab", 4, 2, "ab"),  # Slurm has divided them: --gpus-per-task=2
        ("a", 2, 2, "a"),  # one a task
        ("abcd", 4, 1, "abcd"),  # one task a node
        ("", 0, 2, ""),
    ],
)
def test_the_gpus_of_a_node_are_divided_among_its_tasks(
    gpus: str, on_node: int, here: int, share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm_task(monkeypatch, STEP_NUM_TASKS=2, PROCID=1, LOCALID=here - 1, SLURMD_NODENAME="n1")
    nodes = {"STEP_NODELIST": "n1", "STEP_TASKS_PER_NODE": 2}
    if here == 1:
        nodes = {"STEP_NODELIST": "n[1-2]", "STEP_TASKS_PER_NODE": "1(x2)"}
    slurm_task(monkeypatch, **nodes, **({"GPUS_ON_NODE": on_node} if on_node else {}))
    visible = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: visible.append(devices))
    resolver = devices._of_slurm(list(gpus))
    assert resolver.num_accelerators() == ({"GPU": len(share)} if share else {})
    assert visible == ([list(share)] if share != gpus else [])


@pytest.mark.parametrize(("gpus", "here"), [("a", 2), ("abc", 2)])
def test_gpus_that_cannot_be_divided_are_refused(
    gpus: str, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm_task(monkeypatch, STEP_NUM_TASKS=here, PROCID=0, LOCALID=0, SLURMD_NODENAME="n1")
    slurm_task(monkeypatch, STEP_NODELIST="n1", STEP_TASKS_PER_NODE=here, GPUS_ON_NODE=len(gpus))
    with pytest.raises(InputError, match=rf"n1: {here} tasks of srun cannot share {len(gpus)} GPUs evenly"):
        devices._of_slurm(list(gpus))


def test_a_node_without_an_address_is_named_in_place_of_waiting_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        slurm_task(patch, STEP_NUM_TASKS=2, PROCID=0, LOCALID=0, SLURMD_NODENAME="n1.invalid")
        slurm_task(patch, STEP_NODELIST="n1.invalid", STEP_TASKS_PER_NODE=2)
        devices._of_slurm([])
        patch.setattr(socket, "getaddrinfo", GETADDRINFO)
        with pytest.raises(InputError, match=r"n1\.invalid: a node of this srun has no address here \(.+\)"):
            devices._of_slurm([])
