"""What every organ is drawn with: copies of outlines, stalks and stems as polygons, in dried colours.

Who changes a number or the order of the random draws raises GENERATOR_VERSION (utils.flora.sample).
"""

import numpy as np

from utils.flora import outlines
from utils.flora.morphology import Traits

_SHADES = 29  # an organ is up to 14 grey levels lighter or darker than its part's tone


class Drawing:
    """Polygons of one pressed shoot in its own frame (pixels of the canvas, y upwards)."""

    def __init__(
        self,
        rng: np.random.Generator,
        traits: Traits,
        palette: dict[str, np.ndarray],
        *,
        fertile: bool,
        fruiting: bool,
    ) -> None:
        """Begin a shoot without organs.

        Args:
            rng: of all chance of the specimen.
            traits: of the specimen.
            palette: from `palette`.
            fertile: whether it has flowers or fruits.
            fruiting: whether these are fruits.
        """
        self.rng = rng
        self.traits = traits
        self.palette = palette
        self.fertile, self.fruiting = fertile, fruiting
        self.organs: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
        self.shades = rng.integers(_SHADES, size=8192)
        self.used = 0

    def colours(self, part: str, count: int) -> np.ndarray:
        """Packed colours of `count` organs: one dried tone, each a little lighter or darker."""
        start = self.used % (len(self.shades) - count)
        self.used += count
        return self.palette[part][self.shades[start : start + count]]

    def stamp(self, outline, x, y, angle, length, part, *, width=1.0, bend=0.0, fold=None) -> None:
        """Place copies of an outline at points x, y.

        Scalars or arrays of one length: `angle` is clockwise from upwards, `length` in pixels, `width`
        and `bend` shares of the length; `fold` (0 to 1) is how much one side of a folded leaf shows.
        """
        x, y, angle, length, width, bend = (
            value[:, None] if isinstance(value, np.ndarray) else value
            for value in (x, y, angle, length, width, bend)
        )
        along, across = outline[:, 0], outline[:, 1]
        if fold is not None:
            across = np.where(across < 0, across * fold[:, None], across)
        side = (across * width + bend * (along * along)) * length
        ahead = along * length
        sine, cosine = np.sin(angle), np.cos(angle)
        px = x + ahead * sine + side * cosine
        py = y + ahead * cosine - side * sine
        count = px.shape[0] if px.ndim == 2 else 1
        points = np.empty((count, len(outline), 2))
        points[..., 0] = px
        points[..., 1] = py
        fills = self.colours(part, count)
        self.organs.append((points, fills, self.colours("edge", count) if part == "leaf" else None))

    def line(self, x, y, angle, length, thickness, part, bend=0.0) -> None:
        """Tapering straight or bent stalks; `thickness` in pixels at the base."""
        length = np.maximum(length, 1.0)
        self.stamp(outlines.STRIP, x, y, angle, length, part, width=thickness / length, bend=bend)

    def axis(
        self, x, y, angle, length, turn, thick, thin, part, wiggle=0.0, steps=16
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw a curved, tapering stem. Returns its points [steps + 1, 2] and headings [steps + 1]."""
        t = np.arange(steps + 1) / steps
        heading = angle + turn * t
        if wiggle:
            heading += wiggle * np.cumsum(self.rng.standard_normal(steps + 1))
        sine, cosine = np.sin(heading), np.cos(heading)
        points = np.empty((steps + 1, 2))
        points[0] = x, y
        points[1:, 0] = x + np.cumsum(sine[:-1]) * (length / steps)
        points[1:, 1] = y + np.cumsum(cosine[:-1]) * (length / steps)
        half = 0.5 * (thick + (thin - thick) * t)
        outline = np.empty((1, 2 * steps + 2, 2))
        outline[0, : steps + 1, 0] = points[:, 0] + cosine * half
        outline[0, : steps + 1, 1] = points[:, 1] - sine * half
        outline[0, :steps:-1, 0] = points[:, 0] - cosine * half
        outline[0, :steps:-1, 1] = points[:, 1] + sine * half
        self.organs.append((outline, self.colours(part, 1), None))
        return points, heading


def palette(traits: Traits, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Dried colours of one specimen: olive to brown, dark to straw; flowers and wood apart.

    Returns:
        {part: packed RGB as Pillow takes it, int64 [29], dark to light}.
    """
    olive, brown = np.array([96, 98, 58]), np.array([112, 80, 50])
    mix = round(64 * traits.hue)
    leaf = (olive * (64 - mix) + brown * mix) // 64 + round(70 * (traits.lightness - 0.5))
    tone = round(64 * traits.flower_tone)
    flower = (np.array([104, 62, 66]) * (64 - tone) + np.array([206, 176, 112]) * tone) // 64
    shift = rng.integers(-10, 11, 3)
    tones = {
        "leaf": leaf + shift,
        "edge": leaf + shift - 30,
        "vein": leaf + shift + 26,
        "stem": leaf + shift + np.array([14, 4, -6]),
        "wood": np.array([92, 74, 58]) + rng.integers(-14, 15),
        "root": np.array([126, 100, 70]) + rng.integers(-14, 15),
        "flower": flower + shift,
        "fruit": np.array([84, 56, 40]) + rng.integers(-16, 17),
        "pale": np.array([196, 180, 146]) + shift,
    }
    light = np.arange(_SHADES)[:, None] - _SHADES // 2
    packed = {}
    for part, tone in tones.items():
        rgb = (tone + light).clip(0, 255)
        packed[part] = rgb[:, 0] | rgb[:, 1] << 8 | rgb[:, 2] << 16  # as Pillow takes an RGB colour
    return packed
