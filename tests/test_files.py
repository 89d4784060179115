"""Files are written whole, and JSON stays JSON."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import tensorflow as tf
from disks import make_read_only, small_disk

from utils import files
from utils.cli.common import check_writable
from utils.data.delimited import write_csv
from utils.files import (
    InputError,
    UsageError,
    building,
    in_order,
    read_json,
    replacing,
    uninterrupted,
    write_json,
)
from utils.own.answers import write_rows


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]


def test_a_finished_write_replaces_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "scores.json"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".json"
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def left_over(path: Path, process: int) -> Path:
    """What a process of this machine that works on `path` has beside it."""
    return path.with_name(f".{path.stem}.{files.HOST}.{process}.tmp{path.suffix}")


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "f[1]"
    with pytest.raises(RuntimeError), building(folder) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    folder.mkdir()  # an empty one is as good as none
    with building(folder) as temporary:
        (temporary / "whole").touch()
    assert [entry.name for entry in folder.iterdir()] == ["whole"]
    with pytest.raises((OSError, InputError)), building(folder) as temporary:
        (temporary / "other").touch()
    assert [entry.name for entry in folder.iterdir()] == ["whole"] and len(list(tmp_path.iterdir())) == 1


def test_what_dead_processes_left_goes_and_what_is_at_work_stays(tmp_path, dead):
    path = tmp_path / "a.csv"
    gone = [left_over(tmp_path / name, dead) for name in ("a.csv", "other.json")]
    gone.append(left_over(tmp_path / "b.h5", os.getpid()))  # of an earlier process of this number
    for each in gone:
        each.touch()
    left_over(tmp_path / "flora", dead).mkdir()
    stays = [left_over(path, os.getppid()), tmp_path / ".a.elsewhere.1.tmp.csv", tmp_path / ".mine.tmp"]
    for each in stays:
        each.touch()
    with replacing(path) as temporary:
        temporary.touch()
        assert sorted(tmp_path.iterdir()) == sorted([*stays, temporary])
    assert sorted(tmp_path.iterdir()) == sorted([*stays, path])


def test_a_folder_that_vanished_meanwhile_is_never_whole(tmp_path):
    folder = tmp_path / "flora"
    with (
        pytest.raises(InputError, match=r"flora: cannot be written \(its folder has vanished\)"),
        building(folder) as temporary,
    ):
        shutil.rmtree(temporary)
        (temporary / "train_images").mkdir(parents=True)  # as a writer makes it anew
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_with_the_path_and_what_was_there_stays(tmp_path):
    with small_disk(tmp_path / "small", 64):
        path = tmp_path / "small" / "table.csv"
        write_csv(pd.DataFrame({"a": [1]}), path)
        for write in (
            lambda: write_csv(pd.DataFrame({"a": ["x" * 1000] * 100}), path),
            lambda: write_json(path, "x" * 100_000),
            lambda: write_rows([["x" * 100_000]], path),
        ):
            with pytest.raises(InputError) as error:
                write()
            assert str(error.value).startswith(f"{path}: cannot be written (No space left on device)")
            assert "\n" not in str(error.value)
        assert path.read_text() == "a\n1\n" and [each.name for each in path.parent.iterdir()] == ["table.csv"]


def test_a_copy_on_a_full_disk_names_what_is_written_not_what_is_read(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    with (
        small_disk(tmp_path / "small", 64),
        pytest.raises(InputError, match=r"^\S*/small/build: cannot be written \(No space left on device\)"),
        building(tmp_path / "small" / "build") as folder,
    ):
        shutil.copyfile(tmp_path / "source", folder / "copy")


def test_a_file_of_a_folder_being_built_is_told_by_its_final_name(tmp_path):
    with (
        small_disk(tmp_path / "small", 64),
        pytest.raises(InputError, match=r"^\S*/small/f/g/a\.json: cannot be written \(No space"),
        building(tmp_path / "small" / "f") as outer,
        building(outer / "g") as inner,
    ):
        write_json(inner / "a.json", "x" * 100_000)


def test_nothing_can_be_written_on_a_read_only_disk_and_that_is_the_reason(tmp_path):
    disk = tmp_path / "small"
    with small_disk(disk, 64):
        (disk / "old.csv").write_text("a\n1\n")
        make_read_only(disk)
        for path in (disk / "old.csv", disk / "new.csv", disk / "folder" / "new.csv"):
            with pytest.raises(InputError, match=f"^{path}: cannot be written .Read-only file system"):
                write_csv(pd.DataFrame({"a": [2]}), path)
        with pytest.raises(InputError, match=f"^{disk}/built: cannot be written .Read-only file system"):
            building(disk / "built").__enter__()
        assert (disk / "old.csv").read_text() == "a\n1\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(
            28, "Can't write data (file write failed: time = Fri Nov 27\n, filename = '/tmp/a', errno = 28)"
        ),
        tf.errors.ResourceExhaustedError(
            None,
            None,
            "{{function_node __wrapped__SaveV2}} /tmp/epoch_0001; No space left on device [Op:SaveV2]",
        ),
    ],
    ids=["h5py", "TensorFlow"],
)
def test_what_libraries_say_of_a_full_disk_is_the_systems_reason(error):
    told = str(files.cannot_write(Path("run/state"), error))
    assert told.startswith("run/state: cannot be written (No space left on device). What was")
    assert "Make room or name another place;" in told


@pytest.mark.parametrize(
    ("number", "way_out"), [(errno.EMFILE, "`ulimit -n"), (errno.EROFS, "is. Name another place;")]
)
def test_the_way_out_is_that_of_the_reason(number, way_out):
    told = str(files.cannot_write(Path("run"), OSError(number, os.strerror(number), "run/x")))
    assert way_out in told and "Make room" not in told


def test_a_folder_is_replaced_whole_and_only_where_that_is_asked_for(tmp_path, dead):
    folder = tmp_path / "f"
    for name in ("one", "two"):
        with building(folder, replace=True) as temporary:
            (temporary / name).touch()
            assert folder.exists() is (name == "two")
        assert [path.name for path in folder.iterdir()] == [name] and [*tmp_path.iterdir()] == [folder]
    with pytest.raises(RuntimeError), building(folder, replace=True):
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["two"]


def test_a_folder_that_was_to_be_replaced_when_its_process_died_goes(tmp_path, dead):
    left_over(tmp_path / "f.old", dead).mkdir()
    with building(tmp_path / "f", replace=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_an_error_of_what_is_read_meanwhile_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError) as error, replacing(tmp_path / "a.json"):
        (tmp_path / "absent").read_text()
    assert error.value.filename == str(tmp_path / "absent")


def test_messages_have_nothing_that_steers_a_terminal():
    told = InputError("a\x1b[2J\r\x9b\u202eb\udcff: no\nsuch file")
    assert str(told) == r"a\x1b[2J\r\x9b\u202eb\udcff: no" + "\nsuch file"
    assert str(UsageError("Müll.Arg. × 花")) == "Müll.Arg. × 花"


def test_signals_wait_until_a_block_is_done():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nested_json_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(InputError, match=r"deep\.json: not valid JSON \(.*recursion"):
        read_json(tmp_path / "deep.json")


def test_nan_becomes_null(tmp_path):
    write_json(tmp_path / "a.json", {"f1": float("nan"), "bins": [0.5, float("nan")]})
    strict = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {"f1": None, "bins": [0.5, None]}


def test_half_a_character_in_json_is_refused(tmp_path):
    (tmp_path / "half.json").write_text(r'{"name": ["Zea \ud800mays"]}')
    with pytest.raises(InputError, match=r"half\.json: not valid JSON .*surrogates"):
        read_json(tmp_path / "half.json")
    (tmp_path / "whole.json").write_text(r'"\ud83c\udf3f"')
    assert read_json(tmp_path / "whole.json") == "🌿"


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"broken\.json: not valid JSON"):
        read_json(path)
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "absent.json")


def test_a_place_that_cannot_be_written_is_seen_without_making_anything(tmp_path):
    (tmp_path / "file").write_text("mine")
    check_writable(tmp_path / "new" / "folder" / "p.csv")
    check_writable(tmp_path / "file")
    with pytest.raises(InputError, match=r"p\.csv: cannot be written, .*file is a file\. Name another"):
        check_writable(tmp_path / "file" / "below" / "p.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        check_writable(tmp_path / "p.csv")
    tmp_path.chmod(0o700)


def test_results_come_in_order_and_items_are_taken_only_a_few_ahead():
    taken = []

    def items():
        for number in range(200):
            taken.append(number)
            yield number

    first = threading.Event()

    def slow_at_first(number):
        first.wait(5) if number == 0 else first.set()
        return -number

    for place, result in enumerate(in_order(slow_at_first, items(), workers=3)):
        assert result == -place
        assert len(taken) <= place + 4 * 3
    assert len(taken) == 200


def test_an_error_comes_in_its_place_and_what_is_behind_it_is_not_begun():
    begun = []

    def fails_at_five(number):
        begun.append(number)
        if number == 5:
            raise InputError("the fifth")
        return number

    results = in_order(fails_at_five, range(1000), workers=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="the fifth"):
        next(results)
    assert len(begun) <= 5 + 4 * 2 and list(results) == []


def test_a_caller_that_stops_stops_the_threads():
    begun = []
    results = in_order(begun.append, range(1000), workers=2)
    next(results)
    results.close()
    assert len(begun) <= 4 * 2
