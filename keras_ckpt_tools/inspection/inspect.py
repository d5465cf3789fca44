"""Inspect a file without running any of its code: `kct.inspect`.

No object of the file is imported, built or called, and neither Keras nor TensorFlow is needed.
`safe_load_model` calls the same function, `examine`, so the report and the load always agree.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from keras_ckpt_tools.errors import (
    ArtefactError,
    DamagedArtefactError,
    MissingPackageError,
    OverBudgetError,
    damaged,
)
from keras_ckpt_tools.formats.common.file_objects import PathOrFile, on_disk
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.hdf5.shard_index import index_beside
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.layer_names import shown_as, variable_names
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensor_source import ModelSource, names_of
from keras_ckpt_tools.formats.tensorflow.prefixes import prefix_of
from keras_ckpt_tools.inspection import size_estimate
from keras_ckpt_tools.inspection.bounds import check_bounds, computed_shapes, nodes_without_inputs
from keras_ckpt_tools.inspection.configs import (
    MalformedConfigError,
    Need,
    own_names,
    spell_out,
    walk,
)
from keras_ckpt_tools.inspection.missing_objects import untranslatable
from keras_ckpt_tools.inspection.orbax_steps import with_step
from keras_ckpt_tools.inspection.report import Inspection, Problem, newer_than_here, passed_over
from keras_ckpt_tools.inspection.size_estimate import MOST_LAYERS, MOST_REPEATS, MOST_STEPS
from keras_ckpt_tools.inspection.trust import Trust, calling_package
from keras_ckpt_tools.inspection.verdicts import Resolver
from keras_ckpt_tools.inspection.wrong_kind import require, visibly_damaged, wrong_kind
from keras_ckpt_tools.metadata import TensorInfo, TrainingProgress
from keras_ckpt_tools.registry import Registry
from keras_ckpt_tools.registry import registry as default_registry
from keras_ckpt_tools.runs import choose
from keras_ckpt_tools.runs.entry import CheckpointEntry

# Extra memory of a model that is not in its file (unsaved optimizer state, for example).
_FACTOR = 8
_ALLOWANCE = 256 << 20
_NAMED = 10
# Ten thousand layers have fewer: each layer, its initializers, activation and dtype policy.
_MOST_NEEDS = 250_000
_MOST_UNKNOWN = 5_000
_ORIGINAL = "Get the original file from where this one came from."


def inspect(
    path: PathOrFile,
    custom_objects: Mapping[str, Any] | None = None,
    *,
    trusted: Iterable[str] = (),
    registry: Registry | None = None,
    max_bytes: int | None = None,
) -> Inspection:
    """Inspect a file: what it is and what it needs. No code of the file is run or imported.

    Use it before you load a file that you did not write, or after a load was refused. It needs
    neither Keras nor TensorFlow. With the same arguments as `safe_load_model`, it returns the same
    verdicts that the load uses.

    Args:
        path: A file or directory of any kind; an open binary file, or an open `h5py.File`.
        custom_objects: As for `safe_load_model`.
        trusted: As for `safe_load_model`.
        registry: Where to look names up. Default: the registry of `@kct.register`.
        max_bytes: As for `safe_load_model`.

    Returns:
        An `Inspection`; it prints as a table, and is true if the file is intact and all objects
        that it needs may be used. Damage, exceeded limits and files without a model are reported as
        problems, not raised as errors.

    Raises:
        ArtefactNotFoundError: there is nothing at the path.
        ArtefactError: it must not be read.
        ArgumentError: `path`, `trusted` or `max_bytes` cannot work.

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
    used = default_registry if registry is None else registry
    resolver = Resolver(used, custom_objects, Trust.of(trusted, calling_package()))
    limits = Limits.of(max_bytes)
    try:
        with on_disk(path, limits) as place:
            found = _inspect(place, resolver, limits)
    except OverBudgetError as error:  # It was too large to copy.
        return Inspection(
            error.path, Kind.UNKNOWN, int(error.needed), problems=(Problem.of(error),)
        )
    # The path of a copy is not useful.
    return found if place is path else dataclasses.replace(found, path=repr(place))


def _inspect(path: str | os.PathLike[str], resolver: Resolver, limits: Limits) -> Inspection:
    artefact = tell(path, limits)
    entries = choose.entries_of(artefact)
    newest = next((one for one in entries if one.ours), None)
    is_run = newest is not None and newest.kind is not artefact.kind
    if is_run or artefact.kind in (Kind.CHECKPOINT_DIR, Kind.DIRECTORY):
        return _inspect_directory(artefact, entries)
    # A directory that lacks its weights still has a config worth reading.
    whole = dataclasses.replace(artefact, damage=None)
    try:
        require(whole if artefact.kind is Kind.KERAS_DIR else artefact)
        if artefact.kind is Kind.ORBAX:
            look = functools.partial(_inspect_source, artefact=artefact, resolver=resolver)
            return with_step(artefact, "latest", limits, look)
        notes: list[Problem] = []
        if artefact.kind is Kind.TF_CHECKPOINT:
            prefix, notes = (newest.path, []) if newest else _prefix_in(artefact.path)
            whole = dataclasses.replace(whole, path=prefix)
        with open_source(whole.path, whole, limits) as source:
            found = _inspect_source(source, artefact, resolver)
        return dataclasses.replace(found, problems=(*found.problems, *notes))
    except ArtefactError as error:
        problems = (Problem.of(error),)
        return Inspection(artefact.path, artefact.kind, artefact.size, problems=problems)


def _prefix_in(path: str) -> tuple[str, list[Problem]]:
    """Return the TensorFlow checkpoint at a path, and warnings about it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        prefix = prefix_of(path)
    return prefix, [
        Problem("warning", str(one.message), "Pass the prefix of the checkpoint.") for one in told
    ]


def _inspect_source(source: ModelSource, artefact: Artefact, resolver: Resolver) -> Inspection:
    resolved = resolver.resolve(examine(source, resolver.replaced), source.record)
    problems = [Problem.of(visibly_damaged(artefact))] if artefact.damage else []
    problems += _untranslated(source) + _one_of_shards(artefact)
    tensors: tuple[TensorInfo, ...] = ()
    groups: Mapping[str, str] = {}
    progress = TrainingProgress()
    estimated = 0
    try:
        if source.record is None:
            source.check()  # A third-party zip has checksums; a load checks them too.
        tensors = tuple(source.tensors.values())
        groups = names_of(source)
        if spoiled := source.spoiled:
            problems += not_finite(spoiled, variable_names(source.tensors, groups))
        progress = source.progress
        estimated = check_size(source)
    except (ArtefactError, MissingPackageError) as error:
        if source.kind is Kind.ORBAX and isinstance(error, DamagedArtefactError):
            raise  # There may be a step before it.
        # The needs of the config are useful even if the weights cannot be read.
        problems.append(Problem.of(error))
    versions = source.versions
    problems += newer_than_here(versions)
    problems += passed_over(source)
    return Inspection(
        path=artefact.path,
        kind=artefact.kind,
        size=source.size if artefact.kind is Kind.ORBAX else artefact.size,
        versions=versions,
        progress=progress,
        objects=resolved.uses,
        tensors=tensors,
        problems=tuple(sorted(problems, key=lambda p: p.severity != "error")),
        estimated_bytes=estimated,
        groups=groups,
    )


def _one_of_shards(artefact: Artefact) -> list[Problem]:
    index = index_beside(artefact.path) if artefact.kind is Kind.H5_WEIGHTS else None
    if index is None:
        return []
    what = "This is one of the files of sharded weights: it holds a part of a model."
    return [Problem("warning", what, f"Pass their index, {index!r}.")]


def _untranslated(source: ModelSource) -> list[Problem]:
    left = source.untranslated
    problem = Problem.of(untranslatable(source.path, left)) if left else None
    if problem and all(one.part == "compile" for one in left):
        # The model loads without it.
        return [Problem("warning", problem.what, problem.remedy)]
    return [problem] if problem else []


def not_finite(paths: Iterable[str], called: Mapping[str, str]) -> list[Problem]:
    """Return the warning for tensors with NaN or infinity, if there are any."""
    paths = [shown_as(path, called) for path in paths]
    if not paths:
        return []
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    things = "1 tensor has" if len(paths) == 1 else f"{len(paths)} tensors have"
    return [
        Problem(
            "warning",
            f"{things} NaN or infinity: {', '.join(paths[:_NAMED])}{more}.",
            "The model will most likely return NaN. Use an earlier checkpoint, from before "
            "training diverged.",
        )
    ]


def _inspect_directory(artefact: Artefact, entries: Iterable[CheckpointEntry]) -> Inspection:
    newest = next((one for one in entries if one.ours), None)
    problems = [
        Problem(
            "warning" if newest else "error",
            f"{one.name} is damaged: {one.problem}.",
            "Use another one; `kct.verify(directory)` lists the intact ones.",
            "" if newest else "DamagedArtefactError",
        )
        for one in sorted(entries, key=lambda one: one.name)
        if one.problem
    ]
    if not newest:
        problems.append(Problem.of(wrong_kind(artefact)))
    return Inspection(
        path=artefact.path,
        kind=artefact.kind,
        size=artefact.size,
        versions=newest.versions if newest else {},
        progress=newest.progress_with_history() if newest else TrainingProgress(),
        problems=tuple(problems),
    )


def examine(source: ModelSource, replaced: Collection[str] = ()) -> list[Need]:
    """Return the objects that the config of a source needs.

    Args:
        source: The open file.
        replaced: Names of Keras' own objects that the caller replaces.

    Raises:
        DamagedArtefactError: the config is nested too deep to be a model's, or contains something
            that Keras never writes.
    """
    needs = needs_of(source.path, source.config, source.training_config)
    # Keras' reader of `.h5` looks up strings itself.
    names = set(replaced) - own_names(needs) if source.kind is not Kind.H5_MODEL else set()
    if not names:
        return needs
    spell_out(source.config, names)
    return needs_of(source.path, source.config, source.training_config)


def needs_of(
    path: str, config: Mapping[str, Any] | None, training_config: Mapping[str, Any] | None
) -> list[Need]:
    """Return the objects that a config needs, as `examine` does."""
    try:
        needs = walk(config, training_config)
    except (RecursionError, MalformedConfigError) as error:
        how = "its config is nested deeper than any model's"
        if isinstance(error, MalformedConfigError):
            how = f"in its config {error}"
        raise damaged(path, how, _ORIGINAL) from error
    if len(needs) > _MOST_NEEDS:
        raise over_budget(path, "its config names", "objects", len(needs), _MOST_NEEDS)
    if len(needs) > _MOST_UNKNOWN:
        unknown = len({need.name for need in needs if not need.of_keras})
        if unknown > _MOST_UNKNOWN:
            what = "without Keras' own, its config names"
            raise over_budget(path, what, "objects", unknown, _MOST_UNKNOWN)
    return needs


def check_size(source: ModelSource) -> int:
    """Return a lower bound of the bytes of a model's variables, by its config.

    Raises:
        OverBudgetError: it exceeds `max_bytes`, or is far more than the tensors in the file; or
            building the model would take hours.
        DamagedArtefactError: the config contains something that Keras never writes.
    """
    if source.config is None:
        return 0
    found = size_estimate.mappings(source.config)
    layers = size_estimate.layers_in(found)
    if layers > MOST_LAYERS:
        raise over_budget(source.path, "its config has", "layers", layers, MOST_LAYERS)
    layer, repeated = size_estimate.repeats(found)
    if repeated > MOST_REPEATS:
        what = f"its layer {layer} asks for"
        raise over_budget(source.path, what, "steps", repeated, MOST_REPEATS)
    check_bounds(source.path, found + size_estimate.mappings(source.training_config))
    constant = nodes_without_inputs(found)
    if constant:
        how = f"in its config the layer {constant!r} is called without a tensor"
        raise damaged(source.path, how, _ORIGINAL)
    if computed := computed_shapes(found):
        how = f"in its config the layer {computed!r} computes its output shape with Keras' own code"
        raise damaged(source.path, how, _ORIGINAL)
    try:
        calls, needed = (
            size_estimate.steps(source.config, found),
            size_estimate.estimate(source.config),
        )
    except RecursionError as error:
        how = "its config is nested deeper than any model's"
        raise damaged(source.path, how, _ORIGINAL) from error
    if calls > MOST_STEPS:
        raise over_budget(source.path, "to build its model takes", "steps", calls, MOST_STEPS)
    allowed = room_for(source) if source.tensors else source.limits
    if needed > allowed.max_bytes:
        limit = "max_bytes" if allowed.max_bytes == source.limits.max_bytes else "config_bytes"
        held = sum(info.nbytes for info in source.tensors.values())
        what = f"the file holds tensors of {held:,} bytes, but by its config its model takes"
        raise over_budget(source.path, what, limit, needed, allowed.max_bytes)
    return needed


def room_for(source: ModelSource) -> Limits:
    """Return the limits on building the model of a source: by its file, and by this package."""
    held = sum(info.nbytes for info in source.tensors.values())
    most = min(source.limits.max_bytes, held * _FACTOR + _ALLOWANCE)
    return dataclasses.replace(source.limits, max_bytes=most)
