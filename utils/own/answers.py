"""What the answers of a run are worth: calibrated, given at the rank that is sure, or said to be like nothing known.

All that it takes is worked out once a run (`make_answers`) from the sheets that were held out of its training, and kept
in the run's folder with a fingerprint of the weights. A run without it still answers, and its answers say so.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.delimited import as_cell, rows_of
from utils.data.metadata import UNKNOWN
from utils.evaluation.predict import Predictions, refuse_no_number, views_of
from utils.files import InputError, replacing
from utils.own.unknown import Space, tempered, unit

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from utils.config import Profile
    from utils.data.labels import LabelMap

WORDS, ARRAYS = "answers.json", "answers.npz"  # in a run's folder
RANKS = ("species", "genus", "family")
NO_RANK = len(RANKS)
STATUSES = SURE, DOUBTFUL, STRANGE, NO_SCORE = (
    "sure",
    "doubtful",
    "unlike anything",
    "model without a score",
)
SURE_AT = 0.95  # the least probability of a sure answer
REFUSED = 0.05  # share of the sheets of known species that may be called unlike anything
TEST, HELD_OUT = "withheld test", "held-out sheets"


@dataclass(frozen=True, eq=False)
class Measured:
    """How M sheets of known species were answered that the network did not learn from.

    part: TEST or HELD_OUT; true, predicted: int32 [M]; probabilities: float32 [M, 3], calibrated, of the best taxon of
    every rank; right: bool [M, 3]; strangeness: float32 [M].
    """

    part: str
    true: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    right: np.ndarray
    strangeness: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    def by_rank(self, sure: float, limit: float) -> "pd.DataFrame":
        """One row for each of RANKS and one for no answer: rank, sheets, share, right (of those answered; NaN of none).

        Args:
            sure: the least probability of an answer.
            limit: strangeness above which a sheet gets none.
        """
        import pandas as pd

        rank = ranks_at(self.probabilities, sure, self.strangeness > limit)
        rows = []
        for place, name in enumerate((*RANKS, "none")):
            of = rank == place
            right = self.right[of, place].mean() if place < NO_RANK and of.any() else np.nan
            rows.append({"rank": name, "sheets": int(of.sum()), "share": float(of.mean()), "right": right})
        return pd.DataFrame(rows)

    def curve(
        self, limit: float, steps: Sequence[float] = tuple(np.linspace(0.3, 0.99, 70))
    ) -> "pd.DataFrame":
        """What can be left to the machine: sure, share of sheets named to species, error among them (NaN of none)."""
        import pandas as pd

        tables = [self.by_rank(sure, limit).iloc[0] for sure in steps]
        return pd.DataFrame(
            {
                "sure": list(steps),
                "share": [row["share"] for row in tables],
                "error": [1 - row["right"] for row in tables],
            }
        )


@dataclass(frozen=True, eq=False)
class References:
    """Training sheets to show beside an answer: ids str [N], classes int32 [N], directions float16 [N, F]."""

    ids: np.ndarray
    classes: np.ndarray
    directions: np.ndarray

    def nearest(self, directions: np.ndarray, most: int = 6) -> np.ndarray:
        """Positions of the nearest sheets by the cosine, the nearest first, int [M, most]."""
        cosines = np.asarray(directions, np.float32) @ self.directions.T.astype(np.float32)
        return np.argsort(-cosines, axis=1, kind="stable")[:, :most]


@dataclass(frozen=True, eq=False)
class Judged:
    """The answers to N sheets.

    predictions: the five most probable species, calibrated where that is known; rank: int [N], position in RANKS or
    NO_RANK; taxon: str [N], "" without a rank; probability: float [N], of the taxon; strangeness: float32 [N], NaN
    without a score; status: str [N], one of STATUSES; directions: for `References.nearest`, None without a score.
    """

    predictions: Predictions
    rank: np.ndarray
    taxon: np.ndarray
    probability: np.ndarray
    strangeness: np.ndarray
    status: np.ndarray
    directions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rank)


def ranks_at(probabilities: np.ndarray, sure: float, strange: np.ndarray) -> np.ndarray:
    """The first of RANKS whose best taxon has the probability `sure`, int [N], NO_RANK where none or where strange."""
    enough = np.nan_to_num(probabilities) >= sure
    return np.where(enough.any(axis=1) & ~strange, enough.argmax(axis=1), NO_RANK)


def best_of_ranks(probabilities: np.ndarray, labels: "LabelMap") -> tuple[np.ndarray, np.ndarray]:
    """The best taxon of every rank and its probability: int [N, 3], float32 [N, 3].

    Taxa are positions in labels.names, genus_names and family_names. The probability of a genus is the sum of those of
    its species; a family that no table names (unknown) is no answer, and has NaN.
    """
    taxa, found = [probabilities.argmax(axis=1)], [probabilities.max(axis=1)]
    for index, names in (
        (labels.genus_index, labels.genus_names),
        (labels.family_index, labels.family_names),
    ):
        order = np.argsort(index, kind="stable")
        starts = np.searchsorted(index[order], np.arange(len(names)))
        sums = np.add.reduceat(probabilities[:, order], starts, axis=1)
        sums[:, names == UNKNOWN] = np.nan
        known = ~np.isnan(sums).all(axis=1)
        best = np.nan_to_num(sums, nan=-1.0).argmax(axis=1)
        taxa.append(best)
        found.append(np.where(known, sums[np.arange(len(sums)), best], np.nan))
    return np.stack(taxa, axis=1), np.minimum(np.stack(found, axis=1), 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Answers:
    """What turns a network's probabilities and features into answers that say what they are worth.

    temperature: of the probabilities; doubt: what those of all species together lack to 1, since N held-out sheets
    cannot show an error rarer than one in N + 1; limit: strangeness above which a sheet is unlike
    anything; held_out: right answers, sheets and species of the sheets held out of training; passed: sheets of left-out
    species that were not called unlike anything and how many there were, None where that was not measured; origin: of
    the training sheets (`invented`, `licences`).
    """

    labels: "LabelMap"
    temperature: float
    doubt: float
    limit: float
    space: Space
    references: References
    measured: Measured
    held_out: tuple[int, int, int]
    passed: tuple[int, int] | None
    origin: dict[str, Any] = field(default_factory=dict)

    def calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        """float32 [N, C] of float [N, C] as the network gives them, of all classes."""
        return calibrated(probabilities, self.temperature, self.doubt)

    def judge(
        self,
        image_ids: np.ndarray,
        probabilities: np.ndarray,
        features: np.ndarray,
        *,
        sure: float = SURE_AT,
        top: int = 5,
    ) -> Judged:
        """Answers to N sheets.

        Args:
            image_ids: str [N].
            probabilities: float [N, C], of all classes and not calibrated.
            features: float [N, F], what the classifier gets to see.
            sure: the least probability of a sure answer.
            top: classes to keep.
        """
        if features.shape[1] != len(self.space.centre):
            raise InputError(
                f"{ARRAYS}: is of {len(self.space.centre)} features a sheet, this network has {features.shape[1]}. "
                f"Remove it and {WORDS}; ./course train makes both again."
            )
        places = self.space.place(features)
        strangeness = self.space.strangeness(places, probabilities, self.temperature)
        probabilities = self.calibrated(probabilities)
        strange = strangeness > self.limit
        taxa, of_ranks = best_of_ranks(probabilities, self.labels)
        rank = ranks_at(of_ranks, sure, strange)
        names = (self.labels.names, self.labels.genus_names, self.labels.family_names)
        rows = range(len(rank))
        status = np.where(strange, STRANGE, np.where(rank < NO_RANK, SURE, DOUBTFUL))
        return Judged(
            best_classes(image_ids, probabilities, top),
            rank,
            np.array(
                [str(names[rank[row]][taxa[row, rank[row]]]) if rank[row] < NO_RANK else "" for row in rows]
            ),
            np.array([of_ranks[row, rank[row]] if rank[row] < NO_RANK else np.nan for row in rows]),
            strangeness,
            status,
            unit(places),
        )

    @cached_property
    def refused(self) -> tuple[int, int]:
        """Sheets of known species that were called unlike anything, of how many that were measured."""
        return int((self.measured.strangeness > self.limit).sum()), len(self.measured)


def calibrated(probabilities: np.ndarray, temperature: float, doubt: float) -> np.ndarray:
    """softmax(log p / temperature), times 1 - doubt; float32 [N, C], each row sums to 1 - doubt."""
    return ((1 - doubt) * tempered(probabilities, temperature)).astype(np.float32)


def best_classes(image_ids: np.ndarray, probabilities: np.ndarray, top: int = 5) -> Predictions:
    """The `top` most probable classes of N sheets of probabilities [N, C]."""
    classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].astype(np.int32)
    best = np.take_along_axis(probabilities, classes, axis=1).astype(np.float32)
    return Predictions(np.asarray(image_ids), classes, best, np.full(len(classes), -1, np.int32))


def judge(
    answers: Answers | None,
    image_ids: np.ndarray,
    probabilities: np.ndarray,
    features: np.ndarray,
    *,
    sure: float = SURE_AT,
) -> Judged:
    """As `Answers.judge`; without answers the probabilities are the network's own, and every status is NO_SCORE."""
    if answers is not None:
        return answers.judge(image_ids, probabilities, features, sure=sure)
    n = len(probabilities)
    nothing = np.full(n, np.nan, np.float32)
    return Judged(
        best_classes(image_ids, probabilities),
        np.full(n, NO_RANK),
        np.full(n, ""),
        nothing,
        nothing,
        np.full(n, NO_SCORE),
    )


def answering(
    network: "tf.keras.Model", profile: "Profile", *, tta: bool | None = None
) -> "Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]":
    """A compiled function: images uint8 [N, S, S, 3] to probabilities float32 [N, C] and features float32 [N, F].

    Both are means over a sheet and its mirror images where the profile has test-time augmentation, or `tta` says so.
    """
    import tensorflow as tf

    side = profile.image_size
    augment = profile.augment if (profile.tta if tta is None else tta) else "none"
    signature = [tf.TensorSpec([None, side, side, 3], tf.uint8)]
    return tf.function(mean_over_views(network, augment), input_signature=signature)


def mean_over_views(
    network: "tf.keras.Model", augment: str
) -> "Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]":
    """`answering`, not compiled; all views of a batch go through the network as one batch."""
    import tensorflow as tf

    from utils.training.weights import CLASSIFIER

    both = tf.keras.Model(network.input, [network.output, network.get_layer(CLASSIFIER).input])

    def answer(images: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
        views = views_of(images, augment)
        logits, features = both(tf.concat(views, axis=0), training=False)
        found = tf.nn.softmax(tf.cast(logits, tf.float32)), tf.cast(features, tf.float32)
        if len(views) == 1:
            return found
        by_view = [tf.reshape(each, [len(views), -1, each.shape[-1]]) for each in found]
        return tuple(tf.reduce_mean(each, axis=0) for each in by_view)

    return answer


def seen(
    answer: "Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]",
    batches: "Iterable[tuple]",
    *,
    total: int | None = None,
    progress: bool = False,
) -> "Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]":
    """Of each batch ids str [N], classes int32 [N], probabilities float32 [N, C] and features float32 [N, F].

    Raises:
        InputError: there is no sheet, or the network gives no number for one.
    """
    from tqdm.auto import tqdm

    n = 0
    with tqdm(total=total, unit=" sheets", desc="answers", disable=not progress) as bar:
        for images, classes, ids, *_ in batches:
            names = np.array([each.decode() for each in ids.numpy()])
            probabilities, features = (array.numpy() for array in answer(images))
            refuse_no_number(names, probabilities)
            yield names, classes.numpy().astype(np.int32), probabilities, features
            n += len(names)
            bar.update(len(names))
    if not n:
        raise InputError("There was no sheet to answer. Check the shards and the chosen image ids.")


def see(answer: "Callable", batches: "Iterable[tuple]", **options: Any) -> tuple[np.ndarray, ...]:
    """All that `seen` gives, in one."""
    return tuple(map(np.concatenate, zip(*seen(answer, batches, **options), strict=True)))


def write_answers_csv(
    judged: Judged,
    labels: "LabelMap",
    path: Path,
    *,
    files: Sequence[str] | None = None,
) -> Path:
    """Write a row a sheet in UTF-8, whole, cells as `write_rows` has them: what is answered, the most probable species.

    Columns: image_id, file_name (where `files` are given), status, rank, answer, answer_probability, strangeness (empty
    where there is none), then species_1, genus_1, family_1, probability_1, species_2 ...
    """
    predictions = judged.predictions
    places = range(1, predictions.classes.shape[1] + 1)
    header = ["image_id", *(["file_name"] if files is not None else [])]
    header += ["status", "rank", "answer", "answer_probability", "strangeness"]
    header += [f"{name}_{place}" for place in places for name in (*RANKS, "probability")]

    def rows() -> Iterator[list[str]]:
        yield header
        for row, image_id in enumerate(predictions.image_ids):
            rank = judged.rank[row]
            cells = [str(image_id), *([files[row]] if files is not None else []), judged.status[row]]
            cells += [RANKS[rank] if rank < NO_RANK else "", judged.taxon[row]]
            for value in (judged.probability[row], judged.strangeness[row]):
                cells.append("" if np.isnan(value) else f"{value:.4f}")
            for index, probability in zip(
                predictions.classes[row], predictions.probabilities[row], strict=True
            ):
                cells += [labels.names[index], labels.genera[index], labels.families[index]]
                cells.append(f"{probability:.4f}")
            yield cells

    write_rows(rows(), Path(path))
    return Path(path)


def concatenate_judged(parts: Sequence[Judged]) -> Judged:
    """All batches in one, without directions."""
    predictions = Predictions(
        *map(np.concatenate, zip(*(vars(part.predictions).values() for part in parts), strict=True))
    )
    names = ("rank", "taxon", "probability", "strangeness", "status")
    return Judged(predictions, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def write_rows(rows: Iterable[Sequence], path: Path) -> None:
    """Write rows as CSV, whole, texts as `as_cell` has them: they read back as they are by `read_table`."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(rows_of(file), lineterminator="\r\n").writerows(map(as_cell, row) for row in rows)
