"""JPEGs decoded once, by a decoder that also says what it had to guess.

libjpeg goes on where data are damaged, and only warns; Pillow swallows its warnings. simplejpeg stops at the first
one. Where it is not installed (Kaggle's image), TensorFlow decodes, which prints them on file descriptor 2. Both
give the pixels that Pillow gives, byte for byte.

Flaws that cost no pixel (bytes between the segments of the header, JFIF 2.01, bytes behind the image) are notes, all
others are damage. A JPEG has no checksum: wrong bytes that make as many blocks as the right ones are seen by nobody.
"""

import functools
import itertools
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

try:
    import simplejpeg
except ImportError:  # Kaggle's image
    simplejpeg = None

START = b"\xff\xd8"
HOLE = bytes(512)  # in the place of a lost block: no file system has smaller ones
TEXT_MODE = "it was transferred as text, which changed its bytes; transfer it again in binary mode"

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_NEXT_SEGMENT = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # behind a scan and its restart markers
_END, _SCAN, _CODES = 0xD9, 0xDA, 0xC4
_FRAMES = {*range(0xC0, 0xD0)} - {_CODES, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_ALL_FREQUENCIES = b"\x00\x3f\x00"  # what the scan of a sequential JPEG has

_PRINTED = re.compile(
    rb"^(?:Corrupt JPEG|Premature end of JPEG|Warning: unknown JFIF|Inconsistent progression|Invalid |Unsupported |"
    rb"Unknown Adobe|Bogus |Huffman table|Quantization table|Arithmetic table|Not a JPEG|Empty JPEG|Maximum supp|"
    rb"Input file read|Improper call|Sampling factors|Fractional sampling|.*jpeg_mem\.cc:\d+\] ).*\n?",
    re.MULTILINE,
)
# The last two are TensorFlow's.
_CUT = ("Premature end of JPEG", "Input file read error", "Improper call to JPEG library")
_BEFORE_END = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")


class Damaged(ValueError):
    """Of a JPEG something is lost or wrong; the message says what the decoder says."""


def is_text(content: bytes | mmap.mmap) -> bool:
    """Whether every line feed has a carriage return before it, as a transfer in text mode leaves them."""
    return re.search(rb"(?<!\r)\n", content) is None and len(re.findall(rb"\n", content)) >= 3


def tidied(content: bytes) -> tuple[bytes, str]:
    """Take out of a JPEG's header what decoders warn of without need; no pixel changes.

    Bytes between segments are left out, JFIF 2.x becomes 1.x, and the scan of a sequential JPEG gets the parameters
    that the standard fixes. A header that is damaged stays as it is, for the decoder to name.

    Returns:
        The same bytes and "" when there was nothing, else a mended copy and a note.

    Raises:
        Damaged: it was transferred as text.
    """
    parts, flaws, at, code, sequential = [START], [], len(START), 0, False
    while code != _SCAN:
        marker = _MARKER.search(content, at)
        if marker is None or marker[1][0] == _END:
            return content, ""
        code, start = marker[1][0], marker.end() - 2
        if marker.start() > at:
            flaws.append(f"{marker.start() - at} stray bytes in the header")
        at = start + 2 + (0 if code in _ALONE else int.from_bytes(content[start + 2 : start + 4], "big"))
        segment = content[start:at]
        if code == 0xE0 and segment[4:9] == b"JFIF\0" and segment[9:10] != b"\1":
            flaws.append(f"JFIF {segment[9]}.{segment[10]:02}")
            segment = segment[:9] + b"\1" + segment[10:]
        sequential = sequential or code in _SEQUENTIAL
        if code == _SCAN and sequential and segment[-3:] != _ALL_FREQUENCIES:
            flaws.append("scan parameters that are not of its kind")
            segment = segment[:-3] + _ALL_FREQUENCIES
        parts.append(segment)
    if not flaws:
        return content, ""
    if is_text(content):
        raise Damaged(TEXT_MODE)
    return b"".join([*parts, content[at:]]), "; ".join(dict.fromkeys(flaws))


def decode(content: bytes, *, grey: bool = False, ratio: int = 8) -> tuple[np.ndarray, str]:
    """Decode a `tidied` JPEG, at its size or a part of it.

    Args:
        content: the file's bytes; what follows the image's end is not looked at.
        grey: one channel, of a JPEG that has one.
        ratio: 1, 2, 4 or 8: the sides are divided by it and rounded up. At any of them all bytes are read.

    Returns:
        Pixels, uint8 [H, W, 3], or [H, W, 1] where grey, and a note on what is wrong without harm, mostly "".

    Raises:
        Damaged: something is lost or wrong.
    """
    if content.count(b"\xff\xda") > 500:  # programs write about ten; each goes through all pixels
        raise Damaged("it has more than 500 scans, as no program writes them; save it again")
    pixels, complaint = _decoded(content, grey, ratio)
    note = ""
    if complaint:
        if is_text(content):
            raise Damaged(TEXT_MODE)
        stray = _BEFORE_END.match(complaint)
        if not stray or not _is_stray(content, int(stray[1])):
            raise Damaged(f"the file is truncated ({complaint})" if complaint.startswith(_CUT) else complaint)
        note = "stray bytes before the end marker"
        if pixels is None:
            pixels = _by_simplejpeg(content, grey, ratio, strict=False)
    if not _is_complete(content):
        raise Damaged("the file is truncated: its last scans are not there")
    if _has_hole(content):
        raise Damaged(f"{len(HOLE)} or more bytes of its image data are zeros: a block of the file is lost")
    return pixels, note


def examine(content: bytes) -> str:
    """The note on a JPEG, mostly "".

    Raises:
        Damaged: something is lost or wrong.
    """
    content, note = tidied(content)
    return "; ".join(filter(None, (note, decode(content)[1])))


def _decoded(content: bytes, grey: bool, ratio: int) -> tuple[np.ndarray | None, str]:
    """Pixels, and the decoder's first complaint; simplejpeg gives no pixels then."""
    try:
        if simplejpeg is not None:
            return _by_simplejpeg(content, grey, ratio, strict=True), ""
    except ValueError as error:
        # Else it is not about the data: TurboJPEG's interface knows the usual subsamplings only.
        if not str(error).startswith("tj"):
            return None, str(error)
    return _by_tensorflow(content, grey, ratio)


def _by_simplejpeg(content: bytes, grey: bool, ratio: int, strict: bool) -> np.ndarray:
    least = {}
    if ratio > 1:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content, strict=strict)
        least = {"min_height": -(-height // ratio), "min_width": -(-width // ratio)}
    return simplejpeg.decode_jpeg(content, "GRAY" if grey else "RGB", strict=strict, **least)


def _by_tensorflow(content: bytes, grey: bool, ratio: int) -> tuple[np.ndarray | None, str]:
    from utils.startup import import_tensorflow, printed

    tf = import_tensorflow()
    with printed(_PRINTED) as said:
        try:
            pixels = tf.io.decode_jpeg(
                content, 1 if grey else 3, ratio, dct_method="INTEGER_ACCURATE"
            ).numpy()
        except tf.errors.InvalidArgumentError:
            pixels = None
    refused = "" if pixels is not None else "the decoder refuses it"
    return pixels, said[0].split("] ")[-1] if said else refused


@dataclass(frozen=True)
class _Scan:
    """One scan: where its data lie, and what they are coded with."""

    frame: int  # marker of the frame: baseline, progressive, arithmetic ...
    image: tuple[int, ...]  # components of the image
    components: tuple[int, ...]  # those of the scan
    frequencies: range  # 0 is the mean of a block
    bit: int  # the lowest that the scan has
    # Huffman tables of each block of a unit: of the mean, of the other frequencies.
    blocks: list[tuple[int, int]]
    tables: dict[int, tuple[bytes, bytes]]  # by class and number: codes of each length, symbols
    content: bytes
    start: int

    @functools.cached_property
    def end(self) -> int:  # found by reading all of the data
        behind = _NEXT_SEGMENT.search(self.content, self.start)
        return behind.start() if behind else len(self.content)


def _scans(content: bytes) -> Iterator[_Scan]:
    """The scans of a JPEG; none behind what is no segment."""
    frame, sampling, tables, at = 0, {}, {}, len(START)
    while marker := _NEXT_SEGMENT.search(content, at):
        code = marker[1][0]
        if code == _END:
            return
        length = marker.end()  # its place
        at = length + int.from_bytes(content[length : length + 2], "big")
        body = content[length + 2 : at]
        if code in _FRAMES:
            frame = code
            sampling = {body[i]: (body[i + 1] >> 4) * (body[i + 1] & 15) for i in range(6, len(body) - 2, 3)}
        elif code == _CODES:
            while len(body) > 17:
                counts = body[1:17]
                tables = {**tables, body[0]: (counts, body[17 : 17 + sum(counts)])}
                body = body[17 + sum(counts) :]
        elif code == _SCAN:
            parts = [(body[i], body[i + 1]) for i in range(1, 1 + 2 * body[0], 2)]
            many = sampling if len(parts) > 1 else {}
            blocks = [(used >> 4, 16 | used & 15) for part, used in parts for _ in range(many.get(part, 1))]
            components, frequencies = tuple(part for part, _ in parts), range(body[-3], body[-2] + 1)
            scan = _Scan(
                frame, (*sampling,), components, frequencies, body[-1] & 15, blocks, tables, content, at
            )
            yield scan
            at = scan.end


def _is_complete(content: bytes) -> bool:
    """Whether all scans are there: libjpeg makes an image, if a poorer one, of those that it finds."""
    bits: dict[tuple[int, int], int] = {}
    image: tuple[int, ...] = ()
    for scan in _scans(content):
        image = scan.image
        if scan.frame in _SEQUENTIAL and len(scan.components) == len(image):
            return True
        bits |= dict.fromkeys(itertools.product(scan.components, scan.frequencies), scan.bit)
    return all(bits.get((component, at)) == 0 for component in image for at in range(64))


def _has_hole(content: bytes) -> bool:
    """Whether zeros stand in the place of image data.

    In Huffman's code zeros are the commonest symbol over and over. An encoder writes that only for empty blocks, and
    in the scans of a progressive JPEG that have only the mean of each block.
    """
    for scan in _scans(content) if HOLE in content else ():
        if content.find(HOLE, scan.start, scan.end) >= 0:
            commonest = (scan.tables[table][1][:1] for pair in scan.blocks for table in pair)
            if scan.frequencies.start > 0 or (scan.frame in _SEQUENTIAL and {*commonest} != {b"\0"}):
                return True
    return False


def _is_stray(content: bytes, count: int) -> bool:
    """Whether bytes that are left when the image is full are none of it.

    Where bytes inside are wrong, blocks are lost or made of nothing, and the image can be full before its data
    end. Then the last bytes are blocks too, up to the very last bit but for less than a byte of ones. Bytes that
    something else left are not. A few beginnings of reading are tried, since a Huffman code soon falls into step.
    """
    if (scan := [None, *_scans(content)][-1]) is None:
        return False
    stray = content[max(scan.start, scan.end - count) : scan.end]
    if count >= 8 and (len(set(stray)) == 1 or re.fullmatch(rb"[ -~\s]+", stray)):
        return True  # padding, or text
    if scan.frame not in _SEQUENTIAL:
        return False
    last = re.split(rb"\xff[\xd0-\xd7]", content[scan.start : scan.end])[-1]
    tail = last.replace(b"\xff\0", b"\xff")[-1024:]
    codes = {number: _lookup(*table) for number, table in scan.tables.items()}
    pairs = [(codes[mean], codes[others]) for mean, others in scan.blocks]
    bits = int.from_bytes(tail + b"\xff\xff\xff\xff", "big")
    starts = itertools.product(range(0, 24, 5), range(len(pairs)))
    ends = [_ends_with_a_block(bits, 8 * len(tail), pairs, first, phase) for first, phase in starts]
    return sum(ends) < len(ends) / 2


def _lookup(counts: bytes, symbols: bytes) -> list[tuple[int, int]]:
    """For each 16 bits: length of the code that they begin with, and its symbol; length 0 for none."""
    lengths = [length for length, count in enumerate(counts, start=1) for _ in range(count)]
    table = [code for code in zip(lengths, symbols, strict=False) for _ in range(1 << 16 - code[0])]
    return table + [(0, 0)] * ((1 << 16) - len(table))


def _ends_with_a_block(bits: int, count: int, pairs: list, at: int, phase: int) -> bool:
    """Whether blocks read from a bit on end where the bits do, but for up to 7 ones. 32 bits follow the counted."""
    while at < count:
        if count - at < 8 and (bits >> 32) & ((1 << count - at) - 1) == (1 << count - at) - 1:
            return True
        frequency = 0
        while frequency < 64:
            if at >= count:  # inside a block
                return False
            length, symbol = pairs[phase][frequency > 0][(bits >> count + 32 - at - 16) & 0xFFFF]
            if not length:  # not in step yet
                at += 1
                break
            at += length + (symbol & 15)
            if frequency and symbol == 0:
                break
            frequency += 1 + (symbol >> 4 if frequency else 0)
        phase = (phase + 1) % len(pairs)
    return at == count
