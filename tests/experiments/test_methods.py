import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score

from utils.data.tail import logit_adjustment
from utils.evaluation.predict import Predictions, predict
from utils.experiments import decide, methods
from utils.experiments.table import gains_over
from utils.files import InputError
from utils.training.features import Features, Linear

COUNTS = np.array([70, 5, 30, 0, 12, 50])


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    layers = [
        tf.keras.layers.Input((4, 4, 3)),
        tf.keras.layers.Rescaling(1 / 64),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(6),
    ]
    return tf.keras.Sequential(layers)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def dataset(images: np.ndarray) -> tf.data.Dataset:
    true = np.arange(50, dtype=np.int32) % 6
    return tf.data.Dataset.from_tensor_slices((images, true, [str(n) for n in range(50)])).batch(16)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_adjustment_is_the_log_of_the_share_of_images():
    share = np.array([0.7, 0.05, 0.3, 0.01, 0.12, 0.5]) / 1.68
    assert logit_adjustment(COUNTS, 0.5) == pytest.approx(0.5 * np.log(share), rel=1e-5)


def test_adjusted_predictions_are_those_of_adjusted_logits(model, images, dataset):
    logits = model.predict(images, verbose=0).astype(np.float64) - logit_adjustment(COUNTS, 0.8)
    expected = softmax(logits)
    found = predict(model, dataset, adjustment=logit_adjustment(COUNTS, 0.8), top=6, progress=False)
    assert found.probabilities == pytest.approx(-np.sort(-expected, axis=1), abs=1e-5)
    assert np.array_equal(found.predicted, expected.argmax(axis=1))


@pytest.mark.parametrize(
    ("counts", "rarest"),
    [
        (COUNTS, [1, 3]),
        ([5, 5, 5, 5, 5, 5], [0, 1]),  # ties by class index
        ([9, 3, 3, 3], [1]),
        ([4], [0]),
    ],
)
def test_the_rarest_third_is_by_training_images(counts, rarest):
    assert np.flatnonzero(methods.rarest_third(np.array(counts))).tolist() == rarest


def test_the_rarest_third_is_11_of_32_and_13_of_40():
    assert [methods.rarest_third(np.arange(classes)).sum() for classes in (32, 40)] == [11, 13]


# Ensembles


def kept(probabilities: np.ndarray, top: int) -> Predictions:
    order = np.argsort(-probabilities, axis=1)[:, :top]
    ids = np.array([str(number) for number in range(len(probabilities))])
    values = np.take_along_axis(probabilities, order, axis=1).astype(np.float32)
    return Predictions(ids, order.astype(np.int32), values, np.zeros(len(ids), np.int32))


def test_an_ensemble_is_the_mean_of_the_probabilities():
    runs = np.random.default_rng(0).dirichlet(np.ones(9), (3, 2500))
    mean = runs.mean(axis=0)
    found = decide.ensemble([kept(run, 9) for run in runs], top=4)
    order = np.argsort(-mean, axis=1)[:, :4]
    assert found.probabilities == pytest.approx(np.take_along_axis(mean, order, axis=1), abs=1e-6)
    assert (found.classes == order).mean() > 0.999  # ties in float32
    assert (found.classes.dtype, found.probabilities.dtype) == (np.int32, np.float32)
    whole = decide.ensemble([kept(runs[0], 9)], top=9)
    assert np.array_equal(whole.classes, kept(runs[0], 9).classes)


def test_what_a_run_does_not_keep_counts_as_nothing():
    runs = np.random.default_rng(1).dirichlet(np.full(9, 0.3), (2, 40))
    cut = [np.where(run >= -np.sort(-run, axis=1)[:, 4:5], run, 0) for run in runs]
    mean = np.mean(cut, axis=0)
    found = decide.ensemble([kept(run, 5) for run in runs], top=5)
    assert found.probabilities == pytest.approx(-np.sort(-mean, axis=1)[:, :5], abs=1e-6)


def test_runs_of_other_sheets_are_not_put_together():
    one = kept(np.random.default_rng(0).dirichlet(np.ones(4), 5), 4)
    other = Predictions(one.image_ids[::-1], one.classes, one.probabilities, one.true)
    with pytest.raises(InputError, match="Predictions 1 and 2 are not of the same sheets"):
        decide.ensemble([one, other])
    other = Predictions(one.image_ids, one.classes, one.probabilities, one.true + 1)
    with pytest.raises(InputError, match="other label maps"):
        decide.ensemble([one, other])
    with pytest.raises(InputError, match="no predictions"):
        decide.ensemble([])


# Heads


def test_the_best_class_of_every_head_is_found(six_species):
    logits = np.random.default_rng(0).normal(size=(50, 6 + 4 + 2)).astype(np.float32)
    images = tf.data.Dataset.from_tensor_slices((logits, np.arange(50, dtype=np.int32) % 6)).batch(16)
    model = tf.keras.Sequential([tf.keras.layers.Input((12,)), tf.keras.layers.Activation("linear")])
    found = methods.predict_ranks(model, images, six_species, ("genus", "family"))
    assert np.array_equal(found["species"], logits[:, :6].argmax(axis=1))
    assert np.array_equal(found["genus"], logits[:, 6:10].argmax(axis=1))
    assert np.array_equal(found["family"], logits[:, 10:].argmax(axis=1))
    assert np.array_equal(found["true"], np.arange(50) % 6)


def test_consistency_of_the_heads(six_species):
    predicted = {
        "true": np.array([0, 1, 2, 3]),
        "species": np.array([0, 0, 3, 3]),  # right, its genus, another family, right
        "genus": np.array([0, 0, 1, 3]),  # the head: right, right, right, wrong
    }
    (row,) = methods.consistency(predicted, six_species).to_dict("records")
    assert row["rank"] == "genus"
    assert (row["head_accuracy"], row["species_accuracy"], row["agreement"]) == (0.75, 0.75, 0.5)
    assert (row["accuracy_agreed"], row["accuracy_disputed"]) == (0.5, 0.5)
    expected = f1_score([0, 0, 1, 2], [0, 0, 1, 3], labels=range(4), average="macro", zero_division=0)
    assert row["head_macro_f1"] == pytest.approx(expected)
    predicted["genus"] = six_species.genus_index[predicted["species"]]
    assert np.isnan(methods.consistency(predicted, six_species)["accuracy_disputed"][0])


def test_classifiers_are_scored_on_the_same_features(six_species):
    features = Features(np.eye(6, dtype=np.float32), np.arange(6, dtype=np.int32))
    right = Linear(np.eye(6, dtype=np.float32), np.zeros(6, np.float32))
    biased = Linear(right.kernel, np.array([5, 0, 0, 0, 0, 0], np.float32))
    table = methods.compare_classifiers(
        {"right": right, "biased": biased}, features, COUNTS, six_species, 100.0 * (1 - np.eye(4))
    )
    assert table["method"].tolist() == ["right", "biased"]
    first, second = table.to_dict("records")
    assert first["macro_f1"] == first["head"] == first["tail"] == 1.0 and first["over_all"] == 0
    assert second["tail"] == 0 and second["head"] == pytest.approx(2 / 7)
    assert second["over_all"] == pytest.approx(400 / 6)
    plain = methods.compare_classifiers({"right": right}, features, COUNTS)
    pd.testing.assert_frame_equal(plain, table[:1][plain.columns])


def test_gains_are_clear_where_the_ranges_do_not_overlap():
    rows = {
        "old": (0.5, 0.48, 0.52),
        "clear": (0.6, 0.53, 0.66),
        "open": (0.54, 0.51, 0.6),
        "loss": (0.4, 0.3, 0.47),
    }
    table = pd.DataFrame(
        [
            dict(zip(("method", "f1_mean", "f1_min", "f1_max"), (name, *row), strict=True))
            for name, row in rows.items()
        ]
    )
    found = gains_over(table, "old", ["f1"]).set_index("method")
    assert found["clear"].to_dict() == {"clear": True, "open": False, "loss": True}
    assert found.loc["clear", ["gain", "low", "high"]].tolist() == pytest.approx([0.1, 0.01, 0.18])
    single = gains_over(pd.DataFrame({"method": ["old", "new"], "f1": [0.5, 0.6]}), "old", ["f1"])
    assert single[["gain", "low", "high"]].to_numpy() == pytest.approx(0.1)
    with pytest.raises(InputError, match="no method 'odl' in the table, only old, clear"):
        gains_over(table, "odl", ["f1"])
