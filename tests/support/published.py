"""TFRecords made byte by byte: a writer that shares no code with the project, nor with TensorFlow.

The formats are the published ones: protobuf's wire format of tf.train.Example, and TFRecord's frames of length,
masked CRC32C of the length, data, masked CRC32C of the data. JPEGs come from Pillow.

    Example  { Features features = 1 }
    Features { map<string, Feature> feature = 1 }         an entry is { string key = 1; Feature value = 2 }
    Feature  { oneof { BytesList = 1; FloatList = 2; Int64List = 3 } }
    BytesList { repeated bytes value = 1 }   FloatList, Int64List { repeated float / int64 value = 1 [packed] }
"""

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

# CRC-32C (Castagnoli), reflected: the remainder of every byte.
_REMAINDERS = []
for _byte in range(256):
    _remainder = _byte
    for _ in range(8):
        _remainder = (_remainder >> 1) ^ 0x82F63B78 if _remainder % 2 else _remainder >> 1
    _REMAINDERS.append(_remainder)


def crc32c(data: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = (remainder >> 8) ^ _REMAINDERS[(remainder ^ byte) % 256]
    return remainder ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    rotated = (checksum >> 15) | (checksum % (1 << 15)) << 17
    return (rotated + 0xA282EAD8) % (1 << 32)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join(
        [length, struct.pack("<I", masked(crc32c(length))), data, struct.pack("<I", masked(crc32c(data)))]
    )


def varint(number: int) -> bytes:
    number %= 1 << 64  # an int64 below zero takes ten bytes
    groups = []
    while True:
        number, group = number >> 7, number % 128
        groups.append(group + 128 if number else group)
        if not number:
            return bytes(groups)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field (wire type 2)."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def bytes_list(*values: bytes) -> bytes:
    return field(1, b"".join(field(1, value) for value in values))


def float_list(*values: float) -> bytes:
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def packed(*values: int) -> bytes:
    """An Int64List as proto3 writes it: all values in one field."""
    return field(3, field(1, b"".join(varint(value) for value in values)))


def unpacked(*values: int) -> bytes:
    """An Int64List as proto2 wrote it: one field (wire type 0) a value."""
    return field(3, b"".join(varint(1 << 3) + varint(value) for value in values))


def example(features: Mapping[str, bytes]) -> bytes:
    """A serialized Example of encoded Features, in the order given."""
    entries = (field(1, key.encode()) + field(2, feature) for key, feature in features.items())
    return field(1, b"".join(field(1, entry) for entry in entries))


def jpeg(number: int, side: int) -> bytes:
    """A sheet whose colour tells its number: (20 + 30 x number % 8) of green on a white margin."""
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((2, 2, side - 3, side - 3), fill=(200, 20 + 30 * (number % 8), 90))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def write_shard(
    folder: Path, split: str, records: Sequence[bytes], *, prefix: str = "h22", side: int = 480, part: int = 0
) -> Path:
    """A shard under its published name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix}_res{side}by{side}_{split}{part:02d}_{len(records)}.tfrec"
    path.write_bytes(b"".join(map(frame, records)))
    return path


# facts.md: scientificName, family and genus are positions in the sorted lists of names, not category_ids.
NAMES = {
    "Abies alba Mill.": ("Abies", "Pinaceae"),
    "Aster amellus L.": ("Aster", "Asteraceae"),
    "Zea diploperennis Iltis, Doebley & R.Guzman": ("Zea", "Poaceae"),
    "Zea mays L.": ("Zea", "Poaceae"),
}
SPECIES = sorted(NAMES)
GENERA = sorted({genus for genus, _ in NAMES.values()})
FAMILIES = sorted({family for _, family in NAMES.values()})


def train_id(number: int) -> str:
    """As in the published files: category and number."""
    return f"{number % len(SPECIES):05d}__{number:03d}"


def train_features(number: int, side: int = 480, int64: Callable[..., bytes] = packed) -> dict[str, bytes]:
    """The five features of a train record; its class is number modulo 4."""
    name = SPECIES[number % len(SPECIES)]
    genus, family = NAMES[name]
    return {
        "image": bytes_list(jpeg(number, side)),
        "image_id": bytes_list(train_id(number).encode()),
        "scientificName": int64(SPECIES.index(name)),
        "family": int64(FAMILIES.index(family)),
        "genus": int64(GENERA.index(genus)),
    }


def withheld_features(number: int, side: int = 480) -> dict[str, bytes]:
    """The two features of a test record; the id is a number."""
    return {"image": bytes_list(jpeg(number, side)), "image_id": packed(withheld_id(number))}


def withheld_id(number: int) -> int:
    return 210_000 + number


def metadata(numbers: Sequence[int]) -> dict:
    """The content of train_metadata.json for some train records; category_ids have gaps and another order."""
    category = {name: 3 * (len(SPECIES) - index) for index, name in enumerate(SPECIES)}
    return {
        "annotations": [
            {
                "image_id": train_id(number),
                "category_id": category[SPECIES[number % 4]],
                "genus_id": 7 + GENERA.index(NAMES[SPECIES[number % 4]][0]),
                "institution_id": 0,
            }
            for number in numbers
        ],
        "images": [
            {"image_id": train_id(number), "file_name": f"000/00/{train_id(number)}.jpg", "license": 0}
            for number in numbers
        ],
        "categories": [
            {
                "category_id": category[name],
                "scientificName": name,
                "authors": " ".join(name.split()[2:]),
                "family": family,
                "genus": genus,
                "species": name.split()[1],
            }
            for name, (genus, family) in NAMES.items()
        ],
        "genera": [{"genus_id": 7 + index, "genus": genus} for index, genus in enumerate(GENERA)],
        "distances": [],
        "institutions": [{"institution_id": 0, "collectionCode": "NY"}],
        "licenses": [{"id": 0, "name": "CC BY-NC-ND 4.0", "url": ""}],
    }


def write_mini_table(path: Path, numbers: Sequence[int]) -> None:
    """The table of NAFlora-mini, whose first column has no name and counts the rows of the whole set."""
    tables = metadata(numbers)
    categories = {row["category_id"]: row for row in tables["categories"]}
    names = ("genus_id", "institution_id", "category_id", "image_id", "scientificName", "family", "genus")
    names += ("species", "authors")
    lines = ["\t".join(["", *names])]
    for count, row in enumerate(tables["annotations"]):
        row = row | categories[row["category_id"]]
        lines.append("\t".join([str(1582 + 2 * count), *(str(row[name]) for name in names)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
