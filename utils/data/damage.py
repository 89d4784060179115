"""Bad records of shards: found, named by file and position, and left out where that is wished."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from utils.data import jpeg
from utils.data.records import CLASS, IMAGE, IMAGE_ID, other_image, raw_records
from utils.data.shards import COUNT_IN_NAME, masked_crc, refuse_compressed, stem_of, what_instead
from utils.files import InputError

WAY_OUT = "Download or write the shard again"


@dataclass(frozen=True)
class BadRecord:
    """A place in a shard that cannot be used, and why."""

    file: Path
    position: int  # of the record in its shard, from 0
    reason: str
    lost: int = 1  # records that cannot be used for it: this one, or all behind it too

    def __str__(self) -> str:
        more = f" ({self.lost:,} records are lost)" if self.lost > 1 else ""
        return f"{self.file}: record {self.position} {self.reason}{more}"


def bad_records(
    shards: Iterable[Path], n_classes: int | None = None, *, progress: bool = False
) -> Iterator[BadRecord]:
    """Every record that training or prediction cannot use, in the order of the shards.

    Checked are the checksums, the features that are needed, that the image is a whole JPEG, the class against the
    label map, and the number of records against the file name. A record with a wrong checksum is passed over;
    behind a damaged length nothing can be found. Reads every byte and decodes every image, one shard a core at
    a time: some 1,000 sheets of 480 px a second and core.

    Args:
        shards: TFRecord files.
        n_classes: classes of the label map; None where the class is not needed.
        progress: show a bar with the shards done.

    Raises:
        InputError: a shard is not there, or is compressed.
    """
    from tqdm import tqdm

    paths = [Path(shard) for shard in shards]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file.")
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        found = pool.map(lambda path: _bad_in_shard(path, n_classes), paths)
        bar = tqdm(found, total=len(paths), desc="check records", unit=" shards", disable=not progress)
        for bad in bar:
            yield from bad
    finally:
        pool.shutdown(cancel_futures=True)


def without_bad(shards: Iterable[Path], bad: Iterable[BadRecord], folder: Path) -> dict[Path, Path]:
    """What to read in place of each shard: itself, or a copy in `folder` that has only its whole records.

    Copies are named by the records they hold. A shard with no whole record is not in the result.
    """
    damaged: dict[Path, set[int]] = {}
    for record in bad:
        damaged.setdefault(record.file, set()).update([record.position] if record.lost else [])
    result = {}
    for path in map(Path, shards):
        if path not in damaged:
            result[path] = path
            continue
        stem = stem_of(path.name)
        copy, count = folder / f".{stem}.tmp", 0
        with tf.io.TFRecordWriter(str(copy)) as writer:
            for position, (_, record) in enumerate(entries(path)):
                if position not in damaged[path]:
                    writer.write(record)
                    count += 1
        if count:
            result[path] = copy.replace(folder / f"{stem}_{count}.tfrec")
        else:
            copy.unlink()
    return result


@contextmanager
def naming_damage(
    shards: Iterable[Path],
    n_classes: int | None = None,
    *,
    way_out: str = WAY_OUT,
    progress: bool = False,
) -> Iterator[None]:
    """Around what reads shards with tf.data: an error about a record then names its file and position.

    TensorFlow names neither, so the shards are looked through once an error has come. An error that no record
    explains stays as it is.

    Raises:
        InputError: with the first bad record, when the block raised for it.
    """
    try:
        yield
    except (
        tf.errors.DataLossError,  # checksum, length
        tf.errors.InvalidArgumentError,  # feature, image, class
        tf.errors.FailedPreconditionError,  # number of records
        UnicodeDecodeError,  # TensorFlow's message quotes the bytes of what is no Example
    ) as error:
        with closing(bad_records(shards, n_classes, progress=progress)) as found:
            first = next(found, None)
        if first is None:
            raise
        raise InputError(f"{first}. {way_out}.") from error


def _bad_in_shard(path: Path, n_classes: int | None) -> list[BadRecord]:
    named = COUNT_IN_NAME.search(path.name)
    promised = int(named[1]) if named else None
    bad: list[BadRecord] = []
    kinds: dict[str, str] = {}
    count, broken_off = 0, False
    for _, record in entries(path):
        reason = _problem(record, kinds, n_classes) if isinstance(record, bytes) else record
        if reason:
            bad.append(BadRecord(path, count, reason))
        broken_off = isinstance(record, str) and record != BAD_CHECKSUM
        count += 1
    if promised is not None and count > promised:
        reason = f"is one more than the {promised} that the name promises"
        bad.append(BadRecord(path, promised, reason, lost=0))
    elif promised is not None and count < promised:
        if broken_off:
            bad[-1] = BadRecord(path, count - 1, bad[-1].reason, lost=promised - count + 1)
        else:
            reason = f"is not there, though the name promises {promised}"
            bad.append(BadRecord(path, count, reason, lost=promised - count))
    elif count == 0:
        bad.append(BadRecord(path, 0, "is not there: the file has none", lost=0))
    return bad


_KINDS = {"bytes_list": "bytes", "int64_list": "int64", "float_list": "float", None: "empty"}


def _problem(serialized: bytes, kinds: dict[str, str], n_classes: int | None) -> str | None:
    """What is wrong with a record; None when it can be used.

    `kinds` holds the kinds of image_id and class that the records of its shard share; the first one sets them.
    """
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        return "is no tf.train.Example"
    allowed = {IMAGE: ("bytes",), IMAGE_ID: (kinds[IMAGE_ID],) if kinds else ("bytes", "int64")}
    if n_classes is not None or (CLASS in kinds if kinds else CLASS in features):
        allowed[CLASS] = ("int64",)
    values, found = {}, {}
    for name in allowed:
        if name not in features:
            return f"has no feature {name!r}; found {', '.join(sorted(features)) or 'none'}"
        kind = features[name].WhichOneof("kind")
        found[name] = _KINDS[kind]
        if found[name] not in allowed[name]:
            return f"has feature {name!r} as {found[name]}, must be {' or '.join(allowed[name])}"
        content = getattr(features[name], kind).value
        if len(content) != 1:
            return f"has {len(content)} values in feature {name!r} instead of one"
        values[name] = content[0]
    if n_classes is not None and not 0 <= values[CLASS] < n_classes:
        return f"has class index {values[CLASS]}, and the label map has 0 to {n_classes - 1}"
    kinds.update(found)
    if kind := other_image(values[IMAGE]):
        return f"has an image that is {kind}"
    try:
        jpeg.examine(values[IMAGE])
    except jpeg.Damaged as error:
        return f"has an image that is not a whole JPEG ({error})"
    return None


BAD_CHECKSUM = "has a wrong checksum"
CUT_OFF = "has a damaged length, or the file ends inside it; nothing behind it can be read"


def entries(path: Path) -> Iterator[tuple[int, bytes | str]]:
    """Byte offset and bytes of each record of a shard; in place of damaged bytes what is wrong with them.

    That is BAD_CHECKSUM, or at the end CUT_OFF or what the file is that is no shard.

    Raises:
        InputError: the file is not there, or is compressed.
    """
    import tensorflow as tf

    offset = 0
    try:
        for serialized in raw_records(path):
            yield offset, serialized
            offset += 16 + len(serialized)
        if offset < path.stat().st_size:  # TensorFlow takes less than a header for the end
            yield offset, CUT_OFF
    except tf.errors.DataLossError:
        if not offset:
            refuse_compressed(path)
        if not offset and (instead := what_instead(path)):
            yield offset, f"cannot be read: the file is {instead}"
            return
        yield from _entries_behind(path, offset)  # TensorFlow reads no further


def _entries_behind(path: Path, offset: int) -> Iterator[tuple[int, bytes | str]]:
    """`entries` from an offset on without TensorFlow; its checksums cost some 10 ms a record.

    A record is u64 length, u32 masked CRC-32C of the length, data, u32 masked CRC-32C of the data.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while header := file.read(12):
            length = int.from_bytes(header[:8], "little")
            known = len(header) == 12 and masked_crc(header[:8]) == int.from_bytes(header[8:], "little")
            if not known or offset + 16 + length > path.stat().st_size:
                yield offset, CUT_OFF
                return
            data, crc = file.read(length), int.from_bytes(file.read(4), "little")
            yield offset, data if masked_crc(data) == crc else BAD_CHECKSUM
            offset += 16 + length
