"""Devices: what is chosen on a machine without a GPU, and what is refused there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from utils.errors import InputError
from utils.paths import REPOSITORY
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


# Two virtual CPUs stand in for T4 x2; the script replaces the choice of devices and nothing else.
ON_TWO_DEVICES = """
import json, sys
from pathlib import Path
import utils
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import tiny
from utils.paths import find_data
from utils.training import backbone, loop


def network(*arguments):
    with backbone._precision("mixed_float16"):
        model = tiny.tiny_network(*arguments)
    logits = tf.keras.layers.Activation("linear", dtype="float32")(model.output)
    half = tf.keras.Model(model.input, logits, name="Half")
    half._set_dtype_policy("mixed_float16")
    half.rescale_mode, half.noise_clock = model.rescale_mode, model.noise_clock
    return half


backbone._network = network
loop.choose_strategy = lambda precision: (tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), "two devices")
compiled, optimizers = loop._compiled, []


def keep(*arguments):
    model = compiled(*arguments)
    optimizers.append(model.optimizer)
    return model


loop._compiled = keep
data, out = sys.argv[1], Path(sys.argv[2])
profile = tiny.tiny_profile(2)
loop.train(profile, find_data(profile, data), out, progress=False, stop_after=1)
result = loop.train(profile, find_data(profile, data), out, progress=False)
last = optimizers[-1]
tested = loop.learning_rate_range_test(profile, find_data(profile, data), steps=4, highest=0.1)
print(json.dumps({
    "optimizer": type(last).__mro__[1].__name__ + " " + type(last).__name__,
    "inner": type(last.inner_optimizer).__name__,
    "scale": float(last.loss_scale),
    "iterations": int(last.iterations.numpy()),
    "steps": loop._task(profile, find_data(profile, data)).steps,
    "range_test": tested["learning_rate"].tolist(),
    "history": result.history.to_dict("list"),
}))
"""


@pytest.mark.long
def test_mirrored_mixed_float16_trains_with_loss_scaling_and_resumes(
    sample_flora: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(sample_flora), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{REPOSITORY}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert "LossScaleOptimizer" in told["optimizer"] and told["inner"] == "SGDW" and told["scale"] > 1
    assert told["history"]["epoch"] == [1, 2]
    assert all(0 < loss < 10 for loss in told["history"]["loss"] + told["history"]["val_loss"])
    assert told["range_test"][0] == pytest.approx(1e-3) and told["range_test"][-1] == pytest.approx(0.1)
    # the second call went on counting; a step whose gradients overflow is skipped and not counted
    assert told["steps"] < told["iterations"] <= 2 * told["steps"]
