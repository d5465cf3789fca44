"""Name and delete the checkpoints of one run, in one directory.

A directory contains `ckpt-00000001.weights.h5`, `ckpt-00000002.weights.h5`, ... in the order of the
saves. There is no separate index: the record in each file contains the position of training.
TensorFlow checkpoints of a run are included, by their prefix (see `tensorflow`): a run may change
its format, and resumes from the newest checkpoint. `listing.checkpoints_in` lists them.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.record.userblock import decode
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.storage.commit import (
    refused,
    remove_files,
    remove_leftovers_of,
    target_of_staged,
)

# Names of extra state in a checkpoint that show which class wrote it. Each writer (`DOORS`) applies
# its retention policy to its own files only.
DOORS = frozenset({"_fit", "_loop"})

_H5, _RECORD = ".weights.h5", ".record"
# Without an extension it is the prefix of a TensorFlow checkpoint.
_NAME = re.compile(r"(ckpt-(\d{8,}))(\.weights\.h5|\.record|\.index|\.data-\d+-of-\d+)?")


def checkpoint_path(directory: str | os.PathLike[str], number: int) -> str:
    """Return the path of the n-th checkpoint of a run.

    >>> checkpoint_path("runs/digits", 12)
    'runs/digits/ckpt-00000012.weights.h5'
    """
    return os.path.join(directory, f"ckpt-{number:08d}.weights.h5")


def nbytes_of(path: str) -> int:
    """Return the size of a file, or of the files of a TensorFlow checkpoint, in bytes.

    Raises:
        OSError: one of the files does not exist.
    """
    if os.path.isfile(path):
        return os.path.getsize(path)
    from keras_ckpt_tools.formats.tensorflow.recorded import SUFFIXES

    return sum(os.path.getsize(f"{path}{suffix}") for suffix in SUFFIXES)


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """Read the record at the start of a weights file; `None` if this package did not write it.

    Raises:
        DamagedArtefactError: the record is damaged.
    """
    with open(path, "rb") as file:
        found = decode(lambda offset, length: os.pread(file.fileno(), length, offset), str(path))
    return found[0] if found else None


def number_in(path: str) -> int | None:
    """Return the number in the name of a checkpoint, its prefix or one of its files.

    >>> number_in("runs/ckpt-00000012.weights.h5"), number_in("runs/ckpt-00000012")
    (12, 12)
    """
    found = _NAME.fullmatch(os.path.basename(path))
    return int(found[2]) if found else None


def checkpoint_in(name: str) -> str | None:
    """Return the name of the checkpoint that a file commits, or `None`.

    >>> checkpoint_in("ckpt-00000001.weights.h5"), checkpoint_in("ckpt-00000001.record")
    ('ckpt-00000001.weights.h5', 'ckpt-00000001')
    >>> checkpoint_in("ckpt-00000001.index")
    """
    found = _NAME.fullmatch(name)
    return {_H5: name, _RECORD: found[1]}.get(found[3]) if found else None


def files_of_run(names: list[str]) -> list[str]:
    """Return the names in a directory that belong to checkpoint files."""
    there = {checkpoint_in(name) for name in names}
    found = (_NAME.fullmatch(name) for name in names)
    return [match[0] for match in found if match and there & {match[0], match[1]}]


def checkpoint_names(directory: str | os.PathLike[str]) -> frozenset[str]:
    """Return the base names of the checkpoints in a directory, without reading any file."""
    try:
        names = os.listdir(directory)
    except OSError:
        return frozenset()
    return frozenset(filter(None, map(checkpoint_in, names)))


def next_number(directory: str | os.PathLike[str]) -> int:
    """Return the first unused number. Damaged and third-party checkpoints count as used.

    Raises:
        CommitError: the directory cannot be read.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise refused(Path(directory), error) from error
    return max((number_in(name) or 0 for name in names), default=0) + 1


def delete_checkpoints(paths: list[str]) -> None:
    """Delete checkpoints written by this package; skip third-party and deleted ones.

    Raises:
        CommitError: the operating system refused to delete a file.
    """
    files = [path for path in paths if path.endswith(_H5)]
    remove_files([path for path in files if number_in(path) is not None], _is_ours)
    if len(files) < len(paths):
        from keras_ckpt_tools.runs.tensorflow import delete_prefixes

        delete_prefixes([path for path in paths if not path.endswith(_H5)])


def clear_leftovers(directory: str | os.PathLike[str]) -> None:
    """Delete the staging files of checkpoints that killed runs left, whatever their numbers."""
    remove_leftovers_of(Path(directory), _is_h5)
    with contextlib.suppress(OSError):  # The directory may be writable, but not readable.
        targets = [target_of_staged(name) for name in os.listdir(directory)]
        if any(t and number_in(t) is not None and not _is_h5(t) for t in targets):
            from keras_ckpt_tools.runs.tensorflow import clear_prefixes

            clear_prefixes(directory)


def _is_h5(name: str) -> bool:
    return name.endswith(_H5) and number_in(name) is not None


def _is_ours(path: str) -> bool:
    if os.path.islink(path):
        return False  # A run only writes files.
    try:
        record = read_record(path)
    except CkptError:
        return True  # It was written by this package and was damaged later.
    # A `ModelCheckpoint` may have written a file with this name since.
    return record is not None and record.kind == "checkpoint"
