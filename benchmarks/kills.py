"""Kills: what the course does for long, killed at random moments, called again, and compared with an undisturbed call.

`python -m benchmarks.kills --kills 100 --seed 0` kills every kind of work in turn, two of three times by SIGKILL, else
by SIGTERM, and prints a table. Half of the moments are drawn over the time of an undisturbed call, half lie within some
milliseconds of a change in the folder. It fails (exit code 1) when a finished file is lost or changed, a half one lies
under a final name, the next call ends in another result, something of the dead process stays, or a SIGTERM does not end
with code 143 and a line on how to go on. Set-ups are killed by tests/setup/test_environment.py, on packages of its own.
"""

import contextlib
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from utils.files import REPOSITORY

COLUMNS = ("kills", "SIGTERM", "came late", "lost", "half", "differs", "left over", "processes", "bad end")
GOES_ON = "the same command again goes on"
_MARK = "NAFLORA_KILLS"  # variable by which a call's processes are known


@dataclass(frozen=True)
class Kind:
    """One kind of work: a command that writes into an empty folder `out`."""

    command: Callable[["Inputs", Path], list[str]]
    exact: bool = True  # whether two calls leave the same bytes; else what `told` gives
    told: Callable[[Path], Any] = lambda out: None
    variables: Callable[[Path], dict[str, str]] = lambda out: {}


class Inputs:
    """What the kinds work on, made once in a folder, each when it is first needed."""

    def __init__(self, folder: Path, code: Path) -> None:
        self.folder, self.code = folder, code

    def flora(self, form: str = "shards") -> Path:
        """A sample flora of six species."""
        out = self.folder / f"flora-{form}"
        if not out.exists():
            self._call("flora", "--species", 6, "--max-images", 9, "--form", form, "--out", out)
        return out

    def run(self) -> Path:
        """A trained network."""
        out = self.folder / "run"
        if not out.exists():
            self._call("train", *_training(self), "--out", out)
        return out

    def table(self, rows: int) -> Path:
        """A table of sheets of 300 species."""
        path = self.folder / f"labels-{rows}.csv"
        if not path.exists():
            lines = [f"s{row}.jpg,{_species(row % 300)},collector {row % 97}\n" for row in range(rows)]
            path.write_text("file_name,scientificName,collector\n" + "".join(lines))
        return path

    def sheets(self) -> Path:
        """A folder of image files with labels.csv."""
        images = self.flora("images") / "train_images"
        if not (images / "labels.csv").exists():
            names = sorted(str(path.relative_to(images)) for path in images.rglob("*.jpg"))
            rows = [f"{name},{_species(number % 5)}\n" for number, name in enumerate(names)]
            (images / "labels.csv").write_text("file_name,scientificName\n" + "".join(rows))
        return images

    def predictions(self) -> Path:
        """A CSV of predictions of the test images of the flora of image files."""
        path = self.folder / "predictions.csv"
        if not path.exists():
            images = self.flora("images") / "test_images"
            self._call("predict", "--model", self.run(), "--images", images, "--out", path)
        return path

    def file(self, name: str, text: str) -> Path:
        """A text file."""
        path = self.folder / name
        path.write_text(text)
        return path

    def _call(self, *words: object) -> None:
        _done(command_line(*words), environment(self.code))


def environment(code: Path, **more: str) -> dict[str, str]:
    """Variables of a call of the package in the folder `code`."""
    return {**os.environ, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **more}


def _species(number: int) -> str:
    """A name that no check of names objects to, another one for every number below 676."""
    return f"Carex alb{chr(97 + number % 26)}{chr(97 + number // 26)}a"


def _done(command: list[str], variables: dict[str, str]) -> None:
    """Call to the end. RuntimeError, with what was said, where that is no success: nothing was killed yet."""
    done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")


def command_line(*words: object) -> list[str]:
    """A call of the package in a process of its own."""
    return [sys.executable, "-m", "utils", *map(str, words)]


def _training(inputs: Inputs) -> list[str]:
    settings = ("epochs=3", "image_size=32", "batch_size=8", "deterministic=true")
    return ["--profile", "smoke", "--data", str(inputs.flora()), *(f"-s{each}" for each in settings)]


def _without(table: Path, *columns: str) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return [
            {key: value for key, value in row.items() if not key.startswith(columns)}
            for row in csv.DictReader(file)
        ]


_COPY = """
import sys
from utils.data import metadata
from utils.data.forms import kept
kept.KEPT_FROM = kept._SETTLED_NS = 0
print(len(metadata.read_metadata(sys.argv[1]).images))
"""
_BATCH = """
run: train
profiles: [smoke]
settings: {epochs: 1, image_size: 32, batch_size: 8, deterministic: true}
seeds: [0, 1]
test: none
"""
_CELLS = ["SEED = 0\nOUTPUT_DIR = 'auto'", "import time", "time.sleep(1)", "print(SEED)"]
_NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "execution_count": None,
            "metadata": {"tags": ["parameters"] * (number == 0)},
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(_CELLS)
    ],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def _review(inputs: Inputs, out: Path) -> list[str]:
    """The tables of a review in whose file every sheet is decided."""
    decisions = out / "d.jsonl"
    if not decisions.exists():
        with inputs.predictions().open(newline="") as file:
            files = [row["file_name"] for row in csv.DictReader(file)]
        of = {"do": "accept", "name": _species(0), "by": "A. Curator", "at": "2026-11-27T00:00:00+00:00"}
        decisions.write_text("".join(json.dumps({**of, "file": each}) + "\n" for each in files))
    images = inputs.flora("images") / "test_images"
    words = ("review", inputs.predictions(), "--images", images, "--by", "A. Curator")
    return command_line(*words, "--decisions", decisions, "--only-tables")


def _exported(out: Path) -> list[Any]:
    metrics = json.loads((out / "e" / "metrics.json").read_text())
    sizes = {name: (out / "e" / name).stat().st_size for name in ("model.tflite", "model_float16.tflite")}
    return [metrics, sizes, (out / "e" / "labels.csv").read_text(), sorted(visible(out))]


def _notebook_passed(out: Path) -> list[Any]:
    result = json.loads((out / "r" / "result.json").read_text())
    cells = json.loads((out / "r" / "notebooks" / "kills.ipynb").read_text())["cells"]
    # what is injected has the folder in it
    cells = [cell for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", [])]
    return [result["passed"], [cell["source"] for cell in cells], (out / "r" / "index.html").is_file()]


KINDS = {
    "flora": Kind(
        lambda inputs, out: command_line(
            "flora", "--species", 6, "--max-images", 9, "--form", "images", "--out", out / "f"
        )
    ),
    "shards": Kind(
        lambda inputs, out: command_line("flora", "--species", 6, "--max-images", 9, "--out", out / "f")
    ),
    "metadata": Kind(
        lambda inputs, out: [sys.executable, "-c", _COPY, str(inputs.flora() / "train_metadata.json")],
        exact=False,
        told=lambda out: sorted(path.name for path in out.rglob("*.feather")),
        variables=lambda out: {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "NAFLORA_KAGGLE_ROOT": str(out)},
    ),
    "split": Kind(
        lambda inputs, out: command_line(
            "split", inputs.table(60_000), "--group", "collector", "--out", out / "split.csv"
        )
    ),
    "write": Kind(
        lambda inputs, out: command_line(
            *("tfrecords", "write", "--images", inputs.sheets(), "--labels", inputs.sheets() / "labels.csv"),
            *("--size", 96, "--shard-images", 5, "--out", out / "w"),
        )
    ),
    "train": Kind(
        lambda inputs, out: command_line("train", *_training(inputs), "--out", out / "r"),
        exact=False,
        told=lambda out: [_without(path, "time") for path in (out / "r").glob("Eff*.csv")],
    ),
    "predict": Kind(
        lambda inputs, out: command_line(
            *("predict", "--model", inputs.run(), "--images", inputs.sheets()),
            *("--out", out / "p.csv", "--html", out / "p.html"),
        )
    ),
    "review": Kind(_review),
    "export": Kind(
        lambda inputs, out: command_line(
            *("export", "--model", inputs.run(), "--data", inputs.flora(), "--out", out / "e")
        ),
        exact=False,
        told=_exported,
    ),
    "batch": Kind(
        lambda inputs, out: command_line(
            *("batch", inputs.file("kills.batch.yaml", _BATCH), "--data", inputs.flora(), "--out", out / "b")
        ),
        exact=False,
        told=lambda out: _without(out / "b" / "summary.csv", "minutes"),
    ),
    "run": Kind(
        lambda inputs, out: command_line(
            *(
                "run",
                inputs.file("kills.ipynb", json.dumps(_NOTEBOOK)),
                "--profile",
                "smoke",
                "--out",
                out / "r",
            )
        ),
        exact=False,
        told=_notebook_passed,
    ),
    "kernels": Kind(
        lambda inputs, out: command_line("kaggle", "build", "--owner", "botanist", "--out", out / "k")
    ),
}


def visible(out: Path) -> dict[str, str]:
    """Checksums of the files under final names: not hidden, not in a folder of what is unfinished.

    The folder's own path, which a page names, does not count.
    """
    found = {}
    for path in sorted(out.rglob("*")):
        parts = path.relative_to(out).parts
        hidden = any(part.startswith(".") or part in ("unfinished", "state") for part in parts)
        if path.is_file() and not hidden and path.suffix != ".log" and path.name != "log.txt":
            found["/".join(parts)] = hashlib.sha256(path.read_bytes().replace(bytes(out), b"")).hexdigest()
    return found


def is_whole(path: Path) -> bool:
    """Whether a file is what its suffix says, as far as that can be seen."""
    content = path.read_bytes()
    if path.suffix in (".json", ".ipynb"):
        try:
            json.loads(content)
        except ValueError:
            return False
    if path.suffix == ".h5":
        import h5py

        try:
            h5py.File(path).close()
        except OSError:
            return False
    if path.suffix == ".html":
        return content.rstrip().endswith(b">")
    return bool(content) and (path.suffix not in (".csv", ".txt") or content.endswith(b"\n"))


@contextlib.contextmanager
def _started(command: list[str], variables: dict[str, str], said: Path) -> Iterator[subprocess.Popen]:
    with said.open("wb") as file:
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _state_of(out: Path) -> list[tuple[str, int]]:
    """Names and sizes in a folder, to see that something changes there."""
    found = []
    for path in sorted(out.rglob("*")):
        with contextlib.suppress(OSError):  # gone meanwhile
            found.append((path.name, path.stat().st_size))
    return found


def _wait(process: subprocess.Popen, out: Path, seconds: float, moments: random.Random) -> None:
    """Until the moment of a kill, or the end of the process."""
    end = time.monotonic() + moments.uniform(0.1, 1) * seconds
    changes = moments.randint(1, 6) if moments.random() < 0.5 else 0
    before = _state_of(out)
    while process.poll() is None and (changes or time.monotonic() < end):
        time.sleep(0.002)
        if changes and (now := _state_of(out)) != before:
            before, changes = now, changes - 1
            if not changes:
                time.sleep(moments.uniform(0, 0.02))
                return


def _left(mark: str) -> list[int]:
    """Processes that have a call's mark among their variables; nothing where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARK}={mark}".encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def one_kill(
    kind: Kind, inputs: Inputs, folder: Path, moments: random.Random, wanted: Any, seconds: float
) -> Counter:
    """Kill a call once, call again, and count what is not as it should be."""
    out, said = folder / "out", folder / "said"
    out.mkdir(parents=True)
    command, mark = kind.command(inputs, out), uuid.uuid4().hex
    variables = environment(inputs.code, **kind.variables(out), **{_MARK: mark})
    number = signal.SIGTERM if moments.random() < 1 / 3 else signal.SIGKILL
    counted = Counter({"kills": 1, "SIGTERM": number == signal.SIGTERM})
    with _started(command, variables, said) as process:
        _wait(process, out, seconds, moments)
        counted["came late"] += process.poll() is not None
        process.send_signal(number)
        try:
            code = process.wait(timeout=600)
        except subprocess.TimeoutExpired:  # hangs
            code = None
    text = said.read_text(errors="replace")
    if number == signal.SIGTERM and code == 143:
        counted["bad end"] += GOES_ON not in text or "Traceback" in text
    elif code not in (0, -number):  # -SIGTERM: before the command has begun
        counted["bad end"] += 1
    end = time.monotonic() + 20
    while (left := _left(mark)) and time.monotonic() < end:
        time.sleep(0.2)
    counted["processes"] += len(left)
    there = visible(out)
    for name, digest in there.items():
        whole = digest == wanted.get(name) if kind.exact else is_whole(out / name)
        counted["half"] += not whole
    done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace")
    after = visible(out)
    counted["lost"] += sum(name not in after or (kind.exact and after[name] != there[name]) for name in there)
    result = after if kind.exact else kind.told(out) if done.returncode == 0 else None
    counted["differs"] += done.returncode != 0 or result != wanted
    hidden = [path for path in out.rglob(".*") if path.name != ".metadata"]
    counted["left over"] += len(hidden)
    if any(counted[column] for column in COLUMNS[3:]):
        print(f"  {' '.join(command[1:4])}: {dict(counted)}, {hidden}\n{text[-1500:]}\n{done.stderr[-1500:]}")
    return counted


def campaign(kinds: list[str], kills: int, seed: int, folder: Path, code: Path) -> dict[str, Counter]:
    """Kill the kinds in turn, `kills` times in all; what was counted by kind."""
    inputs, moments = Inputs(folder / "inputs", code), random.Random(seed)
    inputs.folder.mkdir(parents=True)
    wanted: dict[str, tuple[Any, float]] = {}
    counts = {name: Counter() for name in kinds}
    for number in range(kills):
        name = kinds[number % len(kinds)]
        kind = KINDS[name]
        if name not in wanted:
            out = folder / f"{name}-undisturbed"
            out.mkdir()
            command = kind.command(inputs, out)
            begin = time.monotonic()
            _done(command, environment(code, **kind.variables(out)))
            wanted[name] = visible(out) if kind.exact else kind.told(out), time.monotonic() - begin
        place = folder / f"{name}-{number}"
        counts[name] += one_kill(kind, inputs, place, moments, *wanted[name])
        shutil.rmtree(place)
        print(f"kill {number + 1} of {kills}: {name}", flush=True)
    return counts


def shown(counts: dict[str, Counter]) -> str:
    """The table of a campaign."""
    rows = [("kind", *COLUMNS)]
    rows += [(name, *(str(counted[column]) for column in COLUMNS)) for name, counted in counts.items()]
    total = sum(counts.values(), Counter())
    rows.append(("together", *(str(total[column]) for column in COLUMNS)))
    return "\n".join("  ".join(f"{cell:>9}" for cell in row) for row in rows)


@click.command()
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True, help="In all.")
@click.option("--seed", default=0, show_default=True, help="Of the moments and signals.")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice([*KINDS]), help="Only this one. [default: all]"
)
@click.option(
    "--code", type=click.Path(exists=True, path_type=Path), default=REPOSITORY, help="Whose `utils` to call."
)
def main(kills: int, seed: int, kinds: tuple[str, ...], code: Path) -> None:
    """Kill what the course does for long, and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="kills_") as folder:
        counts = campaign(list(kinds or KINDS), kills, seed, Path(folder), code.resolve())
    print(f"\n{shown(counts)}")
    bad = sum(counted[column] for counted in counts.values() for column in COLUMNS[3:])
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
