"""The long tail in figures, class weights against it, and a train/validation split that respects it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.labels import LabelMap
from utils.data.metadata import TEST_JSON, UNKNOWN, Metadata, form_of, read_metadata, read_test_metadata
from utils.data.names import look_alike_notes
from utils.errors import UsageError

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


def split(
    image_ids: Sequence[str] | np.ndarray,
    class_indices: Sequence[int] | np.ndarray,
    fraction: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into train and validation, stratified by class.

    Every class with two or more images has at least one on each side; a single image stays in train. Apart
    from that each class gives its share, and what rounding leaves goes to the classes that it cost most,
    so that the whole is as near to `fraction` as this allows. The result depends on the ids, classes,
    fraction and seed only, not on the order of the rows, and is the same with NumPy 1.26 and 2.0.

    Returns:
        Two masks, bool [N], of train and validation; each image is in exactly one.

    Raises:
        UsageError: `fraction` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"validation fraction is {fraction!r}, must be between 0 and 1.")
    ids = np.asarray(image_ids, dtype=str)
    classes = np.asarray(class_indices, dtype=np.int64)
    generator = np.random.default_rng(seed)
    counts = np.bincount(classes)
    most = np.maximum(counts - 1, 0)
    exact = counts * fraction
    quota = np.clip(np.floor(exact).astype(np.int64), np.minimum(1, most), most)
    # Largest remainders first; ties fall by the seed.
    order = np.lexsort((generator.permutation(len(counts)), -(exact - quota)))
    order = order[(quota < most)[order]]
    left = int(len(ids) * fraction + 0.5) - int(quota.sum())
    quota[order[: max(left, 0)]] += 1

    key = np.empty(len(ids), dtype=np.int64)
    key[np.argsort(ids, kind="stable")] = generator.permutation(len(ids))
    by_class = np.lexsort((key, classes))
    start = np.cumsum(counts) - counts
    rank = np.empty(len(ids), dtype=np.int64)
    rank[by_class] = np.arange(len(ids)) - start[classes[by_class]]
    validation = rank < quota[classes]
    return ~validation, validation


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


def summarize_file(path: Path) -> dict[str, str | int | float | list[str]]:
    """The form and the figures of a metadata file in any form, ready for JSON.

    For test_metadata.json, which names no species, these are the form and the numbers of images and licences.
    For the other forms they are those of `summarize` and, beside them, single_image_species,
    images_without_family, genus_distances, and notes: sentences on names that look alike.

    Raises:
        InputError: see `utils.data.metadata.read_metadata`.
    """
    form = form_of(path)
    if form == TEST_JSON:
        images = read_test_metadata(path)
        return {"form": form, "images": len(images), "licenses": int(images["license"].nunique())}
    metadata = read_metadata(path)
    categories, used = metadata.categories, metadata.annotations["category_id"]
    without_family = categories["category_id"][categories["family"] == UNKNOWN]
    return {
        "form": form,
        **summarize(metadata),
        "single_image_species": int((used.value_counts() == 1).sum()),
        "images_without_family": int(used.isin(without_family).sum()),
        "genus_distances": len(metadata.distances),
        "notes": look_alike_notes(categories["scientificName"]),
    }
