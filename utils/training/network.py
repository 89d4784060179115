"""The network: EfficientNetV2 (arXiv:2104.00298) of keras-efficientnet-v2 or EfficientNet-Lite, its classifier, and
heads for genus and family beside it.
"""

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

import keras_efficientnet_v2
import numpy as np
import tensorflow as tf

from utils.config import LITE, RANKS, Profile
from utils.data.labels import LabelMap
from utils.training.weights import CLASSIFIER, find_weights, load_weights, rescale_mode_of

# Of which the means are taken with `features: stages`, as stack_<number> names their layers: those of strides 8 to 32.
POOLED_STAGES = (2, 3, 4, 5)
# Times these means: about as long as those of the last map, so that one learning rate fits both.
STAGES_SCALE = 1 / 4


@tf.keras.utils.register_keras_serializable(package="naflora")
class CosineClassifier(tf.keras.layers.Layer):
    """scale x the cosine between an image's features and the nearest of its class's centres.

    Neither the length of the features nor that of the centres counts, so a common class cannot win by a long
    weight vector. With several centres a class may look different ways (Deng et al. 2020, Sub-center ArcFace:
    Boosting Face Recognition by Large-scale Noisy Web Faces).

    Input [B, F], output float32 [B, C] from -scale to scale; one weight [F, C x centres].
    """

    def __init__(
        self, classes: int, centres: int = 3, scale: float = 30.0, dtype: str = "float32", **options: Any
    ) -> None:
        super().__init__(dtype=dtype, **options)
        self.classes, self.centres, self.scale = classes, centres, scale

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = (input_shape[-1], self.classes * self.centres)
        self.kernel = self.add_weight("kernel", shape, initializer="glorot_uniform")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        cosines = tf.matmul(tf.math.l2_normalize(inputs, axis=-1), tf.math.l2_normalize(self.kernel, axis=0))
        by_class = tf.reshape(cosines, [-1, self.classes, self.centres])
        return self.scale * tf.reduce_max(by_class, axis=-1)

    def get_config(self) -> dict[str, Any]:
        own = {"classes": self.classes, "centres": self.centres, "scale": self.scale}
        return {**super().get_config(), **own}


def classifier(profile: Profile, n_classes: int) -> tf.keras.layers.Layer:
    """The layer that gives the species' logits, float32 [B, C]: cosines for ArcFace, else one dense layer."""
    if profile.loss == "arcface":
        return CosineClassifier(n_classes, profile.arcface_centres, profile.arcface_scale, name=CLASSIFIER)
    return tf.keras.layers.Dense(n_classes, dtype="float32", name=CLASSIFIER)


def ranks_of(profile: Profile) -> tuple[str, ...]:
    """The ranks that have a head of their own: those whose loss has a weight."""
    return tuple(rank for rank in RANKS if getattr(profile, f"{rank}_weight"))


def logits_of_all_ranks(model: tf.keras.Model, profile: Profile, labels: LabelMap) -> tf.Tensor:
    """The species' logits and beside them those of the profile's heads for genus and family.

    Every head is one dense layer on the features that the species are told from. float32 [B, C + G + F], only
    [B, C] where the profile has no such head.
    """
    features = model.get_layer(CLASSIFIER).input
    outputs = [model.output]
    for rank in ranks_of(profile):
        names = getattr(labels, f"{rank}_names")
        outputs.append(tf.keras.layers.Dense(len(names), dtype="float32", name=f"{rank}_logits")(features))
    if len(outputs) == 1:
        return model.output
    return tf.keras.layers.Concatenate(name="logits_of_all_ranks", dtype="float32")(outputs)


class NoiseClock:
    """The step that keys dropout noise: the optimizer's iterations once `follow` was called, else 0.

    `part` tells the parts of a batch apart that gradient accumulation takes one after another.
    """

    def __init__(self) -> None:
        self._iterations: tf.Variable | None = None
        self.part: int | tf.Tensor = 0

    def follow(self, optimizer: Any) -> None:
        """Take the steps from now on from the optimizer's iterations."""
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
    ImageNet-21k weights, ImageNet mean and std for B0 to B3 otherwise (the library's `rescale_mode`),
    (x - 127) / 128 for EfficientNet-Lite.

    Args:
        profile: `weights` is "random", a name of the library's ("imagenet", "imagenet21k", "imagenet21k-ft1k":
            taken from an attached Kaggle data set, else from Keras' cache, else downloaded), or the path of an .h5
            file of the library or of an earlier run.
        n_classes: number of classes of the label map.
        head: demand that the weights hold the classifier too.

    Raises:
        InputError: the weights cannot be had or do not fit; the message says what to do.
    """
    if profile.weights == "random":
        return _network(profile, n_classes, None)
    path = find_weights(profile.weights, profile.backbone)
    model = _network(profile, n_classes, rescale_mode_of(path))
    load_weights(model, path, head=head)
    return model


def _network(profile: Profile, n_classes: int, rescale_mode: str | None) -> tf.keras.Model:
    # a network for one size knows it, which its printed summary shows
    size, clock = None if profile.first_image_size else profile.image_size, NoiseClock()
    with under_policy(profile.precision):
        library, own_mode = _backbone(profile, size)
        rescale_mode = rescale_mode or own_mode
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
        if profile.features == "stages":
            earlier = [
                tf.keras.layers.GlobalAveragePooling2D(name=f"{stage}_pool", dtype="float32")(output)
                for stage, output in _stage_outputs(features)
            ]
            outputs = tf.keras.layers.Concatenate(name="all_pools", dtype="float32")([outputs, *earlier])
            outputs = tf.keras.layers.Rescaling(STAGES_SCALE, dtype="float32", name="scaled_pools")(outputs)
        if profile.dropout:
            outputs = StepDropout(profile.dropout, next(seeds), clock, name="dropout")(outputs)
        if profile.hidden_units:
            outputs = tf.keras.layers.Dense(profile.hidden_units, activation="relu", name="hidden")(outputs)
            if profile.dropout:
                outputs = StepDropout(profile.dropout, next(seeds), clock, name="hidden_dropout")(outputs)
        logits = classifier(profile, n_classes)(outputs)
        model = tf.keras.Model(features.input, logits, name=profile.network_name)
    model.rescale_mode = rescale_mode
    model.noise_clock = clock
    return model


def _backbone(profile: Profile, size: int | None) -> tuple[tf.keras.Model, str]:
    """The profile's network up to its last feature map, and how it wants its images scaled."""
    if profile.backbone in LITE:
        from utils.training.lite import backbone

        return backbone(profile.backbone, size, profile.drop_connect), "lite"
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # It prints that no weights were loaded, as asked here, and shares one initializer among all layers, which
        # would start layers of one shape with the same values. The clone of it gives each layer its own.
        warnings.filterwarnings("ignore", "The initializer VarianceScaling is unseeded", UserWarning)
        library = getattr(keras_efficientnet_v2, profile.network_name)(
            input_shape=(size, size, 3),
            num_classes=0,
            drop_connect_rate=profile.drop_connect,
            include_preprocessing=True,
            pretrained=None,
        )
    return library, library.rescale_mode


def stage_of(layer: str) -> float:
    """The stage of a layer of the backbone by its name: 0 for the stem, 1 for stack_0, infinite for what follows."""
    stack = re.match(r"stack_(\d+)_", layer)
    return int(stack.group(1)) + 1 if stack else 0 if layer.startswith("stem_") else math.inf


def _stage_outputs(features: tf.keras.Model) -> Iterator[tuple[str, tf.Tensor]]:
    """Name and output [B, H, W, F] of the stages that `features: stages` takes, which is what their next one gets."""
    names = [layer.name for layer in features.layers]
    for stage in POOLED_STAGES:
        following = next(name for name in names if name.startswith((f"stack_{stage + 1}_", "post_conv")))
        yield f"stack_{stage}", features.get_layer(following).input


@contextlib.contextmanager
def under_policy(policy: Any) -> Iterator[None]:
    """Make layers in this precision, a name or a policy of Keras; the one of before comes back at the end."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def _rescaling(mode: str) -> tf.keras.layers.Layer:
    """The first layer; in float32 whatever the precision, since float16 rounds the ImageNet means."""
    if mode in _OFFSETS:
        return tf.keras.layers.Rescaling(1 / 128, offset=_OFFSETS[mode], dtype="float32", name="rescale")
    mean, std = np.array(_IMAGENET_MEAN), np.array(_IMAGENET_STD)
    return tf.keras.layers.Rescaling(
        (1 / (255 * std)).tolist(), offset=(-mean / std).tolist(), dtype="float32", name="rescale"
    )


_OFFSETS = {"tf": -1.0, "lite": -127 / 128}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def last_feature_map(model: tf.keras.Model) -> str:
    """Name of the layer whose output is the last feature map [B, H, W, F], the one that is pooled."""
    return model.get_layer("avg_pool").input.node.layer.name


def parameter_counts(model: tf.keras.Model) -> tuple[int, int, int]:
    """Numbers of parameters: total, trainable, non-trainable (running statistics of batch normalisation)."""
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    fixed = sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights)
    return trainable + fixed, trainable, fixed
