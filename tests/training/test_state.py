"""The state of a run: what is edited, gone or full is one line, and nothing is lost by it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny
from disks import fill, small_disk

from utils.files import InputError, InputWarning
from utils.sources import Data, find_data
from utils.startup import holding
from utils.training import loop, network, runs

PROFILE = tiny.tiny_profile(3)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_network", tiny.tiny_network)


@pytest.fixture(scope="module")
def data(sample_flora: Path) -> Data:
    return find_data(PROFILE, sample_flora)


@pytest.fixture(scope="module")
def two_epochs(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    tiny.trained(PROFILE, data, folder, stop_after=2)
    return folder


@pytest.fixture
def run(two_epochs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(two_epochs, tmp_path / "run")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": "two"},
        {"epoch": True},
        {"checkpoint": "../../elsewhere"},
        {"checkpoint": "epoch_0001"},
        {"best_epoch": 9},
        {"best_f1": [0.5]},
        {"history": [1, 2]},
        {"history": []},
        {"data": {"classes": "8"}},
        {"profile": None},
        {"tensorflow": 2},
    ],
    ids=str,
)
def test_a_state_that_was_edited_is_refused_before_anything_is_tidied(
    change: dict, run: Path, data: Data
) -> None:
    file = run / "state" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    before = content(run)
    with pytest.raises(InputError, match=r"state\.json: not the state of a run .*Nothing was changed"):
        loop.train(PROFILE, data, run, progress=False)
    assert content(run) == before


@pytest.mark.parametrize(
    "gone", ["state/epoch_0002.index", "state/epoch_0002.data-00000-of-00001", "*_weights.h5"]
)
def test_what_the_state_names_and_is_not_there_is_named_and_the_rest_stays(
    gone: str, run: Path, data: Data
) -> None:
    for path in list(run.glob(gone)):
        path.rename(run / "elsewhere")
    before = content(run)
    with pytest.raises(InputError, match=rf"{gone.replace('*', '.*')}: is not there, and .*state\.json says"):
        loop.train(PROFILE, data, run, progress=False)
    assert content(run) == before


def test_a_run_copied_without_its_state_file_does_not_begin_anew(run: Path, data: Data) -> None:
    (run / "state" / "state.json").unlink()
    before = content(run)
    with pytest.raises(InputError, match=r"state: holds epoch_0002\.\S+ and no state\.json"):
        loop.train(PROFILE, data, run, progress=False)
    assert content(run) == before


def test_a_damaged_checkpoint_is_named(run: Path, data: Data) -> None:
    (run / "state" / "epoch_0002.index").write_bytes(b"no index")
    with pytest.raises(InputError, match=r"epoch_0002: a damaged checkpoint \(.*Copy the whole run again"):
        loop.train(PROFILE, data, run, progress=False)


def test_a_second_training_in_a_folder_is_told_who_works_there_before_any_work(run: Path, data: Data) -> None:
    before = content(run)
    with (
        holding(run),
        pytest.raises(InputError, match=r"run: process \d+ of .* since .* works on it"),
    ):
        loop.train(PROFILE, data, run, progress=False)
    assert content(run) == before, "the lock is gone with its holder"


def test_too_little_room_is_told_before_the_first_step(data: Data, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "small", 600),
        pytest.raises(InputError, match=r"small/run: no room for this training: 1 MB .* 1 MB free|0 MB free"),
    ):
        loop.train(PROFILE, data, tmp_path / "small" / "run", progress=False)


def test_a_disk_that_fills_up_costs_one_epoch_and_the_same_call_goes_on(data: Data, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 3000):
        folder = tmp_path / "small" / "run"
        fillers = []

        def fill_up(_: pd.DataFrame) -> None:
            if not fillers:
                fillers.append(fill(tmp_path / "small"))

        with pytest.raises(InputError, match=r"run/state: cannot be written \(.*Make room") as error:
            loop.train(PROFILE, data, folder, progress=False, on_epoch=fill_up)
        assert "\n" not in str(error.value)
        assert json.loads((folder / "state" / "state.json").read_text())["epoch"] == 1
        assert not list(folder.glob("state/epoch_0002*"))
        fillers[0].unlink()
        assert loop.train(PROFILE, data, folder, progress=False).finished


def test_a_run_whose_folder_vanished_ends_by_its_name_and_goes_on_in_no_half_folder(
    data: Data, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"run/state: cannot be written \(its folder has vanished\)"):
        loop.train(PROFILE, data, folder, progress=False, on_epoch=lambda _: shutil.rmtree(folder))
    assert not folder.exists()


def test_another_file_under_the_path_of_the_first_weights_is_noticed(
    two_epochs: Path, data: Data, tmp_path: Path
) -> None:
    start = shutil.copy(next(two_epochs.glob("*_weights.h5")), tmp_path / "start.h5")
    profile = tiny.tiny_profile(1, weights=str(start))
    loop.train(profile, data, tmp_path / "run", progress=False)
    with (tmp_path / "start.h5").open("ab") as file:
        file.write(b"more")
    with pytest.warns(InputWarning, match=r"start\.h5: is another file than .*run began from.*run-2"):
        loop.train(profile, data, tmp_path / "run", progress=False)


def test_attached_runs_with_a_damaged_state_are_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = run.parent / "kaggle"
    shutil.copytree(run, root / "input" / "a")
    (root / "input" / "a" / "state" / "state.json").write_text("[]")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("NAFLORA_KAGGLE_ROOT", str(root))
    with pytest.raises(InputError, match=r"state\.json: not the state of a run"):
        runs.find_run(root / "working", PROFILE)
