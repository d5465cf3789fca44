"""Suggest similar names if a path does not exist.

A missing path is usually mistyped or relative to another working directory. The names of existing
files show which.
"""

from __future__ import annotations

import difflib
import os

from keras_ckpt_tools.errors import ArtefactNotFoundError

_LISTED = 5


def not_found(path: str) -> ArtefactNotFoundError:
    """Return the error for a path at which there is nothing."""
    folder = os.path.dirname(os.path.abspath(path))
    missing = os.path.basename(os.path.abspath(path))
    while not os.path.isdir(folder):
        if os.path.exists(folder):
            return _found_file_on_the_way(path, folder)
        folder, missing = os.path.split(folder)
    nearby = _nearest(missing, _listing(folder))
    if os.path.islink(path):
        what = "The path is a link to something that is not there."
    elif folder == os.path.dirname(os.path.abspath(path)):
        what = "There is nothing at the path."
    else:
        what = f"There is nothing at the path: {folder!r} has no {missing!r}."
    there = ", ".join(repr(name) for name in nearby) if nearby else "nothing"
    return ArtefactNotFoundError(
        what,
        received=f"path={path!r}",
        remedy=f"Check the path; in {folder!r} there is: {there}.",
        path=path,
        nearby=nearby,
    )


def _found_file_on_the_way(path: str, file: str) -> ArtefactNotFoundError:
    return ArtefactNotFoundError(
        f"There is nothing at the path: {file!r} is a file, not a directory.",
        received=f"path={path!r}",
        remedy=f"Pass {file!r} itself, or the right directory.",
        path=path,
        nearby=(os.path.basename(file),),
    )


def _listing(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _nearest(name: str, names: list[str]) -> tuple[str, ...]:
    # A mistyped name is nearer than anything else; failing that, the first few names say at least
    # whether this is the right directory.
    close = difflib.get_close_matches(name, names, n=_LISTED, cutoff=0.5)
    return tuple(close or names[:_LISTED])
