"""Test for classes of TensorFlow without importing TensorFlow.

With another backend, importing TensorFlow would take hundreds of megabytes and seconds, and it may
not be installed. An object of one of its classes exists only if it is already imported. Functions
that work with such objects import it when they are called.
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
            f"TensorFlow is needed for {what}, but it is not installed.",
            received=received,
            remedy="Install it with `pip install tensorflow`.",
            package="tensorflow",
        ) from error
    return tensorflow


@cache
def _found(names: tuple[str, ...]) -> tuple[type, ...]:
    import tensorflow  # Waits where another thread is importing it just now.

    return tuple(operator.attrgetter(name)(tensorflow) for name in names)
