"""Explain why the model of an intact file cannot be built.

The most common cause is a `get_config` that lacks an argument, and Keras' own message is a dump of
the config. The class and its config are found in the innermost `from_config` on the stack of the
error. The file is intact, so the error also names the ways to open it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from traceback import walk_tb
from types import FrameType
from typing import Any

import keras

from keras_ckpt_tools.errors import ConfigError
from keras_ckpt_tools.registry.rebuildable import config_method, init_parameters, keras_parameters

_MISSING = re.compile(r"\(\) missing \d+ required (?:positional|keyword-only) arguments?: (.*)")
_UNEXPECTED = re.compile(r"\(\) got an unexpected keyword argument '(\w+)'")
# Keras' own classes take `**kwargs` and refuse unknown arguments with these words.
_UNRECOGNIZED = re.compile(r"(?:Unrecognized keyword|not recognized)[^{]*\{(.*)\}", re.DOTALL)
_KEYS = re.compile(r"'(\w+)': ")
_NAMES = re.compile(r"'(\w+)'")
_LONGEST = 500


@dataclass(frozen=True)
class Cause:
    """Why Keras could not build something.

    Attributes:
        said: Keras' error, in one line.
        cls: The class that could not be built, or `None` if unknown.
        missing: Arguments of its constructor that the config lacks.
        surplus: Arguments in the config that the constructor does not take.
    """

    said: str
    cls: type | None = None
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()

    @property
    def of_keras(self) -> bool:
        """Whether the class is one of Keras' own."""
        return self.cls is not None and self.cls.__module__.partition(".")[0] == "keras"

    def __str__(self) -> str:
        if self.cls is None or not (self.missing or self.surplus):
            return self.said + ("" if self.cls is None else f" (in `{self.cls.__name__}`)")
        parts = []
        if self.missing:
            its = "the config in the file" if self.of_keras else "its get_config() did not save"
            lacks = f"{its} lacks" if self.of_keras else its
            parts.append(f"{lacks} {_listed(self.missing)}, which __init__ takes")
        if self.surplus:
            parts.append(f"its __init__ does not take {_listed(self.surplus)}")
        return f"`{self.cls.__name__}` cannot be built from its config: {', and '.join(parts)}"


def frames_of(error: BaseException) -> Iterator[FrameType]:
    """Return the frames of an error and of its causes, from the outermost call on."""
    found: BaseException | None = error
    while found is not None:
        for frame, _ in walk_tb(found.__traceback__):
            yield frame
        found = found.__cause__ or found.__context__


def cause_of(error: BaseException) -> Cause:
    """Find the cause of an error that Keras raised while it built from a config."""
    # Keras puts each error into the text of the next; the first one is the cause.
    text = str(error).rpartition("Exception encountered: ")[2].strip()
    said = f"{type(error).__name__}: {text.partition(chr(10))[0].rstrip('.')[:_LONGEST]}"
    cls, config = _built_last(error)
    if cls is None:
        return Cause(said)
    missing, surplus = _arguments(error, text, cls, config)
    return Cause(said, cls, missing, surplus)


def _built_last(error: BaseException) -> tuple[type | None, dict[str, Any]]:
    cls: type | None = None
    config: Any = None
    for frame in frames_of(error):
        seen = frame.f_locals
        if frame.f_code.co_name == "from_config" and isinstance(seen.get("cls"), type):
            cls, config = seen["cls"], seen.get("config")
    return cls, config if isinstance(config, dict) else {}


def _arguments(
    error: BaseException, text: str, cls: type, config: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the missing and the surplus arguments of a config; empty for any other error."""
    constructor = getattr(cls.__init__, "__qualname__", "")  # type: ignore[misc]
    here = f"{constructor}() " in text or cls.__name__ in text or "not recognized" in text
    lacking, unknown = _MISSING.search(text), _UNEXPECTED.search(text)
    refused = _UNRECOGNIZED.search(text)
    missing = _NAMES.findall(lacking[1]) if lacking and here else []
    surplus = [unknown[1]] if unknown and here else []
    surplus += _KEYS.findall(refused[1]) if refused and here else []
    key = _key_error(error)
    if key is not None and key not in config:
        missing.append(key)
    if not (missing or surplus):
        return (), ()
    # The error names the first one; the others are found in the signature.
    parameters = init_parameters(cls)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing += [p.name for p in named if p.default is p.empty and p.name not in config]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        surplus += [name for name in config if name not in {p.name for p in named}]
    surplus = [name for name in surplus if name in config]
    return tuple(dict.fromkeys(missing)), tuple(dict.fromkeys(surplus))


def _key_error(error: BaseException) -> str | None:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, KeyError) and found.args and isinstance(found.args[0], str):
            return found.args[0]
        found = found.__cause__ or found.__context__
    return None


def not_buildable(
    path: str, cause: Cause, version: str, *, compiled: bool, weights_only: bool = False
) -> ConfigError:
    """Return the error for a model that cannot be built from an intact file.

    Args:
        path: The file.
        cause: The cause.
        version: The Keras that wrote it; empty if unknown.
        compiled: Whether compiling the model failed.
        weights_only: Whether the file never has enough to build that class.
    """
    wrote = f"Keras {version} wrote it" if version else "the Keras that wrote it is unknown"
    ways = []
    if compiled:
        ways.append("Load it with `compile=False`, and call `model.compile(...)` yourself.")
    open_with = Cause(cause.said) if weights_only else cause
    ways += _ways_to_open(path, open_with, version, compiled=compiled)
    return ConfigError(
        f"Keras {keras.__version__} cannot build the model of the file: {cause}. The file is "
        f"intact; {wrote}.",
        received=f"path={path!r}",
        remedy=" ".join(ways),
        path=path,
        class_name="" if cause.cls is None else cause.cls.__name__,
        arguments=(*cause.missing, *cause.surplus),
    )


def _ways_to_open(path: str, cause: Cause, version: str, *, compiled: bool) -> list[str]:
    weights = f"build the model in code, and call `kct.load_weights(model, {path!r})`."
    cls = cause.cls
    if cls is None or cause.of_keras or not (cause.missing or cause.surplus):
        ways = [] if compiled else [f"{weights[0].upper()}{weights[1:]}"]
        if version not in ("", keras.__version__):
            ways.append(f"Install the Keras that wrote it: `pip install keras=={version}`.")
        return ways
    ways = ["To open this file,"]
    if cause.missing:
        filled = ", ".join(f'"{name}": ...' for name in cause.missing)
        ways.append(
            f"give {_listed(cause.missing)} a default in __init__ (the value of the saved model), "
            'or register the class with `@kct.register("my_package", version=2, '
            f"migrate=lambda config, from_version: {{**config, {filled}}})`"
        )
    if cause.surplus:
        ways.append(("; " if cause.missing else "") + _ways_around(cls, cause))
    text = " ".join(ways).replace(" ;", ";")
    text += "." if compiled else f"; or {weights}"
    if not cause.missing:
        return [text]
    return [text, f"So that the next file is complete, write in the class:\n\n{config_method(cls)}"]


def _ways_around(cls: type, cause: Cause) -> str:
    """Return the advice for arguments that a constructor does not take."""
    these = ", ".join(map(repr, cause.surplus))
    kept = f"{{k: v for k, v in config.items() if k not in ({these},)}}"
    dropped = (
        'register the class with `@kct.register("my_package", version=2, migrate=lambda config, '
        f"from_version: {kept})`, which drops {_listed(cause.surplus)}"
    )
    if any(p.kind is p.VAR_KEYWORD for p in init_parameters(cls)):
        # It already passes them on, to a class that does not take them.
        return f"let __init__ take {_listed(cause.surplus)}, or {dropped}"
    ways = "let __init__ take `**kwargs` and pass them to `super().__init__(**kwargs)`"
    known = keras_parameters(cls)
    others = tuple(name for name in cause.surplus if known and name not in known)
    if not others:
        return ways  # Keras' own base class returns and takes them.
    if len(others) < len(cause.surplus):
        take = f"let __init__ take {_listed(others)} and `**kwargs`"
        return f"{take}, and pass these to `super().__init__(**kwargs)`"
    return f"let __init__ take {_listed(cause.surplus)}, or {dropped}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
