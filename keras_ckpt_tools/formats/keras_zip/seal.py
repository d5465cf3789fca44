"""The digest of everything in a `.keras` except its weights.

A zip has names and checksums of its members in its own headers, which a record inside a member
cannot cover. So the comment at the end of the archive contains a digest of every byte outside the
weights member.
"""

from __future__ import annotations

import lzma
import os
import re
import zipfile
import zlib

import xxhash

from keras_ckpt_tools.formats.keras_zip.records import data_of

WEIGHTS_MEMBER = "model.weights.h5"
CONFIG_MEMBER = "config.json"
METADATA_MEMBER = "metadata.json"

# What `zipfile` raises where an archive is damaged: one changed bit makes a member claim to be
# compressed by a method that it does not know, or encrypted (a plain `RuntimeError`).
BAD_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)

_SEAL = re.compile(rb"keras_ckpt_tools:1:([0-9a-f]{32})")
_CHUNK = 1 << 20


def seal_comment(digest: str) -> bytes:
    """Return the comment of an archive that holds a digest at its very end."""
    return f"keras_ckpt_tools:1:{digest}".encode()


def sealed_digest(comment: bytes) -> str | None:
    """Return the digest in a zip's comment, or `None` where it is not ours.

    >>> sealed_digest(seal_comment("0" * 32)) == "0" * 32, sealed_digest(b"hello")
    (True, None)
    """
    match = _SEAL.fullmatch(comment)
    return match[1].decode() if match else None


def container_digest(descriptor: int, start: int, end: int) -> str:
    """Return the digest of a file but for `start` to `end` and the digest at its very end."""
    size = os.fstat(descriptor).st_size
    state = xxhash.xxh3_128()
    for begin, stop in ((0, start), (end, size - state.digest_size * 2)):
        for offset in range(begin, stop, _CHUNK):
            state.update(os.pread(descriptor, min(_CHUNK, stop - offset), offset))
    return state.hexdigest()


def member_range(descriptor: int, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the data of a stored member begins and ends in the archive.

    Raises:
        zipfile.BadZipFile: its header lies outside the file.
    """
    start = data_of(descriptor, info.header_offset)
    if start is None:
        raise zipfile.BadZipFile(f"the header of {info.filename} lies outside the file")
    return start, start + info.compress_size
