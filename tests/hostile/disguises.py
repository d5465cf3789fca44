"""Things that are called `model.keras` and are something else."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from hostile.parts import PAYLOAD, hostile, members, weights, written, zipped


def _disguised(name: str, says: str, what: str, data: bytes) -> None:
    def make(folder: Path) -> Path:
        return written(folder / "model.keras", data)

    hostile("disguise", says, weights=True, name=name, what=what)(make)


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, (f"import {PAYLOAD}; {PAYLOAD}.call()",))


def _npz_with_pickle() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([_Bomb()], dtype=object))
    return buffer.getvalue()


def _tar(link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("assets")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(info)
    return buffer.getvalue()


def _torch() -> bytes:
    return zipped({"archive/data.pkl": pickle.dumps(_Bomb()), "archive/version": b"3\n"})


_NOTHING = "not a Keras file"
for _name, _says, _what, _data in (
    ("pickle", "pickle", "A pickle that calls a function.", pickle.dumps(_Bomb())),
    ("pickle-0", f"pickle|{_NOTHING}", "A pickle of protocol 0.", pickle.dumps(_Bomb(), 0)),
    ("npz-with-pickle", "NumPy", "A NumPy archive with a pickled object.", _npz_with_pickle()),
    ("torch", "pickle|PyTorch|zip", "A PyTorch archive, whose heart is a pickle.", _torch()),
    ("html", "web page", "The page of a download that failed.", b"<!DOCTYPE html><p>404</p>"),
    (
        "git-lfs",
        "Git LFS pointer",
        "A Git LFS pointer.",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    ),
    ("empty", "empty", "An empty file.", b""),
    ("one-byte", _NOTHING, "A single byte.", b"P"),
    ("zeros", _NOTHING, "Zeros, as a disk leaves them after a crash.", bytes(1 << 20)),
    ("script", _NOTHING, "A shell script.", b"#!/bin/sh\ntouch marker\n"),
    ("gzip", _NOTHING, "A gzip stream.", b"\x1f\x8b\x08\0" + os.urandom(2000)),
    ("tar", _NOTHING, "A tar archive of the members.", _tar()),
    ("tar-with-link", _NOTHING, "A tar archive with a link to /etc.", _tar(link=True)),
    ("elf", _NOTHING, "A program.", b"\x7fELF\x02\x01\x01" + bytes(500)),
    (
        "safetensors",
        "safetensors",
        "A safetensors file.",
        (30).to_bytes(8, "little") + b'{"__metadata__":{"a":"b"}}    ' + bytes(64),
    ),
    (
        "safetensors-lying",
        f"safetensors|{_NOTHING}",
        "A safetensors header that claims 2**62 bytes.",
        (1 << 62).to_bytes(8, "little") + b"{" + bytes(64),
    ),
    (
        "zip-of-weights-only",
        "config",
        "An archive that holds weights and no config.",
        zipped({"model.weights.h5": weights()}),
    ),
    (
        "empty-zip",
        "zip|archive|config",
        "A zip without members.",
        zipped({}),
    ),
):
    _disguised(_name, _says, _what, _data)


@hostile("disguise", "zip|archive|config|holds", weights=True)
def nested(folder: Path) -> Path:
    """A `.keras` archive inside an archive."""
    inner = zipped(members())
    return written(folder / "model.keras", zipped({"model.keras": inner}, zipfile.ZIP_DEFLATED))


@hostile("disguise", "SavedModel", weights=True)
def saved_model(folder: Path) -> Path:
    """A SavedModel, which is a program."""
    (folder / "model" / "variables").mkdir(parents=True)
    written(folder / "model" / "saved_model.pb", b"\x08\x01\x12\x04main")
    return folder / "model"


@hostile("disguise", "TensorFlow checkpoint", weights=True)
def tensorflow_checkpoint(folder: Path) -> Path:
    """A TensorFlow checkpoint whose state file points elsewhere."""
    (folder / "model").mkdir()
    written(folder / "model" / "checkpoint", 'model_checkpoint_path: "/etc/passwd"\n')
    return folder / "model"
