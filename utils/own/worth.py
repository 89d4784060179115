"""What a run's answers are worth, worked out once: calibration, limits and references from the sheets held out.

`worth_of(run, data)` gives what lies in the run's folder if it is of the same weights, and makes it where it is not.
"""

import hashlib
import zipfile
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.metadata import UNKNOWN
from utils.data.splits import SCORED_FROM
from utils.experiments.decide import fit_temperature
from utils.files import InputError, read_json, replacing, write_json
from utils.own.answers import (
    ARRAYS,
    HELD_OUT,
    REFUSED,
    SURE_AT,
    TEST,
    WORDS,
    Answers,
    Judged,
    Measured,
    References,
    answering,
    best_classes,
    best_of_ranks,
    calibrated,
    concatenate_judged,
    judge,
    see,
    seen,
)
from utils.own.unknown import Space, fit_space, threshold, unit

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from utils.config import Profile
    from utils.data.labels import LabelMap
    from utils.sources import Data

VERSION = 1  # of what is kept; another one is made anew
MAX_REFERENCES = 20_000  # training sheets whose features are kept: 1,700 features of each are 68 MB
FOLDS = 3  # parts of the species that are left out in turn, to see how many unknown sheets pass
# What NumPy raises of a file that is no .npz, or is damaged.
NOT_ARRAYS = (ValueError, KeyError, TypeError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error)
_PRIOR = 0.5  # standard deviation of the log of the temperature before a sheet is seen


def fingerprint(run_dir: Path, run_name: str) -> str:
    """SHA-256 of the run's weights."""
    with (Path(run_dir) / f"{run_name}_weights.h5").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_worth(
    run_dir: Path, profile: "Profile", labels: "LabelMap", kept_in: Path | None = None
) -> Answers | None:
    """What was kept in a run's folder, or in `kept_in`; None where there is nothing, or it is of other weights.

    Raises:
        InputError: a file is damaged.
    """
    folder = Path(kept_in or run_dir)
    words, arrays = folder / WORDS, folder / ARRAYS
    if not (words.is_file() and arrays.is_file()):
        return None
    kept = read_json(words)
    of_these = {"version": VERSION, "weights": fingerprint(run_dir, profile.run_name)}
    if isinstance(kept, dict) and any(kept.get(key) != value for key, value in of_these.items()):
        return None
    try:
        _refuse_other_words(kept)
        with np.load(arrays, allow_pickle=False) as stored:
            if str(stored["weights"]) != kept["weights"]:
                return None
            part = {name: stored[name] for name in _KINDS}
        _refuse_other_arrays(part, labels.n_classes)
        return Answers(
            labels=labels,
            temperature=float(kept["temperature"]),
            doubt=float(kept["doubt"]),
            limit=float("inf") if kept["limit"] is None else float(kept["limit"]),
            space=Space(part["centre"], part["whiten"], part["means"], part["classes"]),
            references=References(part["ids"], part["reference_classes"], part["directions"]),
            measured=Measured(
                kept["measured"],
                *(part[name] for name in ("true", "predicted", "probabilities", "right", "strangeness")),
            ),
            held_out=tuple(kept["held_out"]),
            passed=kept["passed"] and tuple(kept["passed"]),
            origin=kept["origin"],
        )
    except NOT_ARRAYS as error:
        raise InputError(
            f"{arrays}: cannot be read ({error}). Remove it and {words.name}; ./course train makes both again."
        ) from None


# Of each array the kind of its numbers and its shape: F features, K species in the space, N references, M measured.
_KINDS = {
    **{"centre": "fF", "whiten": "fFF", "means": "fKF", "classes": "iK"},
    **{"ids": "UN", "reference_classes": "iN", "directions": "fNF"},
    **{"true": "iM", "predicted": "iM", "probabilities": "fM3", "right": "bM3", "strangeness": "fM"},
}


def _refuse_other_words(kept: Any) -> None:
    """Raise ValueError where answers.json has what `_save` does not write: a number out of range answers wrongly."""
    if not isinstance(kept, dict):
        raise ValueError(f"{WORDS} is no object")
    right = {
        "temperature": lambda value: _is_number(value) and value > 0,
        "doubt": lambda value: _is_number(value) and 0 <= value < 1,
        "limit": lambda value: value is None or _is_number(value),
        "measured": lambda value: value in (TEST, HELD_OUT),
        "held_out": lambda value: _is_counts(value, 3),
        "passed": lambda value: value is None or _is_counts(value, 2),
        "origin": lambda value: (
            isinstance(value, dict)
            and isinstance(value.get("invented"), bool)
            and isinstance(value.get("licences"), list)
            and all(isinstance(name, str) for name in value["licences"])
        ),
    }
    if wrong := [name for name, holds in right.items() if not holds(kept.get(name))]:
        raise ValueError(f"{wrong[0]!r} in {WORDS} is not right")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # false of NaN


def _is_counts(value: Any, number: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == number
        and all(type(n) is int and 0 <= n < 2**53 for n in value)
    )


def _refuse_other_arrays(part: dict[str, np.ndarray], n_classes: int) -> None:
    """Raise ValueError unless the arrays have the kinds and shapes of `_save`, known classes, and numbers."""
    sides = {"3": 3}
    for name, (kind, *shape) in _KINDS.items():
        array = np.asarray(part[name])  # of what is no array NumPy gives the bytes
        if array.dtype.kind != kind or len(array.shape) != len(shape):
            raise ValueError(f"its {name} is another array")
        for side, length in zip(shape, array.shape, strict=True):
            if sides.setdefault(side, length) != length:
                raise ValueError(f"its {name} has {length} where others have {sides[side]}")
        if kind == "i" and not ((array >= 0) & (array < n_classes)).all():
            raise ValueError(f"its {name} has classes that labels.json does not have")
        if kind == "f" and name != "probabilities" and not np.isfinite(array).all():  # of no known family NaN
            raise ValueError(f"its {name} has values that are no numbers")
    if not min(sides.values()):
        raise ValueError("an array is empty")


def _save(answers: Answers, run_dir: Path, weights: str) -> None:
    space, references, measured = answers.space, answers.references, answers.measured
    with replacing(Path(run_dir) / ARRAYS) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            weights=np.array(weights),
            centre=space.centre,
            whiten=space.whiten,
            means=space.means,
            classes=space.classes,
            ids=references.ids,
            reference_classes=references.classes,
            directions=references.directions,
            true=measured.true,
            predicted=measured.predicted,
            probabilities=measured.probabilities,
            right=measured.right,
            strangeness=measured.strangeness,
        )
    write_json(
        Path(run_dir) / WORDS,
        {
            "version": VERSION,
            "weights": weights,
            "temperature": answers.temperature,
            "doubt": answers.doubt,
            "limit": answers.limit if np.isfinite(answers.limit) else None,
            "measured": measured.part,
            "held_out": list(answers.held_out),
            "passed": answers.passed and list(answers.passed),
            "origin": answers.origin,
        },
    )


def worth_of(
    run_dir: Path,
    data: "Data | None" = None,
    *,
    trained: "tuple[tf.keras.Model, Profile, LabelMap] | None" = None,
    kept_in: Path | None = None,
    progress: bool = True,
) -> Answers | None:
    """What the answers of a run are worth: kept in its folder, or made from its data and kept there.

    Args:
        run_dir: folder of a finished training.
        data: that it was trained on; without them only what is kept counts.
        trained: what `load_trained` gave of the run, where it is loaded already.
        kept_in: the folder to keep it in where the run's own cannot be written, as what is attached on Kaggle.
        progress: show bars.

    Returns:
        None where nothing is kept and no data are given, or too few sheets were held out to say anything.

    Raises:
        InputError: as `load_trained` and `Data.split`, or a kept file is damaged.
    """
    from utils.training.runs import load_trained

    network, profile, labels = trained or load_trained(run_dir, data=data)
    kept = load_worth(run_dir, profile, labels, kept_in)
    if kept is not None or data is None:
        return kept
    made = make_worth(network, profile, labels, data, progress=progress)
    if made is not None:
        _save(made, kept_in or run_dir, fingerprint(run_dir, profile.run_name))
    return made


def make_worth(
    network: "tf.keras.Model",
    profile: "Profile",
    labels: "LabelMap",
    data: "Data",
    *,
    progress: bool = True,
) -> Answers | None:
    """Look at the held-out sheets, the withheld test and up to MAX_REFERENCES training sheets; None without a score."""
    table = data.split(profile)
    part, ids = table["part"].to_numpy(), table["image_id"].to_numpy(dtype=str)
    classes = table["class_index"].to_numpy()
    held = ids[part == "validation"]
    if len(np.unique(classes[part == "validation"])) < SCORED_FROM:
        return None
    answer = answering(network, profile)
    chosen = spread(ids[part == "train"], classes[part == "train"], MAX_REFERENCES)
    both = [_seen(answer, data, "train", profile, chosen, progress)]
    if (
        profile.augment != "none"
    ):  # mirror images say how much sheets of one species differ in nothing of theirs
        mirrored = lambda images: answer(images[:, :, ::-1])  # noqa: E731
        both.append(_seen(mirrored, data, "train", profile, chosen, progress))
    (names, of, _, features), *_ = both
    space = fit_space(np.stack([features, *(other[3] for other in both[1:])]), of)
    held_ids, held_true, held_shares, held_features = _seen(
        answer, data, "validation", profile, held, progress
    )
    temperature = fit_temperature(
        replace(best_classes(held_ids, held_shares, labels.n_classes), true=held_true), spread=_PRIOR
    )
    doubt = 1 / (len(held_ids) + 1)
    limit = threshold(space.strangeness(space.place(held_features), held_shares, temperature), REFUSED)

    def measured(part: str, true: np.ndarray, shares: np.ndarray, features: np.ndarray) -> Measured:
        shown = calibrated(shares, temperature, doubt)
        taxa, of_ranks = best_of_ranks(shown, labels)
        truth = np.stack([true, labels.genus_index[true], labels.family_index[true]], axis=1)
        strange = space.strangeness(space.place(features), shares, temperature)
        return Measured(
            part, true, taxa[:, 0].astype(np.int32), of_ranks, (taxa == truth) & ~np.isnan(of_ranks), strange
        )

    found = measured(HELD_OUT, held_true, held_shares, held_features)
    right = (int(found.right[:, 0].sum()), len(found), len(np.unique(held_true)))
    if test := _test_sheets(answer, data, profile, table, progress):
        found = measured(TEST, *test)
    passed = None
    if profile.regression and not profile.sgd_epochs:  # features that no species was taught to
        views = np.stack([each[3] for each in both])
        passed = _passed(views, of, held_features, held_true, profile, temperature)
    return Answers(
        labels=labels,
        temperature=temperature,
        doubt=doubt,
        limit=limit,
        space=space,
        references=References(names, of, unit(space.place(features)).astype(np.float16)),
        measured=found,
        held_out=right,
        passed=passed,
        origin=_origin(data),
    )


def spread(ids: np.ndarray, classes: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the ids, as many of every class as can be, str."""
    order = np.argsort(classes, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(classes[order], classes[order])  # within the class
    return ids[np.sort(order[np.argsort(place, kind="stable")[:most]])]


def _seen(
    answer: Any, data: "Data", part: str, profile: "Profile", ids: np.ndarray, progress: bool
) -> tuple[np.ndarray, ...]:
    batches = data.batches(part, profile, only_ids=ids.tolist(), batch_size=profile.batch_size)
    return see(answer, batches, total=len(ids), progress=progress)


def _test_sheets(
    answer: Any, data: "Data", profile: "Profile", table: "pd.DataFrame", progress: bool
) -> tuple[np.ndarray, ...] | None:
    """Classes, probabilities and features of test sheets whose species is known; None without such sheets."""
    if not has_test(data, table):
        return None
    ids, true, *found = see(answer, data.batches("test", profile), progress=progress)
    return data.true_classes(ids) if data.test_shards else true, *found


def has_test(data: "Data", table: "pd.DataFrame") -> bool:
    """Whether there are test sheets whose species is known: withheld ones with answers, or a part of the split."""
    return data.solution is not None if data.test_shards else bool((table["part"] == "test").any())


def _passed(
    views: np.ndarray,
    classes: np.ndarray,
    held_features: np.ndarray,
    held_true: np.ndarray,
    profile: "Profile",
    temperature: float,
) -> tuple[int, int] | None:
    """Sheets of species left out in turn that pass for known ones, and how many such sheets there were.

    The classifier and the space are made again without a part of the species, and the limit is set by the held-out
    sheets of the others, as in use.
    """
    from scipy.special import softmax

    from utils.training.features import Features, fit_regression

    known = np.random.default_rng(profile.seed).permutation(np.unique(classes))
    if len(known) < 2 * FOLDS:
        return None
    passed = total = 0
    for left_out in np.array_split(known, FOLDS):
        stays, new = ~np.isin(classes, left_out), np.isin(held_true, left_out)
        kept = np.setdiff1d(known, left_out)
        rows = np.searchsorted(kept, classes[stays])
        seen = Features(
            views[:, stays].reshape(-1, views.shape[2]), np.tile(rows, len(views)).astype(np.int32)
        )
        linear = fit_regression(seen, len(kept), profile.regression)
        space = fit_space(views[:, stays], rows)

        unknown = np.concatenate([views[0, ~stays], held_features[new]])
        strange = [
            space.strangeness(space.place(found), softmax(linear.logits(found), axis=1), temperature)
            for found in (held_features[~new], unknown)
        ]
        passed += int((strange[1] <= threshold(strange[0], REFUSED)).sum())
        total += len(unknown)
    return passed, total


def _origin(data: "Data") -> dict[str, Any]:
    """Whether the sheets are drawn, and the licences that their table names."""
    folder = data.folder or data.train_shards[0].parent
    licences = []
    if data.train_metadata is not None:
        names = data.metadata().licenses["name"]
        licences = sorted({name for name in names if name and name != UNKNOWN})
    return {"invented": (folder / "flora.json").is_file(), "licences": licences}


def answer_shards(
    run_dir: Path, sheets: "Data", *, sure: float = SURE_AT, tta: bool = False, progress: bool = True
) -> tuple[Judged, "LabelMap"]:
    """Answers to the sheets of test shards, and the label map of the run.

    Raises:
        InputError: there is no trained run, a record is damaged, or the network gives no number.
    """
    from utils.data.damage import WAY_OUT, bad_records, naming_damage
    from utils.data.records import count_records
    from utils.training.runs import load_trained

    network, profile, labels = load_trained(run_dir)
    worth = load_worth(run_dir, profile, labels)
    shards = sheets.test_shards
    with closing(bad_records(shards, progress=progress)) as found:
        if (first := next(found, None)) is not None:
            raise InputError(f"{first}. {WAY_OUT}.")
    answer = answering(network, profile, tta=tta or profile.tta)
    parts = []
    with naming_damage(shards, progress=progress):
        batches = sheets.batches("test", profile, batch_size=profile.batch_size)
        for ids, _, probabilities, features in seen(
            answer, batches, total=count_records(shards), progress=progress
        ):
            judged = judge(worth, ids, probabilities, features, sure=sure)
            parts.append(replace(judged, directions=None))
    return concatenate_judged(parts), labels


def told(worth: Answers | None, sure: float = SURE_AT) -> str:
    """What the answers are worth where those of the probability `sure` are called sure, in two sentences."""
    if worth is None:
        return "What its answers are worth was never measured."
    right, sheets, species = worth.held_out
    text = f"{right:,} of {sheets:,} held-out sheets ({species:,} species) are named rightly. "
    table = worth.measured.by_rank(sure, worth.limit)
    answered = table[table["rank"] != "none"]
    if not answered["sheets"].sum():
        return (
            text
            + f"At {100 * sure:.4g}% it is sure of none of the {worth.measured.part} ({len(worth.measured):,})."
        )
    parts = [
        f"{row.share:.0%} to {row.rank} ({row.right:.1%} right)"
        for row in answered.itertuples()
        if row.sheets
    ]
    return (
        text + f"At {100 * sure:.4g}% it is sure of {', '.join(parts)} of {len(worth.measured):,} sheets, "
        f"{worth.measured.part}."
    )
