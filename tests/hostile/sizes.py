"""Small files that ask for a machine's whole memory, or for hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hostile.parts import (
    archive,
    dense,
    function,
    h5_model,
    hostile,
    legacy,
    node,
    sequential,
    weights,
    written,
)

_SAYS = "bytes|memory|GB|TB|large|fit|budget|max_bytes|shape|missing|deep"


def _built(layer: dict[str, Any], *shape: int) -> dict[str, Any]:
    return {**layer, "build_config": {"input_shape": [None, *shape]}}


def _wrapped(levels: int) -> dict[str, Any]:
    layer = dense(1000)
    for level in range(levels):
        layer = node("TimeDistributed", name=f"t{level}", layer=layer)
    return layer


# Nothing of that size is built: the estimate stops at the layer, or the weights are not there.
_AT_LOAD = ("tokens", "upsampling", "not-in-the-file", "pieces-of-the-input", "long-word")


def _model(name: str, what: str, config: Any, values: Any = None, says: str = _SAYS) -> None:
    def make(folder: Path) -> Path:
        return archive(folder, config() if callable(config) else config, weights(values))

    hostile("size", says, inspected=name not in _AT_LOAD, name=name, what=what)(make)


_LARGE = 10**12
for _name, _what, _layers, _shape in (
    ("dense", "A `Dense` layer of 10**12 units: 16 TB from 2 kB.", [dense(_LARGE)], (4,)),
    ("dense-float", "Units that are 1e12.", [dense(1e12)], (4,)),
    ("dense-beyond-64-bits", "Units that are 10**30.", [dense(10**30)], (4,)),
    ("wide-input", "An input of 10**13 numbers.", [dense()], (10**13,)),
    ("embedding", "An `Embedding` of 10**11 rows.",
     [node("Embedding", name="e", input_dim=10**11, output_dim=512)], (4,)),
    ("conv", "A convolution whose kernel is 10**6 wide, high and deep.",
     [node("Conv3D", name="c", filters=1000, kernel_size=[10**6] * 3)], (8, 8, 8, 1)),
    ("lstm", "An LSTM of 10**7 units.", [node("LSTM", name="r", units=10**7)], (4, 4)),
    ("heads", "Attention of 10**6 heads of 10**6.",
     [node("GroupQueryAttention", name="a", head_dim=10**6, num_query_heads=10**6,
           num_key_value_heads=10**6)], (4, 4)),
    ("two-large", "Two `Dense` layers of 10**8 units, one on the other.",
     [dense(10**8), {**dense(10**8), "config": {"name": "b", "units": 10**8}}], (4,)),
    ("bidirectional", "A wrapped LSTM of 10**7 units.",
     [node("Bidirectional", name="b", layer=node("LSTM", name="r", units=10**7))], (4, 4)),
    ("wrapped", "A `Dense` layer in 300 wrappers.", [_wrapped(300)], (4, 4)),
    ("separable", "A depthwise convolution with a multiplier of 10**12.",
     [node("DepthwiseConv2D", name="d", kernel_size=3, depth_multiplier=_LARGE)], (8, 8, 3)),
    ("tokens", "A `CategoryEncoding` of 10**13 tokens.",
     [node("CategoryEncoding", name="k", num_tokens=10**13), dense()], (4,)),
    ("hashing-bins", "A `Dense` layer on a `Flatten` of 10**13 numbers.",
     [node("Flatten", name="f"), dense()], (10**6, 10**7)),
    ("upsampling", "A `Dense` layer on 10**12 times upsampled images.",
     [node("UpSampling2D", name="u", size=[10**6, 10**6]), node("Flatten", name="f"), dense()],
     (8, 8, 1)),
    ("constant", "An initializer of 10**10 numbers in a config of a line.",
     [_built(node("Dense", name="dense", units=10**10,
                  kernel_initializer=node("Identity", "keras.initializers")), 4)], (4,)),
    ("peephole-of-cells", "A thousand stacked cells of 10**5 units.",
     [node("RNN", name="r", cell=node("StackedRNNCells", cells=[
         node("LSTMCell", name=f"c{i}", units=10**5) for i in range(1000)]))], (4, 4)),
):  # fmt: skip
    _model(_name, _what, sequential(*_layers, shape=_shape))

_model(
    "large-batch",
    "An input whose batch is 10**12: every call would be that large.",
    sequential(dense(10**11), shape=(4,)),
)
_model(
    "not-in-the-file",
    "A model of 1 GB whose file has none of its weights.",
    sequential(dense(60_000_000), shape=(4,)),
    {},
)


@hostile("size", "layers|nodes|too many|missing|bytes|values|objects")
def many_layers(folder: Path) -> Path:
    """A model of 100,000 layers without weights."""
    layers = [node("ReLU", name=f"r{index}") for index in range(100_000)]
    return archive(folder, sequential(*layers), weights({}))


@hostile("size", _SAYS)
def h5_dense(folder: Path) -> Path:
    """The `Dense` layer of 10**12 units in an `.h5` file."""
    return written(folder / "model.h5", h5_model(legacy(sequential(dense(_LARGE)))))


@hostile("size", f"{_SAYS}|build", inspected=False)
def vocabulary(folder: Path) -> Path:
    """A vocabulary of 400,000 words inside the config, for a lookup that makes tables of it."""
    words = [f"w{index}" for index in range(400_000)]
    layer = node("StringLookup", name="lookup", vocabulary=words, max_tokens=5)
    return archive(folder, sequential(layer, shape=(1,), dtype="string"), weights({}))


def _graph(*layers: dict[str, Any], shape: tuple[int, ...] = (4,)) -> dict[str, Any]:
    """Return a functional model, whose last layer is its output."""
    first = node("InputLayer", batch_shape=[None, *shape], dtype="float32", name="in")
    return node(
        "Functional",
        "keras.src.models.functional",
        name="net",
        layers=[{**first, "name": "in", "inbound_nodes": []}, *layers],
        input_layers=[["in", 0, 0]],
        output_layers=[[layers[-1]["name"], 0, 0]],
    )


def _called(layer: dict[str, Any], *inputs: Any) -> dict[str, Any]:
    nodes = [{"args": [one], "kwargs": {}} for one in inputs]
    return {**layer, "name": layer["config"]["name"], "inbound_nodes": nodes}


def _output(name: str, call: int = 0) -> dict[str, Any]:
    history = {"shape": [None, 4], "dtype": "float32", "keras_history": [name, call, 0]}
    return {"class_name": "__keras_tensor__", "config": history}


def _multiplied(levels: int) -> dict[str, Any]:
    calls = [_output("in" if call == 0 else "x", max(call - 1, 0)) for call in range(10)]
    model = _called(node("ReLU", name="x"), *calls)
    for _ in range(levels):
        inner = {**_graph(model), "config": {**_graph(model)["config"], "name": "x"}}
        model = _called(inner, *(_output("in" if call == 0 else "x", call) for call in range(10)))
    return {key: value for key, value in model.items() if key not in ("inbound_nodes", "name")}


def _backwards(layers: int) -> dict[str, Any]:
    chain = [
        _called(node("ReLU", name=f"r{i}"), _output(f"r{i - 1}" if i else "in"))
        for i in range(layers)
    ]
    config = _graph(*chain)
    config["config"]["layers"].reverse()
    return config


_CONSTANT = {"class_name": "__tensor__", "config": {"value": [[1.0]], "dtype": "float32"}}
_OPS = "keras.src.ops"
_STEPS = f"{_SAYS}|steps|without a tensor|characters|dtype"


def _metric(name: str, **arguments: Any) -> dict[str, Any]:
    metric = node(name, "keras.metrics", **arguments)
    return {**sequential(), "compile_config": {"optimizer": "sgd", "metrics": [metric]}}


def _policies(pattern: str) -> dict[str, Any]:
    policy = node("DTypePolicy", "keras", name="float32")
    return node("DTypePolicyMap", "keras.dtype_policies", policy_map={pattern: policy})


for _name, _what, _config in (
    ("thresholds", "A metric of 10**9 thresholds.", _metric("AUC", num_thresholds=10**9)),
    ("classes", "A metric of 10**9 classes.", _metric("MeanIoU", num_classes=10**9)),
    ("ngrams", "N-grams of up to 10**9 words.",
     sequential(node("TextVectorization", name="t", ngrams=10**9, standardize=None, split=None),
                shape=(1,), dtype="string")),
    ("unstacked", "A tensor in 10**9 pieces.",
     _graph(_called(node("Unstack", f"{_OPS}.core", name="u", num=10**9, axis=1), _output("in")))),
    ("split", "A tensor in 10**9 sections.",
     _graph(_called(node("Split", f"{_OPS}.numpy", name="s", indices_or_sections=10**9, axis=1),
                    _output("in")))),
    ("eager-upsampling", "A constant, upsampled 10**10 times while the model is built.",
     _graph(_called(node("UpSampling1D", name="u", size=10**10), _CONSTANT),
            _called(node("ReLU", name="r"), _output("in")))),
    ("eager-repeat", "A constant, repeated 10**10 times while the model is built.",
     _graph(_called(node("Repeat", f"{_OPS}.numpy", name="u", repeats=10**10), _CONSTANT),
            _called(node("ReLU", name="r"), _output("in")))),
    ("objects", "A constant whose elements are objects.",
     sequential(node("Dense", name="dense", units=2, kernel_initializer={
         "class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}}))),
    ("models-in-models", "Ten calls of a model of ten calls of one, eight deep.", _multiplied(8)),
    ("backwards", "A graph of 4,000 layers, listed backwards.", _backwards(4000)),
    ("runaway-pattern", "A dtype policy for layers that match `(a+)+b`.",
     sequential(node("Dense", name="a" * 60, units=2, dtype=_policies("(a+)+b")))),
    ("lambda-unstack", "A `Lambda` layer that unstacks into 10**9 tensors.",
     sequential(node("Lambda", name="l", function=function("unstack", "keras.ops"),
                     arguments={"num": 10**9}))),
    ("lambda-diff", "A `Lambda` layer that takes 10**9 differences, one after another.",
     sequential(node("Lambda", name="l", function=function("diff", "keras.ops"),
                     arguments={"n": 10**9, "axis": 1}))),
    ("no-dtype", "A constant of texts without a dtype: NumPy makes all as long as the longest.",
     sequential(node("Dense", name="dense", units={
         "class_name": "__numpy__", "config": {"value": ["x" * 10**6, *"ab" * 500],
                                               "dtype": None}}))),
    ("runaway-of-an-optimizer", "An optimizer that leaves out layers that match `(x+x+)+y`.",
     {**sequential(node("Dense", name="x" * 60, units=2)), "compile_config": {
         "optimizer": node("Muon", "keras.optimizers", exclude_layers=["(x+x+)+y"])}}),
    ("long-name", "A layer whose name has a megabyte: each variable's path has it again.",
     sequential(node("Dense", name="a" * 10**6, units=2))),
):  # fmt: skip
    _model(_name, _what, _config, says=_STEPS)

_WORDS = ["x" * 10**6, *(f"w{number}" for number in range(3000))]
_model(
    "long-word",
    "A vocabulary with one word of a megabyte: NumPy makes 3,000 others as long.",
    sequential(node("StringLookup", name="k", vocabulary=_WORDS), shape=(1,), dtype="string"),
    {},
    "longest word",
)


@hostile("size", "longest word", inspected=False)
def long_word_in_assets(folder: Path) -> Path:
    """The same in the file of a vocabulary."""
    layer = node("StringLookup", name="k")
    words = "\n".join(["[UNK]", *_WORDS]).encode()
    config = sequential(layer, shape=(1,), dtype="string")
    vocabulary = {"assets/layers/string_lookup/vocabulary.txt": words}
    return archive(folder, config, weights({}), **vocabulary)


@hostile("size", "thresholds")
def h5_unnamed_thresholds(folder: Path) -> Path:
    """The metric of 10**9 thresholds in an `.h5` file, under an empty registered name."""
    metric = {"class_name": "AUC", "config": {"num_thresholds": 10**9}, "registered_name": ""}
    training = {"loss": "mse", "metrics": [metric],
                "optimizer_config": {"class_name": "SGD", "config": {}}}  # fmt: skip
    return written(folder / "model.h5", h5_model(None, training))


_model(
    "pieces-of-the-input",
    "An input of 10**9 rows, each of which becomes a tensor of its own.",
    _graph(
        _called(node("Unstack", f"{_OPS}.core", name="u", axis=1), _output("in")), shape=(10**9,)
    ),
)
