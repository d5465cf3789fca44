"""Find the variables of live Keras objects in a TensorFlow checkpoint: source -> *objects* -> fill.

A checkpoint names objects as the program had them: by attribute (`head/kernel`), by index in a list
(`blocks/0`), by number in a functional or sequential model (`layer-3`). So the graph of the file
and the live model are walked side by side, by names. Layers that are known by a number only are
matched by the name that a user gave them, which the names of their variables begin with; the rest
by their order.

State of an optimizer belongs to a variable of the model: by reference (Keras 2's older optimizers)
or by its name ("Adam/m/dense/kernel"). It is given to the slot of the Keras 3 variable that the
model's own variable was matched to, never by its place in a list alone.

What comes out is a source of tensors under Keras 3's paths, to be compared and read like any file.
What has no place there keeps the path it had, and so is named in the report.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats import state
from keras_ckpt_tools.formats.comparison import OPTIMIZER_GROUP
from keras_ckpt_tools.formats.tensor_source import TensorSource, read_from
from keras_ckpt_tools.formats.tf_checkpoint import Node, TfCheckpoint, plain_key
from keras_ckpt_tools.formats.tf_slots import match_optimizer
from keras_ckpt_tools.metadata import TensorInfo

# What Keras 2 has under another name than Keras 3.
_RENAMED = {"depthwise_kernel": "kernel"}
# Bookkeeping of TensorFlow and Keras 2, which no model of Keras 3 has.
_NO_STATE = ("keras_api", "save_counter", "train_counter")


class MatchedSource:
    """The tensors of a TensorFlow checkpoint under the paths of a Keras 3 model.

    Attributes:
        path: The prefix of the checkpoint.
        tensors: What there is. What matches nothing is there by the path that it had.
        places: The path in the checkpoint of each that matched.
    """

    def __init__(
        self, checkpoint: TensorSource, keys: Mapping[str, str], dtypes: Mapping[str, str]
    ):
        self.path = checkpoint.path
        self._source = checkpoint
        self._keys = dict(keys)
        self._dtypes = dtypes
        self.places = {path: plain_key(key) for path, key in keys.items()}
        self.tensors = {path: self._info(path, key) for path, key in keys.items()}

    def _info(self, path: str, key: str) -> TensorInfo:
        info = self._source.tensors[key]
        return dataclasses.replace(info, path=path, dtype=self._dtypes.get(path, info.dtype))

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path."""
        arrays = read_from(self._source, {path: self._keys[path] for path in paths})
        return {
            path: array.astype(self._dtypes[path]) if path in self._dtypes else array
            for path, array in arrays.items()
        }


def match_model(
    checkpoint: TfCheckpoint, node: Node, model: Any, optimizer: Any = None
) -> MatchedSource:
    """Match a model of a checkpoint with a live Keras 3 model.

    Args:
        checkpoint: The checkpoint.
        node: The model in it.
        model: The live model, built.
        optimizer: The live optimizer that was trained with, built; `None` for none.

    Returns:
        The tensors that belong to the two, by the paths of the model in a Keras weights file
        (`layers/dense/vars/0`, `optimizer/vars/1`).
    """
    captured = state.capture(model, skip=[optimizer] if optimizer is not None else [])
    paths = {id(value): path for path, value in captured.values.items()}
    live: dict[str, Any] = {}
    nodes: list[tuple[Node, Any]] = []

    def found(child: Node, value: Any) -> None:
        if id(value) in paths and paths[id(value)] not in live:
            live[paths[id(value)]] = child.key
            nodes.append((child, value))

    _walk(node, model, found, set(), top=True)
    ignored: set[str] = set()
    saved_optimizer = node.children.get("optimizer")
    if optimizer is not None and saved_optimizer is not None:
        slots = state.capture(optimizer).values
        theirs = {id(value): f"{OPTIMIZER_GROUP}{path}" for path, value in slots.items()}
        matched, ignored = match_optimizer(checkpoint, saved_optimizer, optimizer, nodes)
        live |= {theirs[id(value)]: key for key, value in matched if id(value) in theirs}
    taken = set(live.values()) | ignored
    rest = sorted(key for key in _keys_below(node) if key not in taken)
    # Slots are not children of anything.
    if saved_optimizer is not None:
        rest += sorted({slot.key for _, _, slot in saved_optimizer.slots} - taken)
    keys = live | {plain_key(key): key for key in rest if key in checkpoint.tensors}
    return MatchedSource(checkpoint, keys, _counters(checkpoint, live, optimizer))


def _counters(checkpoint: TfCheckpoint, live: Mapping[str, str], optimizer: Any) -> dict[str, str]:
    """Return the dtypes of counters, which Keras 2 has as int64 and a backend of Keras may not."""
    iterations = getattr(optimizer, "_iterations", None)
    path = f"{OPTIMIZER_GROUP}vars/0"
    if iterations is None or path not in live:
        return {}
    saved = checkpoint.tensors[live[path]].dtype
    here = str(iterations.dtype)
    return {path: here} if saved != here and saved.startswith("int") else {}


def _keys_below(node: Node) -> Iterator[str]:
    seen: set[int] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if one.key:
            yield one.key
        stack += [child for name, child in one.children.items() if name not in _NO_STATE]


def _walk(
    node: Node, target: Any, found: Callable[[Node, Any], None], seen: set[int], top: bool = False
) -> None:
    """Walk what is saved and what is live side by side, by names."""
    seen.add(id(node))
    layers = _layers_by_number(node, target)
    for name, child in node.children.items():
        if not child.holds_values or id(child) in seen or (top and name == "optimizer"):
            continue
        if name in _NO_STATE:
            continue
        value = layers[name] if name in layers else _member(target, name)
        if value is None:
            continue
        if child.key:
            seen.add(id(child))
            found(child, value)
        else:
            _walk(child, value, found, seen)


def _member(target: Any, name: str) -> Any:
    """Return what an object has under a name: an attribute, an item of a list or of a dict."""
    if isinstance(target, Mapping):
        return target.get(name)
    if isinstance(target, (list, tuple)):
        return target[int(name)] if name.isdigit() and int(name) < len(target) else None
    for known in (name, f"_{name}", _RENAMED.get(name, name)):
        try:
            value = getattr(target, known, None)
        except (AttributeError, ValueError, RuntimeError):
            continue  # A property that is not ready to be read holds no variable either.
        if value is not None:
            return value
    return None


_NUMBERED = re.compile(r"(layer|layer_with_weights)-(\d+)")


def _layers_by_number(node: Node, target: Any) -> dict[str, Any]:
    """Return the live layer of each child that is known by its number.

    Those with a name that a user gave come first; the others follow each other as they did.
    """
    numbered = {n: found for n in node.children if (found := _NUMBERED.fullmatch(n))}
    weighty = [layer for layer in getattr(target, "layers", ()) if layer.weights]
    kind = "layer_with_weights" if any(m[1] != "layer" for m in numbered.values()) else "layer"
    order = sorted((int(m[2]), n) for n, m in numbered.items() if m[1] == kind)
    saved = [node.children[n] for _, n in order if node.children[n].holds_values]
    given = {layer.name: layer for layer in weighty if not _is_automatic(layer)}
    live = {id(one): given[_name_of(one)] for one in saved if _name_of(one) in given}
    taken = {id(layer) for layer in live.values()}
    others = [layer for layer in weighty if id(layer) not in taken]
    live |= {
        id(one): layer
        for one, layer in zip((o for o in saved if id(o) not in live), others, strict=False)
    }
    return {n: live[id(node.children[n])] for n in numbered if id(node.children[n]) in live}


def _is_automatic(layer: Any) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    return re.fullmatch(rf"{words.lower()}(_\d+)?", layer.name) is not None


def _name_of(node: Node) -> str:
    """Return the name of a layer, as the names of its own variables begin with it."""
    owns = [child.name for child in node.children.values() if child.key]
    names = {name.rpartition("/")[0].rpartition("/")[2] for name in owns}
    return names.pop() if len(names) == 1 else ""
