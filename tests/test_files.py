"""Files are written whole, and JSON stays JSON."""

import json
import os
import threading

import pytest

from utils.cli.common import check_writable
from utils.files import InputError, building, in_order, read_json, replacing, write_json


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


def test_a_folder_appears_whole_or_not_at_all_and_left_overs_go(tmp_path):
    folder, killed, at_work = tmp_path / "f[1]", tmp_path / ".f[1].1.tmp", tmp_path / ".f[1].2.tmp"
    killed.mkdir(), at_work.mkdir()
    os.utime(killed, (0, 0))
    with pytest.raises(RuntimeError), building(folder) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [at_work]
    folder.mkdir()  # an empty one is as good as none
    with building(folder) as temporary:
        (temporary / "whole").touch()
    assert [entry.name for entry in folder.iterdir()] == ["whole"]
    with pytest.raises(OSError), building(folder) as temporary:
        (temporary / "other").touch()
    assert [entry.name for entry in folder.iterdir()] == ["whole"]


def test_nan_becomes_null(tmp_path):
    write_json(tmp_path / "a.json", {"f1": float("nan"), "bins": [0.5, float("nan")]})
    strict = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {"f1": None, "bins": [0.5, None]}


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
