"""To inspect a file costs time and memory in proportion to its size, whatever its config says.

Calls of functions and the peak of Python's memory are counted, because both are the same on every
machine. Each config is made in two sizes: what is quadratic would cost four times as much for the
larger one.
"""

from __future__ import annotations

import cProfile
import json
import tracemalloc

import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.inspection.size_estimate import _inbound

BYTES_PER_BYTE = 60
"""The most memory that a byte of a config costs while it is inspected."""
CALLS_PER_BYTE = 20
"""The most calls of functions that a byte of a config costs."""
OVERHEAD_BYTES, OVERHEAD_CALLS = 2_000_000, 200_000
"""What any file costs, and the hundred names for which similar ones are looked up."""
SIZE = 40_000


def node(kind, module="keras.layers", **arguments):
    """Return the config of an object of Keras'."""
    return {"module": module, "class_name": kind, "config": arguments, "registered_name": None}


def model(*layers, **more):
    """Return the config of a model of these layers."""
    return {**node("Sequential", "keras", name="n", layers=list(layers)), **more}


def graph(*layers):
    """Return the config of a functional model of these layers."""
    outside = {"input_layers": [["a", 0, 0]], "output_layers": [["a", 0, 0]]}
    return node(
        "Functional", "keras.src.models.functional", name="n", layers=list(layers), **outside
    )


def called(*args, name="a", times=1):
    """Return a layer of a graph."""
    nodes = [{"args": list(args), "kwargs": {}}] * times
    return {**node("Add"), "name": name, "inbound_nodes": nodes}


def below(keys, value):
    """Return a value below mappings with one key each."""
    for key in keys:
        value = {key: value}
    return value


def function():
    """Return the config of a function."""
    return {"class_name": "function", "module": "m", "config": "f", "registered_name": "f"}


HISTORY = {"shape": [None, 4], "dtype": "float32", "keras_history": ["a", 0, 0]}
TENSOR = {"class_name": "__keras_tensor__", "config": HISTORY}
LAMBDA = {"class_name": "__lambda__", "config": {}}
DIGITS = "9" * 4000

ADVERSARIES = {
    "a long key above many names": lambda n: model(
        {"k" * (n // 2): [node("Dense", units=1) for _ in range(n // 200)]}
    ),
    "long keys above each other": lambda n: below(
        ["k" * (n // 300)] * 120, [node("Dense") for _ in range(n // 150)]
    ),
    "a long name above functions": lambda n: model(
        node("Dense", name="k" * (n // 2), activation=[function() for _ in range(n // 160)])
    ),
    "a long name above code": lambda n: model(
        node("Dense", name="k" * (n // 2), x=[LAMBDA] * (n // 90))
    ),
    "many inputs": lambda n: graph(called(*[TENSOR] * (n // 130))),
    "inputs that are none": lambda n: graph(called(TENSOR, list(range(n // 8)))),
    "many nodes": lambda n: graph(called(TENSOR, times=n // 150)),
    "a graph backwards": lambda n: graph(
        *[
            {**node("Add"), "name": f"r{i}", "inbound_nodes": [[[f"r{i + 1}", 0, 0]]]}
            for i in range(n // 130)
        ]
    ),
    "long integers": lambda n: model(
        *[node("Dense", units=int(DIGITS)) for _ in range(n // 4100)]
    ),
    "products of long integers": lambda n: model(
        node("Conv1D", filters=int(DIGITS), kernel_size=[int(DIGITS)] * (n // 4100))
    ),
    "shapes of long integers": lambda n: model(
        node("InputLayer", batch_shape=[None, *[int(DIGITS)] * (n // 4100)]),
        node("Flatten"),
        node("Dense", units=int(DIGITS)),
        node("LSTM", units=1, unroll=True, batch_shape=[None, int(DIGITS), 1]),
        node("RandAugment", num_ops=int(DIGITS)),
        node("AUC", "keras.metrics", num_thresholds=int(DIGITS)),
    ),
    "a number of many digits": lambda n: f'{{"class_name": "Model", "config": {{"x": {"9" * n}}}}}',
    "unknown names": lambda n: model(*[node(f"Custom{i}", "m") for i in range(n // 100)]),
    "long unknown names": lambda n: model(*[node("k" * (n // i), "m") for i in (2, 3)]),
    "losses by name": lambda n: model(
        compile_config={"loss": [f"a_loss_{i}" for i in range(n // 18)]}
    ),
    "large floats": lambda n: model(node("Conv1D", filters=1e308, kernel_size=[1e308] * (n // 8))),
    "empty lists": lambda n: model(node("Dense", x=[[]] * (n // 4))),
    "empty mappings": lambda n: model(node("Dense", x=[{}] * (n // 4))),
    "models in models": lambda n: model(*[model(node("ReLU")) for _ in range(n // 200)]),
    "patterns": lambda n: model(
        node(
            "Dense",
            name="d" * 1000,
            dtype=node("DTypePolicyMap", "keras.dtype_policies", policy_map={
                f"x{i}.*": None for i in range(n // 16)}),
        )
    ),
    "the legacy dialect": lambda n: {
        "class_name": "Functional",
        "config": {
            "layers": [
                {
                    "class_name": "ReLU",
                    "name": f"r{i}",
                    "config": {},
                    "inbound_nodes": [[[f"r{i - 1}", 0, 0, {}]]],
                }
                for i in range(n // 100)
            ],
            "input_layers": [["r0", 0, 0]],
            "output_layers": [["r0", 0, 0]],
        },
    },
}  # fmt: skip


def calls_of(function):
    """Return how many functions are called, those written in C included."""
    # In C, because a function of Python's that counts takes longer than all that it counts.
    profile = cProfile.Profile()
    profile.runcall(function)
    return sum(entry.callcount for entry in profile.getstats())


def peak_of(function):
    """Return the most memory that Python objects take meanwhile."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def crowded(names):
    """A registry of many names, to which each unknown one could be near."""
    for number in range(20):
        kind = type("Thing", (), {"get_config": dict, "from_config": classmethod(lambda c, _: c())})
        names.register("my_package", name=f"CustomThing{number}")(kind)
    return names


@pytest.mark.parametrize("name", ADVERSARIES)
def test_the_cost_of_a_config_is_linear(name, forge, crowded):
    """No more than so many calls and bytes for each byte; and only errors of ours come out."""
    costs = []
    for size in (SIZE, 2 * SIZE):
        config = ADVERSARIES[name](size)
        length = len(config if isinstance(config, str) else json.dumps(config))
        assert size / 3 < length < size * 3
        path = forge(config)
        calls = calls_of(lambda path=path: kct.inspect(path, registry=crowded))
        assert calls < OVERHEAD_CALLS + CALLS_PER_BYTE * length, calls / length
        costs.append(calls)
    peak = peak_of(lambda: str(kct.inspect(path, registry=crowded)))
    assert peak < OVERHEAD_BYTES + BYTES_PER_BYTE * length, peak / length
    assert costs[1] < 2.5 * costs[0] + OVERHEAD_CALLS


def test_inputs_are_read_from_both_ends_of_a_queue():
    """A list that gives its first item away moves all others; no count of calls shows that."""
    constants = _inbound({"inbound_nodes": [{"args": [list(range(400_000)), TENSOR]}]})
    assert constants == ["a"]
