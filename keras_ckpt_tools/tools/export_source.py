"""Collect the tensors and documents for an export.

Most conversions copy tensors and documents between files without Keras. For layouts other than
Keras 3's (a whole-model `.h5`, a TensorFlow checkpoint), the model is built as in
`kct.safe_load_model`, with the same trust, and its contents are exported.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.formats.common.contents import Documents
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.tensor_source import ModelSource, TensorSource
from keras_ckpt_tools.inspection.configs import walk
from keras_ckpt_tools.loading.open_tensors import open_tensors
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, RANDOM_GROUP
from keras_ckpt_tools.metadata import CustomObject, Record, TensorInfo
from keras_ckpt_tools.registry import registry

if TYPE_CHECKING:
    import numpy as np

# The groups of random generators' state: in files of this package, and in Orbax checkpoints.
_GENERATORS = r"random_state|\w+_variables/(.*/)?seed_generator"


@dataclass(frozen=True)
class Material:
    """What a new file can be made of.

    Attributes:
        path: The file that it comes from.
        kind: What that is.
        weights: Its tensors.
        record: What it says about itself; what is not known has its default.
        documents: Config, metadata and assets, or `None` where there is no config.
        names: Names of objects by the path of their group, where they are known.
        model: The live model, where one had to be built.
    """

    path: str
    kind: Kind
    weights: TensorSource
    record: Record
    documents: Documents | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    model: Any = None


def of_file(opened: ModelSource) -> Material:
    """Return what a file holds, as it is."""
    record = opened.record or Record(versions=opened.versions)
    return Material(opened.path, opened.kind, opened, record, _documents(opened))


def _documents(source: ModelSource) -> Documents | None:
    if source.config is None or source.kind is Kind.H5_MODEL:
        return None
    with tempfile.TemporaryDirectory(prefix="kct-") as folder:
        # The folder to unpack them to is empty.
        found = source.extract_assets(folder)
        files = sorted(Path(found).rglob("*")) if found else []
        assets = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in files
            if path.is_file()
        }
    return Documents(json.dumps(source.config), json.dumps(source.metadata), assets)


def described_by(material: Material, path: str | os.PathLike[str], limits: Limits) -> Material:
    """Return the same with the documents of another file.

    Args:
        material: The weights.
        path: A `.keras` archive or directory of the same model.
        limits: What reading it may take.

    Raises:
        ArtefactError: it cannot be read.
    """
    with open_tensors(path, "best", limits) as other:
        objects = material.record.objects or (other.record.objects if other.record else ())
        record = replace(material.record, objects=objects)
        return replace(material, documents=_documents(other), record=record)


def of_model(
    opened: ModelSource,
    config_from: str | os.PathLike[str] | None,
    trusted: Iterable[str],
    max_bytes: int | None,
    *,
    compiled: bool,
) -> Material:
    """Build the model of a file, and return what it holds of that file. Imports Keras.

    Args:
        opened: The file.
        config_from: A file with the model, where this one has weights only.
        trusted: As for `kct.safe_load_model`.
        max_bytes: Likewise.
        compiled: Whether the model gets its optimizer.

    Raises:
        CkptError: what `kct.safe_load_model` and `kct.load_weights` raise.
    """
    from keras_ckpt_tools.live import state
    from keras_ckpt_tools.live.model_config import Describer
    from keras_ckpt_tools.loading.model import safe_load_model
    from keras_ckpt_tools.loading.restore import load_weights

    path = opened.path
    whole = path if config_from is None else config_from
    how: Any = "auto" if compiled else False
    model = safe_load_model(whole, compile=how, trusted=trusted, max_bytes=max_bytes)
    captured = state.capture(model)
    if config_from is None:
        held = _of_the_file(opened, captured.values)
    else:
        # Other parts of that file, such as its optimizer's state, are not used.
        held = frozenset(load_weights(model, path, max_bytes=max_bytes).matched)
        captured = state.capture(model)
    documents = Describer().describe(model, has_assets=captured.has_assets)
    arrays = {n: state.to_numpy(value) for n, value in captured.values.items() if n in held}
    record = opened.record or Record(versions=opened.versions)
    versions = {**record.versions, "keras": str(json.loads(documents.metadata)["keras_version"])}
    record = replace(
        record, kind="model", versions=versions, objects=_objects(documents.config), tensors=()
    )
    weights = _Arrays(path, arrays, captured.infos())
    return Material(path, opened.kind, weights, record, documents, captured.names, model)


def _of_the_file(opened: ModelSource, paths: Iterable[str]) -> frozenset[str]:
    """Return what a loaded model has from its file, without reinitialized state."""
    found = opened.tensors
    fresh = tuple(
        group
        for group, word in ((OPTIMIZER_GROUP, r"optimizer"), (RANDOM_GROUP, _GENERATORS))
        if not any(re.match(word, path) for path in found)
    )
    return frozenset(path for path in paths if not path.startswith(fresh))


def _objects(config: str) -> tuple[CustomObject, ...]:
    """Return the custom objects that a config names, as they are in this process."""
    found: dict[str, CustomObject] = {}
    for need in walk(json.loads(config), None):
        entry = None if need.of_keras else registry.entry(need.name)
        if need.role in ("class", "function") and not need.of_keras:
            package, version = (entry.package_version, entry.version) if entry else (None, 1)
            found[need.name] = CustomObject(
                need.name, need.module, need.class_name, package, version
            )
    return tuple(found.values())


class _Arrays:
    """Arrays of a live model, as a source."""

    def __init__(
        self,
        path: str,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        infos: Mapping[str, TensorInfo],
    ):
        self.path = path
        self._arrays = arrays
        self.tensors = {
            name: replace(infos[name], nbytes=array.nbytes) for name, array in arrays.items()
        }

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        return {path: self._arrays[path] for path in paths}
