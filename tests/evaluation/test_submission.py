import gzip
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import f1_score

from utils.__main__ import main
from utils.evaluation.predict import Predictions
from utils.evaluation.submission import score_submission, validate_submission, write_submission
from utils.files import InputError

IDS = ["10", "11", "12", "13"]
CATEGORIES = [0, 1, 2, 4, 5, 6]


def predictions(ids, classes) -> Predictions:
    classes = np.array(classes, dtype=np.int32)[:, None]
    return Predictions(np.array(ids), classes, np.ones_like(classes, dtype=np.float32), np.full(len(ids), -1))


def write(path, *rows, header="Id,Predicted"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_submission_has_category_ids_in_the_order_of_the_metadata(tmp_path, six_species):
    table = pd.DataFrame({"image_id": [10, 11, 12, 13], "file_name": ["a", "b", "c", "d"]})
    path = write_submission(
        predictions(IDS[::-1], [3, 5, 0, 2]), six_species, table, tmp_path / "submission.csv"
    )
    assert path.read_text() == "Id,Predicted\n10,2\n11,0\n12,6\n13,4\n"
    assert validate_submission(path, table, six_species.category_ids) == []


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["10", "11", "12"], "1 of 4 test sheets have no prediction (first: 13)"),
        (["10", "11", "12", "13", "99"], "1 predicted sheets are not in the test metadata (first: 99)"),
        (["10", "11", "12", "13", "13"], "sheet 13 is predicted more than once"),
    ],
)
def test_a_wrong_set_of_sheets_leaves_the_earlier_file(tmp_path, six_species, ids, message):
    path = write(tmp_path / "submission.csv", "earlier")
    before = path.read_bytes()
    with pytest.raises(InputError) as error:
        write_submission(predictions(ids, [0] * len(ids)), six_species, IDS, path)
    assert message in str(error.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_ids_that_the_test_metadata_repeats_are_found_by_validation(tmp_path, six_species):
    with pytest.raises(InputError, match=r"submission\.csv, line 4: Id 11 was already on line 3"):
        write_submission(
            predictions(["10", "11"], [0, 1]), six_species, ["10", "11", "11"], tmp_path / "submission.csv"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("header", "rows", "problem"),
    [
        (
            "Id,predicted",
            ["10,0", "11,0", "12,0", "13,0"],
            "line 1: the header must be Id,Predicted, found Id,predicted",
        ),
        ("Id,Predicted", ["10,0", "11,0", "11,0", "12,0", "13,0"], "line 4: Id 11 was already on line 3"),
        (
            "Id,Predicted",
            ["10,0", "11,0", "12,0"],
            "1 test sheets have no row (first: 13); 4 rows are needed, 3 are there",
        ),
        ("Id,Predicted", ["10,0", "11,0", "12,0", "13,0", "14,0"], "line 6: Id 14 is not a test sheet"),
        ("Id,Predicted", ["10,0", "11,3", "12,6", "13,0"], "line 3: Predicted 3 is not a category_id"),
        (
            "Id,Predicted",
            ["10,0", "11,4.0", "12,0", "13,0"],
            "line 3: Predicted '4.0' is not one whole number",
        ),
        ("Id,Predicted", ["10,0", "11", "12,0", "13,0"], "line 3: a row needs an Id and a Predicted"),
        (
            "Id,Predicted",
            ["10,0", "11,0 4", "12,0", "13,0"],
            "line 3: Predicted '0 4' is not one whole number",
        ),
        ("Id,Predicted", ["10,0", "11,-4", "12,0", "13,0"], "line 3: Predicted -4 is not a category_id"),
        ("Id,Predicted", [], "4 test sheets have no row"),
    ],
)
def test_each_problem_is_named_with_its_line(tmp_path, header, rows, problem):
    path = write(tmp_path / "s.csv", *rows, header=header)
    problems = validate_submission(path, IDS, CATEGORIES)
    assert any(problem in line for line in problems), problems
    assert all(str(path) in line for line in problems)


def test_a_row_that_cannot_be_read_is_not_told_to_be_missing(tmp_path):
    path = write(tmp_path / "s.csv", "10,0", "11,four", "12,0", "13,0", header="Id,Predicted")
    (problem,) = validate_submission(path, IDS, CATEGORIES)
    assert "line 3: Predicted 'four'" in problem


def test_an_empty_file_is_a_problem_and_a_missing_one_an_error(tmp_path):
    (tmp_path / "s.csv").write_text("")
    assert "found nothing" in validate_submission(tmp_path / "s.csv", IDS, CATEGORIES)[0]
    with pytest.raises(InputError, match="no such file"):
        validate_submission(tmp_path / "none.csv", IDS, CATEGORIES)
    (tmp_path / "s.csv").write_bytes(b"Id,Predicted\n\xff\xfe\n")
    with pytest.raises(InputError, match=r"s\.csv: cannot be read"):
        validate_submission(tmp_path / "s.csv", IDS, CATEGORIES)


def test_a_file_from_a_spreadsheet_is_taken(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbfId,Predicted\r\n10,0\r\n11,1\r\n12,2\r\n13,6\r\n")
    assert validate_submission(tmp_path / "s.csv", IDS, CATEGORIES) == []


def encoded(text: str) -> bytes:
    return text.encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"Id,Predicted,x\n10,0,1\n11,0,1\n12,0,1\n13,0,1\n",
            "line 1: .*Remove the further column \\('x'\\)",
        ),
        (b"Id,Predicted,\n10,0,\n11,0,\n12,0,\n13,0,\n", "line 1: .*\\(one without a name\\)"),
        (
            b"Id,Predicted\n10,0\n11,0,4\n12,0\n13,0\n",
            "line 3: .*one Predicted, found 3 fields \\(further: '4'\\)",
        ),
        (b"Id,Predicted\n10,0\n11,0,\n12,0\n13,0\n", "line 3: .*found 3 fields \\(further: ''\\)"),
        (b",Id,Predicted\n0,10,0\n1,11,0\n", "line 1: .*in this order, no index"),
        (b"Id;Predicted\n10;0\n", "line 1: .*by commas, not by semicolons"),
        (b"Id\tPredicted\n10\t0\n", "line 1: .*by commas, not by tabs"),
        (encoded("Id,Predicted\n10,0\n11,\u0664\n12,0\n13,0\n"), "line 3: .*the digits 0 to 9"),
        (encoded("Id,Predicted\n10,0\n11,\uff14\n12,0\n13,0\n"), "line 3: .*the digits 0 to 9"),
        (encoded("Id,Predicted\n10,0\n11,\xa04\n12,0\n13,0\n"), "line 3: .*not one whole number"),
        (b"Id,Predicted\n10,0\n11,1_0\n12,0\n13,0\n", "line 3: .*'1_0' is not one whole number"),
        (b"Id,Predicted\n10,0\n11,+4\n12,0\n13,0\n", "line 3: .*'.4' is not one whole number"),
        (b"Id,Predicted\n10,0\n11,04\n12,0\n13,0\n", "line 3: .*leading zero or sign: write 4"),
        (b"Id,Predicted\n10,0\n11,1e0\n12,0\n13,0\n", "line 3: .*'1e0' is not one whole number"),
        (b"Id,Predicted\n10,0\n11,NaN\n12,0\n13,0\n", "line 3: .*'NaN' is not one whole number"),
        (b"Id,Predicted\n10,0\n1\x001,0\n12,0\n13,0\n", r"line 3: Id '1.x001' is not a test sheet"),
        (b"Id,Predicted\nId,Predicted\n10,0\n11,0\n12,0\n13,0\n", "line 2: .*not one whole number"),
        (b"Id,Predicted\n10,0\n\n11,0\n12,0\n13,0\n", "line 3: is blank, and rows follow it"),
    ],
)
def test_what_kaggle_would_misread_is_the_one_problem(tmp_path, content, problem):
    (tmp_path / "s.csv").write_bytes(content)
    problems = validate_submission(tmp_path / "s.csv", IDS, CATEGORIES)
    about = [line for line in problems if "have no row" not in line]
    assert len(about) == 1 and re.search(problem, about[0]), problems
    with pytest.raises(InputError, match=r"s\.csv"):  # and what is not valid is not scored
        score_submission(tmp_path / "s.csv", write(tmp_path / "t.csv", "10,0", "11,0", "12,0", "13,0"))


@pytest.mark.parametrize(
    "content",
    [
        b"Id,Predicted\n10,0\n11,1\n12,2\n13,6\n\n",
        b"Id,Predicted\r\n10,0\r\n11,1\r\n12,2\r\n13,6\r\n\r\n \r\n",
        b'"Id","Predicted"\n"10","0"\n"11","1"\n"12","2"\n"13","6"',
    ],
    ids=["a blank last line", "several, from Windows", "quoted, without a line end"],
)
def test_blank_lines_at_the_end_and_quotes_are_no_problem(tmp_path, content):
    (tmp_path / "s.csv").write_bytes(content)
    assert validate_submission(tmp_path / "s.csv", IDS, CATEGORIES) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"Id,Predicted\n10,0\n"), "is a gzip file and no CSV. Unpack it"),
        ("Id,Predicted\n10,0\n".encode("utf-16"), "Save it as CSV in UTF-8"),
        (b'Id,Predicted\n10,"0\n11,1\n', "line 3: cannot be read as CSV .*quotation mark"),
    ],
    ids=["gzip", "UTF-16", "open quotation mark"],
)
def test_what_is_no_plain_csv_is_an_error_with_the_way_out(tmp_path, content, told):
    (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(InputError, match=told):
        validate_submission(tmp_path / "s.csv", IDS, CATEGORIES)


def test_many_problems_are_counted(tmp_path):
    path = write(tmp_path / "s.csv", *(f"x{i},0" for i in range(50)))
    problems = validate_submission(path, IDS, CATEGORIES)
    assert len(problems) == 21
    assert problems[-1].endswith("and 31 more problems.")


def test_class_indices_are_suspected_when_a_category_is_unknown(tmp_path):
    path = write(tmp_path / "s.csv", "10,3", "11,5", "12,0", "13,2")
    assert "look like class indices" in validate_submission(path, IDS, CATEGORIES)[-1]
    write(path, "10,3", "11,6", "12,0", "13,2")
    assert not any("class indices" in line for line in validate_submission(path, IDS, CATEGORIES))


def random_files(tmp_path, categories, to_text=str):
    generator = np.random.default_rng(0)
    true = generator.choice(categories, 300)
    answered = np.where(generator.random(300) < 0.7, true, generator.choice(categories, 300))
    solution = write(tmp_path / "solution.csv", *(f"{i},{c}" for i, c in enumerate(true)))
    path = write(tmp_path / "s.csv", *(f"{i},{to_text(c)}" for i, c in reversed(list(enumerate(answered)))))
    return path, solution, true, answered


def test_the_score_is_scikit_learns_over_the_label_map(tmp_path):
    categories = [0, 1, 2, 4, 5, 6, 9]
    path, solution, true, answered = random_files(tmp_path, [0, 1, 2, 4, 5, 6])
    result = score_submission(path, solution, categories)
    expected = f1_score(true, answered, labels=categories, average="macro", zero_division=0)
    assert result["macro_f1"] == pytest.approx(expected, abs=1e-9)
    assert result["accuracy"] == pytest.approx((true == answered).mean())
    assert (result["images"], result["classes"], result["classes_without_images"]) == (300, 7, 1)
    assert result["warnings"] == []
    union = f1_score(true, answered, average="macro")
    assert score_submission(path, solution)["macro_f1"] == pytest.approx(union, abs=1e-9)


def test_answers_outside_the_label_map_are_wrong_and_no_species(tmp_path):
    categories = [0, 1, 2, 4, 5, 6]
    path, solution, true, answered = random_files(tmp_path, categories, lambda c: 3 if c == 4 else c)
    answered = np.where(answered == 4, 3, answered)
    result = score_submission(path, solution, categories)
    expected = f1_score(true, answered, labels=categories, average="macro", zero_division=0)
    assert result["macro_f1"] == pytest.approx(expected, abs=1e-9)
    assert (result["classes"], result["classes_without_images"]) == (6, 0)


def test_a_damaged_solution_is_told_with_its_own_way_out(tmp_path):
    path, solution, *_ = random_files(tmp_path, [0, 1])
    solution.write_text("Id,Predicted\n10,many\n")
    with pytest.raises(InputError, match=r"solution\.csv, line 2: .*\. Copy it again from its source\."):
        score_submission(path, solution, [0, 1])


@pytest.mark.parametrize("known", [True, False], ids=["label map", "solution only"])
def test_a_submission_of_class_indices_is_recognised(tmp_path, known):
    categories = [3, 7, 8, 20, 21, 40]
    path, solution, *_ = random_files(tmp_path, categories, categories.index)
    result = score_submission(path, solution, categories if known else None)
    assert result["macro_f1"] < 0.1
    assert "looks like class indices (0 to 5)" in result["warnings"][0]


def test_a_bad_submission_of_category_ids_raises_no_suspicion(tmp_path):
    categories = [0, 1, 2, 4, 5, 6]
    path, solution, *_ = random_files(tmp_path, categories, lambda c: 0)
    assert score_submission(path, solution, categories)["warnings"] == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0,1"], r"s\.csv: 1 of 2 ids of .*solution\.csv are not there \(first: 1\)"),
        (["0,1", "1,1", "2,1"], r"solution\.csv: 1 of 3 ids of .*s\.csv are not there \(first: 2\)"),
        (["0,1", "0,1"], r"s\.csv, line 3: Id 0 is there twice"),
        (["0,1", "1,many"], r"s\.csv, line 3: Predicted 'many' is not one whole number"),
        ([], r"s\.csv, line 2: there is no row below the header"),
    ],
)
def test_files_that_cannot_be_scored(tmp_path, rows, message):
    solution = write(tmp_path / "solution.csv", "0,1", "1,2")
    with pytest.raises(InputError, match=message):
        score_submission(write(tmp_path / "s.csv", *rows), solution, [1, 2])


def test_a_solution_of_another_data_set_is_refused(tmp_path):
    solution = write(tmp_path / "solution.csv", "0,1", "1,77")
    with pytest.raises(InputError, match=r"solution\.csv: category_id 77 is not in the label map"):
        score_submission(write(tmp_path / "s.csv", "0,1", "1,2"), solution, [1, 2])


def test_a_folder_of_tables_is_enough_to_validate_and_score(sample_flora, tmp_path):
    for name in ("train_metadata.json", "test_metadata.json", "solution.csv"):
        shutil.copy(sample_flora / name, tmp_path / name)
    for command in ("validate", "score"):
        done = CliRunner().invoke(
            main, ["submission", command, str(tmp_path / "solution.csv"), "--data", str(tmp_path)]
        )
        assert done.exit_code == 0, done.output
    (tmp_path / "test_metadata.json").unlink()
    done = CliRunner().invoke(
        main, ["submission", "validate", str(tmp_path / "solution.csv"), "--data", str(tmp_path)]
    )
    assert done.exit_code == 1 and "no test_metadata.json" in done.output
