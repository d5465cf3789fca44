"""Match a whole restore target with a TensorFlow checkpoint.

A target with names (`{"model": model, "optimizer": optimizer}`) defines the matches. A single
object is matched with the saved object that has most of its variables; if two are equal, an error
asks for names. Optimizers come last, and are built on the variables in the file. A checkpoint of
TensorFlow 1 is matched by the names of variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from keras_ckpt_tools.errors import ArtefactKindError, NotBuiltError
from keras_ckpt_tools.formats.common.limits import number_in
from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint
from keras_ckpt_tools.formats.tensorflow.object_graph import Node
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.adapters import Adapter, KerasAdapter
from keras_ckpt_tools.live.foreign.tf_objects import MatchedSource, Matching
from keras_ckpt_tools.live.target import Target
from keras_ckpt_tools.matching.compare import OF_NO_VARIABLE

_COUNTERS = ("_iterations", "iter", "iterations")
_COUNTED = ("save_counter",)


def match_target(checkpoint: TfCheckpoint, target: Target, *, build: bool = True) -> MatchedSource:
    """Match a target with a checkpoint.

    Args:
        checkpoint: The checkpoint.
        target: The target of the restore.
        build: Whether optimizers that have no state yet are built.

    Returns:
        The tensors that belong to it, by its paths; what is left of its objects keeps the path that
        it had in the checkpoint.

    Raises:
        NotBuiltError: an optimizer is not built, and what it was built on is not known.
        ArtefactKindError: there are several objects that may be meant.
    """
    if not checkpoint.has_graph:
        return match_names(checkpoint, target)
    nodes = _nodes_of(checkpoint, target)
    matching = Matching(checkpoint)
    matching.sets_optimizers_apart = not any(map(_has_optimizer, target.parts))
    for part in target.parts:
        if not part.is_optimizer:
            _match(checkpoint, matching, part, nodes.get(part.name), build)
    for part in target.parts:
        if part.is_optimizer and part.name in nodes:
            node = nodes[part.name]
            if not matching.variables:
                matching.variables += _by_name(checkpoint, node, part.target)
            if build:
                build_on(part.target, node, matching.variables, target.parts, part.name)
            if target.is_container or len(target.parts) == 1:
                matching.pass_over(node)
            prefix = f"{part.name}/" if part.name else ""
            values = part.captured().values
            matching.match_state(node, part.target, values, prefix)
    if lacking := [part.name for part in target.parts if part.name not in nodes]:
        # Their name in the file may be one of these.
        taken = {id(node) for node in nodes.values()}
        for name, child in checkpoint.root.children.items():
            if lacking and id(child) not in taken and name not in _COUNTED:
                matching.leave(child)
    return matching.source()


def _has_optimizer(part: Adapter) -> bool:
    # Of a module that is not Keras', any variable may be an optimizer's.
    unknown = not part.is_keras and not hasattr(part.target, "shape")
    return unknown or part.is_optimizer or part.optimizer is not None


def _had_begun(optimizer: Node) -> bool:
    """Return whether an optimizer of a checkpoint had state of variables: it may be unused."""
    listed = optimizer.children.get("_variables")
    return listed is None or len(listed.children) > OF_NO_VARIABLE or bool(optimizer.slots)


def _match(
    checkpoint: TfCheckpoint, matching: Matching, part: Adapter, node: Node | None, build: bool
) -> None:
    optimizer = part.optimizer
    if node is None:
        return
    saved = node.children.get("optimizer") if optimizer is not None else None
    if saved is None and optimizer is not None and not part.name and node is not checkpoint.root:
        # `Checkpoint(model=model, optimizer=optimizer)` has them side by side.
        saved = checkpoint.root.children.get("optimizer")
    if isinstance(part, KerasAdapter) and optimizer is not None and part.name and saved is None:
        part.leave_out(optimizer)
        optimizer = None
    prefix = f"{part.name}/" if part.name else ""
    group = f"{prefix}optimizer/"
    if optimizer is not None and saved is not None and build and _had_begun(saved):
        state.build_optimizer(optimizer, part.target.trainable_variables)
    values = part.captured().values
    own = {path: v for path, v in values.items() if not path.startswith("optimizer/")}
    matching.match_object(node, part.target, own, prefix, part.extra)
    if optimizer is not None and saved is not None:
        values = state.capture(optimizer).values
        matching.match_state(saved, optimizer, values, group)
    elif "optimizer" in node.children:
        matching.slots_of(node.children["optimizer"])


def _nodes_of(checkpoint: TfCheckpoint, target: Target) -> dict[str, Node]:
    """Return the saved object of each part, where there is one."""
    root = checkpoint.root
    if not target.is_container:
        return {"": _node_of(checkpoint, target.parts[0])}
    names = [part.name for part in target.parts]
    above = root
    if not any(name in root.children for name in names):
        # The list or dict itself may be one of the objects.
        holders = [c for c in _distinct(root) if any(name in c.children for name in names)]
        fitting = [c for c in holders if _agree(checkpoint, c, target)] or holders
        if len(fitting) > 1:
            raise _ambiguous(checkpoint, fitting, target.target)
        above = fitting[0] if fitting else root
    return {name: above.children[name] for name in names if name in above.children}


def _agree(checkpoint: TfCheckpoint, node: Node, target: Target) -> int:
    return sum(
        _score(checkpoint, node.children[part.name], part)[0]
        for part in target.parts
        if part.name in node.children
    )


def _node_of(checkpoint: TfCheckpoint, part: Adapter) -> Node:
    root = checkpoint.root
    usual = root.children.get("optimizer" if part.is_optimizer else "model")
    if part.is_optimizer:
        best = [c for c in (root, *_distinct(root)) if any(n in c.children for n in _COUNTERS)]
    else:
        scores = [(_score(checkpoint, node, part), node) for node in (root, *_distinct(root))]
        most = max(score for score, _ in scores)
        best = [node for score, node in scores if score == most]
    if any(node is usual for node in best):
        return usual or root
    if best and best[0] is root:
        return root
    if len(best) > 1:
        raise _ambiguous(checkpoint, best, part.target)
    return best[0] if best else root


def _score(checkpoint: TfCheckpoint, node: Node, part: Adapter) -> tuple[int, int]:
    """Return how many variables of a saved object are found in a live one, and how few are not."""
    matching = Matching(checkpoint)
    found = matching.match_object(node, part.target, part.captured().values, extra={})
    return found, found - len(matching.source().tensors)


def _distinct(root: Node) -> list[Node]:
    children = [c for n, c in root.children.items() if c.holds_values and n not in _COUNTED]
    return list({id(child): child for child in children if child is not root}.values())


def _ambiguous(checkpoint: TfCheckpoint, nodes: list[Node], target: Any) -> ArtefactKindError:
    meant = {id(node) for node in nodes}
    names = [name for name, child in checkpoint.root.children.items() if id(child) in meant]
    held = ", ".join(checkpoint.root.children)
    return ArtefactKindError(
        f"The checkpoint holds {len(nodes)} objects of this kind: {', '.join(names)}; in all "
        f"it has {held}.",
        received=f"path={checkpoint.path!r}, target={target!r}",
        remedy=f'Name it: `kct.load_weights({{"{names[0] if names else held}": ...}}, '
        f"{checkpoint.path!r})`.",
        path=checkpoint.path,
        kind="TensorFlow checkpoint",
    )


def build_on(
    optimizer: Any,
    node: Node,
    variables: Iterable[tuple[Node, Any]],
    parts: Iterable[Adapter],
    name: str,
) -> None:
    """Build an optimizer on the variables that it was built on when it was saved.

    Raises:
        NotBuiltError: these are not known.
    """
    if optimizer.built:
        return
    live = {id(saved): value for saved, value in variables}
    listed = node.children.get("_trainable_variables", Node()).children
    order = sorted(
        ((i, c) for n, c in listed.items() if (i := number_in(n)) is not None), key=itemgetter(0)
    )
    owners = [live[id(child)] for _, child in order if id(child) in live]
    owners += [live[id(original)] for original, _, _ in node.slots if id(original) in live]
    wanted = {id(owner) for owner in owners}
    trained = [p.target.trainable_variables for p in parts if p.is_keras and not p.is_optimizer]
    fitting = [v for v in trained if v and wanted <= {id(variable) for variable in v}]
    if len(fitting) == 1:
        optimizer.build(fitting[0])
    elif owners and len(owners) == len(order):
        optimizer.build(owners)
    else:
        raise NotBuiltError(
            f"The optimizer {name or 'target'!r} is not built: it has no state yet, and its "
            "variables are not known from the checkpoint.",
            received=f"{name or 'target'}={optimizer!r}",
            remedy="Call its `build(model.trainable_variables)`, and restore after that; or pass "
            'the model as well: `kct.load_weights({"model": model, "optimizer": optimizer}, path)`'
            ".",
            name=name,
        )


def _by_name(checkpoint: TfCheckpoint, node: Node, optimizer: Any) -> list[tuple[Node, Any]]:
    """Return the variables that an optimizer alone was built on, by their names."""
    live = _named((str(index), v) for index, v in enumerate(_trained(optimizer)))
    saved: dict[str, list[Node]] = {}
    stack, seen = [checkpoint.root], {id(node)}
    stack += node.children.get("_trainable_variables", Node()).children.values()
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if one.key:
            saved.setdefault(one.name.partition(":")[0], []).append(one)
        stack += one.children.values()
    pairs = []
    for variable, names in live:
        found = [saved[name] for name in names if len(saved.get(name, ())) == 1]
        if found:
            pairs.append((found[0][0], variable))
    return pairs


def _trained(optimizer: Any) -> Iterable[Any]:
    return getattr(optimizer, "_trainable_variables", ()) or ()


def _named(values: Iterable[tuple[str, Any]]) -> list[tuple[Any, list[str]]]:
    """Return each variable with the names that it may have, the most telling first."""
    found = []
    for _, value in values:
        path = str(getattr(value, "path", "") or value.name).partition(":")[0]
        parts = path.split("/")
        found.append((value, ["/".join(parts[start:]) for start in range(max(len(parts) - 1, 1))]))
    return found


def match_names(checkpoint: TfCheckpoint, target: Target) -> MatchedSource:
    """Match a checkpoint without objects, by the names of variables.

    A variable is the one whose name is the longest end of its own path (`model/dense/kernel`), if
    there is one such, and no other variable has the same.
    """
    values: Mapping[str, Any] = target.captured().values
    named = _named(values.items())
    chosen: dict[str, list[str]] = {}
    for path, (_, names) in zip(values, named, strict=True):
        key = next((name for name in names if name in checkpoint.tensors), None)
        if key is not None:
            chosen.setdefault(key, []).append(path)
    keys = {paths[0]: key for key, paths in chosen.items() if len(paths) == 1}
    taken = set(keys.values())
    left = {key: key for key in checkpoint.tensors if key not in taken}
    return MatchedSource(checkpoint, keys | left, {})
