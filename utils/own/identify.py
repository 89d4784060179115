"""Identify a sheet: what a run says of one image file, without TensorFlow, whose start takes longer than all answers.

`prepare` makes once what that takes and keeps it: the network with Grad-CAM for LiteRT, and small pictures of training
sheets. An `Identifier` answers from it. The notebook 08 and the page of `./course identify` are both made of these.
"""

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from utils.config import Profile, profile_from_dict
from utils.data.labels import LabelMap
from utils.files import InputError, building, cores, read_json, write_json
from utils.own.answers import ARRAYS, NO_RANK, RANKS, SURE_AT, WORDS, judge
from utils.own.export import interpreter, refuse_others, report_of_failure
from utils.own.folder import stored_by, thumbnail
from utils.own.images import read_image
from utils.own.look import network_pixels
from utils.own.page import RunFacts, overlay, read_facts
from utils.own.worth import NOT_ARRAYS, fingerprint, load_worth, worth_of

if TYPE_CHECKING:
    import tensorflow as tf

    from utils.sources import Data

KEPT = "identify"  # in a run's folder
SIMILAR = 5  # training sheets shown beside an answer
_VERSION = 1  # of what is kept; another one is made anew
_PICTURE = 150  # pixels of the longer side of a training sheet's picture, some 5 KB
_NETWORK, _PICTURES, _RUN = "network.tflite", "pictures.npz", "run.json"


@dataclass(frozen=True, eq=False)
class Sheet:
    """An image file, read: its name, what the network sees (uint8 [S, S, 3]), a picture, and what is odd about it."""

    name: str
    pixels: np.ndarray
    picture: Image.Image
    note: str = ""


@dataclass(frozen=True)
class Guess:
    """One of the likeliest species; `index` is its class, `images` the training sheets it had, None if not known."""

    index: int
    species: str
    genus: str
    family: str
    probability: float
    images: int | None


@dataclass(frozen=True)
class Similar:
    """A training sheet that looks like the one to identify; `cosine` is that of their features, see `Space`."""

    image_id: str
    species: str
    cosine: float
    picture: Image.Image | None  # None where none was kept


@dataclass(frozen=True)
class Answer:
    """What is said of a sheet: see `utils.own.answers.Judged`; `rank` is None where nothing is sure.

    heat: Grad-CAM of the first guess, float32 [S, S] in 0..1; all 0 where no part of the sheet speaks for it.
    """

    status: str
    rank: str | None
    taxon: str
    probability: float
    guesses: list[Guess]
    similar: list[Similar]
    heat: np.ndarray


def is_prepared(run_dir: Path, kept: Path, *, pictures: bool = False) -> bool:
    """Whether `kept` was made of the weights that lie in a run's folder now, with pictures where they are asked for."""
    if not (kept / _RUN).is_file():
        return False
    known = read_json(kept / _RUN)
    name = str(known.get("run_name")) if isinstance(known, dict) else ""
    if not name or known.get("version") != _VERSION or not (run_dir / f"{name}_weights.h5").is_file():
        return False
    if known.get("weights") != fingerprint(run_dir, name):
        return False
    return (kept / _PICTURES).is_file() or not pictures


def refuse_other_files(kept: Path) -> None:
    """Raise InputError where a folder holds anything but what `prepare` makes."""
    refuse_others(kept, (_NETWORK, _PICTURES, _RUN, WORDS, ARRAYS), "not made by identify")


def prepare(run_dir: Path, kept: Path, data: "Data | None" = None, *, progress: bool = True) -> Path:
    """Make what an Identifier takes, from a trained run; imports TensorFlow and takes about a minute.

    Args:
        run_dir: folder of a training run.
        kept: folder to make or make anew.
        data: that it was trained on, for the pictures of its training sheets; None: the sample flora where it was
            trained on that, else without pictures.
        progress: show bars.

    Raises:
        InputError: there is no trained run, the data have other species, or `kept` holds other files.
    """
    refuse_other_files(kept)
    import tensorflow as tf

    from utils.figures.explain import explainer
    from utils.own.answers import answering
    from utils.sources import find_data
    from utils.training.runs import load_trained

    loaded = load_trained(run_dir, data=data, precision="float32")
    network, profile, labels = loaded
    if data is None and profile.source == "flora":
        data = find_data(profile, progress=progress)
    answer, explain = answering(network, profile), explainer(network)

    @tf.function(input_signature=[tf.TensorSpec([1, profile.image_size, profile.image_size, 3], tf.uint8)])
    def see(sheet: tf.Tensor) -> "dict[str, tf.Tensor]":
        probabilities, features = answer(sheet)
        heat = explain(sheet, tf.argmax(probabilities, axis=1, output_type=tf.int32))
        return {"probabilities": probabilities, "features": features, "heat": heat}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([see.get_concrete_function()], network)
    with building(kept, replace=True) as folder:
        worth = load_worth(run_dir, profile, labels)
        if worth is None:
            worth = worth_of(run_dir, data, trained=loaded, kept_in=folder, progress=progress)
        with report_of_failure():
            (folder / _NETWORK).write_bytes(converter.convert())
        if data is not None:
            ids = [] if worth is None else worth.references.ids.tolist()
            _save_pictures(data, ids, folder / _PICTURES)
        write_json(
            folder / _RUN,
            {
                "version": _VERSION,
                "weights": fingerprint(run_dir, profile.run_name),
                "run_name": profile.run_name,
                "profile": profile.to_dict(),
            },
        )
    return kept


def _save_pictures(data: "Data", ids: list[str], path: Path) -> None:
    """Keep small JPEGs of training sheets by their id, as one row of bytes."""
    from utils.data.records import read_records

    wanted, found = set(ids), {}
    for record in read_records(data.train_shards if wanted else ()):
        if record["image_id"] in wanted:
            found[record["image_id"]] = small_jpeg(record["image"])
    names = sorted(found)
    np.savez(
        path,
        ids=np.array(names),
        ends=np.cumsum([len(found[name]) for name in names], dtype=np.int64),
        jpegs=np.frombuffer(b"".join(found[name] for name in names), np.uint8),
    )


def small_jpeg(content: bytes) -> bytes:
    """A picture of a JPEG whose longer side has 150 pixels."""
    with Image.open(BytesIO(content)) as image:
        image.draft("RGB", (2 * _PICTURE, 2 * _PICTURE))
        image.thumbnail((_PICTURE, _PICTURE))
        buffer = BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


class Identifier:
    """Answers for a run, from what `prepare` has kept."""

    def __init__(self, run_dir: Path, kept: Path, sure: float = SURE_AT) -> None:
        """Open it; `sure` is the least probability of a sure answer.

        Raises:
            InputError: a kept file is damaged.
        """
        known, self.sure = read_json(kept / _RUN), sure
        settings = known.get("profile") if isinstance(known, dict) else None
        if not isinstance(settings, dict):
            raise InputError(f"{kept / _RUN}: has no settings of a run. Remove {kept}; it is made again.")
        self.profile: Profile = profile_from_dict(settings, str(kept / _RUN))
        self.labels = LabelMap.load(run_dir / "labels.json")
        of_run = run_dir, self.profile, self.labels
        self.worth = load_worth(*of_run) or load_worth(*of_run, kept_in=kept)
        self.facts: RunFacts = read_facts(run_dir, self.profile, self.labels, self.worth)
        self.stored = stored_by(run_dir, self.profile.run_name)
        try:
            self._see = interpreter(kept / _NETWORK, threads=min(4, cores()))
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{kept / _NETWORK}: not a model for LiteRT ({error}). Remove {kept}; it is made again."
            ) from None
        self._kept = kept

    @cached_property
    def _pictures(self) -> dict[str, bytes]:
        path = self._kept / _PICTURES
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                ids, ends, jpegs = stored["ids"], stored["ends"], stored["jpegs"].tobytes()
            starts = [0, *ends[:-1]]
            return {
                name: jpegs[start:end] for name, start, end in zip(ids.tolist(), starts, ends, strict=True)
            }
        except NOT_ARRAYS as error:
            raise InputError(
                f"{path}: cannot be read ({error}). Remove {self._kept}; it is made again."
            ) from None

    def look(self, path: Path, name: str | None = None) -> Sheet:
        """Read an image file.

        Args:
            path: the file, a JPEG, PNG or TIFF.
            name: to show; the file's own without it.

        Raises:
            BadImage: it is not a whole image; `reason` says why.
            InputError: the file cannot be read at all.
        """
        jpeg, note = read_image(path, size=self.stored.size, fit=self.stored.fit)
        return Sheet(
            name or path.name,
            network_pixels(jpeg, self.profile.image_size, self.profile.crop),
            thumbnail(jpeg, path, self.stored),
            note,
        )

    def answer(self, sheet: Sheet, *, sure: float | None = None) -> Answer:
        """The five likeliest species, what is sure, the training sheets that look like it, and Grad-CAM.

        Args:
            sheet: from `look`.
            sure: the least probability of a sure answer, in place of the identifier's own.
        """
        seen = self._see(sheet=sheet.pixels[None])
        sure = self.sure if sure is None else sure
        judged = judge(self.worth, np.array([sheet.name]), seen["probabilities"], seen["features"], sure=sure)
        best, rank = judged.predictions, int(judged.rank[0])
        pairs = zip(best.classes[0].tolist(), best.probabilities[0].tolist(), strict=True)
        return Answer(
            status=str(judged.status[0]),
            rank=RANKS[rank] if rank < NO_RANK else None,
            taxon=str(judged.taxon[0]),
            probability=float(judged.probability[0]),
            guesses=[self._guess(index, probability) for index, probability in pairs],
            similar=[] if judged.directions is None else self._similar(judged.directions[0]),
            heat=seen["heat"][0],
        )

    def _guess(self, index: int, probability: float) -> Guess:
        labels, images = self.labels, self.facts.train_images
        names = (str(column[index]) for column in (labels.names, labels.genera, labels.families))
        return Guess(index, *names, probability, None if images is None else int(images[index]))

    def _similar(self, direction: np.ndarray) -> list[Similar]:
        references = self.worth.references
        return [
            Similar(
                str(references.ids[place]),
                str(self.labels.names[references.classes[place]]),
                float(references.directions[place].astype(np.float32) @ direction),
                self._picture(str(references.ids[place])),
            )
            for place in references.nearest(direction[None], SIMILAR)[0]
        ]

    def _picture(self, image_id: str) -> Image.Image | None:
        jpeg = self._pictures.get(image_id)
        return None if jpeg is None else Image.open(BytesIO(jpeg))

    def explained(self, sheet: Sheet, answer: Answer) -> Image.Image:
        """The sheet's picture with Grad-CAM of the first guess over it."""
        return overlay(sheet.picture, answer.heat, self.profile.crop)
