"""Assets, and arguments that are paths: what a file would have read for it elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hostile.parts import SECRET, archive, directory, hostile, node, sequential, weights

_PATH = "path|outside|vocabulary|asset|file"


def _secret(folder: Path) -> Path:
    path = folder / "secret.txt"
    path.write_text(f"{SECRET}\nsecond\n")
    return path


def _lookup(kind: str, vocabulary: Any, **more: Any) -> dict[str, Any]:
    return {
        **node(kind, name="lookup", vocabulary=vocabulary, **more),
        "build_config": {"input_shape": [None, 1]},
    }


def _strings(layer: dict[str, Any]) -> dict[str, Any]:
    return sequential(layer, shape=(1,), dtype="string")


def _reads(name: str, what: str, layer: Any) -> None:
    def make(folder: Path) -> Path:
        return archive(folder, _strings(layer(str(_secret(folder)))), weights({}))

    hostile("assets", _PATH, name=name, what=what)(make)


_reads(
    "string-lookup",
    "`StringLookup` with a path as its vocabulary: another file's lines become the model's.",
    lambda path: _lookup("StringLookup", path),
)
_reads(
    "text-vectorization",
    "`TextVectorization` with such a path.",
    lambda path: _lookup(
        "TextVectorization", path, standardize=None, split="whitespace", encoding="utf-8"
    ),
)
_reads(
    "integer-lookup",
    "`IntegerLookup` with such a path.",
    lambda path: {**_lookup("IntegerLookup", path), "config": {"vocabulary": path}},
)
_reads(
    "by-url",
    "A vocabulary by the URL of a local file.",
    lambda path: _lookup("StringLookup", f"file://{path}"),
)
_reads(
    "nested-path",
    "Such a layer within a `TimeDistributed`.",
    lambda path: node("TimeDistributed", name="t", layer=_lookup("StringLookup", path)),
)


@hostile("assets", _PATH)
def remote_vocabulary(folder: Path) -> Path:
    """A vocabulary in a remote bucket: reading it contacts a server."""
    layer = _lookup("StringLookup", "gs://kct-nobody/vocabulary.txt")
    return archive(folder, _strings(layer), weights({}))


@hostile("assets", _PATH)
def relative_vocabulary(folder: Path) -> Path:
    """A vocabulary by a relative path, which means another file in each working directory."""
    return archive(folder, _strings(_lookup("StringLookup", "../secret.txt")), weights({}))


@hostile("assets", "link")
def linked_asset(folder: Path) -> Path:
    """A directory whose vocabulary is a link to another file."""
    model = directory(folder, _strings(_lookup("StringLookup", None)), weights({}))
    (model / "assets" / "lookup").mkdir(parents=True)
    os.symlink(_secret(folder), model / "assets" / "lookup" / "vocabulary.txt")
    return model


@hostile("assets", "link")
def linked_assets(folder: Path) -> Path:
    """A directory whose assets folder is a link to another folder."""
    model = directory(folder, _strings(_lookup("StringLookup", None)), weights({}))
    (folder / "elsewhere" / "lookup").mkdir(parents=True)
    (folder / "elsewhere" / "lookup" / "vocabulary.txt").write_text(SECRET)
    os.symlink(folder / "elsewhere", model / "assets")
    return model


@hostile("assets", "link", weights=True)
def linked_weights(folder: Path) -> Path:
    """A directory whose weights are a link to another file."""
    model = directory(folder)
    os.rename(model / "model.weights.h5", folder / "other.h5")
    os.symlink(folder / "other.h5", model / "model.weights.h5")
    return model


@hostile("assets", "link")
def linked_config(folder: Path) -> Path:
    """A directory whose config is a link to another file."""
    model = directory(folder)
    os.rename(model / "config.json", folder / "other.json")
    os.symlink(folder / "other.json", model / "config.json")
    return model


@hostile("assets", "pipe|regular|special|not a file|damaged", weights=True)
def piped_weights(folder: Path) -> Path:
    """A directory whose weights are a pipe that nobody writes to."""
    model = directory(folder)
    (model / "model.weights.h5").unlink()
    os.mkfifo(model / "model.weights.h5")
    return model


@hostile("assets", "pipe|regular|special|not a file|config|damaged")
def piped_config(folder: Path) -> Path:
    """A directory whose config is a pipe that nobody writes to."""
    model = directory(folder)
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    return model


@hostile("assets", "asset|surplus|unexpected|vocabulary", loads=True)
def surplus_assets(folder: Path) -> Path:
    """Assets that no layer of the model has."""
    return archive(folder, **{"assets/run.sh": b"#!/bin/sh\ntouch marker\n"})


@hostile("assets", "asset|vocabulary|UTF-8|damaged", inspected=False)
def binary_vocabulary(folder: Path) -> Path:
    """A vocabulary that is not text."""
    layer = _lookup("StringLookup", None)
    return archive(
        folder,
        _strings(layer),
        weights({}),
        **{"assets/lookup/vocabulary.txt": b"\xff\xfe\0\n" * 9},
    )
