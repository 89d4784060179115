"""The benchmarks: every stage runs, the table says what was measured, repeats alternate in processes of their own."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.harness import (
    MEASURES,
    Bench,
    Measured,
    Repeats,
    Stage,
    Target,
    measure,
    ratios,
    report,
    row,
    stages,
    summary,
)
from utils.__main__ import main

SLOW = ("written", "growth")  # in the names of stages that are for the long suite


def repeats(*seconds: float, memory: float = 1e6) -> Repeats:
    found = Repeats()
    for value in seconds:
        found.add(Measured(10.0, value, memory))
    return found


# ---------------------------------------------------------------- every stage


def quick_run(names: list[str], folder: Path) -> dict:
    options = [option for name in names for option in ("--stage", name)]
    out = folder / "bench.json"
    shown = CliRunner().invoke(
        main,
        ["bench", "--quick", "--folder", str(folder), "--json", str(out), *options],
        catch_exceptions=False,
    )
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.output.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == names
    assert len({line.count("|") for line in lines}) == 1
    return json.loads(out.read_text())


def test_every_stage_runs_and_the_json_has_all_that_was_measured(tmp_path: Path) -> None:
    names = [name for name, stage in stages().items() if not stage.only_named and not is_slow(name)]
    check_fields(quick_run(names, tmp_path))


@pytest.mark.long
def test_slow_stages_run(tmp_path: Path) -> None:
    names = [name for name, stage in stages().items() if not stage.only_named and is_slow(name)]
    check_fields(quick_run(names, tmp_path))


def is_slow(name: str) -> bool:
    return any(word in name for word in SLOW)


def check_fields(found: dict) -> None:
    assert {"cores", "cpu", "python", "tensorflow"} <= found["machine"].keys()
    assert found["options"]["repeats"] == 1 and found["failed"] == []
    for stage in found["stages"]:
        assert "ours" in stage["variants"]
        for variant in stage["variants"].values():
            assert variant["min"] <= variant["median"] <= variant["max"]
            raw = [variant[key] for key in ("units", "seconds", "memory", "figures")]
            assert {len(values) for values in raw} == {1} and min(map(min, raw)) > 0
        for target in stage["targets"]:
            assert target.keys() == {"measure", "bound", "found", "reached"}


def test_every_target_names_what_its_stage_measures() -> None:
    for stage in stages().values():
        assert next(iter(stage.variants)) == "ours"
        for target in stage.targets:
            assert target.measure in MEASURES
            other = target.measure.partition(" / ")[2]
            assert not other or other in stage.variants


def test_an_unknown_stage_is_answered_with_the_nearest() -> None:
    shown = CliRunner().invoke(main, ["bench", "--stage", "train input, 40 px"])
    assert shown.exit_code == 2 and "Did you mean 'train input, 400 px'" in shown.stderr


# ---------------------------------------------------------------- the figures


def test_ratios_are_those_of_neighbouring_repeats() -> None:
    """The machine slows down to half; ours is twice as fast all the time."""
    found = {"ours": repeats(1, 2, 4, memory=5e6), "published": repeats(2, 4, 8, memory=20e6)}
    assert ratios(found) == {"speed / published": 2, "memory / published": 0.25}


@pytest.mark.parametrize(("unit", "figure"), [("images/s", 5.0), ("s", 0.2), ("ms", 200.0), ("MB", 3.0)])
def test_figures_are_in_the_unit_of_the_stage(unit: str, figure: float) -> None:
    stage = Stage("a stage", unit, {"ours": _sleeping}, (Target("seconds", 0.25), Target("MB", 2)))
    found = summary(stage, {"ours": repeats(1.0, 2.0, 4.0, memory=3e6)})
    assert found["variants"]["ours"]["median"] == pytest.approx(figure)
    assert [target["reached"] for target in found["targets"]] == [True, False]
    assert found["targets"][0]["found"] == pytest.approx(0.2)
    assert "yes; **no**, 3 " in row(found)


# ---------------------------------------------------------------- processes


def _sleeping(bench: Bench):
    return lambda: 1.0


def _noting(bench: Bench, name: str, megabytes: int = 1):
    held = b"x" * (megabytes << 20)

    def run() -> float:
        with (bench.folder / "calls").open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
        return float(len(held) > 0)

    return run


def _failing(bench: Bench):
    raise ValueError("no such luck")


VARIANTS = {"ours": partial(_noting, name="ours"), "limit": partial(_noting, name="limit", megabytes=200)}


@pytest.mark.parametrize("fresh", [False, True])
def test_repeats_alternate_between_processes(tmp_path: Path, fresh: bool) -> None:
    found = measure(Stage("a stage", "s", VARIANTS, fresh=fresh), Bench(tmp_path, repeats=2))
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [name for name, _ in calls] == ["ours", "limit"] * 2
    assert len({process for _, process in calls}) == (4 if fresh else 2)
    assert str(os.getpid()) not in {process for _, process in calls}
    ours, limit = (max(found[name].memory) for name in ("ours", "limit"))
    assert 150e6 < limit - ours < 300e6


def test_a_stage_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    bad, good = Stage("bad", "s", {"ours": _failing}), Stage("good", "s", {"ours": _sleeping})
    found = report([bad, good], Bench(tmp_path, repeats=1), said.append)
    assert [stage["stage"] for stage in found["stages"]] == ["good"]
    assert len(found["failed"]) == 1 and "bad, ours" in found["failed"][0]
    assert "no such luck" in "\n".join(said)
