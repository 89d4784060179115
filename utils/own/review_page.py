"""The page of `./course review`: a widget that shows one sheet large and takes one decision (review.js, review.css)."""

from collections import OrderedDict
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
from PIL import Image

from utils.data.labels import LabelMap
from utils.files import InputError
from utils.own.decisions import Decisions
from utils.own.decode import MAX_PIXELS, upright_size
from utils.own.images import BadImage, read_image
from utils.own.review import ORDERS, QUALIFIERS, STATES, Review, read_predictions
from utils.own.reviewed import write_review

if TYPE_CHECKING:
    from utils.own.identify import Identifier

_HERE = Path(__file__).parent
_LONGEST = 2000  # pixels a side of the copy that is shown
_KEPT_COPIES = 8


class Reviewing(anywidget.AnyWidget):
    """Shows the sheets of a review one at a time.

    A message of the browser, which has a number, is answered by one with the same number; {refused} says why not.
    """

    _esm = _HERE / "review.js"
    _css = _HERE / "review.css"

    def __init__(self, review: Review, model: Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.review, self.model = review, model
        self._copies: OrderedDict[int, tuple[bytes, tuple[int, int], str]] = OrderedDict()
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: dict[str, Any], __: list[memoryview]) -> None:
        number = {"number": content["number"]}
        try:
            reply, buffers = getattr(self, f"_on_{content['ask']}")(**content.get("with", {}))
            self.send(number | reply, buffers)
        except InputError as error:
            self.send(number | {"refused": getattr(error, "reason", str(error))})
        except Exception as error:  # else the browser waits for ever
            self.send(number | {"refused": f"a fault of the course, told where it was started ({error})"})
            raise

    def _on_begin(self) -> tuple[dict[str, Any], list[bytes]]:
        statuses = sorted({sheet.status for sheet in self.review.sheets} - {""})
        return {
            "orders": ORDERS,
            "states": STATES,
            "statuses": statuses,
            "qualifiers": QUALIFIERS,
            "by": self.review.by,
            "problems": self.review.decisions.problems,
            "moved": self.review.missing(),
            "similar": self.model is not None,
            "progress": self.review.progress(),
        }, []

    def _on_view(self, order: str, state: str, text: str, status: str) -> tuple[dict[str, Any], list[bytes]]:
        return {"view": self.review.view(order, state, text, status)}, []

    def _on_sheet(self, place: int) -> tuple[dict[str, Any], list[bytes]]:
        sheet, found = self.review.sheets[place], self._decision(place)
        return {
            "file": sheet.file,
            "image_id": sheet.image_id,
            "status": sheet.status,
            "guesses": [vars(guess) for guess in sheet.guesses],
            "moved": sheet.file in self.review.moved,
            **found,
        }, []

    def _decision(self, place: int) -> dict[str, Any]:
        self.review.decisions.refresh()
        decision = self.review.decisions.of(self.review.sheets[place].file)
        return {"decision": None if decision is None else vars(decision), "progress": self.review.progress()}

    def _on_image(self, place: int) -> tuple[dict[str, Any], list[bytes]]:
        if place not in self._copies:
            self._copies[place] = copy_of(self.review.path(self.review.sheets[place]))
            if len(self._copies) > _KEPT_COPIES:
                self._copies.popitem(last=False)
        jpeg, size, note = self._copies[place]
        return {"width": size[0], "height": size[1], "note": note}, [jpeg]

    def _on_decide(self, place: int, do: str, **what: str) -> tuple[dict[str, Any], list[bytes]]:
        self.review.decide(place, do, **what)
        return self._decision(place), []

    def _on_complete(self, text: str) -> tuple[dict[str, Any], list[bytes]]:
        return {"names": self.review.complete(text)}, []

    def _on_tables(self) -> tuple[dict[str, Any], list[bytes]]:
        labels, others = write_review(self.review.decisions, self.review.sheets)
        return {"labels": labels, "others": others}, []

    def _on_similar(self, place: int) -> tuple[dict[str, Any], list[bytes]]:
        """The training sheets that look like a sheet, with their pictures where those are kept."""
        sheet = self.review.sheets[place]
        answer = self._identifier.answer(self._identifier.look(self.review.path(sheet), sheet.file))
        similar = [
            {"image_id": each.image_id, "species": each.species, "picture": each.picture is not None}
            for each in answer.similar
        ]
        return {"similar": similar}, [_jpeg(each.picture) for each in answer.similar if each.picture]

    @cached_property
    def _identifier(self) -> "Identifier":
        from utils.own.identify import KEPT, Identifier, is_prepared

        if not is_prepared(self.model, self.model / KEPT):
            raise InputError(
                f"Nearest training sheets: ./course identify --model {self.model} makes them, once."
            )
        return Identifier(self.model, self.model / KEPT)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def copy_of(path: Path) -> tuple[bytes, tuple[int, int], str]:
    """A JPEG of an image file of at most 2,000 pixels a side, squeezed to a square; its size upright; what is odd.

    Raises:
        InputError: the file is not there, or not a whole image; BadImage has the `reason`.
    """
    try:
        with path.open("rb") as file:
            width, height = upright_size(file)
    except FileNotFoundError:
        raise InputError(
            f"{path}: the image is not there any more. Put it back, or leave the sheet."
        ) from None
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise InputError(f"{path}: not a readable image ({error}).") from error
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width} x {height} pixels; save a smaller copy.")
    try:
        jpeg, note = read_image(path, size=min(_LONGEST, max(width, height)), fit="squeeze")
    except BadImage as error:
        raise InputError(f"{path}: not a whole image ({error.reason}).") from error
    return jpeg, (width, height), note


def open_review(
    predictions: Path, images: Path, decisions: Path, by: str, run_dir: Path | None = None
) -> Review:
    """A review, begun or gone on with; a label map is taken from a run, where one is given.

    Raises:
        InputError: the table is another one, or the decisions cannot be written.
    """
    sheets, taxa = read_predictions(predictions), {}
    if run_dir is not None:
        labels = LabelMap.load(run_dir / "labels.json")
        columns = (labels.names.tolist(), labels.genera.tolist(), labels.families.tolist())
        taxa = {name: (genus, family) for name, genus, family in zip(*columns, strict=True)}
    return Review(sheets, images, Decisions(decisions).open(), by, taxa)


def show_page(predictions: str, images: str, decisions: str, by: str, run_dir: str | None) -> Reviewing:
    """What the page of `./course review` shows."""
    run = Path(run_dir) if run_dir else None
    review = open_review(Path(predictions), Path(images), Path(decisions), by, run)
    return Reviewing(review, run)
