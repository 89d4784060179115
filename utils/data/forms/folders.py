"""Folders of image files: what lies in them, and what their layout says of the species."""

import difflib
import os
import re
import shlex
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from utils.data.delimited import write_csv
from utils.data.forms.checks import NO_TEXT
from utils.data.forms.names import tidy, word_set
from utils.files import InputError, InputWarning, UsageError, is_hidden

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff")
_WITHOUT_SUFFIX = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # JPEG, PNG; a TIFF may be a camera's raw file
# Words of folders that are parts of a split, and of folders that hold images of any species.
_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_GENERIC = word_set(
    "image images img imgs photo photos picture pictures pics scan scans sheet sheets specimen specimens "
    "media multimedia jpg jpeg png tif tiff data dataset set herbarium"
)
_BINOMIAL = re.compile(r"(?:[×xX] ?)?[^\W\d_a-zß-ÿ][\w.-]* (?:[×xX] ?)?[^\W\d_A-ZÀ-Þ][\w.-]*( .*)?")
_NEAREST_FOR = 20  # names that are not there, for which the nearest file is looked for
# Folders of iNaturalist's data sets: 00042_Plantae_Tracheophyta_Liliopsida_Poales_Poaceae_Zea_mays.
_INATURALIST = re.compile(r"\d+(?:_[A-Z][\w-]*?){4}_(?P<family>[A-Z][a-z-]+)_(?P<name>[A-Z][a-z-]+_[\w-]+)")


@dataclass
class Contents:
    """What lies in a folder and its subfolders, by path below it ("Zea mays/1.jpg"), sorted."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # files that are no images by their names
    broken: list[str] = field(default_factory=list)  # links to what is not there
    circles: list[str] = field(default_factory=list)  # links to a folder that they lie in


def contents(folder: Path) -> Contents:
    """The files of a folder and its subfolders; links are followed, what is hidden is passed over.

    An image is known by its suffix (IMAGE_SUFFIXES, in any case), one without a suffix by its first bytes.
    """
    found = Contents()

    def look(here: str, inside: tuple[str, ...]) -> None:
        with os.scandir(folder / here) as entries:
            visible = [entry for entry in entries if not is_hidden(entry.name)]
        for entry in visible:
            inner = f"{here}/{entry.name}" if here else entry.name
            linked = entry.is_symlink()
            # An entry knows without a look at the disk what it is, but raises for a link to itself.
            target = folder / inner if linked else entry
            if target.is_dir():
                real = os.path.realpath(entry.path)
                if real in inside:
                    found.circles.append(inner)
                else:
                    look(inner, (*inside, real))
            elif target.is_file():
                (found.images if _is_image(folder / inner) else found.others).append(inner)
            elif linked:
                found.broken.append(inner)

    look("", (os.path.realpath(folder),))
    for paths in (found.images, found.others, found.broken, found.circles):
        paths.sort()
    return found


def _is_image(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES
    with path.open("rb") as file:
        return file.read(8).startswith(_WITHOUT_SUFFIX)


def on_disk(folder: Path, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The files that names of a table mean: the one named so, else the only one whose name is that in NFC or NFD.

    Unicode writes é as one character (NFC) or as e and an accent (NFD): a Mac's disk and a spreadsheet differ in it.

    Args:
        folder: what the names are relative to.
        names: as the table has them.

    Returns:
        The names on the disk, in order, and {name: the file that is nearest to it, or ""} of those not there.
    """
    absent = [name for name in names if not _is_there(folder / name)]
    if not absent:
        return list(names), {}
    found = contents(folder)
    there = sorted([*found.images, *found.others, *found.broken])
    taken = set(names) - set(absent)
    composed: dict[str, list[str]] = {}
    for name in there:
        composed.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    meant, missing = {}, {}
    for name in absent:
        same = [
            each for each in composed.get(unicodedata.normalize("NFC", name), ()) if (folder / each).is_file()
        ]
        if len(same) == 1 and same[0] not in taken:
            meant[name] = same[0]
            taken.add(same[0])
        else:
            missing[name] = ""
    free = [each for each in there if each not in taken]  # what another row names is not meant
    for name in list(missing)[:_NEAREST_FOR]:
        missing[name] = _nearest(name, free)
    return [meant.get(name, name) for name in names], missing


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name has more characters than any file's
        return False


def _nearest(name: str, there: Sequence[str]) -> str:
    """The file that a name may mean: other case, suffix or folder, or a slip; "" when none is near."""

    def folded(path: str) -> str:
        return unicodedata.normalize("NFC", path).casefold()

    wanted = PurePosixPath(folded(name))
    if not wanted.name:  # "."
        return ""
    by_folded = {folded(each): each for each in there}
    whole = {wanted.as_posix(), wanted.with_suffix("").as_posix()}
    for key, means in (
        (lambda path: path.as_posix(), whole),
        (lambda path: path.with_suffix("").as_posix(), whole),  # another suffix, or none in the table
        (lambda path: path.name, {wanted.name}),  # another folder
        (lambda path: path.stem, {wanted.name, wanted.stem}),
    ):
        same = [each for path, each in by_folded.items() if key(PurePosixPath(path)) in means]
        if same:
            return same[0]
    # A file of another number is another sheet.
    without = {PurePosixPath(path).with_suffix("").as_posix(): each for path, each in by_folded.items()}
    slip = wanted.with_suffix("").as_posix()
    alike = [path for path in without if re.findall(r"\d+", path) == re.findall(r"\d+", slip)]
    near = difflib.get_close_matches(slip, alike, n=1, cutoff=0.8)
    return without[near[0]] if near else ""


def warn_of_others(folder: Path, found: Contents) -> None:
    """Say by an InputWarning what is passed over: files by suffix with the first of each, links in a circle."""
    told = []
    if found.others:
        first = {PurePosixPath(name).suffix.lower(): name for name in reversed(found.others)}
        counts = Counter(PurePosixPath(name).suffix.lower() for name in found.others)
        kinds = ", ".join(
            f"{count} {suffix or 'without suffix'} ({first[suffix]!r}{' ...' * (count > 1)})"
            for suffix, count in counts.most_common(8)
        )
        more = f", and {len(counts) - 8} more kinds" * (len(counts) > 8)
        told.append(f"files that are no JPEG, PNG or TIFF by their names: {kinds}{more}")
    if found.circles:
        told.append(f"links to a folder that they lie in: {', '.join(map(repr, found.circles[:5]))}")
    if told:
        warnings.warn(f"{folder}: passed over {'; '.join(told)}.", InputWarning, stacklevel=3)


def species_sheets(folder: Path) -> Contents:
    """What lies in a folder with one subfolder per species; warns of what is passed over and of empty species.

    Raises:
        InputError: the layout is another one (parts of a split above the species, families or genera above them,
            a Darwin Core archive, folders that name no species), or no folder has images. The message says how
            such a folder is written.
    """
    folder = Path(folder)
    if (folder / "train_metadata.json").is_file():
        raise InputError(f"{folder}: holds train_metadata.json. Give that file.")
    found = contents(folder)
    _refuse_archive(folder, found)
    inner = [name for name in found.images if "/" in name]
    if not inner:
        raise InputError(
            f"{folder}: no folders with images in it{_found_instead(folder, found)}. Sheets lie in one subfolder per "
            "species, named as the species (Zea mays/sheet1.jpg); or give a CSV. Looked for "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    _refuse_layout(folder, found, [PurePosixPath(name).parts for name in inner])
    warn_of_others(folder, found)
    tops = {name.split("/")[0] for name in inner}
    inside = {entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name)}
    empty = sorted(inside - tops)
    if empty:
        listed = ", ".join(map(repr, empty[:10])) + " ..." * (len(empty) > 10)
        warnings.warn(
            f"{folder}: no sheet in {len(empty)} of its folders, which are left out: {listed}.",
            InputWarning,
            stacklevel=2,
        )
    return found


def _found_instead(folder: Path, found: Contents) -> str:
    told = []
    if found.images:
        told.append(f"{len(found.images)} images lie in it directly")
    if found.others:
        told.append(f"{len(found.others)} other files, as {found.others[0]!r}")
    if found.broken:
        told.append(f"{len(found.broken)} links to what is not there, as {found.broken[0]!r}")
    if table := _table_in(found):
        told.append(
            f"is {str(folder / table)!r} their table? Give it in the folder's place, to `tfrecords write` by --labels"
        )
    return f" ({'; '.join(told)})" if told else ""


def _table_in(found: Contents) -> str | None:
    """The first table that lies in the folder itself."""
    return next(
        (name for name in found.others if "/" not in name and name.lower().endswith((".csv", ".tsv"))), None
    )


def _refuse_archive(folder: Path, found: Contents) -> None:
    inside = {name.lower(): name for name in found.others}
    core = next((inside[name] for name in ("occurrence.txt", "occurrences.txt") if name in inside), None)
    if core or "meta.xml" in inside:
        where = shlex.quote(str(folder))
        raise InputError(
            f"{folder}: is a Darwin Core archive ({core or inside['meta.xml']}), whose folders name no species. Make a "
            f"table (CSV) of file_name and scientificName, by {core or 'its table'} and the names of your image files, "
            f"and give it: ./course tfrecords write --images {where} --labels labels.csv --out data/mine"
        )


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[\W_]+", name.lower()) if word and not word.isdecimal()}


def _part(name: str) -> str | None:
    """The part of a split that a folder is by its name: Train, val, test_images, "validation set"."""
    words = _words(name)
    parts = {_PARTS[word] for word in words if word in _PARTS}
    return parts.pop() if len(parts) == 1 and words <= _PARTS.keys() | _GENERIC else None


def _is_generic(name: str) -> bool:
    return bool(words := _words(name)) and words <= _GENERIC


def _is_binomial(name: str) -> bool:
    return bool(_BINOMIAL.fullmatch(tidy(name.replace("_", " "))))


def _refuse_layout(folder: Path, found: Contents, files: Sequence[tuple[str, ...]]) -> None:
    """Raise InputError unless the first folder of these files (folders and name) is their species."""
    if not any(any(map(str.isalpha, each)) for path in files for each in path[:-1]):
        return  # numbers: that they are no names is said by line
    where = shlex.quote(str(folder))
    table = f"Make a table of it, look at its names, and write by it: ./course table {where} --out labels.csv, then "
    write = f"./course tfrecords write --images {where} --labels labels.csv{{}} --out data/mine"
    parts = list(dict.fromkeys(name for path in files for name in path[:-1] if _part(name)))
    if parts:
        raise InputError(
            f"{folder}: its folders {', '.join(map(repr, parts[:3]))} are parts of a split, no species. "
            f"{table}{write.format(' --split labels.csv')}"
        )
    tops = {path[0] for path in files}
    # What lies below several species is none: Zea mays/Leaf detail, Poa annua/Leaf detail.
    below = Counter(inner for _, inner in {(path[0], path[-2]) for path in files if len(path) > 2})
    for path in files:
        name, inner = tidy(path[0].replace("_", " ")), path[1:-1]
        if _INATURALIST.fullmatch(path[0]):
            raise InputError(
                f"{folder}: its folders are named as iNaturalist's ({path[0]!r}), with the ranks above the species. "
                f"{table}{write.format('')}"
            )
        words = name.split()
        other = (
            inner
            and _is_binomial(inner[-1])
            and below[inner[-1]] == 1
            and re.split("[ _]", inner[-1])[0] != words[0]
        )
        above = bool(_words(path[0]) & _GENERIC) or not (  # Poaceae, Zea, North America
            _is_binomial(path[0])
            or (len(words) > 1 and (name.isupper() or name.islower()) and not any(map(str.isdigit, name)))
        )
        if inner and (other or above or len(tops) == 1):
            raise InputError(
                f"{folder}: it is not certain which folder is the species in {'/'.join(path[:-1])!r}: sheets lie in "
                f"the folder of their species, or in subfolders of folders named by two words (Zea mays). "
                f"{table}{write.format('')}"
            )
        if _is_generic(path[0]):
            own = _table_in(found)
            raise InputError(
                f"{folder}: its folder {path[0]!r} names no species. Name the folders as the species, or give a table "
                f"(CSV) of file_name and scientificName: ./course tfrecords write --images {where} --labels "
                f"{shlex.quote(str(folder / own)) if own else 'labels.csv'} --out data/mine"
            )


def table_of(folder: Path, out: Path) -> pd.DataFrame:
    """Write a table of a folder of sheets in any layout, for a person to look at: species and split by its folders.

    The species is the innermost folder that is named by two words as one is, else the innermost; an epithet (mays) is
    joined to the genus above it. A folder ...aceae is the family.

    Args:
        folder: see `contents`.
        out: the CSV to write: image_id and file_name (both the path below the folder), scientificName, and where
            folders say so family and split ("train", "validation", "test").

    Returns:
        The table.

    Raises:
        UsageError: `out` is there.
        InputError: there are no images in subfolders, a name is no text, or it is a Darwin Core archive.
    """
    folder, out = Path(folder), Path(out)
    if out.exists():
        raise UsageError(f"{out}: is there already. Name another file.")
    found = contents(folder)
    _refuse_archive(folder, found)
    if not any("/" in name for name in found.images):
        raise InputError(
            f"{folder}: no folders with images in it{_found_instead(folder, found)}. Name the folder above them."
        )
    if no_text := [name for name in found.images if NO_TEXT.search(name)]:
        raise InputError(
            f"{folder}: {no_text[0]!r} has characters that are no text (control characters, or bytes that are not "
            f"UTF-8; {len(no_text)} such names). Rename them."
        )
    warn_of_others(folder, found)
    rows = []
    for name in found.images:
        folders = PurePosixPath(name).parts[:-1]
        parts = [part for part in map(_part, folders) if part]
        species, family = _species_of([each for each in folders if not _part(each)])
        rows.append((name, name, species, family, parts[-1] if parts else ""))
    table = pd.DataFrame(rows, columns=["image_id", "file_name", "scientificName", "family", "split"])
    table = table.drop(columns=[column for column in ("family", "split") if not table[column].any()])
    write_csv(table, out)
    return table


def _species_of(folders: Sequence[str]) -> tuple[str, str]:
    """Name of the species and of the family by the folders above a sheet, from outside to inside; "" if unknown."""
    for each in reversed(folders):
        if found := _INATURALIST.fullmatch(each):
            return found["name"].replace("_", " "), found["family"]
    names = [tidy(each.replace("_", " ")) for each in folders if any(map(str.isalpha, each))]
    names = [name for name in names if not _is_generic(name)]
    family = next((name for name in names if name.endswith("aceae")), "")
    names = [name for name in names if name != family] or names
    if binomial := next((name for name in reversed(names) if _is_binomial(name)), None):
        return binomial, family
    if len(names) > 1 and names[-1].islower() and " " not in names[-2]:
        return f"{names[-2]} {names[-1]}", family
    return (names[-1] if names else ""), family
