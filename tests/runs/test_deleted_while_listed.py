"""A checkpoint may be deleted by another thread or process at the moment in which it is listed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.runs.listing import checkpoints_in, read_run


def checkpoint(folder: Path, **arguments: Any) -> Path:
    """Save one checkpoint of a small model in a directory; return its path."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    return Path(kct.CheckpointManager(folder, model=model, **arguments).save())


# Makes checkpoints out of the first one and deletes them, in the order of a run, until it is ended.
ROTATE = """
import os, sys
folder = sys.argv[1]
first = [name for name in os.listdir(folder) if name.startswith("ckpt-00000001")]
first.sort(key=lambda name: name.endswith(".record"))
number = 2
print("ready", flush=True)
while True:
    new = [name.replace("00000001", f"{number:08d}") for name in first]
    for old, name in zip(first, new):
        os.link(os.path.join(folder, old), os.path.join(folder, name))
    for name in reversed(new):
        os.unlink(os.path.join(folder, name))
    number += 1
"""


def while_rotated(made: Path, action: Callable[[], None]) -> None:
    """Do something again and again while another process makes and deletes checkpoints."""
    command = [sys.executable, "-c", ROTATE, str(made.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline()
        try:
            for _ in range(1000):
                action()
        finally:
            other.kill()


@pytest.mark.parametrize("arguments", [{}, {"format": "tf"}], ids=["HDF5", "TensorFlow"])
def test_what_disappears_while_it_is_listed_is_not_listed(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """Nor is it called damaged."""
    made = checkpoint(tmp_path / "run", **arguments)

    def look() -> None:
        saved, damaged = checkpoints_in(made.parent)
        assert not damaged
        assert str(made) in [item.path for item in saved]

    while_rotated(made, look)


def test_a_run_is_shown_while_a_training_process_deletes_in_it(tmp_path: Path) -> None:
    """`keras-ckpt ls` shows what stays, and nothing as damaged."""
    made = checkpoint(tmp_path / "run")

    def look() -> None:
        run = read_run(made.parent)
        assert str(made) in [item.path for item in run.whole]
        assert run.whole == run.checkpoints, [item.note for item in run.checkpoints]

    while_rotated(made, look)
