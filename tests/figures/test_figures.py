"""Figures: what their titles say for each outcome, what they draw, and that nothing global changes."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from utils import figures
from utils.data.labels import LabelMap
from utils.experiments.range_test import read_range
from utils.figures.style import write_captions

LONG = np.array([80, 75, 60, 40, 30, 20, 19, 10, 7, 7])
FLAT = np.full(10, 30)


def title(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("Carex nigra", r"$\mathit{Carex}$ $\mathit{nigra}$"),
        ("Rosa canina var. alba", r"$\mathit{Rosa}$ $\mathit{canina}$ var. $\mathit{alba}$"),
        ("Mentha × piperita", r"$\mathit{Mentha}$ × $\mathit{piperita}$"),
        ("Capsella bursa-pastoris", "$\\mathit{Capsella}$ $\\mathit{bursa‐pastoris}$"),
        ("Glararastrum alpinum (Brandt) Vane", r"$\mathit{Glararastrum}$ $\mathit{alpinum}$ (Brandt) Vane"),
        (
            "Poa annua L. var. alba Vane & Zell",
            r"$\mathit{Poa}$ $\mathit{annua}$ L. var. $\mathit{alba}$ Vane & Zell",
        ),
        ("Aster albus Hook. f. ex Benth.", r"$\mathit{Aster}$ $\mathit{albus}$ Hook. f. ex Benth."),
        ("Rubus idaeus f. albus", r"$\mathit{Rubus}$ $\mathit{idaeus}$ f. $\mathit{albus}$"),
        ("Isoëtes x_1 $", r"$\mathit{Isoëtes}$ x_1 \$"),
    ],
)
def test_taxa_are_in_italics_and_ranks_are_not(name, drawn):
    assert figures.italic(name) == drawn
    figure = figures.sheets([np.zeros((4, 4, 3), np.uint8)], [name], title="one")
    figure.draw_without_rendering()  # a name never breaks the drawing


def test_nothing_is_shown_and_no_setting_is_changed():
    before, style = plt.get_fignums(), dict(matplotlib.rcParams)
    figure = figures.rank_frequency(LONG)
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == before
    assert dict(matplotlib.rcParams) == style
    assert figure.get_size_inches()[0] * figure.dpi == pytest.approx(880)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (LONG, "A long tail: the commonest species has 11 times as many images as the rarest"),
        (FLAT, "No long tail: all 10 species have from 30 to 30 images"),
    ],
)
def test_rank_frequency(counts, expected):
    figure = figures.rank_frequency(counts)
    assert title(figure) == expected
    (axes,) = figure.axes
    assert axes.get_ylabel() == "train images"
    drawn = np.concatenate([patch.get_data().values for patch in axes.patches])
    assert drawn.tolist() == sorted(counts, reverse=True)


def families(*images) -> pd.DataFrame:
    names = [f"F{i}aceae" for i in range(len(images))]
    return pd.DataFrame({"family": names, "species": range(len(images), 0, -1), "train_images": images})


def test_images_per_family():
    assert title(figures.images_per_family(families(60, 30, 10), top=2)) == (
        "The 2 largest of 3 families hold 90% of the train images"
    )
    published = families(50, 40).head(1)
    figure = figures.images_per_family(families(60, 140), published=published)
    assert title(figure) == "F1aceae, one of 2 families, has 70% of the train images"
    assert {"60 (50)", "140", "2 (2)", "1"} <= set(texts(figure))
    order = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert order[0] == ["F0aceae", "F1aceae"]
    assert [axes.yaxis_inverted() for axes in figure.axes] == [True, True]


def test_lorenz_curve():
    figure = figures.lorenz_curve(np.array([10, 10, 10, 10, 60]))
    assert title(figure) == "The commonest 20% of the species hold 60% of the images (Gini 0.40)"
    assert title(figures.lorenz_curve(FLAT)).startswith("Images are spread almost evenly")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (LONG, "The tail is 40% of the species and 12% of the train images"),
        (FLAT, "No tail: every species has more than 19 train images"),
        (FLAT - 15, "All tail: no species has more than 19 train images"),
    ],
)
def test_class_bins(counts, expected):
    assert title(figures.class_bins(counts)) == expected


@pytest.mark.parametrize(
    ("genera", "expected"),
    [
        (["A", "A", "A", "B", "C"], "67% of 3 genera have one species, the largest ($\\mathit{A}$) has 3"),
        (["A", "A", "B", "B", "B"], "Every genus has genus-mates to confuse: from 2 to 3 species"),
        (["A", "B"], "Each of the 2 genera has one species: there are no genus-mates to confuse"),
    ],
)
def test_genus_sizes(genera, expected):
    assert title(figures.genus_sizes(genera)) == expected


def test_class_weights_stand_against_the_commonest_species():
    counts = np.array([80, 0, 5, 20])
    weights = {"even": np.ones(4), "inverse": np.array([1.0, 0.0, 16.0, 4.0]) / 5}
    figure = figures.class_weight_curves(weights, counts)
    assert title(figure) == (
        "How many times the commonest species the rarest weighs: 1.0 (even), 16.0 (inverse)"
    )
    (axes,) = figure.axes
    for line, drawn in zip(axes.lines, ([1, 1, 1], [16, 4, 1]), strict=True):
        assert line.get_xdata().tolist() == [5, 20, 80] and line.get_ydata().tolist() == pytest.approx(drawn)


def test_genus_sizes_count_every_genus_and_species_once():
    generator = np.random.default_rng(0)
    figure = figures.genus_sizes(
        np.repeat(np.arange(300).astype(str), np.r_[generator.integers(1, 130, 299), 700])
    )
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert sum(heights) == pytest.approx(2)


def test_institutions():
    series = pd.Series([10, 50, 40], index=["A", "B", "C"])
    figure = figures.institutions(series, top=2)
    assert title(figure) == "B, one of 3, holds 50% of all sheets"
    assert figure.axes[0].get_ylabel() == "institution (1 more not shown)"
    assert title(figures.institutions(series - [0, 20, 10])) == "2 of 3 institutions hold half of the sheets"
    assert title(figures.institutions(series[:1])) == "All sheets come from one institution, A"


def distances(within: float, across: float) -> np.ndarray:
    family = np.array([0, 0, 1, 1, 2])
    matrix = np.where(family[:, None] == family[None, :], within, across).astype(np.float32)
    np.fill_diagonal(matrix, 0)
    return matrix


FAMILY_OF_GENUS = ["X", "X", "Y", "Y", "Z"]


def test_distance_histogram():
    near = distances(20, 90)
    assert title(figures.distance_histogram(near, FAMILY_OF_GENUS)) == (
        "Genera of a family are closer (median 20) than others (90 million years)"
    )
    assert "no closer (median 90)" in title(figures.distance_histogram(distances(90, 20), FAMILY_OF_GENUS))
    near[0, 4] = near[4, 0] = np.nan
    assert {"across families (7 pairs)", "within a family (2 pairs)"} <= set(
        texts(figures.distance_histogram(near, FAMILY_OF_GENUS))
    )
    assert title(figures.distance_histogram(near, list("ABCDE"))) == (
        "All 9 known distances between genera are across families"
    )
    unknown = np.where(np.eye(5, dtype=bool), 0, np.nan)
    assert (
        title(figures.distance_histogram(unknown, FAMILY_OF_GENUS)) == "No distance between genera is known"
    )


@pytest.mark.parametrize("draw", [figures.distance_histogram, figures.distance_heatmap])
def test_distances_on_a_simulated_tree_are_called_so(draw):
    told = " ".join(texts(draw(distances(20, 90), FAMILY_OF_GENUS, of="simulated tree")))
    assert "(million years, simulated tree)" in told
    assert "simulated" not in " ".join(texts(draw(distances(20, 90), FAMILY_OF_GENUS)))


def test_distance_heatmap():
    near = distances(20, 90)
    figure = figures.distance_heatmap(near, FAMILY_OF_GENUS)
    assert title(figure) == "The nearest genus is of the same family for 100% of the genera"
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert sorted(drawn.ravel()) == sorted(near.ravel())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(labels) == ["X", "Y", "Z"]
    assert title(figures.distance_heatmap(distances(90, 20), FAMILY_OF_GENUS)).startswith("Families mix")
    assert title(figures.distance_heatmap(near, list("ABCDE"))).startswith("Each family has one genus")


def test_distance_heatmap_of_many_genera_draws_the_largest_families():
    generator = np.random.default_rng(0)
    family = np.repeat(np.arange(40), np.arange(40, 0, -1))
    matrix = generator.uniform(50, 100, (len(family), len(family))).astype(np.float32)
    matrix[family[:, None] == family[None, :]] /= 4
    matrix = (matrix + matrix.T) / 2
    figure = figures.distance_heatmap(matrix, family.astype(str), max_genera=60)
    assert np.asarray(figure.axes[0].images[0].get_array()).shape == (60, 60)
    assert {label.get_text() for label in figure.axes[0].get_yticklabels()} == {"0", "1", "2"}
    assert "60 of 820 genera" in figure.axes[0].get_xlabel()


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)


def test_sheets_show_every_image_under_its_name():
    figure = figures.sheets(
        IMAGES, [f"Carex n{'o' * i}" for i in range(6)], list("abcdef"), title="Six", columns=4
    )
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 6
    assert np.array_equal(shown[5].images[0].get_array(), IMAGES[5])
    assert shown[5].get_title().endswith("\nf")


def test_captions_are_wrapped_to_as_many_lines_and_authors_stay_upright():
    captions = write_captions(["Poa annua", "true: Glararastrum alpinum (Brandt) Vane"], None, 2.0)
    assert captions[0] == "\n$\\mathit{Poa}$ $\\mathit{annua}$"
    assert captions[1] == "true: $\\mathit{Glararastrum}$\n$\\mathit{alpinum}$ (Brandt) Vane"


def test_head_and_tail():
    names = ["Carex alba", "Poa annua"]
    arguments = (IMAGES[:2], names, [80, 62], IMAGES[2:4], names, [7, 7])
    assert (
        title(figures.head_and_tail(*arguments)) == "Common species have 62 to 80 train images, rare ones 7"
    )
    same = (IMAGES[:2], names, [30, 30], IMAGES[2:4], names, [30, 30])
    assert (
        title(figures.head_and_tail(*same)) == "Common and rare species have about as many train images: 30"
    )


def test_the_ends_of_the_tail_are_called_by_the_bins_that_they_are_in():
    names = ["Carex alba", "Poa annua"]

    def called(common, rare):
        figure = figures.head_and_tail(IMAGES[:2], names, common, IMAGES[2:4], names, rare)
        return [panel.get_suptitle() for panel in figure.subfigs]

    assert called([80, 62], [7, 7]) == ["commonest (head)", "rarest (tail)"]
    assert called([24, 24], [19, 20]) == ["commonest (medium)", "rarest (tail, medium)"]


def test_augmentations():
    assert title(figures.augmentations(IMAGES[0], IMAGES[[1, 2, 2]])) == (
        "Training sees the same sheet anew each time: 2 different images of 3"
    )
    assert (
        title(figures.augmentations(IMAGES[0], IMAGES[[0, 0]]))
        == "Augmentation is off: all 2 images are the same"
    )


def test_throughput():
    def table(*rates):
        return pd.DataFrame({"way": [f"way {i}" for i in range(len(rates))], "images_per_second": rates})

    assert title(figures.throughput(table(500.0, 1500.0))) == "Fastest: way 1, 3.0 times the slowest (way 0)"
    assert title(figures.throughput(table(500.0, 510.0))) == "All ways read about 505 images a second"
    assert title(figures.throughput(table(500.0))) == "way 0: 500 images a second"


def test_cross_entropy_falls_to_certainty_and_smoothed_labels_stop_before_it():
    figure = figures.cross_entropy_curve(smoothing=0.2, species=10)
    assert title(figure).endswith("smoothed labels want 0.82 and not 1")
    (axes,) = figure.axes
    plain, smoothed = axes.lines[:2]
    given = plain.get_xdata()
    assert np.allclose(plain.get_ydata(), -np.log(given))
    assert given[smoothed.get_ydata().argmin()] == pytest.approx(0.82, abs=0.005)
    assert (smoothed.get_ydata()[given > 0.2] > plain.get_ydata()[given > 0.2]).all()
    assert {"3.00", "2.30", "0.69", "0.11"} <= {text.get_text() for text in axes.texts}


def test_learning_rate_schedule():
    rise_and_fall = np.r_[np.linspace(0.01, 0.1, 21), np.linspace(0.1, 0.001, 80)]
    assert title(figures.learning_rate_schedule(rise_and_fall, 20)) == (
        "The learning rate climbs from 0.01 to 0.1 in 1.0 epochs and ends at 0.001"
    )
    assert (
        title(figures.learning_rate_schedule(rise_and_fall[20:], 20))
        == "The learning rate falls from 0.1 to 0.001"
    )
    assert title(figures.learning_rate_schedule(np.full(9, 0.1), 3)) == "The learning rate stays at 0.1"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            np.r_[np.full(10, 4.0), np.full(10, 2.0), np.full(10, 5.0)],
            "falls up to a learning rate of 0.028 and rises from 0.045 on;",
        ),
        (np.linspace(4, 1, 30), "falls up to a learning rate of 1 and does not rise up to 1;"),
        (
            np.r_[np.full(20, 4.0), np.linspace(4, 9, 10)],
            "falls at no learning rate and rises from 0.073 on;",
        ),
        (np.r_[np.full(20, 4.0), np.full(10, np.nan)], "falls at no learning rate and rises from 0.12 on;"),
        (np.tile([4.0, 3.0, 3.5], 10), "falls at no learning rate and does not rise up to 1;"),
    ],
    ids=["valley", "slope", "fitted already", "not a number", "noise alone"],
)
def test_a_range_test_reads_only_what_is_more_than_noise(loss, expected):
    rates = np.geomspace(0.001, 1, 30)
    smoothed = pd.Series(loss).rolling(9, center=True, min_periods=5).mean().fillna(pd.Series(loss))
    table = pd.DataFrame({"learning_rate": rates, "loss": loss, "smoothed_loss": smoothed})
    drawn = title(figures.learning_rate_range(table, read_range(table), 0.05))
    assert expected in drawn and drawn.endswith("the profile's is 0.05")


def timed(seconds: float, *f1) -> pd.DataFrame:
    return pd.DataFrame({"time": np.full(len(f1), seconds), "val_f1_score": f1})


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ((0.6, 0.9), "B: 0.900 in 40 s, A: 0.300 in 30 s, which the other passes after 20 s"),
        ((0.1, 0.9), "B: 0.900 in 40 s, A: 0.300 in 30 s, which the other passes after 40 s"),
        ((0.1, 0.2), "B: 0.200 in 40 s, A: 0.300 in 30 s, which the other does not pass"),
        ((np.nan, np.nan), "No held-out score: too few species have images to hold out"),
    ],
)
def test_scores_against_time(own, expected):
    curves = [("A", timed(10, 0.1, 0.2, 0.3)), ("B", timed(20, *own))]
    figure = figures.scores_against_time(curves, (12.0, 0.5))
    assert title(figure) == expected
    first, second, line, point = figure.axes[0].lines
    assert first.get_xdata().tolist() == [10, 20, 30] and second.get_xdata().tolist() == [20, 40]
    assert set(line.get_ydata()) == {0.5} and point.get_xydata().tolist() == [[12.0, 0.5]]
    assert {"A", "B", "regression on frozen features: 0.500"} <= set(texts(figure))


def test_nearest_sheets_say_how_they_are_related():
    names = np.array(["Poa alpina", "Poa annua", "Rosa canina", "Zea mays"])
    genera = np.array([name.split()[0] for name in names])
    labels = LabelMap(names, np.arange(4), genera, np.array(["Poaceae", "Poaceae", "Rosaceae", "Poaceae"]))
    classes = np.array([[0, 0, 1, 3, 2], [2, 2, 2, 0, 1]])
    figure = figures.nearest_sheets(np.zeros((2, 5, 8, 8, 3), np.uint8), classes, labels)
    assert title(figure) == (
        "Of the 8 nearest training sheets, 3 are of the species of the sheet at their left, 5 of its family"
    )
    notes = [axes.get_title().split("\n")[-1] for axes in figure.axes]
    assert notes[:5] == ["held out", "same species", "same genus", "same family", "another family"]
    assert notes[5:] == ["held out", "same species", "same species", "another family", "another family"]


def history(*f1) -> pd.DataFrame:
    epochs = np.arange(1, len(f1) + 1)
    falling = 3.0 / epochs
    return pd.DataFrame(
        {
            "epoch": epochs,
            "loss": falling,
            "val_loss": falling + 1,
            "f1_score": f1,
            "val_f1_score": f1,
            "learning_rate": falling,
        }
    )


@pytest.mark.parametrize(
    ("f1", "epochs", "expected"),
    [
        ([0.2], 1, "Held-out macro-F1 after one epoch: 0.200"),
        ([0.2], 3, "Held-out macro-F1 after one epoch: 0.200 (1 of 3 epochs so far)"),
        ([0.2, 0.5, 0.49], 3, "Held-out macro-F1 is best in epoch 2: 0.500"),
        (
            [0.2, 0.4, 0.5],
            None,
            "Held-out macro-F1 is best in epoch 3: 0.500, the last; more epochs may help",
        ),
        ([0.2, 0.5, 0.3], 3, "Held-out macro-F1 is best in epoch 2: 0.500; it fell to 0.300 afterwards"),
    ],
)
def test_training_curves(f1, epochs, expected):
    figure = figures.training_curves(history(*f1), epochs)
    assert title(figure) == expected
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss (nats, log scale)",
        "macro-F1",
        "learning rate",
    ]
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


def test_training_curves_without_a_held_out_score():
    figure = figures.training_curves(history(np.nan, np.nan, np.nan))
    assert title(figure) == "No held-out score: too few species have images to hold out"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "held out"]
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("f1", "expected"),
    [
        (np.linspace(0.9, 0.0, 10), "Mean F1 falls from 0.80 in the head to 0.15 in the tail"),
        (np.linspace(0.0, 0.9, 10), "The tail does better than the head: Mean F1 0.75 against 0.10"),
        (np.full(10, 0.5), "The tail does as well as the head: Mean F1 0.50 and 0.50"),
    ],
)
def test_f1_against_images(f1, expected):
    figure = figures.f1_against_images(f1, LONG)
    assert title(figure) == expected
    points = [line for line in figure.axes[0].lines if line.get_ls() == "None"]
    assert {line.get_marker() for line in points} == {"o", "s", "^"}
    drawn = [line.get_xdata() for line in points]
    assert sorted(np.concatenate(drawn)) == sorted(LONG)
    assert title(figures.f1_against_images(f1, FLAT)).endswith("(no species in the other bins)")


def test_f1_of_many_species_is_drawn_as_density():
    generator = np.random.default_rng(0)
    figure = figures.f1_against_images(generator.random(5000), generator.integers(7, 81, 5000))
    assert figure.axes[0].collections[0].get_array().sum() == 5000


def bin_table(head, tail) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "bin": ["head", "medium", "tail"],
            "species": [3, 0, 2],
            "train_images": [200, 0, 20],
            "test_images": [60, 0, 0],
            "macro_f1": [head, np.nan, tail],
            "accuracy": [head, np.nan, np.nan],
        }
    )


def test_scores_by_bin():
    figure = figures.scores_by_bin(bin_table(0.8, 0.5))
    assert title(figure) == "Macro-F1 falls from 0.80 in the head to 0.50 in the tail"
    assert "no sheet" in texts(figure)
    assert len(figure.axes[0].get_xticklabels()) == 2
    assert "does better" in title(figures.scores_by_bin(bin_table(0.5, 0.8)))


def test_scores_by_family():
    def table(*f1, equal=0.5):
        return pd.DataFrame(
            {
                "family": list("ABCDE")[: len(f1)],
                "species": 2,
                "train_images": 30.4,
                "test_images": 9,
                "macro_f1": f1,
                "equal_images": equal,
                "accuracy": f1,
            }
        )

    assert title(figures.scores_by_family(table(0.5, 0.9, 0.1), top=2)) == (
        "B has the highest macro-F1 (0.90), A the lowest (0.50); at equal images none is 0.05 below the others, "
        "of the 2 families with most scored sheets"
    )
    rare = table(0.6, 0.4, equal=[0.8, 0.3])
    assert title(figures.scores_by_family(rare)).endswith(
        "B the lowest (0.40); at equal images A is hardest (-0.20)"
    )
    assert "0.40  (2 species, 30 train images each)" in texts(figures.scores_by_family(rare))
    assert (
        title(figures.scores_by_family(table(0.5, 0.52)))
        == "All families score about alike: macro-F1 0.50 to 0.52"
    )
    assert title(figures.scores_by_family(table(0.5))) == "A: macro-F1 0.50"


def test_genus_confusion():
    genera, family = ["A", "B", "C", "D"], ["Y", "X", "Y", "X"]
    in_family = np.diag([8, 8, 8, 8])
    in_family[0, 2] = in_family[1, 3] = 2
    figure = figures.genus_confusion(in_family, genera, family)
    # of what is predicted besides the true genus: A draws C (10 of 28), B draws D (10 of 28)
    assert title(figure) == (
        "4 of 36 sheets get a wrong genus; 4 of these within the family (100%, more than by chance, 36%)"
    )
    order = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert order == [figures.italic(name) for name in "BDAC"]
    assert np.asarray(figure.axes[0].collections[0].get_array()).reshape(4, 4)[2, 3] == pytest.approx(0.2)
    assert (
        title(figures.genus_confusion(np.diag([1, 1]), ["A", "B"], ["X", "X"]))
        == "Every sheet gets the right genus"
    )
    across = np.diag([8, 8, 8, 8])
    across[0, 1] = 4
    assert "0 of these within the family (0%, not more than by chance" in title(
        figures.genus_confusion(across, genera, family)
    )


def kinds(mistakes, chance) -> pd.DataFrame:
    share = np.array(mistakes) / max(sum(mistakes), 1)
    ratio = np.divide(share, chance, out=np.full(3, np.nan), where=np.array(chance) > 0)
    return pd.DataFrame(
        {
            "kind": ["within genus", "within family", "across families"],
            "mistakes": mistakes,
            "share": share if sum(mistakes) else np.nan,
            "chance": chance if sum(mistakes) else np.nan,
            "ratio": ratio if sum(mistakes) else np.nan,
        }
    )


@pytest.mark.parametrize(
    ("mistakes", "chance", "expected"),
    [
        (
            [6, 2, 2],
            [0.2, 0.2, 0.6],
            "Genus-mates are confused 3.0 times as often as by chance (10 mistakes)",
        ),
        (
            [1, 2, 7],
            [0.2, 0.2, 0.6],
            "Genus-mates are not confused more often than by chance (0.5 times, 10 mistakes)",
        ),
        ([0, 2, 8], [0.0, 0.2, 0.8], "None of the 10 mistakes could fall within a genus"),
        ([0, 0, 0], [0.0, 0.0, 0.0], "There are no mistakes"),
    ],
)
def test_mistakes_by_kind(mistakes, chance, expected):
    figure = figures.mistakes_by_kind(kinds(mistakes, chance))
    assert title(figure) == expected
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("confidence", "accuracy", "ece", "expected"),
    [
        ([0.4, 0.9], [0.2, 0.6], 0.25, "Over-confident: mean confidence 65%, right 40% (ECE 0.250)"),
        ([0.4, 0.9], [0.5, 1.0], 0.10, "Under-confident: mean confidence 65%, right 75% (ECE 0.100)"),
        ([0.4, 0.9], [0.41, 0.89], 0.01, "Well calibrated: mean confidence 65%, right 65% (ECE 0.010)"),
        (
            [0.4, 0.9],
            [0.6, 0.7],
            0.2,
            "Over-confident in places and under-confident in others: mean confidence 65%, right 65% (ECE 0.200)",
        ),
    ],
)
def test_reliability(confidence, accuracy, ece, expected):
    table = pd.DataFrame(
        {
            "lower": [0, 0.5],
            "upper": [0.5, 1],
            "images": [50, 50],
            "confidence": confidence,
            "accuracy": accuracy,
        }
    )
    figure = figures.reliability(table, ece)
    assert title(figure) == expected
    assert [bar.get_height() for bar in figure.axes[0].patches] == accuracy


def test_what_is_left_to_the_machine_is_read_at_the_threshold():
    curve = pd.DataFrame(
        {"sure": [0.5, 0.9, 0.95, 0.99], "share": [0.9, 0.7, 0.6, 0], "error": [0.1, 0.04, 0.02, np.nan]}
    )
    figure = figures.left_to_the_machine(curve, 0.95)
    assert title(figure) == "At a threshold of 95%: 60% of the sheets named to species, 2.0% of these wrongly"
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0.9, 0.7, 0.6]
    assert [text.get_text() for text in figure.axes[0].texts] == ["50%", "90%", "95%"]
    at_one_place = figures.left_to_the_machine(curve.assign(share=0.9, error=0.04), 0.95)
    assert [text.get_text() for text in at_one_place.axes[0].texts] == ["50%"]  # no label on another
    assert title(figures.left_to_the_machine(curve, 0.99)) == "No sheet is named at a probability of 99%"
    assert (
        title(figures.left_to_the_machine(curve.iloc[3:], 0.5)) == "No sheet is named at a probability of 50%"
    )


def test_grad_cam():
    names = [["Poa annua", "Carex alba"], ["Carex alba", "Poa annua"]]
    probabilities = np.array([[0.6, 0.3], [0.5, 0.1]])
    heatmaps = np.random.default_rng(0).random((2, 12, 12))
    figure = figures.grad_cam(IMAGES[:2], heatmaps, ["Poa annua", "Poa annua"], names, probabilities)
    assert title(figure) == "What speaks for the first answer on 2 sheets; 1 of 2 are right"
    bars = figure.axes[2].patches
    assert [bar.get_width() for bar in bars] == [0.6, 0.3]
    assert bars[0].get_facecolor() != bars[1].get_facecolor()
    assert np.array_equal(figure.axes[4].images[1].get_array(), heatmaps[1])
    assert title(figures.grad_cam(IMAGES[:2], heatmaps, None, names, probabilities)) == (
        "What speaks for the first answer on 2 sheets"
    )


def test_against_baselines():
    def table(network):
        return pd.DataFrame(
            {"method": ["network", "a", "b"], "macro_f1": [network, 0.1, 0.2], "accuracy": 0.5}
        )

    assert (
        title(figures.against_baselines(table(0.7)))
        == "Macro-F1 0.700: 3.5 times the better baseline (0.200)"
    )
    assert title(figures.against_baselines(table(0.15))) == (
        "The network does not beat the better baseline: macro-F1 0.150 against 0.200"
    )
    easier = table(0.7).assign(on=["all 900 species", *["200 of 900 species, drawn with seed 0"] * 2])
    assert title(figures.against_baselines(easier)) == (
        "Macro-F1 0.700 on all species; the better baseline has 0.200 on 200 of 900 species, which is easier"
    )
    partly = table(0.7).assign(on=[None, "200 of 900 species, drawn with seed 0", "all 900 species"])
    drawn = [
        label.get_text().replace("\n", " ")
        for label in figures.against_baselines(partly).axes[0].get_yticklabels()
    ]
    assert drawn == ["network", "a (on 200 of 900 species, drawn with seed 0)", "b"]


def test_predicted_classes():
    train = np.array([80, 10, 10])
    assert title(figures.predicted_classes(np.repeat([0, 1, 2], [8, 1, 1]), train)) == (
        "The head gets its share of the answers: 80%; every species is answered"
    )
    assert title(figures.predicted_classes(np.repeat([0, 1], [9, 1]), train)) == (
        "The head gets more than its share: 90% of the answers, 80% of the train images; "
        "1 of 3 species are never answered"
    )
    assert title(figures.predicted_classes(np.repeat([0, 1], [5, 5]), np.array([40, 10]))).startswith(
        "The medium gets less than its share: 50% of the answers, 80%"
    )
    figure = figures.predicted_classes(np.repeat([0, 1, 2], [2, 4, 4]), train)
    assert title(figure).startswith("The head gets less than its share: 20% of the answers")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [2, 4, 4]


def test_predicted_classes_of_a_full_label_map():
    generator = np.random.default_rng(0)
    train = generator.integers(7, 81, 15501)
    predicted = generator.integers(0, 15501, 50000)
    figure = figures.predicted_classes(predicted, train)
    assert figure.axes[0].lines[0].get_ydata().mean() == pytest.approx(50000 / 15501, rel=0.01)


# ---------------------------------------------------------------- methods


def gains(tail: float, head: float = -0.02) -> pd.DataFrame:
    rows = [("a", "head_f1", head), ("a", "medium_f1", 0.01), ("a", "tail_f1", tail), ("b", "tail_f1", -0.3)]
    return pd.DataFrame(
        [
            {"method": method, "metric": metric, "gain": gain, "low": gain - 0.01, "high": gain + 0.01}
            for method, metric, gain in rows
        ]
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (gains(0.125), "A gives the tail +12.5 points over the old way, the head -2.0"),
        (
            gains(0.005),
            "A gives the tail +0.5 points over the old way, the head -2.0; seeds differ by more",
        ),
        (
            gains(0.125).assign(low=lambda one: one["gain"], high=lambda one: one["gain"]),
            "A gives the tail +12.5 points over the old way, the head -2.0, on one network",
        ),
        (gains(-0.1), "Nothing helps the tail more than the old way"),
        (gains(np.nan)[:3], "Gain over the old way: no species in the tail"),
    ],
)
def test_the_gain_in_the_tail_is_the_title(table, said):
    figure = figures.gains_by_bin(table, "the old way")
    assert title(figure) == said
    assert "gain over the old way (points of macro-F1)" in texts(figure)


def test_gains_stand_at_their_points_with_their_ranges():
    figure = figures.gains_by_bin(gains(0.125), "the old way")
    (axes,) = figure.axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert drawn["tail: 19 or fewer"] == pytest.approx([12.5, -30])
    ranges = [segment[:, 0].tolist() for lines in axes.collections for segment in lines.get_segments()]
    assert [11.5, 13.5] in [pytest.approx(each) for each in ranges]


def test_the_trade_off_counts_who_pays():
    means = {"old": (0.9, 0.5), "better": (0.92, 0.6), "pays": (0.8, 0.7), "worse": (0.85, 0.4)}
    table = pd.DataFrame(
        [
            {"method": method}
            | {
                f"{name}_f1_{how}": value
                for how in ("mean", "min", "max")
                for name, value in zip(("head", "tail"), values, strict=True)
            }
            for method, values in means.items()
        ]
    )
    figure = figures.head_tail_trade_off(table, "old")
    assert (
        title(figure)
        == "2 of 3 methods raise the tail by more than the seeds differ, 1 of these at the head's cost"
    )
    other_seed = table.assign(tail_f1_min=table["tail_f1_min"] - 0.2)
    assert title(figures.head_tail_trade_off(other_seed, "old")).startswith("0 of 3"), (
        "means alone decide nothing"
    )
    assert {"1", "2", "3", "4"} < set(texts(figure))
    assert any("1 old\n2 better\n3 pays\n4 worse" in text for text in texts(figure))


def test_curves_by_class_size_are_drawn_from_rare_to_common():
    panels = {"weight": {"one": LONG * 1.0, "two": LONG * 2.0}, "margin": {"three": LONG / 3}}
    figure = figures.by_class_size(panels, LONG, "What the rare get")
    assert title(figure) == "What the rare get" and len(figure.axes) == 2
    assert figure.axes[0].lines[1].get_ydata().tolist() == (2.0 * np.sort(LONG)).tolist()
    assert {"one", "two", "weight", "margin"} < set(texts(figure)) and "three" not in texts(figure)
