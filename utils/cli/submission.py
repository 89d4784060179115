"""Commands of a submission: validate, score."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from utils.cli.common import EXISTING, FOLDER, PROFILE, Commands, echo, example, profile_of
from utils.files import InputError
from utils.own.telling import told

if TYPE_CHECKING:
    from utils.sources import Data


@click.group(cls=Commands, epilog=example("./course submission validate submission.csv --data data/mine"))
def submission() -> None:
    """Check or score a submission file (header Id,Predicted)."""


@submission.command(epilog=example("./course submission validate submission.csv --data data/flora40"))
@click.argument("file", type=EXISTING)
@PROFILE
@click.option("--data", type=FOLDER, help="Folder with test_metadata.json and the labels' metadata.")
def validate(file: Path, profile: str, data: Path | None) -> None:
    """Say what is wrong with a submission FILE: every test id once, only known category_ids."""
    from utils.data.metadata import read_test_metadata
    from utils.evaluation.submission import validate_submission

    found = _tables(profile, data)
    if found.test_metadata is None:
        raise InputError(
            "The data have no test_metadata.json, so the test ids are not known. Name them by --data."
        )
    with told(f"reading {file}"):
        test = read_test_metadata(found.test_metadata)
        problems = validate_submission(file, test, found.labels().category_ids)
    if problems:
        raise InputError("\n".join(problems))
    echo(f"{file} is valid.")


@submission.command(epilog=example("./course submission score submission.csv --data data/flora40"))
@click.argument("file", type=EXISTING)
@PROFILE
@click.option("--data", type=FOLDER, help="Folder with solution.csv and the labels' metadata.")
@click.option("--solution", type=EXISTING, help="The withheld answers, in place of the data's own.")
def score(file: Path, profile: str, data: Path | None, solution: Path | None) -> None:
    """Score a submission FILE by the competition's metric: macro-F1 over all species."""
    from utils.evaluation.submission import score_submission

    found = _tables(profile, data)
    answers = solution or found.solution
    if answers is None:
        raise InputError(
            "The data have no solution.csv: only Kaggle can score this. Or name one by --solution."
        )
    with told(f"reading {file}"):
        result = score_submission(file, answers, found.labels().category_ids)
    for warning in result.pop("warnings"):
        echo(warning, err=True)
    for name, value in result.items():
        shown = f"{value:.5f}" if isinstance(value, float) else f"{value:,}"
        echo(f"{name.replace('_', ' '):<24} {shown:>12}")


def _tables(profile: str, data: Path | None) -> "Data":
    """The tables of a data set. In a folder that is given they are enough: its shards may lie elsewhere."""
    from utils.data.shards import only_file, shards_below, walk
    from utils.sources import TRAIN_TABLE, Data, find_data

    by_folder = walk(data) if data else {}
    if data is None or shards_below(data, by_folder, "train"):
        return find_data(profile_of(profile), data or "auto")
    metadata = only_file(data, by_folder, "train_metadata.json") or only_file(data, by_folder, TRAIN_TABLE)
    return Data(
        kind="folder",
        train_metadata=metadata,
        test_metadata=only_file(data, by_folder, "test_metadata.json"),
        label_file=None if metadata else only_file(data, by_folder, "labels.json"),
        solution=only_file(data, by_folder, "solution.csv"),
    )
