"""Find names that installed packages declare.

A package declares its objects in the entry-point group `keras_ckpt_tools.objects`, one entry point
for each name:

    [project.entry-points."keras_ckpt_tools.objects"]
    "my_package>ResidualBlock" = "my_package.layers:ResidualBlock"

The names are read from the metadata of installed packages; a module is imported only when one of
its names is needed. If a plug-in cannot be imported, a warning says so and its names are not found:
the load may not need them.
"""

from __future__ import annotations

import functools
import os
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.errors import RegistryError
from keras_ckpt_tools.registry.names import match
from keras_ckpt_tools.showing.messages import warn

GROUP = "keras_ckpt_tools.objects"

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def declared() -> dict[str, list[EntryPoint]]:
    """Return the declared entry points by name. Imports none of them."""
    return _declared_in(tuple((place, _changed(place)) for place in sys.path))


def _changed(place: str) -> int | None:
    """Return when something was last installed in a place, or removed from it."""
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return None


@functools.lru_cache(maxsize=1)
def _declared_in(places: tuple[tuple[str, int | None], ...]) -> dict[str, list[EntryPoint]]:
    # Reading the metadata of all packages takes milliseconds, and a file may have thousands of
    # unknown names. The import brings half of the standard library's mail and network
    # modules with it, and most files need no plug-in.
    from importlib.metadata import entry_points

    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        # A package that is installed twice (editable, say) declares the same object twice.
        found.setdefault(point.name.strip(), {}).setdefault(point.value, point)
    return {name: list(points.values()) for name, points in found.items()}


def plugin_for(name: str) -> EntryPoint | None:
    """Return the entry point that declares `name`, qualified or bare, or `None`.

    Raises:
        RegistryError: Several packages declare different objects under the name.
    """
    points = declared()
    key = match(name, {key: tuple(values) for key, values in points.items()})
    if key is None:
        return None
    if len(points[key]) > 1:
        owners = ", ".join(describe(point) for point in points[key])
        raise RegistryError(
            f"Several plug-ins declare {key!r}: {owners}.",
            received=f"name={name!r}",
            remedy=f"Uninstall all but one, or pass custom_objects={{{name!r}: ...}}.",
            name=name,
        )
    return points[key][0]


def load_plugin(point: EntryPoint) -> Any:
    """Import what an entry point names; `None`, with a warning, where that fails."""
    try:
        obj = point.load()
    except Exception as error:  # noqa: BLE001 - a plug-in's code may raise anything
        _warn(point, f"does not import: {type(error).__name__}: {error}")
        return None
    if not isinstance(obj, (type, FunctionType)):
        _warn(point, f"is neither a class nor a function, but {obj!r}")
        return None
    return obj


def serves(point: EntryPoint, name: str, keys: tuple[str, ...]) -> bool:
    """Return whether a loaded plug-in is what `name` means.

    A bare declaration answers for a qualified name too, unless importing it has registered its
    object under `keys` that are another package's.
    """
    return point.name.strip() == name or ">" not in name or not keys or name in keys


def describe(point: EntryPoint) -> str:
    """Return the entry point's name, target and distribution for a message."""
    owner = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    return f"{point.name} = {point.value}{owner}"


def _warn(point: EntryPoint, why: str) -> None:
    warn(
        f"The plug-in {describe(point)} {why}. Its name counts as not found. Repair or uninstall "
        f"the package, or pass custom_objects={{{point.name!r}: ...}}.",
        UserWarning,
        stacklevel=5,
    )
