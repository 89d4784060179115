"""The plan of a writing job: which sheet goes into which shard, checked before anything is written."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL

from utils.data import splits
from utils.data.forms.folders import on_disk
from utils.data.forms.names import doubt_of, look_for_doubts, match
from utils.data.labels import LabelMap
from utils.data.metadata import Metadata, read_metadata
from utils.data.shards import MANIFEST, UNFINISHED, is_shard
from utils.data.splits import DUPLICATES, SKIPPED
from utils.files import InputError, UsageError, check_option, read_json
from utils.own.images import FITS

PREFIX = "own"
DOUBTFUL = "doubtful.csv"  # sheets whose name is no species
JOB = "job.json"
_FILES = (
    "train_metadata.json",
    "test_metadata.json",
    "labels.json",
    "solution.csv",
    SKIPPED,
    DOUBTFUL,
    DUPLICATES,
    MANIFEST,
)
_SETTINGS = (
    "size",
    "fit",
    "quality",
    "seed",
    "shard_images",
    "test_fraction",
)  # in job.json and the manifest
ANOTHER_FOLDER = "Name another folder to write to, or delete this one."


@dataclass(frozen=True)
class Options:
    """How own sheets are written. UsageError when one is out of range, or two exclude each other."""

    size: int = 480  # pixels a side of the stored images
    quality: int = 95  # of their JPEGs
    fit: str = "squeeze"  # see `utils.own.images.encode_image`
    seed: int = 0  # of the order of the records and of the test part
    test_fraction: float = 0.0  # of the sheets that are withheld, by species see `utils.data.splits`
    # In place of it, a file that says the part of each sheet, see `utils.data.splits`; it is copied beside the
    # shards, where training takes the validation part from it.
    split: Path | None = None
    # A labels.json, or the folder of a run, by which classes are numbered; else they are by the sorted names.
    label_map: Path | None = None
    shard_images: int = 1000  # records a shard
    keep_doubtful: bool = False  # names with cf. or aff. or without an epithet stay, each a class of its own

    def __post_init__(self) -> None:
        check_option("size", self.size, 16 <= self.size <= 4096, "from 16 to 4096 pixels")
        check_option("quality", self.quality, 1 <= self.quality <= 100, "from 1 to 100")
        check_option("fit", self.fit, self.fit in FITS, " or ".join(FITS))
        check_option("seed", self.seed, self.seed >= 0, "0 or more")
        check_option("test fraction", self.test_fraction, 0 <= self.test_fraction < 1, "from 0 to below 1")
        if self.split is not None and self.test_fraction:
            raise UsageError("a split file and a test fraction are given; the file says what is withheld.")
        if self.shard_images < 1:
            raise UsageError(f"images a shard are {self.shard_images}, must be 1 or more.")


@dataclass(frozen=True)
class Shard:
    """One shard of a job: its place in the order and the rows of the sheets that go into it."""

    split: str
    number: int
    rows: np.ndarray

    @property
    def stem(self) -> str:
        """Split and number, as in train00: what its files are called before its records are counted."""
        return f"{self.split}{self.number:02d}"


@dataclass(frozen=True)
class Job:
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
    shards: list[Shard]
    doubtful: pd.DataFrame  # sheets that are left out, as doubtful.csv has them
    options: Options
    split_file: Path | None
    settings: dict[str, Any]

    @property
    def unfinished(self) -> Path:
        """The folder beside the shards that is there while the job is not done."""
        return self.out / UNFINISHED

    def report(self, shard: Shard) -> Path:
        """The file that says what is in a finished shard."""
        return self.unfinished / f"{shard.stem}.json"

    def finished(self, shard: Shard) -> bool:
        """Whether the shard is there; its report is written before it gets its name.

        Raises:
            InputError: a file has its name and is not the one that was written, or the report is damaged.
        """
        if not self.report(shard).is_file():
            return False
        report = read_report(self, shard)
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


def plan_job(source: Path, images_dir: Path, out: Path, options: Options) -> Job:
    """Read and check the tables, and lay down which sheet goes where; no image is read, nothing written.

    Args:
        source: the table of labels, or a folder with one folder a species.
        images_dir: the folder that file_name is relative to.
        out: for the shards.

    Raises:
        InputError: a folder, table, split or label map is not right, or image files are missing; the message names it.
    """
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder. Name the folder that file_name is relative to.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Name a folder for the shards.")
    if source == images_dir and out.resolve() == images_dir.resolve() and (out / MANIFEST).is_file():
        raise InputError(
            f"{out}: holds shards and their tables beside the images already, so it is not read as a folder of species "
            f"again. Write to another folder, or delete the shards and the files that {MANIFEST} lies beside."
        )
    metadata = read_metadata(source)
    doubtful = _doubtful(metadata)
    if options.keep_doubtful:
        doubtful = doubtful.iloc[:0]
    if len(doubtful):
        if len(doubtful) == len(metadata.annotations):
            raise InputError(
                f"{source}: {told_of(doubtful)}, and no others. --keep-doubtful takes each of them as a class."
            )
        metadata = _without(metadata, doubtful["image_id"])
    if options.label_map is not None:
        metadata, labels = _numbered_by(Path(options.label_map), metadata, source)
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
    if options.split is not None:
        parts = splits.parts_of(ids, options.split)
    elif options.test_fraction:
        parts[splits.stratified(ids, classes, options.test_fraction, options.seed)[1]] = "test"
    if not (parts != "test").any():
        raise InputError(f"{options.split}: all sheets are in test. Leave some to train on.")

    # Records of one species must not lie together: training shuffles within a window only.
    order = np.random.default_rng(options.seed).permutation(len(ids))
    shards = []
    for name, rows in (("train", order[parts[order] != "test"]), ("test", order[parts[order] == "test"])):
        starts = range(0, len(rows), options.shard_images)
        shards += [
            Shard(name, number, rows[start : start + options.shard_images])
            for number, start in enumerate(starts)
        ]
    digest = hashlib.sha256()
    for columns in (
        (ids, names, classes, parts),
        (labels.names, labels.category_ids),
        (labels.genera, labels.families),
    ):
        for piece in json_pieces(columns):
            digest.update(piece)
    settings = {
        **{name: getattr(options, name) for name in _SETTINGS},
        "sheets": len(ids),
        "table_sha256": digest.hexdigest(),  # ids, file names, species, parts
        "pillow": PIL.__version__,  # another version may decode and encode to other bytes
    }
    return Job(
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
        doubtful=doubtful,
        options=options,
        split_file=None if options.split is None else Path(options.split),
        settings=settings,
    )


def _doubtful(metadata: Metadata) -> pd.DataFrame:
    """The sheets whose name is no species: image_id, file_name, verbatimIdentification, identificationQualifier."""
    names = metadata.categories.set_index("category_id")
    doubt = {
        category: doubt_of(name, species or "")
        for category, name, species in names[["scientificName", "species"]].itertuples()
    }
    of = metadata.annotations["category_id"].map(doubt)
    sheets = metadata.annotations[of != ""]
    file_of = metadata.images.set_index("image_id")["file_name"]
    return pd.DataFrame(
        {
            "image_id": sheets["image_id"],
            "file_name": sheets["image_id"].map(file_of),
            "verbatimIdentification": sheets["category_id"].map(names["scientificName"]),
            "identificationQualifier": of[of != ""],
        }
    ).reset_index(drop=True)


def told_of(doubtful: pd.DataFrame) -> str:
    """A sentence on the sheets of `Job.doubtful`, without its full stop."""
    counts = doubtful["verbatimIdentification"].value_counts(sort=False)
    return look_for_doubts(counts.index, counts.tolist())


def _without(metadata: Metadata, image_ids: pd.Series) -> Metadata:
    """The tables without some sheets, and without the species that then have none."""
    annotations = metadata.annotations[~metadata.annotations["image_id"].isin(image_ids)]
    gone = set(metadata.annotations["category_id"]) - set(annotations["category_id"])
    categories = metadata.categories[~metadata.categories["category_id"].isin(gone)]
    return dataclasses.replace(
        metadata,
        annotations=annotations.reset_index(drop=True),
        images=metadata.images[~metadata.images["image_id"].isin(image_ids)].reset_index(drop=True),
        categories=categories.reset_index(drop=True),
    )


def check_part(index: int, count: int) -> None:
    """Raise UsageError unless there is an `index`-th of `count` parts that share a job."""
    if not 1 <= index <= count:
        raise UsageError(f"shard is {index}/{count}, must be i/n with i from 1 to n, as in 1/2 and 2/2.")


def json_pieces(columns: Sequence[np.ndarray], rows: int = 10_000) -> Iterator[bytes]:
    """The JSON list of the columns as lists, with some of its rows in memory at a time."""
    for number, column in enumerate(columns):
        yield b", [" if number else b"[["
        for start in range(0, len(column), rows):
            piece = json.dumps(column[start : start + rows].tolist())[1:-1]
            yield (f", {piece}" if start else piece).encode()
        yield b"]"
    yield b"]"


def _numbered_by(path: Path, metadata: Metadata, source: Path) -> tuple[Metadata, LabelMap]:
    """The sheets with the species, ids and genera of an existing label map.

    Raises:
        InputError: a species of the sheets is not in the map.
    """
    path = path / "labels.json" if path.is_dir() else path
    labels = LabelMap.load(path)
    categories = metadata.categories
    used = categories[categories["category_id"].isin(metadata.annotations["category_id"])]
    found = match(used["scientificName"], labels.names)
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


def _on_disk(names: np.ndarray, images_dir: Path, source: Path) -> np.ndarray:
    """The file of each name, see `utils.data.forms.folders.on_disk`; InputError when some are not there."""
    files, missing = on_disk(images_dir, names.tolist())
    if missing:
        nearest = [f"{name} (there is {near})" if near else name for name, near in missing.items()]
        listed = "\n  ".join(nearest[:20]) + ("\n  ..." if len(missing) > 20 else "")
        raise InputError(
            f"{source}: {len(missing)} of {len(names)} image files are not in {images_dir}:\n  {listed}\n"
            "Add them, correct or remove their rows, or name another image folder. Nothing was written."
        )
    return np.array(files, dtype=object)


def refuse_another(job: Job, file: Path, found: Any) -> None:
    """Refuse a folder whose `file`, job.json or the manifest, has settings `found` that are not this job's.

    Raises:
        InputError: they differ; the message names what differs and the way out.
    """
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
        f"{file.name}). {ANOTHER_FOLDER}"
    )


def refuse_foreign(job: Job, started: bool) -> None:
    """Raise InputError where the folder has files that this job would write and has not written."""
    if not job.out.is_dir():
        return
    # Looked for first: what another call finishes meanwhile has its report before its name.
    names = {*(path.name for path in job.out.iterdir() if is_shard(path.name)), *_FILES, splits.FILE_NAME}
    ours = set()
    if started:
        ours = {read_report(job, shard)["file"] for shard in job.shards if job.report(shard).is_file()}
        ours |= {*_FILES, splits.FILE_NAME}  # a kill may have come among these
    if job.split_file is not None and job.split_file.resolve().parent == job.out.resolve():
        ours.add(job.split_file.name)
    present = sorted(name for name in names - ours if (job.out / name).exists())
    if present:
        raise InputError(
            f"{job.out}: already holds {', '.join(present[:5])}{' ...' if len(present) > 5 else ''} "
            f"({len(present)} files of another data set). {ANOTHER_FOLDER}"
        )


REPORT = {"split": str, "records": int, "bytes": int, "sha256": str, "images": list, "skipped": list}
MARK = re.compile("[0-9a-f]{64}")


def read_report(job: Job, shard: Shard) -> dict[str, Any]:
    """What is in a finished shard: its entry of the manifest, and images and skipped as `_write_shard` notes them.

    Raises:
        InputError: the file is not there, or is damaged.
    """
    path = job.report(shard)
    report = read_json(path)
    rows = range(len(job.ids))
    right = (
        isinstance(report, dict)
        and all(type(report.get(key)) is kind for key, kind in REPORT.items())
        and (
            report.get("file", 0) is None
            or re.fullmatch(rf"{PREFIX}_[A-Za-z0-9_]+\.tfrec", str(report.get("file")))
        )
        and all(isinstance(entry, list) for entry in (*report["images"], *report["skipped"]))
        and all([type(value) for value in image] == [int, str, str] for image in report["images"])
        and all(image[0] in rows and all(map(MARK.fullmatch, image[1:])) for image in report["images"])
        and all([type(value) for value in entry] == [int, str] for entry in report["skipped"])
        and all(entry[0] in rows for entry in report["skipped"])
    )
    if not right:
        raise InputError(
            f"{path}: is not what was noted of a finished shard. Delete it and {shard.stem}'s shard; then the same "
            "command writes both again."
        )
    return report
