"""Distances on a tree by their definition."""

import numpy as np

from utils.flora.phylogeny import Phylogeny


def species_distances(tree: Phylogeny) -> np.ndarray:
    """Twice the age of the last common ancestor of every two species, float64 [species, species]."""
    ages = np.zeros((tree.n_species, tree.n_species))
    for first in range(tree.n_species):
        for second in range(first + 1, tree.n_species):
            ages[first, second] = ages[second, first] = tree.heights[first:second].max()
    return 2 * ages
