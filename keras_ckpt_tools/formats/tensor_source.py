"""The protocol of readers: named tensors, and optional facts about them.

A file is a source; so is a group of it, or the same tensors under other names. All of them read in
bulk, so that neighbouring tensors are read together.

A source may also have the names of layers (`names`), the optimizers (`optimizers`), and the names
of tensors in the file (`places`). Callers use the functions here to get them, so a new reader need
not have any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

from keras_ckpt_tools.errors import DamagedArtefactError, damaged
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.common.safe_open import Identity, identity_of
from keras_ckpt_tools.formats.kinds import Artefact
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo, TrainingProgress

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


class ModelSource:
    """One open artefact, whatever its format. Use it in a `with` block.

    A reader has `tensors` and `read_all`; all else has a default, for formats without it.

    Attributes:
        path: Where it is.
        kind: What it is.
        size: Bytes.
        limits: What reading it may take.
        record: What it says about itself, where we wrote it.
        config: The model's config, or `None` where there is none.
        training_config: The compile arguments of a whole-model `.h5`, or `None`.
        metadata: What else the writer noted: `keras_version`, `date_saved`.
        untranslated: What a config of Keras 2 says that Keras 3 cannot.
        not_finite: Paths of tensors in which NaN or infinity was found, as far as they were read.
        covered: Whether it has digests or checksums, so that changed bytes can be found at all.
        passed_over: Names of members that are no part of a model.
        lacks_metadata: Whether an archive or a directory has no file for that.
        has_assets: Whether there are files that layers saved (vocabularies).
        spoiled: Paths of tensors with NaN or infinity, as far as known before they are read.
    """

    record: Record | None = None
    config: dict[str, Any] | None = None
    training_config: dict[str, Any] | None = None
    untranslated: tuple[Untranslated, ...] = ()
    lacks_metadata = False

    def __init__(self, artefact: Artefact, limits: Limits):
        self.path, self.kind, self.size = artefact.path, artefact.kind, artefact.size
        self.limits = limits
        self.metadata: dict[str, Any] = {}
        self.not_finite: list[str] = []
        self._stack = ExitStack()
        # Of the one file that stays open, if there is one.
        self._fd = -1
        self._identity: Identity | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, by path."""
        raise NotImplementedError

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path.

        Raises:
            KeyError: there is none of a path.
            DamagedArtefactError: bytes of the file have changed since it was written.
        """
        raise NotImplementedError

    def read(self, path: str) -> np.ndarray[Any, Any]:
        """Return one tensor; see `read_all`."""
        return self.read_all([path])[path]

    @property
    def progress(self) -> TrainingProgress:
        """Where training was; the zero record where it does not say."""
        return self.record.progress if self.record else TrainingProgress()

    @property
    def versions(self) -> dict[str, str]:
        """Versions that wrote it, as far as it says."""
        if self.record is not None and self.record.versions:
            return dict(self.record.versions)
        version = self.metadata.get("keras_version")
        return {"keras": str(version)} if version else {}

    @property
    def covered(self) -> bool:
        return self.record is not None

    @property
    def spoiled(self) -> Sequence[str]:
        return ()

    @property
    def passed_over(self) -> Sequence[str]:
        return ()

    @property
    def has_assets(self) -> bool:
        return False

    def extract_assets(self, directory: str, inside: str = "") -> str | None:
        """Write the files that layers saved (vocabularies) into a directory.

        Args:
            directory: Where to. May be given again, for those of another object.
            inside: The path of the object whose files are meant. Default: all files.

        Returns:
            The folder with the assets, or `None` where the artefact has none.
        """
        return None

    def place_of(self, path: str) -> tuple[int, int, str] | None:
        """Return where a tensor lies whose bytes are in the file as they are, else `None`.

        Returns:
            An open descriptor, the offset in it, and NumPy's type of the elements there.
        """
        return None

    def check(self) -> None:
        """Check what surrounds the tensors, once.

        Raises:
            DamagedArtefactError: bytes have changed since it was written.
        """

    def check_others(self, paths: Iterable[str]) -> None:
        """Check what a load of these tensors leaves unread: a changed byte is found all the same.

        Raises:
            DamagedArtefactError: bytes have changed since it was written.
        """
        if self.record is not None:
            self.read_all(self.tensors.keys() - set(paths))

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened.

        Raises:
            DamagedArtefactError: it was.
        """
        if self._identity is not None and identity_of(self._fd) != self._identity:
            raise damaged(self.path, "it was written to while it was being read")

    def verify(self) -> tuple[str, ...]:
        """Read and check every byte; return what is wrong, as sentences."""
        try:
            for path in self.tensors:
                self.read_all([path])
        except DamagedArtefactError as error:
            return (error.what,)
        return ()


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


def regrouped(paths: Iterable[str], groups: Mapping[str, str]) -> dict[str, str]:
    """Return where tensors stand, by the path that each has once its group is called otherwise.

    >>> regrouped(["model/vars/0", "step/vars/0"], {"model/": ""})
    {'vars/0': 'model/vars/0'}
    """
    paths = list(paths)
    return {
        ours + path.removeprefix(theirs): path
        for theirs, ours in groups.items()
        for path in paths
        if path.startswith(theirs)
    }


class SourceView(Relabelled):
    """Some groups of a source, as a source of their own.

    Args:
        source: Where they are.
        groups: What each is called here, by what it is called there: `{"model/": ""}`.
        checked: Whether what is left unread is checked, too, whenever something is read.
    """

    def __init__(self, source: TensorSource, groups: Mapping[str, str], *, checked: bool = False):
        super().__init__(source, regrouped(source.tensors, groups))
        self._checked = source if checked and isinstance(source, ModelSource) else None

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        paths = list(paths)
        if self._checked is not None:
            self._checked.check_others(self._paths[path] for path in paths)
        return super().read_all(paths)
