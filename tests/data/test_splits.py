import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.data import splits
from utils.errors import InputError, UsageError

rng = np.random.default_rng(0)
CLASSES = np.repeat(np.arange(40), rng.integers(1, 30, 40))
IDS = np.array([f"sheet{number:04d}" for number in range(len(CLASSES))])
GROUPS = np.array([f"collector{number}" for number in rng.integers(0, 60, len(CLASSES))])


def counts(parts: np.ndarray, part: str) -> np.ndarray:
    return np.bincount(CLASSES[parts == part], minlength=40)


def test_three_parts_have_their_shares_and_every_species_stays_in_train():
    parts = splits.assign(IDS, CLASSES, validation=0.1, test=0.2, seed=3)
    shares = {part: (parts == part).mean() for part in splits.PARTS}
    assert shares["test"] == pytest.approx(0.2, abs=0.02)
    assert shares["validation"] == pytest.approx(0.1, abs=0.02)
    assert (counts(parts, "train") > 0).all()
    several = np.bincount(CLASSES) >= 3
    assert (counts(parts, "test")[several] > 0).all() and (counts(parts, "validation")[several] > 0).all()


def test_no_fraction_means_no_such_part():
    parts = splits.assign(IDS, CLASSES, validation=0.0, test=0.0)
    assert set(parts) == {"train"}


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_parts_depend_on_seed_and_ids_not_on_the_order(groups):
    shuffled = np.random.default_rng(1).permutation(len(IDS))
    options = {"validation": 0.1, "test": 0.2}
    first = splits.assign(IDS, CLASSES, seed=5, groups=groups, **options)
    again = splits.assign(
        IDS[shuffled],
        CLASSES[shuffled],
        seed=5,
        groups=None if groups is None else groups[shuffled],
        **options,
    )
    other = splits.assign(IDS, CLASSES, seed=6, groups=groups, **options)
    assert (again == first[shuffled]).all() and (other != first).any()


def test_groups_do_not_straddle_and_no_species_leaves_train():
    parts = splits.assign(IDS, CLASSES, validation=0.15, test=0.15, seed=1, groups=GROUPS)
    table = pd.DataFrame({"group": GROUPS, "part": parts})
    assert (table.groupby("group")["part"].nunique() == 1).all()
    assert (counts(parts, "train") > 0).all()
    for part in ("validation", "test"):
        assert 0.1 < (parts == part).mean() < 0.18


def test_an_empty_group_is_a_group_of_its_own():
    groups = np.full(len(IDS), "")
    parts = splits.assign(IDS, CLASSES, validation=0.2, seed=0, groups=groups)
    assert (parts == "validation").mean() == pytest.approx(0.2, abs=0.02)


def test_a_group_with_the_only_sheet_of_a_species_stays_in_train():
    classes, groups = [0, 0, 0, 0, 1], ["a", "a", "b", "b", "b"]
    for seed in range(8):
        parts = splits.assign(list("vwxyz"), classes, validation=0.4, seed=seed, groups=groups)
        assert parts.tolist() == ["validation", "validation", "train", "train", "train"]


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0), (1, 0), (0, 1.5), (0.5, 0.5), (float("nan"), 0)])
def test_impossible_fractions_are_refused(validation, test):
    with pytest.raises(UsageError, match="fraction"):
        splits.assign(IDS, CLASSES, validation=validation, test=test)


def test_a_split_file_comes_back(tmp_path):
    parts = splits.assign(IDS, CLASSES, validation=0.1, test=0.2)
    path = splits.write_split(IDS, parts, tmp_path / "split.csv")
    assert path.read_text().startswith("image_id,split\nsheet0000,")
    assert (splits.parts_of(IDS[::-1], path) == parts[::-1]).all()
    with pytest.raises(InputError, match=r"split\.csv: image 'new' is not in it \(1 of 2 images\)"):
        splits.parts_of(["sheet0001", "new"], path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV"),
        ("image_id,part\na,train\n", "no column 'split'; found image_id, part"),
        ("image_id,split\na,train\na,test\n", "line 3: image_id 'a' occurs twice"),
        ("image_id,split\na,train\n,test\n", "line 3: image_id '' is empty"),
        ("image_id,split\na,training\n", "line 2: split 'training' is not one of train, validation, test"),
    ],
)
def test_a_wrong_split_file_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(InputError) as error:
        splits.read_split(tmp_path / "split.csv")
    assert str(tmp_path / "split.csv") in str(error.value) and message in str(error.value)


def test_the_report_counts_species_and_single_sheets():
    parts = np.array(["train", "train", "train", "validation", "validation", "validation"])
    table = splits.report([0, 0, 1, 0, 1, 1], parts)
    assert table.to_dict("records") == [
        {"part": "train", "images": 3, "species": 2, "single": 1},
        {"part": "validation", "images": 3, "species": 2, "single": 1},
    ]


@pytest.fixture
def collection(tmp_path):
    """A CSV of own sheets with a column of collectors."""
    table = pd.DataFrame({"image_id": IDS, "file_name": IDS, "scientificName": CLASSES, "collector": GROUPS})
    table["scientificName"] = "Species s" + table["scientificName"].astype(str)
    table.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path / "labels.csv"


def split(*arguments: object):
    return CliRunner().invoke(main, ["split", *map(str, arguments)])


def test_the_command_keeps_collectors_together(collection, tmp_path):
    shown = split(collection, "--test", 0.2, "--group", "collector", "--out", tmp_path / "split.csv")
    assert shown.exit_code == 0, shown.output
    assert "validation" in shown.output and f"{len(IDS):,} images" in shown.output
    parts = splits.parts_of(IDS, tmp_path / "split.csv")
    assert (pd.DataFrame({"group": GROUPS, "part": parts}).groupby("group")["part"].nunique() == 1).all()
    assert set(parts) == set(splits.PARTS)


def test_the_command_names_the_columns_it_could_group_by(collection, tmp_path):
    shown = split(collection, "--group", "colector", "--out", tmp_path / "split.csv")
    assert shown.exit_code == 1 and "labels.csv: no column 'colector'" in shown.output
    assert "collector" in shown.output and not (tmp_path / "split.csv").exists()


def test_the_command_refuses_impossible_fractions(collection, tmp_path):
    shown = split(collection, "--test", 0.6, "--validation", 0.4, "--out", tmp_path / "split.csv")
    assert shown.exit_code == 2 and "nothing to train on" in shown.output
