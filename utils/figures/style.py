"""The look that all figures share: colours, captions, axes.

Nothing is shown and no global setting is changed: a notebook displays the returned figure as the value of its
cell. Titles state what the data show, computed from them. Colours are those of Okabe and Ito and of Tol, which
colour-blind readers tell apart, and each means the same in every figure; head, medium and tail have a marker each too.
Names are in italics, their ranks and authors are not.
"""

import functools
import textwrap
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from utils.data.forms.names import printed_words
from utils.data.tail import HEAD_MIN, TAIL_MAX
from utils.figures.shown import Drawing

BIN_COLOURS = {"head": "#0072B2", "medium": "#E69F00", "tail": "#D55E00"}
SKY = "#56B4E9"  # what training sees: its images, its loss
GREEN = "#009E73"  # species, and right answers
OLIVE = "#999933"  # genera and families
WINE = "#882255"  # what the network makes of sheets that it has not seen: answers and scores
GREY, LIGHT_GREY = "#7F7F7F", "#BDBDBD"  # what it is compared with: chance, baselines, another start
BLACK = "#222222"  # settings, and the place that a figure points at
LOOKS = (
    (BLACK, "-"),
    (GREY, "--"),
    (BLACK, ":"),
    (GREY, "-."),
)  # colour and line of methods beside each other
BIN_MARKERS = {"head": "o", "medium": "s", "tail": "^"}
BIN_RULES = {
    "head": f"head: {HEAD_MIN} or more",
    "medium": f"medium: {TAIL_MAX + 1} to {HEAD_MIN - 1}",
    "tail": f"tail: {TAIL_MAX} or fewer",
}
WIDTH = 8.0  # inches; at 110 dots an inch as wide as GitHub shows a figure
_STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": "viridis",
}
MANY = 2000  # points; above, a scatter is drawn as density


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a function draw in the course's look, without changing a global setting."""

    @functools.wraps(draw)
    def styled(*arguments, **options) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*arguments, **options)

    return styled


def new_figure(
    title: str, height: float, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, np.ndarray]:
    """A figure that pyplot does not know, so that a notebook shows it once, and its axes."""
    figure = empty_figure(title, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def empty_figure(title: str, height: float) -> Drawing:
    """Such a figure without axes, as high as given, in inches."""
    figure = Drawing(figsize=(WIDTH, height), layout="constrained")
    set_title(figure, title)
    return figure


def set_title(figure: Figure, title: str) -> None:
    """Write a figure's title at the left, wrapped after 80 letters."""
    figure.suptitle(textwrap.fill(title, 80), x=0.01, ha="left", fontsize=12, fontweight="semibold")


def italic(name: str) -> str:
    """A scientific name as matplotlib text: genus and epithets in italics, ranks, signs and authors upright."""
    return " ".join(_name_words(name))


def _name_words(name: str) -> list[str]:
    """The words of a scientific name as matplotlib text; in mathtext a hyphen would become a minus sign."""
    return [
        rf"$\mathit{{{word.replace('-', '‐')}}}$" if in_italics else word.replace("$", r"\$")
        for word, in_italics in printed_words(name)
    ]


def draw_bin(axes: Axes, name: str, x: ArrayLike, y: ArrayLike, **options) -> None:
    """Points of head, medium or tail, in its colour and with its marker."""
    axes.plot(x, y, BIN_MARKERS[name], **{"ls": "", "color": BIN_COLOURS[name], "ms": 5.5, **options})


def colour_bins(axis: Axis, names: Sequence[str]) -> None:
    """Write the labels of an axis, one for each of these bins, in their colours."""
    for label, name in zip(axis.get_ticklabels(), names, strict=True):
        label.set(color=ink(name), fontweight="semibold")


def ink(name: str) -> tuple[float, ...]:
    """The colour of head, medium or tail for words: darker, since orange words are hard to read on white."""
    return tuple(0.65 * channel for channel in to_rgb(BIN_COLOURS[name]))


def share_text(value: float) -> str:
    """A share of 1 in percent, below 9.5% with one decimal."""
    return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"


def count_axis(axis: Axis) -> None:
    """Label an axis of counts by whole numbers, thousands apart."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def percent_axis(axis: Axis) -> None:
    """Label an axis of shares of 1 in percent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))


def no_ticks(axes: Axes) -> None:
    """Leave axes without ticks, grid and lines, for a picture or words."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def draw_bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str], **options
) -> None:
    """Horizontal bars, the first on top, each with its text at the end."""
    places = np.arange(len(names))
    drawn = axes.barh(places, values, **options)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.bar_label(drawn, texts, padding=3, fontsize=9)
    axes.margins(x=0.16)


def draw_pairs(
    axes: Axes,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str, Sequence[float]]],
    text: Callable[[float], str] = share_text,
    fontsize: int = 9,
) -> None:
    """Two upright bars a name, side by side, each with its text on top.

    Args:
        axes: where.
        names: below each pair.
        pairs: of the left bars and of the right ones: label, colour, values, as many as names; NaN has no bar.
        text: of a value.
        fontsize: of the texts.
    """
    places = np.arange(len(names))
    for shift, (label, colour, values) in zip((-0.2, 0.2), pairs, strict=True):
        drawn = axes.bar(places + shift, np.nan_to_num(values), 0.38, color=colour, label=label)
        axes.bar_label(drawn, [text(value) for value in values], padding=2, fontsize=fontsize)
    axes.set_xticks(places, names)
    axes.grid(axis="x", visible=False)


def draw_images(grid: np.ndarray, images: Sequence[np.ndarray], captions: Sequence[str]) -> None:
    """Images uint8 [H, W, 3] with their captions on the axes of a grid, row by row; axes that are left stay empty."""
    for position, axes in enumerate(grid.flat):
        no_ticks(axes)
        if position < len(images):
            axes.imshow(images[position])
            axes.set_title(captions[position], fontsize=8.5, pad=3)


def family_frames(
    axes: Axes, families: np.ndarray, *, first: float, colour: str, width: float
) -> list[tuple[int, int]]:
    """Frames along the diagonal of a map of genera, one a family.

    Args:
        axes: of the map.
        families: of the genera in their order, a family's beside each other, [G].
        first: where the first genus begins on both axes.
        colour, width: of the lines.

    Returns:
        (first genus, first behind the last) of every family, in order.
    """
    starts = np.flatnonzero(np.r_[True, families[1:] != families[:-1]]).tolist()
    spans = list(zip(starts, [*starts[1:], len(families)], strict=True))
    for start, end in spans:
        corner, side = start + first, end - start
        axes.add_patch(Rectangle((corner, corner), side, side, fill=False, ec=colour, lw=width))
    return spans


def write_captions(names: Sequence[str], notes: Sequence[str] | None, width: float) -> list[str]:
    """Captions above images so many inches wide: scientific names, wrapped, all with as many lines.

    A name may follow words that end in a colon.
    """
    letters = int(width * 11.5)
    wrapped = []
    for name in names:
        before, _, scientific = name.rpartition(": ")
        words = [f"{before}:"] if before else []
        lengths = [len(word) for word in [*words, *scientific.split()]]
        lines, used = [[]], 0
        for word, length in zip([*words, *_name_words(scientific)], lengths, strict=True):
            if lines[-1] and used + 1 + length > letters:
                lines.append([])
                used = 0
            lines[-1].append(word)
            used += length + 1
        wrapped.append([" ".join(line) for line in lines])
    most = max(len(lines) for lines in wrapped)
    captions = []
    for position, lines in enumerate(wrapped):
        note = [] if notes is None else [notes[position]]
        captions.append("\n".join([""] * (most - len(lines)) + lines + note))
    return captions


def range_text(counts: Sequence[int]) -> str:
    """Lowest to highest count in words, one number where they are the same."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def head_tail_title(means: dict[str, float], what: str) -> str:
    """A title that says how the rare species fare against the common ones.

    Args:
        means: {bin (head, medium, tail): mean score}, of the bins that have species.
        what: the score, at the beginning of a sentence.
    """
    if "head" not in means or "tail" not in means:
        listed = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        return f"{what}: {listed} (no species in the other bins)"
    head, tail = means["head"], means["tail"]
    if abs(head - tail) < 0.02:
        return f"The tail does as well as the head: {what} {tail:.2f} and {head:.2f}"
    if head > tail:
        return f"{what} falls from {head:.2f} in the head to {tail:.2f} in the tail"
    return f"The tail does better than the head: {what} {tail:.2f} against {head:.2f}"
