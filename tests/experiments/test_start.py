"""What the start of a training is worth: neighbours by frozen features, a regression on them, the same from nothing."""

import numpy as np
import pytest
import tiny

from utils.config import load_profile
from utils.data.labels import LabelMap
from utils.evaluation.scores import macro_f1
from utils.experiments.start import (
    Start,
    from_nothing,
    look_at_start,
    nearest_sheets,
    relatives,
    some_neighbours,
)
from utils.sources import search
from utils.training.features import Features, Linear

# Two species of one genus, one of another genus of that family, one of another family.
LABELS = LabelMap(
    np.array(["Poa alpina", "Poa annua", "Rosa canina", "Zea mays"]),
    np.arange(4),
    np.array(["Poa", "Poa", "Rosa", "Zea"]),
    np.array(["Poaceae", "Poaceae", "Rosaceae", "Poaceae"]),
)


def start_of(train: list, classes: list, held_out: list, held_out_classes: list) -> Start:
    def features(rows, of):
        return Features(np.array(rows, np.float32), np.array(of, np.int32))

    linear = Linear(np.zeros((2, 4), np.float32), np.zeros(4, np.float32))
    return Start(features(train, classes), features(held_out, held_out_classes), linear, 0.0, 1.0)


def test_the_nearest_sheets_are_those_of_the_most_similar_direction():
    start = start_of([[9, 0], [0, 1], [1, 1], [-1, 0]], [0, 1, 3, 2], [[1, 0.1], [0, 0]], [0, 2])
    nearest = nearest_sheets(start, 3)
    assert nearest[0].tolist() == [0, 2, 1]
    assert (
        nearest.shape == (2, 3) and np.isfinite(nearest).all()
    )  # one without any feature has neighbours too
    assert nearest_sheets(start, 9).shape == (2, 4)


def test_relatives_are_counted_by_rank_against_chance():
    start = start_of(np.eye(4, 2).tolist(), [0, 1, 3, 2], [[1, 0]], [0])
    table = relatives(start, np.array([[0, 1, 2, 3]]), LABELS).set_index("rank")
    assert table["share"].to_dict() == {"species": 0.25, "genus": 0.5, "family": 0.75}
    assert table["chance"].to_dict() == {"species": 0.25, "genus": 0.5, "family": 0.75}
    nearer = relatives(start, np.array([[0, 1]]), LABELS).set_index("rank")
    assert nearer["share"].to_dict() == {"species": 0.5, "genus": 1.0, "family": 1.0}


def test_a_look_leaves_the_network_as_it_is_and_shows_the_sheets_it_speaks_of(sample_flora):
    profile = tiny.tiny_profile(1, validation_fraction=0.3)
    data = search(sample_flora, kind="sample")
    labels, split = data.labels(), data.split(profile)
    network = tiny.tiny_network(profile, labels.n_classes, None)
    before = [weights.copy() for weights in network.get_weights()]
    start = look_at_start(profile, data, network)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    held_out = split["held_out"].to_numpy()
    assert (len(start.train), len(start.held_out)) == ((~held_out).sum(), held_out.sum())
    predicted = start.regression.predicted(start.held_out.features)
    assert start.macro_f1 == pytest.approx(macro_f1(start.held_out.classes, predicted, labels.n_classes))
    nearest = nearest_sheets(start, 2)
    images, classes = some_neighbours(profile, data, start, nearest, sheets=3)
    assert images.shape == (3, 3, 32, 32, 3) and images.dtype == np.uint8
    assert classes[0, 0] == start.held_out.classes.min() and classes[-1, 0] == start.held_out.classes.max()
    row = int(np.argsort(start.held_out.classes, kind="stable")[0])
    assert classes[0, 1:].tolist() == start.train.classes[nearest[row]].tolist()
    shown = network.get_layer("avg_pool").output
    pooled = type(network)(network.input, shown).predict(images[0], verbose=0)
    assert np.allclose(pooled[0], start.held_out.features[row], atol=1e-5)
    assert np.allclose(pooled[1:], start.train.features[nearest[row]], atol=1e-5)


def test_from_nothing_is_scratch_with_the_split_and_seed_of_the_run_beside_it():
    profile = load_profile("laptop", seed=3, validation_fraction=0.2, skip_bad=True)
    other = from_nothing(profile, 5)
    assert other == load_profile("scratch", epochs=5, seed=3, validation_fraction=0.2, skip_bad=True)
    assert (other.weights, other.epochs) == ("random", 5)
