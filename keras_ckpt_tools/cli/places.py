"""Find the files that a path on the command line means.

A file is used whatever its name. A directory is one model if its content is one (an unzipped
model, a SavedModel). Otherwise it stands for all files in it and its subdirectories with the
suffix of a model, and for the prefixes of TensorFlow checkpoints. These files are selected by name,
not by content: a file with the name of a model that is none is a problem worth reporting.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from keras_ckpt_tools.formats.common.path_hints import not_found
from keras_ckpt_tools.formats.common.safe_open import is_alias, refuse_link
from keras_ckpt_tools.formats.hdf5.shard_index import ENDING, shards_named_by
from keras_ckpt_tools.formats.kinds import Kind, tell
from keras_ckpt_tools.formats.tensorflow.recorded import DATA, INDEX, RECORD, is_prefix
from keras_ckpt_tools.runs.choose import choose, entries_of

_SUFFIXES = (".keras", ".h5", ".hdf5", ".safetensors", ENDING)
_FOLDERS = (Kind.DIRECTORY, Kind.CHECKPOINT_DIR)


def artefacts_at(paths: Iterable[str]) -> Iterator[str]:
    """Yield the path of each file that is meant, in order.

    A directory without such files is yielded itself, so that it is reported.
    """
    for path in map(os.path.expanduser, paths):
        kind = tell(path).kind if os.path.isdir(path) else None
        if kind in _FOLDERS:
            found = False
            for inner in _below(path):
                found = True
                yield inner
            if not found:
                yield path
        elif kind is Kind.TF_CHECKPOINT:
            yield from _with_tensorflow(path)
        else:
            yield path


def refuse_found_link(path: str, given: Iterable[str]) -> None:
    """Refuse a link, unless the caller passed it.

    Raises:
        UnsafeArtefactError: it is a link, or one of its files is.
    """
    if path in given:
        return
    for place in (path, *(f"{path}{ending}" for ending in (INDEX, DATA, RECORD))):
        refuse_link(place)


def one_of_folder(path: str) -> tuple[str, str | int]:
    """Split `FOLDER@3`, `FOLDER@best` or `FOLDER@latest` into the folder and which file of it.

    If a file or folder has the full name, it is used instead.
    """
    path = os.path.expanduser(path)
    folder, _, which = path.rpartition("@")
    if os.path.lexists(path) or not os.path.isdir(folder):
        return path, "latest"
    if which in ("best", "latest"):
        return folder, which
    return (folder, int(which)) if which.isascii() and which.isdigit() else (path, "latest")


def file_of_folder(path: str) -> str:
    """Return the file that `FOLDER@3`, `FOLDER@best` or `FOLDER@latest` means; others as they are.

    Raises:
        CkptError: there is none in the folder.
    """
    folder, which = one_of_folder(path)
    if folder == os.path.expanduser(path):
        return path
    entries = entries_of(tell(folder))
    chosen = choose(entries, which, folder)
    if not chosen:
        raise not_found(path)
    return chosen[0].path


def _with_tensorflow(folder: str) -> Iterator[str]:
    """Yield a folder of TensorFlow checkpoints as one, if it has no other files; else each file."""
    inner = list(_below(folder))
    own = (os.path.join(folder, os.path.basename(path)) for path in inner)
    if all(
        path == place and not os.path.exists(path) for path, place in zip(inner, own, strict=True)
    ):
        yield folder
    else:
        yield from inner


def _below(folder: str) -> Iterator[str]:
    # Links to folders are skipped: one that leads upwards would have no end. Links to files are
    # yielded, and `refuse_found_link` reports them.
    for place, folders, names in os.walk(folder):
        for name in sorted(folders):
            inner = os.path.join(place, name)
            if name.startswith(".") or os.path.islink(inner):
                folders.remove(name)
            elif tell(inner).kind is Kind.KERAS_DIR:
                folders.remove(name)
                yield inner
        if "saved_model.pb" in names and "variables" in folders:
            folders.remove("variables")  # It is a part of one model.
        folders.sort()
        # Shards are reported with their index, as one file.
        shards = shards_named_by(place, names)
        for name in sorted(set(names) - shards):
            if is_alias(os.path.join(place, name)):
                continue  # It is listed under its own name.
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                yield os.path.join(place, name)
            prefix = name.removesuffix(".index")
            if prefix != name and any(n.startswith(f"{prefix}.data-") for n in names):
                yield os.path.join(place, prefix)
            elif name.endswith(RECORD) and f"{name.removesuffix(RECORD)}.index" not in names:
                # A checkpoint without its index is reported too.
                if is_prefix(os.path.join(place, name.removesuffix(RECORD))):
                    yield os.path.join(place, name)
