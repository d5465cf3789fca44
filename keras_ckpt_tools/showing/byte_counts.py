"""Report how many bytes have been read or written.

Readers and writers are in lower layers and do not draw bars. A caller that wants to show progress
sets a listener for the time of a `with` block. It belongs to the calling thread, so background
threads neither call it nor move the cursor. Without a listener, `write` is returned unchanged, so a
save has no extra call for each piece.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

Listener = Callable[[int], Any]


class _Here(threading.local):
    listener: Listener | None = None


_here = _Here()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report every byte that this thread reads or writes in the block to a listener.

    An inner block listens instead of the outer one.

    >>> with listening(print):
    ...     advance(3)
    3
    """
    before, _here.listener = _here.listener, listener
    try:
        yield
    finally:
        _here.listener = before


def is_listening() -> bool:
    """Return whether anybody listens to this thread."""
    return _here.listener is not None


def advance(nbytes: int) -> None:
    """Tell the listener of this thread, if there is one, of further bytes."""
    if _here.listener is not None:
        _here.listener(nbytes)


def counted(write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a `write` that tells the listener; the same one where there is none.

    >>> counted(print) is print
    True
    """
    listener = _here.listener
    if listener is None:
        return write

    def write_and_tell(data: Any) -> Any:
        written = write(data)
        listener(memoryview(data).nbytes)
        return written

    return write_and_tell
