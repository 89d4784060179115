"""The kernel suite: what is built, what the official tool makes of it, and kernels run as Kaggle would run them.

A replica of /kaggle is a bare folder with what a kernel's metadata attach and nothing else: a Python with the
packages of the image and no others, no network (a name space of its own), no sight of this repository.
"""

import errno
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import util
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.course import kernels
from utils.course.kernel_check import check
from utils.course.kernels import KERNELS, UTILS, WEIGHTS, build, slugify
from utils.course.notebooks import judge_cells
from utils.course.push import PUSHED_FILE, Push, official_tool
from utils.data.labels import LabelMap
from utils.data.metadata import read_metadata, read_test_metadata
from utils.evaluation.submission import validate_submission
from utils.files import REPOSITORY, InputError, UsageError, read_json, write_json
from utils.sources import COMPETITION, TEST_SHARDS, TRAIN_SHARDS

OWNER = "botanist"


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A built suite with a data set of (empty) weights."""
    folder = tmp_path_factory.mktemp("kaggle") / "built"
    build(OWNER, folder)
    weights = folder / WEIGHTS
    weights.mkdir()
    (weights / "efficientnetv2-s-21k.h5").write_bytes(b"not read here")
    write_json(weights / kernels.DATASET_FILE, kernels.dataset_metadata(WEIGHTS, OWNER))
    return folder


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "copy")


def kernel_metadata(folder: Path, kernel: kernels.Kernel) -> dict:
    return read_json(folder / kernel.slug / kernels.KERNEL_FILE)


# ---------------------------------------------------------------- build


KERNEL = {"number": "07", "notebook": "07_my_own", "title": "NAFlora 07 my own", "data": ["train", "utils"]}


def test_a_kernel_of_the_table_may_leave_out_what_is_usual(tmp_path):
    (tmp_path / "kernels.yaml").write_text(json.dumps([KERNEL]))
    (kernel,) = kernels.read_kernels(tmp_path / "kernels.yaml")
    assert kernel.slug == "naflora-07-my-own" and kernel.data == ("train", "utils")
    assert kernel.after == () and not kernel.gpu and kernel.parameters == {}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([KERNEL | {"gpus": True}], "kernel 07: .*unexpected keyword argument 'gpus'"),
        ([{"number": "07", "notebook": "07_my_own"}], "kernel 07: .*missing .*'title' and 'data'"),
        ([KERNEL | {"number": 7}], "kernel 7: must have a number of its own, in quotes"),
        ([KERNEL, KERNEL], "kernel 07: must have a number of its own"),
        ([KERNEL | {"data": ["trains"]}], "kernel 07: data has 'trains'. Did you mean 'train'"),
        ([KERNEL | {"after": ["08"]}, KERNEL | {"number": "08"}], "kernel 07: after has '08'"),
    ],
    ids=["key", "lacks", "number", "twice", "data", "after"],
)
def test_a_kernel_of_the_table_that_is_wrong_is_named(tmp_path, entries, said):
    (tmp_path / "kernels.yaml").write_text(json.dumps(entries))
    with pytest.raises(InputError, match=rf"kernels.yaml: {said}"):
        kernels.read_kernels(tmp_path / "kernels.yaml")


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_input_gives_the_same_bytes(tmp_path):
    build(OWNER, tmp_path / "a")
    build("another", tmp_path / "b")
    build(OWNER, tmp_path / "b")  # over an earlier build
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_set_up_cells_are_folded_on_kaggle_as_in_jupyterlab(built):
    for kernel in KERNELS:
        cells = read_json(built / kernel.slug / f"{kernel.notebook}.ipynb")["cells"]
        in_lab = [cell["metadata"].get("jupyter", {}).get("source_hidden", False) for cell in cells]
        assert in_lab == [cell["metadata"].get("_kg_hide-input", False) for cell in cells] and any(in_lab)


def test_every_notebook_has_a_kernel_and_only_those_that_need_a_gpu_ask_for_one(built):
    assert {kernel.notebook for kernel in KERNELS} == {
        path.stem for path in REPOSITORY.glob("notebooks/*.ipynb")
    }
    for kernel in KERNELS:
        values = kernel_metadata(built, kernel)
        gpu = kernel.notebook[:2] in ("03", "04", "05", "06", "08")
        assert (values["machine_shape"], values["enable_gpu"]) == (
            ("NvidiaTeslaT4", True) if gpu else ("", False)
        )
        assert values["enable_internet"] is False and values["is_private"] is True


def test_outputs_chain_from_03_to_03b_to_those_that_predict(built):
    chain = {kernel.number: kernel_metadata(built, kernel)["kernel_sources"] for kernel in KERNELS}
    slug = {kernel.number: f"{OWNER}/{kernel.slug}" for kernel in KERNELS}
    assert chain["03b"] == [slug["03"]] and all(
        chain[number] == [slug["03b"]] for number in ("04", "05", "06", "08")
    )
    assert all(
        not sources for number, sources in chain.items() if number not in ("03b", "04", "05", "06", "08")
    )


def parameters_of(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))


def test_03b_is_the_notebook_of_03_that_resumes(built):
    by_number = {kernel.number: kernel for kernel in KERNELS}
    first, second = (built / by_number[n].slug / "03_train_efficientnetv2.ipynb" for n in ("03", "03b"))
    assert "RESUME = False  # " in parameters_of(first) and "RESUME = True  # " in parameters_of(second)
    assert "MAX_HOURS = 11.5  # " in parameters_of(first) and "MAX_HOURS = 11.5  # " in parameters_of(second)
    assert "BATCH_RUN = True  # " in parameters_of(first)
    assert first.read_text().replace("RESUME = False", "RESUME = True") == second.read_text()


def test_an_earlier_output_of_03b_is_attached_to_it_alone(tmp_path):
    build(OWNER, tmp_path, "naflora-state")
    sources = {kernel.number: kernel_metadata(tmp_path, kernel)["dataset_sources"] for kernel in KERNELS}
    assert [number for number, names in sources.items() if f"{OWNER}/naflora-state" in names] == ["03b"]


def test_links_lead_to_the_owners_kernels_and_what_is_in_the_clone_only_is_named(built):
    for kernel in KERNELS:
        text = (built / kernel.slug / f"{kernel.notebook}.ipynb").read_text()
        assert not re.search(r"\]\((?!https?:)", text), "a link that leads nowhere on Kaggle"
    assert (
        f"https://www.kaggle.com/code/{OWNER}/naflora-01-eda-of-the-long-tail" in text
        or kernel.number != "00"
    )
    start = (built / KERNELS[0].slug / "00_start_here.ipynb").read_text()
    assert f"](https://www.kaggle.com/code/{OWNER}/naflora-01-eda-of-the-long-tail)" in start
    assert "solutions (notebooks/solutions/00_start_here_solutions.ipynb of a clone)" in start


def test_the_package_goes_with_version_commit_profiles_and_an_installable_wheel(built, tmp_path):
    folder = built / UTILS
    shipped = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    sources = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "utils").rglob("*.py")}
    others = {
        str(path.relative_to(REPOSITORY))
        for form in ("*.yaml", "*.j2", "*.js", "*.css", "keras.json")
        for path in (REPOSITORY / "utils").rglob(form)
    }
    wheel = "keras_efficientnet_v2-1.2.2-py3-none-any.whl"
    extra = {
        "utils/COMMIT",
        "LICENSE",
        wheel,
        kernels.DATASET_FILE,
        *(f"notebooks/results/{path.name}" for path in (REPOSITORY / "notebooks" / "results").glob("*.csv")),
    }
    assert "notebooks/results/long_tail_results.csv" in extra
    assert shipped == sources | others | extra
    assert {"utils/course/kernels.yaml", "utils/course/index.html.j2", "utils/keras/keras.json"} <= others
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*command, "--target", tmp_path, folder / wheel], check=True, capture_output=True)
    assert (tmp_path / "keras_efficientnet_v2" / "efficientnet_v2.py").is_file()


def test_a_folder_of_other_things_is_not_emptied(tmp_path):
    (tmp_path / UTILS).mkdir()
    (tmp_path / UTILS / "thesis.txt").touch()
    with pytest.raises(InputError, match=f"{UTILS}.*not of a build"):
        build(OWNER, tmp_path)
    assert (tmp_path / UTILS / "thesis.txt").exists()


@pytest.mark.parametrize(("owner", "state"), [("a b", ""), ("", ""), ("me", "State!"), ("me", "a/b/c")])
def test_names_that_kaggle_cannot_have_are_refused(owner, state, tmp_path):
    with pytest.raises(UsageError, match=r"--owner|--state"):
        build(owner, tmp_path, state)
    assert not any(tmp_path.iterdir())


def test_weights_become_a_data_set(tmp_path, monkeypatch):
    from utils.training import weights as weights_module

    file = tmp_path / "efficientnetv2-s-21k.h5"
    file.write_bytes(b"weights")
    monkeypatch.setattr(weights_module, "find_weights", lambda weights, name: file)
    shown = CliRunner().invoke(main, ["kaggle", "weights", "--owner", OWNER, "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "out" / WEIGHTS / file.name).read_bytes() == b"weights"
    assert read_json(tmp_path / "out" / WEIGHTS / kernels.DATASET_FILE)["id"] == f"{OWNER}/{WEIGHTS}"


def test_the_guide_has_at_most_twelve_steps_and_names_what_is_built():
    guide = (REPOSITORY / "notebooks" / "KAGGLE.md").read_text(encoding="utf-8")
    steps = [int(number) for number in re.findall(r"^\| (\d+) \| \*\*", guide, flags=re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1)) and 1 < len(steps) <= 12
    table = guide.split("## What is pushed")[1].split("\n\n")[1]
    named = {
        number for row in table.splitlines()[2:] for number in row.split("|")[1].replace(",", " ").split()
    }
    assert named == {kernel.number for kernel in KERNELS}
    for name in (UTILS, WEIGHTS, COMPETITION, TRAIN_SHARDS, TEST_SHARDS, KERNELS[-1].slug):
        assert name in guide
    assert not re.search(r"`kaggle \w", guide)  # which is not on PATH: .venv/bin/kaggle
    for command, options in re.findall(r"`\./course kaggle (\w+)([^`]*)`", guide):
        shown = CliRunner().invoke(main, ["kaggle", command, "--help"]).output
        assert all(option in shown for option in re.findall(r"--\w[\w-]*", options)), (command, options)


# ---------------------------------------------------------------- check


def test_what_is_built_passes(built):
    assert check(built) == []
    shown = CliRunner().invoke(main, ["kaggle", "check", str(built)])
    assert shown.exit_code == 0 and "no problem found" in shown.output


def _set(key, value):
    def change(folder: Path) -> None:
        path = folder / kernels.KERNEL_FILE
        values = read_json(path)
        values.pop(key) if value is None else values.update({key: value})
        write_json(path, values)

    return change


def _notebook(change):
    def apply(folder: Path) -> None:
        (path,) = folder.glob("*.ipynb")
        notebook = read_json(path)
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        change(notebook, code)
        path.write_text(json.dumps(notebook))

    return apply


BAD_KERNELS = [
    (_set("id", "naflora-00-start-here"), "id is 'naflora-00-start-here', must be owner/slug"),
    (_set("id", f"{OWNER}/abcd"), "slug 'abcd' has 4 characters"),
    (_set("title", "Start"), "title 'Start' gives the slug 'start'"),
    (_set("title", "NAFlora " + "x" * 50), "has 58 characters, must have 5 to 50"),
    (_set("code_file", "other.ipynb"), "code_file 'other.ipynb' is not there"),
    (_set("code_file", None), "code_file None is not there"),
    (_set("code_file", kernels.KERNEL_FILE), "is not a notebook"),
    (_set("language", "r"), "language must be python"),
    (_set("enable_internet", None), "enable_internet is None, must be true or false"),
    (_set("enable_internet", True), "enable_internet is true"),
    (_set("is_private", "true"), "is_private is 'true', must be true or false"),
    (_set("enable_gpu", True), "enable_gpu is True and machine_shape ''"),
    (_set("machine_shape", "NvidiaTeslaP100"), "machine_shape is 'NvidiaTeslaP100'"),
    (_set("docker_image", "gcr.io/x"), "docker_image is 'gcr.io/x'"),
    (_set("docker_image_pinning_type", "newest"), "docker_image_pinning_type"),
    (_set("dataset_sources", ["no-owner"]), "dataset_sources has 'no-owner', must be owner/slug"),
    (_set("dataset_sources", ["a/bcdefg", "a/bcdefg"]), "dataset_sources names a source twice"),
    (_set("competition_sources", ["c/herbarium"]), "competition_sources has 'c/herbarium'"),
    (_set("kernel_sources", "a/b"), "kernel_sources is 'a/b', must be a list"),
    (_set("kernel_sources", [f"{OWNER}/naflora-00-start-here"]), "kernel_sources names the kernel itself"),
    (_notebook(lambda n, code: code[0].update(outputs=[{"output_type": "stream"}])), "has outputs"),
    (_notebook(lambda n, code: code[1].update(execution_count=3)), "has an execution count"),
    (_notebook(lambda n, code: n["metadata"].pop("kernelspec")), "kernelspec is None"),
    (_notebook(lambda n, code: code[2]["metadata"].clear()), "0 code cells are tagged `parameters`"),
    (_notebook(lambda n, code: code[0].update(source=["1"])), "the first code cell differs"),
    (_notebook(lambda n, code: code[1]["source"].append("#" * 1_000_001)), "bytes, at most"),
    (lambda folder: (folder / "utils.py").touch(), "utils.py: only the notebook is uploaded"),
    (lambda folder: (folder / kernels.KERNEL_FILE).write_text("{"), "not valid JSON"),
    (lambda folder: next(folder.glob("*.ipynb")).write_text("{}"), "not a notebook"),
]


@pytest.mark.parametrize(("break_it", "said"), BAD_KERNELS, ids=[said for _, said in BAD_KERNELS])
def test_a_bad_kernel_is_one_line(break_it, said, copy):
    break_it(copy / KERNELS[0].slug)
    problems = check(copy)
    assert [line for line in problems if said in line], problems
    assert all("\n" not in line for line in problems)


BAD_DATASETS = [
    (lambda folder: (folder / "utils" / "COMMIT").unlink(), "utils/COMMIT is missing"),
    (lambda folder: shutil.rmtree(folder / "utils" / "profiles"), "utils/profiles/kaggle.yaml is missing"),
    (lambda folder: next(folder.glob("*.whl")).write_bytes(b""), "must hold one whole wheel"),
    (lambda folder: (folder / "utils" / "x.pyc").touch(), "compiled files"),
    (lambda folder: shutil.rmtree(folder), "every kernel needs that data set"),
    (
        lambda folder: write_json(
            folder / kernels.DATASET_FILE, {"id": "me/naflora", "title": "naflora", "licenses": []}
        ),
        "licenses is []",
    ),
]


@pytest.mark.parametrize(("break_it", "said"), BAD_DATASETS, ids=[said for _, said in BAD_DATASETS])
def test_a_bad_data_set_is_one_line(break_it, said, copy):
    break_it(copy / UTILS)
    shown = CliRunner().invoke(main, ["kaggle", "check", str(copy)])
    assert shown.exit_code == 1 and said in shown.output


def test_check_of_something_else_says_how_to_build(tmp_path):
    with pytest.raises(InputError, match="kaggle build --owner"):
        check(tmp_path)


# ---------------------------------------------------------------- push, with the official tool


class StandIn(ThreadingHTTPServer):
    """Takes the place of Kaggle's servers on port 7777; keeps what was sent, answers as told."""

    allow_reuse_address = True

    def __init__(self) -> None:
        give_up = time.monotonic() + 120
        while True:
            try:
                super().__init__(("127.0.0.1", 7777), Answers)
                break
            except OSError as error:  # the suite on another Python has the port, the only one there is
                if error.errno != errno.EADDRINUSE or time.monotonic() > give_up:
                    raise
                time.sleep(0.5)
        self.calls: list[tuple[str, dict]] = []
        self.uploads: dict[str, bytes] = {}
        self.datasets: set[str] = set()
        self.statuses: dict[str, itertools.chain] = {}
        self.refuse: dict[str, list[str]] = {}
        self.fails: int | None = None  # answer this to every question whether a data set is there
        self.users: dict[str, str] = {}  # by their access tokens

    def sent(self, name: str) -> list[dict]:
        return [values for call, values in self.calls if call == name]


class Answers(BaseHTTPRequestHandler):
    server: StandIn

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, values: dict, code: int = 200) -> None:
        data = json.dumps(values).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self) -> None:
        self.server.uploads[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        name, values = self.path.rpartition("/")[2], json.loads(self._body())
        self.server.calls.append((name, values))
        if name == "SaveKernel":
            url = f"http://localhost:7777/{values['slug']}"
            answer = {"ref": values["slug"], "url": url, "versionNumber": 1, **self.server.refuse}
            self._answer({key: value for key, value in answer.items() if value is not None})
        elif name == "GetKernelSessionStatus":
            statuses = self.server.statuses.setdefault(values["kernelSlug"], iter(["QUEUED", "RUNNING"]))
            self._answer({"status": next(statuses, "COMPLETE")})
        elif name == "GetDatasetStatus" and self.server.fails:
            self._answer({"code": self.server.fails, "message": "told so"}, self.server.fails)
        elif name == "ListDatasets":
            self._answer({"datasets": [{"ref": f"{OWNER}/{slug}"} for slug in self.server.datasets]})
        elif name == "GetDatasetStatus":
            known = values["datasetSlug"] in self.server.datasets
            self._answer(
                {"status": "READY"} if known else {"code": 404, "message": "Not found"}, 200 if known else 404
            )
        elif name == "IntrospectToken":
            user = self.server.users.get(values["token"])
            self._answer({"active": user is not None, "username": user or ""})
        elif name == "StartBlobUpload":
            self._answer(
                {"token": values["name"], "createUrl": f"http://localhost:7777/upload/{values['name']}"}
            )
        elif name in ("CreateDataset", "CreateDatasetVersion"):
            self.server.datasets.add(values.get("slug") or values["datasetSlug"])
            self._answer({"status": "ok", "url": "http://localhost:7777/dataset"})
        else:
            self._answer({"code": 404, "message": f"no {name} here"}, 404)

    def log_message(self, *_: object) -> None:
        pass


# The tool names its production servers to kagglesdk by itself; here kagglesdk chooses, which heeds
# KAGGLE_API_ENVIRONMENT=TEST. Everything else is the package's own.
TOOL = """#!{python}
from importlib import import_module

from kagglesdk.kaggle_env import get_env

extended = import_module("kaggle.api.kaggle_api_extended")
client = extended.KaggleClient
extended.KaggleClient = lambda env, **options: client(env=get_env(), **options)
from kaggle.cli import main

main()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    assert util.find_spec("kaggle"), "the official `kaggle` package is missing: ./course setup installs it"
    (tmp_path / "home").mkdir()
    environment = {"KAGGLE_API_ENVIRONMENT": "TEST", "KAGGLE_USERNAME": OWNER, "KAGGLE_KEY": "0" * 32}
    environment |= {"HOME": str(tmp_path / "home"), "KAGGLE_CONFIG_DIR": str(tmp_path / "home" / "config")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("KAGGLE_API_TOKEN", "HTTP_PROXY", "http_proxy", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost")
    tool = tmp_path / "kaggle"
    tool.write_text(TOOL.format(python=sys.executable))
    tool.chmod(0o755)
    server = StandIn()
    server.tool = (str(tool),)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def notebook_as_sent(text: str) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]


def test_the_official_tool_sends_what_was_meant(copy, stand_in, capfd):
    Push(copy, stand_in.tool, pause=0.01).run()
    assert [values["slug"] for values in stand_in.sent("SaveKernel")] == [
        f"{OWNER}/{k.slug}" for k in KERNELS
    ]
    for kernel, sent in zip(KERNELS, stand_in.sent("SaveKernel"), strict=True):
        sources = [kernels.DATA[name] for name in kernel.data]
        own = [name if "/" in name else f"{OWNER}/{name}" for name in sources]
        assert sent["newTitle"] == kernel.title and slugify(sent["newTitle"]) == kernel.slug
        assert sent["datasetDataSources"] == own and sent["competitionDataSources"] == [COMPETITION]
        after = [other.slug for other in KERNELS if other.number in kernel.after]
        assert sent.get("kernelDataSources", []) == [f"{OWNER}/{slug}" for slug in after]
        assert sent.get("machineShape") == ("NvidiaTeslaT4" if kernel.gpu else "")
        assert (sent["isPrivate"], sent["enableInternet"], sent["enableGpu"]) == (True, False, kernel.gpu)
        assert (sent["language"], sent["kernelType"]) == ("python", "notebook")
        assert sent["dockerImagePinningType"] == "original" and "dockerImage" not in sent
        source = copy / kernel.slug / f"{kernel.notebook}.ipynb"
        assert notebook_as_sent(sent["text"]) == notebook_as_sent(source.read_text())
        assert all(not cell.get("outputs") for cell in json.loads(sent["text"])["cells"])
    created = {values["slug"]: values for values in stand_in.sent("CreateDataset")}
    assert created.keys() == {UTILS, WEIGHTS} and created[UTILS]["isPrivate"] is True
    assert {file["token"] for file in created[UTILS]["files"]} == {
        "notebooks.zip",
        "utils.zip",
        "LICENSE",
        "keras_efficientnet_v2-1.2.2-py3-none-any.whl",
    }
    (copy / "as_sent.zip").write_bytes(stand_in.uploads["utils.zip"])
    with zipfile.ZipFile(copy / "as_sent.zip") as archive:  # Kaggle unpacks it as the folder utils/
        assert {"__init__.py", "COMMIT", "profiles/kaggle.yaml", "data/batches.py"} <= set(archive.namelist())
    waited = [name for name, _ in stand_in.calls].index("GetKernelSessionStatus")
    assert waited > [name for name, _ in stand_in.calls].index("SaveKernel")
    calls = len(stand_in.calls)
    Push(copy, stand_in.tool, pause=0.01).run()  # nothing has changed: nothing is sent
    assert len(stand_in.calls) == calls
    assert capfd.readouterr().out.count("pushed before, unchanged") == len(KERNELS) + 2


# The tool itself for what it does with each answer is slow to start; a double that says the same is not.
def double(tmp_path: Path, script: str) -> tuple[str, ...]:
    """A `kaggle` that notes its arguments in `calls`, then runs a shell script."""
    tool = tmp_path / "double"
    tool.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n{script}\n')
    tool.chmod(0o755)
    return (str(tool),)


GOOD = """case "$1 $2" in
"kernels push") echo "Kernel version 1 successfully pushed.  Please check progress at url";;
"kernels status") echo "$3 has status \\"KernelWorkerStatus.COMPLETE\\"";;
"datasets status") printf ready;;
*) echo "Dataset version is being created. Please check progress at url";;
esac"""


def calls_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ({"invalidDatasetSources": ["a/b"]}, "not valid dataset sources.*a/b"),
        ({"invalidKernelSources": ["a/c"]}, "not valid kernel sources.*a/c"),
        ({"error": "Maximum batch GPU session count of 2 reached."}, "Kernel push error: Maximum batch GPU"),
    ],
)
def test_errors_that_the_official_tool_only_prints_stop_the_push(refusal, said, copy, stand_in):
    stand_in.refuse = refusal
    stand_in.datasets = {UTILS, WEIGHTS}
    with pytest.raises(InputError, match=f"(?s)kernels push.*{said}"):
        Push(copy, stand_in.tool).run("00")
    assert not (copy / PUSHED_FILE).exists()


def test_a_failed_kernel_is_not_built_upon(copy, tmp_path):
    failing = 'case "$1 $2" in "kernels status") echo "$3 has status \\"error\\""; exit 0;; esac\n' + GOOD
    with pytest.raises(InputError, match=r"(?s)naflora-03-train.*status error.*--only"):
        Push(copy, double(tmp_path, failing), pause=0).run()
    assert not [call for call in calls_of(tmp_path) if "push" in call and "03b" in call]


def test_only_pushes_one_kernel_again_and_waits_for_what_it_needs(copy, tmp_path):
    tool = double(tmp_path, GOOD)
    Push(copy, tool, pause=0).run()
    before = len(calls_of(tmp_path))
    Push(copy, tool, pause=0).run("03b")
    later = calls_of(tmp_path)[before:]
    assert later[-1] == f"kernels push -p {copy / 'naflora-03b-train-efficientnetv2-on'}"
    assert later[-2] == f"kernels status {OWNER}/naflora-03-train-efficientnetv2"
    with pytest.raises(UsageError, match=r"--only 7: no such kernel\. Known: 00"):
        Push(copy, tool).run("7")


def test_a_kernel_that_has_changed_is_pushed_again_and_no_other(copy, tmp_path):
    tool = double(tmp_path, GOOD)
    Push(copy, tool, pause=0).run()
    (copy / UTILS / "LICENSE").write_text("other")
    before = len(calls_of(tmp_path))
    Push(copy, tool, pause=0).run()
    (version,) = [call for call in calls_of(tmp_path)[before:] if "status" not in call]
    assert version.startswith(f"datasets version -p {copy / UTILS} -m ") and version.endswith(
        "--dir-mode zip"
    )


def test_weights_that_are_nowhere_stop_before_anything_is_sent(copy, tmp_path):
    shutil.rmtree(copy / WEIGHTS)
    absent = f'case "$*" in "datasets status {OWNER}/{WEIGHTS}") echo "404"; exit 1;; esac\n' + GOOD
    with pytest.raises(
        InputError,
        match=r"naflora-weights is not on Kaggle; \./course kaggle weights --owner \w+ --out .* makes it",
    ):
        Push(copy, double(tmp_path, absent), pause=0).run()
    assert calls_of(tmp_path) == [f"datasets status {OWNER}/{WEIGHTS}"]


def sent_by(tool_calls: list[str]) -> list[str]:
    return [call for call in tool_calls if call.split()[1] in ("create", "version", "push")]


CONNECTION = (
    "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api', port=443): Max retries exceeded "
)


@pytest.mark.parametrize(
    ("tool_says", "reason"),
    [
        (CONNECTION + "(Caused by NameResolutionError(: Failed to resolve 'api'))", "no network or no DNS"),
        (CONNECTION + "(Caused by ProxyError('Unable to connect to proxy'))", "the proxy does not answer"),
        (
            CONNECTION + "OSError('Tunnel connection failed: 407 Proxy Authentication Required')",
            "wants a name",
        ),
        (
            CONNECTION + "(Caused by ConnectTimeoutError(: Connection to api timed out.))",
            "did not answer in time",
        ),
        (CONNECTION + "(Caused by SSLError(CERTIFICATE_VERIFY_FAILED))", "certificate is not trusted"),
        (CONNECTION + "(Caused by NewConnectionError(: Connection refused))", "no connection to Kaggle"),
        ("403 Client Error: Forbidden for url: https://api", r"refuses access \(403: 403 Client Error"),
        (
            "429 Client Error: Too Many Requests for url: https://api",
            r"429, rate limit\): try again in some minutes",
        ),
        (
            "503 Server Error: Service Unavailable for url: https://api",
            "fault of Kaggle's own.*try again later",
        ),
        ("JSONDecodeError: Expecting value: line 1 column 1 (char 0)", "JSONDecodeError: Expecting value"),
    ],
)
def test_where_kaggle_gives_no_answer_the_reason_is_told_and_nothing_is_made(
    tool_says, reason, copy, tmp_path
):
    failing = f'case "$1" in datasets) cat <<"END"\n{tool_says}\nEND\nexit 1;; esac\n{GOOD}'
    for weights in ("in the folder", "elsewhere"):  # is asked as the first is pushed, or before anything is
        if weights == "elsewhere":
            shutil.rmtree(copy / WEIGHTS)
        with pytest.raises(
            InputError, match=f"does not say whether.*naflora-.*{reason}.*Nothing was sent"
        ) as error:
            Push(copy, double(tmp_path, failing), pause=0).run()
        assert len(str(error.value).splitlines()) == 1
    assert not sent_by(calls_of(tmp_path)) and not (copy / PUSHED_FILE).exists()


def test_a_server_that_never_answers_is_not_waited_for(copy, tmp_path):
    tool = double(tmp_path, f'case "$1" in datasets) exec sleep 60;; esac\n{GOOD}')
    with pytest.raises(InputError, match="did not answer in time"):
        Push(copy, tool, answer_within=0.2).run()
    assert not sent_by(calls_of(tmp_path))


HELP = (
    'cat <<"END"\nAuthentication required to call the Kaggle API.\n\n'
    "    Save the token to ~/.kaggle/access_token\nEND\nexit 1"
)


@pytest.mark.parametrize(
    ("variables", "files", "reason"),
    [
        (
            {},
            {},
            r"no Kaggle token on this machine\. Log in: \S*kaggle auth login.*access_token \(chmod 600\)",
        ),
        ({"KAGGLE_USERNAME": "a"}, {}, "KAGGLE_USERNAME is set and KAGGLE_KEY is not"),
        ({"KAGGLE_KEY": "a"}, {}, "KAGGLE_KEY is set and KAGGLE_USERNAME is not"),
        ({}, {"kaggle.json": '{"username": "a", '}, r"kaggle\.json is not valid JSON"),
        ({}, {"kaggle.json": ""}, r"kaggle\.json is not valid JSON"),
        ({}, {"kaggle.json": '{"username": "a"}'}, r"kaggle\.json has no username and key"),
        ({}, {"kaggle.json": "[1]"}, r"kaggle\.json has no username and key"),
        ({}, {"kaggle.json": '{"username": "a", "key": "b"}'}, r"not accept the token \(\S*kaggle\.json\)"),
        ({"KAGGLE_API_TOKEN": "a"}, {}, r"does not accept the token \(KAGGLE_API_TOKEN\)"),
        ({"KAGGLE_USERNAME": "a", "KAGGLE_KEY": "b"}, {}, r"the token \(KAGGLE_USERNAME and KAGGLE_KEY\)"),
        ({}, {".kaggle/access_token": "t\n"}, r"does not accept the token \(\S*/access_token\)"),
        ({}, {".kaggle/access_token.txt": "t"}, r"does not accept the token \(\S*access_token\.txt\)"),
        ({}, {".kaggle/access_token": " \n"}, r"no Kaggle token .*\(\S*access_token is empty\)"),
        ({}, {".kaggle/credentials.json": "{}"}, r"does not accept the token \(\S*credentials\.json\)"),
        # a damaged file of the older form does not count where there is another token
        ({}, {".kaggle/access_token": "t", "kaggle.json": "{"}, r"accept the token \(\S*access_token\)"),
        ({}, {".kaggle/credentials.json": "{}", "kaggle.json": "{"}, r"the token \(\S*credentials\.json\)"),
        ({"KAGGLE_API_TOKEN": "a", "KAGGLE_KEY": "b"}, {}, r"accept the token \(KAGGLE_API_TOKEN\)"),
    ],
)
def test_a_token_that_is_missing_or_damaged_is_told_so(variables, files, reason, copy, tmp_path, monkeypatch):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), "KAGGLE_CONFIG_DIR": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason) as error:
        Push(copy, double(tmp_path, HELP), pause=0).run()
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(InputError, match=reason):  # and when a kernel is pushed or waited for
        Push(copy, double(tmp_path, f'case "$1" in kernels) {HELP};; esac\n{GOOD}'), pause=0).run("03b")
    assert not sent_by(calls_of(tmp_path))


def test_the_official_tool_takes_an_access_token(copy, stand_in, tmp_path, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    token = tmp_path / "home" / ".kaggle" / "access_token"
    token.parent.mkdir()
    token.write_text("secret\n")
    stand_in.datasets, stand_in.users = {UTILS}, {"secret": "b"}
    push = Push(copy, stand_in.tool)
    assert push.is_on_kaggle(f"{OWNER}/{UTILS}") is True
    with pytest.raises(InputError, match=f"is of user b, and .* was built for {OWNER}"):
        push._check_token_is_of(OWNER)
    stand_in.users.clear()  # expired
    with pytest.raises(InputError, match=rf"does not accept the token \({token}\).*auth login"):
        push.is_on_kaggle(f"{OWNER}/{UTILS}")


def test_a_token_of_another_user_makes_nothing(copy, tmp_path):
    other = f'case "$1 $2" in "datasets status") echo 404; exit 1;; "config view") echo "- username: b";; esac\n{GOOD}'
    with pytest.raises(InputError, match=f"is of user b, and .* was built for {OWNER}.*--owner b"):
        Push(copy, double(tmp_path, other), pause=0).run()
    assert not sent_by(calls_of(tmp_path))


@pytest.mark.parametrize(
    ("code", "reason"), [(401, "does not accept the token"), (503, "a fault of Kaggle's own")]
)
def test_the_official_tools_words_for_a_refusal_are_understood(code, reason, copy, stand_in):
    stand_in.fails = code
    with pytest.raises(InputError, match=reason):
        Push(copy, stand_in.tool).run()
    assert {name for name, _ in stand_in.calls} == {"GetDatasetStatus"}


def test_a_403_is_no_answer_and_the_owners_list_is(copy, stand_in):
    """Kaggle refuses access to what is not there, too."""
    stand_in.fails = 403
    push = Push(copy, stand_in.tool)
    assert push.is_on_kaggle(f"{OWNER}/{UTILS}") is False
    stand_in.datasets = {UTILS}
    assert push.is_on_kaggle(f"{OWNER}/{UTILS}") is True


def test_what_does_not_pass_the_check_is_not_pushed(copy, tmp_path):
    _set("enable_internet", None)(copy / KERNELS[0].slug)
    with pytest.raises(InputError, match=r"does not pass `\./course kaggle check`"):
        Push(copy, double(tmp_path, GOOD)).run()
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("value", [5, None, [5], {"a": 1}, "../../x", "--help", "a\x1b[2J/b"], ids=str)
@pytest.mark.parametrize("key", ["id", "code_file", "kernel_sources", "dataset_sources"])
def test_metadata_of_another_form_are_told_and_make_no_command(copy, key, value):
    path = copy / KERNELS[0].slug / "kernel-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert any(KERNELS[0].slug in problem and key in problem for problem in check(copy))
    with pytest.raises(InputError, match=r"does not pass `\./course kaggle check`") as told:
        Push(copy).commands()
    assert "\x1b" not in str(told.value)


def test_notes_of_a_push_that_are_none_are_named(copy, tmp_path):
    (copy / "pushed.json").write_text("[1]")
    with pytest.raises(InputError, match=r"pushed\.json: not what a push has noted"):
        Push(copy, double(tmp_path, GOOD)).run()


def test_ctrl_c_while_waiting_and_the_same_command_goes_on(copy, tmp_path):
    tool = double(tmp_path, f'[ "$1 $2" = "kernels status" ] && [ ! -e {tmp_path}/done ] && '
                            '{ echo "$3 has status \\"running\\""; exit 0; }\n' + GOOD)  # fmt: skip
    (tmp_path / "bin").mkdir()
    shutil.copy(tool[0], tmp_path / "bin" / "kaggle")
    script = (
        "import sys; from pathlib import Path; from utils.course.push import Push\n"
        "Push(Path(sys.argv[1]), ('kaggle',), pause=30).run()"
    )
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", script, str(copy)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.time() + 60
        while time.time() < deadline and not (
            (tmp_path / "calls").exists() and "kernels status" in calls_text(tmp_path)
        ):
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert process.returncode != 0 and "the same command again goes on" in out and "running" in error
    (tmp_path / "done").touch()
    before = len(calls_of(tmp_path))
    Push(copy, tool, pause=0).run()
    pushed = [call for call in calls_of(tmp_path)[before:] if call.startswith("kernels push")]
    assert [Path(call.split()[-1]).name[8:11] for call in pushed] == [
        "03b",
        "04-",
        "05-",
        "06-",
        "07-",
        "08-",
    ]


def calls_text(tmp_path: Path) -> str:
    return (tmp_path / "calls").read_text()


def test_a_dry_run_prints_commands_that_are_then_run(copy, tmp_path):
    named = shlex.join(official_tool())  # as it can be typed where one stands
    assert shutil.which(named)
    shown = CliRunner().invoke(main, ["kaggle", "push", str(copy), "--dry-run"])
    assert shown.exit_code == 0
    assert f"datasets create -p {copy / WEIGHTS} --dir-mode zip  # the first time, 0.0 MB" in shown.output
    printed = [line.split("  #")[0] for line in shown.output.splitlines()]
    Push(copy, double(tmp_path, GOOD), pause=0).run()
    ran = [line for line in calls_of(tmp_path) if " status " not in line]
    expected = [line for line in printed if " status " not in line and " create " not in line]
    assert [f"{named} {line}" for line in ran] == [line.replace("'", "") for line in expected]
    only = CliRunner().invoke(main, ["kaggle", "push", str(copy), "--dry-run", "--only", "00"])
    asked, push = only.output.splitlines()
    assert asked.startswith(f"{named} datasets status {OWNER}/{UTILS}  # must be on Kaggle")
    assert push == f"{named} kernels push -p {copy / 'naflora-00-start-here'}"
    costs = [line.partition("  # takes GPU hours") for line in shown.output.splitlines() if " push " in line]
    assert [cost for _, _, cost in costs] == [""] * 3 + [", at most 11.5"] * 2 + [""] * 5
    assert [bool(hours) for _, hours, _ in costs] == [kernel.gpu for kernel in KERNELS]


def test_a_dry_run_shows_weights_that_are_not_made_yet(copy):
    shutil.rmtree(copy / WEIGHTS)
    first, *others = Push(copy).commands()
    assert first == (
        f"kaggle datasets status {OWNER}/{WEIGHTS}  # must be on Kaggle, it is not in {copy}: "
        f"./course kaggle weights --owner {OWNER} --out {copy} makes it"
    )
    assert not any(WEIGHTS in line for line in others)


def test_a_missing_tool_says_how_to_get_it(copy):
    with pytest.raises(InputError, match="pip install kaggle"):
        Push(copy, ("no-such-tool",)).run()


# ---------------------------------------------------------------- a replica of /kaggle


def mount(root: Path, layout: str, kind: str, name: str) -> Path:
    """Where Kaggle mounts an attached source: /kaggle/input/<slug> (old), or by kind and owner (new)."""
    slug = name.rpartition("/")[2]
    places = {
        "datasets": f"datasets/{name}",
        "competitions": f"competitions/{slug}",
        "notebooks": f"notebooks/{name}",
    }
    return root / "input" / (slug if layout == "old" else places[kind])


def attach_all(
    root: Path, layout: str, values: dict, built: Path, flora: Path, outputs: Path, without: str = ""
) -> None:
    """Lay out what a kernel's metadata attach, but for `without`."""
    kinds = {
        "datasets": "dataset_sources",
        "competitions": "competition_sources",
        "notebooks": "kernel_sources",
    }
    for kind, key in kinds.items():
        for name in values[key]:
            if name == without:
                continue
            folder = mount(root, layout, kind, name)
            slug = name.rpartition("/")[2]
            folder.mkdir(parents=True)
            if kind == "notebooks":
                shutil.copytree(outputs / slug, folder, dirs_exist_ok=True, copy_function=os.link)
            elif name.startswith(f"{OWNER}/"):
                shutil.copytree(built / slug, folder, dirs_exist_ok=True, copy_function=os.link)
                (folder / kernels.DATASET_FILE).unlink()  # the tool does not upload it
            else:
                pattern = {
                    COMPETITION: "*_metadata.json",
                    TRAIN_SHARDS: "*_train*.tfrec",
                    TEST_SHARDS: "*_test*.tfrec",
                }
                for file in flora.glob(pattern[name]):
                    os.link(file, folder / file.name)
    for name in ("working", "tmp"):
        (root / name).mkdir(parents=True)


def sources_of(kernel: kernels.Kernel) -> list[str]:
    values = kernels.kernel_metadata(kernel, OWNER)
    own = f"{OWNER}/{UTILS}"
    names = [*values["competition_sources"], *values["dataset_sources"], *values["kernel_sources"]]
    return [name for name in names if name != own]


@pytest.fixture
def on_replica(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("NAFLORA_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path / "kaggle"


@pytest.fixture
def outputs(tmp_path) -> Path:
    """An output of 03 and of 03b, as far as it is looked at before it is loaded."""
    for kernel in KERNELS:
        if kernel.notebook.startswith("03"):
            state = {"epoch": 1, "profile": {"name": "kaggle"}}
            write_json(tmp_path / "outputs" / kernel.slug / "state" / "state.json", state)
            write_json(tmp_path / "outputs" / kernel.slug / "labels.json", {})
    return tmp_path / "outputs"


def first_error(folder: Path, kernel: kernels.Kernel) -> tuple[str, float]:
    """Run a kernel's cells after the first, with their defaults, up to the first InputError; its text, its time."""
    cells = nbformat.read(folder / kernel.slug / f"{kernel.notebook}.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"][1:]
    namespace: dict = {"__name__": "__main__"}
    begin = time.time()
    for source in code:
        try:
            exec(compile(source, kernel.notebook, "exec"), namespace)
        except InputError as error:
            return str(error), time.time() - begin
        if time.time() - begin > 60:
            break
    pytest.fail(f"{kernel.number} ran a minute, or to its end, without an error")


@pytest.mark.parametrize(
    ("kernel", "source"),
    [(kernel, source) for kernel in KERNELS for source in sources_of(kernel)],
    ids=lambda value: value if isinstance(value, str) else value.number,
)
@pytest.mark.parametrize("layout", ["old", "new"])
def test_without_one_input_a_kernel_says_in_the_first_minute_what_to_attach(
    kernel, source, layout, built, sample_flora, on_replica, outputs, monkeypatch
):
    monkeypatch.setattr("utils.training.devices.check_precision", lambda precision: None)  # as if on T4 x2
    attach_all(
        on_replica, layout, kernel_metadata(built, kernel), built, sample_flora, outputs, without=source
    )
    said, seconds = first_error(built, kernel)
    named = (
        "kernel of notebook 03 or 03b"
        if source in kernel_metadata(built, kernel)["kernel_sources"]
        else source
    )
    assert seconds < 60 and "Add Input >" in said and named.removeprefix(f"{OWNER}/") in said


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.gpu], ids=lambda kernel: kernel.number)
def test_profile_kaggle_without_a_gpu_stops_in_the_first_minute(
    kernel, built, sample_flora, on_replica, outputs
):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    attach_all(on_replica, "new", kernel_metadata(built, kernel), built, sample_flora, outputs)
    said, seconds = first_error(built, kernel)
    assert seconds < 60 and "Settings > Accelerator > GPU T4 x2" in said and 'PROFILE = "smoke"' in said


def first_cell(folder: Path) -> str:
    cells = nbformat.read(folder / KERNELS[0].slug / f"{KERNELS[0].notebook}.ipynb", as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def run_cell(source: str, folder: Path, root: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"NAFLORA_KAGGLE_ROOT": str(root), "KAGGLE_KERNEL_RUN_TYPE": "Batch", **variables}
    command = [sys.executable, "-c", source]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_first_cell_without_the_data_set_says_what_to_attach_and_where(built, tmp_path):
    (tmp_path / "working").mkdir()
    done = run_cell(first_cell(built), tmp_path / "working", tmp_path)
    assert "Add Input > Your Work > Datasets > naflora-course-utils > +" in done.stderr
    assert "papermill with --cwd and the folder that this notebook lies in" in done.stderr


@pytest.mark.parametrize("inside", ["", "notebooks"])
def test_the_first_cell_finds_the_package_by_pythonpath_or_above_where_it_runs(inside, built, tmp_path):
    """As papermill runs it, whose working directory is the caller's or that of --cwd."""
    imports = first_cell(built).partition("from utils.startup")[0]
    folder, variables = tmp_path, {"PYTHONPATH": str(REPOSITORY)}
    if inside:
        folder, variables = REPOSITORY / inside, {}
    done = run_cell(imports + "print(utils.__file__)", folder, tmp_path, **variables)
    assert done.stdout == f"{REPOSITORY / 'utils' / '__init__.py'}\n", done.stderr


def test_the_first_cell_does_not_take_another_package_of_that_name(built, tmp_path):
    (tmp_path / "working").mkdir()
    shutil.copytree(built / UTILS, tmp_path / "input" / UTILS)
    (tmp_path / "utils.py").touch()
    before = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import utils\n"
    done = run_cell(before + first_cell(built), tmp_path / "working", tmp_path)
    assert f"{tmp_path / 'utils.py'} is another package `utils`: restart the kernel" in done.stderr


# ---------------------------------------------------------------- kernels run in the replica

PYTHON = sys.version_info[:2]
as_in_the_image = pytest.mark.skipif(
    PYTHON not in ((3, 12), (3, 13)),
    reason=f"Kaggle's image has Python 3.12 and this is {PYTHON[0]}.{PYTHON[1]}: .ci/run runs it on 3.12",
)
# Not in the image: the wheel in the data set must do for the first.
ABSENT = (
    "keras_efficientnet_v2",
    "msgspec",
    "tensorflow_addons",
    "kaggle",
    "kagglesdk",
    "ruff",
    "pytest",
    "_pytest",
)


@pytest.fixture(scope="session")
def image_python(tmp_path_factory) -> Path:
    """A Python with this environment's packages, but for those that Kaggle's image does not have."""
    folder = tmp_path_factory.mktemp("image") / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = Path(util.find_spec("tensorflow").origin).parent.parent
    inside = folder / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"
    for entry in packages.iterdir():
        name = entry.name.split("-")[0].replace(".py", "")
        if name not in ABSENT and entry.suffix != ".pth" and entry.name != "__pycache__":
            (inside / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


ALONE = """set -e
ip link set lo up
mount --bind "$ROOT/input" "$ROOT/input"
mount -o remount,bind,ro "$ROOT/input"
for hidden in $HIDDEN; do mount -t tmpfs none "$hidden"; done
exec "$@"
"""


def alone(command: list[str], root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a command without network, without sight of this repository, with input that cannot be written."""
    environment = {**environment, "ROOT": str(root)}
    hidden = [
        str(REPOSITORY / name)
        for name in ("utils", "notebooks", "tests", ".git")
        if (REPOSITORY / name).is_dir()
    ]
    environment["HIDDEN"] = " ".join(hidden)
    if os.environ.get("ALLOW_NO_NETNS") != "1":
        tried = subprocess.run(["sh", "-c", "unshare -rnm ip link set lo up"], capture_output=True, text=True)
        if tried.returncode:
            pytest.fail(
                f"no name space without network: {tried.stderr.strip()}. ALLOW_NO_NETNS=1 runs the test with network."
            )
        command = ["unshare", "-rnm", "sh", "-c", ALONE, "sh", *command]
    return subprocess.run(
        command, cwd=root / "working", env=environment, capture_output=True, text=True, timeout=900
    )


LOOK = """
import os, socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print(type(error).__name__, error.strerror)
try:
    open(os.environ["ROOT"] + "/input/new", "w")
except OSError as error:
    print(error.strerror)
print(os.listdir(os.environ["HIDDEN"].split()[0]))
with socket.create_server(("127.0.0.1", 0)) as server:
    print(socket.create_connection(server.getsockname()) is not None)
"""


@pytest.mark.skipif(
    os.environ.get("ALLOW_NO_NETNS") == "1", reason="ALLOW_NO_NETNS=1: with network, as asked"
)
def test_a_kernel_in_the_replica_has_no_network_no_repository_and_read_only_input(tmp_path):
    for name in ("input", "working"):
        (tmp_path / name).mkdir()
    done = alone([sys.executable, "-c", LOOK], tmp_path, {"PATH": os.environ["PATH"]})
    assert done.stdout.splitlines() == [
        "OSError Network is unreachable",
        "Read-only file system",
        "[]",
        "True",
    ]


def test_where_name_spaces_are_refused_the_test_fails_with_the_reason_unless_allowed(tmp_path, monkeypatch):
    (tmp_path / "working").mkdir()
    (tmp_path / "unshare").write_text("#!/bin/sh\necho 'unshare failed: not permitted' >&2; exit 1")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("ALLOW_NO_NETNS", raising=False)
    with pytest.raises(pytest.fail.Exception, match=r"unshare failed: not permitted\. ALLOW_NO_NETNS=1"):
        alone(["true"], tmp_path, {})
    monkeypatch.setenv("ALLOW_NO_NETNS", "1")
    assert alone(["true"], tmp_path, {"PATH": os.environ["PATH"]}).returncode == 0


def run_kernel(
    kernel, layout, built, flora, outputs, folder, python, *, attached: bool = True
) -> nbformat.NotebookNode:
    """Run one kernel as Kaggle does: papermill, its own metadata's inputs, its defaults, profile smoke.

    Smoke reads the attached shards, or draws its own flora without `attached`.
    """
    root = folder / kernel.slug
    attach_all(root, layout, kernel_metadata(built, kernel), built, flora, outputs)
    shutil.copy(built / kernel.slug / f"{kernel.notebook}.ipynb", root / "notebook.ipynb")
    home = folder / "home"
    environment = {
        "PATH": f"{python.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }
    environment |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "NAFLORA_KAGGLE_ROOT": str(root), "MPLBACKEND": "agg"}
    command = [str(python), "-m", "papermill", "../notebook.ipynb", "../executed.ipynb", "-k", "python3"]
    command += ["--no-progress-bar", "-p", "PROFILE", "smoke"]
    if attached:
        command += ["-p", "DATA_DIR", str(root / "input")]
    done = alone(command, root, environment)
    assert done.returncode == 0, f"{kernel.number}: {done.stderr[-3000:]}"
    shutil.copytree(root / "working", outputs / kernel.slug)
    return nbformat.read(root / "executed.ipynb", as_version=4)


def check_executed(kernel: kernels.Kernel, notebook: nbformat.NotebookNode, built: Path) -> None:
    assert judge_cells(notebook) == "", kernel.number
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    commit = (built / UTILS / "utils" / "COMMIT").read_text().strip()
    version = f"Python {PYTHON[0]}.{PYTHON[1]}.\\d+ · TensorFlow 2\\.2\\d\\.\\d · Keras 2\\.2\\d\\.\\d\n"
    first = rf"herbarium course \S+, commit {re.escape(commit)} on Kaggle \(Batch\), image .+\n{version}Devices: .+\n"
    assert re.fullmatch(first, code[0].outputs[0].text), code[0].outputs[0].text
    errors = [
        o.text for cell in code for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"
    ]
    # TensorFlow 2.21 warns of the byte that notebook 02 flips on purpose
    noise = [
        line for text in errors for line in text.splitlines() if "status: DATA_LOSS: corrupted" not in line
    ]
    assert noise == [], kernel.number


@as_in_the_image
def test_two_kernels_run_in_the_replica(built, sample_flora, image_python, tmp_path):
    outputs = tmp_path / "outputs"
    for kernel in (KERNELS[0], KERNELS[2]):
        attached = kernel.number != "00"  # 00 draws its own flora, in scratch
        notebook = run_kernel(
            kernel, "new", built, sample_flora, outputs, tmp_path, image_python, attached=attached
        )
        check_executed(kernel, notebook, built)
        assert len(list((tmp_path / "outputs" / kernel.slug).iterdir())) == 1, (
            "few files in the output folder"
        )


@pytest.mark.long
@as_in_the_image
@pytest.mark.parametrize("layout", ["old", "new"])
def test_the_whole_suite_runs_in_the_replica_chained_by_outputs(
    layout, built, sample_flora, image_python, tmp_path
):
    outputs = tmp_path / "outputs"
    for kernel in KERNELS:
        notebook = run_kernel(kernel, layout, built, sample_flora, outputs, tmp_path, image_python)
        check_executed(kernel, notebook, built)
        files = [path for path in (outputs / kernel.slug).rglob("*") if path.is_file()]
        assert 1 <= len(files) <= 10, f"few files in the output folder of {kernel.number}: {files}"
    by_number = {kernel.number: outputs / kernel.slug for kernel in KERNELS}
    states = [read_json(by_number[number] / "state" / "state.json") for number in ("03", "03b")]
    assert states[0] == states[1], "03 had finished: 03b passes its run on"
    labels = LabelMap.from_metadata(read_metadata(sample_flora / "train_metadata.json"))
    tests = read_test_metadata(sample_flora / "test_metadata.json")
    assert validate_submission(by_number["05"] / "submission.csv", tests, labels.category_ids) == []
