"""The Kaggle kernel suite: builds kernels and data sets from one table, kernels.yaml, which lists every kernel.

A built folder holds one folder for each kernel (a notebook and kernel-metadata.json) and one for each data set
of the owner (dataset-metadata.json and the files), named by their slugs. The official `kaggle` tool pushes such
folders. Conventions are those of its version 2.2 and of Kaggle's documentation of kernel-metadata.json and
dataset-metadata.json.
"""

import base64
import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from utils.config import nearest
from utils.course.notebooks import write_notebook
from utils.files import (
    REPOSITORY,
    InputError,
    UsageError,
    building,
    read_json,
    replacing,
    write_json,
    write_text,
)
from utils.sources import COMPETITION, TEST_SHARDS, TRAIN_SHARDS
from utils.startup import COMMIT, commit_of_package

T4_X2 = "NvidiaTeslaT4"  # Kaggle's name of the machine with two T4
UTILS, WEIGHTS = "naflora-course-utils", "naflora-weights"  # the owner's data sets
LIBRARY = "keras-efficientnet-v2"  # not in Kaggle's image: its wheel goes with the package
KERNEL_FILE, DATASET_FILE = "kernel-metadata.json", "dataset-metadata.json"
SHIPPED = (
    "*.py",
    "*.yaml",
    "*.j2",
    "*.js",
    "*.css",
    "keras/keras.json",
)  # what of the package the kernels need
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


TABLE = Path(__file__).with_name("kernels.yaml")
# What it calls a kernel's data. A slug without a slash is the owner's own.
DATA = {"train": TRAIN_SHARDS, "test": TEST_SHARDS, "utils": UTILS, "weights": WEIGHTS}


@dataclass(frozen=True)
class Kernel:
    """One kernel, as in kernels.yaml: everything in its metadata follows from this."""

    number: str
    notebook: str  # in notebooks/, without .ipynb
    title: str  # its slug is made from it
    data: tuple[str, ...]  # keys of DATA
    after: tuple[str, ...] = ()  # numbers of the kernels whose output it takes, which stand before it
    gpu: bool = False  # T4 x2
    parameters: dict[str, Any] = field(default_factory=dict)  # other defaults than the notebook's

    @property
    def slug(self) -> str:
        """Its name in the addresses of Kaggle."""
        return slugify(self.title)


def read_kernels(path: Path = TABLE) -> tuple[Kernel, ...]:
    """The kernels of the table, in the order in which they are pushed.

    Raises:
        InputError: a kernel has a key, data or `after` that is not known, lacks a key, or has the number of another.
    """
    kernels: dict[str, Kernel] = {}
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        where = f"{path}: kernel {entry.get('number')}"
        try:
            kernel = Kernel(
                **{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
            )
        except TypeError as error:  # it names the key
            raise InputError(
                f"{where}: {str(error).partition(' ')[2]}. See `Kernel` in kernels.py."
            ) from None
        if not isinstance(kernel.number, str) or kernel.number in kernels:
            raise InputError(f"{where}: must have a number of its own, in quotes.")
        for key, given, known in (("data", kernel.data, DATA), ("after", kernel.after, kernels)):
            for name in given:
                if name not in known:
                    raise InputError(f"{where}: {key} has {name!r}.{nearest(str(name), known)}")
        kernels[kernel.number] = kernel
    return tuple(kernels.values())


KERNELS = read_kernels()
BY_NUMBER = {kernel.number: kernel for kernel in KERNELS}


def slugify(title: str) -> str:
    """A title as Kaggle makes a slug of it: small letters and digits, one hyphen between words."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def kernel_metadata(kernel: Kernel, owner: str, state: str = "") -> dict[str, Any]:
    """kernel-metadata.json of one kernel; `state` is a data set with an earlier output of 03b, for 03b."""
    sources = [DATA[name] for name in kernel.data]
    datasets = [source if "/" in source else f"{owner}/{source}" for source in sources]
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
        "kernel_sources": [f"{owner}/{BY_NUMBER[number].slug}" for number in kernel.after],
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
        notebook = read_json(REPOSITORY / "notebooks" / f"{kernel.notebook}.ipynb")
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
            if cell["metadata"].get("jupyter", {}).get("source_hidden"):
                cell["metadata"]["_kg_hide-input"] = True  # Kaggle folds by a key of its own
        _set_parameters(notebook, kernel)
        _link_kernels(notebook, owner)
        with _anew(out / kernel.slug, KERNEL_FILE) as folder:
            write_notebook(folder / f"{kernel.notebook}.ipynb", notebook)
            write_json(folder / KERNEL_FILE, kernel_metadata(kernel, owner, state))
        folders.append(out / kernel.slug)
    return folders


def build_weights(owner: str, out: Path, weights: str, backbone: str) -> Path:
    """Download (once) the weights that profile `kaggle` starts from, and write them as a data set's folder.

    Raises:
        InputError: the download failed; see `utils.training.weights.find_weights`.
    """
    from utils.training.weights import find_weights

    _check_owner(owner)
    file = find_weights(weights, backbone)
    with _anew(out / WEIGHTS, DATASET_FILE) as folder:
        shutil.copyfile(file, folder / file.name)
        write_json(folder / DATASET_FILE, dataset_metadata(WEIGHTS, owner))
    return out / WEIGHTS


def _check_owner(owner: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", owner):
        raise UsageError(f"--owner {owner}: must be a Kaggle user name, as in kaggle.com/NAME.")


def dataset_metadata(slug: str, owner: str) -> dict[str, Any]:
    """dataset-metadata.json of one of DATASETS."""
    title, description = DATASETS[slug]
    # one licence must be named, and the files are under two: the description tells
    return {
        "title": title,
        "id": f"{owner}/{slug}",
        "description": description,
        "licenses": [{"name": "other"}],
    }


@contextmanager
def _anew(folder: Path, marker: str) -> Iterator[Path]:
    """A new folder that takes the place of `folder`; InputError when that has files and is not of an earlier build."""
    if folder.exists() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise InputError(f"{folder}: has files and no {marker}, so it is not of a build. Give another --out.")
    with building(folder, replace=True) as temporary:
        yield temporary


def _build_utils(owner: str, place: Path) -> Path:
    package = REPOSITORY / "utils"
    results = (REPOSITORY / "notebooks" / "results").glob("*.csv")  # the tables that notebooks show
    own = [path for form in SHIPPED for path in package.rglob(form)]
    with _anew(place, DATASET_FILE) as folder:
        for path in sorted([*own, *results]):
            copy = folder / path.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        write_text(folder / "utils" / COMMIT.name, commit_of_package() + "\n")
        shutil.copyfile(REPOSITORY / "LICENSE", folder / "LICENSE")
        _write_wheel(LIBRARY, folder)
        write_json(folder / DATASET_FILE, dataset_metadata(UTILS, owner))
    return place


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
    """Let links from notebook to notebook lead to the owner's kernels; what is in the clone only is named there."""
    first = {kernel.notebook: kernel.slug for kernel in reversed(KERNELS)}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for name, slug in first.items():
                link = f"](https://www.kaggle.com/code/{owner}/{slug})"
                cell["source"] = [line.replace(f"]({name}.ipynb)", link) for line in cell["source"]]
            elsewhere = r"\[([^]]*)\]\(((?!https?:)[^)]+)\)"
            cell["source"] = [
                re.sub(elsewhere, r"\1 (notebooks/\2 of a clone)", line) for line in cell["source"]
            ]
