"""Class indices and what they stand for: species, category_id, genus, family."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.data.metadata import Metadata, match_names, read_metadata
from utils.data.shards import MANIFEST, read_manifest
from utils.files import InputError, read_json, write_json

_FIELDS = {"scientificName": str, "category_id": int, "genus": str, "family": str}


def _is_label(value: Any, kind: type) -> bool:
    if kind is int:  # true is an int to Python; NumPy holds 64 bits
        return type(value) is int and abs(value) < 2**63
    return isinstance(value, str) and "\0" not in value  # which NumPy would drop at the end of a name


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What each class index stands for; all arrays have length C and are in class order.

    The class index is the position of the scientificName in the sorted list of names, as in the published
    TFRecords; category_id, which submissions want, has gaps.
    """

    names: np.ndarray  # str, sorted
    category_ids: np.ndarray  # int64
    genera: np.ndarray  # str
    families: np.ndarray  # str

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> "LabelMap":
        """Make the map from the categories table.

        Raises:
            InputError: there is no category, or two have one name.
        """
        categories = metadata.categories
        names = categories["scientificName"].to_numpy(dtype=str)
        if not len(names):
            raise InputError("table 'categories' is empty: there is no class to learn.")
        order = np.argsort(names, kind="stable")
        repeated = np.flatnonzero(names[order][1:] == names[order][:-1])
        if len(repeated):
            raise InputError(
                f"table 'categories': scientificName {str(names[order][repeated[0]])!r} occurs twice."
            )
        return cls(
            names=names[order],
            category_ids=categories["category_id"].to_numpy(dtype=np.int64)[order],
            genera=categories["genus"].to_numpy(dtype=str)[order],
            families=categories["family"].to_numpy(dtype=str)[order],
        )

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return len(self.names)

    @cached_property
    def genus_names(self) -> np.ndarray:
        """The genera, sorted, each once."""
        return np.unique(self.genera)

    @cached_property
    def family_names(self) -> np.ndarray:
        """The families, sorted, each once."""
        return np.unique(self.families)

    @cached_property
    def genus_index(self) -> np.ndarray:
        """Position in `genus_names` of each class's genus, int64 [C]; `genus` of the TFRecords."""
        return np.searchsorted(self.genus_names, self.genera)

    @cached_property
    def family_index(self) -> np.ndarray:
        """Position in `family_names` of each class's family, int64 [C]; `family` of the TFRecords."""
        return np.searchsorted(self.family_names, self.families)

    def to_class(self, category_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Class indices of category ids, int64 of the same shape.

        Raises:
            InputError: a category_id is not in the map.
        """
        wanted = np.asarray(category_ids, dtype=np.int64)
        order = np.argsort(self.category_ids)
        ordered = self.category_ids[order]
        position = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        unknown = ordered[position] != wanted
        if np.any(unknown):
            raise InputError(
                f"category_id {int(wanted[unknown].flat[0])} is not among the {self.n_classes} known ones "
                f"({int(unknown.sum())} such values). Use the metadata that these labels come from."
            )
        return order[position]

    def to_category(self, class_indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Category ids of class indices, int64 of the same shape.

        Raises:
            InputError: an index is not from 0 to C - 1.
        """
        indices = np.asarray(class_indices, dtype=np.int64)
        outside = (indices < 0) | (indices >= self.n_classes)
        if np.any(outside):
            raise InputError(
                f"class index {int(indices[outside].flat[0])} is not from 0 to {self.n_classes - 1}. "
                "The records and the labels belong to different data sets."
            )
        return self.category_ids[indices]

    def save(self, path: Path) -> None:
        """Write labels.json: four lists in class order, named as the columns of the categories table."""
        arrays = (self.names, self.category_ids, self.genera, self.families)
        write_json(path, {name: array.tolist() for name, array in zip(_FIELDS, arrays, strict=True)})

    @classmethod
    def load(cls, path: Path) -> "LabelMap":
        """Read a labels.json that `save` wrote.

        Raises:
            InputError: the file is missing or is not such a file, or its names are not sorted and unique.
        """
        content = read_json(path)
        arrays = []
        for name, kind in _FIELDS.items():
            values = content.get(name) if isinstance(content, dict) else None
            if not isinstance(values, list) or not values:
                raise InputError(f"{path}: {name!r} must be a list of {kind.__name__}. Write it again.")
            wrong = next((row for row, value in enumerate(values) if not _is_label(value, kind)), None)
            if wrong is not None:
                raise InputError(
                    f"{path}: row {wrong} of {name!r} is {values[wrong]!r}, must be {kind.__name__}. Write the "
                    "labels again."
                )
            arrays.append(np.array(values, dtype=np.int64 if kind is int else str))
        if len({len(array) for array in arrays}) != 1:
            lengths = ", ".join(
                f"{name!r} has {len(array)}" for name, array in zip(_FIELDS, arrays, strict=True)
            )
            raise InputError(f"{path}: the lists differ in length ({lengths}). Write the labels again.")
        names = arrays[0]
        unsorted = np.flatnonzero(names[1:] <= names[:-1])
        if len(unsorted):
            row = int(unsorted[0]) + 1
            raise InputError(
                f"{path}: the names are not sorted and unique: row {row} is {str(names[row])!r}, behind "
                f"{str(names[row - 1])!r}. Write the labels again."
            )
        return cls(*arrays)


@lru_cache(maxsize=2)
def labels_of_tables(metadata_file: Path, modified: int) -> LabelMap:
    """The labels of a metadata file, kept: the published one takes seconds, and several steps ask."""
    return LabelMap.from_metadata(read_metadata(metadata_file))


def genus_distance_matrix(metadata: Metadata, labels: LabelMap) -> np.ndarray:
    """Patristic distances between genera, float32 [G, G] in the order of `labels.genus_names`.

    Symmetric, 0 on the diagonal, nan where the metadata gives no distance. Unit: that of the `distances`
    table.
    """
    n_genera = len(labels.genus_names)
    matrix = np.full((n_genera, n_genera), np.nan, dtype=np.float32)
    np.fill_diagonal(matrix, 0.0)
    position = {genus: index for index, genus in enumerate(labels.genus_names.tolist())}
    index_of = metadata.genera.set_index("genus_id")["genus"].map(position)
    x = metadata.distances["genus_id_x"].map(index_of)
    y = metadata.distances["genus_id_y"].map(index_of)
    both = (x.notna() & y.notna()).to_numpy()
    x, y = x[both].to_numpy(dtype=np.int64), y[both].to_numpy(dtype=np.int64)
    distance = metadata.distances["distance"].to_numpy(dtype=np.float32)[both]
    matrix[x, y] = distance
    matrix[y, x] = distance
    return matrix


def classes_of_images(
    metadata: Metadata, labels: LabelMap, metadata_file: Path, label_file: Path | None
) -> pd.DataFrame:
    """The class of every image of the metadata: image_id (str) and class_index (int64).

    Args:
        metadata_file, label_file: where the two come from; `label_file` is None where the labels are of this metadata.

    Raises:
        InputError: labels.json has other species under the category ids of the metadata.
    """
    if label_file is not None:
        categories = metadata.categories
        used = categories[categories["category_id"].isin(metadata.annotations["category_id"])]
        class_of = {category: index for index, category in enumerate(labels.category_ids.tolist())}
        by_id = used["category_id"].map(class_of).fillna(-1).astype("int64").to_numpy()
        by_name = match_names(used["scientificName"].to_numpy(), labels.names)
        other = used[(by_id < 0) | (by_id != by_name)]
        if len(other):
            row = other.iloc[0]
            index = class_of.get(row["category_id"])
            there = "not there" if index is None else repr(str(labels.names[index]))
            raise InputError(
                f"{label_file}: category_id {row['category_id']} is {there}, and in {metadata_file} it "
                f"is {row['scientificName']!r} ({len(other):,} such species): they are of other labels. Put the "
                "labels.json and the metadata there that the shards were made from."
            )
    classes = labels.to_class(metadata.annotations["category_id"])
    return pd.DataFrame({"image_id": metadata.annotations["image_id"].astype(str), "class_index": classes})


def refuse_other_classes(
    table: pd.DataFrame, known: pd.DataFrame, labels: LabelMap, where: Path, metadata_file: Path, every: bool
) -> None:
    """Raise InputError when records of shards have other classes than the metadata gives them.

    Args:
        table: of records, see `utils.data.records.first_labels`.
        known: image_id (str) and class_index (int64) by the metadata.
        where: the folder of the shards; metadata_file: what `known` is read from.
        every: whether the metadata must list every image, and not one at least.
    """
    both = table.merge(known, on="image_id", suffixes=("", "_known"))
    other = both[both["class_index"] != both["class_index_known"]]
    if len(other):
        row = other.iloc[0]
        raise InputError(
            f"{where}: image {row['image_id']} has class {row['class_index']} in the "
            f"shards, and by {metadata_file} it is {row['class_index_known']}, "
            f"{str(labels.names[row['class_index_known']])!r} ({len(other):,} such images of "
            f"{len(both):,} looked at): they are of other labels. Give the metadata that the shards were made from."
        )
    unknown = table[~table["image_id"].isin(known["image_id"])]
    if len(unknown) and (every or len(unknown) == len(table)):
        raise InputError(
            f"{where}: image {unknown['image_id'].iloc[0]} of the shards is not in {metadata_file} "
            f"({len(unknown):,} such images of {len(table):,} looked at), so their species are not certain. Give "
            "the metadata that the shards were made from."
        )


def refuse_other_ranks(table: pd.DataFrame, labels: LabelMap, where: Path, label_file: Path) -> None:
    """Raise InputError when labels.json has other species than the manifest, or other genera and families than records.

    Args:
        table, where: as for `refuse_other_classes`.
    """
    manifest = read_manifest(label_file.parent)
    if manifest and manifest["labels"].get("scientificName", labels.names.tolist()) != labels.names.tolist():
        raise InputError(
            f"{label_file}: has other species than {MANIFEST} says of these shards. Give the labels.json "
            "that was written with the shards."
        )
    table = table[table["class_index"].between(0, labels.n_classes - 1)]
    for rank, index, names in (
        ("genus", labels.genus_index, labels.genera),
        ("family", labels.family_index, labels.families),
    ):
        if f"{rank}_index" not in table:
            continue
        given, wanted = table[f"{rank}_index"].to_numpy(), index[table["class_index"].to_numpy()]
        other = table[(given >= 0) & (given != wanted)]
        if len(other):
            row = other.iloc[0]
            species = row["class_index"]
            raise InputError(
                f"{where}: image {row['image_id']} has class {species} and {rank} {row[f'{rank}_index']} in "
                f"the shards, and by {label_file} class {species}, {str(labels.names[species])!r}, has {rank} "
                f"{index[species]}, {str(names[species])!r} ({len(other):,} such images of {len(table):,} looked "
                "at): they are of other labels. Give the labels.json that was written with the shards."
            )
