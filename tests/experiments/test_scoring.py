"""The score of a trained run, as it is and after further steps."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from utils.data.batches import evaluation_dataset
from utils.data.labels import genus_distance_matrix
from utils.data.tail import bins, class_counts
from utils.evaluation.predict import Predictions, predict
from utils.experiments import classifiers, scoring
from utils.experiments.decide import fit_temperature, tempered
from utils.files import REPOSITORY, UsageError
from utils.sources import find_data
from utils.training import loop, runs
from utils.training import network as network_module
from utils.training.features import classifier_of, extract_features, fit_regression
from utils.training.losses import LogitAdjusted, SparseCrossentropy

CLASSES = 8


@pytest.fixture(scope="module")
def trained(sample_flora, tmp_path_factory):
    """The folder of a tiny network's run, and its data."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "tests" / "training")
        import tiny

        patch.setattr(network_module, "_network", tiny.tiny_network)
        data = find_data(tiny.tiny_profile(2), sample_flora)
        loop.train(tiny.tiny_profile(2, genus_weight=0.3), data, folder, progress=False)
    return folder, data


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch, tmp_path_factory):
    monkeypatch.syspath_prepend(REPOSITORY / "tests" / "training")
    import tiny

    monkeypatch.setattr(network_module, "_network", tiny.tiny_network)
    # further sheets are kept there
    monkeypatch.setattr("utils.files.REPOSITORY", tmp_path_factory.getbasetemp() / "scoring")


def macro(true: np.ndarray, predicted: np.ndarray) -> float:
    return f1_score(true, predicted, labels=range(CLASSES), average="macro", zero_division=0)


def test_a_run_is_scored_as_scikit_learn_scores_it(trained):
    folder, data = trained
    labels = data.labels()
    counts = data.metadata().annotations["category_id"].value_counts()[labels.category_ids].to_numpy()
    history = pd.read_csv(next(folder.glob("EfficientNetV2*.csv")))
    for test in ("withheld", 2):
        scored = scoring.score_run(folder, data, test, ["tta"])
        metrics = scored[""]
        said = Predictions.load(folder / "predictions.npz")
        flora = data.train_shards[0].parent
        if test == 2:
            from utils.flora.of_profile import with_extra_test

            flora = with_extra_test(data, 2, progress=False).solution.parent
        solution = pd.read_csv(flora / "solution.csv").set_index("Id")["Predicted"]
        true = labels.to_class(solution[said.image_ids.astype(int)])
        assert len(said) == len(solution) == (len(solution) if test == "withheld" else 2 * CLASSES)
        assert (said.true == true).all() and said.classes.shape[1] == CLASSES
        scores = f1_score(true, said.predicted, labels=range(CLASSES), average=None, zero_division=0)
        assert metrics["macro_f1"] == pytest.approx(scores.mean())
        assert metrics["tail_f1"] == pytest.approx(scores[bins(counts) == "tail"].mean())
        table = data.split(runs.load_trained(folder)[1])
        trained_on = class_counts(table.loc[table["part"] == "train", "class_index"], CLASSES)
        rarest = sorted(range(CLASSES), key=lambda label: (trained_on[label], label))[:3]
        assert metrics["rarest_f1"] == pytest.approx(scores[rarest].mean())
        assert math.isnan(metrics["head_f1"]), "no species of the smoke flora has so many images"
        apart = genus_distance_matrix(data.metadata(), labels)
        far = apart[labels.genus_index[true], labels.genus_index[said.predicted]]
        assert metrics["distance_all"] == pytest.approx(far.mean())
        assert metrics["distance_mistakes"] == pytest.approx(far[true != said.predicted].mean())
        assert metrics["minutes"] == pytest.approx(history["time"].sum() / 60)
        assert metrics["validation_f1"] == pytest.approx(history["val_f1_score"].max())
        assert 0 <= metrics["genus_agreement"] <= 1 and "family_agreement" not in metrics
        assert 0 <= scored["tta"]["macro_f1"] <= 1 and math.isnan(scored["tta"]["validation_f1"])
    alone = scoring.score_run(folder, data, "none")
    assert alone.keys() == {""} and alone[""].keys() == {"validation_f1", "minutes"}


def test_steps_are_what_they_say(trained):
    folder, data = trained
    chains = [
        "logit adjustment",
        "tau-normalised",
        "learnt scales",
        "balanced softmax classifier",
        "cross-entropy classifier",
        "class-balanced weights classifier",
        "logistic regression",
        "genus beside species",
        "nearest mean",
        "retrained classifier + tta",
        "retrained classifier + least cost",
    ]
    scored = scoring.score_run(folder, data, "withheld", chains)
    said = {chain: Predictions.load(scoring.predictions_file(folder, chain)) for chain in ("", *chains)}
    true = said[""].true

    # the same, by hand
    network, profile, labels = runs.load_trained(folder)
    table = data.split(profile)
    parts = {part: table.loc[table["part"] == part, "image_id"].tolist() for part in ("train", "validation")}
    options = {"image_size": profile.image_size, "batch_size": 16, "crop": profile.crop}
    sheets = {
        part: evaluation_dataset(data.train_shards, only_ids=ids, **options) for part, ids in parts.items()
    }
    sheets["test"] = evaluation_dataset(data.test_shards, **options)
    features = {part: extract_features(network, each, progress=False) for part, each in sheets.items()}
    own = classifier_of(network)
    counts = class_counts(features["train"].classes, CLASSES)
    predicted = {
        "": own.predicted(features["test"].features),
        "logit adjustment": (own.logits(features["test"].features) - np.log(counts / counts.sum())).argmax(1),
        "tau-normalised": (
            features["test"].features @ (own.kernel / np.linalg.norm(own.kernel, axis=0))
        ).argmax(1),
    }
    new = {"sampling": "instance", "seed": profile.seed}
    smoothing = {"label_smoothing": profile.label_smoothing}
    linear = {
        "cross-entropy classifier": classifiers.retrain(
            features["train"], CLASSES, loss=SparseCrossentropy(**smoothing), **new
        ),
        "class-balanced weights classifier": classifiers.retrain(
            features["train"], CLASSES, loss=classifiers.class_balanced(counts, **smoothing), **new
        ),
        "balanced softmax classifier": classifiers.retrain(
            features["train"], CLASSES, loss=LogitAdjusted(counts, **smoothing), **new
        ),
        "logistic regression": fit_regression(features["train"], CLASSES, 0.3),
        "genus beside species": classifiers.genus_beside_species(
            features["train"], CLASSES, labels.genus_index
        ),
        "nearest mean": classifiers.nearest_mean(features["train"], CLASSES),
    }
    predicted |= {chain: each.predicted(features["test"].features) for chain, each in linear.items()}
    for chain, by_hand in predicted.items():
        assert scored[chain]["macro_f1"] == pytest.approx(macro(true, by_hand)), chain
        assert (said[chain].predicted == by_hand).all(), chain

    retrained = classifiers.retrain(features["train"], CLASSES, seed=profile.seed)
    network.get_layer("logits").set_weights([retrained.kernel, retrained.bias])
    views = predict(network, sheets["test"], tta=True, augment=profile.augment, top=CLASSES, progress=False)
    np.testing.assert_allclose(
        said["retrained classifier + tta"].probabilities, views.probabilities, atol=1e-4
    )
    plain = predict(network, sheets["test"], top=CLASSES, progress=False)
    validation = predict(network, sheets["validation"], top=CLASSES, progress=False)
    temperature = fit_temperature(validation, by_species=True)
    apart = np.nan_to_num(genus_distance_matrix(data.metadata(), labels))
    np.fill_diagonal(apart, 0)
    right = tempered(plain, temperature)
    decided = []
    for classes, probabilities in zip(right.classes, right.probabilities, strict=True):
        genera = labels.genus_index[classes]
        costs = [sum(probabilities * apart[genus, genera]) for genus in genera]
        decided.append(classes[int(np.argmin(costs))])
    assert scored["retrained classifier + least cost"]["macro_f1"] == pytest.approx(
        macro(true, np.array(decided)), abs=0.02
    )


def test_no_step_looks_at_the_answers(trained, tmp_path):
    import shutil

    folder, data = trained
    chains = ["retrained classifier + tta", "learnt scales", "least cost"]
    scoring.score_run(folder, data, "withheld", chains)
    other = shutil.copytree(folder, tmp_path / "run")
    solution = pd.read_csv(data.solution)
    solution["Predicted"] = solution["Predicted"].sample(frac=1, random_state=0).to_numpy()
    solution.to_csv(tmp_path / "solution.csv", index=False)
    scoring.score_run(
        other, dataclasses.replace(data, solution=tmp_path / "solution.csv"), "withheld", chains
    )
    for chain in ("", *chains):
        before, after = (
            Predictions.load(scoring.predictions_file(Path(run), chain)) for run in (folder, other)
        )
        assert (before.classes == after.classes).all() and (before.true != after.true).any()


@pytest.mark.parametrize(
    "chain", ["tta + tta", "least cost + tta", "learnt scales + logit adjustment", "cRT"]
)
def test_chains_that_make_no_sense_are_refused(chain):
    with pytest.raises(UsageError, match=r"at most one of|unknown step"):
        scoring.steps_of(chain)


def test_after_pretrained_weights_classifiers_learn_from_mirror_images_and_take_the_strength_of_the_profile(
    trained,
):
    folder, data = trained
    network, profile, _ = runs.load_trained(folder)
    judge = scoring.Judge.of(data, data.split(profile))
    sheets = {"train": data.batches("train", profile)}

    def features(**settings):
        return scoring.Trained(network, dataclasses.replace(profile, **settings), judge, sheets)

    plain, mirrored = features(), features(weights="imagenet", regression=0.02)
    once, twice = plain.train_features, mirrored.train_features
    assert len(twice) == 2 * len(once) and (twice.features[: len(once)] == once.features).all()
    found = mirrored.learnt("logistic regression")[0]
    np.testing.assert_array_equal(found.kernel, fit_regression(twice, CLASSES, 0.02).kernel)
    assert mirrored.learnt("logistic regression")[0] is found, "learnt once for all chains"


def test_without_distances_between_genera_none_are_reported(trained, monkeypatch):
    folder, data = trained
    profile = runs.load_trained(folder)[1]
    unknown = np.where(np.eye(len(data.labels().genus_names)) > 0, 0, np.nan)
    monkeypatch.setattr(scoring, "genus_distance_matrix", lambda *_: unknown)
    metrics = scoring.Judge.of(data, data.split(profile)).metrics(np.arange(CLASSES), np.arange(CLASSES))
    assert metrics["macro_f1"] == 1 and math.isnan(metrics["distance_all"])
