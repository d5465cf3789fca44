"""Find the TensorFlow checkpoint that a path means.

A checkpoint consists of several files with the same prefix, which is its name. In a directory, the
file `checkpoint` names the newest one. Directories are moved and files are deleted, so this may be
out of date; then a warning says so.
"""

from __future__ import annotations

import difflib
import functools
import os
import re

from keras_ckpt_tools.errors import ArtefactNotFoundError
from keras_ckpt_tools.errors import damaged as _damaged
from keras_ckpt_tools.formats.common.path_hints import not_found
from keras_ckpt_tools.showing.messages import warn

_STATE = "checkpoint"
_MOST_BYTES = 1 << 24
_LISTED = 8
_PATH = re.compile(
    rb'^\s*(model_checkpoint_path|all_model_checkpoint_paths):\s*"((?:[^"\\]|\\.)*)"'
)

damaged = functools.partial(
    _damaged, remedy="Restore its files from a copy.", thing="TensorFlow checkpoint"
)
"""Returns the error for a damaged checkpoint, by its prefix and what is wrong."""


def prefix_of(path: str) -> str:
    """Return the prefix of the checkpoint that a path is meant to be.

    Args:
        path: A prefix, one of the files of a checkpoint, or a directory.

    Raises:
        ArtefactNotFoundError: there is none.

    >>> prefix_of("run/cp.ckpt.index")
    'run/cp.ckpt'
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    if not os.path.isdir(path) and os.path.basename(path) != _STATE:
        return re.sub(r"\.(index|data-\d+-of-\d+)$", "", path)
    prefix = prefix_in(folder)
    if prefix is None:
        raise ArtefactNotFoundError(
            "There is no TensorFlow checkpoint in the directory.",
            received=f"path={path!r}",
            remedy="Pass the prefix of one: `cp.ckpt` of `cp.ckpt.index`.",
            path=path,
            nearby=tuple(sorted(os.listdir(folder))),
        )
    return prefix


def prefix_in(directory: str) -> str | None:
    """Return the prefix of the newest checkpoint in a directory, or `None`.

    That is the one that the file `checkpoint` names. Where that one is elsewhere, it is the one of
    the same name here (the directory was moved); where it is gone, the one with the highest number
    that is there. In both cases there is a warning.

    Raises:
        ArtefactNotFoundError: the file `checkpoint` names one that is not to be had.
    """
    named = state_of_directory(directory)[:1]
    if not named:
        return _numbered(directory)
    prefix = os.path.join(directory, named[0])
    outside = os.path.dirname(os.path.abspath(prefix)) != os.path.abspath(directory)
    if not outside and os.path.isfile(f"{prefix}.index"):
        return prefix
    here = os.path.join(directory, os.path.basename(prefix))
    if outside and os.path.isfile(f"{here}.index"):
        _warn(directory, named[0], "elsewhere", here)
        return here
    if outside:
        there = "it exists" if os.path.isfile(f"{prefix}.index") else "it does not exist there"
        raise _gone(
            directory,
            f"The file `checkpoint` of these TensorFlow checkpoints names {named[0]!r}, which is "
            f"outside this directory ({there}); this directory has no checkpoint of that name.",
            f"To load that one, pass its prefix: {prefix!r}.",
        )
    found = _numbered(directory)
    if found is None:
        raise _gone(
            directory,
            f"The file `checkpoint` names a checkpoint that does not exist: {named[0]!r}.",
            "Restore its `.index` and `.data-...` files.",
        )
    _warn(directory, named[0], "missing", found)
    return found


def _warn(directory: str, named: str, how: str, taken: str) -> None:
    warn(
        f"The file `checkpoint` in {directory!r} names {named!r}, which is {how}; {taken!r} is "
        "used instead.",
        UserWarning,
        stacklevel=3,
    )


def _gone(directory: str, what: str, remedy: str) -> ArtefactNotFoundError:
    names = tuple(sorted(os.listdir(directory)))
    there = ", ".join(map(repr, names[:_LISTED]))
    return ArtefactNotFoundError(
        what,
        received=f"path={directory!r}",
        remedy=f"{remedy} The directory contains: {there}.",
        path=directory,
        nearby=names,
    )


def _numbered(directory: str) -> str | None:
    names = os.listdir(directory) if os.path.isdir(directory) else []
    numbered = {
        int(found[2]): found[1]
        for name in names
        if (found := re.fullmatch(r"((?:.*-)?(\d{1,18}))\.index", name))
    }
    return os.path.join(directory, numbered[max(numbered)]) if numbered else None


def prefixes_in(directory: str) -> list[str]:
    """Return the prefixes of all checkpoints in a directory, by name."""
    return [
        os.path.join(directory, name.removesuffix(".index"))
        for name in sorted(os.listdir(directory))
        if name.endswith(".index") and not name.startswith(".")
    ]


def files_of(path: str) -> list[str]:
    """Return the names of the files of the checkpoint that a path is a prefix or a file of.

    There are none where the path is neither.
    """
    folder, base = os.path.split(re.sub(r"\.(index|record|data-\d+-of-\d+)$", "", path))
    ends = re.compile(re.escape(base) + r"\.(index|record|data-\d+-of-\d+)")
    try:
        found = [name for name in os.listdir(folder or ".") if ends.fullmatch(name)]
    except OSError:
        return []
    return sorted(found) if any(name.endswith((".index", ".record")) for name in found) else []


def has_prefixes(directory: str) -> bool:
    """Return whether there is a checkpoint in a directory."""
    try:
        return bool(prefixes_in(directory or "."))
    except OSError:
        return False


def state_of_directory(directory: str) -> list[str]:
    """Return what the file `checkpoint` names: the newest one, then all, or nothing without it."""
    path = os.path.join(directory, _STATE)
    if not os.path.isfile(path):
        return []
    with open(path, "rb") as file:
        lines = file.read(_MOST_BYTES).splitlines()
    found = [(m[1], _unescaped(m[2])) for line in lines if (m := _PATH.match(line))]
    newest = [path for which, path in found if which.startswith(b"model")]
    return newest[:1] + [path for which, path in found if which.startswith(b"all")]


def state_text(newest: str, everything: list[str]) -> bytes:
    """Return the text of a file `checkpoint`, by names in its directory."""
    lines = [f'model_checkpoint_path: "{_escaped(newest)}"']
    lines += [f'all_model_checkpoint_paths: "{_escaped(name)}"' for name in everything]
    return ("\n".join(lines) + "\n").encode()


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


def _unescaped(text: bytes) -> str:
    def plain(found: re.Match[bytes]) -> bytes:
        what = found[1]
        return bytes([int(what, 8) & 0xFF]) if what[:1] in b"01234567" else _ESCAPES.get(what, what)

    return os.fsdecode(re.sub(rb"\\([0-7]{1,3}|.)", plain, text))


def missing(prefix: str) -> ArtefactNotFoundError:
    """Return the error for a prefix of which there is no index."""
    folder, name = os.path.split(os.path.abspath(prefix))
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    if not names:
        return not_found(prefix)
    prefixes = [found.removesuffix(".index") for found in names if found.endswith(".index")]
    nearest = difflib.get_close_matches(name, prefixes, n=1, cutoff=0) or prefixes[:1]
    instead = f"; the nearest prefix is {os.path.join(folder, nearest[0])!r}" if nearest else ""
    return ArtefactNotFoundError(
        f"There is no TensorFlow checkpoint with this prefix: {folder!r} has no "
        f"{name + '.index'!r}.",
        received=f"path={prefix!r}",
        remedy=f"Check the path; in the directory there is: {listed(prefix)}{instead}.",
        path=prefix,
        nearby=tuple(nearest or names),
    )


def listed(prefix: str) -> str:
    """Return what is in the directory of a prefix, for messages."""
    names = sorted(os.listdir(os.path.dirname(os.path.abspath(prefix))))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more
