"""The sample flora of a profile, found or drawn, its further test sheets, and the full-size metadata."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import Profile
from utils.files import read_json, scratch_dir
from utils.sources import Data, find_data, search


def _size_of(profile: Profile) -> dict[str, int]:
    return {
        "species": profile.flora_species,
        "seed": profile.flora_seed,
        "max_images": profile.flora_max_images,
    }


def sample_folder(profile: Profile) -> Path:
    """Where the sample flora of a profile lies, by its size, seed and generator version."""
    from utils.flora.sample import GENERATOR_VERSION

    size = "{species}species-max{max_images}-seed{seed}".format(**_size_of(profile))
    return scratch_dir() / f"flora-v{GENERATOR_VERSION}-{size}"


def full_size_metadata() -> Path:
    """Folder of generated metadata tables with the real data's counts (no images), made at the first call.

    Takes some seconds once; read it with utils.data.metadata.read_metadata(). The folder's name has the version of
    the tables, so that those of an earlier version are not taken.
    """
    from utils.flora.full_size import METADATA_VERSION, make_metadata

    return make_metadata(scratch_dir() / f"full-size-v{METADATA_VERSION}") / "train_metadata.columns"


def make_sample(profile: Profile, progress: bool) -> Data:
    """The sample flora of a profile, drawn at the first call, found whole at later ones."""
    from utils.flora.sample import make_flora

    folder = sample_folder(profile)
    make_flora(folder, **_size_of(profile), progress=progress)
    return search(folder, kind="sample")


def first_sheets(profile: Profile, data_dir: str | Path = "auto", count: int = 12) -> list[tuple[bytes, str]]:
    """JPEG bytes and species of the first training sheets of a profile's data.

    Of a sample flora that is not there yet only these are drawn, which takes a fraction of a second: a picture to
    look at before `find_data` draws the rest.

    Raises:
        InputError: as `find_data`.
    """
    from utils.data.records import read_records
    from utils.flora import sample

    if str(data_dir) == "auto" and profile.source == "flora" and not sample_folder(profile).is_dir():
        return sample.first_sheets(count, **_size_of(profile))
    data = find_data(profile, data_dir)
    names = data.labels().names
    records = itertools.islice(read_records(data.train_shards), count)
    return [(record["image"], names[record["scientificName"]]) for record in records]


def with_extra_test(data: Data, sheets: int, *, progress: bool = True) -> Data:
    """The data with other test sheets, `sheets` of every species, in place of the withheld ones.

    For comparing methods: see `utils.flora.sample.make_extra_test`. They are drawn at the first call and kept
    in the scratch folder, the same ones for every run on this flora.

    Raises:
        UsageError, InputError: as `make_extra_test`, for data that are not a sample flora.
    """
    from utils.flora.sample import make_extra_test

    flora = data.train_shards[0].parent
    spec = read_json(flora / "flora.json").get("spec", {}) if (flora / "flora.json").is_file() else {}
    known = "-".join(f"{key}{spec.get(key)}" for key in ("species", "seed", "size"))
    folder = scratch_dir() / f"flora-v{spec.get('generator_version')}-{known}-test{sheets}"
    make_extra_test(flora, folder, sheets=sheets, progress=progress)
    return replace(
        data,
        test_shards=tuple(sorted(folder.glob("*.tfrec"))),
        test_metadata=folder / "test_metadata.json",
        solution=folder / "solution.csv",
    )


def same_growth(profile: Profile) -> pd.DataFrame:
    """How often two species of the sample flora of a profile have the same growth form, the closer kin first.

    Returns:
        One row a kind of pair that there is: pair (in words), pairs (how many), same (share with one growth form).
    """
    from utils.flora import morphology, phylogeny

    tree = phylogeny.grow(profile.flora_species, profile.flora_seed)
    growth = np.array([traits.growth for traits in morphology.evolve(tree, profile.flora_seed)])
    one, other = np.triu_indices(len(growth), 1)
    kinds = ["of one genus", "of one family, another genus", "of different families"]
    kin = [tree.genus[one] == tree.genus[other], tree.family[one] == tree.family[other]]
    same = pd.Series(growth[one] == growth[other]).groupby(np.select(kin, kinds[:2], kinds[2]))
    table = same.agg(pairs="size", same="mean").reindex(kinds).dropna().astype({"pairs": int})
    return table.rename_axis("pair").reset_index()
