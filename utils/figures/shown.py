"""How a notebook shows figures and tables: a picture with words for whoever cannot see it, columns under their heads.

JupyterLab and nbconvert give a PNG output no alternative text, whatever its metadata say; an HTML image keeps its own.
"""

import base64
import html
import io
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

_MOST = 12  # bars or captions that are listed; of more their number is said
_PAPER = "max-width: 100%; height: auto; border-radius: 6px"


class Drawing(Figure):
    """A figure that says what it shows: its title, and for every panel what is on the axes, in the legend and in it.

    All of it is read from the finished figure, so that it is true whatever is drawn.
    """

    def __repr__(self) -> str:
        return " ".join([_sentence(self.get_suptitle()), *_panels(self)])

    def _repr_html_(self) -> str:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=self.dpi)
        source = base64.b64encode(png.getvalue()).decode()
        return f'<img alt="{html.escape(repr(self))}" style="{_PAPER}" src="data:image/png;base64,{source}">'


if "IPython" in sys.modules:  # a notebook; its inline backend would send the picture again, without words
    from IPython import get_ipython

    if shell := get_ipython():
        shell.display_formatter.formatters["image/png"].for_type(Drawing, lambda drawing: None)


def _panels(figure: Figure) -> Iterator[str]:
    """A sentence for each panel, one for all pictures, one for the legend of all."""
    pictures = [axes for axes in figure.axes if axes.images and not axes.get_xlabel()]
    if pictures:
        yield _sentence(f"Pictures: {len(pictures)}" + _listed(axes.get_title() for axes in pictures))
    for axes in figure.axes:
        if axes not in pictures:
            yield from map(_sentence, _panel(axes, alone=not pictures))
    if of_all := [text.get_text() for legend in figure.legends for text in legend.get_texts()]:
        yield _sentence(f"Drawn{_listed(of_all)}")


def _panel(axes: Axes, alone: bool) -> Iterator[str]:
    """What is on the axes and in the legend; what stands beside the bars or is written in, where all is `alone`."""
    vertical, horizontal = axes.get_ylabel(), axes.get_xlabel()
    said = f"{vertical} against {horizontal}" if vertical and horizontal else vertical or horizontal
    if axes.get_title() and said:
        said = f"{axes.get_title()}: {said}"
    if legend := axes.get_legend():
        said += ", drawn" + _listed(text.get_text() for text in legend.get_texts())
    if said:
        yield said
    written = [text.get_text() for text in axes.texts]
    if not alone or not written or (not axes.containers and all(text.isdigit() for text in written)):
        return  # beside pictures, or numbers that a key explains
    ticks = (axes.yaxis if axes.yaxis_inverted() else axes.xaxis).get_ticklabels()
    names = [label.get_text() for label in ticks] or [""] * len(written)  # of panels that share them
    if axes.containers and len(written) % len(names) == 0:
        values = [" and ".join(filter(None, written[place :: len(names)])) for place in range(len(names))]
        written = [f"{name} {value}".strip() for name, value in zip(names, values, strict=True) if value]
    yield f"Written there{_listed(written)}"


def _listed(texts: Iterable[str]) -> str:
    """Up to a dozen texts after a colon, and how many more there are."""
    (*texts,) = filter(None, texts)
    more = f"; and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return ": " + "; ".join(texts[:_MOST]) + more if texts else ""


def _sentence(text: str) -> str:
    """Words of matplotlib text as a sentence on one line, without the signs of italics."""
    text = re.sub(r"\$\\mathit\{(.*?)\}\$", r"\1", text).replace("‐", "-").replace(r"\$", "$")
    words = " ".join(text.split())
    return f"{words[:1].upper()}{words[1:]}." if words else ""


class Table(Styler):
    """A Styler whose cells carry their alignment themselves.

    JupyterLab takes every <style> out of a notebook that it does not trust, as one that another machine has run, and
    then sets all columns at the right.
    """

    def _repr_html_(self) -> str:
        words = self.data.select_dtypes(exclude="number").columns
        sides = ["left" if column in words else "right" for column in self.data.columns]

        def aligned(cell: re.Match[str]) -> str:
            return f'{cell[0]} style="text-align: {sides[int(cell[1])]}; vertical-align: top"'

        return re.sub(r'class="(?:data|col_heading)\b[^"]*\bcol(\d+)[^"]*"', aligned, self.to_html())


def table(frame: pd.DataFrame, **formats: Any) -> Table:
    """A table as a notebook shows it: words at the left under their heads, numbers at the right under theirs.

    Args:
        frame: what to show; its row labels are not shown.
        formats: of pandas' Styler.format, as `precision` (3), `thousands`, `na_rep` (nothing) or `formatter`.
    """
    return Table(frame).format(**{"precision": 3, "na_rep": "", **formats}).hide(axis="index")
