"""Answers that say what they are worth: at the rank that is sure, with a status, as a table and as a CSV."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from utils.data.labels import LabelMap
from utils.own.answers import (
    DOUBTFUL,
    HELD_OUT,
    NO_RANK,
    NO_SCORE,
    STRANGE,
    SURE,
    Answers,
    Measured,
    References,
    best_of_ranks,
    calibrated,
    concatenate_judged,
    judge,
    ranks_at,
    write_answers_csv,
)
from utils.own.unknown import Space

# of Carex alba, Carex nigra, Poa annua, Rosa canina, Rubus caesius, Rubus idaeus
SHEETS = np.array(
    [
        [0.97, 0.01, 0.01, 0.01, 0.0, 0.0],  # one species
        [0.5, 0.48, 0.0, 0.02, 0.0, 0.0],  # one genus
        [0.0, 0.0, 0.02, 0.4, 0.28, 0.3],  # one family
        [0.3, 0.0, 0.3, 0.2, 0.2, 0.0],  # nothing
    ],
    np.float32,
)


def answers(labels: LabelMap, **settings) -> Answers:
    """Features have two numbers; a first one above 1 is unlike anything, whatever the probabilities."""
    right = np.ones((1, 3), bool)
    measured = Measured(
        HELD_OUT, *(np.zeros(1, np.int32),) * 2, np.ones((1, 3), np.float32), right, np.zeros(1)
    )

    class Far(Space):
        def strangeness(self, places, probabilities, temperature=1.0):
            return places[:, 0]

    space = Far(
        np.zeros(2, np.float32), np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.arange(2)
    )
    references = References(np.array(["far", "near"]), np.array([0, 1]), np.eye(2, dtype=np.float16))
    made = Answers(labels, 1.0, 0.0, 1.0, space, references, measured, (1, 1, 1), None)
    return replace(made, **settings)


def test_the_probability_of_a_genus_is_that_of_its_species_together(six_species):
    taxa, shares = best_of_ranks(SHEETS, six_species)
    assert six_species.names[taxa[:3, 0]].tolist() == ["Carex alba", "Carex alba", "Rosa canina"]
    assert six_species.genus_names[taxa[:3, 1]].tolist() == ["Carex", "Carex", "Rubus"]
    assert six_species.family_names[taxa[:3, 2]].tolist() == ["Graminoids", "Graminoids", "Rosaceae"]
    assert shares[:3] == pytest.approx(np.array([[0.97, 0.98, 0.99], [0.5, 0.98, 0.98], [0.4, 0.58, 0.98]]))


def test_a_family_that_no_table_names_is_no_answer(six_species):
    families = np.array(["unknown"] * 3 + ["Rosaceae"] * 3)
    part = LabelMap(six_species.names, six_species.category_ids, six_species.genera, families)
    taxa, shares = best_of_ranks(SHEETS, part)
    assert (part.family_names[taxa[:, 2]] == "Rosaceae").all()
    assert shares[0, 2] == pytest.approx(0.01) and shares[2, 2] == pytest.approx(0.98)
    none = LabelMap(six_species.names, six_species.category_ids, six_species.genera, np.full(6, "unknown"))
    _, shares = best_of_ranks(SHEETS, none)
    assert np.isnan(shares[:, 2]).all()
    assert ranks_at(shares, 0.95, np.zeros(4, bool)).tolist() == [0, 1, NO_RANK, NO_RANK]


def test_answers_are_given_at_the_rank_that_is_sure(six_species):
    features = np.zeros((4, 2), np.float32)
    features[3] = 2.0
    found = answers(six_species).judge(np.array(list("abcd")), SHEETS, features)
    assert found.rank.tolist() == [0, 1, 2, NO_RANK]
    assert found.taxon.tolist() == ["Carex alba", "Carex", "Rosaceae", ""]
    assert found.status.tolist() == [SURE, SURE, SURE, STRANGE]
    assert found.probability[:3] == pytest.approx([0.97, 0.98, 0.98], abs=1e-4)
    strict = answers(six_species).judge(np.array(list("abcd")), SHEETS, features * 0, sure=0.985)
    assert strict.status.tolist() == [SURE, DOUBTFUL, DOUBTFUL, DOUBTFUL]
    assert strict.taxon.tolist() == ["Graminoids", "", "", ""]


def test_the_nearest_training_sheets_come_first(six_species):
    made = answers(six_species)
    found = made.judge(np.array(["a"]), SHEETS[:1], np.array([[0.1, 0.9]], np.float32))
    assert made.references.ids[made.references.nearest(found.directions)].tolist() == [["near", "far"]]


def test_few_held_out_sheets_allow_no_sure_answer(six_species):
    features = np.zeros((4, 2), np.float32)
    few = answers(six_species, doubt=1 / 15).judge(np.array(list("abcd")), SHEETS, features)
    assert set(few.status) == {DOUBTFUL}
    shares = calibrated(SHEETS, 0.05, 1 / 15)
    assert shares.sum(axis=1) == pytest.approx(14 / 15) and shares.max() == pytest.approx(14 / 15)


def test_calibration_keeps_the_order_and_a_temperature_of_1_the_probabilities():
    assert calibrated(SHEETS, 1.0, 0.0) == pytest.approx(SHEETS, abs=1e-6)
    hot = calibrated(SHEETS, 2.0, 0.01)
    assert (np.argmax(hot, axis=1) == np.argmax(SHEETS, axis=1)).all() and hot[0, 0] < SHEETS[0, 0]


def test_without_a_measured_worth_the_answers_say_so(six_species):
    found = judge(None, np.array(list("abcd")), SHEETS, np.zeros((4, 2), np.float32))
    assert set(found.status) == {NO_SCORE} and set(found.rank) == {NO_RANK} and set(found.taxon) == {""}
    assert found.predictions.probabilities[0, 0] == pytest.approx(0.97)


def test_what_is_left_to_the_machine_is_counted_on_the_sheets_that_were_measured():
    shares = np.array(
        [[0.99, 1, 1], [0.9, 0.97, 1], [0.6, 0.7, 0.96], [0.5, 0.5, 0.6], [0.99, 1, 1]], np.float32
    )
    right = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]], bool)
    strange = np.array([0, 0, 0, 0, 9], np.float32)
    measured = Measured(HELD_OUT, np.zeros(5, int), np.zeros(5, int), shares, right, strange)
    table = measured.by_rank(0.95, 1.0).set_index("rank")
    assert table["sheets"].tolist() == [1, 1, 1, 2] and table["share"].tolist() == [0.2, 0.2, 0.2, 0.4]
    assert table["right"].tolist()[:3] == [1, 1, 1] and np.isnan(table["right"]["none"])
    curve = measured.curve(1.0, (0.55, 0.95, 1.0))
    assert curve["share"].tolist() == [0.6, 0.2, 0]
    assert curve["error"].tolist()[:2] == [pytest.approx(1 / 3), 0] and np.isnan(curve["error"][2])


def test_the_csv_says_status_answer_and_the_five_best(tmp_path, six_species):
    features = np.zeros((4, 2), np.float32)
    made = answers(six_species)
    parts = [
        made.judge(np.array(list("ab")), SHEETS[:2], features[:2]),
        judge(None, np.array(["c"]), SHEETS[2:3], features),
    ]
    path = write_answers_csv(
        concatenate_judged(parts), six_species, tmp_path / "p.csv", files=["1.jpg", "2.jpg", "3.jpg"]
    )
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert len(rows) == 3 and len(rows[0]) == 7 + 5 * 4
    assert {key: rows[1][key] for key in list(rows[1])[:11]} == {
        "image_id": "b",
        "file_name": "2.jpg",
        "status": SURE,
        "rank": "genus",
        "answer": "Carex",
        "answer_probability": "0.9800",
        "strangeness": "0.0000",
        "species_1": "Carex alba",
        "genus_1": "Carex",
        "family_1": "Graminoids",
        "probability_1": "0.5000",
    }
    assert [rows[2][key] for key in ("status", "rank", "answer", "answer_probability", "strangeness")] == [
        NO_SCORE,
        "",
        "",
        "",
        "",
    ]
    assert "file_name" not in write_answers_csv(parts[0], six_species, path).read_text().splitlines()[0]
