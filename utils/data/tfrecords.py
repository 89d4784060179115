"""TFRecord shards in the published format: written, read, inspected and verified.

TensorFlow is imported inside the functions that need it: counting records does not.
"""

import itertools
import os
import re
import shutil
import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from utils.data import longtail
from utils.data.labels import LabelMap
from utils.data.metadata import Metadata, read_metadata, write_metadata, write_test_metadata
from utils.errors import InputError, UsageError
from utils.files import replacing

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

IMAGE, IMAGE_ID, CLASS, GENUS, FAMILY = "image", "image_id", "scientificName", "genus", "family"
_COUNT_IN_NAME = re.compile(r"_(\d+)\.tfrec$")


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
    import tensorflow as tf

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
            count = 0
            with tf.io.TFRecordWriter(str(partial)) as writer:
                for record in itertools.chain([first], itertools.islice(records, shard_images - 1)):
                    writer.write(_serialize(record))
                    count += 1
            shard = folder / shard_name(prefix, size, split, number, count)
            partial.replace(shard)
        finally:
            partial.unlink(missing_ok=True)
        shards.append(shard)


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode Pillow reads: 16-bit scaled down, transparency laid on white paper."""
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
        pixels = np.asarray(image).astype(np.int64)
        return Image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers without a known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")


def encode_image(path: Path, *, size: int = 480, quality: int = 95) -> bytes:
    """Read an image file in any format Pillow knows, squeeze it to a square, and give it as JPEG.

    The aspect ratio is not kept, as in the published shards. EXIF orientation is applied.

    Args:
        path: the image file.
        size: pixels a side of the result.
        quality: JPEG quality; 95 with 4:2:0 colour gives about 65 KB a real sheet at 480 px.

    Raises:
        InputError: the file cannot be read as an image; the message names it.
    """
    try:
        with Image.open(path) as image:
            # Lets a large JPEG be decoded at 1/2 to 1/8 of its size, never below twice the target.
            image.draft(None, (2 * size, 2 * size))
            upright = ImageOps.exif_transpose(image)
            squeezed = _to_rgb(upright).resize((size, size), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        squeezed.save(buffer, "JPEG", quality=quality)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: not a readable image ({error}). Replace the file or remove its row."
        ) from error
    return buffer.getvalue()


def encode_images(
    paths: Sequence[Path],
    *,
    size: int = 480,
    quality: int = 95,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[bytes]:
    """Encode image files with `encode_image`, in parallel, in the order given.

    Threads are enough: Pillow decodes, resizes and encodes outside Python's lock. At most a few images a
    worker are held in memory.

    Raises:
        InputError: an image cannot be read.
    """
    from tqdm import tqdm

    workers = workers or os.cpu_count() or 1
    waiting: deque = deque()
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(paths), unit="images", disable=not progress) as bar,
    ):
        try:
            for path in paths:
                waiting.append(pool.submit(encode_image, path, size=size, quality=quality))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
        finally:
            for future in waiting:
                future.cancel()


def _image_files(metadata: Metadata, labels_csv: Path, images_dir: Path) -> list[Path]:
    """The image file of each row.

    Raises:
        InputError: some are not there; the message lists the first twenty.
    """
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder. Name the folder that file_name is relative to.")
    files = [images_dir / name for name in metadata.images["file_name"]]
    missing = [str(file.relative_to(images_dir)) for file in files if not file.is_file()]
    if missing:
        listed = "\n  ".join(missing[:20]) + ("\n  ..." if len(missing) > 20 else "")
        raise InputError(
            f"{labels_csv}: {len(missing)} of {len(files)} image files are not in {images_dir}:\n  {listed}\n"
            "Add them, remove their rows, or name another image folder. Nothing was written."
        )
    return files


def write_from_labels(
    labels_csv: Path,
    images_dir: Path,
    out_dir: Path,
    *,
    size: int = 480,
    quality: int = 95,
    seed: int = 0,
    test_fraction: float = 0.0,
    shard_images: int = 1000,
    workers: int | None = None,
    progress: bool = True,
) -> list[Path]:
    """Make a data set in the published format from own sheets: shards, train_metadata.json, labels.json.

    All files are checked before any image is read, and nothing appears in `out_dir` until all is written.

    Args:
        labels_csv: see `utils.data.metadata.read_metadata`; file_name is relative to `images_dir`.
        images_dir: the folder of the images.
        out_dir: made if it is not there.
        size: pixels a side of the stored images.
        quality: JPEG quality of the stored images.
        seed: of the order of the records and of the test part.
        test_fraction: part of the sheets withheld as a test set, by species as in `longtail.split`: then
            test shards, test_metadata.json and solution.csv are written too.
        shard_images: records a shard.
        workers: threads that encode; None for one a core.
        progress: show a progress bar.

    Returns:
        The shards.

    Raises:
        InputError: the CSV is not right, image files are missing or broken, or `out_dir` has shards.
        UsageError: an option is out of range.
    """
    labels_csv, images_dir, out_dir = Path(labels_csv), Path(images_dir), Path(out_dir)
    if not 16 <= size <= 4096:
        raise UsageError(f"size is {size}, must be from 16 to 4096 pixels.")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}, must be from 1 to 100.")
    if not 0 <= test_fraction < 1:
        raise UsageError(f"test fraction is {test_fraction}, must be from 0 to below 1.")
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir}: is a file. Name a folder for the shards.")
    present = sorted(out_dir.glob("*.tfrec"))
    if present:
        raise InputError(
            f"{out_dir}: already holds {len(present)} shards ({present[0].name} ...). "
            "Delete the folder or name another one."
        )
    metadata = read_metadata(labels_csv)
    files = _image_files(metadata, labels_csv, images_dir)
    labels = LabelMap.from_metadata(metadata)
    classes = labels.to_class(metadata.annotations["category_id"])
    ids = metadata.images["image_id"].to_numpy()
    test = np.zeros(len(ids), dtype=bool)
    if test_fraction:
        _, test = longtail.split(ids, classes, test_fraction, seed)

    # Records of one species must not lie together: training shuffles within a window only.
    order = np.random.default_rng(seed).permutation(len(ids))
    order = np.concatenate([order[~test[order]], order[test[order]]])
    encoded = encode_images(
        [files[row] for row in order], size=size, quality=quality, workers=workers, progress=progress
    )
    partial = out_dir / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        options = {"prefix": "own", "size": size, "shard_images": shard_images}
        n_train = int((~test).sum())
        train_records = (
            Record(
                image,
                ids[row],
                classes[row],
                labels.genus_index[classes[row]],
                labels.family_index[classes[row]],
            )
            for row, image in zip(order[:n_train], itertools.islice(encoded, n_train), strict=True)
        )
        test_records = (Record(image, ids[row]) for row, image in zip(order[n_train:], encoded, strict=True))
        shards = write_shards(train_records, partial, split="train", **options)
        shards += write_shards(test_records, partial, split="test", **options)
        keep = ~test
        train = Metadata(
            annotations=metadata.annotations[keep],
            images=metadata.images[keep],
            categories=metadata.categories,
            genera=metadata.genera,
            distances=metadata.distances,
            institutions=metadata.institutions,
            licenses=metadata.licenses,
        )
        write_metadata(train, partial / "train_metadata.json")
        labels.save(partial / "labels.json")
        if test.any():
            write_test_metadata(metadata.images[test], partial / "test_metadata.json")
            solution = metadata.annotations[test].rename(
                columns={"image_id": "Id", "category_id": "Predicted"}
            )
            with replacing(partial / "solution.csv") as temporary:
                solution[["Id", "Predicted"]].to_csv(temporary, index=False)
        for file in sorted(partial.iterdir()):
            file.replace(out_dir / file.name)
    finally:
        encoded.close()  # stops the workers when writing failed
        shutil.rmtree(partial, ignore_errors=True)
    return [out_dir / shard.name for shard in shards]


def dataset_options() -> "tf.data.Options":
    """The tf.data options of every data set here: elements in order, and no autotuning thread.

    That thread sleeps twice as long each time (10 ms, 20 ms, ...), and closing an iterator can wait until
    it wakes: a training epoch then takes 20.5 or 41 s whatever its work (TensorFlow 2.15 and 2.20, 2 cores).
    Without it AUTOTUNE means one call a core.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
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
            raise InputError(
                f"{path}: record {position} is damaged ({_first_line(error)}). "
                "Download or write the shard again."
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
        InputError: a shard without a count in its name is missing or ends inside a record.
    """
    total = 0
    for path in map(Path, paths):
        named = _COUNT_IN_NAME.search(path.name)
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


def inspect(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What is in each shard, without decoding the images.

    Returns:
        One dict a shard: file, records, bytes, mean_image_kb, schema (as `read_schema`), image_sizes
        {"480x480": records}, class_min and class_max (None without labels).

    Raises:
        InputError: a shard is missing or damaged, or has no image.
    """
    result = []
    for path in map(Path, paths):
        sizes: Counter[str] = Counter()
        classes, image_bytes, records = [], 0, 0
        for position, features in enumerate(_examples([path])):
            _need(features, (IMAGE,), f"{path}: record {position}")
            image_bytes += len(features[IMAGE])
            sizes[_image_size(features[IMAGE])] += 1
            if CLASS in features:
                classes.append(features[CLASS])
            records += 1
        result.append(
            {
                "file": str(path),
                "records": records,
                "bytes": path.stat().st_size,
                "mean_image_kb": round(image_bytes / max(records, 1) / 1000, 1),
                "schema": read_schema(path) if records else {},
                "image_sizes": dict(sizes.most_common()),
                "class_min": min(classes, default=None),
                "class_max": max(classes, default=None),
            }
        )
    return result


def _image_size(jpeg: bytes) -> str:
    """Width x height by the image's header; "unreadable" is left to `verify` to explain."""
    try:
        with Image.open(BytesIO(jpeg)) as image:
            return f"{image.width}x{image.height}"
    except OSError:
        return "unreadable"


def verify(paths: Iterable[Path]) -> list[str]:
    """Read every byte and decode every image of these shards.

    Checked are the checksums, the needed features and their kinds, the JPEG data, and the number of
    records against the file name. Behind a wrong checksum a shard cannot be read on.

    Returns:
        The problems, each naming file and record (counted from 0); empty when all is well.
    """
    import tensorflow as tf

    problems: list[str] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path in map(Path, paths):
            if not path.is_file():
                problems.append(f"{path}: no such file.")
                continue
            labelled = "_train" in path.name or "_val" in path.name
            records, position = _raw_records(path), 0
            try:
                while chunk := list(itertools.islice(records, 64)):
                    checks = pool.map(lambda serialized, need=labelled: _problem(serialized, need), chunk)
                    for offset, problem in enumerate(checks):
                        if problem:
                            problems.append(f"{path}: record {position + offset}: {problem}.")
                    position += len(chunk)
            except tf.errors.DataLossError as error:
                problems.append(_damage(path, error))
                continue
            named = _COUNT_IN_NAME.search(path.name)
            if named and int(named[1]) != position:
                problems.append(f"{path}: has {position} records, its name says {named[1]}.")
            elif position == 0:
                problems.append(f"{path}: has no records.")
    return problems


def _damage(path: Path, error: Exception) -> str:
    """Which record TensorFlow could not read; counted again, since records come in chunks."""
    import tensorflow as tf

    position = 0
    try:
        for _ in _raw_records(path):
            position += 1
    except tf.errors.DataLossError:
        pass  # it is the one that is being described
    return (
        f"{path}: record {position}: checksum or length is wrong ({_first_line(error)}); "
        "nothing after it could be read."
    )


def _problem(serialized: bytes, labelled: bool) -> str | None:
    import tensorflow as tf

    try:
        features = _features(serialized)
    except _NotAnExample as error:
        return str(error)
    kinds = {IMAGE: (bytes,), IMAGE_ID: (bytes, int)}
    if labelled:
        kinds |= dict.fromkeys((CLASS, GENUS, FAMILY), (int,))
    for name, allowed in kinds.items():
        if name not in features:
            return f"no feature {name!r}; found {', '.join(sorted(features)) or 'none'}"
        if not isinstance(features[name], allowed):
            return f"feature {name!r} is {_KINDS[type(features[name])]}, must be {_KINDS[allowed[-1]]}"
        if allowed == (int,) and features[name] < 0:
            return f"feature {name!r} is {features[name]}, must be 0 or more"
    try:
        tf.io.decode_jpeg(features[IMAGE], channels=3)
    except tf.errors.InvalidArgumentError as error:
        return f"image is not a whole JPEG ({_first_line(error)})"
    return None
