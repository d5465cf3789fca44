"""Compare the tensors that an object needs with those in a file.

Every format, `compare`, every load and every resumed run use this comparison. It uses only names,
shapes and dtypes, so it needs neither Keras nor the values of tensors.

Optimizer state is restored completely or not at all, even with `strict=False`: its arrays are
numbered, so a part of it could only be matched by position.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_ckpt_tools.errors import RestoreError
from keras_ckpt_tools.formats.common.dtypes import cast, may_be_cast
from keras_ckpt_tools.formats.layer_names import shown_as, variable_names
from keras_ckpt_tools.formats.optimizer_kinds import why_not
from keras_ckpt_tools.formats.tensor_source import (
    TensorSource,
    left_alone_by,
    names_of,
    optimizers_of,
    places_of,
    read_from,
)
from keras_ckpt_tools.matching.pairing import Pairing, given_name, pair
from keras_ckpt_tools.matching.report import Mismatch, Misnamed, RestoreReport
from keras_ckpt_tools.matching.selection import ALL, Selection
from keras_ckpt_tools.matching.suggestions import nearest
from keras_ckpt_tools.metadata import OptimizerState, TensorInfo

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
    """Say of each path whether it matches."""
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
        if any(p.startswith(prefix) for p in expected) != any(p.startswith(prefix) for p in found):
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

    Most metrics have single numbers only.
    """
    if group.startswith("layers/") or not group:
        return False
    if _is_optimizer(group, found):
        return True
    infos = [info for path, info in found.items() if path.rpartition("/")[0] == f"{group}/vars"]
    if all(info.shape == () for info in infos):
        return True
    called = f"{group.rpartition('/')[2]} {name}"
    return _METRIC.search(called) is not None and len({info.shape for info in infos}) == 1


def _surplus_optimizers(result: Sorted, found: Mapping[str, TensorInfo]) -> set[str]:
    """Return the groups of optimizers that only the checkpoint has, where it may not say so."""
    surplus = {path.rpartition("/vars/")[0] for path in result.unexpected} - {""}
    return {group for group in surplus if _is_optimizer(group, found)}


def _is_optimizer(group: str, found: Mapping[str, TensorInfo]) -> bool:
    """Return whether tensors look like an optimizer: its step, an integer, and moments of weights.

    A layer with a count of its own has weights of its own shapes.
    """
    first = found.get(f"{group}/vars/0")
    if group.startswith("layers/") or first is None or first.shape or "int" not in first.dtype:
        return False
    own = {info.shape for path, info in found.items() if path.startswith(f"{group}/")}
    others = {info.shape for path, info in found.items() if not path.startswith(f"{group}/")}
    return own - others <= {()}


# State of seed generators (dropout, augmentation). Keras does not save it; readers of Keras pass
# over the group.
RANDOM_GROUP = f"{RANDOM}/"

# Every optimizer has its step and its learning rate; more than that is about variables.
OF_NO_VARIABLE = 2

_REMEDY = (
    "Build the model with the arguments it was saved with, or load what fits with "
    "`kct.load_weights(model, path, strict=False)`."
)


@dataclass(frozen=True)
class Needed:
    """What an object needs.

    Attributes:
        tensors: Its tensors, by path.
        names: What its layers and optimizers are called, by the path of their group.
        optimizers: Its optimizers, by the path of their group.
        variables: What Keras calls its variables, by path.
        overwritten: Paths of variables that optimizers overwrite and have no state of: they are not
            in `optimizers`, and a checkpoint may name them there.
    """

    tensors: Mapping[str, TensorInfo]
    names: Mapping[str, str] = field(default_factory=dict)
    optimizers: Mapping[str, OptimizerState] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    overwritten: frozenset[str] = frozenset()

    @classmethod
    def by(cls, source: TensorSource) -> Needed:
        """Return what another checkpoint has, to stand for an object."""
        names = names_of(source)
        variables = variable_names(source.tensors, names)
        return cls(source.tensors, names, optimizers_of(source), variables)


@dataclass(frozen=True)
class Comparison:
    """A report, and what it takes to act on it.

    Attributes:
        report: What fits.
        source: The tensors, as the user has renamed them.
        paths: The path in `source` of each tensor of the object that has a pair.
        groups: The groups whose state goes as a whole or not at all.
        left: Why the state of objects around the weights is left, by group, where that may be.
        may_leave: Whether it may.
    """

    report: RestoreReport
    source: TensorSource
    paths: Mapping[str, str]
    groups: tuple[str, ...] = ()
    left: dict[str, str] = field(default_factory=dict)
    may_leave: bool = False

    def read(
        self, *, exactly: bool = False
    ) -> tuple[RestoreReport, dict[str, np.ndarray[Any, Any]]]:
        """Return what fits, by its path in the object, and the report with what does not.

        Args:
            exactly: Whether floats that are cast may not be rounded.
        """
        report = self.report
        arrays = read_from(self.source, {path: self.paths[path] for path in report.matched})
        lost = []
        for one in report.cast:
            converted = cast(arrays[one.path], one.in_model, exactly=exactly)
            if converted is None:
                lost.append(one)
            else:
                arrays[one.path] = converted
        if lost:
            report = self._without(lost)
            arrays = {path: arrays[path] for path in report.matched}
        return report, arrays

    def _without(self, lost: Iterable[Mismatch]) -> RestoreReport:
        """Return the report with tensors set apart whose values another dtype does not have."""
        differs: dict[str, str] = {}
        skipped: list[str] = []
        for group in sorted(self.groups):
            prefix = f"{group}/" if group else ""
            unlike = [one for one in lost if one.path.startswith(prefix)]
            if unlike and not any(path.startswith(prefix) for path in skipped):
                kind = f"{unlike[0].in_file} to {unlike[0].in_model}"
                which = shown_as(unlike[0].path, self.report.variables)
                differs[group] = f"casting {which} from {kind} loses values"
                skipped += [path for path in self.report.matched if path.startswith(prefix)]
        gone = {*skipped, *(one.path for one in lost)}
        if self.may_leave:
            self.left.update(differs)
            differs = {}
        return dataclasses.replace(
            self.report,
            matched=tuple(path for path in self.report.matched if path not in gone),
            cast=tuple(one for one in self.report.cast if one.path not in gone),
            dtype_mismatch=(
                *self.report.dtype_mismatch,
                *(one for one in lost if one.path not in skipped),
            ),
            skipped_optimizer=(*self.report.skipped_optimizer, *skipped),
            optimizer_differs=(
                *self.report.optimizer_differs,
                *(_left(group, why) for group, why in differs.items()),
            ),
        )


def compare_tensors(
    path: str,
    expected: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    *,
    optimizer_may_differ: bool = True,
) -> RestoreReport:
    """Compare tensors by path alone, exactly. See `compare_source`."""
    source = _Tensors(path, found)
    return compare_source(
        Needed(expected), source, optimizer_may_differ=optimizer_may_differ, exact=True
    ).report


@dataclass(frozen=True)
class _Tensors:
    path: str
    tensors: Mapping[str, TensorInfo]

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        raise KeyError(*paths)


def compare_source(
    needed: Needed,
    source: TensorSource,
    selection: Selection = ALL,
    *,
    optimizer_may_differ: bool = True,
    exact: bool = False,
    may_leave: bool = False,
) -> Comparison:
    """Compare what an object needs with what a checkpoint has.

    Args:
        needed: Tensors of the object, and what is known about them.
        source: Tensors of the checkpoint.
        selection: Which are meant, and what they are called.
        optimizer_may_differ: Whether optimizer state that only one side has is set apart as
            skipped, as for a model that was compiled on one side only.
        exact: Whether dtypes have to be the same, as for a run that is resumed.
        may_leave: Whether what is not a weight (optimizers, metrics, seeds) is left where it does
            not fit. `Comparison.left` has the reasons.

    Raises:
        ArgumentError: the selection does not fit the paths.
    """
    left_alone = left_alone_by(source)
    renamed = selection.renamed(source)
    source = renamed.source
    found = source.tensors
    expected = needed.tensors
    if not any(p.startswith(RANDOM_GROUP) for p in found):
        expected = {p: info for p, info in expected.items() if not p.startswith(RANDOM_GROUP)}
    names = names_of(source)
    pairing = pair(expected, found, needed.names, names, renamed.settled)
    unpaired = found.keys() - pairing.paths.values()
    chosen = selection.chosen((*expected, *unpaired), (*expected, *found)) - left_alone
    chosen -= _raw_unlike(expected, found, pairing, exact)
    differs = _other_optimizers(needed, source, pairing, renamed.settled, chosen)
    sorted_out = sort(expected, found, pairing, chosen, exact)
    set_optimizers_apart(
        sorted_out,
        expected,
        found,
        needed.optimizers,
        differs,
        optimizer_may_differ,
        () if may_leave else {*optimizers_of(source), *_surplus_optimizers(sorted_out, found)},
    )
    left: dict[str, str] = {}
    if may_leave:
        left, differs = differs, {}
        groups = {*needed.optimizers, *optimizers_of(source)}
        leave_what_is_around(sorted_out, expected, found, groups, names, left)
    places = places_of(source)
    near = nearest(
        {p: expected[p].shape for p in sorted_out.missing},
        {p: found[p].shape for p in sorted_out.unexpected},
        needed.names,
        names,
        pairing.misnamed,
    )

    def there(path: str) -> str:
        return places.get(path, path)

    def mismatches(kind: str) -> tuple[Mismatch, ...]:
        return tuple(
            Mismatch(p, str(getattr(found[o], kind)), str(getattr(expected[p], kind)), there(o))
            for p, o in getattr(sorted_out, kind).items()
        )

    matched = set(sorted_out.matched)
    theirs = variable_names(found, names) if sorted_out.unexpected else {}
    report = RestoreReport(
        path=source.path,
        matched=tuple(sorted_out.matched),
        missing=tuple(sorted_out.missing),
        unexpected=tuple(there(p) for p in sorted_out.unexpected),
        shape_mismatch=mismatches("shape"),
        dtype_mismatch=mismatches("dtype"),
        cast=tuple(
            Mismatch(p, found[o].dtype, expected[p].dtype, there(o))
            for p, o in sorted_out.cast.items()
            if p in matched
        ),
        skipped_optimizer=tuple(
            there(p) if p in unpaired else p for p in dict.fromkeys(sorted_out.skipped)
        ),
        nearest={ours: there(theirs) for ours, theirs in near.items()},
        renamed=tuple(
            (there(o), p)
            for p, o in pairing.paths.items()
            if there(o) != p and (p in renamed.settled or o != p) and p in chosen
        ),
        misnamed=tuple(
            Misnamed(*one) for one in pairing.misnamed if _is_about(one[2], sorted_out.missing)
        ),
        optimizer_differs=tuple(_left(group, why) for group, why in differs.items()),
        left_out=(*sorted_out.left_out, *renamed.left_out),
        names=_of_one_side(
            _given(needed.names, {p: p for p in sorted_out.missing}),
            _given(names, {p: there(p) for p in sorted_out.unexpected}),
        ),
        variables=needed.variables,
        variables_in_file={there(p): theirs[p] for p in sorted_out.unexpected if p in theirs},
    )
    whole = {OPTIMIZER_GROUP.rstrip("/"), *needed.optimizers}
    if may_leave:
        whole.add(RANDOM)
    return Comparison(report, source, pairing.paths, tuple(whole), left, may_leave)


def _left(group: str, why: str) -> str:
    return f"The state of {group or 'the optimizer'} is left: {why}."


def _raw_unlike(
    expected: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    pairing: Pairing,
    exact: bool,
) -> set[str]:
    """Return the paths of `raw_vars` that are of no use: of a layer all of them fit, or none.

    Without them the layer has what Keras' own layout holds of it. So adapters may be loaded into a
    model without, or with adapters of another rank: merged, as Keras does it.
    """
    ours, theirs = _raw_groups(expected), _raw_groups(found)
    fits: set[str] = set()
    for paths in ours.values():
        pairs = {path: pairing.paths.get(path, "") for path in paths}
        others = {other.rpartition("/")[0] for other in pairs.values()}
        whole = len(others) == 1 and set(pairs.values()) == theirs.get(others.pop())
        if whole and all(_alike(expected[p], found[o], exact) for p, o in pairs.items()):
            fits |= {*pairs, *pairs.values()}
    return set().union(*ours.values(), *theirs.values()) - fits


def _alike(ours: TensorInfo, theirs: TensorInfo, exact: bool) -> bool:
    same = ours.dtype == theirs.dtype or (not exact and may_be_cast(theirs.dtype, ours.dtype))
    return ours.shape == theirs.shape and same


def _raw_groups(paths: Iterable[str]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for path in paths:
        if is_raw(path):
            groups.setdefault(path.rpartition("/")[0], set()).add(path)
    return groups


def _other_optimizers(
    needed: Needed,
    source: TensorSource,
    pairing: Pairing,
    settled: frozenset[str],
    chosen: set[str],
) -> dict[str, str]:
    """Return why state does not belong to the optimizer that it would go to, by group."""
    theirs, names = optimizers_of(source), names_of(source)
    moved = frozenset(p for p, o in pairing.paths.items() if o != p and p not in settled)
    overwritten = {pairing.paths.get(path, path) for path in needed.overwritten}
    differs: dict[str, str] = {}
    for group, here in needed.optimizers.items():
        prefix = f"{group}/" if group else ""
        if not any(path.startswith(prefix) for path in source.tensors):
            continue
        # What a user has renamed himself is his word that it belongs there, and what he has left
        # out goes nowhere.
        own = {p for p in (*needed.tensors, *source.tensors) if p.startswith(f"{prefix}vars/")}
        if own & settled or not own & chosen or any(group.startswith(f"{g}/") for g in differs):
            continue
        saved = {p for p in source.tensors if p.startswith(f"{prefix}vars/")}
        there = theirs.get(group, OptimizerState())
        trained = tuple(path for path in there.built_on if path not in overwritten)
        there = OptimizerState(there.class_name, trained)
        why = why_not(
            _of_tensors(here, needed.tensors, len(saved)),
            _of_tensors(there, source.tensors, len(saved)),
            needed.names.get(group),
            names.get(group),
            pairing.paths,
            moved,
            lambda path: shown_as(path, needed.variables),
        )
        if why is not None:
            differs[group] = why
    return differs


def _of_tensors(
    optimizer: OptimizerState, tensors: Mapping[str, TensorInfo], saved: int
) -> OptimizerState:
    """Leave the names of variables away that are not compared: nothing tells which they are."""
    if saved <= OF_NO_VARIABLE:
        return OptimizerState(optimizer.class_name)
    known = tuple(path if path in tensors else "" for path in optimizer.built_on)
    return OptimizerState(optimizer.class_name, known)


def _given(names: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, str]:
    """Return the names that users gave to the layers of paths, by what the paths are shown as."""
    found = {}
    for path, shown in paths.items():
        group = path.partition("/vars/")[0]
        name = given_name(names.get(group), group.rpartition("/")[2])
        if name is not None:
            found[shown] = name
    return found


def _of_one_side(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Leave a path away that is called one thing here and another there; `misnamed` has both."""
    both = {**ours, **theirs}
    return {path: name for path, name in both.items() if ours.get(path, name) == name}


def _is_about(group: str, paths: Iterable[str]) -> bool:
    return any(path.startswith(f"{group}/") for path in paths)


def misfit(
    report: RestoreReport,
    refused: Iterable[tuple[Any, Exception]] = (),
    remedy: str | None = None,
    differences: Iterable[str] = (),
) -> RestoreError:
    """Return the error that says what does not fit."""
    others = "".join(f"\n  differs   {sentence}" for sentence in differences)
    reasons = "".join(
        f"\n  refused   {getattr(s, 'name', None) or s!r}: {error}" for s, error in refused
    )
    return RestoreError(
        "The checkpoint and the model do not match; nothing was changed.\n"
        f"{report}{reasons}{others}\n",
        received=f"path={report.path!r}",
        remedy=_remedy(report) if remedy is None else remedy,
        path=report.path,
        report=report,
    )


def _remedy(report: RestoreReport) -> str:
    remedies = [_REMEDY]
    if report.suggestions:
        pairs = ", ".join(f"{old!r}: {new!r}" for old, new in report.suggestions.items())
        remedies.insert(0, f"Where it is the same layer, pass `rename={{{pairs}}}`.")
    if report.optimizer_differs:
        remedies.insert(
            0,
            "To begin with a new optimizer, pass `exclude='optimizer/*'` to `kct.load_weights`, or "
            "`compile=False` to `kct.safe_load_model` and compile the model yourself.",
        )
    return " ".join(remedies)
