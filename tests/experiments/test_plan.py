"""The dry plan: its numbers are those of the training, it needs no TensorFlow and says what is missing."""

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.config import BACKBONES, load_profile
from utils.experiments.plan import describe, make_plan
from utils.files import REPOSITORY, InputError
from utils.sources import find_data


def shown(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["train", "--plan", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.parametrize("settings", [{}, {"batch_size": 7}, {"steps_per_epoch": 9}])
def test_the_steps_are_those_of_the_training(sample_flora: Path, settings: dict) -> None:
    from utils.training.task import _task

    profile = load_profile("smoke", **settings)
    data = find_data(profile, sample_flora)
    task, plan = _task(profile, data), make_plan(profile, data)
    assert (plan.steps, plan.classes, plan.exact) == (task.steps, task.labels.n_classes, True)
    assert (plan.train_images, plan.validation_images) == (task.counts.sum(), len(task.validation_ids))
    assert not plan.assumed


def test_a_sample_flora_that_is_not_made_yet_has_the_same_plan(sample_flora: Path) -> None:
    profile = load_profile("smoke")
    made, unmade = make_plan(profile, find_data(profile, sample_flora)), make_plan(profile, None)
    assert replace(unmade, data_bytes=made.data_bytes) == made
    assert 0.5 < unmade.data_bytes / made.data_bytes < 2


def test_a_split_file_says_how_many(sample_flora: Path, tmp_path: Path) -> None:
    for path in sample_flora.iterdir():
        (tmp_path / path.name).symlink_to(path)
    profile = load_profile("smoke")
    ids = find_data(profile, sample_flora).training_table()["image_id"]
    parts = ["test"] * 10 + ["validation"] * 20 + ["train"] * (len(ids) - 30)
    rows = [f"{image_id},{part}" for image_id, part in zip(ids, parts, strict=True)]
    (tmp_path / "split.csv").write_text("\n".join(["image_id,split", *rows]))
    plan = make_plan(profile, find_data(profile, tmp_path))
    assert (plan.train_images, plan.validation_images) == (len(ids) - 30, 20)


def test_parameters_of_the_published_network() -> None:
    assert make_plan(load_profile("reference"), None).parameters == 37_531_629


@pytest.mark.parametrize(
    "backbone",
    [
        "B0",
        "Lite0",
        *(pytest.param(name, marks=pytest.mark.long) for name in BACKBONES if name not in ("B0", "Lite0")),
    ],
)
def test_parameters_are_those_of_the_network(backbone: str) -> None:
    from utils.training.network import build_model, parameter_counts

    settings = (
        {"hidden_units": 16} if backbone == "B2" else {"features": "stages"} if backbone == "Lite0" else {}
    )
    profile = load_profile("smoke", backbone=backbone, **settings)
    plan = make_plan(profile, None)
    assert plan.parameters == parameter_counts(build_model(profile, plan.classes))[0]


@pytest.mark.parametrize(
    "settings", [{"genus_weight": 0.3, "family_weight": 0.1}, {"loss": "arcface"}], ids=str
)
def test_parameters_of_heads_are_counted_where_the_ranks_are_known(
    sample_flora: Path, settings: dict
) -> None:
    import tensorflow as tf

    from utils.training.network import build_model, logits_of_all_ranks

    profile = load_profile("smoke", **settings)
    data = find_data(profile, sample_flora)
    labels = data.labels()
    network = build_model(profile, labels.n_classes)
    whole = tf.keras.Model(network.input, logits_of_all_ranks(network, profile, labels))
    assert make_plan(profile, data).parameters == whole.count_params()
    told = "\n".join(describe(make_plan(profile, None), profile, sample_flora, None))
    assert ("parameters without the heads for genus and family" in told) == ("genus_weight" in settings)


def test_without_data_the_plan_is_of_the_published_set_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.sources.REPOSITORY", tmp_path)
    monkeypatch.setattr("utils.files.REPOSITORY", tmp_path)
    (tmp_path / "data").mkdir()
    code, text = shown("--profile", "kaggle", "--images-per-second", 100)
    assert code == 1 and "no training shards" in text and "NOT THERE" in text
    assert "assumed            images, classes, size of the shards: as in the published set" in text
    assert "about 806,181 to train on, about 33,591 to validate on" in text  # 4% of 839,772 held out
    # 12 epochs of 12,596 steps of 64 images and of 33,591 images of validation
    hours = 12 * (12_596 * 64 + 33_591) / 100 / 3600
    assert f"{hours:.1f} at 100 images/s" in text
    assert "sessions           3 of 11.5 hours" in text  # 2.33 hours an epoch, four in a session
    assert "224, 288, 320, 384 px a side in turn" in text and "70.0 GB" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "data"], "nothing is written"


def test_the_data_that_are_there_are_named(sample_flora: Path) -> None:
    code, text = shown("--profile", "smoke", "--data", sample_flora)
    assert code == 0 and f"1 training shards in {sample_flora}" in text
    assert "give --images-per-second" in text
    found = re.search(r"memory +about ([\d.]+) GB.*, ([\d.]+) GB (available|installed)", text)
    assert found and 1 < float(found[1]) < 3 and float(found[2]) > 0
    assert re.search(r"disk +0\.1 GB for the run, [\d,.]+ GB free", text)


def test_an_epoch_longer_than_a_session_says_what_to_set(tmp_path: Path) -> None:
    profile = load_profile("kaggle")
    plan = make_plan(profile, None)
    (told,) = (line for line in describe(plan, profile, tmp_path, 10.0) if line.startswith("sessions"))
    advised = int(re.search(r"steps_per_epoch to ([\d,]+)", told)[1].replace(",", ""))
    shorter = make_plan(replace(profile, steps_per_epoch=advised), None)
    assert plan.sessions(10.0) == 0 and shorter.sessions(10.0) == profile.epochs
    assert make_plan(replace(profile, steps_per_epoch=advised + 1), None).sessions(10.0) == 0


def test_the_plan_takes_seconds_and_no_tensorflow(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom utils.__main__ import main\n"
        "done = CliRunner().invoke(main, ['train', '--profile', 'laptop', '--plan'])\n"
        "print(done.exit_code, 'tensorflow' in sys.modules)"
    )
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "False"], done.stderr
    assert time.monotonic() - begin < 20


def test_data_that_do_not_fill_a_batch_are_refused_as_in_training(sample_flora: Path) -> None:
    profile = load_profile("smoke", batch_size=1000)
    with pytest.raises(InputError, match="batch_size is 1000, and there are 89 training images"):
        make_plan(profile, find_data(profile, sample_flora))


def test_images_per_second_goes_with_the_plan() -> None:
    done = CliRunner().invoke(main, ["train", "--images-per-second", "10"])
    assert done.exit_code == 2 and "goes with --plan" in done.output


def test_max_hours_count_from_the_start(
    monkeypatch: pytest.MonkeyPatch, sample_flora: Path, tmp_path: Path
) -> None:
    from types import SimpleNamespace

    from utils.training import loop

    asked = {}
    monkeypatch.setattr(
        loop, "train", lambda *_, **options: asked.update(options) or SimpleNamespace(finished=False)
    )
    options = ["--profile", "smoke", "--data", str(sample_flora), "--out", str(tmp_path), "--max-hours", "2"]
    begin = time.time()
    done = CliRunner().invoke(main, ["train", *options])
    assert done.exit_code == 0, done.output
    assert begin + 7200 <= asked["stop_at"] <= time.time() + 7200


def test_a_split_file_of_other_sheets_is_the_reason_that_is_told(sample_flora: Path, tmp_path: Path) -> None:
    for path in sample_flora.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "split.csv").write_text("image_id,split\nmine,train\nother,validation\n")
    code, said = shown("--profile", "smoke", "--data", tmp_path)
    assert code == 1 and re.search(r"split\.csv: image '\S+' is not in it \(\d+ of \d+ images\)", said), said


def test_a_regression_takes_no_step_and_sees_mirror_images_too() -> None:
    alone = load_profile("sheets", source="flora", flora_species=6, flora_max_images=9)
    plan = make_plan(alone, None)
    assert plan.images == 2 * plan.train_images + plan.validation_images
    assert "steps              none: a regression on the features" in describe(plan, alone, Path(), None)
    then = make_plan(replace(alone, epochs=3, batch_size=4), None)
    assert then.images == 2 * then.train_images + 2 * then.steps * 4 + 3 * then.validation_images
    with pytest.raises(InputError, match="batch_size is 999"):
        make_plan(replace(alone, epochs=3, batch_size=999), None)
    assert make_plan(replace(alone, batch_size=999), None) == replace(plan, batch_size=999, steps=0)
