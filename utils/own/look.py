"""What a network sees of a stored JPEG, by NumPy: a page answers a sheet before TensorFlow would have started.

The pixels are those of `decode_crop_resize` in utils/data/pixels.py, but that 3 in 1,000 are rounded the other way, and
some at the edge of the crop differ by 2 of 255.
"""

import math
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

from utils.data import jpeg

# As in utils/data/pixels.py, which says why; a test holds both together.
_RATIOS = (8, 4, 2, 1)
_MOST_ENLARGED = 1.04
_AVERAGE_FROM = 1.25


def network_pixels(content: bytes, image_size: int, crop: float) -> np.ndarray:
    """The central part of a JPEG as a square, uint8 [S, S, 3].

    Args:
        content: the file's bytes.
        image_size: pixels a side of the result, S.
        crop: part of each side that is kept.
    """
    with Image.open(BytesIO(content)) as image:
        width, height = image.size
    ratio = ratio_of(min(width, height), image_size, crop)
    pixels, _ = jpeg.decode(content, ratio=ratio)
    rows, columns = (central(side, crop) for side in pixels.shape[:2])
    pixels = pixels[rows, columns].astype(np.float32)
    weights = weights_for(max(pixels.shape[:2]), image_size)
    down, right = (weights(side, image_size) for side in pixels.shape[:2])
    pixels = np.einsum("sh,hwc->swc", down, pixels, optimize=True)
    pixels = np.einsum("sw,hwc->hsc", right, pixels, optimize=True)
    return np.round(np.clip(pixels, 0, 255)).astype(np.uint8)


def ratio_of(side: int, image_size: int, crop: float) -> int:
    """By how much a JPEG is made smaller as it is decoded, of its shorter side in pixels."""
    kept = _kept(side, crop)
    return next((each for each in _RATIOS[:-1] if kept >= math.ceil(each * image_size / _MOST_ENLARGED)), 1)


def weights_for(kept: int, image_size: int) -> Callable[[int, int], np.ndarray]:
    """What gives the weights, float32 [target, length], that make `image_size` pixels of the `kept` ones a side."""
    return _averaging if kept >= _AVERAGE_FROM * image_size else _between


def _kept(side: int, crop: float) -> int:
    return max(round(np.float32(side) * np.float32(crop)), 1)


def central(side: int, crop: float) -> slice:
    """The part of a side of so many pixels that a network is shown."""
    kept = _kept(side, crop)
    return slice((side - kept) // 2, (side - kept) // 2 + kept)


def _averaging(length: int, target: int) -> np.ndarray:
    """Weights that average `length` pixels to `target` by area, float32 [target, length]."""
    edges = np.linspace(0, length, target + 1)
    pixels = np.arange(length)
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(inside, 0) * target / length).astype(np.float32)


def _between(length: int, target: int) -> np.ndarray:
    """Weights that make `target` pixels of the nearest two each of `length`, float32 [target, length]."""
    places = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(length)), 0).astype(np.float32)
