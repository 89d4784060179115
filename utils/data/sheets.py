"""Metadata of people's own sheets and of NAFlora-mini: tables as CSV or TSV, and folders named by species."""

import csv
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.folders import species_sheets
from utils.data.names import epithet_of, genus_of, split_authors, tidy
from utils.data.tables import COLUMNS, UNKNOWN, Metadata, Problems, check, complete, empty_table, shown
from utils.errors import InputError

MINI_COLUMNS = ("genus_id", "institution_id", "category_id", "image_id", "scientificName")
_OF_SPECIES = ("authors", "genus", "species", "family")
_NOT_AVAILABLE = ("NA", "NaN", "nan")  # as R and pandas write an empty field
_UNKNOWN_LICENSE = pd.DataFrame({"id": [0], "name": [UNKNOWN], "url": [""]})
_LARGEST = 2**53


def header(path: Path) -> tuple[list[str], str]:
    """The column names of a table and what is between them: a comma, a tab or a semicolon."""
    with path.open("rb") as file:
        line = file.readline(1 << 16)
    if line.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: is a spreadsheet or a zip file. Save the table as CSV in UTF-8.")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    if "\0" in text:
        raise InputError(f"{path}: is not text. Give a JSON, a CSV in UTF-8, or a folder of sheets.")
    delimiter = max(",\t;", key=text.count)
    columns = next(csv.reader(text.splitlines()[:1], delimiter=delimiter), [])
    return [column.strip() for column in columns], delimiter


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{path}: not UTF-8 text ({error}). Save the table as CSV in UTF-8, from a spreadsheet too."
    )


def _read_table(path: Path, needed: tuple[str, ...]) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """The `needed` columns of a table and those of its species as text, and words for the line of a row.

    Raises:
        InputError: it is no such table, or one of the `needed` columns is missing, twice there or empty.
    """
    columns, delimiter = header(path)
    known = (*needed, *_OF_SPECIES)
    missing = [column for column in needed if column not in columns]
    if missing:
        raise InputError(
            f"{path}: no column {' and no '.join(map(repr, missing))}; found {', '.join(columns) or 'nothing'}. "
            "Give a table (CSV) with file_name and scientificName; image_id, authors, genus, species and family "
            "are welcome."
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
        if needed != MINI_COLUMNS or table.index.nlevels > 1 or not rows.str.isdecimal().all():
            raise InputError(
                f"{path}: line 2 has more fields than the first line has names. Quote a field that holds "
                f"{delimiter!r}, or remove what is too much."
            )
        table = table.reset_index(drop=True)  # as R writes a table: the row names have no name
    # A row with fewer fields than the header leaves NaN in the last columns, even with keep_default_na.
    table = table.fillna("")
    table.columns = [column.strip() if column.strip() in known else column for column in table.columns]

    @cache
    def lines(every: pd.DataFrame = table) -> np.ndarray:
        breaks = sum(every[column].str.count("\n").to_numpy() for column in every)
        return 2 + np.arange(len(every)) + np.cumsum(breaks) - breaks

    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{path}: has no rows below the header. Add one line a sheet.")
    table = pd.DataFrame(  # plain lists: .str.strip() takes twice as long
        {name: [value.strip() for value in table[name]] if name in table else "" for name in known},
        index=table.index,
    )
    for column in _OF_SPECIES:
        table[column] = table[column].where(~table[column].isin(_NOT_AVAILABLE), "")
    return table, lambda row: f"line {lines()[row]}"


def read_mini(path: Path) -> Metadata:
    """The table of NAFlora-mini, see `utils.data.metadata.read_metadata`."""
    table, line = _read_table(path, MINI_COLUMNS)
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
        "distances": empty_table("distances"),
        "institutions": institutions.assign(collectionCode=institutions["institution_id"].astype(str)),
        "licenses": _UNKNOWN_LICENSE,
    }
    categories.index = pd.Index(table.drop_duplicates("category_id").sort_values("category_id").index)
    check(problems, tables, lambda _, row: line(row), one_table=True)
    problems.raise_any()
    return complete(tables)


def read_own_table(path: Path) -> Metadata:
    """A table of own sheets, see `utils.data.metadata.read_metadata`."""
    has_ids = "image_id" in header(path)[0]
    needed = ("file_name", "scientificName")
    sheets, line = _read_table(path, ("image_id", *needed) if has_ids else needed)
    if not has_ids:
        sheets["image_id"] = sheets["file_name"]
    return _from_sheets(Problems(path), sheets, line)


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
        "distances": empty_table("distances"),
        "institutions": pd.DataFrame({"institution_id": [0], "collectionCode": [UNKNOWN]}),
        "licenses": _UNKNOWN_LICENSE,
    }
    check(problems, tables, lambda _, row: line(row), one_table=True)
    problems.raise_any()
    return complete(tables)


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
        known = forms.get(bare[name], set())
        only = next(iter(known)) if len(known) == 1 else ""
        members.setdefault((bare[name], of or only), []).append(name)
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
