"""Find the tensors of a class under the name it had: source -> *view* -> fill.

Keras derives the place of a layer's weights from the name of its class (`layers/residual_block`).
A class that has been renamed, and is found by its alias, therefore looks for its weights in the
wrong place. The config says what it was called, so the place can be told. Only paths that the file
lacks are looked for elsewhere, and nothing is found twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.tensor_source import TensorSource, read_from
from keras_ckpt_tools.metadata import TensorInfo

__all__ = ["place_name", "with_old_names"]


def place_name(class_name: str) -> str:
    """Return what Keras calls the group of an object of a class.

    Source: `keras/src/utils/naming.py`, `to_snake_case`.

    >>> place_name("ResidualBlock"), place_name("Conv2DBlock")
    ('residual_block', 'conv2d_block')
    """
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


class _OldNames:
    def __init__(self, source: TensorSource, places: Mapping[str, str]):
        self.path = source.path
        self._source = source
        self._places = places
        moved = set(places.values())
        self.tensors: Mapping[str, TensorInfo] = {
            **{path: info for path, info in source.tensors.items() if path not in moved},
            **{path: source.tensors[place] for path, place in places.items()},
        }

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        return read_from(self._source, {path: self._places.get(path, path) for path in paths})


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
    old = {place_name(now): place_name(then) for now, then in renamed.items()}
    places: dict[str, str] = {}
    for path in wanted - set(source.tensors):
        place = "/".join(_translate(segment, old) for segment in path.split("/"))
        if place in source.tensors and place not in wanted:
            places[path] = place
    return _OldNames(source, places) if places else source


def _translate(segment: str, old: Mapping[str, str]) -> str:
    if segment in old:
        return old[segment]
    # The second object of a class in one place is `residual_block_1`.
    name, _, number = segment.rpartition("_")
    return f"{old[name]}_{number}" if number.isdigit() and name in old else segment
