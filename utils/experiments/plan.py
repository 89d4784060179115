"""What a training will take: steps, images, hours, sessions, disk and memory; without TensorFlow, in seconds."""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from utils.config import RANKS, Profile
from utils.course.kernels import BY_NUMBER
from utils.data import splits
from utils.data.records import count_records
from utils.files import InputError
from utils.sources import Data

# Of Kaggle's 12 hours, the rest is for the start and the last save: as the kernel that trains is given them.
SESSION_HOURS = BY_NUMBER["03"].parameters["MAX_HOURS"]
# The published set (README of dpl10/NAFlora-1M), for a plan without the data.
PUBLISHED_IMAGES, PUBLISHED_CLASSES = 839_772, 15_501
PUBLISHED_BYTES = 70e9  # its training shards
# Without the classifier: parameters, features of the last layer, and those that `features: stages` takes beside them.
_BACKBONES = {
    "B0": (5_919_312, 1_280, 448),
    "B1": (6_931_124, 1_280, 448),
    "B2": (8_769_374, 1_408, 488),
    "B3": (12_930_622, 1_536, 536),
    "S": (20_331_360, 1_280, 608),
    "M": (53_150_388, 1_280, 720),
    "L": (117_746_848, 1_280, 896),
    "XL": (207_615_832, 1_280, 1_056),
    "Lite0": (3_413_024, 1_280, 424),
    "Lite1": (4_189_344, 1_280, 424),
    "Lite2": (4_869_168, 1_280, 464),
}
_READ_UP_TO = 100_000  # images whose metadata are read for exact numbers; the published take too long
_SHUFFLED = 2_048  # records in the shuffle buffer
_BASE_MEMORY = 1.2e9  # a process with TensorFlow; profile laptop came to 1.4 GB in all on 2 CPU cores
_METADATA_MEMORY = 1_300  # bytes an image, while its tables are read


@dataclass(frozen=True)
class TrainingPlan:
    """Numbers of a training."""

    classes: int
    train_images: int
    validation_images: int
    steps: int  # in an epoch
    epochs: int
    regression: (
        bool  # the first epoch is one: a pass over all images, and the mirror images of those to train on
    )
    batch_size: int
    image_size: int
    parameters: int
    data_bytes: float  # of the training shards
    uncounted: tuple[str, ...]  # ranks whose heads are not in `parameters`, since their names were not found
    assumed: tuple[str, ...]  # what is taken from the published set, since it was not found
    exact: bool  # whether the split was made; else a share of the images

    @property
    def sgd_epochs(self) -> int:
        """Epochs of gradient steps."""
        return self.epochs - self.regression

    @property
    def images(self) -> int:
        """Images that go through the network in all epochs, those of the validation counted like the others."""
        learnt = self.sgd_epochs * self.steps * self.batch_size + self.regression * 2 * self.train_images
        return learnt + self.epochs * self.validation_images

    @property
    def run_bytes(self) -> int:
        """Disk that the run's folder needs while an epoch is saved: two states and two files of weights."""
        return 24 * self.parameters

    @property
    def memory_bytes(self) -> float:
        """Main memory, about: TensorFlow, tables, shuffle buffer, batches, weights with momentum and gradients.

        On a CPU the activations come on top, on a GPU they are in its own memory; they are not estimated.
        """
        images = self.train_images + self.validation_images
        record = self.data_bytes / max(images, 1)
        batches = 8 * self.batch_size * self.image_size**2 * 3
        tables = _METADATA_MEMORY * images
        return _BASE_MEMORY + tables + _SHUFFLED * record + batches + 12 * self.parameters

    def hours(self, images_per_second: float) -> float:
        """Hours of all epochs."""
        return self.images / images_per_second / 3600

    def sessions(self, images_per_second: float) -> int:
        """Sessions of SESSION_HOURS, since only whole epochs are kept; 0 where not even one fits."""
        in_a_session = int(SESSION_HOURS / (self.hours(images_per_second) / self.epochs))
        return math.ceil(self.epochs / in_a_session) if in_a_session else 0


def make_plan(profile: Profile, data: Data | None) -> TrainingPlan:
    """The plan of a profile on these data, or, where there are none, on the published set or the sample flora.

    Raises:
        InputError: the data cannot be read, or they do not fill a batch.
    """
    assumed: list[str] = []
    size = float(PUBLISHED_BYTES)
    labels, exact = None, True
    if data is not None:
        size = sum(path.stat().st_size for path in data.train_shards)
        total = count_records(data.train_shards)
        if data.label_file is not None or (data.train_metadata is not None and total <= _READ_UP_TO):
            labels = data.labels()
        if labels is None:
            assumed.append("classes")
        train, validation, exact = _split(profile, data, total)
        classes = labels.n_classes if labels is not None else PUBLISHED_CLASSES
    elif profile.source == "flora":
        from utils.flora.sample import training_counts

        classes = profile.flora_species
        counts = training_counts(classes, profile.flora_seed, profile.flora_max_images)
        size = 86e3 * counts.sum()
        species = [index for index, count in enumerate(counts) for _ in range(count)]
        ids = [str(number) for number in range(len(species))]
        trained, held = splits.stratified(ids, species, profile.validation_fraction, profile.seed)
        train, validation = int(trained.sum()), int(held.sum())
    else:
        assumed += ["images", "classes", "size of the shards"]
        classes = PUBLISHED_CLASSES
        train, validation, exact = *_share(profile, PUBLISHED_IMAGES), False
    if train < profile.batch_size and profile.sgd_epochs:
        raise InputError(
            f"batch_size is {profile.batch_size}, and there are {train} training images: set it lower."
        )
    parameters, features, of_stages = _BACKBONES[profile.backbone]
    features += of_stages if profile.features == "stages" else 0
    if profile.hidden_units:
        parameters += (features + 1) * profile.hidden_units
        features = profile.hidden_units
    if profile.loss == "arcface":
        parameters += features * classes * profile.arcface_centres
    else:
        parameters += (features + 1) * classes
    ranks = [rank for rank in RANKS if getattr(profile, f"{rank}_weight")]
    for rank in ranks if labels is not None else ():
        parameters += (features + 1) * len(getattr(labels, f"{rank}_names"))
    return TrainingPlan(
        classes=classes,
        train_images=train,
        validation_images=validation,
        steps=profile.steps_per_epoch or train // profile.batch_size,
        epochs=profile.epochs,
        regression=profile.regression > 0,
        batch_size=profile.batch_size,
        image_size=profile.image_size,
        parameters=parameters,
        data_bytes=size,
        uncounted=tuple(ranks) if labels is None else (),
        assumed=tuple(assumed),
        exact=exact,
    )


def _share(profile: Profile, total: int) -> tuple[int, int]:
    validation = int(total * profile.validation_fraction + 0.5)
    return total - validation, validation


def _split(profile: Profile, data: Data, total: int) -> tuple[int, int, bool]:
    """Images to train on and to validate on, and whether they were counted."""
    if data.train_metadata is not None and total <= _READ_UP_TO:
        part = data.split(profile, compare=False)["part"]  # needs no TensorFlow
        return int((part == "train").sum()), int((part == "validation").sum()), True
    if data.split_file is not None:
        parts = splits.read_split(data.split_file)["split"].tolist()
        if len(parts) < total:
            raise InputError(
                f"{data.split_file}: names {len(parts):,} images, and the shards hold {total:,}. Write the split for "
                "these sheets, or remove the file."
            )
        return parts.count("train"), parts.count("validation"), True
    if data.val_shards:
        validation = count_records(data.val_shards)
        return total - validation, validation, True
    return *_share(profile, total), False


def describe(plan: TrainingPlan, profile: Profile, out: Path, images_per_second: float | None) -> list[str]:
    """The plan in lines; `out` is where the run will be, of which only the free space is looked at."""
    about = "" if plan.exact else "about "
    sizes = dict.fromkeys(profile.image_size_at(epoch) for epoch in range(profile.epochs))
    heads = f" without the heads for {' and '.join(plan.uncounted)}" if plan.uncounted else ""
    steps = f"{plan.steps:,} an epoch of {plan.batch_size} images, {plan.sgd_epochs} epochs, "
    steps += f"{plan.steps * plan.sgd_epochs:,} in all"
    if plan.regression:  # a pass over all images, without a step
        steps = "none: a regression on the features" if plan.epochs == 1 else f"{steps}, after a regression"
    lines = [
        f"profile            {profile.name}: {profile.network_name}, {profile.start} weights, "
        f"{plan.parameters:,} parameters{heads}, {plan.classes:,} classes",
        f"images             {about}{plan.train_images:,} to train on, {about}{plan.validation_images:,} to "
        "validate on",
        f"image size         {', '.join(map(str, sizes))} px a side{' in turn' * (len(sizes) > 1)}",
        f"steps              {steps}",
    ]
    if images_per_second is None:
        lines.append(
            "hours, sessions    give --images-per-second (notebook 03 measures it in its first epoch)"
        )
    else:
        hours, sessions = plan.hours(images_per_second), plan.sessions(images_per_second)
        needed = f"{sessions} of {SESSION_HOURS} hours"
        if not sessions:
            fits = int(SESSION_HOURS * 3600 * images_per_second - plan.validation_images) // plan.batch_size
            advice = f"set steps_per_epoch to {fits:,} or less" if fits > 0 else "train on fewer images"
            needed = (
                f"an epoch does not fit in {SESSION_HOURS} hours, and only whole epochs are kept: {advice}"
            )
        lines.append(
            f"hours              {hours:.1f} at {images_per_second:g} images/s, {hours / plan.epochs:.2f} an epoch"
        )
        lines.append(f"sessions           {needed}")
    existing = next(folder for folder in (out, *out.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    lines.append(
        f"disk               {_gb(plan.run_bytes)} for the run, {_gb(free)} free in {existing}; training shards "
        f"{_gb(plan.data_bytes)}"
    )
    lines.append(
        f"memory             about {_gb(plan.memory_bytes)} and the activations where there is no GPU, "
        f"{_memory_there()}"
    )
    if plan.assumed:
        lines.append(f"assumed            {', '.join(plan.assumed)}: as in the published set")
    return lines


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _memory_there() -> str:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        if "MemAvailable" in lines:
            return f"{_gb(1024 * int(lines['MemAvailable'].split()[0]))} available"
    return f"{_gb(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} installed"
