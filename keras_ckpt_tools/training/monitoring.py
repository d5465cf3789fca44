"""Tell whether a metric is better when it is higher or lower: logs -> *better or worse*.

A compiled Keras metric knows. Where there is none, in a hand-written loop or for a name that a
model with several outputs made up, the name has to do; and where that does not tell either, the
user is asked instead of guessed at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_ckpt_tools.errors import ArgumentError, MonitorError

_HIGHER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "iou", "dice", "r2")
_LOWER_IS_BETTER = ("error", "mse", "mae", "mape", "msle", "rmse", "perplexity", "brier")


def direction(monitor: str | None, mode: str) -> str:
    """Return `"min"` or `"max"` for a metric of a hand-written loop.

    Args:
        monitor: Its name, or `None`.
        mode: `"min"`, `"max"` or `"auto"`.

    Raises:
        ArgumentError: `mode` is none of these.
        MonitorError: `mode` is `"auto"`, and the name does not tell.

    >>> direction("val_accuracy", "auto"), direction("val_loss", "auto")
    ('max', 'min')
    """
    if mode not in ("auto", "min", "max"):
        raise ArgumentError(
            "`mode` is 'auto', 'min' or 'max'.",
            received=f"mode={mode!r}",
            remedy="Pass 'min' for a loss, 'max' for an accuracy.",
        )
    if mode != "auto":
        return mode
    if monitor is None:
        return "min"
    found = _by_name(monitor)
    if found is None:
        raise undecided(monitor)
    return found


def direction_of(model: Any, monitor: str, mode: str) -> str | None:
    """Return `"min"` or `"max"` for a metric of a model, or `None` where that cannot be told.

    Args:
        model: A compiled model, whose metrics are asked first.
        monitor: Name of the metric in the logs.
        mode: `"min"`, `"max"` or `"auto"`.
    """
    if mode != "auto":
        return mode
    name = monitor.removeprefix("val_")
    known = {
        str(getattr(metric, "name", "")): getattr(metric, "_direction", None)
        for metric in _metrics_of(model)
    }
    # With several outputs, the name of the output stands in front of that of the metric.
    for own in sorted(known, key=len, reverse=True):
        if known[own] is not None and (name == own or name.endswith(f"_{own}")):
            return "max" if known[own] == "up" else "min"
    return _by_name(monitor)


def undecided(monitor: str) -> MonitorError:
    """Return the error for a metric whose direction cannot be told."""
    return MonitorError(
        f"Whether {monitor!r} is better when it is higher or lower cannot be told.",
        received=f"monitor={monitor!r}, mode='auto'",
        remedy="Pass `mode='max'` or `mode='min'`.",
        monitor=monitor,
        available=(),
    )


def _metrics_of(model: Any) -> Iterator[Any]:
    for metric in getattr(model, "metrics", ()):
        # Compiled metrics sit in containers, which are metrics themselves.
        yield from getattr(metric, "metrics", (metric,))


def _by_name(monitor: str) -> str | None:
    """Tell by the name; what stands last in it is the metric, and in front of it the output.

    >>> _by_name("val_mape_accuracy"), _by_name("dice_loss"), _by_name("neg_mean_squared_error")
    ('max', 'min', None)
    """
    name = monitor.lower()
    if name.endswith(("accuracy", "_acc")):
        return "max"
    if "loss" in name:
        return "min"
    higher = max(name.rfind(word) for word in _HIGHER_IS_BETTER)
    lower = max(name.rfind(word) for word in _LOWER_IS_BETTER)
    if "neg_" in name or "negative_" in name:
        return None  # The negative of an error may be meant, and may not.
    if higher == lower:
        return "max" if "score" in name else None  # It has none of the words.
    return "max" if higher > lower else "min"
