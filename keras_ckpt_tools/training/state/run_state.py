"""Store the extra run state in a checkpoint, and read it.

The extra run state (random generators, callbacks, metrics in the middle of an epoch) belongs to no
tracked object. It is in the same file under names that start with an underscore, which tracked
objects cannot have. A program that does not use it can still restore the checkpoint, so a run that
was started with `fit()` can resume in a manager.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.tensor_source import SourceView, TensorSource
from keras_ckpt_tools.metadata import Record, TrackedObject, TrainingProgress
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.state.adapters import StateAdapter
from keras_ckpt_tools.training.state.trees import give_arrays

RANDOM = "_random"
CALLBACKS = "_callbacks"
METRICS = "_metrics"
FIT = "_fit"
CADENCE = "_cadence"
LOOP = "_loop"


def is_beside(name: str) -> bool:
    """Return whether a name in a record is one of extra run state.

    >>> is_beside("_random"), is_beside("model")
    (True, False)
    """
    return name.startswith("_")


class Given(StateAdapter):
    """A state that is given as a value. It is restored by the code that reads it."""

    kind = "run"

    def __init__(self, name: str, tree: Any):
        super().__init__(name, None, lambda: tree, lambda state: None)

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        return TrackedObject(self.kind, state=self._rest)


def read_beside(source: TensorSource, record: Record) -> dict[str, Any]:
    """Return the extra run state, by name.

    A record may have been edited, so values with another type or range than this package writes are
    ignored, and named in one warning.

    Raises:
        DamagedArtefactError: the file is damaged.
    """
    found, left = {}, []
    for name, described in record.tracked.items():
        if not is_beside(name):
            continue
        view = SourceView(source, {f"{name}/": ""})
        arrays = view.read_all(view.tensors)
        try:
            state = give_arrays(described.state, arrays)
        except (ValueError, TypeError, KeyError, LookupError, AttributeError, OverflowError):
            left.append(name)
            continue
        wrong = _wrong_in(name, state, record.progress)
        left += wrong
        if name not in wrong:
            found[name] = state
    if left:
        warn(
            f"The checkpoint contains values that this package does not write, in "
            f"{', '.join(left)}. They are ignored.",
            UserWarning,
            stacklevel=2,
        )
    return found


def _wrong_in(name: str, state: Any, progress: TrainingProgress) -> list[str]:
    """Remove invalid values from a state, and return their names."""
    if name == METRICS:
        return [] if _is_list_of_arrays(state) else [name]
    if name not in (RANDOM, CALLBACKS, FIT, CADENCE, LOOP):
        return []
    if not isinstance(state, dict):
        return [name]
    if name == CALLBACKS:
        wrong = [key for key, value in state.items() if not isinstance(value, dict)]
    else:
        checks = _CHECKS.get(name, {})
        wrong = [k for k, check in checks.items() if k in state and not check(state[k], progress)]
    for key in wrong:
        del state[key]
    return [f"{name}.{key}" for key in wrong]


def _is_count(value: Any, most: int = 2**63 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_flag(value: Any, progress: TrainingProgress) -> bool:
    return isinstance(value, bool)


def _are_names(value: Any, progress: TrainingProgress) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_facts(value: Any, progress: TrainingProgress) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and (number is None or isinstance(number, int))
        for name, number in value.items()
    )


def _are_values(value: Any, progress: TrainingProgress) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and (one is None or isinstance(one, (str, int, float)))
        for name, one in value.items()
    )


def _is_list_of_arrays(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, np.ndarray) and one.dtype.kind in "biufcV" for one in value
    )


def _are_arrays(value: Any, progress: TrainingProgress) -> bool:
    return isinstance(value, dict) and all(
        isinstance(metrics, list) and all(map(_is_list_of_arrays, metrics))
        for metrics in value.values()
    )


def _is_phase(value: Any, progress: TrainingProgress) -> bool:
    # Its name and numbers are checked when they are read; see `phases`.
    earlier = value.get("earlier", {}) if isinstance(value, dict) else None
    return isinstance(earlier, dict) and all(map(_is_ended_phase, earlier.values()))


def _is_ended_phase(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_count(value.get("epochs_completed", 0)):
        return False
    history, epochs = value.get("history", {}), value.get("history_epochs", {})
    return (
        isinstance(history, dict)
        and isinstance(epochs, dict)
        and all(
            isinstance(found, list)
            and len(found) == len(epochs.get(name, ()))
            and all(map(_is_count, epochs[name]))
            for name, found in history.items()
        )
    )


def _is_count_or_none(value: Any, progress: TrainingProgress) -> bool:
    return value is None or _is_count(value)


# Values that a restart uses before any other check. A loop makes one or a few iterators of its data
# in each epoch; a restart makes them again, so a large number takes time.
_CHECKS: dict[str, dict[str, Callable[[Any, TrainingProgress], bool]]] = {
    FIT: {
        "data": _are_values,
        "first epoch": lambda value, progress: _is_count(value, progress.epochs_completed),
        "replayable": _is_flag,
        "over": _is_flag,
        "program": _are_values,
        "phase": _is_phase,
        "epochs": _is_count_or_none,
        "stopped": _is_flag,
        "stopped by": _are_names,
    },
    CADENCE: {"last_batch": _is_count_or_none, "batches": lambda value, _: _is_count(value)},
    LOOP: {
        "iterators": lambda value, progress: _is_count(
            value, min(100 * (progress.epochs_completed + 1), 10**6)
        ),
        "stopped": _is_flag,
        "stopped by": _are_names,
        "data": _are_facts,
        "over": _is_flag,
        "begun": _is_flag,
        "program": _are_values,
        "phase": _is_phase,
        "metrics": _are_arrays,
    },
}
