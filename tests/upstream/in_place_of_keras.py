"""What Keras' own tests of saving are run with: our loader and our writer in the place of Keras'.

Keras' tests call `saving_lib`, `saving_api`, `legacy_h5_format` and the methods of a model. All of
these come down to the few functions that are replaced here, each by the call that a user of this
package writes instead. While one of ours runs, Keras' own are back, because ours builds models and
lays out `.h5` files with them.

* Our callbacks write models that are being trained. What they do not write (a model that is not
  built, sharded weights, a file without the optimizer or without some layers, a directory, a file
  object), Keras writes, and we read it.
* `compile=` is `"auto"` unless a test says otherwise, as it is for who calls `safe_load_model`.
* What a test registers with Keras' decorator is trusted by its name, and `safe_mode=False` trusts
  each Lambda layer of the file by its name.
* A config alone is read by our loader as well: it is put into a file, in the place of an argument
  of a layer.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import pytest
from keras.src.legacy.saving import legacy_h5_format
from keras.src.saving import object_registration, saving_api, saving_lib, serialization_lib
from keras.src.testing import test_case

import keras_ckpt_tools as kct

# Borrows Keras' functions when it is imported: before they are replaced.
import keras_ckpt_tools._keras_internals

WRITER, LOADER = "writer", "loader"


class _Kept:
    """Something that Keras does not look into."""

    def __init__(self, value: Any):
        self.value = value


class Held(keras.layers.Layer):
    """A layer with one argument, which may be anything that Keras puts into a config."""

    def __init__(self, value: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.kept = _Kept(value)

    def call(self, inputs: Any) -> Any:
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "value": self.kept.value}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Held:
        config = dict(config)
        return cls(keras.saving.deserialize_keras_object(config.pop("value")), **config)


class InPlaceOfKeras:
    """Puts our functions in the place of Keras', for one test.

    Args:
        package: Name of the module of Keras' tests, whose registered objects are trusted.
        which: `WRITER`, `LOADER` or both.
    """

    def __init__(self, package: str, which: frozenset[str]):
        self.package = package
        self.which = which
        self._running = False
        self._stock: dict[str, Callable[..., Any]] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch, tests: Any) -> None:
        """Replace Keras' functions where they live, and in the module of tests itself."""
        replaced: list[tuple[Any, str, Callable[..., Any], str]] = [
            (saving_lib, "save_model", self.save_model, WRITER),
            (saving_lib, "save_weights_only", self.save_weights, WRITER),
            (legacy_h5_format, "save_model_to_hdf5", self.save_h5, WRITER),
            (saving_lib, "load_model", self.load_model, LOADER),
            (saving_lib, "load_weights_only", self.load_weights, LOADER),
            (legacy_h5_format, "load_model_from_hdf5", self.load_model, LOADER),
            (saving_api, "load_model", self.load_model, LOADER),
            (saving_api, "load_weights", self.load_weights, LOADER),
        ]
        places = (keras.saving, keras.models, keras.src.saving, tests)
        for home, name, ours, what in replaced:
            if what not in self.which:
                continue
            stock = getattr(home, name)
            self._stock[ours.__name__] = stock
            call = self._unless_running(ours, stock)
            monkeypatch.setattr(home, name, call)
            for place in places:
                if vars(place).get(name) is stock:
                    monkeypatch.setattr(place, name, call)
        # A file is JSON, which has no tuples.
        monkeypatch.setattr(test_case, "to_json_with_tuples", _as_a_file_has_it)
        monkeypatch.setattr(test_case, "from_json_with_tuples", json.loads)
        if LOADER in self.which:
            self._install_for_configs(monkeypatch, places, tests)

    def _install_for_configs(
        self, monkeypatch: pytest.MonkeyPatch, places: Any, tests: Any
    ) -> None:
        """Replace what reads a config, for the tests alone: Keras reads configs all the time."""
        name, stock = "deserialize_keras_object", serialization_lib.deserialize_keras_object
        ours = self._unless_running(self.deserialize, stock)
        for place in places:
            if vars(place).get(name) is stock:
                monkeypatch.setattr(place, name, ours)
        if vars(tests).get("serialization_lib") is serialization_lib:
            shown = SimpleNamespace(**vars(serialization_lib) | {name: ours})
            monkeypatch.setattr(tests, "serialization_lib", shown)

    def _unless_running(
        self, ours: Callable[..., Any], stock: Callable[..., Any]
    ) -> Callable[..., Any]:
        @functools.wraps(stock)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._running:
                return stock(*args, **kwargs)
            self._running = True
            try:
                return ours(*args, **kwargs)
            finally:
                self._running = False

        return call

    # Writing.

    def save_model(self, model: Any, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """`keras.saving.save_model`."""
        if args or kwargs or not (_is_path(filepath) and _is_built(model)):
            self._stock["save_model"](model, filepath, *args, **kwargs)
        else:
            self._saved_by_a_callback(kct.ModelCheckpoint(filepath), model)

    def save_h5(
        self, model: Any, filepath: Any, overwrite: bool = True, include_optimizer: bool = True
    ) -> None:
        """`save_model_to_hdf5`."""
        if not (include_optimizer and _is_built(model)):
            self._stock["save_h5"](model, filepath, overwrite, include_optimizer)
        else:
            self._saved_by_a_callback(kct.ModelCheckpoint(filepath), model)

    def save_weights(self, model: Any, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """`keras.saving.save_weights`."""
        if any(value is not None for value in (*args, *kwargs.values())):
            self._stock["save_weights"](model, filepath, *args, **kwargs)
        else:
            saver = kct.ModelCheckpoint(filepath, save_weights_only=True)
            self._saved_by_a_callback(saver, model)

    @staticmethod
    def _saved_by_a_callback(callback: kct.ModelCheckpoint, model: Any) -> None:
        callback.set_model(model)
        callback.on_epoch_end(0)

    # Reading.

    def load_model(
        self,
        filepath: Any,
        custom_objects: Any = None,
        compile: Any = "auto",
        safe_mode: Any = True,
    ) -> Any:
        """`keras.saving.load_model`."""
        trusted = self.trusted() if safe_mode else [*self.trusted(), *_lambdas_in(filepath)]
        return kct.safe_load_model(filepath, custom_objects, compile, trusted=trusted)

    def load_weights(
        self, model: Any, filepath: Any, skip_mismatch: bool = False, **kwargs: Any
    ) -> None:
        """`keras.saving.load_weights`."""
        by_name = bool(kwargs.pop("by_name", False))
        skipped = kwargs.pop("objects_to_skip", None)
        if kwargs or skipped is not None:
            # There are names of layers for this, and no such argument.
            stock = {"objects_to_skip": skipped, **kwargs}
            self._stock["load_weights"](model, filepath, skip_mismatch, **stock)
        else:
            kct.load_weights(model, filepath, strict=not skip_mismatch, by_name=by_name)

    def deserialize(
        self, config: Any, custom_objects: Any = None, safe_mode: Any = True, **_: Any
    ) -> Any:
        """`keras.saving.deserialize_keras_object`."""
        if serialization_lib.in_safe_mode() is False:
            safe_mode = False
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "held.keras")
            saving_lib.save_model(keras.Sequential([keras.Input((1,)), Held()]), path)
            _put_into(path, config)
            objects = {"Held": Held, **(custom_objects or {})}
            model = self.load_model(path, objects, safe_mode=safe_mode)
        return model.layers[0].kept.value

    def trusted(self) -> list[str]:
        """Return what the module of tests has registered with Keras so far."""
        return [
            name
            for name, value in object_registration.GLOBAL_CUSTOM_OBJECTS.items()
            if getattr(value, "__module__", None) == self.package
        ]


def _is_path(path: Any) -> bool:
    return isinstance(path, str | os.PathLike)


def _is_built(model: Any) -> bool:
    return bool(getattr(model, "built", False))


def _as_a_file_has_it(config: Any) -> str:
    return json.dumps(config, indent=4, sort_keys=True)


def _lambdas_in(path: Any) -> list[str]:
    names = [use.registered_name for use in kct.inspect(path).objects]
    return [name for name in names if name.startswith("lambda:")]


def _put_into(path: str, config: Any) -> None:
    """Let the layer `Held` in a file have a config as its argument."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    model = json.loads(members["config.json"])
    (held,) = (one for one in model["config"]["layers"] if one["class_name"] == "Held")
    held["config"]["value"] = config
    members["config.json"] = json.dumps(model).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
