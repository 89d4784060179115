"""Decisions: the answer whose mistakes are expected to lie nearest on the tree of life, beside the most probable."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from utils.errors import InputError
from utils.evaluation.mistakes import mistake_distance
from utils.evaluation.predict import Predictions
from utils.metrics import per_class_f1, scores

if TYPE_CHECKING:
    from utils.data.labels import LabelMap

CELLS = 1 << 22  # of a table of costs, at a time: 34 MB


def within_genus_cost(distances: np.ndarray) -> float:
    """What taking a species for another of its genus costs: half the median distance to the nearest genus.

    The published table has no distances within a genus, and 0 would make such mistakes free. Two species of a
    genus are nearer to each other than to the next genus; half of that is a plain guess between.

    Args:
        distances: float [G, G] from genus_distance_matrix(), NaN where unknown.

    Raises:
        InputError: no distance between two genera is known.
    """
    others = _without_diagonal(distances)
    nearest = np.nanmin(np.where(np.isnan(others), np.inf, others), axis=1)
    nearest = nearest[np.isfinite(nearest)]
    if not len(nearest):
        raise InputError("No distance between two genera is known. Read the metadata with its distances.")
    return float(np.median(nearest) / 2)


def least_cost(
    predictions: Predictions, labels: "LabelMap", distances: np.ndarray, miss: float | None = None
) -> np.ndarray:
    """The class of least expected cost of every sheet, int32 [N], among those that `predictions` keeps.

    The cost of a wrong answer is `miss` plus the patristic distance between the two genera; a right one costs 0,
    and within a genus a mistake costs `miss` alone. This is the decision of least Bayes risk (Duda & Hart 1973),
    with the costs of Bertinetto et al. (2020, Making Better Mistakes, arXiv:1912.09393): a tree's distances. The
    larger `miss`, the nearer it comes to the most probable class.

    It needs probabilities that are right, not only in order: fit a temperature on validation first
    (`calibration.fit_temperature`, then `tempered`).

    It is exact where all C classes are kept. With the k best of many, what they leave counts for nothing: 50 of
    15,501 need 84 MB for the 210,407 test sheets, and 50 x 50 numbers a sheet, some sheets at a time.

    Args:
        distances: float [G, G] from genus_distance_matrix(); unknown ones count as the largest known.
        miss: in the unit of the distances; `within_genus_cost` without it.

    Raises:
        InputError: no distance between two genera is known.
    """
    if miss is None:
        miss = within_genus_cost(distances)
    filled = _filled(distances)
    genus = labels.genus_index
    n_sheets, kept = predictions.classes.shape
    decided = np.empty(n_sheets, dtype=np.int32)
    chunk = max(CELLS // kept**2, 1)
    for start in range(0, n_sheets, chunk):
        classes = predictions.classes[start : start + chunk]
        probabilities = predictions.probabilities[start : start + chunk].astype(np.float64)
        genera = genus[classes]
        between = filled[genera[:, :, None], genera[:, None, :]]  # [n, answer, truth]
        cost = np.einsum("nat,nt->na", between, probabilities) - miss * probabilities
        decided[start : start + chunk] = classes[np.arange(len(classes)), cost.argmin(axis=1)]
    return decided


def compare_decisions(
    predictions: Predictions,
    labels: "LabelMap",
    distances: np.ndarray,
    misses: tuple[float, ...] | None = None,
    species: np.ndarray | None = None,
) -> pd.DataFrame:
    """The most probable class against least cost, on sheets whose species is known.

    Args:
        misses: costs of any mistake to try, `within_genus_cost` without it. Choose among them on validation.
        species: class indices that macro-F1 is the mean over, where the sheets are of some species only; all of the
            label map without it.

    Returns:
        One row a decision: decision ("most probable", "least cost"), miss, macro_f1, accuracy, and the mean
        patristic distance over_all sheets (right: 0) and over_mistakes, as in mistake_distance().
    """
    decisions = [("most probable", float("nan"), predictions.predicted)]
    for miss in misses or (within_genus_cost(distances),):
        decisions.append(("least cost", miss, least_cost(predictions, labels, distances, miss)))
    rows = []
    for name, miss, decided in decisions:
        score = scores(predictions.true, decided, labels.n_classes)
        by_class = per_class_f1(predictions.true, decided, labels.n_classes)
        far = mistake_distance(predictions.true, decided, labels, distances)
        rows.append(
            {
                "decision": name,
                "miss": miss,
                "macro_f1": float(by_class.mean() if species is None else by_class[species].mean()),
                "accuracy": score["accuracy"],
                "over_all": far["over_all"],
                "over_mistakes": far["over_mistakes"],
            }
        )
    return pd.DataFrame(rows)


def _without_diagonal(distances: np.ndarray) -> np.ndarray:
    others = np.array(distances, dtype=np.float64)
    np.fill_diagonal(others, np.nan)
    return others


def _filled(distances: np.ndarray) -> np.ndarray:
    others = _without_diagonal(distances)
    if np.isnan(others).all():
        raise InputError("No distance between two genera is known. Read the metadata with its distances.")
    filled = np.where(np.isnan(others), np.nanmax(others), others)
    np.fill_diagonal(filled, 0.0)
    return filled
