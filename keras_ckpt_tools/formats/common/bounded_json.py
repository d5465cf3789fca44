"""Parse untrusted JSON within limits.

`json.loads` creates whatever the text describes: a hundred megabytes of brackets become ten
gigabytes of lists. So the text is measured before it is parsed. An object with a duplicate name is
refused, because another reader could use the other value.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from keras_ckpt_tools.errors import damaged
from keras_ckpt_tools.formats.common.limits import Limits, over_budget

LEAVES = frozenset({bool, float, int, str, type(None)})
"""The types of what JSON has that is neither an object nor a list."""

_damaged = functools.partial(damaged, remedy="Ask whoever gave it to you for the original.")


def loads(text: str | bytes) -> Any:
    """Return the values of a JSON document, in UTF-8 where it is bytes.

    `json` takes UTF-16 and UTF-32 as well, and guesses which; and of a name that an object has
    twice it takes the last, where others take the first. Both are refused.

    Raises:
        ValueError: it is no such document.
        RecursionError: it is nested too deep.

    >>> loads(b'{"a": [1]}')
    {'a': [1]}
    """
    decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    return json.loads(decoded, object_pairs_hook=_without_twins)


def parse_object(text: str | bytes, name: str, path: str, limits: Limits) -> dict[str, Any]:
    """Return a JSON object.

    Args:
        text: The JSON, in UTF-8 where it is bytes.
        name: What it is called in the artefact, for messages.
        path: The artefact.
        limits: What it may take.

    Raises:
        DamagedArtefactError: it is no JSON object, is nested too deep, or says something twice.
        OverBudgetError: it is too long, or would become too many values.
    """
    if len(text) > limits.json_bytes:
        raise over_budget(path, f"its {name} has", "json_bytes", len(text), limits.json_bytes)
    marks: tuple[Any, ...] = (b",", b"[", b"{") if isinstance(text, bytes) else (",", "[", "{")
    nodes = 1 + sum(text.count(mark) for mark in marks)
    if nodes > limits.json_nodes:
        raise over_budget(path, f"its {name} has", "json_nodes", nodes, limits.json_nodes)
    try:
        data = loads(text)
    except RecursionError as error:
        raise _damaged(path, f"its {name} is nested deeper than any model's") from error
    except ValueError as error:
        raise _damaged(path, f"its {name} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise _damaged(path, f"its {name} is not a JSON object")
    if depth_of(data) > limits.json_depth:
        raise _damaged(path, f"its {name} is nested deeper than any model's")
    return data


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        # Counting each in all of them would take hours for a hostile object of a million names.
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"an object has the name {name[:100]!r} twice")
            seen.add(name)
    return found


def depth_of(value: Any) -> int:
    """Return how many levels a value has.

    >>> depth_of(1), depth_of({"a": [1]})
    (0, 2)
    """
    depth, level = 0, [] if type(value) in LEAVES else [value]
    while level:
        depth += 1
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if type(inner) not in LEAVES
        ]
    return depth
