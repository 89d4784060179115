"""The page of predictions for people: each sheet with its five answers and what speaks for the first.

One HTML file that needs no network and no script, with the pictures inside; from 100 sheets on there are
further files beside it, NAME-2.html and so on, linked with each other. Sheets are written as they come.
"""

import base64
import csv
import html
import math
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import count, groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from utils.data.forms.names import printed_words
from utils.data.metadata import UNKNOWN
from utils.data.tail import TAIL_MAX
from utils.files import InputError, read_json

if TYPE_CHECKING:
    from utils.config import Profile
    from utils.data.labels import LabelMap
    from utils.evaluation.predict import Predictions


SHEETS_A_PAGE = 100  # some 50 KB each
LOW_CONFIDENCE = 0.5  # below it, all other species together are likelier than the first answer
NO_USE = 0.1  # share of the reachable macro-F1 below which the model recognises almost nothing
TRAINING_IMAGES = "training_images.csv"  # in a run's folder: scientificName, images
_OVERLAY = 0.55  # share of the heat's colour, as in utils.figures.scores.grad_cam
_QUALITY = 80  # of the JPEGs inside
_GENERATOR = '<meta name="generator" content="herbarium course: predictions">'


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
        """Make the working folder.

        Args:
            path: the first page.
            facts: of the model.
            folder: name of the folder of images, for the heading.
        """
        self.path, self.facts, self.folder = Path(path), facts, folder
        self.sheets = self.uncertain = 0
        self._part: list[str] = []
        self._overview: list[str] = []
        self._parts: list[Path] = []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._work = Path(tempfile.mkdtemp(prefix=f".{self.path.stem}.", suffix=".tmp", dir=self.path.parent))

    def __enter__(self) -> "Pages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._work)

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
            self.sheets += 1
            self.uncertain += bool(shares[0] < LOW_CONFIDENCE)
            self._part.append(self._sheet(str(name), classes, shares, sheet, heat, crop))
            self._overview.append(
                f'<tr><td><a href="#sheet-{self.sheets}">{html.escape(str(name))}</a></td>'
                f"<td>{_printed(self.facts.labels.names[classes[0]])}</td>"
                f'<td class="n">{_share(shares[0])}{_low(shares[0])}</td></tr>'
            )
            if len(self._part) == SHEETS_A_PAGE:
                self._end_part()

    def _end_part(self) -> None:
        part = self._work / f"part-{len(self._parts) + 1}.html"
        overview = "\n".join(self._overview)
        text = "\n".join(self._part)
        part.write_text(
            f"<details><summary>Overview of the {len(self._part)} sheets on this page</summary>\n<table>"
            f"<tr><th>sheet</th><th>first answer</th><th>probability</th></tr>\n{overview}</table></details>\n"
            f"<main>\n{text}\n</main>\n",
            encoding="utf-8",
        )
        self._parts.append(part)
        self._part, self._overview = [], []

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
        for number, part in enumerate(self._parts, start=1):
            whole = self._work / f"page-{number}.html"
            with whole.open("w", encoding="utf-8") as file, part.open(encoding="utf-8") as sheets:
                file.write(self._head(number, len(pages), left_out))
                shutil.copyfileobj(sheets, file)
                file.write(f"{self._links(number, len(pages))}\n</body></html>\n")
        for number in range(len(pages), 0, -1):  # the first page last: what it links to is there
            (self._work / f"page-{number}.html").replace(pages[number - 1])
        for number in count(len(pages) + 1):  # of an earlier call with more sheets
            old = self._page(number)
            if not (old.is_file() and _GENERATOR in old.read_text(encoding="utf-8", errors="replace")[:1000]):
                return pages
            old.unlink()

    def _page(self, number: int) -> Path:
        return self.path if number == 1 else self.path.with_stem(f"{self.path.stem}-{number}")

    def _links(self, number: int, pages: int) -> str:
        if pages == 1:
            return ""
        links = [
            f'<b aria-current="page">{other}</b>'
            if other == number
            else f'<a href="{_address(self._page(other).name)}">{other}</a>'
            for other in range(1, pages + 1)
        ]
        return f'<nav aria-label="Pages">Page {" ".join(links)} of {pages}</nav>'

    def _head(self, number: int, pages: int, left_out: dict[str, str]) -> str:
        title = f"Predicted species of {self.sheets:,} {'sheet' if self.sheets == 1 else 'sheets'}"
        of_pages = f", page {number} of {pages}" if pages > 1 else ""
        parts = [
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_GENERATOR}',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # nothing is fetched and nothing is run, whatever a file name or a label map holds
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{title}{of_pages}: {html.escape(self.folder)}</title>",
            f"<style>{_STYLE}</style></head><body>",
            f"<header><h1>{title}{of_pages}</h1>",
            f"<p>Folder <b>{html.escape(self.folder)}</b>, model <b>{html.escape(self.facts.name)}</b>: "
            f"{self._model()}</p>",
            "<ul>" + "".join(f"<li>{note}</li>" for note in self._notes()) + "</ul>",
        ]
        if left_out:
            rows = "".join(
                f"<tr><td>{html.escape(name)}</td><td>{html.escape(reason)}</td></tr>"
                for name, reason in sorted(left_out.items())
            )
            files = "file" if len(left_out) == 1 else "files"
            open_ = " open" if number == 1 and len(left_out) <= 20 else ""
            parts.append(
                f"<details{open_}><summary>{len(left_out):,} {files} left out, because they cannot be read"
                f"</summary><table><tr><th>file</th><th>reason</th></tr>{rows}</table></details>"
            )
        return "\n".join([*parts, "</header>", self._links(number, pages), ""])

    def _model(self) -> str:
        labels, profile, images = self.facts.labels, self.facts.profile, self.facts.train_images
        trained = "" if images is None else f", trained on {images.sum():,} images"
        return (
            f"EfficientNetV2-{profile.backbone} at {profile.image_size} × {profile.image_size} pixels{trained}. "
            f"It knows {labels.n_classes:,} species of {len(labels.genus_names):,} genera."
        )

    def _notes(self) -> list[str]:
        facts, known = self.facts, self.facts.labels.n_classes
        notes = [
            f"<b>The answers are guesses among these {known:,} species and no others.</b> A sheet of any other "
            "species gets one of their names too.",
            self._score(),
        ]
        notes.append(
            f"<span class='low'>low confidence</span> marks a sheet whose first answer has less than "
            f"{LOW_CONFIDENCE:.0%} probability, so that all other species together are likelier: "
            f"{self.uncertain:,} of {self.sheets:,} here. Probabilities are the model's own."
        )
        if facts.train_images is not None:
            few = int((facts.train_images <= TAIL_MAX).sum())
            notes.append(
                f"<span class='few'>few</span> marks a species with at most {TAIL_MAX} training images "
                f"({few:,} of {known:,}); the rarer in training, the less reliable."
            )
        notes.append(
            "The second picture shows where the model sees the first answer: bright parts speak most for it, "
            "dark ones do not (Grad-CAM, a coarse map)."
            + (
                " The plain frame is cut off before the model sees the sheet."
                if facts.profile.crop < 1
                else ""
            )
            + " Be wary of an answer that rests on a label, a stamp or a ruler."
        )
        return notes

    def _score(self) -> str:
        """What the model's score on held-out sheets says, and what it does not."""
        facts, known = self.facts, self.facts.labels.n_classes
        if facts.macro_f1 is None:
            return "How well the model does is not known: its run has no score on held-out sheets."
        images, covered = facts.held_out or (None, known)
        best = covered / known
        sheets = "sheets" if images is None else f"{images:,} sheets of {covered:,} species"
        told = (
            f"On {sheets} held out of its training the model reached macro-F1 {facts.macro_f1:.3f} (0: no species "
            f"is recognised, {best:.3g}: all, always)."
        )
        if facts.macro_f1 < NO_USE * best:
            return (
                f"{told} <b>It recognises almost nothing: these answers are of no use.</b> Train it longer, or on "
                "more sheets."
            )
        others = (
            f" How well it knows the other {known - covered:,} species is not known."
            if covered < known
            else ""
        )
        return f"{told}{others} On sheets of another kind it may do worse."

    def _sheet(
        self,
        name: str,
        classes: np.ndarray,
        shares: np.ndarray,
        sheet: Image.Image,
        heat: np.ndarray,
        crop: float,
    ) -> str:
        labels, images = self.facts.labels, self.facts.train_images
        first, shown = labels.names[classes[0]], html.escape(name)
        caption = f"speaks for {_printed(first)}" if heat.any() else f"no part speaks for {_printed(first)}"
        rows = []
        for index, share in zip(classes, shares, strict=True):
            family = labels.families[index]
            family = '<span class="quiet">not known</span>' if family == UNKNOWN else html.escape(family)
            cells = [f'<th scope="row">{_printed(labels.names[index])}</th><td>{family}</td>']
            if images is not None:
                few = ' <span class="few">few</span>' if images[index] <= TAIL_MAX else ""
                cells.append(f'<td class="n">{images[index]:,}{few}</td>')
            cells.append(
                f'<td class="share"><i class="bar" style="width:{100 * share:.1f}%"></i>{_share(share)}</td>'
            )
            rows.append(f"<tr>{''.join(cells)}</tr>")
        counted = "" if images is None else '<th scope="col" class="n">training images</th>'
        return (
            f'<article id="sheet-{self.sheets}"><h2>{shown}{_low(shares[0])}</h2>\n'
            f"<figure>{_image(sheet, f'Sheet {name}')}<figcaption>sheet</figcaption></figure>\n"
            f"<figure>{_image(overlay(sheet, heat, crop), f'Sheet {name}: what speaks for {first}')}"
            f"<figcaption>{caption}</figcaption></figure>\n"
            f'<table><tr><th scope="col">species</th><th scope="col">family</th>{counted}'
            f'<th scope="col">probability</th></tr>\n{"".join(rows)}</table></article>'
        )


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


def _image(image: Image.Image, text: str) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return (
        f'<img loading="lazy" width="{image.width}" height="{image.height}" alt="{html.escape(text)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )


def _printed(name: Any) -> str:
    """A scientific name as HTML: genus and epithets in italics, authors upright."""
    runs = []
    for in_italics, words in groupby(printed_words(str(name)), key=lambda word: word[1]):
        text = html.escape(" ".join(word for word, _ in words))
        runs.append(f"<em>{text}</em>" if in_italics else text)
    return " ".join(runs)


def _share(value: float) -> str:
    if 0 < value < 0.001:
        return "below 0.1%"
    return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"


def _low(share: float) -> str:
    return ' <span class="low">low confidence</span>' if share < LOW_CONFIDENCE else ""


def _address(name: str) -> str:
    """A file name as a relative address."""
    from urllib.parse import quote

    return html.escape("./" + quote(name))


_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 76rem;
  margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 0 .5rem } h2 { font-size: 1.05rem; margin: 0 0 .6rem; overflow-wrap: anywhere }
header ul { padding-left: 1.2rem } header li { margin: .25rem 0 }
article { display: grid; grid-template-columns: 15rem 15rem minmax(0, 1fr); gap: .3rem 1.2rem; align-items: start;
  border-top: 1px solid #bbb; padding: 1rem 0; break-inside: avoid }
article h2 { grid-column: 1 / -1 }
figure { margin: 0 } figure img { max-width: 100%; height: auto; max-height: 22.5rem; border: 1px solid #bbb;
  width: auto; display: block }
figcaption { font-size: .85rem; color: #444 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd;
  font-weight: normal; overflow-wrap: break-word }
tr:first-child > th { color: #444; font-size: .85rem }
article tr:nth-child(2) > th { font-weight: 600 }
.n { white-space: nowrap }
.share { width: 9rem; white-space: nowrap }
.bar { display: block; height: .55rem; margin: .3rem 0 .1rem; background: #0072b2; min-width: 1px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact }
.low, .few { font-size: .8rem; font-weight: 600; border: 1px solid; border-radius: .2rem; padding: 0 .3rem;
  white-space: nowrap }
.low { color: #8a2d00 } .few { color: #5a4300 } .quiet { color: #555 }
details { margin: .8rem 0 } summary { cursor: pointer } nav { margin: .8rem 0 } nav b, nav a { margin: 0 .15rem }
@media screen and (max-width: 60rem) { article { grid-template-columns: 1fr 1fr }
  article table { grid-column: 1 / -1 } }
@media screen and (max-width: 40rem) { th, td { font-size: .85rem; padding-right: .5rem } .share { width: 4.5rem } }
@media print { html { font-size: 9pt } body { font-size: 1rem; max-width: none; margin: 0 }
  nav, details:not([open]) { display: none } article { padding: .6rem 0; gap: .2rem .8rem;
  grid-template-columns: 3.6cm 3.6cm minmax(0, 1fr) } .share { width: 2.2cm }
  th, td { padding: .1rem .4rem .1rem 0; font-size: .9rem } }
"""
