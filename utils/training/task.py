"""What a training learns from: the classes, split and batches of a profile's data, and what damage does to them."""

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import tensorflow as tf

from utils.config import Profile
from utils.data import splits, tail
from utils.data.batches import evaluation_dataset, training_dataset
from utils.data.damage import WAY_OUT, BadRecord, bad_records, naming_damage, without_bad
from utils.data.labels import LabelMap
from utils.data.splits import DUPLICATES, shared_duplicates
from utils.files import InputError

if TYPE_CHECKING:
    from utils.sources import Data


@dataclass(frozen=True)
class Task:
    """The training data of a profile: its classes, its split, its batches."""

    profile: Profile
    shards: tuple[Path, ...]
    labels: LabelMap
    training_ids: np.ndarray
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
        """Optimizer steps in an epoch."""
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

    def sheets(self, ids: np.ndarray) -> tf.data.Dataset:
        """These sheets in file order, as they are scored: (uint8 [B, S, S, 3], int32 [B])."""
        dataset = evaluation_dataset(
            self.shards,
            image_size=self.profile.image_size,
            batch_size=self.profile.batch_size,
            crop=self.profile.crop,
            only_ids=ids,
            n_classes=self.labels.n_classes,
            count=len(ids),
        )
        return dataset.map(lambda image, label, _: (image, label)).with_options(_sharding())

    def validation(self) -> tf.data.Dataset:
        """The whole validation split, as `sheets` gives it."""
        return self.sheets(self.validation_ids)


def _sharding() -> tf.data.Options:
    """Several workers share records, not files: there may be fewer shards than workers."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _task(profile: Profile, data: "Data", skipped: tuple[BadRecord, ...] = ()) -> Task:
    labels, table = data.labels(), data.split(profile)
    ids, classes, part = (table[name].to_numpy() for name in ("image_id", "class_index", "part"))
    train = part == "train"
    batches = int(train.sum()) // profile.batch_size
    if profile.sgd_epochs and not batches:
        raise InputError(
            f"batch_size is {profile.batch_size}, and there are {train.sum()} training images: set it lower."
        )
    return Task(
        profile=profile,
        shards=data.train_shards,
        labels=labels,
        training_ids=ids[train].astype(str),
        validation_ids=ids[part == "validation"].astype(str),
        held_out_ids=ids[~train].astype(str),
        counts=tail.class_counts(classes[train], labels.n_classes),
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
def reading(
    profile: Profile, data: "Data", say: Callable[[str], None] = lambda _: None, progress: bool = False
) -> Iterator[Task]:
    """The task of a profile, and around its reading the promise that a bad record stops it by name.

    With `skip_bad` all records are looked at first, and copies of the damaged shards, without their bad
    records, are read in their place. The copies last as long as the block, and a resumed run makes the same.
    """
    n_classes = data.labels().n_classes
    if not profile.skip_bad:
        hint = f"{WAY_OUT}, or leave bad records out with `train -s skip_bad=true`"
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
