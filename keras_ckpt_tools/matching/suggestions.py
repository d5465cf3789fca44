"""Suggest what a missing layer may have been called.

Layers are compared as a whole: a suggestion is made if another group has tensors with the same
shapes. Among several, the one with the most similar name is suggested.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

Shape = tuple[int, ...]
# Beyond that it is another model, and every pair of names would be compared.
_MOST = 200


def nearest(
    missing: Mapping[str, Shape],
    unexpected: Mapping[str, Shape],
    names: Mapping[str, str] | None = None,
    their_names: Mapping[str, str] | None = None,
    known: Iterable[tuple[str, str, str, str]] = (),
) -> dict[str, str]:
    """Return, for missing paths, the nearest unexpected path of the same shape.

    Args:
        missing: What the model lacks.
        unexpected: Further tensors of the checkpoint.
        names: What the layers of the model are called, by group.
        their_names: What those of the checkpoint were called.
        known: Groups that are the same place: `(there, name there, here, name here)`.

    >>> nearest({"layers/conv_b/vars/0": (3, 3)}, {"layers/conv_a/vars/0": (3, 3)})
    {'layers/conv_b/vars/0': 'layers/conv_a/vars/0'}
    """
    ours, theirs = _layers(missing), _layers(unexpected)
    found: dict[str, str] = {}
    for there, _, here, _ in known:
        for group in [g for g in ours if g == here or g.startswith(f"{here}/")]:
            other = there + group.removeprefix(here)
            if theirs.get(other) == ours[group]:
                found[group] = other
                del theirs[other]
    if len(ours) <= _MOST and len(theirs) <= _MOST:
        for group, shapes in ours.items():
            label = (names or {}).get(group, group)
            labels = {
                (their_names or {}).get(other, other): other
                for other, its in theirs.items()
                if its == shapes
            }
            near = difflib.get_close_matches(label, labels, n=1, cutoff=0.5)
            if group not in found and near:
                found[group] = labels[near[0]]
                del theirs[labels[near[0]]]
    return {
        path: found[group] + path.removeprefix(group)
        for path in missing
        if (group := _group(path)) in found
    }


def _group(path: str) -> str:
    """Return the layer that a tensor belongs to.

    >>> _group("layers/dense/vars/0"), _group("a")
    ('layers/dense', 'a')
    """
    group, found, _ = path.rpartition("/vars/")
    return group if found else path


def _layers(tensors: Mapping[str, Shape]) -> dict[str, dict[str, Shape]]:
    layers: dict[str, dict[str, Shape]] = {}
    for path, shape in tensors.items():
        group = _group(path)
        # Numbers for names: what is nearest says nothing.
        if group.split("/")[0] not in ("optimizer", "random_state"):
            layers.setdefault(group, {})[path.removeprefix(group)] = shape
    return layers


def as_rename(near: Mapping[str, str]) -> dict[str, str]:
    """Return the nearest paths as `rename=` takes them: what it was, and what it is.

    >>> as_rename({"layers/b/vars/0": "layers/a/vars/0", "layers/b/vars/1": "layers/a/vars/1"})
    {'layers/a/*': 'layers/b/*'}
    """
    return {_pattern(theirs): _pattern(ours) for ours, theirs in near.items()}


def _pattern(path: str) -> str:
    group = _group(path)
    return group if group == path else f"{group}/*"
