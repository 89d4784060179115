"""The benchmark of load: what it sees of a call, and what it calls a fault."""

import sys

import pytest
from click.testing import CliRunner

from benchmarks import load


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_a_call_is_watched_with_its_children():
    grown = (
        "x = bytearray(150_000_000); y = [open('/dev/null') for _ in range(40)]; import time; time.sleep(1.5)"
    )
    code = f"import subprocess, sys; print(1, flush=True); subprocess.run([sys.executable, '-c', {grown!r}])"
    found = load.watch([sys.executable, "-c", code])
    assert found.code == 0 and found.said == b"1\n"
    assert 150e6 < found.memory < 400e6 and found.files >= 40
    assert 1.4 < found.silence <= found.seconds


def test_what_grows_faster_than_its_input_is_a_fault_and_so_is_silence():
    fair = {10: load.Watched(0, processor=1, memory=1e8), 100: load.Watched(0, processor=9, memory=2e8)}
    assert load.faults(fair) == []
    square = {10: load.Watched(0, processor=1, memory=1e8), 100: load.Watched(0, processor=90, memory=2e9)}
    assert load.faults(square) == [
        "processor grows faster than the input",
        "memory grows faster than the input",
    ]
    assert load.faults({4: load.Watched(1, silence=20, processor=1, memory=1)}) == [
        "exit code 1",
        "silent for 20 s",
    ]


def test_a_small_load_runs(tmp_path):
    names = ("metadata", "split", "batch --dry-run")
    words = [word for name in names for word in ("--load", name)]
    result = CliRunner().invoke(load.main, ["--out", str(tmp_path), "--quick", *words])
    assert result.exit_code == 0, result.output
    assert [line.split(" | ")[:2] for line in result.output.splitlines()][1:] == [
        ["metadata", "1,000 rows"],
        ["metadata", "10,000 rows"],
        ["split", "1,000 rows"],
        ["split", "10,000 rows"],
        ["batch --dry-run", "5 runs"],
        ["batch --dry-run", "50 runs"],
    ]
