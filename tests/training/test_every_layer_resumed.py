"""Each of Keras' layers, trained, stopped between two batches, and gone on with by another model.

What a layer keeps beside its weights (the states of a stateful RNN, adapters, generators) is not
listed anywhere: these tests look into each layer for it, and the code does too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from layer_cases import BATCH, LEFT_OUT, built, data_of, layer_classes

import keras_ckpt_tools as kct


def variables_in(layer: keras.layers.Layer) -> list[Any]:
    """Return all variables there are in a layer or model, wherever its layers keep them."""
    found: dict[int, Any] = {}

    def look(value: Any, level: int = 0) -> None:
        if isinstance(value, keras.Variable):
            found[id(value)] = value
        elif isinstance(value, (list, tuple, dict)) and level < 3:
            for one in value.values() if isinstance(value, dict) else value:
                look(one, level + 1)

    for part in layer._flatten_layers():
        look(part.variables)
        for name in sorted(vars(part)):
            if not name.startswith("_self_"):
                look(vars(part)[name])
    return list(found.values())


def everything_in(model: keras.Model) -> list[bytes]:
    """Return the values of a model and of its optimizer, bit for bit."""
    variables = [*variables_in(model), *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(one).tobytes() for one in variables]


def resumed_as_uninterrupted(
    make: Callable[[], keras.Model], batches: list[Any], directory: Path, eager: bool = True
) -> tuple[list[bytes], list[bytes], keras.Model]:
    """Train on two batches, and on the same with another model from between them on."""
    y = np.arange(BATCH, dtype="float32").reshape(BATCH, 1)

    def ready() -> keras.Model:
        model = make()
        model(batches[0])
        model.compile("sgd", "mse", run_eagerly=eager)
        return model

    alone, again = ready(), ready()
    alone.train_on_batch(batches[0], y)
    kct.CheckpointManager(directory, model=alone).save()
    alone.train_on_batch(batches[1], y)
    assert kct.CheckpointManager(directory, model=again).restore_or_initialize()
    again.train_on_batch(batches[1], y)
    return everything_in(alone), everything_in(again), again


@pytest.mark.parametrize("name", layer_classes())
def test_a_layer_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    """In the middle of an epoch, with all that training has changed in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of layers that warn of their own arguments.
        model, shape = built(name)
        if not variables_in(model.layer):
            return  # There is nothing that could be lost.
        batches = [data_of(shape, seed) for seed in (1, 2)]
        alone, again, _ = resumed_as_uninterrupted(lambda: built(name)[0], batches, tmp_path)
    assert alone == again


# Layers that decide themselves what is saved, in each state that they can be in.


def overriding() -> list[str]:
    """Return the layers with a `save_own_variables` of their own."""
    base = layers.Layer.save_own_variables
    return [name for name, kind in layer_classes().items() if kind.save_own_variables is not base]


def _lora(layer: Any) -> None:
    layer.enable_lora(2)


def _quantized(mode: str) -> Callable[[Any], None]:
    return lambda layer: layer.quantize(mode)


def _calibrated(name: str) -> Callable[[Any], None]:
    def quantize(layer: Any) -> None:
        config = getattr(keras.quantizers, f"{name}Config")(
            dataset=None, tokenizer=None, group_size=-1, weight_bits=4
        )
        layer.quantize(name.lower(), config=config)
        # As its calibration leaves it.
        setattr(layer, f"is_{name.lower()}_calibrated", True)
        shape = layer.quantized_kernel.shape
        layer.quantized_kernel.assign(np.arange(np.prod(shape)).reshape(shape) % 251)

    return quantize


def _qlora(layer: Any) -> None:
    layer.quantize("int8")
    layer.enable_lora(2)


WAYS: dict[str, Callable[[Any], None]] = {
    "plain": lambda layer: None,
    "lora": _lora,
    "int8": _quantized("int8"),
    "int4": _quantized("int4"),
    "float8": _quantized("float8"),
    "int8 with lora": _qlora,
    "gptq": _calibrated("GPTQ"),
    "awq": _calibrated("AWQ"),
}
# What Keras itself does not have: (class, way), or a class in all ways but the plain one.
NOT_IN_KERAS = {
    *((name, None) for name in ("IntegerLookup", "StringLookup", "TextVectorization")),
    *((f"Conv{n}D", way) for n in (1, 2, 3) for way in WAYS if way not in ("plain", "lora")),
    *((name, way) for name in ("Embedding", "ReversibleEmbedding") for way in ("float8", "gptq")),
    *((name, "awq") for name in ("Embedding", "ReversibleEmbedding")),
}


def ways_of(name: str) -> list[str]:
    """Return the states in which a layer can be."""
    if (name, None) in NOT_IN_KERAS:
        return ["plain"]
    return [way for way in WAYS if (name, way) not in NOT_IN_KERAS]


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name in overriding() for way in ways_of(name)]
)
def test_a_layer_that_saves_in_its_own_way_resumes_bit_for_bit(
    name: str, way: str, tmp_path: Path
) -> None:
    """A run's checkpoint has every variable as it is, and not what a layer makes of it."""
    if way in ("gptq", "awq") and not hasattr(keras.quantizers, f"{way.upper()}Config"):
        pytest.skip(f"This Keras has no {way.upper()}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, shape = built(name)
        batches = [data_of(shape, seed) for seed in (1, 2)]

        def make() -> keras.Model:
            model = built(name)[0]
            try:
                WAYS[way](model.layer)
            except (NotImplementedError, TypeError, ValueError) as error:
                if keras.__version__ >= "3.15":
                    raise
                pytest.skip(f"Not in Keras {keras.__version__}: {error}")
            return model

        # The gradients of float8 cannot be had eagerly.
        alone, again, model = resumed_as_uninterrupted(
            make, batches, tmp_path, eager=way != "float8"
        )
        assert alone == again
        if way in ("gptq", "awq"):
            assert getattr(model.layer, f"is_{way}_calibrated")


def test_no_layer_is_left_out_without_a_reason() -> None:
    """What Keras itself saves in a way of its own is among the tested."""
    assert {"Dense", "EinsumDense", "Embedding", "Conv2D"} <= set(overriding())
    assert set(LEFT_OUT) <= set(dir(layers))
