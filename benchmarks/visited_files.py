"""Count the files of the package in which a function runs: during a save, and during a load.

Run `python benchmarks/visited_files.py`; `--list` names the files. What is counted is one save of
`ModelCheckpoint` and `BackupAndRestore` at the end of the last epoch of a `fit()` with validation,
and one `safe_load_model` of the `.keras` that it wrote, both after one that was not counted.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_ckpt_tools as kct

PACKAGE = str(Path(kct.__file__).parent) + "/"


class Visited:
    """Notes the files of the package in which a function runs between `begin` and `end`."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def begin(self) -> None:
        """Begin to note, and forget what was noted before."""
        self.files = set()
        sys.setprofile(self._note)

    def end(self) -> None:
        """Note no more."""
        sys.setprofile(None)

    def _note(self, frame: Any, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(PACKAGE):
            self.files.add(name.removeprefix(PACKAGE))


def main() -> None:
    """Print both counts."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        x, y = np.zeros((16, 4), "float32"), np.zeros((16, 1), "float32")
        save, load = Visited(), Visited()
        # Callbacks are called in their order: what is between these two is what is counted.
        begin = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: save.begin())
        end = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: save.end())
        ours = [kct.ModelCheckpoint(path), kct.BackupAndRestore(f"{folder}/backup")]
        model.fit(x, y, epochs=4, validation_data=(x, y), verbose=0, callbacks=[begin, *ours, end])
        kct.safe_load_model(path)
        load.begin()
        kct.safe_load_model(path)
        load.end()
    found = {"save": save.files, "load": load.files}
    for name, files in found.items():
        print(f"{name}: {len(files)} files")
        if "--list" in sys.argv:
            print(*(f"    {file}" for file in sorted(files)), sep="\n")


if __name__ == "__main__":
    main()
