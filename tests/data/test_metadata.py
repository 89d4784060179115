import gzip
import json
import os
import subprocess
import sys
import time

import pandas as pd
import pytest

from utils.data import metadata as md
from utils.data.forms import kept, published
from utils.data.forms.sheets import groups_of
from utils.data.forms.summary import summarize_file
from utils.data.labels import LabelMap
from utils.files import REPOSITORY, InputError


def test_published_json_is_read_with_its_columns_and_types(tables, write_tables):
    metadata = md.read_metadata(write_tables(tables))
    for name, columns in md.COLUMNS.items():
        table = getattr(metadata, name)
        assert list(table) == list(columns)
        for column, kind in columns.items():
            assert table[column].dtype == {str: object, int: "int64", float: "float64"}[kind], (name, column)
    assert metadata.annotations["image_id"].tolist()[:2] == ["00000__000", "00000__001"]
    assert metadata.categories["authors"].tolist() == ["L.", "Mill.", ""]


def test_image_ids_may_be_integers(tables, write_tables):
    for name in ("annotations", "images"):
        for number, row in enumerate(tables[name]):
            row["image_id"] = number
    metadata = md.read_metadata(write_tables(tables))
    assert metadata.images["image_id"].tolist() == [str(number) for number in range(7)]
    assert metadata.annotations["image_id"].tolist() == metadata.images["image_id"].tolist()


def test_missing_genus_and_family_are_filled_in(tables, write_tables):
    del tables["categories"][0]["genus"]
    tables["categories"][0]["family"] = None
    metadata = md.read_metadata(write_tables(tables))
    assert metadata.categories["genus"][0] == "Zea"
    assert metadata.categories["family"][0] == "unknown"


def put(table, row, **values):
    """A change of one row of one table; the value None removes the field."""

    def change(tables):
        for field, value in values.items():
            if value is None:
                del tables[table][row][field]
            else:
                tables[table][row][field] = value

    return change


def drop_table(tables):
    del tables["categories"]


def drop_field(tables):
    for row in tables["images"]:
        del row["file_name"]


def not_rows(tables):
    tables["images"] = {"0": {}}


def not_objects(tables):
    tables["images"][1] = ["00000__001"]


def twice(table, row, **values):
    """A change that repeats one row at the end of its table."""
    return lambda tables: tables[table].append({**tables[table][row], **values})


# One line a case: what is changed in the small train_metadata.json, and what the message must say.
BAD_JSON = [
    (drop_table, ["no table 'categories'", "annotations, images"]),
    (drop_field, ["table 'images'", "no field 'file_name'"]),
    (not_rows, ["table 'images' must be a list"]),
    (not_objects, ["table 'images', row 1", "must be an object, found list"]),
    (put("images", 3, file_name=None), ["table 'images', row 3", "'file_name' is missing"]),
    (put("images", 3, file_name=5), ["table 'images', row 3", "file_name is 5, must be text"]),
    (put("images", 3, file_name=""), ["table 'images', row 3", "file_name is '', must be text"]),
    (put("images", 3, license="free"), ["table 'images', row 3", "license is 'free'", "integer"]),
    (put("annotations", 2, category_id="x"), ["table 'annotations', row 2", "category_id is 'x'", "integer"]),
    (put("annotations", 2, category_id=0.5), ["table 'annotations', row 2", "category_id is 0.5"]),
    (put("annotations", 2, category_id=True), ["table 'annotations', row 2", "category_id is True"]),
    (put("annotations", 2, category_id=10**30), ["table 'annotations', row 2", "category_id is 1000"]),
    (
        put("annotations", 2, image_id=1.5),
        ["table 'annotations', row 2", "image_id is 1.5", "text or an integer"],
    ),
    (put("annotations", 2, genus_id=[60]), ["table 'annotations', row 2", "genus_id is [60]"]),
    (put("annotations", 2, genus_id=None), ["table 'annotations', row 2", "'genus_id' is missing"]),
    (put("categories", 1, scientificName=7), ["table 'categories', row 1", "scientificName is 7"]),
    (put("categories", 1, family=7), ["table 'categories', row 1", "family is 7", "text"]),
    (twice("images", 0, file_name="b.jpg"), ["table 'images', row 7", "'00000__000' occurs twice", "row 0"]),
    (twice("images", 0, file_name="b.jpg"), ["Give '000/00/00000__000.jpg' and 'b.jpg' an id each."]),
    (put("categories", 1, scientificName="NULL"), ["table 'categories', row 1", "'NULL' is no name"]),
    (
        put("categories", 1, scientificName=float("nan")),
        ["table 'categories', row 1", "'scientificName' is missing"],
    ),
    (put("annotations", 2, genus_id=float("nan")), ["table 'annotations', row 2", "'genus_id' is missing"]),
    (twice("annotations", 1), ["table 'annotations', row 7", "'00000__001' occurs twice"]),
    (
        twice("annotations", 1, category_id=2, genus_id=62),
        ["table 'annotations', row 7", "'00000__001' is of 'Abies alba' here and of 'Zea mays' in", "row 1"],
    ),
    (
        put("images", 5, file_name="000/00/00000__000.jpg"),
        [
            "table 'images', row 5",
            "file_name '000/00/00000__000.jpg' is of 'Abies alba' here and of 'Zea mays'",
        ],
    ),
    (
        put("images", 2, file_name="000/00/00000__000.jpg"),
        ["table 'images', row 2", "file_name", "occurs twice"],
    ),
    (
        put("categories", 2, scientificName="Zea mays"),
        ["table 'categories', row 2", "'Zea mays' occurs twice"],
    ),
    (
        twice("categories", 2, scientificName="Zea"),
        ["table 'categories', row 3", "category_id 3 occurs twice"],
    ),
    (twice("genera", 1, genus="Zea"), ["table 'genera', row 2", "genus_id 62 occurs twice"]),
    (put("annotations", 5, category_id=1), ["table 'annotations', row 5", "category_id 1", "'categories'"]),
    (put("annotations", 5, image_id="nowhere"), ["table 'annotations', row 5", "'nowhere'", "'images'"]),
    (put("annotations", 5, genus_id=61), ["table 'annotations', row 5", "genus_id 61", "'genera'"]),
    (
        put("distances", 0, genus_id_x=62),
        ["table 'distances', row 0", "genus_id_x 62 is not below genus_id_y 62"],
    ),
    (put("distances", 0, genus_id_x=99), ["table 'distances', row 0", "99 is not below"]),
    (put("distances", 0, distance=-1), ["table 'distances', row 0", "distance is -1"]),
    (put("distances", 0, distance=float("nan")), ["table 'distances', row 0", "distance is nan"]),
    (
        put("distances", 0, distance="far"),
        ["table 'distances', row 0", "distance is 'far', must be a number"],
    ),
    *(
        (put("images", 4, file_name=name), ["table 'images', row 4", repr(name), "within the image folder"])
        for name in (
            "/etc/passwd",
            "../secret.jpg",
            "000/../../secret.jpg",
            "000/..",
            "C:/sheet.jpg",
            "C:\\sheet.jpg",
            "000\\00\\sheet.jpg",
            "http://example.org/sheet.jpg",
            "000/",
        )
    ),
    *(
        (put("images", 4, file_name=name), ["table 'images', row 4", repr(name)[1:-1], "are no text"])
        for name in ("a\nb.jpg", "a\0.jpg", "a\x1b[31m.jpg")
    ),
    *(
        (
            put("categories", 1, **{field: "Zea\0mays"}),
            ["table 'categories', row 1", field, "a NUL character"],
        )
        for field in ("scientificName", "genus", "family")
    ),
]


@pytest.mark.parametrize(("change", "words"), BAD_JSON)
def test_errors_name_file_table_row_and_field(tables, write_tables, change, words):
    change(tables)
    path = write_tables(tables)
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    assert "problems" not in str(caught.value), "one thing is wrong, so one is told"
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_genus_id_without_entry_is_no_error_where_nothing_uses_it(tables, write_tables):
    tables["distances"].append({"genus_id_x": 61, "genus_id_y": 62, "distance": 3})
    assert len(md.read_metadata(write_tables(tables)).distances) == 2


def test_file_names_may_hold_dots_and_spaces(tables, write_tables):
    for row, name in enumerate(("a..b.jpg", "..a.jpg", "a b/c.jpg", "...", "ä/×.jpg")):
        tables["images"][row]["file_name"] = name
    assert md.read_metadata(write_tables(tables)).images["file_name"][1] == "..a.jpg"


def test_several_problems_are_told_together(tables, write_tables):
    for change in (
        put("images", 3, file_name=None),
        put("images", 4, file_name="../x.jpg"),
        put("annotations", 2, category_id="x"),
        twice("annotations", 0),
        put("annotations", 5, category_id=1),
        put("distances", 0, genus_id_x=99),
    ):
        change(tables)
    del tables["genera"]
    path = write_tables(tables)
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    heading, *lines = str(caught.value).splitlines()
    assert heading == f"{path}: 7 problems:"
    for words in (
        "no table 'genera'",
        "'images', row 3: field 'file_name' is missing",
        "'images', row 4: file_name '../x.jpg'",
        "'annotations', row 2: category_id is 'x'",
        "'annotations', row 7: image_id '00000__000' occurs twice",
        "'annotations', row 5: category_id 1 is not in",
        "'distances', row 0: genus_id_x 99",
    ):
        assert sum(words in line for line in lines) == 1, words
    assert len(lines) == 7


def test_the_first_twenty_are_listed_and_every_kind_is_among_them(tables, write_tables):
    tables["images"] += [{"image_id": str(n), "file_name": f"../{n}.jpg", "license": 0} for n in range(500)]
    tables["images"] += [{"image_id": "0", "file_name": "again.jpg", "license": 0}] * 300
    tables["annotations"][1]["genus_id"] = 61
    with pytest.raises(InputError) as caught:
        md.read_metadata(write_tables(tables))
    heading, *lines = str(caught.value).splitlines()
    assert "1,100 problems, 20 of them here" in heading  # 500 names, 300 ids, 299 names twice, one genus
    assert len(lines) == 20
    assert any("genus_id 61" in line for line in lines)
    assert any("row 7:" in line and "'../0.jpg'" in line for line in lines)
    assert any("row 507:" in line and "image_id '0' occurs twice" in line for line in lines)


def test_numbers_written_as_text_are_numbers(tables, write_tables):
    expected = md.read_metadata(write_tables(tables))
    for row in tables["annotations"]:
        row["category_id"], row["genus_id"] = str(row["category_id"]), float(row["genus_id"])
    tables["distances"][0]["distance"] = "250.5"
    found = md.read_metadata(write_tables(tables))
    for name in ("annotations", "distances"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_a_byte_order_mark_and_further_fields_do_no_harm(tables, write_tables):
    expected = md.read_metadata(write_tables(tables))
    tables["info"] = {"year": 2022}
    tables["images"][0]["sha"] = {"a": ["}", {}]}
    path = write_tables(tables)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    pd.testing.assert_frame_equal(md.read_metadata(path).images, expected.images)


def test_a_large_table_is_cut_in_pieces_without_harm(tables, write_tables, monkeypatch):
    tables["images"][3]["file_name"] = "a},{b.jpg"
    tables["images"][4]["more"] = {"a": [{}, {"b": "}"}]}
    path = write_tables(tables)
    expected = md.read_metadata(path)
    assert expected.images["file_name"][3] == "a},{b.jpg"
    whole = published._pieces
    sizes = (1, 20, 60, 75, 100, 150, 400)
    for size in sizes:
        monkeypatch.setattr(published, "_pieces", lambda content, size=size: whole(content, size))
        found = md.read_metadata(path)
        for name in md.COLUMNS:
            pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '"text"',
        "5",
        "",
        " \n",
        "{",
        '{"images": [1,}',
        "[" * 200_000,
        '{"a":' * 200_000,
        b'{"a": "\xff"}',
    ],
)
def test_json_that_is_no_object_of_tables_is_refused(tmp_path, content):
    path = tmp_path / "train_metadata.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"train_metadata\.json: "):
        md.read_metadata(path)


def test_unknown_paths_and_formats_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path / "absent.json", tmp_path / "notes.txt", tmp_path):
        with pytest.raises(InputError) as caught:
            md.read_metadata(path)
        assert str(path) in str(caught.value)


def test_tables_survive_json_and_columns(tables, write_tables, tmp_path):
    metadata = md.read_metadata(write_tables(tables))
    published.write_metadata(metadata, tmp_path / "again.json")
    kept.write_columns(metadata, tmp_path / "again.columns")
    kept.write_columns(metadata, tmp_path / "again.columns")  # replaces the first
    for path in (tmp_path / "again.json", tmp_path / "again.columns"):
        again = md.read_metadata(path)
        for name in md.COLUMNS:
            pd.testing.assert_frame_equal(getattr(again, name), getattr(metadata, name))
    assert json.loads((tmp_path / "again.json").read_text())["images"] == tables["images"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.columns",
        "again.json",
        "train_metadata.json",
    ]


def test_writing_columns_never_replaces_a_folder_of_something_else(tables, write_tables, tmp_path):
    metadata = md.read_metadata(write_tables(tables))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a columnar metadata folder"):
        kept.write_columns(metadata, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_a_columnar_folder_without_a_table_or_column_is_refused(tables, write_tables, tmp_path):
    metadata = md.read_metadata(write_tables(tables))
    folder = kept.write_columns(metadata, tmp_path / "m.columns")
    metadata.genera.drop(columns="genus").to_feather(folder / "genera.feather")
    with pytest.raises(InputError, match=r"genera\.feather.*'genus'"):
        md.read_metadata(folder)
    (folder / "genera.feather").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"genera\.feather"):
        md.read_metadata(folder)
    (folder / "genera.feather").unlink()
    with pytest.raises(InputError, match=r"genera\.feather"):
        md.read_metadata(folder)


def test_test_metadata_is_a_list_with_integer_ids(tmp_path):
    rows = [{"image_id": number, "file_name": f"000/{number:06d}.jpg", "license": 0} for number in (5, 7)]
    images = pd.DataFrame(rows)
    published.write_test_metadata(images, tmp_path / "test_metadata.json")
    assert json.loads((tmp_path / "test_metadata.json").read_text()) == rows
    assert md.read_test_metadata(tmp_path / "test_metadata.json")["image_id"].tolist() == ["5", "7"]
    (tmp_path / "test_metadata.json").write_text(json.dumps([*rows, rows[0]]))
    with pytest.raises(InputError, match=r"row 2.*occurs twice"):
        md.read_test_metadata(tmp_path / "test_metadata.json")
    (tmp_path / "test_metadata.json").write_text('{"images": []}')
    with pytest.raises(InputError, match="must be a list"):
        md.read_test_metadata(tmp_path / "test_metadata.json")


def test_without_msgspec_as_on_kaggle_the_same_is_read(tables, write_tables, tmp_path, monkeypatch):
    path, tests = write_tables(tables), tmp_path / "test_metadata.json"
    published.write_test_metadata(
        pd.DataFrame({"image_id": [5], "file_name": ["5.jpg"], "license": [0]}), tests
    )
    fast = [*vars(md.read_metadata(path)).values(), md.read_test_metadata(tests)]
    monkeypatch.setattr(published, "msgspec", None)
    slow = [*vars(md.read_metadata(path)).values(), md.read_test_metadata(tests)]
    for one, other in zip(fast, slow, strict=True):
        pd.testing.assert_frame_equal(one, other)
    path.write_text("[]")
    with pytest.raises(InputError, match="must be an object of tables"):
        published.read_train_json(path)


@pytest.fixture(params=["with msgspec", "without msgspec, as on Kaggle"])
def reader(request, monkeypatch):
    if request.param != "with msgspec":
        monkeypatch.setattr(published, "msgspec", None)


def test_nan_is_as_an_absent_text(tables, write_tables, reader):
    for name in ("authors", "family", "genus", "species"):
        tables["categories"][1][name] = float("nan")
    row = md.read_metadata(write_tables(tables)).categories.loc[1]
    assert row[["authors", "family", "genus", "species"]].tolist() == ["", "unknown", "Abies", ""]


def coco(**fields):
    """Tables in the form of Herbarium 2020, two species of two genera; `fields` are added to the first category."""
    return {
        "annotations": [
            {"category_id": 7, "id": 5, "image_id": 5, "region_id": 1},
            {"category_id": 2, "id": 6, "image_id": 6, "region_id": 1},
        ],
        "categories": [
            {"id": 7, "name": "Croton muelleri Müll.Arg.", "family": "Euphorbiaceae", **fields},
            {"id": 2, "name": "Abies alba", "family": "Pinaceae", "genus": "Abies"},
        ],
        "images": [
            {"id": id, "file_name": f"images/{id}.jpg", "height": 1000, "width": 661, "license": 1}
            for id in (5, 6)
        ],
        "info": {"year": 2020},
        "licenses": [{"id": 1, "name": "x", "url": ""}],
        "regions": [{"id": 1, "name": "North America"}],
    }


def test_the_form_of_2020_is_read(write_tables, reader):
    metadata = md.read_metadata(write_tables(coco(genus="Croton")))
    assert metadata.images.to_dict("list") == {
        "image_id": ["5", "6"],
        "file_name": ["images/5.jpg", "images/6.jpg"],
        "license": [1, 1],
    }
    assert metadata.annotations.to_dict("list") == {
        "image_id": ["5", "6"],
        "category_id": [7, 2],
        "genus_id": [1, 0],
        "institution_id": [0, 0],
    }
    categories = metadata.categories.set_index("category_id")
    assert categories.loc[7, ["scientificName", "family", "genus", "species"]].tolist() == [
        "Croton muelleri Müll.Arg.",
        "Euphorbiaceae",
        "Croton",
        "muelleri",
    ]
    assert metadata.genera.to_dict("list") == {"genus_id": [0, 1], "genus": ["Abies", "Croton"]}


def test_the_form_of_2021_is_read(write_tables, reader):
    tables = coco(order="Malpighiales")  # no genus, institutions in place of regions
    for row, institution in zip(tables["annotations"], (3, 4), strict=True):
        row["institution_id"] = institution
    tables["institutions"] = [{"id": 3, "name": "NY"}, {"id": 4, "name": "US"}]
    metadata = md.read_metadata(write_tables(tables))
    assert metadata.annotations["institution_id"].tolist() == [3, 4]
    assert metadata.institutions["collectionCode"].tolist() == ["NY", "US"]
    assert metadata.categories["genus"].tolist() == ["Croton", "Abies"]


def test_what_is_wrong_in_the_form_of_2020_is_named(write_tables, reader):
    for change, words in (
        (
            lambda tables: tables["annotations"][1].update(category_id=9),
            "row 1: category_id 9 is not in table",
        ),
        (lambda tables: tables["annotations"][1].update(image_id=9), "row 1: image_id '9' is not in table"),
        (
            lambda tables: tables["images"][1].pop("file_name"),
            "table 'images', row 1: field 'file_name' is missing",
        ),
        (lambda tables: tables["categories"][1].update(name="NA"), "row 1: scientificName 'NA' is no name"),
        (lambda tables: (tables.pop("annotations"), tables.pop("categories")), "it names no species"),
    ):
        tables = coco()
        change(tables)
        with pytest.raises(InputError) as caught:
            md.read_metadata(write_tables(tables))
        assert words in str(caught.value) and "problems" not in str(caught.value)


def test_json_that_is_none_gets_its_own_reason(tables, tmp_path, reader):
    text = json.dumps(tables).replace("Mill.", "Müll.")
    path = tmp_path / "train_metadata.json"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert md.read_metadata(path).categories["authors"].tolist() == ["L.", "Müll.", ""]
    for content, told in (
        (text.encode("latin-1"), "not UTF-8 text ('utf-8' codec can't decode byte 0xfc"),
        (text.encode("utf-16"), "not UTF-8 text (UTF-16). Write the file again in UTF-8."),
        (text[:-40].encode(), "not valid JSON"),
        (gzip.compress(text.encode()), "is a gzip file and no JSON. Unpack it"),
        (b'{"image_id": 1}\n{"image_id": 2}\n', "One object a line (JSON lines) is not read"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            md.read_metadata(path)
        assert str(path) in str(caught.value) and told in str(caught.value)


# ---------------------------------------------------------------- tables of own sheets

HEADER = "image_id,file_name,scientificName,genus,species,family\n"


def write_csv(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (
            "associatedMedia,scientificName,scientificNameAuthorship,family",
            ["Zea mays,L.,Poaceae", "Poa annua,,"],
        ),
        (
            "dwc:associatedMedia,dwc:scientificName,dwc:authors,dwc:family",
            ["Zea mays,L.,Poaceae", "Poa annua,,"],
        ),
        (
            "file_name,http://rs.tdwg.org/dwc/terms/scientificName,authors,family",
            ["Zea mays,L.,Poaceae", "Poa annua,,"],
        ),
        (
            "associatedMedia,genus,specificEpithet,scientificNameAuthorship,dwc:family",
            ["Zea,mays,L.,Poaceae", "Poa,annua,,"],
        ),
        # a column of ours comes first
        ("file_name,associatedMedia,scientificName,authors", ["http://x/1.jpg,Zea mays,L.", ",Poa annua,"]),
    ],
    ids=["terms", "prefix", "whole", "parts", "ours"],
)
def test_own_sheets_may_have_the_column_names_of_darwin_core(header, rows, tmp_path):
    lines = [f"{number}.jpg,{row}" for number, row in enumerate(rows, 1)]
    path = write_csv(tmp_path, "\n".join([header, *lines]) + "\n")
    metadata = md.read_metadata(path)
    assert metadata.images["file_name"].tolist() == metadata.images["image_id"].tolist() == ["1.jpg", "2.jpg"]
    found = metadata.categories[["scientificName", "authors", "genus", "species"]].values.tolist()
    assert found == [["Poa annua", "", "Poa", "annua"], ["Zea mays", "L.", "Zea", "mays"]]
    families = metadata.categories["family"].tolist()
    assert families == ["unknown", "Poaceae" if "family" in header else "unknown"]


def test_a_name_in_parts_keeps_what_is_below_the_species(tmp_path):
    header = "file_name,genus,specificEpithet,infraspecificEpithet\n"
    rows = "1.jpg,Zea,mays,\n2.jpg,Zea,mays,parviglumis\n3.jpg,Zea,,\n"
    names = md.read_metadata(write_csv(tmp_path, header + rows)).categories["scientificName"].tolist()
    assert names == ["Zea", "Zea mays", "Zea mays parviglumis"]


def test_sheets_of_one_specimen_are_grouped_by_its_number(tmp_path):
    text = "catalogNumber,associatedMedia,scientificName\nK1,1.jpg,Zea mays\nK1,2.jpg,Zea mays\nK2,3.jpg,Poa annua\n"
    path = write_csv(tmp_path, text)
    ids = ["1.jpg", "2.jpg", "3.jpg"]
    assert groups_of(ids, "catalogNumber", md.read_metadata(path), path).tolist() == ["K1", "K1", "K2"]


def test_own_sheets_get_ids_in_sorted_order_and_fill_gaps(tmp_path):
    path = write_csv(
        tmp_path,
        HEADER + "a,a.jpg,Zea mays L.,,,\nb,b.jpg,Abies alba Mill.,Abies,alba,Pinaceae\n"
        "c,c.jpg,Zea mays L.,Zea,mays,Poaceae\nd,d.jpg,Polyscias,,,NA\n",
    )
    metadata = md.read_metadata(path)
    categories = metadata.categories
    assert list(categories) == list(md.COLUMNS["categories"])
    assert categories["category_id"].tolist() == [0, 1, 2]
    assert categories["scientificName"].tolist() == ["Abies alba Mill.", "Polyscias", "Zea mays L."]
    assert categories["authors"].tolist() == ["Mill.", "", "L."]
    assert categories["genus"].tolist() == ["Abies", "Polyscias", "Zea"]
    assert categories["species"].tolist() == ["alba", "", "mays"]
    assert categories["family"].tolist() == ["Pinaceae", "unknown", "Poaceae"]
    assert metadata.genera["genus"].tolist() == ["Abies", "Polyscias", "Zea"]
    assert metadata.annotations["category_id"].tolist() == [2, 0, 2, 1]
    assert metadata.annotations["genus_id"].tolist() == [2, 0, 2, 1]
    assert LabelMap.from_metadata(metadata).category_ids.tolist() == [0, 1, 2]
    for name, columns in md.COLUMNS.items():
        kinds = {
            column: {str: object, int: "int64", float: "float64"}[kind] for column, kind in columns.items()
        }
        assert getattr(metadata, name).dtypes.to_dict() == kinds


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffscientificName, image_id ,file_name\nZea mays , 007 ,x/y.jpg\n",
        "scientificName\timage_id\tfile_name\tcollector\nZea mays\t007\tx/y.jpg\tA, B; C\n",
        "scientificName;image_id;file_name\n\nZea mays;007;x/y.jpg\n;;\n",
        '"scientificName","image_id","file_name"\r\n"Zea  mays","007","x/y.jpg"\r\n',
    ],
)
def test_a_table_may_be_csv_or_tsv_with_columns_in_any_order(tmp_path, text):
    metadata = md.read_metadata(write_csv(tmp_path, text))
    assert metadata.images.to_dict("records") == [{"image_id": "007", "file_name": "x/y.jpg", "license": 0}]
    assert metadata.categories["scientificName"].tolist() == ["Zea mays"]


def test_without_a_column_for_it_the_image_id_is_the_file_name(tmp_path):
    metadata = md.read_metadata(write_csv(tmp_path, "file_name,scientificName\nx/y.jpg,Zea mays\n"))
    assert metadata.images["image_id"].tolist() == metadata.annotations["image_id"].tolist() == ["x/y.jpg"]


def species_of_rows(metadata):
    names = metadata.categories.set_index("category_id")["scientificName"]
    return metadata.annotations["category_id"].map(names).tolist()


def test_a_name_with_and_without_its_authors_is_one_species(tmp_path):
    path = write_csv(
        tmp_path,
        "file_name,scientificName,authors,family\n"
        "1.jpg,Jasminum fluminense Vell.,,\n2.jpg,Jasminum fluminense,,Oleaceae\n"
        "3.jpg,Mentha x piperita,,\n4.jpg,Mentha × piperita L.,,\n"
        "5.jpg,Polyscias,,\n6.jpg,Polyscias fruticosa,Harms.,\n7.jpg,Polyscias fruticosa Harms.,,\n"
        "8.jpg,Daucus carota L. subsp. carota,,\n9.jpg,Daucus carota subsp. carota,,\n10.jpg,Daucus carota,,\n"
        "11.jpg,Buchnera floridana Gand.,,\n12.jpg,Buchnera floridana Gandog.,,\n",
    )
    metadata = md.read_metadata(path)
    assert species_of_rows(metadata) == [
        *["Jasminum fluminense Vell."] * 2,
        *["Mentha × piperita L."] * 2,
        "Polyscias",
        *["Polyscias fruticosa Harms."] * 2,
        *["Daucus carota L. subsp. carota"] * 2,
        "Daucus carota",
        "Buchnera floridana Gand.",
        "Buchnera floridana Gandog.",
    ]
    categories = metadata.categories.set_index("scientificName")
    assert categories.loc["Jasminum fluminense Vell.", ["authors", "family"]].tolist() == [
        "Vell.",
        "Oleaceae",
    ]
    assert categories.loc["Polyscias fruticosa Harms.", "authors"] == "Harms."


def test_names_that_differ_in_spelling_alone_are_one_species(tmp_path):
    path = write_csv(
        tmp_path,
        "file_name,scientificName,authors\n1.jpg,Croton albus Müll.Arg.,\n2.jpg,Croton albus Müll. Arg.,\n"
        "3.jpg,Croton albus,Müll.Arg.\n4.jpg,Croton_albus,Müll. Arg.\n5.jpg,Croton\u200b albus,\n"
        "6.jpg,Croton,\n7.jpg,Croton Haenseleri,\n8.jpg,Croton sp.,\n9.jpg,Croton sp. 1,\n10.jpg,Croton sp. 1,\n"
        "11.jpg,Croton albus 'Red',\n12.jpg,Olea alba (L) Mill.,\n13.jpg,Olea alba (L.) Mill.,\n",
    )
    metadata = md.read_metadata(path)
    assert species_of_rows(metadata) == [
        *["Croton albus Müll. Arg."] * 5,
        "Croton",
        "Croton Haenseleri",
        "Croton sp.",
        *["Croton sp. 1"] * 2,
        "Croton albus 'Red'",
        *["Olea alba (L.) Mill."] * 2,
    ]
    categories = metadata.categories.set_index("scientificName")
    assert categories.loc["Croton albus Müll. Arg.", "authors"] == "Müll. Arg."
    assert categories.loc["Croton sp. 1", ["authors", "species"]].tolist() == ["", ""]
    (note,) = summarize_file(path)["notes"]
    assert note.startswith("4 images of 3 names that are no species") and "'Croton sp. 1'" in note


def test_names_that_look_alike_are_noted_and_stay_apart(tmp_path):
    path = write_csv(tmp_path, "file_name,scientificName\n1.jpg,ZEA MAYS L.\n2.jpg,Zea mays L.\n3.jpg,Zea\n")
    summary = summarize_file(path)
    assert (
        summary["species"] == 3
        and len(summary["notes"]) == 2
        and "1 images of 1 names" in summary["notes"][0]
    )
    assert "'ZEA MAYS L.', 'Zea mays L.' look alike and are 2 species" in summary["notes"][1]


def test_the_order_of_the_rows_changes_no_species(tmp_path):
    rows = ["1.jpg,Zea mays", "2.jpg,Zea mays L.", "3.jpg,Abies alba", "4.jpg,Abies  alba"]
    rows += ["5.jpg,Carex alba Boott et Torr.", "6.jpg,Carex alba Boott & Torr."]
    tables = []
    for order in (rows, rows[::-1]):
        tables.append(md.read_metadata(write_csv(tmp_path, "\n".join(["file_name,scientificName", *order]))))
    pd.testing.assert_frame_equal(tables[0].categories, tables[1].categories)


def test_a_name_that_may_be_one_of_several_is_refused_with_the_choices(tmp_path):
    path = write_csv(
        tmp_path,
        "file_name,scientificName,authors\n1.jpg,Buchnera floridana Gand.,\n"
        "2.jpg,Buchnera floridana Pollard,\n3.jpg,Buchnera floridana,\n",
    )
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    for word in (
        str(path),
        "line 4",
        "'Buchnera floridana Gand.' or 'Buchnera floridana Pollard'",
        "authors",
    ):
        assert word in str(caught.value)


# One line a case: the table and what the message must say.
BAD_TABLES = [
    ("", ["is empty"]),
    ("\n\n", ["is empty"]),
    (HEADER, ["no rows"]),
    (HEADER + "\n,,,,,\n", ["no rows"]),
    ("image_id,scientificName\na,b\n", ["no column 'file_name'", "image_id, scientificName"]),
    ("image_id,file_name\na,b\n", ["no column 'scientificName'", "image_id, file_name"]),
    ("name,file\na,b\n", ["no column 'file_name' and no 'scientificName'; found name, file", "Give a table"]),
    ("file_name,scientificName,file_name\na,b,c\n", ["column 'file_name' is there twice"]),
    (HEADER + "a,a.jpg,Zea,,,\n,b.jpg,Zea,,,\n", ["line 3", "image_id is empty"]),
    (HEADER + "a,a.jpg,Zea,,,\nb,,Zea,,,\n", ["line 3", "file_name is empty"]),
    (HEADER + "a,a.jpg,Zea,,,\nb,b.jpg,,,,\n", ["line 3", "scientificName is empty"]),
    (HEADER + "a,a.jpg,Zea,,,\n\nb,b.jpg,,,,\n", ["line 4", "scientificName is empty"]),
    (HEADER + 'a,a.jpg,Zea,,,"a\nb"\nb,b.jpg,,,,\n', ["line 4", "scientificName is empty"]),
    *(
        (
            HEADER + f"a,a.jpg,Zea,,,\nb,b.jpg,{label},,,\n",
            ["line 3", f"{label!r} is no name. Name the taxon"],
        )
        for label in ("123", "NA", "nan", "NULL", "None", "#N/A", "<NA>", "Unknown", "indet.", "-")
    ),
    (HEADER + "a,a.jpg,Zea,,,\n" + HEADER + "b,b.jpg,Zea,,,\n", ["line 3 names the columns again"]),
    ("file_name,scientificName\na,Zea\nscientificName,file_name\n", ["line 3 names the columns again"]),
    (
        HEADER + "a,a.jpg,Zea,,,\na,b.jpg,Zea,,,\n",
        [
            "line 3",
            "image_id 'a' occurs twice",
            "line 2. Give 'a.jpg' and 'b.jpg' an id each",
            "split --group",
        ],
    ),
    (HEADER + "a,a.jpg,Zea,,,\na,a.jpg,Zea,,,\n", ["line 3", "image_id 'a' occurs twice", "Keep one row"]),
    (HEADER + "a,a.jpg,Zea,,,\nb,a.jpg,Zea,,,\n", ["line 3", "file_name 'a.jpg' occurs twice", "line 2"]),
    (
        HEADER + "a,a.jpg,Zea,,,\na,b.jpg,Poa,,,\n",
        ["line 3", "image_id 'a' is of 'Poa' here and of 'Zea' in line 2"],
    ),
    (
        HEADER + "a,a.jpg,Zea,,,\nb,a.jpg,Poa,,,\n",
        ["line 3", "file_name 'a.jpg' is of 'Poa' here and of 'Zea' in line 2"],
    ),
    (HEADER + "a,a.jpg,Zea,,,\nb,../b.jpg,Poa,,,\n", ["line 3", "'../b.jpg'", "within the image folder"]),
    (HEADER + "a,a.jpg,Zea,,,\nb,/b.jpg,Poa,,,\n", ["line 3", "'/b.jpg'", "within the image folder"]),
    (HEADER + "a,a.jpg,Zea,,,\nb,D:\\b.jpg,Poa,,,\n", ["line 3", "b.jpg'", "within the image folder"]),
    (
        HEADER + "a,a.jpg,Zea m,,,Poaceae\nb,b.jpg,Zea m,,,\nc,c.jpg,Zea m,,,Pinaceae\n",
        ["line 4", "family", "'Pinaceae'", "'Poaceae'"],
    ),
    (HEADER + "a,a.jpg,Zea m,Zea,,\nb,b.jpg,Zea m,Poa,,\n", ["line 3", "genus", "'Poa'", "'Zea'"]),
    (
        "file_name,scientificName,authors\na,Zea m,L.\nb,Zea m,Mill.\n",
        ["line 3", "authors", "'Mill.'", "'L.'"],
    ),
    (HEADER + 'a,"a.jpg,Zea', ["not a readable CSV"]),
    (HEADER + "a,a.jpg,Zea,,,\nb,b.jpg,Zea,,,,,\n", ["not a readable CSV", "line 3"]),
    (HEADER + "1,a.jpg,Zea,,,,\n2,b.jpg,Zea,,,,\n", ["line 2 has more fields"]),
    ("PK\0\0\1", ["is not text"]),
]


@pytest.mark.parametrize(("text", "words"), BAD_TABLES)
def test_errors_in_a_csv_name_file_and_line(tmp_path, text, words):
    path = write_csv(tmp_path, text)
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    assert "problems" not in str(caught.value), "one thing is wrong, so one is told"
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_several_problems_of_a_csv_are_told_together(tmp_path):
    path = write_csv(
        tmp_path,
        HEADER + "a,a.jpg,Zea,,,\n,b.jpg,,,,\na,../c.jpg,Poa,,,\nd,a.jpg,Zea,,,\nc,c.jpg,Zea,Poa,,\n"
        "e,e.jpg,Zea,Zea,,\n",
    )
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    assert "6 problems" in str(caught.value)
    for word in (
        "line 3: scientificName is empty",
        "line 3: image_id is empty",
        "line 4: image_id 'a'",
        "line 4: file_name '../c.jpg'",
        "line 5: file_name 'a.jpg' occurs twice",
        "line 7: genus of",
    ):
        assert word in str(caught.value)


def test_a_csv_in_another_encoding_is_refused_by_name(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes((HEADER + "a,a.jpg,Zea ×,,,\n").encode("utf-16"))
    with pytest.raises(InputError, match=r"labels\.csv: not UTF-8"):
        md.read_metadata(path)
    path.write_bytes((HEADER + "a,a.jpg,Zea ×,,,\n").encode("latin-1"))
    with pytest.raises(InputError, match=r"labels\.csv: not UTF-8"):
        md.read_metadata(path)


def test_real_sheets_are_of_56_species(real_sheets):
    """Two of their 58 names differ from others in spaces and full stops alone.

    Three sheets name a family; a fourth is of the same species as one of them.
    """
    metadata = md.read_metadata(real_sheets / "labels.csv")
    summary = summarize_file(real_sheets / "labels.csv")
    assert len(metadata.images) == 100
    assert (summary["species"], summary["single_image_species"], summary["images_without_family"]) == (
        56,
        43,
        96,
    )


# ---------------------------------------------------------------- NAFlora-mini

MINI_HEADER = (
    "\tgenus_id\tinstitution_id\tcategory_id\timage_id\tscientificName\tfamily\tgenus\tspecies\tauthors\n"
)
MINI = [
    "0\t2\t5\t26\t00026__004\tZea mays\tPoaceae\tZea\tmays\tL.\n",
    "1\t2\t6\t26\t00026__007\tZea mays\tPoaceae\tZea\tmays\tL.\n",
    "2\t1\t5\t12345\t12345__000\tAbies alba\t\t\talba\t\n",
]


def test_the_mini_table_is_read_with_its_ids_and_file_names(tmp_path):
    for header in (MINI_HEADER, MINI_HEADER.removeprefix("\t")):  # pandas and R write row names differently
        path = write_csv(tmp_path, header + "".join(MINI))
        assert md.form_of(path) == md.MINI_TABLE
        metadata = md.read_metadata(path)
        assert metadata.images["file_name"].tolist() == [
            "000/26/00026__004.jpg",
            "000/26/00026__007.jpg",
            "123/45/12345__000.jpg",
        ]
        assert metadata.annotations.to_dict("list") == {
            "image_id": ["00026__004", "00026__007", "12345__000"],
            "category_id": [26, 26, 12345],
            "genus_id": [2, 2, 1],
            "institution_id": [5, 6, 5],
        }
        assert metadata.categories.to_dict("records") == [
            {
                "category_id": 26,
                "scientificName": "Zea mays",
                "authors": "L.",
                "family": "Poaceae",
                "genus": "Zea",
                "species": "mays",
            },
            {
                "category_id": 12345,
                "scientificName": "Abies alba",
                "authors": "",
                "family": "unknown",
                "genus": "Abies",
                "species": "alba",
            },
        ]
        assert metadata.genera.to_dict("list") == {"genus_id": [1, 2], "genus": ["Abies", "Zea"]}
        published.write_metadata(metadata, tmp_path / "again.json")
        assert md.read_metadata(tmp_path / "again.json").images.equals(metadata.images)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("3\tx\t5\t26\t00026__009\tZea mays\t\t\t\t\n", ["line 5", "genus_id is 'x'", "integer"]),
        ("3\t1e5\t5\t26\t00026__009\tZea mays\t\t\t\t\n", ["line 5", "genus_id is '1e5'", "integer"]),
        ("3\t2\t5\t27\t00027__009\tNA\t\t\t\t\n", ["line 5", "scientificName 'NA' is no name"]),
        ("3\t2\t5\t\t00026__009\tZea mays\t\t\t\t\n", ["line 5", "category_id is ''"]),
        ("3\t2\t5\t26\t\tZea mays\t\t\t\t\n", ["line 5", "image_id is empty"]),
        ("3\t2\t5\t26\t00026__009\t\t\t\t\t\n", ["line 5", "scientificName is empty"]),
        ("3\t2\t5\t26\tsheet9\tZea mays\t\t\t\t\n", ["line 5", "'sheet9' is not as 00026__004"]),
        ("3\t2\t5\t26\t00026__004\tZea mays\t\t\t\t\n", ["line 5", "'00026__004' occurs twice", "line 2"]),
        (
            "3\t1\t5\t12345\t00026__004\tAbies alba\t\t\t\t\n",
            ["line 5", "'00026__004' is of 'Abies alba' here and of 'Zea mays' in line 2"],
        ),
        (
            "3\t2\t5\t26\t00026__009\tZea maize\t\t\t\t\n",
            ["line 5", "scientificName", "'Zea maize'", "'Zea mays'"],
        ),
        ("3\t2\t5\t27\t00027__009\tZea mays\t\t\t\t\n", ["line 5", "'Zea mays' occurs twice", "line 2"]),
        ("3\t2\t5\t26\t00026__009\tZea mays\tPoales\t\t\t\n", ["line 5", "family", "'Poales'", "'Poaceae'"]),
        ("3\t2\t5\t28\t00028__009\tPoa annua\t\tPoa\t\t\n", ["line 5", "genus of genus_id '2' is 'Poa'"]),
        ("3\t1\t5\t26\t00026__009\tZea mays\t\t\t\t\n", ["line 5", "genus_id of category_id '26' is '1'"]),
    ],
)
def test_errors_in_the_mini_table_name_file_and_line(tmp_path, row, words):
    path = write_csv(tmp_path, MINI_HEADER + "".join(MINI) + row)
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    assert "problems" not in str(caught.value)
    for word in [str(path), *words]:
        assert word in str(caught.value)


# ---------------------------------------------------------------- a folder per species


def put_sheets(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"a sheet")


def test_a_folder_per_species_is_metadata(tmp_path):
    put_sheets(
        tmp_path,
        "Zea mays L/1.jpg",
        "Zea_mays/2.JPG",
        "Abies alba Mill./herbarium/3.png",
        "Abies alba Mill./notes.txt",
        "Abies alba Mill./._3.png",
        ".git/Rosa/4.jpg",
        "empty/readme.md",
    )
    metadata = md.read_metadata(tmp_path)
    assert metadata.images["file_name"].tolist() == [
        "Abies alba Mill./herbarium/3.png",
        "Zea mays L/1.jpg",
        "Zea_mays/2.JPG",
    ]
    assert metadata.images["image_id"].tolist() == metadata.images["file_name"].tolist()
    assert species_of_rows(metadata) == ["Abies alba Mill.", "Zea mays L", "Zea mays L"]
    assert metadata.categories["family"].tolist() == ["unknown", "unknown"]
    assert metadata.categories["authors"].tolist() == ["Mill.", "L"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1.jpg", "2.jpg"], ["no folders with images"]),
        (["Zea/readme.txt"], ["no folders with images"]),
        (["Zea/1.jpg", "2.jpg"], ["'2.jpg' lies in no subfolder"]),
        (["000/26/00026__004.jpg"], ["'000/26/00026__004.jpg'", "'000' is no name"]),
        (["Zea mays/a\\b.jpg"], ["within the image folder"]),
        (["train_metadata.json", "train_images/000/1.jpg"], ["holds train_metadata.json"]),
        (
            ["Zea m L./1.jpg", "Zea m Mill./1.jpg", "Zea m/1.jpg"],
            ["'Zea m/1.jpg'", "'Zea m L.' or 'Zea m Mill.'"],
        ),
    ],
)
def test_a_folder_that_names_no_species_is_refused(tmp_path, names, words):
    put_sheets(tmp_path, *names)
    with pytest.raises(InputError) as caught:
        md.read_metadata(tmp_path)
    for word in [str(tmp_path), *words]:
        assert word in str(caught.value)


# ---------------------------------------------------------------- summaries


def test_every_form_is_recognised_and_summarised(tables, write_tables, tmp_path):
    train = write_tables(tables)
    metadata = md.read_metadata(train)
    odd = tmp_path / "content_counts.txt"
    odd.write_bytes(train.read_bytes())
    published.write_test_metadata(metadata.images, tmp_path / "test_metadata.json")
    put_sheets(tmp_path / "sheets", "Zea mays/1.jpg", "Abies alba/2.jpg")
    (tmp_path / "mini.tsv").write_text(MINI_HEADER + "".join(MINI))
    forms = {
        train: (md.TRAIN_JSON, 7, 3, 2),
        odd: (md.TRAIN_JSON, 7, 3, 2),
        kept.write_columns(metadata, tmp_path / "m.columns"): (md.COLUMNAR, 7, 3, 2),
        tmp_path / "mini.tsv": (md.MINI_TABLE, 3, 2, 2),
        write_csv(tmp_path, "file_name,scientificName\n1.jpg,Zea mays\n2.jpg,Poa\n"): (md.OWN_TABLE, 2, 2, 0),
        tmp_path / "sheets": (md.SPECIES_FOLDERS, 2, 2, 0),
    }
    for path, expected in forms.items():
        summary = summarize_file(path)
        assert tuple(summary[name] for name in ("form", "images", "species", "institutions")) == expected
        assert json.loads(json.dumps(summary)) == summary
    assert summarize_file(tmp_path / "test_metadata.json") == {
        "form": md.TEST_JSON,
        "images": 7,
        "licenses": 1,
    }
    assert summarize_file(tmp_path / "mini.tsv")["images_without_family"] == 1


def test_family_table_counts_species_and_images(tables, write_tables):
    metadata = md.read_metadata(write_tables(tables))
    expected = {"family": ["Poaceae", "Pinaceae"], "species": [2, 1], "train_images": [5, 2]}
    assert md.family_table(metadata).to_dict("list") == expected
    tested = md.family_table(metadata, test_categories=[0, 3, 3, 2])
    assert tested.to_dict("list") == {**expected, "test_images": [3, 1]}


def test_published_families_add_up_to_the_published_totals():
    assert md.PUBLISHED_FAMILIES[["species", "train_images", "test_images"]].sum().tolist() == [
        7072,
        388_345,
        97_300,
    ]


# ---------------------------------------------------------------- the copy that is kept of a large JSON


@pytest.fixture
def large(tables, write_tables, tmp_path, monkeypatch):
    """A train_metadata.json that counts as large, changed some time ago, with the folder of its copies."""
    monkeypatch.setattr(kept, "KEPT_FROM", 1)
    monkeypatch.setattr(kept, "_SETTLED_NS", 0)
    monkeypatch.setattr(kept, "scratch_dir", lambda: tmp_path / "scratch")
    return write_tables(tables), tmp_path / "scratch" / ".metadata"


def forbid_reading(monkeypatch):
    monkeypatch.setattr(published, "read_train_json", lambda path: pytest.fail(f"{path} was read again"))


def test_a_large_file_is_read_once_and_its_copy_says_the_same(large, monkeypatch):
    path, copies = large
    first = md.read_metadata(path)
    assert len(list(copies.iterdir())) == 1
    forbid_reading(monkeypatch)
    again = md.read_metadata(path)
    for name in md.COLUMNS:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(first, name))


def test_a_copy_of_a_changed_file_is_never_used(large, tables, write_tables):
    path, copies = large
    md.read_metadata(path)
    before = path.stat()
    tables["categories"][0]["scientificName"] = "Zea mayz"  # as long as before
    write_tables(tables)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and made to look as old
    assert path.stat().st_size == before.st_size
    assert md.read_metadata(path).categories["scientificName"][0] == "Zea mayz"
    assert md.read_metadata(path).categories["scientificName"][0] == "Zea mayz"
    assert len(list(copies.iterdir())) == 1, "the old copy is replaced"


def test_the_copy_of_a_removed_file_goes_with_the_next_one(large, tables):
    path, copies = large
    md.read_metadata(path)
    moved = path.rename(path.with_name("moved.json"))
    md.read_metadata(moved)
    (copy,) = copies.iterdir()
    assert json.loads((copy / "source.json").read_text())["path"] == str(moved.resolve())


def test_a_file_that_was_changed_just_now_is_not_kept(large, monkeypatch):
    path, copies = large
    monkeypatch.setattr(kept, "_SETTLED_NS", 10**15)
    md.read_metadata(path)
    assert not copies.exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(large, monkeypatch):
    path, copies = large
    read = published.read_train_json

    def read_and_touch(path):
        metadata = read(path)
        os.utime(path, ns=(0, 0))
        return metadata

    monkeypatch.setattr(published, "read_train_json", read_and_touch)
    md.read_metadata(path)
    assert not copies.exists()


def test_a_damaged_copy_or_none_is_told_and_the_file_itself_read(large, monkeypatch):
    path, copies = large
    expected = md.read_metadata(path)
    (copy,) = copies.iterdir()
    (copy / "images.feather").write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match=r"images\.feather"):
        found = md.read_metadata(path)
    pd.testing.assert_frame_equal(found.images, expected.images)
    pd.testing.assert_frame_equal(md.read_metadata(path).images, expected.images)  # mended

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_columns", full)
    os.utime(path, ns=(0, 0))
    with pytest.warns(UserWarning, match="No copy of .* No space left"):
        found = md.read_metadata(path)
    pd.testing.assert_frame_equal(found.images, expected.images)


def test_a_wrong_file_leaves_no_copy(large, tables, write_tables):
    path, copies = large
    tables["annotations"][0]["category_id"] = 99
    write_tables(tables)
    with pytest.raises(InputError, match="category_id 99"):
        md.read_metadata(path)
    assert not copies.exists()


# ---------------------------------------------------------------- full size

MEASURE = """
import json, resource, sys, time
from pathlib import Path
import pandas as pd
from utils.data.metadata import family_table, read_metadata
begin = time.process_time()
path = Path(sys.argv[1])
metadata = read_metadata(path)
seconds = time.process_time() - begin
ten = family_table(metadata, pd.read_csv(path.parent / "solution.csv")["Predicted"]).head(10)
counts = {name: len(getattr(metadata, name)) for name in ("images", "annotations", "categories", "distances")}
status = Path('/proc/self/status')
if status.is_file():  # ru_maxrss is inherited from the process that starts this one
    peak = 1024 * int(status.read_text().split('VmHWM:')[1].split()[0])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
print(json.dumps({"ten": ten.to_dict("list"), "peak": peak, "seconds": seconds, **counts}))
"""


def measure(path):
    """Read full-size metadata in a process of its own, without any earlier copy where it is new."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path], cwd=REPOSITORY, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_full_size_json_is_read_in_4_gb_and_has_the_published_families(tmp_path, monkeypatch):
    from utils.flora.full_size import make_metadata

    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")  # so that the copy goes to a folder of the test
    monkeypatch.setenv("NAFLORA_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    folder = make_metadata(tmp_path / "full", json=True)
    time.sleep(3)  # a file that was changed just now is not kept
    first = measure(folder / "train_metadata.json")
    again = measure(folder / "train_metadata.json")
    for found in (first, again):
        assert (found["images"], found["annotations"], found["categories"]) == (839_772, 839_772, 15_501)
        assert found["distances"] == 2_564 * 2_563 // 2
        assert found["peak"] < 4 * 2**30
        assert found["ten"] == md.PUBLISHED_FAMILIES.to_dict("list")
    assert len(list((tmp_path / "kaggle" / "tmp" / ".metadata").iterdir())) == 1
    assert again["seconds"] < first["seconds"] / 2


@pytest.mark.long
def test_notebook_01_runs_on_full_size_metadata_in_4_gb(tmp_path):
    script = (
        "import resource, subprocess, sys\n"
        "run = [sys.executable, '-m', 'utils', 'run', '01', '--profile', 'smoke', '--out', sys.argv[1]]\n"
        "code = subprocess.run(run).returncode\n"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "run"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    code, peak = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stdout + done.stderr
    (summary,) = (tmp_path / "run").rglob("long_tail.json")
    assert json.loads(summary.read_text())["images"] == 839_772
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(peak) * unit < 4 * 2**30, "the largest process of the run, which is the notebook's kernel"


def test_only_the_copies_used_last_are_kept(large, monkeypatch):
    path, copies = large
    for number in range(5):
        other = path.with_name(f"other{number}.json")
        other.write_bytes(path.read_bytes())
        md.read_metadata(other)
        md.read_metadata(path)  # used again
    kept_of = {json.loads((copy / "source.json").read_text())["path"] for copy in copies.iterdir()}
    assert len(kept_of) == kept._MOST_COPIES and {str(path.resolve()), str(other.resolve())} <= kept_of


def test_metadata_that_nest_are_refused(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    for name, text in (("a.json", f'{{"images": {deep}}}'), ("b.json", deep)):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            summarize_file(tmp_path / name)
