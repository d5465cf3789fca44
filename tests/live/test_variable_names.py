"""A variable has the name that Keras gives it: by the live model, and by the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.formats.layer_names import _VARIABLES, group_name, variable_names
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.live import state
from keras_ckpt_tools.tools.diff import diff

L = keras.layers
LAYERS: list[tuple[Any, tuple[int | None, ...]]] = [
    (lambda: L.Dense(2), (3,)),
    (lambda: L.Dense(2, use_bias=False, name="head"), (3,)),
    (lambda: L.EinsumDense("ab,bc->ac", 2, bias_axes="c"), (3,)),
    (lambda: L.Conv1D(2, 2), (4, 1)),
    (lambda: L.Conv2D(2, 2, use_bias=False), (4, 4, 1)),
    (lambda: L.Conv3D(2, 2), (4, 4, 4, 1)),
    (lambda: L.Conv1DTranspose(2, 2), (4, 1)),
    (lambda: L.Conv2DTranspose(2, 2), (4, 4, 1)),
    (lambda: L.Conv3DTranspose(2, 2), (4, 4, 4, 1)),
    (lambda: L.DepthwiseConv1D(2), (4, 1)),
    (lambda: L.DepthwiseConv2D(2), (4, 4, 1)),
    (lambda: L.SeparableConv1D(2, 2), (4, 1)),
    (lambda: L.SeparableConv2D(2, 2, use_bias=False), (4, 4, 1)),
    (lambda: L.LSTM(2), (3, 1)),
    (lambda: L.GRU(2, use_bias=False), (3, 1)),
    (lambda: L.SimpleRNN(2), (3, 1)),
    (lambda: L.Bidirectional(L.GRU(2), name="both"), (3, 1)),
    (lambda: L.ConvLSTM1D(2, 2), (3, 4, 1)),
    (lambda: L.ConvLSTM2D(2, 2), (3, 4, 4, 1)),
    (lambda: L.ConvLSTM3D(2, 2), (3, 4, 4, 4, 1)),
    (lambda: L.Embedding(3, 2), (3,)),
    (L.BatchNormalization, (3,)),
    (lambda: L.BatchNormalization(scale=False, center=False), (3,)),
    (L.LayerNormalization, (3,)),
    (lambda: L.GroupNormalization(1), (3,)),
    (L.PReLU, (3,)),
    (L.Normalization, (3,)),
]


def paths_of(model: Any) -> dict[str, str]:
    """Return what Keras itself calls the variables of a functional model, by path."""
    return {p: v.path for p, v in state.capture(model).values.items() if "random" not in p}


def test_names_in_a_file_are_those_of_the_live_variables(tmp_path: Path) -> None:
    """Of every layer that is known by its class, in a stock file; the more so in one of ours."""
    kinds = set()
    for number, (make, shape) in enumerate(LAYERS):
        keras.utils.clear_session(free_memory=False)
        inputs = keras.Input(shape)
        model = keras.Model(inputs, make()(inputs))
        path = tmp_path / f"{number}.weights.h5"
        model.save_weights(path)
        with open_source(path) as source:
            assert variable_names(source.tensors, source.names) == paths_of(model)
        kinds |= {group_name(type(part).__name__) for part in model._flatten_layers()}
    if hasattr(L, "RMSNormalization"):
        kinds.add("rms_normalization")
    assert set(_VARIABLES) <= kinds


def test_what_is_not_known_keeps_its_path() -> None:
    """A class of the user's, a layer without some variables, an attribute called `dense`."""
    names = {"": "net", "layers/scale": "scale", "layers/batch_normalization": "bn"}
    names |= {"block": "block", "block/dense": "my_thing", "block/fc": "dense_3"}
    paths = ["layers/scale/vars/0", "block/dense/vars/0", "block/dense/vars/1", "vars/0", "a/b"]
    paths += [f"layers/batch_normalization/vars/{n}" for n in range(3)]
    assert variable_names([*paths, "block/fc/vars/0", "optimizer/vars/0"], names) == {
        "block/fc/vars/0": "block/dense_3/kernel"
    }
    assert variable_names(["layers/dense_1/vars/0"], {}) == {
        "layers/dense_1/vars/0": "dense_1/kernel"
    }


def model_of(units: int, layers: int = 1, optimizer: str = "sgd") -> Any:
    """Return a functional model of dense layers, compiled."""
    keras.utils.clear_session(free_memory=False)
    x = inputs = keras.Input((3,))
    for _ in range(layers):
        x = keras.layers.Dense(units)(x)
    model = keras.Model(inputs, x)
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras"])
def test_reports_and_errors_name_variables_as_keras_does(name: str, tmp_path: Path) -> None:
    """Missing, unexpected and of another shape; of a model and of two files."""
    path, more = tmp_path / name, tmp_path / f"more-{name}"
    save = "save_weights" if name.endswith(".weights.h5") else "save"
    getattr(model_of(2), save)(path)
    getattr(model_of(2, layers=2), save)(more)
    missing = kct.compare(model_of(2, layers=2), path)
    assert missing.variables["layers/dense_1/vars/0"] == "dense_1/kernel"
    assert "dense_1/kernel (layers/dense_1/vars/0)" in str(missing)
    assert "dense_1/bias (layers/dense_1/vars/1)" in missing._repr_html_()
    for target in (model_of(2), path):
        report = kct.compare(target, more)
        assert report.variables_in_file["layers/dense_1/vars/1"] == "dense_1/bias"
        assert "dense_1/kernel (layers/dense_1/vars/0)" in str(report)
    with pytest.raises(kct.errors.RestoreError, match=r"dense/kernel \(layers/dense/vars/0\)"):
        kct.load_weights(model_of(4), path)
    told = kct.inspect(path).to_json()["tensors"]
    assert {one["variable"] for one in told if "layers" in one["path"]} == {
        "dense/kernel",
        "dense/bias",
    }
    changes = diff(path, more)
    assert "dense_1/kernel (layers/dense_1/vars/0)" in str(changes)
    assert "dense_1/bias" in {one.get("variable") for one in changes.to_json()["tensors"]}


def test_a_run_that_does_not_fit_names_variables_too(tmp_path: Path) -> None:
    """Of a manager, below the name of what is tracked, with the state of the optimizer."""
    kct.CheckpointManager(tmp_path, model=model_of(2)).save()
    manager = kct.CheckpointManager(tmp_path, model=model_of(3))
    with pytest.raises(kct.errors.RestoreError) as raised:
        manager.restore_or_initialize()
    assert "dense/kernel (model/layers/dense/vars/0)" in str(raised.value)


def test_an_optimizer_of_other_variables_names_them(tmp_path: Path) -> None:
    """So that one sees what has changed."""
    saver = kct.ModelCheckpoint(tmp_path / "a.keras")
    x = np.ones((4, 3), "float32")
    model_of(3, 2, "adam").fit(x, x, verbose=0, callbacks=[saver])
    other = model_of(3, 2, "adam")
    other.optimizer.build(other.trainable_variables[::-1])
    (sentence,) = kct.compare(other, tmp_path / "a.keras").optimizer_differs
    assert "here it is dense_1/bias (layers/dense_1/vars/1)" in sentence
