"""A snapshot holds the values of the moment of the call, whatever training does after that.

On TensorFlow it copies nothing: it shares buffers, and TensorFlow writes new values into new ones.
Whether that holds is a matter of which operation writes, so all ways to write are tried.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ckpt_tools.formats.hdf5.writer import write_weights
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.live import bulk_read, state
from keras_ckpt_tools.live.keras_walk import Structure, structure_of
from keras_ckpt_tools.live.snapshot import Part, Snapshot, Snapshots
from keras_ckpt_tools.metadata import Record, TrainingProgress
from keras_ckpt_tools.storage import commit
from keras_ckpt_tools.storage.commit import staged
from keras_ckpt_tools.training import writing

_OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.1, amsgrad=True),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.1, momentum=0.5),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, use_ema=True, ema_overwrite_frequency=2),
    "Lion": lambda: keras.optimizers.Lion(0.1),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.1),
}


def _dense() -> tuple[keras.Model, Any, Any]:
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(1),
        ]
    )
    return model, np.random.rand(16, 8).astype("float32"), np.random.rand(16, 1).astype("float32")


def _sparse() -> tuple[keras.Model, Any, Any]:
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(20, 8),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    # Only some rows are touched, which TensorFlow updates by `IndexedSlices`, in place.
    return model, np.random.randint(0, 5, (16, 3)), np.random.rand(16, 1).astype("float32")


def _part(model: keras.Model) -> Part:
    return Part("", lambda: state.capture(model), structure_of(model))


def _copies(model: keras.Model) -> dict[str, np.ndarray]:
    """Return all state by path, copied the slow and safe way."""
    return {path: _copy(value) for path, value in state.capture(model).values.items()}


def _copy(value: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(value) if hasattr(value, "dtype") else np.asarray(value)
    return np.array(array, copy=True)


def _written(snapshot: Snapshot, path: Path) -> dict[str, np.ndarray]:
    with staged(path) as file:
        write_weights(file.write, snapshot, Record("weights", {}, TrainingProgress()))
    with open_source(path) as source:
        assert source.verify() == ()
        return {name: source.read(name) for name in source.tensors}


def _changed(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    assert one.keys() == other.keys()
    return [path for path in one if not _same(one[path], other[path])]


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("kind", [_dense, _sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("optimizer", "jit", "policy"),
    [
        *((name, False, "float32") for name in _OPTIMIZERS),
        # XLA takes long to compile the others, and updates by the same operations.
        *((name, True, "float32") for name in ("SGD", "Adam", "AdamW", "Lion")),
        ("Adam", False, "mixed_float16"),
        ("Adam", False, "mixed_bfloat16"),
        ("SGD", False, "bfloat16"),
    ],
)
def test_a_snapshot_is_of_its_moment_while_training_goes_on(
    kind: Callable[[], tuple[keras.Model, Any, Any]],
    optimizer: str,
    jit: bool,
    policy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each optimizer's way to write, to dense and to sparse variables, compiled or not."""
    # Some are copied, the others taken by reference.
    monkeypatch.setattr(bulk_read, "_SMALL", 64)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, x, y = kind()
    finally:
        keras.config.set_dtype_policy(before)
    model.compile(_OPTIMIZERS[optimizer](), "mse", jit_compile=jit)
    model.train_on_batch(x, y)
    snapshots = Snapshots()
    for _ in range(3):  # The first is read one by one, the others in bulk.
        expected = _copies(model)
        snapshot = snapshots.take([_part(model)])
        for _ in range(3):
            model.train_on_batch(x, y)
        now = _copies(model)
        assert len(_changed(expected, now)) > len(expected) / 3
        assert _changed(_written(snapshot, tmp_path / "a.weights.h5"), expected) == []


@pytest.mark.parametrize("kind", [_dense, _sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_training_on_while_the_file_is_written_changes_nothing_in_it(
    kind: Callable[[], tuple[keras.Model, Any, Any]],
    suffix: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a thread, to a disk so slow that many steps pass before every of its writes."""
    model, x, y = kind()
    model.compile("adam", keras.losses.MeanSquaredError())
    model.train_on_batch(x, y)
    path = tmp_path / f"a{suffix}"
    memory = writing.Memory()
    for _ in range(2):  # Another time, variables are read in another way.
        expected = _copies(model)
        progress = TrainingProgress()
        write = writing.prepare_model(str(path), model, progress, suffix, {}, memory=memory)
    steps, written = threading.Semaphore(0), threading.Event()

    class SlowFile(io.FileIO):
        def write(self, data: Any) -> int:
            assert steps.acquire(timeout=60)
            return super().write(data) or 0

    def slow_file(descriptor: int, mode: str) -> Any:
        return io.BufferedRandom(SlowFile(descriptor, "r+"))

    def save() -> None:
        write()
        written.set()

    with monkeypatch.context() as patch:
        patch.setattr(commit.os, "fdopen", slow_file)
        thread = threading.Thread(target=save)
        thread.start()
        passed = 0
        while not written.is_set():
            model.train_on_batch(x, y)
            steps.release()
            passed += 1
        thread.join()
    assert passed >= 3
    with open_source(path) as source:
        assert source.verify() == ()
        found = {name: source.read(name) for name in source.tensors}
    assert _changed(found, expected) == []


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda v: v.assign_add(tf.ones_like(v)), id="assign_add"),
        pytest.param(lambda v: v.assign_sub(tf.ones_like(v)), id="assign_sub"),
        pytest.param(lambda v: v.assign(tf.zeros_like(v)), id="assign"),
        pytest.param(lambda v: v.scatter_nd_update([[1]], [[9.0] * 4]), id="scatter_nd_update"),
        pytest.param(lambda v: v.scatter_nd_add([[1]], [[9.0] * 4]), id="scatter_nd_add"),
        pytest.param(
            lambda v: v.scatter_update(tf.IndexedSlices([[9.0] * 4], [1])), id="scatter_update"
        ),
        pytest.param(lambda v: v.scatter_add(tf.IndexedSlices([[9.0] * 4], [1])), id="scatter_add"),
        pytest.param(lambda v: v[1].assign([9.0] * 4), id="slice"),
        pytest.param(
            lambda v: tf.raw_ops.ResourceApplyGradientDescent(
                var=v.handle, alpha=1.0, delta=tf.ones_like(v)
            ),
            id="fused kernel",
        ),
    ],
)
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("small", [0, 1 << 20], ids=["by reference", "copied"])
def test_no_way_to_write_a_variable_reaches_a_snapshot(
    write: Callable[[tf.Variable], Any],
    graph: bool,
    small: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even those that TensorFlow calls in place."""
    monkeypatch.setattr(bulk_read, "_SMALL", small)
    start = np.arange(12, dtype="float32").reshape(3, 4)
    variables = {f"v{n}": tf.Variable(start + n) for n in range(4)}
    snapshots, captured = Snapshots(), state.Captured(dict(variables))
    structure = Structure(list(variables.values()))

    def update() -> None:
        for variable in variables.values():
            write(variable)

    if graph:
        update = tf.function(update)
    for _ in range(3):
        expected = {path: variable.numpy().copy() for path, variable in variables.items()}
        snapshot = snapshots.take([Part("", lambda: captured, structure)])
        update()
        for path, variable in variables.items():
            assert not np.array_equal(variable.numpy(), expected[path])
            assert np.array_equal(snapshot.arrays[path], expected[path])
            variable.assign(np.random.rand(3, 4))


def test_a_snapshot_takes_no_copy_of_large_variables() -> None:
    """Its arrays are the buffers that the variables had."""
    variables = {f"v{n}": tf.Variable(np.ones(100_000, "float32")) for n in range(4)}
    captured = state.Captured(dict(variables))
    part = Part("", lambda: captured, Structure(list(variables.values())))
    snapshots = Snapshots()
    one, *others = [snapshots.take([part]).arrays["v2"] for _ in range(3)]
    assert all(np.shares_memory(one, other) for other in others)


def _names(snapshots: Snapshots, model: keras.Model) -> set[str]:
    taken = snapshots.take([_part(model)])
    assert _changed(dict(taken.arrays), _copies(model)) == []
    return set(taken.arrays)


def test_a_new_layer_is_seen() -> None:
    """The walk is kept for as long as the structure is, and no longer."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    snapshots = Snapshots()
    before = _names(snapshots, model)
    model.add(keras.layers.Dense(2))
    assert _names(snapshots, model) - before == {
        "layers/dense_1/vars/0",
        "layers/dense_1/vars/1",
    }
    model.pop()
    assert _names(snapshots, model) == before


class _Pair(keras.layers.Layer):
    """Two layers of one shape, in attributes, a list and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = keras.layers.Dense(4), keras.layers.Dense(4)
        self.stack = [keras.layers.Dense(4), keras.layers.Dense(4)]
        self.named = {"a": [keras.layers.Dense(4)], "b": [keras.layers.Dense(4)]}

    def build(self, input_shape: Any) -> None:
        for layer in self._flatten_layers(include_self=False):
            layer.build(input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        for layer in (self.one, self.other, *self.stack, *self.named["a"], *self.named["b"]):
            inputs = layer(inputs)
        return inputs


def _swap_attributes(pair: _Pair) -> None:
    pair.one, pair.other = pair.other, pair.one


def _swap_items(pair: _Pair) -> None:
    pair.stack.reverse()


def _swap_deep_within(pair: _Pair) -> None:
    named = pair.named
    named["a"][0], named["b"][0] = named["b"][0], named["a"][0]


@pytest.mark.parametrize(
    "swap",
    [
        _swap_attributes,
        _swap_items,
        pytest.param(
            _swap_deep_within,
            marks=pytest.mark.skipif(
                keras.__version__.startswith("3.10."),
                reason="Keras 3.10 does not save what is in a list in a dict of a layer",
            ),
        ),
    ],
)
def test_layers_that_change_places_are_seen(swap: Callable[[_Pair], None]) -> None:
    """Though all variables are the ones they were, in the order in which they were."""
    pair = _Pair()
    model = keras.Sequential([keras.Input((4,)), pair])
    snapshots = Snapshots()
    before = snapshots.take([_part(model)])
    variables = [id(variable) for variable in model.variables]
    swap(pair)
    assert [id(variable) for variable in model.variables] == variables
    after = snapshots.take([_part(model)])
    assert _changed(dict(after.arrays), dict(before.arrays))
    assert _changed(dict(after.arrays), _copies(model)) == []


def test_an_unchanged_structure_is_not_walked_again() -> None:
    """What is compared instead takes less than a walk by far."""
    model = keras.Sequential([keras.Input((4,)), _Pair()])
    model.compile("sgd", "mse")
    snapshots = Snapshots()
    first = snapshots.walk(_part(model))
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 4)))
    model.predict(np.ones((2, 4)), verbose=0)
    assert snapshots.walk(_part(model)) is first


def test_a_new_optimizer_is_seen() -> None:
    """A model that is compiled again has other state beside its weights."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    snapshots, sizes = Snapshots(), []
    for optimizer in ("sgd", "adam", "rmsprop"):
        model.compile(optimizer, "mse")
        model.train_on_batch(np.ones((2, 4)), np.ones((2, 3)))
        sizes.append(len(_names(snapshots, model)))
    assert sizes == [4, 8, 6]


def test_lora_is_seen() -> None:
    """It turns one kernel into three variables."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    snapshots = Snapshots()
    before = snapshots.take([_part(model)])
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.ones((2, 6)))
    after = snapshots.take([_part(model)])
    assert _changed(dict(after.arrays), _copies(model)) == []
    # Keras saves the kernel with the update merged into it.
    assert not np.array_equal(after.arrays["layers/dense/vars/0"], _of(before))


def _of(snapshot: Snapshot) -> np.ndarray:
    return np.asarray(snapshot.arrays["layers/dense/vars/0"])


def test_quantization_is_seen() -> None:
    """Kernels become integers, and scales come beside them."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    snapshots = Snapshots()
    before = snapshots.take([_part(model)])
    model.layers[0].quantize("int8")
    after = snapshots.take([_part(model)])
    assert _of(before).dtype == "float32"
    assert _of(after).dtype == "int8"
    assert _changed(dict(after.arrays), _copies(model)) == []


class _Counting(keras.layers.Layer):
    """Saves something that is no variable."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(2,), name="scale")

    def call(self, inputs: Any) -> Any:
        return inputs

    def save_own_variables(self, store: Any) -> None:
        store["scale"] = self.scale
        store["count"] = np.full(3, self.count)

    def load_own_variables(self, store: Any) -> None:
        self.scale.assign(store["scale"])
        self.count = int(store["count"][0])


def test_what_a_layer_makes_up_is_asked_for_anew() -> None:
    """Where it has its own `save_own_variables`, the variables being the same says nothing."""
    layer = _Counting()
    model = keras.Sequential([keras.Input((4,)), layer])
    snapshots = Snapshots()
    for count in range(3):
        layer.count = count
        arrays = snapshots.take([_part(model)]).arrays
        (made_up,) = [array for path, array in arrays.items() if path.endswith("count")]
        assert made_up.tolist() == [count] * 3


def test_an_array_that_a_layer_hands_out_is_copied() -> None:
    """It may be changed in place afterwards, unlike a variable's buffer."""
    layer = _Counting()
    kept = np.zeros(3)
    layer.save_own_variables = lambda store: store.__setitem__("kept", kept)  # type: ignore[method-assign]
    model = keras.Sequential([keras.Input((4,)), layer])
    part = Part("", lambda: state.capture(model), Structure([], keeps=False))
    (array,) = Snapshots().take([part]).arrays.values()
    kept[:] = 7
    assert array.tolist() == [0, 0, 0]


def test_names_are_made_once_for_each_structure() -> None:
    """A save of the same model again passes over no layers and no paths."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2, name="head")])
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    snapshots = Snapshots()
    part = Part("model", lambda: state.capture(model), structure_of(model))
    first, second = snapshots.take([part]), snapshots.take([part])
    assert first.called["model/layers/dense"] == "head"
    assert first.optimizers["model/optimizer"].class_name == "Adam"
    assert first.optimizers["model/optimizer"].built_on == (
        "model/layers/dense/vars/0",
        "model/layers/dense/vars/1",
    )
    assert second.called is first.called
    assert second.optimizers is first.optimizers
