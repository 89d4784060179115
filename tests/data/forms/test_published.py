"""Shards as facts of the published data describe them, made by a writer of the tests, are read right."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import published
import pytest
from published import GENERA, NAMES, SPECIES, bytes_list, float_list, packed, train_id, unpacked

from utils.config import load_profile
from utils.data import batches
from utils.data.records import count_records, read_labels, read_records, read_schema
from utils.evaluation.predict import predict
from utils.files import InputError
from utils.sources import find_data

N_RECORDS = 16
LABELLED = dict.fromkeys(("family", "genus", "scientificName"), "int64")


def train_480(number: int) -> dict[str, bytes]:
    return published.train_features(number)


def withheld_480(number: int) -> dict[str, bytes]:
    return published.withheld_features(number)


def mini_512(number: int) -> dict[str, bytes]:
    """An assumption: no page states the features of the NAFlora-mini shards; taken to be those of train."""
    return published.train_features(number, side=512)


def own(number: int) -> dict[str, bytes]:
    """Own sheets have the train features; their ids are whatever text the sheets have."""
    return published.train_features(number) | {"image_id": bytes_list(own_id(number).encode())}


def own_id(number: int) -> str:
    return f"Herbário_{number:03d}.jpg"


def own_withheld(number: int) -> dict[str, bytes]:
    return {name: own(number)[name] for name in ("image", "image_id")}


def number_as_train_id(number: int) -> dict[str, bytes]:
    """The README of the data types train ids as numbers, too."""
    return published.train_features(number) | {"image_id": packed(published.withheld_id(number))}


def with_more_features(number: int) -> dict[str, bytes]:
    more = {
        "authors": bytes_list(b"L."),
        "label_box": float_list(0.1, 0.5, 0.9, 1.0),  # several values
        "collector": b"",  # none at all
        "width": packed(-1),
    }
    return more | published.train_features(number)


def without_genus_and_family(number: int) -> dict[str, bytes]:
    features = published.train_features(number)
    return {name: features[name] for name in ("image", "image_id", "scientificName")}


def unpacked_and_turned_round(number: int) -> dict[str, bytes]:
    features = published.train_features(number, int64=unpacked)
    return dict(reversed(features.items()))


def withheld_id(number: int) -> str:
    return str(published.withheld_id(number))


TRAIN = {"image": "bytes", "image_id": "bytes", **LABELLED}
MORE = {"authors": "bytes", "label_box": "float", "collector": "empty", "width": "int64"}
# features of a record, split and pixels in the name, expected schema, expected id
SCHEMAS = [
    (train_480, "train", 480, TRAIN, train_id),
    (withheld_480, "test", 480, {"image": "bytes", "image_id": "int64"}, withheld_id),
    (mini_512, "val", 512, TRAIN, train_id),
    (own, "train", 480, TRAIN, own_id),
    (own_withheld, "test", 480, {"image": "bytes", "image_id": "bytes"}, own_id),
    (number_as_train_id, "train", 480, TRAIN | {"image_id": "int64"}, withheld_id),
    (with_more_features, "train", 480, TRAIN | MORE, train_id),
    (
        without_genus_and_family,
        "train",
        480,
        {"image": "bytes", "image_id": "bytes", "scientificName": "int64"},
        train_id,
    ),
    (unpacked_and_turned_round, "train", 480, TRAIN, train_id),
]


def write(
    folder: Path, features: Callable[[int], dict[str, bytes]], split: str, side: int, first: int = 0
) -> list[Path]:
    """N_RECORDS in two shards."""
    numbers = list(range(first, first + N_RECORDS))
    return [
        published.write_shard(
            folder, split, [published.example(features(number)) for number in part], side=side, part=index
        )
        for index, part in enumerate((numbers[:10], numbers[10:]))
    ]


def numbers_of(images: np.ndarray) -> list[int]:
    """The number modulo 8 that a sheet shows by its green."""
    middle = images[:, 12:20, 12:20, 1].astype(float).mean(axis=(1, 2))
    return np.rint((middle - 20) / 30).astype(int).tolist()


def joined(dataset) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True)]


def test_the_checksum_is_that_of_the_standard():
    assert published.crc32c(b"123456789") == 0xE3069283  # check value of CRC-32C
    assert published.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


@pytest.mark.parametrize(
    ("features", "split", "side", "schema", "expected_id"), SCHEMAS, ids=[row[0].__name__ for row in SCHEMAS]
)
def test_each_schema_is_read_right(tmp_path, features, split, side, schema, expected_id):
    shards = write(tmp_path, features, split, side)
    ids = [expected_id(number) for number in range(N_RECORDS)]
    labelled = "scientificName" in schema
    classes = [number % 4 if labelled else -1 for number in range(N_RECORDS)]

    assert read_schema(shards[0]) == dict(sorted(schema.items()))
    assert count_records(shards) == N_RECORDS
    for number, record in enumerate(read_records(shards)):
        assert record["image"] == published.jpeg(number, side)
        assert record["image_id"] == ids[number]
        if labelled:
            assert SPECIES[record["scientificName"]] == SPECIES[number % 4]
        if "genus" in schema:
            assert GENERA[record["genus"]] == NAMES[SPECIES[number % 4]][0]
    assert number == N_RECORDS - 1

    options = {"image_size": 32, "batch_size": 5}
    images, true, read_ids = joined(
        batches.evaluation_dataset(shards, n_classes=4 if labelled else None, count=N_RECORDS, **options)
    )
    assert [value.decode() for value in read_ids] == ids
    assert true.tolist() == classes
    assert numbers_of(images) == [number % 8 for number in range(N_RECORDS)]
    if not labelled:
        with pytest.raises(InputError, match="no feature 'scientificName'"):
            batches.training_dataset(shards, seed=0, **options)
        return
    options |= {"batch_size": 2, "augment": "none"}
    images, true = joined(batches.training_dataset(shards, seed=0, n_classes=4, **options))
    assert sorted(numbers_of(images)) == sorted(number % 8 for number in range(N_RECORDS))
    assert [number % 4 for number in numbers_of(images)] == true.tolist()
    table = read_labels(shards)
    assert table["image_id"].tolist() == ids and table["class_index"].tolist() == classes


def trained(data, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """One epoch of a small network."""
    import tiny

    from utils.training import loop, network

    monkeypatch.setattr(network, "_network", tiny.tiny_network)
    profile = tiny.tiny_profile(1, batch_size=4, validation_fraction=0.25)
    return loop.train(profile, data, folder, progress=False)


def test_the_published_set_is_trained_on_and_predicted(tmp_path, monkeypatch):
    write(tmp_path / "train", train_480, "train", 480)
    write(tmp_path / "test", withheld_480, "test", 480)
    (tmp_path / "train_metadata.json").write_text(json.dumps(published.metadata(range(N_RECORDS))))
    data = find_data(load_profile("laptop"), tmp_path)
    table = data.training_table()
    from_shards = replace(data, train_metadata=None).training_table()
    assert table.to_dict("list") == from_shards.to_dict("list")
    assert data.labels().names[table["class_index"]].tolist() == [SPECIES[n % 4] for n in range(N_RECORDS)]

    result = trained(data, tmp_path / "run", monkeypatch)
    assert np.isfinite(result.best_f1)
    from utils.training.runs import load_trained

    model, profile, labels = load_trained(result.run_dir)
    dataset = batches.evaluation_dataset(data.test_shards, image_size=profile.image_size, batch_size=8)
    predictions = predict(model, dataset, progress=False)
    assert predictions.image_ids.tolist() == [withheld_id(number) for number in range(N_RECORDS)]
    assert predictions.classes.shape == (N_RECORDS, labels.n_classes)


def test_the_validation_shards_of_naflora_mini_are_its_validation_set(tmp_path, monkeypatch):
    write(tmp_path / "tfrec", mini_512, "train", 512)
    write(tmp_path / "tfrec", mini_512, "val", 512, first=100)
    published.write_mini_table(tmp_path / "h22_miniv1_train.tsv", range(N_RECORDS))
    data = find_data(load_profile("laptop"), tmp_path)
    assert data.labels().names.tolist() == SPECIES
    table = data.split(load_profile("laptop"))
    assert table["image_id"][table["part"] == "train"].tolist() == [train_id(n) for n in range(N_RECORDS)]
    held_out = [train_id(number) for number in range(100, 100 + N_RECORDS)]
    assert table["image_id"][table["part"] == "validation"].tolist() == held_out
    assert table["class_index"].tolist() == [*[n % 4 for n in range(N_RECORDS)] * 2]
    result = trained(data, tmp_path / "run", monkeypatch)
    facts = json.loads((result.run_dir / f"{result.run_name}_configs.json").read_text())["run"]
    assert (facts["train_images"], facts["validation_images"]) == (N_RECORDS, N_RECORDS)
    assert np.isfinite(result.best_f1)


@pytest.mark.parametrize("missing", ["image", "image_id"])
def test_a_needed_feature_that_is_absent_is_named_with_what_was_found(tmp_path, missing):
    features = published.train_features(0)
    del features[missing]
    shard = published.write_shard(tmp_path, "train", [published.example(features)])
    found = ", ".join(sorted(features))
    with pytest.raises(InputError, match=f"{shard.name}: record 0 has no feature '{missing}'; found {found}"):
        batches.evaluation_dataset([shard], image_size=32, batch_size=1)
    with pytest.raises(InputError, match=f"{shard.name}: record 0: no feature '{missing}'; found {found}"):
        list(read_records([shard]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (number_as_train_id, "feature 'image_id' is int64, and in .*train00_10.tfrec it is bytes"),
        (own_withheld, "feature 'scientificName' is not there, and in .*train00_10.tfrec it is int64"),
    ],
)
def test_shards_of_two_schemas_in_one_set_are_refused_by_file_and_feature(tmp_path, other, message):
    first = write(tmp_path, train_480, "train", 480)
    records = [published.example(other(number)) for number in range(3)]
    odd = published.write_shard(tmp_path, "train", records, part=7)
    with pytest.raises(InputError, match=f"{odd.name}: {message}"):
        batches.training_dataset([*first, odd], image_size=32, batch_size=2, seed=0)
