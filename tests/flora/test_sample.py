import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from disks import small_disk
from distances import species_distances

from utils.data import tail
from utils.data.labels import LabelMap
from utils.data.metadata import COLUMNS, PUBLISHED_FAMILIES, read_metadata, read_test_metadata
from utils.data.records import read_records
from utils.files import REPOSITORY, InputError, UsageError
from utils.flora import full_size, morphology, of_profile, phylogeny, sample, sheet
from utils.flora.counts import GENERA_BY_SPECIES, LARGEST_GENERA, SPECIES_BY_TRAIN_IMAGES
from utils.startup import holding

SMALL = {"species": 3, "seed": 1, "min_images": 3, "max_images": 6, "form": "images", "progress": False}
# SHA-256 of all images of SMALL; changes only together with GENERATOR_VERSION.
SMALL_CHECKSUM = "54710f103c687a3dbdaa618b3736eeb14f009ea48a66db05a837bac8cff66924"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.make_flora(tmp_path_factory.mktemp("flora") / "small", workers=1, **SMALL)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_size.make_metadata(tmp_path_factory.mktemp("full"))


def _checksum(folder: Path) -> str:
    return json.loads((folder / "flora.json").read_text())["sha256"]


# ---------------------------------------------------------------- the sample flora


def test_the_same_seed_gives_the_same_bytes_everywhere(small):
    assert _checksum(small) == SMALL_CHECKSUM


def test_workers_change_nothing_and_a_script_needs_no_guard(small, tmp_path):
    script = tmp_path / "script.py"
    arguments = ", ".join(f"{key}={value!r}" for key, value in SMALL.items())
    script.write_text(
        "from pathlib import Path\n"
        "from utils.flora.sample import make_flora\n"
        f"make_flora(Path('made'), workers=2, {arguments})\n"
        "print('once')\n"
    )
    root = REPOSITORY
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"
    assert _checksum(tmp_path / "made") == _checksum(small)


def test_published_schema(sample_flora):
    raw = json.loads((sample_flora / "train_metadata.json").read_text())
    assert {table: set(rows[0]) for table, rows in raw.items()} == {
        table: set(columns) for table, columns in COLUMNS.items()
    }
    assert raw["images"][0]["image_id"] == "00000__000"
    assert raw["images"][0]["file_name"] == "000/00/00000__000.jpg"
    test = json.loads((sample_flora / "test_metadata.json").read_text())
    assert all(set(row) == {"image_id", "file_name", "license"} for row in test)
    assert all(isinstance(row["image_id"], int) for row in test)
    assert (sample_flora / "solution.csv").read_text().splitlines()[0] == "Id,Predicted"


def test_every_species_is_in_train_and_test(sample_flora):
    train = read_metadata(sample_flora / "train_metadata.json").annotations["category_id"]
    solution = pd.read_csv(sample_flora / "solution.csv")
    assert set(train) == set(solution["Predicted"])
    share = len(solution) / (len(solution) + len(train))
    assert 0.2 <= share < 0.3


def test_ids_have_gaps(sample_flora):
    metadata = read_metadata(sample_flora / "train_metadata.json")
    assert metadata.categories["category_id"].max() == len(metadata.categories) + 1
    assert metadata.genera["genus_id"].max() == len(metadata.genera)
    assert (np.diff(metadata.categories["scientificName"].argsort()) == 1).all()


def test_distances_are_those_of_the_tree(sample_flora):
    spec = json.loads((sample_flora / "flora.json").read_text())["spec"]
    tree = phylogeny.grow(spec["species"], spec["seed"])
    names = phylogeny.name(tree, spec["seed"])["genus"]
    metadata = read_metadata(sample_flora / "train_metadata.json")
    genus = dict(zip(metadata.genera["genus_id"], metadata.genera["genus"], strict=True))
    species = species_distances(tree)
    count = len(genus)
    assert len(metadata.distances) == count * (count - 1) // 2
    for row in metadata.distances.itertuples():
        assert row.genus_id_x < row.genus_id_y
        first, second = names.index(genus[row.genus_id_x]), names.index(genus[row.genus_id_y])
        assert row.distance == species[first, second]


def test_shards_hold_every_image_with_its_labels(sample_flora):
    metadata = read_metadata(sample_flora / "train_metadata.json")
    labels = LabelMap.from_metadata(metadata)
    category = metadata.annotations.set_index("image_id")["category_id"]
    records = list(read_records(sorted(sample_flora.glob("*_train*.tfrec"))))
    assert sorted(record["image_id"] for record in records) == sorted(category.index)
    classes = [record["scientificName"] for record in records]
    expected = labels.to_class(category[[record["image_id"] for record in records]])
    assert classes == expected.tolist()
    assert [record["genus"] for record in records] == labels.genus_index[classes].tolist()
    assert [record["family"] for record in records] == labels.family_index[classes].tolist()
    assert np.abs(np.corrcoef(np.arange(len(classes)), classes)[0, 1]) < 0.4  # not sorted by species
    test = list(read_records(sorted(sample_flora.glob("*_test*.tfrec"))))
    ids = read_test_metadata(sample_flora / "test_metadata.json")["image_id"].tolist()
    assert [record["image_id"] for record in test] == ids
    assert "scientificName" not in test[0]


def test_images_lie_where_the_metadata_says(small):
    for split, rows in (
        ("train", read_metadata(small / "train_metadata.json").images),
        ("test", read_test_metadata(small / "test_metadata.json")),
    ):
        paths = [small / f"{split}_images" / name for name in rows["file_name"]]
        assert all(path.is_file() for path in paths)
        assert len(list((small / f"{split}_images").rglob("*.jpg"))) == len(paths)


def test_counts_run_from_the_rarest_to_the_commonest():
    train, test = sample.long_tail(40, 7, 100, 0.2, seed=0)
    total = train + test
    assert (total.min(), total.max()) == (7, 100)
    assert train.max() == 80 and (train <= 0.8 * total).all()
    assert test.min() >= 1 and np.abs(test - 0.2 * total).max() < 1
    assert 1_500 < total.sum() < 1_900


def test_a_second_call_returns_at_once_and_another_flora_is_refused(small, monkeypatch):
    monkeypatch.setattr(sheet, "draw_chunk", lambda tasks: pytest.fail("drawn again"))
    assert sample.make_flora(small, workers=1, **SMALL) == small
    with pytest.raises(InputError, match="species 3 instead of 4") as caught:
        sample.make_flora(small, workers=1, **{**SMALL, "species": 4})
    assert str(small) in str(caught.value)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"files that are not of a sample flora"):
        sample.make_flora(tmp_path, workers=1, **SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("form", ["shards", "images"])
def test_a_full_disk_is_told_by_the_folder_and_leaves_nothing(tmp_path, form):
    disk = tmp_path / "small"
    with small_disk(disk, 40):
        with pytest.raises(InputError, match=r"small/flora: cannot be written \(No space left on device\)"):
            sample.make_flora(disk / "flora", workers=1, **{**SMALL, "form": form})
        assert not [*disk.iterdir()]


def test_workers_end_with_the_process_that_started_them_even_where_it_was_killed_before_they_began():
    script = (
        "import os, signal, threading\nfrom utils.flora import sample\n"
        "kill = lambda: os.kill(os.getpid(), signal.SIGKILL)\nthreading.Timer(0.1, kill).start()\n"
        "list(sample.draw([None] * 200, 2, False))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as process:
        assert process.wait(60) == -signal.SIGKILL
        # its end is that of the last process that could write to it
        assert select.select([process.stdout], [], [], 60)[0] and process.stdout.read() == b""


def test_a_broken_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(tasks):
        raise RuntimeError("power cut")

    monkeypatch.setattr(sheet, "draw_chunk", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        sample.make_flora(tmp_path / "flora", workers=1, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("species", 1), ("test_fraction", 0.9), ("form", "zip"), ("max_images", 2), ("seed", -1)],
)
def test_values_out_of_range_are_named(tmp_path, key, value):
    with pytest.raises(UsageError, match=f"{key} is {value!r}"):
        sample.make_flora(tmp_path / "flora", **{**SMALL, key: value})


@pytest.mark.filterwarnings("ignore")  # 100 steps are enough here, and scikit-learn would rather go on
def test_linear_classifiers_find_little(tmp_path):
    from PIL import Image
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    folder = sample.make_flora(
        tmp_path / "flora",
        species=10,
        seed=0,
        min_images=12,
        max_images=20,
        size=96,
        form="images",
        progress=False,
    )
    metadata = read_metadata(folder / "train_metadata.json")
    truth = pd.read_csv(folder / "solution.csv")["Predicted"]
    test = read_test_metadata(folder / "test_metadata.json")

    def images(split: str, names: pd.Series) -> list[Image.Image]:
        return [Image.open(folder / f"{split}_images" / name) for name in names]

    def thumbnail(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX)).ravel() / 255

    def histogram(image: Image.Image) -> np.ndarray:
        return np.array(image.histogram()).reshape(-1, 16).sum(axis=1) / image.width / image.height

    train_images, test_images = (
        images("train", metadata.images["file_name"]),
        images("test", test["file_name"]),
    )
    for features in (thumbnail, histogram):
        model = LogisticRegression(max_iter=100)
        model.fit(
            np.array([features(image) for image in train_images]),
            metadata.annotations["category_id"].to_numpy(),
        )
        predicted = model.predict(np.array([features(image) for image in test_images]))
        assert f1_score(truth, predicted, average="macro", zero_division=0) < 0.4, features.__name__


# ---------------------------------------------------------------- metadata alone

# SHA-256 of answers, species, genera, annotations and distances of seed 0; changes only with METADATA_VERSION.
FULL_CHECKSUM = "35a39ec3fb12244b5518865e0a27e555fc4564c810480b96d468db932b49dc78"


def test_full_metadata_has_the_real_counts_of_images(full):
    metadata = read_metadata(full / "train_metadata.columns")
    counts = metadata.annotations["category_id"].value_counts()
    assert set(counts.index) == set(metadata.categories["category_id"])
    assert counts.value_counts().to_dict() == SPECIES_BY_TRAIN_IMAGES
    assert tail.gini(counts.to_numpy()) == pytest.approx(0.2349, abs=5e-5)
    assert counts.median() == 66


def test_full_metadata_has_the_real_genera(full):
    categories = read_metadata(full / "train_metadata.columns").categories
    sizes = categories["genus"].value_counts()
    assert sizes.value_counts().to_dict() == GENERA_BY_SPECIES
    largest = categories.groupby("genus").agg(species=("family", "size"), family=("family", "first"))
    largest = largest.sort_values("species", ascending=False).head(len(LARGEST_GENERA))
    assert dict(zip(largest.index, largest.itertuples(index=False, name=None), strict=True)) == LARGEST_GENERA
    assert (categories.groupby("genus")["family"].nunique() == 1).all()


def test_the_counts_add_up_as_published():
    assert sum(SPECIES_BY_TRAIN_IMAGES.values()) == 15_501
    assert sum(images * species for images, species in SPECIES_BY_TRAIN_IMAGES.items()) == 839_772
    assert sum(GENERA_BY_SPECIES.values()) == 2_564
    assert sum(species * genera for species, genera in GENERA_BY_SPECIES.items()) == 15_501
    largest = [species for species, _ in LARGEST_GENERA.values()]
    assert largest == sorted(GENERA_BY_SPECIES, reverse=True)[: len(largest)]


def test_full_metadata_is_the_same_everywhere(full):
    metadata = read_metadata(full / "train_metadata.columns")
    digest = hashlib.sha256((full / "solution.csv").read_bytes())
    digest.update(metadata.categories.to_csv(index=False).encode())
    digest.update(metadata.genera.to_csv(index=False).encode())
    numbers = metadata.annotations[["category_id", "genus_id", "institution_id"]]
    for table, kind in ((numbers, "<i8"), (metadata.distances, "<f8")):
        digest.update(np.ascontiguousarray(table.to_numpy(), dtype=kind).tobytes())
    assert digest.hexdigest() == FULL_CHECKSUM


def test_every_seed_keeps_the_counts_of_families():
    for seed in range(1, 6):
        sizes, genus_family, families, genera = full_size.full_genera(seed)
        tree = phylogeny.grow_sized(sizes, genus_family, seed)
        train, test = full_size.full_counts(tree, seed)
        found = [np.bincount(tree.family, values)[:10] for values in (np.ones(len(train)), train, test)]
        wanted = PUBLISHED_FAMILIES[["species", "train_images", "test_images"]].to_numpy().T
        np.testing.assert_array_equal(found, wanted)
        assert dict(zip(*np.unique(train, return_counts=True), strict=True)) == SPECIES_BY_TRAIN_IMAGES
        assert test.sum() == 210_407 and test.min() >= 1
        assert ((train + test).min(), (train + test).max()) == (7, 100)
        assert {g: (sizes[i], families[genus_family[i]]) for i, g in genera.items()} == LARGEST_GENERA


def test_tables_of_an_earlier_version_are_not_taken(full, tmp_path, monkeypatch):
    monkeypatch.setattr(of_profile, "scratch_dir", lambda: tmp_path)
    old, new = tmp_path / "flora-v1-full-size", tmp_path / f"full-size-v{full_size.METADATA_VERSION}"
    old.mkdir()
    spec = {"generator_version": 1, "metadata_only": True, "seed": 0, "json": False}
    (old / "flora.json").write_text(json.dumps({"spec": spec}))
    with pytest.raises(InputError, match=r"generator_version 1 instead of 2\). Delete it or name another"):
        full_size.make_metadata(old)
    new.mkdir()
    shutil.copyfile(full / "flora.json", new / "flora.json")
    assert of_profile.full_size_metadata() == new / "train_metadata.columns"


def test_full_metadata_has_the_published_size(full):
    metadata = read_metadata(full / "train_metadata.columns")
    assert len(metadata.images) == len(metadata.annotations) == 839_772
    categories = metadata.categories["category_id"]
    assert (len(categories), categories.min(), categories.max()) == (15_501, 0, 15_504)
    assert 61 not in set(metadata.genera["genus_id"])
    count = len(metadata.genera)
    assert count == 2_564 == metadata.genera["genus_id"].max()
    assert len(metadata.distances) == count * (count - 1) // 2
    assert (metadata.distances["genus_id_x"] < metadata.distances["genus_id_y"]).all()
    assert len(metadata.institutions) == metadata.annotations["institution_id"].nunique() == 60
    assert metadata.images["image_id"].is_unique


def test_full_metadata_has_the_published_families(full):
    metadata = read_metadata(full / "train_metadata.columns")
    train = metadata.annotations["category_id"].value_counts()
    test = pd.read_csv(full / "solution.csv")["Predicted"].value_counts()
    assert test.sum() == 210_407
    table = metadata.categories.assign(
        train=metadata.categories["category_id"].map(train), test=metadata.categories["category_id"].map(test)
    )
    total = table["train"] + table["test"]
    assert (total.min(), total.max()) == (7, 100)
    assert table["train"].max() == 80 and table["test"].min() >= 1
    families = table.groupby("family").agg(
        species=("train", "size"), train_images=("train", "sum"), test_images=("test", "sum")
    )
    ten = families.sort_values("species", ascending=False).head(10)
    expected = PUBLISHED_FAMILIES.set_index("family")
    pd.testing.assert_frame_equal(ten, expected[ten.columns], check_dtype=False)
    # Institutions do not follow families.
    held = metadata.annotations.merge(metadata.categories[["category_id", "family"]], on="category_id")
    share = (held["institution_id"] == 0).groupby(held["family"]).mean()[ten.index]
    assert share.max() - share.min() < 0.02


@pytest.mark.long
def test_full_json_says_the_same_as_the_columns(full, tmp_path):
    folder = full_size.make_metadata(tmp_path / "full", json=True)
    columns, parsed = (
        read_metadata(full / "train_metadata.columns"),
        read_metadata(folder / "train_metadata.json"),
    )
    for table in COLUMNS:
        pd.testing.assert_frame_equal(getattr(columns, table), getattr(parsed, table), check_dtype=False)
    assert len(read_test_metadata(folder / "test_metadata.json")) == 210_407


# ---------------------------------------------------------------- the extra test set

# SHA-256 of two extra sheets a species of SMALL; changes only together with GENERATOR_VERSION.
EXTRA_CHECKSUM = "58a478b3f817f500ca48d5931063d0931a4ba7d0915e4fe6d923db4c20625744"


@pytest.fixture(scope="module")
def extra(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extra") / "test2"
    return sample.make_extra_test(small, folder, sheets=2, workers=1, progress=False)


def test_the_extra_test_has_as_many_sheets_of_every_species_and_none_of_the_flora(small, extra):
    solution = pd.read_csv(extra / "solution.csv")
    categories = read_metadata(small / "train_metadata.json").categories["category_id"]
    assert solution["Predicted"].value_counts().to_dict() == dict.fromkeys(categories, 2)
    records = list(read_records(sorted(extra.glob("*_test*.tfrec"))))
    ids = read_test_metadata(extra / "test_metadata.json")["image_id"].tolist()
    assert [record["image_id"] for record in records] == ids == solution["Id"].astype(str).tolist()
    drawn = {record["image"] for record in records}
    assert len(drawn) == 6 and drawn.isdisjoint(path.read_bytes() for path in small.rglob("*.jpg"))


def test_the_extra_test_draws_the_species_that_it_names(small, extra, monkeypatch):
    traits = []
    monkeypatch.setattr(sample, "draw", lambda tasks, *_: traits.append([t.traits for t in tasks]) or [])
    sample.make_extra_test(small, extra.with_name("again"), sheets=2, progress=False)
    tree = phylogeny.grow(SMALL["species"], SMALL["seed"])
    names = phylogeny.name(tree, SMALL["seed"])["scientificName"]
    of_species = dict(zip(names, morphology.evolve(tree, SMALL["seed"]), strict=True))
    table = read_metadata(small / "train_metadata.json").categories
    name = dict(zip(table["category_id"], table["scientificName"], strict=True))
    wanted = [of_species[name[number]] for number in pd.read_csv(extra / "solution.csv")["Predicted"]]
    assert traits == [wanted]


def test_the_extra_test_is_the_same_everywhere_and_made_once(small, extra, monkeypatch):
    assert _checksum(extra) == EXTRA_CHECKSUM
    monkeypatch.setattr(sheet, "draw_chunk", lambda tasks: pytest.fail("drawn again"))
    assert sample.make_extra_test(small, extra, sheets=2) == extra
    with pytest.raises(InputError, match="extra_test_sheets 2 instead of 3"):
        sample.make_extra_test(small, extra, sheets=3)


def test_an_extra_test_needs_a_flora_of_this_generator(small, tmp_path):
    with pytest.raises(InputError, match="not a sample flora"):
        sample.make_extra_test(tmp_path, tmp_path / "extra")
    with pytest.raises(UsageError, match="sheets is 0"):
        sample.make_extra_test(small, tmp_path / "extra", sheets=0)
    made = json.loads((small / "flora.json").read_text())
    made["spec"]["generator_version"] = 0
    (tmp_path / "flora.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match="generator version 0, this is"):
        sample.make_extra_test(tmp_path, tmp_path / "extra")


def test_a_second_process_waits_for_the_first_and_takes_what_it_drew(tmp_path, capsys):
    folder, options = tmp_path / "flora", {"species": 2, "seed": 0, "max_images": 8, "size": 32, "workers": 1}
    results = []
    with holding(folder, tmp_path / ".flora.lock"):
        second = threading.Thread(
            target=lambda: results.append(sample.make_flora(folder, **options, progress=False))
        )
        second.start()
        second.join(1)
        assert second.is_alive() and not folder.exists()
        assert re.search(
            rf"flora: process {os.getpid()} of .* works on it .*Waiting", capsys.readouterr().err
        )
    second.join(60)
    assert results == [folder] and (folder / "flora.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["flora"]
