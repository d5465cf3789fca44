"""Take a snapshot of a model or of tracked objects, write it and commit it.

All callbacks and the manager write files with these functions. State and record are in one staged
file and are committed with one rename, so the recorded progress always matches the weights.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from keras_ckpt_tools._version import __version__
from keras_ckpt_tools.errors import ArgumentError, CommitError
from keras_ckpt_tools.formats.hdf5.writer import write_weights
from keras_ckpt_tools.formats.keras_zip import writer as keras_archive
from keras_ckpt_tools.live import legacy_h5, state
from keras_ckpt_tools.live.keras_walk import has_state, structure_of
from keras_ckpt_tools.live.model_config import Describer, Documents
from keras_ckpt_tools.live.snapshot import Part, Snapshot, Snapshots
from keras_ckpt_tools.metadata import CustomObject, Record, TrackedObject, TrainingProgress
from keras_ckpt_tools.storage.commit import staged, synced_early
from keras_ckpt_tools.storage.local_paths import local_path
from keras_ckpt_tools.training.custom_objects import Named, named_in, objects_named, objects_of
from keras_ckpt_tools.training.untracked import UntrackedWatch


class Memory:
    """Cached results of one save of a model for the next: its walk, and its description.

    It references parts of the model, so it belongs to the owner of the model.
    """

    def __init__(self) -> None:
        self._model: Callable[[], Any] = lambda: None
        self._forget()

    def _forget(self) -> None:
        self.snapshots = Snapshots()
        self._describer = Describer()
        self._named: tuple[str, tuple[Named, ...]] = ("", ())

    def turn_to(self, model: Any) -> None:
        """Clear the cache for another model."""
        if self._model() is not model:
            self._model = weakref.ref(model) if model is not None else lambda: None
            self._forget()

    def describe(self, model: Any, part: Part) -> tuple[Documents, tuple[CustomObject, ...]]:
        """Return the documents of a model, and the custom objects that they name."""
        has_assets = self.snapshots.walk(part).has_assets
        documents = self._describer.describe(model, has_assets=has_assets)
        if documents.config is not self._named[0]:
            self._named = documents.config, named_in(json.loads(documents.config))
        # Custom objects in the config, and those that a layer creates itself.
        objects = {one.registered_name: one for one in objects_of(part.structure.kinds)}
        objects |= {one.registered_name: one for one in objects_named(self._named[1])}
        return documents, tuple(objects.values())

    def __deepcopy__(self, memo: object) -> Memory:
        return Memory()  # Tuners copy callbacks.

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()


Format = Literal[".weights.h5", ".keras", ".h5"]


def format_of(path: str, *, weights_only: bool) -> Format:
    """Return the format of a file, from its name.

    Raises:
        ArgumentError: the extension is not supported.
    """
    if weights_only:
        if path.endswith(".weights.h5"):
            return ".weights.h5"
        raise ArgumentError(
            "With `save_weights_only=True` the file name must end in '.weights.h5'.",
            received=f"filepath={path!r}",
            remedy=f"Pass {_with_suffix(path, '.weights.h5')!r}.",
        )
    if path.endswith(".keras"):
        return ".keras"
    if path.endswith(".h5") and not path.endswith(".weights.h5"):
        return ".h5"
    raise ArgumentError(
        "The file name of a model must end in '.keras' (or in '.h5', Keras' older format).",
        received=f"filepath={path!r}",
        remedy=f"Pass {_with_suffix(path, '.keras')!r}, or `save_weights_only=True` with a name "
        "that ends in '.weights.h5'.",
    )


def _with_suffix(path: str, suffix: str) -> str:
    folder, name = os.path.split(path)
    for known in (".weights.h5", ".h5", ".hdf5", ".keras", ".ckpt", ".tf"):
        name = name.removesuffix(known)
    return os.path.join(folder, name + suffix)


def prepare_model(
    path: str,
    model: Any,
    progress: TrainingProgress,
    format: Format,
    state_of: Mapping[str, Any],
    untracked: UntrackedWatch | None = None,
    memory: Memory | None = None,
) -> Callable[[], Record]:
    """Take a snapshot of one model, and return a function that writes and commits it.

    Args:
        path: Path of the file; it is visible and complete when the returned function has run.
        model: A built model. Training may continue as soon as this returns.
        progress: The position of training.
        state_of: Further values for the record.
        format: File format. A `.h5` is written at once by Keras' own writer; only its commit is
            deferred.
        untracked: Searches for state that would be left out, or `None`.
        memory: Results of earlier saves, for models that are saved repeatedly.

    Raises:
        CommitError: the operating system refused; existing files are unchanged.
        NotBuiltError: the model has no variables yet.
    """
    if not has_state(model):
        raise state.not_built(model, str(model.name), "saved")
    path = os.path.abspath(path)  # The current directory may change before the file is written.
    record = new_record("weights" if format == ".weights.h5" else "model", progress, state_of)
    directory = os.path.dirname(os.path.realpath(path))
    memory = memory or Memory()
    memory.turn_to(model)
    part = Part("", lambda: state.capture(model), structure_of(model))
    if untracked is not None:
        untracked.look({"model": (model, part)}, memory.snapshots.walk)
    if format == ".h5":
        record = dataclasses.replace(record, objects=objects_of(part.structure.kinds))
        with staged(path) as file:
            written = legacy_h5.write_legacy_model(file, model, record)
        return lambda: written
    snapshot = memory.snapshots.take([part])
    if format == ".keras":
        documents, objects = memory.describe(model, part)
        record = dataclasses.replace(record, objects=objects)

        def write_archive() -> Record:
            with staged(path) as file:
                return keras_archive.write_archive(file, documents, snapshot, record, directory)

        return write_archive
    record = dataclasses.replace(record, objects=objects_of(part.structure.kinds))
    return lambda: _write_weights(path, snapshot, record)


def save_model(path: str, model: Any, progress: TrainingProgress, format: Format) -> Record:
    """Save one model and commit it, at once. See `prepare_model`."""
    return prepare_model(path, model, progress, format, {})()


def prepare_checkpoint(
    path: str,
    snapshot: Snapshot,
    tracked: Mapping[str, TrackedObject],
    objects: tuple[CustomObject, ...],
    progress: TrainingProgress,
) -> Callable[[], Record]:
    """Return a function that writes and commits tracked objects as one checkpoint.

    Args:
        path: Path of the file.
        snapshot: The tensors of all objects.
        tracked: The state of each object except tensors.
        objects: The custom objects that they contain.
        progress: The position of training.
    """
    record = dataclasses.replace(
        new_record("checkpoint", progress, {}), tracked=dict(tracked), objects=objects
    )
    path = os.path.abspath(path)
    return lambda: _write_weights(path, snapshot, record)


def _write_weights(path: str, snapshot: Snapshot, record: Record) -> Record:
    with staged(path) as file:
        return write_weights(synced_early(file), snapshot, record, os.path.dirname(path) or ".")


def new_record(kind: str, progress: TrainingProgress, state_of: Mapping[str, Any]) -> Record:
    """Return a new record without tensors."""
    saved = dataclasses.replace(progress, saved_at=time.time())
    return Record(kind=kind, versions=versions(), progress=saved, state=dict(state_of))


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a file depends on."""
    import keras

    found = {
        "python": platform.python_version(),
        "keras": str(keras.__version__),
        "keras_ckpt_tools": __version__,
        "backend": str(keras.backend.backend()),
    }
    for name in ("tensorflow", "numpy", "h5py"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check_directory(path: str | os.PathLike[str], argument: str, *, to_write: bool = True) -> str:
    """Return a directory to write into as a string, if it is valid.

    Args:
        path: The directory.
        argument: Name of the argument.
        to_write: Whether it will certainly be written to, and not only read.

    Raises:
        ArgumentError: it is not a path, is empty, or is a URL.
        CommitError: it is a file, or its nearest existing directory is not writable.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ArgumentError(
            f"`{argument}` must be the path of a directory.",
            received=f"{argument}={path!r}",
            remedy="Pass a non-empty string or a `pathlib.Path`.",
        )
    name = local_path(path, argument)
    nearest = Path(name)
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise CommitError(
            f"A directory is needed, but {str(nearest)!r} is a file.",
            received=f"{argument}={name!r}",
            remedy="Choose another directory, or move that file away.",
            path=name,
        )
    if to_write and not os.access(nearest, os.W_OK | os.X_OK):
        raise CommitError(
            f"The directory {str(nearest)!r} is not writable.",
            received=f"{argument}={name!r}",
            remedy="Choose a writable directory.",
            path=name,
        )
    return name
