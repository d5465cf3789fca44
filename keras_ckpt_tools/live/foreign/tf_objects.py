"""Find the variables of live Keras objects in a TensorFlow checkpoint.

A checkpoint names objects by attribute (`head/kernel`), by index in a list (`blocks/0`), or by
number in a functional or sequential model (`layer-3`). The graph of the file and the live model are
walked together, by names. Numbered layers are matched by user-given names, else in order.

Optimizer state belongs to a variable of the model: by reference (older optimizers of Keras 2) or by
its name ("Adam/m/dense/kernel"). It is assigned to the slot of the matching Keras 3 variable.

The result is a source of tensors under Keras 3's paths. Unmatched tensors keep their path.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.common.limits import number_in
from keras_ckpt_tools.formats.tensor_source import TensorSource, read_from
from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint, plain_key
from keras_ckpt_tools.formats.tensorflow.object_graph import Node, Paths
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.foreign.tf_layers import layers_by_number, pair_layers
from keras_ckpt_tools.live.foreign.tf_optimizers import match_optimizer
from keras_ckpt_tools.live.variable_trees import is_variable
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP
from keras_ckpt_tools.metadata import TensorInfo

# What Keras 2 has under another name than Keras 3.
_RENAMED = {"depthwise_kernel": "kernel"}
# Bookkeeping of TensorFlow and Keras 2, which no model of Keras 3 has.
_NO_STATE = ("keras_api", "save_counter", "train_counter")
_OPERATIONS = "_operations"
_ALL_LAYERS = "_layers"


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
        names = checkpoint.paths.by_key if isinstance(checkpoint, TfCheckpoint) else {}
        self.places = {path: names.get(key) or plain_key(key) for path, key in keys.items()}
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
    matching = Matching(checkpoint)
    matching.match_object(node, model, captured.values)
    saved = node.children.get("optimizer")
    if saved is None and node is not checkpoint.root:
        # `Checkpoint(model=model, optimizer=optimizer)` has them side by side.
        saved = checkpoint.root.children.get("optimizer") if optimizer is not None else None
    if optimizer is not None and saved is not None:
        matching.match_state(saved, optimizer, state.capture(optimizer).values, OPTIMIZER_GROUP)
    elif saved is not None:
        matching.slots_of(saved)
    return matching.source()


class Matching:
    """Pairs of what is saved and what is live, object after object.

    Args:
        checkpoint: The checkpoint.

    Attributes:
        variables: The variables of all objects so far, as saved and as live.
        sets_optimizers_apart: Whether what is left of optimizers is the state of one that only the
            checkpoint has: then it has the paths that such state has in other files.
    """

    def __init__(self, checkpoint: TfCheckpoint):
        self.variables: list[tuple[Node, Any]] = []
        self.sets_optimizers_apart = False
        self._checkpoint = checkpoint
        self._keys: dict[str, str] = {}
        self._dtypes: dict[str, str] = {}
        self._passed_over: set[str] = set()
        self._below: list[Node] = []
        self._slots: list[Node] = []

    def match_object(
        self,
        node: Node,
        target: Any,
        values: Mapping[str, Any],
        prefix: str = "",
        extra: dict[str, Any] | None = None,
    ) -> int:
        """Match the variables of an object.

        Args:
            node: The object as saved.
            target: The live one.
            values: Its variables by path.
            prefix: What its paths begin with.
            extra: Takes variables that the two have in common and that `values` lacks: those of
                TensorFlow's that Keras does not save.

        Returns:
            How many were found that are of one shape.
        """
        paths = {id(value): path for path, value in values.items()}
        agreed = 0

        def found(child: Node, value: Any, trail: str) -> None:
            nonlocal agreed
            path = paths.get(id(value))
            is_extra = path is None and extra is not None and is_variable(value)
            if is_extra and extra is not None:
                path = f"{trail}/vars/0"
                extra[path] = value
            info = self._checkpoint.tensors.get(child.key)
            if path is None or prefix + path in self._keys or info is None:
                return
            agreed += info.shape == tuple(value.shape)
            self._keys[prefix + path] = child.key
            self.variables.append((child, value))

        if not node.key and is_variable(target):
            # A manager tracks the state of a `tf.random.Generator`, TensorFlow the generator.
            node = node.children.get("_state_var", node)
        if node.key:
            found(node, _variable_of(target), "")
        else:
            _walk(node, target, found, set(), top=True)
        self._below.append(node)
        return agreed

    def match_state(
        self, node: Node, optimizer: Any, values: Mapping[str, Any], prefix: str
    ) -> None:
        """Match the state of an optimizer, whose variables have been matched before.

        Args:
            node: The optimizer as saved.
            optimizer: The live one.
            values: Its variables by path.
            prefix: What its paths begin with.
        """
        paths = {id(value): f"{prefix}{path}" for path, value in values.items()}
        matched, same = match_optimizer(self._checkpoint, node, optimizer, self.variables)
        found = {paths[id(v)]: key for key, v in matched if id(v) in paths}
        self._keys |= found
        self._dtypes |= _counters(self._checkpoint, found, optimizer, prefix)
        self._passed_over |= same
        self._below.append(node)
        self.slots_of(node)

    def pass_over(self, node: Node) -> None:
        """Leave out the variables that an optimizer only refers to."""
        listed = node.children.get("_trainable_variables", Node()).children.values()
        self._passed_over |= {child.key for child in listed}
        self._passed_over |= {original.key for original, _, _ in node.slots}

    def leave(self, node: Node) -> None:
        """Note that an object is compared, and that nothing live belongs to it."""
        self._below.append(node)

    def slots_of(self, node: Node) -> None:
        """Note that the slots of an optimizer belong to what is compared."""
        self._slots.append(node)

    def source(self) -> MatchedSource:
        """Return what was matched, and what is left of the objects, as one source."""
        taken = set(self._keys.values()) | self._passed_over
        rest = {key for node in self._below for key in _keys_below(node)}
        # Slots are not children of anything.
        rest |= {slot.key for node in self._slots for _, _, slot in node.slots}
        tensors, paths = self._checkpoint.tensors, self._checkpoint.paths
        left: dict[str, str] = {}
        for key in sorted(rest - taken):
            if key in tensors:
                path = self._path_of_left(key, paths)
                left[paths.by_key[key] if path in left else path] = key
        return MatchedSource(self._checkpoint, self._keys | left, self._dtypes)

    def _path_of_left(self, key: str, paths: Paths) -> str:
        if self.sets_optimizers_apart and key in paths.state:
            return f"{OPTIMIZER_GROUP}{paths.state[key]}"
        return paths.by_key[key]


def _variable_of(target: Any) -> Any:
    """Return the variable that a value of the checkpoint belongs to."""
    return getattr(target, "state", target) if not hasattr(target, "shape") else target


def _counters(
    checkpoint: TfCheckpoint, live: Mapping[str, str], optimizer: Any, prefix: str
) -> dict[str, str]:
    """Return the dtypes of counters, which Keras 2 has as int64 and a backend of Keras may not."""
    iterations = getattr(optimizer, "_iterations", None)
    path = f"{prefix}vars/0"
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


def _by_text(target: Mapping[Any, Any], name: str) -> Any:
    """Return what a dict has under a key that is no text, as TensorFlow writes it."""
    return next((value for key, value in target.items() if str(key) == name), None)


_Found = Callable[[Node, Any, str], None]
# Of objects within objects. A program of this depth could not have been called.
_DEEPEST = 200


def _walk(
    node: Node, target: Any, found: _Found, seen: set[int], trail: str = "", top: bool = False
) -> None:
    """Walk what is saved and what is live side by side, by names."""
    seen.add(id(node))
    layers = layers_by_number(node, target)
    # Names of attributes first, because places in a list of all layers change more often.
    for name, child in sorted(node.children.items(), key=lambda item: item[0] == _ALL_LAYERS):
        if name == _ALL_LAYERS and _OPERATIONS in node.children:
            continue
        if not child.holds_values or id(child) in seen or (top and name == "optimizer"):
            continue
        if name in _NO_STATE or trail.count("/") > _DEEPEST:
            continue
        value = layers[name] if name in layers else _member(target, name)
        if value is None:
            continue
        path = f"{trail}/{name}" if trail else name
        if child.key:
            seen.add(id(child))
            found(child, value, path)
        elif name == _OPERATIONS:
            _walk_operations(child, target, found, seen, path)
        else:
            _walk(child, value, found, seen, path)


def _walk_operations(node: Node, target: Any, found: _Found, seen: set[int], trail: str) -> None:
    """Walk the layers of a functional model of Keras 3, which are known by their places only."""
    found_at = ((number_in(n), child) for n, child in node.children.items())
    numbered = {n: child for n, child in found_at if n is not None}
    saved = [numbered[n] for n in sorted(numbered)]
    for child, layer in pair_layers(saved, getattr(target, "layers", ())):
        if id(child) not in seen:
            _walk(child, layer, found, seen, f"{trail}/{layer.name}")


def _member(target: Any, name: str) -> Any:
    """Return what an object has under a name: an attribute, an item of a list or of a dict."""
    if isinstance(target, Mapping):
        found = target.get(name)
        return found if found is not None else _by_text(target, name)
    if isinstance(target, (list, tuple)):
        place = number_in(name)
        return target[place] if place is not None and place < len(target) else None
    for known in (name, f"_{name}", _RENAMED.get(name, name)):
        value = _attribute(target, known)
        if value is not None:
            return value
    return None


def _attribute(target: Any, name: str) -> Any:
    """Return an attribute that may hold variables; its name comes from the file.

    So no code of the user is called for it, and no name leads outside of the objects: through
    `__init__`, `__globals__` or a module, any variable of the program could be overwritten.
    """
    held = None if name.startswith("__") else inspect.getattr_static(target, name, None)
    if isinstance(held, property):
        owner = next(c for c in type(target).__mro__ if name in vars(c))
        if owner.__module__.partition(".")[0] not in ("keras", "tensorflow"):
            return None
    elif held is None or isinstance(held, (types.ModuleType, type)) or inspect.isroutine(held):
        return None
    try:
        return getattr(target, name, None)
    except (AttributeError, ValueError, RuntimeError):
        return None  # A property that is not ready to be read holds no variable either.
