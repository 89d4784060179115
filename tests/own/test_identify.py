"""A sheet identified without TensorFlow: the answers are the network's, and what is shown of them is escaped."""

import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import in_place, tiny_network, tiny_profile, trained

from utils.__main__ import main
from utils.data.labels import LabelMap
from utils.files import InputError
from utils.own import cards, examples, identify
from utils.own.answers import NO_SCORE, answering
from utils.own.drop import Drop, read
from utils.own.examples import sheets_to_name
from utils.own.identify import KEPT, SIMILAR, Identifier, is_prepared, prepare
from utils.own.images import BadImage
from utils.sources import Data, find_data
from utils.training import network
from utils.training.runs import load_trained

PROFILE = tiny_profile(1)


@pytest.fixture(scope="module")
def data(sample_flora) -> Data:
    return find_data(PROFILE, sample_flora)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A run, and what identifies by it, with pictures of its training sheets."""
    folder = tmp_path_factory.mktemp("identify") / "run"
    trained(PROFILE, data, folder)
    with in_place():
        prepare(folder, folder / KEPT, data, progress=False)
    return folder


@pytest.fixture(scope="module")
def identifier(run) -> Identifier:
    return Identifier(run, run / KEPT)


@pytest.fixture
def file(tmp_path, make_jpeg) -> Path:
    path = tmp_path / "sheet.jpg"
    path.write_bytes(make_jpeg(5))
    return path


def test_the_answer_is_that_of_the_network(run, identifier, file, monkeypatch):
    monkeypatch.setattr(network, "_network", tiny_network)
    model, profile, labels = load_trained(run)
    sheet = identifier.look(file)
    shares, features = (array.numpy() for array in answering(model, profile)(sheet.pixels[None]))
    expected = identifier.worth.judge(np.array(["sheet.jpg"]), shares, features)
    answer = identifier.answer(sheet)
    assert [guess.index for guess in answer.guesses] == expected.predictions.classes[0].tolist()
    found = [guess.probability for guess in answer.guesses]
    np.testing.assert_allclose(found, expected.predictions.probabilities[0], atol=1e-5)
    assert answer.status == expected.status[0] and answer.taxon == expected.taxon[0]
    assert [guess.species for guess in answer.guesses] == [
        labels.names[guess.index] for guess in answer.guesses
    ]
    assert all(guess.images > 0 for guess in answer.guesses)
    assert answer.heat.shape == (32, 32) and answer.heat.max() in (0, pytest.approx(1))


def test_the_nearest_training_sheets_come_with_species_and_picture(identifier, data, tmp_path):
    table = data.split(PROFILE)
    trained_on = table[table["part"] == "train"].set_index("image_id")["class_index"]
    (example, *_) = sheets_to_name("auto", data, PROFILE, tmp_path)
    similar = identifier.answer(identifier.look(example.path)).similar
    assert len(similar) == SIMILAR
    assert all(identifier.labels.names[trained_on[other.image_id]] == other.species for other in similar)
    assert sorted((other.cosine for other in similar), reverse=True) == [other.cosine for other in similar]
    assert all(max(other.picture.size) == 150 for other in similar)


def test_other_weights_or_a_lack_of_pictures_ask_for_another_preparation(run, tmp_path):
    own = Path(shutil.copytree(run, tmp_path / "run"))
    assert is_prepared(own, own / KEPT, pictures=True)
    (own / KEPT / "pictures.npz").unlink()
    assert is_prepared(own, own / KEPT) and not is_prepared(own, own / KEPT, pictures=True)
    (weights,) = own.glob("*_weights.h5")
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert not is_prepared(own, own / KEPT)
    assert not is_prepared(own, tmp_path / "elsewhere")


def test_preparing_again_replaces_what_was_there(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "_network", tiny_network)
    own = Path(shutil.copytree(run, tmp_path / "run"))
    (own / KEPT / "network.tflite").write_bytes(b"of an earlier version")
    prepare(own, own / KEPT, data, progress=False)
    assert Identifier(own, own / KEPT).labels.n_classes == 8


def test_a_folder_of_other_files_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for folder, named in ((tmp_path / "mine", "(thesis.txt)"), (run, "_configs.json")):
        shown = CliRunner().invoke(main, ["identify", "--model", str(run), "--cache", str(folder)])
        assert shown.exit_code == 1 and named in shown.output and "Name a new folder" in shown.output
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_damaged_model_is_named(run, tmp_path):
    own = Path(shutil.copytree(run, tmp_path / "run"))
    (own / KEPT / "network.tflite").write_bytes(b"not a model")
    with pytest.raises(
        InputError, match=r"network\.tflite: not a model for LiteRT .* Remove .*identify; it is"
    ):
        Identifier(own, own / KEPT)


def test_without_a_score_it_still_answers(run, tmp_path, file):
    own = Path(shutil.copytree(run, tmp_path / "run"))
    (own / KEPT / "answers.json").unlink()
    identifier = Identifier(own, own / KEPT)
    sheet = identifier.look(file)
    answer = identifier.answer(sheet)
    assert answer.status == NO_SCORE and not answer.similar and len(answer.guesses) == 5
    assert "Looks like" not in cards.card(identifier, sheet, answer)
    assert "was never measured" in cards.about(identifier)


def test_tensorflow_is_not_imported(run, file):
    """In a process of its own, since the tests import it."""
    script = (
        "import sys; from pathlib import Path; from utils.own.drop import show_page; from utils.own import cards\n"
        "from utils.own.identify import Identifier; run, file = map(Path, sys.argv[1:])\n"
        "identifier = Identifier(run, run / 'identify'); sheet = identifier.look(file)\n"
        "answer = identifier.answer(sheet); cards.about(identifier); cards.card(identifier, sheet, answer)\n"
        "cards.explained(identifier, sheet, answer); show_page(str(run), str(run / 'identify'), 0.9)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(run), str(file)], check=True)


# ---------------------------------------------------------------- what is shown


def test_names_are_escaped(identifier, file):
    sheet = identifier.look(file, "<img src=x onerror=alert(1)>.jpg")
    names = identifier.labels.names.copy()
    names[:] = "Zea <script>alert(2)</script>"
    labels = LabelMap(**{**vars_of(identifier.labels), "names": names})
    shown = Identifier.__new__(Identifier)
    shown.__dict__ = {**vars(identifier), "labels": labels}
    answer = shown.answer(sheet)
    for html in (cards.card(shown, sheet, answer), cards.explained(shown, sheet, answer)):
        assert "<script" not in html and "<img src=x" not in html and "&lt;" in html


def vars_of(labels: LabelMap) -> dict[str, np.ndarray]:
    return {name: getattr(labels, name) for name in labels.__dataclass_fields__}


def test_the_card_says_what_is_known(identifier, file):
    sheet = identifier.look(file)
    answer = identifier.answer(sheet)
    html = cards.card(identifier, sheet, answer)
    assert html.count("<figure>") == 1 + SIMILAR and html.count('class="bar"') == 5
    assert f">{answer.status}</span>" in html and "training sheets" in html
    assert "invented" in cards.about(identifier)


def test_above_the_answers_stands_what_they_are_worth(run, identifier, file):
    sheet, html = identifier.look(file), cards.about(identifier)
    right, of, _ = identifier.worth.held_out
    assert f"{right} of {of} held-out sheets" in html and f"macro-F1 {identifier.facts.macro_f1:.3f}" in html
    assert "sheets of known species were called so by mistake" in html and "wrong among them" in html
    for sure, of_rank in ((0.0, "species"), (1.0, None)):
        opened = Identifier(run, run / KEPT, sure)
        opened.worth = replace(identifier.worth, limit=float("inf"))
        assert opened.answer(sheet).rank == of_rank == opened.answer(sheet, sure=sure).rank
        assert opened.answer(
            sheet, sure=1.0 - sure
        ).rank != of_rank and f"At {sure:.0%} it is sure" in cards.about(opened)


def test_grad_cam_that_finds_nothing_says_so(identifier, file):
    sheet = identifier.look(file)
    answer = replace(identifier.answer(sheet), heat=np.zeros((32, 32), np.float32))
    assert "finds no part of the sheet" in cards.explained(identifier, sheet, answer)


# ---------------------------------------------------------------- sheets that are sent


class Told(Drop):
    """Keeps what it sends."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.told: list[dict] = []

    def send(self, content: dict, buffers: object = None) -> None:
        self.told.append(content)


def test_every_message_of_the_browser_is_answered_by_one(identifier, file):
    drop = Told(lambda: identifier)
    content = memoryview(file.read_bytes())
    for message, buffers in (
        ({"hello": True}, []),
        ({"sheet": 1, "name": "one.jpg"}, [content]),
        ({"sheet": 2, "name": "two.jpg"}, [content[:2000]]),
        ({"explain": 1}, []),
    ):
        drop._hear(drop, message, buffers)
    about, card, refused, explained = drop.told
    assert "knows 8 species" in about["html"] and "one.jpg" in card["html"]
    assert "truncated" in refused["refused"] and "/" not in refused["refused"]
    assert 'class="explained"' in explained["html"]


def test_a_fault_is_told_and_raised(file):
    def fails() -> Identifier:
        raise KeyError("gone")

    drop = Told(fails)
    with pytest.raises(KeyError):
        drop._hear(drop, {"hello": True}, [])
    assert "a fault of the course" in drop.told[0]["refused"]


def test_a_damaged_run_is_told(file):
    def fails() -> Identifier:
        raise InputError("labels.json: not a label map.")

    drop = Told(fails)
    drop._hear(drop, {"hello": True}, [])
    assert drop.told == [{"refused": "labels.json: not a label map."}]


def test_bytes_that_are_no_image_are_refused_with_the_reason(identifier):
    with pytest.raises(BadImage) as error:
        read(identifier, "notes.jpg", b"these are notes")
    assert error.value.reason == "its content is not JPEG, PNG, TIFF"


# ---------------------------------------------------------------- sheets that the notebook shows


def test_sheets_of_the_data_are_of_different_species_and_were_not_learnt_from(data, tmp_path):
    found = sheets_to_name("auto", data, PROFILE, tmp_path, 4)
    assert len({example.species for example in found}) == 4
    true = data.labels().names[data.true_classes([example.path.stem for example in found])]
    assert true.tolist() == [example.species for example in found]


def test_without_answers_to_the_test_they_are_held_out_ones(data, tmp_path):
    table = data.split(PROFILE).set_index("image_id")
    for example in sheets_to_name("auto", replace(data, solution=None), PROFILE, tmp_path):
        row = table.loc[example.path.stem]
        assert row["held_out"] and data.labels().names[row["class_index"]] == example.species


def test_a_path_or_an_address_is_taken(data, tmp_path, file, monkeypatch):
    take = partial(sheets_to_name, data=data, profile=PROFILE, folder=tmp_path / "got")
    assert take(str(file))[0].path == file
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        (found,) = take(f"{address}/sheet.jpg?size=large")
        assert found.path == tmp_path / "got" / "sheet.jpg" and found.path.read_bytes() == file.read_bytes()
        with pytest.raises(InputError, match=r"none\.jpg: cannot be downloaded \(File not found\)\. Save it"):
            take(f"{address}/none.jpg")
        monkeypatch.setattr(examples, "MOST_BYTES", 1000)
        with pytest.raises(InputError, match="has more than 0 MB"):
            take(f"{address}/sheet.jpg")
        server.shutdown()
    with pytest.raises(InputError, match="cannot be downloaded"):
        take(f"{address}/sheet.jpg")
    with pytest.raises(InputError, match=r"no such file\. Give the path of an image, its address, or auto\."):
        take(str(tmp_path / "none.jpg"))


def test_small_pictures_keep_their_proportions(tmp_path, make_jpeg):
    with Image.open(BytesIO(identify.small_jpeg(make_jpeg(2, 300, 600)))) as image:
        assert image.size == (75, 150)
