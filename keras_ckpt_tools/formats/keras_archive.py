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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
from keras_ckpt_tools.formats.snapshot import Snapshot
from keras_ckpt_tools.formats.walk import save_state
from keras_ckpt_tools.formats.weights_file import write_weights
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.storage.write_behind import WriteBehind, in_pieces

ASSETS_FOLDER = "assets"


@dataclass(frozen=True)
class Documents:
    """What a `.keras` holds beside weights.

    Attributes:
        config: `config.json`, as Keras writes it.
        metadata: `metadata.json`, likewise.
        assets: Files that layers saved (vocabularies), by their name in the archive.
    """

    config: str
    metadata: str
    assets: Mapping[str, bytes]


def documents_of(model: Any) -> Documents:
    """Return the present documents of a model."""
    config, metadata = internals.serialize_model_as_json(model)
    return Documents(config, metadata, _assets_of(model))


def write_archive(
    file: BinaryIO,
    documents: Documents,
    snapshot: Snapshot,
    record: Record,
    directory: str | None = None,
) -> Record:
    """Write a model into an empty file that is open for reading and writing.

    Args:
        file: Where to write.
        documents: What it holds beside weights.
        snapshot: Its tensors.
        record: What else the file says about itself.
        directory: Where the layout may put an empty file for a moment.

    Returns:
        The record as it stands in the file.
    """
    with WriteBehind(file) as behind, zipfile.ZipFile(behind, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(METADATA_MEMBER, documents.metadata)
        archive.writestr(CONFIG_MEMBER, documents.config)
        with archive.open(WEIGHTS_MEMBER, "w", force_zip64=True) as member:
            record = write_weights(in_pieces(member.write), snapshot, record, directory)
        for name, data in documents.assets.items():
            archive.writestr(name, data)
        archive.comment = seal_comment("0" * 32)
    _write_seal(file, archive.getinfo(WEIGHTS_MEMBER))
    return record


def _assets_of(model: Any) -> dict[str, bytes]:
    store = internals.DiskIOStore(ASSETS_FOLDER, mode="w")
    try:
        save_state(
            model,
            weights_store=_NoWeights(),
            assets_store=store,
            visited_saveables=set(),
        )
        root = Path(store.working_dir)
        files = (path for path in sorted(root.rglob("*")) if path.is_file())
        return {f"{ASSETS_FOLDER}/{p.relative_to(root).as_posix()}": p.read_bytes() for p in files}
    finally:
        store.close()


class _NoWeights(internals.H5IOStore):
    """Keras before 3.12 insists on a weights store even where only assets are saved."""

    def __init__(self) -> None:
        """Open nothing."""

    def __bool__(self) -> bool:
        return False


def _write_seal(file: BinaryIO, weights: zipfile.ZipInfo) -> None:
    file.flush()
    start, end = member_range(file.fileno(), weights)
    digest = container_digest(file.fileno(), start, end)
    file.seek(-len(digest), os.SEEK_END)
    file.write(digest.encode())
