"""Classes of TensorFlow, without importing it: an object of one is only where it is imported.

With another backend of Keras, TensorFlow takes hundreds of megabytes and seconds for nothing, and
may not be installed. What works with its objects imports it when it is called.
"""

from __future__ import annotations

import operator
import sys
from functools import cache
from typing import Any

from keras_ckpt_tools.errors import MissingPackageError


def tf_kinds(*names: str) -> Any:
    """Return a tuple of classes for `isinstance`; it is empty before TensorFlow is imported.

    Args:
        names: Names below `tensorflow`.

    >>> import tensorflow as tf
    >>> isinstance(tf.Variable(1), tf_kinds("Variable", "data.Dataset"))
    True
    """
    return _found(names) if sys.modules.get("tensorflow") is not None else ()


def needed_for(what: str, received: str) -> Any:
    """Return TensorFlow, imported.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise MissingPackageError(
            f"TensorFlow is needed for {what}, and it is not installed.",
            received=received,
            remedy="Install it with `pip install tensorflow`.",
            package="tensorflow",
        ) from error
    return tensorflow


@cache
def _found(names: tuple[str, ...]) -> tuple[type, ...]:
    import tensorflow  # Waits where another thread is importing it just now.

    return tuple(operator.attrgetter(name)(tensorflow) for name in names)
