"""What the start of a training is worth: what a pretrained network sees before any training, and the same sheets
learnt from nothing (notebook 03).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import tensorflow as tf

from utils.config import Profile, load_profile
from utils.data.labels import LabelMap
from utils.evaluation.scores import macro_f1
from utils.experiments.classifiers import STRENGTH
from utils.training.features import Features, Linear, extract_features, fit_regression
from utils.training.task import reading

if TYPE_CHECKING:
    from utils.sources import Data

FROM_NOTHING = "from_nothing"  # folder of that training, in the output of the one it stands beside


@dataclass(frozen=True)
class Start:
    """What a network's classifier gets to see before any training, and what a regression makes of it."""

    train: Features  # in file order
    held_out: Features
    regression: Linear
    macro_f1: float  # of the regression on the held-out sheets, nan where they cover too few species
    seconds: float  # that features and regression took


def look_at_start(
    profile: Profile, data: "Data", network: tf.keras.Model, *, progress: bool = False
) -> Start:
    """Frozen features of all sheets, and a balanced logistic regression on those of the training sheets.

    Args:
        profile, data: as for `train`; the split is the same.
        network: from `build_model`, with the weights that the profile starts from.
        progress: show bars.

    Raises:
        InputError: as `train`, of the data; or fewer than two species have training sheets.
    """
    begin = time.perf_counter()
    with reading(profile, data) as task:
        train, held_out = (
            extract_features(network, task.sheets(ids), total=len(ids), progress=progress)
            for ids in (task.training_ids, task.validation_ids)
        )
        n_classes, scored = task.labels.n_classes, task.scored
    regression = fit_regression(train, n_classes, profile.regression or STRENGTH)
    score = math.nan
    if scored:
        score = macro_f1(held_out.classes, regression.predicted(held_out.features), n_classes)
    return Start(train, held_out, regression, score, time.perf_counter() - begin)


def nearest_sheets(start: Start, count: int = 5) -> np.ndarray:
    """Rows of the training sheets nearest to each held-out sheet by the cosine of their features, int64 [N, count]."""
    train, held_out = (
        part.features / np.maximum(np.linalg.norm(part.features, axis=1, keepdims=True), 1e-12)
        for part in (start.train, start.held_out)
    )
    return np.argsort(-(held_out @ train.T), axis=1, kind="stable")[:, :count]


def relatives(start: Start, nearest: np.ndarray, labels: LabelMap) -> pd.DataFrame:
    """How many of the nearest sheets are related to the held-out one, against training sheets drawn at random.

    Returns:
        One row a rank (species, genus, family): share of the nearest sheets that are of the same one, chance.
    """
    rows = []
    for rank, of in (
        ("species", np.arange(labels.n_classes)),
        ("genus", labels.genus_index),
        ("family", labels.family_index),
    ):
        own, others = of[start.held_out.classes], of[start.train.classes]
        rows.append(
            {
                "rank": rank,
                "share": float((others[nearest] == own[:, None]).mean()),
                "chance": float((np.bincount(others, minlength=of.max() + 1)[own] / len(others)).mean()),
            }
        )
    return pd.DataFrame(rows)


def some_neighbours(
    profile: Profile, data: "Data", start: Start, nearest: np.ndarray, sheets: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out sheets, from the first species to the last at equal steps, each with its nearest training sheets.

    Returns:
        images uint8 [sheets, 1 + count, S, S, 3], the held-out one first; their classes, int [sheets, 1 + count].
    """
    order = np.argsort(start.held_out.classes, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(sheets, len(order))).round().astype(int)]
    beside = nearest[chosen]
    with reading(profile, data) as task:
        own = _images(task.sheets(task.validation_ids), chosen)
        others = _images(task.sheets(task.training_ids), beside.ravel())
    images = [
        [own[row], *(others[other] for other in rows)] for row, rows in zip(chosen, beside, strict=True)
    ]
    classes = np.c_[start.held_out.classes[chosen], start.train.classes[beside]]
    return np.array(images), classes


def _images(dataset: tf.data.Dataset, rows: Sequence[int]) -> dict[int, np.ndarray]:
    """The images of some rows of a data set in batches, by row."""
    wanted = {int(row) for row in rows}
    return {row: image.numpy() for row, (image, _) in enumerate(dataset.unbatch()) if row in wanted}


def from_nothing(profile: Profile, epochs: int) -> Profile:
    """Profile `scratch` for the seed and split of another profile, with so many epochs."""
    shared = {name: getattr(profile, name) for name in ("seed", "validation_fraction", "skip_bad")}
    return load_profile("scratch", epochs=epochs, **shared)


def few_sheets(results: pd.DataFrame) -> pd.DataFrame:
    """How the score grows with the images of a species, by what is learnt: one row a number of images.

    Args:
        results: as `python -m benchmarks.few_sheets` writes them: start ("pretrained": profile sheets, "fine-tuned":
            profile laptop, "random": EfficientNetV2B0 from nothing), images, seed, macro_f1.

    Returns:
        images of a species, frozen features (mean macro-F1 over the draws), lowest and highest of them, fine-tuned
        and, where it was tried, from nothing (macro-F1 of one draw).
    """
    means = results.groupby(["start", "images"])["macro_f1"].mean()
    draws = results[results["start"] == "pretrained"].groupby("images")["macro_f1"]
    columns = {
        "frozen features": means["pretrained"],
        "lowest": draws.min(),
        "highest": draws.max(),
        "fine-tuned": means["fine-tuned"],
        **({"from nothing": means["random"]} if "random" in means else {}),
    }
    return pd.DataFrame(columns).rename_axis("images of a species").reset_index()
