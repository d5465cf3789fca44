"""JSON that is too deep, too large, ambiguous, or not JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hostile.parts import (
    archive,
    as_text,
    dense,
    h5_model,
    hostile,
    members,
    sequential,
    written,
    zipped,
)

_NOT = "JSON|damaged|config"


# What these say is JSON as Python writes it, and makes no sense to a layer.
_AT_LOAD = ("nan", "infinity", "huge-exponent", "surrogates", "no-class", "config-is-a-string")


def _config(name: str, says: str, what: str, text: bytes | str) -> None:
    data = text if isinstance(text, bytes) else text.encode()

    def make(folder: Path) -> Path:
        return archive(folder, data)

    hostile("json", says, inspected=name not in _AT_LOAD, name=name, what=what)(make)


def _nested(levels: int) -> bytes:
    """Return a model within a model within a model."""
    head = b'{"module":"keras","class_name":"Sequential","config":{"name":"a","layers":['
    return head * levels + b"]}}" * levels


_PLAIN = as_text(sequential())
_TWO = '{"class_name": "Scale", "module": "kct_hostile_payload", '
for _name, _says, _what, _text in (
    ("deep-lists", "deep|nested", "Lists nested 100,000 deep.", b"[" * 100000 + b"]" * 100000),
    (
        "deep-objects",
        "deep|nested",
        "Objects nested 50,000 deep, within a config that is otherwise good.",
        _PLAIN[:-1] + ', "x": ' + '{"a":' * 50000 + "1" + "}" * 50000 + "}",
    ),
    ("deep-models", "deep|nested", "Models nested 400 deep.", _nested(400)),
    (
        "wide",
        "large|nodes|values|too many|bytes",
        "A list of five million numbers.",
        _PLAIN[:-1] + ', "x": [' + "0," * 5_000_000 + "0]}",
    ),
    (
        "two-keys",
        "twice|duplicate|more than once",
        "The class is named twice: what is checked is not what counts.",
        _TWO + _PLAIN[1:],
    ),
    (
        "many-keys-one-twice",
        "twice|duplicate|more than once",
        "An object of 300,000 keys of which the last is there twice.",
        _PLAIN[:-1] + "".join(f', "k{i}": 0' for i in range(300_000)) + ', "k299999": 0}',
    ),
    (
        "two-layer-lists",
        "twice|duplicate|more than once",
        "The layers are listed twice.",
        _PLAIN.replace('"layers": [', '"layers": [], "layers": ['),
    ),
    ("nan", "NaN|nan|units", "NaN units.", _PLAIN.replace('"units": 2', '"units": NaN')),
    (
        "infinity",
        "Infinity|inf|units",
        "Infinite units.",
        as_text(sequential(dense(float("inf")))),
    ),
    (
        "huge-integer",
        "digits|integer|large|JSON",
        "An integer of a million digits.",
        _PLAIN.replace('"units": 2', '"units": 1' + "0" * 1_000_000),
    ),
    (
        "huge-exponent",
        "finite|inf|JSON|units",
        "A number that becomes infinite.",
        _PLAIN.replace('"units": 2', '"units": 1e999'),
    ),
    (
        "surrogates",
        "surrogate|UTF-8|text|JSON|name|build",
        "Half a surrogate pair as a layer's name.",
        _PLAIN.replace('"name": "dense"', '"name": "\\ud800"'),
    ),
    ("latin-1", "UTF-8|JSON", "Not UTF-8.", _PLAIN.replace("net", "n\u00e4t").encode("latin-1")),
    ("utf-16", "UTF-8|JSON", "UTF-16.", _PLAIN.encode("utf-16")),
    ("truncated", "JSON", "The first half of a config.", _PLAIN[: len(_PLAIN) // 2]),
    ("empty", "JSON", "An empty config.", b" "),
    ("list", "JSON object|not a", "A list in place of an object.", b"[1, 2]"),
    ("number", "JSON object|not a", "A number in place of an object.", b"7"),
    ("pickle-inside", "JSON|UTF-8", "A pickle in place of the config.", b"\x80\x04\x95."),
    ("no-class", "class_name|model|config|build", "An object that names no class.", b'{"a": 1}'),
    (
        "class-is-a-list",
        "class_name|model|config",
        "A class name that is a list.",
        as_text({**sequential(), "class_name": ["Sequential"]}),
    ),
    (
        "config-is-a-string",
        "config|model|build",
        "A config that is a string.",
        as_text({**sequential(), "config": "net"}),
    ),
):
    _config(_name, _says, _what, _text)


@hostile("json", "metadata|JSON")
def metadata_is_no_json(folder: Path) -> Path:
    """Metadata that is not JSON."""
    return written(folder / "model.keras", zipped({**members(), "metadata.json": b"\xff\xfe{{{"}))


@hostile("json", "deep|nested|metadata")
def deep_metadata(folder: Path) -> Path:
    """Metadata nested 100,000 deep."""
    deep = b'{"a":' * 100000 + b"1" + b"}" * 100000
    return written(folder / "model.keras", zipped({**members(), "metadata.json": deep}))


@hostile("json", "deep|nested|JSON")
def deep_in_h5(folder: Path) -> Path:
    """The config of an `.h5` file nested 100,000 deep."""
    return written(folder / "model.h5", h5_model("[" * 100000 + "]" * 100000))


@hostile("json", "twice|duplicate|more than once|JSON")
def two_keys_in_h5(folder: Path) -> Path:
    """The same key twice in the config of an `.h5` file."""
    config: Any = json.dumps({"class_name": "Sequential", "config": {"layers": []}})
    text = config.replace('{"layers"', '{"layers": [], "layers"')
    return written(folder / "model.h5", h5_model(text))


@hostile("json", "JSON|damaged|layer|config", inspected=False)
def number_as_config_of_h5(folder: Path) -> Path:
    """An `.h5` file whose config is a number."""
    return written(folder / "model.h5", h5_model(edit=_with_number))


def _with_number(file: Any) -> None:
    file.attrs["model_config"] = 7
