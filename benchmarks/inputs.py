"""Input for training, evaluation and prediction: images a second from shards to batches.

The limit is the decoding of the same JPEGs, already in memory, whole and at the same scale, by the same
threads, and nothing else. Shards are of the sample flora; labels are as if there were 15,501 species.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Bench, Measured, Stage, Target
from utils.experiments.plan import PUBLISHED_CLASSES

if TYPE_CHECKING:
    import tensorflow as tf

CLASSES = PUBLISHED_CLASSES
BATCH = 32
SHUFFLED = 2048  # examples in the shuffle buffer, as published
IMAGE_BYTES = 83_000  # of a published image, in the mean
_TIMES = 3  # the shards in one pass of evaluation and of the limit, whose start is 0.05 s with any number of images


def make_shards(bench: Bench) -> Path:
    """The folder of a sample flora with `bench.images` training images or a few more, made if it is not there."""
    from utils.flora.sample import make_flora

    species, most = _spec(bench)
    return make_flora(_folder(bench), species=species, seed=0, max_images=most, progress=False)


def _spec(bench: Bench) -> tuple[int, int]:
    """Species of the flora, and images of its commonest one."""
    from utils.flora.sample import training_counts

    species, most = 2, 30 if bench.quick else 100
    while training_counts(species, 0, most).sum() < bench.images:
        species += 1
    return species, most


def _folder(bench: Bench) -> Path:
    species, most = _spec(bench)
    return bench.folder / f"flora-{species}species-max{most}"


def shards(bench: Bench) -> list[Path]:
    return sorted(make_shards(bench).glob("*_train*.tfrec"))


def describe(bench: Bench) -> str:
    """What the input rows read, in words: the number of images and their mean size."""
    from utils.data.records import count_records

    paths = sorted(_folder(bench).glob("*_train*.tfrec"))
    if not paths:
        return "No input shards were read."
    images = count_records(paths)
    size = sum(path.stat().st_size for path in paths) / images / 1000
    return (
        f"Input shards: {images:,} images of 480 px, {size:.0f} KB each in the mean (the published ones: 83)."
    )


def _shuffled(bench: Bench) -> int:
    return 32 if bench.quick else SHUFFLED


def tensorflow() -> Any:
    from utils.startup import import_tensorflow

    return import_tensorflow()


def stream(bench: Bench, make: Callable[[], "tf.data.Dataset"]) -> Callable[[], float]:
    """A run that takes as many images as there are from an endless data set that is under way.

    Its first batch, for which shuffle buffers are filled, comes before.
    """
    from utils.data.records import count_records

    batches = iter(make())
    next(batches)
    steps = max(count_records(shards(bench)) // BATCH, 1)

    def run() -> float:
        for _ in range(steps):
            next(batches)
        return steps * BATCH

    return run


def one_pass(make: Callable[[], "tf.data.Dataset"]) -> Callable[[], float]:
    """A run that reads a whole data set, of batches (images, ...), from its start."""
    dataset = make()
    count = lambda: float(sum(int(batch[0].shape[0]) for batch in dataset))  # noqa: E731
    count()  # the files are in the machine's cache, as they are for the other variants
    return count


# ---------------------------------------------------------------- ours


def ours(bench: Bench, image_size: int, augment: str = "light", **options: Any) -> Callable[[], float]:
    tensorflow()
    from utils.data.batches import training_dataset

    dataset = training_dataset(
        shards(bench),
        image_size=image_size,
        batch_size=BATCH,
        seed=0,
        augment=augment,
        n_classes=CLASSES,
        shuffle_buffer=_shuffled(bench),
        **options,
    )
    return stream(bench, dataset.repeat)


def ours_evaluation(bench: Bench, image_size: int) -> Callable[[], float]:
    tensorflow()
    from utils.data.batches import evaluation_dataset

    files = _TIMES * shards(bench)
    return one_pass(
        lambda: evaluation_dataset(files, image_size=image_size, batch_size=BATCH, n_classes=CLASSES)
    )


# ---------------------------------------------------------------- the published way


def published(bench: Bench, image_size: int) -> Callable[[], float]:
    """The training input of mytflib: written from what it does, or its own with --mytflib.

    Whole images as float32 from 0 to 1, decoded one after another while files are read in parallel; one-hot
    labels; both flips, whose results are dropped; central crop, resize, ImageNet's mean and deviation, each in
    a map of its own; 2,048 finished examples shuffled.
    """
    tf = tensorflow()
    files = list(map(str, shards(bench)))
    if bench.mytflib:
        names = {"image": "str", "image_id": "str", "scientificName": "int", "family": "int", "genus": "int"}
        settings = {
            "ls_train_files": files,
            "tfrec_structure": names,
            "tfrec_shape": [480, 480],
            "resize_resol": [image_size, image_size],
            "N_cls": CLASSES,
            "batch_size": BATCH,
            "crop_ratio": 0.9,
        }
        make = _mytflib(bench.mytflib).get_train_ds_tfrec_from_dict
        return stream(
            bench,
            lambda: make(settings, label_name="scientificName", DataRepeat=True, Nsuffle=_shuffled(bench)),
        )

    def flips_crop_resize(image: Any, label: Any) -> tuple:
        tf.image.random_flip_left_right(image)  # both stay in the graph: they draw from a stateful generator
        tf.image.random_flip_up_down(image)
        return tf.image.resize(tf.image.central_crop(image, 0.9), [image_size, image_size]), label

    def make() -> "tf.data.Dataset":
        auto = tf.data.AUTOTUNE
        dataset = _decoded_one_by_one(tf, files, "scientificName")
        dataset = dataset.map(lambda image, label: (image, tf.one_hot(label, CLASSES)), auto)
        dataset = dataset.map(flips_crop_resize, auto).prefetch(auto)
        dataset = dataset.map(partial(_normalised, tf), auto).prefetch(auto)
        return dataset.repeat().shuffle(_shuffled(bench)).batch(BATCH, drop_remainder=True).prefetch(auto)

    return stream(bench, make)


def published_evaluation(bench: Bench, image_size: int) -> Callable[[], float]:
    """The test input of the published script: images in one pass, their ids in another.

    Each pass decodes, normalises, crops and resizes everything, also the one that takes only the ids. The
    script has it itself, mytflib has not.
    """
    tf = tensorflow()
    files = list(map(str, shards(bench)))

    def crop_resize(image: Any, image_id: Any) -> tuple:
        return tf.image.resize(tf.image.central_crop(image, 0.9), [image_size, image_size]), image_id

    auto = tf.data.AUTOTUNE
    dataset = _decoded_one_by_one(tf, files, "image_id", ordered=True)
    dataset = dataset.map(partial(_normalised, tf), auto).prefetch(auto)
    dataset = dataset.map(crop_resize, auto).batch(BATCH).prefetch(auto)
    images, ids = dataset.map(lambda image, _: image), dataset.map(lambda _, image_id: image_id)

    def run() -> float:
        count = sum(int(batch.shape[0]) for batch in images)
        for _ in ids:
            pass
        return count

    return run


def _decoded_one_by_one(tf: Any, files: list[str], second: str, ordered: bool = False) -> "tf.data.Dataset":
    """Whole images, float32 from 0 to 1, with a label or id: the published decoding, in a map of one call."""
    kinds = {"image": tf.string, "image_id": tf.string, "scientificName": tf.int64}
    features = {name: tf.io.FixedLenFeature([], kinds[name]) for name in ("image", second)}

    def decode(record: Any) -> tuple:
        example = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(example["image"], channels=3)
        return tf.cast(image, tf.float32) / 255.0, example[second]

    options = tf.data.Options()
    options.deterministic = ordered
    records = tf.data.TFRecordDataset(files, num_parallel_reads=tf.data.AUTOTUNE).with_options(options)
    return records.map(decode)


def _normalised(tf: Any, image: Any, label: Any) -> tuple:
    mean, deviation = tf.constant([[[0.485, 0.456, 0.406]]]), tf.constant([[[0.229, 0.224, 0.225]]])
    return (image - mean) / deviation, label


def _mytflib(checkout: Path) -> Any:
    """The module that loads data, without the package's __init__, which imports much else."""
    spec = importlib.util.spec_from_file_location("mytflib_data", checkout / "mytflib" / "DataLoader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- the limit


def decoding(bench: Bench, ratio: int = 1) -> Callable[[], float]:
    """Decode JPEGs that are in memory at 1/ratio of their size, in as many threads as ours, to no batch."""
    tf = tensorflow()
    from utils.data.records import dataset_options

    def image_of(record: Any) -> Any:
        return tf.io.parse_single_example(record, {"image": tf.io.FixedLenFeature([], tf.string)})["image"]

    def decode(jpeg: Any) -> Any:
        pixels = tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
        return (pixels[0, 0, 0],)

    jpegs = tf.data.TFRecordDataset(list(map(str, shards(bench)))).map(image_of).cache()
    dataset = jpegs.repeat(_TIMES).map(decode, tf.data.AUTOTUNE).batch(BATCH).with_options(dataset_options())
    return one_pass(lambda: dataset)


# ---------------------------------------------------------------- the first layer, memory


def first_layer(bench: Bench, image_size: int) -> Callable[[], float]:
    """What the device does with a batch when training has resize: model. Here the device is the CPU."""
    tf = tensorflow()
    from utils.data.batches import training_dataset
    from utils.data.pixels import augmented_on_device

    dataset = training_dataset(
        shards(bench), image_size=image_size, batch_size=BATCH, seed=0, augment="flips", resize="model"
    )
    crops, numbers = next(iter(dataset))[0]
    layer = tf.function(partial(augmented_on_device, image_size=image_size, augment="flips"))
    layer(crops, numbers)

    def run() -> float:
        for _ in range(1 if bench.quick else 10):
            layer(crops, numbers)
        return 1 if bench.quick else 10

    return run


def records_alone(bench: Bench) -> Callable[[], Measured]:
    """Bytes of what must be there to shuffle: 2,048 published JPEGs."""
    return lambda: Measured(1, 1, SHUFFLED * IMAGE_BYTES)


def _row(
    name: str, size: int, read: Callable, as_published: Callable, targets: tuple[Target, ...], note: str
) -> Stage:
    """A row of input at so many pixels: ours, the published way, and decoding alone."""
    variants = {
        "ours": partial(read, image_size=size),
        "published": partial(as_published, image_size=size),
        "limit": partial(decoding, ratio=_RATIO[size]),
    }
    return Stage(name, "images/s", variants, targets, note, make_shards)


def _training(name: str, size: int, targets: tuple[Target, ...], note: str = "", **options: Any) -> Stage:
    return _row(name, size, partial(ours, **options), published, targets, note)


def _evaluation(size: int, least: float, note: str = "") -> Stage:
    targets = (Target("speed / limit", least),)
    return _row(f"evaluation input, {size} px", size, ours_evaluation, published_evaluation, targets, note)


_RATIO = {400: 1, 224: 2, 96: 4}  # 1/ratio is the scale at which the crop still has about the pixels wanted

STAGES = (
    _training(
        "train input, 400 px",
        400,
        (Target("speed / published", 1.7), Target("speed / limit", 0.6)),
        "Random crop and both flips. The published way drops its flips and crops centrally.",
        augment="flips",
    ),
    _training("train input, 400 px, with colours", 400, (), "As the profiles have it: augment light."),
    _training(
        "train input, 400 px, resize in the model",
        400,
        (Target("speed / published", 2.5), Target("speed / limit", 0.95)),
        "Random crop; flips, colours and resize are left to the device, see the next row.",
        resize="model",
    ),
    Stage(
        "the model's part: flips and resize to 400 px",
        "ms",
        {"ours": partial(first_layer, image_size=400)},
        note="Milliseconds a batch of 32, with the CPU as device.",
        prepare=make_shards,
    ),
    _training("train input, 224 px", 224, (Target("speed / limit", 0.95),), augment="flips"),
    _training(
        "train input, 224 px, resize in the model", 224, (Target("speed / limit", 0.95),), resize="model"
    ),
    _training("train input, 96 px", 96, (Target("speed / limit", 0.95),), augment="flips"),
    _training("train input, 96 px, with colours", 96, ()),
    Stage(
        "train input, 400 px: memory",
        "MB",
        {
            "ours": partial(ours, image_size=400, augment="flips"),
            "published": partial(published, image_size=400),
            "limit": records_alone,
        },
        (Target("memory / published", 0.2),),
        "Shuffled over 2,048 examples. Peaks are of whole processes, TensorFlow's own 400 to 500 MB included; the "
        "limit is the size of 2,048 published JPEGs of 83 KB.",
        make_shards,
    ),
    _evaluation(
        400,
        0.6,
        "One pass over the shards, three times. The published script decodes all twice: for images and for ids.",
    ),
    _evaluation(224, 0.85),
    _evaluation(96, 0.85),
)
