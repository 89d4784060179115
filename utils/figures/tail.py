"""Figures of the long tail (notebook 01)."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from utils.data.tail import BINS, TAIL_MAX, bins, gini, imbalance_ratio, lorenz, top_share
from utils.figures.style import (
    BIN_COLOURS,
    BIN_RULES,
    BLACK,
    GREEN,
    GREY,
    LIGHT_GREY,
    LOOKS,
    OLIVE,
    SKY,
    colour_bins,
    count_axis,
    draw_bars,
    draw_bin,
    draw_pairs,
    family_frames,
    italic,
    new_figure,
    percent_axis,
    share_text,
    styled,
)


@styled
def rank_frequency(counts: np.ndarray) -> Figure:
    """Train images of every species, commonest first; counts int [C]."""
    counts = np.sort(np.asarray(counts))[::-1]
    ratio = imbalance_ratio(counts)
    if ratio >= 2:
        title = f"A long tail: the commonest species has {ratio:.0f} times as many images as the rarest"
    else:
        title = f"No long tail: all {len(counts):,} species have from {counts[-1]:,} to {counts[0]:,} images"
    figure, ((axes,),) = new_figure(title, 3.6)
    groups, edges = bins(counts), np.arange(len(counts) + 1) + 0.5
    for name in BINS:
        members = np.flatnonzero(groups == name)
        if len(members):
            span = slice(members[0], members[-1] + 1)
            axes.stairs(counts[span], edges[span.start : span.stop + 1], fill=True, color=BIN_COLOURS[name])
            middle = (members[0] + members[-1]) // 2
            label = f"{BIN_RULES[name]} ({len(members):,} species)"
            draw_bin(axes, name, edges[middle] + 0.5, counts[middle], ms=9, mec=BLACK, label=label)
    axes.set(xlabel="species, commonest first (rank)", ylabel="train images", xlim=(0.5, len(counts) + 0.5))
    axes.set_ylim(bottom=0)
    count_axis(axes.xaxis)
    axes.legend(title="train images")
    return figure


@styled
def images_per_family(families: pd.DataFrame, top: int = 10, published: pd.DataFrame | None = None) -> Figure:
    """Species and train images of the largest families.

    Args:
        families: from family_table(): family, species, train_images; those with most species first.
        top: how many to show.
        published: the published table with the same columns, whose numbers are put in brackets.
    """
    shown = families.head(top)
    total = families["train_images"].sum()
    share = shown["train_images"].sum() / total
    if len(shown) < len(families):
        title = f"The {len(shown)} largest of {len(families):,} families hold {share_text(share)} of the train images"
    else:
        largest = families.loc[families["train_images"].idxmax()]
        held = share_text(largest["train_images"] / total)
        title = f"{largest['family']}, one of {len(families)} families, has {held} of the train images"
    figure, (row,) = new_figure(title, 1.3 + 0.3 * len(shown), 1, 2, sharey=True)
    for axes, column, colour, label in (
        (row[0], "species", GREEN, "species"),
        (row[1], "train_images", SKY, "train images"),
    ):
        values = shown[column].to_numpy()
        texts = [f"{value:,}" for value in values]
        if published is not None:
            known = published.set_index("family")[column].reindex(shown["family"]).to_numpy()
            texts = [
                text if np.isnan(other) else f"{text} ({other:,.0f})"
                for text, other in zip(texts, known, strict=True)
            ]
        draw_bars(axes, shown["family"], values, texts, color=colour)
        axes.set_xlabel(label + ("" if published is None else " (in brackets: published)"))
        axes.margins(x=0.16 if published is None else 0.42)
        count_axis(axes.xaxis)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure


@styled
def lorenz_curve(counts: np.ndarray) -> Figure:
    """Share of images against share of species, rarest first, with the Gini coefficient; counts int [C]."""
    value, top = gini(counts), top_share(counts, 0.2)
    if value >= 0.1:
        title = f"The commonest 20% of the species hold {share_text(top)} of the images (Gini {value:.2f})"
    else:
        title = f"Images are spread almost evenly over the species (Gini {value:.2f})"
    figure, ((axes,),) = new_figure(title, 4.4)
    species, images = lorenz(counts)
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="every species alike (Gini 0)")
    axes.plot(species, images, color=SKY, lw=2.5, label="this data set")
    axes.fill_between(species, images, species, color=SKY, alpha=0.3, lw=0)
    axes.plot([0.8], [1 - top], "o", color=BLACK)
    axes.annotate(
        f"the rarest 80%\nhold {share_text(1 - top)}",
        (0.8, 1 - top),
        xytext=(8, -10),
        textcoords="offset points",
        va="top",
    )
    axes.set(
        xlabel="share of species, rarest first",
        ylabel="share of train images",
        xlim=(0, 1),
        ylim=(0, 1),
        box_aspect=0.62,
    )
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.legend(loc="upper left")
    return figure


@styled
def class_bins(counts: np.ndarray) -> Figure:
    """Share of species and of images in head, medium and tail; counts int [C]."""
    counts = np.asarray(counts)
    groups = bins(counts)
    species = np.array([(groups == name).mean() for name in BINS])
    images = np.array([counts[groups == name].sum() for name in BINS]) / max(counts.sum(), 1)
    if species[2] == 0:
        title = f"No tail: every species has more than {TAIL_MAX} train images"
    elif species[2] == 1:
        title = f"All tail: no species has more than {TAIL_MAX} train images"
    else:
        title = f"The tail is {share_text(species[2])} of the species and {share_text(images[2])} of the train images"
    figure, ((axes,),) = new_figure(title, 3.2)
    pairs = [("species", GREEN, species), ("train images", SKY, images)]
    draw_pairs(axes, [BIN_RULES[name] for name in BINS], pairs)
    colour_bins(axes.xaxis, BINS)
    axes.set(xlabel="train images of a species", ylabel="share")
    axes.set_ylim(top=max(species.max(), images.max()) * 1.12)
    percent_axis(axes.yaxis)
    axes.legend()
    return figure


@styled
def class_weight_curves(weights: Mapping[str, np.ndarray], counts: np.ndarray) -> Figure:
    """Weight of a species against its images, relative to the commonest species.

    Args:
        weights: {method: weights of the classes, [C]}.
        counts: train images, int [C]; species without any are left out.
    """
    present = np.flatnonzero(counts)
    order = present[np.argsort(counts[present], kind="stable")]
    ratio = {name: float(of[order[0]] / of[order[-1]]) for name, of in weights.items()}
    title = "How many times the commonest species the rarest weighs: "
    title += ", ".join(f"{value:.1f} ({name})" for name, value in ratio.items())
    figure, ((axes,),) = new_figure(title, 3.6)
    for (name, of), (colour, style) in zip(weights.items(), LOOKS, strict=False):
        axes.plot(counts[order], of[order] / of[order[-1]], color=colour, ls=style, label=name)
    axes.set(xlabel="train images of the species", ylabel="weight (commonest: 1)", yscale="log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend()
    return figure


@styled
def genus_sizes(genera: Sequence[str]) -> Figure:
    """How many genera have how many species; genera is the genus of every species, [C]."""
    sizes = pd.Series(np.asarray(genera)).value_counts()
    single = (sizes == 1).mean()
    largest = sizes[sizes == sizes.max()].index[0]
    if single == 1:
        title = f"Each of the {len(sizes):,} genera has one species: there are no genus-mates to confuse"
    elif single == 0:
        title = f"Every genus has genus-mates to confuse: from {sizes.min()} to {sizes.max():,} species"
    else:
        title = f"{share_text(single)} of {len(sizes):,} genera have one species"
        title += f", the largest ({italic(largest)}) has {sizes.max():,}"
    edges = [1, 2, 3, 4, 5, 6, 11, 21, 51, 101, np.inf]
    names, genera_in, species_in = [], [], []
    for low, above in itertools.pairwise(edges):
        if low <= sizes.max():
            inside = sizes[(sizes >= low) & (sizes < above)]
            last = f"{low}+" if above == np.inf else f"{low}–{above - 1}"
            names.append(str(low) if above == low + 1 else last)
            genera_in.append(len(inside) / len(sizes))
            species_in.append(inside.sum() / sizes.sum())
    figure, ((axes,),) = new_figure(title, 3.4)
    pairs = [("genera", OLIVE, genera_in), ("species in them", GREEN, species_in)]
    draw_pairs(axes, names, pairs, lambda value: share_text(value) if value else "", fontsize=8)
    axes.set(xlabel="species in the genus", ylabel="share")
    percent_axis(axes.yaxis)
    axes.legend()
    return figure


@styled
def institutions(images: pd.Series, top: int = 15) -> Figure:
    """Images of each institution; images is indexed by collection code."""
    images = images.sort_values(ascending=False)
    shares = images / images.sum()
    half = int((shares.cumsum() < 0.5).sum()) + 1
    if len(images) == 1:
        title = f"All sheets come from one institution, {images.index[0]}"
    elif half == 1:
        title = f"{images.index[0]}, one of {len(images)}, holds {share_text(shares.iloc[0])} of all sheets"
    else:
        title = f"{half} of {len(images)} institutions hold half of the sheets"
    shown = images.head(top)
    figure, ((axes,),) = new_figure(title, 1.2 + 0.25 * len(shown))
    colours = [SKY if rank < half else LIGHT_GREY for rank in range(len(shown))]
    texts = [f"{value:,} ({share_text(value / images.sum())})" for value in shown]
    draw_bars(axes, shown.index.astype(str), shown.to_numpy(), texts, color=colours)
    rest = len(images) - len(shown)
    axes.set(xlabel="train images", ylabel="institution" + (f" ({rest} more not shown)" if rest else ""))
    count_axis(axes.xaxis)
    return figure


@styled
def distance_histogram(
    distances: np.ndarray, families: Sequence[str], unit: str = "million years", of: str = ""
) -> Figure:
    """Patristic distances between genera, within and across families.

    Args:
        distances: float [G, G], from genus_distance_matrix(); unknown ones (NaN) are left out.
        families: family of every genus, [G].
        unit: of the distances.
        of: what they were measured on, said at the axis; nothing for the real tree.
    """
    _, family = np.unique(np.asarray(families), return_inverse=True)
    rows, columns = np.triu_indices(len(distances), 1)
    values = np.asarray(distances)[rows, columns]
    same = family[rows] == family[columns]
    known = ~np.isnan(values)
    within, across = values[known & same], values[known & ~same]
    if not len(within) or not len(across):
        where = "within one family" if len(within) else "across families"
        title = f"All {known.sum():,} known distances between genera are {where}"
        if not known.any():
            title = "No distance between genera is known"
    else:
        near, far = np.median(within), np.median(across)
        relation = "closer" if near < far else "no closer"
        title = f"Genera of a family are {relation} (median {near:,.0f}) than others ({far:,.0f} {unit})"
    figure, ((axes,),) = new_figure(title, 3.4)
    edges = np.linspace(0, max(values[known].max(), 1e-9) if known.any() else 1, 61)
    for part, colour, label in ((across, LIGHT_GREY, "across families"), (within, OLIVE, "within a family")):
        if len(part):
            counts, _ = np.histogram(part, edges)
            axes.stairs(
                counts / len(part),
                edges,
                fill=True,
                alpha=0.75,
                color=colour,
                label=f"{label} ({len(part):,} pairs)",
            )
    measured = f"{unit}, {of}" if of else unit
    axes.set(xlabel=f"patristic distance between two genera ({measured})", ylabel="share of the pairs")
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(top=axes.get_ylim()[1] * 1.15)
    percent_axis(axes.yaxis)
    if known.any():
        axes.legend(loc="upper left", ncols=2)
    return figure


@styled
def distance_heatmap(
    distances: np.ndarray,
    families: Sequence[str],
    unit: str = "million years",
    max_genera: int = 160,
    of: str = "",
) -> Figure:
    """Patristic distances as a map, genera ordered by family and families by kinship.

    With more than `max_genera` genera only those of the largest families are drawn, at most 20 a family;
    the title counts over all.

    Args:
        distances: float [G, G], from genus_distance_matrix().
        families: family of every genus, [G].
        unit: of the distances.
        max_genera: how many to draw.
        of: what the distances were measured on, said at the scale; nothing for the real tree.
    """
    names, family = np.unique(np.asarray(families), return_inverse=True)
    distances = np.asarray(distances, dtype=np.float32)
    others = np.where(np.eye(len(distances), dtype=bool), np.inf, np.nan_to_num(distances, nan=np.inf))
    has_mate = np.bincount(family)[family] > 1
    nearest = family[others.argmin(axis=1)] == family
    if has_mate.any():
        share = nearest[has_mate].mean()
        relation = (
            "The nearest genus is of the same family for"
            if share >= 0.5
            else "Families mix: the nearest genus is of the same family for only"
        )
        title = f"{relation} {share_text(share)} of the genera"
    else:
        title = "Each family has one genus, so there are no blocks of a family"
    chosen = _genera_to_draw(family, max_genera)
    order = chosen[np.argsort(_family_order(distances, family, chosen)[family[chosen]], kind="stable")]
    drawn = family[order]
    figure, ((axes,),) = new_figure(title, 6.2)
    shown = distances[np.ix_(order, order)]
    axes.set_facecolor(LIGHT_GREY)
    image = axes.imshow(shown, cmap="viridis_r", interpolation="nearest")
    spans = family_frames(axes, drawn, first=-0.5, colour="white", width=1)
    # a label needs about a 45th of the height
    labelled = [(start, end) for start, end in spans if (end - start) * 45 >= len(drawn)]
    axes.set_yticks(
        [(start + end - 1) / 2 for start, end in labelled],
        [names[drawn[start]] for start, _ in labelled],
        fontsize=8,
    )
    axes.set_xticks([])
    axes.grid(False)
    axes.tick_params(length=0)
    part = (
        f"{len(order):,} of {len(distances):,} genera"
        if len(order) < len(distances)
        else f"{len(order)} genera"
    )
    unknown = "; grey: not known" if np.isnan(shown).any() else ""
    axes.set_xlabel(f"{part}, in the same order; a white frame is a family{unknown}")
    figure.colorbar(
        image, ax=axes, label=f"patristic distance ({f'{unit}, {of}' if of else unit})", shrink=0.8
    )
    return figure


def _genera_to_draw(family: np.ndarray, most: int) -> np.ndarray:
    """Indices of the genera to draw: all, or up to 20 of each of the largest families."""
    if len(family) <= most:
        return np.arange(len(family))
    chosen: list[int] = []
    for largest in np.argsort(-np.bincount(family), kind="stable"):
        members = np.flatnonzero(family == largest)
        # spread over the family's genera, which lie in alphabetical order
        chosen += members[np.unique(np.linspace(0, len(members) - 1, 20).astype(int))].tolist()
        if len(chosen) >= most:
            break
    return np.array(chosen[:most])


def _family_order(distances: np.ndarray, family: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rank of every family: those close to each other side by side (average linkage)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    present = np.unique(family[chosen])
    rank = np.zeros(family.max() + 1, dtype=int)
    if len(present) < 3:
        rank[present] = np.arange(len(present))
        return rank
    member = (family[chosen][None, :] == present[:, None]).astype(np.float64)
    between = distances[np.ix_(chosen, chosen)].astype(np.float64)
    between = np.nan_to_num(between, nan=np.nanmax(between))
    mean = member @ between @ member.T / np.outer(member.sum(axis=1), member.sum(axis=1))
    mean = (mean + mean.T) / 2
    np.fill_diagonal(mean, 0)
    rank[present[leaves_list(linkage(squareform(mean, checks=False), "average"))]] = np.arange(len(present))
    return rank
