"""Submission files: written whole, validated before they replace an earlier one, scored by the competition's metric."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.evaluation.predict import Predictions
from utils.evaluation.scores import overall_scores
from utils.files import InputError, replacing

if TYPE_CHECKING:
    import pandas as pd

    from utils.data.labels import LabelMap

HEADER = ("Id", "Predicted")
MAX_PROBLEMS = 20  # shown; the rest is counted
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # 18 digits fit into int64; no category_id has more
# by their first bytes
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


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

    Checked: the two columns and no other, one whole number in ASCII digits a row, every test id once, only
    known category_ids, number of rows. Blank lines at the end are no problem. At most 20 problems are listed, a
    last line counts the others.

    Raises:
        InputError: the file is missing or is not text.
    """
    expected, known = _ids(test_ids), {int(category) for category in category_ids}
    rows, problems = _read(path)
    unread = len(problems)  # lines whose sheets have a row, though not one that can be read
    wanted = set(expected)
    readable = bool(rows) or not problems  # else of another form: that no sheet has a row would only hide it
    first_line: dict[str, int] = {}
    unknown = []
    for line, image_id, category in rows:
        if image_id in first_line:
            problems.append((line, f"Id {_shown(image_id)} was already on line {first_line[image_id]}"))
        elif image_id not in wanted:
            problems.append((line, f"Id {_shown(image_id)} is not a test sheet"))
        first_line.setdefault(image_id, line)
        if category not in known:
            unknown.append(category)
            problems.append((line, f"Predicted {category} is not a category_id"))
    listed = [f"{path}, line {line}: {text}." for line, text in sorted(problems)]
    missing = [image_id for image_id in expected if image_id not in first_line]
    if readable and len(missing) > unread:
        listed.append(
            f"{path}: {len(missing):,} test sheets have no row (first: {_listed(missing)}); "
            f"{len(expected):,} rows are needed, {len(rows):,} are there."
        )
    if len(listed) > MAX_PROBLEMS:
        listed = [*listed[:MAX_PROBLEMS], f"{path}: and {len(listed) - MAX_PROBLEMS:,} more problems."]
    if unknown and min(unknown) >= 0 and max(category for *_, category in rows) < len(known):
        listed.append(
            f"{path}: every Predicted lies in 0..{len(known) - 1}, so these look like class indices. "
            "Kaggle wants category_ids: LabelMap.to_category() turns one into the other."
        )
    return listed


def score_submission(path: Path, solution_path: Path, category_ids: Sequence[int] | None = None) -> dict:
    """Score a submission against the withheld answers by the competition's metric: macro-F1 over the species.

    Args:
        path: the submission, `Id,Predicted`.
        solution_path: the answers, the same two columns.
        category_ids: the species of the label map; each counts, also one without a test sheet. Without it
            the species are those of the two files together, as in scikit-learn's f1_score().

    Returns:
        What utils.evaluation.scores.overall_scores() gives, and `warnings`: a list of sentences, with one when the file
        seems to hold class indices in place of category_ids, the usual reason for a score near 0.

    Raises:
        InputError: a file is missing or malformed, the ids of the two differ, or the solution has a species
            that is not in `category_ids`.
    """
    submitted, truth = _answers(path), _answers(solution_path, "Copy it again from its source")
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
        return overall_scores(true, indices, n_classes)
    # what is outside gets a class of its own, whose F1 is 0 and which is then taken out of the mean
    result = overall_scores(true, indices, n_classes + 1)
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


def _answers(path: Path, way_out: str = "Write the file with write_submission()") -> dict[str, int]:
    """Id to category_id of a well-formed file."""
    rows, problems = _read(path)
    answers: dict[str, int] = {}
    for line, image_id, category in rows:
        if image_id in answers:
            problems.append((line, f"Id {_shown(image_id)} is there twice"))
        answers[image_id] = category
    if problems or not answers:
        line, text = min(problems, default=(2, "there is no row below the header"))
        raise InputError(f"{path}, line {line}: {text}. {way_out}.")
    return answers


def _read(path: Path) -> tuple[list[tuple[int, str, int]], list[tuple[int, str]]]:
    """Rows as (line, id, category_id), and problems as (line, text) for the rows that are none."""
    rows: list[tuple[int, str, int]] = []
    problems: list[tuple[int, str]] = []
    blank = 0  # line of the first of the blank lines that came last; at the end they are no problem
    try:
        with Path(path).open("rb") as file:
            begin = file.read(8)
        for first, kind in _PACKED.items():
            if begin.startswith(first):
                raise InputError(f"{path}: is a {kind} file and no CSV. Unpack it.")
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            found = next(reader, [])
            if problem := _header_problem(found):
                problems.append((1, problem))
            if len(found) < 2 or (set(HEADER) <= set(found) and tuple(found[:2]) != HEADER):
                return [], problems  # other separators or another order: no row could be read
            for row in reader:
                if len(row) < 2 and not "".join(row).strip():
                    blank = blank or reader.line_num
                    continue
                if blank:
                    problems.append((blank, "is blank, and rows follow it"))
                    blank = 0
                if problem := _row_problem(row, len(found)):
                    problems.append((reader.line_num, problem))
                    continue
                rows.append((reader.line_num, row[0].strip(" "), int(row[1].strip(" "))))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Notebook 05 writes submission.csv.") from None
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: cannot be read as CSV ({error}). "
            "Look for a quotation mark that is not closed."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}). Save it as CSV in UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}).") from None
    return rows, problems


def _header_problem(found: list[str]) -> str:
    if tuple(found) == HEADER:
        return ""
    text = f"the header must be {','.join(HEADER)}, found {_shown(','.join(found)) or 'nothing'}"
    if tuple(found[:2]) == HEADER:
        more = ", ".join(repr(name) if name.strip() else "one without a name" for name in found[2:])
        return f"{text}. Remove the further column{'s' * (len(found) > 3)} ({more})"
    if set(HEADER) <= set(found):
        return f"{text}. Write these two columns in this order, no index and no other (pandas: index=False)"
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(found) == 1 and separator in found[0]:
            return f"{text}. Separate by commas, not by {name}"
    return text


def _row_problem(row: list[str], columns: int) -> str:
    """What is wrong with a row; fields below a further column of the header are told there."""
    if len(row) < 2:
        return "a row needs an Id and a Predicted"
    if len(row) > max(columns, 2):
        more = ", ".join(repr(text[:40]) for text in row[2:5])
        return f"a row is one Id and one Predicted, found {len(row)} fields (further: {more})"
    category = row[1].strip(" ")
    if _NUMBER.fullmatch(category):
        return ""
    if not category.isascii() and category.isdecimal():
        return f"Predicted {category!r} is not written in the digits 0 to 9"
    if re.fullmatch(r"-?0+[0-9]{0,18}", category):
        return f"Predicted {category!r} has a leading zero or sign: write {int(category)}"
    shown = category if len(category) <= 40 else f"{category[:40]}..."
    return f"Predicted {shown!r} is not one whole number"


def _shown(text: str) -> str:
    """A text of the file for a message: as it is where that is one plain line of ASCII, else quoted."""
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return text if text.isprintable() and text.isascii() and text.strip() == text else repr(text)


def _ids(test_ids: "pd.DataFrame | Iterable") -> list[str]:
    """Ids as text, from the table of test_metadata.json or from any sequence of them."""
    column = test_ids["image_id"] if hasattr(test_ids, "columns") else test_ids
    return [str(image_id) for image_id in column]


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3])
