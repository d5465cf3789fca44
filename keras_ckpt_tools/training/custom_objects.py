"""Collect the custom objects that a file needs, for its record.

The record names each with its module and the version of its package, so that an error at loading
can name the source of a missing object. A file with a config lists the names in the config; a file
with only weights lists the classes of the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from keras_ckpt_tools.metadata import CustomObject
from keras_ckpt_tools.registry import registry


class Named(NamedTuple):
    """The name of an object in a config."""

    name: str
    module: str | None
    class_name: str


def named_in(config: Any) -> tuple[Named, ...]:
    """Return the names in a config whose module is not part of Keras."""
    found: dict[Named, None] = {}
    _collect_named(config, found)
    return tuple(found)


def _collect_named(node: Any, found: dict[Named, None]) -> None:
    if isinstance(node, list):
        for item in node:
            _collect_named(item, found)
    if not isinstance(node, dict):
        return
    for item in node.values():
        _collect_named(item, found)
    module, name = node.get("module"), node.get("registered_name")
    if not isinstance(name, str) or "class_name" not in node or _is_keras(module):
        return
    if node["class_name"] == "function" and module in (None, "builtins"):
        name = str(node.get("config", name))
    found[Named(name, module, str(node["class_name"]))] = None


def objects_named(named: Iterable[Named]) -> tuple[CustomObject, ...]:
    """Return the custom objects among the names in a config."""
    found: dict[str, CustomObject] = {}
    for one in named:
        bare = one.class_name == "function" and one.module in (None, "builtins")
        if bare and registry.entry(one.name) is None:
            continue  # A function of Keras, by its bare name.
        found.setdefault(one.name, _describe(*one))
    return tuple(found.values())


def _is_keras(module: Any) -> bool:
    return isinstance(module, str) and (module == "keras" or module.startswith("keras."))


def objects_of(kinds: Iterable[type]) -> tuple[CustomObject, ...]:
    """Return the custom classes among the classes of a model; see `Structure`."""
    found: dict[str, CustomObject] = {}
    for kind in kinds:
        if not _is_keras(kind.__module__.replace("keras.src", "keras")):
            name = registry.name_of(kind)
            found.setdefault(name, _describe(name, kind.__module__, kind.__qualname__))
    return tuple(found.values())


def _describe(name: str, module: str | None, qualname: str) -> CustomObject:
    entry = registry.entry(name)
    if entry is None:
        return CustomObject(name, module, qualname)
    return CustomObject(
        name,
        getattr(entry.obj, "__module__", module),
        getattr(entry.obj, "__qualname__", qualname),
        entry.package_version,
        entry.version,
    )
