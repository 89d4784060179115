import numpy as np
import pytest
from distances import species_distances

from utils.flora import phylogeny


@pytest.fixture(scope="module")
def tree() -> phylogeny.Phylogeny:
    return phylogeny.grow(60, seed=3)


def _paths(tree: phylogeny.Phylogeny) -> dict[int, list[int]]:
    """For every species the branches from the root to it."""
    found = phylogeny.branches(tree)
    paths = {}
    for number, branch in enumerate(found):
        if branch.species >= 0:
            path = [number]
            while found[path[-1]].parent >= 0:
                path.append(found[path[-1]].parent)
            paths[branch.species] = path
    return paths


def test_every_species_is_as_far_from_the_root(tree):
    found = phylogeny.branches(tree)
    for path in _paths(tree).values():
        assert sum(found[number].start - found[number].end for number in path) == pytest.approx(
            phylogeny.CROWN_AGE
        )


def test_a_branch_starts_where_its_parent_ends(tree):
    found = phylogeny.branches(tree)
    assert len(found) == 2 * tree.n_species - 1
    for branch in found:
        assert branch.start >= branch.end
        if branch.parent >= 0:
            assert branch.start == found[branch.parent].end


def test_distances_are_the_branch_lengths_between_two_species(tree):
    found, paths = phylogeny.branches(tree), _paths(tree)
    distances = species_distances(tree)
    for first in range(tree.n_species):
        for second in range(tree.n_species):
            apart = set(paths[first]) ^ set(paths[second])  # branches on the way, not shared
            length = sum(found[number].start - found[number].end for number in apart)
            assert distances[first, second] == pytest.approx(length)


def test_genus_distances_are_those_of_their_species(tree):
    species = species_distances(tree)
    genera = tree.genus_distances()
    for first in range(tree.n_species):
        for second in range(tree.n_species):
            if tree.genus[first] != tree.genus[second]:
                assert genera[tree.genus[first], tree.genus[second]] == species[first, second]


def test_genera_lie_within_families_and_are_closer_than_families(tree):
    species = species_distances(tree)
    same_genus = tree.genus[:, None] == tree.genus[None, :]
    same_family = tree.family[:, None] == tree.family[None, :]
    assert not (same_genus & ~same_family).any()
    assert species[same_genus].max() <= species[same_family & ~same_genus].min()
    assert species[same_family].max() <= species[~same_family].min()


def test_families_and_genera_are_uneven():
    tree = phylogeny.grow(400, seed=0)
    sizes = np.bincount(tree.genus)
    assert sizes.min() == 1
    assert sizes.max() >= 4 * np.median(sizes)


def test_a_tree_has_the_genera_and_families_asked_for():
    tree = phylogeny.grow_sized(np.array([1, 30, 2, 7, 1, 9]), np.array([0, 0, 0, 1, 2, 2]), seed=1)
    assert np.bincount(tree.genus).tolist() == [1, 30, 2, 7, 1, 9]
    assert np.bincount(tree.family).tolist() == [33, 7, 10]
    species = species_distances(tree)
    same_genus = tree.genus[:, None] == tree.genus[None, :]
    same_family = tree.family[:, None] == tree.family[None, :]
    assert species[same_genus].max() <= species[same_family & ~same_genus].min()
    assert species[same_family].max() <= species[~same_family].min()
    assert species.max() == 2 * phylogeny.CROWN_AGE


def test_given_names_are_kept_and_the_others_made_up():
    tree = phylogeny.grow_sized(np.array([3, 2, 2, 1]), np.array([0, 0, 1, 2]), seed=1)
    names = phylogeny.name(tree, 1, families={1: "Cyperaceae"}, genera={2: "Carex", 0: "Penstemon"})
    made_up = phylogeny.name(tree, 1)
    assert names["genus"] == ["Penstemon"] * 3 + made_up["genus"][3:5] + ["Carex"] * 2 + made_up["genus"][7:]
    assert names["family"][5:7] == ["Cyperaceae"] * 2
    assert len(set(names["family"])) == 3
    assert all(epithet.endswith("us") for epithet in names["species"][:3])
    assert not any(epithet.endswith(("us", "um")) for epithet in names["species"][5:7])


@pytest.mark.parametrize("species", [2, 3, 8])
def test_small_trees_grow(species):
    tree = phylogeny.grow(species, seed=0)
    assert tree.n_species == species
    assert species_distances(tree).max() == 2 * phylogeny.CROWN_AGE


def test_names_are_unique_and_agree():
    tree = phylogeny.grow(400, seed=2)
    names = phylogeny.name(tree, seed=2)
    assert len(set(names["scientificName"])) == 400
    assert len(set(names["family"])) == tree.family[-1] + 1
    assert all(family.endswith("aceae") for family in names["family"])
    for genus, species, authors, full in zip(
        names["genus"], names["species"], names["authors"], names["scientificName"], strict=True
    ):
        assert full == f"{genus} {species} {authors}"
        if genus.endswith(("us", "um")):
            assert species.endswith(genus[-2:])
