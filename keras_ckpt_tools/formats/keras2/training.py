"""Translate the compile arguments of a Keras 2 model to Keras 3.

These are optimizers, learning rates, losses and metrics. The older optimizers of Keras 2
(`optimizers.legacy`) have the same class names as the newer ones and are distinguished by their
arguments.

Sources: `get_config` in `optimizers`, `optimizers/legacy`, `losses.py` and `metrics` of `tf_keras`
2.18.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPTIMIZERS = frozenset(
    "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lion Nadam RMSprop SGD".split()
)
# A matter of speed, of how it was saved, or said by another argument.
_GONE = ("jit_compile", "is_legacy_optimizer")
_COMPILE = "load it with `compile=False`, and compile it yourself"

Complain = Callable[[str, str, str], None]


def translate_compiled(config: dict[str, Any]) -> None:
    """Write the metrics of the one output of a model as a list, which is a list of lists there."""
    for name in ("metrics", "weighted_metrics"):
        metrics = config.get(name)
        if isinstance(metrics, list) and len(metrics) == 1 and isinstance(metrics[0], list):
            config[name] = metrics[0]


def translate_training(node: dict[str, Any], complain: Complain) -> None:
    """Rewrite the config of an optimizer, a loss or a metric; leave all others as they are.

    Args:
        node: `class_name`, `config` and further keys.
        complain: Takes the name of an object, what cannot be said about it, and what to do.
    """
    name, inner = node.get("class_name"), node.get("config")
    if not isinstance(name, str) or not isinstance(inner, dict):
        return
    if inner.get("name", ...) is None:
        del inner["name"]
    package, _, bare = name.rpartition(">")
    if package in ("", "Custom") and bare in OPTIMIZERS:
        node["class_name"] = bare
        node["module"], node["registered_name"] = "keras.optimizers", None
        _optimizer(bare, inner, complain)
    elif bare in ("LossScaleOptimizer", "LossScaleOptimizerV3") and "inner_optimizer" in inner:
        _loss_scale(node, inner, complain)
    elif bare == "MeanMetricWrapper" and isinstance(inner.get("fn"), str):
        node["module"], node["registered_name"] = "keras.metrics", None
        function = {"module": "builtins", "class_name": "function", "registered_name": "function"}
        inner["fn"] = {**function, "config": inner["fn"]}
    elif "reduction" in inner:
        if inner["reduction"] == "auto":
            inner["reduction"] = "sum_over_batch_size"
        if bare != "LossFunctionWrapper":
            inner.pop("fn", None)  # The class says which.


def _optimizer(name: str, inner: dict[str, Any], complain: Complain) -> None:
    for argument in _GONE:
        inner.pop(argument, None)
    if "lr" in inner:
        inner["learning_rate"] = inner.pop("lr")
    rate = inner.get("learning_rate")
    if isinstance(rate, int) and not isinstance(rate, bool):
        inner["learning_rate"] = rate = float(rate)
    decay = inner.get("decay")
    if name == "Nadam" and decay is not None:
        complain(name, f"has the schedule of momentum with decay={decay!r}, which Keras 3 computes "
                 "otherwise", _COMPILE)  # fmt: skip
    elif isinstance(decay, (int, float)):
        del inner["decay"]
        if decay and isinstance(rate, float):
            inner["learning_rate"] = _inverse_time(rate, float(decay))
        elif decay:
            complain(name, f"has both decay={decay!r} and a schedule", _COMPILE)


def _inverse_time(rate: float, decay: float) -> dict[str, Any]:
    """Return the schedule that an older optimizer with `decay` followed."""
    return {
        "module": "keras.optimizers.schedules",
        "class_name": "InverseTimeDecay",
        "config": {
            "initial_learning_rate": rate,
            "decay_steps": 1,
            "decay_rate": decay,
            "staircase": False,
            "name": "InverseTimeDecay",
        },
        "registered_name": None,
    }


def _loss_scale(node: dict[str, Any], inner: dict[str, Any], complain: Complain) -> None:
    if inner.get("dynamic") is not True:
        complain("LossScaleOptimizer", "scales losses by a fixed number", _COMPILE)
        return
    node["class_name"] = "LossScaleOptimizer"
    node["module"], node["registered_name"] = "keras.optimizers", None
    kept = ("inner_optimizer", "initial_scale", "dynamic_growth_steps", "name")
    for argument in [key for key in inner if key not in kept]:
        del inner[argument]
