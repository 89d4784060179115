"""The answer to a sheet as HTML, for notebook 08 and the page of `identify`; the words are in the templates."""

from pathlib import Path

from utils.data.metadata import UNKNOWN
from utils.own.identify import Answer, Identifier, Sheet
from utils.own.page import picture, said_of, templates
from utils.own.worth import told

STYLE = Path(__file__).parent / "card.css"
_CELL = 32  # pixels of the network's input that a cell of the last feature map has


def about(identifier: Identifier) -> str:
    """What the model is, what it was trained on, and what its answers are worth."""
    said = said_of(identifier.facts, identifier.sure)
    return (
        templates().get_template("about.html.j2").render(said, told=told(identifier.worth, identifier.sure))
    )


def card(identifier: Identifier, sheet: Sheet, answer: Answer) -> str:
    """The answer, with the training sheets that look like the sheet."""
    return (
        templates()
        .get_template("card.html.j2")
        .render(
            sheet=sheet,
            answer=answer,
            shown=picture(sheet.picture),
            similar=[
                {
                    "image_id": other.image_id,
                    "species": other.species,
                    "cosine": other.cosine,
                    "picture": other.picture and picture(other.picture),
                }
                for other in answer.similar
            ],
            counted=identifier.facts.train_images is not None,
            unknown=UNKNOWN,
        )
    )


def explained(identifier: Identifier, sheet: Sheet, answer: Answer) -> str:
    """The sheet with Grad-CAM of the first answer over it."""
    return (
        templates()
        .get_template("explained.html.j2")
        .render(
            name=sheet.name,
            species=answer.guesses[0].species,
            found=bool(answer.heat.any()),
            overlay=picture(identifier.explained(sheet, answer)),
            cells=-(-identifier.profile.image_size // _CELL),
        )
    )


def styled(html: str) -> str:
    """Some of these with their style, as a notebook shows them."""
    return f"<style>{STYLE.read_text(encoding='utf-8')}</style>\n{html}"
