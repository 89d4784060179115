import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from utils.experiments import baselines as module
from utils.experiments.baselines import (
    baselines,
    colour_histograms,
    read_small_images,
    species_for_baselines,
    thumbnails,
)
from utils.files import InputError
from utils.own.shards import Record, write_shards


def sheets(classes, seed, *, colour=0.0, layout=0.0) -> np.ndarray:
    """Noise, with as much of a class's colour and of a class's layout as asked for."""
    generator = np.random.default_rng(seed)
    own = np.random.default_rng(99)
    colours, layouts = own.normal(0, 60, (50, 1, 1, 3)), own.normal(0, 60, (50, 8, 8, 1))
    images = (
        generator.normal(128, 25, (len(classes), 8, 8, 3))
        + colour * colours[classes]
        + layout * layouts[classes]
    )
    return np.clip(images, 0, 255).astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)


TRAIN, TEST = np.repeat(np.arange(4), 20), np.repeat(np.arange(4), 10)


@pytest.fixture(scope="module")
def by_colour() -> pd.DataFrame:
    return baselines(sheets(TRAIN, 0, colour=1), TRAIN, sheets(TEST, 1, colour=1), TEST, 4)


def test_colour_is_found_by_the_histogram_and_layout_by_the_thumbnail(by_colour):
    assert by_colour["macro_f1"].iloc[0] > 0.8
    # a pattern that differs from sheet to sheet in colour only by noise has the same colours everywhere
    train, test = sheets(TRAIN, 0, layout=1), sheets(TEST, 1, layout=1)
    by_layout = baselines(train, TRAIN, test, TEST, 4)
    assert by_layout["macro_f1"].iloc[1] > 0.9
    by_noise = baselines(sheets(TRAIN, 0), TRAIN, sheets(TEST, 1), TEST, 4)
    assert by_noise["macro_f1"].max() < 0.6


def test_the_table_says_what_was_done(by_colour):
    table = by_colour
    assert table["method"].tolist() == [
        "logistic regression, colour histogram",
        "logistic regression, 32 x 32 thumbnail",
    ]
    assert set(table["on"]) == {"all 4 species"}
    assert table["converged"].all()
    assert table["strength"].isin(module.STRENGTHS).all()


def test_the_same_sheets_give_the_same_table(by_colour):
    again = baselines(sheets(TRAIN, 0, colour=1), TRAIN, sheets(TEST, 1, colour=1), TEST, 4)
    assert again.equals(by_colour)


def test_rotating_into_the_span_of_the_sheets_does_not_change_the_model():
    train, test = thumbnails(sheets(TRAIN, 0, layout=0.4)), thumbnails(sheets(TEST, 1, layout=0.4))
    rotated, rotated_test = module._standardised(train, test)
    assert rotated.shape[1] < train.shape[1]
    scaler = StandardScaler().fit(train)
    plain = LogisticRegression(C=0.01, max_iter=1000, tol=1e-6).fit(scaler.transform(train), TRAIN)
    small = LogisticRegression(C=0.01, max_iter=1000, tol=1e-6).fit(rotated, TRAIN)
    expected = plain.predict_proba(scaler.transform(test))
    assert small.predict_proba(rotated_test) == pytest.approx(expected, abs=2e-3)


def test_an_optimiser_that_was_stopped_is_reported(monkeypatch, recwarn):
    monkeypatch.setattr(module, "MAX_ITERATIONS", 2)
    table = baselines(sheets(TRAIN, 0), TRAIN, sheets(TEST, 1), TEST, 4)
    assert not table["converged"].any()
    assert not [warning for warning in recwarn.list if warning.category is ConvergenceWarning]


def test_many_species_are_judged_on_a_seeded_part(monkeypatch):
    assert np.array_equal(species_for_baselines(500, 0), np.arange(500))
    chosen = species_for_baselines(15501, 7)
    assert len(np.unique(chosen)) == 200
    assert np.array_equal(chosen, species_for_baselines(15501, 7))
    assert not np.array_equal(chosen, species_for_baselines(15501, 8))

    monkeypatch.setattr(module, "ALL_SPECIES_UP_TO", 3)
    monkeypatch.setattr(module, "SUBSET", 2)
    table = baselines(sheets(TRAIN, 0, colour=1), TRAIN, sheets(TEST, 1, colour=1), TEST, 4, seed=5)
    assert set(table["on"]) == {"2 of 4 species, drawn with seed 5"}
    assert table["macro_f1"].iloc[0] > 0.8  # over the two species, not diluted by the others


def test_no_sheet_of_the_species_is_an_error():
    with pytest.raises(InputError, match="80 train and 0 test sheets"):
        baselines(sheets(TRAIN, 0), TRAIN, sheets(TEST, 0)[:0], TEST[:0], 4)


def test_a_histogram_by_hand():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, :2] = (255, 0, 40)
    histogram = colour_histograms(image)
    assert histogram.shape == (1, 512)
    assert np.flatnonzero(histogram[0]).tolist() == [0, 7 * 64 + 0 * 8 + 1]
    assert histogram[0, 0] == pytest.approx(np.sqrt(0.5))


def test_thumbnails_are_area_means():
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    thumbnail = thumbnails(image).reshape(32, 32, 3)
    assert thumbnail[3, 5, 1] == pytest.approx(image[0, 6:8, 10:12, 1].mean() / 255)


def jpeg(tmp_path, image) -> bytes:
    Image.fromarray(image).save(tmp_path / "sheet.jpg", quality=95)
    return (tmp_path / "sheet.jpg").read_bytes()


def test_small_images_come_with_their_ids_and_classes(tmp_path):
    images = np.zeros((3, 480, 480, 3), np.uint8)
    images[:, :240] = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])[:, None, None]
    records = [Record(jpeg(tmp_path, image), f"00004__00{i}", i, 0, 0) for i, image in enumerate(images)]
    shards = write_shards(records, tmp_path, split="train")
    everything = read_small_images(shards)
    assert everything.image_ids.tolist() == ["00004__000", "00004__001", "00004__002"]
    assert everything.classes.tolist() == [0, 1, 2]
    assert everything.images.shape == (3, 64, 64, 3)
    assert everything.images[:, 10, 10].argmax(axis=1).tolist() == [0, 1, 2]
    assert everything.images[:, 50].max() < 20
    assert read_small_images(shards, only_ids={"00004__001"}).classes.tolist() == [1]
    assert read_small_images(shards, only_classes={0, 2}).image_ids.tolist() == ["00004__000", "00004__002"]
    with pytest.raises(InputError, match="No sheet is left"):
        read_small_images(shards, only_ids={"7"})


def test_test_shards_have_no_class_and_broken_images_are_named(tmp_path):
    good = jpeg(tmp_path, np.zeros((64, 64, 3), np.uint8))
    shards = write_shards([Record(good, 12)], tmp_path, split="test")
    assert read_small_images(shards).classes.tolist() == [-1]
    shards = write_shards([Record(b"no image", 13)], tmp_path / "bad", split="test")
    with pytest.raises(InputError, match="Sheet 13: its image cannot be read"):
        read_small_images(shards)
