import functools
from io import BytesIO

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from utils.data.batches import evaluation_dataset, training_dataset
from utils.data.pixels import (
    BRIGHTNESS,
    CONTRAST,
    SATURATION,
    adjust_colours,
    augmented_image,
    augmented_on_device,
    crop_box,
    dct_ratio,
    decode_crop_resize,
    flip,
    random_numbers,
    to_uint8,
)
from utils.data.records import read_records
from utils.files import InputError, UsageError
from utils.own.images import encode_image
from utils.own.shards import Record, write_shards

N_RECORDS = 46
OPTIONS = {"image_size": 32, "batch_size": 8}


def image_id(number):
    return f"{number % 5:05d}__{number:03d}"


@pytest.fixture(scope="module")
def shards(make_jpeg, tmp_path_factory):
    """Four shards of 12, 12, 12 and 10 images of different sizes; the class tells the number modulo 5."""
    records = (
        Record(make_jpeg(number, 96 + number, 128 - number), image_id(number), number % 5, 0, 0)
        for number in range(N_RECORDS)
    )
    folder = tmp_path_factory.mktemp("shards")
    return write_shards(records, folder, split="train", shard_images=12)


@pytest.fixture(scope="module")
def evaluated(shards):
    """What evaluation gives for all records: images, classes, ids."""
    batches = list(evaluation_dataset(shards, **OPTIONS).as_numpy_iterator())
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def train(shards, **options):
    return list(training_dataset(shards, **{**OPTIONS, "seed": 3, **options}).as_numpy_iterator())


def joined(batches):
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def inside_tf_data(function, *arguments):
    """`function` applied to one element by a parallel map, as the pipelines apply it."""
    dataset = tf.data.Dataset.from_tensors(arguments).map(function, num_parallel_calls=2)
    return next(dataset.as_numpy_iterator())


def both_ways(function, *arguments):
    """The result of an op, the same eager and inside tf.data."""
    arguments = [tf.convert_to_tensor(argument) for argument in arguments]
    eager = function(*arguments).numpy()
    mapped = inside_tf_data(function, *arguments)
    assert eager.dtype == mapped.dtype
    np.testing.assert_allclose(mapped, eager, rtol=1e-5, atol=1e-4)
    return eager


# Evaluation


def test_evaluation_yields_every_image_once_in_order_and_keeps_the_last_batch(shards):
    batches = list(evaluation_dataset(reversed(shards), **OPTIONS).as_numpy_iterator())
    assert [len(batch[0]) for batch in batches] == [8, 8, 8, 8, 8, 6]
    images, classes, ids = joined(batches)
    assert (images.dtype, images.shape) == (np.uint8, (N_RECORDS, 32, 32, 3))
    assert classes.dtype == np.int32
    assert [value.decode() for value in ids] == [image_id(number) for number in range(N_RECORDS)]
    assert classes.tolist() == [number % 5 for number in range(N_RECORDS)]


def test_ids_belong_to_their_images(shards, evaluated):
    images, _, ids = evaluated
    for record in read_records(shards):
        with Image.open(BytesIO(record["image"])) as image:
            width, height = image.size
            left, top = round(0.05 * width), round(0.05 * height)
            window = image.crop((left, top, width - left, height - top)).resize(
                (32, 32), Image.Resampling.BOX
            )
        distance = np.abs(images.astype(float) - np.asarray(window, dtype=float)).mean(axis=(1, 2, 3))
        assert ids[distance.argmin()].decode() == record["image_id"]


def test_only_ids_selects_exactly_these(shards):
    wanted = [image_id(number) for number in (3, 17, 45)]
    dataset = evaluation_dataset(shards, **OPTIONS, only_ids=[*wanted, "not there"])
    _, _, ids = joined(dataset.as_numpy_iterator())
    assert [value.decode() for value in ids] == wanted
    assert list(evaluation_dataset(shards, **OPTIONS, only_ids=[])) == []


def test_only_and_exclude_partition_the_records(shards, evaluated):
    held_out = [image_id(number) for number in range(0, N_RECORDS, 3)]
    _, _, validation = joined(evaluation_dataset(shards, **OPTIONS, only_ids=held_out).as_numpy_iterator())
    assert [value.decode() for value in validation] == held_out
    images, classes = joined(
        train(shards, batch_size=1, exclude_ids=held_out, augment="none", random_crop=False)
    )
    assert len(images) == N_RECORDS - len(held_out)
    everything, _, ids = evaluated
    found = []
    for image, label in zip(images, classes, strict=True):
        (hits,) = np.nonzero((everything == image).all(axis=(1, 2, 3)))
        assert len(hits) == 1
        found.append(ids[hits[0]].decode())
        assert int(found[-1][:5]) == label
    assert sorted([*found, *held_out]) == sorted(image_id(number) for number in range(N_RECORDS))


def test_test_shards_have_integer_ids_and_no_class(tmp_path, make_jpeg):
    records = [Record(make_jpeg(number, 64, 64), 1000 + number) for number in range(5)]
    shards = write_shards(records, tmp_path, split="test")
    images, classes, ids = joined(
        evaluation_dataset(shards, **OPTIONS, only_ids=["1001", "1004"]).as_numpy_iterator()
    )
    assert ids.tolist() == [b"1001", b"1004"]
    assert classes.tolist() == [-1, -1]
    assert images.shape == (2, 32, 32, 3)
    with pytest.raises(InputError, match="no feature 'scientificName'"):
        train(shards)


def test_an_empty_only_ids_is_not_taken_for_none(shards):
    assert sum(1 for _ in training_dataset(shards, **OPTIONS, seed=0, exclude_ids=[])) == 5


# Training


def test_training_gives_full_uint8_batches_with_integer_labels(shards):
    batches = train(shards)
    assert len(batches) == N_RECORDS // 8
    for images, labels in batches:
        assert (images.dtype, images.shape) == (np.uint8, (8, 32, 32, 3))
        assert (labels.dtype, labels.shape) == (np.int32, (8,))
    spec = training_dataset(shards, **OPTIONS, seed=3).element_spec
    assert spec[0].shape.as_list() == [8, 32, 32, 3]


def test_the_same_seed_and_epoch_give_the_same_batches(shards):
    first, again = train(shards, epoch=2), train(shards, epoch=2)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 4}])
def test_another_epoch_or_seed_gives_another_order_and_other_crops(shards, change):
    plain = {"augment": "none", "random_crop": False, "batch_size": 1}
    first, other = joined(train(shards, **plain)), joined(train(shards, **plain, **change))
    assert not np.array_equal(first[0], other[0])  # the order
    pixels = [sorted(image.tobytes() for image in images) for images in (first[0], other[0])]
    assert pixels[0] == pixels[1]  # of the same images
    cropped = [joined(train(shards, augment="none", batch_size=1, **extra))[0] for extra in ({}, change)]
    assert not {image.tobytes() for image in cropped[0]} & {image.tobytes() for image in cropped[1]}


def test_what_is_done_to_an_image_does_not_depend_on_the_split(shards):
    everything, _ = joined(train(shards, batch_size=1))
    some, _ = joined(train(shards, batch_size=1, exclude_ids=[image_id(number) for number in range(20)]))
    assert {image.tobytes() for image in some} < {image.tobytes() for image in everything}


def test_shuffling_mixes_across_shards(shards):
    _, labels = joined(train(shards, batch_size=1))
    assert labels.tolist() != sorted(labels.tolist())
    assert labels.tolist() != [number % 5 for number in range(N_RECORDS)]


def test_the_shuffle_buffer_holds_compressed_records(shards, monkeypatch):
    """What goes into the shuffle is a record's number and its serialized bytes."""
    shuffled = []
    shuffle = tf.data.Dataset.shuffle

    def watched(dataset, *arguments, **options):
        shuffled.append(dataset.element_spec)
        return shuffle(dataset, *arguments, **options)

    monkeypatch.setattr(tf.data.Dataset, "shuffle", watched)
    training_dataset(shards, **OPTIONS, seed=0)
    number, record = shuffled[-1]
    assert (number.dtype, record.dtype, record.shape.rank) == (tf.int64, tf.string, 0)
    assert [spec.dtype for spec in shuffled[:-1]] == [tf.string]  # the file names


def arrow(size=64):
    """An image whose four flips differ: a dark corner above left and a grey edge on the left."""
    pixels = np.full((size, size, 3), 230, np.uint8)
    pixels[:, : size // 4] = 150
    pixels[: size // 3, : size // 3] = 20
    return pixels


def orientation(image):
    return tuple(bool(np.asarray(half).mean() < image.mean()) for half in (image[:16], image[:, :16]))


def test_flips_really_happen_both_ways(tmp_path):
    buffer = BytesIO()
    Image.fromarray(arrow()).save(buffer, "JPEG", quality=95)
    records = [Record(buffer.getvalue(), str(number), 0, 0, 0) for number in range(120)]
    shards = write_shards(records, tmp_path, split="train")
    images, _ = joined(train(shards, crop=1.0))
    seen = [orientation(image) for image in images]
    for flipped in ((True, True), (True, False), (False, True), (False, False)):
        assert 10 <= seen.count(flipped) <= 60  # 30 expected
    images, _ = joined(train(shards, crop=1.0, augment="none"))
    assert {orientation(image) for image in images} == {(True, True)}
    assert len({image.tobytes() for image in images}) == 1


def test_light_augmentation_changes_colours_within_its_limits(tmp_path):
    buffer = BytesIO()
    Image.new("RGB", (64, 64), (120, 130, 110)).save(buffer, "JPEG", quality=95)
    records = [Record(buffer.getvalue(), str(number), 0, 0, 0) for number in range(80)]
    shards = write_shards(records, tmp_path, split="train")
    images, _ = joined(train(shards))
    grey = images.mean(axis=(1, 2, 3))
    assert 120 - 27 < grey.min() < 110
    assert 130 < grey.max() < 120 + 27
    spread = images[:, 0, 0, 1].astype(int) - images[:, 0, 0, 2]
    assert 16 <= spread.min() < 19 < 21 < spread.max() <= 24


# Operations, each eager and inside tf.data


def test_random_numbers_are_keyed_by_seed_epoch_and_index():
    draw = lambda seed, epoch: both_ways(  # noqa: E731
        lambda index: random_numbers(seed, epoch, index), np.int64(5)
    )
    numbers = draw(1, 2)
    assert (numbers.dtype, numbers.shape) == (np.float32, (7,))
    np.testing.assert_array_equal(numbers, draw(1, 2))
    others = [draw(2, 1), draw(1, 3), random_numbers(1, 2, tf.constant(6, tf.int64)).numpy()]
    for other in others:
        assert not np.intersect1d(numbers, other).size
    many = np.stack([random_numbers(0, 0, tf.constant(index)).numpy() for index in range(300)])
    assert 0 <= many.min() < many.max() < 1
    np.testing.assert_allclose(many.mean(axis=0), 0.5, atol=0.07)
    correlation = np.corrcoef(many.T) - np.eye(7)
    assert np.abs(correlation).max() < 0.2


def test_random_numbers_are_the_same_on_every_supported_tensorflow():
    expected = [0.9372361, 0.4154371, 0.8125782, 0.8169271, 0.5658437, 0.5063828, 0.8971629]
    numbers = random_numbers(17, 3, tf.constant(1234, tf.int64)).numpy()
    np.testing.assert_allclose(numbers, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("image_size", "ratio"), [(433, 1), (225, 1), (224, 2), (113, 2), (112, 4), (96, 4), (56, 8), (1, 8)]
)
def test_decoding_is_as_coarse_as_the_target_allows(image_size, ratio):
    chosen = both_ways(lambda sides: dct_ratio(sides, 0.9, image_size), np.array([500, 480], np.int32))
    assert (1, 2, 4, 8)[chosen] == ratio


def test_crop_boxes_keep_their_share_and_reach_every_edge():
    sides = np.array([100, 57], np.int32)
    assert both_ways(lambda value: crop_box(value, 0.9, None), sides).tolist() == [5, 3, 90, 51]
    window = np.array([0.0, 0.0], np.float32)
    for position, corner in ((0.0, [0, 0]), (0.9999999, [10, 6]), (1.0, [10, 6])):
        window[:] = position
        box = both_ways(lambda value, where: crop_box(value, 0.9, where), sides, window)
        assert box.tolist() == [*corner, 90, 51]
    assert crop_box(tf.constant([3, 1]), 0.1, None).numpy().tolist() == [1, 0, 1, 1]
    windows = [tf.constant([down, 0.0], tf.float32) for down in np.linspace(0, 0.999, 45)]
    tops = {int(crop_box(tf.constant(sides), 0.9, where)[0]) for where in windows}
    assert tops == set(range(11))


def exact(jpeg, image_size, crop, window):
    """Full decode, the same window, one antialiased resize."""
    with Image.open(BytesIO(jpeg)) as image:
        sides = np.array([image.height, image.width])
        ratio = (1, 2, 4, 8)[int(dct_ratio(tf.constant(sides, tf.int32), crop, image_size))]
        reduced = tf.constant(-(-sides // ratio), tf.int32)
        top, left, height, width = ratio * crop_box(reduced, crop, window).numpy().astype(float)
        box = (left, top, min(left + width, image.width), min(top + height, image.height))
        resized = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
        return np.asarray(resized, dtype=float)


@pytest.mark.parametrize("image_size", [48, 96, 128, 224, 500])
def test_partial_decode_stays_near_the_exact_one(make_jpeg, image_size):
    for number, sides, window in ((0, (480, 480), None), (1, (481, 333), (0.31, 0.72))):
        window = None if window is None else tf.constant(window)
        jpeg = make_jpeg(number, *sides)
        pixels = both_ways(lambda data, where=window: decode_crop_resize(data, image_size, 0.9, where), jpeg)
        assert (pixels.dtype, pixels.shape) == (np.float32, (image_size, image_size, 3))
        assert np.abs(pixels - exact(jpeg, image_size, 0.9, window)).mean() < 3


def test_real_sheets_decode_within_the_stated_tolerance(real_sheets):
    jpegs = [encode_image(path) for path in sorted(real_sheets.glob("*.jpg"))[:8]]
    for image_size in (64, 96, 128, 224, 380):
        differences = [
            np.abs(
                decode_crop_resize(tf.constant(jpeg), image_size, 0.9, None)
                - exact(jpeg, image_size, 0.9, None)
            ).mean()
            for jpeg in jpegs
        ]
        assert max(differences) < 3
        assert np.mean(differences) < 2


def test_windows_never_leave_the_image(make_jpeg):
    jpeg = tf.constant(make_jpeg(0, 97, 61))
    for window in ([0.0, 1.0], [1.0, 0.0]):
        for crop in (0.1, 0.5, 0.9, 1.0):
            for image_size in (1, 8, 40, 97):
                pixels = decode_crop_resize(jpeg, image_size, crop, tf.constant(window))
                assert pixels.shape == (image_size, image_size, 3)


def test_grey_jpegs_become_rgb():
    buffer = BytesIO()
    Image.fromarray(arrow()[..., 0]).save(buffer, "JPEG")
    pixels = both_ways(lambda data: decode_crop_resize(data, 32, 0.9, None), buffer.getvalue())
    assert pixels.shape == (32, 32, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_colours_change_as_brightness_contrast_and_saturation_should():
    pixels = np.random.default_rng(0).uniform(0, 255, (9, 7, 3)).astype(np.float32)
    numbers = np.array([0.8, 0.1, 0.9], np.float32)
    brightness, contrast, saturation = (2 * numbers - 1) * (
        BRIGHTNESS * 255,
        CONTRAST,
        SATURATION,
    )
    mean = pixels.mean(axis=(0, 1))
    expected = (pixels - mean) * (1 + contrast) + mean + brightness
    grey = expected @ np.array([0.299, 0.587, 0.114])
    expected = grey[..., None] + (expected - grey[..., None]) * (1 + saturation)
    changed = both_ways(adjust_colours, pixels, numbers)
    np.testing.assert_allclose(changed, expected.clip(0, 255), atol=1e-2)
    assert (expected > 255).any()


def test_colours_stay_when_all_numbers_are_one_half():
    pixels = np.random.default_rng(0).uniform(0, 255, (9, 7, 3)).astype(np.float32)
    unchanged = both_ways(adjust_colours, pixels, np.full(3, 0.5, np.float32))
    np.testing.assert_allclose(unchanged, pixels, atol=1e-3)


@pytest.mark.parametrize(
    ("numbers", "step"),
    [((0.9, 0.9), (1, 1)), ((0.1, 0.9), (1, -1)), ((0.9, 0.1), (-1, 1)), ((0.1, 0.1), (-1, -1))],
)
def test_flip_mirrors_left_right_then_up_down(numbers, step):
    pixels = arrow(8)
    flipped = both_ways(flip, pixels, np.array(numbers, np.float32))
    np.testing.assert_array_equal(flipped, pixels[:: step[0], :: step[1]])


def test_uint8_rounds():
    values = np.array([0.0, 0.4, 0.6, 254.4, 254.6, 255.00002], np.float32)
    assert both_ways(to_uint8, values).tolist() == [0, 0, 1, 254, 255, 255]


# Bad input


def test_missing_shards_and_features_are_named(tmp_path, shards):
    with pytest.raises(InputError, match=r"nowhere\.tfrec"):
        evaluation_dataset([*shards, tmp_path / "nowhere.tfrec"], **OPTIONS)
    with pytest.raises(InputError, match="no shards"):
        evaluation_dataset([], **OPTIONS)
    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    example = tf.train.Example(features=tf.train.Features(feature={"image_id": feature}))
    with tf.io.TFRecordWriter(str(tmp_path / "odd.tfrec")) as writer:
        writer.write(example.SerializeToString())
    with pytest.raises(InputError, match=r"odd\.tfrec: record 0 has no feature 'image'; found image_id"):
        evaluation_dataset([tmp_path / "odd.tfrec"], **OPTIONS)


@pytest.mark.parametrize("option", [{"crop": 0}, {"crop": 1.5}, {"image_size": 0}, {"batch_size": 0}])
def test_options_out_of_range_are_refused(shards, option):
    for make in (evaluation_dataset, lambda *a, **k: training_dataset(*a, seed=0, **k)):
        with pytest.raises(UsageError, match=next(iter(option))):
            make(shards, **{**OPTIONS, **option})


def test_unknown_augmentation_names_the_known_ones(shards):
    with pytest.raises(UsageError, match="none, flips, upright, light"):
        train(shards, augment="heavy")


@pytest.mark.parametrize(
    ("augment", "downwards"), [("light", True), ("flips", True), ("upright", False), ("none", False)]
)
def test_only_light_augmentation_turns_sheets_upside_down(augment, downwards):
    """A sheet that is black above and white below, with every random number at 0: all flips happen."""
    sheet = np.zeros((64, 64, 3), np.uint8)
    sheet[32:] = 255
    jpeg = tf.io.encode_jpeg(sheet)
    options = {"image_size": 32, "crop": 1.0, "random_crop": True, "augment": augment}
    image = augmented_image(jpeg, tf.zeros([7]), **options).numpy()
    assert (image[:8].mean() > image[-8:].mean()) == downwards


# Resize in the model


@pytest.mark.parametrize(
    ("image_size", "sides"), [(32, (64, 64)), (60, (64, 64)), (40, (64, 50)), (90, (64, 64))]
)
@pytest.mark.parametrize("augment", ["light", "upright", "flips", "none"])
def test_the_device_makes_of_a_crop_what_the_input_would_have(
    tmp_path, make_jpeg, image_size, sides, augment
):
    """Averaged, bilinear, of another shape than square, enlarged; light turns sheets over, none does nothing."""
    records = [Record(make_jpeg(number, *sides), str(number), 0, 0, 0) for number in range(24)]
    shards = write_shards(records, tmp_path, split="train")
    options = {"image_size": image_size, "batch_size": 8, "augment": augment, "seed": 5, "epoch": 1}
    expected = training_dataset(shards, **options)
    crops = training_dataset(shards, **options, resize="model")
    for (wanted, labels), ((images, numbers), same_labels) in zip(expected, crops, strict=True):
        assert images.dtype == tf.uint8 and images.shape == crops.element_spec[0][0].shape
        made = both_ways(
            functools.partial(augmented_on_device, image_size=image_size, augment=augment),
            images.numpy(),
            numbers.numpy(),
        )
        assert (made.dtype, made.shape) == (np.float32, (8, image_size, image_size, 3))
        difference = np.abs(made - wanted.numpy())
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
        np.testing.assert_array_equal(labels, same_labels)


def test_a_crop_of_another_size_is_made_to_fit_its_batch(tmp_path, make_jpeg):
    sides = [(64, 64), (64, 64), (80, 64), (200, 200)]
    records = [Record(make_jpeg(number, *size), str(number), 0, 0, 0) for number, size in enumerate(sides)]
    shards = write_shards(records, tmp_path, split="train")
    options = {"image_size": 40, "batch_size": 4, "augment": "none", "seed": 0}
    (((images, _), _),) = training_dataset(shards, **options, resize="model")
    assert images.shape == (4, 58, 58, 3)
    ((wanted, _),) = training_dataset(shards, **options)
    made = augmented_on_device(images, tf.ones([4, 5]), image_size=40, augment="none")
    assert np.abs(made - tf.cast(wanted, tf.float32)).mean(axis=(1, 2, 3)).max() < 6


def test_resize_in_the_model_is_refused_with_what_works_on_resized_images(shards):
    for option in ({"mixup": 0.2}, {"cutmix": 1.0}, {"randaugment": 2}):
        with pytest.raises(UsageError, match="not with randaugment, mixup or cutmix"):
            train(shards, resize="model", **option)
    with pytest.raises(UsageError, match="resize is 'gpu', must be one of input, model"):
        train(shards, resize="gpu")
