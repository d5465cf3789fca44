"""Start one of the training programs, follow what it tells, and kill it where that is asked for.

Nothing here knows Keras: a killed process cannot be asked anything, so what is known of it is what
it said before, and what is on disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
QUIET = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
PATIENCE_S = 300

Event = dict[str, Any]


class ChildFailed(Exception):
    """A program ended otherwise than it should."""


@dataclass
class Start:
    """One start of a program, from its first word to its end.

    Attributes:
        status: Exit status; negative for the signal that ended it.
        events: What it told, in order, but for single batches.
        last_batch: `(epoch, batch)` that it told last, or `None`.
    """

    status: int = 0
    events: list[Event] = field(default_factory=list)
    last_batch: tuple[int, int] | None = None

    def first(self, event: str) -> Event:
        """Return the first event of a name.

        Raises:
            ChildFailed: there was none.
        """
        for found in self.events:
            if found["event"] == event:
                return found
        raise ChildFailed(f"the program never told {event!r}")

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL


def run(
    program: str,
    arguments: list[str],
    log: Path,
    *,
    kill_at: tuple[int, int] | None = None,
    seen: Callable[[Event], None] = lambda event: None,
) -> Start:
    """Run a program to its end, or kill it by SIGKILL.

    Args:
        program: Name of a file beside this one.
        arguments: What it is given.
        log: Where its error output goes.
        kill_at: `(epoch, batch)` after which it is killed, both zero-based, or `None`.
        seen: Called with each event.

    Raises:
        ChildFailed: it ended with another status than it should; the message ends in its output.
    """
    start = Start()
    command = [sys.executable, str(HERE / program), *arguments]
    with (
        open(log, "a", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            env={**os.environ, **QUIET},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        try:
            _follow(process, start, kill_at, seen)
        finally:
            watchdog.cancel()
            process.kill()  # Does nothing to a program that has ended.
            start.status = process.wait()
    if start.status != (-signal.SIGKILL if kill_at else 0):
        tail = log.read_text(encoding="utf-8").splitlines()[-20:]
        raise ChildFailed(f"{program} ended with status {start.status}:\n  " + "\n  ".join(tail))
    return start


def _follow(
    process: subprocess.Popen[str],
    start: Start,
    kill_at: tuple[int, int] | None,
    seen: Callable[[Event], None],
) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        with contextlib.suppress(ValueError):  # The kill may have cut the last line.
            event = json.loads(line)
            if event["event"] == "batch":
                start.last_batch = (event["epoch"], event["batch"])
                if start.last_batch == kill_at:
                    # At once: each millisecond here is a batch there.
                    os.kill(process.pid, signal.SIGKILL)
            else:
                start.events.append(event)
            seen(event)
    process.wait()
