"""Metadata of the sheets: the seven published tables, read in every form that they come in, checked, and written.

The forms are told apart by their content (`form_of`); what reads each of them is in `utils.data.forms`, and is
imported only by the functions here that need it.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.delimited import read_header
from utils.files import InputError

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
NULLABLE = ("authors", "species", "family", "genus", "url")  # text that may be absent or null


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


def tables_of(metadata: Metadata) -> dict[str, pd.DataFrame]:
    """The seven tables by their published names, in the published order."""
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
    from utils.data.forms import sheets

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
      image_id (else the file_name), authors, genus, species, family; other columns are left out. Where one is not there
      Darwin Core's is taken: associatedMedia, scientificNameAuthorship, specificEpithet, and genus with specificEpithet
      (and infraspecificEpithet) for the name. A binomial with
      its authors and one without are one species when only one authored form of it occurs; so are names that
      differ in spelling alone, see `utils.data.forms.names.comparable`.
    - a folder with one subfolder a species, named as it (Zea mays, or Zea_mays). file_name is relative to
      the folder, and is the image_id too. See `species_sheets` of forms/folders.py, which warns of what is passed over.
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
    from utils.data.forms import published, sheets
    from utils.data.forms.kept import KEPT_FROM, read_columns, read_through_copy

    path = Path(path)
    form = form_of(path)
    if form == TEST_JSON:
        raise InputError(
            f"{path}: is a list, as test_metadata.json is: it names no species. Give the train_metadata.json."
        )
    is_large = path.stat().st_size >= KEPT_FROM
    readers = {
        TRAIN_JSON: read_through_copy if is_large else published.read_train_json,
        MINI_TABLE: sheets.read_mini,
        OWN_TABLE: sheets.read_own_table,
        SPECIES_FOLDERS: sheets.read_species_folders,
        COLUMNAR: read_columns,
    }
    return readers[form](path)


def read_test_metadata(path: Path) -> pd.DataFrame:
    """Read test_metadata.json: one row an image with image_id (str), file_name (str), license (int).

    Raises:
        InputError: the file is missing or not a list of such records, an image_id or a file_name occurs
            twice, or a file name is absolute or climbs out of its folder.
    """
    from utils.data.forms import published

    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    return published.read_test_json(path)


def match_names(names: Sequence[str] | np.ndarray, known: Sequence[str] | np.ndarray) -> np.ndarray:
    """Positions of scientific names among the known ones, see `utils.data.forms.names.match`; -1 where not known."""
    from utils.data.forms.names import match

    return match(names, known)


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
