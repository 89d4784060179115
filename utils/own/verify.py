"""Shards looked into and verified: every byte, every record, and the manifest beside them."""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from utils.data.damage import BAD_CHECKSUM, WAY_OUT, entries, judge, wrong_kind
from utils.data.records import (
    CLASS,
    FEATURES,
    IMAGE,
    IMAGE_ID,
    kind_of_value,
    label_table,
    labels_of,
    need_features,
    read_examples,
)
from utils.data.shards import (
    COUNT_IN_NAME,
    MANIFEST,
    UNFINISHED,
    is_shard,
    read_manifest,
    refuse_compressed_names,
    split_of,
)
from utils.files import InputError, in_order, is_hidden


def shards_in(paths: Iterable[Path]) -> list[Path]:
    """The shards that these paths name: files as they are, of a folder all in it but the hidden ones, sorted.

    Raises:
        InputError: a folder has no shards, or compressed ones.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        refuse_compressed_names(path, names)
        shards = [path / name for name in names if is_shard(name)]
        if not shards:
            raise InputError(
                f"{path}: no shards (*.tfrec) in this folder{_seen_instead(path, names)}. Name the folder that "
                "holds them."
            )
        found += shards
    return found


def _seen_instead(folder: Path, names: list[str]) -> str:
    """What may be meant, in words to go on with: shards one folder further down, and files named much like shards."""
    below = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir()
        and not is_hidden(entry.name)
        and any(is_shard(file.name) for file in entry.iterdir())
    ]
    if below:
        return f"; they lie in {', '.join(entry.name for entry in below[:5])}{' ...' * (len(below) > 5)}"
    alike = [
        name for name in names if re.search(r"tfrec|\d-of-\d", name, re.IGNORECASE) and not is_hidden(name)
    ]
    return f"; {', '.join(alike[:3])} ({len(alike)} in all) are not named so" if alike else ""


def inspect(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What is in each shard, without decoding the images.

    Args:
        paths: shards, or folders of shards.

    Returns:
        One dict a shard: file, records, bytes, mean_image_kb, schema {feature: kind}, extra_features (those
        that the published training shards do not have), image_sizes {"480x480": records}, class_min and
        class_max (None without labels), and manifest: None without one, else whether it says the same.

    Raises:
        InputError: a shard is missing or damaged, or has no image.
    """
    result = []
    shards = shards_in(paths)
    manifests = _manifests(shards)
    for path in shards:
        sizes: Counter[str] = Counter()
        kinds: dict[str, str] = {}
        classes: list[int] = []
        image_bytes, records = 0, 0
        for position, features in enumerate(read_examples([path])):
            need_features(features, (IMAGE,), f"{path}: record {position}")
            found = {name: kind_of_value(value) for name, value in features.items()}
            if reason := wrong_kind(found, (IMAGE,), (CLASS,)):
                raise InputError(f"{path}: record {position} {reason}. {WAY_OUT}.")
            image_bytes += len(features[IMAGE])
            sizes[_image_size(features[IMAGE])] += 1
            kinds = found | kinds
            if CLASS in features:
                classes = [min([features[CLASS], *classes]), max([features[CLASS], *classes])]
            records += 1
        size = path.stat().st_size
        listed = _listed(manifests, path)
        if listed is None:
            agrees = None
        elif not listed:
            agrees = "does not list this shard"
        elif (listed["records"], listed["bytes"]) == (records, size):
            agrees = "says the same"
        else:
            agrees = f"says {listed['records']} records, {listed['bytes']} bytes"
        result.append(
            {
                "file": str(path),
                "records": records,
                "bytes": size,
                "mean_image_kb": round(image_bytes / max(records, 1) / 1000, 1),
                "schema": dict(sorted(kinds.items())),
                "extra_features": sorted(kinds.keys() - set(FEATURES)),
                "image_sizes": dict(sizes.most_common()),
                "class_min": min(classes, default=None),
                "class_max": max(classes, default=None),
                "manifest": agrees,
            }
        )
    return result


def _image_size(jpeg: bytes) -> str:
    """Width x height by the image's header; "unreadable" is left to `verify` to explain."""
    try:
        with Image.open(BytesIO(jpeg)) as image:
            return f"{image.width}x{image.height}"
    except OSError:
        return "unreadable"


def verify(paths: Iterable[Path], *, progress: bool = False, notes: list[str] | None = None) -> list[str]:
    """Read every byte and decode every image of these shards.

    Checked are the checksums, the features and their kinds, the JPEGs (see `utils.data.jpeg`), the number of records
    against the file name, and against the manifest of the folder, where there is one, that its shards are all
    there with their records and checksums. A record whose data has a wrong checksum is passed over; behind a wrong
    length a shard cannot be read on.

    Args:
        paths: shards, or folders of shards.
        progress: show a progress bar.
        notes: gets what is wrong with a JPEG without harm, with file and record.

    Returns:
        The problems, each naming file and record (counted from 0) with its place in the file; empty when all
        is well.
    """
    from tqdm.auto import tqdm

    shards = shards_in(paths)
    problems: list[str] = []
    manifests = _manifests(shards)
    labels: dict[Path, list[tuple[str, int, int, int]]] = {}
    total = sum(path.stat().st_size for path in shards if path.is_file())
    with tqdm(total=total, unit="B", unit_scale=True, disable=not progress) as bar:
        for path in shards:
            listed = _listed(manifests, path)
            if not path.is_file():
                if not listed:  # a missing shard of a manifest is named below
                    problems.append(f"{path}: no such file.")
                continue
            problems += _verify_shard(
                path, bar, labels.setdefault(path.parent, []), [] if notes is None else notes
            )
            if listed is not None:
                problems += _against_manifest(path, listed)
    for folder, manifest in manifests.items():
        missing = [shard["file"] for shard in (manifest or {}).get("shards", ())]
        missing = [name for name in missing if not (folder / name).is_file()]
        problems += [f"{folder / name}: is listed in {MANIFEST} and not there." for name in missing]
        if (folder / UNFINISHED).is_dir():
            problems.append(
                f"{folder}: the job that writes these shards is not finished; the same command continues it."
            )
    for folder, rows in labels.items():
        problems += _against_tables(folder, rows)
    return problems


def _against_manifest(path: Path, listed: dict[str, Any]) -> list[str]:
    if not listed:
        return [f"{path}: is not listed in {MANIFEST}."]
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == listed["sha256"]:
            return []
    return [
        f"{path}: is not the file that {MANIFEST} lists ({listed['records']} records, {listed['bytes']} bytes); "
        "its sha256 differs."
    ]


def _verify_shard(
    path: Path, bar: Any, labels: list[tuple[str, int, int, int]], notes: list[str]
) -> list[str]:
    """The problems inside one shard; `labels` gets the labels of its records, `notes` what does no harm."""
    problems: list[str] = []
    labelled = split_of(path.name) in ("train", "val")
    expected: dict[str, str] = {}  # features of the first record that is right
    needed = (IMAGE, IMAGE_ID, CLASS) if labelled else (IMAGE, IMAGE_ID)
    check = functools.partial(judge, needed=needed, optional=FEATURES, labels_from_0=True)
    count, whole = 0, True
    judged = in_order(lambda entry: (entry, check(entry[1])), entries(path))
    for (offset, content), verdict in judged:
        problem, kinds = verdict.reason, dict(sorted(verdict.kinds.items()))
        if labelled and problem is None and (label := labels_of(verdict.values)):
            labels.append(label)
        expected = expected or (kinds if problem is None else {})
        if problem is None and kinds != expected:
            problem = f"has the features {_listing(kinds)}, records before it {_listing(expected)}"
        if problem:
            problems.append(f"{path}: record {count} at byte {offset}: {problem}.")
        if verdict.note:
            notes.append(f"{path}: record {count}: {verdict.note}.")
        if isinstance(content, str) and content != BAD_CHECKSUM:
            whole = False
        else:
            count += 1
        bar.update(16 + len(content) if isinstance(content, bytes) else 0)
    named = COUNT_IN_NAME.search(path.name)
    if whole and named and int(named[1]) != count:
        problems.append(f"{path}: has {count} records, its name says {named[1]}.")
    elif whole and count == 0:
        problems.append(f"{path}: has no records.")
    return problems


def _listing(kinds: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in kinds.items())


def _manifests(shards: list[Path]) -> dict[Path, dict[str, Any] | None]:
    """The manifests beside shards, all read before long work: a bad one is refused at once."""
    return {folder: read_manifest(folder) for folder in dict.fromkeys(path.parent for path in shards)}


def _listed(manifests: dict[Path, dict[str, Any] | None], path: Path) -> dict[str, Any] | None:
    """A shard's entry in the manifest of its folder; {} when it is not listed, None without a manifest."""
    manifest = manifests[path.parent]
    if manifest is None:
        return None
    return next((shard for shard in manifest["shards"] if shard["file"] == path.name), {})


def _against_tables(folder: Path, rows: list[tuple[str, int, int, int]]) -> list[str]:
    """What the records' labels are against labels.json and the metadata beside the shards, one problem at most."""
    from utils.sources import beside

    try:
        beside(folder).refuse_other_labels(label_table(rows))
    except InputError as error:
        return [str(error)]
    return []
