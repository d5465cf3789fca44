"""The files of one `ModelCheckpoint`: commit -> *keep*, also across a restart.

What a callback may delete, and what it learns its best value from, are files that it wrote itself,
in this process or before a restart. A name that fits the pattern does not prove that (`best.keras`
fits `{epoch}.keras`); each file says in its record which pattern it was written under.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from keras_ckpt_tools.formats import state
from keras_ckpt_tools.formats.checkpoint_dir import digest_of_state
from keras_ckpt_tools.formats.comparison import OPTIMIZER_GROUP, RANDOM_GROUP
from keras_ckpt_tools.metadata import Record, TensorInfo, TrainingProgress
from keras_ckpt_tools.storage.commit import remove_files
from keras_ckpt_tools.storage.retention import Policy, Saved, best_of, to_delete
from keras_ckpt_tools.storage.trail import Trail
from keras_ckpt_tools.training.filepattern import clear_leftovers, matching_files, record_in

PATTERN = "filepath"


class KeptFiles:
    """Keeps what a policy says of the files that one pattern names.

    Args:
        pattern: The pattern.
        policy: What stays.
        last: A second name for the newest file, which is none of them; or `None`.
    """

    def __init__(self, pattern: str, policy: Policy, last: str | None = None):
        self._pattern = pattern
        self._policy = policy
        self._last = last
        self._saved: list[Saved] | None = None
        self._trail = Trail()

    def about_to_add(self, progress: TrainingProgress) -> TrainingProgress:
        """Return the progress for a file that is about to be written: it says where all were."""
        return self._trail.extend(
            progress, lambda: [record.progress for _, record in self.written()]
        )

    @property
    def any(self) -> bool:
        """Whether anything was saved in this process."""
        return self._saved is not None

    def add(self, path: str, record: Record, monitor: str, mode: str) -> None:
        """Note a file that was committed; delete what is not to stay.

        Args:
            path: The file.
            record: Its record.
            monitor: Metric by which the best file is known; it always stays.
            mode: `"min"` or `"max"`.

        Raises:
            CommitError: a file could not be deleted.
        """
        clear_leftovers(self._pattern)
        known = self._before(path, record) if self._saved is None else self._saved
        number = known[-1].number + 1 if known else 1
        saved = [item for item in known if item.path != path]
        finite, state = not record.not_finite, functools.partial(_state_in, path)
        saved.append(Saved(path, number, record.progress, finite=finite, state=state))
        best = best_of(saved, monitor, mode)
        gone = to_delete(saved, self._policy, best=best.path if best else None)
        self._saved = saved
        remove_files(item.path for item in gone)
        self._saved = [item for item in saved if item not in gone]

    def look_again(self) -> None:
        """Find out anew what is there: a save has failed, and its file may be in place or not."""
        self._saved = None

    def _before(self, path: str, record: Record) -> list[Saved]:
        """Return what the same run wrote before a restart, oldest first."""
        run_id = record.progress.run_id
        found = [
            (one.progress, other, not one.not_finite)
            for other, one in self.written()
            if other != path and one.progress.run_id == run_id
        ]
        found.sort(key=lambda item: item[0].saved_at)
        return [
            Saved(other, n, progress, finite=finite, state=functools.partial(_state_in, other))
            for n, (progress, other, finite) in enumerate(found, 1)
        ]

    def written(self) -> Iterator[tuple[str, Record]]:
        """Yield the files that are there and were written under this pattern, with records."""
        name = os.path.basename(self._pattern)
        for path in matching_files(self._pattern):
            if self._last is not None and os.path.abspath(path) == os.path.abspath(self._last):
                continue
            record = record_in(path)
            if record is not None and record.state.get(PATTERN) == name:
                yield path, record


def _state_in(path: str) -> str:
    return digest_of_state(record_in(path))


def is_of(record: Record, model: Any) -> bool:
    """Return whether a file can be of a model: weights of the same names and shapes.

    The best value of another model says nothing about this one, even under the same name.
    """
    if any(info.path.startswith("model_weights/") for info in record.tensors):
        return True  # The older `.h5` names weights in another way.
    return _weights(record.tensors) == _weights(state.capture(model).infos().values())


def _weights(infos: Iterable[TensorInfo]) -> set[tuple[str, tuple[int, ...]]]:
    aside = (OPTIMIZER_GROUP, RANDOM_GROUP)
    return {(info.path, info.shape) for info in infos if not info.path.startswith(aside)}
