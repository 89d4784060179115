"""The page of `./course review` in a real Chromium: a review by keys alone, killed five times, loses no decision."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from chromium import PROGRAM, chromium
from PIL import Image
from test_review import predictions_of, review_of

from utils.data.metadata import read_metadata
from utils.files import REPOSITORY
from utils.own.review import ASIDE, CORRECT, DOUBT
from utils.own.reviewed import results, write_review

SHEETS = [
    (f"{n}.jpg", "doubtful", ("Rosa alba", "Aster novi")[n % 2], f"{0.3 + n / 100:.4f}") for n in range(50)
]
SHOWN = "document.querySelector('.course-review')?.dataset.shown"
browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")


@contextmanager
def page(table, port):
    command = [sys.executable, "-m", "utils", "review", str(table), "--images", str(table.parent / "images")]
    command += ["--by", "A. Curator", "--no-browser", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGKILL)


def press(tab, key):
    tab.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
    tab.send("Input.dispatchKeyEvent", type="keyUp", key=key)


def decide(tab, keys, typed=""):
    """Press keys, the last of which decides, and wait for the next sheet."""
    before = tab.ask(SHOWN)
    for key in keys:
        press(tab, key)
    if typed:
        tab.send("Input.insertText", text=typed)
        tab.ask("document.querySelector('.course-review form').requestSubmit()")
    tab.wait(f"{SHOWN} !== '{before}' || document.querySelector('.told').textContent.startsWith('That was')")


@browser
@pytest.mark.long
def test_fifty_sheets_by_keys_killed_five_times_lose_no_decision(tmp_path):
    (tmp_path / "images").mkdir()
    for name, *_ in SHEETS:
        Image.new("RGB", (300, 400), "green").save(tmp_path / "images" / name)
    table = predictions_of(SHEETS, tmp_path / "p.csv")
    with chromium() as tab:
        tab.show(1280)
        for turn in range(5):
            with page(table, 8900 + turn) as address:
                tab.open(address)
                tab.wait(f"{SHOWN} === '{10 * turn}' && document.querySelector('.stage img').complete", 120)
                decide(tab, ["c"], "<b>Nova</b> species")
                decide(tab, ["d", "c"])
                decide(tab, ["p"])
                for _ in range(7):
                    decide(tab, ["a"])
                assert len(review_of(table).decisions.counting) == 10 * (turn + 1)
        assert not tab.errors
    decisions = review_of(table).decisions
    assert not decisions.problems
    counts = [sum(of[-1].do == do for of in decisions.counting.values()) for do in (CORRECT, DOUBT, ASIDE)]
    assert counts == [5, 5, 5]
    assert write_review(decisions, review_of(table).sheets) == (40, 10)
    assert len(read_metadata(results(decisions.path)[0]).images) == 40
