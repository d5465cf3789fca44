"""Draw a progress bar on a terminal for operations that take long.

Most operations are too short for a bar, so it appears only after a while. The thread that does the
work draws it, whenever it reports progress, so nothing moves the cursor while the caller prints. It
is drawn on standard error and removed when the work is done.

There is no bar in a pipe or a notebook, after `keras.config.disable_interactive_logging()`, or
outside the main thread.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from keras_ckpt_tools.showing.byte_counts import is_listening, listening
from keras_ckpt_tools.showing.tables import printable

PATIENCE_S = 1.5
_EVERY_S = 0.1


@contextlib.contextmanager
def bar(title: str, total: int | None = None) -> Iterator[None]:
    """Show how many bytes this thread has read or written in the block, if that takes long.

    Inside another bar it shows none: the outer one goes on.

    Args:
        title: What is done.
        total: How many bytes it will be; `None` where that is not known.
    """
    if not _is_wanted():
        yield
        return
    drawn = _Drawn(title, total)
    try:
        with listening(drawn.advance):
            yield
    finally:
        drawn.close()


def bar_for_file(title: str, path: object) -> AbstractContextManager[None]:
    """Show a bar while an artefact is read; its size is the total. See `bar`."""
    if not isinstance(path, (str, os.PathLike)) or not _is_wanted():
        return contextlib.nullcontext()  # Who reads it will say what is wrong with the path.
    name = os.path.basename(os.path.abspath(os.fspath(path)))
    # The bytes of sharded weights are not in their index.
    return bar(f"{title} {name}", None if name.endswith(".json") else _size_at(path))


class _Drawn:
    """A bar that is drawn once it is worth it."""

    def __init__(self, title: str, total: int | None):
        self._title = title
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._next = self._began + PATIENCE_S
        self._draw: Callable[[int], None] | None = None
        self._stack = contextlib.ExitStack()

    def advance(self, nbytes: int) -> None:
        self._done += nbytes
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        if self._draw is None:
            self._draw = self._begin()
        self._draw(self._done)

    def _begin(self) -> Callable[[int], None]:
        from rich import progress
        from rich.console import Console

        shown = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            # rich would take over `sys.stdout`, and with it what the caller prints.
            redirect_stdout=False,
            redirect_stderr=False,
            get_time=time.monotonic,
        )
        self._stack.enter_context(shown)
        task = shown.add_task(printable(self._title), total=self._total)
        # Work may turn out to be more than was announced: a file is read once more, for example.
        return lambda done: shown.update(
            task, completed=done, total=_at_least(self._total, done), refresh=True
        )

    def close(self) -> None:
        self._stack.close()


def _at_least(total: int | None, done: int) -> int | None:
    return None if total is None else max(total, done)


def _is_wanted() -> bool:
    if is_listening() or threading.current_thread() is not threading.main_thread():
        return False
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    # Asking must not import Keras; where it is just being imported, it has no answer yet.
    config = getattr(sys.modules.get("keras"), "config", None)
    return bool(getattr(config, "is_interactive_logging_enabled", lambda: True)())


def _size_at(path: str | os.PathLike[str]) -> int | None:
    """Return the bytes of a file, or of all files in a directory; `None` where it is neither."""
    try:
        if not os.path.isdir(path):
            return os.path.getsize(path)
        with os.scandir(path) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
    except OSError:
        return None
