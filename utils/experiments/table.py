"""The table of a batch: one row a method, mean and range over the seeds, and what a method gains over another."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from utils.data.delimited import write_csv
from utils.experiments.spec import Batch, BatchRun, read_result
from utils.files import InputError
from utils.sources import find_data

# Metric -> its heading on screen, in the order of the table; a notebook's own numbers come after these.
METRICS = {
    "macro_f1": "macro-F1",
    "head_f1": "head",
    "medium_f1": "medium",
    "tail_f1": "tail",
    "rarest_f1": "rarest third",
    "distance_all": "distance, all",
    "distance_mistakes": "d., mistakes",
    "genus_agreement": "genus heads agree",
    "family_agreement": "family heads agree",
    "validation_f1": "validation",
    "minutes": "minutes",
}


def metrics_of(run: BatchRun, after: str = "") -> dict[str, float]:
    """The metrics of a finished run, or of what was done after it, by name; NaN where not known."""
    result = read_result(run.folder)
    values = result["after"][after] if after else result["metrics"]
    return {name: math.nan if value is None else value for name, value in values.items()}


def summary_table(batch: Batch) -> pd.DataFrame:
    """One row a method and profile, and one each for what was done after it, from the finished runs.

    Columns: method, profile, test, epochs, seeds (how many have finished; 1 for an ensemble, of which there is
    one), and for each metric its mean, lowest and highest over the seeds as NAME_mean, NAME_min and NAME_max. Of a
    batch on several folders of data also data (how many folders) and runs (seeds and folders together), over all of
    which means and ranges are.

    Bins are by images that have labels, the rarest third of the species by training images. Patristic distances are
    between true and named genus; over all sheets a right answer counts 0. minutes are of training and of learning a
    classifier after it; of an ensemble those of all its runs.
    """
    rows = []
    for run in batch.runs:
        for row, after in zip(run.rows, ("", *run.after), strict=True) if run.finished else ():
            key = {"method": row, "profile": run.profile.name, "test": str(batch.test)}
            of = {"epochs": run.profile.epochs, "seeds": run.seed, "data": str(run.data)}
            rows.append({**key, **of, **metrics_of(run, after)})
    rows += _ensemble_rows(batch)
    if not rows:
        return pd.DataFrame(columns=["method", "profile", "test", "epochs", "seeds"])
    runs = pd.DataFrame(rows)
    metrics = [name for name in METRICS if name in runs]
    metrics += [name for name in runs if name not in METRICS and name not in (*key, *of)]
    named = {f"{name}_{how}": pd.NamedAgg(name, how) for name in metrics for how in ("mean", "min", "max")}
    counts = {"seeds": pd.NamedAgg("seeds", "nunique")}
    if len(batch.data) > 1:
        counts |= {"data": pd.NamedAgg("data", "nunique"), "runs": pd.NamedAgg("data", "size")}
    groups = runs.groupby([*key, "epochs"], sort=False)
    return groups.agg(**counts, **named).reset_index()


def _ensemble_rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """The rows of the seeds' mean probabilities, one a folder of data, where all runs on it have finished."""
    from utils.evaluation.predict import Predictions
    from utils.experiments.decide import ensemble
    from utils.experiments.scoring import Judge, predictions_file

    place = "." if batch.notebook is None else "output"
    judges: dict[tuple[str, Path | None], Judge] = {}  # made once: it reads the metadata
    of_runs = dict.fromkeys((run.profile.name, run.data) for run in batch.runs)
    for name, of in itertools.product(batch.ensembles, of_runs):
        runs = [run for run in batch.runs if name in run.rows and (run.profile.name, run.data) == of]
        if len(runs) < 2 or not all(run.finished for run in runs):
            continue
        chain = ("", *runs[0].after)[runs[0].rows.index(name)]
        together = ensemble(
            [Predictions.load(predictions_file(run.folder / place, chain)) for run in runs], top=1
        )
        profile, folder = of
        if of not in judges:
            data = find_data(runs[0].profile, folder or "auto", progress=False)
            judges[of] = Judge.of(data, data.split(runs[0].profile))
        yield {
            "method": f"{name} + ensemble of {len(runs)}",
            "profile": profile,
            "test": str(batch.test),
            "epochs": runs[0].profile.epochs,
            "seeds": -1,  # seeds are counted, and this is one of all
            "data": str(folder),
            **judges[of].metrics(together.true, together.predicted),
            "validation_f1": math.nan,
            "minutes": sum(metrics_of(run, chain)["minutes"] for run in runs),
        }


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV, whole, figures with four decimals."""
    write_csv(table, path, float_format="%.4f")


def show_table(table: pd.DataFrame) -> str:
    """The table for the screen: of each method the means, and below them the range over its seeds."""
    metrics = [name.removesuffix("_mean") for name in table if name.endswith("_mean")]
    metrics = [name for name in metrics if table[f"{name}_mean"].notna().any()]
    headings = [METRICS.get(name, name) for name in metrics]
    counts = [name for name in ("seeds", "data") if name in table]
    lines = [["method", "profile", *counts, *headings]]
    for _, row in table.iterrows():
        lines.append(
            [row["method"], row["profile"], *(str(row[name]) for name in counts)]
            + [shown_number(row[f"{name}_mean"]) for name in metrics]
        )
        if row.get("runs", row["seeds"]) > 1:
            ranges = [
                f"{shown_number(row[f'{name}_min'])}-{shown_number(row[f'{name}_max'])}" for name in metrics
            ]
            lines.append(["  lowest-highest", "", *[""] * len(counts), *ranges])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def shown_number(value: float) -> str:
    """A figure for the screen: three decimals below 1, else four digits; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.4g}"


def gains_over(results: pd.DataFrame, base: str, metrics: Sequence[str]) -> pd.DataFrame:
    """What every method gains over another one, and whether that is more than the spread of the seeds.

    Args:
        results: a row a method with method and NAME_mean, NAME_min, NAME_max, as summary_table()
            gives them; NAME alone does for a single run.
        base: the method to compare with.
        metrics: names such as "macro_f1".

    Returns:
        One row a method (but `base`) and metric: method, metric, gain (of the means), low and high (the least and
        the most that two seeds differ by), clear (the ranges do not overlap: low and high have one sign).

    Raises:
        InputError: `base` is not among the methods.
    """
    if base not in set(results["method"]):
        raise InputError(f"There is no method {base!r} in the table, only {', '.join(results['method'])}.")

    def value(row: pd.Series, metric: str, how: str) -> float:
        return row[f"{metric}_{how}"] if f"{metric}_{how}" in row else row[metric]

    at = results[results["method"] == base].iloc[0]
    rows = []
    for _, row in results[results["method"] != base].iterrows():
        for metric in metrics:
            low = value(row, metric, "min") - value(at, metric, "max")
            high = value(row, metric, "max") - value(at, metric, "min")
            gain = value(row, metric, "mean") - value(at, metric, "mean")
            clear = bool(low > 0 or high < 0)
            rows.append(
                {
                    "method": row["method"],
                    "metric": metric,
                    "gain": gain,
                    "low": low,
                    "high": high,
                    "clear": clear,
                }
            )
    return pd.DataFrame(rows, columns=["method", "metric", "gain", "low", "high", "clear"])
