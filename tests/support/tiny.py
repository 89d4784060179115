"""A network of four layers in place of EfficientNetV2, so that tests of the loop train in a second.

Run as a script it trains: `python tiny.py DATA OUTPUT EPOCHS`, to be killed.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from utils.config import Profile, load_profile
from utils.sources import Data, find_data
from utils.training import loop, network


def tiny_profile(epochs: int, **settings: object) -> Profile:
    options = {"image_size": 32, "batch_size": 8, "dropout": 0.3, "label_smoothing": 0.1, **settings}
    return load_profile("smoke", epochs=epochs, **options)


def tiny_network(profile: Profile, n_classes: int, rescale_mode: str | None) -> tf.keras.Model:
    """Stands in for `network._network`."""
    clock = network.NoiseClock()
    size = None if profile.first_image_size else profile.image_size
    images = tf.keras.Input((size, size, 3))
    layer = network._rescaling("tf")(images)
    layer = tf.keras.layers.Conv2D(8, 3, strides=4, name="conv")(layer)
    layer = tf.keras.layers.BatchNormalization(name="bn")(layer)
    layer = tf.keras.layers.GlobalAveragePooling2D(name="avg_pool")(layer)
    layer = network.StepDropout(profile.dropout, profile.seed, clock, name="dropout")(layer)
    model = tf.keras.Model(images, network.classifier(profile, n_classes)(layer), name="Tiny")
    model.rescale_mode, model.noise_clock = rescale_mode or "tf", clock
    return model


@contextmanager
def in_place() -> Iterator[None]:
    """Let it stand in for every network that is built in the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_network", tiny_network)
        yield


def trained(profile: Profile, data: Data, folder: Path, **options: Any) -> loop.TrainResult:
    """A run of that network, for fixtures that serve a whole file; `options` of `train`."""
    with in_place():
        return loop.train(profile, data, folder, progress=False, **options)


if __name__ == "__main__":
    network._network = tiny_network
    profile = tiny_profile(int(sys.argv[3]))
    loop.train(profile, find_data(profile, sys.argv[1]), Path(sys.argv[2]))
