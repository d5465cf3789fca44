"""What saves cost: the pause of the training loop, the steps beside a save, a durable save."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
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
RAW_BESIDE = "floor: raw write + fsync in a thread"
_LEAST_STEPS = 3
# A save that takes longer than this has failed, which its `wait` will say.
_LONGEST_S = 120


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


@dataclass(frozen=True)
class _Steps:
    """Steps of training.

    Attributes:
        count: How many.
        seconds: What they took together.
    """

    count: int
    seconds: float

    @property
    def mean(self) -> float:
        """Seconds that one took."""
        return self.seconds / self.count


def measure_steps(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure the time of a training step while a save is under way, its first step included."""
    step, savers = _trained_beside(case, folder)
    contenders = [
        Contender(NO_SAVE, step, measure=lambda: _train(step, _LEAST_STEPS).mean),
        *_measured_by(step, savers, lambda steps: steps.mean),
    ]
    return interleaved(contenders, rounds)


def measure_cost(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure how much longer all the steps beside a save take than as many without one."""
    step, savers = _trained_beside(case, folder)

    def cost(steps: _Steps) -> float:
        return steps.seconds - _train(step, steps.count).seconds

    return interleaved(_measured_by(step, savers, cost), rounds)


def _trained_beside(case: Case, folder: Path) -> tuple[Callable[[], None], list[Saver]]:
    """Return a step of training, and what saves beside it."""
    model = case.build()
    x, y = case.batch()

    def step() -> None:
        model.train_on_batch(x, y)

    callback = ours.model_checkpoint(model, folder, background=True)
    manager = ours.manager(model, folder, background=True)
    return step, [
        callback,
        manager,
        ours.waited_for(callback),
        ours.waited_for(manager),
        peers.tensorflow_saver(model, folder, background=True),
        *peers.orbax_saver(model, folder),
        _raw_in_a_thread(model, folder),
    ]


def _measured_by(
    step: Callable[[], None], savers: list[Saver], result: Callable[[_Steps], float]
) -> list[Contender]:
    def beside(saver: Saver) -> Callable[[], float]:
        return lambda: result(_train_beside(step, saver))

    return [Contender(saver.name, saver.save, measure=beside(saver)) for saver in savers]


def _raw_in_a_thread(model: object, folder: Path) -> Saver:
    read = floors.reader_of(model)
    threads: list[threading.Thread] = []

    def save() -> None:
        buffers = read()
        path = str(folder / "beside.bin")
        threads.append(threading.Thread(target=floors.write_raw, args=(path, buffers)))
        threads[-1].start()

    return Saver(RAW_BESIDE, save, lambda: threads.pop().join())


def _train(
    step: Callable[[], None], least: int, is_busy: Callable[[], bool] = lambda: False
) -> _Steps:
    """Train for so many steps at least, and for as long as something is under way."""
    count = 0
    start = time.perf_counter()
    while count < least or (is_busy() and time.perf_counter() - start < _LONGEST_S):
        step()
        count += 1
    return _Steps(count, time.perf_counter() - start)


def _train_beside(step: Callable[[], None], saver: Saver) -> _Steps:
    saver.save()
    if saver.busy is not None:
        steps = _train(step, _LEAST_STEPS, saver.busy)
        saver.wait()
        return steps
    done = threading.Event()

    def watch() -> None:
        try:
            saver.wait()
        finally:
            done.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    steps = _train(step, _LEAST_STEPS, lambda: not done.is_set())
    watcher.join()
    return steps


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
