"""How fast sample sheets are made: drawing and JPEG encoding with one process a core, their start included."""

import os
from collections.abc import Callable

from benchmarks.harness import Bench, Stage, Target


def ours(bench: Bench) -> Callable[[], float]:
    """Sheets of the laptop profile's 40 species in turn, as `make_flora` draws them."""
    from utils.flora import morphology, phylogeny, sample, sheet

    traits = morphology.evolve(phylogeny.grow(40, seed=0), seed=0)
    tasks = [
        sheet.Task(traits[number % 40], number % 16, sheet.SIZE, (0, 2, number))
        for number in range(40 if bench.quick else 800)
    ]
    workers = 1 if bench.quick else os.cpu_count() or 1
    return lambda: sum(1.0 for _ in sample.draw(tasks, workers, progress=False))


STAGES = (
    Stage(
        "sample flora",
        "sheets/s",
        {"ours": ours},
        (Target("figure", 60),),
        "480 px sheets of about 80 KB; the target is for 2 cores. Memory is of the process that collects them.",
    ),
)
