"""A clean start and end: TensorFlow without its known noise, a notebook's first lines, who holds an output."""

import contextlib
import ctypes
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import utils
from utils.files import REPOSITORY, InputError, InputWarning, UsageError, attach, cores, on_kaggle, printable

STARTED = time.time()  # of this notebook: its first cell imports this module
# In the data set that `kaggle build` makes, where there is no git.
COMMIT = Path(utils.__file__).parent / "COMMIT"

# "2026-11-23 20:13:34.387589: I path/file.cc:31] " or "E0000 00:00:1763929614.387   1234 path/file.cc:31] "
_PREFIX = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] |[IWE]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ )\S+\.cc:\d+\] "
_KNOWN = [
    _PREFIX + r"Could not find cuda drivers on your machine, GPU will not be used\.",
    _PREFIX + r"Unable to register (cuDNN|cuFFT|cuBLAS) factory: Attempting to register factory for plugin "
    r"(cuDNN|cuFFT|cuBLAS) when one has already been registered",
    _PREFIX + r"computation placer already registered\. Please check linkage and avoid linking the same "
    r"target more than once\.",
    _PREFIX + r"This TensorFlow binary is optimized to use available CPU instructions in "
    r"performance-critical operations\.",
    r"To enable the following instructions: [\w. ]+, in other operations, rebuild TensorFlow with the "
    r"appropriate compiler flags\.",
    _PREFIX + r"TF-TRT Warning: Could not find TensorRT",
    # 303: there is no CUDA driver at all; any other number tells of a driver that does not work, and is shown
    _PREFIX + r"failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR \(303\)",
    _PREFIX + r"oneDNN custom operations are on\. You may see slightly different numerical results due to "
    r"floating-point round-off errors from different computation orders\. To turn them off, set the "
    r"environment variable `TF_ENABLE_ONEDNN_OPTS=0`\.",
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
]
_NOISE = re.compile("|".join(f"(?:{known})" for known in _KNOWN))
_ADDONS_END_OF_LIFE = r"\s*TensorFlow Addons \(TFA\) has ended development"


def is_noise(line: str) -> bool:
    """Whether a line is one of the messages that TensorFlow is known to print at every start."""
    return _NOISE.fullmatch(line.strip()) is not None


@contextmanager
def standard_error_to(file: IO[bytes]) -> Iterator[None]:
    """Let what the block writes to standard error go to an open file; afterwards it goes where it went before.

    It works on file descriptor 2, since TensorFlow, libjpeg and the programs that are started do not use Python's
    sys.stderr. The descriptor is the whole process': what other threads write meanwhile goes to the file too.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hold back what the block writes to standard error, then write it without the known noise.

    Lines that are not known come through, in order, when the block ends or raises.
    """
    with tempfile.TemporaryFile() as held:
        try:
            with standard_error_to(held):
                yield
        finally:
            held.seek(0)
            text = held.read().decode("utf-8", errors="replace")
            sys.stderr.write("".join(line for line in text.splitlines(keepends=True) if not is_noise(line)))
            sys.stderr.flush()


_PRINTING = threading.Lock()


@contextmanager
def printed(pattern: re.Pattern[bytes]) -> Iterator[list[str]]:
    """What a library says on file descriptor 2, which is the whole process's: one thread at a time.

    Yields a list that gets the lines that match when the block is left; what others print meanwhile appears then.
    """
    said: list[str] = []
    with _PRINTING, tempfile.TemporaryFile() as file:
        try:
            with standard_error_to(file):
                yield said
        finally:
            file.seek(0)
            lines = file.read()
            said += [line[0].decode(errors="replace").strip() for line in pattern.finditer(lines)]
            if others := pattern.sub(b"", lines):
                os.write(2, others)


def import_tensorflow() -> ModuleType:
    """Import TensorFlow and Keras and look for devices, without the known start-up noise.

    tensorflow-addons' end-of-life warning is filtered for the whole process: it comes later, with addons' import.

    Returns:
        The module `tensorflow`.
    """
    # Notes of TensorFlow's C++ part (level I) come in the midst of a notebook; warnings and errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    warnings.filterwarnings("ignore", message=_ADDONS_END_OF_LIFE, category=UserWarning)
    limit_heaps()
    with quiet_start():
        import tensorflow as tf

        # Keras is loaded at its first use. One that was loaded before `utils` has the settings of the user's
        # ~/.keras/keras.json; see utils/__init__.py for the others.
        tf.keras.backend.set_image_data_format("channels_last")
        tf.keras.backend.set_floatx("float32")
        tf.keras.backend.set_epsilon(1e-7)
        tf.config.list_physical_devices()
    # It calls the reader of records deprecated, and has no other as fast; it tells of files that a conversion makes.
    unsaid = re.compile("tf_record_iterator|Assets written to")
    tf.get_logger().addFilter(lambda record: unsaid.search(record.getMessage()) is None)
    return tf


def limit_heaps() -> None:
    """Let glibc have a heap for each core, at least two, in place of eight for each.

    A heap keeps what is freed in it, and the threads that decode images spread over all heaps: training input at
    400 px grew from 1.0 to 1.5 GB in 10,000 images. With few it stays at 1.0 GB and is as fast.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(-8, max(2, os.cpu_count() or 1))  # -8: M_ARENA_MAX of malloc.h


@contextmanager
def holding(place: Path, lock: Path | None = None, *, wait: bool = False) -> Iterator[None]:
    """Hold an output by a lock file while the block works on it, so that two processes never mix.

    The lock is the system's (flock): it ends with its process, however that ends. A warning tells where there is none.

    Args:
        place: the output, as messages call it.
        lock: says who holds it, and is gone at the end; else .lock in the folder `place`.
        wait: say whom this process waits for, and wait.

    Raises:
        InputError: another process holds it (the message says which, and since when), or it cannot be written.
    """
    lock = lock or place / ".lock"
    since = f"since {time.strftime('%Y-%m-%d %H:%M:%S')} ({printable(shlex.join(sys.argv))[:200]})"
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = stack.enter_context(lock.open("a+", encoding="utf-8", errors="replace"))
                _take(file, place, lock, wait)
                if _has_name(file, lock):
                    break  # else its holder has just removed it
            stack.callback(lambda: _has_name(file, lock) and lock.unlink())  # else somebody has removed it
            file.truncate(0)
            os.write(file.fileno(), f"process {os.getpid()} of {platform.node()} {since}".encode())
        except OSError as error:
            raise utils.files.cannot_write(place, error) from error
        yield


def _has_name(file: IO[str], lock: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    return False


def _take(file: IO[str], place: Path, lock: Path, wait: bool) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        who = f"{place}: {file.read().strip() or 'another process'} works on it ({lock.name} says)"
        if not wait:
            raise InputError(
                f"{who}. Wait for it, or name another place. If it is not at work any more, as on a machine that was "
                f"lost: rm {shlex.quote(str(lock))}"
            ) from None
        print(f"{printable(who)}. Waiting for it.", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except (OSError, ModuleNotFoundError) as error:
        text = f"{lock}: cannot be locked here ({error}). See to it that no other process works on the same place."
        warnings.warn(InputWarning(text), stacklevel=4)


def start_notebook() -> None:
    """Print what runs here, in three lines: version and commit, image, versions of the stack, devices.

    The first cell of every notebook calls it, so that a saved notebook says what made it.

    Raises:
        InputError: keras-efficientnet-v2 is neither installed nor shipped beside the package.
    """
    find_shipped_wheel()
    tf = import_tensorflow()
    python = ".".join(map(str, sys.version_info[:3]))
    keras = metadata.version("tf_keras" if "TF_USE_LEGACY_KERAS" in os.environ else "keras")
    commit = commit_of_package()
    print(f"herbarium course {utils.__version__}{commit and f', commit {commit}'} on {_image()}")
    print(f"Python {python} · TensorFlow {tf.__version__} · Keras {keras}")
    print(f"Devices: {_devices(tf)}")


def find_shipped_wheel() -> None:
    """Let keras-efficientnet-v2 be imported from the wheel beside the package, where it is not installed.

    Raises:
        InputError: there is no such wheel; the message says how to get it, here and on Kaggle.
    """
    if util.find_spec("keras_efficientnet_v2") is not None:
        return
    wheels = sorted(REPOSITORY.glob("keras_efficientnet_v2-*.whl"))
    if not wheels:
        raise InputError(
            f"keras-efficientnet-v2 is not installed, and there is no wheel of it in {REPOSITORY}. On a machine "
            "of your own: ./course setup. "
            + attach("Your Work > Datasets", "naflora-course-utils as `./course kaggle build` makes it")
        )
    sys.path.append(str(wheels[-1]))  # it is Python only, so it can be imported as it is


def _image() -> str:
    """Where this runs; on Kaggle with date and commit of the image, which the image keeps in /etc."""
    if not on_kaggle():
        return "this machine"
    files = (Path("/etc/build_date"), Path("/etc/git_commit"))
    built = [path.read_text().strip() for path in files if path.is_file()]
    run = os.environ["KAGGLE_KERNEL_RUN_TYPE"]
    return f"Kaggle ({run}), image {', '.join(built)}" if built else f"Kaggle ({run}), image unknown"


def commit_of_package() -> str:
    """The commit of this package, with "+" where files differ from it: by the file COMMIT or by git; "" without."""
    if COMMIT.is_file():
        return COMMIT.read_text(encoding="utf-8").strip()
    if not (REPOSITORY / ".git").exists():
        return ""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""  # no git on this machine, as in many images
    return done.stdout.strip() if done.returncode == 0 else ""


def _devices(tf: ModuleType) -> str:
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join([*gpus, f"{cores()} CPU cores"])


def given(value: Any, default: Any) -> Any:
    """The value of a notebook's parameter; its default where None was given for it.

    `papermill -p NAME None` injects None and `-r NAME None` the text. A text in place of a number, True or False
    (`-r` gives nothing else) is read as one.

    Raises:
        UsageError: a text is not of the default's type.
    """
    if value is None or value == "None":
        return default
    if not isinstance(value, str) or isinstance(default, str):
        return value
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(default)(value)
    except (KeyError, ValueError):
        kind = "True or False" if isinstance(default, bool) else f"of type {type(default).__name__}"
        raise UsageError(f"a parameter is {value!r}, must be {kind}, as {default!r} is.") from None
