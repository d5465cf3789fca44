"""The weights of a file as the classes here have them now: source -> *migrate* -> fill.

By the record of the file and by the registry; `formats.migrated` does the work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.live.migration import begun_anew, classes_in, with_migrated_weights
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.registry import Registry
from keras_ckpt_tools.registry import registry as default_registry
from keras_ckpt_tools.registry.older_versions import Former, formers_of
from keras_ckpt_tools.showing.messages import warn

__all__ = ["as_they_are_now", "has_migrated", "warn_of_lost_state", "with_lost_state"]


def as_they_are_now(
    weights: TensorSource,
    record: Record | None,
    saveables: Mapping[str, Any],
    registry: Registry | None = None,
) -> TensorSource:
    """Return the weights of objects, migrated where their classes have changed.

    Args:
        weights: The tensors, under the paths that Keras gives them.
        record: The record of the file, where it has one.
        saveables: The objects, built, by the group that each has in the source; `""` for the one
            that is at the root. An optimizer, too, if the file has its state.
        registry: Where the classes are registered. Default: the registry of `@kct.register`.
    """
    return with_migrated_weights(weights, saveables, _formers(saveables.values(), record, registry))


def _formers(
    saveables: Iterable[Any], record: Record | None, registry: Registry | None = None
) -> list[Former]:
    used = default_registry if registry is None else registry
    return formers_of(used, classes_in(*saveables), record.objects if record is not None else ())


def has_migrated(model: Any, record: Record | None) -> bool:
    """Return whether classes in a model have other weights than when a file was saved."""
    return any(former.migrate for former in _formers([model], record))


def with_lost_state(report: RestoreReport, weights: TensorSource) -> RestoreReport:
    """Return the report with optimizer state that began anew set apart."""
    anew = set(begun_anew(weights))
    lost = tuple(path for path in report.matched if path in anew)
    if not lost:
        return report
    return dataclasses.replace(
        report,
        matched=tuple(path for path in report.matched if path not in anew),
        skipped_optimizer=report.skipped_optimizer + lost,
    )


def warn_of_lost_state(weights: TensorSource) -> None:
    """Say which state of an optimizer begins anew, where no report says so."""
    anew = begun_anew(weights)
    if anew:
        warn(
            f"{weights.path!r}: the weights that `migrate_weights` made or changed begin without "
            f"optimizer state: {', '.join(anew[:10])}{' ...' if len(anew) > 10 else ''}.",
            UserWarning,
            stacklevel=3,
        )
