"""A widget for notebook 08 and the page of `./course identify`: sheets are dropped into the browser and answered there.

What answers is imported and opened when the browser shows the widget, so that the place for the sheets is there first.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from utils.files import InputError
from utils.own.examples import MOST_BYTES

if TYPE_CHECKING:
    from utils.own.identify import Answer, Identifier, Sheet

_HERE = Path(__file__).parent


class Drop(anywidget.AnyWidget):
    """Takes image files one at a time, and gives a card with the answer to each, then what speaks for it.

    A message of the browser is answered by one message: {hello} and {explain} by {html}, {sheet, name} with the file's
    bytes by {html} or {refused}.
    """

    _esm = _HERE / "drop.js"
    _css = _HERE / "card.css"
    most_bytes = traitlets.Int(MOST_BYTES).tag(sync=True)

    def __init__(self, open_identifier: "Callable[[], Identifier]", **options: Any) -> None:
        super().__init__(**options)
        self._open = open_identifier
        self._identifier: Identifier | None = None
        self._to_explain: dict[int, tuple[Sheet, Answer]] = {}
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        try:
            self.send(self._reply(content, buffers))
        except InputError as error:
            self.send({"refused": getattr(error, "reason", str(error))})
        except Exception as error:  # else the browser waits for ever
            self.send({"refused": f"a fault of the course, told where it was started ({error})"})
            raise

    def _reply(self, content: dict[str, Any], buffers: list[memoryview]) -> dict[str, Any]:
        from utils.own import cards

        if self._identifier is None:
            self._identifier = self._open()
        if "explain" in content:
            return {"html": cards.explained(self._identifier, *self._to_explain.pop(content["explain"]))}
        if "sheet" not in content:
            return {"html": cards.about(self._identifier)}
        sheet = read(self._identifier, content["name"], buffers[0])
        answer = self._identifier.answer(sheet)
        self._to_explain[content["sheet"]] = sheet, answer
        return {"html": cards.card(self._identifier, sheet, answer)}


def read(identifier: "Identifier", name: str, content: bytes | memoryview) -> "Sheet":
    """The sheet of an image file's bytes.

    Raises:
        BadImage: they are not a whole image; `reason` says why.
    """
    with tempfile.NamedTemporaryFile() as file:  # decoders look at files of the system
        file.write(content)
        file.flush()
        return identifier.look(Path(file.name), name)


def show_page(run_dir: str, kept: str, sure: float) -> Drop:
    """What the page of `./course identify` shows."""

    def opened() -> "Identifier":
        from utils.own.identify import Identifier

        return Identifier(Path(run_dir), Path(kept), sure)

    return Drop(opened)
