"""Profiles: the settings of one run, for a laptop, for Kaggle, for the tests, for the published recipe.

A profile is a YAML file in utils/profiles/. It is read into one frozen dataclass, so a misspelt key is
an error and not a silently ignored wish.
"""

import dataclasses
import difflib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from utils.files import UsageError

BACKBONES = ("B0", "B1", "B2", "B3", "S", "M", "L", "XL")
CLASS_WEIGHTS = ("none", "inverse", "class_balanced")
AUGMENTATIONS = ("none", "flips", "upright", "light")
TURNED = ("flips", "light")  # augmentations that turn sheets upside down
RANKS = ("genus", "family")  # above the species, that a network can have heads for
RESIZE = ("input", "model")
LOSSES = ("cross_entropy", "balanced_softmax", "logit_adjusted", "focal", "arcface")
SIZE_STAGES = 4  # of progressive image sizes, as in EfficientNetV2's paper


@dataclass(frozen=True)
class Profile:
    """Every setting of a run; the YAML files hold only these keys."""

    name: str
    about: str  # who it is for and what it does, one line
    cost: str  # time and hardware, "unmeasured" where nobody measured it
    expected: str  # the score to expect with its range over seeds, or "unmeasured"

    # data
    source: str  # "flora": the generated sample; "shards": TFRecords that are found or given
    flora_species: int = 0  # species of the generated sample, 0 with source "shards"
    flora_max_images: int = 100  # images of its commonest species, train and test together
    flora_seed: int = 0  # of the sample, apart from `seed` so that several runs share one flora
    validation_fraction: float = 0.1  # of train; every species with two images gets at least one
    skip_bad: bool = False  # look at every record first and leave damaged ones out, instead of stopping there
    seed: int = 0  # of the split, the shuffling, the initial weights

    # model
    backbone: str = "B0"  # EfficientNetV2-<backbone>
    image_size: int = 128  # pixels a side that the network sees, after the crop
    weights: str = (
        "random"  # "random", "imagenet21k", "imagenet21k-ft1k", "imagenet", or the path of an .h5 file
    )
    drop_connect: float = 0.0
    dropout: float = 0.0  # before and after the hidden layer
    hidden_units: int = 0  # dense layer between pooling and logits, 0 for none

    # training
    epochs: int = 1
    steps_per_epoch: int = 0  # 0: one pass over the training images
    batch_size: int = 32  # over all replicas
    max_lr: float = 0.1
    initial_lr_scale: float = 0.01  # first learning rate / max_lr
    final_lr_scale: float = 0.01  # last learning rate / first learning rate
    warmup_fraction: float = 0.2  # of the cycle
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 1e-5  # decoupled, not multiplied by the learning rate
    label_smoothing: float = 0.0
    class_weights: str = "none"  # one of CLASS_WEIGHTS
    class_balanced_n: int = 10  # N of Cui et al. (2019): beta = (N - 1) / N
    crop: float = 0.9  # part of each side that is kept; central in evaluation
    random_crop: bool = True  # in training: a random window, or the central one as published
    # flips, brightness, contrast, saturation; "upright": not top to bottom; "flips": no colours; "none"
    augment: str = "light"
    # methods for the long tail; each is off as it stands here
    loss: str = "cross_entropy"  # one of LOSSES, see utils/training/losses.py
    tau: float = 1.0  # of "logit_adjusted"; at 1 it is "balanced_softmax"
    focal_gamma: float = 2.0  # of "focal"
    arcface_centres: int = 3  # of "arcface": centres a class
    arcface_scale: float = 30.0  # logits are this times a cosine
    arcface_margin: float = 0.5  # margin of a class with n images, in radians: this x n^-power + least
    arcface_margin_power: float = 0.25
    arcface_margin_least: float = 0.05
    class_weights_from: float = 0.0  # part of the run after which class_weights count (deferred re-weighting)
    genus_weight: float = 0.0  # of the loss of a head for the genus, 0 for no such head
    family_weight: float = 0.0  # of the loss of a head for the family
    mixup: float = 0.0  # alpha of the beta distribution that blends two images, 0 for none
    cutmix: float = 0.0  # alpha for pasted boxes; with mixup too, each image gets one of the two
    randaugment: int = 0  # operations an image, after `augment`
    randaugment_magnitude: float = 0.3  # part of each operation's full strength
    ema: float = 0.0  # decay of an average of the weights, which is scored and kept; 0 for none
    first_image_size: int = 0  # images grow from here to image_size in stages; 0 for one size
    frozen_epochs: int = 0  # first epochs in which only the classifier learns
    # where training images are flipped, coloured and resized: by the CPU, or by the device as the first part of
    # a step, which leaves the CPU only the decoding
    resize: str = "input"
    accumulate: int = 1  # parts of a batch that go through the network one after another, for small GPUs

    deterministic: bool = False  # the same figures in every run and after a resume; slower, on a GPU much
    precision: str = "float32"  # or "mixed_float16", which needs a GPU

    def __post_init__(self) -> None:
        rules = [
            ("source", self.source in ("flora", "shards"), '"flora" or "shards"'),
            ("flora_species", self.source != "flora" or self.flora_species >= 2, "2 or more with the sample"),
            ("flora_max_images", self.flora_max_images >= 7, "7 or more"),
            ("validation_fraction", 0 < self.validation_fraction < 1, "between 0 and 1"),
            ("flora_seed", self.flora_seed >= 0, "0 or more"),
            ("seed", self.seed >= 0, "0 or more"),
            ("backbone", self.backbone in BACKBONES, f"one of {', '.join(BACKBONES)}"),
            ("image_size", 32 <= self.image_size <= 1024, "from 32 to 1024"),
            ("drop_connect", 0 <= self.drop_connect < 1, "from 0 to below 1"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("hidden_units", self.hidden_units >= 0, "0 or more"),
            ("epochs", self.epochs >= 1, "1 or more"),
            ("steps_per_epoch", self.steps_per_epoch >= 0, "0 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("max_lr", self.max_lr > 0, "above 0"),
            ("initial_lr_scale", 0 < self.initial_lr_scale <= 1, "above 0, at most 1"),
            ("final_lr_scale", 0 < self.final_lr_scale <= 1, "above 0, at most 1"),
            ("warmup_fraction", 0 < self.warmup_fraction < 1, "between 0 and 1"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1"),
            ("class_weights", self.class_weights in CLASS_WEIGHTS, f"one of {', '.join(CLASS_WEIGHTS)}"),
            ("class_balanced_n", self.class_balanced_n >= 2, "2 or more"),
            ("crop", 0 < self.crop <= 1, "above 0, at most 1"),
            ("augment", self.augment in AUGMENTATIONS, f"one of {', '.join(AUGMENTATIONS)}"),
            ("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}"),
            ("tau", self.tau >= 0, "0 or more"),
            ("focal_gamma", self.focal_gamma >= 0, "0 or more"),
            ("arcface_centres", self.arcface_centres >= 1, "1 or more"),
            ("arcface_scale", self.arcface_scale > 0, "above 0"),
            ("arcface_margin", self.arcface_margin >= 0, "0 or more"),
            ("arcface_margin_power", self.arcface_margin_power >= 0, "0 or more"),
            ("arcface_margin_least", self.arcface_margin_least >= 0, "0 or more"),
            ("class_weights_from", 0 <= self.class_weights_from < 1, "from 0 to below 1"),
            (
                "class_weights",
                not self.class_weights_from or self.class_weights != "none",
                "inverse or class_balanced where class_weights_from is set",
            ),
            ("genus_weight", self.genus_weight >= 0, "0 or more"),
            ("family_weight", self.family_weight >= 0, "0 or more"),
            ("mixup", self.mixup >= 0, "0 or more"),
            ("cutmix", self.cutmix >= 0, "0 or more"),
            ("randaugment", self.randaugment >= 0, "0 or more"),
            ("randaugment_magnitude", 0 <= self.randaugment_magnitude <= 1, "from 0 to 1"),
            ("ema", 0 <= self.ema < 1, "from 0 to below 1"),
            (
                "first_image_size",
                self.first_image_size == 0 or 32 <= self.first_image_size <= self.image_size,
                f"0, or from 32 to image_size, {self.image_size}",
            ),
            ("frozen_epochs", 0 <= self.frozen_epochs <= self.epochs, f"from 0 to epochs, {self.epochs}"),
            ("resize", self.resize in RESIZE, f"one of {', '.join(RESIZE)}"),
            (
                "resize",
                self.resize == "input" or not (self.randaugment or self.mixup or self.cutmix),
                '"input" where randaugment, mixup or cutmix is set: they work on resized images',
            ),
            (
                "accumulate",
                1 <= self.accumulate <= 16 and self.batch_size % self.accumulate == 0,
                f"from 1 to 16 and a divisor of batch_size, {self.batch_size}",
            ),
            ("precision", self.precision in ("float32", "mixed_float16"), '"float32" or "mixed_float16"'),
        ]
        for key, holds, allowed in rules:
            if not holds:
                raise UsageError(f"profile {self.name}: {key} is {getattr(self, key)!r}, must be {allowed}.")

    @property
    def run_name(self) -> str:
        """The stem of the files a training run leaves, in the published run's pattern."""
        tag = {"none": "NOW", "inverse": "INVW", "class_balanced": f"CLSBW{self.class_balanced_n}"}
        weights = tag[self.class_weights]
        return f"EfficientNetV2{self.backbone}_{self.image_size}_OCEP{self.epochs}_FC_{weights}_None"

    def image_size_at(self, epoch: int) -> int:
        """Pixels a side of the training images of an epoch, which counts from 0.

        With `first_image_size` the epochs fall into at most 4 stages of equal length, whose sizes grow evenly
        up to image_size, rounded to 32 pixels: progressive learning of EfficientNetV2 (Tan & Le 2021,
        arXiv:2104.00298, algorithm 1).
        """
        stages = min(SIZE_STAGES, self.epochs)
        stage = epoch * stages // self.epochs
        if not self.first_image_size or stage == stages - 1:
            return self.image_size
        size = self.first_image_size + (self.image_size - self.first_image_size) * stage / (stages - 1)
        return 32 * round(size / 32) if stage else self.first_image_size

    def in_use(self) -> dict[str, Any]:
        """The settings of network and training, without the methods for the long tail that are off."""
        names = list(_FIELDS)
        methods = names[names.index("loss") : names.index("accumulate") + 1]
        return {
            name: getattr(self, name)
            for name in names[names.index("backbone") :]
            if name not in methods or getattr(self, name) != _FIELDS[name].default
        }

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values, in the order of the fields."""
        return dataclasses.asdict(self)


_FIELDS = {field.name: field for field in dataclasses.fields(Profile)}


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("utils") / "profiles"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def _typed(key: str, value: Any, where: str) -> Any:
    """`value` as the type of field `key`: YAML and papermill give int for 1.0, str for a quoted number."""
    wanted = _FIELDS[key].type
    try:
        if wanted in (str, bool) and isinstance(value, wanted):
            return value
        if wanted in (int, float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and number == wanted(number):
                return wanted(number)
    except (TypeError, ValueError, OverflowError):
        pass  # the message below names the value and the type
    raise UsageError(f"{where}: {key} is {value!r}, must be of type {wanted.__name__}.")


def profile_from_dict(values: dict[str, Any], where: str) -> Profile:
    """Make a Profile from plain values, as in a YAML file or a saved configs.json.

    Raises:
        UsageError: a key is unknown (the message names the nearest known one), missing or out of range.
    """
    for key in values:
        if key not in _FIELDS:
            raise UsageError(f"{where}: unknown setting {key!r}.{nearest(key, list(_FIELDS))}")
    missing = [
        name for name, field in _FIELDS.items() if field.default is dataclasses.MISSING and name not in values
    ]
    if missing:
        raise UsageError(f"{where}: missing setting {missing[0]!r}.")
    typed = {key: _typed(key, value, where) for key, value in values.items()}
    try:
        return Profile(**typed)
    except UsageError as error:  # which knows the profile's name only, not the file that it is read from
        raise error if str(error).startswith(where) else UsageError(f"{where}: {error}") from None


def load_profile(name: str | None = "auto", **overrides: Any) -> Profile:
    """Read a profile by name, with some settings replaced.

    `auto`, and None as papermill gives it, is "kaggle" on Kaggle and "laptop" elsewhere.

    Raises:
        UsageError: the name or an override is unknown, or a value is out of range.
    """
    import yaml

    if name in ("auto", None, "None"):
        name = "kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in os.environ else "laptop"
    if name not in profile_names():
        raise UsageError(f"unknown profile {name!r}.{nearest(name, profile_names())}")
    source = resources.files("utils") / "profiles" / f"{name}.yaml"
    values = yaml.safe_load(source.read_text(encoding="utf-8"))
    return profile_from_dict({"name": name, **values, **overrides}, f"profile {name}")


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
