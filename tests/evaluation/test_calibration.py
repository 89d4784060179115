import numpy as np
import pytest

from utils.evaluation.calibration import expected_calibration_error, reliability


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
