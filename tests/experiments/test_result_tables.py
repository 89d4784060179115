"""What tables of results say: of tables made here, old ones without some metrics, and the committed ones."""

import numpy as np
import pandas as pd
import pytest

from utils.experiments import reading
from utils.experiments.scoring import CLASSIFIERS, STEPS
from utils.files import REPOSITORY

RESULTS = sorted((REPOSITORY / "notebooks" / "results").glob("*_results.csv"))


def table(rows: dict[str, tuple[float, float, float]], **columns: object) -> pd.DataFrame:
    """One row a method, of macro-F1 its mean, lowest and highest, and half of that for the rarest third."""
    figures = np.array([*rows.values()])
    scores = {}
    for number, how in enumerate(("mean", "min", "max")):
        scores[f"macro_f1_{how}"] = figures[:, number]
        scores[f"rarest_f1_{how}"] = figures[:, number] / 2
        scores[f"tail_f1_{how}"] = np.nan
        scores[f"minutes_{how}"] = 2.0
    return pd.DataFrame({"method": list(rows), "seeds": 3, **columns, **scores})


NEW = table(
    {
        "frozen features": (0.80, 0.80, 0.80),
        "frozen features + tta": (0.81, 0.81, 0.81),
        "frozen features + nearest mean + tta": (0.70, 0.69, 0.71),
        "published recipe": (0.70, 0.66, 0.72),
        "published recipe + tta": (0.71, 0.70, 0.72),
        "cross-entropy": (0.70, 0.69, 0.71),
        "cross-entropy + tta": (0.72, 0.70, 0.74),
        "cross-entropy + logistic regression + tta": (0.84, 0.82, 0.86),
        "cross-entropy + nearest mean": (0.60, 0.59, 0.61),
        "best recipe + tta": (0.85, 0.84, 0.86),
        "best recipe + tta + ensemble of 3": (0.90, 0.90, 0.90),
    }
)


def test_a_row_is_taken_apart_by_its_name():
    rows = reading.parted(NEW).set_index("method")
    parts = ["training", "classifier", "tta", "together"]
    nearest = rows.loc["frozen features + nearest mean + tta", parts].tolist()
    assert nearest == ["frozen features", "nearest mean", True, False]
    ensemble = rows.loc["best recipe + tta + ensemble of 3", parts].tolist()
    assert ensemble == ["best recipe", reading.OWN, True, True]
    assert set(rows["classifier"]) <= {reading.OWN, *CLASSIFIERS}


def test_classifiers_are_compared_on_the_same_features_and_all_with_mirror_images_or_none():
    with_mirrors = reading.by_classifier(NEW, tta=True)
    assert with_mirrors.columns.tolist() == ["frozen features", "cross-entropy"]
    assert with_mirrors.index.tolist() == ["logistic regression", reading.OWN, "nearest mean"]
    assert with_mirrors.loc[reading.OWN].tolist() == [0.81, 0.72]
    assert np.isnan(with_mirrors.loc["nearest mean", "cross-entropy"])
    without = reading.by_classifier(NEW, "rarest_f1")
    assert without.columns.tolist() == ["cross-entropy"] and without.loc["nearest mean"].tolist() == [0.3]


def test_a_gain_is_said_with_its_range_and_is_clear_beyond_it():
    said = reading.compared(NEW, "best recipe + tta", "published recipe + tta")
    assert "+14.0 points of macro-F1 (+12.0 to +16.0, clear)" in said and "in 1.00 times the time" in said
    assert "+7.0 points in the rarest third" in said and "tail" not in said
    assert "(-3.0 to +5.0)" in reading.compared(NEW, "cross-entropy", "published recipe")
    assert reading.compared(NEW, "best recipe", "published recipe") == "", "there is no such row"


def test_findings_name_the_highest_row_apart_from_ensembles():
    said = reading.findings(NEW)
    assert "**best recipe + tta** with 0.850, of several networks together" in said
    assert said.count("\n- ") >= 4 and "**frozen features** over published recipe" in said
    assert reading.findings(NEW[NEW["method"] == "cross-entropy"]).startswith("- Highest macro-F1")


def test_what_helps_in_one_table_and_harms_in_another_is_named():
    rows = {
        "cross-entropy": (0.5, 0.5, 0.5),
        "cross-entropy + nearest mean": (0.6, 0.6, 0.6),
        "cross-entropy + tta": (0.7, 0.7, 0.7),
        "only here": (0.1, 0.1, 0.1),
    }
    old = table(rows)
    gains = reading.side_by_side({"new": NEW, "old": old}, "cross-entropy")
    assert gains.index.tolist() == ["cross-entropy + nearest mean"], (
        "no mirror images, nor what one table has"
    )
    assert gains.loc["cross-entropy + nearest mean"].tolist() == pytest.approx([-10, 10])
    assert reading.turned(gains) == ["cross-entropy + nearest mean"]
    for tables in ({}, {"old": old}, {"new": NEW, "other": old[2:]}):
        assert reading.side_by_side(tables, "cross-entropy").empty
        assert reading.turned(reading.side_by_side(tables, "cross-entropy")) == []


def test_ranges_are_shown_where_there_are_several_runs():
    shown = reading.with_ranges(table({"a": (0.5, 0.4, 0.6)}, data=3, runs=9), ("macro_f1", "minutes"))
    assert shown.columns.tolist() == ["method", "seeds", "data", "macro-F1", "minutes"]
    assert shown.iloc[0].tolist() == ["a", 3, 3, "0.500 (0.400 to 0.600)", "2.0 (2.0 to 2.0)"]
    one = table({"a": (0.5, 0.5, 0.5)}).assign(seeds=1)
    assert reading.with_ranges(one).iloc[0].tolist() == ["a", 1, "0.500", "0.250"]
    assert reading.with_ranges(one.assign(seeds=1, data=3, runs=3))["macro-F1"].tolist() == [
        "0.500 (0.500 to 0.500)"
    ]


def test_what_seeds_alone_do_is_the_spread_of_methods_with_several_runs():
    several = table({"a": (0.5, 0.48, 0.52), "b": (0.5, 0.49, 0.5)})
    one = table({"c": (0.5, 0.5, 0.5)}).assign(seeds=1)
    assert reading.spread(pd.concat([several, one])) == pytest.approx((1.0, 4.0))
    assert "**t**: 2 rows from 6 trainings, 0.2 hours of training, at most 3 seeds a" in reading.sizes(
        {"t": several}
    )
    on_three = one.assign(data=3, runs=3)
    assert reading.sizes({"t": on_three}).endswith("one seed a method on each of 3 data sets (column `data`)")


def test_other_classifiers_on_the_same_features_are_read_by_column():
    said = reading.classifiers_in_words(reading.by_classifier(NEW, tta=True))
    assert "**frozen features** the highest is its own (0.810); from first to last of 2 it is 11.0" in said
    assert "**cross-entropy** the highest is logistic regression (0.840), +12.0 points over its own" in said
    assert "differ by 3.0 points of macro-F1" in said


def test_ensembles_stand_beside_one_of_their_networks():
    said = reading.ensembles(NEW)
    assert said == (
        "- best recipe + tta: 0.900 together, +5.0 points over the mean of the runs and above the best of them, for "
        "1.0 times the training"
    )
    assert reading.ensembles(NEW[:3]) == ""


def test_the_trade_off_says_who_pays_in_the_head():
    rows = table({"old": (0.5, 0.5, 0.5), "fair": (0.6, 0.6, 0.6), "dear": (0.7, 0.7, 0.7)})
    for how in ("mean", "min", "max"):
        rows[f"tail_f1_{how}"] = [0.4, 0.45, 0.6]
        rows[f"head_f1_{how}"] = [0.8, 0.85, 0.7]
    said = reading.trade_off(rows, "old")
    assert (
        "**2 of 2** methods lie above it, 2 of them" in said and "highest is dear with +20.0 points" in said
    )
    assert "these lose in the head: dear" in said
    assert "None of the higher ones loses" in reading.trade_off(rows[:2], "old")


def test_short_trials_are_read_against_cross_entropy():
    rows = {"cross-entropy": 0.5, "focal loss": 0.6, "mixup": 0.2, "mixup + least cost": 0.9}
    named = {
        method.replace(name := method.split(" + ")[0], f"{name}{reading.SCREENED}"): (f1, f1, f1)
        for method, f1 in rows.items()
    }
    said = reading.screened_in_words(table(named))
    assert (
        "**1 of 2** were ahead" in said
        and "first focal loss (0.600)" in said
        and "last mixup (0.200)" in said
    )
    assert reading.screened_in_words(table(named)[:1]) == "There is nothing to compare."


def test_what_carries_over_needs_two_tables():
    assert "cannot be asked yet" in reading.carried_over(reading.side_by_side({}, "cross-entropy"))
    gains = pd.DataFrame({"new": [1.0, -1.0], "old": [2.0, 3.0]}, index=["a", "b"])
    assert "1 of 2 have the same sign" in reading.carried_over(gains)
    assert "**b** gains in one table and loses in another" in reading.carried_over(gains)


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.name)
def test_every_part_of_a_committed_table_is_explained(file):
    results = pd.read_csv(file)
    explained = {*reading.ideas(results)["part"]}
    for method in results["method"]:
        training, *steps = method.split(" + ")
        assert training.removesuffix(reading.SCREENED) in explained
        steps = ["ensemble" if step.startswith("ensemble of ") else step for step in steps]
        assert {f"+ {step}" for step in steps} <= explained
    assert reading.ideas(results)["part"].is_unique


def test_every_step_of_a_batch_is_explained():
    assert {*STEPS, "ensemble"} == {*reading.AFTERWARDS}


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.name)
def test_every_committed_table_can_be_read_whole_and_with_methods_missing(file):
    results = pd.read_csv(file)
    for rows in (results, results[1:], results[:1], results[results["method"] != "cross-entropy"]):
        assert len(reading.with_ranges(rows)) == len(rows)
        assert reading.findings(rows) and isinstance(reading.nearer(rows), str)
        reading.by_classifier(rows, "rarest_f1" if "rarest_f1_mean" in rows else "macro_f1")
        base = "published recipe"
        assert ("Gains larger" in reading.gains_in_words(rows, base)) == (base in {*rows["method"]})
        reading.side_by_side({"a": rows, "b": results}, "cross-entropy")


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.name)
def test_no_difference_is_never_a_negative_zero(file):
    said = reading.findings(pd.read_csv(file))
    assert "points" in said and "-0.0 " not in said
