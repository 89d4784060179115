import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from disks import foreign_disk
from PIL import Image

from utils.data import splits
from utils.data.labels import LabelMap
from utils.data.metadata import read_metadata, read_test_metadata
from utils.data.records import read_labels, read_records, read_schema
from utils.files import REPOSITORY, InputError, UsageError, replacing
from utils.own import plan, verify
from utils.own.images import encode_image
from utils.own.split import write_split
from utils.own.write import Written, write_from_labels
from utils.startup import holding

SCHEMA = {
    "family": "int64",
    "genus": "int64",
    "image": "bytes",
    "image_id": "bytes",
    "scientificName": "int64",
}
SMALL = {"size": 16, "shard_images": 4, "progress": False}


def make_sheets(folder, make_sheet, count, width=50, height=70):
    """labels.csv and `count` images of five species in turn."""
    images = folder / "images"
    (images / "sub").mkdir(parents=True)
    rows = ["image_id,file_name,scientificName"]
    for number in range(count):
        name = f"sub/sheet{number}.png"
        make_sheet(number, width, height).save(images / name)
        rows.append(f"S{number},{name},{'BEACD'[number % 5]}us albus")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(rows) + "\n")
    return labels, images, folder / "out"


@pytest.mark.parametrize("length", [0, 1, 6, 7])
def test_the_digest_in_pieces_is_of_the_whole_json(length):
    """Jobs and sets of earlier versions hold the digest of one json.dumps()."""
    columns = (
        np.array(["Carex é", 'a"b', "", "x"] * 2)[:length],
        np.arange(length),
        np.array(["train"] * length),
    )
    whole = json.dumps([column.tolist() for column in columns]).encode()
    assert b"".join(plan.json_pieces(columns, rows=3)) == whole


@pytest.fixture
def own_sheets(tmp_path, make_sheet):
    """A CSV and a folder of ten images, two of each of five species; and where the shards go."""
    return make_sheets(tmp_path, make_sheet, 10)


@pytest.fixture
def write(own_sheets):
    """Write own_sheets with small images in shards of four."""
    labels, images, out = own_sheets
    return lambda out=out, **options: write_from_labels(labels, images, out, **SMALL | options)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()
    }


# The data set


def test_own_sheets_become_a_data_set(own_sheets):
    labels_csv, images, out = own_sheets
    written = write_from_labels(labels_csv, images, out, size=64, shard_images=6, progress=False)
    assert sorted(path.name for path in out.iterdir()) == [
        "labels.json",
        "manifest.json",
        "own_res64by64_train00_6.tfrec",
        "own_res64by64_train01_4.tfrec",
        "train_metadata.json",
    ]
    assert written == Written(sorted(out.glob("*.tfrec")), 0, [])
    assert verify.verify([out]) == []
    assert read_schema(written.shards[0]) == SCHEMA
    assert verify.inspect([out])[0]["image_sizes"] == {"64x64": 6}
    labels = LabelMap.load(out / "labels.json")
    annotations = read_metadata(out / "train_metadata.json").annotations
    classes = labels.to_class(annotations["category_id"])
    class_of = dict(zip(annotations["image_id"], classes, strict=True))
    published = pd.read_csv(labels_csv).set_index("image_id")
    for record in read_records(written.shards):
        row = published.loc[record["image_id"]]
        assert record["image"] == encode_image(images / row["file_name"], size=64)
        assert labels.names[record["scientificName"]] == row["scientificName"]
        assert labels.genus_names[record["genus"]] == row["scientificName"].split()[0]
        assert labels.family_names[record["family"]] == "unknown"
        assert class_of[record["image_id"]] == record["scientificName"]


def test_own_sheets_are_mixed_by_the_seed(own_sheets, write):
    ids = {}
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        shards = write(own_sheets[2] / run, seed=seed).shards
        ids[run] = read_labels(shards)["image_id"].tolist()
    assert ids["a"] == ids["b"] != ids["c"]
    assert sorted(ids["a"]) == sorted(ids["c"]) == [f"S{number}" for number in range(10)]


def test_a_withheld_part_can_be_scored(own_sheets, write):
    labels_csv, _, out = own_sheets
    shards = write(test_fraction=0.5, shard_images=1000).shards
    assert [path.name for path in shards] == ["own_res16by16_train00_5.tfrec", "own_res16by16_test00_5.tfrec"]
    assert read_schema(shards[1]) == SCHEMA
    train, test = (read_labels([shard]) for shard in shards)
    assert sorted(train["class_index"]) == sorted(test["class_index"]) == [0, 1, 2, 3, 4]
    assert sorted([*train["image_id"], *test["image_id"]]) == [f"S{number}" for number in range(10)]
    assert set(read_metadata(out / "train_metadata.json").images["image_id"]) == set(train["image_id"])
    assert set(read_test_metadata(out / "test_metadata.json")["image_id"]) == set(test["image_id"])
    solution = pd.read_csv(out / "solution.csv")
    assert list(solution) == ["Id", "Predicted"]
    names = dict(pd.read_csv(labels_csv)[["image_id", "scientificName"]].itertuples(index=False))
    labels = LabelMap.load(out / "labels.json")
    for image_id, category in solution.itertuples(index=False):
        assert labels.names[labels.to_class([category])[0]] == names[image_id]
    assert set(solution["Id"]) == set(test["image_id"])


def test_a_split_file_says_the_part_of_each_sheet(own_sheets, write, tmp_path):
    out = own_sheets[2]
    ids = [f"S{number}" for number in range(10)]
    parts = np.array(["train"] * 5 + ["validation"] * 2 + ["test"] * 3)
    file = write_split([*ids, "other"], np.append(parts, "test"), tmp_path / "mine.csv")
    shards = write(split=file).shards
    stored = {split: read_labels(out.glob(f"*_{split}*"))["image_id"] for split in ("train", "test")}
    assert sorted(stored["train"]) == ids[:7]
    assert sorted(stored["test"]) == ids[7:]
    assert len(shards) == 3
    assert (out / "split.csv").read_bytes() == file.read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["records"] == {"train": 5, "validation": 2, "test": 3}
    with pytest.raises(InputError, match=r"image 'S3' is not in it"):
        write(out / "b", split=write_split(ids[:3], parts[:3], tmp_path / "short.csv"))
    with pytest.raises(InputError, match="all sheets are in test"):
        write(out / "b", split=write_split(ids, ["test"] * 10, tmp_path / "all.csv"))
    with pytest.raises(UsageError, match="split file and a test fraction"):
        write(out / "b", split=file, test_fraction=0.1)
    assert not (out / "b").exists()


def test_a_split_file_may_lie_where_the_shards_go(own_sheets, write):
    out = own_sheets[2]
    parts = np.array(["train", "validation"] * 5)
    file = write_split([f"S{number}" for number in range(10)], parts, out / "split.csv")
    before = file.read_bytes()
    write(split=file)
    assert file.read_bytes() == before
    assert write(split=file).missing == 0


def test_annotations_and_images_may_be_in_different_order(tables, write_tables, make_sheet, tmp_path):
    tables["images"].reverse()
    for row, image in enumerate(tables["images"]):
        path = tmp_path / "images" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        make_sheet(row, 30, 40).save(path)
    file = write_tables(tables)
    write_from_labels(file, tmp_path / "images", tmp_path / "out", **SMALL)
    category_of = {row["image_id"]: row["category_id"] for row in tables["annotations"]}
    name_of = {row["image_id"]: row["file_name"] for row in tables["images"]}
    labels = LabelMap.load(tmp_path / "out" / "labels.json")
    records = list(read_records((tmp_path / "out").glob("*.tfrec")))
    assert len(records) == len(category_of)
    for record in records:
        assert labels.category_ids[record["scientificName"]] == category_of[record["image_id"]]
        assert record["image"] == encode_image(tmp_path / "images" / name_of[record["image_id"]], size=16)


def test_a_folder_a_species_needs_no_table(tmp_path, make_sheet):
    for number, name in enumerate(["Zea mays", "Abies alba", "Zea mays"]):
        path = tmp_path / "sheets" / name / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_sheet(number, 60, 80).save(path)
    out = tmp_path / "out"
    written = write_from_labels(None, tmp_path / "sheets", out, **SMALL)
    names = LabelMap.load(out / "labels.json").names
    found = [(row.image_id, str(names[row.class_index])) for row in read_labels(written.shards).itertuples()]
    assert sorted(found) == [
        ("Abies alba/1.jpg", "Abies alba"),
        ("Zea mays/0.jpg", "Zea mays"),
        ("Zea mays/2.jpg", "Zea mays"),
    ]


def test_classes_are_numbered_by_the_label_map_of_a_run(own_sheets, write, tmp_path):
    labels_csv, _, out = own_sheets
    names = np.array(sorted([*(f"{letter}us albus" for letter in "ABCDE"), "Cus niger", "Aaa bbb"]))
    genera = np.array([name.split()[0] for name in names])
    families = np.array(["Poaceae", *["Rosaceae"] * 6])
    run = tmp_path / "run"
    LabelMap(names, np.arange(100, 107), genera, families).save(run / "labels.json")
    written = write(label_map=run)
    given = pd.read_csv(labels_csv).set_index("image_id")["scientificName"]
    for record in read_records(written.shards):
        name = given[record["image_id"]]
        assert names[record["scientificName"]] == name
        assert np.unique(genera)[record["genus"]] == name.split()[0]
        assert record["family"] == 1
    assert (out / "labels.json").read_bytes() == (run / "labels.json").read_bytes()
    metadata = read_metadata(out / "train_metadata.json")
    again = LabelMap.from_metadata(metadata)
    assert again.names.tolist() == names.tolist()
    assert again.category_ids.tolist() == list(range(100, 107))
    labels_csv.write_text(labels_csv.read_text().replace("Dus albus", "Dus unknown"))
    with pytest.raises(InputError, match=r"1 species are not in .*labels\.json:\n  Dus unknown\nCorrect"):
        write(out / "b", label_map=run / "labels.json")
    with pytest.raises(InputError, match=r"labels\.json: no such file"):
        write(out / "b", label_map=tmp_path)
    assert not (out / "b").exists()


def test_padded_images_keep_their_shape(own_sheets, write):
    (record, *_) = read_records(write(fit="pad").shards)
    row = pd.read_csv(own_sheets[0]).set_index("image_id").loc[record["image_id"]]
    assert record["image"] == encode_image(own_sheets[1] / row["file_name"], size=16, fit="pad")
    assert record["image"] != encode_image(own_sheets[1] / row["file_name"], size=16)


def test_the_manifest_says_what_is_there_and_nothing_of_this_machine(own_sheets, write):
    out = own_sheets[2]
    shards = write(test_fraction=0.2, seed=3).shards
    text = (out / "manifest.json").read_text()
    assert str(out) not in text and str(own_sheets[1]) not in text
    manifest = json.loads(text)
    assert [entry["file"] for entry in manifest["shards"]] == [path.name for path in shards]
    assert [entry["records"] for entry in manifest["shards"]] == [4, 1, 4, 1]
    assert [entry["split"] for entry in manifest["shards"]] == ["train", "train", "test", "test"]
    assert manifest["records"] == {"train": 5, "validation": 0, "test": 5}
    assert manifest["schema"] == {"train": SCHEMA, "test": SCHEMA}
    assert manifest["settings"]["seed"] == 3 and manifest["settings"]["fit"] == "squeeze"
    assert (
        manifest["labels"]["scientificName"]
        == LabelMap.load(out / "labels.json").names.tolist()
        == sorted(f"{letter}us albus" for letter in "ABCDE")
    )
    assert (manifest["species"], manifest["genera"], manifest["skipped"]) == (5, 5, 0)


# Bad input


def test_missing_images_are_listed_before_any_work(own_sheets, write):
    _, images, out = own_sheets
    for number in (3, 7):
        (images / f"sub/sheet{number}.png").unlink()
    with pytest.raises(InputError) as caught:
        write(skip_bad=True)
    assert "2 of 10 image files" in str(caught.value)
    assert "sub/sheet3.png\n  sub/sheet7.png" in str(caught.value)
    assert not out.exists()


def test_a_file_that_the_table_writes_in_another_unicode_form_is_found_and_a_near_one_named(
    tmp_path, make_sheet
):
    composed, apart = "é.jpg", "e\u0301.jpg"
    for name in (apart, "B.jpg"):
        make_sheet(0, 60, 80).save(tmp_path / name)
    table = tmp_path / "labels.csv"
    table.write_text(f"file_name,scientificName\n{composed},Zea mays\n", encoding="utf-8")
    written = write_from_labels(table, tmp_path, tmp_path / "out", **SMALL)
    assert read_labels(written.shards)["image_id"].tolist() == [composed], "as the table has it"
    table.write_text("file_name,scientificName\nimages/B.jpg,Zea mays\nc.jpg,Zea mays\n")
    with pytest.raises(
        InputError, match=r"2 of 2 image files .*:\n  images/B\.jpg \(there is B\.jpg\)\n  c\.jpg\nAdd"
    ):
        write_from_labels(table, tmp_path, tmp_path / "other", **SMALL)


def test_only_the_first_twenty_missing_images_are_listed(tmp_path):
    rows = "\n".join(f"{number},{number:02d}.jpg,Zea mays" for number in range(25))
    (tmp_path / "labels.csv").write_text("image_id,file_name,scientificName\n" + rows + "\n")
    with pytest.raises(InputError) as caught:
        write_from_labels(tmp_path / "labels.csv", tmp_path, tmp_path / "out", progress=False)
    assert "25 of 25" in str(caught.value)
    assert "19.jpg\n  ..." in str(caught.value)
    assert "20.jpg" not in str(caught.value)


def test_a_bad_image_stops_the_job_which_goes_on_when_it_is_replaced(own_sheets, write, make_sheet):
    _, images, out = own_sheets
    expected = write(out / "expected")
    last = read_labels(expected.shards)["image_id"].iloc[-1]
    bad = images / f"sub/sheet{last[1:]}.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:500])
    with pytest.raises(InputError, match=rf"{bad.name}: not a readable image .*same command goes on"):
        write(out / "a")
    kept = {path: path.stat().st_mtime_ns for path in (out / "a").glob("*.tfrec")}
    assert len(kept) == 2
    bad.write_bytes(good)
    write(out / "a")
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
    assert content(out / "a") == content(out / "expected")


def test_names_that_are_no_species_are_left_out_and_listed_or_kept(tmp_path, make_sheet):
    labels, images, out = make_sheets(tmp_path, make_sheet, 6)
    rows = labels.read_text().splitlines()
    rows[0] += ",identificationQualifier"
    names = ("Carex nigra", "Carex cf. nigra", "Carex", "Carex nigra", "Carex alba", "Carex alba")
    qualifiers = ("", "", "", "cf. nigra", "", "s.l.")
    for place, (name, qualifier) in enumerate(zip(names, qualifiers, strict=True), start=1):
        rows[place] = ",".join([*rows[place].split(",")[:2], name, qualifier])
    labels.write_text("\n".join(rows) + "\n")
    written = write_from_labels(labels, images, out / "some", **SMALL)
    assert LabelMap.load(out / "some" / "labels.json").names.tolist() == ["Carex alba", "Carex nigra"]
    assert sorted(read_labels(written.shards)["image_id"]) == ["S0", "S4", "S5"]
    (note,) = [note for note in written.notes if "doubtful.csv" in note]
    assert "3 images of 2 names that are no species" in note
    table = pd.read_csv(out / "some" / "doubtful.csv")
    assert table.to_numpy().tolist() == [
        ["S1", "sub/sheet1.png", "Carex cf. nigra", "cf. nigra"],
        ["S2", "sub/sheet2.png", "Carex", "sp."],
        ["S3", "sub/sheet3.png", "Carex cf. nigra", "cf. nigra"],
    ]
    kept = write_from_labels(labels, images, out / "all", keep_doubtful=True, **SMALL)
    names = LabelMap.load(out / "all" / "labels.json").names.tolist()
    assert names == ["Carex", "Carex alba", "Carex cf. nigra", "Carex nigra"]
    assert len(read_labels(kept.shards)) == 6 and not (out / "all" / "doubtful.csv").exists()
    labels.write_text(rows[0] + "\n" + rows[3] + "\n")
    with pytest.raises(
        InputError, match=r"labels\.csv: 1 images of 1 names .*and no others.*--keep-doubtful"
    ):
        write_from_labels(labels, images, out / "none", **SMALL)


def test_bad_images_are_left_out_and_listed(own_sheets, write):
    _, images, out = own_sheets
    order = read_labels(write(out / "all").shards)["image_id"].tolist()
    bad = order[1:2] + order[4:8]  # one of the first shard, all of the second
    for image_id in bad:
        path = images / f"sub/sheet{image_id[1:]}.png"
        path.write_bytes(path.read_bytes()[:300] if image_id != bad[0] else b"text")
    written = write(out / "some", skip_bad=True)
    assert [path.name for path in written.shards] == [
        "own_res16by16_train00_3.tfrec",
        "own_res16by16_train02_2.tfrec",
    ]
    assert written.notes == ["5 of 10 images were left out, see skipped.csv."]
    table = pd.read_csv(out / "some" / "skipped.csv")
    assert table["image_id"].tolist() == bad
    assert table["file_name"].tolist() == [f"sub/sheet{image_id[1:]}.png" for image_id in bad]
    assert table["reason"].tolist()[0] == "its content is not JPEG, PNG, TIFF"
    assert table["reason"].str.contains("truncated").sum() == 4
    metadata = read_metadata(out / "some" / "train_metadata.json")
    kept = [image_id for image_id in order if image_id not in bad]
    assert set(metadata.annotations["image_id"]) == set(metadata.images["image_id"]) == set(kept)
    assert read_labels(written.shards)["image_id"].tolist() == kept
    assert verify.verify([out / "some"]) == []
    assert json.loads((out / "some" / "manifest.json").read_text())["skipped"] == 5
    assert write(out / "some").notes == written.notes


def test_no_readable_image_at_all_is_an_error(own_sheets, write):
    for path in (own_sheets[1] / "sub").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no image to train on could be read"):
        write(skip_bad=True)


@pytest.mark.parametrize(
    "option",
    [
        {"size": 0},
        {"quality": 101},
        {"fit": "crop"},
        {"seed": -1},
        {"test_fraction": 1.0},
        {"test_fraction": -0.1},
        {"shard_images": 0},
        {"part": (3, 2)},
        {"part": (0, 2)},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(own_sheets, write, option):
    with pytest.raises(UsageError):
        write(**option)
    assert not own_sheets[2].exists()


# The folder


def test_the_same_command_again_changes_nothing(own_sheets, write):
    out = own_sheets[2]
    written = write(test_fraction=0.2)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert write(test_fraction=0.2) == written
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_job_in_the_folder_is_an_error_that_says_what_differs(own_sheets, write, finished):
    labels_csv, _, out = own_sheets
    write(part=(1, 1) if finished else (1, 2))
    before = content(out)
    with pytest.raises(InputError, match=r"holds another job \(size 16 instead of 32, seed 0 instead of 9"):
        write(size=32, seed=9)
    labels_csv.write_text(labels_csv.read_text().replace("Aus albus", "Aus niger"))
    with pytest.raises(InputError, match=r"holds another job \(other rows, names, species or parts"):
        write()
    assert content(out) == before


FOREIGN = ["h22_res480by480_train00_5.tfrec", "own_res16by16_train00_4.tfrec"]


@pytest.mark.parametrize(
    ("name", "started"),
    [
        *[(name, True) for name in FOREIGN],
        *[(name, False) for name in [*FOREIGN, "labels.json", "split.csv", "train_metadata.json"]],
    ],
)
def test_files_of_another_data_set_are_not_written_over(own_sheets, write, name, started):
    out = own_sheets[2]
    if started:
        write(part=(2, 2))
    out.mkdir(exist_ok=True)
    (out / name).write_bytes(b"mine")
    (out / "notes.txt").write_bytes(b"of no concern")
    before = content(out)
    with pytest.raises(InputError, match=rf"already holds {name} .*Name another folder"):
        write()
    assert content(out) == before


def test_a_finished_shard_that_has_changed_is_not_taken(own_sheets, write):
    out = own_sheets[2]
    write(part=(1, 2))
    shard = sorted(out.glob("*.tfrec"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{shard.name}: has \d+ bytes, written were .*Delete this file"):
        write()
    shard.unlink()
    assert write().missing == 0
    assert verify.verify([out]) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda report: [],
        lambda report: {key: value for key, value in report.items() if key != "file"},
        lambda report: report | {"records": None},
        lambda report: report | {"images": [[10_000, *report["images"][0][1:]]]},
        lambda report: report | {"images": [[0, "x" * 64, report["images"][0][2]]]},
        lambda report: report | {"skipped": [[0]]},
    ],
)
def test_a_damaged_report_of_a_finished_shard_is_named_and_goes_into_no_manifest(own_sheets, write, damage):
    out = own_sheets[2]
    write(part=(1, 2))
    report = out / "unfinished" / "train00.json"
    report.write_text(json.dumps(damage(json.loads(report.read_text()))))
    with pytest.raises(
        InputError, match=r"unfinished/train00\.json: is not what .* Delete it and train00's shard"
    ):
        write()
    assert not (out / "manifest.json").exists()
    report.unlink()
    next(out.glob("*_train00_*.tfrec")).unlink()
    assert write().missing == 0 and verify.verify([out]) == []


def test_a_shard_that_has_gone_is_named(own_sheets, write):
    shard = write().shards[1]
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: is listed in manifest.json and not there"):
        write()


def test_a_file_in_place_of_the_folder_is_an_error(own_sheets, write):
    own_sheets[2].write_text("")
    with pytest.raises(InputError, match=r"out: is a file\. Name a folder"):
        write()


# Shared, killed, continued


def test_several_calls_share_the_job_in_one_folder(own_sheets, write):
    out = own_sheets[2]
    write(out / "alone", test_fraction=0.2)
    first = write(out / "shared", test_fraction=0.2, part=(2, 2))
    assert (len(first.shards), first.missing) == (2, 2)
    assert not (out / "shared" / "manifest.json").exists()
    assert verify.verify([out / "shared"]) == [
        f"{out / 'shared'}: the job that writes these shards is not finished; the same command continues it."
    ]
    assert write(out / "shared", test_fraction=0.2, part=(1, 2)).missing == 0
    assert content(out / "shared") == content(out / "alone")


def test_folders_of_several_machines_are_copied_together(own_sheets, write):
    out = own_sheets[2]
    write(out / "alone")
    for index in (1, 2, 3):
        write(out / f"machine{index}", part=(index, 3))
    for index in (2, 3):
        shutil.copytree(out / f"machine{index}", out / "machine1", dirs_exist_ok=True)
    assert write(out / "machine1", part=(1, 3)).missing == 0
    assert content(out / "machine1") == content(out / "alone")


WRITE = """
import sys
from utils.own.write import write_from_labels
labels, images, out = sys.argv[1:]
write_from_labels(labels, images, out, size=96, shard_images=5, test_fraction=0.2, workers=2, progress=False)
"""


@pytest.fixture(scope="module")
def many_sheets(tmp_path_factory, make_sheet):
    """Sixty images, some of them duplicates, and their thirteen shards."""
    folder = tmp_path_factory.mktemp("many")
    labels, images, out = make_sheets(folder, make_sheet, 12, 500, 700)
    rows = labels.read_text().splitlines()
    for number in range(12, 60):
        shutil.copy(images / f"sub/sheet{number % 12}.png", images / f"sub/sheet{number}.png")
        rows.append(f"S{number},sub/sheet{number}.png,{'BEACD'[number % 5]}us albus")
    labels.write_text("\n".join(rows) + "\n")
    options = {"size": 96, "shard_images": 5, "test_fraction": 0.2, "workers": 2, "progress": False}
    write_from_labels(labels, images, out, **options)
    assert len(list(out.glob("*.tfrec"))) == 13
    return labels, images, out, options


def killed(labels, images, out, shards, expected):
    """Start the job, kill it some milliseconds after it has so many shards, and look at what it left.

    Returns:
        Whether the kill came before the job was done.
    """
    out.mkdir(exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tfrec")}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(labels), str(images), str(out)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(out.glob("*.tfrec"))) < shards:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    came_in_time = process.wait() == -signal.SIGKILL
    for path in out.glob("*.tfrec"):
        assert path.read_bytes() == expected[path.name], "a shard under its final name is whole"
        assert before.get(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, "and is kept"
    assert set(before) <= set(out.glob("*.tfrec"))
    return came_in_time


def test_a_job_killed_at_random_moments_ends_with_the_same_bytes(many_sheets, tmp_path):
    labels, images, reference, options = many_sheets
    expected = content(reference)
    assert {"duplicates.csv", "solution.csv", "manifest.json"} <= expected.keys()
    moments = sorted(random.sample(range(1, 13), 3))
    in_time = [killed(labels, images, tmp_path / "out", shards, expected) for shards in moments]
    assert any(in_time), f"no kill at {moments} of 13 shards came before the end"
    write_from_labels(labels, images, tmp_path / "out", **options)
    assert content(tmp_path / "out") == expected, f"killed at {moments} of 13 shards"


@pytest.mark.long
def test_twenty_kills_at_random_moments(many_sheets, tmp_path):
    """Each from the beginning, so that the moments lie anywhere in the job, its last step too."""
    labels, images, reference, options = many_sheets
    expected, in_time = content(reference), 0
    for number in range(20):
        out, shards = tmp_path / f"out{number}", random.randint(0, 13)
        in_time += killed(labels, images, out, shards, expected)
        write_from_labels(labels, images, out, **options)
        assert content(out) == expected, f"killed at {shards} of 13 shards"
    assert in_time >= 12


@pytest.mark.long
def test_an_interrupted_command_says_that_it_continues(tmp_path, make_sheet):
    make_sheet(0, 600, 800).save(tmp_path / "one.jpg")
    names = [f"{number}.jpg" for number in range(600)]  # so many that it is not done before the signal
    for name in names:
        os.link(tmp_path / "one.jpg", tmp_path / name)
    rows = "".join(f"{name},Zea mays\n" for name in names)
    (tmp_path / "labels.csv").write_text("file_name,scientificName\n" + rows)
    options = ["--size", "96", "--shard-images", "10", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "utils", "tfrecords", "write", "--labels", str(tmp_path / "labels.csv")]
    command += ["--images", str(tmp_path), *options]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "out").glob("*.tfrec")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "Stopped. What was finished is kept; the same command again goes on." in said
    assert "Traceback" not in said
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "60 shards" in done.stdout


MEMORY = """
import sys
from pathlib import Path
from utils.own.write import write_from_labels
write_from_labels(*sys.argv[1:], size=480, shard_images=100, progress=False)
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # kB at most; ru_maxrss is inherited
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, make_sheet):
    peak = {}
    make_sheet(0, 600, 800).save(tmp_path / "one.jpg", quality=95)
    for count in (200, 2000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            os.link(tmp_path / "one.jpg", folder / f"{number}.jpg")
        rows = [f"{number},{number}.jpg,Zea mays" for number in range(count)]
        (folder / "labels.csv").write_text("image_id,file_name,scientificName\n" + "\n".join(rows) + "\n")
        arguments = [str(folder / "labels.csv"), str(folder), str(folder / "out")]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *arguments], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        peak[count] = int(done.stdout.split()[-1]) * 1024
    images_held = 1800 * 100_000  # if each of the further images were kept
    assert peak[2000] - peak[200] < images_held / 3


# Duplicates


def test_duplicates_are_listed_and_said(own_sheets, write, make_sheet):
    labels_csv, images, out = own_sheets
    for number in range(10):
        make_sheet(number, 400, 500).save(images / f"sub/sheet{number}.png")
    # S0 and S5 are of one species; S1 and S2 are not, and S2 is S1 saved smaller and as JPEG
    shutil.copy(images / "sub/sheet0.png", images / "sub/sheet5.png")
    Image.open(images / "sub/sheet1.png").resize((240, 300)).save(images / "small.jpg", quality=70)
    labels_csv.write_text(labels_csv.read_text().replace("sub/sheet2.png", "small.jpg"))
    split = write_split(
        [f"S{number}" for number in range(10)], ["train"] * 5 + ["validation"] * 5, out.parent / "s.csv"
    )
    notes = write(split=split, size=96).notes
    table = pd.read_csv(out / "duplicates.csv").astype(str)
    assert table.to_numpy().tolist() == [
        ["0", "same bytes", "S0", "sub/sheet0.png", "Bus albus", "train"],
        ["0", "same bytes", "S5", "sub/sheet5.png", "Bus albus", "validation"],
        ["1", "near-identical", "S1", "sub/sheet1.png", "Eus albus", "train"],
        ["1", "near-identical", "S2", "small.jpg", "Aus albus", "train"],
    ]
    assert list(table) == ["group", "kind", "image_id", "file_name", "scientificName", "split"]
    assert len(notes) == 3
    assert notes[0].startswith("4 images are duplicates, in 2 groups (1 of the same bytes, 1 near-identical)")
    assert notes[1].startswith(
        "Warning: 1 of these groups lie in more than one of train, validation and test"
    )
    assert notes[2].startswith("Warning: 1 of these groups are under two or more species")
    file = out / "duplicates.csv"
    assert splits.shared_duplicates(file, ["S0", "S5", "S1", "S2"], [True, True, False, False]) == 0
    assert splits.shared_duplicates(file, ["S0", "S5", "S1", "S2"], [True, False, False, True]) == 2
    assert splits.shared_duplicates(out / "absent.csv", ["S0"], [True]) == 0


# Real sheets


def test_real_sheets_go_to_shards_of_real_size(real_sheets, tmp_path):
    written = write_from_labels(real_sheets / "labels.csv", real_sheets, tmp_path / "out", progress=False)
    (found,) = verify.inspect([tmp_path / "out"])
    with (real_sheets / "labels.csv").open(encoding="utf-8") as file:
        named = [row["scientificName"].split() for row in csv.DictReader(file)]
    assert found["records"] == sum(len(words) > 1 for words in named) > 90  # a genus alone is no species
    assert found["image_sizes"] == {"480x480": found["records"]}
    assert found["manifest"] == "says the same"
    assert 50 < found["mean_image_kb"] < 80
    assert verify.verify([tmp_path / "out"]) == []
    assert any(note.startswith("'Buchnera floridana Gand.', ") for note in written.notes)
    alike = [note for note in written.notes if "look alike" in note or "no species" in note]
    assert written.notes == alike, "no two of these sheets are the same"


def test_two_calls_of_one_part_do_not_mix_and_other_parts_get_through(own_sheets, write):
    _, _, out = own_sheets
    expected = content(out / "alone") if write(out / "alone") else {}
    with holding(out / "a", out / "a" / "unfinished" / "part-1-of-2.lock"):
        with pytest.raises(InputError, match=r"/a: process \d+ of .* since .* works on it"):
            write(out / "a", part=(1, 2))
        assert write(out / "a", part=(2, 2)).missing
    write(out / "a", part=(1, 2))
    assert content(out / "a") == expected


def test_a_job_on_a_disk_that_keeps_names_of_open_files_is_finished(own_sheets, write, tmp_path):
    with foreign_disk(tmp_path / "card"):
        out = tmp_path / "card" / "out"
        assert write(out, part=(1, 2)).missing
        assert not write(tmp_path / "card" / "OUT", part=(2, 2)).missing  # the same folder there
        assert verify.verify([out]) == [] and not (out / "unfinished").exists()


def test_a_bad_manifest_is_refused_before_any_shard_is_read(own_sheets, write, capsys):
    _, _, out = own_sheets
    write(out)
    (out / "manifest.json").write_text("{}")
    for look in (partial(verify.verify, progress=True), verify.inspect):
        with pytest.raises(InputError, match=r"manifest\.json: has no list of shards"):
            look([out])
    assert capsys.readouterr().err == ""


def test_what_a_dead_call_left_in_the_folder_goes_with_the_next(own_sheets, write, tmp_path):
    _, _, out = own_sheets
    expected = content(out / "alone") if write(out / "alone") else {}
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(InputError), replacing(out / "a" / "unfinished" / "train00") as temporary:
        left = temporary.with_name(temporary.name.replace(f".{os.getpid()}.", f".{process.pid}."))
        left.mkdir(parents=True)
        (left / "records").write_bytes(b"half")
        raise InputError
    assert write(out / "a", part=(1, 3)).missing and not left.exists()
    write(out / "a")
    assert content(out / "a") == expected


def test_images_of_too_many_pixels_are_named_before_anything_is_written(own_sheets, write, monkeypatch):
    _, _, out = own_sheets
    monkeypatch.setattr("utils.own.images.MAX_PIXELS", 3_000)
    with pytest.raises(
        InputError, match=r"10 of 10 images have more than 0 megapixels:\n  .*sheet0\.png"
    ) as error:
        write(out / "a")
    assert "--skip-bad" in str(error.value) and not list((out / "a").rglob("*.tfrec"))


def test_shards_beside_the_images_are_no_species_folder(tmp_path, make_sheet):
    for species in ("Zea mays", "Abies alba"):
        (tmp_path / species).mkdir()
        make_sheet(len(species), 40, 60).save(tmp_path / species / "a.png")
    assert write_from_labels(None, tmp_path, tmp_path, **SMALL).shards
    with pytest.raises(InputError, match="holds shards and their tables beside the images already"):
        write_from_labels(None, tmp_path, tmp_path, **SMALL)


@pytest.mark.parametrize("value", ["x", [1], None, {"scientificName": "x"}], ids=str)
def test_a_manifest_with_other_labels_is_named(own_sheets, write, value):
    _, _, out = own_sheets
    shards = write(out / "a").shards
    path = out / "a" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": value}))
    with pytest.raises(InputError, match=r"manifest\.json: 'labels' is .*, which nothing wrote"):
        verify.verify(shards)


CLIMBING = ["../outside_train00_4.tfrec", "/etc/train00_4.tfrec", "a\\train00.tfrec", "labels.json"]


@pytest.mark.parametrize("name", CLIMBING)
def test_a_manifest_that_names_files_elsewhere_is_refused(own_sheets, write, name):
    _, _, out = own_sheets
    shards = write(out / "a").shards
    path = out / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["file"] = name
    path.write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r"manifest\.json: has no list of shards with file \(a name without a path\)"
    ):
        verify.verify(shards)
