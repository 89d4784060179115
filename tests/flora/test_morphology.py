import dataclasses

import numpy as np
import pytest

from utils.config import load_profile
from utils.flora import morphology, phylogeny
from utils.flora.of_profile import same_growth

_WORDS = [field.name for field in dataclasses.fields(morphology.Traits) if field.type is str]
_MEASURES = [field.name for field in dataclasses.fields(morphology.Traits) if field.type is float]


@pytest.fixture(scope="module")
def flora() -> tuple[phylogeny.Phylogeny, list[morphology.Traits]]:
    tree = phylogeny.grow(300, seed=0)
    return tree, morphology.evolve(tree, seed=0)


def _pairs(tree: phylogeny.Phylogeny) -> dict[str, np.ndarray]:
    same_genus = tree.genus[:, None] == tree.genus[None, :]
    same_family = tree.family[:, None] == tree.family[None, :]
    upper = np.triu(np.ones_like(same_genus), 1).astype(bool)
    return {
        "genus": same_genus & upper,
        "family": same_family & ~same_genus & upper,
        "far": ~same_family & upper,
    }


def test_relatives_share_more_states(flora):
    tree, traits = flora
    pairs = _pairs(tree)
    for word in _WORDS:
        states = np.array([getattr(species, word) for species in traits])
        same = states[:, None] == states[None, :]
        assert same[pairs["genus"]].mean() > same[pairs["far"]].mean() + 0.2, word


def test_relatives_have_closer_measures(flora):
    tree, traits = flora
    pairs = _pairs(tree)
    values = np.array([[getattr(species, measure) for measure in _MEASURES] for species in traits])
    apart = np.abs(values[:, None] - values[None]).mean(axis=2)
    assert apart[pairs["genus"]].mean() < apart[pairs["family"]].mean() < apart[pairs["far"]].mean()


def test_a_large_flora_has_every_growth_form(flora):
    _, traits = flora
    assert {species.growth for species in traits} == {"grass", "fern", "twig", "rosette", "herb", "climber"}


def test_specimens_differ_less_than_species_in_form(flora):
    _, traits = flora
    rng = np.random.default_rng(0)
    form = [measure for measure in _MEASURES if measure not in ("flower_tone", "hue", "lightness")]
    species = np.array([[getattr(one, measure) for measure in form] for one in traits])
    specimens = [morphology.individual(traits[0], rng) for _ in range(200)]
    within = np.array([[getattr(one, measure) for measure in form] for one in specimens])
    assert 0 < within.std(axis=0).mean() < 0.7 * species.std(axis=0).mean()
    assert within.min() >= 0 and within.max() <= 1
    assert all(one.growth == traits[0].growth for one in specimens)


def test_the_seed_decides(flora):
    tree, traits = flora
    assert morphology.evolve(tree, seed=0) == traits
    assert morphology.evolve(tree, seed=1) != traits


def test_kin_of_the_sample_flora_grow_alike_more_often_than_strangers_but_not_always():
    table = same_growth(load_profile("laptop")).set_index("pair")
    assert table.index[0] == "of one genus" and table["pairs"].sum() == 40 * 39 / 2
    assert 1 > table["same"].iloc[0] > 2 * table["same"].iloc[-1] > 0
    assert same_growth(load_profile("smoke", flora_species=2))["pairs"].sum() == 1
