"""Notebook hygiene: what is found, what --fix mends, and that nothing is found in the project itself."""

import json
import shutil

import nbformat
import pytest

from utils.course import check
from utils.files import REPOSITORY, InputError
from utils.setup.lock import LOCKS, SOURCE


@pytest.fixture
def repository(tmp_path):
    """A repository of one module, one clean notebook, and the project's requirements with their locks."""
    for name in (SOURCE, *(file.name for file in LOCKS)):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "module.py").write_text("VALUE = 1\n")
    write(tmp_path / "notebooks" / "00_a.ipynb", clean())
    return tmp_path


def clean() -> nbformat.NotebookNode:
    cells = [
        nbformat.v4.new_markdown_cell("# Title", id="title"),
        nbformat.v4.new_code_cell("SEED = 0", id="parameters", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("SEED + 1", id="use"),
    ]
    metadata = {"kernelspec": check.KERNELSPEC, "language_info": check.LANGUAGE}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def write(path, notebook):
    path.write_text(json.dumps(notebook, indent=1) + "\n")
    return path


def texts(path) -> str:
    return "\n".join(map(str, check.check_notebook(path)))


def test_a_clean_repository_has_no_findings(repository):
    assert check.check(repository) is True
    before = (repository / "notebooks" / "00_a.ipynb").read_bytes()
    assert check.check(repository, fix=True) is True
    assert (repository / "notebooks" / "00_a.ipynb").read_bytes() == before


def test_a_lock_that_is_not_in_step_is_found(repository, capsys):
    source = repository / SOURCE
    source.write_text(source.read_text().replace("pillow==11.3.0", "pillow==11.2.0"))
    assert check.check(repository) is False
    told = "requirements.lock: pillow is 11.3.0, requirements.txt says 11.2.0"
    assert any(
        told in line and line.endswith("[./course lock]") for line in capsys.readouterr().out.splitlines()
    )


def spoiled() -> nbformat.NotebookNode:
    notebook = clean()
    notebook.metadata = {
        "kernelspec": {"name": "venv"},
        "language_info": {"version": "3.11.7"},
        "widgets": {},
    }
    cell = notebook.cells[2]
    cell.outputs = [nbformat.v4.new_output("stream", text="2")]
    cell.execution_count, cell.id = 3, "title"
    cell.metadata = {"papermill": {"duration": 1}, "tags": []}
    return notebook


def test_what_a_run_leaves_is_found_and_mended(repository):
    path = write(repository / "notebooks" / "00_a.ipynb", spoiled())
    found = texts(path)
    for told in (
        "kernelspec",
        "language_info",
        "'widgets'",
        "cell 3 has outputs",
        "an execution count",
        "papermill",
        "id of another cell",
    ):
        assert told in found
    assert all("[./course check --fix]" in line for line in found.splitlines())
    assert check.check(repository) is False
    assert check.check(repository, fix=True) is True
    mended = nbformat.read(path, as_version=4)
    nbformat.validate(mended)
    assert mended.cells[1].metadata.tags == ["parameters"] and mended.cells[2].source == "SEED + 1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cells: cells.pop(1), "0 code cells are tagged"),
        (lambda cells: cells[2].metadata.update(tags=["parameters"]), "2 code cells are tagged"),
        (lambda cells: cells[1].update(source="SEED = 1 + 1"), "is not `NAME = literal`"),
        (lambda cells: cells[2].update(source="a = 1\n" * 31), "31 lines, at most 30"),
        (lambda cells: [cell.update(source="a = 1\n" * 9) for cell in cells[1:]], "median"),
        (lambda cells: cells[2].metadata.update(tags=["injected-parameters"]), "was injected"),
    ],
)
def test_what_only_an_author_can_mend_names_the_editor(repository, change, told):
    notebook = clean()
    change(notebook.cells)
    path = write(repository / "notebooks" / "00_a.ipynb", notebook)
    found = texts(path)
    assert told in found and "./course lab" in found


def test_unformatted_and_faulty_code_is_found_in_notebooks_too(repository, capfd):
    notebook = clean()
    notebook.cells[2].source = "import os\nSEED+1"
    write(repository / "notebooks" / "00_a.ipynb", notebook)
    assert check.check(repository) is False
    told = capfd.readouterr().out
    assert "00_a.ipynb" in told and "F401" in told and told.count("[./course check --fix]") >= 2


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "x.ipynb").write_text("{}")
    with pytest.raises(InputError, match=r"x\.ipynb"):
        check.check_notebook(tmp_path / "x.ipynb")


@pytest.mark.parametrize(
    "changed",
    [
        "[" * 100_000,
        [1],
        {"metadata": [1]},
        {"cells": None},
        {"cells": ["a"]},
        {"cells": [{"cell_type": "code", "source": 5}]},
        {"cells": [{"cell_type": "code", "source": "a", "metadata": {"tags": 5}}]},
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_notebook_is_told_in_one_way(tmp_path, changed):
    path = tmp_path / "a.ipynb"
    content = changed if isinstance(changed, str | list) else clean() | changed
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=r"a\.ipynb: not a notebook of format 4"):
        check.check_notebook(path)
