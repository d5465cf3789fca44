"""Look at an artefact without running any of it: source -> *report* -> trust.

Nothing that the file names is imported, built or called, and neither Keras nor TensorFlow is needed
to look. What is reported is what `safe_load_model` acts on: `examine` is called by both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools.errors import DamagedArtefactError, NewerFormatError
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.source import READABLE, Source, open_source
from keras_ckpt_tools.loading import directories
from keras_ckpt_tools.loading.configs import Need, walk
from keras_ckpt_tools.loading.remedies import wrong_kind
from keras_ckpt_tools.loading.resolve import ObjectUse, Resolver
from keras_ckpt_tools.loading.tables import as_html, as_text
from keras_ckpt_tools.loading.trust import Trust
from keras_ckpt_tools.metadata import TensorInfo, TrainingProgress
from keras_ckpt_tools.registry import Registry
from keras_ckpt_tools.registry import registry as default_registry

__all__ = ["Inspection", "ObjectUse", "examine", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What an artefact is and what it needs.

    Attributes:
        path: Where it is.
        kind: What it is, told by its content.
        size: Bytes.
        versions: Versions that wrote it, as far as it says: `{"keras": "3.15.1"}`.
        progress: Where training was; the zero record where the file does not say.
        objects: Every place that names an object, with the verdict on it.
        tensors: Every tensor, in the order of the file.
        problems: What is wrong with the artefact itself, as sentences. Whether tensors are intact
            is for `verify`, which reads every byte.
    """

    path: str
    kind: Kind
    size: int
    versions: Mapping[str, str] = field(default_factory=dict)
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    objects: tuple[ObjectUse, ...] = ()
    tensors: tuple[TensorInfo, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Names that nothing in this process has, each once."""
        return self._names("missing")

    @property
    def untrusted(self) -> tuple[str, ...]:
        """Names of what is there, but that nobody vouches for, each once."""
        return self._names("untrusted")

    def _names(self, verdict: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o.registered_name for o in self.objects if o.verdict == verdict))

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return `(verdict, name, where, note)` for what is not Keras' own, then the problems."""
        rows = [
            (use.verdict, use.registered_name, f"{use.role} at {use.where}", _origin(use))
            for use in self.objects
            if use.verdict != "built-in"
        ]
        return rows + [("problem", "", "", problem) for problem in self.problems]

    def _caption(self) -> str:
        facts = [f"{self.path}: {self.kind}, {self.size:,} bytes"]
        if self.versions:
            facts.append("by " + ", ".join(f"{n} {v}" for n, v in self.versions.items()))
        if self.progress.trained:
            done = self.progress
            facts.append(f"{done.epochs_completed} epochs completed, step {done.step}")
        if self.tensors:
            size = sum(t.nbytes for t in self.tensors)
            facts.append(f"{len(self.tensors)} tensors of {size:,} bytes")
        own = sum(use.verdict == "built-in" for use in self.objects)
        if self.objects:
            facts.append(f"{own} of {len(self.objects)} objects are Keras' own")
        return "; ".join(facts)

    def __str__(self) -> str:
        return as_text(self._caption(), self.rows())

    def _repr_html_(self) -> str:
        return as_html(self._caption(), ("verdict", "name", "where", "note"), self.rows())


def _origin(use: ObjectUse) -> str:
    parts = [f"saved from {use.module}"] if use.module else []
    parts += [use.note] if use.note else []
    parts += [f"nearest: {', '.join(use.nearest)}"] if use.nearest else []
    return "; ".join(parts)


def inspect(
    path: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    *,
    trusted: Iterable[str] = (),
    registry: Registry | None = None,
) -> Inspection:
    """Say what a file is and what it needs, without executing or importing any of it.

    Reach for it before `safe_load_model` opens something you did not write, and where a load was
    refused. Needs neither Keras nor TensorFlow. With the same arguments as `safe_load_model` it
    gives the verdicts that the load will act on.

    Args:
        path: A file or directory of any kind.
        custom_objects: As for `safe_load_model`.
        trusted: As for `safe_load_model`.
        registry: Where to look names up. Default: the registry of `@kct.register`.

    Returns:
        An `Inspection`; it prints as a table. Damage and kinds that hold no model are problems in
        it, not errors.

    Raises:
        ArtefactNotFoundError: nothing is at the path.
        ArtefactError: it may not be read.
        ArgumentError: `path` or `trusted` cannot work.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_ckpt_tools as kct
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> config = '{"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}'
    >>> _ = (folder / "config.json").write_text(config)
    >>> _ = (folder / "metadata.json").write_text('{"keras_version": "3.15.1"}')
    >>> report = kct.inspect(folder)
    >>> report.versions, [use.verdict for use in report.objects]
    ({'keras': '3.15.1'}, ['built-in'])
    """
    resolver = Resolver(_given(registry), custom_objects, Trust.of(trusted))
    artefact = tell(path)
    if artefact.kind is Kind.CHECKPOINT_DIR or artefact.kind is Kind.DIRECTORY:
        return _inspect_directory(artefact)
    if artefact.damage and artefact.kind is not Kind.KERAS_DIR:
        return _with_problem(artefact, f"The {artefact.kind} is damaged: {artefact.damage}.")
    if artefact.kind not in READABLE:
        error = wrong_kind(artefact, "model")
        return _with_problem(artefact, f"{error.what} {error.remedy}")
    try:
        with open_source(path, _undamaged(artefact)) as source:
            return _inspect_source(source, artefact, resolver)
    except (DamagedArtefactError, NewerFormatError) as error:
        return _with_problem(artefact, f"{error.what} {error.remedy}")


def _given(registry: Registry | None) -> Registry:
    return default_registry if registry is None else registry


def _undamaged(artefact: Artefact) -> Artefact:
    # A directory that lacks its weights still has a config worth reading.
    return Artefact(artefact.path, artefact.kind, artefact.size)


def _with_problem(artefact: Artefact, problem: str) -> Inspection:
    return Inspection(artefact.path, artefact.kind, artefact.size, problems=(problem,))


def _inspect_source(source: Source, artefact: Artefact, resolver: Resolver) -> Inspection:
    resolved = resolver.resolve(examine(source), source.record)
    problems = [f"{artefact.damage}."] if artefact.damage else []
    tensors: tuple[TensorInfo, ...] = ()
    try:
        tensors = tuple(source.tensors.values())
    except DamagedArtefactError as error:
        # What the config needs is worth knowing even where the weights cannot be read.
        problems.append(f"{error.what} {error.remedy}")
    return Inspection(
        path=artefact.path,
        kind=artefact.kind,
        size=artefact.size,
        versions=versions_of(source),
        progress=source.record.progress if source.record else TrainingProgress(),
        objects=resolved.uses,
        tensors=tensors,
        problems=tuple(problems),
    )


def _inspect_directory(artefact: Artefact) -> Inspection:
    found = directories.look_into(artefact.path)
    newest = directories.latest_first(found)
    problems = [f"{one.name} is damaged: {one.damage}." for one in found if one.damage]
    if not newest:
        error = wrong_kind(artefact, "model")
        problems.append(f"{error.what} {error.remedy}")
    return Inspection(
        path=artefact.path,
        kind=artefact.kind,
        size=artefact.size,
        versions=newest[0].versions if newest else {},
        progress=newest[0].progress if newest else TrainingProgress(),
        problems=tuple(problems),
    )


def versions_of(source: Source) -> dict[str, str]:
    """Return the versions that wrote a source, as far as it says."""
    if source.record is not None and source.record.versions:
        return dict(source.record.versions)
    version = source.metadata.get("keras_version")
    return {"keras": str(version)} if version else {}


def examine(source: Source) -> list[Need]:
    """Return what the config of a source needs.

    Raises:
        DamagedArtefactError: the config is nested too deep to be a model's.
    """
    try:
        return walk(source.config, source.training_config)
    except RecursionError as error:
        raise DamagedArtefactError(
            "The file is damaged: its config is nested deeper than any model's.",
            received=f"path={source.path!r}",
            remedy="Ask whoever gave it to you for the original.",
            path=source.path,
        ) from error
