"""What saves cost: the pause of the training loop, the steps beside a save, a durable save."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import floors, ours, peers
from benchmarks.cases import Case
from benchmarks.peers import Saver
from benchmarks.timing import Contender, Timings, interleaved

BY_REFERENCE = "floor: read all variables by reference"
RAW_WRITE = "floor: raw write + fsync"
MEMCPY = "floor: memcpy"
NO_SAVE = "floor: no save"
_LEAST_STEPS = 3


def measure_pause(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure how long a save holds the training loop up; it is trained between saves."""
    model = case.build()
    x, y = case.batch()
    savers = [
        ours.model_checkpoint(model, folder, background=True),
        ours.model_checkpoint(model, folder, ".weights.h5", background=True),
        ours.manager(model, folder, background=True),
        *peers.keras_savers(model, folder),
        *peers.orbax_saver(model, folder),
        peers.tensorflow_saver(model, folder, background=True),
        peers.tensorflow_saver(model, folder, background=False),
        *peers.safetensors_saver(model, folder),
    ]
    contenders = [
        Contender(BY_REFERENCE, floors.reader_of(model)),
        *(Contender(one.name, one.save, after=one.wait) for one in savers),
    ]
    return interleaved(_trained_between(contenders, lambda: model.train_on_batch(x, y)), rounds)


def _trained_between(contenders: list[Contender], step: Callable[[], object]) -> list[Contender]:
    return [Contender(one.name, one.run, step, one.after) for one in contenders]


def measure_steps(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure the time of a training step while a save is under way, its first step included."""
    model = case.build()
    x, y = case.batch()

    def step() -> None:
        model.train_on_batch(x, y)

    savers = [
        ours.model_checkpoint(model, folder, background=True),
        ours.manager(model, folder, background=True),
        peers.tensorflow_saver(model, folder, background=True),
        *peers.orbax_saver(model, folder),
        _raw_in_a_thread(model, folder),
    ]
    contenders = [
        Contender(NO_SAVE, step, measure=lambda: _step_time(step, lambda: None)),
        *(Contender(s.name, s.save, measure=_step_time_beside(step, s)) for s in savers),
    ]
    return interleaved(contenders, rounds)


def _raw_in_a_thread(model: object, folder: Path) -> Saver:
    read = floors.reader_of(model)
    threads: list[threading.Thread] = []

    def save() -> None:
        buffers = read()
        path = str(folder / "beside.bin")
        threads.append(threading.Thread(target=floors.write_raw, args=(path, buffers)))
        threads[-1].start()

    return Saver("floor: raw write + fsync in a thread", save, lambda: threads.pop().join())


def _step_time(step: Callable[[], None], wait: Callable[[], object]) -> float:
    """Return the mean time of the steps that begin before `wait` returns."""
    done = threading.Event()

    def watch() -> None:
        try:
            wait()
        finally:
            done.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    steps = 0
    start = time.perf_counter()
    while steps < _LEAST_STEPS or not done.is_set():
        step()
        steps += 1
    seconds = (time.perf_counter() - start) / steps
    watcher.join()
    return seconds


def _step_time_beside(step: Callable[[], None], saver: Saver) -> Callable[[], float]:
    def measure() -> float:
        saver.save()
        return _step_time(step, saver.wait)

    return measure


def measure_durable(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure saves from the call to the return. Ours and the raw write are synced by then."""
    model = case.build()
    buffers = floors.reader_of(model)()
    copy = [np.empty_like(np.asarray(buffer)) for buffer in buffers]
    raw = folder / "raw.bin"

    def memcpy() -> None:
        for target, buffer in zip(copy, buffers, strict=True):
            np.copyto(target, np.asarray(buffer))

    def synced() -> None:
        model.save(folder / "synced.keras")
        with open(folder / "synced.keras", "rb") as file:
            os.fsync(file.fileno())

    savers = [
        ours.model_checkpoint(model, folder),
        ours.model_checkpoint(model, folder, ".weights.h5"),
        ours.manager(model, folder),
        *peers.keras_savers(model, folder)[:2],
        Saver("Keras `model.save` (.keras), then fsync", synced),
        peers.tensorflow_saver(model, folder, background=False),
        *peers.safetensors_saver(model, folder),
    ]
    return interleaved(
        [
            Contender(MEMCPY, memcpy),
            Contender(RAW_WRITE, lambda: floors.write_raw(str(raw), buffers), after=raw.unlink),
            # Files that are replaced have to be freed, which takes time too: all begin without.
            *(Contender(s.name, s.save, before=lambda: _remove_files(folder)) for s in savers),
        ],
        rounds,
    )


def _remove_files(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    os.sync()
