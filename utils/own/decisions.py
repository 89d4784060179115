"""The file of a review's decisions, lines of JSON beside the predictions.

Nothing in it is ever changed: a later line about a sheet counts instead of an earlier one, and a line that undoes
brings that one back. Some lines may be damaged, the others still count.
"""

import errno
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from utils.data.forms.names import is_no_name
from utils.files import InputError, cannot_write

ACCEPT, CORRECT, DOUBT, ASIDE, UNDO = DECISIONS = ("accept", "correct", "doubt", "aside", "undo")
_PAUSE = 300  # seconds between two decisions beyond which the curator was away


@dataclass(frozen=True)
class Decision:
    """What was decided of a sheet, by whom and when (UTC, ISO 8601); `was` is the first guess, `new` not in the map."""

    do: str
    file: str
    by: str
    at: str
    image_id: str = ""
    name: str = ""
    genus: str = ""
    family: str = ""
    new: bool = False
    qualifier: str = ""
    remarks: str = ""
    was: str = ""


_KINDS = dict(Decision.__annotations__)


def _parsed(line: bytes) -> Decision:
    """The decision of a line; ValueError says what is wrong with it."""
    try:
        found = json.loads(line.decode("utf-8-sig"))  # editors put a mark before the first line
        json.dumps(found, ensure_ascii=False).encode()  # fails at half a character, which no table can hold
    except (ValueError, RecursionError):  # the latter where brackets nest some thousand deep
        raise ValueError("not a whole line of JSON") from None
    if not isinstance(found, dict) or found.get("do") not in DECISIONS or not found.get("file"):
        raise ValueError("has no decision and file")
    wrong = [name for name, kind in _KINDS.items() if name in found and not isinstance(found[name], kind)]
    wrong += [name for name in ("by", "at") if name not in found]
    if wrong:
        raise ValueError(f"{wrong[0]} is missing or of another kind")
    if found["do"] in (ACCEPT, CORRECT) and is_no_name(found.get("name", "")):
        raise ValueError("has no name of a taxon")  # `metadata` refuses a table with such a label
    return Decision(**{name: value for name, value in found.items() if name in _KINDS})


@dataclass
class Decisions:
    """The file of decisions, which several processes may read and append to at once.

    counting: {file: its decisions that were not undone, the last one counts}; problems: a line for each one that does
    not count; times: when each decision was made, in the order of the file.
    """

    path: Path
    counting: dict[str, list[Decision]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    _read: int = 0  # bytes
    _lines: int = 0
    _last: bytes = b""  # line that was read

    def refresh(self, anew: bool = False) -> None:
        """Take in what was appended since; all of it where the file was edited meanwhile, or another put there.

        A last line without its end is left to its writer, or told at the end.

        Args:
            anew: read all of it in any case; an edit that leaves the end where it was is not seen otherwise.

        Raises:
            InputError: the file is not there any more.
        """
        try:
            opened = self.path.open("rb")
        except OSError as error:
            raise InputError(
                f"{self.path}: the decisions cannot be read any more ({error.strerror}). Put the file back; nothing is "
                "decided until then."
            ) from None
        with opened as file:
            file.seek(self._read - len(self._last))
            if anew or file.read(len(self._last)) != self._last:
                self.counting, self.problems, self.times = {}, [], []
                self._read, self._lines, self._last = file.seek(0), 0, b""
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.split(b"\n")[:-1]:
            self._take(line)
            self._last = line + b"\n"

    def open(self) -> "Decisions":
        """Read the file, and see to it that it can be written.

        Raises:
            InputError: it cannot; or it is no text at all.
        """
        with _appending(self.path):
            pass
        self.refresh()
        return self

    def append(self, decision: Decision) -> None:
        """Write a decision; it is on the disk when this returns.

        Raises:
            InputError: it could not be written, or the file is not there any more; nothing counts then.
        """
        self.refresh()
        line = json.dumps(
            {name: value for name, value in vars(decision).items() if value not in ("", False)},
            ensure_ascii=False,
        )
        with _appending(self.path) as file:
            content = f"{line}\n".encode()
            if os.write(file, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        self.refresh()

    def _take(self, line: bytes) -> None:
        self._lines += 1
        if not line.strip():
            return
        try:
            decision = _parsed(line)
            at = datetime.fromisoformat(decision.at)
        except ValueError as error:
            self.problems.append(
                f"{self.path}: line {self._lines} does not count: {error}. It stays there; decide that sheet again."
            )
            return
        of = self.counting.setdefault(decision.file, [])
        if decision.do != UNDO:
            of.append(decision)
            self.times.append(at if at.tzinfo else at.replace(tzinfo=UTC))
        elif of:
            of.pop()
        if not of:
            del self.counting[decision.file]

    def of(self, file: str) -> Decision | None:
        """The decision of a sheet that counts."""
        return self.counting[file][-1] if file in self.counting else None

    def seconds_each(self) -> float | None:
        """Mean time between two decisions of late, pauses aside; None where there are none."""
        last = self.times[-51:]
        gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(last)]
        gaps = [gap for gap in gaps if 0 <= gap <= _PAUSE]
        return sum(gaps) / len(gaps) if gaps else None


@contextmanager
def _appending(path: Path) -> Iterator[int]:
    """A file open to append whole lines to, by one process at a time; half a line that a kill left is ended first."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise InputError(
            f"{path}: decisions cannot be written there ({error.strerror}). Name another place by --decisions."
        ) from None
    try:
        _lock(file)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")
        yield file
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        os.close(file)  # and the lock with it


def _lock(file: int) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    except (OSError, ModuleNotFoundError):
        pass  # where there is none, `holding` has warned; a line is one write, at the end of the file
