"""Refuse classes that could be saved, but not rebuilt.

Keras loads an object with `cls(**config)`, where `config` is what `get_config` returned. If the two
do not fit, this is noticed only when loading, often after a long training. So this is checked when
a class is decorated:

* There is no `get_config`, or only the one of `Regularizer` or `LearningRateSchedule`, which
  raises; or there is no `from_config`.
* `get_config` is inherited from Keras, and `__init__` takes other arguments: they would be lost
  (without an error if they have defaults).
* `get_config` is inherited from Keras, and returns arguments that `__init__` does not accept: a
  layer whose `__init__` takes neither `trainable` and `dtype` nor `**kwargs` cannot be built from
  its config in any Keras 3.

Uncertain cases are allowed. A layer without `get_config` has an automatic one, which works for
arguments of plain types. For models it does not work (Keras 3.10 drops the arguments, 3.15 records
the defaults), so the second rule applies to models. A `get_config` or `from_config` of the user is
not checked here; `check_serializable` tests it with an object.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import NotSerializableError

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

# What `get_config` returns for certain, by Keras base class. Tested against Keras 3.10 and 3.15.
_ALWAYS_RETURNED = (
    ("keras.Layer", frozenset({"name"})),
    ("keras.losses.Loss", frozenset({"name", "reduction"})),
    ("keras.metrics.Metric", frozenset({"name", "dtype"})),
    ("keras.optimizers.Optimizer", frozenset({"name", "learning_rate"})),
)
_RAISING = ("keras.regularizers.Regularizer", "keras.optimizers.schedules.LearningRateSchedule")


@dataclass(frozen=True)
class _Fault:
    what: str
    lost: tuple[str, ...]
    method: str
    advice: str = ""


def require_rebuildable(cls: type, name: str, place: str) -> None:
    """Refuse a class whose saved config can never build it again.

    Raises:
        NotSerializableError: With the method to write, ready to paste.
    """
    fault = _fault(cls)
    if fault is None:
        return
    raise NotSerializableError(
        f"{name!r} could be saved, but not rebuilt: {fault.what}.",
        received=f"class {cls.__qualname__} at {place}",
        remedy=f"{fault.advice}Write this in the class, and keep each argument as an attribute of "
        f"its name:\n\n{fault.method}",
        name=name,
        lost=fault.lost,
    )


def _fault(cls: type) -> _Fault | None:
    config_owner = _owner(cls, "get_config")
    if config_owner is None:
        return _Fault("it has no get_config()", _names(cls), config_method(cls))
    if _owner(cls, "from_config") is None:
        return _Fault("it has no from_config()", (), _FROM_CONFIG)
    if not _of_keras(config_owner):
        return None
    if config_owner in map(_keras, _RAISING):
        what = f"{config_owner.__name__}.get_config() always raises"
        return _Fault(what, _names(cls), config_method(cls))
    init_owner = _owner(cls, "__init__")
    from_owner = _owner(cls, "from_config")
    if init_owner is None or _of_keras(init_owner) or not _of_keras(from_owner):
        return None
    return _arguments_fault(cls, config_owner)


def _arguments_fault(cls: type, config_owner: type) -> _Fault | None:
    parameters = init_parameters(cls)
    own = tuple(name for name in _names(cls) if name not in keras_parameters(cls))
    automatic = has_automatic_config(cls)
    model = _subclass(cls, "keras.Model")
    if model and [p.name for p in parameters] == ["inputs", "outputs", "name"]:
        return None  # Keras rebuilds it as the functional model that it is.
    by_position = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
    if by_position:
        what = f"its __init__ takes {_listed(by_position)} by position only"
        return _Fault(what, by_position, config_method(cls), "Remove the `/` from __init__. ")
    source = f"the get_config() of {_public(config_owner)}"
    if own and (model or not automatic):
        what = f"its __init__ takes {_listed(own)}, which {source} does not return"
        return _Fault(what, own, config_method(cls))
    if _takes_any(parameters):
        return None
    unwanted = sorted(_certain(cls, config_owner, automatic) - set(_names(cls)))
    if not unwanted:
        return None
    what = f"{source} returns {_listed(unwanted)}, which its __init__ does not take"
    advice = "Let __init__ take **kwargs and pass them to super().__init__(**kwargs)"
    optimizer = _subclass(cls, "keras.optimizers.Optimizer")
    advice += ". " if optimizer else ", or leave __init__ as it is. "
    return _Fault(what, own, config_method(cls), advice)


def _certain(cls: type, config_owner: type, automatic: bool) -> set[str]:
    """Return keys that the inherited `get_config` returns for every object of the class."""
    if automatic:
        # `name` is left out by Keras where it is not wanted; these two never are.
        return {"trainable", "dtype"} if _subclass(cls, "keras.Layer") else set()
    certain = {key for base, keys in _ALWAYS_RETURNED if _subclass(cls, base) for key in keys}
    if config_owner is not _keras("keras.Sequential"):
        required = inspect.signature(config_owner).parameters.values()
        certain |= {p.name for p in required if p.kind in _NAMED and p.default is p.empty}
    return certain


_FROM_CONFIG = """    @classmethod
    def from_config(cls, config):
        return cls(**config)
"""


def config_method(cls: type) -> str:
    """Return the source of a `get_config` for the class, indented for its body.

    >>> class Scale:
    ...     def __init__(self, factor, offset=0.0): ...
    >>> print(config_method(Scale))
        def get_config(self):
            return {"factor": self.factor, "offset": self.offset}
    <BLANKLINE>
        @classmethod
        def from_config(cls, config):
            return cls(**config)
    <BLANKLINE>
    """
    names = _names(cls)
    sequential = _subclass(cls, "keras.Sequential")
    if sequential and _takes_any(init_parameters(cls)) and "name" not in names:
        # Its own from_config would add the layers a second time.
        names = ("name", *names)
    inherited = _owner(cls, "get_config")
    usable = inherited is not None and inherited not in map(_keras, _RAISING) and not sequential
    extends = usable and (
        _takes_any(init_parameters(cls)) or _subclass(cls, "keras.optimizers.Optimizer")
    )
    lines = ["    def get_config(self):"]
    if extends:
        own = [name for name in names if name not in keras_parameters(cls)]
        lines += ["        config = super().get_config()"]
        if own:
            lines += [f"        config.update({_dict_of(own)})"]
        lines += ["        return config"]
    else:
        lines += [f"        return {_dict_of(names)}"]
    if sequential or _owner(cls, "from_config") is None:
        signature = "cls, config, custom_objects=None" if sequential else "cls, config"
        lines += ["", _FROM_CONFIG.replace("cls, config", signature, 1).rstrip()]
    return "\n".join(lines) + "\n"


def init_parameters(cls: type) -> list[inspect.Parameter]:
    """Return the parameters of `__init__` behind `self`; none where they cannot be told."""
    if _owner(cls, "__init__") is None:
        return []
    try:
        return list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    except (TypeError, ValueError):
        return []


def has_automatic_config(cls: type) -> bool:
    """Return whether Keras makes the config out of the arguments that an object was made with."""
    return _owner(cls, "get_config") in (_keras("keras.Layer"), _keras("keras.Operation"))


def keras_parameters(cls: type) -> set[str]:
    """Return the names that Keras' own base classes take in `__init__`."""
    return {
        parameter.name
        for base in cls.__mro__
        if _of_keras(base) and "__init__" in vars(base)
        for parameter in init_parameters(base)
        if parameter.kind in _NAMED
    }


def _names(cls: type) -> tuple[str, ...]:
    kinds = (*_NAMED, inspect.Parameter.POSITIONAL_ONLY)
    return tuple(p.name for p in init_parameters(cls) if p.kind in kinds)


def _takes_any(parameters: list[inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def _owner(cls: type, method: str) -> type | None:
    owner = next((base for base in cls.__mro__ if method in vars(base)), None)
    return None if owner is object else owner


def _of_keras(cls: type | None) -> bool:
    return cls is not None and cls.__module__.partition(".")[0] == "keras"


def _keras(path: str) -> Any:
    """Return the public Keras object, or `None` where Keras was never imported.

    A class that derives from one of Keras' has imported it.
    """
    found: Any = sys.modules.get("keras")
    for part in path.split(".")[1:]:
        found = getattr(found, part, None)
    return found


def _subclass(cls: type, path: str) -> bool:
    base = _keras(path)
    return isinstance(base, type) and issubclass(cls, base)


def _public(cls: type) -> str:
    paths = ("keras", "keras.layers", "keras.losses", "keras.metrics", "keras.optimizers")
    for path in paths:
        if _keras(f"{path}.{cls.__name__}") is cls:
            return f"{path}.{cls.__name__}"
    return f"Keras' {cls.__name__}"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _dict_of(names: tuple[str, ...] | list[str]) -> str:
    return "{" + ", ".join(f'"{name}": self.{name}' for name in names) + "}"
