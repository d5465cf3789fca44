"""What hostile artefacts are made of: a well-formed small model, part by part, and their list.

Everything is written with `zipfile`, `json` and `h5py` alone, so that a generator can put a lie in
any one place and leave the rest as stock Keras would write it. A generator is a function that is
given an empty directory and returns the path to open; its docstring is the row of the table in
docs/security.md. Payloads are harmless: they make the file `marker` appear, or import or call
`kct_hostile_payload`, which notes it.
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Make = Callable[[Path], "Path | str"]

PAYLOAD = "kct_hostile_payload"
SECRET = "the secret of another file"


@dataclass(frozen=True)
class Artefact:
    """One hostile or damaged artefact.

    Attributes:
        name: The family and what is wrong, in short.
        family: The class of attack.
        what: What is wrong with it, one sentence.
        make: Makes it in an empty directory, and returns the path to open.
        says: What a reader must find in our words about it, as a regular expression.
        weights: Whether `load_weights` has to refuse it as well. A lie in the config does not
            concern who reads weights only.
        inspected: Whether `inspect` has to report it. Whether an argument makes sense to a layer
            of Keras' is known when the layer is made, and whether tensors fit it, later still.
        loads: Whether it may load. It is odd, and does no harm; a model that comes of it is whole.
    """

    name: str
    family: str
    what: str
    make: Make
    says: str
    weights: bool
    inspected: bool
    loads: bool


CORPUS: dict[str, Artefact] = {}


def hostile(
    family: str,
    says: str,
    *,
    weights: bool = False,
    inspected: bool = True,
    loads: bool = False,
    name: str = "",
    what: str = "",
) -> Callable[[Make], Make]:
    """Put a generator on the list, under its own name and with its docstring as the sentence."""

    def add(make: Make) -> Make:
        short = name or getattr(make, "__name__", "").strip("_").replace("_", "-")
        sentence = what or (make.__doc__ or "").strip()
        full = f"{family}/{short}"
        assert full not in CORPUS, full
        assert sentence.endswith("."), full
        CORPUS[full] = Artefact(full, family, sentence, make, says, weights, inspected, loads)
        return make

    return add


# Configs, as stock Keras writes them.


def node(class_name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    """Return the config of one object."""
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def function(name: Any, module: str | None = "builtins", registered: Any = None) -> dict[str, Any]:
    """Return the config of a function."""
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name if registered is None else registered,
    }


def dense(units: Any = 2, **config: Any) -> dict[str, Any]:
    """Return the config of a `Dense` layer of four inputs."""
    return {
        **node("Dense", name="dense", units=units, **config),
        "build_config": {"input_shape": [None, 4]},
    }


def sequential(*layers: Any, shape: Any = (4,), dtype: str = "float32") -> dict[str, Any]:
    """Return the config of a model of these layers; of one `dense` if there are none."""
    first = node("InputLayer", batch_shape=[None, *shape], dtype=dtype, name="input_layer")
    config = node("Sequential", "keras", name="net", layers=[first, *(layers or (dense(),))])
    return {**config, "build_config": {"input_shape": [None, *shape]}}


def compiled(**arguments: Any) -> dict[str, Any]:
    """Return the config of a model that was compiled with these arguments."""
    return {**sequential(), "compile_config": {"optimizer": "sgd", "loss": "mse", **arguments}}


def lambda_code(marker: Path) -> list[Any]:
    """Return the bytecode of a function that makes the marker appear, as Keras stores it."""
    scope: dict[str, Any] = {}
    exec(f"def run(x):\n    open({str(marker)!r}, 'w').close()\n    return x\n", scope)
    code = base64.b64encode(marshal.dumps(scope["run"].__code__)).decode()
    return [code, None, None]


# Weights.


def tensors(**more: Any) -> dict[str, Any]:
    """Return the tensors of `sequential()`, by their HDF5 paths."""
    return {
        "layers/dense/vars/0": np.full((4, 2), 0.5, "float32"),
        "layers/dense/vars/1": np.zeros(2, "float32"),
        **more,
    }


def weights(values: Mapping[str, Any] | None = None, edit: Any = None) -> bytes:
    """Return a weights file; `edit` may do to the open file what it likes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        for path, value in (tensors() if values is None else values).items():
            file[path] = value
        for group in ("vars", "layers/dense"):
            file.require_group(group)
        if edit is not None:
            edit(file)
    return buffer.getvalue()


def h5_model(
    config: Any = None, training_config: Any = None, edit: Any = None, **attributes: Any
) -> bytes:
    """Return a whole-model `.h5` file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        layer = file.create_group("model_weights/dense")
        layer["net/dense/kernel"] = np.full((4, 2), 0.5, "float32")
        layer["net/dense/bias"] = np.zeros(2, "float32")
        layer.attrs["weight_names"] = ["net/dense/kernel", "net/dense/bias"]
        file["model_weights"].attrs["layer_names"] = ["dense"]
        file.attrs.update({"keras_version": "3.10.0", "backend": "tensorflow", **attributes})
        file.attrs["model_config"] = as_text(legacy(sequential()) if config is None else config)
        if training_config is not None:
            file.attrs["training_config"] = as_text(training_config)
        if edit is not None:
            edit(file)
    return buffer.getvalue()


def legacy(config: Any) -> Any:
    """Return a config in the dialect of `.h5` files: no modules, no registered names."""
    if isinstance(config, list):
        return [legacy(item) for item in config]
    if not isinstance(config, dict):
        return config
    dropped = ("module", "registered_name", "build_config")
    return {key: legacy(item) for key, item in config.items() if key not in dropped}


# Archives.

METADATA = {"keras_version": "3.10.0", "date_saved": "2026-01-01@00:00:00"}


def as_text(config: Any) -> str:
    """Return a config as JSON; a string stays as it is."""
    return config if isinstance(config, str) else json.dumps(config)


def members(config: Any = None, data: bytes | None = None, **more: bytes) -> dict[str, bytes]:
    """Return the members of a `.keras` archive, by name."""
    text = config if isinstance(config, bytes) else as_text(config or sequential()).encode()
    return {
        "metadata.json": json.dumps(METADATA).encode(),
        "config.json": text,
        "model.weights.h5": weights() if data is None else data,
        **more,
    }


def zipped(content: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return these members as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def archive(folder: Path, config: Any = None, data: bytes | None = None, **more: bytes) -> Path:
    """Write a `.keras` archive."""
    return written(folder / "model.keras", zipped(members(config, data, **more)))


def directory(folder: Path, config: Any = None, data: bytes | None = None, **more: bytes) -> Path:
    """Write an unzipped Keras directory."""
    for name, content in members(config, data, **more).items():
        path = folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "model"


def written(path: Path, data: bytes | str) -> Path:
    """Write a file; return its path."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
