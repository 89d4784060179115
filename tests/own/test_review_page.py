"""The page of `./course review` in a real Chromium: a review by keys alone, killed five times, loses no decision."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from chromium import PROGRAM, chromium
from click.testing import CliRunner
from PIL import Image
from test_review import predictions_of, review_of
from tiny import in_place, tiny_profile, trained

from utils.__main__ import main
from utils.data.labels import LabelMap
from utils.files import REPOSITORY
from utils.own.decisions import ACCEPT, ASIDE, CORRECT, DOUBT
from utils.own.identify import KEPT, prepare
from utils.sources import find_data

SHOWN = "document.querySelector('.course-review')?.dataset.shown"
TOLD = "document.querySelector('.told').textContent"
TITLE = "document.querySelector('.course-review h1').textContent"
IMAGE = "document.querySelector('.stage img')"
CODES = {"Tab": 9, "Enter": 13, "Escape": 27}
browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")


@contextmanager
def page(table, port, *more):
    command = [sys.executable, "-m", "utils", "review", str(table), "--images", str(table.parent / "images")]
    command += ["--by", "A. Curator", "--no-browser", "--port", str(port), *map(str, more)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGKILL)


def press(tab, *keys, shift=False):
    for key in keys:
        what = {"key": key, "windowsVirtualKeyCode": CODES.get(key, 0), "modifiers": 8 if shift else 0}
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        tab.send("Input.dispatchKeyEvent", type="keyDown", text=text, **what)
        tab.send("Input.dispatchKeyEvent", type="keyUp", **what)


def write(tab, text):
    tab.send("Input.insertText", text=text)


def decide(tab, *keys, typed=""):
    """Press keys, the last of which decides, and wait for the next sheet; a name is typed before Enter."""
    before = tab.ask(SHOWN)
    press(tab, *keys)
    if typed:
        write(tab, typed)
        press(tab, "Enter")
    tab.wait(f"{SHOWN} !== '{before}' || {TOLD}.startsWith('That was')")


def call(*arguments):
    """The output of a command that succeeds, with a small network in place of every other one."""
    with in_place():
        shown = CliRunner().invoke(main, [*map(str, arguments)])
    assert shown.exit_code == 0, shown.output
    return shown.output


@browser
@pytest.mark.long
def test_fifty_sheets_by_keys_killed_five_times_lose_no_decision_and_are_learnt_from(
    sample_flora, make_jpeg, tmp_path
):
    run, images, table = tmp_path / "run", tmp_path / "images", tmp_path / "p.csv"
    profile = tiny_profile(1)
    data = find_data(profile, sample_flora)
    trained(profile, data, run)
    with in_place():
        prepare(run, run / KEPT, data, progress=False)
    images.mkdir()
    for number in range(50):
        (images / f"{number}.jpg").write_bytes(make_jpeg(number, 300, 400))
    call("predict", "--model", run, "--images", images, "--out", table)
    with chromium() as tab:
        tab.show(1280)
        for turn in range(5):
            with page(table, 8900 + turn, "--model", run) as address:
                tab.open(address)
                tab.wait(f"{SHOWN} && document.querySelectorAll('.similar img').length === 5", 120)
                decide(tab, "c", typed="Nova plantago")
                assert tab.ask(TOLD) == "New name: Nova plantago · u undoes"
                decide(tab, "d", "c")
                decide(tab, "p")
                for _ in range(7):
                    decide(tab, "a")
                assert len(review_of(table).decisions.counting) == 10 * (turn + 1)
        assert not tab.errors
    review = review_of(table)
    assert not review.decisions.problems
    done = [of[-1] for of in review.decisions.counting.values()]
    counts = [sum(each.do == do for each in done) for do in (ACCEPT, CORRECT, DOUBT, ASIDE)]
    assert counts == [35, 5, 5, 5]

    call("review", table, "--images", images, "--only-tables")
    labels, own, again = tmp_path / "p.reviewed.csv", tmp_path / "own", tmp_path / "again"
    assert json.loads(call("metadata", labels, "--json"))["images"] == 40
    call("tfrecords", "write", "--images", images, "--labels", labels, "--out", own)
    small = ("-s", "image_size=32", "-s", "batch_size=8")
    call("train", "--profile", "smoke", "--data", own, "--out", again, *small)
    learnt = {each.name for each in done if each.do in (ACCEPT, CORRECT)}
    assert {*LabelMap.load(again / "labels.json").names.tolist()} == learnt


ODD = "<img src=x onerror=alert(1)> " + 20 * "longname" + " ×žlutá 菊"
OTHERS = [  # file, status, first species, its probability
    ("a/first.png", "doubtful", "Rosa alba", "0.1"),
    ("a/<b>odd.png", "doubtful", ODD, "0.2"),
    ("b/broken.png", "sure", "Aster novi", "0.3"),
    ("b/moved.png", "sure", "Aster novi", "0.4"),
    ("b/large.png", "unlike anything", "Aster novi", "0.5"),
    ("c/=last.png", "sure", "Rosa canina", "0.6"),
]


@browser
@pytest.mark.long
def test_what_a_curator_does_and_meets_on_the_page(tmp_path):
    table = predictions_of(OTHERS, tmp_path / "p.csv")
    for name, *_ in OTHERS:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((300, 400), 50).save(path)
    broken, moved = tmp_path / "images" / "b" / "broken.png", tmp_path / "images" / "b" / "moved.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:3000])
    moved.rename(tmp_path / "moved.png")
    Image.new("L", (3000, 5000), 200).save(tmp_path / "images" / "b" / "large.png")
    decisions = tmp_path / "p.decisions.jsonl"
    decisions.write_text('edited by hand\n{"do": "accept", "file": "a/first')
    with chromium() as tab, page(table, 8910) as address:

        def shows(place, *, told=None):
            tab.wait(f"{SHOWN} === '{place}'", 60)
            if told is not None:
                tab.wait(f"{TOLD}.includes({json.dumps(told)})", 20)

        def counts(place):
            return review_of(table).decisions.of(OTHERS[place][0])

        tab.show(1280)
        tab.open(address)
        shows(4)  # least sure first, before all what is unlike anything
        assert tab.text().count("does not count: not a whole line of JSON") == 2
        assert "Images that are not in the folder; what was decided of them is kept: 1" in tab.text()
        width, ratio = tab.ask(f"[{IMAGE}.naturalWidth, {IMAGE}.clientWidth / {IMAGE}.clientHeight]")
        assert width == 2000 and ratio == pytest.approx(0.6, abs=0.01)
        for wide, dark in ((390, True), (1280, False), (2560, True)):
            tab.show(wide, dark=dark, mobile=wide == 390)
            tab.wait(
                f"document.querySelector('.course-review').getBoundingClientRect().right > {wide} - 40", 20
            )
            tab.wait(f"{IMAGE}.clientHeight <= document.querySelector('.stage').clientHeight", 20)
            assert tab.ask("document.querySelector('#rendered_cells').scrollWidth") <= wide
            light = tab.ask("getComputedStyle(document.querySelector('.course-review')).color")
            assert (light == "rgb(230, 230, 230)") is dark

        press(tab, "+", "+")
        assert "scale(1.96)" in (zoomed := tab.ask(f"{IMAGE}.style.transform"))
        press(tab, "ArrowLeft", shift=True)
        assert tab.ask(f"{IMAGE}.style.transform") != zoomed and tab.ask(SHOWN) == "4"
        at = {"x": 500, "y": 300}
        tab.send("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=-100, **at)
        tab.wait(f"{IMAGE}.style.transform.includes('scale(2.352)')", 20)
        moved_to = tab.ask(f"{IMAGE}.style.transform")
        tab.send(
            "Input.dispatchMouseEvent", type="mousePressed", button="left", buttons=1, clickCount=1, **at
        )
        tab.send("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, x=560, y=330)
        tab.send("Input.dispatchMouseEvent", type="mouseReleased", button="left", clickCount=1, x=560, y=330)
        assert tab.ask(f"{IMAGE}.style.transform") != moved_to
        press(tab, "0")
        assert "scale(1)" in tab.ask(f"{IMAGE}.style.transform")

        press(tab, "r")  # a remark goes with the decision
        write(tab, "=1+1 <i>leaf</i>")
        press(tab, "Enter", "c")
        write(tab, "ro")
        tab.wait("document.querySelectorAll('.names li').length === 3")
        press(tab, "Tab", "Tab", "ArrowUp", "ArrowDown", "Enter")
        shows(0)
        assert (counts(4).name, counts(4).remarks, counts(4).new) == (
            "Rosa canina",
            "=1+1 <i>leaf</i>",
            False,
        )
        decide(tab, "3", "2")  # there is no third answer
        assert counts(0).name == "Rosa gallica"
        shows(1)
        assert (
            tab.ask(TITLE) == OTHERS[1][0] and tab.ask("document.querySelector('img[src=x], h1 b')") is None
        )
        assert ODD.strip() in tab.ask("document.querySelector('.course-review ol').textContent")
        assert tab.ask("document.querySelector('#rendered_cells').scrollWidth") <= 2560
        press(tab, "u")
        shows(0, told="Undone.")
        assert counts(0) is None
        press(tab, "u")
        shows(4, told="Undone.")
        press(tab, "u")
        shows(4, told="there is nothing to undo")
        press(tab, "n", "n")
        shows(1)
        decide(tab, "a")
        assert counts(1).name == ODD

        shows(2, told="not a whole image")
        broken.write_bytes(whole)
        press(tab, "b")
        shows(1)
        assert "accepted" in tab.ask("document.querySelector('.decided').textContent")
        press(tab, "n")
        shows(2)
        tab.wait(f"{IMAGE}.naturalWidth === 400", 20)
        decide(tab, "d", "g")
        assert (counts(2).do, counts(2).name) == (DOUBT, "Aster")
        shows(5)
        press(tab, "a")
        shows(5, told="That was the last sheet of this choice.")

        press(tab, "s", "s", "s")  # undecided, decided, put aside, image not there
        shows(3, told="b/moved.png: the image is not in the folder")
        press(tab, "s", "o", "o")  # all, by folder
        shows(1)
        press(tab, "/")
        write(tab, "ASTERACEAE")
        press(tab, "Enter")
        shows(2)
        press(tab, "t")  # any status, doubtful, sure
        shows("none")
        press(tab, "u")  # the last decision, which this choice does not show
        shows(5, told="Undone.")
        press(tab, "A")  # as with caps lock
        shows(5, told="That was the last sheet of this choice.")
        press(tab, "t")
        shows(2)
        press(tab, "/", "Escape", "n")
        shows(3)
        decide(tab, "p")
        assert counts(3).do == ASIDE

        other = CliRunner().invoke(
            main, ["review", str(table), "--images", str(tmp_path / "images"), "--only-tables"]
        )
        assert other.exit_code == 1 and "works on it" in other.output and other.output.count("\n") == 1
        press(tab, "w")
        tab.wait(f"{TOLD} === 'Tables written: 2 labels, 4 sheets without one.'", 20)
        assert not tab.errors
    assert decisions.read_bytes().startswith(b"edited by hand\n")
    _, odd, _ = (tmp_path / "p.reviewed.csv").read_text(encoding="utf-8").splitlines()
    assert odd.startswith(f"K1,a/<b>odd.png,{ODD}")
