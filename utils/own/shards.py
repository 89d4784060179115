"""Records written to shards in the published format, whole or not at all."""

import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utils.data.records import CLASS, FAMILY, GENUS, IMAGE, IMAGE_ID, first_line


@dataclass(frozen=True)
class Record:
    """One sheet as it goes into a shard: the three indices are all set (train) or all None (test)."""

    image: bytes  # JPEG
    image_id: str | int  # text in the published train shards, a number in the test shards
    class_index: int | None = None
    genus_index: int | None = None
    family_index: int | None = None


def shard_name(prefix: str, size: int, split: str, number: int, count: int) -> str:
    """The published file name of a shard, e.g. h22_res480by480_train00_1000.tfrec."""
    return f"{prefix}_res{size}by{size}_{split}{number:02d}_{count}.tfrec"


def _serialize(record: Record) -> bytes:
    import tensorflow as tf

    def bytes_feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def int64_feature(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    if isinstance(record.image_id, str):
        image_id = bytes_feature(record.image_id.encode())
    else:
        image_id = int64_feature(int(record.image_id))
    features = {IMAGE: bytes_feature(record.image), IMAGE_ID: image_id}
    if record.class_index is not None:
        features[CLASS] = int64_feature(int(record.class_index))
        features[GENUS] = int64_feature(int(record.genus_index))
        features[FAMILY] = int64_feature(int(record.family_index))
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # Map fields have no order of their own; sorted, the same records give the same bytes.
    return example.SerializeToString(deterministic=True)


def write_records(records: Iterable[Record], path: Path) -> int:
    """Write records to one file, one record in memory at a time, and see it on the disk.

    Returns:
        The number of records.

    Raises:
        OSError: the file cannot be written; `replacing` and its kin make one line of it.
    """
    from utils.startup import import_tensorflow

    tf = import_tensorflow()
    count = 0
    with errors_of_the_system(path), tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(_serialize(record))
            count += 1
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return count


@contextmanager
def errors_of_the_system(path: Path) -> Iterator[None]:
    """Let TensorFlow's errors, while it writes `path`, be the OSErrors that they come from."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        reason = first_line(error).rpartition("; ")[2].partition(" [Op:")[0]  # behind the path
        number = next((each for each in errno.errorcode if os.strerror(each) == reason), errno.EIO)
        raise OSError(number, reason, str(path)) from error


def write_shards(
    records: Iterable[Record],
    folder: Path,
    *,
    split: str,
    prefix: str = "h22",
    size: int = 480,
    shard_images: int = 1000,
) -> list[Path]:
    """Write records to shards named as published, one record in memory at a time.

    The number of records is in the name and known at the end, so a shard is written under a hidden name
    and renamed when it is whole.

    Args:
        records: the sheets, in the order in which they are to be stored.
        folder: made if it is not there.
        split: "train", "val" or "test".
        prefix: the first part of the file names.
        size: pixels a side, for the names only; the images are stored as they are.
        shard_images: records a shard; the last one has what is left.

    Returns:
        The shards in order; none when there are no records.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = iter(records)
    shards: list[Path] = []
    for number in itertools.count():
        first = next(records, None)
        if first is None:
            return shards
        partial = folder / f".{prefix}_{split}{number:02d}.{os.getpid()}.tmp"
        try:
            count = write_records(
                itertools.chain([first], itertools.islice(records, shard_images - 1)), partial
            )
            shard = folder / shard_name(prefix, size, split, number, count)
            partial.replace(shard)
        finally:
            partial.unlink(missing_ok=True)
        shards.append(shard)
