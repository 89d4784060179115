"""Own sheets written as a data set in the published format: a job that can be killed, continued and shared.

While it is not done, the folder `unfinished` beside the shards holds job.json (what the job is), one JSON file
for each finished shard, and the shards at work. A shard gets its published name when it is whole and on the
disk. The call that finds all shards there writes the metadata, the label map, the duplicates and the manifest,
and removes `unfinished`.
"""

import dataclasses
import hashlib
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from utils.data import splits
from utils.data.forms.names import look_alike_notes
from utils.data.metadata import write_metadata, write_test_metadata
from utils.data.records import MANIFEST, read_manifest, read_schema
from utils.data.splits import DUPLICATES, SKIPPED, shared_duplicates
from utils.files import InputError, read_json, write_json
from utils.own.duplicates import duplicate_groups
from utils.own.images import BadImage, Prepared, prepare_images
from utils.own.plan import (
    ANOTHER_FOLDER,
    JOB,
    PREFIX,
    Job,
    Shard,
    check_options,
    plan_job,
    read_report,
    refuse_another,
    refuse_foreign,
)
from utils.own.shards import Record, shard_name, write_records
from utils.startup import import_tensorflow

if TYPE_CHECKING:
    from tqdm import tqdm


@dataclass(frozen=True)
class Written:
    """What is in the folder after a call."""

    shards: list[Path]
    missing: int  # shards that are still to be written, by other calls with --shard
    notes: list[str]  # what a person should know: images left out, duplicates


def write_from_labels(
    labels: Path | None,
    images_dir: Path,
    out_dir: Path,
    *,
    size: int = 480,
    quality: int = 95,
    fit: str = "squeeze",
    seed: int = 0,
    test_fraction: float = 0.0,
    split: Path | None = None,
    label_map: Path | None = None,
    shard_images: int = 1000,
    part: tuple[int, int] = (1, 1),
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Written:
    """Make a data set in the published format from own sheets; the same call goes on after a kill.

    Options, tables and file names are checked before any image is read. The result has the same bytes however
    often the job was killed and by how many calls it was shared: shards, train_metadata.json, labels.json,
    manifest.json (counts, label map, schema, settings, checksums), duplicates.csv and skipped.csv where there
    are such images, and for a test part test_metadata.json and solution.csv.

    Args:
        labels: see `utils.data.metadata.read_metadata`; None when `images_dir` has one folder a species.
        images_dir: the folder that file_name is relative to.
        out_dir: made if it is not there.
        size, quality, fit: of the stored images, see `utils.own.images.encode_image`.
        seed: of the order of the records and of the test part.
        test_fraction: part of the sheets withheld as a test set, by species see `utils.data.splits`.
        split: in place of it, a file that says the part of each sheet, see `utils.data.splits`; it is copied
            beside the shards, where training takes the validation part from it.
        label_map: a labels.json, or the folder of a run, by which classes are numbered; else they are
            numbered by the sorted names.
        shard_images: records a shard.
        part: (i, n): only write every n-th shard from the i-th on, where n calls share the job.
        skip_bad: leave out images that cannot be used and list them in skipped.csv; else the first one stops
            the job.
        workers: threads that encode; None for one a core.
        progress: show a progress bar.

    Raises:
        InputError: the tables are not right, image files are missing or bad, or `out_dir` has other files.
        UsageError: an option is out of range.
    """
    check_options(size, quality, fit, seed, test_fraction, split, shard_images, part)
    job = plan_job(
        Path(images_dir) if labels is None else Path(labels),
        Path(images_dir),
        Path(out_dir),
        size=size,
        quality=quality,
        fit=fit,
        seed=seed,
        test_fraction=test_fraction,
        split=None if split is None else Path(split),
        label_map=None if label_map is None else Path(label_map),
        shard_images=shard_images,
    )
    if _is_whole(job):
        return _written(job)
    import_tensorflow()
    index, calls = part
    _write_shards(job, job.shards[index - 1 :: calls], skip_bad=skip_bad, workers=workers, progress=progress)
    try:
        done = [shard for shard in job.shards if job.finished(shard)]
        if len(done) < len(job.shards):
            names = [read_report(job, shard)["file"] for shard in done]
            return Written([job.out / name for name in names if name], len(job.shards) - len(done), [])
        _finish(job)
    except (FileNotFoundError, InputError):
        # Another call that found all shards too may have been first, and removed what was read here.
        if read_manifest(job.out) is None:
            raise
    return _written(job)


def _is_whole(job: Job) -> bool:
    """Whether the folder holds the whole result; else it is left with this job in it, ready to go on.

    Raises:
        InputError: the folder has shards or files of another job.
    """
    manifest = read_manifest(job.out) if job.out.is_dir() else None
    if manifest is not None:
        refuse_another(job, job.out / MANIFEST, manifest.get("settings"))
        missing = [entry["file"] for entry in manifest["shards"] if not (job.out / entry["file"]).is_file()]
        if missing:
            raise InputError(
                f"{job.out / missing[0]}: is listed in {MANIFEST} and not there ({len(missing)} such shards). "
                "Put it back, or delete the folder to write all again."
            )
        shutil.rmtree(job.unfinished, ignore_errors=True)  # left when a kill came behind the manifest
        return True
    job_file = job.unfinished / JOB
    if job_file.is_file():
        refuse_another(job, job_file, read_json(job_file))
    refuse_foreign(job, started=job_file.is_file())
    try:
        job.unfinished.mkdir(parents=True, exist_ok=True)
        write_json(job_file, job.settings)
    except OSError as error:
        raise InputError(f"{job.out}: cannot be written ({error.strerror}). {ANOTHER_FOLDER}") from error
    return False


def _write_shards(
    job: Job, shards: list[Shard], *, skip_bad: bool, workers: int | None, progress: bool
) -> None:
    from tqdm import tqdm

    open_shards = [shard for shard in shards if not job.finished(shard)]
    if not open_shards:
        return
    rows = np.concatenate([shard.rows for shard in open_shards])
    prepared = prepare_images(
        (job.images_dir / job.files[row] for row in rows),
        size=job.size,
        quality=job.quality,
        fit=job.fit,
        workers=workers,
    )
    total = sum(len(shard.rows) for shard in shards)
    # In an executed notebook every redraw of the bar is kept.
    pause = 0.5 if sys.stderr.isatty() else 5.0
    bar = tqdm(
        total=total, initial=total - len(rows), unit=" images", disable=not progress, mininterval=pause
    )
    try:
        with bar:
            for shard in open_shards:
                _write_shard(job, shard, prepared, bar, skip_bad)
    except BadImage as error:
        raise InputError(
            f"{error} Finished shards are kept: the same command goes on; --skip-bad leaves such images out."
        ) from error
    finally:
        prepared.close()  # stops the workers when writing failed


def _write_shard(
    job: Job, shard: Shard, prepared: Iterator[Prepared | BadImage], bar: "tqdm", skip_bad: bool
) -> None:
    images: list[list[Any]] = []  # row, sha256, fingerprint
    skipped: list[list[Any]] = []  # row, reason
    noted: list[list[Any]] = []  # row, note

    def records() -> Iterator[Record]:
        for row in shard.rows.tolist():
            image = next(prepared)
            bar.update()
            if isinstance(image, BadImage):
                if not skip_bad:
                    raise image
                skipped.append([row, image.reason])
                continue
            images.append([row, image.sha256, image.fingerprint.hex()])
            if image.note:
                noted.append([row, image.note])
            index = job.classes[row]
            yield Record(
                image.jpeg,
                job.ids[row],
                index,
                job.labels.genus_index[index],
                job.labels.family_index[index],
            )

    partial = job.unfinished / f"{shard.stem}.{platform.node()}.{os.getpid()}.tmp"
    try:
        count = write_records(records(), partial)
        name = shard_name(PREFIX, job.size, shard.split, shard.number, count) if count else None
        report = {"file": name, "split": shard.split, "records": count, "bytes": partial.stat().st_size}
        with partial.open("rb") as file:
            report["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        write_json(job.report(shard), report | {"images": images, "skipped": skipped, "noted": noted})
        if name:
            partial.replace(job.out / name)
    finally:
        partial.unlink(missing_ok=True)


def _finish(job: Job) -> None:
    """Write what belongs to the whole set, beside all shards; the manifest last."""
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
    notes = _write_skipped(job, skipped, folder) + _flaws(job, noted)
    notes += _write_duplicates(job, rows, marks, folder)
    notes += look_alike_notes(np.unique(job.labels.names[job.classes]).tolist())
    write_json(folder / MANIFEST, _manifest(job, reports, parts, notes))
    for file in sorted(folder.iterdir(), key=lambda file: file.name == MANIFEST):
        file.replace(job.out / file.name)
    shutil.rmtree(job.unfinished, ignore_errors=True)  # another call may be at it too


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
        _write_csv(solution[["Id", "Predicted"]], folder / "solution.csv")


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


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n")


def _write_skipped(job: Job, skipped: list[list[Any]], folder: Path) -> list[str]:
    if not skipped:
        return []
    rows = [row for row, _ in skipped]
    table = pd.DataFrame(
        {"image_id": job.ids[rows], "file_name": job.names[rows], "reason": [reason for _, reason in skipped]}
    )
    _write_csv(table, folder / SKIPPED)
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
    _write_csv(table, folder / DUPLICATES)
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


def _written(job: Job) -> Written:
    manifest = read_manifest(job.out) or {}
    shards = [job.out / entry["file"] for entry in manifest["shards"]]
    return Written(shards, 0, manifest["notes"])
