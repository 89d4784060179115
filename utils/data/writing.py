"""Own sheets written as a data set in the published format: a job that can be killed, continued and shared.

While it is not done, the folder `unfinished` beside the shards holds job.json (what the job is), one JSON file
for each finished shard, and the shards at work. A shard gets its published name when it is whole and on the
disk. The call that finds all shards there writes the metadata, the label map, the duplicates and the manifest,
and removes `unfinished`.
"""

import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import PIL

from utils.data import longtail, splits
from utils.data.delimited import read_table
from utils.data.folders import on_disk
from utils.data.images import FITS, BadImage, Prepared, duplicate_groups, prepare_images
from utils.data.labels import LabelMap
from utils.data.metadata import Metadata, read_metadata, write_metadata, write_test_metadata
from utils.data.names import look_alike_notes
from utils.data.shards import is_shard
from utils.data.tfrecords import (
    MANIFEST,
    UNFINISHED,
    Record,
    read_manifest,
    read_schema,
    shard_name,
    write_records,
)
from utils.errors import InputError, UsageError
from utils.files import read_json, write_json
from utils.startup import import_tensorflow

if TYPE_CHECKING:
    from tqdm import tqdm

PREFIX = "own"
SKIPPED, DUPLICATES = "skipped.csv", "duplicates.csv"
_JOB = "job.json"
_FILES = (
    "train_metadata.json",
    "test_metadata.json",
    "labels.json",
    "solution.csv",
    SKIPPED,
    DUPLICATES,
    MANIFEST,
)
_ANOTHER_FOLDER = "Name another folder to write to, or delete this one."


@dataclass(frozen=True)
class Written:
    """What is in the folder after a call."""

    shards: list[Path]
    missing: int  # shards that are still to be written, by other calls with --shard
    notes: list[str]  # what a person should know: images left out, duplicates


@dataclass(frozen=True)
class _Shard:
    """One shard of a job: its place in the order and the rows of the sheets that go into it."""

    split: str
    number: int
    rows: np.ndarray

    @property
    def stem(self) -> str:
        return f"{self.split}{self.number:02d}"


@dataclass(frozen=True)
class _Job:
    """Everything that decides the bytes of the result; `settings` says it for comparison."""

    out: Path
    images_dir: Path
    metadata: Metadata
    labels: LabelMap
    ids: np.ndarray  # of each sheet, the str of the table
    image_rows: np.ndarray  # of each sheet in the table of images, int64
    names: np.ndarray  # file names, the str of the table
    files: np.ndarray  # the same as the disk has them
    classes: np.ndarray  # int64
    parts: np.ndarray  # "train", "validation" or "test"
    shards: list[_Shard]
    size: int
    quality: int
    fit: str
    split_file: Path | None
    settings: dict[str, Any]

    @property
    def unfinished(self) -> Path:
        return self.out / UNFINISHED

    def report(self, shard: _Shard) -> Path:
        """The file that says what is in a finished shard."""
        return self.unfinished / f"{shard.stem}.json"

    def finished(self, shard: _Shard) -> bool:
        """Whether the shard is there; its report is written before it gets its name.

        Raises:
            InputError: a file has its name and is not the one that was written, or the report is damaged.
        """
        if not self.report(shard).is_file():
            return False
        report = _read_report(self, shard)
        if report["file"] is None:  # all of its images were bad
            return True
        path = self.out / report["file"]
        if not path.is_file():
            return False
        if path.stat().st_size != report["bytes"]:
            raise InputError(
                f"{path}: has {path.stat().st_size} bytes, written were {report['bytes']}. "
                "Delete this file; then the same command writes it again."
            )
        return True


_REPORT = {"split": str, "records": int, "bytes": int, "sha256": str, "images": list, "skipped": list}
_MARK = re.compile("[0-9a-f]{64}")


def _read_report(job: _Job, shard: _Shard) -> dict[str, Any]:
    """What is in a finished shard: its entry of the manifest, and images and skipped as `_write_shard` notes them.

    Raises:
        InputError: the file is not there, or is damaged.
    """
    path = job.report(shard)
    report = read_json(path)
    rows = range(len(job.ids))
    right = (
        isinstance(report, dict)
        and all(type(report.get(key)) is kind for key, kind in _REPORT.items())
        and isinstance(report.get("file", 0), str | None)
        and all(isinstance(entry, list) for entry in (*report["images"], *report["skipped"]))
        and all([type(value) for value in image] == [int, str, str] for image in report["images"])
        and all(image[0] in rows and all(map(_MARK.fullmatch, image[1:])) for image in report["images"])
        and all([type(value) for value in entry] == [int, str] for entry in report["skipped"])
        and all(entry[0] in rows for entry in report["skipped"])
    )
    if not right:
        raise InputError(
            f"{path}: is not what was noted of a finished shard. Delete it and {shard.stem}'s shard; then the same "
            "command writes both again."
        )
    return report


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
        size, quality, fit: of the stored images, see `utils.data.images.encode_image`.
        seed: of the order of the records and of the test part.
        test_fraction: part of the sheets withheld as a test set, by species as in `longtail.split`.
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
    _check_options(size, quality, fit, seed, test_fraction, split, shard_images, part)
    job = _plan(
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
            names = [_read_report(job, shard)["file"] for shard in done]
            return Written([job.out / name for name in names if name], len(job.shards) - len(done), [])
        _finish(job)
    except (FileNotFoundError, InputError):
        # Another call that found all shards too may have been first, and removed what was read here.
        if read_manifest(job.out) is None:
            raise
    return _written(job)


def _check_options(
    size: int,
    quality: int,
    fit: str,
    seed: int,
    test_fraction: float,
    split: Path | None,
    shard_images: int,
    part: tuple[int, int],
) -> None:
    if not 16 <= size <= 4096:
        raise UsageError(f"size is {size}, must be from 16 to 4096 pixels.")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}, must be from 1 to 100.")
    if fit not in FITS:
        raise UsageError(f"fit is {fit!r}, must be {' or '.join(FITS)}.")
    if seed < 0:
        raise UsageError(f"seed is {seed}, must be 0 or more.")
    if not 0 <= test_fraction < 1:
        raise UsageError(f"test fraction is {test_fraction}, must be from 0 to below 1.")
    if split is not None and test_fraction:
        raise UsageError("a split file and a test fraction are given; the file says what is withheld.")
    if shard_images < 1:
        raise UsageError(f"images a shard are {shard_images}, must be 1 or more.")
    if not 1 <= part[0] <= part[1]:
        raise UsageError(f"shard is {part[0]}/{part[1]}, must be i/n with i from 1 to n, as in 1/2 and 2/2.")


# ---------------------------------------------------------------- the plan


def _plan(
    source: Path,
    images_dir: Path,
    out: Path,
    *,
    size: int,
    quality: int,
    fit: str,
    seed: int,
    test_fraction: float,
    split: Path | None,
    label_map: Path | None,
    shard_images: int,
) -> _Job:
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder. Name the folder that file_name is relative to.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Name a folder for the shards.")
    metadata = read_metadata(source)
    if label_map is not None:
        metadata, labels = _numbered_by(label_map, metadata, source)
    else:
        labels = LabelMap.from_metadata(metadata)
    annotations = metadata.annotations
    if not len(annotations):
        raise InputError(f"{source}: has no labelled images. Nothing was written.")
    ids = annotations["image_id"].to_numpy()
    image_rows = pd.Index(metadata.images["image_id"]).get_indexer(ids)
    names = metadata.images["file_name"].to_numpy()[image_rows]
    files = _on_disk(names, images_dir, source)
    classes = labels.to_class(annotations["category_id"])
    parts = np.full(len(ids), "train", dtype="<U10")
    if split is not None:
        parts = splits.parts_of(ids, split)
    elif test_fraction:
        parts[longtail.split(ids, classes, test_fraction, seed)[1]] = "test"
    if not (parts != "test").any():
        raise InputError(f"{split}: all sheets are in test. Leave some to train on.")

    # Records of one species must not lie together: training shuffles within a window only.
    order = np.random.default_rng(seed).permutation(len(ids))
    shards = []
    for name, rows in (("train", order[parts[order] != "test"]), ("test", order[parts[order] == "test"])):
        starts = range(0, len(rows), shard_images)
        shards += [
            _Shard(name, number, rows[start : start + shard_images]) for number, start in enumerate(starts)
        ]
    digest = hashlib.sha256()
    for columns in (
        (ids, names, classes, parts),
        (labels.names, labels.category_ids),
        (labels.genera, labels.families),
    ):
        for piece in _json_pieces(columns):
            digest.update(piece)
    settings = {
        "size": size,
        "fit": fit,
        "quality": quality,
        "seed": seed,
        "shard_images": shard_images,
        "test_fraction": test_fraction,
        "sheets": len(ids),
        "table_sha256": digest.hexdigest(),  # ids, file names, species, parts
        "pillow": PIL.__version__,  # another version may decode and encode to other bytes
    }
    return _Job(
        out=out,
        images_dir=images_dir,
        metadata=metadata,
        labels=labels,
        ids=ids,
        image_rows=image_rows,
        names=names,
        files=files,
        classes=classes,
        parts=parts,
        shards=shards,
        size=size,
        quality=quality,
        fit=fit,
        split_file=split,
        settings=settings,
    )


def _json_pieces(columns: Sequence[np.ndarray], rows: int = 10_000) -> Iterator[bytes]:
    """The JSON list of the columns as lists, with some of its rows in memory at a time."""
    for number, column in enumerate(columns):
        yield b", [" if number else b"[["
        for start in range(0, len(column), rows):
            piece = json.dumps(column[start : start + rows].tolist())[1:-1]
            yield (f", {piece}" if start else piece).encode()
        yield b"]"
    yield b"]"


def _on_disk(names: np.ndarray, images_dir: Path, source: Path) -> np.ndarray:
    """The file of each name, see `utils.data.folders.on_disk`; InputError when some are not there."""
    files, missing = on_disk(images_dir, names.tolist())
    if missing:
        nearest = [f"{name} (there is {near})" if near else name for name, near in missing.items()]
        listed = "\n  ".join(nearest[:20]) + ("\n  ..." if len(missing) > 20 else "")
        raise InputError(
            f"{source}: {len(missing)} of {len(names)} image files are not in {images_dir}:\n  {listed}\n"
            "Add them, correct or remove their rows, or name another image folder. Nothing was written."
        )
    return np.array(files, dtype=object)


def _numbered_by(path: Path, metadata: Metadata, source: Path) -> tuple[Metadata, LabelMap]:
    """The sheets with the species, ids and genera of an existing label map.

    Raises:
        InputError: a species of the sheets is not in the map.
    """
    path = path / "labels.json" if path.is_dir() else path
    labels = LabelMap.load(path)
    categories = metadata.categories
    used = categories[categories["category_id"].isin(metadata.annotations["category_id"])]
    found = labels.match(used["scientificName"])
    unknown = used["scientificName"][found < 0].tolist()
    if unknown:
        listed = "\n  ".join(unknown[:20]) + ("\n  ..." if len(unknown) > 20 else "")
        raise InputError(
            f"{source}: {len(unknown)} species are not in {path}:\n  {listed}\n"
            "Correct their names or remove their rows. Nothing was written."
        )
    class_of = dict(zip(used["category_id"].tolist(), found.tolist(), strict=True))
    classes = np.array([class_of[category] for category in metadata.annotations["category_id"].tolist()])
    categories = pd.DataFrame(
        {
            "category_id": labels.category_ids,
            "scientificName": labels.names.astype(object),
            "authors": "",
            "family": labels.families.astype(object),
            "genus": labels.genera.astype(object),
            "species": "",
        }
    )
    genera = pd.DataFrame({"genus_id": np.arange(len(labels.genus_names)), "genus": labels.genus_names})
    annotations = metadata.annotations.assign(
        category_id=labels.category_ids[classes], genus_id=labels.genus_index[classes]
    )
    numbered = dataclasses.replace(
        metadata,
        annotations=annotations,
        categories=categories,
        genera=genera,
        distances=metadata.distances.iloc[:0],  # between genera of other numbers
    )
    return numbered, labels


# ---------------------------------------------------------------- the folder


def _is_whole(job: _Job) -> bool:
    """Whether the folder holds the whole result; else it is left with this job in it, ready to go on.

    Raises:
        InputError: the folder has shards or files of another job.
    """
    manifest = read_manifest(job.out) if job.out.is_dir() else None
    if manifest is not None:
        _refuse_another(job, job.out / MANIFEST, manifest.get("settings"))
        missing = [entry["file"] for entry in manifest["shards"] if not (job.out / entry["file"]).is_file()]
        if missing:
            raise InputError(
                f"{job.out / missing[0]}: is listed in {MANIFEST} and not there ({len(missing)} such shards). "
                "Put it back, or delete the folder to write all again."
            )
        shutil.rmtree(job.unfinished, ignore_errors=True)  # left when a kill came behind the manifest
        return True
    job_file = job.unfinished / _JOB
    if job_file.is_file():
        _refuse_another(job, job_file, read_json(job_file))
    _refuse_foreign(job, started=job_file.is_file())
    try:
        job.unfinished.mkdir(parents=True, exist_ok=True)
        write_json(job_file, job.settings)
    except OSError as error:
        raise InputError(f"{job.out}: cannot be written ({error.strerror}). {_ANOTHER_FOLDER}") from error
    return False


def _refuse_another(job: _Job, file: Path, found: Any) -> None:
    found = found if isinstance(found, dict) else {}
    keys = [key for key, value in job.settings.items() if found.get(key) != value]
    if not keys:
        return
    if keys == ["table_sha256"]:
        told = "other rows, names, species or parts than now"
    else:
        told = ", ".join(
            f"{key} {found.get(key)!r} instead of {job.settings[key]!r}"
            for key in keys
            if key != "table_sha256"
        )
    raise InputError(
        f"{file.parent if file.name == MANIFEST else file.parent.parent}: holds another job ({told}, by "
        f"{file.name}). {_ANOTHER_FOLDER}"
    )


def _refuse_foreign(job: _Job, started: bool) -> None:
    """Files that this job would write and has not written."""
    if not job.out.is_dir():
        return
    # Looked for first: what another call finishes meanwhile has its report before its name.
    names = {*(path.name for path in job.out.iterdir() if is_shard(path.name)), *_FILES, splits.FILE_NAME}
    ours = set()
    if started:
        ours = {_read_report(job, shard)["file"] for shard in job.shards if job.report(shard).is_file()}
        ours |= {*_FILES, splits.FILE_NAME}  # a kill may have come among these
    if job.split_file is not None and job.split_file.resolve().parent == job.out.resolve():
        ours.add(job.split_file.name)
    present = sorted(name for name in names - ours if (job.out / name).exists())
    if present:
        raise InputError(
            f"{job.out}: already holds {', '.join(present[:5])}{' ...' if len(present) > 5 else ''} "
            f"({len(present)} files of another data set). {_ANOTHER_FOLDER}"
        )


# ---------------------------------------------------------------- the shards


def _write_shards(
    job: _Job, shards: list[_Shard], *, skip_bad: bool, workers: int | None, progress: bool
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
    job: _Job, shard: _Shard, prepared: Iterator[Prepared | BadImage], bar: "tqdm", skip_bad: bool
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


# ---------------------------------------------------------------- the last step


def _finish(job: _Job) -> None:
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


def _write_tables(job: _Job, train: np.ndarray, test: np.ndarray, folder: Path) -> None:
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
    job: _Job,
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
        report = _read_report(job, shard)
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


def _write_skipped(job: _Job, skipped: list[list[Any]], folder: Path) -> list[str]:
    if not skipped:
        return []
    rows = [row for row, _ in skipped]
    table = pd.DataFrame(
        {"image_id": job.ids[rows], "file_name": job.names[rows], "reason": [reason for _, reason in skipped]}
    )
    _write_csv(table, folder / SKIPPED)
    return [f"{len(rows)} of {len(job.ids)} images were left out, see {SKIPPED}."]


def _flaws(job: _Job, noted: list[list[Any]]) -> list[str]:
    if not noted:
        return []
    told = "; ".join(f"{job.names[row]}: {note}" for row, note in noted[:5]) + "; ..." * (len(noted) > 5)
    return [f"{len(noted)} images have flaws that cost no pixel ({told})."]


def _write_duplicates(job: _Job, rows: np.ndarray, marks: np.ndarray, folder: Path) -> list[str]:
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


def shared_duplicates(duplicates_csv: Path, image_ids: Sequence[str], parts: Sequence[Any]) -> int:
    """Groups of a duplicates.csv whose images lie in more than one part, so that a score would be too good.

    Args:
        duplicates_csv: beside shards; 0 when there is no such file.
        image_ids, parts: the part of each image, in any two or more values.
    """
    if not duplicates_csv.is_file():
        return 0
    table = read_table(duplicates_csv, ("group", "image_id"), way_out="Write the shards again, or remove it.")
    part_of = pd.Series(np.asarray(parts), index=np.asarray(image_ids, dtype=str))
    parts_of_group = table["image_id"].map(part_of).groupby(table["group"])
    return int((parts_of_group.nunique() > 1).sum())


def _manifest(job: _Job, reports: list[dict[str, Any]], parts: np.ndarray, notes: list[str]) -> dict:
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


def _written(job: _Job) -> Written:
    manifest = read_manifest(job.out) or {}
    shards = [job.out / entry["file"] for entry in manifest["shards"]]
    return Written(shards, 0, manifest["notes"])
