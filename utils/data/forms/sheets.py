"""Metadata of people's own sheets and of NAFlora-mini: tables as CSV or TSV, and folders named by species."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.delimited import columns_shown, read_header, read_table
from utils.data.forms.checks import Problems, check, complete, shown
from utils.data.forms.folders import IMAGE_SUFFIXES, species_sheets
from utils.data.forms.names import (
    authors_key,
    comparable,
    epithet_of,
    genus_of,
    in_doubt,
    is_no_name,
    split_authors,
    tidy,
)
from utils.data.forms.plain import plain_columns
from utils.data.metadata import COLUMNS, MINI_TABLE, OWN_TABLE, UNKNOWN, Metadata, form_of
from utils.files import InputError

MINI_COLUMNS = ("genus_id", "institution_id", "category_id", "image_id", "scientificName")
_OF_SPECIES = ("authors", "genus", "species", "family")
# As R, pandas, databases and spreadsheets write an empty field.
_NOT_AVAILABLE = ("NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "\\N")
_LARGEST = 2**53
_WAY_OUT = (
    "Give a table (CSV) with file_name, the image's path below its folder, and scientificName; image_id, authors, "
    "genus, species and family are welcome. Darwin Core's associatedMedia, specificEpithet and "
    "scientificNameAuthorship are read too."
)
_QUALIFIER = "identificationQualifier"
# What Darwin Core (dwc.tdwg.org/terms) calls columns of a table of own sheets; genus and family it calls the same.
_DARWIN_CORE = {
    "file_name": "associatedMedia",
    "authors": "scientificNameAuthorship",
    "species": "specificEpithet",
}


def empty_table(name: str) -> pd.DataFrame:
    """A published table without rows."""
    kinds = {column: object if kind is str else kind for column, kind in COLUMNS[name].items()}
    return pd.DataFrame(columns=list(kinds)).astype(kinds)


def _columns_of(path: Path) -> dict[str, str]:
    """The column of a table for each of our names that it has: of that name, else of Darwin Core's.

    Darwin Core's terms may be written with their prefix (dwc:genus) or whole (http://rs.tdwg.org/dwc/terms/genus).
    """
    header = read_header(path)
    terms = {re.sub(r"^dwc:|^http\S+/", "", column): column for column in reversed(header)}
    terms |= {column: column for column in header}
    names = ("image_id", "file_name", "scientificName", "infraspecificEpithet", _QUALIFIER, *_OF_SPECIES)
    found = {name: terms.get(name) or terms.get(_DARWIN_CORE.get(name, "")) for name in names}
    return {name: column for name, column in found.items() if column}


def id_column(path: Path) -> str:
    """The column of a table that tells its images apart: image_id, or that of the file's name where there is none."""
    columns = _columns_of(path)
    return columns.get("image_id") or columns.get("file_name") or "file_name"


def _read_table(
    path: Path,
    needed: tuple[str, ...],
    columns: dict[str, str] | None = None,
    row_names: bool = False,
    optional: tuple[str, ...] = (),
) -> pd.DataFrame:
    """The `needed` columns, the optional and those of the species, see `utils.data.delimited.read_table`.

    `columns` are the names in the file of those that have another one there.
    """
    written = {name: (columns or {}).get(name, name) for name in (*needed, *optional, *_OF_SPECIES)}
    table = read_table(
        path,
        [written[name] for name in needed],
        [written[name] for name in (*optional, *_OF_SPECIES) if name not in needed],
        way_out=_WAY_OUT,
        row_names=row_names,
        quick=plain_columns,
    )
    table = table.rename(columns={column: name for name, column in written.items()})
    for column in _OF_SPECIES:
        table[column] = table[column].where(~table[column].isin(_NOT_AVAILABLE), "")
    return table


def _line(row: int) -> str:
    """Words for the place of a row of a table, which has the number of its line as index."""
    return f"line {row}"


def read_mini(path: Path) -> Metadata:
    """The table of NAFlora-mini, see `utils.data.metadata.read_metadata`."""
    table, line = _read_table(path, MINI_COLUMNS, row_names=True), _line
    problems = Problems(path)
    _refuse_empty(problems, table, ("image_id", "scientificName"), line)
    _refuse_no_names(problems, table, line)
    for column in ("genus_id", "institution_id", "category_id"):
        whole = table[column].where(table[column].str.fullmatch(r"[+-]?\d+(\.0*)?"))  # 1e5 is no id
        numbers = pd.to_numeric(whole, errors="coerce")
        wrong = numbers.isna() | (numbers.abs() > _LARGEST)
        problems.add_rows(
            table.index[wrong],
            lambda row, column=column: (
                f"{line(row)}: {column} is {table[column][row]!r}, must be an integer. Mend the line."
            ),
        )
        table[f"{column}_number"] = numbers.where(~wrong)
        table[column] = table[column].where(~wrong, "")
    ids = table["image_id"]
    table["file_name"] = [f"{value[:3]}/{value[3:5]}/{value}.jpg" for value in ids]
    published = re.compile(r"[0-9]{5}__[0-9]+")
    problems.add_rows(
        [row for row, value in ids.items() if value and not published.fullmatch(value)],
        lambda row: (
            f"{line(row)}: image_id {shown(ids[row])} is not as 00026__004, from which the file name follows. "
            "Add a column file_name."
        ),
    )
    for key, column in (
        ("category_id", "scientificName"),
        ("category_id", "genus"),
        ("category_id", "family"),
        ("category_id", "genus_id"),
        ("genus_id", "genus"),
    ):
        _refuse_two_values(problems, table, key, column, line)
    problems.raise_any()

    table = table.assign(**{name: table[f"{name}_number"].astype("int64") for name in MINI_COLUMNS[:3]})
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
        "institutions": institutions.assign(collectionCode=institutions["institution_id"].astype(str)),
    }
    categories.index = pd.Index(table.drop_duplicates("category_id").sort_values("category_id").index)
    return _checked(problems, tables, line)


def read_own_table(path: Path) -> Metadata:
    """A table of own sheets, see `utils.data.metadata.read_metadata`."""
    columns = _columns_of(path)
    problems = Problems(path)
    ids = "image_id" if "image_id" in columns else "file_name"
    in_parts = "genus" in columns and columns.get("species", "").endswith("specificEpithet")
    in_parts = in_parts and "scientificName" not in columns
    named = ("genus", "species") if in_parts else ("scientificName",)
    lower = ("infraspecificEpithet",) if in_parts else ()
    sheets = _read_table(
        path, tuple(dict.fromkeys((ids, "file_name", *named))), columns, optional=(*lower, _QUALIFIER)
    )
    if in_parts:
        _refuse_empty(problems, sheets, ("genus",), _line)
        words = sheets[[*named, *lower]]
        sheets["scientificName"] = [" ".join(filter(None, row)) for row in words.itertuples(index=False)]
    sheets["scientificName"] = list(map(in_doubt, sheets["scientificName"], sheets[_QUALIFIER]))
    if columns["file_name"] != "file_name":
        media = sheets[["file_name"]].rename(columns=columns)
        _refuse_empty(problems, media, (columns["file_name"],), _line)
        _refuse_media(problems, sheets["file_name"], columns["file_name"])
    problems.raise_any()
    sheets["image_id"] = sheets[ids]
    return _from_sheets(problems, sheets, _line)


def _refuse_media(problems: Problems, media: pd.Series, column: str) -> None:
    """Darwin Core's associatedMedia may list several files, or addresses; own sheets have one file a row."""
    parts = media.str.split(r"\s*[|;,]\s*", regex=True)
    images = parts.map(lambda names: sum(name.lower().endswith(IMAGE_SUFFIXES) for name in names))
    listed = (images > 1) | media.str.contains("|", regex=False)
    problems.add_rows(
        media.index[listed],
        lambda row: (
            f"{_line(row)}: {column} {shown(media[row])} names several files. Write a line for each image."
        ),
    )
    problems.add_rows(
        media.index[~listed & media.str.contains(r"^\w+://")],
        lambda row: (
            f"{_line(row)}: {column} {shown(media[row])} is an address. Download the images and name the files in a "
            "column file_name."
        ),
    )


def read_species_folders(path: Path) -> Metadata:
    """A folder with one subfolder per species, see `utils.data.metadata.read_metadata`."""
    found = species_sheets(path)
    files = found.images
    problems = Problems(path)
    problems.add_rows(
        [row for row, file in enumerate(files) if "/" not in file],
        lambda row: f"{files[row]!r} lies in no subfolder, so it has no species. Move it into one.",
    )
    problems.add_rows(
        range(len(found.broken)),
        lambda row: (
            f"{found.broken[row]!r} is a link to what is not there. Put that there, or remove the link."
        ),
    )
    sheets = pd.DataFrame({"file_name": [file for file in files if "/" in file]}, dtype=object)
    sheets["image_id"] = sheets["file_name"]
    sheets["scientificName"] = sheets["file_name"].str.split("/").str[0].str.replace("_", " ")
    sheets = sheets.assign(authors="", genus="", species="", family="")
    return _from_sheets(problems, sheets, lambda row: repr(sheets["file_name"][row]))


def _from_sheets(problems: Problems, sheets: pd.DataFrame, line: Callable[[int], str]) -> Metadata:
    """Metadata of own sheets.

    Args:
        problems: of the file; what is wrong is added and raised.
        sheets: one row each: image_id, file_name, scientificName, authors, genus, species and family as text,
            "" where a field is not given.
        line: words for the place of a row, by its index.
    """
    _refuse_empty(problems, sheets, ("file_name", "scientificName"), line)
    _refuse_empty(problems, sheets[sheets["file_name"] != ""], ("image_id",), line)
    written = {name: tidy(name) for name in sheets["scientificName"].unique()}
    sheets = sheets.assign(scientificName=sheets["scientificName"].map(written))
    _refuse_no_names(problems, sheets, line)
    spelt = {authors: authors_key(authors) for authors in sheets["authors"].unique()}
    first_of = {key: authors for authors, key in reversed(spelt.items())}
    sheets["authors"] = sheets["authors"].map({authors: first_of[key] for authors, key in spelt.items()})
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
        "institutions": pd.DataFrame({"institution_id": [0], "collectionCode": [UNKNOWN]}),
    }
    return _checked(problems, tables, line)


def _checked(problems: Problems, tables: dict[str, pd.DataFrame], line: Callable[[int], str]) -> Metadata:
    """The tables of one file with the two that it has nothing for; what is wrong between them is raised."""
    tables |= {
        "distances": empty_table("distances"),
        "licenses": pd.DataFrame({"id": [0], "name": [UNKNOWN], "url": [""]}),
    }
    check(problems, tables, lambda _, row: line(row), one_table=True)
    problems.raise_any()
    return complete(tables)


def _merge_names(
    problems: Problems, sheets: pd.DataFrame, line: Callable[[int], str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The name of the species for each name as written, and the authors of each species.

    Names that differ in spelling alone are one, see `utils.data.forms.names.comparable`. A name without authors is that
    of the only authored form of it; where there are several it is a problem.
    """
    names = _first_given(sheets, "scientificName", ["authors", "species"])
    bare: dict[str, str] = {}  # name as written -> its taxon without authors
    inner: dict[str, str] = {}  # -> the authors within it, where it is a binomial
    key: dict[str, str] = {}  # -> its authors in one spelling
    authors: dict[str, str] = {}
    forms: dict[str, set[str]] = {}  # taxon -> the authors that occur with it
    for name, given, species in names[["scientificName", "authors", "species"]].itertuples(index=False):
        bare[name], inner_key = comparable(name, species)
        inner[name] = split_authors(name, species)[1] if inner_key else ""
        authors[name] = given or inner[name]
        key[name] = authors_key(given) or inner_key
        if key[name]:
            forms.setdefault(bare[name], set()).add(key[name])
    members: dict[tuple[str, str], list[str]] = {}
    for name, of in key.items():
        known = forms.get(bare[name], set())
        only = next(iter(known)) if len(known) == 1 else ""
        members.setdefault((bare[name], of or only), []).append(name)
    name_of, authors_of = {}, {}
    for group in members.values():
        # With its authors where one is, and with the full stops of "(L.) Mill." where another has "(L) Mill".
        chosen = min(group, key=lambda name: (not inner[name], -name.count("."), name))
        name_of.update(dict.fromkeys(group, chosen))
        authors_of[chosen] = authors[chosen] or next(filter(None, map(authors.get, group)), "")
    unclear = [name for name, of in key.items() if not of and len(forms.get(bare[name], ())) > 1]

    def told(row: int) -> str:
        name = sheets["scientificName"][row]
        choices = sorted(
            chosen if inner[chosen] else f"{chosen} {of}"
            for chosen, of in authors_of.items()
            if of and bare[chosen] == bare[name]
        )
        return (
            f"{line(row)}: scientificName {name!r} may be {' or '.join(map(repr, choices))}. "
            "Write it with its authors."
        )

    problems.add_rows(sheets.index[sheets["scientificName"].isin(unclear)], told)
    return name_of, authors_of


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


def _refuse_no_names(problems: Problems, table: pd.DataFrame, line: Callable[[int], str]) -> None:
    names = table["scientificName"]
    nameless = [name for name in names.unique() if name and is_no_name(name)]
    problems.add_rows(
        table.index[names.isin(nameless)],
        lambda row: (
            f"{line(row)}: scientificName {names[row]!r} is no name. Name the taxon, or remove the row and its sheet."
        ),
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


def groups_of(
    image_ids: Sequence[str] | np.ndarray, column: str, metadata: Metadata, file: Path
) -> np.ndarray:
    """The group of each image, object [N] of str: a column of the table that `file` is, else of the annotations.

    Raises:
        InputError: there is no such column.
    """
    known = metadata.annotations
    if form_of(file) in (MINI_TABLE, OWN_TABLE):
        columns = read_header(file)
        if column in columns and column not in ("", "image_id"):
            ids = id_column(file)
            known = read_table(file, (ids, column), way_out="", row_names=True)
            known = pd.DataFrame({"image_id": known[ids], column: known[column]})
    else:
        columns = [str(name) for name in known]
    if column not in columns or column in ("", "image_id"):
        choice = columns_shown([name for name in columns if name not in ("", "image_id")], [column])
        raise InputError(f"{file}: no column {column!r} to group by; found {choice}. Name one of them.")
    values = known.set_index("image_id")[column].reindex(image_ids)
    return values.fillna("").astype(str).str.strip().to_numpy(dtype=object)
