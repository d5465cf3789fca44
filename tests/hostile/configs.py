"""Configs that reach for what is not a model: the part of the attack surface that is Keras' own.

Each is a well-formed archive whose config names something else than a layer somewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hostile.parts import (
    PAYLOAD,
    archive,
    compiled,
    dense,
    function,
    h5_model,
    hostile,
    lambda_code,
    legacy,
    node,
    sequential,
    weights,
    written,
)

_NOT_USABLE = "is not a name|cannot be used|missing|untrusted|not trusted|refused|not allowed"


_AT_LOAD = "layer|argument|config|build|built|shape|units|activation|output|cannot be"


def _config(
    name: str, what: str, config: Any, says: str = _NOT_USABLE, *, inspected: bool = True
) -> None:
    def make(folder: Path) -> Path:
        whole = config(folder) if callable(config) else config
        return archive(folder, whole, weights() if _has_dense(whole) else weights({}))

    hostile("config", says, inspected=inspected, name=name, what=what)(make)


def _has_dense(config: Any) -> bool:
    return '"name": "dense"' in str(config).replace("'", '"')


def _layer(
    name: str, what: str, layer: Any, says: str = _NOT_USABLE, *, inspected: bool = True
) -> None:
    def config(folder: Path) -> Any:
        return sequential(layer(folder) if callable(layer) else layer)

    _config(name, what, config, says, inspected=inspected)


def _lambda(folder: Path) -> dict[str, Any]:
    code = {"class_name": "__lambda__", "config": {}}
    code["config"] = dict(
        zip(("code", "defaults", "closure"), lambda_code(folder / "marker"), strict=True)
    )
    return node("Lambda", name="run", function=code)


def _reach(name: str, module: str | None, **more: Any) -> dict[str, Any]:
    return {**node(name, module), "registered_name": name, **more}


# What a class name may reach.
for _name, _module, _class, _what in (
    ("payload-class", PAYLOAD, "Scale", "A class of a module that anyone could have installed."),
    ("os-system", "os", "system", "`os.system` as a class."),
    ("popen", "subprocess", "Popen", "`subprocess.Popen` as a class."),
    ("builtins-exec", "builtins", "exec", "`exec` as a class."),
    ("builtins-open", "builtins", "open", "`open` as a class."),
    ("import-module", "importlib", "import_module", "`importlib.import_module` as a class."),
    ("pathlib", "pathlib", "Path", "A class of the standard library."),
    ("numpy-load", "numpy", "load", "`numpy.load` as a class."),
    ("tensorflow", "tensorflow", "Module", "A class of TensorFlow."),
    ("our-own", "keras_ckpt_tools", "ModelCheckpoint", "A class of this package."),
    ("our-private", "keras_ckpt_tools.storage.commit", "commit", "A function of this package."),
    ("main", "__main__", "Scale", "A class of the running program."),
    ("dunder-class", "keras.layers", "__class__", "A dunder attribute as a class."),
    ("dunder-builtins", "keras", "__builtins__", "The builtins, by way of a module."),
    ("dotted", "keras", "layers.Dense.__init__", "A dotted path as a class."),
    ("keras-src-os", "keras.src.utils.file_utils", "os", "`os`, by way of a Keras module."),
    ("get-file", "keras.utils", "get_file", "`keras.utils.get_file`, which downloads and unpacks."),
    ("load-model", "keras.models", "load_model", "`load_model` as a class of the config."),
    ("unsafe", "keras.config", "enable_unsafe_deserialization", "The switch of the safe mode."),
    ("set-floatx", "keras.config", "set_floatx", "A function that changes Keras' global state."),
    ("callback", "keras.callbacks", "CSVLogger", "A callback, which writes files."),
    ("lambda-callback", "keras.callbacks", "LambdaCallback", "A callback that calls."),
    ("file-editor", "keras.saving", "KerasFileEditor", "Keras' editor of files."),
    ("dataset", "keras.utils", "PyDataset", "A dataset."),
    ("progbar", "keras.utils", "Progbar", "A class of `keras.utils`."),
    ("remote-monitor", "keras.callbacks", "RemoteMonitor", "A callback that sends over the net."),
    ("lookalike", "keras_layers", "Dense", "A module whose name is like Keras'."),
    ("lookalike-dot", "keras.", "Dense", "A module name that ends in a dot."),
    ("parent", "keras.layers.os", "system", "A module through a class's namespace."),
    ("unicode", "\u212aeras.layers", "Dense", "`Keras` with the sign for kelvin."),
):
    _layer(_name, _what, _reach(_class, _module))

for _name, _what, _layer_config in (
    ("registered-lie", "Another package's registered name on a class of Keras.",
     {**dense(), "registered_name": f"{PAYLOAD}>Scale"}),
    ("module-is-a-number", "A module that is a number.", {**dense(), "module": 7}),
    ("registered-is-a-list", "A registered name that is a list.",
     {**dense(), "registered_name": ["x"]}),
    ("code-of-a-savedmodel", "`TFSMLayer`, which runs a SavedModel.",
     node("TFSMLayer", filepath="/etc", call_endpoint="serve")),
    ("torch-wrapper", "`TorchModuleWrapper`, which unpickles.",
     node("TorchModuleWrapper", name="t", module="gASVAA==")),
    ("jax-layer", "`JaxLayer`, which holds functions.", node("JaxLayer", call_fn=function("call"))),
    ("flax-layer", "`FlaxLayer`, which holds a module.", node("FlaxLayer", module="x")),
    ("tfsm-in-wrapper", "`TFSMLayer` within a wrapper.",
     node("TimeDistributed", layer=node("TFSMLayer", filepath="/etc"))),
):  # fmt: skip
    _layer(_name, _what, _layer_config)

for _name, _what, _layer_config in (
    ("optimizer-as-layer", "An optimizer where a layer is expected.",
     node("Adam", "keras.optimizers", learning_rate=0.1)),
    ("initializer-as-layer", "An initializer where a layer is expected.",
     node("Zeros", "keras.initializers")),
    ("model-in-an-array", "A layer list with a number in it.", 7),
    ("missing-argument", "A layer without its argument.", node("Dense", name="dense")),
    ("wrong-argument", "A layer with an argument that it does not have.", dense(run="x")),
    ("wrong-type", "A layer whose units are a list.", dense([1, 2])),
    ("negative-units", "A layer of -5 units.", dense(-5)),
):  # fmt: skip
    _layer(_name, _what, _layer_config, _AT_LOAD, inspected=False)

_layer("lambda", "The bytecode of a `Lambda` layer.", _lambda)
_layer(
    "lambda-in-wrapper",
    "The same within a wrapper.",
    lambda folder: node("TimeDistributed", layer=_lambda(folder)),
)
_layer(
    "lambda-in-bidirectional",
    "The same within a wrapper of a wrapper.",
    lambda folder: node("Bidirectional", layer=node("RNN", cell=_lambda(folder))),
)
_layer(
    "lambda-as-activation",
    "Bytecode as an activation.",
    lambda folder: dense(activation=_lambda(folder)["config"]["function"]),
)
_layer(
    "lambda-by-class-name",
    "A `Lambda` whose class is spelled by its private path.",
    lambda folder: {**_lambda(folder), "module": "keras.src.layers.core.lambda_layer"},
)
_layer(
    "lambda-with-safe-mode-off",
    "A `Lambda` whose config asks for safe mode to be off.",
    lambda folder: {**_lambda(folder), "safe_mode": False},
)

# Functions, and what stands where a function is expected.
for _name, _what, _value in (
    ("function-of-os", "`os.system` as an activation.", function("system", "os")),
    ("function-of-payload", "A function that anyone could have installed.",
     function("call", PAYLOAD)),
    ("function-eval", "`eval` as an activation.", function("eval")),
    ("class-as-function", "A class where a function is expected.",
     function("Scale", PAYLOAD, f"{PAYLOAD}>Scale")),
    ("keras-class-as-function", "A class of Keras as a function.",
     function("Model", "keras.models")),
    ("get-file-as-function", "`get_file` as an activation.", function("get_file", "keras.utils")),
    ("load-as-function", "`load_model` as an activation.",
     function("load_model", "keras.saving")),
    ("dunder-function", "A dunder as a function.", function("__import__")),
    ("function-is-a-dict", "A function whose name is an object.", function({"a": 1})),
    ("bare-dotted", "A dotted path as a bare string.", "os.system"),
    ("bare-import", "A path of a package as a bare string.", f"{PAYLOAD}.call"),
    ("bare-registered", "A registered name as a bare string.", f"{PAYLOAD}>call"),
    ("bare-class", "A class's name as a bare string.", "LambdaCallback"),
):  # fmt: skip
    _layer(f"activation-{_name}", _what, dense(activation=_value), f"{_NOT_USABLE}|activation")

for _place, _what in (
    ("kernel_initializer", "initializer"),
    ("kernel_regularizer", "regularizer"),
    ("kernel_constraint", "constraint"),
):
    _layer(
        f"{_what}-of-payload",
        f"A third-party class as {_what}.",
        dense(**{_place: node("Scale", PAYLOAD)}),
    )
_layer(
    "dtype-of-payload", "A third-party class as dtype policy.", dense(dtype=node("Scale", PAYLOAD))
)
_layer(
    "quantization",
    "A third-party class as quantization config.",
    {**dense(), "quantization_config": node("Scale", PAYLOAD)},
)
_layer(
    "build-config",
    "A third-party class within a build config.",
    {**dense(), "build_config": {"input_shape": node("Scale", PAYLOAD)}},
)
_layer(
    "serialized-type",
    "`__typespec__` of another package's module.",
    dense(units={"class_name": "__typespec__", "spec_name": "Scale", "module": PAYLOAD,
                 "config": [], "registered_name": None}),
)  # fmt: skip
_layer(
    "tensor-of-lies",
    "`__tensor__` whose value is an object.",
    dense(units={"class_name": "__tensor__", "config": {"value": node("Scale", PAYLOAD),
                                                        "dtype": "float32"}}),
)  # fmt: skip
_layer(
    "bytes",
    "`__bytes__` where a number is expected.",
    dense(units={"class_name": "__bytes__", "config": {"value": "x"}}),
    _AT_LOAD,
    inspected=False,
)

# What it was compiled with: `compile=True` would need it, so it is asked for in the tests.
for _place in ("optimizer", "loss", "metrics", "loss_weights"):
    _value: Any = node("Scale", PAYLOAD)
    _config(
        f"compile-{_place}",
        f"A third-party class as `{_place}` of a compiled model.",
        compiled(**{_place: [_value] if _place == "metrics" else _value}),
    )
_config(
    "loss-of-os",
    "`os.system` as the loss.",
    compiled(loss=function("system", "os")),
)


def _functional(**kwargs: Any) -> dict[str, Any]:
    """Return a functional model whose one call has these keyword arguments."""
    tensor = {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 4], "dtype": "float32", "keras_history": ["x", 0, 0]},
    }
    x = {**node("InputLayer", batch_shape=[None, 4], dtype="float32", name="x"), "name": "x"}
    layer = {
        **dense(),
        "name": "dense",
        "inbound_nodes": [{"args": [tensor], "kwargs": kwargs}],
    }
    layers = [{**x, "inbound_nodes": []}, layer]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["dense", 0, 0]]}
    return node("Functional", "keras.src.models.functional", name="net", layers=layers, **ends)


_config("call-argument", "A third-party class as argument of a call.",
        _functional(mask=node("Scale", PAYLOAD)))  # fmt: skip
_config("call-function", "A third-party function as argument of a call.",
        _functional(mask=function("call", PAYLOAD)))  # fmt: skip
_config("call-lambda", "Bytecode as argument of a call.",
        lambda folder: _functional(mask=_lambda(folder)["config"]["function"]))  # fmt: skip


# A key that Keras looks at beside an object, where no object is that is compiled.
_OBJECT = node("Scale", PAYLOAD)
for _name, _what, _value in (
    ("a-list", "a list", [_OBJECT]),
    ("an-object", "an object of its own", _OBJECT),
    ("a-lambda", "bytecode", {"class_name": "__lambda__", "config": {"value": ["4wAAAA==", 0, 0]}}),
    ("text", "text", f"{PAYLOAD}>Scale"),
):
    _config(f"compile-config-is-{_name}", f"A compile config that is {_what}.",
            {**sequential(), "compile_config": _value}, "mapping of arguments")  # fmt: skip
_COMPILED = {"compile_config": {"optimizer": _OBJECT}}
_config("compile-config-of-a-call", "A third-party class as compile config in a call's arguments.",
        _functional(mask={"compile_config": _OBJECT}))  # fmt: skip
_layer("compile-config-of-a-lambda", "The same in the arguments of a `Lambda` layer.",
       node("Lambda", name="l", function=function("relu", "keras.activations"),
            arguments={"compile_config": _OBJECT}))  # fmt: skip
_layer("compile-config-of-a-dtype", "The same under a surplus key of a dtype policy.",
       dense(dtype={**node("DTypePolicy", "keras", name="float32"), **_COMPILED}))  # fmt: skip
_layer("compile-config-of-an-initializer", "The same beside an initializer.",
       dense(kernel_initializer={**node("Zeros", "keras.initializers"), **_COMPILED}))  # fmt: skip
_layer("surplus-key", "A third-party class under a key that Keras does not have.",
       {**dense(), "surplus": {"deep": [[_OBJECT]]}})  # fmt: skip
_layer("type-without-config", "`TypeSpec` as the legacy dialect has it.",
       dense(units={"class_name": "TypeSpec", "type_spec": "kct>Scale", "serialized": []}),
       )  # fmt: skip

for _name, _what, _class in (
    ("escapes", "A class whose name moves the cursor of a terminal.", "Scale\x1b[2J\x1b[1;1H"),
    ("bidirectional", "A class whose name is shown backwards.", "Scale\u202eelacS"),
    ("lines", "A class whose name has lines of its own.", "Scale\u2028it is safe\r\nall is well"),
    ("quotes", "A class whose name ends the code that would be suggested.",
     'Scale"]); open("marker", "w"); ([" '),
    ("markup", "A class whose name is HTML and marks of `rich`.",
     "<script>open('marker')</script>[link=file:///etc]x[/link]"),
):  # fmt: skip
    _layer(f"name-with-{_name}", _what, node(f"kct>{_class}", None))


def _dangling() -> dict[str, Any]:
    config = _functional()
    config["config"]["output_layers"] = [["nowhere", 0, 0]]
    return config


_config("dangling-output", "A functional model whose output is of no layer.", _dangling(),
        _AT_LOAD, inspected=False)  # fmt: skip


# The legacy dialect, whose functions are bare strings and whose safe mode stock Keras forgot.


def _legacy(name: str, what: str, config: Any, training: Any = None) -> None:
    def make(folder: Path) -> Path:
        whole = legacy(config(folder) if callable(config) else config)
        return written(folder / "model.h5", h5_model(whole, training))

    hostile("config", f"{_NOT_USABLE}|layer|JSON", name=f"h5-{name}", what=f"In `.h5`: {what}")(
        make
    )


def _legacy_lambda(folder: Path) -> Any:
    return sequential(
        node("Lambda", name="run", function=lambda_code(folder / "marker"), function_type="lambda")
    )


_legacy("lambda", "the bytecode of a `Lambda` layer.", _legacy_lambda)
_legacy("class", "a third-party class.", sequential(node("Scale", PAYLOAD)))
_legacy("dotted-class", "a class by its path.", sequential(node(f"{PAYLOAD}.Scale", None)))
_legacy("activation", "a function by a bare name.", sequential(dense(activation="call")))
_legacy("registered", "a registered name.", sequential(node(f"{PAYLOAD}>Scale", None)))
_legacy("loss", "a function by a bare name as the loss.", sequential(),
        {"loss": f"{PAYLOAD}>call", "optimizer_config": {"class_name": "SGD", "config": {}}},
        )  # fmt: skip
_legacy("keras-3-function", "a function in Keras 3's dialect.",
        sequential(dense(activation=function("system", "os"))))  # fmt: skip


# Being in Keras' tables is not being trusted; the judge registers these before each load.


@hostile("config", _NOT_USABLE)
def globally_registered(folder: Path) -> Path:
    """A class that some imported package has put into Keras' global registry."""
    layer = {**node("Registered", PAYLOAD), "registered_name": f"{PAYLOAD}>Registered"}
    return archive(folder, sequential(layer), weights({}))


@hostile("config", _NOT_USABLE)
def globally_registered_by_string(folder: Path) -> Path:
    """The same, by a bare string as an activation."""
    return archive(folder, sequential(dense(activation=f"{PAYLOAD}>registered")))


@hostile("config", _NOT_USABLE)
def globally_registered_over_keras(folder: Path) -> Path:
    """A name of Keras' own under which that package has put a class of its own."""
    layer = {**node("HijackedDense", "keras.layers"), "registered_name": "HijackedDense"}
    return archive(folder, sequential(layer), weights({}))
