"""Write tracked objects as one TensorFlow checkpoint. Imported only for `format="tf"`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.hdf5.writer import optimizers_in
from keras_ckpt_tools.formats.tensorflow.bundle_writer import storable
from keras_ckpt_tools.formats.tensorflow.checkpoint import SUFFIX
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.foreign.tf_export import COUNTER, OWN, graph_of
from keras_ckpt_tools.live.snapshot import Snapshot
from keras_ckpt_tools.metadata import CustomObject, Record, TrackedObject, TrainingProgress
from keras_ckpt_tools.runs.tensorflow_writer import commit_run
from keras_ckpt_tools.training.writing import new_record


def prepare_tf_checkpoint(
    targets: Mapping[str, Any],
    places: Mapping[int, str],
    snapshot: Snapshot,
    tracked: Mapping[str, TrackedObject],
    objects: tuple[CustomObject, ...],
) -> Callable[[str, int, TrainingProgress], Callable[[], Record]]:
    """Return a function that prepares one TensorFlow checkpoint of the tracked objects.

    Args:
        targets: The tracked objects.
        places: The path of each variable in the snapshot, by its `id`.
        snapshot: The tensors of all objects, and of the extra run state.
        tracked: The state of each object except tensors.
        objects: The custom objects that they contain.

    Returns:
        A function of the prefix, the number of the save, and the progress. It returns a function
        that writes and commits.
    """
    graph = graph_of(targets)
    paths: dict[str, str] = {}
    # Current values of variables that only TensorFlow tracks, as attributes of a Keras layer.
    beside: dict[str, np.ndarray[Any, Any]] = {}
    counter = f"{COUNTER}{SUFFIX}"
    for key, variable in graph.variables.items():
        path = places.get(id(variable))
        if path is not None and path in snapshot.arrays and path not in paths:
            paths[path] = key
        else:
            beside[key] = state.to_numpy(variable)
    keys = {path: paths.get(path, f"{OWN}{path}") for path in snapshot.arrays}

    def prepare(prefix: str, number: int, progress: TrainingProgress) -> Callable[[], Record]:
        record = dataclasses.replace(
            new_record("checkpoint", progress, {}),
            tracked=dict(tracked),
            objects=objects,
            names=snapshot.called,
        )
        record = dataclasses.replace(record, optimizers=optimizers_in(snapshot, record))
        final = os.path.abspath(prefix)

        def write() -> Record:
            arrays = {key: storable(snapshot.arrays[path]) for path, key in keys.items()} | beside
            arrays[counter] = np.asarray(number, np.int64)
            names = {key: path for path, key in keys.items()}
            return commit_run(final, arrays, names, graph.message, record)

        return write

    return prepare
