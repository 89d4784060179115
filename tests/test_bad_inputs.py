"""Bad inputs to the whole command line, one line a case.

Each gives exit code 1 or 2, one message that names the file (or option) and the way out, no traceback, and
leaves every file as it was. A command that needs no TensorFlow until the mistake is found must not import it.
"""

import contextlib
import copy
import gzip
import hashlib
import importlib.abc
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import nbformat
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from utils.__main__ import main as command_line
from utils.config import Profile, load_profile

# ---------------------------------------------------------------- files to make

# What a file holds: text, bytes, a function that writes it, or a dict for a folder.
Content = str | bytes | Callable[[Path], None] | dict[str, "Content"]


def make(path: Path, content: Content) -> None:
    if isinstance(content, dict):
        path.mkdir(parents=True, exist_ok=True)
        for name, inner in content.items():
            make(path / name, inner)
    elif callable(content):
        content(path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


TABLES: dict[str, list[dict[str, Any]]] = {
    "annotations": [
        {"image_id": "00000__001", "category_id": 0, "genus_id": 3, "institution_id": 0},
        {"image_id": "00002__001", "category_id": 2, "genus_id": 5, "institution_id": 0},
    ],
    "images": [
        {"image_id": "00000__001", "file_name": "000/00/00000__001.jpg", "license": 0},
        {"image_id": "00002__001", "file_name": "000/02/00002__001.jpg", "license": 0},
    ],
    "categories": [
        {"category_id": 0, "scientificName": "Abies alba", "family": "Pinaceae", "genus": "Abies"},
        {"category_id": 2, "scientificName": "Zea mays", "family": "Poaceae", "genus": "Zea"},
    ],
    "genera": [{"genus_id": 3, "genus": "Abies"}, {"genus_id": 5, "genus": "Zea"}],
    "distances": [{"genus_id_x": 3, "genus_id_y": 5, "distance": 250.5}],
    "institutions": [{"institution_id": 0, "collectionCode": "NY"}],
    "licenses": [{"id": 0, "name": "CC0", "url": ""}],
}
GONE = object()


def published(table: str = "", row: int = 0, /, **fields: Any) -> str:
    """A train_metadata.json: all right, or without a table, or with other fields (or GONE) in one row."""
    tables = copy.deepcopy(TABLES)
    if table and not fields:
        del tables[table]
    for name, value in fields.items():
        tables[table][row][name] = value
        if value is GONE:
            del tables[table][row][name]
    return json.dumps(tables)


def sheets(*rows: str, header: str = "image_id,file_name,scientificName,collector") -> str:
    """A CSV of own sheets with these lines below the header; two good ones without any."""
    return "\n".join([header, *(rows or ("1,a.png,Abies alba,x", "2,b.png,Zea mays,y"))]) + "\n"


def image(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").resize(size).save(buffer, kind)
    return buffer.getvalue()


def half_a_jpeg() -> bytes:
    """Half a JPEG with an end marker, of which most decoders make a grey half."""
    whole = image("JPEG", (400, 300))
    return whole[: len(whole) - 900] + b"\xff\xd9"


def twelve_bits() -> bytes:
    """A TIFF with numbers of 12 bits in samples of 16."""
    buffer = BytesIO()
    Image.frombytes("I;16", (40, 30), b"\xff\x0f" * 1200).save(buffer, "TIFF")
    return buffer.getvalue()


def notebook(*cells: str, parameters: str | None = "SEED = 0") -> str:
    """A notebook with a parameters cell (none for None) and others."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        content.cells.insert(0, cell)
    return nbformat.writes(content)


NAME = load_profile("smoke").run_name
LABEL_LISTS = {
    "scientificName": ["Abies alba", "Zea mays"],
    "category_id": [0, 2],
    "genus": ["Abies", "Zea"],
    "family": ["Pinaceae", "Poaceae"],
}


def trained(**files: Content | None) -> dict[str, Content]:
    """The folder of a training run whose weights are no weights; give configs, labels or weights anew.

    None leaves a file out.
    """
    content = {
        "configs": json.dumps(load_profile("smoke").to_dict()),
        "labels": json.dumps(LABEL_LISTS),
        "weights": "no weights",
        **files,
    }
    names = {"configs": f"{NAME}_configs.json", "labels": "labels.json", "weights": f"{NAME}_weights.h5"}
    return {names[key]: value for key, value in content.items() if value is not None}


def labels(**lists: Any) -> str:
    """A labels.json with some lists replaced."""
    return json.dumps({**LABEL_LISTS, **lists})


def configs(**settings: Any) -> str:
    """The configs.json of a run with some settings replaced or added."""
    return json.dumps({**load_profile("smoke").to_dict(), **settings})


def state_of(profile: Profile) -> dict[str, Content]:
    """The folder state/ of a run after one epoch, as far as training reads it before anything is loaded."""
    saved = {
        "profile": profile.to_dict(),
        "checkpoint": "epoch_0001",
        "epoch": 1,
        "best_epoch": 1,
        "best_f1": 0.5,
    }
    saved |= {"history": [{"time": 1.0, "val_f1_score": 0.5}], "tensorflow": "2.15.1", "data": {}}
    files = dict.fromkeys(["epoch_0001.index", "epoch_0001.data-00000-of-00001", "best_0001.h5"], "x")
    return {"state.json": json.dumps(saved), **files}


def mini(**fields: str) -> str:
    """A row of NAFlora-mini's TSV, whose first column has no name, with other fields."""
    row = {
        "": "0",
        "genus_id": "3",
        "institution_id": "0",
        "category_id": "0",
        "image_id": "00000__001",
        "scientificName": "Abies alba",
        "family": "Pinaceae",
        "genus": "Abies",
        "species": "alba",
        "authors": "Mill.",
        **fields,
    }
    return "\t".join(row) + "\n" + "\t".join(row.values()) + "\n"


TEST_IMAGES = json.dumps(
    [{"image_id": number, "file_name": f"{number}.jpg", "license": 0} for number in (7, 8, 9)]
)


def data(**files: Content) -> dict[str, Content]:
    """A data folder of two species and three test sheets; give a file by its stem to replace it."""
    content = {"train_metadata": published(), "test_metadata": TEST_IMAGES, **files}
    suffixes = {"solution": ".csv", "split": ".csv"}
    named = {f"{stem}{suffixes.get(stem, '.json')}": inner for stem, inner in content.items() if inner}
    return {"x_train00_2.tfrec": b"", **named}


def answers(*rows: str, header: str = "Id,Predicted") -> str:
    """A submission or solution."""
    return "\n".join([header, *rows]) + "\n"


def shard(*images: bytes, keep: int | None = None, flip: int | None = None) -> Callable[[Path], None]:
    """A shard with these images, of class 0, made by TensorFlow; cut off, or with a flipped bit in a byte."""

    def write(path: Path) -> None:
        from utils.own.shards import Record, write_shards

        records = [Record(content, f"id{number}", 0, 0, 0) for number, content in enumerate(images)]
        (written,) = write_shards(records, path.parent, split="train", prefix=f"for-{path.stem}")
        content = bytearray(written.read_bytes()[:keep])
        written.unlink()
        if flip is not None:
            content[flip] ^= 1
        path.write_bytes(content)

    return write


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Case:
    """One bad input."""

    name: str
    command: str  # after `python -m utils`, run in the folder of the files
    files: dict[str, Content]
    code: int
    told: tuple[str, ...]  # must be in the message: the file or option, and the way out
    tensorflow: bool = False  # the mistake is found by TensorFlow, or behind its import
    leaves: str = "-"  # folder in which a job that can be continued may keep new files


def case(name: str, command: str, files: dict[str, Content], code: int, *told: str, **more: Any) -> Case:
    return Case(name, command, files, code, told, **more)


TF = {"tensorflow": True}
TRAIN = "train --profile smoke --out r"
SPLIT = "split s.csv --out split.csv"
PREDICT = "predict --model m --out p.csv"
WRITE = "tfrecords write --labels s.csv --images i --out o"
VALIDATE = "submission validate s.csv --data d"
SCORE = "submission score s.csv --data d"
IMAGES = {"a.png": image(), "b.png": image()}
SOLUTION = answers("7,0", "8,0", "9,2")

# fmt: off
CASES = [
    # options
    case("unknown command", "trian", {}, 2, "'trian'", "--help"),
    case("unknown subcommand", "submission chekc", {}, 2, "'chekc'", "--help"),
    case("unknown option", "train --epoch 3", {}, 2, "--epoch", "--help"),
    case("option without its value", "train --out", {}, 2, "'--out' requires an argument"),
    case("metadata without a file", "metadata", {}, 2, "FILE", "--help"),
    case("verify without a shard", "tfrecords verify", {}, 2, "FILES", "--help"),
    case("model without classes", "model", {}, 2, "--classes", "--help"),
    case("model of one class", "model --classes 1", {}, 2, "--classes", "x>=2"),
    case("model of another backbone", "model --classes 9 -s backbone=B9", {}, 2, "backbone is 'B9'", "one of B0"),
    case("unknown profile", "run --profile laptp --out r", {}, 2, "'laptp'", "Did you mean 'laptop'"),
    case("unknown setting", f"{TRAIN} -s epoch=1", {}, 2, "'epoch'", "Did you mean 'epochs'"),
    case("setting without a value", f"{TRAIN} -s epochs", {}, 2, "-s epochs", "as in -s epochs=3"),
    case("setting of the wrong type", f"{TRAIN} -s epochs=many", {}, 2, "epochs is 'many'", "type int"),
    case("setting that is no number", f"{TRAIN} -s epochs=inf", {}, 2, "epochs is 'inf'", "type int"),
    case("setting without an end", f"{TRAIN} -s max_lr=inf", {}, 2, "max_lr is 'inf'", "type float"),
    case("setting that is nan", f"{TRAIN} -s crop=nan", {}, 2, "crop is 'nan'", "type float"),
    case("setting out of range", f"{TRAIN} -s image_size=8", {}, 2, "image_size is 8", "from 32 to 1024"),
    case("negative seed", f"{TRAIN} -s seed=-1", {}, 2, "seed is -1", "0 or more"),
    case("name as a setting", f"{TRAIN} -s name=x", {}, 2, "-s name", "--profile"),

    # run
    case("unknown notebook", "run 47 --out r", {}, 2, "'47'", "Give a number"),
    case("notebook with a slip in its name", "run 05_submision --out r", {}, 2, "Did you mean '05_submission'"),
    case("notebook before training", "run 05 --out r", {}, 2, "05_submission needs", "./course run 03 05", "runs/latest"),
    case("notebooks in a wrong order", "run 04 03 --out r", {}, 2, "04_evaluate_long_tail needs", "./course run 03 04"),
    case("notebook without a name", "run '' --out r", {}, 2, "no notebook ''", "Give a number"),
    case("notebook that is not there", "run n.ipynb --out r", {}, 2, "n.ipynb", "Give the path"),
    case("notebook that is no JSON", "run n.ipynb --out r", {"n.ipynb": "{"}, 1, "n.ipynb", "not valid JSON"),
    case("notebook that is a list", "run n.ipynb --out r", {"n.ipynb": "[1]"}, 1, "n.ipynb", "Give an .ipynb"),
    case("notebook of numbers", "run n.ipynb --out r", {"n.ipynb": '{"cells": [1]}'}, 1, "n.ipynb", "Give an .ipynb"),
    case("notebook without parameters", "run n.ipynb --out r", {"n.ipynb": notebook("1", parameters=None)}, 1, "n.ipynb", "Tag the cell"),
    case("parameters that are computed", "run n.ipynb --out r", {"n.ipynb": notebook(parameters="A = 1\nB = A")}, 1, "n.ipynb", "line 2", "in the next cell"),
    case("parameters that are no Python", "run n.ipynb --out r", {"n.ipynb": notebook(parameters="A = = 1")}, 1, "n.ipynb", "line 1"),
    case("parameter without a value", "run 03 --out r -p EPOCHS", {}, 2, "-p EPOCHS", "NAME=VALUE"),
    case("unknown parameter", "run 03 --out r -p EPOCH=1", {}, 2, "'EPOCH'", "Did you mean 'EPOCHS'"),
    case("parameter of the wrong type", "run n.ipynb --out r -p SEED=x", {"n.ipynb": notebook()}, 2, "SEED=x", "type int"),
    case("parameter that is an option", "run 03 --out r -p PROFILE=smoke", {}, 2, "PROFILE", "Use --profile"),
    case("data of the course not there", "run 03 --out r --data d", {}, 2, "'d'", "--data"),
    case("run's folder is a file", "run 03 --out r", {"r": "mine"}, 2, "'r'", "--out"),
    case("run's folder has another result", "run 03 --out r", {"r": {"result.json": "{}"}}, 1, "result.json", "another folder"),
    case("run's result is cut off", "run 03 --out r", {"r": {"result.json": '{"noteb'}}, 1, "result.json", "again"),

    # train
    case("training data not there", f"{TRAIN} --data d", {}, 2, "'d'", "--data"),
    case("training data without shards", f"{TRAIN} --data d", {"d": {"a.jpg": image("JPEG")}}, 1, "d: no training shards", "data_links.md"),
    case("training data in two folders", f"{TRAIN} --data d", {"d": {"a": data(), "b": data()}}, 1, "several folders", "Name one"),
    case("training data without a split in the name", f"{TRAIN} --data d", {"d": {"00-512x512-4.tfrec": b""}}, 1, "00-512x512-4.tfrec", "Rename"),
    case("training data half written", f"{TRAIN} --data d", {"d": {"unfinished": {"job.json": "{}"}}}, 1, "d: the job that writes these shards is not finished", "tfrecords write"),
    case("two metadata files", f"{TRAIN} --data d", {"d": data() | {"old": {"train_metadata.json": published()}}}, 1, "several train_metadata.json", "Name one"),
    case("training output is a file", f"{TRAIN} --data d", {"d": data(), "r": "mine"}, 2, "'r'", "--out"),
    case("training metadata cut off", f"{TRAIN} --data d", {"d": data(train_metadata='{"ima')}, 1, "train_metadata.json", "again", **TF),
    case("training labels cut off", f"{TRAIN} --data d", {"d": data(labels="{")}, 1, "labels.json", "again", **TF),
    case("training labels of a wrong kind", f"{TRAIN} --data d", {"d": data(labels=labels(genus=[1, 2]))}, 1, "labels.json", "'genus'", "again", **TF),
    case("batch larger than the data", f"{TRAIN} --data d -s batch_size=64", {"d": {"x_train00_3.tfrec": shard(*[image("JPEG")] * 3), "labels.json": labels()}}, 1, "batch_size is 64", "set it lower", **TF),
    case("training shard cut off", f"{TRAIN} --data d", {"d": {"x_train00_3.tfrec": shard(*[image("JPEG")] * 3, keep=900), "labels.json": labels()}}, 1, "x_train00_3.tfrec", "again", **TF),
    case("training shard of text", f"{TRAIN} --data d", {"d": {"x_train00_3.tfrec": "text of more than sixteen bytes", "labels.json": labels()}}, 1, "x_train00_3.tfrec", "again", **TF),
    case("run of other settings", f"{TRAIN} --data d", {"d": data(), "r": {"state": state_of(load_profile("smoke", seed=5))}}, 2, "r: holds a run with seed: 5", "another output folder", **TF),

    # predict
    case("nothing to predict", PREDICT, {"m": {}}, 2, "--images", "Give one of"),
    case("two things to predict", f"{PREDICT} --images i --data d", {"m": {}, "i": {}, "d": {}}, 2, "--images", "Give one of"),
    case("page of shards", f"{PREDICT} --data d --html p.html", {"m": {}, "d": {}}, 2, "--html", "--images"),
    case("page in place of the CSV", f"{PREDICT} --images i --html p.csv", {"m": {}, "i": IMAGES}, 2, "p.csv", "another name"),
    case("model not there", f"{PREDICT} --images i", {"i": IMAGES}, 2, "'m'", "--model"),
    case("images not there", f"{PREDICT} --images i", {"m": {}}, 2, "'i'", "--images"),
    case("CSV is a folder", f"{PREDICT} --images i", {"m": {}, "i": IMAGES, "p.csv": {}}, 2, "'p.csv'", "--out"),
    case("CSV below a file", f"{PREDICT}/x.csv --images i", {"m": {}, "i": IMAGES, "p.csv": "mine"}, 1, "p.csv is a file", "another place"),
    case("page is a folder", f"{PREDICT} --images i --html h", {"m": {}, "i": IMAGES, "h": {}}, 2, "'h'", "--html"),
    case("CSV in place of a sheet", "predict --model m --images i --out i/a.png", {"m": {}, "i": IMAGES}, 2, "i/a.png", "another name"),
    case("no images", f"{PREDICT} --images i", {"m": {}, "i": {"a.heic": "x", "b": {}}}, 1, "i: no image files", "1 .heic", "convert"),
    case("empty image", f"{PREDICT} --images i", {"m": {}, "i": {**IMAGES, "c.jpg": ""}}, 1, "c.jpg: the file is empty", "--skip-bad"),
    case("text as image", f"{PREDICT} --images i", {"m": {}, "i": {**IMAGES, "c.tif": "text"}}, 1, "c.tif: not a JPEG", "--skip-bad"),
    case("only bad images", f"{PREDICT} --images i --skip-bad", {"m": {}, "i": {"c.jpg": "", "s": {"d.jpg": "x"}}}, 1, "s/d.jpg", "2 of 2", "Replace"),
    case("no trained run", f"{PREDICT} --images i", {"m": {}, "i": IMAGES, "p.csv": "mine"}, 1, "m: no trained run", "train first, by notebook 03", **TF),
    case("two trained runs", f"{PREDICT} --images i", {"m": {**trained(), "other_configs.json": configs()}, "i": IMAGES}, 1, "m: several runs", "name one", **TF),
    case("run's settings cut off", f"{PREDICT} --images i", {"m": trained(configs="{"), "i": IMAGES}, 1, "configs.json", "again", **TF),
    case("run's settings are a list", f"{PREDICT} --images i", {"m": trained(configs="[]"), "i": IMAGES}, 1, "configs.json", "again", **TF),
    case("run's settings not known", f"{PREDICT} --images i", {"m": trained(configs=configs(epoch=1)), "i": IMAGES}, 2, "configs.json", "Did you mean 'epochs'", **TF),
    case("run's settings out of range", f"{PREDICT} --images i", {"m": trained(configs=configs(crop=2)), "i": IMAGES}, 2, "crop is 2.0", "at most 1", **TF),
    case("run without labels", f"{PREDICT} --images i", {"m": trained(labels=None), "i": IMAGES}, 1, "labels.json: no such file", **TF),
    case("run's labels not sorted", f"{PREDICT} --images i", {"m": trained(labels=labels(scientificName=["Z", "A"])), "i": IMAGES}, 1, "labels.json", "sorted", "again", **TF),
    case("run's labels of two lengths", f"{PREDICT} --images i", {"m": trained(labels=labels(genus=["A"])), "i": IMAGES}, 1, "labels.json", "length", "again", **TF),
    case("run without weights", f"{PREDICT} --images i", {"m": trained(weights=None), "i": IMAGES}, 1, "_weights.h5", "run the training again", **TF),
    case("run's weights cut off", f"{PREDICT} --images i", {"m": trained(weights=b"\x89HDF\r\n\x1a\n"), "i": IMAGES}, 1, "_weights.h5", "again", **TF),
    case("no test shards", f"{PREDICT} --data d", {"m": {}, "d": data()}, 1, "d: no test shards", "--shards"),
    case("shard not there", f"{PREDICT} --shards x.tfrec", {"m": {}}, 2, "x.tfrec", "--shards"),

    # split
    case("split of no file", SPLIT, {}, 2, "'s.csv'", "does not exist"),
    case("split into a folder", SPLIT, {"s.csv": sheets(), "split.csv": {}}, 2, "'split.csv'", "--out"),
    case("all for validation", f"{SPLIT} --validation 1", {"s.csv": sheets()}, 2, "validation fraction is 1.0", "below 1"),
    case("negative test part", f"{SPLIT} --test -0.1", {"s.csv": sheets()}, 2, "test fraction is -0.1", "from 0"),
    case("nothing left to train on", f"{SPLIT} --validation 0.5 --test 0.5", {"s.csv": sheets(), "split.csv": "mine"}, 2, "together", "nothing to train on"),
    case("split with a negative seed", f"{SPLIT} --seed -1", {"s.csv": sheets()}, 2, "--seed", "x>=0"),
    case("group that is no column", f"{SPLIT} --group colector", {"s.csv": sheets()}, 1, "s.csv: no column 'colector'", "collector"),
    case("group that is the id", f"{SPLIT} --group image_id", {"s.csv": sheets()}, 1, "s.csv", "Name one"),

    # metadata: every command that reads it reads it so
    case("metadata not there", "metadata m.json", {}, 2, "m.json", "does not exist"),
    case("metadata cut off", "metadata m.json", {"m.json": published()[:200]}, 1, "m.json", "not valid JSON", "again"),
    case("metadata is not text", "metadata m.json", {"m.json": b"\xff\xfe\x00"}, 1, "m.json", "again"),
    case("metadata without a table", "metadata m.json", {"m.json": published("categories")}, 1, "m.json", "'categories'"),
    case("metadata without a field", "metadata m.json", {"m.json": published("images", 1, file_name=GONE)}, 1, "m.json", "'images'", "file_name"),
    case("metadata with a word for a number", "metadata m.json", {"m.json": published("annotations", 1, category_id="x")}, 1, "m.json", "category_id", "'x'", "integer"),
    case("image_id twice", "metadata m.json", {"m.json": published("images", 1, image_id="00000__001")}, 1, "m.json", "image_id '00000__001'"),
    case("annotation without image", "metadata m.json", {"m.json": published("annotations", 0, image_id="x")}, 1, "m.json", "'annotations'", "image_id 'x'"),
    case("annotation without category", "metadata m.json", {"m.json": published("annotations", 0, category_id=9)}, 1, "m.json", "category_id 9"),
    case("annotation without genus", "metadata m.json", {"m.json": published("annotations", 0, genus_id=9)}, 1, "m.json", "genus_id 9"),
    case("test metadata for training", "split m.json --out split.csv", {"m.json": TEST_IMAGES}, 1, "m.json", "test_metadata.json"),
    case("metadata of another format", "metadata m.xlsx", {"m.xlsx": b"PK\x03\x04"}, 1, "m.xlsx", "Save the table as CSV"),
    case("CSV without a name", "metadata s.csv", {"s.csv": sheets("1,a.jpg,,x")}, 1, "s.csv", "line 2", "scientificName"),
    case("CSV without a column", "metadata s.csv", {"s.csv": sheets("1,a.jpg", header="image_id,file_name")}, 1, "s.csv", "scientificName"),
    case("CSV without rows", "metadata s.csv", {"s.csv": sheets("")}, 1, "s.csv", "no rows"),
    case("empty CSV", "metadata s.csv", {"s.csv": ""}, 1, "s.csv"),
    case("CSV not in UTF-8", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Abies ×alba,x").encode("latin-1")}, 1, "s.csv", "UTF-8"),
    case("sheet twice in the CSV", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Abies alba,x", "1,b.jpg,Zea mays,y")}, 1, "s.csv", "line 3", "image_id '1'"),
    case("species of two families", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Zea mays,A", "2,b.jpg,Zea mays,B", header="image_id,file_name,scientificName,family")}, 1, "s.csv", "line 3", "family", "'B'"),

    case("file name that climbs out", "metadata m.json", {"m.json": published("images", 0, file_name="../x.jpg")}, 1, "m.json", "'images'", "../x.jpg"),
    case("file name that is absolute", "metadata s.csv", {"s.csv": sheets("1,/etc/x.jpg,Abies alba,x")}, 1, "s.csv", "line 2", "/etc/x.jpg"),
    case("file name of Windows", "metadata s.csv", {"s.csv": sheets("1,C:\\x.jpg,Abies alba,x")}, 1, "s.csv", "line 2", "C:"),
    case("genus without entry", "metadata m.json", {"m.json": published("genera", 1, genus_id=6)}, 1, "m.json", "genus_id 5"),
    case("distances the wrong way round", "metadata m.json", {"m.json": published("distances", 0, genus_id_x=5, genus_id_y=3)}, 1, "m.json", "'distances'", "genus_id_x"),
    case("distance that is no number", "metadata m.json", {"m.json": published("distances", 0, distance="far")}, 1, "m.json", "'distances'", "'far'"),
    case("image under two species", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Abies alba,x", "2,a.jpg,Zea mays,y")}, 1, "s.csv", "line 3", "a.jpg"),
    case("several problems at once", "metadata s.csv", {"s.csv": sheets("1,a.jpg,,x", "1,b.jpg,Zea mays,y", "3,,Zea mays,y")}, 1, "s.csv", "line 2", "line 3", "line 4"),
    case("forty problems", "metadata s.csv", {"s.csv": sheets(*["1,a.jpg,,x"] * 40)}, 1, "s.csv", "79 problems, 20 of them", "line 2"),
    case("CSV with a column twice", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Zea mays,1", header="image_id,file_name,scientificName,image_id")}, 1, "s.csv", "'image_id'", "Keep one"),
    case("CSV with too few fields", "metadata s.csv", {"s.csv": sheets("1,a.jpg")}, 1, "s.csv", "line 2", "Add what is missing"),
    case("CSV with a quote not closed", "metadata s.csv", {"s.csv": sheets('1,a.jpg,"Zea mays,x', "2,b.jpg,Abies alba,y")}, 1, "s.csv", "a quote opens in line 2", "Close it there"),
    case("CSV with a quote that takes in rows", "metadata s.csv", {"s.csv": sheets('1,a.jpg,Zea mays,"El', "2,b.jpg,Abies alba,y", '3,c.jpg,Abies alba,6"')}, 1, "s.csv", "a quote opens in line 2", "line 4", "Close it there"),
    case("TSV with too many tabs", "metadata s.tsv", {"s.tsv": sheets("1,a.jpg,Zea mays,x,y").replace(",", "\t")}, 1, "s.tsv", "line 2", "remove"),
    case("CSV with a NUL byte", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Zea\0mays,x")}, 1, "s.csv", "line 2", "Give a JSON"),
    case("two CSVs in one", "metadata s.csv", {"s.csv": sheets() + sheets("3,c.jpg,Zea mays,x")}, 1, "s.csv", "line 4", "Remove that line"),
    case("CSV in UTF-16", "metadata s.csv", {"s.csv": sheets().encode("utf-16")}, 1, "s.csv", "UTF-16", "Save the table as CSV in UTF-8"),
    case("label that is no name", "metadata s.csv", {"s.csv": sheets("1,a.jpg,NA,x", "2,b.jpg,Zea mays,y")}, 1, "s.csv", "line 2", "'NA' is no name", "Name the taxon"),
    case("one id for two images", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Zea mays,x", "1,b.jpg,Zea mays,y")}, 1, "s.csv", "line 3", "Give 'a.jpg' and 'b.jpg' an id each"),
    case("a wide header without the columns", "metadata s.csv", {"s.csv": ",".join(f"column{n}" for n in range(9000)) + "\n"}, 1, "s.csv", "and 8988 more", "Give a table"),
    case("group in another case", f"{SPLIT} --group Collector", {"s.csv": sheets()}, 1, "s.csv", "no column 'Collector'", "found collector"),
    case("metadata in Latin-1", "metadata m.json", {"m.json": published("categories", 0, authors="Müll").replace("\\u00fc", "ü").encode("latin-1")}, 1, "m.json", "not UTF-8", "again in UTF-8"),
    case("metadata in JSON lines", "metadata m.json", {"m.json": '{"image_id": 1}\n{"image_id": 2}\n'}, 1, "m.json", "JSON lines", "one object of tables"),
    case("species that is no name", "metadata m.json", {"m.json": published("categories", 0, scientificName="nan")}, 1, "m.json", "'categories', row 0", "is no name"),
    case("split file with a field too many", f"{WRITE} --split p.csv", {"s.csv": sheets(), "i": IMAGES, "p.csv": "image_id,split\n1,train\n2,test,x\n"}, 1, "p.csv", "line 3", "remove"),
    case("CSV with too many fields", "metadata s.csv", {"s.csv": sheets("1,a.jpg,Zea mays,x,y")}, 1, "s.csv", "line 2", "Quote"),
    case("mini TSV with a word for an id", "metadata m.tsv", {"m.tsv": mini(category_id="x")}, 1, "m.tsv", "category_id", "'x'"),
    case("mini TSV with an odd image_id", "metadata m.tsv", {"m.tsv": mini(image_id="7")}, 1, "m.tsv", "image_id", "00026__004"),
    case("folder without subfolders", "metadata i", {"i": IMAGES}, 1, "i: no folders", "one subfolder per species"),
    case("folder with a sheet beside the species", "metadata i", {"i": {"a.png": image(), "Zea mays": IMAGES}}, 1, "'a.png'", "Move it"),
    case("folder without images", "metadata i", {"i": {"Zea mays": {"notes.txt": "x"}}}, 1, "i: no folders", "give a CSV"),
    case("metadata is an empty object", "metadata m.json", {"m.json": "{}"}, 1, "m.json", "'annotations'"),

    # split files
    case("split file without its column", f"{WRITE} --split p.csv", {"s.csv": sheets(), "i": IMAGES, "p.csv": "image_id\n1\n"}, 1, "p.csv", "'split'"),
    case("split file with another word", f"{WRITE} --split p.csv", {"s.csv": sheets(), "i": IMAGES, "p.csv": "image_id,split\n1,train\n2,dev\n"}, 1, "p.csv", "line 3", "'dev'", "one of train"),
    case("split file with a sheet twice", f"{WRITE} --split p.csv", {"s.csv": sheets(), "i": IMAGES, "p.csv": "image_id,split\n1,train\n1,test\n"}, 1, "p.csv", "line 3", "twice"),
    case("split file without a sheet", f"{WRITE} --split p.csv", {"s.csv": sheets(), "i": IMAGES, "p.csv": "image_id,split\n1,train\n"}, 1, "p.csv", "'2'", "Write the split"),
    case("split file that leaves nothing", f"{WRITE} --split p.csv", {"s.csv": sheets(), "i": IMAGES, "p.csv": "image_id,split\n1,test\n2,test\n"}, 1, "p.csv", "to train on"),
    case("split file and a fraction", f"{WRITE} --split p.csv --test-fraction 0.5", {"s.csv": sheets(), "i": IMAGES, "p.csv": "image_id,split\n1,train\n2,test\n"}, 2, "split file", "test fraction"),

    # tfrecords
    case("half a JPEG with an end", WRITE, {"s.csv": sheets("1,a.jpg,Abies alba,x"), "i": {"a.jpg": half_a_jpeg()}}, 1, "i/a.jpg: not a readable image (Corrupt JPEG data: premature end of data segment)", "--skip-bad", leaves="o", **TF),
    case("PNG with a wrong byte", WRITE, {"s.csv": sheets("1,a.png,Abies alba,x"), "i": {"a.png": image()[:-20] + b"x" + image()[-19:]}}, 1, "i/a.png: not a readable image (its IDAT chunk has a wrong checksum)", "--skip-bad", leaves="o", **TF),
    case("PNG sent as text", WRITE, {"s.csv": sheets("1,a.png,Abies alba,x"), "i": {"a.png": image().replace(b"\n", b"\r\n")}}, 1, "i/a.png: not a readable image (it was transferred as text", "binary mode", leaves="o", **TF),
    case("12 bits in 16", WRITE, {"s.csv": sheets("1,a.tif,Abies alba,x"), "i": {"a.tif": twelve_bits()}}, 1, "i/a.tif: not a readable image (none of its 16-bit samples is above 4,095", "save it with 8 bits", leaves="o", **TF),
    case("part of nothing", f"{WRITE} --shard 3/2", {"s.csv": sheets(), "i": IMAGES}, 2, "3/2", "as in 1/2"),
    case("part without a number", f"{WRITE} --shard one", {"s.csv": sheets(), "i": IMAGES}, 2, "--shard one", "as in 1/2"),
    case("shards of no image", f"{WRITE} --shard-images 0", {"s.csv": sheets(), "i": IMAGES}, 2, "0", "1 or more"),
    case("unknown fit", f"{WRITE} --fit crop", {"s.csv": sheets(), "i": IMAGES}, 2, "--fit", "'pad'"),
    case("label map of other species", f"{WRITE} --label-map l.json", {"s.csv": sheets("1,a.png,Rosa alba,x"), "i": IMAGES, "l.json": labels()}, 1, "s.csv", "Rosa alba", "Correct"),
    case("label map cut off", f"{WRITE} --label-map l.json", {"s.csv": sheets(), "i": IMAGES, "l.json": "{"}, 1, "l.json", "again"),
    case("folder of another job", WRITE, {"s.csv": sheets(), "i": IMAGES, "o": {"manifest.json": json.dumps({"shards": [], "settings": {"size": 64}})}}, 1, "manifest.json", "another"),
    case("manifest that is none", "tfrecords inspect o", {"o": {"x.tfrec": shard(image("JPEG")), "manifest.json": "[]"}}, 1, "manifest.json", "again", **TF),
    case("folder without shards", "tfrecords verify o", {"o": {"notes.txt": "x"}}, 1, "o: no shards", "Name the folder"),
    case("no CSV to write from", WRITE, {"i": IMAGES}, 2, "s.csv", "--labels"),
    case("no images to write", WRITE, {"s.csv": sheets()}, 2, "'i'", "--images"),
    case("shard that is compressed", "tfrecords verify x.tfrec", {"x.tfrec": gzip.compress(b"a record")}, 1, "x.tfrec: is compressed (GZIP)", "gzip -dcf", **TF),
    case("shards that are compressed", "tfrecords verify o", {"o": {"x.tfrec.gz": gzip.compress(b"a record")}}, 1, "x.tfrec.gz: is compressed", "gunzip o/*.gz"),
    case("shard that is a web page", "tfrecords inspect x.tfrec", {"x.tfrec": "<!doctype html><title>404</title>"}, 1, "x.tfrec", "a web page", "again", **TF),
    case("record whose image is a PNG", "tfrecords verify x.tfrec", {"x.tfrec": shard(image())}, 1, "x.tfrec: record 0", "a PNG (L)", "tfrecords write", **TF),
    case("shards in a subfolder", "tfrecords verify o", {"o": {"a": {"x.tfrec": b""}}}, 1, "o: no shards", "they lie in a", "Name the folder"),
    case("folders of a split", "metadata i", {"i": {"train": {"Zea mays": IMAGES}, "val": {"Zea mays": IMAGES}}}, 1, "i: its folders 'train', 'val'", "./course table i --out labels.csv", "--split"),
    case("folders of genera", "tfrecords write --images i --out o", {"i": {"Zea": {"mays": IMAGES}}}, 1, "i: it is not certain", "./course table i --out labels.csv"),
    case("folder of images", "metadata i", {"i": {"images": IMAGES, "l.csv": sheets()}}, 1, "'images' names no species", "--labels i/l.csv"),
    case("associatedMedia with addresses", "metadata s.csv", {"s.csv": "associatedMedia,scientificName\nhttps://x/1.jpg,Poa annua\n"}, 1, "line 2: associatedMedia 'https://x/1.jpg'", "Download"),
    case("associatedMedia of several files", "metadata s.csv", {"s.csv": "associatedMedia,scientificName\n1.jpg | 2.jpg,Poa annua\n"}, 1, "line 2: associatedMedia '1.jpg | 2.jpg'", "a line for each"),
    case("associatedMedia with semicolons", "metadata s.csv", {"s.csv": "associatedMedia,scientificName\n1.jpg; 2.JPG,Poa annua\n"}, 1, "line 2: associatedMedia", "a line for each"),
    case("specimen without an image", "metadata s.csv", {"s.csv": "associatedMedia,scientificName\n,Poa annua\n"}, 1, "line 2: associatedMedia is empty", "remove the line"),
    case("specimen without a genus", "metadata s.csv", {"s.csv": "file_name,genus,specificEpithet\n1.jpg,,annua\n"}, 1, "line 2: genus is empty", "Fill it in"),
    case("specimens without files", "metadata s.csv", {"s.csv": "catalogNumber,scientificName\nK1,Poa annua\n"}, 1, "no column 'file_name'", "associatedMedia"),
    case("archive of Darwin Core", "metadata i", {"i": {"images": IMAGES, "occurrence.txt": "id"}}, 1, "i: is a Darwin Core archive", "Make a table"),
    case("table over a file", "table i --out l.csv", {"i": {"Zea mays": IMAGES}, "l.csv": sheets()}, 2, "l.csv", "Name another"),
    case("table of no folder", "table i --out l.csv", {"i": IMAGES}, 1, "i: no folders with images", "Name the folder"),
    case("file name in other case", WRITE, {"s.csv": sheets("1,A.png,Abies alba,x"), "i": IMAGES}, 1, "s.csv", "A.png (there is a.png)"),
    case("shards into a file", WRITE, {"s.csv": sheets(), "i": IMAGES, "o": "mine"}, 2, "'o'", "--out"),
    case("shards of no size", f"{WRITE} --size 0", {"s.csv": sheets(), "i": IMAGES}, 2, "size is 0", "from 16"),
    case("quality beyond 100", f"{WRITE} --quality 101", {"s.csv": sheets(), "i": IMAGES}, 2, "quality is 101", "to 100"),
    case("all withheld", f"{WRITE} --test-fraction 1", {"s.csv": sheets(), "i": IMAGES}, 2, "test fraction is 1", "below 1"),
    case("image of the CSV not there", WRITE, {"s.csv": sheets(), "i": {"a.png": image()}}, 1, "b.png", "Add"),
    case("image of the CSV is text", WRITE, {"s.csv": sheets(), "i": {"a.png": image(), "b.png": "text"}}, 1, "b.png", "Replace", leaves="o/unfinished", **TF),
    case("image of the CSV cut off", WRITE, {"s.csv": sheets(), "i": {"a.png": image(), "b.png": image("JPEG", (400, 300))[:-99]}}, 1, "b.png", "Replace", leaves="o/unfinished", **TF),
    case("folder with other shards", WRITE, {"s.csv": sheets(), "i": IMAGES, "o": {"x_train00_9.tfrec": "mine"}}, 1, "x_train00_9.tfrec", "another"),
    case("shard to inspect not there", "tfrecords inspect x.tfrec", {}, 2, "x.tfrec", "does not exist"),
    case("shard to inspect is text", "tfrecords inspect x.tfrec", {"x.tfrec": "text of more than sixteen bytes"}, 1, "x.tfrec", "again", **TF),
    case("shard to inspect is cut off", "tfrecords inspect x.tfrec", {"x.tfrec": shard(image("JPEG"), image("JPEG"), keep=-9)}, 1, "x.tfrec: record 1", "again", **TF),
    case("shard to verify is empty", "tfrecords verify x.tfrec", {"x.tfrec": b""}, 1, "x.tfrec", "no records", "again", **TF),
    case("shard to verify is cut off", "tfrecords verify x.tfrec", {"x.tfrec": shard(image("JPEG"), keep=500)}, 1, "x.tfrec", "record 0", "again", **TF),
    case("a flipped bit", "tfrecords verify x.tfrec", {"x.tfrec": shard(image("JPEG"), image("JPEG"), flip=300)}, 1, "x.tfrec", "record 0", "again", **TF),
    case("record whose image is none", "tfrecords verify x.tfrec", {"x.tfrec": shard(image("JPEG"), b"text")}, 1, "x.tfrec", "record 1", "again", **TF),
    case("record of half a JPEG with an end", "tfrecords verify x.tfrec", {"x.tfrec": shard(image("JPEG"), half_a_jpeg())}, 1, "x.tfrec: record 1", "an image that is not a whole JPEG (Corrupt JPEG data: premature end", "again", **TF),
    case("fewer records than in the name", "tfrecords verify x_train00_3.tfrec", {"x_train00_3.tfrec": shard(image("JPEG"))}, 1, "x_train00_3.tfrec", "1 records", "again", **TF),

    # flora
    case("flora of one species", "flora --species 1 --out f", {}, 2, "species is 1", "2 or more"),
    case("flora of a few species", "flora --species few --out f", {}, 2, "--species", "'few'"),
    case("flora of too few images", "flora --max-images 3 --out f", {}, 2, "max_images is 3", "min_images or more"),
    case("flora with a negative seed", "flora --seed -1 --out f", {}, 2, "--seed", "x>=0"),
    case("flora of unknown form", "flora --form png --out f", {}, 2, "--form", "'images'"),
    case("flora into other files", "flora --out f", {"f": {"my.txt": "mine"}}, 1, "f: has files", "new or empty folder"),
    case("flora over another flora", "flora --out f", {"f": {"flora.json": '{"spec": {"seed": 9}}'}}, 1, "f: holds another", "name another"),
    case("flora over a list", "flora --out f", {"f": {"flora.json": "[]"}}, 1, "f: holds another", "name another"),
    case("flora into a file", "flora --out f", {"f": "mine"}, 2, "'f'", "--out"),

    # submission
    case("submission not there", VALIDATE, {"d": data()}, 2, "s.csv", "does not exist"),
    case("submission is empty", VALIDATE, {"s.csv": "", "d": data()}, 1, "s.csv, line 1", "must be Id,Predicted"),
    case("submission's header in small letters", VALIDATE, {"s.csv": answers("7,0", "8,0", "9,0", header="Id,predicted"), "d": data()}, 1, "s.csv, line 1", "must be Id,Predicted"),
    case("submission with an unknown species", VALIDATE, {"s.csv": answers("7,0", "8,1", "9,0"), "d": data()}, 1, "s.csv, line 3", "not a category_id", "LabelMap.to_category()"),
    case("submission with a word", VALIDATE, {"s.csv": answers("7,0", "8,Zea mays", "9,0"), "d": data()}, 1, "s.csv, line 3", "'Zea mays'", "one whole number"),
    case("submission with two answers", VALIDATE, {"s.csv": answers("7,0 2", "8,0", "9,0"), "d": data()}, 1, "s.csv, line 2", "one whole number"),
    case("submission with a number too long", VALIDATE, {"s.csv": answers("7,0", "8," + 5000 * "9", "9,0"), "d": data()}, 1, "s.csv, line 3", "one whole number"),
    case("submission with a sheet twice", VALIDATE, {"s.csv": answers("7,0", "8,0", "8,2", "9,0"), "d": data()}, 1, "s.csv, line 4", "already on line 3"),
    case("submission with a foreign sheet", VALIDATE, {"s.csv": answers("7,0", "8,0", "9,0", "10,0"), "d": data()}, 1, "s.csv, line 5", "not a test sheet"),
    case("submission without a sheet", VALIDATE, {"s.csv": answers("7,0", "9,0"), "d": data()}, 1, "s.csv", "first: 8", "3 rows are needed"),
    case("submission with half a row", VALIDATE, {"s.csv": answers("7,0", "8", "9,0"), "d": data()}, 1, "s.csv, line 3", "needs an Id and a Predicted"),
    case("submission with a third column", VALIDATE, {"s.csv": answers("7,0,.9", "8,0,.9", "9,0,.9", header="Id,Predicted,confidence"), "d": data()}, 1, "s.csv, line 1", "'confidence'", "Remove"),
    case("submission with a comma too many", VALIDATE, {"s.csv": answers("7,0", "8,0,", "9,0"), "d": data()}, 1, "s.csv, line 3", "found 3 fields"),
    case("submission in other digits", VALIDATE, {"s.csv": answers("7,0", "8,\u0662", "9,0"), "d": data()}, 1, "s.csv, line 3", "the digits 0 to 9"),
    case("submission that is no text", VALIDATE, {"s.csv": b"\xff\xfe", "d": data()}, 1, "s.csv", "cannot be read as CSV"),
    case("submission that is a folder", VALIDATE, {"s.csv": {}, "d": data()}, 1, "s.csv", "cannot be read as CSV"),
    case("data without test sheets", VALIDATE, {"s.csv": answers("7,0"), "d": data(test_metadata="")}, 1, "test_metadata.json", "--data"),
    case("test metadata is no list", VALIDATE, {"s.csv": answers("7,0"), "d": data(test_metadata="{}")}, 1, "test_metadata.json", "must be a list"),
    case("test metadata with an id twice", VALIDATE, {"s.csv": answers("7,0"), "d": data(test_metadata=TEST_IMAGES.replace("8", "7"))}, 1, "test_metadata.json", "image_id '7'"),
    case("data without answers", SCORE, {"s.csv": SOLUTION, "d": data()}, 1, "solution.csv", "--solution"),
    case("answers not there", f"{SCORE} --solution t.csv", {"s.csv": SOLUTION, "d": data()}, 2, "t.csv", "--solution"),
    case("answers to other sheets", SCORE, {"s.csv": answers("1,0"), "d": data(solution=SOLUTION)}, 1, "s.csv: 3 of 3 ids", "same test set"),
    case("answers of other species", SCORE, {"s.csv": SOLUTION, "d": data(solution=answers("7,0", "8,4", "9,2"))}, 1, "solution.csv: category_id 4", "one data set"),
    case("answers without rows", SCORE, {"s.csv": SOLUTION, "d": data(solution=answers())}, 1, "solution.csv, line 2", "Copy it again"),
    case("score with a number too long", SCORE, {"s.csv": answers("7,0", "8,99999999999999999999", "9,2"), "d": data(solution=SOLUTION)}, 1, "s.csv, line 3", "write_submission()"),
]
# fmt: on


# ---------------------------------------------------------------- how a case is judged


class NoTensorFlow(importlib.abc.MetaPathFinder):
    """Makes the import of TensorFlow, and of what imports it, an error of ours."""

    NAMES = ("tensorflow", "keras", "tf_keras", "keras_efficientnet_v2", "tensorflow_addons")

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        assert name.partition(".")[0] not in self.NAMES, f"{name} was imported before the mistake was found"


def _modules(*packages: str) -> dict[str, Any]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}


@contextlib.contextmanager
def without_tensorflow() -> Iterator[click.Command]:
    """The command line, imported anew in a process where TensorFlow seems not to be loaded and must not be."""
    kept = _modules("utils", *NoTensorFlow.NAMES)
    finder = NoTensorFlow()
    sys.meta_path.insert(0, finder)
    for name in kept:
        del sys.modules[name]
    try:
        yield importlib.import_module("utils.__main__").main
    finally:
        sys.meta_path.remove(finder)
        for name in _modules("utils"):
            del sys.modules[name]
        sys.modules.update(kept)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file with its checksum, hidden and temporary ones too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check(case: Case, folder: Path, main: click.Command) -> None:
    before = snapshot(folder)
    result: Result = CliRunner().invoke(main, shlex.split(case.command))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == case.code, result.output
    assert re.search(r"^Error: ", result.stderr, re.MULTILINE), result.stderr
    for told in case.told:
        assert told in result.stderr, f"{told!r} is not in the message:\n{result.stderr}"
    assert "Traceback" not in result.output
    after = snapshot(folder)
    new = {name for name in after.keys() - before.keys() if not name.startswith(f"{case.leaves}/")}
    assert not new, f"files were left: {sorted(new)}"
    assert before.items() <= after.items(), "files were changed or removed"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_gives_a_message_and_changes_nothing(case, tmp_path, monkeypatch):
    make(tmp_path, case.files)
    monkeypatch.chdir(tmp_path)
    if case.tensorflow:
        check(case, tmp_path, command_line)
        return
    with without_tensorflow() as main:
        check(case, tmp_path, main)


def test_there_are_enough_cases_each_with_its_own_name():
    assert len({case.name for case in CASES}) == len(CASES) >= 50
    for one in CASES:
        assert one.code in (1, 2) and one.told, one.name


def test_the_good_files_are_good(tmp_path, monkeypatch):
    """What the bad ones are made from passes, so that a case fails for its own reason."""
    tables = {"m.json": published(), "m.tsv": mini(), "s.csv": sheets(), "a.csv": SOLUTION}
    make(tmp_path, {**tables, "d": data(solution=SOLUTION)})
    monkeypatch.chdir(tmp_path)
    for command in (
        "metadata m.json",
        "metadata s.csv",
        "metadata m.tsv",
        "split s.csv --out split.csv --group collector",
        "submission validate a.csv --data d",
        "submission score a.csv --data d",
    ):
        result = CliRunner().invoke(command_line, shlex.split(command))
        assert result.exit_code == 0, (command, result.output, result.exception)


@pytest.mark.parametrize(
    ("does", "noticed"),
    [
        ("import tensorflow; raise click.ClickException('a')", "was imported"),
        ("import keras_efficientnet_v2; raise click.ClickException('a')", "was imported"),
        ("Path('new').touch(); raise click.ClickException('a')", "files were left: .'new'."),
        ("Path('mine').write_text('x'); raise click.ClickException('a')", "files were changed"),
        ("Path('mine').unlink(); raise click.ClickException('a')", "files were changed"),
        ("raise click.ClickException('b')", "not in the message"),
        ("raise click.UsageError('a')", "assert 2 == 1"),
        ("raise KeyError('a')", "KeyError"),
        ("print('Error: a')", "assert 0 == 1"),
    ],
)
def test_the_judge_notices_what_a_command_does_wrong(does, noticed, tmp_path, monkeypatch):
    make(tmp_path, {"mine": "my file"})
    monkeypatch.chdir(tmp_path)
    main = click.Command("main", callback=lambda: exec(does, {"click": click, "Path": Path}))
    judged = Case("a", "", {}, 1, ("a",))
    with without_tensorflow(), pytest.raises(AssertionError, match=noticed):
        check(judged, tmp_path, main)


def test_the_modules_are_afterwards_what_they_were():
    before = _modules("utils", *NoTensorFlow.NAMES)
    with without_tensorflow():
        assert not _modules(*NoTensorFlow.NAMES)
    assert _modules("utils", *NoTensorFlow.NAMES) == before
