"""Define Keras 2's `hard_sigmoid`, which Keras 3 computes differently under the same name.

A model of Keras 2 with `"hard_sigmoid"` gets this function, because Keras 3's would change its
outputs. The function stays in the model when the model is saved again.
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
