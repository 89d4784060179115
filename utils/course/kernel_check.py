"""What Kaggle would refuse in built kernels, found offline."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.course.check import check_notebook
from utils.course.kernels import DATASET_FILE, KERNEL_FILE, LIBRARY, T4_X2, UTILS, WEIGHTS, slugify
from utils.files import InputError, is_hidden, read_json
from utils.startup import COMMIT

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
        raise InputError(f"{folder}: no folder with {KERNEL_FILE}. Run: ./course kaggle build --owner NAME")
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
        if values.get("id") in sources:
            yield f"{key} names the kernel itself"
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
    if not code_file or path.parent != folder or not path.is_file():  # also one that climbs out of the folder
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
