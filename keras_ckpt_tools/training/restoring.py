"""Restore all tracked objects, or none: source -> *compare, read, put back* -> resume.

Each object is built, every tensor of every object is compared, everything is read and checked, and
only then does the first variable change. If an object refuses even then, those before it get back
what they had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_ckpt_tools.errors import ArgumentError, NotBuiltError, RestoreError
from keras_ckpt_tools.formats.common.finite import spoiled_in
from keras_ckpt_tools.formats.tensor_source import Relabelled, TensorSource
from keras_ckpt_tools.live import restore as live
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.adapters import Adapter, KerasAdapter, build_compiled_optimizer
from keras_ckpt_tools.live.migration import (
    has_migrated,
    warn_of_lost_state,
    with_current_weights,
)
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.matching.compare import (
    OPTIMIZER_GROUP,
    RAW,
    Comparison,
    is_raw,
    misfit,
)
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.metadata import Record, TensorInfo, TrackedObject
from keras_ckpt_tools.runs.choose import NotFinite
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.changes import OPTIMIZER_REMEDY, Changes
from keras_ckpt_tools.training.state.adapters import adapt
from keras_ckpt_tools.training.state.run_state import is_beside

_REMEDY = "To begin another run, pass `resume='never'`, or give it a directory of its own."
_MODEL_REMEDY = (
    "Build the model as it was when the run was saved. To take only what fits out of the "
    "checkpoint, call `kct.load_weights(model, path, strict=False)`, and begin another run."
)


def restore_tracked(
    adapters: Sequence[Adapter],
    source: TensorSource,
    record: Record,
    differences: Sequence[str] = (),
    changes: Changes | None = None,
    *,
    accept_nan: bool = True,
    optimizers: bool = True,
) -> None:
    """Restore all tracked objects from an open checkpoint, or none.

    Args:
        adapters: What is to be restored.
        source: The checkpoint.
        record: Its record.
        differences: What else does not fit, as sentences.
        changes: What of the program is meant to differ.
        optimizers: Whether optimizers are restored, too.
        accept_nan: Whether it may have NaN in its weights.

    Raises:
        NotFinite: it has, and it may not; nothing was changed.
        RestoreError: something does not fit; nothing was changed.
        NotBuiltError: an object has no variables, and what it needs for that is not known.
        DamagedArtefactError: bytes have changed.
    """
    if not accept_nan and record.not_finite:
        raise NotFinite(record.not_finite)
    file = source
    _check_names(adapters, source.path, record)
    _prepare(adapters, record, source)
    tracked = {a.name: a.target for a in adapters if isinstance(a, KerasAdapter)}
    source = with_current_weights(source, record, tracked)
    warn_of_lost_state(source, stacklevel=6)
    changes = changes or Changes()
    source = _with_rate_of(adapters, source, changes)
    if not optimizers or "optimizer" in changes.applied:
        adapters, source = _without_optimizers(adapters, source)
    compared = _compare(adapters, source)
    if not compared.report and "optimizer" in changes.changed:
        others, without = _without_optimizers(adapters, source)
        again = _compare(others, without)
        if again.report:
            changes.applied.add("optimizer")
            adapters, compared = others, again
    report = compared.report
    if not report or differences:
        raise misfit(
            report,
            remedy=_remedy(adapters, source, record, report, changes.explained),
            differences=differences,
        )

    def check(found: RestoreReport) -> None:
        if not accept_nan and (paths := spoiled_in(file, record)):
            raise NotFinite(paths)
        _tell_of_raw(found)

    live.restore_all(adapters, compared, tracked=record.tracked, check=check, remedy=_REMEDY)


def _tell_of_raw(report: RestoreReport) -> None:
    """Say of which layers only what Keras saves is restored, and not every variable."""
    groups = {path.rpartition(f"/{RAW}/")[0] for path in report.left_out if is_raw(path)}
    if groups:
        warn(
            f"{report.path!r}: some variables of these layers are not in it, or have another "
            "shape than here, so they have what Keras' own weights give them (the state of a "
            "stateful RNN starts at what it is now, adapters are merged): "
            f"{', '.join(sorted(groups))}.",
            UserWarning,
            stacklevel=6,
        )


def _without_optimizers(
    adapters: Sequence[Adapter], source: TensorSource
) -> tuple[list[Adapter], TensorSource]:
    """Leave the program's optimizers as they are."""
    others: list[Adapter] = []
    prefixes: list[str] = []
    for adapter in adapters:
        optimizer = getattr(adapter.target, "optimizer", None)
        if adapter.kind == "optimizer":
            prefixes.append(f"{adapter.name}/")
            continue
        if isinstance(adapter, KerasAdapter) and optimizer is not None:
            prefixes.append(f"{adapter.name}/{OPTIMIZER_GROUP}")
            # With the one that a loss scale wraps.
            inner = getattr(optimizer, "inner_optimizer", None)
            skip = (optimizer,) if inner is None else (optimizer, inner)
            others.append(KerasAdapter(adapter.name, adapter.target, skip))
            continue
        others.append(adapter)
    kept = {path: path for path in source.tensors if not path.startswith(tuple(prefixes))}
    return others, Relabelled(source, kept)


def _remedy(
    adapters: Sequence[Adapter],
    source: TensorSource,
    record: Record,
    report: RestoreReport,
    explained: bool,
) -> str:
    if report:
        return _REMEDY
    others, without = _without_optimizers(adapters, source)
    if _compare(others, without).report:
        return _REMEDY if explained else f"{OPTIMIZER_REMEDY} {_REMEDY}"
    return f"{_MODEL_REMEDY} {_REMEDY}"


class _WithRate(Relabelled):
    """The state of an optimizer whose learning rate was a schedule, for one with a variable."""

    def __init__(self, source: TensorSource, paths: Mapping[str, str], own: Mapping[str, Any]):
        super().__init__(source, paths)
        self._own = {path: to_numpy(value) for path, value in own.items()}
        self.tensors = {
            **self.tensors,
            **{p: TensorInfo(p, array.shape, array.dtype.name) for p, array in self._own.items()},
        }

    def read_all(self, paths: Iterable[str]) -> dict[str, Any]:
        wanted = list(paths)
        found = super().read_all([path for path in wanted if path not in self._own])
        return found | {path: self._own[path] for path in wanted if path in self._own}


def _with_rate_of(
    adapters: Sequence[Adapter], source: TensorSource, changes: Changes
) -> TensorSource:
    """Give the arrays of optimizers the numbers that they have with another kind of rate.

    A learning rate that is no schedule is a variable, the second one.
    """
    kinds = changes.rate_kinds
    for adapter in adapters if kinds else ():
        if adapter.kind != "optimizer":
            continue
        prefix = f"{adapter.name}/vars/"
        shift = 1 if kinds == (True, False) else -1
        paths, own = {}, {}
        for path in source.tensors:
            number = path.removeprefix(prefix)
            if not path.startswith(prefix) or number == "0":
                paths[path] = path
            elif shift == 1 or number != "1":
                paths[f"{prefix}{int(number) + shift}"] = path
        if shift == 1:
            own[f"{prefix}1"] = adapter.target.learning_rate
        source = _WithRate(source, paths, own)
    return source


def _check_names(adapters: Sequence[Adapter], path: str, record: Record) -> None:
    here = {adapter.name for adapter in adapters}
    there = set(record.objects_tracked)
    if here == there:
        return
    only_here, only_there = sorted(here - there), sorted(there - here)
    raise RestoreError(
        "The checkpoint holds other objects than are tracked; nothing was changed. "
        f"Tracked, but not in it: {', '.join(only_here) or 'none'}. "
        f"In it, but not tracked: {', '.join(only_there) or 'none'}.",
        received=f"path={path!r}",
        remedy="Track the same names as when it was saved. To take a model alone out of it, "
        "call `kct.load_weights(model, path)`.",
        path=path,
        report=RestoreReport(path, missing=tuple(only_here), unexpected=tuple(only_there)),
    )


def _prepare(adapters: Sequence[Adapter], record: Record, source: TensorSource) -> None:
    # Optimizers come last: they are built on the variables of the others.
    order = sorted(adapters, key=lambda adapter: adapter.kind == "optimizer")
    variables: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for adapter in order:
        described = record.tracked.get(adapter.name)
        if described is not None:
            build_on_changed(adapter, described, adapters, record)
            if not all(path in variables for path in described.built_on or ()):
                _build_compiled(order, adapter.target)  # The comparison says what has changed.
            adapter.prepare(described, variables)
        if adapter.kind not in ("optimizer", "state"):
            captured = adapter.captured().under(adapter.name)
            variables |= captured.values
            found |= state.optimizers_by_group(captured, adapter.target)
    _build_optimizers(found, record, variables, source)
    # After all whose variables are on record: a distiller trains a part of its own only.
    _build_compiled(order)


def _build_compiled(adapters: Sequence[Adapter], optimizer: Any = None) -> None:
    """Build the optimizers of compiled models, or one of them, on all that the model trains."""
    for adapter in adapters:
        if optimizer is None or getattr(adapter.target, "optimizer", None) is optimizer:
            build_compiled_optimizer(adapter.target)


def _build_optimizers(
    optimizers: Mapping[str, Any],
    record: Record,
    variables: Mapping[str, Any],
    source: TensorSource,
) -> None:
    """Build the optimizers inside tracked objects as they were built when they were saved.

    Raises:
        NotBuiltError: it is not known what an optimizer was built on, or that is not there.
    """
    lacking = []
    for group, optimizer in optimizers.items():
        saved = sum(path.startswith(f"{group}/vars/") for path in source.tensors)
        if optimizer.built or saved <= len(optimizer.variables):
            continue
        built_on = record.optimizers[group].built_on if group in record.optimizers else ()
        if built_on and all(path in variables for path in built_on):
            optimizer.build([variables[path] for path in built_on])
            continue
        if f"{group}/".endswith(f"/{OPTIMIZER_GROUP}"):
            continue  # That of `compile()`; see `_build_compiled`.
        gone = ", ".join(path for path in built_on if path not in variables)
        why = f"it was built on {gone}, which are not here" if gone else "of what, is not on record"
        lacking.append(f"{group} ({type(optimizer).__name__}): {why}")
    if lacking:
        raise NotBuiltError(
            "The checkpoint has the state of optimizers that are not built here; nothing was "
            f"changed: {'; '.join(lacking)}.",
            received=f"path={source.path!r}",
            remedy="Build each on the variables that it updates, before training begins: "
            "`model.d_optimizer.build(model.discriminator.trainable_variables)`, for example.",
            name=lacking[0].partition(" ")[0],
        )


def _compare(adapters: Sequence[Adapter], source: TensorSource) -> Comparison:
    elsewhere = tuple(f"{a.name}/{group}" for a in adapters for group in a.elsewhere)
    tracked = {p: p for p in source.tensors if not is_beside(p) and not p.startswith(elsewhere)}
    return live.compare_all(
        adapters, Relabelled(source, tracked), optimizer_may_differ=False, exact=True
    )


def _plain_name(name: str) -> str:
    return name.replace("/", "_").replace(".", "_").lstrip("_") or "state"


def adapters_of(objects: Mapping[str, Any]) -> list[Adapter]:
    """Return an adapter for each object; all that cannot be tracked come in one error."""
    if not objects:
        raise ArgumentError(
            "There is nothing to track.",
            received="objects={}",
            remedy="Pass what is to be saved by name: `CheckpointManager(directory, model=model, "
            "optimizer=optimizer)`.",
        )
    odd = [name for name in objects if not name.isidentifier() or is_beside(name)]
    if odd:
        raise ArgumentError(
            "What is tracked has names like Python's: letters, digits and underscores, and no "
            "underscore in front.",
            received=f"names={odd!r}",
            remedy=f"Pass it as {_plain_name(odd[0])!r}, for example.",
        )
    named = {id(o) for o in objects.values()}
    adapters, wrong = [], []
    for name, target in objects.items():
        optimizer = getattr(target, "optimizer", None)
        elsewhere = optimizer if id(optimizer) in named else None
        adapter = adapt(name, target, elsewhere)
        if adapter is None:
            wrong.append(f"{name}={target!r} ({type(target).__name__})")
        else:
            adapters.append(adapter)
    if wrong:
        raise ArgumentError(
            "These cannot be tracked: they are no Keras or TensorFlow object with state, hold no "
            "variables, and have neither `state_dict`/`load_state_dict` nor "
            "`get_state`/`set_state`.",
            received="; ".join(wrong),
            remedy="Wrap a number in `tf.Variable(...)`; give an object of your own these methods.",
        )
    return adapters


def build_on_changed(
    adapter: Adapter, described: TrackedObject, adapters: Sequence[Adapter], record: Record
) -> None:
    """Build an optimizer on the model that it was built on, where that has other weights now."""
    optimizer = adapter.target
    if not isinstance(optimizer, keras.optimizers.Optimizer) or optimizer.built:
        return
    for other in adapters:
        model, prefix = other.target, f"{other.name}/"
        if (
            described.built_on
            and all(path.startswith(prefix) for path in described.built_on)
            and isinstance(model, keras.layers.Layer)
            and has_migrated(model, record)
        ):
            optimizer.build(model.trainable_variables)
            return
