"""What the record of a run says, for tests to write and to draw."""

from __future__ import annotations

from typing import Any

from keras_ckpt_tools.metadata import Best, TrainingProgress
from keras_ckpt_tools.runs.save_history import Place, follow

STEPS = 10


def progress_after(epochs: int, **more: Any) -> TrainingProgress:
    """Return where a run is after so many epochs of ten steps, best in its fourth or last."""
    values = [1.0 / (n + 1) + (0.05 * (n - 3) if n > 3 else 0.0) for n in range(epochs)]
    saves: tuple[tuple[int, ...], ...] = ()
    for epoch in range(1, epochs + 1):
        saves = follow(saves, Place(epoch, 0, STEPS * epoch))
    best = min(range(epochs), key=values.__getitem__, default=None)
    history = {
        "loss": tuple(0.9 * value for value in values),
        "val_loss": tuple(values),
        "accuracy": tuple(1 - value / 2 for value in values),
    }
    facts: dict[str, Any] = {
        "epochs_completed": epochs,
        "step": STEPS * epochs,
        "logs": {name: series[-1] for name, series in history.items() if series},
        "history": history,
        "history_epochs": dict.fromkeys(history, tuple(range(epochs))),
        "best": None if best is None else Best("val_loss", "min", values[best], best),
        "run_id": "r",
        "started_at": 1_700_000_000.0,
        "saved_at": 1_700_000_000.0 + 60 * epochs,
        "elapsed_s": 59.0 * epochs,
        "saves": saves,
    }
    return TrainingProgress(**{**facts, **more})
