"""What Slurm costs and gives: python -m benchmarks.cluster, where sbatch and srun are (see notebooks/SLURM.md)

Seconds to submit a run of a batch; seconds until a training of one and of two tasks begins, and has an epoch; images a
second that one and two jobs of one core write. The jobs of the first row are held and cancelled. Folders are made in
--folder, which all nodes must see, and removed. The cluster should have room at once, so that nothing waits.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.experiments import arrays, slurm
from utils.experiments.spec import read_batch
from utils.files import REPOSITORY

COURSE = [sys.executable, "-m", "utils"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def submission(folder: Path, runs: int) -> float:
    """Seconds a run that `batch --slurm` takes to lay down and submit, and to ask for, an array of held jobs."""
    file = folder / "many.batch.yaml"
    file.write_text(
        f"run: train\nprofiles: [smoke]\nseeds: [{', '.join(map(str, range(runs)))}]\ntest: none\n"
    )
    batch = read_batch(file, folder / "many")
    begin = time.monotonic()
    ((job, part),) = arrays.jobs(batch, batch.runs, {"hold": ""}, None)
    number = arrays.submit(batch, job, part)
    assert all(state.startswith("queued") for state in arrays.states(batch).values())
    seconds = time.monotonic() - begin
    subprocess.run(["scancel", number], check=True)
    return seconds / runs


def starts(folder: Path, data: Path, tasks: int) -> tuple[float, float]:
    """Seconds from srun until `train` names its devices, and until its first epoch has ended."""
    settings = ["--profile", "smoke", "--data", str(data), "--out", str(folder / f"train{tasks}")]
    command = ["srun", f"--ntasks={tasks}", "--nodes=1", *COURSE, "train", *settings]
    begin, found = time.monotonic(), []
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith(("Devices:", "epoch 1/")):
            found.append(time.monotonic() - begin)
    assert process.wait() == 0 and len(found) == 2, f"{' '.join(command)} failed"
    return found[0], found[1]


def writing(folder: Path, images: Path, jobs: int) -> float:
    """Images a second from the submission to the closed folder."""
    out = folder / f"shards{jobs}"
    command = [
        *COURSE,
        "tfrecords",
        "write",
        "--images",
        str(images),
        "--out",
        str(out),
        "--shard-images",
        "100",
    ]
    begin = time.monotonic()
    options = ["--slurm", str(jobs), "--sbatch", "cpus-per-task=1"]
    subprocess.run([*command, *options], env=ENVIRONMENT, check=True, capture_output=True)
    while any(job.name.startswith(out.name) for job in slurm.queue()):
        time.sleep(0.2)
    seconds = time.monotonic() - begin
    assert (out / "manifest.json").is_file(), f"see {out}.slurm"
    return sum(1 for _ in images.rglob("*.jpg")) / seconds


def repeated(repeats: int, measure: Callable[[Path], float | tuple[float, ...]]) -> Iterator[str]:
    """Median, least and most of each figure that `measure` gives, each time in a folder of its own."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            figures = measure(Path(folder))
            found.append(figures if isinstance(figures, tuple) else (figures,))
    for each in zip(*found, strict=True):
        yield f"{statistics.median(each):.3g} ({min(each):.3g} to {max(each):.3g})"


def make_images(folder: Path, count: int) -> Path:
    """JPEGs of 1,000 px, as scans are, in folders of two species."""
    import numpy as np
    from PIL import Image

    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (100, 100, 3), dtype=np.uint8)
        path = folder / ("Aster alba", "Rosa nova")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((1000, 1000), Image.Resampling.BICUBIC).save(path, quality=90)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "data" / "bench")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--images", type=int, default=2000)
    given = parser.parse_args()
    slurm.need_slurm("there is nothing to measure here")
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(given.folder)
    version = subprocess.run(
        ["sbatch", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    print(
        f"{version}, {platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it starts"
    )
    work = Path(tempfile.mkdtemp())
    try:
        images = make_images(work / "images", given.images)
        flora = [*COURSE, "flora", "--species", "8", "--out", str(work / "flora")]
        subprocess.run(flora, env=ENVIRONMENT, check=True, capture_output=True)
        rows = [("submit a run, s", lambda folder: submission(folder, given.runs))]
        for tasks in (1, 2):
            name = f"train by {tasks} task{'s' * (tasks > 1)}: devices named, s; first epoch done, s"
            rows.append((name, lambda folder, tasks=tasks: starts(folder, work / "flora", tasks)))
        for jobs in (1, 2):
            name = f"write by {jobs} job{'s' * (jobs > 1)}, images/s"
            rows.append((name, lambda folder, jobs=jobs: writing(folder, images, jobs)))
        for name, measure in rows:
            print(f"{name}: {'; '.join(repeated(given.repeats, measure))}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
