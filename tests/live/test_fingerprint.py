"""No attribute of any of Keras' objects can change a config without the fingerprint noticing it.

Which attributes a fingerprint leaves out is a list of names, which could be wrong in the next
version of Keras. So every attribute of an object of every class is changed here, as deep as objects
refer to each other, and Keras is asked whether its config is another one.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras_catalogue
import layer_cases
import numpy as np
import pytest

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.live.model_config import fingerprint

_DEEP = 4
# Otherwise each attribute is changed in one of the ways that there are, by chance.
_ALL_WAYS = bool(os.environ.get("KCT_TORTURE"))

Place = tuple[str, Any, Any]
"""A name for people, and an object with the name of an attribute, or a list or dict with a key."""


def _relu(x: Any) -> Any:
    return x


def others(value: Any) -> Iterator[Any]:
    """Yield values that an attribute may have instead."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (value + 1, -1.5)
    elif isinstance(value, str):
        yield from (value + "x", "same")
    elif value is None:
        yield from (0.5, "tanh", (1, 2), keras.regularizers.L2(0.3))
    elif isinstance(value, tuple):
        yield from ((*value, 1), value[:-1], value[::-1], list(value))
    elif isinstance(value, list):
        yield from ([*value, 1], value[:-1])
    elif isinstance(value, dict):
        yield from ({**value, "more": 1}, {})
    elif isinstance(value, keras.DTypePolicy):
        yield keras.DTypePolicy("mixed_bfloat16")
    elif isinstance(value, keras.initializers.Initializer):
        yield from (keras.initializers.Constant(3.0), None)
    elif isinstance(value, keras.regularizers.Regularizer):
        yield from (keras.regularizers.L1(0.7), None)
    elif isinstance(value, np.ndarray):
        yield value + 1
    elif callable(value):
        yield from (keras.activations.gelu, _relu)


def places(holder: Any, name: str = "", above: frozenset[int] = frozenset()) -> Iterator[Place]:
    """Yield every place below an object in which something stands that may be changed."""
    if id(holder) in above or len(above) >= _DEEP:
        return
    if isinstance(holder, dict):
        items = list(holder.items())
    elif isinstance(holder, list):
        items = list(enumerate(holder))
    elif type(holder).__name__ in ("Node", "KerasTensor"):
        return  # What a graph is made of is replaced, and never changed.
    elif type(holder).__module__.startswith("keras."):
        items = list(vars(holder).items()) if hasattr(holder, "__dict__") else []
    else:
        return
    for key, value in items:
        yield f"{name}.{key}", holder, key
        if not isinstance(value, keras.Variable):
            yield from places(value, f"{name}.{key}", above | {id(holder)})


def put(holder: Any, key: Any, value: Any) -> None:
    """Let something else stand in a place, past whatever the object thinks of it."""
    kind = next((one for one in (list, dict) if isinstance(holder, one)), None)
    if kind is None:
        vars(holder)[key] = value
    elif type(holder).__module__.startswith("keras."):
        kind.__setitem__(holder, key, value)
    else:
        holder[key] = value


def missed(around: Any, root: Any, config_of: Callable[[], Any]) -> list[str]:
    """Change whatever is in an object; return what changes the config unnoticed.

    Args:
        around: What has the fingerprint.
        root: The object.
        config_of: Makes the config.
    """
    found = []
    random = np.random.default_rng(5)
    config, before = config_of(), fingerprint(around)
    assert before is not None
    assert before == fingerprint(around)
    for name, holder, key in list(places(root)):
        value = (holder if isinstance(holder, (dict, list)) else vars(holder))[key]
        ways = list(others(value))
        if ways and not _ALL_WAYS:
            ways = [ways[random.integers(len(ways))]]
        for other in ways:
            put(holder, key, other)
            try:
                if config_of() != config and fingerprint(around) == before:
                    found.append(f"{name} = {other!r}")
            except Exception:  # noqa: BLE001 (such an object cannot be saved at all)
                pass
            put(holder, key, value)
    assert before == fingerprint(around), "it was not put back"
    return found


class _Alone:
    """What a fingerprint is taken of, around one layer."""

    optimizer = None

    def __init__(self, layer: keras.layers.Layer):
        self._layer = layer

    def _flatten_layers(self) -> list[keras.layers.Layer]:
        return list(self._layer._flatten_layers())


@pytest.mark.parametrize("name", keras_catalogue.classes()["layers"])
def test_every_attribute_of_every_layer_counts(name: str) -> None:
    """Built or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = keras_catalogue.make(keras_catalogue.classes()["layers"][name])
        config_of = functools.partial(keras.saving.serialize_keras_object, layer)
        assert missed(_Alone(layer), layer, config_of) == []
        if name in layer_cases.layer_classes():
            layer = layer_cases.built(name)[0].layer
            config_of = functools.partial(keras.saving.serialize_keras_object, layer)
            assert missed(_Alone(layer), layer, config_of) == []


def _config_of(model: keras.Model) -> Callable[[], Any]:
    return lambda: internals.serialize_model_as_json(model)[0]


def _compiled(**how: Any) -> keras.Model:
    dense = keras.layers.Dense(2, kernel_initializer="zeros", name="dense")
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


@pytest.mark.parametrize(
    ("group", "name"),
    [(g, n) for g in ("losses", "metrics", "optimizers") for n in keras_catalogue.classes()[g]],
)
def test_every_attribute_of_what_a_model_is_compiled_with_counts(group: str, name: str) -> None:
    """Losses, metrics and optimizers are in the config, with what they were made with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = keras_catalogue.make(keras_catalogue.classes()[group][name])
        how = {"losses": {"loss": one}, "metrics": {"metrics": [one]}}
        model = _compiled(**how.get(group, {"optimizer": one}))
        assert missed(model, one, _config_of(model)) == []


@pytest.mark.parametrize(
    ("group", "argument"),
    [
        ("initializers", "kernel_initializer"),
        ("regularizers", "kernel_regularizer"),
        ("constraints", "kernel_constraint"),
    ],
)
def test_every_attribute_of_what_a_layer_is_made_with_counts(group: str, argument: str) -> None:
    """Whichever class it is of."""
    for kind in keras_catalogue.classes()[group].values():
        layer = keras.layers.Dense(2, **{argument: keras_catalogue.make(kind)})
        config_of = functools.partial(keras.saving.serialize_keras_object, layer)
        assert missed(_Alone(layer), layer, config_of) == [], kind


def test_every_attribute_of_a_schedule_and_of_models_counts() -> None:
    """A functional model, one in another, and the learning rate's schedule."""
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)], name="inner")
    inputs = keras.Input((3,))
    # An operation that is no layer has settings as well.
    rolled = keras.ops.roll(inner(inputs), 1, axis=1)
    model = keras.Model(inputs, keras.layers.Dense(1, "relu")(rolled))
    for kind in keras_catalogue.classes()["schedules"].values():
        model.compile(keras.optimizers.Adam(keras_catalogue.make(kind)), {"dense": "mse"})
        assert missed(model, model.optimizer, _config_of(model)) == [], kind
    assert missed(model, model, _config_of(model)) == []
