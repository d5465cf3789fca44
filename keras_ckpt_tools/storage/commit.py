"""Make a file visible, whole, by one rename: write -> *commit* -> keep.

A save never writes onto its target. It stages a file beside it, syncs the file, renames it over
the target and syncs the directory; until the rename the old file is as it was, byte for byte, and
after it the new one is whole. Keras and most of its peers write in place, which is why their
users find half a file after a kill.

A staged file carries a lock for as long as its writer lives (the kernel drops it at any death).
That is how a leftover of a killed run is told from the work of a neighbour, across processes, and
why nothing but leftovers of ours is ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from keras_ckpt_tools.errors import CommitError

STAGED_SUFFIX = ".kct-staged"


@contextlib.contextmanager
def staged(target: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Stage a file beside `target`, and commit it at the end of the block.

    A target that is a symlink stays one: the file that it points to is replaced. Directories that
    are missing are made. The new file's permissions follow the umask.

    Args:
        target: Path of the file to write.

    Yields:
        A binary file, open for writing and reading. It is visible under `target` after the block.

    Raises:
        CommitError: the operating system refused (no space, no permission, ...). The target is as
            it was before, and nothing is left beside it.

    Example:

    >>> import os, pathlib, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "a.bin")
    >>> with staged(path) as file:
    ...     _ = file.write(b"whole")
    ...     print(os.path.exists(path))
    False
    >>> pathlib.Path(path).read_bytes()
    b'whole'
    """
    final = Path(os.path.realpath(target))
    committed = False
    temporary: Path | None = None
    try:
        make_directory(final.parent)
        remove_leftovers(final)
        temporary, descriptor = _stage(final)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, final)
            committed = True
        sync_directory(final.parent)
    except BaseException as error:
        if temporary is not None and not committed:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, CommitError):
            raise _refused(final, error, committed) from error
        raise


def _stage(final: Path) -> tuple[Path, int]:
    while True:
        temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}{STAGED_SUFFIX}")
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A neighbour may have taken it for a leftover before it was locked.
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)


def remove_leftovers(target: Path) -> tuple[Path, ...]:
    """Remove what killed runs left of staging `target`; return what was removed.

    Only files with our staging name for this very target are looked at, and of those only the
    ones whose writer is dead.
    """
    prefix = f".{target.name}."
    with os.scandir(target.parent) as entries:
        names = [entry.name for entry in entries]
    return tuple(
        target.with_name(name)
        for name in names
        if name.startswith(prefix)
        and name.endswith(STAGED_SUFFIX)
        and _remove_if_abandoned(target.with_name(name))
    )


def _remove_if_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make a directory, and those above it that are missing, durably.

    A file is as lost as the directory that it is in, and syncing that says nothing about its name
    in the one above.
    """
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and removals in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a directory and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


_REMEDIES = {
    errno.ENOSPC: "Free space on that disk, or keep fewer checkpoints (`max_to_keep=`).",
    errno.EDQUOT: "Free some of your quota, or keep fewer checkpoints (`max_to_keep=`).",
    errno.EFBIG: "Raise the limit on file sizes (`ulimit -f`), or save weights only.",
    errno.EACCES: "Choose a directory that you may write to.",
    errno.EPERM: "Choose a directory that you may write to.",
    errno.EROFS: "Choose a directory on a file system that is not read-only.",
    errno.EISDIR: "Choose the path of a file; a directory is there.",
    errno.ENOTDIR: "Choose another directory; a part of that path is a file.",
    errno.EEXIST: "Choose another directory; a part of that path is a file.",
}


def _refused(target: Path, error: OSError, committed: bool) -> CommitError:
    reason = error.strerror or str(error)
    state = (
        "The new file is in place, but may not survive a power cut."
        if committed
        else "What was at the path before is unchanged."
    )
    return CommitError(
        f"The save failed: {reason}. {state}",
        received=f"path={str(target)!r}",
        remedy=_REMEDIES.get(error.errno or 0, "Mend that, and save again."),
        path=str(target),
        errno=error.errno,
    )
