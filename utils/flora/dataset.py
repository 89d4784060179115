"""The sample flora as a data set in the published formats, and metadata alone with the published counts."""

import hashlib
import math
import os
import shutil
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.data.labels import LabelMap
from utils.data.metadata import (
    PUBLISHED_FAMILIES,
    Metadata,
    write_columns,
    write_metadata,
    write_test_metadata,
)
from utils.data.tfrecords import Record, write_shards
from utils.errors import InputError, UsageError
from utils.files import read_json, replacing, write_json
from utils.flora import morphology, phylogeny, sheet
from utils.flora.counts import GENERA_BY_SPECIES, LARGEST_GENERA, SPECIES_BY_TRAIN_IMAGES

GENERATOR_VERSION = 1  # same version, same spec: same bytes. Any change to a sheet's bytes raises it.
METADATA_VERSION = 2  # of the full-size metadata, which have no sheets: any change to these tables raises it.

_INSTITUTIONS = 16  # of the sample; the published set has 60
_MIN_IMAGES, _TEST_FRACTION = 7, 0.2
_SHARD_IMAGES = 256
_CHUNK = 16  # sheets a worker draws at a time
_LICENSE = {"id": 0, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}

# README of dpl10/NAFlora-1M and the competition page, and the ids that are missing in the published set. The number
# of families was not published.
_FULL_TEST_IMAGES, _FULL_INSTITUTIONS, _FULL_FAMILIES = 210_407, 60, 290
_FULL_MISSING_CATEGORIES, _FULL_MISSING_GENERA = (2_013, 6_904, 9_377, 14_120), (61,)


# ---------------------------------------------------------------- tables


def _with_gaps(count: int, missing: tuple[int, ...]) -> np.ndarray:
    return np.setdiff1d(np.arange(count + len(missing)), missing)


def _category_ids(names: dict[str, list[str]], missing: tuple[int, ...]) -> np.ndarray:
    """The category_id of every species, in the order of the tree; ids are in the order of the names."""
    species = len(names["scientificName"])
    rank = np.empty(species, dtype=np.int64)
    rank[np.argsort(np.array(names["scientificName"]), kind="stable")] = np.arange(species)
    return _with_gaps(species, missing)[rank]


def _missing_categories(species: int) -> tuple[int, ...]:
    """The gaps in the category ids of a sample flora."""
    return species // 4, species // 2 + 1


def _metadata(
    tree: phylogeny.Phylogeny,
    names: dict[str, list[str]],
    train_counts: np.ndarray,
    institutions: int,
    missing_categories: tuple[int, ...],
    missing_genera: tuple[int, ...],
    seed: int,
) -> tuple[Metadata, np.ndarray]:
    """The published tables of a flora, and the category_id of every species in the order of the tree."""
    category_id = _category_ids(names, missing_categories)
    first = np.flatnonzero(np.diff(tree.genus, prepend=-1))
    genus_names = np.array(names["genus"])[first]
    genus_rank = np.empty(len(first), dtype=np.int64)
    genus_rank[np.argsort(genus_names, kind="stable")] = np.arange(len(first))
    genus_id = _with_gaps(len(first), missing_genera)[genus_rank]

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
    images = pd.DataFrame({"image_id": image_id, "file_name": file_name, "license": _LICENSE["id"]})
    codes = [f"{chr(65 + 7 * i % 26)}{chr(65 + (3 * i + i // 26) % 26)}H" for i in range(institutions)]
    metadata = Metadata(
        annotations=annotations,
        images=images,
        categories=categories.reset_index(drop=True),
        genera=genera.reset_index(drop=True),
        distances=distances,
        institutions=pd.DataFrame({"institution_id": np.arange(institutions), "collectionCode": codes}),
        licenses=pd.DataFrame([_LICENSE]),
    )
    return metadata, category_id


def _test_images(count: int) -> pd.DataFrame:
    names = [f"{number // 1000:03d}/{number:06d}.jpg" for number in range(count)]
    return pd.DataFrame({"image_id": np.arange(count), "file_name": names, "license": _LICENSE["id"]})


def _write_solution(categories: np.ndarray, path: Path) -> None:
    """The withheld answers, as a perfect submission: `categories` in the order of the test ids."""
    with replacing(path) as temporary:
        pd.DataFrame({"Id": np.arange(len(categories)), "Predicted": categories}).to_csv(
            temporary, index=False
        )


# ---------------------------------------------------------------- the sample flora


def _long_tail(
    species: int, low: int, high: int, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train and test images of every species: log count falls with rank, slowly at first, as under a cap."""
    rng = np.random.default_rng([seed, 8])
    total = [
        round(low * math.pow(high / low, math.pow(1 - rank / (species - 1), 0.7))) for rank in range(species)
    ]
    total = rng.permutation(np.array(total))
    test = np.maximum(1, np.ceil(np.round(total * fraction, 6))).astype(np.int64)
    return total - test, test


def training_counts(species: int, seed: int, max_images: int) -> np.ndarray:
    """Training images of every species of the sample flora that `make_flora` makes, int64 [species]."""
    return _long_tail(species, _MIN_IMAGES, max_images, _TEST_FRACTION, seed)[0]


def _check(
    species: int, seed: int, min_images: int, max_images: int, test_fraction: float, size: int, form: str
):
    rules = [
        ("species", species >= 2, "2 or more"),
        ("seed", seed >= 0, "0 or more"),
        ("min_images", min_images >= 2, "2 or more: one to train on, one to test with"),
        ("max_images", max_images >= min_images, "min_images or more"),
        ("test_fraction", 0 < test_fraction <= 0.5, "above 0, at most 0.5"),
        ("size", 32 <= size <= 2000, "from 32 to 2000"),
        ("form", form in ("shards", "images"), '"shards" or "images"'),
    ]
    values = locals()
    for key, holds, allowed in rules:
        if not holds:
            raise UsageError(f"sample flora: {key} is {values[key]!r}, must be {allowed}.")


@contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place when the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f".{folder.name}.*.tmp"):
        if time.time() - left_over.stat().st_mtime > 3600:  # of a killed run, not of one at work
            shutil.rmtree(left_over, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()  # only an empty folder gets here
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_made(folder: Path, spec: dict[str, Any]) -> bool:
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


@contextmanager
def _blank_main() -> Iterator[None]:
    """Let workers start without running the caller's script again, whether or not it guards its main part."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def draw(tasks: list[sheet.Task], workers: int, progress: bool) -> Iterator[bytes]:
    """JPEG bytes of every task, in order; drawn in processes of their own where there are several."""
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    # In an executed notebook every redraw of the bar is kept.
    pause = 0.5 if sys.stderr.isatty() else 5.0
    bar = tqdm(total=len(tasks), desc="sheets", unit=" images", disable=not progress, mininterval=pause)
    with bar:
        if workers == 1:
            for chunk in chunks:
                for image in sheet.draw_chunk(chunk):
                    bar.update()
                    yield image
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            with _blank_main():
                futures = [pool.submit(sheet.draw_chunk, chunk) for chunk in chunks]
            try:
                for number, future in enumerate(futures):
                    drawn = future.result()
                    futures[number] = None  # so that its images do not stay in memory
                    for image in drawn:
                        bar.update()
                        yield image
            finally:
                pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Plan:
    """All of a sample flora but its images: who is drawn, in which order, with which label."""

    metadata: Metadata
    labels: LabelMap
    class_of: np.ndarray  # by position in the tree, as all that follows
    category_id: np.ndarray
    order: np.ndarray  # rows of the training images as the shards hold them
    train_position: np.ndarray
    test_position: np.ndarray
    tasks: list[sheet.Task]  # training images in that order, then the test images
    genera: int
    families: int


def _plan(
    species: int, seed: int, min_images: int, max_images: int, test_fraction: float, size: int
) -> _Plan:
    tree = phylogeny.grow(species, seed)
    names = phylogeny.name(tree, seed)
    traits = morphology.evolve(tree, seed)
    train_counts, test_counts = _long_tail(species, min_images, max_images, test_fraction, seed)
    missing = _missing_categories(species)
    genera = int(tree.genus[-1]) + 1
    metadata, category_id = _metadata(tree, names, train_counts, _INSTITUTIONS, missing, (genera // 2,), seed)
    labels = LabelMap.from_metadata(metadata)
    class_of = labels.to_class(category_id)  # by position in the tree

    rng = np.random.default_rng([seed, 9])
    position = np.empty(species, dtype=np.int64)
    position[class_of] = np.arange(species)
    train_position = position[labels.to_class(metadata.annotations["category_id"].to_numpy())]
    test_position = rng.permutation(np.repeat(np.arange(species), test_counts))
    # Shards hold the training images in random order, as the published ones do.
    order = rng.permutation(len(train_position))
    specimen = metadata.images["image_id"].str[-3:].astype(int).to_numpy()
    held = metadata.annotations["institution_id"].to_numpy()
    test_held = rng.integers(_INSTITUTIONS, size=(2, len(test_position))).min(axis=0)
    tasks = [
        sheet.Task(
            traits[train_position[row]],
            int(held[row]),
            size,
            (seed, 10, int(train_position[row]), int(specimen[row])),
        )
        for row in order
    ]
    tasks += [
        sheet.Task(traits[where], int(test_held[row]), size, (seed, 11, int(where), row))
        for row, where in enumerate(test_position)
    ]
    return _Plan(
        metadata=metadata,
        labels=labels,
        class_of=class_of,
        category_id=category_id,
        order=order,
        train_position=train_position,
        test_position=test_position,
        tasks=tasks,
        genera=genera,
        families=int(tree.family[-1]) + 1,
    )


def first_sheets(
    count: int, *, species: int, seed: int, max_images: int = 100, size: int = 480
) -> list[tuple[bytes, str]]:
    """JPEG bytes and species of the first training sheets of the flora that `make_flora` makes, drawn alone.

    They are those of its first shard, in its order, and take a fraction of a second.
    """
    plan = _plan(species, seed, _MIN_IMAGES, max_images, _TEST_FRACTION, size)
    classes = plan.class_of[plan.train_position[plan.order[:count]]]
    names = [plan.labels.names[index] for index in classes]
    return list(zip(sheet.draw_chunk(plan.tasks[: len(names)]), names, strict=True))


def make_flora(
    folder: Path,
    *,
    species: int,
    seed: int,
    min_images: int = _MIN_IMAGES,
    max_images: int = 100,
    test_fraction: float = _TEST_FRACTION,
    size: int = 480,
    form: str = "shards",
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Generate a sample flora as a data set in the published format.

    The folder gets train_metadata.json, test_metadata.json, the withheld solution.csv (Id,Predicted),
    flora.json (specification, generator version, checksum of the images) and either TFRecord shards or
    JPEG files under train_images/ and test_images/. It appears whole or not at all. When it already
    holds this flora nothing is done.

    Args:
        folder: the data set's folder; new, empty, or made by the same call before.
        species: number of species, 2 or more.
        seed: the same seed gives the same bytes on every supported stack.
        min_images, max_images: images of the rarest and the commonest species, train and test together.
        test_fraction: share of every species' images that is withheld, rounded up.
        size: pixels a side.
        form: "shards" or "images".
        workers: processes that draw; None for one a core.
        progress: show a progress bar with images a second.

    Returns:
        The folder.

    Raises:
        UsageError: an argument is out of range.
        InputError: the folder holds another flora or other files.
    """
    folder = Path(folder)
    _check(species, seed, min_images, max_images, test_fraction, size, form)
    spec = {
        "generator_version": GENERATOR_VERSION,
        "species": species,
        "seed": seed,
        "min_images": min_images,
        "max_images": max_images,
        "test_fraction": test_fraction,
        "size": size,
        "form": form,
    }
    if _is_made(folder, spec):
        return folder

    plan = _plan(species, seed, min_images, max_images, test_fraction, size)
    metadata, labels, class_of = plan.metadata, plan.labels, plan.class_of
    order, train_position, test_position = plan.order, plan.train_position, plan.test_position

    digest = hashlib.sha256()
    test_images = _test_images(len(test_position))
    with _building(folder) as temporary:
        drawn = draw(plan.tasks, workers or os.cpu_count() or 1, progress)

        def records(rows: list[int], split: str) -> Iterator[tuple[int, bytes]]:
            for row in rows:
                image = next(drawn)
                digest.update(image)
                yield row, image

        if form == "shards":
            train_records = (
                Record(
                    image=image,
                    image_id=str(metadata.images["image_id"].iat[row]),
                    class_index=int(class_of[train_position[row]]),
                    genus_index=int(labels.genus_index[class_of[train_position[row]]]),
                    family_index=int(labels.family_index[class_of[train_position[row]]]),
                )
                for row, image in records(order.tolist(), "train")
            )
            write_shards(train_records, temporary, split="train", size=size, shard_images=_SHARD_IMAGES)
            test_records = (
                Record(image=image, image_id=row)
                for row, image in records(list(range(len(test_images))), "test")
            )
            write_shards(test_records, temporary, split="test", size=size, shard_images=_SHARD_IMAGES)
        else:
            for split, rows, table in (
                ("train", order.tolist(), metadata.images),
                ("test", list(range(len(test_images))), test_images),
            ):
                for row, image in records(rows, split):
                    path = temporary / f"{split}_images" / table["file_name"].iat[row]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(image)
        write_metadata(metadata, temporary / "train_metadata.json")
        write_test_metadata(test_images, temporary / "test_metadata.json")
        _write_solution(plan.category_id[test_position], temporary / "solution.csv")
        write_json(
            temporary / "flora.json",
            {
                "spec": spec,
                "train_images": len(train_position),
                "test_images": len(test_position),
                "genera": plan.genera,
                "families": plan.families,
                "sha256": digest.hexdigest(),
            },
        )
    return folder


def make_extra_test(
    flora: Path, folder: Path, *, sheets: int = 30, workers: int | None = None, progress: bool = True
) -> Path:
    """Generate further test sheets for a sample flora: other specimens of the same species.

    The withheld fifth of the rarest species is two sheets, too few to compare methods by. This set has as many
    of every species. The folder gets test shards, test_metadata.json, solution.csv (Id,Predicted) and
    flora.json, and appears whole or not at all; the flora stays as it is.

    Args:
        flora: folder that `make_flora` has made.
        folder: the new folder; empty, or made by the same call before.
        sheets: sheets of each species.
        workers, progress: as for `make_flora`.

    Returns:
        The folder.

    Raises:
        UsageError: `sheets` is below 1.
        InputError: `flora` is no sample flora or of another generator version, or `folder` holds other files.
    """
    flora, folder = Path(flora), Path(folder)
    if sheets < 1:
        raise UsageError(f"extra test set: sheets is {sheets!r}, must be 1 or more.")
    made = read_json(flora / "flora.json").get("spec", {}) if (flora / "flora.json").is_file() else {}
    if "species" not in made:
        raise InputError(f"{flora}: not a sample flora with images, so no further sheets of it can be drawn.")
    if made["generator_version"] != GENERATOR_VERSION:
        raise InputError(
            f"{flora}: made by generator version {made['generator_version']}, this is {GENERATOR_VERSION}. "
            "Make the flora again in another folder."
        )
    spec = {key: made[key] for key in ("generator_version", "species", "seed", "size")}
    spec["extra_test_sheets"] = sheets
    if _is_made(folder, spec):
        return folder
    species, seed, size = made["species"], made["seed"], made["size"]
    tree = phylogeny.grow(species, seed)
    category_id = _category_ids(phylogeny.name(tree, seed), _missing_categories(species))
    traits = morphology.evolve(tree, seed)
    rng = np.random.default_rng([seed, 14])
    position = rng.permutation(np.repeat(np.arange(species), sheets))
    held = rng.integers(_INSTITUTIONS, size=(2, len(position))).min(axis=0)
    tasks = [
        sheet.Task(traits[where], int(held[row]), size, (seed, 15, int(where), row))
        for row, where in enumerate(position)
    ]
    digest = hashlib.sha256()
    with _building(folder) as temporary:

        def records() -> Iterator[Record]:
            for row, image in enumerate(draw(tasks, workers or os.cpu_count() or 1, progress)):
                digest.update(image)
                yield Record(image=image, image_id=row)

        write_shards(records(), temporary, split="test", size=size, shard_images=_SHARD_IMAGES)
        write_test_metadata(_test_images(len(tasks)), temporary / "test_metadata.json")
        _write_solution(category_id[position], temporary / "solution.csv")
        write_json(
            temporary / "flora.json",
            {"spec": spec, "test_images": len(tasks), "sha256": digest.hexdigest()},
        )
    return folder


# ---------------------------------------------------------------- metadata alone, with the published counts


def _full_genera(seed: int) -> tuple[np.ndarray, np.ndarray, dict[int, str], dict[int, str]]:
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


def _full_counts(tree: phylogeny.Phylogeny, seed: int) -> tuple[np.ndarray, np.ndarray]:
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
        folder: gets train_metadata.columns/ (see utils.data.metadata.write_columns) and solution.csv.
        seed: of the tree, the names and of which species and genera have which counts.
        json: also write train_metadata.json (some 350 MB) and test_metadata.json.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds another flora, tables of an earlier version, or other files.
    """
    folder = Path(folder)
    spec = {"generator_version": METADATA_VERSION, "metadata_only": True, "seed": seed, "json": json}
    if _is_made(folder, spec):
        return folder
    sizes, genus_family, families, genera = _full_genera(seed)
    tree = phylogeny.grow_sized(sizes, genus_family, seed)
    names = phylogeny.name(tree, seed, families, genera)
    train_counts, test_counts = _full_counts(tree, seed)
    metadata, category_id = _metadata(
        tree, names, train_counts, _FULL_INSTITUTIONS, _FULL_MISSING_CATEGORIES, _FULL_MISSING_GENERA, seed
    )
    answers = np.random.default_rng([seed, 13]).permutation(np.repeat(category_id, test_counts))
    with _building(folder) as temporary:
        write_columns(metadata, temporary / "train_metadata.columns")
        _write_solution(answers, temporary / "solution.csv")
        if json:
            write_metadata(metadata, temporary / "train_metadata.json")
            write_test_metadata(_test_images(len(answers)), temporary / "test_metadata.json")
        counts = {"train_images": len(metadata.images), "test_images": len(answers)}
        write_json(temporary / "flora.json", {"spec": spec, **counts})
    return folder
