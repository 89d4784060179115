"""The sheets that notebook 08 names: a file, an address, or sheets of the data that the network did not learn from."""

import itertools
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from utils.files import InputError, is_auto, replacing

if TYPE_CHECKING:
    from utils.config import Profile
    from utils.sources import Data

MOST_BYTES = 64 * 2**20  # of an image that is downloaded, or sent by a browser
MOST_MESSAGE = MOST_BYTES + 2**20  # of what a browser sends with such an image
_LOOKED_AT = 10  # records for every sheet to show, among which species that differ are looked for


@dataclass(frozen=True)
class Example:
    """An image file to name; `species` is what it is, "" where nobody knows."""

    path: Path
    species: str = ""


def sheets_to_name(
    sheet: str, data: "Data", profile: "Profile", folder: Path, number: int = 6
) -> list[Example]:
    """The sheets that a notebook's parameter asks for.

    Args:
        sheet: the path of an image file; its address (http, https), from which it is downloaded into `folder`; or
            "auto": sheets of different species, of the withheld test, else of those held out of training.
        data, profile: of the run.
        folder: where such sheets are written as JPEGs.
        number: of sheets, at most.

    Raises:
        InputError: there is no such file, it cannot be downloaded, or no sheet was held out.
    """
    if is_auto(sheet):
        return _of_data(data, profile, folder, number)
    if urlsplit(sheet).scheme in ("http", "https"):
        return [Example(download(sheet, folder))]
    path = Path(sheet).expanduser()
    if not path.is_file():
        raise InputError(f"SHEET {sheet}: no such file. Give the path of an image, its address, or auto.")
    return [Example(path)]


def download(address: str, folder: Path) -> Path:
    """An image at an address as a file.

    Raises:
        InputError: it cannot be had, or has more than 64 MB.
    """
    path = folder / (Path(unquote(urlsplit(address).path)).name or "sheet")
    folder.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(address, headers={"User-Agent": "herbarium-course"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read(MOST_BYTES + 1)
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"SHEET {address}: cannot be downloaded ({reason}). Save it, and give its path."
        ) from None
    if len(content) > MOST_BYTES:
        raise InputError(f"SHEET {address}: has more than {MOST_BYTES // 2**20} MB. Save a smaller copy.")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def _of_data(data: "Data", profile: "Profile", folder: Path, number: int) -> list[Example]:
    from utils.data.records import read_records

    names = data.labels().names
    if data.solution is not None:
        found = list(itertools.islice(read_records(data.test_shards), _LOOKED_AT * number))
        true = data.true_classes([record["image_id"] for record in found])
    else:
        table = data.split(profile)
        held = table[table["held_out"]].set_index("image_id")["class_index"]
        records = (record for record in read_records(data.train_shards) if record["image_id"] in held.index)
        found = list(itertools.islice(records, _LOOKED_AT * number))
        true = [held[record["image_id"]] for record in found]
    chosen = {int(index): record for index, record in zip(reversed(true), reversed(found), strict=True)}
    if not chosen:
        raise InputError("No sheet was held out of training, so there is none to show. Give one as SHEET.")
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for index, record in list(chosen.items())[::-1][:number]:
        path = folder / f"{record['image_id'].replace('/', '_')}.jpg"
        with replacing(path) as temporary:
            temporary.write_bytes(record["image"])
        examples.append(Example(path, str(names[index])))
    return examples
