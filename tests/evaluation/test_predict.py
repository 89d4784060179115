import csv
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from utils.data.delimited import read_table
from utils.evaluation.predict import Predictions, concatenate, predict, predict_batches, write_predictions_csv
from utils.files import InputError, UsageError


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    """Logits that depend on where the light is, so that flips change them."""
    tf.keras.utils.set_random_seed(0)
    return tf.keras.Sequential(
        [
            tf.keras.layers.Input((8, 8, 3)),
            tf.keras.layers.Rescaling(1 / 64),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dropout(0.5),
            tf.keras.layers.Dense(6),
        ]
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def batches(images, true=None, size=4) -> tf.data.Dataset:
    true = np.full(len(images), -1, np.int32) if true is None else true
    ids = [f"{i:05d}__{i:03d}" for i in range(len(images))]
    return tf.data.Dataset.from_tensor_slices((images, true, ids)).batch(size)


def softmax(logits):
    powers = np.exp(np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_every_sheet_once_with_its_own_id_and_probabilities(model, images):
    true = np.arange(10, dtype=np.int32) % 6
    result = predict(model, batches(images, true), top=3, progress=False)
    expected = softmax(model.predict(images, verbose=0))
    order = np.argsort(-expected, axis=1)[:, :3]
    assert result.image_ids.tolist() == [f"{i:05d}__{i:03d}" for i in range(10)]
    assert np.array_equal(result.true, true)
    assert np.array_equal(result.classes, order)
    assert result.probabilities == pytest.approx(np.take_along_axis(expected, order, axis=1), abs=1e-5)
    assert (result.probabilities.dtype, result.classes.dtype) == (np.float32, np.int32)
    assert np.array_equal(result.predicted, order[:, 0])


def test_test_time_augmentation_is_the_mean_over_four_flips(model, images):
    views = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    expected = np.mean([softmax(model.predict(view, verbose=0)) for view in views], axis=0)
    result = predict(model, batches(images), tta=True, augment="light", top=6, progress=False)
    assert result.probabilities == pytest.approx(-np.sort(-expected, axis=1), abs=1e-5)
    assert np.array_equal(result.predicted, expected.argmax(axis=1))
    assert result.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(expected, softmax(model.predict(images, verbose=0)), atol=1e-3)


@pytest.mark.parametrize(("augment", "steps"), [("flips", [1, -1]), ("upright", [1, -1]), ("none", [1])])
def test_test_time_augmentation_follows_the_augmentation_of_the_run(model, images, augment, steps):
    views = [images[:, :, ::step] for step in steps]
    if augment == "flips":
        views += [view[:, ::-1] for view in views]
    expected = np.mean([softmax(model.predict(view, verbose=0)) for view in views], axis=0)
    result = predict(model, batches(images), tta=True, augment=augment, top=6, progress=False)
    assert result.probabilities == pytest.approx(-np.sort(-expected, axis=1), abs=1e-5)
    assert np.array_equal(result.predicted, expected.argmax(axis=1))


def test_test_time_augmentation_must_be_told_which(model, images):
    with pytest.raises(
        UsageError, match="augment is None; with tta it must be one of none, flips, upright, light"
    ):
        predict(model, batches(images), tta=True, progress=False)


def test_fewer_classes_than_asked_for(model, images):
    assert predict(model, batches(images), top=50, progress=False).classes.shape == (10, 6)


def test_a_shorter_last_batch_needs_no_trace_of_its_own(images):
    traces = []

    class Counted(tf.keras.layers.Layer):
        def call(self, inputs):
            traces.append(inputs.shape)
            return tf.reduce_mean(tf.cast(inputs, tf.float32), axis=(1, 2))

    inputs = tf.keras.Input((8, 8, 3))
    network = tf.keras.Model(inputs, Counted()(inputs))
    traces.clear()
    assert len(predict(network, batches(images), progress=False)) == 10
    assert len(traces) == 1


def test_batches_come_with_what_else_they_hold(model, images):
    given = [(*batch, f"more {number}") for number, batch in enumerate(batches(images))]
    pairs = list(predict_batches(model, given, top=2))
    assert [batch[3] for _, batch in pairs] == ["more 0", "more 1", "more 2"]
    together = concatenate([predictions for predictions, _ in pairs])
    expected = predict(model, batches(images), top=2, progress=False)
    assert np.array_equal(together.image_ids, expected.image_ids)
    assert np.array_equal(together.classes, expected.classes)


def test_progress_counts_sheets(model, images, capsys):
    predict(model, batches(images), total=10)
    assert "10/10" in capsys.readouterr().err
    predict(model, batches(images), progress=False)
    assert capsys.readouterr().err == ""


def test_no_sheet_and_no_number_are_errors(model, images):
    with pytest.raises(InputError, match="no sheet to predict"):
        predict(model, batches(images[:0]), progress=False)
    broken = tf.keras.models.clone_model(model)
    broken.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(InputError, match="no number for sheet 00000__000"):
        predict(broken, batches(images), progress=False)


@pytest.fixture
def two_sheets() -> Predictions:
    return Predictions(
        np.array(["00000__001", "17"]),
        np.array([[5, 0], [2, 3]], np.int32),
        np.array([[0.7, 0.2], [0.55555, 0.1]], np.float32),
        np.array([5, -1], np.int32),
    )


def test_predictions_are_saved_whole_and_read_back(tmp_path, two_sheets):
    path = two_sheets.save(tmp_path / "predictions.npz")
    back = Predictions.load(path)
    for name in Predictions.__dataclass_fields__:
        assert np.array_equal(getattr(back, name), getattr(two_sheets, name))
        assert getattr(back, name).dtype == getattr(two_sheets, name).dtype
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_holds_no_predictions_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        Predictions.load(tmp_path / "none.npz")
    for content in (b"", b"text", b"PK\x03\x04 cut off"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.npz: not a file of predictions"):
            Predictions.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(InputError, match=r"other\.npz: not a file of predictions"):
        Predictions.load(tmp_path / "other.npz")


def test_the_csv_names_species_genus_and_family_of_each_rank(tmp_path, two_sheets, six_species):
    path = write_predictions_csv(two_sheets, six_species, tmp_path / "predictions.csv")
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert rows[0] == {
        "image_id": "00000__001",
        "species_1": "Rubus idaeus",
        "genus_1": "Rubus",
        "family_1": "Rosaceae",
        "probability_1": "0.7000",
        "species_2": "Carex alba",
        "genus_2": "Carex",
        "family_2": "Graminoids",
        "probability_2": "0.2000",
    }
    assert float(rows[1]["probability_1"]) == pytest.approx(0.55555, abs=1e-4)


@pytest.mark.parametrize("name", ["a\rb.jpg", "=1+1.jpg", "@x.jpg", "-a.jpg", 'q"uo,te\n.jpg', "\tt.jpg"])
def test_any_file_name_reads_back_from_the_csv_as_it_was(tmp_path, two_sheets, six_species, name):
    sheets = replace(two_sheets, image_ids=np.array([name, "plain"]))
    path = write_predictions_csv(sheets, six_species, tmp_path / "predictions.csv")
    assert read_table(path, ("image_id",), way_out="")["image_id"].tolist() == [name, "plain"]
    with path.open(newline="", encoding="utf-8") as file:
        assert [row[0][:1] for row in csv.reader(file)][1] not in "=+-@\t\r"
