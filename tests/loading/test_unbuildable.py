"""Intact files whose model cannot be built: the error names the cause, and its advice works."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ConfigError, DamagedArtefactError, NotBuiltError
from keras_ckpt_tools.registry import Registry

# Keras 3.10 says so of models with an input that has a name.
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*structure of `inputs`:UserWarning")
X = np.random.default_rng(0).random((8, 4)).astype("float32")
FORMATS = ["net.keras", "net.h5"]
every_format = pytest.mark.parametrize("name", FORMATS)


class Scale(keras.layers.Layer):
    """Its `get_config` loses an argument."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, x):
        return x * self.gain * self.factor

    def get_config(self):
        return super().get_config()


class WithDefault(Scale):
    """The same, mended by a default."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(factor, **kwargs)


class Near(keras.metrics.Metric):
    """A metric with an argument of its own and without `get_config`."""

    def __init__(self, threshold, name="near"):
        super().__init__(name=name)
        self.threshold = threshold
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(1.0)

    def result(self):
        return self.total


class Net(keras.Model):
    """A subclassed model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(x)


def chain(*layers):
    """Return a model of these layers, for inputs of four numbers."""
    return keras.Sequential([keras.Input((4,)), *layers])


def refusal(path, objects, **options):
    """Return the error of a load; the file is as good as any."""
    with pytest.raises(ConfigError) as caught:
        kct.safe_load_model(path, objects, registry=Registry(), **options)
    assert not isinstance(caught.value, DamagedArtefactError)
    assert kct.verify(path)
    return caught.value


@every_format
def test_argument_that_get_config_lost_is_named_with_what_helps(name, save, tmp_path):
    """The commonest report of all: not the file is wrong, but the class."""
    path = save(chain(Scale(2.0), keras.layers.Dense(2)), tmp_path / name)
    error = refusal(path, {"Scale": Scale})
    assert (error.class_name, error.arguments) == ("Scale", ("factor",))
    assert f"intact; Keras {keras.__version__} wrote it" in str(error)
    assert "that was saved" not in str(error)  # It was not.
    for way in ("default in __init__", "migrate=", f"kct.load_weights(model, {path!r})"):
        assert way in str(error)
    assert 'config.update({"factor": self.factor})' in str(error)


@every_format
def test_each_way_that_the_error_names_opens_the_file(name, save, tmp_path):
    """Advice works when it is followed."""
    model = chain(Scale(2.0), keras.layers.Dense(2))
    path = save(model, tmp_path / name)
    opened = [kct.safe_load_model(path, {"Scale": WithDefault}, registry=Registry())]
    names = Registry()
    names.register(
        "my_package",
        name="Scale",
        version=2,
        migrate=lambda config, from_version: {**config, "factor": 2.0},
    )(WithDefault)
    opened.append(kct.safe_load_model(path, registry=names))
    built = chain(Scale(2.0), keras.layers.Dense(2))
    assert kct.load_weights(built, path)
    for one in (*opened, built):
        assert np.array_equal(one(X), model(X))


@every_format
def test_argument_that_the_class_has_no_longer_is_named(name, save, tmp_path):
    """The class has changed since, or never took what its base class saves."""

    class Older(Scale):
        def get_config(self):
            return {**super().get_config(), "factor": self.factor, "offset": 0.0}

    path = save(chain(Older(2.0)), tmp_path / name)
    error = refusal(path, {"Older": Scale})
    assert (error.class_name, error.arguments) == ("Scale", ("offset",))
    assert "migrate=lambda config" in str(error)

    class Narrow(Scale):
        def __init__(self, factor):
            super().__init__(factor)

    error = refusal(path, {"Older": Narrow})
    assert error.class_name == "Narrow"
    assert set(error.arguments) >= {"offset", "trainable", "dtype"}
    assert "super().__init__(**kwargs)" in str(error)


@every_format
def test_key_that_a_from_config_looks_for_is_named(name, save, tmp_path):
    """A `from_config` of the user's own fails in its own words: `KeyError: 'factor'`."""

    class Looking(Scale):
        @classmethod
        def from_config(cls, config):
            return cls(config.pop("factor"), **config)

    path = save(chain(Looking(2.0)), tmp_path / name)
    error = refusal(path, {"Looking": Looking})
    assert (error.class_name, error.arguments) == ("Looking", ("factor",))


@every_format
def test_metric_that_cannot_be_built_leaves_the_model_uncompiled(name, save, tmp_path):
    """Weights are what matters; `compile=True` is the strict answer."""
    model = chain(keras.layers.Dense(2))
    model.compile("adam", "mse", metrics=[Near(0.5)])
    model.fit(X, X[:, :2], verbose=0)
    path = save(model, tmp_path / name)
    with pytest.warns(UserWarning, match="loaded uncompiled") as told:
        loaded = kct.safe_load_model(path, {"Near": Near}, registry=Registry())
    assert len(told) == 1
    assert "`Near`" in str(told[0].message)
    assert "`threshold`" in str(told[0].message)
    assert not loaded.compiled
    assert np.array_equal(loaded(X), model(X))
    error = refusal(path, {"Near": Near}, compile=True)
    assert error.class_name == "Near"
    assert set(error.arguments) == {"threshold", "dtype"}
    assert "`compile=False`" in str(error)
    assert kct.safe_load_model(path, compile=False, registry=Registry()).built


@every_format
def test_loss_that_fails_in_its_own_code_leaves_the_model_uncompiled(name, save, tmp_path):
    """An error of the user's own code in what only training needs is a reason, too."""

    class Picky(keras.losses.Loss):
        broken = False

        def __init__(self, **kwargs):
            if self.broken:
                raise OSError("no such table")
            super().__init__(**kwargs)

        def call(self, y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    model = chain(keras.layers.Dense(2))
    model.compile("adam", Picky())
    model.fit(X, X[:, :2], verbose=0)
    path = save(model, tmp_path / name)
    Picky.broken = True
    with pytest.warns(UserWarning, match=r"loaded uncompiled[\s\S]*no such table"):
        loaded = kct.safe_load_model(path, {"Picky": Picky}, registry=Registry())
    assert np.array_equal(loaded(X), model(X))


def test_argument_that_keras_has_no_longer_is_named_with_the_version(forge, layer):
    """Whoever reads it has the right file, and another Keras."""
    inputs = layer("InputLayer", batch_shape=[None, 4], name="x")
    older = layer("Dense", units=2, name="a", rows=3)
    config = {"name": "net", "layers": [inputs, older]}
    path = forge(
        {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
    )
    error = refusal(path, {})
    assert (error.class_name, error.arguments) == ("Dense", ("rows",))
    assert "`Dense`" in str(error)
    assert "kct.load_weights(model, " in str(error)


def test_subclassed_model_in_h5_says_how_its_weights_are_loaded(save, tmp_path):
    """Keras writes such a file and can never open it again; the weights in it are all there."""
    model = Net()
    model(X)
    path = save(model, tmp_path / "net.h5")
    with pytest.raises(NotBuiltError) as caught:
        kct.safe_load_model(path, {"Net": Net}, registry=Registry())
    assert "call it on one batch of data, and call `kct.load_weights" in str(caught.value)
    again = Net()
    again(X)
    assert kct.load_weights(again, path)
    assert np.array_equal(again(X), model(X))


def test_subclassed_model_in_h5_that_lost_an_argument_is_opened_by_its_weights(save, tmp_path):
    """A default would not open that file, so it is not advised."""

    class Wide(keras.Model):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.head = keras.layers.Dense(units)

        def call(self, x):
            return self.head(x)

        def get_config(self):
            return keras.Model.get_config(self)

    model = Wide(3)
    model(X)
    path = save(model, tmp_path / "net.h5")
    error = refusal(path, {"Wide": Wide})
    assert error.arguments == ("units",)
    assert "default" not in error.remedy
    again = Wide(3)
    again(X)
    assert kct.load_weights(again, path)
    assert np.array_equal(again(X), model(X))


@every_format
def test_lambda_with_a_default_argument_loads(name, save, tmp_path):
    """`lambda t, k=k: ...` is how people bind a variable of a loop; JSON makes a list of it."""
    twice = keras.layers.Lambda(lambda t, k=2.0: t * k, name="twice")
    path = save(chain(twice), tmp_path / name)
    loaded = kct.safe_load_model(path, trusted=["lambda:twice"], registry=Registry())
    assert np.array_equal(loaded(X), 2 * X)


def test_h5_of_stock_with_operations_opens(save, tmp_path):
    """Keras writes the classes of operations without their modules, and cannot open that."""
    x = keras.Input((4,), name="x")
    y = keras.ops.relu(x) + x
    y = keras.ops.concatenate([keras.ops.cast(y[:, :2], "float32"), y[..., 1:]], axis=-1)
    model = keras.Model(x, keras.layers.Add()([keras.layers.Dense(5)(y), y]))
    path = save(model, tmp_path / "net.h5")
    assert kct.inspect(path)
    assert np.array_equal(kct.safe_load_model(path)(X), model(X))


LOSSES = [
    keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    keras.losses.Huber(delta=2.0),
    keras.losses.Dice(axis=-1),
]
if hasattr(keras.losses, "CategoricalGeneralizedCrossEntropy"):
    LOSSES.append(keras.losses.CategoricalGeneralizedCrossEntropy(q=0.3))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses_of_keras_come_back_from_h5_with_their_arguments(loss, save, tmp_path):
    """A loss that is compiled and cannot be used shows at the first batch only."""
    model = chain(keras.layers.Dense(2, "softmax"))
    model.compile("sgd", loss, run_eagerly=True)
    sparse = "Generalized" in type(loss).__name__
    y = np.arange(8) % 2 if sparse else np.eye(2, dtype="float32")[np.arange(8) % 2]
    expected = model.evaluate(X, y, verbose=0)
    loaded = kct.safe_load_model(save(model, tmp_path / "net.h5"), compile=True)
    loaded.run_eagerly = True
    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(expected)


def test_each_argument_is_in_the_line_to_paste(save, tmp_path):
    """The line named the first one only."""

    class Two(Scale):
        def __init__(self, factor, offset, **kwargs):
            super().__init__(factor, **kwargs)

    path = save(chain(Two(2.0, 1.0)), tmp_path / "net.keras")
    error = refusal(path, {"Two": Two})
    assert 'migrate=lambda config, from_version: {**config, "factor": ..., "offset": ...}' in str(
        error
    )


def test_kwargs_are_not_proposed_where_the_class_has_them(save, tmp_path):
    """They go to a class that does not know the argument; what is proposed works."""

    class Extra(keras.layers.Layer):
        def call(self, x):
            return x

        def get_config(self):
            return {**super().get_config(), "extra": 1}

    class Passing(Extra):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)

    path = save(chain(Passing()), tmp_path / "net.keras")
    error = refusal(path, {"Passing": Passing})
    assert error.arguments == ("extra",)
    assert "`**kwargs`" not in error.remedy
    assert "let __init__ take `extra`, or register the class" in error.remedy
    line = error.remedy.partition("migrate=")[2].partition(")`")[0]
    names = Registry()
    names.register("my_package", name="Passing", version=2, migrate=eval(line))(Passing)  # noqa: S307
    assert kct.safe_load_model(path, registry=names)
