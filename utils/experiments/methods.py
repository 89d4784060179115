"""Methods for the long tail compared on one trained network, without training it again: notebook 06."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from utils.config import RANKS
from utils.data.tail import BINS, bins
from utils.evaluation.scores import macro_f1, mistake_distance, overall_scores, scores_by_bin
from utils.files import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from utils.data.labels import LabelMap
    from utils.training.features import Features, Linear


def rarest_third(train_counts: np.ndarray) -> np.ndarray:
    """Which classes are the third with the fewest training images, bool [C]: 11 of 32, 13 of 40, at least one.

    Of classes with as many images those with the lower class index are in. Unlike the bins of `utils.data.tail` it
    means the same for small data, where every species would be in the tail.
    """
    rarest = np.argsort(train_counts, kind="stable")[: max(1, round(len(train_counts) / 3))]
    return np.isin(np.arange(len(train_counts)), rarest)


def pull_of_the_common(true: np.ndarray, predicted: np.ndarray, train_counts: np.ndarray) -> pd.DataFrame:
    """How often the species of each bin are named, beside how often they occur among the scored sheets.

    Args:
        true, predicted: class of every sheet, int [N].
        train_counts: int [C].

    Returns:
        One row a bin: bin, occur, named (shares of the sheets), ratio (named / occur, NaN where none occurs).
    """
    groups = bins(train_counts)
    shares = [
        pd.Series(groups[classes]).value_counts(normalize=True).reindex(BINS, fill_value=0.0).to_numpy()
        for classes in (true, predicted)
    ]
    table = pd.DataFrame({"bin": BINS, "occur": shares[0], "named": shares[1]})
    table["ratio"] = (table["named"] / table["occur"]).where(table["occur"] > 0)
    return table


def compare_classifiers(
    classifiers: Mapping[str, "Linear"],
    test: "Features",
    train_counts: np.ndarray,
    labels: "LabelMap | None" = None,
    distances: np.ndarray | None = None,
) -> pd.DataFrame:
    """Score classifiers on the same cached features.

    Args:
        classifiers: by name, from `utils.experiments.classifiers.classifier_methods`.
        test: features of sheets that no classifier has seen.
        train_counts: training images by class, int [C], which tell head, medium and tail apart.
        labels, distances: with both, the mean patristic distances too; see mistake_distance().

    Returns:
        One row a classifier: method, macro_f1, head, medium, tail (macro-F1 of the species of the bin), accuracy,
        and with distances over_all and over_mistakes.
    """
    rows = []
    for name, classifier in classifiers.items():
        predicted = classifier.predicted(test.features)
        score = overall_scores(test.classes, predicted, len(train_counts))
        by_bin = scores_by_bin(test.classes, predicted, train_counts).set_index("bin")["macro_f1"]
        row = {"method": name, "macro_f1": score["macro_f1"], **by_bin.to_dict()}
        row["accuracy"] = score["accuracy"]
        if labels is not None and distances is not None:
            far = mistake_distance(test.classes, predicted, labels, distances)
            row |= {"over_all": far["over_all"], "over_mistakes": far["over_mistakes"]}
        rows.append(row)
    return pd.DataFrame(rows)


def predict_ranks(
    model: "tf.keras.Model", dataset: Iterable, labels: "LabelMap", ranks: Sequence[str]
) -> dict[str, np.ndarray]:
    """The best class of every head, for every sheet.

    Args:
        model: from load_trained(all_heads=True), images to the logits of species and ranks side by side.
        dataset: batches of (images, classes, ...).
        ranks: of the heads, from `utils.training.network.ranks_of(profile)`.

    Returns:
        int32 [N] by name: true, species and each rank; genus and family count in `labels.genus_names` and
        `labels.family_names`.

    Raises:
        InputError: the data set gave no sheet.
    """
    import tensorflow as tf

    sizes = [labels.n_classes, *(len(getattr(labels, f"{rank}_names")) for rank in ranks)]

    @tf.function(reduce_retracing=True)
    def best_classes(images: "tf.Tensor") -> "tf.Tensor":
        parts = tf.split(model(images, training=False), sizes, axis=-1)
        return tf.stack([tf.argmax(part, axis=-1, output_type=tf.int32) for part in parts])

    pairs = [(np.asarray(true, np.int32), best_classes(images).numpy()) for images, true, *_ in dataset]
    if not pairs:
        raise InputError("There was no sheet to predict. Check the shards and the chosen image ids.")
    best = np.concatenate([pair[1] for pair in pairs], axis=1)
    return {
        "true": np.concatenate([pair[0] for pair in pairs]),
        **dict(zip(("species", *ranks), best, strict=True)),
    }


def consistency(predicted: Mapping[str, np.ndarray], labels: "LabelMap") -> pd.DataFrame:
    """How the heads for genus and family agree with the species' head.

    Args:
        predicted: from `predict_ranks`, of sheets whose species is known.

    Returns:
        One row a rank: rank, head_accuracy (of its own head), species_accuracy (the rank of the predicted
        species), agreement (share of sheets where the two say the same), accuracy_agreed and accuracy_disputed
        (of the species, where they agree and where not; NaN where there is no such sheet), head_macro_f1.
    """
    right = predicted["species"] == predicted["true"]
    rows = []
    for rank in RANKS:
        if rank not in predicted:
            continue
        of, names = getattr(labels, f"{rank}_index"), getattr(labels, f"{rank}_names")
        true, by_species, by_head = of[predicted["true"]], of[predicted["species"]], predicted[rank]
        agree = by_species == by_head
        rows.append(
            {
                "rank": rank,
                "head_accuracy": float(np.mean(by_head == true)),
                "species_accuracy": float(np.mean(by_species == true)),
                "agreement": float(np.mean(agree)),
                "accuracy_agreed": float(right[agree].mean()) if agree.any() else float("nan"),
                "accuracy_disputed": float(right[~agree].mean()) if not agree.all() else float("nan"),
                "head_macro_f1": macro_f1(true, by_head, len(names)),
            }
        )
    return pd.DataFrame(rows)
