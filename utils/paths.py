"""Where things are: the repository, the data of a profile, the output folder, on a laptop and on Kaggle."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config import Profile
from utils.errors import InputError
from utils.files import read_json

if TYPE_CHECKING:
    import pandas as pd

    from utils.data.labels import LabelMap
    from utils.data.metadata import Metadata

REPOSITORY = Path(__file__).resolve().parent.parent
_IMAGE_FOLDERS = {"train_images", "test_images", "images"}  # up to a million files each: not walked
_MAX_DEPTH = 4  # /kaggle/input/datasets/<owner>/<slug>/<folder>
# What Kaggle calls the published data.
COMPETITION = "herbarium-2022-fgvc9"
TRAIN_SHARDS = "parkjohnychae/herbarium-2022-train-tfrec-480"
TEST_SHARDS = "parkjohnychae/herbarium-2022-test-tfrec-480"
_SOURCES = {  # field of Data -> marker file, kind and name of what holds it on Kaggle
    "train_metadata": ("train_metadata.json", "Competitions", COMPETITION),
    "test_metadata": ("test_metadata.json", "Competitions", COMPETITION),
    "train_shards": ("training shards (*_train*.tfrec)", "Datasets", TRAIN_SHARDS),
    "test_shards": ("test shards (*_test*.tfrec)", "Datasets", TEST_SHARDS),
}


@dataclass(frozen=True)
class Data:
    """The files of one data set; what is absent is None or empty."""

    kind: str  # "sample" (generated) or "folder" (found)
    train_metadata: Path | None
    test_metadata: Path | None
    label_file: Path | None  # labels.json beside shards of own sheets
    train_shards: tuple[Path, ...]
    test_shards: tuple[Path, ...]
    solution: Path | None  # the withheld answers, only in the sample flora

    def labels(self) -> "LabelMap":
        """The class index of every species: from labels.json where there is one, else from the metadata."""
        from utils.data.labels import LabelMap

        if self.label_file is not None:
            return LabelMap.load(self.label_file)
        return LabelMap.from_metadata(self.metadata())

    def metadata(self) -> "Metadata":
        """The tables of train_metadata.json.

        Raises:
            InputError: the data set has no metadata file.
        """
        from utils.data.metadata import read_metadata

        if self.train_metadata is None:
            raise InputError(_missing("train_metadata", self.train_shards[0].parent))
        return read_metadata(self.train_metadata)

    def training_table(self) -> "pd.DataFrame":
        """One row a training record: image_id (str) and class_index (int).

        Read from the metadata when it lists as many images as the shards hold, else from the shards
        themselves (for a part of the published shards, or shards without metadata).
        """
        import pandas as pd

        from utils.data.tfrecords import count_records, read_labels

        if self.train_metadata is not None:
            annotations = self.metadata().annotations
            if len(annotations) == count_records(self.train_shards):
                classes = self.labels().to_class(annotations["category_id"])
                return pd.DataFrame({"image_id": annotations["image_id"].astype(str), "class_index": classes})
        return read_labels(self.train_shards)

    def split(self, profile: Profile) -> "pd.DataFrame":
        """The training table with a column held_out (bool): the profile's validation images.

        Seeded and stratified, see `utils.data.longtail.split`.

        Raises:
            InputError: a training record has no species.
        """
        from utils.data import longtail

        table = self.training_table()
        nameless = table["image_id"][table["class_index"] < 0]
        if len(nameless):
            raise InputError(
                f"{self.train_shards[0].parent}: record {nameless.iloc[0]} has no species, so nothing can be "
                "learned from it. Give shards written with labels."
            )
        _, held_out = longtail.split(
            table["image_id"], table["class_index"], profile.validation_fraction, profile.seed
        )
        return table.assign(held_out=held_out)


def kaggle_root() -> Path:
    """/kaggle, or the folder named by NAFLORA_KAGGLE_ROOT that is laid out like it."""
    return Path(os.environ.get("NAFLORA_KAGGLE_ROOT", "/kaggle"))


def attach(kind: str, name: str) -> str:
    """Where to click in Kaggle's notebook editor to attach `name`, a sentence."""
    return f"On Kaggle: Add Input > {kind} > {name} > +, then Run > Restart and run all."


def on_kaggle() -> bool:
    """Whether this runs in a Kaggle kernel, by the variable that Kaggle sets there."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def output_dir(folder: str | Path = "auto", profile: Profile | None = None) -> Path:
    """The folder that every notebook reads from and writes to; made if it is not there.

    `auto` is /kaggle/working on Kaggle and runs/<profile> in the repository elsewhere.
    """
    if str(folder) != "auto":
        path = Path(folder).expanduser().resolve()
    elif on_kaggle():
        path = kaggle_root() / "working"
    else:
        path = REPOSITORY / "runs" / (profile.name if profile else "work")
    path.mkdir(parents=True, exist_ok=True)
    return path


def scratch_dir() -> Path:
    """Where generated data and caches go: data/ in the repository, /kaggle/tmp on Kaggle (not kept there)."""
    path = kaggle_root() / "tmp" if on_kaggle() else REPOSITORY / "data"
    path.mkdir(parents=True, exist_ok=True)
    return path


def find_data(profile: Profile, data_dir: str | Path = "auto", *, progress: bool = True) -> Data:
    """Find the data set of a profile, or make it when the profile takes the sample flora.

    Args:
        profile: its `source` says what to look for; a given `data_dir` is always searched instead.
        data_dir: a folder that holds shards and metadata (subfolders are searched too), or `auto`:
            everything mounted under /kaggle/input on Kaggle, data/ in the repository elsewhere.
        progress: show the progress of making the sample.

    Raises:
        InputError: no training shards are there, or in several folders; the message lists what was seen.
    """
    if str(data_dir) == "auto":
        if profile.source == "flora":
            return _sample(profile, progress)
        roots = kaggle_root() / "input" if on_kaggle() else REPOSITORY / "data"
    else:
        roots = Path(data_dir).expanduser().resolve()
    return _search(roots)


def require(data: Data, *fields: str) -> None:
    """Raise InputError, with where it comes from, unless the data have these fields of Data."""
    for field in fields:
        if not getattr(data, field):
            raise InputError(_missing(field, data.train_shards[0].parent))


def _missing(field: str, where: Path) -> str:
    marker, kind, name = _SOURCES[field]
    way = attach(kind, name) if on_kaggle() else "data_links.md says where it comes from and goes."
    return f"{where}: no {marker}. {way}"


def mounted(name: str) -> list[Path]:
    """Every file called `name` in what is attached to a Kaggle kernel, in the order of their folders."""
    root = kaggle_root() / "input"
    return [folder / name for folder, names in _walk(root).items() if name in names] if root.is_dir() else []


def find_run(output: Path, profile: Profile) -> Path:
    """The folder of a training run: `output`, or on Kaggle the attached output in which it is furthest.

    A kernel takes the output of the kernel before it, mounted at /kaggle/input/<slug> or
    /kaggle/input/notebooks/<owner>/<slug>, or made into a data set. It is known by its state/state.json, which
    must be of a profile of the same name.

    Raises:
        InputError: on Kaggle, there is no such run; the message says what to attach.
    """
    marker = Path("state") / "state.json"
    if not on_kaggle() or (output / marker).exists():
        return output
    states = {
        path.parent.parent: read_json(path) for path in mounted(marker.name) if path.parent.name == "state"
    }
    runs = {run: state["epoch"] for run, state in states.items() if state["profile"]["name"] == profile.name}
    if not runs:
        seen = ", ".join(f"{run} ({state['profile']['name']})" for run, state in states.items()) or "none"
        raise InputError(
            f"No trained run of profile {profile.name} in {output} or among the attached (runs there: {seen}). "
            + attach("Your Work > Notebooks", "the kernel of notebook 03 or 03b that has finished")
        )
    return max(runs, key=runs.__getitem__)


def take_up_run(output: Path, profile: Profile) -> None:
    """Copy the run that `find_run` finds into `output`, where training can go on; state.json comes last.

    Raises:
        InputError: as `find_run`.
    """
    run = find_run(output, profile)
    if run == output:
        return
    state = output / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    names = [path for path in run.iterdir() if path.is_file() and path.name.startswith("EfficientNetV2")]
    for path in [*names, run / "labels.json"]:
        shutil.copyfile(path, output / path.name)
    for path in sorted((run / "state").iterdir(), key=lambda path: path.name == "state.json"):
        shutil.copyfile(path, state / path.name)


def sample_folder(profile: Profile) -> Path:
    """Where the sample flora of a profile lies, by its size, seed and generator version."""
    from utils.flora.dataset import GENERATOR_VERSION

    size = f"{profile.flora_species}species-max{profile.flora_max_images}-seed{profile.flora_seed}"
    return scratch_dir() / f"flora-v{GENERATOR_VERSION}-{size}"


def full_size_metadata() -> Path:
    """Folder of generated metadata tables of the real data's size (no images), made at the first call.

    Takes some seconds once; read it with utils.data.metadata.read_metadata().
    """
    from utils.flora.dataset import GENERATOR_VERSION, make_metadata

    return make_metadata(scratch_dir() / f"flora-v{GENERATOR_VERSION}-full-size") / "train_metadata.columns"


def _sample(profile: Profile, progress: bool) -> Data:
    from utils.flora.dataset import make_flora

    folder = sample_folder(profile)
    make_flora(
        folder,
        species=profile.flora_species,
        seed=profile.flora_seed,
        max_images=profile.flora_max_images,
        progress=progress,
    )
    return _search(folder, kind="sample")


def _walk(root: Path) -> dict[Path, list[str]]:
    """Files by folder, down to _MAX_DEPTH, leaving out image folders and generated floras."""
    found: dict[Path, list[str]] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        depth = len(here.relative_to(root).parts)
        skip = lambda name: name in _IMAGE_FOLDERS or name.startswith((".", "flora-"))  # noqa: E731
        folders[:] = sorted(name for name in folders if depth < _MAX_DEPTH and not skip(name))
        found[here] = sorted(files)
    return found


def _search(root: Path, kind: str = "folder") -> Data:
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder. data_links.md says where each data set comes from and goes."
        )
    by_folder = _walk(root)
    seen = ", ".join(str(folder) for folder in list(by_folder)[:12]) or str(root)

    def shards(split: str) -> tuple[Path, ...]:
        folders = {}
        for folder, names in by_folder.items():
            hits = [folder / name for name in names if name.endswith(".tfrec") and f"_{split}" in name]
            if hits:
                folders[folder] = tuple(hits)
        if len(folders) > 1:
            listed = ", ".join(str(folder) for folder in folders)
            raise InputError(
                f"{root}: {split} shards in several folders ({listed}). Name one as the data folder."
            )
        return next(iter(folders.values()), ())

    def one(name: str) -> Path | None:
        hits = [folder / name for folder, names in by_folder.items() if name in names]
        if len(hits) > 1:
            listed = ", ".join(str(hit) for hit in hits)
            raise InputError(f"{root}: several {name} ({listed}). Name one data folder.")
        return hits[0] if hits else None

    train_shards = shards("train")
    if not train_shards:
        raise InputError(
            f"{_missing('train_shards', root)} Looked in: {seen}. Profile 'laptop' runs on the generated "
            "sample flora and needs none, and so does 'smoke'."
        )
    label_file = train_shards[0].parent / "labels.json"  # one elsewhere is of a training run
    return Data(
        kind=kind,
        train_metadata=one("train_metadata.json"),
        test_metadata=one("test_metadata.json"),
        label_file=label_file if label_file.name in by_folder[label_file.parent] else None,
        train_shards=train_shards,
        test_shards=shards("test"),
        solution=one("solution.csv"),
    )
