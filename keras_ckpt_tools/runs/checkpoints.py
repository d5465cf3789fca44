"""The checkpoints of one run, in one directory: keep -> *find* -> resume.

A directory holds `ckpt-00000001.weights.h5`, `ckpt-00000002.weights.h5`, ... in the order of the
saves. There is no index beside them that could say something else than the files do: each file's
record says where training was. A file counts only if it has both the name and a record of ours, so
nobody else's file is ever listed, resumed from or deleted.

Those of a run that saves as TensorFlow does are among them, by their prefix (see `tf_run`): a run
may change its format, and goes on from whichever is the newest.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.record.userblock import decode, digest_of
from keras_ckpt_tools.formats.tensorflow.recorded import is_prefix, record_of
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.runs.retention import Saved, newest_first
from keras_ckpt_tools.runs.tensorflow import (
    clear_prefixes,
    delete_prefixes,
    list_prefixes,
    numbers_in,
    prefix_of_record,
)
from keras_ckpt_tools.storage.commit import refused, remove_files, remove_leftovers_of

_HDF5 = b"\x89HDF\r\n\x1a\n"
# What tells who wrote a checkpoint, among the names of what it holds beside tracked objects: each
# kind of door has a policy of its own, for its own files.
DOORS = frozenset({"_fit", "_loop"})

_NAME = re.compile(r"ckpt-(\d{8,})\.weights\.h5")


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


def list_checkpoints(directory: str | os.PathLike[str]) -> tuple[list[Saved], list[str]]:
    """Return the checkpoints of a directory, oldest first, and those whose record is damaged.

    Only records are read here, not tensors. A directory that is not there has none.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return [], []
    saved, damaged = list_prefixes(directory)
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        path = os.path.join(directory, name)
        if not match or not (os.path.isfile(path) or os.path.islink(path)):
            continue
        if os.path.islink(path):
            damaged.append(path)  # It leads out of the directory, or is another one's second name.
            continue
        try:
            record = read_record(path)
        except CkptError:
            damaged.append(path)
            continue
        if record is not None and record.kind != "checkpoint":
            continue  # A file of ours, but of another kind: `ModelCheckpoint` may be called so.
        if record is not None and os.path.getsize(path) == record.size:
            holds = frozenset(record.tracked.keys() - record.objects_tracked.keys())
            finite, state = not record.not_finite, functools.partial(state_in, path)
            saved.append(
                Saved(path, int(match[1]), record.progress, holds, finite, state, record.phase)
            )
        elif record is not None or not _is_plain_hdf5(path):
            damaged.append(path)
    return newest_first(saved)[::-1], damaged


def state_in(path: str) -> str:
    """Return a digest of the tensors of tracked objects in a checkpoint, or `""`."""
    try:
        record = record_of(path)[0] if is_prefix(path) else read_record(path)
    except (CkptError, OSError):
        return ""
    return digest_of_state(record)


def digest_of_state(record: Record | None) -> str:
    """Return a digest of the tensors of a record, those of the run itself left out; or `""`."""
    told = [
        (info.path, info.digest)
        for info in (record.tensors if record else ())
        if not info.path.startswith("_")
    ]
    if not told or not all(digest for _, digest in told):
        return ""
    return digest_of(repr(sorted(told)).encode())


def checkpoint_names(directory: str | os.PathLike[str]) -> frozenset[str]:
    """Return the last parts of the paths of checkpoints in a directory, without reading any."""
    try:
        names = os.listdir(directory)
    except OSError:
        return frozenset()
    found = (name if _NAME.fullmatch(name) else prefix_of_record(name) for name in names)
    return frozenset(name for name in found if name)


def _is_plain_hdf5(path: str) -> bool:
    """Return whether somebody else wrote the file: ours never begin like this."""
    with open(path, "rb") as file:
        return file.read(len(_HDF5)) == _HDF5


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
