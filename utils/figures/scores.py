"""Figures of scores: by species, bin and family, against baselines, and how sure they are (notebooks 04 and 05)."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.data.tail import BINS, HEAD_MIN, TAIL_MAX, bins
from utils.figures.style import (
    BIN_RULES,
    BLACK,
    GREEN,
    GREY,
    LIGHT_GREY,
    MANY,
    SKY,
    WINE,
    colour_bins,
    count_axis,
    draw_bars,
    draw_bin,
    draw_pairs,
    head_tail_title,
    new_figure,
    percent_axis,
    share_text,
    styled,
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
        for name in means:
            draw_bin(axes, name, train_counts[groups == name], f1[groups == name], alpha=0.65, mew=0)
    low, high = train_counts.min(), train_counts.max()
    limits = {"tail": (low, TAIL_MAX), "medium": (TAIL_MAX + 1, HEAD_MIN - 1), "head": (HEAD_MIN, high)}
    for name, mean in means.items():
        left, right = max(limits[name][0], low), min(limits[name][1], high)
        label = f"{BIN_RULES[name]}, mean {mean:.2f}"
        line = {"ls": "-", "lw": 3, "ms": 0, "solid_capstyle": "butt"}
        draw_bin(axes, name, [left - 0.5, right + 0.5], [mean, mean], zorder=1, **line)
        draw_bin(axes, name, [], [], label=label)
    axes.set(xlabel="train images of the species", ylabel="F1 on the scored sheets", ylim=(-0.04, 1.06))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=9)
    return figure


@styled
def scores_by_bin(table: pd.DataFrame) -> Figure:
    """Macro-F1 and accuracy of head, medium and tail; table from utils.evaluation.scores."""
    table = table[table["species"] > 0]
    means = dict(zip(table["bin"], table["macro_f1"], strict=True))
    figure, ((axes,),) = new_figure(head_tail_title(means, "Macro-F1"), 3.5)
    names = [
        f"{BIN_RULES[row.bin]}\n{row.species:,} species\n{row.test_images:,} scored sheets"
        for row in table.itertuples()
    ]
    pairs = [("macro-F1", WINE, table["macro_f1"]), ("accuracy", (WINE, 0.45), table["accuracy"])]
    draw_pairs(axes, names, pairs, lambda value: "no sheet" if np.isnan(value) else f"{value:.2f}")
    colour_bins(axes.xaxis, table["bin"])
    axes.set(ylabel="score", ylim=(0, 1.1))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9)
    return figure


@styled
def scores_by_family(table: pd.DataFrame, top: int = 20) -> Figure:
    """Macro-F1 of the families with most scored sheets, beside that of species with as many train images.

    Args:
        table: from scores_by_family() of utils.evaluation.scores.
        top: how many to show.
    """
    shown = table.head(top).sort_values("macro_f1", ascending=False)
    best, worst = shown.iloc[0], shown.iloc[-1]
    behind = shown["macro_f1"] - shown["equal_images"]
    if len(shown) == 1:
        title = f"{best['family']}: macro-F1 {best['macro_f1']:.2f}"
    elif best["macro_f1"] - worst["macro_f1"] < 0.05:
        title = f"All families score about alike: macro-F1 {worst['macro_f1']:.2f} to {best['macro_f1']:.2f}"
    else:
        title = (
            f"{best['family']} has the highest macro-F1 ({best['macro_f1']:.2f}), {worst['family']} the lowest "
            f"({worst['macro_f1']:.2f}); at equal images "
        )
        if behind.min() > -0.05:
            title += "none is 0.05 below the others"
        else:
            title += f"{shown['family'][behind.idxmin()]} is hardest ({behind.min():+.2f})"
    if len(shown) < len(table):
        title += f", of the {len(shown)} families with most scored sheets"
    figure, ((axes,),) = new_figure(title, 1.6 + 0.25 * len(shown))
    texts = [
        f"{row.macro_f1:.2f}  ({row.species:,} species, {row.train_images:.0f} train images each)"
        for row in shown.itertuples()
    ]
    draw_bars(axes, shown["family"], shown["macro_f1"], [""] * len(shown), color=WINE)
    mark = {
        "color": BLACK,
        "marker": "|",
        "ms": 14,
        "mew": 3,
        "ls": "",
        "label": "species with as many images",
    }
    axes.plot(shown["equal_images"], np.arange(len(shown)), **mark)
    for place, end in enumerate(shown[["macro_f1", "equal_images"]].max(axis=1)):
        axes.text(end + 0.03, place, texts[place], va="center", fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", fontsize=9)
    axes.set(xlabel="macro-F1 over the species of the family", xlim=(0, 1.6))
    axes.set_xticks(np.linspace(0, 1, 6))
    return figure


@styled
def reliability(table: pd.DataFrame, ece: float) -> Figure:
    """Accuracy against confidence, and how many sheets have which confidence.

    Args:
        table: from reliability() of utils.experiments.decide.
        ece: expected calibration error, from utils.experiments.decide.
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
        filled["lower"],
        filled["accuracy"],
        width,
        align="edge",
        color=GREEN,
        ec="white",
        label="right answers",
    )
    left.hlines(
        filled["confidence"], filled["lower"], filled["upper"], color=BLACK, lw=3, label="mean confidence"
    )
    left.plot([0, 1], [0, 1], "--", color=GREY, lw=1)
    left.set(
        xlabel="confidence (probability of the answer)", ylabel="right answers", xlim=(0, 1), ylim=(0, 1.02)
    )
    right.bar(table["lower"], images / images.sum(), width, align="edge", color=LIGHT_GREY, ec="white")
    right.axvline(confidence, color=BLACK, lw=3)
    right.axvline(accuracy, color=GREEN, lw=3)
    right.set(xlabel="confidence", ylabel="share of the sheets", xlim=(0, 1))
    right.set_title("lines: over all sheets", fontsize=9)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9)
    for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
        percent_axis(axis)
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
    partly = str(better["on"]).split(",")[0] if pd.notna(better.get("on")) else "all"
    if not partly.startswith("all"):
        title = (
            f"Macro-F1 {model['macro_f1']:.3f} on all species; the better baseline has {better['macro_f1']:.3f} on "
            f"{partly}, which is easier"
        )
    elif model["macro_f1"] > better["macro_f1"]:
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
    colours = [WINE] + [GREY] * len(others)
    drawn = axes.barh(places - 0.19, table["macro_f1"], 0.36, color=colours)
    axes.bar_label(drawn, [f"macro-F1 {value:.3f}" for value in table["macro_f1"]], padding=3, fontsize=9)
    drawn = axes.barh(places + 0.19, table["accuracy"], 0.36, color=colours, alpha=0.45)
    axes.bar_label(drawn, [f"accuracy {value:.3f}" for value in table["accuracy"]], padding=3, fontsize=9)
    names = table["method"].str.replace(
        r"(\d) x (\d)", "\\1\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}\\2", regex=True
    )
    if "on" in table:
        partly = table["on"].notna() & ~table["on"].astype(str).str.startswith("all ")
        names = names.where(~partly, names + " (on " + table["on"].astype(str) + ")")
    axes.set_yticks(places, [textwrap.fill(name, 24) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="score", xlim=(0, 1.2))
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
    common = next(name for name in BINS if (groups == name).any())  # few images a species: there is no head
    answered, trained = shares.loc[common, ["answers", "train"]]
    drift = answered - trained
    if abs(drift) < 0.02:
        title = f"The {common} gets its share of the answers: {share_text(answered)}"
    else:
        word = "more" if drift > 0 else "less"
        title = (
            f"The {common} gets {word} than its share: {share_text(answered)} of the answers, "
            f"{share_text(trained)} of the train images"
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
            color=WINE,
            alpha=0.3,
            lw=0,
            label="answers, middle 80% of 100 groups",
        )
        row[0].plot(middle, [part.mean() for part in parts], color=WINE, label="answers, mean of a group")
    else:
        row[0].bar(ranks, given[order], color=WINE, width=0.85, label="answers")
    row[0].plot(ranks, expected, color=SKY, lw=2.5, label="by share of the train images")
    row[0].set(xlabel="species, most train images first (rank)", ylabel="answers (sheets)")
    row[0].set_ylim(0, row[0].get_ylim()[1] * 1.1)
    count_axis(row[0].xaxis)
    row[0].xaxis.set_major_locator(MaxNLocator(5))
    pairs = [("train images", SKY, shares["train"]), ("answers", WINE, shares["answers"])]
    draw_pairs(row[1], BINS, pairs, fontsize=8)
    colour_bins(row[1].xaxis, BINS)
    row[1].set(ylabel="share")
    row[1].set_ylim(top=shares.to_numpy().max() * 1.1)
    percent_axis(row[1].yaxis)
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=9)
    return figure


@styled
def left_to_the_machine(curve: pd.DataFrame, sure: float) -> Figure:
    """The error among the sheets that are named without a person, against their share of all sheets.

    Args:
        curve: from curve() of utils.own.answers.Measured, columns sure, share, error; `sure` rises.
        sure: the threshold that is marked.
    """
    shown = curve.dropna()
    at = shown[shown["sure"] >= sure - 1e-9]
    if at.empty:
        title = f"No sheet is named at a probability of {sure:.0%}"
    else:
        row = at.iloc[0]
        wrong = share_text(row["error"])
        named = f"{share_text(row['share'])} of the sheets named to species, {wrong} of these wrongly"
        title = f"At a threshold of {row['sure']:.0%}: {named}"
    figure, ((axes,),) = new_figure(title, 3.4)
    axes.plot(shown["share"], shown["error"], color=WINE)
    top = max(0.05, 1.2 * shown["error"].max() if len(shown) else 0)
    labelled: list[tuple[float, float]] = []  # places, in parts of the panel
    for row in shown.iloc[:: max(len(shown) // 6, 1)].itertuples():
        place = row.share, row.error / top
        if all(abs(place[0] - x) > 0.06 or abs(place[1] - y) > 0.08 for x, y in labelled):
            labelled.append(place)
            axes.plot(row.share, row.error, "o", color=WINE, ms=4)
            axes.annotate(
                f"{row.sure:.0%}", (row.share, row.error), (4, 4), textcoords="offset points", fontsize=9
            )
    if not at.empty:
        axes.plot(row_share := at.iloc[0]["share"], at.iloc[0]["error"], "s", color=BLACK, ms=7)
        axes.axvline(row_share, color=BLACK, ls="--", lw=1)
    axes.set(xlabel="share of the sheets named to species (beside the points: threshold)", xlim=(0, 1.05))
    axes.set(ylabel="wrong among them", ylim=(0, top))
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    return figure
