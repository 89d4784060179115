"""Devices: what is chosen on a machine without a GPU, and what is refused there."""

import pytest
import tensorflow as tf

from utils.errors import InputError
from utils.training.strategy import choose_strategy

without_gpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU"
)


@without_gpu
def test_cpu_takes_the_default_strategy_and_says_so_in_one_line() -> None:
    strategy, line = choose_strategy()
    assert strategy is tf.distribute.get_strategy()
    assert "CPU" in line and "1 replica" in line and "float32" in line and "\n" not in line


@without_gpu
def test_mixed_float16_without_a_gpu_names_the_menu_entry_and_the_profile() -> None:
    with pytest.raises(InputError, match=r"Settings > Accelerator > GPU T4 x2.*PROFILE = \"smoke\""):
        choose_strategy("mixed_float16")


def test_several_gpus_are_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"] if kind == "GPU" else [])
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: tf.distribute.get_strategy())
    assert "Mirrored over 2 GPUs" in choose_strategy("mixed_float16")[1]
