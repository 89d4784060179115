"""What a run's answers are worth: made once from its data, kept with its weights, read back without them."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.tiny import in_place, tiny_network, tiny_profile, trained

from utils.__main__ import main
from utils.data.labels import LabelMap
from utils.files import InputError
from utils.own.answers import ARRAYS, HELD_OUT, STATUSES, TEST, WORDS
from utils.own.worth import answer_shards, load_worth, spread, told, worth_of
from utils.sources import Data, find_data
from utils.training import network

PROFILE = tiny_profile(1)


@pytest.fixture(scope="module")
def data(sample_flora) -> Data:
    return find_data(PROFILE, sample_flora)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trained(PROFILE, data, folder)
    with in_place():
        assert worth_of(folder, data, progress=False) is not None
    return folder


@pytest.fixture
def own(run, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(network, "_network", tiny_network)
    return Path(shutil.copytree(run, tmp_path / "run"))


def labels_of(run: Path) -> LabelMap:
    return LabelMap.load(run / "labels.json")


def test_the_worth_is_made_once_and_read_back(own, data):
    table = data.split(PROFILE)
    kept = load_worth(own, PROFILE, labels_of(own))
    assert kept.measured.part == TEST and kept.origin["invented"]
    held_out = table[table["part"] == "validation"]
    right, sheets, species = kept.held_out
    assert 0 <= right <= sheets == len(held_out) and species == held_out["class_index"].nunique()
    assert kept.doubt == pytest.approx(1 / (sheets + 1)) and kept.temperature > 0
    train = table.loc[table["part"] == "train", "image_id"]
    assert sorted(kept.references.ids) == sorted(train)
    assert kept.references.nearest(kept.references.directions[:5])[:, 0].tolist() == list(range(5))
    assert kept.passed is None, "the network was taught all species"
    (own / ARRAYS).touch()
    before = (own / ARRAYS).stat().st_mtime_ns
    assert worth_of(own, data).temperature == kept.temperature
    assert (own / ARRAYS).stat().st_mtime_ns == before


def test_scores_of_the_worth_are_those_of_the_predictions(own, data):
    from utils.evaluation.predict import predict
    from utils.training.runs import load_trained

    model, profile, _ = load_trained(own)
    said = predict(model, data.batches("test", profile), progress=False)
    true = data.true_classes(said.image_ids)
    measured = load_worth(own, profile, labels_of(own)).measured
    assert np.array_equal(measured.predicted, said.predicted) and np.array_equal(measured.true, true)
    assert measured.right[:, 0].mean() == (said.predicted == true).mean()


def test_other_weights_have_another_worth(own):
    labels = labels_of(own)
    with next(own.glob("*_weights.h5")).open("ab") as file:
        file.write(b"x")
    assert load_worth(own, PROFILE, labels) is None


@pytest.mark.parametrize("name", [WORDS, ARRAYS])
def test_files_that_are_not_there_are_nothing_and_damaged_ones_are_named(own, name):
    path = own / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{name}: "):
        load_worth(own, PROFILE, labels_of(own))
    path.unlink()
    assert load_worth(own, PROFILE, labels_of(own)) is None


def test_words_without_what_they_must_say_are_named(own):
    words = json.loads((own / WORDS).read_text())
    (own / WORDS).write_text(json.dumps({key: value for key, value in words.items() if key != "limit"}))
    with pytest.raises(InputError, match=r"cannot be read .*Remove it and answers\.json"):
        load_worth(own, PROFILE, labels_of(own))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (0, -1.0, float("nan"), float("inf"), "1", 10**30)),
        *(("doubt", value) for value in (1, -0.1, float("nan"), None)),
        *(("limit", value) for value in (float("inf"), "x", [1])),
        *(("held_out", value) for value in ([1, 2], [1, 2, "<b>"], [1, 2, -3], {"a": 1})),
        ("passed", [1]),
        ("measured", "<script>"),
        *(("origin", value) for value in ({}, {"invented": 1, "licences": []}, [1])),
    ],
    ids=str,
)
def test_words_that_answer_wrongly_are_refused(own, name, value):
    words = json.loads((own / WORDS).read_text())
    (own / WORDS).write_text(json.dumps(words | {name: value}))
    with pytest.raises(InputError, match=rf"{ARRAYS}: cannot be read \('{name}' in {WORDS} is not right"):
        load_worth(own, PROFILE, labels_of(own))


def header(shape):
    content = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(content).to_bytes(2, "little") + content.encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(
            ("centre", content)
            for content in (header(f"({2**62},)"), header("(1000000, 1000000)"), b"no array")
        ),
        ("centre", header("__import__('os').abort()")),
        ("centre", lambda array: array[:-1]),
        ("centre", lambda array: array[None]),
        ("centre", lambda array: array.astype(str)),
        ("means", lambda array: array * np.nan),
        ("means", lambda array: array[:0]),
        ("classes", lambda array: array + 1_000_000),
        ("reference_classes", lambda array: array - 1_000_000),
        ("true", lambda array: array + 1_000_000),
        ("probabilities", lambda array: array[:, :1]),
        ("right", lambda array: array.astype(object)),
        ("strangeness", None),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # the same in every process
)
def test_arrays_that_are_not_those_of_a_run_are_refused(own, name, content):
    with np.load(own / ARRAYS) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if callable(content):
        arrays[name] = content(arrays[name])
    else:
        del arrays[name]
    np.savez(own / ARRAYS, **arrays)
    if isinstance(content, bytes):
        with zipfile.ZipFile(own / ARRAYS, "a") as file:
            file.writestr(f"{name}.npy", content)
    with pytest.raises(InputError, match=rf"{ARRAYS}: cannot be read .*Remove it and {WORDS}"):
        load_worth(own, PROFILE, labels_of(own))


def test_a_network_of_other_features_is_refused(own):
    worth = load_worth(own, PROFILE, labels_of(own))
    with pytest.raises(InputError, match=rf"{ARRAYS}: is of .* features a sheet, this network has 3"):
        worth.judge(np.array(["a"]), np.ones((1, worth.labels.n_classes)), np.ones((1, 3)))


def test_a_worth_of_another_version_is_made_anew(own):
    words = json.loads((own / WORDS).read_text())
    (own / WORDS).write_text(json.dumps(words | {"version": 0}))
    assert load_worth(own, PROFILE, labels_of(own)) is None


def test_shards_are_answered_with_the_worth_and_without(own, data):
    sheets = Data(kind="folder", test_shards=data.test_shards)
    judged, _ = answer_shards(own, sheets, progress=False)
    assert set(judged.status) <= set(STATUSES[:3]) and len(judged) == len(
        data.true_classes(judged.predictions.image_ids)
    )
    (own / WORDS).unlink()
    without, _ = answer_shards(own, sheets, progress=False)
    assert set(without.status) == {STATUSES[3]}
    assert np.array_equal(judged.predictions.predicted, without.predictions.predicted)


def test_training_again_and_predicting_by_the_command_line(own, data, tmp_path):
    for name in (WORDS, ARRAYS):
        (own / name).unlink()
    settings = [f"-s{key}={value}" for key, value in PROFILE.changed().items()]
    folder = str(data.train_shards[0].parent)
    call = ["train", "--profile", "smoke", *settings, "--data", folder, "--out", str(own)]
    shown = CliRunner().invoke(main, call, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "held-out sheets" in shown.output and (own / WORDS).is_file()
    out = tmp_path / "p.csv"
    call = ["predict", "--model", str(own), "--data", folder, "--out", str(out), "--sure", "0.5"]
    shown = CliRunner().invoke(main, call, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    statuses = {line.split(",")[1] for line in out.read_text().splitlines()[1:]}
    assert statuses <= set(STATUSES[:3])


def test_references_are_spread_over_the_species():
    classes = np.repeat([0, 1, 2], [50, 3, 1])
    ids = np.arange(54).astype(str)
    chosen = classes[spread(ids, classes, 10).astype(int)]
    assert np.bincount(chosen).tolist() == [6, 3, 1]
    assert spread(ids, classes, 100).tolist() == ids.tolist()


def test_too_few_held_out_sheets_are_said_so(own, data, tmp_path):
    import dataclasses

    table = data.split(PROFILE)
    part = np.where(table["class_index"] == 0, "validation", "train")
    part[np.flatnonzero(part == "validation")[1:]] = "train"
    table[["image_id"]].assign(split=part).to_csv(tmp_path / "split.csv", index=False)
    one = dataclasses.replace(data, split_file=tmp_path / "split.csv", test_shards=(), solution=None)
    (own / WORDS).unlink()
    assert worth_of(own, one, progress=False) is None and not (own / WORDS).exists()
    assert told(None) == "What its answers are worth was never measured."


def test_without_a_withheld_test_the_held_out_sheets_measure(own, data):
    import dataclasses

    (own / WORDS).unlink()
    made = worth_of(own, dataclasses.replace(data, test_shards=(), solution=None), progress=False)
    assert made.measured.part == HELD_OUT and len(made.measured) == made.held_out[1]
    assert "At 99.9% it is sure" in told(made, 0.999)
    assert told(made).startswith(f"{made.held_out[0]:,} of {made.held_out[1]:,} held-out sheets")
