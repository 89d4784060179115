"""TFRecord shards in the published format: written, read, inspected and verified.

TensorFlow is imported inside the functions that need it: counting records does not.
"""

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from utils.data import jpeg
from utils.data.shards import (
    COUNT_IN_NAME,
    begins_as_shard,
    masked_crc,
    refuse_compressed,
    shards_in,
    split_of,
    what_instead,
)
from utils.errors import InputError
from utils.files import read_json

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

IMAGE, IMAGE_ID, CLASS, GENUS, FAMILY = "image", "image_id", "scientificName", "genus", "family"
FEATURES = (IMAGE, IMAGE_ID, CLASS, GENUS, FAMILY)
MANIFEST = "manifest.json"  # beside shards of `utils.data.writing`: what was written, with checksums
UNFINISHED = "unfinished"  # folder beside the shards of a job that is not done


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
        InputError: the file cannot be written; the message names it.
    """
    from utils.startup import import_tensorflow

    tf = import_tensorflow()
    count = 0
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(_serialize(record))
                count += 1
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    except tf.errors.OpError as error:
        raise InputError(
            f"{path}: cannot be written ({_first_line(error)}). Make room or name another folder."
        ) from error
    return count


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


def dataset_options() -> "tf.data.Options":
    """The tf.data options of every data set here: elements in order, and no autotuning thread.

    That thread sleeps twice as long each time (10 ms, 20 ms, ...), and closing an iterator can wait until
    it wakes: a training epoch then takes 20.5 or 41 s whatever its work (TensorFlow 2.15 and 2.20, 2 cores).
    Without it AUTOTUNE means one call a core. What a map gives is written into its batch at once, which spares
    one copy of every image.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_optimization.map_and_batch_fusion = True
    return options


def _raw_records(path: Path) -> Iterator[bytes]:
    """Serialized records of one shard in order, one in memory at a time.

    Raises:
        InputError: the file is not there.
        tf.errors.DataLossError: a checksum is wrong or the file ends inside a record.
    """
    import tensorflow as tf

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    yield from tf.data.TFRecordDataset(str(path)).with_options(dataset_options()).as_numpy_iterator()


def _examples(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Every record's features as {name: bytes | int | float}, InputError naming file and record on damage."""
    import tensorflow as tf

    for path in paths:
        position = 0
        try:
            for serialized in _raw_records(path):
                yield _features(serialized)
                position += 1
        except (tf.errors.DataLossError, _NotAnExample) as error:
            if not position:
                refuse_compressed(path)
            instead = None if position else what_instead(path)
            reason = f"the file is {instead}" if instead else _first_line(error)
            raise InputError(
                f"{path}: record {position} is damaged ({reason}). Download or write the shard again."
            ) from None


class _NotAnExample(ValueError):
    """A record's bytes are no tf.train.Example, or a feature that is used has not one value."""


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", error)).split("\n")[0].split(" [Op:")[0]
    return re.sub(r"\{\{.*?\}\} ", "", text)  # the graph node that read it


def _features(serialized: bytes) -> dict[str, Any]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        raise _NotAnExample("not a tf.train.Example") from None
    values = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        content = getattr(feature, kind).value if kind else ()
        if len(content) != 1 and name in (IMAGE, IMAGE_ID, CLASS, GENUS, FAMILY):
            raise _NotAnExample(f"feature {name!r} has {len(content)} values instead of one")
        values[name] = content[0] if len(content) == 1 else list(content)
    return values


_KINDS = {bytes: "bytes", int: "int64", float: "float"}


def _kind(value: Any) -> str:
    """The kind of a feature's value, or values: one of another make may hold several, or none ("empty")."""
    return _KINDS.get(type(value[0] if isinstance(value, list) and value else value), "empty")


def read_schema(path: Path) -> dict[str, str]:
    """Features of a shard's first record: name -> "bytes", "int64", "float" or "empty", sorted by name.

    Raises:
        InputError: the file is missing, empty or damaged.
    """
    first = next(_examples([Path(path)]), None)
    if first is None:
        raise InputError(f"{path}: has no records. Download or write the shard again.")
    return {name: _kind(first[name]) for name in sorted(first)}


def count_records(paths: Iterable[Path]) -> int:
    """Records in these shards, by the counts in the file names; a shard without one is counted.

    Raises:
        InputError: a shard without a count in its name is missing or compressed, or ends inside a record.
    """
    total = 0
    for path in map(Path, paths):
        named = COUNT_IN_NAME.search(path.name)
        total += int(named[1]) if named else _count_by_framing(path)
    return total


def _count_by_framing(path: Path) -> int:
    """Walk from length to length (u64 length, u32 CRC, data, u32 CRC) without reading the data."""
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    size, position, count = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while position < size:
            header = file.read(8)
            position += 16 + (int.from_bytes(header, "little") if len(header) == 8 else size)
            if position > size:
                refuse_compressed(path)
                raise InputError(f"{path}: ends inside record {count}. Download or write the shard again.")
            file.seek(position)
            count += 1
    return count


def _id_text(value: bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _need(features: dict[str, Any], names: Sequence[str], where: str) -> None:
    for name in names:
        if name not in features:
            raise InputError(
                f"{where}: no feature {name!r}; found {', '.join(sorted(features)) or 'none'}. "
                "Use shards in the published format."
            )


def read_records(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Every record in order: "image" (JPEG bytes), "image_id" (str), and the int labels that it has.

    Raises:
        InputError: a shard is missing or damaged, or has no image or image_id.
    """
    for path in map(Path, paths):
        for position, features in enumerate(_examples([path])):
            _need(features, (IMAGE, IMAGE_ID), f"{path}: record {position}")
            yield {**features, IMAGE_ID: _id_text(features[IMAGE_ID])}


def read_labels(paths: Iterable[Path]) -> "pd.DataFrame":
    """One row a record in order: image_id (str), class_index (int64, -1 where a record has none).

    Reads the whole shards, decodes no image.

    Raises:
        InputError: as `read_records`.
    """
    import pandas as pd

    rows = [(record[IMAGE_ID], record.get(CLASS, -1)) for record in read_records(paths)]
    table = pd.DataFrame(rows, columns=["image_id", "class_index"])
    return table.astype({"class_index": "int64"})


def first_labels(paths: Sequence[Path], most: int) -> "pd.DataFrame":
    """Ids and labels of all records, or of the first ones of every shard where there are more than `most`.

    Reads only these records, on several threads, and checks no data checksums. What is damaged or has no label is
    passed over: those who read all of it name it.

    Returns:
        One row a record: image_id (str), class_index, genus_index and family_index (int64, -1 where a record has
        none).
    """
    each = None if count_records(paths) <= most else -(-most // len(paths))
    with ThreadPoolExecutor(4 * (os.cpu_count() or 1)) as pool:  # they wait for the disk or the net
        found = pool.map(lambda path: _first_labels(path, each), paths)
        return _label_table(itertools.chain.from_iterable(found))


def _label_table(rows: Iterable[tuple[str, int, int, int]]) -> "pd.DataFrame":
    import pandas as pd

    columns = ["image_id", "class_index", "genus_index", "family_index"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], "int64"))


def _first_labels(path: Path, most: int | None) -> list[tuple[str, int, int, int]]:
    rows = []
    with path.open("rb") as file:
        for _ in itertools.count() if most is None else range(most):
            header = file.read(12)
            if not begins_as_shard(header):
                break
            serialized = file.read(int.from_bytes(header[:8], "little"))
            file.seek(4, os.SEEK_CUR)  # the checksum
            try:
                rows.append(_labels(_features(serialized)))
            except _NotAnExample:
                continue
    return [row for row in rows if row]


def _labels(features: dict[str, Any]) -> tuple[str, int, int, int] | None:
    """Id, class, genus and family of a record (-1 where one is not there); None without an id or a class."""
    labels = [features.get(name, -1) for name in (CLASS, GENUS, FAMILY)]
    image_id = features.get(IMAGE_ID)
    if type(image_id) not in (bytes, int) or any(type(label) is not int for label in labels) or labels[0] < 0:
        return None
    return (_id_text(image_id), *labels)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest beside shards, None where there is none.

    Raises:
        InputError: the file is not such a manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    shards = manifest.get("shards") if isinstance(manifest, dict) else None
    entry = {"file": str, "records": int, "bytes": int, "sha256": str}
    if not isinstance(shards, list) or not all(
        isinstance(shard, dict) and all(type(shard.get(key)) is kind for key, kind in entry.items())
        for shard in shards
    ):
        raise InputError(
            f"{path}: has no list of shards with file, records, bytes and sha256. Delete it, or write the "
            "shards again."
        )
    for key, kind, inner in (("settings", dict, object), ("records", dict, int), ("notes", list, str)):
        found = manifest.setdefault(key, kind())
        values = found.values() if isinstance(found, dict) else found
        if not isinstance(found, kind) or not all(isinstance(value, inner) for value in values):
            raise InputError(
                f"{path}: {key!r} is {found!r}, which nothing wrote. Delete it, or write the shards again."
            )
    return manifest


def _listed(manifests: dict[Path, dict[str, Any] | None], path: Path) -> dict[str, Any] | None:
    """A shard's entry in the manifest of its folder; {} when it is not listed, None without a manifest."""
    folder = path.parent
    if folder not in manifests:
        manifests[folder] = read_manifest(folder)
    manifest = manifests[folder]
    if manifest is None:
        return None
    return next((shard for shard in manifest["shards"] if shard["file"] == path.name), {})


def inspect(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What is in each shard, without decoding the images.

    Args:
        paths: shards, or folders of shards.

    Returns:
        One dict a shard: file, records, bytes, mean_image_kb, schema {feature: kind}, extra_features (those
        that the published training shards do not have), image_sizes {"480x480": records}, class_min and
        class_max (None without labels), and manifest: None without one, else whether it says the same.

    Raises:
        InputError: a shard is missing or damaged, or has no image.
    """
    result = []
    manifests: dict[Path, dict[str, Any] | None] = {}
    for path in shards_in(paths):
        sizes: Counter[str] = Counter()
        kinds: dict[str, str] = {}
        classes: list[int] = []
        image_bytes, records = 0, 0
        for position, features in enumerate(_examples([path])):
            _need(features, (IMAGE,), f"{path}: record {position}")
            image_bytes += len(features[IMAGE])
            sizes[_image_size(features[IMAGE])] += 1
            for name, value in features.items():
                kinds.setdefault(name, _kind(value))
            if CLASS in features:
                classes = [min([features[CLASS], *classes]), max([features[CLASS], *classes])]
            records += 1
        size = path.stat().st_size
        listed = _listed(manifests, path)
        if listed is None:
            agrees = None
        elif not listed:
            agrees = "does not list this shard"
        elif (listed["records"], listed["bytes"]) == (records, size):
            agrees = "says the same"
        else:
            agrees = f"says {listed['records']} records, {listed['bytes']} bytes"
        result.append(
            {
                "file": str(path),
                "records": records,
                "bytes": size,
                "mean_image_kb": round(image_bytes / max(records, 1) / 1000, 1),
                "schema": dict(sorted(kinds.items())),
                "extra_features": sorted(kinds.keys() - set(FEATURES)),
                "image_sizes": dict(sizes.most_common()),
                "class_min": min(classes, default=None),
                "class_max": max(classes, default=None),
                "manifest": agrees,
            }
        )
    return result


def other_image(content: bytes) -> str | None:
    """What a record's image is that is no JPEG, and the way out; None for a JPEG and for what is no image.

    Training reads JPEG only, where TensorFlow's decode_jpeg() would take PNG and GIF too.
    """
    if content.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(BytesIO(content)) as image:
            kind, mode = image.format, image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (
        f"a {kind} ({mode}), and only JPEG is read: write shards from the image files with `tfrecords write`"
    )


def _image_size(jpeg: bytes) -> str:
    """Width x height by the image's header; "unreadable" is left to `verify` to explain."""
    try:
        with Image.open(BytesIO(jpeg)) as image:
            return f"{image.width}x{image.height}"
    except OSError:
        return "unreadable"


def verify(paths: Iterable[Path], *, progress: bool = False, notes: list[str] | None = None) -> list[str]:
    """Read every byte and decode every image of these shards.

    Checked are the checksums, the features and their kinds, the JPEGs (see `utils.data.jpeg`), the number of records
    against the file name, and against the manifest of the folder, where there is one, that its shards are all
    there with their records and checksums. A record whose data has a wrong checksum is passed over; behind a wrong
    length a shard cannot be read on.

    Args:
        paths: shards, or folders of shards.
        progress: show a progress bar.
        notes: gets what is wrong with a JPEG without harm, with file and record.

    Returns:
        The problems, each naming file and record (counted from 0) with its place in the file; empty when all
        is well.
    """
    from tqdm import tqdm

    shards = shards_in(paths)
    problems: list[str] = []
    manifests: dict[Path, dict[str, Any] | None] = {}
    labels: dict[Path, list[tuple[str, int, int, int]]] = {}
    total = sum(path.stat().st_size for path in shards if path.is_file())
    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        tqdm(total=total, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        for path in shards:
            listed = _listed(manifests, path)
            if not path.is_file():
                if not listed:  # a missing shard of a manifest is named below
                    problems.append(f"{path}: no such file.")
                continue
            problems += _verify_shard(
                path, pool, bar, labels.setdefault(path.parent, []), [] if notes is None else notes
            )
            if listed is not None:
                problems += _against_manifest(path, listed)
    for folder, manifest in manifests.items():
        missing = [shard["file"] for shard in (manifest or {}).get("shards", ())]
        missing = [name for name in missing if not (folder / name).is_file()]
        problems += [f"{folder / name}: is listed in {MANIFEST} and not there." for name in missing]
        if (folder / UNFINISHED).is_dir():
            problems.append(
                f"{folder}: the job that writes these shards is not finished; the same command continues it."
            )
    for folder, rows in labels.items():
        problems += _against_tables(folder, rows)
    return problems


def _against_tables(folder: Path, rows: list[tuple[str, int, int, int]]) -> list[str]:
    """What the records' labels are against labels.json and the metadata beside the shards, one problem at most."""
    from utils.datasets import beside

    try:
        beside(folder).refuse_other_labels(_label_table(rows))
    except InputError as error:
        return [str(error)]
    return []


def _against_manifest(path: Path, listed: dict[str, Any]) -> list[str]:
    if not listed:
        return [f"{path}: is not listed in {MANIFEST}."]
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == listed["sha256"]:
            return []
    return [
        f"{path}: is not the file that {MANIFEST} lists ({listed['records']} records, {listed['bytes']} bytes); "
        "its sha256 differs."
    ]


def _verify_shard(
    path: Path, pool: ThreadPoolExecutor, bar: Any, labels: list[tuple[str, int, int, int]], notes: list[str]
) -> list[str]:
    """The problems inside one shard; `labels` gets the labels of its records, `notes` what does no harm."""
    problems: list[str] = []
    labelled = split_of(path.name) in ("train", "val")
    expected: dict[str, str] = {}  # features of the first record that is right
    records, count, whole = entries(path), 0, True
    while chunk := list(itertools.islice(records, 64)):
        checks = pool.map(lambda entry, need=labelled: _checked(entry[1], need), chunk)
        for (offset, content), (kinds, problem, note, label) in zip(chunk, checks, strict=True):
            if labelled and label:
                labels.append(label)
            expected = expected or (kinds if problem is None else {})
            if problem is None and kinds != expected:
                problem = f"has the features {_listing(kinds)}, records before it {_listing(expected)}"
            if problem:
                problems.append(f"{path}: record {count} at byte {offset}: {problem}.")
            if note:
                notes.append(f"{path}: record {count}: {note}.")
            if isinstance(content, str) and content != BAD_CHECKSUM:
                whole = False
            else:
                count += 1
            bar.update(16 + len(content) if isinstance(content, bytes) else 0)
    named = COUNT_IN_NAME.search(path.name)
    if whole and named and int(named[1]) != count:
        problems.append(f"{path}: has {count} records, its name says {named[1]}.")
    elif whole and count == 0:
        problems.append(f"{path}: has no records.")
    return problems


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
        for serialized in _raw_records(path):
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


def _listing(kinds: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in kinds.items())


def _checked(
    content: bytes | str, labelled: bool
) -> tuple[dict[str, str], str | None, str, tuple[str, int, int, int] | None]:
    """The kinds of a record's published features, what is wrong with it, a note on its JPEG, and its labels."""
    if isinstance(content, str):
        return {}, content, "", None
    try:
        features = _features(content)
    except _NotAnExample as error:
        return {}, str(error), "", None
    kinds = {name: _kind(features[name]) for name in sorted(FEATURES) if name in features}
    problem, note = _problem(features, labelled), ""
    if problem is None:
        try:
            note = jpeg.examine(features[IMAGE])
        except jpeg.Damaged as error:
            problem = f"image is not a whole JPEG ({error})"
    return kinds, problem, note, _labels(features) if labelled and problem is None else None


def _problem(features: dict[str, Any], labelled: bool) -> str | None:
    """What is wrong with the features of a record, but for what is in the JPEG."""
    allowed = {IMAGE: (bytes,), IMAGE_ID: (bytes, int)}
    allowed |= {name: (int,) for name in (CLASS, GENUS, FAMILY) if name in features}
    for name in (IMAGE, IMAGE_ID, *((CLASS,) if labelled else ())):
        if name not in features:
            return f"no feature {name!r}; found {', '.join(sorted(features)) or 'none'}"
    for name, kinds in allowed.items():
        value = features[name]
        if not isinstance(value, kinds):
            return f"feature {name!r} is {_kind(value)}, must be {_KINDS[kinds[-1]]}"
        if kinds == (int,) and value < 0:
            return f"feature {name!r} is {value}, must be 0 or more"
    if kind := other_image(features[IMAGE]):
        return f"image is {kind}"
    return None
