"""Batches: what is refused, what is skipped, what a kill leaves, and the table."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.config import load_profile
from utils.experiments import run as batches
from utils.experiments import spec
from utils.experiments.table import show_table, summary_table
from utils.files import REPOSITORY, InputError, UsageError, read_json, replacing, write_json
from utils.flora.sample import GENERATOR_VERSION
from utils.startup import holding

EXAMPLE = REPOSITORY / "notebooks" / "batches" / "example.batch.yaml"


def batch_file(folder: Path, text: str) -> Path:
    file = folder / "mine.batch.yaml"
    file.write_text(text)
    return file


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize("file", sorted(EXAMPLE.parent.glob("*.yaml")), ids=lambda file: file.name)
def test_every_committed_batch_states_its_plan_and_writes_nothing(file, tmp_path):
    shown = CliRunner().invoke(main, ["batch", str(file), "--dry-run", "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    batch = spec.read_batch(file)
    assert f"{len(batch.runs)} runs of train: 0 finished, 0 begun" in shown.output
    assert shown.output.count("to do ") == len(batch.runs) >= 2  # one alone compares nothing
    assert not (tmp_path / "out").exists()


def test_the_example_is_the_grid_it_says():
    runs = spec.read_batch(EXAMPLE).runs
    methods = {"cross-entropy": "none", "class-balanced": "class_balanced"}
    assert [(run.method, run.seed) for run in runs] == [(m, seed) for m in methods for seed in (0, 1)]
    assert all(run.profile.class_weights == methods[run.method] for run in runs)
    assert all(run.profile.seed == run.seed and run.profile.name == "smoke" for run in runs)


def test_profiles_methods_values_and_seeds_are_combined_and_a_method_has_seeds_of_its_own(tmp_path):
    text = """
    run: train
    profiles: [smoke, laptop]
    seeds: [0, 1]
    settings: {epochs: 3}
    methods: {plain: , screened: {seeds: [7], epochs: 1}}
    grid: {max_lr: [0.05, 1e-1], label_smoothing: [0.1]}
    """
    runs = spec.read_batch(batch_file(tmp_path, text)).runs
    assert len(runs) == 2 * (2 + 1) * 2 and len({run.folder for run in runs}) == len(runs)
    last = runs[-1]
    assert last.method == "screened, max_lr=1e-1, label_smoothing=0.1" and last.seed == 7
    assert (last.profile.name, last.profile.max_lr, last.profile.epochs) == ("laptop", 0.1, 1)
    assert runs[0].profile.epochs == 3


REFUSED = [
    ("runs: train", r"unknown key 'runs'.*'run'"),
    ("about: no run", r"no key `run`"),
    ("run: trian", r"run is 'trian'.*'train'"),
    ("run: 3_train_efficientnetv2", r"'03_train_efficientnetv2'"),
    ("run: train\nprofiles: [laptp]", r"'laptp'.*'laptop'"),
    ("run: train\nprofiles: laptop", r"profiles is 'laptop', must be a list"),
    ("run: train\nsettings: {epoch: 2}", r"'epoch'.*'epochs'"),
    ("run: train\nmethods: {a: {}, b: {max_lr: -1}}", r"b: .*max_lr is -1"),
    ("run: train\ngrid: {epochs: [1, many]}", r"epochs is 'many', must be of type int"),
    ("run: train\nsettings: {seed: 1}", r"Give `seeds`"),
    ("run: train\nseeds: [0, -1]", r"seed -1"),
    ("run: train\nseeds: [0, 0]", r"seed 0: is there twice"),
    ("run: train\nafter: [tat]", r"unknown step 'tat'.*'tta'"),
    ("run: train\nmethods: {a: {after: [tat]}}", r"unknown step 'tat'"),
    ("run: train\nafter: [tta + retrained classifier]", r"at most one of .* then tta, then least cost"),
    (
        "run: train\nprofiles: [smoke]\nmethods: {a: {loss: arcface, after: [learnt scales]}}",
        r"a: ArcFace has no clas",
    ),
    ("run: train\ntest: none\nafter: [tta]", r"`after` needs a test"),
    ("run: train\nmethods: {a: {}}\nensembles: [b]", r"ensembles: no row 'b' with probabilities.*Known: a"),
    ("run: train\nmethods: {a: {}}\nensembles: [a]", r"'a' has one run"),
    ("run: train\nseeds: [0, 1]\nmethods: {a: {}}\ntest: none\nensembles: [a]", r"`ensembles` needs a test"),
    ("run: train\ntest: validation", r"withheld, none, or a number"),
    ("run: train\nseeds: [0]\nmethods: {a: {}}\ndata: [., ..]\nensembles: [a]", r"'a' has one run"),
    ("run: train\ndata: absent", r"absent: no such folder"),
    ("run: train\ndata: [., absent]", r"absent: no such folder"),
    ("run: train\ndata: [., ./.]", r"is there twice"),
    ("run: train\ndata: []", r"data is \[\], must be a list"),
    ("run: 3\nsettings: {EPOCH: 2}", r"no parameter 'EPOCH' in 03_train_efficientnetv2.*'EPOCHS'"),
    ("run: 03\nsettings: {EPOCHS: many}", r"must be of type int"),
    ("run: 03\nsettings: {PROFILE: smoke}", r"PROFILE is not a parameter to give"),
    ("run: 01\nseeds: [0, 1]", r"no parameter 'SEED'"),
]


@pytest.mark.parametrize(("text", "told"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_is_not_known_is_refused_before_any_run(tmp_path, text, told):
    with pytest.raises(UsageError, match=told) as caught:
        batches.run_batch(batch_file(tmp_path, text), out=tmp_path / "out")
    assert "mine.batch.yaml" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: [", "not valid YAML"),
        ("- run", "must be a mapping"),
        ("run: train\nmethods:\n  a: {}\n  b: {}\n  a: {}", r"not valid YAML \('a' is there twice.*line 5"),
    ],
)
def test_a_file_that_is_no_batch_is_refused(tmp_path, text, told):
    with pytest.raises(InputError, match=rf"mine\.batch\.yaml: {told}"):
        spec.read_batch(batch_file(tmp_path, text))


def test_a_changed_setting_is_another_run_and_a_changed_description_is_not(tmp_path):
    def folder(text: str) -> str:
        return spec.read_batch(batch_file(tmp_path, text)).runs[0].folder.name

    first = folder("run: train\nprofiles: [smoke]")
    assert first == folder("about: new words\nrun: train\nprofiles: [smoke]\nsettings: {cost: other}")
    changed = ("settings: {max_lr: 0.01}", "test: 4", f"data: {tmp_path}")
    names = {folder(f"run: train\nprofiles: [smoke]\n{more}") for more in changed}
    assert len(names | {first}) == 4


def test_the_names_of_run_folders_stay_as_they_were(tmp_path):
    """Finished runs are known by them: a new setting, key or way of giving the data must not change the checksum."""

    def names(more: str = "", data: tuple[Path, ...] = ()) -> list[str]:
        file = batch_file(tmp_path, f"run: train\nprofiles: [smoke]\nmethods: {{Plain CE: }}\n{more}")
        return [run.folder.name for run in spec.read_batch(file, data=data).runs]

    def expected(data: Path | None) -> str:
        identity = {
            "notebook": None,
            "profile": load_profile("smoke").changed(),
            "parameters": {},
            "test": "withheld",
            "data": data and str(data),
            "flora": GENERATOR_VERSION,
        }
        checksum = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
        return f"plain-ce_smoke_seed0_{checksum}"

    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
    assert names() == [expected(None)]
    assert names("data: first") == names(data=(first,)) == [expected(first)]
    assert names("data: second", (first,)) == [expected(first)], "the call has the last word"
    both = [expected(first), expected(second)]
    assert names("data: [first, second]") == names(data=(first, second)) == both


# ---------------------------------------------------------------- many runs, with a stand-in for training

# Takes the place of a run's process: it "trains" for a moment, and fails where it is told to.
STAND_IN = """
import os, sys, time
from pathlib import Path
from utils.experiments.one import _end_with_the_batch
from utils.files import read_json, write_json

_end_with_the_batch()
folder = Path(sys.argv[1])
spec = read_json(folder / "run.json")
(folder / "pid").write_text(str(os.getpid()))
(folder / "threads").write_text(os.environ["TF_NUM_INTRAOP_THREADS"])
time.sleep(SECONDS)
if spec["method"] == "bad" and not (folder.parent / "mended").exists():
    sys.exit("Error: this one fails.")
score = len(spec["method"]) / 10 + spec["seed"] / 100
metrics = {"macro_f1": score, "tail_f1": None, "minutes": time.time()}
after = {step: {**metrics, "macro_f1": score + 1} for step in spec["after"]}
write_json(folder / "result.json", {"metrics": metrics, "after": after})
"""
TEXT = "run: train\nprofiles: [smoke]\nseeds: [0, 1]\nmethods: {good: {}, bad: {max_lr: 0.01}}\ntest: none\n"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    def replace(seconds: float) -> Path:
        script = tmp_path / "stand_in.py"
        with replacing(script) as temporary:  # whole: another run's process may be starting from it
            temporary.write_text(STAND_IN.replace("SECONDS", str(seconds)))
        return script

    monkeypatch.setattr(batches, "_command", lambda folder: [sys.executable, str(replace(0)), str(folder)])
    for name in ("find_data", "with_extra_test"):
        monkeypatch.setattr(batches, name, lambda *_: None)
    return replace


def without_time(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in table if not name.startswith("minutes")]]


def test_a_failed_run_stops_no_other_and_is_tried_again_while_finished_ones_are_not(
    stand_in, tmp_path, capsys
):
    file, out = batch_file(tmp_path, TEXT), tmp_path / "out"
    with pytest.raises(InputError, match=r"2 of 4 runs failed(.|\n)*bad, smoke, seed 0: .*log\.txt"):
        batches.run_batch(file, out=out, jobs=2)
    printed = capsys.readouterr()
    assert printed.out.count("this one fails") + printed.err.count("this one fails") == 2
    table = pd.read_csv(out / "summary.csv")
    assert table[["method", "seeds"]].to_numpy().tolist() == [["good", 2]]
    results = {path: path.stat().st_mtime_ns for path in out.glob("*/result.json")}
    (out / "mended").touch()
    batches.run_batch(file, out=out, jobs=2)
    assert "2 finished, 0 begun" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == written for path, written in results.items())
    table = pd.read_csv(out / "summary.csv")
    assert table["method"].tolist() == ["good", "bad"] and (table["seeds"] == 2).all()
    assert table.loc[0, ["macro_f1_mean", "macro_f1_min", "macro_f1_max"]].tolist() == [0.405, 0.4, 0.41]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = {path.read_text() for path in out.glob("*/threads")}
    assert threads == {str(max(1, cores // 2))}


def test_a_further_step_after_training_is_a_row_and_finished_runs_are_scored_anew(stand_in, tmp_path, capsys):
    text = TEXT.replace("bad: {max_lr: 0.01}", "other: {seeds: [0], after: [tta]}").replace("none", "4")
    folders = [run.folder.name for run in spec.read_batch(batch_file(tmp_path, text)).runs]
    batches.run_batch(batch_file(tmp_path, text), out=tmp_path / "out", jobs=2)
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert table["method"].tolist() == ["good", "other", "other + tta"]
    assert table["macro_f1_mean"].tolist() == [0.405, 0.5, 1.5]
    capsys.readouterr()
    file = batch_file(tmp_path, text + "after: [tta]\n")
    assert [run.folder.name for run in spec.read_batch(file).runs] == folders
    batches.run_batch(file, out=tmp_path / "out", jobs=2)
    assert "3 runs of train: 1 finished" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert table["method"].tolist() == ["good", "good + tta", "other", "other + tta"]


def test_the_table_goes_where_the_file_says_once_all_have_finished(stand_in, tmp_path, capsys):
    file = batch_file(tmp_path, TEXT + "table: results/mine.csv\n")
    with pytest.raises(InputError):
        batches.run_batch(file, out=tmp_path / "out")
    assert not (tmp_path / "results").exists()
    (tmp_path / "out" / "mended").touch()
    batches.run_batch(file, out=tmp_path / "out")
    written = (tmp_path / "results" / "mine.csv").read_text()
    assert written == (tmp_path / "out" / "summary.csv").read_text()
    shown = capsys.readouterr().out
    assert "0.400-0.410" in shown and "tail" not in shown.split("method  ")[-1], (
        "what is not known is left out"
    )


def test_every_method_and_seed_is_run_on_every_folder_and_one_row_is_over_all(stand_in, tmp_path):
    folders = [tmp_path / name for name in ("leaves_0", "leaves_1", "leaves_2")]
    for folder in folders:
        folder.mkdir()
    text = TEXT.replace("bad: {max_lr: 0.01}", "other: {seeds: [0], after: [tta]}").replace("none", "4")
    options = [part for folder in folders for part in ("--data", str(folder))]
    command = ["batch", str(batch_file(tmp_path, text)), "--out", str(tmp_path / "out"), *options]
    shown = CliRunner().invoke(main, [*command, "--dry-run"])
    assert "9 runs of train: 0 finished" in shown.output and "good, leaves_2" in shown.output
    batch = batches.run_batch(batch_file(tmp_path, text), out=tmp_path / "out", data=folders, jobs=3)
    assert [run.title for run in batch.runs[:4]] == [
        *(f"good, smoke, leaves_0, seed {seed}" for seed in (0, 1)),
        "other, smoke, leaves_0, seed 0",
        "good, smoke, leaves_1, seed 0",
    ]
    given = [read_json(run.folder / "run.json")["data"] for run in batch.runs]
    assert given == [str(folder) for folder in folders for _ in range(3)]
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    counts = table[["method", "seeds", "data", "runs"]].to_numpy().tolist()
    assert counts == [["good", 2, 3, 6], ["other", 1, 3, 3], ["other + tta", 1, 3, 3]]
    row = table.loc[0, ["macro_f1_mean", "macro_f1_min", "macro_f1_max"]]
    assert row.tolist() == [0.405, 0.4, 0.41]
    lines = show_table(table).splitlines()
    assert lines[0].split()[2:4] == ["seeds", "data"]
    assert sum("lowest-highest" in line for line in lines) == 3, "one seed on three folders has a range too"


# A batch in a process of its own, to be killed.
BATCH = """
import sys
from pathlib import Path
from utils.experiments import run

file, out, script = sys.argv[1:]
run._command = lambda folder: [sys.executable, script, str(folder)]
run.find_data = lambda *_: None
run.run_batch(Path(file), out=Path(out))
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.is_file() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_stopped_midway_ends_with_the_same_table(stop, stand_in, tmp_path, capsys):
    file, out = batch_file(tmp_path, TEXT), tmp_path / "out"
    for folder in (out, tmp_path / "whole"):
        folder.mkdir()
        (folder / "mended").touch()
    arguments = [str(file), str(out), str(stand_in(0.5))]
    process = subprocess.Popen(
        [sys.executable, "-c", BATCH, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(list(out.glob("*/result.json"))) == 1 and len(list(out.glob("*/pid"))) == 2)
    process.send_signal(stop)
    assert process.wait() != 0
    pids = [int(path.read_text()) for path in out.glob("*/pid")]
    wait_for(lambda: not any(map(alive, pids)), 10)
    (first,) = out.glob("*/result.json")
    written = first.stat().st_mtime_ns
    batches.run_batch(file, out=out)
    assert "4 runs of train: 1 finished" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == written, "what had finished was not run again"
    batches.run_batch(file, out=tmp_path / "whole")
    tables = [pd.read_csv(folder / "summary.csv") for folder in (out, tmp_path / "whole")]
    pd.testing.assert_frame_equal(*map(without_time, tables))


def test_a_second_batch_in_the_same_folder_is_refused(stand_in, tmp_path):
    with (
        holding(tmp_path / "out"),
        pytest.raises(InputError, match=rf"out: process {os.getpid()} of .* since \d{{4}}-.* works on it"),
    ):
        batches.run_batch(batch_file(tmp_path, TEXT), out=tmp_path / "out")


def test_begun_runs_are_told_with_their_epochs(tmp_path):
    file = batch_file(tmp_path, "run: train\nprofiles: [laptop]")
    (run,) = spec.read_batch(file, tmp_path / "out").runs
    write_json(run.folder / "state" / "state.json", {"epoch": 3})
    shown = batches.plan(spec.read_batch(file, tmp_path / "out"))
    assert "0 finished, 1 begun" in shown and f"epoch 3 of {run.profile.epochs}" in shown


# ---------------------------------------------------------------- real runs


def write_notebook(path: Path) -> None:
    parameters = nbformat.v4.new_code_cell(
        'PROFILE = "auto"\nOUTPUT_DIR = "auto"\nSEED = 0\nPOWER = 1.0', metadata={"tags": ["parameters"]}
    )
    work = nbformat.v4.new_code_cell(
        "import json\nfrom pathlib import Path\n\n"
        'assert POWER < 9, "too much"\n'
        'found = {"result": 2**POWER + SEED, "profile": PROFILE, "parts": {"a": 1}}\n'
        '(Path(OUTPUT_DIR) / "found.json").write_text(json.dumps(found))'
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[parameters, work], metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)


def test_a_notebook_is_run_with_every_combination_and_its_numbers_become_the_table(tmp_path, capsys):
    write_notebook(tmp_path / "powers.ipynb")
    text = "run: powers.ipynb\nprofiles: [smoke]\nseeds: [0, 1]\ntest: none\n"
    text += "methods: {two: {POWER: 2}, nine: {POWER: 9, seeds: [0]}}\n"
    with pytest.raises(InputError, match="1 of 3 runs failed"):
        batches.run_batch(batch_file(tmp_path, text), out=tmp_path / "out", jobs=2)
    printed = capsys.readouterr()
    assert "AssertionError: too much" in printed.out + printed.err
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    row = table.loc[0, ["method", "seeds", "result_mean", "result_min", "result_max"]]
    assert len(table) == 1 and row.tolist() == ["two", 2, 4.5, 4, 5]
    assert not any("parts" in name or "profile_" in name for name in table)


def test_an_ensemble_is_the_mean_of_its_runs_probabilities(sample_flora, tmp_path, monkeypatch):
    from sklearn.metrics import f1_score

    from utils.evaluation.predict import Predictions

    text = f"run: train\nprofiles: [smoke]\nseeds: [0, 1]\ndata: {sample_flora}\nensembles: [as the profile says]\n"
    batch = spec.read_batch(batch_file(tmp_path, text), tmp_path / "out")
    generator = np.random.default_rng(0)
    true = generator.integers(0, 8, 50).astype(np.int32)
    means = np.zeros((50, 8))
    for run in batch.runs:
        assert "ensemble" not in " ".join(summary_table(batch)["method"]), "before all have finished"
        probabilities = generator.dirichlet(np.ones(8), 50)
        means += probabilities / 2
        order = np.argsort(-probabilities, axis=1).astype(np.int32)
        kept = np.take_along_axis(probabilities, order, axis=1).astype(np.float32)
        ids = np.array([f"sheet{number}" for number in range(50)])
        Predictions(ids, order, kept, true).save(run.folder / "predictions.npz")
        metrics = {"macro_f1": 0.5, "minutes": 2 + run.seed}
        write_json(run.folder / "result.json", {"metrics": metrics, "after": {}})
    table = summary_table(batch).set_index("method")
    row = table.loc["as the profile says + ensemble of 2"]
    score = f1_score(true, means.argmax(axis=1), labels=range(8), average="macro", zero_division=0)
    assert row["macro_f1_mean"] == pytest.approx(score) and row["seeds"] == 1
    assert row["minutes_mean"] == 5 and math.isnan(row["validation_f1_mean"])


def test_on_several_folders_there_is_an_ensemble_of_each_and_their_mean_is_the_row(sample_flora, tmp_path):
    from utils.evaluation.predict import Predictions

    folders = [shutil.copytree(sample_flora, tmp_path / name) for name in ("one", "two")]
    text = "run: train\nprofiles: [smoke]\nseeds: [0, 1]\nensembles: [as the profile says]\n"
    batch = spec.read_batch(batch_file(tmp_path, text), tmp_path / "out", folders)
    true = np.repeat(np.arange(8, dtype=np.int32), 5)
    ids = np.array([f"sheet{number}" for number in range(len(true))])
    for run in batch.runs:
        # on the first folder all is right, on the second every answer is the first class
        best = true if run.data == folders[0].resolve() else np.zeros_like(true)
        order = (best[:, None] + np.arange(8, dtype=np.int32)) % 8
        kept = np.tile(np.array([0.93, *[0.01] * 7], np.float32), (len(true), 1))
        Predictions(ids, order, kept, true).save(run.folder / "predictions.npz")
        metrics = {"macro_f1": 0.5, "minutes": 2 + run.seed}
        write_json(run.folder / "result.json", {"metrics": metrics, "after": {}})
    row = summary_table(batch).set_index("method").loc["as the profile says + ensemble of 2"]
    assert row[["seeds", "data", "runs"]].tolist() == [1, 2, 2]
    one_class = 2 * 5 / (5 + 40) / 8
    figures = row[["macro_f1_min", "macro_f1_mean", "macro_f1_max"]].tolist()
    assert figures == pytest.approx([one_class, (1 + one_class) / 2, 1]) and row["minutes_mean"] == 5
    assert row["rarest_f1_max"] == 1


@pytest.mark.long
def test_the_network_that_a_notebook_trains_is_scored_like_one_of_train(tmp_path):
    text = "run: 03\nprofiles: [smoke]\nseeds: [1]\nsettings: {EPOCHS: 1}\n"
    batches.run_batch(batch_file(tmp_path, text), out=tmp_path / "notebook")
    text = "run: train\nprofiles: [smoke]\nseeds: [1]\n"
    batches.run_batch(batch_file(tmp_path, text), out=tmp_path / "train")
    tables = [without_time(pd.read_csv(tmp_path / out / "summary.csv")) for out in ("notebook", "train")]
    of_notebook, of_train = tables  # a notebook's table has figures of its own besides
    pd.testing.assert_frame_equal(of_notebook[of_train.columns], of_train)
    assert of_train["macro_f1_mean"].notna().all()


@pytest.mark.long
def test_the_example_killed_midway_ends_with_the_table_of_one_that_was_not(tmp_path):
    """Real trainings, two epochs each; the kill comes when one run has finished and the next has an epoch."""
    file = batch_file(tmp_path, EXAMPLE.read_text().replace("epochs: 1", "epochs: 2"))

    def start(out: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "utils", "batch", str(file), "--out", str(tmp_path / out)]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)

    process = start("killed")
    wait_for(lambda: any((tmp_path / "killed").glob("*/result.json")), 600)
    half = "*seed1*/state/state.json"
    wait_for(lambda: any((tmp_path / "killed").glob(half)), 300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (state,) = (tmp_path / "killed").glob(half)
    assert read_json(state)["epoch"] == 1 and not (state.parents[1] / "result.json").exists()
    assert start("killed").wait() == 0
    assert "continues after epoch 1 of 2" in (state.parents[1] / "log.txt").read_text()
    assert start("whole").wait() == 0
    tables = [pd.read_csv(tmp_path / out / "summary.csv") for out in ("killed", "whole")]
    assert tables[0]["seeds"].tolist() == [2] * 6 + [1], "two methods, two chains after each, one ensemble"
    pd.testing.assert_frame_equal(*map(without_time, tables))
    results = [
        {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / out).glob("*/result.json")}
        for out in ("killed", "whole")
    ]
    for values in (*results[0].values(), *results[1].values()):
        for metrics in (values["metrics"], *values["after"].values()):
            metrics.pop("minutes")
    assert results[0] == results[1]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{other}'] * 9)}]\n"
    for other, one in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"run: train\n{BOMB}", r"its aliases \(\*name\) stand for more than 100,000 values"),
        ("run: train\nsettings: &a {epochs: *a}\n", r"its aliases .* stand for more"),
        ("run: train\nsettings: {name: x}\n", "`name` is no setting of a batch"),
        ("run: " + "[" * 5000 + "]" * 5000, "nests too deeply"),
        ("run: !!python/object/apply:os.system [touch pwned]\n", "not valid YAML .*python/object"),
        ("run: train\nabout: 2026-13-45\n", "not valid YAML .*month"),
    ],
)
def test_yaml_that_is_a_bomb_or_a_program_is_refused_at_once(tmp_path, text, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin = time.monotonic()
    with pytest.raises(InputError, match=message):
        spec.read_batch(batch_file(tmp_path, text))
    assert time.monotonic() - begin < 30 and not (tmp_path / "pwned").exists()


def test_aliases_that_spare_writing_are_read(tmp_path):
    text = "run: train\nprofiles: [smoke]\nmethods: {a: &a {epochs: 2}, b: {<<: *a, max_lr: 0.2}}\n"
    runs = spec.read_batch(batch_file(tmp_path, text)).runs
    assert [(run.method, run.profile.epochs) for run in runs] == [("a", 2), ("b", 2)]


@pytest.mark.parametrize(
    "result", ["[]", '{"after": {}}', '{"metrics": {"f1": "x"}, "after": {}}', '{"metrics": {}}']
)
def test_a_result_that_was_edited_is_named(tmp_path, result):
    file = batch_file(tmp_path, "run: train\nprofiles: [smoke]\ntest: none\n")
    (run,) = spec.read_batch(file, tmp_path / "out").runs
    run.folder.mkdir(parents=True)
    (run.folder / "result.json").write_text(result)
    with pytest.raises(
        InputError, match=r"result\.json: not the result of a run as it was written\. Delete it"
    ):
        batches.plan(spec.read_batch(file, tmp_path / "out"))


def test_another_file_of_first_weights_under_the_same_path_is_another_run(tmp_path):
    weights = tmp_path / "w.h5"
    file = batch_file(tmp_path, f"run: train\nprofiles: [smoke]\nsettings: {{weights: {weights}}}\n")
    folders = set()
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        folders.add(spec.read_batch(file).runs[0].folder)
    assert len(folders) == 2
