"""Find the classes of a model whose version or name changed since the file was saved.

The record of a file contains the registered version of each custom class; a file of stock Keras
counts as version 1. The registry has the current version. Together they show which weights have to
be migrated, and which name Keras used for the group in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.metadata import CustomObject
from keras_ckpt_tools.registry.entries import Entry
from keras_ckpt_tools.registry.names import bare
from keras_ckpt_tools.registry.registries import Registry


@dataclass(frozen=True)
class Former:
    """A class that has changed since a file was saved.

    Attributes:
        cls: The class as it is now.
        name: Its registered name.
        saved: Version in the file.
        version: Version now.
        migrate: Its `migrate_weights`, or `None` where only its name has changed.
        called: Further class names that it may have in the file.
        renamed: Whether the file says that it has another name there.
    """

    cls: type
    name: str
    saved: int
    version: int
    migrate: Callable[[dict[str, Any], int], dict[str, Any]] | None
    called: tuple[str, ...] = ()
    renamed: bool = False


def formers_of(
    registry: Registry, classes: Iterable[type], written: Iterable[CustomObject] = ()
) -> list[Former]:
    """Return the classes among these that were others when a file was saved.

    Args:
        registry: Where they are registered.
        classes: The classes of a live model and of what is in it.
        written: What the record of the file says of objects; nothing for a file of others.
    """
    by_name = {one.registered_name: one for one in written}
    found = []
    for cls in dict.fromkeys(classes):
        entry = registry.entry(cls)
        if entry is None or entry.obj is not cls:
            continue
        former = _former(entry, cls, by_name)
        if former.migrate is not None or former.called:
            found.append(former)
    return found


def _former(entry: Entry, cls: type, written: dict[str, CustomObject]) -> Former:
    one = next((written[key] for key in entry.keys if key in written), None)
    saved = 1 if one is None else one.version
    names = [bare(key) for key in entry.keys]
    then = (one.qualname or "").rpartition(".")[2] if one is not None else ""
    if then:
        names.insert(0, then)
    called = tuple(name for name in dict.fromkeys(names) if name != cls.__name__)
    migrate = entry.migrate_weights if saved < entry.version else None
    renamed = then not in ("", cls.__name__)
    return Former(cls, entry.name, saved, entry.version, migrate, called, renamed)
