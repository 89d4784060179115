"""How fast records become batches: what is decoded, and what is counted."""

import tensorflow as tf

from utils.data.records import count_records
from utils.experiments.loading import decoding_alone, images_per_second
from utils.sources import search


def test_whole_images_are_decoded_in_batches(sample_flora):
    shards = search(sample_flora, kind="sample").train_shards
    batches = list(decoding_alone(shards, batch_size=8))
    assert sum(len(batch) for batch in batches) == count_records(shards)
    assert {tuple(shape) for batch in batches for shape in batch.numpy().tolist()} == {(480, 480, 3)}


def test_as_many_images_are_read_as_are_counted():
    read = []

    def note(number: tf.Tensor) -> tf.Tensor:
        return tf.py_function(lambda value: read.append(int(value)) or value, [number], tf.int64)

    speed = images_per_second(tf.data.Dataset.range(12).map(note).batch(4), 4, images=10)
    assert speed > 0 and len(read) >= 12  # one batch to start, two that are timed
