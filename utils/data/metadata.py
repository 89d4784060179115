"""The tables that describe the sheets, read and checked in every form that they come in, and written.

The forms are told apart by their content: the published train_metadata.json and test_metadata.json, the
table of NAFlora-mini, a CSV of own sheets, a folder with one subfolder a species, and a columnar copy.
"""

import codecs
import csv
import dataclasses
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd

from utils.data.names import epithet_of, genus_of, split_authors, tidy
from utils.data.problems import Problems
from utils.errors import InputError
from utils.files import read_json, replacing, write_json

UNKNOWN = "unknown"  # family, institution and licence of own sheets that name none

# The forms of metadata, as `form_of` tells them.
TRAIN_JSON, TEST_JSON = "published train JSON", "published test JSON"
MINI_TABLE, OWN_TABLE = "NAFlora-mini table", "table of own sheets"
SPECIES_FOLDERS, COLUMNAR = "folder per species", "columns"

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}

# Columns of the published tables with their types. Text is kept as Python str.
COLUMNS: dict[str, dict[str, type]] = {
    "annotations": {"image_id": str, "category_id": int, "genus_id": int, "institution_id": int},
    "images": {"image_id": str, "file_name": str, "license": int},
    "categories": {
        "category_id": int,
        "scientificName": str,
        "authors": str,
        "family": str,
        "genus": str,
        "species": str,
    },
    "genera": {"genus_id": int, "genus": str},
    "distances": {"genus_id_x": int, "genus_id_y": int, "distance": float},
    "institutions": {"institution_id": int, "collectionCode": str},
    "licenses": {"id": int, "name": str, "url": str},
}
_OPTIONAL_TABLES = ("distances", "institutions", "licenses")
_NULLABLE = ("authors", "species", "family", "genus", "url")  # text that may be absent or null
_SHEET_COLUMNS = ("image_id", "file_name", "scientificName", "authors", "genus", "species", "family")
_MINI_COLUMNS = ("genus_id", "institution_id", "category_id", "image_id", "scientificName")
_LARGEST = 2**53  # whole numbers up to this are exact in every reader of JSON

# README of dpl10/NAFlora-1M; Lamiaceae is misspelt there.
PUBLISHED_FAMILIES = pd.DataFrame(
    [
        ("Asteraceae", 1998, 110_007, 27_605),
        ("Fabaceae", 1070, 59_152, 14_803),
        ("Poaceae", 964, 53_547, 13_399),
        ("Cyperaceae", 780, 45_447, 11_410),
        ("Boraginaceae", 454, 23_724, 5_948),
        ("Brassicaceae", 402, 19_033, 4_752),
        ("Plantaginaceae", 380, 21_054, 5_265),
        ("Polygonaceae", 359, 18_899, 4_714),
        ("Rosaceae", 356, 20_628, 5_165),
        ("Lamiaceae", 309, 16_854, 4_239),
    ],
    columns=["family", "species", "train_images", "test_images"],
)


@dataclass(frozen=True, eq=False)
class Metadata:
    """The seven tables of train_metadata.json with the published columns (see COLUMNS).

    `image_id` is text in every table, whatever the file has: the published training ids are text, the
    test ids are numbers.
    """

    annotations: pd.DataFrame
    images: pd.DataFrame
    categories: pd.DataFrame
    genera: pd.DataFrame
    distances: pd.DataFrame
    institutions: pd.DataFrame
    licenses: pd.DataFrame


def _tables(metadata: Metadata) -> dict[str, pd.DataFrame]:
    return {field.name: getattr(metadata, field.name) for field in dataclasses.fields(metadata)}


# ---------------------------------------------------------------- the way in


def form_of(path: Path) -> str:
    """The form of a metadata file or folder, told by its content: TRAIN_JSON, MINI_TABLE, ...

    Raises:
        InputError: there is no such file, or it is empty or not text.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path}: no such file. Give a train_metadata.json, a CSV or TSV of sheets, "
            "or a folder with one subfolder per species."
        )
    if path.is_dir():
        columnar = path.suffix == ".columns" or (path / "images.feather").is_file()
        return COLUMNAR if columnar else SPECIES_FOLDERS
    with path.open("rb") as file:
        first = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if not first:
        raise InputError(f"{path}: is empty. Download or write the file again.")
    if first == b"[":
        return TEST_JSON
    if first == b"{" or path.suffix.lower() == ".json":
        return TRAIN_JSON
    columns, _ = _header(path)
    return MINI_TABLE if {*_MINI_COLUMNS} <= {*columns} and "file_name" not in columns else OWN_TABLE


def read_metadata(path: Path) -> Metadata:
    """Read the training metadata from whichever form `path` has, and check it.

    The forms are

    - the published train_metadata.json. A large one is read three times as fast and in half of the memory
      of json.load, and leaves a columnar copy in the scratch folder, which is read in its place as long as
      the file is the same (size, times of change).
    - the table of NAFlora-mini (TSV): genus_id, institution_id, category_id, image_id, scientificName and
      family, genus, species, authors. It names no files: image 00026__004 is 000/26/00026__004.jpg.
    - a table of own sheets (CSV; tab or semicolon too): file_name, scientificName and, where known,
      image_id (else the file_name), authors, genus, species, family; other columns are left out. A name with
      its authors and one without are one species when only one authored form of it occurs.
    - a folder with one subfolder a species, named as it (Zea mays, or Zea_mays). file_name is relative to
      the folder, and is the image_id too.
    - a folder written by `write_columns`.

    In the last three a missing genus is the first word of the name, a missing family is "unknown"; in the
    tables of own sheets and the folders category and genus ids are positions in the sorted names.

    Raises:
        InputError: the file is missing or in none of these forms, or its content is not right: a field is
            missing or has the wrong type, an id or a file name occurs twice, an image is under two species,
            an annotation has no image, category or genus, a distance is not between x < y, or a file name
            is absolute or climbs out of its folder. The message names file, table, row (line) and field,
            and lists the first twenty problems with their number.
    """
    path = Path(path)
    form = form_of(path)
    if form == TEST_JSON:
        raise InputError(
            f"{path}: is a list, as test_metadata.json is: it names no species. Give the train_metadata.json."
        )
    if form == TRAIN_JSON:
        return _cached(path) if path.stat().st_size >= _CACHED_FROM else _read_train_json(path)
    readers = {
        MINI_TABLE: _read_mini,
        OWN_TABLE: _read_own_table,
        SPECIES_FOLDERS: _read_species_folders,
        COLUMNAR: _read_columns,
    }
    return readers[form](path)


def read_test_metadata(path: Path) -> pd.DataFrame:
    """Read test_metadata.json: one row an image with image_id (str), file_name (str), license (int).

    Raises:
        InputError: the file is missing or not a list of such records, an image_id or a file_name occurs
            twice, or a file name is absolute or climbs out of its folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    problems = Problems(path)
    content = path.read_bytes()
    try:
        rows: Any = msgspec.json.decode(content, type=msgspec.Raw)
    except msgspec.MsgspecError:
        rows = _parse(path, content)
    images = _typed_table(problems, "images", rows)
    _check(problems, {"images": images}, _place_in_json)
    problems.raise_any()
    return images


# ---------------------------------------------------------------- published JSON


def _row_type(table: str) -> type[msgspec.Struct]:
    """The record of a published table. What it refuses goes to `_convert`, which tells the row and accepts more."""
    integer = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
    text = Annotated[str, msgspec.Meta(min_length=1)]
    fields: list[Any] = []
    for name, kind in COLUMNS[table].items():
        if name in _NULLABLE:
            fields.append((name, str | None, ""))
        elif name == "image_id":
            fields.append((name, integer | text))
        else:
            fields.append((name, {int: integer, str: text, float: float}[kind]))
    return msgspec.defstruct(table, fields, kw_only=True, gc=False)


_ROW_TYPES = {table: _row_type(table) for table in COLUMNS}


def _read_train_json(path: Path) -> Metadata:
    problems = Problems(path)
    content = _split_tables(path)
    tables = {}
    for name in COLUMNS:
        if name not in content and name not in _OPTIONAL_TABLES:
            found = ", ".join([*tables, *content]) or "nothing"
            problems.add(f"no table {name!r}; found {found}. Is it the published training file?")
            continue
        tables[name] = _typed_table(problems, name, content.pop(name, []))
    _check(problems, tables, _place_in_json)
    problems.raise_any()
    return _complete(tables)


def _place_in_json(table: str, row: int) -> str:
    return f"table {table!r}, row {row}"


def _split_tables(path: Path) -> dict[str, Any]:
    """The tables of a JSON file, each still as its bytes; plain lists where the fast reader gives up."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (
        msgspec.MsgspecError,
        RecursionError,
    ):  # says no line, and knows neither NaN nor a byte order mark
        tables = _parse(path, content[:])
    if not isinstance(tables, dict):
        raise InputError(f"{path}: must be an object of tables, found {type(tables).__name__}.")
    return tables


def _parse(path: Path, content: bytes) -> Any:
    """JSON by Python's own reader: slower, with the line of what is wrong."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}). Download or write the file again.") from None


def _typed_table(problems: Problems, table: str, rows: Any) -> pd.DataFrame:
    """Rows of one JSON table (its bytes, or a list) as a frame with the published columns and types.

    A row that is no object is left out, so the index tells the row; a value that is wrong is None or NaN.
    """
    if isinstance(rows, msgspec.Raw):
        try:
            return _decode(table, memoryview(rows))
        except (msgspec.MsgspecError, UnicodeDecodeError):  # names no row, and is stricter than we are
            rows = _parse(problems.path, bytes(rows))
    if not isinstance(rows, list):
        problems.add(f"table {table!r} must be a list, found {type(rows).__name__}.")
        rows = []
    return _convert(problems, table, rows)


def _decode(table: str, content: memoryview) -> pd.DataFrame:
    """A JSON list of right rows as a frame, a piece at a time: the rows as objects take most memory."""
    if content[:1] != b"[":
        raise msgspec.DecodeError("not a list")
    decoder = msgspec.json.Decoder(list[_ROW_TYPES[table]])
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS[table]}
    for piece in _pieces(content):
        rows = decoder.decode(piece)
        for name, kind in COLUMNS[table].items():
            values = map(attrgetter(name), rows)
            if name == "image_id":
                columns[name].extend(map(str, values))
            elif kind is str:
                columns[name].extend(value or "" for value in values)
            else:
                columns[name].append(np.fromiter(values, np.dtype(kind), len(rows)))
    return pd.DataFrame(
        {
            name: pd.Series(columns[name], dtype=object)
            if kind is str
            else np.concatenate([np.empty(0, np.dtype(kind)), *columns[name]])
            for name, kind in COLUMNS[table].items()
        }
    )


def _pieces(content: memoryview, size: int = 1 << 20) -> Iterator[bytes]:
    """A JSON list as lists of some of its rows, cut behind a closing brace.

    Where that brace closes no row (it is in a text, or closes an object within a row), the piece is no JSON
    and its decoder says so.
    """
    inner, position = content[1:-1], 0
    while position < len(inner):
        piece = bytes(inner[position : position + size])
        if position + size < len(inner):
            piece = piece[: piece.rfind(b"}") + 1] or bytes(inner[position:])
        position += len(piece)
        position += bytes(inner[position : position + 256]).find(b",") + 1
        yield b"[" + piece + b"]"


def _convert(problems: Problems, table: str, rows: list[Any]) -> pd.DataFrame:
    """As `_decode`, from parsed rows, with each value that is wrong added to the problems."""
    objects = [number for number, row in enumerate(rows) if isinstance(row, dict)]
    if len(objects) < len(rows):
        others = sorted({*range(len(rows))} - {*objects})
        problems.add_rows(
            others,
            lambda row: f"{_place_in_json(table, row)}: must be an object, found {type(rows[row]).__name__}.",
        )
    result: dict[str, Any] = {}
    for name, kind in COLUMNS[table].items():
        if objects and name not in _NULLABLE and not any(name in rows[number] for number in objects):
            found = ", ".join(map(str, rows[objects[0]])) or "nothing"
            problems.add(f"table {table!r} has no field {name!r}; found {found}. Add the field to every row.")
            continue
        result[name] = _convert_column(problems, table, name, kind, {n: rows[n].get(name) for n in objects})
    return pd.DataFrame(result, index=pd.RangeIndex(len(rows)) if len(objects) == len(rows) else objects)


def _convert_column(
    problems: Problems, table: str, name: str, kind: type, given: dict[int, Any]
) -> pd.Series:
    convert, wanted = {
        int: (_integer, "must be an integer"),
        float: (_number, "must be a number"),
        str: (_text, "must be text"),
    }[kind]
    if name == "image_id":
        convert, wanted = _identifier, "must be text or an integer"

    def converted(value: Any) -> Any:
        return "" if name in _NULLABLE and value in (None, "") else convert(value)

    values = {row: converted(value) for row, value in given.items()}
    wrong = [row for row, value in values.items() if value is None]
    problems.add_rows(
        wrong,
        lambda row: (
            f"{_place_in_json(table, row)}: field {name!r} is missing. Give it a value."
            if given[row] is None
            else f"{_place_in_json(table, row)}: {name} is {_shown(given[row])}, {wanted}."
        ),
    )
    dtype = object if kind is str else "float64" if kind is float or wrong else "int64"
    return pd.Series(values, dtype=dtype)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _identifier(value: Any) -> str | None:
    return str(value) if type(value) is int else _text(value)


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"[+-]?\d{1,16}", value.strip()) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) <= _LARGEST else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) is int:
        value = _integer(value)
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def _shown(value: Any) -> str:
    """One value as Python writes it, not too long; NumPy 2 would write np.int64(5)."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---------------------------------------------------------------- checks that all forms share

_UNIQUE = (
    ("annotations", "image_id"),
    ("images", "image_id"),
    ("images", "file_name"),
    ("categories", "category_id"),
    ("categories", "scientificName"),
    ("genera", "genus_id"),
)
_REFERENCES = (("image_id", "images"), ("category_id", "categories"), ("genus_id", "genera"))
# Absolute (also with a drive letter, or a URL), climbing, not written with /, or not writable as UTF-8.
_UNSAFE = re.compile(
    r"^/|^[A-Za-z]:|^\w+://|\\|(?:^|/)\.\.(?:/|$)|/$|^$|[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]", re.MULTILINE
)


def _check(
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
        one_table: images and annotations come from the same rows, so one message is enough for both.
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
            text = f"{place(table, row)}: {field} {_shown(values[row])} "
            if here != there:
                return f"{text}is of {here!r} here and of {there!r} in {place(table, first)}. Keep the right one."
            return f"{text}occurs twice, first in {place(table, first)}. Keep one row of each."

        problems.add_rows(rows, told)

    for field, table in _REFERENCES:
        if field not in tables.get("annotations", ()) or field not in tables.get(table, ()):
            continue
        used, known = tables["annotations"][field].dropna(), tables[table][field]
        if used.equals(known):
            continue
        problems.add_rows(
            used.index[~used.isin(known)],
            lambda row, field=field, table=table, used=used: (
                f"{place('annotations', row)}: {field} {_shown(used[row])} is not in table {table!r}. "
                "Add it there or remove the annotation."
            ),
        )

    if "file_name" in tables.get("images", ()):
        names = tables["images"]["file_name"].dropna()
        problems.add_rows(
            _unsafe(names),
            lambda row: (
                f"{place('images', row)}: file_name {_shown(names[row])} is not a path within the image "
                "folder. Write it relative to that folder, with / between its parts and without '..'."
            ),
        )
    if {"genus_id_x", "genus_id_y"} <= {*tables.get("distances", ())}:
        x, y = tables["distances"]["genus_id_x"], tables["distances"]["genus_id_y"]
        problems.add_rows(
            x.index[x >= y],
            lambda row: (
                f"{place('distances', row)}: genus_id_x {_shown(x[row])} is not below genus_id_y "
                f"{_shown(y[row])}. Write each pair once, the smaller id first."
            ),
        )
    if "distance" in tables.get("distances", ()):
        distance = tables["distances"]["distance"]
        problems.add_rows(
            distance.index[distance < 0],
            lambda row: f"{place('distances', row)}: distance is {_shown(distance[row])}, must be 0 or more.",
        )


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
    joined = "\n".join(names)
    if joined.count("\n") == len(names) - 1 and not _UNSAFE.search(joined):  # one search: 0.3 s a million
        return []
    return [row for row, name in names.items() if "\n" in name or _UNSAFE.search(name)]


def _complete(tables: dict[str, pd.DataFrame]) -> Metadata:
    """Right tables as Metadata: genus and family filled in, rows numbered anew."""
    tables = {name: table.reset_index(drop=True) for name, table in tables.items()}
    categories = tables["categories"]
    nameless = categories["genus"] == ""
    categories.loc[nameless, "genus"] = categories.loc[nameless, "scientificName"].map(genus_of)
    categories["family"] = categories["family"].replace("", UNKNOWN)
    annotations, images = tables["annotations"], tables["images"]
    if annotations["image_id"].equals(images["image_id"]):
        annotations["image_id"] = images["image_id"]  # the same text once in memory
    return Metadata(**tables)


# ---------------------------------------------------------------- tables of sheets: CSV and TSV


def _header(path: Path) -> tuple[list[str], str]:
    """The column names of a table and what is between them: a comma, a tab or a semicolon."""
    with path.open("rb") as file:
        line = file.readline(1 << 16)
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    if "\0" in text:
        raise InputError(f"{path}: is not text. Give a JSON, a CSV in UTF-8, or a folder of sheets.")
    delimiter = max(",\t;", key=text.count)
    columns = next(csv.reader([text.strip("\r\n")], delimiter=delimiter), [])
    return [column.strip() for column in columns], delimiter


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{path}: not UTF-8 text ({error}). Save the table as CSV in UTF-8, from a spreadsheet too."
    )


def _read_table(path: Path, needed: tuple[str, ...]) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """A table as text, all known columns there and stripped, and words for the line of a row.

    Raises:
        InputError: it is no such table, or one of the `needed` columns is missing, twice there or empty.
    """
    columns, delimiter = _header(path)
    known = (*_SHEET_COLUMNS, *_MINI_COLUMNS)
    for column in needed:
        if column not in columns:
            raise InputError(
                f"{path}: no column {column!r}; found {', '.join(columns) or 'nothing'}. A table of sheets has "
                "file_name and scientificName; image_id, authors, genus, species and family are welcome."
            )
    twice = [column for column in known if columns.count(column) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} is there twice. Keep one of them.")
    try:
        table = pd.read_csv(
            path,
            sep=delimiter,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            skip_blank_lines=False,
        )
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a readable CSV ({error}). The first line names the columns.") from None
    if not isinstance(table.index, pd.RangeIndex):
        rows = table.index.get_level_values(0).astype(str)
        if needed != _MINI_COLUMNS or table.index.nlevels > 1 or not rows.str.isdecimal().all():
            raise InputError(
                f"{path}: line 2 has more fields than the first line has names. Quote a field that holds "
                f"{delimiter!r}, or remove what is too much."
            )
        table = table.reset_index(drop=True)  # as R writes a table: the row names have no name
    # A row with fewer fields than the header leaves NaN in the last columns, even with keep_default_na.
    table = table.fillna("")
    table.columns = [str(column).strip() for column in table.columns]

    @cache
    def lines(every: pd.DataFrame = table) -> np.ndarray:
        breaks = sum(every[column].str.count("\n").to_numpy() for column in every)
        return 2 + np.arange(len(every)) + np.cumsum(breaks) - breaks

    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{path}: has no rows below the header. Add one line a sheet.")
    table = pd.DataFrame(
        {name: table[name].str.strip() if name in table else "" for name in known}, index=table.index
    )
    return table, lambda row: f"line {lines()[row]}"


def _read_mini(path: Path) -> Metadata:
    table, line = _read_table(path, _MINI_COLUMNS)
    problems = Problems(path)
    _refuse_empty(problems, table, ("image_id", "scientificName"), line)
    for column in ("genus_id", "institution_id", "category_id"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = numbers.isna() | (numbers % 1 != 0) | (numbers.abs() > _LARGEST)
        problems.add_rows(
            table.index[wrong],
            lambda row, column=column: (
                f"{line(row)}: {column} is {table[column][row]!r}, must be an integer. Mend the line."
            ),
        )
        table[f"{column}_number"] = numbers.where(~wrong)
    ids = table["image_id"]
    table["file_name"] = ids.str[:3] + "/" + ids.str[3:5] + "/" + ids + ".jpg"
    problems.add_rows(
        table.index[(ids != "") & ~ids.str.fullmatch(r"[0-9]{5}__[0-9]+")],
        lambda row: (
            f"{line(row)}: image_id {_shown(ids[row])} is not as 00026__004, from which the file name follows. "
            "Add a column file_name."
        ),
    )
    for key, column in (
        ("category_id", "scientificName"),
        ("category_id", "genus"),
        ("category_id", "family"),
        ("genus_id", "genus"),
    ):
        _refuse_two_values(problems, table, key, column, line)
    problems.raise_any()

    table = table.assign(**{name: table[f"{name}_number"].astype("int64") for name in _MINI_COLUMNS[:3]})
    fields = list(COLUMNS["categories"])[1:]
    categories = _first_given(table, "category_id", fields)
    genera = _first_given(table, "genus_id", ["genus", "scientificName"])
    unnamed = genera["genus"] == ""
    genera.loc[unnamed, "genus"] = genera.loc[unnamed, "scientificName"].map(genus_of)
    institutions = pd.DataFrame({"institution_id": np.unique(table["institution_id"])})
    tables = {
        "annotations": table[list(COLUMNS["annotations"])],
        "images": table[["image_id", "file_name"]].assign(license=0),
        "categories": categories,
        "genera": genera[["genus_id", "genus"]],
        "distances": _convert(problems, "distances", []),
        "institutions": institutions.assign(collectionCode=institutions["institution_id"].astype(str)),
        "licenses": _UNKNOWN_LICENSE,
    }
    categories.index = pd.Index(table.drop_duplicates("category_id").sort_values("category_id").index)
    _check(problems, tables, lambda _, row: line(row), one_table=True)
    problems.raise_any()
    return _complete(tables)


def _read_own_table(path: Path) -> Metadata:
    sheets, line = _read_table(path, ("file_name", "scientificName"))
    if "image_id" not in _header(path)[0]:
        sheets["image_id"] = sheets["file_name"]
    return _from_sheets(Problems(path), sheets, line)


def _read_species_folders(path: Path) -> Metadata:
    def refuse(error: OSError) -> None:
        raise error

    files = []
    for here, folders, names in os.walk(path, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(here).relative_to(path)
        files += [
            (inner / name).as_posix()
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    files.sort()
    if (path / "train_metadata.json").is_file():
        raise InputError(f"{path}: holds train_metadata.json. Give that file.")
    if not any("/" in file for file in files):
        raise InputError(
            f"{path}: no folders with images in it. Sheets lie in one subfolder per species, named as the "
            f"species (Zea mays/sheet1.jpg); or give a CSV. Looked for {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    problems = Problems(path)
    problems.add_rows(
        [row for row, file in enumerate(files) if "/" not in file],
        lambda row: f"{files[row]!r} lies in no subfolder, so it has no species. Move it into one.",
    )
    sheets = pd.DataFrame({"file_name": [file for file in files if "/" in file]}, dtype=object)
    sheets["image_id"] = sheets["file_name"]
    sheets["scientificName"] = sheets["file_name"].str.split("/").str[0].str.replace("_", " ")
    sheets = sheets.assign(authors="", genus="", species="", family="")
    return _from_sheets(problems, sheets, lambda row: repr(sheets["file_name"][row]))


def _from_sheets(problems: Problems, sheets: pd.DataFrame, line: Callable[[int], str]) -> Metadata:
    """Metadata of own sheets: one row each, all of _SHEET_COLUMNS as text, "" where a field is not given."""
    _refuse_empty(problems, sheets, ("file_name", "scientificName"), line)
    _refuse_empty(problems, sheets[sheets["file_name"] != ""], ("image_id",), line)
    written = {name: tidy(name) for name in sheets["scientificName"].unique()}
    sheets = sheets.assign(scientificName=sheets["scientificName"].map(written))
    nameless = [name for name in written.values() if name and not any(map(str.isalpha, name))]
    problems.add_rows(
        sheets.index[sheets["scientificName"].isin(nameless)],
        lambda row: (
            f"{line(row)}: scientificName {sheets['scientificName'][row]!r} is no name. Name the taxon."
        ),
    )
    _refuse_two_values(problems, sheets, "scientificName", "authors", line)
    name_of, authors = _merge_names(problems, sheets, line)
    sheets = sheets.assign(scientificName=sheets["scientificName"].map(name_of))
    for column in ("genus", "family"):
        _refuse_two_values(problems, sheets, "scientificName", column, line)

    # One sheet of a species may name what the others leave empty: the first that is not empty counts.
    categories = _first_given(sheets, "scientificName", ["family", "genus", "species"])
    names = categories["scientificName"]
    categories["authors"] = names.map(authors)
    categories["genus"] = categories["genus"].where(categories["genus"] != "", names.map(genus_of))
    categories["species"] = categories["species"].where(categories["species"] != "", names.map(epithet_of))
    categories["category_id"] = np.arange(len(categories))
    genera = pd.DataFrame({"genus": sorted(set(categories["genus"]))})
    genera.insert(0, "genus_id", np.arange(len(genera)))
    of_name = categories.set_index("scientificName")
    annotations = pd.DataFrame(
        {
            "image_id": sheets["image_id"].where(sheets["image_id"] != "", None),
            "category_id": sheets["scientificName"].map(of_name["category_id"]),
            "genus_id": sheets["scientificName"]
            .map(of_name["genus"])
            .map(genera.set_index("genus")["genus_id"]),
            "institution_id": 0,
        }
    )
    file_name = sheets["file_name"].where(sheets["file_name"] != "", None)
    tables = {
        "annotations": annotations,
        "images": pd.DataFrame({"image_id": annotations["image_id"], "file_name": file_name, "license": 0}),
        "categories": categories[list(COLUMNS["categories"])],
        "genera": genera,
        "distances": _convert(problems, "distances", []),
        "institutions": pd.DataFrame({"institution_id": [0], "collectionCode": [UNKNOWN]}),
        "licenses": _UNKNOWN_LICENSE,
    }
    _check(problems, tables, lambda _, row: line(row), one_table=True)
    problems.raise_any()
    return _complete(tables)


_UNKNOWN_LICENSE = pd.DataFrame({"id": [0], "name": [UNKNOWN], "url": [""]})


def _merge_names(
    problems: Problems, sheets: pd.DataFrame, line: Callable[[int], str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The name of the species for each name as written, and the authors of each species.

    A name without authors is that of the only authored form of it; where there are several it is a problem.
    """
    names = _first_given(sheets, "scientificName", ["authors", "species"])
    bare, inner, authored = {}, {}, {}
    forms: dict[str, set[str]] = {}  # bare name -> the authors that occur with it
    for name, given, species in names[["scientificName", "authors", "species"]].itertuples(index=False):
        bare[name], inner[name] = split_authors(name, species)
        authored[name] = given or inner[name]
        if authored[name]:
            forms.setdefault(bare[name], set()).add(authored[name])
    members: dict[tuple[str, str], list[str]] = {}
    for name, of in authored.items():
        known = forms.get(bare[name], {""})
        members.setdefault((bare[name], of or (next(iter(known)) if len(known) == 1 else "")), []).append(
            name
        )
    name_of, authors = {}, {}
    for (_, of), group in members.items():
        chosen = min(group, key=lambda name: (not inner[name], name))  # with its authors where one is
        name_of.update(dict.fromkeys(group, chosen))
        authors[chosen] = of
    unclear = [name for name, of in authored.items() if not of and len(forms.get(bare[name], ())) > 1]

    def told(row: int) -> str:
        name = sheets["scientificName"][row]
        choices = sorted(
            chosen if inner[chosen] else f"{chosen} {of}"
            for chosen, of in authors.items()
            if of and bare[chosen] == bare[name]
        )
        return (
            f"{line(row)}: scientificName {name!r} may be {' or '.join(map(repr, choices))}. "
            "Write it with its authors."
        )

    problems.add_rows(sheets.index[sheets["scientificName"].isin(unclear)], told)
    return name_of, authors


def _first_given(table: pd.DataFrame, key: str, fields: list[str]) -> pd.DataFrame:
    """One row a value of `key`, sorted by it, with the first value of each field that is not empty, else ""."""
    given = table[[key, *fields]]
    grouped = (
        given.where(given != "").groupby(table[key], sort=True)[fields].first().fillna("").astype(object)
    )
    return grouped.rename_axis(key).reset_index()


def _refuse_empty(
    problems: Problems, table: pd.DataFrame, columns: tuple[str, ...], line: Callable[[int], str]
) -> None:
    for column in columns:
        problems.add_rows(
            table.index[table[column] == ""],
            lambda row, column=column: f"{line(row)}: {column} is empty. Fill it in or remove the line.",
        )


def _refuse_two_values(
    problems: Problems, table: pd.DataFrame, key: str, column: str, line: Callable[[int], str]
) -> None:
    """All rows of one `key` have one value of `column`; empty fields do not count."""
    given = table[(table[column] != "") & (table[key] != "")]
    first = given.groupby(key)[column].transform("first")
    problems.add_rows(
        given.index[given[column] != first],
        lambda row: (
            f"{line(row)}: {column} of {key} {given[key][row]!r} is {given[column][row]!r} here and "
            f"{first[row]!r} before. Make them the same."
        ),
    )


# ---------------------------------------------------------------- columns, and the copy that is kept of a JSON

_CACHED_FROM = 32 << 20  # bytes; a smaller JSON is read within half a second
_CACHE_VERSION = 1  # raised when reading or checking changes
_STAMP = "source.json"  # in the copy: the file that it is of


def write_columns(metadata: Metadata, folder: Path) -> Path:
    """Write the tables as one feather file each, which reads some twenty times faster than the JSON.

    An existing folder of that name is replaced as a whole.
    """
    return _write_columns(metadata, Path(folder), None)


def _write_columns(metadata: Metadata, folder: Path, stamp: dict[str, Any] | None) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, table in _tables(metadata).items():
            table.reset_index(drop=True).to_feather(temporary / f"{name}.feather")
        if stamp is not None:
            write_json(temporary / _STAMP, stamp)
        if folder.exists():
            _require_columnar(folder)
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _require_columnar(folder: Path) -> None:
    if not (folder / "images.feather").is_file():
        raise InputError(
            f"{folder}: not a columnar metadata folder (it has no images.feather). Name the "
            "train_metadata.json itself, or a folder that write_columns() made."
        )


def _read_columns(folder: Path, checked: bool = False) -> Metadata:
    """The tables of a columnar folder; `checked` where they are known to be right."""
    import pyarrow.feather

    _require_columnar(folder)
    columnar = {}
    for name, columns in COLUMNS.items():
        file = folder / f"{name}.feather"
        if not file.is_file():
            raise InputError(
                f"{file}: no such file. Delete {folder.name} and write it again with write_columns()."
            )
        try:
            table = pyarrow.feather.read_table(file)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise InputError(f"{file}: not a readable feather file ({error}). Write it again.") from None
        for column, kind in columns.items():
            if column not in table.column_names:
                raise InputError(f"{file}: no column {column!r}. Write it again with write_columns().")
            wanted = {str: "string", int: "int64", float: "double"}[kind]
            if str(table.schema.field(column).type).removeprefix("large_") not in (wanted, "null"):
                found = table.schema.field(column).type
                raise InputError(f"{file}: column {column!r} is {found}, must be {wanted}. Write it again.")
            if table[column].null_count:
                raise InputError(f"{file}: column {column!r} has empty values. Write it again.")
        columnar[name] = table.select(list(columns))
    # The ids of both tables are most often the same: made once, they cost half of the time and memory.
    shared = columnar["annotations"]["image_id"].equals(columnar["images"]["image_id"])
    if shared:
        columnar["annotations"] = columnar["annotations"].drop_columns(["image_id"])
    tables = {name: table.to_pandas(deduplicate_objects=False) for name, table in columnar.items()}
    if shared:
        tables["annotations"].insert(0, "image_id", tables["images"]["image_id"])
    if not checked:
        problems = Problems(folder)
        _check(problems, tables, _place_in_json)
        problems.raise_any()
    return Metadata(**tables)


def _cached(path: Path) -> Metadata:
    """As `_read_train_json`, from the copy that an earlier call left, as long as the file is the same one.

    The same is: path, size, and the times of its last change of content and of anything, to the nanosecond.
    A file that was changed within the last two seconds is not kept, since a further change might not show in
    its time.
    """
    from utils.paths import scratch_dir

    stamp = _stamp(path)
    key = hashlib.sha256(stamp["path"].encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = None
    try:
        folder = scratch_dir() / ".metadata" / f"{key}.columns"
        if (folder / _STAMP).is_file() and read_json(folder / _STAMP) == stamp:
            return _read_columns(folder, checked=True)
    except (OSError, InputError) as error:
        warnings.warn(f"The copy of {path} is not used ({error}) Reading the file itself.", stacklevel=3)
    metadata = _read_train_json(path)
    settled = time.time_ns() - max(stamp["modified_ns"], stamp["changed_ns"]) > 2_000_000_000
    if folder is not None and settled and _stamp(path) == stamp:
        try:
            _write_columns(metadata, folder, stamp)
        except OSError as error:
            warnings.warn(f"No copy of {path} is kept for the next time ({error}).", stacklevel=3)
    return metadata


def _stamp(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "version": _CACHE_VERSION,
        "path": str(path.resolve()),
        "size": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
    }


# ---------------------------------------------------------------- writing


def write_metadata(metadata: Metadata, path: Path) -> None:
    """Write the tables as the published train_metadata.json, whole; costs one chunk of rows in memory."""
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "{"
        for name, table in _tables(metadata).items():
            file.write(f'{separator}"{name}": ')
            _dump_rows(table, file.write)
            separator = ",\n"
        file.write("}\n")


def write_test_metadata(images: pd.DataFrame, path: Path) -> None:
    """Write a table of image_id, file_name, license as test_metadata.json, whole.

    Numbers in `image_id` stay numbers, as in the published file.
    """
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        _dump_rows(images[list(COLUMNS["images"])], file.write)


def _dump_rows(table: pd.DataFrame, write: Callable[[str], Any], chunk: int = 50_000) -> None:
    """Write a table as a JSON list of objects, a chunk of rows at a time."""
    write("[")
    for start in range(0, len(table), chunk):
        rows = table.iloc[start : start + chunk].to_dict(orient="records")
        write((",\n" if start else "") + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    write("]")


def family_table(metadata: Metadata) -> pd.DataFrame:
    """Families by number of species, most first: columns family, species, train_images."""
    categories = metadata.categories
    images = metadata.annotations["category_id"].value_counts()
    table = pd.DataFrame(
        {
            "family": categories["family"],
            "species": 1,
            "train_images": categories["category_id"].map(images).fillna(0).astype("int64"),
        }
    )
    table = table.groupby("family", as_index=False).sum()
    return table.sort_values(["species", "family"], ascending=[False, True], ignore_index=True)
