"""Data that can be replayed: from any batch of any epoch, the same in every process.

Put arrays into an `ArrayDataset`, and a tf.data pipeline into `resumable`. Both have
`start(epoch, batch)`, which is all that a resumed run needs (`positions.Positioned`).
`docs/data.md` describes the other kinds of input of `fit()`.

Example:

>>> import numpy as np
>>> import keras_ckpt_tools as kct
>>> dataset = kct.data.ArrayDataset(np.arange(6), batch_size=2, shuffle=True, seed=7)
>>> dataset.start(epoch=3, batch=1)
>>> resumed = [batch.tolist() for batch in dataset]
>>> dataset.start(epoch=3)
>>> resumed == [batch.tolist() for batch in dataset][1:]
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_ckpt_tools.data.array_dataset import ArrayDataset
    from keras_ckpt_tools.data.resumable_dataset import resumable

__all__ = ["ArrayDataset", "resumable"]

# Both names bring Keras or TensorFlow in, so each is loaded when it is first used.
_HOMES = {"ArrayDataset": "array_dataset", "resumable": "resumable_dataset"}


def _load(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # Type checkers take a module that has this for one that has every name.
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted(__all__)
