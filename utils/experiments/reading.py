"""What tables of results say, as smaller tables and in words: notebook 07.

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
SCREENED = ", screened"  # at the end of a training's name: one seed at a third of the epochs
# What each training of the tables does; see the batch files for every setting.
TRAININGS = {
    "frozen features": "the network as it comes, and a logistic regression as its classifier",
    "from nothing": "a network from random weights, as profile scratch trains it",
    "published recipe": "cross-entropy, weighted by the effective number of images with N = 10 (Cui et al. 2019)",
    "cross-entropy": "every sheet counts the same",
    "best recipe": "balanced softmax, with the settings that validation chose",
    "best recipe, images growing to 128 px": "the best recipe; images begin small and grow (Tan & Le 2021)",
    "best recipe, tau 1.5": "the best recipe with one and a half times the log of the share (Menon et al. 2021)",
    "balanced softmax": "the log of a species' share is added to its logit while training (Ren et al. 2020)",
    "deferred re-weighting": "cross-entropy, with class weights only in the last epochs (Cao et al. 2019)",
    "genus and family heads": "the network names genus and family too, and learns from all three",
    "EMA of weights": "a running mean of the weights is kept (Polyak & Juditsky 1992)",
    "logit-adjusted loss, tau 0.5": "as balanced softmax with half the log of the share (Menon et al. 2021)",
    "focal loss": "sheets that are named right for sure already count less (Lin et al. 2017)",
    "sub-centre ArcFace": "logits are angles to centres of a species; the true one must win by a margin, wider for "
    "rare species (Deng et al. 2020)",
    "class-balanced weights N 100": "weighted by the effective number with N = 100 (Cui et al. 2019)",
    "progressive image size": "images begin small and grow (Tan & Le 2021)",
    "mixup": "two sheets are blended, and their labels too (Zhang et al. 2018)",
    "CutMix": "a box of one sheet is pasted into another, labels by area (Yun et al. 2019)",
    "RandAugment": "random turns, shears, shifts and colours (Cubuk et al. 2020)",
    "gradient accumulation": "the weights move after two batches, not after each",
    "frozen first epoch": "in the first epoch only the head learns (Kumar et al. 2022)",
}
# What may be done after a training, as `utils.experiments.scoring.STEPS` names it.
AFTERWARDS = {
    "logit adjustment": "the log of a species' share is taken from its logit (Menon et al. 2021)",
    "tau-normalised": "weights of all species made equally long (Kang et al. 2020)",
    "learnt scales": "one factor a species is learnt (Kang et al. 2020)",
    "retrained classifier": "a new classifier, every species drawn as often (cRT, Kang et al. 2020)",
    "cross-entropy classifier": "a new classifier from all images as they come",
    "class-balanced weights classifier": "a new classifier, weighted with N = 100 (Cui et al. 2019)",
    "balanced softmax classifier": "a new classifier by balanced softmax (Ren et al. 2020)",
    "logistic regression": "a new classifier by regression, species weigh the same (King & Zeng 2001)",
    "genus beside species": "a regression of species and one of genera (after Salakhutdinov et al. 2011)",
    "nearest mean": "the species whose mean features lie nearest by angle (Kang et al. 2020)",
    "tta": "mirror images at test time, as in notebook 04",
    "least cost": "the answer of the smallest expected distance, as in notebook 06",
    "ensemble": "the mean of the seeds' probabilities (Lakshminarayanan et al. 2017)",
}
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


def sizes(tables: Mapping[str, pd.DataFrame]) -> str:
    """What stands behind each table, a line a table, by title."""
    lines = []
    for title, results in tables.items():
        trained = results[~results["method"].str.contains(" + ", regex=False)]
        runs = runs_of(trained)
        hours = (trained["minutes_mean"] * runs).sum() / 60
        seeds = "one seed" if trained["seeds"].max() == 1 else f"at most {trained['seeds'].max()} seeds"
        lines.append(
            f"- **{title}**: {len(results)} rows from {runs.sum()} trainings, {hours:.1f} hours of training, {seeds} a "
            f"method{_on_data(trained)}"
        )
    return "\n".join(lines)


def _on_data(results: pd.DataFrame) -> str:
    """On how many data sets, where a table has several."""
    several = "data" in results and results["data"].max() > 1
    return f" on each of {results['data'].max()} data sets (column `data`)" if several else ""


def spread(results: pd.DataFrame, metric: str = "macro_f1") -> tuple[float, float]:
    """By how many points the runs of one method lie apart: of the methods with several runs the least and the most."""
    several = results[runs_of(results) > 1]
    apart = 100 * (several[f"{metric}_max"] - several[f"{metric}_min"])
    return float(apart.min()), float(apart.max())


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


def ideas(results: pd.DataFrame) -> pd.DataFrame:
    """What the parts of a table's methods do: one row a part (training, or a step after it), idea; trainings first."""
    rows = parted(results)
    names = rows["training"].str.removesuffix(SCREENED).drop_duplicates()
    steps = {step for method in results["method"] for step in method.split(" + ")[1:]}
    steps |= {"ensemble"} if rows["together"].any() else set()
    found = [(name, TRAININGS[name]) for name in names if name in TRAININGS]
    found += [(f"+ {name}", idea) for name, idea in AFTERWARDS.items() if name in steps]
    return pd.DataFrame(found, columns=["part", "idea"])


def classifiers_in_words(table: pd.DataFrame, metric: str = "macro_f1") -> str:
    """What another classifier makes of the same features; table from `by_classifier`."""
    lines = []
    for training in table:
        scores = table[training].dropna()
        best = scores.idxmax()
        line = f"- On the features of **{training}** the highest is {best} ({scores[best]:.3f})"
        if OWN in scores and best != OWN:
            line += f", {100 * (scores[best] - scores[OWN]):+z.1f} points over its own classifier"
        lines.append(
            f"{line}; from first to last of {len(scores)} it is {100 * (scores.max() - scores.min()):.1f}."
        )
    across = table.max()
    lines.append(
        f"- The highest of each column differ by {100 * (across.max() - across.min()):.1f} points of "
        f"{METRICS[metric]}: so much is left to the training, once the classifier is chosen. All are means of runs, "
        "and the best row of several is too kind."
    )
    return "\n".join(lines)


def ensembles(results: pd.DataFrame) -> str:
    """What the seeds together gain over one of them, a line an ensemble; empty where there is none."""
    of = results.drop_duplicates("method").set_index("method")
    lines = []
    for method in of.index[parted(of.reset_index())["together"]]:
        alone = method.rpartition(" + ")[0]
        if alone in of.index:
            new, old = of.loc[method], of.loc[alone]
            gain = 100 * (new["macro_f1_mean"] - old["macro_f1_mean"])
            above = (
                "above the best of them"
                if new["macro_f1_mean"] > old["macro_f1_max"]
                else "not above the best"
            )
            lines.append(
                f"- {alone}: {new['macro_f1_mean']:.3f} together, {gain:+z.1f} points over the mean of the runs and "
                f"{above}, for {new['minutes_mean'] / old['minutes_mean']:.1f} times the training"
            )
    return "\n".join(lines)


def trade_off(results: pd.DataFrame, base: str) -> str:
    """Who raises the tail over a method, and whether the head pays; a row a method, with their ranges."""
    gains = gains_over(results, base, ["head_f1", "tail_f1"]).dropna(subset="gain")
    table = gains.pivot(index="method", columns="metric", values=["gain", "clear"])
    head, tail = table["gain"]["head_f1"].astype(float), table["gain"]["tail_f1"].astype(float)
    paid = head.index[(tail > 0) & (head < 0)].tolist()
    most, clear = tail.idxmax(), table["clear"]["tail_f1"].astype(bool)
    text = (
        f"Up and right of the square is better in both. **{int((tail > 0).sum())} of {len(tail)}** methods lie above "
        f"it, {int((clear & (tail > 0)).sum())} of them by more than the seeds differ; highest is {most} with "
        f"{100 * tail[most]:+z.1f} points in the tail and {100 * head[most]:+z.1f} in the head."
    )
    if paid:
        return f"{text} Of the higher ones these lose in the head: {', '.join(paid)}."
    return f"{text} None of the higher ones loses in the head: here the tail's gain is not taken from it."


def screened_in_words(results: pd.DataFrame, base: str = f"cross-entropy{SCREENED}") -> str:
    """Which trainings were ahead of another in a short trial with one seed; results of such trials only."""
    means = results.set_index("method")["macro_f1_mean"]
    alone = means[~means.index.str.contains(" + ", regex=False)].drop(base, errors="ignore")
    if base not in means or alone.empty:
        return "There is nothing to compare."
    alone.index = alone.index.str.removesuffix(SCREENED)
    ahead, behind = alone[alone > means[base]], alone[alone <= means[base]]
    first, last = alone.idxmax(), alone.idxmin()
    return (
        f"**{len(ahead)} of {len(alone)}** were ahead of plain cross-entropy ({means[base]:.3f}), first {first} "
        f"({alone[first]:.3f}); behind it were {', '.join(behind.index) or 'none'}, last {last} ({alone[last]:.3f}). "
        "With more epochs, or another seed, the order may be another."
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
        f"{100 * row.gain:+z.1f} points {_IN_WORDS[row.metric]} ({100 * row.low:+z.1f} to {100 * row.high:+z.1f}"
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
            f"- {row.method}: {100 * row.gain:+z.1f} points ({100 * row.low:+z.1f} to {100 * row.high:+z.1f})"
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


def carried_over(gains: pd.DataFrame) -> str:
    """Whether what gains in one table gains in the others; gains from `side_by_side`."""
    if gains.empty:
        return "No second table with the same methods is here, so it cannot be asked yet."
    other = turned(gains)
    alike = [name for name in gains.index if name not in other]
    return (
        f"By the means alone {len(alike)} of {len(gains)} have the same sign wherever they were measured, and "
        f"**{', '.join(other) or 'none'}** {'gains' if len(other) == 1 else 'gain'} in one table and "
        f"{'loses' if len(other) == 1 else 'lose'} in another. A mean without its range is a hint; what is clear in a "
        "table stands above."
    )


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
                f"macro-F1 {100 * (new['macro_f1_mean'] - old['macro_f1_mean']):+z.1f} points, distance of mistakes "
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
