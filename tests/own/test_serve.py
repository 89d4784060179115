"""The page of `./course identify` in a real Chromium: what it answers, what it refuses, who can reach it."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from chromium import PROGRAM, chromium
from PIL import Image
from tiny import in_place, tiny_profile, trained

from utils.files import HOST, REPOSITORY, InputError
from utils.own.examples import MOST_BYTES
from utils.own.identify import KEPT, prepare
from utils.own.serve import check_host
from utils.sources import find_data

SHOWN = "document.querySelector('.course-about') !== null"
CARDS = "document.querySelectorAll('.course-card').length"
EXPLAINED = (
    "document.querySelectorAll('.course-card .explained > *').length > 0 && "
    "document.querySelector('.state').textContent === ''"
)
REFUSED = "[...document.querySelectorAll('.refused')].map(line => line.innerText)"
INPUT = "input[type=file]"
browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def page(sample_flora, tmp_path_factory):
    """The page of a tiny run, served by the command, with a home folder of its own."""
    profile, folder = tiny_profile(1), tmp_path_factory.mktemp("page")
    data, run = find_data(profile, sample_flora), folder / "run"
    trained(profile, data, run)
    with in_place():
        prepare(run, run / KEPT, data, progress=False)
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    (folder / "tmp" / f".course-page-x.{HOST}.{int(ended.stdout)}.tmp").mkdir()  # of a page that was killed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "utils",
        "identify",
        "--model",
        str(run),
        "--no-browser",
        "--port",
        str(port),
    ]
    places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(REPOSITORY)}
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG", "MPL"))
    }
    begin = time.monotonic()
    with (folder / "log").open("w") as log:
        pipes = {"stdout": subprocess.PIPE, "stderr": log, "text": True}
        with subprocess.Popen(command, env=others | places, cwd=folder, **pipes) as process:
            address = process.stdout.readline().strip()
            assert address, (folder / "log").read_text()
            token = address.partition("token=")[2]
            yield SimpleNamespace(
                address=address, port=port, token=token, folder=folder, process=process, begin=begin
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
    assert [path.name for path in (folder / "tmp").iterdir()] == []
    assert [path.name for path in (folder / "home").rglob("*") if path.is_file()] == []


@pytest.fixture
def tab(page):
    """The page, opened."""
    with chromium() as tab:
        tab.show(1280)
        tab.open(page.address)
        tab.wait(SHOWN)
        yield tab
        assert not tab.errors
        own = (f"http://127.0.0.1:{page.port}/", f"blob:http://127.0.0.1:{page.port}/", "data:", "about:")
        assert [asked for asked in tab.asked if not asked.startswith(own)] == []
        tab.open("about:blank")


@pytest.fixture
def sheets(tmp_path, make_jpeg) -> list[Path]:
    """Ten image files; the first is a real sheet where there are some."""
    files = []
    for number in range(10):
        files.append(tmp_path / f"sheet {number}.jpg")
        files[-1].write_bytes(make_jpeg(number, 1000, 1500))
    if real := os.environ.get("NAFLORA_REAL_SHEETS"):
        files[0] = min(Path(real).rglob("*.jpg"))
    return files


def kernels(page) -> list[int]:
    """Process ids of what answers the open pages."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(fields[1]) == page.process.pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def at_most(number: int, page) -> list[int]:
    """The kernels, when there are no more than so many, or after two minutes."""
    end = time.monotonic() + 120
    while len(found := kernels(page)) > number and time.monotonic() < end:
        time.sleep(0.2)
    return found


def answer_to(page, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=300)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


# ---------------------------------------------------------------- who reaches it


@pytest.mark.long
def test_without_the_token_nothing_is_shown_and_nothing_starts(page):
    before = kernels(page)
    for path in ("/", "/?token=wrong", "/voila/files/page.ipynb", "/api/kernels/1-1-1-1-1"):
        status, text = answer_to(page, path)
        assert status in (302, 403, 404) or "login" in text.lower(), path
        assert "utils.own" not in text and str(page.folder) not in text
    assert kernels(page) == before


@pytest.mark.long
@pytest.mark.parametrize(
    "path", ["/", "/?token={}", "/voila/static/voila.js", "/api/kernels/1-1-1-1-1/channels"]
)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{}", "127.0.0.1.evil.example:{}", "localhost.evil"]
)
def test_a_foreign_host_is_refused(page, path, host):
    status, text = answer_to(page, path.format(page.token), Host=host.format(page.port))
    assert (status, text) == (403, "This page answers to its own address only.\n")


@pytest.mark.long
def test_it_listens_to_this_machine_only(page):
    for address in (
        "127.0.0.1",
        "127.0.0.2",
    ):  # a server for all addresses would answer to the second one too
        with socket.socket() as trial:
            assert (trial.connect_ex((address, page.port)) == 0) == (address == "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.0.2.1", "this machine cannot listen there"),
        ("0.0.0.0", "stands for all addresses"),
        ("", "stands for all"),
    ],
)
def test_only_one_address_of_this_machine_can_be_listened_at(host, said):
    with pytest.raises(InputError, match=f"--host {host}: {said}"):
        check_host(host)


# ---------------------------------------------------------------- what it answers


@browser
@pytest.mark.long
def test_sheets_are_answered_and_what_is_none_is_refused(page, tab, sheets, tmp_path, record_property):
    begin = time.monotonic()
    tab.choose(INPUT, sheets[:1])
    tab.wait(f"{CARDS} === 1")
    first = time.monotonic() - begin
    text = tab.text()
    assert sheets[0].name in text and "genus, family" in text and "training sheets" in text
    assert "Looks like these training sheets" in text and "invented" in text
    tab.wait(EXPLAINED)
    begin = time.monotonic()
    tab.choose(INPUT, sheets)
    tab.wait(f"{CARDS} === 11")
    each = (time.monotonic() - begin) / 10
    tab.wait(EXPLAINED)
    broken = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    broken.write_bytes(sheets[1].read_bytes()[:3000])
    large = tmp_path / "large.tif"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    tab.choose(INPUT, [broken, large, sheets[2]])
    tab.wait(f"{CARDS} === 12")
    lines = tab.ask(REFUSED)
    (of_broken,) = (line for line in lines if line.startswith(f"{broken.name}: "))
    assert "truncated" in of_broken
    assert "large.tif: 65 MB, at most 64 MB are taken; save a smaller copy" in lines and len(lines) == 2
    assert tab.ask("document.querySelector('img[src=x]')") is None
    record_property("table", f"first answer after {first:.1f} s, each of ten {each:.2f} s")


@browser
@pytest.mark.long
def test_a_sheet_of_50_megabytes_is_answered(page, tab, tmp_path):
    path = tmp_path / "scan.tif"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4200, 4000, 3), np.uint8)).save(path)
    assert path.stat().st_size > 50e6
    tab.choose(INPUT, [path])
    tab.wait(f"{CARDS} === 1")
    assert "scan.tif" in tab.text()


@browser
@pytest.mark.long
def test_it_fits_a_telephone_and_the_browser_s_colours(page, tab, sheets, tmp_path):
    tab.choose(INPUT, sheets[:1])
    tab.wait(EXPLAINED)
    shades = {}
    for dark in (False, True):
        for width in (390, 1280):
            tab.show(width, dark=dark, mobile=width == 390)
            tab.picture(tmp_path / f"{width}-{'dark' if dark else 'light'}.png")
            assert tab.ask("document.documentElement.scrollWidth") <= width
            with Image.open(tmp_path / f"{width}-{'dark' if dark else 'light'}.png") as picture:
                shades[dark] = np.asarray(picture.convert("L")).mean()
    assert shades[False] > 200 and shades[True] < 120


@browser
@pytest.mark.long
def test_when_what_answers_dies_the_page_says_so_and_starts_again_when_loaded(page, tab, sheets):
    tab.choose(INPUT, sheets[:1])
    tab.wait(EXPLAINED)
    (kernel,) = at_most(1, page)  # those of pages left before have ended
    os.kill(kernel, signal.SIGKILL)
    tab.wait("!document.getElementById('course-lost').hidden")
    text = tab.text()
    assert "What answers this page has ended. The answers above stay; load the page again to go on." in text
    assert sheets[0].name in text
    tab.open(page.address)
    tab.wait(f"{SHOWN} && {CARDS} === 0")
    tab.choose(INPUT, sheets[:1])
    tab.wait(f"{CARDS} === 1")


@browser
@pytest.mark.long
def test_a_page_that_came_without_its_widget_is_loaded_again(page, tab):
    """As Jupyter's widgets say it on a busy machine; tried with their own words, since it happens in few of many."""
    failed = "<div class=jupyter-widgets>Error displaying widget: model not found</div>"
    tab.ask(f"window.before = true; document.body.insertAdjacentHTML('beforeend', '{failed}')")
    tab.wait(f"window.before === undefined && {SHOWN}")


@browser
@pytest.mark.long
def test_a_page_that_is_left_ends_what_answered_it(page):
    assert at_most(0, page) == [], "pages left before"
    with chromium() as tab:
        tab.open(page.address)
        tab.wait(SHOWN)
        assert len(kernels(page)) == 1
        tab.open("about:blank")
        assert at_most(0, page) == []
