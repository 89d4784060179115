import json
import shutil
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from utils.data import tfrecords
from utils.data.labels import LabelMap
from utils.data.metadata import read_metadata, read_test_metadata
from utils.data.tfrecords import Record
from utils.errors import InputError, UsageError

TRAIN_SCHEMA = {
    "family": "int64",
    "genus": "int64",
    "image": "bytes",
    "image_id": "bytes",
    "scientificName": "int64",
}


@pytest.fixture(scope="module")
def train_records(make_jpeg):
    return [
        Record(
            make_jpeg(number, 40, 40), f"{number % 4:05d}__{number:03d}", number % 4, number % 3, number % 2
        )
        for number in range(10)
    ]


@pytest.fixture(scope="module")
def train_shards(train_records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return tfrecords.write_shards(iter(train_records), folder, split="train", shard_images=4)


def test_shards_have_the_published_names_and_nothing_else_is_left(train_shards):
    assert [path.name for path in train_shards] == [
        "h22_res480by480_train00_4.tfrec",
        "h22_res480by480_train01_4.tfrec",
        "h22_res480by480_train02_2.tfrec",
    ]
    assert sorted(train_shards[0].parent.iterdir()) == train_shards
    assert tfrecords.shard_name("own", 512, "val", 3, 17) == "own_res512by512_val03_17.tfrec"


def test_train_records_have_the_published_features(train_shards, train_records):
    assert tfrecords.read_schema(train_shards[0]) == TRAIN_SCHEMA
    records = list(tfrecords.read_records(train_shards))
    assert [record["image_id"] for record in records] == [record.image_id for record in train_records]
    for record, written in zip(records, train_records, strict=True):
        assert record["image"] == written.image
        assert (record["scientificName"], record["genus"], record["family"]) == (
            written.class_index,
            written.genus_index,
            written.family_index,
        )


def test_test_records_have_integer_ids_and_no_labels(tmp_path, make_jpeg):
    shards = tfrecords.write_shards(
        [Record(make_jpeg(0, 32, 32), np.int64(17))], tmp_path, split="test", prefix="h22"
    )
    assert shards[0].name == "h22_res480by480_test00_1.tfrec"
    assert tfrecords.read_schema(shards[0]) == {"image": "bytes", "image_id": "int64"}
    assert [record["image_id"] for record in tfrecords.read_records(shards)] == ["17"]
    assert tfrecords.read_labels(shards).to_dict("list") == {"image_id": ["17"], "class_index": [-1]}


def test_the_same_records_give_the_same_bytes(train_records, train_shards, tmp_path):
    again = tfrecords.write_shards(train_records, tmp_path, split="train", shard_images=4)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in train_shards]


def test_records_are_taken_one_at_a_time(tmp_path, train_records):
    """A shard's first record is on its way to disk before the second is made."""
    asked = []

    def slowly():
        for number, record in enumerate(train_records):
            asked.append((number, sorted(path.name for path in tmp_path.glob("*.tfrec"))))
            yield record

    tfrecords.write_shards(slowly(), tmp_path, split="train", shard_images=5)
    assert asked[4][1] == []
    assert asked[6][1] == ["h22_res480by480_train00_5.tfrec"]


def test_a_failing_source_leaves_no_half_written_shard(tmp_path, train_records):
    def failing():
        yield from train_records[:3]
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        tfrecords.write_shards(failing(), tmp_path, split="train", shard_images=2)
    assert [path.name for path in tmp_path.iterdir()] == ["h22_res480by480_train00_2.tfrec"]


def test_no_records_make_no_shards(tmp_path):
    assert tfrecords.write_shards([], tmp_path, split="train") == []
    assert list(tmp_path.iterdir()) == []


def test_counting_uses_the_names_and_falls_back_to_the_records(train_shards, tmp_path):
    unnamed = tmp_path / "part.tfrec"
    shutil.copy(train_shards[0], unnamed)
    assert tfrecords.count_records([*train_shards, unnamed]) == 14
    assert tfrecords.count_records([tmp_path / "h22_res480by480_train07_123.tfrec"]) == 123
    unnamed.write_bytes(train_shards[0].read_bytes()[:-3])
    with pytest.raises(InputError, match=r"part\.tfrec: ends inside record 3"):
        tfrecords.count_records([unnamed])


def test_read_labels_gives_ids_and_classes_in_order(train_shards, train_records):
    table = tfrecords.read_labels(train_shards)
    assert table["image_id"].tolist() == [record.image_id for record in train_records]
    assert table["class_index"].tolist() == [record.class_index for record in train_records]


def test_inspect_tells_what_is_in_a_shard(train_shards):
    first, last = tfrecords.inspect([train_shards[0], train_shards[2]])
    assert first["records"] == 4
    assert first["bytes"] == train_shards[0].stat().st_size
    assert first["schema"] == TRAIN_SCHEMA
    assert first["image_sizes"] == {"40x40": 4}
    assert (first["class_min"], first["class_max"]) == (0, 3)
    assert (last["class_min"], last["class_max"]) == (0, 1)
    assert json.loads(json.dumps(first)) == first


def test_verify_finds_nothing_in_good_shards(train_shards):
    assert tfrecords.verify(train_shards) == []


def damaged(path, tmp_path, name, change):
    content = bytearray(path.read_bytes())
    change(content)
    copy = tmp_path / name
    copy.write_bytes(content)
    return copy


def test_damage_is_reported_by_file_and_record(train_shards, tmp_path):
    length = 16 + int.from_bytes(train_shards[0].read_bytes()[:8], "little")

    def flip_a_bit_in_record_1(content):
        content[length + 40] ^= 1

    flipped = damaged(train_shards[0], tmp_path, "a_train00_4.tfrec", flip_a_bit_in_record_1)
    cut = damaged(
        train_shards[0], tmp_path, "b_train00_4.tfrec", lambda content: content.__delitem__(slice(-9, None))
    )
    problems = tfrecords.verify([flipped, cut, tmp_path / "absent.tfrec"])
    assert len(problems) == 3
    assert problems[0].startswith(f"{flipped}: record 1: checksum or length is wrong")
    assert problems[1].startswith(f"{cut}: record 3: checksum or length is wrong")
    assert problems[2] == f"{tmp_path / 'absent.tfrec'}: no such file."
    with pytest.raises(InputError, match=r"a_train00_4\.tfrec: record 1 is damaged"):
        list(tfrecords.read_records([flipped]))


def test_verify_reports_each_bad_record_and_goes_on(tmp_path, make_jpeg):
    good = make_jpeg(0, 32, 32)
    records = [
        Record(good, "a", 0, 0, 0),
        Record(good[: len(good) // 2], "b", 0, 0, 0),
        Record(good, "c"),
        Record(b"no image", "d", 0, 0, 0),
        Record(good, "e", -1, 0, 0),
    ]
    (shard,) = tfrecords.write_shards(records, tmp_path, split="train")
    problems = tfrecords.verify([shard])
    assert [problem.split(": ")[1] for problem in problems] == [
        "record 1",
        "record 2",
        "record 3",
        "record 4",
    ]
    assert "not a whole JPEG" in problems[0]
    assert "no feature 'scientificName'" in problems[1]
    assert "not a whole JPEG" in problems[2]
    assert "is -1, must be 0 or more" in problems[3]


def test_verify_compares_the_name_with_the_records(train_shards, tmp_path):
    misnamed = tmp_path / "h22_res480by480_train00_5.tfrec"
    shutil.copy(train_shards[0], misnamed)
    assert tfrecords.verify([misnamed]) == [f"{misnamed}: has 4 records, its name says 5."]
    empty = tmp_path / "empty.tfrec"
    empty.touch()
    assert tfrecords.verify([empty]) == [f"{empty}: has no records."]
    with pytest.raises(InputError, match=r"empty\.tfrec: has no records"):
        tfrecords.read_schema(empty)


# Images


def decoded(jpeg):
    with Image.open(BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


MODES = ["RGB", "L", "1", "P", "CMYK", "LA", "RGBA", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_that_looks_the_same(tmp_path, make_sheet, mode):
    image = make_sheet(1, 96, 64)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path = tmp_path / ({"CMYK": "image.jpg", "I;16": "image.tif"}.get(mode, "image.png"))
    image.save(path)
    pixels = decoded(tfrecords.encode_image(path, size=48))
    expected = (
        make_sheet(1, 96, 64).convert("L" if mode in ("L", "1", "LA", "I;16") else "RGB").convert("RGB")
    )
    expected = np.asarray(expected.resize((48, 48), Image.Resampling.LANCZOS)).astype(int)
    assert pixels.shape == (48, 48, 3)
    tolerance = {"1": 40, "P": 20}.get(mode, 8)  # dithered; a palette of few colours
    assert np.abs(pixels - expected).mean() < tolerance


def test_transparency_shows_white_paper(tmp_path):
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert decoded(tfrecords.encode_image(tmp_path / "clear.png", size=16)).min() >= 254


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 60), "white")
    image.paste("black", (0, 0, 40, 30))  # dark above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for viewing: dark on the right
    image.save(tmp_path / "turned.jpg", exif=exif)
    pixels = decoded(tfrecords.encode_image(tmp_path / "turned.jpg", size=32))
    assert pixels[:, 24:].mean() < 30
    assert pixels[:, :8].mean() > 225


def test_a_large_jpeg_is_squeezed_as_if_decoded_in_full(tmp_path, make_sheet):
    make_sheet(2, 900, 1200).save(tmp_path / "large.jpg", quality=95)
    pixels = decoded(tfrecords.encode_image(tmp_path / "large.jpg", size=96))
    with Image.open(tmp_path / "large.jpg") as image:
        expected = np.asarray(image.resize((96, 96), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels - expected).mean() < 3


def test_images_come_back_in_order_whatever_the_number_of_workers(tmp_path, make_sheet):
    paths = []
    for number in range(12):
        size = 400 if number == 0 else 40  # the first takes longest
        paths.append(tmp_path / f"{number}.png")
        make_sheet(number, size, size).save(paths[-1])
    alone = list(tfrecords.encode_images(paths, size=32, workers=1, progress=False))
    together = list(tfrecords.encode_images(paths, size=32, workers=3, progress=False))
    assert alone == together == [tfrecords.encode_image(path, size=32) for path in paths]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0broken", None])
def test_a_broken_image_is_named(tmp_path, make_jpeg, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(make_jpeg(0, 200, 200)[:2000] if content is None else content)
    with pytest.raises(InputError, match=r"broken\.jpg: not a readable image"):
        list(tfrecords.encode_images([path], progress=False))


# Own sheets


@pytest.fixture
def own_sheets(tmp_path, make_sheet):
    """A CSV and a folder of ten images, two of each of five species."""
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    rows = ["image_id,file_name,scientificName"]
    for number in range(10):
        name = f"sub/sheet{number}.png"
        make_sheet(number, 50, 70).save(images / name)
        rows.append(f"S{number},{name},{'BEACD'[number % 5]}us albus")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(rows) + "\n")
    return labels, images, tmp_path / "out"


def test_own_sheets_become_a_data_set(own_sheets):
    labels_csv, images, out = own_sheets
    shards = tfrecords.write_from_labels(labels_csv, images, out, size=64, shard_images=6, progress=False)
    assert sorted(path.name for path in out.iterdir()) == [
        "labels.json",
        "own_res64by64_train00_6.tfrec",
        "own_res64by64_train01_4.tfrec",
        "train_metadata.json",
    ]
    assert shards == sorted(out.glob("*.tfrec"))
    assert tfrecords.verify(shards) == []
    assert tfrecords.read_schema(shards[0]) == TRAIN_SCHEMA
    assert tfrecords.inspect(shards)[0]["image_sizes"] == {"64x64": 6}
    labels = LabelMap.load(out / "labels.json")
    metadata = read_metadata(out / "train_metadata.json")
    name_of = dict(
        zip(
            metadata.annotations["image_id"],
            labels.to_class(metadata.annotations["category_id"]),
            strict=True,
        )
    )
    published = pd.read_csv(labels_csv).set_index("image_id")
    for record in tfrecords.read_records(shards):
        row = published.loc[record["image_id"]]
        assert record["image"] == tfrecords.encode_image(images / row["file_name"], size=64)
        assert labels.names[record["scientificName"]] == row["scientificName"]
        assert labels.genus_names[record["genus"]] == row["scientificName"].split()[0]
        assert labels.family_names[record["family"]] == "unknown"
        assert name_of[record["image_id"]] == record["scientificName"]


def test_own_sheets_are_mixed_by_the_seed(own_sheets):
    labels_csv, images, out = own_sheets
    ids = {}
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        shards = tfrecords.write_from_labels(
            labels_csv, images, out / run, size=16, seed=seed, progress=False
        )
        ids[run] = tfrecords.read_labels(shards)["image_id"].tolist()
    assert ids["a"] == ids["b"] != ids["c"]
    assert sorted(ids["a"]) == sorted(ids["c"]) == [f"S{number}" for number in range(10)]


def test_a_withheld_part_can_be_scored(own_sheets):
    labels_csv, images, out = own_sheets
    shards = tfrecords.write_from_labels(labels_csv, images, out, size=16, test_fraction=0.5, progress=False)
    assert [path.name for path in shards] == ["own_res16by16_train00_5.tfrec", "own_res16by16_test00_5.tfrec"]
    train, test = (tfrecords.read_labels([shard]) for shard in shards)
    assert sorted(train["class_index"]) == [0, 1, 2, 3, 4]
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


def test_missing_images_are_listed_before_any_work(own_sheets):
    labels_csv, images, out = own_sheets
    for number in (3, 7):
        (images / f"sub/sheet{number}.png").unlink()
    with pytest.raises(InputError) as caught:
        tfrecords.write_from_labels(labels_csv, images, out, progress=False)
    assert "2 of 10 image files" in str(caught.value)
    assert "sub/sheet3.png\n  sub/sheet7.png" in str(caught.value)
    assert not out.exists()


def test_only_the_first_twenty_missing_images_are_listed(tmp_path):
    rows = "\n".join(f"{number},{number:02d}.jpg,Zea mays" for number in range(25))
    (tmp_path / "labels.csv").write_text("image_id,file_name,scientificName\n" + rows + "\n")
    with pytest.raises(InputError) as caught:
        tfrecords.write_from_labels(tmp_path / "labels.csv", tmp_path, tmp_path / "out", progress=False)
    assert "25 of 25" in str(caught.value)
    assert "19.jpg\n  ..." in str(caught.value)
    assert "20.jpg" not in str(caught.value)


def test_a_broken_image_stops_the_job_and_leaves_nothing(own_sheets):
    labels_csv, images, out = own_sheets
    (images / "sub/sheet4.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"sheet4\.png"):
        tfrecords.write_from_labels(labels_csv, images, out, size=16, shard_images=2, progress=False)
    assert list(out.iterdir()) == []


def test_a_folder_with_shards_is_not_written_over(own_sheets):
    labels_csv, images, out = own_sheets
    (first, *_) = tfrecords.write_from_labels(labels_csv, images, out, size=16, progress=False)
    before = first.read_bytes()
    with pytest.raises(InputError, match="already holds 1 shards"):
        tfrecords.write_from_labels(labels_csv, images, out, size=16, seed=9, progress=False)
    assert first.read_bytes() == before


@pytest.mark.parametrize(
    "option", [{"size": 0}, {"quality": 101}, {"test_fraction": 1.0}, {"test_fraction": -0.1}]
)
def test_options_out_of_range_are_refused(own_sheets, option):
    labels_csv, images, out = own_sheets
    with pytest.raises(UsageError, match=next(iter(option)).split("_")[0]):
        tfrecords.write_from_labels(labels_csv, images, out, progress=False, **option)
    assert not out.exists()


def test_real_sheets_go_to_shards_of_real_size(real_sheets, tmp_path):
    shards = tfrecords.write_from_labels(
        real_sheets / "labels.csv", real_sheets, tmp_path / "out", progress=False
    )
    (found,) = tfrecords.inspect(shards)
    assert found["records"] == 100
    assert found["image_sizes"] == {"480x480": 100}
    assert 50 < found["mean_image_kb"] < 80
    assert tfrecords.verify(shards) == []
