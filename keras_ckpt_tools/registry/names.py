"""Match qualified and bare names.

Keras writes `package>Name` for registered objects and a bare `Name` for others, so a class can have
two names, depending on when its file was saved. All tables (explicit custom objects, scopes,
registry, plug-ins) use the functions here, so they agree. A bare name matches an object of any
package, if there is only one; a qualified name never matches another package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from keras_ckpt_tools.errors import RegistryError

_Value = TypeVar("_Value")
_CLOSE_ENOUGH = 0.6
# Comparing two names takes as long as both are long, multiplied.
_LONGEST = 200


def bare(name: str) -> str:
    """Return the part behind the package.

    >>> bare("my_package>Scale"), bare("Scale")
    ('Scale', 'Scale')
    """
    return name.rpartition(">")[2]


def package_of(name: str) -> str:
    """Return the package of a qualified name, or an empty string.

    >>> package_of("my_package>Scale"), package_of("Scale")
    ('my_package', '')
    """
    return name.rpartition(">")[0]


def match(name: str, table: Mapping[str, _Value], *, bare_keys: bool = True) -> str | None:
    """Return the key of `table` that `name` stands for, or `None`.

    Args:
        name: The name asked for, qualified or bare.
        table: Objects by name.
        bare_keys: Whether a bare key also answers for a qualified name. It does where a user wrote
            the table for this load, not in the registry, where each package keeps to its own.

    Raises:
        RegistryError: `name` is bare, and several packages have another object of that name.

    >>> match("a>Scale", {"Scale": 1}), match("Scale", {"a>Scale": 1})
    ('Scale', 'a>Scale')
    >>> match("b>Scale", {"a>Scale": 1}) is None
    True
    """
    if name in table:
        return name
    if ">" in name:
        return bare(name) if bare_keys and bare(name) in table else None
    candidates = sorted(key for key in table if ">" in key and bare(key) == name)
    if len({id(table[key]) for key in candidates}) > 1:
        raise RegistryError(
            f"Several objects have the name {name!r}: {', '.join(candidates)}.",
            received=f"name={name!r}",
            remedy=f"Use the full name of one of them, {candidates[0]!r} for example, or pass "
            f"custom_objects={{{name!r}: ...}}.",
            name=name,
        )
    return candidates[0] if candidates else None


def nearest(name: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """Return the names most like `name`, the most alike first.

    >>> nearest("old_package>Scale", ["my_package>Scale", "my_package>Scalar", "x>Other"])
    ('my_package>Scale', 'my_package>Scalar')
    """
    if len(name) > _LONGEST:
        return ()
    of_name = difflib.SequenceMatcher(None, "", bare(name).casefold())
    of_whole = difflib.SequenceMatcher(None, "", name.casefold())

    def likeness(other: str) -> float:
        # The name counts for more than the package: packages get renamed as a whole.
        of_name.set_seq1(bare(other).casefold())
        # Upper bounds, which are quick: most names are nothing like it.
        for bound in (of_name.real_quick_ratio, of_name.quick_ratio):
            if bound() + 0.01 < _CLOSE_ENOUGH:
                return 0.0
        of_whole.set_seq1(other.casefold())
        return of_name.ratio() + of_whole.ratio() / 100

    likely = (other for other in set(known) if len(other) <= _LONGEST)
    scored = sorted(((-likeness(other), other) for other in likely), key=lambda pair: pair)
    return tuple(other for score, other in scored if -score >= _CLOSE_ENOUGH)[:limit]
