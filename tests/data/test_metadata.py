import json

import pandas as pd
import pytest

from utils.data import metadata as md
from utils.data.labels import LabelMap
from utils.errors import InputError


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


def drop_table(tables):
    del tables["categories"]


def drop_field(tables):
    for row in tables["images"]:
        del row["file_name"]


def drop_one_field(tables):
    del tables["images"][3]["file_name"]


def text_id(tables):
    tables["annotations"][2]["category_id"] = "x"


def broken_id(tables):
    tables["annotations"][2]["image_id"] = 1.5


def fraction(tables):
    tables["annotations"][2]["category_id"] = 0.5


def repeat_image(tables):
    tables["images"][4]["image_id"] = tables["images"][0]["image_id"]


def repeat_name(tables):
    tables["categories"][2]["scientificName"] = "Zea mays"


def unknown_category(tables):
    tables["annotations"][5]["category_id"] = 1


def unknown_image(tables):
    tables["annotations"][5]["image_id"] = "nowhere"


def unknown_genus(tables):
    tables["annotations"][5]["genus_id"] = 61


def not_rows(tables):
    tables["images"] = {"0": {}}


def not_objects(tables):
    tables["images"][1] = ["00000__001"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_table, ["no table 'categories'", "annotations, images"]),
        (drop_field, ["table 'images'", "no field 'file_name'"]),
        (drop_one_field, ["table 'images'", "row 3", "'file_name'"]),
        (text_id, ["table 'annotations'", "row 2", "category_id is 'x'", "integer"]),
        (broken_id, ["table 'annotations'", "row 2", "image_id is 1.5"]),
        (fraction, ["table 'annotations'", "row 2", "category_id is 0.5"]),
        (repeat_image, ["table 'images'", "row 4", "'00000__000' occurs twice"]),
        (repeat_name, ["table 'categories'", "row 2", "'Zea mays' occurs twice"]),
        (unknown_category, ["table 'annotations'", "row 5", "category_id 1", "'categories'"]),
        (unknown_image, ["table 'annotations'", "row 5", "'nowhere'", "'images'"]),
        (unknown_genus, ["table 'annotations'", "row 5", "genus_id 61", "'genera'"]),
        (not_rows, ["table 'images'", "must be a list"]),
        (not_objects, ["table 'images'", "row 1", "must be an object"]),
    ],
)
def test_errors_name_file_table_row_and_field(tables, write_tables, change, words):
    change(tables)
    path = write_tables(tables)
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("content", [[], "text", 5])
def test_json_that_is_no_object_of_tables_is_refused(write_tables, content):
    with pytest.raises(InputError, match=r"train_metadata\.json"):
        md.read_metadata(write_tables(content))


def test_unknown_paths_and_formats_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path / "absent.json", tmp_path / "notes.txt", tmp_path):
        with pytest.raises(InputError) as caught:
            md.read_metadata(path)
        assert str(path) in str(caught.value)


def test_tables_survive_json_and_columns(tables, write_tables, tmp_path):
    metadata = md.read_metadata(write_tables(tables))
    md.write_metadata(metadata, tmp_path / "again.json")
    md.write_columns(metadata, tmp_path / "again.columns")
    md.write_columns(metadata, tmp_path / "again.columns")  # replaces the first
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
        md.write_columns(metadata, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_a_columnar_folder_without_a_table_or_column_is_refused(tables, write_tables, tmp_path):
    metadata = md.read_metadata(write_tables(tables))
    folder = md.write_columns(metadata, tmp_path / "m.columns")
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
    md.write_test_metadata(images, tmp_path / "test_metadata.json")
    assert json.loads((tmp_path / "test_metadata.json").read_text()) == rows
    assert md.read_test_metadata(tmp_path / "test_metadata.json")["image_id"].tolist() == ["5", "7"]
    (tmp_path / "test_metadata.json").write_text(json.dumps([*rows, rows[0]]))
    with pytest.raises(InputError, match=r"row 2.*occurs twice"):
        md.read_test_metadata(tmp_path / "test_metadata.json")
    (tmp_path / "test_metadata.json").write_text('{"images": []}')
    with pytest.raises(InputError, match="must be a list"):
        md.read_test_metadata(tmp_path / "test_metadata.json")


HEADER = "image_id,file_name,scientificName,genus,species,family\n"


def write_csv(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_own_sheets_get_ids_in_sorted_order_and_fill_gaps(tmp_path):
    path = write_csv(
        tmp_path,
        HEADER + "a,a.jpg,Zea mays L.,,,\nb,b.jpg,Abies alba Mill.,Abies,alba,Pinaceae\n"
        "c,c.jpg,Zea mays L.,Zea,mays,Poaceae\nd,d.jpg,Polyscias,,,\n",
    )
    metadata = md.read_metadata(path)
    categories = metadata.categories
    assert list(categories) == list(md.COLUMNS["categories"])
    assert categories["category_id"].tolist() == [0, 1, 2]
    assert categories["scientificName"].tolist() == ["Abies alba Mill.", "Polyscias", "Zea mays L."]
    assert categories["genus"].tolist() == ["Abies", "Polyscias", "Zea"]
    assert categories["species"].tolist() == ["alba", "", "mays"]
    assert categories["family"].tolist() == ["Pinaceae", "unknown", "Poaceae"]
    assert metadata.genera["genus"].tolist() == ["Abies", "Polyscias", "Zea"]
    assert metadata.annotations["category_id"].tolist() == [2, 0, 2, 1]
    assert metadata.annotations["genus_id"].tolist() == [2, 0, 2, 1]
    assert LabelMap.from_metadata(metadata).category_ids.tolist() == [0, 1, 2]


def test_the_three_needed_columns_are_enough_in_any_order_with_a_byte_order_mark(tmp_path):
    path = write_csv(tmp_path, "\ufeffscientificName, image_id ,file_name\nZea mays , 007 ,x/y.jpg\n")
    metadata = md.read_metadata(path)
    assert metadata.images.to_dict("records") == [{"image_id": "007", "file_name": "x/y.jpg", "license": 0}]
    assert metadata.categories["scientificName"].tolist() == ["Zea mays"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["not a readable CSV"]),
        (HEADER, ["no rows"]),
        ("image_id,scientificName\na,b\n", ["no column 'file_name'", "image_id, scientificName"]),
        (HEADER + "a,a.jpg,Zea,,,\n,b.jpg,Zea,,,\n", ["line 3", "image_id is empty"]),
        (HEADER + "a,a.jpg,Zea,,,\nb,b.jpg,,,,\n", ["line 3", "scientificName is empty"]),
        (HEADER + "a,a.jpg,Zea,,,\na,b.jpg,Zea,,,\n", ["line 3", "'a' occurs twice"]),
        (
            HEADER + "a,a.jpg,Zea m,,,Poaceae\nb,b.jpg,Zea m,,,\nc,c.jpg,Zea m,,,Pinaceae\n",
            ["line 4", "'Pinaceae'", "'Poaceae'"],
        ),
        (HEADER + 'a,"a.jpg,Zea', ["not a readable CSV"]),
    ],
)
def test_errors_in_a_csv_name_file_and_line(tmp_path, text, words):
    path = write_csv(tmp_path, text)
    with pytest.raises(InputError) as caught:
        md.read_metadata(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_csv_in_another_encoding_is_refused_by_name(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes((HEADER + "a,a.jpg,Zea ×,,,\n").encode("utf-16"))
    with pytest.raises(InputError, match=r"labels\.csv: not UTF-8"):
        md.read_metadata(path)


def test_family_table_counts_species_and_images(tables, write_tables):
    table = md.family_table(md.read_metadata(write_tables(tables)))
    assert table.to_dict("list") == {
        "family": ["Poaceae", "Pinaceae"],
        "species": [2, 1],
        "train_images": [5, 2],
    }


def test_published_families_add_up_to_the_published_totals():
    assert md.PUBLISHED_FAMILIES[["species", "train_images", "test_images"]].sum().tolist() == [
        7072,
        388_345,
        97_300,
    ]
