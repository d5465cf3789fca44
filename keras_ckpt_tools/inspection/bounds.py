"""Refuse numbers, names and patterns in a config that are far too large.

Variables and calls of layers are counted elsewhere (`size_estimate`, `variable_budget`). Some
arguments of Keras' own objects become lists or patterns when the object is made, in one call that
cannot be interrupted. They have a bound here, far above what models use. A test finds these
arguments: it builds each Keras class with a billion for each of its arguments.

Objects of the user are not checked, because only their authors know their arguments.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping

# Python's own parser of patterns returns the parts of a pattern in linear time.
from re import _constants as syntax  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from keras_ckpt_tools.formats.common.limits import over_budget
from keras_ckpt_tools.inspection.configs import is_class_of_keras, is_function_of_keras

LONGEST_NAME = 1_024
_LONGEST_PATTERN = 1_024
# Number of names in a path, if all are as long as the longest.
_LEVELS = 5
_MOST_PATTERN_STEPS = 1_000_000_000

_THRESHOLDS = {"num_thresholds": 1_000_000}
_OUTPUTS = {"num": 100_000, "indices_or_sections": 100_000}
_LOOKUP = {"num_oov_indices": 10_000_000}
_NUMBERS: dict[str, dict[str, int]] = {
    "AUC": _THRESHOLDS,
    "ArraySplit": _OUTPUTS,
    "Diff": {"n": 1_000},
    "Dsplit": _OUTPUTS,
    "Hsplit": _OUTPUTS,
    "IntegerLookup": _LOOKUP,
    "MeanIoU": {"num_classes": 1_000_000},
    "OneHotMeanIoU": {"num_classes": 1_000_000},
    "PrecisionAtRecall": _THRESHOLDS,
    "RecallAtPrecision": _THRESHOLDS,
    "SensitivityAtSpecificity": _THRESHOLDS,
    "SpecificityAtSensitivity": _THRESHOLDS,
    "Split": _OUTPUTS,
    "StringLookup": _LOOKUP,
    "TextVectorization": {"ngrams": 1_000},
    "Unstack": _OUTPUTS,
    "Vsplit": _OUTPUTS,
}
# A `Lambda` layer may call these functions with its own arguments.
_FUNCTIONS = {kind.lower(): kind for kind in ("Diff", "Dsplit", "Hsplit", "Split", "Unstack")}
_FUNCTIONS |= {"array_split": "ArraySplit", "vsplit": "Vsplit"}
# Texts that become part of others (the path of each variable), or that Keras parses.
_TEXTS = dict.fromkeys(("name", "equation", "pattern", "subscripts"), LONGEST_NAME)
_BOUNDS = {kind: _TEXTS | numbers for kind, numbers in _NUMBERS.items()}
# The mappings whose keys, and the lists whose items, are patterns.
_PATTERNS = {
    "DTypePolicyMap": "policy_map",
    "OptimizerMap": "optimizer_map",
    "Muon": "exclude_layers",
}
# Patterns that may match from any position.
_SEARCHED = ("Muon",)


def check_bounds(path: str, found: Iterable[Mapping[str, Any]]) -> None:
    """Raise `OverBudgetError` for the first number, name or pattern above its bound."""
    longest = 1
    patterns: list[tuple[str, str]] = []
    for node in found:
        config, kind = node.get("config"), node.get("class_name")
        if not isinstance(config, dict) or not isinstance(kind, str):
            continue
        called, arguments = _called_by(config) if kind == "Lambda" else (kind, config)
        if isinstance(name := config.get("name"), str) and len(name) > longest:
            longest = len(name)
        bounds = _BOUNDS.get(called, _TEXTS)
        for key in bounds:
            if key not in arguments or (size := _size(arguments[key])) <= bounds[key]:
                continue
            if _of_keras(node):
                unit = "characters" if isinstance(arguments[key], str) else "steps"
                what = f"its {called[:100]} has, as its `{key}`,"
                raise over_budget(path, what, unit, size, bounds[key])
        texts = config.get(_PATTERNS[kind]) if kind in _PATTERNS else None
        if isinstance(texts, (dict, list)) and _of_keras(node):
            patterns += [(kind, text) for text in texts if isinstance(text, str)]
    # Keras matches patterns against the paths of layers and variables.
    for kind, pattern in patterns:
        _check_pattern(path, kind, pattern, longest * _LEVELS)


def _of_keras(node: Mapping[str, Any]) -> bool:
    module, stated = node.get("module"), node.get("registered_name") or node["class_name"]
    return stated == node["class_name"] and str(module or "keras").startswith("keras")


def _called_by(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the operation that a `Lambda` layer calls, and its arguments."""
    function, arguments = config.get("function"), config.get("arguments")
    name = function.get("config") if isinstance(function, dict) else function
    kind = _FUNCTIONS.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(arguments, dict):
        return "Lambda", config
    return kind, {**arguments, "name": config.get("name")}


def _size(value: Any) -> int:
    """Return the size of a value: length of a text, a number, or a list's largest and length."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return max([len(value), *(n for n in value if isinstance(n, int))])
    return value if isinstance(value, int) else 0


def _check_pattern(path: str, kind: str, pattern: str, length: int) -> None:
    if len(pattern) > _LONGEST_PATTERN:
        what = f"a pattern of its {kind} has"
        raise over_budget(path, what, "characters", len(pattern), _LONGEST_PATTERN)
    needed = pattern_steps(pattern, length)
    if kind in _SEARCHED:
        needed = min(needed * length, _ENDLESS)
    if needed > _MOST_PATTERN_STEPS:
        what = f"one match of the pattern {pattern[:100]!r} of its {kind} may take"
        raise over_budget(path, what, "steps", needed, _MOST_PATTERN_STEPS)


def pattern_steps(pattern: str, length: int) -> int:
    """Return an upper bound of the steps that Python's engine takes to match a whole text.

    >>> pattern_steps("encoder/.*", 100), pattern_steps("(a+)+", 100) > 10**20
    (101, True)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return 0  # Keras raises the error.
    ways, repeats = _ways(parsed, length)
    # Consecutive repeats share the text.
    return ways // math.factorial(min(repeats, 20))


def _ways(parsed: Any, length: int) -> tuple[int, int]:
    """Return the number of ways to split a text between the parts, and how many parts vary."""
    ways, repeats = 1, 0
    for operation, argument in parsed:
        inner: list[Any] = []
        times = power = 1
        if operation in _REPEATS:
            least, most, body = argument
            power = min(int(most), length)
            times = power - min(int(least), power) + 1
            inner = [body]
            repeats += times > 2
        elif operation is syntax.BRANCH:
            inner = list(argument[1])
            times = len(inner)
        elif operation in (syntax.GROUPREF, syntax.GROUPREF_EXISTS):
            return _ENDLESS, 0
        elif isinstance(argument, parser.SubPattern):
            inner = [argument]
        elif isinstance(argument, tuple):
            inner = [part for part in argument if isinstance(part, parser.SubPattern)]
        for part in inner:
            within, more = _ways(part, length)
            if within > 1 and power * math.log2(within) > 64:
                return _ENDLESS, 0
            times = min(times * within**power, _ENDLESS)
            repeats += more
        ways = min(ways * times, _ENDLESS)
    return ways, repeats


_ENDLESS = 1 << 200
_REPEATS = tuple(
    getattr(syntax, name)
    for name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
    if hasattr(syntax, name)
)


def nodes_without_inputs(found: Iterable[Mapping[str, Any]]) -> str:
    """Return the name of a layer that a graph calls with constants only; empty if there is none.

    Keras never writes such a call: it computes it when the model is built.
    """
    for value in found:
        nodes = value.get("inbound_nodes")
        for node in nodes if isinstance(nodes, list) else ():
            if isinstance(node, dict) and node and not _has_tensor(node):
                return str(value.get("name") or value.get("class_name"))[:100]
    return ""


def computed_shapes(found: Iterable[Mapping[str, Any]]) -> str:
    """Return the name of a `Lambda` whose output shape an object of Keras' computes; empty if none.

    Keras calls it with the shape of the input while it builds: `keras.ops.zeros` makes an array of
    that shape. Real models have functions of their authors there.

    Args:
        found: All mappings of a config.
    """
    for node in found:
        config = node.get("config")
        if node.get("class_name") == "Lambda" and isinstance(config, dict) and _of_keras(node):
            shape = config.get("output_shape")
            if isinstance(shape, dict) and _is_keras_own(shape):
                return str(config.get("name"))[:100]
    return ""


def _is_keras_own(node: Mapping[str, Any]) -> bool:
    name, module = node.get("class_name"), node.get("module")
    if name == "function":
        name = node.get("config")
        module = None if module == "builtins" else module
        return isinstance(name, str) and is_function_of_keras(name, module)
    return isinstance(name, str) and is_class_of_keras(name, module)


def _has_tensor(node: Mapping[str, Any]) -> bool:
    todo: list[Any] = [node]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                return True
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return False
