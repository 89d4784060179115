"""`./course check`: formatting, lint and notebook hygiene, each finding with the command that mends it."""

import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.course.notebooks import parse_parameters, write_notebook
from utils.files import REPOSITORY, InputError, read_json
from utils.setup import lock

FIX = "./course check --fix"
EDIT = "edit it in ./course lab"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}
MAX_LINES = 30  # of a code cell
MEDIAN_LINES = 8  # of a notebook's code cells, at most
# The author's metadata of a cell; `jupyter` folds set-up cells, on Kaggle another key. What else is there was left by
# a run.
_CELL_KEYS = {"tags", "jupyter", "_kg_hide-input"}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    path: Path
    text: str
    fix: str

    def __str__(self) -> str:
        path = self.path.relative_to(REPOSITORY) if self.path.is_relative_to(REPOSITORY) else self.path
        return f"{path}: {self.text}  [{self.fix}]"


def check(root: Path = REPOSITORY, *, fix: bool = False) -> bool:
    """Check all code and notebooks under `root`, print the findings; with `fix`, mend first what can be.

    Returns:
        Whether nothing was found.
    """
    notebooks = sorted((root / "notebooks").glob("**/*.ipynb"))
    if fix:
        for path in notebooks:
            if fix_notebook(path):
                print(f"mended {path.relative_to(root)}")
        _ruff(root, "check", "--fix", "--quiet", "--exit-zero")
        _ruff(root, "format", "--quiet")
    formatted = _ruff(root, "format", "--check")
    if not formatted:
        print(f"These files are not formatted.  [{FIX}]")
    clean = _ruff(root, "check", "--quiet", "--output-format", "concise")
    if not clean:
        print(f"Of these, some are mended by  [{FIX}], the others by hand.")
    findings = [finding for path in notebooks for finding in check_notebook(path)]
    findings += [Finding(path, text, lock.WAY_OUT) for path, text in lock.problems(root)]
    for finding in findings:
        print(finding)
    return formatted and clean and not findings


def _ruff(root: Path, *arguments: str) -> bool:
    """Run ruff on all files; its words are shown only when it has found something."""
    command = [sys.executable, "-m", "ruff", *arguments, "."]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr, end="")
    return done.returncode == 0


def _read(path: Path) -> dict[str, Any]:
    try:
        notebook = read_json(path)
        parts = [notebook.get("metadata", {}), *(cell.get("metadata", {}) for cell in notebook["cells"])]
        right = all(isinstance(part, dict) and isinstance(part.get("tags", []), list) for part in parts)
        if (
            right
            and notebook["nbformat"] == 4
            and all("".join(cell["source"]) or True for cell in notebook["cells"])
        ):
            return notebook
    except (InputError, KeyError, TypeError, AttributeError):
        pass  # one message for all that is no notebook
    raise InputError(f"{path}: not a notebook of format 4. Save it again in JupyterLab.")


def check_notebook(path: Path) -> list[Finding]:
    """What is wrong with one notebook: outputs, metadata, the parameters cell, the size of code cells.

    Raises:
        InputError: the file is no notebook.
    """
    notebook = _read(path)
    findings = []

    def found(text: str, fix: str = FIX) -> None:
        findings.append(Finding(path, text, fix))

    metadata = notebook.get("metadata", {})
    if metadata.get("kernelspec") != KERNELSPEC:
        found(f"kernelspec is {metadata.get('kernelspec')}, must be {KERNELSPEC}")
    if metadata.get("language_info") != LANGUAGE:
        found(f"language_info must be {LANGUAGE}, without the version of a machine")
    for key in sorted(metadata.keys() - {"kernelspec", "language_info"}):
        found(f"metadata has {key!r}, which a run left")
    if notebook.get("nbformat_minor", 0) < 5:
        found("format is older than 4.5, which has cell ids")
    identifiers: set[str] = set()
    for number, cell in enumerate(notebook["cells"], start=1):
        name = f"cell {number}"
        if cell.get("outputs"):
            found(f"{name} has outputs")
        if cell.get("execution_count") is not None:
            found(f"{name} has an execution count")
        if extra := sorted(cell.get("metadata", {}).keys() - _CELL_KEYS):
            found(f"{name} has metadata that a run left: {', '.join(extra)}")
        if not cell.get("id"):
            found(f"{name} has no id")
        elif cell["id"] in identifiers:
            found(f"{name} has the id of another cell")
        identifiers.add(cell.get("id", ""))
        if "injected-parameters" in _tags(cell):
            found(f"{name} was injected by a headless run; delete it", EDIT)
    _check_code(path, notebook, found)
    return findings


def _check_code(path: Path, notebook: dict[str, Any], found: Any) -> None:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    lines = []
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell["cell_type"] != "code":
            continue
        lines.append(len(_source(cell).splitlines()))
        if lines[-1] > MAX_LINES:
            found(f"cell {number} has {lines[-1]} lines, at most {MAX_LINES}: move code to utils", EDIT)
    # a solution is one cell an exercise, as long as it has to be
    if path.parent.name != "solutions" and lines and statistics.median(lines) > MEDIAN_LINES:
        found(
            f"the median code cell has {statistics.median(lines):g} lines, at most {MEDIAN_LINES}: split cells",
            EDIT,
        )
    parameters = [cell for cell in code if "parameters" in _tags(cell)]
    if len(parameters) != 1:
        found(f"{len(parameters)} code cells are tagged `parameters`, there must be one", EDIT)
        return
    try:
        parse_parameters(_source(parameters[0]), path.name)
    except InputError as error:
        found(str(error), EDIT)


def _tags(cell: dict[str, Any]) -> Sequence[str]:
    return cell.get("metadata", {}).get("tags", [])


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def fix_notebook(path: Path) -> bool:
    """Take outputs and what a run left out of a notebook, give kernelspec and cell ids; whether it changed."""
    notebook = _read(path)
    before = json.dumps(notebook)
    notebook["metadata"] = {"kernelspec": KERNELSPEC, "language_info": LANGUAGE}
    notebook["nbformat_minor"] = max(5, notebook.get("nbformat_minor", 0))
    identifiers: set[str] = set()
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        cell["metadata"] = {
            key: value for key, value in cell.get("metadata", {}).items() if key in _CELL_KEYS
        }
        if not cell.get("id") or cell["id"] in identifiers:
            cell["id"] = hashlib.sha256(f"{number} {_source(cell)}".encode()).hexdigest()[:8]
        identifiers.add(cell["id"])
    if json.dumps(notebook) == before:
        return False
    write_notebook(path, notebook)
    return True
