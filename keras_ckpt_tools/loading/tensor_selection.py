"""Which tensors go, and under which names: opened -> *places* -> diff, export.

A run's checkpoint has a group for each tracked object; a model's own file has the model at its
root, and its optimizer in `optimizer/`. To hold the one against the other, or to make the one of
the other, the model is taken out of its group, together with the optimizer that was built on its
variables. All else keeps its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.tensor_source import regrouped
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, is_raw
from keras_ckpt_tools.metadata import Record

Places = dict[str, str]
"""Where a tensor stands in the file, by the name that it is to have."""


def places_at_root(record: Record | None, paths: Iterable[str]) -> Places:
    """Return tensors with the one model of a run's checkpoint at the root, the rest as it is.

    >>> list(places_at_root(None, ["layers/dense/vars/0"]))
    ['layers/dense/vars/0']
    """
    paths = list(paths)
    if record is None or record.model is None:
        return {path: path for path in paths}
    taken = regrouped(paths, _groups(record, record.model))
    moved = set(taken.values())
    rest = {path: path for path in paths if path not in moved and path not in taken}
    return taken | rest


def places_of_object(
    record: Record | None, paths: Iterable[str], name: str | None, path: str
) -> Places:
    """Return the tensors of one object of a run's checkpoint, at the root.

    Without `raw_vars`: a file of Keras' own has no place for them, and what it makes of them is
    there too.

    Args:
        record: The record of the file; where it tracks nothing, all tensors are meant.
        paths: The tensors of the file.
        name: The object. Default: its one model, with the optimizer that was built on it.
        path: The file, for messages.

    Raises:
        ArgumentError: it has no such object, or several models and none was named.
    """
    paths = [one for one in paths if not is_raw(one)]
    tracked = record.objects_tracked if record else {}
    held = ", ".join(f"{key} ({one.kind})" for key, one in tracked.items())
    if name is not None and name not in tracked:
        raise ArgumentError(
            f"The checkpoint has no object {name!r}; it has {held}."
            if tracked
            else "The file is not the checkpoint of a run, so there are no objects to choose from.",
            received=f"object={name!r}, path={path!r}",
            remedy="Choose one of them." if tracked else "Leave `--object` out.",
        )
    if record is None or not tracked:
        return {one: one for one in paths}
    if name is not None:
        return regrouped(paths, {f"{name}/": ""})
    if record.model is None:
        raise ArgumentError(
            f"The checkpoint has not one model that is meant; it has {held}.",
            received=f"path={path!r}",
            remedy="Name the object that is to go: `--object NAME`.",
        )
    return regrouped(paths, _groups(record, record.model))


def _groups(record: Record, model: str) -> dict[str, str]:
    """Return the groups of a model and of its optimizer, and where they belong at the root."""
    groups = {f"{model}/": ""}
    own = record.optimizers_of(model)
    # Of several none is the one that a file of the model has a place for.
    return {**groups, f"{own[0]}/": OPTIMIZER_GROUP} if len(own) == 1 else groups


def matcher(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds the paths of any of these patterns, `None` where there are none.

    A pattern is a path with `*`, `?` and `[...]`; one that names a group means all below it.

    >>> bool(matcher(["layers/dense"]).match("layers/dense/vars/0"))
    True
    """
    parts = [part for one in patterns for part in (translate(one), translate(f"{one}/*"))]
    return re.compile("|".join(parts), re.DOTALL) if parts else None


def renamed(places: Mapping[str, str], rules: Iterable[tuple[str, str]]) -> Places:
    """Return the same tensors under other names.

    Args:
        places: The tensors.
        rules: `(old, new)`; where `old` has a `*`, what it stands for goes to the `*` in `new`. The
            first that fits a name counts.

    Raises:
        ArgumentError: a rule fits nothing, or gives two tensors one name.

    >>> renamed({"net.0.weight": "w"}, [("net.*.weight", "layers/dense_*/vars/0")])
    {'layers/dense_0/vars/0': 'w'}
    """
    compiled = [(old, _rule(old), new) for old, new in rules]
    used: set[str] = set()
    found: Places = {}
    for name, place in places.items():
        fresh = name
        for old, pattern, new in compiled:
            match = pattern.fullmatch(name)
            if match:
                used.add(old)
                parts = iter(match.groups())
                fresh = re.sub(r"\*", lambda _, parts=parts: next(parts, ""), new)  # type: ignore[misc]
                break
        if fresh in found:
            raise ArgumentError(
                f"Two tensors would have the name {fresh!r}.",
                received=f"rename of {name!r}",
                remedy="Write the rule so that each name stays apart: with a `*` on both sides.",
            )
        found[fresh] = place
    if idle := [old for old, _, _ in compiled if old not in used]:
        raise ArgumentError(
            f"Nothing has a name like {', '.join(map(repr, idle))}.",
            received=f"names such as {', '.join(list(places)[:5])}",
            remedy="Write `OLD=NEW` with the names as `keras-ckpt inspect --json` prints them.",
        )
    return found


def _rule(old: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, old.split("*"))), re.DOTALL)
