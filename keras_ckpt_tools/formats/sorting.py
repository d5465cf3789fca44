"""Which paths match, and how the others do not: pairs -> *sorted* -> report.

The state of an optimizer is set apart here: as a whole, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from keras_ckpt_tools.formats.dtypes import may_be_cast
from keras_ckpt_tools.formats.pairing import Pairing
from keras_ckpt_tools.metadata import TensorInfo

__all__ = ["OPTIMIZER_GROUP", "RAW", "Sorted", "is_raw", "set_optimizers_apart", "sort"]

OPTIMIZER_GROUP = "optimizer/"
RANDOM = "random_state"

# Beside the `vars` of a layer: its variables as they are, where Keras saves something else.
RAW = "raw_vars"


def is_raw(path: str) -> bool:
    """Return whether a path is that of a variable which Keras' own layout does not hold as it is.

    >>> is_raw("layers/dense/raw_vars/0"), is_raw("layers/dense/vars/0")
    (True, False)
    """
    return f"/{RAW}/" in f"/{path}"


def vars_beside(path: str) -> str:
    """Return the group in which Keras keeps what it saves of the layer of such a variable.

    >>> vars_beside("layers/dense/raw_vars/0"), vars_beside("raw_vars/0")
    ('layers/dense/vars', 'vars')
    """
    group = path.rpartition("/")[0]
    return f"{group.removesuffix(RAW)}vars"


@dataclass
class Sorted:
    """Paths in the model (`unexpected`: in the checkpoint), by what is to be said of them.

    `shape` and `dtype` have the path in the checkpoint of each that is unlike, `cast` that of each
    in `matched` that becomes another dtype.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    shape: dict[str, str] = field(default_factory=dict)
    dtype: dict[str, str] = field(default_factory=dict)
    cast: dict[str, str] = field(default_factory=dict)

    def without(self, unwanted: set[str]) -> None:
        """Take paths out that are spoken of elsewhere."""
        for name in ("matched", "missing", "unexpected"):
            setattr(self, name, [p for p in getattr(self, name) if p not in unwanted])
        self.shape = {p: o for p, o in self.shape.items() if p not in unwanted}
        self.dtype = {p: o for p, o in self.dtype.items() if p not in unwanted}


def sort(
    expected: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    pairing: Pairing,
    chosen: set[str],
    exact: bool = False,
) -> Sorted:
    """Say of each path whether it matches.

    Args:
        expected: Tensors of the model.
        found: Tensors of the checkpoint.
        pairing: Which belong together.
        chosen: The paths that are meant.
        exact: Whether nothing may be cast.
    """
    result = Sorted()
    for path, ours in expected.items():
        other = pairing.paths.get(path)
        if path not in chosen:
            result.left_out.append(path)
        elif other is None:
            result.missing.append(path)
        elif ours.shape != found[other].shape:
            result.shape[path] = other
        elif ours.dtype != found[other].dtype:
            if exact or not may_be_cast(found[other].dtype, ours.dtype):
                result.dtype[path] = other
                continue
            result.cast[path] = other
            result.matched.append(path)
        else:
            result.matched.append(path)
    taken = set(pairing.paths.values())
    for path in found:
        if path not in taken:
            (result.unexpected if path in chosen else result.left_out).append(path)
    result.left_out = list(dict.fromkeys(result.left_out))
    return result


def set_optimizers_apart(
    result: Sorted,
    expected: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    groups: Iterable[str],
    differs: dict[str, str],
    optimizer_may_differ: bool,
    theirs: Iterable[str] = (),
) -> None:
    """Set the state of optimizers apart that goes nowhere, each as a whole.

    Args:
        result: What was sorted; changed in place.
        expected: Tensors of the model.
        found: Tensors of the checkpoint.
        groups: Where the model has optimizers.
        differs: Why an optimizer is another one, by its group; takes those that do not fit.
        optimizer_may_differ: Whether it may be that only one side has one.
        theirs: Where the checkpoint has optimizers, as far as it says.
    """
    everything = (*expected, *found)
    left_out = set(result.left_out)
    prefixes = {OPTIMIZER_GROUP, *(f"{group}/" if group else "" for group in groups)}
    for group in differs:
        prefix = f"{group}/" if group else ""
        unwanted = {p for p in everything if p.startswith(prefix)} - left_out
        result.skipped += [p for p in everything if p in unwanted]
        result.without(unwanted)
    # Those in attributes of a model (a GAN's) are only there if its own `compile` was called.
    attributes = {f"{group}/" for group in theirs if group and f"{group}/" not in prefixes}
    for prefix in sorted({OPTIMIZER_GROUP, *attributes} if optimizer_may_differ else ()):
        if _only_on_one_side(prefix, expected, found):
            unwanted = {p for p in everything if p.startswith(prefix)} - left_out
            result.skipped += [p for p in everything if p in unwanted]
            result.without(unwanted)
    unfit = [*result.missing, *result.unexpected, *result.shape, *result.dtype]
    for prefix in sorted(prefixes):
        count = sum(p.startswith(prefix) for p in unfit)
        whole = {p for p in result.matched if p.startswith(prefix)}
        if count and whole:
            result.skipped += [p for p in result.matched if p in whole]
            result.matched = [p for p in result.matched if p not in whole]
            differs[prefix.rstrip("/")] = f"{count} of its tensors do not fit"


# What a metric is called, or its attribute.
_METRIC = re.compile(
    r"metric|tracker|loss|auc|precision|recall|accuracy|f1|iou|positives|negatives", re.IGNORECASE
)


def leave_what_is_around(
    result: Sorted,
    expected: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    optimizers: Iterable[str],
    names: Mapping[str, str],
    differs: dict[str, str],
) -> None:
    """Set apart what does not fit and is not a weight: each object's state as a whole.

    Args:
        result: What was sorted; changed in place.
        expected: Tensors of the model.
        found: Tensors of the checkpoint.
        optimizers: Where optimizers are, on either side.
        names: What objects are called in the checkpoint, by group.
        differs: Takes why the state of an object is left, by its group.
    """
    groups = {OPTIMIZER_GROUP.rstrip("/"), RANDOM, *optimizers} - {""}
    unexpected = set(result.unexpected)
    owners: dict[str, int] = {}
    for path in (*result.missing, *result.unexpected, *result.shape, *result.dtype):
        owner = next((group for group in groups if path.startswith(f"{group}/")), None)
        if owner is None and path in unexpected:
            group = path.rpartition("/vars/")[0]
            if not any(p.startswith(f"{group}/") for p in expected) and _is_of_training(
                group, found, names.get(group, "")
            ):
                owner = group
        if owner is not None:
            owners[owner] = owners.get(owner, 0) + 1
    for owner, count in owners.items():
        whole = [p for p in (*expected, *found) if p.startswith(f"{owner}/")]
        theirs = any(p.startswith(f"{owner}/") for p in found)
        ours = any(p.startswith(f"{owner}/") for p in expected)
        why = "the model has no such object" if theirs else "the file does not have it"
        differs.setdefault(owner, f"{count} of its tensors do not fit" if theirs and ours else why)
        result.skipped += [p for p in whole if p not in result.skipped]
    for owner in differs:
        result.without({p for p in (*expected, *found) if p.startswith(f"{owner}/")})


def _is_of_training(group: str, found: Mapping[str, TensorInfo], name: str) -> bool:
    """Return whether tensors that the model has no object for look like an optimizer or a metric.

    An optimizer begins with its step, an integer. Most metrics have single numbers only.
    """
    if group.startswith("layers/") or not group:
        return False
    infos = [info for path, info in found.items() if path.rpartition("/")[0] == f"{group}/vars"]
    first = found.get(f"{group}/vars/0")
    if first is not None and first.shape == () and "int" in first.dtype:
        return True
    if all(info.shape == () for info in infos):
        return True
    called = f"{group.rpartition('/')[2]} {name}"
    return _METRIC.search(called) is not None and len({info.shape for info in infos}) == 1


def _only_on_one_side(prefix: str, one: Iterable[str], other: Iterable[str]) -> bool:
    return any(p.startswith(prefix) for p in one) != any(p.startswith(prefix) for p in other)
