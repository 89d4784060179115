"""The benchmark of few sheets a species: who is drawn, and the figure."""

import numpy as np
import pandas as pd

from benchmarks import few_sheets


def test_so_many_images_of_every_species_are_drawn_once_and_by_seed():
    classes = np.repeat([0, 1, 2], [30, 6, 3])
    chosen = few_sheets.drawn(classes, 5, seed=1)
    assert np.bincount(classes[chosen]).tolist() == [5, 5, 3]
    assert len(set(chosen)) == len(chosen) and not (chosen == few_sheets.drawn(classes, 5, seed=2)).all()


def test_the_score_counts_the_first_and_the_first_five():
    logits = np.array([[9, 8, 7, 6, 5, 0], [9, 8, 7, 6, 5, 0.0], [0, 9, 8, 7, 6, 5]])
    found = few_sheets.scores(np.array([0, 1, 0]), logits)
    assert found["first_five"] == 2 / 3 and 0 < found["macro_f1"] < 1


def test_the_figure_says_what_the_table_holds():
    rows = [
        {
            "start": start,
            "images": images,
            "seed": seed,
            "macro_f1": score + seed / 100,
            "first_five": 1,
            "seconds": 1,
        }
        for start, score in (("pretrained", 0.8), ("fine-tuned", 0.7), ("random", 0.2))
        for images in few_sheets.IMAGES
        for seed in (0, 2)
    ]
    figure = few_sheets.figure(pd.DataFrame(rows))
    assert figure.get_suptitle().replace("\n", " ") == (
        "With 2 images a species pretrained features score 0.81, with 20 0.81; fine-tuned 0.71, from nothing 0.21"
    )
    assert [line.get_label() for line in figure.axes[0].lines] == [
        "profile sheets",
        "profile laptop, fine-tuned",
        "EfficientNetV2-B0 from nothing",
    ]
