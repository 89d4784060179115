"""What the figures and tables of notebooks 00 to 02 show, in words made of the numbers that they show.

Every function gives Markdown for the cell after the figure, with a branch for each outcome.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from utils.config import Profile
from utils.data.metadata import PUBLISHED_FAMILIES
from utils.data.tail import BINS, HEAD_MIN, TAIL_MAX, bins, gini, top_share


def kinship(kin: pd.DataFrame) -> str:
    """How often relatives of the sample flora grow alike; `kin` from `same_growth`."""
    shares = ", ".join(f"**{row.same:.0%}** of {row.pairs:,} pairs {row.pair}" for row in kin.itertuples())
    verdict = "relatives look alike more often than strangers, but not always, here as in nature"
    if not kin["same"].iloc[0] > kin["same"].iloc[-1]:
        verdict = "with so few species kinship does not show in it"
    return (
        "Species of one genus share a young ancestor, so they have had less time to become different. Whether two "
        f"species of this flora grow alike (herb, twig, fern, climber ...): {shares}. So {verdict}."
    )


def descent(steps: pd.DataFrame, rate: float) -> str:
    """What a descent into a valley by a learning rate did; one row a step: step, weight, loss, slope."""
    before, after = steps["loss"].iloc[0], steps["loss"].iloc[-1]
    went = "The slope is steep at first, so the first steps are long; near the floor they become short by themselves"
    if not after < before:
        went = "Every step leaps over the valley and lands no lower than before: the rate is too high"
    return (
        f"At a rate of {rate:g} the loss went from {before:.2f} to **{after:.2f}** in {steps['step'].iloc[-1]} steps. "
        f"{went}. A network does the same with millions of weights at once, and its valley changes with every batch. "
        "Exercise 2 tries other rates; notebook 03 takes one step of a real loss."
    )


def gaps(category_ids: np.ndarray) -> str:
    """Why class index and category_id must not be mixed up; the ids in class order, [C]."""
    same = int((np.asarray(category_ids) == np.arange(len(category_ids))).sum())
    return (
        "The `category_id` is the number that Kaggle wants in a submission. It has gaps, so it is **not** the class "
        f"index: the two agree for {same:,} of {len(category_ids):,} species, and who mixes them up names another "
        "species for all others (notebook 05 does it)."
    )


def two_classifiers(tables: Mapping[str, pd.DataFrame]) -> str:
    """Accuracy and macro-F1 of ways to name the same sheets, by their name.

    Args:
        tables: one row a species: sheets, named so, right, F1.
    """
    lines = [
        f"{name}: accuracy **{table['right'].sum() / table['sheets'].sum():.2f}**, macro-F1 "
        f"**{table['F1'].mean():.2f}**, the mean of {', '.join(f'{f1:.2f}' for f1 in table['F1'])}"
        for name, table in tables.items()
    ]
    return (
        f"{'. '.join(lines)}. A species that is never named has an F1 of 0, however many sheets are right; naming rare "
        "ones now and then costs the common one some recall, and gains whole species."
    )


def parts_of_the_score(species_by_images: Mapping[int, int]) -> str:
    """How much of macro-F1 head and tail decide, and how many images they have.

    Args:
        species_by_images: {training images: species that have so many}.
    """
    real = pd.Series(species_by_images)
    parts = bins(real.index)
    species = real.groupby(parts).sum() / real.sum()
    images = (real * real.index).groupby(parts).sum() / (real * real.index).sum()
    return (
        f"**{species['head']:.0%}** of the species have {HEAD_MIN} training images or more (the **head**), and they "
        f"hold {images['head']:.0%} of the images: most of the score is decided there. The **tail** ({TAIL_MAX} images "
        f"or fewer) is **{species['tail']:.0%}** of the species and only **{images['tail']:.0%}** of the images: that "
        "part of the score rests on few images, and this course is about how to learn from them."
    )


def middle(counts: np.ndarray) -> str:
    """Mean and median of the images of a species; counts int [C]."""
    mean, (quarter, half) = np.mean(counts), np.quantile(counts, [0.25, 0.5])
    why = "The mean is lower, since few rare species pull it down"
    if mean > half:
        why = "The mean is higher, since few common species pull it up"
    if abs(mean - half) < 0.05 * half:
        why = "The two are close, so neither end pulls the mean its way"
    return (
        f"A species has {mean:.0f} images in the mean; half of the species have {half:.0f} or fewer (the **median**, "
        f"in the column 50%), a quarter {quarter:.0f} or fewer (25%). {why}."
    )


def shape(counts: np.ndarray) -> str:
    """How the curve of images by rank runs; counts int [C]."""
    half, rarest_tenth = np.quantile(counts, [0.5, 0.1])
    falls = "nearly flat" if half >= 0.75 * counts.max() else "falling steeply"
    return (
        f"The left half of the curve is **{falls}**: half of the species have {half:.0f} images or more, the commonest "
        f"{counts.max()}. A tenth of the species have {rarest_tenth:.0f} or fewer."
    )


def weight_of_the_tail(five: Mapping[str, float]) -> str:
    """What an image of the tail counts in macro-F1; `five` has "tail species" and "tail images", shares of 1."""
    species, images = five["tail species"], five["tail images"]
    if not images:
        return f"No species has {TAIL_MAX} images or fewer: there is no tail here."
    return (
        f"Tail species are **{species:.0%}** of the score and **{images:.1%}** of the images. For macro-F1 an image of "
        f"the tail counts about **{species / images:.1f} times** as much as the average image."
    )


def parts(counts: np.ndarray) -> str:
    """Where species and images lie: head, medium and tail; counts int [C]."""
    groups = bins(counts)
    species = {name: float((groups == name).mean()) for name in BINS}
    images = {name: float(counts[groups == name].sum() / counts.sum()) for name in BINS}
    more = [name for name in BINS if images[name] > species[name]]
    fewer = [name for name in BINS if images[name] < species[name]]
    if not more:
        return "Every part has as many of the images as of the species: nothing is rare here."
    return (
        f"The right bar is the higher one for {_listed(more)}, the left one for {_listed(fewer)}. Accuracy follows the "
        f"right bars and macro-F1 the left ones. Medium, where a species has some dozens of images, is "
        f"{species['medium']:.0%} of the score. Other borders than {HEAD_MIN} and {TAIL_MAX} would move the bars, not "
        "the curve above."
    )


def inequality(counts: np.ndarray) -> str:
    """What the Lorenz curve says; counts int [C]."""
    value, top = gini(counts), top_share(counts, 0.2)
    verdict = "far from equal"
    if value < 0.3:
        verdict = (
            "not very unequal, as long tails go, since the cap on the images of a species cuts what is common"
        )
    return (
        f"Here the area gives **{value:.2f}**, and the commonest fifth of the species holds {top:.0%} of the images "
        f"where equal shares would give it 20%: {verdict}."
    )


def families(table: pd.DataFrame, generated: bool) -> str:
    """The largest families, and whether their figures are the published ones.

    Args:
        table: from family_table(), those with most species first.
        generated: the tables were made with the published figures.
    """
    columns, shown = list(table.columns[1:]), table.head(10)
    published = shown[["family"]].merge(PUBLISHED_FAMILIES[table.columns], on="family", how="left")
    agree = all((shown[name].to_numpy() == published[name].to_numpy()).all() for name in columns)
    text = (
        f"The {len(shown)} largest of {len(table):,} families hold {shown['species'].sum():,} of "
        f"{table['species'].sum():,} species, so families are long-tailed themselves. Their "
        f"{shown[columns].size} figures, test images included where the answers are known, "
        f"{'agree with' if agree else 'differ from'} the published ones."
    )
    put_in = " They were **put in** by the generator, so this checks the reading and not nature."
    return text + (put_in if generated else "")


def genera(of_species: Sequence[str]) -> str:
    """How many species have genus-mates to be confused with; the genus of every species, [C]."""
    sizes = pd.Series(np.asarray(of_species)).value_counts()
    alone, large = (sizes == 1).sum(), sizes[sizes > 20]
    text = (
        f"{alone:,} of {len(sizes):,} genera have one species, which has no genus-mate to be confused with; they are "
        f"{alone / sizes.sum():.0%} of the species. "
    )
    if large.empty:
        return text + f"No genus has more than 20 species; the largest has {sizes.max()}."
    return text + (
        f"**{large.sum() / sizes.sum():.0%} of the species** stand in the {len(large)} genera that have more than 20."
    )


def institutions(images: pd.Series, generated: bool) -> str:
    """How sheets spread over institutions; images is indexed by collection code."""
    shares = images.sort_values(ascending=False) / images.sum()
    text = (
        f"The largest of {len(shares)} institutions sent {shares.iloc[0]:.0%} of the sheets, the five largest "
        f"{shares.head(5).sum():.0%}. Whether that harms depends on which species they sent: hold out a whole "
        "institution, and the score says how much a network leans on paper and stamps."
    )
    by_chance = " Here an institution was drawn by chance for every sheet, so the figure says nothing of the real ones."
    return text + (by_chance if generated else "")


def distances(matrix: np.ndarray, families_of_genera: Sequence[str], generated: bool) -> str:
    """How far genera of one family are apart, and others.

    Args:
        matrix: float [G, G], from genus_distance_matrix(), nan where not known.
        families_of_genera: [G].
        generated: the tree was simulated.
    """
    rows, columns = np.triu_indices(len(matrix), 1)
    values, family = np.asarray(matrix)[rows, columns], np.asarray(families_of_genera)
    same, known = family[rows] == family[columns], ~np.isnan(values)
    within, across = values[known & same], values[known & ~same]
    if not len(within) or not len(across):
        return "All known distances are of one kind, so nothing can be compared."
    nearer = (within < np.median(across)).mean()
    text = (
        f"Half of the pairs of one family are {np.median(within):,.0f} million years or less apart, half of the others "
        f"{np.median(across):,.0f} or less; {nearer:.0%} of the pairs of one family are nearer than the middle pair of "
        f"different ones. A mistake within a family is {'the smaller one' if nearer > 0.5 else 'no smaller one'}."
    )
    simulated = (
        " The tree is **simulated**: its oldest splits part families and the next ones genera, so the two hills cannot "
        "overlap. A real tree need not be so tidy."
    )
    return text + (simulated if generated else "")


def blocks(generated: bool) -> str:
    """What the map of distances between genera tells."""
    text = (
        "Where a frame is brighter than what lies around it, its genera are closer to each other than to others; "
        "larger bright blocks are groups of families that are close. A frame that did not stand out would be a family "
        "whose genera are as far from each other as from strangers."
    )
    simulated = (
        " The names of the ten largest families are real, but here the tree is **simulated**: which families are close "
        "to each other in it says nothing of the real ones."
    )
    return text + (simulated if generated else "")


def ends(common: Sequence[int], rare: Sequence[int]) -> str:
    """The commonest and the rarest species side by side; training images of each."""
    fewest, most = min(rare), max(common)
    if most < 1.5 * fewest:
        return f"These data have no tail: from {fewest} to {most} images a species."
    return (
        f"For {most} sheets of a common species on the left the network sees {fewest} of the rarest one on the right. "
        "A rare species need not be harder to see on its sheet: there are fewer sheets to learn from what varies in "
        "it, leaf size or age, and what does not matter, paper and stamp. In an epoch a network sees a species as "
        "often as it has training sheets; of itself it knows nothing else of rarity. A loss can tell it more: by "
        "weights, which come next, or by the balanced softmax of notebook 03."
    )


def effective(table: pd.DataFrame) -> str:
    """What so many images are worth: the column images, and one "worth with N = ..." for each N; few images first."""
    images = table["images"]
    parts_of_it = [
        f"{column.removeprefix('worth with ')}: {table[column].iloc[-1] / table[column].iloc[0]:.1f} times"
        for column in table.columns[1:]
    ]
    return (
        f"{images.iloc[-1]} images are {images.iloc[-1] / images.iloc[0]:.0f} times {images.iloc[0]}. But what they "
        f"are worth grows less ({'; '.join(parts_of_it)}), the less the smaller N is: after some times N images nearly "
        "all has been shown. The weight of a species is 1 over this."
    )


def flat_weights(weights: Mapping[str, np.ndarray], counts: np.ndarray) -> str:
    """How class weights by N = 10 differ from inverse frequency.

    Args:
        weights: {method: weights of the classes, [C]}, of it "inverse frequency" and "class-balanced, N = 10".
        counts: training images, int [C], none without.
    """
    rarest, commonest = counts.argmin(), counts.argmax()
    flat, inverse = weights["class-balanced, N = 10"], weights["inverse frequency"]
    alike = (flat <= 1.1 * flat[commonest]).mean()
    return (
        f"With N = 10 the rarest species weighs **{flat[rarest] / flat[commonest]:.2f} times** the commonest, where "
        f"inverse frequency would give it {inverse[rarest] / inverse[commonest]:.0f} times, and **{alike:.0%} of the "
        f"species** weigh within a tenth of the commonest: these weights are "
        f"{'nearly flat' if alike >= 0.5 else 'not flat here'}. Keep that in mind when a run is said to be "
        "class-balanced. A larger N would bend the curve towards inverse frequency."
    )


def shards(tables: Sequence[Mapping[str, Any]]) -> str:
    """What `inspect` tells of shards: what is in them, and how test shards differ."""
    kinds = {frozenset(table["schema"]) for table in tables}
    sizes = sorted({size for table in tables for size in table["image_sizes"]})
    text = (
        f"Rows are what the files themselves say: {sum(table['records'] for table in tables):,} records in "
        f"{len(tables)} files, images of {_listed(sizes)} pixels, the lowest and the highest class index; "
        "`extra_features` would be fields that this course does not know. "
    )
    fields: dict[str, set[str]] = {}
    for table in tables:
        for name, kind in table["schema"].items():
            fields.setdefault(name, set()).add(kind)
    mixed = [f"`{name}` is {' or '.join(sorted(found))}" for name, found in fields.items() if len(found) > 1]
    if len(kinds) == 1 and not mixed:
        return text + "All have the same features."
    if missing := sorted(frozenset.union(*kinds) - frozenset.intersection(*kinds)):
        text += f"They differ in `{'`, `'.join(missing)}`: a test shard holds no answers. "
    if mixed:
        text += f"{' and '.join(mixed)}: the same feature need not be of one kind. "
    return text + "A loader that took the schema from a document would fail there."


def batch(classes: np.ndarray, counts: np.ndarray) -> str:
    """Which species a training batch holds.

    Args:
        classes: class indices of its sheets, int [B].
        counts: training images of every class, int [C].
    """
    drawn = np.unique(classes)
    tail = float((bins(counts)[classes] == "tail").mean())
    expected = counts[bins(counts) == "tail"].sum() / max(counts.sum(), 1)
    follows = "so a rare species is seldom in a batch"
    if expected > 0.5:
        follows = "and these data are nearly all tail, as no real flora is"
    return (
        f"{len(classes)} sheets of {len(drawn)} species. A species comes as often as it has sheets, {follows}: "
        f"{tail:.0%} of this batch are sheets of tail species, {expected:.0%} of all training sheets. A step learns "
        "from these sheets alone, so another batch pulls the weights another way."
    )


def views(profile: Profile, different: int, of: int) -> str:
    """What augmentation did to one sheet: so many different images of so many."""
    if different == 1:
        return (
            f"Profile `{profile.name}` changes nothing (`augment: {profile.augment}`, `random_crop: "
            f"{profile.random_crop}`): all epochs see one picture, and the network may learn it by heart."
        )
    return (
        f"{different} of {of} epochs show another picture of the one sheet (`augment: {profile.augment}`, "
        f"`random_crop: {profile.random_crop}`). The plant stays what it is, its place, side and light do not, so a "
        "network cannot pass by learning the picture by heart. What must not change is what tells species apart: turn "
        "the colours further, and a blue flower becomes a red one."
    )


def loader_speed(speed: Mapping[str, float], scale: int, image_size: int) -> str:
    """How fast batches come against decoding alone.

    Args:
        speed: images a second, the first entry of decoding whole JPEGs alone.
        scale: images are decoded at 1 / scale of their size.
        image_size: pixels a side of the batches.
    """
    whole, *others = speed.items()
    coarse = f"they are decoded at 1/{scale} of their size, inside the JPEG decoder"
    if scale == 1:
        coarse = f"at {image_size} pixels they are decoded at full size, where the crop lies"
    lines = [
        f"{name[:1].upper()}{name[1:]} come at **{rate / whole[1]:.1f} times** the rate at which whole JPEGs are "
        "decoded."
        for name, rate in others
    ]
    slowest = min(rate for _, rate in others)
    return (
        f"{' '.join(lines)} What saves work: {coarse}. What adds work: resizing, and flips and colours in training. "
        f"Whether it is fast enough depends on the network behind it: one that trains on fewer than {slowest:,.0f} "
        "images a second never waits (exercise 1 of notebook 03 asks how many it does)."
    )


def _listed(names: Sequence[str]) -> str:
    """Names in words: "head", "head and tail"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
