"""A prediction shared by calls with --shard I/N: each writes its part beside the CSV, and who finds all joins them.

Parts lie in NAME.parts/CHECKSUM beside the CSV. The checksum is of the network, the files and the options, so that
parts of another prediction are never joined. They stay: who joins them twice writes the same bytes again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.files import InputError, UsageError, read_json, replacing, write_json
from utils.own.answers import ARRAYS, WORDS
from utils.own.plan import check_part


class Parts:
    """One of the parts of a prediction, and what is known of the others."""

    def __init__(
        self, out: Path, part: tuple[int, int], run_dir: Path, labels: Path | None = None, **options: Any
    ) -> None:
        """Take part in a prediction.

        Args:
            out: the CSV that is to come.
            part: (i, n): the i-th of n parts.
            run_dir: the folder of the training run.
            labels: a table that the prediction takes names from.
            options: whatever else decides what is predicted.

        Raises:
            UsageError: there is no i-th of n.
            InputError: `run_dir` has no trained network.
        """
        self.out, self.part = Path(out), part
        self._options = {"parts": part[1], **options}
        self._configs = sorted(Path(run_dir).glob("*_configs.json"))
        weights = sorted(Path(run_dir).glob("*_weights.h5"))
        kept = [Path(run_dir) / name for name in ("labels.json", WORDS, ARRAYS)]
        tables = [Path(labels)] if labels is not None else []
        self._decisive = [*weights, *self._configs, *(path for path in kept if path.is_file()), *tables]
        self.folder = self.out.with_name(f"{self.out.name}.parts")
        check_part(*part)
        if not weights or not self._configs:
            raise InputError(f"{run_dir}: no trained run: train first, by notebook 03 or ./course train.")

    def images(self, files: Sequence[Path]) -> list[Path]:
        """The image files of this part, of all: whole batches, so that figures are those of one call for all."""
        config = read_json(self._configs[0])
        batch = config.get("batch_size") if isinstance(config, dict) else None
        if type(batch) is not int or batch < 1:
            raise InputError(f"{self._configs[0]}: not the settings of a run. Copy the run again.")
        return self._take(files, batch, "images")

    def shards(self, files: Sequence[Path]) -> list[Path]:
        """The shards of this part, of all."""
        return self._take(files, 1, "shards")

    def _take(self, files: Sequence[Path], together: int, what: str) -> list[Path]:
        index, count = self.part
        pieces = -(-len(files) // together)
        if count > pieces:
            raise UsageError(
                f"shard is {index}/{count}, and {len(files)} {what} can be shared among {pieces} calls at most."
            )
        told = [self._options, *([str(file), *_stamp(file)] for file in (*self._decisive, *files))]
        self.folder /= hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        first, end = (pieces * number // count * together for number in (index - 1, index))
        return list(files[first:end])

    @property
    def file(self) -> Path:
        """Where this part's CSV goes."""
        return self._csv(self.part[0])

    @property
    def done(self) -> bool:
        """Whether this part is there."""
        return self._facts(self.part[0]).is_file()

    @property
    def missing(self) -> int:
        """How many parts are still to come."""
        return sum(not self._facts(number).is_file() for number in self._numbers)

    @property
    def _numbers(self) -> range:
        return range(1, self.part[1] + 1)

    def _csv(self, number: int) -> Path:
        return self.folder / f"{number}.csv"

    def _facts(self, number: int) -> Path:
        return self.folder / f"{number}.json"

    def finish(self, counts: dict[str, int], left_out: dict[str, str], notes: dict[str, str]) -> None:
        """Mark this part as done, its CSV being there; see `join` for what is noted of it."""
        facts = {"counts": counts, "left_out": left_out, "notes": notes}
        write_json(self._facts(self.part[0]), facts)

    def join(self) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
        """Write the CSV from all parts, in their order, whole.

        Returns:
            The sheets by status; what was left out; the notes on images.
        """
        counts: Counter[str] = Counter()
        left_out, notes = {}, {}
        with replacing(self.out) as temporary, temporary.open("wb") as joined:
            for number in self._numbers:
                facts = read_json(self._facts(number))
                counts.update(facts["counts"])
                left_out |= facts["left_out"]
                notes |= facts["notes"]
                head, _, rows = self._csv(number).read_bytes().partition(b"\n")
                joined.write(rows if number > 1 else head + b"\n" + rows)
        return dict(counts), left_out, notes


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of a file, which another one of its name would change."""
    found = file.stat() if file.exists() else file.lstat()  # a link may lead nowhere
    return found.st_size, found.st_mtime_ns
