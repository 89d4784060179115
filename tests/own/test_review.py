"""A review without its page: orders, decisions on disk, bad inputs, and tables that `metadata` reads."""

import csv
import json
import multiprocessing
import os

import pytest
from click.testing import CliRunner
from PIL import Image

from utils.__main__ import main
from utils.data.metadata import read_metadata
from utils.files import InputError
from utils.own.decisions import ACCEPT, ASIDE, CORRECT, DOUBT, UNDO, Decisions
from utils.own.review import Review, read_predictions
from utils.own.review_page import copy_of
from utils.own.reviewed import results, write_review

PARTS = ("species", "genus", "family", "probability")
SHEETS = [  # file, status, first species, its probability
    ("b/1.jpg", "sure", "Rosa alba", "0.9900"),
    ("a/2.jpg", "doubtful", "Aster novi", "0.4000"),
    ("a/3.jpg", "unlike anything", "Rosa canina", "0.7000"),
    ("b/4.jpg", "doubtful", "Aster novi", "0.6000"),
]
SECOND = ("Rosa gallica", "Rosa", "Rosaceae", "0.0050")
FAMILIES = {"Rosa": "Rosaceae", "Aster": "Asteraceae"}


def predictions_of(sheets, path):
    header = ["image_id", "file_name", "status", *(f"{part}_{n}" for n in (1, 2) for part in PARTS)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, (name, status, species, probability) in enumerate(sheets):
            genus = species.split(" ")[0]
            writer.writerow(
                [f"K{number}", name, status, species, genus, FAMILIES.get(genus, ""), probability, *SECOND]
            )
    return path


@pytest.fixture
def table(tmp_path):
    for name, *_ in SHEETS:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 40), "green").save(tmp_path / "images" / name)
    return predictions_of(SHEETS, tmp_path / "p.csv")


def review_of(table, by="A. Curator"):
    decisions = Decisions(table.with_name("p.decisions.jsonl")).open()
    return Review(read_predictions(table), table.parent / "images", decisions, by)


def test_sheets_come_in_four_orders_and_by_filters(table):
    review = review_of(table)
    assert review.view("least") == [2, 1, 3, 0]
    assert review.view("genus") == [1, 3, 0, 2]
    assert review.view("folder") == [1, 2, 0, 3]
    assert review.view("listed") == [0, 1, 2, 3]
    assert review.view("least", status="doubtful") == [1, 3]
    assert review.view("listed", text="ROSACEAE") == [0, 2]
    review.decide(1, ASIDE)
    assert review.view("least", "open") == [2, 3, 0]
    assert review.view("least", "aside") == review.view("least", "decided") == [1]
    assert review.progress() | {"seconds": 0} == {"done": 1, "total": 4, "left": 3, "moved": 0, "seconds": 0}


def test_every_decision_is_a_line_and_the_last_that_was_not_undone_counts(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    review.decide(0, CORRECT, name="Rosa nova", remarks="leaf\nbelow")
    review.decide(1, DOUBT, qualifier="sp.")
    review.decide(1, UNDO)
    lines = [json.loads(line) for line in review.decisions.path.read_text().splitlines()]
    assert [line["do"] for line in lines] == [ACCEPT, CORRECT, DOUBT, UNDO]
    assert all(line["by"] == "A. Curator" and line["at"].endswith("+00:00") for line in lines)
    again = review_of(table).decisions
    found = again.of("b/1.jpg")
    assert (found.name, found.genus, found.family, found.new) == ("Rosa nova", "Rosa", "Rosaceae", True)
    assert found.remarks == "leaf below" and again.of("a/2.jpg") is None
    review.decide(0, UNDO)
    again.refresh()
    assert again.of("b/1.jpg").do == ACCEPT
    review.decide(0, UNDO)
    with pytest.raises(InputError, match="nothing to undo"):
        review.decide(0, UNDO)


def test_names_are_completed_by_their_words(table):
    review = review_of(table)
    assert review.complete("rosa") == ["Rosa alba", "Rosa canina", "Rosa gallica"]
    assert review.complete("ro ca") == review.complete("canina") == ["Rosa canina"]
    assert review.complete("(") == review.complete(" ") == []


def test_accepted_and_corrected_sheets_are_labels_and_doubts_are_not(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    review.decide(1, CORRECT, name="Rosa gallica")
    review.decide(2, DOUBT, qualifier="cf.")
    review.decide(3, DOUBT, qualifier="sp.")
    assert write_review(review.decisions, review.sheets) == (2, 2)
    labels, others = results(review.decisions.path)
    found = read_metadata(labels)
    names = found.categories.set_index("category_id")["scientificName"]
    images = found.images.merge(found.annotations, on="image_id")
    species = images["category_id"].map(names)
    assert dict(zip(images["file_name"], species, strict=True)) == {
        "b/1.jpg": "Rosa alba",
        "a/2.jpg": "Rosa gallica",
    }
    with others.open(encoding="utf-8") as file:
        cf, genus_only = csv.DictReader(file)
    assert (cf["scientificName"], cf["identificationQualifier"]) == ("Rosa canina", "cf. canina")
    assert (genus_only["scientificName"], genus_only["identificationQualifier"]) == ("Aster", "sp.")
    assert genus_only["verbatimIdentification"] == "Aster novi" and genus_only["catalogNumber"] == "K3"


@pytest.mark.parametrize(
    ("typed", "name", "new"),
    [
        ("Salix alba L.", "Salix alba L.", False),
        ("salix  ALBA l.", "Salix alba L.", False),
        ("salix alba", "Salix alba L.", False),
        ("Salix alba Mill.", "Salix alba Mill.", True),
        ("Mentha x piperita", "Mentha ×piperita", False),
        ("Salix", "Salix", True),
    ],
)
def test_a_typed_name_is_that_of_the_label_map_where_only_its_spelling_differs(table, typed, name, new):
    taxa = {"Salix alba L.": ("Salix", "Salicaceae"), "Mentha ×piperita": ("Mentha", "Lamiaceae")}
    review = Review(read_predictions(table), table.parent / "images", review_of(table).decisions, "x", taxa)
    decision = review.decide(0, CORRECT, name=typed)
    assert (decision.name, decision.new) == (name, new)


@pytest.mark.parametrize(
    ("do", "name", "said"),
    [
        (CORRECT, "", "names no taxon"),
        (CORRECT, "unknown", "'unknown' names no taxon"),
        (CORRECT, "-2+3", "names no taxon"),
        (DOUBT, "indet.", "names no taxon"),
        (CORRECT, "Rosa cf. alba", "is in doubt. Type the name alone, then press Esc and d"),
        (CORRECT, "x" * 2001, "more than 2000 characters"),
    ],
)
def test_what_would_be_no_label_is_no_name_for_a_sheet(table, do, name, said):
    review = review_of(table)
    with pytest.raises(InputError, match=said):
        review.decide(0, do, name=name, qualifier="cf.")
    assert review.decisions.path.read_bytes() == b""


def test_a_doubt_has_no_authors_and_a_line_by_hand_is_filled_up(table):
    review = review_of(table)
    review.decide(0, DOUBT, qualifier="aff.", name="Rosa alba subsp. minor (L.) Mill.")
    line = {"do": "aside", "file": "a/2.jpg", "by": "x", "at": "20260203T101112"}
    with review.decisions.path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    write_review(review.decisions, review.sheets)
    with results(review.decisions.path)[1].open(encoding="utf-8") as file:
        doubt, aside, *_ = csv.DictReader(file)
    assert doubt["identificationQualifier"] == "aff. alba subsp. minor"
    assert (aside["dateIdentified"], aside["catalogNumber"]) == ("2026-02-03", "K1")


@pytest.mark.parametrize(
    "text",
    [
        "=HYPERLINK(1)",
        "+1+cmd",
        "-2+3 a",
        "@SUM(A1)",
        "'=1 a",
        "<img src=x onerror=alert(1)>",
        "Crępis ×žlutá 菊",
        'a "quoted", name',
        "x" * 300,
    ],
)
def test_any_text_is_kept_and_reads_back_as_it_was(table, text):
    from utils.data.delimited import read_table

    review = review_of(table)
    review.decide(0, CORRECT, name=text, remarks=text)
    assert review_of(table).decisions.of("b/1.jpg").name == text
    write_review(review.decisions, review.sheets)
    labels, _ = results(review.decisions.path)
    (row,) = read_table(labels, ["scientificName", "identificationRemarks"], way_out="").to_numpy()
    assert row.tolist() == [text, text]
    assert len(read_metadata(labels).images) == 1
    with labels.open(encoding="utf-8") as file:
        assert next(csv.DictReader(file))["scientificName"][0] not in "=+-@"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (b'{"do": "accept", "file": "a/2', "line 2 does not count: not a whole line of JSON"),
        (b"\xff\xfe\n", "line 2 does not count: not a whole line of JSON"),
        (b"[1]\n", "line 2 does not count: has no decision and file"),
        (b'{"do": "maybe", "file": "a/2.jpg"}\n', "has no decision and file"),
        (
            b'{"do": "accept", "file": "a/2.jpg", "name": 3, "by": "x", "at": "2026-01-01"}\n',
            "name is missing",
        ),
        (b'{"do": "accept", "file": "a/2.jpg", "by": "x", "at": "2026-01-01"}\n', "has no name"),
        (
            b'{"do": "accept", "file": "a/2.jpg", "name": "unknown", "by": "x", "at": "2026-01-01"}\n',
            "has no name of a taxon",
        ),
        (b'{"do": "aside", "file": "a/2.jpg", "remarks": "\\ud800"}\n', "not a whole line of JSON"),
        (100_000 * b"[" + b"\n", "not a whole line of JSON"),
        (b'{"do": "aside", "file": "a/2.jpg", "by": "x", "at": "today"}\n', "line 2 does not count: Invalid"),
    ],
)
def test_a_damaged_line_is_told_and_no_other_is_lost(table, after, said):
    review = review_of(table)
    review.decide(0, ACCEPT)
    with review.decisions.path.open("ab") as file:
        file.write(after)
    before = review.decisions.path.read_bytes()
    review = review_of(table)
    (problem,) = review.decisions.problems
    assert said in problem and str(review.decisions.path) in problem
    review.decide(3, ASIDE)
    again = review_of(table).decisions
    assert again.of("b/1.jpg").do == ACCEPT and again.of("b/4.jpg").do == ASIDE
    assert again.path.read_bytes().startswith(before), "nothing in the file is changed"


def test_a_mark_that_an_editor_puts_first_costs_no_decision(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    path = review.decisions.path
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert review_of(table).decisions.of("b/1.jpg") and not review_of(table).decisions.problems


def test_a_file_that_vanishes_is_told_and_nothing_is_written_in_its_place(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    write_review(review.decisions, review.sheets)
    labels, path = results(review.decisions.path)[0], review.decisions.path
    before = labels.read_bytes()
    path.rename(path.with_suffix(".kept"))
    for act in (lambda: review.decide(1, ACCEPT), lambda: write_review(review.decisions, review.sheets)):
        with pytest.raises(InputError, match="cannot be read any more"):
            act()
    assert not path.exists() and labels.read_bytes() == before
    path.with_suffix(".kept").rename(path)
    review.decide(1, ACCEPT)
    assert len(review_of(table).decisions.counting) == 2


def test_a_whole_last_line_without_its_end_counts(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    path = review.decisions.path
    path.write_bytes(path.read_bytes()[:-1])
    review = review_of(table)
    review.decide(1, ACCEPT)
    assert not review.decisions.problems and len(review_of(table).decisions.counting) == 2


def test_a_file_that_is_edited_while_it_is_open_is_read_anew(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    review.decide(1, ACCEPT)
    lines = review.decisions.path.read_bytes().splitlines(keepends=True)
    review.decisions.path.write_bytes(lines[1] + lines[0].replace(b"Rosa alba", b"Rosa alba subsp. minor"))
    review.decide(3, ASIDE)
    assert review.decisions.of("b/1.jpg").name == "Rosa alba subsp. minor"
    assert review.decisions.of("b/4.jpg").do == ASIDE and not review.decisions.problems
    path = review.decisions.path  # an edit that leaves the length and the last line
    path.write_bytes(path.read_bytes().replace(b"minor", b"major"))
    write_review(review.decisions, review.sheets)
    assert "subsp. major" in results(path)[0].read_text()


def _decide(table, by):
    review = review_of(table, by)
    for _ in range(100):
        review.decide(0 if by == "x" else 1, ACCEPT)


def test_two_tabs_on_one_file_lose_no_line(table):
    of = multiprocessing.get_context("fork")
    both = [of.Process(target=_decide, args=(table, by)) for by in "xy"]
    for each in both:
        each.start()
    for each in both:
        each.join()
    decisions = review_of(table).decisions
    assert not decisions.problems and [len(each) for each in decisions.counting.values()] == [100, 100]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image_id,species_1\n1,Rosa\n", "no column 'file_name'"),
        (
            "image_id,file_name,species_1,genus_1,family_1,probability_1\n1,a.jpg,Rosa alba,Rosa,,high\n",
            "no number",
        ),
        (
            "image_id,file_name,species_1,genus_1,family_1,probability_1\n1,a.jpg,Rosa alba,Rosa,,nan\n",
            "no number from 0 to 1",
        ),
        (
            "image_id,file_name,species_1,genus_1,family_1,probability_1\n1,a.jpg,Rosa alba,Rosa,,9912\n",
            "'9912', no number",
        ),
        ("image_id,file_name,species_1,genus_1,family_1,probability_1\n1,,Rosa alba,,,1\n", "no file_name"),
        ("image_id,file_name,species_1,genus_1,family_1,probability_1\n1,a.jpg,,Rosa,,1\n", "no species_1"),
        (
            "image_id,file_name,species_1,genus_1,family_1,probability_1\n"
            + 2 * "1,a.jpg,Rosa alba,Rosa,,1\n",
            "line 3 has 'a.jpg' again, as line 2",
        ),
    ],
)
def test_another_table_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "p.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=said) as error:
        read_predictions(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    (tmp_path / "p.csv").write_text(
        "family_1;probability_1;genus_1;species_1;file_name;image_id\r\nRosaceae;0,25;;Rosa alba;a.jpg;1\r\n",
        encoding="utf-8-sig",
    )
    (sheet,) = read_predictions(tmp_path / "p.csv")
    assert vars(sheet.guesses[0]) == {
        "species": "Rosa alba",
        "genus": "Rosa",
        "family": "Rosaceae",
        "probability": 0.25,
    }


def call(*arguments):
    return CliRunner().invoke(main, ["review", *map(str, arguments)])


def test_the_command_lists_moved_images_and_keeps_what_was_decided_of_them(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    (table.parent / "images" / "b" / "1.jpg").unlink()
    shown = call(table, "--images", table.parent / "images", "--only-tables")
    assert shown.exit_code == 0, shown.output
    assert "not in" in shown.output and "b/1.jpg" in shown.output and "1 labels" in shown.output
    again = review_of(table)
    assert again.view("listed", "moved") == [0] and again.decisions.of("b/1.jpg").do == ACCEPT


def test_a_moved_image_is_told_with_its_place_and_an_accent_written_otherwise_is_found(table):
    images = table.parent / "images"
    rows = [("b/1.jpg", "sure", "Rosa alba", "1"), ("a/\u00e9.jpg", "sure", "Rosa alba", "1")]
    predictions_of(rows, table)
    (images / "b" / "1.jpg").rename(images / "a" / "1.jpg")
    (images / "a" / "2.jpg").rename(images / "a" / "e\u0301.jpg")
    review = review_of(table)
    assert review.missing() == ["b/1.jpg (there is a/1.jpg)"]
    assert review.path(review.sheets[1]).is_file()


def test_decisions_about_sheets_that_are_not_listed_are_told_and_count(table):
    review = review_of(table)
    review.decide(0, ACCEPT)
    predictions_of(SHEETS[1:], table)
    shown = call(table, "--images", table.parent / "images", "--only-tables")
    assert "does not list, and the tables have too: 1" in shown.output and "1 labels" in shown.output


def test_a_second_review_of_the_file_is_told_who_holds_it(table):
    from utils.startup import holding

    with holding(table, table.with_name(".p.decisions.jsonl.lock")):
        shown = call(table, "--images", table.parent / "images", "--only-tables")
    assert shown.exit_code == 1 and f"process {os.getpid()}" in shown.output


def test_decisions_are_appended_to_no_other_file(table):
    before = table.read_bytes()
    shown = call(table, "--images", table.parent / "images", "--decisions", table, "--only-tables")
    assert shown.exit_code == 2 and "must be a file NAME.jsonl" in shown.output
    assert table.read_bytes() == before


def test_of_many_damaged_lines_the_first_are_told(table):
    table.with_name("p.decisions.jsonl").write_text(100 * "{\n")
    shown = call(table, "--images", table.parent / "images", "--only-tables")
    assert shown.output.count("does not count") == 20 and "and 80 more" in shown.output


def test_a_place_that_cannot_be_written_is_told_first(table):
    shown = call(
        table, "--images", table.parent / "images", "--decisions", table / "p.jsonl", "--only-tables"
    )
    assert shown.exit_code == 1 and "cannot be written" in shown.output


def test_a_file_outside_of_the_folder_is_never_shown(tmp_path):
    for name in ("../secret.jpg", "/secret.jpg", "a/../../secret.jpg"):
        table = predictions_of([(name, "sure", "Rosa alba", "1")], tmp_path / "p.csv")
        with pytest.raises(InputError, match=r"p\.csv: line 2: .*secret\.jpg' is not below the folder"):
            read_predictions(table)


def test_a_large_sheet_is_shown_by_a_smaller_copy(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (4000, 6000), 128).save(path)
    jpeg, size, _ = copy_of(path)
    assert size == (4000, 6000) and len(jpeg) < 1e6
    for broken, said in ((b"", "not a readable image"), (path.read_bytes()[:900], "not a")):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=said):
            copy_of(path)
    path.unlink()
    with pytest.raises(InputError, match="not there any more"):
        copy_of(path)
