"""Calibration: does a probability of 0.8 mean that 8 of 10 such answers are right?"""

import numpy as np
import pandas as pd


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
