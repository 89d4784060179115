"""Commands of data: flora, metadata, table, split, tfrecords."""

from pathlib import Path
from typing import Any

import click

from utils.cli.common import (
    DRY_RUN,
    EXISTING,
    FOLDER,
    OUT_FILE,
    OUT_FOLDER,
    PART,
    SBATCH,
    SEED,
    SLURM,
    Commands,
    check_slurm,
    check_writable,
    echo,
    example,
    part_of,
    submit_shared,
)
from utils.files import InputError, UsageError
from utils.own.telling import told


@click.command(epilog=example("./course flora --species 40 --out data/flora40"))
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
    from utils.flora.full_size import make_metadata
    from utils.flora.sample import make_flora

    if as_json and not metadata_only:
        raise UsageError("--json goes with --metadata-only: a flora with images always has the JSON files.")
    if metadata_only:
        with told("drawing metadata"):
            folder = make_metadata(out, seed=seed, json=as_json)
    else:
        folder = make_flora(out, species=species, seed=seed, max_images=max_images, form=form)
    echo(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


@click.command(
    epilog=example("./course metadata data/train_metadata.json", "./course metadata my_sheets --json")
)
@click.argument("file", type=EXISTING)
@click.option("--json", "as_json", is_flag=True, help="The same for programs, as JSON.")
def metadata(file: Path, as_json: bool) -> None:
    """Check a metadata FILE in any form and summarise it: images, species, families, the long tail.

    FILE is train_metadata.json, test_metadata.json, the TSV of NAFlora-mini, a CSV of own sheets (file_name,
    scientificName; image_id, authors, genus, species and family where known; Darwin Core's names of these
    too), a folder with one subfolder per species, or a folder of columns (.columns).
    """
    import json

    from utils.data.forms.summary import summarize_file

    with told(f"reading {file}"):
        summary = summarize_file(file)
    if as_json:
        known = {name: None if value != value else value for name, value in summary.items()}  # NaN is no JSON
        echo(json.dumps(known, indent=2))
        return
    notes = summary.pop("notes", [])
    for name, value in summary.items():
        shown = f"{value:,.3f}" if isinstance(value, float) else value if name == "form" else f"{value:,}"
        echo(f"{name.replace('_', ' '):<24} {shown:>12}")
    for note in notes:
        echo(note)


@click.command(epilog=example("./course table sheets --out labels.csv"))
@click.argument("folder", type=FOLDER)
@click.option("--out", type=OUT_FILE, required=True, help="CSV to write: file_name, scientificName ...")
def table(folder: Path, out: Path) -> None:
    """Write a table of a FOLDER of sheets in any layout, to look at before it is given as --labels.

    Its species is the innermost folder that is named as one; families, and folders named train, val or test,
    become columns. The file is a split for --split too, where it has that column.
    """
    from utils.data.forms.folders import table_of

    check_writable(out)
    with told(f"reading {folder}"):
        rows = table_of(folder, out)
    parts = (
        [f"{part} {count:,}" for part, count in rows["split"].value_counts().items()]
        if "split" in rows
        else []
    )
    echo(
        f"{out}: {len(rows):,} images of {rows['scientificName'].nunique():,} species"
        f"{' (' + ', '.join(parts) + ')' if parts else ''}. Look at the names."
    )


@click.command(
    epilog=example("./course split sheets/labels.csv --test 0.2 --group collector --out split.csv")
)
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
    from utils.data.forms import sheets
    from utils.data.forms.names import look_alike_notes
    from utils.data.labels import LabelMap
    from utils.data.metadata import read_metadata
    from utils.own.split import assign, report, write_split

    check_writable(out)
    with told(f"dividing {file}"):
        tables = read_metadata(file)
        labels = LabelMap.from_metadata(tables)
        classes = labels.to_class(tables.annotations["category_id"])
        ids = tables.annotations["image_id"].to_numpy(dtype=object)
        groups = None if group is None else sheets.groups_of(ids, group, tables, file)
        parts = assign(ids, classes, validation=validation, test=test, seed=seed, groups=groups)
        write_split(ids, parts, out)
        notes = look_alike_notes(labels.names.tolist())
    for note in notes:
        echo(note)
    echo(report(classes, parts).to_string(index=False))
    for part, wanted in (("validation", validation), ("test", test)):
        if wanted:
            echo(f"{splits.coverage(classes, parts, labels.n_classes, part)}.")
    echo(f"{out}: {len(ids):,} images.")


@click.group(cls=Commands, epilog=example("./course tfrecords verify data/mine"))
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
@click.option(
    "--keep-doubtful",
    is_flag=True,
    help="Names with cf. or aff. or without an epithet stay, each a class; else doubtful.csv lists them.",
)
@click.option("--test-fraction", default=0.0, show_default=True, help="Share of each species to withhold.")
@click.option("--split", "split_file", type=EXISTING, help="In place of it, a file that `split` wrote.")
@click.option(
    "--label-map", type=EXISTING, help="A labels.json, or a run's folder, that numbers the species."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the order and of what is withheld.")
@click.option("--shard-images", default=1000, show_default=True, help="Images a shard.")
@PART
@SLURM
@SBATCH
@DRY_RUN
@click.pass_context
def write(
    context: click.Context,
    images: Path,
    labels: Path | None,
    out: Path,
    part: str,
    parts: int | None,
    sbatch: tuple[str, ...],
    dry_run: bool,
    **options: Any,
) -> None:
    """Turn image files of named sheets into shards that train and predict can read.

    The same command continues a job that was stopped. Several machines share a job by --shard 1/2 and 2/2,
    in one folder or in folders that are copied together; on a cluster --slurm 8 does that.
    """
    from utils.own.write import begin_shared, write_from_labels

    check_slurm(part, parts, sbatch, dry_run)
    options["split"] = options.pop("split_file")
    way_on = f"Train on them: ./course train --profile sheets --data {out}"
    if parts is not None:
        checked = {name: value for name, value in options.items() if name != "skip_bad"}
        if begin_shared(labels, images, out, parts, write=not dry_run, **checked):
            echo(f"{out}: all shards are here. {way_on}")
        else:
            submit_shared(context, out, parts, sbatch, dry_run)
        return
    written = write_from_labels(labels, images, out, part=part_of(part), **options, progress=True)
    for note in written.notes:
        echo(note)
    if written.missing:
        echo(
            f"{out}: {len(written.shards)} shards are here, {written.missing} are missing. Run the other parts "
            "of --shard; the last one, or any of them once all shards are in one folder, writes the metadata."
        )
    else:
        shards = len(written.shards)
        echo(f"{out}: {shards} shard{'s' * (shards != 1)}. {way_on}")


@tfrecords.command(epilog=example("./course tfrecords inspect data/mine"))
@click.argument("files", nargs=-1, required=True, type=EXISTING)
def inspect(files: tuple[Path, ...]) -> None:
    """Show schema, counts, image sizes and bytes of shard FILES, or of all shards in a folder."""
    from utils.data.shards import read_manifest
    from utils.own.verify import inspect as inspect_shards
    from utils.own.verify import shards_in
    from utils.startup import import_tensorflow

    shards = shards_in(files)
    import_tensorflow()
    with told(f"reading {len(shards)} shards"):
        inspected = inspect_shards(shards)
    for shard in inspected:
        echo(shard.pop("file"))
        for name, value in shard.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {kind}" for key, kind in value.items())
            elif isinstance(value, list):
                value = ", ".join(value) or "none"
            echo(f"  {name.replace('_', ' '):<14} {'-' if value is None else value}")
    for folder in dict.fromkeys(path.parent for path in shards):
        manifest = read_manifest(folder)
        if manifest is not None:
            echo(_manifest_summary(folder, manifest))


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
    from utils.own.verify import shards_in
    from utils.own.verify import verify as verify_shards
    from utils.startup import import_tensorflow

    shards = shards_in(files)
    import_tensorflow()
    notes: list[str] = []
    problems = verify_shards(shards, progress=True, notes=notes)
    for note in _first(notes):
        echo(f"note: {note}", err=True)
    if problems:
        heading = f"{len(problems)} problems. Write or download these again, unless a line says otherwise:"
        raise InputError("\n".join([heading, *_first(problems)]))
    echo("1 shard is whole." if len(shards) == 1 else f"{len(shards)} shards are whole.")


def _first(lines: list[str], most: int = 20) -> list[str]:
    return lines[:most] + [f"... and {len(lines) - most} more"] * (len(lines) > most)
