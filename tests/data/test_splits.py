import numpy as np
import pytest

from utils.data import splits
from utils.files import InputError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV"),
        ("image_id,part\na,train\n", "no column 'split'; found image_id, part"),
        ("image_id,split\na,train\na,test\n", "line 3: image_id 'a' occurs twice"),
        ("image_id,split\na,train\n,test\n", "line 3: image_id '' is empty"),
        ("image_id,split\na,train\nb\0\0,test\n", "line 3 is not text (it has a NUL byte)"),
        ("image_id,split\na,training\n", "line 2: split 'training' is not one of train, validation, test"),
    ],
)
def test_a_wrong_split_file_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(InputError) as error:
        splits.read_split(tmp_path / "split.csv")
    assert str(tmp_path / "split.csv") in str(error.value) and message in str(error.value)


def test_coverage_says_what_a_score_can_say():
    classes, parts = [0, 0, 1, 1, 2, 3], np.array(["train", "validation"] * 2 + ["train", "test"])
    said = splits.coverage(classes, parts, 4)
    assert said.startswith("validation covers 2 of 4 species with 2 images; macro-F1 there is over all 4")
    assert said.endswith("0.500 is perfect")
    assert splits.coverage(classes, parts, 4, "test") == (
        "test covers 1 of 4 species with 1 image: too few for a score, so none is given"
    )
    assert splits.coverage([0, 1], np.array(["validation"] * 2), 2) == (
        "validation covers 2 of 2 species with 2 images"
    )
    assert "covers 0 of 3 species" in splits.coverage([0, 1, 2], np.array(["train"] * 3), 3)


def test_a_split_file_in_another_form_is_read(tmp_path):
    (tmp_path / "split.csv").write_text(
        "\ufeffsep=;\r\nsplit;image_id\r\ntrain;NA\r\ntest;007\r\n", encoding="utf-8"
    )
    assert splits.parts_of(["007", "NA"], tmp_path / "split.csv").tolist() == ["test", "train"]
