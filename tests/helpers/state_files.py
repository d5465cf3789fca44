"""A state on disk, as a checkpoint has it: JSON beside arrays, and no Python object."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import numpy as np

from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.training.state.trees import give_arrays, take_arrays


def to_bytes(state: Any) -> bytes:
    """Return a state as the bytes of a file."""
    arrays: dict[str, Any] = {}
    rest = json.dumps(take_arrays(state, arrays, "it"), allow_nan=False)
    file = io.BytesIO()
    np.savez(file, json=np.array(rest), **{path: to_numpy(a) for path, a in arrays.items()})
    return file.getvalue()


def from_bytes(content: bytes) -> Any:
    """Return the state again."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {path: file[path] for path in file.files if path != "json"}
        return give_arrays(json.loads(str(file["json"])), arrays)


def again(state: Any) -> Any:
    """Return a state after it was in a file."""
    return from_bytes(to_bytes(state))


def save(path: str | os.PathLike[str], state: Any) -> None:
    """Write a state."""
    with open(path, "wb") as file:
        file.write(to_bytes(state))


def load(path: str | os.PathLike[str]) -> Any:
    """Read it."""
    with open(path, "rb") as file:
        return from_bytes(file.read())
