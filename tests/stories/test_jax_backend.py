"""Story: Keras runs on JAX. There a snapshot is a copy, and everything else is the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import keras
import numpy as np
import keras_ckpt_tools as kct
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.training.writing import prepare_model

folder = sys.argv[1]
assert keras.backend.backend() == "jax"
x, y = np.random.rand(16, 4).astype("float32"), np.random.rand(16, 1).astype("float32")

def build():
    layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile("adam", keras.losses.MeanSquaredError())
    return model

def values(model):
    return [np.asarray(v).tobytes() for v in (*model.weights, *model.optimizer.variables)]

model = build()
model.fit(x, y, verbose=0)
for suffix in (".weights.h5", ".keras"):
    held, path = values(model), f"{folder}/a{suffix}"
    write = prepare_model(path, model, TrainingProgress(), suffix, {})
    model.fit(x, y, verbose=0)
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 7.0))
    write()
    assert kct.verify(path)
    if suffix == ".keras":
        loaded = [keras.models.load_model(path), kct.safe_load_model(path)]
    else:
        loaded = [build(), build()]
        for other in loaded:
            other.optimizer.build(other.trainable_variables)
        loaded[0].load_weights(path)
        assert kct.load_weights(loaded[1], path)
    assert [values(other) for other in loaded] == [held, held], suffix
backup = kct.BackupAndRestore(f"{folder}/backup", delete_checkpoint=False, background=True)
model.fit(x, y, epochs=2, verbose=0, callbacks=[backup])
again = kct.BackupAndRestore(f"{folder}/backup", resume="must")
assert build().fit(x, y, epochs=3, verbose=0, callbacks=[again]).epoch == [0, 1, 2]
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_a_save_on_jax_is_of_its_moment_and_stock_keras_opens_it(tmp_path: Path) -> None:
    """Both formats, written after the model has changed; then a run that goes on."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
