"""Load a whole model from a file after all of its names were checked: `kct.safe_load_model`.

The load uses the same functions as `inspect`, on the same open file. Keras gets the config only if
every name in it is allowed. So an error about names is raised before anything is built, and lists
all of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

# Before names are judged: Keras' own tables decide between "missing" and "untrusted".
import keras

from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    CkptError,
    DamagedArtefactError,
)
from keras_ckpt_tools.formats.common.file_objects import PathOrFile, on_disk
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.layer_names import variable_names
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.tensor_source import ModelSource, names_of
from keras_ckpt_tools.inspection.configs import Need, strings_of, uncompiled
from keras_ckpt_tools.inspection.inspect import (
    check_size,
    examine,
    needs_of,
    not_finite,
    room_for,
)
from keras_ckpt_tools.inspection.missing_objects import (
    describe_refused,
    describe_untranslated,
    objects_not_found,
    untranslatable,
)
from keras_ckpt_tools.inspection.orbax_steps import with_step
from keras_ckpt_tools.inspection.report import warn_of_passed_over, writer
from keras_ckpt_tools.inspection.size_estimate import layers_in, mappings
from keras_ckpt_tools.inspection.trust import Trust, calling_package
from keras_ckpt_tools.inspection.verdicts import Resolved, Resolver
from keras_ckpt_tools.inspection.wrong_kind import require, wrong_kind
from keras_ckpt_tools.live.attached_progress import attach_progress
from keras_ckpt_tools.live.keras_walk import optimizers_of, parts_of
from keras_ckpt_tools.loading.build import Plan, build_model
from keras_ckpt_tools.loading.built_once import sequential_models_built_once
from keras_ckpt_tools.loading.deadline import check_seconds, clock_for
from keras_ckpt_tools.loading.isolation import Allowed
from keras_ckpt_tools.loading.unbuildable import Cause, cause_of, frames_of, not_buildable
from keras_ckpt_tools.loading.variable_budget import counted_variables
from keras_ckpt_tools.loading.whole_model_h5 import build_legacy, is_subclassed
from keras_ckpt_tools.registry import Entry, Registry
from keras_ckpt_tools.registry import registry as default_registry
from keras_ckpt_tools.runs import choose as directories
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.showing.bars import bar_for_file
from keras_ckpt_tools.showing.messages import warn

Compile = bool | Literal["auto"]

_MODELS = (Kind.KERAS, Kind.KERAS_DIR, Kind.H5_MODEL)
_FOLDERS = (Kind.DIRECTORY, Kind.CHECKPOINT_DIR)

# Far more than a normal file takes: a layer takes a few milliseconds, and Keras' reader of `.h5`
# reads the tensors while it builds. The user's own code may take longer.
_SECONDS = 120.0
_SECONDS_A_LAYER = 0.1
_BYTES_A_SECOND = 10_000_000
_OF_THE_USER = 10
# The functions that compile a model from its config, in either format.
_COMPILING = ("compile_from_config", "compile_as_saved")


def safe_load_model(
    path: PathOrFile,
    custom_objects: Mapping[str, Any] | None = None,
    compile: Compile = "auto",
    *,
    trusted: Iterable[str] = (),
    registry: Registry | None = None,
    which: Literal["best", "latest"] | int = "best",
    max_bytes: int | None = None,
    max_seconds: float | None = None,
) -> keras.Model:
    """Load a whole model, and run no code that you do not trust.

    Use it in place of `keras.models.load_model`. All objects that the file needs are looked up
    first: in `custom_objects`, in open scopes, in the registry, in installed plug-ins, in Keras.
    Objects that are missing or not trusted are listed in one error, before anything is built.

    Args:
        path: A `.keras` archive, an unzipped Keras directory, a whole-model `.h5`, a directory of
            models that `kct.ModelCheckpoint` wrote, or what `keras.callbacks.OrbaxCheckpoint`
            wrote with a config (one step of it, or all). Or an open binary file (`io.BytesIO`), or
            an open `h5py.File`, with one of the first three.
        custom_objects: Classes and functions by name, qualified or bare. They have precedence over
            all others, also over Keras' own: `{"Dense": Fast}` makes a `Fast` of each `Dense`,
            unless the file has its own object of that name. A warning lists unused names.
        compile: `True`: the model is compiled with the saved state of its optimizer; an error is
            raised if that is not possible. `False`: it is not compiled. `"auto"` (default): if the
            loss, metrics or optimizer cannot be found or built, the model is loaded uncompiled. If
            only the saved state of the optimizer, metrics or random generators does not fit, that
            state is reinitialized. One warning has the reasons. Weights are always restored
            completely.
        trusted: Names that may be used in addition to `custom_objects` and the registry:
            `"my_package>Scale"` for an object in Keras' global registry, `"my_package>*"` for a
            package, `"lambda:scale"` for the code in the Lambda layer called `scale`,
            `"path:/data/words.txt"` for a file that one of Keras' own layers opens. Objects that
            are decorated by `keras.saving.register_keras_serializable` need no name if they are
            defined in `__main__` or in the package of the caller, and with `"registered-here"` in
            any module that is not installed.
        registry: Where to look names up. Default: the registry of `@kct.register`.
        which: For a directory, the file to load: `"best"` by the monitored metric, `"latest"` by
            the time of the save, or a zero-based epoch. A single file must be of that epoch. A
            damaged file is skipped with a warning, unless an epoch is given. For an Orbax
            checkpoint: the newest step (it contains no metric; with `save_best_only` the newest is
            the best), or the number of a step.
        max_bytes: Limit for the tensors in the file, for its unpacked size, and for the variables
            that its config builds, each in total. Default: the free memory of this machine. A model
            may never take more than eight times the tensors in its file.
        max_seconds: Seconds of wall time that building the model from its config may take, without
            reading the tensors. Default: two minutes, more for many layers, and ten times that for
            models with your own classes; by default, time in which this process only waits does
            not count.

    Returns:
        The complete model: with all weights, and with its optimizer's state if it is compiled. For
        a file that `FeatureSpace.save()` wrote, the `keras.utils.FeatureSpace`.

    Raises:
        ObjectsNotFoundError: names are missing or not trusted; all are listed, each with the line
            to add.
        ArtefactNotFoundError: there is nothing at the path.
        ArtefactKindError: it is not a model; the message names the call that opens it.
        DamagedArtefactError: it is empty, truncated, or bytes have changed.
        ConfigError: it is intact, but its model cannot be built with the present classes; the
            message names the class and the arguments, and what opens the file.
        UnsafeArtefactError: it has links, data in other files, or names that lead outside.
        OverBudgetError: it would exceed `max_bytes`, or building it took longer than `max_seconds`.
        NewerFormatError: a later version of this package wrote it.
        UntranslatableError: Keras 2 wrote it, and it has features that Keras 3 does not support.
        RestoreError: the model and the weights in the file do not match; with `compile=True`, also
            if the state of the optimizer does not match, or if the model compiles itself.
        NotBuiltError: the file does not contain the input shape of the model.
        ArgumentError: an argument cannot work.

    Example:

    >>> import os, tempfile
    >>> import keras
    >>> import keras_ckpt_tools as kct
    >>> path = os.path.join(tempfile.mkdtemp(), "model.keras")
    >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    >>> kct.safe_load_model(path).count_params()
    10
    """
    if not isinstance(compile, bool) and compile != "auto":
        raise ArgumentError(
            '`compile` must be True, False or "auto".',
            received=f"compile={compile!r}",
            remedy='Pass True, False or "auto".',
        )
    directories.check_which(which)
    used = default_registry if registry is None else registry
    trust = Trust.of(trusted, calling_package())
    resolver = Resolver(used, custom_objects, trust, import_plugins=True)
    check_seconds(max_seconds)
    limits = Limits.of(max_bytes)
    wish = _Wish(resolver, compile, max_seconds)
    why: Cause | None = None
    with on_disk(path, limits) as place, bar_for_file("Loading", place):
        artefact = tell(place, limits)
        entries = directories.entries_of(artefact)
        of_run = any(one.kind in directories.MODELS for one in entries)
        while True:
            try:
                if of_run or artefact.kind in _FOLDERS:
                    model = _load_from_directory(artefact, entries, wish, which, limits)
                elif artefact.kind is Kind.ORBAX:
                    load = functools.partial(_load_open, wish=wish)
                    model = with_step(artefact, which, limits, load)
                else:
                    model = _load(artefact, wish, limits, which)
                break
            except _NotCompilableError as error:
                # Only once: without compiling, this error cannot be raised again.
                why, wish = error.cause, dataclasses.replace(wish, compiled=False)
    if why is None:
        return model
    warn(
        f"The model of {artefact.path!r} was loaded uncompiled, because its loss, metrics or "
        f"optimizer cannot be built: {why}. Call `model.compile(...)` yourself before you train "
        "it. Pass `compile=False` to load it without this warning.",
        UserWarning,
        stacklevel=2,
    )
    return model


class _NotCompilableError(Exception):
    """The model could not be compiled; `compile="auto"` then loads it uncompiled."""

    def __init__(self, cause: Cause):
        self.cause = cause


@dataclasses.dataclass(frozen=True)
class _Wish:
    """The arguments of the caller, for any file."""

    resolver: Resolver
    compiled: Compile
    max_seconds: float | None


def _load(artefact: Artefact, wish: _Wish, limits: Limits, which: str | int = "latest") -> Any:
    require(artefact, _MODELS)
    with open_source(artefact.path, artefact, limits) as source:
        directories.require_epoch(which, source.record, artefact.path)
        return _load_open(source, wish)


def _objects_in(model: Any) -> tuple[Any, ...]:
    return (*parts_of(model), *optimizers_of(model), getattr(model, "loss", None))


def _load_open(source: ModelSource, wish: _Wish) -> Any:
    source.check()
    if source.config is None:
        raise ArtefactKindError(
            "The file holds weights, but no config of a model.",
            received=f"path={source.path!r}",
            remedy=f"Build the model and call `kct.load_weights(model, {source.path!r})`.",
            path=source.path,
            kind=str(source.kind),
        )
    uncompiled_because: list[str] = []
    plan, needs = _plan(source, wish.resolver, wish.compiled, uncompiled_because)
    check_size(source)
    model = _build(source, plan, wish)
    source.check_unchanged()
    for text in uncompiled_because:  # Now that it is loaded.
        warn(text, UserWarning, stacklevel=4)
    warn_of_passed_over(source, stacklevel=5)
    spoiled = source.not_finite
    called = variable_names(source.tensors, names_of(source)) if spoiled else {}
    for problem in not_finite(spoiled, called):
        warn(f"{source.path!r}: {problem}", UserWarning, stacklevel=4)
    if unused := wish.resolver.unused(plan.allowed.asked, lambda: _objects_in(model)):
        warn(
            f"{source.path!r} does not use these names in `custom_objects`: "
            f"{', '.join(map(repr, unused))}. `kct.inspect({source.path!r})` lists the names that "
            "the file needs. To offer the same objects to many files, open `kct.scope({...})` "
            "around the loads instead.",
            UserWarning,
            stacklevel=4,
        )
    if wrong := wish.resolver.unused_trust(needs):
        listed = ", ".join(
            f"{name!r} (nearest: {', '.join(map(repr, near))})" if near else repr(name)
            for name, near in wrong.items()
        )
        warn(
            f"{source.path!r} does not contain these names in `trusted`: {listed}. Correct or "
            "remove them.",
            UserWarning,
            stacklevel=4,
        )
    if source.record is not None or source.kind is Kind.ORBAX:
        attach_progress(model, source.progress)
    return model


def _plan(
    source: ModelSource, resolver: Resolver, compiled: Compile, uncompiled_because: list[str]
) -> tuple[Plan, list[Need]]:
    config, training_config = source.config, source.training_config
    assert config is not None  # The caller has checked.
    names = strings_of(config, training_config) if resolver.has_custom else set()
    left = source.untranslated
    if left and (compiled is True or any(one.part == "model" for one in left)):
        raise untranslatable(source.path, left)
    found, resolved = _gate(source, resolver, compiled)
    every = list(found)
    if _migrate(resolved.entries, _versions(source)):
        # A migration may name objects that the old config did not.
        found, resolved = _gate(source, resolver, compiled)
        every += found
    needs = found if compiled is not False else _model_part(found)
    if refused := resolved.refused():
        uncompiled_because.append(
            f"The model of {source.path!r} was loaded uncompiled, because its loss, metrics or "
            f"optimizer cannot be used:\n{describe_refused(refused)}\nAdd the lines above, or call "
            "`model.compile(...)` yourself. Pass `compile=False` to load it without this warning."
        )
    if left and compiled == "auto":
        uncompiled_because.append(
            f"The model of {source.path!r} was loaded uncompiled, because Keras 3 does not support "
            f"what Keras 2 compiled it with:\n{describe_untranslated(left)}"
        )
    if compiled is False or left or resolved.refused("compile"):
        config, training_config = uncompiled(config), None
        # Keras gets all of the remaining config, so all of it is judged.
        needs = needs_of(source.path, config, None)
        resolved = resolver.resolve(needs, source.record)
        if resolved.refused():
            raise objects_not_found(source.path, resolved.refused(), writer(source.versions))
    _say_exactly(needs)
    objects = dict(resolved.objects)
    if source.kind is Kind.H5_MODEL:
        # The legacy dialect writes functions as bare strings, anywhere.
        objects |= resolver.named_in(strings_of(config, training_config))
    allowed = Allowed(
        objects,
        resolved.runs_code,
        resolved.code,
        resolver.vouches_for,
        resolver.trusts,
        resolved.instead,
        names,
    )
    return Plan(config, training_config, allowed, resolved.renamed, resolver.registry), every


def _say_exactly(needs: Iterable[Need]) -> None:
    """Write the judged names into the config, so that Keras cannot resolve them differently.

    Keras looks up a class by its registered name before its module, so Keras' own classes get no
    registered name. A function in a table is looked up by its registered name.
    """
    for need in needs:
        if need.node is None or need.role == "lambda" or "module" not in need.node:
            continue
        if need.role == "class":
            need.node["registered_name"] = None if need.of_keras else need.name
        elif need.node.get("module") != "builtins":
            need.node["registered_name"] = need.name


def _gate(
    source: ModelSource, resolver: Resolver, compiled: Compile
) -> tuple[list[Need], Resolved]:
    every = examine(source, resolver.replaced)
    needs = every if compiled is not False else _model_part(every)
    resolved = resolver.resolve(needs, source.record)
    refused = resolved.refused()
    if refused and (compiled is True or resolved.refused("model")):
        raise objects_not_found(source.path, refused, writer(source.versions))
    return every, resolved


def _model_part(needs: Iterable[Need]) -> list[Need]:
    return [need for need in needs if need.part == "model"]


def _versions(source: ModelSource) -> dict[str, int]:
    return {o.registered_name: o.version for o in source.record.objects} if source.record else {}


def _migrate(entries: Iterable[tuple[Need, Entry]], versions: Mapping[str, int]) -> bool:
    migrated = False
    for need, entry in entries:
        saved = versions.get(need.name, versions.get(entry.name, 1))
        if entry.migrate is None or need.node is None or saved >= entry.version:
            continue
        if isinstance(need.node["config"], dict):
            need.node["config"] = entry.migrate(dict(need.node["config"]), saved)
            migrated = True
    return migrated


def _build(source: ModelSource, plan: Plan, wish: _Wish) -> Any:
    held = sum(info.nbytes for info in source.tensors.values())
    seconds = (
        _SECONDS + _SECONDS_A_LAYER * layers_in(mappings(plan.config)) + held / _BYTES_A_SECOND
    )
    default = seconds * (_OF_THE_USER if plan.objects else 1)
    room = room_for(source).max_bytes
    limit = "max_bytes" if room == source.limits.max_bytes else "config_bytes"
    with (
        counted_variables(source.path, held, room, limit),
        clock_for(source.path, wish.max_seconds, default) as clock,
        sequential_models_built_once(),
    ):
        try:
            timed = dataclasses.replace(plan, clock=clock)
            return _build_in_its_format(source, timed, wish.compiled)
        except (CkptError, Warning):
            raise  # Warnings that are errors in this program stay as they are.
        except Exception as error:
            cause = cause_of(error)
            compiled = any(frame.f_code.co_name in _COMPILING for frame in frames_of(error))
            if compiled and wish.compiled == "auto":
                raise _NotCompilableError(cause) from error
            if _is_from(error, plan.objects.values()) and not (cause.missing or cause.surplus):
                raise  # The error of the user's own code is the clearest.
            version = source.versions.get("keras", "")
            subclassed = source.kind is Kind.H5_MODEL and is_subclassed(plan)
            only = subclassed and cause.cls is not None and issubclass(cause.cls, keras.Model)
            raise not_buildable(
                source.path, cause, version, compiled=compiled, weights_only=only
            ) from error


def _build_in_its_format(source: ModelSource, plan: Plan, compiled: Compile) -> Any:
    left: dict[str, str] | None = None if compiled is True else {}
    if source.kind is not Kind.H5_MODEL:
        model = build_model(source, plan, left)
    else:
        assert isinstance(source, Source)  # It is HDF5.
        model = build_legacy(source, plan, left)
    if left and compiled is not False:
        reasons = "\n".join(f"  {what}: {why}." for what, why in sorted(left.items()))
        warn(
            f"All weights of {source.path!r} are loaded. Other state does not fit and is "
            f"reinitialized:\n{reasons}\nWith `compile=True` this is an error; with "
            "`compile=False` only the weights are loaded.",
            UserWarning,
            stacklevel=6,
        )
    return model


def _is_from(error: BaseException, objects: Iterable[Any]) -> bool:
    """Return whether an error, or one of its causes, was raised in code of one of these objects."""
    modules = {getattr(obj, "__module__", None) for obj in objects}
    return any(frame.f_globals.get("__name__") in modules for frame in frames_of(error))


def _load_from_directory(
    folder: Artefact,
    entries: Iterable[CheckpointEntry],
    wish: _Wish,
    which: str | int,
    limits: Limits,
) -> Any:
    models = [one for one in entries if directories.is_model(one)]
    chosen = directories.choose(models, which, folder.path)
    bad = directories.problems_of(models)
    exact = isinstance(which, int)
    for one in chosen:
        try:
            model = _load(tell(one.path, limits), wish, limits)
        except DamagedArtefactError as error:
            if exact:
                raise
            bad.append(f"{one.name}: {error.how}")
            continue
        if bad and not exact:
            warn(
                f"Loaded {one.name!r} from {folder.path!r}; skipped damaged files: "
                f"{'; '.join(bad)}. `kct.verify({folder.path!r})` reads every byte of each.",
                UserWarning,
                stacklevel=3,
            )
        return model
    if bad:
        raise DamagedArtefactError(
            f"No file of the directory can be loaded: {'; '.join(bad)}.",
            received=f"path={folder.path!r}",
            remedy="Restore one from a copy.",
            path=folder.path,
            how="; ".join(bad),
        )
    raise wrong_kind(folder)
