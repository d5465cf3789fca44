"""The checkpoints of a run and the objects in them: snapshot, keep, *resume*.

The engine behind `CheckpointManager` and `BackupAndRestore`. It saves all tracked objects in one
file, finds the newest good checkpoint again, and restores all objects or none (see `restoring`);
which checkpoints stay is for `kept_checkpoints`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import keras

from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    CommitError,
    DamagedArtefactError,
)
from keras_ckpt_tools.formats.checkpoint_dir import (
    checkpoint_path,
    next_number,
)
from keras_ckpt_tools.formats.snapshot import Part, Snapshot, Snapshots
from keras_ckpt_tools.formats.source import open_source
from keras_ckpt_tools.formats.tf_run import is_prefix, prefix_path
from keras_ckpt_tools.formats.tf_run_source import open_run
from keras_ckpt_tools.metadata import Record, TrackedObject, TrainingProgress
from keras_ckpt_tools.storage.background import BackgroundWriter, Foreground
from keras_ckpt_tools.storage.occupancy import Occupancy
from keras_ckpt_tools.storage.retention import Policy, Saved
from keras_ckpt_tools.storage.trail import Trail
from keras_ckpt_tools.training.announcing import Announcer
from keras_ckpt_tools.training.beside import Given, read_beside
from keras_ckpt_tools.training.changes import Changes
from keras_ckpt_tools.training.choosing import choose_newest, other_major
from keras_ckpt_tools.training.custom_objects import objects_of
from keras_ckpt_tools.training.kept_checkpoints import KeptCheckpoints
from keras_ckpt_tools.training.pick_up import pick_up
from keras_ckpt_tools.training.restoring import adapters_of, restore_all
from keras_ckpt_tools.training.tracked import Adapter, KerasAdapter, build_compiled_optimizer
from keras_ckpt_tools.training.untracked import OnUntracked, UntrackedWatch
from keras_ckpt_tools.training.writing import prepare_checkpoint

_log = logging.getLogger(__name__)
Format = Literal["h5", "tf"]


class Restored(NamedTuple):
    """What a run goes on from.

    Attributes:
        path: The checkpoint.
        progress: Where training was.
        beside: The state of the run itself; see `beside`.
    """

    path: str
    progress: TrainingProgress
    beside: Mapping[str, Any]


Differences = Callable[[Restored], list[str]]
"""Says in what a run that is to go on differs from the one that was saved, as sentences."""


def _no_differences(_: Restored) -> list[str]:
    return []


class Checkpoints:
    """Saves and restores tracked objects in one directory.

    Args:
        directory: Where the checkpoints are.
        objects: What is tracked, by name.
        policy: Which checkpoints stay.
        monitor: Metric by which the best checkpoint is known, or `None`.
        mode: `"min"` or `"max"`.
        background: Whether files are written in a thread, while training goes on.
        on_untracked: What to do about state that a save would leave out.
        announcer: Tells people of saves.
        format: What is written: `"h5"`, or `"tf"` for TensorFlow checkpoints.
        changes: What of the program is meant to differ from what was saved.
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
    ):
        self.directory = os.path.abspath(directory)  # Wherever the program goes meanwhile.
        self.kept = KeptCheckpoints(self.directory, policy, monitor, mode)
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
        self._announcer = announcer or Announcer(_log, self.directory)
        self._adapters = adapters_of(self.objects)

    @property
    def adapters(self) -> Sequence[Adapter]:
        """How each tracked object is taken and put back."""
        return self._adapters

    def occupy(self) -> None:
        """Take the directory for this process, if it is there already; a save makes it.

        Raises:
            PathInUseError: another process saves there.
        """
        if os.path.isdir(self.directory):
            self._occupancy.take()

    def next_path(self) -> str:
        """Return the path of the checkpoint that is saved next."""
        return checkpoint_path(self.directory, self._next_number())

    def _next_number(self) -> int:
        return max(next_number(self.directory), self._number + 1)

    def save(self, progress: TrainingProgress, beside: Mapping[str, Any] | None = None) -> str:
        """Save all tracked objects; delete what is not to stay.

        Args:
            progress: Where training is.
            beside: The state of the run itself, by names that begin with an underscore.

        Returns:
            Path of the new file.
        """
        save = self._announcer.begins(progress)
        self.follow_compile()
        for tracked in self.objects.values():
            build_compiled_optimizer(tracked)
        given = [Given(name, tree) for name, tree in (beside or {}).items()]
        adapters = [*self._adapters, *given]
        parts = [Part(adapter.name, adapter.captured, adapter.structure()) for adapter in adapters]
        self._look_for_untracked(parts)
        self._occupancy.take()
        self.kept.notice_other_run(progress)
        progress = self._trail.extend(progress, lambda: [item.progress for item in self.kept.saved])
        snapshot = self._snapshots.take(parts)
        snapshot = dataclasses.replace(snapshot, links=self._links(snapshot))
        number = self._number = self._next_number()
        path, write = self._prepare(number, snapshot, (adapters, parts), progress)

        def commit() -> None:
            try:
                record = write()
            except CommitError:
                # It may be in place all the same: look again what is there.
                self.kept.look_again()
                raise
            self._announcer.committed(save)
            self.kept.add(path, number, record)

        with save.to(path):
            self._writer.run(commit)
        self._announcer.settle()
        return path

    def _look_for_untracked(self, parts: Sequence[Part]) -> None:
        keras_parts = {
            adapter.name: (adapter.target, part)
            for adapter, part in zip(self._adapters, parts, strict=False)
            if isinstance(adapter, KerasAdapter)
        }
        self._untracked.look(keras_parts, self._snapshots.walk, self._saved_beside)

    def _saved_beside(self) -> list[Any]:
        """Return what is saved that is no Keras object, and the variables in it."""
        others = [a for a in self._adapters if not isinstance(a, KerasAdapter)]
        variables = [v for adapter in others for v in adapter.structure().variables]
        return [*self.objects.values(), *variables]

    def _prepare(
        self,
        number: int,
        snapshot: Snapshot,
        taken: tuple[Sequence[Adapter], Sequence[Part]],
        progress: TrainingProgress,
    ) -> tuple[str, Callable[[], Record]]:
        kinds = [
            kind
            for adapter, part in zip(*taken, strict=True)
            if adapter.kind == "model"
            for kind in part.structure.kinds
        ]
        described, objects = self._describe(*taken), objects_of(kinds)
        if self._format == "tf":
            from keras_ckpt_tools.training.tf_writing import prepare_tf_checkpoint

            path = prefix_path(self.directory, number)
            told = (described, objects, progress)
            return path, prepare_tf_checkpoint(
                path, number, self.objects, self._paths(taken[1], everything=True), snapshot, *told
            )
        path = checkpoint_path(self.directory, number)
        return path, prepare_checkpoint(path, snapshot, described, objects, progress)

    def follow_compile(self) -> None:
        """Track the optimizer that the model has now: another `compile()` gives it another."""
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

    def tidy(self) -> None:
        """Wait, and delete what an interruption has left; see `KeptCheckpoints.tidy`."""
        self.wait()
        self.kept.tidy()

    def delete_all(
        self,
        run_id: str,
        also: Callable[[Saved], bool] = lambda item: False,
        *,
        but_newest: bool = False,
    ) -> None:
        """Delete the checkpoints of the run; see `KeptCheckpoints.delete_all`."""
        self.wait()
        self.kept.delete_all(run_id, also, but_newest=but_newest)
        self.close()

    def close(self) -> None:
        """Finish writing, and give the directory back.

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
            # No optimizer is built on the state of others, and state is asked for once a save.
            if adapter.kind not in ("state", "run", *(() if everything else ("optimizer",))):
                captured = self._snapshots.walk(part)
                paths |= {id(value): path for path, value in captured.values.items()}
        return paths

    def _links(self, snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
        """Return second paths under which stock Keras finds the weights of `model`."""
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
        optimizers: bool = True,
    ) -> Restored:
        """Restore all tracked objects from one checkpoint, or none.

        Args:
            path: The file.
            differences: Says what else does not fit, before anything is changed.
            optimizers: Whether optimizers are restored, too.

        Raises:
            ArtefactKindError: it is no checkpoint of tracked objects.
            RestoreError: something does not fit; nothing was changed.
            NotBuiltError: an object has no variables, and what it needs for that is not known.
            DamagedArtefactError: its bytes have changed.
        """
        self.wait()
        self.follow_compile()
        with open_run(path) if is_prefix(path) else open_source(path) as source:
            record = source.record
            if record is None or not record.tracked:
                raise ArtefactKindError(
                    f"This is a {source.kind}, not a checkpoint of tracked objects.",
                    received=f"path={path!r}",
                    remedy="Load it with `kct.safe_load_model(path)` if it holds a whole model, "
                    "or with `kct.load_weights(model, path)`.",
                    path=path,
                    kind=str(source.kind),
                )
            restored = Restored(path, record.progress, read_beside(source, record))
            found = [*_other_keras(record), *differences(restored)]
            restore_all(self._adapters, source, record, found, self._changes, optimizers=optimizers)
        self.kept.goes_on_from(path)
        return restored

    def restore_newest(
        self,
        differences: Differences = _no_differences,
        steps: int | None = None,
        among: Callable[[list[Saved]], Sequence[Saved]] = lambda saved: saved,
        *,
        optimizers: bool = True,
        stock: bool = True,
    ) -> Restored | None:
        """Restore the newest checkpoint that is whole; say which were passed over, and why.

        Where there is none of ours, a backup of Keras' own `BackupAndRestore` will do.

        Args:
            differences: Says what else does not fit, before anything is changed.
            steps: Batches of an epoch, where known.
            among: Returns the checkpoints that come into question, oldest first.
            optimizers: Whether optimizers are restored, too.
            stock: Whether a backup of Keras' own will do.

        Raises:
            RestoreError, NotBuiltError: the newest whole one does not fit.
            DamagedArtefactError: there are checkpoints, and none of them is whole.
        """
        self.wait()
        tried: list[Saved] = []

        def candidates(saved: list[Saved]) -> Sequence[Saved]:
            tried.extend(among(saved))
            return list(tried)

        chosen = choose_newest(
            self.directory,
            lambda path: self.restore(path, differences, optimizers=optimizers),
            candidates,
        )
        self.kept.found(chosen.saved)
        passed = [f"{path}: {why}" for path, why in chosen.passed]
        if chosen.result is not None:
            if passed:
                warnings.warn(
                    f"Resuming from {chosen.result.path}; passed over damaged checkpoints:\n  "
                    + "\n  ".join(passed),
                    UserWarning,
                    stacklevel=3,
                )
            return chosen.result
        if passed and (tried or not chosen.saved):
            raise DamagedArtefactError(
                "None of the checkpoints is whole:\n  " + "\n  ".join(passed) + "\n",
                received=f"directory={self.directory!r}",
                remedy="Move them away to start over, or put a good copy there.",
                path=self.directory,
            )
        if chosen.saved or not stock:
            return None
        self.follow_compile()
        picked = pick_up(self.directory, self._adapters, steps)
        return Restored(*picked, {}) if picked else None


def check_format(format: Format) -> Format:
    """Return a format, if it is one.

    Raises:
        ArgumentError: it is none.
    """
    if format in get_args(Format):
        return format
    raise ArgumentError(
        "`format` is not one of its values.",
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

    So a run looks the same on disk whether its optimizer was passed to `compile()` or used by hand.
    """
    model = objects.get("model")
    optimizer = getattr(model, "optimizer", None)
    taken = any(optimizer is o for o in objects.values()) or "optimizer" in objects
    if optimizer is None or taken or not isinstance(model, keras.Model):
        return dict(objects)
    return {**objects, "optimizer": optimizer}
