"""Decide whether data would return the same batches again after a restart.

The decision uses the type of the data, and the stages of a tf.data pipeline. Effects of Python code
or random operations inside a stage are not visible; `docs/data.md` describes each type of data, and
each line there is tested.
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
    """Whether data can be replayed.

    Attributes:
        reason: Why an epoch cannot resume in its middle; empty if it can.
        remedy: How to make it possible.
        counts_iterators: Whether its order depends on the number of iterators made of it.
        has_to_be_read: Whether a batch must be read from each of them as well.
    """

    reason: str = ""
    remedy: str = ""
    counts_iterators: bool = False
    has_to_be_read: bool = False

    @property
    def exact(self) -> bool:
        """Whether an epoch can resume in its middle."""
        return not self.reason


def replay_of(adapter: Any, positioned: Any) -> Replay:
    """Return whether the data of one of Keras' data adapters can be replayed."""
    if positioned is not None:
        return Replay()
    kind = type(adapter).__name__
    if kind == "ArrayDataAdapter":
        if not adapter._shuffle:
            return Replay()
        if internals.eager_seed() is not None:
            return Replay(counts_iterators=True)  # Each iterator gives the same order.
        return Replay("shuffled arrays have another order each time", _OURS)
    if kind == "TFDatasetAdapter":
        return replay_of_pipeline(adapter._dataset)
    if kind == "PyDatasetAdapter":
        return _of_py_dataset(adapter)
    if kind == "GrainDatasetAdapter":
        return Replay()  # Keras starts it again in each epoch, in the same order.
    if kind == "GeneratorDataAdapter":
        return Replay("the batches of a Python generator cannot be repeated", _OURS)
    return Replay(f"it is not known how to resume in the middle of this data ({kind})", _OURS)


def replay_of_pipeline(dataset: Any) -> Replay:
    """Return whether a tf.data pipeline can be replayed, from its stages."""
    stages = list(_stages(dataset))
    names = [type(stage).__name__ for stage in stages]
    shuffles = [index for index, name in enumerate(names) if "Shuffle" in name]
    if any(_is_unseeded(stages[index]) for index in shuffles):
        return Replay(
            "its `shuffle` has no seed",
            "Pass a seed, `shuffle(..., seed=...)`, or better, use "
            "`kct.data.resumable(lambda epoch: ...)`",
        )
    for index in shuffles:
        if any("Cache" in name for name in names[:index]):
            return Replay("its `cache` comes after a `shuffle`", "Put `cache` before `shuffle`")
        if any(map(_repeats_a_few_times, stages[: index + 1])):
            return Replay(
                "its `repeat` comes after a `shuffle`",
                "Omit `repeat`, or make it infinite and pass `steps_per_epoch`",
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
            "Keras shuffles the batches of a `PyDataset` in another order each time",
            "Pass `fit(shuffle=False)`, or add a method `start(epoch, batch)` to it",
        )
    own = ("on_epoch_begin", "on_epoch_end")
    if any(getattr(kind, name) is not getattr(keras.utils.PyDataset, name) for name in own):
        return Replay(
            f"`on_epoch_end` of {kind.__name__} may change its batches",
            "Add a method `start(epoch, batch)` to it",
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
