"""Replace shapes that a Keras 2 model computes by numbers.

`tf.reshape(x, (tf.shape(x)[0], -1))` consists of three calls: the shape, an element of it, and the
reshape. Keras 3 has no operation whose shape is a tensor, and does not need one here: one unknown
size follows from the others, and `layers.Reshape` keeps the batch. If the size is not certain, the
calls are not translated, and are reported.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from keras_ckpt_tools.formats.keras2.functions import ELEMENTWISE, SLICES
from keras_ckpt_tools.formats.keras2.layers import LAYERS

_SHAPES = ("shape", "shape_v2", "compat.v1.shape")
_STACKS = ("stack", "convert_to_tensor")
_CONSTANT = "_CONSTANT_VALUE"

# A size: a number, or which axis of which tensor it is of.
_Size = int | tuple[str, int, int, int]


def resolve_shapes(model: dict[str, Any]) -> None:
    """Write numbers for the sizes that a model computes to reshape, where they are certain.

    Args:
        model: The inner config of a functional model; layers that nothing needs any more go.
    """
    layers = [layer for layer in model["layers"] if isinstance(layer, dict)]
    graph = _Graph({str(layer.get("name")): layer for layer in layers})
    resolved = [graph.reshape(layer) for layer in layers if _function(layer) == "reshape"]
    if any(resolved):
        ends = [model.get("input_layers"), model.get("output_layers")]
        model["layers"] = graph.without_idle(model["layers"], ends)


class _Graph:
    def __init__(self, layers: dict[str, dict[str, Any]]):
        self.layers = layers

    def reshape(self, layer: dict[str, Any]) -> bool:
        """Rewrite one call of `tf.reshape`; return whether that was possible."""
        call = self._only_call(layer)
        shape = None if call is None else call[3].get("shape")
        sizes = None if shape is None else self._sizes(shape)
        if call is None or sizes is None or all(isinstance(size, int) for size in sizes):
            if sizes is not None and shape != sizes and call is not None:
                call[3]["shape"] = sizes
                return True
            return False
        unknown = [size for size in sizes if not isinstance(size, int) or size == -1]
        if len(unknown) == 1:
            call[3]["shape"] = [size if isinstance(size, int) else -1 for size in sizes]
            return True
        if len(unknown) > 2 or not self._is_batch_of(sizes[0], call):
            return False
        target = [size if isinstance(size, int) else -1 for size in sizes[1:]]
        layer["class_name"] = "Reshape"
        layer["config"] = {"name": layer.get("name"), "target_shape": target}
        for key in ("module", "registered_name"):
            layer.pop(key, None)
        call[3].clear()
        layer["inbound_nodes"] = [[call]]
        return True

    def without_idle(self, layers: list[Any], ends: list[Any]) -> list[Any]:
        """Return the layers without those that only computed sizes."""
        kept = list(layers)
        while True:
            used = {name for layer in kept for name in references(layer.get("inbound_nodes"))}
            used |= set(references(ends))
            left = [one for one in kept if one.get("name") in used or not _computes_sizes(one)]
            if len(left) == len(kept):
                return left
            kept = left

    def _only_call(self, layer: dict[str, Any]) -> list[Any] | None:
        """Return the one tensor that a layer is called on: name, node, index, arguments."""
        nodes = layer.get("inbound_nodes")
        if not isinstance(nodes, list) or len(nodes) != 1:
            return None
        call = nodes[0]
        while isinstance(call, list) and len(call) == 1:
            call = call[0]
        known = isinstance(call, list) and len(call) == 4 and isinstance(call[3], dict)
        return call if known and call[0] in self.layers else None

    def _sizes(self, value: Any) -> list[_Size] | None:
        if is_reference(value, self.layers):
            layer = self.layers[value[0]]
            nodes = layer.get("inbound_nodes")
            if _function(layer) not in _STACKS or not isinstance(nodes, list) or len(nodes) != 1:
                return None
            value = nodes[0]
        if not isinstance(value, list):
            return None
        sizes = [self._size(item) for item in value]
        return None if None in sizes else sizes  # type: ignore[return-value]

    def _size(self, value: Any) -> _Size | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, list) and value[:1] == [_CONSTANT] and len(value) > 2:
            return self._size(value[2])
        if not is_reference(value, self.layers):
            return None
        element = self._only_call(self.layers[value[0]])
        if element is None or _function(self.layers[value[0]]) != SLICES:
            return None
        axis, shape = element[3].get("slice_spec"), self.layers[element[0]]
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        of = self._only_call(shape)
        if not isinstance(axis, int) or of is None or _function(shape) not in _SHAPES:
            return None
        inner = self.layers[of[0]].get("config", {})
        static = inner.get("batch_input_shape", inner.get("batch_shape"))
        if self.layers[of[0]].get("class_name") == "InputLayer" and isinstance(static, list):
            if axis < len(static) and isinstance(static[axis], int):
                return int(static[axis])
        return (of[0], of[1], of[2], axis)

    def _is_batch_of(self, size: _Size, call: list[Any]) -> bool:
        """Return whether a size is for certain that of the first axis of a tensor."""
        if isinstance(size, int) or size[3] != 0:
            return False
        return list(size[:3]) == call[:3] or (self._has_batch(size[0]) and self._has_batch(call[0]))

    def _has_batch(self, name: str) -> bool:
        """Return whether the first axis of what a layer returns is the batch of the model."""
        todo, seen = [name], set()
        while todo:
            one = todo.pop()
            layer = self.layers.get(one)
            if layer is None:
                return False
            if one in seen:
                continue
            seen.add(one)
            kind, function = layer.get("class_name"), _function(layer)
            keeps = kind in LAYERS and kind != "Lambda"
            if not keeps and not (function in ELEMENTWISE and _has_no_arrays(layer)):
                return False
            todo += references(layer.get("inbound_nodes"))
        return True


def _has_no_arrays(layer: dict[str, Any]) -> bool:
    """Return whether an operation has numbers and tensors only: an array may add axes in front."""
    todo: list[Any] = [layer.get("inbound_nodes")]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list):
            if one and all(isinstance(item, (int, float)) for item in one):
                return False
            todo += one
    return True


def _function(layer: dict[str, Any]) -> str:
    inner = layer.get("config")
    if layer.get("class_name") == "SlicingOpLambda":
        return SLICES
    return str(inner.get("function")) if isinstance(inner, dict) else ""


def _computes_sizes(layer: Any) -> bool:
    return isinstance(layer, dict) and _function(layer) in (*_SHAPES, *_STACKS, SLICES)


def is_reference(value: Any, names: Container[str]) -> bool:
    """Return whether a value stands for an output of one of these layers."""
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and value[0] in names
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value[1:3])
    )


def references(value: Any) -> Iterator[str]:
    """Yield the names of the layers whose outputs are somewhere in the nodes of another."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list):
            if len(item) in (3, 4) and isinstance(item[0], str) and isinstance(item[1], int):
                yield item[0]
            todo.extend(item)
