"""`Registry`: register, find, scope and show custom objects.

`find` is the only lookup of the package; loading, inspection and `check_serializable` use it:

    explicit custom objects > open scopes, innermost first > registered > plug-ins > (Keras' own)

Keras checks its global registry before the explicit argument, so a user cannot replace an object
that some import has registered. Here, the explicit argument takes precedence. Imports (of Keras, of
plug-ins) happen outside the lock, because a module may register its classes from another thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar, overload

from keras_ckpt_tools.registry.definitions import default_package, place_of, require_nameable
from keras_ckpt_tools.registry.entries import Entry, Found, Migration, Options, WeightsMigration
from keras_ckpt_tools.registry.mirror import files_call
from keras_ckpt_tools.registry.names import bare, match, nearest
from keras_ckpt_tools.registry.plugins import declared, load_plugin, plugin_for, serves
from keras_ckpt_tools.registry.rebuildable import require_rebuildable
from keras_ckpt_tools.registry.scopes import Scope, ScopePile, checked_objects
from keras_ckpt_tools.registry.table import EntryTable
from keras_ckpt_tools.showing.tables import as_html, printable

_Object = TypeVar("_Object", bound=Callable[..., Any])


class Registry:
    """Names for custom objects, and the objects by name.

    The default registry is `keras_ckpt_tools.registry`. Create another one if names must be
    separate, for example in a test.

    Args:
        mirror: Whether objects and scopes are added to Keras' registry too. `True` for the default
            registry; default `False`.

    Example:

    >>> names = Registry()
    >>> @names.register("my_package", aliases=["double"])
    ... def twice(x):
    ...     return 2 * x
    >>> names.get("my_package>twice")(4), names.get("double")(4), names.name_of(twice)
    (8, 8, 'my_package>twice')
    """

    def __init__(self, *, mirror: bool = False):
        self._table = EntryTable(mirrored=mirror)
        self._scopes = ScopePile(mirrored=mirror)

    @overload
    def register(self, package: _Object, /) -> _Object: ...

    @overload
    def register(
        self,
        package: str | None = None,
        name: str | None = None,
        *,
        aliases: Iterable[str] = (),
        version: int = 1,
        migrate: Migration | None = None,
        migrate_weights: WeightsMigration | None = None,
        replace: bool = False,
    ) -> Callable[[_Object], _Object]: ...

    def register(
        self,
        package: Any = None,
        name: str | None = None,
        *,
        aliases: Iterable[str] = (),
        version: int = 1,
        migrate: Migration | None = None,
        migrate_weights: WeightsMigration | None = None,
        replace: bool = False,
    ) -> Any:
        """Decorate a class or function to give it its name in files.

        Use it on every layer, model, loss, metric, optimizer, schedule, initializer, regularizer,
        constraint and function of your own that a saved model may contain. It works with and
        without arguments (`@register`). The decorated object is returned unchanged. With the
        default registry, plain `keras.models.load_model` finds the object too, also by its aliases.

        Running the same definition again (a notebook cell, a reloaded module) replaces it.

        Args:
            package: First half of the name. Default: the top-level package of the defining
                module, `"Custom"` where that is `__main__`.
            name: Second half. Default: the name of the class or function.
            aliases: Other names for it in files. A bare one means that name in the same package,
                and also a class that was saved before it was registered.
            version: Version of its config and weights, 1 or more. Default 1.
            migrate: `migrate(config, from_version)`, which returns the config of this version.
            migrate_weights: `migrate_weights(weights, from_version)`, which returns the weights of
                this version. It gets NumPy arrays by name and returns such a dict. Names are
                relative to the object's own group in the file, as Keras writes them: `"vars/0"` for
                its own first weight, `"dense/vars/1"` for the second one of the layer in its
                attribute `dense`. See `docs/objects.md`.
            replace: Whether to replace another object with this name. Default `False`.

        Returns:
            The decorated object, or the decorator.

        Raises:
            ArgumentError: An argument cannot work; all are listed.
            DuplicateNameError: Another object has the name, or an alias is taken.
            NotSerializableError: The class could be saved, but not rebuilt; the message has the
                method to write.
            RegistryError: It is neither a class nor a plain function, or already has a name.

        Example:

        >>> names = Registry()
        >>> @names.register("my_package", name="Half", version=2)
        ... def halve(x):
        ...     return x / 2
        >>> names.entry("Half").version
        2
        """
        # A package that is no string is what a bare `@register` was put on.
        on_bare = package is not None and not isinstance(package, str)
        options = Options.checked(
            None if on_bare else package,
            name,
            aliases,
            version,
            migrate,
            migrate_weights,
            replace,
        )
        if on_bare:
            return self._register(package, options, _caller())

        def decorate(obj: _Object) -> _Object:
            return self._register(obj, options, _caller())

        return decorate

    def _register(self, obj: _Object, options: Options, caller: tuple[str, int]) -> _Object:
        require_nameable(obj)
        package = options.package or default_package(obj)
        name = f"{package}>{options.name or obj.__name__}"
        file, line = place_of(obj, caller)
        if isinstance(obj, type):
            require_rebuildable(obj, name, f"{file}:{line}")
        entry = Entry(
            name,
            obj,
            options.aliases,
            file,
            line,
            options.version,
            options.migrate,
            options.migrate_weights,
        )
        self._table.add(entry, take_names=options.replace)
        return obj

    def scope(self, objects: Mapping[str, Any]) -> Scope:
        """Return a context manager under which `objects` can be found by name.

        Unlike `keras.saving.custom_object_scope`, it merges with outer scopes, applies to all
        threads, and can be closed in any order. With the default registry, plain
        `keras.models.load_model` finds the objects too.

        Args:
            objects: Classes and functions by name, qualified or bare.

        Raises:
            ArgumentError: A key is no name, or a value neither class nor function.

        Example:

        >>> names = Registry()
        >>> with names.scope({"biggest": max}), names.scope({"smallest": min}):
        ...     names.get("biggest") is max
        True
        """
        return Scope(self._scopes, checked_objects(objects, "objects"))

    def find(
        self,
        name: str,
        custom_objects: Mapping[str, Any] | None = None,
        *,
        plugins: bool = True,
    ) -> Found | None:
        """Look a name up, in the order of explicit objects, scopes, registry and plug-ins.

        Args:
            name: Qualified, `package>Name`, or bare. A qualified name never matches an object of
                another package; a bare one matches an object of any package, if there is only one.
            custom_objects: Objects by name; they take precedence over everything else.
            plugins: Whether a plug-in that declares the name is imported. Default `True`.

        Returns:
            The object and how it was found, or `None`. Keras' own objects are not looked up.

        Raises:
            RegistryError: Several objects fit a bare name.
        """
        if not isinstance(name, str) or not name:
            return None
        tables = [("custom_objects", custom_objects or {})]
        tables += [("scope", table) for table in self._scopes.tables()]
        for how, table in tables:
            key = match(name, table)
            if key is not None:
                return Found(table[key], how, self._table.of(table[key]))
        entry = self._table.named(name)
        if entry is not None:
            own = name in (entry.name, entry.bare_name)
            return Found(entry.obj, "registered" if own else "alias", entry)
        return self._find_plugin(name) if plugins else None

    def _find_plugin(self, name: str) -> Found | None:
        point = plugin_for(name)
        obj = None if point is None else load_plugin(point)
        if point is None or obj is None:
            return None
        entry = self._table.of(obj)
        if not serves(point, name, () if entry is None else entry.keys):
            return None
        return Found(obj, "plug-in", entry)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the object with a name, including scopes and plug-ins.

        Args:
            name: Qualified or bare.
            default: The value to return if there is none.

        Raises:
            RegistryError: Several objects fit a bare name.
        """
        found = self.find(name)
        return default if found is None else found.obj

    def name_of(self, obj: Any) -> str:
        """Return the name in files of a class, a function, or the class of an object.

        For unregistered objects, this is the bare name, as in Keras; use `obj in registry` to
        distinguish them.
        """
        entry = self._table.of(obj)
        return files_call(obj) if entry is None else entry.name

    def entry(self, name_or_obj: Any) -> Entry | None:
        """Return the entry of a name, a class, a function or an object, or `None`.

        Raises:
            RegistryError: Several objects fit a bare name.
        """
        if isinstance(name_or_obj, str):
            return self._table.named(name_or_obj)
        return self._table.of(name_or_obj)

    def nearest(
        self, name: str, custom_objects: Mapping[str, Any] | None = None
    ) -> tuple[str, ...]:
        """Return up to three known names most like `name`, the most alike first."""
        known = set(custom_objects or {}).union(*self._scopes.tables(), declared())
        for entry in self._table.entries():
            known |= {entry.name, *entry.aliases}
        return nearest(name, known)

    def __contains__(self, name_or_obj: object) -> bool:
        """Return whether a name, an alias or an object is registered here."""
        if isinstance(name_or_obj, str):
            keys = self._table.keys()
            return name_or_obj in keys or name_or_obj in map(bare, keys)
        return self._table.of(name_or_obj) is not None

    def __len__(self) -> int:
        return len(self._table.entries())

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._table.entries())

    def __bool__(self) -> bool:
        # `registry or default` must not take an empty registry for none.
        return True

    def __repr__(self) -> str:
        return text_table(self)

    def _repr_html_(self) -> str:
        return html_table(self)

    def _isolated(self) -> AbstractContextManager[None]:
        """Return a context manager that undoes on exit what is registered inside: for tests."""
        return self._table.isolated()


def _caller() -> tuple[str, int]:
    """Return file and line of the caller of the calling function."""
    frame = sys._getframe(2)
    return frame.f_code.co_filename, frame.f_lineno


_HEADINGS = ("name", "kind", "version", "aliases", "defined at")
_KINDS = {
    "Model": "model",
    "Layer": "layer",
    "Loss": "loss",
    "Metric": "metric",
    "LearningRateSchedule": "schedule",
    "BaseOptimizer": "optimizer",
    "Initializer": "initializer",
    "Regularizer": "regularizer",
    "Constraint": "constraint",
    "Operation": "operation",
}


def kind_of(obj: object) -> str:
    """Return what a class or function is, in Keras' words.

    >>> kind_of(kind_of), kind_of(dict)
    ('function', 'class')
    """
    if not isinstance(obj, type):
        return "function"
    for base in obj.__mro__:
        if base.__module__.partition(".")[0] == "keras" and base.__name__ in _KINDS:
            return _KINDS[base.__name__]
    return "class"


def text_table(entries: Iterable[Entry]) -> str:
    """Return the table as text, one row a line."""
    rows = _rows(entries)
    if not rows:
        return 'No objects registered. Decorate one with @register("my_package").'
    table = [_HEADINGS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def html_table(entries: Iterable[Entry]) -> str:
    """Return the table as HTML."""
    rows = _rows(entries)
    caption = f"{len(rows)} registered object{'' if len(rows) == 1 else 's'}"
    return as_html(caption, _HEADINGS, rows)


def _rows(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    cells = (
        (e.name, kind_of(e.obj), str(e.version), ", ".join(e.aliases), e.place) for e in entries
    )
    return [tuple(map(printable, row)) for row in cells]
