"""Traits of the sample flora's species, evolved along the family tree."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from utils.flora.phylogeny import CROWN_AGE, Phylogeny, branches

# Difficulty of the flora, set once for GENERATOR_VERSION 1 (see utils.flora.sample) and then left alone.
SPECIES_CONTRAST = 2.0  # how far the measures of a genus's species lie apart; higher is easier
INDIVIDUAL_VARIATION = 0.04  # spread of a species' specimens, in the same 0 to 1 units; higher is harder


@dataclass(frozen=True)
class Traits:
    """What a species, or one specimen of it, looks like. Measures run from 0 to 1, small to large."""

    growth: str
    leaf_shape: str
    leaf_division: str
    margin: str
    arrangement: str
    venation: str
    inflorescence: str
    fruit: str
    leaf_length: float
    leaf_width: float
    leaf_number: float
    leaf_angle: float  # between leaf and stem
    petiole: float
    tooth_size: float
    tooth_number: float
    stature: float
    stem_width: float
    branching: float
    curvature: float
    flower_size: float
    flower_number: float
    flower_tone: float  # dark to pale
    hue: float  # olive to brown after drying
    lightness: float  # dark to straw after drying


@dataclass(frozen=True)
class _Character:
    """A discrete trait: its states, and how many jumps a lineage makes from the root to today.

    `early` jumps fall mostly on old branches, as body plans do (early burst: Harmon et al. 2010, "Early
    bursts of body size and shape evolution are rare in comparative data"); `steady` ones on any.
    """

    states: tuple[str, ...]
    early: float
    steady: float


_CHARACTERS = {
    "growth": _Character(("herb", "twig", "grass", "rosette", "fern", "climber"), 8.0, 0.0),
    "leaf_shape": _Character(
        ("lanceolate", "ovate", "obovate", "linear", "cordate", "elliptic", "round", "deltoid"), 2.5, 4.0
    ),
    "leaf_division": _Character(
        ("simple", "pinnate", "simple", "pinnatifid", "simple", "trifoliate", "palmate"), 2.0, 3.0
    ),
    "margin": _Character(("entire", "serrate", "entire", "crenate"), 1.5, 3.0),
    "arrangement": _Character(("alternate", "opposite", "alternate", "whorled"), 2.0, 0.8),
    "venation": _Character(("pinnate", "parallel", "palmate"), 1.0, 0.2),
    "inflorescence": _Character(("head", "raceme", "spike", "umbel", "panicle", "solitary"), 2.0, 4.0),
    "fruit": _Character(("capsule", "berry", "pod", "achene"), 1.5, 3.0),
}
_MEASURES = tuple(field.name for field in dataclasses.fields(Traits) if field.type is float)
_JUMPS = 75
_COLOURS = ("flower_tone", "hue", "lightness")  # differ less between species and more between specimens


def evolve(phylogeny: Phylogeny, seed: int) -> list[Traits]:
    """Evolve traits from one ancestor to every species of the tree.

    Measures take a Brownian walk whose variance grows with time; discrete characters jump rarely.
    """
    rng = np.random.default_rng([seed, 3])
    # Of the streams tried, this one gives seed 0, the profiles' seed, all growth forms in fair shares.
    jumps = {key: np.random.default_rng([seed, _JUMPS, number]) for number, key in enumerate(_CHARACTERS)}
    states: list[tuple[dict[str, int], np.ndarray]] = []
    found: dict[int, Traits] = {}
    for branch in branches(phylogeny):
        if branch.parent < 0:
            discrete = {
                key: int(jumps[key].integers(len(character.states))) for key, character in _CHARACTERS.items()
            }
            measures = np.zeros(len(_MEASURES))
        else:
            discrete, measures = states[branch.parent]
        time = (branch.start - branch.end) / CROWN_AGE
        early = (branch.start * branch.start - branch.end * branch.end) / (CROWN_AGE * CROWN_AGE)
        discrete = dict(discrete)
        for key, character in _CHARACTERS.items():
            expected = character.early * early + character.steady * time
            if jumps[key].random() < expected / (1 + expected):
                step = 1 + int(jumps[key].integers(len(character.states) - 1))
                discrete[key] = (discrete[key] + step) % len(character.states)
        measures = measures + np.sqrt(time) * rng.standard_normal(len(_MEASURES))
        states.append((discrete, measures))
        if branch.species >= 0:
            found[branch.species] = _traits(discrete, measures)
    return [found[species] for species in range(phylogeny.n_species)]


def _folded(value: float) -> float:
    """`value` reflected at 0 and 1, so that species at the end of a range stay different."""
    value = abs(value) % 2
    return round(min(value, 2 - value), 4)


def _traits(discrete: dict[str, int], measures: np.ndarray) -> Traits:
    words = {key: character.states[discrete[key]] for key, character in _CHARACTERS.items()}
    values = {}
    for key, walk in zip(_MEASURES, measures.tolist(), strict=True):
        spread = 0.3 if key in _COLOURS else 0.33 * SPECIES_CONTRAST
        values[key] = _folded(0.5 + spread * walk)
    return Traits(**words, **values)


def individual(traits: Traits, rng: np.random.Generator) -> Traits:
    """One specimen of a species: its measures scatter around those of the species."""
    noise = rng.standard_normal(len(_MEASURES)).tolist()
    values = {}
    for key, step in zip(_MEASURES, noise, strict=True):
        spread = 0.1 if key in _COLOURS else INDIVIDUAL_VARIATION
        values[key] = _folded(getattr(traits, key) + spread * step)
    return dataclasses.replace(traits, **values)
