"""Read checkpoints of Keras' `OrbaxCheckpoint`.

A checkpoint has a directory for each step, with subdirectories for the variables (`pytree`), the
config of the model, and the files of layers. Names, config and step are JSON. The values are in a
database, which TensorStore reads; neither Orbax nor JAX is imported. Handlers and paths in the
metadata are ignored; the layout of the format is fixed. Links and devices in the directory are
refused before anything is read.

Names are those of `model.get_state_tree()`: `trainable_variables/net/dense/kernel`.

Sources: `keras/src/callbacks/orbax_checkpoint.py`; Orbax' `_METADATA` (`tree_metadata.py`); the
zarr specifications, versions 2 and 3.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.errors import CkptError, MissingPackageError, damaged
from keras_ckpt_tools.formats.common.bounded_json import parse_object
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import open_member, read_all, regular_members
from keras_ckpt_tools.formats.kinds import Artefact
from keras_ckpt_tools.formats.layer_names import with_public_optimizers
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.metadata import TensorInfo, TrainingProgress

if TYPE_CHECKING:
    import numpy as np

OPTIMIZER = "optimizer_variables/"
METRICS = "metrics_variables/"

_CHECKPOINT = "_CHECKPOINT_METADATA"
_TREE = "_METADATA"
_VARIABLES, _CONFIG, _ASSETS = "pytree", "model_config", "assets"
# What may be unpacked whatever the directory takes: zeros pack to nothing.
_ALLOWANCE = 256 << 20
# What a branch without leaves is called.
_EMPTY = ("Dict", "List", "NamedTuple", "None", "Tuple")
_damaged = functools.partial(
    damaged, remedy="Copy it again, or take an earlier step.", thing="Orbax checkpoint"
)
_MOST_AXES = 32
_LONGEST_AXIS = 1 << 62
_ZARR_2 = {"b": "bool", "i": "int", "u": "uint", "f": "float"}


def steps_in(path: str) -> list[int]:
    """Return the steps of a directory that `OrbaxCheckpoint` saves into, oldest first.

    Empty for a directory that is itself one step.
    """
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9]\d{0,17}", name, re.ASCII))


class OrbaxCheckpoint(ModelSource):
    """One step of an Orbax checkpoint; the newest, where the artefact is a directory of them.

    Raises:
        DamagedArtefactError: it lacks a part, or a part says what Orbax never writes.
        UnsafeArtefactError: it has links, or names that lead out of it.
        OverBudgetError: it would take more than it may.
    """

    def __init__(self, artefact: Artefact, limits: Limits):
        super().__init__(artefact, limits)
        steps = map(str, steps_in(self.path)[-1:])
        self.path = os.path.abspath(os.path.join(self.path, *steps))
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            regular_members(folder, self.path)
        finally:
            os.close(folder)
        self.size = self._size()
        alone = not os.path.exists(os.path.join(self.path, _CHECKPOINT))
        self._variables = _Item(self, "" if alone else _VARIABLES)
        self.config = self._read_config()

    def _size(self) -> int:
        size = members = 0
        for folder, _, names in os.walk(self.path):
            members += len(names)
            if members > self.limits.members:
                raise over_budget(self.path, "it has", "members", members, self.limits.members)
            size += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
        return size

    def _read_config(self) -> dict[str, Any] | None:
        if not os.path.isdir(os.path.join(self.path, _CONFIG)):
            return None
        strings = self.document(_CONFIG, "_strings.json")
        text = strings.get("config")
        if not isinstance(text, str):
            raise _damaged(self.path, "its model_config has no config")
        config = parse_object(text, "model_config", self.path, self.limits)
        found: dict[str, Any] = with_public_optimizers(config)
        return found

    def document(self, folder: str, name: str) -> dict[str, Any]:
        """Return a JSON document of one of its directories."""
        opened = os.open(os.path.join(self.path, folder), os.O_RDONLY | os.O_DIRECTORY)
        try:
            descriptor = open_member(opened, name, self.path)
        finally:
            os.close(opened)
        if descriptor is None:
            raise _damaged(self.path, f"{os.path.join(folder, name)!r} is not in it")
        text = read_all(descriptor, self.limits.json_bytes)
        return parse_object(text, os.path.join(folder, name), self.path, self.limits)

    def is_plain_number(self, name: str) -> bool:
        """Return whether a scalar was saved as a number of Python's, without its dtype."""
        return self._variables.keys[name][1] == "scalar"

    @property
    def variables(self) -> list[str]:
        """The names of its tensors, which take no TensorStore to read."""
        return list(self._variables.keys)

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._variables.infos()

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        from keras_ckpt_tools.formats.common.finite import not_finite_in

        arrays = self._variables.read([self.tensors[path] for path in paths])
        self.not_finite += not_finite_in(arrays.items())
        return arrays

    @cached_property
    def progress(self) -> TrainingProgress:
        """Where training was, by the step and the optimizer's count; the zero record if unknown.

        The step is a number of batches, if it is what the optimizer counted, and an epoch if not.
        """
        counts = [name for name in self.variables if name.endswith("/iteration")]
        name = os.path.basename(self.path)
        if len(counts) != 1 or not name.isdecimal():
            return TrainingProgress()
        step = int(self.read_all(counts)[counts[0]])
        epochs = 0 if step == int(name) else int(name) + 1
        return TrainingProgress(epochs_completed=epochs, step=step)

    @property
    def has_assets(self) -> bool:
        return os.path.isdir(os.path.join(self.path, _ASSETS))

    def extract_assets(self, directory: str, inside: str = "") -> str | None:
        if not self.has_assets:
            return None
        item = _Item(self, _ASSETS)
        folder = os.path.join(directory, _ASSETS)
        wanted = [
            info
            for name, info in item.infos().items()
            if name.startswith(f"{inside}/" if inside else "")
            and not os.path.lexists(os.path.join(folder, name))
        ]
        for name, array in item.read(wanted).items():
            if array.dtype != "uint8":
                raise _damaged(self.path, f"its asset {name!r} is no file")
            place = os.path.join(folder, *name.split("/"))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "xb") as file:
                file.write(array.tobytes())
        return folder


class _Item:
    """One directory of arrays: a tree of names, and a database with the numbers."""

    def __init__(self, checkpoint: OrbaxCheckpoint, folder: str):
        self._checkpoint = checkpoint
        self._folder = folder
        tree = checkpoint.document(folder, _TREE)
        if tree.get("use_ocdbt") is not True:
            raise _damaged(
                checkpoint.path, f"{folder or 'it'} is not in the form that Keras writes"
            )
        self._zarr = 3 if tree.get("use_zarr3") else 2
        # By name: where it stands in the database, and what it was in Python.
        self.keys: dict[str, tuple[str, str]] = {}
        for entry in self._entries(tree.get("tree_metadata")):
            said = entry if isinstance(entry, dict) else {}
            parts, kind = said.get("key_metadata"), said.get("value_metadata")
            parts = parts if isinstance(parts, list) else []
            names = [part.get("key") if isinstance(part, dict) else None for part in parts]
            if not names or not all(map(_is_component, names)) or not isinstance(kind, dict):
                raise _damaged(
                    checkpoint.path,
                    f"{_TREE} has a name that Keras never writes: {str(names)[:200]}",
                )
            if kind.get("value_type") in _EMPTY:
                continue
            name = "/".join(map(str, names))
            self.keys[name] = ".".join(map(str, names)), str(kind.get("value_type"))

    def _entries(self, tree: Any) -> list[Any]:
        if not isinstance(tree, dict):
            raise _damaged(self._checkpoint.path, f"{_TREE} is not what Orbax writes")
        return list(tree.values())

    @property
    def _base(self) -> dict[str, Any]:
        folder = os.path.join(self._checkpoint.path, self._folder)
        return {"driver": "ocdbt", "base": {"driver": "file", "path": os.path.join(folder, "")}}

    def infos(self) -> dict[str, TensorInfo]:
        """Return shape and dtype of each array, by name."""
        described = "zarr.json" if self._zarr == 3 else ".zarray"
        with _TensorStore(self._checkpoint) as tensorstore:
            store = tensorstore.KvStore.open(self._base).result()
            texts = {n: store.read(f"{key}/{described}") for n, (key, _) in self.keys.items()}
            found = {name: future.result() for name, future in texts.items()}
        lacking = [name for name, one in found.items() if one.state != "value"]
        if lacking:
            raise _damaged(
                self._checkpoint.path, f"the values of {', '.join(lacking[:10])} are missing"
            )
        infos = {name: self._info(name, one.value) for name, one in found.items()}
        self._check_room(sum(info.nbytes for info in infos.values()))
        return infos

    def _info(self, name: str, text: bytes) -> TensorInfo:
        from keras_ckpt_tools.formats.common.dtypes import numpy_dtype

        checkpoint = self._checkpoint
        said = parse_object(text, f"description of {name}", checkpoint.path, checkpoint.limits)
        shape, dtype = said.get("shape"), said.get("data_type", said.get("dtype"))
        if self._zarr == 2 and isinstance(dtype, str) and dtype[:1] in ("<", "|", ">"):
            digits = dtype[2:4]
            width = "" if dtype[1:2] == "b" or not digits.isdecimal() else str(int(digits) * 8)
            dtype = f"{_ZARR_2.get(dtype[1:2], '')}{width}"
        good = isinstance(shape, list) and all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _LONGEST_AXIS
            for n in shape[: _MOST_AXES + 1]
        )
        if not good or len(shape or ()) > _MOST_AXES or not isinstance(dtype, str):
            raise _damaged(checkpoint.path, f"{name} has no shape or dtype")
        if not re.fullmatch(r"(bool|bfloat|complex|float|u?int)\w{0,16}", dtype, re.ASCII):
            raise _damaged(checkpoint.path, f"{name} is of an unknown dtype, {dtype!r}")
        try:
            size = numpy_dtype(dtype).itemsize
        except (TypeError, ValueError) as error:
            raise _damaged(checkpoint.path, f"{name} is of an unknown dtype, {dtype!r}") from error
        assert isinstance(shape, list)  # It is good.
        return TensorInfo(name, tuple(shape), dtype, None, math.prod(shape) * size)

    def _check_room(self, needed: int) -> None:
        checkpoint = self._checkpoint
        limits = checkpoint.limits
        if needed > limits.max_bytes:
            raise over_budget(
                checkpoint.path, "its tensors take", "max_bytes", needed, limits.max_bytes
            )
        most = checkpoint.size * limits.expansion + _ALLOWANCE
        if needed > most:
            what = f"it is {checkpoint.size:,} bytes, and its tensors would be"
            raise over_budget(checkpoint.path, what, "expansion_bytes", needed, most)

    def read(self, infos: Iterable[TensorInfo]) -> dict[str, np.ndarray[Any, Any]]:
        """Return arrays by name."""
        import numpy as np

        driver = "zarr3" if self._zarr == 3 else "zarr"
        infos = list(infos)
        with _TensorStore(self._checkpoint) as tensorstore:
            opened = {
                info.path: tensorstore.open(
                    {
                        "driver": driver,
                        "kvstore": {**self._base, "path": f"{self.keys[info.path][0]}/"},
                    },
                    read=True,
                    open=True,
                )
                for info in infos
            }
            stores = {name: future.result() for name, future in opened.items()}
            other = [i.path for i in infos if tuple(stores[i.path].shape) != i.shape]
            if other:
                raise _damaged(
                    self._checkpoint.path, f"{', '.join(other[:10])} was written to meanwhile"
                )
            reading = {name: store.read() for name, store in stores.items()}
            return {name: np.asarray(future.result()) for name, future in reading.items()}


def _is_component(name: Any) -> bool:
    """Return whether a part of a name can stand in a path, and only there."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not any(mark in name for mark in "/\\\0")
    )


class _TensorStore:
    """TensorStore, with its errors reported as damage."""

    def __init__(self, checkpoint: OrbaxCheckpoint):
        self._checkpoint = checkpoint

    def __enter__(self) -> Any:
        try:
            import tensorstore
        except ImportError as error:
            raise MissingPackageError(
                "Reading the tensors of an Orbax checkpoint requires the package `tensorstore`, "
                "which is not installed.",
                received=f"path={self._checkpoint.path!r}",
                remedy="Install it: `pip install 'keras_ckpt_tools[orbax]'`.",
                package="tensorstore",
            ) from error
        return tensorstore

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ValueError, RuntimeError, OSError, KeyError)):
            if isinstance(error, CkptError):
                return
            said = str(error).partition(" [")[0][:300]
            raise _damaged(self._checkpoint.path, f"TensorStore cannot read it ({said})") from error
