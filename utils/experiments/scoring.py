"""The score of a trained run on test sheets, as it is and after further steps: for batches and their table."""

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import softmax

from utils.config import TURNED, Profile, nearest
from utils.data import splits, tail
from utils.data.labels import LabelMap, genus_distance_matrix
from utils.evaluation.predict import Predictions
from utils.evaluation.scores import macro_f1, mistake_distance, per_class_f1, scores_by_bin
from utils.experiments.decide import fit_temperature, least_cost, tempered
from utils.experiments.methods import consistency, predict_ranks, rarest_third
from utils.files import InputError, UsageError
from utils.flora.of_profile import with_extra_test
from utils.sources import Data

if TYPE_CHECKING:
    import tensorflow as tf

    from utils.training.features import Features, Linear
    from utils.training.losses import SparseCrossentropy


KEPT = 100  # classes kept of every sheet
_CHAIN = " + "  # between the steps of a chain


@dataclass(frozen=True)
class Judge:
    """What predictions are scored against: labels, distances float [G, G] or None, and images by class, int [C]."""

    labels: LabelMap
    distances: np.ndarray | None
    labelled: np.ndarray  # all that have labels
    trained_on: np.ndarray

    @classmethod
    def of(cls, data: Data, table: pd.DataFrame) -> "Judge":
        """Bins are by all images that have labels, those of validation too; the rarest third is by training images.

        Args:
            table: from `data.split(profile)`.
        """
        labels = data.labels()
        distances = None
        if data.train_metadata is not None:
            distances = genus_distance_matrix(data.metadata(), labels)
            if not np.isfinite(distances[~np.eye(len(distances), dtype=bool)]).any():
                distances = (
                    None  # own metadata have none, and a mean over nothing but right answers would be 0
                )
        counts = [
            tail.class_counts(table.loc[rows, "class_index"], labels.n_classes)
            for rows in (table["part"] != "test", table["part"] == "train")
        ]
        return cls(labels, distances, *counts)

    def metrics(self, true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """macro_f1, head_f1, medium_f1, tail_f1, rarest_f1, distance_all, distance_mistakes; NaN where not known."""
        by_bin = scores_by_bin(true, predicted, self.labelled)
        far = {"over_all": math.nan, "over_mistakes": math.nan}
        if self.distances is not None:
            far = mistake_distance(true, predicted, self.labels, self.distances)
        by_class = per_class_f1(true, predicted, self.labels.n_classes)
        return {
            "macro_f1": macro_f1(true, predicted, self.labels.n_classes),
            **{f"{row.bin}_f1": float(row.macro_f1) for row in by_bin.itertuples()},
            "rarest_f1": float(by_class[rarest_third(self.trained_on)].mean()),
            "distance_all": far["over_all"],
            "distance_mistakes": far["over_mistakes"],
        }


@dataclass(frozen=True)
class Trained:
    """A trained network and its sheets, in parts: train, validation and test. What it sees of them is kept."""

    model: "tf.keras.Model"  # images to logits [B, C]
    profile: Profile
    judge: Judge
    sheets: Mapping[str, "tf.data.Dataset"]  # by part, as Data.batches() gives them
    _ids: dict[str, np.ndarray] = field(default_factory=dict)
    _views: dict[str, list["Features"]] = field(default_factory=dict)
    _learnt: dict[str, tuple["Linear", float]] = field(default_factory=dict)

    @functools.cached_property
    def own(self) -> "Linear":
        """The classifier that the network was trained with."""
        from utils.training.features import classifier_of

        return classifier_of(self.model)

    @functools.cached_property
    def train_features(self) -> "Features":
        """What the classifier gets to see of the training images, mirrored too where it `learns_mirrored`."""
        from utils.experiments.classifiers import learns_mirrored
        from utils.training.features import extract_features

        mirrored = learns_mirrored(self.profile)
        return extract_features(self.model, self.sheets["train"], progress=False, mirrored=mirrored)

    def said(self, part: str, tta: bool = False) -> Predictions:
        """What the network itself says of the sheets of a part: the probabilities of all classes up to KEPT."""
        from utils.evaluation.predict import predict

        top = min(self.judge.labels.n_classes, KEPT)
        views = {"tta": tta, "augment": self.profile.augment}
        return predict(self.model, self.sheets[part], top=top, progress=False, **views)

    def views(self, part: str) -> list["Features"]:
        """The features of a part: of the sheets as they are, then of their mirror images, as `predict` takes them."""
        import tensorflow as tf

        from utils.training.features import Features, extract_features

        if part not in self._views:
            mirrored = self.profile.augment != "none"
            views = []
            for turned in (False, True) if self.profile.augment in TURNED else (False,):
                sheets = self.sheets[part]
                if turned:
                    sheets = sheets.map(lambda images, *rest: (tf.reverse(images, axis=[1]), *rest))
                both = extract_features(self.model, sheets, progress=False, mirrored=mirrored)
                halves = np.split(np.arange(len(both)), 1 + mirrored)
                views += [Features(both.features[rows], both.classes[rows]) for rows in halves]
            self._views[part] = views
        return self._views[part]

    def ids(self, part: str) -> np.ndarray:
        """The image ids of a part, str [N], in the order of its features."""
        if part not in self._ids:
            batches = (batch_ids.numpy() for *_, batch_ids in self.sheets[part])
            self._ids[part] = np.array([each.decode() for batch_ids in batches for each in batch_ids])
        return self._ids[part]

    def learnt(self, step: str) -> tuple["Linear", float]:
        """The classifier of a step and the seconds that learning it took; the same one for all chains."""
        if step not in self._learnt:
            begin = time.perf_counter()
            classifier = CLASSIFIERS[step](self)
            self._learnt[step] = classifier, time.perf_counter() - begin
        return self._learnt[step]


@dataclass(frozen=True)
class Answers:
    """How a trained network answers: with which classifier, over which views, by which decision."""

    trained: Trained
    classifier: "Linear | None" = None  # the network's own without it
    tta: bool = False
    by_cost: bool = False

    def predictions(self, part: str) -> Predictions:
        """The probabilities for the sheets of a part, of all classes up to KEPT; another classifier's from features."""
        if self.classifier is None:
            return self.trained.said(part, self.tta)
        views = self.trained.views(part)[: None if self.tta else 1]
        shares = np.mean([softmax(self.classifier.logits(view.features), axis=1) for view in views], axis=0)
        classes = np.argsort(-shares, axis=1, kind="stable")[:, :KEPT]
        kept = np.take_along_axis(shares, classes, axis=1).astype(np.float32)
        return Predictions(self.trained.ids(part), classes.astype(np.int32), kept, views[0].classes)

    def decided(self, predictions: Predictions) -> np.ndarray:
        """The class of every sheet, int [N]; for a decision by cost after tempering on validation.

        Raises:
            InputError: it goes by cost, and the metadata have no distances.
        """
        if not self.by_cost:
            return predictions.predicted
        judge = self.trained.judge
        if judge.distances is None:
            raise InputError("`least cost` needs metadata with the distances of genera.")
        temperature = fit_temperature(self.predictions("validation"), by_species=True)
        # a mistake costs its distance alone, which is what is measured
        return least_cost(tempered(predictions, temperature), judge.labels, judge.distances, miss=0.0)


def _learnt_anew(trained: Trained, sampling: str, loss: "SparseCrossentropy | None" = None) -> "Linear":
    from utils.experiments.classifiers import retrain

    options = {"loss": loss, "sampling": sampling, "seed": trained.profile.seed}
    return retrain(trained.train_features, trained.judge.labels.n_classes, **options)


def _adjusted(trained: Trained) -> "Linear":
    from utils.experiments.classifiers import adjusted

    return adjusted(trained.own, trained.judge.trained_on)


def _tau_normalised(trained: Trained) -> "Linear":
    from utils.experiments.classifiers import tau_normalised

    return tau_normalised(trained.own, 1.0)


def _scaled(trained: Trained) -> "Linear":
    from utils.experiments.classifiers import learn_scales

    return learn_scales(trained.own, trained.train_features, seed=trained.profile.seed)


def _plain(trained: Trained) -> "Linear":
    from utils.training.losses import SparseCrossentropy

    return _learnt_anew(trained, "instance", SparseCrossentropy(trained.profile.label_smoothing))


def _weighted(trained: Trained) -> "Linear":
    from utils.experiments.classifiers import class_balanced

    loss = class_balanced(trained.judge.trained_on, trained.profile.label_smoothing)
    return _learnt_anew(trained, "instance", loss)


def _balanced(trained: Trained) -> "Linear":
    from utils.training.losses import LogitAdjusted

    counts, smoothing = trained.judge.trained_on, trained.profile.label_smoothing
    return _learnt_anew(trained, "instance", LogitAdjusted(counts, label_smoothing=smoothing))


def _regression(trained: Trained) -> "Linear":
    from utils.experiments.classifiers import STRENGTH, logistic_regression

    strength = trained.profile.regression or STRENGTH
    return logistic_regression(trained.train_features, trained.judge.labels.n_classes, strength)


def _with_genus(trained: Trained) -> "Linear":
    from utils.experiments.classifiers import STRENGTH, genus_beside_species

    labels, strength = trained.judge.labels, trained.profile.regression or STRENGTH
    return genus_beside_species(trained.train_features, labels.n_classes, labels.genus_index, strength)


def _nearest(trained: Trained) -> "Linear":
    from utils.experiments.classifiers import nearest_mean

    return nearest_mean(trained.train_features, trained.judge.labels.n_classes)


CLASSIFIERS: dict[str, Callable[[Trained], "Linear"]] = {
    "logit adjustment": _adjusted,  # Menon et al. 2021
    "tau-normalised": _tau_normalised,  # this and the next two: Kang et al. 2020
    "learnt scales": _scaled,
    "retrained classifier": lambda trained: _learnt_anew(trained, "class_balanced"),
    "cross-entropy classifier": _plain,
    "class-balanced weights classifier": _weighted,  # Cui et al. 2019
    "balanced softmax classifier": _balanced,  # Ren et al. 2020
    "logistic regression": _regression,  # King & Zeng 2001
    "genus beside species": _with_genus,  # after Salakhutdinov et al. 2011
    "nearest mean": _nearest,  # Kang et al. 2020
}
_FROM_FEATURES = CLASSIFIERS.keys() - {"logit adjustment", "tau-normalised"}
# What can be done with a trained network, alone or in chains, as in "retrained classifier + tta + least cost".
STEPS = (*CLASSIFIERS, "tta", "least cost")


def steps_of(chain: str) -> list[str]:
    """The steps of a chain such as "retrained classifier + tta".

    Raises:
        UsageError: a step is unknown, twice, or not in the order of STEPS, or there are two classifiers.
    """
    steps = str(chain).split(_CHAIN)
    for step in steps:
        if step not in STEPS:
            raise UsageError(f"unknown step {step!r}.{nearest(step, STEPS)}")
    classifiers = sum(step in CLASSIFIERS for step in steps)
    if steps != sorted(set(steps), key=STEPS.index) or classifiers > 1:
        raise UsageError(
            f"{chain!r}: at most one of {', '.join(CLASSIFIERS)}, then tta, then least cost, each once."
        )
    return steps


def needs_dense_classifier(chain: str) -> bool:
    """Whether a step of the chain makes a classifier, which networks trained with ArcFace cannot take."""
    return any(step in CLASSIFIERS for step in steps_of(chain))


def _answers(trained: Trained, chain: str) -> tuple[Answers, float]:
    """The answers after a chain, and the seconds of learning its classifier."""
    steps = steps_of(chain)
    step = next((step for step in steps if step in CLASSIFIERS), None)
    classifier, seconds = trained.learnt(step) if step else (None, 0.0)
    return Answers(trained, classifier, "tta" in steps, "least cost" in steps), seconds


def predictions_file(run_dir: Path, chain: str = "") -> Path:
    """Where `score_run` keeps what a run said of the test sheets, after the steps of a chain."""
    slug = re.sub("[^a-z]+", "-", chain)
    return run_dir / (f"predictions-{slug}.npz" if chain else "predictions.npz")


def score_run(
    run_dir: Path, data: Data, test: str | int = "withheld", after: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """The metrics of a trained run; predictions.npz and its kin keep what it said of the test sheets.

    Nothing that is learnt or chosen here looks at the species of the test sheets: classifiers are learnt from
    the training images, the temperature of a decision by cost from validation.

    Args:
        run_dir: output folder of `train`.
        data: what it was trained on.
        test: "withheld", a number of further sheets of every species, or "none", see `utils.experiments.spec`.
        after: chains of STEPS.

    Returns:
        The metrics by name, those of Judge.metrics and validation_f1 and minutes, NaN where not known; also
        genus_agreement and family_agreement (see `consistency`) where there are such heads. Those of the run
        under "", those after each chain under its name. Minutes are of training, and of learning a classifier
        after it. Without a test only validation_f1 and minutes.

    Raises:
        InputError: there is no trained run, no such test set, or a step cannot be done with it.
        UsageError: an unknown step.
    """
    from utils.training.network import ranks_of
    from utils.training.runs import load_trained

    model, profile, labels = load_trained(run_dir)
    history = pd.read_csv(run_dir / f"{profile.run_name}.csv")
    validation, minutes = float(history["val_f1_score"].max()), float(history["time"].sum() / 60)
    if test == "none":
        return {"": {"validation_f1": validation, "minutes": minutes}}
    if isinstance(test, int):
        data = with_extra_test(data, test, progress=False)
    table = data.split(profile)
    if data.solution is None:
        if not (table["part"] == "test").any():
            raise InputError(
                f"{data.train_shards[0].parent}: no withheld test to score on. Set `test: none`."
            )
        data = dataclasses.replace(data, test_shards=())  # without answers: the part of the split is scored

    ids = {part: table.loc[table["part"] == part, "image_id"].tolist() for part in splits.PARTS}
    if data.solution is not None:
        ids["test"] = None  # all test shards
    parts = {part: data.batches(part, profile, only_ids=only) for part, only in ids.items()}
    judge = Judge.of(data, table)
    trained = Trained(model, profile, judge, parts)

    def score(answers: Answers, chain: str) -> dict[str, float]:
        predictions = answers.predictions("test")
        decided = answers.decided(predictions)
        if data.solution is not None:
            predictions = dataclasses.replace(predictions, true=data.true_classes(predictions.image_ids))
        predictions.save(predictions_file(run_dir, chain))
        return judge.metrics(predictions.true, decided)

    scored = {"": {**score(Answers(trained), ""), "validation_f1": validation, "minutes": minutes}}
    if ranks := ranks_of(profile):
        whole = load_trained(run_dir, all_heads=True)[0]
        said = predict_ranks(whole, parts["test"], labels, ranks)
        said["true"] = Predictions.load(predictions_file(run_dir)).true
        agreement = consistency(said, labels).set_index("rank")["agreement"]
        scored[""] |= {f"{rank}_agreement": float(agreement[rank]) for rank in ranks}
    begin = time.perf_counter()
    learnt = {step for chain in after for step in steps_of(chain)} & _FROM_FEATURES
    if learnt:
        _ = trained.train_features  # once, and counted in the minutes of every chain that needs them
    for_features = time.perf_counter() - begin
    for chain in after:
        answers, more = _answers(trained, chain)
        if _FROM_FEATURES.intersection(steps_of(chain)):
            more += for_features
        scored[chain] = {
            **score(answers, chain),
            "validation_f1": math.nan,  # it is of the network before the steps
            "minutes": minutes + more / 60,
        }
    return scored
