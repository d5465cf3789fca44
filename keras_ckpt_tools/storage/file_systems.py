"""Lock and sync files, also on file systems that do not support it.

Network file systems, FUSE and shared folders of virtual machines each lack something that a local
disk has, and report it with different error codes. If locks are missing, saves work without them.
If syncs are missing, one warning says so, and the file is saved. If data was not written (no space,
an I/O error), that is always an error.

Every system call that differs between file systems is made here, and a test returns each error code
for each call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

from keras_ckpt_tools.showing.messages import warn

# Linux' own number for "not supported", which NFS and others let through.
_ENOTSUPP = 524
NOT_SUPPORTED = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, _ENOTSUPP}
)
# A directory is synced through a descriptor that can only be read, which some take for too little.
_NO_DIRECTORY_SYNC = NOT_SUPPORTED | {
    errno.EBADF,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
}
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN})

_DAY_S = 24 * 60 * 60
_warned: set[str] = set()
_guard = threading.Lock()


def lock(descriptor: int, how: int, where: str | os.PathLike[str]) -> bool:
    """Lock an open file or directory; return `False` where the file system does not lock.

    Args:
        descriptor: What is open.
        how: As for `fcntl.flock`.
        where: Its path, for the warning.

    Raises:
        BlockingIOError: another process has the lock; with `LOCK_NB` only.
    """
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno in _HELD and how & fcntl.LOCK_NB:
            raise BlockingIOError(error.errno, error.strerror) from error
        _warn_once(
            "lock",
            f"The file system of {os.fspath(where)!r} does not lock files ({_named(error)}). Saves "
            "are complete and atomic all the same. Without locks, unfinished files of killed "
            "processes are only deleted after a day, and two processes that save to one "
            "directory are not detected.",
        )
        return False
    return True


def is_old(descriptor: int) -> bool:
    """Return whether a file was last changed so long ago that no save can still be writing it."""
    return time.time() - os.fstat(descriptor).st_mtime > _DAY_S


def sync_file(descriptor: int, where: str | os.PathLike[str]) -> None:
    """Put the bytes of a file on disk.

    Args:
        descriptor: The open file.
        where: Its path, for the warning.

    Raises:
        OSError: they could not be written.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        # Closing a descriptor sends what is still in memory to a server, and says if that fails.
        os.close(os.dup(descriptor))
        _warn_once(
            "file",
            f"The file system of {os.fspath(where)!r} cannot sync files ({_named(error)}). The "
            "file is saved, but may not survive a power failure in the next seconds.",
        )


def sync_directory(directory: Path) -> None:
    """Make renames and removals in a directory durable.

    Raises:
        OSError: that failed, where the file system can do it.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
        _warn_once(
            "directory",
            f"The file system of {str(directory)!r} cannot sync directories ({_named(error)}). "
            "Files are saved, but may not survive a power failure in the next seconds.",
        )


def forget_warnings() -> None:
    """Warn again of what was warned of before."""
    with _guard:
        _warned.clear()


def _warn_once(kind: str, message: str) -> None:
    with _guard:
        if kind in _warned:
            return
        _warned.add(kind)
    warn(message, UserWarning, stacklevel=3)


def _named(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, "ENOTSUPP" if error.errno == _ENOTSUPP else "")
    return f"errno {error.errno}{', ' if name else ''}{name}"
