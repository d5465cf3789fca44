"""Weights load completely; what stands around them where it fits, else afresh with a warning."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import RestoreError
from keras_ckpt_tools.formats.open_source import open_source

X = np.random.default_rng(0).random((8, 4)).astype("float32")
AFRESH = "All weights of"
WRITERS = Path(__file__).parents[1] / "files" / "writers"


def _stock(model, path):
    model.save(path)
    return path


def _ours(model, path):
    saver = kct.ModelCheckpoint(path, monitor="loss")
    saver.set_model(model)
    saver.on_epoch_begin(0)
    saver.on_epoch_end(0, {"loss": 1.0})
    return path


def _trained(*, frozen=False, **options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.layers[0].trainable = not frozen
    model.compile("adam", "mse", run_eagerly=True, **options)
    model.train_on_batch(X, X[:, :2])
    return model


def _state(optimizer):
    return [np.asarray(v) for v in optimizer.variables]


def _same(model, other):
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("save", [_stock, _ours])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_optimizer_that_scales_the_loss_comes_back_under_any_policy(save, policy, tmp_path):
    """`compile` wraps it by the policy of the program, and a file does not change with that."""
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = _trained()
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        path = save(model, tmp_path / "net.keras")
        keras.config.set_dtype_policy(policy)
        loaded = kct.safe_load_model(path, compile=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert type(loaded.optimizer) is type(model.optimizer)
    for ours, theirs in zip(_state(loaded.optimizer), _state(model.optimizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    loaded.train_on_batch(X, X[:, :2])


@pytest.mark.parametrize("save", [_stock, _ours])
def test_optimizer_is_not_wrapped_by_the_policy_of_the_program_alone(save, tmp_path):
    """The model in the file is of float32, and its optimizer scaled nothing."""
    path = save(_trained(), tmp_path / "net.keras")
    try:
        keras.config.set_dtype_policy("mixed_float16")
        loaded = kct.safe_load_model(path, compile=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert type(loaded.optimizer) is keras.optimizers.Adam
    assert int(loaded.optimizer.iterations) == 1


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
@pytest.mark.parametrize("frozen", [True, False])
def test_stock_file_of_a_model_frozen_after_training_starts_its_optimizer_afresh(
    frozen, name, tmp_path
):
    """Transfer learning: stock files do not say which variables the optimizer was built on."""
    model = _trained(frozen=frozen)
    model.layers[0].trainable = frozen
    path = _stock(model, tmp_path / name)
    with pytest.warns(UserWarning, match=AFRESH) as told:
        loaded = kct.safe_load_model(path)
    assert len(told) == 1
    assert "optimizer" in str(told[0].message)
    assert _same(model, loaded)
    assert loaded.compiled
    assert int(loaded.optimizer.iterations) == 0
    loaded.train_on_batch(X, X[:, :2])
    with pytest.raises(RestoreError):
        kct.safe_load_model(path, compile=True)
    assert _same(model, kct.safe_load_model(path, compile=False))


def test_our_file_of_a_model_frozen_after_training_has_the_whole_state(tmp_path):
    """The record says which variables the optimizer was built on."""
    model = _trained()
    model.layers[0].trainable = False
    loaded = kct.safe_load_model(_ours(model, tmp_path / "net.keras"), compile=True)
    for ours, theirs in zip(_state(loaded.optimizer), _state(model.optimizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    loaded.train_on_batch(X, X[:, :2])


def test_our_file_of_a_model_unfrozen_after_training_keeps_the_state_there_is(tmp_path):
    """New variables start without state, the others go on, and training works."""
    model = _trained(frozen=True)
    model.layers[0].trainable = True
    path = _ours(model, tmp_path / "net.keras")
    with pytest.warns(UserWarning, match=AFRESH):
        loaded = kct.safe_load_model(path)
    assert int(loaded.optimizer.iterations) == 1
    then = {tuple(v.shape): np.asarray(v) for v in model.optimizer._momentums}
    now = {tuple(v.shape): np.asarray(v) for v in loaded.optimizer._momentums}
    assert len(now) == 4
    for shape, value in then.items():
        np.testing.assert_array_equal(now[shape], value)
        assert value.any()
    assert not any(value.any() for shape, value in now.items() if shape not in then)
    loaded.train_on_batch(X, X[:, :2])


class Gan(keras.Model):
    """As keras.io has it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.critic, self.maker = keras.layers.Dense(1), keras.layers.Dense(4)

    def build(self, shape):
        self.maker.build((None, 2))
        self.critic.build((None, 4))
        self.built = True

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile(run_eagerly=True)
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def call(self, x):
        return self.critic(x)

    def train_step(self, data):
        x = data[0]
        with tf.GradientTape() as tape:
            d = self.loss_fn(tf.ones((len(x), 1)), self.critic(x))
        own = self.critic.trainable_variables
        self.d_optimizer.apply(tape.gradient(d, own), own)
        with tf.GradientTape() as tape:
            g = self.loss_fn(tf.ones((len(x), 1)), self.critic(self.maker(x[:, :2])))
        own = self.maker.trainable_variables
        self.g_optimizer.apply(tape.gradient(g, own), own)
        return {"d_loss": d, "g_loss": g}


@pytest.mark.parametrize("save", [_stock, _ours])
def test_model_with_a_compile_of_its_own_loads_with_one_warning(save, tmp_path):
    """The GAN of keras.io: optimizers and metrics exist only after its own `compile`."""
    model = Gan()
    arguments = (keras.losses.BinaryCrossentropy(from_logits=True),)
    model.compile(keras.optimizers.Adam(), keras.optimizers.SGD(0.1, 0.9), *arguments)
    model.build((None, 4))
    model.train_on_batch(X)
    path = save(model, tmp_path / "net.keras")
    with pytest.warns(UserWarning, match=AFRESH) as told:
        loaded = kct.safe_load_model(path, {"Gan": Gan})
    assert len(told) == 1
    for what in ("d_optimizer", "g_optimizer", "compile"):
        assert what in str(told[0].message)
    assert _same(model, loaded)
    assert _same(model, kct.safe_load_model(path, {"Gan": Gan}, compile=False))
    loaded.compile(keras.optimizers.Adam(), keras.optimizers.SGD(0.1, 0.9), *arguments)
    loaded.train_on_batch(X)


def test_stock_weights_are_loaded_before_a_gan_is_compiled(tmp_path):
    """Such a file does not say what its optimizers are; they look like what they are."""
    model = Gan()
    arguments = (keras.losses.BinaryCrossentropy(from_logits=True),)
    model.compile(keras.optimizers.Adam(), keras.optimizers.SGD(0.1, 0.9), *arguments)
    model.build((None, 4))
    model.train_on_batch(X)
    model.save_weights(tmp_path / "net.weights.h5")
    other = Gan()
    other.build((None, 4))
    report = kct.load_weights(other, tmp_path / "net.weights.h5")
    assert report
    assert {"d_optimizer/vars/0", "g_optimizer/vars/0"} <= set(report.skipped_optimizer)
    assert _same(model, other)


def test_a_layer_that_counts_is_no_optimizer(tmp_path):
    """An integer comes first in both; a layer has weights of its own shapes behind it."""

    class Memory(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), dtype="int32", trainable=False)
            self.kept = self.add_weight(shape=(7, 5))

        def call(self, x):
            return x

    class Net(keras.Model):
        def __init__(self, remembers):
            super().__init__()
            self.dense = keras.layers.Dense(1)
            self.memory = Memory() if remembers else None

        def call(self, x):
            return self.dense(self.memory(x) if self.memory else x)

    model, without = Net(remembers=True), Net(remembers=False)
    for one in (model, without):
        one(np.ones((2, 4)))
    model.save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(RestoreError, match="memory"):
        kct.load_weights(without, tmp_path / "net.weights.h5")


def test_surplus_weights_of_a_layer_are_refused(tmp_path):
    """Only what belongs to training is left; a layer that the model lacks is no such thing."""
    model = _trained()
    path = _stock(model, tmp_path / "net.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    del config["config"]["layers"][-1]
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(tmp_path / "less.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(RestoreError, match="unexpected"):
        kct.safe_load_model(tmp_path / "less.keras")


@pytest.mark.parametrize("writer", ["keras-3.15.1-jax", "keras-3.15.1-torch"])
def test_steps_and_states_of_other_backends_are_restored_without_a_warning(writer, tmp_path):
    """They count in integers of another width, and the value fits."""
    with zipfile.ZipFile(WRITERS / f"{writer}.zip") as archive:
        archive.extractall(tmp_path, ["trained.keras", "normalized.keras", "dropped.keras"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = kct.safe_load_model(tmp_path / "trained.keras", compile=True)
        kct.safe_load_model(tmp_path / "dropped.keras", compile=True)
        kct.safe_load_model(tmp_path / "normalized.keras")
    assert type(trained.optimizer) is keras.optimizers.Adam
    assert int(trained.optimizer.iterations) == 2


def test_lists_and_dicts_of_layers_of_keras_2_15_are_found():
    """Keras 2 has them below `layers`, with all attributes in front of it in the alphabet.

    The file was written from this model, built for four numbers, by Keras 2.15.
    """

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Dense(3), keras.layers.Dense(3)]
            self.extra = {"k": keras.layers.Dense(3)}

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return self.extra["k"](x)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.total_tracker = keras.metrics.Mean()
            self.zeta = keras.layers.Dense(3)
            self.blocks = [Block(), keras.layers.Dense(3)]
            self.alpha = [keras.layers.Dense(5)]
            self.d = {"q": keras.layers.Dense(2)}
            self.seq = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(3)])

        def call(self, x):
            x = self.zeta(x)
            for block in self.blocks:
                x = block(x)
            return self.d["q"](self.alpha[0](self.seq(x)))

    model = Net()
    model(X)
    path = WRITERS / "lists.weights.h5"
    assert kct.load_weights(model, path)
    with open_source(path) as source:
        read = source.read_all(source.tensors)
    assert "total_tracker/vars/0" in read
    places = {
        "layers/block/extra/dense": model.blocks[0].extra["k"],
        "layers/block/parts/dense_1": model.blocks[0].parts[1],
        "layers/dense": model.blocks[1],
        "layers/dense_1": model.alpha[0],
        "layers/dense_2": model.d["q"],
        "seq/layers/dense_1": model.seq.layers[1],
        "zeta": model.zeta,
    }
    for place, layer in places.items():
        np.testing.assert_array_equal(read[f"{place}/vars/0"], layer.get_weights()[0])


FLOATS = ["float16", "bfloat16", "float32", "float64"]


def _dense(dtype):
    return keras.Sequential([keras.Input((3,), dtype=dtype), keras.layers.Dense(2, dtype=dtype)])


@pytest.mark.parametrize("theirs", FLOATS)
@pytest.mark.parametrize("ours", FLOATS)
def test_floats_are_cast_as_keras_casts_them_and_the_report_lists_it(theirs, ours, tmp_path):
    """A checkpoint of float32 into a model of bfloat16, and back, is everyday work."""
    path = tmp_path / "net.weights.h5"
    _dense(theirs).save_weights(path)
    model, stock = _dense(ours), _dense(ours)
    stock.load_weights(path)
    report = kct.load_weights(model, path)
    assert report
    assert len(report.cast) == 2 * (ours != theirs)
    assert {one.path for one in report.cast} <= {*report.matched}
    for value, expected in zip(model.weights, stock.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(value), np.asarray(expected))
    if ours != theirs:
        assert f"from {theirs} to {ours}" in str(report)


@pytest.mark.parametrize("strict", [True, False])
def test_a_cast_that_would_overflow_is_refused(strict, tmp_path):
    """Infinity instead of a million is no rounding."""
    path = tmp_path / "net.weights.h5"
    large = _dense("float32")
    large.layers[0].kernel.assign(np.full((3, 2), 1e6))
    large.save_weights(path)
    model = _dense("float16")
    before = model.get_weights()
    if strict:
        with pytest.raises(RestoreError) as caught:
            kct.load_weights(model, path)
        report = caught.value.report
        np.testing.assert_array_equal(model.get_weights()[1], before[1])
    else:
        report = kct.load_weights(model, path, strict=False)
    assert [one.path for one in report.dtype_mismatch] == ["layers/dense/vars/0"]
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


class Counter(keras.layers.Layer):
    """A number of a given dtype."""

    def __init__(self, dtype_of_count):
        super().__init__()
        self.kind = dtype_of_count

    def build(self, shape):
        self.count = self.add_weight(
            shape=(), dtype=self.kind, initializer="ones", trainable=False, autocast=False
        )

    def call(self, x):
        return x


def _counter(dtype, value):
    model = keras.Sequential([keras.Input((4,)), Counter(dtype)])
    model.layers[0].count.assign(value)
    return model


@pytest.mark.parametrize(
    ("theirs", "ours", "value", "fits"),
    [
        ("int32", "int64", -7, True),
        ("int64", "int32", 7, True),
        ("int64", "int32", 2**40, False),
        ("int64", "uint32", 7, True),
        ("int64", "uint32", -7, False),
        ("float32", "int32", 7, False),
        ("int32", "float32", 7, False),
    ],
)
def test_integers_become_other_integers_that_hold_them(theirs, ours, value, fits, tmp_path):
    """Backends count in different widths; a number that changed would be another state."""
    path = tmp_path / "net.weights.h5"
    _counter(theirs, value).save_weights(path)
    model = _counter(ours, 3)
    if fits:
        assert kct.load_weights(model, path).cast
        assert int(model.layers[0].count) == value
    else:
        with pytest.raises(RestoreError):
            kct.load_weights(model, path)
        assert int(model.layers[0].count) == 3


def test_a_run_is_resumed_in_its_own_dtype_only(tmp_path):
    """A resumed run is the run; one that goes on in another precision is another one."""
    with kct.CheckpointManager(tmp_path, model=_dense("float32")) as manager:
        manager.save()
    with (
        pytest.raises(RestoreError),
        kct.CheckpointManager(tmp_path, model=_dense("float16")) as manager,
    ):
        manager.restore_or_initialize()
