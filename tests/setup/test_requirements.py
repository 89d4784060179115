"""requirements.txt resolves to the known stacks, and the locks made from it hold all of it on every platform."""

import re
import shutil
from importlib import metadata

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from utils.files import REPOSITORY, InputError
from utils.setup import lock

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
    assert pip == {"pip": ["--require-hashes", "-r requirements.lock"]}


TARGETS = [(file, target) for file in lock.LOCKS for target in file.targets]


@pytest.mark.parametrize(("file", "target"), TARGETS, ids=lambda value: getattr(value, "name", str(value)))
def test_each_lock_has_every_package_once_on_every_platform(file, target):
    for patch in (0, 4, 20):
        environment = target.environment(patch)
        direct = lock.chosen(REPOSITORY / "requirements.txt", environment)
        locked = lock.chosen(REPOSITORY / file.name, environment)  # refuses a package that is there twice
        assert direct.items() <= locked.items()
        assert len(locked) > 140, "with what those need"
        assert ("nvidia-cudnn-cu12" in locked) is (file.name == "requirements-gpu.lock")
        mac_on_intel = target.platform == "x86_64-apple-darwin"
        assert not (mac_on_intel and target.python != "3.11")


def test_the_locks_are_for_the_platforms_of_the_readme():
    platforms = {(target.platform, target.python) for file in lock.LOCKS for target in file.targets}
    everywhere = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
    assert platforms == {(name, python) for name in everywhere for python in ("3.11", "3.12", "3.13")} | {
        ("x86_64-apple-darwin", "3.11"),
        ("x86_64-pc-windows-msvc", "3.11"),
    }


def test_what_is_installed_here_is_what_is_locked():
    """All of it, by whichever of uv and pip: only uv itself may be missing."""
    here = {key: str(value) for key, value in default_environment().items()} | {"extra": ""}
    differs = {}
    for name, version in lock.chosen(REPOSITORY / "requirements.lock", here).items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != version and name != "uv":
            differs[name] = (found, version)
    assert differs == {}


def test_a_lock_names_several_files_of_a_package_and_no_place():
    for file in lock.LOCKS:
        text = (REPOSITORY / file.name).read_text()
        assert not re.search(r"https?://|file:|/|--(index|extra|find|trusted)", text.replace("./course", ""))
        hashes = {str(line): count for line, count in lock.read_requirements(REPOSITORY / file.name)}
        assert all(hashes.values())
        (numpy,) = [count for line, count in hashes.items() if line.startswith("numpy==1.26.4")]
        assert numpy > 20, "wheels of all platforms, not of this machine alone"


@pytest.fixture
def copy(tmp_path):
    for name in ("requirements.txt", *(file.name for file in lock.LOCKS)):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def test_the_locks_are_in_step(copy):
    assert list(lock.problems(REPOSITORY)) == [] == list(lock.problems(copy))
    source = copy / "requirements.txt"
    source.write_text("# a remark more\n" + source.read_text().replace("Figures", "Pictures"))
    assert list(lock.problems(copy)) == [], "remarks do not count"


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (
            "requirements.txt",
            "pillow==11.3.0",
            "pillow==11.2.0",
            "pillow is 11.3.0, requirements.txt says 11.2.0",
        ),
        ("requirements.txt", "pillow==11.3.0", "pillow==11.3.0\nsix-more==1.0", "six-more is missing"),
        ("requirements.txt", "\npillow==11.3.0", "", "was not made from requirements.txt as it is now"),
        ("requirements.txt", 'wrapt==1.14.2; python_version < "3.12"', "", "was not made from"),
        ("requirements.txt", "pillow==11.3.0", "pillow>=11.3.0", "is not pinned"),
        ("requirements.lock", "pillow==11.3.0", "pillow==11.2.0", "pillow is 11.2.0"),
        ("requirements.lock", "six==1.17.0", "six==1.16.0", "edited by hand"),
        ("requirements.lock", "\nsix==1.17.0", "\nsix==1.17.0\nsix==1.17.0", "six is there twice"),
    ],
)
def test_a_difference_is_found_without_a_network(copy, name, old, new, told):
    path = copy / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    found = [f"{path.name}: {text}" for path, text in lock.problems(copy)]
    assert any(told in line for line in found), found


def test_a_missing_lock_and_a_missing_hash_are_found(copy):
    path = copy / "requirements.lock"
    path.write_text(re.sub(r"(?m)^(six==.*?) \\\n(    --hash.*\n)+", r"\1\n", path.read_text()))
    assert any("six==1.17.0" in text and "has no hash" in text for _, text in lock.problems(copy))
    path.unlink()
    assert any(text == "is not there" for _, text in lock.problems(copy))
    path.write_text("absl-py 2.5\n")
    with pytest.raises(InputError, match="is not a requirement"):
        lock.read_requirements(path)


def test_the_columnar_tables_can_be_read_with_these_versions(tmp_path):
    """pyarrow from 22 on refuses numpy 1.26 at import, which no metadata of it says."""
    import pandas as pd

    pd.DataFrame({"genus": ["Carex"]}).to_feather(tmp_path / "genera.feather")
    assert pd.read_feather(tmp_path / "genera.feather")["genus"].tolist() == ["Carex"]
