"""The published train_metadata.json and test_metadata.json, read fast and in little memory, and written."""

import codecs
import contextlib
import json
import math
import mmap
import re
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from utils.data.delimited import columns_shown
from utils.data.forms.checks import Problems, check, complete, share_ids, shown
from utils.data.forms.names import epithet_of, genus_of, is_no_name
from utils.data.metadata import COLUMNS, NULLABLE, UNKNOWN, Metadata, tables_of
from utils.files import InputError, replacing

try:
    import msgspec
except ImportError:  # not in Kaggle's image: Python's own reader does the same, slower and in more memory
    msgspec = None


_OPTIONAL_TABLES = ("distances", "institutions", "licenses")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LARGEST = 2**53  # whole numbers up to this are exact in every reader of JSON


def read_train_json(path: Path) -> Metadata:
    """The seven tables of train_metadata.json; InputError as `utils.data.metadata.read_metadata` says."""
    problems = Problems(path)
    content = _split_tables(path)
    if "images" in content and not {"annotations", "categories"} & {*content}:
        raise InputError(
            f"{path}: has images and no annotations, as test files of 2020 and 2021 have: it names no species. Give "
            "the training file."
        )
    if _is_coco(path, content):
        content = _from_coco(path, content)
    tables = {}
    for name in COLUMNS:
        if name not in content and name not in _OPTIONAL_TABLES:
            found = columns_shown([*tables, *content])
            problems.add(f"no table {name!r}; found {found}. Is it the published training file?")
            continue
        tables[name] = _typed_table(problems, name, content.pop(name, []))
    share_ids(tables)
    check(problems, tables, place_in_json)
    names = tables.get("categories", pd.DataFrame()).get("scientificName", pd.Series(dtype=object)).dropna()
    problems.add_rows(
        [row for row, name in names.items() if is_no_name(name)],
        lambda row: (
            f"{place_in_json('categories', row)}: scientificName {names[row]!r} is no name. Name the taxon, or "
            "remove it and its images."
        ),
    )
    problems.raise_any()
    return complete(tables)


def _rows_of(path: Path, table: Any) -> list[Any]:
    """A table of `_split_tables` as plain objects."""
    rows = table if msgspec is None or not isinstance(table, msgspec.Raw) else _parse(path, bytes(table))
    return rows if isinstance(rows, list) else []


def _is_coco(path: Path, content: dict[str, Any]) -> bool:
    """Whether the tables are in the form of COCO, as in the Herbarium challenges of 2020 and 2021.

    There categories have an id and a name, and images an id.
    """
    if not {"annotations", "images", "categories"} <= {*content}:
        return False
    first = next(iter(_rows_of(path, content["categories"])), None)
    return isinstance(first, dict) and {"id", "name"} <= {*first} and "category_id" not in first


def _from_coco(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The published tables of 2022 from those of 2020 or 2021; other fields are left out.

    A genus is that of the category, else the first word of its name; genera are numbered in sorted order.
    There are no distances. Costs several times the time and memory of the form of 2022.
    """

    def renamed(table: str, **names: str) -> list[Any]:
        """The rows with fields of the published table under its names, taken from those given here."""
        return [
            {field: row.get(names.get(field, field)) for field in COLUMNS[table]}
            if isinstance(row, dict)
            else row
            for row in _rows_of(path, content.get(table, []))
        ]

    categories = renamed("categories", category_id="id", scientificName="name")
    genus_of_category: dict[Any, str] = {}
    for row in categories:
        if isinstance(row, dict) and isinstance(row["scientificName"], str):
            genus = row["genus"] if isinstance(row["genus"], str) else genus_of(row["scientificName"])
            row["genus"] = genus_of_category[_integer(row["category_id"])] = genus
            row["species"] = epithet_of(row["scientificName"])
    genera = sorted({*genus_of_category.values()})
    number = {genus: index for index, genus in enumerate(genera)}
    annotations = renamed("annotations")
    for row in annotations:
        if isinstance(row, dict):
            # An unknown category is told as such, and 0 keeps its genus from being told too.
            row["genus_id"] = number.get(genus_of_category.get(_integer(row["category_id"])), 0)
            row["institution_id"] = 0 if row["institution_id"] is None else row["institution_id"]
    images = renamed("images", image_id="id")
    for row in images:
        if isinstance(row, dict) and row["license"] is None:
            row["license"] = 0
    institutions = renamed("institutions", institution_id="id", collectionCode="name")
    return {
        "annotations": annotations,
        "images": images,
        "categories": categories,
        "genera": [{"genus_id": index, "genus": genus} for genus, index in number.items()],
        "institutions": institutions or [{"institution_id": 0, "collectionCode": UNKNOWN}],
        "licenses": renamed("licenses"),
    }


def read_test_json(path: Path) -> pd.DataFrame:
    """The table of test_metadata.json, see `utils.data.metadata.read_test_metadata`."""
    problems = Problems(path)
    content = path.read_bytes()
    rows: Any = None
    if msgspec is not None:
        # Python's own reader takes more, or tells what is wrong.
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            rows = msgspec.json.decode(content, type=msgspec.Raw)
    if rows is None:
        rows = _parse(path, content)
    images = _typed_table(problems, "images", rows)
    check(problems, {"images": images}, place_in_json)
    problems.raise_any()
    return images


def place_in_json(table: str, row: int) -> str:
    """Words for a row of a table."""
    return f"table {table!r}, row {row}"


def _row_type(table: str) -> "type[msgspec.Struct]":
    """The record of a published table. What it refuses goes to `_convert`, which tells the row and accepts more."""
    integer = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
    text = Annotated[str, msgspec.Meta(min_length=1)]
    fields: list[Any] = []
    for name, kind in COLUMNS[table].items():
        if name in NULLABLE:
            fields.append((name, str | None, ""))
        elif name == "image_id":
            fields.append((name, integer | text))
        else:
            fields.append((name, {int: integer, str: text, float: float}[kind]))
    return msgspec.defstruct(table, fields, kw_only=True, gc=False)


_ROW_TYPES = {table: _row_type(table) for table in COLUMNS} if msgspec else {}


def _split_tables(path: Path) -> dict[str, Any]:
    """The tables of a JSON file, each still as its bytes; plain lists where the fast reader gives up."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if packed := {b"\x1f\x8b": "gzip", b"PK": "zip"}.get(mapped[:2]):
        raise InputError(f"{path}: is a {packed} file and no JSON. Unpack it.")
    content = memoryview(mapped)
    if content[:3] == codecs.BOM_UTF8:
        content = content[3:]
    no_tables = InputError(f"{path}: must be an object of tables, as the published train_metadata.json is.")
    if msgspec is None:
        tables = _parse(path, bytes(content))
        if not isinstance(tables, dict):
            raise no_tables
        return tables
    try:
        return msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise no_tables from None
    except (ValueError, RecursionError) as error:
        # pandas and Python write NaN, which is no JSON: then a slower reader finds the row that has it.
        if mapped[:2] not in _UTF16 and not re.search(rb"\b(NaN|Infinity)\b", mapped):
            raise _not_json(path, error) from None
    return _parse(path, bytes(content))


def _parse(path: Path, content: bytes) -> Any:
    """JSON by Python's own reader, which also takes NaN: costs several times the time and memory."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        found = "UTF-16" if content[:2] in _UTF16 else error
        raise InputError(f"{path}: not UTF-8 text ({found}). Write the file again in UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from None


def _not_json(path: Path, error: Exception) -> InputError:
    if "Extra data" in str(error) or "trailing characters" in str(error):
        return InputError(
            f"{path}: not valid JSON: further data behind the first value ({error}). One object a line (JSON lines) is "
            "not read: give one object of tables, as the published train_metadata.json is."
        )
    return InputError(f"{path}: not valid JSON ({error}). Download or write the file again.")


def _typed_table(problems: Problems, table: str, rows: Any) -> pd.DataFrame:
    """Rows of one JSON table (its bytes, or a list) as a frame with the published columns and types.

    A row that is no object is left out, so the index tells the row; a value that is wrong is None or NaN.
    """
    if msgspec is not None and isinstance(rows, msgspec.Raw):
        try:
            return _decode(table, memoryview(rows))
        except (ValueError, RecursionError):  # msgspec's errors name no row, and it is stricter than we are
            rows = _parse(problems.path, bytes(rows))
    if not isinstance(rows, list):
        problems.add(f"table {table!r} must be a list of objects, found {type(rows).__name__}.")
        return pd.DataFrame()
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
            elif name in NULLABLE:
                columns[name].extend(value or "" for value in values)
            elif kind is str:
                columns[name].extend(values)
            else:
                columns[name].append(np.fromiter(values, np.dtype(kind), len(rows)))
    return pd.DataFrame(
        {
            name: pd.Series(columns[name], dtype=object)
            if kind is str
            else np.concatenate([np.empty(0, np.dtype(kind)), *columns[name]])
            for name, kind in COLUMNS[table].items()
        },
        copy=False,
    )


def _pieces(content: memoryview, size: int = 1 << 18) -> Iterator[bytes]:
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
            lambda row: f"{place_in_json(table, row)}: must be an object, found {type(rows[row]).__name__}.",
        )
    result: dict[str, Any] = {}
    for name, kind in COLUMNS[table].items():
        if objects and name not in NULLABLE and not any(name in rows[number] for number in objects):
            found = columns_shown(list(map(str, rows[objects[0]])), [name])
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
        str: (_text, "must be text and not empty"),
    }[kind]
    if name == "image_id":
        convert, wanted = _identifier, "must be text or an integer"

    if kind is not float:  # NaN is what pandas writes where nothing is
        given = {
            row: None if isinstance(value, float) and math.isnan(value) else value
            for row, value in given.items()
        }

    def converted(value: Any) -> Any:
        blank = value is None or (isinstance(value, str) and not value.strip())
        return "" if blank and name in NULLABLE else convert(value)

    values = {row: converted(value) for row, value in given.items()}
    wrong = [row for row, value in values.items() if value is None]
    problems.add_rows(
        wrong,
        lambda row: (
            f"{place_in_json(table, row)}: field {name!r} is missing. Give it a value."
            if given[row] is None
            else f"{place_in_json(table, row)}: {name} is {shown(given[row])}, {wanted}."
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


def write_metadata(metadata: Metadata, path: Path) -> None:
    """Write the tables as the published train_metadata.json, whole; costs one chunk of rows in memory."""
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "{"
        for name, table in tables_of(metadata).items():
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
