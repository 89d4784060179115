"""Leaves: one by one with petiole, blade and veins, and in their order along a stem.

Every number and the order of the random draws are in the bytes of every sheet: who changes one raises
GENERATOR_VERSION (utils.flora.sample).
"""

import numpy as np

from utils.flora import outlines
from utils.flora.drawing import Drawing
from utils.flora.outlines import between


def leaves(drawing: Drawing, x, y, angle, length) -> None:
    """Leaves with petioles at the given points, of the species' form: x, y, angle (clockwise from upwards), float [N].

    `length` in pixels, a number or float [N], is varied by a tenth.
    """
    traits, rng = drawing.traits, drawing.rng
    count = len(x)
    angle = angle + 0.16 * rng.standard_normal(count)
    length = length * (1 + 0.1 * rng.standard_normal(count)).clip(0.6, 1.4)
    bend = 0.16 * rng.standard_normal(count)
    if traits.growth in ("rosette", "climber"):
        stalk = between(0.15, 0.8, traits.petiole)
    else:
        stalk = between(0.0, 0.3, traits.petiole)
    if stalk > 0.04:
        drawing.line(x, y, angle, length * stalk, 4 + length * 0.015, "stem")
        x = x + np.sin(angle) * length * stalk * 0.97
        y = y + np.cos(angle) * length * stalk * 0.97
    fold = np.where(rng.random(count) < 0.25, rng.random(count), 1.0)
    division, shape = traits.leaf_division, traits.leaf_shape
    if division == "palmate":
        drawing.stamp(
            outlines.hand(traits), x, y, angle, length * 1.25, "leaf", bend=0.3 * bend, fold=0.4 + 0.6 * fold
        )
        for turn in (-0.75, 0.0, 0.75):
            drawing.line(x, y, angle + turn, length * (0.62 - 0.12 * abs(turn)), 3, "vein")
        return
    if division == "trifoliate":
        outline = outlines.blade(shape, traits, False)
        for turn, size in ((-1.15, 0.6), (1.15, 0.6), (0.0, 0.68)):
            _veined(drawing, outline, x, y, angle + turn, length * size, bend, fold)
        return
    if division == "pinnate":
        pairs = round(between(3, 8, traits.leaf_number))
        reach = 1.35 * length
        drawing.line(x, y, angle, reach, 4, "stem", bend=bend)
        outline = outlines.blade(shape, traits, False)
        t = (np.arange(pairs) + 0.6) / pairs
        mid_x = x[:, None] + reach[:, None] * (
            t * np.sin(angle)[:, None] + (bend[:, None] * t * t) * np.cos(angle)[:, None]
        )
        mid_y = y[:, None] + reach[:, None] * (
            t * np.cos(angle)[:, None] - (bend[:, None] * t * t) * np.sin(angle)[:, None]
        )
        size = reach[:, None] * min(0.42, 1.5 / pairs + 0.08) * (1 - 0.35 * t)
        for side in (-1, 1):
            lean = (angle[:, None] + side * (1.15 - 0.35 * t)).ravel()
            _veined(drawing, outline, mid_x.ravel(), mid_y.ravel(), lean, size.ravel(), 0.0, None)
        tip = reach * 0.99
        _veined(
            drawing, outline, x + tip * np.sin(angle), y + tip * np.cos(angle), angle, reach * 0.24, 0.0, None
        )
        return
    _veined(drawing, outlines.blade(shape, traits, division == "pinnatifid"), x, y, angle, length, bend, fold)


def _veined(drawing: Drawing, outline, x, y, angle, length, bend, fold) -> None:
    """Simple blades or leaflets, with their midrib."""
    drawing.stamp(outline, x, y, angle, length, "leaf", bend=bend, fold=fold)
    if drawing.traits.venation != "parallel":
        drawing.line(x, y, angle, length * 0.92, 2.4 + 0.008 * length, "vein", bend=bend)
    else:
        for offset in (-0.07, 0.07):
            drawing.line(x, y, angle + offset, length * 0.85, 2.2, "vein", bend=bend)


def along(drawing: Drawing, points, headings, count, first, last, length, angle, shrink=0.5) -> None:
    """Leaves along a stem from share `first` to share `last` of it, smaller towards the tip by `shrink`.

    `points` [P, 2] and `headings` [P] are what `Drawing.axis` gives; `count` is of alternate leaves, others stand
    in fewer nodes; `angle` is between stem and leaf.
    """
    arrangement = drawing.traits.arrangement
    if drawing.traits.growth == "climber" and arrangement == "whorled":
        arrangement = "opposite"
    each = {"alternate": 1, "opposite": 2, "whorled": 4}[arrangement]
    nodes = max(2, count if each == 1 else round(count / (1.6 if each == 2 else 2.6)))
    node = np.repeat(np.arange(nodes), each)
    place = first + (last - first) * (node + 0.3) / nodes
    if each == 1:
        side = np.where(np.arange(nodes) % 2 == 0, 1.0, -1.0)
    elif each == 2:
        side = np.tile([1.0, -1.0], nodes)
    else:
        side = np.tile([1.0, -1.0, 0.42, -0.42], nodes)
    place = place * (len(points) - 1)
    low = np.minimum(place.astype(int), len(points) - 2)
    share = (place - low)[:, None]
    at = points[low] * (1 - share) + points[low + 1] * share
    size = length * (1 - shrink * (node / nodes))
    leaves(drawing, at[:, 0], at[:, 1], headings[low] + side * angle * (1 - 0.25 * node / nodes), size)
