"""A run's checkpoint with weights as the classes here have them: source -> *migrate* -> resume.

For all tracked objects at once: an optimizer that is tracked beside its model has to follow it.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.formats.migrated import begun_anew, classes_in, with_migrated_weights
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.metadata import Record, TrackedObject
from keras_ckpt_tools.registry import registry
from keras_ckpt_tools.registry.formers import Former, formers_of
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.tracked import Adapter, KerasAdapter

__all__ = ["as_they_are_now", "build_on_changed"]


def as_they_are_now(
    source: TensorSource, adapters: Sequence[Adapter], record: Record
) -> TensorSource:
    """Return a checkpoint with the weights of changed classes as these have them now.

    Args:
        source: The checkpoint.
        adapters: What is tracked, built.
        record: The checkpoint's record.
    """
    formers = _formers(adapters, record)
    if not formers:
        return source
    tracked = {a.name: a.target for a in adapters if isinstance(a, KerasAdapter)}
    now = with_migrated_weights(source, tracked, formers)
    if anew := begun_anew(now):
        warn(
            f"{source.path!r}: the weights that `migrate_weights` made or changed begin without "
            f"optimizer state: {', '.join(anew[:10])}{' ...' if len(anew) > 10 else ''}.",
            UserWarning,
            stacklevel=6,
        )
    return now


def _formers(adapters: Sequence[Adapter], record: Record) -> list[Former]:
    targets = [a.target for a in adapters if isinstance(a.target, internals.KerasSaveable)]
    return formers_of(registry, classes_in(*targets), record.objects)


def build_on_changed(
    adapter: Adapter, described: TrackedObject, adapters: Sequence[Adapter], record: Record
) -> None:
    """Build an optimizer on the model that it was built on, where that has other weights now."""
    optimizer = adapter.target
    if not isinstance(optimizer, keras.optimizers.Optimizer) or optimizer.built:
        return
    for other in adapters:
        model, prefix = other.target, f"{other.name}/"
        if (
            described.built_on
            and all(path.startswith(prefix) for path in described.built_on)
            and isinstance(model, keras.layers.Layer)
            and any(former.migrate for former in _formers([other], record))
        ):
            optimizer.build(model.trainable_variables)
            return
