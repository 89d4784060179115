"""Figures that compare methods for the long tail (notebooks 06 and 07)."""

import itertools
import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from utils.data.tail import BINS
from utils.figures.style import (
    BIN_COLOURS,
    BIN_RULES,
    BLACK,
    GREY,
    LOOKS,
    WINE,
    count_axis,
    draw_bin,
    new_figure,
    no_ticks,
    styled,
)


@styled
def by_class_size(panels: dict[str, dict[str, np.ndarray]], train_counts: np.ndarray, title: str) -> Figure:
    """What methods give a species by its number of train images, one panel beside the other.

    Args:
        panels: label of the vertical axis -> name of the curve -> float [C].
        train_counts: int [C].
        title: what to see; the legend is of the panel with several curves, of which there is at most one.
    """
    train_counts = np.asarray(train_counts)
    order = np.argsort(train_counts, kind="stable")
    figure, (row,) = new_figure(title, 3.6, 1, len(panels))
    for axes, (label, curves) in zip(row, panels.items(), strict=True):
        for (name, values), (colour, line) in zip(curves.items(), itertools.cycle(LOOKS), strict=False):
            axes.plot(train_counts[order], np.asarray(values)[order], color=colour, ls=line, label=name)
        axes.set(xlabel="train images of the species", ylabel=label, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        count_axis(axes.xaxis)
        if len(curves) > 1:
            figure.legend(
                *axes.get_legend_handles_labels(), loc="outside lower left", ncols=len(curves), fontsize=9
            )
    return figure


@styled
def gains_by_bin(gains: pd.DataFrame, base: str) -> Figure:
    """Gain of every method over another in head, medium and tail, in points of macro-F1.

    Args:
        gains: from gains_over() of utils.experiments.table: method, metric ("head_f1", ...), gain, low, high.
        base: what they are compared with.
    """
    of_bins = gains[gains["metric"].isin([f"{name}_f1" for name in BINS])].dropna(subset="gain")
    tail = of_bins[of_bins["metric"] == f"{BINS[-1]}_f1"].set_index("method")["gain"]
    best = tail.idxmax() if len(tail) else None
    if best is None:
        title = f"Gain over {base}: no species in the tail"
    elif tail[best] <= 0:
        title = f"Nothing helps the tail more than {base}"
    else:
        head = of_bins[(of_bins["metric"] == f"{BINS[0]}_f1") & (of_bins["method"] == best)]["gain"]
        title = f"{best[:1].upper()}{best[1:]} gives the tail {100 * tail[best]:+z.1f} points over {base}"
        if len(head):
            title += f", the head {100 * head.iloc[0]:+z.1f}"
        low = of_bins[(of_bins["metric"] == f"{BINS[-1]}_f1") & (of_bins["method"] == best)]["low"].iloc[0]
        if gains["low"].equals(gains["high"]):
            title += ", on one network"
        elif low <= 0:
            title += "; seeds differ by more"
    methods = list(dict.fromkeys(of_bins["method"]))
    figure, ((axes,),) = new_figure(title, 1.5 + 0.36 * len(methods))
    for shift, name in zip((-0.22, 0, 0.22), BINS, strict=True):
        rows = of_bins[of_bins["metric"] == f"{name}_f1"]
        if rows.empty:
            continue
        places = np.array([methods.index(method) for method in rows["method"]]) + shift
        colour = BIN_COLOURS[name]
        axes.hlines(places, 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.35, lw=4)
        draw_bin(axes, name, 100 * rows["gain"], places, label=BIN_RULES[name])
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(methods)), [textwrap.fill(method, 44) for method in methods], fontsize=9)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel(f"gain over {base} (points of macro-F1)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


@styled
def head_tail_trade_off(results: pd.DataFrame, base: str) -> Figure:
    """Macro-F1 of the tail against that of the head, one point a method.

    Args:
        results: columns method, and head_f1 and tail_f1 as NAME_mean, NAME_min, NAME_max.
        base: the method that is drawn as a square and with lines through it.
    """
    results = results.dropna(subset=["head_f1_mean", "tail_f1_mean"]).reset_index(drop=True)
    at = results[results["method"] == base].iloc[0]
    others = results[results["method"] != base]
    raised = others["tail_f1_min"] > at["tail_f1_max"]
    lowered = others["head_f1_max"] < at["head_f1_min"]
    title = (
        f"{int(raised.sum())} of {len(others)} methods raise the tail by more than the seeds differ, "
        f"{int((raised & lowered).sum()) or 'none'} of these at the head's cost"
    )
    figure, (row,) = new_figure(title, max(4.6, 0.26 * len(results) + 1.2), 1, 2, width_ratios=(1.5, 1))
    axes, key = row
    axes.axvline(at["head_f1_mean"], color=GREY, lw=0.8)
    axes.axhline(at["tail_f1_mean"], color=GREY, lw=0.8)
    drawn = results[["head_f1_mean", "tail_f1_mean"]].to_numpy()
    for number, result in enumerate(results.itertuples(), start=1):
        is_base = result.method == base
        colour = BLACK if is_base else WINE
        x, y = result.head_f1_mean, result.tail_f1_mean
        axes.plot([result.head_f1_min, result.head_f1_max], [y, y], color=colour, lw=1, alpha=0.25)
        axes.plot([x, x], [result.tail_f1_min, result.tail_f1_max], color=colour, lw=1, alpha=0.25)
        axes.plot(x, y, "s" if is_base else "o", ms=5, color=colour)
        crowded = (
            (np.abs(drawn[: number - 1] - drawn[number - 1]) < 0.03 * np.ptp(drawn, axis=0)).all(axis=1).any()
        )
        place = (3, -10) if crowded else (3, 3)
        axes.annotate(str(number), (x, y), xytext=place, textcoords="offset points", fontsize=9)
    axes.set(xlabel="macro-F1 of the head", ylabel="macro-F1 of the tail")
    no_ticks(key)
    lines = [
        textwrap.fill(f"{number} {name}", 44, subsequent_indent="   ")
        for number, name in enumerate(results["method"], 1)
    ]
    key.text(0, 1, "\n".join(lines), va="top", fontsize=8.5, linespacing=1.35, transform=key.transAxes)
    return figure
