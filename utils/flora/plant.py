"""Draws pressed plants: the organs and growth forms of one shoot, as polygons in a frame of its own."""

import math

import numpy as np

from utils.flora.morphology import Traits

_SHADES = 29  # an organ is up to 14 grey levels lighter or darker than its part's tone

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


def _between(low: float, high: float, value: float) -> float:
    return low + (high - low) * value


def _mirrored(right: list[tuple[float, float]]) -> np.ndarray:
    """A closed outline from its right side, symmetric about the midrib: float64 [points, (along, across)]."""
    return np.round(np.array(right + [(along, -across) for along, across in reversed(right)]), 4)


def _blade(shape: str, traits: Traits, lobed: bool) -> np.ndarray:
    """A simple blade, entire, toothed or pinnately lobed."""
    a, b, narrow, wide, back = _SHAPES[shape]
    width = _between(narrow, wide, traits.leaf_width)
    width = max(width, 0.3) if lobed else width
    peak = a / (a + b)
    top = peak**a * (1 - peak) ** b

    def profile(t: float) -> float:
        return 0.5 * width * t**a * (1 - t) ** b / top

    margin = "entire" if shape == "linear" else traits.margin  # too narrow for teeth
    teeth = round(_between(4, 10, traits.tooth_number))
    depth = _between(0.08, 0.3, traits.tooth_size)
    outline = [(0.02, 0.015), (-back, width * 0.22)] if back else [(0.0, 0.008)]
    if lobed:
        lobes = round(_between(3, 6, traits.tooth_number))
        sinus = _between(0.4, 0.18, traits.tooth_size)
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


def _hand(traits: Traits) -> np.ndarray:
    """A palmately lobed blade with 3, 5 or 7 fingers."""
    fingers = 3 + 2 * round(_between(0, 2, traits.tooth_number))
    sinus = _between(0.62, 0.3, traits.tooth_size)
    spread = _between(0.55, 0.68, traits.leaf_width) * math.pi
    points = [(0.0, 0.0)]
    for finger in range(fingers):
        angle = -spread + 2 * spread * finger / (fingers - 1)
        reach = 1 - 0.42 * abs(angle) / math.pi
        gap = spread / (fingers - 1)
        wide = _between(0.3, 0.7, traits.leaf_width) * gap
        if finger:
            points.append((sinus * reach * math.cos(angle - gap), sinus * reach * math.sin(angle - gap)))
        for turn, length in ((-wide, 0.8), (0.0, 1.0), (wide, 0.8)):
            points.append((length * reach * math.cos(angle + turn), length * reach * math.sin(angle + turn)))
    outline = np.array(points) * 0.62
    return np.round(outline, 4)


def _star(points: int, inner: float) -> np.ndarray:
    """A flower head seen from above, centred, of diameter 1."""
    found = []
    for step in range(2 * points):
        radius = 0.5 if step % 2 == 0 else 0.5 * inner
        angle = math.pi * step / points
        found.append((radius * math.cos(angle), radius * math.sin(angle)))
    return np.round(np.array(found), 4)


def _lens(width: float, points: int = 5) -> np.ndarray:
    """A pointed spindle."""
    along = [step / points for step in range(points + 1)]
    return _mirrored([(t, 2 * width * t * (1 - t)) for t in along])


_STRIP = np.array(
    [(0, 0.5), (0.33, 0.45), (0.66, 0.35), (1, 0.2), (1, -0.2), (0.66, -0.35), (0.33, -0.45), (0, -0.5)]
)
_DISC = _star(6, 1.0)
_GRAIN_LENS = _lens(0.3)


class Plant:
    """Polygons of one pressed shoot in its own frame (pixels of the canvas, y upwards)."""

    def __init__(self, rng: np.random.Generator, traits: Traits, palette: dict[str, np.ndarray]) -> None:
        self.rng = rng
        self.traits = traits
        self.palette = palette
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
        self.stamp(_STRIP, x, y, angle, length, part, width=thickness / length, bend=bend)

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

    # ------------------------------------------------------------ leaves

    def leaves(self, x, y, angle, length) -> None:
        """Leaves with petioles at the given points, of the species' form."""
        traits, rng = self.traits, self.rng
        count = len(x)
        angle = angle + 0.16 * rng.standard_normal(count)
        length = length * (1 + 0.1 * rng.standard_normal(count)).clip(0.6, 1.4)
        bend = 0.16 * rng.standard_normal(count)
        if traits.growth in ("rosette", "climber"):
            stalk = _between(0.15, 0.8, traits.petiole)
        else:
            stalk = _between(0.0, 0.3, traits.petiole)
        if stalk > 0.04:
            self.line(x, y, angle, length * stalk, 4 + length * 0.015, "stem")
            x = x + np.sin(angle) * length * stalk * 0.97
            y = y + np.cos(angle) * length * stalk * 0.97
        fold = np.where(rng.random(count) < 0.25, rng.random(count), 1.0)
        division, shape = traits.leaf_division, traits.leaf_shape
        if division == "palmate":
            self.stamp(
                _hand(traits), x, y, angle, length * 1.25, "leaf", bend=0.3 * bend, fold=0.4 + 0.6 * fold
            )
            for turn in (-0.75, 0.0, 0.75):
                self.line(x, y, angle + turn, length * (0.62 - 0.12 * abs(turn)), 3, "vein")
            return
        if division == "trifoliate":
            outline = _blade(shape, traits, False)
            for turn, size in ((-1.15, 0.6), (1.15, 0.6), (0.0, 0.68)):
                self.blade(outline, x, y, angle + turn, length * size, bend, fold)
            return
        if division == "pinnate":
            pairs = round(_between(3, 8, traits.leaf_number))
            reach = 1.35 * length
            self.line(x, y, angle, reach, 4, "stem", bend=bend)
            outline = _blade(shape, traits, False)
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
                self.blade(outline, mid_x.ravel(), mid_y.ravel(), lean, size.ravel(), 0.0, None)
            tip = reach * 0.99
            self.blade(
                outline, x + tip * np.sin(angle), y + tip * np.cos(angle), angle, reach * 0.24, 0.0, None
            )
            return
        self.blade(_blade(shape, traits, division == "pinnatifid"), x, y, angle, length, bend, fold)

    def blade(self, outline, x, y, angle, length, bend, fold) -> None:
        """Simple blades or leaflets, with their midrib."""
        self.stamp(outline, x, y, angle, length, "leaf", bend=bend, fold=fold)
        if self.traits.venation != "parallel":
            self.line(x, y, angle, length * 0.92, 2.4 + 0.008 * length, "vein", bend=bend)
        else:
            for offset in (-0.07, 0.07):
                self.line(x, y, angle + offset, length * 0.85, 2.2, "vein", bend=bend)

    def along(
        self, points, headings, count, first, last, length, angle, shrink=0.5, arrangement=None
    ) -> None:
        """Leaves along a stem from share `first` to share `last` of it, smaller towards the tip."""
        arrangement = arrangement or self.traits.arrangement
        if self.traits.growth == "climber" and arrangement == "whorled":
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
        self.leaves(at[:, 0], at[:, 1], headings[low] + side * angle * (1 - 0.25 * node / nodes), size)

    # ------------------------------------------------------------ flowers and fruits

    def blossom(self, x, y, angle, scale=1.0) -> None:
        """Flowers, or fruits in a fruiting specimen, at the given points."""
        traits, rng = self.traits, self.rng
        x = np.atleast_1d(np.asarray(x, float))
        size = (
            _between(20, 44, traits.flower_size)
            * scale
            * (1 + 0.12 * rng.standard_normal(len(x))).clip(0.6, 1.4)
        )
        turn = angle + 0.3 * rng.standard_normal(len(x))
        if self.fruiting and traits.fruit == "berry":
            self.stamp(_DISC, x, y, turn, size * 0.95, "fruit")
        elif self.fruiting and traits.fruit == "pod":
            self.stamp(_lens(0.16), x, y, turn, size * 2.3, "fruit", bend=0.25)
        elif self.fruiting and traits.fruit == "achene":
            self.stamp(_star(9, 0.25), x, y, turn, size * 1.5, "pale")
            self.stamp(_DISC, x, y, turn, size * 0.45, "fruit")
        elif self.fruiting:
            self.stamp(_GRAIN_LENS, x, y, turn, size * 1.15, "fruit")
        else:
            petals = round(_between(4, 7, traits.flower_number))
            self.stamp(_star(petals, 0.5), x, y, turn, size * 1.15, "flower")
            self.stamp(_DISC, x, y, turn, size * 0.35, "fruit")

    def inflorescence(self, x, y, angle, scale=1.0) -> None:
        """The species' inflorescence at the end of a stem."""
        traits, rng = self.traits, self.rng
        kind = traits.inflorescence
        many = traits.flower_number
        thin = 4.5
        if kind in ("spike", "raceme"):
            reach = scale * _between(110, 230, many)
            points, headings = self.axis(
                x, y, angle, reach, 0.3 * rng.standard_normal(), thin, 3, "stem", steps=8
            )
            count = round(_between(16, 26, many)) if kind == "spike" else round(_between(8, 14, many))
            place = (np.arange(count) + 0.5) / count * 8
            low = place.astype(int).clip(0, 7)
            share = (place - low)[:, None]
            at = points[low] * (1 - share) + points[low + 1] * share
            side = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
            lean = headings[low] + side * (0.5 if kind == "spike" else 1.0)
            if kind == "spike":
                size = scale * _between(20, 36, traits.flower_size)
                self.stamp(
                    _GRAIN_LENS, at[:, 0], at[:, 1], lean, size, "flower" if not self.fruiting else "fruit"
                )
            else:
                stalk = scale * _between(18, 40, traits.petiole)
                self.line(at[:, 0], at[:, 1], lean, stalk, 3, "stem")
                self.blossom(
                    at[:, 0] + stalk * np.sin(lean), at[:, 1] + stalk * np.cos(lean), lean, 0.85 * scale
                )
        elif kind == "umbel":
            rays = round(_between(6, 13, many))
            reach = scale * _between(50, 110, traits.petiole)
            lean = angle + np.linspace(-1.15, 1.15, rays)
            self.line(np.full(rays, x), np.full(rays, y), lean, reach, 3.2, "stem")
            self.blossom(x + reach * np.sin(lean), y + reach * np.cos(lean), lean, 0.9 * scale)
        elif kind == "panicle":
            reach = scale * _between(130, 250, many)
            points, headings = self.axis(
                x, y, angle, reach, 0.2 * rng.standard_normal(), thin, 2.5, "stem", steps=7
            )
            for node in range(1, 7):
                for side in (-1.0, 1.0):
                    lean = headings[node] + side * 0.75 + 0.1 * rng.standard_normal()
                    length = reach * 0.42 * (1 - 0.11 * node)
                    self.line(points[node, 0], points[node, 1], lean, length, 2.8, "stem")
                    t = np.array([0.5, 0.78, 1.0]) * length
                    self.blossom(
                        points[node, 0] + t * np.sin(lean),
                        points[node, 1] + t * np.cos(lean),
                        lean,
                        0.6 * scale,
                    )
        elif kind == "head":
            size = scale * _between(56, 105, traits.flower_size)
            rays = round(_between(9, 18, many))
            cx, cy = x + 0.3 * size * math.sin(angle), y + 0.3 * size * math.cos(angle)
            if self.fruiting:
                self.stamp(_star(rays, 0.55), cx, cy, angle, size * 0.8, "pale")
            else:
                self.stamp(_star(rays, 0.55), cx, cy, angle, size, "flower")
            self.stamp(_DISC, cx, cy, angle, size * 0.46, "fruit")
            self.stamp(
                _lens(0.34),
                x - 0.1 * size * math.sin(angle),
                y - 0.1 * size * math.cos(angle),
                angle,
                size * 0.4,
                "stem",
            )
        else:
            size = _between(2.0, 3.4, traits.flower_size) * scale
            self.blossom(x, y, angle, size)

    # ------------------------------------------------------------ growth forms

    def draw(self, fertile: bool, fruiting: bool) -> None:
        """Draw one shoot of the species' growth form."""
        self.fertile, self.fruiting = fertile, fruiting
        getattr(self, f"_{self.traits.growth}")()

    def _leaf_length(self) -> float:
        return _between(70, 190, self.traits.leaf_length)

    def _roots(self, x: float, y: float, count: int) -> None:
        rng = self.rng
        for _ in range(count):
            angle = math.pi + 0.6 * float(rng.standard_normal())
            self.axis(
                x, y, angle, float(rng.uniform(40, 120)), float(rng.normal(0, 0.8)), 4, 1.5, "root", 0.12, 8
            )

    def _herb(self) -> None:
        traits, rng = self.traits, self.rng
        height = _between(430, 760, traits.stature)
        self._roots(0, 0, int(rng.integers(2, 6)))
        turn = float(rng.normal(0, _between(0.1, 0.5, traits.curvature)))
        thick = _between(8, 18, traits.stem_width)
        points, headings = self.axis(0, 0, 0, height, turn, thick, 5, "stem", 0.03)
        angle = _between(0.5, 1.3, traits.leaf_angle)
        count = round(_between(6, 18, traits.leaf_number))
        shoots = (
            round(_between(0, 4, traits.branching))
            if self.fertile
            else round(_between(0, 2, traits.branching))
        )
        for shoot in range(shoots):
            node = 10 - 2 * (shoot // 2) + shoot % 2
            side = 1 if shoot % 2 else -1
            ends, leans = self.axis(
                *points[node], headings[node] + side * 0.65, height * 0.3, -side * 0.35, 6, 4, "stem"
            )
            self.along(ends, leans, max(3, count // 4), 0.2, 0.85, 0.45 * self._leaf_length(), angle)
            if self.fertile:
                self.inflorescence(*ends[-1], float(leans[-1]), 0.75)
        if self.fertile:
            self.inflorescence(*points[-1], float(headings[-1]))
        self.along(points, headings, count, 0.08, 0.9, self._leaf_length(), angle, 0.55)

    def _twig(self) -> None:
        traits, rng = self.traits, self.rng
        length = _between(430, 680, traits.stature)
        thick = _between(14, 30, traits.stem_width)
        points, headings = self.axis(0, 0, 0, length, float(rng.normal(0, 0.4)), thick, 7, "wood", 0.07)
        angle = _between(0.45, 1.25, traits.leaf_angle)
        count = round(_between(6, 15, traits.leaf_number))
        size = self._leaf_length() * 0.85
        shoots = round(_between(1, 5, traits.branching))
        stems = [(points, headings, 0.35)]
        for shoot in range(shoots):
            node = 4 + 2 * shoot
            side = 1 if shoot % 2 else -1
            reach = length * (0.55 - 0.06 * shoot)
            lean = headings[node] + side * float(rng.uniform(0.45, 0.85))
            stems.append(
                (*self.axis(*points[node], lean, reach, -side * 0.3, thick * 0.55, 5, "wood", 0.06), 0.25)
            )
        for ends, leans, first in stems:
            if self.fertile:
                if traits.inflorescence in ("solitary", "head") or (
                    self.fruiting and traits.fruit == "berry"
                ):
                    node = np.array([7, 9, 11, 13, 15])
                    side = np.where(np.arange(5) % 2 == 0, 0.9, -0.9)
                    lean = leans[node] + side
                    self.line(ends[node, 0], ends[node, 1], lean, 26, 4, "wood")
                    self.blossom(
                        ends[node, 0] + 30 * np.sin(lean), ends[node, 1] + 30 * np.cos(lean), lean, 1.2
                    )
                else:
                    self.inflorescence(*ends[-1], float(leans[-1]), 0.7)
            self.along(
                ends, leans, count if first > 0.3 else round(count * 0.7), first, 1.0, size, angle, 0.3
            )

    def _grass(self) -> None:
        """A tuft with bare culms, or, in species whose leaves are not alternate, leafy reeds."""
        traits, rng = self.traits, self.rng
        reed = traits.arrangement != "alternate"
        height = _between(520, 800, traits.stature)
        self._roots(0, 0, 6)
        broad = {"linear": 0.6, "lanceolate": 1.0, "elliptic": 1.2}.get(traits.leaf_shape, 1.5)
        width = broad * _between(9, 28, traits.leaf_width)
        fan = _between(0.15, 0.5, traits.leaf_angle)
        blades = round(_between(2, 5, traits.leaf_number) if reed else _between(8, 24, traits.leaf_number))
        for _ in range(blades):
            lean = float(rng.normal(0, fan))
            reach = height * _between(0.3, 0.75, traits.leaf_length) * float(rng.uniform(0.7, 1.2))
            turn = lean * _between(0.2, 2.2, traits.curvature)
            self.axis(float(rng.normal(0, 9)), 0, lean, reach, turn, width, 1.5, "leaf", 0.02, 10)
        leaf = height * _between(0.2, 0.42, traits.leaf_length)
        leaves = round(_between(3, 7, traits.leaf_number)) if reed else 1
        out = _between(0.35, 1.1, traits.leaf_angle)
        for _ in range(1 + round(_between(0, 4, traits.branching))):
            lean = float(rng.normal(0, 0.6 * fan))
            reach = height * float(rng.uniform(0.65, 0.95))
            points, headings = self.axis(0, 0, lean, reach, 0.5 * lean, 9, 5, "stem", 0.02)
            side = 1 if rng.random() < 0.5 else -1
            for number in range(leaves):
                node = 3 + number * 11 // leaves if reed else int(rng.integers(5, 9))
                angle = float(headings[node]) + side * out
                self.axis(*points[node], angle, leaf, side * 0.5, 0.8 * width, 1.5, "leaf", 0, 8)
                side = -side
            if self.fertile:
                self.inflorescence(*points[-1], float(headings[-1]), 1.1)

    def _rosette(self) -> None:
        traits, rng = self.traits, self.rng
        self._roots(0, 0, 4)
        self.axis(
            0,
            8,
            math.pi,
            70,
            float(rng.normal(0, 0.4)),
            _between(12, 34, traits.stem_width),
            4,
            "root",
            0.05,
            8,
        )
        height = _between(300, 640, traits.stature)
        if self.fertile:
            for _ in range(1 + round(_between(0, 3, traits.branching))):
                lean = float(rng.normal(0, 0.25))
                turn = float(rng.normal(0, _between(0.1, 0.6, traits.curvature)))
                points, headings = self.axis(
                    0, 0, lean, height * float(rng.uniform(0.8, 1.1)), turn, 8, 5, "stem", 0.02
                )
                self.inflorescence(*points[-1], float(headings[-1]), 1.1)
        count = round(_between(6, 16, traits.leaf_number))
        reach = _between(1.0, 1.7, traits.leaf_angle)
        angle = np.linspace(-reach, reach, count) + 0.1 * rng.standard_normal(count)
        self.leaves(
            6 * rng.standard_normal(count),
            4 * rng.standard_normal(count),
            angle,
            np.full(count, 1.25 * self._leaf_length()),
        )

    def _fern(self) -> None:
        traits, rng = self.traits, self.rng
        fronds = 1 + round(_between(0, 2.4, traits.branching))
        self._roots(0, 0, 5)
        pairs = round(_between(9, 20, traits.leaf_number))
        wide = _between(90, 260, traits.leaf_length)
        lobed = traits.leaf_division in ("pinnate", "pinnatifid", "palmate")
        shape = "lanceolate" if traits.leaf_shape in ("linear", "lanceolate", "elliptic") else "deltoid"
        ratio = _between(0.45, 1.1, traits.leaf_width) * (1.0 if shape == "lanceolate" else 0.6)
        outline = _blade(shape, traits, lobed) * (1.0, ratio)
        for frond in range(fronds):
            lean = float(rng.normal(0, 0.12)) + (frond - (fronds - 1) / 2) * 0.5
            height = _between(480, 780, traits.stature) * float(rng.uniform(0.85, 1.1))
            turn = float(rng.normal(0, _between(0.1, 0.5, traits.curvature)))
            points, headings = self.axis(
                0, 0, lean, height, turn, _between(7, 14, traits.stem_width), 3, "stem", 0.01, 24
            )
            bare = _between(0.12, 0.42, traits.petiole)
            t = np.arange(pairs) / pairs
            place = (bare + (0.99 - bare) * t) * 24
            low = np.minimum(place.astype(int), 23)
            share = (place - low)[:, None]
            at = points[low] * (1 - share) + points[low + 1] * share
            # A triangular frond is widest at its base, a lance-shaped one in the middle.
            middle = _between(0.0, 0.55, traits.tooth_size)
            profile = np.where(
                t < middle, 0.35 + 0.65 * t / (middle + 0.01), 1 - 0.92 * (t - middle) / (1 - middle)
            )
            length = wide * profile
            lean_out = _between(0.9, 1.5, traits.leaf_angle)
            for side in (-1, 1):
                angle = headings[low] + side * lean_out + 0.05 * rng.standard_normal(pairs)
                bend = np.full(pairs, -side * 0.12)
                if traits.leaf_division == "trifoliate":  # twice divided: leaflets along each pinna
                    self.line(at[:, 0], at[:, 1], angle, length, 3, "stem", bend=bend)
                    for step in range(1, 6):
                        sx = at[:, 0] + length * step / 5.5 * np.sin(angle)
                        sy = at[:, 1] + length * step / 5.5 * np.cos(angle)
                        for way in (-1, 1):
                            self.stamp(
                                _lens(0.45),
                                sx,
                                sy,
                                angle + way * 1.0,
                                length * 0.24 * (1.15 - step / 8),
                                "leaf",
                            )
                else:
                    self.stamp(outline, at[:, 0], at[:, 1], angle, length, "leaf", bend=bend)
                    self.line(at[:, 0], at[:, 1], angle, length * 0.9, 2.5, "vein", bend=bend)
                    if self.fertile and self.fruiting:
                        for step in (0.3, 0.5, 0.7):
                            self.stamp(
                                _DISC,
                                at[:, 0] + length * step * np.sin(angle),
                                at[:, 1] + length * step * np.cos(angle),
                                angle,
                                7,
                                "fruit",
                            )

    def _climber(self) -> None:
        traits, rng = self.traits, self.rng
        length = _between(800, 1250, traits.stature)
        bow = float(rng.choice([-1.0, 1.0])) * _between(1.8, 3.6, traits.curvature)
        points, headings = self.axis(
            0, 0, -bow * 0.35, length, bow, _between(6, 13, traits.stem_width), 3, "stem", 0.16, 24
        )
        count = round(_between(7, 17, traits.leaf_number))
        if self.fertile:
            for node in range(5, 22, 22 // (2 + round(_between(1, 4, traits.branching)))):
                side = 1 if node % 2 else -1
                ends, leans = self.axis(
                    *points[node], headings[node] + side * 1.0, 60, 0, 4, 3, "stem", 0.02, 4
                )
                self.inflorescence(*ends[-1], float(leans[-1]), 0.5)
        for node in range(3, 24, 5):
            side = -1 if node % 2 else 1
            self.axis(*points[node], headings[node] + side * 0.7, 90, side * 5.0, 2.6, 2, "stem", 0.02, 12)
        self.along(
            points,
            headings,
            count,
            0.03,
            0.98,
            0.85 * self._leaf_length(),
            _between(0.6, 1.4, traits.leaf_angle),
            0.45,
        )


def palette(traits: Traits, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Dried colours of one specimen: olive to brown, dark to straw; flowers and wood apart."""
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
