import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from utils.evaluation.predict import Predictions
from utils.experiments.decide import expected_calibration_error, fit_temperature, reliability, tempered
from utils.files import InputError


def test_bins_hold_their_upper_edge():
    confidence = np.array([0.1, 0.2, 0.2000001, 1.0, 0.0])
    table = reliability(confidence, np.ones(5, dtype=bool), bins=5)
    assert table["images"].tolist() == [3, 1, 0, 0, 1]


def test_means_of_a_bin_and_of_an_empty_one():
    table = reliability(np.array([0.6, 0.7, 0.9]), np.array([True, False, True]), bins=2)
    assert table["confidence"].iloc[1] == pytest.approx(2.2 / 3)
    assert table["accuracy"].iloc[1] == pytest.approx(2 / 3)
    assert np.isnan(table["accuracy"].iloc[0])


def test_ece_equals_a_loop_over_the_bins():
    generator = np.random.default_rng(0)
    confidence, correct = generator.random(500), generator.random(500) < 0.5
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_ece_is_near_zero_for_honest_and_large_for_boasting_answers():
    generator = np.random.default_rng(0)
    confidence = generator.random(20000)
    correct = generator.random(20000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.02
    assert expected_calibration_error(np.full(100, 0.9), np.zeros(100, dtype=bool)) == pytest.approx(0.9)


def sharpened(factor: float, top: int | None = None) -> tuple[Predictions, np.ndarray]:
    """Predictions whose logits are `factor` times those that the species were drawn by, and these logits."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 7))
    powers = np.exp(logits)
    true = (powers.cumsum(axis=1) / powers.sum(axis=1, keepdims=True) < generator.random((4000, 1))).sum(
        axis=1
    )
    probabilities = np.exp(factor * logits) / np.exp(factor * logits).sum(axis=1, keepdims=True)
    order = np.argsort(-probabilities, axis=1)[:, :top]
    kept = np.take_along_axis(probabilities, order, axis=1).astype(np.float32)
    ids = np.arange(4000).astype(str)
    return Predictions(ids, order.astype(np.int32), kept, true.astype(np.int32)), factor * logits


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_undoes_a_wrong_scale(factor):
    predictions, logits = sharpened(factor)
    temperature = fit_temperature(predictions)
    assert temperature == pytest.approx(factor, rel=0.08)

    def loss(value):
        scaled = logits / value
        scores = scaled[np.arange(len(scaled)), predictions.true] - logsumexp(scaled, axis=1)
        return -scores.mean()

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x
    assert temperature == pytest.approx(best, rel=1e-2)
    expected = softmax(logits / temperature, axis=1)
    found = tempered(predictions, temperature)
    assert found.probabilities == pytest.approx(-np.sort(-expected, axis=1), abs=1e-5)
    assert np.array_equal(found.classes, predictions.classes)


def test_the_classes_kept_keep_their_sum():
    predictions, _ = sharpened(2.0, top=3)
    found = tempered(predictions, 3.0)
    assert found.probabilities.sum(axis=1) == pytest.approx(predictions.probabilities.sum(axis=1), abs=1e-5)
    assert (np.diff(found.probabilities, axis=1) <= 0).all()
    assert fit_temperature(predictions) == pytest.approx(2.0, rel=0.15)


def test_a_temperature_needs_known_species():
    predictions, _ = sharpened(1.0)
    unknown = Predictions(
        predictions.image_ids, predictions.classes, predictions.probabilities, np.full(4000, -1, np.int32)
    )
    with pytest.raises(InputError, match="No sheet has a known species"):
        fit_temperature(unknown)


def test_a_temperature_by_species_counts_rare_species_as_much_as_common_ones():
    generator = np.random.default_rng(1)
    sheets = np.r_[np.zeros(2000, int), np.ones(40, int)]
    logits = 2 * generator.normal(size=(2040, 2))
    # the common species is named far too timidly, the rare one far too boldly
    logits[np.arange(2040), sheets] += np.where(sheets == 0, 2.0, -0.5)
    probabilities = softmax(logits, axis=1)
    order = np.argsort(-probabilities, axis=1).astype(np.int32)
    kept = np.take_along_axis(probabilities, order, axis=1).astype(np.float32)
    predictions = Predictions(np.arange(2040).astype(str), order, kept, sheets.astype(np.int32))

    def loss(value):
        scores = logits / value - logsumexp(logits / value, axis=1, keepdims=True)
        of_true = scores[np.arange(2040), sheets]
        return -(of_true[sheets == 0].mean() + of_true[sheets == 1].mean())

    best = minimize_scalar(loss, bounds=(0.1, 20), method="bounded").x
    assert fit_temperature(predictions, by_species=True) == pytest.approx(best, rel=2e-2)
    assert fit_temperature(predictions) < 0.7 * best


def test_a_few_sheets_that_are_all_right_do_not_make_answers_certain():
    shares = np.tile(np.array([[0.6, 0.3, 0.1]], np.float32), (14, 1))
    right = Predictions(
        np.arange(14).astype(str),
        np.tile(np.arange(3, dtype=np.int32), (14, 1)),
        shares,
        np.zeros(14, np.int32),
    )
    assert fit_temperature(right) == pytest.approx(1 / 20, rel=0.01), "as low as it looks"
    assert 0.2 < fit_temperature(right, spread=0.5) < 0.9
    predictions, _ = sharpened(2.0)
    assert fit_temperature(predictions, spread=0.5) == pytest.approx(fit_temperature(predictions), rel=0.01)
