"""A part of a file as a file of its own: the weights member of a `.keras`, for libhdf5.

So a model need not be unpacked, to memory or to disk, before its tensors can be read.
"""

from __future__ import annotations

import io
import os
from typing import Any


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
        self._position = origin.get(whence, self._end - self._start) + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        start = self._start + self._position
        length = min(len(buffer), max(self._end - start, 0))
        read = os.preadv(self._descriptor, [memoryview(buffer)[:length]], start) if length else 0
        self._position += read
        return read
