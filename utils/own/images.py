"""Image files as cameras and scanners leave them, turned into the square JPEGs that shards hold."""

import errno
import hashlib
import os
import struct
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile

from utils.data import jpeg
from utils.files import InputError
from utils.own import tiff
from utils.own.duplicates import fingerprint

FITS = ("squeeze", "pad")
MAX_PIXELS = 200_000_000
FORMATS = ("JPEG", "PNG", "TIFF")
_ORIENTATION = 0x0112  # EXIF
_UPRIGHT = {
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


class BadImage(InputError):
    """An image file that cannot be used; `reason` says why, without the file's path."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: not a readable image ({reason}). Replace the file or remove its row.")


@dataclass(frozen=True)
class Prepared:
    """One image file as it goes into a shard, and what duplicates are found by."""

    jpeg: bytes
    sha256: str  # of the file
    fingerprint: bytes  # 32 bytes, see `fingerprint`
    note: str = ""  # what is wrong with the file without harm


class _Budget:
    """Lets threads decode at once only what fits into so many bytes together, whatever their number."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self.changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
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
_DECODING = _Budget(_BYTES_A_PIXEL * MAX_PIXELS)


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
    head = file.read(16)
    file.seek(0)
    if head.startswith(jpeg.START):
        if not whole:
            try:
                return jpeg_factory(file), b"", ""
            except SyntaxError:  # bytes between its segments, maybe
                file.seek(0)
        content, note = jpeg.tidied(file.read())
        return jpeg_factory(BytesIO(content)), content, note
    if head.startswith(_PNG):
        if whole:
            _refuse_damaged_png(file)
            file.seek(0)
        return PngImageFile(file), b"", ""
    if head.startswith(tiff.PREFIXES):
        return tiff.open_page(file, whole=whole), b"", ""
    # A PNG begins with line ends for this very purpose.
    if b"\xef\xbf\xbd" in head or head.startswith((b"\x89PNG\r\r\n", b"\x89PNG\n\x1a")):
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
    # of a PNG without EXIF data getexif() would decode the whole image to look behind it
    has_exif = image.format in ("JPEG", "MPO") or (image.format == "PNG" and "exif" in image.info)
    turned = has_exif and image.getexif().get(_ORIENTATION, 1) >= 5
    return (height, width) if turned else (width, height)


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


def _decode(file: BinaryIO, size: int, fit: str, notes: list[str] | None = None) -> Image.Image:
    """The whole image, upright and 8-bit RGB, at the size that it has in the square.

    `notes` gets what is wrong with the file without harm.
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
            turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
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


def _padded(image: Image.Image, size: int) -> Image.Image:
    """The image in the middle of a square of its paper's colour, the median along its border."""
    if image.size == (size, size):
        return image
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    square = Image.new("RGB", (size, size), tuple(np.median(border, axis=0).astype(int).tolist()))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def _jpeg(image: Image.Image, size: int, quality: int) -> bytes:
    # Pillow lets the other threads run while it encodes into a file of the system, here one in memory (Linux).
    with os.fdopen(os.memfd_create("jpeg"), "w+b") if hasattr(os, "memfd_create") else BytesIO() as buffer:
        _padded(image, size).save(buffer, "JPEG", quality=quality)
        buffer.seek(0)
        return buffer.read()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading; whatever Pillow raises on its content becomes BadImage.

    Raises:
        BadImage: the content is not a whole image of a known format.
        InputError: the file itself cannot be read, which says nothing against the image.
    """
    try:
        with path.open("rb") as file:
            yield file
    except UnidentifiedImageError as error:
        raise BadImage(path, f"its content is not {', '.join(FORMATS)}") from error
    except OSError as error:
        if error.errno is None or error.errno == errno.EINVAL:  # Pillow's own, or a seek to a wrong offset
            raise BadImage(path, str(error)) from error
        raise InputError(f"{path}: cannot be read ({error.strerror}). Mend that and try again.") from error
    except MemoryError as error:
        raise InputError(f"{path}: not enough memory to decode it. Save a smaller copy.") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise BadImage(path, str(error) or type(error).__name__) from error


def encode_image(path: Path, *, size: int = 480, quality: int = 95, fit: str = "squeeze") -> bytes:
    """Read an image file (JPEG, PNG or TIFF) and give it as a square JPEG.

    EXIF orientation is applied, transparency is laid on white, of several pages the first is taken that is no
    thumbnail. A damaged file is refused where its format has a checksum, or a decoder objects.

    Args:
        path: the image file, of at most 200 megapixels.
        size: pixels a side of the result.
        quality: JPEG quality; 95 with 4:2:0 colour gives about 65 KB a real sheet at 480 px.
        fit: "squeeze" fills the square and does not keep the aspect ratio, as in the published shards; "pad"
            keeps it and fills the rest with the paper's colour.

    Raises:
        BadImage: the file is not a whole image, or is too large; the message names it.
        InputError: the file cannot be read at all.
    """
    return read_image(path, size=size, quality=quality, fit=fit)[0]


def read_image(path: Path, *, size: int = 480, quality: int = 95, fit: str = "squeeze") -> tuple[bytes, str]:
    """`encode_image`, and a note on what is wrong with the file without harm, mostly ""."""
    notes: list[str] = []
    path = Path(path)
    with _opened(path) as file:
        return _jpeg(_decode(file, size, fit, notes), size, quality), "; ".join(notes)


def prepare_image(path: Path, *, size: int = 480, quality: int = 95, fit: str = "squeeze") -> Prepared:
    """`encode_image`, with the checksum and the fingerprint that duplicates are found by."""
    path = Path(path)
    with _opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        notes: list[str] = []
        small = _decode(file, size, fit, notes)
        return Prepared(_jpeg(small, size, quality), digest, fingerprint(small), "; ".join(notes))


def prepare_images(
    paths: Iterable[Path],
    *,
    size: int = 480,
    quality: int = 95,
    fit: str = "squeeze",
    workers: int | None = None,
) -> Iterator[Prepared | BadImage]:
    """`prepare_image` in parallel, in the order given; a bad image comes as the error that names it.

    Threads are enough: Pillow decodes, resizes and encodes outside Python's lock. A few results a worker
    wait in memory, and the images decoded at once take at most 2.4 GB, whatever the number of workers.

    Raises:
        InputError: a file cannot be read at all.
    """

    def one(path: Path) -> Prepared | BadImage:
        try:
            return prepare_image(path, size=size, quality=quality, fit=fit)
        except BadImage as error:
            return BadImage(error.path, error.reason)  # without the traceback, which holds pixels

    workers = workers or os.cpu_count() or 1
    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(one, path))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def encode_images(
    paths: Sequence[Path],
    *,
    size: int = 480,
    quality: int = 95,
    fit: str = "squeeze",
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[bytes]:
    """JPEG bytes of image files as of `encode_image`, in parallel, in the order given.

    Raises:
        InputError: an image cannot be read.
    """
    from tqdm import tqdm

    prepared = prepare_images(paths, size=size, quality=quality, fit=fit, workers=workers)
    for image in tqdm(prepared, total=len(paths), unit=" images", disable=not progress):
        if isinstance(image, BadImage):
            raise image
        yield image.jpeg
