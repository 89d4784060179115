"""What the figures and tables of notebook 03 show, in words made of the numbers that they show.

Every function gives Markdown for the cell after the figure, with a branch for each outcome.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from utils.config import Profile, load_profile
from utils.experiments.range_test import RangeReading
from utils.experiments.start import Start

if TYPE_CHECKING:
    from utils.training.loop import TrainResult


def step_by_hand(table: pd.DataFrame, true: str) -> str:
    """What one step did; one row a species: probability, probability after."""
    before, after = (float(table.loc[true, name]) for name in ("probability", "probability after"))
    return (
        f"The species that it is, {true}, had probability {before:.2f}: the loss was −log {before:.2f} = "
        f"**{-math.log(before):.2f}**. The step raises its logit and lowers the others, each by as much as it was "
        f"wrong: its probability is now {after:.2f}, the loss **{-math.log(after):.2f}**. A rate ten times as high "
        "would take ten times the step, which on one image looks fine and on the next image of another species is a "
        "leap the wrong way."
    )


def settings(profile: Profile) -> str:
    """The settings that the course speaks of, out of the table of all in use."""
    smoothing = "off"
    if profile.label_smoothing:
        smoothing = f"{profile.label_smoothing:g}"
    return (
        f"Read down: the network (`backbone`), what it starts from (`weights: {profile.weights}`), how long it learns "
        f"(`epochs: {profile.epochs}` in batches of {profile.batch_size}), how fast (`max_lr: {profile.max_lr:g}`), by "
        f"which loss (`loss: {profile.loss}`, label smoothing {smoothing}). Each of these is explained below, at its "
        "place. Another profile is another such list, and the notebook stays the same."
    )


def head_of_network(in_head: int, total: int, species: int) -> str:
    """How much of a network is its head, here and with all species."""
    full = 1024 * 1280 + 1024 + 15501 * 1024 + 15501
    share = f"{in_head / total:.0%}" if in_head / total >= 0.005 else "less than 1%"
    return (
        "The table starts at the last feature map, where the backbone ends; below it stands the head. `None` is the "
        "number of sheets in a batch, which may be any; then come rows, columns and features of the grid. The head "
        f"holds **{share}** of all parameters, with {species} species. With 15,501 species and a hidden "
        f"layer of 1,024 units, as in profile `reference`, it holds {full / 37_531_629:.0%} of 37.5 million: there "
        "much of what is learnt is which features speak for which species."
    )


def smoothing(profile: Profile, species: int) -> str:
    """What label smoothing asks for, with the profile's number or, where it is off, with 0.1."""
    part = profile.label_smoothing or 0.1
    text = (
        f"With {part:g} and {species} species the right one is wanted with {1 - part + part / species:.4g} and every "
        f"other with {part / species:.2g}."
    )
    return text if profile.label_smoothing else f"{text} This profile leaves it off."


def kin(table: pd.DataFrame, held_out: int) -> str:
    """How related the nearest sheets are; `table` from `relatives`."""
    found = ", ".join(
        f"**{row.share:.0%}** are of the same {row.rank} ({row.chance:.0%} by chance)"
        for row in table.itertuples()
    )
    verdict = "sheets that the network finds alike are hardly more related than any two"
    if (table["share"] > 1.5 * table["chance"]).any():
        verdict = "before any training on these sheets its features put relatives side by side"
    return f"Of the five nearest of all {held_out:,} held-out sheets {found}: {verdict}."


def start_of(profile: Profile, n_train: int, compared: bool) -> str:
    """What a profile starts from, and what the next cells do about it."""
    why = f"starts from **{profile.start}** weights, and the next cells look at its features"
    if profile.weights == "random":
        why = (
            "starts from **random weights**, so its features mean nothing yet: the look at them is left out, and this "
            "network alone is trained, from nothing"
        )
    elif not compared:
        why = (
            f"starts from **{profile.start}** weights. The look at features and a second training from nothing are "
            f"for the sample flora; with {n_train:,} sheets they are left out"
        )
    return f"Profile `{profile.name}` {why}."


def regression(start: Start, profile: Profile) -> str:
    """What the regression on frozen features scores, and what it cost."""
    if math.isnan(start.macro_f1):
        return "Too few species have images to hold out, so the regression has no score."
    return (
        f"Held-out macro-F1 **{start.macro_f1:.3f}** after {start.seconds:.0f} seconds, from "
        f"{start.train.features.shape[1]:,} features of each sheet at {profile.image_size} pixels: this is what every "
        "training must beat."
    )


def schedule(profile: Profile, steps: int) -> str:
    """What the steps of a run add up to: `steps` an epoch."""
    if not profile.sgd_epochs:
        return "This profile takes no gradient step: its one epoch fits the classifier, and there is no schedule."
    count = steps * profile.sgd_epochs
    shrunk = 1 - (1 - profile.weight_decay) ** count
    share = f"{shrunk:.1%}" if shrunk >= 0.001 else "less than 0.1%"
    epochs = "one epoch" if profile.sgd_epochs == 1 else f"{profile.sgd_epochs} epochs"
    return (
        f"{count:,} steps in all: {steps:,} an epoch, {epochs}. The peak comes after "
        f"{profile.warmup_fraction:.0%} of them; the long fall lets the weights settle. Decay of "
        f"{profile.weight_decay:g} a step shrinks a weight that nothing pulls at by {share} over the whole run. Fewer "
        "epochs squeeze the same curve into fewer steps, which is why an interrupted run must keep its schedule."
    )


def range_test(profile: Profile, table: pd.DataFrame, seen: RangeReading) -> str:
    """What a range test says of the profile's highest rate."""
    falls = f"The loss was lowest at a rate of **{seen.lowest_at:.2g}**"
    if not seen.falls:
        falls = "The loss fell at no rate by more than the noise of the batches"
    rises = f"it rose at no rate up to {table['learning_rate'].iloc[-1]:.2g}"
    place = "lies within what was tried"
    if seen.rises_from:
        rises = f"from **{seen.rises_from:.2g}** on it rose"
        place = "lies below that" if profile.max_lr < seen.rises_from else "does not lie below that"
    return (
        f"{falls}, and {rises}, in {len(table)} steps. The profile's highest rate, {profile.max_lr:.2g}, {place}. "
        "A warm-up lets a network bear more than this, and many steps less: the held-out score of whole runs decides."
    )


def plan(profile: Profile) -> str:
    """Which layers of a profile learn when, and by which loss."""
    words = {
        "regression": "the first epoch fits the head by regression, without a step",
        "frozen_epochs": f"only the head learns in the first {profile.frozen_epochs} epochs",
        "frozen_stages": f"the first {profile.frozen_stages} stages, the stem is one, stay frozen",
        "fixed_statistics": "batch norm keeps the statistics that the weights came with",
    }
    chosen = [text for name, text in words.items() if getattr(profile, name)]
    return (
        f"In this profile: {'; '.join(chosen or ['all layers learn from the first step on'])}; the loss is "
        f"`{profile.loss}`."
    )


def head_start(table: pd.DataFrame) -> str:
    """What balanced softmax does to equal logits; columns sheets, softmax, balanced softmax, the commonest first."""
    common, rare = table.iloc[0], table.iloc[-1]
    return (
        f"Before a look at the sheet the three are equal, {common['softmax']:.2f} each. In training the species with "
        f"{common['sheets']:.0f} sheets counts as probable with {common['balanced softmax']:.2f} and the one with "
        f"{rare['sheets']:.0f} with {rare['balanced softmax']:.2f}, as often as they come. To be right about the rare "
        "one its own logit must rise by what its rarity takes away; when the network names new sheets, nothing is "
        "added, and that rise stays."
    )


def best_epoch(result: "TrainResult", profile: Profile) -> str:
    """The epoch that was kept, and how far training and held-out images are apart in it."""
    if pd.isna(result.best_f1):
        return "Too few species have images to hold out: nothing tells how good this network is."
    best = result.history.set_index("epoch").loc[result.best_epoch]
    gap = best["f1_score"] - best["val_f1_score"]
    verdict = "the two are close"
    if gap > 0.05:
        verdict = f"{gap:.2f} more, so it knows these images better than new ones (it **overfits**)"
    if best["f1_score"] < 0.3:
        verdict = "neither has learnt much yet, so what parts them says little"
    elif gap < -0.05:
        verdict = f"{-gap:.2f} less, since the network was worse for most of that epoch than at its end"
    how = (
        "Training images are augmented and the network was still changing while they were scored, so the two differ in "
        "that too."
    )
    if profile.regression and result.best_epoch == 1:
        how = "The regression of that epoch was fitted to these very images."
    scores = result.history["val_f1_score"]
    if profile.regression and len(scores) > 1 and scores[1] < scores[0]:
        lost = scores[0] - scores[1]
        how += (
            " Epoch 1 fitted the head without a step, to these very sheets: its training macro-F1 of "
            f"{result.history['f1_score'].iloc[0]:.3f} says nothing of others. The first steps, at high rates, cost "
            f"{lost:.2f} on the held-out ones"
        )
        how += ", and smaller ones won it back." if result.best_epoch > 1 else ", and later ones won less."
    return (
        f"The best epoch is **{result.best_epoch}** with held-out macro-F1 **{result.best_f1:.3f}**. In that epoch "
        f"macro-F1 on the training images was {best['f1_score']:.3f}: {verdict}. {how}"
    )


def worth(profile: Profile, result: "TrainResult", other: "TrainResult | None", start: Start | None) -> str:
    """What a pretrained start was worth against a training from nothing and a regression."""
    if other is None or start is None:
        return f"Only one network was trained here, from {profile.start} weights: nothing stands beside it."
    gain, over = result.best_f1 - other.best_f1, result.best_f1 - start.macro_f1
    if pd.isna(gain):
        return "Too few species have images to hold out, so the two cannot be compared."
    text = (
        f"The network from nothing reaches **{other.best_f1:.3f}** in {len(other.history)} epochs (profile `scratch` "
        f"takes {load_profile('scratch').epochs}), the fine-tuned one **{result.best_f1:.3f}** in "
        f"{len(result.history)}: {gain:+z.3f}. Against the regression on frozen features fine-tuning makes {over:+z.3f}"
    )
    text += "." if over > 0 else ": here the frozen features with a plain classifier were enough."
    first = result.history["val_f1_score"].iloc[0]
    if profile.regression and profile.sgd_epochs:
        mirrored = "" if profile.augment == "none" else ", with mirror images"
        text += (
            f" The first epoch is such a regression too{mirrored}, and has {first:.3f}: over that the "
            + (
                f"steps make {result.best_f1 - first:+z.3f}."
                if result.best_f1 > first
                else "steps make nothing."
            )
        )
    sheets, species = len(start.held_out), len(np.unique(start.held_out.classes))
    return (
        f"{text} This is one run and {sheets} held-out sheets of {species} species; on so few a difference of some "
        "hundredths may be chance, and the best of several epochs was picked on them."
    )


def history(result: "TrainResult") -> str:
    """What a row of the history holds, by its last one."""
    last = result.history.iloc[-1]
    accuracy = "" if pd.isna(last["val_accuracy"]) else f" ({last['val_accuracy']:.3f} accuracy)"
    held_out = (
        "no held-out score" if pd.isna(last["val_f1_score"]) else f"{last['val_f1_score']:.3f}{accuracy}"
    )
    return (
        f"One row an epoch. Epoch {last['epoch']:.0f}: training loss {last['loss']:.3f} and macro-F1 "
        f"{last['f1_score']:.3f}, on held-out sheets (`val_`) {held_out}, in {last['time']:.0f} seconds, at a learning "
        f"rate of {last['learning_rate']:.2g} at its end. Accuracy is the higher one where common species are known "
        "better than rare ones."
    )


def few_sheets(table: pd.DataFrame) -> str:
    """What to try first on few sheets, and from where on fine-tuning is ahead; `table` from `start.few_sheets`."""
    first, last = table.iloc[0], table.iloc[-1]
    few, many = f"{first['images of a species']:.0f}", f"{last['images of a species']:.0f}"
    text = (
        f"With {few} images of a species frozen features score {first['frozen features']:.2f}, with {many} "
        f"{last['frozen features']:.2f}."
    )
    if "from nothing" in table:
        text += f" From nothing a network comes to {first['from nothing']:.2f} and {last['from nothing']:.2f}"
        never = (table["from nothing"] < first["frozen features"]).all()
        text += f": even those stay below what {few} give to frozen features." if never else "."
    return f"{text} {_crossing(table)}"


def _crossing(table: pd.DataFrame) -> str:
    """Where fine-tuning leaves the draws of frozen features behind for good, or stays behind them."""

    def first_of(held: pd.Series) -> pd.Series | None:  # the row from which on it holds to the end
        to_the_end = held[::-1].cummin()[::-1]
        return table[to_the_end].iloc[0] if to_the_end.any() else None

    ahead = table["fine-tuned"] > table["highest"]
    won = table[ahead]["images of a species"]
    before = f" (with {', '.join(f'{each:.0f}' for each in won)} it is ahead of them)" if len(won) else ""
    row = first_of(ahead)
    if row is not None:
        return (
            f"Fine-tuning is ahead of every draw from **{row['images of a species']:.0f} images of a species** on "
            f"({row['fine-tuned']:.3f}, the best draw {row['highest']:.3f}): there the two cross."
        )
    row = first_of(table["fine-tuned"] < table["lowest"])
    if row is not None:
        return (
            f"From {row['images of a species']:.0f} on fine-tuning lies below every draw ({row['fine-tuned']:.3f}, the "
            f"lowest draw {row['lowest']:.3f}){before}: if the two cross for good, then beyond this table."
        )
    last = table.iloc[-1]
    return (
        f"At {last['images of a species']:.0f} fine-tuning ({last['fine-tuned']:.3f}) lies among the draws of frozen "
        f"features{before}: here neither is the better one."
    )
