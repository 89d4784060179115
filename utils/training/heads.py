"""What stands on the pooled features: the classifier of species, and heads for genus and family beside it."""

from typing import Any

import tensorflow as tf

from utils.config import RANKS, Profile
from utils.data.labels import LabelMap

CLASSIFIER = "logits"


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
        return {
            **super().get_config(),
            "classes": self.classes,
            "centres": self.centres,
            "scale": self.scale,
        }


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
