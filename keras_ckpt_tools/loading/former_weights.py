"""The weights of a file as the classes here have them now: source -> *migrate* -> fill.

For one model, by the record of its file and by the registry; `formats.migrated` does the work.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from keras_ckpt_tools.formats.comparison import OPTIMIZER_GROUP
from keras_ckpt_tools.formats.migrated import begun_anew, classes_in, with_migrated_weights
from keras_ckpt_tools.formats.report import RestoreReport
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.metadata import BUILT_ON, Record
from keras_ckpt_tools.registry import Registry
from keras_ckpt_tools.registry import registry as default_registry
from keras_ckpt_tools.registry.formers import Former, formers_of

__all__ = ["as_they_are_now", "former_optimizer", "warn_of_lost_state", "with_lost_state"]


def as_they_are_now(
    weights: TensorSource,
    record: Record | None,
    model: Any,
    registry: Registry | None = None,
    *,
    group: str | None = None,
) -> TensorSource:
    """Return the weights of a model, migrated where its classes have changed.

    Args:
        weights: The tensors of the model, under the paths that Keras gives them.
        record: The record of the file, where it has one.
        model: The model, built; its optimizer, too, if the file has its state.
        registry: Where the classes are registered. Default: the registry of `@kct.register`.
        group: The group that the model has in the file, or `None` where it is at the root.
    """
    formers = _formers(record, model, registry)
    if not formers:
        return weights
    built_on = _built_on(record, group)
    known = {} if built_on is None else {OPTIMIZER_GROUP: built_on}
    return with_migrated_weights(weights, {"": model}, formers, known)


def _formers(record: Record | None, model: Any, registry: Registry | None) -> list[Former]:
    used = default_registry if registry is None else registry
    return formers_of(used, classes_in(model), record.objects if record is not None else ())


def _built_on(record: Record | None, group: str | None) -> list[str] | None:
    if record is None:
        return None
    if group is None:
        paths = record.state.get(BUILT_ON)
        good = isinstance(paths, list) and all(isinstance(path, str) for path in paths)
        return paths if good else None
    named = _trained_on(record, group)
    return [p.removeprefix(f"{group}/") for p in named[0][1]] if len(named) == 1 else None


def _trained_on(record: Record, group: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the tracked optimizers that were built on variables of one object and no other."""
    return [
        (name, one.built_on)
        for name, one in record.tracked.items()
        if one.kind == "optimizer"
        and one.built_on
        and all(path.startswith(f"{group}/") for path in one.built_on)
    ]


def former_optimizer(record: Record, group: str, model: Any) -> str | None:
    """Return the tracked optimizer of a model of which some classes have other weights now."""
    if not any(former.migrate or former.renamed for former in _formers(record, model, None)):
        return None
    named = _trained_on(record, group)
    return named[0][0] if len(named) == 1 else None


def with_lost_state(report: RestoreReport, weights: TensorSource) -> RestoreReport:
    """Return the report with optimizer state that began anew set apart."""
    anew = set(begun_anew(weights))
    if not anew:
        return report
    return dataclasses.replace(
        report,
        matched=tuple(path for path in report.matched if path not in anew),
        skipped_optimizer=report.skipped_optimizer + begun_anew(weights),
    )


def warn_of_lost_state(weights: TensorSource) -> None:
    """Say which state of an optimizer begins anew, where no report says so."""
    anew = begun_anew(weights)
    if anew:
        warnings.warn(
            f"{weights.path!r}: the weights that `migrate_weights` made or changed begin without "
            f"optimizer state: {', '.join(anew[:10])}{' ...' if len(anew) > 10 else ''}.",
            UserWarning,
            stacklevel=3,
        )
