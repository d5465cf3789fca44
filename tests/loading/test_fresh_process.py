"""Saved by stock Keras in one process, loaded in another: the story that people come with.

A custom residual block, a custom loss function and a custom metric, as `.h5` and as `.keras`. Each
interpreter loads TensorFlow, so one saves, and one loads in all the ways.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OBJECTS = """
    import keras

    class ResidualBlock(keras.layers.Layer):
        def __init__(self, filters=4, **kwargs):
            super().__init__(**kwargs)
            self.filters = filters
            self.conv = keras.layers.Conv2D(filters, 3, padding="same")

        def build(self, shape):
            self.conv.build(shape)

        def call(self, x):
            return x + self.conv(x)

        def get_config(self):
            return {**super().get_config(), "filters": self.filters}

    def focal(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred))

    class Spread(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            return super().update_state(keras.ops.abs(y_true - y_pred))
"""

SAVE = """
    import numpy as np
    import keras
    from vision_parts import ResidualBlock, Spread, focal

    keras.saving.register_keras_serializable("vision")(ResidualBlock)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            ResidualBlock(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    model.compile("adam", loss=focal, metrics=[Spread(name="spread")], run_eagerly=True)
    x = np.ones((4, 8, 8, 4), "float32")
    model.train_on_batch(x, np.ones((4, 3), "float32"))
    model.save("cnn.keras")
    model.save("cnn.h5")
    print(json.dumps(model(x).numpy().tolist()))
"""

LOAD = """
    import time
    import numpy as np
    import keras_ckpt_tools as kct
    from keras_ckpt_tools.loading.deadline import Clock, OutOfTime
    from keras_ckpt_tools.registry import Registry

    def attempt(path, custom_objects=None, registry=None):
        try:
            model = kct.safe_load_model(path, custom_objects, registry=registry)
        except kct.errors.ObjectsNotFoundError as error:
            return {"missing": error.missing, "text": str(error)}
        return {
            "answer": model(np.ones((4, 8, 8, 4), "float32")).numpy().tolist(),
            "steps": int(model.optimizer.iterations) if model.compiled else None,
            "block": type(model.layers[0]).__name__,
        }

    results = {}
    for path in ("cnn.keras", "cnn.h5"):
        results[path] = found = {"nothing": attempt(path)}
        from vision_parts import ResidualBlock, Spread, focal

        given = {"ResidualBlock": ResidualBlock, "Spread": Spread, "focal": focal}
        found["custom_objects"] = attempt(path, given)

        renamed = Registry()
        Block = type("Block", (ResidualBlock,), {})
        renamed.register("vision", aliases=["ResidualBlock"])(Block)
        renamed.register("losses", name="softened", aliases=["focal"])(focal)
        renamed.register("vision", name="Range", aliases=["Spread"])(Spread)
        found["alias"] = attempt(path, registry=renamed)

        with kct.registry._isolated():
            kct.register("vision")(ResidualBlock)
            kct.register("vision")(focal)
            kct.register("vision")(Spread)
            found["registered"] = attempt(path)

    def is_profiled():
        events = []
        sys.setprofile(lambda frame, event, argument: events.append(event))
        (lambda: None)()
        sys.setprofile(None)
        return "call" in events

    results["profiled"] = [is_profiled()]
    clock = Clock(0.0, counts_waiting=True)
    try:
        with clock.running():
            while True:
                time.sleep(0.01)
    except OutOfTime:
        results["profiled"].append(is_profiled())
    print(json.dumps(results))
"""


def run(code: str, folder: Path) -> object:
    """Run code in a fresh interpreter, and return the JSON that it prints last."""
    start = f"import json, sys; sys.path[:0] = [{str(ROOT)!r}, '.']\n"
    done = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def story():
    """Return what the saved model answered, and what each way of loading gave."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vision_parts.py").write_text(textwrap.dedent(OBJECTS))
        return run(SAVE, folder), run(LOAD, folder)


@pytest.mark.parametrize("path", ["cnn.keras", "cnn.h5"])
@pytest.mark.parametrize("way", ["registered", "alias", "custom_objects"])
def test_model_with_custom_objects_loads_in_a_fresh_process(way, path):
    """The same answers, and the optimizer where it was, in each of three ways and two formats."""
    expected, results = story()
    loaded = results[path][way]
    assert loaded["answer"] == expected
    assert loaded["steps"] == 1
    assert loaded["block"] == ("Block" if way == "alias" else "ResidualBlock")


@pytest.mark.parametrize("path", ["cnn.keras", "cnn.h5"])
def test_without_them_one_error_lists_all(path):
    """Each of the three with the line to add, and where Keras wrote it, the module."""
    refused = story()[1][path]["nothing"]
    assert refused["missing"] == ["vision>ResidualBlock", "focal", "Spread"]
    for line in (
        '@kct.register("vision") above `class ResidualBlock`, or '
        'custom_objects={"ResidualBlock": ResidualBlock}',
        "above `def focal`, or custom_objects=",
        "above `class Spread`, or custom_objects=",
    ):
        assert line in refused["text"]
    assert ("saved from vision_parts" in refused["text"]) == (path == "cnn.keras")


def test_a_profiler_works_after_a_load_and_after_one_that_was_stopped():
    """Python 3.11 loops forever under a profiler if an exception was taken back from a thread."""
    assert story()[1]["profiled"] == [True, True]
