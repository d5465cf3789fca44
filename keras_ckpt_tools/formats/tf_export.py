"""Write a TensorFlow checkpoint under a prefix: objects or arrays -> *files* -> commit.

A checkpoint is two files, and no rename replaces two at once. So a prefix that is in use is never
written to, and of a new one the `.index` is committed last: until that is there nothing takes the
other file for a checkpoint, and from then on both are whole.

TensorFlow writes into a folder of its own; from there the files are staged beside the target like
any other, so a kill leaves what the next save removes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.storage.commit import staged

__all__ = ["write_arrays", "write_objects"]


def write_objects(prefix: str, **objects: Any) -> None:
    """Write live objects, as `tf.train.Checkpoint(**objects)` does.

    Raises:
        CommitError: the operating system refused; there is nothing at the prefix.
    """
    checkpoint = tf.train.Checkpoint(**objects)
    # Made when it is asked for. `restore` looks for it, which goes with `save`, and not with the
    # `write` that takes the prefix as it is.
    checkpoint.save_counter.assign(1)
    _write(prefix, checkpoint.write)


def write_arrays(prefix: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays as variables in nested dicts: `"layers/dense/vars/0"` is four levels deep.

    `tf.train.load_checkpoint` has them under their paths.

    Raises:
        ArgumentError: a path is also the beginning of another, or TensorFlow has no such dtype.
        CommitError: the operating system refused; there is nothing at the prefix.
    """
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *groups, name = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or name in place:
            raise _refused(path, "another tensor has a name that it begins with")
        place[name] = _variable(path, array)
    root = tf.Module()
    root.tree = tree
    _write(prefix, tf.train.Checkpoint(root=root.tree).write)


def _variable(path: str, array: np.ndarray[Any, Any]) -> Any:
    try:
        with tf.device("CPU:0"):
            return tf.Variable(array)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise _refused(path, f"TensorFlow has no variables of {array.dtype.name}") from error


def _refused(path: str, why: str) -> ArgumentError:
    return ArgumentError(
        f"{path} cannot be a variable of the checkpoint: {why}.",
        received=f"tensor {path!r}",
        remedy="Leave it out with `--exclude`, or give it another name with `--rename`.",
    )


def _write(prefix: str, write: Callable[[str], Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="kct-") as folder:
        made = os.path.join(folder, "ckpt")
        write(made)
        # The index sorts behind `.data-...`: it comes last.
        for name in sorted(os.listdir(folder)):
            final = prefix + name.removeprefix("ckpt")
            with open(os.path.join(folder, name), "rb") as file, staged(final) as target:
                shutil.copyfileobj(file, target, 1 << 20)
