"""The protocol of readers: named tensors, and optional facts about them.

A file is a source; so is a group of it, or the same tensors under other names. All of them read in
bulk, so that neighbouring tensors are read together.

A source may also have the names of layers (`names`), the optimizers (`optimizers`), and the names
of tensors in the file (`places`). Callers use the functions here to get them, so a new reader need
not have any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo

if TYPE_CHECKING:
    import numpy as np

    from keras_ckpt_tools.formats.keras2.translate import Untranslated


class TensorSource(Protocol):
    """Named tensors.

    Attributes:
        path: Where they come from, for messages.
        tensors: What there is.
    """

    @property
    def path(self) -> str: ...
    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...
    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]: ...


class ModelSource(TensorSource, Protocol):
    """What a model is built and filled from; see `source.Source` for what each of these is."""

    @property
    def kind(self) -> Kind: ...
    @property
    def record(self) -> Record | None: ...
    @property
    def config(self) -> dict[str, Any] | None: ...
    @property
    def training_config(self) -> dict[str, Any] | None: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def untranslated(self) -> Sequence[Untranslated]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def not_finite(self) -> Sequence[str]: ...
    def check(self) -> None: ...
    def check_unchanged(self) -> None: ...
    @property
    def has_assets(self) -> bool: ...
    def extract_assets(self, directory: str, inside: str = "") -> str | None: ...


def names_of(source: TensorSource) -> Mapping[str, str]:
    """Return what the layers of a source were called, by group; empty where it does not say."""
    names: Mapping[str, str] = getattr(source, "names", {})
    return names


def optimizers_of(source: TensorSource) -> Mapping[str, OptimizerState]:
    """Return the optimizers in a source by group; empty where it does not say."""
    optimizers: Mapping[str, OptimizerState] = getattr(source, "optimizers", {})
    return optimizers


def places_of(source: TensorSource) -> Mapping[str, str]:
    """Return what tensors are called in the file itself, where that is something else."""
    places: Mapping[str, str] = getattr(source, "places", {})
    return places


def left_alone_by(source: TensorSource) -> frozenset[str]:
    """Return what of the model a source is not meant for, by path."""
    paths: frozenset[str] = getattr(source, "left_alone", frozenset())
    return paths


def state_of_optimizers_in(source: TensorSource) -> frozenset[str]:
    """Return what a source says is the state of an optimizer, by path, wherever that stands."""
    paths: frozenset[str] = getattr(source, "state_of_optimizers", frozenset())
    return paths


def read_from(source: TensorSource, places: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return tensors of a source under other names.

    Args:
        source: Where they are.
        places: Where each stands there, by the name that it is to have.
    """
    arrays = source.read_all(places.values())
    return {name: arrays[place] for name, place in places.items()}


class Relabelled:
    """Tensors of a source under other paths, with all that the source says about them.

    Args:
        source: Where they are.
        paths: Where each stands there, by the path that it has here.
    """

    def __init__(self, source: TensorSource, paths: Mapping[str, str]):
        self.path = source.path
        self.left_alone: frozenset[str] = frozenset()
        self._source = source
        self._paths = paths
        self.tensors: Mapping[str, TensorInfo] = {
            path: source.tensors[place] for path, place in paths.items()
        }
        known = places_of(source)
        self.places = {path: known.get(place, place) for path, place in paths.items()}
        groups = _groups(paths)
        self.names = {groups.get(group, group): name for group, name in names_of(source).items()}
        here = {place: path for path, place in paths.items()}
        self.optimizers = {
            groups.get(group, group): OptimizerState(
                one.class_name, tuple(here.get(path, path) for path in one.built_on)
            )
            for group, one in optimizers_of(source).items()
        }

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path."""
        return read_from(self._source, {path: self._paths[path] for path in paths})


def _groups(paths: Mapping[str, str]) -> dict[str, str]:
    """Return what groups are called here, by what they are called there."""
    groups: dict[str, str] = {}
    for here, there in paths.items():
        ours, theirs = here, there
        while ours and theirs:
            ours, _, last = ours.rpartition("/")
            theirs, _, its_last = theirs.rpartition("/")
            if last != its_last or groups.get(theirs) == ours:
                break
            groups[theirs] = ours
    return groups


class SourceView(Relabelled):
    """The tensors of one group of a source, as a source of their own."""

    def __init__(self, source: TensorSource, group: str):
        prefix = f"{group}/"
        super().__init__(
            source,
            {path[len(prefix) :]: path for path in source.tensors if path.startswith(prefix)},
        )
