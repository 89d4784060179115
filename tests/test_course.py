"""The script `course`, run as a process on a machine made of stubs: set-up, its failures, the hand-over."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from utils.__main__ import main
from utils.files import REPOSITORY

TOOLS = (
    *("sh", "cat", "dirname", "readlink", "cksum", "tr", "uname"),
    *("mkdir", "rm", "ls", "sed", "cp", "chmod"),
)
# A Python that knows only what the script asks of it; utils/setup/environment.py has tests of its own.
STUB = """#!/bin/sh
[ "$1" != -I ] || shift
case $1 in
    -c) echo "VERSION" ;;
    */utils/setup/environment.py)
        echo "$4: $5" >>"CALLS"
        [ ! -e "FAILS" ] || { echo "course: no luck" >&2; echo "$4" >"$3.unfinished"; exit 1; }
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "$5" >"$3/course-stamp"
        ;;
    -m) shift; printf '%s\\n' "cwd $PWD" "path $PYTHONPATH" "safe $PYTHONSAFEPATH" "$@"; exit 7 ;;
esac
"""


class Machine:
    """A repository with the script, a PATH of few tools, and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.repository = folder, folder / "bin", folder / "my course"
        self.calls, self.fails = folder / "calls", folder / "fails"
        for path in (self.bin, self.repository, folder / "home"):
            path.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        shutil.copy(REPOSITORY / "course", self.repository)
        for name in ("requirements.lock", "requirements-gpu.lock"):
            (self.repository / name).write_text(f"# {name}\n")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def python(self, name: str, answer: str) -> None:
        """Install a stub Python that answers the script's probe, as in "3.11 ok"."""
        text = STUB.replace("VERSION", answer).replace("CALLS", str(self.calls))
        self.program(name, text.replace("FAILS", str(self.fails)))

    def run(
        self, *arguments: str, cwd: Path | None = None, script: Path | None = None, **variables: str | None
    ):
        environment = {"PATH": str(self.bin), "HOME": str(self.folder / "home"), **variables}
        environment = {name: value for name, value in environment.items() if value is not None}
        return subprocess.run(
            [shutil.which("dash") or "/bin/sh", str(script or self.repository / "course"), *arguments],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def set_ups(self) -> list[str]:
        """What the script has asked of utils/setup/environment.py: "cpu: CHECKSUM 3.11 cpu"."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def lock_changes(self, name: str = "requirements.lock") -> None:
        path = self.repository / name
        path.write_text(path.read_text() + "click==1.0\n")

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


@pytest.mark.parametrize(
    "arguments", [["runn"], ["runn", "--help"], ["train", "--help"], ["run", "03", "-h"]]
)
def test_what_needs_no_environment_is_said_before_the_set_up(machine, arguments):
    machine.python("python3.11", "3.11 ok")
    done = machine.run(*arguments)
    assert machine.set_ups() == []
    if arguments[0] == "runn":
        assert done.returncode == 2
        assert done.stderr == "course: no command runn. ./course --help lists them.\n"
    else:
        assert done.returncode == 0
        words = f"./course {' '.join(arguments)} says more once the course is set up: ./course setup"
        assert done.stdout.splitlines()[-1] == words
    machine.run("lab")
    assert machine.run(*arguments).stdout.splitlines()[-len(arguments) :] == arguments, (
        "then it is handed over"
    )


def test_the_script_knows_every_command():
    (commands,) = re.findall(r'commands="(.*)"', (REPOSITORY / "course").read_text())
    assert sorted(commands.split()) == sorted(main.commands)


def test_hands_over_with_the_folder_of_the_caller(machine):
    machine.python("python3.11", "3.11 ok")
    elsewhere = machine.folder / "else where"
    elsewhere.mkdir()
    done = machine.run("predict", "--out", "a b.csv", cwd=elsewhere, PYTHONPATH="/other")
    assert done.returncode == 7, "the exit code is the command's"
    words = ["utils", "predict", "--out", "a b.csv"]
    assert done.stdout.splitlines() == [f"cwd {elsewhere}", f"path {machine.repository}", "safe 1", *words]
    (machine.folder / "link").symlink_to(machine.repository / "course")
    assert machine.run("lab", script=machine.folder / "link").stdout.splitlines()[-1] == "lab"


def test_sets_up_once_and_again_only_when_the_lock_changes(machine):
    machine.python("python3.11", "3.11 ok")
    first = machine.run("lab")
    assert first.stderr == f"Setting up {machine.venv} (once).\n"
    begin = time.monotonic()
    done = machine.run("lab")
    assert time.monotonic() - begin < 3 and done.stderr == ""
    assert len(machine.set_ups()) == 1
    machine.lock_changes("requirements-gpu.lock")
    machine.run("lab")
    assert len(machine.set_ups()) == 1, "the other lock is not this environment's"
    machine.lock_changes()
    machine.run("lab")
    machine.run("lab")
    assert len(machine.set_ups()) == 2 and machine.set_ups()[0] != machine.set_ups()[1]


def test_a_set_up_that_failed_is_tried_again_and_nothing_is_run_before(machine):
    machine.python("python3.11", "3.11 ok")
    machine.fails.touch()
    done = machine.run("lab")
    assert fails_with_one_line(done) == "course: no luck" and done.stdout == ""
    machine.fails.unlink()
    assert machine.run("setup").returncode == 0
    assert len(machine.set_ups()) == 2
    (machine.venv / "bin" / "python").unlink()  # as when the Python that it was made of is uninstalled
    machine.run("setup")
    assert len(machine.set_ups()) == 3


def test_an_environment_of_the_earlier_script_is_set_up_again(machine):
    machine.python("python3.11", "3.11 ok")
    machine.run("setup")
    (machine.venv / "course-stamp").write_text("1234567-2279 3.11 cpu\n")
    assert machine.run("setup").returncode == 0 and len(machine.set_ups()) == 2


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
    machine.run("setup")
    assert machine.set_ups()[0].endswith(f" {chosen} cpu")


def test_skips_a_shim_that_does_not_run(machine):
    machine.program("python3.11", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    versions = machine.folder / "home" / ".pyenv" / "versions" / "3.11.9" / "bin"
    versions.mkdir(parents=True)
    machine.python("stub", "3.11 ok")
    (machine.bin / "stub").rename(versions / "python")
    machine.run("setup")
    assert machine.set_ups()[0].endswith(" 3.11 cpu")


def test_a_python_can_be_forced_and_stays(machine):
    machine.python("python3.11", "3.11 ok")
    machine.python("python3.12", "3.12 ok")
    machine.run("setup")
    machine.run("setup", PYTHON="3.12")
    assert machine.set_ups()[-1].endswith(" 3.12 cpu")
    assert machine.run("setup", PYTHON="3.12").stderr == ""
    assert machine.run("setup").stderr == "", "an environment keeps its Python"
    machine.lock_changes()
    machine.run("setup")
    assert machine.set_ups()[-1].endswith(" 3.12 cpu")
    own = machine.folder / "second"
    machine.run("setup", PYTHON="python3.11", COURSE_VENV="second")
    assert machine.set_ups()[-1].endswith(" 3.11 cpu") and (own / "bin" / "python").exists()
    assert "not supported" in fails_with_one_line(machine.run("setup", PYTHON="3.10"))
    assert "does not run" in fails_with_one_line(machine.run("setup", PYTHON="/no/python"))


def test_the_environment_may_lie_on_another_disk_and_there_may_be_no_home(machine):
    machine.python("python3.11", "3.11 ok")
    disk = machine.folder / "other disk"
    disk.mkdir()
    machine.venv.symlink_to(os.path.relpath(disk / "venv", machine.repository))
    assert (
        machine.run("lab", HOME=None).stderr
        == f"Setting up {machine.repository}/../other disk/venv (once).\n"
    )
    assert (disk / "venv" / "course-stamp").exists() and machine.run("lab").stderr == ""
    assert machine.run("lab", COURSE_VENV=f"{disk}/mine/").stderr == f"Setting up {disk}/mine (once).\n"


def test_says_what_is_missing_and_the_way_out(machine):
    message = fails_with_one_line(machine.run("run"))
    assert "no Python 3.11 or 3.12 or 3.13" in message and "brew install" in message
    machine.python("python3.11", "3.11 novenv")
    assert "no venv module" in fails_with_one_line(machine.run("run"))
    machine.python("python3.11", "3.11 ok")
    (machine.repository / "requirements.lock").unlink()
    done = machine.run("run")
    assert done.returncode == 1 and "requirements.lock is missing" in done.stderr


@pytest.mark.skipif(
    (os.uname().sysname, os.uname().machine) != ("Linux", "x86_64"), reason="--gpu is for Linux on x86_64"
)
def test_gpu_is_installed_once_and_remembered(machine):
    machine.python("python3.11", "3.11 ok")
    machine.run("setup")
    assert "(gpu)" in machine.run("setup", "--gpu").stdout
    assert machine.set_ups()[-1].startswith("gpu: ")
    count = len(machine.set_ups())
    machine.run("setup", "--gpu")
    machine.run("lab")
    assert len(machine.set_ups()) == count
    machine.lock_changes("requirements-gpu.lock")
    machine.fails.touch()
    machine.run("lab")
    (machine.venv / "course-stamp").unlink()  # as the set-up does that then fails
    machine.fails.unlink()
    machine.run("lab")
    assert machine.set_ups()[-1].startswith("gpu: ") and len(machine.set_ups()) == count + 2
    assert machine.run("setup", "--cpu").returncode == 2


def test_the_script_can_be_read():
    assert len((REPOSITORY / "course").read_text().splitlines()) <= 200


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
