"""A process of its own whose standard error stream is a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

OnTerminal = Callable[[str], tuple[str, str]]


@pytest.fixture
def on_terminal() -> OnTerminal:
    """A function that runs code and returns what it printed, and what the terminal got."""

    def run(code: str) -> tuple[str, str]:
        master, slave = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, text=True
        ) as process:
            os.close(slave)
            drawn = b""
            while piece := _read(master):
                drawn += piece
            assert process.stdout is not None
            printed = process.stdout.read()
        os.close(master)
        assert process.returncode == 0, drawn.decode()
        return printed, drawn.decode()

    return run


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # So Linux says that nobody has the other end any more.
        return b""
