"""Store the training progress of a live model.

It is stored next to the model, not in an attribute, because Keras would walk, save and clone an
attribute with the model. The entry is deleted with the model.
"""

from __future__ import annotations

import weakref
from typing import Any

from keras_ckpt_tools.metadata import TrainingProgress

_progress: weakref.WeakKeyDictionary[Any, TrainingProgress] = weakref.WeakKeyDictionary()


def attach_progress(model: Any, progress: TrainingProgress) -> None:
    """Store the training progress of a model."""
    _progress[model] = progress


def attached_progress(model: Any) -> TrainingProgress | None:
    """Return the stored training progress of a model."""
    return _progress.get(model)
