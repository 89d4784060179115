"""From shards to batches: tf.data pipelines for training and for evaluation.

Both give uint8 images; normalisation belongs to the model. Records stay compressed until they are drawn
from the shuffle buffer. What is done to one image is in `utils.data.pixels` and `utils.data.augment`.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from utils.config import AUGMENTATIONS, RESIZE
from utils.data import augment as augment_module
from utils.data.damage import wrong_kind
from utils.data.pixels import (
    augmented_image,
    decode_crop,
    decode_crop_resize,
    exactly,
    random_numbers,
    to_uint8,
)
from utils.data.records import CLASS, IMAGE, IMAGE_ID, NotAnExample, dataset_options, lists_of, read_schema
from utils.files import InputError, UsageError, check_option

_READ_AT_ONCE = 8  # shards that training mixes
_READ_BUFFER = 1 << 20  # bytes a shard
_BATCHES_AHEAD = 2  # made while the network works on another


def training_dataset(
    shards: Sequence[Path],
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    crop: float = 0.9,
    random_crop: bool = True,
    augment: str = "light",
    randaugment: int = 0,
    randaugment_magnitude: float = 0.3,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    exclude_ids: Iterable[str] | None = None,
    n_classes: int | None = None,
    count: int | None = None,
    shuffle_buffer: int = 2048,
    resize: str = "input",
) -> tf.data.Dataset:
    """One epoch of shuffled, cropped and augmented training batches.

    The same seed and epoch give the same batches, byte for byte, as long as tf.random.set_seed() has the
    same value too (it goes into every shuffle of tf.data); another epoch gives another order and other
    crops, flips and colours.

    Args:
        shards: TFRecord files with labels; their order does not matter.
        image_size: pixels a side of the images given.
        batch_size: images a batch; what is left at the end is dropped.
        seed: of the order and of everything random that is done to an image.
        epoch: counts passes over the data.
        crop: part of each side that is kept.
        random_crop: keep a random window instead of the central one.
        augment: see `augmented_image`.
        randaugment, randaugment_magnitude: operations an image and their strength, see
            `utils.data.augment.randaugment`; 0 for none.
        mixup, cutmix: mix images within a batch, see `utils.data.augment.mix`; 0 for none.
        exclude_ids: image ids to leave out, such as those of the validation split.
        n_classes: a class index beyond it is an error when it comes up; None for any.
        count: how many records must be left; another number is an error at the end of the pass.
        shuffle_buffer: records held for shuffling, compressed: 2,048 of 83 KB take 170 MB.
        resize: "model" leaves flips, colours and resizing to `augmented_on_device`, which gets the crops and
            their random numbers; not with randaugment, mixup or cutmix.

    Returns:
        A dataset of (uint8 [B, S, S, 3], int32 class index [B]); with mixup or CutMix labels are float32 [B, 3]:
        class, other class, part of the first. With resize="model" the images are (uint8 [B, H, W, 3], float32
        [B, 5]), where H and W are the sides of the first image's crop.

    Raises:
        InputError: a shard is missing, the first record of one has no image, id or class, or the shards
            differ in them.
        UsageError: an option is out of range.

    A record that is damaged, or lacks what the first one has, raises TensorFlow's own error when it is read;
    `utils.data.damage.naming_damage` says which one it was.
    """
    check_option("augment", augment, augment in AUGMENTATIONS, f"one of {', '.join(AUGMENTATIONS)}")
    check_option("resize", resize, resize in RESIZE, f"one of {', '.join(RESIZE)}")
    if resize == "model" and (randaugment or mixup or cutmix):
        raise UsageError("resize is 'model': not with randaugment, mixup or cutmix.")
    _check_options(image_size, batch_size, crop)
    paths, schema = _shards(shards)
    if CLASS not in schema:
        raise InputError(
            f"{paths[0]}: no feature {CLASS!r}, so there is nothing to learn; found {', '.join(schema)}. "
            "Train on shards with labels."
        )
    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(
        len(paths), seed=seed + epoch, reshuffle_each_iteration=False
    )
    records = files.interleave(
        lambda file: tf.data.TFRecordDataset(file, buffer_size=_READ_BUFFER),
        cycle_length=min(_READ_AT_ONCE, len(paths)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    # Numbered before anything is left out: what is done to an image does not depend on the split.
    records = records.enumerate()
    if exclude_ids is not None:
        is_excluded = _membership(exclude_ids, schema)
        records = records.filter(lambda _, record: ~is_excluded(record))
    if count is not None:
        records = records.apply(tf.data.experimental.assert_cardinality(count))
    records = records.shuffle(shuffle_buffer, seed=seed + epoch, reshuffle_each_iteration=False)

    crop_sides = _crop_sides(paths[0], schema, image_size, crop) if resize == "model" else None

    def load(index: tf.Tensor, record: tf.Tensor) -> tuple:
        features = _parse(record, schema, (IMAGE, CLASS))
        label = _label(features[CLASS], n_classes)
        numbers = random_numbers(seed, epoch, index)
        if crop_sides is not None:
            window = numbers[:2] if random_crop else None
            pixels = exactly(decode_crop(features[IMAGE], image_size, crop, window), crop_sides)
            return (pixels, numbers[2:]), label
        pixels = augmented_image(
            features[IMAGE],
            numbers,
            image_size=image_size,
            crop=crop,
            random_crop=random_crop,
            augment=augment,
        )
        if randaugment:
            pixels = augment_module.randaugment(
                pixels, index, seed=seed, epoch=epoch, operations=randaugment, magnitude=randaugment_magnitude
            )
        return (pixels, label, index) if mixup or cutmix else (pixels, label)

    batches = records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.batch(batch_size, drop_remainder=True)
    if mixup or cutmix:
        mix = functools.partial(augment_module.mix, seed=seed, epoch=epoch, mixup=mixup, cutmix=cutmix)
        batches = batches.map(mix, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(_BATCHES_AHEAD).with_options(dataset_options())


def evaluation_dataset(
    shards: Sequence[Path],
    *,
    image_size: int,
    batch_size: int,
    crop: float = 0.9,
    only_ids: Iterable[str] | None = None,
    n_classes: int | None = None,
    count: int | None = None,
) -> tf.data.Dataset:
    """Every image once, centrally cropped, with its class and id, in the order of the sorted shards.

    Args:
        shards: TFRecord files, with or without labels, with ids as text or numbers.
        image_size: pixels a side of the images given.
        batch_size: images a batch; the last batch has what is left.
        crop: part of each side that is kept.
        only_ids: image ids to take, such as those of the validation split; None for all.
        n_classes, count: as for `training_dataset`.

    Returns:
        A dataset of (uint8 [B, S, S, 3], int32 class index [B], -1 without labels, string id [B]).

    Raises:
        InputError: a shard is missing, the first record of one has no image or id, or the shards differ in
            them.
        UsageError: an option is out of range.

    A damaged record: as for `training_dataset`.
    """
    _check_options(image_size, batch_size, crop)
    paths, schema = _shards(shards)
    records = tf.data.TFRecordDataset(paths, buffer_size=_READ_BUFFER)
    if only_ids is not None:
        records = records.filter(_membership(only_ids, schema))
    if count is not None:
        records = records.apply(tf.data.experimental.assert_cardinality(count))

    def load(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        names = (IMAGE, IMAGE_ID, CLASS) if CLASS in schema else (IMAGE, IMAGE_ID)
        features = _parse(record, schema, names)
        pixels = to_uint8(decode_crop_resize(features[IMAGE], image_size, crop, None))
        label = _label(features[CLASS], n_classes) if CLASS in schema else tf.constant(-1, tf.int32)
        return pixels, label, _id_text(features[IMAGE_ID])

    batches = records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.batch(batch_size).prefetch(_BATCHES_AHEAD)
    return batches.with_options(dataset_options())


def _check_options(image_size: int, batch_size: int, crop: float) -> None:
    check_option("image_size", image_size, image_size >= 1, "1 or more")
    check_option("batch_size", batch_size, batch_size >= 1, "1 or more")
    check_option("crop", crop, 0 < crop <= 1, "above 0, at most 1")


def _shards(shards: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    """Paths sorted by file name, and the schema that their first records share: image, id and class, if any."""
    paths = sorted((Path(shard) for shard in shards), key=lambda path: (path.name, path))
    if not paths:
        raise InputError("no shards were given. Name at least one .tfrec file.")
    if missing := [path for path in paths if not path.is_file()]:
        raise InputError(f"{missing[0]}: no such file ({len(missing)} of {len(paths)} shards are missing).")
    states = [path.stat() for path in paths]
    schemas = _schemas(tuple((str(p), s.st_size, s.st_mtime_ns) for p, s in zip(paths, states, strict=True)))
    schema = schemas[0]
    if reason := wrong_kind(schema, (IMAGE, IMAGE_ID), (CLASS,)):
        raise InputError(f"{paths[0]}: record 0 {reason}. Use shards in the published format.")
    for name, (path, other) in itertools.product((IMAGE, IMAGE_ID, CLASS), zip(paths, schemas, strict=True)):
        if other.get(name) != schema.get(name):
            raise InputError(
                f"{path}: feature {name!r} is {other.get(name, 'not there')}, and in {paths[0]} it is "
                f"{schema.get(name, 'not there')}. Keep shards of different schemas in folders of their own."
            )
    return [str(path) for path in paths], schema


@functools.lru_cache(maxsize=8)
def _schemas(files: tuple[tuple[str, int, int], ...]) -> list[dict[str, str]]:
    """`read_schema` of each of some files (path, bytes, time of change); kept, since every epoch asks again.

    One data set reads all the first records: one a shard would take 10 ms each.
    """
    paths = tf.data.Dataset.from_tensor_slices([path for path, _, _ in files])
    records = paths.interleave(
        lambda path: tf.data.TFRecordDataset(path).take(1).map(lambda record: (path, record)),
        cycle_length=_READ_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
    ).with_options(dataset_options())
    found = {}
    try:
        for path, record in records.as_numpy_iterator():
            found[path.decode()] = {name: kind for name, (kind, _) in sorted(lists_of(record).items())}
    except (tf.errors.DataLossError, NotAnExample):
        pass  # read_schema says which shard it was
    return [found.get(path) or read_schema(Path(path)) for path, _, _ in files]


def _parse(record: tf.Tensor, schema: dict[str, str], names: Iterable[str]) -> dict[str, tf.Tensor]:
    """Some features of one serialized record; what is not asked for is skipped, not copied."""
    kinds = {"bytes": tf.string, "int64": tf.int64}
    return tf.io.parse_single_example(
        record, {name: tf.io.FixedLenFeature([], kinds[schema[name]]) for name in names}
    )


def _label(class_index: tf.Tensor, n_classes: int | None) -> tf.Tensor:
    """int32 []; InvalidArgumentError when it is not below `n_classes`."""
    if n_classes is None:
        return tf.cast(class_index, tf.int32)
    return tf.gather(tf.range(n_classes), class_index)  # an assertion would be an op with a state


def _id_text(image_id: tf.Tensor) -> tf.Tensor:
    return image_id if image_id.dtype == tf.string else tf.strings.as_string(image_id)


def _membership(image_ids: Iterable[str], schema: dict[str, str]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function that tells whether a serialized record's id is among these."""
    # A table must not be empty; no image has the empty id.
    keys = tf.constant(["", *map(str, image_ids)], dtype=tf.string)
    values = tf.concat([[0], tf.ones(tf.size(keys) - 1, tf.int64)], axis=0)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)

    def is_member(record: tf.Tensor) -> tf.Tensor:
        return table.lookup(_id_text(_parse(record, schema, (IMAGE_ID,))[IMAGE_ID])) > 0

    return is_member


def _crop_sides(path: str, schema: dict[str, str], image_size: int, crop: float) -> tuple[int, int]:
    """Height and width of the decoded crop of a shard's first image."""
    record = next(iter(tf.data.TFRecordDataset(path).take(1)))
    pixels = decode_crop(_parse(record, schema, (IMAGE,))[IMAGE], image_size, crop, None)
    return int(pixels.shape[0]), int(pixels.shape[1])
