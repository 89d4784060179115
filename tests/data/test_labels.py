import json

import numpy as np
import pytest

from utils.data.forms.names import match
from utils.data.labels import LabelMap, genus_distance_matrix
from utils.data.metadata import read_metadata
from utils.files import InputError


@pytest.fixture
def metadata(tables, write_tables):
    return read_metadata(write_tables(tables))


def test_class_index_is_the_position_in_the_sorted_names(metadata):
    labels = LabelMap.from_metadata(metadata)
    assert labels.names.tolist() == ["Abies alba", "Zea diploperennis", "Zea mays"]
    assert labels.category_ids.tolist() == [2, 3, 0]
    assert labels.genera.tolist() == ["Abies", "Zea", "Zea"]
    assert labels.genus_index.tolist() == [0, 1, 1]
    assert labels.family_names.tolist() == ["Pinaceae", "Poaceae"]
    assert labels.family_index.tolist() == [0, 1, 1]
    assert labels.n_classes == 3


def test_names_sort_by_code_point_as_python_sorts_them(tables, write_tables):
    names = ["zea", "Zea mays", "Éclair", "Zea × mays", "Zea"]
    tables["categories"] = [
        {**tables["categories"][0], "category_id": number, "scientificName": name}
        for number, name in enumerate(names)
    ]
    tables["annotations"], tables["images"] = [], []
    labels = LabelMap.from_metadata(read_metadata(write_tables(tables)))
    assert labels.names.tolist() == sorted(names)


def test_category_ids_go_to_class_indices_and_back_across_the_gap(metadata):
    labels = LabelMap.from_metadata(metadata)
    assert labels.to_class([0, 3, 2, 0]).tolist() == [2, 1, 0, 2]
    assert labels.to_category([2, 1, 0]).tolist() == [0, 3, 2]
    assert labels.to_class(np.array([], dtype=int)).tolist() == []


def test_a_category_id_in_the_gap_or_beyond_is_named(metadata):
    labels = LabelMap.from_metadata(metadata)
    for unknown in (1, 99, -1):
        with pytest.raises(InputError, match=f"category_id {unknown} "):
            labels.to_class([0, unknown])
    for unknown in (3, -1):
        with pytest.raises(InputError, match=f"class index {unknown} "):
            labels.to_category([0, unknown])


def test_labels_survive_saving(metadata, tmp_path):
    labels = LabelMap.from_metadata(metadata)
    labels.save(tmp_path / "labels.json")
    loaded = LabelMap.load(tmp_path / "labels.json")
    for name in ("names", "category_ids", "genera", "families"):
        assert getattr(loaded, name).tolist() == getattr(labels, name).tolist()
        assert getattr(loaded, name).dtype == getattr(labels, name).dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("genus"), "'genus'"),
        (lambda content: content["genus"].pop(), r"differ in length .*'genus' has 2, 'family' has 3"),
        (lambda content: content["scientificName"].reverse(), "not sorted and unique: row 1 is '"),
        (
            lambda content: content["category_id"].__setitem__(1, "x"),
            "row 1 of 'category_id' is 'x', must be int",
        ),
        (lambda content: content["category_id"].__setitem__(2, 2**63), "row 2 of 'category_id' is 9223"),
        (lambda content: content["family"].__setitem__(0, None), "row 0 of 'family' is None, must be str"),
        (lambda content: content["scientificName"].__setitem__(2, "Zea\0"), "row 2 of 'scientificName'"),
    ],
)
def test_a_damaged_labels_file_is_refused_by_name(metadata, tmp_path, change, message):
    path = tmp_path / "labels.json"
    LabelMap.from_metadata(metadata).save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        LabelMap.load(path)
    assert str(path) in str(caught.value)


def test_two_categories_of_one_name_are_refused(metadata):
    metadata.categories.loc[0, "scientificName"] = "Abies alba"
    with pytest.raises(InputError, match="'Abies alba' occurs twice"):
        LabelMap.from_metadata(metadata)


def test_genus_distances_are_symmetric_and_unknown_where_not_given(tables, write_tables):
    tables["genera"].append({"genus_id": 63, "genus": "Quercus"})
    tables["categories"].append(
        {**tables["categories"][0], "category_id": 9, "scientificName": "Quercus alba", "genus": "Quercus"}
    )
    tables["genera"].append({"genus_id": 64, "genus": "Acer"})  # a genus of no category
    tables["distances"].append({"genus_id_x": 60, "genus_id_y": 64, "distance": 1.0})
    metadata = read_metadata(write_tables(tables))
    matrix = genus_distance_matrix(metadata, LabelMap.from_metadata(metadata))
    nan = np.nan
    np.testing.assert_array_equal(matrix, [[0, nan, 250.5], [nan, 0, nan], [250.5, nan, 0]])
    assert matrix.dtype == np.float32


def labels_of(tables, write_tables, names):
    tables["categories"] = [
        {**tables["categories"][0], "category_id": number, "scientificName": name}
        for number, name in enumerate(names)
    ]
    tables["annotations"], tables["images"] = [], []
    return LabelMap.from_metadata(read_metadata(write_tables(tables)))


def test_names_match_with_and_without_authors(tables, write_tables):
    labels = labels_of(
        tables, write_tables, ["Abies alba", "Mentha ×piperita L.", "Polyscias", "Zea mays L."]
    )
    wanted = ["Zea mays", "Zea  mays L.", "Abies alba Mill.", "Abies alba", "Mentha x piperita", "Polyscias"]
    assert match(wanted, labels.names).tolist() == [3, 3, 0, 0, 1, 2]
    unknown = ["Abies", "Zea", "Polyscias fruticosa", "Zea mays subsp. mays", "zea mays", ""]
    assert match(unknown, labels.names).tolist() == [-1] * 6


def test_names_match_in_another_spelling_and_not_with_other_authors(tables, write_tables):
    labels = labels_of(tables, write_tables, ["Carex", "Croton albus Müll.Arg.", "Poa annua", "Zea mays L."])
    wanted = ["Croton albus Müll. Arg.", "Croton_albus", "Zea\u200b mays", "Poa annua L.", "Zea mays L"]
    assert match(wanted, labels.names).tolist() == [1, 1, 3, 2, 3]
    others = [
        "Zea mays Mill.",
        "Zea mays auct. non L.",
        "Carex Haenseleri",
        "Carex sp.",
        "Poa annua 'Red'",
        "NA",
    ]
    assert match(others, labels.names).tolist() == [-1] * 6


def test_a_name_that_may_be_several_classes_matches_only_as_written(tables, write_tables):
    labels = labels_of(tables, write_tables, ["Poa annua", "Poa annua Bosc", "Zea mays L.", "Zea mays Mill."])
    assert match(["Zea mays L.", "Zea mays Mill.", "Poa annua", "Poa annua Bosc"], labels.names).tolist() == [
        2,
        3,
        0,
        1,
    ]
    assert match(["Zea mays", "Zea mays Vahl", "Poa annua L."], labels.names).tolist() == [-1, -1, -1]


def test_matches_have_the_shape_of_the_names(metadata):
    labels = LabelMap.from_metadata(metadata)
    found = match(np.array([["Zea mays", "Poa"], ["Abies alba", "Zea mays"]]), labels.names)
    assert found.tolist() == [[2, -1], [0, 2]] and found.dtype == np.int64
    assert match([], labels.names).shape == (0,)
    assert (match(labels.names, labels.names) == np.arange(3)).all()
