"""Outlines of single organs, from a species' traits: leaf blades, hands, flower heads, pods and stalks.

An outline is float64 [points, (along, across)], of length 1. Its numbers are in the bytes of every sheet: who changes
one raises GENERATOR_VERSION (utils.flora.sample).
"""

import math

import numpy as np

from utils.flora.morphology import Traits

# Leaf outlines: half width along the midrib is t^a (1 - t)^b; then width/length for narrow and wide species,
# and how far basal lobes reach back.
_SHAPES = {
    "linear": (0.45, 0.7, 0.05, 0.12, 0.0),
    "lanceolate": (0.7, 1.2, 0.17, 0.32, 0.0),
    "elliptic": (0.75, 0.75, 0.36, 0.56, 0.0),
    "ovate": (0.45, 1.0, 0.46, 0.74, 0.0),
    "obovate": (1.5, 0.5, 0.36, 0.66, 0.0),
    "cordate": (0.35, 0.9, 0.74, 1.05, 0.16),
    "round": (0.5, 0.5, 0.82, 1.1, 0.04),
    "deltoid": (0.2, 1.05, 0.6, 1.0, 0.08),
}


def between(low: float, high: float, value: float) -> float:
    """The number that lies `value` of the way from `low` to `high`: how a trait in 0..1 becomes a size."""
    return low + (high - low) * value


def _mirrored(right: list[tuple[float, float]]) -> np.ndarray:
    """A closed outline from its right side, symmetric about the midrib: float64 [points, (along, across)]."""
    return np.round(np.array(right + [(along, -across) for along, across in reversed(right)]), 4)


def blade(shape: str, traits: Traits, lobed: bool) -> np.ndarray:
    """A simple blade, entire, toothed or pinnately lobed: float64 [points, 2], base near (0, 0), tip at (1, 0)."""
    a, b, narrow, wide, back = _SHAPES[shape]
    width = between(narrow, wide, traits.leaf_width)
    width = max(width, 0.3) if lobed else width
    peak = a / (a + b)
    top = peak**a * (1 - peak) ** b

    def profile(t: float) -> float:
        return 0.5 * width * t**a * (1 - t) ** b / top

    margin = "entire" if shape == "linear" else traits.margin  # too narrow for teeth
    teeth = round(between(4, 10, traits.tooth_number))
    depth = between(0.08, 0.3, traits.tooth_size)
    outline = [(0.02, 0.015), (-back, width * 0.22)] if back else [(0.0, 0.008)]
    if lobed:
        lobes = round(between(3, 6, traits.tooth_number))
        sinus = between(0.4, 0.18, traits.tooth_size)
        for lobe in range(lobes):
            for ahead, share in ((0.2, sinus), (0.5, 0.85), (1.0, 1.1), (0.98, 0.7), (1.08, sinus)):
                t = 0.06 + 0.8 * (lobe + ahead) / lobes
                outline.append((t, share * max(profile(t), 0.06)))
    elif margin == "entire":
        outline += [(step / 9, profile(step / 9)) for step in range(1, 9)]
    else:
        steps = 2 * teeth
        for step in range(1, steps):
            t = step / steps
            if margin == "serrate":  # teeth point forwards
                forward, share = (0.5 / steps, 1 + depth) if step % 2 else (0.0, 1 - depth)
            else:
                forward, share = 0.0, 1.04 if step % 4 else 1 - depth
            outline.append((t + forward, share * profile(t)))
    return _mirrored([*outline, (1.0, 0.0)])


def hand(traits: Traits) -> np.ndarray:
    """A palmately lobed blade with 3, 5 or 7 fingers, from its base (0, 0): float64 [points, 2]."""
    fingers = 3 + 2 * round(between(0, 2, traits.tooth_number))
    sinus = between(0.62, 0.3, traits.tooth_size)
    spread = between(0.55, 0.68, traits.leaf_width) * math.pi
    points = [(0.0, 0.0)]
    for finger in range(fingers):
        angle = -spread + 2 * spread * finger / (fingers - 1)
        reach = 1 - 0.42 * abs(angle) / math.pi
        gap = spread / (fingers - 1)
        wide = between(0.3, 0.7, traits.leaf_width) * gap
        if finger:
            points.append((sinus * reach * math.cos(angle - gap), sinus * reach * math.sin(angle - gap)))
        for turn, length in ((-wide, 0.8), (0.0, 1.0), (wide, 0.8)):
            points.append((length * reach * math.cos(angle + turn), length * reach * math.sin(angle + turn)))
    outline = np.array(points) * 0.62
    return np.round(outline, 4)


def star(points: int, inner: float) -> np.ndarray:
    """A flower or a flower head seen from above, centred, of diameter 1: float64 [2 * points, 2].

    `inner` is how far the gaps between the `points` reach out, as a share of the radius; 1 makes a disc.
    """
    found = []
    for step in range(2 * points):
        radius = 0.5 if step % 2 == 0 else 0.5 * inner
        angle = math.pi * step / points
        found.append((radius * math.cos(angle), radius * math.sin(angle)))
    return np.round(np.array(found), 4)


def lens(width: float, points: int = 5) -> np.ndarray:
    """A pointed spindle of length 1 and at most `width` wide: float64 [points, 2] on both sides of its axis."""
    along = [step / points for step in range(points + 1)]
    return _mirrored([(t, 2 * width * t * (1 - t)) for t in along])


STRIP = np.array(
    [(0, 0.5), (0.33, 0.45), (0.66, 0.35), (1, 0.2), (1, -0.2), (0.66, -0.35), (0.33, -0.45), (0, -0.5)]
)
DISC = star(6, 1.0)
GRAIN = lens(0.3)
