"""The data set of a profile: found by marker files, or made when it is the sample flora."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config import Profile
from utils.files import REPOSITORY, InputError, attach, check_option, is_auto, kaggle_root, on_kaggle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import pandas as pd
    import tensorflow as tf

    from utils.data.labels import LabelMap
    from utils.data.metadata import Metadata

TRAIN_TABLE = re.compile(r"(.*_)?train(_metadata)?\.(tsv|csv)")  # h22_miniv1_train.tsv
_LOOKED_AT = 5_000  # records whose labels are compared with the metadata at a start: 0.4 GB of 480 px
# What Kaggle calls the published data.
COMPETITION = "herbarium-2022-fgvc9"
TRAIN_SHARDS = "parkjohnychae/herbarium-2022-train-tfrec-480"
TEST_SHARDS = "parkjohnychae/herbarium-2022-test-tfrec-480"
_SOURCES = {  # field of Data -> marker file, kind and name of what holds it on Kaggle
    "train_metadata": ("train_metadata.json (or *_train.tsv)", "Competitions", COMPETITION),
    "test_metadata": ("test_metadata.json", "Competitions", COMPETITION),
    "train_shards": ("training shards (*_train*.tfrec)", "Datasets", TRAIN_SHARDS),
    "test_shards": ("test shards (*_test*.tfrec)", "Datasets", TEST_SHARDS),
}


@dataclass(frozen=True)
class Data:
    """The files of one data set; what is absent is None or empty."""

    kind: str  # "sample" (generated) or "folder" (found)
    train_metadata: Path | None = None
    test_metadata: Path | None = None
    label_file: Path | None = None  # labels.json beside shards of own sheets
    train_shards: tuple[Path, ...] = ()  # all that have labels, those of val_shards last
    test_shards: tuple[Path, ...] = ()
    solution: Path | None = None  # solution.csv, the withheld answers to the test shards
    val_shards: tuple[Path, ...] = ()  # NAFlora-mini has its own validation images
    split_file: Path | None = None  # split.csv, which decides what is held out
    folder: Path | None = None  # of the training shards as found; copies without bad records lie elsewhere

    @property
    def _where(self) -> Path:
        return self.folder or self.train_shards[0].parent

    def labels(self) -> "LabelMap":
        """The class index of every species: from labels.json where there is one, else from the metadata."""
        from utils.data.labels import LabelMap, labels_of_tables

        if self.label_file is not None:
            return LabelMap.load(self.label_file)
        if self.train_metadata is None:
            self.metadata()  # raises: there is none
        return labels_of_tables(self.train_metadata, self.train_metadata.stat().st_mtime_ns)

    def metadata(self) -> "Metadata":
        """The tables of train_metadata.json, or of the table of the training images (*_train.tsv, .csv).

        Raises:
            InputError: the data set has no metadata file.
        """
        from utils.data.metadata import read_metadata

        if self.train_metadata is None:
            where = self.train_shards[0].parent if self.train_shards else Path("these data")
            raise InputError(f"{_missing('train_metadata', where)} This step needs it.")
        return read_metadata(self.train_metadata)

    def training_table(self, *, compare: bool = True) -> "pd.DataFrame":
        """One row a labelled record: image_id (str) and class_index (int); those of val_shards come last.

        Read from the metadata when it lists as many images as the train shards hold, else from the shards (for a part
        of the published ones, or shards without metadata). Unless `compare` is False, the labels of up to 5,000
        records, of more the first ones of every shard, are compared with the metadata and labels.json.

        Raises:
            InputError: a shard is damaged or holds fewer records than its name promises, an image_id occurs
                twice, or the shards have other classes or images than the metadata.
        """
        import pandas as pd

        from utils.data.records import count_records, first_labels, read_labels

        shards = [shard for shard in self.train_shards if shard not in self.val_shards]
        known, promised = self._known(), count_records(shards)
        table = known if known is not None and len(known) == promised else read_labels(shards)
        if known is not None and table is not known:
            self._compare(table, known, None)
        if compare and (table is known or self.label_file is not None):
            first = first_labels(shards, _LOOKED_AT)
            self._compare(first, known if table is known else None, self.label_file, every=True)
        if self.val_shards:
            promised += count_records(self.val_shards)
            table = pd.concat([table, read_labels(self.val_shards)], ignore_index=True)
        if len(table) != promised:
            self._refuse_bad_record(None, f"they hold {len(table)} records, their names say {promised}")
        repeated = table["image_id"][table["image_id"].duplicated()]
        if len(repeated):
            raise InputError(
                f"{self._where}: image_id {repeated.iloc[0]!r} is in two records "
                f"({len(repeated):,} repeated in all). Remove the shards that are there twice."
            )
        return table

    def split(self, profile: Profile, *, compare: bool = True) -> "pd.DataFrame":
        """The training table with the columns part ("train", "validation", "test") and held_out (bool).

        A split.csv decides, the one beside the shards or the only one there is, else the validation shards, else a
        seeded, stratified share: see `utils.data.splits.parts_for`. What must not be trained on is held out, test
        images too. `compare` is that of `training_table`.

        Raises:
            InputError: a record has no species or one that the label map does not have, the split file lacks
                an image, or nothing is left to train on.
        """
        from utils.data.records import count_records
        from utils.data.splits import parts_for

        table, n_classes = self.training_table(compare=compare), self.labels().n_classes
        unknown = ~table["class_index"].between(0, n_classes - 1)
        if unknown.any():
            row = table[unknown].iloc[0]
            self._refuse_bad_record(n_classes, f"image {row['image_id']} has class {row['class_index']}")
        own = count_records(self.val_shards)
        part = parts_for(table, self.split_file, own, profile.validation_fraction, profile.seed)
        if not (part == "train").any():
            raise InputError(
                f"{self._where}: the shards have no record to train on. Write or download them again."
            )
        return table.assign(part=part, held_out=part != "train")

    def batches(
        self, part: str, profile: Profile, *, only_ids: "Iterable[str] | None" = None, batch_size: int = 64
    ) -> "tf.data.Dataset":
        """The sheets of a part in file order, centrally cropped, without augmentation.

        Test sheets are the withheld test shards where there are some, else the part of the split.

        Args:
            part: "train", "validation" or "test".
            profile: gives image size and crop, and the split where no file decides it.
            only_ids: the sheets to take, where they are not all of the part.
            batch_size: sheets a batch; the last batch has what is left.

        Returns:
            A dataset of (uint8 [B, S, S, 3], int32 class index [B], -1 without labels, string id [B]).

        Raises:
            UsageError: there is no such part.
            InputError: as `split`, where it is asked, and as `utils.data.batches.evaluation_dataset`.
        """
        from utils.data.batches import evaluation_dataset
        from utils.data.splits import PARTS

        check_option("part", part, part in PARTS, f"one of {', '.join(PARTS)}")
        shards = (part == "test" and self.test_shards) or self.train_shards
        if only_ids is None and shards is self.train_shards:
            table = self.split(profile)
            only_ids = table.loc[table["part"] == part, "image_id"].tolist()
        settings = {"image_size": profile.image_size, "crop": profile.crop, "batch_size": batch_size}
        return evaluation_dataset(shards, only_ids=only_ids, **settings)

    def true_classes(self, image_ids: "Sequence[str] | np.ndarray") -> "np.ndarray":
        """The class index of withheld test sheets by solution.csv, int32 [N].

        Raises:
            InputError: there are no answers, none to one of the sheets, or one that is not in the labels.
        """
        from utils.evaluation.scores import read_solution

        if self.solution is None:
            raise InputError(f"{self._where}: no solution.csv, so the species of test sheets are not known.")
        return self.labels().to_class(read_solution(self.solution, image_ids)).astype("int32")

    def _known(self) -> "pd.DataFrame | None":
        """`classes_of_images` of labels.py, None without metadata."""
        from utils.data.labels import classes_of_images

        files = (self.train_metadata, self.label_file)
        return classes_of_images(self.metadata(), self.labels(), *files) if self.train_metadata else None

    def refuse_other_labels(self, table: "pd.DataFrame") -> None:
        """Raise InputError when records (see `first_labels`) have other labels than metadata or labels.json say."""
        self._compare(table, self._known() if len(table) else None, self.label_file)

    def _compare(
        self,
        table: "pd.DataFrame",
        known: "pd.DataFrame | None",
        label_file: Path | None,
        every: bool = False,
    ) -> None:
        from utils.data.labels import refuse_other_classes, refuse_other_ranks

        if known is not None:
            refuse_other_classes(table, known, self.labels(), self._where, self.train_metadata, every)
        if label_file is not None:
            refuse_other_ranks(table, self.labels(), self._where, label_file)

    def _refuse_bad_record(self, n_classes: int | None, otherwise: str) -> None:
        """Raise InputError that names the bad record, found by a look at all; `otherwise` where none is bad."""
        from utils.data.damage import WAY_OUT, bad_records

        first = next(bad_records(self.train_shards, n_classes), None)
        raise InputError(f"{first or f'{self._where}: {otherwise}'}. {WAY_OUT}.")


def find_data(profile: Profile, data_dir: str | Path | None = "auto", *, progress: bool = True) -> Data:
    """Find the data set of a profile, or make it when the profile takes the sample flora.

    Args:
        profile: its `source` says what to look for; a given `data_dir` is always searched instead.
        data_dir: a folder that holds shards and metadata (subfolders are searched too), or `auto` (see
            `utils.files.is_auto`): everything mounted under /kaggle/input on Kaggle, data/ in the repository elsewhere.
        progress: show the progress of making the sample.

    Raises:
        InputError: no training shards are there, or in several folders; the message lists what was seen.
    """
    if is_auto(data_dir):
        if profile.source == "flora":
            from utils.flora.of_profile import make_sample

            return make_sample(profile, progress)
        roots = kaggle_root() / "input" if on_kaggle() else REPOSITORY / "data"
    else:
        roots = Path(data_dir).expanduser().resolve()
    return search(roots)


def require(data: Data, *fields: str) -> None:
    """Raise InputError, with where it comes from, unless the data have these fields of Data."""
    for field in fields:
        if not getattr(data, field):
            raise InputError(_missing(field, data.train_shards[0].parent))


def _missing(field: str, where: Path) -> str:
    marker, kind, name = _SOURCES[field]
    way = attach(kind, name) if on_kaggle() else "data_links.md says where it comes from and goes."
    return f"{where}: no {marker}. {way}"


def beside(folder: Path) -> Data:
    """The labels that lie beside shards: labels.json, and the metadata of the training images."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    published = [name for name in names if name == "train_metadata.json"]
    metadata = published or [name for name in names if TRAIN_TABLE.fullmatch(name)]
    return Data(
        kind="folder",
        train_metadata=folder / metadata[0] if metadata else None,
        label_file=folder / "labels.json" if "labels.json" in names else None,
        folder=folder,
    )


def search(root: Path, kind: str = "folder") -> Data:
    """The data below `root`, by marker files. InputError: no training shards, unfinished ones, or a file twice."""
    from utils.data.shards import only_file, refuse_unfinished, refuse_unnamed, shards_below, walk
    from utils.data.splits import FILE_NAME

    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder. data_links.md says where each data set comes from and goes."
        )
    by_folder = walk(root)
    one = functools.partial(only_file, root, by_folder)
    train_shards, val_shards = (shards_below(root, by_folder, split) for split in ("train", "val"))
    refuse_unfinished(by_folder, train_shards)
    if not train_shards:
        refuse_unnamed(root, by_folder)
        seen = ", ".join(str(folder) for folder in list(by_folder)[:12]) or str(root)
        raise InputError(
            f"{_missing('train_shards', root)} Looked in: {seen}. Profile 'laptop' runs on the generated "
            "sample flora and needs none, and so does 'smoke'."
        )
    label_file = train_shards[0].parent / "labels.json"  # one elsewhere is of a training run
    split_beside = train_shards[0].parent / FILE_NAME
    return Data(
        kind=kind,
        train_metadata=one("train_metadata.json") or one(TRAIN_TABLE),
        test_metadata=one("test_metadata.json"),
        label_file=label_file if label_file.name in by_folder[label_file.parent] else None,
        train_shards=train_shards + val_shards,
        test_shards=shards_below(root, by_folder, "test"),
        solution=one("solution.csv"),
        val_shards=val_shards,
        split_file=split_beside if split_beside.is_file() else one(FILE_NAME),
        folder=train_shards[0].parent,
    )
