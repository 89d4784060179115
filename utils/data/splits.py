"""Train, validation and test parts: by seed and species, kept as a file; copies of one image across them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.data.delimited import read_table
from utils.files import InputError, check_option

PARTS = ("train", "validation", "test")
SCORED_FROM = 2  # species: a score over fewer says nothing
SKIPPED, DUPLICATES = "skipped.csv", "duplicates.csv"  # beside shards of own sheets
FILE_NAME = "split.csv"  # beside shards, it decides what is held out of training


def texts(values: Sequence | np.ndarray) -> np.ndarray:
    """Ids as text, object [N]: one long id must not make all as wide, as NumPy's own texts are."""
    return np.array([str(value) for value in values], dtype=object)


def read_split(path: Path) -> pd.DataFrame:
    """Read what `utils.own.split.write_split` wrote, or a published split: image_id (str) and split (str).

    Raises:
        InputError: the file is missing or no such table, an image_id is empty or occurs twice, or a part is
            not train, validation or test.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file. `./course split` writes one.")
    table = read_table(
        path, ("image_id", "split"), way_out="A split has the columns image_id and split: write it again."
    )
    checks = (
        ("image_id", table["image_id"] == "", "is empty", "Give every line the id of an image."),
        ("image_id", table["image_id"].duplicated(), "occurs twice", "Keep one line an image."),
        ("split", ~table["split"].isin(PARTS), f"is not one of {', '.join(PARTS)}", "Mend the line."),
    )
    refuse_lines(path, table, checks)
    return table.reset_index(drop=True)


def refuse_lines(path: Path, table: pd.DataFrame, checks: Sequence[tuple]) -> None:
    """Raise InputError for the first line of a mask (column, bool by line, what is wrong, way out)."""
    for column, wrong, what, way_out in checks:
        if wrong.any():
            line = wrong.idxmax()
            raise InputError(
                f"{path}: line {line}: {column} {table[column][line]!r} {what} ({int(wrong.sum())} such lines). "
                f"{way_out}"
            )


def parts_of(image_ids: Sequence[str] | np.ndarray, path: Path) -> np.ndarray:
    """The part of each image as a split file says, str [N]; the file may name further images.

    Raises:
        InputError: as `read_split`, or an image is not in the file.
    """
    table = read_split(path).set_index("image_id")["split"]
    ids = texts(image_ids)
    parts = table.reindex(ids)
    absent = np.flatnonzero(parts.isna())
    if len(absent):
        raise InputError(
            f"{path}: image {ids[absent[0]]!r} is not in it ({len(absent)} of {len(parts)} images). "
            "Write the split for these sheets, or remove the file."
        )
    return parts.to_numpy(dtype=str)


def parts_for(
    table: pd.DataFrame, split_file: Path | None, own_validation: int, fraction: float, seed: int
) -> np.ndarray:
    """The part of every labelled record, str [N]: by the split file, else by its validation shards, else by seed.

    Args:
        table: image_id (str) and class_index (int) of each record; the last `own_validation` are of validation shards.
        fraction, seed: of `stratified`.

    Raises:
        InputError: the split file lacks an image, or leaves none to train on.
    """
    if split_file is not None:
        parts = parts_of(table["image_id"].to_numpy(dtype=str), split_file)
        if len(table) and not (parts == "train").any():
            raise InputError(f"{split_file}: no image is left to train on. Put some into the part 'train'.")
        return parts
    if own_validation:
        return np.where(np.arange(len(table)) < len(table) - own_validation, "train", "validation")
    _, validation = stratified(table["image_id"], table["class_index"], fraction, seed)
    return np.where(validation, "validation", "train")


def coverage(
    class_indices: Sequence[int] | np.ndarray, parts: np.ndarray, n_classes: int, part: str = "validation"
) -> str:
    """One sentence: how many species a part covers, and what a macro-F1 on it can say.

    Macro-F1 is over all species of the label map, and one without an image in the part counts 0.
    """
    classes = np.asarray(class_indices, dtype=np.int64)[np.asarray(parts) == part]
    covered = len(np.unique(classes))
    images = "1 image" if len(classes) == 1 else f"{len(classes):,} images"
    text = f"{part} covers {covered:,} of {n_classes:,} species with {images}"
    if covered < SCORED_FROM:
        return f"{text}: too few for a score, so none is given"
    if covered < n_classes:
        return f"{text}; macro-F1 there is over all {n_classes:,} species, so {covered / n_classes:.3f} is perfect"
    return text


def stratified(
    image_ids: Sequence[str] | np.ndarray,
    class_indices: Sequence[int] | np.ndarray,
    fraction: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into train and validation, stratified by class.

    Every class with two or more images has at least one on each side; a single image stays in train. Apart from that
    each class gives its share, and what rounding leaves goes to the classes that it cost most, so that the whole is as
    near to `fraction` as this allows. The order of the rows does not matter, and NumPy 1.26 and 2.0 give the same.

    Returns:
        Two masks, bool [N], of train and validation; each image is in exactly one.

    Raises:
        UsageError: `fraction` is not between 0 and 1.
    """
    check_option("validation fraction", fraction, 0 < fraction < 1, "between 0 and 1")
    ids, classes = texts(image_ids), np.asarray(class_indices, dtype=np.int64)
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


def shared_duplicates(duplicates_csv: Path, image_ids: Sequence[str], parts: Sequence[Any]) -> int:
    """Groups of a duplicates.csv whose images lie in more than one part, so that a score would be too good.

    Args:
        duplicates_csv: beside shards; 0 when there is no such file.
        image_ids, parts: the part of each image, in any two or more values.
    """
    if not duplicates_csv.is_file():
        return 0
    table = read_table(duplicates_csv, ("group", "image_id"), way_out="Write the shards again, or remove it.")
    part_of = pd.Series(np.asarray(parts), index=np.asarray(image_ids, dtype=str))
    parts_of_group = table["image_id"].map(part_of).groupby(table["group"])
    return int((parts_of_group.nunique() > 1).sum())
