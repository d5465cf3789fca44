"""Name and delete the checkpoints of one run, in one directory.

A directory holds `ckpt-00000001.weights.h5`, `ckpt-00000002.weights.h5`, ... in the order of the
saves. There is no index that could contradict the files: each file's record says where training
was. TensorFlow checkpoints of a run are among them, by their prefix (see `tensorflow`): a run may
change its format, and resumes from the newest. `listing.checkpoints_in` lists them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.record.userblock import decode
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.runs.tensorflow import (
    clear_prefixes,
    delete_prefixes,
    is_prefix,
    numbers_in,
    prefix_of_file,
    prefix_of_record,
)
from keras_ckpt_tools.storage.commit import refused, remove_files, remove_leftovers_of

# What tells who wrote a checkpoint, among the names of what it holds beside tracked objects: each
# kind of door has a policy of its own, for its own files.
DOORS = frozenset({"_fit", "_loop"})

_NAME = re.compile(r"ckpt-(\d{8,})\.weights\.h5")
_NAMES = re.compile(r"ckpt-(\d{8,})(?:\.weights\.h5)?")


def checkpoint_path(directory: str | os.PathLike[str], number: int) -> str:
    """Return the path of the n-th checkpoint of a run.

    >>> checkpoint_path("runs/digits", 12)
    'runs/digits/ckpt-00000012.weights.h5'
    """
    return os.path.join(directory, f"ckpt-{number:08d}.weights.h5")


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """Read the record at the head of a weights file, or `None` where there is none of ours.

    Raises:
        DamagedArtefactError: there is one, and it has changed.
    """
    with open(path, "rb") as file:
        found = decode(lambda offset, length: os.pread(file.fileno(), length, offset), str(path))
    return found[0] if found else None


def number_in(path: str) -> int | None:
    """Return the number in the name of a checkpoint, or of the prefix of one.

    >>> number_in("runs/ckpt-00000012.weights.h5"), number_in("runs/ckpt-00000012")
    (12, 12)
    """
    found = _NAMES.fullmatch(os.path.basename(path))
    return int(found[1]) if found else None


def files_of_run(names: list[str]) -> list[str]:
    """Return which of the names in a directory are those of a run's checkpoints.

    Files called like TensorFlow checkpoints are where there is a record.
    """
    prefixes = {prefix_of_record(name) for name in names} - {None}
    return [n for n in names if _NAME.fullmatch(n) or prefix_of_file(n) in prefixes]


def checkpoint_names(directory: str | os.PathLike[str]) -> frozenset[str]:
    """Return the last parts of the paths of checkpoints in a directory, without reading any."""
    try:
        names = os.listdir(directory)
    except OSError:
        return frozenset()
    found = (name if _NAME.fullmatch(name) else prefix_of_record(name) for name in names)
    return frozenset(name for name in found if name)


def next_number(directory: str | os.PathLike[str]) -> int:
    """Return the number that comes after all that are in use, damaged ones and others' included.

    Raises:
        CommitError: the directory cannot be read.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise refused(Path(directory), error) from error
    used = [int(m[1]) for name in names if (m := _NAME.fullmatch(name))]
    return max([*used, *numbers_in(names)], default=0) + 1


def delete_checkpoints(paths: list[str]) -> None:
    """Delete checkpoints that we wrote; others, and those that are gone already, are left alone.

    Raises:
        CommitError: the operating system refused.
    """
    remove_files([path for path in paths if _NAME.fullmatch(os.path.basename(path))], _is_ours)
    delete_prefixes([path for path in paths if is_prefix(path)])


def clear_leftovers(directory: str | os.PathLike[str]) -> None:
    """Remove what killed runs left of staging checkpoints, whatever their numbers."""
    remove_leftovers_of(Path(directory), _NAME.fullmatch)
    clear_prefixes(directory)


def _is_ours(path: str) -> bool:
    if os.path.islink(path):
        return False  # A run writes files.
    try:
        record = read_record(path)
    except CkptError:
        return True  # It was ours before its record changed.
    # A `ModelCheckpoint` may have put a file of its own there since.
    return record is not None and record.kind == "checkpoint"
