"""Bad records are found by file and position, and left out exactly."""

from pathlib import Path

import published
import pytest
import tensorflow as tf
from published import bytes_list, packed

from utils.data import batches, records
from utils.data.damage import bad_records, naming_damage, without_bad
from utils.files import InputError

SIDE = 40
N = 6  # records a shard


def features(number: int) -> dict[str, bytes]:
    return published.train_features(number, SIDE)


RECORDS = [published.example(features(number)) for number in range(N)]
FRAMES = [published.frame(record) for record in RECORDS]


def shard(folder: Path, frames: list[bytes], name: str = f"h22_res480by480_train00_{N}.tfrec") -> Path:
    path = folder / name
    path.write_bytes(b"".join(frames))
    return path


def with_record(position: int, record: bytes) -> list[bytes]:
    return [*FRAMES[:position], published.frame(record), *FRAMES[position + 1 :]]


def with_feature(position: int, **changed: bytes | None) -> list[bytes]:
    """Frames of which one has features changed, or left out where None."""
    changed = {name: value for name, value in (features(position) | changed).items() if value is not None}
    return with_record(position, published.example(changed))


def flipped(position: int, byte: int) -> list[bytes]:
    """Frames of which one has a bit flipped at a byte: below 8 in its length, from 12 on in its data."""
    frame = bytearray(FRAMES[position])
    frame[byte] ^= 4
    return [*FRAMES[:position], bytes(frame), *FRAMES[position + 1 :]]


def cut(frames: list[bytes], last: int) -> list[bytes]:
    """Frames without the last bytes of the file."""
    return [b"".join(frames)[:-last]]


jpeg = published.jpeg(2, SIDE)
# damage, frames of the shard, position, message, records lost
DAMAGE = {
    "checksum": (flipped(2, 60), 2, "has a wrong checksum", 1),
    "length": (flipped(2, 1), 2, "has a damaged length", 4),
    "cut off": (cut(FRAMES, 9), 5, "the file ends inside it", 1),
    "cut off earlier": (cut(FRAMES, len(FRAMES[5]) + 9), 4, "the file ends inside it", 2),
    "cut in a header": (cut(FRAMES, len(FRAMES[5]) - 7), 5, "the file ends inside it", 1),
    "cut at a boundary": (FRAMES[:4], 4, f"is not there, though the name promises {N}", 2),
    "one too many": ([*FRAMES, FRAMES[0]], 6, f"is one more than the {N}", 0),
    "no example": (with_record(3, b"\x0a\xff"), 3, "is no tf.train.Example", 1),
    "half a JPEG": (with_feature(1, image=bytes_list(jpeg[: len(jpeg) // 2])), 1, "not a whole JPEG", 1),
    "a PNG": (with_feature(1, image=bytes_list(b"\x89PNG\r\n\x1a\n")), 1, "not a whole JPEG", 1),
    "no image": (with_feature(4, image=None), 4, "no feature 'image'; found family, genus, image_id", 1),
    "no class": (with_feature(4, scientificName=None), 4, "has no feature 'scientificName'", 1),
    "two classes": (with_feature(4, scientificName=packed(1, 2)), 4, "has 2 values in feature 'scient", 1),
    "an empty id": (with_feature(4, image_id=b""), 4, "'image_id' as empty, must be bytes", 1),
    "another kind of id": (with_feature(4, image_id=packed(7)), 4, "'image_id' as int64, must be bytes", 1),
    "class too high": (with_feature(5, scientificName=packed(4)), 5, "has class index 4, and the label", 1),
    "class below zero": (with_feature(5, scientificName=packed(-1)), 5, "has class index -1, and the", 1),
}


@pytest.mark.parametrize("frames, position, message, lost", DAMAGE.values(), ids=DAMAGE)
def test_each_damage_is_found_by_file_and_record_and_left_out(tmp_path, frames, position, message, lost):
    good = shard(tmp_path, FRAMES, f"h22_res480by480_train01_{N}.tfrec")
    path = shard(tmp_path, frames)
    (bad,) = bad_records([good, path], n_classes=4)
    assert (bad.file, bad.position, bad.lost) == (path, position, lost)
    assert str(bad).startswith(f"{path}: record {position} ") and message in str(bad)

    (tmp_path / "whole").mkdir()
    whole = without_bad([good, path], [bad], tmp_path / "whole")
    assert whole[good] == good
    kept = [number for number in range(N) if lost == 0 or not position <= number < position + lost]
    kept += [0] if lost == 0 else []
    assert [record["image_id"] for record in records.read_records([whole[path]])] == [
        published.train_id(number) for number in kept
    ]
    assert whole[path].name == f"h22_res480by480_train00_{len(kept)}.tfrec"
    assert list(bad_records(whole.values(), n_classes=4)) == []


def test_an_id_that_is_no_text_is_found_before_anything_takes_it(tmp_path):
    path = shard(tmp_path, with_feature(4, image_id=bytes_list("Ä".encode("latin-1"))))
    (bad,) = bad_records([path], n_classes=4)
    assert str(bad) == f"{path}: record 4 is no tf.train.Example with an id in UTF-8"
    for read in (records.read_records, records.read_labels):
        with pytest.raises(InputError, match=r"record 4 is damaged .*UTF-8"):
            list(read([path]))


def test_records_behind_several_wrong_checksums_are_used(tmp_path):
    frames = [*flipped(1, 60)[:2], *flipped(2, 60)[2:4], *flipped(4, 60)[4:]]
    path = shard(tmp_path, frames, "unnamed.tfrec")
    bad = list(bad_records([path]))
    assert [record.position for record in bad] == [1, 2, 4]
    copy = without_bad([path], bad, tmp_path)[path]
    assert copy.name == "unnamed_3.tfrec"
    assert [r["image_id"] for r in records.read_records([copy])] == [published.train_id(n) for n in (0, 3, 5)]


def test_a_shard_with_no_whole_record_is_left_out_and_a_missing_one_named(tmp_path):
    path = shard(tmp_path, [b"no shard at all"])
    bad = list(bad_records([path]))
    assert [record.lost for record in bad] == [N]
    (tmp_path / "whole").mkdir()
    assert without_bad([path], bad, tmp_path / "whole") == {}
    assert list((tmp_path / "whole").iterdir()) == []
    with pytest.raises(InputError, match=r"absent\.tfrec: no such file"):
        list(bad_records([tmp_path / "absent.tfrec"]))


# What tf.data can only know from the number of records or the label map is an error because it is told them.
@pytest.mark.parametrize("name", DAMAGE)
def test_reading_stops_and_names_the_record(tmp_path, name):
    frames, position, message, _ = DAMAGE[name]
    good = shard(tmp_path, FRAMES, f"h22_res480by480_train01_{N}.tfrec")
    path = shard(tmp_path, frames)
    options = {"image_size": 32, "batch_size": 1, "crop": 1.0, "n_classes": 4, "count": 2 * N}
    for make in (
        lambda: batches.training_dataset([good, path], seed=0, exclude_ids=["other"], **options),
        lambda: batches.evaluation_dataset([good, path], **options),
    ):
        with (
            pytest.raises(InputError, match=f"{path.name}: record {position} ") as error,
            naming_damage([good, path], 4),
        ):
            list(make())
        assert message in str(error.value) and "Download or write the shard again." in str(error.value)


def test_an_error_that_no_record_explains_stays_as_it_is(tmp_path):
    path = shard(tmp_path, FRAMES)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of mine"), naming_damage([path], 4):
        raise tf.errors.InvalidArgumentError(None, None, "of mine")
    with pytest.raises(ZeroDivisionError), naming_damage([path], 4):
        raise ZeroDivisionError
