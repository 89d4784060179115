"""Batches run: every run of a batch file as a process of its own, in a folder of its own, and one table.

What the runs are says `utils.experiments.spec`, what one does `one`, how it is scored `scoring`, the table `table`.
"""

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from utils.experiments.spec import LOG_FILE, SPEC_FILE, Batch, BatchRun, read_batch
from utils.experiments.table import METRICS, metrics_of, show_table, shown_number, summary_table, write_table
from utils.files import REPOSITORY, InputError, printable, write_json
from utils.flora.of_profile import with_extra_test
from utils.sources import find_data
from utils.startup import holding


def plan(batch: Batch, jobs: int = 1) -> str:
    """What the batch will do, in lines: how many runs of what, scored on what, and the state of each."""
    states = [_state(run) for run in batch.runs]
    finished = states.count("finished")
    what = "train" if batch.notebook is None else batch.notebook.stem
    scored = {"withheld": "the withheld test", "none": "validation only"}.get(
        str(batch.test), f"{batch.test} further sheets of every species"
    )
    lines = [f"{batch.file}: {batch.about}" if batch.about else str(batch.file)]
    lines.append(
        f"{len(batch.runs)} runs of {what}: {finished} finished, "
        f"{sum(state.startswith('epoch') for state in states)} begun, {jobs} at a time with "
        f"{_threads(jobs)} threads each"
    )
    lines.append(f"Scored on {scored}. Folder: {batch.folder}")
    lines += [f"Data: {', '.join(map(str, batch.data))}"] if any(batch.data) else []
    if minutes := [metrics_of(run)["minutes"] for run in batch.runs if run.finished]:
        left = (len(batch.runs) - finished) * sum(minutes) / len(minutes) / jobs
        lines.append(f"About {left:.0f} minutes to do, if they train as long as those that have finished.")
    lines.append(f"{'state':<14} {'profile':<10} {'seed':>4}  method")
    for run, state in zip(batch.runs, states, strict=True):
        data = f", {run.data.name}" if run.data and run.of_several else ""
        lines.append(f"{state:<14} {run.profile.name:<10} {run.seed:>4}  {run.method}{data}")
    return printable("\n".join(lines))


def _state(run: BatchRun) -> str:
    if run.finished:
        return "finished"
    return f"epoch {run.epochs_done} of {run.profile.epochs}" if run.epochs_done else "to do"


def _threads(jobs: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def run_batch(
    file: Path,
    *,
    out: Path | None = None,
    data: Sequence[Path] = (),
    jobs: int = 1,
    dry_run: bool = False,
) -> Batch:
    """State the plan, do what is not done yet, and show the table; the same call again goes on.

    The table is in summary.csv of the batch's folder, renewed after runs, as often as that takes at most a twentieth
    of the time. A run that fails does not stop
    the others, and the next call tries it again.

    Args:
        file, out, data: as for `read_batch`.
        jobs: runs at a time; the processor's threads are divided among them.
        dry_run: only state the plan.

    Raises:
        UsageError, InputError: as `read_batch`, or the data are not there. Nothing has been run then.
        InputError: some runs failed; the message says where their logs are.
    """
    from tqdm import tqdm

    batch = read_batch(file, out, data)
    print(plan(batch, jobs), flush=True)
    if dry_run:
        return batch
    with holding(batch.folder / ".lock"):
        _prepare_data(batch)
        waiting = [run for run in batch.runs if not run.finished]
        running: dict[subprocess.Popen, BatchRun] = {}
        failed: list[BatchRun] = []
        look = renew = time.monotonic()
        bar = tqdm(total=len(batch.runs), initial=len(batch.runs) - len(waiting), unit="run", disable=None)
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running[_start(batch, run, _threads(jobs))] = run
                    tqdm.write(printable(f"begins    {run.title}"))
                for process in [process for process in running if process.poll() is not None]:
                    run = running.pop(process)
                    if process.returncode == 0 and run.finished:
                        tqdm.write(printable(f"finished  {run.title}: {_in_short(run)}"))
                        if time.monotonic() >= renew:
                            begin = time.monotonic()
                            write_table(summary_table(batch), batch.folder / "summary.csv")
                            renew = time.monotonic() + 20 * (time.monotonic() - begin)
                    else:
                        failed.append(run)
                        tqdm.write(printable(f"FAILED    {run.title}: {_last_line(run, process.returncode)}"))
                    bar.update()
                if not bar.disable and time.monotonic() > look + 2:
                    look = time.monotonic()
                    bar.set_postfix_str(", ".join(map(_progress, running.values())))
                time.sleep(0.1)
        finally:
            bar.close()
            for process in running:  # of an interrupted batch; what they have saved stays
                process.kill()
                process.wait()
        table = summary_table(batch)
        write_table(table, batch.folder / "summary.csv")
        print(f"\n{printable(show_table(table))}\n\n{batch.folder / 'summary.csv'}")
        if failed:
            logs = "\n".join(f"{run.title}: {run.folder / LOG_FILE}" for run in failed)
            raise InputError(
                f"{len(failed)} of {len(batch.runs)} runs failed; the same command tries them again:\n{logs}"
            )
        if batch.table:
            write_table(table, batch.table)
            print(batch.table)
    return batch


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
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(
        run.folder / SPEC_FILE,
        {
            "method": run.method,
            "seed": run.seed,
            "notebook": str(batch.notebook) if batch.notebook else None,
            "parameters": dict(run.parameters),
            "profile": run.profile.to_dict(),
            "data": str(run.data) if run.data else "auto",
            "test": batch.test,
            "after": run.after,
        },
    )
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


def _last_line(run: BatchRun, code: int) -> str:
    ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    lines = (run.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
    return f"{last[:300]} ({ended})"
