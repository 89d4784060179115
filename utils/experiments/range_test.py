"""The learning-rate range test, to choose max_lr by: notebook 03."""

import math
from typing import TYPE_CHECKING

import pandas as pd
import tensorflow as tf

from utils.config import Profile
from utils.training.devices import choose_strategy
from utils.training.loop import compiled
from utils.training.optimizer import sgdw
from utils.training.task import reading

if TYPE_CHECKING:
    from utils.sources import Data


def learning_rate_range_test(
    profile: Profile, data: "Data", *, steps: int = 40, lowest: float = 1e-3, highest: float = 1.0
) -> pd.DataFrame:
    """Train a throwaway network for a few steps with a growing learning rate, to see where the loss falls.

    A good max_lr lies where the loss still falls, somewhat below where it turns up. Nothing is written.
    Source: Smith 2017, arXiv:1506.01186.

    Args:
        profile, data: as for `train`.
        steps: batches to train; the test ends early once the smoothed loss is four times its lowest.
        lowest, highest: first and last learning rate, growing by a constant factor.

    Returns:
        One row a step: learning_rate, loss (of the batch), smoothed_loss (bias-corrected moving average,
        0.9).
    """
    strategy, _ = choose_strategy(profile.precision)
    rows: list[dict[str, float]] = []
    with reading(profile, data) as task:
        tf.keras.utils.set_random_seed(profile.seed)
        with strategy.scope():
            model = compiled(task, sgdw(lowest, profile.weight_decay, profile.momentum))
        average = 0.0
        batches = task.training(0).repeat().take(steps)
        for step, (images, classes) in enumerate(batches):
            rate = lowest * (highest / lowest) ** (step / max(steps - 1, 1))
            tf.keras.backend.set_value(model.optimizer.learning_rate, rate)
            loss = float(model.train_on_batch(images, classes, return_dict=True)["loss"])
            average = 0.9 * average + 0.1 * loss
            rows.append(
                {"learning_rate": rate, "loss": loss, "smoothed_loss": average / (1 - 0.9 ** (step + 1))}
            )
            if not math.isfinite(loss) or rows[-1]["smoothed_loss"] > 4 * min(
                row["smoothed_loss"] for row in rows
            ):
                break
    return pd.DataFrame(rows)
