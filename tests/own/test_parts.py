"""A prediction in parts: what is joined, what never is, and that joining twice changes nothing."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from utils.__main__ import main
from utils.files import InputError, UsageError, write_json
from utils.own.parts import Parts


@pytest.fixture
def run_dir(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "Tiny_weights.h5").write_bytes(b"weights")
    write_json(folder / "Tiny_configs.json", {"batch_size": 4})
    return folder


@pytest.fixture
def files(tmp_path) -> list[Path]:
    found = [tmp_path / f"{number:02d}.jpg" for number in range(10)]
    for path in found:
        path.write_bytes(path.name.encode())
    return found


def predicted(part: Parts, names: list[Path]) -> None:
    """What a call for one part leaves."""
    part.file.parent.mkdir(parents=True, exist_ok=True)
    part.file.write_text("image_id,species_1\n" + "".join(f"{path.name},a\n" for path in names))
    part.finish({"sure": len(names)}, {"bad": "why"} if part.part[0] == 2 else {}, {names[0].name: "note"})


def test_parts_are_whole_batches_and_joined_are_what_one_call_writes(tmp_path, run_dir, files):
    out = tmp_path / "answers.csv"
    parts = [Parts(out, (number, 3), run_dir, tta=False) for number in (1, 2, 3)]
    shares = [part.images(files) for part in parts]
    assert [len(share) for share in shares] == [4, 4, 2]
    assert [path for share in shares for path in share] == files
    assert len({part.folder for part in parts}) == 1
    for number in (2, 0, 1):
        assert parts[number].missing == 3 - [2, 0, 1].index(number) and not parts[number].done
        predicted(parts[number], shares[number])
    assert not out.exists() and parts[0].missing == 0
    told = parts[1].join()
    assert told == (
        {"sure": 10},
        {"bad": "why"},
        {path.name: "note" for path in (files[0], files[4], files[8])},
    )
    first = out.read_bytes()
    assert first.decode() == "image_id,species_1\n" + "".join(f"{path.name},a\n" for path in files)
    assert parts[0].join() == told and out.read_bytes() == first, "twice is as once"


@pytest.mark.parametrize("change", ["weights", "file", "files", "option", "parts"])
def test_parts_of_another_prediction_are_not_joined(tmp_path, run_dir, files, change):
    before = Parts(tmp_path / "a.csv", (1, 2), run_dir, tta=False)
    before.images(files)
    options, count = {"tta": change == "option"}, 3 if change == "parts" else 2
    changed = {"weights": run_dir / "Tiny_weights.h5", "file": files[3]}.get(change)
    if changed:
        changed.write_bytes(changed.read_bytes())
        os.utime(changed, ns=(1, 1))
    after = Parts(tmp_path / "a.csv", (1, count), run_dir, **options)
    after.images(files[1:] if change == "files" else files)
    assert after.folder != before.folder and after.folder.parent == before.folder.parent


def test_more_parts_than_batches_or_none_of_them_are_refused(tmp_path, run_dir, files):
    with pytest.raises(UsageError, match="shard is 1/4, and 10 images can be shared among 3 calls at most"):
        Parts(tmp_path / "a.csv", (1, 4), run_dir).images(files)
    with pytest.raises(UsageError, match="shard is 1/3, and 2 shards can be shared among 2 calls at most"):
        Parts(tmp_path / "a.csv", (1, 3), run_dir).shards(files[:2])
    for part in ((0, 2), (3, 2)):
        with pytest.raises(UsageError, match=r"must be i/n with i from 1 to n"):
            Parts(tmp_path / "a.csv", part, run_dir)
    with pytest.raises(InputError, match="no trained run"):
        Parts(tmp_path / "a.csv", (1, 2), tmp_path)


def test_predict_refuses_a_page_of_a_part_and_joins_parts_without_tensorflow(
    tmp_path, run_dir, files, make_jpeg
):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        (images / f"{number}.jpg").write_bytes(make_jpeg(number, 20, 30))
    out = tmp_path / "answers.csv"
    words = ["predict", "--model", str(run_dir), "--images", str(images), "--out", str(out)]
    shown = CliRunner().invoke(main, [*words, "--shard", "1/2", "--html", str(tmp_path / "a.html")])
    assert shown.exit_code == 2 and "--html goes without --shard" in " ".join(shown.output.split())
    shown = CliRunner().invoke(main, [*words, "--shard", "a"])
    assert shown.exit_code == 2 and "--shard a: must be I/N" in shown.output
    for number in (1, 2):
        options = {"tta": False, "skip_bad": False, "sure": 0.95}
        part = Parts(out, (number, 2), run_dir, **options)
        predicted(part, part.images(sorted(images.iterdir())))
        shown = CliRunner().invoke(main, [*words, "--shard", f"{number}/2"])
        assert shown.exit_code == 0, shown.output
        if number == 1:
            assert (
                "Part 1 of 2 is in" in shown.output and "1 are missing" in shown.output and not out.exists()
            )
    assert (
        "5 sheets -> " in shown.output and "sure 5" in shown.output and "left out: bad: why" in shown.output
    )
    assert len(out.read_text().splitlines()) == 6


@pytest.mark.parametrize("settings", [[1], {}, {"batch_size": "4"}, {"batch_size": 0}, None], ids=str)
def test_settings_that_are_none_are_named(tmp_path, run_dir, files, settings):
    write_json(run_dir / "Tiny_configs.json", settings)
    with pytest.raises(InputError, match=r"Tiny_configs\.json: not the settings of a run"):
        Parts(tmp_path / "a.csv", (1, 2), run_dir).images(files)
