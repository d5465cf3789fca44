"""Lock a directory of checkpoints, so that only one process saves into it.

Two processes that save into one directory would use the same numbers and delete each other's
checkpoints. So the first one locks the directory, and the second gets an error. The directory
itself is locked: no file is left over, and the kernel releases the lock when the process dies.

Within a process the lock is shared, because a notebook cell that runs again creates a second
manager while the first still exists. The directory is identified by its inode: after a rename it is
still locked, and a new directory at the old path is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path

from keras_ckpt_tools.errors import PathInUseError
from keras_ckpt_tools.storage.commit import make_directory, refused
from keras_ckpt_tools.storage.file_systems import lock

_Inode = tuple[int, int]
_NONE = -1
_PAUSES_S = (0.01, 0.05)


class Occupancy:
    """Holds a directory from `take` until it is released or forgotten.

    Args:
        directory: The directory; made if it is missing.
    """

    # Re-entrant: a forgotten holder may be collected while another is being taken.
    _guard = threading.RLock()
    _shared: dict[_Inode, tuple[int, int]] = {}  # noqa: RUF012 (one table for the whole process)

    def __init__(self, directory: str | os.PathLike[str]):
        self._directory = directory
        self._taken: _Inode | None = None

    def take(self) -> None:
        """Occupy the directory, if that was not done yet.

        Raises:
            PathInUseError: another process has it.
            CommitError: it cannot be made.
        """
        real = os.path.realpath(self._directory)
        try:
            make_directory(Path(real))
            inode = _inode_of(real)
        except OSError as error:
            raise refused(Path(real), error) from error
        if self._taken == inode:
            return
        self.release()  # What it held was moved away, and another directory is there now.
        with self._guard:
            if inode in self._shared:
                descriptor, holders = self._shared[inode]
            else:
                descriptor, holders = _lock(real), 0
            self._shared[inode] = (descriptor, holders + 1)
        self._taken = inode

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_taken": None}  # A copy holds nothing.

    def release(self) -> None:
        """Give the directory back."""
        if self._taken is None:
            return
        with self._guard:
            descriptor, holders = self._shared.get(self._taken, (-1, 0))
            if not holders:
                pass  # Forgotten, in a child of the process that took it.
            elif holders > 1:
                self._shared[self._taken] = (descriptor, holders - 1)
            else:
                del self._shared[self._taken]
                _close(descriptor)
        self._taken = None

    def __del__(self) -> None:
        try:  # noqa: SIM105 (when Python exits, `contextlib` may be gone)
            self.release()
        except Exception:  # noqa: BLE001
            pass


def is_occupied(directory: str | os.PathLike[str]) -> bool:
    """Return whether a process saves into a directory, this one included.

    Nothing is taken, but for the moment of asking; one that begins just then asks again.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, directory)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _inode_of(directory: str) -> _Inode:
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def _close(descriptor: int) -> None:
    if descriptor != _NONE:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _forget_in_child() -> None:
    # A child of this process does not save here, and must not hold the directory after its death.
    for descriptor, _ in Occupancy._shared.values():
        _close(descriptor)
    Occupancy._shared.clear()
    Occupancy._guard = threading.RLock()


os.register_at_fork(after_in_child=_forget_in_child)


def _lock_soon(descriptor: int, directory: str) -> None:
    for pause in _PAUSES_S:
        try:
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, directory)
        except BlockingIOError:
            time.sleep(pause)  # Somebody may only be asking; see `is_occupied`.
        else:
            return
    lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, directory)


def _lock(directory: str) -> int:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return _NONE  # It may be written to and not be opened itself; then there is no lock.
    try:
        _lock_soon(descriptor, directory)
    except BlockingIOError as error:
        os.close(descriptor)
        raise PathInUseError(
            "Another process saves checkpoints to this directory. Two processes would overwrite "
            "and delete each other's.",
            received=f"directory={directory!r}",
            remedy="Stop the other process, or use another directory for this one.",
            path=directory,
        ) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
