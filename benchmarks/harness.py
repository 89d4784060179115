"""Measures stages: repeats of every variant in turn, each variant in a process of its own, one table.

The variants of a stage do the same work: "ours" is this package, "published" the way of the published run or
of common practice, "limit" what the machine could do at best. The last two may be missing. A module of this
package that measures has a tuple STAGES, and `describe(bench)` where its inputs need a word below the table;
importing it must not import TensorFlow. The harness knows the other modules by this only.
"""

import importlib
import os
import pkgutil
import platform
import resource
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmarks
from utils.files import cores, scratch_dir

VARIANTS = ("ours", "published", "limit")
MEASURES = {  # of a target: what is compared, and whether it must be at least or at most the bound
    "speed / published": "at least",  # ours over the published way's
    "speed / limit": "at least",
    "figure": "at least",  # ours, in the stage's unit
    "seconds": "at most",  # ours for one unit of work
    "memory / published": "at most",
    "memory / limit": "at most",
    "MB": "at most",  # ours: peak resident memory of the process
}


@dataclass(frozen=True)
class Bench:
    """What one call of the benchmarks measures; every variant gets it."""

    folder: Path  # for inputs that are made once and kept
    images: int = 2048  # of the input shards, at least
    repeats: int = 5
    quick: bool = False  # tiny inputs, all in this process: shows that it works, the figures mean nothing
    mytflib: Path | None = None  # a checkout of the published pipeline


def make_bench(*, folder: Path | None, images: int, repeats: int, quick: bool, mytflib: Path | None) -> Bench:
    """A Bench whose folder is there; data/bench where none is named. `quick` overrules images and repeats."""
    folder = (folder or scratch_dir() / ("bench-quick" if quick else "bench")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    images, repeats = (64, 1) if quick else (images, repeats)
    return Bench(folder, images, repeats, quick, mytflib and mytflib.resolve())


@dataclass(frozen=True)
class Measured:
    """One repeat, where a variant knows better than the harness: units done, seconds, bytes at the peak."""

    units: float
    seconds: float | None = None  # the whole call's where None
    memory: float | None = None  # the process's peak where None


Run = Callable[[], "float | Measured"]  # does the work once; the number of units done


@dataclass(frozen=True)
class Target:
    """A bound on one of MEASURES."""

    measure: str
    bound: float

    def reached(self, value: float) -> bool:
        return value >= self.bound if MEASURES[self.measure] == "at least" else value <= self.bound


def repeated(bench: Bench, call: Callable[[], Any], units: float = 1.0) -> Run:
    """A run of ten calls, of one where the bench is quick; each does so many units of work."""
    times = 1 if bench.quick else 10

    def run() -> float:
        for _ in range(times):
            call()
        return times * units

    return run


@dataclass(frozen=True)
class Stage:
    """One row.

    A variant is called with the Bench in a process of its own, prepares what a user has ready too, and
    returns a Run; only its calls are timed. The variants' calls alternate: ours, published, limit, ours, ...
    What goes to another process is found there by its name: functions of a module, and functools.partial of them.
    """

    name: str
    unit: str  # "images/s" (anything that ends in "/s"), "s" or "ms" for one unit of work, "MB" at the peak
    variants: dict[str, Callable[[Bench], Run]]  # "ours", "published", "limit"
    targets: tuple[Target, ...] = ()
    note: str = ""  # below the table
    prepare: Callable[[Bench], Any] | None = None  # makes inputs, before, in another process
    fresh: bool = False  # a new process for every repeat, so that nothing is warm
    only_named: bool = False  # measured only when its name is given: takes minutes

    def figures(self, repeats: "Repeats") -> list[float]:
        """Every repeat in the stage's unit."""
        if self.unit == "MB":
            return [memory / 1e6 for memory in repeats.memory]
        if self.unit.endswith("/s"):
            return repeats.speeds()
        return [(1000 if self.unit == "ms" else 1) / speed for speed in repeats.speeds()]


@dataclass
class Repeats:
    """All repeats of one variant."""

    units: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # bytes

    def add(self, measured: Measured) -> None:
        self.units.append(measured.units)
        self.seconds.append(measured.seconds)
        self.memory.append(measured.memory)

    def speeds(self) -> list[float]:
        return [units / seconds for units, seconds in zip(self.units, self.seconds, strict=True)]


# ---------------------------------------------------------------- measuring


def _modules() -> list[ModuleType]:
    """The modules of this package, found by looking, so that a new one needs no entry anywhere."""
    names = [name for _, name, _ in pkgutil.iter_modules(benchmarks.__path__) if name != "__main__"]
    return [importlib.import_module(f"benchmarks.{name}") for name in names]


def stages() -> dict[str, Stage]:
    """All stages by name, in the order of the table."""
    return {stage.name: stage for module in _modules() for stage in getattr(module, "STAGES", ())}


def describe_inputs(bench: Bench) -> list[str]:
    """What the stages read, a sentence from each module that has `describe(bench)`."""
    return [module.describe(bench) for module in _modules() if hasattr(module, "describe")]


def peak_memory() -> float:
    """The most resident memory that this process has had, in bytes.

    Linux hands ru_maxrss down from the process that started this one; VmHWM begins anew.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = (line.split() for line in status.read_text().splitlines())
        return 1024 * next(float(line[1]) for line in lines if line[0] == "VmHWM:")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def once(run: Run) -> Measured:
    """Call and time a variant once."""
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    if not isinstance(result, Measured):
        result = Measured(result)
    return Measured(
        result.units,
        seconds if result.seconds is None else result.seconds,
        peak_memory() if result.memory is None else result.memory,
    )


def _serve(make: Callable[[Bench], Any], bench: Bench, pipe: Connection) -> None:
    """In a child: prepare, then measure once for every message, until the other end is closed."""
    try:
        run = make(bench)
        pipe.send(None)
        while pipe.recv():
            pipe.send(once(run))
    except EOFError:
        pass
    except BaseException:
        pipe.send(traceback.format_exc())


def _answer(pipe: Connection, what: str) -> Measured | None:
    try:
        answer = pipe.recv()
    except EOFError:
        answer = "its process was killed, perhaps for want of memory."
    if isinstance(answer, str):
        raise RuntimeError(f"benchmark {what}: {answer}")
    return answer


@contextmanager
def _process(make: Callable[[Bench], Any], bench: Bench, what: str) -> Iterator[Callable[[], Measured]]:
    """A child that is ready to measure; calling what is given measures once.

    Between calls the child stands still: an input pipeline that goes on filling its buffers would slow the other
    variants, and begin its next repeat with batches that were made outside of it.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(make, bench, there))
    child.start()
    there.close()

    def stand_still(still: bool) -> None:
        if hasattr(signal, "SIGSTOP"):  # not on Windows
            os.kill(child.pid, signal.SIGSTOP if still else signal.SIGCONT)

    try:
        _answer(here, what)
        stand_still(True)

        def measure() -> Measured:
            stand_still(False)
            here.send(True)
            answer = _answer(here, what)
            stand_still(True)
            return answer

        yield measure
    finally:
        if child.is_alive():
            stand_still(False)
        here.close()
        child.join(10)
        child.kill()


def measure(stage: Stage, bench: Bench) -> dict[str, Repeats]:
    """All repeats of all variants of a stage.

    Raises:
        RuntimeError: a variant failed; the message has its traceback.
    """
    results = {name: Repeats() for name in VARIANTS if name in stage.variants}
    if bench.quick:
        if stage.prepare:
            stage.prepare(bench)
        for name, repeats in results.items():
            run = stage.variants[name](bench)
            for _ in range(bench.repeats):
                repeats.add(once(run))
        return results
    if stage.prepare:
        with _process(stage.prepare, bench, f"{stage.name}, preparation"):
            pass
    with ExitStack() as stack:
        open_one = lambda name: _process(stage.variants[name], bench, f"{stage.name}, {name}")  # noqa: E731
        ready = {} if stage.fresh else {name: stack.enter_context(open_one(name)) for name in results}
        for _ in range(bench.repeats):
            for name, repeats in results.items():
                if stage.fresh:
                    with open_one(name) as call:
                        repeats.add(call())
                else:
                    repeats.add(ready[name]())
    return results


# ---------------------------------------------------------------- showing


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.is_file()
        else []
    )
    return {
        "cores": cores(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "tensorflow": metadata.version("tensorflow"),
        "load": os.getloadavg()[0],  # of the last minute: other work on the cores
    }


def ratios(results: dict[str, Repeats]) -> dict[str, float]:
    """Ours over published and limit: the median of what neighbouring repeats give."""
    found = {}
    for name in VARIANTS[1:]:
        if "ours" in results and name in results:
            pairs = zip(results["ours"].speeds(), results[name].speeds(), strict=True)
            found[f"speed / {name}"] = statistics.median(ours / other for ours, other in pairs)
            found[f"memory / {name}"] = max(results["ours"].memory) / max(results[name].memory)
    return found


def summary(stage: Stage, results: dict[str, Repeats]) -> dict[str, Any]:
    """A stage's row as plain values: raw repeats, figures, ratios, targets."""
    variants = {}
    for name, repeats in results.items():
        figures = stage.figures(repeats)
        variants[name] = {
            **asdict(repeats),
            "figures": figures,
            "median": statistics.median(figures),
            "min": min(figures),
            "max": max(figures),
            "peak_mb": max(repeats.memory) / 1e6,
        }
    found = ratios(results)
    values = dict(found)
    if "ours" in results:
        values["figure"] = variants["ours"]["median"]
        values["seconds"] = 1 / statistics.median(results["ours"].speeds())
        values["MB"] = variants["ours"]["peak_mb"]
    targets = [
        {**asdict(target), "found": values[target.measure], "reached": target.reached(values[target.measure])}
        for target in stage.targets
    ]
    return {
        "stage": stage.name,
        "unit": stage.unit,
        "variants": variants,
        "ratios": found,
        "targets": targets,
        "note": stage.note,
    }


HEADER = (
    "| stage | ours | published way | limit | ours / published | ours / limit | to reach | reached "
    "| peak memory, MB: ours, published, limit |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(found: dict[str, Any]) -> str:
    """A stage's summary as one line of the Markdown table: medians, with least and most in brackets."""

    def figure(name: str) -> str:
        if name not in found["variants"]:
            return "–"
        values = [_number(found["variants"][name][key]) for key in ("median", "min", "max")]
        return f"{values[0]} {found['unit']} ({values[1]} to {values[2]})"

    def ratio(name: str) -> str:
        kind = "memory" if found["unit"] == "MB" else "speed"
        value = found["ratios"].get(f"{kind} / {name}")
        return "–" if value is None else f"{value:.2f}"

    bounds = [f"{t['measure']} {MEASURES[t['measure']]} {t['bound']:g}" for t in found["targets"]]
    reached = ["yes" if t["reached"] else f"**no**, {t['found']:.3g}" for t in found["targets"]]
    peaks = [
        _number(found["variants"][name]["peak_mb"]) if name in found["variants"] else "–" for name in VARIANTS
    ]
    cells = [
        found["stage"],
        *map(figure, VARIANTS),
        ratio("published"),
        ratio("limit"),
        "; ".join(bounds) or "–",
        "; ".join(reached) or "–",
        " · ".join(peaks),
    ]
    return f"| {' | '.join(cells)} |"


def report(chosen: Sequence[Stage], bench: Bench, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure stages and say the table line by line; the same as plain values, with what failed."""
    where = machine()
    say(
        f"{where['cores']} cores, {where['cpu']}, Python {where['python']}, TensorFlow {where['tensorflow']}; "
        f"load {where['load']:.1f} at the start; {bench.repeats} repeats: median (least to most)."
    )
    if bench.quick:
        say("Quick: tiny inputs, the figures mean nothing.")
    say(f"\n{HEADER}")
    rows = []
    failed = []
    for stage in chosen:
        try:
            rows.append(summary(stage, measure(stage, bench)))
        except RuntimeError as error:  # the others may take an hour, and are measured all the same
            failed.append(str(error))
            say(f"| {stage.name} | **failed**, see below |")
        else:
            say(row(rows[-1]))
    notes = describe_inputs(bench)
    notes += [f"- {found['stage']}: {found['note']}" for found in rows if found["note"]]
    say("\n" + "\n".join(notes))
    for text in failed:
        say(f"\n{text}")
    options = {**asdict(bench), "folder": str(bench.folder), "mytflib": bench.mytflib and str(bench.mytflib)}
    return {"machine": where, "options": options, "stages": rows, "failed": failed}
