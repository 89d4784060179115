import numpy as np
import pytest
import tensorflow as tf

from utils.figures.explain import explainer, grad_cam


def tiny(precision: str = "float32") -> tf.keras.Model:
    """Feature map: mean red and mean green of 4 x 4 cells. Class 0 wants red, class 1 green, class 2 less red."""
    image = tf.keras.Input((32, 32, 3))
    scaled = tf.keras.layers.Rescaling(1 / 255)(image)
    features = tf.keras.layers.Conv2D(2, 8, strides=8, use_bias=False, name="features", dtype=precision)(
        scaled
    )
    pooled = tf.keras.layers.GlobalAveragePooling2D(name="avg_pool")(features)
    logits = tf.keras.layers.Dense(3, dtype="float32", name="logits")(pooled)
    model = tf.keras.Model(image, logits)
    kernel = np.zeros((8, 8, 3, 2), np.float32)
    kernel[:, :, 0, 0] = kernel[:, :, 1, 1] = 1 / 64
    model.get_layer("features").set_weights([kernel])
    model.get_layer("logits").set_weights(
        [np.array([[2, 0, -1], [0, 1, 0]], np.float32), np.zeros(3, np.float32)]
    )
    return model


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    """A red patch at the top left and a green one at the bottom right of a black sheet."""
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, :8, :8, 0] = 255
    image[0, 24:, 24:, 1] = 255
    return image


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize(("class_index", "corner"), [(0, (0, 0)), (1, (31, 31))])
def test_the_patch_that_decides_a_class_is_marked(patches, precision, class_index, corner):
    policy = "float32" if precision == "float32" else tf.keras.mixed_precision.Policy(precision)
    heatmap = grad_cam(tiny(policy), patches, [class_index], "features")
    assert heatmap.shape == (1, 32, 32)
    assert heatmap.dtype == np.float32
    assert heatmap[0][corner] == heatmap.max() == 1
    assert heatmap[0, 16, 16] == 0
    assert heatmap[0][31 - corner[0], 31 - corner[1]] == 0


def test_the_map_is_the_weighted_sum_scaled_up(patches):
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    red = image[0, :, :, 0].reshape(4, 8, 4, 8).mean(axis=(1, 3))  # the gradient is the same in every cell
    expected = tf.image.resize((red / red.max())[..., None], (32, 32)).numpy()[..., 0]
    assert grad_cam(tiny(), image, [0], "features")[0] == pytest.approx(expected / expected.max(), abs=1e-4)


def test_what_speaks_against_a_class_is_not_marked(patches):
    assert grad_cam(tiny(), patches, [2], "features").max() == 0


def test_without_classes_the_predicted_one_is_explained(patches):
    model = tiny()
    assert np.array_equal(
        grad_cam(model, patches, layer="features"), grad_cam(model, patches, [0], "features")
    )


def test_more_sheets_than_a_batch_keep_their_order():
    images = np.zeros((20, 32, 32, 3), np.uint8)
    for i in range(20):
        images[i, :, 8 * (i % 4) : 8 * (i % 4) + 8, 0] = 255
    heatmaps = grad_cam(tiny(), images, [0] * 20, "features")
    assert (heatmaps[:, 16].argmax(axis=1) // 8).tolist() == [i % 4 for i in range(20)]


def test_the_traced_function_for_many_batches_gives_the_same(patches):
    model = tiny()
    signature = [tf.TensorSpec([None, 32, 32, 3], tf.uint8), tf.TensorSpec([None], tf.int32)]
    traced = tf.function(explainer(model, "features"), input_signature=signature)
    assert traced(patches, [1]).numpy() == pytest.approx(grad_cam(model, patches, [1], "features"), abs=1e-6)


def test_the_pooled_map_is_taken_when_no_layer_is_named(patches):
    model = tiny()
    assert np.array_equal(grad_cam(model, patches, [1]), grad_cam(model, patches, [1], "features"))


@pytest.mark.long
def test_the_course_network_is_explained():
    from utils.config import load_profile
    from utils.training.network import build_model

    model = build_model(load_profile("smoke", image_size=32, batch_size=2, weights="random"), 5)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    heatmaps = grad_cam(model, images)
    assert heatmaps.shape == (2, 32, 32)
    assert np.isfinite(heatmaps).all()
    assert heatmaps.min() >= 0
    assert heatmaps.max() <= 1
