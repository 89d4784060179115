"""Long steps that show no bar say that they are at work."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PAUSE, _LATER, _LONG = 10, 60, 300  # seconds between lines, between later ones, and until these


@contextmanager
def told(what: str, progress: bool = True) -> Iterator[None]:
    """Say on standard error what is done in the block, every ten seconds, after five minutes every minute.

    A step that is over by then says nothing, and where a bar is shown, that says enough.
    """
    done, begin = threading.Event(), time.monotonic()

    def tell() -> None:
        from tqdm.auto import tqdm

        while not done.wait(_PAUSE if time.monotonic() - begin < _LONG else _LATER):
            if getattr(tqdm, "_instances", ()):  # bars under way
                continue
            passed = round(time.monotonic() - begin)
            tqdm.write(f"{what}: at work for {passed // 60}:{passed % 60:02d} min", file=sys.stderr)

    thread = threading.Thread(target=tell, daemon=True)
    if progress:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if progress:
            thread.join()
