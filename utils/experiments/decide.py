"""From probabilities to an answer: temperature, least expected cost on the tree of life, several runs together."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from utils.evaluation.predict import Predictions
from utils.evaluation.scores import mistake_distance, overall_scores, per_class_f1
from utils.files import InputError

if TYPE_CHECKING:
    from utils.data.labels import LabelMap


MAX_TEMPERATURE = 20.0  # fit_temperature looks from 1 / MAX_TEMPERATURE on


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Compare confidence with the share of right answers, in bins of equal width.

    Args:
        confidence: float [N] in 0..1, the probability of the predicted class.
        correct: bool [N].
        bins: number of bins; a bin is open at its lower and closed at its upper end.

    Returns:
        One row a bin: lower, upper, images, confidence and accuracy (means, NaN in an empty bin).
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the wanted NaN of an empty bin
        means = [np.bincount(index, values, bins) / images for values in (confidence, correct)]
    return pd.DataFrame(
        {
            "lower": edges[:-1],
            "upper": edges[1:],
            "images": images,
            "confidence": means[0],
            "accuracy": means[1],
        }
    )


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their images; 0 is best.

    ECE of Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks (2017), who take 15 bins.
    """
    table = reliability(confidence, correct, bins)
    gaps = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float(np.average(gaps, weights=table["images"]))


def tempered(predictions: Predictions, temperature: float) -> Predictions:
    """The predictions of logits / temperature: above 1 less sure of themselves, the order of classes stays.

    Where not all classes are kept, the probabilities of those kept are scaled to the sum that they had.
    """
    powers = predictions.probabilities.astype(np.float64) ** (1 / temperature)
    sums = predictions.probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    scaled = powers * sums / powers.sum(axis=1, keepdims=True)
    return Predictions(
        predictions.image_ids, predictions.classes, scaled.astype(np.float32), predictions.true
    )


def fit_temperature(predictions: Predictions, *, by_species: bool = False, spread: float = math.inf) -> float:
    """The temperature at which known species were most probable (least negative log-likelihood).

    Temperature scaling of Guo et al. (2017, arXiv:1706.04599). Fit it on validation; decisions by expected cost
    are only as good as the probabilities are right. Sheets whose species is not among the classes kept say
    nothing about it and are left out.

    Args:
        by_species: every species counts as much as every other, and not every sheet. For decisions that are judged
            by species, as macro-F1 does, or on as many sheets of each: rare species, of which a network is less
            sure, hardly count among the sheets of a validation part.
        spread: how far the log of the temperature may lie from 0, as the standard deviation of a normal prior. With
            few sheets, all of them right, the likelihood alone would call every answer certain.

    Raises:
        InputError: no sheet has its species among the classes kept.
    """
    hit = predictions.classes == predictions.true[:, None]
    known = hit.any(axis=1)
    if not known.any():
        raise InputError("No sheet has a known species among its classes, so no temperature can be fitted.")
    probabilities = predictions.probabilities[known].astype(np.float64)
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    true = logs[hit[known]]
    high = logs.max(axis=1)
    species = predictions.true[known]
    weights = 1 / np.bincount(species)[species] if by_species else None

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        losses = np.log(np.exp((logs - high[:, None]) * scale).sum(axis=1)) + (high - true) * scale
        prior = (log_temperature / spread) ** 2 / 2 / len(losses)
        return float(np.average(losses, weights=weights)) + prior

    # convex in the scale, so it has one minimum: golden-section search
    low, up, golden = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE), (np.sqrt(5) - 1) / 2
    while up - low > 1e-4:
        left, right = up - golden * (up - low), low + golden * (up - low)
        low, up = (low, right) if loss(left) < loss(right) else (left, up)
    return float(np.exp((low + up) / 2))


CELLS = 1 << 22  # of a table of costs, at a time: 34 MB


def least_cost(
    predictions: Predictions, labels: "LabelMap", distances: np.ndarray, miss: float = 0.0
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
        miss: in the unit of the distances.

    Raises:
        InputError: no distance between two genera is known.
    """
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


def expected_distances(
    predictions: Predictions, row: int, labels: "LabelMap", distances: np.ndarray
) -> pd.DataFrame:
    """One sheet's species with their probabilities, and the expected distance of an answer that names each.

    Args:
        row: of the sheet.
        distances: as for `least_cost`.

    Returns:
        One row a species kept, most probable first: species, probability, distance, true (bool).
    """
    classes, shares = predictions.classes[row], predictions.probabilities[row].astype(np.float64)
    genus = labels.genus_index[classes]
    far = _filled(distances)[np.ix_(genus, genus)] @ shares
    columns = {"species": labels.names[classes], "probability": shares, "distance": far}
    return pd.DataFrame({**columns, "true": classes == predictions.true[row]})


def compare_decisions(
    predictions: Predictions,
    labels: "LabelMap",
    distances: np.ndarray,
    misses: tuple[float, ...] = (0.0,),
    species: np.ndarray | None = None,
) -> pd.DataFrame:
    """The most probable class against least cost, on sheets whose species is known.

    Args:
        misses: costs of any mistake to try. Choose among them on validation.
        species: class indices that macro-F1 is the mean over, where the sheets are of some species only; all of the
            label map without it.

    Returns:
        One row a decision: decision ("most probable", "least cost"), miss, macro_f1, accuracy, and the mean
        patristic distance over_all sheets (right: 0) and over_mistakes, as in mistake_distance().
    """
    decisions = [("most probable", float("nan"), predictions.predicted)]
    for miss in misses:
        decisions.append(("least cost", miss, least_cost(predictions, labels, distances, miss)))
    rows = []
    for name, miss, decided in decisions:
        score = overall_scores(predictions.true, decided, labels.n_classes)
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


def _filled(distances: np.ndarray) -> np.ndarray:
    others = np.array(distances, dtype=np.float64)
    np.fill_diagonal(others, np.nan)
    if np.isnan(others).all():
        raise InputError("No distance between two genera is known. Read the metadata with its distances.")
    filled = np.where(np.isnan(others), np.nanmax(others), others)
    np.fill_diagonal(filled, 0.0)
    return filled


def ensemble(runs: Sequence[Predictions], top: int = 5) -> Predictions:
    """The mean of several runs' probabilities for the same sheets (Lakshminarayanan et al. 2017, arXiv:1612.01474).

    The runs may differ in all but the label map: backbone, image size, machine. The mean is exact where they keep
    all classes; a class that a run does not keep counts as 0 there, so let them keep more than the five best
    (`top` of predict(); 50 of 210,407 sheets take 84 MB). Sheets are worked through some at a time.

    Raises:
        InputError: there is no run, or the runs have other sheets, in another order, or of other species.
    """
    if not runs:
        raise InputError("There are no predictions to put together.")
    first = runs[0]
    for number, run in enumerate(runs[1:], start=2):
        if not np.array_equal(run.image_ids, first.image_ids):
            raise InputError(f"Predictions 1 and {number} are not of the same sheets in the same order.")
        if not np.array_equal(run.true, first.true):
            raise InputError(f"Predictions 1 and {number} have other true species: other label maps.")
    classes = np.concatenate([run.classes for run in runs], axis=1)
    shares = np.concatenate([run.probabilities for run in runs], axis=1) / np.float32(len(runs))
    top = min(top, min(run.classes.shape[1] for run in runs))
    out_classes = np.empty((len(first), top), np.int32)
    out_probabilities = np.empty((len(first), top), np.float32)
    for start in range(0, len(first), 1024):
        rows = slice(start, start + 1024)
        order = np.argsort(classes[rows], axis=1, kind="stable")
        ordered = np.take_along_axis(classes[rows], order, axis=1)
        share = np.take_along_axis(shares[rows], order, axis=1)
        new = np.ones_like(ordered, dtype=bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        # the shares of a class stand side by side: add them up at its first
        group = np.cumsum(new, axis=1) - 1 + np.arange(len(ordered))[:, None] * ordered.shape[1]
        sums = np.bincount(group.ravel(), share.ravel(), minlength=ordered.size).reshape(ordered.shape)
        total = np.where(new, np.take_along_axis(sums, np.cumsum(new, axis=1) - 1, axis=1), -1.0)
        best = np.argsort(-total, axis=1, kind="stable")[:, :top]
        out_classes[rows] = np.take_along_axis(ordered, best, axis=1)
        out_probabilities[rows] = np.take_along_axis(total, best, axis=1)
    return Predictions(first.image_ids, out_classes, out_probabilities, first.true)
