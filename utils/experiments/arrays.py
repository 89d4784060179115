"""A batch on Slurm: its runs as arrays of jobs. `python -m utils.experiments.arrays FOLDER INDEX` is what a job does.

In the batch's folder, slurm/NAME is an array: for each of its jobs a link, called by the job's index, to the folder of
the run. NAME is the name of the jobs, so that the queue says of every run whether it waits, is at work or has left.
"""

import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from utils.cli.common import ended_by_sigterm
from utils.experiments import slurm
from utils.experiments.spec import LOG_FILE, SPEC_FILE, Batch, BatchRun, epochs_done, is_finished, write_spec
from utils.files import InputError, read_json

MOST = 1000  # jobs of one array: Slurm's MaxArraySize, where a site has not changed it
POLL = 10.0  # seconds between two looks at the queue
# Seconds that a shared file system may take to show the result of a job that has left the queue.
SETTLE = 30.0


def states(batch: Batch) -> dict[Path, str]:
    """The runs that were given to Slurm, by folder: queued (why), running, or gone (finished, failed, cancelled).

    Raises:
        InputError: there are such runs, and Slurm does not answer.
    """
    arrays = _arrays(batch)
    found = {folder: "gone" for runs in arrays.values() for folder in runs.values()}
    for job in slurm.queue() if arrays else ():
        if folder := arrays.get(job.name, {}).get(job.index):
            found[folder] = job.state
    return found


def _arrays(batch: Batch) -> dict[str, dict[str, Path]]:
    """Of every array the folders of the runs, by index."""
    return {
        array.name: {link.name: batch.folder / link.readlink().name for link in array.iterdir()}
        for array in (batch.folder / "slurm").glob("*")
    }


def jobs(
    batch: Batch, runs: Sequence[BatchRun], options: Mapping[str, str], at_once: int | None
) -> list[tuple[slurm.Job, Sequence[BatchRun]]]:
    """The arrays of jobs for these runs, and which runs each has; nothing is written or submitted.

    Args:
        options: of sbatch.
        at_once: how many jobs of an array may run at a time; None for as many as there is room for.
    """
    found = []
    for start in range(0, len(runs), MOST):
        part = runs[start : start + MOST]
        folder = batch.folder / "slurm" / slurm.name_of(batch.folder, uuid.uuid4().hex[:8])
        job = slurm.job(
            folder.name,
            ("-m", "utils.experiments.arrays", str(folder)),
            options,
            f"{slurm.in_pattern(folder)}/%a/{LOG_FILE}",
            array=f"0-{len(part) - 1}" + (f"%{at_once}" if at_once else ""),
            last='"$SLURM_ARRAY_TASK_ID"',
        )
        found.append((job, part))
    return found


def collect(
    batch: Batch,
    runs: Sequence[BatchRun],
    options: Mapping[str, str],
    at_once: int | None,
    say: Callable[[str], None],
    show: Callable[[str], None],
) -> Iterator[tuple[BatchRun, str]]:
    """Submit the runs that are not in the queue yet, and give each run when it has ended.

    The jobs do not need this process: where it ends, they go on, and another call finds them in the queue.

    Args:
        options, at_once: as for `jobs`.
        say: prints a line; show: shows how many wait and run, again and again.

    Yields:
        A run, and how it ended, empty for a finished one.

    Raises:
        InputError: sbatch refuses, or squeue does not answer at first.
    """
    there = _in_queue(batch)
    _tidy(batch, there)
    for job, part in jobs(batch, [run for run in runs if run.folder not in there], options, at_once):
        number = submit(batch, job, part)
        say(
            f"submitted {len(part)} runs as array {number}, which goes on when this ends; `scancel {number}` ends it"
        )
    left, gone_since, silent = list(runs), dict[Path, float](), False
    while left:
        try:
            there, silent = _in_queue(batch), False
        except InputError as error:  # the controller is busy or restarts; the jobs do not mind
            if not silent:
                say(f"{error}. Asking again.")
            silent = True
        now = time.monotonic()
        for run in list(left):
            if run.folder in there and not silent:
                gone_since.pop(run.folder, None)
            if run.finished:
                left.remove(run)
                yield run, ""
            elif (
                not silent
                and run.folder not in there
                and now - gone_since.setdefault(run.folder, now) >= SETTLE
            ):
                left.remove(run)
                yield run, "left Slurm's queue without a result"
        show(slurm.in_words(list(there.values())))
        time.sleep(POLL if left else 0)


def _in_queue(batch: Batch) -> dict[Path, str]:
    return {folder: state for folder, state in states(batch).items() if state != "gone"}


def _tidy(batch: Batch, there: Mapping[Path, str]) -> None:
    """Remove the arrays that have no job in the queue any more; what their runs left is in the runs' folders."""
    for name, folders in _arrays(batch).items():
        if not set(folders.values()) & there.keys():
            shutil.rmtree(batch.folder / "slurm" / name)


def submit(batch: Batch, job: slurm.Job, runs: Sequence[BatchRun]) -> str:
    """Lay down the array, then submit it: a kill between the two leaves nothing that the queue does not know."""
    folder = batch.folder / "slurm" / job.name
    folder.mkdir(parents=True)
    for index, run in enumerate(runs):
        write_spec(batch, run)
        (folder / str(index)).symlink_to(f"../../{run.folder.name}")
        with (run.folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(f"Given to Slurm as {job.name}\n")  # its last word if it never begins
    try:
        return job.submit()
    except InputError:
        shutil.rmtree(folder)
        raise


def _do(folder: Path) -> None:
    """Do one run, from where it is; see `utils.experiments.one.run_one`. Ends with 143 where it can queue again."""
    from utils.experiments.one import run_one

    if is_finished(folder, read_json(folder / SPEC_FILE)["after"]):  # by a batch on one machine
        return
    before = epochs_done(folder)
    try:
        run_one(folder)
    except InputError as told:
        sys.exit(f"Error: {told}")
    except KeyboardInterrupt:
        if epochs_done(folder) > before:
            sys.exit(slurm.ENDED)
        sys.exit(
            "Error: ended by SIGTERM before an epoch was done: cancelled, or its time was too short for an epoch "
            "(--sbatch time=...)."
        )


if __name__ == "__main__":
    with ended_by_sigterm():
        _do((Path(sys.argv[1]) / sys.argv[2]).resolve())
