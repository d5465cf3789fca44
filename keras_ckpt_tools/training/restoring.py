"""Restore all tracked objects from a checkpoint, or none of them.

Each object is built, all tensors are compared, and everything is read and checked before the first
variable changes. If an object then still raises an error, the objects before it get their previous
values back.
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

_REMEDY = "To start a new run, pass `resume='never'`, or use another directory."
_MODEL_REMEDY = (
    "Build the model as it was when the run was saved. To load only the matching part of the "
    "checkpoint, call `kct.load_weights(model, path, strict=False)`, and start a new run."
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
        adapters: The objects to restore.
        source: The checkpoint.
        record: Its record.
        differences: Further mismatches, as sentences.
        changes: Intended changes of the program.
        optimizers: Whether optimizers are restored as well.
        accept_nan: Whether NaN in the weights is accepted.

    Raises:
        NotFinite: the weights contain NaN that is not accepted; nothing was changed.
        RestoreError: something does not match; nothing was changed.
        NotBuiltError: an object has no variables and cannot be built.
        DamagedArtefactError: the file is damaged.
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
    """Warn about layers of which only the weights saved by Keras are restored."""
    groups = {path.rpartition(f"/{RAW}/")[0] for path in report.left_out if is_raw(path)}
    if groups:
        warn(
            f"{report.path!r}: some variables of these layers are missing or have another shape "
            "than here, so only the weights that Keras saves were loaded (the state of a stateful "
            "RNN keeps its current value, adapters are merged): "
            f"{', '.join(sorted(groups))}.",
            UserWarning,
            stacklevel=6,
        )


def _without_optimizers(
    adapters: Sequence[Adapter], source: TensorSource
) -> tuple[list[Adapter], TensorSource]:
    """Leave the program's optimizers unchanged."""
    others: list[Adapter] = []
    prefixes: list[str] = []
    for adapter in adapters:
        optimizer = getattr(adapter.target, "optimizer", None)
        if adapter.kind == "optimizer":
            prefixes.append(f"{adapter.name}/")
            continue
        if isinstance(adapter, KerasAdapter) and optimizer is not None:
            prefixes.append(f"{adapter.name}/{OPTIMIZER_GROUP}")
            # Includes the optimizer inside a loss scale optimizer.
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
    """Optimizer state saved with a learning rate schedule, for a learning rate variable."""

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
    """Rename optimizer arrays to the numbers that they have with another kind of learning rate.

    A learning rate that is not a schedule is a variable, the second one.
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
        "The checkpoint contains other objects than are tracked; nothing was changed. "
        f"Tracked, but not in it: {', '.join(only_here) or 'none'}. "
        f"In it, but not tracked: {', '.join(only_there) or 'none'}.",
        received=f"path={path!r}",
        remedy="Track the same names as at the save. To load only a model from it, call "
        "`kct.load_weights(model, path)`.",
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
                _build_compiled(order, adapter.target)  # The comparison reports the difference.
            adapter.prepare(described, variables)
        if adapter.kind not in ("optimizer", "state"):
            captured = adapter.captured().under(adapter.name)
            variables |= captured.values
            found |= state.optimizers_by_group(captured, adapter.target)
    _build_optimizers(found, record, variables, source)
    # After all with recorded variables: a distiller trains only a part of its variables.
    _build_compiled(order)


def _build_compiled(adapters: Sequence[Adapter], optimizer: Any = None) -> None:
    """Build the optimizers of compiled models, or one of them, on all trainable variables."""
    for adapter in adapters:
        if optimizer is None or getattr(adapter.target, "optimizer", None) is optimizer:
            build_compiled_optimizer(adapter.target)


def _build_optimizers(
    optimizers: Mapping[str, Any],
    record: Record,
    variables: Mapping[str, Any],
    source: TensorSource,
) -> None:
    """Build the optimizers inside tracked objects on the same variables as at the save.

    Raises:
        NotBuiltError: the variables of an optimizer are not recorded or do not exist here.
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
            continue  # The optimizer of `compile()`; see `_build_compiled`.
        gone = ", ".join(path for path in built_on if path not in variables)
        why = f"it was built on {gone}, which do not exist here" if gone else "on unknown variables"
        lacking.append(f"{group} ({type(optimizer).__name__}): {why}")
    if lacking:
        raise NotBuiltError(
            "The checkpoint contains the state of optimizers that are not built; nothing was "
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
    """Return an adapter for each object; report all objects that cannot be tracked together."""
    if not objects:
        raise ArgumentError(
            "There is nothing to track.",
            received="objects={}",
            remedy="Pass the objects to save by name: `CheckpointManager(directory, model=model, "
            "optimizer=optimizer)`.",
        )
    odd = [name for name in objects if not name.isidentifier() or is_beside(name)]
    if odd:
        raise ArgumentError(
            "The name of a tracked object must consist of letters, digits and underscores, and not "
            "start with an underscore.",
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
            "These objects cannot be tracked: they are not Keras or TensorFlow objects with state, "
            "contain no variables, and have neither `state_dict`/`load_state_dict` nor "
            "`get_state`/`set_state`.",
            received="; ".join(wrong),
            remedy="Wrap a number in `tf.Variable(...)`; add these methods to a class of your own.",
        )
    return adapters


def build_on_changed(
    adapter: Adapter, described: TrackedObject, adapters: Sequence[Adapter], record: Record
) -> None:
    """Build an optimizer on its model again if the weights of the model have changed."""
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
