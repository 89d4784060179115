"""The files that a training run leaves: described at its start, found, taken up, and loaded as a network."""

import math
import platform
import shlex
import shutil
import sys
import warnings
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tensorflow as tf

from utils import __version__
from utils.config import Profile, profile_from_dict
from utils.data.delimited import write_csv
from utils.data.labels import LabelMap
from utils.data.shards import mounted, read_manifest
from utils.files import (
    InputError,
    InputWarning,
    UsageError,
    attach,
    is_hidden,
    on_kaggle,
    read_json,
    replacing,
    write_json,
    write_text,
)
from utils.training.network import build_model, logits_of_all_ranks, parameter_counts, ranks_of
from utils.training.state import other_species
from utils.training.weights import checksum, load_weights

if TYPE_CHECKING:
    from utils.sources import Data
    from utils.training.task import Task
    from utils.training.trainer import Trainer


def load_trained(
    run_dir: Path,
    run_name: str | None = None,
    *,
    all_heads: bool = False,
    data: "Data | None" = None,
    precision: str | None = None,
) -> tuple[tf.keras.Model, Profile, LabelMap]:
    """The best network of a run, its profile and its label map.

    On a machine without a GPU a mixed_float16 run is loaded as float32.

    Args:
        run_dir: the output folder of `train`.
        run_name: which run, where the folder holds several.
        all_heads: give the logits of the heads for genus and family too, beside those of the species.
        data: what the network is going to be scored on, where that is to have the species of the run.
        precision: of its layers; None for the run's own.

    Raises:
        UsageError: `all_heads` of a run whose profile had none.
        InputError: there is no trained run, or several and none is named; `data` have other species.
    """
    run_dir = Path(run_dir)
    suffix = "_configs.json"
    found = (path.name for path in run_dir.glob(f"*{suffix}"))
    names = sorted(name.removesuffix(suffix) for name in found if not is_hidden(name))
    if run_name is None:
        if len(names) != 1:
            found = (
                f"several runs ({', '.join(names)}): name one"
                if names
                else "no trained run: train first, by notebook 03 or ./course train"
            )
            raise InputError(f"{run_dir}: {found}.")
        run_name = names[0]
    config = read_json(run_dir / f"{run_name}{suffix}")
    if not isinstance(config, dict):
        raise InputError(f"{run_dir / (run_name + suffix)}: not the settings of a run. Copy the run again.")
    config.pop("run", None)
    profile = profile_from_dict(config, str(run_dir / f"{run_name}{suffix}"))
    labels = LabelMap.load(run_dir / "labels.json")
    known = data is not None and (data.label_file or data.train_metadata)
    if known and (differs := other_species(labels, data.labels(), profile)):
        raise InputError(
            f"{run_dir}: holds a run on other data than those in {data.train_shards[0].parent}: {differs}. Give the "
            "data it was trained on, or the output folder of a run on these."
        )
    own = profile.precision if tf.config.list_physical_devices("GPU") else "float32"
    weights = run_dir / f"{run_name}_weights.h5"
    if not weights.exists():
        raise InputError(
            f"{weights}: not there. The run has not finished its first epoch; run the training again."
        )
    built = replace(profile, weights=str(weights), precision=precision or own)
    network = build_model(built, labels.n_classes, head=True)
    if not all_heads:
        return network, profile, labels
    if not ranks_of(profile):
        raise UsageError(f"{run_dir}: was trained without heads: genus_weight and family_weight are 0.")
    whole = tf.keras.Model(network.input, logits_of_all_ranks(network, profile, labels))
    load_weights(whole, weights, head=True)
    return whole, profile, labels


def find_run(output: Path, profile: Profile) -> Path:
    """The folder of a training run: `output`, or on Kaggle the attached output in which it is furthest.

    A kernel takes the output of the kernel before it, mounted at /kaggle/input/<slug> or
    /kaggle/input/notebooks/<owner>/<slug>, or made into a data set. It is known by its state/state.json, which
    must be of a profile of the same name.

    Raises:
        InputError: on Kaggle, there is no such run; the message says what to attach.
    """
    marker = Path("state") / "state.json"
    if not on_kaggle() or (output / marker).exists():
        return output
    states = {}
    for path in mounted(marker.name):
        if path.parent.name == "state":
            state = states[path.parent.parent] = read_json(path)
            settings = state.get("profile") if isinstance(state, dict) else None
            if not isinstance(settings, dict) or not isinstance(state.get("epoch"), int):
                raise InputError(f"{path}: not the state of a run as training writes it. {_WAY_OUT}")
    runs = {
        run: state["epoch"] for run, state in states.items() if state["profile"].get("name") == profile.name
    }
    if not runs:
        seen = ", ".join(f"{run} ({state['profile'].get('name')})" for run, state in states.items()) or "none"
        raise InputError(
            f"No trained run of profile {profile.name} in {output} or among the attached (runs there: {seen}). "
            + attach("Your Work > Notebooks", "the kernel of notebook 03 or 03b that has finished")
        )
    return max(runs, key=runs.__getitem__)


def take_up_run(output: Path, profile: Profile) -> None:
    """Copy the run that `find_run` finds into `output`, where training can go on; state.json comes last.

    Raises:
        InputError: as `find_run`.
    """
    run = find_run(output, profile)
    if run == output:
        return
    state = output / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    for pattern in ("EfficientNet*", "labels.json", "training_images.csv"):
        for path in run.glob(pattern):
            with replacing(output / path.name) as temporary:
                shutil.copyfile(path, temporary)
    for path in sorted((run / "state").iterdir(), key=lambda path: path.name == "state.json"):
        with replacing(state / path.name) as temporary:
            shutil.copyfile(path, temporary)


_WAY_OUT = (
    "Nothing was changed: copy the whole run again, or name another folder (`train -s weights=..._weights.h5` goes on "
    "from what this run has learnt)."
)
_KINDS = {"checkpoint": (str,), "epoch": (int,), "best_epoch": (int,), "best_f1": (float, int, type(None))}
_KINDS |= {"history": (list,), "tensorflow": (str,), "data": (dict,), "profile": (dict,)}


def _is_state(saved: Any) -> bool:
    """Whether this is what `save` writes: somebody may have edited it."""
    return (
        isinstance(saved, dict)
        and all(type(saved.get(key)) in kinds for key, kinds in _KINDS.items())
        and saved["checkpoint"] == f"epoch_{saved['epoch']:04d}"
        and 1 <= saved["best_epoch"] <= saved["epoch"] == len(saved["history"])
        and all(isinstance(row, dict) and {"time", "val_f1_score"} <= row.keys() for row in saved["history"])
        and all(type(value) in (*_KINDS["best_f1"],) for row in saved["history"] for value in row.values())
        and all(type(value) is int for value in saved["data"].values())
    )


def check_state(run_dir: Path) -> None:
    """See that the state of a run, where there is one, is as it was written, and that what it names is there.

    Raises:
        InputError: it is edited or damaged, or a part of it is gone.
    """
    folder, file = run_dir / "state", run_dir / "state" / "state.json"
    if not file.exists():
        later = sorted(path.name for path in folder.glob("epoch_*") if not path.name.startswith("epoch_0001"))
        if later:
            raise InputError(f"{folder}: holds {later[0]} and no state.json. {_WAY_OUT}")
        return
    if not _is_state(saved := read_json(file)):
        raise InputError(f"{file}: not the state of a run as training writes it. {_WAY_OUT}")
    needed = [folder / f"{saved['checkpoint']}.{end}" for end in ("index", "data-00000-of-00001")]
    if not (folder / f"best_{saved['best_epoch']:04d}.h5").exists():
        profile = profile_from_dict(saved["profile"], str(file))
        needed.append(run_dir / f"{profile.run_name}_weights.h5")
    if gone := [path for path in needed if not path.is_file()]:
        raise InputError(f"{gone[0]}: is not there, and {file} says that it is. {_WAY_OUT}")
    given = str(saved["profile"].get("weights"))
    if None not in (before := saved.get("weights"), now := checksum(given)) and before != now:
        told = f"{given}: is another file than {run_dir} began from, and counts for nothing here. To begin from it "
        warnings.warn(InputWarning(f"{told}give another output folder, such as {run_dir}-2."), stacklevel=3)


def room_for(model: "Trainer", run_dir: Path, begun: bool) -> str:
    """A line on the room that a run needs from now on and has, for weights and checkpoints.

    A checkpoint holds weights, momentum and a moving average; while one is written the one before is there too.

    Args:
        begun: whether one is there already.

    Raises:
        InputError: it is too little.
    """
    numbers = sum(math.prod(weight.shape) for weight in model.weights)
    need = 4 * numbers * (3 + (model.average is not None)) * (1 if begun else 2) + 1_000_000
    free = shutil.disk_usage(run_dir).free
    told = f"{need / 1e6:,.0f} MB for checkpoints and weights, {free / 1e6:,.0f} MB free"
    if free < need:
        raise InputError(f"{run_dir}: no room for this training: {told}. Make room, or name another folder.")
    return f"Disk: {told} in {run_dir}."


def describe(task: "Task", model: tf.keras.Model, run_dir: Path, devices: str) -> None:
    """Write how the run was made: configs, model summary, label map."""
    profile = task.profile
    stem = run_dir / profile.run_name
    packages = ("tensorflow", "tf-keras", "tensorflow-addons", "keras-efficientnet-v2", "numpy", "pillow")
    write_json(
        Path(f"{stem}_configs.json"),
        {
            **profile.to_dict(),
            "run": {
                **task.facts,
                "validation_species": task.validation_species,
                "skipped_records": sum(record.lost for record in task.skipped),
                "skipped": [str(record) for record in task.skipped],
                "steps_per_epoch": task.steps,
                "stored": _stored(task.shards),
                "devices": devices,
                "rescale_mode": model.rescale_mode,
                "parameters": list(parameter_counts(model)),
                "versions": {
                    "utils": __version__,
                    "python": platform.python_version(),
                    **{name: version for name in packages if (version := _version(name))},
                },
                "command": shlex.join(sys.argv),
            },
        },
    )
    lines: list[str] = []
    model.summary(print_fn=lambda line, *_, **__: lines.append(line))
    write_text(Path(f"{stem}_model_summary.txt"), "\n".join(lines) + "\n")
    task.labels.save(run_dir / "labels.json")
    counts = pd.DataFrame({"scientificName": task.labels.names, "images": task.counts})
    write_csv(counts, run_dir / "training_images.csv")


def _stored(shards: tuple[Path, ...]) -> dict[str, Any] | None:
    """Size and fit of the stored images, by the manifest beside the shards; None without one."""
    manifest = read_manifest(shards[0].parent)
    return manifest and {key: manifest["settings"].get(key) for key in ("size", "fit")}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
