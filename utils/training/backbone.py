"""The network: EfficientNetV2 (arXiv:2104.00298) of keras-efficientnet-v2, and its classifier."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras_efficientnet_v2
import numpy as np
import tensorflow as tf
from keras_efficientnet_v2.efficientnet_v2 import FILE_HASH_DICT

from utils.config import Profile
from utils.errors import InputError
from utils.files import replacing
from utils.paths import attach, mounted, on_kaggle
from utils.training import heads

RELEASE = "https://github.com/leondgarse/keras_efficientnet_v2/releases"
_FILE_TAGS = {"imagenet": "imagenet", "imagenet21k": "21k", "imagenet21k-ft1k": "21k-ft1k"}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HEAD = ("hidden", heads.CLASSIFIER)


class NoiseClock:
    """The step that keys dropout noise: the optimizer's iterations once `follow` was called, else 0.

    `part` tells the parts of a batch apart that gradient accumulation takes one after another.
    """

    def __init__(self) -> None:
        self._iterations: tf.Variable | None = None
        self.part: int | tf.Tensor = 0

    def follow(self, optimizer: Any) -> None:
        self._iterations = optimizer.iterations

    def key(self, seed: int) -> tf.Tensor:
        """int32 [2] for TensorFlow's stateless random ops: `seed`, and the step and replica."""
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context and context.num_replicas_in_sync > 1 else 0
        step = 0 if self._iterations is None else tf.cast(self._iterations, tf.int32)
        return tf.stack([seed, step * 1024 + self.part * 64 + replica])


class StepDropout(tf.keras.layers.Layer):
    """Dropout whose noise depends on (seed, layer, optimizer step, replica) and nothing else.

    Keras' own Dropout draws from a generator inside the compiled graph that cannot be saved, so a resumed run
    would see other noise than one that was never interrupted.
    """

    def __init__(
        self, rate: float, seed: int, clock: NoiseClock, noise_shape: Any = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.rate, self.seed, self.clock, self.noise_shape = rate, seed, clock, noise_shape

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        shape = tf.shape(inputs)
        if self.noise_shape is not None:
            shape = tf.stack([shape[i] if n is None else n for i, n in enumerate(self.noise_shape)])
        return tf.nn.experimental.stateless_dropout(
            inputs, self.rate, seed=self.clock.key(self.seed), noise_shape=shape
        )


def build_model(profile: Profile, n_classes: int, *, head: bool = False) -> tf.keras.Model:
    """The profile's network with its starting weights; random ones depend on the profile's seed only.

    Input [B, S, S, 3], uint8 or float 0 to 255; output logits float32 [B, n_classes]. The first layer scales
    the image as the weights were trained, without weights of its own: x / 128 - 1 for S to XL and all
    ImageNet-21k weights, ImageNet mean and std for B0 to B3 otherwise (the library's `rescale_mode`).

    Args:
        profile: `weights` is "random", a name of the library's ("imagenet", "imagenet21k",
        "imagenet21k-ft1k": taken
            from an attached Kaggle data set, else from Keras' cache, else downloaded), or the path of an .h5
            file of the library or of an earlier run.
        n_classes: number of classes of the label map.
        head: demand that the weights hold the classifier too.

    Raises:
        InputError: the weights cannot be had or do not fit; the message says what to do.
    """
    if profile.weights == "random":
        return _network(profile, n_classes, None)
    path = find_weights(profile.weights, profile.backbone)
    model = _network(profile, n_classes, _rescale_mode(path))
    load_weights(model, path, head=head)
    return model


def _network(profile: Profile, n_classes: int, rescale_mode: str | None) -> tf.keras.Model:
    # a network for one size knows it, which its printed summary shows
    size, clock = None if profile.first_image_size else profile.image_size, NoiseClock()
    with under_policy(profile.precision):
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # It prints that no weights were loaded, as asked here, and shares one initializer among all
            # layers, which would start layers of one shape with the same values. The clone below gives each
            # layer its own.
            warnings.filterwarnings("ignore", "The initializer VarianceScaling is unseeded", UserWarning)
            library = getattr(keras_efficientnet_v2, f"EfficientNetV2{profile.backbone}")(
                input_shape=(size, size, 3),
                num_classes=0,
                drop_connect_rate=profile.drop_connect,
                include_preprocessing=True,
                pretrained=None,
            )
        rescale_mode = rescale_mode or library.rescale_mode
        seeds = iter(range(profile.seed * 1000, profile.seed * 1000 + 1000))

        def replace(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
            if isinstance(layer, (tf.keras.layers.Normalization, tf.keras.layers.Rescaling)):
                return _rescaling(rescale_mode)
            if isinstance(layer, tf.keras.layers.Dropout):
                return StepDropout(layer.rate, next(seeds), clock, layer.noise_shape, name=layer.name)
            return layer.__class__.from_config(layer.get_config())

        # Here and not before: the library draws one seed at its first network in a process, none at later ones.
        tf.keras.utils.set_random_seed(profile.seed)
        features = tf.keras.models.clone_model(library, clone_function=replace)
        outputs = tf.keras.layers.GlobalAveragePooling2D(name="avg_pool")(features.output)
        if profile.dropout:
            outputs = StepDropout(profile.dropout, next(seeds), clock, name="dropout")(outputs)
        if profile.hidden_units:
            outputs = tf.keras.layers.Dense(profile.hidden_units, activation="relu", name="hidden")(outputs)
            if profile.dropout:
                outputs = StepDropout(profile.dropout, next(seeds), clock, name="hidden_dropout")(outputs)
        logits = heads.classifier(profile, n_classes)(outputs)
        model = tf.keras.Model(features.input, logits, name=f"EfficientNetV2{profile.backbone}")
    model.rescale_mode = rescale_mode
    model.noise_clock = clock
    return model


@contextlib.contextmanager
def under_policy(policy: Any) -> Iterator[None]:
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def _rescaling(mode: str) -> tf.keras.layers.Layer:
    """The first layer; in float32 whatever the precision, since float16 rounds the ImageNet means."""
    if mode == "tf":
        return tf.keras.layers.Rescaling(1 / 128, offset=-1.0, dtype="float32", name="rescale")
    mean, std = np.array(_IMAGENET_MEAN), np.array(_IMAGENET_STD)
    return tf.keras.layers.Rescaling(
        (1 / (255 * std)).tolist(), offset=(-mean / std).tolist(), dtype="float32", name="rescale"
    )


def last_feature_map(model: tf.keras.Model) -> str:
    """Name of the layer whose output is the last feature map [B, H, W, F], the one that is pooled."""
    return model.get_layer("avg_pool").input.node.layer.name


def parameter_counts(model: tf.keras.Model) -> tuple[int, int, int]:
    """Numbers of parameters: total, trainable, non-trainable (running statistics of batch normalisation)."""
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    fixed = sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights)
    return trainable + fixed, trainable, fixed


def weights_file(backbone: str, weights: str) -> str:
    """Name of the library's released file, such as efficientnetv2-s-21k.h5."""
    return f"efficientnetv2-{backbone.lower()}-{_FILE_TAGS[weights]}.h5"


def find_weights(weights: str, backbone: str) -> Path:
    """The file of `weights`: a path, or a name, looked up under /kaggle/input, in Keras' cache, then online.

    On Kaggle nothing is downloaded.

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
    name = weights_file(backbone, weights)
    hashes = FILE_HASH_DICT[backbone.lower()]
    if _FILE_TAGS[weights] not in hashes:
        raise InputError(
            f"weights: there are no {weights} weights for EfficientNetV2-{backbone} ({RELEASE})."
        )
    attached = mounted(name)
    if attached:
        return attached[0]
    if on_kaggle():  # where a kernel of this course has no internet
        raise InputError(
            f"weights: {name} is not attached. {attach('Your Work > Datasets', 'naflora-weights')} "
            "`python -m utils kaggle weights` makes that data set, once, on a machine with internet."
        )
    url = f"{RELEASE}/download/effnetv2_pretrained/{name}"
    try:
        found = tf.keras.utils.get_file(
            name, url, cache_subdir="models/efficientnetv2", file_hash=hashes[_FILE_TAGS[weights]]
        )
    except Exception as error:  # get_file raises a bare Exception when the network fails
        raise InputError(
            f"weights: could not download {name} ({error}). Get it from {RELEASE} where there is a network, "
            "and give "
            f"its path as `weights: /path/to/{name}`, or attach it on Kaggle as a data set (found by its "
            "name). "
            "`weights: random` trains from scratch."
        ) from error
    return Path(found)


def check_weights(profile: Profile) -> None:
    """Raise InputError where the weights of `profile` cannot be had; `build_model` would, but later."""
    if profile.weights != "random":
        find_weights(profile.weights, profile.backbone)


def _rescale_mode(path: Path) -> str | None:
    """How the images of these weights were scaled: as the file says, or the library's 21k files are named."""
    with _opened(path) as file:
        if "rescale_mode" in file.attrs:
            return str(file.attrs["rescale_mode"])
    return "tf" if "21k" in path.stem else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.Group]:
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path}: no such weight file.") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable .h5 file ({error}). Download or copy it again.") from None
    with file:
        yield file


def _layer_weights(group: h5py.Group) -> list[np.ndarray]:
    return [np.asarray(group[name]) for name in group.attrs["weight_names"]]


def load_weights(model: tf.keras.Model, path: Path, *, head: bool = False) -> list[str]:
    """Load weights into `model` by layer name.

    Args:
        model: from `build_model`.
        path: .h5 file of weights, of the library or of a run of this package.
        head: demand the classifier too; otherwise its layers are taken where they are there and of the same
        shape.

    Returns:
        Names of the layers that kept the weights they had (of the classifier only).

    Raises:
        InputError: a layer is missing in the file or has another shape; the message names it.
    """
    kept = []
    with _opened(path) as file:
        root = file.get("model_weights", file)
        if "layer_names" not in root.attrs:
            raise InputError(f"{path}: an .h5 file, but not of Keras weights.")
        for layer in model.layers:
            if not layer.weights:
                continue
            stored = _layer_weights(root[layer.name]) if layer.name in root else []
            shapes = [tuple(weight.shape) for weight in stored]
            wanted = [tuple(weight.shape) for weight in layer.weights]
            if shapes == wanted:
                layer.set_weights(stored)
            elif layer.name in _HEAD and not head:
                kept.append(layer.name)
            else:
                found = f"has shapes {shapes}" if shapes else "is missing"
                raise InputError(
                    f"{path}: does not fit {model.name}: layer {layer.name} {found}, must have {wanted}. "
                    "Use the weights of this backbone, or set the profile's backbone to theirs."
                )
    return kept


def save_weights(model: tf.keras.Model, path: Path) -> None:
    """Write all weights to an .h5 file, whole, with the image scaling they need as an attribute."""
    with replacing(path) as temporary:
        model.save_weights(temporary, save_format="h5")
        with h5py.File(temporary, "r+") as file:
            file.attrs["rescale_mode"] = model.rescale_mode
