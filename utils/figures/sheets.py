"""Figures of sheets, of how they are loaded, and of what lies near them (notebooks 00, 02 and 03)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.data.labels import LabelMap
from utils.data.tail import bins
from utils.figures.style import (
    GREY,
    WIDTH,
    count_axis,
    draw_bars,
    draw_images,
    empty_figure,
    ink,
    new_figure,
    range_text,
    styled,
    write_captions,
)


@styled
def sheets(
    images: np.ndarray,
    names: Sequence[str],
    notes: Sequence[str] | None = None,
    *,
    title: str,
    columns: int = 5,
) -> Figure:
    """A grid of sheets, each with its species in italics and a note.

    Args:
        images: uint8 [N, H, W, 3], or a list of such arrays of different sizes.
        names: species of each.
        notes: one short line each, below the name.
        title: what the grid shows.
        columns: sheets in a row.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, grid = new_figure(title, 0.45 + rows * (WIDTH / columns + 0.45), rows, columns)
    captions = write_captions(names, notes, WIDTH / columns)
    draw_images(grid, images, captions)
    return figure


@styled
def head_and_tail(
    head_images: np.ndarray,
    head_names: Sequence[str],
    head_counts: Sequence[int],
    tail_images: np.ndarray,
    tail_names: Sequence[str],
    tail_counts: Sequence[int],
) -> Figure:
    """Sheets of common species on the left and of rare ones on the right.

    Args:
        head_images, tail_images: uint8 [N, H, W, 3], two to six of each.
        head_names, tail_names: species of each sheet.
        head_counts, tail_counts: train images of that species.
    """
    title = f"Common species have {range_text(head_counts)} train images, rare ones {range_text(tail_counts)}"
    if min(head_counts) <= max(tail_counts):
        title = f"Common and rare species have about as many train images: {range_text([*head_counts, *tail_counts])}"
    rows = -(-max(len(head_images), len(tail_images)) // 2)
    names, counts = [*head_names, *tail_names], [*head_counts, *tail_counts]
    captions = write_captions(names, [f"{count:,} train images" for count in counts], WIDTH / 4)
    figure = empty_figure(title, 0.8 + rows * (WIDTH / 4 + 0.45))
    halves = figure.subfigures(1, 2, wspace=0.04)
    for panel, end, images, texts, of in (
        (halves[0], "commonest", head_images, captions[: len(head_images)], head_counts),
        (halves[1], "rarest", tail_images, captions[len(head_images) :], tail_counts),
    ):
        (*found,) = dict.fromkeys(
            bins(np.asarray(of)).tolist()
        )  # few images a species: even these are no head
        colour = ink(found[0]) if len(found) == 1 else GREY
        panel.suptitle(f"{end} ({', '.join(found)})", color=colour, fontweight="semibold")
        draw_images(panel.subplots(rows, 2, squeeze=False), images, texts)
    return figure


@styled
def augmentations(original: np.ndarray, augmented: np.ndarray, columns: int = 6) -> Figure:
    """One sheet as it is and as training sees it.

    Args:
        original: uint8 [S, S, 3].
        augmented: uint8 [N, S, S, 3], the same sheet augmented N times.
        columns: images in a row.
    """
    distinct = len(np.unique(np.asarray(augmented).reshape(len(augmented), -1), axis=0))
    if distinct > 1:
        title = (
            f"Training sees the same sheet anew each time: {distinct} different images of {len(augmented)}"
        )
    else:
        title = f"Augmentation is off: all {len(augmented)} images are the same"
    images = [original, *augmented]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, grid = new_figure(title, 0.5 + rows * (WIDTH / columns + 0.2), rows, columns)
    draw_images(grid, images, ["the sheet", *(f"epoch {number}" for number in range(1, len(images)))])
    return figure


@styled
def nearest_sheets(images: np.ndarray, classes: np.ndarray, labels: LabelMap) -> Figure:
    """Held-out sheets, each at the left of its row, and the training sheets nearest to them, the nearest first.

    Args:
        images: uint8 [N, 1 + K, S, S, 3].
        classes: their class indices, int [N, 1 + K].
        labels: species, genus and family of the classes.
    """
    rows, columns = classes.shape
    own = classes[:, :1]
    kinship = np.select(
        [of[classes] == of[own] for of in (labels.names, labels.genera, labels.families)],
        ["same species", "same genus", "same family"],
        "another family",
    )
    same = int((kinship[:, 1:] == "same species").sum())
    related = int((kinship[:, 1:] != "another family").sum())
    title = (
        f"Of the {rows * (columns - 1)} nearest training sheets, {same} are of the species of the sheet at their "
        f"left, {related} of its family"
    )
    kinship[:, 0] = "held out"
    figure, grid = new_figure(title, 0.45 + rows * (WIDTH / columns + 0.6), rows, columns)
    captions = write_captions(
        labels.names[classes.ravel()].tolist(), kinship.ravel().tolist(), WIDTH / columns
    )
    draw_images(grid, images.reshape(-1, *images.shape[2:]), captions)
    return figure


@styled
def throughput(table: pd.DataFrame) -> Figure:
    """Input speed of several ways to read; table: columns way and images_per_second."""
    table = table.sort_values("images_per_second", ascending=False)
    rates = table["images_per_second"].to_numpy()
    if len(rates) > 1 and rates[0] >= 1.05 * rates[-1]:
        slowest = table["way"].iloc[-1]
        title = f"Fastest: {table['way'].iloc[0]}, {rates[0] / rates[-1]:.1f} times the slowest ({slowest})"
    elif len(rates) > 1:
        title = f"All ways read about {rates.mean():,.0f} images a second"
    else:
        title = f"{table['way'].iloc[0]}: {rates[0]:,.0f} images a second"
    figure, ((axes,),) = new_figure(title, 1.4 + 0.36 * len(table))
    draw_bars(axes, table["way"], rates, [f"{rate:,.0f}" for rate in rates], color=GREY)
    axes.set_xlabel("images a second")
    count_axis(axes.xaxis)
    return figure
