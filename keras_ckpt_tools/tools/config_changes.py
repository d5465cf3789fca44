"""Find the places in which two configs differ.

Layers in a list are matched by name, so an inserted layer is one change. The number of reported
places is bounded, because two unrelated models differ everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

_LONGEST = 80
# Where an object was in the memory of the process that saved it.
_ADDRESS = "shared_object_id"
_ABSENT = object()


@dataclass(frozen=True)
class ConfigChange:
    """One place in which two configs differ.

    Attributes:
        where: The path of the place, `"config.layers[dense].config.units"`.
        first: What stands there in the first, as short JSON; empty where nothing does.
        second: Likewise in the second.
    """

    where: str
    first: str
    second: str


def config_changes(first: Any, second: Any, most: int) -> tuple[list[ConfigChange], bool]:
    """Return the places in which two configs differ, and whether there are more than `most`.

    >>> config_changes({"units": 2, "name": "a"}, {"units": 3, "name": "a"}, 9)[0]
    [ConfigChange(where='units', first='2', second='3')]
    """
    found = list(islice(_changes("", first, second), most + 1))
    return found[:most], len(found) > most


def _changes(where: str, first: Any, second: Any) -> Iterator[ConfigChange]:
    if isinstance(first, dict) and isinstance(second, dict):
        one = {key: value for key, value in first.items() if key != _ADDRESS}
        other = {key: value for key, value in second.items() if key != _ADDRESS}
        yield from _in_mappings(where, one, other, "{}.{}" if where else "{}{}")
    elif isinstance(first, list) and isinstance(second, list):
        named, others = _by_name(first), _by_name(second)
        if named is None or others is None:
            named, others = dict(enumerate(first)), dict(enumerate(second))
        yield from _in_mappings(where, named, others, "{}[{}]")
    elif type(first) is not type(second) or repr(first) != repr(second):  # NaN is like NaN.
        yield ConfigChange(where, _short(first), _short(second))


def _in_mappings(
    where: str, first: Mapping[Any, Any], second: Mapping[Any, Any], form: str
) -> Iterator[ConfigChange]:
    for key in dict.fromkeys((*first, *second)):
        place = form.format(where, key)
        yield from _changes(place, first.get(key, _ABSENT), second.get(key, _ABSENT))


def _by_name(items: list[Any]) -> dict[Any, Any] | None:
    """Return configs of objects by the names of these, or `None` where they have none."""
    names = [_name(item) for item in items]
    if None in names or len(set(names)) < len(names):
        return None
    return dict(zip(names, items, strict=True))


def _name(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    inner = item.get("config")
    name = item.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    return name if isinstance(name, str) else None


def _short(value: Any) -> str:
    if value is _ABSENT:
        return ""
    # Of a long value the beginning says enough, and making all of it might take long.
    if isinstance(value, (dict, list)) and len(value) > _LONGEST:
        value = f"{type(value).__name__} of {len(value):,} values"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
