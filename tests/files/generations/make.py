"""Write what three generations of the same classes have saved, into a folder for each.

Run it with the oldest supported Keras:

    .venv-oldest/bin/python tests/files/generations/make.py

Each generation runs in a process of its own, with the classes as they were then. In each folder
there are the same model as a file of ours, as one of stock Keras and as a run's checkpoint, what it
answers, and its optimizer's state by the names of the variables that it belongs to.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]
GENERATIONS = ("first", "second", "third")


def make(name: str) -> None:
    """Train the model of a generation for two batches, and save it in three ways."""
    import keras
    import numpy as np

    import keras_ckpt_tools as kct

    generation = importlib.import_module(name)
    if hasattr(generation, "register"):
        generation.register()
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    keras.utils.set_random_seed(3)
    dense = keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((3,)), *generation.layers(), dense], name="net")
    model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    rng = np.random.default_rng(3)
    x, y = rng.random((8, 3), "float32"), rng.random((8, 1), "float32")
    checkpoint = kct.ModelCheckpoint(folder / "ours.keras")
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[checkpoint])
    model.save(folder / "stock.keras")
    run = kct.CheckpointManager(folder / "run", model=model, optimizer=model.optimizer)
    run.save()
    expected = {
        "answers": model(x[:2]).numpy().tolist(),
        "iterations": int(model.optimizer.iterations),
        "state": {
            str(v.name): v.numpy().tolist()
            for v in model.optimizer.variables
            if "momentum" in v.name or "velocity" in v.name
        },
    }
    (folder / "expected.json").write_text(f"{json.dumps(expected)}\n", encoding="utf-8")
    np.save(folder / "x.npy", x[:2])


if __name__ == "__main__":
    if sys.argv[1:]:
        make(sys.argv[1])
    else:
        for each in GENERATIONS:
            subprocess.run([sys.executable, __file__, each], check=True)
