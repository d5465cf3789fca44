"""Split the target of a restore into parts that are compared and restored together.

A model is one part. A list or dict has a part for each item, with its tensors below the item's
index or key, as in a manager's checkpoint (`critic/layers/dense/vars/0`, `weights/1/vars/0`). All
parts change, or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.live.adapters import Adapter, VariablesAdapter, adapter_of
from keras_ckpt_tools.live.restore import compare_all, restore_all
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.live.variable_trees import is_generator, is_variable
from keras_ckpt_tools.matching.compare import Comparison
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.matching.selection import ALL, Selection


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
        self.parts = [adapter_of(name, item, skip) for name, item, skip in _parts_of(target)]
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

    @property
    def _restorable(self) -> list[Adapter]:
        """Its parts, without optimizers that are not built."""
        return [part for part in self.parts if not part.is_optimizer or part.target.built]

    def captured(self) -> Captured:
        """Return references to all its tensors, by path; none of an optimizer that is not built."""
        return Captured.of_all((part.name, part.captured()) for part in self._restorable)

    def compare(self, source: TensorSource, selection: Selection = ALL) -> Comparison:
        """Compare it with what a source has."""
        return compare_all(self._restorable, source, selection)

    def fill(
        self, source: TensorSource, *, strict: bool = True, selection: Selection = ALL
    ) -> RestoreReport:
        """Restore all parts, or none; see `restore_all`."""
        parts = self._restorable
        return restore_all(parts, compare_all(parts, source, selection), strict=strict)


def is_several(target: Any) -> bool:
    """Return whether something is restored part by part: all but a Keras model or layer."""
    kinds = (list, tuple, Mapping, keras.optimizers.Optimizer, keras.metrics.Metric)
    if isinstance(target, kinds) or is_variable(target) or is_generator(target):
        return True
    saveable = isinstance(target, internals.KerasSaveable)
    return not saveable and isinstance(target, tf_kinds("Module"))


def _parts_of(target: Any) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    if not isinstance(target, (list, tuple, Mapping)):
        yield "", target, ()
        return
    named = target.items() if isinstance(target, Mapping) else enumerate(target)
    items = [(str(name), item) for name, item in named]
    optimizers = tuple(i for _, i in items if isinstance(i, keras.optimizers.Optimizer))
    for name, item in items:
        yield name, item, optimizers if not isinstance(item, keras.optimizers.Optimizer) else ()


def _check(part: Adapter) -> None:
    target = part.target
    part.check_built()
    if isinstance(part, VariablesAdapter):
        alone = (keras.random.SeedGenerator, *tf_kinds("Module", "random.Generator"))
        if not isinstance(target, (list, tuple, Mapping, *alone)) and not is_variable(target):
            raise _unfit("This is another type.", target)
        strange = {} if isinstance(target, alone) else part.strange()
        if strange:
            raise _unfit(f"It also contains {next(iter(strange.items()))!r}.", target)


def _unfit(what: str, target: Any) -> ArgumentError:
    return ArgumentError(
        "The first argument must be a Keras model or optimizer, a `tf.Module`, a variable, or a "
        f"list or dict of these. {what}",
        received=f"target={target!r}",
        remedy="Call `kct.load_weights(model, path)`, or "
        '`kct.load_weights({"model": model, "optimizer": optimizer}, path)`; wrap a number in '
        "`tf.Variable(...)`.",
    )
