"""The executed course as HTML: a page a notebook, and an index. Their looks are in the templates beside this file.

Both open without a network. What stands in the index comes from notebooks and files, so it is escaped.
"""

import html
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from utils.course.notebooks import COURSE, Run
from utils.files import read_json, write_text

TEMPLATES = Path(__file__).parent  # index.html.j2 and notebook.html.j2
_IN_THE_CLONE = re.compile(r'<a href="((?:solutions/)?\w+\.(?:ipynb|md))"[^>]*>(.*?)</a>')
_IMAGE = re.compile(r'<img alt="([^"]*)"[^>]* src="(data:image/png;base64,[^"]*)"')


def write_page(run: Run, name: str) -> Path:
    """Write an executed notebook as one HTML file with its figures inside, readable without a network."""
    import nbformat
    from jinja2 import FileSystemLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_file="notebook.html.j2", extra_loaders=[FileSystemLoader(TEMPLATES)])
    notebook = nbformat.read(run.executed(name), as_version=4)
    for cell in notebook.cells:  # widgets need scripts from the network; their text form stays
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})
    page = run.page(name)
    # Links between notebooks lead to the pages of this run; solutions and documents are in the clone
    for other in COURSE:
        body = body.replace(f'href="{other}.ipynb"', f'href="{other}.html"')
        body = body.replace(f'href="../{other}.ipynb"', f'href="{other}.html"')
    body = _IN_THE_CLONE.sub(r"\2 (notebooks/\1)", body)
    write_text(page, body)
    return page


def write_index(run: Run, scores: Mapping[str, Any]) -> Path:
    """Write index.html: scores, time and figures of every executed notebook, with links to their pages."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    path = run.folder / "index.html"
    text = templates.get_template("index.html.j2").render(
        run=run,
        scores=score_lines(scores),
        baselines=scores.get("baselines", {}).items(),
        figures=_figures,
        address=_address,
        clock=clock,
    )
    write_text(path, text)
    return path


def score_lines(scores: Mapping[str, Any]) -> list[str]:
    """The score of the withheld test, and above it what a network from nothing reached, where there was one.

    Each says which network it is and on which sheets; nothing where no withheld test was scored.
    """
    if "macro_f1" not in scores:
        return []
    lines, last = [], f"macro-F1 {scores['macro_f1']:.3f} (withheld test)"
    training = scores.get("training", {})
    other = training.get("from_nothing")
    if other and other["held_out_macro_f1"] is not None:
        reached = f"macro-F1 {other['held_out_macro_f1']:.3f} (held-out sheets)"
        lines.append(f"{reached}, {other['network']} from nothing, {other['epochs']} epochs")
        last += f", {training['network']} from {training['weights']} weights, {training['epochs']} epochs"
    return [*lines, last]


def _address(name: str) -> str:
    """A notebook's page as a relative address."""
    return urllib.parse.quote(f"{name}.html")


def _figures(executed: Path) -> Iterator[tuple[str, str]]:
    """Words and source of every figure of an executed notebook: the course's, see `utils.figures.shown`, and others."""
    if not executed.is_file():
        return
    for cell in read_json(executed)["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for words, source in _IMAGE.findall("".join(data.get("text/html", ""))):
                yield html.unescape(words), source
            if "image/png" in data:
                picture = "".join("".join(data["image/png"]).split())
                yield "A figure that has no words", f"data:image/png;base64,{picture}"


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
