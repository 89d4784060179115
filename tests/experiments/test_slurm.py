"""Slurm without a Slurm: what would be submitted, what is refused, and that nothing else changes."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.experiments import arrays, run, slurm, spec
from utils.files import REPOSITORY, InputError, UsageError, write_json

TEXT = "run: train\nprofiles: [smoke]\nseeds: [0, 1]\nmethods: {plain: {}, smooth: {label_smoothing: 0.2}}\n"


def batch_file(folder: Path, more: str = "") -> Path:
    file = folder / "mine.batch.yaml"
    file.write_text(TEXT + more)
    return file


def call(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


def submissions(output: str) -> list[tuple[list[str], str]]:
    """The arguments of every sbatch that is shown, as a shell would read them, and its script."""
    found = []
    for part in output.split("\nsbatch ")[1:]:
        command, _, rest = part.partition(" <<'SCRIPT'\n")
        found.append((shlex.split(command), rest.partition("\nSCRIPT")[0]))
    return found


def test_a_dry_run_states_the_plan_and_shows_what_sbatch_would_get(tmp_path):
    odd = 'it\'s "quoted", 100% and $HOME `x`'
    more = f"slurm:\n  time: 4:00:00\n  mem: 8G\n  exclusive:\n  comment: {odd}\n"
    out = tmp_path / "my 'runs' 5%"
    given = ("--sbatch", "mem=16G", "--sbatch", f"account= {odd}", "--sbatch", "nice", "--jobs", 2)
    shown = call("batch", batch_file(tmp_path, more), "--slurm", *given, "--dry-run", "--out", out)
    assert shown.exit_code == 0, shown.output
    assert "4 runs of train: 0 finished, 0 begun, 0 queued, 0 running, 0 failed" in shown.output
    ((arguments, script),) = submissions(shown.output)
    for expected in (
        *("--time=4:00:00", "--mem=16G", "--exclusive", f"--comment={odd}", f"--account= {odd}", "--nice"),
        *("--array=0-3%2", "--requeue", "--signal=TERM@120", "--parsable"),
    ):
        assert expected in arguments
    name = next(word.partition("=")[2] for word in arguments if word.startswith("--job-name="))
    assert f"--output={str(out).replace('%', '%%')}/slurm/{name}/%a/log.txt" in arguments
    assert shlex.quote(f"{out}/slurm/{name}") in script and shutil.which("sh")
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.batch.yaml"], "nothing is written"


REFUSED = [
    ("array=0-3", "array cannot be given: which jobs there are is known"),
    ("output=x", "output cannot be given: jobs are found again by them"),
    ("ntasks=2", "ntasks cannot be given: a job is one task"),
    ("p=gpu", "'p' is no long option of sbatch"),
    ("--partition=gpu", "'--partition' is no long option"),
    ("=gpu", "'' is no long option"),
]


@pytest.mark.parametrize(("option", "told"), REFUSED)
def test_options_that_are_not_the_callers_are_refused(tmp_path, option, told):
    shown = call("batch", batch_file(tmp_path), "--slurm", "--sbatch", option, "--dry-run")
    assert shown.exit_code == 2 and f"--sbatch: {told}" in " ".join(shown.output.split())
    name, _, value = option.partition("=")
    with pytest.raises(UsageError, match="slurm: "):
        spec.read_batch(batch_file(tmp_path, f"slurm: {{{json.dumps(name)}: {value or 1}}}"))


@pytest.mark.parametrize("value", ["[gpu, cpu]", "{a: 1}"])
def test_an_option_of_the_file_is_one_value(tmp_path, value):
    with pytest.raises(UsageError, match=r"mine\.batch\.yaml: slurm: partition is .* must be one value"):
        spec.read_batch(batch_file(tmp_path, f"slurm: {{partition: {value}}}"))


def test_options_of_the_file_are_text_as_it_has_them_and_change_no_run(tmp_path):
    plain = spec.read_batch(batch_file(tmp_path))
    more = "slurm: {time: 1:30, gpus: 1, mem: 010, exclusive: true, nice: , begin: 2026-12-01}"
    batch = spec.read_batch(batch_file(tmp_path, more))
    assert batch.slurm == {
        **{"time": "1:30", "gpus": "1", "mem": "010", "exclusive": "", "nice": ""},
        "begin": "2026-12-01",
    }
    assert [each.folder for each in batch.runs] == [each.folder for each in plain.runs]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("batch", "FILE", "--sbatch", "mem=1G"), "--sbatch goes with --slurm"),
        (("tfrecords", "write", "--images", "DIR", "--out", "x", "--dry-run"), "go with --slurm N"),
        (
            ("predict", "--model", "DIR", "--images", "DIR", "--out", "x", "--sbatch", "a"),
            "go with --slurm N",
        ),
        (
            ("tfrecords", "write", "--images", "DIR", "--out", "x", "--slurm", 2, "--shard", "1/2"),
            "--shard and --slurm exclude each other",
        ),
    ],
)
def test_options_of_slurm_without_it_are_refused(tmp_path, words, told):
    places = {"FILE": batch_file(tmp_path), "DIR": tmp_path}
    shown = call(*(places.get(word, word) for word in words))
    assert shown.exit_code == 2 and told in " ".join(shown.output.split())


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (("batch", "FILE", "--slurm"), "without --slurm, which runs it here"),
        (("tfrecords", "write", "--images", "DIR", "--out", "OUT", "--slurm", 2), "--shard I/N"),
        (("predict", "--model", "DIR", "--images", "DIR", "--out", "OUT", "--slurm", 2), "--shard I/N"),
    ],
)
def test_without_a_slurm_there_is_one_line_and_nothing_is_done(tmp_path, monkeypatch, words, way):
    monkeypatch.setenv("PATH", str(tmp_path))
    places = {"FILE": batch_file(tmp_path), "DIR": tmp_path, "OUT": tmp_path / "out"}
    shown = call(*(places.get(word, word) for word in words))
    assert shown.exit_code == 1 and len(shown.output.splitlines()) == 1
    assert shown.output.startswith("Error: There is no Slurm on this machine (no sbatch on PATH).")
    assert way in shown.output
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.batch.yaml"]


def test_nothing_of_slurm_is_loaded_before_it_is_asked_for():
    code = "import sys, utils.__main__; print([name for name in sys.modules if 'utils.experiments' in name])"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# ---------------------------------------------------------------- what is known between two calls


def lay_down(batch: spec.Batch, name: str, runs: list[spec.BatchRun]) -> None:
    for index, each in enumerate(runs):
        each.folder.mkdir(parents=True, exist_ok=True)
        link = batch.folder / "slurm" / name / str(index)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../{each.folder.name}")


def test_the_plan_says_what_is_queued_running_done_and_failed(tmp_path, monkeypatch):
    batch = spec.read_batch(batch_file(tmp_path), tmp_path / "out")
    lay_down(batch, "mine-1", list(batch.runs[1:]))
    queue = [
        *(
            slurm.Queued("7", "1", False, "mine-1", "PartitionConfig"),
            slurm.Queued("7", "2", True, "mine-1", "None"),
        ),
        *(slurm.Queued("8", "0", True, "another", ""), slurm.Queued("9", "N/A", True, "mine-1", "")),
    ]
    monkeypatch.setattr(slurm, "queue", lambda: queue)
    write_json(batch.runs[3].folder / "state" / "state.json", {"epoch": 1})
    told = run.plan(batch, there=arrays.states(batch), on_slurm=True)
    assert "4 runs of train: 0 finished, 1 begun, 1 queued (PartitionConfig), 1 running, 1 failed" in told, (
        "a job that no node has room for waits for ever, and Slurm's reason says so"
    )
    states = [line[:14].strip() for line in told.splitlines()[-4:]]
    assert states == ["to do", "failed", "queued", "running 1 of 1"]
    write_json(batch.runs[1].folder / "result.json", {"metrics": {"minutes": 1.0}, "after": {}})
    assert "1 finished, 1 begun, 1 queued (PartitionConfig), 1 running, 0 failed" in run.plan(
        batch, there=arrays.states(batch), on_slurm=True
    )
    shown = arrays.jobs(batch, batch.runs[:1], {}, None)
    assert "--array=0-0" in shown[0][0].arguments


def test_more_runs_than_an_array_may_have_are_several_arrays(tmp_path):
    batch = spec.read_batch(batch_file(tmp_path), tmp_path / "out")
    many = [dataclasses.replace(batch.runs[0], seed=seed) for seed in range(2300)]
    found = arrays.jobs(batch, many, {}, None)
    assert [len(part) for _, part in found] == [1000, 1000, 300]
    assert len({job.name for job, _ in found}) == 3


def test_on_this_machine_runs_that_slurm_has_are_left_to_it(tmp_path, monkeypatch, capsys):
    batch = spec.read_batch(batch_file(tmp_path), tmp_path / "out")
    lay_down(batch, "mine-1", list(batch.runs[:3]))
    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(
        slurm,
        "queue",
        lambda: [slurm.Queued("7", str(index), False, "mine-1", "Priority") for index in range(3)],
    )
    monkeypatch.setattr(run, "find_data", lambda *_: None)
    write_json(batch.runs[3].folder / "result.json", {"metrics": {"minutes": 1.0}, "after": {}})
    file = batch_file(tmp_path, "test: none\ntable: whole.csv\n")
    batch = spec.read_batch(file, tmp_path / "out")  # another test: other runs, which slurm does not have
    assert not arrays.states(batch).keys() & {each.folder for each in batch.runs}
    shutil.rmtree(tmp_path / "out")
    lay_down(batch, "mine-1", list(batch.runs[:3]))
    write_json(batch.runs[3].folder / "result.json", {"metrics": {"minutes": 1.0}, "after": {}})
    run.run_batch(file, out=tmp_path / "out")
    assert "3 runs are left to Slurm, where they wait or are at work." in capsys.readouterr().out
    assert not (tmp_path / "whole.csv").exists(), "not before all have finished"


def test_runs_are_given_as_they_end_and_one_without_a_result_has_failed(tmp_path, monkeypatch):
    batch = spec.read_batch(batch_file(tmp_path), tmp_path / "out")
    first, second, third, fourth = batch.runs
    lay_down(batch, "before", [first, second])  # of an earlier call: one at work, one that was cancelled
    looks: list[int] = []

    def queue() -> list[slurm.Queued]:
        looks.append(1)
        if len(looks) == 2:
            raise InputError("squeue refuses: the controller is away")
        if len(looks) == 4:
            write_json(first.folder / "result.json", {"metrics": {"minutes": 1.0}, "after": {}})
        return [slurm.Queued("7", "0", True, "before", "None")] if len(looks) < 5 else []

    submitted: list[list[spec.BatchRun]] = []
    monkeypatch.setattr(slurm, "queue", queue)
    monkeypatch.setattr(arrays, "submit", lambda batch, job, runs: submitted.append(list(runs)) or "8")
    monkeypatch.setattr(arrays, "POLL", 0.0)
    monkeypatch.setattr(arrays, "SETTLE", 0.05)
    write_json(fourth.folder / "result.json", {"metrics": {"minutes": 1.0}, "after": {}})
    said: list[str] = []
    ended = list(arrays.collect(batch, batch.runs, {}, None, said.append, lambda text: None))
    assert submitted == [[second, third, fourth]], "what is at work is not submitted again"
    assert [(run.folder, how) for run, how in ended] == [
        *((fourth.folder, ""), (first.folder, "")),
        *((run.folder, "left Slurm's queue without a result") for run in (second, third)),
    ]
    assert said == [
        "submitted 3 runs as array 8, which goes on when this ends; `scancel 8` ends it",
        "squeue refuses: the controller is away. Asking again.",
    ]


def test_a_reason_is_the_tasks_own_last_word_or_slurms(tmp_path):
    (first, *_) = spec.read_batch(batch_file(tmp_path), tmp_path / "out").runs
    assert run._last_line(first) == "without a word"
    first.folder.mkdir(parents=True)
    log = first.folder / "log.txt"
    log.write_text("Error: no.\nsrun: error: n1: task 0: Exited with exit code 1\n")
    assert run._last_line(first) == "Error: no."
    log.write_text(
        "Interrupted in epoch 4.\nsrun: error: vm: task 0: Killed\nsrun: Force Terminated StepId=50.0\n"
    )
    assert run._last_line(first) == "Interrupted in epoch 4."
    log.write_text("Given to Slurm as a\nsrun: error: Unable to create step for job 5: no room\n")
    assert run._last_line(first).startswith("srun: error: Unable to create step")
    log.write_text("epoch 1\nslurmstepd: error: *** JOB 3 ON n1 CANCELLED AT noon DUE TO TIME LIMIT ***\n")
    assert run._last_line(first).endswith("DUE TO TIME LIMIT ***")


def program(folder: Path, monkeypatch, name: str, lines: str) -> None:
    """A program of Slurm's name that comes first on PATH."""
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    path = folder / name
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            "echo 'sbatch: error: invalid partition\n  specified: x' >&2\nexit 1",
            "sbatch refuses: sbatch: error: invalid partition specified: x",
        ),
        ("printf 'slurm-wlm 22.05.8\nand more'", "sbatch submits nothing, it says: slurm-wlm 22.05.8"),
        ("", "sbatch submits nothing, it says: "),
    ],
)
def test_a_program_that_refuses_or_submits_nothing_is_one_line(tmp_path, monkeypatch, lines, told):
    program(tmp_path, monkeypatch, "sbatch", lines)
    with pytest.raises(InputError) as refused:
        slurm.job("a", ("-c", "1"), {}, "x").submit()
    assert str(refused.value) == told


def test_what_slurm_says_of_the_callers_own_job_does_not_reach_the_new_one(tmp_path, monkeypatch):
    given = {"SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "1", "SLURM_STEP_NUM_TASKS": "2"}
    for name, value in {**given, "SLURM_CONF": "c", "SLURM_CLUSTERS": "d"}.items():
        monkeypatch.setenv(name, value)
    program(tmp_path, monkeypatch, "sbatch", f"env | grep ^SLURM_ | sort > '{tmp_path}/seen'; echo '17;here'")
    assert slurm.job("a", ("-c", "1"), {}, "x").submit() == "17"
    assert (tmp_path / "seen").read_text() == "SLURM_CLUSTERS=d\nSLURM_CONF=c\n"


def script_ends_with(folder: Path, monkeypatch, job: slurm.Job, code: int, restarts: str = "") -> list[str]:
    """Run a job's script where srun ends with this code, and give what scontrol was asked for."""
    asked = folder / "asked"
    asked.unlink(missing_ok=True)
    program(folder, monkeypatch, "srun", f"exit {code}")
    program(folder, monkeypatch, "scontrol", f"echo \"$@\" >> '{asked}'")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    done = subprocess.run(["sh"], input=job.script, text=True)
    assert done.returncode == code
    return asked.read_text().splitlines() if asked.exists() else []


@pytest.mark.parametrize(
    ("code", "restarts", "most", "again"),
    [
        *((143, "", None, True), (0, "", None, False), (1, "", None, False), (143, "99", None, True)),
        *((143, "", 10, True), (143, "9", 10, True), (143, "10", 10, False), (0, "", 10, False)),
    ],
)
def test_a_job_ended_by_sigterm_queues_again_and_a_part_not_for_ever(
    tmp_path, monkeypatch, code, restarts, most, again
):
    job = slurm.job("a", ("-c", "1"), {}, "x", restarts=most)
    asked = script_ends_with(tmp_path, monkeypatch, job, code, restarts)
    assert asked == (["requeue 5"] if again else [])
    assert "srun --ntasks=1 --export=ALL " in job.script, "also where --export=NONE is given"


def test_a_job_that_never_begins_does_not_fail_by_the_last_word_of_an_earlier_one(tmp_path, monkeypatch):
    batch = spec.read_batch(batch_file(tmp_path), tmp_path / "out")
    first = batch.runs[0]
    first.folder.mkdir(parents=True)
    (first.folder / "log.txt").write_text("Error: the disk is full.\n")
    program(tmp_path, monkeypatch, "sbatch", "echo 3")
    ((job, part),) = arrays.jobs(batch, [first], {}, None)
    assert arrays.submit(batch, job, part) == "3"
    assert run._last_line(first) == f"Given to Slurm as {job.name}"


# ---------------------------------------------------------------- shared commands


def test_writing_is_shared_by_an_array_and_a_job_that_closes(tmp_path, make_sheet):
    images = tmp_path / "my 'sheets'"
    for species in ("Aster alba", "Rosa nova"):
        (images / species).mkdir(parents=True)
        for number in range(3):
            make_sheet(number, 20, 30).save(images / species / f"{number}.png")
    out = tmp_path / "out"
    words = ("tfrecords", "write", "--images", images, "--out", out, "--shard-images", 2, "--skip-bad")
    shown = call(*words, "--slurm", 3, "--sbatch", "mem=2G", "--dry-run")
    assert shown.exit_code == 0, shown.output
    first, last = submissions(f"\n{shown.output}")
    assert "--array=1-3" in first[0] and "--dependency=afterok:JOB" in last[0]
    assert "--mem=2G" in first[0] and "--mem=2G" in last[0]
    command = f"-m utils tfrecords write {shlex.quote(f'--images={images}')} --out={out}"
    for script, shard in ((first[1], '"$SLURM_ARRAY_TASK_ID/3"'), (last[1], "1/3")):
        assert command in script and " --shard-images=2 " in script and f" --shard {shard}\n" in script
    assert not out.exists()
    alone = submissions("\n" + call(*words, "--slurm", 1, "--dry-run").output)
    assert len(alone) == 1 and "--array=1-1" in alone[0][0], "one part needs no closing"
    told = call(*words, "--slurm", 4, "--dry-run")
    assert told.exit_code == 2 and "4 calls cannot share 3 shards" in " ".join(told.output.split())


def test_a_command_is_submitted_once_and_another_one_for_the_same_file_is_refused(tmp_path, monkeypatch):
    first, other = (
        slurm.Shared(tmp_path / "a.csv", ("predict", f"--model={model}"), 2, {}) for model in "xy"
    )
    told = f"4|1|PENDING|{first.name}|Nodes are DOWN, or reserved\n4|2|RUNNING|{first.name}|None\n5|N/A|PENDING|b|c|"
    program(tmp_path, monkeypatch, "squeue", f"cat <<'TOLD'\n{told}\nTOLD")
    assert f"1 queued (Nodes are DOWN, or reserved), 1 running, as {first.name}" in first.submit()
    with pytest.raises(InputError, match=rf"another command .* scancel --name={first.name}"):
        other.submit()
    program(tmp_path, monkeypatch, "squeue", "")
    sbatch = 'case "$*" in *dependency*) echo full >&2; exit 1;; esac; echo 6'
    program(tmp_path, monkeypatch, "sbatch", sbatch)
    with pytest.raises(
        InputError, match=r"2 jobs submitted as array 6, but not the one that closes .*: full"
    ):
        other.submit()
