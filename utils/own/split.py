"""Own sheets divided into train, validation and test: by seed, species and group."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.delimited import write_csv
from utils.data.splits import PARTS, stratified, texts
from utils.files import UsageError, check_option


def assign(
    image_ids: Sequence[str] | np.ndarray,
    class_indices: Sequence[int] | np.ndarray,
    *,
    validation: float,
    test: float = 0.0,
    seed: int = 0,
    groups: Sequence[str] | np.ndarray | None = None,
) -> np.ndarray:
    """The part of each image: "train", "validation" or "test", str [N].

    Every species keeps an image in train. Without groups the parts are `stratified`. With groups (the institution, the
    collector) all images of a group are in one part, so that a network cannot score by knowing the paper or the hand;
    then a fraction may not be reached, since a group that holds the only image of a species cannot leave train.

    Args:
        image_ids, class_indices: one entry an image.
        validation, test: wanted shares of all images, each from 0 to below 1; 0 for none.
        seed: the same seed gives the same parts, in whatever order the images come.
        groups: the group of each image; an image with an empty group is a group of its own.

    Raises:
        UsageError: a fraction is out of range, both together are 1 or more, or the seed is below 0.
    """
    check_option("seed", seed, seed >= 0, "0 or more")
    check_option("validation fraction", validation, 0 <= validation < 1, "from 0 to below 1")
    check_option("test fraction", test, 0 <= test < 1, "from 0 to below 1")
    if validation + test >= 1:
        raise UsageError(
            f"validation and test fraction are {validation + test:g} together: nothing to train on."
        )
    ids, classes = texts(image_ids), np.asarray(class_indices, dtype=np.int64)
    parts = np.full(len(ids), "train", dtype="<U10")
    left = np.arange(len(ids))
    for part, fraction in (("test", test), ("validation", validation)):
        share = fraction * len(ids) / max(len(left), 1)  # of what the part before has left
        if not share or not len(left):
            continue
        if groups is None:
            _, held = stratified(ids[left], classes[left], share, seed)
        else:
            held = _whole_groups(ids[left], classes[left], texts(groups)[left], share, seed)
        parts[left[held]] = part
        left = left[~held]
    return parts


def _whole_groups(
    ids: np.ndarray, classes: np.ndarray, groups: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Mask of images to hold out, bool [N]: whole groups that bring each species near its share.

    Groups come in random order. One is taken when it brings more images that a species still lacks than images
    beyond its share; what is missing at the end is filled with the groups that overshoot least.
    """
    named = [of or f"{image}\1" for of, image in zip(groups, ids, strict=True)]  # no group has such a name
    group, names = pd.factorize(np.array(named, dtype=object), sort=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    in_train = np.bincount(classes)
    lacking = in_train * fraction
    wanted, so_far, held = fraction * len(ids), 0, np.zeros(len(ids), dtype=bool)

    def gain(number: int) -> float:
        """Images that species still lack minus those beyond their share; -inf where it cannot leave train."""
        species, images = np.unique(classes[members[number]], return_counts=True)
        size = len(members[number])
        if (in_train[species] <= images).any() or so_far + size > 1.1 * wanted + 1:
            return -np.inf
        return float(2 * np.minimum(images, np.maximum(lacking[species], 0)).sum() - size)

    def hold(number: int) -> int:
        species, images = np.unique(classes[members[number]], return_counts=True)
        held[members[number]] = True
        in_train[species] -= images
        lacking[species] -= images
        return len(members[number])

    others: list[tuple[float, int]] = []
    for number in np.random.default_rng(seed).permutation(len(names)).tolist():
        if so_far >= wanted:
            return held
        if (gained := gain(number)) >= 0:
            so_far += hold(number)
        elif gained > -np.inf:
            others.append((-gained, number))
    for _, number in sorted(others):
        if so_far < wanted and gain(number) > -np.inf:
            so_far += hold(number)
    return held


def write_split(image_ids: Sequence[str] | np.ndarray, parts: np.ndarray, path: Path) -> Path:
    """Write the parts as CSV with the columns image_id and split, sorted by id, whole."""
    table = pd.DataFrame({"image_id": texts(image_ids), "split": parts})
    write_csv(table.sort_values("image_id"), path)
    return Path(path)


def report(class_indices: Sequence[int] | np.ndarray, parts: np.ndarray) -> pd.DataFrame:
    """One row a part that has images: part, images, species, and single (species with one image there)."""
    classes, rows = np.asarray(class_indices, dtype=np.int64), []
    for part in PARTS:
        counts = np.bincount(classes[parts == part])
        if counts.sum():
            rows.append((part, int(counts.sum()), int((counts > 0).sum()), int((counts == 1).sum())))
    return pd.DataFrame(rows, columns=["part", "images", "species", "single"])
