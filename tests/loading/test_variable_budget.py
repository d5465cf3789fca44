"""What a file may take is settled before it is taken, and told in one error with numbers."""

from __future__ import annotations

import json
import resource
import threading
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, OverBudgetError
from keras_ckpt_tools.inspection.size_estimate import estimate, mappings, repeats
from keras_ckpt_tools.loading.variable_budget import counted_variables

TB = 10**12


def peak():
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


HUGE = {
    "Dense": {"units": 10**12},
    "Embedding": {"input_dim": 10**9, "output_dim": 10**6},
    "LSTM": {"units": 10**6},
    "GRU": {"units": 10**7},
    "EinsumDense": {"equation": "ab,bc->ac", "output_shape": [10**12]},
    "Conv1D": {"filters": 10**8, "kernel_size": [10**6]},
    "MultiHeadAttention": {"num_heads": 10**6, "key_dim": 10**7},
    "MelSpectrogram": {"fft_length": 10**9, "num_mel_bins": 10**5},
}


@pytest.mark.parametrize("name", HUGE)
def test_ten_terabytes_from_two_kilobytes_are_refused_at_once(name, forge, chain, layer, names):
    """By the config alone; report and load agree."""
    path = forge(chain(layer(name, **HUGE[name])))
    before = peak()
    with pytest.raises(OverBudgetError, match=r"by its config its model takes") as caught:
        kct.safe_load_model(path, registry=names)
    assert caught.value.needed > TB
    assert caught.value.needed > caught.value.allowed
    assert peak() - before < 200 << 20
    report = kct.inspect(path, registry=names)
    assert [problem.kind for problem in report.problems] == ["OverBudgetError"]


@pytest.mark.parametrize("wrapper", ["TimeDistributed", "Bidirectional", "nested", "RNN"])
def test_what_is_wrapped_counts_too(wrapper, forge, chain, layer, names):
    """In wrappers, cells, and models within models."""
    huge = layer("Dense", units=10**13)
    inner = {
        "nested": chain(huge),
        "RNN": layer("RNN", cell=layer("LSTMCell", units=10**7)),
    }.get(wrapper) or layer(wrapper, layer=huge)
    with pytest.raises(OverBudgetError):
        kct.safe_load_model(forge(chain(inner)), registry=names)


def test_two_layers_that_are_large_together_are_refused(forge, chain, layer, names):
    """A million units after a million units: neither is large by itself."""
    path = forge(chain(layer("Dense", units=10**6), layer("Dense", units=10**7)))
    with pytest.raises(OverBudgetError):
        kct.safe_load_model(path, registry=names)


def test_what_the_estimate_does_not_see_is_counted_while_it_is_built(
    forge, chain, layer, names, monkeypatch
):
    """Through a layer that it does not know, shapes are lost; the variables are not."""
    layers = [layer("RepeatVector", n=10**6), layer("Flatten"), layer("Dense", units=10**4)]
    config = chain(*layers)
    assert estimate(config) < 1 << 20
    before = peak()
    with pytest.raises(OverBudgetError, match="building its model takes 160,000,0"):
        kct.safe_load_model(forge(config), registry=names)
    assert peak() - before < 200 << 20


def test_a_small_file_builds_no_large_model(forge, chain, layer, names):
    """Also where this machine could hold it: eight times what the file has, and a little."""
    path = forge(chain(layer("Dense", units=10**6), layer("Dense", units=300)))
    tensors = {"layers/dense/vars/0": np.ones((4, 3), "f4")}
    with pytest.raises(OverBudgetError, match="holds tensors of 48 bytes") as caught:
        kct.safe_load_model(
            forge(chain(layer("Dense", units=10**6), layer("Dense", units=300)), tensors),
            registry=names,
        )
    assert caught.value.needed > caught.value.allowed > 256 << 20
    assert path


def test_max_bytes_is_kept_to_everywhere(build_cnn, save, save_ours, tmp_path):
    """Files of ours and of others; to load, to inspect, and to fill weights in."""
    model = build_cnn()
    for path in (save(model, tmp_path / "a.keras"), save_ours(model, tmp_path / "b.keras")):
        with pytest.raises(OverBudgetError):
            kct.safe_load_model(path, max_bytes=1000)
        with pytest.raises(OverBudgetError):
            kct.load_weights(model, path, max_bytes=1000)
        assert kct.inspect(path, max_bytes=1000).problems[0].kind == "OverBudgetError"
        assert kct.safe_load_model(path, max_bytes=1_000_000).count_params()
        with pytest.raises(ArgumentError, match="max_bytes"):
            kct.safe_load_model(path, max_bytes=0)


def test_a_file_does_not_choose_how_large_my_model_becomes(tmp_path):
    """A model that is not built yet is built for the shape that the file gives."""
    saved = keras.Sequential([keras.layers.Dense(4)])
    saved.build((None, 3))
    path = tmp_path / "a.keras"
    saved.save(path)
    grown = tmp_path / "grown.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(grown, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b"[null, 3]", b"[null, 999999999999]"))
    model = keras.Sequential([keras.layers.Dense(4)])
    with pytest.raises(OverBudgetError):
        kct.load_weights(model, grown)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RandAugment", {"num_ops": 10**9}),
        ("AugMix", {"num_chains": 10**5, "chain_depth": 10**5}),
        ("LSTM", {"units": 1, "unroll": True, "batch_shape": [None, 10**9, 1]}),
    ],
)
def test_repetitions_one_by_one_have_a_limit(name, arguments, forge, chain, layer, names):
    """Each costs little, and a billion of them take a day."""
    with pytest.raises(OverBudgetError, match="asks for 1"):
        kct.safe_load_model(forge(chain(layer(name, **arguments))), registry=names)


GOOD = {
    "dense": lambda: [keras.Input((5,)), keras.layers.Dense(7), keras.layers.Dense(3)],
    "convolution": lambda: [
        keras.Input((16, 16, 3)),
        keras.layers.Conv2D(8, 3),
        keras.layers.SeparableConv2D(8, 3),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.Conv2DTranspose(4, 3),
        keras.layers.Conv2D(8, 1, groups=2),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ],
    "words": lambda: [
        keras.Input((9,)),
        keras.layers.Embedding(20, 6),
        keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True)),
        keras.layers.TimeDistributed(keras.layers.Dense(3)),
        keras.layers.GRU(4),
        keras.layers.LayerNormalization(),
    ],
    "half": lambda: [keras.Input((5,)), keras.layers.Dense(7, dtype="mixed_float16")],
    "first": lambda: [
        keras.Input((3, 16, 16)),
        keras.layers.Conv2D(8, 3, data_format="channels_first"),
    ],
    "normal": lambda: [
        keras.Input((4, 6)),
        keras.layers.BatchNormalization(),
        keras.layers.PReLU(),
        keras.layers.GroupNormalization(2),
        keras.layers.EinsumDense("abc,cd->abd", (None, 5)),
    ],
    "nested": lambda: [
        keras.Input((5,)),
        keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(4)]),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_the_estimate_is_never_more_than_the_model_takes(name):
    """A good file is not refused; and for layers that it knows, little is missing."""
    model = keras.Sequential(GOOD[name]())
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    takes = sum(v.shape.num_elements() * 4 for v in model.variables)
    assert takes * 0.3 < estimate(config) <= takes


def test_the_estimate_follows_a_graph():
    """Inputs, branches and what joins them."""
    a, b = keras.Input((4,)), keras.Input((6,))
    joined = keras.layers.Concatenate()([keras.layers.Dense(8)(a), b])
    both = keras.layers.Add()([keras.layers.Dense(5)(joined), keras.layers.Dense(5)(b)])
    model = keras.Model([a, b], keras.layers.Dense(2)(both))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    assert estimate(config) == model.count_params() * 4
    assert repeats(mappings(config))[1] == 1


@pytest.mark.parametrize(
    "config",
    [{}, {"class_name": "Dense", "config": []}, {"class_name": "Dense", "config": {"units": "x"}},
     {"class_name": "Sequential", "config": {"layers": [1, None, {"class_name": 3}]}},
     {"class_name": "Dense", "config": {"units": float("inf")}},
     {"class_name": "Model", "config": {"layers": [{"inbound_nodes": 5}], "output_layers": 1}}],
    ids=str,
)  # fmt: skip
def test_nonsense_takes_nothing(config):
    """What Keras will make of it, Keras will say."""
    assert estimate(config) < 100


def test_variables_of_other_threads_are_not_counted(monkeypatch):
    """Training may go on meanwhile."""
    made = []

    def build():
        with counted_variables("a.keras", 0, 100):
            thread = threading.Thread(target=lambda: made.append(keras.Variable(np.zeros(1000))))
            thread.start()
            thread.join()
            keras.Variable(np.zeros(1001))

    with pytest.raises(OverBudgetError, match=r"takes (8,008|4,004) bytes"):
        build()
    assert made
    assert keras.Variable(np.zeros(1000)).shape == (1000,)


def test_nothing_is_left_in_the_temporary_directory(
    forge, chain, layer, names, tmp_path, monkeypatch
):
    """Neither after a load, nor after one that was refused in the middle."""
    import tempfile

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    tensors = {
        "layers/dense/vars/0": np.ones((4, 2), "f4"),
        "layers/dense/vars/1": np.ones(2, "f4"),
    }
    path = Path(forge(chain(layer("Dense", units=2)), tensors))
    packed = tmp_path / "packed.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    model = kct.safe_load_model(packed, registry=names)
    assert np.array_equal(model.layers[-1].bias, np.ones(2))
    with pytest.raises(OverBudgetError):
        kct.safe_load_model(packed, registry=names, max_bytes=20)
    assert list(folder.iterdir()) == []
