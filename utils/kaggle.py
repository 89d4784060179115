"""The Kaggle kernel suite: builds kernels and data sets from one table, checks them, pushes them in order.

A built folder holds one folder for each kernel (a notebook and kernel-metadata.json) and one for each data set
of the owner (dataset-metadata.json and the files), named by their slugs. The official `kaggle` tool pushes such
folders. Conventions are those of its version 2.2 and of Kaggle's documentation of kernel-metadata.json and
dataset-metadata.json.
"""

import base64
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils import __version__
from utils.check import check_notebook
from utils.datasets import COMPETITION, TEST_SHARDS, TRAIN_SHARDS
from utils.errors import InputError, UsageError
from utils.files import read_json, replacing, write_json
from utils.paths import REPOSITORY, is_hidden
from utils.startup import COMMIT, commit_of_package

T4_X2 = "NvidiaTeslaT4"  # Kaggle's name of the machine with two T4
SESSION_HOURS = 11.5  # training stops by then; Kaggle ends a session after 12
UTILS, WEIGHTS = "naflora-course-utils", "naflora-weights"  # the owner's data sets
LIBRARY = "keras-efficientnet-v2"  # not in Kaggle's image: its wheel goes with the package
KERNEL_FILE, DATASET_FILE = "kernel-metadata.json", "dataset-metadata.json"
PUSHED_FILE = "pushed.json"  # what has been pushed, so that an interrupted push goes on
DATASETS = {  # slug -> title, description
    UTILS: (
        "NAFlora course utils",
        "The package `utils` of the herbarium course (MIT) with the wheel of keras-efficientnet-v2 (Apache-2.0).",
    ),
    WEIGHTS: (
        "NAFlora weights",
        "ImageNet weights of EfficientNetV2 as keras_efficientnet_v2 releases them (Apache-2.0).",
    ),
}


@dataclass(frozen=True)
class Kernel:
    """One kernel: everything in its metadata follows from this."""

    number: str
    notebook: str  # in notebooks/, without .ipynb
    title: str  # its slug is made from it
    datasets: tuple[str, ...]  # a slug without a slash is the owner's own
    after: tuple[str, ...] = ()  # numbers of the kernels whose output it takes
    gpu: bool = False  # T4 x2
    parameters: dict[str, Any] = field(default_factory=dict)  # other defaults than the notebook's

    @property
    def slug(self) -> str:
        return slugify(self.title)


# In the order in which they are pushed. All take the competition (metadata), none has internet.
KERNELS = (
    Kernel("00", "00_start_here", "NAFlora 00 start here", (TRAIN_SHARDS, UTILS)),
    Kernel("01", "01_eda_long_tail", "NAFlora 01 EDA of the long tail", (TRAIN_SHARDS, UTILS)),
    Kernel("02", "02_tfrecord_loading", "NAFlora 02 TFRecord loading", (TRAIN_SHARDS, UTILS)),
    Kernel(
        "03",
        "03_train_efficientnetv2",
        "NAFlora 03 train EfficientNetV2",
        (TRAIN_SHARDS, UTILS, WEIGHTS),
        gpu=True,
        parameters={"MAX_HOURS": SESSION_HOURS},
    ),
    Kernel(
        "03b",
        "03_train_efficientnetv2",
        "NAFlora 03b train EfficientNetV2 on",
        (TRAIN_SHARDS, UTILS, WEIGHTS),
        after=("03",),
        gpu=True,
        parameters={"MAX_HOURS": SESSION_HOURS, "RESUME": True},
    ),
    Kernel(
        "04",
        "04_evaluate_long_tail",
        "NAFlora 04 evaluate the long tail",
        (TRAIN_SHARDS, UTILS),
        after=("03b",),
        gpu=True,
    ),
    Kernel(
        "05",
        "05_submission",
        "NAFlora 05 submission",
        (TRAIN_SHARDS, TEST_SHARDS, UTILS),
        after=("03b",),
        gpu=True,
    ),
    Kernel(
        "06",
        "06_beating_the_long_tail",
        "NAFlora 06 beating the long tail",
        (TRAIN_SHARDS, UTILS),
        after=("03b",),
        gpu=True,
    ),
)
_BY_NUMBER = {kernel.number: kernel for kernel in KERNELS}


def slugify(title: str) -> str:
    """A title as Kaggle makes a slug of it: small letters and digits, one hyphen between words."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


# ---------------------------------------------------------------- build


def kernel_metadata(kernel: Kernel, owner: str, state: str = "") -> dict[str, Any]:
    """kernel-metadata.json of one kernel; `state` is a data set with an earlier output of 03b, for 03b."""
    datasets = [source if "/" in source else f"{owner}/{source}" for source in kernel.datasets]
    if state and kernel.number == "03b":
        datasets.append(state if "/" in state else f"{owner}/{state}")
    return {
        "id": f"{owner}/{kernel.slug}",
        "title": kernel.title,
        "code_file": f"{kernel.notebook}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": kernel.gpu,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": T4_X2 if kernel.gpu else "",
        "dataset_sources": datasets,
        "competition_sources": [COMPETITION],
        "kernel_sources": [f"{owner}/{_BY_NUMBER[number].slug}" for number in kernel.after],
        "model_sources": [],
        "keywords": [],
        # the image of the first push: a run that goes on in 03b needs the TensorFlow that it began with
        "docker_image_pinning_type": "original",
    }


def build(owner: str, out: Path, state: str = "") -> list[Path]:
    """Write every kernel and the data set of `utils`; the same input gives the same bytes.

    Args:
        owner: the Kaggle user name that the kernels belong to.
        out: the folder to write to; kernels of an earlier build in it are replaced.
        state: data set made of an earlier output of 03b (`slug` or `owner/slug`), which 03b then goes on from.

    Returns:
        The folders, data set first.

    Raises:
        UsageError: `owner` or `state` cannot be a name on Kaggle.
        InputError: a folder is not of an earlier build, or keras-efficientnet-v2 is not installed.
    """
    _check_owner(owner)
    if state and not re.fullmatch(r"([\w-]+/)?[a-z0-9][a-z0-9-]{5,49}", state):
        raise UsageError(f"--state {state}: must be the slug of a data set, as in naflora-state.")
    folders = [_build_utils(owner, out / UTILS)]
    for kernel in KERNELS:
        folder = _emptied(out / kernel.slug, KERNEL_FILE)
        notebook = read_json(REPOSITORY / "notebooks" / f"{kernel.notebook}.ipynb")
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
        _set_parameters(notebook, kernel)
        _link_kernels(notebook, owner)
        _write_text(folder / f"{kernel.notebook}.ipynb", _notebook_text(notebook))
        write_json(folder / KERNEL_FILE, kernel_metadata(kernel, owner, state))
        folders.append(folder)
    return folders


def build_weights(owner: str, out: Path, weights: str, backbone: str) -> Path:
    """Download (once) the weights that profile `kaggle` starts from, and write them as a data set's folder.

    Raises:
        InputError: the download failed; see `utils.training.backbone.find_weights`.
    """
    from utils.training.backbone import find_weights

    _check_owner(owner)
    file = find_weights(weights, backbone)
    folder = _emptied(out / WEIGHTS, DATASET_FILE)
    with replacing(folder / file.name) as temporary:
        shutil.copyfile(file, temporary)
    write_json(folder / DATASET_FILE, _dataset_metadata(WEIGHTS, owner))
    return folder


def _check_owner(owner: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", owner):
        raise UsageError(f"--owner {owner}: must be a Kaggle user name, as in kaggle.com/NAME.")


def _dataset_metadata(slug: str, owner: str) -> dict[str, Any]:
    title, description = DATASETS[slug]
    # one licence must be named, and the files are under two: the description tells
    return {
        "title": title,
        "id": f"{owner}/{slug}",
        "description": description,
        "licenses": [{"name": "other"}],
    }


def _emptied(folder: Path, marker: str) -> Path:
    """`folder`, made or emptied; InputError when it has files and is not of an earlier build."""
    if folder.exists() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise InputError(f"{folder}: has files and no {marker}, so it is not of a build. Give another --out.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _notebook_text(notebook: dict[str, Any]) -> str:
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _build_utils(owner: str, folder: Path) -> Path:
    _emptied(folder, DATASET_FILE)
    package = REPOSITORY / "utils"
    results = (REPOSITORY / "notebooks" / "results").glob("*.csv")  # the table that notebook 06 shows
    for path in sorted([*package.rglob("*.py"), *package.glob("profiles/*.yaml"), *results]):
        copy = folder / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    _write_text(folder / "utils" / COMMIT.name, commit_of_package() + "\n")
    shutil.copyfile(REPOSITORY / "LICENSE", folder / "LICENSE")
    _write_wheel(LIBRARY, folder)
    write_json(folder / DATASET_FILE, _dataset_metadata(UTILS, owner))
    return folder


def _write_wheel(name: str, folder: Path) -> Path:
    """Put an installed package that is Python only back into a wheel, with the same bytes on every machine."""
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise InputError(
            f"{name} is not installed, and its wheel goes to Kaggle. Run ./course setup."
        ) from None
    if "Root-Is-Purelib: true" not in (package.read_text("WHEEL") or ""):
        raise InputError(f"{name} {package.version} is not Python only: its wheel would not run on Kaggle.")
    left_by_pip = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
    members = {
        file.as_posix(): file.locate().read_bytes()
        for file in package.files or []
        if file.suffix != ".pyc" and file.name not in left_by_pip
    }
    record = next(file for file in package.files or [] if file.name == "RECORD").as_posix()
    lines = [f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in sorted(members.items())]
    members[record] = "".join([*lines, f"{record},,\n"]).encode()
    wheel = folder / f"{name.replace('-', '_')}-{package.version}-py3-none-any.whl"
    with replacing(wheel) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path, data in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(path), data)  # stored, of 1980: nothing of this machine gets in
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _set_parameters(notebook: dict[str, Any], kernel: Kernel) -> None:
    """Give the parameters cell the kernel's defaults, one line each, its comment kept.

    Nobody watches a pushed kernel run: BATCH_RUN, so that no progress bars fill the saved notebook.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    for name, value in {"BATCH_RUN": True, **kernel.parameters}.items():
        lines = [line for cell in cells for line in cell["source"] if line.startswith(f"{name} = ")]
        if len(lines) != 1:
            raise InputError(
                f"{kernel.notebook}.ipynb: {len(lines)} parameters {name}, kernel {kernel.number} sets it."
            )
        for cell in cells:
            cell["source"] = [
                re.sub(r"= [^#]*?(?=\s*(#|$))", f"= {value!r}", line, count=1) if line in lines else line
                for line in cell["source"]
            ]


def _link_kernels(notebook: dict[str, Any], owner: str) -> None:
    """Let links from notebook to notebook lead to the owner's kernels."""
    first = {kernel.notebook: kernel.slug for kernel in reversed(KERNELS)}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for name, slug in first.items():
                link = f"](https://www.kaggle.com/code/{owner}/{slug})"
                cell["source"] = [line.replace(f"]({name}.ipynb)", link) for line in cell["source"]]


# ---------------------------------------------------------------- check

_MAX_NOTEBOOK = 1_000_000  # bytes; what Kaggle's editor takes is not published, this is well below any report
_MAX_UTILS = 20_000_000
_SHAPES = ("", T4_X2)
_OWNED = r"[A-Za-z0-9][\w-]*/[a-z0-9][a-z0-9-]*"  # owner/slug


def check(folder: Path) -> list[str]:
    """What Kaggle would refuse or misread in a built folder, one line a problem; nothing is sent.

    Raises:
        InputError: the folder is not there or holds no kernel.
    """
    kernels = sorted(path.parent for path in folder.glob(f"*/{KERNEL_FILE}"))
    datasets = sorted(path.parent for path in folder.glob(f"*/{DATASET_FILE}"))
    if not kernels:
        raise InputError(
            f"{folder}: no folder with {KERNEL_FILE}. Run: python -m utils kaggle build --owner NAME"
        )
    problems = [f"{kernel.name}: {text}" for kernel in kernels for text in _kernel_problems(kernel)]
    problems += [f"{dataset.name}: {text}" for dataset in datasets for text in _dataset_problems(dataset)]
    first_cells = {_first_code_cell(path) for kernel in kernels for path in kernel.glob("*.ipynb")}
    if len(first_cells) > 1:
        problems.append("the first code cell differs between notebooks: they are not of one build")
    if not (folder / UTILS / DATASET_FILE).is_file():
        problems.append(f"no folder {UTILS} with {DATASET_FILE}: every kernel needs that data set")
    return problems


def _metadata_of(path: Path) -> dict[str, Any] | str:
    try:
        values = read_json(path)
    except InputError as error:
        return str(error)
    return values if isinstance(values, dict) else f"{path.name} is not a JSON object"


def _kernel_problems(folder: Path) -> Iterator[str]:
    values = _metadata_of(folder / KERNEL_FILE)
    if isinstance(values, str):
        yield values
        return
    yield from _name_problems(values, shortest=5)
    if values.get("language") != "python" or values.get("kernel_type") != "notebook":
        yield "language must be python and kernel_type notebook"
    for key in ("is_private", "enable_gpu", "enable_tpu", "enable_internet"):
        if not isinstance(values.get(key), bool):
            yield f"{key} is {values.get(key)!r}, must be true or false: the tool has a default of its own"
    if values.get("enable_internet") is True:
        yield "enable_internet is true: these kernels need none"
    shape = values.get("machine_shape")
    if shape not in _SHAPES:
        yield f"machine_shape is {shape!r}, must be {' or '.join(map(repr, _SHAPES))}"
    elif values.get("enable_gpu") is not bool(shape):
        yield f"enable_gpu is {values.get('enable_gpu')} and machine_shape {shape!r}"
    if values.get("docker_image_pinning_type") not in ("original", "latest"):
        yield "docker_image_pinning_type must be original or latest"
    if values.get("docker_image"):
        yield f"docker_image is {values['docker_image']!r}: it overrides the machine; remove it"
    forms = {
        "dataset_sources": (rf"{_OWNED}(/\d+)?", "owner/slug"),
        "kernel_sources": (_OWNED, "owner/slug"),
        "competition_sources": (r"[a-z0-9][a-z0-9-]*", "a slug without owner"),
        "model_sources": (r".+/.+/.+/.+/\d+", "owner/model/framework/variation/version"),
    }
    for key, (form, words) in forms.items():
        sources = values.get(key)
        if not isinstance(sources, list):
            yield f"{key} is {sources!r}, must be a list"
            continue
        for source in sources:
            if not isinstance(source, str) or not re.fullmatch(form, source):
                yield f"{key} has {source!r}, must be {words}"
        if len(set(map(str, sources))) < len(sources):
            yield f"{key} names a source twice"
    if values.get("id") in (values.get("kernel_sources") or []):
        yield "kernel_sources names the kernel itself"
    yield from _code_problems(folder, values.get("code_file"))


def _name_problems(values: dict[str, Any], shortest: int) -> Iterator[str]:
    name, title = str(values.get("id", "")), str(values.get("title", ""))
    if not re.fullmatch(_OWNED, name):
        yield f"id is {name!r}, must be owner/slug"
    slug = name.rpartition("/")[2]
    for key, text in (("slug", slug), ("title", title)):
        if not shortest <= len(text) <= 50:
            yield f"{key} {text!r} has {len(text)} characters, must have {shortest} to 50"
    if slugify(title) != slug:
        yield f"title {title!r} gives the slug {slugify(title)!r}, the id has {slug!r}"


def _code_problems(folder: Path, code_file: Any) -> Iterator[str]:
    path = folder / str(code_file)
    if not code_file or not path.is_file():
        yield f"code_file {code_file!r} is not there"
        return
    if path.suffix != ".ipynb":
        yield f"code_file {code_file!r} is not a notebook"
        return
    visible = (entry.name for entry in folder.iterdir() if not is_hidden(entry.name))
    others = sorted(name for name in visible if name not in (KERNEL_FILE, code_file))
    if others:
        yield f"{', '.join(others)}: only the notebook is uploaded; what it needs goes into a data set"
    if path.stat().st_size > _MAX_NOTEBOOK:
        yield f"{code_file} has {path.stat().st_size:,} bytes, at most {_MAX_NOTEBOOK:,}"
    try:
        yield from (f"{code_file}: {finding.text}" for finding in check_notebook(path))
    except InputError as error:
        yield str(error)


def _first_code_cell(path: Path) -> str:
    try:
        cells = read_json(path)["cells"]
        return next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    except (InputError, KeyError, TypeError, StopIteration):
        return ""  # no notebook: said by its own line


def _dataset_problems(folder: Path) -> Iterator[str]:
    values = _metadata_of(folder / DATASET_FILE)
    if isinstance(values, str):
        yield values
        return
    yield from _name_problems(values, shortest=6)
    licenses = values.get("licenses")
    if not isinstance(licenses, list) or len(licenses) != 1 or not licenses[0].get("name"):
        yield f"licenses is {licenses!r}, must name exactly one"
    if folder.name == WEIGHTS:
        if not list(folder.glob("*.h5")):
            yield "no .h5 file of weights"
        return
    if folder.name != UTILS:
        return
    for needed in (
        "utils/__init__.py",
        "utils/startup.py",
        "utils/profiles/kaggle.yaml",
        f"utils/{COMMIT.name}",
    ):
        if not (folder / needed).is_file():
            yield f"{needed} is missing"
    wheels = list(folder.glob(f"{LIBRARY.replace('-', '_')}-*-py3-none-any.whl"))
    if len(wheels) != 1 or not zipfile.is_zipfile(wheels[0]):
        yield f"must hold one whole wheel of {LIBRARY}, has {', '.join(path.name for path in wheels) or 'none'}"
    files = [path for path in folder.rglob("*") if path.is_file()]
    if any(path.suffix == ".pyc" for path in files):
        yield "has compiled files (__pycache__): build again"
    size = sum(path.stat().st_size for path in files)
    if size > _MAX_UTILS:
        yield f"has {size:,} bytes, at most {_MAX_UTILS:,}"


# ---------------------------------------------------------------- push

_TOOL_FAILED = re.compile(r"\bnot valid\b|\berror\b|does not resolve|Skipping", re.IGNORECASE)
_TOOL_DONE = re.compile(r"successfully pushed|is being created")
_STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
# What the tool says when Kaggle has answered by a number, in two wordings: requests' own, and a hint of the tool.
_REFUSED = {
    "401": r"\b401\b|Authentication required|Unauthenticated",
    "403": r"\b403\b|You don't have access|Permission '[\w.]+' was denied",
    "404": r"\b404\b|resource was not found",
    "429": r"\b429\b|rate limited",
    "5xx": r"\b5\d\d Server Error|problem on Kaggle's side",
}
_NO_WAY = {  # and when nobody has answered; the first that fits
    r"\b407\b|Proxy Authentication": "the proxy wants a name and a password: https_proxy=http://NAME:PASSWORD@HOST:PORT",
    r"ProxyError|connect to proxy|Tunnel connection": "the proxy does not answer or refuses: check https_proxy",
    r"NameResolution|Failed to resolve|name resolution|getaddrinfo|Name or service": "no network or no DNS here: "
    "the name of Kaggle's server cannot be resolved",
    r"\b[Tt]imed out|Timeout": "Kaggle's server did not answer in time: check the network and try again",
    r"SSLError|CERTIFICATE_VERIFY": "the server's certificate is not trusted: is there a proxy that opens TLS, or is "
    "the clock wrong?",
    r"ConnectionError|NewConnection|Connection (refused|aborted|reset)|unreachable|Max retries|Remote end": "no "
    "connection to Kaggle's server: check the network and try again",
}
_PATIENCE = 5  # times in a row that asking for a status may fail before a push gives up


@dataclass(frozen=True)
class Push:
    """A built folder on its way to Kaggle."""

    folder: Path
    tool: Sequence[str] = ("kaggle",)  # the command of the official tool
    pause: float = 60.0  # seconds between two questions for a status
    answer_within: float = 120.0  # seconds that one such question may take

    def commands(self, only: str | None = None) -> list[str]:
        """The exact command lines of a push, in order, with a comment where something is waited for."""
        lines = []
        for item in self._items(only):
            if (item / DATASET_FILE).is_file():
                slug = read_json(item / DATASET_FILE)["id"]
                lines += [
                    f"{shlex.join(self._create(item))}  # the first time",
                    f"{shlex.join(self._version(item))}  # later, when it has changed",
                    f'{shlex.join(self._ask("datasets", slug))}  # until it says "ready"',
                ]
                continue
            for source in read_json(item / KERNEL_FILE)["kernel_sources"]:
                lines.append(f'{shlex.join(self._ask("kernels", source))}  # until it says "complete"')
            lines.append(shlex.join(self._push(item)))
        return lines

    def run(self, only: str | None = None) -> None:
        """Push data sets, then kernels in order; before one that takes an output, wait until that is complete.

        What was pushed is noted in pushed.json in the folder: a second call leaves out what has not changed
        since, and goes on. `only` pushes one kernel, by its number, changed or not.

        Raises:
            UsageError: no kernel has the number `only`.
            InputError: the folder does not pass `check`, the tool is not installed, it has failed or has
                printed an error, a data set of weights is nowhere, or a kernel that is waited for has failed.
        """
        items = self._items(only)
        if problems := check(self.folder):
            raise InputError("\n".join([f"{self.folder} does not pass `kaggle check`:", *problems]))
        if shutil.which(self.tool[0]) is None:
            raise InputError("The official `kaggle` tool is not here. Install it: pip install kaggle==2.2.5")
        self._check_own_datasets(items)
        pushed = read_json(self.folder / PUSHED_FILE) if (self.folder / PUSHED_FILE).is_file() else {}
        try:
            for item in items:
                if only is None and pushed.get(item.name) == _fingerprint(item):
                    print(f"{item.name}: pushed before, unchanged", flush=True)
                    continue
                self._push_one(item)
                pushed[item.name] = _fingerprint(item)
                write_json(self.folder / PUSHED_FILE, pushed)
        except KeyboardInterrupt:
            print(
                f"Interrupted. {PUSHED_FILE} knows what was pushed; the same command again goes on.",
                flush=True,
            )
            raise

    def _items(self, only: str | None) -> list[Path]:
        if only is None:
            slugs = [UTILS, WEIGHTS, *(kernel.slug for kernel in KERNELS)]
            return [self.folder / slug for slug in slugs if (self.folder / slug).is_dir()]
        if only not in _BY_NUMBER:
            raise UsageError(f"--only {only}: no such kernel. Known: {', '.join(_BY_NUMBER)}.")
        return [self.folder / _BY_NUMBER[only].slug]

    def _push_one(self, item: Path) -> None:
        if (item / DATASET_FILE).is_file():
            slug = read_json(item / DATASET_FILE)["id"]
            known = self._is_on_kaggle(slug)
            if not known:
                self._check_token_is_of(slug.split("/")[0])
            self._must(self._version(item) if known else self._create(item))
            self._wait("datasets", slug)
            if known and item.name == UTILS:
                print(
                    "Kernels that were pushed before keep the earlier version of this data set until they are "
                    "pushed again (--only NUMBER)."
                )
            return
        for source in read_json(item / KERNEL_FILE)["kernel_sources"]:
            self._wait("kernels", source)
        self._must(self._push(item))

    def _check_own_datasets(self, items: list[Path]) -> None:
        """Ask before hours of work whether the owner's data sets are there that are not in the folder."""
        wanted: dict[str, None] = {}
        for path in (item / KERNEL_FILE for item in items if (item / KERNEL_FILE).is_file()):
            values = read_json(path)
            owner = values["id"].split("/")[0]
            wanted |= dict.fromkeys(
                name for name in values["dataset_sources"] if name.startswith(f"{owner}/")
            )
        here = {item.name for item in items}
        for name in wanted:
            if name.split("/")[1] in here:
                continue
            if not self._is_on_kaggle(name):
                way = "python -m utils kaggle weights" if name.endswith(WEIGHTS) else "a push without --only"
                raise InputError(f"The data set {name} is not on Kaggle; {way} makes it.")

    def _is_on_kaggle(self, name: str) -> bool:
        """Whether the owner has a data set, by Kaggle's own answer.

        Raises:
            InputError: there is no answer to that: no token, no way to Kaggle, no permission, a fault there.
        """
        asked = self._call(self._ask("datasets", name), quiet=True)
        if not asked.returncode:
            return True
        kind = _refusal(asked.stdout)
        if kind == "404":
            return False
        if kind == "403":  # Kaggle says so too of a data set that is not there: the owner's list tells
            command = [*self.tool, "datasets", "list", "--mine", "--csv", "-s", name.split("/")[1]]
            listed = self._call(command, quiet=True)
            if not listed.returncode and re.search(r"^ref,|No datasets found", listed.stdout, re.MULTILINE):
                return re.search(rf"^{re.escape(name)},", listed.stdout, re.MULTILINE) is not None
        raise InputError(
            f"Kaggle does not say whether there is a data set {name}: {_reason(asked.stdout)}. Nothing was sent."
        )

    def _check_token_is_of(self, owner: str) -> None:
        """Raise InputError when the tool's token is another user's: what it makes would not be the owner's."""
        told = self._call([*self.tool, "config", "view"], quiet=True)
        user = re.search(r"^- username: (\S+)", told.stdout, re.MULTILINE)
        if user and user[1] not in ("None", owner):
            raise InputError(
                f"The Kaggle token here is of user {user[1]}, and {self.folder} was built for {owner}. Build it "
                f"with --owner {user[1]}, or use the token of {owner}."
            )

    def _create(self, item: Path) -> list[str]:
        return [*self.tool, "datasets", "create", "-p", str(item), "--dir-mode", "zip"]

    def _version(self, item: Path) -> list[str]:
        message = f"{__version__} {commit_of_package()}".strip()
        return [*self.tool, "datasets", "version", "-p", str(item), "-m", message, "--dir-mode", "zip"]

    def _push(self, item: Path) -> list[str]:
        return [*self.tool, "kernels", "push", "-p", str(item)]

    def _ask(self, kind: str, name: str) -> list[str]:
        return [*self.tool, kind, "status", name]

    def _call(self, command: list[str], *, quiet: bool = False) -> subprocess.CompletedProcess:
        """Run the tool, both of its outputs as one text, shown as it comes unless `quiet`."""
        if quiet:
            pipe = subprocess.PIPE
            try:
                return subprocess.run(
                    command, stdout=pipe, stderr=subprocess.STDOUT, text=True, timeout=self.answer_within
                )
            except subprocess.TimeoutExpired:
                return subprocess.CompletedProcess(command, 1, f"timed out after {self.answer_within:g} s")
        print(f"$ {shlex.join(command)}", flush=True)
        text = io.StringIO()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                print(f"  {line}", end="", flush=True)
                text.write(line)
        return subprocess.CompletedProcess(command, process.returncode, text.getvalue())

    def _must(self, command: list[str]) -> None:
        """Run the tool; its exit code is 0 also after errors that it only prints, so its words are read."""
        done = self._call(command)
        lines = done.stdout.splitlines()
        failed = [line for line in lines if _TOOL_FAILED.search(line)]
        if done.returncode or failed or not _TOOL_DONE.search(done.stdout):
            said = _reason(done.stdout) if done.returncode or not failed else " ".join(failed)
            raise InputError(
                f"{shlex.join(command)}\nhas failed: {said}\nMend it and push again; what is done stays."
            )

    def _wait(self, kind: str, name: str) -> None:
        """Ask for the status of a kernel or data set until it is complete, with the time so far."""
        good = {"kernels": "complete", "datasets": "ready"}[kind]
        bad = ("error", "cancel_requested", "cancel_acknowledged", "failed", "deleted")
        failures = 0
        with tqdm(bar_format="{desc} ({elapsed})", leave=False) as bar:
            while True:
                asked = self._call(self._ask(kind, name), quiet=True)
                found = _STATUS.search(asked.stdout)
                status = (found.group(1) if found else _last_line(asked.stdout)).lower()
                failures = failures + 1 if asked.returncode else 0
                if asked.returncode:
                    status = _reason(asked.stdout)
                if failures >= _PATIENCE or (failures and _refusal(asked.stdout) == "401"):
                    raise InputError(f"{name}: asking for its status failed {failures} times: {status}.")
                if not asked.returncode and status == good:
                    break
                if not asked.returncode and status in bad:
                    way = "push it again with --only" if kind == "kernels" else "push again"
                    raise InputError(
                        f"{name} has status {status}: {' '.join(asked.stdout.split())}\nMend it and {way}."
                    )
                bar.set_description_str(f"waiting for {name}: {status}")
                time.sleep(self.pause)
        print(f"{name}: {good}", flush=True)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def _refusal(said: str) -> str | None:
    """Kaggle's answer in the tool's words, as a key of _REFUSED; None where it has not answered so."""
    if any(re.search(pattern, said) for pattern in _NO_WAY):
        return None
    return next((kind for kind, pattern in _REFUSED.items() if re.search(pattern, said)), None)


def _reason(said: str) -> str:
    """Why the tool has failed, by its words, and the way out: one line without a full stop."""
    for pattern, meaning in _NO_WAY.items():
        if re.search(pattern, said):
            return meaning
    kind = _refusal(said)
    if kind == "403":
        first = next((line.strip() for line in said.splitlines() if re.search(_REFUSED["403"], line)), "")
        return (
            f"it refuses access (403: {first[:200]}): the token must be the owner's and be allowed to do this"
        )
    if kind == "404":
        return f"it is not there (404: {_last_line(said)})"
    if kind == "429":
        return "Kaggle takes no more questions for now (429, rate limit): try again in some minutes"
    if kind == "5xx":
        return f"a fault of Kaggle's own ({next(line for line in said.splitlines() if line.strip())}): try again later"
    return _token_problem(refused=kind == "401") or _last_line(said)


def _token_problem(*, refused: bool) -> str:
    """What is wrong with the tokens that the tool looks for, in its order; empty where nothing is.

    Args:
        refused: the tool has asked for a token, so that one which is there was not accepted.
    """
    home = Path.home() / ".kaggle"
    config = home if home.is_dir() else Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "kaggle"
    file = Path(os.environ.get("KAGGLE_CONFIG_DIR") or config).expanduser() / "kaggle.json"
    way = "On kaggle.com: Settings > API > Create New Token"
    in_file: Any = {}
    if file.exists():
        try:
            in_file = json.loads(file.read_text(encoding="utf-8"))
        except PermissionError:
            return f"{file} must not be read by this user: chmod 600 {file}, as its owner"
        except (OSError, ValueError) as error:
            return f"{file} is not valid JSON ({error}), so it gives no token. {way}, and put the file there again"
        if not isinstance(in_file, dict) or not {"username", "key"} <= in_file.keys():
            return (
                f"{file} has no username and key, so it gives no token. {way}, and put the file there again"
            )
    variables = [name for name in ("KAGGLE_USERNAME", "KAGGLE_KEY") if os.environ.get(name)]
    if len(variables) == 1 and not in_file:
        other = {"KAGGLE_USERNAME": "KAGGLE_KEY", "KAGGLE_KEY": "KAGGLE_USERNAME"}[variables[0]]
        return f"{variables[0]} is set and {other} is not: set both, or neither"
    if not refused:
        return ""
    tokens = [home / name for name in ("access_token", "access_token.txt", "credentials.json")]
    places = ["KAGGLE_API_TOKEN"] * bool(os.environ.get("KAGGLE_API_TOKEN"))
    places += [str(path) for path in tokens if path.exists()]
    places += ["KAGGLE_USERNAME and KAGGLE_KEY"] * (len(variables) == 2) + [str(file)] * bool(in_file)
    if places:
        return f"it does not accept the token ({', '.join(places)}): expired or mistyped. {way}"
    return f"there is no Kaggle token on this machine. {way}, and put the file at {file} (chmod 600)"


def _fingerprint(folder: Path) -> str:
    """SHA-256 over names and bytes of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def official_tool() -> Sequence[str]:
    """The command of the `kaggle` tool: of this Python's environment, else the one on PATH."""
    beside = Path(sys.executable).with_name("kaggle")
    return (str(beside),) if beside.is_file() else ("kaggle",)
