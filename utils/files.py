"""What every module stands on: errors that are the user's to mend, files and folders made whole, threads, places.

InputError and UsageError are shown as one message, never as a traceback. A reader of a file sees the old one or the new
one, never a half. The places are the repository, outputs, scratch files, and what is attached on Kaggle.
"""

import glob
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    from utils.config import Profile

_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


class InputError(ValueError):
    """A file or record is not as it must be; the message names it and the way out (exit code 1)."""


class UsageError(InputError):
    """An option, profile or parameter is not known or not possible (exit code 2)."""


class InputWarning(UserWarning):
    """Something of the user's was left out, which need not be wrong; shown as one line beside the result."""


def check_option(name: str, value: Any, holds: bool, allowed: str) -> None:
    """Raise UsageError unless `holds`; `allowed` says in words which values would be right."""
    if not holds:
        raise UsageError(f"{name} is {value!r}, must be {allowed}.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it over `path` when the block succeeds.

    The name keeps the suffix of `path`, since many writers choose their format by it. When the block
    raises, the temporary file is removed and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` and rename it to `folder` when the block succeeds.

    When the block raises, the new folder is removed. What processes that were killed left of theirs is removed too.

    Raises:
        OSError: `folder` is there by then and not empty; who means to replace one removes it last in the block.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        if time.time() - left_over.stat().st_mtime > 3600:  # not of a process at work
            shutil.rmtree(left_over, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(path: Path) -> None:
    """See before long work that a file can be written, making nothing.

    Raises:
        InputError: the folder that is to hold it is a file, or must not be written to.
    """
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{path}: cannot be written, {folder} is a file. Name another place.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: cannot be written, no permission in {folder}. Name another place.")


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV, without its index, whole."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole; a NaN, which JSON does not know, becomes null."""
    text = json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON; the message names it.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}). Download or write the file again.") from None


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
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


REPOSITORY = Path(__file__).resolve().parent.parent
_IMAGE_FOLDERS = {"train_images", "test_images", "images"}  # up to a million files each: not walked
_MAX_DEPTH = 4  # /kaggle/input/datasets/<owner>/<slug>/<folder>
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


def mounted(name: str) -> list[Path]:
    """Every file called `name` in what is attached to a Kaggle kernel, in the order of their folders."""
    root = kaggle_root() / "input"
    return [folder / name for folder, names in walk(root).items() if name in names] if root.is_dir() else []


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's, not the user's: .NAME, ._NAME, __MACOSX, Thumbs.db and their kin."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def walk(root: Path) -> dict[Path, list[str]]:
    """Files by folder, down to _MAX_DEPTH, leaving out what is hidden, image folders and generated floras.

    Links are followed; a folder that is reached a second time is passed over.
    """
    found: dict[Path, list[str]] = {}
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here, real = Path(folder), os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        depth = len(here.relative_to(root).parts)
        skip = lambda name: name in _IMAGE_FOLDERS or name.startswith("flora-") or is_hidden(name)  # noqa: E731
        folders[:] = sorted(name for name in folders if depth < _MAX_DEPTH and not skip(name))
        found[here] = sorted(name for name in files if not is_hidden(name))
    return found
