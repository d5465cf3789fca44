"""Explain what a file is and which call opens it, if it is of the wrong kind for this call.

Most failed loads are valid files passed to the wrong function: weights, a TensorFlow checkpoint, a
folder, a failed download. Each error names the call that works.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from keras_ckpt_tools.errors import (
    ArtefactError,
    ArtefactKindError,
    DamagedArtefactError,
    damaged,
)
from keras_ckpt_tools.formats.common.file_objects import folder_of
from keras_ckpt_tools.formats.hdf5.shard_index import index_beside
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.open_source import READABLE
from keras_ckpt_tools.runs import choose
from keras_ckpt_tools.runs.listing import entries_in

_LISTED = 5


def require(artefact: Artefact, kinds: Collection[Kind] = READABLE) -> None:
    """Refuse a file that cannot be opened here, and name the call that opens it.

    Raises:
        ArtefactError: it must not be opened, is of another kind, or is visibly damaged.
    """
    if artefact.refusal is not None:
        raise artefact.refusal
    if artefact.kind not in kinds:
        raise wrong_kind(artefact)
    if artefact.damage:
        raise visibly_damaged(artefact)


def wrong_kind(artefact: Artefact) -> ArtefactError:
    """Return the error for a file without a model, or without weights, that can be read."""
    if artefact.kind is Kind.EMPTY:
        return visibly_damaged(artefact)
    what, remedy = _explain(artefact)
    return ArtefactKindError(
        what,
        received=f"path={artefact.path!r}",
        remedy=remedy,
        path=artefact.path,
        kind=str(artefact.kind),
    )


def visibly_damaged(artefact: Artefact) -> DamagedArtefactError:
    """Return the error for a file that is visibly damaged."""
    thing = "file" if artefact.kind is Kind.EMPTY else str(artefact.kind)
    if artefact.kind is Kind.SHARDED_WEIGHTS:
        remedy = "Download or copy all its files again, into the directory of the index."
    else:
        remedy = (
            "Download or copy it again, or use an earlier one; `kct.verify(directory)` shows which "
            "are undamaged."
        )
    return damaged(artefact.path, artefact.damage or "", remedy, thing=thing)


def _explain(artefact: Artefact) -> tuple[str, str]:
    path, kind = artefact.path, artefact.kind
    if kind in (Kind.H5_WEIGHTS, Kind.H5_WEIGHTS_LEGACY, Kind.H5_MODEL, Kind.SHARDED_WEIGHTS):
        return _explain_hdf5(path, kind)
    if kind in (Kind.CHECKPOINT, Kind.CHECKPOINT_DIR):
        return _explain_checkpoint(path, kind)
    if kind is Kind.DIRECTORY:
        return _explain_directory(path)
    return {
        Kind.TF_CHECKPOINT: _explain_tensorflow,
        Kind.SAVED_MODEL: _explain_saved_model,
        Kind.ORBAX: _explain_orbax,
        Kind.MODEL_CONFIG: _explain_config,
    }.get(kind, _explain_foreign)(path, kind)


def _explain_hdf5(path: str, kind: Kind) -> tuple[str, str]:
    if kind is Kind.SHARDED_WEIGHTS:
        what = "These are sharded weights, without the config of their model."
    else:
        what = "This file holds weights only, without the config of their model."
        path = index_beside(path) or path  # One shard has only some of the weights.
    return what, f"Build the model and call `kct.load_weights(model, {path!r})`."


def _explain_checkpoint(path: str, kind: Kind) -> tuple[str, str]:
    folder = path if kind is Kind.CHECKPOINT_DIR else folder_of(path)
    return (
        f"This is a {kind} of a training run: it holds weights, optimizer and progress, but not "
        "the config of the model.",
        f"Build the model and call `kct.load_weights(model, {path!r})`; to resume training, "
        f"`kct.CheckpointManager({folder!r}, model=model, optimizer=optimizer)"
        ".restore_or_initialize()`.",
    )


def _explain_directory(path: str) -> tuple[str, str]:
    models = choose.stock_models(path)
    if models:
        names = ", ".join(map(repr, models[:_LISTED]))
        return (
            "This is a directory of models that keras_ckpt_tools did not write, so the model to "
            "load is not known.",
            f"Pass one of its files: {names}.",
        )
    weights = [one for one in entries_in(path) if one.kind is Kind.SHARDED_WEIGHTS]
    if weights:
        return (
            "This is a directory of sharded weights; their index is needed to load them.",
            f"Build the model and call `kct.load_weights(model, {weights[0].path!r})`.",
        )
    names = ", ".join(repr(name) for name in sorted(os.listdir(path))[:_LISTED])
    return (
        "This is a directory without a model.",
        "Pass a `.keras` or `.h5` file, or a directory that `kct.ModelCheckpoint` wrote. "
        + (f"This one contains: {names}." if names else "This one is empty."),
    )


def _explain_tensorflow(path: str, kind: Kind) -> tuple[str, str]:
    return (
        f"This is a {kind}: it holds the values of variables, but no config of a model.",
        f"Build the model and call `kct.load_weights(model, {path!r})`; for other objects in it, "
        f'call `kct.load_weights({{"model": model, "optimizer": optimizer}}, {path!r})`.',
    )


def _explain_saved_model(path: str, kind: Kind) -> tuple[str, str]:
    folder = path if os.path.isdir(path) else folder_of(path)
    return (
        f"This is a {kind}: a TensorFlow program, not a Keras model.",
        f"For inference call `keras.layers.TFSMLayer({folder!r}, "
        f'call_endpoint="serving_default")` or `tf.saved_model.load({folder!r})`; to get a Keras '
        'model, save it again with `model.save("model.keras")` where it was made.',
    )


def _explain_orbax(path: str, kind: Kind) -> tuple[str, str]:
    return (
        f"This is an {kind}.",
        f"Load the model with `kct.safe_load_model({path!r})`, or its weights with "
        f"`kct.load_weights(model, {path!r})`.",
    )


def _explain_config(path: str, kind: Kind) -> tuple[str, str]:
    folder = os.path.dirname(path) or "."
    if os.path.basename(path) == "config.json" and tell(folder).kind is Kind.KERAS_DIR:
        return (
            "This is the config file of an unzipped Keras model.",
            f"Pass the directory: `kct.safe_load_model({folder!r})`.",
        )
    return (
        "This is the output of `model.to_json()`: the config of a model, without weights.",
        f"Build the model with `model = keras.models.model_from_json(open({path!r}).read())`, if "
        "you trust the file, and load its weights with `kct.load_weights(model, path)`.",
    )


def _explain_foreign(path: str, kind: Kind) -> tuple[str, str]:
    explained = {
        Kind.PICKLE: (
            "This is a pickle. Opening a pickle runs the code in it, so it is never opened here.",
            "If you made it yourself, load it with the library that wrote it and save the model "
            'with `model.save("model.keras")`.',
        ),
        Kind.SAFETENSORS: (
            "This is a safetensors file: it holds tensors, but no config of a model.",
            f"Build the model and call `kct.load_weights(model, {path!r})`; where the names in it "
            "are not Keras', rename them first with `keras-ckpt export --rename`.",
        ),
        Kind.NPZ: (
            "This file holds NumPy arrays, not a Keras model.",
            f"Read it with `numpy.load({path!r})`.",
        ),
        Kind.GIT_LFS: (
            "This is a Git LFS pointer: the file itself was not downloaded.",
            f"Fetch it with `git lfs pull --include={path!r}`.",
        ),
        Kind.HTML: (
            "This is a web page, not a model. Most likely, a download failed.",
            "Open it in a browser to read the server's message, and download the file again.",
        ),
        Kind.JSON: (
            "This is JSON that keras_ckpt_tools does not read: neither the index of sharded "
            "weights nor the config of a model.",
            "Pass the `.weights.json` that `model.save_weights(path, max_shard_size=...)` wrote, "
            "or a `.keras`, `.weights.h5`, `.h5` or `.safetensors` file.",
        ),
        Kind.SPECIAL: (
            "This is a pipe, a socket or a device; it is not opened.",
            "Pass a regular file or a directory.",
        ),
    }
    return explained.get(
        kind,
        (
            "This is not a Keras file: neither a `.keras` archive nor HDF5.",
            "Pass a `.keras` or `.h5` file, or a directory that `kct.ModelCheckpoint` wrote.",
        ),
    )


def only_one_model(kind: Kind, path: str, target: Any) -> ArtefactKindError:
    """Return the error for a file that holds a model, where other objects are restored."""
    return ArtefactKindError(
        f"It is of the kind {str(kind)!r}, which holds one model and no other objects.",
        received=f"path={path!r}, target={target!r}",
        remedy=f"Pass the model itself: `kct.load_weights(model, {path!r})`.",
        path=path,
        kind=str(kind),
    )
