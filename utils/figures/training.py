"""Figures of training (notebook 03)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from utils.figures.style import BLACK, GREY, LIGHT_GREY, SKY, WINE, new_figure, styled

if TYPE_CHECKING:
    from utils.experiments.range_test import RangeReading


@styled
def cross_entropy_curve(smoothing: float = 0.1, species: int = 40) -> Figure:
    """The loss of one image against the probability that its true species was given.

    Args:
        smoothing: label smoothing of the second curve, with the rest of the probability spread evenly.
        species: how many there are.
    """
    given = np.linspace(0.005, 0.995, 400)
    wanted, other = 1 - smoothing + smoothing / species, smoothing / species
    smoothed = -wanted * np.log(given) - (species - 1) * other * np.log((1 - given) / (species - 1))
    lowest = given[smoothed.argmin()]
    title = f"The surer of a wrong answer, the higher the loss; smoothed labels want {lowest:.2f} and not 1"
    figure, ((axes,),) = new_figure(title, 3.2)
    axes.plot(given, -np.log(given), color=SKY, label="cross-entropy: −log p")
    label = f"with label smoothing {smoothing:g}, {species} species"
    axes.plot(given, smoothed, color=GREY, ls="--", label=label)
    for share in (0.9, 0.5, 0.1, 0.05):
        loss = -np.log(share)
        axes.plot(share, loss, "o", color=BLACK, ms=5)
        axes.annotate(f"{loss:.2f}", (share, loss), xytext=(-4, -14), ha="right", textcoords="offset points")
    axes.set(xlabel="probability p that the true species was given", ylabel="loss (nats)", xlim=(0, 1))
    axes.set_ylim(-0.7, 5.5)
    axes.legend(loc="upper right")
    return figure


@styled
def learning_rate_schedule(rates: np.ndarray, steps_per_epoch: int) -> Figure:
    """The learning rate of every step; rates float [steps]."""
    rates = np.asarray(rates)
    epochs = np.arange(len(rates)) / steps_per_epoch
    peak = int(rates.argmax())
    if rates.max() > 1.01 * rates.min():
        title = (
            f"The learning rate climbs from {rates[0]:.2g} to {rates[peak]:.2g} in {epochs[peak]:.1f} epochs "
            f"and ends at {rates[-1]:.2g}"
        )
        if peak == 0:
            title = f"The learning rate falls from {rates[0]:.2g} to {rates[-1]:.2g}"
    else:
        title = f"The learning rate stays at {rates[0]:.2g}"
    figure, ((axes,),) = new_figure(title, 3.0)
    axes.plot(epochs, rates, color=BLACK)
    axes.plot(epochs[peak], rates[peak], "o", color=BLACK)
    axes.set(xlabel="epoch", ylabel="learning rate", xlim=(0, epochs[-1]))
    axes.set_ylim(bottom=0)
    return figure


@styled
def learning_rate_range(table: pd.DataFrame, reading: "RangeReading", chosen: float | None = None) -> Figure:
    """The loss while the learning rate grows.

    Args:
        table: from learning_rate_range_test(): learning_rate, loss, smoothed_loss.
        reading: of it, from read_range(): what is more than noise.
        chosen: the profile's highest learning rate, drawn as a line.
    """
    rates, loss = table["learning_rate"].to_numpy(), table["smoothed_loss"].to_numpy()
    title = f"Loss falls up to a learning rate of {reading.lowest_at:.2g}"
    if not reading.falls:
        title = "Loss falls at no learning rate"
    if reading.rises_from is None:
        title += f" and does not rise up to {rates[-1]:.2g}"
    else:
        title += f" and rises from {reading.rises_from:.2g} on"
    if chosen is not None:
        title += f"; the profile's is {chosen:.2g}"
    figure, ((axes,),) = new_figure(title, 3.4)
    axes.plot(rates, table["loss"], color=SKY, lw=1, alpha=0.6, label="loss of each batch")
    axes.plot(rates, loss, color=SKY, lw=3, label="mean of nine batches")
    if reading.rises_from is not None:
        axes.axvspan(reading.rises_from, rates[-1], color=LIGHT_GREY, alpha=0.3, lw=0, label="loss rises")
    if chosen is not None:
        axes.axvline(chosen, color=BLACK, ls="--", label="highest rate of the profile")
    axes.set(xscale="log", xlabel="learning rate (log scale)", ylabel="loss (nats)")
    finite = table["loss"][np.isfinite(table["loss"])]
    lowest, first = np.nanmin(loss), loss[0]
    axes.set_ylim(min(finite.min(), lowest) * 0.97, min(finite.max(), max(1.6 * first, 3 * lowest)) * 1.03)
    axes.legend(loc="upper left")
    return figure


@styled
def training_curves(history: pd.DataFrame, epochs: int | None = None) -> Figure:
    """Loss, macro-F1 and learning rate, epoch by epoch.

    Args:
        history: of train(): epoch, loss, val_loss, f1_score, val_f1_score, learning_rate; the val_ columns
            are nan where too few species are held out for a score.
        epochs: of the whole run, to leave room for those to come.
    """
    epoch, held_out = history["epoch"].to_numpy(), history["val_f1_score"].to_numpy()
    scored = not np.isnan(held_out).any()
    best = int(np.argmax(held_out)) if scored else len(epoch) - 1
    title = f"Held-out macro-F1 is best in epoch {epoch[best]}: {held_out[best]:.3f}"
    if not scored:
        title = "No held-out score: too few species have images to hold out"
    elif len(epoch) == 1:
        title = f"Held-out macro-F1 after one epoch: {held_out[0]:.3f}"
    if epochs is not None and epoch[-1] < epochs:
        title += f" ({epoch[-1]} of {epochs} epochs so far)"
    elif scored and len(epoch) > 2 and best == len(epoch) - 1:
        title += ", the last; more epochs may help"
    elif len(epoch) > 2 and held_out[-1] < 0.95 * held_out[best]:
        title += f"; it fell to {held_out[-1]:.3f} afterwards"
    figure, (row,) = new_figure(title, 3.0, 1, 3)
    marker = "o" if len(epoch) < 3 else None
    for axes, column, label in ((row[0], "loss", "loss (nats, log scale)"), (row[1], "f1_score", "macro-F1")):
        axes.plot(epoch, history[column], color=SKY, marker=marker, label="train")
        axes.plot(epoch, history[f"val_{column}"], color=WINE, marker=marker, label="held out")
        axes.set_ylabel(label)
    if scored:
        row[1].plot(epoch[best], held_out[best], "*", color=BLACK, ms=12, label="best epoch")
    row[0].set_yscale("log")  # the first held-out loss may be ten times the others
    row[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    row[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    row[0].yaxis.set_minor_formatter(NullFormatter())
    row[1].set_ylim(0, 1)
    figure.legend(*row[1].get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=9)
    row[2].plot(epoch, history["learning_rate"], color=BLACK, marker=marker)
    row[2].set_ylabel("learning rate")
    row[2].set_ylim(bottom=0)
    for axes in row:
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, max(epochs or 0, epoch[-1]) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return figure


@styled
def scores_against_time(
    runs: Sequence[tuple[str, pd.DataFrame]], regression: tuple[float, float] | None = None
) -> Figure:
    """Held-out macro-F1 of two trainings against the seconds that they took.

    Args:
        runs: label and history, as of train(), first of the one that the other is held against; a history needs
            time and val_f1_score.
        regression: seconds and macro-F1 of a logistic regression on frozen features, which trains nothing.
    """
    (name, other), (own_name, own) = [(label, _by_time(history)) for label, history in runs]
    best, own_best = other["score"].max(), own["score"].max()
    took, own_took = (table["seconds"].iloc[-1] for table in (other, own))
    passes = own["seconds"][own["score"] > best]
    title = f"{own_name}: {own_best:.3f} in {own_took:,.0f} s, {name}: {best:.3f} in {took:,.0f} s"
    passed = f"passes after {passes.iloc[0]:,.0f} s" if passes.size else "does not pass"
    title += f", which the other {passed}"
    if np.isnan([best, own_best]).any():
        title = "No held-out score: too few species have images to hold out"
    figure, ((axes,),) = new_figure(title, 3.6)
    for label, table, colour, marker in ((name, other, GREY, "s"), (own_name, own, WINE, "o")):
        axes.plot(table["seconds"], table["score"], color=colour, marker=marker, ms=5, label=label)
    if regression is not None and np.isfinite(regression[1]):
        seconds, score = regression
        axes.axhline(score, color=BLACK, ls="--", lw=1.2)
        axes.plot(seconds, score, "D", color=BLACK, ms=7, label=f"regression on frozen features: {score:.3f}")
    axes.set(xlabel="seconds of training (an epoch each point)", ylabel="held-out macro-F1", ylim=(0, 1))
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")
    return figure


def _by_time(history: pd.DataFrame) -> pd.DataFrame:
    """Score after so many seconds, an epoch a row."""
    return pd.DataFrame({"seconds": history["time"].cumsum(), "score": history["val_f1_score"]})
