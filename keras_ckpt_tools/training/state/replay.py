"""Whether data would give the same batches again: `fit()`'s input -> *verdict* -> resume.

Told by what kind of data it is, and for a tf.data pipeline by its stages. What Python code or a
random operation within a stage does cannot be seen from outside; `docs/data.md` says what holds for
each kind, and each line there was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals

_OURS = (
    "Pass `kct.data.ArrayDataset(x, y, batch_size=..., shuffle=True, seed=...)`, or "
    "`kct.data.resumable(lambda epoch: ...)` for a tf.data pipeline"
)


@dataclass(frozen=True)
class Replay:
    """How far data can be replayed.

    Attributes:
        reason: Why an epoch cannot be gone on with in its middle; empty where it can.
        remedy: What would make it possible.
        counts_iterators: Whether its order depends on how many iterators were made of it.
        has_to_be_read: Whether a batch has to be read from each of them, too.
    """

    reason: str = ""
    remedy: str = ""
    counts_iterators: bool = False
    has_to_be_read: bool = False

    @property
    def exact(self) -> bool:
        """Whether an epoch can be gone on with in its middle."""
        return not self.reason


def replay_of(adapter: Any, positioned: Any) -> Replay:
    """Return how far the data behind one of Keras' data adapters can be replayed."""
    if positioned is not None:
        return Replay()
    kind = type(adapter).__name__
    if kind == "ArrayDataAdapter":
        if not adapter._shuffle:
            return Replay()
        if internals.eager_seed() is not None:
            return Replay(counts_iterators=True)  # And each gives the same order.
        return Replay("arrays are shuffled in an order that is never the same again", _OURS)
    if kind == "TFDatasetAdapter":
        return replay_of_pipeline(adapter._dataset)
    if kind == "PyDatasetAdapter":
        return _of_py_dataset(adapter)
    if kind == "GrainDatasetAdapter":
        return Replay()  # Keras begins it anew in each epoch, in the same order.
    if kind == "GeneratorDataAdapter":
        return Replay("what a Python generator gave is gone", _OURS)
    return Replay(f"it is not known how to go on in the middle of this data ({kind})", _OURS)


def replay_of_pipeline(dataset: Any) -> Replay:
    """Return how far a tf.data pipeline can be replayed, by its stages."""
    stages = list(_stages(dataset))
    names = [type(stage).__name__ for stage in stages]
    shuffles = [index for index, name in enumerate(names) if "Shuffle" in name]
    if any(_is_unseeded(stages[index]) for index in shuffles):
        return Replay(
            "its `shuffle` has no seed",
            "Give it one, `shuffle(..., seed=...)`; better still, pass "
            "`kct.data.resumable(lambda epoch: ...)`",
        )
    for index in shuffles:
        if any("Cache" in name for name in names[:index]):
            return Replay(
                "its `cache` comes after a `shuffle`", "Let `cache` come before `shuffle`"
            )
        if any(map(_repeats_a_few_times, stages[: index + 1])):
            return Replay(
                "its `repeat` comes after a `shuffle`",
                "Leave out `repeat`, or let it have no end and pass `steps_per_epoch`",
            )
    return Replay(counts_iterators=bool(shuffles), has_to_be_read=len(shuffles) > 1)


def shuffles_of(adapter: Any) -> list[str]:
    """Return the stages of a tf.data pipeline that shuffle, the last first."""
    dataset = getattr(adapter, "_dataset", None)
    names = [type(stage).__name__.lstrip("_") for stage in _stages(dataset)] if dataset else []
    return [name for name in names if "Shuffle" in name]


def _of_py_dataset(adapter: Any) -> Replay:
    kind = type(adapter.py_dataset)
    if adapter.shuffle:
        return Replay(
            "Keras shuffles the batches of a `PyDataset` anew",
            "Pass `fit(shuffle=False)`, or give it a method `start(epoch, batch)`",
        )
    own = ("on_epoch_begin", "on_epoch_end")
    if any(getattr(kind, name) is not getattr(keras.utils.PyDataset, name) for name in own):
        return Replay(
            f"what {kind.__name__} does at the end of each epoch may change its batches",
            "Give it a method `start(epoch, batch)`",
        )
    return Replay()


def _repeats_a_few_times(stage: Any) -> bool:
    count = getattr(stage, "_count", None)
    return "Repeat" in type(stage).__name__ and count is not None and int(count) >= 0


def _stages(dataset: Any) -> Iterator[Any]:
    """Yield the stages of a pipeline, the last first."""
    yield dataset
    for earlier in getattr(dataset, "_inputs", tuple)():
        yield from _stages(earlier)


def _is_unseeded(stage: Any) -> bool:
    seeds = getattr(stage, "_seed", None), getattr(stage, "_seed2", None)
    return all(seed is not None and int(seed) == 0 for seed in seeds)
