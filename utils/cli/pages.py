"""Commands that open a page in the browser: identify, review."""

from collections.abc import Sequence
from pathlib import Path

import click

from utils.cli.common import EXISTING, FOLDER, OUT_FILE, OUT_FOLDER, SURE, check_writable, echo, example
from utils.files import InputError, check_option
from utils.own.telling import told


@click.command(
    epilog=example(
        "./course identify --model runs/mine --data data/mine", "./course identify --model runs/latest/output"
    )
)
@click.option("--model", "run_dir", type=FOLDER, required=True, help="Folder of a training run.")
@click.option(
    "--data",
    type=FOLDER,
    help="The data that it was trained on, whose sheets are shown beside an answer. [default: the sample flora's own]",
)
@click.option(
    "--cache",
    type=OUT_FOLDER,
    help="What is made at the first call. [default: identify/ in the run's folder]",
)
@SURE
@click.option("--port", type=click.IntRange(1, 65535), default=8866, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address of this machine to listen at. Other machines reach any but 127.0.0.1; what is sent is not encrypted.",
)
@click.option("--no-browser", is_flag=True, help="Only print the page's address.")
def identify(
    run_dir: Path,
    data: Path | None,
    cache: Path | None,
    sure: float,
    port: int,
    host: str,
    no_browser: bool,
) -> None:
    """Open a page on which sheets are dropped and named by a trained run; Ctrl-C ends it.

    Only this machine reaches the page, and only with the token in its address. Nothing is loaded from elsewhere.
    """
    from utils.own.identify import KEPT, is_prepared, prepare, refuse_other_files
    from utils.own.serve import check_host

    check_host(host)
    run_dir = run_dir.resolve()
    kept = (cache or run_dir / KEPT).resolve()
    if not is_prepared(run_dir, kept, pictures=data is not None):
        from utils.config import load_profile
        from utils.sources import find_data
        from utils.startup import import_tensorflow

        echo(f"Once for this run, a minute or two: {kept} (--cache names another folder)", err=True)
        refuse_other_files(kept)
        check_writable(kept)
        found = find_data(load_profile("auto"), data) if data else None
        import_tensorflow()
        with told("preparing"):
            prepare(run_dir, kept, found)
    _serve("utils.own.drop", (run_dir, kept, sure), "Identify a sheet", host, port, no_browser)


@click.command(epilog=example("./course review predictions.csv --images new_sheets --model runs/mine"))
@click.argument("predictions", type=EXISTING)
@click.option("--images", type=FOLDER, required=True, help="The folder that was predicted.")
@click.option(
    "--model", "run_dir", type=FOLDER, help="The run that predicted it: its names, its nearest sheets."
)
@click.option("--by", help="Who decides. [default: the name of your account]")
@click.option(
    "--decisions",
    type=OUT_FILE,
    help="File of the decisions. [default: beside the predictions, NAME.decisions.jsonl]",
)
@click.option("--only-tables", is_flag=True, help="Write the tables of the decisions so far, open no page.")
@click.option("--port", type=click.IntRange(1, 65535), default=8866, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="As for identify.")
@click.option("--no-browser", is_flag=True, help="Only print the page's address.")
def review(
    predictions: Path,
    images: Path,
    run_dir: Path | None,
    by: str | None,
    decisions: Path | None,
    only_tables: bool,
    port: int,
    host: str,
    no_browser: bool,
) -> None:
    """Go through predictions on a page, sheet by sheet: accept, correct, doubt or put aside; Ctrl-C ends it.

    Every decision is on disk at once. At the end NAME.reviewed.csv has the accepted and corrected names as labels that
    `metadata` reads, NAME.open.csv all other sheets. One page at a time writes a file of decisions.
    """
    from utils.own.review_page import open_review
    from utils.own.reviewed import results, write_review
    from utils.own.serve import check_host
    from utils.startup import holding

    predictions, images = predictions.resolve(), images.resolve()
    run_dir = run_dir.resolve() if run_dir else None
    decisions = (decisions or predictions.with_suffix(".decisions.jsonl")).resolve()
    # lines are appended to what is there
    check_option("--decisions", str(decisions), decisions.suffix == ".jsonl", "a file NAME.jsonl")
    by = _account() if by is None else by
    labels, unsettled = results(decisions)
    check_writable(decisions)
    check_host(host)
    with holding(decisions, decisions.with_name(f".{decisions.name}.lock")):
        opened = open_review(predictions, images, decisions, by, run_dir)
        listed = {sheet.file for sheet in opened.sheets}
        if others := opened.decisions.counting.keys() - listed:
            echo(
                f"{decisions}: sheets that {predictions} does not list, and the tables have too: {len(others):,}",
                err=True,
            )
        for lines in (opened.decisions.problems, [f"not in {images}: {name}" for name in opened.missing()]):
            for line in lines[:20]:
                echo(line, err=True)
            if len(lines) > 20:
                echo(f"and {len(lines) - 20:,} more; the page lists them", err=True)
        try:
            if not only_tables:
                arguments = (predictions, images, decisions, by, run_dir)
                _serve("utils.own.review_page", arguments, "Review", host, port, no_browser)
        finally:
            settled, others = write_review(opened.decisions, opened.sheets)
            echo(f"{settled:,} labels -> {labels}")
            echo(f"{others:,} sheets without one -> {unsettled}")


def _account() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in a container for a number without a name
        raise InputError("--by: this account has no name. Give the curator's.") from None


def _serve(
    module: str,
    arguments: Sequence[Path | str | float | None],
    title: str,
    host: str,
    port: int,
    no_browser: bool,
) -> None:
    """Serve what `show_page` of a module shows, paths of its arguments given as texts, until Ctrl-C."""
    from utils.own.serve import serve

    texts = ", ".join(repr(str(each) if isinstance(each, Path) else each) for each in arguments)
    serve(
        f"from {module} import show_page\nshow_page({texts})",
        title=title,
        host=host,
        port=port,
        opened=lambda address: echo(f"{address}\nCtrl-C here ends the page."),
        browser=not no_browser,
    )
