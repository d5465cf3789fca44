"""Restore live objects from tensors: compare, read, assign, undo.

Everything is compared and read before the first variable changes. If an object then refuses its
state, or the user interrupts, all objects get their previous state back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.adapters import Adapter, Assets, KerasAdapter
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.matching.compare import Comparison, compare_source, is_raw, misfit
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.matching.selection import ALL, Selection
from keras_ckpt_tools.metadata import TrackedObject


def compare_all(
    adapters: Sequence[Adapter],
    source: TensorSource,
    selection: Selection = ALL,
    *,
    optimizer_may_differ: bool = True,
    exact: bool = False,
    may_leave: bool = False,
) -> Comparison:
    """Compare what objects need with what a source has.

    Args:
        adapters: The objects.
        source: The tensors.
        selection: Which are meant, and what they are called.
        optimizer_may_differ: See `compare_source`, also for the others.
        exact: Whether dtypes have to be the same.
        may_leave: Whether what is not a weight is left where it does not fit.
    """
    needed = Captured.of_all((one.name, one.needed()) for one in adapters)
    if exact or any(map(is_raw, source.tensors)):
        needed = needed.with_raw()
    # For objects that do not know their needs yet, the tensors are accepted as they are.
    unknown = tuple(needed.unknown)
    taken = {path: info for path, info in source.tensors.items() if path.startswith(unknown)}
    wanted = needed.needed()
    return compare_source(
        dataclasses.replace(wanted, tensors={**wanted.tensors, **taken}),
        source,
        selection,
        optimizer_may_differ=optimizer_may_differ,
        exact=exact,
        may_leave=may_leave,
    )


def restore_all(
    adapters: Sequence[Adapter],
    compared: Comparison,
    *,
    strict: bool = True,
    exactly: bool = False,
    tracked: Mapping[str, TrackedObject] | None = None,
    check: Callable[[RestoreReport], None] = lambda report: None,
    remedy: str | None = None,
) -> RestoreReport:
    """Restore all objects, or none.

    Args:
        adapters: The objects.
        compared: What `compare_all` has returned for them.
        strict: Whether everything has to match. If not, what matches is restored.
        exactly: Whether casts of floats must not round.
        tracked: State of the objects other than tensors, by name, if they are those of a run.
        check: Called when everything has been read; nothing is changed if it raises.
        remedy: What to do where an object refuses its state. Default: what the report suggests.

    Returns:
        The report.

    Raises:
        RestoreError: something does not fit and `strict`, or an object refused its state. Nothing
            was changed.
    """
    report = compared.report
    arrays: dict[str, Any] = {}
    if not strict or report:
        report, arrays = compared.read(exactly=exactly)
    if strict and not report:
        raise misfit(report)
    check(report)
    undo: list[Callable[[], None]] = []
    try:
        for adapter in adapters:
            prefix = f"{adapter.name}/" if adapter.name else ""
            own = {p.removeprefix(prefix): a for p, a in arrays.items() if p.startswith(prefix)}
            if own or tracked is not None or adapter.has_files:
                undo.append(adapter.remember(own))
                adapter.put_back(own, tracked[adapter.name] if tracked is not None else None)
    except BaseException as error:
        # Ctrl-C must not leave half a restore either.
        for step in reversed(undo):
            try:
                step()
            except Exception as second:  # noqa: BLE001 (the others are given back all the same)
                error.add_note(f"The previous state of an object could not be restored: {second}")
        if isinstance(error, state.Refused):
            raise misfit(report, error.reasons, remedy) from error.reasons[0][1]
        if tracked is not None and isinstance(error, Exception):
            raise misfit(report, [(adapter.name, error)], remedy) from error
        raise
    return report


def fill(
    saveable: Any,
    source: TensorSource,
    *,
    strict: bool = True,
    assets: Assets | None = None,
    optimizer_may_differ: bool = True,
    selection: Selection = ALL,
    left: dict[str, str] | None = None,
    exactly: bool = False,
    captured: Captured | None = None,
) -> RestoreReport:
    """Restore the state of one Keras object from named tensors.

    Args:
        saveable: A model, layer, optimizer or metric, built.
        source: Where the tensors come from.
        strict: Whether everything has to match. If not, what matches is loaded.
        assets: See `KerasAdapter`.
        optimizer_may_differ: See `compare_source`.
        selection: Which tensors are meant, and what they are called.
        left: Where it is given, what is not a weight need not fit; it takes why the state of an
            optimizer, a metric or a generator is left as it is, by its group.
        exactly: Whether floats that are cast may not be rounded.
        captured: What `capture` returns of the object, where it has been called.

    Returns:
        The report.

    Raises:
        RestoreError: something does not fit and `strict`, or a layer refused its state. Nothing
            was changed.
    """
    captured = captured or state.capture(saveable)
    adapter = KerasAdapter("", saveable, assets=assets)
    adapter.knows(captured)
    if any(map(is_raw, source.tensors)):
        captured = captured.with_raw()
    source = state.at_other_paths(source, saveable, captured, selection)
    compared = compare_all(
        [adapter],
        source,
        selection,
        optimizer_may_differ=optimizer_may_differ,
        may_leave=left is not None,
    )
    report = restore_all([adapter], compared, strict=strict, exactly=exactly)
    if left is not None:
        left |= compared.left
    return report
