"""Data are found by marker files, here and in both of Kaggle's mount layouts."""

import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from utils.config import load_profile
from utils.data.forms.published import write_metadata
from utils.data.labels import LabelMap
from utils.data.metadata import read_metadata
from utils.data.records import read_labels
from utils.files import InputError, UsageError, output_dir, read_json, write_json
from utils.flora.of_profile import first_sheets
from utils.own import verify
from utils.own.shards import Record, write_shards
from utils.sources import find_data, require
from utils.training.runs import find_run, take_up_run

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
    with pytest.raises(InputError, match=r"no training shards.*tfrec-480.*other-data.*laptop"):
        find_data(load_profile("kaggle"))


def test_shards_in_two_folders_are_not_guessed_at(tmp_path):
    put(tmp_path / "a", TRAIN)
    put(tmp_path / "b", TRAIN)
    with pytest.raises(InputError, match="several folders"):
        find_data(load_profile("laptop"), tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("h22_res480by480_train00_1000.tfrec", "train"),
        ("h22_miniv1_res512by512_val03_17.tfrec", "val"),
        ("my_train_test_res480by480_test00_5.tfrec", "test"),  # the last word counts
        ("training_res480by480_train00_5.tfrec", "train"),
        ("own_validation.tfrec", "val"),
        ("own_test_000_5.tfrec", "test"),
        ("own_trainer00_5.tfrec", None),
        ("own_res480by480_train00_5.tfrec.part", None),
    ],
)
def test_shards_are_told_apart_by_their_names_whatever_the_prefix(tmp_path, name, split):
    put(tmp_path, "a_res32by32_train00_1.tfrec", name)
    data = find_data(load_profile("laptop"), tmp_path)
    by_split = {"test": data.test_shards, "val": data.val_shards}
    by_split["train"] = tuple(shard for shard in data.train_shards if shard not in data.val_shards)
    for each, shards in by_split.items():
        assert (name in [shard.name for shard in shards]) == (each == split)


def test_naflora_mini_has_its_table_and_validation_shards(tmp_path):
    put(tmp_path / "NAFlora-mini", "h22_miniv1_train.tsv", "h22_miniv1_val.tsv", "h22_miniv1_test.tsv")
    put(tmp_path / "tfrec", "mini_res512by512_train00_3.tfrec", "mini_res512by512_test00_2.tfrec")
    put(tmp_path / "val", "mini_res512by512_val00_2.tfrec")
    data = find_data(load_profile("laptop"), tmp_path)
    assert data.train_metadata == tmp_path / "NAFlora-mini" / "h22_miniv1_train.tsv"
    assert [shard.name for shard in data.val_shards] == ["mini_res512by512_val00_2.tfrec"]
    assert data.train_shards[-1:] == data.val_shards and len(data.train_shards) == 2
    put(tmp_path, "train_metadata.json")  # the published form comes first
    assert find_data(load_profile("laptop"), tmp_path).train_metadata == tmp_path / "train_metadata.json"
    put(tmp_path, "train.csv", "train_metadata.csv")
    (tmp_path / "train_metadata.json").unlink()
    with pytest.raises(InputError, match=r"several .*train\.csv, .*h22_miniv1_train\.tsv"):
        find_data(load_profile("laptop"), tmp_path)


def test_the_split_file_is_that_beside_the_shards_or_the_only_one(tmp_path):
    put(tmp_path / "shards", TRAIN)
    put(tmp_path / "splits", "split.csv")
    assert find_data(load_profile("laptop"), tmp_path).split_file == tmp_path / "splits" / "split.csv"
    put(tmp_path / "others", "split.csv")
    with pytest.raises(InputError, match=r"several split\.csv"):
        find_data(load_profile("laptop"), tmp_path)
    put(tmp_path / "shards", "split.csv")
    assert find_data(load_profile("laptop"), tmp_path).split_file == tmp_path / "shards" / "split.csv"


def test_without_a_split_file_a_seeded_share_is_held_out(sample_flora):
    profile = load_profile("smoke")
    data = find_data(profile, sample_flora)
    table = data.split(profile)
    assert (table["held_out"] == (table["part"] == "validation")).all()
    assert set(table["part"]) == {"train", "validation"}
    assert table["held_out"].mean() == pytest.approx(profile.validation_fraction, abs=0.03)
    assert (data.split(profile)["part"] == table["part"]).all()


def test_a_split_file_must_know_the_images_and_leave_some_to_train_on(sample_flora, tmp_path):
    profile = load_profile("smoke")
    data = find_data(profile, sample_flora)
    ids = data.training_table()["image_id"]
    file = tmp_path / "split.csv"
    data = replace(data, split_file=file)
    file.write_text("image_id,split\nnone,train\n")
    with pytest.raises(InputError, match=rf"split\.csv: image '{ids[0]}' is not in it \({len(ids)} of"):
        data.split(profile)
    file.write_text("image_id,split\n" + "".join(f"{name},test\n" for name in ids))
    with pytest.raises(InputError, match=r"split\.csv: no image is left to train on"):
        data.split(profile)


ORDER = ["Abies alba", "Poa annua", "Zea mays"]  # as classes are numbered; all genera and families differ


def labelled_set(folder: Path, classes: str = "012012", labels: bool = False) -> Path:
    """A data set of one image a digit, which is its class in the shards; by the metadata they are 0, 1, 2, 0, 1, 2."""
    folder.mkdir()
    table = "file_name,scientificName\n" + "".join(f"{n}.jpg,{ORDER[n % 3]}\n" for n in range(6))
    (folder / "table.csv").write_text(table)
    metadata = read_metadata(folder / "table.csv")
    write_metadata(metadata, folder / "train_metadata.json")
    if labels:
        LabelMap.from_metadata(metadata).save(folder / "labels.json")
    content = BytesIO()
    Image.new("RGB", (20, 30)).save(content, "JPEG")
    records = [
        Record(content.getvalue(), f"{number}.jpg", int(each), int(each), 0)
        for number, each in enumerate(classes)
    ]
    write_shards(records, folder, split="train", shard_images=2)
    return folder


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = read_json(path)
    change(content)
    write_json(path, content)


def renamed(tables: dict) -> None:
    """The last species comes first among the sorted names."""
    tables["categories"][2]["scientificName"] = "Aa maderoi"


def other_ids(tables: dict, which: slice = slice(None)) -> None:
    for row in [*tables["images"][which], *tables["annotations"][which]]:
        row["image_id"] = f"x{row['image_id']}"


def without_last(labels: dict) -> None:
    for values in labels.values():
        values.pop()


CLASS_OF = r"d: image \d\.jpg has class \d in the shards, and by .*train_metadata\.json it is \d, .* looked at\): they"
# The classes in the shards, what is changed in labels.json or else in the metadata, and what is said.
OTHER_LABELS = {
    "classes exchanged": ("210210", None, None, CLASS_OF),
    "one record less": ("21021", None, None, r"has class \d .*\(3 such images of 5 looked at\)"),
    "one record of another class": (
        "012011",
        None,
        None,
        r"image 5\.jpg has class 1 .* it is 2, 'Zea mays' \(1 such",
    ),
    "a species renamed": ("012012", None, renamed, CLASS_OF),
    "other ids": (
        "012012",
        None,
        other_ids,
        r"\d\.jpg of the shards is not in .*metadata\.json \(6 such images of 6",
    ),
    "labels.json of other names": (
        "012012",
        lambda labels: labels.update(scientificName=["A a", "B b", "C c"]),
        None,
        r"labels\.json: category_id 0 is 'A a', and in .*metadata\.json it is 'Abies alba' \(3 such species\)",
    ),
    "labels.json without a species": (
        "012012",
        without_last,
        None,
        r"labels\.json: category_id 2 is not there, and in .*it is 'Zea mays'",
    ),
}


@pytest.mark.parametrize(("classes", "labels", "tables", "message"), OTHER_LABELS.values(), ids=OTHER_LABELS)
def test_shards_of_another_label_map_are_refused_by_training_and_by_verify(
    tmp_path, classes, labels, tables, message
):
    folder = labelled_set(tmp_path / "d", classes, labels=labels is not None)
    if labels:
        edit(folder / "labels.json", labels)
    if tables:
        edit(folder / "train_metadata.json", tables)
    refused_alike(folder, message)


def refused_alike(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_data(load_profile("smoke"), folder).training_table()
    problems = verify.verify([folder])
    assert any(re.search(message, problem) for problem in problems), problems


def test_without_metadata_labels_json_is_compared_with_the_ranks_in_the_records_and_with_the_manifest(
    tmp_path,
):
    folder = labelled_set(tmp_path / "d", labels=True)
    (folder / "train_metadata.json").unlink()
    assert len(find_data(load_profile("smoke"), folder).training_table()) == 6
    edit(folder / "labels.json", lambda labels: labels["genus"].reverse())
    refused_alike(
        folder, r"class \d and genus \d in the shards, and by .*labels\.json class \d, .* has genus \d, '"
    )
    write_json(folder / "manifest.json", {"shards": [], "labels": {"scientificName": ORDER[::-1]}})
    refused_alike(folder, r"labels\.json: has other species than manifest\.json says")


@pytest.mark.parametrize("labels", [False, True])
def test_shards_of_the_same_label_map_pass(tmp_path, labels):
    data = find_data(load_profile("smoke"), labelled_set(tmp_path / "d", labels=labels))
    assert data.training_table()["class_index"].tolist() == [0, 1, 2, 0, 1, 2]
    assert verify.verify([tmp_path / "d"]) == []


def test_one_image_that_the_metadata_lacks_is_seen_where_the_numbers_are_the_same(tmp_path):
    folder = labelled_set(tmp_path / "d")
    edit(
        folder / "train_metadata.json",
        lambda c: [c[name][3].update(image_id="x") for name in ("images", "annotations")],
    )
    with pytest.raises(
        InputError, match=r"image 3\.jpg of the shards is not in .* \(1 such images of 6 looked at\)"
    ):
        find_data(load_profile("smoke"), folder).training_table()


def test_of_very_many_records_the_first_of_every_shard_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.sources._LOOKED_AT", 3)
    # The second record of each of the three shards is of another class, then a first one too.
    unseen, seen = (
        find_data(load_profile("smoke"), labelled_set(tmp_path / classes, classes))
        for classes in ("022210", "022220")
    )
    assert len(unseen.training_table()) == 6
    with pytest.raises(InputError, match=r"image 4\.jpg has class 2 .* \(1 such images of 3 looked at\)"):
        seen.training_table()


def test_the_message_names_the_folder_also_where_copies_are_read(tmp_path):
    data = find_data(load_profile("smoke"), labelled_set(tmp_path / "d", "210210"))
    (tmp_path / "copies").mkdir()
    copies = tuple(shard.replace(tmp_path / "copies" / shard.name) for shard in data.train_shards)
    with pytest.raises(InputError, match="other labels") as told:
        replace(data, train_shards=copies).training_table()
    assert str(told.value).startswith(f"{tmp_path / 'd'}: image") and "copies" not in str(told.value)


def test_what_macos_leaves_beside_files_is_passed_over(tmp_path):
    folder = labelled_set(tmp_path / "d", labels=True)
    for place in (folder, tmp_path / "__MACOSX" / "d"):
        place.mkdir(parents=True, exist_ok=True)
        for path in list(folder.iterdir()):
            if not path.name.startswith("."):
                (place / f"._{path.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    put(tmp_path / "__MACOSX" / "d", TRAIN, "train_metadata.json")
    data = find_data(load_profile("smoke"), tmp_path)
    assert len(data.train_shards) == 3 and len(data.training_table()) == 6
    assert verify.verify([folder]) == [] and len(verify.inspect([folder])) == 3


def test_a_folder_that_links_reach_twice_is_searched_once(tmp_path):
    put(tmp_path / "a", TRAIN)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [shard.name for shard in find_data(load_profile("laptop"), tmp_path).train_shards] == [TRAIN]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["00-512x512-4.tfrec"],
            r"00-512x512-4\.tfrec \(1 such files\) says by its name neither train, val nor test",
        ),
        (["x_train00_4.tfrec.gz"], r"x_train00_4\.tfrec\.gz: is compressed \(1 such"),
        ([TRAIN, "x_train01_4.tfrec.gz"], r"x_train01_4\.tfrec\.gz: is compressed \(1 such"),
    ],
)
def test_files_that_look_like_shards_are_named(tmp_path, names, message):
    put(tmp_path, *names)
    with pytest.raises(InputError, match=message):
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


def test_the_label_map_of_an_attached_run_is_not_taken_for_that_of_the_data(kaggle):
    put(kaggle / "input" / "naflora-03", "labels.json")
    put(kaggle / "input" / "naflora-03b", "labels.json")
    put(kaggle / "input" / "train", TRAIN)
    assert find_data(load_profile("kaggle")).label_file is None


def put_run(folder: Path, epoch: int, profile: str = "kaggle") -> Path:
    put(folder, "EfficientNetV2S_384_OCEP12_FC_CLSBW10_None_weights.h5", "labels.json", "__notebook__.ipynb")
    put(folder / "state", f"epoch_{epoch:04d}.index")
    write_json(folder / "state" / "state.json", {"epoch": epoch, "profile": {"name": profile}})
    return folder


def test_the_attached_run_that_is_furthest_is_found_in_both_layouts_and_taken_up(kaggle):
    profile, output = load_profile("kaggle"), kaggle / "working"
    output.mkdir()
    put_run(kaggle / "input" / "naflora-03", 5)
    put_run(kaggle / "input" / "smoke", 12, profile="smoke")
    furthest = put_run(kaggle / "input" / "notebooks" / "owner" / "naflora-03b", 9)
    put_run(kaggle / "input" / "datasets" / "owner" / "naflora-state", 7)
    assert find_run(output, profile) == furthest
    take_up_run(output, profile)
    assert read_json(output / "state" / "state.json")["epoch"] == 9
    assert {path.name for path in output.iterdir()} == {path.name for path in furthest.iterdir()} - {
        "__notebook__.ipynb"
    }
    assert find_run(output, profile) == output, "what was taken up is the run from now on"
    put_run(kaggle / "input" / "later", 11)
    take_up_run(output, profile)
    assert read_json(output / "state" / "state.json")["epoch"] == 9, "a run under way is left alone"


def test_no_attached_run_says_what_is_there_and_what_to_attach(kaggle):
    put_run(kaggle / "input" / "smoke", 1, profile="smoke")
    with pytest.raises(InputError, match=r"smoke \(smoke\).*Add Input > Your Work > Notebooks.*03 or 03b"):
        find_run(output_dir(), load_profile("kaggle"))


def test_off_kaggle_the_run_is_in_the_output_folder(tmp_path):
    assert find_run(tmp_path, load_profile("laptop")) == tmp_path


def test_what_is_required_and_absent_is_named(tmp_path):
    put(tmp_path, TRAIN)
    data = find_data(load_profile("laptop"), tmp_path)
    require(data, "train_shards")
    with pytest.raises(InputError, match=r"no test shards \(\*_test\*\.tfrec\)\. data_links\.md"):
        require(data, "train_shards", "test_shards")


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


@pytest.mark.parametrize("given", [None, "None", "", " "])
def test_none_for_a_folder_in_a_notebook_is_auto(given, kaggle):
    put(kaggle / "input" / "tfrecords", TRAIN)
    profile = load_profile("kaggle")
    assert find_data(profile, given) == find_data(profile, "auto")
    assert output_dir(given, profile) == output_dir("auto", profile) == kaggle / "working"
    with pytest.raises(InputError, match="no such folder"):
        find_data(profile, Path("None"))  # of the command line, where it is a path


def test_the_first_sheets_are_those_of_the_flora_that_is_drawn_later(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.flora.of_profile.scratch_dir", lambda: tmp_path)
    profile = replace(load_profile("smoke"), flora_species=3, flora_max_images=9)
    first = first_sheets(profile, count=5)
    assert len(first) == 5 and list(tmp_path.iterdir()) == [], "nothing else is drawn"
    find_data(profile, progress=False)
    assert first_sheets(profile, count=5) == first


def sheets_of(data, *asked, **options) -> tuple[list[str], list[int]]:
    batches = list(data.batches(*asked, **options).as_numpy_iterator())
    assert all(len(images) == options.get("batch_size", len(images)) for images, _, _ in batches)
    return [name.decode() for _, _, ids in batches for name in ids], [
        int(c) for _, cs, _ in batches for c in cs
    ]


def test_a_part_comes_in_file_order_and_withheld_sheets_have_their_true_classes(sample_flora):
    profile = load_profile("smoke")
    data, labels = find_data(profile, sample_flora), find_data(profile, sample_flora).labels()
    table = data.split(profile)
    stored = read_labels(data.train_shards)
    for part in ("train", "validation"):
        chosen = stored[stored["image_id"].isin(table.loc[table["part"] == part, "image_id"])]
        ids, classes = sheets_of(data, part, profile)
        assert (ids, classes) == (chosen["image_id"].tolist(), chosen["class_index"].tolist()), part
    assert sheets_of(data, "train", profile, only_ids=ids[:2], batch_size=1) == (ids[:2], classes[:2])

    ids, classes = sheets_of(data, "test", profile)
    assert ids == read_labels(data.test_shards)["image_id"].tolist() and set(classes) == {-1}
    answers = dict(line.split(",") for line in data.solution.read_text().split()[1:])
    true = data.true_classes(ids[::-1])
    assert labels.to_category(true).tolist() == [int(answers[name]) for name in ids[::-1]]
    assert true.dtype == "int32"

    apart = replace(data, test_shards=())
    assert sheets_of(apart, "test", profile) == ([], [])
    with pytest.raises(UsageError, match="part is 'val', must be one of train, validation, test"):
        data.batches("val", profile)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("Id,Predicted\n7,0\n", "sheet '8' is not in it \\(1 of 2 sheets\\)"),
        ("Id,Predicted\n7,0\n8,two\n", "line 3: Predicted 'two' is no category_id"),
        ("Id,Predicted\n7,0\n8,1\n7,1\n", "line 4: Id '7' occurs twice"),
        ("Id,predicted\n7,0\n8,1\n", "no column 'Predicted'"),
        ("Id,Predicted\n7,0\n8,99\n", "category_id 99 is not among the"),
        (None, "no solution.csv"),
    ],
)
def test_answers_that_do_not_fit_are_named(sample_flora, tmp_path, lines, message):
    path = tmp_path / "solution.csv"
    path.write_text(lines or "")
    data = replace(find_data(load_profile("smoke"), sample_flora), solution=path if lines else None)
    with pytest.raises(InputError, match=message):
        data.true_classes(["7", "8"])
