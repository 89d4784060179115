"""Prediction: one pass over a data set, with the id of every sheet beside its probabilities."""

import zipfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.config import AUGMENTATIONS, TURNED
from utils.data.delimited import write_rows
from utils.files import InputError, UsageError, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import tensorflow as tf

    from utils.data.labels import LabelMap


@dataclass(frozen=True)
class Predictions:
    """The k most probable classes of N sheets, in the order in which the data set gave them.

    image_ids: str [N]; classes: int32 [N, k], most probable first; probabilities: float32 [N, k], of all
    classes together they sum to 1, so a row sums to at most 1; true: int32 [N], -1 where unknown.
    """

    image_ids: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    true: np.ndarray

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of every sheet, int32 [N]."""
        return self.classes[:, 0]

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the most probable class, float32 [N]."""
        return self.probabilities[:, 0]

    def save(self, path: Path) -> Path:
        """Write an .npz file, whole."""
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **vars(self))
        return Path(path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what save() wrote.

        Raises:
            InputError: the file is missing or is no file of predictions.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except FileNotFoundError:
            raise InputError(f"{path}: no such file. Notebook 04 and `./course predict` write it.") from None
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a file of predictions ({error}). Predict again.") from None


def predict_batches(
    model: "tf.keras.Model",
    dataset: "Iterable[tuple]",
    *,
    tta: bool = False,
    augment: str | None = None,
    adjustment: np.ndarray | None = None,
    top: int = 5,
) -> "Iterator[tuple[Predictions, tuple]]":
    """Predict a data set batch by batch, giving the predictions of each batch with the batch itself.

    Args:
        model, tta, augment, adjustment, top: as for `predict`.
        dataset: batches whose first three items are images, int class or -1, and string image_id.

    Raises:
        UsageError: `tta` without a known `augment`.
        InputError: a probability that is not a number.
    """
    if tta and augment not in AUGMENTATIONS:
        raise UsageError(f"augment is {augment!r}; with tta it must be one of {', '.join(AUGMENTATIONS)}.")
    import tensorflow as tf

    def best_classes(images: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        views = [images]
        if tta and augment != "none":
            views.append(tf.reverse(images, axis=[2]))
        if tta and augment in TURNED:
            views += [tf.reverse(view, axis=[1]) for view in views]
        # softmax in float32 also where the network computes in float16
        logits = [tf.cast(model(view, training=False), tf.float32) for view in views]
        if adjustment is not None:
            logits = [each - tf.constant(adjustment, tf.float32) for each in logits]
        probabilities = tf.add_n([tf.nn.softmax(each) for each in logits]) / len(views)
        return tf.math.top_k(probabilities, k=min(top, probabilities.shape[-1]))

    traced = None
    for batch in dataset:
        images, true, ids = batch[:3]
        if traced is None:  # once for all batches, also a shorter last one: a trace takes seconds
            of_any_number = tf.TensorSpec([None, *images.shape[1:]], images.dtype)
            traced = tf.function(best_classes, input_signature=[of_any_number])
        values, indices = traced(images)
        predictions = Predictions(
            np.array([image_id.decode() for image_id in ids.numpy()]),
            indices.numpy().astype(np.int32),
            values.numpy(),
            true.numpy().astype(np.int32),
        )
        numbers = np.isfinite(predictions.probabilities).all(axis=1)
        if not numbers.all():
            raise InputError(
                f"The model gives no number for sheet {predictions.image_ids[int(np.argmin(numbers))]}: its "
                "weights have overflowed. Train again with a lower max_lr."
            )
        yield predictions, batch


def predict(
    model: "tf.keras.Model",
    dataset: "tf.data.Dataset",
    *,
    tta: bool = False,
    augment: str | None = None,
    adjustment: np.ndarray | None = None,
    top: int = 5,
    progress: bool = True,
    total: int | None = None,
    shards: "Iterable[Path]" = (),
    check: bool = True,
) -> Predictions:
    """Predict every sheet of a data set in one pass, ids and images together.

    Only the `top` best classes are kept, so 210,407 test sheets of 15,501 classes need some 10 MB and
    not 13 GB. It runs on one device.

    Args:
        model: images [B, S, S, 3] in 0..255 to logits [B, C].
        dataset: batches of (images, int class or -1, string image_id), from evaluation_dataset().
        tta: test-time augmentation, the mean of the probabilities over the sheet as it is and its mirror
            images of `augment`; two or four times the cost.
        augment: the profile's: "light" and "flips" flip left to right, top to bottom and both, "upright" left to
            right only, "none" not at all. Needed with `tta`: a network must not see what it was never taught.
        adjustment: taken from the logits before anything else, float [C]: `utils.data.tail.logit_adjustment` of the
            training images makes it the post-hoc adjustment of Menon et al. (2021), which favours rare
            classes. None for networks whose loss did so already.
        top: how many classes to keep, at most C.
        progress: show a bar with sheets a second.
        total: number of sheets, for the time left in the bar.
        shards: what the data set reads, so that a damaged record can be named.
        check: look through these shards for damaged JPEGs first, which takes 0.8 ms of a core a sheet: a seventh of
            the whole with the smallest network at 96 px, a thirtieth at 224 px. Without it a JPEG of which a part is
            lost is predicted with grey in its place.

    Raises:
        UsageError: `tta` without a known `augment`.
        InputError: the data set gave no sheet, a record is damaged, or a probability is not a number.
    """
    from tqdm import tqdm

    from utils.data.damage import WAY_OUT, bad_records, naming_damage

    # What tf.data decodes of a damaged JPEG it gives as an image, without a word.
    with closing(bad_records(shards if check else (), progress=progress)) as found:
        first = next(found, None)
    if first is not None:
        raise InputError(f"{first}. {WAY_OUT}.")
    parts = []
    with (
        naming_damage(shards, progress=progress),
        tqdm(total=total, unit=" sheets", desc="predict", disable=not progress) as bar,
    ):
        for predictions, _ in predict_batches(
            model, dataset, tta=tta, augment=augment, adjustment=adjustment, top=top
        ):
            parts.append(predictions)
            bar.update(len(predictions))
    return concatenate(parts)


def concatenate(parts: "Sequence[Predictions]") -> Predictions:
    """The predictions of all batches in one.

    Raises:
        InputError: there is none.
    """
    if not parts:
        raise InputError("There was no sheet to predict. Check the shards and the chosen image ids.")
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Predictions(*map(np.concatenate, columns))


def write_predictions_csv(predictions: Predictions, labels: "LabelMap", path: Path) -> Path:
    """Write one row a sheet: image_id, then species, genus, family and probability of each rank.

    Columns are named species_1, genus_1, family_1, probability_1, species_2 ... in UTF-8; the file is
    written whole, cells as `write_rows` has them.
    """
    ranks = range(1, predictions.classes.shape[1] + 1)
    header = ["image_id"] + [
        f"{name}_{rank}" for rank in ranks for name in ("species", "genus", "family", "probability")
    ]

    def rows() -> "Iterator[list[str]]":
        yield header
        for image_id, classes, row in zip(
            predictions.image_ids, predictions.classes, predictions.probabilities, strict=True
        ):
            cells = [str(image_id)]
            for index, probability in zip(classes, row, strict=True):
                cells += [str(of[index]) for of in (labels.names, labels.genera, labels.families)]
                cells.append(f"{probability:.4f}")
            yield cells

    write_rows(rows(), Path(path))
    return Path(path)
