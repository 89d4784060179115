"""A campaign of damage: sound files of every format, hurt at seeded random places and given to what reads them.

Whatever the damage: no traceback, no half file under a final name, no input changed. What a format can show is
refused by name; what it cannot show is counted. Another campaign:

    NAFLORA_DAMAGE_SEED=7 NAFLORA_DAMAGE_INPUTS=20000 ./course test --all -s tests/test_damaged_inputs.py

Seed and number of an input decide its bytes: `damaged(sources, seed, number)` makes it again.
"""

import csv
import hashlib
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from damaged import (
    KINDS,
    Damaged,
    Source,
    changed_byte,
    cli,
    cut_short,
    damaged,
    image_sources,
    lost_block,
    manifest_source,
    photo,
    rows_of_text,
    shard_sources,
    swapped_blocks,
    table_sources,
    text_mode,
    wrong_text,
    zero_block,
)
from PIL import Image

from utils.data.records import count_records
from utils.files import InputError
from utils.own.folder import find_images
from utils.own.images import encode_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

# ---------------------------------------------------------------- the judge


@dataclass
class Campaign:
    """What became of the inputs."""

    seed: int
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # format, kind, outcome
    faults: list[str] = field(default_factory=list)

    def add(self, item: Damaged, outcome: str, faults: Iterable[str]) -> None:
        self.counts[item.source.format, item.kind.__name__, outcome] += 1
        self.faults += [f"seed {self.seed}, {item}: {fault}" for fault in faults]

    def table(self) -> str:
        """One line a format and kind."""
        outcomes = [one for one in OUTCOMES if any(key[2] == one for key in self.counts)]
        lines = [f"{self.counts.total():,} damaged inputs, seed {self.seed}"]
        lines.append(f"{'':<32}" + "".join(f"{outcome:>15}" for outcome in outcomes))
        for name, kind in dict.fromkeys(sorted(key[:2] for key in self.counts)):
            counts = [self.counts[name, kind, outcome] for outcome in outcomes]
            lines.append(f"{name:<16}{kind:<16}" + "".join(f"{count or '-':>15}" for count in counts))
        return "\n".join(lines)


OUTCOMES = ("refused", "read", "same picture", "other picture", "traceback")


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def traces(before: dict[str, str], after: dict[str, str], allowed: str) -> list[str]:
    """What a reader did to files: inputs are as they were, and new is only what begins with `allowed`."""
    changed = [name for name in before if after.get(name) != before[name]]
    left = [name for name in after.keys() - before.keys() if not allowed or not name.startswith(allowed)]
    return [f"changed {name}" for name in changed] + [f"left {name}" for name in left]


def crash(error: Exception) -> str:
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"
    return f"traceback {type(error).__name__}: {str(error)[:200]} ({place})"


def judge(
    item: Damaged, reader: Callable[[Path], int | None], path: Path, root: Path
) -> tuple[str, list[str]]:
    """The outcome of one reader, and what it did wrong."""
    source, before, told, rows = item.source, snapshot(root), "", None
    try:
        rows = reader(path)
    except InputError as error:
        told = str(error)
    except Exception as error:
        return "traceback", [crash(error)]
    faults = traces(before, snapshot(root), "" if told else "out/")
    shutil.rmtree(root / "out", ignore_errors=True)
    must = source.wrong(item.content) or (
        "is damaged so that it shows" if item.kind in source.refused else ""
    )
    if source.rows and not must:
        true_rows = source.rows(item.content) if not told else None
        if source.complete and source.rows(item.content) < source.rows(source.content):
            must = "lacks rows"
        elif not told and rows != true_rows:
            faults.append(f"read {rows} rows, there are {true_rows}")
    if told and not must and item.kind is text_mode:
        faults.append(f"refused for its line ends: {told}")
    if must and not told:
        faults.append(f"read, though it {must}")
    if told and path.name not in told:
        faults.append(f"refused without its name: {told}")
    if told and not re.search(source.place, told.replace(str(path), "")):
        faults.append(f"refused without a place: {told}")
    return "refused" if told else "read", faults


def feed(item: Damaged, folder: Path, campaign: Campaign) -> None:
    """Give a damaged file, alone in its folder or beside what belongs to it, to all its readers."""
    root = folder / "one"
    shutil.rmtree(root, ignore_errors=True)
    if item.source.beside:
        shutil.copytree(item.source.beside, root)
    root.mkdir(exist_ok=True)
    path = root / item.source.name
    path.write_bytes(item.content)
    judged = [(reader, *judge(item, reader, path, root)) for reader in item.source.readers]
    outcomes = [outcome for _, outcome, _ in judged]
    faults = [f"{reader.__name__}: {fault}" for reader, _, found in judged for fault in found]
    campaign.add(item, max(outcomes, key=("read", "refused", "traceback").index), faults)


def feed_images(items: Sequence[Damaged], folder: Path, campaign: Campaign) -> None:
    """Give a folder of damaged images to the writer of shards and to what reads images for prediction."""
    root = folder / "images"
    shutil.rmtree(root, ignore_errors=True)
    (root / "in").mkdir(parents=True)
    names = {f"{item.number:06d}-{item.source.name}": item for item in items}
    for name, item in names.items():
        (root / "in" / name).write_bytes(item.content)
    Image.fromarray(photo(64, 48)).save(root / "in" / "sound.png")
    rows = [
        f"{name},{('Abies alba', 'Zea mays')[place % 2]}" for place, name in enumerate([*names, "sound.png"])
    ]
    (root / "labels.csv").write_text("\n".join(["file_name,scientificName", *rows]) + "\n")
    before = snapshot(root)

    reasons = dict.fromkeys(names, "")  # by the reader of predict; "" where it was read
    faults: dict[str, list[str]] = {name: [] for name in names}
    pictures, whole = {}, {}
    _, bad = find_images(root / "in", skip_bad=True)
    for name, item in names.items():
        try:
            if name in bad:
                raise InputError(f"{name}: {bad[name]}")
            pictures[name] = encode_image(root / "in" / name, size=64)
        except InputError as error:
            reasons[name] = str(error)
            if name not in str(error):
                faults[name].append(f"refused without its name: {error}")
        except Exception as error:
            reasons[name] = "traceback"
            faults[name].append(crash(error))
        if not reasons[name] and item.kind in item.source.refused:
            faults[name].append("read, though it is damaged so that it shows")
    campaign_faults = traces(before, snapshot(root), "")

    command = ["tfrecords", "write", "--images", root / "in", "--labels", root / "labels.csv", "--size", 64]
    refused = {name for name in names if reasons[name]}
    try:
        cli(*command, "--out", root / "out", "--skip-bad")
        cli("tfrecords", "verify", root / "out")
        skipped = root / "out" / "skipped.csv"
        lines = csv.DictReader(io.StringIO(skipped.read_text())) if skipped.is_file() else ()
        left_out = {line["file_name"]: line["reason"] for line in lines}
        for name in left_out.keys() ^ refused:
            faults[name].append(f"predict says {reasons[name]!r}, skipped.csv {left_out.get(name)!r}")
        records = count_records((root / "out").glob("*.tfrec"))
        if records + len(left_out) != len(names) + 1:
            campaign_faults.append(
                f"{records} records and {len(left_out)} skipped of {len(names) + 1} images"
            )
    except InputError as error:
        campaign_faults.append(f"--skip-bad gave up: {error}")
    except Exception as error:
        campaign_faults.append(crash(error))
    campaign_faults += traces(before, snapshot(root), "out/")
    shutil.rmtree(root / "out", ignore_errors=True)
    try:
        cli(*command, "--out", root / "out")
        if refused:
            campaign_faults.append("written without --skip-bad, though images are refused")
    except InputError as error:
        if not any(name in str(error) for name in refused):
            campaign_faults.append(f"refused without a name: {error}")
    except Exception as error:
        campaign_faults.append(crash(error))
    campaign_faults += traces(before, snapshot(root), "out/" if not refused else "out/unfinished/")

    for name, item in names.items():
        sound = item.source.name
        if name in pictures and sound not in whole:
            (root / sound).write_bytes(item.source.content)
            whole[sound] = encode_image(root / sound, size=64)
        same = pictures.get(name) == whole.get(sound)
        outcome = "refused" if name in refused else "same picture" if same else "other picture"
        campaign.add(item, "traceback" if reasons[name] == "traceback" else outcome, faults[name])
    campaign.faults += [
        f"seed {campaign.seed}, inputs {min(names)} to {max(names)}: {f}" for f in campaign_faults
    ]


def run_campaign(sources: Sequence[Source], folder: Path, seed: int, inputs: Iterable[int]) -> Campaign:
    campaign, images = Campaign(seed), []
    for number in inputs:
        item = damaged(sources, seed, number)
        if item.source.readers:
            feed(item, folder, campaign)
        else:
            images.append(item)
    for start in range(0, len(images), 50):
        feed_images(images[start : start + 50], folder, campaign)
    return campaign


# ---------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    tables, shards, manifest = (tmp_path_factory.mktemp(name) for name in ("tables", "shards", "manifest"))
    return [*image_sources(), *table_sources(tables), *shard_sources(shards), manifest_source(manifest)]


def require_clean(campaign: Campaign) -> None:
    print(campaign.table())
    if campaign.faults:
        first = "\n".join(campaign.faults[:60])
        pytest.fail(f"{len(campaign.faults)} faults, the first:\n{first}\n{campaign.table()}", pytrace=False)


@pytest.mark.long
def test_damage_is_refused_by_name_or_counted(sources, tmp_path, record_property):
    seed = int(os.environ.get("NAFLORA_DAMAGE_SEED", 0))
    inputs = int(os.environ.get("NAFLORA_DAMAGE_INPUTS", 3200))
    campaign = run_campaign(sources, tmp_path, seed, range(inputs))
    record_property("table", campaign.table())
    assert campaign.counts.total() == inputs
    # A JPEG with another piece in it may by chance come to as many blocks as its header says.
    for kind in (lost_block, zero_block, swapped_blocks):
        outcomes = {
            key[2]: count for key, count in campaign.counts.items() if key[:2] == ("JPEG", kind.__name__)
        }
        if outcomes.get("refused", 0) < 0.75 * sum(outcomes.values()):
            campaign.faults.append(f"JPEG, {kind.__name__}: {outcomes}, three quarters must be refused")
    require_clean(campaign)


def test_a_few_files_of_every_format_with_every_kind_of_damage(sources, tmp_path):
    """The campaign in small: two inputs of every file."""
    campaign = run_campaign(sources, tmp_path, 0, range(2 * len(sources)))
    assert {name for name, *_ in campaign.counts} == {source.format for source in sources}
    assert {kind for _, kind, _ in campaign.counts} == {kind.__name__ for kind in KINDS}
    require_clean(campaign)


def test_an_input_is_made_again_from_its_seed_and_number(sources):
    for number in range(len(sources)):
        content = damaged(sources, 3, number).content
        assert content == damaged(sources, 3, number).content != sources[number].content
    assert damaged(sources, 3, 0).content != damaged(sources, 4, 0).content


def test_sound_files_are_read_by_all_their_readers(sources, tmp_path):
    for source in sources:
        path = tmp_path / source.name / source.name
        shutil.copytree(source.beside, path.parent) if source.beside else path.parent.mkdir()
        path.write_bytes(source.content)
        for reader in source.readers:
            assert reader(path) == (source.rows(source.content) if source.rows else None), path
        assert source.readers or encode_image(path, size=64)


def half_file(path: Path) -> int:
    path.with_name("half.csv").touch()
    raise InputError(f"{path}: line 2 is damaged.")


def overwritten(path: Path) -> int:
    path.write_bytes(b"mine")
    return 2


def refuses(told: str) -> Callable[[Path], int]:
    def reader(path: Path) -> int:
        raise InputError(told.format(path))

    return reader


@pytest.mark.parametrize(
    ("reader", "kind", "noticed"),
    [
        (lambda path: {}["image_id"], changed_byte, "traceback KeyError: 'image_id'"),
        (lambda path: 1, changed_byte, "read 1 rows, there are 2"),
        (lambda path: 2, zero_block, "read, though it has zero bytes"),
        (lambda path: 2, cut_short, "read, though it ends inside a row"),
        (lambda path: 2, lost_block, "read, though it is damaged so that it shows"),
        (half_file, changed_byte, "left half.csv"),
        (overwritten, changed_byte, "changed t.csv"),
        (refuses("line 2 is damaged"), changed_byte, "refused without its name"),
        (refuses("{}: is damaged"), changed_byte, "refused without a place"),
        (refuses("{}: line 2"), text_mode, "refused for its line ends"),
    ],
)
def test_the_judge_notices_what_a_reader_does_wrong(reader, kind, noticed, tmp_path):
    sound = b"file_name,scientificName\na.png,Abies alba\nb.png,Zea mays\n"
    hurt = {zero_block: sound[:30] + b"\0" + sound[31:], cut_short: sound[:-10]}.get(kind, sound)
    options = {"wrong": wrong_text, "rows": rows_of_text, "place": r"line \d"}
    source = Source("CSV", "t.csv", sound, (reader,), refused=frozenset({lost_block}), **options)
    campaign = Campaign(0)
    feed(Damaged(5, source, kind, hurt), tmp_path, campaign)
    (fault,) = campaign.faults
    assert "seed 0, input 5, CSV t.csv" in fault and noticed in fault


def test_the_judge_notices_an_image_that_is_read_though_it_counts_as_cut_short(sources, tmp_path):
    raw = next(source for source in sources if source.name == "raw.tif")
    campaign = Campaign(0)
    feed_images([Damaged(0, raw, cut_short, raw.content)], tmp_path, campaign)
    assert any("read, though it is damaged so that it shows" in fault for fault in campaign.faults)
