"""The one reader of tables: what people bring is read row by row, or refused with the line."""

import csv

import pandas as pd
import pytest

from utils.data import delimited
from utils.data.delimited import read_header, read_table
from utils.data.forms.plain import plain_columns
from utils.files import InputError
from utils.own import answers

COLUMNS = ("id", "name")
HEADER = "id,name,notes"
ROWS = ["1,Zea,x", "2,Abies,y", "3,Poa,z"]
TABLE = "\n".join([HEADER, *ROWS]) + "\n"
TAB = TABLE.replace(",", "\t")


def read(tmp_path, content, **options):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options |= {"way_out": "Give both."}
    table = read_table(path, COLUMNS, ("notes",), **options)
    quick = read_table(path, COLUMNS, ("notes",), quick=plain_columns, **options)
    pd.testing.assert_frame_equal(table, quick)
    return table


# What is in the file, and the lines, ids and notes that are read from it.
READ = {
    "as written": (TABLE, [2, 3, 4], "123", ["x", "y", "z"]),
    "without the last line's end": (TABLE.rstrip(), [2, 3, 4], "123", ["x", "y", "z"]),
    "lines of Windows": (TABLE.replace("\n", "\r\n"), [2, 3, 4], "123", ["x", "y", "z"]),
    "lines of old Macs": (TABLE.replace("\n", "\r"), [2, 3, 4], "123", ["x", "y", "z"]),
    "byte order mark": ("\ufeff" + TABLE, [2, 3, 4], "123", ["x", "y", "z"]),
    "byte order mark and semicolons": ("\ufeff" + TABLE.replace(",", ";"), [2, 3, 4], "123", ["x", "y", "z"]),
    "a spreadsheet's sep=": ("sep=;\r\n" + TABLE.replace(",", ";"), [3, 4, 5], "123", ["x", "y", "z"]),
    "sep= in quotes, with a tab": ('"sep=\t"\n' + TAB, [3, 4, 5], "123", ["x", "y", "z"]),
    "sep= behind a mark, of a bar": ("\ufeffSEP=|\n" + TABLE.replace(",", "|"), [3, 4, 5], "123", ["x", "y", "z"]),
    "rows without text": (TABLE.replace("2,", ",,\n2,"), [2, 4, 5], "123", ["x", "y", "z"]),
    "what other readers take for ends of lines": (f"{HEADER}\n1,Zea,x\u2028y\x0b\n", [2], "1", ["x\u2028y"]),
    "spaces around fields": (TABLE.replace(",", " , "), [2, 3, 4], "123", ["x", "y", "z"]),
    "blank lines": ("\n" + TABLE.replace("\n", "\n\n,,\n  \n"), [6, 10, 14], "123", ["x", "y", "z"]),
    "a delimiter behind each row": (TABLE.replace("\n", ",\n"), [2, 3, 4], "123", ["x", "y", "z"]),
    "a delimiter behind the header": (TABLE.replace("notes", "notes,"), [2, 3, 4], "123", ["x", "y", "z"]),
    "rows that end with their last value": (f"{HEADER}\n1,Zea\n2,Poa,x\n", [2, 3], "12", ["", "x"]),
    "quoted": ('"id","name","notes"\n"1","Zea","a ""b"", c"\n', [2], "1", ['a "b", c']),
    "quoted with line breaks": (f'{HEADER}\n1,Zea,"x\ny, and\n\nz"\n2,Poa,w\n', [2, 6], "12", ["x\ny, and\n\nz", "w"]),
    "a line break in the header": ('id,name,notes,"of\nit"\n1,Zea,x,\n', [3], "1", ["x"]),
    "quotes within fields": (f'{HEADER}\n1,Zea,6" dbh\n2,Poa,"Bob" Jones\n', [2, 3], "12", ['6" dbh', "Bob Jones"]),
    "tabs": (TAB, [2, 3, 4], "123", ["x", "y", "z"]),
    "tabs with stray quotes": (
        'id\tname\tnotes\n1\tZea\t"La Plata, B. A.\n2\tPoa\t"El Sol" rancho\n3\tZea\t" on label\n4\tZea\t6" dbh\n',
        [2, 3, 4, 5],
        "1234",
        ['"La Plata, B. A.', '"El Sol" rancho', '" on label', '6" dbh'],
    ),
    "tabs with quoted fields": ('"id"\t"name"\t"notes"\n"1"\t"Zea"\t"a ""b"""\n', [2], "1", ['a "b"']),
    "tabs within quotes": ('id\tname\tnotes\n1\tZea\t"a\tb"\n2\tPoa\t"x\n', [2, 3], "12", ["a\tb", '"x']),
    "text that others take for nothing": (f"{HEADER}\nNA,x,NULL\n007,y,1e5\n", [2, 3], ["NA", "007"], ["NULL", "1e5"]),
    "a field beyond 128 KiB": (f"{HEADER}\n1,Zea,{'x' * 200_000}\n", [2], "1", ["x" * 200_000]),
    "thousands of columns": (
        ",".join([HEADER, *map(str, range(20_000))]) + "\n" + "1,Zea,x" + 20_000 * ",y" + "\n", [2], "1", ["x"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_every_row_of_a_table_is_read(tmp_path, case):
    content, lines, ids, notes = READ[case]
    table = read(tmp_path, content)
    assert table.index.tolist() == lines
    assert table["id"].tolist() == [*ids] and table["notes"].tolist() == notes


LONG = f"{HEADER}\n1,Zea,x\n"
REFUSED = {
    "empty": ("", "not a readable CSV"),
    "no rows": (f"{HEADER}\n\n,,\n", "has no rows below the header"),
    "too many fields": (f"{LONG}2,Poa,y,z\n3,Poa,y,z\n", "line 3 has more fields than the first line has names (4, "),
    "too few fields": (f"{LONG}2\n", "line 3 has fewer fields than the first line has names (1, not 3)"),
    "cut off within a row": (f"{LONG}2,Po", "line 3 has fewer fields than the first line has names (2, not 3)"),
    "too few tabs": (f"{TAB}4\tPoa\n", "line 5 has fewer fields than the first line has names (2, not 3)"),
    "a line break without quotes": (f"{LONG}2,Poa,near\nthe river\n", "line 4 has fewer fields"),
    "a comment": (f"{HEADER}\n# by me\n1,Zea,x\n", "line 2 has fewer fields"),
    "too many tabs": (f"{TAB}4\tPoa\tx\ty\n", "line 5 has more fields"),
    "a line break in a field of a TSV": (f'{TAB}4\tPoa\t"x\ny"\n', "line 6 has fewer fields"),
    "a quote never closed": (f'{LONG}2,"Poa,x\n3,Poa,x\n', "a quote opens in line 3 and is not closed"),
    "a quote not closed in the last line": (f'{LONG}2,Poa,"x', "a quote opens in line 3 and is not closed"),
    "a quote not closed before the end": (f'{LONG}2,Poa,"x\n', "a quote opens in line 3 and is not closed"),
    "a field without end": (f'{LONG}2,{"x" * 2**24}x,x\n', "line 3: field larger than field limit"),
    "a quote closed by the next one": (
        f'{LONG}2,"Poa,x\n3,Poa,x\n4,"Zea",x\n',
        "a quote opens in line 3 and takes in what follows, to a quote in line 5",
    ),
    "a quote that takes in rows": (
        f'{LONG}2,Poa,"La\n3,Zea,y\n4,Zea,6"\n',
        "a quote opens in line 3 and takes in whole rows, to a quote in line 5",
    ),
    "a quote behind one with line breaks": (f'{HEADER}\n1,Zea,"x\ny"\n2,"Poa,x\n', "a quote opens in line 4"),
    "the header again": (f"{LONG}{HEADER}\n2,Zea,y\n", "line 3 names the columns again"),
    "the header again, of two files": (f"\ufeff{LONG}\ufeff{HEADER}\r\n2,Zea,y\n", "line 3 names the columns again"),
    "a NUL byte": (f"{LONG}2,Z\0ea,y\n", "line 3 is not text"),
    "UTF-16": (TABLE.encode("utf-16"), "not UTF-8 text (UTF-16)"),
    "UTF-16 without a mark": (TABLE.encode("utf-16-le"), "line 1 is not text"),
    "Windows-1252": (f"{LONG}2,Isoëtes,y\n".encode("cp1252"), "not UTF-8 text (line 3: '2,Iso\\\\xebtes,y')"),
    "a spreadsheet": (b"PK\x03\x04...", "is a spreadsheet"),
    "a needed column twice": ("id,name,name\n1,Zea,x\n", "column 'name' is there twice"),
    "no such column": ("ID, Names\n1,Zea\n", "no column 'id' and no 'name'; found ID, Names. Give both."),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, case):
    content, told = REFUSED[case]
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "t.csv")) and told in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def test_a_message_shows_some_columns_those_that_may_be_meant_first(tmp_path):
    (tmp_path / "t.csv").write_text(
        ",".join(["x" * 90_000, *(f"column{n}" for n in range(250)), "ID"]) + "\n1\n"
    )
    assert len(read_header(tmp_path / "t.csv")) == 252
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.csv", COLUMNS, way_out="Give both.")
    assert "found ID, xxx" in str(caught.value) and "... , " not in str(caught.value)
    assert "and 240 more. Give both." in str(caught.value) and len(str(caught.value)) < 500


def test_names_of_rows_as_r_writes_them_are_left_out_where_they_may_be(tmp_path):
    content = "id\tname\tnotes\n1\ta\tZea\tx\n2\tb\tPoa\ty\n"
    assert read(tmp_path, content, row_names=True)["id"].tolist() == ["a", "b"]
    with pytest.raises(InputError, match="line 2 has more fields"):
        read(tmp_path, content)


def test_an_optional_column_that_is_not_there_is_empty(tmp_path):
    table = read(tmp_path, "name,id\nZea,1\n")
    assert table.to_dict("records") == [{"id": "1", "name": "Zea", "notes": ""}]


TEXTS = [
    "=1+1",
    "-5",
    "+49 30",
    "'=x",
    "''-y",
    'q"uo,te',
    "-x",
    "@s",
    "a\rb",
    "c\nd",
    "e\r\nf",
    "=\tg",
    "'tis",
    " a",
    "' a",
    "\xa0b",
]


@pytest.mark.parametrize("write", ["write_csv", "write_rows"])
def test_texts_come_back_as_they_were_and_no_cell_is_a_formula(tmp_path, write):
    path = tmp_path / "a.csv"
    if write == "write_csv":
        delimited.write_csv(pd.DataFrame({"name": TEXTS, "number": range(len(TEXTS))}), path)
    else:
        answers.write_rows([["name", "number"], *zip(TEXTS, range(len(TEXTS)), strict=True)], path)
    back = delimited.read_table(path, ("name", "number"), way_out="")
    assert back["name"].tolist() == TEXTS
    with path.open(newline="") as file:
        cells = [row[0] for row in csv.reader(file)]
    assert len(cells) == len(TEXTS) + 1
    assert [cell for cell in cells if cell[0] in "=+-@\t\r"] == ["-5"], "a number is none"
    assert b"\r\n" not in path.read_bytes().replace(b"e\r\nf", b"")
