"""The runner's judgement, held against real small notebooks that papermill executes."""

import errno
import html
import json
import os
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from utils.config import load_profile
from utils.course import notebooks, pages
from utils.course.run import longest_cells, read_scores, run_course, summary
from utils.files import InputError, UsageError

PARAMETERS = (
    'PROFILE = "auto"\nDATA_DIR = "auto"\nOUTPUT_DIR = "auto"\nBATCH_RUN = False\nSEED = 0\nRATE = 0.5'
)
WRITES = 'import json, pathlib\npathlib.Path(OUTPUT_DIR, "start.json").write_text(json.dumps({"seed": SEED}))'


def notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    kernel = {"display_name": "Python 3", "name": "not-installed"}  # its language need not be said
    content = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    content.cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    content.cells[0].metadata["tags"] = ["parameters"]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, path)
    return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one notebook in an own folder, and the folder of its run."""
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(notebooks, "COURSE", {"00_start_here": (notebooks.Leaves("start.json"),)})

    def run(*cells: str, **options) -> notebooks.Run:
        notebook(tmp_path / "notebooks" / "00_start_here.ipynb", *cells)
        return run_course(profile="smoke", **{"out": tmp_path / "run"} | options)

    return run


def test_a_run_that_does_its_work_passes_and_leaves_pages(course, tmp_path, capsys):
    figure = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);\nprint(PROFILE, BATCH_RUN, type(SEED).__name__, RATE)"
    run = course(WRITES, figure, parameters={"SEED": "7", "RATE": "1"})

    assert [result.passed for result in run.results] == [True]
    assert json.loads((run.output / "start.json").read_text()) == {"seed": 7}
    page = run.page("00_start_here").read_text()
    assert "smoke True int 1.0" in page
    index = (run.folder / "index.html").read_text()
    for text in (page, index):
        assert "data:image/png;base64," in text
        assert 'src="http' not in text and '<link rel="stylesheet" href="http' not in text
    assert json.loads((run.folder / "result.json").read_text())["passed"] is True
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("00_start_here") and line.endswith("passed") for line in lines)
    assert lines[-1].startswith("macro-F1 not known")


def test_links_of_a_page_lead_to_pages_and_what_is_in_the_clone_is_named(tmp_path):
    run = notebooks.Run(tmp_path, load_profile("smoke"), {})
    text = "[Next](01_eda_long_tail.ipynb), [back](../00_start_here.ipynb), [solutions](solutions/00_x_solutions.ipynb)"
    text += ", [the way](KAGGLE.md), [paper](https://arxiv.org/abs/1610.02391)"
    run.executed("00_start_here").parent.mkdir(parents=True)
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), run.executed("00_start_here")
    )
    page = pages.write_page(run, "00_start_here").read_text(encoding="utf-8")
    assert 'href="01_eda_long_tail.html"' in page and 'href="00_start_here.html"' in page
    assert "solutions (notebooks/solutions/00_x_solutions.ipynb)" in page and '.ipynb"' not in page
    assert "the way (notebooks/KAGGLE.md)" in page and 'href="https://arxiv.org/abs/1610.02391"' in page


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        pytest.param(['raise KeyError("taxon")'], "KeyError: 'taxon'", id="error"),
        pytest.param([WRITES, "import sys; sys.exit(0)", "print(1)"], "SystemExit: 0", id="exit"),
        pytest.param([WRITES, "import os; os._exit(0)", "print(1)"], "kernel died", id="dead kernel"),
    ],
)
def test_a_run_that_does_not_do_its_work_fails_and_keeps_the_notebook(course, tmp_path, cells, told):
    with pytest.raises(notebooks.RunFailed) as failure:
        course(*cells)
    first, rest = str(failure.value).split("\n", 1)
    assert Path(first) == tmp_path / "run" / "notebooks" / "00_start_here.ipynb" and Path(first).is_file()
    assert told in rest
    assert json.loads((tmp_path / "run" / "result.json").read_text())["passed"] is False
    assert told.split("'")[0].strip() in (tmp_path / "run" / "index.html").read_text()


def cell(source: str = "1", count: int | None = 1, **papermill) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, execution_count=count, metadata={"papermill": papermill})


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([cell(status="completed")], ""),
        ([cell(source="", count=None)], ""),
        ([cell(status="completed", count=None)], "cell 1 never ran"),
        ([cell(status="completed"), cell(status="pending")], "cell 2 failed or did not finish"),
        ([cell(status="failed", exception=True)], "cell 1 failed or did not finish"),
    ],
)
def test_cells_are_judged_by_their_execution_counts(cells, told):
    assert notebooks.judge_cells(nbformat.v4.new_notebook(cells=cells)).startswith(told)
    marked = nbformat.v4.new_notebook(cells=[cell()], metadata={"papermill": {"exception": True}})
    assert "marks an exception" in notebooks.judge_cells(marked)


def test_the_longest_cells_are_named_with_their_time(tmp_path):
    run = notebooks.Run(
        tmp_path, load_profile("smoke"), {}, [notebooks.NotebookResult("02_tfrecord_loading", 70, 0)]
    )
    run.executed("02_tfrecord_loading").parent.mkdir()
    cells = [
        cell("1", duration=0.5),
        cell("short()", duration=1.5),
        cell("a = 1\nlong(\n    a\n)", duration=65.0),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run.executed("02_tfrecord_loading"))
    assert longest_cells(run) == [(65.0, "02, cell 3", "long("), (1.5, "02, cell 2", "short()")]
    assert any(line.split() == ["02,", "cell", "3", "1:05", "long("] for line in summary(run, {}).split("\n"))


def test_files_must_be_of_this_run_and_whole(tmp_path):
    profile = load_profile("smoke")
    table, history = notebooks.Leaves("t.csv"), notebooks.Leaves("{run_name}.csv", resumable=True)

    def problem(leave: notebooks.Leaves, begin: float = 0.0) -> str:
        return notebooks.judge_files(tmp_path, [leave], profile, begin)

    assert "was not written" in problem(table)
    (tmp_path / "t.csv").write_text("Id,Predicted\n")
    assert "has no rows" in problem(table)
    (tmp_path / "t.csv").write_text("Id,Predicted\n1,2\n")
    assert problem(table) == ""
    assert "before this run" in problem(table, time.time() + 10)
    (tmp_path / f"{profile.run_name}.csv").write_text("loss\n1\n")
    assert problem(history, time.time() + 10) == "", (
        "a training that was finished leaves its files as they are"
    )
    for name, told in (("w.h5", "HDF5"), ("p.npz", ".npz"), ("e.json", "is empty")):
        (tmp_path / name).write_text("" if name == "e.json" else "text")
        assert told in problem(notebooks.Leaves(name))


def test_a_parameter_that_replaces_a_setting_names_the_files_to_leave():
    profile = load_profile("smoke")
    given = {"EPOCHS": 3, "MAX_LR": 0.0, "TTA": True}
    assert notebooks.with_overrides(profile, given) == load_profile("smoke", epochs=3, tta=True)


def test_a_score_without_withheld_answers_is_not_made_up(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"macro_f1": 0.5, "baselines": {"thumbnails": 0.2}}')
    (tmp_path / "scores.json").write_text('{"macro_f1": null, "accuracy": null}')
    assert read_scores(tmp_path) == {"baselines": {"thumbnails": 0.2}}


def test_mistakes_are_found_before_anything_runs(tmp_path):
    path = notebook(tmp_path / "own.ipynb", "raise SystemExit")
    folder = tmp_path / "run"

    def asked(**options) -> str:
        with pytest.raises(UsageError) as mistake:
            run_course([str(path)], out=folder, **{"profile": "smoke", **options})
        return str(mistake.value)

    assert "Did you mean 'SEED'" in asked(parameters={"SEEED": "1"})
    assert "of type int" in asked(parameters={"SEED": "1.5"})
    assert "of type float" in asked(parameters={"RATE": "fast"})
    assert "--profile" in asked(parameters={"PROFILE": "smoke"})
    assert "set by the run" in asked(parameters={"BATCH_RUN": "True"})
    assert "Did you mean 'smoke'" in asked(profile="smok")
    assert "no such folder" in asked(data_dir=tmp_path / "none")
    assert not folder.exists()
    with pytest.raises(UsageError, match="no such notebook"):
        notebooks.find_notebooks(["none.ipynb"])
    with pytest.raises(UsageError, match="Did you mean '05_submission'"):
        notebooks.find_notebooks(["05_submision"])


def test_notebooks_are_found_by_number_and_name():
    (by_number,), (by_name,) = (
        notebooks.find_notebooks(["3"]),
        notebooks.find_notebooks(["03_train_efficientnetv2"]),
    )
    assert by_number == by_name == notebooks.NOTEBOOKS / "03_train_efficientnetv2.ipynb"
    assert [path.stem for path in notebooks.find_notebooks([])] == list(notebooks.COURSE)


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("true", False, True),
        ("1e-3", 0.1, 0.001),
        ("3", 1, 3),
        ("3", "x", "3"),
        ("[1, 2]", [0], [1, 2]),
        ("None", None, None),
    ],
)
def test_values_take_the_type_of_the_default(text, default, value):
    assert notebooks.typed("NAME", text, default) == value
    assert type(notebooks.typed("NAME", text, default)) is type(value)


@pytest.mark.parametrize(
    "source", ["SEED = 1 + 1", "SEED = len('a')", "import os", "A = B = 1; os.x", "X = [\n1]"]
)
def test_a_parameters_cell_holds_one_literal_a_line(source):
    with pytest.raises(InputError, match="line 1"):
        notebooks.parse_parameters(source, "a notebook")


def test_a_notebook_needs_one_parameters_cell(tmp_path):
    path = notebook(tmp_path / "a.ipynb", parameters="SEED = 0  # of the split")
    assert notebooks.read_parameters(path) == {"SEED": 0}
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(InputError, match="0 cells are tagged"):
        notebooks.read_parameters(path)


@pytest.mark.parametrize("change", [("cell_type", "kind"), ('"nbformat": 4', '"nbformat": 3')])
def test_a_file_that_is_no_notebook_of_today_is_refused_before_anything_runs(tmp_path, change):
    path = notebook(tmp_path / "a.ipynb")
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(InputError, match=r"a\.ipynb: not a notebook of format 4"):
        notebooks.read_parameters(path)


def test_the_last_line_is_the_score(tmp_path):
    run = notebooks.Run(tmp_path, load_profile("smoke"), {})
    run.results = [
        notebooks.NotebookResult("03_train_efficientnetv2", 130.0, 100.0),
        notebooks.NotebookResult("05_submission", 65.0, 0.0),
    ]
    run.output.mkdir()
    (run.output / "scores.json").write_text('{"macro_f1": 0.71234, "accuracy": 0.8}')
    (run.output / "evaluation.json").write_text('{"macro_f1": 0.5, "baselines": {"thumbnails": 0.2}}')
    lines = summary(run, read_scores(run.output)).splitlines()
    assert lines[-1] == "macro-F1 0.712 (withheld test)"
    assert any(line.split() == ["together", "3:15", "1:40", "1:35"] for line in lines)
    assert any("thumbnails" in line and line.endswith("0.200") for line in lines)
    assert str(run.folder / "index.html") in lines[-2]
    assert "macro-F1 0.712" in pages.write_index(run, read_scores(run.output)).read_text()


def test_what_a_network_from_nothing_reached_stands_beside_the_score(tmp_path):
    run = notebooks.Run(tmp_path, load_profile("laptop"), {})
    run.output.mkdir()
    training = {"network": "EfficientNetLite0", "weights": "ImageNet", "epochs": 6, "held_out_macro_f1": 0.9}
    beside = {"network": "EfficientNetV2B0", "epochs": 5, "held_out_macro_f1": 0.3456}
    (run.output / "scores.json").write_text('{"macro_f1": 0.8912, "accuracy": 0.9}')
    for other, before in (
        (beside, "macro-F1 0.346 (held-out sheets), EfficientNetV2B0 from nothing, 5 epochs"),
        (beside | {"held_out_macro_f1": None}, f"Look at {run.folder / 'index.html'}, files in {run.output}"),
    ):
        (run.output / "training.json").write_text(json.dumps(training | {"from_nothing": other}))
        *_, beside_it, last = summary(run, read_scores(run.output)).splitlines()
        assert beside_it == before and last.startswith("macro-F1 0.891 (withheld test)")
    (run.output / "training.json").write_text(json.dumps(training | {"from_nothing": beside}))
    line = "macro-F1 0.891 (withheld test), EfficientNetLite0 from ImageNet weights, 6 epochs"
    assert summary(run, read_scores(run.output)).endswith(f"5 epochs\n{line}")
    page = pages.write_index(run, read_scores(run.output)).read_text()
    assert line in page and "EfficientNetV2B0 from nothing" in page


def test_only_epochs_that_a_run_adds_are_training_time(course, tmp_path):
    """A finished training that is opened again writes its history anew; a second one lies in a subfolder."""
    output = tmp_path / "run" / "output"

    def leave(name: str, rows: list[tuple[float, float]], epochs: int = 3) -> str:
        table = "".join(f"{epoch},{loss},{time}\\n" for epoch, (loss, time) in enumerate(rows, 1))
        return (
            f"folder = pathlib.Path(OUTPUT_DIR, {name!r})\nfolder.mkdir(exist_ok=True)\n"
            f"(folder / 'E_configs.json').write_text('{{\"epochs\": {epochs}}}')\n"
            f"(folder / 'E.csv').write_text('epoch,loss,time\\n{table}')"
        )

    pause = "import time\ntime.sleep(1)"
    first = course(WRITES, leave("", [(2.0, 0.25)]), leave("from_nothing", [(3.0, 0.125)]), pause)
    assert first.results[0].training_seconds == 0.375
    assert [(epoch.number, epoch.planned) for epoch in notebooks.epochs_done(output)] == [(1, 3), (1, 3)]
    again = course(WRITES, leave("", [(2.0, 0.25), (1.0, 0.5)]), leave("from_nothing", [(3.0, 0.125)]), pause)
    assert again.results[0].training_seconds == 0.5
    assert course(WRITES, leave("", [(2.0, 0.25), (1.0, 0.5)])).results[0].training_seconds == 0


def test_results_of_an_earlier_run_in_the_folder_are_kept(course, tmp_path, monkeypatch):
    monkeypatch.setattr(
        notebooks, "run_notebook", lambda run, path, given: notebooks.NotebookResult(path.stem, 2.0, 0.0)
    )
    earlier = {"name": "03_other", "seconds": 9.0, "training_seconds": 1.0, "problem": ""}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps({"notebooks": [earlier]}))
    run = course(WRITES)
    assert [result.name for result in run.results] == ["00_start_here", "03_other"]
    assert len(json.loads((tmp_path / "run" / "result.json").read_text())["notebooks"]) == 2


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"notebooks": 1},
        {"notebooks": [{"name": "../../x", "seconds": 1, "training_seconds": 0}]},
        {"notebooks": [{"name": "x", "seconds": "1", "training_seconds": 0}]},
        {"notebooks": [{"name": "x", "seconds": 1, "training_seconds": None}]},
        {"notebooks": [{"name": "x", "seconds": 1, "training_seconds": 0, "problem": [1]}]},
        {"notebooks": [{"name": "x", "seconds": 10**30, "training_seconds": 0}]},
    ],
    ids=str,
)
def test_a_result_that_no_run_wrote_is_named_before_a_notebook_runs(course, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"result\.json: not the result of a run"):
        course(WRITES)
    assert not list((tmp_path / "run").rglob("*.ipynb"))


def test_the_latest_run_is_linked_where_the_file_system_has_links(course, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.course.run.REPOSITORY", tmp_path)
    with monkeypatch.context() as without:

        def refuse(*_):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))  # as exFAT says it

        without.setattr(os, "symlink", refuse)
        run = course(WRITES, out=None)
        assert run.results[0].passed and not (tmp_path / "runs" / "latest").exists()
    run = course(WRITES, out=None)
    assert (tmp_path / "runs" / "latest").resolve() == run.folder


def test_text_from_notebooks_and_files_is_escaped_in_the_index(tmp_path):
    markup = "<img src=x onerror='a()'>\"><script>a()<"
    run = notebooks.Run(tmp_path / markup, replace(load_profile("smoke"), about=markup), {})
    run.results = [notebooks.NotebookResult(f"03 #{markup}", 1.0, 0.0, problem=markup)]
    name = run.results[0].name
    described = f'<img alt="{html.escape(markup)}" style="" src="data:image/png;base64,AA">'
    outputs = [{"data": {"image/png": markup}}, {"data": {"text/html": described}}]
    content = json.dumps({"cells": [{"outputs": outputs}]})
    for path, text in ((run.executed(name), content), (run.page(name), "page")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    scores = {"macro_f1": 0.5, "baselines": {markup: 0.1}}
    page = pages.write_index(run, scores).read_text()
    found = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.append((tag, dict(attributes)))

    Tags().feed(page)
    assert not [tag for tag, _ in found if tag == "script"]
    assert not [key for _, attributes in found for key in attributes if key.startswith("on")]
    assert page.count("&lt;script&gt;") >= 7
    links = {unquote(attributes["href"]) for tag, attributes in found if tag == "a"}
    assert f"html/{name}.html" in links, "a link to a name with # and % leads there"
