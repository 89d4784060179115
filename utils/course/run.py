"""The course run: notebooks one after the other, their results, the scores."""

import contextlib
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.config import load_profile
from utils.course.notebooks import (
    NotebookResult,
    Run,
    RunFailed,
    check_order,
    check_parameters,
    epochs_done,
    find_notebooks,
    run_notebook,
)
from utils.course.pages import clock, score_lines, write_index, write_page
from utils.files import REPOSITORY, InputError, UsageError, printable, read_json, replacing, write_json
from utils.startup import holding


@contextlib.contextmanager
def _under_way(output: Path, name: str, place: str) -> Iterator[None]:
    """Say how far a notebook is: on a terminal in one line that changes, elsewhere in a line every 10 seconds."""
    begin, done = time.time(), threading.Event()
    terminal = sys.stdout.isatty()
    before = epochs_done(output)

    def show() -> None:
        while not done.wait(1 if terminal else 10):
            line = f"{name:<26} {clock(time.time() - begin):>6}  {place}"
            epochs = epochs_done(output) if name.startswith("03_train") else []
            if added := [epoch for epoch in epochs if epoch not in before]:
                # of several trainings the one that goes on
                latest = max((epoch.history for epoch in added), key=lambda history: history.stat().st_mtime)
                seconds = [epoch.seconds for epoch in epochs if epoch.history == latest]
                planned = next(epoch.planned for epoch in added if epoch.history == latest)
                line += f", {latest.stem.split('_')[0]}: epoch {len(seconds)} of {planned} done"
                if left := planned - len(seconds):
                    line += f", about {clock(sum(seconds) / len(seconds) * left)} more for the others"
            line = printable(line)
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
        UsageError: a notebook, profile or parameter is not known, a value has the wrong type, or a notebook comes
            before the one whose network it takes.
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
    check_order(notebooks, run.output)
    with holding(folder):
        return _run_all(run, notebooks, given, to_latest=out is None)


def _run_all(
    run: Run, notebooks: Sequence[Path], given: Mapping[Path, Mapping[str, Any]], *, to_latest: bool
) -> Run:
    """`run_course`, once all is checked and the folder is held."""
    folder, settings = run.folder, run.profile
    if to_latest:
        _point_latest(folder)
    _say(f"Profile {settings.name}: {settings.about}\n{len(notebooks)} notebooks -> {folder}")
    failed = None
    pages: list[Future] = []
    with ThreadPoolExecutor(1) as pool:  # a page is made while the next notebook runs
        for number, path in enumerate(notebooks, start=1):
            place = f"notebook {number} of {len(notebooks)}"
            try:
                with _under_way(run.output, path.stem, place):
                    result = run_notebook(run, path, given[path])
            except KeyboardInterrupt:
                _say(f"{path.stem:<26} interrupted. What was done is in {folder}; go on with --out {folder}")
                raise
            run.results = sorted(
                [*(old for old in run.results if old.name != result.name), result], key=lambda r: r.name
            )
            _say(f"{result.name:<26} {clock(result.seconds):>6}  {'passed' if result.passed else 'FAILED'}")
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
    _say(summary(run, scores))
    return run


def _say(text: str) -> None:
    """Print lines in which names of files and notebooks stand, with what a terminal would obey as escapes."""
    print(printable(text), flush=True)


def _earlier_results(folder: Path) -> list[NotebookResult]:
    path = folder / "result.json"
    if not path.is_file():
        return []
    try:
        found = [NotebookResult(**values) for values in read_json(path)["notebooks"]]
        if all(
            isinstance(each.name, str)
            and not {"/", "\\"}.intersection(each.name)
            and isinstance(each.problem, str)
            and all(0 <= seconds < 1e9 for seconds in (each.seconds, each.training_seconds))
            for each in found
        ):
            return found
    except (KeyError, TypeError):
        pass  # one message for all that no run wrote
    raise InputError(f"{path}: not the result of a run of the course. Name another folder by --out.")


def _point_latest(folder: Path) -> None:
    """Make runs/latest a link to the folder, where the file system has links."""
    link = folder.parent / "latest"
    if link.exists() and not link.is_symlink():
        return  # somebody's own folder
    with contextlib.suppress(InputError), replacing(link) as temporary:  # some file systems have no links
        temporary.symlink_to(folder.name)


def _as_json(run: Run, scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "profile": run.profile.to_dict(),
        "passed": all(result.passed for result in run.results),
        "notebooks": [asdict(result) for result in run.results],
        "scores": scores,
    }


def read_scores(output: Path) -> dict[str, Any]:
    """macro_f1, accuracy and the baselines of the withheld test, and what notebook 03 says of its trainings, as far as
    the notebooks have left them.
    """
    found: dict[str, Any] = {}
    for name, keys in (
        ("evaluation.json", ("baselines",)),
        ("scores.json", ("macro_f1", "accuracy", "baselines")),
    ):
        if (output / name).is_file():
            values = read_json(output / name)
            found.update({key: values[key] for key in keys if values.get(key) is not None})
    if (output / "training.json").is_file():
        found["training"] = read_json(output / "training.json")
    return found


def summary(run: Run, scores: Mapping[str, Any]) -> str:
    """The last lines of a run: time by notebook, scores with baselines, where to look, macro-F1."""
    lines = ["", f"{'notebook':<26} {'time':>6} {'training':>9} {'other':>6}"]
    rows = [(result.name, result.seconds, result.training_seconds) for result in run.results]
    if len(rows) > 1:
        rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, seconds, training in rows:
        lines.append(f"{name:<26} {clock(seconds):>6} {clock(training):>9} {clock(seconds - training):>6}")
    if cells := longest_cells(run):
        lines += ["", f"{'longest cells':<26} {'time':>6}"]
        lines += [f"{place:<26} {clock(seconds):>6}  {line}" for seconds, place, line in cells]
    if "macro_f1" in scores:
        lines += ["", f"{'macro-F1 on the withheld test':<42} {scores['macro_f1']:.3f}"]
        if "accuracy" in scores:
            lines.append(f"{'accuracy':<42} {scores['accuracy']:.3f}")
        for method, value in scores.get("baselines", {}).items():
            lines.append(f"{'macro-F1 of the baseline: ' + method:<42} {value:.3f}")
    lines += ["", f"Look at {run.folder / 'index.html'}, files in {run.output}"]
    if "macro_f1" not in scores:
        lines.append("macro-F1 not known: notebook 05 scores the withheld test, where there is one")
    return "\n".join([*lines, *score_lines(scores)])


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
