"""Files that stock Keras opens, and that were refused here: each opens, with the same weights."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import NotBuiltError, RestoreError

X = np.random.default_rng(0).random((4, 3)).astype("float32")
Y = np.ones((4, 2), "float32")


def stock(model, path):
    """Save with Keras."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of models that are not built.
        model.save(path)
    return str(path)


def ours(model, path):
    """Save with this package."""
    saver = kct.ModelCheckpoint(path, monitor="loss")
    saver.set_model(model)
    saver.on_epoch_begin(0)
    saver.on_epoch_end(0, {"loss": 1.0})
    return str(path)


writers = pytest.mark.parametrize("save", [stock, ours])
formats = pytest.mark.parametrize("ending", ["keras", "h5"])


class Late(keras.Model):
    """Its layers are built by the first batch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


class Half(Late):
    """One part is built at once, the head is not."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])

    def call(self, x):
        return self.dense(self.body(x))


def late_sequential():
    """A `Sequential` without an input."""
    return keras.Sequential([keras.layers.Dense(2)])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("make", [late_sequential, Late, Half])
def test_a_model_that_was_saved_unbuilt_opens_and_trains(make, compiled, tmp_path):
    """There are no weights to restore; the optimizer waits until there are."""
    model = make()
    if compiled:
        model.compile("adam", "mse", run_eagerly=True)
    path = stock(model, tmp_path / "net.keras")
    classes = {} if make is late_sequential else {make.__name__: make}
    loaded = kct.safe_load_model(path, classes, compile=True)
    assert loaded.compiled == compiled
    assert loaded(X).shape == (4, 2)
    if make is Half:
        assert np.array_equal(loaded.body.get_weights()[0], model.body.get_weights()[0])
    if compiled:
        loaded.train_on_batch(X, Y)
        assert loaded.optimizer.iterations == 1


def test_weights_without_a_shape_to_build_for_are_still_refused(tmp_path):
    """A model without its weights would be one with random weights."""

    class Forgetful(Late):
        def get_build_config(self):
            return None

    model = Forgetful()
    model(X)
    path = stock(model, tmp_path / "net.keras")
    with pytest.raises(NotBuiltError):
        kct.safe_load_model(path, {"Forgetful": Forgetful})


class Renamed(keras.Model):
    """Its `encoder` is called `backbone` now, and a property has the old name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.backbone = keras.layers.Dense(3)
        self.parts = [keras.layers.Dense(3), keras.layers.Dense(2)]

    @property
    def encoder(self):
        return self.backbone

    @property
    def blocks(self):
        return [self.parts[0], self.parts[1]]

    def call(self, x):
        return self.parts[1](self.parts[0](self.backbone(x)))


class Former(keras.Model):
    """The same class when the file was saved."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = keras.layers.Dense(3)
        self.blocks = [keras.layers.Dense(3), keras.layers.Dense(2)]

    def call(self, x):
        for layer in (self.encoder, *self.blocks):
            x = layer(x)
        return x


@writers
def test_a_property_with_the_old_name_of_an_attribute_leads_to_its_weights(save, tmp_path):
    """Keras looks for an object by all its paths; weights and slots come back."""
    model = Former()
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(X, Y)
    path = save(model, tmp_path / "net.keras")
    loaded = kct.safe_load_model(path, {"Former": Renamed}, compile=True)
    assert np.array_equal(model(X), loaded(X))
    for mine, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        assert np.array_equal(mine, theirs)
    assert kct.compare(loaded, path)
    fresh = Renamed()
    fresh(X)
    model.save_weights(tmp_path / "net.weights.h5")
    report = kct.load_weights(fresh, tmp_path / "net.weights.h5")
    assert "backbone/vars/0" in report.matched
    assert np.array_equal(model(X), fresh(X))


def test_an_old_name_does_not_take_what_belongs_elsewhere(tmp_path):
    """Where the file has both paths, each attribute gets its own."""

    class Both(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.encoder, self.backbone = keras.layers.Dense(3), keras.layers.Dense(3)

        def call(self, x):
            return self.backbone(self.encoder(x))

    model = Both()
    model(X)
    model.save_weights(tmp_path / "net.weights.h5")
    target = Renamed()
    target(X)
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(target, tmp_path / "net.weights.h5")
    assert {"encoder/vars/0", "encoder/vars/1"} <= set(caught.value.report.unexpected)


class Ones:
    """An initializer that is no subclass of Keras', and has no `from_config`."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype) * self.factor

    def get_config(self):
        return {"factor": self.factor}


@writers
@formats
def test_a_class_without_from_config_is_made_of_its_config(save, ending, tmp_path):
    """As `from_config` of Keras' own classes does it; Keras cannot open such a file."""
    layers = [keras.Input((3,)), keras.layers.Dense(2, kernel_initializer=Ones(2.0))]
    model = keras.Sequential(layers)
    path = save(model, tmp_path / f"net.{ending}")
    loaded = kct.safe_load_model(path, {"Ones": Ones})
    assert loaded.layers[0].kernel_initializer.factor == 2.0
    assert np.array_equal(model(X), loaded(X))


def in_itself(model):
    """Give a model a list that contains itself, many times."""
    model.things = [model.dense]
    model.things.extend([model.things] * 60)


def in_each_other(model):
    """Give it two lists that contain each other, one of them in a dict."""
    model.first, model.second = [model.dense], {"dense": model.dense}
    model.first.append(model.second)
    model.second["first"] = model.first


@writers
@pytest.mark.parametrize("tie", [in_itself, in_each_other])
def test_containers_that_contain_themselves_are_walked_once(save, tie, tmp_path):
    """Keras keeps track of containers, so such a model can be saved."""

    class Tied(Late):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            tie(self)

    model = Tied()
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(X, Y)
    loaded = kct.safe_load_model(save(model, tmp_path / "net.keras"), {"Tied": Tied}, compile=True)
    assert np.array_equal(model(X), loaded(X))
    manager = kct.CheckpointManager(tmp_path / "run", model=loaded)
    manager.save()
    assert kct.load_weights(loaded, tmp_path / "run")


class Fast(keras.layers.Dense):
    """Takes the place of `Dense`."""


class FastAdam(keras.optimizers.Adam):
    """Takes the place of `Adam`."""


def twice(x):
    """Take the place of an activation."""
    return 2 * x


def half(y_true, y_pred):
    """Take the place of a loss."""
    return keras.ops.mean((y_true - y_pred) ** 2) / 2


@writers
@formats
def test_custom_objects_win_over_keras_own(save, ending, tmp_path):
    """A class, a function by its name, a loss and an optimizer with its state; in every format."""
    layers = [keras.Input((3,)), keras.layers.Dense(2, activation="relu")]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    model.train_on_batch(X, Y)
    path = save(model, tmp_path / f"net.{ending}")
    objects = {"Dense": Fast, "mse": half, "Adam": FastAdam}
    if ending == "keras":  # In `.h5`, Keras 3.10 fails at functions in place of its own.
        objects["relu"] = twice
    loaded = kct.safe_load_model(path, objects, compile=True)
    assert type(loaded.layers[0]) is Fast
    assert loaded.layers[0].activation is objects.get("relu", keras.activations.relu)
    assert loaded.loss is half
    assert type(loaded.optimizer) is FastAdam
    assert loaded.optimizer.iterations == 1
    assert np.array_equal(model.get_weights()[0], loaded.get_weights()[0])
    if ending == "keras":
        uses = {u.registered_name: u.verdict for u in kct.inspect(path, objects).objects}
        assert all(uses[name] == "custom_objects" for name in objects)


def test_a_name_that_the_file_has_an_object_for_is_for_that_object(tmp_path):
    """The user's own `Dense` does not take the place of Keras' `Dense` in the same model."""

    class Dense(keras.layers.Layer):
        def call(self, x):
            return 3 * x

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), Dense()])
    loaded = kct.safe_load_model(stock(model, tmp_path / "net.keras"), {"Dense": Dense})
    assert [type(layer) for layer in loaded.layers] == [keras.layers.Dense, Dense]
    assert np.array_equal(model(X), loaded(X))


@formats
def test_a_name_that_nothing_uses_is_mentioned(ending, tmp_path):
    """It may be misspelt; nothing else would say so."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    path = stock(model, tmp_path / f"net.{ending}")
    unused = r"does not use these names in `custom_objects`: 'Dens'\."
    with pytest.warns(UserWarning, match=unused) as told:
        kct.safe_load_model(path, {"Dens": Fast})
    assert len(told) == 1
    assert told[0].filename == __file__
    with kct.scope({"Dens": Fast}):  # What the warning offers for objects of many files.
        assert "`kct.scope({...})`" in str(told[0].message)
        assert kct.safe_load_model(path)


def test_what_code_makes_or_looks_up_counts_as_used(tmp_path):
    """A class inside another one is in no config."""

    class Inner(keras.layers.Layer):
        def call(self, x):
            return x

    class Outer(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = Inner()
            self.other = keras.saving.get_registered_object("looked_up", {"looked_up": twice})

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x)

    path = stock(keras.Sequential([keras.Input((3,)), Outer()]), tmp_path / "net.keras")
    assert kct.safe_load_model(path, {"Outer": Outer, "Inner": Inner, "looked_up": twice})


class TwoOptimizers(keras.Model):
    """Compiles with arguments of its own, as a GAN does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def call(self, x):
        return self.dense(x)


class WithBoth(TwoOptimizers):
    """Says how it is compiled."""

    def get_compile_config(self):
        parts = (self.d_optimizer, self.g_optimizer, self.loss_fn)
        names = ("d_optimizer", "g_optimizer", "loss_fn")
        return dict(zip(names, map(keras.saving.serialize_keras_object, parts), strict=True))

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))


def two_optimizers(kind):
    """Make such a model, and use its optimizers."""
    model = kind()
    optimizers = keras.optimizers.Adam(), keras.optimizers.Adam()
    model.compile(*optimizers, keras.losses.MeanSquaredError())
    model(X)
    for optimizer in optimizers:
        optimizer.build(model.trainable_variables)
    return model


@writers
def test_a_compile_of_its_own_is_refused_where_compiling_is_asked_for(save, tmp_path):
    """Both writers' files alike: strict is an error, `"auto"` says so, `False` loads."""
    model = two_optimizers(TwoOptimizers)
    path = save(model, tmp_path / "net.keras")
    objects = {"TwoOptimizers": TwoOptimizers}
    with pytest.raises(RestoreError, match="has a `compile` of its own") as caught:
        kct.safe_load_model(path, objects, compile=True)
    assert "compile_from_config(self, config)" in caught.value.remedy
    with pytest.warns(UserWarning, match="has a `compile` of its own"):
        loaded = kct.safe_load_model(path, objects)
    assert not loaded.compiled
    assert np.array_equal(model(X), loaded(X))
    assert not kct.safe_load_model(path, objects, compile=False).compiled


def test_the_advice_to_write_compile_from_config_works(tmp_path):
    """With it the file compiles its model, and both optimizers have their state."""
    model = two_optimizers(WithBoth)
    path = ours(model, tmp_path / "net.keras")
    loaded = kct.safe_load_model(path, {"WithBoth": WithBoth}, compile=True)
    assert loaded.compiled
    assert len(loaded.d_optimizer.variables) == len(model.d_optimizer.variables)
