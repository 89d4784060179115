"""What is wrong with a record, decided in `judge` alone; bad records found, named by file and position, left out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from utils.data import jpeg
from utils.data.records import (
    CLASS,
    FAMILY,
    GENUS,
    IMAGE,
    IMAGE_ID,
    NotAnExample,
    lists_of,
    other_image,
    raw_records,
)
from utils.data.shards import COUNT_IN_NAME, masked_crc, refuse_compressed, stem_of, what_instead
from utils.files import InputError, in_order

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
    from tqdm.auto import tqdm

    paths = [Path(shard) for shard in shards]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file.")
    with closing(in_order(lambda path: _bad_in_shard(path, n_classes), paths)) as found:
        for bad in tqdm(found, total=len(paths), desc="check records", unit=" shards", disable=not progress):
            yield from bad


def without_bad(shards: Iterable[Path], bad: Iterable[BadRecord], folder: Path) -> dict[Path, Path]:
    """What to read in place of each shard: itself, or a copy in `folder` that has only its whole records.

    Copies are named by the records they hold. A shard with no whole record is not in the result.
    """
    import tensorflow as tf

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
    import tensorflow as tf

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
    promised = int(named[1]) if (named := COUNT_IN_NAME.search(path.name)) else None
    bad: list[BadRecord] = []
    kinds: dict[str, str] = {}
    count, broken_off = 0, False
    for _, record in entries(path):
        labelled = n_classes is not None or CLASS in kinds
        needed = (IMAGE, IMAGE_ID, CLASS) if labelled else (IMAGE, IMAGE_ID)
        # The first record settles whether there are classes, and of what kind the ids are.
        verdict = judge(record, needed, () if kinds else (CLASS,), like=kinds, n_classes=n_classes)
        kinds = kinds or verdict.kinds
        if verdict.reason:
            bad.append(BadRecord(path, count, verdict.reason))
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


_ALLOWED = {IMAGE: ("bytes",), IMAGE_ID: ("bytes", "int64")}
_ALLOWED |= dict.fromkeys((CLASS, GENUS, FAMILY), ("int64",))


@dataclass(frozen=True)
class Verdict:
    """What `judge` says of a record. Without a reason it can be used."""

    reason: str | None = None  # why it cannot be used: words behind "record 7"
    note: str = ""  # what is wrong with its JPEG without harm
    # Of the features looked at, where these are as they must be.
    kinds: dict[str, str] = field(default_factory=dict)
    values: dict[str, bytes | int] = field(default_factory=dict)  # the same


def wrong_kind(
    kinds: Mapping[str, str],
    needed: Sequence[str],
    optional: Iterable[str] = (),
    like: Mapping[str, str] | None = None,
) -> str | None:
    """Why a record cannot be used whose features have these kinds, as in `Verdict.reason`; None when it can.

    Args:
        kinds: of all its features.
        needed, optional: those of FEATURES that must be there, and those that are looked at where they are.
        like: kinds that the shard has settled on; others are wrong.
    """
    for name in (*needed, *(name for name in optional if name in kinds)):
        if name not in kinds:
            return f"has no feature {name!r}; found {', '.join(sorted(kinds)) or 'none'}"
        allowed = (like[name],) if like and name in like else _ALLOWED[name]
        if kinds[name] not in allowed:
            return f"has feature {name!r} as {kinds[name]}, must be {' or '.join(allowed)}"
    return None


def judge(
    content: bytes | str,
    needed: Sequence[str],
    optional: Iterable[str] = (),
    *,
    like: Mapping[str, str] | None = None,
    n_classes: int | None = None,
    labels_from_0: bool = False,
) -> Verdict:
    """What is wrong with a record: the one place that decides it, for verifying, leaving out and training.

    Args:
        content: its bytes, or what `entries` says in place of damaged ones.
        needed, optional, like: as for `wrong_kind`.
        n_classes: classes of the label map, which the class must be below; None where it does not matter.
        labels_from_0: whether labels below 0 are wrong, which nothing trains on.
    """
    if isinstance(content, str):
        return Verdict(content)
    try:
        lists = lists_of(content)
    except NotAnExample as error:
        return Verdict(f"is {error}")
    if reason := wrong_kind({name: kind for name, (kind, _) in lists.items()}, needed, optional, like):
        return Verdict(reason)
    looked_at = [name for name in dict.fromkeys((*needed, *optional)) if name in lists]
    for name in looked_at:
        if (count := len(lists[name][1])) != 1:
            return Verdict(f"has {count} values in feature {name!r} instead of one")
    values = {name: lists[name][1][0] for name in looked_at}
    if n_classes is not None and not 0 <= values[CLASS] < n_classes:
        return Verdict(f"has class index {values[CLASS]}, and the label map has 0 to {n_classes - 1}")
    for name in (CLASS, GENUS, FAMILY):
        if labels_from_0 and values.get(name, 0) < 0:
            return Verdict(f"has feature {name!r} that is {values[name]}, must be 0 or more")
    kinds = {name: lists[name][0] for name in looked_at}
    if other := other_image(values[IMAGE]):
        return Verdict(f"has an image that is {other}", "", kinds, values)
    try:
        return Verdict(None, jpeg.examine(values[IMAGE]), kinds, values)
    except jpeg.Damaged as error:
        return Verdict(f"has an image that is not a whole JPEG ({error})", "", kinds, values)


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
