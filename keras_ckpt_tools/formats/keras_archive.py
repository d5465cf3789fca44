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
from typing import BinaryIO

from keras_ckpt_tools.formats.container_seal import (
    CONFIG_MEMBER,
    METADATA_MEMBER,
    WEIGHTS_MEMBER,
    container_digest,
    member_range,
    seal_comment,
)
from keras_ckpt_tools.formats.contents import Documents, Snapshot
from keras_ckpt_tools.formats.weights_file import write_weights
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.storage.write_behind import WriteBehind, in_pieces


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


def _write_seal(file: BinaryIO, weights: zipfile.ZipInfo) -> None:
    file.flush()
    start, end = member_range(file.fileno(), weights)
    digest = container_digest(file.fileno(), start, end)
    file.seek(-len(digest), os.SEEK_END)
    file.write(digest.encode())
