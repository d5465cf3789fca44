"""Open regular files and directories only.

A pipe would block, opening a device can have effects, and a link inside a directory leads out of
it. So files are opened without blocking and checked through the descriptor before they are read.
Members of a directory are opened through its descriptor, so a directory that is replaced in the
meantime is not mixed in. A path that the caller passes may be a link, because model caches use
them. Files inside a directory may not be links, neither in a model nor in the directory of a run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from keras_ckpt_tools.errors import UnsafeArtefactError
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.storage.file_systems import NOT_SUPPORTED

NOT_FOLLOWED = "a link, which is not followed"

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CHUNK = 1 << 20
_LEVELS = 32


class Identity(NamedTuple):
    """What changes when a file is replaced or written to."""

    device: int
    inode: int
    size: int
    modified: int


def identity_of(descriptor: int) -> Identity:
    """Return the identity of an open file."""
    status = os.fstat(descriptor)
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def open_regular(path: str) -> int | None:
    """Open a regular file for reading; return `None` where it is a pipe, a device or a socket.

    Raises:
        OSError: it cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        return None  # Opening some devices does something already.
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        descriptor = os.open(path, _FLAGS & ~(os.O_NONBLOCK | os.O_NOCTTY))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def is_alias(path: str) -> bool:
    """Return whether a path is a link to a regular file in the same directory."""
    try:
        target = os.readlink(path)
        beside = os.path.join(os.path.dirname(path), target)
        return "/" not in target and stat.S_ISREG(os.lstat(beside).st_mode)
    except OSError:
        return False


def refuse_link(path: str) -> None:
    """Refuse a path that was found in a directory, and not passed by the caller, if it is a link.

    Raises:
        UnsafeArtefactError: it is one.
    """
    if os.path.islink(path):
        raise UnsafeArtefactError(
            f"{os.path.basename(path)!r} is {NOT_FOLLOWED}, because what is in a directory may "
            "lead out of it.",
            received=f"path={path!r}",
            remedy="Put the file itself there, or pass the path of the link to open it alone.",
            path=path,
        )


def open_member(folder: int, name: str, path: str) -> int | None:
    """Open a regular file of an open directory; return `None` where there is none of that name.

    Raises:
        UnsafeArtefactError: it is a link, or no regular file.
    """
    try:
        descriptor = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unsafe(path, name) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _unsafe(path, name)


def read_all(descriptor: int, most: int) -> bytes:
    """Return what is in a regular file, and close it; of more than `most` bytes, one more of them.

    >>> read_all(os.open(os.devnull, os.O_RDONLY), 100)
    b''
    """
    with open(descriptor, "rb") as file:
        # A buffer is made for as many bytes as are asked for.
        return file.read(min(os.fstat(descriptor).st_size, most) + 1)


def regular_members(folder: int, path: str, level: int = 0) -> None:
    """Refuse a directory that has anything but regular files and directories in it and below."""
    for name in sorted(os.listdir(folder)):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and level < _LEVELS:
            inner = os.open(name, _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                regular_members(inner, path, level + 1)
            finally:
                os.close(inner)
        elif not stat.S_ISREG(mode):
            raise _unsafe(path, name)


def copy_tree(folder: int, name: str, target: str, path: str, limits: Limits) -> bool:
    """Copy a directory of an open directory; return whether there is one.

    Raises:
        UnsafeArtefactError: there is anything in it but regular files and directories.
        OverBudgetError: it has too many files, or is too large.
    """
    try:
        inner = os.open(name, _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unsafe(path, name) from error
    files = size = 0
    for source, relative in _files_below(inner, name, path):
        try:
            files, size = files + 1, size + os.fstat(source).st_size
            if files > limits.members:
                raise over_budget(path, "it has", "members", files, limits.members)
            if size > limits.max_bytes:
                raise over_budget(path, "its assets take", "max_bytes", size, limits.max_bytes)
            place = os.path.join(target, relative)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            _copy(source, place, os.fstat(source).st_size)
        finally:
            os.close(source)
    return True


def _files_below(folder: int, prefix: str, path: str, level: int = 0) -> Iterator[tuple[int, str]]:
    try:
        for name in sorted(os.listdir(folder)):
            place = f"{prefix}/{name}"
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and level < _LEVELS:
                flags = _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW
                inner = os.open(name, flags, dir_fd=folder)
                yield from _files_below(inner, place, path, level + 1)
            else:
                descriptor = open_member(folder, name, path)
                if descriptor is not None:
                    yield descriptor, place
    finally:
        os.close(folder)


def _copy(source: int, place: str, size: int) -> None:
    with open(place, "xb") as file:
        while size > 0 and (data := os.read(source, min(_CHUNK, size))):
            file.write(data)
            size -= len(data)


def _unsafe(path: str, name: str) -> UnsafeArtefactError:
    return UnsafeArtefactError(
        f"Refused, because {name!r} in the directory is a link, a pipe, a socket or a device, "
        "which would lead out of it.",
        received=f"path={path!r}",
        remedy="Replace it by the file that is meant, or ask for the model as one `.keras` file.",
        path=path,
    )
