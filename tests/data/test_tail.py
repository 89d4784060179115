import hashlib
import json

import numpy as np
import pytest

from utils.data import splits, tail
from utils.data.metadata import read_metadata
from utils.files import UsageError


def test_counts_include_classes_without_images():
    assert tail.class_counts([2, 0, 2], 4).tolist() == [1, 0, 2, 0]


def test_bins_change_exactly_at_their_limits():
    assert tail.bins(np.array([0, 19, 20, 59, 60, 80])).tolist() == [
        "tail",
        "tail",
        "medium",
        "medium",
        "head",
        "head",
    ]


def test_imbalance_ratio_ignores_classes_without_images():
    assert tail.imbalance_ratio(np.array([80, 0, 4])) == 20
    assert np.isnan(tail.imbalance_ratio(np.zeros(3)))


def test_lorenz_and_gini_of_known_distributions():
    x, y = tail.lorenz(np.array([3, 1]))
    assert x.tolist() == [0, 0.5, 1]
    assert y.tolist() == [0, 0.25, 1]
    assert tail.gini(np.full(10, 7)) == pytest.approx(0)
    assert tail.gini(np.array([1, 3])) == pytest.approx(0.25)
    assert tail.gini(np.array([0] * 99 + [5])) == pytest.approx(0.99)


def test_top_share_reads_whole_and_broken_numbers_of_classes():
    assert tail.top_share(np.array([6, 1, 1, 1, 1]), 0.2) == pytest.approx(0.6)
    assert tail.top_share(np.array([6, 2, 1, 1, 0]), 0.3) == pytest.approx(0.7)


def test_class_balanced_weights_have_the_published_figures():
    weights = tail.class_weights(np.array([7, 10, 40, 80]), "class_balanced", n=10)
    # The last is 1.0148 in full.
    assert (weights[:3] / weights[3]).tolist() == pytest.approx([1.92, 1.54, 1.02], abs=0.006)
    assert weights[0] / weights[1] == pytest.approx((1 - 0.9**10) / (1 - 0.9**7), rel=1e-6)


@pytest.mark.parametrize("method", ["none", "inverse", "class_balanced"])
def test_class_weights_sum_to_the_number_of_classes(method):
    weights = tail.class_weights(np.array([7, 10, 40, 80, 3]), method)
    assert weights.dtype == np.float32
    assert weights.sum() == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize("method", ["inverse", "class_balanced"])
def test_a_class_without_images_leaves_the_other_weights_in_proportion(method):
    with_empty = tail.class_weights(np.array([7, 0, 80]), method)
    without = tail.class_weights(np.array([7, 80]), method)
    assert np.isfinite(with_empty).all()
    assert with_empty.sum() == pytest.approx(3, rel=1e-6)
    assert with_empty[0] / with_empty[2] == pytest.approx(without[0] / without[1], rel=1e-5)


def test_inverse_weights_are_inverse_to_the_counts():
    weights = tail.class_weights(np.array([10, 40]), "inverse")
    assert weights[0] / weights[1] == pytest.approx(4)


def test_unknown_weighting_names_the_known_ones():
    with pytest.raises(UsageError, match="none, inverse or class_balanced"):
        tail.class_weights(np.ones(2), "sqrt")


def tail_of_classes(n_classes=60, seed=3):
    counts = np.random.default_rng(seed).integers(1, 80, n_classes)
    counts[:4] = [1, 2, 3, 1]
    classes = np.repeat(np.arange(n_classes), counts)
    ids = np.array([f"{value:05d}__{row:04d}" for row, value in enumerate(classes)])
    return ids, classes, counts


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.95])
def test_split_gives_every_class_of_two_an_image_on_both_sides(fraction):
    ids, classes, counts = tail_of_classes()
    train, validation = splits.stratified(ids, classes, fraction, seed=5)
    assert (train ^ validation).all()
    in_train = np.bincount(classes[train], minlength=len(counts))
    in_validation = np.bincount(classes[validation], minlength=len(counts))
    assert (in_train >= 1).all()
    assert (in_validation[counts >= 2] >= 1).all()
    assert (in_validation[counts == 1] == 0).all()


def test_split_share_is_near_the_fraction_over_all_and_in_every_class():
    ids, classes, counts = tail_of_classes()
    _, validation = splits.stratified(ids, classes, 0.2, seed=5)
    assert validation.mean() == pytest.approx(0.2, abs=0.5 / len(ids))
    in_validation = np.bincount(classes[validation], minlength=len(counts))
    assert (np.abs(in_validation - 0.2 * counts) < 1.0).all()


def test_split_does_not_lose_the_share_when_every_class_rounds_down():
    classes = np.repeat(np.arange(50), 14)
    _, validation = splits.stratified(np.arange(700), classes, 0.1, seed=0)
    assert validation.sum() == 70


def test_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    ids, classes, _ = tail_of_classes()
    _, first = splits.stratified(ids, classes, 0.2, seed=5)
    shuffled = np.random.default_rng(0).permutation(len(ids))
    _, second = splits.stratified(ids[shuffled], classes[shuffled], 0.2, seed=5)
    _, other_seed = splits.stratified(ids, classes, 0.2, seed=6)
    assert set(ids[first]) == set(ids[shuffled][second])
    assert set(ids[first]) != set(ids[other_seed])


def test_split_is_the_same_on_every_supported_numpy():
    ids, classes, _ = tail_of_classes()
    _, validation = splits.stratified(ids, classes, 0.12, seed=7)
    digest = hashlib.sha256("\n".join(sorted(ids[validation])).encode()).hexdigest()
    assert digest[:16] == "0a9639bba358f1cc"


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
def test_split_refuses_fractions_that_leave_a_side_empty(fraction):
    with pytest.raises(UsageError, match="between 0 and 1"):
        splits.stratified(["a", "b"], [0, 0], fraction, seed=0)


def test_summary_is_plain_and_right(tables, write_tables):
    summary = tail.summarize(read_metadata(write_tables(tables)))
    assert json.loads(json.dumps(summary)) == summary
    expected = {
        "images": 7,
        "species": 3,
        "genera": 2,
        "families": 2,
        "institutions": 2,
        "min_images": 1,
        "median_images": 2.0,
        "max_images": 4,
        "head_species": 0,
        "medium_species": 0,
        "tail_species": 3,
        "tail_images": 7,
        "imbalance_ratio": 4.0,
    }
    assert {name: summary[name] for name in expected} == expected
