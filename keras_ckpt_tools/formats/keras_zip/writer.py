"""Write a whole model as `.keras`: snapshot -> *write* -> commit.

The archive is the zip that stock Keras opens: `metadata.json`, `config.json`, `model.weights.h5`
and assets, all stored, not compressed, so that a tensor can be read in place. Our record stands at
the head of the weights member.

What the record cannot cover, the zip's own headers and the other members, the archive's comment
does; see `seal`. So each byte of the file is covered by one of the two.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from keras_ckpt_tools.formats.common.contents import Documents, Snapshot
from keras_ckpt_tools.formats.hdf5.writer import write_weights
from keras_ckpt_tools.formats.keras_zip.seal import (
    CONFIG_MEMBER,
    METADATA_MEMBER,
    WEIGHTS_MEMBER,
    container_digest,
    seal_comment,
)
from keras_ckpt_tools.formats.keras_zip.stored_zip import Member, StoredZip
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.storage.commit import synced_early


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
    archive = StoredZip(file)
    archive.add(METADATA_MEMBER, documents.metadata.encode())
    archive.add(CONFIG_MEMBER, documents.config.encode())
    with archive.open(WEIGHTS_MEMBER) as (weights, write):
        record = write_weights(synced_early(file, write), snapshot, record, directory)
    for name, data in documents.assets.items():
        archive.add(name, data)
    archive.finish(seal_comment("0" * 32))
    _write_seal(file, weights)
    return record


def _write_seal(file: BinaryIO, weights: Member) -> None:
    file.flush()
    digest = container_digest(file.fileno(), weights.start, weights.end)
    file.seek(-len(digest), os.SEEK_END)
    file.write(digest.encode())
