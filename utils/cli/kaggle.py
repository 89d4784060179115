"""Commands of the Kaggle kernels: build, weights, check, push."""

from pathlib import Path

import click

from utils.cli.common import FOLDER, OUT_FOLDER, Commands, echo, example
from utils.files import InputError


@click.group(
    cls=Commands, epilog=example("./course kaggle build --owner NAME", "./course kaggle push --dry-run")
)
def kaggle() -> None:
    """Make Kaggle kernels of the notebooks, check them, push them (notebooks/KAGGLE.md)."""


BUILT = click.argument("folder", type=FOLDER, default=Path("build/kaggle"), metavar="[DIR]")
OWNER = click.option("--owner", required=True, help="Your Kaggle user name.")
BUILD = click.option(
    "--out", type=OUT_FOLDER, default=Path("build/kaggle"), show_default=True, help="Folder to write to."
)


@kaggle.command(epilog=example("./course kaggle build --owner NAME"))
@OWNER
@BUILD
@click.option(
    "--state", default="", help="Data set made of an earlier output of 03b, for 03b to go on from (its slug)."
)
def build(owner: str, out: Path, state: str) -> None:
    """Write one folder a kernel and one for the data set of `utils`."""
    from utils.course import kernels as suite

    for folder in suite.build(owner, out, state):
        echo(folder)
    if not (out / suite.WEIGHTS).is_dir():
        echo(f"Weights, once, where there is internet: ./course kaggle weights --owner {owner} --out {out}")
    echo(f"Then ./course kaggle check {out}, and ./course kaggle push {out}")


@kaggle.command(epilog=example("./course kaggle weights --owner NAME"))
@OWNER
@BUILD
def weights(owner: str, out: Path) -> None:
    """Download the ImageNet weights of profile kaggle and write them as a data set's folder."""
    from utils.config import load_profile
    from utils.course import kernels as suite
    from utils.startup import import_tensorflow

    profile = load_profile("kaggle")
    import_tensorflow()
    echo(suite.build_weights(owner, out, profile.weights, profile.backbone))


@kaggle.command("check", epilog=example("./course kaggle check build/kaggle"))
@BUILT
def check_kernels(folder: Path) -> None:
    """Lint built kernels in DIR (default build/kaggle) offline: one line a problem."""
    from utils.course.kernel_check import check as check_built

    problems = check_built(folder)
    if problems:
        raise InputError("\n".join([f"{folder}: {len(problems)} problems. Build again, or mend:", *problems]))
    echo(f"{folder}: no problem found.")


@kaggle.command(
    epilog=example(
        "./course kaggle push --dry-run", "./course kaggle push", "./course kaggle push --only 03b"
    )
)
@BUILT
@click.option("--dry-run", is_flag=True, help="Only print the commands of the official `kaggle` tool.")
@click.option("--only", metavar="NUMBER", help="Push one kernel, such as 03b, whether it has changed or not.")
def push(folder: Path, dry_run: bool, only: str | None) -> None:
    """Push the data sets and kernels in DIR (default build/kaggle) with the official `kaggle` tool.

    A kernel that takes another's output waits until that is complete; it may take days of sessions. Interrupt
    it whenever you like: the same command goes on where it stopped.
    """
    from utils.course.push import Push, official_tool

    if dry_run:
        for line in Push(folder, official_tool()).commands(only):
            echo(line)
        return
    Push(folder, official_tool()).run(only)
    echo("Pushed. Watch the kernels at https://www.kaggle.com/code?userRecent=true")
