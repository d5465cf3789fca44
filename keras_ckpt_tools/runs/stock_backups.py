"""Find backups of stock Keras and TensorFlow in a directory, and where training was.

There are three kinds. `BackupAndRestore` of Keras 3 writes `latest.weights.h5` and then
`training_metadata.json`, each in place. That of Keras 2 wrote a TensorFlow checkpoint below
`chief/`. `tf.train.CheckpointManager` writes TensorFlow checkpoints. None of them is changed here.

The numbers in them are not always reliable:

* Keras 3 writes `epoch`, the epochs completed *in the process that wrote it*, and `batch`, the
  index of the last batch, which is also 0 between epochs. With a `save_freq` in batches, a resumed
  process writes epoch 0 until its first epoch has ended, so a second interruption loses the epoch.
  A kill between the two files leaves new weights with old numbers.
* Keras 2 wrote the index of the epoch under way and of the batch. At the end of an epoch, that is
  the last batch, or -1 if no callback used batches.

The optimizer counts its updates in the same file as the weights. If the numbers are unreliable,
this count and the batches of an epoch give the position.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import ArtefactNotFoundError, CkptError, DamagedArtefactError
from keras_ckpt_tools.formats.common.safe_open import refuse_link
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensorflow.prefixes import state_of_directory
from keras_ckpt_tools.formats.tensorflow.recorded import is_prefix
from keras_ckpt_tools.metadata import TrainingProgress, epoch_number

ITERATIONS = "optimizer/vars/0"
_WEIGHTS = "latest.weights.h5"
_METADATA = "training_metadata.json"
_CHIEF = "chief"
MANAGER = "tf.train.CheckpointManager"
# Names that `tf.train.Checkpoint` adds to the objects.
SAVE_COUNTER = "save_counter"


@dataclass(frozen=True)
class Place:
    """The position of training in a backup.

    Attributes:
        epoch: Completed epochs.
        batches: Completed batches of the epoch under way.
        told: The numbers in the backup, for messages.
        doubt: Unreliable part: nothing (an empty string), `"epoch"` or `"all"`.
    """

    epoch: int
    batches: int
    told: str = ""
    doubt: str = ""

    def located(self, count: int | None, steps: int | None) -> Place:
        """Return the position, corrected by other known values.

        Args:
            count: Updates that the optimizer has made.
            steps: Batches of an epoch.

        >>> Place(0, 2, doubt="epoch").located(count=6, steps=4)
        Place(epoch=1, batches=2, told='', doubt='epoch')
        >>> Place(1, 4).located(count=8, steps=None)
        Place(epoch=2, batches=0, told='', doubt='')
        """
        found = self
        if count is not None and steps:
            expected = self.epoch * steps + self.batches
            # Batch 0 may be the first batch, or none.
            is_first = not self.batches and count == expected + 1
            if is_first or (self.doubt == "all" and count > expected):
                epoch, batches = divmod(count, steps)
                found = dataclasses.replace(self, epoch=epoch, batches=batches)
            elif self.doubt and count > expected:
                # Stock Keras trains an interrupted epoch again from its first batch and also counts
                # those updates, so the batch decides.
                found = dataclasses.replace(self, epoch=(count - self.batches) // steps)
        was = _steps_of(count, self.epoch, self.batches)
        if found.batches and found.batches in (steps, was):
            return dataclasses.replace(found, epoch=epoch_number(found.epoch), batches=0)
        return found


def _steps_of(count: int | None, epoch: int, batches: int) -> int | None:
    """Return the batches of an epoch, computed from the completed epochs before."""
    if not count or not epoch or count <= batches:
        return None
    steps, rest = divmod(count - batches, epoch)
    return None if rest else steps


@dataclass(frozen=True)
class StockBackup:
    """One backup of stock Keras or TensorFlow.

    Attributes:
        path: The weights file, or the prefix of a TensorFlow checkpoint.
        kind: The class that wrote it.
        place: The position of training; `None` if it is lost.
        lost: Why it is lost, as a sentence.
    """

    path: str
    kind: str
    place: Place | None
    lost: str = ""

    @property
    def is_managers(self) -> bool:
        """Whether it is a checkpoint of several objects, which contains no epochs."""
        return self.kind == MANAGER

    @property
    def is_tensorflow(self) -> bool:
        """Whether it is a TensorFlow checkpoint."""
        return not self.path.endswith((_WEIGHTS, f"{_WEIGHTS}.bkp"))


def stock_backups(directory: str) -> Iterator[StockBackup]:
    """Yield the backups of Keras in a directory, the newest first.

    Raises:
        DamagedArtefactError: a TensorFlow checkpoint cannot be read.
        UnsafeArtefactError: a backup is a link. Skipping it would start the run over.
    """
    for suffix in ("", ".bkp"):
        weights = os.path.join(directory, _WEIGHTS + suffix)
        metadata = os.path.join(directory, _METADATA + suffix)
        refuse_link(weights)
        refuse_link(metadata)
        if os.path.isfile(weights) or os.path.isfile(metadata):
            place, lost = _place_of_keras(weights, metadata)
            yield StockBackup(weights, "Keras' BackupAndRestore", place, lost)
    chief = os.path.join(directory, _CHIEF)
    refuse_link(chief)
    if os.path.isdir(chief) and _names_a_checkpoint(chief):
        yield _backup_of_keras_2(chief)
    yield from _of_manager(directory)


def backup_at(path: str) -> StockBackup | None:
    """Return the checkpoint of a `tf.train.CheckpointManager` under a prefix, or `None`."""
    from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint

    if not os.path.isfile(f"{path}.index") or is_prefix(path):
        return None
    # The objects are known only for `tf.train.Checkpoint`.
    if SAVE_COUNTER not in TfCheckpoint(path).root.children:
        return None
    return _managers(path)


def _managers(prefix: str) -> StockBackup:
    return StockBackup(prefix, MANAGER, Place(0, 0, "no number of epochs", "all"))


def _of_manager(directory: str) -> Iterator[StockBackup]:
    if not os.path.isdir(directory) or not _names_a_checkpoint(directory):
        return
    named = [os.path.join(directory, os.path.basename(n)) for n in state_of_directory(directory)]
    # The newest is named first, the others in the order of writing.
    for prefix in dict.fromkeys([*named[:1], *reversed(named[1:])]):
        if not os.path.isfile(f"{prefix}.index"):
            continue
        try:
            backup = backup_at(prefix)
        except DamagedArtefactError:
            backup = _managers(prefix)  # Opening it raises the error.
        if backup is not None:
            yield backup


def _names_a_checkpoint(chief: str) -> bool:
    return any(name == "checkpoint" or name.endswith(".index") for name in os.listdir(chief))


def _place_of_keras(weights: str, metadata: str) -> tuple[Place | None, str]:
    try:
        with open(metadata, encoding="utf-8") as file:
            told = json.load(file)
        epoch, batch = int(told["epoch"]), int(told["batch"])
    except FileNotFoundError:
        return None, f"{os.path.basename(metadata)} is missing."
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"{os.path.basename(metadata)} is damaged ({error})."
    late = os.path.isfile(weights) and os.stat(weights).st_mtime_ns > os.stat(metadata).st_mtime_ns
    batches = batch + 1 if batch else 0
    doubt = "all" if late else "" if epoch else "epoch"
    return Place(epoch, batches, f"epoch {epoch}, batch {batch}", doubt), ""


def _backup_of_keras_2(chief: str) -> StockBackup:
    from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint
    from keras_ckpt_tools.formats.tensorflow.prefixes import prefix_in

    try:
        prefix = prefix_in(chief)
    except ArtefactNotFoundError as error:
        raise DamagedArtefactError(
            f"The backup of Keras 2 is damaged. {error.what}",
            received=f"path={chief!r}",
            remedy=error.remedy,
            path=chief,
            how=error.what.rstrip("."),
        ) from error
    assert prefix is not None
    checkpoint = TfCheckpoint(prefix)
    epoch = checkpoint.number("ckpt_saved_epoch")
    batch = checkpoint.number("ckpt_saved_batch")
    kind = "Keras 2's BackupAndRestore"
    if epoch is None:
        return StockBackup(prefix, kind, None, "`ckpt_saved_epoch` is missing.")
    told = f"epoch {epoch}, batch {'none' if batch is None else batch}"
    if batch is None or batch < 0 or epoch < 0:
        return StockBackup(prefix, kind, Place(epoch_number(epoch), 0, told))
    return StockBackup(prefix, kind, Place(epoch, batch + 1, told))


def progress_of_stock(directory: str) -> TrainingProgress | None:
    """Return the progress in a backup of stock Keras or TensorFlow.

    Args:
        directory: The `backup_dir` of a `BackupAndRestore`, or the directory of a manager.

    Returns:
        The progress, or `None` if there is no backup.

    Raises:
        DamagedArtefactError: there is a backup, but the position of training is lost.
    """
    first = None
    for backup in stock_backups(directory):
        first = first or backup
        if backup.place is None:
            continue
        count = count_in(backup)
        place = backup.place.located(count, None)
        return progress_at(place, count, backup.path)
    if first is None:
        return None
    raise DamagedArtefactError(
        f"The backup does not contain the position of training. {first.lost}",
        received=f"path={directory!r}",
        remedy="Restore its files from a copy.",
        path=directory,
        how=first.lost.rstrip("."),
    )


def progress_at(place: Place, count: int | None, path: str) -> TrainingProgress:
    """Return a position as a progress record."""
    beside = f"{path}.index" if os.path.isfile(f"{path}.index") else path
    saved_at = os.stat(beside).st_mtime if os.path.exists(beside) else 0.0
    return TrainingProgress(
        epochs_completed=place.epoch,
        batches_completed=place.batches,
        step=count or 0,
        saved_at=saved_at,
    )


def count_in(backup: StockBackup) -> int | None:
    """Return the number of optimizer updates, or `None` if it cannot be read."""
    try:
        if backup.is_tensorflow:
            return _count_of_keras_2(backup.path)
        with open_source(backup.path) as source:
            return int(source.read(ITERATIONS)) if ITERATIONS in source.tensors else None
    except CkptError:
        return None


def _count_of_keras_2(prefix: str) -> int | None:
    from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint

    checkpoint: Any = TfCheckpoint(prefix)
    if SAVE_COUNTER in checkpoint.root.children:
        return int(checkpoint.step())
    names = ("model/optimizer/_iterations", "model/optimizer/iter", "train_counter")
    counts = (checkpoint.number(name) for name in names)
    return next((count for count in counts if count is not None), None)
