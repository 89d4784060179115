"""Files are written whole, and JSON stays JSON."""

import json
import os

import pytest

from utils.files import InputError, check_writable, read_json, replacing, write_json


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
