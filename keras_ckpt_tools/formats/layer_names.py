"""Find the names of layers, optimizers and variables in a file.

The record of this package contains them. Stock Keras stores the name of each object in an attribute
of its group, since about 3.5. Before that, only a `.keras` contains names, in its config: there,
the layers of functional and sequential models are in the order in which Keras numbers them.

A file numbers the variables of a layer (`layers/dense/vars/0`). A variable of a live model has
Keras' name (`dense/kernel`). For a file alone, `variable_names` derives these names for Keras' own
layers, whose variables have a known order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keras_ckpt_tools.formats.optimizer_kinds import is_of_keras
from keras_ckpt_tools.metadata import OptimizerState, Record

_GROUP_OF_VARIABLES = re.compile(r"(?:(.+)/)?vars/\d+")
_NUMBER = re.compile(r"_\d+$")
# Names come from the file: what is longer, or nested deeper, is no name that helps.
_LONGEST, _DEEPEST = 500, 60
# What the layers of Keras save, in this order. Where arguments leave variables out, the shorter one
# holds; where their number does not say which are left out, there is none.
_KERNEL = (("kernel", "bias"), ("kernel",))
_TWO, _BOTH = ("depthwise_kernel", "pointwise_kernel"), ("kernel", "recurrent_kernel")
_SEPARABLE, _RECURRENT = ((*_TWO, "bias"), _TWO), ((*_BOTH, "bias"), _BOTH)
_MOVING = ("moving_mean", "moving_variance")
_VARIABLES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("dense", "einsum_dense"), _KERNEL),
    **dict.fromkeys((f"conv{n}d{end}" for n in (1, 2, 3) for end in ("", "_transpose")), _KERNEL),
    **dict.fromkeys((f"depthwise_conv{n}d" for n in (1, 2)), _KERNEL),
    **dict.fromkeys((f"separable_conv{n}d" for n in (1, 2)), _SEPARABLE),
    **dict.fromkeys(("lstm_cell", "gru_cell", "simple_rnn_cell", "conv_lstm_cell"), _RECURRENT),
    "embedding": (("embeddings",),),
    "batch_normalization": (("gamma", "beta", *_MOVING), _MOVING),
    **dict.fromkeys(("layer_normalization", "group_normalization"), (("gamma", "beta"),)),
    "rms_normalization": (("scale",),),
    "normalization": (("mean", "variance", "count"),),
    "p_re_lu": (("alpha",),),
}

# Keras on PyTorch writes the class that it makes for that backend into a config.
_OF_A_BACKEND = re.compile(r"keras\.src\.backend\.\w+\.optimizers\.\w+")


def group_name(class_name: str) -> str:
    """Return what Keras calls the group of an object of a class.

    Source: `keras/src/utils/naming.py`, `to_snake_case`.

    >>> group_name("ResidualBlock"), group_name("Conv2DBlock")
    ('residual_block', 'conv2d_block')
    """
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def names_above(names: Mapping[str, str], paths: Iterable[str]) -> dict[str, str]:
    """Return those names under whose group there is a tensor."""
    used = {""}
    for path in paths:
        group = path.rpartition("/")[0]
        while group not in used:
            used.add(group)
            group = group.rpartition("/")[0]
    return {group: name for group, name in names.items() if group in used}


def names_from_config(config: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the names of the layers of a functional or sequential model, by group.

    >>> names_from_config(
    ...     {
    ...         "class_name": "Sequential",
    ...         "config": {"layers": [{"class_name": "Dense", "config": {"name": "head"}}]},
    ...     }
    ... )
    {'layers/dense': 'head'}
    """
    return dict(_names_below(config, "")) if isinstance(config, Mapping) else {}


def _names_below(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, Mapping) else None
    if config.get("class_name") not in ("Functional", "Sequential") or not isinstance(layers, list):
        return
    used: dict[str, int] = {}
    for layer in layers:
        arguments = layer.get("config") if isinstance(layer, Mapping) else None
        if not isinstance(arguments, Mapping) or not isinstance(layer.get("class_name"), str):
            continue
        kind = group_name(layer["class_name"])
        number = used[kind] = used.get(kind, -1) + 1
        group = f"{prefix}layers/{kind}_{number}" if number else f"{prefix}layers/{kind}"
        if isinstance(arguments.get("name"), str):
            yield group, arguments["name"]
        yield from _names_below(layer, f"{group}/")


def variable_names(paths: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return what Keras calls the variables at the paths of a file, as far as that is known.

    Args:
        paths: All paths of the file: how many variables a layer has says which they are.
        names: What its layers were called, by group.

    >>> paths = ["layers/dense/vars/0", "layers/dense/vars/1", "scale/vars/0"]
    >>> variable_names(paths, {"": "net", "layers/dense": "head", "scale": "scale"})
    {'layers/dense/vars/0': 'head/kernel', 'layers/dense/vars/1': 'head/bias'}
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        found = _GROUP_OF_VARIABLES.fullmatch(path)
        if found is not None and found[1] and found[1].count("/") <= _DEEPEST:
            groups.setdefault(found[1], []).append(path)
    called: dict[str, str] = {}
    for group, own in groups.items():
        for kind in _kinds_of(group, names):
            variables = next((one for one in _VARIABLES.get(kind, ()) if len(one) == len(own)), ())
            if variables and (layer := _layer_at(group, names)):
                called |= {f"{group}/vars/{n}": f"{layer}/{v}" for n, v in enumerate(variables)}
                break
    return {path: called[path] for own in groups.values() for path in own if path in called}


def shown_as(path: str, variables: Mapping[str, str]) -> str:
    """Return a path for people: what Keras calls the variable, where that is known, and the path.

    >>> shown_as("layers/dense/vars/0", {"layers/dense/vars/0": "head/kernel"})
    'head/kernel (layers/dense/vars/0)'
    """
    name = variables.get(path)
    return f"{name} ({path})" if name and name != path else path


def _kinds_of(group: str, names: Mapping[str, str]) -> Iterator[str]:
    """Yield what the class of a layer may be: its name has it, or the place in a list of layers."""
    above, _, last = group.rpartition("/")
    if above not in names:  # An object calls its parts as its attributes.
        yield _NUMBER.sub("", last)
    if group in names:
        yield _NUMBER.sub("", names[group])


def _layer_at(group: str, names: Mapping[str, str]) -> str:
    """Return the names of a layer and of those that it is in; empty where they are too long."""
    parts = group.split("/")
    places = ["/".join(parts[:n]) for n in range(1, len(parts))]
    above = [names.get(place, "" if names else place.rpartition("/")[2]) for place in places]
    found = [name for name in above if name not in ("", "layers")]
    found.append(names.get(group, parts[-1]))
    return "/".join(found) if sum(map(len, found)) <= _LONGEST else ""


def with_public_optimizers(config: dict[str, Any]) -> dict[str, Any]:
    """Give the optimizers of a backend in a config their public module; return the config.

    >>> module = "keras.src.backend.torch.optimizers.torch_adam"
    >>> with_public_optimizers({"module": module, "class_name": "Adam", "config": {}})["module"]
    'keras.optimizers'
    """
    todo: list[Any] = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            module = value.get("module")
            if isinstance(module, str) and _OF_A_BACKEND.fullmatch(module):
                if value.get("registered_name") in (None, value.get("class_name")):
                    value |= {"module": "keras.optimizers", "registered_name": None}
            todo += [inner for inner in value.values() if isinstance(inner, (dict, list))]
        elif isinstance(value, list):
            todo += [inner for inner in value if isinstance(inner, (dict, list))]
    return config


def optimizers_from_config(
    config: Mapping[str, Any] | None, paths: Iterable[str] = ()
) -> dict[str, OptimizerState]:
    """Return the optimizer that the config of a compiled model names, by group.

    Args:
        config: The config.
        paths: The tensors of the file. `compile` may have wrapped the optimizer into one that
            scales the loss, which is in the config as it was passed, and in the file as it is.
    """
    compiled = (config or {}).get("compile_config")
    optimizer = compiled.get("optimizer") if isinstance(compiled, Mapping) else None
    found: dict[str, OptimizerState] = {}
    group = "optimizer"
    while isinstance(optimizer, Mapping) and isinstance(optimizer.get("class_name"), str):
        found[group] = OptimizerState(optimizer["class_name"])
        inner = optimizer.get("config")
        optimizer = inner.get("inner_optimizer") if isinstance(inner, Mapping) else None
        group = f"{group}/inner_optimizer"
    if list(found) == ["optimizer"] and any(p.startswith(f"{group}/") for p in paths):
        named = found["optimizer"]
        scaled = "LossScaleOptimizer" if is_of_keras(named.class_name) else ""
        found = {"optimizer": OptimizerState(scaled), group: named}
    return found


def optimizers_from_record(record: Record) -> dict[str, OptimizerState]:
    """Return the optimizers in a record, by group; for tracked ones `built_on` is in `tracked`."""
    found = dict(record.optimizers)
    for name, tracked in record.tracked.items():
        if tracked.kind == "optimizer" and tracked.built_on:
            class_name = found[name].class_name if name in found else ""
            found[name] = OptimizerState(class_name, tracked.built_on)
    return found
