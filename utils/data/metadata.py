"""The tables that describe the sheets, read from the published JSON, a columnar copy or a CSV."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.errors import InputError
from utils.files import read_json, replacing

UNKNOWN = "unknown"  # family, institution and licence of own sheets that name none

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


def read_metadata(path: Path) -> Metadata:
    """Read the training metadata from whichever form `path` has.

    Args:
        path: the published train_metadata.json; a folder written by `write_columns`; or a CSV of own
            sheets with the columns image_id, file_name, scientificName and, where known, authors, genus,
            species, family. In a CSV a missing genus is the first word of the name, a missing family is
            "unknown", and category and genus ids are positions in the sorted names.

    Raises:
        InputError: the file is missing or not in one of these forms, a table or column is missing, a
            value has the wrong type, an image_id occurs twice, or an annotation has no image, category
            or genus; the message names file, table, row and field.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file. Give a train_metadata.json, a .columns folder or a CSV.")
    if path.is_dir():
        return _read_columns(path)
    if path.suffix == ".json":
        return _read_published(path)
    if path.suffix == ".csv":
        return _read_own_sheets(path)
    raise InputError(f"{path}: not a known metadata format. Give a .json, a .columns folder or a .csv.")


def read_test_metadata(path: Path) -> pd.DataFrame:
    """Read test_metadata.json: one row an image with image_id (str), file_name (str), license (int).

    Raises:
        InputError: the file is missing or not a list of such records, or an image_id occurs twice.
    """
    path = Path(path)
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError(
            f"{path}: must be a list of images, found {type(rows).__name__}. Is it test_metadata.json?"
        )
    images = _typed_table(path, "images", rows)
    _refuse_duplicates(path, "images", "image_id", images["image_id"])
    return images


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


def write_columns(metadata: Metadata, folder: Path) -> Path:
    """Write the tables as one feather file each, which reads some twenty times faster than the JSON.

    An existing folder of that name is replaced as a whole.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name, table in _tables(metadata).items():
        table.reset_index(drop=True).to_feather(temporary / f"{name}.feather")
    if folder.exists():
        _require_columnar(folder)
        shutil.rmtree(folder)
    temporary.rename(folder)
    return folder


def _require_columnar(folder: Path) -> None:
    if not (folder / "images.feather").is_file():
        raise InputError(
            f"{folder}: not a columnar metadata folder (it has no images.feather). Name the "
            "train_metadata.json itself, or a folder that write_columns() made."
        )


def _read_columns(folder: Path) -> Metadata:
    _require_columnar(folder)
    tables = {}
    for name, columns in COLUMNS.items():
        file = folder / f"{name}.feather"
        if not file.is_file():
            raise InputError(
                f"{file}: no such file. Delete {folder.name} and write it again with write_columns()."
            )
        try:
            tables[name] = pd.read_feather(file)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise InputError(f"{file}: not a readable feather file ({error}). Write it again.") from None
        missing = [column for column in columns if column not in tables[name]]
        if missing:
            raise InputError(f"{file}: no column {missing[0]!r}. Write it again with write_columns().")
    return Metadata(**tables)


def _read_published(path: Path) -> Metadata:
    content = read_json(path)
    if isinstance(content, list):
        raise InputError(
            f"{path}: is a list, as test_metadata.json is. Training metadata is an object of tables."
        )
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be an object of tables, found {type(content).__name__}.")
    tables = {}
    for name in COLUMNS:
        if name not in content and name not in _OPTIONAL_TABLES:
            found = ", ".join([*tables, *map(str, content)]) or "nothing"
            raise InputError(f"{path}: no table {name!r}; found {found}. Is it the published training file?")
        rows = content.pop(name, [])  # popped so that one table at a time is held twice
        if not isinstance(rows, list):
            raise InputError(f"{path}: table {name!r} must be a list, found {type(rows).__name__}.")
        tables[name] = _typed_table(path, name, rows)
    metadata = Metadata(**tables)
    categories = metadata.categories
    first_word = categories["scientificName"].str.split(n=1).str[0]
    categories["genus"] = categories["genus"].where(categories["genus"] != "", first_word)
    categories["family"] = categories["family"].where(categories["family"] != "", UNKNOWN)
    _check_references(path, metadata)
    return metadata


def _typed_table(path: Path, table: str, rows: list[Any]) -> pd.DataFrame:
    """Rows of one JSON table as a frame with exactly the published columns and types."""
    columns = COLUMNS[table]
    if not rows:
        return pd.DataFrame(
            {name: pd.Series(dtype=object if kind is str else kind) for name, kind in columns.items()}
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(
                f"{path}: table {table!r}, row {number}: must be an object, found {type(row).__name__}."
            )
    frame = pd.DataFrame.from_records(rows)
    result = {}
    for name, kind in columns.items():
        if name not in frame and name in _NULLABLE:
            result[name] = pd.Series("", index=frame.index, dtype=object)
            continue
        if name not in frame:
            found = ", ".join(map(str, frame.columns))
            raise InputError(
                f"{path}: table {table!r} has no field {name!r}; found {found}. Add the field to every row."
            )
        result[name] = _typed_column(path, table, name, kind, frame[name])
    return pd.DataFrame(result)


def _typed_column(path: Path, table: str, name: str, kind: type, values: pd.Series) -> pd.Series:
    absent = values.isna()
    if absent.any() and name not in _NULLABLE:
        row = int(np.flatnonzero(absent)[0])
        raise InputError(f"{path}: table {table!r}, row {row}: field {name!r} is missing. Give it a value.")
    if kind is str:
        if name != "image_id":
            return values.where(~absent, "").astype(str).astype(object)
        if values.dtype == float or values.map(lambda value: isinstance(value, float)).any():
            row = int(np.flatnonzero(values.map(lambda value: isinstance(value, float)))[0])
            raise InputError(
                f"{path}: table {table!r}, row {row}: image_id is {_shown(values, row)}, "
                "must be text or an integer."
            )
        return values.astype(str).astype(object)
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = numbers.isna() if kind is float else numbers.isna() | (numbers % 1 != 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        wanted = "an integer" if kind is int else "a number"
        raise InputError(
            f"{path}: table {table!r}, row {row}: {name} is {_shown(values, row)}, must be {wanted}."
        )
    return numbers.astype("int64" if kind is int else "float64")


def _shown(values: pd.Series, row: int) -> str:
    """One value as Python writes it; NumPy 2 would write np.int64(5)."""
    value = values.iloc[row]
    return repr(value.item() if isinstance(value, np.generic) else value)


def _refuse_duplicates(path: Path, table: str, field: str, values: pd.Series) -> None:
    repeated = values.duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise InputError(
            f"{path}: table {table!r}, row {row}: {field} {_shown(values, row)} occurs twice "
            f"({int(repeated.sum())} repeated in all). Keep one row of each."
        )


def _check_references(path: Path, metadata: Metadata) -> None:
    for table, field in (
        ("images", "image_id"),
        ("annotations", "image_id"),
        ("categories", "category_id"),
        ("categories", "scientificName"),
        ("genera", "genus_id"),
    ):
        _refuse_duplicates(path, table, field, getattr(metadata, table)[field])
    for table, field in (("images", "image_id"), ("categories", "category_id"), ("genera", "genus_id")):
        used = metadata.annotations[field]
        unknown = ~used.isin(getattr(metadata, table)[field])
        if unknown.any():
            row = int(np.flatnonzero(unknown)[0])
            raise InputError(
                f"{path}: table 'annotations', row {row}: {field} {_shown(used, row)} is not in "
                f"table {table!r} ({int(unknown.sum())} such rows). Add it there or remove the annotation."
            )


def _read_own_sheets(path: Path) -> Metadata:
    try:
        sheets = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}). Save the table as CSV in UTF-8.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a readable CSV ({error}). The first line names the columns.") from None
    sheets.columns = [str(column).strip() for column in sheets.columns]
    for column in ("image_id", "file_name", "scientificName"):
        if column not in sheets:
            raise InputError(
                f"{path}: no column {column!r}; found {', '.join(sheets.columns)}. Needed are image_id, "
                "file_name and scientificName; genus, species, family and authors are welcome."
            )
    if sheets.empty:
        raise InputError(f"{path}: has no rows below the header. Add one line a sheet.")
    for column in ("genus", "species", "family", "authors"):
        if column not in sheets:
            sheets[column] = ""
    # A row with fewer fields than the header leaves NaN in the last columns, even with keep_default_na.
    sheets = sheets.fillna("").apply(lambda column: column.str.strip())
    for column in ("image_id", "file_name", "scientificName"):
        empty = np.flatnonzero(sheets[column] == "")
        if len(empty):
            raise InputError(
                f"{path}: line {empty[0] + 2}: {column} is empty. Fill it in or remove the line."
            )
    repeated = np.flatnonzero(sheets["image_id"].duplicated())
    if len(repeated):
        value = sheets["image_id"].iloc[repeated[0]]
        raise InputError(
            f"{path}: line {repeated[0] + 2}: image_id {value!r} occurs twice ({len(repeated)} repeated "
            "in all). Give every sheet its own image_id."
        )
    words = sheets["scientificName"].str.split()
    sheets["genus"] = sheets["genus"].where(sheets["genus"] != "", words.str[0])
    sheets["species"] = sheets["species"].where(sheets["species"] != "", words.str[1].fillna(""))
    for column in ("genus", "family"):
        _refuse_two_values(path, sheets, column)

    # One sheet of a species may name what the others leave empty: the first that is not empty counts.
    fields = ["authors", "family", "genus", "species"]
    categories = sheets[["scientificName", *fields]]
    categories = categories.where(categories != "")
    categories = categories.groupby("scientificName", sort=True).first().reset_index()
    categories[fields] = categories[fields].fillna("")
    categories["family"] = categories["family"].replace("", UNKNOWN)
    categories.insert(0, "category_id", np.arange(len(categories)))
    genera = pd.DataFrame({"genus": sorted(set(categories["genus"]))})
    genera.insert(0, "genus_id", np.arange(len(genera)))
    ids = dict(zip(categories["scientificName"], categories["category_id"], strict=True))
    genus_ids = dict(zip(genera["genus"], genera["genus_id"], strict=True))
    by_name = dict(zip(categories["scientificName"], categories["genus"], strict=True))
    annotations = pd.DataFrame(
        {
            "image_id": sheets["image_id"],
            "category_id": sheets["scientificName"].map(ids),
            "genus_id": sheets["scientificName"].map(by_name).map(genus_ids),
            "institution_id": 0,
        }
    )
    return Metadata(
        annotations=annotations,
        images=sheets[["image_id", "file_name"]].assign(license=0),
        categories=categories,
        genera=genera,
        distances=_typed_table(path, "distances", []),
        institutions=pd.DataFrame({"institution_id": [0], "collectionCode": [UNKNOWN]}),
        licenses=pd.DataFrame({"id": [0], "name": [UNKNOWN], "url": [""]}),
    )


def _refuse_two_values(path: Path, sheets: pd.DataFrame, column: str) -> None:
    """A species has one genus and one family; empty fields do not count."""
    given = sheets[sheets[column] != ""]
    first = given.groupby("scientificName")[column].transform("first")
    other = np.flatnonzero(given[column] != first)
    if len(other):
        row = given.iloc[other[0]]
        raise InputError(
            f"{path}: line {given.index[other[0]] + 2}: {row['scientificName']!r} has {column} "
            f"{row[column]!r} here and {first.iloc[other[0]]!r} before. Make them the same."
        )


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
