"""The page of predictions for people: each sheet with its five answers and what speaks for the first.

One HTML file that needs no network and no script, with the pictures inside; from 100 sheets on there are
further files beside it, NAME-2.html and so on, linked with each other. Sheets are written as they come.
The words and the looks are in page.html.j2 and sheets.html.j2, which escape all that they are given.
"""

import base64
import csv
import math
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

from utils.data.forms.names import printed_words
from utils.data.metadata import UNKNOWN
from utils.data.tail import TAIL_MAX
from utils.files import InputError, read_json, working_folder

if TYPE_CHECKING:
    from utils.config import Profile
    from utils.data.labels import LabelMap
    from utils.evaluation.predict import Predictions


SHEETS_A_PAGE = 100  # some 50 KB each
LOW_CONFIDENCE = 0.5  # below it, all other species together are likelier than the first answer
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


def read_facts(run_dir: Path, profile: "Profile", labels: "LabelMap") -> RunFacts:
    """Read score and numbers of training images from the files that a training run leaves.

    Raises:
        InputError: a file is there and is not what the training wrote.
    """
    run_dir = Path(run_dir)
    scores = _column(run_dir / f"{profile.run_name}.csv", "val_f1_score", float)
    names = _column(run_dir / TRAINING_IMAGES, "scientificName", str)
    counts = dict(zip(names, _column(run_dir / TRAINING_IMAGES, "images", int), strict=True))
    if names and counts.keys() != set(labels.names.tolist()):
        raise InputError(
            f"{run_dir / TRAINING_IMAGES}: names other species than labels.json beside it. Copy the folder of "
            "the run again, or remove the file."
        )
    run = read_json(run_dir / f"{profile.run_name}_configs.json").get("run", {})
    held_out = run.get("validation_images"), run.get("validation_species")
    return RunFacts(
        name=run_dir.resolve().name,
        profile=profile,
        labels=labels,
        macro_f1=max(filter(math.isfinite, scores), default=None),
        train_images=np.array([counts[name] for name in labels.names]) if names else None,
        held_out=None if None in held_out else held_out,
    )


def _column(path: Path, column: str, kind: type) -> list:
    """A column of a CSV of a run, without its empty cells; nothing when there is no such file."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [kind(row[column]) for row in csv.DictReader(file) if row[column] != ""]
    except (KeyError, TypeError, ValueError):  # no such column, a row cut off, no number, not UTF-8
        raise InputError(
            f"{path}: its column {column!r} cannot be read. Copy it from the run again, or remove it."
        ) from None


class Pages:
    """Writes the sheets as they are predicted; the pages appear when `write` is called.

    As a context manager it removes its hidden working folder, beside the pages, at the end.
    """

    def __init__(self, path: Path, facts: RunFacts, folder: str) -> None:
        """Make nothing yet.

        Args:
            path: the first page.
            facts: of the model.
            folder: name of the folder of images, for the heading.
        """
        self.path, self.facts, self.folder = Path(path), facts, folder
        self.sheets = self.uncertain = 0
        self._part: list[dict[str, Any]] = []
        self._parts: list[Path] = []
        self._working = working_folder(self.path)

    def __enter__(self) -> "Pages":
        self._work = self._working.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._working.__exit__(*error)

    def add(
        self, predictions: "Predictions", thumbnails: list[Image.Image], heatmaps: np.ndarray, crop: float
    ) -> None:
        """Add a batch of sheets.

        Args:
            predictions: of B sheets.
            thumbnails: B RGB images of the whole sheets.
            heatmaps: Grad-CAM of the first answers, float [B, S, S] in 0..1, of the central part only.
            crop: the share of each side that this part has.
        """
        rows = zip(predictions.image_ids, predictions.classes, predictions.probabilities, strict=True)
        for (name, classes, shares), sheet, heat in zip(rows, thumbnails, heatmaps, strict=True):
            uncertain = bool(shares[0] < LOW_CONFIDENCE)
            self.sheets += 1
            self.uncertain += uncertain
            self._part.append(
                {
                    "number": self.sheets,
                    "name": str(name),
                    "answers": [self._answer(*answer) for answer in zip(classes, shares, strict=True)],
                    "picture": _picture(sheet),
                    "overlay": _picture(overlay(sheet, heat, crop)),
                    "explained": bool(heat.any()),  # whether any part speaks for the first answer
                    "uncertain": uncertain,
                }
            )
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
        template = _templates().get_template("sheets.html.j2")
        part.write_text(
            template.render(sheets=self._part, counted=counted, tail_max=TAIL_MAX), encoding="utf-8"
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
        template = _templates().get_template("page.html.j2")
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
        facts, labels, images = self.facts, self.facts.labels, self.facts.train_images
        held_out, covered = facts.held_out or (None, labels.n_classes)
        return {
            "generator": _GENERATOR,
            "folder": self.folder,
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
            "total": self.sheets,
            "uncertain": self.uncertain,
            "low_confidence": LOW_CONFIDENCE,
            "no_use": NO_USE,
            "tail_max": TAIL_MAX,
        }


@cache
def _templates() -> Environment:
    """The templates beside this file; a value that they are not given is an error."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"runs": _runs, "percent": _percent, "thousands": "{:,}".format}
    return templates


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


def _picture(image: Image.Image) -> dict[str, Any]:
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
    return f"{probability:.0%}" if probability >= 0.095 or probability == 0 else f"{probability:.1%}"


def _address(name: str) -> str:
    """A file name as a relative address."""
    return "./" + quote(name)
