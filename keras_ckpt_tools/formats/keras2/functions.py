"""Translate TensorFlow functions between layers to operations of Keras 3.

Keras 2 created a layer for every call of a TensorFlow function on a tensor of a model (`x + y`,
`tf.nn.relu(x)`, `x[:, 0]`) and saved the name of the function. Keras 3 has operations instead. A
call is translated if an operation computes the same. For each function, the table has the
operation, which arguments are tensors, which are arguments of the operation, and which have no
effect at their only allowed value. Everything else is reported as untranslatable.

Sources: signatures of the functions in TensorFlow 2.18, `get_config` and `call` of the operations
in Keras 3.10 and 3.15.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SLICES = "__operators__.getitem"


@dataclass(frozen=True)
class _Function:
    module: str
    class_name: str
    operands: tuple[str, ...] = ()
    """Arguments after the first that are operands too."""
    made_of: Mapping[str, str] = field(default_factory=dict)
    """Arguments that the operation is made with, by TensorFlow's name."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What those are where a call does not say, by Keras' name, where Keras has another default."""
    idle: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Arguments that the operation has not, and the values at which they mean nothing."""
    needed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """An operation of Keras: its class, what it is made with, its operands after the first."""

    module: str
    class_name: str
    config: Mapping[str, Any]
    operands: tuple[Any, ...]


_NUMPY, _NN = "keras.src.ops.numpy", "keras.src.ops.nn"
_FUNCTIONS: dict[str, _Function] = {}


def _add(text: str, module: str, **arguments: Any) -> None:
    for entry in text.split():
        name, _, class_name = entry.partition("=")
        _FUNCTIONS[name] = _Function(module, class_name, **arguments)


_add(
    "__operators__.add=Add math.add=Add add=Add math.subtract=Subtract subtract=Subtract "
    "math.multiply=Multiply multiply=Multiply math.truediv=TrueDivide math.divide=TrueDivide "
    "divide=TrueDivide math.pow=Power pow=Power math.maximum=Maximum maximum=Maximum "
    "math.minimum=Minimum minimum=Minimum math.floordiv=FloorDivide math.floormod=Mod math.mod=Mod "
    "math.greater=Greater math.greater_equal=GreaterEqual math.less=Less math.less_equal=LessEqual "
    "math.equal=Equal math.not_equal=NotEqual __operators__.eq=Equal __operators__.ne=NotEqual "
    "math.logical_and=LogicalAnd math.logical_or=LogicalOr math.logical_xor=LogicalXor "
    "__operators__.and=LogicalAnd __operators__.or=LogicalOr",
    _NUMPY,
    operands=("y",),
    needed=("y",),
)
_add("nn.bias_add=Add", _NUMPY, operands=("bias",), needed=("bias",),
     idle={"data_format": (None, "NHWC", "N...C")})  # fmt: skip
_add(
    "math.negative=Negative negative=Negative math.abs=Absolute abs=Absolute math.square=Square "
    "square=Square math.sqrt=Sqrt sqrt=Sqrt math.exp=Exp exp=Exp math.log=Log math.log1p=Log1p "
    "math.expm1=Expm1 math.sin=Sin sin=Sin math.cos=Cos cos=Cos math.tan=Tan math.tanh=Tanh "
    "tanh=Tanh math.sinh=Sinh math.cosh=Cosh math.floor=Floor floor=Floor math.ceil=Ceil "
    "math.sign=Sign sign=Sign math.reciprocal=Reciprocal math.logical_not=LogicalNot "
    "__operators__.invert=LogicalNot math.is_nan=Isnan math.is_finite=Isfinite",
    _NUMPY,
)
_add("math.sigmoid=Sigmoid sigmoid=Sigmoid nn.sigmoid=Sigmoid nn.relu=Relu nn.relu6=Relu6 "
     "nn.softplus=Softplus math.softplus=Softplus nn.softsign=Softsign math.softsign=Softsign "
     "nn.elu=Elu nn.selu=Selu", _NN)  # fmt: skip
_add("nn.silu=Silu nn.swish=Silu", _NN, idle={"beta": (1, 1.0)})
_add("nn.tanh=Tanh", _NUMPY)
_add("math.rsqrt=Rsqrt math.erf=Erf", "keras.src.ops.math")
_add("stop_gradient=StopGradient", "keras.src.ops.core")
_add("nn.gelu=Gelu", _NN, made_of={"approximate": "approximate"}, defaults={"approximate": False})
_add("nn.leaky_relu=LeakyRelu", _NN, made_of={"alpha": "negative_slope"},
     defaults={"negative_slope": 0.2})  # fmt: skip
_add("nn.softmax=Softmax nn.log_softmax=LogSoftmax", _NN, made_of={"axis": "axis"},
     defaults={"axis": -1})  # fmt: skip
_add(
    "math.reduce_mean=Mean reduce_mean=Mean math.reduce_sum=Sum reduce_sum=Sum math.reduce_max=Max "
    "reduce_max=Max math.reduce_min=Min reduce_min=Min math.reduce_prod=Prod reduce_prod=Prod "
    "math.reduce_std=Std math.reduce_variance=Var math.reduce_all=All math.reduce_any=Any",
    _NUMPY,
    made_of={"axis": "axis", "keepdims": "keepdims"},
)
_add("reshape=Reshape", _NUMPY, made_of={"shape": "newshape"}, needed=("shape",))
_add("expand_dims=ExpandDims", _NUMPY, made_of={"axis": "axis"}, needed=("axis",))
_add("squeeze=Squeeze compat.v1.squeeze=Squeeze", _NUMPY, made_of={"axis": "axis"},
     idle={"squeeze_dims": (None,)})  # fmt: skip
_add("transpose=Transpose compat.v1.transpose=Transpose", _NUMPY, made_of={"perm": "axes"},
     idle={"conjugate": (False,)})  # fmt: skip
_add("concat=Concatenate", _NUMPY, made_of={"axis": "axis"}, needed=("axis",))
_add("stack=Stack", _NUMPY, made_of={"axis": "axis"}, defaults={"axis": 0})
_add("tile=Tile", _NUMPY, made_of={"multiples": "repeats"}, needed=("multiples",))
_add("cast=Cast", "keras.src.ops.core", made_of={"dtype": "dtype"}, needed=("dtype",))
_add("clip_by_value=Clip", _NUMPY, needed=("clip_value_min", "clip_value_max"),
     made_of={"clip_value_min": "x_min", "clip_value_max": "x_max"})  # fmt: skip
_add("where=Where", _NUMPY, operands=("x", "y"), needed=("x", "y"))
_add("zeros_like=ZerosLike ones_like=OnesLike", _NUMPY, idle={"dtype": (None,)})
_add("math.cumsum=Cumsum cumsum=Cumsum", _NUMPY, made_of={"axis": "axis"}, defaults={"axis": 0},
     idle={"exclusive": (False,), "reverse": (False,)})  # fmt: skip
_add("unstack=Unstack", "keras.src.ops.core", made_of={"num": "num", "axis": "axis"},
     defaults={"axis": 0})  # fmt: skip
_add("roll=Roll", _NUMPY, made_of={"shift": "shift", "axis": "axis"}, needed=("shift", "axis"))
_add("reverse=Flip", _NUMPY, made_of={"axis": "axis"}, needed=("axis",))
_add("math.reduce_logsumexp=Logsumexp reduce_logsumexp=Logsumexp", "keras.src.ops.math",
     made_of={"axis": "axis", "keepdims": "keepdims"})  # fmt: skip


def _matmul(given: dict[str, Any]) -> Operation | None:
    idle = {"adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse", "output_type", "grad_a",
            "grad_b"}  # fmt: skip
    first, second = given.pop("transpose_a", False), given.pop("transpose_b", False)
    operand = given.pop("b", None)
    if operand is None or any(key not in idle or value for key, value in given.items()):
        return None
    if not (first or second):
        return Operation(_NUMPY, "Matmul", {}, (operand,))
    one, other = "...ji" if first else "...ij", "...kj" if second else "...jk"
    return Operation(_NUMPY, "Einsum", {"subscripts": f"{one},{other}->...ik"}, (operand,))


def _pad(given: dict[str, Any]) -> Operation | None:
    widths, mode = given.pop("paddings", None), str(given.pop("mode", "CONSTANT")).lower()
    filling = given.pop("constant_values", 0)
    if given or widths is None or mode not in ("constant", "reflect", "symmetric"):
        return None
    # The value to pad with is an argument of the call, which is none where it means nothing.
    filled = (filling,) if mode == "constant" and filling else ()
    return Operation(_NUMPY, "Pad", {"pad_width": widths, "mode": mode}, filled)


def _one_hot(given: dict[str, Any]) -> Operation | None:
    depth, axis = given.pop("depth", None), given.pop("axis", -1)
    dtype = given.pop("dtype", None) or "float32"
    on, off = given.pop("on_value", None), given.pop("off_value", None)
    if given or not isinstance(depth, int) or on not in (None, 1) or off not in (None, 0):
        return None
    config = {"num_classes": depth, "axis": -1 if axis is None else axis, "dtype": dtype}
    return Operation(_NN, "OneHot", config, ())


def _split(given: dict[str, Any]) -> Operation | None:
    parts, axis = given.pop("num_or_size_splits", None), given.pop("axis", 0)
    number: int | list[int] | None = None
    if isinstance(parts, list) and all(isinstance(n, int) and n >= 0 for n in parts):
        # TensorFlow takes sizes, and Keras takes where to cut.
        number = [sum(parts[: place + 1]) for place in range(len(parts) - 1)]
    elif isinstance(parts, int):
        number = parts
    if number is None or any(value is not None for value in given.values()):
        return None
    return Operation(_NUMPY, "Split", {"indices_or_sections": number, "axis": axis}, ())


def _resize(given: dict[str, Any]) -> Operation | None:
    size, method = given.pop("size", None), str(given.pop("method", "bilinear")).lower()
    antialias = given.pop("antialias", False)
    known = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
    if any(given.values()) or not _are_numbers(size) or len(size) != 2 or method not in known:
        return None
    config = {"size": size, "interpolation": method, "antialias": bool(antialias)}
    return Operation("keras.src.ops.image", "Resize", {**config, "data_format": "channels_last"},
                     ())  # fmt: skip


def _gather(given: dict[str, Any]) -> Operation | None:
    indices, axis = given.pop("indices", None), given.pop("axis", 0)
    if indices is None or any(given.values()):
        return None
    return Operation(_NUMPY, "Take", {"axis": axis or 0}, (indices,))


def _normalize(given: dict[str, Any]) -> Operation | None:
    axis, epsilon = given.pop("axis", None), given.pop("epsilon", 1e-12)
    if given or not isinstance(axis, int) or not isinstance(epsilon, float):
        return None
    # TensorFlow bounds the sum of squares, and Keras the root of it.
    return Operation(_NN, "Normalize", {"axis": axis, "order": 2, "epsilon": epsilon**0.5}, ())


# Those that leave the shape of a tensor as it is.
ELEMENTWISE = frozenset(name for name, known in _FUNCTIONS.items() if not known.made_of) - {
    "where", "nn.bias_add",
}  # fmt: skip

# Functions whose arguments decide together what they are.
_BY_ALL_ARGUMENTS = {
    "linalg.matmul": _matmul,
    "matmul": _matmul,
    "pad": _pad,
    "compat.v1.pad": _pad,
    "one_hot": _one_hot,
    "split": _split,
    "image.resize": _resize,
    "gather": _gather,
    "compat.v1.gather": _gather,
    "math.l2_normalize": _normalize,
    "nn.l2_normalize": _normalize,
}


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in value
    )


def operation_for(function: str, arguments: Mapping[str, Any], is_tensor: Any) -> Operation | None:
    """Return the operation that computes what a call of a TensorFlow function does.

    Args:
        function: Its name without `tf.`.
        arguments: What it is called with after its first argument, by name.
        is_tensor: Tells whether there is a tensor of the model in an argument.

    Returns:
        `None` where there is none that certainly does.

    >>> operation_for("nn.leaky_relu", {"alpha": 0.1}, lambda value: False).config
    {'negative_slope': 0.1}
    """
    given = {name: value for name, value in arguments.items() if name != "name"}
    if function in _BY_ALL_ARGUMENTS:
        found = _BY_ALL_ARGUMENTS[function](given)
        made_of_tensors = found is not None and is_tensor(list(found.config.values()))
        return None if made_of_tensors else found
    known = _FUNCTIONS.get(function)
    if known is None or any(given.get(name) is None for name in known.needed):
        return None
    config = dict(known.defaults)
    for name, value in given.items():
        if name in known.operands:
            continue
        if name in known.made_of and not is_tensor(value):
            config[known.made_of[name]] = value
        elif not any(value is one or value == one for one in known.idle.get(name, ())):
            return None
    operands = tuple(given[name] for name in known.operands)
    return Operation(known.module, known.class_name, config, operands)


def slices(spec: Any, is_tensor: Any) -> list[Any] | None:
    """Return what stands in brackets after a tensor, as Keras 3 writes it; `None` if it cannot.

    >>> slices([{"class_name": "__ellipsis__"}, 0], lambda value: False)
    [{'class_name': '__ellipsis__', 'config': {}}, 0]
    """
    if is_tensor(spec):
        return None
    written: list[Any] = []
    for part in spec if isinstance(spec, list) else [spec]:
        inner = part.get("config", part) if isinstance(part, dict) else part
        if part is None or (isinstance(part, int) and not isinstance(part, bool)):
            written.append(part)
        elif isinstance(part, dict) and part.get("class_name") == "__ellipsis__":
            written.append({"class_name": "__ellipsis__", "config": {}})
        elif isinstance(inner, dict) and {"start", "stop", "step"} <= inner.keys():
            ends = {key: inner[key] for key in ("start", "stop", "step")}
            if not all(end is None or isinstance(end, int) for end in ends.values()):
                return None
            written.append({"class_name": "__slice__", "config": ends})
        else:
            return None
    return written
