"""The whole course, headless, as `./course run --profile smoke` runs it: real papermill, real kernels."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_core.paths import jupyter_data_dir
from nbformat.sign import NotebookNotary

from utils.config import load_profile
from utils.course.notebooks import COURSE, NOTEBOOKS, run_notebook
from utils.course.run import run_course
from utils.files import read_json


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """One run of the course with profile smoke, and what it printed."""
    folder = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        run = run_course(profile="smoke", out=folder)
    return SimpleNamespace(run=run, folder=folder, text="\n".join(lines).strip())


def test_every_notebook_passes_and_leaves_its_files(course):
    assert [(result.name, result.problem) for result in course.run.results] == [(name, "") for name in COURSE]
    run_name = load_profile("smoke").run_name
    for leaves in COURSE.values():
        for leave in leaves:
            assert (course.folder / "output" / leave.name.format(run_name=run_name)).is_file()


def test_the_last_line_is_the_score_on_the_withheld_test(course):
    score = read_json(course.folder / "output" / "scores.json")["macro_f1"]
    assert course.text.splitlines()[-1] == f"macro-F1 {score:.3f} (withheld test)"


def test_the_submission_has_every_test_image_once(course):
    start = read_json(course.folder / "output" / "start.json")
    with (course.folder / "output" / "submission.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["Id", "Predicted"]
    assert len(rows) == len({row[0] for row in rows}) == start["test_images"]


def test_outputs_are_clean(course):
    """The first cell prints three lines, and no notebook prints to standard error."""
    for name in COURSE:
        notebook = nbformat.read(course.run.executed(name), as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert re.fullmatch(r"herbarium course .+\nPython .+\nDevices: .+\n", code[0].outputs[0].text)
        noise = [
            output.text
            for cell in code
            for output in cell.outputs
            if output.output_type == "stream" and output.name == "stderr"
        ]
        assert noise == [], name


def test_executed_notebooks_are_signed_so_that_jupyterlab_shows_their_styles(course):
    with NotebookNotary(data_dir=jupyter_data_dir()) as notary:
        signed = [
            notary.check_signature(nbformat.read(course.run.executed(name), as_version=4)) for name in COURSE
        ]
    assert all(signed)


def shown(cell: nbformat.NotebookNode, kind: str) -> list[str]:
    """What of one kind stands in a cell's outputs, in order; "" where an output has another."""
    return [output.get("data", {}).get(kind, "") for output in cell.get("outputs", [])]


def images(cell: nbformat.NotebookNode) -> list[str]:
    return [image for html in shown(cell, "text/html") for image in re.findall(r"<img[^>]*>", html)]


def described(path: Path) -> int:
    """How many figures an executed notebook has, each with words that stand for it."""
    cells = nbformat.read(path, as_version=4).cells
    assert not any(map(any, (shown(cell, "image/png") for cell in cells))), "a picture without words"
    found = [image for cell in cells for image in images(cell)]
    alts = [re.search(r'alt="([^"]*)"', image)[1] for image in found]
    of_sheets = (
        "Sheet ",
        "Training sheet ",
        "Part of ",
        "Grad-CAM",
    )  # pictures of notebook 08's cards, named by it
    assert all(len(alt.split()) > (1 if alt.startswith(of_sheets) else 8) for alt in alts), alts
    return len(found)


def test_every_figure_has_words_that_stand_for_it(course):
    assert sum(described(course.run.executed(name)) for name in COURSE) >= 20


@pytest.mark.parametrize("name", COURSE)
def test_every_figure_and_table_is_read_out(course, name):
    """By text after it in the same cell, or by the next cell: text that is no heading, or words made from results."""
    cells = nbformat.read(course.run.executed(name), as_version=4).cells
    silent = []
    for place, cell in enumerate(cells[:-1]):
        of_data = [bool(re.search("<(img|table)", html)) for html in shown(cell, "text/html")]
        if not any(of_data):
            continue
        last, after = max(i for i, found in enumerate(of_data) if found), cells[place + 1]
        words = any(shown(cell, "text/markdown")[last:])
        words |= after.cell_type == "markdown" and not after.source.startswith("#")
        words |= bool(next(iter(shown(after, "text/markdown")), ""))
        if not words:
            silent.append((place, cell.source.splitlines()[-1]))
    assert not silent


@pytest.mark.long
@pytest.mark.parametrize("name", COURSE)
def test_solutions_run(course, name):
    result = run_notebook(course.run, NOTEBOOKS / "solutions" / f"{name}_solutions.ipynb", {})
    assert result.problem == ""
    described(course.run.executed(result.name))


def test_the_page_shows_every_notebook_and_its_figures(course):
    index = (course.folder / "index.html").read_text(encoding="utf-8")
    for name in COURSE:
        assert f'href="html/{name}.html"' in index
        page = (course.folder / "html" / f"{name}.html").read_text(encoding="utf-8")
        assert "<h1" in page and "https://cdn" not in page
    assert index.count("data:image/png") >= 20 and index.count('<img alt="') == index.count("<img")


def test_a_part_runs_again_on_an_earlier_output(course):
    before = (course.folder / "output" / "submission.csv").read_text()
    run = run_course(["05"], profile="smoke", out=course.folder)
    assert run.results[-1].passed
    assert (course.folder / "output" / "submission.csv").read_text() == before
