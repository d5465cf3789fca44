"""Read the `trusted=` argument, and decide which names it allows.

Trust is a list of names that the user writes, never a boolean, and never read from a file. A name
allows one object; `"keras_hub>*"` allows one package; `"lambda:scale"` allows the code in the
Lambda layer of that name; `"path:words.txt"` allows the one file that a layer opens.

Objects that Keras' own decorator registered are trusted if the loading program defined them: in
`__main__`, or in the package of the caller. Other objects there may come from any imported package.
`"registered-here"` adds all modules that are not installed. The module is read from the object, not
from its registered name.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from keras_ckpt_tools.errors import ArgumentError

REGISTERED_HERE = "registered-here"

_SELF = __name__.partition(".")[0]
# The second is the name of the parent's script in a spawned worker process.
_SCRIPTS = ("__main__", "__mp_main__")
_INSTALLED = ("site-packages", "dist-packages")
_LIBRARIES = ("builtins", "keras", "tensorflow", "tf_keras", _SELF)
_EXAMPLES = '`trusted=["my_package>Scale", "keras_hub>*", "lambda:scale"]`'


@dataclass(frozen=True)
class Trust:
    """Names that the user allows, and the packages whose registered objects need no name.

    Attributes:
        names: Allowed names.
        packages: Beginnings of allowed names, up to the `>`.
        caller: The package of the code that loads; the objects that it registered with Keras are
            trusted. `None` if every object needs a name.
        here: Whether the objects of all modules that are not installed are trusted, too.

    >>> trust = Trust.of(["my_package>Scale", "keras_hub>*"])
    >>> trust.allows("my_package>Scale"), trust.allows("keras_hub>Bert"), trust.allows("Scale")
    (True, True, False)
    """

    names: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()
    caller: str | None = None
    here: bool = False

    @classmethod
    def of(cls, trusted: Iterable[str], caller: str | None = None) -> Trust:
        """Read a `trusted=` argument.

        Raises:
            ArgumentError: it is not a list of names, or it would trust everything.
        """
        if isinstance(trusted, bool):
            raise ArgumentError(
                "Trust is given by name; there is no `trusted=True`.",
                received=f"trusted={trusted!r}",
                remedy=f"List what the file may use, {_EXAMPLES}; `kct.inspect(path)` shows what "
                "it needs.",
            )
        if trusted == REGISTERED_HERE:
            trusted = [REGISTERED_HERE]
        if isinstance(trusted, str) or not isinstance(trusted, Iterable):
            raise ArgumentError(
                "`trusted` must be a list of names.",
                received=f"trusted={trusted!r}",
                remedy=f"Pass a list, {_EXAMPLES}.",
            )
        given = list(trusted)
        bad = [name for name in given if not _is_name(name)]
        if bad:
            raise ArgumentError(
                "`trusted` takes names of objects, packages and Lambda layers.",
                received=f"trusted={given!r}, of which {', '.join(map(repr, bad))} cannot be used",
                remedy=f"Write each name out, {_EXAMPLES}; the only wildcard is a whole package.",
            )
        packages = tuple(name[:-1] for name in given if name.endswith(">*"))
        names = frozenset(n for n in given if not n.endswith(">*"))
        return cls(names - {REGISTERED_HERE}, packages, caller, REGISTERED_HERE in names)

    def allows(self, *names: str) -> bool:
        """Return whether any of these names is allowed."""
        return any(name in self.names or name.startswith(self.packages) for name in names)

    def is_own(self, obj: Any) -> bool:
        """Return whether the loading program defined an object itself."""
        name = getattr(obj, "__module__", None)
        if not isinstance(name, str) or name not in sys.modules:
            return False
        if name.partition(".")[0] in _LIBRARIES:
            return False
        if self.caller is not None and (
            name in _SCRIPTS or f"{name}.".startswith(f"{self.caller}.")
        ):
            return True
        return self.here and (name in _SCRIPTS or _is_not_installed(name))

    def is_own_if_here(self, obj: Any) -> bool:
        """Return whether `"registered-here"` would allow an object."""
        return Trust(here=True).is_own(obj)


def calling_package() -> str:
    """Return the package of the code that called this package.

    This is its top-level package. A namespace package (`google`) belongs to several owners, so for
    one it is the first package below it with an `__init__`, or the module itself. A script that was
    started with `python -m` belongs to its package.

    Python's own library is skipped: a thread pool, for example, calls functions of others. If
    nothing else is on the stack, as in such a thread, it is the running program.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        variables = frame.f_globals
        if _module_of(variables).partition(".")[0] != _SELF and not _is_of_python(variables):
            return _owner(_module_of(variables))
        frame = frame.f_back
    return _owner(_module_of(vars(sys.modules["__main__"])))


def _is_of_python(variables: dict[str, Any]) -> bool:
    if _module_of(variables).partition(".")[0] not in sys.stdlib_module_names:
        return False
    # A user's script or module may have the name of one of Python's.
    file = variables.get("__file__")
    return not isinstance(file, str) or os.path.realpath(file).startswith(_library())


def _library() -> tuple[str, ...]:
    """Return the folders of Python's own modules; installed packages may be below them."""
    paths = sysconfig.get_paths()
    return tuple(os.path.join(os.path.realpath(paths[k]), "") for k in ("stdlib", "platstdlib"))


def _module_of(variables: dict[str, Any]) -> str:
    name = variables.get("__name__")
    if name in _SCRIPTS:
        spec = variables.get("__spec__")
        name = getattr(spec, "name", None) or name
    return name if isinstance(name, str) else ""


def _owner(module: str) -> str:
    for name in _and_below(module):
        if getattr(sys.modules.get(name), "__file__", None) is not None:
            return name
    return module


def _and_below(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _is_not_installed(module: str) -> bool:
    """Return whether a module's file is neither in Python's library nor among installed packages.

    >>> _is_not_installed("json"), _is_not_installed("numpy")
    (False, False)
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(file, str):
        return False
    for place in (os.path.abspath(file), os.path.realpath(file)):
        folders = place.split(os.sep)
        if place.startswith(_library()) or set(folders) & set(_INSTALLED):
            return False
        if any(name.endswith(".egg") for name in folders) or _is_of_a_distribution(module, place):
            return False
    return True


def _is_of_a_distribution(module: str, file: str) -> bool:
    """Return whether an installer wrote a file, for example with `pip install --target`.

    The folder on `sys.path` then contains the list of the installed files. A distribution without
    the list counts for the whole folder. (The list of an editable install has no file of the
    project.)
    """
    # Rarely needed, and slow to import.
    import csv
    from importlib.metadata import distributions

    stem = _without_suffix(file)
    if os.path.basename(stem) == "__init__":
        stem = os.path.dirname(stem)
    root = stem
    for _ in module.split("."):
        root = os.path.dirname(root)
    inside = os.path.relpath(_without_suffix(file), root).replace(os.sep, "/")
    for one in distributions(path=[root]):
        written = one.read_text("RECORD")
        if written is not None:
            listed = {_without_suffix(row[0]) for row in csv.reader(written.splitlines()) if row}
        elif (written := one.read_text("installed-files.txt")) is not None:
            # Older installers write paths relative to the folder of the list.
            listed = {_without_suffix(name).removeprefix("../") for name in written.splitlines()}
        elif one.read_text("METADATA") is not None:
            return True
        else:
            continue
        if inside in listed:
            return True
    return False


def _without_suffix(file: str) -> str:
    folder, name = os.path.split(file)
    return os.path.join(folder, name.partition(".")[0])


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not name.strip() or name in ("lambda:", "path:"):
        return False
    return "*" not in name or (name.endswith(">*") and name.count("*") == 1 and len(name) > 2)
