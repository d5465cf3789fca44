"""Programs that write TensorFlow checkpoints, for tests to run, and kill, in processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from processes import killed_after

from keras_ckpt_tools.formats.tensorflow.checkpoint import SUFFIX
from keras_ckpt_tools.formats.tensorflow.protobuf import bytes_field, number_field
from keras_ckpt_tools.metadata import Record, TrackedObject, TrainingProgress
from keras_ckpt_tools.runs.checkpoints import clear_leftovers
from keras_ckpt_tools.runs.listing import checkpoints_in
from keras_ckpt_tools.runs.tensorflow import delete_prefixes, prefix_path
from keras_ckpt_tools.runs.tensorflow_writer import commit_run


def commit_number(directory: str, number: int) -> None:
    """Commit a checkpoint with one variable, whose value is the number."""
    key = f"x{SUFFIX}"
    root = bytes_field(1, number_field(1, 1) + bytes_field(2, b"x"))
    told = bytes_field(1, b"VARIABLE_VALUE") + bytes_field(2, b"x") + bytes_field(3, key.encode())
    graph = bytes_field(1, root) + bytes_field(1, bytes_field(2, told))
    record = Record(
        kind="checkpoint",
        tracked={"x": TrackedObject("variable")},
        progress=TrainingProgress(epochs_completed=number, run_id="a"),
    )
    array = np.full((5,), number, "float32")
    commit_run(prefix_path(directory, number), {key: array}, {key: "x/vars/0"}, graph, record)


def save_next(directory: str, calls: int | None) -> int:
    """Commit the next checkpoint, delete the others and what was left over; be killed in it.

    Args:
        directory: Where to.
        calls: The call of a file operation before which this process is killed; `None` for none.

    Returns:
        How many such calls there are.
    """
    saved, _ = checkpoints_in(directory)
    with killed_after(calls, of_files=True) as count:
        commit_number(directory, saved[-1].number + 1 if saved else 1)
        delete_prefixes([item.path for item in saved])
        clear_leftovers(directory)
    return count[0]


def save_for_ever(pipe: Any, directory: str) -> None:
    """Save a model without end as a loop does, and tell of each checkpoint that is there."""
    import keras
    import tensorflow as tf

    import keras_ckpt_tools as kct

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64), keras.layers.Dense(1)])
    step = tf.Variable(0, dtype=tf.int64)
    manager = kct.CheckpointManager(
        directory, format="tf", max_to_keep=2, background=True, model=model, step=step
    )
    manager.restore_or_initialize()
    pipe.send(int(step))
    while True:
        step.assign_add(1)
        for weight in model.weights:
            weight.assign(np.full(weight.shape, int(step)))
        manager.save()
        if int(step) % 3 == 0:
            manager.wait()
            pipe.send(int(step))
