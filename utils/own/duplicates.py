"""Copies of one image: found by their bytes and by how they look."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

# Bits of 256 in which the fingerprints of one photograph may differ. Among 100 real sheets, copies saved at
# quality 30 or at a third of the size differ in at most 8, any two different sheets in at least 56.
NEAR = 15
_NEIGHBOURS = 50  # of an image in each of the 16 lists of candidates, so that the work stays linear
_GRID = 64
# The cosine transform of a row of 64 pixels, its 16 lowest frequencies: float64 [16, 64].
_COSINES = np.cos(np.pi / _GRID * np.outer(np.arange(16), np.arange(_GRID) + 0.5))
_SHUFFLED = np.random.default_rng(0).permutation(256)  # so that each 16 bits see all of the image


def fingerprint(image: Image.Image) -> bytes:
    """What is left of an image when it is saved again, smaller or at lower quality: 256 bits, 32 bytes.

    A bit says whether one of the 16 x 16 lowest frequencies of the cosine transform of the grey image is
    above their median (Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions).
    All bits are 0 for an image in which there is nothing to see.
    """
    grey = image.convert("L").convert("F").resize((_GRID, _GRID), Image.Resampling.BOX)
    frequencies = (_COSINES @ np.asarray(grey, dtype=np.float64) @ _COSINES.T).ravel()
    frequencies[0] = 0.0  # the brightness
    if np.abs(frequencies).max() < _GRID:
        return bytes(32)
    return np.packbits((frequencies > np.median(frequencies))[_SHUFFLED]).tobytes()


def _firsts(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted rows of uint8 [N, 32]: the first with its bytes, int64 [F], and for each row its first, int64 [N].

    The firsts are in the order of their bytes, the last byte foremost.
    """
    words = np.ascontiguousarray(rows).view("<u8")
    order = np.lexsort(words.T)  # stable: equal rows stay in their order
    starts = np.append(True, (words[order[1:]] != words[order[:-1]]).any(axis=1))[: len(rows)]
    firsts = order[starts]
    first_of = np.empty(len(rows), dtype=np.int64)
    first_of[order] = firsts[np.cumsum(starts) - 1]
    return firsts, first_of


def near_pairs(fingerprints: np.ndarray) -> np.ndarray:
    """Pairs of images whose fingerprints differ in at most `NEAR` bits: positions, int64 [P, 2], first < second.

    Args:
        fingerprints: uint8 [N, 32].

    Two such fingerprints agree in at least one of their 16 groups of 16 bits, so only images that share a
    group are compared, each with the next 50 in sorted order: a million images take about two minutes. Of
    images with the same fingerprint only the first is compared; the others are paired with it. Images without
    structure are left out.
    """
    return np.unique(np.concatenate([*_near_pairs(fingerprints)]), axis=0)


def _near_pairs(fingerprints: np.ndarray) -> Iterator[np.ndarray]:
    """`near_pairs` some at a time, a pair maybe several times: of images that are all alike there are 800 an image."""
    structured = np.flatnonzero(fingerprints.any(axis=1))
    firsts, first_of = (structured[found] for found in _firsts(fingerprints[structured]))
    yield np.stack([first_of, structured], axis=1)[first_of != structured]
    bits = fingerprints[firsts]
    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
    for group in bits.view(np.uint16).T:
        order = np.argsort(group, kind="stable")
        for step in range(1, _NEIGHBOURS + 1):
            same = np.flatnonzero(group[order[step:]] == group[order[:-step]])
            if not len(same):
                break
            one, other = order[same], order[same + step]
            near = ones[bits[one] ^ bits[other]].sum(axis=1, dtype=np.int64) <= NEAR
            yield np.sort(firsts[np.stack([one[near], other[near]], axis=1)], axis=1)


def _linked(count: int, pairs: list[np.ndarray]) -> np.ndarray:
    """The number of each image's group, int64 [N]: those that pairs link, one way or another, have the same."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = np.concatenate(pairs).T
    links = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def duplicate_groups(sha256: np.ndarray, fingerprints: np.ndarray) -> list[np.ndarray]:
    """Groups of images that are the same file or nearly the same image.

    Args:
        sha256, fingerprints: of each image, the bytes of what `Prepared` has, each uint8 [N, 32].

    Returns:
        The positions of each group, ascending, two or more; groups in the order of their first image.
    """
    count = len(sha256)
    everyone = np.arange(count)
    waiting = [np.stack([_firsts(sha256)[1], everyone], axis=1)]  # the first image with the same bytes
    for pairs in _near_pairs(fingerprints):
        waiting.append(pairs)
        if (
            sum(map(len, waiting)) > 4 * count
        ):  # as many as link all, so that memory does not grow with the pairs
            group = _linked(count, waiting)
            first = np.unique(group, return_index=True)[1][group]
            waiting = [np.stack([first, everyone], axis=1)]
    group = _linked(count, waiting)
    order = np.argsort(group, kind="stable")
    order = order[np.bincount(group)[group[order]] > 1]
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
    return sorted(groups, key=lambda members: members[0])
