"""What the tests of the command line share: the real command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def keras_ckpt() -> Callable[..., Any]:
    """A function that runs `keras-ckpt` with arguments, as a shell does."""

    def run(*arguments: Any, **options: Any) -> Any:
        command = [sys.executable, "-m", "keras_ckpt_tools", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            **options,
        )

    return run


@pytest.fixture
def cli() -> Callable[..., Any]:
    """A function that calls `keras-ckpt` with arguments in this process, without a terminal."""
    from click.testing import CliRunner

    from keras_ckpt_tools.cli import main

    def call(*arguments: Any, **options: Any) -> Any:
        done = CliRunner().invoke(main, [str(one) for one in arguments], **options)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return call


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trained model in every form in which it may be found; read-only."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_ckpt_tools as kct

    folder = tmp_path_factory.mktemp("exported files ünï")
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="first"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2, name="second"),
        ]
    )
    model.compile("adam", keras.losses.MeanSquaredError())
    x = np.ones((4, 4), "f4")
    manager = kct.CheckpointManager(folder / "run", model=model, max_to_keep=None)
    for _ in manager.epochs(2):
        manager.log(loss=model.train_on_batch(x, x[:, :2]))
    found = {name: folder / f"a {name}" for name in (".keras", ".weights.h5", "old.h5")}
    found |= {"run": folder / "run", "tf": folder / "tf", "ours": folder / "ours.keras"}
    model.save(found[".keras"])
    model.save_weights(found[".weights.h5"])
    checkpoint = kct.ModelCheckpoint(str(found["ours"]))
    checkpoint.set_model(model)
    checkpoint.on_epoch_begin(0)
    checkpoint.on_epoch_end(0, {})
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(found["tf"]))
    model.save(found["old.h5"])  # Keras takes the optimizer out of the model's config here.
    return found
