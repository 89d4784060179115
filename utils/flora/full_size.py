"""Metadata at the size of the real file: no sheets, the real counts of images, species and genera."""

from pathlib import Path
from typing import Any

import numpy as np

from utils.data.forms.kept import write_columns
from utils.data.forms.published import write_metadata, write_test_metadata
from utils.data.metadata import PUBLISHED_FAMILIES
from utils.files import building, write_json
from utils.flora import phylogeny
from utils.flora.counts import GENERA_BY_SPECIES, LARGEST_GENERA, SPECIES_BY_TRAIN_IMAGES
from utils.flora.tables import drawing_alone, images_of_test, tables_of_tree, write_solution

METADATA_VERSION = 2  # of the full-size metadata, which have no sheets: any change to these tables raises it.
# README of dpl10/NAFlora-1M and the competition page, and the ids that are missing in the published set. The number
# of families was not published.
_FULL_TEST_IMAGES, _FULL_INSTITUTIONS, _FULL_FAMILIES = 210_407, 60, 290
_FULL_MISSING_CATEGORIES, _FULL_MISSING_GENERA = (2_013, 6_904, 9_377, 14_120), (61,)


def full_genera(seed: int) -> tuple[np.ndarray, np.ndarray, dict[int, str], dict[int, str]]:
    """The genera of the full-size metadata, as many species in each as in the published set.

    The largest genera are in their families, which other genera fill up to the published number of species;
    which genera these are is drawn, and so are the borders of all smaller families.

    Returns:
        Species and family of every genus, int64 [genera], in the order of the tree; the known names of families
        and of genera, by number. The ten published families come first.
    """
    rng = np.random.default_rng([seed, 12])
    ten = PUBLISHED_FAMILIES["family"].tolist()
    named = list(LARGEST_GENERA)
    sizes = np.repeat(list(GENERA_BY_SPECIES), list(GENERA_BY_SPECIES.values()))[::-1]
    # The named genera come first, as they are the largest ones.
    family = np.full(len(sizes), len(ten))
    family[: len(named)] = [ten.index(f) if f in ten else len(ten) for _, f in LARGEST_GENERA.values()]
    room = np.append(PUBLISHED_FAMILIES["species"], sizes.sum() - PUBLISHED_FAMILIES["species"].sum())
    np.subtract.at(room, family[: len(named)], sizes[: len(named)])
    # From large to small, each into a family with room, by chance as its room: genera of one species fill the rest.
    for genus in range(len(named), len(sizes)):
        share = np.cumsum(np.where(room >= sizes[genus], room, 0))
        family[genus] = np.searchsorted(share, rng.integers(share[-1]), side="right")
        room[family[genus]] -= sizes[genus]

    order = rng.permutation(len(sizes))
    order = order[np.argsort(family[order], kind="stable")]
    sizes, family = sizes[order], family[order]
    others = np.flatnonzero(family == len(ten))
    while True:
        cuts = rng.choice(len(others) - 1, _FULL_FAMILIES - len(ten) - 1, replace=False) + 1
        steps = np.zeros(len(others), dtype=np.int64)
        steps[cuts] = 1
        family[others] = len(ten) + np.cumsum(steps)
        species = np.bincount(family, weights=sizes)
        if species[len(ten) :].max() < species[: len(ten)].min():
            break
    place = np.argsort(order)[: len(named)].tolist()
    families = {int(family[at]): f for at, (_, f) in zip(place, LARGEST_GENERA.values(), strict=True)}
    return sizes, family, {**dict(enumerate(ten)), **families}, dict(zip(place, named, strict=True))


def full_counts(tree: phylogeny.Phylogeny, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train and test images of every species, int64 [species].

    As many species with every number of training images as in the published set, and the published sums for
    the ten families and for all. Test images, of which only the sums are known, are a fifth of a species' images
    within two, and train and test together are 7 to 100.
    """
    rng = np.random.default_rng([seed, 16])
    ten = len(PUBLISHED_FAMILIES)
    train = rng.permutation(np.repeat(list(SPECIES_BY_TRAIN_IMAGES), list(SPECIES_BY_TRAIN_IMAGES.values())))
    others = np.flatnonzero(tree.family >= ten)
    test = np.zeros_like(train)
    totals = PUBLISHED_FAMILIES[["train_images", "test_images"]].to_numpy().tolist()
    totals.append([train.sum(), _FULL_TEST_IMAGES] - np.sum(totals, axis=0))
    for family, (train_total, test_total) in enumerate(totals):
        members = np.flatnonzero(np.minimum(tree.family, ten) == family)
        missing = train_total - int(train[members].sum())
        while missing:  # species change counts with species of small families until the sum is right
            here, there = members[rng.integers(len(members))], others[rng.integers(len(others))]
            gain = int(train[there] - train[here])
            if abs(missing - gain) < abs(missing):
                train[here], train[there] = train[there], train[here]
                missing -= gain
        # A quarter of train is a fifth of all.
        least = np.maximum(train[members] // 4, 7 - train[members])
        most = np.minimum(100 - train[members], least + 2)
        rest = int(test_total) - int(least.sum())
        extra = np.zeros(len(members), dtype=np.int64)
        while rest > 0:
            free = np.flatnonzero(least + extra < most)
            chosen = rng.choice(free, min(rest, len(free)), replace=False)
            extra[chosen] += 1
            rest -= len(chosen)
        test[members] = least + extra
    return train, test


def make_metadata(folder: Path, *, seed: int = 0, json: bool = False) -> Path:
    """Generate metadata at the size of the published set, without images: its counts, invented species.

    15,501 species, 839,772 training and 210,407 test images, 60 institutions and the distances of all pairs of
    genera. As in the published set are: how many species have how many training images, how many genera have
    how many species (both in utils.flora.counts), species and images of the ten largest families, and the eight
    largest genera with their families. Everything else is simulated, also inside of families and genera that bear
    real names. Costs some 3 s and 0.6 GB of memory without `json`.

    Args:
        folder: gets train_metadata.columns/ (see utils.data.forms.kept.write_columns) and solution.csv.
        seed: of the tree, the names and of which species and genera have which counts.
        json: also write train_metadata.json (some 350 MB) and test_metadata.json.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds another flora, tables of an earlier version, or other files.
    """
    folder = Path(folder)
    spec = {"generator_version": METADATA_VERSION, "metadata_only": True, "seed": seed, "json": json}
    with drawing_alone(folder, spec) as to_do:
        if to_do:
            _make_tables(folder, spec)
    return folder


def _make_tables(folder: Path, spec: dict[str, Any]) -> None:
    seed, json = spec["seed"], spec["json"]
    sizes, genus_family, families, genera = full_genera(seed)
    tree = phylogeny.grow_sized(sizes, genus_family, seed)
    names = phylogeny.name(tree, seed, families, genera)
    train_counts, test_counts = full_counts(tree, seed)
    metadata, category_id = tables_of_tree(
        tree, names, train_counts, _FULL_INSTITUTIONS, _FULL_MISSING_CATEGORIES, _FULL_MISSING_GENERA, seed
    )
    answers = np.random.default_rng([seed, 13]).permutation(np.repeat(category_id, test_counts))
    with building(folder) as temporary:
        write_columns(metadata, temporary / "train_metadata.columns")
        write_solution(answers, temporary / "solution.csv")
        if json:
            write_metadata(metadata, temporary / "train_metadata.json")
            write_test_metadata(images_of_test(len(answers)), temporary / "test_metadata.json")
        counts = {"train_images": len(metadata.images), "test_images": len(answers)}
        write_json(temporary / "flora.json", {"spec": spec, **counts})
