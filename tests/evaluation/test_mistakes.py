import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from utils.evaluation import scores
from utils.files import InputError


def test_mistakes_are_counted_by_the_nearest_common_taxon(six_species):
    true = np.array([0, 0, 0, 2, 3, 4, 5, 5])
    predicted = np.array([0, 1, 2, 5, 4, 5, 4, 5])
    table = scores.mistakes_by_kind(true, predicted, six_species).set_index("kind")
    assert table["mistakes"].to_dict() == {"within genus": 3, "within family": 2, "across families": 1}
    assert table["share"].to_dict() == pytest.approx(
        {"within genus": 3 / 6, "within family": 2 / 6, "across families": 1 / 6}
    )


def test_chance_equals_drawing_the_wrong_answers_at_random(six_species):
    generator = np.random.default_rng(3)
    true = generator.integers(0, 6, 400)
    predicted = np.where(
        generator.random(400) < 0.5, true, generator.choice(6, 400, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    )
    table = scores.mistakes_by_kind(true, predicted, six_species).set_index("kind")
    wrong = true[true != predicted]
    drawn_true = np.repeat(wrong, 400)
    drawn = generator.choice(predicted, len(drawn_true))
    drawn_true, drawn = drawn_true[drawn_true != drawn], drawn[drawn_true != drawn]
    # rejection favours true species that are seldom predicted, so each true species is weighed by its mistakes
    kinds = scores.kind_of(drawn_true, drawn, six_species)
    for kind in scores.KINDS:
        expected = sum(
            (wrong == c).mean() * (kinds[drawn_true == c] == kind).mean() for c in np.unique(wrong)
        )
        assert table.loc[kind, "chance"] == pytest.approx(expected, abs=0.01)
    assert table["ratio"].to_numpy() == pytest.approx((table["share"] / table["chance"]).to_numpy())


def test_genus_mate_ratio_is_above_one_only_when_relatives_are_confused(six_species):
    true = np.tile(np.arange(6), 20)
    relatives = true.copy()
    relatives[:60] = np.array([1, 0, 2, 3, 5, 4])[true[:60]]
    strangers = true.copy()
    strangers[:60] = np.array([3, 4, 5, 0, 1, 2])[true[:60]]
    assert scores.genus_mate_ratio(true, relatives, six_species) > 2
    assert scores.genus_mate_ratio(true, strangers, six_species) == 0


def test_no_mistakes_give_no_shares(six_species):
    true = np.arange(6)
    table = scores.mistakes_by_kind(true, true, six_species)
    assert table["mistakes"].sum() == 0
    assert table["share"].isna().all()
    assert np.isnan(scores.genus_mate_ratio(true, true, six_species))


def test_mistake_distance_by_hand(six_species):
    # genera: Carex, Poa, Rosa, Rubus
    distances = np.array(
        [[0, 20, 90, np.nan], [20, 0, 80, 70], [90, 80, 0, 30], [np.nan, 70, 30, 0]], dtype=np.float32
    )
    true = np.array([0, 0, 0, 2, 3, 4])
    predicted = np.array([0, 1, 3, 0, 4, 1])
    result = scores.mistake_distance(true, predicted, six_species, distances)
    # 0 within Carex, 90 Carex-Rosa, 20 Poa-Carex, 30 Rosa-Rubus; Rubus-Carex is not known
    assert result["over_mistakes"] == pytest.approx((0 + 90 + 20 + 30) / 4)
    assert result["over_all"] == pytest.approx((0 + 0 + 90 + 20 + 30) / 5)
    assert result["unknown"] == 1
    # predicted species: 0 twice, 1 twice, 3, 4. Each known mistake draws another species with a known distance.
    from_carex_alba = (2 * 0 + 1 * 90) / 3  # 1 twice, 3; 4 has no known distance
    from_poa = (4 * 20 + 80 + 70) / 6
    from_rosa = (4 * 90 + 30) / 5
    assert result["chance"] == pytest.approx((2 * from_carex_alba + from_poa + from_rosa) / 4)


def test_scores_by_bin_average_the_f1_of_all_sheets():
    generator = np.random.default_rng(0)
    train_counts = np.array([80, 70, 60, 59, 20, 19, 7, 7])
    true = generator.integers(0, 7, 300)  # species 7 has no test sheet
    predicted = np.where(generator.random(300) < 0.6, true, generator.integers(0, 8, 300))
    table = scores.scores_by_bin(true, predicted, train_counts).set_index("bin")
    f1 = f1_score(true, predicted, labels=range(8), average=None, zero_division=0)
    assert table["macro_f1"].to_dict() == pytest.approx(
        {"head": f1[:3].mean(), "medium": f1[3:5].mean(), "tail": f1[5:].mean()}
    )
    assert table["species"].tolist() == [3, 2, 3]
    assert table["train_images"].tolist() == [210, 79, 33]
    assert table["test_images"].tolist() == [(true < 3).sum(), np.isin(true, [3, 4]).sum(), (true > 4).sum()]
    assert table.loc["head", "accuracy"] == pytest.approx((predicted[true < 3] == true[true < 3]).mean())


def test_scores_by_bin_without_a_tail():
    table = scores.scores_by_bin(np.array([0, 1]), np.array([0, 0]), np.array([60, 61])).set_index("bin")
    assert table.loc["tail", "species"] == 0
    assert np.isnan(table.loc["tail", "macro_f1"])


def test_scores_by_family_are_ordered_by_test_sheets(six_species):
    true = np.array([0, 1, 3, 3, 4, 5, 5])
    predicted = np.array([0, 0, 3, 4, 4, 5, 2])
    counts = np.array([70, 7, 7, 70, 7, 7])
    table = scores.scores_by_family(true, predicted, six_species, counts)
    assert table["family"].tolist() == ["Rosaceae", "Graminoids"]
    assert table["test_images"].tolist() == [5, 2]
    f1 = f1_score(true, predicted, labels=range(6), average=None, zero_division=0)
    assert table["macro_f1"].to_numpy() == pytest.approx([f1[3:].mean(), f1[:3].mean()])
    assert table["accuracy"].to_numpy() == pytest.approx([3 / 5, 1 / 2])
    assert table["train_images"].to_numpy() == pytest.approx([28, 28])
    equal = (f1[[0, 3]].mean() + 2 * f1[[1, 2, 4, 5]].mean()) / 3
    assert table["equal_images"].to_numpy() == pytest.approx([equal, equal]), "the same mix of bins"


def test_confused_pairs_come_most_frequent_first(six_species):
    true = np.array([0, 0, 0, 0, 2, 2, 3])
    predicted = np.array([1, 1, 1, 0, 3, 2, 0])
    table = scores.confused_pairs(true, predicted, six_species, top=2)
    assert len(table) == 2
    assert table.iloc[0].to_dict() == {
        "species": "Carex alba",
        "taken_for": "Carex nigra",
        "times": 3,
        "share": 0.75,
        "kind": "within genus",
    }
    assert table.iloc[1]["kind"] == "across families"


def test_confused_pairs_without_mistakes_are_empty(six_species):
    assert scores.confused_pairs(np.arange(6), np.arange(6), six_species).empty


def test_genus_confusion_equals_scikit_learns_matrix(six_species):
    generator = np.random.default_rng(1)
    true, predicted = generator.integers(0, 6, (2, 200))
    expected = confusion_matrix(
        six_species.genera[true], six_species.genera[predicted], labels=six_species.genus_names
    )
    assert np.array_equal(scores.genus_confusion(true, predicted, six_species), expected)


def test_unknown_species_are_refused(six_species):
    with pytest.raises(InputError, match="1 of 2 sheets have no known species"):
        scores.mistakes_by_kind(np.array([-1, 0]), np.array([0, 0]), six_species)
