"""Records of shards: the published features, what a record holds, and records read.

TensorFlow is imported inside the functions that need it: counting records does not.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from utils.data.shards import COUNT_IN_NAME, begins_as_shard, refuse_compressed, what_instead
from utils.files import InputError, in_order

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf


IMAGE, IMAGE_ID, CLASS, GENUS, FAMILY = "image", "image_id", "scientificName", "genus", "family"
FEATURES = (IMAGE, IMAGE_ID, CLASS, GENUS, FAMILY)


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


def raw_records(path: Path) -> Iterator[bytes]:
    """Serialized records of one shard in order, one in memory at a time; InputError: the file is not there.

    Raises:
        tf.errors.DataLossError: a checksum is wrong or the file ends inside a record.
    """
    import tensorflow as tf

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    # A tf.data.Dataset of each shard takes 40 ms more.
    records = tf.compat.v1.io.tf_record_iterator(str(path))
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while not beyond_end(file.read(12), size - offset):
            if (record := next(records, None)) is None:
                return
            yield record
            offset = file.seek(offset + 16 + len(record))
    raise tf.errors.DataLossError(None, None, f"the record at byte {offset} is longer than the file")


def beyond_end(header: bytes, rest: int) -> bool:
    """Whether a record's length has its checksum and is more than the file has left: TensorFlow crashes on it."""
    return begins_as_shard(header) and 16 + int.from_bytes(header[:8], "little") > rest


def read_examples(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Every record's features as {name: bytes | int | float}, InputError naming file and record on damage."""
    import tensorflow as tf

    for path in paths:
        position = 0
        try:
            for serialized in raw_records(path):
                yield features_of(serialized)
                position += 1
        except (tf.errors.DataLossError, NotAnExample) as error:
            if not position:
                refuse_compressed(path)
            instead = None if position else what_instead(path)
            reason = f"the file is {instead}" if instead else first_line(error)
            raise InputError(
                f"{path}: record {position} is damaged ({reason}). Download or write the shard again."
            ) from None


class NotAnExample(ValueError):
    """A record's bytes are no tf.train.Example, or a feature that is used has not one value."""


def first_line(error: Exception) -> str:
    """What TensorFlow's error says, one line without the names of graph nodes."""
    text = str(getattr(error, "message", error)).split("\n")[0].split(" [Op:")[0]
    return re.sub(r"\{\{.*?\}\} ", "", text)  # the graph node that read it


_LISTS = {"bytes_list": "bytes", "int64_list": "int64", "float_list": "float", None: "empty"}


def lists_of(serialized: bytes) -> dict[str, tuple[str, Sequence[Any]]]:
    """Every feature of a record: its kind ("bytes", "int64", "float", "empty") and its values.

    Raises:
        NotAnExample: the bytes are no tf.train.Example, or its id is not UTF-8.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(serialized).features.feature
        b"".join(features[IMAGE_ID].bytes_list.value if IMAGE_ID in features else ()).decode()
    except DecodeError:
        raise NotAnExample("no tf.train.Example") from None
    except UnicodeDecodeError:
        raise NotAnExample("no tf.train.Example with an id in UTF-8") from None
    kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
    return {
        name: (_LISTS[kind], getattr(features[name], kind).value if kind else ())
        for name, kind in kinds.items()
    }


def features_of(serialized: bytes) -> dict[str, Any]:
    """Every feature of a record as bytes, int or float, or the list of its values where it has not one.

    Raises:
        NotAnExample: it is none, or one of FEATURES has not one value.
    """
    values = {}
    for name, (_, content) in lists_of(serialized).items():
        if len(content) != 1 and name in FEATURES:
            raise NotAnExample(f"feature {name!r} has {len(content)} values instead of one")
        values[name] = content[0] if len(content) == 1 else list(content)
    return values


KINDS = {bytes: "bytes", int: "int64", float: "float"}


def kind_of_value(value: Any) -> str:
    """The kind of a feature's value, or values: one of another make may hold several, or none ("empty")."""
    return KINDS.get(type(value[0] if isinstance(value, list) and value else value), "empty")


def read_schema(path: Path) -> dict[str, str]:
    """Features of a shard's first record: name -> "bytes", "int64", "float" or "empty", sorted by name.

    Raises:
        InputError: the file is missing, empty or damaged.
    """
    if (first := next(read_examples([Path(path)]), None)) is None:
        raise InputError(f"{path}: has no records. Download or write the shard again.")
    return {name: kind_of_value(first[name]) for name in sorted(first)}


def count_records(paths: Iterable[Path]) -> int:
    """Records in these shards, by the counts in the file names; a shard without one is counted.

    Raises:
        InputError: a shard without a count in its name is missing or compressed, or ends inside a record.
    """
    return sum(
        int(named[1]) if (named := COUNT_IN_NAME.search(path.name)) else _count_by_framing(path)
        for path in map(Path, paths)
    )


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


def need_features(features: dict[str, Any], names: Sequence[str], where: str) -> None:
    """Raise InputError, beginning with `where`, unless a record has the features `names`."""
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
        for position, features in enumerate(read_examples([path])):
            need_features(features, (IMAGE, IMAGE_ID), f"{path}: record {position}")
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
    threads = 4 * (os.cpu_count() or 1)  # they wait for the disk or the net
    found = in_order(lambda path: _first_labels(path, each), paths, threads)
    return label_table(itertools.chain.from_iterable(found))


def label_table(rows: Iterable[tuple[str, int, int, int]]) -> "pd.DataFrame":
    """Labels of records as a table: image_id (str), class_index, genus_index, family_index (int64)."""
    import pandas as pd

    columns = ["image_id", "class_index", "genus_index", "family_index"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], "int64"))


def _first_labels(path: Path, most: int | None) -> list[tuple[str, int, int, int]]:
    rows = []
    with path.open("rb") as file:
        for _ in itertools.count() if most is None else range(most):
            header = file.read(12)
            if beyond_end(header, path.stat().st_size - file.tell() + 12):
                raise InputError(
                    f"{path}: ends inside record {len(rows)}. Download or write the shard again."
                )
            if not begins_as_shard(header):
                break
            serialized = file.read(int.from_bytes(header[:8], "little"))
            file.seek(4, os.SEEK_CUR)  # the checksum
            try:
                rows.append(labels_of(features_of(serialized)))
            except NotAnExample:
                continue
    return [row for row in rows if row]


def labels_of(features: dict[str, Any]) -> tuple[str, int, int, int] | None:
    """Id, class, genus and family of a record (-1 where one is not there); None without an id or a class."""
    labels = [features.get(name, -1) for name in (CLASS, GENUS, FAMILY)]
    image_id = features.get(IMAGE_ID)
    if type(image_id) not in (bytes, int) or any(type(label) is not int for label in labels) or labels[0] < 0:
        return None
    return (_id_text(image_id), *labels)


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
