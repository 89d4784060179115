"""From the bytes of a JPEG to the pixels of one training or test image: crop, decode, resize, flips and colours.

What `augment` may name is listed in `utils.config.AUGMENTATIONS` and done here, on the CPU and on a device.
A JPEG is decoded only where the crop lies and only as finely as the target size needs.
"""

import math

import numpy as np
import tensorflow as tf

from utils.config import TURNED
from utils.data import augment
from utils.data.augment import GREY

_DCT_RATIOS = (1, 2, 4, 8)  # scales at which libjpeg can decode
_MOST_ENLARGED = 1.04  # what is decoded at one of them may be so much smaller than wanted: 216 px for 224
_AVERAGE_FROM = 1.25  # shrinking by this or more, bilinear would skip pixels
BRIGHTNESS = 0.1  # of the full range, either way
CONTRAST = 0.15  # around 1
SATURATION = 0.15  # around 1
COLOURED = ("light", "upright")  # augmentations that change colours


def augmented_image(
    jpeg: tf.Tensor, numbers: tf.Tensor, *, image_size: int, crop: float, random_crop: bool, augment: str
) -> tf.Tensor:
    """One image as training sees it, uint8 [S, S, 3].

    Args:
        jpeg: the file's bytes, string [].
        numbers: from `random_numbers`, float32 [7].
        image_size, crop, random_crop: as for `training_dataset`.
        augment: "light" for flips both ways, brightness, contrast and saturation; "upright" for the same
            without the flip that puts plants on their heads; "flips" for both flips alone; "none".
    """
    pixels = decode_crop_resize(jpeg, image_size, crop, numbers[:2] if random_crop else None)
    if augment == "none":
        return to_uint8(pixels)
    flips = numbers[5:7] if augment in TURNED else tf.stack([numbers[5], 1.0])
    if augment in COLOURED:
        pixels = adjust_colours(pixels, numbers[2:5])
    return flip(to_uint8(pixels), flips)


def augmented_on_device(crops: tf.Tensor, numbers: tf.Tensor, *, image_size: int, augment: str) -> tf.Tensor:
    """What `augmented_image` does after the decoding, for a whole batch, with ops that every device has.

    Pixels are those of `augmented_image` but where a sum is rounded the other way: they differ by 1 of 255 at
    most, and few do.

    Args:
        crops: uint8 [B, H, W, 3], from `training_dataset(resize="model")`; numbers: float32 [B, 5], from it too.
        image_size: pixels a side of the result, S; augment: as for `augmented_image`.

    Returns:
        Whole numbers from 0 to 255, float32 [B, S, S, 3].
    """
    mirrored = numbers[:, 3:] < 0.5
    if augment != "none":  # while a pixel is still three bytes
        crops = _mirrored(crops, mirrored[:, 0], axis=2)
    if augment in TURNED:
        crops = _mirrored(crops, mirrored[:, 1], axis=1)
    height, width = crops.shape[1:3]
    if max(height, width) >= _AVERAGE_FROM * image_size:  # the op that averages is for CPUs only
        pixels = tf.cast(crops, tf.float32)
        pixels = tf.einsum("sh,bhwc->bswc", _averaging(height, image_size), pixels)
        pixels = tf.einsum("sw,bhwc->bhsc", _averaging(width, image_size), pixels)
    else:
        pixels = tf.image.resize(crops, [image_size, image_size], method="bilinear")
    if augment in COLOURED:
        pixels = adjust_colours_of_batch(tf.reshape(pixels, [-1, image_size**2, 3]), numbers[:, :3])
    return tf.reshape(tf.clip_by_value(tf.round(pixels), 0, 255), [-1, image_size, image_size, 3])


def _mirrored(images: tf.Tensor, which: tf.Tensor, axis: int) -> tf.Tensor:
    """Images [B, H, W, 3], those of `which` (bool [B]) turned round along an axis."""
    forwards = tf.range(images.shape[axis])
    # On a CPU a tf.where() of both takes four times as long.
    return tf.gather(images, tf.where(which[:, None], forwards[::-1], forwards), axis=axis, batch_dims=1)


def _averaging(length: int, target: int) -> np.ndarray:
    """Weights that average `length` pixels to `target` by area, float32 [target, length]."""
    edges = np.linspace(0, length, target + 1)
    pixels = np.arange(length)
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(inside, 0) * target / length).astype(np.float32)


def adjust_colours(pixels: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Change brightness, contrast and saturation a little.

    Contrast scales around the mean of each channel, brightness adds to all, saturation scales around the
    grey of each pixel; the three are one matrix and one offset, so the image is read once.

    Args:
        pixels: from 0 to 255, float32 [S, S, 3].
        numbers: from 0 to 1, float32 [3]: brightness, contrast, saturation; 0.5 changes nothing.

    Returns:
        From 0 to 255, float32 [S, S, 3].
    """
    swing = (2 * numbers - 1) * tf.constant([BRIGHTNESS * 255, CONTRAST, SATURATION])
    brightness, contrast, saturation = swing[0], 1 + swing[1], 1 + swing[2]
    grey = np.tile(np.float32(GREY)[:, np.newaxis], [1, 3])
    saturate = saturation * (np.eye(3, dtype=np.float32) - grey) + grey
    flat = tf.reshape(pixels, [-1, 3])
    mean = tf.reduce_mean(flat, axis=0, keepdims=True)
    offset = tf.matmul((1 - contrast) * mean + brightness, saturate)
    flat = tf.nn.bias_add(tf.matmul(flat, contrast * saturate), offset[0])
    return tf.reshape(tf.clip_by_value(flat, 0, 255), tf.shape(pixels))


def adjust_colours_of_batch(pixels: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """`adjust_colours` of a batch: float32 [B, pixels, 3] by float32 [B, 3], not clipped."""
    swing = (2 * numbers - 1) * tf.constant([BRIGHTNESS * 255, CONTRAST, SATURATION])
    brightness, contrast, saturation = swing[:, :1, None], 1 + swing[:, 1:2, None], 1 + swing[:, 2:, None]
    grey = np.tile(np.float32(GREY)[:, np.newaxis], [1, 3])
    saturate = saturation * (np.eye(3, dtype=np.float32) - grey) + grey
    mean = tf.reduce_mean(pixels, axis=1, keepdims=True)
    offset = tf.matmul((1 - contrast) * mean + brightness, saturate)
    return tf.matmul(pixels, contrast * saturate) + offset


def flip(pixels: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Mirror an image [S, S, 3] left-right and up-down, each when its number (float32 [2]) is below 0.5."""
    mirrored = numbers < 0.5
    # The public tf.reverse takes fixed axes only; slicing by steps of -1 costs seven times as much.
    return tf.raw_ops.Reverse(tensor=pixels, dims=tf.stack([mirrored[1], mirrored[0], False]))


def random_numbers(seed: int, epoch: int, index: tf.Tensor) -> tf.Tensor:
    """All the random numbers of one image, float32 [7] from 0 to below 1.

    In order: crop window down and right; brightness, contrast, saturation; flip left-right, up-down. They
    depend on nothing but (seed, epoch, index), however many threads draw them in whatever order.
    """
    return tf.random.stateless_uniform([7], seed=augment.key(seed, epoch, index))


def crop_box(sides: tf.Tensor, crop: float, window: tf.Tensor | None) -> tf.Tensor:
    """The part of an image to keep: int32 [4] as top, left, height, width in pixels.

    Args:
        sides: height and width of the image, int32 [2].
        crop: part of each side that is kept; at least one pixel is.
        window: where it lies, float32 [2] from 0 to 1 down and right; None for the centre.
    """
    kept = tf.maximum(tf.cast(tf.round(tf.cast(sides, tf.float32) * crop), tf.int32), 1)
    room = sides - kept
    if window is None:
        offset = room // 2
    else:
        offset = tf.minimum(tf.cast(window * tf.cast(room + 1, tf.float32), tf.int32), room)
    return tf.concat([offset, kept], axis=0)


def dct_ratio(sides: tf.Tensor, crop: float, image_size: int) -> tf.Tensor:
    """Which of the scales 1, 1/2, 1/4, 1/8 to decode at, as its position from 0 to 3, int32 [].

    It is the coarsest at which the kept part still has `image_size` pixels on its shorter side, or 4% fewer.
    """
    shorter = tf.reduce_min(crop_box(sides, crop, None)[2:])
    enough = [math.ceil(ratio * image_size / _MOST_ENLARGED) for ratio in _DCT_RATIOS[1:]]
    return tf.reduce_sum(tf.cast(shorter >= enough, tf.int32))


def decode_crop_resize(jpeg: tf.Tensor, image_size: int, crop: float, window: tf.Tensor | None) -> tf.Tensor:
    """Decode a window of a JPEG and squeeze it to a square.

    libjpeg takes 1/2, 1/4 or 1/8 of the size straight from the DCT coefficients when the target is small
    enough. What is left to shrink is averaged by area; where that is little, or the image must grow, it is
    bilinear. Against decoding in full and one antialiased resize, the mean absolute difference on real
    sheets is 1 to 2 of 255 up to 224 px and below 1 above, and at most 3 on any sheet tried.

    Args:
        jpeg: the file's bytes, string [].
        image_size: pixels a side of the result, S.
        crop: part of each side that the window has.
        window: where the window lies, float32 [2] from 0 to 1 down and right; None for the centre.

    Returns:
        Pixels from 0 to 255, float32 [S, S, 3], not rounded.
    """
    pixels = decode_crop(jpeg, image_size, crop, window)
    target = [image_size, image_size]
    longer = tf.reduce_max(tf.shape(pixels)[:2])
    # Antialiased bilinear would be nearer still, at 1.5 to 2 times the cost of averaging.
    pixels = tf.cond(
        tf.cast(longer, tf.float32) >= _AVERAGE_FROM * image_size,
        lambda: tf.image.resize(pixels, target, method="area"),
        lambda: tf.image.resize(pixels, target, method="bilinear"),
    )
    return tf.ensure_shape(pixels, [*target, 3])


def decode_crop(jpeg: tf.Tensor, image_size: int, crop: float, window: tf.Tensor | None) -> tf.Tensor:
    """Decode a window of a JPEG as coarsely as `image_size` allows, uint8 [H, W, 3]; see `decode_crop_resize`."""
    shape = tf.io.extract_jpeg_shape(jpeg)[:2]

    def decode(ratio: int) -> tf.Tensor:
        # The window counts in pixels of the reduced image, whose sides libjpeg rounds up.
        box = crop_box((shape + ratio - 1) // ratio, crop, window)
        return tf.io.decode_and_crop_jpeg(jpeg, box, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    branches = [lambda ratio=ratio: decode(ratio) for ratio in _DCT_RATIOS]
    return tf.switch_case(dct_ratio(shape, crop, image_size), branches)


def exactly(pixels: tf.Tensor, sides: tuple[int, int]) -> tf.Tensor:
    """uint8 [H, W, 3] of given sides: resized where an image has others, since a batch has one shape."""
    fitting = tf.cond(
        tf.reduce_all(tf.shape(pixels)[:2] == tf.constant(sides)),
        lambda: pixels,
        lambda: to_uint8(tf.image.resize(pixels, sides, method="area")),
    )
    return tf.ensure_shape(fitting, [*sides, 3])


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Pixels from 0 to 255, rounded to the nearest whole number."""
    return tf.cast(tf.round(pixels), tf.uint8)
