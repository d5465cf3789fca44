"""Handle subclasses that override private hooks of Keras' callbacks.

`ModelCheckpoint` and `BackupAndRestore` of Keras have private methods that programs override to
change their behavior. The callbacks of this package call those that still apply. An override of
another hook would never be called, so such a class raises an error when it is defined.
"""

from __future__ import annotations

from collections.abc import Iterable

from keras_ckpt_tools.errors import ArgumentError

__all__ = ["overrides", "refuse_hooks"]


def overrides(instance: object, base: type, name: str) -> bool:
    """Return whether the class of an object overrides what a base class has under a name."""
    return getattr(type(instance), name, None) is not getattr(base, name, None)


def refuse_hooks(cls: type, base: type, names: Iterable[str]) -> None:
    """Raise an error if a class overrides hooks that are not called.

    Args:
        cls: The new class.
        base: The callback of this package that it is derived from.
        names: The hooks of Keras that this callback does not call.

    Raises:
        ArgumentError: it overrides some of them; all are listed.
    """
    wrong = [name for name in names if getattr(cls, name, None) is not getattr(base, name, None)]
    if wrong:
        raise ArgumentError(
            f"`{cls.__name__}` overrides what `{base.__name__}` of this package never calls: "
            f"{', '.join(wrong)}.",
            received=f"class {cls.__name__}",
            remedy="Override `on_train_begin` and call `super()` in it, or derive the class from "
            "Keras' own callback.",
        )
