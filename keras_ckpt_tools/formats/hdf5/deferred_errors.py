"""A file for libhdf5 that reports write errors after libhdf5 has returned.

If a write fails, libhdf5 does other operations before it gives up. With a pending Python error,
these would raise misleading errors. So nothing is raised into libhdf5: the file stores the error,
and it is raised when libhdf5 has returned.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import IO, Any


class PatientFile:
    """A file that keeps the first error to itself, and from then on does nothing.

    Attributes:
        error: What the operating system said.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.error: OSError | None = None

    def _try(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self.error is None:
            try:
                return call(*arguments)
            except OSError as error:
                self.error = error
        return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> Any:
        """Move, and return where to."""
        return self._try(self._file.seek, offset, whence)

    def tell(self) -> Any:
        """Return where it is."""
        return self._try(self._file.tell)

    def read(self, size: int = -1) -> Any:
        """Return bytes from where it is."""
        return self._try(self._file.read, size) or b""

    def readinto(self, buffer: Any) -> Any:
        """Fill a buffer from where it is."""
        return self._try(self._file.readinto, buffer)  # type: ignore[attr-defined]

    def write(self, data: Any) -> Any:
        """Write where it is."""
        return self._try(self._file.write, data)

    def truncate(self, size: int) -> Any:
        """Cut it off, or make it longer."""
        return self._try(self._file.truncate, size)

    def flush(self) -> Any:
        """Hand on what is buffered."""
        return self._try(self._file.flush)


@contextlib.contextmanager
def telling(file: IO[bytes]) -> Iterator[PatientFile]:
    """Give a file for libhdf5 to write into, and raise its first error at the end.

    Raises:
        OSError: the operating system refused; what is in the file is worth nothing.

    >>> with open("/dev/full", "wb", buffering=0) as full, telling(full) as patient:
    ...     _ = patient.write(b"a"), patient.write(b"b")
    Traceback (most recent call last):
        ...
    OSError: [Errno 28] No space left on device
    """
    patient = PatientFile(file)
    try:
        yield patient
    except Exception:
        if patient.error is None:
            raise
    if patient.error is not None:
        raise patient.error
