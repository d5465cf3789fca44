"""A config cannot ask for hours or gigabytes while Keras builds, whichever number asks for it."""

from __future__ import annotations

import json
import math
import threading
import time
import zipfile

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, DamagedArtefactError, OverBudgetError
from keras_ckpt_tools.inspection.bounds import check_bounds, pattern_steps
from keras_ckpt_tools.inspection.size_estimate import MOST_STEPS, mappings, steps
from keras_ckpt_tools.loading import deadline
from keras_ckpt_tools.loading.built_once import sequential_models_built_once


def node(kind, module="keras.layers", **arguments):
    """Return the config of an object of Keras'."""
    return {"module": module, "class_name": kind, "config": arguments, "registered_name": None}


def tensor(name, index=0):
    """Return the output of a layer as an argument of another."""
    history = {"shape": [None, 4], "dtype": "float32", "keras_history": [name, index, 0]}
    return {"class_name": "__keras_tensor__", "config": history}


def called(kind, name, *inputs, module="keras.layers", **arguments):
    """Return a layer of a graph that is called once for each of these inputs."""
    nodes = [{"args": [given], "kwargs": {}} for given in inputs]
    config = node(kind, module, name=name, **arguments)
    return {**config, "name": name, "inbound_nodes": nodes}


def graph(*layers, out, batch_shape=(None, 4)):
    """Return a functional model of these layers, behind an input called `in`."""
    first = called("InputLayer", "in", batch_shape=list(batch_shape), dtype="float32")
    module = "keras.src.models.functional"
    return node(
        "Functional",
        module,
        name="net",
        layers=[first, *layers],
        input_layers=[["in", 0, 0]],
        output_layers=[[out, 0, 0]],
    )


def refused(path, names, says, kind=OverBudgetError, **more):
    """Assert that load and report refuse a file, for one reason."""
    with pytest.raises(kind, match=says):
        kct.safe_load_model(path, registry=names, compile=False, **more)
    problems = kct.inspect(path, registry=names).problems
    assert [problem.kind for problem in problems] == [kind.__name__]


COMPILED = {
    "AUC": {"num_thresholds": 10**9},
    "PrecisionAtRecall": {"recall": 0.5, "num_thresholds": 10**9},
    "RecallAtPrecision": {"precision": 0.5, "num_thresholds": 10**9},
    "SensitivityAtSpecificity": {"specificity": 0.5, "num_thresholds": 10**9},
    "SpecificityAtSensitivity": {"sensitivity": 0.5, "num_thresholds": 10**9},
    "MeanIoU": {"num_classes": 10**9},
    "OneHotMeanIoU": {"num_classes": 10**9},
}


@pytest.mark.parametrize("name", COMPILED)
def test_numbers_of_metrics_have_a_bound(name, forge, chain, layer, names):
    """They become lists the moment the metric is made."""
    metric = node(name, "keras.metrics", **COMPILED[name])
    config = chain(layer("ReLU"), compile_config={"optimizer": "sgd", "metrics": [metric]})
    refused(forge(config), names, f"its {name} has, as its `num_")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("TextVectorization", {"ngrams": 10**9}),
        ("TextVectorization", {"ngrams": list(range(2_000))}),
        ("StringLookup", {"num_oov_indices": 10**9, "vocabulary": ["a"]}),
        ("IntegerLookup", {"num_oov_indices": 10**9, "vocabulary": [1]}),
    ],
)
def test_numbers_of_layers_have_a_bound(name, arguments, forge, chain, layer, names):
    """Those that become a list in one call into C, before any variable is made."""
    refused(forge(chain(layer(name, **arguments))), names, f"its {name} has, as its")


@pytest.mark.parametrize(
    ("name", "module", "arguments"),
    [
        ("Unstack", "core", {"num": 10**9, "axis": 1}),
        ("Split", "numpy", {"indices_or_sections": 10**9, "axis": 1}),
        ("Split", "numpy", {"indices_or_sections": [1] * 200_000, "axis": 1}),
        ("ArraySplit", "numpy", {"indices_or_sections": 10**9, "axis": 1}),
    ],
)
def test_operations_have_a_bound_on_outputs(name, module, arguments, forge, names):
    """Each output is an object of its own."""
    split = called(name, "s", tensor("in"), module=f"keras.src.ops.{module}", **arguments)
    refused(forge(graph(split, out="s")), names, f"its {name} has, as its")


def test_symbolic_tensors_are_counted(forge, names):
    """Where the shape of the input says how many there are, no argument does."""
    split = called("Unstack", "s", tensor("in"), module="keras.src.ops.core", axis=1)
    path = forge(graph(split, out="s", batch_shape=[None, 10**9]))
    with pytest.raises(OverBudgetError, match="building its model takes 268,") as caught:
        kct.safe_load_model(path, registry=names)
    assert caught.value.limit == "config_bytes"
    with pytest.raises(OverBudgetError) as caught:
        kct.safe_load_model(path, registry=names, max_bytes=10**7)
    assert caught.value.limit == "max_bytes"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("unstack", {"num": 10**8}),
        ("split", {"indices_or_sections": 10**8}),
        ("array_split", {"indices_or_sections": 10**8}),
        ("diff", {"n": 10**8}),
    ],
)
def test_functions_of_keras_in_a_lambda_have_the_bounds_of_the_operation(
    function, arguments, forge, chain, layer, names
):
    """With the arguments that the layer gives to them."""
    called = {"module": "keras.ops", "class_name": "function", "config": function,
              "registered_name": function}  # fmt: skip
    path = forge(chain(layer("Lambda", function=called, arguments=arguments)))
    refused(path, names, "has, as its")


def test_an_empty_registered_name_hides_nothing_from_the_bounds(forge, chain, layer, names):
    """Keras takes it for none, where a config names no module."""
    metric = {"class_name": "AUC", "config": {"num_thresholds": 10**9}, "registered_name": ""}
    layers = chain(layer("TextVectorization", ngrams=10**9))
    layers["config"]["layers"][-1]["registered_name"] = ""
    found = mappings({**chain(layer("Dense", units=1)), "compile_config": {"metrics": [metric]}})
    for configs in (found, mappings(layers)):
        with pytest.raises(OverBudgetError, match="has, as its"):
            check_bounds("model.h5", configs)


WORDS = ["x" * 1_000_000, *(f"w{number}" for number in range(500))]


@pytest.mark.parametrize("place", ["vocabulary", "assets"])
def test_one_long_word_does_not_make_all_others_as_long(place, forge, chain, layer, names):
    """NumPy makes an array of a vocabulary: of 500 words it would take two gigabytes here."""
    path = forge(chain(layer("StringLookup", **{} if place == "assets" else {place: WORDS})))
    if place == "assets":
        with zipfile.ZipFile(path, "a") as archive:
            member = "assets/layers/string_lookup/vocabulary.txt"
            archive.writestr(member, "\n".join(["[UNK]", *WORDS]))
    with pytest.raises(OverBudgetError, match="longest word"):
        kct.safe_load_model(path, registry=names)


CONSTANT = {"class_name": "__tensor__", "config": {"value": [[1.0]], "dtype": "float32"}}


@pytest.mark.parametrize(
    ("kind", "module", "arguments"),
    [
        ("UpSampling1D", "keras.layers", {"size": 10**10}),
        ("ZeroPadding1D", "keras.layers", {"padding": 10**10}),
        ("RepeatVector", "keras.layers", {"n": 10**10}),
        ("Repeat", "keras.src.ops.numpy", {"repeats": 10**10}),
        ("Tile", "keras.src.ops.numpy", {"repeats": [10**6, 10**6]}),
        ("Pad", "keras.src.ops.numpy", {"pad_width": 10**9}),
        ("SVD", "keras.src.ops.linalg", {}),
    ],
)
def test_nothing_is_computed_on_constants(kind, module, arguments, forge, names):
    """A call without a symbolic input is computed at once; Keras never writes one."""
    eager = called(kind, "e", CONSTANT, module=module, **arguments)
    path = forge(graph(eager, called("ReLU", "r", tensor("in")), out="r"))
    refused(path, names, "'e' is called without a tensor", DamagedArtefactError)


@pytest.mark.parametrize(
    "dtype", ["object", "S1000000000", "str", ["S9"], {"names": ["a"]}, 7, None]
)
def test_constants_are_numbers(dtype, forge, chain, layer, names):
    """An element that is an object or a string takes any amount of memory."""
    value = {"class_name": "__numpy__", "config": {"value": [1], "dtype": dtype}}
    path = forge(chain(layer("Dense", units=1, kernel_initializer=value)))
    refused(path, names, "is not a tensor dtype", DamagedArtefactError)


def nested(levels, calls=10):
    """Return a layer in a model in a model, each called so often by the next."""
    model = called(
        "ReLU", "x", *(tensor("in" if i == 0 else "x", max(i - 1, 0)) for i in range(calls))
    )
    for _ in range(levels):
        config = graph(model, out="x")
        nodes = [tensor("in" if i == 0 else "x", i) for i in range(calls)]
        model = {**called("", "x", *nodes), **config, "name": "x"}
    return model


def test_models_within_models_do_not_multiply(forge, names):
    """Ten calls of a model that calls another ten times, eight levels deep."""
    config = {key: value for key, value in nested(8).items() if key != "inbound_nodes"}
    assert steps(config) > 10**8
    refused(forge(config), names, "to build its model takes [0-9,]* steps")


def test_a_graph_backwards_is_refused(forge, names):
    """Keras would try every layer again for every other one; it writes graphs forwards."""
    number = 4_000
    layers = [called("ReLU", f"r{i}", tensor(f"r{i - 1}" if i else "in")) for i in range(number)]
    backwards = graph(*reversed(layers), out=f"r{number - 1}")
    assert steps(graph(*layers, out=f"r{number - 1}")) == 2 * (number + 1)
    assert steps(backwards) > MOST_STEPS
    refused(forge(backwards), names, "to build its model takes [0-9,]* steps")


class Counted(keras.layers.Layer):
    """Counts how often it is called."""

    calls = 0

    def call(self, x):
        Counted.calls += 1
        return x


def test_a_sequential_model_is_built_once(forge, chain, layer, names):
    """Keras builds it again for each layer; a hundred layers are five thousand calls."""
    Counted.calls = 0
    custom = {"module": None, "class_name": "Counted", "registered_name": "Counted"}
    layers = [{**custom, "config": {"name": f"c{i}"}} for i in range(60)]
    inner = {**chain(*layers[:20])}
    inner["config"] = {**inner["config"], "name": "inner"}
    path = forge(
        chain(inner, layer("Dense", units=2, name="d"), *layers[20:]),
        {"layers/dense/vars/0": np.ones((4, 2), "f4"), "layers/dense/vars/1": np.ones(2, "f4")},
    )
    model = kct.safe_load_model(path, registry=names, custom_objects={"Counted": Counted})
    assert Counted.calls < 200
    assert model.built
    assert len(model.layers) == 42
    assert model.predict(np.ones((1, 4)), verbose=0).tolist() == [[5.0, 5.0]]


def test_built_once_is_built_the_same(build_custom):
    """Also where a class makes a `Sequential` of its own meanwhile, and nothing is left behind."""

    class Own(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = keras.Sequential([keras.Input((4,))])
            self.inner.add(keras.layers.Dense(4))
            assert self.inner.built
            assert self.inner.output_shape == (None, 4)

        def call(self, x):
            return self.inner(x)

    before = {**vars(keras.Sequential)}
    model = keras.Sequential([keras.Input((4,)), Own(), keras.layers.Dense(2)])
    config = json.loads(json.dumps(model.get_config()))
    with sequential_models_built_once():
        again = keras.Sequential.from_config(config, custom_objects={"Own": Own})
    assert again.output_shape == (None, 2)
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert {**vars(keras.Sequential)} == before
    twice = [*config["layers"], config["layers"][-1]]
    with sequential_models_built_once(), pytest.raises(ValueError, match="unique"):
        keras.Sequential.from_config({**config, "layers": twice}, custom_objects={"Own": Own})


RUNAWAY = ["(a+)+b", "(a|a)*b", "(.*a){20}", "((a?){30})+", r"(.)\1", "(?>(a*)*b)", "a*" * 12]
HARMLESS = [
    "encoder/.*",
    "decoder/layer_[0-9]+/.*",
    ".*/attention/.*/kernel.*",
    "encoder/.*/attn/.*/query.*",
    "(?:query|key|value)_proj",
    "(a|b)?c",
    "a{1000}",
    "(((",
]


@pytest.mark.parametrize("pattern", RUNAWAY)
def test_patterns_that_could_run_away_are_refused(pattern, forge, chain, layer, names):
    """Keras matches them with every path, in one call that nothing can interrupt."""
    policies = {pattern: node("DTypePolicy", "keras", name="float32")}
    policy = node(
        "DTypePolicyMap", "keras.dtype_policies", default_policy=None, policy_map=policies
    )
    path = forge(chain(layer("Dense", units=1, dtype=policy, name="a" * 40)))
    refused(path, names, "one match of the pattern")
    muon = node("Muon", "keras.optimizers", exclude_layers=[pattern])
    path = forge(chain(layer("ReLU", name="a" * 40), compile_config={"optimizer": muon}))
    problems = kct.inspect(path, registry=names).problems
    assert any("one match of the pattern" in problem.what for problem in problems)


@pytest.mark.parametrize("pattern", HARMLESS)
def test_patterns_that_people_write_are_not(pattern):
    """With names of eighty characters, five deep."""
    assert pattern_steps(pattern, 400) <= 10**9


@pytest.mark.parametrize("key", ["name", "equation", "pattern"])
def test_texts_that_keras_parses_or_repeats_have_a_bound(key, forge, chain, layer, names):
    """The name of a layer is a part of the path of each of its variables."""
    path = forge(chain(layer("EinsumDense", **{key: "a" * 2000})))
    refused(path, names, f"its EinsumDense has, as its `{key}`, 2,000 characters")


class Endless(keras.layers.Layer):
    """Runs on while it is made, whatever is raised."""

    stubborn = False
    seen = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                while time.monotonic() < end:
                    pass
            except BaseException:
                Endless.seen += 1
                if not Endless.stubborn or Endless.seen > 2:
                    raise


class Symbolic(keras.layers.Layer):
    """Makes symbolic tensors without end."""

    def compute_output_spec(self, x):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            x = keras.KerasTensor(x.shape, x.dtype)
            time.sleep(0.001)
        return x


@pytest.mark.parametrize("kind", ["Endless", "Stubborn", "Symbolic"])
def test_max_seconds_ends_a_build(kind, forge, chain, names, monkeypatch):
    """In the middle of Python code, and where Keras makes tensors; afterwards all is as it was."""
    monkeypatch.setattr(deadline, "_GRACE", 0.1)
    monkeypatch.setattr(Endless, "stubborn", kind == "Stubborn")
    monkeypatch.setattr(Endless, "seen", 0)
    cls = Symbolic if kind == "Symbolic" else Endless
    custom = {"module": None, "class_name": "Slow", "registered_name": "Slow"}
    path = forge(chain({**custom, "config": {"name": "slow"}}))
    before, threads = keras.KerasTensor.__init__, threading.active_count()
    with pytest.raises(OverBudgetError, match=f"at {cls.__name__} 'slow'") as caught:
        kct.safe_load_model(path, registry=names, custom_objects={"Slow": cls}, max_seconds=0.3)
    assert caught.value.limit == "max_seconds"
    assert 0.3 <= caught.value.needed < 25
    assert f"max_seconds={math.ceil(caught.value.needed * 10)}" in caught.value.remedy
    assert "seconds, and 0.3 are allowed" in str(caught.value)
    assert keras.KerasTensor.__init__ is before
    assert threading.active_count() == threads
    assert "Slow" not in keras.saving.get_custom_objects()
    assert Endless.seen == {"Endless": 1, "Stubborn": 3, "Symbolic": 0}[kind]
    assert keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).built


def test_waiting_does_not_count_by_default():
    """A debugger, a slow disk or a busy machine is no fault of the file's."""
    clock = deadline.Clock(0.05, counts_waiting=False)
    other = deadline.Clock(0.05, counts_waiting=True)
    with clock.running():
        time.sleep(0.2)
        assert clock.elapsed < 0.2 <= other.elapsed


def test_a_clock_that_was_stopped_interrupts_nothing(monkeypatch):
    """Neither later, nor where it is stopped twice."""
    monkeypatch.setattr(deadline, "_GRACE", 0.0)
    for _ in range(20):
        clock = deadline.Clock(1e-4, counts_waiting=True)
        try:
            with clock.running():
                pass
        except deadline.OutOfTime:
            pass
        clock.stop()
    for _ in range(10_000):
        pass


@pytest.mark.parametrize("seconds", [0, -1, True, "5", float("nan"), float("inf")])
def test_max_seconds_is_a_positive_number(seconds):
    """And is told so before the file is opened."""
    with pytest.raises(ArgumentError, match="max_seconds"):
        kct.safe_load_model("nowhere.keras", max_seconds=seconds)


GOOD = {
    "metrics": lambda: (
        [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")],
        [keras.metrics.AUC(num_thresholds=1000), keras.metrics.MeanIoU(100)],
    ),
    "words": lambda: (
        [
            keras.Input((1,), dtype="string"),
            keras.layers.TextVectorization(
                ngrams=3, vocabulary=[f"w{i}" for i in range(50_000)], output_sequence_length=8
            ),
            keras.layers.Embedding(50_002, 8),
            keras.layers.GlobalAveragePooling1D(),
        ],
        [],
    ),
    "numbers": lambda: (
        [
            keras.Input((4,), dtype="int64"),
            keras.layers.Hashing(num_bins=10**12),
            keras.layers.Rescaling(1e-9, offset=10**9),
        ],
        [],
    ),
    "large shapes": lambda: (
        [
            keras.Input((4,)),
            keras.layers.RepeatVector(10**6),
            keras.layers.UpSampling1D(1000),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dense(1, dtype=keras.dtype_policies.DTypePolicyMap("float32", {
                "net/.*/dense.*": keras.DTypePolicy("float32")})),
        ],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_numbers_that_good_models_have_are_not_refused(name, tmp_path, save):
    """Large ones too, where they cost nothing."""
    layers, metrics = GOOD[name]()
    model = keras.Sequential(layers, name="net")
    model.compile("sgd", "mse", metrics=metrics)
    path = save(model, tmp_path / "good.keras")
    assert not [p for p in kct.inspect(path).problems if p.severity == "error"]
    assert kct.safe_load_model(path).output_shape == model.output_shape


def test_large_graphs_are_far_from_every_bound():
    """The deepest and the widest of `keras.applications`."""
    model = keras.applications.MobileNetV2(weights=None)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    assert steps(config) * 100 < MOST_STEPS
    assert steps(config) <= 2 * len(config["config"]["layers"])


WIDE = [1, 60_000, 60_000]


def wide(*layers):
    """Return a config whose layers get 14 GB, which nobody makes as long as nobody computes."""
    first = node("InputLayer", batch_shape=WIDE, dtype="float32", name="input_layer")
    return node("Sequential", "keras", name="net", layers=[first, *layers])


def function(name, module):
    """Return the config of a function of Keras'."""
    plain = {"module": module, "class_name": "function", "config": name}
    return {**plain, "registered_name": name}


RELU = function("relu", "keras.activations")


def written(folder, config):
    """Write a `.keras` with a config and no weights."""
    keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]).save(folder / "empty.keras")
    with zipfile.ZipFile(folder / "empty.keras") as old:
        members = {name: old.read(name) for name in old.namelist()}
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(folder / "forged.keras", "w") as new:
        for name, data in members.items():
            new.writestr(name, data)
    return folder / "forged.keras"


@pytest.mark.parametrize(
    "shape",
    [
        function("zeros", "keras.ops"),
        function("ones", "keras.ops"),
        node("Zeros", "keras.initializers"),
        node("Orthogonal", "keras.initializers"),
    ],
    ids=["zeros", "ones", "Zeros", "Orthogonal"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_output_shape_that_keras_would_compute_is_refused(shape, wrapped, tmp_path, names):
    """Keras calls it with the shape of the input: `zeros` makes an array of that shape."""
    layer = node("Lambda", name="l", function=RELU, output_shape=shape)
    layer = node("TimeDistributed", name="t", layer=layer) if wrapped else layer
    path = written(tmp_path, wide(layer))
    assert "computes its output shape" in str(kct.inspect(path).problems[0])
    with pytest.raises(DamagedArtefactError, match=r"layer 'l' computes its output shape"):
        kct.safe_load_model(path, registry=names)


def test_output_shape_that_a_model_has_loads(tmp_path, names):
    """A tuple, or a function of the author's own."""

    @names.register("shapes")
    def same(shape):
        return shape

    for shape in ((4,), same):
        layer = keras.layers.Lambda(keras.ops.relu, output_shape=shape, name="l")
        keras.Sequential([keras.Input((4,)), layer]).save(tmp_path / "net.keras")
        loaded = kct.safe_load_model(tmp_path / "net.keras", registry=names)
        assert loaded.output_shape == (None, 4)


@pytest.mark.parametrize("before", [[], [node("Identity", name="i")], [node("ReLU", name="r")]])
def test_mean_and_variance_that_become_as_large_as_the_input_are_counted(before, tmp_path, names):
    """Two numbers of a config became 28 GB, whatever stood between the input and the layer."""
    layer = node("Normalization", name="n", axis=[1, 2], mean=1.0, variance=1.0)
    path = written(tmp_path, wide(*before, layer))
    with pytest.raises(OverBudgetError, match="building its model takes 14,4"):
        kct.safe_load_model(path, registry=names)
    normal = keras.layers.Normalization(axis=[1, 2], mean=1.0, variance=2.0)
    keras.Sequential([keras.Input((60, 60)), normal]).save(tmp_path / "net.keras")
    assert kct.safe_load_model(tmp_path / "net.keras", registry=names)


def test_states_of_a_large_batch_are_counted_before_they_are_made(tmp_path, names):
    """Keras makes zeros of the size of the batch, and variables of these only then."""
    layer = node("GRU", name="g", units=10, stateful=True)
    first = node("InputLayer", batch_shape=[10**9, 2, 1], dtype="float32", name="input_layer")
    config = node("Sequential", "keras", name="net", layers=[first, layer])
    with pytest.raises(
        OverBudgetError, match=r"building its model takes 40,\d{3},\d{3},\d{3} bytes"
    ):
        kct.safe_load_model(written(tmp_path, config), registry=names)


def test_axes_of_symbolic_tensors_have_a_bound(tmp_path, names):
    """Forty operations that square a shape made numbers of a trillion digits of it."""
    module = "keras.src.ops.numpy"
    layers = [
        called("Kron", f"k{i}", [tensor("in" if i == 0 else f"k{i - 1}")] * 2, module=module)
        for i in range(40)
    ]
    for layer in layers:
        layer["inbound_nodes"][0]["args"] = layer["inbound_nodes"][0]["args"][0]
    config = graph(*layers, out="k39", batch_shape=(4, 4))
    with pytest.raises(OverBudgetError, match="has an axis of"):
        kct.safe_load_model(written(tmp_path, config), registry=names, max_seconds=100)
