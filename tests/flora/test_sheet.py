import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageChops

from utils.flora import morphology, phylogeny, sheet

# SHA-256 of one sheet a growth form, the same on every supported stack. They change only together with
# utils.flora.sample.GENERATOR_VERSION.
CHECKSUMS = {
    "climber": "8ede54010a594dcf9d4cdb051f7e3a247c4d2c23b3e9200bc3b6ea753c30601b",
    "fern": "78192a38556740ebcca714c4f8f63fbddb5edf82ccc0140e196bc88ddc144169",
    "grass": "c70d923bc0f22a59efe53a73dc4b17f730f07654404caa9e0b211815c31bcbef",
    "herb": "df65dee7ae838be375fa824fda5df7585514797d0bb3090e84c07698eb2b70cb",
    "rosette": "c2414e2b44c56b7a963163120aefb4f2fe67c300ff3be90102b0df5ab7ed3f0c",
    "twig": "e172b73bb56ce638cf6f1ad4ddc4b90466d538ba67e40e23dcfafba5479d593a",
}


@pytest.fixture(scope="module")
def forms() -> dict[str, morphology.Traits]:
    """The first species of each growth form."""
    tree = phylogeny.grow(40, seed=0)
    found: dict[str, morphology.Traits] = {}
    for species in morphology.evolve(tree, seed=0):
        found.setdefault(species.growth, species)
    return found


@pytest.mark.parametrize("growth", CHECKSUMS)
def test_a_sheet_has_the_same_bytes_everywhere(forms, growth):
    image = sheet.encode(sheet.draw_sheet(forms[growth], 3, (0, 99, 5)))
    assert hashlib.sha256(image).hexdigest() == CHECKSUMS[growth]


def test_a_sheet_does_not_depend_on_those_drawn_before(forms):
    tasks = [sheet.Task(forms[growth], 1, 480, (0, 1, number)) for number, growth in enumerate(forms)]
    there, back = sheet.draw_chunk(tasks), sheet.draw_chunk(tasks[::-1])
    assert there == back[::-1]


def test_sheets_weigh_what_real_ones_do(forms):
    # 100 real sheets re-coded at 480 px weigh about 65 KB (grey), the published colour records about 83 KB.
    sizes = [len(sheet.encode(sheet.draw_sheet(species, 2, (0, 2)))) for species in forms.values()]
    assert 50_000 < np.mean(sizes) < 110_000


def test_size_and_format(forms):
    image = Image.open(io.BytesIO(sheet.encode(sheet.draw_sheet(forms["fern"], 0, (0, 3)), 128)))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 128))


@pytest.mark.parametrize("institution", range(4))
def test_what_surrounds_the_plant_says_nothing_about_the_species(forms, institution, monkeypatch):
    key = (0, 4, institution)
    sheets = [np.asarray(sheet.draw_sheet(species, institution, key)) for species in forms.values()]
    monkeypatch.setattr(sheet, "_mount", lambda *arguments: None)
    bare = np.asarray(sheet.draw_sheet(forms["herb"], institution, key))
    for drawn in sheets:
        touched = (drawn != bare).any(axis=2)
        assert 0.01 < touched.mean() < 0.9
        # The photo's frame with the colour bar and ruler is untouched, as is all paper away from the plant.
        assert not touched[:, :2].any() and not touched[:2].any()
        assert (drawn[~touched] == bare[~touched]).all()
        plant = np.abs(drawn.astype(int) - bare).max(axis=2) > 40
        rows, columns = np.flatnonzero(plant.any(axis=1)), np.flatnonzero(plant.any(axis=0))
        reach = 12  # pixels that a soft shadow spreads
        box = np.zeros_like(touched)
        box[
            max(0, rows[0] - reach) : rows[-1] + reach + 1,
            max(0, columns[0] - reach) : columns[-1] + reach + 1,
        ] = True
        assert not touched[~box].any()


def test_plants_lie_anywhere_and_either_way_up(forms, monkeypatch):
    drawn = [sheet.draw_sheet(forms["rosette"], 0, (0, 5, number)).convert("L") for number in range(16)]
    monkeypatch.setattr(sheet, "_mount", lambda *arguments: None)
    bare = [sheet.draw_sheet(forms["rosette"], 0, (0, 5, number)).convert("L") for number in range(16)]
    plants = [np.asarray(ImageChops.difference(*pair)) > 40 for pair in zip(drawn, bare, strict=True)]
    centres = np.array([np.argwhere(plant).mean(axis=0) for plant in plants])
    assert (centres.std(axis=0) > 20).all()  # pixels of 480; the plants nearly fill their sheets
    sizes = np.array([plant.mean() for plant in plants])
    assert sizes.max() > 1.8 * sizes.min()


def test_any_species_can_be_drawn():
    for seed in range(3):
        tree = phylogeny.grow(16, seed)
        for number, species in enumerate(morphology.evolve(tree, seed)):
            assert sheet.draw_sheet(species, number, (seed, 6, number)).size == (480, 480)
