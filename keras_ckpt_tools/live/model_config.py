"""What a `.keras` holds beside weights: model -> *documents* -> write.

Keras describes the model, which for 1,000 layers takes a third of a second; the description is kept
for as long as the fingerprint of the model says that it would be the same. The files that layers
save (vocabularies) are asked for at each save, where there are layers that save any.
"""

from __future__ import annotations

import functools
import itertools
import json
import operator
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.formats.common.contents import Documents
from keras_ckpt_tools.live.keras_walk import save_state
from keras_ckpt_tools.live.state import to_numpy

__all__ = ["ASSETS_FOLDER", "Describer", "Documents"]

ASSETS_FOLDER = "assets"


class Describer:
    """Describes one model again and again. Holds on to the model's parts."""

    def __init__(self) -> None:
        self._fingerprint: Fingerprint | None = None
        self._config = ""

    def describe(self, model: Any, *, has_assets: bool) -> Documents:
        """Return the present documents of a model.

        Args:
            model: The model.
            has_assets: Whether anything in it saves files.
        """
        if self._fingerprint is None or not self._fingerprint.still_holds(model):
            found = fingerprint(model)
            if found is None or found != self._fingerprint:
                self._config, _ = internals.serialize_model_as_json(model)
            self._fingerprint = found
        return Documents(self._config, _metadata(), _assets_of(model) if has_assets else {})


def _metadata() -> str:
    now = time.strftime("%Y-%m-%d@%H:%M:%S")
    return json.dumps({"keras_version": keras.__version__, "date_saved": now})


def _assets_of(model: Any) -> dict[str, bytes]:
    store = internals.DiskIOStore(ASSETS_FOLDER, mode="w")
    try:
        save_state(
            model,
            weights_store=_NoWeights(),
            assets_store=store,
            visited_saveables=set(),
        )
        root = Path(store.working_dir)
        files = (path for path in sorted(root.rglob("*")) if path.is_file())
        return {f"{ASSETS_FOLDER}/{p.relative_to(root).as_posix()}": p.read_bytes() for p in files}
    finally:
        store.close()


class _NoWeights(internals.H5IOStore):
    """Keras before 3.12 insists on a weights store even where only assets are saved."""

    def __init__(self) -> None:
        """Open nothing."""

    def __bool__(self) -> bool:
        return False


# Compared as they are. That 1, 1.0 and True are equal is as Keras takes them.
_AS_IT_IS = frozenset(
    {str, int, bool, float, complex, bytes, types.NoneType, types.EllipsisType}
    | {types.FunctionType, types.BuiltinFunctionType, types.ModuleType}
)
# What no config is made of: bookkeeping, variables, compiled functions, what `fit` leaves behind,
# and the graph of a functional model, which is fixed when it is made.
_ASIDE = tuple(
    "_self_ _tracker _tracked _obj_reference_counts _call_ _auto_config _input_spec "
    "_trainable_variables _non_trainable_variables _loss _metrics _seed_generators "
    "train_function test_function predict_function "
    "history stop_training _initial_epoch _eval_epoch_iterator "
    "_inbound_nodes _outbound_nodes _nodes _operations _inputs _outputs".split()
)
_RATE = "_learning_rate"  # The one variable whose value a config holds.
_MOST_NUMBERS = 1000


class _CannotTell(Exception):
    """There is something whose part in a config is not known."""


class Fingerprint:
    """What of a model its config is made of. Holds on to the model's parts.

    Two are equal only if the configs are the same.
    """

    def __init__(self, model: Any):
        self._parts = _parts_of(model)
        self._looked_at = _LookedAt()
        self._marks = tuple(_of_part(part, self._looked_at) for part in self._parts)

    def still_holds(self, model: Any) -> bool:
        """Return whether the config is the same, as far as that is seen at one glance.

        If not, it may be the same all the same: only another fingerprint tells.
        """
        parts = _parts_of(model)
        return _same(parts, self._parts) and self._looked_at.is_unchanged()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self._marks == other._marks

    __hash__ = None  # type: ignore[assignment]


def fingerprint(model: Any) -> Fingerprint | None:
    """Return what is equal later only if the model's config is the same, or `None`.

    >>> layer = keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((2,)), layer])
    >>> before = fingerprint(model)
    >>> before == fingerprint(model), before.still_holds(model)
    (True, True)
    >>> layer.trainable = False
    >>> before == fingerprint(model), before.still_holds(model)
    (False, False)
    """
    try:
        return Fingerprint(model)
    except _CannotTell:
        return None


def _parts_of(model: Any) -> list[Any]:
    optimizer = getattr(model, "optimizer", None)
    return [*model._flatten_layers(), *([] if optimizer is None else [optimizer])]


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


_Values = Callable[[Any], Iterable[Any]]


class _LookedAt:
    """What a fingerprint was made of.

    Attributes:
        seen: Objects and their marks, by `id`: many are shared, and some refer back to what holds
            them.
    """

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Any, Any]] = {}
        self._owners: list[Any] = []
        self._kinds: list[type] = []
        self._attributes: list[dict[str, Any]] = []
        self._dicts: list[dict[Any, Any]] = []
        self._keys: list[tuple[Any, ...]] = []
        self._lists: list[Any] = []
        self._lengths: list[int] = []
        self._ways: list[tuple[_Values, Any]] = []
        self._values: list[Any] = []
        self._asked_again: list[tuple[Callable[[], Any], Any]] = []

    def add_owner(self, owner: Any) -> None:
        """Note an object whose attributes are noted as a dict."""
        self._owners.append(owner)
        self._kinds.append(type(owner))
        self._attributes.append(vars(owner))

    def add_dict(self, found: dict[Any, Any], values_of: _Values, values: Iterable[Any]) -> None:
        """Note a dict, and those of its values that count."""
        self._dicts.append(found)
        self._keys.append(tuple(found))
        self._ways.append((values_of, found))
        self._values += values

    def add_list(self, found: Iterable[Any]) -> None:
        """Note a list, tuple or set."""
        self._lists.append(found)
        self._lengths.append(len(found))  # type: ignore[arg-type]
        self._ways.append((iter, found))
        self._values += found

    def add_asked(self, ask: Callable[[], Any]) -> Any:
        """Note what has to be asked each time, and return what it says."""
        told = ask()
        self._asked_again.append((ask, told))
        return told

    def is_unchanged(self) -> bool:
        """Return whether all of it still is the same."""
        try:
            return (
                list(map(type, self._owners)) == self._kinds
                and all(map(operator.is_, map(vars, self._owners), self._attributes))
                and list(map(tuple, self._dicts)) == self._keys
                and list(map(len, self._lists)) == self._lengths
                and all(map(operator.is_, self._now(), self._values))
                and all(ask() == told for ask, told in self._asked_again)
            )
        except _CannotTell:
            return False

    def _now(self) -> Iterable[Any]:
        return itertools.chain.from_iterable(values(found) for values, found in self._ways)


def _of_part(part: Any, looked_at: _LookedAt) -> Any:
    kind = type(part)
    looked_at.seen[id(part)] = part, id(part)
    if _is_keras(kind):
        return kind, _attributes(part, looked_at)
    return kind, looked_at.add_asked(lambda: _of_own_part(part))


def _of_own_part(part: Any) -> Any:
    """Return the mark of a part of a class of the user's."""
    own = _LookedAt()
    own.seen[id(part)] = part, id(part)
    name = keras.saving.get_registered_name(type(part))
    compiled = _mark(getattr(part, "_compile_config", None), own)
    return name, part.name, _asked(part, own), compiled


def _attributes(part: Any, looked_at: _LookedAt) -> Any:
    attributes = vars(part)
    looked_at.add_owner(part)
    values_of = _getter(tuple(attributes))
    values = values_of(attributes)
    looked_at.add_dict(attributes, values_of, values)
    marks = [value if type(value) in _AS_IT_IS else _mark(value, looked_at) for value in values]
    rate = attributes.get(_RATE)
    if isinstance(rate, keras.Variable):
        marks.append(looked_at.add_asked(lambda: float(to_numpy(rate))))
    return marks


@functools.lru_cache(maxsize=4096)
def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Iterable[Any]]:
    used = [name for name in names if not name.startswith(_ASIDE)]
    if len(used) < 2:
        return lambda attributes: [attributes[name] for name in used]
    return operator.itemgetter(*used)


def _mark(value: Any, looked_at: _LookedAt) -> Any:
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    if id(value) in looked_at.seen:
        return looked_at.seen[id(value)][1]
    if issubclass(kind, (list, tuple)):
        looked_at.add_list(value)
        return kind, [item if type(item) in _AS_IT_IS else _mark(item, looked_at) for item in value]
    if issubclass(kind, dict):
        looked_at.add_dict(value, dict.values, value.values())
        return kind, [(key, _mark(item, looked_at)) for key, item in value.items()]
    if issubclass(kind, (set, frozenset)):
        return kind, looked_at.add_asked(lambda: set(value))
    if issubclass(kind, (keras.Variable, *tf_kinds("Variable"))):
        return None
    if issubclass(kind, tf_kinds("Tensor")) and hasattr(value, "numpy"):
        return looked_at.add_asked(lambda: _of_array(value.numpy()))
    if issubclass(kind, (np.ndarray, np.generic)):
        return looked_at.add_asked(lambda: _of_array(value))
    if issubclass(kind, type):
        return value
    looked_at.seen[id(value)] = value, id(value)
    mark = _of_object(value, kind, looked_at)
    looked_at.seen[id(value)] = value, mark
    return mark


def _of_object(value: Any, kind: type, looked_at: _LookedAt) -> Any:
    if issubclass(kind, (keras.Layer, keras.KerasTensor)):
        return id(value)  # Layers are parts of their own.
    if _is_keras(kind):
        return kind, _attributes(value, looked_at)
    if kind.__module__.partition(".")[0] in ("tensorflow", "inspect", "weakref"):
        return None  # Keras writes none of these into a config.
    if hasattr(value, "get_config"):
        return kind, looked_at.add_asked(lambda: _of_own_object(value))
    raise _CannotTell


def _of_own_object(value: Any) -> Any:
    """Return the mark of an object of a class of the user's that is no part."""
    own = _LookedAt()
    own.seen[id(value)] = value, id(value)
    return keras.saving.get_registered_name(type(value)), _asked(value, own)


def _asked(part: Any, looked_at: _LookedAt) -> Any:
    """Return what an object of the user's says of itself."""
    try:
        told = [part.get_config()]
        if hasattr(part, "get_build_config"):
            told.append(part.get_build_config())
    except Exception as error:
        raise _CannotTell from error  # It is raised where the config is made.
    return _mark(told, looked_at)


def _of_array(array: Any) -> Any:
    if not isinstance(array, (np.ndarray, np.generic)):
        array = np.asarray(array)
    if array.size > _MOST_NUMBERS or array.dtype.hasobject:
        raise _CannotTell
    return array.dtype, array.shape, array.tobytes()


def _is_keras(kind: type) -> bool:
    return kind.__module__.startswith("keras.")
