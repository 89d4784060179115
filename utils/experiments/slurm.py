"""Slurm: work given to sbatch as arrays of jobs, and squeue asked what has become of them.

The programs get lists of arguments, with no shell in between, and the job's script its words quoted. What is queued or
running says squeue alone, by the names of the jobs; what is done say the files that the jobs leave. So no accounting
(sacct) is needed, and nothing has to be remembered between two calls. (submitit 1.5 asks sacct, and knows its jobs only
as long as its process lives.)
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.files import REPOSITORY, InputError, UsageError

ENDED = 143  # exit code of what was ended by SIGTERM and goes on when it is called again
NOT_HERE = "There is no Slurm on this machine (no {program} on PATH). Call this on the cluster's login node, or {way}."
_OURS = {  # options of sbatch that this module gives itself
    **dict.fromkeys(("array", "dependency", "kill-on-invalid-dep"), "which jobs there are is known"),
    **dict.fromkeys(("job-name", "output", "error", "open-mode"), "jobs are found again by them"),
    **dict.fromkeys(
        ("parsable", "quiet", "test-only", "wait", "wrap", "chdir"), "it is how sbatch is called"
    ),
    **dict.fromkeys(
        ("nodes", "ntasks", "ntasks-per-node"), "a job is one task; give it cpus-per-task, gpus and mem"
    ),
}
# SIGTERM to the task (not to the script) so many seconds before the time limit, so that the job can queue again.
_DEFAULTS = {"signal": "TERM@120", "requeue": "", "open-mode": "append"}

# Slurm 22.05 and later: srun does not take --cpus-per-task from the job. The exit code 143 comes when SIGTERM did:
# before the time limit, or when a job of higher priority takes the node. Who is cancelled does not get to the end.
# A site's or caller's --export=NONE would keep PYTHONPATH from the task.
_SCRIPT = """\
#!/bin/sh
export PYTHONPATH={path} PYTHONSAFEPATH=1
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}}"
export TF_NUM_INTRAOP_THREADS="$SRUN_CPUS_PER_TASK" TF_NUM_INTEROP_THREADS="$SRUN_CPUS_PER_TASK"
export OMP_NUM_THREADS="$SRUN_CPUS_PER_TASK"
srun --ntasks=1 --export=ALL {command}
code=$?
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
[ "$code" -ne {ended} ]{enough} || scontrol requeue "${{job:-$SLURM_JOB_ID}}"
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """What sbatch is to be given: its arguments and a script."""

    name: str
    arguments: tuple[str, ...]
    script: str

    def __str__(self) -> str:
        """As it could be given to a shell."""
        return f"{shlex.join(self.arguments)} <<'SCRIPT'\n{self.script}SCRIPT"

    def submit(self) -> str:
        """Hand it to Slurm.

        Returns:
            The number of the job.

        Raises:
            InputError: there is no Slurm on this machine, or sbatch refuses; the message is its own.
        """
        told = _ask(self.arguments, self.script)
        number = told.partition(";")[0].strip()
        if not number.isdecimal():  # as with --help, which submits nothing and ends well
            raise InputError(f"sbatch submits nothing, it says: {told.partition(chr(10))[0][:200]}")
        return number


@dataclass(frozen=True)
class Queued:
    """A job of the queue, or one of an array: waiting or at work."""

    job: str
    index: str  # in the array; "N/A" outside of one
    running: bool
    name: str
    reason: str  # why it waits, in Slurm's words

    @property
    def state(self) -> str:
        """As `in_words` counts it."""
        return "running" if self.running else f"queued ({self.reason})"


def job(
    name: str,
    command: Sequence[str],
    options: Mapping[str, str],
    output: str,
    *,
    array: str = "",
    last: str = "",
    after: str = "",
    restarts: int | None = None,
) -> Job:
    """A job, or an array of them, that runs a command of this package's Python by one task.

    Args:
        name: by which `queue` tells it from others.
        command: the arguments of Python.
        options: of sbatch, by their long names, see `options_of`.
        output: path of the logs; %a in it is the index in the array.
        array: the indices, as in 0-9%2 (two at a time).
        last: an argument behind the command as the job's shell is to read it, as "$SLURM_ARRAY_TASK_ID".
        after: number of a job that must have ended well before.
        restarts: how often it may queue again when it is ended by SIGTERM; None for a command that ends otherwise
            where it has got nowhere.
    """
    own = {"parsable": "", "job-name": name, "output": output, **_DEFAULTS, **options}
    own |= {"array": array} if array else {}
    own |= {"dependency": f"afterok:{after}", "kill-on-invalid-dep": "yes"} if after else {}
    arguments = [f"--{option}={value}" if value else f"--{option}" for option, value in own.items()]
    words = f"{shlex.join([sys.executable, *command])} {last}".strip()
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    enough = "" if restarts is None else f' || [ "${{SLURM_RESTART_COUNT:-0}}" -ge {restarts} ]'
    script = _SCRIPT.format(path=shlex.quote(path), command=words, ended=ENDED, enough=enough)
    return Job(name, ("sbatch", *arguments), script)


def name_of(path: Path, mark: str) -> str:
    """A name for jobs: that of a file or folder, as far as it is plain, and a mark that no others have."""
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', path.name).strip('-')}-{mark}"


def in_pattern(path: Path) -> str:
    """A path as part of --output, where % has a meaning."""
    return str(path).replace("%", "%%")


def options_of(given: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """Options of sbatch by name, checked as far as they are ours; of one given twice the last. "" is no value.

    Args:
        given: names as sbatch has them (partition, time, gpus, mem, account ...), and values.
        where: what gives them, for the message.

    Raises:
        UsageError: the name is not a long one, or this module gives the option itself.
    """
    options = {}
    for name, value in given:
        if not re.fullmatch(r"[a-z][a-z-]+", name):
            raise UsageError(
                f"{where}: {name!r} is no long option of sbatch, as partition, time, gpus, mem or account."
            )
        if name in _OURS:
            raise UsageError(f"{where}: {name} cannot be given: {_OURS[name]}.")
        options[name] = value
    return options


def given_options(texts: Iterable[str]) -> dict[str, str]:
    """The values of --sbatch: NAME=VALUE, or NAME alone; a value may hold anything, blanks and quotes too."""
    return options_of((text.partition("=")[::2] for text in texts), "--sbatch")


def need_slurm(way: str) -> None:
    """Raise InputError where sbatch is not on this machine; `way` says what can be done there."""
    if not is_here():
        raise InputError(NOT_HERE.format(program="sbatch", way=way))


def is_here() -> bool:
    """Whether this machine has Slurm's commands."""
    return shutil.which("sbatch") is not None


def queue() -> list[Queued]:
    """The user's jobs that wait or are at work, those of arrays one by one.

    Raises:
        InputError: squeue does not answer.
    """
    form = "--format=%F|%K|%T|%j|%r"  # a reason can have blanks
    told = _ask(("squeue", "--noheader", "--array", f"--user={os.getuid()}", form))
    rows = (line.split("|", 4) for line in told.splitlines())
    return [
        Queued(number, index, state != "PENDING", name, reason) for number, index, state, name, reason in rows
    ]


def in_words(states: Sequence[str]) -> str:
    """How many jobs wait, and for what, and how many are at work; other states are not counted."""
    waits = [state.removeprefix("queued ") for state in states if state.startswith("queued")]
    return " ".join([f"{len(waits)} queued", *sorted(set(waits))]) + f", {states.count('running')} running"


def _ask(arguments: Sequence[str], text: str = "") -> str:
    # Called within a job, as of an interactive node: what Slurm says of that job would be taken for the new one's.
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name.startswith(kept)
    }
    try:
        done = subprocess.run(arguments, input=text, capture_output=True, text=True, env=own)
    except FileNotFoundError:
        raise InputError(NOT_HERE.format(program=arguments[0], way="without --slurm")) from None
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise InputError(f"{arguments[0]} refuses: {said or f'exit code {done.returncode}'}")
    return done.stdout


# ---------------------------------------------------------------- a command shared by --shard

# Of one job by SIGTERM. What a part has done before may be lost (predict), so that it could begin anew for ever.
_MOST_RESTARTS = 10


@dataclass(frozen=True)
class Shared:
    """A command with --shard I/N as an array of jobs, and one job behind it that closes what they leave."""

    out: Path  # the file or folder that the command makes; logs lie beside it
    command: tuple[str, ...]  # of the command line, without --shard
    parts: int
    options: Mapping[str, str]

    @property
    def name(self) -> str:
        """What its jobs are called, by what they make and by what command."""
        place, how = (
            hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
            for told in (str(self.out.resolve()), self.command)
        )
        return name_of(self.out, f"{place}-{how}")

    @property
    def logs(self) -> Path:
        """The folder of the jobs' logs: one a part, and close.txt."""
        return self.out.absolute().with_name(f"{self.out.name}.slurm")

    def job(self) -> Job:
        """The array."""
        array, last = f"1-{self.parts}", f'"$SLURM_ARRAY_TASK_ID/{self.parts}"'
        log = self._log("%a")
        return job(self.name, self._words, self.options, log, array=array, last=last, restarts=_MOST_RESTARTS)

    def closing(self, first: str) -> Job | None:
        """The job behind the array `first`: its first part again, which finds all there. None for a single part."""
        if self.parts == 1:
            return None
        words = (*self._words, f"1/{self.parts}")
        return job(self.name, words, self.options, self._log("close"), after=first, restarts=_MOST_RESTARTS)

    @property
    def _words(self) -> tuple[str, ...]:
        return ("-m", "utils", *self.command, "--shard")

    def _log(self, name: str) -> str:
        return f"{in_pattern(self.logs)}/{name}.txt"

    def __str__(self) -> str:
        """What sbatch would get."""
        return "\n\n".join(str(each) for each in (self.job(), self.closing("JOB")) if each)

    def state(self) -> str:
        """How many of its jobs wait and are at work, in words; empty when none is in the queue.

        Raises:
            InputError: jobs of another command for the same file or folder are there; or squeue does not answer.
        """
        place = self.name.rpartition("-")[0]
        jobs = [each for each in queue() if each.name.rpartition("-")[0] == place]
        if others := {each.name for each in jobs} - {self.name}:
            raise InputError(
                f"{self.out}: jobs of another command for it are in the queue. Name another --out, or end them: "
                f"scancel --name={','.join(sorted(others))}"
            )
        return in_words([each.state for each in jobs]) if jobs else ""

    def submit(self) -> str:
        """Submit both, where they are not in the queue yet; says what is there, and how to end it.

        Raises:
            InputError: as `state` and `Job.submit`.
        """
        if state := self.state():
            return f"{self.out}: {state}, as {self.name}. Logs: {self.logs}"
        self.logs.mkdir(parents=True, exist_ok=True)
        numbers = self.job().submit()
        told = f"{self.out}: {self.parts} jobs submitted as array {numbers}"
        if closing := self.closing(numbers):
            try:
                numbers += f" {closing.submit()}"
            except InputError as error:
                raise InputError(f"{told}, but not the one that closes after them: {error}") from None
            told += ", and one that closes after them"
        return (
            f"{told}. Logs: {self.logs}. `squeue --name={self.name}` shows them, `scancel {numbers}` ends them; what "
            "is written is kept, and the same command goes on."
        )
