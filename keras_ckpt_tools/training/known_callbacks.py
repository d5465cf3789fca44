"""What is known of certain callbacks: class -> *which attributes are no state*; CSV files.

Most of Keras' callbacks have all they know in attributes, of which training changes some, and that
is enough. Where it is not, the reason stands here, beside the names: what is derived anew when it
is missing, what belongs to the process, and what is kept in a file.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_ckpt_tools.training.model_checkpoint import ModelCheckpoint

_OF_MONITORS = (
    # `monitor_op` is a function, chosen at the end of the first epoch where it is `None`; and
    # choosing it turns the sign of `min_delta`, which would be turned a second time.
    "monitor_op",
    "min_delta",
)

_NO_STATE: tuple[tuple[type, tuple[str, ...]], ...] = (
    # What Keras sets before training begins, of whatever the call was.
    (keras.callbacks.Callback, ("_model", "model", "params")),
    (keras.callbacks.EarlyStopping, _OF_MONITORS),
    (keras.callbacks.ReduceLROnPlateau, _OF_MONITORS),
    (keras.callbacks.ModelCheckpoint, _OF_MONITORS),
    # The file, which is carried by `CsvFile`.
    (keras.callbacks.CSVLogger, ("csv_file", "writer", "keys", "append_header")),
    (
        keras.callbacks.TensorBoard,
        (
            # Files and contexts of the process.
            *("_writers", "_prev_summary_state", "_summary_module", "_log_write_dir"),
            # Whether the profiler of the process runs; "yes" would end one that never began.
            *("_is_tracing", "_profiler_started", "_batch_trace_context"),
            # The clock, and the step that belongs to its time.
            *("_epoch_start_time", "_batch_start_time", "_train_accumulated_time"),
            "_previous_epoch_iterations",
        ),
    ),
    (
        ModelCheckpoint,
        # Recalled from its files and from the run; of it only the cadence goes on from here.
        (
            *("best", "_best_epoch", "_candidate", "_current_epoch", "_exceptions", "_files"),
            *("_last", "_missed", "_outcomes", "_recalled", "_signals", "_warned", "_writer"),
            *("_announcer", "_untracked"),
        ),
    ),
)
_OF_ORBAX = (*_OF_MONITORS, "checkpointer", "_async_futures")

# Subclasses of users may hold something, so these are meant exactly.
_WITHOUT_STATE = (
    keras.callbacks.Callback,
    keras.callbacks.LambdaCallback,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TerminateOnNaN,
)


def has_state(callback: Any) -> bool:
    """Return whether there can be anything to carry.

    `History` is filled from the record of the run, and a `BackupAndRestore` is what restores.
    """
    kept_elsewhere = (keras.callbacks.History, keras.callbacks.BackupAndRestore)
    return type(callback) not in _WITHOUT_STATE and not isinstance(callback, kept_elsewhere)


def no_state_in(callback: Any) -> frozenset[str]:
    """Return the attributes of a callback that are no state, whatever training does to them."""
    names = {name for kind, names in _NO_STATE if isinstance(callback, kind) for name in names}
    orbax = getattr(keras.callbacks, "OrbaxCheckpoint", None)  # Keras 3.10 has none.
    if orbax is not None and isinstance(callback, orbax):
        names.update(_OF_ORBAX)
    return frozenset(names)


def flush(callback: Any) -> None:
    """Write to disk what a callback has said so far, as a checkpoint will count on it."""
    if isinstance(callback, keras.callbacks.TensorBoard):
        # They keep events for two minutes; those before the save are not written a second time.
        for writer in getattr(callback, "_writers", {}).values():
            writer.flush()


class CsvFile:
    """The file of a `CSVLogger`, as it was when the state was saved.

    Its content is part of the state. With `append=False` the file is emptied when training begins,
    before anybody could look into it; and with `append=True` it holds the rows of epochs that were
    lost, and will come a second time.
    """

    def __init__(self, logger: Any):
        self._logger = logger

    def get_state(self) -> dict[str, Any]:
        """Return the content, and what the columns are."""
        logger = self._logger
        return {
            "content": self._read(),
            # From the first row on, so that `validation_freq` does not change the columns.
            "keys": logger.keys,
            "writing": logger.writer is not None,
        }

    def set_state(self, state: Mapping[str, Any], epoch: int) -> None:
        """Give the file the content it had, and go on behind that.

        Args:
            state: What `get_state` returned.
            epoch: The zero-based epoch that comes next, for a file that was edited meanwhile: of
                that, only the rows at the end go that will be written again.
        """
        logger = self._logger
        if logger.csv_file is not None:
            logger.csv_file.close()
        here, saved = self._read() or b"", state["content"] or b""
        if here.startswith(saved) or saved.startswith(here):
            self._write(here, saved)
        else:
            self._write(here, _before(epoch, here, logger.sep))
        self._open(state["keys"] if state["writing"] else None)
        logger.keys = state["keys"]

    def remember(self) -> Callable[[], None]:
        """Return what gives file and logger back their present state."""
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
            # Keras' own way of opening, also for paths that are not of this machine.
            keras.callbacks.CSVLogger.on_train_begin(logger)
        finally:
            logger.append = append
        if columns is not None:
            # As Keras makes it, but for the header, which is in the file already. It is not left
            # to `append_header`: that would be wrong for a later `fit()` with this logger.
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
        if not tf.io.gfile.exists(self._logger.filename):
            return None
        with tf.io.gfile.GFile(self._logger.filename, "rb") as reading:
            content: bytes = reading.read()
        return content

    def _write(self, here: bytes, content: bytes) -> None:
        if here == content:
            return
        if here.startswith(content) and os.path.exists(self._logger.filename):
            # At once, so that a kill leaves no less than this.
            os.truncate(self._logger.filename, len(content))
            return
        with tf.io.gfile.GFile(self._logger.filename, "wb") as writing:
            writing.write(content)


def _before(epoch: int, content: bytes, separator: str) -> bytes:
    r"""Return the rows of a CSV file but for those at its end that are of `epoch` or later.

    >>> _before(2, b"epoch,loss\n1,0.5\n2,0.4\n3,0.", ",")
    b'epoch,loss\n1,0.5\n'
    """
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith((b"\n", b"\r")):
        lines.pop()  # The process was killed while it wrote this one.
    while lines:
        first = lines[-1].split(separator.encode(), 1)[0].strip()
        if not first.isdigit() or int(first) < epoch:
            break
        lines.pop()
    return b"".join(lines)
