"""Grad-CAM: which part of a sheet speaks for a species."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

BATCH = 16


def explainer(
    model: tf.keras.Model, layer: str | None = None
) -> Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]:
    """Grad-CAM of a model as a function of images [N, H, W, 3] and classes int32 [N], see `grad_cam`.

    It gives float32 [N, H, W]. For many batches wrap it in tf.function: tracing costs 2 s, a batch then a
    third (EfficientNetV2B0, 2 cores).
    """
    if layer is None:
        from utils.training.network import last_feature_map

        layer = last_feature_map(model)
    feature_map = model.get_layer(layer).output
    # In two halves, so that the gradient is taken through the short upper one only; what else the classifier gets
    # (means of earlier stages) passes by.
    names = [each.name for each in model.layers]
    pools = [each for each in model.layers if isinstance(each, tf.keras.layers.GlobalAveragePooling2D)]
    before = [each for each in pools if names.index(each.input.node.layer.name) < names.index(layer)]
    aside = [each.output for each in before]
    lower = tf.keras.Model(model.inputs, [feature_map, *aside])
    upper = tf.keras.Model([feature_map, *aside], model.output)

    def explain(images: tf.Tensor, classes: tf.Tensor | None) -> tf.Tensor:
        features, *others = tf.nest.flatten(lower(images, training=False))
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = tf.cast(upper([features, *others], training=False), tf.float32)
            wanted = tf.argmax(logits, axis=1, output_type=tf.int32) if classes is None else classes
            score = tf.gather(logits, wanted, axis=1, batch_dims=1)
        gradient = tf.cast(tape.gradient(score, features), tf.float32)
        weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
        heatmap = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1, keepdims=True))
        heatmap = tf.image.resize(heatmap, tf.shape(images)[1:3], method="bilinear")[..., 0]
        peak = tf.reduce_max(heatmap, axis=(1, 2), keepdims=True)
        return tf.math.divide_no_nan(heatmap, peak)

    return explain


def grad_cam(
    model: tf.keras.Model,
    images: np.ndarray,
    classes: Sequence[int] | None = None,
    layer: str | None = None,
) -> np.ndarray:
    """Show where the last feature map speaks for a class.

    The channels of the map are summed, each weighted by the mean gradient of the class's logit over the map,
    and what is negative is cut off: Grad-CAM of Selvaraju et al. (2017, arXiv:1610.02391). The map is coarse,
    3 x 3 cells for an image of 96 pixels, and is scaled up bilinearly.

    Args:
        model: images in 0..255 to logits [N, C].
        images: uint8 or float [N, H, W, 3].
        classes: the class to explain in each image, int [N]; the predicted one without it.
        layer: name of the layer with the feature map; the one that is pooled without it.

    Returns:
        float32 [N, H, W], each scaled to a maximum of 1; all 0 where nothing speaks for the class.
    """
    explain, images, heatmaps = explainer(model, layer), np.asarray(images), []
    for start in range(0, len(images), BATCH):
        wanted = None if classes is None else tf.constant(classes[start : start + BATCH], tf.int32)
        heatmaps.append(explain(tf.constant(images[start : start + BATCH]), wanted).numpy())
    return np.concatenate(heatmaps)
