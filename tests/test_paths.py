"""Data are found by marker files, here and in both of Kaggle's mount layouts."""

from pathlib import Path

import pytest

from utils.config import load_profile
from utils.errors import InputError
from utils.paths import find_data, output_dir

TRAIN = "h22_res480by480_train00_3.tfrec"
TEST = "h22_res480by480_test00_2.tfrec"


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def kaggle(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("NAFLORA_KAGGLE_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("competition", "train", "test"),
    [
        ("herbarium-2022-fgvc9", "herbarium-2022-train-tfrec-480", "herbarium-2022-test-tfrec-480"),
        (
            "competitions/herbarium-2022-fgvc9",
            "datasets/parkjohnychae/herbarium-2022-train-tfrec-480",
            "datasets/parkjohnychae/herbarium-2022-test-tfrec-480",
        ),
    ],
)
def test_both_mount_layouts(kaggle, competition, train, test):
    put(kaggle / "input" / competition, "train_metadata.json", "test_metadata.json")
    put(kaggle / "input" / competition / "train_images" / "000", "train_metadata.json")  # not walked
    put(kaggle / "input" / train, TRAIN)
    put(kaggle / "input" / test, TEST)
    data = find_data(load_profile("kaggle"))
    assert data.train_metadata == kaggle / "input" / competition / "train_metadata.json"
    assert [path.name for path in data.train_shards + data.test_shards] == [TRAIN, TEST]
    assert data.solution is None and data.kind == "folder"
    assert output_dir() == kaggle / "working"


def test_nothing_attached_lists_what_was_seen_and_the_way_out(kaggle):
    put(kaggle / "input" / "other-data", "readme.txt")
    with pytest.raises(InputError, match=r"no training shards.*other-data.*data_links\.md.*laptop"):
        find_data(load_profile("kaggle"))


def test_shards_in_two_folders_are_not_guessed_at(tmp_path):
    put(tmp_path / "a", TRAIN)
    put(tmp_path / "b", TRAIN)
    with pytest.raises(InputError, match="several folders"):
        find_data(load_profile("laptop"), tmp_path)


def test_a_given_folder_is_searched_whatever_the_profile(tmp_path):
    put(tmp_path / "mine", TRAIN, "labels.json")
    data = find_data(load_profile("smoke"), tmp_path)
    assert data.label_file == tmp_path / "mine" / "labels.json"
    assert data.test_shards == () and data.train_metadata is None
    with pytest.raises(InputError, match="no train_metadata"):
        data.metadata()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        find_data(load_profile("laptop"), tmp_path / "absent")


def test_training_table_reads_shards_when_metadata_list_other_images(sample_flora):
    data = find_data(load_profile("smoke"), sample_flora)
    whole = data.training_table()
    part = type(data)(**{**vars(data), "train_shards": ()})
    assert len(whole) == len(data.metadata().annotations)
    assert len(part.training_table()) == 0
    from_shards = type(data)(**{**vars(data), "train_metadata": None}).training_table()
    merged = whole.merge(from_shards, on="image_id", suffixes=("", "_shards"))
    assert len(merged) == len(whole)
    assert (merged["class_index"] == merged["class_index_shards"]).all()
