"""Save every kind of model with the Keras that runs this, into one archive.

    KERAS_BACKEND=jax python make.py

makes `keras-3.15.1-jax.zip`: `<kind>.keras`, `<kind>.h5`, `<kind>.weights.h5`, and `outputs.json`
with what each model predicted, and what this Keras cannot write. The archives were made with Keras
2.15.0, 3.0.5, 3.3.3, 3.6.0, 3.8.0, 3.10.0 and 3.15.1 on TensorFlow, and with 3.15.1 on JAX and
torch. They are never made anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from kinds import KINDS, inputs_of  # noqa: E402

FORMATS = (".keras", ".h5", ".weights.h5")


def _outputs(model: Any, name: str) -> list[Any]:
    outputs = model.predict(inputs_of(name), verbose=0)
    flat = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [np.asarray(one, "float64").tolist() for one in flat]


def main() -> None:
    """Write the archive."""
    backend = keras.backend.backend()
    said: dict[str, Any] = {"outputs": {}, "not_written": {}}
    target = HERE / f"keras-{keras.__version__}-{backend}.zip"
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, make in KINDS.items():
            keras.utils.set_random_seed(7)
            try:
                model = make()
                said["outputs"][name] = _outputs(model, name)
            except Exception as error:  # noqa: BLE001 - what this Keras cannot do is written down
                said["not_written"][name] = f"{type(error).__name__}: {error}"[:200]
                continue
            for suffix in FORMATS:
                path = Path(folder) / f"{name}{suffix}"
                try:
                    if suffix == ".weights.h5":
                        model.save_weights(path)
                    else:
                        model.save(path)
                except Exception as error:  # noqa: BLE001
                    said["not_written"][path.name] = f"{type(error).__name__}: {error}"[:200]
                    continue
                archive.write(path, path.name)
        archive.writestr("outputs.json", json.dumps(said, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
