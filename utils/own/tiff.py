"""TIFFs as scanners leave them: the page that is the sheet, with right pixels, or the true reason why not.

Pillow and its libtiff read the pixels. What they would read wrongly is set right or refused here, and damage that they
pass over is looked for: strips that are not there, checksums of Deflate, JPEGs inside, holes of zeros.
"""

import mmap
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from utils.data import jpeg
from utils.startup import printed

PREFIXES = tuple(TiffImagePlugin.PREFIXES)

# Pillow's own decoder reads uncompressed 16-bit samples in planes of their own as noise; libtiff does not.
TiffImagePlugin.READ_LIBTIFF = True

# Grey of 16 bits with white as 0 and the high byte first: Pillow has the other order only.
TiffImagePlugin.OPEN_INFO[b"MM", 0, (1,), 1, (16,), ()] = ("I;16", "I;16N")

# libtiff gives the machine's order of bytes whatever the file has, which Pillow minds for 16 bits only.
TiffImagePlugin.OPEN_INFO[b"MM", 1, (2,), 1, (32,), ()] = ("I", "I;32NS")

TiffImagePlugin.OPEN_INFO[b"MM", 1, (1,), 1, (32,), ()] = ("I", "I;32N")

_FAX = (2, 3, 4)
_SAID_OF_FAX = re.compile(rb"^Fax\w+: .*\n?", re.MULTILINE)
_RAW, _JPEG, _DEFLATE, _PACKBITS = (1, 32771), 7, (8, 32946), 32773
# The two are those that the libtiff of Pillow's wheels is without.
_READ = TiffImagePlugin.COMPRESSION_INFO.keys() - {50000, 50001}
_COMPRESSIONS = {
    **dict.fromkeys((9, 10, 34661), "JBIG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((34926, 50000), "Zstandard"),
    **dict.fromkeys((34927, 50001), "WebP"),
    **dict.fromkeys((50002, 52546), "JPEG XL"),
    5: "LZW",
    32766: "NeXT",
    32908: "Pixar film",
    32909: "Pixar log",
    34887: "LERC",
    34892: "lossy DNG",
    34933: "PNG",
    34934: "JPEG XR",
}
_COLOURS = {
    0: "grey with white as 0",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
    9: "ICC LAB",
    10: "ITU LAB",
    32803: "raw camera",
    34892: "raw camera",
    32844: "LogL",
    32845: "LogLuv",
}
_ZEROS = re.compile(rb"\x00{%d,}" % len(jpeg.HOLE))

Tags = Mapping[int, Any]


def open_page(file: BinaryIO, *, whole: bool = True) -> TiffImageFile:
    """The page that is the sheet, checked for damage, its pixels not yet read.

    It is the first that is not marked as a reduced copy or a mask; a later one is taken where it has the same shape and
    at least twice the sides.

    Args:
        file: a file of the system.
        whole: look through all of it for damage; else only the directories are read.

    Raises:
        ValueError: the page cannot be read here, or is damaged; the message says why.
    """
    file.seek(0)
    header = file.read(16)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if jpeg.is_text(content):
            raise ValueError(jpeg.TEXT_MODE)
    if header[:4] == b"MM\0+":
        raise ValueError("it is a BigTIFF with the high byte first, which is not read here; save it as TIFF")
    pages = [page for page in _pages(file, header) if {256, 257} <= page.keys()]
    if not pages:
        raise ValueError("it has no whole directory of its pixels: the file is truncated or damaged")
    page = _sheet(pages)
    _refuse_unread(page)
    file.seek(0)
    try:
        image = TiffImageFile(_StartingAt(file, header, page.offset))
    except (SyntaxError, KeyError, TypeError) as error:
        raise ValueError(f"{_kind(page)} is not read here; save it as 8-bit RGB or grey") from error
    if whole:
        _refuse_damage(file, page)
    return image


def load(image: TiffImageFile) -> None:
    """Read the pixels.

    Raises:
        ValueError: they are damaged.
    """
    try:
        if image.tag_v2.get(259) in _FAX:  # of which libtiff only says what is wrong
            with printed(_SAID_OF_FAX) as said:
                image.load()
            if said:
                raise ValueError(f"its CCITT data are damaged ({said[0]})")
        else:
            image.load()
    except OSError as error:
        if "decoder error" not in str(error):
            raise
        raise ValueError(
            f"its {compression(image)} data are damaged, or of a kind that is not read here"
        ) from error


def bits(image: Image.Image) -> int:
    """Bits of a sample, as the file has them; 0 of another format."""
    return image.tag_v2.get(258, (1,))[0] if image.format == "TIFF" else 0


def full_range(image: TiffImageFile, pixels: np.ndarray) -> np.ndarray:
    """Samples of grey of 12 or 16 bits with black as 0 and white as 65535."""
    if bits(image) == 12:
        pixels = pixels * 65535 // 4095
    return 65535 - pixels if image.tag_v2.get(262) == 0 else pixels


def compression(image: TiffImageFile) -> str:
    """The name of how its pixels are stored."""
    number = image.tag_v2.get(259, 1)
    return _COMPRESSIONS.get(number, image.info.get("compression", "").removeprefix("tiff_"))


class _StartingAt:
    """A TIFF whose first page is another one of it."""

    def __init__(self, file: BinaryIO, header: bytes, offset: int) -> None:
        self.file = file
        order = "little" if header[:1] == b"I" else "big"
        big = header[2] == 43
        self.header = (
            header[:8] + offset.to_bytes(8, order) if big else header[:4] + offset.to_bytes(4, order)
        )

    def read(self, count: int = -1) -> bytes:
        at = self.file.tell()
        content = self.file.read(count)
        own = self.header[at : at + len(content)]
        return own + content[len(own) :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _pages(file: BinaryIO, header: bytes) -> Iterator[ImageFileDirectory_v2]:
    """The directories of a file in order, each followed by those inside it."""
    first = ImageFileDirectory_v2(header if header[2] == 43 else header[:8])
    waiting, seen = [first.next], set()
    while waiting:
        offset = waiting.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        page = ImageFileDirectory_v2(header if header[2] == 43 else header[:8])
        page.next = 0
        file.seek(offset)
        page.load(file)
        yield page
        inside = page.get(330, ())
        waiting = [*(inside if isinstance(inside, tuple) else (inside,)), page.next, *waiting]


def _sheet(pages: list[ImageFileDirectory_v2]) -> ImageFileDirectory_v2:
    whole = [page for page in pages if not page.get(254, 0) & 5 and page.get(255) != 2]
    chosen, *others = whole or sorted(pages, key=lambda page: -page[256] * page[257])
    for page in others:
        width = page[256] / page[257] * chosen[257]  # that the chosen one has, if it is of the same shape
        if page[257] >= 2 * chosen[257] and abs(width - chosen[256]) <= 1 + 0.02 * width:
            chosen = page
    return chosen


def _kind(page: Tags) -> str:
    bits = page.get(258, (1,))
    colour = _COLOURS.get(page.get(262), f"photometric interpretation {page.get(262)}")
    apart = " in planes of their own" if page.get(284) == 2 else ""
    return f"{colour} of {page.get(277, 1)} samples of {'/'.join(map(str, sorted(set(bits))))} bits{apart}"


def _refuse_unread(page: Tags) -> None:
    compression, formats, extra = page.get(259, 1), set(page.get(339, (1,))), page.get(338, ())
    if compression not in _READ:
        name = _COMPRESSIONS.get(compression, "unknown")
        raise ValueError(
            f"its compression is {name} ({compression}), which is not read here; save it with LZW or Deflate"
        )
    if 3 in formats:
        raise ValueError("pixels are floating-point numbers without a known range; save it with 8 or 16 bits")
    if 2 in formats and max(page.get(258, (1,))) < 32:
        raise ValueError(
            "pixels are signed numbers without a known range; save it with 8 or 16 bits without sign"
        )
    grey_apart = page.get(262) in (0, 1) and page.get(277, 1) > 1
    if page.get(284) == 2 and (grey_apart or (0 in extra and 324 not in page)):
        raise ValueError(f"{_kind(page)} is not read here; save it with all samples of a pixel together")


def _refuse_damage(file: BinaryIO, page: Tags) -> None:
    """Raise ValueError where strips or tiles are not there, or not what was written."""
    compression = page.get(259, 1)
    tiled = 324 in page
    name = "tile" if tiled else "strip"
    offsets, counts = page.get(324 if tiled else 273, ()), page.get(325 if tiled else 279, ())
    planes = page.get(277, 1) if page.get(284) == 2 else 1
    width, height = (
        (page.get(322), page.get(323)) if tiled else (page[256], min(page.get(278, 2**32), page[257]))
    )
    if not width or not height:
        raise ValueError(f"its {name}s have no size: its directory is damaged")
    across, down = -(-page[256] // width), -(-page[257] // height)
    if len(offsets) < across * down * planes:
        raise ValueError(
            f"{len(offsets)} of its {across * down * planes} {name}s are listed: its directory is damaged"
        )
    samples = 1 if planes > 1 else page.get(277, 1)
    row = -(-width * samples * page.get(258, (1,))[0] // 8)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        parts = []
        for number, offset in enumerate(offsets):
            rows = height if tiled else min(height, page[257] - number % down * height)
            plain = rows * row if page.get(262) != 6 else 0  # of YCbCr some samples are shared
            count = counts[number] if counts else plain if compression in _RAW else len(content) - offset
            if not offset or not count:
                raise ValueError(
                    f"{name} {number} of {len(offsets)} is not there: it was never written, or is lost"
                )
            if offset + count > len(content):
                raise ValueError(
                    f"{name} {number} of {len(offsets)} ends behind the end of the file, which is truncated"
                )
            if compression in _RAW and count < plain:
                raise ValueError(
                    f"{name} {number} has {count} bytes, its pixels take {plain}: its directory is damaged"
                )
            parts.append((offset, plain if compression in _RAW and plain else count, plain))
        if compression in _RAW:
            _refuse_holes(content, parts, row, max(1, samples * page.get(258, (1,))[0] // 8))
            return
        for number, (offset, count, plain) in enumerate(parts):
            problem = _problem(content, offset, count, plain, compression, page.get(347, b""))
            if problem:
                raise ValueError(f"{name} {number} of {len(offsets)} is damaged: {problem}")


def _problem(content: mmap.mmap, offset: int, count: int, plain: int, compression: int, tables: bytes) -> str:
    if compression in _DEFLATE:
        return _deflate_problem(content, offset, count)
    if content.find(jpeg.HOLE, offset, offset + count) >= 0:
        return f"{len(jpeg.HOLE)} or more of its bytes are zeros in the place of compressed data"
    strip = content[offset : offset + count] if compression in (_JPEG, _PACKBITS) else b""
    if compression == _JPEG:
        try:
            jpeg.examine(tables[:-2] + strip[2:] if tables else strip)
        except jpeg.Damaged as error:
            return str(error)
    if compression == _PACKBITS and plain and _unpacked_length(strip) != plain:
        return f"it gives {_unpacked_length(strip)} bytes, its pixels take {plain}"
    return ""


def _deflate_problem(content: mmap.mmap, offset: int, count: int) -> str:
    """What is wrong with a zlib stream, by its checksum, which libtiff leaves unread."""
    stream, end = zlib.decompressobj(), offset + count
    try:
        while offset < end and not stream.eof:
            rest = content[offset : min(offset + 2**20, end)]
            offset += len(rest)
            while rest and not stream.eof:
                stream.decompress(rest, 2**22)
                rest = stream.unconsumed_tail
        while not stream.eof and stream.decompress(b"", 2**22):
            pass
    except zlib.error as error:
        return str(error)
    return "" if stream.eof else "its compressed data are cut short"


def _unpacked_length(strip: bytes) -> int:
    """Bytes that PackBits data stand for; -1 when they end inside a run."""
    at, length = 0, 0
    while at < len(strip):
        code = strip[at]
        if code < 128:
            length, at = length + code + 1, at + code + 2
        elif code > 128:
            length, at = length + 257 - code, at + 2
        else:
            at += 1
    return length if at == len(strip) else -1


def _refuse_holes(content: mmap.mmap, parts: list[tuple[int, int, int]], row: int, pixel: int) -> None:
    """Raise ValueError where zeros stand in uncompressed pixels as no black thing does.

    That is where they begin and end inside a row, below and above bytes that are not zero for as far as a lost block
    reaches; within one row also off the bounds of pixels, or on those of blocks. A black margin, bar or background does
    not look like this. There is no checksum, so any other wrong bytes are seen by nobody.
    """
    reach = min(row, len(jpeg.HOLE))
    regions: list[list[int]] = []
    for offset, count, _ in parts:  # what lies together is one
        if regions and regions[-1][1] == offset:
            regions[-1][1] += count
        else:
            regions.append([offset, offset + count])
    for start, end in regions:
        for zeros in _ZEROS.finditer(content, start, end):
            first, behind = zeros.span()
            at, to = first - start, behind - start
            if at < row or not at % row or not _is_solid(content[first - row : first - row + reach]):
                continue
            if behind == end:
                lost = row - at % row >= reach
            else:
                lost = bool(to % row) and behind + row <= end
                lost = lost and _is_solid(content[behind + row - reach : behind + row])
                if at // row == to // row:
                    lost = lost and (at % pixel or to % pixel or first % 512 == behind % 512 == 0)
            if lost:
                raise ValueError(
                    f"{behind - first} bytes from byte {first} on are zeros amid pixels: a block of the file is lost"
                )


def _is_solid(some: bytes) -> bool:
    return some.count(0) <= len(some) // 8
