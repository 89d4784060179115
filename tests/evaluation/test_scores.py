"""Macro-F1 against scikit-learn, finished and streaming."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from utils.evaluation.scores import macro_f1, overall_scores, per_class_f1
from utils.training.losses import SparseMacroF1


@pytest.fixture(params=[(5, 40), (300, 200), (15_501, 2_000)], ids=["small", "sparse", "full size"])
def answers(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, int]:
    """True and predicted classes, some classes without an image and some never predicted."""
    n_classes, images = request.param
    rng = np.random.default_rng(images)
    true = rng.integers(0, n_classes - 1, images)
    predicted = np.where(rng.random(images) < 0.6, true, rng.integers(1, n_classes, images))
    return true, predicted, n_classes


def test_macro_f1_equals_scikit_learn(answers) -> None:
    true, predicted, n_classes = answers
    expected = f1_score(true, predicted, labels=range(n_classes), average="macro", zero_division=0)
    assert macro_f1(true, predicted, n_classes) == pytest.approx(expected, abs=1e-9)


def test_per_class_f1_equals_scikit_learn(answers) -> None:
    true, predicted, n_classes = answers
    expected = f1_score(true, predicted, labels=range(n_classes), average=None, zero_division=0)
    np.testing.assert_allclose(per_class_f1(true, predicted, n_classes), expected, atol=1e-12)


def test_scores_count_the_classes_without_images(answers) -> None:
    true, predicted, n_classes = answers
    found = overall_scores(true, predicted, n_classes)
    assert found["classes_without_images"] == n_classes - len(set(true.tolist()))
    assert found["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert (found["images"], found["classes"]) == (len(true), n_classes)


def test_a_class_that_is_not_there_lowers_the_mean() -> None:
    assert macro_f1([0, 1], [0, 1], 2) == 1.0
    assert macro_f1([0, 1], [0, 1], 4) == 0.5


def test_no_image_scores_zero() -> None:
    empty = np.array([], dtype=int)
    assert overall_scores(empty, empty, 3)["macro_f1"] == 0.0


@pytest.mark.parametrize("predicted", [[0, 3], [0, -1], [0]])
def test_classes_out_of_range_are_refused(predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"predicted"):
        macro_f1([0, 1], predicted, 3)


def test_streaming_metric_equals_macro_f1_over_batches(answers) -> None:
    true, predicted, n_classes = answers
    metric = SparseMacroF1(n_classes)
    for start in range(0, len(true), 64):
        batch = slice(start, start + 64)
        logits = np.full((len(true[batch]), n_classes), -1.0, dtype=np.float32)
        logits[np.arange(len(logits)), predicted[batch]] = 2.0
        metric.update_state(true[batch], logits)
    assert float(metric.result()) == pytest.approx(macro_f1(true, predicted, n_classes), abs=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_streaming_metric_sums_over_replicas() -> None:
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    true, predicted = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 2])
    with strategy.scope():
        metric = SparseMacroF1(3)
    strategy.run(lambda: metric.update_state(tf.constant(true), tf.one_hot(predicted, 3)))
    assert float(metric.result()) == pytest.approx(macro_f1(true, predicted, 3), abs=1e-6)
