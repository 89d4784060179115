"""What a decoder calls damage is damage, what it only grumbles at is a note, and sound JPEGs give Pillow's pixels.

Each with both decoders: simplejpeg, and TensorFlow as where that is not installed.
"""

import base64
import re
import struct
from io import BytesIO

import numpy as np
import published
import pytest
from PIL import Image

from utils.data import damage, jpeg
from utils.own import verify
from utils.own.images import BadImage, encode_image, prepare_image, read_image
from utils.own.write import write_from_labels

# A JPEG of 64 x 48 pixels made over by jpegtran: Pillow reads arithmetic coding and does not write it.
ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_EHE)NG&CP4IXyT"
    "sJT5adGXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBW?k01*fPFaS"
    "UU0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zfI!GqyTHc2vp%}8b*V1v@~fA>M&d^LB>5_oGdt*1z@5MjUjG=n)*RPol1ye"
    "cZY+48QjNmu%~Pq%Cc`pN$QV1(@y)@m?xm1ekY7|NDomV{w@$K|2*SM7L8UMr60$sP7v`rD^9X(Rx{=|LCPffVSO&(RRa@&WpfuNmB6+"
    "B|=7nu*BZ8QqIDe7VTsCVbOAdeb9tB1?uS+|*!)2);N~s=rSn5=32k)ey1O7`o%eC(N_Q_IVDBxDlKLJiR0fh6s03b{1boGm*XWTiK~2"
    "a%y>g1;v`QV)<my-dYD&m;}ZsN{9IAO)O@efmDYuGGRlC)4=<uX*b#b0Fy02aE02_2CDKj7*-R=GKlgaAP@EpIB@cg{4j&af=MJx%nM9"
    "VEqyJ*xh6R>#Iu_ln!}Uu&4zwY=oae3@<%`Z;?Fa^K`_7U3iC4(*?Dkcm$&k9R}NUKe*CucgpV3CAI((I7RpPTQI9LS=~I5cYnET7{{R"
    "94uwpffHy>2WW>3fa@7Q6z1dU(Er$v;j11CG_{26um_7KP*SK}+pd@~+|gIWs-*)<5lpm)#eNHg1<xw1@zv@pQD-n4<7(kFUfo1{Dy^#"
    "B_eJ6FPpJYO1gG@axJFA%}$E?>cMJ)08rc1T%n?3cp!94W!J7;M}xx>E{<dirX^F|ER1$ph+Yr<pgbOrqYV!2j6"
)


@pytest.fixture(params=["simplejpeg", "TensorFlow"])
def decoder(request, monkeypatch):
    if request.param == "TensorFlow":
        monkeypatch.setattr(jpeg, "simplejpeg", None)  # as where it is not installed
    return request.param


def encoded(image, **saving):
    buffer = BytesIO()
    image.save(buffer, saving.pop("format", "JPEG"), **{"quality": 92, **saving})
    return buffer.getvalue()


@pytest.fixture(scope="module")
def plain(make_sheet):
    return encoded(make_sheet(1, 300, 400))


@pytest.fixture(scope="module")
def progressive(make_sheet):
    return encoded(make_sheet(1, 300, 400), progressive=True)


def behind_header(content):
    """Where the data of the first scan begin."""
    scan = content.index(b"\xff\xda")
    return scan + 2 + struct.unpack(">H", content[scan + 2 : scan + 4])[0]


def zeros(content, count):
    middle = (behind_header(content) + len(content)) // 2
    return content[:middle] + bytes(count) + content[middle + count :]


def swapped(content, size):
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    one, other = len(blocks) // 3, 2 * len(blocks) // 3
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def wrong_bytes(content):
    """40 of them, none of which makes or breaks a marker."""
    changed = bytearray(content)
    generator = np.random.default_rng(0)
    for at in generator.integers(behind_header(content), len(content) - 2, 40):
        if 0xFF not in content[at - 1 : at + 1]:
            changed[at] = generator.integers(0, 255)
    return bytes(changed)


def before(marker, some):
    return lambda content: content.replace(marker, some + marker, 1)


def before_end(some):
    return lambda content: content[:-2] + some + content[-2:]


DAMAGE = {
    "half, with an end marker": (lambda content: content[: len(content) // 2] + b"\xff\xd9", "premature end"),
    "half": (lambda content: content[: len(content) // 2], "truncated"),
    "no end marker": (lambda content: content[:-2], "truncated"),
    "zeros in the place of a block": (lambda content: zeros(content, 512), "premature end|are zeros"),
    "zeros in the place of many": (lambda content: zeros(content, 9000), "premature end|are zeros"),
    "zeros up to the end": (lambda content: content[: len(content) // 2] + bytes(len(content) // 2), "."),
    "a block left out": (lambda content: content[:9000] + content[9512:], "Corrupt JPEG data"),
    "blocks swapped": (lambda content: swapped(content, 512), "Corrupt JPEG data|marker"),
    "wrong bytes": (wrong_bytes, "Corrupt JPEG data|marker"),
    "line feeds made CR LF": (lambda content: content.replace(b"\n", b"\r\n"), "transferred as text"),
    "made UTF-8": (lambda content: content.decode(errors="replace").encode(), "transferred as text"),
    "no table": (lambda content: content.replace(b"\xff\xdb", b"\xff\xee"), "[Qq]uantization table|refuses"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_by_its_reason_in_a_file_and_in_a_shard(tmp_path, plain, decoder, name):
    change, reason = DAMAGE[name]
    content = change(plain)
    path = tmp_path / "sheet.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=rf"sheet\.jpg: not a readable image \(.*({reason})"):
        encode_image(path, size=64)
    records = [published.example(published.train_features(0, 16) | {"image": published.bytes_list(content)})]
    shard = published.write_shard(tmp_path, "train", records)
    (problem,) = verify.verify([shard])
    assert re.search(
        rf"record 0 at byte 0: has an image that is not a whole JPEG \(.*({reason}|refuses)", problem
    )
    (bad,) = damage.bad_records([shard])
    assert bad.position == 0 and "has an image that is not a whole JPEG (" in str(bad)


def test_a_jpeg_without_a_scan_is_damaged(plain, decoder):
    """Zeros from the header to the end marker: nothing is left to tell stray bytes from."""
    with pytest.raises(jpeg.Damaged, match="Corrupt JPEG data"):
        jpeg.examine(plain.partition(b"\xff\xda")[0] + bytes(20_000) + b"\xff\xd9")


def scans(content):
    return [match.start() for match in re.finditer(rb"\xff[\xc4\xda]", content)]


PROGRESSIVE_DAMAGE = {
    "half, with an end marker": lambda content: content[: len(content) // 2] + b"\xff\xd9",
    "its last scan left out": lambda content: content[: scans(content)[-2]] + b"\xff\xd9",
    "zeros in the place of many": lambda content: zeros(content, 4096),
    "blocks swapped": lambda content: swapped(content, 4096),
    "text mode": lambda content: content.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", PROGRESSIVE_DAMAGE)
def test_damage_of_a_progressive_jpeg_is_refused(progressive, decoder, name):
    assert jpeg.examine(progressive) == ""
    with pytest.raises(jpeg.Damaged):
        jpeg.examine(PROGRESSIVE_DAMAGE[name](progressive))


HARMLESS = {
    "padding before a table": (before(b"\xff\xdb", bytes(3)), "3 stray bytes in the header"),
    "bytes before the scan": (before(b"\xff\xda", b"ab"), "2 stray bytes in the header"),
    "JFIF 2.01": (lambda content: content.replace(b"JFIF\0\1\1", b"JFIF\0\2\1"), "JFIF 2.01"),
    "zeros before the end": (before_end(bytes(100)), "stray bytes before the end marker"),
    "text before the end": (before_end(b"a camera's name"), "stray bytes before the end marker"),
    "other bytes before the end": (before_end(bytes(range(16, 56))), "stray bytes before the end marker"),
    "scan of another kind": (lambda content: content.replace(b"\0\x3f\0", bytes(3), 1), "scan parameters"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_costs_no_pixel_is_a_note_and_damage_behind_it_is_found(tmp_path, plain, decoder, name):
    change, note = HARMLESS[name]
    (tmp_path / "plain.jpg").write_bytes(plain)
    (tmp_path / "odd.jpg").write_bytes(change(plain))
    stored, told = read_image(tmp_path / "odd.jpg", size=64)
    assert note in told
    assert (
        stored
        == encode_image(tmp_path / "plain.jpg", size=64)
        == prepare_image(tmp_path / "odd.jpg", size=64).jpeg
    )
    features = published.train_features(0, 16)
    records = [published.example(features | {"image": published.bytes_list(change(plain))})]
    notes = []
    assert verify.verify([shard := published.write_shard(tmp_path, "train", records)], notes=notes) == []
    assert len(notes) == 1 and notes[0].startswith(f"{shard}: record 0: ") and note in notes[0]
    assert list(damage.bad_records([shard])) == []
    with pytest.raises(jpeg.Damaged):
        jpeg.examine(change(zeros(plain, 512)))


def test_notes_and_damage_are_told_by_writing(tmp_path, plain):
    images = tmp_path / "images"
    images.mkdir()
    contents = [plain, HARMLESS["JFIF 2.01"][0](plain), DAMAGE["half, with an end marker"][0](plain)]
    for number, content in enumerate(contents):
        (images / f"{number}.jpg").write_bytes(content)
    table = tmp_path / "labels.csv"
    table.write_text("file_name,scientificName\n0.jpg,Zea mays\n1.jpg,Zea mays\n2.jpg,Abies alba\n")
    written = write_from_labels(table, images, tmp_path / "out", size=32, skip_bad=True, progress=False)
    assert written.notes[:2] == [
        "1 of 3 images were left out, see skipped.csv.",
        "1 images have flaws that cost no pixel (1.jpg: JFIF 2.01).",
    ]
    assert (
        "2.jpg,Corrupt JPEG data: premature end of data segment"
        in (tmp_path / "out" / "skipped.csv").read_text()
    )


def ycck(image):
    content = bytearray(encoded(image.convert("CMYK")))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


def with_thumbnail(image):
    """EXIF with a JPEG inside, whose end marker is not that of the image."""
    small = encoded(image.resize((16, 12)))
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\x0e\0\0\0" + struct.pack("<H", 2)
    exif += struct.pack("<HHIIHHII", 513, 4, 1, 44, 514, 4, 1, len(small)) + bytes(4)
    return encoded(image, exif=exif + small)


SOUND = {
    "baseline": encoded,
    "grey": lambda image: encoded(image.convert("L")),
    "4:4:4": lambda image: encoded(image, subsampling=0),
    "4:2:2": lambda image: encoded(image, subsampling=1),
    "best tables": lambda image: encoded(image, optimize=True),
    "blank, best tables": lambda image: encoded(Image.new("RGB", (900, 1200), "white"), optimize=True),
    "progressive": lambda image: encoded(image, progressive=True),
    "blank and progressive": lambda image: encoded(Image.new("L", (900, 1200), 90), progressive=True),
    "restart markers": lambda image: encoded(image, restart_marker_blocks=4),
    "restart markers, progressive": lambda image: encoded(image, restart_marker_rows=1, progressive=True),
    "CMYK": lambda image: encoded(image.convert("CMYK")),
    "CMYK, progressive": lambda image: encoded(image.convert("CMYK"), progressive=True),
    "YCCK": ycck,
    "RGB without YCbCr": lambda image: encoded(image, keep_rgb=True),
    "MPO": lambda image: encoded(image, format="MPO", save_all=True, append_images=[image.rotate(180)]),
    "arithmetic": lambda image: ARITHMETIC,
    "bytes behind the end": lambda image: encoded(image) + b"\xff\xd8\xff" + bytes(900),
    "a thumbnail inside": with_thumbnail,
    "a comment of zeros": lambda image: encoded(image, comment=bytes(2000)),
    "fill bytes": lambda image: before(b"\xff\xdb", b"\xff" * 5)(encoded(image)),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("size", [160, 64, 24])  # decoded whole, at 1/2 and at 1/8
def test_sound_jpegs_have_no_note_and_the_bytes_that_pillow_gives(tmp_path, make_sheet, decoder, name, size):
    content = SOUND[name](make_sheet(2, 203, 305))
    (tmp_path / "sheet.jpg").write_bytes(content)
    stored, note = read_image(tmp_path / "sheet.jpg", size=size)
    assert note == ""
    with Image.open(BytesIO(content)) as image:
        times = 2 if min(image.size) >= 4 * size else 1
        image.draft(None, (times * size, times * size))
        small = image.resize((size, size), Image.Resampling.LANCZOS).convert("RGB")
        small.info.clear()
    assert stored == encoded(small, quality=95)


def test_what_others_print_meanwhile_is_not_lost(plain, monkeypatch, capfd):
    import os

    import tensorflow as tf

    monkeypatch.setattr(jpeg, "simplejpeg", None)
    decode = tf.io.decode_jpeg

    def printing(*arguments, **options):
        os.write(2, b"of another thread\n")
        return decode(*arguments, **options)

    monkeypatch.setattr(tf.io, "decode_jpeg", printing)
    with pytest.raises(jpeg.Damaged, match="premature end of data segment"):
        jpeg.examine(DAMAGE["half, with an end marker"][0](plain))
    assert capfd.readouterr().err == "of another thread\n"


def test_most_wrong_order_is_told_from_stray_bytes(make_sheet):
    """Blocks of a real-looking sheet swapped: where the image is full too early, what is left is its own data."""
    generator = np.random.default_rng(1)
    content = encoded(make_sheet(3, 600, 800).convert("L"))
    start, told = behind_header(content) // 512 + 1, 0
    for _ in range(40):
        one, other = sorted(generator.choice(np.arange(start, len(content) // 512), 2, replace=False) * 512)
        changed = bytearray(content)
        changed[one : one + 512], changed[other : other + 512] = (
            content[other : other + 512],
            content[one : one + 512],
        )
        try:
            assert jpeg.examine(bytes(changed)) == ""
        except jpeg.Damaged:
            told += 1
    assert told >= 24
