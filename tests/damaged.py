"""Sound files of every format that the course reads, and damage to them at seeded random places."""

import csv
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from PIL import Image

from utils.__main__ import main as command_line
from utils.config import load_profile, profile_from_dict
from utils.data import splits
from utils.data.forms.published import write_metadata, write_test_metadata
from utils.data.labels import LabelMap
from utils.data.metadata import read_metadata, read_test_metadata
from utils.data.records import read_labels
from utils.evaluation.submission import score_submission, validate_submission
from utils.files import InputError, read_json
from utils.own.folder import stored_by
from utils.own.shards import Record, write_shards
from utils.own.verify import inspect, verify

# ---------------------------------------------------------------- damage


def _block(content: bytes) -> int:
    """Bytes that are hurt together: a sector of a disk, or a quarter of a smaller file."""
    return min(512, len(content) // 4)


def cut_short(rng: np.random.Generator, content: bytes) -> bytes:
    """A copy that stopped: anywhere, a third of the time near the end."""
    lost = rng.integers(1, 65) if rng.random() < 1 / 3 else rng.integers(1, len(content))
    return content[:-lost]


def lost_block(rng: np.random.Generator, content: bytes) -> bytes:
    size = _block(content)
    start = rng.integers(0, len(content) - size)
    return content[:start] + content[start + size :]


def zero_block(rng: np.random.Generator, content: bytes) -> bytes:
    size = _block(content) * int(rng.choice([1, 1, 2, 8] if len(content) > 8192 else [1, 2]))
    start = rng.integers(0, len(content) - size)
    return content[:start] + bytes(size) + content[start + size :]


def swapped_blocks(rng: np.random.Generator, content: bytes) -> bytes:
    size = _block(content)
    first, second = np.sort(rng.choice(len(content) // size, 2, replace=False)) * size
    one, other = content[first : first + size], content[second : second + size]
    return content[:first] + other + content[first + size : second] + one + content[second + size :]


def text_mode(rng: np.random.Generator, content: bytes) -> bytes:
    """As a transfer in text mode leaves it: every line feed with a carriage return before it."""
    return content.replace(b"\n", b"\r\n")


def changed_byte(rng: np.random.Generator, content: bytes) -> bytes:
    place, bits = rng.integers(len(content)), rng.integers(1, 256)
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


KINDS = (cut_short, lost_block, zero_block, swapped_blocks, text_mode, changed_byte)
STRUCTURE = frozenset(KINDS) - {changed_byte}
SHORTER = frozenset({cut_short, lost_block})


@dataclass(frozen=True)
class Source:
    """A sound file, and what can be asked of those who read it damaged."""

    format: str  # of the line in the printed table
    name: str  # of the file
    content: bytes
    readers: Sequence[Callable[[Path], int | None]] = ()  # each gives the rows that it read; images have none
    refused: frozenset[Callable] = frozenset()  # kinds of damage that the format always shows
    wrong: Callable[[bytes], str] = lambda content: ""  # why nobody can read the content; "" where one can
    rows: Callable[[bytes], int] | None = None  # that are in the content, where it can be read
    complete: bool = False  # is compared with a list of what must be there, so a missing row shows
    place: str = ""  # pattern of the record or line that a refusal names
    beside: Path | None = None  # folder of the files that lie beside it


@dataclass(frozen=True)
class Damaged:
    """One input of a campaign."""

    number: int
    source: Source
    kind: Callable
    content: bytes

    def __str__(self) -> str:
        return f"input {self.number}, {self.source.format} {self.source.name}, {self.kind.__name__}"


def damaged(sources: Sequence[Source], seed: int, number: int) -> Damaged:
    """One input, always the same. A kind that finds nothing to change (no line feed) gives way to the next."""
    rng = np.random.default_rng([seed, number])
    source = sources[number % len(sources)]
    first = number // len(sources) + number % len(sources)
    for kind in (KINDS[(first + more) % len(KINDS)] for more in range(len(KINDS))):
        content = kind(rng, source.content)
        if content != source.content:
            return Damaged(number, source, kind, content)
    raise AssertionError(f"{source.name} cannot be damaged")


# ---------------------------------------------------------------- sound images


def photo(width: int = 260, height: int = 220) -> np.ndarray:
    """Texture at every scale, as a sheet has: uint8 [height, width, 3]."""
    rng = np.random.default_rng(1)
    pixels = np.full((height, width, 3), 128.0)
    for side in (3, 6, 12, 25, 50, 100, 200):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        pixels += (np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) - 128.0) / 4
    return pixels.clip(0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def interlaced_png(pixels: np.ndarray) -> bytes:
    """Adam7, which Pillow reads and does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width, _ = pixels.shape
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right]]
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiled_tiff(pixels: np.ndarray, deflate: bool, tile: int = 128) -> bytes:
    """Tiles, as scanners and viewers of large images write them; Pillow reads and does not write them."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % tile), (0, -width % tile), (0, 0)))
    corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
    tiles = [padded[y : y + tile, x : x + tile].tobytes() for y, x in corners]
    tiles = [zlib.compress(one) for one in tiles] if deflate else tiles
    sizes = [len(one) for one in tiles]
    n, tags = len(tiles), 10
    values = 8 + 2 + 12 * tags + 4  # where the values begin that do not fit into a tag
    offsets = np.cumsum([values + 6 + 8 * n, *sizes])[:-1].tolist()
    entries = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, values), (259, 3, 1, 8 if deflate else 1))
    entries += ((262, 3, 1, 2), (277, 3, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile))
    entries += ((324, 4, n, values + 6), (325, 4, n, values + 6 + 4 * n))
    directory = (
        struct.pack("<H", tags) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    )
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + directory
        + struct.pack(f"<3H{2 * n}I", 8, 8, 8, *offsets, *sizes)
        + (b"".join(tiles))
    )


def image_sources() -> list[Source]:
    pixels = photo()
    colour = Image.fromarray(pixels)
    grey = colour.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    files = {
        "baseline.jpg": saved(colour, "JPEG", quality=90),
        "progressive.jpg": saved(colour, "JPEG", quality=90, progressive=True),
        "restart.jpg": saved(colour, "JPEG", quality=90, restart_marker_rows=1),
        "grey.jpg": saved(grey, "JPEG", quality=90),
        "cmyk.jpg": saved(colour.convert("CMYK"), "JPEG", quality=90),
        "optimized.jpg": saved(colour, "JPEG", quality=97, subsampling=0, optimize=True),
        "eight.png": saved(colour, "PNG"),
        "sixteen.png": saved(deep, "PNG"),
        "palette.png": saved(colour.quantize(200), "PNG"),
        "transparent.png": saved(colour.convert("RGBA"), "PNG"),
        "interlaced.png": interlaced_png(pixels),
        "raw.tif": saved(colour, "TIFF"),
        "deep.tif": saved(deep, "TIFF"),
        "tiled.tif": tiled_tiff(pixels, deflate=False),
        "packbits.tif": saved(colour.quantize(200), "TIFF", compression="packbits"),
        "lzw.tif": saved(colour, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": saved(colour, "TIFF", compression="jpeg", quality=90),
        "deflate.tif": saved(colour, "TIFF", compression="tiff_adobe_deflate"),
        "tiled_deflate.tif": tiled_tiff(pixels, deflate=True),
    }
    # PNG has checksums; a JPEG and most TIFFs have none. A decoder always sees where a JPEG ends too early, and nearly
    # always where it has lost the thread (see the campaign); of a TIFF it sees what is missing, and of one with
    # Deflate, which has a checksum, all but small changes in the tags.
    shown = {"jpg": frozenset({cut_short, text_mode}), "png": frozenset(KINDS), "tif": SHORTER}
    shown |= dict.fromkeys(("deflate.tif", "tiled_deflate.tif"), STRUCTURE)
    formats = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}
    return [
        Source(formats[name[-3:]], name, content, refused=shown.get(name, shown[name[-3:]]))
        for name, content in files.items()
    ]


# ---------------------------------------------------------------- sound tables and JSON


def cli(*arguments: object) -> str:
    """The output of a command; InputError with what it told a person, anything else as it was raised."""
    result = CliRunner().invoke(command_line, [str(argument) for argument in arguments])
    if result.exit_code == 0:
        return result.stdout
    if isinstance(result.exception, SystemExit) and re.search("^Error: ", result.stderr, re.MULTILINE):
        raise InputError(result.stderr)
    raise result.exception or AssertionError(result.output)


def raise_any(problems: Iterable[object]) -> None:
    if told := "\n".join(map(str, problems)):
        raise InputError(told)


def rows_of_text(content: bytes) -> int:
    """Lines below the header that are not empty; no sound table here has a line break within a field."""
    lines = re.split("\r\n|\n|\r", content.decode("utf-8-sig"))
    return sum(bool(line.strip(' \t,;"')) for line in lines[1:])


def wrong_text(content: bytes) -> str:
    """What is certainly wrong with a table; much else, such as another letter in a name, is a table too."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "is not UTF-8"
    if "\0" in text:
        return "has zero bytes"
    lines = text.split("\n")
    outside_quotes = [re.sub('"[^"]*"', "", line) for line in (lines[0], lines[-1])]
    fields = [len(re.findall("[,;\t]", line)) for line in outside_quotes]
    return "ends inside a row" if lines[-1] and fields[1] < fields[0] else ""


def wrong_json(content: bytes) -> str:
    try:
        json.loads(content.decode("utf-8-sig"))
    except ValueError:
        return "is no JSON"
    return ""


def rows_of_json(*keys: str) -> Callable[[bytes], int]:
    """The length of a list in a JSON file."""

    def rows(content: bytes) -> int:
        value = json.loads(content.decode("utf-8-sig"))
        for key in keys:
            value = value[key]
        return len(value)

    return rows


def read_summary(path: Path) -> int:
    return json.loads(cli("metadata", path, "--json"))["images"]


def read_for_split(path: Path) -> int:
    out = path.parent / "out" / "split.csv"
    cli("split", path, "--out", out)
    return len(splits.read_split(out))


def table_sources(folder: Path, count: int = 60) -> list[Source]:
    """Tables and JSON of the same sheets."""
    genera = ("Abies", "Carex", "Rosa", "Quercus", "Zea")
    rows = [
        {
            "image_id": f"{number % 20:05d}__{number:03d}",
            "file_name": f"{number % 20:03d}/blatt_ä{number}.jpg",
            "scientificName": f"{genera[number % 5]} planta{'abcdefghijklmnopqrst'[number % 20]}",
            "authors": "Müll. & L." if number % 20 < 10 else "",
            "family": f"{genera[number % 5]}ceae",
            "collector": f"Smith, J. {number % 7}",
        }
        for number in range(count)
    ]

    def table(delimiter: str, rows: Sequence[dict] = rows) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    own = table(",")
    (folder / "own.csv").write_bytes(own)
    metadata = read_metadata(folder / "own.csv")
    labels = LabelMap.from_metadata(metadata)
    labels.save(folder / "labels.json")
    write_metadata(metadata, folder / "train_metadata.json")
    write_test_metadata(metadata.images, folder / "test_metadata.json")
    ids, categories = metadata.annotations["image_id"], metadata.annotations["category_id"]
    answers = [{"Id": one, "Predicted": other} for one, other in zip(ids, categories, strict=True)]
    (folder / "solution.csv").write_bytes(table(",", answers))
    mini = [
        {"": number, "genus_id": number % 5, "institution_id": 0, "category_id": number % 20}
        | {key: row[key] for key in ("image_id", "scientificName", "family", "authors")}
        for number, row in enumerate(rows)
    ]
    parts = [{"image_id": one, "split": splits.PARTS[place % 3]} for place, one in enumerate(ids)]
    settings = json.dumps(
        load_profile("smoke").to_dict() | {"run": {"stored": {"size": 64}}}, indent=2
    ).encode()

    def read_parts(path: Path) -> int:
        return len(splits.parts_of(ids, path))

    def validated(path: Path) -> int:
        raise_any(validate_submission(path, metadata.images, labels.category_ids))
        return count

    def scored(path: Path) -> int:
        score_submission(path, folder / "solution.csv", labels.category_ids)
        return count

    def solved(path: Path) -> int:
        score_submission(folder / "solution.csv", path, labels.category_ids)
        return count

    def read_test(path: Path) -> int:
        return len(read_test_metadata(path))

    def read_label_map(path: Path) -> int:
        return LabelMap.load(path).n_classes

    def read_settings(path: Path) -> None:
        profile_from_dict({k: v for k, v in read_json(path).items() if k != "run"}, str(path))
        stored_by(path.parent, path.name.removesuffix("_configs.json"))

    line = r"line \d|row \d|position \d|no column|header must be|is not text|has no rows|image '|first: "
    spot = r"row \d|position \d|char \d|byte \d|must be|no table|no field|has no|is '|has \d|truncated"
    both = (read_summary, read_for_split)
    texts = {"wrong": wrong_text, "rows": rows_of_text, "place": line}

    def stored(name: str, *keys: str) -> dict[str, Any]:
        content = (folder / name).read_bytes().strip()
        return {
            "name": name,
            "content": content,
            "wrong": wrong_json,
            "rows": rows_of_json(*keys),
            "place": spot,
        }

    return [
        Source("CSV", "own.csv", own, both, **texts),
        Source("CSV", "semicolon.csv", table(";"), both, **texts),
        Source("TSV", "own.tsv", table("\t"), both, **texts),
        Source("TSV", "mini_train.tsv", table("\t", mini), both, **texts),
        Source("split", "split.csv", table(",", parts), (read_parts,), complete=True, **texts),
        Source(
            "submission", "s.csv", table(",", answers), (validated, scored, solved), complete=True, **texts
        ),
        Source("train JSON", readers=both, **stored("train_metadata.json", "annotations")),
        Source("test JSON", readers=(read_summary, read_test), **stored("test_metadata.json")),
        Source("labels.json", readers=(read_label_map,), **stored("labels.json", "scientificName")),
        Source("configs.json", "smoke_configs.json", settings, (read_settings,), wrong=wrong_json),
    ]


# ---------------------------------------------------------------- sound shards


def shard_sources(folder: Path) -> list[Source]:
    """Shards as published, with and without labels."""
    from utils.data.damage import bad_records  # imports TensorFlow

    jpeg = saved(Image.fromarray(photo(96, 96)), "JPEG", quality=90)
    labelled = [Record(jpeg, f"sheet{number}", number, 0, 0) for number in range(4)]
    shards = write_shards(labelled, folder, split="train", size=96)
    shards += write_shards([Record(jpeg, number) for number in range(4)], folder, split="test", size=96)

    def verified(path: Path) -> None:
        raise_any(verify([path]))

    def judged_for_training(path: Path) -> None:
        raise_any(bad_records([path], 4 if "train" in path.name else None))

    def inspected(path: Path) -> None:
        inspect([path])

    def labels_read(path: Path) -> None:
        read_labels([path])

    readers = (verified, judged_for_training, inspected, labels_read)
    return [
        Source("TFRecord", path.name, path.read_bytes(), readers, frozenset(KINDS), place=r"record \d")
        for path in shards
    ]


def manifest_source(folder: Path) -> Source:
    """The manifest of a folder of shards, which lie beside it again when it is damaged."""
    images, out = folder / "images", folder / "shards"
    for number in range(6):
        species = images / ("Abies alba", "Zea mays")[number % 2]
        species.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(40 + number, 40)).save(species / f"{number}.png")

    def written(manifest: Path) -> None:
        settings = ("--size", 32, "--shard-images", 3)
        cli("tfrecords", "write", "--images", images, "--out", manifest.parent, *settings)

    def verified(manifest: Path) -> None:
        cli("tfrecords", "verify", manifest.parent)

    def inspected(manifest: Path) -> None:
        cli("tfrecords", "inspect", manifest.parent)

    written(out / "manifest.json")
    content, readers = (out / "manifest.json").read_bytes().strip(), (verified, inspected, written)
    return Source("manifest.json", "manifest.json", content, readers, wrong=wrong_json, beside=out)
