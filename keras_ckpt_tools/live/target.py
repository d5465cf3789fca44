"""What a restore fills, whatever it is made of: live objects -> *parts* -> compare, fill.

A model is one part. A list or a dict has a part for each item, and its tensors stand below the
item's index or key, as they do in a manager's checkpoint (`critic/layers/dense/vars/0`,
`weights/1/vars/0`). However many parts there are, they are compared together, read together, and
either all of them change or none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import ArgumentError, NotBuiltError
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.keras_walk import has_state
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.live.variable_trees import collect_variables, is_variable
from keras_ckpt_tools.live.variables import as_tensor, assign, handles_of
from keras_ckpt_tools.matching.compare import Comparison, compare_source, is_raw, misfit
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.matching.selection import ALL, Selection


class Part:
    """One object to fill.

    Args:
        name: Where it stands in the target, `""` for the target itself.
        target: A model, layer, optimizer, metric, module, variable, or variables in a container.
        skip: Optimizers that are parts of their own.

    Attributes:
        extra: Further variables, by path: those that Keras would not save and a file has.
    """

    def __init__(self, name: str, target: Any, skip: tuple[Any, ...] = ()):
        self.name = name
        self.target = target
        self.extra: dict[str, Any] = {}
        self._skip = skip

    @property
    def is_optimizer(self) -> bool:
        return isinstance(self.target, keras.optimizers.Optimizer)

    @property
    def is_keras(self) -> bool:
        """Whether Keras itself walks it."""
        metric = isinstance(self.target, keras.metrics.Metric)
        return isinstance(self.target, internals.KerasSaveable) and not metric

    @property
    def optimizer(self) -> Any:
        """The optimizer that a model was compiled with, where that is no part of its own."""
        optimizer = getattr(self.target, "optimizer", None) if self.is_keras else None
        return None if any(optimizer is one for one in self._skip) else optimizer

    def leave_out(self, optimizer: Any) -> None:
        """Leave the optimizer of a model as it is."""
        self._skip = (*self._skip, optimizer)

    def captured(self) -> Captured:
        """Return references to its tensors, by path below its name.

        Raises:
            NotBuiltError: it has no variables yet.
        """
        if self.is_keras:
            found = state.capture(self.target, skip=self._skip)
            found.values.update(self.extra)
            return found
        return Captured(self._variables())

    def _variables(self) -> dict[str, Any]:
        target = self.target
        if isinstance(target, keras.metrics.Metric):
            return {f"vars/{index}": v for index, v in enumerate(target.variables)}
        return collect_variables(target)[0] | self.extra

    def remember(self) -> Callable[[], None]:
        """Return what gives it back its present state."""
        held = [(v, state.to_numpy(v)) for v in self._rest()]
        undo = state.remember(self.target) if self.is_keras else None

        def give_back() -> None:
            if undo is not None:
                undo()
            for variable, value in held:
                variable.assign(value)

        return give_back

    def _rest(self) -> list[Any]:
        return list(self.extra.values()) if self.is_keras else list(self._variables().values())

    def pour(self, arrays: Mapping[str, Any]) -> None:
        """Give it what was read. If this raises, `remember` undoes it."""
        direct = self.extra if self.is_keras else self._variables()
        for path, variable in direct.items():
            if path in arrays:
                variable.assign(arrays[path])
        if self.is_keras:
            captured = state.capture(self.target, skip=self._skip)
            if any(map(is_raw, arrays)):
                captured = captured.with_raw()
            inside = {path: a for path, a in arrays.items() if path not in self.extra}
            handles = handles_of(self.target, captured)
            if handles is not None:
                for path, array in inside.items():
                    assign(handles[path], as_tensor(array))
                return
            present = state.completed(inside, captured)
            state.pour(self.target, present, skip=self._skip, captured=captured)


class Target:
    """What is to be filled.

    Args:
        target: A Keras model, layer, optimizer or metric; a `tf.Module`; a variable; or a list or
            dict of these.

    Attributes:
        target: The same.
        parts: Its parts.

    Raises:
        ArgumentError: there is something that cannot be restored.
        NotBuiltError: likewise, something that has no variables yet.
    """

    def __init__(self, target: Any):
        self.target = target
        self.parts = [Part(name, item, skip) for name, item, skip in _parts_of(target)]
        if not self.parts:
            raise _unfit("It is empty.", target)
        for part in self.parts:
            _check(part)

    @property
    def is_container(self) -> bool:
        """Whether its parts have names."""
        return isinstance(self.target, (list, tuple, Mapping))

    @property
    def is_plain_model(self) -> bool:
        """Whether it is one Keras object with nothing that Keras would not restore."""
        return not self.is_container and self.parts[0].is_keras and not self.parts[0].extra

    def captured(self) -> Captured:
        """Return references to all its tensors, by path; none of an optimizer that is not built."""
        parts: list[Captured] = []
        whole = Captured(find_raw=lambda: {p: v for one in parts for p, v in one.raw.items()})
        for part in self.parts:
            if part.is_optimizer and not part.target.built:
                continue
            one = part.captured()
            one = one.under(part.name) if part.name else one
            whole.values.update(one.values)
            whole.names.update(one.names)
            whole.unknown.extend(one.unknown)
            whole.optimizers.update(one.optimizers)
            parts.append(one)
        return whole

    def compare(self, source: TensorSource, selection: Selection = ALL) -> Comparison:
        """Compare it with what a source has."""
        captured = self.captured()
        if any(map(is_raw, source.tensors)):
            captured = captured.with_raw()
        unknown = tuple(captured.unknown)
        as_they_are = {p: i for p, i in source.tensors.items() if p.startswith(unknown)}
        needed = captured.needed()
        needed = dataclasses.replace(needed, tensors={**needed.tensors, **as_they_are})
        return compare_source(needed, source, selection)

    def fill(
        self, source: TensorSource, *, strict: bool = True, selection: Selection = ALL
    ) -> RestoreReport:
        """Restore all parts, or none.

        Args:
            source: Where the tensors come from.
            strict: Whether everything has to match. If not, what matches is restored.
            selection: Which tensors are meant, and what they are called.

        Returns:
            The report.

        Raises:
            RestoreError: something does not fit and `strict`, or an object refused its state.
                Nothing was changed.
        """
        compared = self.compare(source, selection)
        if strict and not compared.report:
            raise misfit(compared.report)
        report, arrays = compared.read()
        if strict and not report:
            raise misfit(report)
        undo: list[Callable[[], None]] = []
        try:
            for part in self.parts:
                undo.append(part.remember())
                prefix = f"{part.name}/" if part.name else ""
                own = {p.removeprefix(prefix): a for p, a in arrays.items() if p.startswith(prefix)}
                if own:
                    part.pour(own)
        except BaseException as error:
            for step in reversed(undo):
                step()
            if isinstance(error, state.Refused):
                raise misfit(report, error.reasons) from error.reasons[0][1]
            raise
        return report


def is_several(target: Any) -> bool:
    """Return whether something is restored part by part: all but a Keras model or layer."""
    kinds = (list, tuple, Mapping, keras.optimizers.Optimizer, keras.metrics.Metric)
    alone = (tf.random.Generator, keras.random.SeedGenerator)
    if isinstance(target, (*kinds, *alone)) or is_variable(target):
        return True
    return isinstance(target, tf.Module) and not isinstance(target, internals.KerasSaveable)


def _parts_of(target: Any) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    if not isinstance(target, (list, tuple, Mapping)):
        yield "", target, ()
        return
    named = target.items() if isinstance(target, Mapping) else enumerate(target)
    items = [(str(name), item) for name, item in named]
    optimizers = tuple(i for _, i in items if isinstance(i, keras.optimizers.Optimizer))
    for name, item in items:
        yield name, item, optimizers if not isinstance(item, keras.optimizers.Optimizer) else ()


def _check(part: Part) -> None:
    target, where = part.target, part.name or "target"
    if part.is_optimizer:
        return  # Built when it is known what it was built on.
    if part.is_keras:
        if not has_state(target):
            raise state.not_built(target, where, "restored")
        return
    if isinstance(target, keras.metrics.Metric):
        if not target.variables:
            raise NotBuiltError(
                f"The metric {where!r} is not built: it makes its variables at its first update.",
                received=f"{where}={target!r}",
                remedy="Call `update_state` on one batch of data, and restore after that.",
                name=where,
            )
        return
    generators = (tf.random.Generator, keras.random.SeedGenerator)
    if is_variable(target) or isinstance(target, (tf.Module, *generators)):
        return
    if isinstance(target, (list, tuple, Mapping)):
        _, strange = collect_variables(target)
        if strange:
            raise _unfit(f"Beside variables there is {next(iter(strange.items()))!r}.", target)
        return
    raise _unfit("This is none of them.", target)


def _unfit(what: str, target: Any) -> ArgumentError:
    return ArgumentError(
        "The first argument is a Keras model or optimizer, a `tf.Module`, a variable, or a list or "
        f"dict of these. {what}",
        received=f"target={target!r}",
        remedy="Call `kct.load_weights(model, path)`, or "
        '`kct.load_weights({"model": model, "optimizer": optimizer}, path)`; wrap a number in '
        "`tf.Variable(...)`.",
    )
