"""What training may do beyond flips and colours: RandAugment's operations, and two images in one.

What is drawn depends on (seed, epoch, index of the image) and on nothing else.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
FULL_ROTATION = np.pi / 6  # radians at magnitude 1, either way
FULL_SHEAR = 0.3
FULL_TRANSLATION = 0.3  # of the side
FULL_ENHANCEMENT = 0.9  # around 1, of colour, contrast, brightness and sharpness
FULL_POSTERIZE = 4  # bits that are taken away
_MIX, _RANDAUGMENT = 1, 2  # apart from each other and from the numbers of the pipeline


def key(seed: int, epoch: int, index: tf.Tensor, purpose: int = 0) -> tf.Tensor:
    """The seed of TensorFlow's stateless random operations for one image, int64 [2]."""
    run = tf.constant((seed << 20) + epoch, tf.int64)  # no two epochs of any seeds share it
    return tf.stack([run, tf.cast(index, tf.int64) + (purpose << 48)])


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    indices: tf.Tensor,
    *,
    seed: int,
    epoch: int,
    mixup: float,
    cutmix: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix every image of a batch with the one before it, the first with the last.

    The part of each image is drawn from a beta distribution. mixup blends the two (Zhang et al. 2018,
    arXiv:1710.09412); CutMix pastes a box of the other one (Yun et al. 2019, arXiv:1905.04899). With both, each
    image gets one of them, at even odds.

    Args:
        images: uint8 [B, S, S, 3]; labels: int32 [B]; indices: numbers of the images in the data, int64 [B].
        mixup, cutmix: alpha of the beta distribution, 0 for none; not both 0.

    Returns:
        uint8 [B, S, S, 3], and float32 [B, 3]: class, other class, part of the first. Whole numbers up to 16.7
        million are exact in float32.
    """
    numbers = tf.map_fn(
        lambda index: mixing_numbers(key(seed, epoch, index, _MIX), mixup, cutmix),
        indices,
        fn_output_signature=tf.TensorSpec([4], tf.float32),
    )
    others, other_labels = tf.roll(images, 1, axis=0), tf.roll(labels, 1, axis=0)
    blended, pasted = numbers[:, 0] < 0.5, numbers[:, 0] >= 0.5
    parts = numbers[:, 1]
    mixed = images
    if mixup:
        mixed = tf.where(blended[:, None, None, None], blend(images, others, parts), mixed)
    if cutmix:
        boxed, kept = paste(images, others, parts, numbers[:, 2:4])
        mixed = tf.where(pasted[:, None, None, None], boxed, mixed)
        parts = tf.where(pasted, kept, parts)
    pairs = tf.cast(tf.stack([labels, other_labels], axis=1), tf.float32)
    return mixed, tf.concat([pairs, parts[:, None]], axis=1)


def mixing_numbers(seed: tf.Tensor, mixup: float, cutmix: float) -> tf.Tensor:
    """What mixes one image, float32 [4]: below 0.5 for mixup; the part kept; box centre down and right."""
    uniform = tf.random.stateless_uniform([3], seed)
    choice = uniform[0] if mixup and cutmix else tf.constant(0.25 if mixup else 0.75)
    alpha = tf.where(choice < 0.5, mixup or 1.0, cutmix or 1.0)
    # beta as gamma / (gamma + gamma); for small alpha both can be 0 in float32
    gammas = tf.random.stateless_gamma([2], seed + 1, alpha=alpha) + 1e-20
    part = gammas[0] / tf.reduce_sum(gammas)
    return tf.stack([choice, part, uniform[1], uniform[2]])


def blend(images: tf.Tensor, others: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
    """part x image + (1 - part) x other, rounded: uint8 [B, S, S, 3] of two such and float32 [B]."""
    parts = parts[:, None, None, None]
    sums = parts * tf.cast(images, tf.float32) + (1 - parts) * tf.cast(others, tf.float32)
    return tf.cast(tf.round(sums), tf.uint8)


def paste(
    images: tf.Tensor, others: tf.Tensor, parts: tf.Tensor, centres: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Paste a box of the other image, at the same place, of area 1 - part; it is cut off at the edges.

    Args:
        images, others: uint8 [B, S, S, 3]; parts: float32 [B]; centres: of the boxes, float32 [B, 2] from 0 to
            1 down and right.

    Returns:
        uint8 [B, S, S, 3], and the part of every image that was kept, float32 [B].
    """
    size = tf.shape(images)[1]
    half = tf.sqrt(1 - parts)[:, None] * tf.cast(size, tf.float32) / 2
    middle = centres * tf.cast(size, tf.float32)
    low = tf.cast(tf.round(middle - half), tf.int32)  # [B, 2]
    high = tf.cast(tf.round(middle + half), tf.int32)
    line = tf.range(size)[None, :, None]
    inside = (line >= low[:, None]) & (line < high[:, None])  # [B, S, 2]
    box = inside[:, :, None, 0] & inside[:, None, :, 1]  # [B, S, S]
    kept = 1 - tf.reduce_mean(tf.cast(box, tf.float32), axis=[1, 2])
    return tf.where(box[..., None], others, images), kept


def randaugment(
    image: tf.Tensor, index: tf.Tensor, *, seed: int, epoch: int, operations: int, magnitude: float
) -> tf.Tensor:
    """Change an image by some operations of OPERATIONS, one after another, each drawn at even odds.

    RandAugment of Cubuk et al. (2020, arXiv:1909.13719) with the operations that leave a pressed plant
    recognisable; its directions are drawn, its strength is `magnitude` as there.

    Args:
        image: uint8 [S, S, 3]; index: its number in the data.
        operations: how many; magnitude: from 0 to 1.
    """
    numbers = tf.random.stateless_uniform([operations, 2], key(seed, epoch, index, _RANDAUGMENT))
    for step in range(operations):
        chosen = tf.cast(numbers[step, 0] * len(OPERATIONS), tf.int32)
        strength = tf.where(numbers[step, 1] < 0.5, -magnitude, magnitude)
        branches = [
            lambda operation=operation, before=image, by=strength: operation(before, by)
            for operation in OPERATIONS.values()
        ]
        image = tf.ensure_shape(tf.switch_case(chosen, branches), image.shape)
    return image


def identity(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """The image as it is: RandAugment may also leave it alone."""
    return image


def rotate(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Turn around the centre, counter-clockwise for a strength above 0; what comes in repeats the edge."""
    angle = strength * FULL_ROTATION
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle = (tf.cast(tf.shape(image)[0], tf.float32) - 1) / 2
    right = middle - cosine * middle + sine * middle
    down = middle - sine * middle - cosine * middle
    return _moved(image, [cosine, -sine, right, sine, cosine, down])


def shear_x(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Take the pixel at (x, y) from x + shear x y, counted from the top left corner as Pillow does."""
    return _moved(image, [1.0, strength * FULL_SHEAR, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Take the pixel at (x, y) from y + shear x x, counted from the top left corner as Pillow does."""
    return _moved(image, [1.0, 0.0, 0.0, strength * FULL_SHEAR, 1.0, 0.0])


def translate_x(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Move left for a strength above 0, right below."""
    shift = strength * FULL_TRANSLATION * tf.cast(tf.shape(image)[1], tf.float32)
    return _moved(image, [1.0, 0.0, shift, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Move up for a strength above 0, down below."""
    shift = strength * FULL_TRANSLATION * tf.cast(tf.shape(image)[0], tf.float32)
    return _moved(image, [1.0, 0.0, 0.0, 0.0, 1.0, shift])


def _moved(image: tf.Tensor, matrix: list) -> tf.Tensor:
    """The pixel at (x, y) taken from (a x + b y + c, d x + e y + f), bilinear, edges repeated."""
    transform = tf.stack([tf.cast(value, tf.float32) for value in (*matrix, 0.0, 0.0)])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    return moved[0]


def brightness(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards black for a strength below 0, away from it above, as Pillow's ImageEnhance.Brightness."""
    return _enhanced(tf.zeros_like(image, tf.float32), image, strength)


def contrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards or away from the mean grey of the image, as Pillow's ImageEnhance.Contrast."""
    grey = _grey(image)
    mean = tf.floor(tf.reduce_mean(grey) + 0.5)
    return _enhanced(tf.fill(tf.shape(image), mean), image, strength)


def colour(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards or away from grey, as Pillow's ImageEnhance.Color."""
    return _enhanced(tf.broadcast_to(_grey(image)[..., None], tf.shape(image)), image, strength)


def sharpness(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards or away from a smoothed image, as Pillow's ImageEnhance.Sharpness; the border stays."""
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
    pixels = tf.cast(image, tf.float32)
    kernels = tf.tile(kernel[:, :, None, None], [1, 1, 3, 1])
    inner = tf.nn.depthwise_conv2d(pixels[None], kernels, [1, 1, 1, 1], "VALID")[0]
    inner = tf.floor(inner + 0.5)
    ring = tf.pad(tf.ones_like(inner), [[1, 1], [1, 1], [0, 0]])
    smoothed = tf.where(ring > 0, tf.pad(inner, [[1, 1], [1, 1], [0, 0]]), pixels)
    return _enhanced(smoothed, image, strength)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Luma of every pixel, rounded, float32 [S, S]."""
    return tf.floor(tf.reduce_sum(tf.cast(image, tf.float32) * tf.constant(GREY), axis=-1) + 0.5)


def _enhanced(origin: tf.Tensor, image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """origin + (1 + 0.9 x strength) x (image - origin), as uint8."""
    factor = 1 + FULL_ENHANCEMENT * strength
    pixels = origin + factor * (tf.cast(image, tf.float32) - origin)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


def posterize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Keep the highest bits of every value: 8 at strength 0, 4 at 1 either way."""
    dropped = tf.cast(tf.round(tf.abs(strength) * FULL_POSTERIZE), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, dropped), dropped)


def autocontrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Stretch every channel to 0..255, whatever the strength; a flat channel stays."""
    pixels = tf.cast(image, tf.float32)
    low, high = tf.reduce_min(pixels, axis=[0, 1]), tf.reduce_max(pixels, axis=[0, 1])
    stretched = tf.floor((pixels - low) * (255 / tf.maximum(high - low, 1)))
    return tf.cast(tf.where(high > low, stretched, pixels), tf.uint8)


def equalize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Spread the values of every channel so that all are about as frequent, as Pillow's ImageOps.equalize."""

    def one(channel: tf.Tensor) -> tf.Tensor:
        values = tf.cast(channel, tf.int32)
        histogram = tf.math.bincount(values, minlength=256, maxlength=256)
        last = tf.reduce_max(tf.where(histogram > 0, tf.range(256), 0))
        step = (tf.reduce_sum(histogram) - histogram[last]) // 255
        table = tf.minimum((tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1), 255)
        return tf.where(step > 0, tf.gather(table, values), values)

    return tf.cast(tf.stack([one(image[..., channel]) for channel in range(3)], axis=-1), tf.uint8)


OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    operation.__name__: operation
    for operation in (
        identity,
        rotate,
        shear_x,
        shear_y,
        translate_x,
        translate_y,
        brightness,
        contrast,
        colour,
        sharpness,
        posterize,
        autocontrast,
        equalize,
    )
}
