"""Load: each command at a size and at ten times it, watched from outside: `python -m benchmarks.load --out FOLDER`.

For every call: seconds, processor seconds, the most memory and open files of its processes, and the longest time in
which it said nothing. Memory is the sum over the processes, in which shared pages count for each. What a call works
on is made once in FOLDER. It fails (exit code 1) where a call fails, where memory or time grows faster than the input,
or where more than 15 seconds pass without a word: a line is due every ten, and a busy machine is late.
"""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.kills import command_line, environment
from benchmarks.tables import epithet, small_jpeg
from utils.files import REPOSITORY

SPECIES = 15_501
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_EVERY = 0.1  # seconds between two looks
SILENT = 15  # seconds
SLACK = 1.5  # times as fast as its input may anything grow, with noise


@dataclass
class Watched:
    """What one call took."""

    code: int
    seconds: float = 0.0
    processor: float = 0.0  # seconds of processor time
    memory: float = 0.0  # bytes at the peak
    files: int = 0  # open at once, of one process
    silence: float = 0.0  # seconds, the longest
    said: bytes = b""  # the end of it


@dataclass(frozen=True)
class Load:
    """A command for a folder of inputs and a size."""

    sizes: tuple[int, ...]
    unit: str
    command: Callable[[Path, int], list[str]]


def watch(command: list[str]) -> Watched:
    """Run a command to its end and look at its processes meanwhile; on Linux, by /proc."""
    found, began = Watched(0), time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(REPOSITORY, PYTHONUNBUFFERED="1"),
    ) as process:
        heard = time.monotonic()
        selector = selectors.DefaultSelector()
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(_EVERY):
                words = os.read(process.stdout.fileno(), 65536)
                if not words:
                    break
                found.said = (found.said + words)[-2000:]
                found.silence, heard = max(found.silence, time.monotonic() - heard), time.monotonic()
            _look(process.pid, found)
        found.silence = max(found.silence, time.monotonic() - heard)
    found.code, found.seconds = process.returncode, time.monotonic() - began
    return found


def _look(session: int, found: Watched) -> None:
    memory, processor = 0, 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session:
                continue
            memory += int((folder / "statm").read_text().split()[1]) * _PAGE
            processor += sum(int(ticks) for ticks in fields[11:15]) / _TICKS
            found.files = max(found.files, sum(1 for _ in (folder / "fd").iterdir()))
    found.memory, found.processor = max(found.memory, memory), max(found.processor, processor)


# ---------------------------------------------------------------- what the commands work on


def _name(number: int) -> str:
    """A species of letters alone, ten to a genus."""
    return f"Planta{epithet(number // 10)} {epithet(number)}"


def _table(folder: Path, rows: int) -> Path:
    """A CSV of sheets of all species, with a collector of long words."""
    path = folder / f"rows-{rows}.csv"
    if not path.exists():
        from utils.files import replacing

        with replacing(path) as temporary, temporary.open("w") as file:
            file.write("file_name,scientificName,family,collector\n")
            for row in range(rows):
                name = _name(row % SPECIES)
                file.write(f"{row // 1000:04d}/{row:07d}.jpg,{name},Plantaceae,collector {row % 997}\n")
    return path


def _images(folder: Path, count: int) -> Path:
    """As many small JPEGs in one folder, with labels.csv."""
    images = folder / f"images-{count}"
    if not (images / "labels.csv").exists():
        images.mkdir(exist_ok=True)
        rows = ["file_name,scientificName"]
        for number in range(count):
            (images / f"{number:06d}.jpg").write_bytes(small_jpeg(number))
            rows.append(f"{number:06d}.jpg,{_name(number % SPECIES)}")
        (images / "labels.csv").write_text("\n".join(rows) + "\n")  # last: the folder is whole
    return images


def _large(folder: Path, megapixels: int) -> Path:
    """Four scans of so many megapixels with labels.csv."""
    from PIL import Image

    images = folder / f"scans-{megapixels}"
    if not (images / "labels.csv").exists():
        images.mkdir(exist_ok=True)
        scan = Image.effect_noise((1000, megapixels), 40).resize((10_000, 100 * megapixels)).convert("RGB")
        rows = ["file_name,scientificName"]
        for number in range(4):
            scan.save(images / f"{number}.jpg", quality=80 + number)
            rows.append(f"{number}.jpg,{_name(number % 2)}")
        (images / "labels.csv").write_text("\n".join(rows) + "\n")
    return images


def _shards(folder: Path, images: Path, name: str, *words: object) -> Path:
    """Shards of a folder of images, by the command that is measured too."""
    out = folder / name
    _made(out, "tfrecords", "write", "--images", images, "--size", 32, *words, labels=images / "labels.csv")
    return out


def _made(out: Path, *words: object, labels: Path | None = None) -> None:
    if not out.exists():
        more = ("--labels", labels) if labels else ()
        subprocess.run(
            command_line(*words, *more, "--out", out), check=True, cwd=REPOSITORY, capture_output=True
        )


def _run(folder: Path) -> Path:
    """A trained run of profile smoke, on a small flora."""
    _made(folder / "flora", "flora", "--species", 6, "--max-images", 9)
    _made(folder / "run", "train", "--profile", "smoke", "--data", folder / "flora")
    return folder / "run"


def _full(folder: Path) -> Path:
    """Metadata of the published size as JSON, and a submission for it."""
    from utils.files import read_json

    out = folder / "full"
    _made(out, "flora", "--metadata-only", "--json")
    if not (out / "submission.csv").exists():
        ids = [row["image_id"] for row in read_json(out / "test_metadata.json")]
        rows = "".join(f"{image},{number % 1000}\n" for number, image in enumerate(ids))
        (out / "submission.csv").write_text("Id,Predicted\n" + rows)
    return out


def _batch(folder: Path, runs: int) -> Path:
    path = folder / f"runs-{runs}.batch.yaml"
    grid = f"grid: {{max_lr: [{', '.join(f'{(each + 1) / 1000:g}' for each in range(max(runs // 10, 1)))}]}}"
    path.write_text(f"run: train\nprofiles: [smoke]\nseeds: [{', '.join(map(str, range(10)))}]\n{grid}\n")
    return path


def _written(folder: Path, images: Path, *words: object) -> list[str]:
    """`write` into a new place, so that nothing is there already."""
    out = folder / f"written-{time.time_ns()}"
    return command_line(
        "tfrecords", "write", "--images", images, "--labels", images / "labels.csv", "--out", out, *words
    )


def _predicted(folder: Path, count: int) -> list[str]:
    out, images = folder / f"answers-{count}", _images(folder, count)
    words = ("--out", out.with_suffix(".csv"), "--html", out.with_suffix(".html"))
    return command_line("predict", "--model", _run(folder), "--images", images, *words)


LOADS = {
    "metadata": Load((100_000, 1_000_000), "rows", lambda f, n: command_line("metadata", _table(f, n))),
    "split": Load(
        (100_000, 1_000_000),
        "rows",
        lambda f, n: command_line("split", _table(f, n), "--group", "collector", "--out", f / "split.csv"),
    ),
    "write": Load((10_000, 100_000), "images", lambda f, n: _written(f, _images(f, n), "--size", 32)),
    "write, scans of 190 megapixels": Load((4,), "images", lambda f, n: _written(f, _large(f, 190))),
    "verify": Load(
        (10_000, 100_000),
        "images",
        lambda f, n: command_line("tfrecords", "verify", _shards(f, _images(f, n), f"shards-{n}")),
    ),
    "verify, one image a shard": Load(
        (200, 2_000),
        "shards",
        lambda f, n: command_line(
            "tfrecords", "verify", _shards(f, _images(f, n), f"single-{n}", "--shard-images", 1)
        ),
    ),
    "inspect, one image a shard": Load(
        (200, 2_000),
        "shards",
        lambda f, n: command_line(
            "tfrecords", "inspect", _shards(f, _images(f, n), f"single-{n}", "--shard-images", 1)
        ),
    ),
    "predict with page": Load((1_000, 10_000), "images", _predicted),
    "flora --metadata-only --json": Load(
        (SPECIES,),
        "species",
        lambda f, n: command_line(
            "flora", "--metadata-only", "--json", "--out", f / f"full-{time.time_ns()}"
        ),
    ),
    "submission validate": Load(
        (210_407,),
        "rows",
        lambda f, n: command_line("submission", "validate", _full(f) / "submission.csv", "--data", _full(f)),
    ),
    "batch --dry-run": Load(
        (500, 5_000),
        "runs",
        lambda f, n: command_line("batch", _batch(f, n), "--dry-run", "--out", f / "batch"),
    ),
}


def faults(watched: dict[int, Watched]) -> list[str]:
    """What is not as it should be in the calls of one load, by size."""
    found = [f"exit code {each.code}" for each in watched.values() if each.code]
    found += [f"silent for {each.silence:.0f} s" for each in watched.values() if each.silence > SILENT]
    (small, first), (large, last) = min(watched.items()), max(watched.items())
    for what in ("processor", "memory"):
        if getattr(last, what) > SLACK * large / small * getattr(first, what):
            found.append(f"{what} grows faster than the input")
    return found


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--load", "names", multiple=True, type=click.Choice([*LOADS]), help="Only this one.")
@click.option("--quick", is_flag=True, help="A hundredth of the sizes: shows that it works, no more.")
def main(out: Path, names: tuple[str, ...], quick: bool) -> None:
    """Measure what size costs; see the head of this file."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    head = ("command", "size", "seconds", "processor", "MB", "open files", "silent, s")
    click.echo(" | ".join(head))
    bad = False
    for name in names or LOADS:
        load = LOADS[name]
        watched = {}
        for size in load.sizes:
            size = max(size // 100, 4) if quick else size
            command = load.command(out, size)
            each = watched[size] = watch(command)
            figures = (
                f"{each.seconds:.1f}",
                f"{each.processor:.1f}",
                f"{each.memory / 1e6:,.0f}",
                each.files,
            )
            row = (name, f"{size:,} {load.unit}", *figures, f"{each.silence:.1f}")
            click.echo(" | ".join(map(str, row)))
            if each.code:
                click.echo(each.said.decode(errors="replace"), err=True)
        for fault in faults(watched):
            bad = True
            click.echo(f"  {name}: {fault}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
