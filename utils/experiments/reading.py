"""What tables of results say, as smaller tables and in words: the end of notebook 06.

A table is one that `utils.experiments.table.summary_table` made, read from its CSV. One of an earlier version may lack
metrics, and any may lack methods: what is not there is left out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from utils.experiments.scoring import CLASSIFIERS
from utils.experiments.table import METRICS, gains_over

OWN = "its own"  # classifier, where none was learnt anew
SCORES = ("macro_f1", "head_f1", "medium_f1", "tail_f1", "rarest_f1")
_IN_WORDS = {
    "macro_f1": "of macro-F1",
    "tail_f1": "in the tail",
    "rarest_f1": "in the rarest third of the species",
}


def known(results: pd.DataFrame, metrics: Sequence[str] = SCORES) -> list[str]:
    """Those of the metrics that the table has figures of."""
    return [name for name in metrics if f"{name}_mean" in results and results[f"{name}_mean"].notna().any()]


def runs_of(results: pd.DataFrame) -> pd.Series:
    """How many runs every row is the mean of: seeds, times the folders of data where there are several."""
    return results["runs"] if "runs" in results else results["seeds"]


def parted(results: pd.DataFrame) -> pd.DataFrame:
    """The table with what its rows are: training, classifier, tta (bool), least_cost (bool), together (bool).

    A method is named by its training and what was done after it, joined by " + "; together are ensembles of seeds.
    """
    steps = results["method"].str.split(" + ", regex=False)
    return results.assign(
        training=steps.str[0],
        classifier=[next((step for step in row[1:] if step in CLASSIFIERS), OWN) for row in steps],
        tta=["tta" in row[1:] for row in steps],
        least_cost=["least cost" in row[1:] for row in steps],
        together=[row[-1].startswith("ensemble of ") for row in steps],
    )


def with_ranges(results: pd.DataFrame, metrics: Sequence[str] = SCORES) -> pd.DataFrame:
    """The table for people: method, seeds, data where it has several, and of each metric mean (lowest to highest)."""
    shown = results[[name for name in ("method", "seeds", "data") if name in results]].copy()
    for metric in known(results, metrics):
        digits = 3 if metric in SCORES else 1
        figures = results[[f"{metric}_{how}" for how in ("mean", "min", "max")]].to_numpy(float)
        shown[METRICS.get(metric, metric)] = [
            ""
            if np.isnan(mean)
            else f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
            if runs > 1
            else f"{mean:.{digits}f}"
            for (mean, low, high), runs in zip(figures, runs_of(results), strict=True)
        ]
    return shown


def by_classifier(results: pd.DataFrame, metric: str = "macro_f1", *, tta: bool = False) -> pd.DataFrame:
    """Means of a metric, one row a classifier, one column the training that its features are of; best row first.

    Args:
        tta: the rows with mirror images at test time; all figures of one table are with them, or none is.
    """
    rows = parted(results)
    rows = rows[(rows["tta"] == tta) & ~rows["least_cost"] & ~rows["together"]]
    several = rows.groupby("training")["classifier"].nunique().loc[lambda count: count > 1].index
    rows = rows[rows["training"].isin(several)]
    table = rows.pivot_table(f"{metric}_mean", "classifier", "training", aggfunc="first")
    table = table.reindex(columns=list(dict.fromkeys(rows["training"])))
    table.index.name, table.columns.name = None, None
    return table.loc[table.mean(axis=1).sort_values(ascending=False).index]


def compared(results: pd.DataFrame, method: str, base: str) -> str:
    """A sentence on what a method gains over another; empty where the table lacks one of them.

    In brackets is the least and the most that two runs differ by; a gain beyond it is called clear.
    """
    if not {method, base} <= {*results["method"]}:
        return ""
    rows = results[results["method"].isin((method, base))]
    gains = gains_over(rows, base, known(rows, tuple(_IN_WORDS)))
    parts = [
        f"{100 * row.gain:+.1f} points {_IN_WORDS[row.metric]} ({100 * row.low:+.1f} to {100 * row.high:+.1f}"
        f"{', clear' if row.clear else ''})"
        for row in gains.itertuples()
        if not np.isnan(row.gain)
    ]
    minutes = rows.set_index("method")["minutes_mean"]
    return f"**{method}** over {base}: {', '.join(parts)}, in {minutes[method] / minutes[base]:.2f} times the time."


def gains_in_words(results: pd.DataFrame, base: str, metric: str = "macro_f1") -> str:
    """Every method's gain over another, largest first: clear gains, undecided ones, clear losses.

    Empty where the table lacks `base`.
    """
    if base not in {*results["method"]}:
        return ""
    gains = gains_over(results, base, [metric]).dropna(subset="gain").sort_values("gain", ascending=False)
    kind = np.where(gains["clear"], np.where(gains["gain"] > 0, "gain", "loss"), "open")
    headings = {
        "gain": "Gains larger than the seeds' spread",
        "open": "Not larger than the spread, so undecided",
        "loss": "Losses larger than the seeds' spread",
    }
    text = []
    for name, heading in headings.items():
        lines = [
            f"- {row.method}: {100 * row.gain:+.1f} points ({100 * row.low:+.1f} to {100 * row.high:+.1f})"
            for row in gains[kind == name].itertuples()
        ]
        text += [f"**{heading}**", "", *(lines or ["- none"]), ""]
    return "\n".join(text)


def side_by_side(tables: Mapping[str, pd.DataFrame], base: str, metric: str = "macro_f1") -> pd.DataFrame:
    """Gains of means over `base` in points, one column a table, one row a method that the last table and another have.

    Only methods that, like `base`, have neither mirror images nor least cost after them and are no ensembles.
    """
    gains = {}
    for title, results in tables.items():
        rows = parted(results)
        rows = rows[~(rows["tta"] | rows["least_cost"] | rows["together"])].drop_duplicates("method")
        means = rows.set_index("method")[f"{metric}_mean"]
        if base in means:
            gains[title] = 100 * (means - means[base]).drop(base)
    table = pd.DataFrame(gains)
    in_last = table.iloc[:, -1].notna() & (table.notna().sum(axis=1) > 1) if gains else []
    return table[in_last]


def turned(gains: pd.DataFrame) -> list[str]:
    """Methods of `side_by_side` that gain in one table and lose in another."""
    return gains.index[(gains > 0).any(axis=1) & (gains < 0).any(axis=1)].tolist()


def nearer(results: pd.DataFrame) -> str:
    """What a decision by least cost changes, a line a method that has it and its like without it.

    Where the ranges of the distance with and without it overlap, the line says so.
    """
    of = results.drop_duplicates("method").set_index("method")
    lines = []
    for method in of.index[of.index.str.endswith(" + least cost")]:
        before = method.removesuffix(" + least cost")
        if before in of.index:
            new, old = of.loc[method], of.loc[before]
            apart = new["distance_all_max"] < old["distance_all_min"]
            apart = apart or new["distance_all_min"] > old["distance_all_max"]
            spread = "" if apart else " (the seeds' ranges overlap)"
            change = new["distance_all_mean"] / old["distance_all_mean"] - 1
            lines.append(
                f"- {method}: distance over all sheets {change:+.0%}{spread}, "
                f"macro-F1 {100 * (new['macro_f1_mean'] - old['macro_f1_mean']):+.1f} points, distance of mistakes "
                f"{old['distance_mistakes_mean']:.1f} before, {new['distance_mistakes_mean']:.1f} after"
            )
    return "\n".join(lines)


def findings(results: pd.DataFrame) -> str:
    """What the table says of the recipes, in lines, each pair with mirror images or without; and its highest row."""
    pairs = [
        ("best recipe", "published recipe"),
        ("best recipe", "cross-entropy"),
        ("frozen features", "published recipe"),
        ("best recipe", "frozen features"),
    ]
    lines = [
        compared(results, f"{method}{views}", f"{base}{views}")
        for method, base in pairs
        for views in ("", " + tta")
    ]
    for metric in known(results, ("macro_f1", "rarest_f1")):
        rows = results.dropna(subset=f"{metric}_mean").sort_values(f"{metric}_mean", ascending=False)
        best = rows.iloc[0]
        alone = rows[~parted(rows)["together"]].iloc[0]
        line = f"Highest {METRICS[metric]}: **{alone['method']}** with {alone[f'{metric}_mean']:.3f}"
        if best["method"] != alone["method"]:
            line += f", of several networks together **{best['method']}** with {best[f'{metric}_mean']:.3f}"
        lines.append(f"{line}. The highest of {len(rows)} rows is always too kind.")
    return "\n".join(f"- {line}" for line in lines if line)
