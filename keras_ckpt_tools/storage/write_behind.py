"""Write to disk while the next bytes are being prepared: snapshot -> *write* -> commit.

A zip wants the checksum of what goes through it, and computing that takes about half as long as
writing. Done in turn, the disk waits for the checksum and the checksum for the disk; here the disk
has a thread of its own, and each waits only for the slower of the two. Buffers are handed over by
reference and never copied, so whoever writes must leave them alone until the file is closed.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

# Pieces of this size keep both sides busy; a few of them may be on their way.
_PIECE = 8 << 20
_ON_THEIR_WAY = 4


def in_pieces(write: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a `write` that hands large buffers on in pieces, so that two threads can share them.

    >>> in_pieces(lambda piece: print(len(piece)))(b"abc")
    3
    """

    def write_pieces(data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            write(view[start : start + _PIECE])

    return write_pieces


class WriteBehind(io.RawIOBase):
    """A binary file, open for writing and reading, whose writes happen in a thread.

    Args:
        file: The file; its position and size are this one's while it is in use.

    `flush`, `seek`, `tell`, `read` and `close` wait for what was written before. An error of a
    write is raised at the next call, and at every one after it: the file has a hole.
    """

    def __init__(self, file: Any):
        self._file = file
        self._pieces: queue.Queue[memoryview | None] = queue.Queue(_ON_THEIR_WAY)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="kct-disk", daemon=True)
        # Python 3.12 starts no threads any more while it exits, where the last saves are finished.
        with contextlib.suppress(RuntimeError):
            self._thread.start()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            self._raise_error()
            piece = view[start : start + _PIECE]
            if self._thread.is_alive():
                self._pieces.put(piece)
            else:
                self._write(piece)
        return len(view)

    def flush(self) -> None:
        if not self.closed:
            self._pieces.join()
            self._raise_error()
            self._file.flush()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.flush()
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        self.flush()
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        self.flush()
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def fileno(self) -> int:
        return int(self._file.fileno())

    def close(self) -> None:
        if not self.closed:
            if self._thread.is_alive():
                self._pieces.join()
                self._pieces.put(None)
                self._thread.join()
                self._pieces.task_done()
            super().close()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._write(piece)
            self._pieces.task_done()

    def _write(self, piece: memoryview) -> None:
        try:
            if self._error is None:
                self._file.write(piece)
        except BaseException as error:  # noqa: BLE001 (it is raised in the writer's thread)
            self._error = error
