"""The score for unknown species: what it tells, what it needs, and the limit that known sheets set."""

import numpy as np
import pytest

from utils.own.unknown import fit_space, tempered, threshold, unit


@pytest.fixture(scope="module")
def species() -> np.ndarray:
    """Means of twelve species; sheets scatter around them, much more along five directions than along the others."""
    return np.random.default_rng(0).normal(size=(12, 40)) * np.r_[np.full(5, 8.0), np.full(35, 2.0)]


def sheets(species: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    scatter = np.r_[np.full(5, 12.0), np.full(35, 0.5)]
    return species[classes] + np.random.default_rng(seed).normal(size=(len(classes), 40)) * scatter


def test_sheets_of_species_that_were_not_learnt_are_the_strange_ones(species):
    classes = np.repeat(np.arange(10), 8)
    space = fit_space(np.stack([sheets(species, classes, seed) for seed in (1, 2)]), classes)
    asked = np.repeat(np.arange(12), 30)
    features = sheets(species, asked, 3)
    strange = space.strangeness(space.place(features), np.full((len(asked), 10), 0.1))
    known = asked < 10
    assert strange.dtype == np.float32 and strange[known].max() < strange[~known].min()
    raw = np.linalg.norm(features[:, None] - species[None, :10], axis=2).min(axis=1)
    assert raw[known].max() > raw[~known].min(), "distances that are not whitened do not tell them"


def test_unsure_answers_are_stranger(species):
    classes = np.repeat(np.arange(10), 8)
    space = fit_space(sheets(species, classes, 1)[None], classes)
    place = space.place(sheets(species, np.array([0, 0]), 3)[:1].repeat(2, axis=0))
    shares = np.array([np.r_[0.91, np.full(9, 0.01)], np.full(10, 0.1)])
    sure, unsure = space.strangeness(place, shares)
    assert unsure > sure
    assert np.ptp(space.strangeness(place, shares, temperature=20.0)) < unsure - sure


@pytest.mark.parametrize("views", [1, 2])
def test_species_with_one_sheet_each_and_constant_features_still_have_a_space(views):
    features = np.random.default_rng(0).normal(size=(views, 3, 6))
    features[:, :, 2] = 1.0
    space = fit_space(features, np.array([4, 7, 9]))
    assert space.classes.tolist() == [4, 7, 9]
    found = space.strangeness(space.place(features[0]), np.full((3, 3), 1 / 3))
    assert np.isfinite(found).all()
    assert np.linalg.norm(unit(space.place(features[0])), axis=1) == pytest.approx(1, abs=1e-5)


def test_two_species_are_enough():
    features = np.random.default_rng(0).normal(size=(2, 4, 6))
    space = fit_space(features, np.array([0, 0, 1, 1]))
    assert np.isfinite(space.strangeness(space.place(features[0]), np.full((4, 2), 0.5))).all()


def test_the_limit_refuses_no_larger_share_of_further_known_sheets_than_asked_for():
    generator = np.random.default_rng(0)
    refused = [
        (generator.normal(size=200) > threshold(generator.normal(size=59), 0.05)).mean() for _ in range(400)
    ]
    assert 0.04 < np.mean(refused) <= 0.051
    scores = np.arange(19.0)
    assert threshold(scores, 0.05) == 18 and threshold(scores[:-1], 0.05) == np.inf
    assert threshold(scores[:0], 0.05) == np.inf


def test_a_temperature_flattens_and_keeps_the_order():
    shares = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    assert tempered(shares, 1.0) == pytest.approx(shares, abs=1e-9)
    flat = tempered(shares, 3.0)
    assert (
        flat.sum(axis=1) == pytest.approx(1) and flat[0, 0] < 0.7 and (np.argsort(flat[0]) == [2, 1, 0]).all()
    )
