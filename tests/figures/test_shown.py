"""How notebooks show figures, tables and progress: in a kernel, as JupyterLab and papermill use it."""

import html
import os
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from utils import figures
from utils.course.notebooks import KERNEL, NOTEBOOKS, kernel_variables
from utils.figures.style import new_figure, styled
from utils.files import REPOSITORY

COUNTS = np.array([80, 60, 30, 10, 7])


def alt(figure) -> str:
    return html.unescape(re.match(r'<img alt="([^"]*)"', figure._repr_html_())[1])


def test_a_figure_says_what_it_shows():
    assert alt(figures.class_bins(COUNTS)) == (
        "The tail is 40% of the species and 9.1% of the train images. Share against train images of a species, drawn: "
        "species; train images. Written there: head: 60 or more 40% and 75%; medium: 20 to 59 20% and 16%; "
        "tail: 19 or fewer 40% and 9.1%."
    )
    table = pd.DataFrame({"family": ["Aaceae", "Baceae"], "species": [2, 1], "train_images": [60, 30]})
    assert alt(figures.images_per_family(table)).endswith(
        "Species. Written there: Aaceae 2; Baceae 1. Train images. Written there: 60; 30."
    )


def test_pictures_are_named_up_to_a_dozen():
    sheets = figures.sheets([np.zeros((4, 4, 3), np.uint8)] * 14, ["Poa alba-rosea L."] * 14, title='"<&')
    said = alt(sheets)
    assert said.startswith('"<&. Pictures: 14: Poa alba-rosea L.; ') and said.endswith("; and 2 more.")


@styled
def bars(names):
    figure, ((axes,),) = new_figure("Bars", 2)
    axes.bar_label(axes.bar(names, np.arange(1, len(names) + 1)))
    axes.annotate("the best", (0, 1))
    return figure


def test_words_that_are_no_names_of_bars_are_told_as_they_stand():
    assert alt(bars(["a", "b"])) == "Bars. Written there: 1; 2; the best."


def test_words_stand_at_the_left_under_their_heads_and_numbers_at_the_right():
    frame = pd.DataFrame({"method": ["a"], "f1": [0.12345], "n": [1234]})
    shown = figures.table(frame, thousands=",").set_caption("four words in all")._repr_html_()
    # in the cells themselves, since JupyterLab drops the style sheet of a notebook from elsewhere
    sides = re.findall(r'<(t[hd]) [^>]*class="[^"]*col(\d)" style="text-align: (\w+);', shown)
    assert sides == [
        (cell, str(n), side) for cell in ("th", "td") for n, side in enumerate(("left", "right", "right"))
    ]
    assert ">0.123<" in shown and ">1,234<" in shown and 'class="row_heading' not in shown


@pytest.fixture(scope="module")
def outputs():
    """What a kernel sends for a figure, one that is updated, one of pyplot, and a progress bar."""
    sources = [
        "from utils import figures\nfigures.class_bins([80, 60, 30, 10, 7])",
        "live = display(display_id=True)\nlive.update(figures.class_bins([80, 60, 30, 10, 7]))",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        "from utils.flora.sample import draw\nlist(draw([], 1, progress=True));",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells),
        kernel_name=KERNEL,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    executed = client.execute(env=os.environ | kernel_variables())
    return [
        [set(output.get("data", {output.get("name"): ""})) for output in cell.outputs]
        for cell in executed.cells
    ]


def test_a_figure_is_sent_once_with_its_words(outputs):
    assert outputs[0] == outputs[1] == [{"text/html", "text/plain"}]
    assert {"image/png"} <= set().union(*outputs[2]), "figures of pyplot's own are shown as ever"


def test_progress_bars_are_widgets_in_notebooks(outputs):
    assert outputs[3] == [{"application/vnd.jupyter.widget-view+json", "text/plain"}]
    for path in (REPOSITORY / "utils").rglob("*.py"):
        if path.parent.name not in ("course", "experiments"):  # which are used from a terminal
            assert "from tqdm import" not in path.read_text(encoding="utf-8"), path
