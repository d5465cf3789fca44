"""The progress that a live model carries: load -> *model* -> train.

Kept beside the model, not on it: an attribute would be walked, saved and cloned with the model,
and `model._ckpt_saved_epoch` has taught people what comes of that. The entry goes with the model.
"""

from __future__ import annotations

import weakref
from typing import Any

from keras_ckpt_tools.metadata import TrainingProgress

_progress: weakref.WeakKeyDictionary[Any, TrainingProgress] = weakref.WeakKeyDictionary()


def attach_progress(model: Any, progress: TrainingProgress) -> None:
    """Remember where a model's training is."""
    _progress[model] = progress


def attached_progress(model: Any) -> TrainingProgress | None:
    """Return where a model's training is, as far as it was remembered."""
    return _progress.get(model)
