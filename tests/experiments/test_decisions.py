import numpy as np
import pytest

from utils.evaluation.predict import Predictions
from utils.experiments import decide
from utils.files import InputError

# Carex, Poa, Rosa, Rubus
DISTANCES = np.array(
    [
        [0, 40, 250, 260],
        [40, 0, 255, np.nan],
        [250, 255, 0, 30],
        [260, np.nan, 30, 0],
    ],
    np.float32,
)


def predictions(
    probabilities: np.ndarray, true: np.ndarray | None = None, top: int | None = None
) -> Predictions:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return Predictions(
        np.array([str(number) for number in range(len(probabilities))]),
        order.astype(np.int32),
        np.take_along_axis(probabilities, order, axis=1).astype(np.float32),
        np.full(len(probabilities), -1, np.int32) if true is None else true,
    )


@pytest.fixture
def probabilities() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(6, 0.7), 300)


def cheapest(row, labels, miss, classes=range(6)):
    """By the definition, one answer and one truth at a time."""
    costs = {}
    for answer in classes:
        cost = 0.0
        for truth in classes:
            if truth != answer:
                far = DISTANCES[labels.genus_index[answer], labels.genus_index[truth]]
                cost += row[truth] * (miss + (260.0 if np.isnan(far) else far))
        costs[answer] = cost
    return min(costs, key=costs.get)


@pytest.mark.parametrize("miss", [0.0, 17.5, 60.0])
def test_the_class_of_least_expected_cost_is_chosen(six_species, probabilities, miss, monkeypatch):
    monkeypatch.setattr(decide, "CELLS", 36 * 7)  # seven sheets at a time
    found = decide.least_cost(predictions(probabilities), six_species, DISTANCES, miss)
    expected = [cheapest(row.astype(np.float32), six_species, miss) for row in probabilities]
    assert found.dtype == np.int32
    if miss == 0:  # species of one genus cost the same then
        genus = six_species.genus_index
        assert np.array_equal(genus[found], genus[expected])
    else:
        assert np.array_equal(found, expected)
    assert (found != probabilities.argmax(axis=1)).any()


def test_two_relatives_beat_a_stranger_that_is_a_little_more_probable(six_species):
    row = np.array([[0.0, 0.0, 0.4, 0.0, 0.31, 0.29]])  # Poa against two Rubus
    assert decide.least_cost(predictions(row), six_species, DISTANCES, 17.5).tolist() == [4]


def test_a_large_cost_of_any_mistake_gives_the_most_probable_class(six_species, probabilities):
    found = decide.least_cost(predictions(probabilities), six_species, DISTANCES, 1e6)
    assert np.array_equal(found, probabilities.argmax(axis=1))


def test_with_the_best_classes_only_the_answer_is_among_them(six_species, probabilities):
    some = predictions(probabilities, top=3)
    found = decide.least_cost(some, six_species, DISTANCES, 20.0)
    expected = [
        cheapest(row.astype(np.float32), six_species, 20.0, kept)
        for row, kept in zip(probabilities, some.classes.tolist(), strict=True)
    ]
    # what is left out has no part in the costs, so the sums differ by what all answers share
    assert np.array_equal(found, expected)


def test_distances_that_are_all_unknown_are_an_error(six_species, probabilities):
    unknown = np.where(np.eye(4, dtype=bool), 0.0, np.nan)
    with pytest.raises(InputError, match="No distance"):
        decide.least_cost(predictions(probabilities), six_species, unknown)
    with pytest.raises(InputError, match="No distance"):
        decide.least_cost(predictions(probabilities), six_species, unknown, 5.0)


def test_the_comparison_shows_less_distance_for_what_is_expected(six_species, probabilities):
    generator = np.random.default_rng(1)
    true = np.array([generator.choice(6, p=row) for row in probabilities], np.int32)
    table = decide.compare_decisions(
        predictions(probabilities, true), six_species, np.nan_to_num(DISTANCES, nan=270), (0.0, 17.5, 1e6)
    )
    assert table["decision"].tolist() == ["most probable", "least cost", "least cost", "least cost"]
    argmax, free, within, same = table.to_dict("records")
    assert max(within["over_all"], free["over_all"]) < argmax["over_all"]
    assert {key: same[key] for key in ("macro_f1", "over_all")} == {
        key: argmax[key] for key in ("macro_f1", "over_all")
    }
    assert np.isnan(argmax["miss"]) and within["miss"] == 17.5


def test_macro_f1_of_some_species_does_not_count_the_others(six_species, probabilities):
    some = probabilities.argmax(axis=1) < 3
    found = predictions(probabilities[some], probabilities[some].argmax(axis=1).astype(np.int32))
    species = np.unique(found.true)
    known = np.nan_to_num(DISTANCES, nan=270)
    of_all = decide.compare_decisions(found, six_species, known).iloc[0]
    of_some = decide.compare_decisions(found, six_species, known, species=species).iloc[0]
    assert of_some["macro_f1"] == 1.0 and of_all["macro_f1"] == pytest.approx(len(species) / 6)
