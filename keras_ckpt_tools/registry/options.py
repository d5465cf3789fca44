"""The arguments of `register`, checked all at once before anything is touched.

A decorator with arguments runs in two steps; checking in the first one lets the error point at
the line with the wrong argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.registry.entries import Migration, WeightsMigration

__all__ = ["Options"]


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
