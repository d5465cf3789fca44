"""Select and rename tensors of a file for `diff` and `export`.

A run's checkpoint has a group for each tracked object. A model's own file has the model at its
root, and its optimizer in `optimizer/`. To compare or convert them, the model is moved out of its
group, with the optimizer that was built on its variables. All other paths are unchanged.
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
"""The path of a tensor in the file, by its new name."""


def places_at_root(record: Record | None, paths: Iterable[str]) -> Places:
    """Return tensors with the only model of a run's checkpoint moved to the root.

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

    Without `raw_vars`: a file of Keras has no place for them, and contains what it derives from
    them.

    Args:
        record: The record of the file; if it tracks no objects, all tensors are returned.
        paths: The tensors of the file.
        name: The object. Default: its one model, with the optimizer that was built on it.
        path: The file, for messages.

    Raises:
        ArgumentError: it has no such object, or several models and no `name` was given.
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
            f"The model to use in the checkpoint is not clear; it has {held}.",
            received=f"path={path!r}",
            remedy="Name the object to use: `--object NAME`.",
        )
    return regrouped(paths, _groups(record, record.model))


def _groups(record: Record, model: str) -> dict[str, str]:
    """Return the groups of a model and of its optimizer, and their places at the root."""
    groups = {f"{model}/": ""}
    own = record.optimizers_of(model)
    # A file of a model has a place for one optimizer only.
    return {**groups, f"{own[0]}/": OPTIMIZER_GROUP} if len(own) == 1 else groups


def matcher(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return a regular expression that matches any of these patterns, `None` if there are none.

    A pattern is a path with `*`, `?` and `[...]`; the path of a group matches all below it.

    >>> bool(matcher(["layers/dense"]).match("layers/dense/vars/0"))
    True
    """
    parts = [part for one in patterns for part in (translate(one), translate(f"{one}/*"))]
    return re.compile("|".join(parts), re.DOTALL) if parts else None


def renamed(places: Mapping[str, str], rules: Iterable[tuple[str, str]]) -> Places:
    """Return the same tensors under new names.

    Args:
        places: The tensors.
        rules: `(old, new)`; the text that `*` matches in `old` replaces the `*` in `new`. The first
            rule that matches a name is used.

    Raises:
            ArgumentError: a rule matches nothing, or gives two tensors one name.

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
                remedy="Write the rule so that all names stay different: with a `*` on both sides.",
            )
        found[fresh] = place
    if idle := [old for old, _, _ in compiled if old not in used]:
        raise ArgumentError(
            f"No tensor has a name like {', '.join(map(repr, idle))}.",
            received=f"names such as {', '.join(list(places)[:5])}",
            remedy="Write `OLD=NEW` with the names as `keras-ckpt inspect --json` prints them.",
        )
    return found


def _rule(old: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, old.split("*"))), re.DOTALL)
