"""A label map small enough to check by hand."""

import numpy as np
import pytest

from utils.data.labels import LabelMap


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
