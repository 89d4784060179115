"""Profiles: known keys, known values, the published figures."""

import re

import pytest

from utils.config import load_profile, profile_from_dict, profile_names
from utils.files import REPOSITORY, UsageError
from utils.startup import given


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_comes_with_the_package_is_valid(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile_from_dict(profile.to_dict(), "saved") == profile


def test_auto_is_laptop_here_and_kaggle_on_kaggle(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert load_profile("auto").name == "laptop"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert load_profile("auto").name == "kaggle"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("lapto", {}, "Did you mean 'laptop'"),
        ("laptop", {"epoch": 3}, "Did you mean 'epochs'"),
        ("laptop", {"epochs": "three"}, "epochs is 'three', must be of type int"),
        ("laptop", {"epochs": 2.5}, "epochs is 2.5, must be of type int"),
        ("laptop", {"random_crop": "yes"}, "must be of type bool"),
        ("laptop", {"epochs": 0}, "epochs is 0, must be 1 or more"),
        ("laptop", {"backbone": "B9"}, "must be one of B0"),
        ("laptop", {"class_weights": "inverted"}, "must be one of none, inverse, class_balanced"),
        ("laptop", {"validation_fraction": 1.0}, "between 0 and 1"),
        ("laptop", {"loss": "arc_face"}, "must be one of cross_entropy, balanced_softmax"),
        ("laptop", {"class_weights_from": 0.8}, "class_weights is 'none', must be inverse or class_balanced"),
        (
            "scratch",
            {"first_image_size": 128},
            "first_image_size is 128, must be 0, or from 32 to image_size, 96",
        ),
        (
            "laptop",
            {"accumulate": 5},
            "accumulate is 5, must be from 1 to 16 and a divisor of batch_size, 16",
        ),
        ("laptop", {"resize": "gpu"}, "resize is 'gpu', must be one of input, model"),
        ("laptop", {"resize": "model", "mixup": 0.2}, 'must be "input" where randaugment, mixup or cutmix'),
        ("laptop", {"frozen_epochs": 99}, "frozen_epochs is 99, must be from 0 to epochs"),
        (
            "laptop",
            {"frozen_stages": 9},
            r"frozen_stages is 9, must be from 0 to 7 \(M, L, XL, Lite: to 8\)",
        ),
        ("scratch", {"frozen_stages": 8}, "frozen_stages is 8, must be from 0 to 7"),
        ("laptop", {"epochs": "9" * 30}, "epochs is .*, must be 1 or more, up to 10,000"),
        *(
            ("laptop", {key: 10**30}, rf"{key} is .* or more, below 2\*\*31")
            for key in ("seed", "batch_size")
        ),
        ("laptop", {"ema": 1.0}, "ema is 1.0, must be from 0 to below 1"),
    ],
)
def test_mistakes_are_named_with_the_way_out(name, overrides, message):
    with pytest.raises(UsageError, match=message):
        load_profile(name, **overrides)


def test_a_saved_setting_out_of_range_names_the_file_that_it_is_in():
    settings = {**load_profile("smoke").to_dict(), "source": "flo|a"}
    with pytest.raises(UsageError, match=r"^run/a_configs\.json: profile smoke: source is 'flo\|a'"):
        profile_from_dict(settings, "run/a_configs.json")


def test_numbers_may_come_as_text_or_whole_floats():
    profile = load_profile("laptop", epochs="7", batch_size=8.0, max_lr="1e-2")
    assert (profile.epochs, profile.batch_size, profile.max_lr) == (7, 8, 0.01)


def test_reference_is_the_published_recipe():
    reference = load_profile("reference")
    assert reference.run_name == "EfficientNetV2S_380_OCEP30_FC_CLSBW10_None"
    published = {
        "backbone": "S",
        "weights": "imagenet21k",
        "drop_connect": 0.4,
        "image_size": 380,
        "crop": 0.9,
        "dropout": 0.4,
        "hidden_units": 1024,
        "momentum": 0.9,
        "weight_decay": 1e-5,
        "max_lr": 0.7,
        "warmup_fraction": 0.2,
        "epochs": 30,
        "steps_per_epoch": 1641,
        "batch_size": 512,
        "label_smoothing": 0.1,
        "class_weights": "class_balanced",
        "class_balanced_n": 10,
    }
    assert {key: reference.to_dict()[key] for key in published} == published
    assert reference.max_lr * reference.initial_lr_scale == pytest.approx(0.007)
    assert reference.epochs * reference.steps_per_epoch == 49_230


def test_images_grow_in_stages_to_the_full_size():
    kaggle = load_profile("kaggle")
    sizes = [kaggle.image_size_at(epoch) for epoch in range(kaggle.epochs)]
    assert sizes == [224] * 3 + [288] * 3 + [320] * 3 + [384] * 3
    short = load_profile("scratch", epochs=2, first_image_size=64)
    assert [short.image_size_at(epoch) for epoch in range(2)] == [64, 96]
    one = load_profile("scratch", epochs=1, first_image_size=64)
    assert one.image_size_at(0) == 96
    fixed = load_profile("scratch")
    assert {fixed.image_size_at(epoch) for epoch in range(fixed.epochs)} == {96}


def test_settings_in_use_leave_out_methods_that_are_off():
    scratch = load_profile("scratch").in_use()
    assert next(iter(scratch)) == "backbone" and scratch["epochs"] == 20 and scratch["precision"] == "float32"
    assert not {"loss", "tau", "mixup", "accumulate", "regression"} & scratch.keys()
    assert load_profile("scratch", mixup=0.2).in_use()["mixup"] == 0.2
    assert load_profile("kaggle").in_use()["first_image_size"] == 224


def test_yaml_is_read_without_making_objects():
    code = [
        path for folder in ("utils", "tests", "benchmarks") for path in (REPOSITORY / folder).rglob("*.py")
    ]
    code += (REPOSITORY / "notebooks").rglob("*.ipynb")
    used = {name for path in code for name in re.findall(r"\byaml\.(\w+)", path.read_text(encoding="utf-8"))}
    of_nodes = {"compose", "MappingNode", "SequenceNode"}  # the text as a tree, from which nothing is made
    of_texts = {"load", "BaseLoader"}  # together, every value as the text that it is
    assert used - {"safe_dump", "YAMLError"} - of_nodes - of_texts == {"safe_load"}
    loads = [
        call for path in code for call in re.findall(r"yaml\.load\(.*", path.read_text(encoding="utf-8"))
    ]
    assert all("Loader=yaml.BaseLoader" in call for call in loads)


@pytest.mark.parametrize("default", [0, 0.0, False, "auto"])
def test_none_for_a_notebooks_parameter_is_its_default(default):
    assert given(None, default) == default and given("None", default) == default


@pytest.mark.parametrize(
    ("value", "default", "is_read_as"),
    [
        (3, 0, 3),
        ("3", 0, 3),
        ("0.5", 0.0, 0.5),
        ("False", True, False),
        ("true", False, True),
        ("x", "a", "x"),
    ],
)
def test_a_notebooks_parameter_given_as_text_is_read(value, default, is_read_as):
    assert given(value, default) == is_read_as and type(given(value, default)) is type(is_read_as)


@pytest.mark.parametrize(("value", "default"), [("many", 0), ("1.5", 0), ("x", 0.0), ("yes", False)])
def test_a_text_of_another_type_for_a_notebooks_parameter_is_refused(value, default):
    with pytest.raises(UsageError, match=f"a parameter is '{value}', must be"):
        given(value, default)


def test_none_for_the_profile_is_auto(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert load_profile(None) == load_profile("None") == load_profile("auto")
