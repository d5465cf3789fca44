"""The entries of a registry: which names are taken, and by what.

`Registry` uses this table. Its three indexes (entries by name, names by key, names by object)
change together, under one lock, or not at all: everything that can fail is checked first. Keras'
tables are changed with them if they are mirrored.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from keras_ckpt_tools.errors import DuplicateNameError, RegistryError
from keras_ckpt_tools.registry import mirror
from keras_ckpt_tools.registry.definitions import UNKNOWN, place_of, same_definition
from keras_ckpt_tools.registry.entries import Entry
from keras_ckpt_tools.registry.names import match


class EntryTable:
    """Entries by name, alias and object."""

    def __init__(self, *, mirrored: bool):
        self._mirrored = mirrored
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._keys: dict[str, str] = {}
        # Also of classes that a later run of their definition replaced: models made of them live
        # on, and are still saved under the name.
        self._names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def add(self, entry: Entry, *, take_names: bool = False) -> None:
        """Add an entry, in place of an earlier run of the same definition.

        Args:
            entry: The new entry.
            take_names: Whether it may take its names from other objects.

        Raises:
            DuplicateNameError: One of its names is another object's.
            RegistryError: Its object has another name already.
        """
        if self._mirrored:
            mirror.held(entry.name)  # imports Keras, which must not happen under the lock
        with self._lock:
            if not take_names:
                self._require_unnamed(entry)
                self._require_free(entry)
            self._make_room(entry)
            self._put(entry)

    def named(self, name: str) -> Entry | None:
        """Return the entry that a qualified or bare name stands for.

        Raises:
            RegistryError: Several objects fit a bare name.
        """
        with self._lock:
            table = {key: self._entries[owner] for key, owner in self._keys.items()}
        key = match(name, table, bare_keys=False)
        return None if key is None else table[key]

    def of(self, obj: Any) -> Entry | None:
        """Return the entry of a class or function, or of the class of an object."""
        with self._lock:
            for candidate in (obj, type(obj)):
                try:
                    name = self._names.get(candidate)
                except TypeError:  # cannot be hashed or weakly referenced: was never registered
                    continue
                if name is not None:
                    return self._entries.get(name)
        return None

    def keys(self) -> set[str]:
        """Return every name and alias, qualified ones and bare ones."""
        with self._lock:
            return set(self._keys)

    def entries(self) -> list[Entry]:
        """Return the entries, sorted by name."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: entry.name)

    def _own(self, obj: Any) -> Entry | None:
        """Return the entry that has exactly this object, not an earlier run of its definition."""
        entry = self._entries.get(self._names.get(obj, ""))
        return entry if entry is not None and entry.obj is obj else None

    def _owner(self, key: str) -> Entry | None:
        return self._entries.get(self._keys.get(key, ""))

    def _require_unnamed(self, entry: Entry) -> None:
        had = self._own(entry.obj)
        if had is not None and had.name != entry.name:
            raise RegistryError(
                f"{entry.bare_name!r} is already registered as {had.name!r}; an object can have "
                "only one name in files.",
                received=f"name={entry.name!r}",
                remedy=f"Pass aliases=[{entry.name!r}] where it is registered first, or "
                "replace=True to rename it.",
                name=entry.name,
            )

    def _require_free(self, entry: Entry) -> None:
        taken = [
            (key, place) for key in entry.keys if (place := self._taken_by(key, entry)) is not None
        ]
        if not taken:
            return
        owners = "; ".join(f"{key!r} is the name of the object at {place}" for key, place in taken)
        raise DuplicateNameError(
            f"Another object already has this name: {owners}. The new one is at {entry.place}.",
            received=f"name={entry.name!r}, aliases={list(entry.aliases)!r}",
            remedy="Pick another name, register(package, name=...), or pass replace=True to give "
            "the name to the new one.",
            name=taken[0][0],
            existing=taken[0][1],
            new=entry.place,
        )

    def _taken_by(self, key: str, entry: Entry) -> str | None:
        """Return the place of the different object that has `key`, or `None`."""
        owner = self._owner(key)
        if owner is not None:
            free = owner.name == entry.name and _same(owner, entry)
            return None if free else owner.place
        other = mirror.held(key) if self._mirrored else None
        if other is None or self._names.get(other) == entry.name:
            return None
        file, line = place_of(other) if hasattr(other, "__qualname__") else UNKNOWN
        return None if _same(Entry(key, other, (), file, line), entry) else f"{file}:{line}"

    def _make_room(self, entry: Entry) -> None:
        renamed = self._own(entry.obj)
        if renamed is not None:
            self._drop(renamed)
        old = self._entries.get(entry.name)
        if old is not None:
            self._drop(old, keep_name=_same(old, entry))
        for key in entry.keys:
            owner = self._owner(key)
            if owner is None:
                continue
            self._drop(owner)
            if key != owner.name:
                left = tuple(a for a in owner.aliases if key not in (a, f"{owner.package}>{a}"))
                self._put(replace(owner, aliases=left))

    def _put(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        self._keys.update(dict.fromkeys(entry.keys, entry.name))
        self._names[entry.obj] = entry.name
        if self._mirrored:
            mirror.put(entry.keys, entry.obj, entry.name)

    def _drop(self, entry: Entry, *, keep_name: bool = False) -> None:
        del self._entries[entry.name]
        for key in entry.keys:
            self._keys.pop(key, None)
        if self._mirrored:
            mirror.take(entry.keys, entry.obj)
        if not keep_name:
            # Also of earlier runs of its definition: the name belongs to another object now.
            for obj in [obj for obj, name in self._names.items() if name == entry.name]:
                del self._names[obj]
                if self._mirrored:
                    mirror.forget(obj, entry.name)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Undo on exit whatever is added inside: for tests."""
        with ExitStack() as stack:
            if self._mirrored:
                stack.enter_context(mirror.kept())
            before = dict(self._entries), dict(self._keys), dict(self._names)
            try:
                yield
            finally:
                with self._lock:
                    self._entries, self._keys = before[0], before[1]
                    self._names = weakref.WeakKeyDictionary(before[2])


def _same(old: Entry, new: Entry) -> bool:
    return same_definition(old.obj, new.obj, (old.file, old.line), (new.file, new.line))
