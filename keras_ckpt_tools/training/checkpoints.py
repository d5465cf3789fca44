"""Save all tracked objects of a run in one file, and restore all of them or none.

This is the engine of `CheckpointManager` and `BackupAndRestore`. It saves the tracked objects,
finds the newest good checkpoint and restores it (see `restoring`). `kept` decides which checkpoints
are retained.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import keras

from keras_ckpt_tools._tensorflow import needed_for
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    CommitError,
    DamagedArtefactError,
)
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.live.adapters import Adapter, KerasAdapter, build_compiled_optimizer
from keras_ckpt_tools.live.snapshot import Part, Snapshot, Snapshots
from keras_ckpt_tools.metadata import Record, TrackedObject, TrainingProgress
from keras_ckpt_tools.runs.checkpoints import (
    checkpoint_path,
    next_number,
)
from keras_ckpt_tools.runs.choose import Choice, choose_newest, other_major
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.retention import Policy
from keras_ckpt_tools.runs.save_history import Trail
from keras_ckpt_tools.runs.stock_backups import backup_at, stock_backups
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.storage.background import BackgroundWriter, Foreground
from keras_ckpt_tools.storage.directory_lock import Occupancy
from keras_ckpt_tools.training.changes import Changes
from keras_ckpt_tools.training.custom_objects import objects_of
from keras_ckpt_tools.training.kept import KeptCheckpoints
from keras_ckpt_tools.training.messages import Announcer
from keras_ckpt_tools.training.restoring import adapters_of, restore_tracked
from keras_ckpt_tools.training.state.run_state import Given, read_beside
from keras_ckpt_tools.training.stock_resume import pick_up, pick_up_from
from keras_ckpt_tools.training.untracked import OnUntracked, UntrackedWatch
from keras_ckpt_tools.training.writing import check_directory, prepare_checkpoint

_log = logging.getLogger(__name__)
_TRAINED = ("model", "optimizer", "keras", "variable", "container", "module")
Format = Literal["h5", "tf"]


class Restored(NamedTuple):
    """A restored checkpoint.

    Attributes:
        path: The checkpoint.
        progress: The position of training.
        beside: The extra state of the run; see `run_state`.
    """

    path: str
    progress: TrainingProgress
    beside: Mapping[str, Any]


STOCK: Mapping[str, Any] = {"_stock": True}
"""The extra run state of a third-party checkpoint: none."""

Commit = Callable[..., str]
"""Saves the taken state and returns its path.

Its arguments are the path of a checkpoint to replace, and the number to save under.
"""

Differences = Callable[[Restored], list[str]]
"""Returns the differences between the saved run and the one that resumes, as sentences."""


def _no_differences(_: Restored) -> list[str]:
    return []


class Checkpoints:
    """Saves and restores tracked objects in one directory.

    Args:
        directory: Directory of the checkpoints.
        objects: The tracked objects, by name.
        policy: The retention policy.
        monitor: Metric that decides which checkpoint is the best, or `None`.
        mode: `"min"` or `"max"`.
        background: Whether files are written in a thread while training continues.
        on_untracked: What to do about state that a save would leave out.
        announcer: Reports saves to the user.
        format: File format: `"h5"`, or `"tf"` for TensorFlow checkpoints.
        changes: Intended changes of the program since the save.
        door: The writer, one of `DOORS`; see `KeptCheckpoints`.
    """

    def __init__(
        self,
        directory: str,
        objects: Mapping[str, Any],
        policy: Policy,
        monitor: str | None = None,
        mode: str = "min",
        background: bool = False,
        on_untracked: OnUntracked = "warn",
        announcer: Announcer | None = None,
        format: Format = "h5",
        changes: Changes | None = None,
        door: str = "",
    ):
        self.directory = os.path.abspath(directory)  # The program may change its directory.
        self.kept = KeptCheckpoints(self.directory, policy, monitor, mode, door)
        self._given = dict(objects)
        self.objects = with_optimizer(objects)
        self._format = format
        self._number = 0
        self._changes = changes
        self._trail = Trail()
        self._occupancy = Occupancy(self.directory)
        self._writer = BackgroundWriter() if background else Foreground()
        self._snapshots = Snapshots()
        self._untracked = UntrackedWatch(on_untracked)
        self._standstill = Standstill()
        self._announcer = announcer or Announcer(_log, self.directory)
        self._adapters = adapters_of(self.objects)

    @property
    def adapters(self) -> Sequence[Adapter]:
        """The adapters that take and restore each tracked object."""
        return self._adapters

    def occupy(self) -> None:
        """Lock the directory for this process if it exists; otherwise the first save does.

        Raises:
            PathInUseError: another process saves there.
        """
        if os.path.isdir(self.directory):
            self._occupancy.take()

    def require_writable(self) -> None:
        """Check before training whether the directory is writable.

        Raises:
            CommitError: the directory is not writable.
        """
        check_directory(self.directory, "directory")

    def next_path(self) -> str:
        """Return the path of the next checkpoint."""
        return checkpoint_path(self.directory, self._next_number())

    def _next_number(self) -> int:
        return max(next_number(self.directory), self._number + 1)

    def save(self, progress: TrainingProgress, beside: Mapping[str, Any] | None = None) -> str:
        """Save all tracked objects; delete checkpoints that are not retained.

        Args:
            progress: The position of training.
            beside: The extra state of the run, by names that start with an underscore.

        Returns:
            Path of the new file.
        """
        return self.take(progress, beside)()

    def take(
        self,
        progress: TrainingProgress,
        beside: Mapping[str, Any] | None = None,
        batches: int = 0,
    ) -> Commit:
        """Take the state of all tracked objects now; return the function that saves it.

        Args:
            progress: The position of training.
            beside: The extra state of the run, by names that start with an underscore.
            batches: Number of batches that this process has trained on.
        """
        save = self._announcer.begins(progress)
        self._standstill.tell()
        self.follow_compile()
        for tracked in self.objects.values():
            build_compiled_optimizer(tracked)
        given = [Given(name, tree) for name, tree in (beside or {}).items()]
        adapters = [*self._adapters, *given]
        parts = [Part(adapter.name, adapter.to_save, adapter.structure()) for adapter in adapters]
        self._look_for_untracked(parts)
        snapshot = self._snapshots.take(parts)
        snapshot = dataclasses.replace(snapshot, links=self._links(snapshot))
        prepare = self._prepare(snapshot, adapters, parts)

        def commit(instead: str | None = None, wanted: int | None = None) -> str:
            self._occupancy.take()
            self.kept.notice_other_run(progress)
            told = self._trail.extend(progress, lambda: [item.progress for item in self.kept.saved])
            number = self.kept.number_of(instead) if self._format == "h5" else None
            if number is None:
                number = max(next_number(self.directory), self._number + 1, wanted or 0)
                self._number = number
            path, write = prepare(number, told)

            def put() -> None:
                try:
                    record = write()
                except CommitError:
                    # The file may have been committed all the same: list the directory again.
                    self.kept.look_again()
                    raise
                self._announcer.committed(save)
                self.kept.add(path, number, record)
                self._standstill.committed(record, batches)
                if instead is not None and instead != path:
                    self.kept.delete(instead)

            with save.to(path):
                self._writer.run(put)
            self._announcer.settle()
            self._standstill.tell()
            return path

        return commit

    def _look_for_untracked(self, parts: Sequence[Part]) -> None:
        keras_parts = {
            adapter.name: (adapter.target, part)
            for adapter, part in zip(self._adapters, parts, strict=False)
            if isinstance(adapter, KerasAdapter)
        }
        self._untracked.look(keras_parts, self._snapshots.walk, self._saved_beside)

    def _saved_beside(self) -> list[Any]:
        """Return the saved objects that are not Keras objects, and their variables."""
        others = [a for a in self._adapters if not isinstance(a, KerasAdapter)]
        variables = [v for adapter in others for v in adapter.structure().variables]
        return [*self.objects.values(), *variables]

    def _prepare(
        self, snapshot: Snapshot, adapters: Sequence[Adapter], parts: Sequence[Part]
    ) -> Callable[[int, TrainingProgress], tuple[str, Callable[[], Record]]]:
        kinds = [
            kind
            for adapter, part in zip(adapters, parts, strict=True)
            if adapter.kind == "model"
            for kind in part.structure.kinds
        ]
        described, objects = self._describe(adapters, parts), objects_of(kinds)
        if self._format == "tf":
            from keras_ckpt_tools.runs.tensorflow import prefix_path
            from keras_ckpt_tools.training.tensorflow_writing import prepare_tf_checkpoint

            prepared = prepare_tf_checkpoint(
                self.objects, self._paths(parts, everything=True), snapshot, described, objects
            )

            def prepare_tf(number: int, progress: TrainingProgress) -> Any:
                path = prefix_path(self.directory, number)
                return path, prepared(path, number, progress)

            return prepare_tf

        def prepare(number: int, progress: TrainingProgress) -> Any:
            path = checkpoint_path(self.directory, number)
            return path, prepare_checkpoint(path, snapshot, described, objects, progress)

        return prepare

    def follow_compile(self) -> None:
        """Track the current optimizer of the model: another `compile()` sets another one."""
        objects = with_optimizer(self._given)
        if any(self.objects.get(name) is not tracked for name, tracked in objects.items()):
            self.objects, self._adapters = objects, adapters_of(objects)

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            CommitError: a save in the background failed.
        """
        try:
            self._writer.wait()
        finally:
            self._announcer.settle()

    @property
    def newest(self) -> str | None:
        """Path of the checkpoint that a restart would try first, or `None`."""
        if saved := self.kept.saved:
            return saved[-1].path
        backup = next(stock_backups(self.directory), None)
        return backup.path if backup else None

    def tidy(self) -> None:
        """Wait, and delete what an interruption has left; see `KeptCheckpoints.tidy`."""
        self.wait()
        self.kept.tidy()

    def close(self) -> None:
        """Finish writing, and unlock the directory.

        Raises:
            CommitError: a save in the background failed.
        """
        try:
            self.wait()
        finally:
            self._occupancy.release()

    def _describe(
        self, adapters: Sequence[Adapter], parts: Sequence[Part]
    ) -> dict[str, TrackedObject]:
        paths = self._paths(parts)
        return {adapter.name: adapter.described(paths) for adapter in adapters}

    def _paths(self, parts: Sequence[Part], everything: bool = False) -> dict[int, str]:
        """Return the path of each variable, by its `id`."""
        paths: dict[int, str] = {}
        for adapter, part in zip(self._adapters, parts, strict=False):
            # Optimizers are built on other objects, and their state is taken once for each save.
            if adapter.kind not in ("state", "run", *(() if everything else ("optimizer",))):
                captured = self._snapshots.walk(part)
                paths |= {id(value): path for path, value in captured.values.items()}
        return paths

    def _links(self, snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
        """Return further paths under which stock Keras finds the weights of `model`."""
        if not isinstance(self.objects.get("model"), keras.Model):
            return ()
        paths = (*snapshot.arrays, *snapshot.names)
        tops = {path.split("/", 2)[1] for path in paths if path.startswith("model/")}
        return tuple((top, f"model/{top}") for top in sorted(tops) if top not in self.objects)

    def restore(
        self,
        path: str,
        differences: Differences = _no_differences,
        *,
        accept_nan: bool = True,
        optimizers: bool = True,
    ) -> Restored:
        """Restore all tracked objects from one checkpoint, or none.

        Args:
            path: Path of the checkpoint.
            differences: Returns further mismatches before anything is changed.
            accept_nan: Whether NaN in its weights is accepted; otherwise `NotFinite` is raised.
            optimizers: Whether optimizers are restored as well.

        Raises:
            ArtefactKindError: the file is not a checkpoint of tracked objects.
            RestoreError: something does not match; nothing was changed.
            NotBuiltError: an object has no variables and cannot be built.
            DamagedArtefactError: the file is damaged.
        """
        self.wait()
        self.follow_compile()
        if (stock := backup_at(path)) is not None:
            return Restored(path, pick_up_from(stock, self._adapters), STOCK)
        with open_source(path) as source:
            record = source.record
            if record is None or not record.tracked:
                raise ArtefactKindError(
                    f"This is a {source.kind}, not a checkpoint of tracked objects.",
                    received=f"path={path!r}",
                    remedy="Load it with `kct.safe_load_model(path)` if it contains a model, "
                    "or with `kct.load_weights(model, path)`.",
                    path=path,
                    kind=str(source.kind),
                )
            restored = Restored(path, record.progress, read_beside(source, record))
            found = [*_other_keras(record), *differences(restored)]
            restore_tracked(
                self._adapters,
                source,
                record,
                found,
                self._changes,
                accept_nan=accept_nan,
                optimizers=optimizers,
            )
        self.kept.goes_on_from(path)
        return restored

    def restore_newest(
        self,
        differences: Differences = _no_differences,
        steps: int | None = None,
        among: Callable[[list[CheckpointEntry]], Sequence[CheckpointEntry]] = lambda saved: saved,
        *,
        optimizers: bool = True,
        stock: bool = True,
    ) -> Restored | None:
        """Restore the newest complete checkpoint; report skipped ones with the reasons.

        A checkpoint with NaN in its weights is skipped if the run has another one. If there is no
        checkpoint of this package, one of stock Keras or TensorFlow is used; see `pick_up`.

        Args:
            differences: Returns further mismatches before anything is changed.
            steps: Batches of an epoch, if known.
            among: Returns the candidates, oldest first.
            optimizers: Whether optimizers are restored as well.
            stock: Whether a backup of Keras is accepted.

        Raises:
            RestoreError, NotBuiltError: the newest complete checkpoint does not match.
            DamagedArtefactError: there are checkpoints, but none of them is complete.
        """
        self.wait()
        tried: list[CheckpointEntry] = []

        def candidates(saved: list[CheckpointEntry]) -> Sequence[CheckpointEntry]:
            tried.extend(among(saved))
            return list(tried)

        def attempt(path: str, accept_nan: bool) -> Restored:
            return self.restore(path, differences, accept_nan=accept_nan, optimizers=optimizers)

        chosen = choose_newest(self.directory, attempt, candidates)
        self.kept.found(chosen.saved)
        passed = [f"{path}: {why}" for path, why in chosen.passed]
        if chosen.result is not None:
            if chosen.not_finite:
                warn(_about_nan(chosen), UserWarning, stacklevel=3)
            if passed:
                warn(
                    f"Resuming from {chosen.result.path}; skipped damaged checkpoints:\n  "
                    + "\n  ".join(passed),
                    UserWarning,
                    stacklevel=3,
                )
            return chosen.result
        if passed and (tried or not chosen.saved):
            raise DamagedArtefactError(
                "None of the checkpoints is complete:\n  " + "\n  ".join(passed) + "\n",
                received=f"directory={self.directory!r}",
                remedy="Move them away to start over, or restore one from a copy.",
                path=self.directory,
                how="; ".join(passed),
            )
        if chosen.saved or not stock:
            return None
        self.follow_compile()
        picked = pick_up(self.directory, self._adapters, steps)
        return Restored(*picked, STOCK) if picked else None


def _about_nan(chosen: Choice[Restored]) -> str:
    lines = "".join(f"\n  {path}: {why}" for path, why in chosen.not_finite)
    if any(path == chosen.path for path, _ in chosen.not_finite):
        return (
            f"Resuming from {chosen.path}, although its weights contain NaN or infinity: the run "
            f"has no other checkpoint.{lines}\nTraining does not recover from NaN. To start over, "
            "pass `resume='never'`."
        )
    return (
        f"Resuming from {chosen.path}; skipped newer checkpoints whose weights contain NaN or "
        f"infinity:{lines}\nThe same steps may lead to NaN again: lower the learning rate, clip "
        "gradients, or check the data."
    )


class Standstill:
    """Detects that the saved state does not change although training continues.

    A loop that keeps its state outside the variables (as the stateless functions of JAX do) and
    assigns it only at its end saves the first state each time. The writer has a digest of each
    tensor, so comparing these is enough. For background saves, the thread that trains issues the
    warning.
    """

    def __init__(self) -> None:
        self._last: tuple[int, Mapping[str, str]] | None = None
        self._still = 0
        self._told = False

    def committed(self, record: Record, batches: int) -> None:
        """Note a committed record, and the number of batches trained on by then."""
        kinds = {name: one.kind for name, one in record.tracked.items()}
        if self._told or "optimizer" not in kinds.values():
            return  # It is not known that anything is trained.
        # Programs that train outside the variables may still set a learning rate.
        values = {
            info.path: info.digest
            for info in record.tensors
            if (info.shape or "int" in info.dtype)
            and kinds.get(info.path.partition("/")[0], "state") in _TRAINED
        }
        before, self._last = self._last, (batches, values)
        if before is not None and before[1] == values:
            self._still = batches - before[0]

    def tell(self) -> None:
        """Warn once if the saved state does not change."""
        if not self._still or self._told:
            return
        self._told = True
        warn(
            f"No tracked object has changed between two saves, with {self._still} batches between "
            "them: a restart would lose the trained state. A loop that keeps its state outside the "
            "variables (as stateless functions on JAX do) must assign it to the variables of the "
            "model and of the optimizer before each save: `variable.assign(value)`.",
            UserWarning,
            stacklevel=5,
        )


def check_format(format: Format) -> Format:
    """Return a format if it is valid.

    Raises:
        ArgumentError: it is invalid.
        MissingPackageError: it needs TensorFlow, which is not installed.
    """
    if format == "tf":
        needed_for("TensorFlow checkpoints", f"format={format!r}")
    if format in get_args(Format):
        return format
    raise ArgumentError(
        'Invalid `format`: expected "h5" or "tf".',
        received=f"format={format!r}",
        remedy='Pass "h5" (Keras\' own weights file) or "tf" (a TensorFlow checkpoint).',
    )


def _other_keras(record: Record) -> list[str]:
    saved = record.versions.get("keras", "")
    if not other_major(saved, keras.__version__):
        return []
    return [f"major version of Keras: expected that of {saved}, found {keras.__version__}"]


def with_optimizer(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objects, and the optimizer of a compiled `model` under a name of its own.

    So files have the same layout whether the optimizer was passed to `compile()` or used directly.
    """
    model = objects.get("model")
    optimizer = getattr(model, "optimizer", None)
    taken = any(optimizer is o for o in objects.values()) or "optimizer" in objects
    if optimizer is None or taken or not isinstance(model, keras.Model):
        return dict(objects)
    return {**objects, "optimizer": optimizer}
