"""Makes the course's environment from a lock file, with uv or else with pip. `./course` calls this file by its path.

It has only the standard library, since nothing is installed yet. Whatever happens on the way, a file beside the
environment tells that it is unfinished, and the next call makes it anew.
"""

import ast
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO

NEEDS = {"cpu": 4, "gpu": 12}  # GB that must be free, for pip's way, which unpacks what it has downloaded
TAKES = {"cpu": 2.5, "gpu": 7.5}  # GB in the end
_DOWNLOADS = {"cpu": 0.7, "gpu": 3.5}  # GB that pip keeps beside it until it has unpacked them
_EVERY = 6  # seconds between two lines of progress where there is no terminal; to count what is there takes some more

# What has gone wrong, by the words of pip and of uv for it
_FULL = r"no space left|os error 28|disk quota exceeded|os error 122"
_OTHER_FILE = r"hash mismatch|do not match the hashes|none of the hashes|hashes are required"
_UNREACHABLE = (
    r"connection (broken|refused|error|reset|aborted)|connecttimeout|timed out|name resolution|"
    r"network is unreachable|getaddrinfo|proxyerror|max retries|error sending request|dns error|connect error"
)
_NOT_THERE = r"no matching distribution|no solution found|not found in the (package registry|cache)|no wheels"


class Failed(Exception):
    """The set-up cannot go on; the message is one line with the way out."""


def say(text: str) -> None:
    """Tell the user, on standard error: what a command prints for a program to read stays clean."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Place:
    """The environment's folder, and what tells of its state."""

    venv: Path

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """What it was made from: checksum of the lock, Python version, cpu or gpu. Written last."""
        return self.venv / "course-stamp"

    @property
    def unfinished(self) -> Path:
        """Beside it: has text while a set-up is under way, or when one was interrupted; locked by who works."""
        return self.venv.with_name(self.venv.name + ".unfinished")

    @property
    def work(self) -> Path:
        """Downloads and temporary files of a set-up; what an interrupted one has downloaded is used again."""
        return self.venv / ".setup"

    @property
    def log(self) -> Path:
        return self.venv / "course-setup.log"

    def made_for(self) -> list[str]:
        """The words of the stamp, none when there is none."""
        return self.stamp.read_text().split() if self.stamp.is_file() else []


@contextmanager
def alone(place: Place) -> Iterator[IO[str]]:
    """Hold the file `unfinished`, after any other call that works on this environment has ended.

    Programs that are started get it too, so that what a killed call has left running is waited for.
    """
    begin = told = time.monotonic()
    waiting = f"Another ./course is setting up {place.venv}: waiting for it"
    while True:
        file = place.unfinished.open("a+")
        while not _lock(file):
            if told == begin or time.monotonic() - told >= _EVERY:
                told = time.monotonic()
                say(f"{waiting} ({told - begin:.0f} s)." if told - begin >= 1 else f"{waiting}.")
            time.sleep(0.2)
        with suppress(FileNotFoundError):  # who held it has finished and removed it: make another
            if os.path.samestat(os.fstat(file.fileno()), place.unfinished.stat()):
                break
        file.close()
    with file:
        try:
            file.seek(0)
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                place.unfinished.unlink(missing_ok=True)


def _lock(file: IO[str]) -> bool:
    import fcntl  # not on Windows, where only the rest of this module is used

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # any but this one: a file system without locks, as good as it gets there
        return not isinstance(error, BlockingIOError)
    return True


# Of pip's: where it installs to, and what would change the lock's answer. Of uv's: all but where its cache is,
# since pip's configuration is the one that counts here.
_DROPPED = re.compile(
    r"(PYTHON(HOME|PATH|STARTUP|USERBASE)|VIRTUAL_ENV|CONDA_PREFIX|__PYVENV_LAUNCHER__|UV_(?!CACHE_DIR$).*|"
    r"FORCE_COLOR|CLICOLOR_FORCE|PIP_(TARGET|PREFIX|ROOT|PYTHON|DRY_RUN|NO_DEPS|REQUIREMENT|EDITABLE|UPGRADE|"
    r"ONLY_BINARY|NO_BINARY|PLATFORM|PYTHON_VERSION|ABI|IMPLEMENTATION|QUIET|REPORT))"
)


def tool_variables() -> dict[str, str]:
    """This process' variables without those by which pip or uv would do another thing than what is asked."""
    kept = {name: value for name, value in os.environ.items() if not _DROPPED.fullmatch(name)}
    over_files = {"PIP_USER": "0", "PIP_CONSTRAINT": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return kept | over_files | {"PYTHONSAFEPATH": "1", "NO_COLOR": "1"}


# uv's names for pip's settings; no arguments, since an index may have a password in it and everybody can see those
_UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "client-cert": "SSL_CLIENT_CERT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}


def uv_settings(pip: Sequence[str], without: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables that give uv the index, proxy and certificates that pip is configured with.

    Args:
        pip: the command of the pip that reads its configuration: files (site, user, PIP_CONFIG_FILE), variables.
        without: pip's names of settings to leave out.

    Raises:
        Failed: pip cannot read its configuration.
    """
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    listed = subprocess.run([*pip, "config", "list"], env=tool_variables(), **pipes)
    if listed.returncode:
        words = " ".join((listed.stderr or listed.stdout).split())[:300]
        raise Failed(
            f"pip cannot read its configuration ({words}). Mend that file, or unset PIP_CONFIG_FILE."
        )
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # the later ones win, as in pip
        for line in listed.stdout.splitlines():
            key, equals, value = line.partition("=")
            if equals and key.startswith(f"{section}."):
                name = key.removeprefix(f"{section}.").removeprefix("default-")  # default-timeout is timeout
                found[name] = ast.literal_eval(value) or found.get(name, "")  # empty is none, as in pip
    found = {key: value for key, value in found.items() if key not in without and value}

    # pip takes the best version of all indexes; uv would stop at the first that has the package
    arguments = ["--index-strategy", "unsafe-best-match"]
    arguments += ["--no-index"] * (found.get("no-index", "").lower() in ("1", "true", "yes", "on"))

    variables = {name: " ".join(found[key].split()) for key, name in _UV_VARIABLES.items() if key in found}
    if "find-links" in found:  # the only one that uv separates by commas
        variables["UV_FIND_LINKS"] = ",".join(found["find-links"].split())
    bundles = (found.get("cert"), os.environ.get("REQUESTS_CA_BUNDLE"), os.environ.get("CURL_CA_BUNDLE"))
    if certificates := next(filter(None, bundles), None):
        variables["SSL_CERT_DIR" if Path(certificates).is_dir() else "SSL_CERT_FILE"] = certificates
    if "proxy" in found:
        variables |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), found["proxy"])
    return arguments, variables


@dataclass
class Work:
    """What the steps of one set-up share: the place, the file that they hold, how much is to be written."""

    place: Place
    held: IO[str]
    gigabytes: float = 0.0
    usual: str = ""  # time of the step that writes them
    anew: bool = False  # into an empty environment, so that what is there tells how far it is
    told: float = field(default_factory=time.monotonic)  # when the user was told something last

    def run(self, command: Sequence[str | Path], what: str, **variables: str) -> str:
        """Run a program, its words to the log, and show how far it is. Its words when it fails, else nothing."""
        temporary = self.place.work / "tmp"  # on the disk that was looked at; /tmp may be a small one
        temporary.mkdir(parents=True, exist_ok=True)
        with self.place.log.open("a+b") as log:
            start = log.seek(0, os.SEEK_END)
            try:
                process = subprocess.Popen(
                    list(map(str, command)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=tool_variables() | {"TMPDIR": str(temporary)} | variables,
                    pass_fds=(self.held.fileno(),),
                    process_group=0,  # so that an interrupt ends its own programs too
                )
            except OSError as error:  # uv, where its program cannot be run
                return f"{command[0]}: {error.strerror}"
            try:
                self._watch(process, what)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
            log.seek(start)
            words = log.read().decode(errors="replace")
        return "" if process.returncode == 0 else words.strip() or f"exit code {process.returncode}"

    def _watch(self, process: subprocess.Popen, what: str) -> None:
        begin, terminal = time.monotonic(), sys.stderr.isatty()
        next_line = begin + 1 if terminal else self.told + _EVERY
        while process.poll() is None:
            time.sleep(0.05)
            if time.monotonic() < next_line:
                continue
            self.told = time.monotonic()
            line = self._progress(what, self.told - begin)
            before, after = ("\r\033[K", "") if terminal else ("", "\n")
            print(f"{before}{line}", end=after, file=sys.stderr, flush=True)
            next_line = time.monotonic() + 3 if terminal else self.told + _EVERY
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _progress(self, what: str, seconds: float) -> str:
        line = f"  {what}, {seconds:.0f} s"
        if not (self.gigabytes and self.anew):
            return line
        written = self.written() / 1e9
        share = min(written / self.gigabytes, 0.99)
        more = seconds / share * (1 - share) if share > 0.05 else None
        left = f"usually {self.usual}" if more is None else f"about {more:.0f} s more"
        return f"{line}: {min(written, self.gigabytes):.1f} of about {self.gigabytes:.1f} GB, {left}"

    def written(self) -> int:
        """Bytes in the environment's folder; a download that is installed by a second name counts once."""
        total = 0
        for path, _, names in os.walk(self.place.venv):
            download = Path(path).is_relative_to(self.place.work)
            for name in names:
                with suppress(FileNotFoundError):  # a temporary file, gone meanwhile
                    status = (Path(path) / name).lstat()
                    total += 0 if download and status.st_nlink > 1 else status.st_size
        return total


def _reason(words: str) -> str:
    """The line of pip's or uv's words that says most."""
    lines = [" ".join(line.split()).lstrip("×╰─▶├ ") for line in words.splitlines() if line.strip()]
    wrong_file = r"hash mismatch for|^[\w.-]+==[\w.+!-]+ from (http|file)"
    kept_back = r"not a trusted or secure host|\b40[137] (error|client error|unauthorized|forbidden|proxy)"
    patterns = (_FULL, wrong_file, _OTHER_FILE, _UNREACHABLE, kept_back, _NOT_THERE, r"^error\b")
    said = (line for pattern in patterns for line in lines if _means(pattern, line))
    return next(said, lines[-1] if lines else "it said nothing")[:200].rstrip(".")


def _means(pattern: str, words: str) -> bool:
    return re.search(pattern, words, re.IGNORECASE) is not None


def set_up(root: Path, venv: Path, options: str, stamp: str) -> None:
    """Make or update the environment `venv` from the lock of `options`, and write `stamp` when it is whole.

    Raises:
        Failed: it is not possible; the message says what to do. OSError: the place cannot be read or written.
    """
    place = Place(venv)
    venv.parent.mkdir(parents=True, exist_ok=True)
    with alone(place) as held:
        if " ".join(place.made_for()) == stamp and os.access(place.python, os.X_OK):
            say("Another ./course has set it up meanwhile.")
            return
        why = _why_anew(place, interrupted=held.read(), version=stamp.split()[1])
        work = Work(place, held)
        free = (shutil.disk_usage(venv.parent).free + work.written()) / 1e9  # what is there is replaced
        if free < NEEDS[options]:
            needs = f"{venv.parent} has {free:.1f} GB free, the set-up needs {NEEDS[options]} GB"
            way = "Free some, or set COURSE_VENV to a folder on another disk."
            raise Failed(f"no disk space: {needs}. {way}")
        if why is None:
            say(f"{venv} was made for another lock file: bringing it up to date.")
        elif why:
            say(f"{venv} {why}: making it anew.")
        takes = f"about {TAKES[options]:g} GB in {venv} ({free:.0f} GB are free)"
        say(f"Python {platform.python_version()}, {takes}.")
        try:
            held.truncate(0)
            held.write(options)
            held.flush()
            place.work.mkdir(parents=True, exist_ok=True)  # tells that the folder is ours
            place.stamp.unlink(missing_ok=True)
            place.log.unlink(missing_ok=True)
            if why is not None:
                make_empty(work)
            lock = "requirements-gpu.lock" if options == "gpu" else "requirements.lock"
            install(work, root / lock, options)
            work.gigabytes = 0.0
            work.run(["rm", "-rf", place.work], "removing what was downloaded")
            place.stamp.write_text(stamp + "\n")
        except OSError as error:
            raise _explained(work, str(error), options) from None
        held.truncate(0)


def _why_anew(place: Place, interrupted: str, version: str) -> str | None:
    """Why the environment is made anew: empty when there is none yet, None when it can be brought up to date.

    Raises:
        Failed: the folder is not an environment that ./course made.
    """
    if not place.venv.exists() or (place.venv.is_dir() and not any(place.venv.iterdir())):
        return ""
    made_for, by_earlier = place.made_for(), interrupted.endswith("\n")  # that one left nothing else
    if not (made_for or by_earlier or place.log.is_file() or place.work.is_dir()):
        way = "Remove or rename it, or set COURSE_VENV to another folder."
        raise Failed(f"{place.venv} is not an environment that ./course made. {way}")
    if interrupted or not made_for:
        return "was not finished"
    if made_for[1:2] != [version]:
        return f"is of Python {' '.join(made_for[1:2])}"
    return None if os.access(place.python, os.X_OK) else "has lost its Python"


def make_empty(work: Work) -> None:
    """Make the environment without packages, keeping the log and what was downloaded. Failed where it cannot."""
    place, work.anew = work.place, True
    old = [path for path in place.venv.iterdir() if path not in (place.work, place.log)]
    if words := work.run(["rm", "-rf", "--", *old], "removing what was there"):
        raise Failed(f"cannot empty {place.venv}: {_reason(words)}.")
    words = work.run([sys.executable, "-m", "venv", "--without-pip", place.venv], "making the environment")
    if words:
        raise Failed(f"{sys.executable} could not make {place.venv}: {_reason(words)}.")


def _pip(work: Work) -> list[str]:
    """The command of a pip that installs into the environment: this Python's own, which need not be unpacked first."""
    own: tuple[int, ...] = ()
    with suppress(metadata.PackageNotFoundError, ValueError):
        own = tuple(int(part) for part in metadata.version("pip").split(".")[:2])
    if own >= (22, 3):  # the first with --python
        return [sys.executable, "-m", "pip", "--python", str(work.place.python)]
    if words := work.run([work.place.python, "-m", "ensurepip"], "unpacking pip"):
        raise Failed(f"{sys.executable} could not unpack its pip: {_reason(words)}.")
    return [str(work.place.python), "-m", "pip"]


def install(work: Work, lock: Path, options: str) -> None:
    """Install what the lock lists, by uv; by pip where uv is not to be had or fails.

    Raises:
        Failed: pip failed too, or what stopped uv would stop pip as well.
    """
    uv_lines, lines = split(lock.read_text(encoding="utf-8"))
    uv_file, file = work.place.work / "uv.txt", work.place.work / "packages.txt"
    uv_file.write_text(uv_lines, encoding="utf-8")
    file.write_text(lines, encoding="utf-8")

    pip = _pip(work)
    arguments, variables = uv_settings(pip)
    from_lock = ["--require-hashes", "--only-binary", ":all:", "-r"]
    # Without a second try pip does not say that it could not connect.
    tries = ["--retries", "1"] if variables.get("UV_HTTP_RETRIES") == "0" else []
    by_pip = [*pip, "install", "--no-input", "--progress-bar", "off", "--no-deps", *tries, *from_lock]
    get_uv = [*by_pip, uv_file, "--retries", "1"]
    words = work.run(get_uv, "getting uv") if uv_lines else "the lock has none"
    if not words:
        variables["UV_CACHE_DIR"] = os.environ.get("UV_CACHE_DIR") or str(work.place.work / "cache")
        # uv leaves compiling to the first import; without this it would be done at every one
        arguments += ["--compile-bytecode"] * ("PYTHONDONTWRITEBYTECODE" in os.environ)
        uv = [work.place.venv / "bin" / "uv", "pip", "install", "--no-config", "--python", work.place.python]
        work.gigabytes, work.usual = TAKES[options], "half a minute"
        if not (words := work.run([*uv, *arguments, *from_lock, file], "installing with uv", **variables)):
            return
        if _means(_FULL, words):
            raise _explained(work, words, options)
        make_empty(work)
        pip = _pip(work)
    why = "the package index could not be reached" if _means(_UNREACHABLE, words) else _reason(words)
    say(f"uv does not work here ({why}): installing with pip, which takes minutes.")
    work.run(["rm", "-rf", work.place.work / "cache"], "removing what uv has downloaded")
    work.gigabytes, work.usual = TAKES[options] + _DOWNLOADS[options], "4 minutes"
    if words := work.run([*by_pip, file], "installing with pip"):
        raise _explained(work, words, options)


def split(lock: str) -> tuple[str, str]:
    """The lines of uv in a lock, and all others: pip installs the others where there is no uv."""
    blocks = re.split(r"(?m)^(?=\S)", lock)  # a package and its hashes; only its first line is not indented
    of_uv = [block for block in blocks if block.startswith("uv==")]
    return "".join(of_uv), "".join(block for block in blocks if block not in of_uv)


def _explained(work: Work, words: str, options: str) -> Failed:
    """What went wrong, in one line, and the way out. A disk that is full is freed of what did not fit."""
    reason, log = _reason(words), work.place.log
    if _means(_FULL, words):
        shutil.rmtree(work.place.venv, ignore_errors=True)
        way = f"Free {NEEDS[options]} GB, then call ./course again."
        return Failed(f"no space left on the disk of {work.place.venv}. {way}")
    meanings = {
        _OTHER_FILE: f"the package index serves another file than the lock names ({reason}). Ask who keeps that index, "
        "or use another (PIP_INDEX_URL).",
        _UNREACHABLE: "the package index could not be reached. Connect to the internet (or set PIP_INDEX_URL or "
        "HTTPS_PROXY), then call ./course again.",
        _NOT_THERE: f"the package index lacks a file that this machine needs, or keeps it back ({reason}).",
    }
    meant = (meaning for pattern, meaning in meanings.items() if _means(pattern, words))
    return Failed(f"{next(meant, f'the installation failed: {reason}.')} Details: {log}")


def main(arguments: Sequence[str]) -> int:
    """What `./course` calls with its folder, that of the environment, the options and the stamp: the exit code."""
    root, venv, options, stamp = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)  # KeyboardInterrupt
    try:
        set_up(Path(root), Path(venv), options, stamp)
    except Failed as error:
        say(f"course: {error}")
        return 1
    except OSError as error:
        way = "Copy the course to a folder of yours, or set COURSE_VENV to another folder."
        say(f"course: cannot set up {venv} ({error.filename}: {error.strerror}). {way}")
        return 1
    except KeyboardInterrupt:
        say("course: interrupted. The same command sets up anew, with what is already downloaded.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
