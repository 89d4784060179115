"""The executed course as HTML: a page a notebook, and an index."""

import html
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from utils.course.notebooks import COURSE, Run
from utils.files import read_json, replacing

# The page of nbconvert's template without its scripts from the network, so that it opens offline.
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block body_header -%}{{ super() }}<p style="font: 14px sans-serif">
<a style="color: #0645ad" href="../index.html">All notebooks</a></p>
{%- endblock -%}
"""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem 1rem .3rem 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)) }
.figures img { width: 100%; border: 1px solid #ddd }
.failed { color: #b00020; font-weight: 600 }
.score { font-size: 1.6rem }
"""


def write_page(run: Run, name: str) -> Path:
    """Write an executed notebook as one HTML file with its figures inside, readable without a network."""
    import nbformat
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_file="course.html.j2", extra_loaders=[DictLoader({"course.html.j2": _TEMPLATE})]
    )
    notebook = nbformat.read(run.executed(name), as_version=4)
    for cell in notebook.cells:  # widgets need scripts from the network; their text form stays
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})
    page = run.page(name)
    # Links between notebooks lead to the pages of this run
    for other in COURSE:
        body = body.replace(f'href="{other}.ipynb"', f'href="{other}.html"')
    with replacing(page) as temporary:
        temporary.write_text(body, encoding="utf-8")
    return page


def write_index(run: Run, scores: Mapping[str, Any]) -> Path:
    """Write index.html: scores, time and figures of every executed notebook, with links to their pages."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Herbarium course, {html.escape(run.folder.name)}</title><style>{_STYLE}</style>",
        f"<h1>Herbarium course</h1><p>Profile <b>{html.escape(run.profile.name)}</b>: "
        f"{html.escape(run.profile.about)}</p>",
    ]
    if "macro_f1" in scores:
        parts.append(f'<p class="score">macro-F1 {scores["macro_f1"]:.3f} on the withheld test</p>')
        rows = "".join(
            f'<tr><td>{html.escape(method)}</td><td class="n">{value:.3f}</td></tr>'
            for method, value in baseline_rows(scores)
        )
        if rows:
            parts.append(f'<table><tr><th>baseline</th><th class="n">macro-F1</th></tr>{rows}</table>')
    parts.append('<table><tr><th>notebook</th><th class="n">time</th><th class="n">of which training</th>')
    parts.append("<th>result</th></tr>")
    for result in run.results:
        page = run.page(result.name)
        name = html.escape(result.name)
        link = f'<a href="html/{_address(result.name)}">{name}</a>' if page.is_file() else name
        state = "passed" if result.passed else f'<span class="failed">{html.escape(result.problem)}</span>'
        parts.append(
            f'<tr><td>{link}</td><td class="n">{clock(result.seconds)}</td>'
            f'<td class="n">{clock(result.training_seconds)}</td><td>{state}</td></tr>'
        )
    parts.append("</table>")
    for result in run.results:
        figures = list(_figures(run.executed(result.name)))
        if figures:
            name = html.escape(result.name)
            images = "".join(
                f'<a href="html/{_address(result.name)}"><img alt="figure {number} of {name}" loading="lazy" '
                f'src="data:image/png;base64,{html.escape(data)}"></a>'
                for number, data in enumerate(figures, start=1)
            )
            parts.append(f'<h2>{name}</h2><div class="figures">{images}</div>')
    parts.append(
        '<p>Files that the notebooks left: <a href="output/">output/</a>. Executed notebooks: '
        '<a href="notebooks/">notebooks/</a>.</p></html>'
    )
    path = run.folder / "index.html"
    with replacing(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return path


def _address(name: str) -> str:
    """A notebook's page as a relative address."""
    return html.escape(urllib.parse.quote(f"{name}.html"))


def _figures(executed: Path) -> Iterator[str]:
    """The PNG figures of an executed notebook, as base64 text."""
    if not executed.is_file():
        return
    for cell in read_json(executed)["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                data = output["data"]["image/png"]
                yield "".join("".join(data).split())


def baseline_rows(scores: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(method, macro-F1) of the baselines, written as rows of a table or by name."""
    baselines = scores.get("baselines") or []
    if isinstance(baselines, Mapping):
        rows = list(baselines.items())
        return [(name, value["macro_f1"] if isinstance(value, Mapping) else value) for name, value in rows]
    return [(row["method"], row["macro_f1"]) for row in baselines]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
