"""The page of predictions for people: each sheet with its five answers and what speaks for the first.

One HTML file that needs no network and no script, with the pictures inside; from 100 sheets on there are
further files beside it, NAME-2.html and so on, linked with each other. Sheets are written as they come.
The words and the looks are in page.html.j2 and sheets.html.j2, which escape all that they are given.
"""

import base64
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from utils.data.delimited import read_table
from utils.data.forms.names import printed_words
from utils.data.metadata import UNKNOWN
from utils.data.tail import TAIL_MAX
from utils.files import InputError, read_json, working_folder
from utils.own.answers import NO_RANK, RANKS, SURE_AT, Answers, Judged

if TYPE_CHECKING:
    from utils.config import Profile
    from utils.data.labels import LabelMap


SHEETS_A_PAGE = 100  # some 50 KB each
NO_USE = 0.1  # share of the reachable macro-F1 below which the model recognises almost nothing
TRAINING_IMAGES = "training_images.csv"  # in a run's folder: scientificName, images
_OVERLAY = 0.55  # share of the heat's colour, as in utils.figures.mistakes.grad_cam
_QUALITY = 80  # of the JPEGs inside
_GENERATOR = "herbarium course: predictions"  # by which pages of an earlier call are known


@dataclass(frozen=True, eq=False)
class RunFacts:
    """What a reader should know of the model; None where the run's folder does not say it."""

    name: str
    profile: "Profile"
    labels: "LabelMap"
    macro_f1: float | None  # best on the sheets held out of training, over all species
    train_images: np.ndarray | None  # of each class, int [C]
    held_out: tuple[int, int] | None = None  # sheets that the macro-F1 is of, and their species
    worth: Answers | None = None  # what is known of its answers

    @property
    def invented(self) -> bool:
        """Whether the sheets that it was trained on are drawn."""
        return self.profile.source == "flora" or (self.worth is not None and self.worth.origin["invented"])


def read_facts(
    run_dir: Path, profile: "Profile", labels: "LabelMap", worth: Answers | None = None
) -> RunFacts:
    """Read score and numbers of training images from the files that a training run leaves.

    Raises:
        InputError: a file is there and is not what the training wrote.
    """
    run_dir = Path(run_dir)
    (scores,) = _columns(run_dir / f"{profile.run_name}.csv", val_f1_score=_score)
    names, images = _columns(run_dir / TRAINING_IMAGES, scientificName=str, images=_count)
    counts = dict(zip(names, images, strict=True))
    if names and counts.keys() != {name.strip() for name in labels.names.tolist()}:
        raise InputError(
            f"{run_dir / TRAINING_IMAGES}: names other species than labels.json beside it. Copy the folder of "
            "the run again, or remove the file."
        )
    configs = run_dir / f"{profile.run_name}_configs.json"
    run = read_json(configs).get("run", {})
    held_out = run.get("validation_images"), run.get("validation_species")
    if None not in held_out and not all(type(number) is int and 0 <= number < 2**53 for number in held_out):
        raise InputError(f"{configs}: not the settings of a run (validation_images). Copy the run again.")
    return RunFacts(
        name=run_dir.resolve().name,
        profile=profile,
        labels=labels,
        macro_f1=max(filter(math.isfinite, scores), default=None),
        train_images=np.array([counts[name.strip()] for name in labels.names]) if names else None,
        held_out=None if None in held_out else held_out,
        worth=worth,
    )


def _columns(path: Path, **kinds: Callable[[str], Any]) -> list[list]:
    """Columns of a CSV of a run, in the rows that have all of them; empty when there is no such file."""
    if not path.is_file():
        return [[] for _ in kinds]
    way_out = "Copy it from the run again, or remove it."
    table = read_table(path, list(kinds), way_out=way_out)
    table = table[(table != "").all(axis=1)]
    found = []
    for column, kind in kinds.items():
        try:
            found.append([kind(cell) for cell in table[column]])
        except ValueError:
            raise InputError(f"{path}: its column {column!r} cannot be read. {way_out}") from None
    return found


def _score(cell: str) -> float:
    value = float(cell)
    if not (0 <= value <= 1 or math.isnan(value)):
        raise ValueError(cell)
    return value


def _count(cell: str) -> int:
    value = int(cell)
    if not 0 <= value < 2**53:
        raise ValueError(cell)
    return value


class Pages:
    """Writes the sheets as they are predicted; the pages appear when `write` is called.

    As a context manager it removes its hidden working folder, beside the pages, at the end.
    """

    def __init__(
        self, path: Path, facts: RunFacts, folder: str, sure: float = SURE_AT, review: str = ""
    ) -> None:
        """Make nothing yet.

        Args:
            path: the first page.
            facts: of the model.
            folder: name of the folder of images, for the heading.
            sure: the least probability of a sure answer.
            review: the command that opens these answers for a curator.
        """
        self.path, self.facts, self.folder, self.sure = Path(path), facts, folder, sure
        self.review = review
        self.sheets = 0
        self._counts: Counter[str] = Counter()  # sheets by status
        self._in = ""  # the folder of the sheet before
        self._part: list[dict[str, Any]] = []
        self._parts: list[Path] = []
        self._working = working_folder(self.path)

    def __enter__(self) -> "Pages":
        self._work = self._working.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._working.__exit__(*error)

    def add(self, judged: Judged, thumbnails: list[Image.Image], heatmaps: np.ndarray, crop: float) -> None:
        """Add a batch of sheets.

        Args:
            judged: of B sheets, whose ids are their paths.
            thumbnails: B RGB images of the whole sheets.
            heatmaps: Grad-CAM of the first answers, float [B, S, S] in 0..1, of the central part only.
            crop: the share of each side that this part has.
        """
        found = judged.predictions
        for row, (name, sheet, heat) in enumerate(zip(found.image_ids, thumbnails, heatmaps, strict=True)):
            status, rank = str(judged.status[row]), int(judged.rank[row])
            self.sheets += 1
            self._counts[status] += 1
            folder = str(name).rpartition("/")[0]
            answers = zip(found.classes[row], found.probabilities[row], strict=True)
            self._part.append(
                {
                    "number": self.sheets,
                    "name": str(name),
                    "folder": folder,
                    "first_of_folder": folder != self._in or not self._part,
                    "answers": [self._answer(*answer) for answer in answers],
                    "picture": picture(sheet),
                    "overlay": picture(overlay(sheet, heat, crop)),
                    "explained": bool(heat.any()),  # whether any part speaks for the first answer
                    "status": status,
                    "rank": RANKS[rank] if rank < NO_RANK else None,
                    "taxon": str(judged.taxon[row]),
                    "sure_of": float(judged.probability[row]),
                }
            )
            self._in = folder
            if len(self._part) == SHEETS_A_PAGE:
                self._end_part()

    def _answer(self, index: int, probability: float) -> dict[str, Any]:
        labels, images = self.facts.labels, self.facts.train_images
        family = str(labels.families[index])
        return {
            "species": str(labels.names[index]),
            "family": None if family == UNKNOWN else family,
            "images": None if images is None else int(images[index]),  # that the species was trained on
            "probability": float(probability),
        }

    def _end_part(self) -> None:
        part = self._work / f"part-{len(self._parts) + 1}.html"
        counted = self.facts.train_images is not None
        template = templates().get_template("sheets.html.j2")
        part.write_text(
            template.render(
                sheets=self._part,
                counted=counted,
                tail_max=TAIL_MAX,
                folders=any(sheet["folder"] for sheet in self._part),
            ),
            encoding="utf-8",
        )
        self._parts.append(part)
        self._part = []

    def write(self, left_out: dict[str, str]) -> list[Path]:
        """Write the pages, replacing those of an earlier call.

        Args:
            left_out: {image: reason} of images that could not be read.

        Returns:
            The pages, the first one is the path given.
        """
        if self._part:
            self._end_part()
        pages = [self._page(number) for number in range(1, len(self._parts) + 1)]
        facts = self._facts() | {"left_out": left_out, "addresses": [_address(page.name) for page in pages]}
        template = templates().get_template("page.html.j2")
        for number, part in enumerate(self._parts, start=1):
            sheets = part.read_text(encoding="utf-8")
            text = template.render(facts, number=number, pages=len(pages), sheets=sheets)
            (self._work / f"page-{number}.html").write_text(text + "\n", encoding="utf-8")
        for number in range(len(pages), 0, -1):  # the first page last: what it links to is there
            (self._work / f"page-{number}.html").replace(pages[number - 1])
        for number in count(len(pages) + 1):  # of an earlier call with more sheets
            old = self._page(number)
            start = old.read_text(encoding="utf-8", errors="replace")[:1000] if old.is_file() else ""
            if f'<meta name="generator" content="{_GENERATOR}">' not in start:
                return pages
            old.unlink()

    def _page(self, number: int) -> Path:
        return self.path if number == 1 else self.path.with_stem(f"{self.path.stem}-{number}")

    def _facts(self) -> dict[str, object]:
        """What the template says of the model and of all sheets."""
        return {
            **said_of(self.facts, self.sure),
            "generator": _GENERATOR,
            "folder": self.folder,
            "total": self.sheets,
            "counts": self._counts,
            "review": self.review,
        }


def said_of(facts: RunFacts, sure: float) -> dict[str, Any]:
    """What the templates say of a model and of what its answers are worth.

    Args:
        facts: from `read_facts`.
        sure: the least probability of a sure answer.
    """
    labels, images, worth = facts.labels, facts.train_images, facts.worth
    held_out, covered = facts.held_out or (None, labels.n_classes)
    return {
        "name": facts.name,
        "profile": facts.profile,
        "known": labels.n_classes,
        "genera": len(labels.genus_names),
        "train_images": None if images is None else int(images.sum()),
        "few": None if images is None else int((images <= TAIL_MAX).sum()),
        "macro_f1": facts.macro_f1,
        "held_out": held_out,
        "covered": covered,
        "best": covered / labels.n_classes,  # macro-F1 when all that can be scored is right
        "sure": sure,
        "counts": None,  # sheets of each status, on a page that has all of them
        "worth": worth,
        "right": worth and worth.held_out,
        "ranks": worth and _words_of_ranks(worth, sure),
        "curve": worth and left_to_machine(worth),
        "refused": worth and worth.refused,
        "most_sure": worth and 1 - worth.doubt,
        "measured_on": worth and worth.measured.part,
        "passed": worth and worth.passed,
        "limited": worth is not None and math.isfinite(worth.limit),
        "invented": facts.invented,
        "no_use": NO_USE,
        "tail_max": TAIL_MAX,
    }


def _words_of_ranks(worth: Answers, sure: float) -> list[dict[str, Any]]:
    """Rank, sheets, share and right of the sheets that were measured, as plain values; right is None without sheets."""
    table = worth.measured.by_rank(sure, worth.limit).to_dict(orient="records")
    return [row | {"right": None if math.isnan(row["right"]) else row["right"]} for row in table]


def left_to_machine(worth: Answers) -> list[dict[str, float]]:
    """What could be left to the machine at some thresholds, where any sheet could."""
    table = worth.measured.curve(worth.limit, (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)).dropna()
    return table.to_dict(orient="records")


@cache
def templates() -> Environment:
    """The templates beside this file; a value that they are not given is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"runs": _runs, "percent": _percent, "thousands": "{:,}".format}
    return made


def overlay(sheet: Image.Image, heat: np.ndarray, crop: float) -> Image.Image:
    """Lay a heatmap of the central part over a sheet, as colours; the frame around it stays as it is.

    Args:
        sheet: RGB.
        heat: float [S, S] in 0..1.
        crop: the share of each side that the central part has.
    """
    width, height = (max(1, round(side * crop)) for side in sheet.size)
    left, top = (sheet.width - width) // 2, (sheet.height - height) // 2
    # 8 bits are enough for 256 colours
    levels = Image.fromarray((255 * np.clip(heat, 0, 1)).astype(np.uint8))
    levels = np.asarray(levels.resize((width, height), Image.Resampling.BILINEAR))
    box = (left, top, left + width, top + height)
    mixed = Image.blend(sheet.crop(box), Image.fromarray(_colours()[levels]), _OVERLAY)
    result = sheet.copy()
    result.paste(mixed, box)
    return result


@cache
def _colours() -> np.ndarray:
    """The colours of 0..255, uint8 [256, 3]: dark to bright, the same to colour-blind readers."""
    from matplotlib import colormaps

    return (255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)


def picture(image: Image.Image) -> dict[str, Any]:
    """An image for a template: width and height in pixels, and its bytes as an address."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    content = base64.b64encode(buffer.getvalue()).decode()
    return {"width": image.width, "height": image.height, "address": f"data:image/jpeg;base64,{content}"}


def _runs(name: str) -> list[tuple[bool, str]]:
    """A scientific name in parts: (whether in italics, the words); genus and epithets are, authors are not."""
    return [
        (italic, " ".join(word for word, _ in words))
        for italic, words in groupby(printed_words(name), key=lambda word: word[1])
    ]


def _percent(probability: float) -> str:
    if 0 < probability < 0.001:
        return "below 0.1%"
    if 0.995 <= probability < 1:
        return f"{min(probability, 0.999):.1%}"
    return f"{probability:.0%}" if probability >= 0.095 or probability == 0 else f"{probability:.1%}"


def _address(name: str) -> str:
    """A file name as a relative address."""
    return "./" + quote(name)
