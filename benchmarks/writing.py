"""Shards written from photographs of 1000 px: images a second from files to a finished folder.

The limit decodes, resizes and encodes the same files in as many threads, with the same library and options,
and writes nothing. The published shards were written by a script that is not public: in its place stands what
most would write, a pool of processes with OpenCV, where that is installed (it is no part of the course).
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

from benchmarks.harness import Bench, Stage, Target

SIDE, SIZE, QUALITY = 1000, 480, 95
_CORES = os.cpu_count() or 1


def make_photographs(bench: Bench) -> Path:
    """A folder of sheets of 1000 px with labels.csv, made if it is not there.

    Sheets of the sample flora enlarged, at a JPEG quality that gives 145 KB; the published 1000 px images have 142 KB.
    """
    from utils.flora import morphology, phylogeny, sheet

    count = 8 if bench.quick else 1000  # a full shard
    folder = bench.folder / f"photographs-{count}"
    if (folder / "labels.csv").is_file():
        return folder
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    traits = morphology.evolve(phylogeny.grow(40, seed=0), seed=0)
    rows = ["file_name,scientificName"]
    for number in range(count):
        drawn = sheet.draw_sheet(traits[number % 4], number % 16, (0, 3, number))
        drawn = drawn.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        drawn.save(folder / f"{number:05d}.jpg", quality=85)
        rows.append(f"{number:05d}.jpg,Planta speci{'abcd'[number % 4]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")  # last: the folder is whole
    return folder


def _photographs(bench: Bench) -> list[Path]:
    return sorted(make_photographs(bench).glob("*.jpg"))


def ours(bench: Bench) -> Callable[[], float]:
    """As `./course tfrecords write` does it: with table, checksums, search for duplicates, label map, manifest."""
    from utils.own.write import write_from_labels
    from utils.startup import import_tensorflow

    import_tensorflow()
    source, out = make_photographs(bench), bench.folder / "written"
    count = len(_photographs(bench))

    def run() -> float:
        shutil.rmtree(out, ignore_errors=True)
        write_from_labels(source / "labels.csv", source, out, size=SIZE, quality=QUALITY, progress=False)
        return count

    return run


def alone(bench: Bench) -> Callable[[], float]:
    """Decode at 1/2, resize and encode, in one thread a core."""
    from PIL import Image

    paths = _photographs(bench)

    def one(path: Path) -> int:
        with Image.open(path) as image:
            image.draft(None, (SIZE, SIZE))
            small = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        small.save(buffer, "JPEG", quality=QUALITY)
        return buffer.tell()

    def run() -> float:
        with ThreadPoolExecutor(_CORES) as pool:
            return sum(size > 0 for size in pool.map(one, paths))

    return run


def _with_opencv(path: str) -> bytes:
    import cv2

    cv2.setNumThreads(1)
    small = cv2.resize(cv2.imread(path), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def opencv_pool(bench: Bench) -> Callable[[], float]:
    """A pool of one process a core that is already started; this process writes the records, and no more."""
    from utils.startup import import_tensorflow

    tf = import_tensorflow()
    paths = [str(path) for path in _photographs(bench)]
    pool = get_context("spawn").Pool(_CORES)
    pool.map(_with_opencv, paths[: 2 * _CORES])

    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def run() -> float:
        with tf.io.TFRecordWriter(str(bench.folder / "opencv.tfrec")) as writer:
            for number, jpeg in enumerate(pool.imap(_with_opencv, paths, chunksize=4)):
                values = {"image": jpeg, "image_id": paths[number].encode(), "scientificName": number % 4}
                values |= {"genus": 0, "family": 0}
                features = tf.train.Features(feature={name: feature(value) for name, value in values.items()})
                writer.write(tf.train.Example(features=features).SerializeToString())
        return len(paths)

    return run


_OPENCV = importlib.util.find_spec("cv2") is not None

STAGES = (
    Stage(
        "shards written from 1000 px",
        "images/s",
        {"ours": ours, **({"published": opencv_pool} if _OPENCV else {}), "limit": alone},
        (Target("speed / limit", 0.85), *((Target("speed / published", 1.0),) if _OPENCV else ())),
        "Photographs have 145 KB, and are decoded at 1/2 of their size. Ours also takes every file's checksum, "
        "looks for duplicates and checks the table. In the place of the published way is a pool of OpenCV "
        "processes, which resizes by area means; its memory is that of the process that writes, without the pool's"
        + ("." if _OPENCV else ". It is not shown: pip install opencv-python-headless."),
        make_photographs,
    ),
)
