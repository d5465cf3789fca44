"""Write an export in each format.

Everything that a format cannot hold is reported in one error before anything is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.common.contents import Snapshot
from keras_ckpt_tools.formats.tensor_source import read_from
from keras_ckpt_tools.loading.tensor_selection import Places
from keras_ckpt_tools.matching.compare import RANDOM_GROUP
from keras_ckpt_tools.storage.commit import staged
from keras_ckpt_tools.tools.chunks import in_batches, pieces
from keras_ckpt_tools.tools.export_report import Format
from keras_ckpt_tools.tools.export_source import Material

if TYPE_CHECKING:
    import numpy as np

_NAMED = 5
_ELEMENTS = 4 << 20


def check_storable(material: Material, places: Places, format: Format) -> None:
    """Refuse what the format cannot hold.

    Raises:
        ArgumentError: names that Keras would not find, or dtypes that the format does not know.
    """
    from keras_ckpt_tools.formats.safetensors import NAMES

    tensors = material.weights.tensors
    if format == "safetensors":
        bad = [n for n, place in places.items() if tensors[place].dtype not in NAMES]
        kinds = ", ".join(sorted({tensors[places[name]].dtype for name in bad}))
        what = f"safetensors have no type for {kinds}"
        remedy = "Leave these tensors out with `--exclude`."
    elif format == "tf":
        return
    else:
        bad = [name for name in places if not is_keras_path(name)]
        what = "Keras would not find tensors under names like these"
        remedy = (
            "Give them Keras' paths, `layers/dense/vars/0`: with `--rename OLD=NEW`, or by the "
            "model itself, `--config-from model.keras`."
        )
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise ArgumentError(
            f"The format cannot hold all of it: {what}: {', '.join(bad[:_NAMED])}{more}.",
            received=f"path={material.path!r}",
            remedy=remedy,
        )


def is_keras_path(name: str) -> bool:
    """Return whether Keras looks for a tensor under such a path.

    >>> is_keras_path("layers/dense/vars/0"), is_keras_path("dense/../vars/0")
    (True, False)
    """
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in name:
        return False
    return "vars" in parts[:-1] or name.startswith(RANDOM_GROUP)


def write(path: str, format: Format, material: Material, places: Places, *, objects: bool) -> None:
    """Write and commit.

    Args:
        path: Where to.
        format: What.
        material: What it is made of.
        places: Which tensors, and where they stand.
        objects: Whether a TensorFlow checkpoint is to be one of the live model, where there is one.

    Raises:
        DamagedArtefactError: bytes of the source have changed; the target is as it was.
        CommitError: the operating system refused; likewise.
    """
    if format == "tf":
        _write_tensorflow(path, material, places, objects)
    elif format == "safetensors":
        _write_safetensors(path, material, places)
    else:
        _write_hdf5(path, format, material, places)


def _write_tensorflow(path: str, material: Material, places: Places, objects: bool) -> None:
    from keras_ckpt_tools.live.foreign.tf_export import write_arrays, write_objects

    model = material.model
    if model is None or not objects:
        write_arrays(path, read_from(material.weights, places))
        return
    optimizer = getattr(model, "optimizer", None)
    goes = optimizer is not None and any(name.startswith("optimizer/") for name in places)
    write_objects(path, model=model, **({"optimizer": optimizer} if goes else {}))


def _write_safetensors(path: str, material: Material, places: Places) -> None:
    from keras_ckpt_tools.formats.safetensors import notes, write_safetensors

    tensors = {name: material.weights.tensors[place] for name, place in places.items()}

    def arrays(order: list[str]) -> Iterator[np.ndarray[Any, Any]]:
        for batch in in_batches(tensors, order):
            if len(batch) == 1:
                yield from pieces(material.weights, places[batch[0]], _ELEMENTS)
                continue
            found = read_from(material.weights, {name: places[name] for name in batch})
            yield from (found[name] for name in batch)

    documents = material.documents
    config = documents.config if documents else None
    metadata = json.loads(documents.metadata) if documents else {}
    with staged(path) as file:
        write_safetensors(file.write, tensors, arrays, notes(material.record, config, metadata))


def _write_hdf5(path: str, format: Format, material: Material, places: Places) -> None:
    from keras_ckpt_tools.formats.hdf5.writer import write_weights
    from keras_ckpt_tools.formats.keras_zip.writer import write_archive

    arrays = read_from(material.weights, places)
    snapshot = Snapshot(arrays, dict(_names(material.names, arrays)))
    directory = os.path.dirname(os.path.realpath(path))
    with staged(path) as file:
        if format == "keras":
            assert material.documents is not None
            write_archive(file, material.documents, snapshot, material.record, directory)
        else:
            write_weights(file.write, snapshot, material.record, directory)


def _names(names: Mapping[str, str], paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the names of the groups that are there."""
    groups = {path[:end] for path in paths for end in range(len(path)) if path[end] == "/"}
    return ((group, name) for group, name in names.items() if group in groups)
