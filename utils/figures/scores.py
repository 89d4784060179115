"""Figures of scores, mistakes and what a network looks at (notebooks 04 and 05)."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.data.tail import BINS, HEAD_MIN, TAIL_MAX, bins
from utils.figures.style import (
    BIN_COLOURS,
    BIN_RULES,
    BLUE,
    GREEN,
    GREY,
    MANY,
    SKY,
    VERMILION,
    count_axis,
    draw_bars,
    head_tail_title,
    italic,
    new_figure,
    no_ticks,
    percent_axis,
    share_text,
    styled,
    write_captions,
)


@styled
def f1_against_images(f1: np.ndarray, train_counts: np.ndarray) -> Figure:
    """F1 of every species against its train images, with the mean of each bin.

    Args:
        f1: float [C], from per_class_f1().
        train_counts: int [C].
    """
    f1, train_counts = np.asarray(f1), np.asarray(train_counts)
    groups = bins(train_counts)
    means = {name: f1[groups == name].mean() for name in BINS if (groups == name).any()}
    figure, ((axes,),) = new_figure(head_tail_title(means, "Mean F1"), 3.8)
    if len(f1) > MANY:
        drawn = axes.hexbin(train_counts, f1, gridsize=(40, 20), bins="log", cmap="Greys", mincnt=1, lw=0.2)
        figure.colorbar(drawn, ax=axes, label="species (log scale)")
        axes.grid(False)
    else:
        axes.scatter(train_counts, f1, s=26, alpha=0.65, c=[BIN_COLOURS[name] for name in groups], lw=0)
    low, high = train_counts.min(), train_counts.max()
    limits = {"tail": (low, TAIL_MAX), "medium": (TAIL_MAX + 1, HEAD_MIN - 1), "head": (HEAD_MIN, high)}
    for name, mean in means.items():
        left, right = max(limits[name][0], low), min(limits[name][1], high)
        axes.plot(
            [left - 0.5, right + 0.5], [mean, mean], color=BIN_COLOURS[name], lw=4, solid_capstyle="butt"
        )
        axes.text(
            (left + right) / 2,
            mean + 0.02,
            f"{name} {mean:.2f}",
            ha="center",
            va="bottom",
            fontweight="semibold",
            bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1},
        )
    axes.set(xlabel="train images of the species", ylabel="F1 on the test sheets", ylim=(-0.04, 1.1))
    return figure


@styled
def scores_by_bin(table: pd.DataFrame) -> Figure:
    """Macro-F1 and accuracy of head, medium and tail; table from mistakes.scores_by_bin()."""
    table = table[table["species"] > 0]
    means = dict(zip(table["bin"], table["macro_f1"], strict=True))
    figure, ((axes,),) = new_figure(head_tail_title(means, "Macro-F1"), 3.5)
    places = np.arange(len(table))
    for shift, column, colour, label in (
        (-0.2, "macro_f1", BLUE, "macro-F1"),
        (0.2, "accuracy", SKY, "accuracy"),
    ):
        drawn = axes.bar(places + shift, table[column].fillna(0), 0.38, color=colour, label=label)
        texts = ["no sheet" if np.isnan(value) else f"{value:.2f}" for value in table[column]]
        axes.bar_label(drawn, texts, padding=2, fontsize=9)
    texts = [
        f"{BIN_RULES[row.bin]}\n{row.species:,} species\n{row.test_images:,} test sheets"
        for row in table.itertuples()
    ]
    axes.set_xticks(places, texts)
    axes.set(ylabel="score", ylim=(0, 1.1))
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=2, loc="upper right")
    return figure


@styled
def scores_by_family(table: pd.DataFrame, top: int = 20) -> Figure:
    """Macro-F1 of the families with most test sheets; table from mistakes.scores_by_family()."""
    shown = table.head(top).sort_values("macro_f1", ascending=False)
    best, worst = shown.iloc[0], shown.iloc[-1]
    if len(shown) == 1:
        title = f"{best['family']}: macro-F1 {best['macro_f1']:.2f}"
    elif best["macro_f1"] - worst["macro_f1"] < 0.05:
        title = f"All families score about alike: macro-F1 {worst['macro_f1']:.2f} to {best['macro_f1']:.2f}"
    else:
        title = (
            f"{best['family']} is easiest (macro-F1 {best['macro_f1']:.2f}), "
            f"{worst['family']} hardest ({worst['macro_f1']:.2f})"
        )
    if len(shown) < len(table):
        title += f", of the {len(shown)} families with most test sheets"
    figure, ((axes,),) = new_figure(title, 1.3 + 0.25 * len(shown))
    texts = [f"{row.macro_f1:.2f}  ({row.species:,} species)" for row in shown.itertuples()]
    draw_bars(axes, shown["family"], shown["macro_f1"], texts, color=BLUE)
    axes.set(xlabel="macro-F1 over the species of the family", xlim=(0, 1.25))
    axes.set_xticks(np.linspace(0, 1, 6))
    return figure


@styled
def genus_confusion(
    matrix: np.ndarray, genera: Sequence[str], families: Sequence[str], top: int = 40
) -> Figure:
    """True against predicted genus, each row as shares, genera ordered by family.

    Args:
        matrix: int [G, G] from mistakes.genus_confusion().
        genera, families: name and family of every genus, [G].
        top: the genera with most test sheets that are drawn; the title counts over all.
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
        title = (
            f"{share_text(off.sum() / matrix.sum())} of the sheets get a wrong genus; {share_text(share)} of "
            f"these stay in the family, {relation} than by chance ({share_text(chance)})"
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
        cmap="Blues",
        norm=PowerNorm(0.5, 0, 1),
        square=True,
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"label": "share of the sheets of the true genus", "shrink": 0.8},
    )
    axes.tick_params(labelsize=8.5 if len(order) <= 25 else 7)
    starts = np.flatnonzero(np.r_[True, families[order][1:] != families[order][:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(order)], strict=True):
        side = end - start
        axes.add_patch(plt.Rectangle((start, start), side, side, fill=False, ec=VERMILION, lw=1.2))
    part = f" ({len(order)} of {len(genera):,} genera)" if len(order) < len(genera) else ""
    axes.set(xlabel="predicted genus", ylabel=f"true genus{part}; a frame is a family")
    percent_axis(axes.collections[0].colorbar.ax.yaxis)
    return figure


@styled
def mistakes_by_kind(table: pd.DataFrame) -> Figure:
    """Share of mistakes of each kind beside chance; table from mistakes.mistakes_by_kind()."""
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
    places = np.arange(len(table))
    for shift, column, colour, label in (
        (-0.2, "share", BLUE, "mistakes of the model"),
        (0.2, "chance", "#BDBDBD", "by chance"),
    ):
        drawn = axes.bar(places + shift, table[column].fillna(0), 0.38, color=colour, label=label)
        axes.bar_label(drawn, [share_text(value) for value in table[column].fillna(0)], padding=2, fontsize=9)
    texts = {"within family": "within family,\nother genus"}
    axes.set_xticks(places, [texts.get(kind, kind) for kind in table["kind"]])
    axes.set(ylabel="share of the mistakes")
    axes.set_ylim(0, max(1.12 * np.nanmax(table[["share", "chance"]].fillna(0).to_numpy()), 0.1))
    axes.grid(axis="x", visible=False)
    percent_axis(axes.yaxis)
    axes.legend()
    return figure


@styled
def reliability(table: pd.DataFrame, ece: float) -> Figure:
    """Accuracy against confidence, and how many sheets have which confidence.

    Args:
        table: from calibration.reliability().
        ece: from calibration.expected_calibration_error().
    """
    images = table["images"].to_numpy()
    confidence, accuracy = (
        np.average(table[column].fillna(0), weights=images) for column in ("confidence", "accuracy")
    )
    means = f"mean confidence {share_text(confidence)}, right {share_text(accuracy)}"
    if ece < 0.03:
        title = f"Well calibrated: {means} (ECE {ece:.3f})"
    elif abs(confidence - accuracy) < ece / 3:
        title = f"Over-confident in places and under-confident in others: {means} (ECE {ece:.3f})"
    else:
        word = "Over" if confidence > accuracy else "Under"
        title = f"{word}-confident: {means} (ECE {ece:.3f})"
    figure, (row,) = new_figure(title, 3.8, 1, 2, width_ratios=(1.1, 1))
    left, right = row
    filled = table[table["images"] > 0]
    width = (table["upper"] - table["lower"]).iloc[0]
    left.bar(
        filled["lower"], filled["accuracy"], width, align="edge", color=SKY, ec="white", label="right answers"
    )
    left.hlines(
        filled["confidence"], filled["lower"], filled["upper"], color=VERMILION, lw=3, label="mean confidence"
    )
    left.plot([0, 1], [0, 1], "--", color=GREY, lw=1)
    left.set(
        xlabel="confidence (probability of the answer)", ylabel="right answers", xlim=(0, 1), ylim=(0, 1.25)
    )
    left.set_yticks(np.linspace(0, 1, 6))
    left.legend(loc="upper left", ncols=2, fontsize=9)
    right.bar(table["lower"], images / images.sum(), width, align="edge", color="#BDBDBD", ec="white")
    right.axvline(confidence, color=VERMILION, ls="--", label=f"mean confidence {confidence:.2f}")
    right.axvline(accuracy, color=BLUE, label=f"accuracy {accuracy:.2f}")
    right.set(xlabel="confidence", ylabel="share of the sheets", xlim=(0, 1))
    right.set_ylim(top=1.35 * (images / images.sum()).max())
    right.legend(loc="upper left", fontsize=9, frameon=True, framealpha=1, edgecolor="none")
    for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
        percent_axis(axis)
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
        heatmaps: float [N, H, W] in 0..1, from explain.grad_cam(), of the most probable species.
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
            SKY if true_names is None else GREEN if name == true_names[i] else GREY for name in top_names[i]
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


@styled
def against_baselines(table: pd.DataFrame) -> Figure:
    """Macro-F1 of the network beside the baselines.

    Args:
        table: columns method, macro_f1, accuracy, and on (which species, in words) where baselines() took a part
            of them; the first row is the network.
    """
    model, others = table.iloc[0], table.iloc[1:]
    better = others.loc[others["macro_f1"].idxmax()]
    if model["macro_f1"] > better["macro_f1"]:
        times = model["macro_f1"] / max(better["macro_f1"], 1e-9)
        factor = f"{times:.1f} times" if times < 100 else "over 100 times"
        title = f"Macro-F1 {model['macro_f1']:.3f}: {factor} the better baseline ({better['macro_f1']:.3f})"
    else:
        title = (
            f"The network does not beat the better baseline: macro-F1 {model['macro_f1']:.3f} "
            f"against {better['macro_f1']:.3f}"
        )
    figure, ((axes,),) = new_figure(title, 1.4 + 0.55 * len(table))
    places = np.arange(len(table))
    colours = [BLUE] + [GREY] * len(others)
    drawn = axes.barh(places - 0.19, table["macro_f1"], 0.36, color=colours)
    axes.bar_label(drawn, [f"macro-F1 {value:.3f}" for value in table["macro_f1"]], padding=3, fontsize=9)
    drawn = axes.barh(places + 0.19, table["accuracy"], 0.36, color=colours, alpha=0.45)
    axes.bar_label(drawn, [f"accuracy {value:.3f}" for value in table["accuracy"]], padding=3, fontsize=9)
    names = table["method"]
    if "on" in table:
        partly = table["on"].notna() & ~table["on"].astype(str).str.startswith("all ")
        names = names.where(~partly, names + " (on " + table["on"].astype(str) + ")")
    axes.set_yticks(places, [textwrap.fill(name, 24) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="score on the test sheets", xlim=(0, 1.2))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="y", visible=False)
    return figure


@styled
def predicted_classes(predicted: np.ndarray, train_counts: np.ndarray) -> Figure:
    """How often each species is predicted, beside its share of the train images.

    Args:
        predicted: class indices, int [N].
        train_counts: int [C].
    """
    train_counts = np.asarray(train_counts)
    given = np.bincount(predicted, minlength=len(train_counts))
    groups = bins(train_counts)
    never = int((given == 0).sum())
    shares = pd.DataFrame(
        {
            "train": [train_counts[groups == name].sum() / train_counts.sum() for name in BINS],
            "answers": [given[groups == name].sum() / len(predicted) for name in BINS],
        },
        index=list(BINS),
    )
    drift = shares["answers"]["head"] - shares["train"]["head"]
    if abs(drift) < 0.02:
        title = f"The head gets its share of the answers: {share_text(shares['answers']['head'])}"
    else:
        word = "more" if drift > 0 else "less"
        title = (
            f"The head gets {word} than its share: {share_text(shares['answers']['head'])} of the answers, "
            f"{share_text(shares['train']['head'])} of the train images"
        )
    title += (
        f"; {never:,} of {len(given):,} species are never answered"
        if never
        else "; every species is answered"
    )
    figure, (row,) = new_figure(title, 3.5, 1, 2, width_ratios=(1.5, 1))
    order = np.argsort(-train_counts, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    expected = train_counts[order] / train_counts.sum() * len(predicted)
    if len(order) > MANY:
        # one dot a species would be a solid block
        edges = np.linspace(0, len(order), 101).astype(int)
        middle = (edges[1:] + edges[:-1]) / 2
        parts = np.split(given[order], edges[1:-1])
        row[0].fill_between(
            middle,
            [np.quantile(part, 0.1) for part in parts],
            [np.quantile(part, 0.9) for part in parts],
            color=SKY,
            alpha=0.5,
            lw=0,
            label="answers, middle 80% of 100 groups",
        )
        row[0].plot(middle, [part.mean() for part in parts], color=BLUE, label="answers, mean of a group")
    else:
        row[0].bar(ranks, given[order], color=BLUE, width=0.85, label="answers")
    row[0].plot(ranks, expected, color=VERMILION, label="by share of the train images")
    row[0].set(xlabel="species, most train images first (rank)", ylabel="answers (sheets)")
    row[0].set_ylim(0, row[0].get_ylim()[1] * 1.1)
    count_axis(row[0].xaxis)
    row[0].xaxis.set_major_locator(MaxNLocator(5))
    row[0].legend(fontsize=9)
    places = np.arange(len(BINS))
    for shift, column, colour, label in (
        (-0.2, "train", VERMILION, "train images"),
        (0.2, "answers", BLUE, "answers"),
    ):
        drawn = row[1].bar(places + shift, shares[column], 0.38, color=colour, label=label)
        row[1].bar_label(drawn, [share_text(value) for value in shares[column]], padding=2, fontsize=8)
    row[1].set_xticks(places, BINS)
    row[1].set(ylabel="share")
    row[1].set_ylim(top=shares.to_numpy().max() * 1.3)
    row[1].grid(axis="x", visible=False)
    percent_axis(row[1].yaxis)
    row[1].legend(fontsize=9)
    return figure
