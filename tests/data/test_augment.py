"""Each operation eagerly and inside tf.data, against Pillow or numpy."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from utils.data import augment
from utils.data.batches import training_dataset
from utils.own.shards import Record, write_shards

SIZE = 40


@pytest.fixture(scope="module")
def image(make_sheet) -> np.ndarray:
    return np.asarray(make_sheet(3, SIZE, SIZE))


def both_ways(function, *arguments):
    """The result of an op, the same eager and inside tf.data; off by one where a half is rounded."""
    arguments = tuple(tf.convert_to_tensor(argument) for argument in arguments)
    eager = function(*arguments)
    dataset = tf.data.Dataset.from_tensors(arguments).map(function, num_parallel_calls=2)
    mapped = next(dataset.as_numpy_iterator())
    for one, other in zip(tf.nest.flatten(eager), tf.nest.flatten(mapped), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one.numpy().astype(float), other.astype(float), atol=1)
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), eager)


# RandAugment's operations


def transformed(image: np.ndarray, matrix: tuple[float, ...], margin: int) -> np.ndarray:
    """Pillow's affine transform, which counts from the corners of pixels and not from their middles."""
    a, b, c, d, e, f = matrix
    matrix = (a, b, c + 0.5 - (a + b) / 2, d, e, f + 0.5 - (d + e) / 2)
    moved = Image.fromarray(image).transform((SIZE, SIZE), Image.AFFINE, matrix, Image.BILINEAR)
    return np.asarray(moved)[margin:-margin, margin:-margin]


@pytest.mark.parametrize("strength", [-0.4, 0.25])
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
def test_moves_equal_pillows(image: np.ndarray, name: str, strength: float) -> None:
    shear, shift = 0.3 * strength, 0.3 * strength * SIZE
    cosine, sine = np.cos(np.pi / 6 * strength), np.sin(np.pi / 6 * strength)
    middle = (SIZE - 1) / 2
    matrix = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
        "rotate": (
            *(cosine, -sine, middle - cosine * middle + sine * middle),
            *(sine, cosine, middle - sine * middle - cosine * middle),
        ),
    }[name]
    found = both_ways(augment.OPERATIONS[name], image, np.float32(strength))
    assert found.dtype == np.uint8
    margin = 13  # what comes in from outside: edges here, black in Pillow
    difference = found[margin:-margin, margin:-margin].astype(int) - transformed(image, matrix, margin)
    assert np.abs(difference).max() <= 2
    assert np.abs(found.astype(int) - image).max() > 20


def test_a_rotation_above_zero_turns_a_sheet_counter_clockwise_around_its_centre() -> None:
    sheet = np.zeros((41, 41, 3), np.uint8)
    sheet[20, 30:] = 255  # a bar from the middle to the right
    turned = augment.rotate(tf.constant(sheet), tf.constant(1.0)).numpy()[..., 0]
    rows, columns = np.nonzero(turned > 60)
    assert columns.min() > 20
    angle = np.degrees(np.arctan2(20 - rows, columns - 20)).mean()
    assert angle in (pytest.approx(30, abs=3), pytest.approx(-30, abs=3))
    assert angle == pytest.approx(_pillow_angle(sheet, 30), abs=3)


def _pillow_angle(sheet: np.ndarray, degrees: float) -> float:
    turned = np.asarray(Image.fromarray(sheet).rotate(degrees, Image.BILINEAR))[..., 0]
    rows, columns = np.nonzero(turned > 60)
    return float(np.degrees(np.arctan2(20 - rows, columns - 20)).mean())


@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.0, 0.5])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("colour", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements_equal_pillows(image: np.ndarray, name: str, enhancer: type, strength: float) -> None:
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(1 + 0.9 * strength)).astype(int)
    found = both_ways(augment.OPERATIONS[name], image, np.float32(strength))
    assert np.abs(found - expected).max() <= 2  # Pillow cuts fractions off


@pytest.mark.parametrize(
    ("name", "strength", "pillow"),
    [
        ("posterize", 0.5, lambda image: ImageOps.posterize(image, 6)),
        ("posterize", -1.0, lambda image: ImageOps.posterize(image, 4)),
        ("autocontrast", 0.1, ImageOps.autocontrast),
        ("equalize", 0.1, ImageOps.equalize),
        ("identity", 0.9, lambda image: image),
    ],
)
def test_changes_of_values_equal_pillows(image: np.ndarray, name: str, strength: float, pillow) -> None:
    dull = (image // 2 + 30).astype(np.uint8)
    expected = np.asarray(pillow(Image.fromarray(dull))).astype(int)
    found = both_ways(augment.OPERATIONS[name], dull, np.float32(strength))
    assert np.abs(found - expected).max() <= (1 if name == "autocontrast" else 0)
    flat = np.full((8, 8, 3), 77, np.uint8)
    np.testing.assert_array_equal(
        augment.OPERATIONS[name](tf.constant(flat), tf.constant(0.0)),
        np.asarray(pillow(Image.fromarray(flat))) if name != "posterize" else flat,
    )


def test_operations_are_drawn_by_seed_epoch_and_index(image: np.ndarray) -> None:
    def draw(index: int, **options: int) -> bytes:
        options = {"seed": 1, "epoch": 2, "operations": 2, **options}
        changed = augment.randaugment(tf.constant(image), tf.constant(index), magnitude=0.5, **options)
        assert changed.shape == image.shape and changed.dtype == tf.uint8
        return changed.numpy().tobytes()

    assert draw(5) == draw(5)
    assert len({draw(index) for index in range(12)}) > 9
    assert {draw(5, seed=2), draw(5, epoch=3)} != {draw(5)}
    mapped = both_ways(
        lambda pixels, index: augment.randaugment(
            pixels, index, seed=1, epoch=2, operations=2, magnitude=0.5
        ),
        image,
        np.int64(5),
    )
    assert mapped.tobytes() == draw(5)


# mixup and CutMix


@pytest.fixture(scope="module")
def batch(make_sheet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = np.stack([np.asarray(make_sheet(number, SIZE, SIZE)) for number in range(6)])
    return images, np.arange(6, dtype=np.int32) * 1000, np.arange(6, dtype=np.int64) + 40


def mixing(**options: float):
    options = {"seed": 3, "epoch": 1, "mixup": 0.0, "cutmix": 0.0, **options}
    return lambda images, labels, indices: augment.mix(images, labels, indices, **options)


def test_mixup_blends_an_image_with_the_one_before_it(batch) -> None:
    images, labels, _ = batch
    mixed, rows = both_ways(mixing(mixup=1.0), *batch)
    assert mixed.dtype == np.uint8 and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:, 0], labels)
    np.testing.assert_array_equal(rows[:, 1], np.roll(labels, 1))
    parts = rows[:, 2].astype(float)[:, None, None, None]
    expected = parts * images + (1 - parts) * np.roll(images, 1, axis=0)
    assert np.abs(mixed - expected).max() <= 0.51


def test_cutmix_pastes_a_box_and_counts_its_pixels(batch) -> None:
    images, labels, _ = batch
    mixed, rows = both_ways(mixing(cutmix=1.0), *batch)
    others = np.roll(images, 1, axis=0)
    np.testing.assert_array_equal(rows[:, 1], np.roll(labels, 1))
    for image, other, result, part in zip(images, others, mixed, rows[:, 2], strict=True):
        pasted = (result != image).any(axis=-1)
        assert ((result == image) | (result == other)).all()
        box = np.zeros_like(pasted)
        if pasted.any():
            down, right = np.nonzero(pasted)
            box[down.min() : down.max() + 1, right.min() : right.max() + 1] = True
        np.testing.assert_array_equal(result[box], other[box])
        assert part == pytest.approx(1 - box.mean(), abs=0.05)  # a pixel of the other may be the same
    assert len(set(rows[:, 2])) > 3


def test_a_box_has_its_area_and_is_cut_off_at_the_edges() -> None:
    images, others = np.zeros((3, 20, 20, 3), np.uint8), np.full((3, 20, 20, 3), 9, np.uint8)
    parts = np.array([0.75, 0.75, 0.0], np.float32)
    centres = np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]], np.float32)
    mixed, kept = both_ways(augment.paste, images, others, parts, centres)
    assert kept == pytest.approx([0.75, 1 - 25 / 400, 0.0])
    assert (mixed[0, 5:15, 5:15] == 9).all() and mixed[0].sum() == 9 * 3 * 100
    assert (mixed[1, :5, 15:] == 9).all() and mixed[1].sum() == 9 * 3 * 25


def test_with_both_about_half_of_the_images_get_each() -> None:
    draw = tf.function(lambda index: augment.mixing_numbers(augment.key(0, 0, index, 1), 0.4, 1.0))
    numbers = np.stack([draw(tf.constant(index)).numpy() for index in range(400)])
    assert 0.4 < (numbers[:, 0] < 0.5).mean() < 0.6
    assert numbers.min() >= 0 and numbers.max() <= 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_parts_are_drawn_from_a_beta_distribution(alpha: float) -> None:
    draw = tf.function(lambda index: augment.mixing_numbers(augment.key(0, 0, index, 1), alpha, 0.0)[1])
    parts = np.array([draw(tf.constant(index)).numpy() for index in range(600)])
    assert np.isfinite(parts).all()
    assert parts.mean() == pytest.approx(0.5, abs=0.06)
    assert parts.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


# In the pipeline


@pytest.fixture(scope="module")
def shards(make_jpeg, tmp_path_factory):
    records = (Record(make_jpeg(number, 64, 64), str(number), number % 5, 0, 0) for number in range(18))
    return write_shards(records, tmp_path_factory.mktemp("shards"), split="train")


def batches(shards, **options):
    options = {"image_size": 32, "batch_size": 4, "seed": 3, **options}
    return list(training_dataset(shards, **options).as_numpy_iterator())


def test_batches_are_the_same_for_the_same_seed_and_epoch(shards) -> None:
    options = {"mixup": 0.5, "cutmix": 1.0, "randaugment": 1}
    first, again, other = (batches(shards, epoch=epoch, **options) for epoch in (1, 1, 2))
    for (images, labels), (images_again, labels_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(labels, labels_again)
    assert not np.array_equal(first[0][0], other[0][0])
    plain = batches(shards, epoch=1)
    assert not np.array_equal(first[0][0], plain[0][0])
    assert first[0][1].shape == (4, 3)
    np.testing.assert_array_equal(first[0][1][:, 0], plain[0][1])


def test_randaugment_changes_images_and_leaves_labels(shards) -> None:
    changed, plain = batches(shards, randaugment=1)[0], batches(shards)[0]
    np.testing.assert_array_equal(changed[1], plain[1])
    assert changed[0].shape == plain[0].shape and changed[0].dtype == np.uint8
    same = (changed[0] == plain[0]).all(axis=(1, 2, 3))
    assert not same.all()
