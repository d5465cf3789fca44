"""The TensorFlow checkpoints of a run, in one directory: keep -> *find* -> resume.

Each is three files: `ckpt-00000003.data-00000-of-00001` and `ckpt-00000003.index`, which are what
TensorFlow reads, and `ckpt-00000003.record`, which is the record that stands at the head of our
other files. The record comes last and commits; after it the file `checkpoint` is replaced, by which
`tf.train.latest_checkpoint` finds the newest one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.tensorflow.prefixes import state_of_directory, state_text
from keras_ckpt_tools.formats.tensorflow.recorded import (
    DATA,
    INDEX,
    RECORD,
    SUFFIXES,
    is_prefix,
    record_of,
)
from keras_ckpt_tools.runs.retention import Saved
from keras_ckpt_tools.storage.commit import remove_files, staged
from keras_ckpt_tools.storage.commit_set import remove_abandoned, remove_set

_FILE = re.compile(r"(ckpt-(\d{8,}))(\.index|\.data-\d+-of-\d+|\.record)")


def prefix_path(directory: str | os.PathLike[str], number: int) -> str:
    """Return the prefix of the n-th checkpoint of a run.

    >>> prefix_path("runs/digits", 12)
    'runs/digits/ckpt-00000012'
    """
    return os.path.join(directory, f"ckpt-{number:08d}")


def size_of_run(prefix: str) -> int:
    """Return the bytes of the files of such a checkpoint.

    Raises:
        OSError: one of them is not there.
    """
    return sum(os.path.getsize(f"{prefix}{suffix}") for suffix in SUFFIXES)


def list_prefixes(directory: str | os.PathLike[str]) -> tuple[list[Saved], list[str]]:
    """Return the checkpoints of a directory, and those that are damaged, as prefixes."""
    saved, damaged = [], []
    for name in sorted(os.listdir(directory)):
        match = _FILE.fullmatch(name)
        if not match or match[3] != RECORD:
            continue
        prefix = os.path.join(directory, match[1])
        if not is_prefix(prefix):
            continue  # Somebody else's, of that name.
        try:
            if any(os.path.islink(f"{prefix}{ending}") for ending in (RECORD, INDEX, DATA)):
                damaged.append(prefix)
                continue
            record, _ = record_of(prefix)
            whole = os.path.getsize(f"{prefix}{DATA}") == record.size
            whole = whole and os.path.isfile(f"{prefix}{INDEX}")
        except (CkptError, OSError):
            whole = False
        if not whole:
            damaged.append(prefix)
            continue
        holds = frozenset(record.tracked.keys() - record.objects_tracked.keys())
        finite = not record.not_finite
        saved.append(
            Saved(prefix, int(match[2]), record.progress, holds, finite, phase=record.phase)
        )
    return saved, damaged


def numbers_in(names: list[str]) -> list[int]:
    """Return the numbers that are in use among file names, whoever uses them."""
    return [int(found[2]) for name in names if (found := _FILE.fullmatch(name))]


def prefix_of_record(name: str) -> str | None:
    """Return the name of a checkpoint by that of its record, or `None`.

    >>> prefix_of_record("ckpt-00000001.record"), prefix_of_record("ckpt-00000001.index")
    ('ckpt-00000001', None)
    """
    found = _FILE.fullmatch(name)
    return found[1] if found and found[3] == RECORD else None


def records_in(directory: str | os.PathLike[str]) -> list[str]:
    """Return the names of the checkpoints of ours in a directory, in the order of their numbers."""
    found = [m for name in os.listdir(directory) if (m := _FILE.fullmatch(name)) and m[3] == RECORD]
    ours = {m[1]: int(m[2]) for m in found if is_prefix(os.path.join(directory, m[1]))}
    return sorted(ours, key=ours.__getitem__)


_NAME = re.compile(r"ckpt-\d{8,}")


def delete_prefixes(prefixes: list[str]) -> None:
    """Delete checkpoints that we wrote; others, and those that are gone already, are left alone.

    Raises:
        CommitError: the operating system refused.
    """
    for prefix in prefixes:
        if is_prefix(prefix):
            remove_set(prefix, SUFFIXES)
    for directory in {os.path.dirname(prefix) for prefix in prefixes}:
        write_state(directory)


def clear_prefixes(directory: str | os.PathLike[str]) -> None:
    """Remove what killed runs left of writing or deleting checkpoints."""
    remove_abandoned(directory, _NAME.fullmatch, SUFFIXES)


def write_state(directory: str) -> None:
    """Let the file `checkpoint` name the checkpoints that are there, the newest as such.

    What others have written in the same directory stays named.

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
