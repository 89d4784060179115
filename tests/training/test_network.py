"""The network: exact parameter counts, image scaling, weights from files, reproducible dropout noise."""

from pathlib import Path

import h5py
import keras_efficientnet_v2
import numpy as np
import pytest
import tensorflow as tf

from utils.config import load_profile
from utils.files import InputError, UsageError
from utils.training import network
from utils.training.network import build_model, parameter_counts
from utils.training.weights import check_weights, find_weights, load_weights, rescale_mode_of, save_weights

TINY = load_profile("smoke", image_size=32, drop_connect=0.3, dropout=0.4, hidden_units=6)


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    return build_model(TINY, 5)


@pytest.fixture(scope="module")
def weights(model: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "run_weights.h5"
    save_weights(model, path)
    return path


def _features(model: tf.keras.Model, images: np.ndarray) -> np.ndarray:
    return tf.keras.Model(model.input, model.get_layer("avg_pool").output)(images).numpy()


def _images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


def test_reference_has_the_published_parameter_counts_and_float32_logits_in_mixed_precision() -> None:
    model = build_model(load_profile("reference", weights="random", precision="mixed_float16"), 15_501)
    assert parameter_counts(model) == (37_531_629, 37_377_757, 153_872)
    assert model.get_layer(network.last_feature_map(model)).output.shape == (None, 12, 12, 1280)
    assert model.rescale_mode == "tf"
    assert model.get_layer("stem_conv").compute_dtype == "float16"
    assert model.output.dtype == tf.float32
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_scaling_is_that_of_the_library_and_has_no_weights(model: tf.keras.Model) -> None:
    images = _images().astype(np.float32)
    layer = model.get_layer("rescale")
    assert not layer.weights
    expected = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(layer(images), expected, atol=1e-5)
    np.testing.assert_allclose(network._rescaling("tf")(images), images / 128 - 1, atol=1e-6)


def test_layers_of_one_shape_start_with_different_values(model: tf.keras.Model) -> None:
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, tf.keras.layers.Conv2D)]
    for one, kernel in enumerate(kernels):
        for other in kernels[one + 1 :]:
            assert kernel.shape != other.shape or not np.array_equal(kernel, other)


@pytest.mark.filterwarnings("ignore:The initializer VarianceScaling is unseeded")  # the library's own
def test_weights_of_the_library_and_of_a_run_load_by_layer(
    model: tf.keras.Model, weights: Path, tmp_path: Path
) -> None:
    images, before = _images(), model(_images()).numpy()
    library = keras_efficientnet_v2.EfficientNetV2B0((32, 32, 3), num_classes=4, pretrained=None)
    assert library.rescale_mode == model.rescale_mode == "torch"
    released = tmp_path / "efficientnetv2-b0-imagenet.h5"
    library.save_weights(released)
    assert load_weights(model, released) == ["hidden", "logits"]
    pooled = tf.keras.Model(library.input, library.get_layer("avg_pool").output)
    scaled = model.get_layer("rescale")(images)
    np.testing.assert_allclose(_features(model, images), pooled(scaled), atol=1e-5)

    assert load_weights(model, weights, head=True) == []
    np.testing.assert_array_equal(model(images), before)


def test_images_are_scaled_as_the_weights_want(weights: Path, tmp_path: Path) -> None:
    assert rescale_mode_of(weights) == "torch"  # as the file itself says
    released = {"b0-21k": "tf", "b0-21k-ft1k": "tf", "s-imagenet": None}  # None: as the library has it
    for name, mode in released.items():
        path = tmp_path / f"efficientnetv2-{name}.h5"
        h5py.File(path, "w").close()
        assert rescale_mode_of(path) == mode


def test_a_classifier_of_another_size_is_left_out_or_refused(model: tf.keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    save_weights(model, path)
    with h5py.File(path, "r+") as file:
        del file["logits"]["logits"]["kernel:0"]
        file["logits"]["logits"]["kernel:0"] = np.zeros((6, 9), np.float32)
    assert load_weights(model, path) == ["logits"]
    with pytest.raises(InputError, match=r"other\.h5.*logits has shapes"):
        load_weights(model, path, head=True)


def test_weights_that_do_not_fit_are_refused_by_layer(model: tf.keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    save_weights(model, path)
    with h5py.File(path, "r+") as file:
        del file["post_conv"]
    with pytest.raises(
        InputError, match=r"other\.h5: does not fit EfficientNetV2B0: layer post_conv is missing"
    ):
        load_weights(model, path)


def test_broken_and_foreign_files_are_refused_by_name(model: tf.keras.Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"broken\.h5: not a readable"):
        load_weights(model, broken)
    foreign = tmp_path / "foreign.h5"
    h5py.File(foreign, "w").close()
    with pytest.raises(InputError, match=r"foreign\.h5: an \.h5 file, but not"):
        load_weights(model, foreign)


def test_the_file_of_a_deeper_network_is_refused(model: tf.keras.Model, tmp_path: Path) -> None:
    deeper = tmp_path / "b1.h5"  # as EfficientNetV2B1 is beside B0: every layer of it, and more of them
    save_weights(model, deeper)
    with h5py.File(deeper, "r+") as file:
        file.copy("stack_2_block1_MB_pw_conv", "stack_2_block2_MB_pw_conv")
    refused = (
        r"b1\.h5: does not fit EfficientNetV2B0: layer stack_2_block2_MB_pw_conv has .* must have none\."
    )
    with pytest.raises(InputError, match=refused) as told:
        load_weights(model, deeper)
    assert "not a readable" not in str(told.value), "the file is whole: one reason, its own"


def test_damage_inside_a_file_of_weights_is_one_line(model: tf.keras.Model, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.h5", tmp_path / "damaged.h5"
    save_weights(model, whole)
    content = whole.read_bytes()
    for mark in (b"SNOD", b"TREE", b"HEAP", b"GCOL"):  # structures of HDF5, which has no checksum there
        damaged.write_bytes(content.replace(mark, bytes(4)))
        with pytest.raises(InputError, match=r"damaged\.h5: not a readable \.h5 file") as told:
            load_weights(model, damaged)
        assert "\n" not in str(told.value)
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"damaged\.h5: not a readable \.h5 file .*truncated"):
        load_weights(model, damaged)


def test_a_failed_download_is_an_error_and_not_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise Exception("URL fetch failure: no network")

    monkeypatch.setattr(tf.keras.utils, "get_file", no_network)
    with pytest.raises(
        InputError, match=r"efficientnetv2-s-21k\.h5.*releases.*put it into .*/efficientnetv2\."
    ) as told:
        build_model(load_profile("reference"), 5)
    assert "`train -s weights=/path/to/" in str(told.value), "the command is named: others lack that option"


def test_attached_kaggle_weights_are_found_before_any_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAFLORA_KAGGLE_ROOT", str(tmp_path))
    attached = tmp_path / "input" / "datasets" / "someone" / "weights" / "efficientnetv2-b0-21k.h5"
    attached.parent.mkdir(parents=True)
    attached.touch()
    assert find_weights("imagenet21k", "B0") == attached
    assert find_weights("efficientnetv2-b0-21k.h5", "B0") == attached


def test_on_kaggle_nothing_is_downloaded_and_the_data_set_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAFLORA_KAGGLE_ROOT", str(tmp_path))
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(tf.keras.utils, "get_file", lambda *_, **__: pytest.fail("tried to download"))
    with pytest.raises(
        InputError, match=r"efficientnetv2-s-21k\.h5 is not attached.*naflora-weights.*weights"
    ):
        check_weights(load_profile("kaggle"))
    check_weights(load_profile("smoke"))


@pytest.mark.parametrize("wrong", ["imagenet22k", "/nowhere/weights.h5"])
def test_unknown_weights_name_the_known_ones(wrong: str) -> None:
    with pytest.raises(InputError, match=r"imagenet21k.*releases"):
        find_weights(wrong, "S")


def test_weights_that_were_never_released_are_refused() -> None:
    with pytest.raises(InputError, match="no imagenet weights for EfficientNetV2-XL"):
        find_weights("imagenet", "XL")


def test_dropout_noise_depends_on_the_step_and_the_seed_only(model: tf.keras.Model) -> None:
    class Counter:
        iterations = tf.Variable(0, dtype=tf.int64)

    dropout = network.StepDropout(0.5, 3, network.NoiseClock())
    dropout.clock.follow(Counter)
    ones = tf.ones((4, 50))
    first = dropout(ones, training=True).numpy()
    assert set(np.unique(first)) == {0.0, 2.0}
    np.testing.assert_array_equal(dropout(ones, training=True), first)
    np.testing.assert_array_equal(dropout(ones), ones)
    Counter.iterations.assign_add(1)
    assert not np.array_equal(dropout(ones, training=True), first)
    noisy = {layer.seed for layer in model.layers if isinstance(layer, network.StepDropout)}
    assert len(noisy) == sum(isinstance(layer, network.StepDropout) for layer in model.layers) > 2


def test_drop_connect_drops_whole_images() -> None:
    dropout = network.StepDropout(0.5, 3, network.NoiseClock(), noise_shape=(None, 1, 1, 1))
    kept = dropout(tf.ones((64, 2, 2, 3)), training=True).numpy().reshape(64, -1)
    assert set(kept.sum(axis=1).tolist()) == {0.0, 24.0}


@pytest.mark.parametrize(("backbone", "stages"), [("B0", 7), ("Lite0", 8)])
def test_as_many_stages_can_be_frozen_as_the_network_has(backbone: str, stages: int) -> None:
    layers = build_model(load_profile("smoke", backbone=backbone, image_size=32), 5).layers
    found = {network.stage_of(layer.name) for layer in layers} - {float("inf")}
    assert found == set(range(stages))
    assert load_profile("smoke", backbone=backbone, frozen_stages=stages).frozen_stages == stages
    with pytest.raises(UsageError, match=f"frozen_stages is {stages + 1}, must be"):
        load_profile("smoke", backbone=backbone, frozen_stages=stages + 1)
