"""What a beginner reads: figures read out, promises kept, terms explained before use, commands and links that work."""

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import nbformat
import pytest

from utils import figures
from utils.__main__ import main
from utils.config import Profile, load_profile
from utils.course.notebooks import COURSE, read_parameters
from utils.files import REPOSITORY

FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = [FOLDER / f"{name}.ipynb" for name in COURSE]
SOLUTIONS = [FOLDER / "solutions" / f"{name}_solutions.ipynb" for name in COURSE]
DOCUMENTS = [REPOSITORY / name for name in ("README.md", "data_links.md", "benchmarks/README.md")]
DOCUMENTS += [FOLDER / "KAGGLE.md", FOLDER / "SLURM.md"]
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=list(COURSE))
# A word of the field and how it may stand in a sentence. Where one first stands in the course's prose, it is in bold:
# that cell explains it.
TERMS = {
    "accuracy": r"accuracy",
    "augmentation": r"augment\w*",
    "backbone": r"backbones?",
    "batch": r"batch(es)?(?! norm)",
    "batch normalisation": r"batch[- ]norm\w*",
    "calibration": r"(mis)?calibrat\w+",
    "class index": r"class ind(ex|ices)",
    "cross-entropy": r"cross-entropy",
    "epoch": r"epochs?",
    "F1": r"(?<!macro-)F1",
    "fine-tuning": r"fine-tun\w+",
    "gradient": r"gradients?",
    "Grad-CAM": r"Grad-CAM",
    "label smoothing": r"label smoothing",
    "learning rate": r"learning rates?",
    "logit": r"logits?(?! adjust)",
    "loss": r"loss(es)?",
    "macro-F1": r"macro-F1",
    "patristic distance": r"patristic",
    "precision": r"(?<!mixed )precision",
    "recall": r"recall",
    "SGDW": r"SGDW",
    "shard": r"shards?",
    "softmax": r"(?<!balanced )softmax",
    "TFRecord": r"TFRecords?",
    "validation": r"validation",
}


def cells(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def is_folded(cell: nbformat.NotebookNode) -> bool:
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in cells(path) if cell.cell_type == "code" and "exercise" not in tags(cell)]


def in_words(markdown: str) -> str:
    """Markdown without code and addresses."""
    without_code = re.sub(r"```.*?```|^ {4}.*$|`[^`]*`", " ", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "] ", without_code)


def prose(path: Path) -> str:
    return "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")


def part(path: Path, heading: str) -> str:
    """The text below a heading of the second level, up to the next."""
    return prose(path).split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def calls(source: str, pattern: str) -> list[ast.Call]:
    """Calls of what a pattern names."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [node for node in found if re.fullmatch(pattern, ast.unparse(node.func))]


# ---------------------------------------------------------------- figures


def drawn(source: str) -> list[int]:
    """Lines in which a cell makes a figure or a table of the package, to show it."""
    return [call.lineno for call in calls(source, r"figures\.(?!italic)\w+")]


@each
def test_every_figure_and_table_is_read_out(path):
    shown = cells(path)
    silent = []
    for cell, after in itertools.pairwise(shown):
        if cell.cell_type != "code" or is_folded(cell) or not (lines := drawn(cell.source)):
            continue
        said = [call.lineno for call in calls(cell.source, "Markdown")]
        if after.cell_type == "markdown":
            text = not after.source.startswith("#")
        else:
            text = bool(calls(after.source, r"(\w+\.)*(display|Markdown)")) and not drawn(after.source)
        if not text and not any(line > max(lines) for line in said):
            silent.append(cell.source.splitlines()[-1])
    assert not silent, "a figure or table is followed by a cell that reads it out"


@each
def test_figures_come_from_the_package_which_describes_them(path):
    """A figure of matplotlib's own has no alternative text in JupyterLab and on the pages."""
    for each_path in (path, SOLUTIONS[NOTEBOOKS.index(path)]):
        source = "\n".join(cell.source for cell in cells(each_path) if cell.cell_type == "code")
        assert not re.search(r"\b(pyplot|plt|seaborn|sns)\b|\.(plot|style)\b", source), each_path.name
        assert "![](" not in prose(each_path), "a picture in the text has words"
        for call in calls(source, r"figures\.\w+"):
            assert hasattr(figures, ast.unparse(call.func).split(".")[1])


# ---------------------------------------------------------------- exercises


def exercises(path: Path) -> dict[str, list[nbformat.NotebookNode]]:
    """What is asked -> the cells up to the next question."""
    found: dict[str, list[nbformat.NotebookNode]] = {}
    for cell in cells(path):
        if cell.cell_type == "markdown" and (asked := re.match(r"\*\*Exercise \d+\.\*\*", cell.source)):
            found[asked[0]] = [cell]
        elif found:
            list(found.values())[-1].append(cell)
    return found


@each
def test_exercises_have_an_empty_cell_and_a_solution(path):
    asked, solved = exercises(path), exercises(SOLUTIONS[NOTEBOOKS.index(path)])
    assert list(asked) == [f"**Exercise {number}.**" for number in range(1, len(asked) + 1)]
    assert len(asked) >= 2 and list(solved) == list(asked)
    for question, answer in zip(asked.values(), solved.values(), strict=True):
        empty = question[1]
        assert empty.cell_type == "code" and "exercise" in tags(empty)
        assert all(line.startswith("#") for line in empty.source.splitlines())
        assert any(cell.cell_type == "code" and cell.source.strip() for cell in answer)
    assert not [cell for cell in cells(path) if "solution" in tags(cell)], "solutions stand apart"
    together = " ".join(question[0].source for question in asked.values())
    assert re.search(r"\b([Pp]redict|[Ee]stimate|[Gg]uess|[Ee]xpect)", together), (
        "one predicts before it computes"
    )
    assert re.search(r"\b([Cc]hange|[Tt]ry|[Ss]et|[Rr]eplace|[Tt]ake|[Dd]raw)\b", together), (
        "one changes something"
    )


@each
def test_solutions_start_as_their_notebook_does(path):
    solutions = SOLUTIONS[NOTEBOOKS.index(path)]
    assert code(solutions)[0].source == code(path)[0].source
    assert read_parameters(solutions).items() <= read_parameters(path).items()
    assert f"../{path.name}" in cells(solutions)[0].source
    assert path.name.replace(".ipynb", "_solutions.ipynb") in prose(path)


# ---------------------------------------------------------------- text


@each
def test_every_promise_is_named_in_the_recap(path):
    promised = [line for line in cells(path)[0].source.splitlines() if line.startswith("- ")]
    recap = part(path, "Recap").casefold()
    for promise in promised:
        terms = re.findall(r"\*\*(.+?)\*\*", promise)
        assert terms, f"a bold term says what this promises: {promise}"
        missing = [term for term in terms if term.casefold() not in recap]
        assert not missing, f"the recap does not name {missing}"


def test_no_term_is_used_before_the_cell_that_explains_it():
    texts = [
        (path.stem, in_words(cell.source))
        for path in NOTEBOOKS
        for cell in cells(path)[1:]  # the first names what will be learnt
        if cell.cell_type == "markdown"
    ]
    unexplained = []
    for term, pattern in TERMS.items():
        uses = [(name, text) for name, text in texts if re.search(rf"\b{pattern}\b", text, re.IGNORECASE)]
        assert uses, f"the course has no word {term}: take it off the list"
        name, text = uses[0]
        if not re.search(rf"\*\*[^*]*\b{pattern}\b[^*]*\*\*", text, re.IGNORECASE):
            unexplained.append(f"{term} in {name}: {' '.join(text.split())[:80]}")
    assert not unexplained, "\n".join(["in bold, with an explanation, where it first stands:", *unexplained])


@each
def test_words_for_every_line_of_code(path):
    words = len(re.findall(r"[^\W_]+(?:['’.-][^\W_]+)*", in_words(prose(path))))
    lines = [line for cell in code(path) for line in cell.source.splitlines() if line.strip()]
    assert 5 <= words / len(lines) <= 10, f"{words} words, {len(lines)} lines"
    assert len(code(path)) <= 45


@each
def test_set_up_is_folded(path):
    """A reader meets the subject first."""
    seen = cells(path)
    start, end = (
        next(place for place, cell in enumerate(seen) if cell.source.startswith(f"## {heading}"))
        for heading in ("Setup", "Parameters")
    )
    set_up = [cell for cell in seen[start:end] if cell.cell_type == "code"]
    assert set_up and all(map(is_folded, set_up))


# ---------------------------------------------------------------- links and commands


def texts() -> Iterator[tuple[Path, str]]:
    """Every document and notebook with its text."""
    yield from ((path, prose(path)) for path in [*NOTEBOOKS, *SOLUTIONS])
    yield from ((path, path.read_text(encoding="utf-8")) for path in DOCUMENTS)


def anchors(text: str) -> set[str]:
    """What a link may have behind its #, as GitHub makes it of a heading."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_local_links_lead_somewhere():
    lost = []
    for path, text in texts():
        for target in re.findall(r"\]\(([^)\s]+)", text):
            if re.match(r"\w+:", target):
                continue
            file, _, anchor = target.partition("#")
            found = path.parent / file if file else path
            if not found.exists() or (anchor and anchor not in anchors(dict(texts())[found.resolve()])):
                lost.append(f"{path.name}: {target}")
    assert not lost


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `./course ...` that a document shows, with where; what stands for others (COMMAND, ...) is left out."""
    for path, text in texts():
        shown = re.findall(r"`\./course ([^`]+)`|^ *(?:\$ )?\./course (.+)$", text, flags=re.MULTILINE)
        for inline, line in shown:
            command = inline or line
            if "COMMAND" not in command and "..." not in command:
                yield f"{path.name}: {command}", shlex.split(command, comments=True)


def test_commands_in_the_documents_exist():
    found = dict(commands())
    assert len(found) > 30
    wrong = []
    for where, words in found.items():
        if words in (["setup"], ["setup", "--gpu"]):  # of the script, not of the package
            continue
        try:
            check(main, words)
        except click.UsageError as error:
            wrong.append(f"{where}: {error.format_message()}")
    assert not wrong


def check(command: click.Command, words: list[str]) -> None:
    """Read a command's options as click does, without looking whether files are there and without running it."""
    context = click.Context(command, info_name="course", **command.context_settings)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name)
        if command is None:
            raise click.UsageError(f"no command {name}")
        context = click.Context(command, parent=context, **command.context_settings)
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    if rest and not context.ignore_unknown_options:
        raise click.UsageError(f"too much: {rest}")
    for parameter in command.params:
        value = values.get(parameter.name)
        if value is not None and isinstance(parameter.type, click.Choice | click.types.IntParamType):
            parameter.type_cast_value(context, value)
        if (
            parameter.required and value is None and words and "--help" not in words
        ):  # without any it is only named
            raise click.UsageError(f"{parameter.name} is missing")
    settings = {setting.name for setting in fields(Profile)}
    for pair in values.get("settings") or ():
        if pair.partition("=")[0] not in settings:
            raise click.UsageError(f"no setting {pair}")


def test_the_way_to_kaggle_names_the_file_of_its_run():
    profile = load_profile("kaggle")
    text = (FOLDER / "KAGGLE.md").read_text(encoding="utf-8")
    assert f"`{profile.run_name}.csv`" in text and f"fewer than {profile.epochs} rows" in text


def test_commands_in_messages_exist():
    known, found = {*main.list_commands(click.Context(main)), "setup", "again"}, set()
    for path in [*(REPOSITORY / "utils").rglob("*.py"), *NOTEBOOKS, *SOLUTIONS]:
        named = re.findall(
            r"(?:[`\"':]|[Cc]all|[Rr]un|then) ?\./course ([a-z]+)", path.read_text(encoding="utf-8")
        )
        found |= {(name, path.name) for name in named}
    assert len(found) > 30
    assert not [(name, where) for name, where in found if name not in known]


def messages() -> Iterator[tuple[str, str]]:
    """Every text of the package that is no docstring, with its file; what an f-string fills in is X."""
    for path in (REPOSITORY / "utils").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        left_out = {part for node in joined for part in ast.walk(node)}
        left_out |= {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)
        }  # docstrings among them
        for node in joined:
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield path.name, "".join(parts)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in left_out:
                yield path.name, node.value


def options(command: click.Command, name: str = "") -> dict[str, set[str]]:
    """The options of a command and of those below it, by name."""
    if not isinstance(command, click.Group):
        own = {option for parameter in command.params for option in parameter.opts if option[0] == "-"}
        return {name: own | {"-h", "--help"}}
    context = click.Context(command)
    found = {}
    for below in command.list_commands(context):
        found |= options(command.get_command(context, below), f"{name} {below}".strip())
    return found


def test_options_in_messages_exist():
    """An advice names options that its command has; a bare one is of some command of the course, or of these others."""
    others = {"--force-reinstall", "--gpus-per-task", "--name", "--ntasks-per-node"}  # pip's, Slurm's
    by_command = options(main)
    known = set.union(others, *by_command.values())
    names = "|".join(sorted(by_command, key=len, reverse=True))
    seen, wrong = 0, []
    for where, text in messages():
        for command, rest in re.findall(rf"\./course ({names})\b(.*?)(?=[`;,)]|\. |\./course|$)", text):
            own = by_command[command] if command != "lab" else known | {"--no-browser"}  # Jupyter's
            named = re.findall(r"(?<![\w-])--?[a-z][\w-]*", rest)
            seen += len(named)
            wrong += [f"{where}: {command} {option}" for option in named if option not in own]
        if " " in text and not text.startswith(("#!", "-")) and where not in ("lock.py", "environment.py"):
            named = re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
            seen += len(named)
            wrong += [f"{where}: {option}" for option in named if option not in known]
            # of a setting, which only `train` and `model` take: the same message is told by other commands
            bare = re.findall(r"(?<!train )-s \w+=\S*", re.sub(r"\./course (train|model) .*", "", text))
            wrong += [f"{where}: {option} of which command?" for option in bare]
    assert seen > 60
    assert not wrong
