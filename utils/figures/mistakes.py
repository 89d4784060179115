"""Figures of mistakes, and of what a network looks at (notebook 04)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from utils.figures.style import (
    GREEN,
    GREY,
    LIGHT_GREY,
    OLIVE,
    WINE,
    draw_pairs,
    family_frames,
    italic,
    new_figure,
    no_ticks,
    percent_axis,
    share_text,
    styled,
    write_captions,
)


@styled
def genus_confusion(
    matrix: np.ndarray, genera: Sequence[str], families: Sequence[str], top: int = 40
) -> Figure:
    """True against predicted genus, each row as shares, genera ordered by family.

    Args:
        matrix: int [G, G] from genus_confusion() of utils.evaluation.scores.
        genera, families: name and family of every genus, [G].
        top: the genera with most scored sheets that are drawn; the title counts over all.
    """
    genera, families = np.asarray(genera), np.asarray(families)
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    _, family = np.unique(families, return_inverse=True)
    in_family = off[family[:, None] == family[None, :]].sum()
    if off.sum() == 0:
        title = "Every sheet gets the right genus"
    else:
        # what is drawn at random from the other genera, each as often as predicted
        predicted = matrix.sum(axis=0).astype(np.float64)
        mates = np.bincount(family, predicted)[family] - predicted
        others = predicted.sum() - predicted
        chance = np.average(mates / np.maximum(others, 1e-9), weights=off.sum(axis=1))
        share = in_family / off.sum()
        relation = "more" if share > chance else "not more"
        get = "gets" if off.sum() == 1 else "get"
        title = (
            f"{off.sum():,} of {matrix.sum():,} sheets {get} a wrong genus; {in_family:,} of these within the family "
            f"({share_text(share)}, {relation} than by chance, {share_text(chance)})"
        )
    chosen = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:top])
    order = chosen[np.lexsort((genera[chosen], families[chosen]))]
    shares = matrix[np.ix_(order, order)] / np.maximum(matrix.sum(axis=1)[order][:, None], 1)
    figure, ((axes,),) = new_figure(title, 6.4)
    names = [italic(name) for name in genera[order]]
    # the root scale keeps rare mistakes visible beside the diagonal
    sns.heatmap(
        shares,
        ax=axes,
        cmap="Greys",
        norm=PowerNorm(0.5, 0, 1),
        square=True,
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"label": "share of the sheets of the true genus", "shrink": 0.8},
    )
    axes.tick_params(labelsize=8.5 if len(order) <= 25 else 7)
    family_frames(axes, families[order], first=0, colour=OLIVE, width=1.5)
    part = f" ({len(order)} of {len(genera):,} genera)" if len(order) < len(genera) else ""
    axes.set(xlabel="predicted genus", ylabel=f"true genus{part}; a frame is a family")
    percent_axis(axes.collections[0].colorbar.ax.yaxis)
    return figure


@styled
def mistakes_by_kind(table: pd.DataFrame) -> Figure:
    """Share of mistakes of each kind beside chance; table from that of utils.evaluation.scores."""
    total = int(table["mistakes"].sum())
    ratio = table.set_index("kind")["ratio"]["within genus"]
    if total == 0:
        title = "There are no mistakes"
    elif np.isnan(ratio):
        title = f"None of the {total:,} mistakes could fall within a genus"
    elif ratio > 1:
        title = f"Genus-mates are confused {ratio:.1f} times as often as by chance ({total:,} mistakes)"
    else:
        title = (
            f"Genus-mates are not confused more often than by chance ({ratio:.1f} times, {total:,} mistakes)"
        )
    figure, ((axes,),) = new_figure(title, 3.3)
    names = {"within family": "within family,\nother genus"}
    shares = table[["share", "chance"]].fillna(0)
    pairs = [("mistakes of the model", WINE, shares["share"]), ("by chance", LIGHT_GREY, shares["chance"])]
    draw_pairs(axes, [names.get(kind, kind) for kind in table["kind"]], pairs)
    axes.set(ylabel="share of the mistakes", ylim=(0, max(1.12 * shares.to_numpy().max(), 0.1)))
    percent_axis(axes.yaxis)
    axes.legend()
    return figure


@styled
def grad_cam(
    images: np.ndarray,
    heatmaps: np.ndarray,
    true_names: Sequence[str] | None,
    top_names: Sequence[Sequence[str]],
    probabilities: np.ndarray,
) -> Figure:
    """Sheet, Grad-CAM overlay and the most probable species, one sheet a row.

    Args:
        images: uint8 [N, H, W, 3].
        heatmaps: float [N, H, W] in 0..1, from utils.figures.explain, of the most probable species.
        true_names: species of each sheet, None where unknown.
        top_names: the k most probable species of each sheet.
        probabilities: float [N, k].
    """
    title = f"What speaks for the first answer on {len(images)} sheets"
    if true_names is not None:
        right = sum(name == names[0] for name, names in zip(true_names, top_names, strict=True))
        title += f"; {right} of {len(images)} are right"
    figure, grid = new_figure(title, 0.5 + 2.25 * len(images), len(images), 3, width_ratios=(1, 1, 1.55))
    for i, (sheet, overlay, bars) in enumerate(grid):
        for axes in (sheet, overlay):
            no_ticks(axes)
            axes.imshow(images[i])
        overlay.imshow(heatmaps[i], cmap="inferno", alpha=0.55, vmin=0, vmax=1)
        known = "" if true_names is None else f"true: {true_names[i]}"
        captions = write_captions([known, f"answer: {top_names[i][0]}"], None, 2.4)
        for axes, caption in zip((sheet, overlay), captions, strict=True):
            axes.set_title(caption, fontsize=9, pad=3)
        places = np.arange(len(top_names[i]))
        colours = [
            WINE if true_names is None else GREEN if name == true_names[i] else GREY for name in top_names[i]
        ]
        bars.barh(places, probabilities[i], color=colours, height=0.9, alpha=0.55)
        for place, name, probability in zip(places, top_names[i], probabilities[i], strict=True):
            bars.text(0.02, place, f"{italic(name)}  {share_text(probability)}", va="center", fontsize=9)
        bars.invert_yaxis()
        bars.set(xlim=(0, 1), yticks=[], xticks=[0, 0.5, 1])
        bars.grid(False)
        bars.spines["left"].set_visible(False)
        percent_axis(bars.xaxis)
        bars.tick_params(axis="x", labelsize=8)
        if i == len(images) - 1:
            bars.set_xlabel("probability" + ("" if true_names is None else " (green: the true species)"))
    return figure
