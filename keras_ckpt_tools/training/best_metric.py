"""Decide whether a model is saved, from the metrics in the logs.

These are the rules of `save_best_only`, as functions without side effects: whether to save, which
value would then be the best, and what to report. A value counts as the best only after the commit,
so the verdict is a proposal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import ArgumentError, MonitorError
from keras_ckpt_tools.metadata import Best
from keras_ckpt_tools.training.run import plain_logs


@dataclass(frozen=True)
class Verdict:
    """What to do with a model at a possible save.

    Attributes:
        save: Whether to save it.
        best: The best value after the save, or `None` if unknown.
        message: Message to print if `verbose` is on.
        warning: Warning to issue once.
    """

    save: bool
    best: Best | None = None
    message: str = ""
    warning: str = ""


def judge_any(logs: Mapping[str, Any], epoch: int, known: Best | None, path: str) -> Verdict:
    """Return the verdict if every model is saved; the best value is only recorded.

    Args:
        logs: The logs.
        epoch: Zero-based epoch of the logs.
        known: The best value so far, or `None` if its direction is unknown.
        path: Path of the model.
    """
    message = f"saving model to {path}"
    value = plain_logs(logs).get(known.monitor) if known else None
    if known is None or value is None:
        return Verdict(True, None, message)
    improved = known.improved_by(value)
    return Verdict(
        True, Best(known.monitor, known.mode, value, epoch) if improved else known, message
    )


def judge_best(
    logs: Mapping[str, Any],
    epoch: int,
    known: Best,
    path: str,
    is_better: Callable[[float, float | None], object] | None = None,
) -> Verdict:
    """Return the verdict if only a better model is saved and the metric is in the logs.

    Args:
        logs: The logs.
        epoch: Zero-based epoch of the logs.
        known: The best value so far.
        path: Path of the model.
        is_better: Compares a value with the best so far; `None` to use the mode of `known`.

    >>> judge_best({"loss": 0.5}, 0, Best("loss", "min", 0.4), "a.keras").message
    'loss did not improve from 0.40000'
    """
    name = known.monitor
    value = plain_logs({name: logs[name]}).get(name)
    if value is None:
        return Verdict(
            False,
            warning="Can save best model only when `monitor` is a scalar value. Received: "
            f"{name}={logs[name]!r}. Nothing is saved.",
        )
    better = known.improved_by(value) if is_better is None else is_better(value, known.value)
    if not better:
        odd = "" if math.isfinite(value) else f"{name} is {value}, which is never the best."
        return Verdict(
            False, message=f"{name} did not improve from {shown(known.value)}", warning=odd
        )
    return Verdict(
        True,
        Best(name, known.mode, value, epoch),
        f"{name} improved from {shown(known.value)} to {value:.5f}, saving model to {path}",
    )


def judge_missing(monitor: str, logs: Mapping[str, Any], on_missing_metric: str) -> Verdict:
    """Return the verdict if only the best is saved and the metric is not in the logs.

    Raises:
        MonitorError: `on_missing_metric` is `"error"`.
    """
    there = ", ".join(sorted(logs)) or "none"
    message = f"Can save best model only with {monitor} available. Metrics in the logs: {there}."
    if on_missing_metric == "error":
        raise MonitorError(
            message,
            received=f"monitor={monitor!r}",
            remedy="Pass one of those as `monitor`, or pass `validation_data` to `fit()`.",
            monitor=monitor,
            available=tuple(sorted(logs)),
        )
    if on_missing_metric == "save":
        return Verdict(True, warning=f"{message} The model is saved all the same.")
    return Verdict(False, warning=f"{message} Nothing is saved until it is available.")


def shown(value: float | None) -> str:
    """Return a value in Keras' format.

    >>> shown(0.5), shown(None)
    ('0.50000', 'None')
    """
    return "None" if value is None else f"{value:.5f}"


_HIGHER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "iou", "dice", "r2")
_LOWER_IS_BETTER = ("error", "mse", "mae", "mape", "msle", "rmse", "perplexity", "brier")


def direction(monitor: str | None, mode: str) -> str:
    """Return `"min"` or `"max"` for a metric of a custom training loop.

    Args:
        monitor: Name of the metric, or `None`.
        mode: `"min"`, `"max"` or `"auto"`.

    Raises:
        ArgumentError: `mode` is invalid.
        MonitorError: `mode` is `"auto"`, and the direction is not known from the name.

    >>> direction("val_accuracy", "auto"), direction("val_loss", "auto")
    ('max', 'min')
    """
    if mode not in ("auto", "min", "max"):
        raise ArgumentError(
            "`mode` must be 'auto', 'min' or 'max'.",
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
    """Return `"min"` or `"max"` for a metric of a model, or `None` if the direction is unknown.

    Args:
        model: A compiled model; its metrics are checked first.
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
    # With several outputs, the name of the output precedes that of the metric.
    for own in sorted(known, key=len, reverse=True):
        if known[own] is not None and (name == own or name.endswith(f"_{own}")):
            return "max" if known[own] == "up" else "min"
    return _by_name(monitor)


def undecided(monitor: str) -> MonitorError:
    """Return the error for a metric whose direction is unknown."""
    return MonitorError(
        f"It is not known whether a higher or a lower {monitor!r} is better.",
        received=f"monitor={monitor!r}, mode='auto'",
        remedy="Pass `mode='max'` or `mode='min'`.",
        monitor=monitor,
        available=(),
    )


def _metrics_of(model: Any) -> Iterator[Any]:
    for metric in getattr(model, "metrics", ()):
        # Compiled metrics are in containers, which are metrics themselves.
        yield from getattr(metric, "metrics", (metric,))


def _by_name(monitor: str) -> str | None:
    """Infer the direction from the name: the metric comes last, after the output.

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
        return None  # A negated error may be better when higher or when lower.
    if higher == lower:
        return "max" if "score" in name else None  # It contains none of the words.
    return "max" if higher > lower else "min"
