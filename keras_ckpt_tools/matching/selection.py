"""Apply `rename=`, `include=` and `exclude=` to the tensors of a file.

`rename=` maps paths in the file to paths in the model; `include=` and `exclude=` select tensors of
the model. They use only paths, before anything is read, so they work the same for every format. A
tensor that the user has renamed is not paired by layer names.

In a pattern, `*` matches any text, including slashes. A pattern without `*` is a path, or a group
with everything below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.tensor_source import Relabelled, TensorSource, places_of

Rename = Mapping[str, str] | Callable[[str], str | None]
Patterns = str | Iterable[str]


@dataclass(frozen=True)
class Renamed:
    """The tensors of a checkpoint under the paths that a user gave them.

    Attributes:
        source: The tensors.
        settled: The paths that the user gave.
        left_out: What the user's function gave no path, by its path in the checkpoint.
    """

    source: TensorSource
    settled: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The arguments `rename=`, `include=` and `exclude=`.

    Attributes:
        rename: Patterns of paths in the checkpoint and what they are in the model, or a function.
        include: Patterns of paths in the model; empty for all.
        exclude: Patterns of paths in the model.
    """

    rename: Rename | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, rename: Any = None, include: Any = None, exclude: Any = None) -> Selection:
        """Return the selection that a user means.

        Raises:
            ArgumentError: an argument cannot work.
        """
        wrong = []
        if isinstance(rename, Mapping):
            pairs = rename.items()
            wrong += [
                f"rename: {old!r} has {old.count('*')} `*` and {new!r} {new.count('*')}"
                if isinstance(old, str) and isinstance(new, str)
                else f"rename: {old!r}: {new!r} are not both text"
                for old, new in pairs
                if not (isinstance(old, str) and isinstance(new, str))
                or old.count("*") != new.count("*")
            ]
        elif rename is not None and not callable(rename):
            wrong.append(f"rename={rename!r} is neither a mapping nor a function")
        chosen = {}
        for name, value in (("include", include), ("exclude", exclude)):
            patterns = _patterns(value)
            if patterns is None or (name == "include" and value is not None and not patterns):
                wrong.append(f"{name}={value!r} is neither a pattern nor a list of patterns")
            chosen[name] = patterns or ()
        if wrong:
            raise ArgumentError(
                "These arguments cannot select tensors.",
                received="; ".join(wrong),
                remedy='Pass `rename={"old/path/*": "new/path/*"}`, with as many `*` on both '
                'sides, or a function; `include="layers/*"` or a list of such patterns.',
            )
        return cls(rename, chosen["include"], chosen["exclude"])

    def renamed(self, source: TensorSource) -> Renamed:
        """Return the tensors of a source under the paths that they are to have.

        Raises:
            ArgumentError: a pattern has nothing to rename, or two tensors would have one path.
        """
        if self.rename is None:
            return Renamed(source)
        wrong: list[str] = []
        if callable(self.rename):
            new_paths = {path: self.rename(path) for path in source.tensors}
            touched = {path for path, new in new_paths.items() if new != path}
            wrong += [
                f"{path!r} became {new!r}, which is not a path"
                for path, new in new_paths.items()
                if not isinstance(new, str | None) or new == ""
            ]
        else:
            places = places_of(source)
            known = {path: places.get(path, path) for path in source.tensors}
            new_paths, touched, unused = _translated(self.rename, known)
            wrong += [f"{pattern!r} is not a path in the checkpoint" for pattern in unused]
        paths: dict[str, str] = {}
        for path, new in new_paths.items():
            if isinstance(new, str) and new in paths:
                wrong.append(f"{paths[new]!r} and {path!r} would both be {new!r}")
            elif isinstance(new, str):
                paths[new] = path
        if wrong:
            raise ArgumentError(
                "`rename=` does not match the checkpoint; nothing was changed.",
                received="; ".join(wrong),
                remedy=f"See the paths in it with `kct.inspect({source.path!r})`.",
            )
        return Renamed(
            Relabelled(source, paths),
            frozenset(new for new, old in paths.items() if old in touched),
            tuple(path for path, new in new_paths.items() if new is None),
        )

    def chosen(self, paths: Iterable[str], everything: Iterable[str]) -> set[str]:
        """Return which paths are meant.

        Args:
            paths: Paths, as the model has them.
            everything: All paths that an `include` pattern may be about.

        Raises:
            ArgumentError: an `include` pattern is about none of them.
        """
        include = [_compiled(pattern) for pattern in self.include]
        exclude = [_compiled(pattern) for pattern in self.exclude]
        everything = set(everything)
        idle = [
            pattern
            for pattern, compiled in zip(self.include, include, strict=True)
            if not any(map(compiled.fullmatch, everything))
        ]
        if idle:
            raise ArgumentError(
                "`include=` has patterns that match no path; nothing was changed.",
                received=f"include={idle!r}",
                remedy="Pass paths as `kct.compare(model, path)` shows them; `*` stands for any "
                f"text. The first ones here: {', '.join(sorted(everything)[:5])}.",
            )
        return {
            path
            for path in paths
            if (not include or any(p.fullmatch(path) for p in include))
            and not any(p.fullmatch(path) for p in exclude)
        }

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out by `include` and `exclude`."""
        return not self.include and not self.exclude


ALL = Selection()


def _patterns(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return None
    patterns = tuple(value)
    return patterns if all(isinstance(p, str) for p in patterns) else None


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression.

    >>> bool(_compiled("layers/*/vars/0").fullmatch("layers/dense/vars/0"))
    True
    >>> bool(_compiled("layers/dense").fullmatch("layers/dense/vars/0"))
    True
    """
    text = "(.*)".join(map(re.escape, pattern.split("*")))
    return re.compile(text if "*" in pattern else f"{text.removesuffix('/')}(/.*)?", re.DOTALL)


def _translated(
    rename: Mapping[str, str], paths: Mapping[str, str]
) -> tuple[dict[str, str | None], set[str], list[str]]:
    """Return the new path of each, which of them a pattern was about, and idle patterns.

    Args:
        rename: Old patterns and new ones.
        paths: Each path, and what it is called in the file itself. A pattern may be about either.
    """
    rules = [(old, new, _compiled(old)) for old, new in rename.items()]
    idle = dict.fromkeys(rename)
    translated: dict[str, str | None] = {}
    touched: set[str] = set()
    for path, place in paths.items():
        translated[path] = path
        for old, new, compiled in rules:
            found = compiled.fullmatch(place) or compiled.fullmatch(path)
            if found is None:
                continue
            idle.pop(old, None)
            if path not in touched:
                touched.add(path)
                translated[path] = _filled(new, "*" in old, found)
    return translated, touched, list(idle)


def _filled(new: str, has_stars: bool, found: re.Match[str]) -> str:
    if not has_stars:
        return new.removesuffix("/") + (found[1] or "")
    first, *rest = new.split("*")
    return first + "".join(g + piece for g, piece in zip(found.groups(), rest, strict=True))
