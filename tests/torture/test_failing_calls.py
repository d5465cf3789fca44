"""Each call that a save makes to the file system fails, in turn: a clear error, and no harm.

The old file stays as it was, byte for byte, nothing is left beside it, and the next save works.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torture.crash_states import folder_content
from torture.recorder import Fault, recording
from torture.scenarios import SCENARIOS, STRANGERS, Save, Scenario, newest_in, ours_in

from keras_ckpt_tools.errors import CommitError
from keras_ckpt_tools.formats.hdf5 import writer
from keras_ckpt_tools.storage.commit import STAGED_SUFFIX

_ERRORS = (errno.ENOSPC, errno.EIO)


class _Torture:
    """A directory into which one save after another goes, most of them in vain."""

    def __init__(self, scenario: Scenario, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.number = root, 0
        self._scenario, self._patch = scenario, monkeypatch
        root.mkdir()
        for name, data in STRANGERS.items():
            (root / name).write_bytes(data)
        self._save: Save = scenario.start(root)
        for _ in range(max(1, scenario.saves_before)):
            self.save()

    def save(self) -> None:
        """Make the next save."""
        # The first save of a structure asks HDF5 for a layout, which needs the disk too.
        self._patch.setattr(writer, "_plans", type(writer._plans)())
        self.number += 1
        self._save(self.number)

    def count(self) -> list[str]:
        """Return the calls of one save."""
        with recording(self.root) as recorder:
            self.save()
        return recorder.calls

    def fail(self, fault: Fault) -> None:
        """Make a save in which a call fails, and look at what is there; then one that works."""
        before, known = folder_content(self.root), self.number
        with recording(self.root, fault) as recorder:
            error = self._outcome()
        assert len(recorder.calls) > fault.at
        told = f"call {fault.at} ({recorder.calls[fault.at]}): {error!r}"
        after = folder_content(self.root)
        staged = {path for path in after if self._is_ours(path) and path.endswith(STAGED_SUFFIX)}
        if not fault.lasting:
            # Where the file system forbids everything, it forbids clearing up too.
            assert not staged, told
        if error is None or "in place" in str(error):
            assert newest_in(self.root) == self.number, told
        else:
            assert os.strerror(fault.errno) in str(error), told
            assert {path: after[path] for path in set(after) - staged} == before, told
            assert newest_in(self.root) == known, told
        self.save()
        assert newest_in(self.root) == self.number, told
        assert len(ours_in(self.root)) == self._scenario.files, told
        assert all((self.root / name).read_bytes() == data for name, data in STRANGERS.items())

    def _outcome(self) -> CommitError | None:
        try:
            self.save()
        except CommitError as error:
            return error
        return None

    def _is_ours(self, path: str) -> bool:
        return os.path.basename(path) not in STRANGERS


def _faults(calls: list[str], long_form: bool, seed: int) -> list[Fault]:
    faults = []
    for at, call in enumerate(calls):
        for code in _ERRORS if long_form else _ERRORS[at % 2 : at % 2 + 1]:
            faults.append(Fault(at, code))
            if "write" in call:
                faults.append(Fault(at, code, half=True))
            if long_form or at % 3 == 0:
                faults.append(Fault(at, code, lasting=True))
    return faults if long_form else faults[seed % 12 :: 12]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_each_call_that_fails_is_told_and_harms_nothing(
    scenario: Scenario,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    long_form: bool,
    seed: int,
    tell: Callable[[str], None],
) -> None:
    """With a full disk and with a broken one; once, from then on, and in the middle of a write."""
    torture = _Torture(scenario, tmp_path / "run", monkeypatch)
    faults = _faults(torture.count(), long_form, seed)
    for fault in faults:
        torture.fail(fault)
    tell(f"{scenario}: {len(torture.count())} calls, failed in {len(faults)} ways")
