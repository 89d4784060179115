"""Which files are shards, by their names and first bytes, and the manifest beside them; without TensorFlow."""

import os
import re
import shlex
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.files import InputError, is_hidden, kaggle_root, read_json

MANIFEST = "manifest.json"  # beside shards of `utils.own.write`: what was written, with checksums
UNFINISHED = "unfinished"  # folder beside the shards of a job that is not done

_SUFFIX = r"\.tfrec(?:ords?)?"
_SHARD = re.compile(rf".+{_SUFFIX}(?:-\d+-of-\d+)?", re.IGNORECASE)
_COMPRESSED = re.compile(rf"(.+{_SUFFIX}(?:-\d+-of-\d+)?)\.(?:gz|gzip|zlib|z|bz2|xz|zst)", re.IGNORECASE)
# The last such word counts, as in my_train_test_res480by480_test00_5.tfrec.
_SPLIT = re.compile(r"(?:.*[^A-Za-z])?(train|val|test)(?:ing|id|idation)?(?![A-Za-z]).*", re.IGNORECASE)
# A count stands behind the number of the shard, as in train00_1000; in train_01 the number is no count.
COUNT_IN_NAME = re.compile(rf"(?<=\d)_([1-9]\d*){_SUFFIX}$", re.IGNORECASE)


_IMAGE_FOLDERS = {"train_images", "test_images", "images"}  # up to a million files each: not walked
_MAX_DEPTH = 4  # /kaggle/input/datasets/<owner>/<slug>/<folder>


def mounted(name: str) -> list[Path]:
    """Every file called `name` in what is attached to a Kaggle kernel, in the order of their folders."""
    root = kaggle_root() / "input"
    return [folder / name for folder, names in walk(root).items() if name in names] if root.is_dir() else []


def walk(root: Path) -> dict[Path, list[str]]:
    """Files by folder, down to _MAX_DEPTH, leaving out what is hidden, image folders and generated floras.

    Links are followed; a folder that is reached a second time is passed over.
    """
    found: dict[Path, list[str]] = {}
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here, real = Path(folder), os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        depth = len(here.relative_to(root).parts)
        skip = lambda name: name in _IMAGE_FOLDERS or name.startswith("flora-") or is_hidden(name)  # noqa: E731
        folders[:] = sorted(name for name in folders if depth < _MAX_DEPTH and not skip(name))
        found[here] = sorted(name for name in files if not is_hidden(name))
    return found


def is_shard(name: str) -> bool:
    """Whether a file is a shard by its name: *.tfrec, *.tfrecord(s), *.tfrecord-00000-of-00005, in any case."""
    return bool(_SHARD.fullmatch(name)) and not is_hidden(name)


def split_of(name: str) -> str | None:
    """The split that the name of a shard says, "train", "val" or "test"; None for another file or without one."""
    found = _SPLIT.fullmatch(name) if is_shard(name) else None
    return found[1].lower() if found else None


def stem_of(name: str) -> str:
    """The name of a shard without suffix and count."""
    return re.sub(rf"{_SUFFIX}(?:-\d+-of-\d+)?$", "", COUNT_IN_NAME.sub("", name), flags=re.IGNORECASE)


def shards_below(root: Path, by_folder: dict[Path, list[str]], split: str) -> tuple[Path, ...]:
    """The shards of a split ("train", "val", "test") by their names, which lie in one folder; empty without any.

    Args:
        root: where was looked; by_folder: the file names of its folders, see `walk`.

    Raises:
        InputError: they lie in several folders, or compressed ones lie beside them.
    """
    found = {}
    for folder, names in by_folder.items():
        if hits := [folder / name for name in names if split_of(name) == split]:
            found[folder] = tuple(hits)
            refuse_compressed_names(folder, names)
    if len(found) > 1:
        listed = ", ".join(str(folder) for folder in found)
        raise InputError(f"{root}: {split} shards in several folders ({listed}). Name one of them.")
    return next(iter(found.values()), ())


def only_file(root: Path, by_folder: dict[Path, list[str]], name: str | re.Pattern) -> Path | None:
    """The one file of a name or pattern of names, None without one; as `shards_below`. InputError: several."""
    is_it = name.fullmatch if isinstance(name, re.Pattern) else name.__eq__
    hits = [folder / file for folder, files in by_folder.items() for file in files if is_it(file)]
    if len(hits) > 1:
        listed = ", ".join(str(hit) for hit in hits)
        raise InputError(f"{root}: several {hits[0].name} ({listed}). Name one data folder.")
    return hits[0] if hits else None


def refuse_unfinished(by_folder: dict[Path, list[str]], shards: tuple[Path, ...]) -> None:
    """Raise InputError when a job is still writing these training shards, or any where there are none yet."""
    unfinished = [folder.parent for folder in by_folder if folder.name == UNFINISHED]
    if unfinished and (not shards or shards[0].parent in unfinished):
        raise InputError(
            f"{unfinished[0]}: the job that writes these shards is not finished. The same "
            "`tfrecords write` command continues it."
        )


def refuse_unnamed(root: Path, by_folder: dict[Path, list[str]]) -> None:
    """Raise InputError when there are compressed shards, or some whose names say no split; as `shards_below`."""
    for folder, names in by_folder.items():
        refuse_compressed_names(folder, names)
    unnamed = [folder / name for folder, names in by_folder.items() for name in names if is_shard(name)]
    unnamed = [path for path in unnamed if split_of(path.name) is None]
    if unnamed:
        raise InputError(
            f"{root}: no training shards: {unnamed[0]} ({len(unnamed)} such files) says by its name neither "
            "train, val nor test. Rename them, as in x_train00.tfrec."
        )


def refuse_compressed_names(folder: Path, names: Iterable[str]) -> None:
    """Raise InputError when a folder has a compressed shard (x.tfrec.gz) and not beside it the shard itself."""
    names = {name for name in names if not is_hidden(name)}
    found = sorted(name for name in names if (told := _COMPRESSED.fullmatch(name)) and told[1] not in names)
    if found:
        raise InputError(
            f"{folder / found[0]}: is compressed ({len(found)} such files), and only uncompressed shards are read. "
            f"{_way_out(folder / found[0], compression(folder / found[0]))}"
        )


def compression(path: Path) -> str | None:
    """How a file is compressed, "GZIP" or "ZLIB" (as TensorFlow calls them); None when it is not."""
    with path.open("rb") as file:
        head = file.read(1 << 12)
    if not head.startswith((b"\x1f\x8b\x08", b"\x78")):
        return None
    try:
        inner = zlib.decompressobj(47).decompress(head, 12)  # 47: with either header
    except zlib.error:
        return None
    if head.startswith(b"\x1f\x8b"):
        return "GZIP" if inner and not begins_as_shard(head) else None
    return "ZLIB" if begins_as_shard(inner) else None  # any text may begin with its x


def refuse_compressed(path: Path) -> None:
    """Raise InputError, with the command that decompresses it, for a shard that TensorFlow wrote compressed."""
    if kind := compression(path):
        raise InputError(
            f"{path}: is compressed ({kind}), and only uncompressed shards are read. {_way_out(path, kind)}"
        )


_UNZLIB = "import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))"


def _way_out(path: Path, kind: str | None) -> str:
    """A command that decompresses all such shards of the folder; its JPEGs get hardly larger."""
    folder = shlex.quote(str(path.parent))
    if kind == "GZIP" and path.suffix.lower() == ".gz":
        return f"Decompress them: gunzip {folder}/*{path.suffix}"
    if kind is None:
        return f"Decompress them into {path.parent}."
    command = "gzip -dcf" if kind == "GZIP" else f"python3 -c '{_UNZLIB}'"
    ending = path.suffix if _SHARD.fullmatch(path.name) is None or "-of-" not in path.name else ".tfrecord*"
    return (
        f'Decompress them in place: for f in {folder}/*{ending}; do {command} < "$f" > "$f.part" && '
        'mv "$f.part" "$f"; done'
    )


_OTHERS = (  # first bytes, what the file is
    (b"version https://git-lfs", "a Git LFS pointer to the shard (`git lfs pull` fetches it)"),
    (b"PK\x03\x04", "a zip file (unzip it)"),
    (b"BZh", "compressed by bzip2 (bunzip2)"),
    (b"\xfd7zXZ", "compressed by xz (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd (unzstd)"),
    (b"\x04\x22\x4d\x18", "compressed by lz4 (unlz4)"),
    (b"\x00\x05\x16\x07", "what macOS leaves beside a file (delete it)"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"{", "JSON text"),
)


def what_instead(path: Path) -> str | None:
    """What a file is that is no shard, by its first bytes; None when that is not known."""
    with path.open("rb") as file:
        head = file.read(512)
    if begins_as_shard(head):
        return None
    if head[:256].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, as a failed download leaves it"
    if head[257:262] == b"ustar":
        return "a tar file (unpack it)"
    return next((what for start, what in _OTHERS if head.startswith(start)), None)


def begins_as_shard(head: bytes) -> bool:
    """Whether these first bytes are a record's length and its checksum."""
    return len(head) >= 12 and masked_crc(head[:8]) == int.from_bytes(head[8:12], "little")


def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ (0x82F63B78 if crc & 1 else 0) for crc in table]
    return table


_CRC_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli) as TFRecords store it: rotated by 15 bits, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest beside shards, None where there is none.

    Raises:
        InputError: the file is not such a manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    shards = manifest.get("shards") if isinstance(manifest, dict) else None
    entry = {"file": str, "records": int, "bytes": int, "sha256": str}
    if not isinstance(shards, list) or not all(
        isinstance(shard, dict)
        and all(type(shard.get(key)) is kind for key, kind in entry.items())
        and is_shard(shard["file"])
        and not {"/", "\\"}.intersection(shard["file"])
        for shard in shards
    ):
        raise InputError(
            f"{path}: has no list of shards with file (a name without a path), records, bytes and sha256. Delete it, "
            "or write the shards again."
        )
    kinds = {"settings": (dict, object), "records": (dict, int), "notes": (list, str), "labels": (dict, list)}
    for key, (kind, inner) in kinds.items():
        found = manifest.setdefault(key, kind())
        values = found.values() if isinstance(found, dict) else found
        if not isinstance(found, kind) or not all(isinstance(value, inner) for value in values):
            raise InputError(
                f"{path}: {key!r} is {found!r}, which nothing wrote. Delete it, or write the shards again."
            )
    return manifest
