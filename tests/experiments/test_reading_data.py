"""What is said after the figures and tables of notebooks 00 to 02: made of their numbers, true for each outcome."""

import numpy as np
import pandas as pd
import pytest

from utils.config import load_profile
from utils.data.metadata import PUBLISHED_FAMILIES
from utils.data.tail import class_weights
from utils.experiments import reading_data as reading

LONG = np.repeat([80, 70, 30, 10, 5], [8, 4, 4, 3, 1])
FLAT = np.full(10, 30)
TREE = np.array([[0, 40, 200, 200], [40, 0, 200, 200], [200, 200, 0, 60], [200, 200, 60, 0]], float)
NONE_KNOWN = np.full((4, 4), np.nan)


def kin(near: float, far: float) -> pd.DataFrame:
    pairs = ["of one genus", "of different families"]
    return pd.DataFrame({"pair": pairs, "pairs": [4, 1000], "same": [near, far]})


def steps(*losses: float) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(losses)), "loss": losses})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (reading.kinship(kin(0.6, 0.1)), "**60%** of 4 pairs of one genus, **10%** of 1,000 pairs of different"),
        (reading.kinship(kin(0.6, 0.1)), "relatives look alike more often than strangers"),
        (reading.kinship(kin(0.1, 0.2)), "kinship does not show"),
        (reading.descent(steps(9, 3, 0.5), 0.2), "from 9.00 to **0.50** in 2 steps. The slope is steep at first"),
        (reading.descent(steps(9, 12, 18), 1.1), "the rate is too high"),
        (reading.gaps(np.array([0, 2, 3, 3])), "agree for 2 of 4 species"),
        (reading.parts_of_the_score({80: 6, 30: 2, 5: 2}), "**60%** of the species"),
        (reading.parts_of_the_score({80: 6, 30: 2, 5: 2}), "**20%** of the species and only **2%** of the images"),
        (reading.middle(np.array([5, 60, 70, 70])), "The mean is lower, since few rare species pull it down"),
        (reading.middle(np.array([5, 5, 6, 90])), "The mean is higher, since few common species pull it up"),
        (reading.middle(FLAT), "The two are close"),
        (reading.shape(LONG), "**nearly flat**: half of the species have 70 images or more, the commonest 80"),
        (reading.shape(np.array([90, 10, 9, 8])), "**falling steeply**"),
        (reading.weight_of_the_tail({"tail species": 0.2, "tail images": 0.05}), "about **4.0 times** as much"),
        (reading.weight_of_the_tail({"tail species": 0.0, "tail images": 0.0}), "no tail here"),
        (reading.parts(LONG), "higher one for head, the left one for medium and tail"),
        (reading.parts(FLAT), "nothing is rare here"),
        (reading.inequality(LONG), "not very unequal"),
        (reading.inequality(np.array([100, 1, 1, 1, 1])), "far from equal"),
        (reading.genera(["Poa", "Poa", "Rosa"]), "1 of 2 genera have one species"),
        (reading.genera(["Poa", "Poa", "Rosa"]), "No genus has more than 20 species; the largest has 2"),
        (reading.genera(["Poa"] * 30 + ["Rosa"] * 10), "**75% of the species** stand in the 1 genera"),
        (reading.institutions(pd.Series({"NY": 60, "US": 40}), True), "largest of 2 institutions sent 60%"),
        (reading.institutions(pd.Series({"NY": 60, "US": 40}), True), "by chance"),
        (reading.distances(TREE, ["A", "A", "B", "B"], True), "50 million years or less apart, half of the others 200"),
        (reading.distances(TREE, ["A", "A", "B", "B"], True), "is the smaller one. The tree is **simulated**"),
        (reading.distances(TREE, ["A", "B", "A", "B"], False), "is no smaller one."),
        (reading.distances(NONE_KNOWN, ["A", "A", "B", "B"], False), "nothing can be compared"),
        (reading.blocks(True), "**simulated**"),
        (reading.ends([80, 70], [7, 5]), "For 80 sheets of a common species on the left the network sees 5"),
        (reading.ends([30, 30], [29, 28]), "no tail: from 28 to 30"),
        (reading.loader_speed({"decode": 100.0, "training batches": 150.0}, 2, 96), "**1.5 times**"),
        (reading.loader_speed({"decode": 100.0, "training batches": 150.0}, 2, 96), "decoded at 1/2 of their size"),
        (reading.loader_speed({"decode": 100.0, "training batches": 90.0}, 1, 384), "at 384 pixels they are decoded"),
    ],
)  # fmt: skip
def test_words_say_what_the_numbers_are(said, words):
    assert words in said


@pytest.mark.parametrize(
    "said",
    [
        reading.distances(TREE, ["A", "A", "B", "B"], False),
        reading.institutions(pd.Series({"NY": 60, "US": 40}), False),
        reading.blocks(False),
        reading.families(PUBLISHED_FAMILIES, False),
    ],
)
def test_real_data_are_not_called_generated(said):
    assert not any(word in said for word in ("simulated", "by chance", "generator"))


def test_families_are_held_against_the_published_ones():
    assert "agree with the published ones. They were **put in**" in reading.families(PUBLISHED_FAMILIES, True)
    others = PUBLISHED_FAMILIES.assign(species=PUBLISHED_FAMILIES["species"] + 1)
    assert "differ from the published ones" in reading.families(others, False)


def test_two_ways_to_name_the_same_sheets_are_compared():
    def table(right: list, f1: list) -> pd.DataFrame:
        return pd.DataFrame({"sheets": [8, 1, 1], "right": right, "F1": f1})

    lazy, fair = table([8, 0, 0], [0.9, 0, 0]), table([6, 1, 1], [0.9, 0.5, 1])
    said = reading.two_classifiers({"Lazy": lazy, "Fair": fair})
    assert "Lazy: accuracy **0.80**, macro-F1 **0.30**, the mean of 0.90, 0.00, 0.00" in said
    assert "Fair: accuracy **0.80**, macro-F1 **0.80**" in said


def test_images_are_worth_less_the_more_there_are():
    table = pd.DataFrame(
        {"images": [5, 80], "worth with N = 10": [4.0, 10.0], "worth with N = 100": [5.0, 55.0]}
    )
    assert "16 times 5" in reading.effective(table)
    assert "N = 10: 2.5 times; N = 100: 11.0 times" in reading.effective(table)


@pytest.mark.parametrize(("n", "verdict"), [(10, "nearly flat"), (1000, "not flat here")])
def test_class_weights_are_called_flat_where_they_are(n, verdict):
    counts = np.array([80, 80, 70, 30, 5])
    balanced = class_weights(counts, "class_balanced", n=n)
    weights = {"inverse frequency": class_weights(counts, "inverse"), "class-balanced, N = 10": balanced}
    said = reading.flat_weights(weights, counts)
    assert f"these weights are {verdict}" in said and "would give it 16 times" in said


def shard(*features: str) -> dict:
    return {"schema": dict.fromkeys(features, "int64"), "image_sizes": {"480x480": 3}, "records": 3}


def test_shards_that_differ_in_their_features_are_told_apart():
    assert "All have the same features" in reading.shards([shard("image"), shard("image")])
    said = reading.shards([shard("image", "family", "genus"), shard("image")])
    assert "6 records in 2 files" in said and "They differ in `family`, `genus`" in said
    assert "of one kind" not in said
    test = shard("image") | {"schema": {"image": "bytes"}}
    assert "`image` is bytes or int64" in reading.shards([shard("image"), test])


def test_a_batch_is_read_against_all_training_sheets():
    said = reading.batch(np.array([0, 0, 1, 2]), np.array([80, 70, 10]))
    assert said.startswith("4 sheets of 3 species") and "a rare species is seldom in a batch: 25% of" in said
    assert "nearly all tail" in reading.batch(np.array([0, 1]), np.array([10, 5]))


def test_views_that_are_all_one_picture_are_called_so():
    profile = load_profile("laptop")
    assert "11 of 11 epochs show another picture" in reading.views(profile, 11, 11)
    assert "changes nothing" in reading.views(profile, 1, 11)
