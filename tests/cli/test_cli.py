"""The command line: exit codes, one message for a mistake, no TensorFlow where it is not needed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.cli.common import Terminated, ended_by_sigterm
from utils.files import REPOSITORY, InputError

COMMANDS = [
    *[
        ["run"],
        ["test"],
        ["bench"],
        ["check"],
        ["lab"],
        ["flora"],
        ["metadata"],
        ["split"],
        ["tfrecords"],
        ["model"],
        ["train"],
    ],
    *[["review"]],
    *[["predict"], ["submission"], ["tfrecords", "write"], ["tfrecords", "inspect"], ["tfrecords", "verify"]],
    *[["submission", "validate"], ["submission", "score"]],
    *[["kaggle"], ["kaggle", "build"], ["kaggle", "weights"], ["kaggle", "check"], ["kaggle", "push"]],
]
LABELS = """image_id,file_name,scientificName,genus,family
1,a.jpg,Aster novi,Aster,Asteraceae
2,b.jpg,Rosa alba,Rosa,Rosaceae
"""


def call(*arguments: object):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(command):
    shown = call(*command, "--help")
    assert shown.exit_code == 0
    assert f"./course {command[0]}" in shown.output and len(shown.output.splitlines()) > 5


def test_help_lists_every_command():
    shown = call("--help").output
    for command in COMMANDS:
        assert f"  {command[0]} " in shown
    assert "..." not in shown.split("Commands:")[1], "each command's sentence is whole"
    course = (REPOSITORY / "course").read_text()
    for command in COMMANDS:
        assert command[0] in course, "./course --help names it too"


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["run", "--profile", "laptp"],
        ["run", "09"],
        ["run", "03", "-p", "EPOCHS"],
        ["bench", "--stage", "train inputs"],
        ["train", "-s", "epoch=1"],
        ["train", "-s", "epochs=many"],
        ["train", "--profile", "smoke", "--data", "/no/such/folder"],
        ["model", "--classes", "1"],
        ["metadata"],
        ["metadata", "no_such_file.json"],
        ["flora", "--species", "few", "--out", "x"],
        ["flora", "--json", "--out", "x"],
        ["predict", "--model", ".", "--out", "x.csv"],
        ["predict", "--model", ".", "--images", ".", "--data", ".", "--out", "x.csv"],
    ],
    ids=" ".join,
)
def test_bad_use_has_exit_code_2_and_one_message(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = call(*arguments)
    assert shown.exit_code == 2
    assert "Error: " in shown.stderr and "Traceback" not in shown.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["metadata", "PIPE"],
        ["submission", "validate", "PIPE"],
        ["submission", "score", "PIPE", "--solution", "PIPE"],
        ["batch", "PIPE"],
        ["tfrecords", "verify", "PIPE"],
        ["table", ".", "--out", "PIPE"],
        ["flora", "--out", "PIPE"],
        ["kaggle", "check", "PIPE"],
    ],
    ids=" ".join,
)
def test_a_pipe_is_neither_read_nor_replaced(arguments, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    shown = call(*(pipe if each == "PIPE" else each for each in arguments))
    assert shown.exit_code == 2 and f"'{pipe}' is a pipe or a device. Name a f" in shown.stderr
    assert pipe.is_fifo()


def test_the_nearest_known_name_is_offered():
    assert "Did you mean 'epochs'" in call("train", "-s", "epoch=1").stderr
    assert "Did you mean 'laptop'" in call("train", "--profile", "laptp").stderr


def test_a_failed_job_has_exit_code_1_and_names_the_file(tmp_path):
    broken = tmp_path / "train_metadata.json"
    broken.write_text("{")
    shown = call("metadata", broken)
    assert shown.exit_code == 1 and str(broken) in shown.stderr
    shown = call("predict", "--model", tmp_path, "--images", tmp_path, "--out", tmp_path / "x.csv")
    assert shown.exit_code == 1 and "no image files" in shown.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "runs/x"), "No space left on device: runs/x"),
        (PermissionError(13, "Permission denied", "/home/x"), "Permission denied: /home/x"),
        (InputError("a.csv: record 3 is damaged."), "record 3 is damaged"),
    ],
)
def test_what_stops_a_job_is_one_line(monkeypatch, error, told):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("utils.course.run.run_course", fail)
    shown = call("run")
    assert shown.exit_code == 1 and told in shown.stderr and len(shown.stderr.splitlines()) == 1


def test_a_sigterm_that_comes_while_an_object_is_deleted_ends_the_command_all_the_same(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's keeps what is raised there

    class Deleted:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    came = []
    begin = time.time()
    with pytest.raises(Terminated), ended_by_sigterm():
        Deleted()
        came.append("lost")  # Python cannot raise anything there
        time.sleep(30)
    assert came == ["lost"] and time.time() - begin < 10


def test_what_fails_because_of_a_sigterm_counts_as_it(monkeypatch):
    def fail(*_, **__):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:  # as C++ turns one exception into another
            raise RuntimeError("MISMATCH of exception types") from None

    monkeypatch.setattr("utils.course.run.run_course", fail)
    shown = call("run")
    assert shown.exit_code == 143 and shown.stderr.startswith("Stopped. What was finished is kept")


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("utils.course.run.run_course", lambda *_, **__: 1 / 0)
    assert isinstance(CliRunner().invoke(main, ["run"]).exception, ZeroDivisionError)


def test_metadata_is_summarised_for_people_and_programs(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(LABELS)
    assert json.loads(call("metadata", table, "--json").output)["species"] == 2
    assert ["species", "2"] in [line.split() for line in call("metadata", table).output.splitlines()]


def test_a_flora_is_made_and_summarised(tmp_path):
    options = ["--species", 2, "--max-images", 8, "--form", "images"]
    shown = call("flora", *options, "--out", tmp_path / "flora")
    assert shown.exit_code == 0 and "train_metadata.json" in shown.output
    summary = json.loads(call("metadata", tmp_path / "flora" / "train_metadata.json", "--json").output)
    assert summary["species"] == 2 and summary["images"] > 4


def test_run_passes_on_what_was_asked(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(
        "utils.course.run.run_course", lambda names, **options: asked.update(names=names, **options)
    )
    assert (
        call("run", "03", "-p", "A=b=c", "-p", "N=1", "--profile", "smoke", "--out", tmp_path).exit_code == 0
    )
    assert asked["names"] == ("03",) and asked["parameters"] == {"A": "b=c", "N": "1"}
    assert asked["profile"] == "smoke" and asked["out"] == tmp_path and asked["data_dir"] is None


def test_tests_are_named_from_the_folder_of_the_caller(monkeypatch, tmp_path):
    calls = []

    def run(command, **options):
        calls.append((command, options))
        return subprocess.CompletedProcess(command, 5)

    monkeypatch.setattr("utils.cli.course.subprocess.run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_x.py").touch()
    assert call("test", "--all", "test_x.py::test_y", "-k", "name").exit_code == 5
    ((command, options),) = calls
    assert command[-4:] == ["--all", f"{tmp_path}/test_x.py::test_y", "-k", "name"]
    assert options["cwd"] == REPOSITORY


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_sigterm_ends_pytest_too(tmp_path):
    sleeps = (
        "import os, time\ndef test():\n    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(300)\n"
    )
    (tmp_path / "test_x.py").write_text(sleeps.replace("'pid'", repr(str(tmp_path / "pid"))))
    command = [sys.executable, "-m", "utils", "test", str(tmp_path / "test_x.py")]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()):
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 143
    status, deadline = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat"), time.monotonic() + 30
    while status.is_file() and ") Z " not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline, "pytest still runs"


PROBE = """
import sys, time
begin = time.perf_counter()
from click.testing import CliRunner
from utils.__main__ import main
for arguments in {arguments}:
    CliRunner().invoke(main, arguments)
heavy = {{"tensorflow", "pandas", "matplotlib", "papermill", "numpy"}} & sys.modules.keys()
print(sorted(heavy - {allowed}), time.process_time())
"""


def probe(arguments: list[list[str]], allowed: set[str]) -> tuple[str, float]:
    script = PROBE.format(arguments=arguments, allowed=allowed or "set()")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    heavy, seconds = done.stdout.rsplit(" ", 1)
    return heavy, float(seconds)


def test_help_is_quick_and_imports_nothing_heavy():
    heavy, seconds = probe([["--help"], ["train", "--help"], ["run", "--help"]], set())
    assert heavy == "[]"
    assert seconds < 0.5, "processor time; 0.25 s where it was measured"


def test_data_commands_do_not_import_tensorflow(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(LABELS)
    heavy, _ = probe([["metadata", str(table)], ["run", "--profile", "none"]], {"pandas", "numpy"})
    assert heavy == "[]"


def test_the_module_runs_from_any_folder(tmp_path):
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "utils", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "version" in done.stdout
    assert time.monotonic() - begin < 10


def test_a_damaged_record_stops_a_prediction_by_its_name(tmp_path, monkeypatch):
    import tensorflow as tf
    from PIL import Image

    from utils.config import load_profile
    from utils.own.shards import Record, write_shards

    profile = load_profile("smoke", image_size=32)
    model = tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(32, 32, 3)), tf.keras.layers.Dense(2)])
    monkeypatch.setattr("utils.training.runs.load_trained", lambda _: (model, profile, None))
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (shard,) = write_shards([Record(whole, "a"), Record(b"text", "b")], tmp_path, split="test")
    shown = call("predict", "--model", tmp_path, "--shards", shard, "--out", tmp_path / "p.csv")
    assert shown.exit_code == 1 and f"{shard}: record 1" in shown.stderr
    assert "again" in shown.stderr and not (tmp_path / "p.csv").exists()


@pytest.mark.long
def test_own_sheets_go_from_images_to_predictions(tmp_path):
    """The README's commands; shards and the images they were made of must give the same predictions."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    sheets, shards, run = tmp_path / "sheets", tmp_path / "shards", tmp_path / "run"
    sheets.mkdir()
    rng = np.random.default_rng(0)
    rows = ["image_id,file_name,scientificName,genus,family"]
    for number in range(24):
        name = f"{number:02d}.png"
        pixels = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((300, 400)).save(sheets / name)
        rows.append(
            f"{name},{name}," + ("Aster novi,Aster,Asteraceae", "Rosa alba,Rosa,Rosaceae")[number % 2]
        )
    (sheets / "labels.csv").write_text("\n".join(rows) + "\n")

    def passes(*arguments: object) -> str:
        done = call(*arguments)
        assert done.exit_code == 0, done.output
        return done.output

    passes("tfrecords", "write", "--labels", sheets / "labels.csv", "--images", sheets, "--out", shards)
    files = sorted(shards.glob("*.tfrec"))
    assert "whole" in passes("tfrecords", "verify", *files)
    assert "480x480" in passes("tfrecords", "inspect", *files)
    passes("train", "--profile", "smoke", "--data", shards, "--out", run, "-s", "batch_size=4")
    passes("predict", "--model", run, "--shards", *files, "--out", tmp_path / "a.csv")
    page = tmp_path / "b.html"
    passes("predict", "--model", run, "--images", sheets, "--out", tmp_path / "b.csv", "--html", page)
    assert page.read_text().count("<article") == 24
    assert "trained on" in page.read_text() and "few" in page.read_text()
    a, b = (
        pd.read_csv(tmp_path / name).sort_values("image_id", ignore_index=True) for name in ("a.csv", "b.csv")
    )
    assert len(a) == 24 and set(b.columns) - set(a.columns) == {"file_name"}
    pd.testing.assert_frame_equal(a, b[a.columns], atol=2e-4)


@pytest.mark.long
def test_real_sheets_go_from_images_to_the_page(tmp_path, real_sheets):
    """Most of their species have one sheet, 97 of 100 no family, and names without an epithet are left out."""
    import csv

    def passes(*arguments: object) -> str:
        done = call(*arguments)
        assert done.exit_code == 0, done.output
        return done.output

    shards, run, page = tmp_path / "shards", tmp_path / "run", tmp_path / "p.html"
    labels = real_sheets / "labels.csv"
    passes("tfrecords", "write", "--labels", labels, "--images", real_sheets, "--out", shards, "--fit", "pad")
    assert "whole" in passes("tfrecords", "verify", shards)
    assert "480x480" in passes("tfrecords", "inspect", shards)
    passes("train", "--profile", "smoke", "--data", shards, "--out", run)
    passes("predict", "--model", run, "--images", real_sheets, "--out", tmp_path / "p.csv", "--html", page)
    (configs,) = run.glob("*_configs.json")
    assert json.loads(configs.read_text())["run"]["stored"] == {"size": 480, "fit": "pad"}
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100 and len({row["image_id"] for row in rows}) == 100
    assert all(float(row["probability_1"]) >= float(row["probability_5"]) for row in rows)
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 100 and text.count("data:image/jpeg") == 200
    species = json.loads((shards / "labels.json").read_text())["scientificName"]
    assert not {"Linociera", "Polyscias"} & set(species), "genera are no species"
    assert len(species) == 54 and "among these 54 species" in text and text.count("not known") >= 400
