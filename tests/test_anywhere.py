"""The course runs from any folder, whatever files lie there: their names may be those of modules."""

import ast
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.course.notebooks import Run, run_notebook
from utils.experiments import run as batches
from utils.experiments import spec
from utils.files import REPOSITORY

TAKEN = ("utils", "click", "random", "types", "pandas", "yaml", "jupyterlab", "papermill", "ipykernel")
LOOK = (
    "import click, random, utils, yaml; print(*(m.__file__ for m in (click, random, utils, yaml)), sep='\\n')"
)
# ./course exports both (test_course.py)
AS_COURSE = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(params=["modules", "packages"])
def crowded(request, tmp_path, monkeypatch) -> Path:
    """A folder of the user's with modules, or packages, of names that the course needs; the present one."""
    for name in TAKEN:
        path = tmp_path / f"{name}.py" if request.param == "modules" else tmp_path / name / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('a file of the user ran')\n")
    (tmp_path / "beside.py").write_text("x = 'beside'\n")
    (tmp_path / "labels.csv").write_text("file_name,scientificName\na.jpg,Zea mays\nb.jpg,Abies alba\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return tmp_path


def own(lines: list[str], folder: Path) -> bool:
    """Whether these are four modules, of which none lies in the folder, and `utils` is the course's."""
    return (
        len(lines) == 4
        and not any(str(folder) in line for line in lines)
        and f"{REPOSITORY}/utils/__init__.py" in lines
    )


def notebook(folder: Path, code: str) -> Path:
    cells = [
        {
            "cell_type": "code",
            "source": source,
            "metadata": {"tags": tags},
            "outputs": [],
            "execution_count": None,
        }
        for source, tags in (('PROFILE = "auto"', ["parameters"]), (code, []))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = folder / "mine.ipynb"
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(content))
    return path


def test_a_command(crowded):
    command = [sys.executable, "-m", "utils", "metadata", "labels.csv"]
    done = subprocess.run(command, env=os.environ | AS_COURSE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "species" in done.stdout and "ran" not in done.stdout


def test_a_run_of_a_batch(crowded, monkeypatch):
    monkeypatch.setattr(batches, "_command", lambda folder: [sys.executable, "-c", LOOK])
    some = SimpleNamespace(notebook=None, test="none", to_dict=dict)
    run = SimpleNamespace(
        folder=crowded / "run", method="", seed=0, parameters={}, profile=some, after=[], data=None
    )
    assert batches._start(some, run, threads=1).wait() == 0
    assert own((run.folder / spec.LOG_FILE).read_text().splitlines(), crowded)


def test_a_notebook_run_headless_finds_the_course_and_last_the_files_beside_it(crowded, monkeypatch):
    from utils.config import load_profile

    monkeypatch.setattr(os, "environ", os.environ.copy())  # the run sets some
    path = notebook(crowded, LOOK + "\nimport beside; print(beside.x)")
    run = Run(crowded / "out", load_profile("smoke"), {})
    assert run_notebook(run, path, {}).problem == ""
    (output,) = json.loads(run.executed("mine").read_text())["cells"][-1]["outputs"]
    *modules, beside = "".join(output["text"]).splitlines()
    assert own(modules, crowded) and beside == "beside"


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot put a program in the place of another")
def test_the_lab_is_the_process_that_was_called(crowded):
    """Ctrl-C and a SIGTERM then reach it, and nothing is left running."""
    (crowded / "mine.py").write_text("import os\nprint(os.getpid(), flush=True)\nraise SystemExit(7)\n")
    command = [sys.executable, "-m", "utils", "lab", f"--config={crowded / 'mine.py'}"]
    with subprocess.Popen(command, env=os.environ | AS_COURSE, stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate(timeout=100)[0] == f"{process.pid}\n" and process.returncode == 7


def post(url: str) -> dict:
    request = urllib.request.Request(url, data=b"{}", headers={"Authorization": "token abc"})
    return json.load(urllib.request.urlopen(request, timeout=60))


@pytest.mark.long
def test_a_kernel_of_the_lab(crowded):
    from jupyter_client import BlockingKernelClient

    runtime = crowded / "runtime"
    command = [sys.executable, "-m", "utils", "lab", "--no-browser", "--IdentityProvider.token=abc"]
    environment = os.environ | AS_COURSE | {"JUPYTER_RUNTIME_DIR": str(runtime)}
    log = (crowded / "lab.log").open("w")
    with (
        log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as lab,
    ):
        try:
            end = time.monotonic() + 60
            kernel = None
            while kernel is None:
                assert lab.poll() is None and time.monotonic() < end, (crowded / "lab.log").read_text()
                time.sleep(0.2)
                for file in runtime.glob("jpserver-*.json"):
                    with contextlib.suppress(urllib.error.URLError, ValueError):  # not ready yet
                        url = json.loads(file.read_text())["url"]
                        kernel = post(url + "api/kernels")
            first = urllib.request.Request(url, headers={"Authorization": "token abc"})
            assert urllib.request.urlopen(first, timeout=60).url.endswith(
                "/tree/notebooks/00_start_here.ipynb"
            )
            client = BlockingKernelClient(connection_file=str(runtime / f"kernel-{kernel['id']}.json"))
            client.load_connection_file()
            client.start_channels()
            look = {
                "found": f"(exec({LOOK.partition(';')[0]!r}), [m.__file__ for m in (click, random, utils, yaml)])[1]"
            }
            reply = client.execute("", user_expressions=look, reply=True, timeout=60)
            client.stop_channels()
        finally:
            lab.terminate()
    assert not list(runtime.glob("*.json")), "it has ended its kernel and itself"
    found = reply["content"]["user_expressions"]["found"]
    assert own(ast.literal_eval(found["data"]["text/plain"]), crowded), found
