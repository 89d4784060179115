"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path

import pytest

from utils.config import load_profile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it in what it starts in the background. Processes that the tests start inherit it, and
    # those that are to be interrupted would not be.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the long suite too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    for item in items:
        if "long" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long suite: ./course test --all"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests record, also where their workers' output is not shown."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "table":
                terminalreporter.write_line(f"\n{report.nodeid}\n{text}")


@pytest.fixture(scope="session")
def sample_flora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample flora (8 species, 480 px shards), made once a session."""
    from utils.flora.dataset import make_flora

    profile = load_profile("smoke")
    folder = tmp_path_factory.mktemp("flora")
    return make_flora(
        folder,
        species=profile.flora_species,
        seed=profile.flora_seed,
        max_images=profile.flora_max_images,
        progress=False,
    )


@pytest.fixture(scope="session")
def real_sheets() -> Path:
    """The folder of real herbarium sheets with labels.csv, named by NAFLORA_REAL_SHEETS."""
    if "NAFLORA_REAL_SHEETS" not in os.environ:
        pytest.skip("NAFLORA_REAL_SHEETS is not set: no real sheets on this machine")
    return Path(os.environ["NAFLORA_REAL_SHEETS"])
