"""How the score of own sheets grows with the images of a species: `python -m benchmarks.few_sheets DATA --out FOLDER`.

DATA are shards with a withheld test (./course tfrecords write --split, or a sample flora). Of every species 2, 5, 10
and 20 (`--images`) of the other images are drawn. Profile sheets learns from them, profile laptop fine-tunes on them,
EfficientNetV2-B0 learns from nothing, and each names the withheld sheets, without mirror images. Leaves few_sheets.csv
and few_sheets.png. Features are taken once, so that the draws of profile sheets cost seconds; a training takes its
minutes, so it has one draw, and its validation, which picks the epoch, is all that was not drawn. Epoch 1 of
fine-tuning is a regression: where it is picked, fine-tuning gained nothing. On real leaves fine-tune by `-s
max_lr=0.001 -s fixed_statistics=true -s epochs=10`, as leaves.batch.yaml does. A call that was stopped goes on:
rows that few_sheets.csv in FOLDER has already are not measured again.
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pandas as pd

from benchmarks.inputs import tensorflow
from utils.cli.common import SETTINGS, profile_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from utils.config import Profile
    from utils.sources import Data

IMAGES = (2, 5, 10, 20)  # a species, to learn from
DRAWS = 5
TRAININGS = {"fine-tuned": "laptop", "random": "scratch"}  # start: profile


def drawn(classes: np.ndarray, images: int, seed: int) -> np.ndarray:
    """Positions of `images` images of every class, int [C x images]; of a class that has fewer, all."""
    order = np.random.default_rng(seed).permutation(len(classes))
    return np.sort(np.concatenate([order[classes[order] == label][:images] for label in np.unique(classes)]))


def scores(true: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """macro_f1, and first_five: the share of sheets whose species is among the five best."""
    from utils.evaluation.scores import macro_f1

    best = np.argsort(-logits, axis=1)[:, :5]
    return {
        "macro_f1": macro_f1(true, best[:, 0], logits.shape[1]),
        "first_five": float((best == true[:, None]).any(axis=1).mean()),
    }


def frozen(data: "Data", table: pd.DataFrame, counts: Sequence[int]) -> list[dict]:
    """Rows of profile sheets, of all draws; `table` from Data.split."""
    from utils.config import load_profile
    from utils.training.features import Features, extract_features, fit_regression
    from utils.training.network import build_model

    profile = load_profile("sheets")
    n_classes = data.labels().n_classes
    network = build_model(profile, n_classes)
    ids = table["image_id"].tolist()
    sheets = data.batches("train", profile, only_ids=ids)
    rest = extract_features(network, sheets, total=len(ids), mirrored=True)
    test = extract_features(network, data.batches("test", profile))
    true = data.true_classes(test_ids(data, profile))
    half = len(rest) // 2  # the mirror images come after all others
    rows = []
    for images in counts:
        for seed in range(DRAWS):
            began = time.perf_counter()
            chosen = drawn(rest.classes[:half], images, seed)
            both = np.concatenate([chosen, chosen + half])
            train = Features(rest.features[both], rest.classes[both])
            found = fit_regression(train, n_classes, profile.regression)
            seconds = time.perf_counter() - began
            score = scores(true, found.logits(test.features))
            rows.append({"start": "pretrained", "images": images, "seed": seed, **score, "seconds": seconds})
            click.echo(rows[-1])
    return rows


def test_ids(data: "Data", profile: "Profile") -> list[str]:
    """The ids of the withheld sheets, in the order of the shards."""
    return [each.decode() for *_, ids in data.batches("test", profile) for each in ids.numpy()]


def trained(start: str, data: "Data", table: pd.DataFrame, images: int, settings: Sequence[str] = ()) -> dict:
    """The row of a whole training on one draw of so many images of every species, with settings of the profile."""
    from utils.evaluation.predict import predict
    from utils.training.loop import train
    from utils.training.runs import load_trained

    profile = profile_of(TRAININGS[start], ("source=shards", "flora_species=0", *settings))
    chosen = drawn(table["class_index"].to_numpy(), images, 0)
    parts = np.full(len(table), "validation", dtype=object)
    parts[chosen] = "train"
    with tempfile.TemporaryDirectory() as folder:
        split = pd.DataFrame({"image_id": table["image_id"], "split": parts})
        split.to_csv(Path(folder) / "split.csv", index=False)
        given = dataclasses.replace(data, split_file=Path(folder) / "split.csv")
        result = train(profile, given, Path(folder) / "run")
        model, _, _ = load_trained(result.run_dir)
        said = predict(model, data.batches("test", profile), top=5, progress=False)
    best = np.zeros((len(said), data.labels().n_classes))
    np.put_along_axis(best, said.classes, said.probabilities, axis=1)
    score = scores(data.true_classes(said.image_ids), best)
    seconds = float(result.history["time"].sum())
    epoch = result.best_epoch
    return {"start": start, "images": images, "seed": 0, **score, "seconds": seconds, "epoch": epoch}


def figure(table: pd.DataFrame) -> "Figure":
    """macro-F1 against the images of a species, of each start: the mean, and the range of the draws."""
    from utils.figures.style import GREEN, GREY, WINE, new_figure, styled

    @styled
    def draw() -> "Figure":
        of = table.groupby(["start", "images"])["macro_f1"].agg(["mean", "min", "max"])
        least, most = table["images"].min(), table["images"].max()
        few, many = (of["mean"]["pretrained", images] for images in (least, most))
        title = f"With {least} images a species pretrained features score {few:.2f}, with {most} {many:.2f}"
        words = {"fine-tuned": "fine-tuned", "random": "from nothing"}
        others = [f"{words[start]} {of['mean'][start, most]:.2f}" for start in words if start in of.index]
        title += f"; {', '.join(others)}" if others else ""
        drawing, ((axes,),) = new_figure(title, 3.4)
        looks = {
            "pretrained": (WINE, "o", "profile sheets"),
            "fine-tuned": (GREEN, "^", "profile laptop, fine-tuned"),
            "random": (GREY, "s", "EfficientNetV2-B0 from nothing"),
        }
        for start, (colour, marker, label) in looks.items():
            if start not in of.index:
                continue
            line = of.loc[start]
            axes.plot(line.index, line["mean"], color=colour, marker=marker, label=label)
            axes.fill_between(line.index, line["min"], line["max"], color=colour, alpha=0.2, lw=0)
        axes.set(
            xscale="log", xlabel="training images of every species", ylabel="macro-F1, withheld", ylim=(0, 1)
        )
        ticks = sorted(table["images"].unique())
        axes.set_xticks(ticks, [str(images) for images in ticks])
        axes.minorticks_off()
        axes.legend(loc="lower right")
        return drawing

    return draw()


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--images", type=click.IntRange(min=1), multiple=True, default=IMAGES, show_default=True)
@click.option("--start", "starts", type=click.Choice([*TRAININGS]), multiple=True, default=[*TRAININGS])
@SETTINGS
def main(
    data: Path, out: Path, images: tuple[int, ...], starts: tuple[str, ...], settings: tuple[str, ...]
) -> None:
    """Measure how the score grows with the images of a species; see the head of this file."""
    tensorflow()
    from utils.config import load_profile
    from utils.files import replacing
    from utils.sources import find_data, require

    found = find_data(load_profile("sheets"), data)
    require(found, "test_shards")
    learnt_from = found.split(load_profile("sheets"))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "few_sheets.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []

    def keep(new: list[dict]) -> None:
        rows.extend(new)
        with replacing(path) as temporary:
            table = pd.DataFrame(rows)
            table["epoch"] = table.get("epoch", pd.Series(dtype=float)).astype("Int64")  # of the trainings
            table.to_csv(temporary, index=False, float_format="%.4f")

    def missing(start: str) -> list[int]:
        there = {row["images"] for row in rows if row["start"] == start}
        return [count for count in images if count not in there]

    if missing("pretrained"):
        keep(frozen(found, learnt_from, missing("pretrained")))
    for start in starts:
        for count in missing(start):
            given = settings if start == "fine-tuned" else ()
            keep([trained(start, found, learnt_from, count, given)])
            click.echo(rows[-1])
    table = pd.read_csv(path)
    with replacing(out / "few_sheets.png") as temporary:
        figure(table).savefig(temporary, format="png")
    columns = ["macro_f1", "first_five", "seconds"]
    click.echo(table.groupby(["start", "images"])[columns].agg(["mean", "min", "max"]).round(3).to_string())


if __name__ == "__main__":
    main()
