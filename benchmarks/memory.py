"""How much memory a save takes above the model's: the high-water mark of a process of its own."""

from __future__ import annotations

import gc
from pathlib import Path

from benchmarks import ours, peers
from benchmarks.cases import Case
from benchmarks.peers import Saver

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

NAMES = (
    "**ours** `ModelCheckpoint` (.keras)",
    "**ours** `ModelCheckpoint` (.weights.h5)",
    "Keras `model.save` (.keras)",
    "Keras `save_weights`",
    "`tf.train.CheckpointManager`",
    "safetensors",
)


def measure_peak(case: Case, folder: Path, name: str) -> float | None:
    """Return the bytes that the first save of a model takes at its peak.

    A save of a small model comes first, so that libraries are loaded.

    Returns:
        Bytes, or `None` where the peer is not installed.
    """
    small = Case("small", 2, 8)
    (folder / "small").mkdir()
    saver = _saver(small, folder / "small", name)
    if saver is None:
        return None
    saver.save()
    saver = _saver(case, folder, name)
    assert saver is not None
    gc.collect()
    _CLEAR.write_text("5")  # Resets the high-water mark; see proc(5).
    before = _kilobytes("VmRSS")
    saver.save()
    return (_kilobytes("VmHWM") - before) * 1024.0


def _saver(case: Case, folder: Path, name: str) -> Saver | None:
    model = case.build()
    model.train_on_batch(*case.batch())
    savers = [
        ours.model_checkpoint(model, folder),
        ours.model_checkpoint(model, folder, ".weights.h5"),
        *peers.keras_savers(model, folder),
        peers.tensorflow_saver(model, folder, background=False),
        *peers.safetensors_saver(model, folder),
    ]
    return next((saver for saver in savers if saver.name == name), None)


def _kilobytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise LookupError(field)
