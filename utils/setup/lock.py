"""The lock files: made from requirements.txt by `./course lock`, compared with it by `./course check`."""

import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.files import REPOSITORY, InputError, write_text
from utils.setup.environment import Failed, tool_variables, uv_settings

SOURCE = "requirements.txt"
WAY_OUT = "./course lock"
_HEAD = "# Made from requirements.txt by ./course lock. Edit that file, not this one.\n# sha256 of both: "
# uv's name of each platform, and what Python's markers call it
_MARKERS = {
    "x86_64-manylinux_2_28": ("linux", "x86_64"),
    "aarch64-manylinux_2_28": ("linux", "aarch64"),
    "aarch64-apple-darwin": ("darwin", "arm64"),
    "x86_64-apple-darwin": ("darwin", "x86_64"),
    "x86_64-pc-windows-msvc": ("win32", "AMD64"),
}
_SYSTEMS = {"linux": ("Linux", "posix"), "darwin": ("Darwin", "posix"), "win32": ("Windows", "nt")}


@dataclass(frozen=True)
class Target:
    """A platform, by uv's name of it, with a version of Python."""

    platform: str
    python: str

    def marker(self) -> str:
        """The marker of packaging that holds on this platform and Python alone."""
        system, machine = _MARKERS[self.platform]
        return f"python_version == '{self.python}' and sys_platform == '{system}' and platform_machine == '{machine}'"

    def environment(self, patch: int) -> dict[str, str]:
        """What markers are evaluated with on this platform, on Python `python`.`patch`."""
        system, machine = _MARKERS[self.platform]
        name, os_name = _SYSTEMS[system]
        full = f"{self.python}.{patch}"
        return {
            "implementation_version": full,
            "os_name": os_name,
            "platform_machine": machine,
            "platform_system": name,
            "python_full_version": full,
            "python_version": self.python,
            "sys_platform": system,
        }

    def __str__(self) -> str:
        return f"Python {self.python} on {self.platform}"


def _targets(*platforms: str, pythons: tuple[str, ...] = ("3.11", "3.12", "3.13")) -> tuple[Target, ...]:
    return tuple(Target(platform, python) for platform in platforms for python in pythons)


@dataclass(frozen=True)
class Lock:
    """A lock file: where it is to install (the table of the README), and what it has beside requirements.txt."""

    name: str
    targets: tuple[Target, ...]
    extra: str = ""


LOCKS = (
    Lock(
        "requirements.lock",
        # TensorFlow 2.16 and later has no wheels for Intel Macs; native Windows goes by conda, on Python 3.11
        _targets("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
        + _targets("x86_64-apple-darwin", "x86_64-pc-windows-msvc", pythons=("3.11",)),
    ),
    Lock("requirements-gpu.lock", _targets("x86_64-manylinux_2_28"), extra="tensorflow[and-cuda]"),
)


def read_requirements(path: Path) -> list[tuple[Requirement, int]]:
    """Every requirement of a file with the number of its hashes, in order.

    Raises:
        InputError: the file is not there, or a line is not a requirement.
    """
    found = []
    for line in _lines(path):
        text, *hashes = line.split("--hash=")
        try:
            found.append((_requirement(text.strip()), len(hashes)))
        except ValueError as error:
            raise InputError(f"{path}: {text.strip()!r} is not a requirement: {error}") from None
    return found


@functools.cache
def _requirement(text: str) -> Requirement:
    return Requirement(text)  # takes a while for long markers, and every target asks


def _lines(path: Path) -> list[str]:
    """The lines of a requirements file without comments, continued lines put together."""
    if not path.is_file():
        raise InputError(f"{path}: is not there")
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (" ".join(line.partition("#")[0].split()) for line in text.splitlines())
    return [line for line in lines if line]


def chosen(path: Path, environment: dict[str, str]) -> dict[str, str]:
    """Version of each package that the file installs where the markers have these values.

    Raises:
        InputError: a package is not pinned by `==`, or twice.
    """
    versions: dict[str, str] = {}
    for line, _ in read_requirements(path):
        if line.marker is not None and not line.marker.evaluate(environment):
            continue
        name, pins = canonicalize_name(line.name), list(line.specifier)
        if len(pins) != 1 or pins[0].operator != "==":
            raise InputError(f"{path}: {line} is not pinned. Name one version, as in {line.name}==1.0")
        if name in versions:
            raise InputError(
                f"{path}: {name} is there twice for Python {environment['python_full_version']} on "
                f"{environment['sys_platform']} {environment['platform_machine']}."
            )
        versions[name] = pins[0].version
    return versions


def problems(root: Path = REPOSITORY) -> Iterator[tuple[Path, str]]:
    """(lock file, what is wrong with it), without a network: whether it was made from requirements.txt as it is."""
    source = root / SOURCE
    for lock in LOCKS:
        path = root / lock.name
        try:
            yield from ((path, text) for text in _differences(source, path, lock))
        except InputError as error:
            yield path, str(error).removeprefix(f"{path}: ")


def _differences(source: Path, path: Path, lock: Lock) -> Iterator[str]:
    unhashed = [str(line) for line, hashes in read_requirements(path) if not hashes]
    if unhashed:
        yield f"{unhashed[0]} has no hash ({len(unhashed)} such lines)"
    told = set()
    for target in lock.targets:
        for patch in (0, 20):  # a line may hang on the patch release
            environment = target.environment(patch)
            locked = chosen(path, environment)
            for name, version in chosen(source, environment).items():
                if locked.get(name) != version and name not in told:
                    told.add(name)
                    yield f"{name} is {locked.get(name, 'missing')}, {SOURCE} says {version} ({target})"
    text = path.read_text(encoding="utf-8")
    if not told and not text.startswith(_head(source, text)):
        yield f"was not made from {SOURCE} as it is now, or was edited by hand"


def _head(source: Path, text: str) -> str:
    """The first lines of a lock with this text: they hold a checksum of its lines and of the source's."""
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    joined = "\n".join([*_lines(source), body])
    return f"{_HEAD}{hashlib.sha256(joined.encode()).hexdigest()}\n"


def make_locks(root: Path = REPOSITORY) -> None:
    """Write both lock files by uv, from the main index of pip's configuration, and see that they install everywhere.

    Versions that a lock already has stay where they fit; extra indexes and local folders are not asked, so that
    hashes are those of the index' own files. Takes seconds, and the network.

    Raises:
        InputError: uv is not in this environment, or finds no answer (its words say why); pip's configuration fails.
    """
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        raise InputError(
            f"{uv}: not there, pip made this environment. {WAY_OUT} needs uv: python -m pip install uv"
        )
    pip = [sys.executable, "-m", "pip"]
    try:
        arguments, variables = uv_settings(pip, without=("extra-index-url", "find-links", "no-index"))
    except Failed as error:
        raise InputError(str(error)) from None

    def run(*command: str, cwd: Path) -> None:
        command = (str(uv), "pip", *command, "--quiet", "--no-build", *arguments)
        done = subprocess.run(
            command, cwd=cwd, env=tool_variables() | variables, capture_output=True, text=True
        )
        if done.returncode:
            raise InputError(f"uv finds no lock for {SOURCE}:\n{done.stderr.strip()}")

    for lock in LOCKS:
        path = root / lock.name
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            markers = ",\n".join(f'"{target.marker()}"' for target in lock.targets)
            (folder / "pyproject.toml").write_text(f"[tool.uv]\nenvironments = [\n{markers}\n]\n")
            (folder / "extra.txt").write_text(lock.extra + "\n")
            made = folder / "made.lock"
            if path.is_file():
                made.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")  # its versions are kept
            shutil.copy(root / SOURCE, folder)
            made_of = f"{SOURCE} extra.txt --universal --python-version 3.11"
            written = f"--output-file {made.name} --generate-hashes --no-header --annotation-style line"
            run("compile", *made_of.split(), *written.split(), cwd=folder)
            for target in lock.targets:  # every package has a wheel there
                run(
                    *("install", "--dry-run", "--require-hashes", "-r", made.name, "--target", "nowhere"),
                    *("--python-platform", target.platform, "--python-version", target.python),
                    cwd=folder,
                )
            text = made.read_text(encoding="utf-8")
        write_text(path, _head(root / SOURCE, text) + text)
        print(f"{path.name}: {sum(line[:1] not in '# ' for line in text.splitlines())} pins, "
              f"{len(text) // 1000} KB")  # fmt: skip
