"""requirements.txt resolves to the known stacks on every platform, and environment.yml keeps in step with it."""

from importlib import metadata

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from utils.paths import REPOSITORY

LINES = [
    Requirement(line.split("#")[0].strip())
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines()
    if line.split("#")[0].strip()
]


def stack(python: str, system: str = "linux", machine: str = "x86_64") -> dict[str, str]:
    platform = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": system,
        "platform_machine": machine,
        "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system],
    }
    chosen: dict[str, str] = {}
    for line in LINES:
        if line.marker is None or line.marker.evaluate({**default_environment(), **platform}):
            assert line.name not in chosen, f"{line.name} is pinned twice on Python {python}"
            (only,) = line.specifier
            assert only.operator == "==", f"{line.name} is not pinned"
            chosen[line.name] = only.version
    return chosen


@pytest.mark.parametrize(
    ("python", "tensorflow", "numpy"),
    [("3.11", "2.15.1", "1.26.4"), ("3.12", "2.20.0", "2.0.2"), ("3.13", "2.21.0", "2.2.6")],
)
def test_the_stacks_are_the_known_ones(python, tensorflow, numpy):
    chosen = stack(python)
    assert (chosen["tensorflow"], chosen["numpy"]) == (tensorflow, numpy)
    assert chosen.get("tf_keras") == (None if python == "3.11" else tensorflow)
    assert chosen["pillow"] == "11.3.0", "the sample flora's bytes hang on it"
    assert chosen["keras-efficientnet-v2"] == "1.2.2"


@pytest.mark.parametrize(
    ("python", "system", "machine", "addons"),
    [
        ("3.11", "linux", "x86_64", True),
        ("3.11", "darwin", "x86_64", True),
        ("3.11", "darwin", "arm64", True),
        ("3.11", "linux", "aarch64", False),
        ("3.11", "win32", "AMD64", False),
        ("3.12", "linux", "x86_64", False),
        ("3.13", "darwin", "arm64", False),
    ],
)
def test_tensorflow_addons_only_where_it_has_a_wheel(python, system, machine, addons):
    assert ("tensorflow-addons" in stack(python, system, machine)) is addons


def test_what_is_installed_here_is_what_is_pinned():
    differs = {
        line.name: (metadata.version(line.name), str(line.specifier))
        for line in LINES
        if (line.marker is None or line.marker.evaluate())
        and line.name in ("tensorflow", "tf_keras", "numpy", "pillow", "keras-efficientnet-v2", "pandas")
        and not line.specifier.contains(metadata.version(line.name))
    }
    assert differs == {}


def test_conda_takes_python_3_11_and_then_these_requirements():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    assert environment["name"] == "naflora"
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"], "what pip pins must not come from conda too"
    assert pip == {"pip": ["-r requirements.txt"]}


def test_the_columnar_tables_can_be_read_with_these_versions(tmp_path):
    """pyarrow from 22 on refuses numpy 1.26 at import, which no metadata of it says."""
    import pandas as pd

    pd.DataFrame({"genus": ["Carex"]}).to_feather(tmp_path / "genera.feather")
    assert pd.read_feather(tmp_path / "genera.feather")["genus"].tolist() == ["Carex"]
