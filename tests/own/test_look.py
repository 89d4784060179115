"""What a page's network sees of a stored JPEG: the pixels that TensorFlow makes of it."""

import numpy as np
import pytest
import tensorflow as tf

from utils.data.pixels import decode_crop_resize, to_uint8
from utils.own.look import network_pixels


@pytest.mark.parametrize("image_size", [32, 64, 120, 160, 224, 228, 384, 480, 512])
@pytest.mark.parametrize("crop", [1.0, 0.95, 0.875])
def test_the_pixels_are_those_of_tensorflow(make_jpeg, image_size, crop):
    jpeg = make_jpeg(3)
    expected = to_uint8(decode_crop_resize(tf.constant(jpeg), image_size, crop, None)).numpy()
    found = network_pixels(jpeg, image_size, crop)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.003


def test_the_pixels_of_an_oblong_jpeg(make_jpeg):
    jpeg = make_jpeg(1, 300, 471)
    expected = to_uint8(decode_crop_resize(tf.constant(jpeg), 96, 0.9, None)).numpy()
    assert np.abs(network_pixels(jpeg, 96, 0.9).astype(int) - expected).max() <= 2
