"""Pair the layers of a TensorFlow checkpoint that have only numbers with live layers.

Sequential and functional models are saved so: `layer_with_weights-2` by Keras 2, the third of
`_operations` by Keras 3. The model may have changed since, so layers are first matched by
user-given names, with which the names of their variables begin. The others are matched in order; if
one side has more, only layers with the same shapes are matched.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from keras_ckpt_tools.formats.tensorflow.object_graph import Node

_NUMBERED = re.compile(r"(layer|layer_with_weights)-(\d+)")


def layers_by_number(node: Node, target: Any) -> dict[str, Any]:
    """Return the live layer of each child of a Keras 2 model that is known by its number."""
    numbered = {n: found for n in node.children if (found := _NUMBERED.fullmatch(n))}
    if not numbered:
        return {}
    kind = "layer_with_weights" if any(m[1] != "layer" for m in numbered.values()) else "layer"
    order = sorted((int(m[2]), n) for n, m in numbered.items() if m[1] == kind)
    pairs = pair_layers([node.children[n] for _, n in order], getattr(target, "layers", ()))
    live = {id(child): layer for child, layer in pairs}
    return {n: live[id(node.children[n])] for n in numbered if id(node.children[n]) in live}


def pair_layers(nodes: Sequence[Node], layers: Any) -> list[tuple[Node, Any]]:
    """Return pairs of a saved and a live layer.

    Args:
        nodes: The saved ones, in their order.
        layers: The live ones, likewise.
    """
    saved = [node for node in nodes if node.holds_values]
    # A module of the user's may call anything its `layers`.
    layers = layers if isinstance(layers, (list, tuple)) else ()
    weighty = [layer for layer in layers if getattr(layer, "weights", None)]
    given = {layer.name: layer for layer in weighty if not _is_automatic(layer)}
    pairs = [(node, given[_name_of(node)]) for node in saved if _name_of(node) in given]
    taken = {id(thing) for pair in pairs for thing in pair}
    saved = [node for node in saved if id(node) not in taken]
    weighty = [layer for layer in weighty if id(layer) not in taken]
    if len(saved) == len(weighty):
        return pairs + list(zip(saved, weighty, strict=True))
    before = [_shapes_below(node) for node in saved]
    now = [_sorted_shapes(variable.shape for variable in layer.weights) for layer in weighty]
    matcher = difflib.SequenceMatcher(None, before, now, autojunk=False)
    for start, other, length in matcher.get_matching_blocks():
        pairs += zip(saved[start : start + length], weighty[other : other + length], strict=True)
    return pairs


def _sorted_shapes(shapes: Iterable[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(sorted(tuple(shape) for shape in shapes))


def _shapes_below(node: Node) -> tuple[tuple[int, ...], ...]:
    found, seen, stack = [], set(), [node]
    while stack:
        one = stack.pop()
        if id(one) not in seen:
            seen.add(id(one))
            found += [one.shape] if one.key else []
            stack += one.children.values()
    return _sorted_shapes(found)


def _is_automatic(layer: Any) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    return re.fullmatch(rf"{words.lower()}(_\d+)?", layer.name) is not None


def _name_of(node: Node) -> str:
    """Return the name of a layer, as the names of its own variables begin with it."""
    owns = [child.name for child in node.children.values() if child.key]
    names = {name.rpartition("/")[0].rpartition("/")[2] for name in owns}
    return names.pop() if len(names) == 1 else ""
