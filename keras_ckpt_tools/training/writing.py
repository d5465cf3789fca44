"""Take a snapshot, write it, commit it: policy -> *snapshot, write, commit* -> keep.

The one way by which the callbacks and the manager put anything on disk. State and record go into
one staged file, so one rename commits both, and "where training is" can never disagree with the
weights beside it.
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
    """What one save of a model leaves for the next: its walk, and its description.

    It holds on to the parts of the model, so it belongs to whoever holds on to the model as well.
    """

    def __init__(self) -> None:
        self._model: Callable[[], Any] = lambda: None
        self._forget()

    def _forget(self) -> None:
        self.snapshots = Snapshots()
        self._describer = Describer()
        self._named: tuple[str, tuple[Named, ...]] = ("", ())

    def turn_to(self, model: Any) -> None:
        """Forget all about another model."""
        if self._model() is not model:
            self._model = weakref.ref(model) if model is not None else lambda: None
            self._forget()

    def describe(self, model: Any, part: Part) -> tuple[Documents, tuple[CustomObject, ...]]:
        """Return the documents of a model, and the custom objects that they name."""
        has_assets = self.snapshots.walk(part).has_assets
        documents = self._describer.describe(model, has_assets=has_assets)
        if documents.config is not self._named[0]:
            self._named = documents.config, named_in(json.loads(documents.config))
        # Those in a config, and those that a layer makes for itself.
        objects = {one.registered_name: one for one in objects_of(part.structure.kinds)}
        objects |= {one.registered_name: one for one in objects_named(self._named[1])}
        return documents, tuple(objects.values())

    def __deepcopy__(self, memo: object) -> Memory:
        return Memory()  # Tuners copy callbacks.

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()


Format = Literal[".weights.h5", ".keras", ".h5"]


def format_of(path: str, *, weights_only: bool) -> Format:
    """Return the format that a file name asks for.

    Raises:
        ArgumentError: its extension is none that is written here.
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
        "The file name of a whole model must end in '.keras' (or in '.h5', Keras' older format).",
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
    """Take a snapshot of one model, and return what writes and commits it.

    Args:
        path: Where to; visible there, whole, when what is returned has run.
        model: A built model. It may be trained on as soon as this returns.
        progress: Where training is.
        state_of: What else its record is to say.
        format: What to write. A `.h5` is laid out by Keras' own writer, so it is written at once;
            only its commit is left.
        untracked: Looks for state that would be left out, or `None`.
        memory: What earlier saves have left, for models that are saved again and again.

    Raises:
        CommitError: the operating system refused; what was there is unchanged.
        NotBuiltError: the model has no variables yet.
    """
    if not has_state(model):
        raise state.not_built(model, str(model.name), "saved")
    path = os.path.abspath(path)  # Whoever writes it may be in another directory by then.
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
    """Return what writes and commits tracked objects as one checkpoint.

    Args:
        path: Where to.
        snapshot: The tensors of all of them.
        tracked: What each of them holds beside tensors.
        objects: The custom objects that they are made of.
        progress: Where training is.
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
    """Return a record of now, without tensors."""
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
    """Return a directory to write into as a string, if it can be one.

    Args:
        path: The directory.
        argument: What the argument is called.
        to_write: Whether it is certain that it will be written to, and not only read.

    Raises:
        ArgumentError: it is no path, empty, or an address.
        CommitError: a file is there, or its nearest directory may not be written to.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ArgumentError(
            f"`{argument}` is the path of a directory.",
            received=f"{argument}={path!r}",
            remedy="Pass a non-empty string or a `pathlib.Path`.",
        )
    name = local_path(path, argument)
    nearest = Path(name)
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise CommitError(
            f"A directory is needed, and {str(nearest)!r} is a file.",
            received=f"{argument}={name!r}",
            remedy="Choose another directory, or move that file away.",
            path=name,
        )
    if to_write and not os.access(nearest, os.W_OK | os.X_OK):
        raise CommitError(
            f"You may not write to {str(nearest)!r}.",
            received=f"{argument}={name!r}",
            remedy="Choose a directory that you may write to.",
            path=name,
        )
    return name
