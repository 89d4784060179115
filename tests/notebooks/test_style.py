"""The notebooks keep the skeleton that makes them pleasant to read; checked without running them."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from utils.files import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def bullets(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("- ")]


def test_the_course_is_numbered_without_gaps():
    assert [int(name[:2]) for name in NAMES] == list(range(len(NAMES)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_skeleton(path):
    cells = read(path).cells
    first = cells[0].source
    assert first.startswith("# ") and first.count("\n# ") == 0
    assert "](" in first.split("\n\n")[1], "links come right under the title"
    for part in ("**What you will learn**", "**Time and hardware:**"):
        assert part in first
    headings = re.findall(r"^## (.+)$", prose(path), flags=re.MULTILINE)
    assert headings[:2] == ["Setup", "Parameters"] and headings[-2:] == ["Recap", "Exercises"]
    for heading in headings:
        words = heading.split()[1:]
        assert not [word for word in words if word.istitle() and word not in NAMED], (
            f"sentence case: {heading}"
        )


NAMED = {"Kaggle", "TFRecords", "EfficientNetV2", "Grad-CAM"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_recap_mirrors_the_promise(path):
    promised = bullets(read(path).cells[0].source)
    recap = bullets(prose(path).split("## Recap")[1].split("## Exercises")[0])
    assert 3 <= len(promised) <= 5
    assert len(recap) >= len(promised)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_size_of_cells(path):
    lengths = sorted(
        len(cell.source.splitlines()) for cell in code_cells(path) if "exercise" not in tags(cell)
    )
    assert lengths[len(lengths) // 2] <= 8 and lengths[-1] <= 30


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def test_the_first_cell_is_the_same_everywhere():
    assert len({code_cells(path)[0].source for path in NOTEBOOKS}) == 1


def test_shared_parameters_have_the_same_defaults():
    values: dict[str, set] = {}
    for path in NOTEBOOKS:
        (cell,) = [cell for cell in code_cells(path) if "parameters" in tags(cell)]
        for node in ast.parse(cell.source).body:
            values.setdefault(node.targets[0].id, set()).add(ast.literal_eval(node.value))
    assert {"PROFILE", "DATA_DIR", "OUTPUT_DIR", "BATCH_RUN"} <= values.keys()
    assert {name: default for name, default in values.items() if len(default) > 1} == {}
