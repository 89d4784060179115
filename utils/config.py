"""Profiles: the settings of one run, for a laptop, for Kaggle, for the tests, for the published recipe.

A profile is a YAML file in utils/profiles/. It is read into one frozen dataclass, so a misspelt key is
an error and not a silently ignored wish. A new setting is one line of `Profile`: its type, the group it belongs to,
its default, what it must be, and what it does.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass
from functools import partial
from importlib import resources
from typing import Any

from utils.files import UsageError, on_kaggle

LITE = ("Lite0", "Lite1", "Lite2")  # EfficientNet-Lite; the others are EfficientNetV2
BACKBONES = ("B0", "B1", "B2", "B3", "S", "M", "L", "XL", *LITE)
_STARTS = {"imagenet": "ImageNet", "imagenet21k": "ImageNet-21k", "imagenet21k-ft1k": "ImageNet-21k-ft1k"}
CLASS_WEIGHTS = ("none", "inverse", "class_balanced")
AUGMENTATIONS = ("none", "flips", "upright", "light")
TURNED = ("flips", "light")  # augmentations that turn sheets upside down
RANKS = ("genus", "family")  # above the species, that a network can have heads for
RESIZE = ("input", "model")
LOSSES = ("cross_entropy", "balanced_softmax", "logit_adjusted", "focal", "arcface")
SIZE_STAGES = 4  # of progressive image sizes, as in EfficientNetV2's paper

# Whether a value is allowed in a profile, and what is, in words, which may name other settings in braces.
Rule = tuple[Callable[[Any, "Profile"], bool], str]


def _setting(group: str, default: Any, *rules: Rule) -> Any:
    """A field of Profile; the default is MISSING where a profile must say it.

    The group "words" changes no result; "data", "network" and "training" always count; a "method" is off at its
    default.
    """
    return dataclasses.field(default=default, metadata={"group": group, "rules": rules})


_words = partial(_setting, "words", MISSING)
_data, _network = partial(_setting, "data"), partial(_setting, "network")
_training, _method = partial(_setting, "training"), partial(_setting, "method")


def _one_of(values: tuple[str, ...], words: str = "") -> Rule:
    return lambda value, _: value in values, words or f"one of {', '.join(values)}"


def _from(least: int) -> Rule:
    return lambda value, _: least <= value < 2**31, f"{least} or more, below 2**31"


_ABOVE_0: Rule = (lambda value, _: value > 0, "above 0")
_PART: Rule = (lambda value, _: 0 <= value < 1, "from 0 to below 1")
_INSIDE: Rule = (lambda value, _: 0 < value < 1, "between 0 and 1")
_SCALE: Rule = (lambda value, _: 0 < value <= 1, "above 0, at most 1")
_WEIGHED: Rule = (
    lambda weights, profile: weights != "none" or not 0 < profile.class_weights_from < 1,
    "inverse or class_balanced where class_weights_from is set",
)
_SMALLER: Rule = (
    lambda size, profile: size == 0 or 32 <= size <= profile.image_size,
    "0, or from 32 to image_size, {image_size}",
)
_ON_RESIZED: Rule = (
    lambda where, profile: where == "input" or not (profile.randaugment or profile.mixup or profile.cutmix),
    '"input" where randaugment, mixup or cutmix is set: they work on resized images',
)
_FITTED: Rule = (
    lambda c, profile: (
        not c or not (profile.hidden_units or profile.frozen_epochs or profile.loss == "arcface")
    ),
    "0 where hidden_units, frozen_epochs or loss arcface is set",
)
_EIGHT = ("M", "L", "XL", *LITE)  # stages, with the stem; the others have seven
_STAGES: Rule = (lambda n, p: 0 <= n <= 7 + (p.backbone in _EIGHT), "from 0 to 7 (M, L, XL, Lite: to 8)")
_DIVISOR: Rule = (
    lambda parts, profile: 1 <= parts <= 16 and profile.batch_size % parts == 0,
    "from 1 to 16 and a divisor of batch_size, {batch_size}",
)


@dataclass(frozen=True)
class Profile:
    """Every setting of a run; the YAML files hold only these keys."""

    name: str = _words()
    about: str = _words()  # who it is for and what it does, one line
    cost: str = _words()  # time and hardware, "unmeasured" where nobody measured it
    expected: str = _words()  # the score to expect with its range over seeds, or "unmeasured"

    # "flora": the generated sample; "shards": TFRecords that are found or given
    source: str = _data(MISSING, _one_of(("flora", "shards"), '"flora" or "shards"'))
    # species of the generated sample, 0 with source "shards"
    flora_species: int = _data(0, (lambda n, p: n >= 2 or p.source != "flora", "2 or more with the sample"))
    flora_max_images: int = _data(100, _from(7))  # images of its commonest species, train and test together
    flora_seed: int = _data(0, _from(0))  # of the sample; not `seed`, so that runs can share one flora
    validation_fraction: float = _data(0.1, _INSIDE)  # of train; a species with two images gets at least one
    skip_bad: bool = _data(False)  # look at every record first and leave damaged ones out, not stop there
    seed: int = _data(0, _from(0))  # of the split, the shuffling, the initial weights

    backbone: str = _network("B0", _one_of(BACKBONES))
    # pixels a side that the network sees, after the crop
    image_size: int = _network(128, (lambda size, _: 32 <= size <= 1024, "from 32 to 1024"))
    # "random", "imagenet21k", "imagenet21k-ft1k", "imagenet", or the path of an .h5 file
    weights: str = _network("random")
    features: str = _network("last", _one_of(("last", "stages")))  # or means of four stages beside the last
    drop_connect: float = _network(0.0, _PART)
    dropout: float = _network(0.0, _PART)  # before and after the hidden layer
    hidden_units: int = _network(0, _from(0))  # dense layer between pooling and logits, 0 for none

    epochs: int = _training(1, (lambda n, _: 1 <= n <= 10_000, "1 or more, up to 10,000"))
    steps_per_epoch: int = _training(0, _from(0))  # 0: one pass over the training images
    batch_size: int = _training(32, _from(1))  # over all replicas
    max_lr: float = _training(0.1, _ABOVE_0)
    initial_lr_scale: float = _training(0.01, _SCALE)  # first learning rate / max_lr
    final_lr_scale: float = _training(0.01, _SCALE)  # last learning rate / first learning rate
    warmup_fraction: float = _training(0.2, _INSIDE)  # of the cycle
    momentum: float = _training(0.9, _PART)  # Nesterov
    weight_decay: float = _training(1e-5, _from(0))  # decoupled, not multiplied by the learning rate
    label_smoothing: float = _training(0.0, _PART)
    class_weights: str = _training("none", _one_of(CLASS_WEIGHTS), _WEIGHED)
    class_balanced_n: int = _training(10, _from(2))  # N of Cui et al. (2019): beta = (N - 1) / N
    crop: float = _training(0.9, _SCALE)  # part of each side that is kept; central in evaluation
    random_crop: bool = _training(True)  # in training: a random window, or the central one as published
    # flips, brightness, contrast, saturation; "upright": not top to bottom; "flips": no colours; "none"
    augment: str = _training("light", _one_of(AUGMENTATIONS))

    # methods for the long tail; each is off as it stands here
    loss: str = _method("cross_entropy", _one_of(LOSSES))  # see utils/training/losses.py
    tau: float = _method(1.0, _from(0))  # of "logit_adjusted"; at 1 it is "balanced_softmax"
    focal_gamma: float = _method(2.0, _from(0))  # of "focal"
    arcface_centres: int = _method(3, _from(1))  # of "arcface": centres a class
    arcface_scale: float = _method(30.0, _ABOVE_0)  # logits are this times a cosine
    # margin of a class with n images, in radians: this x n^-power + least
    arcface_margin: float = _method(0.5, _from(0))
    arcface_margin_power: float = _method(0.25, _from(0))
    arcface_margin_least: float = _method(0.05, _from(0))
    class_weights_from: float = _method(0.0, _PART)  # of the run, before class_weights count (deferred)
    genus_weight: float = _method(0.0, _from(0))  # of the loss of a head for the genus, 0 for no such head
    family_weight: float = _method(0.0, _from(0))  # of the loss of a head for the family
    mixup: float = _method(0.0, _from(0))  # alpha of the beta distribution that blends two images, 0 for none
    # alpha for pasted boxes; with mixup too, an image gets one of both
    cutmix: float = _method(0.0, _from(0))
    randaugment: int = _method(0, _from(0))  # operations an image, after `augment`
    # part of each operation's full strength
    randaugment_magnitude: float = _method(0.3, (lambda part, _: 0 <= part <= 1, "from 0 to 1"))
    ema: float = _method(0.0, _PART)  # decay of averaged weights, which are scored and kept; 0 for none
    # images grow from here to image_size in stages; 0 for one size
    first_image_size: int = _method(0, _SMALLER)
    # first epochs in which only the classifier learns
    frozen_epochs: int = _method(0, (lambda n, p: 0 <= n <= p.epochs, "from 0 to epochs, {epochs}"))
    # C of the balanced logistic regression that fits the classifier to frozen features as the first epoch; 0 for none
    regression: float = _method(0.0, _from(0), _FITTED)
    frozen_stages: int = _method(0, _STAGES)  # first stages, the stem is one, that never learn
    fixed_statistics: bool = _method(False)  # batch normalisation stays as the weights came
    tta: bool = _method(False)  # predict from a sheet and its mirror images (those of `augment`)
    # where training images are flipped, coloured and resized: by the CPU, or by the device as the first part of
    # a step, which leaves the CPU only the decoding
    resize: str = _method("input", _one_of(RESIZE), _ON_RESIZED)
    # parts of a batch that go through the network one after another, for small GPUs
    accumulate: int = _method(1, _DIVISOR)

    deterministic: bool = _training(False)  # same figures every time and after a resume; slower, on GPUs much
    # mixed_float16 needs a GPU
    precision: str = _training("float32", _one_of(("float32", "mixed_float16")))

    def __post_init__(self) -> None:
        for name, field in _FIELDS.items():
            value = getattr(self, name)
            for holds, allowed in field.metadata["rules"]:
                if not holds(value, self):
                    allowed = allowed.format_map(self.to_dict())
                    raise UsageError(f"profile {self.name}: {name} is {value!r}, must be {allowed}.")

    @property
    def run_name(self) -> str:
        """The stem of the files a training run leaves, in the published run's pattern."""
        tag = {"none": "NOW", "inverse": "INVW", "class_balanced": f"CLSBW{self.class_balanced_n}"}
        weights = tag[self.class_weights]
        return f"{self.network_name}_{self.image_size}_OCEP{self.epochs}_FC_{weights}_None"

    @property
    def network_name(self) -> str:
        """EfficientNetV2B0, EfficientNetLite0."""
        return f"EfficientNet{'' if self.backbone in LITE else 'V2'}{self.backbone}"

    @property
    def start(self) -> str:
        """What people call the weights that training starts from: ImageNet, ImageNet-21k, random, a file's name."""
        return _STARTS.get(self.weights, self.weights.rsplit("/", 1)[-1])

    @property
    def sgd_epochs(self) -> int:
        """Epochs of gradient steps: all but the one of the regression."""
        return self.epochs - (self.regression > 0)

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
        on = {name for name in self.changed() if _FIELDS[name].metadata["group"] == "method"}
        on |= {name for name, field in _FIELDS.items() if field.metadata["group"] in ("network", "training")}
        return {name: value for name, value in self.to_dict().items() if name in on}

    def changed(self) -> dict[str, Any]:
        """The settings that are not at their defaults, without the words about the profile."""
        values = self.to_dict().items()
        return {name: value for name, value in values if name not in WORDS and value != DEFAULTS[name]}

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values, in the order of the fields."""
        return dataclasses.asdict(self)


_FIELDS = {field.name: field for field in dataclasses.fields(Profile)}
DEFAULTS = {name: field.default for name, field in _FIELDS.items()}  # MISSING where a profile must say it
WORDS = tuple(name for name, field in _FIELDS.items() if field.metadata["group"] == "words")


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("utils") / "profiles"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


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
    missing = [name for name, default in DEFAULTS.items() if default is MISSING and name not in values]
    if missing:
        raise UsageError(f"{where}: missing setting {missing[0]!r}.")
    typed = {key: _typed(key, value, where) for key, value in values.items()}
    try:
        return Profile(**typed)
    except UsageError as error:  # which knows the profile's name only, not the file that it is read from
        raise error if str(error).startswith(where) else UsageError(f"{where}: {error}") from None


def load_profile(name: str | None = "auto", /, **overrides: Any) -> Profile:
    """Read a profile by name, with some settings replaced.

    `auto`, and None as papermill gives it, is "kaggle" on Kaggle and "laptop" elsewhere.

    Raises:
        UsageError: the name or an override is unknown, or a value is out of range.
    """
    import yaml

    if name in ("auto", None, "None"):
        name = "kaggle" if on_kaggle() else "laptop"
    if name not in profile_names():
        raise UsageError(f"unknown profile {name!r}.{nearest(name, profile_names())}")
    source = resources.files("utils") / "profiles" / f"{name}.yaml"
    values = yaml.safe_load(source.read_text(encoding="utf-8"))
    return profile_from_dict({"name": name, **values, **overrides}, f"profile {name}")
