"""Find what in an object decides how it is saved.

A walk through a model finds what to save. It is repeated only if the structure that this module
returns has changed. Computing the structure is far faster than the walk.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals

_CONTAINERS = (list, tuple, dict)
# An attribute with more items than this is not searched for optimizers.
_FEW = 64
_LEVELS = 4


@dataclass(frozen=True)
class Structure:
    """What the walk of an object depends on, in a form to compare.

    Attributes:
        variables: All its variables; see `variables_of`.
        keeps: Whether the walk stays the same while these and `marks` do. Not if a user's class
            has its own `save_own_variables`.
        kinds: The classes of the object, its optimizer and its layers, each once.
        marks: Which layer has which other layers under which names, because two layers may swap
            places. Identities, not objects, so they keep no model alive.
    """

    variables: Sequence[Any]
    keeps: bool = True
    kinds: Sequence[type] = ()
    marks: Sequence[int | str] = ()


def structure_of(saveable: Any) -> Structure:
    """Return the structure of a model, layer, optimizer or metric."""
    layers = parts_of(saveable)
    parts = [saveable, *optimizers_of(saveable), *layers]
    kinds = tuple(dict.fromkeys(map(type, parts)))
    return Structure(
        variables_of(saveable), all(map(saves_as_keras, kinds)), kinds, list(_marks(layers))
    )


def parts_of(saveable: Any) -> list[Any]:
    """Return a model or layer and all layers in it; nothing for other objects."""
    flatten = getattr(saveable, "_flatten_layers", None)
    return list(flatten()) if flatten else []


def _marks(layers: Sequence[Any]) -> Iterator[int | str]:
    passed_over = attributes_of_any("Layer") or frozenset()
    for layer in layers:
        if not layer._layers:
            continue
        for name, value in vars(layer).items():
            # TensorFlow has second references to the same objects, under its own names.
            if name in passed_over or name.startswith("_self_"):
                continue
            if isinstance(value, internals.KerasSaveable):
                yield name
                yield id(value)
            elif isinstance(value, _CONTAINERS):
                yield name
                yield from _identities(value)


def _identities(container: Any) -> Iterator[int]:
    todo, met = [container], {id(container)}  # A list may contain itself.
    while todo:
        one = todo.pop()
        for item in one.values() if isinstance(one, dict) else one:
            if isinstance(item, internals.KerasSaveable):
                yield id(item)
            elif isinstance(item, _CONTAINERS) and id(item) not in met:
                met.add(id(item))
                todo.append(item)


def saves_as_keras(kind: type) -> bool:
    """Return whether Keras' own code decides what objects of a class save."""
    method = getattr(kind, "save_own_variables", None)
    return method is None or method.__module__.startswith("keras.")


def variables_of(saveable: Any) -> list[Any]:
    """Return all variables of an object, those of its optimizers included."""
    variables = list(getattr(saveable, "variables", ()))
    for optimizer in optimizers_of(saveable):
        if optimizer is not saveable:
            variables += optimizer.variables
    return variables


def optimizers_of(saveable: Any) -> list[Any]:
    """Return the optimizers of an object, each once.

    The compiled one, those in attributes of models and of the user's layers (also in lists and
    dicts), and those inside other optimizers.
    """
    found: dict[int, Any] = {}

    def look_at(value: Any, around: tuple[int, ...] = ()) -> None:
        if isinstance(value, keras.optimizers.Optimizer):
            if id(value) not in found:
                found[id(value)] = value
                look_into(value)
        elif (
            isinstance(value, _CONTAINERS)
            and len(value) <= _FEW
            and len(around) < _LEVELS
            and id(value) not in around
        ):
            for item in value.values() if isinstance(value, dict) else value:
                look_at(item, (*around, id(value)))

    def look_into(holder: Any) -> None:
        for name, value in list(vars(holder).items()):
            if not name.startswith("_self_"):  # TensorFlow's second names for the same objects.
                look_at(value)

    look_at(saveable)
    look_at(getattr(saveable, "optimizer", None))
    for part in parts_of(saveable):
        if isinstance(part, keras.Model) or not type(part).__module__.startswith("keras."):
            look_into(part)
    return list(found.values())


def is_whole(model: Any) -> bool:
    """Return whether all variables of a model exist.

    The flag `built` alone is not enough. `build(input_shape)` of a subclassed model sets it and
    may not build its layers. A model or layer without its own `build` has only the variables of
    its constructor and of its layers. So a model without `call` (a GAN, a VAE), which is never
    built, is complete as soon as its layers are built.
    """
    return all(map(_is_complete, model._flatten_layers()))


def _is_complete(layer: Any) -> bool:
    # Keras marks its own default `build`, which makes no variables.
    return bool(layer.built) or getattr(layer.build, "_is_default", False)


def has_call(layer: Any) -> bool:
    """Return whether a model or layer can be called: a GAN may have a `train_step` only."""
    return type(layer).call not in (keras.Model.call, keras.layers.Layer.call)


def has_state(saveable: Any) -> bool:
    """Return whether there is something to save: it is built, or it has variables."""
    return bool(getattr(saveable, "built", True) or getattr(saveable, "variables", ()))


_LOOKED_UP = "saving_attr_skiplist_"
_KINDS = ("Functional", "Layer", "Loss", "Metric", "Operation", "Optimizer", "Sequential")


def save_state(saveable: Any, **how: Any) -> None:
    """Call Keras' `_save_state`."""
    with _remembered():
        internals.save_state(saveable, inner_path="", **how)


def load_state(saveable: Any, **how: Any) -> None:
    """Call Keras' `_load_state`."""
    with _remembered():
        internals.load_state(saveable, inner_path="", **how)


@contextmanager
def _remembered() -> Iterator[None]:
    state = internals.global_state
    before = {kind: state.get_global_attribute(_LOOKED_UP + kind) for kind in _KINDS}
    for kind in _KINDS:
        state.set_global_attribute(_LOOKED_UP + kind, attributes_of_any(kind))
    try:
        yield
    finally:
        for kind, value in before.items():
            state.set_global_attribute(_LOOKED_UP + kind, value)


@functools.cache
def attributes_of_any(kind: str) -> frozenset[str] | None:
    """Return the attributes that every object of a kind has, which the walk skips."""
    try:
        return frozenset(internals.get_attr_skipset(kind))
    except ValueError:
        return None  # This Keras has no such kind: 3.10 knows no "Operation".
