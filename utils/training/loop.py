"""Training: epoch by epoch, scored on held-out sheets after each, continued where a killed run stopped."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tensorflow as tf

from utils.config import Profile
from utils.data.damage import WAY_OUT, naming_damage
from utils.data.splits import DUPLICATES
from utils.files import InputError, UsageError, uninterrupted
from utils.training import network
from utils.training.devices import choose_strategy, is_chief, read_cluster, wait_for_all
from utils.training.losses import SparseMacroF1, make_loss
from utils.training.optimizer import make_optimizer, make_schedule
from utils.training.state import Progress, RunState
from utils.training.task import Task, facts_of, reading
from utils.training.trainer import SessionGuard, StepBar, Trainer, stays_random

if TYPE_CHECKING:
    from utils.sources import Data


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
    strategy: tf.distribute.Strategy | None = None  # None where all epochs were done before


def check_run(profile: Profile, data: "Data", output_dir: Path) -> None:
    """See before long work that `train` can go on, or begin, in a folder.

    Raises:
        UsageError: `output_dir` holds a run with other settings.
        InputError: it holds a run on other data.
    """
    from utils.training.runs import check_state

    check_state(Path(output_dir))
    state = RunState(Path(output_dir), profile)
    if state.read().epoch:
        _check_data(state, profile, data)


def _check_data(state: RunState, profile: Profile, data: "Data") -> None:
    """Raise InputError where the run of `state` was made with other data, read here without training on them."""
    labels, folder = data.labels(), data.train_shards[0].parent
    if profile.skip_bad:  # which records count is known only after a look at all
        with reading(profile, data) as task:
            state.check_data(task.facts, labels, folder)
        return
    with naming_damage(data.train_shards, labels.n_classes, way_out=WAY_OUT):
        state.check_data(facts_of(labels, data.split(profile), data.train_shards), labels, folder)


def _alone(training: Callable[..., TrainResult]) -> Callable[..., TrainResult]:
    """Let one process at a time train in a folder; of several workers the chief holds it for all."""

    @wraps(training)
    def held(profile: Profile, data: "Data", output_dir: Path, **options: Any) -> TrainResult:
        from utils.startup import holding

        if options.get("stop_at") is not None and read_cluster() is not None:
            raise UsageError(
                "stop_at (--max-hours) is for one process: several workers would not agree on it."
            )
        with holding(Path(output_dir)) if is_chief() else nullcontext():
            return training(profile, data, output_dir, **options)

    return held


@_alone
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
        data: from `utils.sources.find_data`.
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
    from utils.training.runs import check_state, describe, room_for

    check_state(run_dir := Path(output_dir))
    state = RunState(run_dir, profile)
    done = state.read()
    say = print if progress and state.chief else lambda *_, **__: None
    if done.epoch >= profile.epochs:
        _check_data(state, profile, data)
        state.tidy()
        say(f"{profile.run_name}: all {profile.epochs} epochs are done, in {run_dir}.")
        return _result(profile, run_dir, state, done)

    strategy, devices = choose_strategy(profile.precision)
    say(devices)
    if stays_random(profile):
        say("weights is random, and what is frozen or fixed stays so: take imagenet, or let all of it learn.")
    with reading(profile, data, say, progress and state.chief) as task:
        folder = data.train_shards[0].parent
        state.check_tensorflow()
        state.check_data(task.facts, task.labels, folder)
        state.tidy()
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
            model = compiled(task, make_optimizer(profile, task.steps))
            checkpoint = model.checkpoint()
            state.restore(checkpoint)
        say(room_for(model, run_dir, begun=done.epoch > 0))
        if done.epoch:
            say(f"{profile.run_name}: continues after epoch {done.epoch} of {profile.epochs}.")
        elif state.chief:
            describe(task, model, run_dir, devices)

        schedule = make_schedule(profile, task.steps)
        validation = task.validation()
        last = profile.epochs if stop_after is None else min(profile.epochs, done.epoch + stop_after)
        guard = SessionGuard(stop_at)
        callbacks: list[Any] = [] if stop_at is None else [guard]
        bars = progress and state.chief and sys.stdout.isatty()
        if bars:
            callbacks.append(StepBar(task.steps))
        try:
            while done.epoch < last and guard.allows(longest_epoch(profile, done)):
                start = time.perf_counter()
                model.prepare(done.epoch)
                if profile.regression and not done.epoch:
                    from utils.training.features import fit_classifier

                    fitted, rate = fit_classifier(task, model, bars), 0.0
                else:
                    batches, steps = task.training(done.epoch), task.steps
                    fitted = model.fit(batches, steps_per_epoch=steps, callbacks=callbacks, verbose=0).history
                    rate = float(schedule((done.epoch + 1 - profile.epochs + profile.sgd_epochs) * steps - 1))
                if guard.stopped:
                    break
                scored = dict.fromkeys(("loss", "f1_score", "accuracy"), math.nan)
                if task.scored:
                    with model.averaged():
                        scored = model.evaluate(validation, verbose=0, return_dict=True)
                row = {
                    "epoch": done.epoch + 1,
                    "loss": float(fitted["loss"][0]),
                    "f1_score": float(fitted["f1_score"][0]),
                    "time": round(time.perf_counter() - start, 3),
                    "learning_rate": rate,
                    "momentum": profile.momentum,
                    "weight_decay": profile.weight_decay,
                    "val_loss": float(scored["loss"]),
                    "val_f1_score": float(scored["f1_score"]),
                    "val_accuracy": float(scored["accuracy"]),
                }
                if not math.isfinite(row["loss"]):
                    raise InputError(
                        f"The loss is {row['loss']} in epoch {row['epoch']}: the learning rate is too high. Set "
                        f"max_lr below {profile.max_lr:g} and use another output folder, or delete {run_dir}."
                    )
                done = done.plus(row)
                with uninterrupted():
                    state.save(checkpoint, model, done, task.facts, folder)
                wait_for_all(strategy)  # a worker that is called again at once must find what the chief saved
                say(_line(done, profile.epochs))
                if on_epoch is not None:
                    on_epoch(done.table())
        except KeyboardInterrupt:
            say(
                f"Interrupted in epoch {done.epoch + 1}. {done.epoch} of {profile.epochs} epochs are saved in "
                f"{run_dir}; the same call again continues there."
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
    return _result(profile, run_dir, state, done, strategy)


def compiled(task: Task, optimizer: Any) -> Trainer:
    """The task's network, ready for its first epoch; inside the strategy's scope. InputError as `build_model`."""
    profile, labels = task.profile, task.labels
    return Trainer(
        network.build_model(profile, labels.n_classes),
        profile,
        labels,
        optimizer=optimizer,
        loss=make_loss(profile, task.counts, labels),
        metrics=[
            SparseMacroF1(labels.n_classes, name="f1_score"),
            tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        ],
    )


def _result(
    profile: Profile, run_dir: Path, state: RunState, done: Progress, strategy: Any = None
) -> TrainResult:
    return TrainResult(
        run_name=profile.run_name,
        run_dir=run_dir,
        history=done.table(),
        best_epoch=done.best_epoch,
        best_f1=done.best_f1,
        weights=state.weights,
        finished=done.epoch >= profile.epochs,
        strategy=strategy,
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


def longest_epoch(profile: Profile, done: Progress) -> float:
    """Seconds that the next epoch may take: as long as the longest so far, by the pixels of its images."""
    size = profile.image_size_at(done.epoch)
    past = ((row["time"], profile.image_size_at(row["epoch"] - 1)) for row in done.history)
    return max((seconds * (size / before) ** 2 for seconds, before in past), default=0.0)
