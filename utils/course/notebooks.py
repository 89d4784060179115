"""One notebook, headless: found, given its parameters, executed with papermill, judged."""

import ast
import contextlib
import csv
import itertools
import json
import os
import shlex
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from utils.config import Profile, nearest
from utils.files import (
    REPOSITORY,
    InputError,
    UsageError,
    is_hidden,
    on_kaggle,
    read_json,
    replacing,
    write_text,
)
from utils.startup import standard_error_to


@dataclass(frozen=True)
class Leaves:
    """A file that a notebook must leave in the output folder; {run_name} is the profile's."""

    name: str
    resumable: bool = False  # a training that is already finished leaves its files as they are


# Notebook -> what it must leave. The order is the order of the course.
COURSE: dict[str, tuple[Leaves, ...]] = {
    "00_start_here": (Leaves("start.json"),),
    "01_eda_long_tail": (Leaves("long_tail.json"),),
    "02_tfrecord_loading": (Leaves("loading.json"),),
    "03_train_efficientnetv2": (
        Leaves("{run_name}.csv", resumable=True),
        Leaves("{run_name}_weights.h5", resumable=True),
        Leaves("training.json"),
    ),
    "04_evaluate_long_tail": (Leaves("evaluation.json"), Leaves("predictions.npz")),
    "05_submission": (Leaves("submission.csv"), Leaves("scores.json")),
    "06_beating_the_long_tail": (Leaves("beating_the_long_tail.json"),),
    "07_whole_trainings": (Leaves("whole_trainings.json"),),
    "08_identify_a_sheet": (Leaves("identify.json"),),
}
TRAINING = "03_train_efficientnetv2"
# They take its run.
AFTER_TRAINING = ("04_evaluate_long_tail", "05_submission", "06_beating_the_long_tail", "08_identify_a_sheet")
NOTEBOOKS = REPOSITORY / "notebooks"
KERNEL = "python3"
_CELLS = ("code", "markdown", "raw")
# Parameters that the runner sets itself, and how a user sets them.
_OWN = {"PROFILE": "--profile", "DATA_DIR": "--data", "OUTPUT_DIR": "--out", "BATCH_RUN": None}


class RunFailed(InputError):
    """A notebook did not do all of its work; the message begins with where the executed notebook is."""


@dataclass(frozen=True)
class NotebookResult:
    """How one notebook's run went."""

    name: str
    seconds: float
    training_seconds: float  # of them in epochs that this run added to histories of trainings
    problem: str = ""  # empty: passed

    @property
    def passed(self) -> bool:
        """Whether there was no problem."""
        return not self.problem


@dataclass
class Run:
    """One run of the course: its folder, its settings and the results so far."""

    folder: Path
    profile: Profile
    parameters: dict[str, Any]
    results: list[NotebookResult] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """OUTPUT_DIR of every notebook."""
        return self.folder / "output"

    def executed(self, name: str) -> Path:
        """Where the executed notebook `name` (without .ipynb) is, or will be."""
        return self.folder / "notebooks" / f"{name}.ipynb"

    def page(self, name: str) -> Path:
        """Where the page of the notebook `name` is, or will be."""
        return self.folder / "html" / f"{name}.html"


def find_notebooks(names: Sequence[str]) -> list[Path]:
    """The notebooks meant by `names`: paths, names, or numbers such as 03; all of the course when empty.

    Raises:
        UsageError: a name fits no notebook.
    """
    if not names:
        return [NOTEBOOKS / f"{name}.ipynb" for name in COURSE]
    found = []
    for name in names:
        path = Path(name)
        if path.suffix == ".ipynb":
            if not path.is_file():
                raise UsageError(
                    f"{path}: no such notebook. Give the path of an .ipynb file, or a number such as 03."
                )
            found.append(path.resolve())
            continue
        fitting = [known for known in COURSE if name and name.zfill(2) in (known, known.split("_")[0])]
        if not fitting:
            raise UsageError(
                f"no notebook {name!r}.{nearest(name, COURSE)} Give a number, a name, or a path to an .ipynb file."
            )
        found.append(NOTEBOOKS / f"{fitting[0]}.ipynb")
    return list(dict.fromkeys(found))


def check_order(notebooks: Sequence[Path], output: Path) -> None:
    """See before anything runs that there is, or will be, a trained network for the notebooks that need one.

    Raises:
        UsageError: one of them comes before notebook 03, and `output` holds no run; the message has the command.
    """
    found = any(not is_hidden(path.name) for path in output.glob("*_configs.json"))
    if found or on_kaggle():  # where a run may be attached, see `utils.training.runs.find_run`
        return
    training = NOTEBOOKS / f"{TRAINING}.ipynb"
    for path in notebooks:
        if path == training:
            return
        if path.parent != NOTEBOOKS or path.stem not in AFTER_TRAINING:
            continue
        others = [each for each in notebooks if each != training]
        names = [each.stem[:2] if each.parent == NOTEBOOKS else str(each) for each in others]
        raise UsageError(
            f"{path.stem} needs the network that {TRAINING} trains, and {output} holds none. Call ./course run "
            f"{shlex.join([TRAINING[:2], *names])} with the same options, or give the folder of an earlier run: "
            "--out runs/latest."
        )


def read_parameters(path: Path) -> dict[str, Any]:
    """Name and default of every parameter of a notebook, from the one cell tagged `parameters`.

    Raises:
        InputError: the file is no notebook, has no such cell or several, or a line of it is not
            `NAME = literal`.
    """
    notebook = read_json(path)
    try:
        cells = [(cell["metadata"].get("tags", []), "".join(cell["source"])) for cell in notebook["cells"]]
        if notebook["nbformat"] != 4 or not all(cell["cell_type"] in _CELLS for cell in notebook["cells"]):
            raise TypeError
    except (AttributeError, KeyError, TypeError):
        raise InputError(
            f"{path}: not a notebook of format 4. Give an .ipynb file that JupyterLab opens."
        ) from None
    tagged = [source for tags, source in cells if "parameters" in tags]
    if len(tagged) != 1:
        raise InputError(
            f"{path}: {len(tagged)} cells are tagged `parameters`, there must be one. Tag the cell that holds them."
        )
    return parse_parameters(tagged[0], str(path))


def write_notebook(path: Path, notebook: Mapping[str, Any]) -> None:
    """Write a notebook as nbformat does, so that Jupyter makes no other change to it."""
    write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def parse_parameters(source: str, where: str) -> dict[str, Any]:
    """Name and value of each line of a parameters cell; InputError when one is not a plain literal."""
    values: dict[str, Any] = {}
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(
            f"{where}: line {error.lineno} of the parameters cell is not Python: {error.msg}."
        ) from None
    for statement in statements:
        try:
            (target,) = statement.targets  # type: ignore[attr-defined]
            if statement.lineno != statement.end_lineno:
                raise ValueError
            values[target.id] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
        except (AttributeError, ValueError, TypeError):
            raise InputError(
                f"{where}: line {statement.lineno} of the parameters cell is not `NAME = literal` on one line. "
                "Compute values in the next cell."
            ) from None
    return values


def typed(name: str, text: str, default: Any) -> Any:
    """`text`, as given on the command line, as a value of the default's type.

    Raises:
        UsageError: it is not of that type.
    """
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, str):
            return text
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        value = ast.literal_eval(text)
        if default is None or isinstance(value, type(default)):
            return value
    except (KeyError, ValueError, SyntaxError):
        pass  # told below, with the type that was wanted
    kind = "True or False" if isinstance(default, bool) else f"of type {type(default).__name__}"
    raise UsageError(f"-p {name}={text}: must be {kind}, as {default!r} is.")


def check_parameters(notebooks: Sequence[Path], given: Mapping[str, str]) -> dict[Path, dict[str, Any]]:
    """What each notebook gets of the parameters given as text; a notebook gets only those it has.

    Raises:
        UsageError: no notebook knows a parameter, its value has the wrong type, or an option sets it.
        InputError: a notebook's parameters cell cannot be read.
    """
    defaults = {path: read_parameters(path) for path in notebooks}
    known = {name for own in defaults.values() for name in own}
    for name in given:
        if name in _OWN:
            way = f"Use {_OWN[name]}." if _OWN[name] else "It is set by the run."
            raise UsageError(f"-p {name} is not a parameter to give. {way}")
        if name not in known:
            listed = ", ".join(path.stem for path in notebooks)
            raise UsageError(
                f"no parameter {name!r} in {listed}.{nearest(name, sorted(known - _OWN.keys()))}"
            )
    return {
        path: {name: typed(name, text, own[name]) for name, text in given.items() if name in own}
        for path, own in defaults.items()
    }


def kernel_variables() -> dict[str, str]:
    """Variables by which a kernel finds `utils` from any folder, whatever files lie beside the notebook.

    Those files can be imported too, but after all that is installed (setup/kernel_start.py). The environment's own
    python3 comes before a kernel of that name which the user has.
    """
    return {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONSAFEPATH": "1",
        "PYTHONSTARTUP": str(REPOSITORY / "utils" / "setup" / "kernel_start.py"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


def run_notebook(run: Run, path: Path, parameters: Mapping[str, Any]) -> NotebookResult:
    """Execute one notebook with papermill and judge it.

    It passes only if papermill ends without an error, every cell ran and none failed, papermill left no
    mark of an exception, and every file that the notebook must leave is there, whole, and of this run.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    executed = run.executed(path.stem)
    for folder in (executed.parent, run.output):
        folder.mkdir(parents=True, exist_ok=True)
    own = read_parameters(path)
    injected = {
        "PROFILE": run.profile.name,
        "OUTPUT_DIR": str(run.output),
        "BATCH_RUN": True,
        **run.parameters,
        **parameters,
    }
    profile = with_overrides(run.profile, parameters)
    trained = epochs_done(run.output)
    os.environ.update(kernel_variables())
    begin = time.time()
    problem = ""
    with replacing(executed) as temporary:  # papermill writes it anew after every cell
        try:
            # a kernel repeats there what the notebook has, and its last words
            with executed.with_suffix(".log").open("wb") as log, standard_error_to(log):
                papermill.execute_notebook(
                    str(path),
                    str(temporary),
                    parameters={name: value for name, value in injected.items() if name in own},
                    kernel_name=KERNEL,
                    language="python",  # a notebook need not say it
                    cwd=str(path.parent),  # Jupyter's; it is the caller's otherwise
                    progress_bar=False,
                    start_timeout=180,
                )
        except PapermillExecutionError as error:
            problem = f"cell {error.cell_index + 1}: {_shortened(error.ename, error.evalue)}"
        except DeadKernelError:
            problem = f"the kernel died (out of memory, or a crash: see {executed.with_suffix('.log')})"
    seconds = time.time() - begin
    done = nbformat.read(executed, as_version=4)
    _trust(done)
    problem = problem or judge_cells(done)
    problem = problem or judge_files(run.output, COURSE.get(path.stem, ()), profile, begin)
    added = [epoch.seconds for epoch in epochs_done(run.output) if epoch not in trained]
    return NotebookResult(path.stem, seconds, min(sum(added), seconds), problem)


def _trust(notebook: Any) -> None:
    """Sign an executed notebook as JupyterLab does when it saves one, so that it shows the styles of tables and cards.

    Where the home of the user cannot be written, Lab shows them plainly, as it does for notebooks from elsewhere.
    """
    from jupyter_core.paths import jupyter_data_dir
    from nbformat.sign import NotebookNotary

    folder = Path(jupyter_data_dir())  # a notary that looks for it sets up logging anew for the whole process
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with NotebookNotary(data_dir=str(folder)) as notary:
            notary.sign(notebook)


def judge_cells(notebook: Any) -> str:
    """What is wrong with an executed notebook, or an empty string.

    papermill's own marks are not enough: after sys.exit(0), a timeout or a dead kernel the cells that never
    ran say `completed`. Only an execution count shows that a cell ran.
    """
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                return f"cell {number}: {_shortened(output.ename, output.evalue)}"
        mark = cell.metadata.get("papermill", {})
        if mark.get("exception") or mark.get("status") not in (None, "completed"):
            return f"cell {number} failed or did not finish"
        if cell.execution_count is None:
            return f"cell {number} never ran: the kernel died or a cell before it called exit()"
    if notebook.metadata.get("papermill", {}).get("exception"):
        return "papermill marks an exception"
    return ""


def _shortened(name: str, value: str) -> str:
    """An error as one line of at most 400 characters; the notebook has all of it."""
    line = f"{name}: {' '.join(value.split())}"
    return line if len(line) <= 400 else f"{line[:400]} ..."


def judge_files(folder: Path, leaves: Sequence[Leaves], profile: Profile, begin: float) -> str:
    """What is wrong with the files that a notebook must leave, or an empty string."""
    for leave in leaves:
        path = folder / leave.name.format(run_name=profile.run_name)
        if not path.is_file():
            return f"{path} was not written"
        # file systems stamp with the clock's last tick, up to 10 ms ago
        if not leave.resumable and path.stat().st_mtime < begin - 0.05:
            return f"{path} is from before this run"
        if problem := _file_problem(path):
            return f"{path} {problem}"
    return ""


def _file_problem(path: Path) -> str:
    if path.stat().st_size == 0:
        return "is empty"
    if path.suffix == ".json":
        try:
            read_json(path)
        except InputError:
            return "is not valid JSON"
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            if len(list(itertools.islice(csv.reader(file), 2))) < 2:
                return "has no rows"
    elif path.suffix == ".npz":
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                return "is not a whole .npz file"
    elif path.suffix == ".h5":
        with path.open("rb") as file:
            if file.read(8) != b"\x89HDF\r\n\x1a\n":
                return "is not an HDF5 file"
    return ""


def with_overrides(profile: Profile, parameters: Mapping[str, Any]) -> Profile:
    """The profile with the notebook parameters that replace a setting, as EPOCHS does; 0 replaces nothing."""
    names = {setting.name for setting in fields(Profile)}
    return replace(
        profile,
        **{name.lower(): value for name, value in parameters.items() if name.lower() in names and value},
    )


@dataclass(frozen=True)
class Epoch:
    """An epoch that a training has done, as its history has it; the same one is equal however often it is read."""

    history: Path
    planned: int  # epochs of the whole training
    number: int  # from 1
    seconds: float
    loss: str  # as written: tells a training anew in the same place from the one before


def epochs_done(output: Path) -> list[Epoch]:
    """The epochs of every training in a folder and its subfolders, which each have a {run_name}_configs.json."""
    suffix, found = "_configs.json", []
    for configs in sorted(output.rglob(f"*{suffix}")):
        history = configs.with_name(configs.name.replace(suffix, ".csv"))
        if is_hidden(configs.name) or not history.is_file():
            continue
        planned = read_json(configs)["epochs"]
        with history.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=1):
                found.append(Epoch(history, planned, number, float(row["time"]), row["loss"]))
    return found
