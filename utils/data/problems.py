"""What is wrong in a file, gathered so that one message tells all of it."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from utils.errors import InputError

SHOWN = 20  # problems that a message lists; the rest it counts


class Problems:
    """The problems of one file, by kind: each kind keeps a count and its first rows.

    Memory does not grow with the number of bad rows, so a whole column may be wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kinds: list[tuple[int, list[str]]] = []

    def add(self, text: str) -> None:
        """Add one problem: what is wrong where, and the way out."""
        self._kinds.append((1, [text]))

    def add_rows(self, rows: Iterable[int], text: Callable[[int], str]) -> None:
        """Add a problem of one kind for each of `rows`; `text` tells it, and is called for the first only."""
        rows = list(rows)
        if rows:
            self._kinds.append((len(rows), [text(row) for row in islice(rows, SHOWN)]))

    def __len__(self) -> int:
        return sum(count for count, _ in self._kinds)

    def raise_any(self) -> None:
        """Raise what was added, if anything was.

        Raises:
            InputError: names the file and lists up to 20 problems, the first of each kind before the second
                of any, and how many there are.
        """
        if not self._kinds:
            return
        ranked = [
            (rank, kind, text)
            for kind, (_, texts) in enumerate(self._kinds)
            for rank, text in enumerate(texts)
        ]
        shown = sorted(sorted(ranked)[:SHOWN], key=lambda entry: (entry[1], entry[0]))
        texts = [text for _, _, text in shown]
        if len(self) == 1:
            raise InputError(f"{self.path}: {texts[0]}")
        heading = f"{self.path}: {len(self):,} problems"
        if len(self) > len(texts):
            heading += f", {len(texts)} of them here"
        raise InputError("\n  ".join([heading + ":", *texts]))
