"""The long tail in figures, and class weights against it."""

from collections.abc import Sequence

import numpy as np

from utils.data.labels import LabelMap
from utils.data.metadata import UNKNOWN, Metadata
from utils.files import UsageError

HEAD_MIN = 60  # training images of a species, this many or more: head
TAIL_MAX = 19  # this many or fewer: tail; medium is between
BINS = ("head", "medium", "tail")


def class_counts(class_indices: Sequence[int] | np.ndarray, n_classes: int) -> np.ndarray:
    """Images of each class: int64 [n_classes], zero where a class has none."""
    return np.bincount(np.asarray(class_indices, dtype=np.int64), minlength=n_classes)


def bins(counts: np.ndarray) -> np.ndarray:
    """The bin of each class by its number of training images: "head", "medium" or "tail", str [C]."""
    counts = np.asarray(counts)
    return np.where(counts >= HEAD_MIN, "head", np.where(counts <= TAIL_MAX, "tail", "medium"))


def imbalance_ratio(counts: np.ndarray) -> float:
    """Images of the commonest class over those of the rarest that has any; nan when none has."""
    present = np.asarray(counts)[np.asarray(counts) > 0]
    return float(present.max() / present.min()) if len(present) else float("nan")


def lorenz(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Lorenz curve of images over classes, from the rarest class to the commonest.

    Returns:
        Share of classes and share of images, float64 [C + 1] each, both from 0 to 1.
    """
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    cumulative = np.concatenate([[0.0], np.cumsum(ordered)])
    return np.linspace(0, 1, len(ordered) + 1), cumulative / max(cumulative[-1], 1.0)


def gini(counts: np.ndarray) -> float:
    """Gini coefficient: 0 when all classes have as many images, towards 1 when few classes have them all."""
    share_classes, share_images = lorenz(counts)
    area = np.sum(np.diff(share_classes) * (share_images[1:] + share_images[:-1]) / 2)
    return float(1 - 2 * area)


def top_share(counts: np.ndarray, fraction: float = 0.2) -> float:
    """Share of all images that the commonest `fraction` of the classes hold, read off the Lorenz curve."""
    share_classes, share_images = lorenz(counts)
    return float(1 - np.interp(1 - fraction, share_classes, share_images))


def class_weights(counts: np.ndarray, method: str, n: int = 10) -> np.ndarray:
    """Loss weights of the classes, float32 [C], scaled to sum to C.

    "none" is 1 for all, "inverse" is 1 / images, "class_balanced" is (1 - beta) / (1 - beta ** images)
    with beta = (n - 1) / n (Cui et al. 2019, Class-Balanced Loss Based on Effective Number of Samples).
    A class without images gets 0 with the last two: nothing would ever use its weight, and a guess for it
    would only shrink the others.

    Raises:
        UsageError: the method is not one of these.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if method == "none":
        return np.ones(len(counts), dtype=np.float32)
    if method not in ("inverse", "class_balanced"):
        raise UsageError(f"class weights {method!r} are not known. Use none, inverse or class_balanced.")
    beta = (n - 1) / n
    effective = counts if method == "inverse" else (1 - beta**counts) / (1 - beta)
    weights = np.divide(1.0, effective, out=np.zeros_like(effective), where=counts > 0)
    return (weights * len(counts) / max(weights.sum(), np.finfo(float).tiny)).astype(np.float32)


def logit_adjustment(counts: Sequence[int] | np.ndarray, tau: float = 1.0) -> np.ndarray:
    """tau x log of each class's share of the training images, float32 [C].

    Added to the logits in training it is the logit-adjusted loss, taken from those of a trained network the
    post-hoc adjustment of Menon et al. (2021, arXiv:2007.07314). A class without images counts as having one.
    """
    counts = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    return (tau * np.log(counts / counts.sum())).astype(np.float32)


def summarize(metadata: Metadata) -> dict[str, int | float]:
    """The figures of a data set as plain numbers, ready for JSON.

    Species, genera and families are those of the label map, institutions those known to hold an image. Bins
    and ratios are of images a species.
    """
    labels = LabelMap.from_metadata(metadata)
    counts = class_counts(labels.to_class(metadata.annotations["category_id"]), labels.n_classes)
    bin_of = bins(counts)
    institutions = metadata.institutions
    unnamed = institutions["institution_id"][institutions["collectionCode"] == UNKNOWN]
    held = metadata.annotations["institution_id"]
    summary: dict[str, int | float] = {
        "images": len(metadata.annotations),
        "species": labels.n_classes,
        "genera": len(labels.genus_names),
        "families": len(labels.family_names),
        "institutions": int(held[~held.isin(unnamed)].nunique()),
        "min_images": int(counts.min()),
        "median_images": float(np.median(counts)),
        "max_images": int(counts.max()),
    }
    for name in BINS:
        summary[f"{name}_species"] = int((bin_of == name).sum())
        summary[f"{name}_images"] = int(counts[bin_of == name].sum())
    summary["imbalance_ratio"] = imbalance_ratio(counts)
    summary["gini"] = gini(counts)
    summary["top_20_percent_share"] = top_share(counts, 0.2)
    return summary
