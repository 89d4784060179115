"""How long a fresh clone takes from the call to `import tensorflow`, by uv and by pip: python benchmarks/setting_up.py

Each round makes two clones of HEAD beside each other in a temporary folder, one with the lock as it is and one without
its lines of uv, so that pip installs. Their caches are empty, and what the machine is configured with (index,
certificates) stays. Needs the network, 7 GB of disk and about 5 minutes a round, in which the machine should do
nothing else. It runs on any Python of the course, without its environment.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "utils" / "setup"))
from environment import split  # noqa: E402 (by its path: `utils` needs more than the standard library)

WAYS = ("uv", "pip")


def measure(way: str, python: str) -> tuple[float, float, list[str]]:
    """Seconds until set up, seconds until TensorFlow is imported, and the versions that are then there."""
    with tempfile.TemporaryDirectory() as temporary:
        clone, home = Path(temporary) / "clone", Path(temporary) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
        if way == "pip":
            lock = clone / "requirements.lock"
            lock.write_text(split(lock.read_text())[1])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
        environment.pop("COURSE_VENV", None)
        # uv leaves compiling to the first import, if that may; pip compiles in any case
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment |= {"PYTHON": python, "PIP_CACHE_DIR": str(home), "XDG_CACHE_HOME": str(home)}
        begin = time.monotonic()
        subprocess.run([clone / "course", "setup"], env=environment, check=True, stdin=subprocess.DEVNULL)
        ready = time.monotonic()
        interpreter = clone / ".venv" / "bin" / "python"
        subprocess.run(
            [interpreter, "-c", "import tensorflow"], env=environment, check=True, capture_output=True
        )
        end = time.monotonic()
        versions = "from importlib.metadata import distributions as d; print(*{f'{x.name}=={x.version}' for x in d()})"
        listed = subprocess.run([interpreter, "-c", versions], check=True, capture_output=True, text=True)
        return ready - begin, end - begin, sorted(set(listed.stdout.lower().split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python", default="3.11")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {load:.1f} before it starts", flush=True)
    seconds: dict[str, list[float]] = {way: [] for way in given.ways}
    installed: dict[str, list[str]] = {}
    for repeat in range(given.repeats):
        for way in given.ways if repeat % 2 == 0 else reversed(given.ways):
            ready, whole, installed[way] = measure(way, given.python)
            seconds[way].append(whole)
            print(f"{way:<4} set up {ready:6.1f} s, TensorFlow imported {whole:6.1f} s", flush=True)
    print(f"\n{'':<4} {'min':>7} {'median':>7} {'max':>7}  seconds, {given.repeats} fresh clones each")
    for way, values in seconds.items():
        print(f"{way:<4} {min(values):7.1f} {statistics.median(values):7.1f} {max(values):7.1f}")
    if len(installed) < len(WAYS):
        return
    other = [name for name in set(installed["uv"]) ^ set(installed["pip"]) if not name.startswith("uv==")]
    print("Same versions in both." if not other else f"Other versions: {', '.join(sorted(other))}")


if __name__ == "__main__":
    main()
