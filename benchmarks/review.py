"""What a review gives: `python -m benchmarks.review FEATURES --out OUT`.

FEATURES is the features.npz that `python -m benchmarks.unknown flora` leaves: frozen features of the sample flora.
A regression as in profile sheets learns from 5 training sheets a species at most (the labelled sheets). The other
training sheets are predicted, and a curator who is never wrong (the true label) reviews 50, 100 or 200 of them, least
sure first or at random; a new regression learns from labelled and reviewed sheets together. Macro-F1 is that of the
withheld test, which nobody reviews. Three seeds draw the labelled sheets. Leaves review.csv and review.png.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELLED = 5  # sheets a species, at most
STEPS = (50, 100, 200)
ORDERS = ("least sure first", "at random")


def reviewed(
    seed: int, views: np.ndarray, classes: np.ndarray, test: tuple[np.ndarray, np.ndarray]
) -> list[dict]:
    """Rows of one seed: order, decisions, macro_f1.

    Args:
        seed: of the labelled sheets and of the random order.
        views: float [2, N, F], features of the training sheets and of their mirror images.
        classes: int [N].
        test: features float [M, F] and classes int [M] of the withheld sheets.
    """
    from sklearn.metrics import f1_score

    from utils.config import load_profile
    from utils.training.features import Features, fit_regression

    strength, n_classes = load_profile("sheets").regression, int(classes.max()) + 1
    order = np.random.default_rng(seed).permutation(len(classes))
    place = pd.Series(classes[order]).groupby(classes[order]).cumcount().to_numpy()
    labelled, others = order[place < LABELLED], order[place >= LABELLED]

    def fit(chosen: np.ndarray) -> tuple[object, float]:
        examples = Features(np.concatenate(views[:, chosen]), np.tile(classes[chosen], 2).astype(np.int32))
        linear = fit_regression(examples, n_classes, strength)
        found = linear.logits(test[0]).argmax(axis=1)
        return linear, float(f1_score(test[1], found, average="macro"))

    linear, before = fit(labelled)
    logits = linear.logits(views[0][others])
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    sure = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
    first = {"least sure first": others[np.argsort(sure, kind="stable")], "at random": others}
    rows = []
    for name in ORDERS:
        rows.append({"seed": seed, "order": name, "decisions": 0, "macro_f1": before})
        for decisions in STEPS:
            _, after = fit(np.concatenate([labelled, first[name][:decisions]]))
            rows.append({"seed": seed, "order": name, "decisions": decisions, "macro_f1": after})
    return rows


def figure(table: pd.DataFrame) -> "Figure":
    """Macro-F1 against decisions, both orders: mean and range of the seeds."""
    from utils.figures.style import GREY, WINE, new_figure, styled

    @styled
    def drawn() -> "Figure":
        drawing, ((axes,),) = new_figure(
            f"Review: macro-F1 of sheets never reviewed, {table['seed'].nunique()} seeds", 3.2
        )
        for name, colour, line in zip(ORDERS, (WINE, GREY), ("-", "--"), strict=True):
            of = table[table["order"] == name].groupby("decisions")["macro_f1"].agg(["mean", "min", "max"])
            axes.plot(of.index, of["mean"], color=colour, ls=line, marker="o", label=name)
            axes.fill_between(of.index, of["min"], of["max"], color=colour, alpha=0.15, lw=0)
        axes.set(
            xlabel="sheets reviewed and learnt from", ylabel="macro-F1 (range of seeds)", xticks=(0, *STEPS)
        )
        axes.legend(loc="lower right")
        return drawing

    return drawn()


@click.command()
@click.argument("features", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", default=3, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(features: Path, seeds: int, out: Path) -> None:
    """Measure what a review gives; see the head of this file."""
    kept = np.load(features)
    test = kept["test_views"][0], kept["test_classes"]
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(seeds):
        rows += reviewed(seed, kept["train_views"], kept["train_classes"], test)
        pd.DataFrame(rows).to_csv(out / "review.csv", index=False, float_format="%.4f")
        click.echo(f"seed {seed + 1} of {seeds}")
    table = pd.DataFrame(rows)
    shown = table.groupby(["order", "decisions"])["macro_f1"].agg(["mean", "min", "max"]).round(3)
    click.echo(shown.to_string())
    figure(table).savefig(out / "review.png")


if __name__ == "__main__":
    main()
