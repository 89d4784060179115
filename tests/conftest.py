"""Fixtures shared by all tests."""

import json
import os
import signal
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from utils.config import load_profile
from utils.data.labels import LabelMap

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it in what it starts in the background. Processes that the tests start inherit it, and
    # those that are to be interrupted would not be.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the long suite too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    for item in items:
        if "long" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long suite: ./course test --all"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests record, also where their workers' output is not shown."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "table":
                terminalreporter.write_line(f"\n{report.nodeid}\n{text}")


@pytest.fixture(scope="session")
def sample_flora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample flora (8 species, 480 px shards), made once a session."""
    from utils.flora.sample import make_flora

    profile = load_profile("smoke")
    folder = tmp_path_factory.mktemp("flora")
    return make_flora(
        folder,
        species=profile.flora_species,
        seed=profile.flora_seed,
        max_images=profile.flora_max_images,
        progress=False,
    )


@pytest.fixture(scope="session")
def real_sheets() -> Path:
    """The folder of real herbarium sheets with labels.csv, named by NAFLORA_REAL_SHEETS."""
    if "NAFLORA_REAL_SHEETS" not in os.environ:
        pytest.skip("NAFLORA_REAL_SHEETS is not set: no real sheets on this machine")
    return Path(os.environ["NAFLORA_REAL_SHEETS"])


def published_tables() -> dict[str, Any]:
    """Three species with a gap in category_id (1), in genus_id (61), and names not in id order."""
    counts = {0: 4, 2: 2, 3: 1}
    genus = {0: 60, 2: 62, 3: 60}
    ids = [f"{category:05d}__{number:03d}" for category, count in counts.items() for number in range(count)]
    return {
        "annotations": [
            {
                "image_id": image_id,
                "category_id": int(image_id[:5]),
                "genus_id": genus[int(image_id[:5])],
                "institution_id": row % 2,
            }
            for row, image_id in enumerate(ids)
        ],
        "images": [
            {
                "image_id": image_id,
                "file_name": f"000/{int(image_id[:5]):02d}/{image_id}.jpg",
                "license": 0,
            }
            for image_id in ids
        ],
        "categories": [
            {
                "category_id": 0,
                "scientificName": "Zea mays",
                "authors": "L.",
                "family": "Poaceae",
                "genus": "Zea",
                "species": "mays",
            },
            {
                "category_id": 2,
                "scientificName": "Abies alba",
                "authors": "Mill.",
                "family": "Pinaceae",
                "genus": "Abies",
                "species": "alba",
            },
            {
                "category_id": 3,
                "scientificName": "Zea diploperennis",
                "authors": None,
                "family": "Poaceae",
                "genus": "Zea",
                "species": "diploperennis",
            },
        ],
        "genera": [{"genus_id": 60, "genus": "Zea"}, {"genus_id": 62, "genus": "Abies"}],
        "distances": [{"genus_id_x": 60, "genus_id_y": 62, "distance": 250.5}],
        "institutions": [
            {"institution_id": 0, "collectionCode": "NY"},
            {"institution_id": 1, "collectionCode": "US"},
        ],
        "licenses": [{"id": 0, "name": "CC BY-NC-ND 4.0", "url": "https://example.org"}],
    }


@pytest.fixture
def tables() -> dict[str, Any]:
    """The content of a small train_metadata.json, to be changed by the test."""
    return published_tables()


@pytest.fixture
def write_tables(tmp_path: Path) -> Callable[[Any], Path]:
    """Write some content as train_metadata.json and give its path."""

    def write(content: Any) -> Path:
        path = tmp_path / "train_metadata.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def sheet(number: int, width: int = 480, height: int = 480) -> Image.Image:
    """A sheet-like image, different for each number and not symmetric: paper, a stem, leaves, a label."""
    generator = np.random.default_rng(number)
    paper = generator.integers(190, 245, 3)
    rough = generator.normal(0, 6, (height // 4, width // 4, 1))
    pixels = np.kron(rough, np.ones((4, 4, 1)))[:height, :width] + paper
    pixels = np.pad(
        pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), mode="edge"
    )
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = generator.uniform(0, 0.7, 2) * (width, height)
        a, b = generator.uniform(0.05, 0.3, 2) * (width, height)
        draw.ellipse((x, y, x + a, y + b), fill=tuple(int(value) for value in generator.integers(40, 150, 3)))
    draw.rectangle((0.7 * width, 0.8 * height, 0.95 * width, 0.95 * height), fill=(250, 248, 235))
    return image


def jpeg(number: int, width: int = 480, height: int = 480) -> bytes:
    """`sheet` as JPEG bytes."""
    buffer = BytesIO()
    sheet(number, width, height).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def make_jpeg() -> Callable[..., bytes]:
    """`jpeg(number, width, height)`."""
    return jpeg


@pytest.fixture(scope="session")
def make_sheet() -> Callable[..., Image.Image]:
    """`sheet(number, width, height)`."""
    return sheet


@pytest.fixture
def six_species() -> LabelMap:
    """Two families; Carex (2 species) and Poa (1) in one, Rosa (1) and Rubus (2) in the other; id 3 is a gap."""
    return LabelMap(
        names=np.array(
            ["Carex alba", "Carex nigra", "Poa annua", "Rosa canina", "Rubus caesius", "Rubus idaeus"]
        ),
        category_ids=np.array([0, 1, 2, 4, 5, 6]),
        genera=np.array(["Carex", "Carex", "Poa", "Rosa", "Rubus", "Rubus"]),
        families=np.array(["Graminoids", "Graminoids", "Graminoids", "Rosaceae", "Rosaceae", "Rosaceae"]),
    )
