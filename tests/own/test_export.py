"""Exported networks: the answers of Keras, whole or not at all, and usable without anything of the course."""

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner
from disks import small_disk
from PIL import Image
from support.tiny import in_place, tiny_network, tiny_profile, trained

from utils.__main__ import main
from utils.config import load_profile
from utils.data.delimited import write_csv
from utils.files import InputError, building
from utils.own import export as module
from utils.own.answers import ARRAYS, SURE, answering
from utils.own.decode import MAX_PIXELS
from utils.own.export import (
    CARD,
    FORMATS,
    LABELS,
    METRICS,
    SCRIPT,
    SPACE,
    export,
    interpreter,
    report_of_failure,
    save_model,
)
from utils.own.images import encode_image
from utils.own.look import network_pixels
from utils.own.worth import load_worth, worth_of
from utils.sources import Data, find_data
from utils.startup import standard_error_to
from utils.training import network
from utils.training.runs import load_trained

PROFILE = tiny_profile(1, tta=True)  # as they are and turned round
LITERT = "ai-edge-litert==2.3.0"


@pytest.fixture(scope="module")
def data(sample_flora) -> Data:
    return find_data(PROFILE, sample_flora)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trained(PROFILE, data, folder)
    with in_place():
        worth_of(folder, data, progress=False)
    return folder


@pytest.fixture(scope="module")
def exported(run, data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "exported"
    with in_place():
        export(run, folder, data.train_shards[0].parent, progress=False)
    return folder


def test_every_format_gives_the_calibrated_answers_of_the_network(run, data, exported, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(network, "_network", tiny_network)
    model, profile, labels = load_trained(run)
    images = next(iter(data.batches("test", profile)))[0].numpy()
    shares, features = (array.numpy() for array in answering(model, profile)(images))
    expected = load_worth(run, profile, labels).calibrated(shares)
    saved = tf.saved_model.load(str(exported / "saved_model")).signatures["serving_default"]
    found = saved(image=tf.constant(images))
    assert np.abs(found["probabilities"].numpy() - expected).max() <= 1e-5
    for name, bound in (("float32", 1e-5), ("float16", 2e-2)):
        answer = interpreter(exported / FORMATS[name])
        outputs = [answer(image=image[None]) for image in images]
        given = np.concatenate([each["probabilities"] for each in outputs])
        assert np.abs(given - expected).max() <= bound, name
        places = np.concatenate([each["features"] for each in outputs])
        assert places == pytest.approx(features, abs=0.05)


def test_a_network_that_does_not_fit_on_the_disk_is_one_line_and_nothing_is_left(tmp_path):
    kept = tf.Variable(tf.ones([200_000]))
    with small_disk(disk := tmp_path / "small", 400):
        with (
            pytest.raises(InputError, match=r"^\S*/small/out: cannot be written \(No space left on device\)"),
            building(disk / "out") as folder,
        ):
            save_model(lambda image: {"sum": tf.reduce_sum(kept[:1])}, [kept], 4, folder / "saved_model")
        assert not list(disk.iterdir())


def test_a_converter_is_heard_only_where_it_fails(tmp_path):
    with (tmp_path / "said").open("wb") as file, standard_error_to(file):
        with report_of_failure():
            os.write(2, b"120 ops stay as they are\n")
        with pytest.raises(ValueError, match="no such op"), report_of_failure():
            os.write(2, b"here is why\n")
            raise ValueError("no such op")
    assert (tmp_path / "said").read_bytes() == b"here is why\n"


def test_the_numbers_beside_a_model_are_those_of_its_run(exported, run, data):
    metrics = json.loads((exported / METRICS).read_text(encoding="utf-8"))
    assert metrics["measured_on"] == "withheld test" and metrics["images"] == len(
        np.concatenate([ids for *_, ids in data.batches("test", PROFILE).as_numpy_iterator()])
    )
    assert metrics["formats"]["float32"]["largest_difference"] <= 1e-5
    assert metrics["formats"]["float32"]["macro_f1"] == pytest.approx(metrics["macro_f1"])
    assert sum(row["sheets"] for row in metrics["answered_at"].values()) == metrics["images"]
    shares = [row["share"] for row in metrics["left_to_the_machine"]]
    card = (exported / CARD).read_text(encoding="utf-8")
    assert shares == sorted(shares, reverse=True) and bool(shares) == ("What can be left" in card)
    rows = list(csv.DictReader((exported / LABELS).open(encoding="utf-8")))
    assert [row["scientificName"] for row in rows] == data.labels().names.tolist()
    assert all(int(row["training_images"]) > 0 for row in rows)


def test_the_card_says_what_it_was_trained_on_and_what_it_is_worth(exported):
    card = (exported / CARD).read_text(encoding="utf-8")
    metrics = json.loads((exported / METRICS).read_text(encoding="utf-8"))
    for told in (
        "8 species of",
        "**Plants that do not exist**",
        f"macro-F1 **{metrics['macro_f1']:.3f}**",
        "On the withheld test",
        "| tail |",
        "The sheets are drawn by the course",
    ):
        assert told in card, told


@pytest.mark.parametrize(
    ("licences", "told"),
    [
        (["CC BY-NC-ND 4.0", "<b>"], "CC BY-NC-ND 4.0, &lt;b&gt;; the weights"),
        (["CC BY-NC-ND 4.0"], "No commercial use"),
        ([], "ask who made them"),
    ],
)
def test_the_licence_is_that_of_the_sheets(run, tmp_path, monkeypatch, licences, told):
    import dataclasses

    own = Path(shutil.copytree(run, tmp_path / "run"))
    words = json.loads((own / "answers.json").read_text())
    (own / "answers.json").write_text(
        json.dumps(words | {"origin": {"invented": False, "licences": licences}})
    )
    configs = next(own.glob("*_configs.json"))
    settings = json.loads(configs.read_text())
    configs.write_text(json.dumps(settings | {"source": "shards", "flora_species": 0}))
    monkeypatch.setattr(network, "_network", tiny_network)
    found = export(own, tmp_path / "out", progress=False)
    card = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    assert told in card and "do not exist" not in card
    assert "held-out sheets" in found["int8"]["left_out"] and found["int8"]["left_out"] in card
    assert found["float32"]["macro_f1"] is None and found["float32"]["largest_difference"] <= 1e-5
    assert dataclasses.asdict(PROFILE)["source"] == "flora"


def test_without_a_withheld_test_the_held_out_sheets_judge(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "_network", tiny_network)
    folder = data.train_shards[0].parent
    for path in folder.iterdir():
        if "test" not in path.name and path.name != "solution.csv":
            (tmp_path / path.name).symlink_to(path)
    found = export(run, tmp_path / "out", tmp_path, progress=False)
    held_out = (data.split(PROFILE)["part"] == "validation").sum()
    assert found["float32"]["sheets"] == held_out and found["float32"]["macro_f1"] is not None


def test_int8_that_loses_too_much_is_not_shipped_and_the_reason_is_told(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "_network", tiny_network)
    monkeypatch.setattr(module, "INT8_LOSS", -2.0)
    found = export(run, tmp_path / "out", data.train_shards[0].parent, progress=False)
    assert found["int8"]["left_out"].startswith("its macro-F1 on ")
    assert not (tmp_path / "out" / FORMATS["int8"]).exists()
    assert found["int8"]["left_out"] in (tmp_path / "out" / CARD).read_text(encoding="utf-8")


def test_a_folder_of_other_files_is_left_alone_and_an_earlier_export_replaced(
    run, exported, tmp_path, monkeypatch
):
    monkeypatch.setattr(network, "_network", tiny_network)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    beside = Path(shutil.copytree(exported, tmp_path / "beside"))
    (beside / "thesis.txt").write_text("x")
    for folder in (tmp_path / "mine", beside):
        shown = CliRunner().invoke(main, ["export", "--model", str(run), "--out", str(folder)])
        assert shown.exit_code == 1 and "holds files that are no export (thesis.txt)" in shown.output
        assert (folder / "thesis.txt").read_text() == "x"
    again = Path(shutil.copytree(exported, tmp_path / "again"))
    (again / SCRIPT).write_text("old")
    monkeypatch.setattr(module, "converted", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError):
        export(run, again, progress=False)
    assert (again / SCRIPT).read_text() == "old" and not list(tmp_path.glob(".*.tmp"))
    with pytest.raises(InputError, match="no trained run"):
        export(tmp_path / "mine", tmp_path / "other")


def _says(script: Path, image: Image.Image, monkeypatch, capsys) -> str:
    """What the exported script says of an image, in this process."""
    file = script.parent / "image.png"
    image.save(file)
    monkeypatch.setattr(sys, "argv", [str(script), str(file)])
    capsys.readouterr()
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        file.unlink()
    return capsys.readouterr().out


def test_the_script_shows_transparency_on_white_and_refuses_more_than_8_bits(
    exported, tmp_path, make_sheet, monkeypatch, capsys
):
    pytest.importorskip("ai_edge_litert")
    script = Path(shutil.copytree(exported, tmp_path / "exported")) / SCRIPT
    sheet, half = make_sheet(0).convert("RGB"), Image.new("L", (1, 2), 255)
    half.putpixel((0, 0), 0)
    mask = half.resize(sheet.size, Image.Resampling.NEAREST)
    white = Image.composite(sheet, Image.new("RGB", sheet.size, "white"), mask)
    clear = sheet.copy()
    clear.putalpha(mask)
    said = [_says(script, image, monkeypatch, capsys) for image in (sheet, white, clear)]
    assert said[1] == said[2] != said[0]
    with pytest.raises(SystemExit, match=r"image\.png: has pixels of the kind I.* with 8 bits"):
        _says(script, Image.new("I;16", (8, 8), 40_000), monkeypatch, capsys)


def test_the_script_refuses_in_one_line_what_it_cannot_read(exported, tmp_path, monkeypatch, make_jpeg):
    pytest.importorskip("ai_edge_litert")
    script, missing = exported / SCRIPT, tmp_path / "missing.jpg"
    words, cut, large, whole = (
        tmp_path / name for name in ("words.jpg", "cut.jpg", "large.png", "whole.jpg")
    )
    words.write_text("no image")
    cut.write_bytes(make_jpeg(0, 300, 300)[:5000])
    whole.write_bytes(make_jpeg(0, 300, 300))
    Image.new("1", (20_000, MAX_PIXELS // 20_000 + 1)).save(large)
    for arguments, said in (
        ([], r"Usage: python identify\.py IMAGE \[MODEL\]"),
        ([missing], r"missing\.jpg: cannot be read \(.*No such file"),
        ([words], r"words\.jpg: cannot be read \(cannot identify"),
        ([cut], r"cut\.jpg: cannot be read \(image file is truncated"),
        ([large], r"large\.png: has more than 200 megapixels\. Save a smaller copy"),
        ([whole, "model_int4.tflite"], r"model_int4\.tflite: no such model"),
    ):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        with pytest.raises(SystemExit, match=said) as refused:
            runpy.run_path(str(script), run_name="__main__")
        assert "\n" not in str(refused.value)


def test_the_script_says_what_its_answer_is_worth_as_predict_does(
    run, data, exported, tmp_path, make_sheet, monkeypatch, capsys
):
    pytest.importorskip("ai_edge_litert")
    script = Path(shutil.copytree(exported, tmp_path / "exported")) / SCRIPT
    answer, seen = interpreter(exported / FORMATS["float32"]), []

    class Kept:
        """What the script's model was given and gave, beside it."""

        def __init__(self, path: str) -> None:
            assert Path(path) == script.parent / FORMATS["float32"]

        def get_signature_runner(self):
            return lambda image: seen.append(image) or answer(image=image)

    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", Kept)
    sheet = make_sheet(0).convert("RGB")
    _says(script, sheet, monkeypatch, capsys)
    sheet.save(tmp_path / "sheet.png")
    stored = encode_image(tmp_path / "sheet.png")  # encoding at quality 95 is all that differs
    shown = network_pixels(stored, PROFILE.image_size, PROFILE.crop).astype(int)
    assert np.abs(seen[0][0] - shown).max() <= 6 and np.abs(seen[0][0] - shown).mean() < 1
    worth = load_worth(run, PROFILE, data.labels())
    with in_place():
        model, profile, _ = load_trained(run)
    shares, features = (array.numpy() for array in answering(model, profile)(seen[0]))
    kept = dict(np.load(script.parent / SPACE))
    strangeness = float(worth.judge(np.array(["a"]), shares, features).strangeness[0])
    assert kept["limit"] == worth.limit
    for limit, strange in ((strangeness - 0.01, True), (strangeness + 0.01, False)):
        np.savez(script.parent / SPACE, **{**kept, "limit": limit})
        first = _says(script, sheet, monkeypatch, capsys).splitlines()[0]
        assert first.startswith("unlike anything") == strange
    text = script.read_text(encoding="utf-8")
    said = set()
    for sure in (0.001, 0.2, 0.35, 0.6, 0.999):
        script.write_text(text.replace("SURE = 0.95", f"SURE = {sure}"), encoding="utf-8")
        first = _says(script, sheet, monkeypatch, capsys).splitlines()[0]
        judged = replace(worth, limit=float("inf")).judge(np.array(["a"]), shares, features, sure=sure)
        if judged.status[0] == SURE:
            assert first.startswith(f"sure of {judged.taxon[0]}, ")
            assert float(first.rpartition(" ")[2]) == pytest.approx(judged.probability[0], abs=2e-4)
        else:
            assert first == "doubtful: sure of no species, genus or family"
        said.add(first.partition(",")[0])
    assert len(said) > 2, "several ranks, or no answer"


def test_the_script_prints_names_as_they_are_and_nothing_that_steers_a_terminal(
    exported, tmp_path, monkeypatch, capsys, make_sheet
):
    pytest.importorskip("ai_edge_litert")
    script = Path(shutil.copytree(exported, tmp_path / "exported")) / SCRIPT
    table = pd.read_csv(script.parent / LABELS)
    table["scientificName"] = "=Zea \x1b[2J \u202e" + table["scientificName"]
    write_csv(table, script.parent / LABELS)
    said = _says(script, make_sheet(0).convert("RGB"), monkeypatch, capsys)
    assert said.replace("\n", "").isprintable() and r" =Zea \x1b[2J \u202e" in said
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "no\x1b[2J.jpg")])
    with pytest.raises(SystemExit, match=r"no\\x1b\[2J\.jpg: cannot be read") as refused:
        runpy.run_path(str(script), run_name="__main__")
    assert str(refused.value).isprintable()


def test_the_script_of_a_run_without_a_score_says_so(run, data, tmp_path, monkeypatch, capsys, make_sheet):
    pytest.importorskip("ai_edge_litert")
    bare = Path(shutil.copytree(run, tmp_path / "run"))
    (bare / ARRAYS).unlink()
    with in_place():
        export(bare, tmp_path / "out", data.train_shards[0].parent, progress=False)
    assert not (tmp_path / "out" / SPACE).exists()
    said = _says(tmp_path / "out" / SCRIPT, make_sheet(0).convert("RGB"), monkeypatch, capsys)
    assert said.startswith("model without a score: ") and len(said.splitlines()) == 6


@pytest.mark.long
@pytest.mark.parametrize("name", ["laptop", "sheets"])
def test_exported_models_answer_in_an_environment_of_their_own(name, sample_flora, tmp_path, make_sheet):
    """A real network of the profile, exported by the command line, and its script beside NumPy and Pillow alone."""
    profile = load_profile(name, source="shards", flora_species=0, epochs=1, batch_size=8)
    data = find_data(profile, sample_flora)
    from utils.training.loop import train

    train(profile, data, tmp_path / "run", progress=False)
    worth_of(tmp_path / "run", data, progress=False)
    found = export(tmp_path / "run", tmp_path / "out", sample_flora, progress=False)
    assert found["float32"]["largest_difference"] <= 1e-5 and found["float32"]["same_first"] == 1
    assert found["float16"]["largest_difference"] <= 2e-2 and found["float16"]["same_first"] >= 0.995
    assert "left_out" in found["int8"] or found["int8"]["macro_f1"] >= found["float32"]["macro_f1"] - 0.02
    make_sheet(0).save(tmp_path / "sheet.jpg")
    venv.create(tmp_path / "alone", with_pip=True)
    python = tmp_path / "alone" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, LITERT, "numpy", "pillow"], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    said = {}
    for file in (FORMATS["float32"], FORMATS["float16"]):
        call = [str(python), str(tmp_path / "out" / SCRIPT), str(tmp_path / "sheet.jpg"), file]
        shown = subprocess.run(
            call, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        first, *guesses = shown.stdout.splitlines()
        assert first.startswith(("sure of ", "doubtful", "unlike anything"))
        said[file] = [line.split(" ", 1) for line in guesses]
        assert len(said[file]) == 5 and {line[1] for line in said[file]} <= set(data.labels().names)
    assert said[FORMATS["float32"]][0][1] == said[FORMATS["float16"]][0][1]
    packages = subprocess.run(
        [*pip[:3], "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    assert "tensorflow" not in packages.stdout and sys.prefix not in packages.stdout
