"""Save and restore the extra state of a `fit()`: callbacks, metrics, random generators, data.

When `fit()` starts, it undoes a resume: callbacks reset themselves in `on_train_begin`, `History`
is emptied, metrics are reset at the start of each epoch, and in the middle of an epoch every
`on_epoch_begin` is called a second time. So the state is restored in two steps, by a callback that
is called before all others: when the first epoch starts, and, in the middle of an epoch, again
before its first batch.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.live import state
from keras_ckpt_tools.metadata import epoch_number
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.changes import Changes
from keras_ckpt_tools.training.checkpoints import Restored
from keras_ckpt_tools.training.state.callbacks import CallbackStates, restore_history
from keras_ckpt_tools.training.state.fit_data import TOGETHER, FitData
from keras_ckpt_tools.training.state.known_callbacks import is_lost_unless_carried
from keras_ckpt_tools.training.state.random_generators import RandomStates
from keras_ckpt_tools.training.state.replay import Replay
from keras_ckpt_tools.training.state.run_state import CALLBACKS, FIT, LOOP, METRICS, RANDOM

_LOGS = "_get_metrics_result_or_logs"


class FitState:
    """The extra state of one `fit()` that a restart restores.

    Args:
        callbacks: The callbacks whose state is carried.
        changes: Intended changes of the program since the save.
    """

    def __init__(
        self, callbacks: Iterable[keras.callbacks.Callback], changes: Changes | None = None
    ):
        self._given = list(callbacks)
        self._changes = changes or Changes()
        self._callbacks = CallbackStates(self._given)
        self._random = RandomStates()
        self._model: Any = None
        self._told_of_lost = False
        self._begin_anew()

    def __deepcopy__(self, memo: dict[int, Any]) -> FitState:
        # Tuners copy callbacks; the data belong to one `fit()`.
        return FitState(copy.deepcopy(self._given, memo), copy.deepcopy(self._changes, memo))

    def __getstate__(self) -> dict[str, Any]:
        # An exception may have ended a `fit()`; its state belongs to this process.
        gone = ("_model", "_data", "_restored", "_undo_epoch_begin")
        return {**vars(self), **dict.fromkeys(gone)}

    def _begin_anew(self) -> None:
        if self._model is not None and _LOGS in vars(self._model):
            delattr(self._model, _LOGS)
        self._model = None
        self._data: FitData | None = None
        self._first_epoch: int | None = None
        self._begun = False
        self._restored: Restored | None = None
        self._undo_epoch_begin: Callable[[], None] | None = None
        self._anew = ""
        self._other_data = False

    def train_begins(self, model: Any) -> None:
        """Find the data of the running `fit()`."""
        self._begin_anew()
        self._model = model
        self._data = FitData.of(model)

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, if known."""
        return self._data.known_steps if self._data else None

    # Save.

    def take(self, model: Any, *, in_epoch: bool, over: bool = False) -> dict[str, Any]:
        """Return the present extra state.

        Args:
            model: The trained model.
            in_epoch: Whether an epoch is in progress.
            over: Whether all batches of that epoch are done.
        """
        states = self._callbacks.get_state()
        stopped_by = self._stopped_by(states) if not in_epoch and model.stop_training else []
        taken: dict[str, Any] = {
            RANDOM: self._random.get_state(),
            FIT: {
                "program": dict(self._changes.begun),
                "data": self._data.facts() if self._data else {},
                "first epoch": self._first_epoch or 0,
                "replayable": self._data is not None and self._data.replay.exact,
                "over": over,
                # Only callbacks that stop again after a restart; others may have stopped before.
                "stopped": bool(stopped_by),
                "stopped by": stopped_by,
            },
        }
        if self._callbacks.names:
            taken[CALLBACKS] = states
        # At the end of an epoch they are used only if no epoch follows.
        taken[METRICS] = _metrics_of(model)
        return taken

    def _stopped_by(self, states: Mapping[str, Any]) -> list[str]:
        return self._callbacks.final_stops(self._callbacks.stops.names, states)

    def watched(self, callbacks: Iterable[Any]) -> list[Any]:
        """Return the callbacks of a `fit()`, with checks for the carried ones that stop it."""
        return self._callbacks.stops.around(list(callbacks), self._model)

    def tell_of_lost(self, others: Iterable[Any]) -> None:
        """Warn about Keras' own callbacks that start over after a restart.

        Args:
            others: The callbacks of the `fit()` that are not carried.
        """
        lost = [type(c).__name__ for c in others if is_lost_unless_carried(c)]
        if lost and not self._told_of_lost:
            self._told_of_lost = True
            warn(
                f"After a restart, {', '.join(lost)} would start over, and the result of training "
                "would differ: Keras does not save the state of callbacks. Pass these callbacks of "
                f"`fit()` to `BackupAndRestore(..., callbacks=[...])` as well: {', '.join(lost)}.",
                UserWarning,
                stacklevel=4,
            )

    # Resume.

    def differences(self, restored: Restored) -> list[str]:
        """Return why the saved run is not resumed by this `fit()`, as sentences."""
        changes = self._changes
        changes.look_again()
        self._anew = ""
        self._other_data = False
        if self._data is not None:
            self._data.build(self._model)
        begun: Mapping[str, Any] = {}
        for name in (FIT, LOOP):
            begun = begun or restored.beside.get(name, {}).get("program", {})
        changes.compare(begun)
        self._compare_data(restored)
        if self._would_go_on_in_epoch(restored):
            self._compare_metrics(restored)
        state_of = restored.beside.get(CALLBACKS, {})
        if not changes.may("callbacks"):
            changes.said += self._callbacks.differences(state_of)
        return changes.refused

    def _compare_data(self, restored: Restored) -> None:
        there = restored.beside.get(FIT, {}).get("data", {})
        here = self._data.facts() if self._data else {}
        batch = restored.progress.batches_completed
        if self._data is not None and self._data.can_begin_at(batch):
            here.pop(TOGETHER, None)  # The epoch starts at the same batch with any number.
        other = [
            f"{name}: expected {_shown(there[name])}, found {_shown(here[name])}"
            for name in there
            if name in here and there[name] != here[name]
        ]
        if not other:
            return
        self._other_data = True
        changes, found = self._changes, "; ".join(other)
        if not batch or _is_over(restored):
            if not changes.may("data"):
                changes.said.append(f"other data from this epoch on: {found}")
        elif not self._would_go_on_in_epoch(restored) or changes.may("data"):
            self._anew = f"its data differ from those that it started with ({found})"
        else:
            changes.refused += [
                *other,
                "The epoch was interrupted in the middle, and cannot be continued with other data. "
                "Pass `changed='data'` to start it over from its first batch, with the saved "
                "weights: batches that are done are trained on a second time.",
            ]

    def _compare_metrics(self, restored: Restored) -> None:
        metrics = [tuple(np.shape(value)) for value in restored.beside[METRICS]]
        present = [tuple(variable.shape) for variable in _metrics_of(self._model)]
        if metrics != present and self._metrics_are_built() and not self._changes.may("metrics"):
            self._changes.refused.append(
                f"metrics: expected {len(metrics)} variables of shapes {metrics}, found "
                f"{len(present)} of shapes {present}. Pass `changed='metrics'` to resume in the "
                "middle of the epoch all the same: its logs then cover its remaining batches."
            )

    def _metrics_are_built(self) -> bool:
        return all(getattr(metric, "built", True) for metric in self._model.metrics)

    def resume(self, restored: Restored) -> tuple[bool, list[str]]:
        """Resume from a restored checkpoint when the first epoch starts.

        Returns:
            Whether the current epoch resumes in its middle, and which of the carried callbacks had
            stopped the run: then nothing is left to train.
        """
        self._restored = restored
        fit = restored.beside.get(FIT, {})
        self._first_epoch = fit.get("first epoch", 0)
        self._changes.resume()
        self._changes.warn()
        return self._can_go_on_in_epoch(restored), self._callbacks.still_stopped(fit)

    def _would_go_on_in_epoch(self, restored: Restored) -> bool:
        """Return whether an epoch resumes in its middle if the program is the same."""
        return bool(restored.progress.batches_completed) and self._replay(restored).exact

    def _replay(self, restored: Restored) -> Replay:
        replay = self._data.replay if self._data else Replay("its data are unknown")
        if METRICS not in restored.beside:
            return Replay("a loop saved it, and its metrics differ from those of `fit()`")
        if replay.exact and not restored.beside.get(FIT, {}).get("replayable", True):
            return Replay("its data could not be replayed when it was saved")
        return replay

    def _can_go_on_in_epoch(self, restored: Restored) -> bool:
        progress = restored.progress
        if not progress.batches_completed:
            return False
        if _is_over(restored):
            return True  # No batch of it is left, so nothing is replayed.
        replay = Replay(self._anew) if self._anew else self._replay(restored)
        if (
            replay.exact
            and "metrics" not in self._changes.applied
            and len(restored.beside[METRICS]) != len(_metrics_of(self._model))
        ):
            replay = Replay("its metrics have no variables yet to restore")
        if replay.exact:
            return True
        remedy = f" {replay.remedy}." if replay.remedy else ""
        warn(
            f"Epoch {epoch_number(progress.epochs_completed)} was interrupted after "
            f"{progress.batches_completed} batches and starts over from its first batch, because "
            f"{replay.reason}.{remedy}",
            UserWarning,
            stacklevel=4,
        )
        return False

    def epoch_begins(self, epoch: int, batch: int) -> None:
        """Note that an epoch starts, before any other callback is called.

        Args:
            epoch: Zero-based.
            batch: Zero-based; the batch at which it starts.
        """
        if self._first_epoch is None:
            self._first_epoch = epoch
        if self._begun:
            if self._data is not None:
                self._data.epoch_begins(epoch)
            return
        self._begun = True
        self._callbacks.begin()
        if self._data is not None:
            over = bool(batch) and self._restored is not None and _is_over(self._restored)
            self._data.place(
                epoch, batch, self._first_epoch, over=over, other=over and self._other_data
            )
        if self._restored is None:
            return
        if batch:
            self._undo_epoch_begin = state.remember(self._model)
            if "metrics" not in self._changes.applied:
                self._put_back_metrics()
            self._give_logs_where_no_batch_is_left()
        self._put_back(epoch, batch)

    def before_batches(self) -> None:
        """Restore what every `on_epoch_begin` has changed in an epoch in progress."""
        if self._undo_epoch_begin is None or self._restored is None:
            return
        self._undo_epoch_begin()
        self._undo_epoch_begin = None
        progress = self._restored.progress
        self._put_back(progress.epochs_completed, progress.batches_completed)

    def train_ends(self) -> None:
        """Restore the rest, if there was no epoch left to train."""
        if self._restored is not None and not self._begun:
            self._callbacks.begin()
            self._put_back(self._restored.progress.epochs_completed, 0)
            shapes = [np.shape(value) for value in self._restored.beside.get(METRICS, ())]
            if shapes == [tuple(one.shape) for one in _metrics_of(self._model)]:
                self._put_back_metrics()

    def forget(self) -> None:
        """Release the model and its data, after the last save."""
        self._begin_anew()

    def _put_back(self, epoch: int, batch: int) -> None:
        assert self._restored is not None
        beside = self._restored.beside
        if CALLBACKS in beside:
            self._callbacks.set_state(self._callbacks.fitting(beside[CALLBACKS]), epoch, batch)
        if RANDOM in beside and "seed" not in self._changes.applied:
            self._random.set_state(beside[RANDOM])
        history = getattr(self._model, "history", None)
        if isinstance(history, keras.callbacks.History):
            restore_history(history, self._restored.progress)

    def _put_back_metrics(self) -> None:
        assert self._restored is not None
        saved, variables = self._restored.beside[METRICS], _metrics_of(self._model)
        if _is_over(self._restored) and len(saved) != len(variables):
            return  # They are not built yet, and their values are in the logs.
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)

    def _give_logs_where_no_batch_is_left(self) -> None:
        """Use the logs of the save for the epoch, if all its batches were done at the save.

        `fit()` takes the logs from its last batch, and there may be none left.
        """
        assert self._restored is not None
        model, saved = self._model, dict(self._restored.progress.logs)

        def logs(given: Any) -> Any:
            delattr(model, _LOGS)
            return getattr(model, _LOGS)(given or saved)

        setattr(model, _LOGS, logs)


def _is_over(restored: Restored) -> bool:
    """Return whether all batches of the epoch under way were done."""
    return METRICS in restored.beside and bool(restored.beside.get(FIT, {}).get("over"))


def _metrics_of(model: Any) -> list[Any]:
    return list(itertools.chain.from_iterable(m.variables for m in getattr(model, "metrics", ())))


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:,}" if type(value) is int else str(value)


class FirstOfAll(keras.callbacks.Callback):
    """A callback that is called before all others, and calls functions.

    Args:
        epoch_begins: Called with the epoch.
        before_batches: Called before the first batch, the evaluation, and the end of an epoch.
        batches_over: Called before the evaluation and the end of an epoch.
        train_ends: Called when training ends.
    """

    def __init__(
        self,
        epoch_begins: Callable[[int], None],
        before_batches: Callable[[], None],
        batches_over: Callable[[], None],
        train_ends: Callable[[], None],
    ):
        super().__init__()
        self._epoch_begins = epoch_begins
        self._before_batches = before_batches
        self._batches_over = batches_over
        self._train_ends = train_ends

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch_begins(epoch)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._before_batches()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._before_batches()
        self._batches_over()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._before_batches()
        self._batches_over()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._train_ends()
