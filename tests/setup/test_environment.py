"""The set-up itself: real Pythons, pip and uv, on an index of tiny packages in a folder."""

import functools
import hashlib
import http.server
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import disks
import pytest

from utils.files import REPOSITORY
from utils.setup import environment

UV = Path(sys.executable).with_name("uv")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="./course is for Linux and macOS")
needs_uv = pytest.mark.skipif(not UV.is_file(), reason="pip made this environment, there is no uv in it")
SCRIPT = """import importlib.metadata as m, sys
print(*sys.argv[1:], *sorted(f"{d.name}={d.version}" for d in m.distributions() if d.name.startswith("tiny")))
"""


class Index:
    """A package index in a folder, as pip and uv read it over HTTP or file://."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def add(self, name: str, version: str, files: dict[str, bytes], *, megabytes: int = 0) -> str:
        """Put a wheel there. Its lines for a lock."""
        info = f"{name}-{version}.dist-info"
        files = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        if megabytes:
            files[f"{name}.bin"] = os.urandom(megabytes << 20)
        record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
        wheel = self.folder / name.replace("_", "-") / f"{name}-{version}-py3-none-any.whl"
        wheel.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in {**files, f"{info}/RECORD": record.encode()}.items():
                entry = zipfile.ZipInfo(path)
                entry.external_attr = (0o100755 if ".data/scripts/" in path else 0o100644) << 16
                archive.writestr(entry, content)
        with (wheel.parent / "index.html").open("a") as page:
            page.write(f'<a href="{wheel.name}">{wheel.name}</a>\n')
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        return f"{name}=={version} \\\n    --hash=sha256:{digest}\n"


class Clone:
    """The parts of a clone that set up, with a lock of tiny packages."""

    def __init__(self, folder: Path, index: Index | str) -> None:
        self.folder, self.url = folder, index if isinstance(index, str) else index.url
        (folder / "utils" / "setup").mkdir(parents=True)
        shutil.copy(REPOSITORY / "course", folder)
        shutil.copy(REPOSITORY / "utils" / "setup" / "environment.py", folder / "utils" / "setup")
        (folder / "utils" / "__init__.py").touch()
        (folder / "utils" / "__main__.py").write_text(SCRIPT)

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def unfinished(self) -> Path:
        return self.folder / ".venv.unfinished"

    def lock(self, *lines: str) -> None:
        (self.folder / "requirements.lock").write_text("# made for a test\n" + "".join(lines))

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_", "COURSE_"))
        }
        chosen = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": self.url, "PYTHON": sys._base_executable}
        return subprocess.Popen(
            [self.folder / "course", *(arguments or ["model"])],
            env=kept | {"HOME": str(self.folder)} | chosen | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def problem(self, **variables: str) -> str:
        """The one line of a set-up that fails."""
        done = self.run(**variables)
        assert done.returncode == 1 and done.stdout == "", done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("course: ")]
        assert "Traceback" not in done.stderr
        return line

    def log(self) -> str:
        return (self.venv / "course-setup.log").read_text()


@pytest.fixture(scope="module")
def uv_wheel(tmp_path_factory) -> tuple[Path, str]:
    """An index with uv alone, this environment's own, and its lines in a lock."""
    index = Index(tmp_path_factory.mktemp("uv") / "index")
    lines = index.add("uv", "1.0", {"uv-1.0.data/scripts/uv": UV.read_bytes()})
    return index.folder / "uv", lines


@pytest.fixture
def index(tmp_path) -> Index:
    return Index(tmp_path / "index")


@pytest.fixture
def clone(tmp_path, index) -> Clone:
    return Clone(tmp_path / "my clone", index)


@pytest.fixture
def with_uv(index, uv_wheel) -> str:
    (index.folder / "uv").symlink_to(uv_wheel[0])
    return uv_wheel[1]


def tiny(index: Index, version: str = "1.0", name: str = "tiny_moss", **options: int) -> str:
    return index.add(name, version, {f"{name}.py": b"x = 1\n"}, **options)


@contextmanager
def served(folder: Path, handler: type = http.server.SimpleHTTPRequestHandler) -> Iterator[str]:
    """The folder over HTTP on this machine."""

    class Quiet(handler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


# ---------------------------------------------------------------- both ways


@needs_uv
def test_uv_installs_the_lock_and_later_brings_it_up_to_date(clone, index, with_uv):
    clone.lock(with_uv, tiny(index), tiny(index, name="tiny_fern"))
    begin = time.monotonic()
    process = clone.start("model", "a b")
    first = process.stderr.readline()
    assert time.monotonic() - begin < 1 and first == f"Setting up {clone.venv} (once).\n"
    out, err = process.communicate(timeout=100)
    assert out.split() == ["model", "a", "b", "tiny_fern=1.0", "tiny_moss=1.0"], err
    assert re.fullmatch(r"Python 3\.1\d\.\d+, about 2\.5 GB in .* \(\d+ GB are free\)\.\n(  .*\n)*", err)
    assert "Installed 2 packages" in clone.log(), "uv's words"
    assert not clone.unfinished.exists() and not (clone.venv / ".setup").exists()
    again = clone.run()
    assert (again.stdout, again.stderr) == ("model tiny_fern=1.0 tiny_moss=1.0\n", "")

    own = tiny(index, name="tiny_own").partition("==")[0]
    pip = [sys.executable, "-m", "pip", "--python", clone.venv / "bin" / "python", "install", own]
    subprocess.run([*pip, "--quiet", "--index-url", index.url], check=True)
    clone.lock(with_uv, tiny(index, "2.0"), tiny(index, name="tiny_fern"))
    update = clone.run()
    assert update.stdout == "model tiny_fern=1.0 tiny_moss=2.0 tiny_own=1.0\n"
    assert f"{clone.venv} was made for another lock file: bringing it up to date." in update.stderr


def test_where_the_index_has_no_uv_pip_installs_the_same_and_says_so(clone, index):
    clone.lock("uv==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n", tiny(index))
    (clone.folder / "constraints.txt").write_text("tiny_moss==0.5\n")  # a site's; the lock is what counts
    config = clone.folder / "pip.conf"
    config.write_text(f"[global]\nconstraint = {clone.folder}/constraints.txt\n")
    done = clone.run(PIP_CONFIG_FILE=str(config), PIP_PLATFORM="any", FORCE_COLOR="1")
    assert done.stdout == "model tiny_moss=1.0\n", done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("uv ")]
    assert line.startswith("uv does not work here (ERROR: No matching distribution found for uv==1.0")
    assert line.endswith("): installing with pip, which takes minutes.")


def test_an_environment_of_the_user_is_left_as_it_is(clone, index):
    clone.lock(tiny(index))
    (clone.venv / "bin").mkdir(parents=True)
    (clone.venv / "bin" / "python").symlink_to(sys.executable)
    assert f"{clone.venv} is not an environment that ./course made" in clone.problem()
    assert [path.name for path in clone.venv.rglob("*")] == ["bin", "python"]
    assert not clone.unfinished.exists()


def test_what_the_user_put_there_after_a_set_up_that_failed_is_left_as_it_is(tmp_path):
    venv = tmp_path / "venv"
    (tmp_path / "venv.unfinished").write_text("cpu")
    for make in (
        lambda: venv.write_text("notes"),
        lambda: venv.unlink() or (venv / "bin").mkdir(parents=True),
    ):
        make()
        with pytest.raises(
            environment.Failed, match=r"venv is not an environment that ./course made. Remove"
        ):
            environment.set_up(tmp_path / "no clone", venv, "cpu", "1-1 3.11 cpu")
    assert [path.name for path in venv.rglob("*")] == ["bin"]


def test_a_place_that_cannot_be_written_is_one_line(clone):
    clone.lock()
    (clone.folder / "notes").write_text("x")
    line = clone.problem(COURSE_VENV=str(clone.folder / "notes" / "venv"))
    assert (
        f"cannot set up {clone.folder}/notes/venv ({clone.folder}/notes: " in line and "COURSE_VENV" in line
    )


def test_the_lines_of_several_short_steps_are_as_close_as_those_of_a_long_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment, "_EVERY", 0.5)
    with (tmp_path / "held").open("w") as held:
        work = environment.Work(environment.Place(tmp_path / "venv"), held, gigabytes=2.5, usual="an hour")
        for number in (1, 2):
            assert work.run(["sleep", "0.4"], f"step {number}") == ""
        err = capsys.readouterr().err
        assert "  step 2, 0 s\n" in err and "GB" not in err, "what was there before tells nothing"
        work.anew = True
        assert work.run(["sleep", "0.8"], "step 3") == ""
    assert ": 0.0 of about 2.5 GB, usually an hour\n" in capsys.readouterr().err


def test_of_all_words_those_are_told_that_say_why():
    words = (
        "WARNING: The repository located at a.example is not a trusted or secure host and is being ignored.\n"
    )
    assert environment._reason(f"{words}ERROR: No matching distribution found for uv\n").startswith(
        "WARNING: The rep"
    )
    assert environment._reason("some\nERROR: No matching distribution found for uv.\nother") == (
        "ERROR: No matching distribution found for uv"
    )


def test_too_little_disk_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(environment.NEEDS, "cpu", 10**9)
    with pytest.raises(environment.Failed, match=r"has [\d.]+ GB free, the set-up needs 1000000000 GB"):
        environment.set_up(tmp_path / "no clone", tmp_path / "venv", "cpu", "1-1 3.11 cpu")
    assert list(tmp_path.iterdir()) == []


def test_pip_s_configuration_becomes_uv_s(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    pip = [sys.executable, "-m", "pip"]
    config = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    best = ["--index-strategy", "unsafe-best-match"]
    assert environment.uv_settings(pip) == (best, {})
    config.write_text(
        "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n    https://b.example/simple\n"
        "    https://user:secret@c.example/simple\ncert = /etc/ca.pem\nproxy = http://proxy.example:3128\ntimeout = 7\n"
        "trusted-host = a.example\n[install]\nfind-links = /wheels\nno-index = false\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_INDEX_URL", "https://z.example/simple")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "60")
    monkeypatch.setenv("PIP_CERT", "")  # none, to pip
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    arguments, variables = environment.uv_settings(pip, without=("trusted-host",))
    assert arguments == best, "what may have a password in it is no argument, which everybody can see"
    indexes = {
        "UV_DEFAULT_INDEX": "https://z.example/simple",  # a variable comes before a file, as in pip
        "UV_INDEX": "https://b.example/simple https://user:secret@c.example/simple",
        "UV_FIND_LINKS": "/wheels",
    }
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://proxy.example:3128")
    assert variables == {"SSL_CERT_FILE": "/etc/ca.pem", "UV_HTTP_TIMEOUT": "60", **indexes, **proxies}
    assert "PIP_TARGET" not in environment.tool_variables()
    config.write_text("no = section\n")
    with pytest.raises(environment.Failed, match=f"cannot read its configuration .*{re.escape(str(config))}"):
        environment.uv_settings(pip)


# ---------------------------------------------------------------- what can go wrong


@pytest.mark.long
@pytest.mark.parametrize(
    "program", [b"\x7fELF of another machine", b"#!/bin/sh\necho 'no luck' >&2\nexit 2\n"]
)
def test_where_uv_does_not_run_pip_installs(clone, index, program):
    clone.lock(index.add("uv", "1.0", {"uv-1.0.data/scripts/uv": program}), tiny(index))
    done = clone.run()
    assert done.stdout == "model tiny_moss=1.0\n" and "uv does not work here (" in done.stderr
    assert "Exec format error" in done.stderr or "no luck" in done.stderr


@needs_uv
@pytest.mark.long
def test_extra_indexes_and_folders_are_asked_in_both_ways(clone, index, with_uv, tmp_path):
    extra, folder = Index(tmp_path / "extra"), Index(tmp_path / "folder")
    lines = [tiny(index), tiny(extra, "2.0", "tiny_fern"), tiny(folder, "3.0", "tiny_alga")]
    tiny(index, "1.0", "tiny_fern")  # an older one in the first index
    config = tmp_path / "pip.conf"
    config.write_text(
        f"[global]\nindex-url = {index.url}\nextra-index-url = {extra.url}\n"
        f"[install]\nfind-links = {folder.folder / 'tiny-alga'}\n"
    )
    for first in ([with_uv], []):
        clone.lock(*first, *lines)
        process = clone.run(PIP_CONFIG_FILE=str(config), PIP_INDEX_URL="")
        assert process.stdout == "model tiny_alga=3.0 tiny_fern=2.0 tiny_moss=1.0\n", process.stderr
        assert ("installing with pip" in process.stderr) is not bool(first)
        shutil.rmtree(clone.venv)


@needs_uv
@pytest.mark.long
def test_what_is_wrong_with_the_index_is_one_line(clone, index, with_uv, tmp_path):
    clone.lock(with_uv, tiny(index))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "the package index lacks a file that this machine needs" in clone.problem(
        PIP_INDEX_URL=empty.as_uri()
    )
    with served(empty) as url:
        assert "lacks a file" in clone.problem(PIP_INDEX_URL=url)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    for retries in ("1", "0"):
        line = clone.problem(PIP_INDEX_URL=f"http://127.0.0.1:{port}", PIP_RETRIES=retries)
        assert "the package index could not be reached" in line
    clone.lock(with_uv, re.sub("sha256:.{8}", "sha256:01234567", tiny(index)))
    for lines in (with_uv, ""):
        clone.lock(lines, re.sub("sha256:.{8}", "sha256:01234567", tiny(index)))
        line = clone.problem()
        assert "the package index serves another file than the lock names" in line and "tiny" in line, line
    clone.lock(with_uv, tiny(index))
    assert clone.run().stdout == "model tiny_moss=1.0\n", "after all of these"


@needs_uv
@pytest.mark.long
@pytest.mark.parametrize("who", ["all", "course"])
@pytest.mark.parametrize(
    "moment", ["course-setup.log", ".setup/uv.txt", "bin/uv", "uv's words", "tiny_moss.bin"]
)
def test_a_set_up_killed_at_any_moment_ends_well_at_the_next_call(clone, index, with_uv, moment, who):
    clone.lock(with_uv, tiny(index, megabytes=60), tiny(index, name="tiny_fern"))

    def has_come() -> bool:
        if moment == "uv's words":
            return (clone.venv / "course-setup.log").exists() and "Resolved 2" in clone.log()
        if moment.startswith("tiny"):
            return any(clone.venv.glob(f"**/{moment}"))
        return (clone.venv / moment).exists()

    with served(index.folder) as url:
        process = clone.start(PIP_INDEX_URL=url)
        while not has_come():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        )
        if who == "all":
            os.killpg(process.pid, signal.SIGKILL)
        for child in children.stdout.split():  # utils/setup/environment.py; pip or uv goes on without it
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        process.communicate()
        assert not (clone.venv / "course-stamp").exists()
        done = clone.run(PIP_INDEX_URL=url)
    assert done.stdout == "model tiny_fern=1.0 tiny_moss=1.0\n", done.stderr
    assert f"{clone.venv} was not finished: making it anew." in done.stderr
    assert not clone.unfinished.exists()


@needs_uv
@pytest.mark.long
def test_an_interrupt_ends_the_set_up_and_what_it_has_started(clone, index, with_uv):
    clone.lock(with_uv, tiny(index))

    class Slow(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(0.5 if "tiny" not in self.path else 60)

    with served(index.folder, Slow) as url:
        process = clone.start(PIP_INDEX_URL=url)
        while not clone.unfinished.exists() or not (clone.venv / "course-setup.log").exists():
            time.sleep(0.01)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130 or process.returncode == -signal.SIGINT
    assert "course: interrupted. The same command sets up anew" in err
    assert clone.run().stdout == "model tiny_moss=1.0\n"


@needs_uv
@pytest.mark.long
def test_of_two_calls_one_sets_up_and_the_other_waits(clone, index, with_uv):
    clone.lock(with_uv, tiny(index))
    both = [clone.start("model", str(number)) for number in (1, 2)]
    results = [process.communicate(timeout=100) for process in both]
    assert [out for out, _ in results] == ["model 1 tiny_moss=1.0\n", "model 2 tiny_moss=1.0\n"]
    errors = sorted((err for _, err in results), key=lambda err: "waiting" in err)
    assert "waiting" not in errors[0] and "GB" in errors[0]
    assert "Another ./course is setting up" in errors[1] and "has set it up meanwhile" in errors[1]
    assert clone.log().count("Installed 1 package") == 1


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "small disk", 120 * 1024):
        yield tmp_path / "small disk"


@needs_uv
@pytest.mark.long
def test_a_full_disk_is_one_line_and_leaves_it_free(clone, index, with_uv, small_disk):
    clone.lock(with_uv, tiny(index, megabytes=150))
    venv = str(small_disk / "venv")
    line = clone.problem(COURSE_VENV=venv)
    assert line.endswith(
        "has 0.1 GB free, the set-up needs 4 GB. Free some, or set COURSE_VENV to a folder on another disk."
    )
    assert list(small_disk.iterdir()) == []
    script = clone.folder / "utils" / "setup" / "environment.py"
    script.write_text(script.read_text().replace('NEEDS = {"cpu": 4', 'NEEDS = {"cpu": 0'))
    for lines in (with_uv, ""):
        clone.lock(lines, tiny(index, megabytes=150))
        assert f"no space left on the disk of {venv}" in clone.problem(COURSE_VENV=venv)
        assert shutil.disk_usage(small_disk).used < 1 << 20
    clone.lock(tiny(index))
    assert clone.run(COURSE_VENV=venv).stdout == "model tiny_moss=1.0\n"


@needs_uv
@pytest.mark.long
def test_an_environment_of_the_earlier_script_is_brought_up_to_date(clone, index, with_uv):
    """That script wrote the checksum of requirements.txt, and a file beside it while it worked."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run([sys.executable, "-m", "venv", clone.venv], check=True)
    (clone.venv / "course-stamp").write_text(f"1234567-2279 {version} cpu\n")
    clone.lock(with_uv, tiny(index))
    done = clone.run()
    assert done.stdout == "model tiny_moss=1.0\n" and "bringing it up to date" in done.stderr
    (clone.venv / "course-stamp").write_text("1234567-2279 3.9 cpu\n")
    done = clone.run()
    assert done.stdout == "model tiny_moss=1.0\n" and "is of Python 3.9: making it anew" in done.stderr
    (clone.venv / "course-stamp").unlink()
    clone.unfinished.write_text("cpu\n")
    done = clone.run()
    assert done.stdout == "model tiny_moss=1.0\n" and "was not finished: making it anew" in done.stderr
