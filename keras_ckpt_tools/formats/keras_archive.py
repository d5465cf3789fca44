"""Write a whole model as `.keras`: snapshot -> *write* -> commit.

The archive is the zip that stock Keras opens: `metadata.json`, `config.json`, `model.weights.h5`
and assets, all stored, not compressed, so that a tensor can be read in place. Our record stands at
the head of the weights member.

What the record cannot cover, the zip's own headers and the other members, the archive's comment
does; see `container_seal`. So each byte of the file is covered by one of the two.
"""

from __future__ import annotations

import os
import zipfile
from typing import Any, BinaryIO

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.formats.container_seal import (
    CONFIG_MEMBER,
    METADATA_MEMBER,
    WEIGHTS_MEMBER,
    container_digest,
    member_range,
    seal_comment,
)
from keras_ckpt_tools.formats.weights_file import Snapshot, write_weights
from keras_ckpt_tools.metadata import Record

ASSETS_FOLDER = "assets"


def serialize(model: Any) -> tuple[str, str]:
    """Return `config.json` and `metadata.json` of a model, as Keras writes them."""
    config, metadata = internals.serialize_model_as_json(model)
    return config, metadata


def write_archive(
    file: BinaryIO,
    model: Any,
    documents: tuple[str, str],
    snapshot: Snapshot,
    record: Record,
    directory: str | None = None,
) -> Record:
    """Write a model into an empty file that is open for reading and writing.

    Args:
        file: Where to write.
        model: The model; asked for its assets.
        documents: What `serialize` returned.
        snapshot: Its tensors.
        record: What else the file says about itself.
        directory: Where the layout may put an empty file for a moment.

    Returns:
        The record as it stands in the file.
    """
    config, metadata = documents
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(METADATA_MEMBER, metadata)
        archive.writestr(CONFIG_MEMBER, config)
        with archive.open(WEIGHTS_MEMBER, "w", force_zip64=True) as member:
            record = write_weights(member.write, snapshot, record, directory)
        _write_assets(archive, model)
        archive.comment = seal_comment("0" * 32)
    _write_seal(file)
    return record


def _write_assets(archive: zipfile.ZipFile, model: Any) -> None:
    store = internals.DiskIOStore(ASSETS_FOLDER, archive=archive, mode="w")
    try:
        internals.save_state(
            model,
            weights_store=_NoWeights(),
            assets_store=store,
            inner_path="",
            visited_saveables=set(),
        )
    finally:
        store.close()


class _NoWeights(internals.H5IOStore):
    """Keras before 3.12 insists on a weights store even where only assets are saved."""

    def __init__(self) -> None:
        """Open nothing."""

    def __bool__(self) -> bool:
        return False


def _write_seal(file: BinaryIO) -> None:
    file.flush()
    with zipfile.ZipFile(file) as archive:
        start, end = member_range(file.fileno(), archive.getinfo(WEIGHTS_MEMBER))
    digest = container_digest(file.fileno(), start, end)
    file.seek(-len(digest), os.SEEK_END)
    file.write(digest.encode())
