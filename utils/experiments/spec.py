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
    data: ../my_shards          # a folder of shards in place of the profile's own, or a list of them, from this
                                # file's folder; those of the call (`--data`) take their place
    table: ../results/a.csv     # where the table goes too, once every run has finished
    slurm:                      # with --slurm: long options of sbatch, as they are; those of the call come on top
      partition: gpu
      time: 4:00:00

`test` is `withheld` (the solution of the test set, or the part `test` of a split.csv), a number (as many further
sheets of every species of the sample flora, drawn for this and never used for a choice), or `none` (validation
scores only, to choose settings by).

`after` has chains of steps, in this order and joined by " + ": a classifier (see `CLASSIFIERS` of
`utils.experiments.scoring`), tta, least cost. Classifiers are learnt from the training images, a decision by least
cost has its temperature from validation.

With several folders of `data`, every method is run with every seed on every one, and a row of the table is over all
of them.

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
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config import Profile, load_profile, nearest
from utils.experiments.slurm import options_of
from utils.files import REPOSITORY, InputError, UsageError, read_json, write_json

KEYS = (
    *("run", "about", "profiles", "seeds", "settings", "methods", "grid"),
    *("after", "ensembles", "test", "data", "table", "slurm"),
)
RESULT_FILE, SPEC_FILE, LOG_FILE = "result.json", "run.json", "log.txt"


@dataclass(frozen=True)
class BatchRun:
    """One run of a batch: a method with a profile and a seed."""

    method: str
    profile: Profile
    seed: int
    parameters: Mapping[str, Any]  # of the notebook
    after: tuple[str, ...]  # chains of utils.experiments.scoring.STEPS
    folder: Path
    data: Path | None  # the folder of shards, None for the profile's own
    of_several: bool  # folders of data in the batch

    @property
    def title(self) -> str:
        """Method, profile, data where there are several, and seed, as the progress names the run."""
        data = f", {self.data.name}" if self.data and self.of_several else ""
        return f"{self.method}, {self.profile.name}{data}, seed {self.seed}"

    @property
    def rows(self) -> list[str]:
        """The rows of the table that it belongs to: its own first, then those of the chains after it."""
        return [self.method, *(f"{self.method} + {chain}" for chain in self.after)]

    @property
    def finished(self) -> bool:
        """Whether its result is there, with all chains that are asked for after it."""
        return is_finished(self.folder, self.after)

    @property
    def epochs_done(self) -> int:
        """Whole epochs of a run that has begun and not finished."""
        return epochs_done(self.folder)


def read_result(folder: Path) -> dict[str, Any]:
    """What `utils.experiments.one` has written of a finished run.

    Raises:
        InputError: it is edited or damaged.
    """
    file = folder / RESULT_FILE
    result = read_json(file)
    parts = [result.get("metrics"), result.get("after")] if isinstance(result, dict) else [None]
    parts += list(parts[-1].values()) if isinstance(parts[-1], dict) else []
    numbers = [value for part in (parts[0], *parts[2:]) if isinstance(part, dict) for value in part.values()]
    if not all(isinstance(part, dict) for part in parts) or not all(
        value is None or type(value) in (int, float) for value in numbers
    ):
        raise InputError(
            f"{file}: not the result of a run as it was written. Delete it, and the run is done again."
        )
    return result


@dataclass(frozen=True)
class Batch:
    """A batch file, read and checked."""

    file: Path
    about: str
    notebook: Path | None  # None: train
    runs: tuple[BatchRun, ...]
    ensembles: tuple[str, ...]  # rows of the table
    test: str | int
    data: tuple[Path | None, ...]  # folders of shards, None for the profile's own
    table: Path | None
    slurm: Mapping[str, str]  # options of sbatch
    folder: Path


def is_finished(folder: Path, after: Sequence[str]) -> bool:
    """Whether the result of the run in `folder` is there, with the chains `after` it."""
    return (folder / RESULT_FILE).is_file() and set(after) <= set(read_result(folder)["after"])


def epochs_done(folder: Path) -> int:
    """Whole epochs of the run in `folder`, of train or of a notebook."""
    states = [folder / place / "state" / "state.json" for place in (".", "output")]
    found = next((read_json(state) for state in states if state.is_file()), {})
    epoch = found.get("epoch") if isinstance(found, dict) else None
    return epoch if isinstance(epoch, int) else 0  # the run itself says what is wrong with its state


def write_spec(batch: Batch, run: BatchRun) -> None:
    """Write what `utils.experiments.one` is to do into the run's folder, which is made."""
    write_json(
        run.folder / SPEC_FILE,
        {
            "method": run.method,
            "seed": run.seed,
            "notebook": str(batch.notebook) if batch.notebook else None,
            "parameters": dict(run.parameters),
            "profile": run.profile.to_dict(),
            "data": str(run.data) if run.data else "auto",
            "test": batch.test,
            "after": run.after,
        },
    )


def read_batch(file: Path, out: Path | None = None, data: Sequence[Path] = ()) -> Batch:
    """Read a batch file and check all of it, so that nothing is found wrong after hours of work.

    Args:
        file: see the module's head.
        out: folder of the runs; runs/batches/<name of the file> when None.
        data: folders of shards in place of those that the file names.

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
    test, table = asked.get("test"), asked.get("table")
    test = "withheld" if test is None else test
    if test == "none" and "after" in asked:
        raise UsageError(f"{file}: `after` needs a test to be scored on, and test is none.")
    if test not in ("withheld", "none") and (not isinstance(test, int) or isinstance(test, bool) or test < 1):
        raise UsageError(
            f"{file}: test is {test!r}, must be withheld, none, or a number of sheets a species."
        )
    out = Path(out) if out else REPOSITORY / "runs" / "batches" / file.name.split(".")[0]
    batch = Batch(
        file=file,
        about=str(asked.get("about", "")),
        notebook=notebook,
        runs=(),
        ensembles=tuple(_list(file, "ensembles", asked["ensembles"])) if "ensembles" in asked else (),
        test=test,
        data=_folders(file, asked.get("data"), data),
        table=(file.parent / str(table)).resolve() if table else None,
        slurm=_sbatch_options(file, asked.get("slurm")),
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
        if len({run.seed for run in runs if name in run.rows}) < 2:
            raise UsageError(f"{file}: ensembles: {name!r} has one run. Give it several seeds.")
    if batch.ensembles and batch.test == "none":
        raise UsageError(f"{file}: `ensembles` needs a test to be scored on, and test is none.")
    return dataclasses.replace(batch, runs=runs)


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text)
        if _size(root, {}) > _MOST_NODES:
            raise InputError(
                f"{file}: its aliases (*name) stand for more than {_MOST_NODES:,} values. Write less."
            )
        twice = _key_twice(root)
        if twice is not None:
            place = f"line {twice.start_mark.line + 1}, column {twice.start_mark.column + 1}"
            raise InputError(f"{file}: not valid YAML ({twice.value!r} is there twice, {place}).")
        asked = yaml.safe_load(text)
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file.") from None
    except RecursionError:
        raise InputError(f"{file}: nests too deeply, or within itself. Write it flat.") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:  # the last of a date that is none
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(asked, dict):
        raise InputError(f"{file}: must be a mapping of {', '.join(KEYS)}. `batch --help` shows an example.")
    return asked


_MOST_NODES = 100_000


def _size(node: Any, known: dict[int, float]) -> float:
    """Nodes of YAML, each counted as often as aliases name it; infinitely many where one holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until all within it is counted
        inner = getattr(node, "value", ())  # None of an empty file, text of a scalar, pairs of a mapping
        inner = inner if isinstance(inner, list) else ()
        inner = itertools.chain.from_iterable(each if isinstance(each, tuple) else (each,) for each in inner)
        known[id(node)] = 1 + sum(_size(each, known) for each in inner)
    return known[id(node)]


def _sbatch_options(file: Path, options: Any) -> dict[str, str]:
    """The options of sbatch as the file has them: to YAML 4:00:00 is 14,400, and to sbatch that is minutes."""
    import yaml

    if not _mapping(file, "slurm", options):
        return {}
    texts = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)["slurm"]
    for name, text in texts.items():
        if not isinstance(text, str):
            raise UsageError(f"{file}: slurm: {name} is {options[name]!r}, must be one value, or nothing.")
    bare = ("", "true")  # of options without a value, as exclusive
    return options_of(
        ((name, "" if text in bare else text) for name, text in texts.items()), f"{file}: slurm"
    )


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


def _folders(file: Path, named: Any, given: Sequence[Path]) -> tuple[Path | None, ...]:
    """The folders of shards: those given with the call, else those that the file names from its folder, else None."""
    if given:
        folders = [Path(folder).resolve() for folder in given]
    elif named is None:
        return (None,)
    else:
        named = _list(file, "data", named) if isinstance(named, list) else [named]
        folders = [(file.parent / str(folder)).resolve() for folder in named]
    for number, folder in enumerate(folders):
        if not folder.is_dir():
            raise UsageError(f"{file}: data: {folder}: no such folder.")
        if folder in folders[:number]:
            raise UsageError(f"{file}: data: {folder}: is there twice. Give every folder once.")
    return tuple(folders)


def _notebook(file: Path, run: Any) -> Path | None:
    from utils.course.notebooks import COURSE, find_notebooks

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
    from utils.experiments.scoring import needs_dense_classifier, steps_of

    file = batch.file
    profiles = _list(file, "profiles", asked.get("profiles", ["auto"]))
    settings = _mapping(file, "settings", asked.get("settings"))
    methods = _mapping(file, "methods", asked.get("methods")) or {"": None}
    grid = _mapping(file, "grid", asked.get("grid"))
    axes = [_list(file, f"grid: {key}", values) for key, values in grid.items()]
    steps = _list(file, "after", asked["after"]) if "after" in asked else []
    known = None
    if batch.notebook is not None:
        from utils.course.notebooks import read_parameters

        known = read_parameters(batch.notebook)
    for profile, data in itertools.product(profiles, batch.data):
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
                        run = _run(batch, data, str(profile), method, given, seed, known, "seeds" in asked)
                    except UsageError as error:
                        raise UsageError(f"{file}: {method}: {error}") from None
                    if run.profile.loss == "arcface" and any(map(needs_dense_classifier, after)):
                        raise UsageError(
                            f"{file}: {method}: ArcFace has no classifier to change. Set `after`."
                        )
                    yield dataclasses.replace(run, after=tuple(after))


def _run(
    batch: Batch,
    data: Path | None,
    profile_name: str,
    method: str,
    given: dict[str, Any],
    seed: int,
    known: dict[str, Any] | None,
    seeded: bool,
) -> BatchRun:
    """One run, with its settings checked; `known` has the parameters of the notebook and their defaults."""
    from utils.course.notebooks import check_parameters

    if known is None:
        for key, instead in (("seed", "seeds"), ("name", "profiles")):
            if key in given:
                raise UsageError(f"`{key}` is no setting of a batch. Give `{instead}`, a list.")
        profile, parameters = load_profile(profile_name, seed=seed, **given), {}
    else:
        profile = load_profile(profile_name)
        given = {**given, **({"SEED": seed} if seeded or "SEED" in known else {})}
        parameters = check_parameters([batch.notebook], {key: str(value) for key, value in given.items()})
        parameters = parameters[batch.notebook]
    digest = hashlib.sha256(json.dumps(_identity(batch, data, profile, parameters)).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9.=]+", "-", method.lower()).strip("-")[:60]
    folder = batch.folder / f"{slug}_{profile.name}_seed{seed}_{digest}"
    return BatchRun(method, profile, seed, parameters, (), folder, data, len(batch.data) > 1)


def _identity(
    batch: Batch, data: Path | None, profile: Profile, parameters: dict[str, Any]
) -> dict[str, Any]:
    """What makes a run another run. A setting that a later version adds counts once it is not at its default."""
    from utils.flora.sample import GENERATOR_VERSION

    return {
        "notebook": batch.notebook and batch.notebook.name,
        "profile": profile.changed(),
        "parameters": parameters,
        "test": batch.test,
        "data": str(data) if data else None,
        "flora": GENERATOR_VERSION if profile.source == "flora" else None,
        **_weights_given(profile.weights),
    }


def _weights_given(weights: str) -> dict[str, int]:
    """The checksum of the file that a run begins from: another one under the same path is another run.

    `utils.training.weights.checksum` is the same number, and its module imports TensorFlow.
    """
    path = Path(weights).expanduser()
    return {"weights": zlib.crc32(path.read_bytes())} if path.suffix == ".h5" and path.is_file() else {}


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
