"""Estimate the size of the model that a config describes, and the time to build it.

A config of two kilobytes can describe a model of ten terabytes. This module walks the config as
Keras does, follows shapes from layer to layer, and adds up the bytes of the variables. The result
is a lower bound, because unknown layers and shapes count as little as possible. So no valid file is
refused; `variable_budget` counts exactly during the build.

Time is counted in steps: one step is one call of one layer. A nested model is called as often as
the outer model calls it, so thirty levels of two calls each are a billion steps. Keras also reads
the nodes of a graph repeatedly until all inputs exist: once for each layer if the order is
reversed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keras_ckpt_tools.formats.common.bounded_json import LEAVES

Shape = tuple[int | None, ...] | None
"""Dimensions without the batch; `None` for an unknown dimension or an unknown shape."""

MOST_REPEATS = 20_000
# Keras takes a millisecond or more for each, and most models this large fail by recursion.
MOST_LAYERS = 10_000
MOST_STEPS = 250_000
# Steps that Keras takes for each value of a node that it cannot use yet.
_VALUES_PER_STEP = 300
# Searching the nodes of a layer is quick, but quadratic.
_PAIRS_PER_STEP = 20_000
# Larger numbers are cut to this, so that numbers of any length cost the same.
_LARGEST = 1 << 80

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
    """Return a lower bound of the bytes of a model's variables.

    >>> layers = [
    ...     {"class_name": "InputLayer", "config": {"batch_shape": [None, 1000]}},
    ...     {"class_name": "Dense", "config": {"units": 500}},
    ... ]
    >>> estimate({"class_name": "Sequential", "config": {"layers": layers}})
    2002000
    """
    return _layer(config, None)[0]


def mappings(*configs: Any) -> list[dict[str, Any]]:
    """Return all mappings in configs, in one list.

    >>> mappings({"layers": [{"config": {}}]})
    [{'layers': [{'config': {}}]}, {'config': {}}, {}]
    """
    found: list[dict[str, Any]] = []
    level = [value for value in configs if type(value) not in LEAVES]
    while level:
        found += [value for value in level if isinstance(value, dict)]
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if type(inner) not in LEAVES
        ]
    return found


def layers_in(found: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of layers in a config, in all of its models.

    >>> layers_in(mappings({"layers": [{"config": {"layers": [{}, {}]}}]}))
    3
    """
    lists = [value["layers"] for value in found if "layers" in value]
    return sum(len(listed) for listed in lists if isinstance(listed, list))


def repeats(found: Iterable[Mapping[str, Any]]) -> tuple[str, int]:
    """Return the layer with the most sequential repetitions in a config, and their number."""
    worst, where = 1, ""
    for value in found:
        config, name = value.get("config"), value.get("class_name")
        if not isinstance(config, dict) or not isinstance(name, str):
            continue
        if (name in _LOOPS or "unroll" in config) and (count := _repeats_of(value)) > worst:
            worst, where = count, f"{name} {str(config.get('name', ''))[:100]}".strip()
    return where, worst


def _repeats_of(node: Mapping[str, Any]) -> int:
    name, config = node.get("class_name"), node.get("config")
    if not isinstance(config, dict) or not isinstance(name, str):
        return 1
    count = 1
    if name in _LOOPS:
        count = _product(_number(config.get(key)) for key in _LOOPS[name])
    if config.get("unroll") is True:
        shape = _built_for(node) or _input_shape(config) or ()
        count = max(count, *(n or 0 for n in shape), 0)
    return count


def steps(config: Any, found: Iterable[Mapping[str, Any]] | None = None) -> int:
    """Return the steps (calls of layers) that Keras takes to build a model.

    >>> inner = {"class_name": "Sequential", "config": {"layers": [{"class_name": "ReLU"}] * 10}}
    >>> steps({"class_name": "Sequential", "config": {"layers": [inner, inner]}})
    60
    """
    found = mappings(config) if found is None else found
    layers = _layers_of(config)
    lists = sum("layers" in value for value in found)
    if layers is not None and lists == 1 and repeats(found)[1] == 1:
        # As in most models: parts of a layer are called as often as the layer.
        return 2 * sum(max(len(_nodes_of(layer)), 1) for layer in layers) + _within(config, layers)
    built, called = _steps(config)
    return built + called


def _steps(node: Any) -> tuple[int, int]:
    """Return the steps to build a config's object, and the steps of each call of it."""
    layers = _layers_of(node)
    parts: list[Any] = node if isinstance(node, list) else []
    if isinstance(node, dict):
        parts = [value for key, value in node.items() if key != "inbound_nodes"]
    if layers is not None:
        config = node["config"]
        parts = [value for value in parts if value is not config]
        parts += [value for value in config.values() if value is not layers]
    built = called = 0
    for part in parts:
        if isinstance(part, (dict, list)):
            made, each = _steps(part)
            built = min(built + made, _LARGEST)
            # Initializers and similar objects are part of the call of their layer.
            called = min(called + (each if each > 1 else 0), _LARGEST)
    if layers is None:
        own = _repeats_of(node) if isinstance(node, dict) else 1
        return built, min(own * max(called, 1), _LARGEST)
    called = 0
    for layer in layers:
        made, each = _steps(layer)
        times = len(_nodes_of(layer))
        built = min(built + made, _LARGEST)
        called = min(called + each * max(times, 1), _LARGEST)
    return min(built + called + _within(node, layers), _LARGEST), called


def _within(node: Mapping[str, Any], layers: list[Any]) -> int:
    """Return the steps that Keras takes for a list of layers, without the calls."""
    pairs = sum(len(_nodes_of(layer)) ** 2 for layer in layers)
    again = _read_again(layers) if _is_graph(node["config"]) else 0
    return pairs // _PAIRS_PER_STEP + again


def _layers_of(node: Any) -> list[Any] | None:
    config = node.get("config") if isinstance(node, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    return layers if isinstance(layers, list) else None


def _nodes_of(layer: Any) -> list[Any]:
    nodes = layer.get("inbound_nodes") if isinstance(layer, dict) else None
    return nodes if isinstance(nodes, list) else []


def _read_again(layers: list[Any]) -> int:
    """Return the steps that Keras wastes until all nodes of a graph have their inputs.

    It goes through all layers in rounds, and calls each with those of its nodes, in order, whose
    inputs exist. So a node waits one round for each input that comes later in the list.
    """
    places = {
        name: place
        for place, layer in enumerate(layers)
        if isinstance(layer, Mapping) and isinstance(name := layer.get("name"), str)
    }
    inputs = {
        (place, number): _inputs_of(node)
        for place, layer in enumerate(layers)
        for number, node in enumerate(_nodes_of(layer))
    }
    if all(places.get(name, -1) < at for (at, _), (got, _) in inputs.items() for name, _ in got):
        return 0  # As Keras writes graphs: each layer after its inputs.
    waiting: dict[tuple[int, int], list[tuple[int, int]]] = {}
    missing: dict[tuple[int, int], int] = {}
    rounds: dict[tuple[int, int], int] = {}
    for node, (got, _) in inputs.items():
        # The first node of a nested model is the one from its construction.
        needed = {
            (places[name], index - (_layers_of(layers[places[name]]) is not None))
            for name, index in got
            if name in places
        }
        if node[1]:
            needed.add((node[0], node[1] - 1))
        needed = {one for one in needed if one in inputs}
        missing[node], rounds[node] = len(needed), 1
        for one in needed:
            waiting.setdefault(one, []).append(node)
    ready = deque(node for node, count in missing.items() if not count)
    last = 1
    while ready:
        node = ready.popleft()
        last = max(last, rounds[node])
        for follower in waiting.get(node, ()):
            later = rounds[node] + (node[0] > follower[0])
            rounds[follower] = max(rounds[follower], later)
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
    in_vain = last * len(layers) if last > 2 else 0
    for node, (_, size) in inputs.items():
        before = rounds[node[0], node[1] - 1] if node[1] else 1
        until = rounds[node] if not missing[node] else last + 1
        in_vain = min(in_vain + max(until - before, 0) * size, _LARGEST)
    return in_vain // _VALUES_PER_STEP


def _inputs_of(node: Any) -> tuple[list[tuple[str, int]], int]:
    """Return the layers and nodes that are inputs of a node, and the number of its values."""
    found: list[tuple[str, int]] = []
    size, todo = 2, [] if type(node) in LEAVES else [node]
    while todo:
        value = todo.pop()
        size += len(value)
        if isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str):
                number = value[1]
                if isinstance(number, int) and abs(number) < _LARGEST:
                    found.append((value[0], number))
        else:
            value = value.values()
        todo += [one for one in value if type(one) not in LEAVES]
    return found, size


def _layer(node: Any, given: Shape) -> tuple[int, Shape]:
    """Return the bytes of a layer and the shape of its output."""
    if not isinstance(node, Mapping) or not isinstance(node.get("class_name"), str):
        return 0, None
    name, config = node["class_name"], node.get("config")
    if isinstance(config, list) and name == "Sequential":
        config = {"layers": config}  # The format of Keras 1 and 2.0.
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
    """Return the names of the layers that are the first inputs of a layer, in either format."""
    nodes = layer.get("inbound_nodes")
    first = nodes[0] if isinstance(nodes, list) and nodes else None
    names: list[str] = []
    todo = deque([first])
    while todo and len(names) < 1000:
        value = todo.popleft()
        if isinstance(value, dict):
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
    area = _product(_number(n) for n in sizes)
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
        return (_product(known) if shape and len(known) == len(shape) else None,)
    if name == "Reshape" and isinstance(config.get("target_shape"), list):
        return tuple(
            _number(n) if isinstance(n, int) and n > 0 else None for n in config["target_shape"]
        )
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
    return tuple(min(n, _LARGEST) if n is not None and n > 0 else None for n in shape[1:])


def _number(value: Any, otherwise: int = 1) -> int:
    """Return a positive number of a config; other values count as little as possible."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        return otherwise
    return otherwise if value == math.inf else int(min(value, _LARGEST))


def _product(numbers: Iterable[int]) -> int:
    found = 1
    for number in numbers:
        found = min(found * number, _LARGEST)
    return found


def _size(shape: Any) -> int:
    if isinstance(shape, list):
        return _product(_number(n) for n in shape)
    return _number(shape)


def _last(shape: Shape) -> int:
    return (shape[-1] if shape else None) or 1


def _channels(config: Mapping[str, Any], shape: Shape) -> int:
    if config.get("data_format") == "channels_first":
        return (shape[0] if shape else None) or 1
    return _last(shape)


def _itemsize(dtype: Any) -> int:
    """Return the bytes of one number of a variable of a dtype policy; 0 if it is packed."""
    if isinstance(dtype, Mapping):
        inner = dtype.get("config")
        dtype = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(dtype, str) or dtype.startswith(("float32", "mixed_")):
        return 4
    return {"float64": 8, "float16": 2, "bfloat16": 2}.get(dtype, 0)
