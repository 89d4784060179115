"""Metadata of the sheets: read and checked in every form that it comes in, and written.

The forms are told apart by their content: the published train_metadata.json and test_metadata.json, the
table of NAFlora-mini, a CSV of own sheets, a folder with one subfolder per species, and a columnar copy.
"""

import codecs
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.data import published, sheets
from utils.data.delimited import read_header
from utils.data.tables import COLUMNS, UNKNOWN, Metadata, Problems, check
from utils.errors import InputError
from utils.files import read_json, replacing, write_json
from utils.paths import scratch_dir

__all__ = ["COLUMNS", "UNKNOWN", "Metadata"]  # from tables, for those who use the tables

# The forms of metadata, as `form_of` tells them.
TRAIN_JSON, TEST_JSON = "published train JSON", "published test JSON"
MINI_TABLE, OWN_TABLE = "NAFlora-mini table", "table of own sheets"
SPECIES_FOLDERS, COLUMNAR = "folder per species", "columns"

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


def _tables(metadata: Metadata) -> dict[str, pd.DataFrame]:
    return {field.name: getattr(metadata, field.name) for field in fields(metadata)}


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
    columns = read_header(path)
    return MINI_TABLE if {*sheets.MINI_COLUMNS} <= {*columns} and "file_name" not in columns else OWN_TABLE


def read_metadata(path: Path) -> Metadata:
    """Read the training metadata from whichever form `path` has, and check it.

    The forms are

    - the published train_metadata.json. A large one is read twice as fast and in half of the memory
      of json.load, and leaves a columnar copy in the scratch folder, which is read in its place as long as
      the file is the same (size, times of change). The form of 2020 and 2021 (COCO: categories with id and
      name, images with id) is read too, more slowly; its genera are numbered by their sorted names.
    - the table of NAFlora-mini (TSV): genus_id, institution_id, category_id, image_id, scientificName and
      family, genus, species, authors. It names no files: image 00026__004 is 000/26/00026__004.jpg.
    - a table of own sheets (CSV; tab or semicolon too): file_name, scientificName and, where known,
      image_id (else the file_name), authors, genus, species, family; other columns are left out. A binomial with
      its authors and one without are one species when only one authored form of it occurs; so are names that
      differ in spelling alone, see `utils.data.names.comparable`.
    - a folder with one subfolder a species, named as it (Zea mays, or Zea_mays). file_name is relative to
      the folder, and is the image_id too. See `utils.data.folders.species_sheets`, which warns of what is passed over.
    - a folder written by `write_columns`.

    In the last three a missing genus is the first word of the name, a missing family is "unknown"; in the
    tables of own sheets and the folders category and genus ids are positions in the sorted names.

    Raises:
        InputError: the file is missing or in none of these forms, or its content is not right: a field is
            missing or has the wrong type, a label is no name (NA, unknown), a row has not the fields of the
            first line, an id or a file name occurs twice, an image is under two species,
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
        return _cached(path) if path.stat().st_size >= _CACHED_FROM else published.read_train_json(path)
    readers = {
        MINI_TABLE: sheets.read_mini,
        OWN_TABLE: sheets.read_own_table,
        SPECIES_FOLDERS: sheets.read_species_folders,
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
    return published.read_test_json(path)


# ---------------------------------------------------------------- columns, and the copy that is kept of a JSON

_CACHED_FROM = 32 << 20  # bytes; a smaller JSON is read within half a second
_CACHE_VERSION = 2  # raised when reading or checking changes
_STAMP = "source.json"  # in the copy: the file that it is of
_SETTLED_NS = 2_000_000_000  # a file changed more lately may change again within one tick of its clock


def write_columns(metadata: Metadata, folder: Path) -> Path:
    """Write the tables as one feather file each, which reads some twenty times faster than the JSON.

    An existing folder of that name is replaced as a whole.
    """
    return _write_columns(metadata, Path(folder), None)


def _write_columns(metadata: Metadata, folder: Path, stamp: dict[str, Any] | None) -> Path:
    import pyarrow.feather

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, table in _tables(metadata).items():
            # Not compressed: four times the size on the disk (151 MB of the published tables), read in half the time.
            columns = pyarrow.Table.from_pandas(table, preserve_index=False)
            pyarrow.feather.write_feather(columns, temporary / f"{name}.feather", compression="uncompressed")
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
            table = pyarrow.feather.read_table(file, memory_map=True)
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
        check(problems, tables, published.place_in_json)
        problems.raise_any()
    return Metadata(**tables)


def _cached(path: Path) -> Metadata:
    """As `published.read_train_json`, from the copy that an earlier call left, as long as the file is the same one.

    The same is: path, size, and the times of its last change of content and of anything, to the nanosecond.
    A file that was changed within the last two seconds is not kept, since a further change might not show in
    its time.
    """
    stamp = _stamp(path)
    key = hashlib.sha256(stamp["path"].encode()).hexdigest()[:16]
    folder = None
    try:
        folder = scratch_dir() / ".metadata" / f"{key}.columns"
        if (folder / _STAMP).is_file() and read_json(folder / _STAMP) == stamp:
            return _read_columns(folder, checked=True)
    except (OSError, InputError) as error:
        warnings.warn(f"The copy of {path} is not used ({error}) Reading the file itself.", stacklevel=3)
    metadata = published.read_train_json(path)
    settled = time.time_ns() - max(stamp["modified_ns"], stamp["changed_ns"]) > _SETTLED_NS
    if folder is not None and settled and _stamp(path) == stamp:
        try:
            _write_columns(metadata, folder, stamp)
            _remove_orphans(folder.parent)
        except (OSError, InputError) as error:
            warnings.warn(f"No copy of {path} is kept for the next time ({error}).", stacklevel=3)
    return metadata


def _remove_orphans(copies: Path) -> None:
    """Remove the copies of files that are no longer there, and what killed processes left of theirs."""
    for stamp in copies.glob(f"*.columns/{_STAMP}"):
        if not Path(read_json(stamp)["path"]).exists():
            shutil.rmtree(stamp.parent)
    for left_over in copies.glob(".*.tmp"):
        if time.time() - left_over.stat().st_mtime > 3600:  # not of a process at work
            shutil.rmtree(left_over)


def _stamp(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "version": _CACHE_VERSION,
        "path": os.fsencode(path.resolve()).decode("utf-8", "backslashreplace"),
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


def _dump_rows(table: pd.DataFrame, write: Callable[[str], Any], chunk: int = 5_000) -> None:
    """Write a table as a JSON list of objects, a chunk of rows at a time."""
    write("[")
    for start in range(0, len(table), chunk):
        rows = table.iloc[start : start + chunk].to_dict(orient="records")
        write((",\n" if start else "") + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    write("]")


def family_table(metadata: Metadata, test_categories: Sequence[int] | None = None) -> pd.DataFrame:
    """Families by number of species, most first: columns family, species, train_images.

    With `test_categories`, the category_id of every test image where they are known, test_images too.
    """
    categories = metadata.categories
    counted = {"train_images": metadata.annotations["category_id"]}
    if test_categories is not None:
        counted["test_images"] = pd.Series(np.asarray(test_categories))
    table = categories[["family"]].assign(species=1)
    for name, images in counted.items():
        table[name] = categories["category_id"].map(images.value_counts()).fillna(0).astype("int64")
    table = table.groupby("family", as_index=False).sum()
    return table.sort_values(["species", "family"], ascending=[False, True], ignore_index=True)
