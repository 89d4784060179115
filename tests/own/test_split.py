import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.data import splits
from utils.files import InputError, UsageError
from utils.own.split import assign, report, write_split

rng = np.random.default_rng(0)
CLASSES = np.repeat(np.arange(40), rng.integers(1, 30, 40))
IDS = np.array([f"sheet{number:04d}" for number in range(len(CLASSES))])
GROUPS = np.array([f"collector{number}" for number in rng.integers(0, 60, len(CLASSES))])


def counts(parts: np.ndarray, part: str) -> np.ndarray:
    return np.bincount(CLASSES[parts == part], minlength=40)


def test_three_parts_have_their_shares_and_every_species_stays_in_train():
    parts = assign(IDS, CLASSES, validation=0.1, test=0.2, seed=3)
    shares = {part: (parts == part).mean() for part in splits.PARTS}
    assert shares["test"] == pytest.approx(0.2, abs=0.02)
    assert shares["validation"] == pytest.approx(0.1, abs=0.02)
    assert (counts(parts, "train") > 0).all()
    several = np.bincount(CLASSES) >= 3
    assert (counts(parts, "test")[several] > 0).all() and (counts(parts, "validation")[several] > 0).all()


def test_no_fraction_means_no_such_part():
    parts = assign(IDS, CLASSES, validation=0.0, test=0.0)
    assert set(parts) == {"train"}


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_parts_depend_on_seed_and_ids_not_on_the_order(groups):
    shuffled = np.random.default_rng(1).permutation(len(IDS))
    options = {"validation": 0.1, "test": 0.2}
    first = assign(IDS, CLASSES, seed=5, groups=groups, **options)
    again = assign(
        IDS[shuffled],
        CLASSES[shuffled],
        seed=5,
        groups=None if groups is None else groups[shuffled],
        **options,
    )
    other = assign(IDS, CLASSES, seed=6, groups=groups, **options)
    assert (again == first[shuffled]).all() and (other != first).any()


def test_groups_do_not_straddle_and_no_species_leaves_train():
    parts = assign(IDS, CLASSES, validation=0.15, test=0.15, seed=1, groups=GROUPS)
    table = pd.DataFrame({"group": GROUPS, "part": parts})
    assert (table.groupby("group")["part"].nunique() == 1).all()
    assert (counts(parts, "train") > 0).all()
    for part in ("validation", "test"):
        assert 0.1 < (parts == part).mean() < 0.18


def test_an_empty_group_is_a_group_of_its_own():
    groups = np.full(len(IDS), "")
    parts = assign(IDS, CLASSES, validation=0.2, seed=0, groups=groups)
    assert (parts == "validation").mean() == pytest.approx(0.2, abs=0.02)


def test_a_group_with_the_only_sheet_of_a_species_stays_in_train():
    classes, groups = [0, 0, 0, 0, 1], ["a", "a", "b", "b", "b"]
    for seed in range(8):
        parts = assign(list("vwxyz"), classes, validation=0.4, seed=seed, groups=groups)
        assert parts.tolist() == ["validation", "validation", "train", "train", "train"]


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0), (1, 0), (0, 1.5), (0.5, 0.5), (float("nan"), 0)])
def test_impossible_fractions_are_refused(validation, test):
    with pytest.raises(UsageError, match="fraction"):
        assign(IDS, CLASSES, validation=validation, test=test)


def test_a_split_file_comes_back(tmp_path):
    parts = assign(IDS, CLASSES, validation=0.1, test=0.2)
    path = write_split(IDS, parts, tmp_path / "split.csv")
    assert path.read_text().startswith("image_id,split\nsheet0000,")
    assert (splits.parts_of(IDS[::-1], path) == parts[::-1]).all()
    with pytest.raises(InputError, match=r"split\.csv: image 'new' is not in it \(1 of 2 images\)"):
        splits.parts_of(["sheet0001", "new"], path)


def test_the_report_counts_species_and_single_sheets():
    parts = np.array(["train", "train", "train", "validation", "validation", "validation"])
    table = report([0, 0, 1, 0, 1, 1], parts)
    assert table.to_dict("records") == [
        {"part": "train", "images": 3, "species": 2, "single": 1},
        {"part": "validation", "images": 3, "species": 2, "single": 1},
    ]


def test_species_with_one_sheet_stay_in_train_however_many_there_are():
    classes = np.array([*range(45), *np.repeat(np.arange(45, 58), 4)])  # as in a messy collection
    ids = [f"{number:03d}" for number in range(len(classes))]
    for groups in (None, [f"collector{number % 7}" for number in range(len(classes))]):
        for seed in range(5):
            parts = assign(ids, classes, validation=0.1, test=0.1, seed=seed, groups=groups)
            assert (parts[:45] == "train").all()
            assert len(np.unique(classes[parts == "train"])) == 58
            if groups is None:
                assert (np.bincount(classes[parts == "validation"], minlength=58)[45:] == 1).all()
                assert (np.bincount(classes[parts == "test"], minlength=58)[45:] == 1).all()


def test_each_species_gives_its_share():
    classes = np.repeat(np.arange(30), 40)
    ids = [f"{number:04d}" for number in range(len(classes))]
    parts = assign(ids, classes, validation=0.1, test=0.2, seed=0)
    for part, each in (("validation", 4), ("test", 8), ("train", 28)):
        assert (np.bincount(classes[parts == part]) == each).all()


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
    assert f"{len(IDS):,} images" in shown.output
    for part in ("validation covers", "test covers"):
        assert part in shown.output
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


def test_a_place_that_cannot_be_written_is_told_before_the_table_is_read(tmp_path):
    (tmp_path / "labels.csv").write_text("no table")
    shown = split(tmp_path / "labels.csv", "--out", tmp_path / "labels.csv" / "split.csv")
    assert shown.exit_code == 1 and "cannot be written" in shown.output


def test_the_command_says_when_a_part_gives_no_score(tmp_path):
    lines = [f"{number},{number}.jpg,Species s{number}" for number in range(20)]
    lines.append("20,20.jpg,Species s0")
    (tmp_path / "labels.csv").write_text("\n".join(["image_id,file_name,scientificName", *lines]) + "\n")
    shown = split(tmp_path / "labels.csv", "--out", tmp_path / "split.csv")
    assert shown.exit_code == 0, shown.output
    assert "validation covers 1 of 20 species with 1 image: too few for a score" in shown.output
    assert (splits.read_split(tmp_path / "split.csv")["split"] == "validation").sum() == 1


def test_published_metadata_are_grouped_by_institution(write_tables, tables, tmp_path):
    shown = split(
        write_tables(tables),
        "--group",
        "institution_id",
        "--validation",
        0.4,
        "--out",
        tmp_path / "split.csv",
    )
    assert shown.exit_code == 0, shown.output
    rows = tables["annotations"]
    parts = splits.parts_of(
        pd.Series([row["image_id"] for row in rows], index=range(5, 12)), tmp_path / "split.csv"
    )
    table = pd.DataFrame({"institution": [row["institution_id"] for row in rows], "part": parts})
    assert (table.groupby("institution")["part"].nunique() == 1).all() and table["part"].nunique() == 2


# fmt: off
GROUPED = {  # what is in the file beside the collector; sheets 0 to 11 of two species and four collectors
    "without image_id": ("t.csv", "file_name,scientificName,collector", "{0}.jpg,{1},{2}"),
    "another suffix": ("t.txt", "image_id,file_name,scientificName,collector", "{0},{0}.jpg,{1},{2}"),
    "spaces": ("t.csv", "image_id , file_name, scientificName, collector", "{0}, {0}.jpg, {1}, {2}"),
    "sep= and semicolons": ("t.csv", "sep=;\nfile_name;scientificName;collector", "{0}.jpg;{1};{2}"),
    "tabs with quotes": ("t.tsv", "file_name\tscientificName\tcollector\tplace", '{0}.jpg\t{1}\t{2}\t"El Sol" rancho'),
    "a column of the published name": ("t.csv", "file_name,scientificName,genus_id,collector", "{0}.jpg,{1},0,{2}"),
}
# fmt: on


@pytest.mark.parametrize("case", GROUPED)
def test_sheets_are_grouped_by_any_column_of_any_table(tmp_path, case):
    name, header, row = GROUPED[case]
    collectors = ["NA", "Bob Jones", "007", "None"]
    lines = [
        row.format(number, ("Zea mays L.", "Abies alba Mill.")[number % 2], collectors[number // 3])
        for number in range(12)
    ]
    (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
    shown = split(
        tmp_path / name, "--group", "collector", "--validation", 0.25, "--out", tmp_path / "split.csv"
    )
    assert shown.exit_code == 0, shown.output
    parts = splits.read_split(tmp_path / "split.csv")
    assert len(parts) == 12
    numbers = parts["image_id"].str.removesuffix(".jpg").astype(int)
    assert (parts.groupby(numbers // 3)["split"].nunique() == 1).all()
    assert (parts["split"] == "validation").sum() == 3


def test_own_sheets_are_not_grouped_by_what_their_table_does_not_have(collection, tmp_path):
    shown = split(collection, "--group", "institution_id", "--out", tmp_path / "split.csv")
    assert shown.exit_code == 1
    assert (
        "no column 'institution_id' to group by; found file_name, scientificName, collector" in shown.output
    )
