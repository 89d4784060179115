"""Scores: macro-F1, the score of the competition, by bin and family, and what kind of mistakes are made.

True and predicted are class indices, int [N], of sheets whose species is known.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from utils.data.delimited import read_table
from utils.data.splits import refuse_lines
from utils.data.tail import BINS, bins
from utils.files import InputError

if TYPE_CHECKING:
    from utils.data.labels import LabelMap


def _counts(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> tuple[np.ndarray, ...]:
    """Images by class: rightly predicted, predicted, actual. Each int64 [C]."""
    true, predicted = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(
            f"true and predicted must be vectors of one length, not {true.shape}, {predicted.shape}"
        )
    for name, values in (("true", true), ("predicted", predicted)):
        if values.size and (values.min() < 0 or values.max() >= n_classes):
            outside = values[(values < 0) | (values >= n_classes)][0]
            raise ValueError(f"{name}: class {outside} is not in 0..{n_classes - 1}")
    right = np.bincount(true[true == predicted], minlength=n_classes)
    return right, np.bincount(predicted, minlength=n_classes), np.bincount(true, minlength=n_classes)


def per_class_f1(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """F1 of every class: 2 x right / (predicted + actual), 0 where a class is neither predicted nor actual.

    Args:
        true, predicted: int [N], class indices in 0..n_classes-1.
        n_classes: number of classes C of the label map.

    Returns:
        float64 [C].

    Raises:
        ValueError: a class index is out of range, or the lengths differ.
    """
    right, guessed, actual = _counts(true, predicted, n_classes)
    return 2 * right / np.maximum(guessed + actual, 1)


def macro_f1(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Mean F1 over all classes of the label map, those without an image included (they count 0).

    The same as scikit-learn's f1_score(labels=range(n_classes), average="macro", zero_division=0).
    """
    return float(per_class_f1(true, predicted, n_classes).mean())


def overall_scores(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float | int]:
    """Macro-F1 and accuracy, with the number of images, of classes, and of classes without an image."""
    right, _, actual = _counts(true, predicted, n_classes)
    return {
        "macro_f1": macro_f1(true, predicted, n_classes),
        "accuracy": float(right.sum() / max(actual.sum(), 1)),
        "images": int(actual.sum()),
        "classes": int(n_classes),
        "classes_without_images": int((actual == 0).sum()),
    }


KINDS = ("within genus", "within family", "across families")


def mistakes_by_kind(true: np.ndarray, predicted: np.ndarray, labels: "LabelMap") -> pd.DataFrame:
    """Count mistakes inside the true genus, inside the true family but another genus, and across families.

    Chance is the share to expect if each wrong answer were drawn at random from the other species, a species
    as often as the model predicts it: so a model that favours common species does not look clever
    because common species share a family.

    Returns:
        One row a kind: kind, mistakes, share, chance (both of all mistakes), ratio (share / chance, NaN where
        chance is 0, as within genus when each genus has one species). Shares are NaN without mistakes.
    """
    true, predicted = _known(true, predicted)
    wrong = true != predicted
    genus, family = labels.genus_index, labels.family_index
    weights = np.bincount(predicted, minlength=labels.n_classes).astype(np.float64)
    in_genus = np.bincount(genus, weights)[genus] - weights
    in_family = np.bincount(family, weights)[family] - weights - in_genus
    across = weights.sum() - weights - in_genus - in_family
    kinds = kind_of(true[wrong], predicted[wrong], labels)
    mistakes = np.array([(kinds == kind).sum() for kind in KINDS])
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where there is nothing to divide by
        drawn = np.stack([in_genus, in_family, across])[:, true[wrong]]
        chance = drawn / drawn.sum(axis=0)
        table = pd.DataFrame(
            {
                "kind": KINDS,
                "mistakes": mistakes,
                "share": mistakes / mistakes.sum(),
                "chance": chance.mean(axis=1) if wrong.any() else np.full(3, np.nan),
            }
        )
    table["ratio"] = (table["share"] / table["chance"]).where(table["chance"] > 0)
    return table


def genus_mate_ratio(true: np.ndarray, predicted: np.ndarray, labels: "LabelMap") -> float:
    """How many times as often as by chance a wrong answer is a species of the right genus.

    Chance as in mistakes_by_kind(). Above 1 the model confuses relatives; NaN without mistakes, or when no
    mistaken sheet has a predicted genus-mate to be confused with.
    """
    table = mistakes_by_kind(true, predicted, labels)
    return float(table.loc[table["kind"] == "within genus", "ratio"].iloc[0])


def kind_of(true: np.ndarray, predicted: np.ndarray, labels: "LabelMap") -> np.ndarray:
    """Kind of every pair of different species, as text [N]: one of KINDS."""
    same_genus = labels.genus_index[true] == labels.genus_index[predicted]
    same_family = labels.family_index[true] == labels.family_index[predicted]
    return np.select([same_genus, same_family], KINDS[:2], KINDS[2])


def mistake_distance(
    true: np.ndarray, predicted: np.ndarray, labels: "LabelMap", distances: np.ndarray
) -> dict[str, float]:
    """Mean patristic distance between true and predicted genus.

    The published table has distances between genera, so a mistake within a genus counts 0.

    Args:
        distances: float [G, G] from genus_distance_matrix(), NaN where unknown.

    Returns:
        over_mistakes; over_all (a right answer counts 0); chance: what over_mistakes would be if the wrong
        answers were drawn as in mistakes_by_kind(); unknown: mistakes whose distance is not in the table,
        left out of the three means. A mean over nothing is NaN.
    """
    true, predicted = _known(true, predicted)
    genus = labels.genus_index
    distance = np.asarray(distances, dtype=np.float64)[genus[true], genus[predicted]]
    distance[true == predicted] = 0
    wrong = true != predicted
    known = ~np.isnan(distance)

    weights = np.bincount(predicted, minlength=labels.n_classes).astype(np.float64)
    by_genus = np.bincount(genus, weights, minlength=len(distances))
    reachable = (~np.isnan(distances)).astype(np.float64)
    # own species is at distance 0 and cannot be drawn: it counts in neither sum
    total = np.nan_to_num(distances).astype(np.float64) @ by_genus
    mass = reachable @ by_genus
    drawn_from = (wrong & known).nonzero()[0]
    species = true[drawn_from]
    expected = total[genus[species]] / (mass[genus[species]] - weights[species])
    return {
        "over_mistakes": _mean(distance[wrong & known]),
        "over_all": _mean(distance[known]),
        "chance": _mean(expected),
        "unknown": int((wrong & ~known).sum()),
    }


def scores_by_bin(true: np.ndarray, predicted: np.ndarray, train_counts: np.ndarray) -> pd.DataFrame:
    """Scores of head, medium and tail species, by their number of train images.

    macro_f1 is the mean F1 of the species of the bin; F1 itself is over all sheets, so a head species that
    swallows tail sheets loses precision. A species without a test sheet counts 0, as in the overall score.

    Returns:
        One row a bin: bin, species, train_images, test_images, macro_f1, accuracy (NaN in an empty bin).
    """
    groups = bins(np.asarray(train_counts))
    table = _scores_by_group(true, predicted, groups, BINS, len(train_counts))
    train_images = pd.Series(train_counts).groupby(groups).sum()
    table.insert(2, "train_images", train_images.reindex(BINS, fill_value=0).to_numpy())
    return table.rename(columns={"group": "bin"})


def scores_by_family(
    true: np.ndarray, predicted: np.ndarray, labels: "LabelMap", train_counts: np.ndarray
) -> pd.DataFrame:
    """Scores of every family, those with most test images first.

    A family of rare species scores low for that alone, so beside its score stands that of species with as many images.

    Returns:
        One row a family: family, species, train_images (mean of its species), test_images, macro_f1 (mean F1 of its
        species), equal_images (the same, were each species as good as the mean of all in its bin), accuracy.
    """
    table = _scores_by_group(true, predicted, labels.families, labels.family_names, labels.n_classes)
    f1 = pd.Series(per_class_f1(true, predicted, labels.n_classes))
    equal = f1.groupby(bins(np.asarray(train_counts))).transform("mean")
    of_species = pd.DataFrame({"train_images": train_counts, "equal_images": equal})
    means = of_species.groupby(np.asarray(labels.families)).mean().loc[table["group"]]
    table.insert(2, "train_images", means["train_images"].to_numpy())
    table.insert(5, "equal_images", means["equal_images"].to_numpy())
    table = table.rename(columns={"group": "family"})
    return table.sort_values(["test_images", "family"], ascending=[False, True], ignore_index=True)


def confused_pairs(
    true: np.ndarray, predicted: np.ndarray, labels: "LabelMap", top: int = 10
) -> pd.DataFrame:
    """The most frequent mistakes.

    Returns:
        At most `top` rows, most frequent first: species, taken_for, times, share (of the test sheets of the
        species), kind.
    """
    true, predicted = _known(true, predicted)
    wrong = true != predicted
    pairs, times = np.unique(np.stack([true[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")[:top]
    (species, other), times = pairs[:, order], times[order]
    return pd.DataFrame(
        {
            "species": labels.names[species],
            "taken_for": labels.names[other],
            "times": times,
            "share": times / np.bincount(true, minlength=labels.n_classes)[species],
            "kind": kind_of(species, other, labels),
        }
    )


def genus_confusion(true: np.ndarray, predicted: np.ndarray, labels: "LabelMap") -> np.ndarray:
    """Count sheets by true genus (row) and predicted genus (column), int [G, G] in order of genus_names."""
    true, predicted = _known(true, predicted)
    n_genera = len(labels.genus_names)
    cell = labels.genus_index[true].astype(np.int64) * n_genera + labels.genus_index[predicted]
    return np.bincount(cell, minlength=n_genera**2).reshape(n_genera, n_genera)


def _scores_by_group(true, predicted, groups, names, n_classes) -> pd.DataFrame:
    """Scores by group of species; `groups` is the group of every class, `names` the groups in their order."""
    true, predicted = _known(true, predicted)
    groups = np.asarray(groups)
    frame = pd.DataFrame({"group": groups, "f1": per_class_f1(true, predicted, n_classes)})
    by_species = frame.groupby("group")["f1"].agg(["size", "mean"]).reindex(names)
    sheets = pd.DataFrame({"group": groups[true], "right": true == predicted})
    by_sheet = sheets.groupby("group")["right"].agg(["size", "mean"]).reindex(names)
    return pd.DataFrame(
        {
            "group": names,
            "species": by_species["size"].fillna(0).astype(int).to_numpy(),
            "test_images": by_sheet["size"].fillna(0).astype(int).to_numpy(),
            "macro_f1": by_species["mean"].to_numpy(),
            "accuracy": by_sheet["mean"].astype(float).to_numpy(),
        }
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _known(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true), np.asarray(predicted)
    if len(true) and true.min() < 0:
        raise InputError(
            f"{int((true < 0).sum()):,} of {len(true):,} sheets have no known species, so mistakes cannot be "
            "counted. Take the solution, or a validation part, of which the species are known."
        )
    return true, predicted


def read_solution(path: Path, image_ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """The category_id of test sheets by a solution.csv (Id,Predicted), int64 [N] in the order of the ids.

    Raises:
        InputError: it is no such table, an answer is no whole number, or a sheet is not in it or twice.
    """
    way_out = "The answers have the columns Id and Predicted: write the data again."
    table = read_table(path, ("Id", "Predicted"), way_out=way_out)
    checks = (
        ("Predicted", ~table["Predicted"].str.fullmatch(r"-?\d{1,18}"), "is no category_id", way_out),
        ("Id", table["Id"].duplicated(), "occurs twice", "Keep one line an image."),
    )
    refuse_lines(path, table, checks)
    answers = table.set_index("Id")["Predicted"].reindex(np.asarray(image_ids, dtype=str))
    if answers.isna().any():
        raise InputError(
            f"{path}: sheet {answers.index[answers.isna()][0]!r} is not in it ({int(answers.isna().sum())} of "
            f"{len(answers)} sheets). Take the answers that belong to the test shards."
        )
    return answers.to_numpy().astype(np.int64)
