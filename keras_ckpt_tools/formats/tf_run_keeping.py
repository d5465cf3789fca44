"""Keep the TensorFlow checkpoints of a run in order: commit -> *keep*.

Apart from `tf_run`, because whoever only looks at files needs none of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from keras_ckpt_tools.formats.tf_names import state_of_directory, state_text
from keras_ckpt_tools.formats.tf_run import SUFFIXES, is_prefix, records_in
from keras_ckpt_tools.storage.commit import remove_files, staged
from keras_ckpt_tools.storage.commit_set import remove_abandoned, remove_set

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
