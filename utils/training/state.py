"""The state of a run on disk, consistent at every moment, so that a killed run continues from its last epoch.

state/state.json is the one truth: it is replaced whole, and everything else in state/ counts only if it names
it. An epoch is saved in this order, and a kill between any two steps loses at most that epoch:

1. checkpoint files of model and optimizer, under a new name;
2. the weights, if they are the best so far (or nothing is scored), as state/best_NNNN.h5;
3. state.json, which names both;
4. best_NNNN.h5 is renamed to the run's _weights.h5 (again at the next start, if the kill came before);
5. the history CSV, made from state.json; older checkpoints go.
"""

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from utils.config import DEFAULTS, WORDS, Profile
from utils.data.delimited import write_csv
from utils.data.labels import LabelMap
from utils.data.records import first_line
from utils.files import InputError, UsageError, cannot_write, read_json, remove, write_json
from utils.training import network
from utils.training.devices import is_chief
from utils.training.trainer import Trainer
from utils.training.weights import checksum, save_weights

_OTHER_DATA = {  # facts that are checksums, in words
    "split": "other images are held out",
    "records": "other images (image_id, species, part) under the same numbers",
    "bytes": "other image files under the same image_ids: the shards had {before:,} bytes, now {now:,}",
}


@dataclass(frozen=True)
class Progress:
    """How far a run is: whole epochs done, the best of them, and a row of figures for each."""

    epoch: int = 0
    best_epoch: int = 0
    best_f1: float = -1.0  # nan where validation gives no score
    history: tuple[dict[str, float], ...] = ()

    def plus(self, row: dict[str, float]) -> "Progress":
        """The progress after one more epoch; the first of equal scores stays the best, the last of no scores."""
        best = row["val_f1_score"] > self.best_f1 or math.isnan(row["val_f1_score"])
        return Progress(
            epoch=self.epoch + 1,
            best_epoch=self.epoch + 1 if best else self.best_epoch,
            best_f1=row["val_f1_score"] if best else self.best_f1,
            history=(*self.history, row),
        )

    def table(self) -> pd.DataFrame:
        """The history, one row an epoch."""
        return pd.DataFrame(list(self.history))


class RunState:
    """The files of one run: reads and checks what an earlier call left, saves every epoch.

    Of several workers (Slurm, TF_CONFIG) all must take part in a save, and only the chief's files stay.
    """

    def __init__(self, run_dir: Path, profile: Profile) -> None:
        self.run_dir, self.profile = run_dir, profile
        self.folder = run_dir / "state"
        self.weights = run_dir / f"{profile.run_name}_weights.h5"
        self.chief = is_chief()
        self._saved: dict[str, Any] | None = None

    def read(self) -> Progress:
        """What is done. It changes nothing: what a kill left goes by `tidy`, once all is found right.

        Raises:
            UsageError: the folder holds a run with other settings; the message names the first that differs.
        """
        file = self.folder / "state.json"
        if not file.exists():
            return Progress()
        self._saved = read_json(file)  # looked through before by `utils.training.runs.check_state`
        self._check_settings(self._saved["profile"])
        return self._progress()

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best_{epoch:04d}.h5"

    def _progress(self) -> Progress:
        values = {field.name: self._saved[field.name] for field in dataclasses.fields(Progress)}
        rows = tuple({key: _number(value) for key, value in row.items()} for row in values["history"])
        return Progress(**{**values, "best_f1": _number(values["best_f1"]), "history": rows})

    def _check_settings(self, saved: dict[str, Any]) -> None:
        for key, value in self.profile.to_dict().items():
            before = saved.get(key, DEFAULTS[key])  # a run saved before a setting existed has its default
            if key not in WORDS and before != value:
                way = "A run cannot change its settings midway: give another output folder, or delete it."
                if key == "epochs":
                    earlier = {name: saved[name] for name in DEFAULTS if name in saved}
                    weights = f"{dataclasses.replace(self.profile, **earlier).run_name}_weights.h5"
                    way = (
                        "The learning rate follows a cycle over all epochs, so their number cannot change midway. Give "
                        f"another output folder, such as {self.run_dir}-2, for {value} epochs from the start, and with "
                        f"`train -s weights={self.run_dir / weights}` for {value} more from what this run has learnt."
                    )
                raise UsageError(
                    f"{self.run_dir}: holds a run with {key}: {before!r}, and this call has {key}: {value!r}. {way}"
                )

    def check_data(self, facts: dict[str, int], labels: LabelMap, folder: Path) -> None:
        """Compare the data that the state was made with to this call's.

        A state from before a fact was kept is compared by the others, and by labels.json of the run.

        Args:
            facts: what tells training data apart, see `utils.training.task.facts_of`.
            labels: of the data now.
            folder: where their shards lie, for the message; the same data may lie elsewhere.

        Raises:
            InputError: other species, or other records or images of the same species.
        """
        if self._saved is None:
            return
        before = self._saved["data"]
        changed = [key for key, value in facts.items() if key in before and before[key] != value]
        differs = ""
        if (self.run_dir / "labels.json").is_file():
            differs = other_species(LabelMap.load(self.run_dir / "labels.json"), labels, self.profile)
        if not differs and changed:
            differs = _OTHER_DATA.get(changed[0], "the run has {key} = {before}, the data now {now}").format(
                key=changed[0], before=before[changed[0]], now=facts[changed[0]]
            )
        if differs:
            earlier = self._saved.get("data_folder")
            lay = f" It was trained on what lay in {earlier} then, these lie in {folder}." if earlier else ""
            raise InputError(
                f"{self.run_dir}: holds a run on other data: {differs}.{lay} Give the data it was trained on, or "
                f"another output folder, such as {self.run_dir}-2."
            )

    def check_tensorflow(self) -> None:
        """Raise InputError where another TensorFlow wrote the state: its optimizer does not carry over."""
        if self._saved is not None and self._saved["tensorflow"] != _tensorflow():
            raise InputError(
                f"{self.folder}: was written with TensorFlow {self._saved['tensorflow']}, this is "
                f"{_tensorflow()}, and optimizer state does not carry over. Continue with that version, or start "
                "anew in another output folder from the best weights so far with "
                f"`train -s weights={self.weights}` (in a profile `weights:`)."
            )

    def restore(self, checkpoint: tf.train.Checkpoint) -> None:
        """Load the saved epoch into model and optimizer; nothing where no epoch was saved.

        Raises:
            InputError: the checkpoint is damaged.
        """
        if self._saved is None:
            return
        path = self.folder / self._saved["checkpoint"]
        try:
            status = checkpoint.read(str(path))
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise InputError(
                f"{path}: a damaged checkpoint ({first_line(error)}). Copy the whole run again."
            ) from error
        status.expect_partial()  # momentum is filled in at the first step, when the optimizer makes its slots

    def save(
        self,
        checkpoint: tf.train.Checkpoint,
        model: Trainer,
        progress: Progress,
        facts: dict[str, int],
        folder: Path,
    ) -> None:
        """Save an epoch, in the order that the module's head gives; `facts` and `folder` as in `check_data`.

        Raises:
            InputError: it cannot be written; the epoch saved before stays.
        """
        if not self.chief:
            with tempfile.TemporaryDirectory() as elsewhere:
                self._write_tensors(Path(elsewhere), checkpoint, model, progress)
            return
        try:
            self.folder.mkdir(exist_ok=True)  # not the folder of the run, which is there unless it vanished
            name = self._write_tensors(self.folder, checkpoint, model, progress)
        except (OSError, tf.errors.OpError) as error:
            for half in self.folder.glob(f"epoch_{progress.epoch:04d}*"):
                remove(half)
            raise cannot_write(self.folder, error) from error
        state = {
            "checkpoint": name,
            **dataclasses.asdict(progress),
            "tensorflow": _tensorflow(),
            "data": facts,
            "data_folder": str(folder),
            "weights": self._saved.get("weights") if self._saved else checksum(self.profile.weights),
            "profile": self.profile.to_dict(),
        }
        write_json(self.folder / "state.json", state)
        self._saved = state
        self.tidy()

    def _write_tensors(
        self, folder: Path, checkpoint: tf.train.Checkpoint, model: Trainer, progress: Progress
    ) -> str:
        name = f"epoch_{progress.epoch:04d}"
        checkpoint.write(str(folder / name))
        if progress.best_epoch == progress.epoch:
            with model.averaged():
                save_weights(model, folder / f"best_{progress.epoch:04d}.h5")
        return name

    def tidy(self) -> None:
        """Bring everything in line with state.json; the same whether run once or again after a kill."""
        if not self.chief or not self.folder.exists():
            return
        kept = "no checkpoint"
        if self._saved is not None:
            kept, best = f"{self._saved['checkpoint']}.", self._best(self._saved["best_epoch"])
            if best.exists():
                best.replace(self.weights)
            write_csv(self._progress().table(), self.run_dir / f"{self.profile.run_name}.csv")
        for entry in self.folder.iterdir():
            if entry.name != "state.json" and not entry.name.startswith(kept):
                remove(entry)


def other_species(known: LabelMap, labels: LabelMap, profile: Profile) -> str:
    """The first difference between the label maps of a run (`known`) and of data, in words; empty without one.

    Genus and family count where the network has heads for them.
    """
    old, new = set(known.names.tolist()), set(labels.names.tolist())
    if gone := sorted(old - new):
        return (
            f"the run learnt {len(old):,} species, and {gone[0]!r} is not among the {len(new):,} of the data"
        )
    if more := sorted(new - old):
        return f"the data have {len(new):,} species, and {more[0]!r} is not among the {len(old):,} of the run"
    compared = [("category_id", known.category_ids, labels.category_ids)]
    if network.ranks_of(profile):
        compared += [("genus", known.genera, labels.genera), ("family", known.families, labels.families)]
    for what, before, now in compared:
        for name, one, other in zip(known.names, before, now, strict=True):
            if one != other:
                return f"{str(name)!r} has {what} {one} in the run and {other} in the data"
    return ""


def _number(value: Any) -> Any:
    """A value as it was before JSON, which has null for nan."""
    return math.nan if value is None else value


def _tensorflow() -> str:
    """Version whose checkpoints are alike: major and minor."""
    return ".".join(tf.__version__.split(".")[:2])
