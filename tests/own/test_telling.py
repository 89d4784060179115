"""Long steps say that they are at work, and how long already."""

import time

import pytest
from tqdm.auto import tqdm

from utils.own import telling
from utils.own.telling import told


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_PAUSE", 0.05)


def test_a_long_step_says_what_it_is_and_a_short_one_nothing(capsys: pytest.CaptureFixture) -> None:
    with told("reading"):
        pass
    assert capsys.readouterr().err == ""
    with told("reading"):
        time.sleep(0.2)
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == "reading: at work for 0:00 min"


def test_where_a_bar_is_shown_that_says_enough(capsys: pytest.CaptureFixture) -> None:
    with tqdm(total=2), told("training"):
        time.sleep(0.2)
    assert "at work" not in capsys.readouterr().err


def test_a_step_that_fails_stops_saying(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(KeyError), told("reading"):
        raise KeyError
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
