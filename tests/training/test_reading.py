"""What a person has to read to know how training works: the modules that it loads, and how long they are."""

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from utils.files import REPOSITORY

MOST_LINES = 3700  # of code
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
LISTED = """
import sys
import utils.training.loop
print(*(module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "utils"), sep="\\n")
"""


def code_lines(text: str) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            docstrings.update(range(body[0].lineno, body[0].end_lineno + 1))
    held = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            held.update(range(token.start[0], token.end[0] + 1))
    return len(held - docstrings)


def test_lines_of_code_are_counted_without_what_is_for_readers():
    head = '"""Head."""\n\nimport os  # why\n# a comment\n'
    text = head + 'def f():\n    """Doc.\n\n    More.\n    """\n    return (\n        1\n    )\n'
    assert code_lines(text) == 1 + 1 + 3


@pytest.fixture(scope="module")
def loaded() -> list[Path]:
    """The files of this package that `import utils.training.loop` loads, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return [Path(line).relative_to(REPOSITORY / "utils") for line in done.stdout.split()]


def test_training_loads_no_workshop(loaded: list[Path]) -> None:
    assert Path("training/trainer.py") in loaded and Path("data/batches.py") in loaded
    rooms = {path.parts[0] if path.parts[0] != "data" else "/".join(path.parts[:2]) for path in loaded}
    assert not rooms & {"data/forms", "flora", "own", "figures", "experiments", "course", "setup", "cli"}


def test_what_training_loads_can_be_read_in_one_sitting(loaded: list[Path]) -> None:
    lines = {
        str(path): code_lines((REPOSITORY / "utils" / path).read_text(encoding="utf-8")) for path in loaded
    }
    assert sum(lines.values()) <= MOST_LINES, lines
