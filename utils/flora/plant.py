"""Pressed plants: how the organs of one shoot are put together, one function a growth form.

Every number and the order of the random draws are in the bytes of every sheet: who changes one raises
GENERATOR_VERSION (utils.flora.sample).
"""

import math

import numpy as np

from utils.flora import outlines
from utils.flora.drawing import Drawing
from utils.flora.flowers import blossom, inflorescence
from utils.flora.leaves import along, leaves
from utils.flora.outlines import between


def _leaf_length(drawing: Drawing) -> float:
    return between(70, 190, drawing.traits.leaf_length)


def _roots(drawing: Drawing, x: float, y: float, count: int) -> None:
    rng = drawing.rng
    for _ in range(count):
        angle = math.pi + 0.6 * float(rng.standard_normal())
        drawing.axis(
            x, y, angle, float(rng.uniform(40, 120)), float(rng.normal(0, 0.8)), 4, 1.5, "root", 0.12, 8
        )


def _herb(drawing: Drawing) -> None:
    traits, rng = drawing.traits, drawing.rng
    height = between(430, 760, traits.stature)
    _roots(drawing, 0, 0, int(rng.integers(2, 6)))
    turn = float(rng.normal(0, between(0.1, 0.5, traits.curvature)))
    thick = between(8, 18, traits.stem_width)
    points, headings = drawing.axis(0, 0, 0, height, turn, thick, 5, "stem", 0.03)
    angle = between(0.5, 1.3, traits.leaf_angle)
    count = round(between(6, 18, traits.leaf_number))
    shoots = (
        round(between(0, 4, traits.branching)) if drawing.fertile else round(between(0, 2, traits.branching))
    )
    for shoot in range(shoots):
        node = 10 - 2 * (shoot // 2) + shoot % 2
        side = 1 if shoot % 2 else -1
        ends, leans = drawing.axis(
            *points[node], headings[node] + side * 0.65, height * 0.3, -side * 0.35, 6, 4, "stem"
        )
        along(drawing, ends, leans, max(3, count // 4), 0.2, 0.85, 0.45 * _leaf_length(drawing), angle)
        if drawing.fertile:
            inflorescence(drawing, *ends[-1], float(leans[-1]), 0.75)
    if drawing.fertile:
        inflorescence(drawing, *points[-1], float(headings[-1]))
    along(drawing, points, headings, count, 0.08, 0.9, _leaf_length(drawing), angle, 0.55)


def _twig(drawing: Drawing) -> None:
    traits, rng = drawing.traits, drawing.rng
    length = between(430, 680, traits.stature)
    thick = between(14, 30, traits.stem_width)
    points, headings = drawing.axis(0, 0, 0, length, float(rng.normal(0, 0.4)), thick, 7, "wood", 0.07)
    angle = between(0.45, 1.25, traits.leaf_angle)
    count = round(between(6, 15, traits.leaf_number))
    size = _leaf_length(drawing) * 0.85
    shoots = round(between(1, 5, traits.branching))
    stems = [(points, headings, 0.35)]
    for shoot in range(shoots):
        node = 4 + 2 * shoot
        side = 1 if shoot % 2 else -1
        reach = length * (0.55 - 0.06 * shoot)
        lean = headings[node] + side * float(rng.uniform(0.45, 0.85))
        stems.append(
            (*drawing.axis(*points[node], lean, reach, -side * 0.3, thick * 0.55, 5, "wood", 0.06), 0.25)
        )
    for ends, leans, first in stems:
        if drawing.fertile:
            if traits.inflorescence in ("solitary", "head") or (drawing.fruiting and traits.fruit == "berry"):
                node = np.array([7, 9, 11, 13, 15])
                side = np.where(np.arange(5) % 2 == 0, 0.9, -0.9)
                lean = leans[node] + side
                drawing.line(ends[node, 0], ends[node, 1], lean, 26, 4, "wood")
                blossom(
                    drawing, ends[node, 0] + 30 * np.sin(lean), ends[node, 1] + 30 * np.cos(lean), lean, 1.2
                )
            else:
                inflorescence(drawing, *ends[-1], float(leans[-1]), 0.7)
        along(
            drawing, ends, leans, count if first > 0.3 else round(count * 0.7), first, 1.0, size, angle, 0.3
        )


def _grass(drawing: Drawing) -> None:
    """A tuft with bare culms, or, in species whose leaves are not alternate, leafy reeds."""
    traits, rng = drawing.traits, drawing.rng
    reed = traits.arrangement != "alternate"
    height = between(520, 800, traits.stature)
    _roots(drawing, 0, 0, 6)
    broad = {"linear": 0.6, "lanceolate": 1.0, "elliptic": 1.2}.get(traits.leaf_shape, 1.5)
    width = broad * between(9, 28, traits.leaf_width)
    fan = between(0.15, 0.5, traits.leaf_angle)
    blades = round(between(2, 5, traits.leaf_number) if reed else between(8, 24, traits.leaf_number))
    for _ in range(blades):
        lean = float(rng.normal(0, fan))
        reach = height * between(0.3, 0.75, traits.leaf_length) * float(rng.uniform(0.7, 1.2))
        turn = lean * between(0.2, 2.2, traits.curvature)
        drawing.axis(float(rng.normal(0, 9)), 0, lean, reach, turn, width, 1.5, "leaf", 0.02, 10)
    leaf = height * between(0.2, 0.42, traits.leaf_length)
    leaves = round(between(3, 7, traits.leaf_number)) if reed else 1
    out = between(0.35, 1.1, traits.leaf_angle)
    for _ in range(1 + round(between(0, 4, traits.branching))):
        lean = float(rng.normal(0, 0.6 * fan))
        reach = height * float(rng.uniform(0.65, 0.95))
        points, headings = drawing.axis(0, 0, lean, reach, 0.5 * lean, 9, 5, "stem", 0.02)
        side = 1 if rng.random() < 0.5 else -1
        for number in range(leaves):
            node = 3 + number * 11 // leaves if reed else int(rng.integers(5, 9))
            angle = float(headings[node]) + side * out
            drawing.axis(*points[node], angle, leaf, side * 0.5, 0.8 * width, 1.5, "leaf", 0, 8)
            side = -side
        if drawing.fertile:
            inflorescence(drawing, *points[-1], float(headings[-1]), 1.1)


def _rosette(drawing: Drawing) -> None:
    traits, rng = drawing.traits, drawing.rng
    _roots(drawing, 0, 0, 4)
    drawing.axis(
        0, 8, math.pi, 70, float(rng.normal(0, 0.4)), between(12, 34, traits.stem_width), 4, "root", 0.05, 8
    )
    height = between(300, 640, traits.stature)
    if drawing.fertile:
        for _ in range(1 + round(between(0, 3, traits.branching))):
            lean = float(rng.normal(0, 0.25))
            turn = float(rng.normal(0, between(0.1, 0.6, traits.curvature)))
            points, headings = drawing.axis(
                0, 0, lean, height * float(rng.uniform(0.8, 1.1)), turn, 8, 5, "stem", 0.02
            )
            inflorescence(drawing, *points[-1], float(headings[-1]), 1.1)
    count = round(between(6, 16, traits.leaf_number))
    reach = between(1.0, 1.7, traits.leaf_angle)
    angle = np.linspace(-reach, reach, count) + 0.1 * rng.standard_normal(count)
    leaves(
        drawing,
        6 * rng.standard_normal(count),
        4 * rng.standard_normal(count),
        angle,
        np.full(count, 1.25 * _leaf_length(drawing)),
    )


def _fern(drawing: Drawing) -> None:
    traits, rng = drawing.traits, drawing.rng
    fronds = 1 + round(between(0, 2.4, traits.branching))
    _roots(drawing, 0, 0, 5)
    pairs = round(between(9, 20, traits.leaf_number))
    wide = between(90, 260, traits.leaf_length)
    lobed = traits.leaf_division in ("pinnate", "pinnatifid", "palmate")
    shape = "lanceolate" if traits.leaf_shape in ("linear", "lanceolate", "elliptic") else "deltoid"
    ratio = between(0.45, 1.1, traits.leaf_width) * (1.0 if shape == "lanceolate" else 0.6)
    outline = outlines.blade(shape, traits, lobed) * (1.0, ratio)
    for frond in range(fronds):
        lean = float(rng.normal(0, 0.12)) + (frond - (fronds - 1) / 2) * 0.5
        height = between(480, 780, traits.stature) * float(rng.uniform(0.85, 1.1))
        turn = float(rng.normal(0, between(0.1, 0.5, traits.curvature)))
        points, headings = drawing.axis(
            0, 0, lean, height, turn, between(7, 14, traits.stem_width), 3, "stem", 0.01, 24
        )
        bare = between(0.12, 0.42, traits.petiole)
        t = np.arange(pairs) / pairs
        place = (bare + (0.99 - bare) * t) * 24
        low = np.minimum(place.astype(int), 23)
        share = (place - low)[:, None]
        at = points[low] * (1 - share) + points[low + 1] * share
        # A triangular frond is widest at its base, a lance-shaped one in the middle.
        middle = between(0.0, 0.55, traits.tooth_size)
        profile = np.where(
            t < middle, 0.35 + 0.65 * t / (middle + 0.01), 1 - 0.92 * (t - middle) / (1 - middle)
        )
        length = wide * profile
        lean_out = between(0.9, 1.5, traits.leaf_angle)
        for side in (-1, 1):
            angle = headings[low] + side * lean_out + 0.05 * rng.standard_normal(pairs)
            bend = np.full(pairs, -side * 0.12)
            if traits.leaf_division == "trifoliate":  # twice divided: leaflets along each pinna
                drawing.line(at[:, 0], at[:, 1], angle, length, 3, "stem", bend=bend)
                for step in range(1, 6):
                    sx = at[:, 0] + length * step / 5.5 * np.sin(angle)
                    sy = at[:, 1] + length * step / 5.5 * np.cos(angle)
                    for way in (-1, 1):
                        drawing.stamp(
                            outlines.lens(0.45),
                            sx,
                            sy,
                            angle + way * 1.0,
                            length * 0.24 * (1.15 - step / 8),
                            "leaf",
                        )
            else:
                drawing.stamp(outline, at[:, 0], at[:, 1], angle, length, "leaf", bend=bend)
                drawing.line(at[:, 0], at[:, 1], angle, length * 0.9, 2.5, "vein", bend=bend)
                if drawing.fertile and drawing.fruiting:
                    for step in (0.3, 0.5, 0.7):
                        drawing.stamp(
                            outlines.DISC,
                            at[:, 0] + length * step * np.sin(angle),
                            at[:, 1] + length * step * np.cos(angle),
                            angle,
                            7,
                            "fruit",
                        )


def _climber(drawing: Drawing) -> None:
    traits, rng = drawing.traits, drawing.rng
    length = between(800, 1250, traits.stature)
    bow = float(rng.choice([-1.0, 1.0])) * between(1.8, 3.6, traits.curvature)
    points, headings = drawing.axis(
        0, 0, -bow * 0.35, length, bow, between(6, 13, traits.stem_width), 3, "stem", 0.16, 24
    )
    count = round(between(7, 17, traits.leaf_number))
    if drawing.fertile:
        for node in range(5, 22, 22 // (2 + round(between(1, 4, traits.branching)))):
            side = 1 if node % 2 else -1
            ends, leans = drawing.axis(
                *points[node], headings[node] + side * 1.0, 60, 0, 4, 3, "stem", 0.02, 4
            )
            inflorescence(drawing, *ends[-1], float(leans[-1]), 0.5)
    for node in range(3, 24, 5):
        side = -1 if node % 2 else 1
        drawing.axis(*points[node], headings[node] + side * 0.7, 90, side * 5.0, 2.6, 2, "stem", 0.02, 12)
    along(
        drawing,
        points,
        headings,
        count,
        0.03,
        0.98,
        0.85 * _leaf_length(drawing),
        between(0.6, 1.4, traits.leaf_angle),
        0.45,
    )


_FORMS = {
    "climber": _climber,
    "fern": _fern,
    "grass": _grass,
    "herb": _herb,
    "rosette": _rosette,
    "twig": _twig,
}


def draw_shoot(drawing: Drawing) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Draw one shoot of the specimen's growth form, from its base at (0, 0) upwards.

    Returns:
        Groups of organs in the order in which they lie on each other: corners float64 [N, points, (x, y)] in pixels
        of the canvas, y upwards; fills int64 [N] and edges int64 [N] or None, as Pillow takes an RGB colour.
    """
    _FORMS[drawing.traits.growth](drawing)
    return drawing.organs
