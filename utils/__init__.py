"""Shared code of the herbarium course: every notebook and every command imports this package."""

import os
import platform
import sys
from importlib import metadata as _metadata
from pathlib import Path as _Path

__version__ = "0.1.0"


class InputError(ValueError):
    """A file or record is not as it must be; the message names it and the way out (exit code 1)."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class UsageError(InputError):
    """An option, profile or parameter is not known or not possible (exit code 2)."""


class InputWarning(UserWarning):
    """Something of the user's was left out, which need not be wrong; shown as one line beside the result."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


def printable(text: object) -> str:
    """A text as a terminal may get it: names of files and species hold anything, also what would steer it.

    What is no printable character becomes an escape, as \\x1b; line ends stay.
    """
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in str(text))


def _select_keras() -> None:
    """Make `tf.keras` Keras 2, with the settings that the course needs, whatever this machine is set to.

    keras-efficientnet-v2 needs Keras 2. TensorFlow 2.16 and later hand it out as tf_keras when
    TF_USE_LEGACY_KERAS=1 is set before the import; on 2.15 the variable breaks `tf.keras`, so it is
    taken away there. Keras reads keras.json (channels_first, float16) from the folder KERAS_HOME, by default
    ~/.keras: for this process that is the folder utils/keras, and the user's file is neither read nor changed.
    (Weights that Keras downloads stay in ~/.keras: it does not look at KERAS_HOME for them.) Nothing is imported
    here.

    Raises:
        RuntimeError: TensorFlow is already imported with another Keras.
    """
    os.environ["KERAS_HOME"] = str(_Path(__file__).resolve().parent / "keras")
    versions = {}
    for name in ("tensorflow", "tensorflow-cpu", "tensorflow-macos"):
        try:
            versions[name] = _metadata.version(name)
        except _metadata.PackageNotFoundError:
            continue
    tensorflow = next(iter(versions.values()), None)
    if tensorflow is None:
        return
    legacy = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")  # as TensorFlow reads it
    needed = tuple(int(part) for part in tensorflow.split(".")[:2]) >= (2, 16)
    if "tensorflow" in sys.modules and legacy != needed:
        raise RuntimeError(
            f"TensorFlow is already imported with {'Keras 3' if needed else 'TF_USE_LEGACY_KERAS=1'}, and this "
            "course needs Keras 2. Restart the kernel and run the first cell before anything else."
        )
    if needed:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    else:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)


_select_keras()
# On by itself only where TensorFlow knows the processor for it; on others (AMD EPYC without AVX-512) an
# EfficientNetV2 step took 12% less processor time with it. Read when TensorFlow is imported.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
