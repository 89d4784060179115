"""Two baselines without a network, to set beside every score: what colour and coarse layout give away."""

import io
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from utils.data.records import CLASS, read_records
from utils.evaluation.scores import overall_scores
from utils.files import InputError

ALL_SPECIES_UP_TO = 500  # above, the baselines are fitted on SUBSET species: the whole would take hours
SUBSET = 200
IMAGE_SIZE = 64  # pixels a side of the small images
THUMBNAIL = 32
HISTOGRAM_BINS = 8  # a channel
MAX_ITERATIONS = 300
ONE_THREAD_UP_TO = 5000  # sheets
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the logistic regression


@dataclass(frozen=True)
class SmallImages:
    """Shrunk sheets: image_ids str [N]; images uint8 [N, 64, 64, 3]; classes int64 [N], -1 where unknown."""

    image_ids: np.ndarray
    images: np.ndarray
    classes: np.ndarray


def read_small_images(
    shards: Sequence[Path],
    *,
    only_ids: Collection[str] | None = None,
    only_classes: Collection[int] | None = None,
) -> SmallImages:
    """Read whole sheets from shards, shrunk to 64 x 64 pixels: 12 KB each, some 1,000 a second.

    Args:
        shards: all are read to the end; give fewer of the published ones to save time.
        only_ids: keep these image ids, all without it.
        only_classes: keep these class indices, all without it.

    Raises:
        InputError: a record holds no readable image, or nothing is left.
    """
    ids, images, classes = [], [], []
    for record in read_records(shards):
        class_index = int(record.get(CLASS, -1))
        if only_ids is not None and record["image_id"] not in only_ids:
            continue
        if only_classes is not None and class_index not in only_classes:
            continue
        ids.append(record["image_id"])
        images.append(_shrink(record["image"], record["image_id"]))
        classes.append(class_index)
    if not ids:
        raise InputError(
            "No sheet is left for the baselines. Check the shards and the chosen ids and classes."
        )
    return SmallImages(np.array(ids), np.stack(images), np.array(classes, dtype=np.int64))


def species_for_baselines(n_classes: int, seed: int) -> np.ndarray:
    """Class indices that the baselines take, sorted int [K]: all up to 500 species, else 200 by seed."""
    if n_classes <= ALL_SPECIES_UP_TO:
        return np.arange(n_classes)
    return np.sort(np.random.default_rng(seed).choice(n_classes, SUBSET, replace=False))


def baselines(
    train_images: np.ndarray,
    train_classes: np.ndarray,
    test_images: np.ndarray,
    test_classes: np.ndarray,
    n_classes: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Fit logistic regression on colour histograms and on 32 x 32 thumbnails, and score both on test sheets.

    Multinomial, features standardised, L2 penalty of the strength that is best by macro-F1 on a fifth of the
    train sheets. Where there are fewer sheets than features, these are rotated into the space that the
    sheets span; with this penalty the fitted model is the same, in a fraction of the time. Some 10 s for
    1,000 sheets of 40 species.

    Args:
        train_images, test_images: uint8 [N, S, S, 3] from read_small_images().
        train_classes, test_classes: class indices, int [N].
        n_classes: of the label map. Above 500 the sheets of 200 species are taken, drawn by `seed`.
        seed: also draws the fifth that sets the penalty.

    Returns:
        One row a baseline: method, macro_f1 and accuracy on the test sheets, on (which species, in words),
        strength (C of scikit-learn's LogisticRegression), converged (False when the optimiser was stopped
        after 300 iterations; the fit is then a little looser than its optimum).

    Raises:
        InputError: no train or no test sheet is left.
    """
    chosen = species_for_baselines(n_classes, seed)
    train, test = np.isin(train_classes, chosen), np.isin(test_classes, chosen)
    if not train.any() or not test.any():
        raise InputError(
            f"The baselines have {train.sum()} train and {test.sum()} test sheets of their {len(chosen)} "
            "species; they need both."
        )
    train_classes = np.searchsorted(chosen, np.asarray(train_classes)[train])
    test_classes = np.searchsorted(chosen, np.asarray(test_classes)[test])
    on = f"all {n_classes:,} species"
    if len(chosen) < n_classes:
        on = f"{len(chosen)} of {n_classes:,} species, drawn with seed {seed}"
    rows = []
    for method, features in (("colour histogram", colour_histograms), ("32 x 32 thumbnail", thumbnails)):
        x, x_test = _standardised(features(train_images[train]), features(test_images[test]))
        strength = _best_strength(x, train_classes, len(chosen), seed)
        predicted, converged = _fit_predict(x, train_classes, x_test, strength)
        score = overall_scores(test_classes, predicted, len(chosen))
        rows.append(
            {
                "method": f"logistic regression, {method}",
                "macro_f1": score["macro_f1"],
                "accuracy": score["accuracy"],
                "on": on,
                "strength": strength,
                "converged": converged,
            }
        )
    return pd.DataFrame(rows)


def colour_histograms(images: np.ndarray) -> np.ndarray:
    """Root of the share of pixels in each of 8 x 8 x 8 cells of red, green and blue, float32 [N, 512].

    The root (Hellinger) keeps the few cells of the paper from hiding the many small ones of the plant.
    """
    step = 256 // HISTOGRAM_BINS
    red, green, blue = np.moveaxis(np.asarray(images) // step, -1, 0).astype(np.int64)
    cells = ((red * HISTOGRAM_BINS + green) * HISTOGRAM_BINS + blue).reshape(len(images), -1)
    n_cells = HISTOGRAM_BINS**3
    offsets = np.arange(len(images))[:, None] * n_cells
    counts = np.bincount((cells + offsets).ravel(), minlength=len(images) * n_cells)
    return np.sqrt(counts.reshape(len(images), n_cells) / cells.shape[1]).astype(np.float32)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Pixels of the sheet shrunk to 32 x 32 by area means, in 0..1, float32 [N, 3072].

    Args:
        images: uint8 [N, S, S, 3], S a multiple of 32.
    """
    count, size = images.shape[:2]
    factor = size // THUMBNAIL
    blocks = np.asarray(images, dtype=np.float32).reshape(count, THUMBNAIL, factor, THUMBNAIL, factor, 3)
    return blocks.mean(axis=(2, 4)).reshape(count, -1) / 255


def _shrink(jpeg: bytes, image_id: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            image.draft("RGB", (IMAGE_SIZE, IMAGE_SIZE))  # JPEG decodes at a half or quarter size for less
            small = image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    except OSError as error:
        raise InputError(
            f"Sheet {image_id}: its image cannot be read ({error}). Run `./course tfrecords verify`."
        ) from None
    return np.asarray(small)


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean 0 and variance 1 by the train rows, then rotated into their span where that is smaller."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    varies = deviation > 1e-6
    train, test = ((x[:, varies] - mean[varies]) / deviation[varies] for x in (train, test))
    if train.shape[0] >= train.shape[1]:
        return train, test
    # float64: the eigenvectors of small eigenvalues are lost in float32
    gram = train.astype(np.float64) @ train.T.astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * 1e-10
    basis = (train.T @ (vectors[:, kept] / np.sqrt(values[kept]))).astype(np.float32)
    return train @ basis, test @ basis


def _fit_predict(x, classes, x_test, strength) -> tuple[np.ndarray, bool]:
    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
    _fit(model, x, classes)
    return model.predict(x_test), bool(model.n_iter_.max() < MAX_ITERATIONS)


def _best_strength(x: np.ndarray, classes: np.ndarray, n_classes: int, seed: int) -> float:
    """The strength with the best macro-F1 on a fifth of the rows, drawn within each class."""
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.permutation(len(classes)), classes))
    held_out = np.zeros(len(classes), dtype=bool)
    held_out[order[4::5]] = True
    if not held_out.any() or len(np.unique(classes[~held_out])) < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    # each strength starts from the fit before it, and is fitted only well enough to rank them
    model = LogisticRegression(max_iter=MAX_ITERATIONS, tol=1e-2, warm_start=True)
    reached = []
    for strength in STRENGTHS:
        _fit(model.set_params(C=strength), x[~held_out], classes[~held_out])
        reached.append(overall_scores(classes[held_out], model.predict(x[held_out]), n_classes)["macro_f1"])
    return STRENGTHS[int(np.argmax(reached))]


def _fit(model: LogisticRegression, x: np.ndarray, classes: np.ndarray) -> None:
    # on small products threads cost more than they give, most of all when other programs want the cores
    threads = 1 if len(x) <= ONE_THREAD_UP_TO else None
    with threadpool_limits(threads), warnings.catch_warnings():
        # not hidden: for the fit that counts it comes back as the column `converged`
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, classes)
