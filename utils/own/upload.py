"""The place of notebook 08 where sheets are dropped, also where anywidget is not installed (Kaggle)."""

from typing import Any

from IPython.display import Markdown

from utils.own.identify import Identifier


def drop_place(identifier: Identifier) -> Any:
    """A widget that takes sheets, to display; where anywidget is not installed, a sentence on what to do instead."""
    try:
        from utils.own.drop import Drop
    except ModuleNotFoundError as error:
        if error.name != "anywidget":
            raise
        return Markdown("anywidget is not installed here: give the path of an image as `SHEET` instead.")
    return Drop(lambda: identifier)
