"""Calibration: does a probability of 0.8 mean that 8 of 10 such answers are right?"""

import numpy as np
import pandas as pd

from utils.errors import InputError
from utils.evaluation.predict import Predictions

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


def fit_temperature(predictions: Predictions, *, by_species: bool = False) -> float:
    """The temperature at which known species were most probable (least negative log-likelihood).

    Temperature scaling of Guo et al. (2017, arXiv:1706.04599). Fit it on validation; decisions by expected cost
    are only as good as the probabilities are right. Sheets whose species is not among the classes kept say
    nothing about it and are left out.

    Args:
        by_species: every species counts as much as every other, and not every sheet. For decisions that are judged
            by species, as macro-F1 does, or on as many sheets of each: rare species, of which a network is less
            sure, hardly count among the sheets of a validation part.

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
        return float(np.average(losses, weights=weights))

    # convex in the scale, so it has one minimum: golden-section search
    low, up, golden = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE), (np.sqrt(5) - 1) / 2
    while up - low > 1e-4:
        left, right = up - golden * (up - low), low + golden * (up - low)
        low, up = (low, right) if loss(left) < loss(right) else (left, up)
    return float(np.exp((low + up) / 2))
