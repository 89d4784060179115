"""The command line of the benchmarks: parses, measures, prints one table."""

import os
from pathlib import Path

import click

from benchmarks.harness import Bench, report, stages
from utils.config import nearest
from utils.files import check_writable, write_json
from utils.paths import scratch_dir


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExample:\n  ./course bench --stage 'train input, 400 px' --repeats 3 --json bench.json",
)
@click.option("--stage", "names", multiple=True, help="Measure only this stage; can be given several times.")
@click.option("--list", "show_list", is_flag=True, help="Only list the stages.")
@click.option("--repeats", type=click.IntRange(1), help="Repeats of every variant. [default: 5]")
@click.option(
    "--images", type=click.IntRange(64), default=2048, show_default=True, help="Images to read, at least."
)
@click.option("--quick", is_flag=True, help="Tiny inputs in seconds: shows that all stages run, no more.")
@click.option(
    "--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write all repeats here too."
)
@click.option(
    "--mytflib",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkout of johnypark/mytflib: the published way itself, in place of our writing of it.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where inputs are made and kept. [default: data/bench]",
)
def main(
    names: tuple[str, ...],
    show_list: bool,
    repeats: int | None,
    images: int,
    quick: bool,
    out: Path | None,
    mytflib: Path | None,
    folder: Path | None,
) -> None:
    """Measure each stage: ours, the published way, the machine's limit, in turn; print one table."""
    known = stages()
    if show_list:
        click.echo("\n".join(known))
        return
    for name in names:
        if name not in known:
            raise click.UsageError(f"unknown stage {name!r}.{nearest(name, known)}")
    if out:
        check_writable(out)
    folder = (folder or scratch_dir() / ("bench-quick" if quick else "bench")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if quick:
        images, repeats = 64, repeats or 1
    bench = Bench(folder, images, repeats or 5, quick, mytflib and mytflib.resolve())
    found = report([known[name] for name in names or known], bench, click.echo)
    if out:
        write_json(out, found)
        click.echo(f"\nAll repeats: {out}")


if __name__ == "__main__":
    course = os.environ.get("COURSE_PROGRAM")
    main(prog_name=f"{course} bench" if course else "python -m benchmarks")
