"""The bar for what takes long: seen on a real terminal, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "files" / "0.1.0"
FILE = next(iter(sorted(DATA.glob("*.keras"))))

BEGIN = f"""
import threading, time
import keras_ckpt_tools as kct
from keras_ckpt_tools.showing import bars
from keras_ckpt_tools.showing.byte_counts import advance
path = {str(FILE)!r}
"""
AT_ONCE = BEGIN + "bars.PATIENCE_S = 0.0\n"


@pytest.mark.parametrize(
    ("work", "title"),
    [
        ("print(bool(kct.verify(path)))", f"Verifying {FILE.name}"),
        (
            "with bars.bar('Work on [b]', 1000):\n"
            "    advance(400); time.sleep(0.11); advance(600); print(True)",
            "Work on [b]",
        ),
    ],
)
def test_long_work_shows_a_bar_on_a_terminal(work, title, on_terminal):
    """On the error stream, with what is done; what the program prints stays as it is."""
    printed, drawn = on_terminal(AT_ONCE + work)
    assert printed == "True\n"
    assert title in drawn
    assert "bytes" in drawn or "kB" in drawn
    assert drawn.endswith("\x1b[2K")  # The line is cleared when the work is done.


@pytest.mark.parametrize(
    "code",
    [
        BEGIN + "kct.verify(path)",
        AT_ONCE + "t = threading.Thread(target=kct.verify, args=(path,)); t.start(); t.join()",
        AT_ONCE + "import sys, types; quiet = types.ModuleType('keras')\n"
        "quiet.config = types.SimpleNamespace(is_interactive_logging_enabled=lambda: False)\n"
        "sys.modules['keras'] = quiet; kct.verify(path)",
    ],
    ids=["short work", "another thread", "interactive logging is off"],
)
def test_there_is_no_bar(code, on_terminal):
    """Where it would be over before it is read, come from a thread, or is not wanted."""
    assert on_terminal(code + "\nimport sys; assert 'rich' not in sys.modules") == ("", "")


def test_there_is_no_bar_without_a_terminal():
    """A log or a pipe gets nothing, and rich is not even imported."""
    code = AT_ONCE + "kct.verify(path); import sys; assert 'rich' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_bar_inside_a_bar_is_the_outer_one(on_terminal):
    """Two of them would fight for one line."""
    _, drawn = on_terminal(AT_ONCE + "with bars.bar('Outer', 10**9): kct.verify(path)")
    assert "Outer" in drawn
    assert "Verifying" not in drawn


def test_bytes_are_counted_where_somebody_listens():
    """All that a verification reads is told, and a write that nobody listens to is left alone."""
    import keras_ckpt_tools as kct
    from keras_ckpt_tools.showing.byte_counts import counted, listening

    told: list[int] = []
    with listening(told.append):
        assert kct.verify(FILE)
        write = counted(len)
        assert write(b"abc") == 3
    assert told.pop() == 3
    held = sum(tensor.nbytes for tensor in kct.inspect(FILE).tensors)
    assert held <= sum(told) <= FILE.stat().st_size
    assert counted(time.sleep) is time.sleep
