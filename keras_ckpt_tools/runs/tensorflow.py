"""Find and delete the TensorFlow checkpoints of a run in one directory.

Each has three files: `ckpt-00000003.data-00000-of-00001` and `ckpt-00000003.index`, which
TensorFlow reads, and `ckpt-00000003.record`, the record that other files of this package have at
their start. The record is written last and commits. Then the file `checkpoint` is replaced, in
which `tf.train.latest_checkpoint` finds the newest one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from keras_ckpt_tools.formats.tensorflow.prefixes import state_of_directory, state_text
from keras_ckpt_tools.formats.tensorflow.recorded import (
    RECORD,
    SUFFIXES,
    is_prefix,
)
from keras_ckpt_tools.storage.commit import remove_files, staged
from keras_ckpt_tools.storage.commit_set import remove_abandoned, remove_set

_NAME = re.compile(r"ckpt-\d{8,}")


def prefix_path(directory: str | os.PathLike[str], number: int) -> str:
    """Return the prefix of the n-th checkpoint of a run.

    >>> prefix_path("runs/digits", 12)
    'runs/digits/ckpt-00000012'
    """
    return os.path.join(directory, f"ckpt-{number:08d}")


def records_in(directory: str | os.PathLike[str]) -> list[str]:
    """Return the names of this package's checkpoints in a directory, sorted by number."""
    stems = [name.removesuffix(RECORD) for name in os.listdir(directory) if name.endswith(RECORD)]
    ours = [n for n in stems if _NAME.fullmatch(n) and is_prefix(os.path.join(directory, n))]
    return sorted(ours, key=lambda name: int(name.removeprefix("ckpt-")))


def delete_prefixes(prefixes: list[str]) -> None:
    """Delete checkpoints written by this package; skip third-party and deleted ones.

    Raises:
        CommitError: the operating system refused to delete a file.
    """
    ours = [prefix for prefix in prefixes if is_prefix(prefix)]
    for prefix in ours:
        remove_set(prefix, SUFFIXES)
    for directory in {os.path.dirname(prefix) for prefix in ours}:
        write_state(directory)


def clear_prefixes(directory: str | os.PathLike[str]) -> None:
    """Delete the files of unfinished writes and deletions that killed runs left."""
    remove_abandoned(directory, _NAME.fullmatch, SUFFIXES)


def write_state(directory: str) -> None:
    """Write the existing checkpoints, and the newest of them, to the file `checkpoint`.

    Entries of other programs in the same directory are retained.

    Raises:
        CommitError: the operating system refused.
    """
    path = os.path.join(directory, "checkpoint")
    before = state_of_directory(directory)
    own = records_in(directory)
    others = [name for name in dict.fromkeys(before[1:]) if not _NAME.fullmatch(name)]
    if own:
        text = state_text(own[-1], [*others, *own])
        if not _reads(path, text):
            with staged(path) as file:
                file.write(text)
    elif before and not others and all(map(_NAME.fullmatch, before)):
        remove_files([path])


def _reads(path: str, text: bytes) -> bool:
    try:
        return Path(path).read_bytes() == text
    except OSError:
        return False
