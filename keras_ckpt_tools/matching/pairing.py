"""Pair the tensors of a file with those of a model.

Keras' paths number the layers of a class: `layers/dense_1` is the second `Dense`, whatever its
name. So an inserted layer shifts all layers after it, and weights of the same shape would be loaded
into the wrong layers without a warning. Files contain the names of layers, so layers in lists are
paired by name first. The remaining layers are paired by position, but never two layers with
different names given by the user.

Generated names (`dense_3` for a `Dense`) are ignored, because they count all layers of a process.
Only if both sides have the same generated names in a different order, this is a mismatch: layers
have changed places or are created in another order, and the file does not show which. If a path
contains an attribute (`encoder` for `self.encoder`), it is paired by this name.

Uses only paths, shapes and names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools.metadata import TensorInfo

_NUMBER = re.compile(r"_[0-9]{1,18}$")
_Tree = dict[str, Any]


@dataclass(frozen=True)
class Pairing:
    """Which tensor belongs to which.

    Attributes:
        paths: The path in the checkpoint, by the path in the model.
        misnamed: Groups of the same place and the same shapes and of different names, as
            `(group in the checkpoint, name there, group in the model, name there)`. They are no
            pair.
    """

    paths: dict[str, str] = field(default_factory=dict)
    misnamed: list[tuple[str, str, str, str]] = field(default_factory=list)


def pair(
    expected: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    expected_names: Mapping[str, str],
    found_names: Mapping[str, str],
    settled: frozenset[str] = frozenset(),
) -> Pairing:
    """Pair the tensors of a model with those of a checkpoint.

    Args:
        expected: The tensors of the model.
        found: Those of the checkpoint.
        expected_names: What the model's layers are called, by group.
        found_names: What those of the checkpoint were called, by group.
        settled: Paths that pair with the same path, whatever the names are.
    """
    if not expected_names or not found_names:
        return Pairing({path: path for path in expected if path in found})
    pairs = _Pairs(expected_names, found_names, settled)
    pairs.objects(_tree(expected), _tree(found), "", "")
    order = {path: number for number, path in enumerate(expected)}
    paths = dict(sorted(pairs.found.paths.items(), key=lambda both: order[both[0]]))
    return Pairing(paths, pairs.found.misnamed)


def _tree(tensors: Mapping[str, TensorInfo]) -> _Tree:
    root: _Tree = {}
    for path, info in tensors.items():
        *groups, last = path.split("/")
        node = root
        for group in groups:
            inner = node.setdefault(group, {})
            if not isinstance(inner, dict):
                break  # A file may call a tensor and a group the same; such a path fits nothing.
            node = inner
        else:
            node.setdefault(last, info)
    return root


@dataclass(frozen=True)
class _Child:
    """One layer of a list: its segment of the path, what it holds, and what its user called it.

    `label` is its name, generated or not.
    """

    segment: str
    tree: _Tree
    name: str | None
    label: str | None

    @property
    def kind(self) -> str:
        return _NUMBER.sub("", self.segment)

    @property
    def number(self) -> int:
        return int(self.segment[len(self.kind) + 1 :] or 0)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(_shapes(self.tree, ""))


class _Pairs:
    def __init__(self, ours: Mapping[str, str], theirs: Mapping[str, str], settled: frozenset[str]):
        self.found = Pairing()
        self._ours = ours
        self._theirs = theirs
        self._settled = {group for path in settled for group in _groups_above(path)}

    def objects(self, ours: _Tree, theirs: _Tree, here: str, there: str) -> None:
        """Pair what is below two groups."""
        if self._are_lists(ours, theirs, here, there):
            chosen = list(self._by_name(ours, theirs, here, there))
        else:
            chosen = [(segment, segment) for segment in ours if segment in theirs]
        for segment, other in chosen:
            mine, its = ours[segment], theirs[other]
            inner, outer = f"{here}{segment}", f"{there}{other}"
            if isinstance(mine, dict) and isinstance(its, dict):
                self.objects(mine, its, f"{inner}/", f"{outer}/")
            elif not isinstance(mine, dict) and not isinstance(its, dict):
                self.found.paths[inner] = outer

    def _are_lists(self, ours: _Tree, theirs: _Tree, here: str, there: str) -> bool:
        # Layers, models and optimizers have names; the list that they are in has none.
        sides = ((ours, here, self._ours), (theirs, there, self._theirs))
        return all(
            group
            and group.rstrip("/") not in names
            and any(f"{group}{segment}" in names for segment in tree)
            for tree, group, names in sides
        )

    def _by_name(
        self, ours: _Tree, theirs: _Tree, here: str, there: str
    ) -> Iterator[tuple[str, str]]:
        mine = _children(ours, here, self._ours)
        its = _children(theirs, there, self._theirs)
        for segment in list(mine):
            if f"{here}{segment}" in self._settled and segment in its:
                yield segment, segment
                del mine[segment], its[segment]
        moved = set()
        in_another_order = _in_another_order(mine, its)
        for one, other in _same_names(mine, its):
            yield one.segment, other.segment
            del mine[one.segment], its[other.segment]
            if one.segment != other.segment:
                moved |= {one.kind, other.kind}
        for one, other in _same_places(mine, its, moved):
            unlike = one.kind in in_another_order and one.label != other.label
            if not unlike and (one.name is None or other.name in (None, one.name)):
                yield one.segment, other.segment
            elif one.shapes == other.shapes:
                ours_is, theirs_is = f"{here}{one.segment}", f"{there}{other.segment}"
                self.found.misnamed.append((theirs_is, str(other.label), ours_is, str(one.label)))


def _children(tree: _Tree, group: str, names: Mapping[str, str]) -> dict[str, _Child]:
    labels = {segment: names.get(f"{group}{segment}") for segment in tree}
    return {
        segment: _Child(segment, inner, given_name(labels[segment], segment), labels[segment])
        for segment, inner in tree.items()
        if isinstance(inner, dict)
    }


def _in_another_order(mine: Mapping[str, _Child], its: Mapping[str, _Child]) -> set[str]:
    """Return the classes of which both sides have the same names, and in another order."""
    found = set()
    for kind in {child.kind for child in mine.values()}:
        ours, theirs = (
            {c.number: c.label for c in side.values() if c.kind == kind and c.name is None}
            for side in (mine, its)
        )
        if ours != theirs and None not in ours.values():
            same = sorted(map(str, ours.values())) == sorted(map(str, theirs.values()))
            found |= {kind} if same else set()
    return found


def given_name(name: str | None, segment: str) -> str | None:
    """Return the name that a user gave; `None` for one that Keras made up.

    >>> given_name("dense_7", "dense_1"), given_name("head", "dense_1")
    (None, 'head')
    """
    made_up = not name or _NUMBER.sub("", name) == _NUMBER.sub("", segment)
    return None if made_up else name


def _same_names(
    mine: Mapping[str, _Child], its: Mapping[str, _Child]
) -> list[tuple[_Child, _Child]]:
    """Return who is called the same, where that is one on either side."""
    ours, theirs = _unique(mine), _unique(its)
    both = [(one, theirs[name]) for name, one in ours.items() if name in theirs]
    return [(a, b) for a, b in both if a.kind == b.kind or a.shapes == b.shapes]


def _unique(children: Mapping[str, _Child]) -> dict[str, _Child]:
    named: dict[str, list[_Child]] = {}
    for child in children.values():
        if child.name is not None:
            named.setdefault(child.name, []).append(child)
    return {name: found[0] for name, found in named.items() if len(found) == 1}


def _same_places(
    mine: Mapping[str, _Child], its: Mapping[str, _Child], moved: set[str]
) -> Iterator[tuple[_Child, _Child]]:
    """Yield who is left in the same place: among the others of its class, where some have moved."""
    yield from (
        (child, its[segment])
        for segment, child in mine.items()
        if segment in its and child.kind not in moved
    )
    for kind in sorted(moved):
        left = [
            sorted((c for c in side.values() if c.kind == kind), key=lambda c: c.number)
            for side in (mine, its)
        ]
        yield from zip(*left, strict=False)


def _shapes(tree: _Tree, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for segment, inner in tree.items():
        if isinstance(inner, dict):
            yield from _shapes(inner, f"{prefix}{segment}/")
        else:
            yield f"{prefix}{segment}", inner.shape


def _groups_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
