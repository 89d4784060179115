"""Own sheets written as a data set in the published format: a job that can be killed, continued and shared.

While it is not done, the folder `unfinished` beside the shards holds job.json (what the job is), one JSON file
for each finished shard, and the shards at work. A shard gets its published name when it is whole and on the
disk. The call that finds all shards there writes the metadata, the label map, the duplicates and the manifest
(utils.own.finish), and removes `unfinished`.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.shards import MANIFEST, read_manifest
from utils.files import (
    InputError,
    UsageError,
    cannot_write,
    read_json,
    remove_left_overs,
    working_folder,
    write_json,
)
from utils.own.finish import finish
from utils.own.images import BadImage, Prepared, prepare_images, refuse_too_large
from utils.own.plan import (
    JOB,
    PREFIX,
    Job,
    Options,
    Shard,
    check_part,
    plan_job,
    read_report,
    refuse_another,
    refuse_foreign,
)
from utils.own.shards import Record, shard_name, write_records
from utils.own.telling import told
from utils.startup import holding, import_tensorflow

if TYPE_CHECKING:
    from tqdm.auto import tqdm


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
    part: tuple[int, int] = (1, 1),
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
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
        part: (i, n): only write every n-th shard from the i-th on, where n calls share the job.
        skip_bad: leave out images that cannot be used and list them in skipped.csv; else the first one stops
            the job.
        workers: threads that encode; None for one a core.
        progress: show a progress bar.
        options: size, quality, fit, seed, test_fraction, split, label_map, shard_images: `utils.own.plan.Options`.

    Raises:
        InputError: the tables are not right, image files are missing or bad, or `out_dir` has other files.
        UsageError: an option is out of range.
    """
    chosen, (index, calls) = Options(**options), part
    check_part(index, calls)
    source = Path(images_dir) if labels is None else Path(labels)
    with told("reading tables, looking for files", progress):
        job = plan_job(source, Path(images_dir), Path(out_dir), chosen)
    if _is_whole(job):
        return _written(job)
    with holding(job.out, job.unfinished / f"part-{index}-of-{calls}.lock"):
        remove_left_overs(job.unfinished)
        import_tensorflow()
        _write_shards(
            job, job.shards[index - 1 :: calls], skip_bad=skip_bad, workers=workers, progress=progress
        )
        written = _close(job, progress)
    if not written.missing:
        # behind the lock: where an open file leaves another name when it is removed (NFS, FUSE), the folder stays
        shutil.rmtree(job.unfinished, ignore_errors=True)
    return written


def _close(job: Job, progress: bool) -> Written:
    """What this call has written, and the rest of the data set where all shards are there."""
    try:
        done = [shard for shard in job.shards if job.finished(shard)]
        if len(done) < len(job.shards):
            names = [read_report(job, shard)["file"] for shard in done]
            return Written([job.out / name for name in names if name], len(job.shards) - len(done), [])
        with told("tables, copies of one image, checksums", progress):
            finish(job)
    except (FileNotFoundError, InputError):
        # Another call that found all shards too may have been first, and removed what was read here.
        if read_manifest(job.out) is None:
            raise
    return _written(job)


def begin_shared(
    labels: Path | None, images_dir: Path, out_dir: Path, parts: int, *, write: bool, **options: Any
) -> Written | None:
    """Check a job, and lay it down in its folder, before several calls begin with it.

    Args:
        labels, images_dir, out_dir, options: as for `write_from_labels`.
        parts: how many calls are to share it.
        write: lay it down; else look only.

    Returns:
        What is in the folder where that is whole already; else None.

    Raises:
        InputError: as `write_from_labels`.
        UsageError: too, or there are fewer shards than parts.
    """
    source = Path(images_dir) if labels is None else Path(labels)
    job = plan_job(source, Path(images_dir), Path(out_dir), Options(**options))
    if parts > len(job.shards):
        raise UsageError(
            f"{parts} calls cannot share {len(job.shards)} shards. Take fewer, or --shard-images below "
            f"{job.options.shard_images}."
        )
    return _written(job) if write and _is_whole(job) else None


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
        raise cannot_write(job.out, error) from error
    return False


def _write_shards(
    job: Job, shards: list[Shard], *, skip_bad: bool, workers: int | None, progress: bool
) -> None:
    from tqdm.auto import tqdm

    open_shards = [shard for shard in shards if not job.finished(shard)]
    if not open_shards:
        return
    rows = np.concatenate([shard.rows for shard in open_shards])
    if not skip_bad:
        refuse_too_large([job.images_dir / job.files[row] for row in np.sort(rows)], progress)
    prepared = prepare_images(
        (job.images_dir / job.files[row] for row in rows),
        size=job.options.size,
        quality=job.options.quality,
        fit=job.options.fit,
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
                image.jpeg, job.ids[row], index, job.labels.genus_index[index], job.labels.family_index[index]
            )

    with working_folder(job.unfinished / shard.stem) as folder:
        partial = folder / "records"
        count = write_records(records(), partial)
        name = shard_name(PREFIX, job.options.size, shard.split, shard.number, count) if count else None
        report = {"file": name, "split": shard.split, "records": count, "bytes": partial.stat().st_size}
        with partial.open("rb") as file:
            report["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        write_json(job.report(shard), report | {"images": images, "skipped": skipped, "noted": noted})
        if name:
            partial.replace(job.out / name)


def _written(job: Job) -> Written:
    manifest = read_manifest(job.out) or {}
    shards = [job.out / entry["file"] for entry in manifest["shards"]]
    return Written(shards, 0, manifest["notes"])
