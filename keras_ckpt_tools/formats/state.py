"""From live Keras objects to named tensors, and back: snapshot -> write, and source -> restore.

Keras' own walk finds what there is and names it; the stores that it is given are ours. Nothing here
knows where the tensors come from or go to.

A restore is all or nothing. Everything is compared and everything is read before the first
variable changes; should a layer's own `load_own_variables` fail after that, the variables get
back what they had.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ckpt_tools.errors import NotBuiltError
from keras_ckpt_tools.formats.comparison import (
    OPTIMIZER_GROUP,
    RANDOM_GROUP,
    compare_source,
    misfit,
)
from keras_ckpt_tools.formats.direct import asks_for_files, handles_of
from keras_ckpt_tools.formats.report import RestoreReport
from keras_ckpt_tools.formats.selection import ALL, Selection
from keras_ckpt_tools.formats.sharing import Handle, as_array, as_tensor, assign, handle_of, read
from keras_ckpt_tools.formats.stores import (
    AssetsProbe,
    AssetsWhenAsked,
    Captured,
    CaptureStore,
    FillStore,
)
from keras_ckpt_tools.formats.structure import parts_of, saves_as_keras, variables_of
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.formats.walk import load_state, save_state


def capture(saveable: Any, skip: Iterable[Any] = ()) -> Captured:
    """Collect references to the state of an object, without copying any of it.

    That is all that Keras would save, and the state of the seed generators, which it leaves out.

    Args:
        saveable: A model, layer, optimizer or metric.
        skip: Objects inside it to leave out.
    """
    store = CaptureStore()
    visited = {id(item) for item in skip}
    for group, optimizer in _optimizers(saveable):
        if id(optimizer) not in visited and _hands_out_copies(optimizer):
            own = store.make(group.rstrip("/"), {"name": optimizer.name})
            own.update((str(index), v) for index, v in enumerate(optimizer.variables))
            visited.add(id(optimizer))
    store.captured.optimizers.update(
        (group.rstrip("/"), (type(one).__name__, _trained_by(one)))
        for group, one in _optimizers(saveable)
        if all(one is not item for item in skip)
    )
    probe = AssetsProbe()
    with _silent_until_filled(saveable, store.captured):
        save_state(saveable, weights_store=store, assets_store=probe, visited_saveables=visited)
    values = store.captured.values
    for index, variable in enumerate(_seed_states(saveable)):
        values[f"{RANDOM_GROUP}{index}"] = variable
    return dataclasses.replace(
        store.captured, has_assets=probe.asked_for, visited=frozenset(visited)
    )


@contextmanager
def _silent_until_filled(saveable: Any, captured: Captured) -> Iterator[None]:
    """Let lookup layers that have no table yet say nothing, where Keras' own method would raise."""
    empty = [layer for layer in parts_of(saveable) if _has_no_weights_yet(layer)]
    for layer in empty:
        layer.save_own_variables = lambda store: captured.unknown.append(store.prefix)
    try:
        yield
    finally:
        for layer in empty:
            del layer.save_own_variables


def _has_no_weights_yet(layer: Any) -> bool:
    # Of TF-IDF, whose weights come with the vocabulary.
    looks_up = getattr(layer, "output_mode", None) == "tf_idf" and hasattr(layer, "get_vocabulary")
    return looks_up and not hasattr(layer, "idf_weights_const")


def _optimizers(saveable: Any) -> Iterator[tuple[str, Any]]:
    group = ""
    if not isinstance(saveable, keras.optimizers.Optimizer):
        saveable, group = getattr(saveable, "optimizer", None), OPTIMIZER_GROUP
    while isinstance(saveable, keras.optimizers.Optimizer):
        yield group, saveable
        saveable, group = getattr(saveable, "inner_optimizer", None), f"{group}inner_optimizer/"


def _trained_by(optimizer: Any) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    trained = getattr(inner, "_trainable_variables", ())
    # Scales of float8 are overwritten, not updated: an optimizer has no state of them, and where
    # they stand among the others depends on when the layer was quantized.
    return [v for v in trained if not getattr(v, "overwrite_with_gradient", False)]


def _hands_out_copies(optimizer: Any) -> bool:
    """Return whether it is known what an optimizer would save: copies of its variables."""
    kind = type(optimizer)
    stock = kind.save_own_variables is keras.optimizers.Optimizer.save_own_variables
    # `MultiOptimizer` has its several optimizers asked as well, under paths of their own.
    alone = not hasattr(optimizer, "inner_optimizer") and not hasattr(optimizer, "optimizers")
    return alone and stock and saves_as_keras(kind)


def _seed_states(saveable: Any) -> list[Any]:
    # They are among the variables of a model and of no layer's own.
    return [
        variable
        for variable in getattr(saveable, "non_trainable_variables", ())
        if variable.name == "seed_generator_state"
    ]


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """Return the present value of a variable or array as a NumPy array of its own."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if (handle := handle_of(value)) is not None:
        return np.array(as_array(read(handle)))  # A tenth of the time that `.numpy()` takes.
    if hasattr(value, "numpy"):
        return np.asarray(value.numpy())
    return np.asarray(ops.convert_to_numpy(value))


def fill(
    saveable: Any,
    source: TensorSource,
    *,
    strict: bool = True,
    assets: Callable[[str], str | None] | None = None,
    optimizer_may_differ: bool = True,
    selection: Selection = ALL,
) -> RestoreReport:
    """Restore the state of a Keras object from named tensors.

    Args:
        saveable: A model, layer, optimizer or metric, built.
        source: Where the tensors come from.
        strict: Whether everything has to match. If not, what matches is loaded.
        assets: See `AssetsWhenAsked`; `None` where layers saved no files (vocabularies).
        optimizer_may_differ: See `compare_source`.
        selection: Which tensors are meant, and what they are called.

    Returns:
        The report.

    Raises:
        RestoreError: something does not fit and `strict`, or a layer refused its state. Nothing
            was changed.
    """
    captured = capture(saveable)
    unknown = tuple(captured.unknown)
    taken_as_they_are = {p: i for p, i in source.tensors.items() if p.startswith(unknown)}
    needed = captured.needed()
    needed = dataclasses.replace(needed, tensors={**needed.tensors, **taken_as_they_are})
    compared = compare_source(needed, source, selection, optimizer_may_differ=optimizer_may_differ)
    report = compared.report
    if strict and not report:
        raise misfit(report)
    arrays: dict[str, Any] = compared.read()
    asked = assets is not None and asks_for_files(saveable, captured)
    handles = None if asked else handles_of(saveable, captured)
    if handles is not None:
        _assign_all({path: (handles[path], as_tensor(array)) for path, array in arrays.items()})
        return report
    undo = remember(saveable)
    try:
        present = {p: to_numpy(v) for p, v in captured.values.items() if p not in arrays}
        pour(saveable, arrays | present, assets)
    except BaseException as error:
        undo()
        if isinstance(error, Refused):
            raise misfit(report, error.reasons) from error.reasons[0][1]
        raise
    return report


def _assign_all(values: Mapping[str, tuple[Handle, Any]]) -> None:
    """Give variables of TensorFlow new values, or, should one fail or a user interrupt, none."""
    before = [(handle, read(handle)) for handle, _ in values.values()]
    try:
        for handle, value in values.values():
            assign(handle, value)
    except BaseException:
        for handle, value in before:
            assign(handle, value)
        raise


class Refused(Exception):
    """Layers refused their state. Attribute: `reasons`, pairs of a layer and its error."""

    def __init__(self, reasons: list[tuple[Any, Exception]]):
        super().__init__("; ".join(str(error) for _, error in reasons))
        self.reasons = reasons


def pour(
    saveable: Any,
    arrays: dict[str, Any],
    assets: Callable[[str], str | None] | None = None,
    skip: Iterable[Any] = (),
) -> None:
    """Hand arrays to an object through Keras' own walk. If it raises, `remember` undoes it.

    Raises:
        Refused: layers refused their state.
    """
    for index, variable in enumerate(_seed_states(saveable)):
        if (path := f"{RANDOM_GROUP}{index}") in arrays:
            variable.assign(arrays[path])
    refused: dict[int, tuple[Any, Exception]] = {}
    load_state(
        saveable,
        weights_store=FillStore(arrays),
        assets_store=AssetsWhenAsked(assets) if assets else None,
        visited_saveables={id(item) for item in skip},
        failed_saveables=set(),
        error_msgs=refused,
    )
    if refused:
        raise Refused(list(refused.values()))


def remember(saveable: Any) -> Callable[[], None]:
    """Return what gives an object's variables back their present values."""
    before = [(variable, _held(variable)) for variable in variables_of(saveable)]

    def undo() -> None:
        for variable, value in before:
            variable.assign(value)

    return undo


def _held(variable: Any) -> Any:
    """Return the present value of a variable, which no later assignment changes."""
    if (handle := handle_of(variable)) is not None:
        return read(handle)
    value = variable.value
    if hasattr(value, "read_value"):  # TensorFlow: shares the buffer until the next assignment.
        return value.read_value()
    if hasattr(value, "detach"):  # PyTorch: assignments write into the buffer.
        return value.detach().clone()
    return value


def build_like(saveable: Any, build_config: Mapping[str, Any] | None, name: str) -> None:
    """Build a model or layer that has no variables yet from what it was built with when saved.

    Raises:
        NotBuiltError: the shape is not on record, or does not build it.
    """
    if getattr(saveable, "built", True):
        return
    if build_config:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            saveable.build_from_config(dict(build_config))
        failed = any("cannot be built automatically" in str(one.message) for one in told)
        if saveable.variables and not failed:
            # Keras builds the layers of a subclassed model by a trial run, and forgets its flag.
            saveable.built = True
    if not saveable.built:
        raise NotBuiltError(
            f"The {type(saveable).__name__} {name!r} is not built: it has no variables yet, so "
            "there is nothing that could be restored.",
            received=f"{name}={saveable!r}",
            remedy="Call it on one batch of data, or call its `build(input_shape)`, and restore "
            "after that.",
            name=name,
        )


def build_optimizer(optimizer: Any, variables: Iterable[Any]) -> None:
    """Make the state of an optimizer exist, so that it can be compared and restored."""
    variables = list(variables)
    if isinstance(optimizer, keras.optimizers.Optimizer) and not optimizer.built and variables:
        optimizer.build(variables)
