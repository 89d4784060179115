"""The clean start: exactly the known messages are held back, everything else comes through."""

# ruff: noqa: E501 (the messages are TensorFlow's)
import importlib
import os
import re
import subprocess
import sys

import pytest
from disks import fill, make_read_only, small_disk

import utils
from utils import startup
from utils.files import REPOSITORY, InputError
from utils.startup import holding, is_noise, quiet_start, standard_error_to

KNOWN = """\
2026-11-23 20:13:34.387589: I external/local_tsl/tsl/cuda/cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.
2026-11-23 20:13:34.628788: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when one has already been registered
E0000 00:00:1763929614.628837    1234 cuda_blas.cc:1515] Unable to register cuBLAS factory: Attempting to register factory for plugin cuBLAS when one has already been registered
W0000 00:00:1763929614.628837    1234 computation_placer.cc:177] computation placer already registered. Please check linkage and avoid linking the same target more than once.
2026-11-23 20:13:34.685133: I tensorflow/core/platform/cpu_feature_guard.cc:182] This TensorFlow binary is optimized to use available CPU instructions in performance-critical operations.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate compiler flags.
2026-11-23 20:13:40.337933: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT Warning: Could not find TensorRT
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
2026-11-23 20:14:06.850463: E external/local_xla/xla/stream_executor/cuda/cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)
""".splitlines()


@pytest.mark.parametrize("line", KNOWN, ids=range(len(KNOWN)))
def test_known_messages_are_noise_and_no_others(line):
    assert is_noise(line)
    assert not is_noise(line + " Something new.")
    assert not is_noise("Something new. " + line)


@pytest.mark.parametrize(
    "line", ["Traceback", "failed call to cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)", ""]
)
def test_unknown_lines_are_not_noise(line):
    assert not is_noise(line)


def test_unknown_lines_come_through_in_order_also_when_the_block_fails(capfd):
    with pytest.raises(KeyError), quiet_start():
        os.write(2, f"first\n{KNOWN[0]}\n".encode())
        print("second", file=sys.__stderr__, flush=True)
        raise KeyError
    os.write(2, b"after\n")
    error = capfd.readouterr().err
    assert [line for line in error.splitlines() if line in ("first", "second", "after")] == error.splitlines()
    assert "first" in error and "after" in error and KNOWN[0] not in error


def test_standard_error_comes_back_from_a_file_also_when_the_block_fails(capfd, tmp_path):
    with (tmp_path / "log").open("wb") as log, pytest.raises(KeyError), standard_error_to(log):
        os.write(2, b"of C++\n")
        subprocess.run([sys.executable, "-c", "import sys; sys.exit('of a program')"])
        raise KeyError
    os.write(2, b"after\n")
    assert (tmp_path / "log").read_text() == "of C++\nof a program\n"
    assert capfd.readouterr().err == "after\n"


SETTINGS = '{"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1, "backend": "theano"}'
KERAS = """
import tensorflow as tf
assert tf.keras.Model.__module__.endswith("src.engine.training"), "Keras 3"
backend = tf.keras.backend
assert (backend.image_data_format(), backend.floatx(), backend.epsilon()) == {wanted}
"""
WANTED = KERAS.replace("{wanted}", "('channels_last', 'float32', 1e-7)")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a keras.json of old, and Keras' variables set otherwise than the course needs."""
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(SETTINGS)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / ".keras"))
    return tmp_path


def python(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# Keras stops with an AttributeError at the second.
@pytest.mark.parametrize("content", [SETTINGS, "[1]"], ids=["old", "damaged"])
def test_a_keras_json_of_the_user_is_neither_read_nor_changed(home, content, monkeypatch):
    (home / ".keras" / "keras.json").write_text(content)
    other = "0" if os.environ.get("TF_USE_LEGACY_KERAS") else "1"  # the value for the other stack
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", other)
    python("import utils" + WANTED)
    assert [path.name for path in (home / ".keras").iterdir()] == ["keras.json"]
    assert (home / ".keras" / "keras.json").read_text() == content


def test_a_keras_that_was_loaded_before_gets_the_settings_of_the_course(home):
    before = KERAS.replace("{wanted}", "('channels_first', 'float16', 0.1)")
    python(before + "from utils.startup import import_tensorflow; import_tensorflow()" + WANTED)


@pytest.mark.parametrize(("version", "variable"), [("2.15.1", "1"), ("2.20.0", "0")])
def test_tensorflow_imported_with_another_keras_is_refused(version, variable, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", variable)
    with pytest.raises(RuntimeError, match="Restart the kernel"):
        importlib.reload(utils)
    assert os.environ["TF_USE_LEGACY_KERAS"] == variable


def test_the_first_cell_is_clean(home):
    script = (
        "from utils.startup import start_notebook; start_notebook()\n"
        "from utils.training.optimizer import sgdw_class; sgdw_class()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr == "" and done.returncode == 0
    versions, python, devices = done.stdout.splitlines()
    assert versions.startswith("herbarium course") and "TensorFlow 2." in python and "CPU cores" in devices


def test_the_commit_is_that_of_the_file_where_there_is_one(tmp_path, monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{7,}\+?|", startup.commit_of_package())
    (tmp_path / "COMMIT").write_text("1a2b3c4\n")
    monkeypatch.setattr(startup, "COMMIT", tmp_path / "COMMIT")
    assert startup.commit_of_package() == "1a2b3c4"


def test_the_library_is_taken_from_the_wheel_beside_the_package_only_where_it_is_not_installed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(startup, "REPOSITORY", tmp_path)
    startup.find_shipped_wheel()  # installed here: nothing is looked for
    monkeypatch.setattr(startup.util, "find_spec", lambda name: None)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    with pytest.raises(InputError, match=r"no wheel of it.*Add Input > Your Work > Datasets"):
        startup.find_shipped_wheel()
    wheel = tmp_path / "keras_efficientnet_v2-1.2.2-py3-none-any.whl"
    wheel.touch()
    monkeypatch.setattr(sys, "path", [])
    startup.find_shipped_wheel()
    assert sys.path == [str(wheel)]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is on Linux")
def test_threads_share_a_few_heaps():
    code = """
import ctypes, sys, threading
import utils
from utils import startup
if sys.argv[1] == "limited":
    startup.limit_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
count = int(sys.argv[2])
barrier = threading.Barrier(count)
def work():
    libc.malloc(ctypes.c_size_t(1000))
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(count)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""

    least = max(2, os.cpu_count())
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}

    def heaps(how: str) -> int:
        command = [sys.executable, "-c", code, how, str(4 * least)]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return run.stdout.count("<heap nr=")

    assert heaps("as it is") > least >= heaps("limited")


@pytest.mark.parametrize(
    ("spoil", "reason", "way_out"),
    [
        (fill, "No space left on device", "Make room or name another place"),
        (make_read_only, "Read-only file system", "Name another place"),
    ],
)
def test_a_place_that_cannot_be_held_is_named_with_the_reason(tmp_path, spoil, reason, way_out):
    disk = tmp_path / "small"
    with small_disk(disk, 64):
        spoil(disk)
        with (
            pytest.raises(
                InputError, match=rf"/small: cannot be written \({reason}\).* is\. {way_out}; then"
            ),
            holding(disk),
        ):
            pytest.fail("it is not held")
        assert not (disk / ".lock").exists()


def test_a_lock_that_nobody_holds_any_more_is_taken(tmp_path):
    (tmp_path / ".lock").write_text("process 1 of another-machine since 2026-01-01 00:00:00 (train)" * 9)
    with holding(tmp_path), pytest.raises(InputError) as told, holding(tmp_path):
        pytest.fail("it is held twice")
    assert f"process {os.getpid()} of" in str(told.value) and "another-machine" not in str(told.value)
    assert not (tmp_path / ".lock").exists()


def test_a_lock_that_was_removed_by_hand_is_not_taken_from_the_next_one(tmp_path):
    lock = tmp_path / ".lock"
    with holding(tmp_path):
        lock.unlink()  # as the message says for a process that is not at work any more
        second = holding(tmp_path)
        second.__enter__()
    assert lock.exists()
    with pytest.raises(InputError, match="works on it"), holding(tmp_path):
        pass
    second.__exit__(None, None, None)
    assert not lock.exists()
