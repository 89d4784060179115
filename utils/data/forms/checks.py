"""The published tables as frames, and the checks that all forms of metadata share."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.data.forms.names import genus_of
from utils.data.metadata import UNKNOWN, Metadata
from utils.files import InputError

LISTED = 20  # problems that a message lists; the rest it counts


class Problems:
    """The problems of one file, by kind: each kind keeps a count and its first rows.

    Memory does not grow with the number of bad rows, so a whole column may be wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kinds: list[tuple[int, list[str]]] = []

    def add(self, text: str) -> None:
        """Add one problem: what is wrong where, and the way out."""
        self._kinds.append((1, [text]))

    def add_rows(self, rows: Iterable[int], text: Callable[[int], str]) -> None:
        """Add a problem of one kind for each of `rows`; `text` tells it, and is called for the first only."""
        rows = list(rows)
        if rows:
            self._kinds.append((len(rows), [text(row) for row in islice(rows, LISTED)]))

    def __len__(self) -> int:
        return sum(count for count, _ in self._kinds)

    def raise_any(self) -> None:
        """Raise what was added, if anything was.

        Raises:
            InputError: names the file and lists up to 20 problems, the first of each kind before the second
                of any, and how many there are.
        """
        if not self._kinds:
            return
        ranked = [
            (rank, kind, text)
            for kind, (_, texts) in enumerate(self._kinds)
            for rank, text in enumerate(texts)
        ]
        listed = sorted(sorted(ranked)[:LISTED], key=lambda entry: (entry[1], entry[0]))
        texts = [text for _, _, text in listed]
        if len(self) == 1:
            raise InputError(f"{self.path}: {texts[0]}")
        heading = f"{self.path}: {len(self):,} problems"
        if len(self) > len(texts):
            heading += f", {len(texts)} of them here"
        raise InputError("\n  ".join([heading + ":", *texts]))


def shown(value: Any) -> str:
    """One value as Python writes it, not too long; NumPy 2 would write np.int64(5)."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_UNIQUE = (
    ("annotations", "image_id"),
    ("images", "image_id"),
    ("images", "file_name"),
    ("categories", "category_id"),
    ("categories", "scientificName"),
    ("genera", "genus_id"),
)
_REFERENCES = (("image_id", "images"), ("category_id", "categories"), ("genus_id", "genera"))
# In names of files: control characters, and what stands for bytes that are not UTF-8.
NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Absolute (also with a drive letter, or a URL), climbing, not written with /, or not writable as UTF-8.
_UNSAFE = re.compile(
    r"^/|^[A-Za-z]:|^\w+://|\\|(?:^|/)\.\.(?:/|$)|/$|^$|[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]", re.MULTILINE
)


def check(
    problems: Problems,
    tables: dict[str, pd.DataFrame],
    place: Callable[[str, int], str],
    one_table: bool = False,
) -> None:
    """Add what is wrong between rows and tables; missing tables, fields and values are passed over.

    Args:
        problems: get what is found.
        tables: the published tables, each indexed by what `place` takes.
        place: words for a table and the index of a row in it.
        one_table: all come from the same rows, so one message is enough for several tables.
    """
    species = _species_lookup(tables, one_table)
    repeated_ids: set[int] = set()
    for table, field in _UNIQUE:
        if field not in tables.get(table, ()) or (one_table and (table, field) == ("images", "image_id")):
            continue
        values = tables[table][field].dropna()
        if values.is_unique:
            continue
        rows = values.index[values.duplicated()].tolist()
        if one_table and table == "annotations":
            repeated_ids = {*rows}
        elif field == "file_name":
            rows = [row for row in rows if row not in repeated_ids]

        def told(row: int, table: str = table, field: str = field, values: pd.Series = values) -> str:
            first = values.index[values == values[row]][0]
            here, there = species(table, row), species(table, first)
            text = f"{place(table, row)}: {field} {shown(values[row])} "
            way_out = "Keep the right one." if here != there else "Keep one row of each."
            if field == "image_id":
                way_out = (
                    _keep_both(tables, "images" if one_table else table, row, first, one_table) or way_out
                )
            if here != there:
                return f"{text}is of {here!r} here and of {there!r} in {place(table, first)}. {way_out}"
            return f"{text}occurs twice, first in {place(table, first)}. {way_out}"

        problems.add_rows(rows, told)

    for field, table in () if one_table else _REFERENCES:
        if field not in tables.get("annotations", ()) or field not in tables.get(table, ()):
            continue
        used, known = tables["annotations"][field].dropna(), tables[table][field]
        has_gaps = known.isna().any() or not isinstance(known.index, pd.RangeIndex)
        if has_gaps or used.equals(known):  # what a wrong row stands for is not known
            continue
        problems.add_rows(
            used.index[~used.isin(known)],
            lambda row, field=field, table=table, used=used: (
                f"{place('annotations', row)}: {field} {shown(used[row])} is not in table {table!r}. "
                "Add it there or remove the annotation."
            ),
        )

    if "file_name" in tables.get("images", ()):
        names = tables["images"]["file_name"].dropna()
        problems.add_rows(
            _unsafe(names),
            lambda row: (
                f"{place('images', row)}: file_name {shown(names[row])} "
                + (
                    "has characters that are no text (control characters, or bytes that are not UTF-8). Rename the "
                    "file."
                    if NO_TEXT.search(names[row])
                    else "is not a path within the image folder. Write it relative to that folder, with / between "
                    "its parts and without '..'."
                )
            ),
        )
    for field in ("scientificName", "genus", "family"):
        named = tables.get("categories", pd.DataFrame()).get(field, pd.Series(dtype=object)).dropna()
        problems.add_rows(
            [row for row, name in named.items() if "\0" in name],  # which no label map keeps
            lambda row, field=field, named=named: (
                f"{place('categories', row)}: {field} {shown(named[row])} has a NUL character. Write it without."
            ),
        )
    if {"genus_id_x", "genus_id_y"} <= {*tables.get("distances", ())}:
        x, y = tables["distances"]["genus_id_x"], tables["distances"]["genus_id_y"]
        problems.add_rows(
            x.index[x >= y],
            lambda row: (
                f"{place('distances', row)}: genus_id_x {shown(x[row])} is not below genus_id_y "
                f"{shown(y[row])}. Write each pair once, the smaller id first."
            ),
        )
    if "distance" in tables.get("distances", ()):
        distance = tables["distances"]["distance"]
        problems.add_rows(
            distance.index[distance < 0],
            lambda row: f"{place('distances', row)}: distance is {shown(distance[row])}, must be 0 or more.",
        )


def _keep_both(
    tables: dict[str, pd.DataFrame], table: str, row: int, first: int, one_table: bool
) -> str | None:
    """What to do where two rows of one image_id name two files, so that no image is lost; None where they do not."""
    files = tables.get(table, pd.DataFrame()).get("file_name", pd.Series(dtype=object))
    if row not in files or first not in files or files[row] == files[first]:
        return None
    way_out = f"Give {shown(files[first])} and {shown(files[row])} an id each"
    if one_table:
        way_out += (
            ", or rename the column image_id (then the file name is the id) and keep such images together with "
            "split --group"
        )
    return way_out + "."


def _species_lookup(tables: dict[str, pd.DataFrame], one_table: bool) -> Callable[[str, int], str | None]:
    """A function from a row of annotations or images to the name of its species, None for other tables."""

    @cache
    def names() -> dict[int, str]:
        categories = tables.get("categories", pd.DataFrame())
        if not {"category_id", "scientificName"} <= {*categories}:
            return {}
        return dict(zip(categories["category_id"], categories["scientificName"], strict=True))

    @cache
    def by_image() -> dict[str, int]:
        annotations = tables.get("annotations", pd.DataFrame())
        if not {"category_id", "image_id"} <= {*annotations}:
            return {}
        return dict(zip(annotations["image_id"], annotations["category_id"], strict=True))

    def species(table: str, row: int) -> str | None:
        if table == "annotations" or (table == "images" and one_table):
            category = tables["annotations"].get("category_id", {}).get(row)
        elif table == "images" and "image_id" in tables["images"]:
            category = by_image().get(tables["images"]["image_id"][row])
        else:
            return None
        return names().get(category)

    return species


def _unsafe(names: pd.Series) -> list[int]:
    """The index of file names that are not relative paths within the image folder."""
    joined = "\n" + "\n".join(names) + "\n"
    plain = joined.count("\n") == len(names) + 1 and joined.replace("\n", "").isprintable()
    if plain and not any(part in joined for part in ("\n/", "/\n", "\n\n", "..", ":", "\\")):
        return []  # of a million names this takes a tenth of a second, the pattern a whole one
    return [row for row, name in names.items() if "\n" in name or _UNSAFE.search(name)]


def complete(tables: dict[str, pd.DataFrame]) -> Metadata:
    """Right tables as Metadata: genus and family filled in, rows numbered from 0."""
    tables = {
        name: table if isinstance(table.index, pd.RangeIndex) else table.reset_index(drop=True)
        for name, table in tables.items()
    }
    categories = tables["categories"]
    nameless = categories["genus"] == ""
    categories.loc[nameless, "genus"] = categories.loc[nameless, "scientificName"].map(genus_of)
    categories["family"] = categories["family"].replace("", UNKNOWN)
    share_ids(tables)
    return Metadata(**tables)


def share_ids(tables: dict[str, pd.DataFrame]) -> None:
    """Let annotations and images hold the same ids once in memory, where they are in the same order."""
    if all("image_id" in tables.get(name, ()) for name in ("annotations", "images")):
        annotations, images = tables["annotations"], tables["images"]
        if annotations["image_id"].equals(images["image_id"]):
            tables["annotations"] = annotations.copy(deep=False)
            tables["annotations"]["image_id"] = images["image_id"]
