"""The end of a written data set: metadata, label map, duplicates, what was left out, and the manifest.

One call of a shared job gets here, when all shards are there; it may be killed and come again. The bytes depend on
the job and the reports of its shards alone.
"""

import dataclasses
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.data import splits
from utils.data.delimited import write_csv
from utils.data.forms.names import look_alike_notes
from utils.data.forms.published import write_metadata, write_test_metadata
from utils.data.records import read_schema
from utils.data.shards import MANIFEST
from utils.data.splits import DUPLICATES, SKIPPED, shared_duplicates
from utils.files import InputError, write_json
from utils.own.duplicates import duplicate_groups
from utils.own.plan import DOUBTFUL, Job, read_report, told_of


def finish(job: Job) -> None:
    """Write what belongs to the whole set, beside all shards; the manifest last.

    Raises:
        InputError: all images to train on were left out.
    """
    reports, rows, marks, skipped, noted = _reports(job)
    parts = job.parts[rows]
    if not (parts != "test").any():
        raise InputError(
            f"{job.images_dir}: no image to train on could be read. Without --skip-bad the first one is named."
        )
    folder = job.unfinished / f"final.{uuid.uuid4().hex}"
    folder.mkdir()
    _write_tables(job, rows[parts != "test"], rows[parts == "test"], folder)
    job.labels.save(folder / "labels.json")
    if job.split_file is not None and job.split_file.resolve() != (job.out / splits.FILE_NAME).resolve():
        shutil.copyfile(job.split_file, folder / splits.FILE_NAME)
    notes = _write_skipped(job, skipped, folder) + _write_doubtful(job, folder) + _flaws(job, noted)
    notes += _write_duplicates(job, rows, marks, folder)
    notes += look_alike_notes(np.unique(job.labels.names[job.classes]).tolist())
    write_json(folder / MANIFEST, _manifest(job, reports, parts, notes))
    for file in sorted(folder.iterdir(), key=lambda file: file.name == MANIFEST):
        file.replace(job.out / file.name)


def _write_tables(job: Job, train: np.ndarray, test: np.ndarray, folder: Path) -> None:
    """The published tables of the rows that can be trained on, and of those that are withheld.

    Args:
        train, test: rows, ascending.
    """

    def tables(rows: np.ndarray) -> dict[str, pd.DataFrame]:
        return {
            "annotations": job.metadata.annotations.iloc[rows],
            "images": job.metadata.images.iloc[np.sort(job.image_rows[rows])],
        }

    write_metadata(dataclasses.replace(job.metadata, **tables(train)), folder / "train_metadata.json")
    if len(test):
        withheld = tables(test)
        write_test_metadata(withheld["images"], folder / "test_metadata.json")
        solution = withheld["annotations"].rename(columns={"image_id": "Id", "category_id": "Predicted"})
        write_csv(solution[["Id", "Predicted"]], folder / "solution.csv")


def _reports(
    job: Job,
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray, list[list[Any]], list[list[Any]]]:
    """The reports of all shards.

    Returns:
        What they say of the shards; the rows of the images that are there, int64 [K] ascending; the sha256 and the
        fingerprint of each, uint8 [2, K, 32]; row and reason of the images that were left out; row and
        note of those with a flaw.
    """
    reports, skipped, noted = [], [], []
    there = np.zeros(len(job.ids), dtype=bool)
    marks = np.zeros((2, len(job.ids), 32), dtype=np.uint8)
    for shard in job.shards:
        report = read_report(job, shard)
        images = report.pop("images")
        rows = [image[0] for image in images]
        there[rows] = True
        for place, mark in enumerate(marks, start=1):
            content = bytes.fromhex("".join(image[place] for image in images))
            mark[rows] = np.frombuffer(content, dtype=np.uint8).reshape(-1, 32)
        skipped += report.pop("skipped")
        noted += report.pop("noted", [])  # not in those of earlier versions
        reports.append(report)
    if not there.all():
        marks = marks[:, there]
    return reports, np.flatnonzero(there), marks, skipped, noted


def _write_doubtful(job: Job, folder: Path) -> list[str]:
    if not len(job.doubtful):
        return []
    write_csv(job.doubtful, folder / DOUBTFUL)
    return [f"Left out, see {DOUBTFUL}: {told_of(job.doubtful)}."]


def _write_skipped(job: Job, skipped: list[list[Any]], folder: Path) -> list[str]:
    if not skipped:
        return []
    rows = [row for row, _ in skipped]
    table = pd.DataFrame(
        {"image_id": job.ids[rows], "file_name": job.names[rows], "reason": [reason for _, reason in skipped]}
    )
    write_csv(table, folder / SKIPPED)
    return [f"{len(rows)} of {len(job.ids)} images were left out, see {SKIPPED}."]


def _flaws(job: Job, noted: list[list[Any]]) -> list[str]:
    if not noted:
        return []
    told = "; ".join(f"{job.names[row]}: {note}" for row, note in noted[:5]) + "; ..." * (len(noted) > 5)
    return [f"{len(noted)} images have flaws that cost no pixel ({told})."]


def _write_duplicates(job: Job, rows: np.ndarray, marks: np.ndarray, folder: Path) -> list[str]:
    sha256, fingerprints = marks
    groups = duplicate_groups(sha256, fingerprints)
    if not groups:
        return []
    rows = rows[np.concatenate(groups)]
    number = np.repeat(np.arange(len(groups)), [len(members) for members in groups])
    same = [bool((sha256[members] == sha256[members[0]]).all()) for members in groups]
    table = pd.DataFrame(
        {
            "group": number,
            "kind": np.where(same, "same bytes", "near-identical")[number],
            "image_id": job.ids[rows],
            "file_name": job.names[rows],
            "scientificName": job.labels.names[job.classes[rows]],
            "split": job.parts[rows],
        }
    )
    write_csv(table, folder / DUPLICATES)
    notes = [
        f"{len(table)} images are duplicates, in {len(groups)} groups ({sum(same)} of the same bytes, "
        f"{len(groups) - sum(same)} near-identical), see {DUPLICATES}."
    ]
    straddling = shared_duplicates(folder / DUPLICATES, table["image_id"], table["split"])
    if straddling:
        notes.append(
            f"Warning: {straddling} of these groups lie in more than one of train, validation and test, so "
            "scores come out too good. Remove the copies, or split by a column that says what belongs together "
            "(split --group)."
        )
    two_species = int((table.groupby("group")["scientificName"].nunique() > 1).sum())
    if two_species:
        notes.append(
            f"Warning: {two_species} of these groups are under two or more species. Correct the labels."
        )
    return notes


def _manifest(job: Job, reports: list[dict[str, Any]], parts: np.ndarray, notes: list[str]) -> dict:
    """What a reader needs to know and to check; no times and no paths, so that it is the same every time."""
    shards = [
        {key: report[key] for key in ("file", "split", "records", "bytes", "sha256")}
        for report in reports
        if report["file"]
    ]
    first = {}
    for shard in shards:
        first.setdefault(shard["split"], job.out / shard["file"])
    return {
        "format": 1,
        "settings": job.settings,
        "records": {part: int((parts == part).sum()) for part in splits.PARTS},
        "skipped": len(job.ids) - len(parts),
        "species": job.labels.n_classes,
        "genera": len(job.labels.genus_names),
        "families": len(job.labels.family_names),
        "schema": {split: read_schema(path) for split, path in first.items()},
        "labels": {
            "scientificName": job.labels.names.tolist(),
            "category_id": job.labels.category_ids.tolist(),
            "genus": job.labels.genus_names.tolist(),
            "family": job.labels.family_names.tolist(),
        },
        "shards": shards,
        "notes": notes,
    }
