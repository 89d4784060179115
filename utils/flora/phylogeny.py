"""The family tree of the sample flora: a pure-birth tree cut into families and genera, with made-up names."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

CROWN_AGE = 100.0  # million years from the root to the living species


@dataclass(frozen=True)
class Phylogeny:
    """An ultrametric tree of species, written as the divergence times between neighbours.

    The species stand in the order in which a drawing of the tree would list them. `heights[i]` is the
    age (million years) of the last common ancestor of species i and i + 1; of any two species i < j it
    is the largest of `heights[i:j]`. Genera and families are runs of neighbours, cut at the oldest splits.
    """

    heights: np.ndarray  # float64 [species - 1]
    genus: np.ndarray  # int64 [species], 0 to genera - 1, never decreasing
    family: np.ndarray  # int64 [species], 0 to families - 1, never decreasing

    @property
    def n_species(self) -> int:
        """The number of species, the tips of the tree."""
        return len(self.genus)

    def genus_distances(self) -> np.ndarray:
        """Patristic distances (million years, both ways) between genera, float64 [genera, genera].

        All pairs of species of two genera are equally far apart, as the tree is ultrametric and genera
        are whole clades or parts of one split.
        """
        heights = self.heights[np.diff(self.genus) > 0]
        ages = np.zeros((len(heights) + 1, len(heights) + 1))
        for row in range(len(heights)):
            ages[row, row + 1 :] = np.maximum.accumulate(heights[row:])
        ages += ages.T
        return 2 * ages


@dataclass(frozen=True)
class Branch:
    """One branch of the tree, from an older to a younger height (million years before today)."""

    parent: int  # position of the parent branch in the list, -1 at the root
    start: float
    end: float
    species: int  # the species it leads to, -1 for an inner branch


def grow(species: int, seed: int) -> Phylogeny:
    """Simulate a pure-birth tree and cut it into families and genera of uneven sizes.

    About one genus for three species and one family for five; which neighbours are parted is a matter of chance.

    Args:
        species: number of living species, 2 or more.
        seed: the tree is the same for the same seed.
    """
    rng = np.random.default_rng([seed, 1])
    families = max(2, round(species / 5))
    genera = min(species, max(families + 1, round(species / 3)))
    family_cuts = np.sort(1 + rng.choice(species - 1, families - 1, replace=False))
    inner = np.setdiff1d(np.arange(1, species), family_cuts)
    genus_cuts = rng.choice(inner, genera - families, replace=False)
    return _dated(species, family_cuts, genus_cuts, rng)


def grow_sized(genus_sizes: np.ndarray, genus_family: np.ndarray, seed: int) -> Phylogeny:
    """Simulate a pure-birth tree with given families and genera.

    Args:
        genus_sizes: species of every genus, in the order of the tree, int [genera].
        genus_family: family of every genus, 0 to families - 1, never decreasing, int [genera].
        seed: the divergence times are the same for the same seed.
    """
    cuts = np.cumsum(genus_sizes)
    opens = np.diff(genus_family) > 0
    rng = np.random.default_rng([seed, 1])
    return _dated(int(cuts[-1]), cuts[:-1][opens], cuts[:-1][~opens], rng)


def _dated(
    species: int, family_cuts: np.ndarray, genus_cuts: np.ndarray, rng: np.random.Generator
) -> Phylogeny:
    """The tree whose families and genera begin at the cuts, with divergence times drawn for every split.

    Divergence times of a pure-birth tree of known age are independent draws of one truncated exponential
    law (Gernhard 2008, "The conditioned reconstructed process"), so which neighbours are parted by the
    oldest splits is a matter of chance: cuts come first, and get the oldest times.
    """
    other = np.setdiff1d(np.arange(1, species), np.concatenate([family_cuts, genus_cuts]))
    rate = max(math.log(species / 2), 1.0) / CROWN_AGE
    reach = 1 - math.exp(-rate * CROWN_AGE)
    ages = [-math.log(1 - u * reach) / rate for u in rng.random(species - 1).tolist()]
    ages = np.array(sorted((max(round(age, 4), 0.01) for age in ages), reverse=True))
    ages[0] = CROWN_AGE
    heights = np.empty(species - 1)
    first = 0
    for cuts in (family_cuts, genus_cuts, other):
        heights[cuts - 1] = rng.permutation(ages[first : first + len(cuts)])
        first += len(cuts)

    def member(cuts: np.ndarray) -> np.ndarray:
        steps = np.zeros(species, dtype=np.int64)
        steps[cuts] = 1
        return np.cumsum(steps)

    return Phylogeny(heights, member(np.concatenate([family_cuts, genus_cuts])), member(family_cuts))


def branches(phylogeny: Phylogeny) -> list[Branch]:
    """All branches of the tree, parents before children."""
    found: list[Branch] = []
    todo = [(0, phylogeny.n_species - 1, -1, CROWN_AGE)]
    while todo:
        first, last, parent, start = todo.pop()
        if first == last:
            found.append(Branch(parent, start, 0.0, first))
            continue
        split = first + int(np.argmax(phylogeny.heights[first:last]))
        end = float(phylogeny.heights[split])
        found.append(Branch(parent, start, end, -1))
        here = len(found) - 1
        todo.append((split + 1, last, here, end))
        todo.append((first, split, here, end))
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Names. Endings agree in gender: genera in -a, -us and -um take epithets in -a, -us and -um, those in -on in -us.
_ONSETS = _words("B Br C Cal D Dr Er F Gl H Hel L Lys M Mir N Or P Pel Qu R S Sel T Tr V Ver Z")
_MIDDLES = _words("and ar ath el emb en er ib il in ir ist ol or orth un ur yr")
_ENDINGS = _words("ia ella ina ium anthus opsis ora idium astrum odes")
_GENDER = {"us": 1, "on": 1, "um": 2}
_PREFIXES = _words(
    "albi angusti atri brevi crassi curvi flavi gracili grandi lati longi macri micri multi nudi ovali "
    "parvi pauci planti rari recti rigidi rotundi rubri serri tenui tristi unci uni viridi"
)
_STEMS = _words(
    "caul cephal cocc cruc dens flor foli frond fruct glum lobat nervi petal pilos ram sepal sperm spic "
    "squamat stip strigos styl thyrs ungul"
)
_PLAIN = _words(
    "alpin american arid aureol collin diffus elegantul erect glabr hirsut incan lucid lute maritim montan "
    "nive pumil sabulos saxos silvatic sordid spinos umbros villos virgat"
)
_AUTHORS = _words(
    "Arden Bellow Brandt Corley Dahm Eskew Fenn Garrow Hale Ibsen Jarvi Kell. Lund Marsh. Nairn Oake "
    "Perrin Quill Rowan Salt. Tarn Ullo Vane Wexler Yarrow Zell"
)


def _unique(rng: np.random.Generator, parts: list[tuple[str, ...]]) -> Iterator[str]:
    seen = set()
    while True:
        word = "".join(part[int(rng.integers(len(part)))] for part in parts)
        if word not in seen:
            seen.add(word)
            yield word


def epithet(stem: str, genus: str) -> str:
    """A species epithet whose ending agrees with the genus."""
    return stem + ("a", "us", "um")[_GENDER.get(genus[-2:], 0)]


def _family_name(genus: str) -> str:
    ending = max((ending for ending in _ENDINGS if genus.endswith(ending)), key=len)
    return genus.removesuffix(ending) + ending[:-1].rstrip("iu") + "aceae"


def name(
    phylogeny: Phylogeny,
    seed: int,
    families: Mapping[int, str] = MappingProxyType({}),
    genera: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, list[str]]:
    """Made-up Latin names for every species of a tree.

    Args:
        families, genera: names that are given, by number; other families are named after one of their made-up genera.

    Returns:
        Lists as long as there are species: family, genus, species (the epithet), authors, scientificName
        (genus, epithet and authors, as in the published categories).
    """
    rng = np.random.default_rng([seed, 2])
    words = _unique(rng, [_ONSETS, _MIDDLES, ("", *_MIDDLES[:9]), _ENDINGS])
    genus_names = [next(words) for _ in range(int(phylogeny.genus[-1]) + 1)]
    for genus, given in genera.items():
        genus_names[genus] = given
    family_names = dict(families)
    for family in range(int(phylogeny.family[-1]) + 1):
        if family in families:
            continue
        members = np.unique(phylogeny.genus[phylogeny.family == family])
        candidates = [_family_name(genus_names[genus]) for genus in members if genus not in genera]
        candidates.append(genus_names[members[0]] + "aceae")  # all stems are taken by other families
        taken = set(family_names.values())
        family_names[family] = next(word for word in candidates if word not in taken)
    stems = [*_PLAIN, *(prefix + stem for prefix in _PREFIXES for stem in _STEMS)]
    # Plain adjectives are commoner in small genera; a large genus runs through the compound ones.
    columns: dict[str, list[str]] = {
        key: [] for key in ("family", "genus", "species", "authors", "scientificName")
    }
    for genus_index, genus in enumerate(genus_names):
        members = np.flatnonzero(phylogeny.genus == genus_index)
        order = np.argsort(
            rng.random(len(stems)) + (np.arange(len(stems)) >= len(_PLAIN)) * 0.3, kind="stable"
        )
        for member, stem in zip(members, order, strict=False):
            first, second = rng.integers(len(_AUTHORS), size=2)
            author = _AUTHORS[first]
            form = int(rng.integers(5))
            if form == 0:
                author = f"({_AUTHORS[second]}) {author}"
            elif form == 1:
                author = f"{author} & {_AUTHORS[second]}" if first != second else author
            word = epithet(stems[stem], genus)
            columns["family"].append(family_names[phylogeny.family[member]])
            columns["genus"].append(genus)
            columns["species"].append(word)
            columns["authors"].append(author)
            columns["scientificName"].append(f"{genus} {word} {author}")
    return columns
