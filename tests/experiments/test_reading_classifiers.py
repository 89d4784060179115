"""What new classifiers and decisions show in words: each outcome has its sentence."""

import numpy as np
import pandas as pd
import pytest

from utils.evaluation.predict import Predictions
from utils.experiments import decide, methods
from utils.experiments import reading_classifiers as reading
from utils.experiments.reading_scores import italic
from utils.experiments.table import gains_over


def test_the_pull_of_the_common_is_named_over_occurring():
    counts = np.array([80, 30, 5])
    true = np.repeat([0, 1, 2], 4)
    predicted = np.array([0, 0, 0, 0, 1, 1, 1, 0, 2, 2, 0, 0])
    table = methods.pull_of_the_common(true, predicted, counts)
    assert table["bin"].tolist() == ["head", "medium", "tail"]
    assert table["ratio"].tolist() == pytest.approx([7 / 4, 3 / 4, 2 / 4])
    text = reading.pull(table, "cross_entropy")
    assert "pull: those of the head are named **1.75**" in text and "tail **0.50** times" in text
    assert "made to take the pull away" in reading.pull(table, "balanced_softmax")
    back = methods.pull_of_the_common(true, np.repeat([0, 1, 2, 2], 3), counts)
    assert "do not pull here" in reading.pull(back, "cross_entropy")
    alone = methods.pull_of_the_common(true, predicted, np.array([5, 6, 7]))
    assert np.isnan(alone["ratio"]).tolist() == [True, True, False]
    assert "All species are of the tail" in reading.pull(alone, "cross_entropy")


def test_remedies_are_compared_between_the_rarest_and_the_commonest():
    text = reading.remedies(np.array([80, 20, 5, 0]))
    assert "has 5 training images and the commonest 80" in text and "inverse frequency **16.0 times**" in text
    assert "shifted 2.8 apart, as if the rarest became 16 times" in text


ROWS = pd.DataFrame(
    {
        "method": ["the network's own", "post-hoc logit adjustment", "new"],
        "macro_f1": [0.80, 0.79, 0.81],
        "head": [0.9, 0.8, 0.88],
        "medium": [0.8, 0.8, 0.8],
        "tail": [0.7, 0.6, 0.75],
    }
)


def test_the_best_classifier_is_said_with_what_a_difference_needs():
    text = reading.ranking(ROWS, "the network's own", (0.5, 1.5))
    assert "Highest here is **new** with macro-F1 0.810, against 0.800" in text
    assert "0.5 to 1.5 points: among the others 1" in text
    assert "None beats **the network's own**" in reading.ranking(ROWS[:2], "the network's own", (0.5, 1.5))


def test_gains_by_bin_say_who_pays():
    named = ROWS.rename(columns={name: f"{name}_f1" for name in ("head", "medium", "tail")})
    gains = gains_over(named, "the network's own", ["head_f1", "medium_f1", "tail_f1"])
    text = reading.by_bin(gains, "the network's own", "balanced_softmax")
    assert "**1 of 2** classifiers raise the tail" in text and "most of all new (+5.0 points)" in text
    assert "Of those that raise it 1 lower the head" in text and "a second time" in text
    assert "left the pull in" in reading.by_bin(gains, "the network's own", "cross_entropy")
    tail_alone = gains[gains["metric"] == "tail_f1"]
    assert "lower the" not in reading.by_bin(tail_alone, "the network's own", "cross_entropy")


def test_one_sheet_shows_why_relatives_outweigh_a_stranger(six_species):
    genus = six_species.genus_index
    far = np.where(np.eye(genus.max() + 1, dtype=bool), 0.0, 100.0)
    large = np.bincount(genus).argmax()  # its species share more probability than the stranger has
    mates, stranger = np.flatnonzero(genus == large)[:2], int(np.flatnonzero(genus != large)[0])
    classes = np.array([[stranger, *mates]], np.int32)
    shares = np.array([[0.4, 0.35, 0.25]], np.float32)

    def words(true: int, probabilities: np.ndarray = shares) -> str:
        said = Predictions(np.array(["0"]), classes, probabilities, np.array([true], np.int32))
        table = decide.expected_distances(said, 0, six_species, far)
        expected = 100 * (1 - np.where(np.arange(3) == 0, probabilities[0, 0], probabilities[0, 1:].sum()))
        assert table["distance"].to_numpy() == pytest.approx(expected, rel=1e-5)
        assert table["true"].tolist() == (classes[0] == true).tolist()
        return reading.one_sheet(table)

    text = words(stranger)
    assert f"{italic(six_species.names[stranger])} (0.40)" in text and "(40.0 against 60.0)" in text
    assert "Here the first is right" in text and "Here the second is right" in words(int(mates[0]))
    assert f"of another, {italic(six_species.names[mates[1]])}" in words(int(mates[1]))
    other = int(np.setdiff1d(np.arange(6), classes)[0])
    assert "nor of any species that was kept" in words(other)
    assert "both decisions name" in words(stranger, np.array([[0.9, 0.06, 0.04]], np.float32))


def test_decisions_say_whether_mistakes_come_nearer():
    table = pd.DataFrame(
        {"macro_f1": [0.8, 0.79], "over_all": [2.0, 1.5], "over_mistakes": [20.0, 15.0]},
    )
    text = reading.decisions(table, 100)
    assert "is lower with least cost" in text and "(**-25%**), at -1.0 points" in text
    assert "is not lower" in reading.decisions(table[::-1], 100) and "hangs on" not in text
    assert "hangs on 2 sheets, so it says nothing" in reading.decisions(table, 2)
    assert "no distance can be made shorter" in reading.decisions(table.assign(over_all=0.0), 0)
