"""The frozen record of a registered object, and the result of a lookup.

`Registry` creates entries; loading reads them: the version of an object, how its older configs are
migrated, where it was defined. The version of the installed package is looked up only when needed,
because it takes a scan of all installed distributions.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.registry.names import bare, package_of

Migration = Callable[[dict[str, Any], int], dict[str, Any]]
WeightsMigration = Callable[[dict[str, Any], int], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """One registered object.

    Attributes:
        name: Its registered name, `package>Name`.
        obj: The class or function.
        aliases: Its other names, as they were given; bare or qualified.
        file: File that defines it, `"<unknown>"` where that cannot be told.
        line: One-based line of the definition (of its first decorator), 0 where unknown.
        version: Version of its config, 1 or more.
        migrate: `migrate(config, from_version)` returns the config of this version, or `None`.
        migrate_weights: `migrate_weights(weights, from_version)` returns the arrays of this
            version by name, or `None`.
    """

    name: str
    obj: Any
    aliases: tuple[str, ...] = ()
    file: str = "<unknown>"
    line: int = 0
    version: int = 1
    migrate: Migration | None = None
    migrate_weights: WeightsMigration | None = None

    @property
    def place(self) -> str:
        """Where it was defined, as `file:line`."""
        return f"{self.file}:{self.line}"

    @property
    def package(self) -> str:
        """The part of the registered name before the `>`."""
        return package_of(self.name)

    @property
    def bare_name(self) -> str:
        """The part of the registered name behind the `>`."""
        return bare(self.name)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every spelling that is this object's own: its name, its aliases.

        A bare alias stands for two: the name of a class that was saved before it was registered,
        and the name in the same package.
        """
        keys = [self.name]
        for alias in self.aliases:
            keys += [alias] if ">" in alias else [alias, f"{self.package}>{alias}"]
        return tuple(dict.fromkeys(keys))

    @property
    def package_version(self) -> str | None:
        """Version of the installed distribution that defines it, or `None`."""
        return _version_of(str(getattr(self.obj, "__module__", "") or "").partition(".")[0])


@dataclass(frozen=True)
class Found:
    """The answer to one lookup.

    Attributes:
        obj: The class or function.
        how: `"custom_objects"`, `"scope"`, `"registered"`, `"alias"` or `"plug-in"`.
        entry: Its entry where it is registered, or `None`.
    """

    obj: Any
    how: str
    entry: Entry | None = None


@functools.lru_cache(maxsize=256)
def _version_of(top_level: str) -> str | None:
    # Importing it takes longer than inspecting a file of this package.
    import importlib.metadata

    for distribution in _distributions().get(top_level, ()):
        return importlib.metadata.version(distribution)
    version = getattr(sys.modules.get(top_level), "__version__", None)
    return version if isinstance(version, str) else None


@functools.lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    import importlib.metadata

    return dict(importlib.metadata.packages_distributions())


@dataclass(frozen=True)
class Options:
    """What `register` was asked for; see there."""

    package: str | None
    name: str | None
    aliases: tuple[str, ...]
    version: int
    migrate: Migration | None
    migrate_weights: WeightsMigration | None
    replace: bool

    @classmethod
    def checked(
        cls,
        package: Any,
        name: Any,
        aliases: Any,
        version: Any,
        migrate: Any,
        migrate_weights: Any,
        replace: Any,
    ) -> Self:
        """Return the options.

        Raises:
            ArgumentError: Some cannot work; all are listed.
        """
        problems = [
            f"{what}={value!r} is not a name (text without `>`)"
            for what, value in (("package", package), ("name", name))
            if value is not None and not _is_half(value)
        ]
        if isinstance(aliases, str) or not isinstance(aliases, Iterable):
            problems.append(f"aliases={aliases!r} is not a list of names")
            aliases = ()
        aliases = tuple(aliases)
        problems += [
            f"the alias {alias!r} is neither `Name` nor `package>Name`"
            for alias in aliases
            if not isinstance(alias, str)
            or alias.count(">") > 1
            or not all(map(_is_half, alias.split(">")))
        ]
        whole = isinstance(version, int) and not isinstance(version, bool)
        if not whole or version < 1:
            problems.append(f"version={version!r} is not a whole number of 1 or more")
        for what, function in (("migrate", migrate), ("migrate_weights", migrate_weights)):
            if function is not None and not callable(function):
                problems.append(f"{what}={function!r} is not a function")
            elif function is not None and version == 1:
                problems.append(f"{what}= without version=: there is nothing older than version 1")
        if problems:
            raise ArgumentError(
                f"Cannot register: {'; '.join(problems)}.",
                received=f"package={package!r}, name={name!r}, aliases={aliases!r}, "
                f"version={version!r}, migrate={migrate!r}, migrate_weights={migrate_weights!r}",
                remedy='Write @register("my_package", name="Name", aliases=["OldName"], version=2, '
                "migrate=function, migrate_weights=function), leaving out what is not needed.",
            )
        return cls(package, name, aliases, version, migrate, migrate_weights, bool(replace))


def _is_half(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and ">" not in value
