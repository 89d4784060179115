"""How unlike anything a sheet is that a network was trained on: a score, what it needs, and the nearest sheets.

The score compares a sheet's features with the mean of each species after whitening: directions in which sheets of one
species differ count little, those in which they agree count much. The cosine to the nearest species, as far as others
are less near, the distance to it and the probability of the first answer together tell species that a network never
saw from those that it did, better than each of them alone (benchmarks/unknown.py measures them side by side).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

# Weights beside the log of the largest probability, chosen on validation: benchmarks/README.md.
COSINE_WEIGHT, DISTANCE_WEIGHT = 20.0, 2.0
OTHERS = 3  # species after the nearest, half of whose mean cosine is taken from its own


@dataclass(frozen=True, eq=False)
class Space:
    """Features with one variance within species in all directions, and where the species lie in it.

    centre: float32 [F], of the sheets; whiten: float32 [F, F]; means: float32 [K, F], of the K species that have
    sheets, in the space; classes: int32 [K].
    """

    centre: np.ndarray
    whiten: np.ndarray
    means: np.ndarray
    classes: np.ndarray

    @cached_property
    def _shift(self) -> np.ndarray:
        return self.centre @ self.whiten

    def place(self, features: np.ndarray) -> np.ndarray:
        """Where features lie in the space, from its centre, float32 [N, F]."""
        return np.asarray(features, np.float32) @ self.whiten - self._shift

    def scores(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of N places the cosine to the nearest species, less half that to the next, and the log squared distance.

        Both float32 [N]; the distance is Mahalanobis' with the covariance that all species share (Lee et al. 2018,
        arXiv:1807.03888).
        """
        products = places @ self.means.T
        lengths = (places**2).sum(axis=1, keepdims=True), (self.means**2).sum(axis=1)
        cosines = products / np.maximum(np.sqrt(lengths[0] * lengths[1]), np.finfo(np.float32).tiny)
        others = min(OTHERS, len(self.means) - 1)
        best = -np.partition(-cosines, others, axis=1)[:, : others + 1]
        next_ones = (best.sum(axis=1) - best.max(axis=1)) / max(others, 1)
        distance = np.maximum((lengths[0] + lengths[1] - 2 * products).min(axis=1), _LEAST)
        return best.max(axis=1) - next_ones / 2, np.log(distance)

    def strangeness(
        self, places: np.ndarray, probabilities: np.ndarray, temperature: float = 1.0
    ) -> np.ndarray:
        """How unlike any species of the training sheets are, float32 [N]; only the order means something.

        Args:
            places: from `place`.
            probabilities: of all C classes as the network gives them, float [N, C].
            temperature: what they are calibrated with.
        """
        cosine, distance = self.scores(places)
        largest = tempered(probabilities, temperature).max(axis=1)
        known = np.log(np.maximum(largest, _LEAST)) + COSINE_WEIGHT * cosine - DISTANCE_WEIGHT * distance
        return -known.astype(np.float32)


def unit(places: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32 [N, F]."""
    return places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / temperature) of all classes, float [N, C]."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


_LEAST = 1e-9  # of what a logarithm is taken


def fit_space(views: np.ndarray, classes: np.ndarray) -> Space:
    """The space of training sheets: the covariance within species, shrunk by Ledoit & Wolf (2004), and its inverse.

    Args:
        views: features of the sheets, float [V, N, F]: as they are and, for V > 1, of their mirror images, which differ
            in what does not tell species apart, so that species with a single sheet say something too.
        classes: of the sheets, int [N].
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    views = np.asarray(views, np.float64)
    sheets = views.mean(axis=0)
    known, index = np.unique(classes, return_inverse=True)
    counts = np.bincount(index)
    means = np.stack([np.bincount(index, column) for column in sheets.T], axis=1) / counts[:, None]
    # the mean of n sheets lies nearer to each of them than the species' own does
    far = np.sqrt(counts / np.maximum(counts - 1, 1))[index][:, None]
    within = ((views - means[index]) * far).reshape(-1, sheets.shape[1])
    covariance = within.T @ within / len(within)
    shrinkage = max(ledoit_wolf_shrinkage(within, assume_centered=True), _LEAST_SHRINKAGE)
    centre = sheets.mean(axis=0)
    # of species with a single sheet each, seen once, nothing is known but how the species differ
    variance = np.trace(covariance) / len(covariance) or ((sheets - centre) ** 2).mean() or 1.0
    covariance *= 1 - shrinkage
    covariance[np.diag_indices_from(covariance)] += shrinkage * variance
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(values)
    bare = Space(*(array.astype(np.float32) for array in (centre, whiten, means)), known.astype(np.int32))
    return replace(bare, means=bare.place(means))


_LEAST_SHRINKAGE = 1e-3  # so that a direction in which no sheet differs has a variance


def threshold(strangeness: np.ndarray, refused: float) -> float:
    """The score above which at most a share `refused` of sheets of known species lies; infinite with too few of them.

    Split conformal prediction (Vovk et al. 2005; Angelopoulos & Bates 2021, arXiv:2107.07511): of further sheets like
    these at most that share is refused on average, whatever the score is.

    Args:
        strangeness: of held-out sheets of known species, float [N].
        refused: from 0 to below 1.
    """
    place = int(np.ceil((len(strangeness) + 1) * (1 - refused)))
    return float(np.sort(strangeness)[place - 1]) if place <= len(strangeness) else float("inf")
