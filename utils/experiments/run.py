"""Batches run: every run of a batch file as a process of its own, in a folder of its own, and one table.

What the runs are says `utils.experiments.spec`, what one does `one`, how it is scored `scoring`, the table `table`.
"""

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from utils.experiments import arrays, slurm
from utils.experiments.spec import LOG_FILE, Batch, BatchRun, read_batch, write_spec
from utils.experiments.table import METRICS, metrics_of, show_table, shown_number, summary_table, write_table
from utils.files import REPOSITORY, InputError, cores, printable
from utils.flora.of_profile import with_extra_test
from utils.sources import find_data
from utils.startup import holding


def plan(batch: Batch, jobs: int = 1, there: Mapping[Path, str] = {}, *, on_slurm: bool = False) -> str:
    """What the batch will do, in lines: how many runs of what, scored on what, and the state of each.

    Args:
        jobs: runs at a time on this machine.
        there: what `utils.experiments.arrays.states` says of runs that were given to Slurm.
        on_slurm: the runs are, or go, there.
    """
    states = [_state(run, there.get(run.folder, "")) for run in batch.runs]
    finished = states.count("finished")
    begun = sum(run.epochs_done > 0 for run in batch.runs if not run.finished)
    what = "train" if batch.notebook is None else batch.notebook.stem
    scored = {"withheld": "the withheld test", "none": "validation only"}.get(
        str(batch.test), f"{batch.test} further sheets of every species"
    )
    where = f"{jobs} at a time with {_threads(jobs)} threads each"
    if on_slurm:
        waiting = [there.get(run.folder, "") for run in batch.runs if not run.finished]
        failed = sum(state.startswith("failed") for state in states)
        where = f"{slurm.in_words(waiting)}, {failed} failed"
    lines = [f"{batch.file}: {batch.about}" if batch.about else str(batch.file)]
    lines.append(f"{len(batch.runs)} runs of {what}: {finished} finished, {begun} begun, {where}")
    lines.append(f"Scored on {scored}. Folder: {batch.folder}")
    lines += [f"Data: {', '.join(map(str, batch.data))}"] if any(batch.data) else []
    if minutes := [metrics_of(run)["minutes"] for run in batch.runs if run.finished]:
        left = (len(batch.runs) - finished) * sum(minutes) / len(minutes)
        time = f"About {left:.0f} minutes of computing" if on_slurm else f"About {left / jobs:.0f} minutes"
        lines.append(f"{time} to do, if they train as long as those that have finished.")
    lines.append(f"{'state':<14} {'profile':<10} {'seed':>4}  method")
    for run, state in zip(batch.runs, states, strict=True):
        data = f", {run.data.name}" if run.data and run.of_several else ""
        lines.append(f"{state:<14} {run.profile.name:<10} {run.seed:>4}  {run.method}{data}")
    return printable("\n".join(lines))


def _state(run: BatchRun, there: str) -> str:
    """The state of a run; `there` is what Slurm's queue says of it."""
    if run.finished:
        return "finished"
    if there.startswith("queued"):
        return "queued"
    done = f"{run.epochs_done} of {run.profile.epochs}" if run.epochs_done else ""
    if there:
        return f"{'running' if there == 'running' else 'failed'} {done}".strip()
    return f"epoch {done}" if done else "to do"


def _threads(jobs: int) -> int:
    return max(1, cores() // jobs)


def run_batch(
    file: Path,
    *,
    out: Path | None = None,
    data: Sequence[Path] = (),
    jobs: int | None = None,
    dry_run: bool = False,
    sbatch: Mapping[str, str] | None = None,
) -> Batch:
    """State the plan, do what is not done yet, and show the table; the same call again goes on.

    The table is in summary.csv of the batch's folder, renewed after runs, as often as that takes at most a twentieth
    of the time. A run that fails does not stop
    the others, and the next call tries it again.

    Args:
        file, out, data: as for `read_batch`.
        jobs: runs at a time; the processor's threads are divided among them. None for 1, on Slurm for as many as
            it has room for.
        dry_run: only state the plan, and what would be given to Slurm.
        sbatch: options of sbatch, to run the batch on Slurm; None to run it here. Here, runs that wait or are at
            work there are left alone.

    Raises:
        UsageError, InputError: as `read_batch`, or the data are not there, or there is no Slurm. Nothing has been
            run then.
        InputError: some runs failed; the message says where their logs are.
    """
    from tqdm.auto import tqdm

    batch = read_batch(file, out, data)
    on_slurm = sbatch is not None
    if on_slurm and not dry_run:
        slurm.need_slurm("without --slurm, which runs it here")
    there = arrays.states(batch) if slurm.is_here() else {}
    print(plan(batch, jobs or 1, there, on_slurm=on_slurm), flush=True)
    at_work = {folder for folder, state in there.items() if state != "gone"}
    if dry_run:
        to_submit = [run for run in batch.runs if on_slurm and not run.finished and run.folder not in at_work]
        for job, _ in arrays.jobs(batch, to_submit, {**batch.slurm, **(sbatch or {})}, jobs):
            print(f"\n{job}")
        return batch
    with holding(batch.folder):
        _prepare_data(batch)
        waiting = [run for run in batch.runs if not run.finished]
        if not on_slurm and (elsewhere := [run for run in waiting if run.folder in at_work]):
            print(f"{len(elsewhere)} runs are left to Slurm, where they wait or are at work.")
            waiting = [run for run in waiting if run.folder not in at_work]
        failed: list[BatchRun] = []
        renew = time.monotonic()
        bar = tqdm(total=len(batch.runs), initial=len(batch.runs) - len(waiting), unit="run", disable=None)
        ended = (
            arrays.collect(batch, waiting, {**batch.slurm, **sbatch}, jobs, tqdm.write, bar.set_postfix_str)
            if sbatch is not None
            else _run_here(batch, waiting, jobs or 1, bar.set_postfix_str)
        )
        with bar, closing(ended):
            for run, how in ended:
                if run.finished:
                    tqdm.write(printable(f"finished  {run.title}: {_in_short(run)}"))
                    if time.monotonic() >= renew:  # a table of thousands of runs takes seconds
                        begin = time.monotonic()
                        write_table(summary_table(batch), batch.folder / "summary.csv")
                        renew = time.monotonic() + 20 * (time.monotonic() - begin)
                else:
                    failed.append(run)
                    tqdm.write(printable(f"FAILED    {run.title}: {_last_line(run)} ({how})"))
                bar.update()
        table = summary_table(batch)
        write_table(table, batch.folder / "summary.csv")
        print(f"\n{printable(show_table(table))}\n\n{batch.folder / 'summary.csv'}")
        if failed:
            logs = "\n".join(f"{run.title}: {run.folder / LOG_FILE}" for run in failed)
            raise InputError(
                f"{len(failed)} of {len(batch.runs)} runs failed; the same command tries them again:\n{logs}"
            )
        if batch.table and all(run.finished for run in batch.runs):
            write_table(table, batch.table)
            print(batch.table)
    return batch


def _run_here(
    batch: Batch, runs: Sequence[BatchRun], jobs: int, show: Callable[[str], None]
) -> Iterator[tuple[BatchRun, str]]:
    """Do the runs, `jobs` at a time, and give each with how it ended; closed, it ends those that are at work."""
    from tqdm.auto import tqdm

    waiting = list(runs)
    running: dict[subprocess.Popen, BatchRun] = {}
    look = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running[_start(batch, run, _threads(jobs))] = run
                tqdm.write(printable(f"begins    {run.title}"))
            for process in [process for process in running if process.poll() is not None]:
                code = process.returncode
                yield running.pop(process), f"ended by signal {-code}" if code < 0 else f"exit code {code}"
            if time.monotonic() > look + 2:
                look = time.monotonic()
                show(", ".join(map(_progress, running.values())))
            time.sleep(0.1)
    finally:
        for process in running:  # of an interrupted batch; what they have saved stays
            process.kill()
            process.wait()


def _prepare_data(batch: Batch) -> None:
    """Find or make the data of all runs, once, before several processes need them."""
    seen = set()
    for run in batch.runs:
        profile = run.profile
        flora = (profile.flora_species, profile.flora_max_images, profile.flora_seed)
        which = (run.data, profile.source, *flora)
        if which in seen or (batch.notebook is not None and run.data is None and batch.test == "none"):
            continue
        seen.add(which)
        data = find_data(profile, run.data or "auto")
        if isinstance(batch.test, int):
            with_extra_test(data, batch.test)
        elif batch.test == "withheld" and batch.notebook is None and not (data.solution or data.split_file):
            raise InputError(
                f"{data.train_shards[0].parent}: there is no solution.csv and no split.csv with a part `test`, so "
                "runs cannot be scored on a withheld test. Set `test: none` for validation scores."
            )


def _start(batch: Batch, run: BatchRun, threads: int) -> subprocess.Popen:
    """Start a run's process. It ends when this process does, since it reads from a pipe that closes then."""
    write_spec(batch, run)
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    divided = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",  # modules are not looked for in the folder of the call
        **dict.fromkeys(divided, str(threads)),
    }
    with (run.folder / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            _command(run.folder),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the batch only
        )


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "utils.experiments.one", str(folder)]


def _in_short(run: BatchRun) -> str:
    metrics = metrics_of(run)
    first = next((name for name in (*METRICS, *metrics) if not math.isnan(metrics.get(name, math.nan))), None)
    return (
        f"{METRICS.get(first, first)} {shown_number(metrics[first])}, {metrics['minutes']:.1f} min"
        if first
        else ""
    )


def _progress(run: BatchRun) -> str:
    return f"{run.title}: epoch {min(run.epochs_done + 1, run.profile.epochs)}/{run.profile.epochs}"


def _last_line(run: BatchRun) -> str:
    """The last line of a run's log; what srun says of a task that has ended comes behind the task's own words."""
    log = run.folder / LOG_FILE
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    own = [line for line in lines if not re.match(r"srun: (?!error|fatal)|srun: error: .*: task", line)]
    return (own or lines or ["without a word"])[-1][:300]
