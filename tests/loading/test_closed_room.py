"""While Keras builds, a file's names reach what was resolved, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import keras
import pytest
from keras.src.backend.common import global_state

import keras_ckpt_tools as kct
from keras_ckpt_tools.loading.closed_room import Allowed, closed_room


def test_names_of_the_file_are_what_was_resolved_or_nothing():
    """Qualified or bare; of other names those that the caller vouches for, in this thread only."""
    everything = keras.saving.get_custom_objects()
    everything.update({"a>Block": 1, "b>Block": 2, "Plain": 3, "c>Other": 4, "d>Known": 5})
    before = dict(everything)
    allowed = Allowed({"a>Block": "mine"}, vouches_for=lambda name, obj: obj == 5)
    with closed_room(allowed, ["a>Block", "Block", "Plain"]):
        assert dict(keras.saving.get_custom_objects()) == {"a>Block": "mine", "d>Known": 5}
        assert global_state.get_global_attribute("custom_objects_scope_dict") == {"a>Block": "mine"}
        with ThreadPoolExecutor() as pool:
            assert pool.submit(lambda: dict(keras.saving.get_custom_objects())).result() == before
    assert keras.saving.get_custom_objects() is everything
    assert everything == before


@pytest.mark.parametrize("runs_code", [False, True])
def test_safe_mode_is_on_unless_code_was_trusted(runs_code):
    """Whatever the process-wide switch says; a failure inside changes nothing."""
    seen = []

    def fail():
        with closed_room(Allowed({}, runs_code=runs_code)):
            seen.append(global_state.get_global_attribute("safe_mode_saving"))
            raise KeyError("inside")

    global_state.set_global_attribute("safe_mode_saving", False)
    try:
        with pytest.raises(KeyError, match="inside"):
            fail()
        assert seen == [not runs_code]
        assert global_state.get_global_attribute("safe_mode_saving") is False
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)


def test_what_is_registered_meanwhile_stays():
    """A module that a custom class imports may register its classes."""
    everything = keras.saving.get_custom_objects()
    with closed_room(Allowed({"Block": "mine"}), ["Block"]):
        keras.saving.get_custom_objects()["Block"] = "registered meanwhile"
        keras.saving.get_custom_objects()["late>Thing"] = "too"
    assert everything["Block"] == "registered meanwhile"
    assert everything["late>Thing"] == "too"


def test_a_global_entry_does_not_take_the_place_of_kerass_own(names, tmp_path):
    """Keras writes its operations by bare names, which anybody may have registered."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.relu(inputs))
    model.save(tmp_path / "net.keras")

    class Relu(keras.layers.Layer):
        pass

    keras.saving.get_custom_objects()["Relu"] = Relu
    loaded = kct.safe_load_model(tmp_path / "net.keras", registry=names)
    assert type(loaded.operations[1]) is type(model.operations[1])
