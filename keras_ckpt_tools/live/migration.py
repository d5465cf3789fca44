"""Convert the weights of classes that have changed since the save.

A class with a new layout of weights has a function `migrate_weights`. It is called once for each
object of the class, with the arrays of that object's group only, and its result replaces them. All
other tensors are passed on unread. Outer objects come first: the function of an outer class gets
its parts as they are in the file, and may move them. Each part is then migrated at its new place.

Changed classes are found by the record of the file and the registry. `migration_optimizer` does the
state of optimizers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_ckpt_tools.errors import MigrationError
from keras_ckpt_tools.formats.common.dtypes import dtype_name
from keras_ckpt_tools.formats.layer_names import group_name
from keras_ckpt_tools.formats.tensor_source import (
    TensorSource,
    left_alone_by,
    names_of,
    optimizers_of,
    places_of,
)
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.migration_optimizer import Slots, carried_over
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, RANDOM_GROUP
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo
from keras_ckpt_tools.registry import Registry
from keras_ckpt_tools.registry import registry as default_registry
from keras_ckpt_tools.registry.older_versions import Former, formers_of
from keras_ckpt_tools.showing.messages import warn

Arrays = dict[str, np.ndarray[Any, Any]]
_SHOWN = 10


@dataclass(frozen=True)
class Held:
    """One tensor after migration.

    Attributes:
        origin: The path of the same tensor in the file; `None` if it is new.
        array: Its value where it has been read or made, or `None`.
    """

    origin: str | None
    array: np.ndarray[Any, Any] | None = None


class _Instance(NamedTuple):
    group: str
    former: Former
    names: frozenset[str]


def classes_in(*saveables: Any) -> list[type]:
    """Return the classes of live objects, and of the layers and optimizers in them."""
    found: dict[type, None] = {}
    for saveable in saveables:
        parts = [saveable, getattr(saveable, "optimizer", None)]
        parts += list(getattr(saveable, "_flatten_layers", tuple)())
        found |= dict.fromkeys(type(part) for part in parts if part is not None)
    return list(found)


def begun_anew(source: TensorSource) -> tuple[str, ...]:
    """Return the paths of optimizer state that is not in the file, and so is reinitialized."""
    return getattr(source, "begun_anew", ())


def _formers(
    saveables: Iterable[Any], record: Record | None, registry: Registry | None = None
) -> list[Former]:
    used = default_registry if registry is None else registry
    return formers_of(used, classes_in(*saveables), record.objects if record is not None else ())


def has_migrated(model: Any, record: Record | None) -> bool:
    """Return whether classes in a model have changed their weights since the save."""
    return any(former.migrate for former in _formers([model], record))


def warn_of_lost_state(weights: TensorSource, stacklevel: int = 3) -> None:
    """Warn about reinitialized optimizer state, if no report lists it."""
    anew = begun_anew(weights)
    if anew:
        warn(
            f"{weights.path!r}: the weights that `migrate_weights` made or changed start without "
            f"optimizer state: {', '.join(anew[:_SHOWN])}{' ...' if len(anew) > _SHOWN else ''}.",
            UserWarning,
            stacklevel=stacklevel,
        )


def with_current_weights(
    source: TensorSource,
    record: Record | None,
    saveables: Mapping[str, Any],
    registry: Registry | None = None,
) -> TensorSource:
    """Return the weights of objects, migrated where their classes have changed since the save.

    Args:
        source: The tensors, under the paths that Keras gives them.
        record: The record of the file, where it has one.
        saveables: Live Keras objects, built, by the group that each has in the source; `""` for
            the one whose groups are at its root. An optimizer, too, if the file has its state.
        registry: Where the classes are registered. Default: the registry of `@kct.register`.

    Raises:
        MigrationError: a class's function failed, or returned what cannot be its weights.
    """
    formers = _formers(saveables.values(), record, registry)
    if not formers:
        return source
    live: dict[int, str] = {}
    instances: list[_Instance] = []
    for group, saveable in saveables.items():
        captured, found = _groups_of(saveable, formers)
        prefix = f"{group}/" if group else ""
        live |= {id(value): prefix + path for path, value in captured.items()}
        instances += [
            one._replace(group=prefix + one.group, names=frozenset(prefix + n for n in one.names))
            for one in found
        ]
    held = {path: Held(path) for path in source.tensors}
    touched: set[str] = set()
    moved: dict[str, str] = {}
    for one in sorted(instances, key=lambda one: one.group.count("/") + bool(one.group)):
        was = _migrate(source, held, one, instances, touched)
        if was is not None:
            moved[was] = one.group
    if not moved:
        return source
    slots = carried_over(source, held, saveables, live, frozenset(touched))
    return _Migrated(source, held, moved, slots)


def with_new_variables(source: TensorSource, model: Any) -> TensorSource | None:
    """Return the source where the optimizer of a model updates more variables than it did.

    Args:
        source: The tensors, with the variables that the optimizer was built on.
        model: The model, its optimizer built.

    Returns:
        The source with the state of the variables that it knows, and fresh state for the others;
        `None` where there are none, or the source does not have the variables.
    """
    group = OPTIMIZER_GROUP.rstrip("/")
    said = optimizers_of(source).get(group)
    optimizer = getattr(model, "optimizer", None)
    if said is None or not said.built_on or optimizer is None or not optimizer.built:
        return None
    trained = state.trained_by(optimizer)
    if len(trained) <= len(said.built_on):
        return None
    live = {id(value): path for path, value in state.capture(model).values.items()}
    new = frozenset(live.get(id(v), "") for v in trained) - {*said.built_on}
    if not new or "" in new or len(new) + len(said.built_on) != len(trained):
        return None
    held = {path: Held(path) for path in source.tensors}
    slots = carried_over(source, held, {"": model}, live, new)
    return _Migrated(source, held, {}, slots) if slots.built_on else None


def _groups_of(
    saveable: Any, formers: Sequence[Former]
) -> tuple[dict[str, Any], Iterator[_Instance]]:
    """Return what an object saves, and the groups of those in it whose classes have changed."""
    by_class = {one.cls: one for one in formers}
    layers = list(getattr(saveable, "_flatten_layers", tuple)())
    parts = {id(part): part for part in (saveable, *layers) if type(part) in by_class}
    places: dict[int, str] = {}
    with _asked(parts.values(), places):
        captured = state.capture(saveable).values

    def instances() -> Iterator[_Instance]:
        for key, prefix in places.items():
            group = prefix.removesuffix("vars/").rstrip("/")
            names = frozenset(path for path in captured if _is_in(path, group))
            yield _Instance(group, by_class[type(parts[key])], names)

    return captured, instances()


@contextmanager
def _asked(parts: Iterable[Any], places: dict[int, str]) -> Iterator[None]:
    """Note the group of each object when Keras' walk asks it for its state."""
    asked = list(parts)
    for part in asked:
        part.save_own_variables = _noting(part, type(part).save_own_variables, places)
    try:
        yield
    finally:
        for part in asked:
            del part.save_own_variables


def _noting(part: Any, method: Callable[..., Any], places: dict[int, str]) -> Callable[[Any], Any]:
    def save_own_variables(store: Any) -> Any:
        places.setdefault(id(part), store.prefix)
        return method(part, store)

    return save_own_variables


def _is_in(path: str, group: str) -> bool:
    if not group:
        return not path.startswith((OPTIMIZER_GROUP, RANDOM_GROUP))
    return path.startswith(f"{group}/") and not path.startswith(f"{group}/{RANDOM_GROUP}")


def _migrate(
    source: TensorSource,
    held: dict[str, Held],
    one: _Instance,
    instances: Sequence[_Instance],
    touched: set[str],
) -> str | None:
    """Bring the weights of one object up to date; return where they were, if that was needed."""
    group = next((g for g in old_groups(one.group, one.former) if _has(held, g)), None)
    if group is None or (group == one.group and one.former.migrate is None):
        return None
    start = len(group) + 1 if group else 0
    taken = {path[start:]: held.pop(path) for path in list(held) if _is_in(path, group)}
    prefix = f"{one.group}/" if one.group else ""
    # Arrays that an outer class made are for the present class.
    if one.former.migrate is not None and any(h.origin is not None for h in taken.values()):
        before, taken = taken, _called(source, taken, one, instances)
        if {n: h.origin for n, h in before.items()} != {n: h.origin for n, h in taken.items()}:
            touched |= {prefix + name for name in taken} | one.names
    held |= {prefix + name: value for name, value in taken.items()}
    return group


def _has(held: Mapping[str, Held], group: str) -> bool:
    return any(_is_in(path, group) for path in held)


def _called(
    source: TensorSource,
    taken: Mapping[str, Held],
    one: _Instance,
    instances: Sequence[_Instance],
) -> dict[str, Held]:
    unread = [h.origin for h in taken.values() if h.array is None and h.origin is not None]
    read = source.read_all(unread)
    given = {
        name: read[h.origin] if h.array is None and h.origin is not None else h.array
        for name, h in taken.items()
    }
    origins = {id(array): taken[name].origin for name, array in given.items()}
    former = one.former
    assert former.migrate is not None  # The caller has checked.
    try:
        returned: Any = former.migrate(dict(given), former.saved)
    except Exception as error:
        raise _failed(source, one, f"raised {type(error).__name__}: {error}") from error
    _check(source, returned, one, instances)
    return {
        name: Held(
            taken[name].origin if _same(given.get(name), array) else origins.get(id(array)), array
        )
        for name, array in returned.items()
    }


def _same(one: np.ndarray[Any, Any] | None, other: np.ndarray[Any, Any]) -> bool:
    """Return whether an array was returned unchanged, or as a copy."""
    if one is None or one is other:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype and np.array_equal(one, other)


def _check(
    source: TensorSource, returned: Any, one: _Instance, instances: Sequence[_Instance]
) -> None:
    if not isinstance(returned, dict):
        raise _failed(source, one, f"returned {_shown(returned)}, which is not a dict")
    odd = [
        f"{name!r}: {_shown(value)}"
        for name, value in returned.items()
        if not isinstance(name, str) or not isinstance(value, np.ndarray)
    ]
    if odd:
        what = "what is not an array under a name"
        raise _failed(source, one, f"returned {what}: {', '.join(odd[:_SHOWN])}")
    prefix = f"{one.group}/" if one.group else ""
    # What is inside an object that has yet to be migrated has the names of the file until then.
    inside = tuple(
        f"{other.group}/" for other in instances if other.group.startswith(prefix) and other != one
    )
    unknown = [
        name
        for name in returned
        if prefix + name not in one.names and not _below(prefix, name, inside)
    ]
    if unknown:
        has = ", ".join(sorted(name.removeprefix(prefix) for name in one.names)[:_SHOWN])
        raise _failed(
            source,
            one,
            f"returned names that its class does not have: {', '.join(unknown[:_SHOWN])} (it has "
            f"{has or 'no weights'})",
        )


def _below(prefix: str, name: str, groups: tuple[str, ...]) -> bool:
    return bool(groups) and (prefix + name).startswith(groups)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:80]


def _failed(source: TensorSource, one: _Instance, what: str) -> MigrationError:
    former = one.former
    where = repr(one.group) if one.group else "the root"
    return MigrationError(
        f"The `migrate_weights` of {former.name} (version {former.version}), called with the "
        f"weights of version {former.saved} at {where}, {what}. Nothing was changed.",
        received=f"path={source.path!r}",
        remedy="Return a dict of NumPy arrays under the names that the class has now: "
        "`kct.compare(model, path)` lists them.",
        path=source.path,
        name=former.name,
        from_version=former.saved,
        to_version=former.version,
    )


def _now(group: str, moved: Mapping[str, str]) -> str:
    """Return what a group is called now that objects around it, or it, have moved."""
    above = max((g for g in moved if group == g or group.startswith(f"{g}/")), key=len, default="")
    return moved[above] + group[len(above) :] if above else group


class _Migrated:
    """A source in which some tensors are replaced, and some are moved.

    Attributes:
        path: The file.
        tensors: What there is now.
        names: What its layers were called, by the group that each has now.
        optimizers: The optimizers whose state there is now.
        places: The paths of tensors in the file.
        left_alone: As in the source.
        begun_anew: Paths of optimizer state that is not in the file.
    """

    def __init__(
        self,
        source: TensorSource,
        held: Mapping[str, Held],
        moved: Mapping[str, str],
        slots: Slots,
    ):
        self.path = source.path
        self.begun_anew = tuple(slots.begun_anew)
        self.left_alone = left_alone_by(source)
        known = places_of(source)
        here = {one.origin: path for path, one in held.items() if one.origin is not None}
        self.places = {path: known.get(place, place) for place, path in here.items()}
        self.names = {_now(group, moved): name for group, name in names_of(source).items()}
        self.optimizers = {
            group: OptimizerState(
                one.class_name,
                slots.built_on.get(group) or tuple(here.get(path, path) for path in one.built_on),
            )
            for group, one in optimizers_of(source).items()
        }
        self._source = source
        self._held = held
        self.tensors = {path: self._info(path, one) for path, one in held.items()}

    def _info(self, path: str, one: Held) -> TensorInfo:
        if one.array is not None:
            return TensorInfo(path, one.array.shape, dtype_name(one.array.dtype))
        assert one.origin is not None  # Whatever was made is in memory.
        return self._source.tensors[one.origin]

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path."""
        wanted = {path: self._held[path] for path in paths}
        places = {p: h.origin for p, h in wanted.items() if h.array is None and h.origin}
        arrays = self._source.read_all(places.values())
        return {
            path: arrays[places[path]] if one.array is None else one.array
            for path, one in wanted.items()
        }


def old_groups(group: str, former: Any) -> Iterator[str]:
    """Yield the groups where the weights of an object may be, the likeliest first.

    Args:
        group: Where they would be by the name that its class has now.
        former: The class, as `registry.older_versions` says it.

    >>> from types import SimpleNamespace
    >>> former = SimpleNamespace(cls=type("Block", (), {}), called=("OldBlock",))
    >>> list(old_groups("layers/block_1", former))
    ['layers/block_1', 'layers/old_block_1']
    """
    yield group
    above, _, last = group.rpartition("/")
    now = group_name(former.cls.__name__)
    found = re.fullmatch(rf"{re.escape(now)}(_\d+)?", last)
    if found:
        for name in former.called:
            yield "/".join(filter(None, (above, f"{group_name(name)}{found[1] or ''}")))
