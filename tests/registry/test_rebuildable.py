"""Which classes are refused when they are decorated; Keras itself is the judge."""

from __future__ import annotations

import textwrap

import keras
import pytest

from keras_ckpt_tools.errors import NotSerializableError
from keras_ckpt_tools.registry import check_serializable
from keras_ckpt_tools.registry.rebuildable import config_method

# Body of the class (its base, its source) and the arguments to make one object with.
REFUSED = {
    "a layer that takes neither kwargs nor what Keras passes": (
        "keras.layers.Layer",
        "def __init__(self, units):\n    super().__init__()\n    self.units = units",
        {"units": 3},
    ),
    "a layer without arguments": (
        "keras.layers.Layer",
        "def __init__(self):\n    super().__init__()",
        {},
    ),
    "a dense layer with an argument of its own": (
        "keras.layers.Dense",
        "def __init__(self, units, scale=2.0, **kwargs):\n"
        "    super().__init__(units, **kwargs)\n    self.scale = scale",
        {"units": 3, "scale": 4.0},
    ),
    "a model with an argument": (
        "keras.Model",
        "def __init__(self, depth=2, **kwargs):\n"
        "    super().__init__(**kwargs)\n    self.depth = depth",
        {"depth": 3},
    ),
    "a model without kwargs": ("keras.Model", "def __init__(self):\n    super().__init__()", {}),
    "a functional model with an argument": (
        "keras.Model",
        "def __init__(self, units, **kwargs):\n    x = keras.Input((2,))\n"
        "    super().__init__(x, keras.layers.Dense(units)(x), **kwargs)\n    self.units = units",
        {"units": 3},
    ),
    "a sequential model with an argument": (
        "keras.Sequential",
        "def __init__(self, units, **kwargs):\n"
        "    super().__init__([keras.layers.Dense(units)], **kwargs)\n    self.units = units",
        {"units": 3},
    ),
    "a loss with an argument": (
        "keras.losses.Loss",
        "def __init__(self, delta=1.0, **kwargs):\n"
        "    super().__init__(**kwargs)\n    self.delta = delta",
        {"delta": 3.0},
    ),
    "a loss without kwargs": (
        "keras.losses.Loss",
        "def __init__(self):\n    super().__init__(name='mine')",
        {},
    ),
    "a metric with an argument": (
        "keras.metrics.Metric",
        "def __init__(self, k=1, **kwargs):\n    super().__init__(**kwargs)\n    self.k = k",
        {"k": 3},
    ),
    "a metric without dtype": (
        "keras.metrics.Metric",
        "def __init__(self, name='mine'):\n    super().__init__(name=name)",
        {},
    ),
    "an initializer with an argument": (
        "keras.initializers.Initializer",
        "def __init__(self, value=1.0):\n    self.value = value",
        {"value": 3.0},
    ),
    "a constraint with an argument": (
        "keras.constraints.Constraint",
        "def __init__(self, limit):\n    self.limit = limit",
        {"limit": 3},
    ),
    "a regularizer": (
        "keras.regularizers.Regularizer",
        "def __init__(self, factor=0.1):\n    self.factor = factor",
        {"factor": 3.0},
    ),
    "a regularizer without arguments": ("keras.regularizers.Regularizer", "x = 1", {}),
    "a schedule": (
        "keras.optimizers.schedules.LearningRateSchedule",
        "def __init__(self, start=0.1):\n    self.start = start",
        {"start": 3.0},
    ),
    "an optimizer with an argument": (
        "keras.optimizers.Optimizer",
        "def __init__(self, learning_rate=0.1, decay=0.5, **kwargs):\n"
        "    super().__init__(learning_rate, **kwargs)\n    self.decay = decay",
        {"decay": 3.0},
    ),
    "a class of no base": (
        "object",
        "def __init__(self, factor=0.1):\n    self.factor = factor",
        {"factor": 3.0},
    ),
}

ACCEPTED = {
    "a layer with plain arguments": (
        "keras.layers.Layer",
        "def __init__(self, units, *, flag=True, **kwargs):\n    super().__init__(**kwargs)",
        {"units": 3},
    ),
    "a layer of nothing": ("keras.layers.Layer", "x = 1", {}),
    "a dense layer with other defaults": (
        "keras.layers.Dense",
        "def __init__(self, units=3, activation='relu', **kwargs):\n"
        "    super().__init__(units, activation, **kwargs)",
        {},
    ),
    "a model of nothing": ("keras.Model", "x = 1", {}),
    "a loss of nothing": ("keras.losses.Loss", "x = 1", {}),
    "a loss with a name": (
        "keras.losses.Loss",
        "def __init__(self, name='mine', reduction='sum'):\n"
        "    super().__init__(name=name, reduction=reduction)",
        {},
    ),
    "a metric with a name": (
        "keras.metrics.Mean",
        "def __init__(self, name='mine', **kwargs):\n    super().__init__(name=name, **kwargs)",
        {},
    ),
    "an optimizer of nothing": ("keras.optimizers.Adam", "x = 1", {}),
    "an initializer of nothing": ("keras.initializers.Initializer", "x = 1", {}),
    "a schedule with a get_config": (
        "keras.optimizers.schedules.LearningRateSchedule",
        "def __init__(self, start):\n    self.start = start\n"
        "def get_config(self):\n    return {'start': self.start}",
        {"start": 0.5},
    ),
}


def make(base, body):
    """Define a class, the way a notebook does."""
    space = {"keras": keras, "__name__": "somewhere"}
    exec(f"class Mine({base}):\n{textwrap.indent(body, '    ')}", space)
    return space["Mine"]


def comes_back(obj):
    """Return whether Keras builds the object again from its config, with the same attributes."""
    try:
        copy = type(obj).from_config(obj.get_config())
    except (AttributeError, NotImplementedError, TypeError):
        return False
    own = {
        k for k in ("units", "scale", "depth", "delta", "k", "value", "decay") if hasattr(obj, k)
    }
    return all(getattr(obj, key) == getattr(copy, key) for key in own)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_keras_cannot_build_again_is_refused_with_the_method_to_write(names, case):
    """Keras fails on it or changes it; with the pasted method it works, and is accepted."""
    base, body, arguments = case
    cls = make(base, body)
    assert not comes_back(cls(**arguments))
    with pytest.raises(NotSerializableError) as caught:
        names.register("p")(cls)
    method = config_method(cls)
    assert method in str(caught.value)
    assert len(names) == 0
    lines = textwrap.dedent(method)
    repaired = make(base, body + "\n" + lines)
    names.register("p")(repaired)
    obj = repaired(**arguments)
    check_serializable(obj)
    copy = repaired.from_config(obj.get_config())
    assert {key: getattr(copy, key) for key in arguments} == arguments


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_what_keras_can_build_again_is_accepted(names, case):
    """Nobody has to write a method that Keras does without."""
    base, body, arguments = case
    cls = make(base, body)
    assert comes_back(cls(**arguments))
    assert names.register("p")(cls) is cls
    check_serializable(cls(**arguments))


def test_the_lost_arguments_are_an_attribute(names):
    """A program need not read the sentence."""
    base, body, _ = REFUSED["a dense layer with an argument of its own"]
    with pytest.raises(NotSerializableError) as caught:
        names.register("p")(make(base, body))
    assert caught.value.lost == ("scale",)
    assert caught.value.name == "p>Mine"


def test_an_optimizer_without_kwargs_is_told_to_take_them(names):
    """Its learning rate is a variable: only Keras' own get_config writes it rightly."""
    body = "def __init__(self, learning_rate=0.1):\n    super().__init__(learning_rate)"
    with pytest.raises(NotSerializableError, match=r"super\(\).__init__\(\*\*kwargs\)"):
        names.register("p")(make("keras.optimizers.Optimizer", body))


def test_arguments_by_position_only_are_refused(names):
    """A config can pass arguments by name only."""
    body = "def __init__(self, units, /, **kwargs):\n    super().__init__(**kwargs)"
    with pytest.raises(NotSerializableError, match="Remove the `/`"):
        names.register("p")(make("keras.layers.Layer", body))


def test_a_class_without_from_config_is_refused(names):
    """Keras calls it to build the object."""
    with pytest.raises(NotSerializableError, match=r"def from_config\(cls, config\)"):
        names.register("p")(make("object", "def get_config(self):\n    return {}"))


@pytest.mark.parametrize(
    "body",
    [
        "def __init__(self, a, **kw):\n    pass\ndef get_config(self):\n    return {'a': 1}",
        "def __init__(self, a, **kw):\n    pass\n"
        "@classmethod\ndef from_config(cls, config):\n    return cls(1, **config)",
    ],
)
def test_a_class_with_either_method_of_its_own_is_its_authors_word(names, body):
    """What somebody wrote on purpose is not guessed about."""
    names.register("p")(make("keras.losses.Loss", body))
    assert "p>Mine" in names


def test_a_refused_class_leaves_no_trace(mirrored):
    """Neither here nor in Keras."""
    before = dict(keras.saving.get_custom_objects())
    with pytest.raises(NotSerializableError):
        mirrored.register("p")(make("object", "x = 1"))
    assert len(mirrored) == 0
    assert keras.saving.get_custom_objects() == before
