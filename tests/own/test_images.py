import hashlib
import os
import random
import struct
import subprocess
import sys
import threading
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.files import REPOSITORY, InputError
from utils.own import duplicates, images
from utils.own.decode import UPRIGHT, Budget, decode
from utils.own.images import BadImage, encode_image, prepare_images


def decoded(jpeg):
    with Image.open(BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


def squeezed(image, size):
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)).astype(int)


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, bits, colour, rows, extra=b""):
    """A PNG by hand: `rows` is one bytes object a row, without the filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(width, height, bits, photometric, data, orientation=1):
    """A little-endian, uncompressed TIFF of one strip by hand; `bits` is one number a channel."""
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, bits),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [8]),
        (274, 3, [orientation]),
        (277, 3, [len(bits)]),
        (278, 4, [height]),
        (279, 4, [len(data)]),
    ]
    after = 8 + len(data)
    extra, table = b"", struct.pack("<H", len(entries))
    for tag, kind, values in entries:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            place = after + 2 + 12 * len(entries) + 4 + len(extra)
            extra, packed = extra + packed, struct.pack("<I", place)
        table += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, after) + data + table + struct.pack("<I", 0) + extra


# Modes and formats

MODES = ["RGB", "L", "1", "P", "CMYK", "LA", "RGBA", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_that_looks_the_same(tmp_path, make_sheet, mode):
    image = make_sheet(1, 96, 64)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path = tmp_path / ({"CMYK": "image.jpg", "I;16": "image.tif"}.get(mode, "image.png"))
    image.save(path)
    pixels = decoded(encode_image(path, size=48))
    grey = mode in ("L", "1", "LA", "I;16")
    expected = squeezed(make_sheet(1, 96, 64).convert("L" if grey else "RGB"), 48)
    assert pixels.shape == (48, 48, 3)
    tolerance = {"1": 40, "P": 20}.get(mode, 8)  # dithered; a palette of few colours
    assert np.abs(pixels - expected).mean() < tolerance


@pytest.mark.parametrize(
    "options",
    [
        ("a.jpg", "RGB", {"progressive": True}),
        ("a.jpg", "L", {}),
        ("a.jpg", "CMYK", {"progressive": True}),
        ("a.png", "I;16", {}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("a.tif", "CMYK", {"compression": "tiff_adobe_deflate"}),
        ("a.tif", "1", {"compression": "group4"}),
        ("a.tif", "LAB", {}),
        ("a.tif", "YCbCr", {"compression": "jpeg"}),
    ],
    ids=str,
)
def test_kinds_that_scanners_write(tmp_path, make_sheet, options):
    name, mode, saving = options
    sheet = make_sheet(2, 120, 90)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(sheet.convert("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = ImageCms.applyTransform(sheet, to_lab)
    else:
        image = sheet.convert(mode)
    image.save(tmp_path / name, **saving)
    expected = squeezed(sheet.convert("L") if mode in ("L", "I;16", "1") else sheet, 40)
    pixels = decoded(encode_image(tmp_path / name, size=40))
    assert np.abs(pixels - expected).mean() < {"1": 40, "LAB": 12}.get(mode, 9)


def test_sixteen_bit_colour_is_scaled_down(tmp_path, make_sheet):
    sheet = make_sheet(3, 60, 40)
    wide = np.asarray(sheet).astype(">u2") * 257
    (tmp_path / "rgb.png").write_bytes(png(60, 40, 16, 2, [row.tobytes() for row in wide]))
    grey = np.asarray(sheet.convert("L")).astype(">u2") * 257
    alpha = np.stack([grey, np.full_like(grey, 65535)], axis=-1)
    (tmp_path / "la.png").write_bytes(png(60, 40, 16, 4, [row.tobytes() for row in alpha]))
    (tmp_path / "rgb.tif").write_bytes(tiff(60, 40, [16] * 3, 2, wide.astype("<u2").tobytes()))
    cmyk = np.asarray(sheet.convert("CMYK")).astype("<u2") * 257
    (tmp_path / "cmyk.tif").write_bytes(tiff(60, 40, [16] * 4, 5, cmyk.tobytes()))
    (tmp_path / "grey.tif").write_bytes(tiff(60, 40, [16], 1, grey.astype("<u2").tobytes()))
    for name in ("rgb.png", "rgb.tif", "cmyk.tif"):
        assert np.abs(decoded(encode_image(tmp_path / name, size=32)) - squeezed(sheet, 32)).mean() < 8, name
    for name in ("la.png", "grey.tif"):
        pixels = decoded(encode_image(tmp_path / name, size=32))
        assert np.abs(pixels - squeezed(sheet.convert("L"), 32)).mean() < 4, name


def test_adobe_ycck_has_the_colours_that_adobe_means(tmp_path):
    """Adobe stores inverted CMYK, of which the first three channels as YCbCr when the transform flag is 2."""
    cmyk = (200, 30, 90, 20)
    ycc = Image.new("RGB", (64, 64), cmyk[:3]).convert("YCbCr").getpixel((0, 0))
    stored = Image.new("CMYK", (64, 64), (*(255 - value for value in ycc), cmyk[3]))  # Pillow inverts too
    buffer = BytesIO()
    stored.save(buffer, "JPEG", quality=100)
    content = bytearray(buffer.getvalue())
    marker = content.index(b"Adobe")
    assert content[marker + 11] == 0
    content[marker + 11] = 2
    (tmp_path / "ycck.jpg").write_bytes(content)
    wanted = np.array(Image.new("CMYK", (1, 1), cmyk).convert("RGB").getpixel((0, 0)))
    assert np.abs(decoded(encode_image(tmp_path / "ycck.jpg", size=32)) - wanted).max() <= 4


def test_of_several_pages_the_first_is_taken(tmp_path):
    pages = [Image.new("RGB", (40, 50), colour) for colour in ("red", "green", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert np.abs(decoded(encode_image(tmp_path / "pages.tif", size=16)) - (255, 0, 0)).max() <= 3


def test_transparency_shows_white_paper(tmp_path):
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (30, 30), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=1)
    black = png(30, 30, 8, 2, [bytes(90)] * 30, chunk(b"tRNS", bytes(6)))  # RGB, where black is clear
    (tmp_path / "key.png").write_bytes(black)
    for name in ("clear.png", "palette.png", "key.png"):
        assert decoded(encode_image(tmp_path / name, size=16)).min() >= 254, name


def test_a_comment_does_not_get_into_the_shard(tmp_path, make_sheet):
    make_sheet(1, 50, 50).save(tmp_path / "said.jpg", comment="collector's address")
    assert b"address" in (tmp_path / "said.jpg").read_bytes()
    assert b"address" not in encode_image(tmp_path / "said.jpg", size=16)


# Orientation


def upright():
    image = Image.new("RGB", (40, 60), "white")
    image.paste("black", (0, 0, 20, 30))  # dark at the upper left
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["squeeze", "pad"])
@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_every_exif_orientation_is_applied(tmp_path, orientation, fit, kind):
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    turned = upright() if undo == 1 else upright().transpose(UPRIGHT[undo])
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "tif":
        data = tiff(*turned.size, [8, 8, 8], 2, turned.tobytes(), orientation)
        (tmp_path / "turned.tif").write_bytes(data)
    else:
        turned.save(tmp_path / f"turned.{kind}", exif=exif)
    upright().save(tmp_path / "upright.png")
    wanted = decoded(encode_image(tmp_path / "upright.png", size=48, fit=fit))
    found = decoded(encode_image(tmp_path / f"turned.{kind}", size=48, fit=fit))
    assert np.abs(found - wanted).mean() < 3


# Size and fit


def test_a_large_jpeg_is_squeezed_as_if_decoded_in_full(tmp_path, make_sheet):
    make_sheet(2, 900, 1200).save(tmp_path / "large.jpg", quality=95)
    pixels = decoded(encode_image(tmp_path / "large.jpg", size=96))
    with Image.open(tmp_path / "large.jpg") as image:
        assert np.abs(pixels - squeezed(image, 96)).mean() < 3


@pytest.mark.parametrize("side", [970, 1000, 1900])
def test_decoding_at_half_size_changes_about_as_much_as_encoding_does(tmp_path, make_sheet, side):
    """Peak signal to noise against decoding in full, without the JPEG's own loss: about 42 dB on sheets."""
    make_sheet(2, side, side).save(tmp_path / "sheet.jpg", quality=90)
    with (tmp_path / "sheet.jpg").open("rb") as file, Image.open(file) as image:
        found = np.asarray(decode(file, 480, "squeeze")).astype(float)
        exact = np.asarray(image.convert("RGB").resize((480, 480), Image.Resampling.LANCZOS)).astype(float)
    assert 10 * np.log10(255**2 / np.mean((found - exact) ** 2)) > 38


def test_padding_keeps_the_aspect_ratio_on_paper_of_the_same_colour(tmp_path):
    image = Image.new("RGB", (300, 600), (220, 210, 180))
    image.paste((40, 90, 50), (100, 200, 200, 400))  # a leaf twice as high as it is wide
    image.save(tmp_path / "sheet.jpg", quality=95)
    pixels = decoded(encode_image(tmp_path / "sheet.jpg", size=120, fit="pad"))
    assert pixels.shape == (120, 120, 3)
    assert np.abs(pixels[:, :28] - (220, 210, 180)).max() <= 6
    assert np.abs(pixels[:, -28:] - (220, 210, 180)).max() <= 6
    leaf = pixels[..., 0] < 130
    assert leaf.any(axis=1).sum() == pytest.approx(40, abs=2)
    assert leaf.any(axis=0).sum() == pytest.approx(20, abs=2)


@pytest.mark.parametrize("size", [(3000, 2), (1, 2500), (100, 100), (1, 1)], ids=str)
@pytest.mark.parametrize("fit", ["squeeze", "pad"])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_extreme_shapes_become_squares(tmp_path, size, fit, kind):
    Image.new("RGB", size, (120, 180, 60)).save(tmp_path / f"strip.{kind}")
    pixels = decoded(encode_image(tmp_path / f"strip.{kind}", size=64, fit=fit))
    assert pixels.shape == (64, 64, 3)
    assert np.abs(pixels - (120, 180, 60)).max() < 12


def header_only(width, height):
    return png(width, height, 8, 2, [])


def test_more_than_200_megapixels_are_refused_before_decoding(tmp_path):
    """Only the header is there, so that decoding would tell of a truncated file."""
    (tmp_path / "huge.png").write_bytes(header_only(20_000, 10_001))
    with pytest.raises(BadImage, match=r"huge\.png: .*20000 x 10001 are 200.02 megapixels, at most 200"):
        encode_image(tmp_path / "huge.png")
    (tmp_path / "large.png").write_bytes(header_only(100, 50))
    with pytest.raises(BadImage) as caught:
        encode_image(tmp_path / "large.png")
    assert "truncated" in caught.value.reason


def test_images_decoded_at_once_stay_within_the_budget():
    budget, most, holding = Budget(100), [], []
    generator = random.Random(0)
    amounts = [generator.choice([5, 30, 60, 100, 250]) for _ in range(60)]

    def work(mine):
        for amount in mine:
            with budget.hold(amount):
                holding.append(amount)
                most.append((sum(holding), len(holding)))
                holding.remove(amount)

    threads = [threading.Thread(target=work, args=(amounts[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 60
    assert all(total <= 100 or count == 1 for total, count in most)
    assert budget.used == 0


LARGE = """
import sys
from pathlib import Path
from utils.own.images import prepare_images
from utils.startup import import_tensorflow
import_tensorflow()
for image in prepare_images([Path(name) for name in sys.argv[1:]], workers=16):
    if isinstance(image, Exception):
        raise image
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # kB at most; ru_maxrss is inherited
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_sixteen_workers_on_the_largest_images_stay_below_4_gb(tmp_path):
    side = 14_000  # 196 megapixels
    paths = []

    def save(name, mode, **saving):
        paths.append(tmp_path / name)
        Image.new(mode, (side, side)).save(paths[-1], **saving)

    save("grey.jpg", "L")
    save("progressive.jpg", "CMYK", progressive=True)
    save("alpha.png", "RGBA", compress_level=1)
    save("sixteen.tif", "I;16")
    save("palette.png", "P", transparency=1, compress_level=1)
    strip = {"compression": "tiff_lzw", "tiffinfo": {278: side, 274: 6}}
    save("one_strip.tif", "CMYK", **strip)
    done = subprocess.run(
        [sys.executable, "-c", LARGE, *map(str, paths)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1]) * 1024
    print(f"peak {peak / 1e9:.2f} GB")
    assert peak < 4e9


# Bad images


def test_a_jpeg_of_endless_scans_is_refused(tmp_path):
    path, buffer = tmp_path / "scans.jpg", BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    first = buffer.getvalue().index(b"\xff\xda")
    second = buffer.getvalue().index(b"\xff\xda", first + 2)
    head, scan, rest = buffer.getvalue()[:first], buffer.getvalue()[first:second], buffer.getvalue()[second:]
    path.write_bytes(head + 600 * scan + rest)
    with pytest.raises(InputError, match=r"scans\.jpg: .*more than 500 scans"):
        encode_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0broken"], ids=str)
def test_a_broken_image_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.jpg: not a readable image"):
        encode_image(path)


@pytest.mark.parametrize("kind", ["jpg", "progressive.jpg", "png", "tif", "lzw.tif"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("size", [480, 32])  # a JPEG for 32 px is decoded at 1/4 of its size
def test_a_truncated_image_is_bad(tmp_path, make_sheet, kind, kept, size):
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    saving = {"progressive.jpg": {"progressive": True}, "lzw.tif": {"compression": "tiff_lzw"}}.get(kind, {})
    make_sheet(4, 400, 500).save(whole, **saving)
    encode_image(whole, size=size)
    cut.write_bytes(whole.read_bytes()[: int(kept * whole.stat().st_size)])
    with pytest.raises(BadImage, match="cut"):
        encode_image(cut, size=size)


def test_damage_anywhere_in_the_header_is_a_bad_image_or_a_square(tmp_path, make_sheet):
    generator = random.Random(0)
    for kind in ("jpg", "png", "tif"):
        make_sheet(5, 60, 80).save(tmp_path / f"whole.{kind}")
        whole = (tmp_path / f"whole.{kind}").read_bytes()
        path = tmp_path / f"damaged.{kind}"
        bad = 0
        for _ in range(60):
            content = bytearray(whole)
            place = generator.randrange(200) if kind != "tif" else generator.randrange(-200, 8)
            content[place] ^= 1 << generator.randrange(8)
            path.write_bytes(content)
            try:
                assert decoded(encode_image(path, size=16)).shape == (16, 16, 3)
            except BadImage:
                bad += 1
        assert bad == 60 if kind == "png" else 0 < bad < 60, kind  # PNG has checksums


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_any_byte_of_a_png_that_is_changed_or_lost_at_its_end_is_seen(tmp_path, make_sheet, mode):
    file = tmp_path / "a.png"
    make_sheet(5, 60, 40).convert(mode).save(file)
    whole = file.read_bytes()
    encode_image(file)
    hurt = [whole[:-lost] for lost in (1, 4, 11, 12, 20)]
    places = range(8, len(whole), len(whole) // 60)
    hurt += [whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :] for place in places]
    for content in hurt:
        file.write_bytes(content)
        with pytest.raises(BadImage, match=r"a\.png"):
            encode_image(file)


@pytest.mark.parametrize("values", [[0.5, 1e9], [70_000, 2**30]], ids=["float", "32 bits"])
def test_pixels_without_a_known_range_are_refused(tmp_path, values):
    dtype = np.float32 if isinstance(values[0], float) else np.int32
    Image.fromarray(np.tile(np.array(values, dtype=dtype), (20, 10))).save(tmp_path / "raw.tif")
    with pytest.raises(BadImage, match="without a known range; save it with 8 or 16 bits"):
        encode_image(tmp_path / "raw.tif")


def test_other_formats_are_named_bad(tmp_path, make_sheet):
    make_sheet(0, 30, 30).save(tmp_path / "sheet.gif")
    with pytest.raises(BadImage, match="its content is not JPEG, PNG, TIFF"):
        encode_image(tmp_path / "sheet.gif")


def test_a_file_that_cannot_be_opened_is_no_bad_image(tmp_path):
    """--skip-bad must not leave out everything when a disk goes away."""
    for path in (tmp_path, tmp_path / "absent.jpg"):
        with pytest.raises(InputError, match=r"cannot be read \(") as caught:
            encode_image(path)
        assert not isinstance(caught.value, BadImage)


# In parallel


def test_images_come_back_in_order_whatever_the_number_of_workers(tmp_path, make_sheet):
    paths = []
    for number in range(12):
        size = 400 if number == 0 else 40  # the first takes longest
        paths.append(tmp_path / f"{number}.png")
        make_sheet(number, size, size).save(paths[-1])
    alone = list(prepare_images(paths, size=32, workers=1))
    together = list(prepare_images(paths, size=32, workers=3))
    assert alone == together
    assert [image.jpeg for image in alone] == [encode_image(path, size=32) for path in paths]


def test_without_files_in_memory_the_bytes_are_the_same(tmp_path, make_sheet, monkeypatch):
    path = tmp_path / "sheet.png"
    make_sheet(0, 300, 420).save(path)
    here = encode_image(path, size=120, fit="pad")
    monkeypatch.delattr(os, "memfd_create", raising=False)  # as on macOS and Windows
    assert encode_image(path, size=120, fit="pad") == here


def test_bad_images_come_in_their_place(tmp_path, make_sheet):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        make_sheet(number, 40, 40).save(path)
    paths[3].write_bytes(b"no image")
    found = list(images.prepare_images(paths, size=16, workers=2))
    assert [isinstance(image, BadImage) for image in found] == [False, False, False, True, False]
    assert found[3].path == paths[3]
    assert found[3].reason == "its content is not JPEG, PNG, TIFF"  # for skipped.csv: without the folder


# Duplicates


def saved_again(image, scale=1.0, quality=60):
    size = (round(image.width * scale), round(image.height * scale))
    buffer = BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def prints(contents, folder):
    found = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.jpg"
        path.write_bytes(content)
        found.append(images.prepare_image(path, size=480).fingerprint)
    return packed(found)


def packed(digests):
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def sha256(contents):
    return packed([hashlib.sha256(content).digest() for content in contents])


def groups_of_copies(originals, folder):
    """Groups among five copies of each, by the number of the original."""
    variants = [(1.0, 95), (1.0, 60), (1.0, 30), (0.5, 80), (0.33, 80)]
    contents = [saved_again(image, *variant) for variant in variants for image in originals]
    groups = duplicates.duplicate_groups(sha256(contents), prints(contents, folder))
    return [(group % len(originals)).tolist() for group in groups]


def test_copies_are_found_and_different_sheets_are_not_copies(tmp_path, make_sheet):
    found = groups_of_copies([make_sheet(number, 300, 420) for number in range(12)], tmp_path)
    assert found == [[number] * 5 for number in range(12)]


def test_copies_of_real_sheets_are_found_and_no_other_pair(real_sheets, tmp_path):
    originals = []
    for path in sorted(real_sheets.glob("*.jpg")):
        with Image.open(path) as image:
            originals.append(image.convert("RGB"))
    assert groups_of_copies(originals, tmp_path) == [[number] * 5 for number in range(100)]


def test_every_pair_within_the_limit_is_found_and_no_other():
    generator = np.random.default_rng(0)
    bits = generator.random((3000, 256)) < 0.5
    wanted = set()
    for row in range(0, 200, 2):
        bits[row + 1] = bits[row]
        differing = int(generator.integers(0, 2 * duplicates.NEAR))
        bits[row + 1, generator.choice(256, differing, replace=False)] ^= True
        if differing <= duplicates.NEAR:
            wanted.add((row, row + 1))
    fingerprints = np.packbits(bits, axis=1)
    found = duplicates.near_pairs(fingerprints)
    assert {tuple(pair) for pair in found.tolist()} == wanted
    assert 30 < len(wanted) < 70
    assert duplicates.near_pairs(packed([])).shape == (0, 2)
    assert duplicates.near_pairs(fingerprints[[-2, -1, -2, -2]]).tolist() == [[0, 2], [0, 3]]


def test_groups_join_same_bytes_and_near_images():
    base = np.zeros((6, 256), dtype=bool)
    base[:3, ::2] = True  # 0, 1, 2: a chain
    base[1, :12] ^= True
    base[2, :24] ^= True
    base[3, :100] = True  # 3 and 5: the same file, as `sha256` says
    groups = duplicates.duplicate_groups(
        sha256([b"a", b"b", b"c", b"d", b"e", b"d"]), np.packbits(base, axis=1)
    )
    assert [group.tolist() for group in groups] == [[0, 1, 2], [3, 5]]
    assert duplicates.duplicate_groups(sha256([b"a"]), packed([bytes(32)])) == []
    assert duplicates.duplicate_groups(packed([]), packed([])) == []


def test_blank_images_are_not_copies_of_each_other(tmp_path):
    blank = [saved_again(Image.new("RGB", (200, 300), colour)) for colour in ("white", "tan", "black")]
    assert len(duplicates.near_pairs(prints(blank, tmp_path))) == 0


@pytest.mark.long
def test_many_fingerprints_are_compared():
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 256, (300_000, 32), dtype=np.uint8)
    bits[150_000:150_100] = bits[:100]
    pairs = duplicates.near_pairs(bits)
    assert pairs.tolist() == [[row, row + 150_000] for row in range(100)]


def test_nothing_here_imports_tensorflow():
    code = "import sys, utils.own.images, utils.own.write; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, env=os.environ)


# Damage of a PNG, which has checksums


PNG_DAMAGE = {
    "a wrong byte in the pixels": (
        lambda content: altered(content, content.index(b"IDAT") + 900),
        "IDAT chunk has a wrong",
    ),
    "zeros in the pixels": (
        lambda content: content[:900] + bytes(512) + content[1412:],
        "IDAT chunk has a wrong",
    ),
    "a wrong byte in a text": (
        lambda content: altered(content, content.index(b"tEXt") + 6),
        "tEXt chunk has a wrong",
    ),
    "a wrong byte in the header": (lambda content: altered(content, 18), "IHDR chunk has a wrong checksum"),
    "pixels cut off": (lambda content: content[: len(content) // 2], "truncated, inside its IDAT chunk"),
    "no end": (lambda content: content[:-12], "the file is truncated"),
    "a part left out": (
        lambda content: content[:900] + content[1412:],
        "wrong checksum|no chunk of a PNG|truncated",
    ),
    "line feeds made CR LF": (lambda content: content.replace(b"\n", b"\r\n"), "transferred as text"),
    "CR LF made line feeds": (lambda content: content.replace(b"\r\n", b"\n"), "transferred as text"),
    "made UTF-8": (lambda content: content.decode(errors="replace").encode(), "transferred as text"),
    "12 bits in 16": (lambda content: png(40, 30, 16, 0, [b"\x0f\xff" * 40] * 30), "above 4,095 of 65,535"),
    "12 bits in 16, RGB": (
        lambda content: png(40, 30, 16, 2, [b"\x0e\xff" * 120] * 30),
        "above 3,839 of 65,535",
    ),
}


def altered(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("name", PNG_DAMAGE)
def test_a_damaged_png_is_refused_by_its_reason(tmp_path, make_sheet, name):
    from PIL.PngImagePlugin import PngInfo

    change, reason = PNG_DAMAGE[name]
    path = tmp_path / "sheet.png"
    text = PngInfo()
    text.add_text("Comment", "a sheet")
    make_sheet(1, 120, 160).save(path, pnginfo=text)
    content = path.read_bytes()
    assert len(encode_image(path, size=16))
    path.write_bytes(content + b"bytes behind the end")
    assert len(encode_image(path, size=16))
    path.write_bytes(change(content))
    with pytest.raises(BadImage, match=rf"sheet\.png: not a readable image \(.*({reason})"):
        encode_image(path, size=16)


def test_an_interlaced_png_is_read(tmp_path):
    """Adam7 by hand, 8 x 8 pixels of one colour."""
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    rows = b"".join((b"\0" + b"\x80" * width) * height for width, height in passes)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(content)
    assert np.abs(decoded(encode_image(tmp_path / "a.png", size=16)) - 128).max() <= 1
