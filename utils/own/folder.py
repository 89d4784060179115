"""Prediction of a folder of image files: found, checked, read on all cores, predicted in one pass.

TensorFlow is imported inside the functions that need it: a folder is checked before its start is paid for.
"""

import itertools
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from utils.data.forms.checks import NO_TEXT
from utils.data.forms.folders import IMAGE_SUFFIXES, contents, warn_of_others
from utils.evaluation.predict import refuse_no_number
from utils.files import InputError, in_order, read_json
from utils.own.answers import SURE_AT, Judged, answering, concatenate_judged, judge, write_answers_csv
from utils.own.decode import MAX_PIXELS, upright_size
from utils.own.images import FITS, BadImage, read_image

if TYPE_CHECKING:
    import tensorflow as tf

    from utils.config import Profile


THUMBNAIL = 360  # pixels of the longer edge
MAX_LISTED = 20  # bad images in a message; the rest is counted


@dataclass(frozen=True)
class Stored:
    """The square JPEGs that a network was trained on; images to predict go through the same."""

    size: int = 480  # pixels a side
    fit: str = "squeeze"  # or "pad", see `encode_image`


def stored_by(run_dir: Path, run_name: str) -> Stored:
    """How a run's training images were stored: as its settings say, else as published.

    Raises:
        InputError: the settings are damaged.
    """
    path = Path(run_dir) / f"{run_name}_configs.json"
    try:
        found = read_json(path).get("run", {}).get("stored") or {}
        stored = Stored(
            **{**asdict(Stored()), **{key: value for key, value in found.items() if value is not None}}
        )
    except (AttributeError, TypeError):
        raise InputError(f"{path}: not the settings of a run. Copy the run again.") from None
    if type(stored.size) is not int or not 16 <= stored.size <= 4096 or stored.fit not in FITS:
        raise InputError(f"{path}: images cannot be stored as {found}. Copy the run again.")
    return stored


def find_images(
    folder: Path,
    *,
    skip_bad: bool = False,
    take: Callable[[Sequence[Path]], Sequence[Path]] | None = None,
) -> tuple[list[Path], dict[str, str]]:
    """The image files of a folder and its subfolders, and those that are none by their first bytes.

    Links are followed, hidden files passed over: see `contents` of forms/folders.py. An InputWarning says what else
    is passed over. Only the header of each file is read.

    Args:
        folder: where to look.
        skip_bad: leave bad files out instead of stopping.
        take: given all files, sorted, it says which of them count: of several calls that share them, this one's.

    Returns:
        The files, folder by folder, sorted, and what is left out: {path relative to `folder`: reason}.

    Raises:
        InputError: there is no image file, or (without `skip_bad`) some cannot be read; the message lists
            the first twenty.
    """
    folder = Path(folder)
    found = contents(folder)
    # A link that leads nowhere is bad like a file, and may be that of a whole folder.
    files = sorted(
        (folder / name for name in [*found.images, *found.broken]), key=lambda path: (path.parent, path)
    )
    if not found.images:
        others = Counter(Path(name).suffix.lower() or "no suffix" for name in [*found.others, *found.broken])
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "nothing"
        raise InputError(
            f"{folder}: no image files; found {kinds}. Looked for {', '.join(IMAGE_SUFFIXES)}, in subfolders too: "
            "convert the images, or name another folder."
        )
    warn_of_others(folder, found)
    files = files if take is None else take(files)
    problems = list(in_order(lambda path: _header_problem(path, folder), files))
    names = [_name(path, folder) for path in files]
    bad = {name: problem for name, problem in zip(names, problems, strict=True) if problem}
    if bad and (not skip_bad or len(bad) == len(files)):
        listed = [f"  {name}: {problem}" for name, problem in itertools.islice(bad.items(), MAX_LISTED)]
        if len(bad) > MAX_LISTED:
            listed.append(f"  and {len(bad) - MAX_LISTED} more")
        way_out = "Replace or remove them" + ("." if skip_bad else ", or leave them out with --skip-bad.")
        raise InputError(
            "\n".join([f"{folder}: {len(bad)} of {len(files)} images cannot be read:", *listed, way_out])
        )
    return [path for path, problem in zip(files, problems, strict=True) if not problem], bad


def _name(path: Path, folder: Path) -> str:
    """The image_id of a file: its path below the folder, with what is no text in it as escapes."""
    return NO_TEXT.sub(lambda found: repr(found[0])[1:-1], path.relative_to(folder).as_posix())


def _header_problem(path: Path, folder: Path) -> str:
    """Why a file is no image, as far as its name and its header show; empty when it looks well."""
    if NO_TEXT.search(path.relative_to(folder).as_posix()):
        return "its name is no text (control characters, or bytes that are not UTF-8); rename it"
    try:
        if path.stat().st_size == 0:
            return "the file is empty"
        with path.open("rb") as file:
            width, height = upright_size(file)
        if width * height <= MAX_PIXELS:
            return ""
        return (
            f"{width} x {height} pixels are more than {MAX_PIXELS / 1e6:.0f} megapixels; save a smaller copy"
        )
    except Image.UnidentifiedImageError:
        return "not a JPEG, PNG or TIFF image, whatever its suffix says"
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        return getattr(error, "strerror", None) or str(error)


def predict_folder(
    run_dir: Path,
    folder: Path,
    files: Sequence[Path],
    left_out: dict[str, str],
    out: Path,
    *,
    html: Path | None = None,
    tta: bool = False,
    skip_bad: bool = False,
    progress: bool = True,
    notes: dict[str, str] | None = None,
    sure: float = SURE_AT,
    ids: dict[str, str] | None = None,
) -> Judged:
    """Answer image files by the network of a run; write the CSV and, where asked for, the page.

    Every file is read once; memory does not grow with their number but for the answers. Nothing appears
    under a final name until all is predicted.

    Args:
        run_dir: the folder of a training run.
        folder, files, left_out: as for and from `find_images`; `left_out` gets what turns out bad later.
        out: the CSV, see `write_answers_csv`.
        html: the page, see `utils.own.page`.
        tta: test-time augmentation even where the profile has none, see `predict`.
        skip_bad: leave images out that cannot be decoded.
        progress: show a bar with sheets a second.
        notes: gets {path below `folder`: what is wrong with an image without harm}.
        sure: the least probability of a sure answer.
        ids: {path below `folder`: image_id} of labelled files; the id of the others is their path.

    Raises:
        InputError: there is no trained run, or (without `skip_bad`) an image cannot be decoded.
    """
    import tensorflow as tf
    from tqdm.auto import tqdm

    from utils.figures.explain import explainer
    from utils.own.page import Pages, read_facts
    from utils.own.worth import load_worth
    from utils.training.runs import load_trained

    network, profile, labels = load_trained(run_dir)
    worth = load_worth(run_dir, profile, labels)
    answer = answering(network, profile, tta=tta or profile.tta)
    batches = image_batches(
        files,
        folder,
        profile,
        left_out if skip_bad else None,
        stored=stored_by(run_dir, profile.run_name),
        thumbnails=bool(html),
        notes=notes,
    )
    parts = []
    with ExitStack() as stack:
        stack.callback(batches.close)  # stops the readers when predicting fails
        bar = stack.enter_context(
            tqdm(total=len(files), unit=" sheets", desc="predict", disable=not progress)
        )
        pages = None
        if html:
            side = profile.image_size
            signature = [tf.TensorSpec([None, side, side, 3], tf.uint8), tf.TensorSpec([None], tf.int32)]
            explain = tf.function(explainer(network), input_signature=signature)
            facts = read_facts(run_dir, profile, labels, worth)
            review = shlex.join(
                ["./course", "review", *map(str, (out, "--images", folder, "--model", run_dir))]
            )
            pages = stack.enter_context(Pages(html, facts, folder.resolve().name, sure, review))
        for images, _, names, thumbnails in batches:
            probabilities, features = (array.numpy() for array in answer(images))
            paths = np.array([name.decode() for name in names.numpy()])
            refuse_no_number(paths, probabilities)
            judged = judge(worth, paths, probabilities, features, sure=sure)
            if pages:
                pages.add(
                    judged, thumbnails, explain(images, judged.predictions.predicted).numpy(), profile.crop
                )
            parts.append(replace(judged, directions=None))
            bar.update(len(judged))
        if not parts:
            raise InputError(f"{folder}: none of its {len(files)} images can be decoded. Replace them.")
        judged = concatenate_judged(parts)
        if pages:
            pages.write(left_out)
        paths = judged.predictions.image_ids
        known = np.array([(ids or {}).get(path, path) for path in paths])
        named = replace(judged, predictions=replace(judged.predictions, image_ids=known))
        write_answers_csv(named, labels, out, files=paths)
    return named


def image_batches(
    files: Sequence[Path],
    folder: Path,
    profile: "Profile",
    left_out: dict[str, str] | None,
    *,
    stored: Stored = Stored(),
    thumbnails: bool = False,
    notes: dict[str, str] | None = None,
) -> "Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor, list[Image.Image | None]]]":
    """Batches as evaluation_dataset() gives them, from image files, through the same JPEG as in own shards.

    Args:
        files, folder: the images, and the folder that their ids are relative to.
        profile: gives image size, crop and batch size.
        left_out: gets {id: reason} of images that cannot be decoded; None to stop at the first.
        stored: how the training images were stored.
        thumbnails: make them.
        notes: gets {id: what is wrong with an image without harm}.

    Returns:
        An iterator of (uint8 [B, S, S, 3], int32 [B] all -1, string [B], B thumbnails or Nones), in the
        order of the files.

    Raises:
        InputError: an image cannot be decoded.
    """
    import tensorflow as tf

    from utils.data.pixels import decode_crop_resize, to_uint8

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def decode(jpeg: "tf.Tensor") -> "tf.Tensor":
        return to_uint8(decode_crop_resize(jpeg, profile.image_size, profile.crop, None))

    def read(path: Path) -> tuple[Path, "BadImage | tuple[np.ndarray, Image.Image | None, str]"]:
        try:
            jpeg, note = read_image(path, size=stored.size, fit=stored.fit)
        except BadImage as error:
            return path, error
        small = thumbnail(jpeg, path, stored) if thumbnails else None
        return path, (decode(tf.constant(jpeg)).numpy(), small, note)

    def images() -> Iterator[tuple[str, np.ndarray, Image.Image | None]]:
        for path, found in in_order(read, files):
            name = _name(path, folder)
            if isinstance(found, BadImage):
                if left_out is None:
                    raise InputError(
                        f"{path}: not a readable image ({found.reason}). Replace or remove it, or leave such "
                        "files out with --skip-bad. Nothing was written."
                    ) from found
                left_out[name] = found.reason
                continue
            pixels, thumbnail, note = found
            if note and notes is not None:
                notes[name] = note
            yield name, pixels, thumbnail

    sheets = images()
    while batch := list(itertools.islice(sheets, profile.batch_size)):
        names, pixels, small = zip(*batch, strict=True)
        yield tf.constant(np.stack(pixels)), tf.fill([len(batch)], -1), tf.constant(names), list(small)


def thumbnail(jpeg: bytes, path: Path, stored: Stored) -> Image.Image:
    """A small RGB image with the proportions of the file, from its square JPEG."""
    with path.open("rb") as file:
        width, height = upright_size(file)
    sides = [max(1, round(side * THUMBNAIL / max(width, height))) for side in (width, height)]
    with Image.open(BytesIO(jpeg)) as square:
        image = square.convert("RGB")
    if stored.fit == "pad":
        margins = [(stored.size - side * stored.size / THUMBNAIL) / 2 for side in sides]
        image = image.crop((*map(round, margins), *(stored.size - round(margin) for margin in margins)))
    return image.resize(sides, Image.Resampling.LANCZOS)
