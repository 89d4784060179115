"""Which score tells species that were never trained on: `python -m benchmarks.unknown DATA --leave-out 6 --out OUT`.

DATA are shards with a withheld test, or `flora`, the sample flora of profile laptop. In every draw some species
are left out; profile sheets (or, with --profile laptop, a whole training a draw) learns from the others. Two
tables are made of each draw. *Validation*: further species are left out of what was learnt from, and the scores
tell their sheets from the held-out sheets of the rest; by this table a score is chosen. *Test*: they tell the
withheld sheets of the left-out species from those of the others. A score refuses known sheets rightly (area under
the curve: 0.5 by chance), and `passed` is the share of unknown sheets that pass where 10% of known ones are
refused. For the score in use it also says what its limit, set by the held-out sheets alone, refuses and lets pass,
and what is answered at which rank.
Leaves unknown.csv, unknown_curve.png and, for frozen features, the features to use again.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pandas as pd

from benchmarks.inputs import tensorflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from utils.config import Profile
    from utils.sources import Data

IN_USE = "ours: probability, whitened cosine and distance"


@dataclasses.dataclass(frozen=True, eq=False)
class Sheets:
    """Logits float [N, K] of the known species, features float [N, F], classes int [N] in the label map."""

    logits: np.ndarray
    features: np.ndarray
    classes: np.ndarray

    def of(self, chosen: np.ndarray) -> "Sheets":
        return Sheets(self.logits[chosen], self.features[chosen], self.classes[chosen])


def scores(train: Sheets, views: np.ndarray, sheets: Sheets) -> dict[str, np.ndarray]:
    """How unknown each sheet is by every score, float [N], larger for more.

    Args:
        train: what was learnt from; views: its features and those of its mirror images, [V, N, F].
    """
    from scipy.special import logsumexp, softmax

    from utils.own.unknown import fit_space, unit

    shares = softmax(sheets.logits, axis=1)
    space = fit_space(views, train.classes)
    places, known = space.place(sheets.features), space.place(train.features)
    plain = unit(sheets.features) @ unit(train.features).T
    cosine, distance = space.scores(places)
    total = fit_space(
        (train.features - train.features.mean(axis=0))[None], np.zeros(len(train.features), int)
    )
    apart = sheets.features - train.features.mean(axis=0)
    _, _, axes = np.linalg.svd(train.features - train.features.mean(axis=0), full_matrices=False)
    beside = [
        each - each @ axes[:64].T @ axes[:64]
        for each in (apart, train.features - train.features.mean(axis=0))
    ]
    residual, of_known = (np.linalg.norm(each, axis=1) for each in beside)
    energy = -logsumexp(sheets.logits, axis=1)
    return {
        "largest probability": -shares.max(axis=1),
        "entropy": -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1),
        "largest logit": -sheets.logits.max(axis=1),
        "energy": energy,
        "virtual logit (ViM, 64 axes)": train.logits.max(axis=1).mean() / of_known.mean() * residual + energy,
        "cosine to the 3 nearest sheets": -np.sort(plain, axis=1)[:, -3:].mean(axis=1),
        "Mahalanobis distance": distance,
        "relative Mahalanobis distance": np.exp(distance) - (total.place(sheets.features) ** 2).sum(axis=1),
        "whitened cosine to the nearest sheet": -(unit(places) @ unit(known).T).max(axis=1),
        "whitened cosine to the nearest species": -(unit(places) @ unit(space.means).T).max(axis=1),
        "... less half that to the next": -cosine,
        IN_USE: space.strangeness(places, shares),
    }


def area(known: np.ndarray, unknown: np.ndarray) -> float:
    """The probability that an unknown sheet has the larger score, as Mann and Whitney count it."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([known, unknown]))[len(known) :]
    return float((ranks.sum() - len(unknown) * (len(unknown) + 1) / 2) / (len(known) * len(unknown)))


def rows_of(
    found: dict[str, np.ndarray], unknown: np.ndarray, limits: dict[str, np.ndarray]
) -> Iterator[dict]:
    """Of every score its area, what passes at 10% refused, and refused and passed at its own limit."""
    from utils.own.answers import REFUSED
    from utils.own.unknown import threshold

    for name, values in found.items():
        known, new = values[~unknown], values[unknown]
        limit = threshold(limits[name], REFUSED)
        yield {
            "score": name,
            "area": area(known, new),
            "passed": float((new <= np.quantile(known, 0.9)).mean()),
            "refused_in_use": float((known > limit).mean()),
            "passed_in_use": float((new <= limit).mean()),
        }


# ---------------------------------------------------------------- what a draw sees


Seen = Callable[[np.ndarray], tuple[np.ndarray, dict[str, Sheets], np.ndarray]]


def frozen(data: "Data", profile: "Profile", table: pd.DataFrame, cache: Path) -> Seen:
    """Features taken once; for some known classes a regression on them."""
    from utils.training.features import Features, fit_regression
    from utils.training.network import build_model

    if not cache.exists():
        network = build_model(profile, data.labels().n_classes)
        np.savez(cache, **_features(network, data, profile, table))
    kept = np.load(cache)
    parts = {
        part: (kept[f"{part}_views"], kept[f"{part}_classes"]) for part in ("train", "validation", "test")
    }

    def seen(known: np.ndarray) -> tuple[np.ndarray, dict[str, Sheets], np.ndarray]:
        views, classes = parts["train"]
        chosen = np.isin(classes, known)
        views, rows = views[:, chosen], np.searchsorted(known, classes[chosen])
        examples = Features(views.reshape(-1, views.shape[2]), np.tile(rows, len(views)).astype(np.int32))
        linear = fit_regression(examples, len(known), profile.regression)
        one = {part: Sheets(linear.logits(of[0]), of[0], labels) for part, (of, labels) in parts.items()}
        return views, one, chosen

    return seen


def trained(data: "Data", profile: "Profile", table: pd.DataFrame, folder: Path) -> Seen:
    """A whole training for the known classes, on what is left of the training part."""
    from utils.training.loop import train
    from utils.training.runs import load_trained
    from utils.training.weights import CLASSIFIER

    def seen(known: np.ndarray) -> tuple[np.ndarray, dict[str, Sheets], np.ndarray]:
        parts = table["part"].where(table["class_index"].isin(known), "test")
        name = f"without-{'-'.join(map(str, np.setdiff1d(table['class_index'], known)))}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        split = folder / name / "split.csv"
        pd.DataFrame({"image_id": table["image_id"], "split": parts}).to_csv(split, index=False)
        result = train(profile, dataclasses.replace(data, split_file=split), folder / name / "run")
        network, _, _ = load_trained(result.run_dir)
        kept = _features(network, data, profile, table)
        kernel, bias = network.get_layer(CLASSIFIER).get_weights()
        one = {}
        for part in ("train", "validation", "test"):
            features = kept[f"{part}_views"].mean(axis=0)
            logits = (features @ kernel + bias)[:, known]
            one[part] = Sheets(logits, features, kept[f"{part}_classes"])
        chosen = np.isin(one["train"].classes, known)
        return kept["train_views"][:, chosen], one, chosen

    return seen


def _features(
    network: object, data: "Data", profile: "Profile", table: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Features of all sheets and their mirror images, [2, N, F], and their classes, by part."""
    from utils.own.answers import mean_over_views, see

    answer = tensorflow().function(mean_over_views(network, "none"))
    found = {}
    for part in ("train", "validation", "test"):
        ids = table.loc[table["part"] == part, "image_id"].tolist()
        batches = [data.batches("test" if part == "test" else "train", profile, only_ids=ids or None)]
        views = []
        for mirrored in (False, True):
            of = (lambda images: answer(images[:, :, ::-1])) if mirrored else answer
            names, classes, _, features = see(of, batches[0], progress=True)
            views.append(features)
        found[f"{part}_views"] = np.stack(views)
        found[f"{part}_classes"] = data.true_classes(names) if part == "test" else classes
    return found


# ---------------------------------------------------------------- draws, tables, curve


def draw(seed: int, classes: np.ndarray, leave_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Species left out of a draw, and further ones left out for its validation, int [leave_out] each."""
    order = np.random.default_rng(seed).permutation(classes)
    return order[:leave_out], order[leave_out : 2 * leave_out]


def measured(seen: Seen, classes: np.ndarray, leave_out: int, seed: int) -> tuple[list[dict], dict]:
    """Rows of validation and test of one draw, and the test's scores in use with which sheets are unknown."""
    test_out, validation_out = draw(seed, classes, leave_out)
    rows = []
    known = np.setdiff1d(classes, np.concatenate([test_out, validation_out]))
    views, sheets, chosen = seen(known)
    every = [
        sheets[part].of(np.isin(sheets[part].classes, validation_out)) for part in ("train", "validation")
    ]
    held = sheets["validation"].of(np.isin(sheets["validation"].classes, known))
    both = Sheets(
        *(
            np.concatenate([getattr(each, field.name) for each in (held, *every)])
            for field in dataclasses.fields(Sheets)
        )
    )
    found = scores(sheets["train"].of(chosen), views, both)
    unknown = np.isin(both.classes, validation_out)
    limits = {name: values[~unknown] for name, values in found.items()}
    rows += [{"on": "validation", "draw": seed, **row} for row in rows_of(found, unknown, limits)]

    known = np.setdiff1d(classes, test_out)
    views, sheets, chosen = seen(known)
    learnt = sheets["train"].of(chosen)
    found = scores(learnt, views, sheets["test"])
    held = sheets["validation"].of(np.isin(sheets["validation"].classes, known))
    unknown = np.isin(sheets["test"].classes, test_out)
    rows += [
        {"on": "test", "draw": seed, **row} for row in rows_of(found, unknown, scores(learnt, views, held))
    ]
    return rows, {"unknown": unknown, **found}


def figure(curves: list[dict], title: str) -> "Figure":
    """Share of unknown sheets refused against that of known ones, of some scores: the draws together."""
    from utils.figures.style import BLACK, GREY, SKY, WINE, new_figure, percent_axis, styled

    looks = {
        IN_USE: (WINE, "-"),
        "whitened cosine to the nearest species": (SKY, "-"),
        "largest probability": (BLACK, "--"),
        "energy": (GREY, "--"),
        "cosine to the 3 nearest sheets": (GREY, ":"),
    }

    @styled
    def drawn() -> "Figure":
        drawing, ((axes,),) = new_figure(title, 3.6)
        steps = np.linspace(0, 1, 201)
        for name, (colour, line) in looks.items():
            at = [
                [
                    (of[name][of["unknown"]] > limit).mean()
                    for limit in np.quantile(of[name][~of["unknown"]], 1 - steps)
                ]
                for of in curves
            ]
            axes.plot(steps, np.mean(at, axis=0), color=colour, ls=line, label=name)
        axes.axvline(0.1, color=GREY, lw=1)
        axes.set(xlabel="known sheets refused", ylabel="unknown sheets refused", xlim=(0, 0.5), ylim=(0, 1))
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
        axes.legend(loc="lower right", fontsize=9)
        return drawing

    return drawn()


@click.command()
@click.argument("data")
@click.option("--leave-out", type=click.IntRange(2), required=True, help="Species left out in every draw.")
@click.option("--draws", default=5, show_default=True)
@click.option("--profile", default="sheets", show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(data: str, leave_out: int, draws: int, profile: str, out: Path) -> None:
    """Measure how well species that were never trained on are told; see the head of this file."""
    tensorflow()
    from utils.config import load_profile
    from utils.sources import find_data, require

    chosen = load_profile(profile)
    found = find_data(load_profile("laptop"), "auto" if data == "flora" else data)
    require(found, "test_shards")
    out.mkdir(parents=True, exist_ok=True)
    table = found.split(chosen)
    classes = np.unique(table["class_index"])
    with tempfile.TemporaryDirectory() as folder:
        if chosen.sgd_epochs:
            seen = trained(found, chosen, table, Path(folder))
        else:
            seen = frozen(found, chosen, table, out / "features.npz")
        rows, curves = [], []
        for seed in range(draws):
            more, curve = measured(seen, classes, leave_out, seed)
            rows += more
            curves.append(curve)
            pd.DataFrame(rows).to_csv(out / "unknown.csv", index=False, float_format="%.4f")
            click.echo(f"draw {seed + 1} of {draws}")
    table = pd.DataFrame(rows)
    columns = ["area", "passed", "refused_in_use", "passed_in_use"]
    for part, of in table.groupby("on"):
        click.echo(f"\n{part}")
        shown = of.groupby("score", sort=False)[columns].agg(["mean", "min", "max"]).round(3)
        click.echo(shown.to_string())
    best = table[table["on"] == "validation"].groupby("score")["area"].mean().idxmax()
    reached = table[(table["on"] == "test") & (table["score"] == IN_USE)]["area"]
    click.echo(f"\nBest on validation: {best}. In use: {IN_USE}, area on the test {reached.mean():.3f}.")
    span = f"{reached.min():.2f} to {reached.max():.2f}"
    title = f"Area {reached.mean():.2f} ({span}): species never trained on, {draws} draws"
    figure(curves, title).savefig(out / "unknown_curve.png")


if __name__ == "__main__":
    main()
