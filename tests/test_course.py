"""The script `course`, run as a process on a machine made of stubs: set-up, its failures, the hand-over."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from utils.paths import REPOSITORY

TOOLS = (
    *("sh", "cat", "dirname", "readlink", "cksum", "tr", "uname", "awk", "grep"),
    *("mkdir", "rm", "ls", "tail", "sed", "cp", "chmod", "sleep", "tee"),
)
# A Python that knows only what the script asks of it; pip's words and exit code come from files beside it.
STUB = """#!/bin/sh
here=$(dirname "$0")
case $1 in
    -c) case $2 in *ensurepip*) echo "VERSION" ;; *) echo 2.15.1 ;; esac ;;
    -m)
        echo "$*" >>"CALLS"
        case $2 in
            venv)
                for folder; do :; done
                mkdir -p "$folder/bin" "$folder/lib/pythonSHORT"
                cp "$0" "$folder/bin/python"
                ;;
            pip) [ ! -e "PIP" ] || { cat "PIP"; exit 1; } ;;
            utils) printf '%s\\n' "cwd $PWD" "path $PYTHONPATH" "$@"; exit 7 ;;
        esac
        ;;
esac
"""


class Machine:
    """A repository with the script, a PATH of few tools, and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.repository = folder, folder / "bin", folder / "my course"
        self.calls, self.pip_fails = folder / "calls", folder / "pip_fails"
        for path in (self.bin, self.repository, folder / "home"):
            path.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.program("df", "#!/bin/sh\necho head\necho disk 9 9 90000000 1% /\n")
        for name in ("course", "requirements.txt"):
            shutil.copy(REPOSITORY / name, self.repository)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def python(self, name: str, answer: str) -> None:
        """Install a stub Python that answers the script's probe, as in "3.11 ok"."""
        text = STUB.replace("VERSION", answer).replace("SHORT", answer.split()[0])
        self.program(name, text.replace("CALLS", str(self.calls)).replace("PIP", str(self.pip_fails)))

    def run(self, *arguments: str, cwd: Path | None = None, script: Path | None = None, **variables: str):
        environment = {"PATH": str(self.bin), "HOME": str(self.folder / "home"), **variables}
        return subprocess.run(
            [shutil.which("dash") or "/bin/sh", str(script or self.repository / "course"), *arguments],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def called(self, what: str) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if line.startswith(f"-m {what}")]

    @property
    def venv(self) -> Path:
        return self.repository / ".venv"


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def fails_with_one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Setting up")]
    assert len(lines) == 1 and lines[0].startswith("course: ")
    return lines[0]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"], ["setup", "--help"]])
def test_help_needs_no_python_and_no_set_up(machine, arguments):
    done = machine.run(*arguments)
    assert done.returncode == 0 and "./course run" in done.stdout and "setup [--gpu]" in done.stdout
    assert not machine.venv.exists()


def test_hands_over_with_the_folder_of_the_caller(machine):
    machine.python("python3.11", "3.11 ok")
    elsewhere = machine.folder / "else where"
    elsewhere.mkdir()
    done = machine.run("predict", "--out", "a b.csv", cwd=elsewhere, PYTHONPATH="/other")
    assert done.returncode == 7, "the exit code is the command's"
    words = ["-m", "utils", "predict", "--out", "a b.csv"]
    assert done.stdout.splitlines() == [f"cwd {elsewhere}", f"path {machine.repository}", *words]
    (machine.folder / "link").symlink_to(machine.repository / "course")
    assert machine.run("lab", script=machine.folder / "link").stdout.splitlines()[-1] == "lab"


def test_sets_up_once_and_again_only_when_requirements_change(machine):
    machine.python("python3.11", "3.11 ok")
    machine.run("lab")
    begin = time.monotonic()
    done = machine.run("lab")
    assert time.monotonic() - begin < 3 and done.stderr == ""
    assert len(machine.called("pip")) == 1
    requirements = machine.repository / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# changed\n")
    machine.run("lab")
    machine.run("lab")
    assert len(machine.called("pip")) == 2
    assert "--clear" not in "".join(machine.called("venv"))


def test_an_interrupted_set_up_is_redone_from_nothing(machine):
    machine.python("python3.11", "3.11 ok")
    machine.pip_fails.write_text("killed\n")
    assert "pip failed" in fails_with_one_line(machine.run("setup"))
    machine.pip_fails.unlink()
    assert machine.run("setup").returncode == 0
    assert "--clear" in machine.called("venv")[-1] and len(machine.called("pip")) == 2
    machine.run("setup")
    assert len(machine.called("pip")) == 2


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3.11": "3.11 ok", "python3.12": "3.12 ok"}, "3.11"),
        ({"python3": "3.13 ok", "python3.12": "3.12 ok"}, "3.12"),
        ({"python3": "3.13 ok"}, "3.13"),
        ({"python3.11": "3.11 novenv", "python3.12": "3.12 ok"}, "3.12"),
        ({"python3": "3.9 ok", "python": "3.11 ok"}, "3.11"),
    ],
)
def test_takes_the_first_python_that_fits_and_runs(machine, pythons, chosen):
    for name, answer in pythons.items():
        machine.python(name, answer)
    assert f"Setting up Python {chosen}" in machine.run("setup").stderr


def test_skips_a_shim_that_does_not_run(machine):
    machine.program("python3.11", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    versions = machine.folder / "home" / ".pyenv" / "versions" / "3.11.9" / "bin"
    versions.mkdir(parents=True)
    machine.python("stub", "3.11 ok")
    (machine.bin / "stub").rename(versions / "python")
    assert "Setting up Python 3.11" in machine.run("setup").stderr


def test_a_python_can_be_forced(machine):
    machine.python("python3.11", "3.11 ok")
    machine.python("python3.12", "3.12 ok")
    machine.run("setup")
    assert "Setting up Python 3.12" in machine.run("setup", PYTHON="3.12").stderr
    assert "--clear" in machine.called("venv")[-1], "packages of another Python are of no use"
    assert machine.run("setup", PYTHON="3.12").stderr == ""
    own = machine.folder / "second"
    assert "3.11" in machine.run("setup", PYTHON="python3.11", COURSE_VENV="second").stderr
    assert (own / "bin" / "python").exists() and (machine.venv / "lib" / "python3.12").is_dir()
    assert "not supported" in fails_with_one_line(machine.run("setup", PYTHON="3.10"))
    assert "does not run" in fails_with_one_line(machine.run("setup", PYTHON="/no/python"))


def test_says_what_is_missing_and_the_way_out(machine):
    message = fails_with_one_line(machine.run("run"))
    assert "no Python 3.11 or 3.12 or 3.13" in message and "brew install" in message
    machine.python("python3.11", "3.11 novenv")
    assert "no venv module" in fails_with_one_line(machine.run("run"))
    machine.python("python3.11", "3.11 ok")
    machine.pip_fails.write_text("WARNING: Retrying ... NewConnectionError: Name resolution failed\n")
    assert "Connect to the internet" in fails_with_one_line(machine.run("run"))
    machine.pip_fails.write_text("ERROR: [Errno 28] No space left on device\n")
    assert "Free 4 GB" in fails_with_one_line(machine.run("run"))
    machine.program("df", "#!/bin/sh\necho head\necho disk 9 9 1000000 99% /\n")
    assert "0 GB free, the set-up needs 4 GB" in fails_with_one_line(machine.run("run"))


def test_an_environment_of_another_python_is_not_touched(machine):
    machine.python("python3.11", "3.11 ok")
    (machine.venv / "lib" / "python3.10").mkdir(parents=True)
    assert "did not make" in fails_with_one_line(machine.run("setup"))


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="--gpu is for Linux")
def test_gpu_is_installed_once_and_remembered(machine):
    machine.python("python3.11", "3.11 ok")
    machine.run("setup")
    assert "(gpu)" in machine.run("setup", "--gpu").stdout
    assert machine.called("pip")[-1].endswith("tensorflow[and-cuda]==2.15.1")
    count = len(machine.called("pip"))
    machine.run("setup", "--gpu")
    machine.run("lab")
    assert len(machine.called("pip")) == count
    requirements = machine.repository / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# changed\n")
    machine.run("lab")
    assert machine.called("pip")[-1].endswith("tensorflow[and-cuda]==2.15.1")
    assert machine.run("setup", "--cpu").returncode == 2


@pytest.mark.long
def test_python_3_13_sets_up_and_passes_the_fast_suite(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHON": "3.13", "COURSE_VENV": str(tmp_path / "venv")}
    course = [str(REPOSITORY / "course")]
    setup = subprocess.run([*course, "setup"], env=environment, capture_output=True, text=True)
    if "no Python 3.13 found" in setup.stderr:
        pytest.skip("Python 3.13 is not on this machine")
    assert setup.returncode == 0, setup.stderr
    suite = subprocess.run([*course, "test"], env=environment, capture_output=True, text=True)
    assert suite.returncode == 0, suite.stdout[-5000:]
