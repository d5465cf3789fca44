"""The saves that are tortured: each way in which the package puts something on disk.

All weights of the n-th save are n, so a file tells which save it holds, and whether all of it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from programs import constant_model, set_constant

import keras_ckpt_tools as kct
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.runs.listing import checkpoints_in
from keras_ckpt_tools.storage.commit import STAGED_SUFFIX

Save = Callable[[int], None]

# Other people's files, with names that look like ours.
STRANGERS = {
    "notes.txt": b"not yours",
    "ckpt-00000001.txt": b"nor this",
    f".other.bin.01234567{STAGED_SUFFIX}": b"somebody's save of another file",
    "model.keras.tmp": b"an editor's",
}


@dataclass(frozen=True)
class Scenario:
    """One way of saving.

    Attributes:
        name: Its name.
        begin: Given a directory, returns what makes the n-th save, waiting for it to be done.
        saves_before: How many saves are on disk when it becomes interesting.
        files: How many files of ours there are after a save.
        folder: Where in the tortured directory the saves go.
    """

    name: str
    begin: Callable[[str], Save]
    saves_before: int = 1
    files: int = 1
    folder: str = "."

    def __str__(self) -> str:
        return self.name

    def start(self, root: str | os.PathLike[str]) -> Save:
        """Return what makes the n-th save below a directory."""
        return self.begin(os.path.normpath(os.path.join(root, self.folder)))


def _model(width: int) -> keras.Model:
    if width == 16:
        return constant_model(0.0, layers=6)
    model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(width)])
    model.compile("sgd", "mse")
    return model


def _overwriting(
    suffix: str, name: str = "model", width: int = 16, **arguments: Any
) -> Callable[[str], Save]:
    def begin(directory: str) -> Save:
        model = _model(width)
        weights_only = suffix == ".weights.h5"
        callback = kct.ModelCheckpoint(
            os.path.join(directory, name + suffix), save_weights_only=weights_only, **arguments
        )
        callback.set_model(model)
        callback.on_train_begin()

        def save(number: int) -> None:
            set_constant(model, number)
            callback.on_epoch_begin(number - 1)
            try:
                callback.on_epoch_end(number - 1, {})
            finally:
                callback.on_train_end()

        return save

    return begin


def _managed(width: int = 16, **arguments: Any) -> Callable[[str], Save]:
    def begin(directory: str) -> Save:
        model = _model(width)
        manager = kct.CheckpointManager(directory, model=model, **arguments)
        manager.restore_or_initialize()

        def save(number: int) -> None:
            set_constant(model, number)
            try:
                manager.save()
            finally:
                manager.wait()

        return save

    return begin


def _backed_up(directory: str) -> Save:
    model = _model(16)
    callback = kct.BackupAndRestore(directory, delete_checkpoint=False)
    callback.set_model(model)
    callback.set_params({})
    callback.on_train_begin()

    def save(number: int) -> None:
        set_constant(model, number)
        callback.on_epoch_begin(number - 1)
        callback.on_epoch_end(number - 1, {})

    return save


SCENARIOS = [
    Scenario("overwrite .keras", _overwriting(".keras")),
    Scenario("overwrite .weights.h5", _overwriting(".weights.h5")),
    Scenario("overwrite .h5", _overwriting(".h5")),
    Scenario("overwrite .keras in the background", _overwriting(".keras", background=True)),
    Scenario("pattern, two kept", _overwriting(".keras", "{epoch}", max_to_keep=2), 2, 2),
    Scenario("rotate, one kept", _managed(max_to_keep=1)),
    Scenario("rotate, two kept", _managed(max_to_keep=2), 2, 2),
    Scenario("rotate in the background", _managed(max_to_keep=1, background=True)),
    Scenario("back up", _backed_up),
    Scenario("first .keras", _overwriting(".keras"), 0, folder="new/runs"),
    Scenario("first of a rotation", _managed(max_to_keep=1), 0, folder="new/runs"),
]

# These take a few milliseconds each, most of which is writing: 4 MB of weights.
KILLED = {
    "overwrite": [
        Scenario("overwrite .keras", _overwriting(".keras", width=1000)),
        Scenario("overwrite .weights.h5", _overwriting(".weights.h5", width=1000)),
    ],
    "rotate": [
        Scenario("rotate, one kept", _managed(width=1000, max_to_keep=1)),
        Scenario("rotate, two kept", _managed(width=1000, max_to_keep=2), 2, 2),
        Scenario("rotate in the background", _managed(width=1000, max_to_keep=1, background=True)),
    ],
}


def save_for_ever(pipe: Any, kind: str, which: int, directory: str, number: int) -> None:
    """Make one save after another, until killed; tell of each when it is done."""
    save = KILLED[kind][which].start(directory)
    # TensorFlow's import leaves a quarter of a second of garbage collection to whoever comes next;
    # kills are to strike in saves.
    gc.collect()
    gc.freeze()
    pipe.send(None)
    while True:
        number += 1
        save(number)
        pipe.send(number)


def ours_in(root: str | os.PathLike[str]) -> list[str]:
    """Return what is below a directory beside the files of strangers."""
    return sorted(str(p) for p in Path(root).rglob("*") if p.is_file() and p.name not in STRANGERS)


def newest_in(root: str | os.PathLike[str]) -> int | None:
    """Return the number of the newest save in a directory, all of which have to be whole.

    A rotating directory is read as the package reads it. What is only staged does not count.
    """
    numbers = []
    for path in ours_in(root):
        if not path.endswith(STAGED_SUFFIX):
            number = number_in(path)
            assert number is not None, f"{path} is not whole"
            numbers.append(number)
    for folder in {os.path.dirname(path) for path in ours_in(root)}:
        saved, damaged = checkpoints_in(folder)
        assert damaged == []
        if saved:
            assert number_in(saved[-1].path) == max(numbers)
    return max(numbers, default=None)


def number_in(path: str) -> int | None:
    """Return which save a file holds; `None` if it is not all of it, byte for byte."""
    try:
        with open_source(path) as source:
            if source.verify():
                return None
            weights = [
                source.read(name)
                for name in source.tensors
                if not name.startswith(("optimizer", "_"))
            ]
    except kct.errors.CkptError:
        return None
    values = {float(value) for array in weights for value in np.unique(array)}
    return int(values.pop()) if len(values) == 1 else None
