"""How fast records become batches on this machine (notebook 02)."""

import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from utils.data.records import dataset_options

_IMAGE = {"image": tf.io.FixedLenFeature([], tf.string)}


def decoding_alone(shards: Sequence[Path], batch_size: int = 32) -> tf.data.Dataset:
    """Whole JPEGs decoded in batches, and nothing else: what a plain pipeline has to do at least.

    Of each image only the shape is kept, so that nothing but the decoding takes time.
    """

    def decode(record: tf.Tensor) -> tf.Tensor:
        return tf.shape(tf.io.decode_jpeg(tf.io.parse_single_example(record, _IMAGE)["image"]))

    records = tf.data.TFRecordDataset([str(path) for path in shards])
    decoded = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    return decoded.with_options(dataset_options())


def images_per_second(dataset: tf.data.Dataset, batch_size: int, images: int) -> float:
    """Images read a second, over about so many `images`, after one batch to start the threads."""
    batches = iter(dataset.repeat())
    next(batches)
    count = max(images // batch_size, 1)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * batch_size / (time.perf_counter() - start)
