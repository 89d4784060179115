"""A trained run as files for others: SavedModel, LiteRT, labels, scores, a card, and a script that names an image.

A model takes an image as uint8 and gives calibrated probabilities and the features that they come from; scaling, mirror
images and calibration are inside. TensorFlow is imported where it is needed: `interpreter` does without, where the
package ai-edge-litert is installed.
"""

import inspect
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.config import LITE
from utils.data.delimited import write_csv
from utils.data.metadata import UNKNOWN
from utils.evaluation.scores import macro_f1, overall_scores, scores_by_bin
from utils.files import InputError, building, read_json, working_folder, write_json, write_text
from utils.own.answers import SURE_AT, Answers, mean_over_views
from utils.own.decode import MAX_PIXELS
from utils.own.folder import stored_by
from utils.own.look import central, ratio_of, weights_for
from utils.own.page import RunFacts, left_to_machine, read_facts
from utils.own.shards import errors_of_the_system
from utils.own.unknown import COSINE_WEIGHT, DISTANCE_WEIGHT, OTHERS
from utils.own.worth import has_test, load_worth
from utils.sources import Data, find_data
from utils.startup import printed, standard_error_to

if TYPE_CHECKING:
    import tensorflow as tf

    from utils.config import Profile
    from utils.data.labels import LabelMap

METRICS, CARD, SCRIPT, SAVED = "metrics.json", "README.md", "identify.py", "saved_model"
LABELS, SPACE = "labels.csv", "space.npz"
FORMATS = {"float32": "model.tflite", "float16": "model_float16.tflite", "int8": "model_int8.tflite"}
INT8_LOSS = 0.02  # of macro-F1 that an int8 model may lose
_MADE_BY = "herbarium course: export"  # in metrics.json, by which an earlier export is known
_COMPARED = 2_000  # held-out sheets that the formats are compared on
_RANGES = 200  # training sheets that set the ranges of int8
_DELEGATE = re.compile(rb"INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.\r?\n")  # no news
# Ops left in float: the classifier, what makes probabilities of its logits, and the means that it gets.
_IN_FLOAT = ("FULLY_CONNECTED", "SOFTMAX", "LOG", "MAXIMUM", "MEAN", "CONCATENATION", "REVERSE_V2")


def interpreter(path: Path, threads: int | None = None) -> "Callable[..., dict[str, np.ndarray]]":
    """A LiteRT model as a function: of `image`, uint8 [1, S, S, 3], to probabilities [1, C] and features [1, F].

    It runs in ai-edge-litert where that is installed, else in TensorFlow, which has the same runtime.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter
    loaded = Interpreter(str(path), num_threads=threads)
    with printed(_DELEGATE):
        loaded.allocate_tensors()
    return loaded.get_signature_runner()


@contextmanager
def report_of_failure() -> Iterator[None]:
    """Show what a converter writes to standard error only where it fails: it reports every op that stays as it is."""
    with tempfile.TemporaryFile() as held:
        try:
            with standard_error_to(held):
                yield
        except BaseException:
            held.seek(0)
            os.write(2, held.read())
            raise


@dataclass(frozen=True, eq=False)
class _Network:
    """A run's network with what is known of it, and the function that all formats are made of."""

    profile: "Profile"
    labels: "LabelMap"
    facts: RunFacts
    worth: Answers | None
    variables: list
    answer: "Callable[[tf.Tensor], dict[str, tf.Tensor]]"


def export(
    run_dir: Path, out: Path, data_dir: Path | None = None, *, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Write a run's network into a new folder, in every format that gives its answers.

    Args:
        run_dir: folder of a training run.
        out: made whole or not at all; an earlier export there is replaced.
        data_dir: the data that the run was trained on, for int8 (its ranges, its score) and to compare the formats on;
            without it the sample flora, where the run was trained on that.
        progress: show bars.

    Returns:
        By format what was found: bytes, largest_difference of a probability from the network's, same_first (share of
        the sheets with the same first answer), macro_f1, sheets; or left_out, the reason why it is not there.

    Raises:
        InputError: there is no trained run, the data have other species, or `out` holds other files.
    """
    out = Path(out).resolve()  # a link to a folder stays one
    refuse_other_files(out)
    network, data = _load(Path(run_dir), data_dir)
    with building(out, replace=True) as folder, working_folder(folder / "one") as scratch:
        side = network.profile.image_size
        save_model(network.answer, network.variables, side, folder / SAVED)
        save_model(network.answer, network.variables, side, scratch / "one", batch=1)
        test, true = _sheets(network, data, "test", _COMPARED)
        ranges, _ = _sheets(network, data, "train", _RANGES)
        expected = _expected(network, test)
        found = {}
        for name, file in FORMATS.items():
            reason = "" if name != "int8" or true is not None else _NO_SHEETS
            if not reason:
                with report_of_failure():
                    model = converted(scratch / "one", name, ranges, network.profile.backbone)
                (folder / file).write_bytes(model)
                found[name] = _compared(
                    folder / file, test, true, expected, network.labels.n_classes, progress
                )
                if name == "int8" and found[name]["macro_f1"] < found["float32"]["macro_f1"] - INT8_LOSS:
                    reason = (
                        f"its macro-F1 on {len(test):,} held-out sheets is {found[name]['macro_f1']:.3f}, in float32 "
                        f"{found['float32']['macro_f1']:.3f}"
                    )
            if reason:
                (folder / file).unlink(missing_ok=True)
                found[name] = {"left_out": reason}
        metrics = _metrics(network) | {"formats": found}
        write_json(folder / METRICS, {"made_by": _MADE_BY, **metrics})
        _write_labels(network, folder / LABELS)
        if worth := network.worth:
            space = {name: getattr(worth.space, name) for name in ("centre", "whiten", "means")}
            np.savez(folder / SPACE, limit=worth.limit, all=1 - worth.doubt, **space)
        stored = stored_by(run_dir, network.profile.run_name)
        values = {
            "network": network,
            "metrics": metrics,
            "stored": stored,
            "formats": FORMATS,
            "sure": SURE_AT,
            "others": OTHERS,
            "cosine_weight": COSINE_WEIGHT,
            "distance_weight": DISTANCE_WEIGHT,
            "unknown": UNKNOWN,
            "most_pixels": MAX_PIXELS,
            **_seen_as(network.profile, stored.size),
        }
        for name, template in ((CARD, "card.md.j2"), (SCRIPT, "identify.py.j2")):
            write_text(folder / name, _templates().get_template(template).render(values))
    return found


_NO_SHEETS = "no held-out sheets of known species were there to set its ranges and its score by"


def refuse_other_files(out: Path) -> None:
    """Raise InputError where a folder holds anything but an earlier export."""
    refuse_others(out, {METRICS, CARD, SCRIPT, LABELS, SPACE, SAVED, *FORMATS.values()}, "no export")
    metrics = out / METRICS
    found = read_json(metrics) if metrics.is_file() else None
    made = isinstance(found, dict) and found.get("made_by") == _MADE_BY
    if not made and out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: holds files that are no export. Name a new folder.")


def refuse_others(folder: Path, made: Collection[str], what: str) -> None:
    """Raise InputError where a folder that is made anew has other entries than `made`: they would be lost."""
    if others := sorted({path.name for path in folder.iterdir()} - {*made}) if folder.is_dir() else []:
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        raise InputError(
            f"{folder}: holds files that are {what} ({', '.join(others[:3])}{more}). Name a new folder, or move them."
        )


def _load(run_dir: Path, data_dir: Path | None) -> tuple[_Network, Data | None]:
    import tensorflow as tf

    from utils.training.runs import load_trained
    from utils.training.state import other_species

    model, profile, labels = load_trained(run_dir)
    data = find_data(profile, data_dir or "auto") if data_dir or profile.source == "flora" else None
    if data is not None and (differs := other_species(labels, data.labels(), profile)):
        raise InputError(f"{run_dir}: was trained on other data: {differs}. Give these by --data.")
    worth = load_worth(run_dir, profile, labels)
    seen = mean_over_views(model, profile.augment if profile.tta else "none")
    temperature, doubt = (worth.temperature, worth.doubt) if worth else (1.0, 0.0)

    def answer(image: "tf.Tensor") -> "dict[str, tf.Tensor]":
        shares, features = seen(image)
        if worth:
            shares = tf.nn.softmax(tf.math.log(tf.maximum(shares, _LEAST)) / temperature) * (1 - doubt)
        return {"probabilities": shares, "features": features}

    facts = read_facts(run_dir, profile, labels, worth)
    return _Network(profile, labels, facts, worth, model.variables, answer), data


_LEAST = np.finfo(np.float32).tiny


def save_model(
    answer: "Callable[[tf.Tensor], dict[str, tf.Tensor]]",
    variables: list,
    side: int,
    folder: Path,
    batch: int | None = None,
) -> None:
    """A SavedModel of a function of images uint8 [batch, side, side, 3], without Keras' layers; None for any batch."""
    import tensorflow as tf

    image = tf.TensorSpec([batch, side, side, 3], tf.uint8, name="image")
    module = tf.Module()
    module.kept = variables
    module.answer = tf.function(answer, input_signature=[image])
    with errors_of_the_system(folder):
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.answer})


def converted(saved: Path, name: str, ranges: np.ndarray, backbone: str) -> bytes:
    """A SavedModel for single images as the bytes of a LiteRT model.

    Args:
        saved: from `save_model`.
        name: one of FORMATS.
        ranges: images that show int8 which values occur, uint8 [N, S, S, 3].
        backbone: of the profile.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    if name == "float32":
        return converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return converter.convert()

    def sheets() -> Iterator[list[np.ndarray]]:
        for image in ranges:
            yield [image[None]]

    converter.representative_dataset = sheets
    # A Lite network multiplies nowhere else; in others the activations do, and stay int8.
    in_float = [*_IN_FLOAT, *(["MUL"] if backbone in LITE else [])]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=in_float)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=sheets, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()


def _sheets(
    network: _Network, data: Data | None, part: str, most: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Up to `most` images uint8 [N, S, S, 3] and their classes; where there are none 16 of noise, and None.

    Without a withheld test the sheets that were held out of training stand in for it.
    """
    profile, images, classes, ids = network.profile, [], [], []
    if data is not None and part == "test" and not has_test(data, data.split(profile)):
        part = "validation"
    for batch in data.batches(part, profile, batch_size=profile.batch_size) if data is not None else ():
        images.append(batch[0].numpy())
        classes.append(batch[1].numpy())
        ids += [each.decode() for each in batch[2].numpy()]
        if len(ids) >= most:
            break
    if not ids:
        side = profile.image_size
        return np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8), None
    true = data.true_classes(ids) if part == "test" and data.test_shards else np.concatenate(classes)
    return np.concatenate(images)[:most], true[:most]


def _expected(network: _Network, images: np.ndarray) -> np.ndarray:
    """Probabilities as the network gives them in TensorFlow, float32 [N, C]."""
    import tensorflow as tf

    side = network.profile.image_size
    answer = tf.function(network.answer, input_signature=[tf.TensorSpec([None, side, side, 3], tf.uint8)])
    starts = range(0, len(images), network.profile.batch_size)
    parts = [images[start : start + network.profile.batch_size] for start in starts]
    return np.concatenate([answer(part)["probabilities"].numpy() for part in parts])


def _compared(
    file: Path,
    images: np.ndarray,
    true: np.ndarray | None,
    expected: np.ndarray,
    n_classes: int,
    progress: bool,
) -> dict[str, Any]:
    from tqdm.auto import tqdm

    run = interpreter(file)
    shown = tqdm(images, desc=file.name, unit=" sheets", disable=not progress)
    found = np.concatenate([run(image=image[None])["probabilities"] for image in shown])
    return {
        "file": file.name,
        "bytes": file.stat().st_size,
        "sheets": len(images) if true is not None else 0,
        "largest_difference": float(np.abs(found - expected).max()),
        "same_first": float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        "macro_f1": None if true is None else macro_f1(true, found.argmax(axis=1), n_classes),
    }


def _metrics(network: _Network) -> dict[str, Any]:
    """What the answers are worth, in plain values: on the withheld test, or what was held out of training."""
    worth, labels = network.worth, network.labels
    if worth is None:
        return {"measured_on": None}
    measured = worth.measured
    found = overall_scores(measured.true, measured.predicted, labels.n_classes)
    if network.facts.train_images is not None:
        table = scores_by_bin(measured.true, measured.predicted, network.facts.train_images)
        found["by_bin"] = table.set_index("bin").to_dict(orient="index")
    ranks = measured.by_rank(SURE_AT, worth.limit).set_index("rank").to_dict(orient="index")
    refused, known = worth.refused
    return {
        "measured_on": measured.part,
        **found,
        "answered_at": ranks,
        "left_to_the_machine": left_to_machine(worth),
        "temperature": worth.temperature,
        "doubt": worth.doubt,
        "known_sheets_called_unlike_anything": {"sheets": refused, "of": known},
        "unknown_sheets_not_noticed": worth.passed and {"sheets": worth.passed[0], "of": worth.passed[1]},
    }


def _seen_as(profile: "Profile", stored: int) -> dict[str, Any]:
    """How the script makes the network's pixels of a stored square, as `network_pixels` does, for its template."""
    ratio = ratio_of(stored, profile.image_size, profile.crop)
    part = central(-(-stored // ratio), profile.crop)
    weights = weights_for(part.stop - part.start, profile.image_size)
    return {
        "ratio": ratio,
        "part": f"{part.start}:{part.stop}",
        "weights": inspect.getsource(weights),
        "weights_name": weights.__name__,
    }


def _write_labels(network: _Network, path: Path) -> None:
    labels = network.labels
    columns = {
        "class_index": np.arange(labels.n_classes),
        "scientificName": labels.names,
        "genus": labels.genera,
        "family": labels.families,
        "category_id": labels.category_ids,
    }
    if network.facts.train_images is not None:
        columns["training_images"] = network.facts.train_images
    write_csv(pd.DataFrame(columns), path)


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"thousands": "{:,}".format, "percent": "{:.1%}".format}
    return templates
