"""A curator's review of predictions: sheets in an order, and what may be decided of one."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils.data.delimited import read_table
from utils.data.forms.folders import on_disk
from utils.data.forms.names import doubt_of, genus_of, is_no_name, match, tidy
from utils.files import InputError
from utils.own.answers import STRANGE
from utils.own.decisions import ACCEPT, ASIDE, DECISIONS, DOUBT, UNDO, Decision, Decisions

ORDERS = {"least": "least sure first", "genus": "by genus", "folder": "by folder", "listed": "as listed"}
STATES = {
    "open": "undecided",
    "decided": "decided",
    "aside": "put aside",
    "moved": "image not there",
    "all": "all",
}
CF, AFF, GENUS_ONLY = QUALIFIERS = ("cf.", "aff.", "sp.")  # of a doubt; sp. for the genus only
GUESSES = 5
_MOST_TEXT = 2000  # characters of a name or a remark


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
        InputError: it is another table, a file is listed twice, not named or outside of the folder, or a probability
            is none.
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
        if not file:
            raise InputError(f"{path}: line {line} has no file_name. {way_out}")
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise InputError(f"{path}: line {line}: {file!r} is not below the folder of images. {way_out}")
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
            share = _share(probability)
            if not 0 <= share <= 1:
                what = f"probability_{place + 1} is {probability!r}, no number from 0 to 1"
                raise InputError(f"{path}: line {line}: {what}. {way_out}")
            guesses.append(Guess(species, genus or genus_of(species), family, share))
        if not guesses:
            raise InputError(f"{path}: line {line} has no species_1. {way_out}")
        sheets.append(Sheet(image_id, file, status, tuple(guesses)))
    return sheets


def _share(cell: str) -> float:
    try:
        return float(cell.replace(",", "."))  # spreadsheets in many languages write 0,5
    except ValueError:
        return math.nan


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

        Raises:
            InputError: there is no name in `by`.
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
        files = [sheet.file for sheet in sheets]
        found, self.moved = on_disk(images, files)
        self._found = dict(zip(files, found, strict=True))

    def path(self, sheet: Sheet) -> Path:
        """Its image file, as the disk writes its name, see `utils.data.forms.folders.on_disk`."""
        return self.images / self._found[sheet.file]

    def missing(self) -> list[str]:
        """The files that are not in the folder, the first with what is there and may be meant."""
        return [f"{file} (there is {near})" if near else file for file, near in self.moved.items()]

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
        if do == DOUBT and qualifier not in QUALIFIERS:
            raise InputError(f"{sheet.file}: choose cf., aff. or the genus only.")
        if max(len(name), len(remarks)) > _MOST_TEXT:
            raise InputError(
                f"{sheet.file}: a name or a remark has more than {_MOST_TEXT} characters; shorten it."
            )
        if do == ACCEPT or (do == DOUBT and not name):
            name = first.species
        if do not in (UNDO, ASIDE):
            name = self._known(name)
            if is_no_name(name):
                raise InputError(
                    f"{sheet.file}: {name!r} names no taxon. Type another name, or put the sheet aside."
                )
            if name not in self.taxa and doubt_of(name) not in ("", GENUS_ONLY):
                raise InputError(
                    f"{sheet.file}: {name} is in doubt. Type the name alone, then press Esc and d."
                )
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
        genus = genus_of(name)
        return {"name": name, "genus": genus, "family": self._of_genus.get(genus, ""), "new": True}

    def _known(self, name: str) -> str:
        """The name of the label map that a typed one is, as `metadata` compares names, in any case; else as typed."""
        if name in self.taxa or not name:
            return name
        genus = tidy(name).split(" ")[0].casefold()
        near = [known for folded, known in self._folded if folded.startswith(genus)]
        alike = [known for known in near if known.casefold() == name.casefold()]
        place = match([name[:1].upper() + name[1:]], near)[0]
        return alike[0] if len(alike) == 1 else near[place] if place >= 0 else name

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
        done, left = (sum(self._is(sheet, state) for sheet in self.sheets) for state in ("decided", "open"))
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
