"""Every figure of the course: one function each, from arrays or tables to a matplotlib Figure.

Nothing is shown and no global setting is changed: a notebook displays the returned figure as the value of its
cell. Titles state what the data show, computed from them. Colours are those of Okabe and Ito, which
colour-blind readers tell apart; names are in italics, their ranks and authors are not.
"""

import functools
import itertools
import textwrap
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from utils.data.longtail import BINS, HEAD_MIN, TAIL_MAX, bins, gini, imbalance_ratio, lorenz, top_share
from utils.data.names import printed_words

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, GREY = "#56B4E9", "#7F7F7F"
BIN_COLOURS = {"head": BLUE, "medium": ORANGE, "tail": VERMILION}
BIN_RULES = {
    "head": f"head: {HEAD_MIN} or more",
    "medium": f"medium: {TAIL_MAX + 1} to {HEAD_MIN - 1}",
    "tail": f"tail: {TAIL_MAX} or fewer",
}
WIDTH = 8.0  # inches; at 110 dots an inch as wide as GitHub shows a figure
_STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": "viridis",
}
_MANY = 2000  # points; above, a scatter is drawn as density


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def styled(*arguments, **options) -> Figure:
        with plt.rc_context(_STYLE):
            return draw(*arguments, **options)

    return styled


def _figure(
    title: str, height: float, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, np.ndarray]:
    """A figure that pyplot has already forgotten, so that a notebook shows it once."""
    figure = plt.figure(figsize=(WIDTH, height), layout="constrained")
    plt.close(figure)
    _title(figure, title)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(textwrap.fill(title, 80), x=0.01, ha="left", fontsize=12, fontweight="semibold")


def italic(name: str) -> str:
    """A scientific name as matplotlib text: genus and epithets in italics, ranks, signs and authors upright."""
    return " ".join(_name_words(name))


def _name_words(name: str) -> list[str]:
    """The words of a scientific name as matplotlib text; in mathtext a hyphen would become a minus sign."""
    return [
        rf"$\mathit{{{word.replace('-', '‐')}}}$" if in_italics else word.replace("$", r"\$")
        for word, in_italics in printed_words(name)
    ]


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"


def _thousands(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _percent(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))


def _no_ticks(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str], **options) -> None:
    """Horizontal bars, the first on top, each with its text at the end."""
    places = np.arange(len(names))
    drawn = axes.barh(places, values, **options)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.bar_label(drawn, texts, padding=3, fontsize=9)
    axes.margins(x=0.16)


# ---------------------------------------------------------------------------------------------- the long tail


@_styled
def rank_frequency(counts: np.ndarray) -> Figure:
    """Train images of every species, commonest first; counts int [C]."""
    counts = np.sort(np.asarray(counts))[::-1]
    ratio = imbalance_ratio(counts)
    if ratio >= 2:
        title = f"A long tail: the commonest species has {ratio:.0f} times as many images as the rarest"
    else:
        title = f"No long tail: all {len(counts):,} species have from {counts[-1]:,} to {counts[0]:,} images"
    figure, ((axes,),) = _figure(title, 3.6)
    groups, edges = bins(counts), np.arange(len(counts) + 1) + 0.5
    for name in BINS:
        members = np.flatnonzero(groups == name)
        if len(members):
            span = slice(members[0], members[-1] + 1)
            axes.stairs(
                counts[span],
                edges[span.start : span.stop + 1],
                fill=True,
                color=BIN_COLOURS[name],
                label=f"{BIN_RULES[name]} ({len(members):,} species)",
            )
    axes.set(xlabel="species, commonest first (rank)", ylabel="train images", xlim=(0.5, len(counts) + 0.5))
    axes.set_ylim(bottom=0)
    _thousands(axes.xaxis)
    axes.legend(title="train images")
    return figure


@_styled
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
        title = (
            f"The {len(shown)} largest of {len(families):,} families hold {_share(share)} of the train images"
        )
    else:
        largest = families.loc[families["train_images"].idxmax()]
        held = _share(largest["train_images"] / total)
        title = f"{largest['family']}, one of {len(families)} families, has {held} of the train images"
    figure, (row,) = _figure(title, 1.3 + 0.3 * len(shown), 1, 2, sharey=True)
    for axes, column, colour, label in (
        (row[0], "species", GREEN, "species"),
        (row[1], "train_images", BLUE, "train images"),
    ):
        values = shown[column].to_numpy()
        texts = [f"{value:,}" for value in values]
        if published is not None:
            known = published.set_index("family")[column].reindex(shown["family"]).to_numpy()
            texts = [
                text if np.isnan(other) else f"{text} ({other:,.0f})"
                for text, other in zip(texts, known, strict=True)
            ]
        _bars(axes, shown["family"], values, texts, color=colour)
        axes.set_xlabel(label + ("" if published is None else " (in brackets: published)"))
        axes.margins(x=0.16 if published is None else 0.42)
        _thousands(axes.xaxis)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure


@_styled
def lorenz_curve(counts: np.ndarray) -> Figure:
    """Share of images against share of species, rarest first, with the Gini coefficient; counts int [C]."""
    value, top = gini(counts), top_share(counts, 0.2)
    if value >= 0.1:
        title = f"The commonest 20% of the species hold {_share(top)} of the images (Gini {value:.2f})"
    else:
        title = f"Images are spread almost evenly over the species (Gini {value:.2f})"
    figure, ((axes,),) = _figure(title, 4.4)
    species, images = lorenz(counts)
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="every species alike (Gini 0)")
    axes.plot(species, images, color=BLUE, label="this data set")
    axes.fill_between(species, images, species, color=SKY, alpha=0.3, lw=0)
    axes.plot([0.8], [1 - top], "o", color=VERMILION)
    axes.annotate(
        f"the rarest 80%\nhold {_share(1 - top)}",
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
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.legend(loc="upper left")
    return figure


@_styled
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
        title = f"The tail is {_share(species[2])} of the species and {_share(images[2])} of the train images"
    figure, ((axes,),) = _figure(title, 3.2)
    places = np.arange(3)
    for shift, values, colour, label in (
        (-0.2, species, GREEN, "species"),
        (0.2, images, BLUE, "train images"),
    ):
        drawn = axes.bar(places + shift, values, 0.38, color=colour, label=label)
        axes.bar_label(drawn, [_share(value) for value in values], padding=2, fontsize=9)
    axes.set_xticks(places, [BIN_RULES[name] for name in BINS])
    axes.set(xlabel="train images of a species", ylabel="share")
    axes.set_ylim(top=max(species.max(), images.max()) * 1.12)
    axes.grid(axis="x", visible=False)
    _percent(axes.yaxis)
    axes.legend()
    return figure


@_styled
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
        title = f"{_share(single)} of {len(sizes):,} genera have one species"
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
    figure, ((axes,),) = _figure(title, 3.4)
    places = np.arange(len(names))
    for shift, values, colour, label in (
        (-0.2, genera_in, ORANGE, "genera"),
        (0.2, species_in, GREEN, "species in them"),
    ):
        drawn = axes.bar(places + shift, values, 0.38, color=colour, label=label)
        axes.bar_label(drawn, [_share(value) if value else "" for value in values], padding=2, fontsize=8)
    axes.set_xticks(places, names)
    axes.set(xlabel="species in the genus", ylabel="share")
    axes.grid(axis="x", visible=False)
    _percent(axes.yaxis)
    axes.legend()
    return figure


@_styled
def institutions(images: pd.Series, top: int = 15) -> Figure:
    """Images of each institution; images is indexed by collection code."""
    images = images.sort_values(ascending=False)
    shares = images / images.sum()
    half = int((shares.cumsum() < 0.5).sum()) + 1
    if len(images) == 1:
        title = f"All sheets come from one institution, {images.index[0]}"
    elif half == 1:
        title = f"{images.index[0]}, one of {len(images)}, holds {_share(shares.iloc[0])} of all sheets"
    else:
        title = f"{half} of {len(images)} institutions hold half of the sheets"
    shown = images.head(top)
    figure, ((axes,),) = _figure(title, 1.2 + 0.25 * len(shown))
    colours = [BLUE if rank < half else SKY for rank in range(len(shown))]
    texts = [f"{value:,} ({_share(value / images.sum())})" for value in shown]
    _bars(axes, shown.index.astype(str), shown.to_numpy(), texts, color=colours)
    rest = len(images) - len(shown)
    axes.set(xlabel="train images", ylabel="institution" + (f" ({rest} more not shown)" if rest else ""))
    _thousands(axes.xaxis)
    return figure


@_styled
def distance_histogram(distances: np.ndarray, families: Sequence[str], unit: str = "million years") -> Figure:
    """Patristic distances between genera, within and across families.

    Args:
        distances: float [G, G], from genus_distance_matrix(); unknown ones (NaN) are left out.
        families: family of every genus, [G].
        unit: of the distances.
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
    figure, ((axes,),) = _figure(title, 3.4)
    edges = np.linspace(0, max(values[known].max(), 1e-9) if known.any() else 1, 61)
    for part, colour, label in ((across, SKY, "across families"), (within, VERMILION, "within a family")):
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
    axes.set(xlabel=f"patristic distance between two genera ({unit})", ylabel="share of the pairs")
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(top=axes.get_ylim()[1] * 1.15)
    _percent(axes.yaxis)
    if known.any():
        axes.legend(loc="upper left", ncols=2)
    return figure


@_styled
def distance_heatmap(
    distances: np.ndarray, families: Sequence[str], unit: str = "million years", max_genera: int = 160
) -> Figure:
    """Patristic distances as a map, genera ordered by family and families by kinship.

    With more than `max_genera` genera only those of the largest families are drawn, at most 20 a family;
    the title counts over all.

    Args:
        distances: float [G, G], from genus_distance_matrix().
        families: family of every genus, [G].
        unit: of the distances.
        max_genera: how many to draw.
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
        title = f"{relation} {_share(share)} of the genera"
    else:
        title = "Each family has one genus, so there are no blocks of a family"
    chosen = _genera_to_draw(family, max_genera)
    order = chosen[np.argsort(_family_order(distances, family, chosen)[family[chosen]], kind="stable")]
    drawn = family[order]
    figure, ((axes,),) = _figure(title, 6.2)
    shown = distances[np.ix_(order, order)]
    axes.set_facecolor("#BDBDBD")
    image = axes.imshow(shown, cmap="viridis_r", interpolation="nearest")
    starts = np.flatnonzero(np.r_[True, drawn[1:] != drawn[:-1]])
    ends = np.r_[starts[1:], len(drawn)]
    # a label needs about a 45th of the height
    labelled = [i for i in range(len(starts)) if (ends[i] - starts[i]) * 45 >= len(drawn)]
    for i in range(len(starts)):
        corner, size = starts[i] - 0.5, ends[i] - starts[i]
        axes.add_patch(plt.Rectangle((corner, corner), size, size, fill=False, ec="white", lw=1))
    axes.set_yticks(
        [(starts[i] + ends[i] - 1) / 2 for i in labelled],
        [names[drawn[starts[i]]] for i in labelled],
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
    figure.colorbar(image, ax=axes, label=f"patristic distance ({unit})", shrink=0.8)
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


# ------------------------------------------------------------------------------------------------- the sheets


@_styled
def sheets(
    images: np.ndarray,
    names: Sequence[str],
    notes: Sequence[str] | None = None,
    *,
    title: str,
    columns: int = 5,
) -> Figure:
    """A grid of sheets, each with its species in italics and a note.

    Args:
        images: uint8 [N, H, W, 3], or a list of such arrays of different sizes.
        names: species of each.
        notes: one short line each, below the name.
        title: what the grid shows.
        columns: sheets in a row.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, grid = _figure(title, 0.45 + rows * (WIDTH / columns + 0.45), rows, columns)
    captions = _captions(names, notes, WIDTH / columns)
    for position, axes in enumerate(grid.flat):
        _no_ticks(axes)
        if position < len(images):
            axes.imshow(images[position])
            axes.set_title(captions[position], fontsize=8.5, pad=3)
    return figure


@_styled
def head_and_tail(
    head_images: np.ndarray,
    head_names: Sequence[str],
    head_counts: Sequence[int],
    tail_images: np.ndarray,
    tail_names: Sequence[str],
    tail_counts: Sequence[int],
) -> Figure:
    """Sheets of common species on the left and of rare ones on the right.

    Args:
        head_images, tail_images: uint8 [N, H, W, 3], two to six of each.
        head_names, tail_names: species of each sheet.
        head_counts, tail_counts: train images of that species.
    """
    title = f"Common species have {_range(head_counts)} train images, rare ones {_range(tail_counts)}"
    if min(head_counts) <= max(tail_counts):
        title = (
            f"Common and rare species have about as many train images: {_range([*head_counts, *tail_counts])}"
        )
    rows = -(-max(len(head_images), len(tail_images)) // 2)
    names, counts = [*head_names, *tail_names], [*head_counts, *tail_counts]
    captions = _captions(names, [f"{count:,} train images" for count in counts], WIDTH / 4)
    figure = plt.figure(figsize=(WIDTH, 0.8 + rows * (WIDTH / 4 + 0.45)), layout="constrained")
    plt.close(figure)
    _title(figure, title)
    halves = figure.subfigures(1, 2, wspace=0.04)
    for panel, name, images, texts in (
        (halves[0], "head", head_images, captions[: len(head_images)]),
        (halves[1], "tail", tail_images, captions[len(head_images) :]),
    ):
        panel.suptitle(name, color=BIN_COLOURS[name], fontweight="semibold")
        for position, axes in enumerate(panel.subplots(rows, 2, squeeze=False).flat):
            _no_ticks(axes)
            if position < len(images):
                axes.imshow(images[position])
                axes.set_title(texts[position], fontsize=8.5, pad=3)
    return figure


def _captions(names: Sequence[str], notes: Sequence[str] | None, width: float) -> list[str]:
    """Captions above images so many inches wide: scientific names, wrapped, all with as many lines.

    A name may follow words that end in a colon.
    """
    letters = int(width * 11.5)
    wrapped = []
    for name in names:
        before, _, scientific = name.rpartition(": ")
        words = [f"{before}:"] if before else []
        lengths = [len(word) for word in [*words, *scientific.split()]]
        lines, used = [[]], 0
        for word, length in zip([*words, *_name_words(scientific)], lengths, strict=True):
            if lines[-1] and used + 1 + length > letters:
                lines.append([])
                used = 0
            lines[-1].append(word)
            used += length + 1
        wrapped.append([" ".join(line) for line in lines])
    most = max(len(lines) for lines in wrapped)
    captions = []
    for position, lines in enumerate(wrapped):
        note = [] if notes is None else [notes[position]]
        captions.append("\n".join([""] * (most - len(lines)) + lines + note))
    return captions


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


@_styled
def augmentations(original: np.ndarray, augmented: np.ndarray, columns: int = 6) -> Figure:
    """One sheet as it is and as training sees it.

    Args:
        original: uint8 [S, S, 3].
        augmented: uint8 [N, S, S, 3], the same sheet augmented N times.
        columns: images in a row.
    """
    distinct = len(np.unique(np.asarray(augmented).reshape(len(augmented), -1), axis=0))
    if distinct > 1:
        title = (
            f"Training sees the same sheet anew each time: {distinct} different images of {len(augmented)}"
        )
    else:
        title = f"Augmentation is off: all {len(augmented)} images are the same"
    images = [original, *augmented]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, grid = _figure(title, 0.5 + rows * (WIDTH / columns + 0.2), rows, columns)
    for position, axes in enumerate(grid.flat):
        _no_ticks(axes)
        if position < len(images):
            axes.imshow(images[position])
            axes.set_title(f"epoch {position}" if position else "the sheet", fontsize=8.5, pad=3)
    return figure


@_styled
def throughput(table: pd.DataFrame, needed: float | None = None) -> Figure:
    """Input speed of several ways to read.

    Args:
        table: columns way and images_per_second.
        needed: images a second that the network takes, drawn as a line.
    """
    table = table.sort_values("images_per_second", ascending=False)
    rates = table["images_per_second"].to_numpy()
    if len(rates) > 1 and rates[0] >= 1.05 * rates[-1]:
        slowest = table["way"].iloc[-1]
        title = f"Fastest: {table['way'].iloc[0]}, {rates[0] / rates[-1]:.1f} times the slowest ({slowest})"
    elif len(rates) > 1:
        title = f"All ways read about {rates.mean():,.0f} images a second"
    else:
        title = f"{table['way'].iloc[0]}: {rates[0]:,.0f} images a second"
    figure, ((axes,),) = _figure(title, 1.4 + 0.36 * len(table))
    _bars(axes, table["way"], rates, [f"{rate:,.0f}" for rate in rates], color=BLUE)
    if needed is not None:
        axes.axvline(needed, color=VERMILION, ls="--", label=f"what the network takes: {needed:,.0f}")
        axes.legend(loc="lower right")
    axes.set_xlabel("images a second")
    _thousands(axes.xaxis)
    return figure


# --------------------------------------------------------------------------------------------------- training


@_styled
def learning_rate_schedule(rates: np.ndarray, steps_per_epoch: int) -> Figure:
    """The learning rate of every step; rates float [steps]."""
    rates = np.asarray(rates)
    epochs = np.arange(len(rates)) / steps_per_epoch
    peak = int(rates.argmax())
    if rates.max() > 1.01 * rates.min():
        title = (
            f"The learning rate climbs from {rates[0]:.2g} to {rates[peak]:.2g} in {epochs[peak]:.1f} epochs "
            f"and ends at {rates[-1]:.2g}"
        )
        if peak == 0:
            title = f"The learning rate falls from {rates[0]:.2g} to {rates[-1]:.2g}"
    else:
        title = f"The learning rate stays at {rates[0]:.2g}"
    figure, ((axes,),) = _figure(title, 3.0)
    axes.plot(epochs, rates, color=ORANGE)
    axes.plot(epochs[peak], rates[peak], "o", color=VERMILION)
    axes.set(xlabel="epoch", ylabel="learning rate", xlim=(0, epochs[-1]))
    axes.set_ylim(bottom=0)
    return figure


@_styled
def learning_rate_range(table: pd.DataFrame, chosen: float | None = None) -> Figure:
    """The loss while the learning rate grows.

    Args:
        table: from learning_rate_range_test(): learning_rate, loss, smoothed_loss.
        chosen: the profile's highest learning rate, drawn as a line.
    """
    rates, loss = table["learning_rate"].to_numpy(), table["smoothed_loss"].to_numpy()
    begin = len(loss) // 8  # the mean of the first few batches still jumps with each
    lowest = begin + int(np.nanargmin(loss[begin:]))
    falls = loss[lowest] < 0.98 * loss[begin]
    rises = not loss[-1] <= 1.05 * loss[lowest]  # also when the loss has become NaN
    if not falls:
        title = f"Loss falls at no learning rate up to {rates[-1]:.2g}"
    elif rises:
        title = f"Loss falls up to a learning rate of {rates[lowest]:.2g} and rises above"
    else:
        title = f"Loss still falls at {rates[-1]:.2g}, the highest learning rate tried"
    if chosen is not None:
        title += f"; the profile's is {chosen:.2g}"
    figure, ((axes,),) = _figure(title, 3.4)
    axes.plot(rates, table["loss"], color=SKY, lw=1, label="loss of each batch")
    axes.plot(rates, loss, color=BLUE, label="smoothed")
    axes.plot(rates[lowest], loss[lowest], "o", color=BLUE)
    if chosen is not None:
        axes.axvline(chosen, color=VERMILION, ls="--", label="highest rate of the profile")
    axes.set(xscale="log", xlabel="learning rate (log scale)", ylabel="loss (nats)")
    finite = table["loss"][np.isfinite(table["loss"])]
    axes.set_ylim(min(finite.min(), loss[lowest]) * 0.97, min(finite.max(), 1.6 * loss[0]) * 1.03)
    axes.legend(loc="upper left")
    return figure


@_styled
def training_curves(history: pd.DataFrame, epochs: int | None = None) -> Figure:
    """Loss, macro-F1 and learning rate, epoch by epoch.

    Args:
        history: of train(): epoch, loss, val_loss, f1_score, val_f1_score, learning_rate; the val_ columns
            are nan where too few species are held out for a score.
        epochs: of the whole run, to leave room for those to come.
    """
    epoch, held_out = history["epoch"].to_numpy(), history["val_f1_score"].to_numpy()
    scored = not np.isnan(held_out).any()
    best = int(np.argmax(held_out)) if scored else len(epoch) - 1
    title = f"Held-out macro-F1 is best in epoch {epoch[best]}: {held_out[best]:.3f}"
    if not scored:
        title = "No held-out score: too few species have images to hold out"
    elif len(epoch) == 1:
        title = f"Held-out macro-F1 after one epoch: {held_out[0]:.3f}"
    if epochs is not None and epoch[-1] < epochs:
        title += f" ({epoch[-1]} of {epochs} epochs so far)"
    elif scored and len(epoch) > 2 and best == len(epoch) - 1:
        title += ", the last; more epochs may help"
    elif len(epoch) > 2 and held_out[-1] < 0.95 * held_out[best]:
        title += f"; it fell to {held_out[-1]:.3f} afterwards"
    figure, (row,) = _figure(title, 3.0, 1, 3)
    marker = "o" if len(epoch) < 3 else None
    for axes, column, label in ((row[0], "loss", "loss (nats, log scale)"), (row[1], "f1_score", "macro-F1")):
        axes.plot(epoch, history[column], color=SKY, marker=marker, label="train")
        axes.plot(epoch, history[f"val_{column}"], color=BLUE, marker=marker, label="held out")
        axes.set_ylabel(label)
    if scored:
        row[1].plot(epoch[best], held_out[best], "*", color=VERMILION, ms=12, label="best")
    row[0].set_yscale("log")  # the first held-out loss may be ten times the others
    row[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    row[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    row[0].yaxis.set_minor_formatter(NullFormatter())
    row[1].set_ylim(0, 1)
    row[1].legend(fontsize=9)
    row[0].legend(fontsize=9)
    row[2].plot(epoch, history["learning_rate"], color=ORANGE, marker=marker)
    row[2].set_ylabel("learning rate")
    row[2].set_ylim(bottom=0)
    for axes in row:
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, max(epochs or 0, epoch[-1]) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return figure


# ------------------------------------------------------------------------------------------------- evaluation


@_styled
def f1_against_images(f1: np.ndarray, train_counts: np.ndarray) -> Figure:
    """F1 of every species against its train images, with the mean of each bin.

    Args:
        f1: float [C], from per_class_f1().
        train_counts: int [C].
    """
    f1, train_counts = np.asarray(f1), np.asarray(train_counts)
    groups = bins(train_counts)
    means = {name: f1[groups == name].mean() for name in BINS if (groups == name).any()}
    figure, ((axes,),) = _figure(_head_tail_title(means, "Mean F1"), 3.8)
    if len(f1) > _MANY:
        drawn = axes.hexbin(train_counts, f1, gridsize=(40, 20), bins="log", cmap="Greys", mincnt=1, lw=0.2)
        figure.colorbar(drawn, ax=axes, label="species (log scale)")
        axes.grid(False)
    else:
        axes.scatter(train_counts, f1, s=26, alpha=0.65, c=[BIN_COLOURS[name] for name in groups], lw=0)
    low, high = train_counts.min(), train_counts.max()
    limits = {"tail": (low, TAIL_MAX), "medium": (TAIL_MAX + 1, HEAD_MIN - 1), "head": (HEAD_MIN, high)}
    for name, mean in means.items():
        left, right = max(limits[name][0], low), min(limits[name][1], high)
        axes.plot(
            [left - 0.5, right + 0.5], [mean, mean], color=BIN_COLOURS[name], lw=4, solid_capstyle="butt"
        )
        axes.text(
            (left + right) / 2,
            mean + 0.02,
            f"{name} {mean:.2f}",
            ha="center",
            va="bottom",
            fontweight="semibold",
            bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1},
        )
    axes.set(xlabel="train images of the species", ylabel="F1 on the test sheets", ylim=(-0.04, 1.1))
    return figure


@_styled
def scores_by_bin(table: pd.DataFrame) -> Figure:
    """Macro-F1 and accuracy of head, medium and tail; table from mistakes.scores_by_bin()."""
    table = table[table["species"] > 0]
    means = dict(zip(table["bin"], table["macro_f1"], strict=True))
    figure, ((axes,),) = _figure(_head_tail_title(means, "Macro-F1"), 3.5)
    places = np.arange(len(table))
    for shift, column, colour, label in (
        (-0.2, "macro_f1", BLUE, "macro-F1"),
        (0.2, "accuracy", SKY, "accuracy"),
    ):
        drawn = axes.bar(places + shift, table[column].fillna(0), 0.38, color=colour, label=label)
        texts = ["no sheet" if np.isnan(value) else f"{value:.2f}" for value in table[column]]
        axes.bar_label(drawn, texts, padding=2, fontsize=9)
    texts = [
        f"{BIN_RULES[row.bin]}\n{row.species:,} species\n{row.test_images:,} test sheets"
        for row in table.itertuples()
    ]
    axes.set_xticks(places, texts)
    axes.set(ylabel="score", ylim=(0, 1.1))
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=2, loc="upper right")
    return figure


def _head_tail_title(means: dict[str, float], what: str) -> str:
    if "head" not in means or "tail" not in means:
        listed = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        return f"{what}: {listed} (no species in the other bins)"
    head, tail = means["head"], means["tail"]
    if abs(head - tail) < 0.02:
        return f"The tail does as well as the head: {what} {tail:.2f} and {head:.2f}"
    if head > tail:
        return f"{what} falls from {head:.2f} in the head to {tail:.2f} in the tail"
    return f"The tail does better than the head: {what} {tail:.2f} against {head:.2f}"


@_styled
def scores_by_family(table: pd.DataFrame, top: int = 20) -> Figure:
    """Macro-F1 of the families with most test sheets; table from mistakes.scores_by_family()."""
    shown = table.head(top).sort_values("macro_f1", ascending=False)
    best, worst = shown.iloc[0], shown.iloc[-1]
    if len(shown) == 1:
        title = f"{best['family']}: macro-F1 {best['macro_f1']:.2f}"
    elif best["macro_f1"] - worst["macro_f1"] < 0.05:
        title = f"All families score about alike: macro-F1 {worst['macro_f1']:.2f} to {best['macro_f1']:.2f}"
    else:
        title = (
            f"{best['family']} is easiest (macro-F1 {best['macro_f1']:.2f}), "
            f"{worst['family']} hardest ({worst['macro_f1']:.2f})"
        )
    if len(shown) < len(table):
        title += f", of the {len(shown)} families with most test sheets"
    figure, ((axes,),) = _figure(title, 1.3 + 0.25 * len(shown))
    texts = [f"{row.macro_f1:.2f}  ({row.species:,} species)" for row in shown.itertuples()]
    _bars(axes, shown["family"], shown["macro_f1"], texts, color=BLUE)
    axes.set(xlabel="macro-F1 over the species of the family", xlim=(0, 1.25))
    axes.set_xticks(np.linspace(0, 1, 6))
    return figure


@_styled
def genus_confusion(
    matrix: np.ndarray, genera: Sequence[str], families: Sequence[str], top: int = 40
) -> Figure:
    """True against predicted genus, each row as shares, genera ordered by family.

    Args:
        matrix: int [G, G] from mistakes.genus_confusion().
        genera, families: name and family of every genus, [G].
        top: the genera with most test sheets that are drawn; the title counts over all.
    """
    genera, families = np.asarray(genera), np.asarray(families)
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    _, family = np.unique(families, return_inverse=True)
    in_family = off[family[:, None] == family[None, :]].sum()
    if off.sum() == 0:
        title = "Every sheet gets the right genus"
    else:
        # what is drawn at random from the other genera, each as often as predicted
        predicted = matrix.sum(axis=0).astype(np.float64)
        mates = np.bincount(family, predicted)[family] - predicted
        others = predicted.sum() - predicted
        chance = np.average(mates / np.maximum(others, 1e-9), weights=off.sum(axis=1))
        share = in_family / off.sum()
        relation = "more" if share > chance else "not more"
        title = (
            f"{_share(off.sum() / matrix.sum())} of the sheets get a wrong genus; {_share(share)} of "
            f"these stay in the family, {relation} than by chance ({_share(chance)})"
        )
    chosen = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:top])
    order = chosen[np.lexsort((genera[chosen], families[chosen]))]
    shares = matrix[np.ix_(order, order)] / np.maximum(matrix.sum(axis=1)[order][:, None], 1)
    figure, ((axes,),) = _figure(title, 6.4)
    names = [italic(name) for name in genera[order]]
    # the root scale keeps rare mistakes visible beside the diagonal
    sns.heatmap(
        shares,
        ax=axes,
        cmap="Blues",
        norm=PowerNorm(0.5, 0, 1),
        square=True,
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"label": "share of the sheets of the true genus", "shrink": 0.8},
    )
    axes.tick_params(labelsize=8.5 if len(order) <= 25 else 7)
    starts = np.flatnonzero(np.r_[True, families[order][1:] != families[order][:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(order)], strict=True):
        side = end - start
        axes.add_patch(plt.Rectangle((start, start), side, side, fill=False, ec=VERMILION, lw=1.2))
    part = f" ({len(order)} of {len(genera):,} genera)" if len(order) < len(genera) else ""
    axes.set(xlabel="predicted genus", ylabel=f"true genus{part}; a frame is a family")
    _percent(axes.collections[0].colorbar.ax.yaxis)
    return figure


@_styled
def mistakes_by_kind(table: pd.DataFrame) -> Figure:
    """Share of mistakes of each kind beside chance; table from mistakes.mistakes_by_kind()."""
    total = int(table["mistakes"].sum())
    ratio = table.set_index("kind")["ratio"]["within genus"]
    if total == 0:
        title = "There are no mistakes"
    elif np.isnan(ratio):
        title = f"None of the {total:,} mistakes could fall within a genus"
    elif ratio > 1:
        title = f"Genus-mates are confused {ratio:.1f} times as often as by chance ({total:,} mistakes)"
    else:
        title = (
            f"Genus-mates are not confused more often than by chance ({ratio:.1f} times, {total:,} mistakes)"
        )
    figure, ((axes,),) = _figure(title, 3.3)
    places = np.arange(len(table))
    for shift, column, colour, label in (
        (-0.2, "share", BLUE, "mistakes of the model"),
        (0.2, "chance", "#BDBDBD", "by chance"),
    ):
        drawn = axes.bar(places + shift, table[column].fillna(0), 0.38, color=colour, label=label)
        axes.bar_label(drawn, [_share(value) for value in table[column].fillna(0)], padding=2, fontsize=9)
    texts = {"within family": "within family,\nother genus"}
    axes.set_xticks(places, [texts.get(kind, kind) for kind in table["kind"]])
    axes.set(ylabel="share of the mistakes")
    axes.set_ylim(0, max(1.12 * np.nanmax(table[["share", "chance"]].fillna(0).to_numpy()), 0.1))
    axes.grid(axis="x", visible=False)
    _percent(axes.yaxis)
    axes.legend()
    return figure


@_styled
def reliability(table: pd.DataFrame, ece: float) -> Figure:
    """Accuracy against confidence, and how many sheets have which confidence.

    Args:
        table: from calibration.reliability().
        ece: from calibration.expected_calibration_error().
    """
    images = table["images"].to_numpy()
    confidence, accuracy = (
        np.average(table[column].fillna(0), weights=images) for column in ("confidence", "accuracy")
    )
    means = f"mean confidence {_share(confidence)}, right {_share(accuracy)}"
    if ece < 0.03:
        title = f"Well calibrated: {means} (ECE {ece:.3f})"
    elif abs(confidence - accuracy) < ece / 3:
        title = f"Over-confident in places and under-confident in others: {means} (ECE {ece:.3f})"
    else:
        word = "Over" if confidence > accuracy else "Under"
        title = f"{word}-confident: {means} (ECE {ece:.3f})"
    figure, (row,) = _figure(title, 3.8, 1, 2, width_ratios=(1.1, 1))
    left, right = row
    filled = table[table["images"] > 0]
    width = (table["upper"] - table["lower"]).iloc[0]
    left.bar(
        filled["lower"], filled["accuracy"], width, align="edge", color=SKY, ec="white", label="right answers"
    )
    left.hlines(
        filled["confidence"], filled["lower"], filled["upper"], color=VERMILION, lw=3, label="mean confidence"
    )
    left.plot([0, 1], [0, 1], "--", color=GREY, lw=1)
    left.set(
        xlabel="confidence (probability of the answer)", ylabel="right answers", xlim=(0, 1), ylim=(0, 1.25)
    )
    left.set_yticks(np.linspace(0, 1, 6))
    left.legend(loc="upper left", ncols=2, fontsize=9)
    right.bar(table["lower"], images / images.sum(), width, align="edge", color="#BDBDBD", ec="white")
    right.axvline(confidence, color=VERMILION, ls="--", label=f"mean confidence {confidence:.2f}")
    right.axvline(accuracy, color=BLUE, label=f"accuracy {accuracy:.2f}")
    right.set(xlabel="confidence", ylabel="share of the sheets", xlim=(0, 1))
    right.set_ylim(top=1.35 * (images / images.sum()).max())
    right.legend(loc="upper left", fontsize=9, frameon=True, framealpha=1, edgecolor="none")
    for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
        _percent(axis)
    return figure


@_styled
def grad_cam(
    images: np.ndarray,
    heatmaps: np.ndarray,
    true_names: Sequence[str] | None,
    top_names: Sequence[Sequence[str]],
    probabilities: np.ndarray,
) -> Figure:
    """Sheet, Grad-CAM overlay and the most probable species, one sheet a row.

    Args:
        images: uint8 [N, H, W, 3].
        heatmaps: float [N, H, W] in 0..1, from explain.grad_cam(), of the most probable species.
        true_names: species of each sheet, None where unknown.
        top_names: the k most probable species of each sheet.
        probabilities: float [N, k].
    """
    title = f"What speaks for the first answer on {len(images)} sheets"
    if true_names is not None:
        right = sum(name == names[0] for name, names in zip(true_names, top_names, strict=True))
        title += f"; {right} of {len(images)} are right"
    figure, grid = _figure(title, 0.5 + 2.25 * len(images), len(images), 3, width_ratios=(1, 1, 1.55))
    for i, (sheet, overlay, bars) in enumerate(grid):
        for axes in (sheet, overlay):
            _no_ticks(axes)
            axes.imshow(images[i])
        overlay.imshow(heatmaps[i], cmap="inferno", alpha=0.55, vmin=0, vmax=1)
        known = "" if true_names is None else f"true: {true_names[i]}"
        captions = _captions([known, f"answer: {top_names[i][0]}"], None, 2.4)
        for axes, caption in zip((sheet, overlay), captions, strict=True):
            axes.set_title(caption, fontsize=9, pad=3)
        places = np.arange(len(top_names[i]))
        colours = [
            SKY if true_names is None else GREEN if name == true_names[i] else GREY for name in top_names[i]
        ]
        bars.barh(places, probabilities[i], color=colours, height=0.9, alpha=0.55)
        for place, name, probability in zip(places, top_names[i], probabilities[i], strict=True):
            bars.text(0.02, place, f"{italic(name)}  {_share(probability)}", va="center", fontsize=9)
        bars.invert_yaxis()
        bars.set(xlim=(0, 1), yticks=[], xticks=[0, 0.5, 1])
        bars.grid(False)
        bars.spines["left"].set_visible(False)
        _percent(bars.xaxis)
        bars.tick_params(axis="x", labelsize=8)
        if i == len(images) - 1:
            bars.set_xlabel("probability" + ("" if true_names is None else " (green: the true species)"))
    return figure


@_styled
def against_baselines(table: pd.DataFrame) -> Figure:
    """Macro-F1 of the network beside the baselines.

    Args:
        table: columns method, macro_f1, accuracy, and on (which species, in words) where baselines() took a part
            of them; the first row is the network.
    """
    model, others = table.iloc[0], table.iloc[1:]
    better = others.loc[others["macro_f1"].idxmax()]
    if model["macro_f1"] > better["macro_f1"]:
        times = model["macro_f1"] / max(better["macro_f1"], 1e-9)
        factor = f"{times:.1f} times" if times < 100 else "over 100 times"
        title = f"Macro-F1 {model['macro_f1']:.3f}: {factor} the better baseline ({better['macro_f1']:.3f})"
    else:
        title = (
            f"The network does not beat the better baseline: macro-F1 {model['macro_f1']:.3f} "
            f"against {better['macro_f1']:.3f}"
        )
    figure, ((axes,),) = _figure(title, 1.4 + 0.55 * len(table))
    places = np.arange(len(table))
    colours = [BLUE] + [GREY] * len(others)
    drawn = axes.barh(places - 0.19, table["macro_f1"], 0.36, color=colours)
    axes.bar_label(drawn, [f"macro-F1 {value:.3f}" for value in table["macro_f1"]], padding=3, fontsize=9)
    drawn = axes.barh(places + 0.19, table["accuracy"], 0.36, color=colours, alpha=0.45)
    axes.bar_label(drawn, [f"accuracy {value:.3f}" for value in table["accuracy"]], padding=3, fontsize=9)
    names = table["method"]
    if "on" in table:
        partly = table["on"].notna() & ~table["on"].astype(str).str.startswith("all ")
        names = names.where(~partly, names + " (on " + table["on"].astype(str) + ")")
    axes.set_yticks(places, [textwrap.fill(name, 24) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="score on the test sheets", xlim=(0, 1.2))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="y", visible=False)
    return figure


@_styled
def predicted_classes(predicted: np.ndarray, train_counts: np.ndarray) -> Figure:
    """How often each species is predicted, beside its share of the train images.

    Args:
        predicted: class indices, int [N].
        train_counts: int [C].
    """
    train_counts = np.asarray(train_counts)
    given = np.bincount(predicted, minlength=len(train_counts))
    groups = bins(train_counts)
    never = int((given == 0).sum())
    shares = pd.DataFrame(
        {
            "train": [train_counts[groups == name].sum() / train_counts.sum() for name in BINS],
            "answers": [given[groups == name].sum() / len(predicted) for name in BINS],
        },
        index=list(BINS),
    )
    drift = shares["answers"]["head"] - shares["train"]["head"]
    if abs(drift) < 0.02:
        title = f"The head gets its share of the answers: {_share(shares['answers']['head'])}"
    else:
        word = "more" if drift > 0 else "less"
        title = (
            f"The head gets {word} than its share: {_share(shares['answers']['head'])} of the answers, "
            f"{_share(shares['train']['head'])} of the train images"
        )
    title += (
        f"; {never:,} of {len(given):,} species are never answered"
        if never
        else "; every species is answered"
    )
    figure, (row,) = _figure(title, 3.5, 1, 2, width_ratios=(1.5, 1))
    order = np.argsort(-train_counts, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    expected = train_counts[order] / train_counts.sum() * len(predicted)
    if len(order) > _MANY:
        # one dot a species would be a solid block
        edges = np.linspace(0, len(order), 101).astype(int)
        middle = (edges[1:] + edges[:-1]) / 2
        parts = np.split(given[order], edges[1:-1])
        row[0].fill_between(
            middle,
            [np.quantile(part, 0.1) for part in parts],
            [np.quantile(part, 0.9) for part in parts],
            color=SKY,
            alpha=0.5,
            lw=0,
            label="answers, middle 80% of 100 groups",
        )
        row[0].plot(middle, [part.mean() for part in parts], color=BLUE, label="answers, mean of a group")
    else:
        row[0].bar(ranks, given[order], color=BLUE, width=0.85, label="answers")
    row[0].plot(ranks, expected, color=VERMILION, label="by share of the train images")
    row[0].set(xlabel="species, most train images first (rank)", ylabel="answers (sheets)")
    row[0].set_ylim(0, row[0].get_ylim()[1] * 1.1)
    _thousands(row[0].xaxis)
    row[0].xaxis.set_major_locator(MaxNLocator(5))
    row[0].legend(fontsize=9)
    places = np.arange(len(BINS))
    for shift, column, colour, label in (
        (-0.2, "train", VERMILION, "train images"),
        (0.2, "answers", BLUE, "answers"),
    ):
        drawn = row[1].bar(places + shift, shares[column], 0.38, color=colour, label=label)
        row[1].bar_label(drawn, [_share(value) for value in shares[column]], padding=2, fontsize=8)
    row[1].set_xticks(places, BINS)
    row[1].set(ylabel="share")
    row[1].set_ylim(top=shares.to_numpy().max() * 1.3)
    row[1].grid(axis="x", visible=False)
    _percent(row[1].yaxis)
    row[1].legend(fontsize=9)
    return figure


# ---------------------------------------------------------------------------------------------- methods


@_styled
def by_class_size(panels: dict[str, dict[str, np.ndarray]], train_counts: np.ndarray, title: str) -> Figure:
    """What methods give a species by its number of train images, one panel beside the other.

    Args:
        panels: label of the vertical axis -> name of the curve -> float [C].
        train_counts: int [C].
        title: what to see; the legend is of the panel with several curves, of which there is at most one.
    """
    train_counts = np.asarray(train_counts)
    order = np.argsort(train_counts, kind="stable")
    figure, (row,) = _figure(title, 3.6, 1, len(panels))
    for axes, (label, curves) in zip(row, panels.items(), strict=True):
        for (name, values), colour in zip(
            curves.items(), itertools.cycle((BLUE, ORANGE, GREEN, VERMILION)), strict=False
        ):
            axes.plot(train_counts[order], np.asarray(values)[order], color=colour, label=name)
        axes.set(xlabel="train images of the species", ylabel=label, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _thousands(axes.xaxis)
        if len(curves) > 1:
            figure.legend(
                *axes.get_legend_handles_labels(), loc="outside lower left", ncols=len(curves), fontsize=9
            )
    return figure


@_styled
def gains_by_bin(gains: pd.DataFrame, base: str) -> Figure:
    """Gain of every method over another in head, medium and tail, in points of macro-F1.

    Args:
        gains: from posthoc.gains_over(): method, metric ("head_f1", ...), gain, low, high.
        base: what they are compared with.
    """
    of_bins = gains[gains["metric"].isin([f"{name}_f1" for name in BINS])].dropna(subset="gain")
    tail = of_bins[of_bins["metric"] == f"{BINS[-1]}_f1"].set_index("method")["gain"]
    best = tail.idxmax() if len(tail) else None
    if best is None:
        title = f"Gain over {base}: no species in the tail"
    elif tail[best] <= 0:
        title = f"Nothing helps the tail more than {base}"
    else:
        head = of_bins[(of_bins["metric"] == f"{BINS[0]}_f1") & (of_bins["method"] == best)]["gain"]
        title = f"{best[:1].upper()}{best[1:]} gives the tail {100 * tail[best]:+.1f} points over {base}"
        if len(head):
            title += f", the head {100 * head.iloc[0]:+.1f}"
        low = of_bins[(of_bins["metric"] == f"{BINS[-1]}_f1") & (of_bins["method"] == best)]["low"].iloc[0]
        if low <= 0:
            title += "; seeds differ by more"
    methods = list(dict.fromkeys(of_bins["method"]))
    figure, ((axes,),) = _figure(title, 1.5 + 0.36 * len(methods))
    for shift, name in zip((-0.22, 0, 0.22), BINS, strict=True):
        rows = of_bins[of_bins["metric"] == f"{name}_f1"]
        if rows.empty:
            continue
        places = np.array([methods.index(method) for method in rows["method"]]) + shift
        colour = BIN_COLOURS[name]
        axes.hlines(places, 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.35, lw=4)
        axes.plot(100 * rows["gain"], places, "o", ms=5.5, color=colour, label=BIN_RULES[name])
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(methods)), [textwrap.fill(method, 44) for method in methods], fontsize=9)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel(f"gain over {base} (points of macro-F1)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


@_styled
def head_tail_trade_off(results: pd.DataFrame, base: str) -> Figure:
    """Macro-F1 of the tail against that of the head, one point a method.

    Args:
        results: columns method, and head_f1 and tail_f1 as NAME_mean, NAME_min, NAME_max.
        base: the method that is drawn as a square and with lines through it.
    """
    results = results.dropna(subset=["head_f1_mean", "tail_f1_mean"]).reset_index(drop=True)
    at = results[results["method"] == base].iloc[0]
    others = results[results["method"] != base]
    right = others["head_f1_mean"] >= at["head_f1_mean"]
    above = others["tail_f1_mean"] > at["tail_f1_mean"]
    title = (
        f"{int((above & right).sum())} of {len(others)} methods raise the tail without lowering the head, "
        f"{int((above & ~right).sum())} pay for it in the head"
    )
    figure, (row,) = _figure(title, max(4.6, 0.26 * len(results) + 1.2), 1, 2, width_ratios=(1.5, 1))
    axes, key = row
    axes.axvline(at["head_f1_mean"], color=GREY, lw=0.8)
    axes.axhline(at["tail_f1_mean"], color=GREY, lw=0.8)
    for number, result in enumerate(results.itertuples(), start=1):
        is_base = result.method == base
        colour = VERMILION if is_base else BLUE
        x, y = result.head_f1_mean, result.tail_f1_mean
        axes.plot([result.head_f1_min, result.head_f1_max], [y, y], color=colour, lw=1, alpha=0.45)
        axes.plot([x, x], [result.tail_f1_min, result.tail_f1_max], color=colour, lw=1, alpha=0.45)
        axes.plot(x, y, "s" if is_base else "o", ms=11, color=colour, mec="white")
        axes.text(x, y, str(number), color="white", fontsize=7, ha="center", va="center", fontweight="bold")
    axes.set(xlabel="macro-F1 of the head", ylabel="macro-F1 of the tail")
    _no_ticks(key)
    lines = [
        textwrap.fill(f"{number} {name}", 44, subsequent_indent="   ")
        for number, name in enumerate(results["method"], 1)
    ]
    key.text(0, 1, "\n".join(lines), va="top", fontsize=8.5, linespacing=1.35, transform=key.transAxes)
    return figure
