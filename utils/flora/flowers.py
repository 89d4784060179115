"""Flowers and fruits: single ones, and the inflorescence at the end of a stem.

Every number and the order of the random draws are in the bytes of every sheet: who changes one raises
GENERATOR_VERSION (utils.flora.sample).
"""

import math

import numpy as np

from utils.flora import outlines
from utils.flora.drawing import Drawing
from utils.flora.outlines import between


def blossom(drawing: Drawing, x, y, angle, scale=1.0) -> None:
    """Flowers, or fruits in a fruiting specimen, at the points x, y; size and direction vary a little."""
    traits, rng = drawing.traits, drawing.rng
    x = np.atleast_1d(np.asarray(x, float))
    size = (
        between(20, 44, traits.flower_size) * scale * (1 + 0.12 * rng.standard_normal(len(x))).clip(0.6, 1.4)
    )
    turn = angle + 0.3 * rng.standard_normal(len(x))
    if drawing.fruiting and traits.fruit == "berry":
        drawing.stamp(outlines.DISC, x, y, turn, size * 0.95, "fruit")
    elif drawing.fruiting and traits.fruit == "pod":
        drawing.stamp(outlines.lens(0.16), x, y, turn, size * 2.3, "fruit", bend=0.25)
    elif drawing.fruiting and traits.fruit == "achene":
        drawing.stamp(outlines.star(9, 0.25), x, y, turn, size * 1.5, "pale")
        drawing.stamp(outlines.DISC, x, y, turn, size * 0.45, "fruit")
    elif drawing.fruiting:
        drawing.stamp(outlines.GRAIN, x, y, turn, size * 1.15, "fruit")
    else:
        petals = round(between(4, 7, traits.flower_number))
        drawing.stamp(outlines.star(petals, 0.5), x, y, turn, size * 1.15, "flower")
        drawing.stamp(outlines.DISC, x, y, turn, size * 0.35, "fruit")


def inflorescence(drawing: Drawing, x, y, angle, scale=1.0) -> None:
    """The species' inflorescence at the end x, y of a stem of heading `angle`; `scale` is 1 on a main stem."""
    traits, rng = drawing.traits, drawing.rng
    kind = traits.inflorescence
    many = traits.flower_number
    thin = 4.5
    if kind in ("spike", "raceme"):
        reach = scale * between(110, 230, many)
        points, headings = drawing.axis(
            x, y, angle, reach, 0.3 * rng.standard_normal(), thin, 3, "stem", steps=8
        )
        count = round(between(16, 26, many)) if kind == "spike" else round(between(8, 14, many))
        place = (np.arange(count) + 0.5) / count * 8
        low = place.astype(int).clip(0, 7)
        share = (place - low)[:, None]
        at = points[low] * (1 - share) + points[low + 1] * share
        side = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
        lean = headings[low] + side * (0.5 if kind == "spike" else 1.0)
        if kind == "spike":
            size = scale * between(20, 36, traits.flower_size)
            drawing.stamp(
                outlines.GRAIN, at[:, 0], at[:, 1], lean, size, "flower" if not drawing.fruiting else "fruit"
            )
        else:
            stalk = scale * between(18, 40, traits.petiole)
            drawing.line(at[:, 0], at[:, 1], lean, stalk, 3, "stem")
            blossom(
                drawing, at[:, 0] + stalk * np.sin(lean), at[:, 1] + stalk * np.cos(lean), lean, 0.85 * scale
            )
    elif kind == "umbel":
        rays = round(between(6, 13, many))
        reach = scale * between(50, 110, traits.petiole)
        lean = angle + np.linspace(-1.15, 1.15, rays)
        drawing.line(np.full(rays, x), np.full(rays, y), lean, reach, 3.2, "stem")
        blossom(drawing, x + reach * np.sin(lean), y + reach * np.cos(lean), lean, 0.9 * scale)
    elif kind == "panicle":
        reach = scale * between(130, 250, many)
        points, headings = drawing.axis(
            x, y, angle, reach, 0.2 * rng.standard_normal(), thin, 2.5, "stem", steps=7
        )
        for node in range(1, 7):
            for side in (-1.0, 1.0):
                lean = headings[node] + side * 0.75 + 0.1 * rng.standard_normal()
                length = reach * 0.42 * (1 - 0.11 * node)
                drawing.line(points[node, 0], points[node, 1], lean, length, 2.8, "stem")
                t = np.array([0.5, 0.78, 1.0]) * length
                blossom(
                    drawing,
                    points[node, 0] + t * np.sin(lean),
                    points[node, 1] + t * np.cos(lean),
                    lean,
                    0.6 * scale,
                )
    elif kind == "head":
        size = scale * between(56, 105, traits.flower_size)
        rays = round(between(9, 18, many))
        cx, cy = x + 0.3 * size * math.sin(angle), y + 0.3 * size * math.cos(angle)
        if drawing.fruiting:
            drawing.stamp(outlines.star(rays, 0.55), cx, cy, angle, size * 0.8, "pale")
        else:
            drawing.stamp(outlines.star(rays, 0.55), cx, cy, angle, size, "flower")
        drawing.stamp(outlines.DISC, cx, cy, angle, size * 0.46, "fruit")
        drawing.stamp(
            outlines.lens(0.34),
            x - 0.1 * size * math.sin(angle),
            y - 0.1 * size * math.cos(angle),
            angle,
            size * 0.4,
            "stem",
        )
    else:
        size = between(2.0, 3.4, traits.flower_size) * scale
        blossom(drawing, x, y, angle, size)
