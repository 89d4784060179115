"""What the scores of a network show in words: each outcome has its sentence, numbers are those of the scores."""

import numpy as np
import pandas as pd
import pytest

from utils.evaluation import scores
from utils.experiments import reading_scores as reading


@pytest.mark.parametrize(
    ("score", "said", "not_said"),
    [
        ({"macro_f1": 0.7, "accuracy": 0.9}, "**90.0%** get", "count as F1 0"),
        ({"macro_f1": 0.7, "accuracy": 0.9}, "does worse than by sheets", "The two are close"),
        ({"macro_f1": 0.9, "accuracy": 0.7}, "does better than by sheets", "The two are close"),
        ({"macro_f1": 0.8, "accuracy": 0.81}, "The two are close", "worse"),
        ({"macro_f1": 0.4, "accuracy": 0.4, "classes_without_images": 10}, "than 0.750 here", "worse"),
    ],
)
def test_accuracy_stands_beside_macro_f1(score, said, not_said):
    text = reading.overall({"images": 1000, "classes": 40, "classes_without_images": 0, **score}, "test")
    assert said in text and not_said not in text


@pytest.mark.parametrize(
    ("macro_f1", "on", "said"),
    [
        (0.8, "all 40 species", "**25%** of the network's"),
        (0.3, "all 40 species", "may come from colour and layout"),
        (0.1, "all 40 species", "has not passed what colour"),
        (0.1, "200 of 1,000 species", "are no match"),
    ],
)
def test_the_network_stands_beside_the_better_baseline(macro_f1, on, said):
    table = pd.DataFrame({"method": ["colours", "thumbnails"], "macro_f1": [0.2, 0.1], "on": on})
    assert said in reading.beside_baselines(macro_f1, table)


COUNTS = np.array([80, 60, 30, 20, 10, 7])  # two species a bin
TRUE = np.repeat(np.arange(6), [8, 6, 4, 4, 2, 2])


def test_points_and_bins_are_read_from_head_to_tail(six_species):
    predicted = TRUE.copy()
    predicted[TRUE == 5] = 4
    f1 = scores.per_class_f1(TRUE, predicted, 6)
    text = reading.down_the_tail(f1, COUNTS, TRUE)
    assert "in head from 1.00 to 1.00" in text and "in tail from 0.00 to 0.67" in text
    assert "**2 of 6 species** have three sheets or fewer" in text
    by_bin = scores.scores_by_bin(TRUE, predicted, COUNTS)
    text = reading.bins_in_words(by_bin, "cross_entropy")
    assert "falls by **0.67** from head to tail" in text and "33% of the species" in text
    assert "4 of the 26 scored sheets" in text and "but for the tail" in text and "may lift the tail" in text
    assert "favours rare species already" in reading.bins_in_words(by_bin, "balanced_softmax")
    right = scores.scores_by_bin(TRUE, TRUE, COUNTS)
    assert "no lower than in the head" in reading.bins_in_words(right, "cross_entropy")
    alone = scores.scores_by_bin(TRUE, TRUE, np.full(6, 5))
    assert "All species are of the tail" in reading.bins_in_words(alone, "cross_entropy")


def test_a_family_is_read_beside_species_with_as_many_images():
    table = pd.DataFrame(
        {
            "family": ["Aa", "Bb"],
            "species": [2, 3],
            "macro_f1": [0.4, 0.9],
            "equal_images": [0.7, 0.8],
            "test_images": [6, 90],
        }
    )
    text = reading.families_in_words(table)
    assert "**Aa** ends furthest left of its mark (-0.30)" in text and "may be chance" in text
    assert "may be chance" not in reading.families_in_words(table.assign(test_images=90))
    assert "No bar ends more" in reading.families_in_words(table.assign(equal_images=table["macro_f1"]))
    assert "one family, Aa" in reading.families_in_words(table[:1])


def test_mistakes_are_read_beside_chance(six_species):
    distances = np.full((len(six_species.genus_names),) * 2, 50.0)
    np.fill_diagonal(distances, 0)

    def words(predicted: np.ndarray) -> str:
        kinds = scores.mistakes_by_kind(TRUE, predicted, six_species)
        far = scores.mistake_distance(TRUE, predicted, six_species, distances)
        return reading.kinds_in_words(kinds, far)

    assert "nothing to sort" in words(TRUE)
    genus = six_species.genus_index
    mate = next(int(c) for c in range(1, 6) if genus[c] == genus[0]) if (genus == genus[0]).sum() > 1 else 0
    stranger = int(np.flatnonzero(genus != genus[0])[0])
    to_mate, to_stranger = TRUE.copy(), TRUE.copy()
    to_mate[:3], to_stranger[:3] = mate, stranger
    assert "Of 3 mistakes **100%** stay in the genus" in words(
        to_mate
    ) and "0.0** million years away" in words(to_mate)
    assert "**50.0** million years away" in words(to_stranger)


def test_ranks_say_how_often_genus_and_family_are_right_beside_the_species():
    ranks = pd.DataFrame(
        {
            "rank": ["species", "genus", "family", "none"],
            "sheets": [70, 8, 2, 20],
            "share": [0.7, 0.08, 0.02, 0.2],
        }
    ).assign(right=[0.9, 1.0, 1.0, np.nan])
    text = reading.ranks_in_words(ranks, 0.95)
    assert "at a threshold of 95%" in text and "20 sheets get no answer" in text
    assert (
        "on 10 sheets and right on 100.0% of them, more often than the species where that is named (90.0%)"
        in text
    )
    assert "80.0% of them, not more often than" in reading.ranks_in_words(
        ranks.assign(right=[0.9, 1, 0, np.nan]), 0.95
    )
    none = ranks.assign(sheets=[0, 0, 0, 100], right=np.nan)
    assert "all 100 wait for a person" in reading.ranks_in_words(none, 0.95)
    assert "Genus or family" not in reading.ranks_in_words(none.assign(sheets=[60, 0, 0, 40]), 0.95)


def test_genera_and_pairs_name_the_commonest_mistake():
    matrix = np.array([[9, 1, 0], [0, 5, 0], [4, 0, 6]])
    text = reading.genera_in_words(matrix, ["Aa", "Bb", "Cc"], 12)
    assert "**5 of the 12 mistakes** leave the genus" in text and "*Cc* named as *Aa*: 4 of its 10" in text
    assert "every sheet gets the right genus" in reading.genera_in_words(np.diag([3, 4]), ["Aa", "Bb"], 2)
    pairs = pd.DataFrame(
        {
            "species": ["a", "b", "c"],
            "taken_for": ["b", "a", "a"],
            "times": [4, 2, 1],
            "share": [0.5, 0.2, 0.1],
            "kind": ["within genus", "within genus", "across families"],
        }
    )
    text = reading.pairs_in_words(pairs)
    assert "is taken for" in text and ", 4 times" in text and "**2 of the 3 rows**" in text
    assert "1 pair goes both ways" in text and "both ways" not in reading.pairs_in_words(pairs[:1])
    assert reading.pairs_in_words(pairs[:0]) == "No species is confused with another."


@pytest.mark.parametrize(
    ("confidence", "ece", "said"),
    [(0.95, 0.25, "**overconfident**"), (0.45, 0.25, "**underconfident**"), (0.71, 0.01, "well balanced")],
)
def test_probabilities_are_judged_as_the_figure_judges_them(confidence, ece, said):
    right = np.arange(10) < 7
    text = reading.calibration_in_words(np.full(10, confidence), right, ece, 0.1)
    assert said in text and f"says {confidence:.0%} and is right 70%" in text


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((None, 5, 5, 1280), "5 × 5 cells, each 32 of 160 pixels wide: it tells the part"),
        ((None, 10, 10, 1280), "10 × 10 cells, each 16 of 160 pixels wide. In between"),
        ((None, None, None, 1280), "a cell for every 32 × 32 pixels"),
    ],
)
def test_a_map_says_how_coarse_it_is(shape, said):
    assert said in reading.map_in_words(shape, 160)


def test_what_a_submission_names_is_read():
    assert "In 2 of these 3 rows" in reading.first_answers(*np.array([[0, 1, 2], [0, 1, 3], [0.9, 0.8, 0.4]]))
    healthy = reading.named_in_words(np.array([0, 0, 0, 1]), np.array([30, 10]))
    assert "All 2 species are named" in healthy and "No sign of a collapse" in healthy
    collapsed = reading.named_in_words(np.zeros(9, int), np.array([10, 10, 4, 4]))
    assert "**3 of 4 species** are never named" in collapsed and "has collapsed" in collapsed
    assert "gets 9 sheets, 2.8 times" in collapsed


def test_class_indices_cost_what_the_scores_say():
    text = reading.class_indices_in_words([0, 1, 3, 4], ["line 3"], {"macro_f1": 0.1}, 0.9)
    assert "**2 of 4** species" in text and "**0.100** instead of 0.900" in text and "finds fault" in text
    unknown = reading.class_indices_in_words([0, 1, 3, 4], [], None, None)
    assert "instead" not in unknown and "finds no fault" in unknown


def test_a_name_is_in_italics_but_for_its_authors():
    assert reading.italic("Carex alba Scop.") == "*Carex alba* Scop."
    assert reading.italic("Carex alba var. nigra (L.) Rowan") == "*Carex alba* var. *nigra* (L.) Rowan"
    assert reading.italic("Carex") == "*Carex*"
