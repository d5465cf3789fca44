"""Give variables what was read without asking their layers: source -> *variables*.

A layer's `load_own_variables` may do more than assign: rebuild a table, merge an adapter, refuse.
Of most layers it is known that it does not, and then asking thousands of them, one variable at a
time and with each value converted and checked anew, is most of what a load takes. So where every
part of an object is such a one, and every tensor goes into a variable in host memory, values are
handed over directly. Where anything is different, or not known, Keras' own walk does it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_ckpt_tools.formats.sharing import Handle, handle_of
from keras_ckpt_tools.formats.stores import Captured

# Methods that assign each tensor to the variable that was saved under its name, and nothing else.
_ASSIGNS = frozenset(
    {keras.layers.Layer.load_own_variables, keras.optimizers.Optimizer.load_own_variables}
)
# These assign only, as long as the layer is neither quantized nor adapted (LoRA).
_ASSIGNS_WHEN_PLAIN = frozenset(
    layer.load_own_variables
    for layer in (
        keras.layers.Conv1D,
        keras.layers.Conv2D,
        keras.layers.Conv3D,
        keras.layers.Dense,
        keras.layers.EinsumDense,
        keras.layers.Embedding,
    )
)


def handles_of(saveable: Any, captured: Captured) -> dict[str, Handle] | None:
    """Return the variable of each path, if a restore is nothing but assigning to them.

    Args:
        saveable: A model, layer or optimizer.
        captured: What it is made of.
    """
    parts = {id(part): part for part in _parts(saveable)}.values()
    # The walk met nothing else that has a say.
    known = sum(hasattr(part, "save_own_variables") for part in parts) == len(captured.asked)
    if not known or not all(map(_only_assigns, parts)):
        return None
    handles = {path: handle_of(value) for path, value in captured.values.items()}
    found = {path: handle for path, handle in handles.items() if handle is not None}
    return found if len(found) == len(handles) else None


def asks_for_files(saveable: Any, captured: Captured) -> bool:
    """Return whether anything in an object saves or loads files (vocabularies)."""
    return captured.has_assets or any(hasattr(part, "load_assets") for part in _parts(saveable))


def _parts(saveable: Any) -> Iterator[Any]:
    yield saveable
    if hasattr(saveable, "_flatten_layers"):
        yield from saveable._flatten_layers()
    optimizer = getattr(saveable, "optimizer", None)
    while optimizer is not None:
        yield optimizer
        optimizer = getattr(optimizer, "inner_optimizer", None)


def _only_assigns(part: Any) -> bool:
    method = getattr(type(part), "load_own_variables", None)
    if method is None or method in _ASSIGNS:
        return True
    quantized = getattr(part, "quantization_mode", None) is not None
    return method in _ASSIGNS_WHEN_PLAIN and not quantized and not part.lora_enabled
