"""What the public names can be called with, written down, and what became of it.

`python tests/helpers/public_signatures.py` writes `tests/helpers/public_signatures.json` again.
Users see each change in it: the diff belongs into the review, and a line into `CHANGELOG.md`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras_ckpt_tools as kct

FILE = Path(__file__).with_suffix(".json")
REGENERATE = "python tests/helpers/public_signatures.py"

Signatures = Mapping[str, list[str]]


def signatures() -> dict[str, list[str]]:
    """Return the parameters of everything public that can be called, by its name below `kct`."""
    found = {}
    for name, value in _public():
        found[name] = _parameters(value)
        if isinstance(value, type):
            found |= {f"{name}.{method}": shown for method, shown in _methods(value)}
    return dict(sorted(found.items()))


def _public() -> Iterator[tuple[str, Any]]:
    for name in kct.__all__:
        value = getattr(kct, name)
        if callable(value):
            yield name, value
    for name in kct.data.__all__:
        yield f"data.{name}", getattr(kct.data, name)
    for name in kct.errors.__all__:
        yield f"errors.{name}", getattr(kct.errors, name)
    yield "registry", type(kct.registry)


def _methods(cls: type) -> Iterator[tuple[str, list[str]]]:
    ours = [base for base in cls.__mro__ if base.__module__.startswith("keras_ckpt_tools")]
    for name in sorted({name for base in ours for name in vars(base) if not name.startswith("_")}):
        value = inspect.getattr_static(cls, name)
        if isinstance(value, property):
            yield name, ["(an attribute)"]
        elif isinstance(value, classmethod):
            yield name, _parameters(value.__func__)
        elif inspect.isfunction(value):
            yield name, _parameters(value)


def _parameters(value: Any) -> list[str]:
    shown = []
    star = False
    for one in inspect.signature(value).parameters.values():
        star = star or one.kind is one.VAR_POSITIONAL
        if one.kind is one.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        shown.append(str(one.replace(annotation=one.empty)))
        if one.kind is one.POSITIONAL_ONLY:
            shown[-1] += ", /"
    return [one for one in shown if one != "self"]


def differences(before: Signatures, now: Signatures) -> list[str]:
    """Return what has changed, as sentences that say what to do."""
    gone = [f"kct.{name} is gone: {_LOST}" for name in sorted(before.keys() - now.keys())]
    new = [f"kct.{name} is new: {_NEW}" for name in sorted(now.keys() - before.keys())]
    both = sorted(before.keys() & now.keys())
    return gone + new + [said for name in both for said in _told(name, before[name], now[name])]


def _told(name: str, before: list[str], now: list[str]) -> Iterator[str]:
    old, new = _by_name(before), _by_name(now)
    for one in old:
        if one not in new:
            yield f"kct.{name} has lost `{one}`: {_LOST}"
        elif old[one] != new[one]:
            yield f"kct.{name}: `{old[one]}` has become `{new[one]}`: {_CHANGED}"
    for one in new.keys() - old.keys():
        yield f"kct.{name} has a new `{one}`: {_NEW}"
    kept = [one for one in _positional(before) if one in new]
    if kept != _positional(now)[: len(kept)]:
        yield f"kct.{name} takes its positional arguments in another order: {_CHANGED}"


_LOST = (
    "programs that use it break. Take it for one more version, with a DeprecationWarning that "
    "names what takes its place, and say so in CHANGELOG.md. If it has to go now, it is a new "
    f"major version; then run `{REGENERATE}`."
)
_CHANGED = (
    "programs that rely on what it was get something else. If that is meant, say so in "
    f"CHANGELOG.md, under Changed, and run `{REGENERATE}`."
)
_NEW = f"it is a promise from now on. Say so in CHANGELOG.md, under Added, and run `{REGENERATE}`."


def _name(shown: str) -> str:
    return shown.partition("=")[0].removesuffix(", /")


def _by_name(shown: list[str]) -> dict[str, str]:
    return {_name(one): one for one in shown if one != "*"}


def _positional(shown: list[str]) -> list[str]:
    before_star = shown[: shown.index("*")] if "*" in shown else shown
    return [_name(one) for one in before_star if not one.startswith("*")]


if __name__ == "__main__":
    FILE.write_text(json.dumps(signatures(), indent=1) + "\n", encoding="utf-8")
