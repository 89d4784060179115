"""What the scores of one network show, in words made of the numbers: notebooks 04 and 05.

Every function gives Markdown for the cell after a figure or table, with a branch for each outcome.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from utils.data.forms.names import printed_words
from utils.data.tail import BINS, bins
from utils.evaluation.scores import KINDS

NEAR = 0.05  # scores that differ by less are called alike
FEW = 10  # scored sheets of a species; on fewer a family's score may be chance


def italic(name: str) -> str:
    """A scientific name in Markdown: genus and epithets in italics, authors upright."""
    groups = itertools.groupby(printed_words(name), key=lambda word: word[1])
    parts = [(" ".join(word for word, _ in words), inside) for inside, words in groups]
    return " ".join(f"*{text}*" if inside else text for text, inside in parts)


def overall(score: Mapping[str, float], part: str) -> str:
    """Accuracy beside macro-F1; `score` from `overall_scores`, of the sheets that `part` names."""
    gap = score["macro_f1"] - score["accuracy"]
    why = "The two are close: species with many sheets and with few are known about equally well"
    if gap < -0.02:
        why = (
            "Counted by species the network does worse than by sheets: species with few sheets hardly move the first "
            "number, and weigh as much as any in the second"
        )
    elif gap > 0.02:
        why = "Counted by species the network does better than by sheets: those with many sheets are not known best"
    text = (
        f"Of the {score['images']:,.0f} sheets of the {part} **{score['accuracy']:.1%}** get the right species; the "
        f"mean F1 of the {score['classes']:,.0f} species is **{score['macro_f1']:.3f}**. {why}."
    )
    if missing := int(score["classes_without_images"]):
        text += (
            f" {missing:,} species have no sheet among the scored ones and count as F1 0: no network could reach more "
            f"than {1 - missing / score['classes']:.3f} here."
        )
    return text


def beside_baselines(macro_f1: float, table: pd.DataFrame) -> str:
    """The network's macro-F1 beside that of the baselines; table from `baselines`."""
    better = table.loc[table["macro_f1"].idxmax()]
    if "on" in table and not str(better["on"]).startswith("all"):
        return (
            f"The better baseline, {better['method']}, has {better['macro_f1']:.3f} on {better['on']}. That is an "
            "easier task than the network's, so the two numbers are no match; only a baseline that came out higher "
            "would say something."
        )
    if better["macro_f1"] >= macro_f1:
        return (
            f"The better baseline, {better['method']}, has {better['macro_f1']:.3f}, the network {macro_f1:.3f}: it "
            "has not passed what colour and layout alone give, so it has learnt little so far. More epochs, or a start "
            "from pretrained weights, would be the first things to change."
        )
    share = better["macro_f1"] / macro_f1
    verdict = (
        "Colour and layout alone give away little; most of what the network knows must lie in what they do not see, "
        "as shapes are"
    )
    if share >= 0.5:
        verdict = "So a good part of the score may come from colour and layout"
    return (
        f"The better baseline, {better['method']}, reaches **{share:.0%}** of the network's macro-F1 "
        f"({better['macro_f1']:.3f} of {macro_f1:.3f}). {verdict}. If every species came from one institution with its "
        "own paper, the baselines would rise, and the network's score would mean less."
    )


def down_the_tail(f1: np.ndarray, train_counts: np.ndarray, true: np.ndarray) -> str:
    """How far the points of one bin lie apart, and on how few sheets many of them rest.

    Args:
        f1, train_counts: of every species, [C].
        true: the species of every scored sheet, int [N].
    """
    groups = bins(train_counts)
    ranges = [
        f"{name} from {f1[groups == name].min():.2f} to {f1[groups == name].max():.2f}"
        for name in BINS
        if (groups == name).any()
    ]
    few = int((np.bincount(true, minlength=len(f1)) <= 3).sum())
    return (
        f"The line is the mean of a bin, and the points scatter around it: F1 runs in {', in '.join(ranges)}. "
        f"**{few:,} of {len(f1):,} species** have three sheets or fewer to be scored on; with two, one more or less "
        "right moves a point by about a third. So read the lines and not single points."
    )


def bins_in_words(table: pd.DataFrame, loss: str) -> str:
    """From head to tail; table from `scores_by_bin`, `loss` of the training."""
    shown = table[table["species"] > 0].set_index("bin")
    first, last = shown.index[0], shown.index[-1]
    if len(shown) == 1:
        return f"All species are of the {last}: this data set is too small to compare head and tail."
    fall = shown["macro_f1"].iloc[0] - shown["macro_f1"].iloc[-1]
    verdict = f"falls by **{fall:.2f}** from {first} to {last}"
    if fall < NEAR:
        verdict = f"is in the {last} no lower than in the {first}, or hardly so ({-fall:+z.2f})"
    text = (
        f"Macro-F1 {verdict}. The {last} is {shown['species'].iloc[-1] / shown['species'].sum():.0%} of the species, "
        f"so it decides that part of the score, with {shown['test_images'].iloc[-1]:,} of the "
        f"{shown['test_images'].sum():,} scored sheets."
    )
    gap = (shown["accuracy"] - shown["macro_f1"]).abs()
    text += " In each bin accuracy tells nearly the same as macro-F1"
    if gap.max() >= NEAR:
        text += (
            f", but for the {gap.idxmax()}: a species' F1 sinks also when sheets of others get its name, which "
            "accuracy counts where those sheets belong"
        )
    remedy = (
        "A loss that favours rare species, or a new classifier, may lift the tail: notebook 06 tries them"
    )
    if loss in ("balanced_softmax", "logit_adjusted"):
        remedy = f"This training's loss, `{loss}`, favours rare species already; notebook 06 asks whether more helps"
    return f"{text}. {remedy}."


def families_in_words(table: pd.DataFrame, top: int = 20) -> str:
    """Which family is furthest behind species with as many images; table from `scores_by_family`."""
    shown = table.head(top)
    behind = shown["macro_f1"] - shown["equal_images"]
    row = shown.loc[behind.idxmin()]
    if len(shown) == 1:
        return f"There is one family, {row['family']}, so nothing can be compared."
    if behind.min() > -NEAR:
        return (
            f"No bar ends more than {NEAR} left of its mark: what tells the families apart here is how many images "
            "their species have."
        )
    text = (
        f"The bar of **{row['family']}** ends furthest left of its mark ({behind.min():+.2f}): its {row['species']:,} "
        "species did worse than their numbers of images explain"
    )
    if row["test_images"] / row["species"] < FEW:
        text += (
            f". They have {row['test_images']:,} scored sheets in all, {row['test_images'] / row['species']:.0f} a "
            "species, so it may be chance: other sheets or another seed may put another family last"
        )
    return f"{text}."


def kinds_in_words(table: pd.DataFrame, distance: Mapping[str, float]) -> str:
    """Mistakes against chance; table from `mistakes_by_kind`, distance from `mistake_distance`."""
    rows = table.set_index("kind")
    total = int(table["mistakes"].sum())
    if not total:
        return "No sheet is named wrongly, so there is nothing to sort."
    genus = rows.loc[KINDS[0]]
    text = "No mistake could fall within a genus, so nothing is said of relatives."
    if not np.isnan(genus["ratio"]):
        verdict = "are confused more" if genus["ratio"] > 1 else "are not confused more"
        text = (
            f"Of {total:,} mistakes **{genus['share']:.0%}** stay in the genus, by chance it would be "
            f"{genus['chance']:.0%}: relatives {verdict} than strangers (**{genus['ratio']:.1f} times** as often)."
        )
    if np.isnan(distance["over_mistakes"]):
        return text
    near = "nearer" if distance["over_mistakes"] < distance["chance"] else "not nearer"
    return (
        f"{text} On the tree a wrong answer lies **{distance['over_mistakes']:.1f}** million years away, {near} than "
        f"by chance ({distance['chance']:.1f}; along the branches between genera, 0 within a genus). A network that "
        "looked at paper or labels would confuse strangers as often as relatives."
    )


def genera_in_words(matrix: np.ndarray, genera: Sequence[str], mistakes: int) -> str:
    """What lies off the diagonal.

    Args:
        matrix: int [G, G] from `genus_confusion`.
        mistakes: sheets that got a wrong species.
    """
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    outside = int(off.sum())
    if not outside:
        return (
            f"Nothing lies off the diagonal: every sheet gets the right genus, and all {mistakes:,} mistakes are "
            "between species of one genus."
        )
    true, named = np.unravel_index(off.argmax(), off.shape)
    leave = "leaves the genus and stands" if outside == 1 else "leave the genus and stand"
    of = matrix[true].sum()
    which = "It is" if outside == 1 else "The commonest is"
    return (
        f"**{outside:,} of the {mistakes:,} mistakes** {leave} off the diagonal; the others do not show "
        f"here. {which} *{genera[true]}* named as *{genera[named]}*: {off.max():,} of its {of:,} sheets. A column with "
        "several grey cells beside the black one would be a genus that draws the sheets of others to it."
    )


def pairs_in_words(table: pd.DataFrame) -> str:
    """The most frequent mistakes; table from `confused_pairs`."""
    if table.empty:
        return "No species is confused with another."
    first = table.iloc[0]
    pairs = {*zip(table["species"], table["taken_for"], strict=True)}
    both = sum((b, a) in pairs for a, b in pairs) // 2
    kin = (table["kind"] == KINDS[0]).sum()
    names = f"{italic(first['species'])} is taken for {italic(first['taken_for'])}"
    text = (
        f"Most often {names}, {first['times']} times, which is {first['share']:.0%} of its scored sheets. "
        f"**{kin} of the {len(table)} rows** are within a genus"
    )
    if both:
        go = "pair goes" if both == 1 else "pairs go"
        text += f", and {both} {go} both ways: the network mixes such species up"
    if first["times"] < 3:
        text += ". One or two sheets a row are little to go by"
    return f"{text}. To mend a row, look at sheets of the two side by side: is there something to see?"


def calibration_in_words(confidence: np.ndarray, right: np.ndarray, ece: float, smoothing: float) -> str:
    """Whether probabilities can be believed.

    Args:
        confidence, right: probability of each answer, whether it is right; [N].
        ece: from `expected_calibration_error`.
        smoothing: label smoothing of the training.
    """
    gap = confidence.mean() - right.mean()
    tendency = "well balanced on average"
    if ece >= 0.03 and abs(gap) >= ece / 3:  # as the title of the figure has it
        tendency = "**overconfident**" if gap > 0 else "**underconfident**"
    here = f"here {smoothing:g}" if smoothing else "off here"
    return (
        f"On average the model says {confidence.mean():.0%} and is right {right.mean():.0%} of the time: it is "
        f"{tendency}, and a probability is off by {ece:.2f} in the mean of the groups. Label smoothing ({here}) pushes "
        "probabilities down, training for many epochs pushes them up. The order of the answers does not depend on it, "
        "nor does macro-F1; decisions that weigh probabilities do, and notebook 06 mends them by one number."
    )


def ranks_in_words(table: pd.DataFrame, sure: float) -> str:
    """What is answered at which rank; table from `by_rank`, `sure` the threshold."""
    rows = table.set_index("rank")
    species, waiting = rows.iloc[0], int(rows.loc["none", "sheets"])
    higher = rows.iloc[1:-1]
    sheets = higher["sheets"].sum()
    text = (
        f"A row is a rank, with the share of the sheets that are answered there at a threshold of {sure:.0%}, and the "
        "share of these answers that are right. "
    )
    if not species["sheets"] and not sheets:
        return f"{text}Here no sheet is sure enough: all {waiting:,} wait for a person."
    if sheets:
        right = (higher["right"].fillna(0) * higher["sheets"]).sum() / sheets
        text += f"Genus or family is named on {sheets:,} sheets and right on {right:.1%} of them"
        if species["sheets"]:
            relation = "more often" if right > species["right"] else "not more often"
            text += f", {relation} than the species where that is named ({species['right']:.1%})"
        text += ". "
    return (
        f"{text}{waiting:,} sheets get no answer and wait for a person. A lower threshold moves sheets up to "
        "the species, and may let in more wrong ones."
    )


def map_in_words(shape: Sequence[int | None], pixels: int) -> str:
    """How finely a map of features can tell; its shape [1, rows, columns, C], of images of `pixels` a side."""
    rows, columns = shape[1:3]
    words = f"The map has {rows} × {columns} cells, each {pixels // (rows or 1)} of {pixels} pixels wide"
    if rows is None:  # a network for images of several sizes
        words = "The map has a cell for every 32 × 32 pixels"
    elif rows < 8:
        words += ": it tells the part of the sheet, not whether a leaf or the stamp beside it decided"
    return f"{words}. In between, colours are only blended."


def first_answers(classes: np.ndarray, categories: np.ndarray, probabilities: np.ndarray) -> str:
    """The first rows of a submission: class index, category_id and probability of each, [N]."""
    same = int((classes == categories).sum())
    least = probabilities.min()
    doubt = f"The least sure of them has {least:.0%}"
    return (
        f"In {same or 'none'} of these {len(classes)} rows is the class index also the `category_id`; the file gets "
        f"the second. {doubt}; the file will not say how sure the network was."
    )


def named_in_words(predicted: np.ndarray, train_counts: np.ndarray) -> str:
    """Which species are never named, and which much more often than they occur.

    Args:
        predicted: class of every test image, int [N].
        train_counts: int [C].
    """
    named = np.bincount(predicted, minlength=len(train_counts))
    never = np.flatnonzero(named == 0)
    expected = train_counts / max(train_counts.sum(), 1) * len(predicted)
    text = f"All {len(named):,} species are named at least once."
    if len(never):
        text = (
            f"**{len(never):,} of {len(named):,} species** are never named, so their F1 is 0 for certain; they have "
            f"{np.median(train_counts[never]):.0f} training images in the middle, all species "
            f"{np.median(train_counts):.0f}."
        )
    times = named.max() / max(expected[named.argmax()], 1e-9)
    verdict = "No sign of a collapse"
    if len(never) > len(named) / 2:
        verdict = "This model has collapsed, or has hardly learnt"
    return (
        f"{text} The species named most often gets {named.max():,} sheets, {times:.1f} times what its share of the "
        f"training images lets expect. {verdict}."
    )


def class_indices_in_words(
    category_ids: Sequence[int], found: Sequence[str], wrong: Mapping[str, Any] | None, macro_f1: float | None
) -> str:
    """What class indices in the place of category_ids cost, and who notices.

    Args:
        category_ids: of every class.
        found: problems from `validate_submission` of that file.
        wrong, macro_f1: of that file from `score_submission`, and of the right one; None without answers.
    """
    before = sum(number == index for index, number in enumerate(category_ids))
    text = (
        f"Only **{before:,} of {len(category_ids):,}** species have their class index as `category_id`, those before "
        "the first gap."
    )
    if wrong is not None:
        text += f" Macro-F1 is **{wrong['macro_f1']:.3f}** instead of {macro_f1:.3f}."
    caught = "The check of the file finds fault with it; the next cell prints its words."
    if not found:
        caught = "The check finds no fault: every number is a `category_id`, only of another species."
    return f"{text} {caught}"
