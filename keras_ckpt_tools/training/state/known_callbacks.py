"""List the state of known callbacks, by class, and save the files of `CSVLogger`.

Keras' callbacks keep everything in attributes, of which training changes some. These are listed
here with their types, for all supported versions of Keras; a test trains with each callback and
compares. The other attributes are not state, for one of these reasons, which are given with their
names: they are computed again, belong to the process, or are stored in a file. Subclasses may add
state of their own.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.training.model_checkpoint import ModelCheckpoint

Check = Callable[[Any, Any], bool]


def _number(value: Any, callback: Any) -> bool:
    if value is None or type(value) in (int, float):
        return True
    # A tensor in the logs is an array in the file.
    kinds = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufV"
    return bool(kinds and value.size == 1)


def _count(value: Any, callback: Any) -> bool:
    if value is None:
        return True
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return bool(whole and 0 <= value < 2**63)


def _flag(value: Any, callback: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _weights(value: Any, callback: Any) -> bool:
    """Weights as `model.get_weights()` returns them, for the present model."""
    if value is None:
        return True
    model = getattr(callback, "model", None)
    if not isinstance(value, list) or model is None:
        return False
    shapes = [tuple(weight.shape) for weight in model.weights]
    numeric = all(isinstance(w, np.ndarray) and w.dtype.kind in "biufcV" for w in value)
    return numeric and [weight.shape for weight in value] == shapes


def _own_state(value: Any, callback: Any) -> bool:
    """State that the object in that attribute checks itself."""
    return isinstance(value, dict)


# The attributes that training changes, by class.
_SCHEMAS: tuple[tuple[type, Mapping[str, Check]], ...] = (
    (
        keras.callbacks.EarlyStopping,
        {
            "wait": _count,
            "stopped_epoch": _count,
            "best_epoch": _count,
            "best": _number,
            "best_weights": _weights,
        },
    ),
    (
        keras.callbacks.ReduceLROnPlateau,
        {"wait": _count, "cooldown_counter": _count, "best": _number},
    ),
    (
        keras.callbacks.ModelCheckpoint,
        {
            "best": _number,
            "_current_epoch": _count,
            "_last_batch_seen": _count,
            "_batches_seen_since_last_saving": _count,
        },
    ),
    (keras.callbacks.SwapEMAWeights, {"_ema_weights_in_model": _flag}),
    (
        keras.callbacks.TensorBoard,
        {
            "_global_train_batch": _count,
            "_global_test_batch": _count,
            "_should_write_train_graph": _flag,
        },
    ),
    (keras.callbacks.CSVLogger, {}),
    (keras.callbacks.LearningRateScheduler, {}),
    (keras.callbacks.RemoteMonitor, {}),
    (keras.callbacks.TerminateOnNaN, {}),
    (keras.callbacks.ProgbarLogger, {}),
    (keras.callbacks.LambdaCallback, {}),
    (ModelCheckpoint, {"_cadence": _own_state}),
)
_OF_ORBAX: Mapping[str, Check] = {
    "best": _number,
    "_last_batch_seen": _count,
    "_total_batches_seen": _count,
    "_batches_seen_since_last_saving": _count,
    "_current_epoch": _count,
}

_OF_MONITORS = (
    # `monitor_op` is a function, chosen at the end of the first epoch if it is `None`. The choice
    # changes the sign of `min_delta`, which must not be changed a second time.
    "monitor_op",
    "min_delta",
)

_NO_STATE: tuple[tuple[type, tuple[str, ...]], ...] = (
    # Set by Keras before training starts, for any call.
    (keras.callbacks.Callback, ("_model", "model", "params")),
    (keras.callbacks.EarlyStopping, _OF_MONITORS),
    (keras.callbacks.ReduceLROnPlateau, _OF_MONITORS),
    (keras.callbacks.ModelCheckpoint, _OF_MONITORS),
    # The file, which `CsvFile` saves.
    (keras.callbacks.CSVLogger, ("csv_file", "writer", "keys", "append_header")),
    (
        keras.callbacks.TensorBoard,
        (
            # Files and contexts of the process.
            *("_writers", "_prev_summary_state", "_summary_module", "_log_write_dir"),
            # Whether the profiler of the process runs; `True` would end one that never started.
            *("_is_tracing", "_profiler_started", "_batch_trace_context"),
            # The time, and the step at that time.
            *("_epoch_start_time", "_batch_start_time", "_train_accumulated_time"),
            "_previous_epoch_iterations",
        ),
    ),
    (
        ModelCheckpoint,
        # Restored from its files and from the run; only the save schedule is restored here.
        (
            *(
                "best",
                "_best_epoch",
                "_candidate",
                "_current_epoch",
                "_exceptions",
                "_files",
                "_first_epoch",
            ),
            *("_last", "_missed", "_outcomes", "_recalled", "_signals", "_warned", "_writer"),
            *("_announcer", "_untracked"),
        ),
    ),
)
_NO_STATE_OF_ORBAX = (*_OF_MONITORS, "checkpointer", "_async_futures")

# Exact classes, because custom subclasses may have state.
_WITHOUT_STATE = (
    keras.callbacks.Callback,
    keras.callbacks.LambdaCallback,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TerminateOnNaN,
)


def has_state(callback: Any) -> bool:
    """Return whether a callback may have state to carry.

    `History` is filled from the progress of the run, and a `BackupAndRestore` restores the others.
    """
    kept_elsewhere = (keras.callbacks.History, keras.callbacks.BackupAndRestore)
    return type(callback) not in _WITHOUT_STATE and not isinstance(callback, kept_elsewhere)


def no_state_in(callback: Any) -> frozenset[str]:
    """Return the attributes of a callback that are not state, even if training changes them."""
    names = {name for kind, names in _NO_STATE if isinstance(callback, kind) for name in names}
    if _is_orbax(callback):
        names.update(_NO_STATE_OF_ORBAX)
    return frozenset(names)


def schema_of(callback: Any) -> tuple[Mapping[str, Check], bool]:
    """Return the attributes of a callback that training changes, and whether it may have others.

    Returns:
        For each attribute a function that checks a value for it; and `False` for an object whose
        class is exactly one of Keras or of this package. Subclasses and unknown classes may have
        further state.
    """
    known = [(kind, schema) for kind, schema in _SCHEMAS if isinstance(callback, kind)]
    found: dict[str, Check] = {}
    for _, schema in known:
        found |= schema
    if _is_orbax(callback):
        found |= _OF_ORBAX
    exact = type(callback) in {kind for kind, _ in known} or type(callback) is _orbax()
    return found, not exact


def _orbax() -> Any:
    return getattr(keras.callbacks, "OrbaxCheckpoint", None)  # Keras 3.10 does not have it.


def _is_orbax(callback: Any) -> bool:
    return _orbax() is not None and isinstance(callback, _orbax())


def is_lost_unless_carried(callback: Any) -> bool:
    """Return whether the result of training depends on state that a Keras callback loses."""
    if isinstance(callback, keras.callbacks.SwapEMAWeights):
        # It must know whether the saved weights are the averages. After the backup callback they
        # are not, but swapping them twice rounds, which would not be repeated.
        return bool(callback.swap_on_epoch)
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        # The callback of this package stores its best value in its files.
        return bool(callback.save_best_only and not isinstance(callback, ModelCheckpoint))
    stateful = (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau)
    return isinstance(callback, stateful)


def flush(callback: Any) -> None:
    """Flush the output of a callback to disk, because a checkpoint depends on it."""
    if isinstance(callback, keras.callbacks.TensorBoard):
        # They buffer events for two minutes; those before the save are not written again.
        for writer in getattr(callback, "_writers", {}).values():
            writer.flush()


class CsvFile:
    """The file of a `CSVLogger` at the time of the save.

    Its contents are part of the state. With `append=False` the file is emptied when training
    starts, before it can be read. With `append=True` it contains the rows of lost epochs, which
    will be written a second time.
    """

    def __init__(self, logger: Any):
        self._logger = logger

    def get_state(self) -> dict[str, Any]:
        """Return the contents, and the columns."""
        logger = self._logger
        return {
            "content": self._read(),
            # From the first row on, so that `validation_freq` does not change the columns.
            "keys": logger.keys,
            "writing": logger.writer is not None,
        }

    def set_state(self, state: Any, epoch: int) -> str | None:
        """Write the saved contents to the file, so that new rows follow.

        This is always the file of the present logger; its path is not restored.

        Args:
            state: The result of `get_state`.
            epoch: The zero-based epoch that is next. If the file was edited in the meantime, only
                the rows at its end that will be written again are removed.

        Returns:
            Why the state was not used, if it was not; then file and logger are unchanged.
        """
        logger = self._logger
        if not _is_file_state(state):
            return "the contents or columns are not those of a CSVLogger"
        if logger.csv_file is not None:
            logger.csv_file.close()
        here, saved = self._read() or b"", state["content"] or b""
        if here.startswith(saved) or saved.startswith(here):
            self._write(here, saved)
        else:
            self._write(here, _before(epoch, here, logger.sep))
        self._open(state["keys"] if state["writing"] else None)
        logger.keys = state["keys"]
        return None

    def remember(self) -> Callable[[], None]:
        """Return a function that restores the present state of file and logger."""
        logger, content = self._logger, self._read()
        names = ("csv_file", "writer", "keys", "append_header")
        before = {name: getattr(logger, name, None) for name in names}

        def undo() -> None:
            if logger.csv_file is not None:
                logger.csv_file.close()
            self._write(self._read() or b"", content or b"")
            writing = before["writer"] is not None
            self._open(before["keys"] if writing else None)
            logger.keys, logger.append_header = before["keys"], before["append_header"]

        return undo

    def _open(self, columns: list[str] | None) -> None:
        logger = self._logger
        append, header = logger.append, logger.append_header
        logger.append = True
        try:
            # Keras' function to open files, which supports remote paths.
            keras.callbacks.CSVLogger.on_train_begin(logger)
        finally:
            logger.append = append
        if columns is not None:
            # As Keras creates it, but without a header, which is in the file already.
            # `append_header` would be wrong for a later `fit()` with this logger.
            logger.append_header = header
            logger.writer = csv.DictWriter(
                logger.csv_file, ["epoch", *columns], delimiter=logger.sep
            )
        elif not append:
            logger.append_header = header

    def _read(self) -> bytes | None:
        file = self._logger.csv_file
        if file is not None and not getattr(file, "closed", False):
            file.flush()
        from tensorflow.io import gfile

        if not gfile.exists(self._logger.filename):
            return None
        with gfile.GFile(self._logger.filename, "rb") as reading:
            content: bytes = reading.read()
        return content

    def _write(self, here: bytes, content: bytes) -> None:
        if here == content:
            return
        if here.startswith(content) and os.path.exists(self._logger.filename):
            # At once, so that a kill does not lose it.
            os.truncate(self._logger.filename, len(content))
            return
        from tensorflow.io import gfile

        with gfile.GFile(self._logger.filename, "wb") as writing:
            writing.write(content)


def _is_file_state(state: Any) -> bool:
    if not isinstance(state, dict):
        return False
    content, keys, writing = (state.get(name, ...) for name in ("content", "keys", "writing"))
    columns = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return (
        (content is None or isinstance(content, bytes))
        and (keys is None or columns)
        and isinstance(writing, bool)
        and (columns or not writing)
    )


def _before(epoch: int, content: bytes, separator: str) -> bytes:
    r"""Return the rows of a CSV file without those at its end that are of `epoch` or later.

    >>> _before(2, b"epoch,loss\n1,0.5\n2,0.4\n3,0.", ",")
    b'epoch,loss\n1,0.5\n'
    """
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith((b"\n", b"\r")):
        lines.pop()  # The process was killed while writing this row.
    while lines:
        first = lines[-1].split(separator.encode(), 1)[0].strip()
        if not first.isdigit() or int(first) < epoch:
            break
        lines.pop()
    return b"".join(lines)
