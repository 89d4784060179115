"""The one-cycle schedule against the published figures and a computation in numpy."""

import numpy as np
import pytest
import tensorflow as tf

from utils.config import load_profile
from utils.training.optimizer import OneCycle, make_schedule


def test_reference_profile_has_the_published_cycle() -> None:
    profile = load_profile("reference")
    schedule = make_schedule(profile, profile.steps_per_epoch)
    assert schedule.cycle_steps == 49_230
    assert float(schedule(0)) == pytest.approx(0.007)
    assert float(schedule(49_230 * 0.2)) == pytest.approx(0.7)
    assert float(schedule(49_230)) == pytest.approx(0.00007, rel=1e-3)
    assert float(schedule(60_000)) == float(schedule(49_230))


def test_both_arcs_are_half_cosines() -> None:
    schedule = OneCycle(0.5, 100, initial_lr_scale=0.1, final_lr_scale=0.2, warmup_fraction=0.3)
    steps = np.arange(101)
    up = 0.05 + 0.45 * (1 - np.cos(np.pi * steps / 30)) / 2
    down = 0.01 + 0.49 * (1 + np.cos(np.pi * (steps - 30) / 70)) / 2
    expected = np.where(steps < 30, up, down)
    np.testing.assert_allclose([float(schedule(step)) for step in steps], expected, rtol=2e-5)


def test_a_saved_schedule_is_the_same_schedule() -> None:
    schedule = OneCycle(0.3, 77, initial_lr_scale=0.2, final_lr_scale=0.003, warmup_fraction=0.45)
    config = tf.keras.optimizers.schedules.serialize(schedule)
    again = tf.keras.optimizers.schedules.deserialize(config)
    assert isinstance(again, OneCycle)
    assert again.get_config() == schedule.get_config()
    assert [float(again(step)) for step in (0, 20, 60, 77)] == [float(schedule(s)) for s in (0, 20, 60, 77)]
