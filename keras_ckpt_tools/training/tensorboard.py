"""Write a history of the saves to an event file of TensorBoard.

It shows when a run was saved, the path and size, the duration, and how long training was blocked.
Each callback or manager has its own folder, which is a run in TensorBoard, so their curves are not
mixed.

The event file is written as TensorFlow records, without `tf.summary`, which cannot write the event
that marks a restart: it makes TensorBoard discard later values when a run resumes from an earlier
save. It also needs no default writer and no global step.

If the history cannot be written, training continues without it, with a warning.
"""

from __future__ import annotations

import os
import re
import socket
import time
from typing import Any, Protocol

from keras_ckpt_tools._tensorflow import needed_for
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.storage.local_paths import local_path

tf = needed_for("TensorBoard's event files", "tensorboard=")

FOLDER = "saves"
"""The folder below the log directory."""


class Saved(Protocol):
    """The values of a save that are written."""

    place: str
    progress: TrainingProgress
    committed_at: float
    took_s: float
    blocked_s: float
    nbytes: int


class SaveTrail:
    """Writes saves to an event file of TensorBoard.

    Args:
        log_dir: TensorBoard's log directory.
        name: Path of the saved file or directory; its last part is the name of the run.
    """

    def __init__(self, log_dir: str | os.PathLike[str], name: str | os.PathLike[str]):
        run = re.sub(r"[^\w.=-]+", "_", os.path.basename(os.path.abspath(os.fspath(name))))
        self.folder = os.path.join(local_path(log_dir, "tensorboard"), FOLDER, run)
        self._writer: Any = None
        self._gave_up = False

    def note(self, save: Saved) -> None:
        """Add a save to the history."""
        if self._gave_up:
            return
        try:
            self._write(save)
        except (tf.errors.OpError, OSError) as error:
            self._gave_up = True
            warn(
                f"The history of saves for TensorBoard cannot be written: {error}. Checkpoints are "
                f"not affected. Received: tensorboard with {self.folder!r}.",
                UserWarning,
                stacklevel=2,
            )

    def _write(self, save: Saved) -> None:
        step = save.progress.step
        if self._writer is None:
            self._writer = self._open(save.committed_at, step)
        values = [
            _scalar("save/bytes", save.nbytes),
            _scalar("save/seconds", save.took_s),
            _scalar("save/seconds_blocked", save.blocked_s),
            _text("save/path", save.place),
        ]
        summary = tf.compat.v1.Summary(value=values)
        self._add(self._writer, save.committed_at, step=step, summary=summary)
        self._writer.flush()

    def _open(self, now: float, step: int) -> Any:
        tf.io.gfile.makedirs(self.folder)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        writer = tf.io.TFRecordWriter(os.path.join(self.folder, name))
        self._add(writer, now, file_version="brain.Event:2")
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._add(writer, now, step=step, session_log=start)
        return writer

    @staticmethod
    def _add(writer: Any, now: float, **event: Any) -> None:
        writer.write(tf.compat.v1.Event(wall_time=now, **event).SerializeToString())

    def __getstate__(self) -> dict[str, Any]:
        # Tuners copy callbacks; a copy opens its own file.
        return {**vars(self), "_writer": None}


def _scalar(tag: str, value: float) -> Any:
    return tf.compat.v1.Summary.Value(tag=tag, simple_value=value)


def _text(tag: str, text: str) -> Any:
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="text")
    return tf.compat.v1.Summary.Value(
        tag=tag,
        metadata=tf.compat.v1.SummaryMetadata(plugin_data=plugin),
        tensor=tf.make_tensor_proto(text, shape=()),
    )
