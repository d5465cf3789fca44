"""What a checkpoint holds beside the tracked objects: snapshot -> *state beside* -> resume.

The state of the run itself (random generators, callbacks, metrics in the middle of an epoch) is
nobody's object and has no name that a user gave. It stands in the same file under names that begin
with an underscore, which tracked objects cannot have, and a checkpoint with it is restored by
whoever wants it and by whoever does not: so a run that began in `fit()` goes on in a manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_ckpt_tools.formats.tensor_source import SourceView, TensorSource
from keras_ckpt_tools.metadata import Record, TrackedObject
from keras_ckpt_tools.training.state_trees import give_arrays
from keras_ckpt_tools.training.tracked import StateAdapter

RANDOM = "_random"
CALLBACKS = "_callbacks"
METRICS = "_metrics"
FIT = "_fit"
CADENCE = "_cadence"
LOOP = "_loop"


def is_beside(name: str) -> bool:
    """Return whether a name of the record is one of these.

    >>> is_beside("_random"), is_beside("model")
    (True, False)
    """
    return name.startswith("_")


class Given(StateAdapter):
    """A state that is given, not asked for. Nobody puts it back but who asked for it."""

    kind = "run"

    def __init__(self, name: str, tree: Any):
        super().__init__(name, None, lambda: tree, lambda state: None)

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        return TrackedObject(self.kind, state=self._rest)


def read_beside(source: TensorSource, record: Record) -> dict[str, Any]:
    """Return the states beside the tracked objects, by name.

    Raises:
        DamagedArtefactError: bytes have changed.
    """
    found = {}
    for name, described in record.tracked.items():
        if is_beside(name):
            view = SourceView(source, name)
            found[name] = give_arrays(described.state, view.read_all(view.tensors))
    return found
