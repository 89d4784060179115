"""Shared code of the herbarium course: every notebook and every command imports this package."""

import os
import platform
import sys
from importlib import metadata as _metadata

__version__ = "0.1.0"


def _select_keras() -> None:
    """Make `tf.keras` Keras 2 where the installed TensorFlow would bring Keras 3.

    keras-efficientnet-v2 needs Keras 2. TensorFlow 2.16 and later hand it out as tf_keras when
    TF_USE_LEGACY_KERAS=1 is set before the import; on 2.15 the variable breaks `tf.keras`, so it is
    set only where it is needed. Nothing is imported here.

    Raises:
        RuntimeError: TensorFlow is already imported with Keras 3.
    """
    versions = {}
    for name in ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tf-keras"):
        try:
            versions[name] = _metadata.version(name)
        except _metadata.PackageNotFoundError:
            continue
    tensorflow = next((version for name, version in versions.items() if name != "tf-keras"), None)
    if tensorflow is None or tuple(int(part) for part in tensorflow.split(".")[:2]) < (2, 16):
        return
    if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        raise RuntimeError(
            "TensorFlow is already imported with Keras 3, and this course needs Keras 2. "
            "Restart the kernel and run the first cell before anything else."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_select_keras()
# On by itself only where TensorFlow knows the processor for it; on others (AMD EPYC without AVX-512) an
# EfficientNetV2 step took 12% less processor time with it. Read when TensorFlow is imported.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
