"""Translate the arguments of Keras 2 layers to Keras 3.

Removed arguments are dropped if their value had no effect; others are renamed or converted. If an
argument has an effect that Keras 3 does not support, it stays, and is reported.

Each of Keras' own layers is written with its module, as in Keras 3: without it, Keras' reader drops
an `axis` that is a list of several, without a warning (3.15).

Sources: `get_config` of the layers in `tf_keras` 2.18 and Keras 2.15, and the constructors of Keras
3.10 and 3.15.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# max(0, min(1, 0.2 x + 0.5)); in Keras 3 the slope of the function of that name is 1/6.
HARD_SIGMOID = {
    "module": "keras_ckpt_tools.loading.keras_2_activation",
    "class_name": "function",
    "config": "keras_2_hard_sigmoid",
    "registered_name": "keras_2_hard_sigmoid",
}

_PLAIN = """
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average
    AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional
    CategoryEncoding CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D Dense
    DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Flatten GRU
    GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization HashedCrossing Hashing Identity InputLayer IntegerLookup LSTM LSTMCell Lambda
    LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum
    MultiHeadAttention Multiply Normalization PReLU Permute RNN RandomBrightness RandomContrast
    RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom ReLU RepeatVector Rescaling
    Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells
    StringLookup Subtract TextVectorization TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
LAYERS = frozenset(_PLAIN.split())
# Arguments that are gone, and the values at which they meant nothing.
_GONE: dict[str, dict[str, tuple[Any, ...]]] = {
    "Attention": {"causal": (False,)},
    "AdditiveAttention": {"causal": (False,)},
    "BatchNormalization": {
        "renorm": (False,), "renorm_clipping": (None, {}), "renorm_momentum": (...,),
        "fused": (...,), "virtual_batch_size": (None,), "adjustment": (None,),
    },
    "Embedding": {"input_length": (...,)},
    "InputLayer": {"ragged": (False, None)},
    "MultiHeadAttention": {"query_shape": (...,), "key_shape": (...,), "value_shape": (...,)},
    "Discretization": {"trainable": (...,)},
    "SpatialDropout1D": {"trainable": (...,), "noise_shape": (None,)},
    "SpatialDropout2D": {"trainable": (...,), "noise_shape": (None,)},
    "SpatialDropout3D": {"trainable": (...,), "noise_shape": (None,)},
    "Conv1DTranspose": {"groups": (1,)},
    "Conv2DTranspose": {"groups": (1,)},
    "Conv3DTranspose": {"groups": (1,)},
}  # fmt: skip
_ANYWHERE: dict[str, tuple[Any, ...]] = {"time_major": (False,), "batch_input_shape": (...,)}
# Arguments of their base class in Keras 2, in addition to their own two of each.
_UNUSED = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D")
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}
_CURES = {
    "causal": "build the model in code, with `use_causal_mask=True` in the call",
    "ragged": "pad its input, and build the model in code for padded input",
    "renorm": "train with `renorm=False`, and save the model again",
    "time_major": "save it with `time_major=False`, and swap the first two axes of its input",
    "virtual_batch_size": "train with `virtual_batch_size=None`, and save the model again",
}

Complain = Callable[[str, str, str], None]


def translate_layer(node: dict[str, Any], complain: Complain) -> None:
    """Rewrite the config of one layer of Keras' own; leave all others as they are.

    Args:
        node: `class_name`, `config` and further keys.
        complain: Takes the name of a layer, what cannot be said about it, and what to do.
    """
    name, inner = node.get("class_name"), node.get("config")
    if not isinstance(name, str) or not isinstance(inner, dict) or not _of_keras_2(node):
        return
    label = str(inner.get("name", name))
    name = node["class_name"] = _present_name(name, inner)
    if name not in LAYERS or "name" not in inner:
        return
    node["module"], node["registered_name"] = "keras.layers", None
    node.pop("build_config", None)  # Calling a layer builds it, and for all shapes at once.
    if name == "InputLayer" and "batch_input_shape" in inner:
        inner["batch_shape"] = inner.pop("batch_input_shape")
    for argument, meaningless in {**_ANYWHERE, **_GONE.get(name, {})}.items():
        if argument not in inner:
            continue
        if meaningless == (...,) or inner[argument] in meaningless:
            del inner[argument]
        else:
            what = f"has {argument}={inner[argument]!r}, which Keras 3 does not have"
            complain(
                label, what, _CURES.get(argument, "build this layer in code, without the argument")
            )
    for old, new in _RENAMED.get(name, {}).items():
        if old in inner:
            inner[new] = inner.pop(old)
    if name in _SEPARABLE:
        for argument in _UNUSED:
            if f"depthwise_{argument.removeprefix('kernel_')}" in inner or argument == "groups":
                inner.pop(argument, None)
    _translate_values(inner)
    if name == "Lambda":
        _translate_lambda(inner)


def _of_keras_2(node: dict[str, Any]) -> bool:
    module = node.get("module")
    own = ("keras.", "tf_keras.", "tensorflow.keras.", "tensorflow.python.keras.")
    if not isinstance(module, str):
        return module is None
    return f"{module}.".startswith(own) and not module.startswith("keras.src.ops.")


def _present_name(name: str, inner: dict[str, Any]) -> str:
    if name == "SyncBatchNormalization":
        inner["synchronized"] = True
        return "BatchNormalization"
    if name == "ThresholdedReLU" and "theta" in inner:
        inner["threshold"] = inner.pop("theta")
        return "ReLU"
    # Keras 2 had both classes under the second name at times.
    return {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2":
            "BatchNormalization", "LSTMV2": "LSTM", "GRUV2": "GRU"}.get(name, name)  # fmt: skip


def _translate_values(inner: dict[str, Any]) -> None:
    for key, value in inner.items():
        if value == "hard_sigmoid" and key.endswith("activation"):
            inner[key] = dict(HARD_SIGMOID)
        if not isinstance(value, dict):
            continue
        if value.get("type") == "ndarray" and "value" in value:
            inner[key] = value["value"]
        elif key == "dtype" and isinstance(value.get("config"), dict):
            inner[key] = value["config"].get("name", "float32")  # The name of a policy says it all.
        elif key.endswith("initializer") and isinstance(value.get("config"), dict):
            value["config"].pop("dtype", None)
            if value["config"].get("distribution") == "normal":
                value["config"]["distribution"] = "truncated_normal"
    axis = inner.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        inner["axis"] = axis[0]


def _translate_lambda(inner: dict[str, Any]) -> None:
    function = inner.get("function")
    if isinstance(function, list) and len(function) == 3:
        code = dict(zip(("code", "defaults", "closure"), function, strict=True))
        inner["function"] = {"class_name": "__lambda__", "config": code}
    for argument in ("module", "function_type", "output_shape_type", "output_shape_module"):
        inner.pop(argument, None)
    if inner.get("output_shape") is None:
        inner.pop("output_shape", None)


def translate_models_layers(model: dict[str, Any]) -> None:
    """Give a Sequential whose first layer says what shape it takes an input of that shape."""
    layers = model["layers"]
    first = layers[0] if layers and isinstance(layers[0], dict) else {}
    inner = first.get("config")
    if first.get("class_name") == "InputLayer" or not isinstance(inner, dict):
        return
    shape = inner.get("batch_input_shape")
    if isinstance(shape, list):
        dtype = inner.get("dtype") if isinstance(inner.get("dtype"), str) else "float32"
        if first.get("class_name") == "Embedding":
            dtype = "float32"  # What a layer of words is given are their numbers, of any type.
        name = f"{inner.get('name', 'layer')}_input"
        config = {"batch_input_shape": shape, "dtype": dtype, "name": name}
        layers.insert(0, {"class_name": "InputLayer", "config": config})
