"""Translate configs of Keras 2 models to Keras 3.

Keras 3 reads many configs of Keras 2, but gives some of them another meaning. So a config is
translated completely before it is checked: layers (`layers.py`), the graph (`graph.py`), and
compile arguments (`training.py`). Parts without a translation are not changed, and one error
reports all of them, with their position and a solution.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

from keras_ckpt_tools.formats.keras2.graph import translate_graph
from keras_ckpt_tools.formats.keras2.layers import translate_layer, translate_models_layers
from keras_ckpt_tools.formats.keras2.training import translate_compiled, translate_training

_MODELS = ("Functional", "Model", "Sequential")
_COMPILED = ("compile_config", "training_config", "optimizer_config")

Part = Literal["model", "compile"]


@dataclass(frozen=True)
class Untranslated:
    """Something in a config of Keras 2 for which Keras 3 has no words.

    Attributes:
        name: The layer, or the optimizer.
        what: What cannot be said about it.
        cure: What to do.
        part: `"model"`, or `"compile"` for what only training needs.
    """

    name: str
    what: str
    cure: str
    part: Part = "model"

    def __str__(self) -> str:
        return f"{self.name!r} {self.what}: {self.cure}"


def is_keras_2(version: object) -> bool:
    """Return whether a `keras_version` is one of Keras 2, or of Keras 1.

    >>> is_keras_2("2.15.0"), is_keras_2("3.10.0"), is_keras_2("2.2.4-tf")
    (True, False, True)
    """
    return isinstance(version, str) and version.startswith(("1.", "2."))


def in_words_of_keras_3(config: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a model's or an optimizer's config that Keras 3 understands.

    >>> lstm = {"class_name": "LSTM", "config": {"name": "a", "units": 2, "time_major": False}}
    >>> in_words_of_keras_3(lstm)["config"]
    {'name': 'a', 'units': 2}
    """
    return translate(config)[0]


def translate(
    config: dict[str, Any], part: Part = "model"
) -> tuple[dict[str, Any], tuple[Untranslated, ...]]:
    """Return a copy of a config in Keras 3's words, and what those do not say.

    Args:
        config: Of a model, or of what it was compiled with.
        part: Which of the two.
    """
    config = copy.deepcopy(config)
    found: list[Untranslated] = []
    todo: list[tuple[Any, Part]] = [(config, part)]
    while todo:
        value, of = todo.pop()
        if isinstance(value, list):
            todo.extend((item, of) for item in value)
        elif isinstance(value, dict):
            _object(value, of, found)
            for key, item in value.items():
                todo.append((item, "compile" if key in _COMPILED else of))
    # Layers are met from the last to the first.
    return config, tuple(dict.fromkeys(reversed(found)))


def _object(value: dict[str, Any], part: Part, found: list[Untranslated]) -> None:
    def complain(name: str, what: str, cure: str) -> None:
        found.append(Untranslated(name, what, cure, part))

    name, inner = value.get("class_name"), value.get("config")
    if part == "compile":
        translate_compiled(value)
        translate_training(value, complain)
        return
    compiled = value.get("compile_config")
    if isinstance(compiled, dict):
        # What was not said: Keras 3 has other defaults than `None`.
        value["compile_config"] = {k: v for k, v in compiled.items() if v is not None}
    if name == "Sequential" and isinstance(inner, list):
        value["config"] = inner = {"layers": inner}  # As Keras 1 and 2.0 wrote it.
    if isinstance(inner, dict) and isinstance(inner.get("layers"), list):
        _model(value, inner)
        if "input_layers" in inner:
            translate_graph(inner, complain)
        else:
            translate_models_layers(inner)
    translate_layer(value, complain)


def _model(value: dict[str, Any], inner: dict[str, Any]) -> None:
    """Say where a model's class is now; one of the user's stays as it is."""
    name, module = value.get("class_name"), value.get("module")
    if name not in _MODELS or (module is None and "registered_name" not in value):
        return
    value["module"] = "keras.models" if name != "Functional" else "keras.src.models.functional"
    value["registered_name"] = "Functional" if name == "Functional" else None
    if "input_layers" in inner:
        value.pop("build_config", None)
