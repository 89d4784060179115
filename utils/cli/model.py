"""Commands of a network: model, train, predict."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from utils.cli.common import (
    DRY_RUN,
    EXISTING,
    FOLDER,
    OUT_FILE,
    OUT_FOLDER,
    PART,
    POSITIVE,
    PROFILE,
    SBATCH,
    SETTINGS,
    SLURM,
    SURE,
    check_slurm,
    check_writable,
    echo,
    example,
    part_of,
    profile_of,
    submit_shared,
)
from utils.files import InputError, UsageError
from utils.own.telling import told

if TYPE_CHECKING:
    from utils.config import Profile
    from utils.own.answers import Judged
    from utils.own.parts import Parts


@click.command(epilog=example("./course model --profile reference --classes 15501"))
@PROFILE
@SETTINGS
@click.option("--classes", type=click.IntRange(2), required=True, help="Number of species.")
def model(profile: str, settings: tuple[str, ...], classes: int) -> None:
    """Print the numbers of parameters of a profile's network (with random weights, nothing is loaded)."""
    from utils.startup import import_tensorflow

    chosen = profile_of(profile, (*settings, "weights=random"))
    import_tensorflow()
    from utils.training.network import build_model, parameter_counts

    total, trainable, fixed = parameter_counts(build_model(chosen, classes))
    echo(f"{chosen.network_name}, {chosen.image_size} x {chosen.image_size} px, {classes:,} classes")
    for name, value in (("total", total), ("trainable", trainable), ("non-trainable", fixed)):
        echo(f"{name:<14} {value:>12,}")


@click.command(
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
    from utils.files import planned_dir
    from utils.flora.of_profile import sample_folder
    from utils.sources import find_data

    chosen = profile_of(profile, settings)
    if images_per_second and not plan:
        raise UsageError("--images-per-second goes with --plan.")
    if plan:
        _plan(chosen, data, out, images_per_second)
        return
    folder = planned_dir(out or "auto", chosen)
    check_writable(folder / "state")
    from utils.startup import import_tensorflow
    from utils.training.devices import is_chief, read_cluster, wait_for_all

    read_cluster()  # before the data are looked for, or drawn
    to_draw = data is None and chosen.source == "flora" and not sample_folder(chosen).is_dir()
    if to_draw and Path(chosen.weights).suffix:
        import_tensorflow()
        from utils.training.network import build_model

        build_model(chosen, 2)  # refuses weights that do not fit, before the flora is drawn
    found = find_data(chosen, data or "auto")
    import_tensorflow()
    from utils.training.loop import train as train_network

    stop_at = begin + 3600 * max_hours if max_hours else None
    with told("training"):
        result = train_network(chosen, found, folder, stop_at=stop_at)
    if not result.finished:
        return
    which = f"Best epoch {result.best_epoch}, validation macro-F1 {result.best_f1:.3f}"
    if math.isnan(result.best_f1):
        which = f"Epoch {result.best_epoch}, without a score"
    echo(f"{which}, weights {result.weights}")
    if is_chief():
        from utils.own.worth import told as in_words
        from utils.own.worth import worth_of

        with told("measuring what answers are worth"):
            worth = worth_of(folder, found, progress=sys.stderr.isatty())  # in a log a bar is many lines
        echo(in_words(worth))
    wait_for_all(result.strategy)  # TensorFlow takes a worker that ends before the others for one that failed
    echo(f"Predict with: ./course predict --model {folder} --images FOLDER --out predictions.csv")


def _plan(profile: "Profile", data: Path | None, out: Path | None, images_per_second: float | None) -> None:
    """Print the plan; without the data it is that of the published set, and the exit code says so."""
    from utils.experiments.plan import describe, make_plan
    from utils.files import planned_dir
    from utils.flora.of_profile import sample_folder
    from utils.sources import find_data

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
    with told("counting"):
        lines = describe(make_plan(profile, found), profile, planned_dir(out, profile), images_per_second)
    for line in lines:
        echo(line)
    echo(f"data               {where}")
    if missing:
        raise missing


@click.command(
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
@SURE
@click.option(
    "--labels", type=EXISTING, help="With --images: a table whose image_id the answers take, by file."
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and list them.")
@PART
@SLURM
@SBATCH
@DRY_RUN
@click.argument("more_shards", nargs=-1, type=EXISTING)
@click.pass_context
def predict(
    context: click.Context,
    run_dir: Path,
    shards: tuple[Path, ...],
    data: Path | None,
    images: Path | None,
    out: Path,
    html: Path | None,
    tta: bool,
    sure: float,
    labels: Path | None,
    skip_bad: bool,
    part: str,
    parts: int | None,
    sbatch: tuple[str, ...],
    dry_run: bool,
    more_shards: tuple[Path, ...],
) -> None:
    """Answer every sheet at the rank that is sure, and name its five most probable species.

    Give one of --shards (more shards may follow it, as from *.tfrec), --data or --images. Of each sheet the CSV says
    whether the answer is sure, doubtful, or the sheet unlike anything that the model was trained on, as far as
    sheets were held out of its training to measure that by.

    Several machines share the work by --shard 1/2 and 2/2: the one that finds all parts writes the CSV. On a cluster
    --slurm 8 does that.
    """
    check_slurm(part, parts, sbatch, dry_run)
    index, count = (parts, parts) if parts is not None else part_of(part)  # the last part stands for all
    if html and count > 1:
        raise UsageError("--html goes without --shard and --slurm. Make the page in a call for fewer images.")
    shards = (*shards, *more_shards)
    if sum(map(bool, (shards, data, images))) != 1:
        raise UsageError("Give one of --shards, --data and --images: what is to be predicted.")
    if (html or skip_bad or labels) and not images:
        raise UsageError("--html, --labels and --skip-bad go with --images only.")
    if html and str(html.resolve()).casefold() == str(out.resolve()).casefold():  # one file on many disks
        raise UsageError(f"--html {html}: is the CSV of --out too. Give the page another name.")
    for path in filter(None, (out, html)):
        check_writable(path)
    from utils.own.parts import Parts

    options = {"tta": tta, "skip_bad": skip_bad, "sure": sure}
    share = Parts(out, (index, count), run_dir, labels, **options) if count > 1 else None
    submit = partial(submit_shared, context, out, parts, sbatch, dry_run) if parts else None
    if images:
        _predict_images(run_dir, images, out, html, tta, skip_bad, sure, labels, share, submit)
        return
    from utils.sources import Data, find_data
    from utils.startup import import_tensorflow

    if data:
        found = find_data(profile_of("auto"), data)
        shards = found.test_shards
        if not shards:
            raise InputError(f"{data}: no test shards (*_test*.tfrec). Name the shards by --shards.")
    if share:
        shards = share.shards(shards)
    if _is_settled(share, submit):
        return
    import_tensorflow()
    from utils.own.answers import write_answers_csv
    from utils.own.worth import answer_shards

    judged, of = answer_shards(run_dir, Data(kind="folder", test_shards=tuple(shards)), sure=sure, tta=tta)
    write_answers_csv(judged, of, share.file if share else out)
    _tell(out, _statuses(judged), {}, {}, share)


def _is_settled(share: "Parts | None", submit: Callable[[], None] | None) -> bool:
    """Whether this call has nothing to predict: it gives the work to Slurm, or its part is there, and says so."""
    if submit:
        submit()
    elif share and share.done:
        _tell_parts(share)
    else:
        return False
    return True


def _statuses(judged: "Judged") -> dict[str, int]:
    from utils.own.answers import STATUSES

    return {status: int((judged.status == status).sum()) for status in STATUSES}


def _tell(
    out: Path, counts: dict[str, int], left_out: dict[str, str], notes: dict[str, str], share: "Parts | None"
) -> None:
    """Say what was predicted, once it is in `out`; a part is noted, and joined with the others when they are there."""
    if share:
        share.finish(counts, left_out, notes)
        _tell_parts(share)
        return
    for name, note in notes.items():
        echo(f"note: {name}: {note}", err=True)
    for name, reason in left_out.items():
        echo(f"left out: {name}: {reason}", err=True)
    echo(f"{sum(counts.values()):,} sheets -> {out}")
    echo(", ".join(f"{status} {count:,}" for status, count in counts.items() if count))


def _tell_parts(share: "Parts") -> None:
    """Write the CSV where all parts are there, and say what is there."""
    if share.missing:
        echo(
            f"Part {share.part[0]} of {share.part[1]} is in {share.folder}, {share.missing} are missing. Run the other "
            "parts of --shard; the last one, or any of them again, writes the CSV."
        )
        return
    _tell(share.out, *share.join(), share=None)
    echo(f"{share.folder.parent} can be deleted.")


def _predict_images(
    run_dir: Path,
    images: Path,
    out: Path,
    html: Path | None,
    tta: bool,
    skip_bad: bool,
    sure: float,
    labels: Path | None,
    share: "Parts | None",
    submit: Callable[[], None] | None,
) -> None:
    from utils.own.folder import find_images, predict_folder
    from utils.startup import import_tensorflow

    with told(f"looking at the images in {images}"):
        files, left_out = find_images(images, skip_bad=skip_bad, take=share and share.images)
    for path in {path.resolve() for path in (out, html) if path} & {path.resolve() for path in files}:
        raise UsageError(f"{path}: is one of the images to predict. Give what is written another name.")
    if _is_settled(share, submit):
        return
    ids = None
    if labels:
        from utils.data.metadata import read_metadata

        with told(f"reading {labels}"):
            table = read_metadata(labels).images
        ids = dict(zip(table["file_name"], table["image_id"], strict=True))
    import_tensorflow()
    notes: dict[str, str] = {}
    judged = predict_folder(
        run_dir,
        images,
        files,
        left_out,
        share.file if share else out,
        html=html,
        tta=tta,
        skip_bad=skip_bad,
        notes=notes,
        sure=sure,
        ids=ids,
    )
    _tell(out, _statuses(judged), left_out, notes, share)
    if html:
        echo(f"Look at {html.resolve()}")


@click.command(
    epilog=example(
        "./course export --model runs/mine --data data/mine --out exported",
        "python exported/identify.py IMAGE",
    )
)
@click.option("--model", "run_dir", type=FOLDER, required=True, help="Folder of a training run.")
@click.option(
    "--out", type=OUT_FOLDER, required=True, help="Folder to write; an earlier export in it is replaced."
)
@click.option(
    "--data",
    type=FOLDER,
    help="The data that it was trained on: for int8, and to compare the formats. [default: the sample flora, if that]",
)
def export(run_dir: Path, out: Path, data: Path | None) -> None:
    """Write a run's network for others: SavedModel, LiteRT, labels, scores, a card, and a script that uses it."""
    import os

    from utils.own.export import export as export_run
    from utils.own.export import refuse_other_files
    from utils.startup import import_tensorflow

    refuse_other_files(out)
    check_writable(out)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # in float32, as it runs elsewhere
    import_tensorflow()
    with told("exporting"):
        exported = export_run(run_dir, out, data)
    for name, facts in exported.items():
        if "left_out" in facts:
            echo(f"{name:<8} not written: {facts['left_out']}.")
            continue
        line = f"{name:<8} {facts['file']}, {facts['bytes'] / 1e6:.1f} MB, "
        line += f"probabilities differ by at most {facts['largest_difference']:.1g}"
        if facts["macro_f1"] is not None:
            line += f", macro-F1 {facts['macro_f1']:.3f} on {facts['sheets']:,} held-out sheets"
        echo(f"{line}.")
    echo(f"Read {out / 'README.md'}")
