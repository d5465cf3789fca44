"""Which paths match, and how the others do not: pairs -> *sorted* -> report.

The state of an optimizer is set apart here: as a whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from keras_ckpt_tools.formats.pairing import Pairing
from keras_ckpt_tools.metadata import TensorInfo

__all__ = ["OPTIMIZER_GROUP", "RAW", "Sorted", "is_raw", "set_optimizers_apart", "sort"]

OPTIMIZER_GROUP = "optimizer/"

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

    `shape` and `dtype` have the path in the checkpoint of each that is unlike.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    shape: dict[str, str] = field(default_factory=dict)
    dtype: dict[str, str] = field(default_factory=dict)

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
) -> Sorted:
    """Say of each path whether it matches.

    Args:
        expected: Tensors of the model.
        found: Tensors of the checkpoint.
        pairing: Which belong together.
        chosen: The paths that are meant.
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
            result.dtype[path] = other
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


def _only_on_one_side(prefix: str, one: Iterable[str], other: Iterable[str]) -> bool:
    return any(p.startswith(prefix) for p in one) != any(p.startswith(prefix) for p in other)
