"""What of an object decides how it is saved: object -> *structure* -> plan.

A walk through a model finds what there is to save. It need not be repeated for as long as what is
said here of the model is the same, and that can be said in far less time than the walk takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.formats.walk import attributes_of_any

_CONTAINERS = (list, tuple, dict)


@dataclass(frozen=True)
class Structure:
    """What the walk of an object depends on, in a form to compare.

    Attributes:
        variables: All its variables; see `variables_of`.
        keeps: Whether the walk is the same for as long as these, and `marks`, are. Not where a
            class of the user's decides in its own `save_own_variables` what it saves.
        kinds: The classes of the object, its optimizer and its layers, each once.
        marks: Which layer has which other layers under which names: two of them may have changed
            places, and the variables are still the same. Identities, not objects: whoever keeps
            them keeps no model alive.
    """

    variables: Sequence[Any]
    keeps: bool = True
    kinds: Sequence[type] = ()
    marks: Sequence[int | str] = ()


def structure_of(saveable: Any) -> Structure:
    """Return the structure of a model, layer, optimizer or metric."""
    layers = parts_of(saveable)
    optimizer = getattr(saveable, "optimizer", None)
    parts = [saveable, *([] if optimizer is None else [optimizer]), *layers]
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
            # TensorFlow keeps the same objects once more under names of its own.
            if name in passed_over or name.startswith("_self_"):
                continue
            if isinstance(value, internals.KerasSaveable):
                yield name
                yield id(value)
            elif isinstance(value, _CONTAINERS):
                yield name
                yield from _identities(value)


def _identities(container: Any) -> Iterator[int]:
    for item in container.values() if isinstance(container, dict) else container:
        if isinstance(item, internals.KerasSaveable):
            yield id(item)
        elif isinstance(item, _CONTAINERS):
            yield from _identities(item)


def saves_as_keras(kind: type) -> bool:
    """Return whether it is Keras that decides what objects of a class save."""
    method = getattr(kind, "save_own_variables", None)
    return method is None or method.__module__.startswith("keras.")


def variables_of(saveable: Any) -> list[Any]:
    """Return all variables of an object, a compiled model's optimizer included."""
    variables = list(getattr(saveable, "variables", ()))
    optimizer = getattr(saveable, "optimizer", None)
    return variables + list(getattr(optimizer, "variables", ()))


def is_whole(model: Any) -> bool:
    """Return whether a model and all its layers are built.

    `build(input_shape)` of a subclassed model marks it as built and may leave its layers as they
    are.
    """
    return bool(model.built) and all(layer.built for layer in model._flatten_layers())
