"""Small data for the tests of utils.data: a published-style metadata file and images with structure."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw


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
