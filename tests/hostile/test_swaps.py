"""What is checked is what is loaded, whoever replaces the file in between."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from hostile.parts import (
    PAYLOAD,
    dense,
    directory,
    members,
    node,
    sequential,
    tensors,
    weights,
    written,
    zipped,
)
from hostile.records import our_archive

import keras_ckpt_tools as kct


def _kernel(value: float) -> bytes:
    return weights(tensors(**{"layers/dense/vars/0": np.full((4, 2), value, "float32")}))


def _swapping_layer(path: Path, other: bytes) -> type:
    """Return a layer of the user's own, in whose `from_config` somebody replaces the file."""

    class Swapping(keras.layers.Layer):
        @classmethod
        def from_config(cls, config):
            written(path.with_suffix(".new"), other)
            os.replace(path.with_suffix(".new"), path)
            return cls(**config)

        def call(self, x):
            return x

    return Swapping


@pytest.mark.parametrize("ours", [False, True])
def test_file_that_is_replaced_during_a_load_is_loaded_as_it_was(ours, tmp_path):
    """Config and weights are of the file that was inspected, not of the one that stands there."""
    layer = {**node("Swapping", "mine"), "registered_name": "mine>Swapping"}
    config = sequential(layer, dense())
    first = our_archive(config=config) if ours else zipped(members(config, _kernel(0.5)))
    path = written(tmp_path / "model.keras", first)
    objects = {"Swapping": _swapping_layer(path, zipped(members(config, _kernel(9.0))))}
    model = kct.safe_load_model(path, custom_objects=objects)
    assert np.all(np.asarray(model.get_layer("dense").kernel) == 0.5)


def test_file_that_is_overwritten_in_place_is_not_loaded_half(tmp_path):
    """The same bytes of the disk change: the load has its own copy, or notices."""
    layer = {**node("Swapping", "mine"), "registered_name": "mine>Swapping"}
    config = sequential(layer, dense())
    path = written(tmp_path / "model.keras", zipped(members(config, _kernel(0.5))))
    other = zipped(members(config, _kernel(9.0)))

    class Swapping(keras.layers.Layer):
        @classmethod
        def from_config(cls, config):
            path.write_bytes(other)
            return cls(**config)

        def call(self, x):
            return x

    try:
        model = kct.safe_load_model(path, custom_objects={"Swapping": Swapping})
    except kct.errors.DamagedArtefactError:
        return
    assert np.all(np.asarray(model.get_layer("dense").kernel) == 0.5)


def test_file_that_turns_hostile_between_inspect_and_load_is_refused(tmp_path):
    """A verdict is of what was read; the load gives its own."""
    path = written(tmp_path / "model.keras", zipped(members()))
    assert not kct.inspect(path).problems
    written(path, zipped(members(sequential(node("Scale", PAYLOAD)), weights({}))))
    with pytest.raises(kct.errors.ObjectsNotFoundError):
        kct.safe_load_model(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(kct.errors.ArtefactKindError):
        kct.safe_load_model(path)


def test_loads_under_constant_replacement_are_of_one_file_each(tmp_path):
    """A thread swaps two models all the while: no load mixes them, none runs the hostile one."""
    path = tmp_path / "model.keras"
    small = zipped(members(sequential(dense(2)), _kernel(0.5)))
    values = tensors(**{"layers/dense/vars/0": np.full((4, 3), 9.0, "float32"),
                        "layers/dense/vars/1": np.zeros(3, "float32")})  # fmt: skip
    large = zipped(members(sequential(dense(3)), weights(values)))
    hostile = zipped(members(sequential(node("Scale", PAYLOAD)), weights({})))
    written(path, small)
    stop = threading.Event()

    def swap() -> None:
        for data in itertools.cycle((large, hostile, small)):
            if stop.is_set():
                return
            written(tmp_path / "next", data)
            os.replace(tmp_path / "next", path)

    thread = threading.Thread(target=swap)
    thread.start()
    found = set()
    try:
        for _ in range(12):
            try:
                model = kct.safe_load_model(path)
            except kct.errors.CkptError as error:
                found.add(type(error).__name__)
                continue
            kernel = np.asarray(model.get_layer("dense").kernel)
            found.add((kernel.shape, float(kernel.min()), float(kernel.max())))
    finally:
        stop.set()
        thread.join()
    assert found <= {((4, 2), 0.5, 0.5), ((4, 3), 9.0, 9.0), "ObjectsNotFoundError"}, found


def test_directory_whose_parts_turn_into_links_is_refused(tmp_path):
    """The folder is opened once; a link that takes a part's place is not followed."""
    path = directory(tmp_path)
    kct.safe_load_model(path)
    (path / "config.json").rename(tmp_path / "elsewhere.json")
    (path / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(kct.errors.CkptError, match="link"):
        kct.safe_load_model(path)
