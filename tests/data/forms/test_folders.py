"""Folders of sheets in the layouts that people have: read, or refused by their shape; nothing is left out unsaid."""

import csv
import shlex
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from utils.__main__ import main
from utils.data.forms.folders import contents, on_disk, species_sheets, table_of
from utils.data.metadata import read_metadata
from utils.files import InputError, InputWarning


def put(folder: Path, *names: str) -> Path:
    """Small images in a format that goes with their names; other files are text."""
    kinds = {"": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".jp2": "JPEG2000"}
    kinds |= {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".bmp": "BMP"}
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind := kinds.get(path.suffix.lower()):
            Image.new("RGB", (20, 30), (number, 90, 60)).save(path, kind)
        else:
            path.write_text("file_name,scientificName\n")
    return folder


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def species_of(folder: Path) -> dict[str, str]:
    """The species of each file, as read_metadata() says."""
    metadata = read_metadata(folder)
    rows = metadata.annotations.merge(metadata.categories, on="category_id")
    return dict(zip(rows["image_id"], rows["scientificName"], strict=True))


# ---------------------------------------------------------------- what is read, and what is passed over


def test_links_to_folders_and_files_are_followed_and_never_in_circles(tmp_path):
    put(tmp_path / "store", "abies/1.jpg", "abies/deep/2.jpg", "zea.jpg")
    sheets = tmp_path / "sheets"
    link(sheets / "Abies alba", tmp_path / "store" / "abies")
    link(sheets / "Zea mays" / "1.jpg", tmp_path / "store" / "zea.jpg")
    link(sheets / "Zea mays" / "all", sheets)
    link(sheets / "Zea mays" / "here", sheets / "Zea mays")
    link(tmp_path / "store" / "abies" / "up", tmp_path / "store" / "abies")
    with pytest.warns(
        InputWarning, match=r"links to a folder that they lie in: 'Abies alba/up', 'Zea mays/all'"
    ):
        found = species_of(sheets)
    assert found == {
        "Abies alba/1.jpg": "Abies alba",
        "Abies alba/deep/2.jpg": "Abies alba",
        "Zea mays/1.jpg": "Zea mays",
    }


@pytest.mark.parametrize("name", ["Poa annua", "Zea mays/2.jpg"])
def test_a_link_to_what_is_not_there_is_named(tmp_path, name):
    put(tmp_path, "Zea mays/1.jpg")
    link(tmp_path / name, tmp_path / "disk" / "gone")
    with pytest.raises(InputError, match=f"'{name}' is a link to what is not there"):
        read_metadata(tmp_path)


def test_a_link_to_itself_is_one_to_nothing(tmp_path):
    link(tmp_path / "a.jpg", tmp_path / "a.jpg")
    assert contents(tmp_path).broken == ["a.jpg"]


def test_a_species_may_be_linked_twice(tmp_path):
    put(tmp_path / "store", "1.jpg")
    for name in ("Zea mays", "Zea mexicana"):
        link(tmp_path / "sheets" / name, tmp_path / "store")
    assert len(species_of(tmp_path / "sheets")) == 2


def test_images_are_known_by_suffix_in_any_case_or_by_content_and_the_rest_is_counted(tmp_path):
    read = ["a.JPG", "b.jfif", "c.jpe", "d.PNG", "e.tif", "1234567"]
    put(tmp_path, *(f"Zea mays/{name}" for name in read))
    put(tmp_path, "Zea mays/x.webp", "Zea mays/y.webp", "Zea mays/z.gif", "Poa annua/1.jp2", "labels.csv")
    (tmp_path / "Zea mays" / "README").write_text("text")
    (tmp_path / "Abies alba").mkdir()
    with pytest.warns(InputWarning) as told:
        assert sorted(species_of(tmp_path)) == sorted(f"Zea mays/{name}" for name in read)
    first, second = (str(warning.message) for warning in told)
    assert first.startswith(
        f"{tmp_path}: passed over files that are no JPEG, PNG or TIFF by their names: 2 .webp"
    )
    for words in (
        "2 .webp ('Zea mays/x.webp' ...)",
        "1 .gif (",
        "1 .jp2 ('Poa annua/1.jp2')",
        "1 .csv (",
        "1 without suffix",
    ):
        assert words in first
    assert second.endswith("no sheet in 2 of its folders, which are left out: 'Abies alba', 'Poa annua'.")


def test_what_systems_leave_is_passed_over_unsaid(tmp_path, recwarn):
    put(
        tmp_path, "Zea mays/1.jpg", "Zea mays/._1.jpg", "__MACOSX/Zea mays/._1.jpg", "__MACOSX/Zea mays/2.jpg"
    )
    put(
        tmp_path,
        ".DS_Store",
        "Thumbs.db",
        "Zea mays/desktop.ini",
        "Zea mays/@eaDir/1.jpg",
        ".ipynb_checkpoints/3.jpg",
    )
    put(tmp_path, ".Trash-1000/files/4.jpg", "$RECYCLE.BIN/5.jpg")
    assert list(species_of(tmp_path)) == ["Zea mays/1.jpg"]
    assert not [warning for warning in recwarn if warning.category is InputWarning]


@pytest.mark.parametrize("given", ["{}/", "{}/.", "{}/Zea mays/.."])
def test_a_folder_may_be_given_in_any_spelling(tmp_path, given, monkeypatch):
    put(tmp_path, "Zea mays/1.jpg")
    assert species_of(Path(given.format(tmp_path))) == {"Zea mays/1.jpg": "Zea mays"}
    monkeypatch.chdir(tmp_path / "Zea mays")
    assert species_of(Path("..")) == {"Zea mays/1.jpg": "Zea mays"}
    with pytest.raises(InputError, match=r"\.: no folders with images in it \(1 images lie in it directly\)"):
        read_metadata(Path())


# ---------------------------------------------------------------- layouts

FOLDERS_OF_SPECIES = [
    [
        "Zea mays L./1.jpg",
        "Abies_alba/2.jpg",
        "Festuca ovina subsp. guestfalica/3.jpg",
        "Éxample éxamplus/4.jpg",
    ],
    ["Zea mays/2019/1.jpg", "Zea mays/2.jpg", "Abies alba Mill./New York/3.jpg"],
    ["Zea mays/Leaf detail/1.jpg", "Poa annua/Leaf detail/2.jpg"],
    ["Zea mays/Zea mays subsp. mexicana/1.jpg", "Poa annua/2.jpg"],
    ["ABAL/1.jpg", "ZEMA/2.jpg"],
    ["Poaceae/1.jpg", "Pinaceae/2.jpg"],
    ["× Triticosecale rimpaui/lab/1.jpg", "Mentha ×piperita/lab/2.jpg"],
]
FAMILIES, RANKS = ("Abies alba,Pinaceae", "Zea mays,Poaceae"), "00001_Plantae_Tracheophyta_Classis_Ordo_"
SPLIT, DEEP = "are parts of a split", "not certain which folder is the species"
# files, words of the refusal, and what `table` makes of it: species (and family, split) of the first and the last file
OTHERS = [
    (["train/Zea mays/1.jpg", "val/Zea mays/2.jpg"], SPLIT, "Zea mays,train", "Zea mays,validation"),
    (["Training/Zea_mays/1.jpg", "Valid/Zea_mays/2.jpg"], SPLIT, "Zea mays,train", "Zea mays,validation"),
    (["dev/ABAL/1.jpg", "test/ZEMA/2.jpg"], SPLIT, "ABAL,validation", "ZEMA,test"),
    (["Zea mays/train/1.jpg", "Zea mays/validation/2.jpg"], SPLIT, "Zea mays,train", "Zea mays,validation"),
    (["images/train/Zea mays/1.jpg", "images/test/Abies alba/2.jpg"], SPLIT, "Abies alba,test", "Zea mays,train"),
    (["train_images/a a/1.jpg", "test images/b b/1.jpg"], SPLIT, "b b,test", "a a,train"),
    (["Pinaceae/Abies/Abies alba/1.jpg", "Poaceae/Zea/Zea mays/2.jpg"], DEEP, *FAMILIES),
    (["Pinaceae/Abies/alba/1.jpg", "Poaceae/Zea/mays/2.jpg"], DEEP, *FAMILIES),
    (["Poa/annua/1.jpg", "Zea/mays/2.jpg"], DEEP, "Poa annua", "Zea mays"),
    (["Poa/1.jpg", "Zea/mays/2.jpg"], DEEP, "Poa", "Zea mays"),
    (["North America/Zea mays/1.jpg", "Europe/Zea mays/2.jpg"], DEEP, "Zea mays", "Zea mays"),
    (["Herbarium sheets/Abies alba/1.jpg", "Herbarium sheets/Zea mays/2.jpg"], DEEP, "Abies alba", "Zea mays"),
    (["my plants/Abies alba/1.jpg", "our plants/Zea mays/2.jpg"], DEEP, "Abies alba", "Zea mays"),
    (["my plants/ABAL/1.jpg", "my plants/ZEMA/2.jpg"], DEEP, "ABAL", "ZEMA"),
    (["fold_1/Abies alba/1.jpg", "fold_2/Zea mays/2.jpg"], DEEP, "Abies alba", "Zea mays"),
    (["2019/Abies alba/1.jpg", "2020/Zea mays/2.jpg"], DEEP, "Abies alba", "Zea mays"),
    ([f"{RANKS}Pinaceae_Abies_alba/1.jpg", f"{RANKS}Poaceae_Zea_mays/2.jpg"], "iNaturalist", *FAMILIES),
]  # fmt: skip


@pytest.mark.parametrize("names", FOLDERS_OF_SPECIES, ids=lambda names: names[0])
def test_the_first_folder_is_the_species(tmp_path, names):
    put(tmp_path, *names)
    assert species_sheets(tmp_path).images == sorted(names)
    assert set(species_of(tmp_path)) == set(names)


@pytest.mark.parametrize(
    ("names", "words", "first", "last"), OTHERS, ids=lambda value: value[0] if isinstance(value, list) else ""
)
def test_another_layout_is_refused_with_the_commands_that_write_it_right(
    tmp_path, monkeypatch, names, words, first, last
):
    put(tmp_path / "my sheets", *names)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as told:
        read_metadata(Path("my sheets"))
    make_table, write = str(told.value).split(": ./course ")[-1].split(", then ./course ")
    done = CliRunner().invoke(main, shlex.split(make_table))
    assert done.exit_code == 0, done.output
    with Path("labels.csv").open(newline="") as file:
        rows = [",".join(row[2:]) for row in csv.reader(file)]
    assert (rows[1], rows[-1]) == (first, last)
    if names in (OTHERS[0][0], OTHERS[6][0]):  # one of each kind, since writing takes its time
        done = CliRunner().invoke(main, [*shlex.split(write), "--size", "16"])
        assert done.exit_code == 0, done.output
        assert (Path("data/mine") / "split.csv").is_file() == ("split" in rows[0])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["images/1.jpg", "labels.csv"], ["'images' names no species", "--labels", "labels.csv"]),
        (["Zea mays/1.jpg", "Photos/2.jpg"], ["'Photos' names no species", "Name the folders"]),
        (["1.jpg", "labels.csv"], ["1 images lie in it directly", "labels.csv' their table"]),
        (["Zea mays/1.webp"], ["no folders with images", "1 other files, as 'Zea mays/1.webp'"]),
        (["occurrence.txt", "images/1.jpg"], ["Darwin Core archive (occurrence.txt)", "--labels labels.csv"]),
        (["meta.xml", "1.jpg"], ["Darwin Core archive (meta.xml)"]),
    ],
)  # fmt: skip
def test_a_folder_whose_folders_name_no_species_is_refused_by_its_shape(tmp_path, names, words):
    put(tmp_path, *names)
    with pytest.raises(InputError) as told:
        read_metadata(tmp_path)
    for word in [str(tmp_path), *words]:
        assert word in str(told.value)


def test_a_table_is_never_written_over_another_and_needs_images(tmp_path):
    put(tmp_path / "sheets", "labels.csv", "Zea mays/1.jpg")
    with pytest.raises(InputError, match=r"labels\.csv: is there already"):
        table_of(tmp_path / "sheets", tmp_path / "sheets" / "labels.csv")
    put(tmp_path / "other", "1.jpg")
    with pytest.raises(InputError, match="no folders with images"):
        table_of(tmp_path / "other", tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("name", ["a\x1b[31m.jpg", "a\rb.jpg", "a\nb.jpg", "a\udcff.jpg"])
def test_a_file_whose_name_is_no_text_is_named_before_a_table_is_written(tmp_path, name):
    try:
        put(tmp_path / "sheets", f"Zea mays/{name}")
    except OSError:
        pytest.skip("this file system takes no such name")
    for call in (
        lambda: table_of(tmp_path / "sheets", tmp_path / "t.csv"),
        lambda: read_metadata(tmp_path / "sheets"),
    ):
        with pytest.raises(InputError, match="characters that are no text") as told:
            call()
        assert repr(f"Zea mays/{name}") in str(told.value)
        assert "within the image folder" not in str(told.value)
    assert not (tmp_path / "t.csv").exists()


# ---------------------------------------------------------------- names of a table and files


def test_accents_match_in_either_normal_form_and_nothing_else_does(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Éra/ñandú.jpg") for form in ("NFC", "NFD"))
    put(tmp_path, apart, "b.jpg")
    if not (tmp_path / composed).is_file():  # a Mac's disk finds both itself
        assert on_disk(tmp_path, [composed, "b.jpg"]) == ([apart, "b.jpg"], {})
        _, missing = on_disk(tmp_path, [composed, apart])
        assert missing == {composed: ""}, "two rows are not one file"
    assert on_disk(tmp_path, [apart]) == ([apart], {})


def test_a_name_longer_than_any_file_has_is_not_there(tmp_path):
    put(tmp_path, "a.jpg")
    assert on_disk(tmp_path, ["x" * 5000 + ".jpg", "a.jpg"])[1] == {"x" * 5000 + ".jpg": ""}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Sub/A001.JPG", "sub/a001.jpg"),
        ("sub/a001", "sub/a001.jpg"),
        ("sub/a001.png", "sub/a001.jpg"),
        ("sheets/sub/a001.jpg", "sub/a001.jpg"),
        ("a001.jpg", "sub/a001.jpg"),
        ("a001", "sub/a001.jpg"),
        ("NY.0123", "NY.0123.jpg"),
        ("Zea%20mays.jpg", ""),
        ("Zea_mays.jpg", "Zea mays.jpg"),
        ("sub/a002.jpg", ""),
        ("b.jpg", ""),
        (".", ""),
    ],
)
def test_the_nearest_file_is_named_and_not_taken(tmp_path, name, nearest):
    put(tmp_path, "sub/a001.jpg", "NY.0123.jpg", "Zea mays.jpg")
    if (tmp_path / name).is_file():
        pytest.skip("this disk finds it")
    assert on_disk(tmp_path, [name]) == ([name], {name: nearest})
    if nearest:
        assert on_disk(tmp_path, [name, nearest])[1] == {name: ""}, "another row names it"
