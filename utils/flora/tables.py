"""Tables of a generated flora, and what is in its folder: what the sample and the full-size metadata share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.data.delimited import write_csv
from utils.data.metadata import Metadata
from utils.files import InputError, check_option, read_json
from utils.flora import phylogeny
from utils.startup import holding


def ids_of(names: Sequence[str], missing: tuple[int, ...]) -> np.ndarray:
    """An id from 0 on of each name, in the order of the names, that is not in `missing`, int64 [names]."""
    ids = np.setdiff1d(np.arange(len(names) + len(missing)), missing)
    return ids[np.argsort(np.argsort(np.array(names), kind="stable"))]


def missing_categories(species: int) -> tuple[int, ...]:
    """The gaps in the category ids of a sample flora."""
    return species // 4, species // 2 + 1


def tables_of_tree(
    tree: phylogeny.Phylogeny,
    names: dict[str, list[str]],
    train_counts: np.ndarray,
    institutions: int,
    missing_categories: tuple[int, ...],
    missing_genera: tuple[int, ...],
    seed: int,
) -> tuple[Metadata, np.ndarray]:
    """The published tables of a flora, and the category_id of every species in the order of the tree."""
    category_id = ids_of(names["scientificName"], missing_categories)
    first = np.flatnonzero(np.diff(tree.genus, prepend=-1))
    genus_names = np.array(names["genus"])[first]
    genus_id = ids_of(genus_names, missing_genera)

    by_category = np.argsort(category_id)
    categories = pd.DataFrame({"category_id": category_id, **names}).iloc[by_category]
    categories = categories[["category_id", "scientificName", "authors", "family", "genus", "species"]]
    genera = pd.DataFrame({"genus_id": genus_id, "genus": genus_names}).sort_values("genus_id")

    by_genus = np.argsort(genus_id)
    ids = genus_id[by_genus]
    low, high = np.triu_indices(len(ids), 1)
    apart = tree.genus_distances()[np.ix_(by_genus, by_genus)][low, high]
    distances = pd.DataFrame({"genus_id_x": ids[low], "genus_id_y": ids[high], "distance": apart})

    counts = train_counts[by_category]
    category = np.repeat(category_id[by_category], counts)
    number = np.arange(len(category)) - np.repeat(np.cumsum(counts) - counts, counts)
    pairs = list(zip(category.tolist(), number.tolist(), strict=True))
    image_id = [f"{c:05d}__{n:03d}" for c, n in pairs]
    file_name = [f"{c // 100:03d}/{c % 100:02d}/{c:05d}__{n:03d}.jpg" for c, n in pairs]
    rng = np.random.default_rng([seed, 7])
    held = rng.integers(institutions, size=(2, len(category))).min(axis=0)  # some hold far more than others
    annotations = pd.DataFrame(
        {
            "image_id": image_id,
            "category_id": category,
            "genus_id": np.repeat(genus_id[tree.genus][by_category], counts),
            "institution_id": held,
        }
    )
    images = pd.DataFrame({"image_id": image_id, "file_name": file_name, "license": LICENSE["id"]})
    codes = [f"{chr(65 + 7 * i % 26)}{chr(65 + (3 * i + i // 26) % 26)}H" for i in range(institutions)]
    metadata = Metadata(
        annotations=annotations,
        images=images,
        categories=categories.reset_index(drop=True),
        genera=genera.reset_index(drop=True),
        distances=distances,
        institutions=pd.DataFrame({"institution_id": np.arange(institutions), "collectionCode": codes}),
        licenses=pd.DataFrame([LICENSE]),
    )
    return metadata, category_id


def images_of_test(count: int) -> pd.DataFrame:
    """The table of test images as published: image_id (int, from 0), file_name, license; one row a sheet."""
    names = [f"{number // 1000:03d}/{number:06d}.jpg" for number in range(count)]
    return pd.DataFrame({"image_id": np.arange(count), "file_name": names, "license": LICENSE["id"]})


def write_solution(categories: np.ndarray, path: Path) -> None:
    """The withheld answers, as a perfect submission: `categories` in the order of the test ids."""
    write_csv(pd.DataFrame({"Id": np.arange(len(categories)), "Predicted": categories}), path)


LICENSE = {"id": 0, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}


def check_options(
    species: int, seed: int, min_images: int, max_images: int, test_fraction: float, size: int, form: str
) -> None:
    """Refuse options of a sample flora that are out of range.

    Raises:
        UsageError: the first that is, with what is allowed.
    """
    for key, value, holds, allowed in (
        ("species", species, species >= 2, "2 or more"),
        ("seed", seed, seed >= 0, "0 or more"),
        ("min_images", min_images, min_images >= 2, "2 or more: one to train on, one to test with"),
        ("max_images", max_images, max_images >= min_images, "min_images or more"),
        ("test_fraction", test_fraction, 0 < test_fraction <= 0.5, "above 0, at most 0.5"),
        ("size", size, 32 <= size <= 2000, "from 32 to 2000"),
        ("form", form, form in ("shards", "images"), '"shards" or "images"'),
    ):
        check_option(f"sample flora: {key}", value, holds, allowed)


@contextmanager
def drawing_alone(folder: Path, spec: dict[str, Any]) -> Iterator[bool]:
    """Whether a flora is still to be drawn, and nobody else draws it in the block: who came first is waited for.

    Raises:
        InputError: as `is_made`.
    """
    if is_made(folder, spec):
        yield False
        return
    lock = folder.absolute().with_name(f".{folder.absolute().name}.lock")
    with holding(folder, lock, wait=True):
        yield not is_made(folder, spec)


def is_made(folder: Path, spec: dict[str, Any]) -> bool:
    """Whether `folder` holds this very flora.

    Raises:
        InputError: it holds another one, or other files.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / "flora.json").is_file():
        raise InputError(f"{folder}: has files that are not of a sample flora. Name a new or empty folder.")
    content = read_json(folder / "flora.json")
    found = content.get("spec", {}) if isinstance(content, dict) else {}
    if found == spec:
        return True
    keys = [key for key in spec if found.get(key) != spec[key]]
    there = ", ".join(f"{key} {found.get(key)!r} instead of {spec[key]!r}" for key in keys)
    raise InputError(f"{folder}: holds another sample flora ({there}). Delete it or name another folder.")


MIN_IMAGES, TEST_FRACTION = 7, 0.2
