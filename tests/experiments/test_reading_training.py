"""What is said after the figures and tables of notebook 03: made of their numbers, true for each outcome."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from utils.config import load_profile
from utils.experiments import reading_training as reading
from utils.experiments.range_test import RangeReading
from utils.experiments.start import Start, few_sheets
from utils.files import REPOSITORY
from utils.training.features import Features, Linear
from utils.training.loop import TrainResult

LAPTOP, SCRATCH, SMOKE = (load_profile(name) for name in ("laptop", "scratch", "smoke"))
RATES = pd.DataFrame({"learning_rate": [1e-4, 1.0]})


def result(*f1: float, training: float = 0.9) -> TrainResult:
    """A run whose epochs scored so on held-out sheets, and in training all the same."""
    columns = {"loss": 1.0, "f1_score": training, "time": 9.0, "learning_rate": 0.01, "val_loss": 1.0}
    history = pd.DataFrame(
        {"epoch": range(1, len(f1) + 1), "val_f1_score": f1, "val_accuracy": f1, **columns}
    )
    best = len(f1) if math.isnan(f1[0]) else int(np.argmax(f1)) + 1
    return TrainResult("run", Path(), history, best, f1[best - 1], Path(), True)


def start(score: float) -> Start:
    features = Features(np.zeros((3, 2), np.float32), np.arange(3, dtype=np.int32))
    linear = Linear(np.zeros((2, 3), np.float32), np.zeros(3, np.float32))
    return Start(features, features, linear, score, 7.0)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (reading.settings(LAPTOP), "`weights: imagenet`"),
        (reading.settings(SMOKE), "label smoothing off"),
        (reading.head_of_network(51_240, 3_464_264, 40), "**1%** of all parameters, with 40 species"),
        (reading.head_of_network(10_248, 5_929_560, 8), "**less than 1%** of all parameters"),
        (reading.smoothing(LAPTOP, 40), "With 0.1 and 40 species the right one is wanted with 0.9025 and every other"),
        (reading.smoothing(SMOKE, 8), "This profile leaves it off"),
        (reading.start_of(LAPTOP, 1173, True), "starts from **ImageNet** weights, and the next cells look"),
        (reading.start_of(SCRATCH, 1173, False), "starts from **random weights**"),
        (reading.start_of(load_profile("kaggle"), 800_000, False), "with 800,000 sheets they are left out"),
        (reading.regression(start(0.766), LAPTOP), "**0.766** after 7 seconds, from 2 features"),
        (reading.regression(start(math.nan), LAPTOP), "no score"),
        (reading.schedule(LAPTOP, 73), "365 steps in all: 73 an epoch, 5 epochs. The peak comes after 12%"),
        (reading.schedule(SMOKE, 5), "one epoch. The peak"),
        (reading.schedule(SMOKE, 5), "by less than 0.1% over"),
        (reading.schedule(load_profile("sheets"), 5), "takes no gradient step"),
        (reading.range_test(LAPTOP, RATES, RangeReading(True, 0.064, 0.15)), "from **0.15** on it rose, in 2 steps"),
        (reading.range_test(LAPTOP, RATES, RangeReading(True, 0.064, 0.15)), "0.02, lies below that"),
        (reading.range_test(LAPTOP, RATES, RangeReading(True, 0.001, 0.01)), "0.02, does not lie below that"),
        (reading.range_test(LAPTOP, RATES, RangeReading(False, 0.001, None)), "fell at no rate by more than the noise"),
        (reading.range_test(LAPTOP, RATES, RangeReading(False, 0.001, None)), "rose at no rate up to 1"),
        (reading.plan(LAPTOP), "the first epoch fits the head by regression, without a step; the first 4 stages"),
        (reading.plan(SCRATCH), "all layers learn from the first step on; the loss is `cross_entropy`"),
        (reading.best_epoch(result(0.7, 0.8, 0.75), SCRATCH), "best epoch is **2** with held-out macro-F1 **0.800**"),
        (reading.best_epoch(result(0.7, 0.8), SCRATCH), "0.10 more, so it knows these images better than new ones"),
        (reading.best_epoch(result(0.88), SCRATCH), "the two are close"),
        (reading.best_epoch(result(0.9, training=0.5), SCRATCH), "0.40 less"),
        (reading.best_epoch(result(0.04, training=0.1), SMOKE), "neither has learnt much yet"),
        (reading.best_epoch(result(0.8), LAPTOP), "was fitted to these very images"),
        (reading.best_epoch(result(0.81, 0.71, 0.85), LAPTOP), "0.10 on the held-out ones, and smaller ones won"),
        (reading.best_epoch(result(0.81, 0.71), LAPTOP), "cost 0.10 on the held-out ones, and later ones won less"),
        (reading.best_epoch(result(math.nan), SCRATCH), "nothing tells how good"),
        (reading.worth(SCRATCH, result(0.7), None, None), "Only one network was trained here, from random weights"),
        (reading.worth(LAPTOP, result(0.85), result(0.4, 0.41), start(0.77)), "reaches **0.410** in 2 epochs"),
        (reading.worth(LAPTOP, result(0.85), result(0.4), start(0.77)), "fine-tuning makes +0.080."),
        (reading.worth(LAPTOP, result(0.75), result(0.4), start(0.77)), "a plain classifier were enough"),
        (reading.worth(LAPTOP, result(0.81, 0.71, 0.85), result(0.4), start(0.77)), "over that the steps make +0.040"),
        (reading.worth(LAPTOP, result(0.81, 0.71), result(0.4), start(0.77)), "the steps make nothing"),
        (reading.worth(LAPTOP, result(math.nan), result(math.nan), start(math.nan)), "cannot be compared"),
        (reading.history(result(0.7, 0.8)), "Epoch 2: training loss 1.000"),
        (reading.history(result(math.nan)), "no held-out score"),
    ],
)  # fmt: skip
def test_words_say_what_the_numbers_are(said, words):
    assert words in said


def test_a_step_is_told_by_its_losses():
    table = pd.DataFrame({"probability": [0.75, 0.25], "probability after": [0.5, 0.5]}, index=["A", "B"])
    said = reading.step_by_hand(table, "B")
    assert (
        f"−log 0.25 = **{math.log(4):.2f}**" in said
        and f"is now 0.50, the loss **{math.log(2):.2f}**" in said
    )


def test_balanced_softmax_is_told_by_the_commonest_and_the_rarest():
    columns = {"sheets": [80, 20], "softmax": [0.5, 0.5], "balanced softmax": [0.8, 0.2]}
    said = reading.head_start(pd.DataFrame(columns))
    assert "with 80 sheets counts as probable with 0.80 and the one with 20 with 0.20" in said


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.5, "puts relatives side by side"), (0.11, "hardly more related")]
)
def test_neighbours_are_held_against_chance(share, verdict):
    table = pd.DataFrame({"rank": ["species"], "share": [share], "chance": [0.1]})
    said = reading.kin(table, 160)
    assert f"**{share:.0%}** are of the same species (10% by chance)" in said
    assert verdict.replace("puts", "put") in said


def rows(frozen: tuple, tuned: tuple, nothing: tuple) -> pd.DataFrame:
    of = [("pretrained", seed, frozen) for seed in (0, 1)]
    of += [("fine-tuned", 0, tuned), ("random", 0, nothing)]
    return pd.DataFrame(
        [
            {"start": name, "images": images, "seed": seed, "macro_f1": score + seed / 10}
            for name, seed, scores in of
            for images, score in zip((2, 20), scores, strict=True)
        ]
    )


def test_few_sheets_are_means_over_the_draws_with_their_range():
    table = few_sheets(rows((0.7, 0.8), (0.4, 0.9), (0.2, 0.6)))
    assert table["images of a species"].tolist() == [2, 20]
    columns = ["frozen features", "lowest", "highest", "fine-tuned", "from nothing"]
    assert table.iloc[0][columns].tolist() == pytest.approx([0.75, 0.7, 0.8, 0.4, 0.2])


@pytest.mark.parametrize(
    ("tuned", "nothing", "words"),
    [
        (
            (0.6, 0.95),
            (0.2, 0.6),
            "even those stay below what 2 give to frozen features. Fine-tuning is ahead of",
        ),
        (
            (0.6, 0.95),
            (0.2, 0.9),
            "comes to 0.20 and 0.90. Fine-tuning is ahead of every draw from **20 images",
        ),
        ((0.9, 0.95), (0.2, 0.6), "from **2 images of a species** on (0.900, the best draw 0.800)"),
        ((0.9, 0.85), (0.2, 0.6), "At 20 fine-tuning (0.850) lies among the draws"),
        (
            (0.6, 0.7),
            (0.2, 0.6),
            "From 2 on fine-tuning lies below every draw (0.600, the lowest draw 0.700)",
        ),
    ],
)
def test_few_sheets_say_where_fine_tuning_is_ahead_for_good(tuned, nothing, words):
    assert words in reading.few_sheets(few_sheets(rows((0.7, 0.8), tuned, nothing)))


def test_few_sheets_go_without_a_training_from_nothing():
    results = rows((0.7, 0.8), (0.6, 0.95), (0.2, 0.6))
    said = reading.few_sheets(few_sheets(results[results["start"] != "random"]))
    assert "nothing" not in said and "with 20 0.85. Fine-tuning is ahead" in said


def test_the_table_of_few_sheets_has_the_figures_of_the_readme():
    table = few_sheets(pd.read_csv(REPOSITORY / "notebooks" / "results" / "few_sheets.csv"))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    frozen = " | ".join(f"{row[2]:.2f} ({row[3]:.2f} to {row[4]:.2f})" for row in table.itertuples(name=None))
    assert f"| profile `sheets`, macro-F1 | {frozen} |" in readme
    nothing = " | ".join(f"{value:.2f}" for value in table["from nothing"])
    assert f"| EfficientNetV2B0 from nothing, macro-F1 | {nothing} |" in readme
    tuned = " | ".join(f"{value:.2f}" for value in table["fine-tuned"])
    assert f"| profile `laptop`, fine-tuned, macro-F1 | {tuned} |" in readme
