"""Convert a file to another format: `keras-ckpt export`.

The target changes only when the new file is complete; an existing file is replaced only with
`--force`. The report lists what was exported, and what the new format cannot hold.

Keras and TensorFlow are imported only if needed: to write a TensorFlow checkpoint, and to read
layouts that need a live model.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os

from keras_ckpt_tools._version import __version__
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    ObjectsNotFoundError,
    RestoreError,
)
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Kind, plain_path
from keras_ckpt_tools.formats.tensor_source import ModelSource, state_of_optimizers_in
from keras_ckpt_tools.formats.tensorflow.object_graph import BOOKKEEPING
from keras_ckpt_tools.inspection.configs import uncompiled
from keras_ckpt_tools.loading.open_tensors import open_tensors
from keras_ckpt_tools.loading.tensor_selection import Places, matcher, places_of_object, renamed
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, RANDOM_GROUP, compare_tensors
from keras_ckpt_tools.metadata import Record, TensorInfo
from keras_ckpt_tools.tools.chunks import nbytes_of
from keras_ckpt_tools.tools.export_report import Exported, Format, Wish, inventory
from keras_ckpt_tools.tools.export_source import Material, described_by, of_file, of_model
from keras_ckpt_tools.tools.export_writers import check_storable, is_keras_path, write

_ENDINGS: dict[str, Format] = {
    ".keras": "keras",
    ".weights.h5": "weights.h5",
    ".safetensors": "safetensors",
    ".ckpt": "tf",
}


def export(
    source: str | os.PathLike[str], target: str | os.PathLike[str], wish: Wish | None = None
) -> Exported:
    """Make a file of another format.

    Args:
        source: What `kct.inspect` takes: a file, a folder of a run, a TensorFlow checkpoint.
        target: The new file; of a TensorFlow checkpoint, its prefix.
        wish: What is to be exported, and how.

    Returns:
        The report. The target is complete when this returns.

    Raises:
        ArgumentError: an argument cannot work, or something is at the target already.
        ArtefactError: the source cannot be read, is damaged, or holds no such thing.
        RestoreError: the weights do not fit the model of `config_from`.
        CommitError: the operating system refused; the target is as it was.

    Example:

    >>> import os, tempfile
    >>> import h5py
    >>> folder = tempfile.mkdtemp()
    >>> with h5py.File(f"{folder}/a.weights.h5", "w") as file:
    ...     file["layers/dense/vars/0"] = [1.0, 2.0]
    >>> print(export(f"{folder}/a.weights.h5", f"{folder}/a.safetensors").format)
    safetensors
    """
    wish = wish or Wish()
    path = plain_path(target)
    wanted = wish.to or _format_of(path)
    _require_free(path, wanted, wish.force)
    limits = Limits.of(wish.max_bytes)
    with open_tensors(source, wish.which, limits) as opened:
        material = _material(opened, wanted, wish)
        places = _places(material, wish)
        if wanted == "keras":
            material = _with_config(material, wish, places, limits)
        if not wish.optimizer and material.documents is not None:
            material = _uncompiled(material)
        check_storable(material, places, wanted)
        if not wish.dry_run:
            write(path, wanted, _signed(material, wanted), places, objects=not wish.bare)
        went, left = inventory(material, places, wanted, wish)
        return Exported(
            source=opened.path,
            kind=opened.kind,
            target=path,
            format=wanted,
            written=not wish.dry_run,
            tensors=_sized(material, places),
            places=places,
            went=went,
            left=left,
        )


def _sized(material: Material, places: Places) -> dict[str, TensorInfo]:
    found = {name: material.weights.tensors[place] for name, place in places.items()}
    return {name: dataclasses.replace(info, nbytes=nbytes_of(info)) for name, info in found.items()}


def _format_of(path: str) -> Format:
    for ending, wanted in _ENDINGS.items():
        if path.endswith(ending):
            return wanted
    raise ArgumentError(
        "The format is not clear from the name of the target.",
        received=f"target={path!r}",
        remedy=f"Let it end in {', '.join(_ENDINGS)}, or pass `--to`.",
    )


def _require_free(path: str, format: Format, force: bool) -> None:
    files = [path] if os.path.lexists(path) else []
    if format == "tf":
        whole = glob.glob(f"{glob.escape(path)}.index")
        files += whole + glob.glob(f"{glob.escape(path)}.data-*")
        if whole:
            force = False  # Of two files, one rename cannot replace both.
    if files and (not force or os.path.isdir(path)):
        remedy = "Choose another name, or replace it: `--force`."
        raise ArgumentError(
            f"The target exists already: {', '.join(map(repr, files))}.",
            received=f"target={path!r}",
            remedy=remedy if format != "tf" and not os.path.isdir(path) else "Choose another name.",
        )


def _material(opened: ModelSource, format: Format, wish: Wish) -> Material:
    unknown = opened.kind is Kind.ORBAX and opened.config is None
    if (unknown or opened.kind is Kind.H5_WEIGHTS_LEGACY) and wish.config_from is None:
        raise ArtefactKindError(
            f"This is a {opened.kind}: the model is needed to place its tensors.",
            received=f"path={opened.path!r}",
            remedy="Name a file of that model: `--config-from model.keras`.",
            path=opened.path,
            kind=str(opened.kind),
        )
    as_objects = format == "tf" and not wish.bare and not wish.picks
    described = opened.config is not None
    if not (_is_scattered(opened, wish) or (as_objects and (described or wish.config_from))):
        return of_file(opened)
    compiled = wish.optimizer and (
        not as_objects or any("optimizer" in path.lower() for path in opened.tensors)
    )
    try:
        return of_model(opened, wish.config_from, wish.trusted, wish.max_bytes, compiled=compiled)
    except ObjectsNotFoundError as error:
        if not as_objects or _is_scattered(opened, wish):
            raise
        remedy = (
            "Without the model: `--bare` writes the tensors by path, and nothing is built. With "
            f"it, in Python: {error.remedy}"
        )
        raise ObjectsNotFoundError(
            error.what, received=error.received, remedy=remedy, **error.facts
        ) from error


def _is_scattered(opened: ModelSource, wish: Wish) -> bool:
    """Return whether only a live model can say where the tensors of a file belong."""
    if opened.kind is Kind.TF_CHECKPOINT:
        plain = opened.record is not None or all(map(is_keras_path, opened.tensors))
        return wish.config_from is not None and not plain
    return opened.kind in (Kind.H5_MODEL, Kind.H5_WEIGHTS_LEGACY, Kind.ORBAX)


def _places(material: Material, wish: Wish) -> Places:
    tensors = material.weights.tensors
    record = None if material.model is not None else material.record
    places = places_of_object(record, tensors, wish.object, material.path)
    if not wish.optimizer:
        state = state_of_optimizers_in(material.weights)
        places = {
            name: place
            for name, place in places.items()
            if not name.startswith(OPTIMIZER_GROUP) and place not in state
        }
    include, exclude = matcher(wish.include), matcher(wish.exclude)
    places = {
        name: place
        for name, place in places.items()
        if (include is None or include.match(name) or include.match(place))
        and not (exclude and (exclude.match(name) or exclude.match(place)))
    }
    if not any(wish.picks or name.partition("/")[0] not in BOOKKEEPING for name in places):
        raise ArgumentError(
            "No tensor is left to export.",
            received=f"path={material.path!r}",
            remedy="`keras-ckpt inspect --json` lists the tensors.",
        )
    return renamed(places, wish.rename)


def _with_config(material: Material, wish: Wish, places: Places, limits: Limits) -> Material:
    if wish.config_from is not None and material.model is None:
        described = described_by(material, wish.config_from, limits)
        _require_fit(material, places, wish.config_from, limits)
        material = described
    if material.documents is None:
        raise ArgumentError(
            "A `.keras` file needs the config of the model, and the source does not contain it.",
            received=f"source={material.path!r}",
            remedy="Name a file of the same model: `--config-from model.keras`.",
        )
    return material


def _require_fit(material: Material, places: Places, config_from: str, limits: Limits) -> None:
    with open_tensors(config_from, "best", limits) as other:
        expected = {
            name: info
            for name, info in other.tensors.items()
            if not name.startswith((OPTIMIZER_GROUP, RANDOM_GROUP))
        }
    tensors = material.weights.tensors
    found = {
        name: tensors[place]
        for name, place in places.items()
        if not name.startswith((OPTIMIZER_GROUP, RANDOM_GROUP))
    }
    report = compare_tensors(material.path, expected, found)
    if not report:
        raise RestoreError(
            f"The weights do not fit the model of {config_from!r}; nothing was written.\n"
            f"{report}\n",
            received=f"path={material.path!r}",
            remedy="Name a file of the same model, or rename the tensors: `--rename OLD=NEW`.",
            path=material.path,
            report=report,
        )


def _uncompiled(material: Material) -> Material:
    """Return the same without what the model was compiled with: its optimizer stays behind."""
    assert material.documents is not None
    config = json.dumps(uncompiled(json.loads(material.documents.config)))
    return dataclasses.replace(
        material, documents=dataclasses.replace(material.documents, config=config)
    )


def _signed(material: Material, format: Format) -> Material:
    """Return the same with a record for the new file."""
    old = material.record
    record = Record(
        kind="model" if format == "keras" else "weights",
        versions={**old.versions, "keras_ckpt_tools": __version__},
        progress=old.progress,
        objects=old.objects,
    )
    return dataclasses.replace(material, record=record)
