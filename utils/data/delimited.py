"""Tables as text (CSV, TSV), read in one way by everything that takes one, and written in one way."""

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pandas as pd

from utils.files import InputError, replacing

csv.field_size_limit(1 << 24)  # Darwin Core tables have outlines of places beyond the usual 128 KiB
# First and last line of a row, its fields, and whether its last ones may be left out: spreadsheets write no delimiters
# behind the last value of a row. With tabs, where a line is a row, a short one is half of a broken line.
Row = tuple[int, int, list[str], bool]
# File, all columns, the wanted ones -> their values, and under "" the line of each row; None where it cannot tell.
Quick = Callable[[Path, list[str], list[str]], dict[str, Sequence] | None]


def read_header(path: Path) -> list[str]:
    """The column names of a table, without spaces around them; InputError: it is no text in UTF-8."""
    return _header(_rows(path))


def read_table(
    path: Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    *,
    way_out: str,
    row_names: bool = False,
    quick: Quick | None = None,
) -> pd.DataFrame:
    """The columns `needed`, and `optional` ones where they are ("" elsewhere), as text without spaces around it.

    The first line names the columns, or the second one behind a spreadsheet's "sep=;". Comma, semicolon or tab,
    whichever is most frequent there, lies between fields. In a table with tabs a line is a row, and a quote is a
    character like any other but where it encloses a whole field; in the others a quoted field may hold line
    breaks. The index is the line that a row begins on; rows without any text are left out.

    Args:
        path: the file, in UTF-8.
        needed, optional: names of columns.
        way_out: what to do where a needed column is missing, for the message.
        row_names: whether rows may begin with a number that the first line has no name for, as R writes them.
        quick: what reads the `wanted` columns of a long and plain table in less time, or gives None.

    Raises:
        InputError: it is not text in UTF-8, a needed column is missing, a column to be read is there twice, a row
            has more fields than the first line or too few (with tabs: fewer; else: it ends before the needed
            columns), a quote is not closed or encloses whole rows, or there is no row.
    """
    rows = _rows(path)
    columns = _header(rows)
    if not columns:
        raise InputError(f"{path}: not a readable CSV (it is empty). The first line names the columns.")
    missing = [column for column in needed if column not in columns]
    if missing:
        names = " and no ".join(map(repr, missing))
        raise InputError(f"{path}: no column {names}; found {columns_shown(columns, missing)}. {way_out}")
    wanted = [column for column in (*needed, *optional) if column in columns]
    for column in wanted:
        if columns.count(column) > 1:
            raise InputError(f"{path}: column {column!r} is there twice. Keep one of them.")
    first = next(rows, None)
    if first is not None:
        rows = itertools.chain([first], rows)
        if row_names and len(first[2]) == len(columns) + 1 and first[2][0].isdecimal():
            columns = ["", *columns]
    found = quick(path, columns, wanted) if quick else None
    found = found or _columns_of(path, rows, columns, wanted, needed)
    lines = found.pop("")
    return pd.DataFrame(
        {
            column: [from_cell(value.strip()) for value in found[column]] if column in found else ""
            for column in (*needed, *optional)
        },
        index=lines,
        dtype=object,
    )


def columns_shown(columns: Sequence[str], sought: Sequence[str] = (), most: int = 12) -> str:
    """Names of columns for a message: not too many, none too long, first those that `sought` may mean."""

    def plain(column: str) -> str:
        return "".join(filter(str.isalnum, column.casefold()))

    meant = {*map(plain, sought)}
    ordered = sorted(dict.fromkeys(columns), key=lambda column: plain(column) not in meant)
    text = ", ".join(name if len(name) <= 40 else f"{name[:37]}..." for name in ordered[:most]) or "nothing"
    return text + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def _header(rows: Iterator[Row]) -> list[str]:
    return [column.strip() for column in next(rows, (0, 0, [], False))[2]]


def _columns_of(
    path: Path, rows: Iterator[Row], columns: list[str], wanted: list[str], needed: Sequence[str]
) -> dict[str, Sequence]:
    """The values of the `wanted` columns, and under "" the line of each row."""
    width, names = len(columns), {*columns}
    fewest = max(number for number, column in enumerate(columns, 1) if column)  # the last may have no name
    fewest_of_short = 1 + max(map(columns.index, needed))
    pick = itemgetter(*map(columns.index, wanted))
    lines, picked, uneven = [], [], []
    for line, last, fields, may_be_short in rows:
        if not "".join(fields).strip():
            continue
        if may_be_short and fewest_of_short <= len(fields) < fewest:
            fields += [""] * (width - len(fields))
        if not fewest <= len(fields) <= width:
            uneven.append((line, last, len(fields)))
            continue
        if fields[0].strip(" \ufeff") in names and {field.strip(" \ufeff") for field in fields} == names:
            raise InputError(
                f"{path}: line {line} names the columns again, as where tables were joined. Remove that line."
            )
        lines.append(line)
        picked.append(pick(fields))
    if uneven:
        line, last, fields = uneven[0]
        more = fields > width
        among = f"; {len(uneven)} such lines" if len(uneven) > 1 else ""
        quoted = f", which quotes extend to line {last}," if last > line else ""
        way_out = (
            "Quote a field that holds what lies between fields, or remove what is too much."
            if more
            else "Add what is missing, remove the line, or put quotes around a field with a line break (not in a TSV)."
        )
        raise InputError(
            f"{path}: not a readable CSV: line {line}{quoted} has {'more' if more else 'fewer'} fields than the first "
            f"line has names ({fields}, not {width}{among}). {way_out}"
        )
    if not lines:
        raise InputError(f"{path}: has no rows below the header. Add one line a sheet.")
    values = zip(*picked, strict=True) if len(wanted) > 1 else [picked]
    return {"": lines, **dict(zip(wanted, values, strict=True))}


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a table from the one with the names of the columns on."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        raise InputError(f"{path}: is a spreadsheet or a zip file. Save the table as CSV in UTF-8.")
    # newline="": \r, \n and \r\n all end a line, and stay as they are within a field
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            lines = _text_lines(path, file)
            number, first = next(((n, line) for n, line in lines if line.strip()), (0, ""))
            if not first:
                return
            # A spreadsheet's own first line
            told = re.fullmatch(r'"?sep=(.)"?[,;\t]*', first.rstrip("\r\n"), re.IGNORECASE)
            delimiter = told[1] if told else max(",\t;", key=first.count)
            if not told:
                lines = itertools.chain([(number, first)], lines)
            yield from _tab_rows(lines) if delimiter == "\t" else _quoted_rows(path, lines, delimiter)
        except UnicodeDecodeError:
            raise _not_utf8(path, start) from None


def _text_lines(path: Path, file: Iterator[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise InputError(
                f"{path}: line {number} is not text (it has a NUL byte). Give a JSON, a CSV in UTF-8, or a folder of "
                "sheets."
            )
        yield number, line


def _not_utf8(path: Path, start: bytes) -> InputError:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        where = "UTF-16"
    else:
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        number = next(
            n for n, line in enumerate(content, 1) if line.decode("utf-8", "ignore").encode() != line
        )
        where = f"line {number}: {content[number - 1].decode('utf-8', 'backslashreplace')[:60]!r}"
    return InputError(
        f"{path}: not UTF-8 text ({where}). Save the table as CSV in UTF-8, from a spreadsheet too."
    )


def _tab_rows(lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    """One row a line. Quotes as in `6" dbh` or `"El Sol" rancho` stay, and those around a whole field go.

    Where that gives another number of fields than the first line has, a quoted field may hold a tab.
    """
    width = 0
    for number, line in lines:
        line = line.rstrip("\r\n")
        fields = line.split("\t")
        if '"' in line:
            if width and len(fields) > width:
                try:
                    (quoted,) = csv.reader([line], delimiter="\t", strict=True)
                except csv.Error:
                    quoted = fields
                fields = quoted if len(quoted) == width else fields
            fields = [_without_quotes(field) for field in fields]
        width = width or len(fields)
        yield number, number, fields, False


def _without_quotes(field: str) -> str:
    inner = field[1:-1].replace('""', "")
    if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner:
        return field[1:-1].replace('""', '"')
    return field


def _quoted_rows(path: Path, lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[Row]:
    """Rows whose fields may be quoted and then hold line breaks.

    A quote that is not closed takes in what follows up to the next one. So a row of several lines must be right to
    the letter, and its lines must not each be a row.
    """
    numbers: list[int] = []
    texts: list[str] = []

    def feed() -> Iterator[str]:
        for number, line in lines:
            numbers.append(number)
            texts.append(line)
            yield line

    def opened(why: str) -> InputError:
        return InputError(
            f"{path}: not a readable CSV: a quote opens in line {numbers[0]} {why}. Close it there, or write a quote "
            'within a field as "".'
        )

    width = 0
    reader = csv.reader(feed(), delimiter=delimiter)
    while True:
        numbers.clear()
        texts.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # longer than a field may be
            raise InputError(f"{path}: line {numbers[0]}: {error}. Close its quote, or shorten it.") from None
        # The file may end within quotes: then the last field has the line's end, or the line has none.
        if len(texts) > 1 or (fields and fields[-1][-1:] in ("\r", "\n")) or texts[0][-1] not in "\r\n":
            try:
                next(csv.reader(texts, delimiter=delimiter, strict=True))
            except csv.Error as error:
                if "end of data" in str(error):
                    raise opened("and is not closed") from None
                if len(texts) > 1:
                    raise opened(f"and takes in what follows, to a quote in line {numbers[-1]}") from None
            alone = [next(csv.reader([text], delimiter=delimiter)) for text in texts]
            if width > 1 and len(texts) > 1 and all(len(one) == width for one in alone):
                raise opened(f"and takes in whole rows, to a quote in line {numbers[-1]}")
        width = width or len(fields)
        yield numbers[0], numbers[-1], fields, texts[-1][-1] in "\r\n"  # without that the file may be cut off


# What a spreadsheet runs as a formula, numbers are none; what begins with a space, which readers cut off; and what
# such a text is written as.
_FORMULA = re.compile(r"'*(?:[=@\s]|[+-](?!\d+(\.\d+)?\Z))")


def as_cell(text: Any) -> Any:
    """A text as a cell of a CSV: with ' before a space or what a spreadsheet takes for a formula; see `from_cell`."""
    return f"'{text}" if isinstance(text, str) and _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text that `as_cell` made the cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def rows_of(file: IO[str]) -> SimpleNamespace:
    """A file for csv.writer, which quotes \\r and \\n within a cell only where rows end by both; they end by \\n."""
    return SimpleNamespace(write=lambda row: file.write(row.removesuffix("\r\n") + "\n"))


def write_csv(table: pd.DataFrame, path: Path, float_format: str | None = None) -> None:
    """Write a table as CSV, without its index, whole, texts as `as_cell` has them: `read_table` gives them back."""
    texts = table.select_dtypes(["object", "string"]).columns
    table = table.assign(**{name: table[name].map(as_cell) for name in texts}).rename(columns=as_cell)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table.to_csv(rows_of(file), index=False, lineterminator="\r\n", float_format=float_format)
