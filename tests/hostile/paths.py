"""Paths that are not files: pipes, devices, sockets, links, addresses; and versions to come."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from hostile.parts import (
    METADATA,
    archive,
    h5_model,
    hostile,
    members,
    node,
    sequential,
    tensors,
    weights,
    written,
    zipped,
)

_NOT_OPENED = "not opened|special|pipe|device|socket"


@hostile("path", _NOT_OPENED, weights=True)
def pipe(folder: Path) -> Path:
    """A pipe that nobody writes to: opening it would wait for ever."""
    os.mkfifo(folder / "model.keras")
    return folder / "model.keras"


@hostile("path", _NOT_OPENED, weights=True)
def linked_pipe(folder: Path) -> Path:
    """A link to such a pipe."""
    os.mkfifo(folder / "pipe")
    os.symlink(folder / "pipe", folder / "model.keras")
    return folder / "model.keras"


@hostile("path", _NOT_OPENED, weights=True)
def device_zero(folder: Path) -> Path:
    """A link to /dev/zero, which never ends."""
    os.symlink("/dev/zero", folder / "model.keras")
    return folder / "model.keras"


@hostile("path", _NOT_OPENED, weights=True)
def unix_socket(folder: Path) -> Path:
    """A socket."""
    place = os.getcwd()
    os.chdir(folder)  # Names of sockets have room for 108 letters only.
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("model.keras")
    finally:
        os.chdir(place)
    return folder / "model.keras"


@hostile("path", "not found|nothing|There is no", weights=True)
def link_to_nothing(folder: Path) -> Path:
    """A link to a file that is not there."""
    os.symlink(folder / "nothing", folder / "model.keras")
    return folder / "model.keras"


@hostile("path", "not found|nothing|read|link|There is no", weights=True)
def link_to_itself(folder: Path) -> Path:
    """A link to itself."""
    os.symlink(folder / "model.keras", folder / "model.keras")
    return folder / "model.keras"


def _address(name: str, address: str) -> None:
    what = f"An address in place of a path: `{address}`."
    hostile("path", "URL|address|remote|not found|nothing|There is no", weights=True, name=name,
            what=what)(lambda folder: address)  # fmt: skip


_address("http", "http://kct-nobody.invalid/model.keras")
_address("gs", "gs://kct-nobody/model.keras")
_address("hf", "hf://kct-nobody/model")
_address("file", "file:///etc/passwd")


@hostile("path", "directory|no model|holds", weights=True)
def folder_of_pipes(folder: Path) -> Path:
    """A folder of pipes that are named like models."""
    for name in ("a.keras", "b.h5", "ckpt-00000001.weights.h5"):
        os.mkfifo(folder / name)
    return folder


@hostile("path", "directory|no model|holds|link", weights=True)
def folder_that_holds_itself(folder: Path) -> Path:
    """A folder with a link to itself."""
    os.symlink(folder, folder / "1")
    return folder


# Versions from the future.


def _metadata(**changes: object) -> bytes:
    return json.dumps({**METADATA, **changes}).encode()


@hostile("version", "4.0.0|newer|later")
def keras_4(folder: Path) -> Path:
    """A file of Keras 4, with a layer that Keras 3 does not have."""
    config = sequential(node("QuantumDense", name="dense", units=2))
    data = zipped({**members(config), "metadata.json": _metadata(keras_version="4.0.0")})
    return written(folder / "model.keras", data)


@hostile("version", "3.99|newer|later")
def argument_of_the_future(folder: Path) -> Path:
    """A known layer with an argument that only a later Keras has."""
    config = sequential(node("Dense", name="dense", units=2, qubits=7))
    data = zipped({**members(config), "metadata.json": _metadata(keras_version="3.99.0")})
    return written(folder / "model.keras", data)


@hostile("version", "version|damaged|metadata|missing|cannot be used")
def version_is_an_object(folder: Path) -> Path:
    """A version that is no version, on a file that needs a third-party class."""
    config = sequential(node("Scale", "elsewhere"))
    data = zipped({**members(config), "metadata.json": _metadata(keras_version={"a": []})})
    return written(folder / "model.keras", data)


@hostile("version", "tensorflow_addons|cannot be used")
def package_that_is_gone(folder: Path) -> Path:
    """A layer of tensorflow_addons, which is no longer made."""
    layer = node("GroupNormalization", "tensorflow_addons.layers.normalizations")
    layer["registered_name"] = "Addons>GroupNormalization"
    return archive(folder, sequential(layer), weights({}))


@hostile("version", "Keras 1|1.2.2|layer|config|argument|build", inspected=False)
def keras_1(folder: Path) -> Path:
    """An `.h5` file of Keras 1, whose arguments had other names."""
    config = {
        "class_name": "Sequential",
        "config": [
            {"class_name": "Dense", "config": {"name": "dense", "output_dim": 2, "init": "normal",
                                               "batch_input_shape": [None, 4]}}
        ],
    }  # fmt: skip
    return written(folder / "model.h5", h5_model(config, keras_version="1.2.2"))


@hostile("version", "weights|config", inspected=False)
def weights_only(folder: Path) -> Path:
    """Weights alone, where a model is meant."""
    return written(folder / "model.keras", weights(tensors()))
