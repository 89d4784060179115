"""What a classifier sees, and the regression that is its first epoch."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tiny
from sklearn.linear_model import LogisticRegression

from utils.config import load_profile
from utils.files import InputError, UsageError
from utils.sources import Data, find_data
from utils.training import loop, network
from utils.training.features import Features, classifier_of, extract_features, fit_regression
from utils.training.optimizer import make_schedule
from utils.training.runs import load_trained

CLASSES = 5
PROFILE = tiny.tiny_profile(3, regression=1.0, genus_weight=0.3, ema=0.9)


def clouds(counts: list[int], seed: int = 1) -> Features:
    """Normal clouds around fixed centres."""
    centres = np.random.default_rng(0).normal(size=(len(counts), 16))
    classes = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).normal(scale=1.2, size=(len(classes), 16))
    return Features((centres[classes] + noise).astype(np.float32), classes.astype(np.int32))


@pytest.mark.parametrize("counts", [[40, 20, 9, 5, 3], [30, 4], [20, 0, 7]])
def test_the_regression_is_that_of_scikit_learn(counts):
    train, test = clouds(counts), clouds([50] * len(counts), seed=2)
    fitted = fit_regression(train, len(counts), 0.3)
    reference = LogisticRegression(C=0.3, class_weight="balanced", max_iter=5000)
    reference.fit(train.features.astype(float), train.classes)
    seen = reference.classes_
    probabilities = tf.nn.softmax(fitted.logits(test.features)).numpy()
    np.testing.assert_allclose(probabilities[:, seen], reference.predict_proba(test.features), atol=1e-4)
    assert fitted.kernel.shape == (16, len(counts)) and fitted.bias.dtype == np.float32


def test_a_regression_needs_two_classes():
    with pytest.raises(InputError, match="two species or more"):
        fit_regression(clouds([9]), 3, 1.0)


def test_mirror_images_come_after_all_others():
    model = tiny.tiny_network(tiny.tiny_profile(1), CLASSES, None)
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    classes = np.arange(10, dtype=np.int32) % CLASSES
    dataset = tf.data.Dataset.from_tensor_slices((images, classes)).batch(4)
    found = extract_features(model, dataset, progress=False, mirrored=True)
    np.testing.assert_array_equal(found.classes, [*classes, *classes])
    own = classifier_of(model)
    np.testing.assert_allclose(own.logits(found.features[:10]), model(images), atol=1e-4)
    np.testing.assert_allclose(own.logits(found.features[10:]), model(images[:, :, ::-1]), atol=1e-4)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_network", tiny.tiny_network)


@pytest.fixture(scope="module")
def data(sample_flora: Path) -> Data:
    return find_data(PROFILE, sample_flora)


@pytest.fixture(scope="module")
def whole(data: Data, tmp_path_factory: pytest.TempPathFactory) -> loop.TrainResult:
    return tiny.trained(PROFILE, data, tmp_path_factory.mktemp("whole"))


def test_the_first_epoch_fits_classifier_and_heads_and_takes_no_step(data, tmp_path):
    first = loop.train(PROFILE, data, tmp_path / "first", progress=False, stop_after=1)
    row = first.history.iloc[0]
    assert (
        row["learning_rate"] == 0 and np.isfinite(row[["loss", "f1_score", "val_loss", "val_f1_score"]]).all()
    )
    model, _, labels = load_trained(tmp_path / "first")
    table = data.split(PROFILE)
    ids = table.loc[table["part"] == "train", "image_id"].tolist()
    sheets = data.batches("train", PROFILE, only_ids=ids, batch_size=PROFILE.batch_size)
    train = extract_features(model, sheets, progress=False, mirrored=True)
    expected = fit_regression(train, labels.n_classes, PROFILE.regression)
    np.testing.assert_allclose(classifier_of(model).kernel, expected.kernel, atol=1e-3)


def test_a_run_that_goes_on_after_the_regression_is_the_same(whole, data, tmp_path):
    loop.train(PROFILE, data, tmp_path / "run", progress=False, stop_after=1)
    again = loop.train(PROFILE, data, tmp_path / "run", progress=False)
    pd.testing.assert_frame_equal(
        again.history.drop(columns="time"), whole.history.drop(columns="time"), rtol=1e-6
    )
    steps = int((data.split(PROFILE)["part"] == "train").sum()) // PROFILE.batch_size
    last = make_schedule(PROFILE, steps)(2 * steps - 1)  # the cycle is over the epochs with steps
    assert again.history["learning_rate"].iloc[-1] == pytest.approx(float(last))


def test_a_regression_alone_is_a_run(data, tmp_path):
    profile = dataclasses.replace(PROFILE, epochs=1, batch_size=999)  # which it needs not fill
    result = loop.train(profile, data, tmp_path / "run", progress=False)
    assert result.finished and result.best_epoch == 1
    shutil.rmtree(tmp_path / "run" / "state")
    assert load_trained(tmp_path / "run")[1] == profile


@pytest.mark.parametrize("settings", [{"loss": "arcface"}, {"hidden_units": 8}, {"frozen_epochs": 1}])
def test_what_a_regression_cannot_go_with_is_said(settings):
    with pytest.raises(UsageError, match=r"regression is 0\.3, must be 0 where"):
        load_profile("smoke", regression=0.3, **settings)


def test_frozen_stages_and_statistics_stay_as_they_came(data, tmp_path, monkeypatch):
    monkeypatch.undo()  # the whole network
    settings = {"backbone": "Lite0", "image_size": 32, "frozen_stages": 3, "fixed_statistics": True}
    profile = load_profile("smoke", weights="imagenet", max_lr=0.001, **settings)
    start = network.build_model(profile, 8)
    loop.train(profile, data, tmp_path / "run", progress=False)
    model = load_trained(tmp_path / "run")[0]
    moved = {
        layer.name
        for layer, before in zip(model.layers, start.layers, strict=True)
        if any((a != b).any() for a, b in zip(layer.get_weights(), before.get_weights(), strict=True))
    }
    assert {"logits", "post_conv", "stack_2_block0_expand_conv"} <= moved
    assert not [
        name for name in moved if name.endswith("_bn") or name.startswith(("stem", "stack_0", "stack_1"))
    ]
