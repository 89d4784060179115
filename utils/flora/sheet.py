"""Draws herbarium sheets: pressed plants on paper with label, stamp, barcode, colour bar, ruler and tape.

Plants are drawn from traits alone, everything else from the institution and the specimen alone, so the
furniture of a sheet says nothing about the species. All of it is drawn at twice the size and reduced.
Coordinates are whole pixels and colours whole numbers before Pillow sees them, which makes the bytes of a
sheet the same wherever the same Pillow runs.
"""

import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from utils.flora.drawing import Drawing, palette
from utils.flora.morphology import Traits, individual
from utils.flora.plant import draw_shoot

SIZE = 480  # pixels a side, as the published sheets
QUALITY = 95
_CANVAS = 2 * SIZE
_GRAIN_SIDE = 800
_SHADOW = [max(0, 200 - value) // 6 for value in range(256)]  # by the lightness of what casts it
_GRAIN_STRENGTHS = (7, 10, 13)


@lru_cache(maxsize=1)
def _grain(seed: int) -> list[Image.Image]:
    """Paper fibre and sensor grain about grey 128, faint to strong, larger than a sheet.

    Neighbouring pixels go together, as in a photograph that was reduced; white noise would only cost bytes.
    """
    rng = np.random.default_rng([seed, 5])
    side = _GRAIN_SIDE
    fine = Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).filter(ImageFilter.BoxBlur(1))
    coarse = Image.fromarray(rng.integers(0, 256, (side // 4, side // 4), dtype=np.uint8))
    coarse = coarse.filter(ImageFilter.BoxBlur(1)).resize((side, side), Image.Resampling.BICUBIC)
    mixed = (np.asarray(fine).astype(np.int64) - 128) * 2 + (np.asarray(coarse).astype(np.int64) - 128) // 2
    return [
        Image.fromarray((128 + mixed * strength // 128).clip(0, 255).astype(np.uint8))
        for strength in _GRAIN_STRENGTHS
    ]


@lru_cache(maxsize=1)
def _scratch() -> Image.Image:
    """The one canvas of a process: fresh memory for every sheet would cost 2 ms."""
    return Image.new("RGB", (_CANVAS, _CANVAS))


@lru_cache(maxsize=64)
def _institution(seed: int, institution: int) -> tuple[Image.Image, dict[str, int]]:
    """What all sheets of an institution share: photo background, paper, colour bar, ruler, stamp shape."""
    rng = np.random.default_rng([seed, 6, institution])
    surround = [(14, 14, 15), (28, 28, 30), (70, 70, 72), (225, 224, 220)][int(rng.integers(4))]
    paper = np.array(
        [[240, 235, 222], [246, 243, 235], [233, 225, 206], [240, 240, 235]][int(rng.integers(4))]
    )
    paper = paper + int(rng.integers(-5, 6)) + rng.integers(-2, 3, 3)
    canvas = Image.new("RGB", (_CANVAS, _CANVAS), surround)
    draw = ImageDraw.Draw(canvas)
    bar_side = int(rng.integers(3))  # top, left or bottom
    margin = [int(value) for value in rng.integers(4, 26, 4)]
    box = [margin[0], margin[1], _CANVAS - margin[2], _CANVAS - margin[3]]
    strip = int(rng.integers(46, 64))
    box[{0: 1, 1: 0, 2: 3}[bar_side]] = strip + 8 if bar_side < 2 else _CANVAS - strip - 8
    draw.rectangle(box, fill=tuple(paper.tolist()))
    draw.line([box[0], box[3], box[2], box[3], box[2], box[1]], fill=tuple((paper - 26).tolist()), width=3)

    def along(first: int, last: int, near: int, far: int, fill: tuple[int, int, int]) -> None:
        near, far = (near, far) if bar_side < 2 else (_CANVAS - far, _CANVAS - near)
        rectangle = [near, first, far, last] if bar_side == 1 else [first, near, last, far]
        draw.rectangle(rectangle, fill=fill)

    start = int(rng.integers(60, 420))
    patch = int(rng.integers(26, 40))
    colours = [(52, 92, 160), (70, 140, 80), (200, 190, 60), (180, 50, 44), (150, 60, 130), (240, 240, 240)]
    colours += [(190, 190, 190), (120, 120, 120), (60, 60, 60), (16, 16, 16)]
    along(start - 6, start + 10 * patch + 6, 6, strip - 6, (232, 232, 228))
    for number, colour in enumerate(colours):
        along(start + number * patch, start + (number + 1) * patch - 3, 10, strip // 2 + 4, colour)
    for tick in range(30):
        reach = strip - 8 if tick % 5 == 0 else strip - 13
        along(start + tick * patch // 3, start + tick * patch // 3 + 2, strip // 2 + 6, reach, (20, 20, 20))
    facts = dict(zip(("left", "top", "right", "bottom"), box, strict=True))
    ranges = {"stamp": 3, "stamp_ink": 3, "barcode_corner": 3, "stamp_corner": 2, "label_tone": 18}
    facts |= {key: int(rng.integers(count)) for key, count in ranges.items()}
    return canvas, facts


def _words(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[int, int, int, int], rows: int, ink
) -> None:
    """Lines of writing, too blurred to read: dark dashes as long as words."""
    left, top, right, bottom = box
    pitch = (bottom - top) // rows
    for row in range(rows):
        x, y = left, top + row * pitch
        end = left + (right - left) * int(rng.integers(40, 101)) // 100
        for length, gap, rise in rng.integers([8, 6, 0], [40, 11, 3], size=(10, 3)).tolist():
            if x + length > end:
                break
            draw.rectangle([x, y + rise, x + length, y + pitch * 2 // 5], fill=ink)
            x += length + gap


def _label(
    canvas: Image.Image, rng: np.random.Generator, box: list[int], paper: tuple[int, int, int], rows: int
) -> None:
    """A paper slip with writing, softened so that nothing can be read."""
    left, top, right, bottom = box
    slip = Image.new("RGB", (right - left, bottom - top), paper)
    draw = ImageDraw.Draw(slip)
    if rng.random() < 0.3:
        draw.rectangle([5, 5, right - left - 6, bottom - top - 6], outline=(110, 100, 90), width=2)
    tone = int(rng.integers(50, 110))
    _words(
        draw,
        rng,
        (14, 14, right - left - 14, bottom - top - 8),
        rows,
        (tone, tone, tone + int(rng.integers(0, 30))),
    )
    slip = slip.filter(ImageFilter.BoxBlur(2))
    ImageDraw.Draw(canvas).rectangle(
        [left + 2, top + 2, right + 2, bottom + 2], fill=tuple(c * 3 // 4 for c in paper)
    )
    canvas.paste(slip, (left, top))


def _furniture(canvas: Image.Image, rng: np.random.Generator, facts: dict[str, int]) -> None:
    """Label, slips, barcode, stamp and envelope of one specimen."""
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = (facts[key] for key in ("left", "top", "right", "bottom"))

    def corner(which: int, width: int, height: int, jitter: int = 30) -> list[int]:
        dx, dy = (int(value) for value in rng.integers(8, 8 + jitter, 2))
        x = left + dx if which % 2 == 0 else right - width - dx
        y = bottom - height - dy if which < 2 else top + dy
        return [x, y, x + width, y + height]

    tone = int(rng.integers(222, 246)) + facts["label_tone"] // 2 - 3
    width, height = int(rng.integers(260, 380)), int(rng.integers(120, 190))
    main = 1 if rng.random() < 0.8 else 0  # bottom right as a rule
    free = [which for which in range(4) if which != main]
    barcode = free.pop(facts["barcode_corner"])
    stamp = free.pop(facts["stamp_corner"])
    _label(canvas, rng, corner(main, width, height), (tone, tone - 4, tone - 14), int(rng.integers(8, 12)))
    if rng.random() < 0.4:  # a later determination
        _label(canvas, rng, corner(barcode, 210, 60, 160), (tone + 4, tone + 3, tone - 2), 4)
    if rng.random() < 0.3:  # an envelope for loose fragments
        box = corner(free[0], int(rng.integers(170, 240)), int(rng.integers(90, 150)), 60)
        fill = (tone - 8, tone - 14, tone - 32)
        draw.rectangle(box, fill=fill, outline=tuple(c - 40 for c in fill), width=2)
        flap = [box[0], box[1], (box[0] + box[2]) // 2, box[1] + 40, box[2], box[1]]
        draw.line(flap, fill=tuple(c - 30 for c in fill), width=2)

    box = corner(barcode, 150, 44, 20)
    draw.rectangle(box, fill=(245, 245, 245))
    x = box[0] + 8
    for bar, gap in rng.integers([2, 2], [6, 6], size=(18, 2)).tolist():
        draw.rectangle([x, box[1] + 6, x + bar, box[3] - 16], fill=(30, 30, 32))
        x += bar + gap

    if rng.random() < 0.8:
        box = corner(stamp, 112, 112 if facts["stamp"] == 0 else 60, 80)
        ink = [(70, 74, 110), (60, 60, 62), (130, 66, 70)][facts["stamp_ink"]]
        if facts["stamp"] == 0:
            draw.ellipse(box, outline=ink, width=4)
            draw.ellipse([box[0] + 14, box[1] + 14, box[2] - 14, box[3] - 14], outline=ink, width=2)
        elif facts["stamp"] == 1:
            middle_x, middle_y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
            draw.polygon(
                [box[0], middle_y, middle_x, box[1], box[2], middle_y, middle_x, box[3]], outline=ink, width=4
            )
        else:
            draw.rectangle(box, outline=ink, width=3)
        _words(draw, rng, (box[0] + 26, box[1] + 20, box[2] - 22, box[3] - 14), 3, ink)


def _place(
    organs: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    rng: np.random.Generator,
    box: tuple[float, ...],
) -> list[tuple[list[int], int, int | None]]:
    """Turn, mirror, scale and move a shoot into a box of the canvas, squeezed as published sheets are.

    Returns:
        Polygons (x, y, x, y, ... in pixels; fill; edge or None), in the order in which they are drawn.
    """
    points = np.concatenate([outlines.reshape(-1, 2) for outlines, _, _ in organs])
    angle = float(rng.uniform(-0.3, 0.3)) + (math.pi if rng.random() < 0.06 else 0.0)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    sine, cosine = math.sin(angle), math.cos(angle)
    x = mirror * (points[:, 0] * cosine + points[:, 1] * sine) * 1.16
    y = (points[:, 0] * sine - points[:, 1] * cosine) * 0.84
    low_x, high_x, low_y, high_y = float(x.min()), float(x.max()), float(y.min()), float(y.max())
    left, top, right, bottom = box
    fit = min((right - left) / (high_x - low_x + 1), (bottom - top) / (high_y - low_y + 1))
    scale = min(fit, 1.8) * float(rng.uniform(0.86, 1.0))
    spare_x = (right - left) - scale * (high_x - low_x)
    spare_y = (bottom - top) - scale * (high_y - low_y)
    pixels = np.empty(points.shape)
    pixels[:, 0] = (x - low_x) * scale + left + float(rng.random()) * spare_x
    pixels[:, 1] = (y - low_y) * scale + top + float(rng.random()) * spare_y
    pixels = np.rint(pixels).astype(np.int64)
    placed, start = [], 0
    for outlines, fills, edges in organs:
        count, size = outlines.shape[:2]
        part = pixels[start : start + count * size].reshape(count, 2 * size).tolist()
        start += count * size
        placed += zip(part, fills.tolist(), [None] * count if edges is None else edges.tolist(), strict=True)
    return placed


def draw_sheet(traits: Traits, institution: int, key: tuple[int, ...]) -> Image.Image:
    """Draw one specimen sheet.

    Args:
        traits: of the species.
        institution: whose paper, stamp and colour bar the sheet has.
        key: whole numbers that seed all chance of this specimen, so that sheets can be drawn in any order;
            the first is the flora's seed, which also decides what the institutions look like.

    Returns:
        An RGB image of SIZE x SIZE pixels.
    """
    # Two streams: what is around the plant does not depend on how many draws the plant took.
    paper_rng, rng = np.random.default_rng([*key, 0]), np.random.default_rng([*key, 1])
    base, facts = _institution(key[0], institution)
    canvas = _scratch()
    canvas.paste(base)
    _furniture(canvas, paper_rng, facts)
    _mount(canvas, traits, rng, facts)
    return _photograph(canvas, paper_rng, key[0])


def _mount(canvas: Image.Image, traits: Traits, rng: np.random.Generator, facts: dict[str, int]) -> None:
    """Lay one or two shoots of one specimen on the paper and tape them down."""
    specimen = individual(traits, rng)
    colours = palette(specimen, rng)
    fertile, fruiting = bool(rng.random() < 0.88), bool(rng.random() < 0.35)
    shoots = int(rng.choice([1, 1, 1, 2, 2]))
    left, top, right, bottom = (facts[side] for side in ("left", "top", "right", "bottom"))
    wide = (right - left) / shoots
    reach = 0.35 * wide if shoots > 1 else 0.0  # neighbours overlap a little
    draw = ImageDraw.Draw(canvas)
    stems = []
    for shoot in range(shoots):
        drawn = draw_shoot(Drawing(rng, specimen, colours, fertile=fertile, fruiting=fruiting))
        first, last = left + shoot * wide - reach, left + (shoot + 1) * wide + reach
        box = (max(left + 12, first), top + 16, min(right - 12, last), bottom - 16)
        organs = _place(drawn, rng, box)
        for outline, fill, edge in organs:
            draw.polygon(outline, fill, edge)
        stems.append(organs[0][0])
    for outline in stems:  # strips of gummed tape
        if rng.random() < 0.6:
            place = 2 * int(rng.integers(len(outline) // 2))
            x, y = outline[place], outline[place + 1]
            dx, dy = int(rng.integers(22, 34)), int(rng.integers(-10, 11))
            draw.line([x - dx, y - dy, x + dx, y + dy], fill=(232, 226, 208), width=9)


def _photograph(canvas: Image.Image, rng: np.random.Generator, furniture_seed: int) -> Image.Image:
    """Reduce the drawing to the sheet's size and give it soft shadows, exposure, ageing and grain."""
    image = canvas.reduce(2)
    dark = image.convert("L").reduce(3).point(_SHADOW)
    shadow = dark.filter(ImageFilter.BoxBlur(1)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    tiles = _grain(furniture_seed)
    left, top = rng.integers(_GRAIN_SIDE - SIZE + 1, size=2).tolist()
    grain = tiles[int(rng.integers(len(tiles)))].crop((left, top, left + SIZE, top + SIZE))
    grain = ImageChops.subtract(grain, shadow).convert("RGB")
    exposure, age = int(rng.integers(244, 266)), int(rng.integers(0, 20))
    # Old paper loses blue first.
    factors = [exposure + int(rng.integers(-2, 3)) - age * part // 4 for part in (1, 2, 5)]
    table = np.minimum(255, np.arange(256) * np.array(factors)[:, None] // 256).ravel().tolist()
    return ImageChops.add(image.point(table), grain, offset=-128)


def encode(image: Image.Image, size: int = SIZE) -> bytes:
    """JPEG bytes of a sheet, resized when `size` is not SIZE."""
    if size != image.width:
        image = image.resize((size, size), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


@dataclass(frozen=True)
class Task:
    """One sheet to be drawn; `key` seeds all its chance: (flora's seed, stream, species, specimen)."""

    traits: Traits
    institution: int
    size: int
    key: tuple[int, ...]


def draw_chunk(tasks: list[Task]) -> list[bytes]:
    """JPEG bytes of some sheets; what a worker process runs."""
    return [encode(draw_sheet(task.traits, task.institution, task.key), task.size) for task in tasks]
