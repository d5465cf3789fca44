"""Translate the nodes of a Keras 2 model to Keras 3.

Keras 3 still reads the lists in which Keras 2 saved the inputs of a layer, but drops everything
except one list of tensors: tensors in keyword arguments (`value=` of an attention layer,
`initial_state=`), structures, constants. So these nodes, and calls of TensorFlow functions, are
written in Keras 3's form. In Keras 2, the nodes of a nested model were numbered from one, because
the first was its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_ckpt_tools.formats.keras2.functions import (
    SLICES,
    Operation,
    operation_for,
    slices,
)
from keras_ckpt_tools.formats.keras2.shapes import is_reference, references, resolve_shapes

_CALLS = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")
_CONSTANT = "_CONSTANT_VALUE"


def translate_graph(model: dict[str, Any], complain: Callable[[str, str, str], None]) -> None:
    """Rewrite the nodes in the config of a functional model.

    Args:
        model: The inner config, with `layers`, `input_layers` and `output_layers`.
        complain: Takes the name of a layer, what cannot be said about it, and what to do.
    """
    resolve_shapes(model)
    layers = [layer for layer in model["layers"] if isinstance(layer, dict)]
    graph = _Graph(layers)
    for key in ("input_layers", "output_layers"):
        ends = model.get(key)
        if isinstance(ends, list) and len(ends) == 1 and isinstance(ends[0], list):
            model[key] = ends = ends[0]  # A single one is no list of one.
        graph.renumber(ends, graph.sequential)
    for layer in layers:
        nodes = layer.get("inbound_nodes")
        if not isinstance(nodes, list):
            continue
        graph.renumber(nodes, graph.nested)
        if layer.get("class_name") in _CALLS:
            _translate_call(layer, nodes, graph, complain)
        else:
            layer["inbound_nodes"] = [
                graph.modern(node) if _says_more(node, graph) else node for node in nodes
            ]


class _Graph:
    def __init__(self, layers: list[dict[str, Any]]):
        self.names = {str(layer.get("name")) for layer in layers}
        self.integers = {str(layer.get("name")) for layer in layers if _is_of_integers(layer)}
        for layer in layers:  # In their order, as Keras writes them: each after its inputs.
            if layer.get("class_name") in _CALLS and not self.integers.isdisjoint(
                references(layer.get("inbound_nodes"))
            ):
                self.integers.add(str(layer.get("name")))
        models = [layer for layer in layers if _layers_of(layer) is not None]
        self.nested = {str(layer.get("name")) for layer in models}
        # Keras 3 counts the ends of functional models from one itself.
        self.sequential = {
            str(layer.get("name"))
            for layer in models
            if layer.get("class_name") == "Sequential" or "input_layers" not in _inner(layer)
        }

    def is_tensor(self, value: Any) -> bool:
        """Return whether a value is, or holds, a reference to a tensor of the model."""
        if self.is_reference(value):
            return True
        if isinstance(value, dict):
            return any(self.is_tensor(item) for item in value.values())
        return isinstance(value, list) and any(self.is_tensor(item) for item in value)

    def is_reference(self, value: Any) -> bool:
        return is_reference(value, self.names)

    def renumber(self, value: Any, models: set[str]) -> None:
        todo = [value]
        while todo:
            item = todo.pop()
            if isinstance(item, dict):
                todo.extend(item.values())
            elif isinstance(item, list):
                if self.is_reference(item) and item[0] in models and item[1] > 0:
                    item[1] -= 1
                todo.extend(item)

    def words(self, value: Any) -> Any:
        """Return a structure with its references as Keras 3 writes them."""
        if self.is_reference(value):
            history = {"shape": [], "dtype": "float32", "keras_history": value[:3]}
            return {"class_name": "__keras_tensor__", "config": history}
        if isinstance(value, list) and len(value) >= 3 and value[0] == _CONSTANT:
            return value[2]
        if isinstance(value, list):
            return [self.words(item) for item in value]
        if isinstance(value, dict):
            return {key: self.words(item) for key, item in value.items()}
        return value

    def modern(self, node: Any) -> dict[str, Any]:
        """Return a node of a layer as Keras 3 writes it."""
        if isinstance(node, list) and len(node) == 1 and isinstance(node[0], list):
            node = node[0]  # One tensor is no list of one.
        return {"args": [self.words(node)], "kwargs": self.words(arguments_of(node))}


def arguments_of(node: Any) -> dict[str, Any]:
    """Return the keyword arguments of a call; each of its tensors has a copy."""
    todo = [node]
    while todo:
        item = todo.pop(0)
        if isinstance(item, list) and len(item) == 4 and isinstance(item[0], str):
            return dict(item[3]) if isinstance(item[3], dict) else {}
        todo.extend(
            item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        )
    return {}


def _says_more(node: Any, graph: _Graph) -> bool:
    """Return whether a node is more than a list of tensors and plain arguments."""
    if isinstance(node, dict):
        return "args" not in node
    if not isinstance(node, list):
        return False
    if graph.is_tensor(arguments_of(node)) or arguments_of(node):
        return True
    return not all(graph.is_reference(item) for item in node)


def _translate_call(
    layer: dict[str, Any],
    nodes: list[Any],
    graph: _Graph,
    complain: Callable[[str, str, str], None],
) -> None:
    function = str(_inner(layer).get("function") or _inner(layer).get("attr_name"))
    translated = [_call(function, node, graph) for node in nodes]
    whole = [one for one in translated if one is not None]
    if len({repr(one[0]) for one in whole}) != 1 or len(whole) != len(nodes):
        if any(isinstance(node, list) and node[:1] == [_CONSTANT] for node in nodes):
            # Keras 2 wrote the first argument only, which here is no tensor: `einsum("ij->ji", x)`.
            why = ", and the file does not contain its input tensors"
        else:
            why = (f" with {_said(nodes)}" if nodes else "") + (
                ", for which no equal operation of Keras 3 is known"
            )
        cure = "write a layer that calls it, and build the model with that"
        complain(str(layer.get("name")), f"calls `tf.{function}`{why}", cure)
        return
    operation = dict(whole[0][0])
    name = str(layer.get("name"))
    layer.clear()
    layer |= operation
    # Its own name it gets from Keras, whose operations took none in 3.10.
    layer["name"] = name
    layer["inbound_nodes"] = [{"args": arguments, "kwargs": {}} for _, arguments in whole]


def _call(function: str, node: Any, graph: _Graph) -> tuple[dict[str, Any], list[Any]] | None:
    """Return the operation of one call, and what it is called on."""
    arguments = arguments_of(node)
    if isinstance(node, list) and len(node) == 1 and graph.is_reference(node[0]):
        node = node[0]
    first = graph.words(node)
    if function == SLICES:
        key = slices(arguments.get("slice_spec"), graph.is_tensor)
        return None if key is None else (_class("keras.src.ops.numpy", "GetItem", {}), [first, key])
    found = operation_for(function, arguments, graph.is_tensor)
    if found is None or _rounds(found, node, graph):
        return None
    operands = [_constant(graph.words(operand)) for operand in found.operands]
    return _class(found.module, found.class_name, dict(found.config)), [first, *operands]


def _rounds(found: Operation, node: Any, graph: _Graph) -> bool:
    """Return whether only one of Keras and TensorFlow may round to integers."""
    floats = graph.is_reference(node) and node[0] not in graph.integers
    resized = found.class_name == "Resize" and found.config["interpolation"] != "nearest"
    return (resized or found.class_name == "Mean") and not floats


def _constant(value: Any) -> Any:
    """Return an operand with its numbers as an array: Keras' operations take no lists of them."""
    todo, numbers = [value], []
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo.extend(item)
        else:
            numbers.append(item)
    if not isinstance(value, list) or not all(type(n) in (int, float) for n in numbers):
        return value
    dtype = "int32" if all(type(n) is int for n in numbers) else "float32"
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def _class(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    # Keras names its own operations twice.
    return {"module": module, "class_name": class_name, "config": config,
            "registered_name": class_name}  # fmt: skip


def _said(nodes: list[Any]) -> str:
    arguments = {k: v for k, v in arguments_of(nodes[0]).items() if k != "name"}
    return (
        ", ".join(f"{key}={value!r}" for key, value in arguments.items())[:200] or "these tensors"
    )


def _is_of_integers(layer: dict[str, Any]) -> bool:
    if layer.get("class_name") == "InputLayer":
        return not str(_inner(layer).get("dtype", "float32")).startswith(("float", "bfloat"))
    return _inner(layer).get("function") in ("cast", "one_hot", "math.argmax", "argmax")


def _inner(layer: dict[str, Any]) -> dict[str, Any]:
    inner = layer.get("config")
    return inner if isinstance(inner, dict) else {}


def _layers_of(layer: dict[str, Any]) -> list[Any] | None:
    listed = _inner(layer).get("layers")
    return listed if isinstance(listed, list) else None
