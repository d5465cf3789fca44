"""Record the position of a running `fit()` in its data, and resume there.

An interrupted epoch resumes at its next batch: Keras' enumeration of the steps starts there, so
batches that were trained on are neither trained nor counted again, and the data start at the same
place. Data of this package are set to the position with `start`. For other data, earlier batches
are skipped if the data would return the same batches again. Otherwise the epoch starts over, and a
warning explains how to make the resume exact.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.data.positions import is_positioned, pass_and_batch
from keras_ckpt_tools.live.keras_walk import has_call, is_whole
from keras_ckpt_tools.training.state.replay import Replay, replay_of, shuffles_of

TOGETHER = "steps_per_execution"


class FitData:
    """The data of one running `fit()`.

    Args:
        iterator: Keras' epoch iterator.
    """

    def __init__(self, iterator: Any):
        self._iterator = iterator
        self._adapter = iterator.data_adapter
        given = getattr(self._adapter, "py_dataset", None), getattr(self._adapter, "_dataset", None)
        self._positioned = next((data for data in given if is_positioned(data)), None)
        self.replay: Replay = replay_of(self._adapter, self._positioned)

    @classmethod
    def of(cls, model: Any) -> FitData | None:
        """Return the data of a model's running `fit()`, or `None` outside of one."""
        iterator = epoch_iterator_of(model)
        return None if iterator is None else cls(iterator)

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, as far as known."""
        return self._iterator.num_batches or None

    @property
    def known_steps(self) -> int | None:
        """Batches of an epoch; Keras infers one too many from a complete epoch."""
        return _count(self._iterator.steps_per_epoch) or _count(self._adapter.num_batches)

    def can_begin_at(self, batch: int) -> bool:
        """Return whether an epoch can start at one of its batches and keep its end."""
        persists = self._iterator.steps_per_epoch is not None
        return not persists or batch % self._iterator.steps_per_execution == 0

    def facts(self) -> dict[str, Any]:
        """Return the facts that must not change if an epoch resumes in its middle."""
        steps, together = self._iterator.steps_per_epoch, self._iterator.steps_per_execution
        taken = None if steps is None else -(-steps // together) * together
        return {
            "kind of data": type(self._positioned or self._adapter).__name__,
            "shuffle": self._shuffle(),
            "batches of the dataset": _count(self._adapter.num_batches),
            "batch size": _count(
                self._adapter.batch_size or getattr(self._positioned, "batch_size", None)
            ),
            "steps_per_epoch": _count(self._iterator.steps_per_epoch),
            **({} if taken is None else {"batches read in an epoch": taken}),
            TOGETHER: _count(self._iterator.steps_per_execution),
            **({"samples of the arrays": size} if (size := self._samples()) else {}),
            **facts_of(self._positioned),
            **({"global seed": internals.eager_seed()} if self.replay.counts_iterators else {}),
        }

    def _samples(self) -> int | None:
        """Return the number of samples, if `fit()` was called with arrays."""
        arrays = keras.tree.flatten(getattr(self._adapter, "_inputs", None))
        shapes = [getattr(array, "shape", None) for array in arrays]
        return int(shapes[0][0]) if shapes and shapes[0] else None

    def _shuffle(self) -> str | bool | None:
        for owner, name in ((self._positioned, "shuffle"), (self._adapter, "_shuffle")):
            if isinstance(found := getattr(owner, name, None), bool):
                return found
        return ", ".join(shuffles_of(self._adapter)) or None

    def build(self, model: Any) -> None:
        """Build what `fit()` builds in its first batch: metrics of `compile()`, unbuilt layers.

        No batch is read for it, because that would count. What cannot be built in this way is not
        changed; Keras warns about it and marks it as built all the same.
        """
        metrics = getattr(model, "_compile_metrics", None)
        dataset = getattr(self._iterator, "_distributed_dataset", None)
        whole = is_whole(model) and (metrics is None or metrics.built)
        if dataset is None or whole or not has_call(model):
            return
        unbuilt = [layer for layer in model._flatten_layers() if not layer.built]
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model._symbolic_build(data_batch=dataset.element_spec)
        for layer in unbuilt:
            if layer.built and not is_whole(layer):
                layer.built = False
                layer._tracker.unlock()

    def place(
        self, epoch: int, batch: int, first_epoch: int, *, over: bool = False, other: bool = False
    ) -> None:
        """Start the current epoch at one of its batches, with the data of that position.

        Call it once, in the first epoch of a `fit()`, and `epoch_begins` in the others.

        Args:
            epoch: Zero-based.
            batch: Zero-based.
            first_epoch: The first epoch of the run.
            over: Whether the epoch has no batch left, for any number of batches.
            other: Whether the data differ from those at the start of the epoch.
        """
        if over and (other or not self.replay.exact):
            self._enumerate_nothing_once()
            return
        iterator, persists = self._iterator, self._iterator.steps_per_epoch is not None
        number, position = pass_and_batch(
            epoch - first_epoch if persists else epoch,
            batch,
            batches=_count(self._adapter.num_batches),
            steps_per_epoch=iterator.steps_per_epoch,
            steps_per_execution=iterator.steps_per_execution,
        )
        if self._positioned is not None:
            self._positioned.start(number, position)
            position_in_source = 0
        elif not self.replay.exact:
            return  # The batches would differ, so none are skipped.
        else:
            self._make_earlier_iterators(number - (0 if persists else first_epoch), persists)
            position_in_source = position
        if persists:
            iterator._current_iterator = iter(after(iterator._get_iterator(), position_in_source))
            iterator._steps_seen = position - batch
        elif position_in_source:
            self._begin_onceafter(position_in_source)
        if batch:
            self._enumerate_once_from(batch)

    def epoch_begins(self, epoch: int) -> None:
        """Set data of this package to the epoch that starts now."""
        if self._positioned is not None and self._iterator.steps_per_epoch is None:
            self._positioned.start(epoch)

    def _make_earlier_iterators(self, passes: int, persists: bool) -> None:
        # The order of a seeded `shuffle` depends on the number of iterators made before, and Keras
        # makes two in each epoch if it knows the number of batches.
        unused = not persists and self._adapter.num_batches is not None
        for _ in range(passes if self.replay.counts_iterators else 0):
            used = iter(self._iterator._get_iterator())
            if self.replay.has_to_be_read:
                next(used, None)
            if unused:
                iter(self._iterator._get_iterator())

    def _begin_onceafter(self, position: int) -> None:
        iterator = self._iterator

        def get_iterator() -> Any:
            del iterator._get_iterator
            data = iterator._get_iterator()
            if self.replay.has_to_be_read and position == self.steps:
                # No step of this epoch does this, and the order of the next epoch depends on it.
                used = iter(data)
                next(used, None)
                return used
            return after(data, position)

        iterator._get_iterator = get_iterator

    def _enumerate_nothing_once(self) -> None:
        iterator = self._iterator

        def enumerate_iterator() -> Iterator[Any]:
            del iterator._enumerate_iterator
            return iter(())

        iterator._enumerate_iterator = enumerate_iterator

    def _enumerate_once_from(self, batch: int) -> None:
        iterator = self._iterator

        def enumerate_iterator() -> Iterator[Any]:
            del iterator._enumerate_iterator
            # The number of batches executed together may differ from that at the save.
            late = batch % iterator.steps_per_execution
            for *steps, data in iterator._enumerate_iterator():
                moved = [step + late for step in steps]
                if moved[0] >= batch and not (late and self.steps and moved[0] >= self.steps):
                    yield (*moved, data)

        iterator._enumerate_iterator = enumerate_iterator


def facts_of(positioned: Any) -> dict[str, int | None]:
    """Return the facts about data of this package that must not change after a restart."""
    found = {"samples": "num_samples", "seed of the data": "seed"}
    return {
        name: getattr(positioned, attribute)
        for name, attribute in found.items()
        if isinstance(getattr(positioned, attribute, None), (int, type(None)))
        and hasattr(positioned, attribute)
    }


def after(data: Any, position: int) -> Any:
    """Return data without its first batches."""
    if not position:
        return data
    if hasattr(data, "skip"):
        return data.skip(position)
    batches = iter(data)
    for _ in range(position):
        next(batches, None)
    return batches


def _count(value: Any) -> int | None:
    return int(value) if value is not None and int(value) > 0 else None


def epoch_iterator_of(model: Any) -> Any:
    """Return the iterator of the running `fit()` of a model, or `None`."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            found = frame.f_locals.get("epoch_iterator")
            return found if isinstance(found, internals.EpochIterator) else None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def callback_list_of(callback: Any) -> keras.callbacks.CallbackList | None:
    """Return the list through which a callback is called, or `None`."""
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, keras.callbacks.CallbackList) and callback in found.callbacks:
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None


def call_in_turn(callback: Any) -> None:
    """Make Keras call a callback between the batches, not in a parallel thread.

    Keras does so for callbacks that use batches, but does not check this if `fit()` was called with
    a single callback instead of a list.
    """
    called = callback_list_of(callback)
    if called is not None and hasattr(called, "_async_train"):
        called._async_train = False
