"""Story: Keras runs on JAX, and TensorFlow is not installed. All works that is not TensorFlow's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)

# In the place of an environment without it, which no test can make.
WITHOUT = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())

import keras
import numpy as np
import keras_ckpt_tools as kct

folder = sys.argv[1]
x = np.random.default_rng(0).normal(size=(48, 4)).astype("float32")

@kct.register(package="tests")
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, inputs):
        return inputs * self.factor

def build():
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    layers = [keras.Input((4,)), Scale(), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=["mae"])
    return model

def values(model):
    return [np.asarray(v).tobytes() for v in (*model.weights, *model.optimizer.variables)]
"""

FIT = """
def fit(name, epochs):
    data = kct.data.ArrayDataset(x, x[:, :1], batch_size=8, shuffle=True, seed=1)
    model = build()
    callbacks = [
        kct.BackupAndRestore(f"{folder}/{name}/backup", save_freq=4, delete_checkpoint=False),
        kct.ModelCheckpoint(f"{folder}/{name}/model.keras"),
        kct.ModelCheckpoint(f"{folder}/{name}/model.weights.h5", save_weights_only=True),
        Stop(),
    ]
    model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)
    return values(model)

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        trained.append(batch)
        if sys.argv[2] == "cut" and len(trained) == 10:
            os._exit(0)

import os
trained = []
resumed = fit("cut", 4)
assert len(trained) == 4 * 6 - 8, trained  # It was saved after the eighth batch.
assert resumed == fit("whole", 4)
"""

OPEN = """
held = build()
held.optimizer.build(held.trainable_variables)
assert kct.load_weights(held, f"{folder}/whole/model.weights.h5")
loaded = kct.safe_load_model(f"{folder}/whole/model.keras")
assert values(loaded) == values(held)
assert type(loaded.layers[0]) is Scale
assert kct.inspect(f"{folder}/whole/model.keras").objects
assert kct.verify(f"{folder}/whole/model.keras")
assert kct.compare(held, f"{folder}/whole/model.keras")
assert kct.training_progress(loaded).epochs_completed == 4
assert kct.check_serializable(held)

model = build()
manager = kct.CheckpointManager(f"{folder}/manager", model=model, max_to_keep=2)
for epoch in manager.epochs(3):
    manager.log(loss=float(model.train_on_batch(x, x[:, :1])[0]))
held = values(model)
model = build()
manager = kct.CheckpointManager(f"{folder}/manager", model=model)
assert manager.restore_or_initialize() and values(model) == held
"""

LIMITS = """
for call in (
    lambda: kct.CheckpointManager(f"{folder}/tf", model=build(), format="tf"),
    lambda: kct.BackupAndRestore(f"{folder}/backup", tensorboard=f"{folder}/logs"),
    lambda: kct.data.resumable(lambda epoch: None),
):
    try:
        call()
    except kct.errors.MissingPackageError as error:
        assert error.package == "tensorflow" and "\\n" not in str(error), error
    else:
        raise AssertionError("nothing was said")
for name in kct.__all__:
    assert getattr(kct, name) is not None
"""


def run(program: str, *arguments: str) -> None:
    """Run a program on JAX, without TensorFlow; it must not fail, nor have imported TensorFlow."""
    end = "\nassert 'tensorflow' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + program + end, *arguments],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@needs_jax
def test_a_run_on_jax_resumes_bit_for_bit_and_its_files_open(tmp_path: Path) -> None:
    """It is ended inside an epoch; dropout and Adam go on where they were."""
    run(FIT, str(tmp_path), "cut")
    run(FIT + OPEN, str(tmp_path), "resume")


@needs_jax
def test_what_needs_tensorflow_says_so_in_one_line(tmp_path: Path) -> None:
    """All other public names are there."""
    run(LIMITS, str(tmp_path))
