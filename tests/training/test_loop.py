"""Training: what a run leaves, and that it goes on after a stop, an error or SIGKILL."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import published
import pytest
import tensorflow as tf
import tiny
from click.testing import CliRunner, Result

from utils.__main__ import main
from utils.config import Profile, load_profile
from utils.data.batches import evaluation_dataset
from utils.evaluation.scores import macro_f1
from utils.experiments import range_test
from utils.files import REPOSITORY, InputError, UsageError
from utils.own.split import write_split
from utils.sources import Data, find_data
from utils.training import loop, network, runs, trainer
from utils.training import state as state_module
from utils.training.runs import take_up_run
from utils.training.state import Progress, RunState
from utils.training.task import _task, reading

EPOCHS = 4
PROFILE = tiny.tiny_profile(EPOCHS)
FIGURES = ["epoch", "loss", "f1_score", "time", "learning_rate", "momentum", "weight_decay"]
FIGURES += ["val_loss", "val_f1_score", "val_accuracy"]


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_network", tiny.tiny_network)


@pytest.fixture(scope="module")
def data(sample_flora: Path) -> Data:
    return find_data(PROFILE, sample_flora)


@pytest.fixture(scope="module")
def whole(data: Data, tmp_path_factory: pytest.TempPathFactory) -> loop.TrainResult:
    """A run of EPOCHS epochs that nothing disturbed."""
    return tiny.trained(PROFILE, data, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def first_epoch(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after its first epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    result = tiny.trained(PROFILE, data, folder, stop_after=1)
    assert not result.finished and len(result.history) == 1
    return folder


@pytest.fixture
def stopped(first_epoch: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to continue or to spoil."""
    return shutil.copytree(first_epoch, tmp_path / "run")


def _same(history: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Every epoch once, with the same figures but for the time."""
    assert history["epoch"].tolist() == list(range(1, len(expected) + 1))
    pd.testing.assert_frame_equal(history.drop(columns="time"), expected.drop(columns="time"), rtol=1e-6)


def test_a_run_leaves_the_published_files(whole: loop.TrainResult) -> None:
    name = "EfficientNetV2B0_32_OCEP4_FC_NOW_None"
    assert whole.run_name == name
    left = {path.name for path in whole.run_dir.iterdir()}
    parts = ("_configs.json", "_model_summary.txt", ".csv", "_weights.h5")
    assert left == {f"{name}{part}" for part in parts} | {"labels.json", "training_images.csv", "state"}
    assert "logits (Dense)" in (whole.run_dir / f"{name}_model_summary.txt").read_text()
    config = json.loads((whole.run_dir / f"{name}_configs.json").read_text())
    assert {key: config[key] for key in PROFILE.to_dict()} == PROFILE.to_dict()
    assert config["run"]["classes"] == 8
    assert config["run"]["versions"]["tensorflow"] == tf.__version__


def test_the_history_has_a_row_an_epoch(whole: loop.TrainResult) -> None:
    saved = pd.read_csv(whole.run_dir / f"{whole.run_name}.csv")
    pd.testing.assert_frame_equal(saved, whole.history, check_dtype=False)
    assert list(saved.columns) == FIGURES
    assert saved["epoch"].tolist() == [1, 2, 3, 4]
    assert np.isfinite(saved.to_numpy()).all()
    assert saved["learning_rate"].iloc[-1] < saved["learning_rate"].iloc[0]


def test_the_weights_are_those_of_the_best_epoch(whole: loop.TrainResult, data: Data) -> None:
    assert whole.finished
    assert whole.best_f1 == whole.history["val_f1_score"].max()
    assert whole.history["val_f1_score"].iloc[whole.best_epoch - 1] == whole.best_f1
    left_by_macos = whole.run_dir / f"._{whole.run_name}_configs.json"
    left_by_macos.write_bytes(b"\0\5\26\7")
    model, profile, labels = runs.load_trained(whole.run_dir)
    left_by_macos.unlink()
    assert (profile, labels.n_classes) == (PROFILE, 8)
    held_out = _task(PROFILE, data).validation_ids
    dataset = evaluation_dataset(data.train_shards, image_size=32, batch_size=8, only_ids=held_out)
    true, guess = zip(*[(y, model(x).numpy().argmax(1)) for x, y, _ in dataset], strict=True)
    score = macro_f1(np.concatenate(true), np.concatenate(guess), 8)
    assert score == pytest.approx(whole.best_f1, abs=1e-6)


def test_training_and_validation_images_are_apart_and_all_used(data: Data) -> None:
    task = _task(PROFILE, data)
    table = data.training_table()
    assert task.counts.sum() + len(task.validation_ids) == len(table)
    assert set(table["class_index"][table["image_id"].isin(task.validation_ids)]) == set(range(8))
    assert sum(len(labels) for _, labels in task.validation()) == len(task.validation_ids)
    assert sum(1 for _ in task.training(0)) == task.steps == task.counts.sum() // 8


def test_an_epoch_of_a_given_length_repeats_the_images(data: Data) -> None:
    task = _task(replace(PROFILE, steps_per_epoch=40), data)
    assert task.batches < 40 == sum(1 for _ in task.training(0))
    task = _task(replace(PROFILE, steps_per_epoch=2), data)
    assert sum(1 for _ in task.training(0)) == 2


def test_a_finished_run_returns_at_once(
    whole: loop.TrainResult, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "compiled", lambda *_: pytest.fail("builds a network"))
    again = loop.train(PROFILE, data, whole.run_dir, progress=False)
    pd.testing.assert_frame_equal(again.history, whole.history)
    assert (again.best_epoch, again.weights) == (whole.best_epoch, whole.weights)


def test_a_stopped_run_continues_as_if_it_had_not_stopped(
    stopped: Path, whole: loop.TrainResult, data: Data, capsys: pytest.CaptureFixture
) -> None:
    shown: list[int] = []
    result = loop.train(PROFILE, data, stopped, on_epoch=lambda history: shown.append(len(history)))
    assert shown == [2, 3, 4]
    _same(result.history, whole.history)
    assert result.finished and result.best_epoch == whole.best_epoch
    printed = capsys.readouterr().out
    assert "continues after epoch 1 of 4" in printed and printed.count("epoch 3/4") == 1


def test_the_guard_begins_no_epoch_that_would_outlast_the_session_and_another_session_goes_on(
    whole: loop.TrainResult,
    stopped: Path,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = json.loads((stopped / "state" / "state.json").read_text())
    state["history"][0]["time"] = 3600.0
    (stopped / "state" / "state.json").write_text(json.dumps(state))
    guarded = loop.train(PROFILE, data, stopped, stop_at=time.time() + 3599)
    assert not guarded.finished and len(guarded.history) == 1
    assert "1 of 4 epochs are saved" in capsys.readouterr().out
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")  # the folder becomes an attached output
    monkeypatch.setenv("NAFLORA_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    shutil.copytree(stopped, tmp_path / "kaggle" / "input" / "notebooks" / "owner" / "naflora-03")
    (tmp_path / "working").mkdir()
    take_up_run(tmp_path / "working", PROFILE)
    going_on = loop.train(PROFILE, data, tmp_path / "working", progress=False, stop_at=time.time() + 36000)
    assert going_on.finished
    _same(going_on.history, whole.history)


def test_the_guard_breaks_an_epoch_off_and_saves_nothing_of_it(
    stopped: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    monkeypatch.setattr(
        trainer.SessionGuard, "allows", lambda guard, seconds: _count_to(3, steps, guard, seconds)
    )
    result = loop.train(PROFILE, data, stopped, progress=False, stop_at=time.time() + 3600)
    assert len(steps) == 3 and len(result.history) == 1 and not result.finished


def _count_to(last: int, steps: list, guard: trainer.SessionGuard, seconds: float) -> bool:
    """As if time were up after `last` questions: one before the epoch, one after each step."""
    steps.append(seconds)
    guard.stopped = len(steps) >= last
    return not guard.stopped


def test_the_guard_expects_an_epoch_of_larger_images_to_take_longer() -> None:
    growing = load_profile("smoke", epochs=4, image_size=96, first_image_size=32)
    done = Progress(epoch=1, history=({"epoch": 1, "time": 100.0},))
    sizes = [growing.image_size_at(epoch) for epoch in range(4)]
    assert loop.longest_epoch(growing, done) == 100 * (sizes[1] / sizes[0]) ** 2 > 100
    assert loop.longest_epoch(load_profile("smoke", epochs=4), done) == 100


def test_a_session_too_short_for_the_first_epoch_says_what_to_set(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"before the first epoch does.*steps_per_epoch below \d+"):
        loop.train(PROFILE, data, tmp_path, progress=False, stop_at=time.time())
    assert not (tmp_path / "state").exists()


def test_changed_settings_are_refused_by_name(whole: loop.TrainResult, data: Data) -> None:
    with pytest.raises(
        UsageError, match=r"max_lr: 0\.05, and this call has max_lr: 0\.2.*another output folder"
    ):
        loop.train(replace(PROFILE, max_lr=0.2), data, whole.run_dir, progress=False)
    renamed = replace(PROFILE, name="mine", about="another description")
    assert loop.train(renamed, data, whole.run_dir, progress=False).finished


def test_a_run_saved_before_a_setting_existed_has_its_default(stopped: Path, data: Data) -> None:
    file = stopped / "state" / "state.json"
    state = json.loads(file.read_text())
    for key in ("loss", "ema", "class_weights_from", "accumulate"):
        del state["profile"][key]
    file.write_text(json.dumps(state))
    with pytest.raises(UsageError, match=r"with ema: 0\.0, and this call has ema: 0\.9"):
        loop.train(replace(PROFILE, ema=0.9), data, stopped, progress=False)
    assert len(loop.train(PROFILE, data, stopped, progress=False, stop_after=1).history) == 2


SWITCHES = {
    "averaged, accumulated, deferred weights": {
        "epochs": 2,
        "ema": 0.9,
        "accumulate": 2,
        "class_weights": "class_balanced",
        "class_weights_from": 0.5,
        "class_balanced_n": 50,
    },
    "resized in the model": {
        "epochs": 2,
        "resize": "model",
        "first_image_size": 32,
        "image_size": 64,
        "accumulate": 2,
    },
    "all of them": {
        "epochs": 3,
        "loss": "arcface",
        "class_weights": "inverse",
        "class_weights_from": 0.4,
        "genus_weight": 0.5,
        "family_weight": 0.2,
        "mixup": 0.3,
        "cutmix": 1.0,
        "randaugment": 1,
        "ema": 0.9,
        "first_image_size": 32,
        "image_size": 64,
        "frozen_epochs": 1,
        "accumulate": 2,
    },
}


@pytest.mark.parametrize(
    "name",
    [name if name != "all of them" else pytest.param(name, marks=pytest.mark.long) for name in SWITCHES],
)
def test_a_run_with_methods_continues_exactly(name: str, data: Data, tmp_path: Path) -> None:
    profile = tiny.tiny_profile(**SWITCHES[name])
    expected = loop.train(profile, data, tmp_path / "whole", progress=False)
    for _ in range(profile.epochs):
        result = loop.train(profile, data, tmp_path / "parts", progress=False, stop_after=1)
    pd.testing.assert_frame_equal(
        result.history.drop(columns="time"), expected.history.drop(columns="time"), rtol=0, atol=0
    )
    assert result.finished and result.best_epoch == expected.best_epoch
    model, other = (runs.load_trained(run.run_dir)[0] for run in (expected, result))
    for weight, again in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, again)


def test_the_average_is_what_a_run_scores_and_leaves(data: Data, tmp_path: Path) -> None:
    plain = tiny.tiny_profile(1)
    histories = {}
    for profile in (plain, replace(plain, ema=0.99)):
        run = loop.train(profile, data, tmp_path / str(profile.ema), progress=False)
        histories[profile.ema] = run.history
        model, _, labels = runs.load_trained(run.run_dir)
        task = _task(profile, data)
        true, guess = zip(*[(y, model(x).numpy().argmax(1)) for x, y in task.validation()], strict=True)
        score = macro_f1(np.concatenate(true), np.concatenate(guess), labels.n_classes)
        assert score == pytest.approx(run.best_f1, abs=1e-6)
    # training is the same, what is scored is not
    assert histories[0.99]["loss"].tolist() == histories[0.0]["loss"].tolist()
    assert histories[0.99]["val_loss"].tolist() != histories[0.0]["val_loss"].tolist()


def test_heads_of_a_run_are_loaded_when_asked_for(
    whole: loop.TrainResult, data: Data, tmp_path: Path
) -> None:
    profile = tiny.tiny_profile(1, genus_weight=0.5, family_weight=0.2)
    run = loop.train(profile, data, tmp_path / "run", progress=False)
    species, _, labels = runs.load_trained(run.run_dir)
    with_heads, _, _ = runs.load_trained(run.run_dir, all_heads=True)
    images = next(iter(_task(profile, data).validation()))[0]
    logits = with_heads(images).numpy()
    n_genera, n_families = len(labels.genus_names), len(labels.family_names)
    assert logits.shape[1] == 8 + n_genera + n_families
    np.testing.assert_allclose(logits[:, :8], species(images), atol=1e-5)
    with pytest.raises(UsageError, match="trained without heads"):
        runs.load_trained(whole.run_dir, all_heads=True)


def test_the_state_of_another_tensorflow_or_other_data_is_refused(stopped: Path, data: Data) -> None:
    file = stopped / "state" / "state.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "tensorflow": "2.9"}))
    with pytest.raises(InputError, match=r"TensorFlow 2\.9.*-s weights=\S+_weights\.h5"):
        loop.train(PROFILE, data, stopped, progress=False)
    file.write_text(json.dumps({**state, "data": {**state["data"], "train_images": 7}}))
    with pytest.raises(InputError, match=r"train_images = 7, the data now"):
        loop.train(PROFILE, data, stopped, progress=False)


class Killed(BaseException):
    """Ends a save as a kill would: nothing after it is done."""


def test_saves_that_end_anywhere_leave_a_state_that_continues(
    stopped: Path, whole: loop.TrainResult, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = [
        (state_module, "save_weights", 0),
        (state_module, "write_json", 0),
        (RunState, "tidy", 1),  # once when the state is read, once when it is saved
        (pd.DataFrame, "to_csv", 1),
    ]
    file = stopped / "state" / "state.json"
    for owner, name, earlier in moments:
        # the next epoch is the best so far, so that its save has all steps
        file.write_text(json.dumps({**json.loads(file.read_text()), "best_f1": -1.0}))
        original, calls = getattr(owner, name), iter(range(100))

        def ends(*args: object, original=original, calls=calls, earlier=earlier, **options: object) -> object:
            if next(calls) < earlier:
                return original(*args, **options)
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, ends)
            loop.train(PROFILE, data, stopped, progress=False)
    result = loop.train(PROFILE, data, stopped, progress=False)
    _same(result.history, whole.history)
    assert not list(stopped.glob("state/best_*")) and len(list(stopped.glob("state/*.index"))) == 1


def _start(sample_flora: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, str(Path(tiny.__file__)), str(sample_flora), str(output), str(EPOCHS)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with output.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _wait_for(pattern: str, folder: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end and process.poll() is None, f"no {pattern} was written"
        time.sleep(0.002)


def _kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_process_continues_from_its_last_epoch(
    sample_flora: Path, whole: loop.TrainResult, data: Data, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = _start(sample_flora, run)
    _wait_for("state/epoch_0002*", run, process)  # in the middle of the second save
    _kill(process)
    assert json.loads((run / "state" / "state.json").read_text())["epoch"] >= 1
    assert "TensorFlow Addons" not in run.with_suffix(".log").read_text()  # its end-of-life notice
    result = loop.train(PROFILE, data, run, progress=False)
    _same(result.history, whole.history)
    assert result.best_f1 == pytest.approx(whole.best_f1)
    assert not list(run.glob(".*")) and len(list(run.glob("state/*.index"))) == 1


@pytest.mark.long
def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(
    sample_flora: Path, whole: loop.TrainResult, data: Data, tmp_path: Path
) -> None:
    moments, run = random.Random(0), tmp_path / "run"
    for _ in range(12):
        process = _start(sample_flora, run)
        _wait_for("run", tmp_path, process)
        time.sleep(moments.uniform(0, 12))
        _kill(process)
    result = loop.train(PROFILE, data, run, progress=False)
    _same(result.history, whole.history)


@pytest.mark.long
@pytest.mark.parametrize("methods", [{}, {"ema": 0.99, "accumulate": 2, "frozen_epochs": 1, "mixup": 0.2}])
def test_efficientnet_continues_exactly(
    methods: dict, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    settings = {
        "image_size": 32,
        "batch_size": 8,
        "epochs": 2,
        "drop_connect": 0.2,
        "dropout": 0.2,
        **methods,
    }
    profile: Profile = load_profile("smoke", **settings)
    expected = loop.train(profile, data, tmp_path / "whole", progress=False)
    loop.train(profile, data, tmp_path / "parts", progress=False, stop_after=1)
    result = loop.train(profile, data, tmp_path / "parts", progress=False)
    _same(result.history, expected.history)


def test_an_interrupt_says_where_the_run_is_and_how_it_goes_on(
    stopped: Path, data: Data, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(_: pd.DataFrame) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(PROFILE, data, stopped, on_epoch=interrupt)
    printed = capsys.readouterr().out
    assert "2 of 4 epochs are saved" in printed and str(stopped) in printed and "continues" in printed


def test_a_diverging_run_stops_and_names_the_setting(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_lr below 1e\\+30"):
        loop.train(replace(PROFILE, max_lr=1e30, warmup_fraction=0.01), data, tmp_path, progress=False)


def test_a_batch_larger_than_the_data_is_refused(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 4096"):
        loop.train(replace(PROFILE, batch_size=4096), data, tmp_path, progress=False)


def test_the_range_test_raises_the_rate_and_leaves_nothing(data: Data, tmp_path: Path) -> None:
    table = range_test.learning_rate_range_test(PROFILE, data, steps=12, highest=0.5)
    assert list(table.columns) == ["learning_rate", "loss", "smoothed_loss"]
    assert table["learning_rate"].iloc[0] == pytest.approx(1e-4)
    assert table["learning_rate"].is_monotonic_increasing and np.isfinite(table["loss"]).all()
    assert len(table) == 12 and table["learning_rate"].iloc[-1] == pytest.approx(0.5)


def test_loading_names_what_is_missing(whole: loop.TrainResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trained run"):
        runs.load_trained(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}_configs.json").write_text(json.dumps(PROFILE.to_dict()))
    with pytest.raises(InputError, match=r"several runs \(one, two\)"):
        runs.load_trained(tmp_path)


# Shards as they come


SMALL = tiny.tiny_profile(2, batch_size=4, validation_fraction=0.25)


def small_set(folder: Path, numbers: list[int], shards: int = 2) -> Data:
    """A data set of the tests' own writer: record n has class n modulo 4."""
    parts = np.array_split(numbers, shards)
    for index, part in enumerate(parts):
        records = [published.example(published.train_features(int(number), 40)) for number in part]
        published.write_shard(folder, "train", records, part=index)
    (folder / "train_metadata.json").write_text(json.dumps(published.metadata(numbers)))
    return find_data(SMALL, folder)


# ---- a run is what it says


def train_command(out: Path, data: Path, *settings: str) -> Result:
    options = [option for setting in settings for option in ("-s", setting)]
    command = ["train", "--profile", "smoke", "--out", str(out), "--data", str(data)]
    return CliRunner().invoke(main, [*command, "-s", "image_size=32", "-s", "batch_size=4", *options])


@pytest.fixture(scope="module")
def begun_and_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a run of one of one epoch on it, and one of one of two."""
    folder = tmp_path_factory.mktemp("begun_and_finished")
    data = small_set(folder / "data", list(range(12)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_network", tiny.tiny_network)
        for epochs in (1, 2):
            profile = load_profile("smoke", image_size=32, batch_size=4, epochs=epochs)
            loop.train(profile, data, folder / f"run_of_{epochs}", progress=False, stop_after=1)
    return folder


def another_species(folder: Path) -> None:
    tables = json.loads((folder / "train_metadata.json").read_text())
    tables["categories"][0]["scientificName"] += "x"
    (folder / "train_metadata.json").write_text(json.dumps(tables))


def another_category_id(folder: Path) -> None:
    tables = json.loads((folder / "train_metadata.json").read_text())
    old = tables["categories"][0]["category_id"]
    for row in [*tables["categories"], *tables["annotations"]]:
        row["category_id"] = 77 if row["category_id"] == old else row["category_id"]
    (folder / "train_metadata.json").write_text(json.dumps(tables))


def more_images(folder: Path) -> None:
    shutil.rmtree(folder)
    small_set(folder, list(range(16)))


def other_images_of_the_same_ids(folder: Path) -> None:
    shutil.rmtree(folder)
    for index, part in enumerate(np.array_split(range(12), 2)):
        records = [published.example(published.train_features(int(number), 48)) for number in part]
        published.write_shard(folder, "train", records, part=index)
    (folder / "train_metadata.json").write_text(json.dumps(published.metadata(range(12))))


def another_split(folder: Path) -> None:
    parts = np.where(np.arange(12) % 4 == 1, "validation", "train")
    write_split([published.train_id(number) for number in range(12)], parts, folder / "split.csv")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (another_species, "the run learnt 4 species, and '.*' is not among the 4 of the data"),
        (another_category_id, r"has category_id \d+ in the run and 77 in the data"),
        (more_images, r"the run has train_images = \d+, the data now \d+"),
        (
            other_images_of_the_same_ids,
            r"other image files under the same image_ids: the shards had [\d,]+ bytes",
        ),
        (another_split, "held out|validation_images|train_images"),
    ],
)
@pytest.mark.parametrize("epochs", [1, 2], ids=["finished", "begun"])
def test_train_in_a_folder_with_a_run_on_other_data_names_what_differs(
    change: Callable[[Path], None], told: str, epochs: int, begun_and_finished: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(begun_and_finished / "data", tmp_path / "data")
    out = shutil.copytree(begun_and_finished / f"run_of_{epochs}", tmp_path / "run")
    profile = load_profile("smoke", image_size=32, batch_size=4, epochs=epochs)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    change(data)
    shown = train_command(out, data, f"epochs={epochs}")
    assert shown.exit_code == 1, shown.output
    assert re.search(f"Error: {out}: holds a run on other data: .*{told}", shown.stderr), shown.stderr
    assert f"another output folder, such as {out}-2" in shown.stderr and "epochs are done" not in shown.output
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="holds a run on other data"):  # as notebook 03 asks first
        loop.check_run(profile, find_data(profile, data), out)


def test_the_same_data_elsewhere_and_a_state_from_before_go_on(
    begun_and_finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(begun_and_finished / "run_of_2", tmp_path / "run")
    settings = ("epochs=2",)
    profile = load_profile("smoke", image_size=32, batch_size=4, epochs=2)
    moved = tmp_path / "mounted" / "elsewhere"
    small_set(moved, list(range(12)), shards=3)  # the same records, in other shards
    loop.check_run(profile, find_data(profile, moved), out)
    shown = train_command(out, moved, *settings)
    assert shown.exit_code == 0 and "continues after epoch 1 of 2" in shown.output, shown.output
    file = out / "state" / "state.json"
    state = json.loads(file.read_text())
    for key in ("records", "bytes"):
        del state["data"][key]
    del state["data_folder"]
    file.write_text(json.dumps(state))
    shown = train_command(out, moved, *settings)
    assert shown.exit_code == 0 and "all 2 epochs are done" in shown.output, shown.output
    another_species(moved)  # told by labels.json of the run, also without the new facts
    shown = train_command(out, moved, *settings)
    assert shown.exit_code == 1 and "holds a run on other data" in shown.stderr
    shown = train_command(out, moved, "epochs=3")
    assert shown.exit_code == 2 and "holds a run with epochs: 2, and this call has epochs: 3" in shown.stderr
    weights = re.search(r"such as \S+run-2, .*`train -s (weights=[^`]+)` for 3 more", shown.stderr)[1]
    shown = train_command(tmp_path / "run-2", begun_and_finished / "data", "epochs=1", weights)
    assert shown.exit_code == 0 and "epoch 1" in shown.output.lower(), shown.output
    with pytest.raises(
        InputError, match=r"on other data than those in .*elsewhere: the run learnt 4 species"
    ):
        runs.load_trained(out, data=find_data(profile, moved))


def damage(shard: Path, offset: int) -> None:
    content = bytearray(shard.read_bytes())
    content[offset] ^= 1
    shard.write_bytes(content)


def facts(result: loop.TrainResult) -> dict:
    return json.loads((result.run_dir / f"{result.run_name}_configs.json").read_text())["run"]


def test_a_damaged_record_stops_training_by_file_and_position(tmp_path: Path) -> None:
    data = small_set(tmp_path / "data", list(range(24)))
    damage(data.train_shards[1], 400)
    with pytest.raises(InputError, match=r"_train01_12\.tfrec: record 0 is damaged .*write the shard again"):
        loop.train(SMALL, data, tmp_path / "first", progress=False)
    damage(data.train_shards[1], 400)  # mended
    damage(data.train_shards[1], data.train_shards[1].stat().st_size - 20)
    message = (
        r"_train01_12\.tfrec: record 11 has a wrong checksum.*again, or leave .* `train -s skip_bad=true`\."
    )
    with pytest.raises(InputError, match=message):
        loop.train(SMALL, data, tmp_path / "last", progress=False)
    assert not list(tmp_path.glob("*/*_weights.h5"))


def test_a_shard_with_fewer_records_than_its_name_says_stops_training(tmp_path: Path) -> None:
    data = small_set(tmp_path / "data", list(range(24)))
    last = published.frame(published.example(published.train_features(23, 40)))
    content = data.train_shards[1].read_bytes()
    assert content.endswith(last)
    data.train_shards[1].write_bytes(content.removesuffix(last))
    message = r"_train01_12\.tfrec: record 11 is not there, though the name promises 12"
    with pytest.raises(InputError, match=message):
        loop.train(SMALL, data, tmp_path / "run", progress=False)
    with pytest.raises(InputError, match=message):
        replace(data, train_metadata=None).training_table()


def test_labels_that_do_not_belong_to_the_shards_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    small_set(folder, list(range(12)))
    odd = published.train_features(13, 40) | {"scientificName": published.packed(9)}
    odd = published.write_shard(folder, "train", [published.example(odd)], part=2)
    data = find_data(SMALL, folder)
    with pytest.raises(
        InputError, match=f"{odd.name}: record 0 has class index 9, and the label map has 0 to 3"
    ):
        data.split(SMALL)
    odd.unlink()
    tables = published.metadata(range(13))  # one more than the shards hold, so these are read
    tables["annotations"][6]["category_id"] = tables["annotations"][5]["category_id"]
    (folder / "train_metadata.json").write_text(json.dumps(tables))
    with pytest.raises(
        InputError, match=r"image 00002__006 has class 2 .* 'Aster amellus L\.'.*other labels"
    ):
        find_data(SMALL, folder).split(SMALL)


def test_skip_bad_leaves_bad_records_out_counts_them_and_resumes_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = small_set(tmp_path / "data", list(range(40)), shards=3)
    bad = [data.train_shards[0], data.train_shards[2]]
    damage(bad[0], bad[0].stat().st_size - 20)  # the last of 14
    bad[1].write_bytes(bad[1].read_bytes()[:-9])  # the last of 13
    damage(bad[1], 400)  # and the first
    profile = replace(SMALL, skip_bad=True)
    whole = loop.train(profile, data, tmp_path / "whole")
    printed = capsys.readouterr().out
    assert "skip_bad: records left out: 3\n" in printed
    assert f"{bad[0]}: record 13 has a wrong checksum" in printed and f"{bad[1]}: record 0 " in printed
    run = facts(whole)
    assert run["skipped_records"] == 3 and len(run["skipped"]) == 3
    assert run["train_images"] + run["validation_images"] == 37
    assert run["steps_per_epoch"] == run["train_images"] // 4

    loop.train(profile, data, tmp_path / "parts", progress=False, stop_after=1)
    resumed = loop.train(profile, data, tmp_path / "parts", progress=False)
    _same(resumed.history, whole.history)
    good = small_set(tmp_path / "good", [n for n in range(40) if n not in (13, 27, 39)])
    without = _task(profile, good)
    with reading(profile, data) as task:
        assert sorted(task.validation_ids) == sorted(without.validation_ids)
        assert task.counts.tolist() == without.counts.tolist()


@pytest.mark.parametrize(("numbers", "covered"), [([0, 1, 2, 3], 0), ([0, 1, 2, 3, 4], 1)])
def test_validation_of_fewer_than_two_species_gives_no_score_and_keeps_the_last_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture, numbers: list[int], covered: int
) -> None:
    data = small_set(tmp_path / "data", numbers)
    one = loop.train(SMALL, data, tmp_path / "run", stop_after=1)
    first_weights = one.weights.read_bytes()
    result = loop.train(SMALL, data, tmp_path / "run")
    printed = capsys.readouterr().out
    said = f"validation covers {covered} of 4 species with {('0 images', '1 image')[covered]}: too few for a"
    assert printed.count(said) == 2 and "validation: no score" in printed and "nan" not in printed
    assert result.best_epoch == 2 and np.isnan(result.best_f1)
    assert result.weights.read_bytes() != first_weights
    saved = pd.read_csv(result.run_dir / f"{result.run_name}.csv")
    assert list(saved.columns) == FIGURES
    assert saved.filter(like="val_").isna().all(axis=None) and saved["loss"].notna().all()
    again = loop.train(SMALL, data, tmp_path / "run", progress=False)
    pd.testing.assert_frame_equal(again.history, result.history)
    assert runs.load_trained(tmp_path / "run")[2].n_classes == 4


def test_validation_of_some_species_is_scored_and_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = small_set(tmp_path / "data", [0, 1, 2, 3, 4, 5])
    result = loop.train(replace(SMALL, epochs=1), data, tmp_path / "run")
    assert 0 <= result.best_f1 <= 0.5 and facts(result)["validation_species"] == 2
    assert (
        "validation covers 2 of 4 species with 2 images; macro-F1 there is over all 4 species, so 0.500 is "
        "perfect." in capsys.readouterr().out
    )


@pytest.mark.parametrize("copy", [4, 5])  # sheet 4 is validated on by the split below, 5 is trained on
def test_copies_in_training_and_validation_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture, copy: int
) -> None:
    data = small_set(tmp_path, list(range(12)))
    data.labels().save(tmp_path / "labels.json")
    parts = np.where(np.arange(12) % 5 == 4, "validation", "train")
    write_split([published.train_id(number) for number in range(12)], parts, tmp_path / "split.csv")
    rows = [f"0,near-identical,{published.train_id(number)},x.jpg,Zea,train\n" for number in (0, copy)]
    (tmp_path / "duplicates.csv").write_text(
        "group,kind,image_id,file_name,scientificName,split\n" + "".join(rows)
    )
    loop.train(replace(SMALL, epochs=1), find_data(SMALL, tmp_path), tmp_path / "run")
    said = "Warning: 1 groups of copies in duplicates.csv lie in more than one part"
    assert (said in capsys.readouterr().out) == (copy == 4)


def test_a_split_file_beside_the_shards_decides_what_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    numbers = list(range(24))
    parts = ["validation" if n % 5 == 0 else "test" if n % 5 == 1 else "train" for n in numbers]
    rows = [f"{published.train_id(n)},{part}\n" for n, part in zip(numbers, parts, strict=True)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "split.csv").write_text("image_id,split\n" + "".join(rows))
    data = small_set(tmp_path / "data", numbers)
    task = _task(SMALL, data)
    wanted = {part: [published.train_id(n) for n in numbers if parts[n] == part] for part in set(parts)}
    assert task.validation_ids.tolist() == wanted["validation"]
    assert sorted(task.held_out_ids) == sorted(wanted["validation"] + wanted["test"])
    assert task.counts.sum() == len(wanted["train"]) == 14
    classes = np.concatenate([labels for _, labels in task.training(0)])
    assert len(classes) == 12, "whole batches of four"
    assert np.isin(classes, [n % 4 for n in numbers if parts[n] == "train"]).all()
    loop.train(replace(SMALL, epochs=1), data, tmp_path / "run")
    assert f"Held out as {tmp_path / 'data' / 'split.csv'} says." in capsys.readouterr().out
