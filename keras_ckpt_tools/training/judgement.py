"""Judge whether a model is worth saving: logs -> *verdict* -> snapshot.

The rules of `save_best_only`, as one function without side effects: what to do, which value would
then be the best, and what to tell the user. Nothing counts as the best until it is committed, so
the verdict only says what would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import MonitorError
from keras_ckpt_tools.metadata import Best
from keras_ckpt_tools.training.run import plain_logs


@dataclass(frozen=True)
class Verdict:
    """What to do with a model.

    Attributes:
        save: Whether to save it.
        best: The best value once it is saved, or `None` where that is not known.
        message: What to print where `verbose` is on.
        warning: What to warn of, once.
    """

    save: bool
    best: Best | None = None
    message: str = ""
    warning: str = ""


def judge_any(logs: Mapping[str, Any], epoch: int, known: Best | None, path: str) -> Verdict:
    """Judge where every model is saved; the best value is for the record only.

    Args:
        logs: The logs.
        epoch: Zero-based epoch they are of.
        known: The best value so far, or `None` where its direction is not known.
        path: Where the model goes.
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
    """Judge where only a better model is saved. The metric is in the logs.

    Args:
        logs: The logs.
        epoch: Zero-based epoch they are of.
        known: The best value so far.
        path: Where the model goes.
        is_better: Compares a value with the best so far; `None` for the mode of `known`.

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
    """Judge where only the best is saved and the metric is not in the logs.

    Raises:
        MonitorError: `on_missing_metric` is `"error"`.
    """
    there = ", ".join(sorted(logs)) or "none"
    message = f"Can save best model only with {monitor} available. Metrics in the logs: {there}."
    if on_missing_metric == "error":
        raise MonitorError(
            message,
            received=f"monitor={monitor!r}",
            remedy="Pass one of those as `monitor`, or give `fit()` its `validation_data`.",
            monitor=monitor,
            available=tuple(sorted(logs)),
        )
    if on_missing_metric == "save":
        return Verdict(True, warning=f"{message} Saving all the same.")
    return Verdict(False, warning=f"{message} Nothing is saved until it is there.")


def shown(value: float | None) -> str:
    """Return a value as Keras shows it.

    >>> shown(0.5), shown(None)
    ('0.50000', 'None')
    """
    return "None" if value is None else f"{value:.5f}"
