"""A folder of image files: found, checked before the long work, predicted in order, bad ones named."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from utils.config import load_profile
from utils.data.batches import evaluation_dataset
from utils.files import InputError, InputWarning
from utils.own import folder as module
from utils.own.folder import Stored, find_images, image_batches, predict_folder, stored_by
from utils.own.images import encode_image
from utils.own.shards import Record, write_shards
from utils.training.weights import CLASSIFIER

PROFILE = load_profile("smoke", batch_size=4, image_size=32)


def picture(path: Path, number: int = 0, size: tuple[int, int] = (60, 90), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def cut(path: Path) -> None:
    """A file whose header is well and whose end is missing."""
    picture(path, size=(300, 400), quality=95)
    path.write_bytes(path.read_bytes()[:3000])


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    for number, name in enumerate(["b.jpg", "a.png", "a.JPG", "sub/deep/c.tif", "sub/a.jpeg", "d.jpg"]):
        picture(folder / name, number)
    return folder


def test_images_are_found_in_subfolders_and_other_files_are_not(images):
    (images / "notes.txt").write_text("x")
    (images / "._a.JPG").write_text("what macOS leaves")
    picture(images / ".thumbnails" / "a.jpg")
    (images / "folder.jpg").mkdir()
    files, left_out = find_images(images)
    names = [path.relative_to(images).as_posix() for path in files]
    assert names == ["a.JPG", "a.png", "b.jpg", "d.jpg", "sub/a.jpeg", "sub/deep/c.tif"]
    assert left_out == {}


def test_links_are_followed_and_what_is_passed_over_is_counted(images, tmp_path):
    picture(tmp_path / "store" / "e.jpg")
    (tmp_path / "store" / "back").symlink_to(images)
    (images / "linked").symlink_to(tmp_path / "store")
    picture(images / "1234567", format="JPEG")
    picture(images / "f.webp")
    picture(images / "__MACOSX" / "a.jpg")
    with pytest.warns(InputWarning, match=r"1 \.webp \('f\.webp'\); links .*: 'linked/back'\.") as told:
        files, _ = find_images(images)
    assert len(told) == 1
    names = [path.relative_to(images).as_posix() for path in files]
    assert len(names) == 8 and {"linked/e.jpg", "1234567"} < set(names)
    (images / "disk").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"1 of 9 images cannot be read:\n  disk: No such file"):
        find_images(images)


def test_an_empty_folder_says_what_is_there(tmp_path):
    with pytest.raises(InputError, match=r"no image files; found nothing\. Looked for \.jpg"):
        find_images(tmp_path)
    for name in ("a.heic", "b.heic", "README"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"found 2 \.heic, 1 no suffix"):
        find_images(tmp_path)


def test_files_that_are_no_images_are_named_together_or_left_out(images):
    (images / "empty.jpg").touch()
    (images / "sub" / "text.jpg").write_text("text")
    picture(images / "gif.png", format="GIF")
    (images / "gone.jpg").symlink_to(images / "nowhere.jpg")
    with pytest.raises(InputError) as told:
        find_images(images)
    lines = str(told.value).splitlines()
    assert lines[0] == f"{images}: 4 of 10 images cannot be read:"
    assert lines[1:5] == [
        "  empty.jpg: the file is empty",
        "  gif.png: not a JPEG, PNG or TIFF image, whatever its suffix says",
        "  gone.jpg: No such file or directory",
        "  sub/text.jpg: not a JPEG, PNG or TIFF image, whatever its suffix says",
    ]
    assert "--skip-bad" in lines[5]
    files, left_out = find_images(images, skip_bad=True)
    assert len(files) == 6 and sorted(left_out) == ["empty.jpg", "gif.png", "gone.jpg", "sub/text.jpg"]


def test_many_bad_files_are_counted_and_only_bad_ones_are_an_error(tmp_path):
    for number in range(25):
        (tmp_path / f"{number:02d}.jpg").touch()
    with pytest.raises(InputError, match=r"25 of 25 [\s\S]*19\.jpg[\s\S]*and 5 more") as told:
        find_images(tmp_path, skip_bad=True)
    assert "20.jpg" not in str(told.value) and "--skip-bad" not in str(told.value)


def test_more_pixels_than_can_be_decoded_are_seen_in_the_header(images, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 60 * 90)
    picture(images / "wide.png", size=(91, 60))
    with pytest.raises(InputError, match=r"wide\.png: 91 x 60 pixels are more than"):
        find_images(images)


@pytest.mark.parametrize("name", [b"\xff.jpg", b"a\nb.jpg", b"a\rb.jpg", b"a\x1b[31m.jpg", b"a\x7f.jpg"])
def test_a_name_that_is_no_text_is_a_bad_file(images, name):
    try:
        (images / "d.jpg").rename(images / os.fsdecode(name))
    except OSError:
        pytest.skip("this file system takes no such name")
    shown = repr(os.fsdecode(name))[1:-1]
    with pytest.raises(InputError, match=f"  {re.escape(shown)}: its name is no text"):
        find_images(images)
    files, left_out = find_images(images, skip_bad=True)
    assert list(left_out) == [shown] and len(files) == 5


def test_batches_are_those_of_shards_written_from_the_same_images(images, tmp_path):
    files, _ = find_images(images)
    records = [Record(encode_image(path), str(path.relative_to(images))) for path in files]
    shards = write_shards(records, tmp_path / "shards", split="test")
    expected = list(evaluation_dataset(shards, image_size=32, batch_size=4, crop=PROFILE.crop))
    given = list(image_batches(files, images, PROFILE, None))
    assert [len(batch[0]) for batch in given] == [4, 2]
    for (pixels, true, ids, thumbnails), (same, unknown, names) in zip(given, expected, strict=True):
        assert np.array_equal(pixels, same) and pixels.dtype == tf.uint8
        assert np.array_equal(ids, names) and np.array_equal(true, unknown)
        assert thumbnails == [None] * len(ids)


def test_an_image_that_breaks_off_stops_the_work_or_is_left_out(images):
    cut(images / "c.jpg")
    files, left_out = find_images(images)
    assert left_out == {}, "its header is well"
    with pytest.raises(InputError, match=r"c\.jpg: not a readable image \(.*truncated.*--skip-bad"):
        list(image_batches(files, images, PROFILE, None))
    ids = [name for batch in image_batches(files, images, PROFILE, left_out) for name in batch[2].numpy()]
    assert len(ids) == 6 and b"c.jpg" not in ids
    assert list(left_out) == ["c.jpg"] and "truncated" in left_out["c.jpg"]


def test_a_damaged_jpeg_is_left_out_and_a_harmless_flaw_is_noted(images):
    content = picture(images / "c.jpg", size=(300, 400), quality=95).read_bytes()
    (images / "c.jpg").write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    (images / "note.jpg").write_bytes(content.replace(b"JFIF\0\1\1", b"JFIF\0\2\1"))
    (images / "stray.jpg").write_bytes(content.replace(b"\xff\xdb", b"\0\0\xff\xdb", 1))
    files, left_out = find_images(images)
    assert left_out == {}, "their headers are well"
    with pytest.raises(InputError, match=r"c\.jpg: not a readable image \(Corrupt JPEG data: .*--skip-bad"):
        list(image_batches(files, images, PROFILE, None))
    notes = {}
    ids = [
        n for batch in image_batches(files, images, PROFILE, left_out, notes=notes) for n in batch[2].numpy()
    ]
    assert len(ids) == 8 and list(left_out) == ["c.jpg"]
    assert notes == {"note.jpg": "JFIF 2.01", "stray.jpg": "2 stray bytes in the header"}


@pytest.mark.parametrize(
    ("name", "size", "options", "sides"),
    [
        ("a.jpg", (300, 600), {}, (180, 360)),
        ("wide.png", (2000, 4), {}, (360, 1)),
        ("turned.jpg", (600, 300), {"exif": {0x0112: 6}}, (180, 360)),
        ("upside_down.tif", (600, 300), {"exif": {0x0112: 3}}, (360, 180)),
        ("turned.png", (600, 300), {"exif": {0x0112: 8}}, (180, 360)),
    ],
)
def test_thumbnails_have_the_proportions_of_the_upright_sheet(tmp_path, name, size, options, sides):
    if options:
        exif = Image.Exif()
        exif.update(options["exif"])
        options = {"exif": exif}
    path = picture(tmp_path / name, size=size, **options)
    ((_, _, _, (thumbnail,)),) = image_batches([path], tmp_path, PROFILE, None, thumbnails=True)
    assert (thumbnail.mode, thumbnail.size) == ("RGB", sides)


@pytest.mark.parametrize("size", [(300, 600), (600, 300), (400, 400)])
def test_the_thumbnail_of_a_padded_sheet_has_no_padding(tmp_path, size):
    path = tmp_path / "a.png"
    Image.new("RGB", size, (200, 30, 30)).save(path)
    stored = Stored(size=400, fit="pad")
    ((pixels, *_, (thumbnail,)),) = image_batches(
        [path], tmp_path, PROFILE, None, stored=stored, thumbnails=True
    )
    sides = np.array(size) * 360 // max(size)
    assert thumbnail.size == tuple(sides)
    assert np.abs(np.asarray(thumbnail).astype(int) - (200, 30, 30)).max() < 12
    assert pixels.shape == (1, 32, 32, 3)


def test_a_padded_sheet_is_predicted_padded(images):
    path = picture(images / "wide.png", size=(120, 40))
    files = [path]
    ((squeezed, *_),) = image_batches(files, images, PROFILE, None)
    ((padded, *_),) = image_batches(files, images, PROFILE, None, stored=Stored(fit="pad"))
    top, middle = padded[0, 3].numpy().astype(int), padded[0, 16].numpy().astype(int)
    assert np.ptp(top, axis=0).max() <= 8 < np.ptp(middle, axis=0).max(), "paper above, the sheet between"
    assert np.ptp(squeezed[0, 3].numpy().astype(int), axis=0).max() > 8


def test_how_training_images_were_stored_is_in_the_run(tmp_path):
    file = tmp_path / "r_configs.json"
    for text, stored in (
        ("{}", Stored()),
        ('{"run": {"stored": null}}', Stored()),
        ('{"run": {"stored": {"size": 600, "fit": "pad"}}}', Stored(600, "pad")),
    ):
        file.write_text(text)
        assert stored_by(tmp_path, "r") == stored
    for stored in ('{"size": "600"}', '{"size": true}', '{"size": -1}', '{"fit": "crop"}'):
        file.write_text(f'{{"run": {{"stored": {stored}}}}}')
        with pytest.raises(InputError, match=r"r_configs\.json: images cannot be stored as .*Copy the run"):
            stored_by(tmp_path, "r")
    for text in ("[]", '{"run": {"stored": {"sise": 1}}}', '{"run": []}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"r_configs\.json: not the settings"):
            stored_by(tmp_path, "r")


@pytest.fixture
def network(monkeypatch, tmp_path, six_species) -> tf.keras.Model:
    """Stands in for a run's network, so that a prediction takes a second."""
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((32, 32, 3))
    features = tf.keras.layers.Conv2D(4, 8, strides=8, name="features")(
        tf.keras.layers.Rescaling(1 / 255)(inputs)
    )
    pooled = tf.keras.layers.GlobalAveragePooling2D(name="avg_pool")(features)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(6, name=CLASSIFIER)(pooled))
    (tmp_path / f"{PROFILE.run_name}_configs.json").write_text('{"run": {}}')
    monkeypatch.setattr("utils.training.runs.load_trained", lambda _: (model, PROFILE, six_species))
    return model


def test_a_folder_is_predicted_with_a_page(images, tmp_path, network, capsys):
    files, left_out = find_images(images)
    out, html = tmp_path / "out" / "p.csv", tmp_path / "out" / "p.html"
    ids = {"a.JPG": "S1", "sub/a.jpeg": "S2", "gone.jpg": "S3"}
    result = predict_folder(tmp_path, images, files, left_out, out, html=html, ids=ids)
    pixels = np.concatenate([batch[0] for batch in image_batches(files, images, PROFILE, None)])
    assert result.predictions.predicted.tolist() == network.predict(pixels, verbose=0).argmax(axis=1).tolist()
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    names = [path.relative_to(images).as_posix() for path in files]
    assert [row["file_name"] for row in rows] == names
    assert [row["image_id"] for row in rows] == [ids.get(name, name) for name in names]
    assert len(rows[0]) == 7 + 4 * 5
    assert {row["status"] for row in rows} == {"model without a score"}
    assert "6/6" in capsys.readouterr().err
    page = html.read_text(encoding="utf-8")
    assert page.count("<article") == 6 and page.count('src="data:image/jpeg') == 12
    assert f"<code>./course review {out} --images {images} --model {tmp_path}</code>" in page
    assert sorted(path.name for path in out.parent.iterdir()) == ["p.csv", "p.html"]


def test_earlier_files_stay_when_an_image_stops_the_work(images, tmp_path, network):
    cut(images / "sub" / "x.jpg")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("p.csv", "p.html"):
        (out / name).write_text("earlier")
    files, _ = find_images(images)
    options = {"html": out / "p.html", "progress": False}
    with pytest.raises(InputError, match=r"sub/x\.jpg"):
        predict_folder(tmp_path, images, files, {}, out / "p.csv", **options)
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(
        ("p.csv", "p.html"), "earlier"
    )
    left_out: dict[str, str] = {}
    result = predict_folder(
        tmp_path, images, files, left_out, out / "p.csv", skip_bad=True, tta=True, **options
    )
    assert len(result) == 6 and list(left_out) == ["sub/x.jpg"]
    assert "1 file left out" in (out / "p.html").read_text(encoding="utf-8")


def test_only_broken_images_are_an_error_too(tmp_path, network):
    cut(tmp_path / "x.jpg")
    with pytest.raises(InputError, match="none of its 1 images"):
        predict_folder(
            tmp_path, tmp_path, [tmp_path / "x.jpg"], {}, tmp_path / "p.csv", skip_bad=True, progress=False
        )
    assert not (tmp_path / "p.csv").exists()
