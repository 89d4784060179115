"""A curator's review of predictions: sheets in an order, decisions on disk at once, and a table with Darwin Core terms.

The decisions are lines of JSON beside the predictions. Nothing in that file is ever changed: a later line about a sheet
counts instead of an earlier one, and a line that undoes brings that one back. Some lines may be damaged, the others
still count.
"""

import errno
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils.data.delimited import read_table
from utils.files import InputError, cannot_write
from utils.own.answers import STRANGE

ORDERS = {"least": "least sure first", "genus": "by genus", "folder": "by folder", "listed": "as listed"}
STATES = {
    "open": "undecided",
    "decided": "decided",
    "aside": "put aside",
    "moved": "image not there",
    "all": "all",
}
ACCEPT, CORRECT, DOUBT, ASIDE, UNDO = DECISIONS = ("accept", "correct", "doubt", "aside", "undo")
CF, AFF, GENUS_ONLY = QUALIFIERS = ("cf.", "aff.", "sp.")  # of a doubt; sp. for the genus only
GUESSES = 5
_MOST_TEXT = 2000  # characters of a name or a remark
_PAUSE = 300  # seconds between two decisions beyond which the curator was away


@dataclass(frozen=True)
class Guess:
    """One of the five likeliest species of a sheet."""

    species: str
    genus: str
    family: str
    probability: float


@dataclass(frozen=True)
class Sheet:
    """A row of the predictions; `file` is the path below the folder of images."""

    image_id: str
    file: str
    status: str
    guesses: tuple[Guess, ...]


def read_predictions(path: Path) -> list[Sheet]:
    """The sheets of a CSV that `predict --images` wrote, see `utils.own.answers.write_answers_csv`.

    Raises:
        InputError: it is another table, a file is listed twice, or a probability is no number.
    """
    parts = ("species", "genus", "family", "probability")
    first = [f"{part}_1" for part in parts]
    others = [f"{part}_{place}" for place in range(2, GUESSES + 1) for part in parts]
    way_out = "Give the CSV that ./course predict --images FOLDER --out wrote."
    table = read_table(path, ["image_id", "file_name", *first], ["status", *others], way_out=way_out)
    sheets, lines = [], {}
    answers = zip(*(table[name] for name in (*first, *others)), strict=True)
    told = zip(table["image_id"], table["file_name"], table["status"], strict=True)
    for line, (image_id, file, status), cells in zip(table.index, told, answers, strict=True):
        if file in lines:
            raise InputError(
                f"{path}: line {line} has {file!r} again, as line {lines[file]}. Keep one of them."
            )
        lines[file] = line
        guesses = []
        for place in range(GUESSES):
            species, genus, family, probability = cells[4 * place : 4 * place + 4]
            if not species:
                continue
            try:
                guesses.append(Guess(species, genus, family, float(probability)))
            except ValueError:
                raise InputError(
                    f"{path}: line {line}: probability_{place + 1} is {probability!r}, no number. {way_out}"
                ) from None
        if not guesses:
            raise InputError(f"{path}: line {line} has no species_1. {way_out}")
        sheets.append(Sheet(image_id, file, status, tuple(guesses)))
    return sheets


# ---------------------------------------------------------------- decisions


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
        found = json.loads(line.decode("utf-8"))
    except ValueError:
        raise ValueError("not a whole line of JSON") from None
    if not isinstance(found, dict) or found.get("do") not in DECISIONS or not found.get("file"):
        raise ValueError("has no decision and file")
    wrong = [name for name, kind in _KINDS.items() if name in found and not isinstance(found[name], kind)]
    wrong += [name for name in ("by", "at") if name not in found]
    if wrong:
        raise ValueError(f"{wrong[0]} is missing or of another kind")
    if found["do"] in (ACCEPT, CORRECT) and not found.get("name"):
        raise ValueError("has no name")
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

    def refresh(self) -> None:
        """Take in what was appended since; all of it where the file was edited meanwhile, or another put there.

        A last line without its end is left to its writer, or told at the end.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read - len(self._last))
            if file.read(len(self._last)) != self._last:
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
        with _Appending(self.path):
            pass
        self.refresh()
        return self

    def append(self, decision: Decision) -> None:
        """Write a decision; it is on the disk when this returns.

        Raises:
            InputError: it could not be written; nothing counts then.
        """
        line = json.dumps(
            {name: value for name, value in vars(decision).items() if value not in ("", False)},
            ensure_ascii=False,
        )
        with _Appending(self.path) as file:
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


class _Appending:
    """A file open to append whole lines to, by one process at a time; half a line that a kill left is ended first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> int:
        try:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise InputError(
                f"{self.path}: decisions cannot be written there ({error.strerror}). Name another place by --decisions."
            ) from None
        try:
            import fcntl

            fcntl.flock(self.file, fcntl.LOCK_EX)
        except (OSError, ModuleNotFoundError):
            pass  # where there is none, `holding` has warned; a line is one write, at the end of the file
        self.size = os.fstat(self.file).st_size
        if self.size and os.pread(self.file, 1, self.size - 1) != b"\n":
            os.write(self.file, b"\n")
        return self.file

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        os.close(self.file)  # and the lock with it
        if isinstance(error, OSError):
            raise cannot_write(self.path, error) from error


# ---------------------------------------------------------------- a review


class Review:
    """The sheets of a table of predictions, their images, and what was decided of them."""

    def __init__(
        self,
        sheets: list[Sheet],
        images: Path,
        decisions: Decisions,
        by: str,
        taxa: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        """Begin or go on.

        Args:
            sheets: from `read_predictions`.
            images: the folder that their files are in.
            decisions: opened.
            by: who decides.
            taxa: {species: (genus, family)} of a label map; without it, of the predictions.
        """
        self.sheets, self.images, self.decisions, self.by = sheets, images, decisions, clean(by)
        if not self.by:
            raise InputError("--by: is empty. Give the curator's name.")
        self.taxa = dict(taxa or {})
        for sheet in sheets:
            for guess in sheet.guesses:
                self.taxa.setdefault(guess.species, (guess.genus, guess.family))
        self._folded = sorted((name.casefold(), name) for name in self.taxa)
        self._of_genus = dict(self.taxa.values())
        self.moved = {sheet.file for sheet in sheets if not self.path(sheet).is_file()}

    def path(self, sheet: Sheet) -> Path:
        """Its image file.

        Raises:
            InputError: the table names one outside of the folder.
        """
        file = Path(sheet.file)
        if file.is_absolute() or ".." in file.parts:
            raise InputError(f"{sheet.file}: is not below the folder of images. Predict that folder again.")
        return self.images / file

    def view(self, order: str, state: str = "all", text: str = "", status: str = "") -> list[int]:
        """Positions of the sheets that a filter leaves, in one of ORDERS; `text` is sought in files and first names."""
        self.decisions.refresh()
        keys = {
            "least": lambda each: (
                self.sheets[each].status != STRANGE,
                self.sheets[each].guesses[0].probability,
            ),
            "genus": lambda each: (self.sheets[each].guesses[0].genus, self.sheets[each].guesses[0].species),
            "folder": lambda each: (str(Path(self.sheets[each].file).parent), self.sheets[each].file),
            "listed": lambda each: each,
        }
        text = text.casefold().strip()
        left = [
            place
            for place, sheet in enumerate(self.sheets)
            if self._is(sheet, state)
            and status in ("", sheet.status)
            and (not text or text in _sought(sheet))
        ]
        return sorted(left, key=keys[order])

    def _is(self, sheet: Sheet, state: str) -> bool:
        decision = self.decisions.of(sheet.file)
        return {
            "open": decision is None and sheet.file not in self.moved,
            "decided": decision is not None,
            "aside": decision is not None and decision.do == ASIDE,
            "moved": sheet.file in self.moved,
            "all": True,
        }[state]

    def decide(
        self, place: int, do: str, *, name: str = "", qualifier: str = "", remarks: str = ""
    ) -> Decision:
        """Write down what was decided of a sheet: accept (its first guess), correct, doubt or aside, or undo.

        Args:
            place: of the sheet.
            do: one of DECISIONS.
            name: for correct; for doubt the first guess where it is empty.
            qualifier: for doubt, one of QUALIFIERS.
            remarks: anything.

        Raises:
            InputError: the decision is none, or could not be written.
        """
        sheet = self.sheets[place]
        first, name, remarks = sheet.guesses[0], clean(name), clean(remarks)
        if do not in DECISIONS:
            raise InputError(f"{do!r}: is no decision. Choose from {', '.join(DECISIONS)}.")
        if do == UNDO and self.decisions.of(sheet.file) is None:
            raise InputError(f"{sheet.file}: there is nothing to undo.")
        if do == CORRECT and not name:
            raise InputError(f"{sheet.file}: type a name to correct it to.")
        if do == DOUBT and qualifier not in QUALIFIERS:
            raise InputError(f"{sheet.file}: choose cf., aff. or the genus only.")
        if max(len(name), len(remarks)) > _MOST_TEXT:
            raise InputError(
                f"{sheet.file}: a name or a remark has more than {_MOST_TEXT} characters; shorten it."
            )
        if do == ACCEPT or (do == DOUBT and not name):
            name = first.species
        named = {} if do in (UNDO, ASIDE) else self._named(name)
        if do == DOUBT and qualifier == GENUS_ONLY:
            named["name"] = named["genus"]
        decision = Decision(
            do,
            sheet.file,
            self.by,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
            image_id=sheet.image_id,
            qualifier=qualifier if do == DOUBT else "",
            remarks=remarks,
            was=first.species,
            **named,
        )
        self.decisions.append(decision)
        return decision

    def _named(self, name: str) -> dict[str, Any]:
        if name in self.taxa:
            genus, family = self.taxa[name]
            return {"name": name, "genus": genus, "family": family}
        genus = name.split(" ")[0]
        return {"name": name, "genus": genus, "family": self._of_genus.get(genus, ""), "new": True}

    def complete(self, text: str, most: int = 8) -> list[str]:
        """Names of the label map that begin with a text, or whose words begin with its words, as in "que rub"."""
        words = text.casefold().split()
        if not words:
            return []
        begins = [name for folded, name in self._folded if folded.startswith(" ".join(words))]
        if len(begins) < most:
            pattern = re.compile(r"\b" + r".*?\s".join(map(re.escape, words)))
            known = {*begins}
            begins += [name for folded, name in self._folded if pattern.search(folded) and name not in known]
        return begins[:most]

    def progress(self) -> dict[str, Any]:
        """Sheets that are decided and there are, missing images, and seconds that the rest will take."""
        decided = self.decisions.counting
        done = sum(sheet.file in decided for sheet in self.sheets)
        left = sum(sheet.file not in decided and sheet.file not in self.moved for sheet in self.sheets)
        each = self.decisions.seconds_each()
        return {
            "done": done,
            "total": len(self.sheets),
            "left": left,
            "moved": len(self.moved),
            "seconds": None if each is None else each * left,
        }


def _sought(sheet: Sheet) -> str:
    first = sheet.guesses[0]
    return "\n".join((sheet.file, sheet.image_id, first.species, first.family)).casefold()


def clean(text: str) -> str:
    """A text in one line: no control characters, which no cell keeps, and single spaces."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def missing_images(review: Review) -> Iterator[str]:
    """The files of the sheets whose image is not there."""
    return (sheet.file for sheet in review.sheets if sheet.file in review.moved)
