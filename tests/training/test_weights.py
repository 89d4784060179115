"""Files of weights: only numbers that are in the file itself are read."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from utils.files import InputError
from utils.training.weights import load_weights, rescale_mode_of, save_weights


def network() -> tf.keras.Model:
    images = tf.keras.Input((4,))
    model = tf.keras.Model(images, tf.keras.layers.Dense(3, name="dense")(images))
    model.rescale_mode = "tf"
    return model


def linked(file: h5py.File, secret: Path) -> None:
    del file["dense/dense/kernel:0"]
    file["dense/dense/kernel:0"] = h5py.ExternalLink(secret, "/numbers")


def linked_layer(file: h5py.File, secret: Path) -> None:
    del file["dense"]
    file["dense"] = h5py.ExternalLink(secret, "/")


def soft(file: h5py.File, secret: Path) -> None:
    del file["dense/dense/kernel:0"]
    file["dense/dense/kernel:0"] = h5py.SoftLink("/elsewhere")


def external(file: h5py.File, secret: Path) -> None:
    del file["dense/dense/kernel:0"]
    stored = [(str(secret), 0, 48)]
    file.create_dataset("dense/dense/kernel:0", (4, 3), "f4", external=stored)


def virtual(file: h5py.File, secret: Path) -> None:
    del file["dense/dense/kernel:0"]
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "numbers", (4, 3), "f4")
    file.create_virtual_dataset("dense/dense/kernel:0", layout)


def nameless(file: h5py.File, secret: Path) -> None:
    del file["dense"].attrs["weight_names"]


def climbing(file: h5py.File, secret: Path) -> None:
    file["dense"].attrs["weight_names"] = [b"../../etc/passwd", b"dense/bias:0"]


@pytest.mark.parametrize("change", [linked, linked_layer, soft, external, virtual, nameless, climbing])
def test_weights_that_lead_out_of_their_file_are_refused(
    change: Callable[[h5py.File, Path], None], tmp_path: Path
) -> None:
    model, path, secret = network(), tmp_path / "w.h5", tmp_path / "secret.h5"
    save_weights(model, path)
    with h5py.File(secret, "w") as file:
        file["numbers"] = np.full((4, 3), 7, "f4")
    with h5py.File(path, "r+") as file:
        change(file, secret)
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(InputError, match=r"w\.h5: .*(leads out of the file|no weights of its own)"):
        load_weights(model, path)
    assert all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))


def instead(**options) -> Callable[[h5py.File], None]:
    """A change that puts another array where a kernel was."""

    def change(file: h5py.File) -> None:
        del file["dense/dense/kernel:0"]
        file.create_dataset("dense/dense/kernel:0", **options)

    return change


def named(value) -> Callable[[h5py.File], None]:
    return lambda file: file["dense"].attrs.__setitem__("weight_names", value)


@pytest.mark.parametrize(
    "change",
    [
        instead(shape=(2**40, 2**20), dtype="f4", chunks=(64, 64)),
        *(instead(data=np.zeros((4, 3), kind)) for kind in ("c8", "i8", "S4", "V8", [("a", "f4")])),
        instead(shape=(4, 3), dtype=h5py.ref_dtype),
        instead(data=h5py.Empty("f4")),
        *(named(value) for value in (5, [1.5], [[b"a"]], h5py.Empty("S1"), [b"\xff\xfe"], [b"."])),
    ],
)
def test_weights_that_are_no_numbers_are_refused(change: Callable[[h5py.File], None], tmp_path: Path) -> None:
    model, path = network(), tmp_path / "w.h5"
    save_weights(model, path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(
        InputError, match=r"w\.h5: (not a readable|layer dense holds no weights|does not fit)"
    ):
        load_weights(model, path)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    one, other = network(), network()
    save_weights(one, tmp_path / "w.h5")
    assert load_weights(other, tmp_path / "w.h5") == [] and rescale_mode_of(tmp_path / "w.h5") == "tf"
    assert all((a == b).all() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
