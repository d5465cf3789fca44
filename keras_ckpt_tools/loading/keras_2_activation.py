"""What Keras 2 computed, and Keras 3 computes otherwise under the same name: *build* -> model.

A model of Keras 2 with `"hard_sigmoid"` gets this function in its place, because one that answers
other numbers than it was trained to is worse than none. It stays in the model when that is saved
again.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def keras_2_hard_sigmoid(x: Any) -> Any:
    """Return `max(0, min(1, 0.2 * x + 0.5))`, the `hard_sigmoid` of Keras 2.

    >>> [float(y) for y in keras_2_hard_sigmoid(keras.ops.array([-3.0, 0.0, 1.0]))]
    [0.0, 0.5, 0.699999988079071]
    """
    return ops.clip(x * 0.2 + 0.5, 0.0, 1.0)


keras.saving.register_keras_serializable(package="keras_ckpt_tools")(keras_2_hard_sigmoid)
