"""Match weights in the HDF5 layout of Keras 1 and 2 with a live model.

The layout has a group for each layer, whose attributes list the names of its weights
(`layer_names`, `weight_names`; long lists in numbered pieces). It is at the root of a weights file,
and under `model_weights` in a whole model. The layers of a nested model share one list.

Layers are matched by the names that users gave them. Layers with counted names (`dense_3`) are
matched in order if both sides have equally many, else by name. With `by_name`, only names count.
Inside a layer, weights are matched by name where the names are equal, else in order.

The result is a source of tensors under Keras 3's paths. Unmatched tensors keep their path in the
file.

Sources: `save_weights_to_hdf5_group` in `tf_keras/src/saving/legacy/hdf5_format.py` (2.18),
`keras/engine/topology.py` of Keras 1.2.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from keras_ckpt_tools.errors import damaged
from keras_ckpt_tools.formats.keras2.translate import is_keras_2
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.foreign.keras2_archive import arrange, momentum_product
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP
from keras_ckpt_tools.metadata import TensorInfo

_VARS = f"{OPTIMIZER_GROUP}vars/"
_MODEL, _OPTIMIZER, _TOP = "model_weights", "optimizer_weights", "top_level_model_weights"
_ALIKE = {"depthwise_kernel": "kernel"}
Saved = tuple[str, list[tuple[str, str]]]
"""The name of a layer, and for each of its weights the name and the path in the file."""


class LegacyWeights:
    """The tensors of such a file under the paths of a Keras 3 model.

    Attributes:
        path: The file.
        tensors: What there is. What matches nothing is there by the path that it has in the file.
        places: The path in the file of each that matched.
        left_alone: Paths of the model that the file has no tensors for, with `by_name`.
        names: What the layers of the model are called in the file, by their group.
    """

    def __init__(
        self,
        source: Source,
        places: Mapping[str, str],
        rest: Mapping[str, str],
        expected: Mapping[str, TensorInfo],
        made: Mapping[str, Any],
        left_alone: frozenset[str] = frozenset(),
        names: Mapping[str, str] | None = None,
    ):
        self.names = dict(names or {})
        self.path, self.places, self.left_alone = source.path, dict(places), left_alone
        self._source, self._made = source, made
        self._all = {**places, **rest}
        self._dtypes: dict[str, str] = {}
        self.tensors: dict[str, TensorInfo] = {
            path: TensorInfo(path, tuple(value.shape), str(value.dtype))
            for path, value in made.items()
        }
        for path, place in self._all.items():
            info = source.tensors[place]
            ours = expected[path].dtype if path in expected else info.dtype
            if ours != info.dtype and ours.startswith("int") and info.dtype.startswith("int"):
                self._dtypes[path] = ours  # A backend may have no counters of 64 bits.
                info = dataclasses.replace(info, dtype=ours)
            self.tensors[path] = dataclasses.replace(info, path=path)

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path."""
        paths = list(paths)
        arrays = self._source.read_all([self._all[path] for path in paths if path in self._all])
        found = {}
        for path in paths:
            if path in self._all:
                array = arrays[self._all[path]]
                found[path] = array.astype(self._dtypes.get(path, array.dtype), copy=False)
            else:
                found[path] = state.to_numpy(self._made[path])
        return found


def legacy_weights(source: Source, model: Any, *, by_name: bool = False) -> TensorSource:
    """Return the weights of such a file under the paths of a model.

    Args:
        source: A whole-model `.h5`, or a file of weights.
        model: The model that they are for, built; its optimizer too, if it is to be restored.
        by_name: Whether only layers of the same name are matched, and others are left alone.

    Raises:
        DamagedArtefactError: the lists of names and the tensors contradict each other.
    """
    optimizer = getattr(model, "optimizer", None)
    captured = state.capture(model, skip=[optimizer] if optimizer is not None else [])
    paths = {id(value): path for path, value in captured.values.items()}
    saved = saved_layers(source)
    places: dict[str, str] = {}
    groups = {name: group for group, name in sorted(captured.called().items(), reverse=True)}
    called: dict[str, str] = {}
    for ours, name, weights, theirs in _match_layers(saved, model, by_name):
        if ours in groups:
            called[groups[ours]] = name
        if len(weights) == len(theirs):
            places |= {
                paths[id(variable)]: place
                for variable, place in _match_weights(weights, theirs)
                if id(variable) in paths
            }
    taken = set(places.values())
    names = {layer.name for layer in model.layers} | {_TOP}
    left_alone: frozenset[str] = frozenset()
    if by_name:
        theirs_too = {name for name, _ in saved} & names
        kept = {id(v) for la in model.layers if la.name in theirs_too for v in la.weights}
        left_alone = frozenset(p for key, p in paths.items() if key not in kept) - places.keys()
        saved = [one for one in saved if one[0] in names]
    rest = {place: place for _, listed in saved for _, place in listed if place not in taken}
    made: Mapping[str, Any] = {}
    if _OPTIMIZER in source.hdf5:
        slots, made, unused = _optimizer_places(source, model, places)
        places |= slots
        rest |= unused
    expected = state.capture(model).infos()
    return LegacyWeights(source, places, rest, expected, made, left_alone, called)


def _optimizer_places(
    source: Source, model: Any, places: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Any], dict[str, str]]:
    """Match the state of an optimizer in a whole model with that of a live one.

    Returns:
        The place of each value by the optimizer's paths; values that are made here, because Keras 2
        has them elsewhere; and what matches nothing.
    """
    listed = _listed(source, _OPTIMIZER)
    optimizer = getattr(model, "optimizer", None)
    unused = {f"{OPTIMIZER_GROUP}{name}": place for name, place in listed}
    if optimizer is None:
        return {}, {}, unused
    variables = {f"{_VARS}{index}": value for index, value in enumerate(optimizer.variables)}
    if not is_keras_2(_writer(source)):
        slots = _in_order_of_keras_3(source, listed, variables)
        made = {p: v for p, v in variables.items() if p not in slots} if slots else {}
        return slots, made, {} if slots else unused
    paths = {id(v): p for p, v in state.capture(model, skip=[optimizer]).values.items()}
    names = {place: name for _, weights in saved_layers(source) for name, place in weights}
    trained = {
        names[places[path]]: index
        for index, variable in enumerate(getattr(optimizer, "_trainable_variables", ()))
        if (path := paths.get(id(variable), "")) in places
    }
    shapes = [source.tensors[place].shape for _, place in listed]
    found = arrange(optimizer, shapes, [name for name, _ in listed], trained)
    if not found.fits:
        return {}, {}, unused
    slots = {
        path: listed[found.places[id(variable)]][1]
        for path, variable in variables.items()
        if id(variable) in found.places
    }
    # The learning rate is in the config; of Nadam, Keras 2 does not save the product.
    made = {path: variable for path, variable in variables.items() if path not in slots}
    product = getattr(optimizer, "_u_product", None)
    for path, variable in made.items():
        if product is not None and variable is product:
            steps = int(source.read(listed[found.places[id(optimizer._iterations)]][1]))
            made[path] = np.asarray(momentum_product(optimizer, steps), str(variable.dtype))
    return slots, made, {}


def _writer(source: Source) -> str:
    root = _group(source, _MODEL if _MODEL in source.hdf5 else "")
    version = root.attrs.get("keras_version", source.metadata.get("keras_version", "1"))
    return version.decode("utf-8", "replace") if isinstance(version, bytes) else str(version)


def _in_order_of_keras_3(
    source: Source, listed: Sequence[tuple[str, str]], variables: Mapping[str, Any]
) -> dict[str, str]:
    """Return the places of what Keras 3 saved of an optimizer; one not built has two values."""
    pairs = list(zip(listed, variables.items(), strict=False))
    alike = all(
        source.tensors[place].shape == tuple(variable.shape)
        and name.rpartition("_")[2].rpartition("/")[2]
        == variable.path.rpartition("_")[2].rpartition("/")[2]
        for (name, place), (_, variable) in pairs
    )
    if not alike or len(listed) not in (2, len(variables)):
        return {}
    return {path: place for (_, place), (path, _) in pairs}


def saved_layers(source: Source) -> list[Saved]:
    """Return the layers of a file that have weights, in order.

    Raises:
        DamagedArtefactError: a list names what is not in the file.
    """
    root = _MODEL if _MODEL in source.hdf5 else ""
    names = _names(source, root, "layer_names")
    if _TOP in _group(source, root):
        names.append(_TOP)
    layers = [(name, _listed(source, f"{root}/{name}".lstrip("/"))) for name in names]
    return [(name, weights) for name, weights in layers if weights]


def _listed(source: Source, path: str) -> list[tuple[str, str]]:
    found = []
    for name in _names(source, path, "weight_names"):
        place = f"{path}/{name}"
        if place not in source.tensors:
            raise damaged(source.path, f"it lists {place!r}, and has no such tensor")
        found.append((name, place))
    return found


def _group(source: Source, path: str) -> Any:
    group = source.hdf5.get(path or "/")
    if not isinstance(group, h5py.Group):
        raise damaged(source.path, f"it lists {path!r}, and has no such group")
    return group


def _names(source: Source, path: str, attribute: str) -> list[str]:
    """Return a list of names from the attributes of a group, in one piece or in numbered ones."""
    attributes = _group(source, path).attrs
    pieces = [attribute] if attribute in attributes else []
    while not pieces or pieces[0] != attribute:
        if f"{attribute}{len(pieces)}" not in attributes:
            break
        pieces.append(f"{attribute}{len(pieces)}")
    listed = [item for piece in pieces for item in np.ravel(attributes[piece])]
    names = [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in listed
    ]
    if not all(isinstance(name, str) for name in names):
        raise damaged(source.path, f"the {attribute} of {path or '/'} are no names")
    return [str(name) for name in names]


def _match_layers(
    saved: Sequence[Saved], model: Any, by_name: bool
) -> list[tuple[str, str, list[Any], list[tuple[str, str]]]]:
    """Return, for each pair of layers, the name here and there, and the weights of both."""
    live = [(layer, _weights_of(layer)) for layer in model.layers]
    live = [(layer, weights) for layer, weights in live if weights]
    theirs = {name: weights for name, weights in saved if name != _TOP}
    order = list(theirs)
    given = {layer.name for layer, _ in live if not _is_automatic(layer)}
    alike = len(order) == len(live) and not by_name
    found = []
    left = []
    for layer, weights in live:
        if layer.name in theirs and (not alike or layer.name in given):
            found.append((layer.name, layer.name, weights, theirs[layer.name]))
            order.remove(layer.name)
        else:
            left.append((layer.name, weights))
    if alike:
        found += [
            (ours, name, weights, theirs[name])
            for (ours, weights), name in zip(left, order, strict=True)
        ]
    own = [w for w in model.weights if not any(w is v for _, ws in live for v in ws)]
    top = [weights for name, weights in saved if name == _TOP]
    return found + ([("", _TOP, own, top[0])] if top and own else [])


def _weights_of(layer: Any) -> list[Any]:
    """Return the weights of a layer in the order of that layout: what is trained comes first."""
    return list(layer.trainable_weights) + list(layer.non_trainable_weights)


def _is_automatic(layer: Any) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    return re.fullmatch(rf"{words.lower()}(_\d+)?", layer.name) is not None


def _match_weights(
    weights: Sequence[Any], theirs: Sequence[tuple[str, str]]
) -> list[tuple[Any, str]]:
    """Match the weights of one layer: by their names, or, where these tell nothing, by order."""
    for length in (2, 1):
        ours = [_end(variable.path, length) for variable in weights]
        saved = [_end(name, length) for name, _ in theirs]
        if Counter(ours) == Counter(saved) and (length == 1 or len(set(ours)) == len(ours)):
            places: dict[str, list[str]] = {}
            for key, (_, place) in zip(saved, theirs, strict=True):
                places.setdefault(key, []).append(place)
            return [(v, places[key].pop(0)) for v, key in zip(weights, ours, strict=True)]
    return [(variable, place) for variable, (_, place) in zip(weights, theirs, strict=True)]


def _end(name: str, length: int) -> str:
    parts = re.sub(r":\d+$", "", name).split("/")[-length:]
    return "/".join([*parts[:-1], _ALIKE.get(parts[-1], parts[-1])])
