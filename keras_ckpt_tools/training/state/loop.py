"""Save and restore the extra state of a custom loop: callbacks, metrics, random generators, data.

This does for a manager's loop what `fit` does for `fit()`. Here the loop calls the Keras callbacks,
so values that their `on_train_begin` and `on_epoch_begin` reset are restored right after.

A loop resets its metrics, and may draw random numbers, at the start of an epoch. If an epoch
resumes in its middle, that was done before the save, so both are restored where its batches
continue.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.data.positions import is_positioned
from keras_ckpt_tools.errors import ArgumentError, ResumeError
from keras_ckpt_tools.live.adapters import Adapter
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.metadata import epoch_number
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.changes import Changes
from keras_ckpt_tools.training.checkpoints import Restored
from keras_ckpt_tools.training.state.callbacks import CallbackStates
from keras_ckpt_tools.training.state.fit_data import after, facts_of
from keras_ckpt_tools.training.state.random_generators import RandomStates
from keras_ckpt_tools.training.state.replay import Replay, replay_of_pipeline
from keras_ckpt_tools.training.state.run_state import CALLBACKS, FIT, LOOP, RANDOM

# Number of iterators of a pipeline made in this process, stored as long as the pipeline exists. So
# a loop that creates its data in each epoch makes no iterators again after a restart.
_made: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def _program_of(restored: Restored) -> Mapping[str, Any]:
    found: Mapping[str, Any] = {}
    for name in (LOOP, FIT):
        found = found or restored.beside.get(name, {}).get("program", {})
    return found


def _variables_of_metric(tracked: Any) -> list[Any]:
    return list(tracked.variables) if isinstance(tracked, keras.metrics.Metric) else []


def _nothing() -> None:
    return None


class LoopState:
    """The extra state of one loop that a restart restores.

    Args:
        callbacks: Keras callbacks, which the loop calls.
        model: The model of the callbacks, or `None`.
        changes: Intended changes of the program since the save.
        tracked: Returns the tracked objects, by name.

    Raises:
        ArgumentError: there are callbacks, but no model.
    """

    def __init__(
        self,
        callbacks: Iterable[keras.callbacks.Callback] | None,
        model: Any,
        changes: Changes | None = None,
        tracked: Callable[[], Mapping[str, Any]] = dict,
    ):
        self._changes = changes or Changes()
        self._tracked = tracked
        # Metrics with the values that they have when the batches of an epoch continue.
        self._inside: list[tuple[Any, Any]] | None = None
        one = isinstance(callbacks, keras.callbacks.Callback)
        given = [callbacks] if one else list(callbacks or ())
        self._states = CallbackStates(given)
        if given and model is None:
            raise ArgumentError(
                "Callbacks need a Keras model, and no model is tracked.",
                received=f"callbacks={given!r}",
                remedy="Track the model: `CheckpointManager(directory, model=model, "
                "callbacks=...)`.",
            )
        self._callbacks = given
        self._called: keras.callbacks.CallbackList | None = None
        self._model = model
        self._random = RandomStates()
        self._restored: Restored | None = None
        self._data: Callable[[], Any] = _nothing
        self._owed = 0
        self._batch_has_begun = self._has_begun_before = False
        self._ended: tuple[int, Mapping[str, float]] | None = None
        self._facts: dict[str, int | None] = {}
        self._expected: Mapping[str, int | None] = {}
        self._random_inside: Any = None
        self._unbuilt: list[Any] = []  # Models with metrics that have no variables yet.

    # Save and restore.

    def take(self, *, over: bool = False) -> dict[str, Any]:
        """Return the present extra state.

        Args:
            over: Whether the batches of the current epoch are done.
        """
        data = self._data()
        made = 0 if data is None else _made.get(data, 0)
        states = self._states.get_state()
        stopped_by: list[str] = []
        if self.stopped:
            stopped_by = self._states.final_stops(self._states.stops.names, states)
        taken: dict[str, Any] = {
            RANDOM: self._random.get_state(),
            LOOP: {
                "program": dict(self._changes.begun),
                "iterators": made,
                "stopped": bool(stopped_by),
                "stopped by": stopped_by,
                "data": self._facts,
                "over": over,
                **({"begun": True} if self._batch_has_begun else {}),
                **({"metrics": found} if (found := self._values_of_metrics()) else {}),
            },
        }
        if self._callbacks:
            taken[CALLBACKS] = states
        return taken

    def _metrics(self) -> dict[str, list[Any]]:
        """Return the metrics of each tracked model, whose state Keras does not save."""
        tracked = self._tracked().items()
        return {name: one.metrics for name, one in tracked if isinstance(one, keras.Model)}

    def _values_of_metrics(self) -> dict[str, list[list[Any]]]:
        return {
            name: [[to_numpy(v) for v in metric.variables] for metric in metrics]
            for name, metrics in self._metrics().items()
            if any(metric.variables for metric in metrics)
        }

    def _put_back_metrics(self, saved: Mapping[str, Sequence[Any]]) -> None:
        """Restore the metrics of models if their variables exist already."""
        self._unbuilt = []
        for name, metrics in self._metrics().items():
            for metric, values in zip(metrics, saved.get(name, ()), strict=False):
                variables = metric.variables
                if values and not variables:
                    self._unbuilt.append(self._tracked()[name])
                elif [tuple(v.shape) for v in variables] == [np.shape(value) for value in values]:
                    for variable, value in zip(variables, values, strict=True):
                        variable.assign(value)

    def _watch_resets(self) -> None:
        """Detect whether metrics that the first batch builds are reset for it, as Keras does."""
        for model in self._unbuilt:

            def reset(model: Any = model) -> None:
                del vars(model)["reset_metrics"]
                model.reset_metrics()

            vars(model)["reset_metrics"] = reset

    def _tell_of_unbuilt(self) -> None:
        models, self._unbuilt = self._unbuilt, []
        not_reset = [m.name for m in models if vars(m).pop("reset_metrics", None) is not None]
        if not_reset and not self._changes.may("metrics"):
            warn(
                f"The metrics that {', '.join(not_reset)} was compiled with started over in the "
                "middle of the epoch: Keras creates them with the first batch, so they could not "
                "be restored. Their values for this epoch cover its remaining batches.",
                UserWarning,
                stacklevel=6,
            )

    def batches_begin(self) -> None:
        """Restore what the start of an epoch has reset that resumes in its middle."""
        inside, self._inside = self._inside, None
        if inside is None:
            return
        for variable, value in inside:
            variable.assign(value)
        if self._random_inside is not None and "seed" not in self._changes.applied:
            self._random.set_state(self._random_inside)

    def differences(self, restored: Restored) -> list[str]:
        """Return the differences between this loop and the saved one, as sentences."""
        changes = self._changes
        changes.look_again()
        changes.compare(_program_of(restored))
        if not changes.may("callbacks"):
            changes.said += self._states.differences(restored.beside.get(CALLBACKS, {}))
        return changes.refused

    def resume(self, restored: Restored) -> None:
        """Resume from a restored checkpoint."""
        self._restored = restored
        self._changes.resume()
        self._changes.warn()
        self._ended = None
        self._batch_has_begun = False
        self._has_begun_before = bool(restored.beside.get(LOOP, {}).get("begun"))
        made = restored.beside.get(LOOP, {}).get("iterators", 0)
        progress = restored.progress
        if progress.batches_completed:
            made -= 1  # The current one is made again.
        elif made < progress.epochs_completed:
            made = 0  # The loop creates its data in each epoch.
        self._owed = max(made, 0)
        self._expected = restored.beside.get(LOOP, {}).get("data", {})
        self._put_back_random()
        self._inside = self._random_inside = None
        if progress.batches_completed:
            self._put_back_metrics(restored.beside.get(LOOP, {}).get("metrics", {}))
            alone = [v for one in self._tracked().values() for v in _variables_of_metric(one)]
            of_models = [v for each in self._metrics().values() for m in each for v in m.variables]
            self._inside = [(v, to_numpy(v)) for v in (*alone, *of_models)]
            self._random_inside = restored.beside.get(RANDOM)

    def ended_before(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Note that callbacks have not been called at the end of the restored epoch."""
        self._ended = epoch, logs

    def _put_back_random(self) -> None:
        if self._restored is None or "seed" in self._changes.applied:
            return
        if RANDOM in self._restored.beside:
            self._random.set_state(self._restored.beside[RANDOM])

    def _put_back(self) -> None:
        assert self._restored is not None
        progress = self._restored.progress
        if CALLBACKS in self._restored.beside:
            self._states.set_state(
                self._states.fitting(self._restored.beside[CALLBACKS]),
                progress.epochs_completed,
                progress.batches_completed,
            )
        self._put_back_random()

    # Events of the loop.

    @property
    def stopped(self) -> bool:
        """Whether a callback has stopped training."""
        return bool(self._callbacks and self._model.stop_training)

    def train_begins(self, epochs: int | None) -> None:
        """Note that the loop starts; restore what callbacks have reset."""
        if not self._callbacks:
            # Ignore random numbers drawn between an earlier `restore` and the loop.
            self._put_back_random()
            self._restored = None
            return
        self._model.stop_training = False
        self._called = keras.callbacks.CallbackList(
            self._callbacks, model=self._model, epochs=epochs, steps=None, verbose=0
        )
        self._called.callbacks = self._states.stops.around(self._called.callbacks, self._model)
        self._called.on_train_begin()
        self._states.begin()
        if self._restored is not None:
            self._put_back()
            stopped = self._states.still_stopped(self._restored.beside.get(LOOP, {}))
            if stopped:
                self._model.stop_training = True
                warn(
                    f"{' and '.join(stopped)} had stopped the run after "
                    f"{self._restored.progress.epochs_completed} epochs, so nothing is left to "
                    "train. To train more, remove it from `CheckpointManager(callbacks=...)`. To "
                    "start the run over, pass `resume='never'`.",
                    UserWarning,
                    stacklevel=5,
                )
        ended, self._ended = self._ended, None
        if ended is not None:
            self._called.on_epoch_end(ended[0], dict(ended[1]))

    def epoch_begins(self, epoch: int, tracked: Sequence[Adapter]) -> None:
        """Note that an epoch starts, or resumes in its middle.

        Args:
            epoch: Zero-based.
            tracked: The tracked objects, which callbacks may change now.
        """
        restored, self._restored = self._restored, None
        if self._called is None:
            return
        if restored is None or not restored.progress.batches_completed:
            self._called.on_epoch_begin(epoch)
            return
        # Callbacks see this epoch start a second time, but had already handled its start.
        undo = [adapter.remember() for adapter in tracked]
        self._called.on_epoch_begin(epoch)
        for step in undo:
            step()
        self._restored = restored
        self._put_back()
        self._restored = None

    def batch_begins(self, batch: int) -> None:
        """Note that a batch starts."""
        before, self._has_begun_before = self._has_begun_before, False
        self._batch_has_begun = True
        self._watch_resets()
        if self._called is not None and not before:
            self._called.on_train_batch_begin(batch)

    def batch_ends(self, batch: int, logs: Mapping[str, float]) -> None:
        """Note that a batch has ended."""
        self._batch_has_begun = False
        self._tell_of_unbuilt()
        if self._called is not None:
            self._called.on_train_batch_end(batch, dict(logs))

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Note that an epoch has ended."""
        if self._called is not None:
            self._called.on_epoch_end(epoch, dict(logs))

    def train_ends(self, logs: Mapping[str, float]) -> None:
        """Note that the loop has ended."""
        called, self._called, self._restored = self._called, None, None
        self._batch_has_begun = False
        if called is not None:
            called.on_train_end(dict(logs))

    # Data.

    def place(self, dataset: Any, epoch: int, done: int) -> tuple[Any, int]:
        """Return the data of an epoch without the completed batches, and the number of these.

        Args:
            dataset: The data that the loop iterates over.
            epoch: Zero-based.
            done: Number of its completed batches.
        """
        if is_positioned(dataset):
            done = self._compare(dataset, done)
            dataset.start(epoch, done)
            return dataset, done
        pipeline = isinstance(dataset, tf_kinds("data.Dataset"))
        replay = replay_of_pipeline(dataset) if pipeline else Replay()
        if done and not replay.exact:
            warn(
                f"The first {done} batches of epoch {epoch_number(epoch)} are skipped, but may "
                f"differ from those trained on, because {replay.reason}. {replay.remedy}.",
                UserWarning,
                stacklevel=4,
            )
        self._make_earlier_iterators(dataset, replay)
        return after(dataset, done), done

    def _compare(self, dataset: Any, done: int) -> int:
        """Compare the data with those of the save; return the number of completed batches."""
        expected, self._expected = self._expected, {}
        self._facts = {"batch size": getattr(dataset, "batch_size", None), **facts_of(dataset)}
        other = [
            f"{name}: expected {expected[name]}, found {value}"
            for name, value in self._facts.items()
            if name in expected and expected[name] != value
        ]
        if not other:
            return done
        what = f"The data differ from those of the resumed run: {'; '.join(other)}."
        if not done:
            if not self._changes.may("data"):
                warn(f"{what} Training continues.", UserWarning, stacklevel=5)
            return done
        if self._changes.may("data"):
            warn(f"{what} The epoch starts over from its first batch.", UserWarning, stacklevel=5)
            return 0
        raise ResumeError(
            what,
            received=f"dataset={dataset!r}",
            remedy="Create them as when the run was saved. To start the epoch over from its first "
            "batch, with the saved weights, pass `changed='data'`: completed batches are trained "
            "on a second time. To start a new run, pass `resume='never'`, or use another "
            "directory.",
            path="",
        )

    def _make_earlier_iterators(self, dataset: Any, replay: Replay) -> None:
        # The order of a seeded `shuffle` depends on the number of iterators of it made before.
        owed, self._owed = self._owed, 0
        if not replay.counts_iterators:
            return
        made = _made.get(dataset, 0)
        for _ in range(owed - made):
            earlier = iter(dataset)
            if replay.has_to_be_read:
                next(earlier, None)
        _made[dataset] = max(owed, made) + 1
        self._data = weakref.ref(dataset)
