"""What the user trusts: *trusted=* -> gate.

Trust is a list of names that the user writes down, never a boolean, and never something that a file
says. A name allows one object; `"keras_hub>*"` allows one package; `"lambda:scale"` allows the code
in the Lambda layer of that name, because code in a file has no other name, and `"path:words.txt"`
the one file that a layer would open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_ckpt_tools.errors import ArgumentError

__all__ = ["Trust"]

_EXAMPLES = '`trusted=["my_package>Scale", "keras_hub>*", "lambda:scale"]`'


@dataclass(frozen=True)
class Trust:
    """Names that the user allows.

    >>> trust = Trust.of(["my_package>Scale", "keras_hub>*"])
    >>> trust.allows("my_package>Scale"), trust.allows("keras_hub>Bert"), trust.allows("Scale")
    (True, True, False)
    """

    names: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()

    @classmethod
    def of(cls, trusted: Iterable[str]) -> Trust:
        """Read a `trusted=` argument.

        Raises:
            ArgumentError: it is no list of names, or it would trust everything.
        """
        if isinstance(trusted, bool):
            raise ArgumentError(
                "Trust is given by name; there is no `trusted=True`.",
                received=f"trusted={trusted!r}",
                remedy=f"List what the file may use, {_EXAMPLES}; `kct.inspect(path)` shows what "
                "it needs.",
            )
        if isinstance(trusted, str) or not isinstance(trusted, Iterable):
            raise ArgumentError(
                "`trusted` is a list of names.",
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
        return cls(frozenset(n for n in given if not n.endswith(">*")), packages)

    def allows(self, *names: str) -> bool:
        """Return whether any of these names is allowed."""
        return any(name in self.names or name.startswith(self.packages) for name in names)


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not name.strip() or name in ("lambda:", "path:"):
        return False
    return "*" not in name or (name.endswith(">*") and name.count("*") == 1 and len(name) > 2)
