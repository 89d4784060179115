"""Submission files: written whole, validated before they replace an earlier one, scored as Kaggle would."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import InputError
from utils.evaluation.predict import Predictions
from utils.files import replacing
from utils.metrics import scores

if TYPE_CHECKING:
    import pandas as pd

    from utils.data.labels import LabelMap

HEADER = ("Id", "Predicted")
MAX_PROBLEMS = 20  # shown; the rest is counted


def write_submission(
    predictions: Predictions, labels: "LabelMap", test_ids: "pd.DataFrame | Iterable", path: Path
) -> Path:
    """Write `Id,Predicted` with the most probable category_id of every test sheet, in the order of the ids.

    The file is validated under a temporary name; only a valid one replaces an earlier submission.

    Args:
        predictions: of all test sheets, in any order.
        labels: gives the category_id of each class index.
        test_ids: the table of test_metadata.json (column image_id), or the ids.
        path: the file to write, usually submission.csv.

    Raises:
        InputError: a test sheet has no prediction or two, or a sheet is no test sheet.
    """
    path = Path(path)
    expected = _ids(test_ids)
    categories = labels.to_category(predictions.predicted).tolist()
    by_id = dict(zip(predictions.image_ids.tolist(), categories, strict=True))
    if len(by_id) != len(predictions):
        names, times = np.unique(predictions.image_ids, return_counts=True)
        raise InputError(
            f"{path} not written: sheet {names[times > 1][0]} is predicted more than once "
            f"({len(predictions):,} predictions of {len(by_id):,} sheets). Give every test shard once."
        )
    missing = [image_id for image_id in expected if image_id not in by_id]
    if missing:
        raise InputError(
            f"{path} not written: {len(missing):,} of {len(expected):,} test sheets have no prediction "
            f"(first: {_listed(missing)}). Predict every test shard."
        )
    unknown = by_id.keys() - set(expected)
    if unknown:
        raise InputError(
            f"{path} not written: {len(unknown):,} predicted sheets are not in the test metadata "
            f"(first: {_listed(sorted(unknown))}). Predict the test shards, not train or validation."
        )
    with replacing(path) as temporary:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows((image_id, by_id[image_id]) for image_id in expected)
        del by_id, categories  # the check needs as much memory again
        problems = validate_submission(temporary, expected, labels.category_ids)
        if problems:
            listed = "\n".join(problems).replace(str(temporary), str(path))
            raise InputError(f"{path} not written, it would not be valid:\n{listed}")
    return path


def validate_submission(
    path: Path, test_ids: "pd.DataFrame | Iterable", category_ids: Sequence[int]
) -> list[str]:
    """List what is wrong with a submission file, each problem with file and line; empty when it is valid.

    Checked: header, two whole numbers a row, every test id once, only known category_ids, number of rows.
    At most 20 problems are listed, a last line counts the others.

    Raises:
        InputError: the file is missing or is not text.
    """
    expected, known = _ids(test_ids), {int(category) for category in category_ids}
    rows, problems = _read(path, HEADER)
    wanted = set(expected)
    first_line: dict[str, int] = {}
    unknown = []
    for line, image_id, category in rows:
        if image_id in first_line:
            problems.append((line, f"Id {image_id} was already on line {first_line[image_id]}"))
        elif image_id not in wanted:
            problems.append((line, f"Id {image_id} is not a test sheet"))
        first_line.setdefault(image_id, line)
        if category not in known:
            unknown.append(category)
            problems.append((line, f"Predicted {category} is not a category_id"))
    listed = [f"{path}, line {line}: {text}." for line, text in sorted(problems)]
    missing = [image_id for image_id in expected if image_id not in first_line]
    if missing:
        listed.append(
            f"{path}: {len(missing):,} test sheets have no row (first: {_listed(missing)}); "
            f"{len(expected):,} rows are needed, {len(rows):,} are there."
        )
    if len(listed) > MAX_PROBLEMS:
        listed = [*listed[:MAX_PROBLEMS], f"{path}: and {len(listed) - MAX_PROBLEMS:,} more problems."]
    if unknown and max(category for *_, category in rows) < len(known):
        listed.append(
            f"{path}: every Predicted lies in 0..{len(known) - 1}, so these look like class indices. "
            "Kaggle wants category_ids: LabelMap.to_category() turns one into the other."
        )
    return listed


def score_submission(path: Path, solution_path: Path, category_ids: Sequence[int] | None = None) -> dict:
    """Score a submission against the withheld answers, as Kaggle does: macro-F1 over the species.

    Args:
        path: the submission, `Id,Predicted`.
        solution_path: the answers, the same two columns.
        category_ids: the species of the label map; each counts, also one without a test sheet. Without it
            the species are those of the two files together, as in scikit-learn's f1_score().

    Returns:
        What utils.metrics.scores() gives, and `warnings`: a list of sentences, with one when the file
        seems to hold class indices in place of category_ids, the usual reason for a score near 0.

    Raises:
        InputError: a file is missing or malformed, the ids of the two differ, or the solution has a species
            that is not in `category_ids`.
    """
    submitted, truth = _answers(path), _answers(solution_path)
    for has, lacks, file, other in (
        (truth, submitted, path, solution_path),
        (submitted, truth, solution_path, path),
    ):
        absent = [image_id for image_id in has if image_id not in lacks]
        if absent:
            raise InputError(
                f"{file}: {len(absent):,} of {len(has):,} ids of {other} are not there "
                f"(first: {_listed(absent)}). Take the solution of the same test set."
            )
    true = np.array([truth[image_id] for image_id in truth])
    predicted = np.array([submitted[image_id] for image_id in truth])
    union = np.union1d(true, predicted)
    classes = union if category_ids is None else np.unique(np.asarray(category_ids, dtype=np.int64))
    outside = np.setdiff1d(true, classes)
    if len(outside):
        raise InputError(
            f"{solution_path}: category_id {outside[0]} is not in the label map. "
            "Take labels and solution of one data set."
        )
    result = _score(true, predicted, classes)
    result["warnings"] = _class_index_warning(path, true, predicted, classes, result["macro_f1"])
    return result


def _score(true: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> dict:
    """Scores over sorted category_ids; a prediction outside them is wrong and counts for no species."""
    n_classes = len(classes)
    inside = np.isin(predicted, classes)
    indices = np.where(inside, np.searchsorted(classes, predicted), n_classes)
    true = np.searchsorted(classes, true)
    if inside.all():
        return scores(true, indices, n_classes)
    # what is outside gets a class of its own, whose F1 is 0 and which is then taken out of the mean
    result = scores(true, indices, n_classes + 1)
    result["macro_f1"] *= (n_classes + 1) / n_classes
    return {**result, "classes": n_classes, "classes_without_images": result["classes_without_images"] - 1}


def _class_index_warning(path, true, predicted, classes, reached) -> list[str]:
    """Compare the score with the one that the same numbers would reach if they were class indices."""
    # without a label map `classes` has submitted numbers in it; the solution may list all
    for names in (classes, np.unique(true)):
        if predicted.min() < 0 or predicted.max() >= len(names):
            continue
        other = _score(true, names[predicted], classes)["macro_f1"]
        if other > max(2 * reached, reached + 0.05):
            return [
                f"{path}: Predicted looks like class indices (0 to {len(names) - 1}). Read so, the file "
                f"would score {other:.5f} and not {reached:.5f}. Turn them into category_ids with "
                "LabelMap.to_category()."
            ]
    return []


def _answers(path: Path) -> dict[str, int]:
    """Id to category_id of a well-formed file."""
    rows, problems = _read(path, HEADER)
    answers: dict[str, int] = {}
    for line, image_id, category in rows:
        if image_id in answers:
            problems.append((line, f"Id {image_id} is there twice"))
        answers[image_id] = category
    if problems or not answers:
        line, text = min(problems, default=(2, "there is no row below the header"))
        raise InputError(f"{path}, line {line}: {text}. Write the file with write_submission().")
    return answers


def _read(path: Path, header: tuple[str, str]) -> tuple[list[tuple[int, str, int]], list[tuple[int, str]]]:
    """Rows as (line, id, category_id), and problems as (line, text) for the rows that are none."""
    rows, problems = [], []
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            found = next(reader, [])
            if tuple(found[:2]) != header:
                problems.append(
                    (1, f"the header must be {','.join(header)}, found {','.join(found) or 'nothing'}")
                )
            for row in reader:
                if len(row) < 2:
                    problems.append((reader.line_num, "a row needs an Id and a Predicted"))
                    continue
                image_id, category = row[0].strip(), row[1].strip()
                # 18 digits fit into int64; no category_id has more
                if not category.removeprefix("-").isdecimal() or len(category) > 18:
                    problems.append((reader.line_num, f"Predicted {category!r} is not one whole number"))
                    continue
                rows.append((reader.line_num, image_id, int(category)))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Notebook 05 writes submission.csv.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}).") from None
    return rows, problems


def _ids(test_ids: "pd.DataFrame | Iterable") -> list[str]:
    """Ids as text, from the table of test_metadata.json or from any sequence of them."""
    column = test_ids["image_id"] if hasattr(test_ids, "columns") else test_ids
    return [str(image_id) for image_id in column]


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3])
