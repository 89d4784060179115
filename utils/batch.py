"""Batches: every combination of profiles, methods, parameters and seeds as a run of its own, and one table.

A batch file is YAML with these keys, of which only `run` must be there:

    run: train                  # or one notebook: its number or name, or a path from this file's folder
    about: what is compared     # shown with the plan
    profiles: [smoke]           # [auto] without it
    seeds: [0, 1, 2]            # [0] without it; a notebook gets them as its parameter SEED
    settings:                   # of every run: settings of the profile, or parameters of the notebook
      epochs: 2
    methods:                    # rows of the table, each a name and what it changes
      cross-entropy: {}
      class-balanced: {class_weights: class_balanced, class_balanced_n: 10}
      inverse, screened: {class_weights: inverse, seeds: [0]}   # may have `seeds` and `after` of its own
    grid:                       # every combination of these values, with every method
      max_lr: [0.05, 0.1]
    after: [tta, retrained classifier + tta]    # further rows: what is done with a trained network, see below
    ensembles: [cross-entropy, cross-entropy + tta]     # further rows: their seeds' probabilities put together
    test: withheld              # what runs are scored on, see below
    data: ../my_shards          # a folder of shards in place of the profile's own, from this file's folder
    table: ../results/a.csv     # where the table goes too, once every run has finished

`test` is `withheld` (the solution of the test set, or the part `test` of a split.csv), a number (as many further
sheets of every species of the sample flora, drawn for this and never used for a choice), or `none` (validation
scores only, to choose settings by).

`after` has chains of steps, in this order and joined by " + ": a classifier (logit adjustment, tau-normalised,
learnt scales, retrained classifier, balanced softmax classifier), tta, least cost. Classifiers are learnt from the
training images, a decision by least cost has its temperature from validation.

Each run is a process of its own in a folder of its own, named by method, profile, seed and a checksum of all its
settings. Its result.json is written last and makes it finished: finished runs are skipped, begun ones continue,
a run whose settings have changed is another run, and one that gets a further step in `after` is only scored anew.
Figures are the same after a kill where the profile is `deterministic` and --jobs is as before: other numbers of
threads add up in another order.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Profile, load_profile, nearest, profile_from_dict
from utils.datasets import find_data, with_extra_test
from utils.errors import InputError, UsageError
from utils.files import read_json, replacing, write_json
from utils.paths import REPOSITORY, is_hidden

if TYPE_CHECKING:
    import pandas as pd

KEYS = (
    *("run", "about", "profiles", "seeds", "settings", "methods", "grid"),
    *("after", "ensembles", "test", "data", "table"),
)
_NOT_SETTINGS = ("name", "about", "cost", "expected")  # words about a profile: they change no result
_RESULT, _SPEC, _LOG = "result.json", "run.json", "log.txt"
# Metric -> its heading on screen, in the order of the table; a notebook's own numbers come after these.
METRICS = {
    "macro_f1": "macro-F1",
    "head_f1": "head",
    "medium_f1": "medium",
    "tail_f1": "tail",
    "distance_all": "distance, all",
    "distance_mistakes": "d., mistakes",
    "genus_agreement": "genus heads agree",
    "family_agreement": "family heads agree",
    "validation_f1": "validation",
    "minutes": "minutes",
}


@dataclass(frozen=True)
class BatchRun:
    """One run of a batch: a method with a profile and a seed."""

    method: str
    profile: Profile
    seed: int
    parameters: Mapping[str, Any]  # of the notebook
    after: tuple[str, ...]  # chains of utils.evaluation.scoring.STEPS
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.method}, {self.profile.name}, seed {self.seed}"

    @property
    def rows(self) -> list[str]:
        """The rows of the table that it belongs to: its own first, then those of the chains after it."""
        return [self.method, *(f"{self.method} + {chain}" for chain in self.after)]

    @property
    def finished(self) -> bool:
        file = self.folder / _RESULT
        return file.is_file() and set(self.after) <= set(read_json(file)["after"])

    @property
    def epochs_done(self) -> int:
        """Whole epochs of a run that has begun and not finished."""
        states = [self.folder / place / "state" / "state.json" for place in (".", "output")]
        return next((read_json(state)["epoch"] for state in states if state.is_file()), 0)


@dataclass(frozen=True)
class Batch:
    """A batch file, read and checked."""

    file: Path
    about: str
    notebook: Path | None  # None: train
    runs: tuple[BatchRun, ...]
    ensembles: tuple[str, ...]  # rows of the table
    test: str | int
    data: Path | None
    table: Path | None
    folder: Path


# ---------------------------------------------------------------- what is asked for


def read_batch(file: Path, out: Path | None = None) -> Batch:
    """Read a batch file and check all of it, so that nothing is found wrong after hours of work.

    Args:
        file: see the module's head.
        out: folder of the runs; runs/batches/<name of the file> when None.

    Raises:
        UsageError: a key, profile, setting, parameter or notebook is unknown (the nearest known one is named),
            or a value is of the wrong type or out of range.
        InputError: the file is not YAML, or the notebook's parameters cell cannot be read.
    """
    file = Path(file)
    asked = _read_yaml(file)
    for key in asked:
        if key not in KEYS:
            raise UsageError(f"{file}: unknown key {key!r}.{nearest(str(key), KEYS)}")
    if "run" not in asked:
        raise UsageError(f"{file}: no key `run`. It is `train`, or the notebook to run.")
    notebook = _notebook(file, asked["run"])
    test, data, table = (asked.get(key) for key in ("test", "data", "table"))
    test = "withheld" if test is None else test
    if test == "none" and "after" in asked:
        raise UsageError(f"{file}: `after` needs a test to be scored on, and test is none.")
    if test not in ("withheld", "none") and (not isinstance(test, int) or isinstance(test, bool) or test < 1):
        raise UsageError(
            f"{file}: test is {test!r}, must be withheld, none, or a number of sheets a species."
        )
    if data is not None:
        data = (file.parent / str(data)).resolve()
        if not data.is_dir():
            raise UsageError(f"{file}: data: {data}: no such folder.")
    out = Path(out) if out else REPOSITORY / "runs" / "batches" / file.name.split(".")[0]
    batch = Batch(
        file=file,
        about=str(asked.get("about", "")),
        notebook=notebook,
        runs=(),
        ensembles=tuple(_list(file, "ensembles", asked["ensembles"])) if "ensembles" in asked else (),
        test=test,
        data=data,
        table=(file.parent / str(table)).resolve() if table else None,
        folder=out.resolve(),
    )
    runs = tuple(_runs(batch, asked))
    by_folder: dict[Path, BatchRun] = {}
    for run in runs:
        other = by_folder.setdefault(run.folder, run)
        if other is not run:
            raise UsageError(f"{file}: {other.title}: is there twice. Remove one or change a setting.")
    rows = [row for run in runs for row in run.rows]
    for name in batch.ensembles:
        if name not in rows or "least cost" in name:
            rows = sorted({row for row in rows if "least cost" not in row})
            raise UsageError(
                f"{file}: ensembles: no row {name!r} with probabilities.{nearest(str(name), rows)}"
            )
        if rows.count(name) < 2:
            raise UsageError(f"{file}: ensembles: {name!r} has one run. Give it several seeds.")
    if batch.ensembles and batch.test == "none":
        raise UsageError(f"{file}: `ensembles` needs a test to be scored on, and test is none.")
    return dataclasses.replace(batch, runs=runs)


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        twice = _key_twice(yaml.compose(text))
        if twice is not None:
            place = f"line {twice.start_mark.line + 1}, column {twice.start_mark.column + 1}"
            raise InputError(f"{file}: not valid YAML ({twice.value!r} is there twice, {place}).")
        asked = yaml.safe_load(text)
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(asked, dict):
        raise InputError(f"{file}: must be a mapping of {', '.join(KEYS)}. `batch --help` shows an example.")
    return asked


def _key_twice(node: Any) -> Any:
    """The second of two equal keys of one mapping, or None: YAML lets it win, and a method would be lost."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                return key
            seen.add(str(key.value))
            if found := _key_twice(value):
                return found
    elif isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_key_twice, node.value)), None)
    return None


def _notebook(file: Path, run: Any) -> Path | None:
    from utils.runner import COURSE, find_notebooks

    if run == "train":
        return None
    name = f"{run:02d}" if isinstance(run, int) and not isinstance(run, bool) else str(run)
    if name.endswith(".ipynb"):
        return find_notebooks([str(file.parent / name)])[0]
    try:
        return find_notebooks([name])[0]
    except UsageError:
        raise UsageError(f"{file}: run is {run!r}.{nearest(name, ['train', *COURSE])}") from None


def _runs(batch: Batch, asked: dict[str, Any]) -> Iterator[BatchRun]:
    from utils.evaluation.scoring import needs_dense_classifier, steps_of

    file = batch.file
    profiles = _list(file, "profiles", asked.get("profiles", ["auto"]))
    settings = _mapping(file, "settings", asked.get("settings"))
    methods = _mapping(file, "methods", asked.get("methods")) or {"": None}
    grid = _mapping(file, "grid", asked.get("grid"))
    axes = [_list(file, f"grid: {key}", values) for key, values in grid.items()]
    steps = _list(file, "after", asked["after"]) if "after" in asked else []
    known = None
    if batch.notebook is not None:
        from utils.runner import read_parameters

        known = read_parameters(batch.notebook)
    for profile in profiles:
        for name, changes in methods.items():
            own = _mapping(file, f"methods: {name}", changes)
            seeds = own.pop("seeds", asked.get("seeds", [0]))
            after = own.pop("after", steps)
            for chain in after if isinstance(after, list) else [after]:
                try:
                    steps_of(chain)
                except UsageError as error:
                    raise UsageError(f"{file}: after: {error}") from None
            for values in itertools.product(*axes):
                combination = dict(zip(grid, values, strict=True))
                shown = [str(name)] if name else []
                shown += [f"{key}={value}" for key, value in combination.items()]
                method = ", ".join(shown) or "as the profile says"
                given = {**settings, **own, **combination}
                for seed in _list(file, "seeds", seeds):
                    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
                        raise UsageError(
                            f"{file}: {method}: seed {seed!r} must be a whole number, 0 or more."
                        )
                    try:
                        run = _run(batch, str(profile), method, given, seed, known, "seeds" in asked)
                    except UsageError as error:
                        raise UsageError(f"{file}: {method}: {error}") from None
                    if run.profile.loss == "arcface" and any(map(needs_dense_classifier, after)):
                        raise UsageError(
                            f"{file}: {method}: ArcFace has no classifier to change. Set `after`."
                        )
                    yield dataclasses.replace(run, after=tuple(after))


def _run(
    batch: Batch,
    profile_name: str,
    method: str,
    given: dict[str, Any],
    seed: int,
    known: dict[str, Any] | None,
    seeded: bool,
) -> BatchRun:
    """One run, with its settings checked; `known` has the parameters of the notebook and their defaults."""
    from utils.runner import check_parameters

    if known is None:
        if "seed" in given:
            raise UsageError("`seed` is no setting of a batch. Give `seeds`, a list.")
        profile, parameters = load_profile(profile_name, seed=seed, **given), {}
    else:
        profile = load_profile(profile_name)
        given = {**given, **({"SEED": seed} if seeded or "SEED" in known else {})}
        parameters = check_parameters([batch.notebook], {key: str(value) for key, value in given.items()})
        parameters = parameters[batch.notebook]
    digest = hashlib.sha256(json.dumps(_identity(batch, profile, parameters)).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9.=]+", "-", method.lower()).strip("-")[:60]
    folder = batch.folder / f"{slug}_{profile.name}_seed{seed}_{digest}"
    return BatchRun(method, profile, seed, parameters, (), folder)


def _identity(batch: Batch, profile: Profile, parameters: dict[str, Any]) -> dict[str, Any]:
    """What makes a run another run. A setting that a later version adds counts once it is not at its default."""
    from utils.flora.dataset import GENERATOR_VERSION

    changed = {
        field.name: value
        for field in dataclasses.fields(Profile)
        if field.name not in _NOT_SETTINGS and (value := getattr(profile, field.name)) != field.default
    }
    return {
        "notebook": batch.notebook and batch.notebook.name,
        "profile": changed,
        "parameters": parameters,
        "test": batch.test,
        "data": str(batch.data) if batch.data else None,
        "flora": GENERATOR_VERSION if profile.source == "flora" else None,
    }


def _list(file: Path, key: str, value: Any) -> list:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{file}: {key} is {value!r}, must be a list, as in [0, 1, 2].")
    return value


def _mapping(file: Path, key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{file}: {key} is {value!r}, must be a mapping, as in {{epochs: 2}}.")
    return dict(value)


def plan(batch: Batch, jobs: int = 1) -> str:
    """What the batch will do, in lines: how many runs of what, scored on what, and the state of each."""
    states = [_state(run) for run in batch.runs]
    finished = states.count("finished")
    what = "train" if batch.notebook is None else batch.notebook.stem
    scored = {"withheld": "the withheld test", "none": "validation only"}.get(
        str(batch.test), f"{batch.test} further sheets of every species"
    )
    lines = [f"{batch.file}: {batch.about}" if batch.about else str(batch.file)]
    lines.append(
        f"{len(batch.runs)} runs of {what}: {finished} finished, "
        f"{sum(state.startswith('epoch') for state in states)} begun, {jobs} at a time with "
        f"{_threads(jobs)} threads each"
    )
    lines.append(f"Scored on {scored}. Folder: {batch.folder}")
    if minutes := [_metrics(run)["minutes"] for run in batch.runs if run.finished]:
        left = (len(batch.runs) - finished) * sum(minutes) / len(minutes) / jobs
        lines.append(f"About {left:.0f} minutes to do, if they train as long as those that have finished.")
    lines.append(f"{'state':<14} {'profile':<10} {'seed':>4}  method")
    for run, state in zip(batch.runs, states, strict=True):
        lines.append(f"{state:<14} {run.profile.name:<10} {run.seed:>4}  {run.method}")
    return "\n".join(lines)


def _state(run: BatchRun) -> str:
    if run.finished:
        return "finished"
    return f"epoch {run.epochs_done} of {run.profile.epochs}" if run.epochs_done else "to do"


def _metrics(run: BatchRun, after: str = "") -> dict[str, float]:
    """The metrics of a finished run, or of what was done after it."""
    result = read_json(run.folder / _RESULT)
    values = result["after"][after] if after else result["metrics"]
    return {name: math.nan if value is None else value for name, value in values.items()}


def _threads(jobs: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


# ---------------------------------------------------------------- the table


def summary_table(batch: Batch) -> "pd.DataFrame":
    """One row a method and profile, and one each for what was done after it, from the finished runs.

    Columns: method, profile, test, epochs, seeds (how many have finished; 1 for an ensemble, of which there is
    one), and for each metric its mean, lowest and highest over the seeds as NAME_mean, NAME_min and NAME_max.
    Bins are by images that have labels. Patristic distances are between true and named genus; over all sheets a
    right answer counts 0. minutes are of training and of learning a classifier after it; of an ensemble those of
    all its runs.
    """
    import pandas as pd

    rows = []
    for run in batch.runs:
        for row, after in zip(run.rows, ("", *run.after), strict=True) if run.finished else ():
            key = {"method": row, "profile": run.profile.name, "test": str(batch.test)}
            rows.append({**key, "epochs": run.profile.epochs, "seeds": run.seed, **_metrics(run, after)})
    rows += _ensemble_rows(batch)
    if not rows:
        return pd.DataFrame(columns=["method", "profile", "test", "epochs", "seeds"])
    runs = pd.DataFrame(rows)
    metrics = [name for name in METRICS if name in runs]
    metrics += [name for name in runs if name not in METRICS and name not in (*key, "epochs", "seeds")]
    named = {f"{name}_{how}": pd.NamedAgg(name, how) for name in metrics for how in ("mean", "min", "max")}
    groups = runs.groupby([*key, "epochs"], sort=False)
    return groups.agg(seeds=pd.NamedAgg("seeds", "count"), **named).reset_index()


def _ensemble_rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """The rows of the seeds' mean probabilities, of those whose runs have all finished."""
    from utils.evaluation.posthoc import ensemble
    from utils.evaluation.predict import Predictions
    from utils.evaluation.scoring import Judge, predictions_file

    place = "." if batch.notebook is None else "output"
    judges: dict[str, Judge] = {}  # by profile: made once, it reads the metadata
    for name, profile in itertools.product(
        batch.ensembles, dict.fromkeys(run.profile.name for run in batch.runs)
    ):
        runs = [run for run in batch.runs if name in run.rows and run.profile.name == profile]
        if len(runs) < 2 or not all(run.finished for run in runs):
            continue
        chain = ("", *runs[0].after)[runs[0].rows.index(name)]
        together = ensemble(
            [Predictions.load(predictions_file(run.folder / place, chain)) for run in runs], top=1
        )
        if profile not in judges:
            data = find_data(runs[0].profile, batch.data or "auto", progress=False)
            judges[profile] = Judge.of(data, data.split(runs[0].profile))
        yield {
            "method": f"{name} + ensemble of {len(runs)}",
            "profile": profile,
            "test": str(batch.test),
            "epochs": runs[0].profile.epochs,
            "seeds": 1,  # rows are counted, and this is one
            **judges[profile].metrics(together.true, together.predicted),
            "validation_f1": math.nan,
            "minutes": sum(_metrics(run, chain)["minutes"] for run in runs),
        }


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write the table as CSV, whole, figures with four decimals."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")


def show_table(table: "pd.DataFrame") -> str:
    """The table for the screen: of each method the means, and below them the range over its seeds."""
    metrics = [name.removesuffix("_mean") for name in table if name.endswith("_mean")]
    metrics = [name for name in metrics if table[f"{name}_mean"].notna().any()]
    headings = [METRICS.get(name, name) for name in metrics]
    lines = [["method", "profile", "seeds", *headings]]
    for _, row in table.iterrows():
        lines.append(
            [row["method"], row["profile"], str(row["seeds"])]
            + [_shown(row[f"{name}_mean"]) for name in metrics]
        )
        if row["seeds"] > 1:
            ranges = [f"{_shown(row[f'{name}_min'])}-{_shown(row[f'{name}_max'])}" for name in metrics]
            lines.append(["  lowest-highest", "", "", *ranges])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _shown(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.4g}"


# ---------------------------------------------------------------- all runs


def run_batch(file: Path, *, out: Path | None = None, jobs: int = 1, dry_run: bool = False) -> Batch:
    """State the plan, do what is not done yet, and show the table; the same call again goes on.

    The table is in summary.csv of the batch's folder, renewed after every run. A run that fails does not stop
    the others, and the next call tries it again.

    Args:
        file, out: as for `read_batch`.
        jobs: runs at a time; the processor's threads are divided among them.
        dry_run: only state the plan.

    Raises:
        UsageError, InputError: as `read_batch`, or the data are not there. Nothing has been run then.
        InputError: some runs failed; the message says where their logs are.
    """
    from tqdm import tqdm

    batch = read_batch(file, out)
    print(plan(batch, jobs), flush=True)
    if dry_run:
        return batch
    with _locked(batch.folder):
        _prepare_data(batch)
        waiting = [run for run in batch.runs if not run.finished]
        running: dict[subprocess.Popen, BatchRun] = {}
        failed: list[BatchRun] = []
        look = time.monotonic()
        bar = tqdm(total=len(batch.runs), initial=len(batch.runs) - len(waiting), unit="run", disable=None)
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running[_start(batch, run, _threads(jobs))] = run
                    tqdm.write(f"begins    {run.title}")
                for process in [process for process in running if process.poll() is not None]:
                    run = running.pop(process)
                    if process.returncode == 0 and run.finished:
                        tqdm.write(f"finished  {run.title}: {_in_short(run)}")
                        write_table(summary_table(batch), batch.folder / "summary.csv")
                    else:
                        failed.append(run)
                        tqdm.write(f"FAILED    {run.title}: {_last_line(run, process.returncode)}")
                    bar.update()
                if not bar.disable and time.monotonic() > look + 2:
                    look = time.monotonic()
                    bar.set_postfix_str(", ".join(map(_progress, running.values())))
                time.sleep(0.1)
        finally:
            bar.close()
            for process in running:  # of an interrupted batch; what they have saved stays
                process.kill()
                process.wait()
        table = summary_table(batch)
        write_table(table, batch.folder / "summary.csv")
        print(f"\n{show_table(table)}\n\n{batch.folder / 'summary.csv'}")
        if failed:
            logs = "\n".join(f"{run.title}: {run.folder / _LOG}" for run in failed)
            raise InputError(
                f"{len(failed)} of {len(batch.runs)} runs failed; the same command tries them again:\n{logs}"
            )
        if batch.table:
            write_table(table, batch.table)
            print(batch.table)
    return batch


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this batch; the system lets go when the process ends, however it ends."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another batch is at work here. Wait for it, or give --out."
            ) from None
        yield


def _prepare_data(batch: Batch) -> None:
    """Find or make the data of all runs, once, before several processes need them."""
    seen = set()
    for run in batch.runs:
        profile = run.profile
        which = (profile.source, profile.flora_species, profile.flora_max_images, profile.flora_seed)
        if which in seen or (batch.notebook is not None and batch.data is None and batch.test == "none"):
            continue
        seen.add(which)
        data = find_data(profile, batch.data or "auto")
        if isinstance(batch.test, int):
            with_extra_test(data, batch.test)
        elif batch.test == "withheld" and batch.notebook is None and not (data.solution or data.split_file):
            raise InputError(
                f"{data.train_shards[0].parent}: there is no solution.csv and no split.csv with a part `test`, so "
                "runs cannot be scored on a withheld test. Set `test: none` for validation scores."
            )


def _start(batch: Batch, run: BatchRun, threads: int) -> subprocess.Popen:
    """Start a run's process. It ends when this process does, since it reads from a pipe that closes then."""
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(
        run.folder / _SPEC,
        {
            "method": run.method,
            "seed": run.seed,
            "notebook": str(batch.notebook) if batch.notebook else None,
            "parameters": dict(run.parameters),
            "profile": run.profile.to_dict(),
            "data": str(batch.data) if batch.data else "auto",
            "test": batch.test,
            "after": run.after,
        },
    )
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    divided = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",  # modules are not looked for in the folder of the call
        **dict.fromkeys(divided, str(threads)),
    }
    with (run.folder / _LOG).open("ab") as log:
        return subprocess.Popen(
            _command(run.folder),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the batch only
        )


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "utils.batch", str(folder)]


def _in_short(run: BatchRun) -> str:
    metrics = _metrics(run)
    first = next((name for name in (*METRICS, *metrics) if not math.isnan(metrics.get(name, math.nan))), None)
    return (
        f"{METRICS.get(first, first)} {_shown(metrics[first])}, {metrics['minutes']:.1f} min" if first else ""
    )


def _progress(run: BatchRun) -> str:
    return (
        f"{run.method} {run.seed}: epoch {min(run.epochs_done + 1, run.profile.epochs)}/{run.profile.epochs}"
    )


def _last_line(run: BatchRun, code: int) -> str:
    ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    lines = (run.folder / _LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
    return f"{last[:300]} ({ended})"


# ---------------------------------------------------------------- one run, in its own process


def run_one(folder: Path) -> None:
    """Do the run that `folder`/run.json describes, and write result.json."""
    from utils.startup import import_tensorflow

    spec = read_json(folder / _SPEC)
    profile = profile_from_dict(spec["profile"], str(folder / _SPEC))
    if spec["notebook"] is None:
        import_tensorflow()
        from utils.evaluation.scoring import score_run
        from utils.training.loop import train

        data = find_data(profile, spec["data"], progress=False)
        train(profile, data, folder)
        scored = score_run(folder, data, spec["test"], spec["after"])
    else:
        scored = _run_notebook(folder, profile, spec)
    metrics = scored.pop("")
    write_json(
        folder / _RESULT,
        {
            "method": spec["method"],
            "profile": profile.to_dict(),
            "parameters": spec["parameters"],
            "seed": spec["seed"],
            "test": spec["test"],
            "metrics": metrics,
            "after": scored,
        },
    )


def _run_notebook(folder: Path, profile: Profile, spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Run the notebook; its metrics are the numbers in the JSON files it leaves, and its training's scores."""
    from utils.runner import Run, RunFailed, run_notebook

    shared = {"DATA_DIR": spec["data"]} if spec["data"] != "auto" else {}
    run = Run(folder, profile, shared)
    result = run_notebook(run, Path(spec["notebook"]), spec["parameters"])
    if not result.passed:
        raise RunFailed(f"{run.executed(result.name)}: {result.problem}")
    metrics: dict[str, float] = {"minutes": result.seconds / 60}
    for file in sorted(path for path in run.output.glob("*.json") if not is_hidden(path.name)):
        content = read_json(file)
        if isinstance(content, dict) and not file.name.endswith("_configs.json"):
            numbers = {name: value for name, value in content.items() if type(value) in (int, float)}
            metrics.update(numbers)
    if any(run.output.glob("*_weights.h5")):
        from utils.startup import import_tensorflow

        import_tensorflow()
        from utils.evaluation.scoring import score_run

        data = find_data(profile, spec["data"], progress=False)
        scored = score_run(run.output, data, spec["test"], spec["after"])
        return {**scored, "": {**metrics, **scored[""]}}
    if spec["after"]:
        raise InputError(f"{result.name} leaves no trained network, so there is nothing to do `after` it.")
    return {"": metrics}


def _end_with_the_batch() -> None:
    """End this process at once when the batch that started it is gone, so that two never work on one run."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # nothing is ever written; it returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    _end_with_the_batch()
    try:
        run_one(Path(sys.argv[1]))
    except (InputError, UsageError) as told:
        sys.exit(f"Error: {told}")
