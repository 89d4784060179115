"""What is not images: metadata, the start of the command line, the whole course, growth with the number of images.

In the rows of growth "limit" is the same work on a tenth of the images: linear time gives 1, a memory that does
not grow gives 1.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from benchmarks.harness import Bench, Measured, Stage, Target
from utils.files import REPOSITORY

if TYPE_CHECKING:
    from utils.data.metadata import Metadata

# ---------------------------------------------------------------- metadata


def make_full_metadata(bench: Bench) -> Path:
    """A train_metadata.json with the published numbers of species, images and pairs of genera."""
    if bench.quick:
        return _metadata_json(bench, 100)
    from utils.flora.full_size import METADATA_VERSION, make_metadata

    folder = bench.folder / f"full-metadata-v{METADATA_VERSION}"
    return make_metadata(folder, json=True) / "train_metadata.json"


def read_ours(bench: Bench, again: bool) -> Callable[[], float]:
    """`read_metadata` without a copy from an earlier call, or with one; the copy is in a folder of its own."""
    from utils.data import metadata
    from utils.data.forms import kept

    path = make_full_metadata(bench)
    scratch = bench.folder / "scratch"

    def read() -> float:
        with mock.patch.object(kept, "scratch_dir", lambda: scratch):
            metadata.read_metadata(path)
        return 1.0

    scratch.mkdir(exist_ok=True)
    if again and not any(scratch.rglob("*.columns")):
        # In another process: what it takes must not count.
        code = f"from benchmarks import harness, tables; tables.read_ours({_named(bench)}, again=False)()"
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    if not again:
        shutil.rmtree(scratch / ".metadata", ignore_errors=True)
    return read


def _named(bench: Bench) -> str:
    return f"harness.Bench(harness.Path({str(bench.folder)!r}), quick={bench.quick})"


def read_published(bench: Bench) -> Callable[[], float]:
    """As every public notebook reads it: json.load, and a DataFrame of each list."""
    import json

    import pandas as pd

    path = make_full_metadata(bench)

    def read() -> float:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
        tables = {name: pd.DataFrame(rows) for name, rows in content.items()}
        return float(len(tables) > 0)

    return read


# ---------------------------------------------------------------- the start


def start(bench: Bench, code: tuple[str, ...]) -> Callable[[], float]:
    def run() -> float:
        subprocess.run([sys.executable, *code], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
        return 1.0

    return run


# ---------------------------------------------------------------- the course


def run_course(bench: Bench, anew: bool) -> None:
    """Run the course once for all of its rows, into <folder>/course."""
    from utils.course import run as run_module

    folder = bench.folder / "course"
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "result.json").is_file():
        run_module.run_course(profile="smoke" if bench.quick else "laptop", out=folder)


def course(bench: Bench, notebook: str, training: bool) -> Callable[[], Measured]:
    """Seconds of a notebook, or of all when "", in training or in everything else."""
    from utils.files import read_json

    rows = read_json(bench.folder / "course" / "result.json")["notebooks"]
    rows = [row for row in rows if notebook in ("", row["name"])]
    in_training = sum(row["training_seconds"] for row in rows)
    seconds = in_training if training else sum(row["seconds"] for row in rows) - in_training
    return lambda: Measured(1, seconds)


def _course_stages() -> tuple[Stage, ...]:
    from utils.course.notebooks import COURSE

    def stage(name: str, notebook: str, targets: tuple[Target, ...] = (), note: str = "") -> Stage:
        variants = {"ours": partial(course, notebook=notebook, training=False)}
        if notebook in ("", "03_train_efficientnetv2"):
            variants["limit"] = partial(course, notebook=notebook, training=True)
        prepare = partial(run_course, anew=not notebook)
        return Stage(name, "s", variants, targets, note, prepare, only_named=True)

    note = "One run of `./course run`. The column of the limit is the training, the others are what is not training."
    whole = stage("course without training", "", (Target("seconds", 240),), note)
    return (whole, *(stage(f"course, {name}", name) for name in COURSE))


# ---------------------------------------------------------------- growth

_SIDE = 32  # pixels of the stand-ins for images


def epithet(number: int) -> str:
    """A word of letters alone for a number: an epithet with digits is none."""
    return "speci" + "".join("abcdefghij"[int(digit)] for digit in f"{number:05d}")


def _metadata(count: int) -> "Metadata":
    """Tables of `count` images of species with 50 each."""
    import pandas as pd

    from utils.data.forms.sheets import empty_table
    from utils.data.metadata import Metadata

    species = range(max(count // 50, 2))
    ids = [f"{row // 50:05d}__{row % 50:03d}" for row in range(count)]
    of_species = [row % len(species) for row in range(count)]
    names = [f"{row // 1000:03d}/{row:06d}.jpg" for row in range(count)]
    return Metadata(
        annotations=pd.DataFrame(
            {"image_id": ids, "category_id": of_species, "genus_id": 0, "institution_id": 0}
        ),
        images=pd.DataFrame({"image_id": ids, "file_name": names, "license": 0}),
        categories=pd.DataFrame(
            {
                "category_id": species,
                "scientificName": [f"Planta {epithet(number)}" for number in species],
                "authors": "L.",
                "family": "Plantaceae",
                "genus": "Planta",
                "species": [epithet(number) for number in species],
            }
        ),
        genera=pd.DataFrame({"genus_id": [0], "genus": ["Planta"]}),
        distances=empty_table("distances"),
        institutions=pd.DataFrame({"institution_id": [0], "collectionCode": ["H"]}),
        licenses=pd.DataFrame([{"id": 0, "name": "CC0", "url": ""}]),
    )


def _metadata_json(bench: Bench, count: int) -> Path:
    from utils.data.forms.published import write_metadata

    path = bench.folder / f"metadata-{count}.json"
    if not path.is_file():
        write_metadata(_metadata(count), path)
    return path


def small_jpeg(number: int) -> bytes:
    """A small image that is unlike all others."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    image = Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _image_files(bench: Bench, count: int) -> Path:
    """A folder with images and the metadata.json of the first `count` of them."""
    folder = bench.folder / "small-images"
    names = _metadata(count).images["file_name"].tolist()
    if not (folder / names[-1]).is_file():
        for number, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(small_jpeg(number))
    return folder


def _test_shards(bench: Bench, count: int) -> Path:
    """Test shards of `count` small images, whose ids are numbers."""
    from utils.own.shards import Record, write_shards

    folder = bench.folder / f"small-test-{count}"
    if not folder.is_dir():
        made = bench.folder / f".small-test-{count}"
        shutil.rmtree(made, ignore_errors=True)
        records = (Record(small_jpeg(number), number) for number in range(count))
        write_shards(records, made, split="test", size=_SIDE)
        made.rename(folder)
    return folder


def _count(bench: Bench, thousands: int) -> int:
    return 20 * thousands if bench.quick else 1000 * thousands


def grown_metadata(bench: Bench, thousands: int) -> Callable[[], float]:
    from utils.data.metadata import read_metadata

    count = _count(bench, thousands)
    path = _metadata_json(bench, count)
    return lambda: float(len(read_metadata(path).images))


def grown_writing(bench: Bench, thousands: int) -> Callable[[], float]:
    """Files to shards, as `ours` of benchmarks.writing."""
    from utils.own.write import write_from_labels
    from utils.startup import import_tensorflow

    import_tensorflow()
    count = _count(bench, thousands)
    source, images = _metadata_json(bench, count), _image_files(bench, count)
    out = bench.folder / f"grown-{count}"

    def run() -> float:
        shutil.rmtree(out, ignore_errors=True)
        write_from_labels(source, images, out, size=_SIDE, progress=False)
        return count

    return run


def grown_verifying(bench: Bench, thousands: int) -> Callable[[], float]:
    from utils.own.verify import verify
    from utils.startup import import_tensorflow

    import_tensorflow()
    count = _count(bench, thousands)
    folder = _test_shards(bench, count)

    def run() -> float:
        if problems := verify([folder]):
            raise RuntimeError(problems[0])
        return count

    return run


def grown_predictions(bench: Bench, thousands: int) -> Callable[[], float]:
    """Test shards to a submission, with a network that only takes the mean colour."""
    from utils.startup import import_tensorflow

    tf = import_tensorflow()
    from utils.data.batches import evaluation_dataset
    from utils.data.labels import LabelMap
    from utils.evaluation.predict import predict
    from utils.evaluation.submission import write_submission

    count = _count(bench, thousands)
    shards = sorted(_test_shards(bench, count).glob("*.tfrec"))
    labels = LabelMap.from_metadata(_metadata(5000))
    weights = tf.random.stateless_normal([3, labels.n_classes], seed=[0, 0])

    def network(images: "tf.Tensor", training: bool) -> "tf.Tensor":
        return tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2]) @ weights

    def run() -> float:
        dataset = evaluation_dataset(shards, image_size=_SIDE, batch_size=32)
        predictions = predict(network, dataset, progress=False)
        write_submission(predictions, labels, range(count), bench.folder / "submission.csv")
        return len(predictions)

    return run


def prepare_growth(bench: Bench, thousands: int) -> None:
    """All inputs of a row, before any of its processes."""
    for size in (thousands, thousands // 10):
        _metadata_json(bench, _count(bench, size))
        _test_shards(bench, _count(bench, size))
    _image_files(bench, _count(bench, thousands))


def _growth(name: str, run: Callable[..., Callable[[], float]], thousands: int, flat: bool) -> Stage:
    variants = {"ours": partial(run, thousands=thousands), "limit": partial(run, thousands=thousands // 10)}
    targets = (
        Target("speed / limit", round(1 / 1.2, 3)),
        *((Target("memory / limit", 1.1),) if flat else ()),
    )
    return Stage(
        f"growth of {name}, {thousands // 10} to {thousands} thousand",
        "images/s",
        variants,
        targets,
        prepare=partial(prepare_growth, thousands=thousands),
        fresh=True,
    )


_SIZE = "350 MB of JSON with the published numbers of species, images and pairs of genera. "

STAGES = (
    Stage(
        "metadata, first time",
        "s",
        {"ours": partial(read_ours, again=False), "published": read_published},
        (Target("speed / published", 3), Target("memory / published", 0.6)),
        _SIZE + "Ours checks all tables, and leaves a copy for the next time.",
        make_full_metadata,
        fresh=True,
    ),
    Stage(
        "metadata, again",
        "s",
        {"ours": partial(read_ours, again=True), "published": read_published},
        (Target("speed / published", 20),),
        _SIZE + "Ours reads the copy that the first time left, as long as the file is the same.",
        make_full_metadata,
        fresh=True,
    ),
    Stage(
        "start of python -m utils --help",
        "s",
        {"ours": partial(start, code=("-m", "utils", "--help")), "limit": partial(start, code=("-c", ""))},
        (Target("seconds", 0.5),),
        "The limit is an empty Python. Memory is of the process that waits.",
    ),
    *(
        _growth(name, run, thousands, flat)
        for name, run, flat in (
            ("metadata", grown_metadata, False),
            ("shards written", grown_writing, True),
            ("shards verified", grown_verifying, True),
            ("prediction ids", grown_predictions, True),
        )
        for thousands in (10, 100)
    ),
    *_course_stages(),
)
