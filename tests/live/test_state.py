"""From live Keras objects to named tensors, and back."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import NotBuiltError, RestoreError
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.restore import fill
from keras_ckpt_tools.training.writing import save_model


def _values(model: Any) -> list[np.ndarray]:
    return [np.asarray(v) for v in (*model.variables, *model.optimizer.variables)]


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(
        a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True)
    )


def _fresh(model: Any) -> Any:
    other = keras.Sequential.from_config(model.get_config())
    other.compile("adam", keras.losses.MeanSquaredError())
    other.optimizer.build(other.trainable_variables)
    return other


def test_a_model_gets_back_weights_optimizer_and_random_state(
    trained: Any, save: Callable[..., Path]
) -> None:
    """Dropout's generator, which Keras leaves out, is restored too."""
    path = save(trained, ".weights.h5")
    other = _fresh(trained)
    assert not _same(_values(other), _values(trained))
    with open_source(path) as source:
        assert fill(other, source)
    assert _same(_values(other), _values(trained))


def test_stock_keras_loads_what_we_write(trained: Any, save: Callable[..., Path]) -> None:
    """Weights and optimizer, bit by bit, through `model.load_weights`."""
    other = _fresh(trained)
    other.load_weights(save(trained, ".weights.h5"))
    ours = [np.asarray(v) for v in (*trained.weights, *trained.optimizer.variables)]
    theirs = [np.asarray(v) for v in (*other.weights, *other.optimizer.variables)]
    assert _same(ours, theirs)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_stock_keras_loads_whole_models_that_we_write(
    suffix: str, trained: Any, save: Callable[..., Path]
) -> None:
    """The whole model, through `keras.models.load_model`."""
    other = keras.models.load_model(save(trained, suffix))
    assert _same(*([np.asarray(v) for v in m.weights] for m in (trained, other)))
    assert int(other.optimizer.iterations) == 1 or suffix == ".h5"


def test_we_load_what_stock_keras_writes(trained: Any, tmp_path: Path) -> None:
    """A file without a record fills a model all the same."""
    path = tmp_path / "stock.weights.h5"
    trained.save_weights(path)
    other = _fresh(trained)
    with open_source(path) as source:
        assert fill(other, source)
    assert _same(*([np.asarray(v) for v in m.weights] for m in (trained, other)))


def test_a_strict_restore_that_does_not_fit_changes_nothing(
    trained: Any, save: Callable[..., Path]
) -> None:
    """All or nothing: the report comes in the error."""
    path = save(trained, ".weights.h5")
    other = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(17)])
    before = [np.asarray(v) for v in other.weights]
    with open_source(path) as source, pytest.raises(RestoreError) as caught:
        fill(other, source)
    assert _same([np.asarray(v) for v in other.weights], before)
    report = caught.value.report
    assert [m.path for m in report.shape_mismatch] == [
        "layers/dense/vars/0",
        "layers/dense/vars/1",
    ]
    assert "in the checkpoint (8, 16), in the model (8, 17)" in str(caught.value)
    assert "layers/dense_1/vars/0" in report.unexpected


def test_a_lenient_restore_loads_what_fits(trained: Any, save: Callable[..., Path]) -> None:
    """With `strict=False` the rest stays as it was, and the report says what that is."""
    path = save(trained, ".weights.h5")
    other = keras.Sequential(
        [keras.layers.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(5)]
    )
    kept = np.asarray(other.weights[2])
    with open_source(path) as source:
        report = fill(other, source, strict=False)
    assert not report
    assert np.array_equal(other.weights[0], trained.weights[0])
    assert np.array_equal(other.weights[2], kept)


class Stubborn(keras.layers.Layer):
    """A layer that saves, and then refuses to load."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(2,), initializer="ones")

    def call(self, x: Any) -> Any:
        return x

    def load_own_variables(self, store: Any) -> None:
        raise ValueError("not today")


def test_a_layer_that_refuses_undoes_the_rest(tmp_path: Path) -> None:
    """Layers that had been restored before it get back what they had."""
    from keras_ckpt_tools.metadata import TrainingProgress

    def build() -> Any:
        return keras.Sequential(
            [keras.layers.Input((2,)), keras.layers.Dense(2), Stubborn(), keras.layers.Dense(2)]
        )

    path = tmp_path / "a.weights.h5"
    save_model(str(path), build(), TrainingProgress(), ".weights.h5")
    other = build()
    before = [np.asarray(v) for v in other.weights]
    with open_source(path) as source, pytest.raises(RestoreError, match="not today"):
        fill(other, source)
    assert _same([np.asarray(v) for v in other.weights], before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8", "uint8", "bool"])
def test_every_dtype_comes_back(dtype: str, tmp_path: Path) -> None:
    """Ours and stock Keras' reading agree, bit by bit."""
    from keras_ckpt_tools.metadata import TrainingProgress

    class Holder(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.held = self.add_weight(
                shape=(3, 2), dtype=dtype, initializer="ones", trainable=False, autocast=False
            )
            self.single = self.add_weight(
                shape=(), dtype=dtype, initializer="ones", trainable=False, autocast=False
            )
            self.none = self.add_weight(shape=(0, 4), initializer="zeros")

        def call(self, x: Any) -> Any:
            return x

    def build() -> Any:
        return keras.Sequential([keras.layers.Input((2,)), Holder(dtype="float32")])

    model = build()
    model.layers[0].held.assign([[0, 1], [1, 0], [0, 0]])
    path = tmp_path / "a.weights.h5"
    save_model(str(path), model, TrainingProgress(), ".weights.h5")
    stock, ours = build(), build()
    stock.load_weights(path)
    with open_source(path) as source:
        fill(ours, source)
    for other in (stock, ours):
        assert _same(*([np.asarray(v) for v in m.weights] for m in (model, other)))


def test_assets_travel_with_the_archive(save: Callable[..., Path], tmp_path: Path) -> None:
    """A vocabulary is loaded again, by stock Keras and by us."""
    lookup = keras.layers.StringLookup()
    lookup.adapt(["cat", "cat", "dog"])
    model = keras.Sequential([keras.layers.Input((1,), dtype="string"), lookup])
    path = save(model, ".keras")
    other = keras.models.load_model(path)
    assert other.layers[0].get_vocabulary() == ["[UNK]", "cat", "dog"]
    with open_source(path) as source:
        folder = source.extract_assets(str(tmp_path))
        assert folder is not None
        assert source.verify() == ()


def test_only_assets_that_a_layer_asks_for_are_unpacked(tmp_path: Path) -> None:
    """The others may unpack to hundreds of times their size."""
    lookup = keras.layers.StringLookup(name="words")
    lookup.adapt(["cat", "cat", "dog"])
    model = keras.Sequential([keras.layers.Input((1,), dtype="string"), lookup])
    path = tmp_path / "a.keras"
    model.save(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/nobody/large.txt", b"x" * 900_000)
        asked = next(n for n in archive.namelist() if n.endswith("vocabulary.txt"))
    unpacked: list[str] = []
    with open_source(path) as source:

        def unpack(inside: str) -> str | None:
            unpacked.append(inside)
            return source.extract_assets(str(tmp_path / "out"), inside)

        bare = keras.layers.StringLookup(name="words")
        other = keras.Sequential([keras.layers.Input((1,), dtype="string"), bare])
        fill(other, source, assets=unpack)
    assert other.layers[0].get_vocabulary() == ["[UNK]", "cat", "dog"]
    files = [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert [file.as_posix() for file in files] == [asked]
    with pytest.warns(UserWarning, match="assets/nobody/large.txt"):
        loaded = kct.safe_load_model(path)
    assert loaded.layers[0].get_vocabulary() == ["[UNK]", "cat", "dog"]


def test_an_unbuilt_model_is_refused_with_the_call_to_make() -> None:
    """Never a restore that restores nothing."""
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(NotBuiltError, match=r"build\(input_shape\)"):
        state.build_like(model, None, "model")


def test_an_unbuilt_model_is_built_from_what_it_was_built_with() -> None:
    """Where the shape is on record, the model is built."""
    model = keras.Sequential([keras.layers.Dense(2)])
    state.build_like(model, {"input_shape": [None, 3]}, "model")
    assert model.weights[0].shape == (3, 2)
