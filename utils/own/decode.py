"""From the bytes of an image file to upright 8-bit RGB, within a bound of memory: JPEG, PNG, TIFF.

Damage that Pillow passes over is looked for here and in utils.own.tiff; the pixels decide every stored image, so who
changes how they are read, scaled or turned changes data sets that are made again.
"""

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile

from utils.data import jpeg
from utils.own import tiff

MAX_PIXELS = 200_000_000
FORMATS = ("JPEG", "PNG", "TIFF")
_ORIENTATION = 0x0112  # EXIF
UPRIGHT = {  # what turns an image back, by EXIF's number
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's own limit warns at 90 megapixels and raises at 179; the one here is checked before decoding too.
Image.MAX_IMAGE_PIXELS = None

# As PILLOW_BLOCK_SIZE=64m does, also where Pillow is imported already. Blocks of its default 16 MB come from
# the heaps of glibc's threads, which keep what is freed: 3.6 to 3.8 GB at the peak instead of 3.0.
Image.core.set_block_size(64 * 2**20)

# As PILLOW_BLOCKS_MAX=4 does: freed blocks are used again, where asking the system anew costs a tenth of the time.
Image.core.set_blocks_max(4)

# Of damaged EXIF and the like, which say neither the file nor whether it matters; what does matter raises.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class Budget:
    """Lets threads decode at once only what fits into so many bytes together, whatever their number."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self.changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until `amount` bytes fit beside what other threads hold, and hold them for the block."""
        with self.changed:
            # An image larger than the budget is decoded alone.
            self.changed.wait_for(lambda: self.used == 0 or self.used + amount <= self.total)
            self.used += amount
        try:
            yield
        finally:
            with self.changed:
                self.used -= amount
                self.changed.notify_all()


# Decoding takes at most 12 bytes a pixel: 4 of the image, 4 of a turned or premultiplied copy and 4 of a
# conversion, or 8 of a 16-bit TIFF in one strip and 4 of the image. So one image of 200 megapixels fits.
_BYTES_A_PIXEL = 12
_DECODING = Budget(_BYTES_A_PIXEL * MAX_PIXELS)


def _decoding_bytes(image: Image.Image, width: int, height: int) -> int:
    """Most that decoding takes, after draft(): a JPEG is decoded at its reduced size.

    A progressive JPEG keeps all its coefficients, 2 bytes each, until the end.
    """
    if image.format not in ("JPEG", "MPO"):
        return _BYTES_A_PIXEL * width * height
    coefficients = 2 * len(image.getbands()) * width * height if "progressive" in image.info else 0
    return 7 * image.width * image.height + coefficients  # 3 as decoded, 4 as Pillow holds them


def _opened_image(file: BinaryIO, *, whole: bool) -> tuple[Image.Image, bytes, str]:
    """The image in a file, its pixels not yet read.

    Args:
        file: a file of the system.
        whole: look through all of it for damage, but for what decoding a JPEG finds; else only the header is read.

    Returns:
        The image, with `whole` the bytes of a JPEG (else b""), and a note on what is wrong without harm.
    """
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    if start.startswith(jpeg.START):
        if not whole:
            try:
                return jpeg_factory(file), b"", ""
            except SyntaxError:  # bytes between its segments, maybe
                file.seek(0)
        content, note = jpeg.tidied(file.read())
        return jpeg_factory(BytesIO(content)), content, note
    if start.startswith(_PNG):
        if whole:
            _refuse_damaged_png(file)
            file.seek(0)
        return PngImageFile(file), b"", ""
    if start.startswith(tiff.PREFIXES):
        return tiff.open_page(file, whole=whole), b"", ""
    # A PNG begins with line ends for this very purpose.
    if b"\xef\xbf\xbd" in start or start.startswith((b"\x89PNG\r\r\n", b"\x89PNG\n\x1a")):
        raise ValueError(jpeg.TEXT_MODE)
    raise UnidentifiedImageError


_PNG = b"\x89PNG\r\n\x1a\n"


def _refuse_damaged_png(file: BinaryIO) -> None:
    """Raise ValueError unless all chunks are there with their checksums, which Pillow leaves unread for pixels."""
    file.seek(len(_PNG))
    while True:
        header = file.read(8)
        length, kind = struct.unpack(">I4s", header) if len(header) == 8 else (0, b"")
        name = kind.decode("latin-1")
        if kind and not (name.isascii() and name.isalpha()):
            raise ValueError(
                f"at byte {file.tell() - 8} is no chunk of a PNG: a part of the file is lost or wrong"
            )
        checksum = zlib.crc32(kind)
        while length and (piece := file.read(min(length, 2**20))):
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
        stored = file.read(4)
        if length or len(stored) < 4:
            raise ValueError("the file is truncated" + (f", inside its {name} chunk" if name else ""))
        if checksum != int.from_bytes(stored, "big"):
            raise ValueError(f"its {name} chunk has a wrong checksum")
        if kind == b"IEND":
            return


def upright_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height of the image in a file as it is shown, by its header.

    Raises:
        Exception: of any kind, when the header shows that it is no image.
    """
    image, _, _ = _opened_image(file, whole=False)
    width, height = image.size  # of a TIFF upright already
    return (height, width) if _orientation(image, header_only=True) >= 5 else (width, height)


def _orientation(image: Image.Image, *, header_only: bool) -> int:
    """EXIF's number of how an image lies, 1 (upright) to 8; of a TIFF 1, since Pillow turns it while it is loaded."""
    if header_only and not (
        image.format in ("JPEG", "MPO")
        # of a PNG without EXIF data getexif() would decode the whole image to look behind it
        or (image.format == "PNG" and "exif" in image.info)
    ):
        return 1
    return image.getexif().get(_ORIENTATION, 1)


def _has_16_bits(image: Image.Image) -> bool:
    return tiff.bits(image) == 16 or (image.format == "PNG" and ";16" in str(image.tile[0].args))


def _refuse_dark(most: int) -> None:
    """Numbers of 8, 10, 12 or 14 bits in samples of 16, whose range the file does not say, would be nearly black."""
    if most < 2**14:
        raise ValueError(
            f"none of its 16-bit samples is above {most:,} of 65,535, as when they hold numbers of fewer bits; "
            "save it with 8 bits, or with the full range of 16"
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8, which convert() would clip; in bands of rows, to save memory."""
    grey = Image.new("L", image.size)
    rows, most = max(1, 2**22 // image.width), 0
    for top in range(0, image.height, rows):
        pixels = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height)))).astype(np.int64)
        most = max(most, int(pixels.max()))
        if most > 65535 or pixels.min() < 0:
            raise ValueError("pixels are 32-bit numbers without a known range; save it with 8 or 16 bits")
        if image.format == "TIFF":
            pixels = tiff.full_range(image, pixels)
        grey.paste(Image.fromarray((pixels // 257).astype(np.uint8)), (0, top))
    if most and tiff.bits(image) != 12:
        _refuse_dark(most)
    return grey


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """8-bit RGB of any mode Pillow reads: 16 bits scaled down, transparency laid on white paper.

    Colours are converted after resizing where that is the same, since a large image costs memory.
    """
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode == "F":
        raise ValueError("pixels are floating-point numbers without a known range; save it with 8 or 16 bits")
    elif "transparency" in image.info:  # a colour or palette entries that stand for nothing
        image = image.convert("RGBA")
    elif image.mode in ("1", "P", "PA"):
        image = image.convert({"1": "L", "P": "RGB", "PA": "RGBA"}[image.mode])
    small = image.resize(size, Image.Resampling.LANCZOS)
    if small.mode in ("LA", "La", "RGBA", "RGBa"):
        small = small.convert("RGBA")
        small = Image.alpha_composite(Image.new("RGBA", size, "white"), small)
    return small if small.mode == "RGB" else small.convert("RGB")  # which would copy, in half a millisecond


def _fitted(width: int, height: int, size: int, fit: str) -> tuple[int, int]:
    """Width and height in a square of `size` pixels a side."""
    if fit == "squeeze":
        return size, size
    scale = size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def decode(file: BinaryIO, size: int, fit: str, notes: list[str] | None = None) -> Image.Image:
    """The whole image, upright and 8-bit RGB, at the size that it has in a square.

    Args:
        file: a file of the system.
        size: pixels a side of the square.
        fit: see `utils.own.images.encode_image`.
        notes: gets what is wrong with the file without harm.

    Raises:
        Exception: of any kind, when it is not a whole image of a known format, or is too large.
    """
    image, content, note = _opened_image(file, whole=True)
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"{width} x {height} are {width * height / 1e6:.2f} megapixels, at most "
                f"{MAX_PIXELS / 1e6:.0f} are read; save a smaller copy"
            )
        fitted = _fitted(width, height, size, fit)
        # A large JPEG is decoded at 1/2 to 1/8 of its size, to at least twice the target; one of less than four
        # times the target at 1/2: that takes half of the time and changes about as much as encoding at quality 95.
        times = 2 if min(width / fitted[0], height / fitted[1]) >= 4 else 1
        image.draft(None, (times * fitted[0], times * fitted[1]))
        with _DECODING.hold(_decoding_bytes(image, width, height)), closing(image):  # which frees its pixels
            if content:
                pixels, flaw = _pixels_of_jpeg(image, content, max(width, height))
            else:
                pixels, flaw = _pixels(image), ""
            if image.size == (height, width):  # a TIFF is turned upright by Pillow while it is loaded
                fitted = _fitted(height, width, size, fit)
            turn = UPRIGHT.get(_orientation(image, header_only=False))
            small = _resized(pixels, fitted)
    if notes is not None:
        notes += filter(None, (note, flaw))
    small.info.clear()  # else a comment of the file would go into the JPEG
    return small if turn is None else small.transpose(turn)


def _pixels_of_jpeg(image: Image.Image, content: bytes, longer: int) -> tuple[Image.Image, str]:
    """A JPEG's pixels at the size that draft() chose, the same as Pillow's, and the decoder's note.

    Args:
        longer: its longer side in the file.
    """
    if image.mode not in ("L", "RGB"):  # Pillow knows Adobe's ways with CMYK
        note = jpeg.decode(content)[1]
        return _pixels(image), note
    grey = image.mode == "L"
    pixels, note = jpeg.decode(content, grey=grey, ratio=round(longer / max(image.size)))
    return Image.fromarray(pixels[..., 0] if grey else pixels), note


def _pixels(image: Image.Image) -> Image.Image:
    """The image with its pixels read by Pillow."""
    wide = _has_16_bits(image)
    if image.format == "TIFF":
        tiff.load(image)
    else:
        image.load()
    if wide and image.mode in ("RGB", "RGBA", "LA"):  # of which Pillow keeps the high bytes
        extrema = image.getextrema()[: 1 if image.mode == "LA" else 3]
        _refuse_dark(256 * max(most for _, most in extrema) + 255)
    return image
