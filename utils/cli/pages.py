"""Commands that open a page in the browser: identify."""

from pathlib import Path

import click

from utils.cli.common import FOLDER, OUT_FOLDER, example


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
@click.option("--port", type=click.IntRange(1, 65535), default=8866, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address of this machine to listen at. Other machines reach any but 127.0.0.1; what is sent is not encrypted.",
)
@click.option("--no-browser", is_flag=True, help="Only print the page's address.")
def identify(
    run_dir: Path, data: Path | None, cache: Path | None, port: int, host: str, no_browser: bool
) -> None:
    """Open a page on which sheets are dropped and named by a trained run; Ctrl-C ends it.

    Only this machine reaches the page, and only with the token in its address. Nothing is loaded from elsewhere.
    """
    from utils.own.identify import KEPT, is_prepared, prepare
    from utils.own.serve import check_host, serve

    check_host(host)
    run_dir = run_dir.resolve()
    kept = (cache or run_dir / KEPT).resolve()
    if not is_prepared(run_dir, kept, pictures=data is not None):
        from utils.config import load_profile
        from utils.sources import find_data
        from utils.startup import import_tensorflow

        click.echo(f"Once for this run, a minute or two: {kept}", err=True)
        found = find_data(load_profile("auto"), data) if data else None
        import_tensorflow()
        prepare(run_dir, kept, found)
    serve(
        f"from utils.own.drop import show_page\nshow_page({str(run_dir)!r}, {str(kept)!r})",
        title="Identify a sheet",
        host=host,
        port=port,
        opened=lambda address: click.echo(f"{address}\nCtrl-C here ends the page."),
        browser=not no_browser,
    )
