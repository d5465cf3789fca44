"""Open an artefact of any kind: path -> *reader* -> source.

A new format joins with a kind, a reader (a subclass of `ModelSource`, or a function that returns
one) and a line in `READERS`. Readers are imported when a file of theirs is met: looking at a file
of ours is to start at once.
"""

from __future__ import annotations

import importlib
import os

from keras_ckpt_tools.errors import ArtefactError, ArtefactKindError, CkptError, damaged
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Artefact, Kind, ReplacedError, tell
from keras_ckpt_tools.formats.tensor_source import ModelSource

READERS = {
    Kind.KERAS: "source:Source",
    Kind.KERAS_DIR: "source:Source",
    Kind.H5_MODEL: "source:Source",
    Kind.H5_WEIGHTS: "source:Source",
    Kind.H5_WEIGHTS_LEGACY: "source:Source",
    Kind.SHARDED_WEIGHTS: "source:Source",
    Kind.CHECKPOINT: "source:Source",
    Kind.SAFETENSORS: "safetensors:SafetensorsSource",
    Kind.ORBAX: "orbax:OrbaxCheckpoint",
    Kind.TF_CHECKPOINT: "tensorflow.checkpoint:open_tensorflow",
}
"""Module and name, in this package, of what opens an artefact: called with it and the limits."""

READABLE = frozenset(READERS)

_ATTEMPTS = 100


def open_source(
    path: str | os.PathLike[str], artefact: Artefact | None = None, limits: Limits | None = None
) -> ModelSource:
    """Open what holds a model or tensors.

    Args:
        path: Where it is. A directory of steps or of TensorFlow checkpoints stands for the newest.
        artefact: What `tell` said about it, where it was asked already.
        limits: What reading it may take. Default: what this machine can hold.

    Raises:
        ArtefactNotFoundError: nothing is there.
        DamagedArtefactError: it is visibly damaged.
        UnsafeArtefactError: it has what would lead out of it.
        OverBudgetError: it would take more than it may.
        ArtefactKindError: it holds neither a model nor weights in a form that is read.
    """
    limits = limits or Limits.of()
    for _ in range(_ATTEMPTS):
        artefact = artefact or tell(path, limits)
        try:
            module, _, name = _reader_of(artefact).partition(":")
            reader = getattr(importlib.import_module(f"keras_ckpt_tools.formats.{module}"), name)
            opened: ModelSource = reader(artefact, limits)
            return opened
        except ReplacedError:
            artefact = None  # Somebody put another file in its place; that one is looked at.
        except OSError as error:
            if isinstance(error, CkptError):
                raise
            how, remedy = f"it cannot be read ({error})", "Check that you may read it."
            raise damaged(artefact.path, how, remedy) from error
    raise ArtefactError(
        "The file was replaced again and again while it was being opened.",
        received=f"path={os.fspath(path)!r}",
        remedy="Open a copy of it, which nobody writes to.",
        path=os.fspath(path),
    )


def _reader_of(artefact: Artefact) -> str:
    if artefact.refusal is not None:
        raise artefact.refusal
    if artefact.damage:
        raise damaged(artefact.path, artefact.damage)
    if artefact.kind not in READERS:
        raise ArtefactKindError(
            f"This is a {artefact.kind}; it holds no Keras model or weights that could be read.",
            received=f"path={artefact.path!r}",
            remedy="Pass a `.keras`, `.weights.h5`, `.weights.json`, `.h5` or `.safetensors` file.",
            path=artefact.path,
            kind=str(artefact.kind),
        )
    return READERS[artefact.kind]
