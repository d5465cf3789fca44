"""What the tests of loading share: custom objects, a registry of the test's own, saved models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def names() -> Any:
    """A registry of the test's own, which Keras does not see."""
    from keras_ckpt_tools.registry import Registry

    return Registry()


@pytest.fixture
def custom() -> SimpleNamespace:
    """A residual block, a loss, a metric, an activation: new ones for each test, unregistered."""
    import keras

    class ResidualBlock(keras.layers.Layer):
        def __init__(self, units=4, activation=None, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.activation = keras.activations.get(activation)
            self.inner = keras.layers.Dense(units)

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return x + self.activation(self.inner(x))

        def get_config(self):
            activation = keras.activations.serialize(self.activation)
            return {**super().get_config(), "units": self.units, "activation": activation}

    class Distance(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            return super().update_state(keras.ops.abs(keras.ops.subtract(y_true, y_pred)))

    def bent(x):
        return keras.ops.maximum(x, 0.1 * x)

    def soft_loss(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(keras.ops.subtract(y_true, y_pred)))

    return SimpleNamespace(
        ResidualBlock=ResidualBlock, Distance=Distance, bent=bent, soft_loss=soft_loss
    )


@pytest.fixture
def objects(custom: SimpleNamespace) -> dict[str, Any]:
    """The same, as `custom_objects=` takes them."""
    return dict(vars(custom))


@pytest.fixture
def build_custom(custom: SimpleNamespace) -> Callable[..., Any]:
    """A function that builds a compiled model of the custom objects, and trains it for a batch."""
    import keras

    def build(*, trained: bool = True, optimizer: Any = "adam", extra: tuple[Any, ...] = ()) -> Any:
        model = keras.Sequential(
            [
                keras.Input((4,)),
                custom.ResidualBlock(activation=custom.bent, name="block"),
                *extra,
                keras.layers.Dense(2, activation=custom.bent, name="head"),
            ],
            name="net",
        )
        # Eagerly: building a graph for one batch takes longer than anything else in these tests.
        metrics = [custom.Distance(name="distance")]
        model.compile(optimizer, loss=custom.soft_loss, metrics=metrics, run_eagerly=True)
        if trained:
            model.train_on_batch(np.ones((8, 4), "float32"), np.ones((8, 2), "float32"))
        return model

    return build


@pytest.fixture
def save() -> Callable[..., str]:
    """A function that saves a model with stock Keras, and returns the path."""

    def save_model(model: Any, path: Path) -> str:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of `.h5`
            model.save(path)
        return str(path)

    return save_model


@pytest.fixture
def save_ours() -> Callable[..., str]:
    """A function that saves a model with our record, and returns the path."""

    def save_model(model: Any, path: Path, progress: Any = None) -> str:
        from keras_ckpt_tools.metadata import TrainingProgress
        from keras_ckpt_tools.training import writing

        name = str(path)
        kind = next(s for s in (".weights.h5", ".keras", ".h5") if name.endswith(s))
        writing.save_model(name, model, progress or TrainingProgress(), kind)
        return name

    return save_model


@pytest.fixture
def same() -> Callable[[Any, Any], bool]:
    """A function that says whether two models have the same weights and optimizer state."""

    def are_same(one: Any, other: Any) -> bool:
        mine, theirs = (
            [
                np.asarray(v.numpy())
                for v in (*m.weights, *(m.optimizer.variables if m.compiled else ()))
            ]
            for m in (one, other)
        )
        return len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))

    return are_same


@pytest.fixture
def run(tmp_path: Path, build_cnn: Callable[..., Any], save_ours: Callable[..., str]) -> Path:
    """A directory of four models of one run; the best is at epoch 1."""
    from keras_ckpt_tools.metadata import Best, TrainingProgress

    folder = tmp_path / "run"
    folder.mkdir()
    for epoch, loss in enumerate([0.5, 0.2, 0.3, 0.4]):
        best = Best("val_loss", "min", min(loss, 0.5, *([0.2] if epoch else [])), min(epoch, 1))
        progress = TrainingProgress(
            epochs_completed=epoch + 1, step=epoch, logs={"val_loss": loss}, best=best, run_id="r"
        )
        save_ours(build_cnn(), folder / f"model-{9 - epoch}.keras", progress)
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture
def forge(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a `.keras` with a config that Keras would not write."""
    import io
    import json
    import zipfile

    import h5py

    def write(config: Any, tensors: Any = None, version: str = "3.10.0") -> str:
        path = tmp_path / "forged.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": version}))
            text = config if isinstance(config, str) else json.dumps(config)
            archive.writestr("config.json", text)
            weights = io.BytesIO()
            with h5py.File(weights, "w") as file:
                file.create_group("vars")
                for name, value in (tensors or {}).items():
                    file[name] = value
            archive.writestr("model.weights.h5", weights.getvalue())
        return str(path)

    return write


@pytest.fixture
def chain() -> Callable[..., dict[str, Any]]:
    """A function that returns the config of a model of these layers, after an input of four."""

    def config(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
        first = {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {"batch_shape": [None, 4], "dtype": "float32", "name": "in"},
            "registered_name": None,
        }
        return {
            "module": "keras",
            "class_name": "Sequential",
            "config": {"name": "net", "layers": [first, *layers]},
            "registered_name": None,
            **more,
        }

    return config


@pytest.fixture
def layer() -> Callable[..., dict[str, Any]]:
    """A function that returns the config of one layer of Keras' own."""

    def config(class_name: str, module: str = "keras.layers", **arguments: Any) -> dict[str, Any]:
        return {
            "module": module,
            "class_name": class_name,
            "config": arguments,
            "registered_name": None,
        }

    return config
