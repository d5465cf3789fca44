"""Find the tensors of a class under the name it had: source -> *view* -> fill.

Keras derives the place of a layer's weights from the name of its class (`layers/residual_block`).
A class that has been renamed, and is found by its alias, therefore looks for its weights in the
wrong place. The config says what it was called, so the place can be told. Only paths that the file
lacks are looked for elsewhere, and nothing is found twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keras_ckpt_tools.formats.naming import group_name
from keras_ckpt_tools.formats.tensor_source import Relabelled, TensorSource, optimizers_of
from keras_ckpt_tools.metadata import OptimizerState

__all__ = ["with_old_names"]


def with_old_names(
    source: TensorSource, expected: Iterable[str], renamed: Mapping[str, str]
) -> TensorSource:
    """Return the source with the tensors of renamed classes under the paths they have now.

    Args:
        source: The tensors, under the paths that the file has.
        expected: The paths that the model has.
        renamed: What each renamed class was called in the file, by what it is called now.
    """
    wanted = set(expected)
    old = {group_name(now): group_name(then) for now, then in renamed.items()}
    places: dict[str, str] = {}
    for path in wanted - set(source.tensors):
        place = "/".join(_translate(segment, old) for segment in path.split("/"))
        if place in source.tensors and place not in wanted:
            places[path] = place
    now = {then: now for now, then in renamed.items()}
    moved = set(places.values())
    stayed = {path: path for path in source.tensors if path not in moved}
    others = any(one.class_name in now for one in optimizers_of(source).values())
    if not places and not others:
        return source
    found = Relabelled(source, stayed | places)
    found.optimizers = {
        group: OptimizerState(now.get(one.class_name, one.class_name), one.built_on)
        for group, one in found.optimizers.items()
    }
    return found


def _translate(segment: str, old: Mapping[str, str]) -> str:
    if segment in old:
        return old[segment]
    # The second object of a class in one place is `residual_block_1`.
    name, _, number = segment.rpartition("_")
    return f"{old[name]}_{number}" if number.isdigit() and name in old else segment
