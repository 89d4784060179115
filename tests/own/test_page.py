"""The page of predictions: what a browser gets, read back with a parser."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chromium import PROGRAM, chromium
from PIL import Image

from utils.config import load_profile
from utils.data.delimited import write_csv
from utils.data.labels import LabelMap
from utils.evaluation.predict import Predictions
from utils.files import InputError
from utils.own import page as module
from utils.own.answers import (
    DOUBTFUL,
    HELD_OUT,
    NO_RANK,
    NO_SCORE,
    STRANGE,
    SURE,
    Answers,
    Judged,
    Measured,
    References,
)
from utils.own.page import Pages, RunFacts, overlay, read_facts
from utils.own.unknown import Space

VOID = {"meta", "img", "br", "link"}
MARKUP = '<script>alert(1)</script><img src=x onerror="alert(2)">'


class Read(HTMLParser):
    """Tags in order, images, links, and the text; it fails when an element is not closed where it must be."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.images, self.links, self.open, self.text = [], [], [], [], ""
        self.styled = {"em": [], "h1": [], "h2": [], "span": [], "th": [], "figcaption": []}
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "img":
            self.images.append(dict(attributes))
        if tag == "a":
            self.links.append(dict(attributes)["href"])
        if tag not in VOID:
            self.open.append(tag)
            if tag in self.styled:
                self.styled[tag].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        for tag in self.styled.keys() & set(self.open):
            self.styled[tag][-1] += data


@pytest.fixture
def facts(six_species) -> RunFacts:
    profile = load_profile("smoke")
    return RunFacts("mine", profile, six_species, 0.6123, np.array([40, 5, 60, 1, 19, 20]))


def judged(*names: str, first: float = 0.7, status: str = DOUBTFUL, rank: int = NO_RANK) -> Judged:
    n = len(names)
    found = Predictions(
        np.array(names),
        np.tile(np.array([[5, 0]], np.int32), (n, 1)),
        np.tile(np.array([[first, 0.0004]], np.float32), (n, 1)),
        np.full(n, -1, np.int32),
    )
    taxon = ("Rubus idaeus", "Rubus", "Rosaceae", "")[rank]
    nothing = np.full(n, np.nan)
    return Judged(found, np.full(n, rank), np.full(n, taxon), np.full(n, 0.97), nothing, np.full(n, status))


def worth(labels: LabelMap, **settings) -> Answers:
    """Of 40 held-out sheets, all of species 5, the last ten answered 0; two are strange."""
    right = np.repeat([[True] * 3, [False] * 3], (30, 10), axis=0)
    measured = Measured(
        HELD_OUT,
        np.full(40, 5, np.int32),
        np.where(right[:, 0], 5, 0).astype(np.int32),
        np.tile(np.array([[0.8, 0.96, 0.99]], np.float32), (40, 1)),
        right,
        np.arange(40, dtype=np.float32),
    )
    space = Space(
        np.zeros(2, np.float32), np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.arange(2)
    )
    references = References(np.array(["r"]), np.array([5]), np.ones((1, 2), np.float16))
    found = Answers(
        labels,
        1.0,
        1 / 41,
        37.0,
        space,
        references,
        measured,
        (30, 40, 1),
        None,
        {"invented": False, "licences": []},
    )
    return replace(found, **settings)


def sheets(n: int) -> list[Image.Image]:
    return [Image.new("RGB", (40, 60), (200, 200, number)) for number in range(n)]


def make(path: Path, facts: RunFacts, *batches: Judged, left_out=None, heat: float = 1.0) -> list[Path]:
    with Pages(path, facts, "new_sheets") as pages:
        for batch in batches:
            heatmaps = np.full((len(batch), 8, 8), heat, np.float32)
            pages.add(batch, sheets(len(batch)), heatmaps, 0.9)
        return pages.write(left_out or {})


def test_a_botanist_is_told_what_the_answers_are_worth(tmp_path, facts):
    path = tmp_path / "p.html"
    known = replace(facts, worth=worth(facts.labels))
    made = make(path, known, judged("a.jpg", status=SURE, rank=1), judged("b.jpg", first=0.49))
    assert made == [path]
    page = Read(path)
    assert page.styled["h1"] == ["Predicted species of 2 sheets"]
    assert page.styled["h2"] == ["a.jpg sure", "b.jpg doubtful"]
    for told in (
        "model mine: EfficientNetV2B0 at 64 × 64 pixels, trained on 145 images",
        "guesses among these 6 species and no others",
        "macro-F1 0.612",
        "30 of 40 held-out sheets got the right species as the first answer",
        "sure 1 of 2 here",
        "doubtful 1 of",
        "the surest they can be is 97.6%",
        "2 of 40 sheets of known species were called so by mistake",
        "how many sheets of other species are not noticed was not measured",
        "Sure of the genus: Rubus, 97%",
        "genus3895%79%",  # answered at, sheets, share, right among them
        "50%95%21%",  # named from a probability of, share, wrong
        "The plants that it was trained on are invented",
        "at most 19 training images (3 of 6)",
    ):
        assert told in " ".join(page.text.split()), told
    assert page.text.count("70%") == 2 and page.text.count("below 0.1%") == 2  # once in the overview
    assert page.text.count("20") and page.text.count("40")


def test_what_the_answers_are_worth_is_told_where_it_is_known(tmp_path, facts):
    path = tmp_path / "p.html"
    make(path, facts, judged("a.jpg", status=NO_SCORE))
    text = Read(path).text
    assert "model without a score What the answers are worth was never measured" in text
    assert "Measured:" not in text and "can be left to the machine" not in text
    shards = load_profile("sheets")
    few = worth(facts.labels, limit=np.inf, doubt=0.1, passed=(7, 90))
    make(path, replace(facts, profile=shards, worth=few), judged("a.jpg"))
    text = Read(path).text
    assert "too few for an answer to be called sure" in text and "invented" not in text
    assert "No sheet is called unlike anything: 40 held-out sheets are too few" in text
    make(path, replace(facts, worth=replace(few, limit=30.0)), judged("a.jpg", status=STRANGE))
    text = Read(path).text
    assert "of 90 sheets of species left out on purpose 7 were not noticed" in text
    assert "Unlike anything that the model was trained on: the names below" in text


def test_sheets_are_grouped_by_their_folders(tmp_path, facts):
    path = tmp_path / "p.html"
    make(path, facts, judged("z.jpg", "a/1.jpg"), judged("a/2.jpg", "b/c/3.jpg"))
    headings = [words.partition(" doubtful")[0] for words in Read(path).styled["h2"]]
    assert headings == ["In the folder itself", "z.jpg", "a", "a/1.jpg", "a/2.jpg", "b/c", "b/c/3.jpg"]


@pytest.mark.long
@pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")
def test_long_names_do_not_make_the_page_wider_than_a_telephone(tmp_path, facts):
    make(tmp_path / "p.html", facts, judged("NY_0002032600020326000203260002032600020326.jpg"))
    with chromium() as tab:
        tab.show(390, mobile=True)
        tab.open((tmp_path / "p.html").as_uri())
        tab.wait("document.images.length > 0")
        tab.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert tab.ask("document.documentElement.scrollWidth") == 390


def test_the_rarest_species_are_marked(tmp_path, facts):
    few = judged("a.jpg")
    few.predictions.classes[:] = (1, 4)
    make(tmp_path / "p.html", facts, few)
    table = Read(tmp_path / "p.html").text.partition("speaks for")[2]
    assert table.count("few") == 2 and "5 few" in table and "19 few" in table


def test_what_is_not_known_is_said_or_left_out(tmp_path, facts):
    bare = RunFacts("mine", facts.profile, facts.labels, None, None)
    make(tmp_path / "p.html", bare, judged("a.jpg"), heat=0.0)
    text = Read(tmp_path / "p.html").text
    assert "no score on held-out sheets" in text and "macro-F1" not in text
    assert "training images" not in text and "few" not in text
    assert "no part speaks for" in text
    useless = RunFacts("mine", facts.profile, facts.labels, 0.01, None)
    make(tmp_path / "p.html", useless, judged("a.jpg"))
    assert "of no use" in Read(tmp_path / "p.html").text


def test_a_score_over_part_of_the_species_is_told_as_such(tmp_path, facts):
    part = replace(facts, macro_f1=0.3, held_out=(20, 3))
    make(tmp_path / "p.html", part, judged("a.jpg"))
    text = Read(tmp_path / "p.html").text
    assert "On 20 sheets of 3 species held out of its training the model reached macro-F1 0.300" in text
    assert "0.5: all, always" in text and "the other 3 species is not known" in text
    make(tmp_path / "p.html", replace(part, macro_f1=0.049), judged("a.jpg"))
    assert "of no use" in Read(tmp_path / "p.html").text


def test_text_of_files_and_labels_is_escaped(tmp_path, facts):
    labels = LabelMap(
        names=np.array([f"Rosa {MARKUP}", "Rubus idaeus"]),
        category_ids=np.array([0, 1]),
        genera=np.array([MARKUP, "Rubus"]),
        families=np.array([MARKUP, "&amp;"]),
    )
    odd = RunFacts(MARKUP, facts.profile, labels, 0.5, np.array([3, 30]))
    named = Predictions(
        np.array([f"x/{MARKUP}.jpg"]),
        np.array([[0, 1]], np.int32),
        np.array([[0.6, 0.4]], np.float32),
        np.array([-1], np.int32),
    )
    with Pages(tmp_path / "p.html", odd, MARKUP) as pages:
        answer = replace(judged("x", status=SURE, rank=0), predictions=named, taxon=np.array([MARKUP]))
        pages.add(answer, sheets(1), np.ones((1, 8, 8), np.float32), 1.0)
        pages.write({MARKUP: MARKUP})
    page = Read(tmp_path / "p.html")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "link"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.images)
    assert len(page.images) == 2
    assert f"x/{MARKUP}.jpg" in page.styled["h2"][1], "it is shown as it is"
    assert page.text.count(MARKUP) >= 7 and "&amp;" in page.text
    assert f"Sheet x/{MARKUP}.jpg" == page.images[0]["alt"]


def test_names_are_in_italics_and_authors_are_not(tmp_path, facts):
    names = np.array(["Carex nigra var. alba (L.) Reichard", *facts.labels.names[1:]])
    labels = LabelMap(names, facts.labels.category_ids, facts.labels.genera, facts.labels.families)
    make(tmp_path / "p.html", RunFacts("m", facts.profile, labels, None, None), judged("a.jpg"))
    page = Read(tmp_path / "p.html")
    assert {"Carex nigra", "alba", "Rubus idaeus"} == set(page.styled["em"])
    assert "Carex nigra var. alba (L.) Reichard" in page.styled["th"]


def test_every_picture_has_words_a_size_and_its_own_bytes(tmp_path, facts):
    make(tmp_path / "p.html", facts, judged("a.jpg", "b.jpg"))
    images = Read(tmp_path / "p.html").images
    assert [image["alt"] for image in images] == [
        "Sheet a.jpg",
        "Sheet a.jpg: what speaks for Rubus idaeus",
        "Sheet b.jpg",
        "Sheet b.jpg: what speaks for Rubus idaeus",
    ]
    for image in images:
        with Image.open(BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as picture:
            assert (picture.format, picture.size) == ("JPEG", (40, 60))
        assert (image["width"], image["height"], image["loading"]) == ("40", "60", "lazy")


def test_nothing_comes_from_elsewhere_and_nothing_runs(tmp_path, facts):
    make(tmp_path / "p.html", facts, judged("a.jpg"))
    page = Read(tmp_path / "p.html")
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "http:" not in page.text and "url(" not in path_text(tmp_path / "p.html")


def path_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_many_sheets_are_spread_over_linked_pages(tmp_path, facts, monkeypatch):
    monkeypatch.setattr(module, "SHEETS_A_PAGE", 2)
    path = tmp_path / "my sheets.html"
    batches = [judged("1.jpg", "2.jpg", "3.jpg"), judged("4.jpg", "5.jpg")]
    pages = make(path, facts, *batches)
    assert [page.name for page in pages] == ["my sheets.html", "my sheets-2.html", "my sheets-3.html"]
    assert sorted(tmp_path.iterdir()) == sorted(pages)
    read = [Read(page) for page in pages]
    assert [page.styled["h2"] for page in read] == [
        [f"{number}.jpg doubtful" for number in numbers] for numbers in ((1, 2), (3, 4), (5,))
    ]
    assert read[1].styled["h1"] == ["Predicted species of 5 sheets, page 2 of 3"]
    for page in read:
        elsewhere = {link for link in page.links if not link.startswith("#")}
        assert len(elsewhere) == 2
        assert elsewhere < {"./my%20sheets.html", "./my%20sheets-2.html", "./my%20sheets-3.html"}
        ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
        assert {link[1:] for link in page.links if link.startswith("#")} == ids


def test_pages_of_an_earlier_call_go_and_foreign_files_stay(tmp_path, facts, monkeypatch):
    monkeypatch.setattr(module, "SHEETS_A_PAGE", 1)
    path = tmp_path / "p.html"
    make(path, facts, judged("1.jpg", "2.jpg", "3.jpg"))
    (tmp_path / "p-4.html").write_text("my own")
    assert make(path, facts, judged("1.jpg")) == [path]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p-4.html", "p.html"]


def test_a_page_is_replaced_only_when_all_is_predicted(tmp_path, facts):
    path = tmp_path / "p.html"
    path.write_text("earlier")
    with pytest.raises(RuntimeError), Pages(path, facts, "new_sheets") as pages:
        pages.add(judged("a.jpg"), sheets(1), np.ones((1, 8, 8), np.float32), 0.9)
        raise RuntimeError
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]


def test_files_that_were_left_out_are_listed(tmp_path, facts):
    make(tmp_path / "p.html", facts, judged("a.jpg"), left_out={"b.jpg": "the file is empty"})
    page = Read(tmp_path / "p.html")
    assert "1 file left out" in page.text and "b.jpgthe file is empty" in page.text


def test_the_heat_lies_on_the_part_that_the_model_sees():
    sheet = Image.new("RGB", (100, 200), (90, 90, 90))
    heat = np.zeros((8, 8), np.float32)
    heat[:4] = 1
    pixels = np.asarray(overlay(sheet, heat, 0.9)).astype(int)
    assert (pixels[:10] == 90).all() and (pixels[-10:] == 90).all()
    assert (pixels[:, :5] == 90).all() and (pixels[:, -5:] == 90).all()
    assert pixels[15, 50].sum() > 90 * 3 > pixels[180, 50].sum()
    assert np.asarray(sheet).max() == 90, "the sheet itself stays"
    assert np.asarray(overlay(sheet, heat, 1.0))[0, 0].sum() > 90 * 3


def test_a_name_that_turns_its_direction_turns_nothing_else(tmp_path, facts):
    make(tmp_path / "p.html", facts, judged("a\u202egpj.jpg"))
    page = path_text(tmp_path / "p.html")
    assert page.count("<bdi>a\u202egpj.jpg</bdi>") == 2
    assert re.sub(r'<bdi>.*?</bdi>|alt="[^"]*"', "", page, flags=re.DOTALL).count("\u202e") == 0


def test_words_are_dark_enough_to_read(tmp_path, facts):
    """At least 4.5 to 1 on white, as WCAG 2 asks for."""
    make(tmp_path / "p.html", facts, judged("a.jpg"))
    style = path_text(tmp_path / "p.html").partition("<style>")[2].partition("</style>")[0]
    colours = re.findall(r"[{; ]color: #(\w+)", style)
    assert len(colours) > 4
    for colour in colours:
        colour = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
        parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminance = np.dot(linear, (0.2126, 0.7152, 0.0722))
        assert 1.05 / (luminance + 0.05) >= 4.5, colour


def run_folder(folder: Path, labels: LabelMap, scores: str, counts: str | None = None) -> Path:
    profile = load_profile("smoke")
    (folder / f"{profile.run_name}_configs.json").write_text(
        '{"run": {"validation_images": 9, "validation_species": 3}}'
    )
    (folder / f"{profile.run_name}.csv").write_text(f"epoch,val_f1_score\n{scores}")
    if counts is not None:
        (folder / "training_images.csv").write_text("scientificName,images\n" + counts)
    return folder


def test_facts_are_read_from_what_a_run_leaves(tmp_path, six_species):
    rows = "".join(f'"{name}",{number}\n' for number, name in enumerate(six_species.names))
    run = run_folder(tmp_path, six_species, "1,0.2\n2,0.5\n3,0.4\n4,nan\n5,\n", rows)
    facts = read_facts(run, load_profile("smoke"), six_species)
    assert facts.macro_f1 == 0.5 and facts.name == tmp_path.name and facts.held_out == (9, 3)
    assert facts.train_images.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_run_of_before_these_files_has_none(tmp_path, six_species):
    profile = load_profile("smoke")
    (tmp_path / f"{profile.run_name}_configs.json").write_text('{"run": {"validation_images": 9}}')
    facts = read_facts(tmp_path, profile, six_species)
    assert facts.macro_f1 is None and facts.train_images is None and facts.held_out is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        *(
            ("csv", f"epoch,val_f1_score\n1,{score}\n", "'val_f1_score' cannot be read")
            for score in ("5", "-1", "x")
        ),
        ("csv", "epoch,val_f1_score\n1,inf\n", "'val_f1_score' cannot be read"),
        ("csv", "[1]", "no column 'val_f1_score'"),
        ("csv", 'epoch,val_f1_score\n1,"' + "1" * 20_000_000, "limit"),
        *(("images", f"Zea mays,{count}\n", "'images' cannot be read") for count in ("-1", "1.5", "9" * 30)),
        ("images", "Zea mays,\0\n", "NUL"),
        (
            "configs",
            '{"run": {"validation_images": "<b>", "validation_species": 3}}',
            "not the settings of a run",
        ),
    ],
    ids=lambda value: value[:60],
)
def test_damaged_facts_are_named(tmp_path, six_species, name, content, words):
    run, profile = run_folder(tmp_path, six_species, "1,0.2\n"), load_profile("smoke")
    file = {"csv": f"{profile.run_name}.csv", "configs": f"{profile.run_name}_configs.json"}
    path = run / file.get(name, "training_images.csv")
    path.write_text(f"scientificName,images\n{content}" if name == "images" else content)
    with pytest.raises(InputError, match=re.escape(path.name)) as told:
        read_facts(run, profile, six_species)
    assert words in str(told.value)


def test_counts_of_names_that_are_written_as_no_formula(tmp_path, six_species):
    six_species = replace(six_species, names=np.array(["=cmd Zea", *six_species.names[1:]]))
    run = run_folder(tmp_path, six_species, "1,0.2\n")
    counts = pd.DataFrame({"scientificName": six_species.names, "images": range(6)})
    write_csv(counts, run / "training_images.csv")
    assert read_facts(run, load_profile("smoke"), six_species).train_images.tolist() == [*range(6)]


@pytest.mark.parametrize("counts", ["Zea mays,3\n", "Zea mays\n"])
def test_counts_of_other_species_are_named(tmp_path, six_species, counts):
    run = run_folder(tmp_path, six_species, "1,0.2\n", counts)
    with pytest.raises(InputError, match=r"training_images\.csv"):
        read_facts(run, load_profile("smoke"), six_species)
