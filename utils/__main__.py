"""The command line: `python -m utils COMMAND`, or `./course COMMAND`. Parses, calls, prints.

Nothing is imported before its command needs it, so that --help is quick and only what uses TensorFlow
pays for its start.
"""

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from utils import __version__
from utils.errors import InputError, InputWarning, UsageError
from utils.files import check_writable

if TYPE_CHECKING:
    from utils.config import Profile

OUT_FILE = click.Path(dir_okay=False, path_type=Path)
OUT_FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
SEED = click.IntRange(min=0)
POSITIVE = click.FloatRange(min=0, min_open=True)


class Commands(click.Group):
    """Shows a user's mistake as one message: exit code 2 for bad use, 1 for a job that failed."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with _warnings_as_lines():
                return super().invoke(context)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except InputError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise  # the reader of our output has gone, as in `| head`; click ends quietly
        except OSError as error:
            if error.strerror is None:
                raise
            where = f": {error.filename}" if error.filename else ""
            raise click.ClickException(f"{error.strerror}{where}") from error

    group_class = type  # groups within groups are of this class too

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.commands[name].get_short_help_str(limit=200)) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(rows)  # wraps the whole first sentence, where click's own cuts it off


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print each InputWarning as a line, in place of file, line number and source."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, InputWarning):
            click.echo(f"Warning: {message}", err=True)
        else:
            others(message, category, *where)

    with warnings.catch_warnings():  # puts showwarning() back too
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = show
        yield


def example(*lines: str) -> str:
    """An epilog that click does not wrap."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
PROFILE = click.option(
    "--profile",
    default="auto",
    show_default=True,
    help="Settings to use: smoke, laptop, kaggle, reference; auto is laptop, on Kaggle kaggle.",
)
SETTINGS = click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace one setting of the profile; can be given several times.",
)


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(package_name=None, version=__version__, prog_name="utils")
def main() -> None:
    """The herbarium course: long-tailed plant recognition, from a clone to a scored submission."""


def _pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {value}: must be NAME=VALUE, as in {option} epochs=3.")
        pairs[name.strip()] = text.strip()
    return pairs


def _profile(name: str, settings: tuple[str, ...] = ()) -> "Profile":
    from utils.config import load_profile

    booleans = {"true": True, "false": False}
    overrides = {key: booleans.get(text.lower(), text) for key, text in _pairs(settings, "-s").items()}
    return load_profile(name, **overrides)


# ---------------------------------------------------------------- the course


@main.command(epilog=example("./course run --profile smoke", "./course run 03 -p SEED=1 --out runs/mine"))
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
    from utils.runner import run_course

    given = _pairs(parameters, "-p")
    run_course(notebooks, profile=profile, parameters=given, data_dir=data, out=out)


@main.command(
    epilog=example(
        "./course batch notebooks/batches/example.batch.yaml --dry-run",
        "./course batch notebooks/batches/long_tail.batch.yaml --jobs 2",
    )
)
@click.argument("file", type=EXISTING)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time.")
@click.option("--dry-run", is_flag=True, help="Only state the plan: every run and how far it is.")
@click.option("--out", type=OUT_FOLDER, help="Folder of the runs. [default: runs/batches/<name of FILE>]")
@click.pass_context
def batch(context: click.Context, file: Path, jobs: int, dry_run: bool, out: Path | None) -> None:
    """Do all runs of a batch FILE and show one table of them: mean and range over the seeds.

    The same command goes on where the last one stopped. FILE is YAML:

    \b
      run: train                  or a notebook: number, name, path from FILE's folder
      about: what is compared
      profiles: [smoke]           [auto] without it
      seeds: [0, 1, 2]            [0] without it
      settings: {epochs: 2}       of every run: profile settings, or notebook parameters
      methods:                    rows of the table, and what each changes
        cross-entropy: {}
        class-balanced: {class_weights: class_balanced}
        screened only: {label_smoothing: 0.2, seeds: [0]}     seeds, after of its own
      grid: {max_lr: [0.05, 0.1]} every combination, with every method
      after: [tta]                steps after training, each a further row of the table
      test: withheld              or none (validation only), or a number: as many extra
                                  sheets of every species of the sample flora
      data: ../my_shards          in place of the profile's own, from FILE's folder
      table: ../results/a.csv     where the table goes too once every run has finished

    Only `run` must be there.
    """
    from utils.batch import run_batch

    try:
        run_batch(file, out=out, jobs=jobs, dry_run=dry_run)
    except KeyboardInterrupt:
        click.echo("\nInterrupted. What has finished is kept; the same command goes on.", err=True)
        context.exit(130)


@main.command(
    context_settings={"ignore_unknown_options": True},
    epilog=example("./course test", "./course test tests/data/test_longtail.py"),
)
@click.option("--all", "everything", is_flag=True, help="The long suite too (at most 60 minutes).")
@click.argument("paths", nargs=-1)
@click.pass_context
def test(context: click.Context, everything: bool, paths: tuple[str, ...]) -> None:
    """Check the code and run the tests, or only those in PATHS (other options go to pytest)."""
    from utils import check as checks
    from utils.paths import REPOSITORY

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


@main.command(epilog=example("./course check --fix"))
@click.option("--fix", is_flag=True, help="Mend what can be mended: formatting, outputs, metadata.")
@click.pass_context
def check(context: click.Context, fix: bool) -> None:
    """Check format, lint and notebook hygiene; each finding names the command that mends it."""
    from utils import check as checks

    clean = checks.check(fix=fix)
    print("check: " + ("clean" if clean else "FAILED, see above"))
    context.exit(0 if clean else 1)


@main.command(epilog=example("./course lock"))
def lock() -> None:
    """Make requirements.lock and requirements-gpu.lock from requirements.txt (needs the network, seconds)."""
    from utils.lock import make_locks

    make_locks()


@main.command(context_settings={"ignore_unknown_options": True}, epilog=example("./course lab --no-browser"))
@click.argument("options", nargs=-1)
@click.pass_context
def lab(context: click.Context, options: tuple[str, ...]) -> None:
    """Open the notebooks in JupyterLab; OPTIONS go to it."""
    from utils.paths import REPOSITORY
    from utils.runner import kernel_variables

    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={REPOSITORY / 'notebooks'}"]
    environment = os.environ | kernel_variables()
    context.exit(subprocess.run([*command, *options], env=environment).returncode)


@main.command(
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
        click.echo("\n".join(names or known))
        return
    if out:
        check_writable(out)
    chosen = [stage for name, stage in known.items() if (name in names if names else not stage.only_named)]
    found = report(chosen, make_bench(**options), click.echo)
    if out:
        write_json(out, found)
        click.echo(f"\nAll repeats: {out}")
    context.exit(1 if found["failed"] else 0)


# ---------------------------------------------------------------- data


@main.command(epilog=example("./course flora --species 40 --out data/flora40"))
@click.option(
    "--out", type=OUT_FOLDER, required=True, help="Folder for the flora; new, or of the same flora."
)
@click.option("--species", default=40, show_default=True, help="Number of species.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("--max-images", default=100, show_default=True, help="Images of the commonest species.")
@click.option(
    "--form",
    type=click.Choice(["shards", "images"]),
    default="shards",
    show_default=True,
    help="TFRecords as published, or JPEG files.",
)
@click.option("--metadata-only", is_flag=True, help="Only metadata, with the counts of the published set.")
@click.option("--json", "as_json", is_flag=True, help="With --metadata-only: the published JSON files too.")
def flora(
    out: Path, species: int, seed: int, max_images: int, form: str, metadata_only: bool, as_json: bool
) -> None:
    """Make a sample flora: procedural herbarium sheets in the published format."""
    from utils.flora.dataset import make_flora, make_metadata

    if as_json and not metadata_only:
        raise UsageError("--json goes with --metadata-only: a flora with images always has the JSON files.")
    if metadata_only:
        folder = make_metadata(out, seed=seed, json=as_json)
    else:
        folder = make_flora(out, species=species, seed=seed, max_images=max_images, form=form)
    click.echo(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


@main.command(
    epilog=example("./course metadata data/train_metadata.json", "./course metadata my_sheets --json")
)
@click.argument("file", type=EXISTING)
@click.option("--json", "as_json", is_flag=True, help="The same for programs, as JSON.")
def metadata(file: Path, as_json: bool) -> None:
    """Check a metadata FILE in any form and summarise it: images, species, families, the long tail.

    FILE is train_metadata.json, test_metadata.json, the TSV of NAFlora-mini, a CSV of own sheets (file_name,
    scientificName; image_id, authors, genus, species and family where known), a folder with one subfolder
    per species, or a folder of columns (.columns).
    """
    import json

    from utils.data.longtail import summarize_file

    summary = summarize_file(file)
    if as_json:
        known = {name: None if value != value else value for name, value in summary.items()}  # NaN is no JSON
        click.echo(json.dumps(known, indent=2))
        return
    notes = summary.pop("notes", [])
    for name, value in summary.items():
        shown = f"{value:,.3f}" if isinstance(value, float) else value if name == "form" else f"{value:,}"
        click.echo(f"{name.replace('_', ' '):<24} {shown:>12}")
    for note in notes:
        click.echo(note)


@main.command(epilog=example("./course table sheets --out labels.csv"))
@click.argument("folder", type=FOLDER)
@click.option("--out", type=OUT_FILE, required=True, help="CSV to write: file_name, scientificName ...")
def table(folder: Path, out: Path) -> None:
    """Write a table of a FOLDER of sheets in any layout, to look at before it is given as --labels.

    Its species is the innermost folder that is named as one; families, and folders named train, val or test,
    become columns. The file is a split for --split too, where it has that column.
    """
    from utils.data.folders import table_of

    check_writable(out)
    rows = table_of(folder, out)
    parts = (
        [f"{part} {count:,}" for part, count in rows["split"].value_counts().items()]
        if "split" in rows
        else []
    )
    click.echo(
        f"{out}: {len(rows):,} images of {rows['scientificName'].nunique():,} species"
        f"{' (' + ', '.join(parts) + ')' if parts else ''}. Look at the names."
    )


@main.command(epilog=example("./course split sheets/labels.csv --test 0.2 --group collector --out split.csv"))
@click.argument("file", type=EXISTING)
@click.option("--out", type=OUT_FILE, required=True, help="CSV to write: image_id, split.")
@click.option("--validation", default=0.1, show_default=True, help="Share of the images to validate on.")
@click.option("--test", default=0.0, show_default=True, help="Share of the images to withhold as a test.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Another seed gives other parts.")
@click.option("--group", help="Column whose values must not straddle: institution_id, or one of a CSV.")
def split(file: Path, out: Path, validation: float, test: float, seed: int, group: str | None) -> None:
    """Split the sheets of a metadata FILE into train, validation and test, by species and by seed.

    `tfrecords write --split` takes the file; beside shards, as split.csv, it says what is held out.
    """
    from utils.data import splits
    from utils.data.labels import LabelMap
    from utils.data.metadata import read_metadata
    from utils.data.names import look_alike_notes

    tables = read_metadata(file)
    labels = LabelMap.from_metadata(tables)
    classes = labels.to_class(tables.annotations["category_id"])
    ids = tables.annotations["image_id"].to_numpy(dtype=str)
    groups = None if group is None else splits.groups_of(ids, group, tables, file)
    parts = splits.assign(ids, classes, validation=validation, test=test, seed=seed, groups=groups)
    splits.write_split(ids, parts, out)
    for note in look_alike_notes(labels.names.tolist()):
        click.echo(note)
    click.echo(splits.report(classes, parts).to_string(index=False))
    for part, wanted in (("validation", validation), ("test", test)):
        if wanted:
            click.echo(f"{splits.coverage(classes, parts, labels.n_classes, part)}.")
    click.echo(f"{out}: {len(ids):,} images.")


@main.group(epilog=example("./course tfrecords verify data/mine"))
def tfrecords() -> None:
    """Write TFRecord shards from own sheets, or look into shards."""


@tfrecords.command(
    epilog=example("./course tfrecords write --images sheets --labels sheets/labels.csv --out data/mine")
)
@click.option("--images", type=FOLDER, required=True, help="Folder of the image files.")
@click.option(
    "--labels",
    type=EXISTING,
    help="CSV with image_id, file_name, scientificName ..., or another metadata file. "
    "[default: --images has one folder a species]",
)
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder for shards, metadata and label map.")
@click.option("--size", default=480, show_default=True, help="Pixels a side.")
@click.option(
    "--fit",
    type=click.Choice(["squeeze", "pad"]),
    default="squeeze",
    show_default=True,
    help="Squeeze the sheet to a square, as published, or pad it with the colour of its paper.",
)
@click.option("--quality", default=95, show_default=True, help="JPEG quality.")
@click.option(
    "--skip-bad", is_flag=True, help="Leave out images that cannot be read; skipped.csv lists them."
)
@click.option("--test-fraction", default=0.0, show_default=True, help="Share of each species to withhold.")
@click.option("--split", "split_file", type=EXISTING, help="In place of it, a file that `split` wrote.")
@click.option(
    "--label-map", type=EXISTING, help="A labels.json, or a run's folder, that numbers the species."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the order and of what is withheld.")
@click.option("--shard-images", default=1000, show_default=True, help="Images a shard.")
@click.option("--shard", "part", default="1/1", metavar="I/N", help="Only part I of N that share the job.")
@click.pass_context
def write(
    context: click.Context, images: Path, labels: Path | None, out: Path, part: str, **options: Any
) -> None:
    """Turn image files of named sheets into shards that train and predict can read.

    The same command continues a job that was stopped. Several machines share a job by --shard 1/2 and 2/2,
    in one folder or in folders that are copied together.
    """
    import re

    from utils.data.writing import write_from_labels

    found = re.fullmatch(r"(\d+)/(\d+)", part)
    if not found:
        raise UsageError(f"--shard {part}: must be I/N, as in 1/2 and 2/2.")
    options["split"] = options.pop("split_file")
    try:
        written = write_from_labels(
            labels, images, out, part=(int(found[1]), int(found[2])), **options, progress=True
        )
    except KeyboardInterrupt:
        click.echo("\nStopped. Finished shards are kept; the same command continues.", err=True)
        context.exit(130)
    for note in written.notes:
        click.echo(note)
    if written.missing:
        click.echo(
            f"{out}: {len(written.shards)} shards are here, {written.missing} are missing. Run the other parts "
            "of --shard; the last one, or any of them once all shards are in one folder, writes the metadata."
        )
    else:
        click.echo(f"{out}: {len(written.shards)} shards. Train on them: ./course train --data {out}")


@tfrecords.command(epilog=example("./course tfrecords inspect data/mine"))
@click.argument("files", nargs=-1, required=True, type=EXISTING)
def inspect(files: tuple[Path, ...]) -> None:
    """Show schema, counts, image sizes and bytes of shard FILES, or of all shards in a folder."""
    from utils.data.tfrecords import inspect as inspect_shards
    from utils.data.tfrecords import read_manifest, shards_in
    from utils.startup import import_tensorflow

    shards = shards_in(files)
    import_tensorflow()
    for shard in inspect_shards(shards):
        click.echo(shard.pop("file"))
        for name, value in shard.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {kind}" for key, kind in value.items())
            elif isinstance(value, list):
                value = ", ".join(value) or "none"
            click.echo(f"  {name.replace('_', ' '):<14} {'-' if value is None else value}")
    for folder in dict.fromkeys(path.parent for path in shards):
        manifest = read_manifest(folder)
        if manifest is not None:
            click.echo(_manifest_summary(folder, manifest))


def _manifest_summary(folder: Path, manifest: dict[str, Any]) -> str:
    records = ", ".join(f"{part} {count:,}" for part, count in manifest.get("records", {}).items())
    settings = ", ".join(
        f"{key} {manifest.get('settings', {}).get(key)}" for key in ("size", "fit", "quality")
    )
    lines = [
        f"{folder / 'manifest.json'}",
        f"  {'shards':<14} {len(manifest['shards'])}",
        f"  {'records':<14} {records}",
        f"  {'species':<14} {manifest.get('species', '-')}",
        f"  {'images':<14} {settings}",
        *(f"  {'note':<14} {note}" for note in manifest.get("notes", ())),
    ]
    return "\n".join(lines)


@tfrecords.command(epilog=example("./course tfrecords verify data/mine"))
@click.argument("files", nargs=-1, required=True, type=EXISTING)
def verify(files: tuple[Path, ...]) -> None:
    """Read every byte of shard FILES, or of all shards in a folder, and list what is damaged."""
    from utils.data.tfrecords import shards_in
    from utils.data.tfrecords import verify as verify_shards
    from utils.startup import import_tensorflow

    shards = shards_in(files)
    import_tensorflow()
    notes: list[str] = []
    problems = verify_shards(shards, progress=True, notes=notes)
    for note in notes[:20] + [f"... and {len(notes) - 20} more"] * (len(notes) > 20):
        click.echo(f"note: {note}", err=True)
    if problems:
        shown = problems[:20] + [f"... and {len(problems) - 20} more"] * (len(problems) > 20)
        raise InputError(
            "\n".join(
                [
                    f"{len(problems)} problems. Write or download these again, unless a line says otherwise:",
                    *shown,
                ]
            )
        )
    click.echo(f"{len(shards)} shards are whole.")


# ---------------------------------------------------------------- model


@main.command(epilog=example("./course model --profile reference --classes 15501"))
@PROFILE
@SETTINGS
@click.option("--classes", type=click.IntRange(2), required=True, help="Number of species.")
def model(profile: str, settings: tuple[str, ...], classes: int) -> None:
    """Print the numbers of parameters of a profile's network (with random weights, nothing is loaded)."""
    from utils.startup import import_tensorflow

    chosen = _profile(profile, (*settings, "weights=random"))
    import_tensorflow()
    from utils.training.backbone import build_model, parameter_counts

    total, trainable, fixed = parameter_counts(build_model(chosen, classes))
    click.echo(
        f"EfficientNetV2{chosen.backbone}, {chosen.image_size} x {chosen.image_size} px, {classes:,} classes"
    )
    for name, value in (("total", total), ("trainable", trainable), ("non-trainable", fixed)):
        click.echo(f"{name:<14} {value:>12,}")


@main.command(
    epilog=example(
        "./course train --data data/mine --out runs/mine -s epochs=30",
        "./course train --profile kaggle --plan --images-per-second 150",
    )
)
@PROFILE
@SETTINGS
@click.option("--data", type=FOLDER, help="Folder with shards and metadata. [default: the profile's own]")
@click.option("--out", type=OUT_FOLDER, help="Folder of the run. [default: runs/<profile>]")
@click.option("--max-hours", type=POSITIVE, help="Stop cleanly before so many hours are over.")
@click.option("--plan", is_flag=True, help="Only say what it takes: steps, hours, sessions, disk, memory.")
@click.option("--images-per-second", type=POSITIVE, help="With --plan: the speed to reckon with.")
def train(
    profile: str,
    settings: tuple[str, ...],
    data: Path | None,
    out: Path | None,
    max_hours: float | None,
    plan: bool,
    images_per_second: float | None,
) -> None:
    """Train a profile's network; the same command again goes on where the last one stopped.

    Beside the shards a split.csv, as `split` writes it, says what is held out. A damaged record stops the
    training by file and record; with -s skip_bad=true such records are left out and counted.
    """
    import math
    import time

    begin = time.time()
    from utils.datasets import find_data
    from utils.paths import output_dir

    chosen = _profile(profile, settings)
    if images_per_second and not plan:
        raise UsageError("--images-per-second goes with --plan.")
    if plan:
        _plan(chosen, data, out, images_per_second)
        return
    from utils.startup import import_tensorflow
    from utils.training.cluster import read_cluster

    read_cluster()  # before the data are looked for, or drawn
    found = find_data(chosen, data or "auto")
    import_tensorflow()
    from utils.training.loop import train as train_network

    folder = output_dir(out or "auto", chosen)
    stop_at = begin + 3600 * max_hours if max_hours else None
    result = train_network(chosen, found, folder, stop_at=stop_at)
    if not result.finished:
        return
    which = f"Best epoch {result.best_epoch}, validation macro-F1 {result.best_f1:.3f}"
    if math.isnan(result.best_f1):
        which = f"Epoch {result.best_epoch}, without a score"
    click.echo(f"{which}, weights {result.weights}")
    click.echo(f"Predict with: ./course predict --model {folder} --images FOLDER --out predictions.csv")


def _plan(profile: "Profile", data: Path | None, out: Path | None, images_per_second: float | None) -> None:
    """Print the plan; without the data it is that of the published set, and the exit code says so."""
    from utils.datasets import find_data, sample_folder
    from utils.paths import planned_dir
    from utils.training.plan import describe, make_plan

    found, missing = None, None
    if data is None and profile.source == "flora" and not sample_folder(profile).is_dir():
        where = f"{sample_folder(profile)}: the sample flora is made when the training begins"
    else:
        try:
            found = find_data(profile, data or "auto")
            where = f"{len(found.train_shards)} training shards in {found.train_shards[0].parent}, "
            where += f"{len(found.test_shards) or 'no'} test shards, "
            where += "metadata" if found.train_metadata else "no train_metadata.json"
        except InputError as error:
            missing, where = error, "NOT THERE, see below"
    for line in describe(make_plan(profile, found), profile, planned_dir(out, profile), images_per_second):
        click.echo(line)
    click.echo(f"data               {where}")
    if missing:
        raise missing


@main.command(
    epilog=example(
        "./course predict --model runs/mine --images new_sheets --out predictions.csv --html predictions.html"
    )
)
@click.option("--model", "run_dir", type=FOLDER, required=True, help="Folder of a training run.")
@click.option("--shards", type=EXISTING, multiple=True, help="A shard; can be given several times.")
@click.option("--data", type=FOLDER, help="Data folder, whose test shards are predicted.")
@click.option("--images", type=FOLDER, help="Folder of image files (JPEG, PNG, TIFF), subfolders too.")
@click.option("--out", type=OUT_FILE, required=True, help="CSV to write: image_id and the five best species.")
@click.option("--html", type=OUT_FILE, help="Page to write: each sheet, its answers, what speaks for them.")
@click.option(
    "--tta", is_flag=True, help="Average over the sheet and its mirror images; two to four times slower."
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and list them.")
@click.argument("more_shards", nargs=-1, type=EXISTING)
def predict(
    run_dir: Path,
    shards: tuple[Path, ...],
    data: Path | None,
    images: Path | None,
    out: Path,
    html: Path | None,
    tta: bool,
    skip_bad: bool,
    more_shards: tuple[Path, ...],
) -> None:
    """Name the five most probable species of every sheet, with genus, family and probability.

    Give one of --shards (more shards may follow it, as from *.tfrec), --data or --images.
    """
    shards = (*shards, *more_shards)
    if sum(map(bool, (shards, data, images))) != 1:
        raise UsageError("Give one of --shards, --data and --images: what is to be predicted.")
    if (html or skip_bad) and not images:
        raise UsageError("--html and --skip-bad go with --images only.")
    if html and html.resolve() == out.resolve():
        raise UsageError(f"--html {html}: is the CSV of --out too. Give the page another name.")
    for path in filter(None, (out, html)):
        check_writable(path)
    if images:
        _predict_images(run_dir, images, out, html, tta, skip_bad)
        return
    from utils.datasets import find_data
    from utils.startup import import_tensorflow

    if data:
        shards = find_data(_profile("auto"), data).test_shards
        if not shards:
            raise InputError(f"{data}: no test shards (*_test*.tfrec). Name the shards by --shards.")
    import_tensorflow()
    from utils.data.pipeline import evaluation_dataset
    from utils.data.tfrecords import count_records
    from utils.evaluation.predict import predict as predict_sheets
    from utils.evaluation.predict import write_predictions_csv
    from utils.training.loop import load_trained

    network, chosen, labels = load_trained(run_dir)
    dataset = evaluation_dataset(
        shards, image_size=chosen.image_size, batch_size=chosen.batch_size, crop=chosen.crop
    )
    predictions = predict_sheets(
        network, dataset, tta=tta, augment=chosen.augment, total=count_records(shards), shards=shards
    )
    click.echo(f"{len(predictions):,} sheets -> {write_predictions_csv(predictions, labels, out)}")


def _predict_images(
    run_dir: Path, images: Path, out: Path, html: Path | None, tta: bool, skip_bad: bool
) -> None:
    from utils.evaluation.folder import find_images, predict_folder
    from utils.startup import import_tensorflow

    files, left_out = find_images(images, skip_bad=skip_bad)
    for path in {path.resolve() for path in (out, html) if path} & {path.resolve() for path in files}:
        raise UsageError(f"{path}: is one of the images to predict. Give what is written another name.")
    import_tensorflow()
    notes: dict[str, str] = {}
    predictions = predict_folder(
        run_dir, images, files, left_out, out, html=html, tta=tta, skip_bad=skip_bad, notes=notes
    )
    for name, note in notes.items():
        click.echo(f"note: {name}: {note}", err=True)
    for name, reason in left_out.items():
        click.echo(f"left out: {name}: {reason}", err=True)
    click.echo(f"{len(predictions):,} sheets -> {out}")
    if html:
        click.echo(f"Look at {html.resolve()}")


# ---------------------------------------------------------------- submission


@main.group(epilog=example("./course submission validate submission.csv --data data/mine"))
def submission() -> None:
    """Check or score a submission file (header Id,Predicted)."""


@submission.command(epilog=example("./course submission validate submission.csv --data data/flora40"))
@click.argument("file", type=EXISTING)
@PROFILE
@click.option("--data", type=FOLDER, help="Folder with test_metadata.json and the labels' metadata.")
def validate(file: Path, profile: str, data: Path | None) -> None:
    """Say whether Kaggle would take a submission FILE: every test id once, only known category_ids."""
    from utils.data.metadata import read_test_metadata
    from utils.datasets import find_data
    from utils.evaluation.submission import validate_submission

    found = find_data(_profile(profile), data or "auto")
    if found.test_metadata is None:
        raise InputError(
            "The data have no test_metadata.json, so the test ids are not known. Name them by --data."
        )
    problems = validate_submission(file, read_test_metadata(found.test_metadata), found.labels().category_ids)
    if problems:
        raise InputError("\n".join(problems))
    click.echo(f"{file} is valid.")


@submission.command(epilog=example("./course submission score submission.csv --data data/flora40"))
@click.argument("file", type=EXISTING)
@PROFILE
@click.option("--data", type=FOLDER, help="Folder with solution.csv and the labels' metadata.")
@click.option("--solution", type=EXISTING, help="The withheld answers, in place of the data's own.")
def score(file: Path, profile: str, data: Path | None, solution: Path | None) -> None:
    """Score a submission FILE locally as Kaggle would: macro-F1 over all species."""
    from utils.datasets import find_data
    from utils.evaluation.submission import score_submission

    found = find_data(_profile(profile), data or "auto")
    answers = solution or found.solution
    if answers is None:
        raise InputError(
            "The data have no solution.csv: only Kaggle can score this. Or name one by --solution."
        )
    result = score_submission(file, answers, found.labels().category_ids)
    for warning in result.pop("warnings"):
        click.echo(warning, err=True)
    for name, value in result.items():
        shown = f"{value:.5f}" if isinstance(value, float) else f"{value:,}"
        click.echo(f"{name.replace('_', ' '):<24} {shown:>12}")


# ---------------------------------------------------------------- Kaggle


@main.group(epilog=example("./course kaggle build --owner NAME", "./course kaggle push --dry-run"))
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
    from utils import kaggle as suite

    for folder in suite.build(owner, out, state):
        click.echo(folder)
    if not (out / suite.WEIGHTS).is_dir():
        click.echo(
            f"Weights, once, where there is internet: ./course kaggle weights --owner {owner} --out {out}"
        )


@kaggle.command(epilog=example("./course kaggle weights --owner NAME"))
@OWNER
@BUILD
def weights(owner: str, out: Path) -> None:
    """Download the ImageNet weights of profile kaggle and write them as a data set's folder."""
    from utils import kaggle as suite
    from utils.config import load_profile
    from utils.startup import import_tensorflow

    profile = load_profile("kaggle")
    import_tensorflow()
    click.echo(suite.build_weights(owner, out, profile.weights, profile.backbone))


@kaggle.command("check", epilog=example("./course kaggle check build/kaggle"))
@BUILT
def check_kernels(folder: Path) -> None:
    """Lint built kernels in DIR (default build/kaggle) offline: one line a problem."""
    from utils.kaggle import check as check_built

    problems = check_built(folder)
    if problems:
        raise InputError("\n".join([f"{folder}: {len(problems)} problems. Build again, or mend:", *problems]))
    click.echo(f"{folder}: nothing that Kaggle would refuse.")


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
    from utils.kaggle import Push, official_tool

    if dry_run:
        for line in Push(folder).commands(only):
            click.echo(line)
        return
    Push(folder, official_tool()).run(only)
    click.echo("Pushed. Watch the kernels at https://www.kaggle.com/code?userRecent=true")


if __name__ == "__main__":
    main(prog_name=os.environ.get("COURSE_PROGRAM", "python -m utils"))
