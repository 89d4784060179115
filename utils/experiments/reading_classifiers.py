"""What new classifiers and other decisions change on one network, in words made of the numbers: notebook 06.

Every function gives Markdown for the cell after a figure or table, with a branch for each outcome.
"""

import numpy as np
import pandas as pd

from utils.data.tail import BINS, class_weights
from utils.experiments.reading_scores import italic

ADJUSTED = ("balanced_softmax", "logit_adjusted")  # losses that already leave out how common a species is
_FEW = 10  # answers; what hangs on fewer says nothing of other sheets


def pull(table: pd.DataFrame, loss: str) -> str:
    """Whether common species are named more often than they occur; table from `pull_of_the_common`."""
    shown = table.dropna(subset="ratio")
    common, rare = shown.iloc[0], shown.iloc[-1]
    trained = f"This network was trained with `{loss}`"
    if loss in ADJUSTED:
        trained += ", which is made to take the pull away"
    if len(shown) == 1:
        return f"All species are of the {rare['bin']}, so no pull between bins can be seen. {trained}."
    more, less = common["ratio"], rare["ratio"]
    verdict = "The common species pull" if more > less else "The common species do not pull here"
    text = (
        f"{verdict}: those of the {common['bin']} are named **{more:.2f}** times as often as they occur, those of the "
        f"{rare['bin']} **{less:.2f}** times."
    )
    if 0 < more - less < 0.2:
        text += " That is not much; with other seeds it may be more or less."
    return f"{text} {trained}."


def remedies(counts: np.ndarray) -> str:
    """How far the rarest and the commonest species are apart by each remedy; counts int [C] of training images."""
    present = np.sort(counts[counts > 0])
    few, many = int(present[0]), int(present[-1])
    ratios = {
        name: weights[0] / weights[-1]
        for name, weights in {
            "N = 10": class_weights(present, "class_balanced", 10),
            "N = 100": class_weights(present, "class_balanced", 100),
            "inverse frequency": class_weights(present, "inverse"),
        }.items()
    }
    said = ", ".join(f"with {name} **{ratio:.1f} times**" for name, ratio in ratios.items())
    return (
        f"The rarest species has {few} training images and the commonest {many}. A sheet of the rarest weighs {said} "
        "what one of the commonest weighs: the larger N, the nearer it comes to inverse frequency. By balanced softmax "
        f"the logits of the two are shifted {np.log(many / few):.1f} apart, as if the rarest became {many / few:.0f} "
        "times as probable; that is what its rarity had taken from it. With more equal numbers of images all these "
        "curves would be flat, and the remedies would change nothing."
    )


def ranking(table: pd.DataFrame, base: str, spread: tuple[float, float]) -> str:
    """The best classifier, and how large a difference must be to count.

    Args:
        table: from `compare_classifiers`.
        base: the network's own classifier.
        spread: by how much another seed alone moved macro-F1 in a table of trainings, from `reading.spread`.
    """
    best, own = table.loc[table["macro_f1"].idxmax()], table.set_index("method").loc[base]
    text = f"Highest here is **{best['method']}** with macro-F1 {best['macro_f1']:.3f}"
    if best["method"] == base:
        text = f"None beats **{base}**, with macro-F1 {best['macro_f1']:.3f}"
    else:
        text += f", against {own['macro_f1']:.3f} of {base}"
    within = (best["macro_f1"] - table["macro_f1"] < spread[1] / 100).sum() - 1
    return (
        f"{text}. But this is one network of one seed, and the highest of {len(table)} on the very sheets that it is "
        f"shown on is always too kind. In the table from nothing of notebook 07 another seed alone moves the macro-F1 "
        f"of a method by {spread[0]:.1f} to {spread[1]:.1f} points: among the others {within} lie within the larger of "
        "these of the highest, and which of them is first decides nothing."
    )


def by_bin(gains: pd.DataFrame, base: str, loss: str) -> str:
    """Who gains in the tail and who pays for it; gains from `gains_over`, of head_f1, medium_f1 and tail_f1."""
    table = gains.assign(bin=gains["metric"].str.removesuffix("_f1")).dropna(subset="gain")
    table = 100 * table.pivot(index="method", columns="bin", values="gain")
    (*there,) = (name for name in BINS if name in table)
    last = there[-1]
    best, worst = table[last].idxmax(), table[last].idxmin()
    raised = int((table[last] > 0).sum())
    text = (
        f"**{raised} of {len(table)}** classifiers raise the {last} above {base}, most of all {best} "
        f"({table.loc[best, last]:+z.1f} points), least {worst} ({table.loc[worst, last]:+z.1f})."
    )
    if len(there) > 1:
        first = there[0]
        paid = int(((table[last] > 0) & (table[first] < 0)).sum())
        text += f" Of those that raise it {paid or 'none'} lower the {first}."
    adjusted = "post-hoc logit adjustment"
    if loss in ADJUSTED and adjusted in table.index:
        change = table.loc[adjusted, last]
        outcome = "and lowers" if change < 0 else "and yet raises"
        text += (
            f" {adjusted.capitalize()} takes the pull of the common species away a second time, after `{loss}` in "
            f"training, {outcome} the {last}."
        )
    elif loss not in ADJUSTED:
        text += f" The training's loss, `{loss}`, left the pull in, so there was something for them to mend."
    return f"{text} On features of a network trained otherwise the order may be another: notebook 07 has several."


def one_sheet(table: pd.DataFrame) -> str:
    """Why the decision of least cost falls on another species; table from `expected_distances`."""
    first, least = table.iloc[0], table.loc[table["distance"].idxmin()]
    true = table.loc[table["true"], "species"]
    if first["species"] == least["species"]:
        return (
            f"Here both decisions name {italic(first['species'])}: it is the most probable and has the smallest "
            "expected distance. Only where the most probable species stands alone, among relatives of another, do they "
            "differ."
        )
    text = (
        f"Most probable is {italic(first['species'])} ({first['probability']:.2f}). The smallest expected distance has "
        f"{italic(least['species'])} ({least['distance']:.1f} against {first['distance']:.1f}), since more of the "
        "probability lies on its relatives."
    )
    if true.empty:
        return f"{text} The sheet is of neither, nor of any species that was kept."
    right = {first["species"]: "first", least["species"]: "second"}.get(true.iloc[0])
    return f"{text} " + (
        f"Here the {right} is right." if right else f"The sheet is of another, {italic(true.iloc[0])}."
    )


def decisions(table: pd.DataFrame, changed: int) -> str:
    """The two decisions over all sheets; table from `compare_decisions`, `changed` answers differ."""
    plain, by_cost = table.iloc[0], table.iloc[-1]
    if not plain["over_all"] > 0:
        return "Every answer is of the right genus, so no distance can be made shorter."
    change = by_cost["over_all"] / plain["over_all"] - 1
    points = 100 * (by_cost["macro_f1"] - plain["macro_f1"])
    word = "lower" if change < 0 else "not lower"
    text = (
        f"The mean distance over all sheets (right = 0) is {word} with least cost: {plain['over_all']:.1f} before, "
        f"{by_cost['over_all']:.1f} after (**{change:+.0%}**), at {points:+z.1f} points of macro-F1. Over mistakes "
        f"alone it is {plain['over_mistakes']:.1f} and {by_cost['over_mistakes']:.1f}."
    )
    if 0 < changed < _FEW:
        text += (
            f" It hangs on {changed} sheet{'s' if changed > 1 else ''}, so it says nothing of other sheets."
        )
    return (
        f"{text} The surer a network is, the fewer answers change. One with many near calls between relatives and "
        "strangers has more to gain."
    )
