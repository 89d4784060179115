"""What every module stands on: errors that are the user's to mend, files and folders made whole, threads, places.

A reader of a file sees the old one or the new one, never a half. Places: the repository, outputs, what Kaggle attaches.
"""

import errno
import json
import math
import os
import platform
import re
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utils import InputError, InputWarning, UsageError, printable  # noqa: F401  the others import them from here

if TYPE_CHECKING:
    from utils.config import Profile

_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


def check_option(name: str, value: Any, holds: bool, allowed: str) -> None:
    """Raise UsageError unless `holds`; `allowed` says in words which values would be right."""
    if not holds:
        raise UsageError(f"{name} is {value!r}, must be {allowed}.")


HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "host"  # in names of temporary files
_LEFT_OVER = re.compile(rf"\..+\.{HOST}\.(\d+)\.tmp(\.[^.]+)?")
_in_use: dict[Path, Path] = {}  # temporary files and folders of this process, and what they are to become
_swept: set[Path] = set()  # folders that it has looked through for those of dead ones


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` with host and process in it; whatever has that name at the end is removed.

    What dead processes of this machine left in the folder goes first. An error of the system while something of that
    name is written becomes an InputError that names `path`.
    """
    folder = path.parent
    temporary = path.with_name(f".{path.stem[:60]}.{HOST}.{os.getpid()}.tmp{path.suffix}")
    _in_use[temporary] = path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in _swept:
            _swept.add(folder)
            remove_left_overs(folder)
        yield temporary
    except OSError as error:
        names = [str(name) for name in (error.filename, error.filename2) if name]  # two of a copy
        ours = any(n.startswith(str(temporary)) or str(path).startswith(n) for n in names) or not names
        if error.errno is None or not ours:
            raise
        raise cannot_write(path, error) from error
    finally:
        del _in_use[temporary]
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder, where it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # it never came to be, as where nothing can be written
            path.unlink()


def remove_left_overs(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` whose processes, of this machine, are dead."""
    for entry in os.scandir(folder):
        found = _LEFT_OVER.fullmatch(entry.name)
        if found and Path(entry.path) not in _in_use and not _is_alive(int(found[1])):
            remove(Path(entry.path))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # else it is another user's
    # in a container a later process has the number of a dead one; of this one `_in_use` knows
    return process != os.getpid()


def cannot_write(path: Path, error: Exception) -> InputError:
    """What a failed write is called: the path, the system's reason, the way out."""
    for temporary, final in reversed(_in_use.items()):
        path = final / path.relative_to(temporary) if path.is_relative_to(temporary) else path
    told = re.sub(r"\n.*| \[Op:\w+\]", "", str(error)).rpartition("; ")[2]  # TensorFlow's, behind its path
    number = getattr(error, "errno", None)  # its text is the system's: h5py has several lines in place of it
    reason = "its folder has vanished" if number == errno.ENOENT else os.strerror(number) if number else told
    room, files = "Make room or name another place", "Allow more (`ulimit -n 1024`)"
    ways_out = {"No space left on device": room, "Disk quota exceeded": room, "Too many open files": files}
    return InputError(
        f"{path}: cannot be written ({reason}). What was there before still is. "
        f"{ways_out.get(reason, 'Name another place')}; then the same call goes on."
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it over `path` when the block succeeds.

    The name keeps the suffix of `path`, since many writers choose their format by it. When the block
    raises, the temporary file is removed and `path` stays as it was.

    Raises:
        InputError: the file cannot be written.
    """
    with _temporary(Path(path)) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """A new hidden folder beside `path` for parts of it, removed at the end of the block. InputError as `replacing`."""
    with _temporary(Path(path)) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def building(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `folder` and rename it to `folder` when the block succeeds; else it is removed.

    Raises:
        InputError: it cannot be written, or vanished meanwhile; or, without `replace`, `folder` has files by then.
    """
    folder = Path(folder).absolute()
    with _temporary(folder) as temporary:
        remove(temporary)
        temporary.mkdir()
        # gone at the end where somebody removed the folder and a writer made it anew
        (mark := temporary / ".whole").touch()
        yield temporary
        mark.unlink()
        # the old one goes by one rename, not piece by piece
        old = temporary.with_name(f"{temporary.name.rpartition('.tmp')[0]}.tmp.old")
        if folder.exists():
            folder.rename(old) if replace else folder.rmdir()
        temporary.rename(folder)
        remove(old)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole; a NaN, which JSON does not know, becomes null."""
    write_text(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, is not JSON, or has text that is not Unicode; the message names it.
    """
    try:
        # writing it fails at half a character, which no file can hold
        json.dumps(value := json.loads(Path(path).read_text(encoding="utf-8")), ensure_ascii=False).encode()
        return value
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (ValueError, RecursionError) as error:  # the latter where brackets nest some thousand deep
        raise InputError(f"{path}: not valid JSON ({error}). Download or write the file again.") from None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is done."""
    waiting: list[int] = []
    # only the main thread gets them
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda each, _: waiting.append(each)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)


def cores() -> int:
    """The processor cores that this process may use: on a shared machine or in a container fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int | None = None
) -> Iterator[_Result]:
    """function(item) of every item by several threads, in the order of the items.

    Items are taken and results wait at most 4 a worker ahead of the caller. When the caller stops, so do the threads.

    Args:
        function: what takes its time outside Python's lock: reading, decoding.
        items: taken one by one, by the caller's thread.
        workers: threads; None for one a core.

    Raises:
        Exception: what `function` raised, in the place of its result; nothing comes behind it.
    """
    workers = workers or cores()
    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                with uninterrupted():  # a Ctrl-C inside of submit() can leave the pool's lock closed for ever
                    waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


REPOSITORY = Path(__file__).resolve().parent.parent
# What macOS's zip, Windows, a NAS and Python put into folders, beside hidden files (.DS_Store, ._NAME).
_OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information"}
_OF_SYSTEMS |= {"lost+found", "@eadir", "#recycle", "@recycle", "__pycache__"}


def kaggle_root() -> Path:
    """/kaggle, or the folder named by NAFLORA_KAGGLE_ROOT that is laid out like it."""
    return Path(os.environ.get("NAFLORA_KAGGLE_ROOT", "/kaggle"))


def attach(kind: str, name: str) -> str:
    """Where to click in Kaggle's notebook editor to attach `name`, a sentence."""
    return f"On Kaggle: Add Input > {kind} > {name} > +, then Run > Restart and run all."


def on_kaggle() -> bool:
    """Whether this runs in a Kaggle kernel, by the variable that Kaggle sets there."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def is_auto(folder: str | Path | None) -> bool:
    """Whether a notebook's folder parameter leaves the choice: auto, nothing, or papermill's None, also as text."""
    return folder is None or (isinstance(folder, str) and folder.strip() in ("auto", "", "None"))


def output_dir(folder: str | Path | None = "auto", profile: "Profile | None" = None) -> Path:
    """The folder that every notebook reads from and writes to; made if it is not there.

    `auto` (see `is_auto`) is /kaggle/working on Kaggle and runs/<profile> in the repository elsewhere.
    """
    path = planned_dir(folder, profile)
    path.mkdir(parents=True, exist_ok=True)
    return path


def planned_dir(folder: str | Path | None, profile: "Profile | None" = None) -> Path:
    """The folder that `output_dir` would make."""
    if not is_auto(folder):
        return Path(folder).expanduser().resolve()
    if on_kaggle():
        return kaggle_root() / "working"
    return REPOSITORY / "runs" / (profile.name if profile else "work")


def scratch_dir() -> Path:
    """Where generated data and caches go: data/ in the repository, /kaggle/tmp on Kaggle (not kept there)."""
    path = kaggle_root() / "tmp" if on_kaggle() else REPOSITORY / "data"
    path.mkdir(parents=True, exist_ok=True)
    return path


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's, not the user's: .NAME, ._NAME, __MACOSX, Thumbs.db and their kin."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS
