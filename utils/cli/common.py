"""What all commands share: how mistakes are shown, types and options of the command line."""

import contextlib
import os
import re
import signal
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from utils.config import profile_names
from utils.files import InputError, InputWarning, UsageError, printable

if TYPE_CHECKING:
    from utils.config import Profile


class _Place(click.Path):
    """A file or a folder. Pipes and devices are refused: some are read for ever, and a rename would replace them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(super().convert(value, param, ctx))
        if path.exists() and not (path.is_file() or path.is_dir()):
            kind = "file" if self.file_okay else "folder"
            self.fail(f"{str(path)!r} is a pipe or a device. Name a {kind} on a disk.", param, ctx)
        return path


OUT_FILE = _Place(dir_okay=False)
OUT_FOLDER = _Place(file_okay=False)
EXISTING = _Place(exists=True)
FOLDER = _Place(exists=True, file_okay=False)
SEED = click.IntRange(min=0)
POSITIVE = click.FloatRange(min=0, min_open=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends what is under way like Ctrl-C does."""


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise Terminated within the block, where nothing else is to become of it.

    Python drops what is raised while it deletes an object, and TensorFlow's objects run code then: a signal whose
    exception is gone before the block ended is sent again. What fails because of a signal counts as it.
    """
    came = False

    def end(*_: object) -> None:
        nonlocal came
        came = True
        raise watched()

    def watched() -> Terminated:
        stop = Terminated()
        weakref.finalize(stop, again).atexit = False
        return stop

    def again() -> None:
        if signal.getsignal(signal.SIGTERM) is end:
            timer = threading.Timer(0.05, send)  # when what is being deleted is gone
            timer.daemon = True
            timer.start()

    def send() -> None:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if came:
            raise Terminated from error
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Commands(click.Group):
    """Shows a user's mistake as one message: exit code 2 for bad use, 1 for a job that failed.

    Ctrl-C and SIGTERM end a command with 130 and 143, and with a line on how it goes on.
    """

    def invoke(self, context: click.Context) -> Any:
        try:
            with _warnings_as_lines(), ended_by_sigterm():
                return super().invoke(context)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except InputError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt as stop:
            echo("Stopped. What was finished is kept; the same command again goes on.", err=True)
            context.exit(143 if isinstance(stop, Terminated) else 130)
        except BrokenPipeError:
            raise  # the reader of our output has gone, as in `| head`; click ends quietly
        except OSError as error:
            if error.strerror is None:
                raise
            where = f": {printable(error.filename)}" if error.filename else ""
            raise click.ClickException(f"{error.strerror}{where}") from error

    group_class = type  # groups within groups are of this class too

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.commands[name].get_short_help_str(limit=200)) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(rows)  # wraps the whole first sentence, where click's own cuts it off


def echo(text: object, err: bool = False) -> None:
    """Print what may have names of files and species in it, see `printable`."""
    click.echo(printable(text), err=err)


def example(*lines: str) -> str:
    """An epilog that click does not wrap."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
PROFILE = click.option(
    "--profile",
    default="auto",
    show_default=True,
    help=f"Settings to use: {', '.join(profile_names())}; auto is laptop, on Kaggle kaggle.",
)
SURE = click.option(
    "--sure",
    type=click.FloatRange(0.5, 1),
    default=0.95,
    show_default=True,
    help="The least probability of an answer, at species, else genus, else family, that is called sure.",
)
SETTINGS = click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace one setting of the profile; can be given several times.",
)

SBATCH = click.option(
    "--sbatch",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="With --slurm: a long option of sbatch, as partition=gpu, time=4:00:00, gpus=1, mem=16G; several times.",
)


PART = click.option(
    "--shard", "part", default="1/1", metavar="I/N", help="Only part I of N that share the job."
)
SLURM = click.option(
    "--slurm",
    "parts",
    type=click.IntRange(1),
    metavar="N",
    help="Share the work among N jobs of Slurm, see notebooks/SLURM.md.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="With --slurm: only show what sbatch would get.")


def part_of(text: str) -> tuple[int, int]:
    """The I and N of --shard I/N. UsageError where it is of another form."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise UsageError(f"--shard {text}: must be I/N, as in 1/2 and 2/2.")
    return int(found[1]), int(found[2])


def check_slurm(part: str, parts: int | None, sbatch: tuple[str, ...], dry_run: bool) -> None:
    """Raise UsageError where options of Slurm stand without --slurm or against it, InputError without a Slurm."""
    from utils.experiments.slurm import need_slurm

    if parts is None:
        if sbatch or dry_run:
            raise UsageError("--sbatch and --dry-run go with --slurm N.")
        return
    if part != "1/1":
        raise UsageError("--shard and --slurm exclude each other: its jobs have a --shard each.")
    if not dry_run:
        need_slurm("without --slurm; --shard I/N shares the work by hand")


def submit_shared(
    context: click.Context, out: Path, parts: int, sbatch: tuple[str, ...], dry_run: bool
) -> None:
    """Give this very command, with --shard, to Slurm as an array of jobs and one that closes; or show the scripts."""
    from utils.experiments.slurm import Shared, given_options

    shared = Shared(
        out, arguments_of(context, "parts", "part", "sbatch", "dry_run"), parts, given_options(sbatch)
    )
    click.echo(str(shared) if dry_run else shared.submit())


def arguments_of(context: click.Context, *without: str) -> tuple[str, ...]:
    """The command line of a call, made from what was given; parameters named in `without` are left out."""
    words: list[str] = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        words.insert(0, str(at.info_name))
        at = at.parent
    last: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        given = context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
        if parameter.name in without or not given:
            continue
        values = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            last += map(str, values)
            continue
        option = max(parameter.opts, key=len)
        words += [option if each is True else f"{option}={each}" for each in values]
    return (*words, *(["--", *last] if last else []))


def check_writable(path: Path) -> None:
    """See before long work that a file can be written, making nothing.

    Raises:
        InputError: the folder that is to hold it is a file, or must not be written to.
    """
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{path}: cannot be written, {folder} is a file. Name another place.")
    if not os.access(folder, os.W_OK):
        fixed = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
        why = f"{folder} is on a read-only file system" if fixed else f"no permission in {folder}"
        raise InputError(f"{path}: cannot be written, {why}. Name another place.")


def pairs_of(values: tuple[str, ...], option: str) -> dict[str, str]:
    """The values of an option that is given as NAME=VALUE, as text by name; of a name given twice the last.

    Raises:
        UsageError: a value has no `=`, or no name before it; the message shows `option` with an example.
    """
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {value}: must be NAME=VALUE, as in {option} epochs=3.")
        pairs[name.strip()] = text.strip()
    return pairs


def profile_of(name: str, settings: tuple[str, ...] = ()) -> "Profile":
    """A profile by name (auto too), with the KEY=VALUE settings of -s.

    Raises:
        UsageError: the profile or a key is not known, or a value is not possible.
    """
    from utils.config import load_profile

    booleans = {"true": True, "false": False}
    pairs = pairs_of(settings, "-s")
    if "name" in pairs:
        raise UsageError("-s name: a profile's name is no setting. Choose another one by --profile.")
    overrides = {key: booleans.get(text.lower(), text) for key, text in pairs.items()}
    return load_profile(name, **overrides)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print each InputWarning as a line, in place of file, line number and source."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, InputWarning):
            echo(f"Warning: {message}", err=True)
        else:
            others(message, category, *where)

    with warnings.catch_warnings():  # puts showwarning() back too
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = show
        yield
