"""Which artefacts a path on the command line means: paths -> *artefacts* -> reports.

A file is itself, whatever it is called. A folder is one artefact if it is one by its content (an
unzipped model, a SavedModel); otherwise it stands for the files in it and below that are called
like models, and for the prefixes of TensorFlow checkpoints, which is what a hook over a folder
means. A file of that name that turns out to be something else is a problem worth reporting, so
content is not asked before.
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
    """Yield the path of each artefact that is meant, in order.

    A folder in which there is none is yielded itself, so that whoever asks is told.
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
    """Refuse what is a link, unless the caller passed it.

    Raises:
        UnsafeArtefactError: it is one, or one of its files is.
    """
    if path in given:
        return
    for place in (path, *(f"{path}{ending}" for ending in (INDEX, DATA, RECORD))):
        refuse_link(place)


def one_of_folder(path: str) -> tuple[str, str | int]:
    """Read `FOLDER@3`, `FOLDER@best` or `FOLDER@latest`: the folder, and which file of it is meant.

    What is there under the whole name is meant itself, whatever its name ends in.
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
    """Yield what is in a folder of TensorFlow's: it is one artefact, if all in it are its own."""
    inner = list(_below(folder))
    own = (os.path.join(folder, os.path.basename(path)) for path in inner)
    if all(
        path == place and not os.path.exists(path) for path, place in zip(inner, own, strict=True)
    ):
        yield folder
    else:
        yield from inner


def _below(folder: str) -> Iterator[str]:
    # Links to folders are passed over: one that leads upwards would have no end. Links to files are
    # yielded, and `refuse_found_link` says why they are not followed.
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
                continue  # It is there under its own name.
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                yield os.path.join(place, name)
            prefix = name.removesuffix(".index")
            if prefix != name and any(n.startswith(f"{prefix}.data-") for n in names):
                yield os.path.join(place, prefix)
            elif name.endswith(RECORD) and f"{name.removesuffix(RECORD)}.index" not in names:
                # What has lost its index is to be heard of, too.
                if is_prefix(os.path.join(place, name.removesuffix(RECORD))):
                    yield os.path.join(place, name)
