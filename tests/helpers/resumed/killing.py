"""Kill a program again and again, at random instants, until it has come to its end.

The program tells of each batch through a pipe. Whoever listens picks an instant by a batch and a
short delay after it, or waits until a save is seen to be under way, and kills from outside: the
program is never asked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import random
import signal
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import processes

import keras_ckpt_tools as kct
from keras_ckpt_tools.storage.commit import STAGED_SUFFIX

_PATIENCE_S = 240
_LONGEST_DELAY_S = 0.012
_STARTING_S = 1.0
Program = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A program, and how it saves and is killed.

    Attributes:
        program: What is run.
        batches: How many it trains in all.
        save_freq: Every how many batches it saves.
        background: Whether it saves in the background.
        signals: Whether it saves when it gets a signal, and gets some.
    """

    program: Program
    batches: int
    save_freq: int
    background: bool = False
    signals: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """What the program is told."""
        return {
            "save_freq": self.save_freq,
            "background": self.background,
            "save_on_signal": self.signals,
        }


@dataclass
class Whole:
    """What a run has left.

    Attributes:
        left: What the program returned.
        trained: For each batch, what was logged when it was last trained.
        files: What it left on disk.
        repeated: Batches that were trained more than once.
        different: Batches whose logs were not the same each time.
        too_far: Restarts that had to repeat more than they may.
        kills: How often it was killed.
        in_saves: How often in the middle of a save.
        signalled: How often by SIGTERM.
        before_batches: How often before its first batch.
        epochs: How often in each epoch.
    """

    left: dict[str, Any] = field(default_factory=dict)
    trained: dict[int, dict[str, float]] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    repeated: int = 0
    different: list[int] = field(default_factory=list)
    too_far: list[tuple[int, int]] = field(default_factory=list)
    kills: int = 0
    in_saves: int = 0
    signalled: int = 0
    before_batches: int = 0
    epochs: Counter[int] = field(default_factory=Counter)

    def note(self, batch: int, logs: dict[str, float]) -> None:
        """Note that a batch was trained."""
        if batch in self.trained:
            self.repeated += 1
            # As text, because a NaN is not equal to itself.
            if repr(self.trained[batch]) != repr(logs):
                self.different.append(batch)
        self.trained[batch] = logs


def differences(one: Whole, other: Whole) -> list[str]:
    """Return in what two runs differ, as sentences."""
    found = [
        f"{name}: {one.left.get(name)} and {other.left.get(name)}"
        for name in {**one.left, **other.left}
        if repr(one.left.get(name)) != repr(other.left.get(name))
    ]
    found += [
        f"batch {batch}: {one.trained.get(batch)} and {other.trained.get(batch)}"
        for batch in sorted({**one.trained, **other.trained})
        if repr(one.trained.get(batch)) != repr(other.trained.get(batch))
    ]
    found += [
        f"{name}: {one.files.get(name)} and {other.files.get(name)}"
        for name in sorted({**one.files, **other.files})
        if one.files.get(name) != other.files.get(name)
    ]
    found += [f"batch {batch} was not the same when repeated" for batch in other.different]
    return found + [f"went on at batch {a} after batch {b}" for a, b in other.too_far]


def _perform(pipe: Any, case: Case, directory: str, x: Any, y: Any) -> None:
    import keras
    import tensorflow as tf
    from resumed.programs import Stage

    try:
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(1)
        stage = Stage(directory, x, y, lambda batch, logs: pipe.send((batch, logs)), case.arguments)
        pipe.send("it begins")
        pipe.send(case.program(stage))
    except BaseException:  # noqa: BLE001 - it goes to the test
        pipe.send(traceback.format_exc())
        os._exit(1)


def run_whole(case: Case, directory: Path, digits: tuple[np.ndarray, np.ndarray]) -> Whole:
    """Run a program to its end; nobody disturbs it."""
    whole = Whole()
    directory.mkdir()
    _run(case, directory, digits, whole, None)
    whole.files = files_of(case, directory)
    return whole


def run_killed(
    case: Case,
    directory: Path,
    digits: tuple[np.ndarray, np.ndarray],
    kills: int,
    chosen: random.Random,
) -> Whole:
    """Run a program to its end; kill it on its way, so many times or, if it was faster, fewer."""
    whole = Whole()
    directory.mkdir()
    for number in range(kills):
        left = case.batches - max(whole.trained, default=0)
        # So that the last kill is likely to be near the end.
        gap = chosen.randint(0, max(1, 2 * left // (kills - number + 1)))
        if _run(case, directory, digits, whole, _Killer(case, directory, gap, chosen)):
            break
    else:
        _run(case, directory, digits, whole, None)
    whole.files = files_of(case, directory)
    return whole


class _Killer:
    """Ends one process.

    Args:
        case: What runs in it.
        directory: Where that saves.
        gap: How many batches later than the furthest one so far.
        chosen: Where all that is drawn comes from.
    """

    def __init__(self, case: Case, directory: Path, gap: int, chosen: random.Random):
        self.directory, self.gap = directory, gap
        self.while_starting = chosen.random() < 0.1
        self.in_a_save = chosen.random() < 0.4
        self.by = signal.SIGTERM if case.signals and chosen.random() < 0.4 else signal.SIGKILL
        self.delay = chosen.uniform(0, _STARTING_S if self.while_starting else _LONGEST_DELAY_S)
        if self.while_starting:
            self.by = signal.SIGKILL

    def saving(self) -> bool:
        """Whether a save is under way."""
        for _, _, names in os.walk(self.directory):
            if any(name.endswith(STAGED_SUFFIX) for name in names):
                return True
        return False

    def kill(self, process: Any) -> None:
        """Wait for the instant, and kill."""
        end = time.monotonic() + 2
        while self.in_a_save and process.is_alive() and time.monotonic() < end:
            if self.saving():
                break
        else:
            time.sleep(self.delay)
        if process.is_alive():
            os.kill(process.pid, self.by)


def _run(case: Case, directory: Path, digits: Any, whole: Whole, killer: _Killer | None) -> bool:
    """Run one process; return whether the program came to its end."""
    furthest = max(whole.trained, default=-1)
    process, pipe = processes.start(_perform, case, str(directory), *digits)
    first: int | None = None
    killed = False
    try:
        while pipe.poll(_PATIENCE_S):
            said = pipe.recv()
            if isinstance(said, dict):
                whole.left = said
                break
            if isinstance(said, str) and said != "it begins":
                raise AssertionError(said)
            if isinstance(said, tuple):
                if first is None:
                    first = said[0]
                whole.note(*said)
            if killer is None or killed:
                continue
            if killer.while_starting or (
                isinstance(said, tuple) and said[0] >= furthest + killer.gap
            ):
                killer.kill(process)
                killed = True
        else:
            raise AssertionError("It hangs.")
    except (EOFError, OSError):
        pass  # The pipe ends where the process did.
    finally:
        process.join(_PATIENCE_S)
        pipe.close()
    code = process.exitcode
    process.close()
    ended = bool(whole.left)
    if ended and code == 0:
        killed = False
    assert ended or (killer and code == -killer.by), f"exit status {code}"
    if killed:
        _count(whole, killer, first)
    # In the background one save is under way, and one waits.
    allowed = case.save_freq * (1 + 2 * case.background)
    if first is not None and first < furthest + 1 - allowed:
        whole.too_far.append((first, furthest))
    return ended


def _count(whole: Whole, killer: Any, first: int | None) -> None:
    from resumed.programs import BATCHES

    whole.kills += 1
    whole.in_saves += killer.saving()
    whole.signalled += killer.by == signal.SIGTERM
    whole.before_batches += first is None
    whole.epochs[max(whole.trained, default=0) // BATCHES] += 1


# What is on disk.


def files_of(case: Case, directory: Path) -> dict[str, Any]:
    """Return what is in each file of a run, but for when it was written.

    The numbers of checkpoints count saves: where a signal has made one more, they are left out.

    Returns:
        By file, and for what has parts also by part.
    """
    found: dict[str, Any] = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = str(path.relative_to(directory))
        if path.name.startswith("ckpt-") and case.signals:
            name = f"checkpoint {sum(n.startswith('checkpoint') for n in found)}"
        content = _content(path)
        found[name] = sorted(content)
        found |= {f"{name}: {part}": each for part, each in content.items()}
    return found


def _content(path: Path) -> dict[str, Any]:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            weights = io.BytesIO(archive.read("model.weights.h5"))
            config = hashlib.sha256(archive.read("config.json")).hexdigest()
        return {"config": config} | _tensors(weights) | _progress(path)
    if path.suffix == ".h5":
        return _tensors(path) | _progress(path)
    return {"bytes": hashlib.sha256(path.read_bytes()).hexdigest()}


def _tensors(file: Any) -> dict[str, str]:
    found: dict[str, str] = {}

    def visit(name: str, each: Any) -> None:
        # TensorFlow writes the place of a tf.data iterator in other bytes each time; where it is, a
        # program says by what comes next.
        if isinstance(each, h5py.Dataset) and not name.startswith("batches/"):
            found[name] = hashlib.sha256(each[()].tobytes()).hexdigest()[:16]

    with h5py.File(file) as opened:
        opened.visititems(visit)
    return found


def _progress(path: Path) -> dict[str, Any]:
    progress = dataclasses.asdict(kct.training_progress(path))
    for name in ("run_id", "started_at", "saved_at", "elapsed_s", "restarts", "saves"):
        del progress[name]
    return progress
