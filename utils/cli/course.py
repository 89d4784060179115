"""Commands of the course and its upkeep: run, test, check, lock, lab, bench."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from utils.cli.common import FOLDER, OUT_FILE, OUT_FOLDER, PROFILE, check_writable, echo, example, pairs_of
from utils.files import InputError, UsageError


@click.command(epilog=example("./course run --profile smoke", "./course run 03 -p SEED=1 --out runs/mine"))
@click.argument("notebooks", nargs=-1)
@PROFILE
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value for a notebook's parameters cell; can be given several times.",
)
@click.option("--data", type=FOLDER, help="Folder with shards and metadata, in place of the profile's own.")
@click.option(
    "--out",
    type=OUT_FOLDER,
    help="Folder of the run; an earlier run's folder goes on with its files. [default: runs/<date-time>]",
)
def run(
    notebooks: tuple[str, ...], profile: str, parameters: tuple[str, ...], data: Path | None, out: Path | None
) -> None:
    """Run the course, or some NOTEBOOKS, headless; show it as HTML; print the score.

    NOTEBOOKS are numbers (03), names, or paths of .ipynb files.
    """
    from utils.course.run import run_course

    given = pairs_of(parameters, "-p")
    run_course(notebooks, profile=profile, parameters=given, data_dir=data, out=out)


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=example("./course test", "./course test tests/data/test_tail.py"),
)
@click.option("--all", "everything", is_flag=True, help="The long suite too (at most 60 minutes).")
@click.argument("paths", nargs=-1)
@click.pass_context
def test(context: click.Context, everything: bool, paths: tuple[str, ...]) -> None:
    """Check the code and run the tests, or only those in PATHS (other options go to pytest)."""
    from utils.course import check as checks
    from utils.files import REPOSITORY

    clean, options = True, ["--all"] if everything else []
    if not any(_test_file(path).exists() for path in paths):
        clean = checks.check()
        print("check: " + ("clean" if clean else "FAILED, see above"), flush=True)
        options += ["-n", "2", "--dist", "loadfile"]  # a file's fixtures are made once
    command = [sys.executable, "-m", "pytest", *options, *map(_absolute, paths)]
    code = subprocess.run(command, cwd=REPOSITORY).returncode
    context.exit(1 if code == 0 and not clean else code)


def _test_file(argument: str) -> Path:
    return Path(argument.partition("::")[0])


def _absolute(argument: str) -> str:
    """A test's path seen from anywhere, since pytest runs in the repository; an option stays as it is."""
    _, colons, name = argument.partition("::")
    path = _test_file(argument)
    return f"{path.resolve()}{colons}{name}" if path.exists() else argument


@click.command(epilog=example("./course check --fix"))
@click.option("--fix", is_flag=True, help="Mend what can be mended: formatting, outputs, metadata.")
@click.pass_context
def check(context: click.Context, fix: bool) -> None:
    """Check format, lint and notebook hygiene; each finding names the command that mends it."""
    from utils.course import check as checks

    clean = checks.check(fix=fix)
    print("check: " + ("clean" if clean else "FAILED, see above"))
    context.exit(0 if clean else 1)


@click.command(epilog=example("./course lock"))
def lock() -> None:
    """Make requirements.lock and requirements-gpu.lock from requirements.txt (needs the network, seconds)."""
    from utils.setup.lock import make_locks

    make_locks()


@click.command(context_settings={"ignore_unknown_options": True}, epilog=example("./course lab --no-browser"))
@click.argument("options", nargs=-1)
@click.pass_context
def lab(context: click.Context, options: tuple[str, ...]) -> None:
    """Open JupyterLab in the repository, at notebook 00; OPTIONS go to it."""
    from utils.course.notebooks import COURSE, kernel_variables
    from utils.files import REPOSITORY
    from utils.own.examples import MOST_MESSAGE

    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={REPOSITORY}"]
    command += [f"--LabApp.default_url=/lab/tree/notebooks/{next(iter(COURSE))}.ipynb"]
    message = {"websocket_max_message_size": MOST_MESSAGE}  # notebook 08 takes a sheet in one
    command.append(f"--ServerApp.tornado_settings={message}")
    if os.name == "posix" and os.geteuid() == 0:
        click.echo("You are root, and so is what a notebook does. An account of your own is safer.", err=True)
        command.append("--allow-root")
    command += options
    environment = os.environ | kernel_variables()
    if os.name == "posix":  # JupyterLab becomes this process, so that Ctrl-C and a SIGTERM reach it
        os.execve(sys.executable, command, environment)
    context.exit(subprocess.run(command, env=environment).returncode)


@click.command(
    epilog=example(
        "./course bench --json bench.json", "./course bench --stage 'train input, 400 px' --repeats 3"
    )
)
@click.option("--stage", "names", multiple=True, help="Measure only this stage; can be given several times.")
@click.option("--list", "only_list", is_flag=True, help="Only list the stages.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Of every variant.")
@click.option(
    "--images", type=click.IntRange(64), default=2048, show_default=True, help="Images to read, at least."
)
@click.option("--quick", is_flag=True, help="Tiny inputs, one repeat: shows that all stages run, no more.")
@click.option("--json", "out", type=OUT_FILE, help="Write all repeats here too.")
@click.option("--mytflib", type=FOLDER, help="A checkout of the published pipeline, to measure itself.")
@click.option("--folder", type=OUT_FOLDER, help="Where inputs are made and kept. [default: data/bench]")
@click.pass_context
def bench(
    context: click.Context, names: tuple[str, ...], only_list: bool, out: Path | None, **options: Any
) -> None:
    """Measure speed and memory of every stage beside the published way and the machine's limit.

    Prints one table; benchmarks/README.md says what is in it. The machine should do nothing else.
    """
    try:
        from benchmarks.harness import make_bench, report, stages
    except ModuleNotFoundError as error:
        if error.name != "benchmarks":
            raise
        raise InputError("There is no folder benchmarks here. Run it in a clone of the course.") from None
    from utils.config import nearest
    from utils.files import write_json

    known = stages()
    for name in names:
        if name not in known:
            raise UsageError(f"unknown stage {name!r}.{nearest(name, known)}")
    if only_list:
        echo("\n".join(names or known))
        return
    if out:
        check_writable(out)
    chosen = [stage for name, stage in known.items() if (name in names if names else not stage.only_named)]
    found = report(chosen, make_bench(**options), click.echo)
    if out:
        write_json(out, found)
        echo(f"\nAll repeats: {out}")
    context.exit(1 if found["failed"] else 0)
