"""The sample flora as a data set in the published formats, and metadata alone with the published counts."""

import hashlib
import math
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from utils.data.forms.published import write_metadata, write_test_metadata
from utils.data.labels import LabelMap
from utils.data.metadata import Metadata
from utils.files import InputError, building, check_option, cores, read_json, uninterrupted, write_json
from utils.flora import morphology, phylogeny, sheet
from utils.flora.tables import (
    MIN_IMAGES,
    TEST_FRACTION,
    check_options,
    drawing_alone,
    ids_of,
    images_of_test,
    missing_categories,
    tables_of_tree,
    write_solution,
)
from utils.own.shards import Record, write_shards

GENERATOR_VERSION = 1  # same version, same spec: same bytes. Any change to a sheet's bytes raises it.
_INSTITUTIONS = 16  # of the sample; the published set has 60
_SHARD_IMAGES = 256
_CHUNK = 16  # sheets a worker draws at a time


def long_tail(species: int, low: int, high: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train and test images of every species, int64 [species]: log count falls with rank, slowly at first."""
    rng = np.random.default_rng([seed, 8])
    total = [
        round(low * math.pow(high / low, math.pow(1 - rank / (species - 1), 0.7))) for rank in range(species)
    ]
    total = rng.permutation(np.array(total))
    test = np.maximum(1, np.ceil(np.round(total * fraction, 6))).astype(np.int64)
    return total - test, test


def training_counts(species: int, seed: int, max_images: int) -> np.ndarray:
    """Training images of every species of the sample flora that `make_flora` makes, int64 [species]."""
    return long_tail(species, MIN_IMAGES, max_images, TEST_FRACTION, seed)[0]


@contextmanager
def _blank_main() -> Iterator[None]:
    """Let workers start without running the caller's script again, whether or not it guards its main part."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _end_with_parent() -> None:
    """Let a worker end when the process that started it is killed, even before this, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def draw(tasks: list[sheet.Task], workers: int, progress: bool) -> Iterator[bytes]:
    """JPEG bytes of every task, in order; drawn in processes of their own where there are several."""
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    with tqdm(total=len(tasks), desc="sheets", unit=" images", disable=not progress) as bar:
        if workers == 1:
            for chunk in chunks:
                for image in sheet.draw_chunk(chunk):
                    bar.update()
                    yield image
            return
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent) as pool:
            with _blank_main(), uninterrupted():  # a worker that is half begun would tell of its broken pipe
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
    order: np.ndarray  # rows of the training images as the shards hold them
    classes: np.ndarray  # of the training images in that order
    answers: np.ndarray  # category_id of the test images
    tasks: list[sheet.Task]  # training images in that order, then the test images
    counts: dict[str, int]  # genera, families


def _plan(
    species: int, seed: int, min_images: int, max_images: int, test_fraction: float, size: int
) -> _Plan:
    tree = phylogeny.grow(species, seed)
    names = phylogeny.name(tree, seed)
    traits = morphology.evolve(tree, seed)
    train_counts, test_counts = long_tail(species, min_images, max_images, test_fraction, seed)
    missing = missing_categories(species)
    genera = int(tree.genus[-1]) + 1
    metadata, category_id = tables_of_tree(
        tree, names, train_counts, _INSTITUTIONS, missing, (genera // 2,), seed
    )
    labels = LabelMap.from_metadata(metadata)

    rng = np.random.default_rng([seed, 9])
    position = np.argsort(labels.to_class(category_id))  # of each class in the tree
    classes = labels.to_class(metadata.annotations["category_id"])
    train_position = position[classes]
    test_position = rng.permutation(np.repeat(np.arange(species), test_counts))
    # Shards hold the training images in random order, as the published ones do.
    order = rng.permutation(len(train_position))
    specimen = metadata.images["image_id"].str[-3:].astype(int).to_numpy()
    held = metadata.annotations["institution_id"].to_numpy()
    tasks = [
        sheet.Task(
            traits[train_position[row]],
            int(held[row]),
            size,
            (seed, 10, int(train_position[row]), int(specimen[row])),
        )
        for row in order
    ]
    tasks += _test_tasks(traits, test_position, rng, size, (seed, 11))
    return _Plan(
        metadata=metadata,
        labels=labels,
        order=order,
        classes=classes[order],
        answers=category_id[test_position],
        tasks=tasks,
        counts={"genera": genera, "families": int(tree.family[-1]) + 1},
    )


def _test_tasks(
    traits: list[morphology.Traits],
    position: np.ndarray,
    rng: np.random.Generator,
    size: int,
    key: tuple[int, int],
) -> list[sheet.Task]:
    """Test sheets of the species at these positions of the tree, of institutions as `rng` draws them."""
    held = rng.integers(_INSTITUTIONS, size=(2, len(position))).min(axis=0)
    return [
        sheet.Task(traits[where], int(held[row]), size, (*key, int(where), row))
        for row, where in enumerate(position)
    ]


def first_sheets(
    count: int, *, species: int, seed: int, max_images: int = 100, size: int = 480
) -> list[tuple[bytes, str]]:
    """JPEG bytes and species of the first training sheets of the flora that `make_flora` makes, drawn alone.

    They are those of its first shard, in its order, and take a fraction of a second.
    """
    plan = _plan(species, seed, MIN_IMAGES, max_images, TEST_FRACTION, size)
    names = [plan.labels.names[index] for index in plan.classes[:count]]
    return list(zip(sheet.draw_chunk(plan.tasks[: len(names)]), names, strict=True))


def make_flora(
    folder: Path,
    *,
    species: int,
    seed: int,
    min_images: int = MIN_IMAGES,
    max_images: int = 100,
    test_fraction: float = TEST_FRACTION,
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
    check_options(species, seed, min_images, max_images, test_fraction, size, form)
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
    with drawing_alone(folder, spec) as to_do:
        if to_do:
            _draw_flora(folder, spec, workers, progress)
    return folder


def _draw_flora(folder: Path, spec: dict[str, Any], workers: int | None, progress: bool) -> None:
    size, form = spec["size"], spec["form"]
    plan = _plan(
        *(spec[key] for key in ("species", "seed", "min_images", "max_images", "test_fraction", "size"))
    )
    metadata, labels, order = plan.metadata, plan.labels, plan.order

    digest = hashlib.sha256()
    test_images = images_of_test(len(plan.answers))
    with building(folder) as temporary, ExitStack() as stack:

        def drawn() -> Iterator[bytes]:
            for image in draw(plan.tasks, workers or cores(), progress):
                digest.update(image)
                yield image

        images = stack.enter_context(closing(drawn()))  # its workers and its bar end before an error is told
        if form == "shards":
            ids = metadata.images["image_id"].to_numpy()[order]
            train_records = (
                Record(next(images), image_id, index, labels.genus_index[index], labels.family_index[index])
                for image_id, index in zip(ids, plan.classes, strict=True)
            )
            write_shards(train_records, temporary, split="train", size=size, shard_images=_SHARD_IMAGES)
            test_records = (Record(image, number) for number, image in enumerate(images))
            write_shards(test_records, temporary, split="test", size=size, shard_images=_SHARD_IMAGES)
        else:
            for split, names in (
                ("train", metadata.images["file_name"].to_numpy()[order]),
                ("test", test_images["file_name"]),
            ):
                for name, image in zip(names, images, strict=False):
                    path = temporary / f"{split}_images" / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(image)
        write_metadata(metadata, temporary / "train_metadata.json")
        write_test_metadata(test_images, temporary / "test_metadata.json")
        write_solution(plan.answers, temporary / "solution.csv")
        counts = {"train_images": len(order), "test_images": len(plan.answers), **plan.counts}
        write_json(temporary / "flora.json", {"spec": spec, **counts, "sha256": digest.hexdigest()})


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
    check_option("extra test set: sheets", sheets, sheets >= 1, "1 or more")
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
    with drawing_alone(folder, spec) as to_do:
        if to_do:
            _draw_extra_test(folder, spec, workers, progress)
    return folder


def _draw_extra_test(folder: Path, spec: dict[str, Any], workers: int | None, progress: bool) -> None:
    species, seed, size, sheets = (spec[key] for key in ("species", "seed", "size", "extra_test_sheets"))
    tree = phylogeny.grow(species, seed)
    category_id = ids_of(phylogeny.name(tree, seed)["scientificName"], missing_categories(species))
    traits = morphology.evolve(tree, seed)
    rng = np.random.default_rng([seed, 14])
    position = rng.permutation(np.repeat(np.arange(species), sheets))
    tasks = _test_tasks(traits, position, rng, size, (seed, 15))
    digest = hashlib.sha256()
    with building(folder) as temporary:

        def records() -> Iterator[Record]:
            for row, image in enumerate(draw(tasks, workers or cores(), progress)):
                digest.update(image)
                yield Record(image=image, image_id=row)

        write_shards(records(), temporary, split="test", size=size, shard_images=_SHARD_IMAGES)
        write_test_metadata(images_of_test(len(tasks)), temporary / "test_metadata.json")
        write_solution(category_id[position], temporary / "solution.csv")
        write_json(
            temporary / "flora.json", {"spec": spec, "test_images": len(tasks), "sha256": digest.hexdigest()}
        )
