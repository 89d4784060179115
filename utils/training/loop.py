"""Training: epoch by epoch, scored on held-out sheets after each, continued where a killed run stopped."""

import math
import platform
import shlex
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import tensorflow as tf

from utils import __version__
from utils.config import Profile, profile_from_dict
from utils.data import longtail, splits
from utils.data.damage import WAY_OUT, BadRecord, bad_records, naming_damage, without_bad
from utils.data.labels import LabelMap
from utils.data.pipeline import evaluation_dataset, training_dataset
from utils.data.tfrecords import read_manifest
from utils.data.writing import DUPLICATES, shared_duplicates
from utils.errors import InputError, UsageError
from utils.files import read_json, replacing, write_json
from utils.metrics import make_metric
from utils.paths import is_hidden
from utils.training import backbone, heads
from utils.training.checkpoint import Progress, RunState, other_species
from utils.training.cluster import read_cluster
from utils.training.losses import make_loss
from utils.training.optimizer import make_optimizer, make_schedule, sgdw
from utils.training.strategy import choose_strategy, wait_for_all
from utils.training.trainer import Trainer, make_trainer

if TYPE_CHECKING:
    from utils.datasets import Data


@dataclass(frozen=True)
class TrainResult:
    """What a call of `train` leaves."""

    run_name: str
    run_dir: Path
    history: pd.DataFrame  # one row an epoch, as in {run_name}.csv
    best_epoch: int  # from 1; the last one where validation gives no score
    best_f1: float  # macro-F1 on validation, nan without a score
    weights: Path  # of the best epoch
    finished: bool  # all epochs of the profile are done


@dataclass(frozen=True)
class _Task:
    """The training data of a profile: its classes, its split, its batches."""

    profile: Profile
    shards: tuple[Path, ...]
    labels: LabelMap
    validation_ids: np.ndarray
    held_out_ids: np.ndarray  # of validation, and of a test part among the shards
    counts: np.ndarray  # training images by class, without what is held out
    batches: int  # in one pass over the training images
    validation_species: int
    coverage: str  # what validation covers, in words
    skipped: tuple[BadRecord, ...]  # left out by skip_bad
    shared_duplicates: int  # groups of copies of one image in more than one part
    facts: dict[str, int]  # see facts_of

    @property
    def scored(self) -> bool:
        """Whether validation covers enough species for a score."""
        return self.validation_species >= splits.SCORED_FROM

    @property
    def steps(self) -> int:
        return self.profile.steps_per_epoch or self.batches

    def training(self, epoch: int) -> tf.data.Dataset:
        """Batches of one epoch, the same ones for the same epoch; see `training_dataset`."""
        profile = self.profile
        dataset = training_dataset(
            self.shards,
            image_size=profile.image_size_at(epoch),
            batch_size=profile.batch_size,
            seed=profile.seed,
            epoch=epoch,
            crop=profile.crop,
            random_crop=profile.random_crop,
            augment=profile.augment,
            randaugment=profile.randaugment,
            randaugment_magnitude=profile.randaugment_magnitude,
            mixup=profile.mixup,
            cutmix=profile.cutmix,
            exclude_ids=self.held_out_ids,
            n_classes=self.labels.n_classes,
            count=int(self.counts.sum()),
            resize=profile.resize,
        )
        if self.steps > self.batches:  # an epoch of a given length may need more than one pass
            dataset = dataset.repeat()
        return dataset.take(self.steps).with_options(_sharding())

    def validation(self) -> tf.data.Dataset:
        """The whole validation split in file order: (uint8 [B, S, S, 3], int32 [B])."""
        dataset = evaluation_dataset(
            self.shards,
            image_size=self.profile.image_size,
            batch_size=self.profile.batch_size,
            crop=self.profile.crop,
            only_ids=self.validation_ids,
            n_classes=self.labels.n_classes,
            count=len(self.validation_ids),
        )
        return dataset.map(lambda image, label, _: (image, label)).with_options(_sharding())


def _sharding() -> tf.data.Options:
    """Several workers share records, not files: there may be fewer shards than workers."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _task(profile: Profile, data: "Data", skipped: tuple[BadRecord, ...] = ()) -> _Task:
    labels, table = data.labels(), data.split(profile)
    ids, classes, part = (table[name].to_numpy() for name in ("image_id", "class_index", "part"))
    train = part == "train"
    batches = int(train.sum()) // profile.batch_size
    if not batches:
        raise InputError(
            f"batch_size is {profile.batch_size}, and there are {train.sum()} training images: set it lower."
        )
    return _Task(
        profile=profile,
        shards=data.train_shards,
        labels=labels,
        validation_ids=ids[part == "validation"].astype(str),
        held_out_ids=ids[~train].astype(str),
        counts=longtail.class_counts(classes[train], labels.n_classes),
        batches=batches,
        validation_species=len(np.unique(classes[part == "validation"])),
        coverage=splits.coverage(classes, part, labels.n_classes),
        skipped=skipped,
        # Beside labels.json, which own shards have; the shards themselves may be copies without bad records.
        shared_duplicates=shared_duplicates(data.label_file.parent / DUPLICATES, ids, part)
        if data.label_file
        else 0,
        facts=facts_of(labels, table, data.train_shards),
    )


def facts_of(labels: LabelMap, table: pd.DataFrame, shards: tuple[Path, ...]) -> dict[str, int]:
    """What tells one training data set and split from another, wherever its shards lie and however cut.

    Args:
        labels: its label map.
        table: from `Data.split`.
        shards: whose sizes add up to the same however the same records are shared among them.
    """
    ids, part = table["image_id"].astype(str), table["part"]
    lines = (ids + "\t" + table["class_index"].astype(str) + "\t" + part).tolist()
    validation = ids[part == "validation"].tolist()
    return {
        "classes": int(labels.n_classes),
        "train_images": int((part == "train").sum()),
        "validation_images": len(validation),
        "split": zlib.crc32("\n".join(sorted(validation)).encode()),
        "records": zlib.crc32("\n".join(sorted(lines)).encode()),
        "bytes": sum(shard.stat().st_size for shard in shards),
    }


@contextmanager
def _reading(
    profile: Profile, data: "Data", say: Callable[[str], None] = lambda _: None, progress: bool = False
) -> Iterator[_Task]:
    """The task of a profile, and around its reading the promise that a bad record stops it by name.

    With `skip_bad` all records are looked at first, and copies of the damaged shards, without their bad
    records, are read in their place. The copies last as long as the block, and a resumed run makes the same.
    """
    n_classes = data.labels().n_classes
    if not profile.skip_bad:
        hint = f"{WAY_OUT}, or leave bad records out with `-s skip_bad=true`"
        with naming_damage(data.train_shards, n_classes, way_out=hint, progress=progress):
            yield _task(profile, data)
        return
    with tempfile.TemporaryDirectory(prefix="whole_records_") as folder:
        bad = tuple(bad_records(data.train_shards, n_classes, progress=progress))
        say(_skipped(bad))
        whole = without_bad(data.train_shards, bad, Path(folder))
        if not whole:
            raise InputError(f"{data.train_shards[0].parent}: no shard has a whole record. {WAY_OUT}.")
        kept = {
            field: tuple(whole[shard] for shard in getattr(data, field) if shard in whole)
            for field in ("train_shards", "val_shards")
        }
        with naming_damage(kept["train_shards"], n_classes, progress=progress):
            yield _task(profile, replace(data, **kept), bad)


def _skipped(bad: tuple[BadRecord, ...]) -> str:
    """What skip_bad leaves out, in lines: the count and the first ten places."""
    lost = sum(record.lost for record in bad)
    lines = [f"skip_bad: records left out: {lost:,}"]
    lines += [f"  {record}" for record in bad[:10]]
    if len(bad) > 10:
        lines.append(f"  and {len(bad) - 10:,} more places, all in the run's _configs.json")
    return "\n".join(lines)


def check_run(profile: Profile, data: "Data", output_dir: Path) -> None:
    """See before long work that `train` can go on, or begin, in a folder.

    Raises:
        UsageError: `output_dir` holds a run with other settings.
        InputError: it holds a run on other data.
    """
    state = RunState(Path(output_dir), profile)
    if state.read().epoch:
        _check_data(state, profile, data)


def _check_data(state: RunState, profile: Profile, data: "Data") -> None:
    """Raise InputError where the run of `state` was made with other data, read here without training on them."""
    labels, folder = data.labels(), data.train_shards[0].parent
    if profile.skip_bad:  # which records count is known only after a look at all
        with _reading(profile, data) as task:
            state.check_data(task.facts, labels, folder)
        return
    with naming_damage(data.train_shards, labels.n_classes, way_out=WAY_OUT):
        state.check_data(facts_of(labels, data.split(profile), data.train_shards), labels, folder)


def train(
    profile: Profile,
    data: "Data",
    output_dir: Path,
    *,
    progress: bool = True,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
    stop_after: int | None = None,
    stop_at: float | None = None,
) -> TrainResult:
    """Train the profile's network, continue a run that was stopped or killed, or return a finished one.

    Leaves in `output_dir` what the published run leaves ({run_name} is the profile's):
    {run_name}_configs.json, {run_name}_model_summary.txt, {run_name}.csv (one row an epoch),
    {run_name}_weights.h5 (of the epoch with the best validation macro-F1), and labels.json,
    training_images.csv (of each species, without those held out) and state/. A part
    of the training images (see `Data.split`) is held out and scored as a whole after every epoch. Where it
    covers fewer than two species there is no score: its figures are empty and the last epoch's weights are kept.

    A record that cannot be read stops the run, by file and position; with `skip_bad` such records are left out,
    which costs a look at every record at each start, and their count is printed and kept in the configs.

    A continued run has the schedule, batches, augmentation and dropout noise of one that was never stopped, and
    its exact figures where the profile is `deterministic`; without that, threads add up in another order.

    Args:
        profile: all settings.
        data: from `utils.datasets.find_data`.
        output_dir: one run's folder; made if it is not there.
        progress: print the devices and one line an epoch, with a bar over its steps in a terminal.
        on_epoch: called after every epoch with the history so far.
        stop_after: stop after so many epochs of this call; the next call continues.
        stop_at: the time.time() at which a session ends. No epoch begins that would last beyond it, by the
            longest so far, and one that does is broken off and counts for nothing; the next call continues.
            For one process: several workers would not stop at the same step.

    Raises:
        UsageError: `output_dir` holds a run with other settings, or `stop_at` is given to one of several workers.
        InputError: `output_dir` holds a run on other data; the data, the weights or the devices cannot be used, the
            loss is no longer a number, or `stop_at` came before the end of the first epoch.
    """
    if stop_at is not None and read_cluster() is not None:
        raise UsageError(
            "stop_at (--max-hours) is for one process: the workers of TF_CONFIG would not agree on it."
        )
    run_dir = Path(output_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    state = RunState(run_dir, profile)
    done = state.read()
    say = print if progress and state.chief else lambda *_, **__: None
    if done.epoch >= profile.epochs:
        _check_data(state, profile, data)
        say(f"{profile.run_name}: all {profile.epochs} epochs are done, in {run_dir}.")
        return _result(profile, run_dir, state, done)

    strategy, devices = choose_strategy(profile.precision)
    say(devices)
    with _reading(profile, data, say, progress and state.chief) as task:
        folder = data.train_shards[0].parent
        state.check_tensorflow()
        state.check_data(task.facts, task.labels, folder)
        if data.split_file is not None:
            say(f"Held out as {data.split_file} says.")
        say(f"{task.coverage}.")
        if task.shared_duplicates:
            say(
                f"Warning: {task.shared_duplicates} groups of copies in {DUPLICATES} lie in more than one part, so "
                "scores come out too good. Remove the copies, or split by a column that says what belongs "
                "together (split --group)."
            )
        tf.keras.utils.set_random_seed(profile.seed)  # it goes into the shuffles of tf.data
        if profile.deterministic:
            tf.config.experimental.enable_op_determinism()
        with strategy.scope():
            model = _compiled(task, make_optimizer(profile, task.steps))
            checkpoint = model.checkpoint()
            state.restore(checkpoint)
        if done.epoch:
            say(f"{profile.run_name}: continues after epoch {done.epoch} of {profile.epochs}.")
        elif state.chief:
            _describe(task, model, run_dir, devices)

        schedule = make_schedule(profile, task.steps)
        validation = task.validation()
        last = profile.epochs if stop_after is None else min(profile.epochs, done.epoch + stop_after)
        guard = _SessionGuard(stop_at)
        callbacks: list[Any] = [] if stop_at is None else [guard]
        if progress and state.chief and sys.stdout.isatty():
            callbacks.append(_StepBar(task.steps))
        try:
            while done.epoch < last and guard.allows(_longest(profile, done)):
                start = time.perf_counter()
                model.prepare(profile, done.epoch)
                fitted = model.fit(
                    task.training(done.epoch), steps_per_epoch=task.steps, callbacks=callbacks, verbose=0
                )
                if guard.stopped:
                    break
                scored = dict.fromkeys(("loss", "f1_score", "accuracy"), math.nan)
                if task.scored:
                    with model.averaged():
                        scored = model.evaluate(validation, verbose=0, return_dict=True)
                row = {
                    "epoch": done.epoch + 1,
                    "loss": float(fitted.history["loss"][0]),
                    "f1_score": float(fitted.history["f1_score"][0]),
                    "time": round(time.perf_counter() - start, 3),
                    "learning_rate": float(schedule((done.epoch + 1) * task.steps - 1)),
                    "momentum": profile.momentum,
                    "weight_decay": profile.weight_decay,
                    "val_loss": float(scored["loss"]),
                    "val_f1_score": float(scored["f1_score"]),
                    "val_accuracy": float(scored["accuracy"]),
                }
                if not math.isfinite(row["loss"]):
                    raise InputError(
                        f"The loss is {row['loss']} in epoch {row['epoch']}: the learning rate is too high. Set "
                        "max_lr "
                        f"below {profile.max_lr:g} and use another output folder, or delete {run_dir}."
                    )
                done = done.plus(row)
                state.save(checkpoint, model, done, task.facts, folder)
                wait_for_all(strategy)  # a worker that is called again at once must find what the chief saved
                say(_line(done, profile.epochs))
                if on_epoch is not None:
                    on_epoch(done.table())
        except KeyboardInterrupt:
            say(
                f"Interrupted in epoch {done.epoch + 1}. {done.epoch} of {profile.epochs} epochs are saved in "
                f"{run_dir}; "
                "the same call again continues there."
            )
            raise
    if guard.stopped:
        if not done.epoch:
            raise InputError(
                f"{profile.run_name}: the session ends before the first epoch does, so nothing could be saved. "
                f"Set steps_per_epoch below {task.steps} or image_size below {profile.image_size} in the profile."
            )
        say(
            f"Stopped before the session ends. {done.epoch} of {profile.epochs} epochs are saved in {run_dir}; "
            "the next session continues there (on Kaggle: kernel 03b)."
        )
    return _result(profile, run_dir, state, done)


def _compiled(task: _Task, optimizer: Any) -> Trainer:
    profile, labels = task.profile, task.labels
    return make_trainer(
        backbone.build_model(profile, labels.n_classes),
        profile,
        labels,
        optimizer=optimizer,
        loss=make_loss(profile, task.counts, labels),
        metrics=[
            make_metric(labels.n_classes, name="f1_score"),
            tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        ],
    )


def _result(profile: Profile, run_dir: Path, state: RunState, done: Progress) -> TrainResult:
    return TrainResult(
        run_name=profile.run_name,
        run_dir=run_dir,
        history=done.table(),
        best_epoch=done.best_epoch,
        best_f1=done.best_f1,
        weights=state.weights,
        finished=done.epoch >= profile.epochs,
    )


def _line(done: Progress, epochs: int) -> str:
    row = done.history[-1]
    best = " (best)" if done.best_epoch == done.epoch else ""
    validation = f"validation: loss {row['val_loss']:.3f}  F1 {row['val_f1_score']:.3f}{best}"
    if math.isnan(row["val_f1_score"]):
        validation = "validation: no score"
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['loss']:.3f}  F1 "
        f"{row['f1_score']:.3f}  {validation}  {row['time']:.1f} s"
    )


def _describe(task: _Task, model: tf.keras.Model, run_dir: Path, devices: str) -> None:
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
                "parameters": list(backbone.parameter_counts(model)),
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
    with replacing(Path(f"{stem}_model_summary.txt")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    task.labels.save(run_dir / "labels.json")
    with replacing(run_dir / "training_images.csv") as temporary:
        counts = pd.DataFrame({"scientificName": task.labels.names, "images": task.counts})
        counts.to_csv(temporary, index=False, lineterminator="\n")


def _stored(shards: tuple[Path, ...]) -> dict[str, Any] | None:
    """Size and fit of the stored images, by the manifest beside the shards; None without one."""
    manifest = read_manifest(shards[0].parent)
    return manifest and {key: manifest.get("settings", {})[key] for key in ("size", "fit")}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class _SessionGuard(tf.keras.callbacks.Callback):
    """Stops training at a given time, and says before an epoch whether it would be over by then."""

    def __init__(self, stop_at: float | None) -> None:
        super().__init__()
        self._stop_at = math.inf if stop_at is None else stop_at
        self.stopped = False

    def allows(self, seconds: float) -> bool:
        """Whether `seconds` are left; the training counts as stopped when not."""
        self.stopped = self.stopped or time.time() + seconds >= self._stop_at
        return not self.stopped

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not self.allows(0.0):
            self.model.stop_training = True


def _longest(profile: Profile, done: Progress) -> float:
    """Seconds that the next epoch may take: as long as the longest so far, by the pixels of its images."""
    size = profile.image_size_at(done.epoch)
    past = ((row["time"], profile.image_size_at(row["epoch"] - 1)) for row in done.history)
    return max((seconds * (size / before) ** 2 for seconds, before in past), default=0.0)


class _StepBar(tf.keras.callbacks.Callback):
    """A bar over the steps of an epoch, for terminals."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=self._steps, unit="step", leave=False)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._bar.close()


def learning_rate_range_test(
    profile: Profile, data: "Data", *, steps: int = 40, lowest: float = 1e-3, highest: float = 1.0
) -> pd.DataFrame:
    """Train a throwaway network for a few steps with a growing learning rate, to see where the loss falls.

    A good max_lr lies where the loss still falls, somewhat below where it turns up. Nothing is written.
    Source: Smith 2017, arXiv:1506.01186.

    Args:
        profile, data: as for `train`.
        steps: batches to train; the test ends early once the smoothed loss is four times its lowest.
        lowest, highest: first and last learning rate, growing by a constant factor.

    Returns:
        One row a step: learning_rate, loss (of the batch), smoothed_loss (bias-corrected moving average,
        0.9).
    """
    strategy, _ = choose_strategy(profile.precision)
    rows: list[dict[str, float]] = []
    with _reading(profile, data) as task:
        tf.keras.utils.set_random_seed(profile.seed)
        with strategy.scope():
            model = _compiled(task, sgdw(lowest, profile.weight_decay, profile.momentum))
        average = 0.0
        batches = task.training(0).repeat().take(steps)
        for step, (images, classes) in enumerate(batches):
            rate = lowest * (highest / lowest) ** (step / max(steps - 1, 1))
            tf.keras.backend.set_value(model.optimizer.learning_rate, rate)
            loss = float(model.train_on_batch(images, classes, return_dict=True)["loss"])
            average = 0.9 * average + 0.1 * loss
            rows.append(
                {"learning_rate": rate, "loss": loss, "smoothed_loss": average / (1 - 0.9 ** (step + 1))}
            )
            if not math.isfinite(loss) or rows[-1]["smoothed_loss"] > 4 * min(
                row["smoothed_loss"] for row in rows
            ):
                break
    return pd.DataFrame(rows)


def load_trained(
    run_dir: Path, run_name: str | None = None, *, all_heads: bool = False, data: "Data | None" = None
) -> tuple[tf.keras.Model, Profile, LabelMap]:
    """The best network of a run, its profile and its label map.

    On a machine without a GPU a mixed_float16 run is loaded as float32.

    Args:
        run_dir: the output folder of `train`.
        run_name: which run, where the folder holds several.
        all_heads: give the logits of the heads for genus and family too, beside those of the species.
        data: what the network is going to be scored on, where that is to have the species of the run.

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
            found = f"several runs ({', '.join(names)}): name one" if names else "no trained run: train first"
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
    precision = profile.precision if tf.config.list_physical_devices("GPU") else "float32"
    weights = run_dir / f"{run_name}_weights.h5"
    if not weights.exists():
        raise InputError(
            f"{weights}: not there. The run has not finished its first epoch; run the training again."
        )
    built = replace(profile, weights=str(weights), precision=precision)
    network = backbone.build_model(built, labels.n_classes, head=True)
    if not all_heads:
        return network, profile, labels
    if not heads.ranks_of(profile):
        raise UsageError(f"{run_dir}: was trained without heads: genus_weight and family_weight are 0.")
    whole = tf.keras.Model(network.input, heads.logits_of_all_ranks(network, profile, labels))
    backbone.load_weights(whole, weights, head=True)
    return whole, profile, labels
