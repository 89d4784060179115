"""The learning-rate range test, to choose max_lr by: notebook 03."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import tensorflow as tf

from utils.config import Profile
from utils.training.devices import choose_strategy
from utils.training.features import Linear, fit_classifier
from utils.training.loop import compiled
from utils.training.optimizer import sgdw
from utils.training.task import reading
from utils.training.weights import CLASSIFIER

if TYPE_CHECKING:
    from utils.sources import Data

WINDOW = 9  # steps whose mean is the smoothed loss of the middle one


@dataclass(frozen=True)
class RangeReading:
    """What a range test shows beyond the noise of its batches."""

    falls: bool  # the loss, somewhere, below that of the lowest rates
    lowest_at: float  # learning rate
    rises_from: float | None  # learning rate from which it is higher again to the end; None: it never rises


def learning_rate_range_test(
    profile: Profile,
    data: "Data",
    *,
    steps: int = 60,
    lowest: float = 1e-4,
    highest: float = 3.0,
    classifier: Linear | None = None,
) -> pd.DataFrame:
    """Train a throwaway network for a few steps with a growing learning rate, to see where the loss falls.

    A good max_lr lies where the loss still falls, somewhat below where it turns up. Nothing is written.
    Source: Smith 2017, arXiv:1506.01186.

    Args:
        profile, data: as for `train`.
        steps: batches to train; the test ends early once the loss is four times its lowest (running means).
        lowest, highest: first and last learning rate, growing by a constant factor.
        classifier: that the network begins with, where it is fitted already. A profile with a regression begins
            its gradient steps with a fitted one, and so does the test: without this it fits one.

    Returns:
        One row a step: learning_rate, loss (of the batch), smoothed_loss (mean of the nine steps around it).
    """
    strategy, _ = choose_strategy(profile.precision)
    rates, losses = [], []
    with reading(profile, data) as task:
        tf.keras.utils.set_random_seed(profile.seed)
        with strategy.scope():
            model = compiled(task, sgdw(lowest, profile.weight_decay, profile.momentum))
        if classifier is not None:
            model.take_classifier({CLASSIFIER: [classifier.kernel, classifier.bias]})
        elif profile.regression:
            fit_classifier(task, model)
        average, least = 0.0, math.inf
        for step, (images, classes) in enumerate(task.training(0).repeat().take(steps)):
            rates.append(lowest * (highest / lowest) ** (step / max(steps - 1, 1)))
            tf.keras.backend.set_value(model.optimizer.learning_rate, rates[-1])
            losses.append(float(model.train_on_batch(images, classes, return_dict=True)["loss"]))
            average = 0.9 * average + 0.1 * losses[-1]
            running = average / (1 - 0.9 ** (step + 1))
            least = min(least, running)
            if not math.isfinite(losses[-1]) or running > 4 * least:
                break
    table = pd.DataFrame({"learning_rate": rates, "loss": losses})
    smoothed = table["loss"].rolling(WINDOW, center=True, min_periods=WINDOW // 2 + 1).mean()
    return table.assign(smoothed_loss=smoothed.fillna(table["loss"]))


def read_range(table: pd.DataFrame) -> RangeReading:
    """What the smoothed loss of a range test tells; differences within the noise of the batches tell nothing.

    The noise is taken from the differences of neighbouring batches before the lowest loss, by their median.
    """
    rates, loss = table["learning_rate"].to_numpy(), table["smoothed_loss"].to_numpy()
    lowest = int(np.nanargmin(loss))
    jumps = np.abs(np.diff(table["loss"].iloc[: max(lowest + 1, len(table) // 3)]))
    of_a_batch = float(np.nanmedian(jumps)) / 0.95 if len(jumps) else 0.0  # 0.95: of normal noise, to its SD
    # three standard deviations of the difference of two means of nine
    noise = max(3 * of_a_batch * math.sqrt(2 / WINDOW), 0.02 * float(loss[lowest]))
    level = loss <= loss[lowest] + noise  # not where it is nan
    last = int(np.flatnonzero(level)[-1])
    return RangeReading(
        falls=bool(loss[0] > loss[lowest] + noise),
        lowest_at=float(rates[lowest]),
        rises_from=float(rates[last + 1]) if last + 1 < len(rates) else None,
    )
