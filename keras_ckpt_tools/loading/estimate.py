"""How large a model its config would build: config -> *bytes*, before anything is built.

A config of two kilobytes can ask for ten terabytes. This walks it as Keras would, follows shapes
from layer to layer as far as they can be known without Keras, and adds up what the variables take.
The result is a lower bound: of a layer that it does not know, or whose input it does not know, it
counts what is certain. So a good file is never refused by it; what it lets through is counted
exactly while it is built (`allocation`), before each variable is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["MOST_LAYERS", "MOST_REPEATS", "estimate", "layers_in", "repeats"]

Shape = tuple[int | None, ...] | None
"""Dimensions without the batch, `None` for each that is not known; `None` where none is."""

MOST_REPEATS = 20_000
# Keras takes a millisecond and more for each, and fails by recursion long before in most shapes.
MOST_LAYERS = 10_000

_KEEP_SHAPE = frozenset(
    """
    Activation ActivityRegularization AlphaDropout BatchNormalization Dropout ELU GaussianDropout
    GaussianNoise GroupNormalization Identity LayerNormalization LeakyReLU Masking Normalization
    PReLU RMSNormalization ReLU Rescaling Softmax SpatialDropout1D SpatialDropout2D
    SpatialDropout3D SpectralNormalization UnitNormalization Add Average Maximum Minimum Multiply
    Subtract Attention AdditiveAttention MultiHeadAttention
    """.split()
)
_VECTORS = {"BatchNormalization": 2, "LayerNormalization": 0, "Normalization": 2}
_GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3, "SimpleRNN": 1, "SimpleRNNCell": 1}
_LOOPS = {
    "AugMix": ("num_chains", "chain_depth"),
    "RandAugment": ("num_ops",),
    "SpectralNormalization": ("power_iterations",),
}


def estimate(config: Mapping[str, Any]) -> int:
    """Return the bytes that the variables of a model take at least.

    Args:
        config: Config of a model, in either dialect.

    >>> layers = [
    ...     {"class_name": "InputLayer", "config": {"batch_shape": [None, 1000]}},
    ...     {"class_name": "Dense", "config": {"units": 500}},
    ... ]
    >>> estimate({"class_name": "Sequential", "config": {"layers": layers}})
    2002000
    """
    return _layer(config, None)[0]


def layers_in(config: Any) -> int:
    """Return how many layers a config lists, in all of its models.

    >>> layers_in({"layers": [{"config": {"layers": [{}, {}]}}]})
    3
    """
    count, todo = 0, [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            listed = value.get("layers")
            count += len(listed) if isinstance(listed, list) else 0
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
    return count


def repeats(config: Any) -> tuple[str, int]:
    """Return where a config asks for the most repetitions that happen one by one, and how many."""
    worst, where = 0, ""
    todo = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, dict):
            todo.extend(value.values())
            name, inner = value.get("class_name"), value.get("config")
            if not isinstance(inner, dict) or not isinstance(name, str):
                continue
            count = math.prod(_number(inner.get(key), 1) for key in _LOOPS.get(name, ()))
            if inner.get("unroll") is True:
                shape = _built_for(value) or _input_shape(inner) or ()
                count = max(count, *(n or 0 for n in shape), 0)
            if count > worst:
                worst, where = count, f"{name} {inner.get('name', '')}".strip()
    return where, worst


def _layer(node: Any, given: Shape) -> tuple[int, Shape]:
    """Return the bytes of a layer and the shape of its output."""
    if not isinstance(node, Mapping) or not isinstance(node.get("class_name"), str):
        return 0, None
    name, config = node["class_name"], node.get("config")
    if isinstance(config, list) and name == "Sequential":
        config = {"layers": config}  # As Keras 1 and 2.0 wrote it.
    if not isinstance(config, Mapping):
        return 0, None
    shape = given or _built_for(node) or _input_shape(config)
    if name == "InputLayer":
        return 0, _input_shape(config)
    if isinstance(config.get("layers"), list):
        return _graph(config, given) if _is_graph(config) else _chain(config, given)
    for key, times in (("layer", 1), ("cell", 1), ("backward_layer", 1)):
        if isinstance(config.get(key), Mapping):
            inner, _ = _layer(config[key], shape)
            both = name == "Bidirectional" and key == "layer" and not config.get("backward_layer")
            return inner * (2 if both else times), None
    if isinstance(config.get("cells"), list):
        return sum(_layer(cell, None)[0] for cell in config["cells"]), None
    number = _parameters(name, config, shape)
    return number * _itemsize(config.get("dtype")), _output(name, config, shape)


def _is_graph(config: Mapping[str, Any]) -> bool:
    return "output_layers" in config or "input_layers" in config


def _chain(config: Mapping[str, Any], shape: Shape) -> tuple[int, Shape]:
    total = 0
    for layer in config["layers"]:
        size, shape = _layer(layer, shape)
        total += size
    return total, shape


def _graph(config: Mapping[str, Any], given: Shape) -> tuple[int, Shape]:
    total = 0
    shapes: dict[str, Shape] = {}
    for layer in config["layers"]:
        if not isinstance(layer, Mapping):
            continue
        inputs = [shapes.get(name) for name in _inbound(layer)]
        one = inputs[0] if inputs else given
        if layer.get("class_name") == "Concatenate" and inputs:
            lasts = [shape[-1] if shape else None for shape in inputs]
            known = [n for n in lasts if n is not None]
            one = (*(one or (None,))[:-1], sum(known) if len(known) == len(lasts) else None)
            shapes[str(layer.get("name"))] = one
            continue
        size, out = _layer(layer, one)
        total += size
        shapes[str(layer.get("name") or _name_of(layer))] = out
    return total, None


def _name_of(layer: Mapping[str, Any]) -> str:
    config = layer.get("config")
    return str(config.get("name", "")) if isinstance(config, Mapping) else ""


def _inbound(layer: Mapping[str, Any]) -> list[str]:
    """Return the names of the layers whose outputs a layer gets first, in either dialect."""
    nodes = layer.get("inbound_nodes")
    first = nodes[0] if isinstance(nodes, list) and nodes else None
    names: list[str] = []
    todo = [first]
    while todo and len(names) < 1000:
        value = todo.pop(0)
        if isinstance(value, Mapping):
            history = value.get("keras_history")
            if isinstance(history, list) and history:
                names.append(str(history[0]))
            else:
                todo.extend(value[key] for key in ("args", "config", "value") if key in value)
        elif isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
                names.append(value[0])
            else:
                todo.extend(value)
    return names


def _parameters(name: str, config: Mapping[str, Any], shape: Shape) -> int:
    if name in _GATES:
        units = _number(config.get("units"))
        return _GATES[name] * units * (units + _last(shape))
    if name in _VECTORS:
        return _VECTORS[name] * _last(shape)
    if "Conv" in name and "filters" in config:
        return _convolution(name, config, shape)
    counted = _COUNTED.get(name)
    return counted(config, shape) if counted else 0


def _convolution(name: str, config: Mapping[str, Any], shape: Shape) -> int:
    kernel = config.get("kernel_size")
    sizes = kernel if isinstance(kernel, list) else [kernel]
    area = math.prod(_number(n) for n in sizes)
    filters, channels = _number(config.get("filters")), _channels(config, shape)
    if name.startswith("Separable"):
        deep = channels * _number(config.get("depth_multiplier"))
        return area * deep + deep * filters
    if "LSTM" in name:
        return 4 * area * filters * (filters + channels)
    return area * filters * max(channels // _number(config.get("groups")), 1)


def _attention(config: Mapping[str, Any], shape: Shape) -> int:
    heads, key = _number(config.get("num_heads")), _number(config.get("key_dim"))
    value = _number(config.get("value_dim"), key)
    return heads * (key * (_last(shape) + 1) + value * (_last(shape) + 1))


_COUNTED: dict[str, Callable[[Mapping[str, Any], Shape], int]] = {
    "Dense": lambda c, s: (
        _number(c.get("units")) * (_last(s) + (c.get("use_bias", True) is not False))
    ),
    "Embedding": lambda c, s: _number(c.get("input_dim")) * _number(c.get("output_dim")),
    "ReversibleEmbedding": lambda c, s: _number(c.get("input_dim")) * _number(c.get("output_dim")),
    "EinsumDense": lambda c, s: _size(c.get("output_shape")),
    "MultiHeadAttention": _attention,
    "GroupQueryAttention": lambda c, s: (
        _number(c.get("head_dim")) * _number(c.get("num_query_heads")) * _last(s)
    ),
    "DepthwiseConv1D": lambda c, s: _channels(c, s) * _number(c.get("depth_multiplier")),
    "DepthwiseConv2D": lambda c, s: _channels(c, s) * _number(c.get("depth_multiplier")),
    "PReLU": lambda c, s: 1 if c.get("shared_axes") else _size(list(s or ())),
    "MelSpectrogram": lambda c, s: (
        _number(c.get("fft_length")) // 2 * _number(c.get("num_mel_bins"))
    ),
    "STFTSpectrogram": lambda c, s: (
        _number(c.get("frame_length")) * _number(c.get("fft_length"), 2) // 2
    ),
}


def _output(name: str, config: Mapping[str, Any], shape: Shape) -> Shape:
    rest = shape[:-1] if shape else ()
    if name in _KEEP_SHAPE:
        return shape
    if name == "Dense":
        return (*rest, _number(config.get("units")))
    if name == "Flatten":
        known = [n for n in shape or (None,) if n is not None]
        return (math.prod(known) if shape and len(known) == len(shape) else None,)
    if name == "Reshape" and isinstance(config.get("target_shape"), list):
        return tuple(n if isinstance(n, int) and n > 0 else None for n in config["target_shape"])
    if name == "Embedding":
        return (*(shape or ()), _number(config.get("output_dim")))
    if name in _GATES:
        units = _number(config.get("units"))
        return (None, units) if config.get("return_sequences") else (units,)
    first = config.get("data_format") == "channels_first"
    if "Conv" in name and "filters" in config and not first and shape:
        return (*(None for _ in rest), _number(config.get("filters")))
    if name.startswith("Global") and not first and not config.get("keepdims"):
        return shape[-1:] if shape else None
    if "Pool" in name and not first and shape:
        return (*(None for _ in rest), shape[-1])
    return None


def _built_for(node: Mapping[str, Any]) -> Shape:
    built = node.get("build_config")
    return _without_batch(built.get("input_shape")) if isinstance(built, Mapping) else None


def _input_shape(config: Mapping[str, Any]) -> Shape:
    for key in ("batch_shape", "batch_input_shape"):
        if isinstance(config.get(key), list):
            return _without_batch(config[key])
    return None


def _without_batch(shape: Any) -> Shape:
    if not isinstance(shape, list) or not all(isinstance(n, int | None) for n in shape):
        return None
    return tuple(n if n is None or n > 0 else None for n in shape[1:])


def _number(value: Any, otherwise: int = 1) -> int:
    """Return a positive number of a config; anything else counts as little as it can."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        return otherwise
    return int(value) if math.isfinite(value) else otherwise


def _size(shape: Any) -> int:
    if isinstance(shape, list):
        return math.prod(_number(n) for n in shape)
    return _number(shape)


def _last(shape: Shape) -> int:
    return (shape[-1] if shape else None) or 1


def _channels(config: Mapping[str, Any], shape: Shape) -> int:
    if config.get("data_format") == "channels_first":
        return (shape[0] if shape else None) or 1
    return _last(shape)


def _itemsize(dtype: Any) -> int:
    """Return the bytes of one number of a variable of a dtype policy; 0 where it is packed."""
    if isinstance(dtype, Mapping):
        inner = dtype.get("config")
        dtype = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(dtype, str) or dtype.startswith(("float32", "mixed_")):
        return 4
    return {"float64": 8, "float16": 2, "bfloat16": 2}.get(dtype, 0)
