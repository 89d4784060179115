"""Image files as cameras and scanners leave them, turned into the square JPEGs that shards hold."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.files import InputError, in_order
from utils.own.decode import FORMATS, MAX_PIXELS, decode, upright_size
from utils.own.duplicates import fingerprint

FITS = ("squeeze", "pad")


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
        return _jpeg(decode(file, size, fit, notes), size, quality), "; ".join(notes)


def prepare_image(path: Path, *, size: int = 480, quality: int = 95, fit: str = "squeeze") -> Prepared:
    """`encode_image`, with the checksum and the fingerprint that duplicates are found by."""
    path = Path(path)
    with _opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        notes: list[str] = []
        small = decode(file, size, fit, notes)
        return Prepared(_jpeg(small, size, quality), digest, fingerprint(small), "; ".join(notes))


def refuse_too_large(paths: Sequence[Path], progress: bool = False) -> None:
    """Raise InputError where headers say more pixels than are read; what else is wrong with an image is found later."""
    from tqdm.auto import tqdm

    def pixels(path: Path) -> int:
        try:
            with path.open("rb") as file:
                width, height = upright_size(file)
        except Exception:  # of a damaged file anything, and its turn will come
            return 0
        return width * height

    counted = zip(paths, in_order(pixels, paths), strict=True)
    bar = tqdm(
        counted, total=len(paths), desc="look at sizes", unit=" images", disable=not progress, leave=False
    )
    if bad := [(path, count) for path, count in bar if count > MAX_PIXELS]:
        heading = f"{len(bad)} of {len(paths)} images have more than {MAX_PIXELS / 1e6:.0f} megapixels:"
        listed = [f"  {path}: {count / 1e6:.0f} megapixels" for path, count in bad[:20]]
        way_out = "Save smaller copies, or leave them out with --skip-bad. Nothing was written."
        raise InputError("\n".join([heading, *listed, way_out]))


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

    yield from in_order(one, paths, workers)
