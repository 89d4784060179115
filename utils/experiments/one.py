"""One run of a batch, in its own process: `python -m utils.experiments.one FOLDER`.

It reads what to do from FOLDER/run.json, which `utils.experiments.run` writes, trains or runs the notebook there, and
writes FOLDER/result.json last, which makes the run a finished one.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

from utils.config import Profile, profile_from_dict
from utils.experiments.spec import RESULT_FILE, SPEC_FILE
from utils.files import InputError, UsageError, is_hidden, read_json, write_json
from utils.sources import find_data


def run_one(folder: Path) -> None:
    """Do the run that `folder`/run.json describes, and write result.json.

    Raises:
        UsageError, InputError: as `train` and `score_run`, or the notebook leaves nothing to work on `after` it.
        RunFailed: a cell of the notebook failed.
    """
    from utils.startup import import_tensorflow

    spec = read_json(folder / SPEC_FILE)
    profile = profile_from_dict(spec["profile"], str(folder / SPEC_FILE))
    if spec["notebook"] is None:
        import_tensorflow()
        from utils.experiments.scoring import score_run
        from utils.training.loop import train

        data = find_data(profile, spec["data"], progress=False)
        train(profile, data, folder)
        scored = score_run(folder, data, spec["test"], spec["after"])
    else:
        scored = _run_notebook(folder, profile, spec)
    metrics = scored.pop("")
    write_json(
        folder / RESULT_FILE,
        {
            "method": spec["method"],
            "profile": profile.to_dict(),
            "parameters": spec["parameters"],
            "seed": spec["seed"],
            "test": spec["test"],
            "metrics": metrics,
            "after": scored,
        },
    )


def _run_notebook(folder: Path, profile: Profile, spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Run the notebook; its metrics are the numbers in the JSON files it leaves, and its training's scores."""
    from utils.course.notebooks import Run, RunFailed, run_notebook

    shared = {"DATA_DIR": spec["data"]} if spec["data"] != "auto" else {}
    run = Run(folder, profile, shared)
    result = run_notebook(run, Path(spec["notebook"]), spec["parameters"])
    if not result.passed:
        raise RunFailed(f"{run.executed(result.name)}: {result.problem}")
    metrics: dict[str, float] = {"minutes": result.seconds / 60}
    for file in sorted(path for path in run.output.glob("*.json") if not is_hidden(path.name)):
        content = read_json(file)
        if isinstance(content, dict) and not file.name.endswith("_configs.json"):
            numbers = {name: value for name, value in content.items() if type(value) in (int, float)}
            metrics.update(numbers)
    if any(run.output.glob("*_weights.h5")):
        from utils.startup import import_tensorflow

        import_tensorflow()
        from utils.experiments.scoring import score_run

        data = find_data(profile, spec["data"], progress=False)
        scored = score_run(run.output, data, spec["test"], spec["after"])
        return {**scored, "": {**metrics, **scored[""]}}
    if spec["after"]:
        raise InputError(f"{result.name} leaves no trained network, so there is nothing to do `after` it.")
    return {"": metrics}


def _end_with_the_batch() -> None:
    """End this process at once when the batch that started it is gone, so that two never work on one run."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # nothing is ever written; it returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    _end_with_the_batch()
    try:
        run_one(Path(sys.argv[1]))
    except (InputError, UsageError) as told:
        sys.exit(f"Error: {told}")
