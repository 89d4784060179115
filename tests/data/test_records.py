import hashlib
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.data.records import count_records, first_labels, read_labels, read_records, read_schema
from utils.data.shards import masked_crc
from utils.files import InputError
from utils.own import verify
from utils.own.shards import Record, shard_name, write_records, write_shards

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
    return write_shards(iter(train_records), folder, split="train", shard_images=4)


def test_shards_have_the_published_names_and_nothing_else_is_left(train_shards):
    assert [path.name for path in train_shards] == [
        "h22_res480by480_train00_4.tfrec",
        "h22_res480by480_train01_4.tfrec",
        "h22_res480by480_train02_2.tfrec",
    ]
    assert sorted(train_shards[0].parent.iterdir()) == train_shards
    assert shard_name("own", 512, "val", 3, 17) == "own_res512by512_val03_17.tfrec"


def test_train_records_have_the_published_features(train_shards, train_records):
    assert read_schema(train_shards[0]) == TRAIN_SCHEMA
    records = list(read_records(train_shards))
    assert [record["image_id"] for record in records] == [record.image_id for record in train_records]
    for record, written in zip(records, train_records, strict=True):
        assert record["image"] == written.image
        assert (record["scientificName"], record["genus"], record["family"]) == (
            written.class_index,
            written.genus_index,
            written.family_index,
        )


def test_test_records_have_integer_ids_and_no_labels(tmp_path, make_jpeg):
    shards = write_shards([Record(make_jpeg(0, 32, 32), np.int64(17))], tmp_path, split="test", prefix="h22")
    assert shards[0].name == "h22_res480by480_test00_1.tfrec"
    assert read_schema(shards[0]) == {"image": "bytes", "image_id": "int64"}
    assert [record["image_id"] for record in read_records(shards)] == ["17"]
    assert read_labels(shards).to_dict("list") == {"image_id": ["17"], "class_index": [-1]}


def test_the_same_records_give_the_same_bytes(train_records, train_shards, tmp_path):
    again = write_shards(train_records, tmp_path, split="train", shard_images=4)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in train_shards]


def test_records_are_taken_one_at_a_time(tmp_path, train_records):
    """A shard's first record is on its way to disk before the second is made."""
    asked = []

    def slowly():
        for number, record in enumerate(train_records):
            asked.append((number, sorted(path.name for path in tmp_path.glob("*.tfrec"))))
            yield record

    write_shards(slowly(), tmp_path, split="train", shard_images=5)
    assert asked[4][1] == []
    assert asked[6][1] == ["h22_res480by480_train00_5.tfrec"]


def test_a_failing_source_leaves_no_half_written_shard(tmp_path, train_records):
    def failing():
        yield from train_records[:3]
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        write_shards(failing(), tmp_path, split="train", shard_images=2)
    assert [path.name for path in tmp_path.iterdir()] == ["h22_res480by480_train00_2.tfrec"]


def test_no_records_make_no_shards(tmp_path):
    assert write_shards([], tmp_path, split="train") == []
    assert list(tmp_path.iterdir()) == []


def test_counting_uses_the_names_and_falls_back_to_the_records(train_shards, tmp_path):
    unnamed = tmp_path / "part.tfrec"
    shutil.copy(train_shards[0], unnamed)
    assert count_records([*train_shards, unnamed]) == 14
    assert count_records([tmp_path / "h22_res480by480_train07_123.tfrec"]) == 123
    unnamed.write_bytes(train_shards[0].read_bytes()[:-3])
    with pytest.raises(InputError, match=r"part\.tfrec: ends inside record 3"):
        count_records([unnamed])


def test_read_labels_gives_ids_and_classes_in_order(train_shards, train_records):
    table = read_labels(train_shards)
    assert table["image_id"].tolist() == [record.image_id for record in train_records]
    assert table["class_index"].tolist() == [record.class_index for record in train_records]


def test_inspect_tells_what_is_in_a_shard(train_shards):
    first, last = verify.inspect([train_shards[0], train_shards[2]])
    assert first["records"] == 4
    assert first["bytes"] == train_shards[0].stat().st_size
    assert first["schema"] == TRAIN_SCHEMA
    assert first["image_sizes"] == {"40x40": 4}
    assert (first["class_min"], first["class_max"]) == (0, 3)
    assert (last["class_min"], last["class_max"]) == (0, 1)
    assert json.loads(json.dumps(first)) == first


def test_verify_finds_nothing_in_good_shards(train_shards):
    assert verify.verify(train_shards) == []


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
    problems = verify.verify([flipped, cut, tmp_path / "absent.tfrec"])
    assert len(problems) == 3
    assert problems[0] == f"{flipped}: record 1 at byte {length}: has a wrong checksum."
    assert problems[1].startswith(f"{cut}: record 3 at byte ")
    assert "the file ends inside it; nothing behind it can be read" in problems[1]
    assert problems[2] == f"{tmp_path / 'absent.tfrec'}: no such file."
    with pytest.raises(InputError, match=r"a_train00_4\.tfrec: record 1 is damaged"):
        list(read_records([flipped]))


def test_verify_reports_each_bad_record_and_goes_on(tmp_path, make_jpeg):
    good = make_jpeg(0, 32, 32)
    records = [
        Record(good, "a", 0, 0, 0),
        Record(good[: len(good) // 2], "b", 0, 0, 0),
        Record(good, "c"),
        Record(b"no image", "d", 0, 0, 0),
        Record(good, "e", -1, 0, 0),
    ]
    (shard,) = write_shards(records, tmp_path, split="train")
    problems = verify.verify([shard])
    assert [problem.split(": ")[1].split(" at byte ")[0] for problem in problems] == [
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
    assert verify.verify([misnamed]) == [f"{misnamed}: has 4 records, its name says 5."]
    empty = tmp_path / "empty.tfrec"
    empty.touch()
    assert verify.verify([empty]) == [f"{empty}: has no records."]
    with pytest.raises(InputError, match=r"empty\.tfrec: has no records"):
        read_schema(empty)


def frames(path):
    """Byte offset and length of the data of each record."""
    content, offset, found = path.read_bytes(), 0, []
    while offset < len(content):
        length = int.from_bytes(content[offset : offset + 8], "little")
        found.append((offset, length))
        offset += 16 + length
    return found


def test_every_damaged_record_of_a_shard_is_listed(train_records, tmp_path):
    (whole,) = write_shards(train_records, tmp_path, split="train")
    places = frames(whole)

    def damage(content):
        content[places[2][0] + 12 + 50] ^= 1  # data
        content[places[5][0] + 12 + places[5][1]] ^= 1  # the checksum of the data
        content[places[8][0]] ^= 1  # a length: what follows cannot be found

    shard = damaged(whole, tmp_path, "c_train00_10.tfrec", damage)
    assert verify.verify([shard]) == [
        f"{shard}: record 2 at byte {places[2][0]}: has a wrong checksum.",
        f"{shard}: record 5 at byte {places[5][0]}: has a wrong checksum.",
        f"{shard}: record 8 at byte {places[8][0]}: has a damaged length, or the file ends "
        "inside it; nothing behind it can be read.",
    ]


def test_bytes_behind_the_last_record_are_told(train_shards, tmp_path):
    shard = damaged(train_shards[0], tmp_path, "e_train00_4.tfrec", lambda content: content.extend(b"12345"))
    (problem,) = verify.verify([shard])
    assert problem.startswith(f"{shard}: record 4 at byte {shard.stat().st_size - 5}: has a damaged length")


def test_the_records_behind_a_damaged_one_are_checked_as_well(tmp_path, make_jpeg):
    good = make_jpeg(0, 32, 32)
    records = [Record(good, "a", 0, 0, 0), Record(good, "b", 0, 0, 0), Record(good[:300], "c", 0, 0, 0)]
    (whole,) = write_shards(records, tmp_path, split="train")
    shard = damaged(
        whole, tmp_path, "d_train00_4.tfrec", lambda content: content.__setitem__(40, content[40] ^ 1)
    )
    first, second, third = verify.verify([shard])
    assert first == f"{shard}: record 0 at byte 0: has a wrong checksum."
    assert f"record 2 at byte {frames(whole)[2][0]}: has an image that is not a whole JPEG" in second
    assert third == f"{shard}: has 3 records, its name says 4."


def test_the_checksum_is_crc_32c():
    """The check value of the CRC catalogue, masked as TensorFlow's record_writer.h describes it."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_features_may_be_missing_or_more_but_the_same_in_all_records(tmp_path, make_jpeg):
    import tensorflow as tf

    def example(collectors=(), **numbers):
        features = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[make_jpeg(1, 20, 30)])),
            "collectors": tf.train.Feature(bytes_list=tf.train.BytesList(value=collectors)),
        }
        for name, value in {"image_id": 7, "scientificName": 3, **numbers}.items():
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    def verified(*examples):
        with tf.io.TFRecordWriter(str(shard)) as writer:
            for serialized in examples:
                writer.write(serialized)
        return verify.verify([shard])

    shard = tmp_path / "mini_res20by30_train00_3.tfrec"
    assert verified(example([b"A"]), example([]), example([b"B", b"C"])) == []
    (found,) = verify.inspect([shard])
    assert found["extra_features"] == ["collectors"]
    assert found["schema"] == {
        "collectors": "bytes",
        "image": "bytes",
        "image_id": "int64",
        "scientificName": "int64",
    }
    assert found["manifest"] is None
    (problem,) = verified(example(), example(genus=2), example())
    assert "record 1 at byte" in problem
    assert "has the features genus int64, image bytes" in problem
    assert "records before it image bytes, image_id int64, scientificName int64." in problem


# Folders and manifests


@pytest.fixture
def listed(train_shards, tmp_path):
    """A folder of three shards with a manifest."""
    folder = tmp_path / "listed"
    shutil.copytree(train_shards[0].parent, folder)
    shards = [
        {
            "file": path.name,
            "records": int(path.stem.split("_")[-1]),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.glob("*.tfrec"))
    ]
    (folder / "manifest.json").write_text(json.dumps({"shards": shards}))
    return folder


def test_shards_are_compared_with_their_manifest(listed, make_jpeg):
    first, second, third = sorted(listed.glob("*.tfrec"))
    assert verify.verify([listed]) == []
    assert [shard["manifest"] for shard in verify.inspect([listed])] == ["says the same"] * 3
    records = [Record(make_jpeg(50 + number, 40, 40), "a", 0, 0, 0) for number in range(4)]
    (other,) = write_shards(records, listed, split="train", prefix="other")
    other.replace(first)
    second.rename(listed / "h22_res480by480_train05_4.tfrec")
    problems = verify.verify([listed])
    assert len(problems) == 3
    assert problems[0].startswith(f"{first}: is not the file that manifest.json lists (4 records")
    assert problems[1] == f"{listed / 'h22_res480by480_train05_4.tfrec'}: is not listed in manifest.json."
    assert problems[2] == f"{second}: is listed in manifest.json and not there."
    assert verify.verify([third]) == [problems[2]]
    found = [shard["manifest"] for shard in verify.inspect([listed])]
    assert found[0].startswith("says 4 records, ") and found[0].endswith(" bytes")
    assert found[1:] == ["says the same", "does not list this shard"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"shards": 3}',
        '{"shards": [{"file": "a"}]}',
        '{"shards": [{"file": 3, "records": 1, "bytes": 1, "sha256": "a"}]}',
        '{"shards": [], "records": {"train": "many"}}',
        '{"shards": [], "settings": null}',
        '{"shards": [], "notes": [3]}',
        "{",
    ],
)
def test_a_file_that_is_no_manifest_is_named(listed, text):
    (listed / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json: .*(Delete it|Download or write)"):
        verify.verify([listed])


def test_a_folder_without_shards_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"no shards .* in this folder"):
        verify.inspect([tmp_path])


def test_the_commands_take_folders_and_show_at_most_twenty_problems(listed, tmp_path, make_jpeg):
    def call(*arguments):
        done = CliRunner().invoke(main, ["tfrecords", *map(str, arguments)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    shown = call("inspect", listed)
    assert shown.exit_code == 0
    assert "says the same" in shown.output and "manifest.json" in shown.output
    assert "3 shards are whole." in call("verify", listed).output
    write_shards([Record(b"no image", str(number), 0, 0, 0) for number in range(25)], tmp_path, split="train")
    done = call("verify", tmp_path)
    assert done.exit_code == 1
    assert "25 problems" in done.output and "... and 5 more" in done.output
    assert "record 19 at" in done.output and "record 20 at" not in done.output


@pytest.mark.parametrize("claims", [2**62, 2**40, 10_000])
@pytest.mark.parametrize("at", [0, 2])
def test_a_length_beyond_the_file_with_its_checksum_is_named_and_never_asked_for(
    tmp_path, make_jpeg, claims, at
):
    path = tmp_path / "x_train00_3.tfrec"
    records = [Record(make_jpeg(number, 48, 48), f"s{number}", 0, 0, 0) for number in range(at)]
    write_records(records, path)
    length = claims.to_bytes(8, "little")
    with path.open("ab") as file:
        file.write(length + masked_crc(length).to_bytes(4, "little") + b"no more than this")
    with pytest.raises(InputError, match=rf"record {at} is damaged"):
        list(read_records([path]))
    with pytest.raises(InputError, match=rf"record {at}|has no records" if at else "record 0"):
        verify.inspect([path])
    assert any(f"record {at} at byte" in problem for problem in verify.verify([path]))
    with pytest.raises(InputError, match=rf"ends inside record {at}"):
        first_labels([path], 100)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("scientificName", b"Zea", "as bytes, must be int64"), ("image", 7, "as int64, must be bytes")],
)
def test_inspect_names_a_feature_of_another_kind(tmp_path, make_jpeg, name, value, said):
    import tensorflow as tf

    features = {"image": make_jpeg(0, 20, 20), "image_id": b"a", "scientificName": 0} | {name: value}
    lists = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[each]))
        if isinstance(each, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[each]))
        for key, each in features.items()
    }
    path = tmp_path / "x_train00_1.tfrec"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString())
    with pytest.raises(InputError, match=rf"x_train00_1\.tfrec: record 0 has feature '{name}' {said}"):
        verify.inspect([path])
