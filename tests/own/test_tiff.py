"""TIFFs of every kind that people have: right pixels, or the true reason why not. Written by hand."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.own.decode import upright_size
from utils.own.images import BadImage, encode_image

WIDTH, HEIGHT = 92, 120


@dataclass(frozen=True)
class Page:
    """One page as it is written: samples [H, W] or [H, W, C], and what its directory says of them."""

    samples: np.ndarray
    photometric: int = 2
    bits: int | None = None
    compression: int = 1
    planar: int = 1
    subfile: int = 0
    sample_format: int = 1
    extra: tuple[int, ...] = ()
    tile: int = 0  # side, 0 for strips
    rows: int = 50  # a strip
    inside: "Page | None" = None  # in a directory of its own (SubIFD)


def packed(samples: np.ndarray, bits: int) -> bytes:
    """Rows of samples of that many bits, each row filled up to a byte."""
    rows = samples.reshape(len(samples), -1)
    ones = (rows[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
    return np.packbits(ones.reshape(len(rows), -1), axis=1).tobytes()


def packbits(data: bytes) -> bytes:
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def tiff(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    start = {"<": b"II", ">": b"MM"}[order]
    out = bytearray(
        start + struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else start + struct.pack(order + "HI", 42, 0)
    )
    link = 8 if big else 4
    offset_code, size = ("Q", 8) if big else ("I", 4)

    def directory(page: Page) -> int:
        """Write a page, and give the place of the link to the next one."""
        inside = 0
        if page.inside is not None:
            inside = len(out) + len(out) % 2
            out.extend(bytes(len(out) % 2))
            inside = parts(page.inside)
        at = parts(page, inside)
        struct.pack_into(order + offset_code, out, directory.link, at)
        return directory.end

    def parts(page: Page, inside: int = 0) -> int:
        samples = page.samples if page.samples.ndim == 3 else page.samples[..., None]
        height, width, channels = samples.shape
        bits = page.bits or 8 * samples.dtype.itemsize
        planes = [samples] if page.planar == 1 else [samples[..., [channel]] for channel in range(channels)]
        chunks = []
        for plane in planes:
            if page.tile:
                side = page.tile
                across, down = -(-width // side), -(-height // side)
                plane = np.pad(
                    plane, ((0, down * side - height), (0, across * side - width), (0, 0)), mode="edge"
                )
                for y in range(down):
                    chunks += [plane[y * side :][:side, x * side :][:, :side] for x in range(across)]
            else:
                chunks += [plane[top : top + page.rows] for top in range(0, height, page.rows)]
        places, counts = [], []
        for chunk in chunks:
            data = (
                packed(chunk, bits) if bits % 8 else chunk.astype(chunk.dtype.newbyteorder(order)).tobytes()
            )
            data = {8: zlib.compress, 32773: packbits}.get(page.compression, bytes)(data)
            places.append(len(out))
            counts.append(len(data))
            out.extend(data)
        kind = (16, "Q") if big else (4, "I")
        tags = [
            (254, 4, [page.subfile]),
            (256, 4, [width]),
            (257, 4, [height]),
            (258, 3, [bits] * channels),
            (259, 3, [page.compression]),
            (262, 3, [page.photometric]),
            (277, 3, [channels]),
            (284, 3, [page.planar]),
            (339, 3, [page.sample_format] * channels),
        ]
        tags += [(322, 4, [page.tile]), (323, 4, [page.tile])] if page.tile else [(278, 4, [page.rows])]
        tags += [(324 if page.tile else 273, kind[0], places), (325 if page.tile else 279, kind[0], counts)]
        tags += [(338, 3, list(page.extra))] if page.extra else []
        tags += [(330, 4, [inside])] if inside else []
        entries = b""
        for tag, number, values in sorted(tags):
            code = {3: "H", 4: "I", 16: "Q"}[number]
            value = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(value) > size:
                place = len(out)
                out.extend(value)
                value = struct.pack(order + offset_code, place)
            entries += struct.pack(order + "HH" + offset_code, tag, number, len(values)) + value.ljust(
                size, b"\0"
            )
        at = len(out)
        out.extend(struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + bytes(size))
        directory.end = len(out) - size
        return at

    for page in pages:
        directory.link = link
        link = directory(page)
    return bytes(out)


@pytest.fixture(scope="module")
def sheet(make_sheet):
    return make_sheet(4, WIDTH, HEIGHT)


def difference(path: Path, image: Image.Image) -> float:
    """Mean absolute difference of what is stored from an image, of 255."""
    with Image.open(BytesIO(encode_image(path, size=60))) as stored:
        found = np.asarray(stored).astype(float)
    return float(
        np.abs(found - np.asarray(image.convert("RGB").resize((60, 60), Image.Resampling.LANCZOS))).mean()
    )


def colour(sheet):
    return np.asarray(sheet)


def grey(sheet):
    return np.asarray(sheet.convert("L"))


def wide(samples):
    return samples.astype(np.uint16) * 257


def with_alpha(samples):
    return np.dstack([samples, np.full(samples.shape[:2], np.iinfo(samples.dtype).max, samples.dtype)])


READ = {
    "RGB": lambda sheet: Page(colour(sheet)),
    "RGB in planes": lambda sheet: Page(colour(sheet), planar=2),
    "RGB of 16 bits": lambda sheet: Page(wide(colour(sheet))),
    "RGB of 16 bits in planes": lambda sheet: Page(wide(colour(sheet)), planar=2),
    "RGB of 16 bits in planes, Deflate": lambda sheet: Page(wide(colour(sheet)), planar=2, compression=8),
    "CMYK of 16 bits in planes": lambda sheet: Page(wide(np.asarray(sheet.convert("CMYK"))), 5, planar=2),
    "RGB and alpha": lambda sheet: Page(with_alpha(colour(sheet)), extra=(2,)),
    "RGB and alpha of 16 bits in planes": lambda sheet: Page(
        with_alpha(wide(colour(sheet))), extra=(2,), planar=2
    ),
    "RGB and something": lambda sheet: Page(np.dstack([colour(sheet), grey(sheet)]), extra=(0,)),
    "grey": lambda sheet: Page(grey(sheet), 1),
    "grey with white as 0": lambda sheet: Page(255 - grey(sheet), 0),
    "grey of 16 bits": lambda sheet: Page(wide(grey(sheet)), 1),
    "grey of 16 bits with white as 0": lambda sheet: Page(65535 - wide(grey(sheet)), 0),
    "grey of 16 bits with white as 0, Deflate": lambda sheet: Page(
        65535 - wide(grey(sheet)), 0, compression=8
    ),
    "grey of 32 bits, 16 of them used": lambda sheet: Page(
        wide(grey(sheet)).astype(np.int32), 1, sample_format=2
    ),
    "grey of 4 bits": lambda sheet: Page(grey(sheet) >> 4, 1, bits=4),
    "PackBits": lambda sheet: Page(colour(sheet), compression=32773),
    "Deflate": lambda sheet: Page(colour(sheet), compression=8),
    "tiles": lambda sheet: Page(colour(sheet), tile=32),
    "tiles of 16 bits in planes": lambda sheet: Page(wide(colour(sheet)), tile=32, planar=2),
}


@pytest.mark.parametrize("order, big", [("<", False), (">", False), ("<", True)], ids=["II", "MM", "BigTIFF"])
@pytest.mark.parametrize("name", READ)
def test_kinds_that_are_read_have_the_right_pixels(tmp_path, sheet, name, order, big):
    (tmp_path / "sheet.tif").write_bytes(tiff(READ[name](sheet), order=order, big=big))
    wanted = sheet.convert("L") if name.startswith("grey") else sheet
    assert difference(tmp_path / "sheet.tif", wanted) < (6 if "4 bits" in name else 3)


def test_packed_grey_of_12_bits_is_scaled(tmp_path, sheet):
    (tmp_path / "sheet.tif").write_bytes(tiff(Page(grey(sheet).astype(np.uint16) << 4, 1, bits=12)))
    assert difference(tmp_path / "sheet.tif", sheet.convert("L")) < 3


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits", "lzma"])
def test_what_libtiff_writes_is_read(tmp_path, sheet, compression):
    sheet.save(tmp_path / "sheet.tif", compression=compression)
    assert difference(tmp_path / "sheet.tif", sheet) < 4


REFUSED = {
    "12 bits in 16": (
        lambda sheet: Page(colour(sheet).astype(np.uint16) << 4),
        "is above 4,095 of 65,535|is above 3,",
    ),
    "8 bits in 16": (lambda sheet: Page(grey(sheet).astype(np.uint16), 1), "fewer bits; save it with 8 bits"),
    "8 bits in 16, RGB": (lambda sheet: Page(colour(sheet).astype(np.uint16)), "above 255 of 65,535"),
    "14 bits in 16": (lambda sheet: Page(grey(sheet).astype(np.uint16) << 6, 1), "of 65,535"),
    "12 bits in 16, white as 0": (
        lambda sheet: Page(4095 - (grey(sheet).astype(np.uint16) << 4), 0),
        "of 65,535",
    ),
    "signed": (lambda sheet: Page(grey(sheet).astype(np.int16), 1, sample_format=2), "signed numbers"),
    "signed bytes": (
        lambda sheet: Page((grey(sheet) // 2).astype(np.int8), 1, sample_format=2),
        "signed numbers",
    ),
    "below zero": (
        lambda sheet: Page(-wide(grey(sheet)).astype(np.int32), 1, sample_format=2),
        "32-bit numbers",
    ),
    "floats": (lambda sheet: Page(grey(sheet) / np.float32(255), 1, sample_format=3), "floating-point"),
    "floats of 16 bits": (
        lambda sheet: Page((grey(sheet) / 255).astype(np.float16), 1, sample_format=3),
        "floating",
    ),
    "grey of 10 bits": (
        lambda sheet: Page(grey(sheet).astype(np.uint16) << 2, 1, bits=10),
        "samples of 10 bits",
    ),
    "grey and alpha in planes": (
        lambda sheet: Page(with_alpha(grey(sheet)[..., None]), 1, planar=2, extra=(2,)),
        "in planes of their own is not read here",
    ),
    "colour filter array": (
        lambda sheet: Page(wide(grey(sheet)), 32803),
        "raw camera of 1 samples of 16 bits",
    ),
    **{
        name: (
            lambda sheet, number=number: Page(colour(sheet), compression=number),
            rf"is {name} \({number}\)",
        )
        for name, number in {
            "JPEG 2000": 34712,
            "LERC": 34887,
            "Zstandard": 50000,
            "WebP": 50001,
            "JPEG XL": 50002,
            "JBIG": 34661,
            "unknown": 65000,
        }.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_kinds_that_are_not_read_are_refused_by_their_reason(tmp_path, sheet, name):
    make, reason = REFUSED[name]
    (tmp_path / "sheet.tif").write_bytes(tiff(make(sheet)))
    with pytest.raises(BadImage, match=rf"sheet\.tif: not a readable image \(.*({reason})"):
        encode_image(tmp_path / "sheet.tif")


def test_a_big_endian_bigtiff_is_refused_as_such(tmp_path, sheet):
    (tmp_path / "sheet.tif").write_bytes(tiff(Page(colour(sheet)), order=">", big=True))
    with pytest.raises(BadImage, match="BigTIFF with the high byte first"):
        encode_image(tmp_path / "sheet.tif")


def test_sixteen_bits_of_black_are_black(tmp_path):
    (tmp_path / "black.tif").write_bytes(tiff(Page(np.zeros((40, 30), np.uint16), 1)))
    assert difference(tmp_path / "black.tif", Image.new("L", (30, 40))) < 1


# Pages


def small(sheet, by=8):
    return np.asarray(sheet.resize((WIDTH // by, HEIGHT // by)))


PAGES = {
    "thumbnail first": lambda sheet: [Page(small(sheet), subfile=1), Page(colour(sheet))],
    "thumbnail first, not marked": lambda sheet: [Page(small(sheet)), Page(colour(sheet))],
    "thumbnail of a kind that is not read": lambda sheet: [
        Page(small(sheet), subfile=1, compression=34712),
        Page(colour(sheet)),
    ],
    "mask first": lambda sheet: [Page(grey(sheet) >> 7, 4, bits=1, subfile=4), Page(colour(sheet))],
    "pyramid": lambda sheet: [
        Page(colour(sheet)),
        Page(small(sheet, 2), subfile=1),
        Page(small(sheet), subfile=1),
    ],
    "pyramid, smallest first": lambda sheet: [
        Page(small(sheet), subfile=1),
        Page(small(sheet, 2), subfile=1),
        Page(colour(sheet)),
    ],
    "all marked as reduced": lambda sheet: [Page(small(sheet), subfile=1), Page(colour(sheet), subfile=1)],
    "sheet in a directory inside": lambda sheet: [Page(small(sheet), subfile=1, inside=Page(colour(sheet)))],
    "thumbnail in a directory inside": lambda sheet: [
        Page(colour(sheet), inside=Page(small(sheet), subfile=1))
    ],
    "another picture behind": lambda sheet: [
        Page(colour(sheet)),
        Page(np.zeros((3 * HEIGHT, WIDTH, 3), np.uint8)),
    ],
}


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_that_is_the_sheet_is_taken(tmp_path, sheet, name, big):
    path = tmp_path / "pages.tif"
    path.write_bytes(tiff(*PAGES[name](sheet), big=big))
    assert difference(path, sheet) < 3
    with path.open("rb") as file:
        assert upright_size(file) == (WIDTH, HEIGHT)


# Damage


def changed(content, at, some):
    return content[:at] + some + content[at + len(some) :]


@pytest.fixture(scope="module")
def large(make_sheet):
    """Pixels of 400 x 300 with grain, and no zero among them."""
    grain = np.random.default_rng(0).normal(0, 12, (400, 300, 3))
    dark = np.asarray(make_sheet(6, 300, 400)) * np.linspace(0.05, 1, 400)[:, None, None]
    return (dark + grain).clip(1, 255).astype(np.uint8)


def no_strip(content, tag=273):
    """The first of the strips has the place 0."""
    entry = content.rindex(struct.pack("<HH", tag, 4))
    (place,) = struct.unpack("<I", content[entry + 8 : entry + 12])
    return changed(content, place, bytes(4))


DAMAGE = {
    "truncated in the pixels": (1, lambda content: content[: len(content) // 2], "truncated"),
    "zeros in the place of a block": (
        1,
        lambda content: changed(content, 100_001, bytes(512)),
        "are zeros amid pixels",
    ),
    "zeros in the place of many": (
        1,
        lambda content: changed(content, 99_990, bytes(70_000)),
        "a block of the file is lost",
    ),
    "line feeds made CR LF": (1, lambda content: content.replace(b"\n", b"\r\n"), "transferred as text"),
    "no place of a strip": (1, no_strip, "strip 0 of 8 is not there"),
    "no bytes of a strip": (1, lambda content: no_strip(content, 279), "strip 0 of 8 is not there"),
    "Deflate, a wrong byte": (
        8,
        lambda content: changed(content, 20_000, bytes([content[20_000] ^ 1])),
        "strip . of 8 is damaged",
    ),
    "Deflate, zeros": (8, lambda content: changed(content, 20_000, bytes(512)), "strip . of 8 is damaged"),
    "Deflate, text mode": (8, lambda content: content.replace(b"\n", b"\r\n"), "transferred as text"),
    "PackBits, zeros": (
        32773,
        lambda content: changed(content, 50_000, bytes(512)),
        "512 or more of its bytes are zeros",
    ),
    "PackBits, a block left out": (
        32773,
        lambda content: content[:50_000] + content[50_512:] + bytes(512),
        "truncated|damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_by_its_reason(tmp_path, large, name):
    compression, change, reason = DAMAGE[name]
    content = tiff(Page(large, compression=compression))
    path = tmp_path / "sheet.tif"
    path.write_bytes(content)
    encode_image(path, size=64)
    path.write_bytes(change(content))
    with pytest.raises(BadImage, match=rf"sheet\.tif: not a readable image \(.*({reason})"):
        encode_image(path, size=64)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma"])
def test_what_libtiff_wrote_and_lost_blocks_is_refused(tmp_path, large, compression):
    path = tmp_path / "sheet.tif"
    saving = {"compression": compression} if compression else {}
    Image.fromarray(large).save(path, tiffinfo={278: 48}, **saving)
    content = path.read_bytes()
    encode_image(path, size=64)
    half = len(content) // 2 + 1
    for damaged in (content[:half], changed(content, half, bytes(512)), content.replace(b"\n", b"\r\n")):
        path.write_bytes(damaged)
        with pytest.raises(BadImage, match=r"truncated|damaged|lost|as text|directory"):
            encode_image(path, size=64)


def test_a_damaged_jpeg_inside_is_told(tmp_path, large):
    path = tmp_path / "sheet.tif"
    Image.fromarray(large).save(path, compression="jpeg", quality=90)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(BadImage, match=r"strip \d+ of \d+ is damaged: Corrupt JPEG data"):
        encode_image(path, size=64)


def test_damaged_fax_data_are_told(tmp_path, large, capfd):
    path = tmp_path / "sheet.tif"
    Image.fromarray(large).convert("1").save(path, compression="group4")
    encode_image(path, size=64)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        content[: middle - 1000] + content[middle : middle + 1000] * 2 + content[middle + 1000 :]
    )
    with pytest.raises(BadImage, match=r"its CCITT data are damaged \(Fax4Decode: "):
        encode_image(path, size=64)
    assert "Fax4Decode" not in capfd.readouterr().err


def black_things(image):
    """What is black in sound images: a frame, a bar over all, a thin line, a background, a turned sheet."""
    from PIL import ImageDraw

    width, height = image.size
    frame, bar, line, ground, turned = (image.copy() for _ in range(5))
    ImageDraw.Draw(frame).rectangle((0, 0, width - 1, height - 1), outline="black", width=30)
    ImageDraw.Draw(bar).rectangle((0, 100, width, 140), fill="black")
    ImageDraw.Draw(line).line((40, 100, width - 40, 100), fill="black")
    ImageDraw.Draw(line).rectangle((20, 200, width - 20, 300), outline="black")
    ground.paste("black", (0, 0, width, height))
    for row in range(4):
        ImageDraw.Draw(ground).ellipse((60, 100 * row, width - 90, 100 * row + 60), fill="white")
    turned = turned.rotate(1.5, expand=True)
    return [
        frame,
        bar,
        line,
        ground,
        turned,
        turned.convert("L"),
        image.rotate(0.1),
        Image.new("RGB", (700, 500)),
    ]


def test_black_things_are_no_lost_blocks(tmp_path, large):
    sheets = black_things(Image.fromarray(large).resize((900, 800)))
    for image in sheets:
        for page in (
            Page(np.asarray(image), 1 if image.mode == "L" else 2),
            Page(np.asarray(image.convert("L")), 1),
        ):
            (tmp_path / "sheet.tif").write_bytes(tiff(page))
            encode_image(tmp_path / "sheet.tif", size=64)
    lines = np.asarray(sheets[2].convert("L"))
    (tmp_path / "sheet.tif").write_bytes(tiff(Page(255 - lines, 0)))
    encode_image(tmp_path / "sheet.tif", size=64)
