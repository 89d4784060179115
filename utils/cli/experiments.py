"""The command of experiments: batch."""

from pathlib import Path

import click

from utils.cli.common import EXISTING, FOLDER, OUT_FOLDER, SBATCH, example
from utils.files import UsageError


@click.command(
    epilog=example(
        "./course batch notebooks/batches/example.batch.yaml --dry-run",
        "./course batch notebooks/batches/long_tail.batch.yaml --jobs 2",
        "./course batch notebooks/batches/leaves.batch.yaml --data data/leaves_0 --data data/leaves_1",
        "./course batch notebooks/batches/long_tail.batch.yaml --slurm --sbatch partition=gpu --sbatch gpus=1",
    )
)
@click.argument("file", type=EXISTING)
@click.option(
    "--data",
    type=FOLDER,
    multiple=True,
    help="Folder of shards in place of FILE's data; given several times, every run is done on each.",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Runs at a time. [default: 1; with --slurm as there is room]"
)
@click.option("--slurm", is_flag=True, help="Run them as jobs of Slurm, see notebooks/SLURM.md.")
@SBATCH
@click.option(
    "--dry-run", is_flag=True, help="Only state the plan: every run and how far it is; for Slurm the script."
)
@click.option("--out", type=OUT_FOLDER, help="Folder of the runs. [default: runs/batches/<name of FILE>]")
def batch(
    file: Path,
    data: tuple[Path, ...],
    jobs: int | None,
    slurm: bool,
    sbatch: tuple[str, ...],
    dry_run: bool,
    out: Path | None,
) -> None:
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
      data: ../my_shards          in place of the profile's own, or a list; from FILE's folder
      table: ../results/a.csv     where the table goes too once every run has finished
      slurm: {partition: gpu, time: 4:00:00}                with --slurm: options of sbatch

    Only `run` must be there.
    """
    from utils.experiments.run import run_batch
    from utils.experiments.slurm import given_options
    from utils.own.telling import told

    if sbatch and not slurm:
        raise UsageError("--sbatch goes with --slurm.")
    options = given_options(sbatch) if slurm else None
    with told("reading the batch and its runs", progress=dry_run):
        run_batch(file, out=out, data=data, jobs=jobs, dry_run=dry_run, sbatch=options)
