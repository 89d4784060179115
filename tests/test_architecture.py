"""The house: a reading wing that a person reads in one sitting, workshops beside it, and imports that go one way."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.files import REPOSITORY

# The reading wing in the order to read it: what carries a sheet from a shard to a submission.
WING = (
    *("utils", "utils.config", "utils.files", "utils.startup"),
    *(f"utils.data.{name}" for name in ("metadata", "labels", "tail", "splits")),
    *(f"utils.data.{name}" for name in ("delimited", "records", "shards", "jpeg")),
    *(f"utils.data.{name}" for name in ("damage", "pixels", "augment", "batches")),
    "utils.sources",
    *(f"utils.training.{name}" for name in ("network", "weights", "lite", "losses", "optimizer")),
    *(
        f"utils.training.{name}"
        for name in ("trainer", "features", "devices", "task", "state", "runs", "loop")
    ),
    *(f"utils.evaluation.{name}" for name in ("scores", "predict", "submission")),
)
WORKSHOPS = ("data.forms", "flora", "own", "figures", "experiments", "course", "setup", "cli")
# Where the wing opens a workshop, inside a function: metadata come in many forms, and the sample flora is drawn.
DOORS = {("utils.data.metadata", "utils.data.forms"), ("utils.sources", "utils.flora")}
MOST_FILES, MOST_LINES, MOST_LINES_OF_A_WORKSHOP = 32, 299, 450
PACKAGES = ("utils", "benchmarks")


def module_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files() -> dict[str, Path]:
    """Every module with its file; an `__init__` that holds nothing but imports is none."""
    found = {}
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if path.name != "__init__.py" or not only_imports(ast.parse(path.read_text(encoding="utf-8"))):
                found[module_of(path)] = path
    return found


def only_imports(tree: ast.Module) -> bool:
    exports = (ast.Import, ast.ImportFrom)
    return all(
        isinstance(node, exports)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        for node in tree.body
    )


def imports(path: Path, *, lazy: bool) -> Iterator[str]:
    """What a file imports of the repository, by module; `lazy`: inside functions too. Not what is for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    in_functions = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types or (node in in_functions and not lazy):
            continue
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield nearest_module(name)


def nearest_module(name: str) -> str:
    """The module that a dotted name is, or is in."""
    while True:
        path = REPOSITORY / name.replace(".", "/")
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return name
        name = name.rpartition(".")[0]


def workshop_of(module: str) -> str | None:
    return next(
        (shop for shop in WORKSHOPS if module == f"utils.{shop}" or module.startswith(f"utils.{shop}.")), None
    )


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def told(path: Path, most: int) -> str:
    return f"{path.relative_to(REPOSITORY)}: {lines(path)} lines, at most {most}"


def test_every_file_of_the_package_is_in_the_wing_or_in_a_workshop():
    for module, path in files().items():
        if module.startswith("utils") and module != "utils.__main__":
            assert (module in WING) != (workshop_of(module) is not None), (
                f"{path}: in no room. Move it into one of the workshops {', '.join(WORKSHOPS)}, or, if a sheet needs "
                "it on its way from a shard to a submission, name it in WING here and in README, Architecture."
            )
    for module in WING:
        assert module in files(), (
            f"{module}: is named in WING and not there. Take it out here and in the README."
        )


def test_the_wing_can_be_read_in_one_sitting():
    assert len(WING) <= MOST_FILES, f"{len(WING)} files in the wing: put two that are read together into one."
    long = [
        told(path, MOST_LINES)
        for module, path in files().items()
        if module in WING and lines(path) > MOST_LINES
    ]
    assert not long, "\n".join(["Move out what no sheet needs on its way:", *long])


def test_a_workshop_has_no_file_that_nobody_reads_to_its_end():
    others = [path for module, path in files().items() if module not in WING]
    long = [told(path, MOST_LINES_OF_A_WORKSHOP) for path in others if lines(path) > MOST_LINES_OF_A_WORKSHOP]
    assert not long, "\n".join(["Divide it where its chapters are:", *long])


@pytest.mark.parametrize("module", WING)
def test_the_wing_opens_no_workshop_but_through_the_two_doors(module):
    path = files()[module]
    at_once = {*imports(path, lazy=False)}
    for other in imports(path, lazy=True):
        shop = workshop_of(other)
        if shop is None:
            continue
        assert (module, f"utils.{shop}") in DOORS, (
            f"{path}: imports {other}, and the wing must not need a workshop. Move what it needs into the wing."
        )
        assert other not in at_once, (
            f"{path}: imports {other} at its head. Import it in the function that needs it."
        )


def test_imports_go_one_way():
    """No circle: what a module imports, also inside functions, must not import it, but through the two doors."""
    known = files()
    edges = {module: {*imports(path, lazy=True)} & known.keys() for module, path in known.items()}
    for module, others in edges.items():
        for door, shop in DOORS:
            if module == door:
                others -= {other for other in others if f"utils.{workshop_of(other)}" == shop}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle of imports: {' -> '.join([*way[way.index(module) :], module])}"
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_the_readme_shows_every_file_of_the_wing_and_every_workshop():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    architecture = text.partition("## Architecture")[2].partition("\n## ")[0]
    assert architecture, "README.md has no section Architecture"
    rows = [re.split(r" {2,}", line.strip(" ├└"))[0] for line in architecture.split("```")[1].splitlines()]
    shown = [name for row in rows if "→" in row or row == "sources" for name in row.split(" → ")]
    wing = [module.rpartition(".")[2] if module != "utils" else "__init__" for module in WING]
    assert shown == wing, (
        "README.md, Architecture: the diagram and WING must name the same files, in the same order"
    )
    for shop in WORKSHOPS:
        assert f"`{shop.replace('.', '/')}/`" in architecture, f"README.md, Architecture: no line for {shop}/"


TEXTS = (
    "*.md",
    "*.txt",
    "course",
    "notebooks/**/*.md",
    "notebooks/*.ipynb",
    "utils/**/*.py",
    "utils/**/*.yaml",
    "benchmarks/*",
)
MADE = {"utils/COMMIT"}  # by `kaggle build`
PATH = re.compile(r"(?<![\w/.-])(?:utils|tests|notebooks|benchmarks)(?:/[\w-]+)*/[\w-]+(?:\.[a-z0-9]+)*")
DOTTED = re.compile(r"(?<![\w./])utils(?:\.[a-z]\w*)+")


def test_files_and_modules_that_texts_name_are_there():
    named = {
        (name, path)
        for pattern in TEXTS
        for path in REPOSITORY.glob(pattern)
        if path.is_file() and path.suffix != ".pyc"
        for form in (PATH, DOTTED)
        for name in form.findall(path.read_text(encoding="utf-8"))
    }
    gone = [f"{path.relative_to(REPOSITORY)}: {name}" for name, path in named if not is_there(name)]
    assert not gone, "\n".join(["Name what is there now:", *sorted(gone)])


def is_there(name: str) -> bool:
    if "/" in name:
        return name in MADE or (REPOSITORY / name).exists()
    module = nearest_module(name)
    of_module = name.removeprefix(module).split(".")[1:2]
    path = files().get(module, REPOSITORY / module.replace(".", "/") / "__init__.py")
    return not of_module or re.search(rf"\b{of_module[0]}\b", path.read_text(encoding="utf-8")) is not None
