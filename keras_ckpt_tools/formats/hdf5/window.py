"""A part of a file as a file object: for libhdf5, the weights member of a `.keras`.

So a model need not be unpacked before its tensors can be read.
"""

from __future__ import annotations

import errno
import io
import os
from typing import Any

# What file systems that cannot read into given memory answer; 524 is Linux' own ENOTSUPP.
_NO_SUCH_CALL = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, 524)


class Window(io.RawIOBase):
    """A part of a file, read through its descriptor, as a file of its own."""

    def __init__(self, descriptor: int, start: int, end: int):
        self._descriptor, self._start, self._end = descriptor, start, end
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = origin.get(whence, self.length) + offset
        return self._position

    @property
    def length(self) -> int:
        """Bytes in it."""
        return self._end - self._start

    def readinto(self, buffer: Any) -> int:
        data = memoryview(buffer)[: max(self.length - self._position, 0)]
        read = pread_into(self._descriptor, data, self._start + self._position) if data else 0
        self._position += read
        return read

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes from an offset on, as many as there are of so many."""
        length = min(length, self.length - offset)
        return os.pread(self._descriptor, length, self._start + offset) if length > 0 else b""


def pread_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read into memory from an offset on; return how many bytes were read.

    Raises:
        OSError: they could not be read.
    """
    try:
        return os.preadv(descriptor, [buffer], offset)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    except AttributeError:  # Some systems have no such call at all.
        pass
    data = os.pread(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)
