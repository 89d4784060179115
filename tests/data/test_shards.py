"""Shards as others name, compress and leave them: read, or named for what they are by every command alike."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys
import zlib

import pytest
import tensorflow as tf
from PIL import Image

from utils.data import damage
from utils.data.records import count_records, read_schema
from utils.data.shards import COUNT_IN_NAME, compression, is_shard, split_of, stem_of, what_instead
from utils.files import InputError
from utils.own import shards, verify
from utils.own.shards import Record


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("h22_res480by480_train00_1000.tfrec", "train", 1000),
        ("H22_RES480BY480_TRAIN00_12.TFREC", "train", 12),
        ("train00-2071.tfrec", "train", None),
        ("train_01.tfrecord", "train", None),
        ("test_00.tfrec", "test", None),
        ("flowers-train.tfrecord-00000-of-00005", "train", None),
        ("flowers-valid-00000-of-00005.tfrecords", "val", None),
        ("x_testing00_7.tfrec", "test", 7),
        ("my_train_test_res480by480_test00_5.tfrec", "test", 5),
        ("own_trainer00_5.tfrec", None, 5),
        ("constraint.tfrec", None, None),
        ("00-512x512-798.tfrec", None, None),
    ],
)
def test_a_name_says_split_and_count(name, split, count):
    found = COUNT_IN_NAME.search(name)
    assert is_shard(name) and split_of(name) == split and (int(found[1]) if found else None) == count
    assert name.startswith(stem_of(name)) and "tfrec" not in stem_of(name).lower()


@pytest.mark.parametrize(
    "name", ["._h22_train00_3.tfrec", ".x.tfrec", "x_train00_3.tfrec.part", "x.tfrec.gz", "tfrec", "x.tfrecs"]
)
def test_other_files_are_no_shards(name):
    assert not is_shard(name) and split_of(name) is None


def pack(path, kind):
    content = path.read_bytes()
    path.write_bytes({"GZIP": gzip.compress, "ZLIB": zlib.compress}[kind](content))


@pytest.fixture
def train_shards(tmp_path, make_jpeg):
    records = [Record(make_jpeg(number, 20, 30), f"{number}", 0, 0, 0) for number in range(10)]
    return shards.write_shards(records, tmp_path / "good", split="train", shard_images=4)


@pytest.fixture
def folder(train_shards, tmp_path):
    """Three good shards in a folder whose name has a space."""
    return shutil.copytree(train_shards[0].parent, tmp_path / "my shards")


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_a_compressed_shard_is_named_by_every_reader_with_a_command_that_works(folder, train_shards, kind):
    paths = sorted(folder.glob("*.tfrec"))
    for path in paths if kind == "ZLIB" else paths[:2]:  # gzip passes over what is plain
        pack(path, kind)
    first = paths[0]
    unnamed = first.rename(folder / "other_train.tfrec")
    for read in (
        lambda: verify.verify([unnamed]),
        lambda: verify.inspect([unnamed]),
        lambda: count_records([unnamed]),
        lambda: read_schema(unnamed),
        lambda: list(damage.bad_records([unnamed])),
    ):
        with pytest.raises(
            InputError, match=rf"other_train\.tfrec: is compressed \({kind}\).*in place: for f"
        ) as told:
            read()
    unnamed.rename(first)
    command = str(told.value).split(": ", 3)[-1].replace("python3", sys.executable)
    subprocess.run(["bash", "-c", command], check=True)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in train_shards]
    assert len(list(folder.iterdir())) == 3


def test_compressed_files_in_a_folder_are_not_passed_over(folder, train_shards):
    gunzip = r"_4\.tfrec\.gz: is compressed \(1 such files\).* gunzip .*\*\.gz$"
    first, *rest = sorted(folder.glob("*.tfrec"))
    pack(first, "GZIP")
    first.rename(f"{first}.gz")
    for look in (lambda: verify.shards_in([folder]), lambda: verify.verify([folder])):
        with pytest.raises(InputError, match=gunzip) as told:
            look()
    with pytest.raises(InputError, match=r"is compressed \(GZIP\).*gunzip"):
        verify.verify([f"{first}.gz"])
    subprocess.run(["bash", "-c", str(told.value).split(": ", 2)[-1]], check=True)
    assert [path.read_bytes() for path in verify.shards_in([folder])] == [
        path.read_bytes() for path in train_shards
    ]
    for path in rest:
        shutil.copy(path, f"{path}.gz")  # what gunzip --keep leaves is no second shard
    assert len(verify.shards_in([folder])) == 3


def test_a_good_shard_is_never_taken_for_another_file(tmp_path):
    """The length that it begins with may look like anything; its checksum does not."""
    for start in (b"\x1f\x8b\x08", b"\x78\x9c", b"{", b"PK\x03\x04"):
        path = tmp_path / "x.tfrec"
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(b" " * int.from_bytes(start[:3], "little"))
        assert compression(path) is None and what_instead(path) is None


OTHERS = {
    "a web page": b"<!DOCTYPE html><html>404</html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a zip file": b"PK\x03\x04" + bytes(60),
    "a tar file": bytes(257) + b"ustar" + bytes(250),
    "what macOS leaves": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ",
    "compressed by bzip2": bz2.compress(bytes(60)),
    "compressed by xz": lzma.compress(bytes(60)),
    "compressed by zstd": b"\x28\xb5\x2f\xfd" + bytes(60),
    "compressed by lz4": b"\x04\x22\x4d\x18" + bytes(60),
    "a JPEG image": b"\xff\xd8\xff\xe0" + bytes(60),
    "JSON text": b'{"error": "not found"}',
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_file_that_is_no_shard_is_named_for_what_it_is(tmp_path, what):
    path = tmp_path / "x_train00_9.tfrec"
    path.write_bytes(OTHERS[what])
    (problem,) = verify.verify([path])
    assert problem.startswith(f"{path}: record 0 at byte 0: cannot be read: the file is {what}")
    (bad,) = damage.bad_records([path], n_classes=4)
    assert f"record 0 cannot be read: the file is {what}" in str(bad) and bad.lost == 9
    with pytest.raises(InputError, match=f"the file is {what}"):
        read_schema(path)


def test_a_folder_without_shards_names_what_may_be_meant(tmp_path):
    (tmp_path / "a.tfrec.part").touch()
    with pytest.raises(InputError, match=r"no shards .*; a\.tfrec\.part \(1 in all\) are not named so\."):
        verify.shards_in([tmp_path])
    (tmp_path / "a.tfrec.part").rename(tmp_path / "train-00000-of-00001")
    with pytest.raises(
        InputError, match=r"no shards .*; train-00000-of-00001 \(1 in all\) are not named so\."
    ):
        verify.shards_in([tmp_path])
    for name in ("sub", "__MACOSX"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tfrec").touch()
    with pytest.raises(InputError, match=r"no shards .*; they lie in sub\. Name the folder"):
        verify.shards_in([tmp_path])


def picture(kind, mode):
    file = io.BytesIO()
    Image.new(mode, (20, 30)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "I;16"), ("GIF", "P"), ("WEBP", "RGB")]
)
def test_images_of_another_kind_in_records_are_refused_by_verify_and_by_training_alike(
    tmp_path, make_jpeg, kind, mode
):
    records = [Record(make_jpeg(0, 20, 30), "a", 0, 0, 0), Record(picture(kind, mode), "b", 0, 0, 0)]
    (shard,) = shards.write_shards(records, tmp_path, split="train")
    (problem,) = verify.verify([shard])
    (bad,) = damage.bad_records([shard], n_classes=1)
    for text in (problem, str(bad)):
        assert "record 1" in text and f"a {kind} (" in text and "only JPEG is read" in text
