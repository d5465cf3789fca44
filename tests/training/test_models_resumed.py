"""Models that are not one stack of layers with one optimizer: saved, stopped and gone on with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import NotBuiltError, RestoreError
from keras_ckpt_tools.live.keras_walk import optimizers_of
from keras_ckpt_tools.runs.checkpoints import read_record

X = np.random.default_rng(0).random((16, 4), dtype="float32")
Y = X.sum(axis=1, keepdims=True)


class Stop(keras.callbacks.Callback):
    """Interrupt training where an epoch begins, or at a batch of the second one."""

    def __init__(self, epoch: int, batch: int | None = None):
        super().__init__()
        self.place = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        if self.place == (epoch, None):
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.place == (self.epoch, batch):
            raise KeyboardInterrupt


def fit(
    model: keras.Model, directory: Path, *more: Any, y: Any = None, save_freq: Any = "epoch"
) -> Any:
    """Train for three epochs of four batches, with a backup."""
    backup = kct.BackupAndRestore(directory, save_freq, delete_checkpoint=False)
    data = kct.data.ArrayDataset(X, y, batch_size=4, shuffle=True, seed=0)
    return model.fit(data, epochs=3, verbose=0, callbacks=[backup, *more])


def everything(model: keras.Model) -> list[bytes]:
    """Return the variables of a model and of all its optimizers."""
    variables = [*model.variables, *(v for o in optimizers_of(model) for v in o.variables)]
    return [keras.ops.convert_to_numpy(one).tobytes() for one in variables]


def cut_and_resumed(
    make: Callable[[], keras.Model], tmp_path: Path, *, y: Any = None, batch: int | None = None
) -> tuple[keras.Model, keras.Model]:
    """Return the model that was left alone, and the one that was stopped and resumed."""
    freq: Any = "epoch" if batch is None else 1
    keras.utils.set_random_seed(1)
    alone = make()
    history = fit(alone, tmp_path / "alone", y=y, save_freq=freq).history
    keras.utils.set_random_seed(1)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), tmp_path / "cut", Stop(1, batch), y=y, save_freq=freq)
    keras.utils.set_random_seed(1)
    resumed = make()
    assert fit(resumed, tmp_path / "cut", y=y, save_freq=freq).history == history
    return alone, resumed


# Optimizers in attributes.


class Gan(keras.Model):
    """Two models with an optimizer each, as in Keras' own examples."""

    def __init__(self, wrap: Callable[[Any], Any] = lambda one: one) -> None:
        super().__init__()
        self.disc = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
        self.gen = keras.Sequential([keras.Input((2,)), layers.Dense(4)])
        self.seed_generator = keras.random.SeedGenerator(1)
        self.wrap = wrap
        self.compile(keras.optimizers.Adam(0.01), keras.optimizers.RMSprop(0.02))

    def call(self, z: Any) -> Any:
        return self.disc(self.gen(z))

    def compile(self, d_optimizer: Any, g_optimizer: Any) -> None:
        super().compile()
        self.d_optimizer = self.wrap(d_optimizer)
        self.g_optimizer = self.wrap(g_optimizer)

    def train_step(self, data: Any) -> Any:
        (data,) = data if isinstance(data, tuple) else (data,)
        z = keras.random.normal((4, 2), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            d_loss = tf.reduce_mean(self.disc(self.gen(z))) - tf.reduce_mean(self.disc(data))
        self._update(self.d_optimizer, self.disc, tape, d_loss)
        with tf.GradientTape() as tape:
            g_loss = -tf.reduce_mean(self.disc(self.gen(z)))
        self._update(self.g_optimizer, self.gen, tape, g_loss)
        return {"d_loss": d_loss, "g_loss": g_loss}

    def _update(self, optimizer: Any, model: Any, tape: Any, loss: Any) -> None:
        weights = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))


def called_gan() -> Gan:
    """Return one whose layers, and itself, are built."""
    model = Gan()
    model(np.ones((1, 2), "float32"))
    return model


@pytest.mark.parametrize("make", [Gan, called_gan])
def test_a_model_with_two_optimizers_resumes_bit_for_bit(make: Any, tmp_path: Path) -> None:
    """Each is built on what it was built on before, and no warning says that one is not saved."""
    alone, resumed = cut_and_resumed(make, tmp_path)
    assert everything(alone) == everything(resumed)
    assert int(resumed.d_optimizer.iterations) == 12


def test_optimizers_in_attributes_may_be_wrapped(tmp_path: Path) -> None:
    """As mixed precision wraps them."""
    make = lambda: Gan(keras.optimizers.LossScaleOptimizer)  # noqa: E731
    alone, resumed = cut_and_resumed(make, tmp_path)
    assert everything(alone) == everything(resumed)


def test_optimizers_in_attributes_resume_in_a_loop(tmp_path: Path) -> None:
    """A manager does what the callback does."""
    alone, resumed = called_gan(), called_gan()
    alone.train_step(X[:4])
    kct.CheckpointManager(tmp_path, model=alone).save()
    kct.CheckpointManager(tmp_path, model=resumed).restore_or_initialize()
    assert everything(alone) == everything(resumed)


def test_weights_of_a_model_with_two_optimizers_are_loaded_with_their_state(tmp_path: Path) -> None:
    """`load_weights` builds them, too."""
    model = called_gan()
    model.train_step(X[:4])
    kct.CheckpointManager(tmp_path / "run", model=model).save()
    saver = kct.ModelCheckpoint(tmp_path / "gan.weights.h5", save_weights_only=True)
    saver.set_model(model)
    saver.on_epoch_end(0)
    for path in (tmp_path / "run", tmp_path / "gan.weights.h5"):
        other = called_gan()
        assert kct.load_weights(other, path)
        assert everything(other)[-6:] == everything(model)[-6:]


def test_an_optimizer_whose_variables_are_gone_is_an_error_with_a_way_on(tmp_path: Path) -> None:
    """It says which optimizer, on what it was built, and what to do; doing that works."""
    model = called_gan()
    model.train_step(X[:4])
    path = kct.CheckpointManager(tmp_path, model=model).save()
    record = read_record(path)
    assert record is not None
    assert record.optimizers["model/d_optimizer"].built_on == (
        "model/disc/layers/dense/vars/0",
        "model/disc/layers/dense/vars/1",
    )
    other = Gan()
    other.disc = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    manager = kct.CheckpointManager(tmp_path, model=other)
    with pytest.raises(NotBuiltError, match=r"d_optimizer \(Adam\).*disc/layers/dense/vars/1"):
        manager.restore_or_initialize()
    other.d_optimizer.build(other.disc.trainable_variables)
    with pytest.raises(RestoreError):  # Now it is the weights that do not fit, and that is said.
        manager.restore_or_initialize()


# Models without `call`.


class Vae(keras.Model):
    """What has a `train_step` and no `call`. Its layers may be built by the first batch only."""

    def __init__(self, lazily: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.lazily = lazily
        shapes: list[Any] = [[], []] if lazily else [[keras.Input((4,))], [keras.Input((2,))]]
        self.encoder = keras.Sequential([*shapes[0], layers.Dense(2)])
        self.decoder = keras.Sequential([*shapes[1], layers.Dense(4)])

    def get_config(self) -> Any:
        return {"lazily": self.lazily}

    def train_step(self, data: Any) -> Any:
        (data,) = data if isinstance(data, tuple) else (data,)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.decoder(self.encoder(data)) - data) ** 2)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def vae(lazily: bool = False) -> Vae:
    """Return one that is compiled."""
    model = Vae(lazily)
    model.compile(keras.optimizers.Adam(0.01))
    return model


@pytest.mark.parametrize("lazily", [False, True])
def test_a_model_without_call_resumes_bit_for_bit(lazily: bool, tmp_path: Path) -> None:
    """It is never built, and has variables all the same."""
    alone, resumed = cut_and_resumed(lambda: vae(lazily), tmp_path)
    assert not resumed.built
    assert everything(alone) == everything(resumed)


class Distiller(keras.Model):
    """Trains one of its two models, whose layers the first batch builds."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = keras.Sequential([layers.Dense(3), layers.Dense(1)])
        self.student = keras.Sequential([layers.Dense(1)])

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            given = self.student(x)
            loss = tf.reduce_mean((given - y - self.teacher(x)) ** 2)
        weights = self.student.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


class Untraceable(keras.Model):
    """Is marked as built by a `build` that its `call` does not let Keras complete."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = {"one": layers.Dense(2), "two": [layers.Dense(1)]}
        self.build((4, 4))

    def call(self, x: Any) -> Any:
        if not tf.is_tensor(x):
            raise TypeError("only tensors")
        return self.hidden["two"][0](self.hidden["one"](x))


def compiled(kind: type[keras.Model]) -> Callable[[], keras.Model]:
    """Return what makes one that is compiled."""

    def make() -> keras.Model:
        model = kind()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    return make


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("kind", [Distiller, Untraceable])
def test_layers_that_only_a_batch_builds_are_built_for_a_restart(
    kind: type[keras.Model], batch: int | None, tmp_path: Path
) -> None:
    """Keras warns of them, and marks the model as built; the optimizer may have only some."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone, resumed = cut_and_resumed(compiled(kind), tmp_path, y=Y, batch=batch)
    assert everything(alone) == everything(resumed)


def test_a_model_without_call_is_not_marked_as_built_by_a_restart(tmp_path: Path) -> None:
    """Keras' trial run cannot build it, and marks it all the same, with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone, resumed = cut_and_resumed(lambda: vae(lazily=True), tmp_path, batch=1)
    assert not resumed.built
    assert everything(alone) == everything(resumed)


def test_a_loop_resumes_an_optimizer_of_some_of_the_variables(tmp_path: Path) -> None:
    """Not one of all that the model could train."""

    def program(directory: Path, stop: int = 0) -> keras.Model:
        keras.utils.set_random_seed(1)
        model = compiled(Distiller)()
        manager = kct.CheckpointManager(directory, model=model, save_freq=1)
        for _ in manager.epochs(2):
            for index, batch in enumerate(manager.batches([(X[:8], Y[:8]), (X[8:], Y[8:])])):
                model.train_step(batch)
                if stop and index == stop:
                    return model
        return model

    program(tmp_path / "cut", 1)
    assert everything(program(tmp_path / "cut")) == everything(program(tmp_path / "alone"))


def test_files_of_a_model_without_call_are_loaded(tmp_path: Path) -> None:
    """Whole models and weights, by us and by stock Keras."""
    savers = [
        kct.ModelCheckpoint(tmp_path / "a.keras", monitor="loss"),
        kct.ModelCheckpoint(tmp_path / "a.weights.h5", monitor="loss", save_weights_only=True),
    ]
    model = vae()
    fit(model, tmp_path / "run", *savers)
    loaded = kct.safe_load_model(tmp_path / "a.keras", {"Vae": Vae})
    assert everything(loaded) == everything(model)
    for path in (tmp_path / "a.keras", tmp_path / "a.weights.h5", tmp_path / "run"):
        other = vae()
        assert kct.load_weights(other, path)
        assert everything(other) == everything(model)
    stock = vae()
    stock.optimizer.build(stock.trainable_variables)
    stock.built = True  # Stock Keras asks for the flag.
    stock.load_weights(tmp_path / "a.weights.h5")
    assert everything(stock) == everything(model)


def test_a_model_without_call_and_variables_is_told_what_works(tmp_path: Path) -> None:
    """Calling it, as is advised elsewhere, would raise NotImplementedError."""
    model = vae(lazily=True)
    manager = kct.CheckpointManager(tmp_path, model=model)
    with pytest.raises(NotBuiltError, match="Vae has no `call`, so build its layers") as caught:
        manager.save()
    assert all(layer.name in str(caught.value) for layer in (model.encoder, model.decoder))
    model.encoder.build((None, 4))
    model.decoder.build((None, 2))
    assert manager.save()


# Names that Keras makes up.


def test_mixed_precision_resumes_in_the_same_process(tmp_path: Path) -> None:
    """A notebook cell that is run again makes `adam_1` of `adam`, inside of another optimizer."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:

        def make() -> keras.Model:
            model = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Dense(1)])
            model.compile(keras.optimizers.Adam(0.01), "mse")
            return model

        alone, resumed = cut_and_resumed(make, tmp_path, y=Y)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert everything(alone) == everything(resumed)


def test_the_state_of_an_inner_optimizer_is_saved_once(tmp_path: Path) -> None:
    """Not a second time below the model; checkpoints that have it twice are resumed from."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "mse")
    record = read_record(kct.CheckpointManager(tmp_path, model=model).save())
    assert record is not None
    assert not [info.path for info in record.tensors if info.path.startswith("model/optimizer")]


class Perceptual(keras.losses.Loss):
    """A loss with a model in it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = keras.Sequential([keras.Input((1,)), layers.Dense(1)])

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean((self.features(y_true) - self.features(y_pred)) ** 2)


def test_names_made_up_below_objects_without_a_name_do_not_count(tmp_path: Path) -> None:
    """`sequential_3` in an attribute of a loss is no name that somebody has given."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = layers.Dense(1)
            self.perceptual = Perceptual()

        def call(self, inputs: Any) -> Any:
            return self.head(inputs)

    models = [Model(), Model()]
    for model in models:
        model(X)
    kct.CheckpointManager(tmp_path, model=models[0]).save()
    assert kct.CheckpointManager(tmp_path, model=models[1]).restore_or_initialize()
    first, second = (m.perceptual.features.layers[0].kernel for m in models)
    assert np.array_equal(first, second)


# Variables that Keras' own layout leaves out, or changes.


def adapted(rank: int | None = 2) -> keras.Model:
    """Return a model with adapters of a rank, or without."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(1)])
    if rank is not None:
        model.layers[0].enable_lora(rank)
        model.layers[1].trainable = False
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def test_adapters_resume_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Keras' own weights have them merged into the kernel."""
    alone, resumed = cut_and_resumed(adapted, tmp_path, y=Y, batch=1)
    assert everything(alone) == everything(resumed)


def test_float8_resumes_with_an_optimizer_that_has_state(tmp_path: Path) -> None:
    """An optimizer is built on its scales too, and has no state of them."""

    def make() -> keras.Model:
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
        for layer in model.layers:
            layer.quantize("float8")
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    alone, resumed = cut_and_resumed(make, tmp_path, y=Y, batch=1)
    assert everything(alone) == everything(resumed)


def test_states_of_a_stateful_rnn_resume_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Keras does not save them at all."""

    def make() -> keras.Model:
        inputs = keras.Input(batch_shape=(4, 4))
        x = layers.Reshape((4, 1))(inputs)
        model = keras.Model(inputs, layers.LSTM(1, stateful=True)(x))
        model.compile("sgd", "mse")
        return model

    alone, resumed = cut_and_resumed(make, tmp_path, y=Y, batch=1)
    assert everything(alone) == everything(resumed)
    states = [[np.asarray(v).tobytes() for v in m.layers[-1].states] for m in (alone, resumed)]
    assert states[0] == states[1]


@pytest.mark.parametrize("format", ["h5", "tf"])
def test_a_checkpoint_with_adapters_is_loaded_with_and_without_them(
    format: Any, tmp_path: Path
) -> None:
    """As they are into the same model, merged into one without, and merged by stock Keras."""
    model = adapted()
    model.fit(X, Y, epochs=1, verbose=0)
    manager = kct.CheckpointManager(tmp_path, model=model, format=format)
    path = manager.save()
    merged = model.layers[0].kernel.numpy()
    same, plain, wider = adapted(), adapted(None), adapted(3)
    assert kct.load_weights(same, path)
    assert everything(same) == everything(model)
    assert kct.load_weights(plain, path, exclude="optimizer/*")
    assert np.array_equal(plain.layers[0].kernel, merged)
    assert kct.load_weights(wider, path, exclude="optimizer/*")
    assert np.array_equal(wider.layers[0]._kernel, merged)
    assert not np.any(wider.layers[0].lora_kernel_b)
    if format == "h5":
        stock = adapted(None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It does not take the optimizer's state.
            stock.load_weights(path)
        assert np.array_equal(stock.layers[0].kernel, merged)


def test_a_layer_that_is_left_out_keeps_its_adapters(tmp_path: Path) -> None:
    """What is not restored is not merged either."""
    path = kct.CheckpointManager(tmp_path, model=adapted()).save()
    model = adapted()
    model.layers[0].lora_kernel_b.assign(np.ones((2, 8)))
    before = everything(model)
    assert kct.load_weights(model, path, include="layers/dense_1/*")
    assert everything(model)[:4] == before[:4]


def test_states_of_another_shape_begin_anew_and_that_is_said(tmp_path: Path) -> None:
    """Another batch size: the weights fit, the states of a stateful RNN do not."""

    def make(batch: int) -> keras.Model:
        inputs = keras.Input(batch_shape=(batch, 3, 1))
        return keras.Model(inputs, layers.GRU(1, stateful=True)(inputs))

    kct.CheckpointManager(tmp_path, model=make(4)).save()
    with pytest.warns(UserWarning, match="model/layers/gru"):
        assert kct.CheckpointManager(tmp_path, model=make(2)).restore_or_initialize()


def test_an_export_of_a_run_has_the_adapters_merged(tmp_path: Path) -> None:
    """As Keras saves them; the variables as they are stay behind, and that is said."""
    from click.testing import CliRunner

    from keras_ckpt_tools.cli import main

    model = adapted()
    model.fit(X, Y, epochs=1, verbose=0)
    source = kct.CheckpointManager(tmp_path, model=model).save()
    for name in ("a.weights.h5", "a.safetensors"):
        done = CliRunner().invoke(main, ["export", str(source), str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert "which only a run's checkpoints hold" in done.output
        plain = adapted(None)
        kct.load_weights(plain, tmp_path / name, exclude="optimizer/*")
        assert np.array_equal(plain.layers[0].kernel, model.layers[0].kernel)
