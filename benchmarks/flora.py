"""How fast sample sheets are made: `python -m benchmarks.flora` prints one table.

Drawing and JPEG encoding, without writing shards: CPU time a sheet in one process, then sheets a second
with one process a core, their start included. The floor is 40 sheets a second on 2 cores.
"""

import os
import time

from utils.flora import dataset, morphology, phylogeny, sheet

_SHEETS = 800


def _tasks(count: int, stream: int) -> list[sheet.Task]:
    """`count` sheets of the laptop profile's 40 species in turn."""
    traits = morphology.evolve(phylogeny.grow(40, seed=0), seed=0)
    return [
        sheet.Task(traits[number % 40], number % 16, sheet.SIZE, (0, stream, number))
        for number in range(count)
    ]


def main() -> None:
    sheet.draw_chunk(_tasks(40, 0))  # institutions and grain are drawn once a process
    began = time.process_time()
    sizes = [len(image) for image in sheet.draw_chunk(_tasks(_SHEETS // 4, 1))]
    cpu = (time.process_time() - began) / len(sizes)

    workers = os.cpu_count() or 1
    began = time.perf_counter()
    rate = sum(1 for _ in dataset.draw(_tasks(_SHEETS, 2), workers, progress=False))
    rate /= time.perf_counter() - began

    print("| measure | value |")
    print("| --- | --- |")
    print(f"| CPU time a sheet | {1000 * cpu:.1f} ms |")
    print(f"| JPEG size | {sum(sizes) / len(sizes) / 1000:.0f} KB |")
    print(f"| sheets a second, {workers} processes | {rate:.0f} |")


if __name__ == "__main__":
    main()
