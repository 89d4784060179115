"""The campaign of kills: it finds nothing in the course, and finds what a broken write leaves."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import kills
from utils.files import REPOSITORY

WRITES = "        yield temporary\n        temporary.replace(path)\n"


def test_half_files_are_told_from_whole_ones(tmp_path: Path) -> None:
    whole = {"a.json": "{}", "b.csv": "x\n1\n", "c.ipynb": "{}", "d.html": "<p>\n", "e.bin": "x"}
    half = {
        "a.json": '{"a": ',
        "b.csv": "x\n1",
        "c.ipynb": "",
        "d.html": "<p",
        "e.h5": "\x89HDF",
        "f.csv": "",
    }
    for texts, expected in ((whole, True), (half, False)):
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
            assert kills.is_whole(tmp_path / name) is expected, name


def test_only_what_has_its_final_name_is_compared(tmp_path: Path) -> None:
    for name in (
        "w/a.tfrec",
        "w/unfinished/job.json",
        "r/state/state.json",
        "r/.lock",
        ".a.tmp/b",
        "r/log.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert list(kills.visible(tmp_path)) == ["w/a.tfrec"]


def test_the_table_adds_up() -> None:
    text = kills.shown({"write": Counter(kills=3, lost=1), "split": Counter(kills=2)})
    assert text.splitlines()[-1].split()[:6] == ["together", "5", "0", "0", "1", "0"]


@pytest.mark.long
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    counts = kills.campaign(["split", "write", "train", "flora", "kernels"], 5, 0, tmp_path, REPOSITORY)
    bad = {
        name: counted for name, counted in counts.items() if any(counted[each] for each in kills.COLUMNS[3:])
    }
    assert not bad, kills.shown(counts)


@pytest.mark.long
def test_a_write_under_the_final_name_is_found(tmp_path: Path) -> None:
    """A copy of the package whose files get their names before they are written."""
    code = tmp_path / "code"
    shutil.copytree(REPOSITORY / "utils", code / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    files = code / "utils" / "files.py"
    text = files.read_text()
    assert text.count(WRITES) == 1
    files.write_text(text.replace(WRITES, "        yield path\n"))
    counts = kills.campaign(["split"], 8, 0, tmp_path / "work", code)
    assert counts["split"]["half"], kills.shown(counts)
