"""What it costs a run to be resumable: the time of a step of `fit()` with a backup and without."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_ckpt_tools as kct
from benchmarks.cases import Case
from benchmarks.timing import Contender, Timings, interleaved

NO_BACKUP = "floor: no backup"
_EPOCHS = 2
_STEPS = 20
_OFTEN = {"every step": 1, "every 10 steps": 10, "every epoch": "epoch"}
Make = Callable[..., keras.callbacks.Callback]


def name_of(backup: str, often: str) -> str:
    """Return what a contender is called."""
    return f"{backup}, {often}"


OURS_IN_BACKGROUND = "**ours** `BackupAndRestore` (in the background)"
_BACKUPS: dict[str, Make] = {
    "**ours** `BackupAndRestore`": kct.BackupAndRestore,
    OURS_IN_BACKGROUND: lambda *args, **kwargs: kct.BackupAndRestore(
        *args, background=True, **kwargs
    ),
    "Keras `BackupAndRestore`": keras.callbacks.BackupAndRestore,
}


def measure_resume(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure the mean time of a step, with all that a `fit()` does in its epochs.

    A run begins without a backup and leaves one behind. What is saved in the background is on disk
    when the run is over.
    """
    model = case.build()
    x, y = (np.tile(each, (_STEPS, 1)) for each in case.batch())

    def step_time(*callbacks: keras.callbacks.Callback) -> float:
        start = time.perf_counter()
        model.fit(x, y, batch_size=16, epochs=_EPOCHS, callbacks=list(callbacks), verbose=0)
        return (time.perf_counter() - start) / (_EPOCHS * _STEPS)

    def contender(backup: str, often: str) -> Contender:
        place = folder / "backup"

        def measure() -> float:
            made = _BACKUPS[backup](place, _OFTEN[often], delete_checkpoint=False)
            return step_time(made)

        def clean(*_: Any) -> None:
            shutil.rmtree(place, ignore_errors=True)

        return Contender(name_of(backup, often), lambda: None, clean, clean, measure)

    return interleaved(
        [
            Contender(NO_BACKUP, lambda: None, measure=step_time),
            *(contender(backup, often) for backup in _BACKUPS for often in _OFTEN),
        ],
        rounds,
    )
