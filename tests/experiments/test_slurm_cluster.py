"""A real Slurm, with two nodes on this machine: what its jobs write, train and predict is what one process does."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import slurm_cluster

from utils.files import REPOSITORY, read_json

pytestmark = pytest.mark.long

# Batches look at the queue more often than they should on a cluster with others.
COURSE = """
import os, sys
from utils.experiments import arrays

arrays.POLL, arrays.SETTLE = 1.0, 5.0
from utils.__main__ import main

main(sys.argv[1:])
"""


# In every process of these tests the small network stands in for the profile's, which takes a minute to be traced.
WITH_TINY = """
import importlib.abc, importlib.machinery, sys


class WithTiny(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "utils.training.network":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def small_network(*arguments):
            import tiny  # now that all that it needs is loaded

            return tiny.tiny_network(*arguments)

        def exec_module(module):
            load(module)
            module._network = small_network

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, WithTiny())
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of a Slurm that runs here; else the reason why there is none."""
    if reason := slurm_cluster.why_not():
        pytest.skip(f"no Slurm: {reason}")
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(WITH_TINY)
    path = os.pathsep.join(map(str, (site, REPOSITORY / "tests" / "support", REPOSITORY)))
    with slurm_cluster.running_slurm() as environment:
        yield {**environment, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def start(environment: dict[str, str], *words: object) -> subprocess.Popen:
    """A command of the course in a process of its own."""
    command = [sys.executable, "-c", COURSE, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=REPOSITORY, **pipes)


def call(environment: dict[str, str], *words: object, code: int = 0) -> str:
    process = start(environment, *words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output[-3000:]
    return output


def ask(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def queue(environment: dict[str, str]) -> list[list[str]]:
    """Job with index, state and node of all that is queued."""
    told = ask(environment, "squeue", "--noheader", "--array", "--format=%i %T %N")
    return [line.split() for line in told.splitlines()]


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_array_writes_the_shards_that_one_process_writes(slurm, tmp_path, make_sheet):
    images = tmp_path / "my 'sheets', 50%"
    for species in ("Aster alba", "Rosa nova", "Zea mays"):
        (images / species).mkdir(parents=True)
        for number in range(4):
            make_sheet(number + 10 * len(species), 60, 90).save(images / species / f"{number}.png")
    words = (
        "tfrecords",
        "write",
        "--images",
        images,
        "--size",
        32,
        "--shard-images",
        2,
        "--test-fraction",
        0.25,
    )
    shared, alone = tmp_path / "shared 100%", tmp_path / "alone"
    comment = '--sbatch=comment=it\'s "mine", $HOME'
    told = call(slurm, *words, "--out", shared, "--slurm", 3, comment)
    assert "3 jobs submitted as array" in told
    comments = ask(slurm, "squeue", "--noheader", "--format=%k").splitlines()
    assert comments and set(comments) == {'it\'s "mine", $HOME'}, "options reach sbatch as they are"
    assert "queued" in call(slurm, *words, "--out", shared, "--slurm", 3), "it is not submitted twice"
    call(slurm, *words, "--out", alone)
    wait_for(lambda: not queue(slurm))
    logs = {path.name: path.read_text() for path in Path(f"{shared}.slurm").iterdir()}
    assert logs.keys() == {"1.txt", "2.txt", "3.txt", "close.txt"}
    assert content(shared) == content(alone), logs
    assert "shards. Train on them" in logs["close.txt"]
    # closed once more, by two at once
    closing = [start(slurm, *words, "--out", shared, "--shard", "1/3") for _ in range(2)]
    assert [process.wait(120) for process in closing] == [0, 0]
    assert content(shared) == content(alone)
    assert "all shards are here" in call(slurm, *words, "--out", shared, "--slurm", 3)


BATCH = """
run: train
profiles: [smoke]
seeds: [0, 1]
settings: {epochs: 20, image_size: 32, batch_size: 8}
methods: {plain: {}, smooth: {label_smoothing: 0.2}}
data: DATA
test: none
slurm: {time: "1:00:00", cpus-per-task: 1}
"""


def without_time(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    return table[[name for name in table if not name.startswith(("minutes", "time"))]]


@pytest.fixture(scope="module")
def batches(slurm, sample_flora, tmp_path_factory) -> tuple[Path, Path]:
    """One batch done on this machine, and one on Slurm with all that can go wrong; their folders."""
    folder = tmp_path_factory.mktemp("batches")
    file = folder / "two.batch.yaml"
    file.write_text(BATCH.replace("DATA", str(sample_flora)))
    here, there = folder / "here", folder / "there"
    words = ("batch", file, "--slurm", "--out", there)
    process = start(slurm, *words)
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.extend(process.stdout), daemon=True)
    reader.start()
    wait_for(lambda: any("submitted 4 runs as array" in line for line in output))
    (job,) = {each[0].partition("_")[0] for each in queue(slurm)}
    runs = {int(link.name): link.resolve() for link in there.glob("slurm/*/*")}
    at_work = {0: runs[0] / "state" / "state.json", 1: runs[1] / "run.json"}
    wait_for(lambda: all(path.is_file() for path in at_work.values()))
    # What a job gets before its time limit: it goes to the end of the queue. Another one is cancelled, and the second
    # node drained while it works.
    ask(slurm, "scancel", "--signal=TERM", f"{job}_0")
    ask(slurm, "scancel", f"{job}_1")
    ask(slurm, "scontrol", "update", "nodename=second", "state=drain", "reason=test")
    process.send_signal(signal.SIGKILL)  # the batch itself ends; its jobs do not
    process.wait()
    states_of = lambda: {each[0]: each[1] for each in queue(slurm)}  # noqa: E731
    wait_for(lambda: f"{job}_1" not in states_of() and states_of()[f"{job}_0"] == "PENDING")
    states = call(slurm, *words, "--dry-run")
    assert states.count("\nfailed") == 1 and re.search(
        r"\n(queued|running \d+ of 20) +smoke +0  plain", states
    )
    assert "--array=0-0" in states, "only the cancelled one would be submitted"
    told = call(slurm, *words)
    assert "submitted 1 runs as array" in told and "finished  plain, smoke, seed 1" in told
    ask(slurm, "scontrol", "update", "nodename=second", "state=resume")
    subprocess.run(
        [sys.executable, "-c", COURSE, "batch", str(file), "--jobs", "2", "--out", str(here)],
        env={**os.environ, "PYTHONPATH": slurm["PYTHONPATH"]},
        check=True,
        capture_output=True,
    )
    return here, there


def test_a_batch_on_slurm_gives_the_table_of_one_on_this_machine(batches):
    tables = [without_time(folder / "summary.csv") for folder in batches]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["seeds"].tolist() == [2, 2]
    names = [{path.parent.name for path in folder.glob("*/result.json")} for folder in batches]
    assert names[0] == names[1] and len(names[0]) == 4


def test_a_job_that_was_ended_and_requeued_has_the_history_of_one_that_was_not(batches):
    here, there = batches
    (log,) = (path for path in there.glob("plain*seed0*/log.txt"))
    assert re.search(r"continues after epoch \d+ of 20", log.read_text())
    histories = [without_time(next((folder / log.parent.name).glob("Eff*.csv"))) for folder in (here, there)]
    assert len(histories[0]) == 20
    pd.testing.assert_frame_equal(*histories)


def test_an_array_predicts_what_one_process_predicts(slurm, batches, tmp_path, make_sheet):
    (model,) = (path for path in batches[0].glob("plain*seed0*"))
    batch_size = read_json(next(model.glob("*_configs.json")))["batch_size"]
    images = tmp_path / "images"
    images.mkdir()
    for number in range(batch_size + 3):
        make_sheet(number, 40, 60).save(images / f"{number:03d}.png")
    words = ("predict", "--model", model, "--images", images)
    shared, alone = tmp_path / "shared.csv", tmp_path / "alone.csv"
    assert "2 jobs submitted as array" in call(slurm, *words, "--out", shared, "--slurm", 2)
    call(slurm, *words, "--out", alone)
    wait_for(lambda: not queue(slurm))
    assert shared.read_bytes() == alone.read_bytes()
    assert len(alone.read_text().splitlines()) == batch_size + 4


# One of two tasks or workers.
TRAIN = """
import json, sys, zlib
from pathlib import Path
import utils
from utils.config import load_profile
from utils.sources import find_data
from utils.training import loop

compiled, models = loop.compiled, []


def keep(*arguments):
    models.append(compiled(*arguments))
    return models[-1]


loop.compiled = keep
data, out = sys.argv[1], Path(sys.argv[2])
profile = load_profile("smoke", epochs=2, image_size=32, batch_size=8, dropout=0.3)
result = loop.train(profile, find_data(profile, data), out)
weights = b"".join(weight.tobytes() for weight in models[-1].get_weights())
history = result.history.drop(columns="time").to_dict("list")
print(json.dumps({"weights": zlib.crc32(weights), "history": history}))
"""


def test_two_tasks_of_srun_train_what_two_workers_of_tf_config_train(slurm, sample_flora, tmp_path):
    command = [sys.executable, "-c", TRAIN, str(sample_flora)]
    with_label = ["srun", "--ntasks=2", "--nodes=1", "--label", *command, str(tmp_path / "slurm")]
    done = subprocess.run(with_label, env=slurm, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    told = [line for line in lines if "Devices:" in line]
    assert len(told) == 1 and "MultiWorkerMirrored over 2 workers of Slurm job" in told[0]
    assert "this is 0; 2 replicas" in told[0], "one line says so"
    of_slurm = [json.loads(line.partition(": ")[2]) for line in lines if '"weights"' in line]
    cluster = {"worker": [f"localhost:{port}" for port in slurm_cluster.free_ports(2)]}
    workers = []
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": config, "PYTHONPATH": slurm["PYTHONPATH"]}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen([*command, str(tmp_path / "config")], env=environment, **pipes))
    outputs = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    of_config = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    assert of_slurm[0] == of_slurm[1] == of_config[0] == of_config[1]
    assert of_slurm[0]["history"]["epoch"] == [1, 2]
