"""Runs notebooks headless with papermill, judges every run, and shows the executed course as HTML."""

import ast
import contextlib
import csv
import html
import itertools
import os
import sys
import textwrap
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from utils.config import Profile, load_profile, nearest
from utils.errors import InputError, UsageError
from utils.files import read_json, replacing, write_json
from utils.paths import REPOSITORY


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
    ),
    "04_evaluate_long_tail": (Leaves("evaluation.json"), Leaves("predictions.npz")),
    "05_submission": (Leaves("submission.csv"), Leaves("scores.json")),
    "06_beating_the_long_tail": (Leaves("beating_the_long_tail.json"),),
}
NOTEBOOKS = REPOSITORY / "notebooks"
KERNEL = "python3"
# Parameters that the runner sets itself, and how a user sets them.
_OWN = {"PROFILE": "--profile", "DATA_DIR": "--data", "OUTPUT_DIR": "--out", "BATCH_RUN": None}


class RunFailed(InputError):
    """A notebook did not do all of its work; the message begins with where the executed notebook is."""


@dataclass(frozen=True)
class NotebookResult:
    """How one notebook's run went."""

    name: str
    seconds: float
    training_seconds: float  # of them in training epochs, from the history CSV
    problem: str = ""  # empty: passed

    @property
    def passed(self) -> bool:
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
        return self.folder / "notebooks" / f"{name}.ipynb"

    def page(self, name: str) -> Path:
        return self.folder / "html" / f"{name}.html"


# ---------------------------------------------------------------- what is asked for


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


def read_parameters(path: Path) -> dict[str, Any]:
    """Name and default of every parameter of a notebook, from the one cell tagged `parameters`.

    Raises:
        InputError: the file is no notebook, has no such cell or several, or a line of it is not
            `NAME = literal`.
    """
    notebook = read_json(path)
    try:
        cells = [(cell["metadata"].get("tags", []), "".join(cell["source"])) for cell in notebook["cells"]]
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


# ---------------------------------------------------------------- one notebook


def kernel_variables() -> dict[str, str]:
    """Variables by which a kernel finds `utils` from any folder, whatever files lie beside the notebook.

    Those files can be imported too, but after all that is installed (utils/kernel_start.py). The environment's own
    python3 comes before a kernel of that name which the user has.
    """
    return {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONSAFEPATH": "1",
        "PYTHONSTARTUP": str(REPOSITORY / "utils" / "kernel_start.py"),
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
    executed.unlink(missing_ok=True)  # so that an earlier run's is never judged
    own = read_parameters(path)
    injected = {
        "PROFILE": run.profile.name,
        "OUTPUT_DIR": str(run.output),
        "BATCH_RUN": True,
        **run.parameters,
        **parameters,
    }
    profile = _with_overrides(run.profile, parameters)
    os.environ.update(kernel_variables())
    begin = time.time()
    raised = ""
    try:
        with _standard_error_in(executed.with_suffix(".log")):
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters={name: value for name, value in injected.items() if name in own},
                kernel_name=KERNEL,
                cwd=str(path.parent),  # Jupyter's; it is the caller's otherwise
                progress_bar=False,
                start_timeout=180,
            )
    except PapermillExecutionError as error:
        raised = f"cell {error.cell_index + 1}: {_shortened(error.ename, error.evalue)}"
    except DeadKernelError:
        raised = f"the kernel died (out of memory, or a crash: see {executed.with_suffix('.log')})"
    seconds = time.time() - begin
    problem = raised
    if not problem and not executed.is_file():
        problem = "papermill wrote no executed notebook"
    if not problem:
        problem = judge_cells(nbformat.read(executed, as_version=4))
    if not problem:
        problem = judge_files(run.output, COURSE.get(path.stem, ()), profile, begin)
    training = sum(_epoch_seconds(run.output, profile, begin)) if path.stem.startswith("03_train") else 0.0
    return NotebookResult(path.stem, seconds, min(training, seconds), problem)


@contextlib.contextmanager
def _standard_error_in(path: Path) -> Iterator[None]:
    """Let standard error go to a file: a kernel repeats there what the notebook has, and its last words."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("wb") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


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


def _with_overrides(profile: Profile, parameters: Mapping[str, Any]) -> Profile:
    """The profile with the notebook parameters that replace a setting, as EPOCHS does; 0 replaces nothing."""
    names = {setting.name for setting in fields(Profile)}
    return replace(
        profile,
        **{name.lower(): value for name, value in parameters.items() if name.lower() in names and value},
    )


def _epoch_seconds(output: Path, profile: Profile, begin: float) -> list[float]:
    """Seconds of each epoch of the profile's history, none when the file is from before `begin`."""
    history = output / f"{profile.run_name}.csv"
    if not history.is_file() or history.stat().st_mtime < begin:
        return []
    with history.open(newline="", encoding="utf-8") as file:
        return [float(row["time"]) for row in csv.DictReader(file) if row.get("time")]


@contextlib.contextmanager
def _under_way(output: Path, profile: Profile, name: str, place: str) -> Iterator[None]:
    """Say how far a notebook is: on a terminal in one line that changes, elsewhere in a line every 10 seconds."""
    begin, done = time.time(), threading.Event()
    terminal = sys.stdout.isatty()

    def show() -> None:
        while not done.wait(1 if terminal else 10):
            line = f"{name:<26} {_clock(time.time() - begin):>6}  {place}"
            if name.startswith("03_train") and (epochs := _epoch_seconds(output, profile, begin)):
                left = sum(epochs) / len(epochs) * (profile.epochs - len(epochs))
                line += f", epoch {len(epochs)} of {profile.epochs} done, about {_clock(left)} more for the others"
            print(f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if terminal:
            print("\r\033[K", end="", flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


# ---------------------------------------------------------------- the course


def run_course(
    names: Sequence[str] = (),
    *,
    profile: str = "auto",
    parameters: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
    out: Path | None = None,
) -> Run:
    """Run notebooks one after the other, show them as HTML and print the scores.

    Everything is checked before the first one starts. After a failure the rest is not run.

    Args:
        names: see `find_notebooks`.
        profile: name of a profile, or `auto`.
        parameters: notebook parameters as text, by name.
        data_dir: folder with shards and metadata, in place of what the profile finds by itself.
        out: folder of the run, an earlier run's to go on with its output; a new one under runs/ when None.

    Raises:
        UsageError: a notebook, profile or parameter is not known, or a value has the wrong type.
        RunFailed: a notebook did not pass.
    """
    settings = load_profile(profile)
    notebooks = find_notebooks(names)
    given = check_parameters(notebooks, parameters or {})
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data {data_dir}: no such folder.")
    shared = {"DATA_DIR": str(data_dir.resolve())} if data_dir is not None else {}
    folder = out.resolve() if out else REPOSITORY / "runs" / time.strftime("%Y-%m-%d_%H%M%S")
    run = Run(folder, settings, shared, _earlier_results(folder))
    folder.mkdir(parents=True, exist_ok=True)
    if out is None:
        _point_latest(folder)
    print(f"Profile {settings.name}: {settings.about}\n{len(notebooks)} notebooks -> {folder}", flush=True)
    failed = None
    pages: list[Future] = []
    with ThreadPoolExecutor(1) as pool:  # a page is made while the next notebook runs
        for number, path in enumerate(notebooks, start=1):
            place = f"notebook {number} of {len(notebooks)}"
            try:
                with _under_way(run.output, _with_overrides(settings, given[path]), path.stem, place):
                    result = run_notebook(run, path, given[path])
            except KeyboardInterrupt:
                print(
                    f"{path.stem:<26} interrupted. What was done is in {folder}; go on with --out {folder}",
                    flush=True,
                )
                raise
            run.results = sorted(
                [*(old for old in run.results if old.name != result.name), result], key=lambda r: r.name
            )
            print(
                f"{result.name:<26} {_clock(result.seconds):>6}  {'passed' if result.passed else 'FAILED'}",
                flush=True,
            )
            if run.executed(path.stem).is_file():
                pages.append(pool.submit(write_page, run, path.stem))
            if not result.passed:
                failed = result
                break
    for page in pages:
        page.result()  # raises what went wrong in the thread
    scores = read_scores(run.output)
    write_json(folder / "result.json", _as_json(run, scores))
    write_index(run, scores)
    if failed:
        raise RunFailed(
            f"{run.executed(failed.name)}\n{failed.name} did not pass: {failed.problem}\n"
            f"The notebook above holds what it did. After mending: "
            f"./course run {failed.name.split('_')[0]} --profile {settings.name} --out {folder}"
        )
    print(summary(run, scores))
    return run


def _earlier_results(folder: Path) -> list[NotebookResult]:
    path = folder / "result.json"
    if not path.is_file():
        return []
    try:
        return [NotebookResult(**values) for values in read_json(path)["notebooks"]]
    except (KeyError, TypeError):
        raise InputError(
            f"{path}: not the result of a run of the course. Name another folder by --out."
        ) from None


def _point_latest(folder: Path) -> None:
    """Make runs/latest a link to the folder, where the file system has links."""
    link = folder.parent / "latest"
    if link.exists() and not link.is_symlink():
        return  # somebody's own folder
    with contextlib.suppress(OSError), replacing(link) as temporary:  # some file systems have no links
        temporary.symlink_to(folder.name)


def _as_json(run: Run, scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "profile": run.profile.to_dict(),
        "passed": all(result.passed for result in run.results),
        "notebooks": [asdict(result) for result in run.results],
        "scores": scores,
    }


def read_scores(output: Path) -> dict[str, Any]:
    """macro_f1, accuracy and the baselines of the withheld test, as far as the notebooks have left them."""
    found: dict[str, Any] = {}
    for name, keys in (
        ("evaluation.json", ("baselines",)),
        ("scores.json", ("macro_f1", "accuracy", "baselines")),
    ):
        if (output / name).is_file():
            values = read_json(output / name)
            found.update({key: values[key] for key in keys if values.get(key) is not None})
    return found


def _baselines(scores: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(method, macro-F1) of the baselines, written as rows of a table or by name."""
    baselines = scores.get("baselines") or []
    if isinstance(baselines, Mapping):
        rows = list(baselines.items())
        return [(name, value["macro_f1"] if isinstance(value, Mapping) else value) for name, value in rows]
    return [(row["method"], row["macro_f1"]) for row in baselines]


def summary(run: Run, scores: Mapping[str, Any]) -> str:
    """The last lines of a run: time by notebook, scores with baselines, where to look, macro-F1."""
    lines = ["", f"{'notebook':<26} {'time':>6} {'training':>9} {'other':>6}"]
    rows = [(result.name, result.seconds, result.training_seconds) for result in run.results]
    if len(rows) > 1:
        rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, seconds, training in rows:
        lines.append(f"{name:<26} {_clock(seconds):>6} {_clock(training):>9} {_clock(seconds - training):>6}")
    if cells := longest_cells(run):
        lines += ["", f"{'longest cells':<26} {'time':>6}"]
        lines += [f"{place:<26} {_clock(seconds):>6}  {line}" for seconds, place, line in cells]
    if "macro_f1" in scores:
        lines += ["", f"{'macro-F1 on the withheld test':<42} {scores['macro_f1']:.3f}"]
        if "accuracy" in scores:
            lines.append(f"{'accuracy':<42} {scores['accuracy']:.3f}")
        for method, value in _baselines(scores):
            lines.append(f"{'macro-F1 of the baseline: ' + method:<42} {value:.3f}")
    lines += ["", f"Look at {run.folder / 'index.html'}, files in {run.output}"]
    if "macro_f1" in scores:
        lines.append(f"macro-F1 {scores['macro_f1']:.3f} (withheld test)")
    else:
        lines.append("macro-F1 not known: notebook 05 scores the withheld test, where there is one")
    return "\n".join(lines)


def longest_cells(run: Run, most: int = 5) -> list[tuple[float, str, str]]:
    """(seconds, notebook and cell, its last statement) of the cells that took longest, a second or more."""
    found = []
    for result in run.results:
        path = run.executed(result.name)
        for number, cell in enumerate(read_json(path)["cells"] if path.is_file() else [], start=1):
            seconds = cell["metadata"].get("papermill", {}).get("duration") or 0.0
            lines = [
                line
                for line in "".join(cell["source"]).splitlines()
                if line[:1] not in ("", " ", ")", "]", "}", "#")
            ]
            if seconds >= 1 and cell["cell_type"] == "code" and lines:
                place = f"{result.name.split('_')[0]}, cell {number}"
                found.append((seconds, place, textwrap.shorten(lines[-1], 60, placeholder=" ...")))
    return sorted(found, reverse=True)[:most]


# ---------------------------------------------------------------- pages

# The page of nbconvert's template without its scripts from the network, so that it opens offline.
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block body_header -%}{{ super() }}<p style="font: 14px sans-serif">
<a style="color: #0645ad" href="../index.html">All notebooks</a></p>
{%- endblock -%}
"""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem 1rem .3rem 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)) }
.figures img { width: 100%; border: 1px solid #ddd }
.failed { color: #b00020; font-weight: 600 }
.score { font-size: 1.6rem }
"""


def write_page(run: Run, name: str) -> Path:
    """Write an executed notebook as one HTML file with its figures inside, readable without a network."""
    import nbformat
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_file="course.html.j2", extra_loaders=[DictLoader({"course.html.j2": _TEMPLATE})]
    )
    notebook = nbformat.read(run.executed(name), as_version=4)
    for cell in notebook.cells:  # widgets need scripts from the network; their text form stays
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})
    page = run.page(name)
    # Links between notebooks lead to the pages of this run
    for other in COURSE:
        body = body.replace(f'href="{other}.ipynb"', f'href="{other}.html"')
    with replacing(page) as temporary:
        temporary.write_text(body, encoding="utf-8")
    return page


def write_index(run: Run, scores: Mapping[str, Any]) -> Path:
    """Write index.html: scores, time and figures of every executed notebook, with links to their pages."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Herbarium course, {html.escape(run.folder.name)}</title><style>{_STYLE}</style>",
        f"<h1>Herbarium course</h1><p>Profile <b>{html.escape(run.profile.name)}</b>: "
        f"{html.escape(run.profile.about)}</p>",
    ]
    if "macro_f1" in scores:
        parts.append(f'<p class="score">macro-F1 {scores["macro_f1"]:.3f} on the withheld test</p>')
        rows = "".join(
            f'<tr><td>{html.escape(method)}</td><td class="n">{value:.3f}</td></tr>'
            for method, value in _baselines(scores)
        )
        if rows:
            parts.append(f'<table><tr><th>baseline</th><th class="n">macro-F1</th></tr>{rows}</table>')
    parts.append('<table><tr><th>notebook</th><th class="n">time</th><th class="n">of which training</th>')
    parts.append("<th>result</th></tr>")
    for result in run.results:
        page = run.page(result.name)
        name = html.escape(result.name)
        link = f'<a href="html/{_address(result.name)}">{name}</a>' if page.is_file() else name
        state = "passed" if result.passed else f'<span class="failed">{html.escape(result.problem)}</span>'
        parts.append(
            f'<tr><td>{link}</td><td class="n">{_clock(result.seconds)}</td>'
            f'<td class="n">{_clock(result.training_seconds)}</td><td>{state}</td></tr>'
        )
    parts.append("</table>")
    for result in run.results:
        figures = list(_figures(run.executed(result.name)))
        if figures:
            name = html.escape(result.name)
            images = "".join(
                f'<a href="html/{_address(result.name)}"><img alt="figure {number} of {name}" loading="lazy" '
                f'src="data:image/png;base64,{html.escape(data)}"></a>'
                for number, data in enumerate(figures, start=1)
            )
            parts.append(f'<h2>{name}</h2><div class="figures">{images}</div>')
    parts.append(
        '<p>Files that the notebooks left: <a href="output/">output/</a>. Executed notebooks: '
        '<a href="notebooks/">notebooks/</a>.</p></html>'
    )
    path = run.folder / "index.html"
    with replacing(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return path


def _address(name: str) -> str:
    """A notebook's page as a relative address."""
    return html.escape(urllib.parse.quote(f"{name}.html"))


def _figures(executed: Path) -> Iterator[str]:
    """The PNG figures of an executed notebook, as base64 text."""
    if not executed.is_file():
        return
    for cell in read_json(executed)["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                data = output["data"]["image/png"]
                yield "".join("".join(data).split())
