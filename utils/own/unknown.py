"""How unlike anything a sheet is that a network was trained on: a score, what it needs, and the nearest sheets.

The score compares a sheet's features with the mean of each species after whitening: directions in which sheets of one
species differ count little, those in which they agree count much. The cosine between both, and the odds of the first
answer against the second, tell species that a network never saw from those that it did better than its largest
probability, energy or plain distances do (benchmarks/unknown.py measures them side by side).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

COSINE_WEIGHT = (
    20.0  # of the cosine, beside the log of the odds; chosen on validation, see benchmarks/README.md
)


@dataclass(frozen=True, eq=False)
class Space:
    """Features with one variance within species in all directions, and where the species lie in it.

    centre: float32 [F], of the sheets; whiten: float32 [F, F]; means: float32 [K, F], of the K species that have
    sheets, whitened and of length 1; classes: int32 [K].
    """

    centre: np.ndarray
    whiten: np.ndarray
    means: np.ndarray
    classes: np.ndarray

    @cached_property
    def _shift(self) -> np.ndarray:
        return self.centre @ self.whiten

    def directions(self, features: np.ndarray) -> np.ndarray:
        """Whitened features of length 1, float32 [N, F]."""
        moved = np.asarray(features, np.float32) @ self.whiten - self._shift
        return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    def strangeness(
        self, directions: np.ndarray, probabilities: np.ndarray, temperature: float = 1.0
    ) -> np.ndarray:
        """How unlike any species of the training sheets are, float32 [N]; only the order means something.

        Args:
            directions: from `directions`.
            probabilities: of all C classes as the network gives them, float [N, C].
            temperature: what the odds are calibrated with.
        """
        best = -np.partition(-probabilities, 1, axis=1)[:, :2]
        odds = np.log(np.maximum(best[:, 0], _LEAST)) - np.log(np.maximum(best[:, 1], _LEAST))
        cosine = (directions @ self.means.T).max(axis=1)
        return -(COSINE_WEIGHT * cosine + odds / temperature).astype(np.float32)


_LEAST = 1e-9  # of a probability whose logarithm is taken


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
    variance = np.trace(covariance) / len(covariance)
    covariance *= 1 - shrinkage
    covariance[np.diag_indices_from(covariance)] += shrinkage * max(variance, np.finfo(np.float32).tiny)
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(values)
    centre = sheets.mean(axis=0)
    bare = Space(*(array.astype(np.float32) for array in (centre, whiten, means)), known.astype(np.int32))
    return Space(bare.centre, bare.whiten, bare.directions(means), bare.classes)


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
