"""The power goes at any instant of a save: there is always a complete checkpoint.

A real save is recorded, call by call, and every state in which a disk may be after a crash is put
on disk and opened.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torture.crash_states import State, crash_states, folder_content, numbered, replayed
from torture.recorder import Operation, recording
from torture.scenarios import SCENARIOS, STRANGERS, Save, Scenario, newest_in, ours_in

from keras_ckpt_tools.storage.commit import STAGED_SUFFIX

_RECORDED_SAVES = 2
# libhdf5 writes a whole model in hundreds of small pieces, and to open it starts a process.
_SHORT_FORM = 150


def _begin(scenario: Scenario, root: Path) -> Save:
    root.mkdir()
    for name, data in STRANGERS.items():
        (root / name).write_bytes(data)
    save = scenario.start(root)
    for number in range(1, scenario.saves_before + 1):
        save(number)
    return save


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_power_cut_at_any_instant_leaves_a_whole_checkpoint(
    scenario: Scenario,
    tmp_path: Path,
    long_form: bool,
    seed: int,
    tell: Callable[[str], None],
) -> None:
    """After the first commit, the newest one that was confirmed, or the one under way."""
    root = tmp_path / "run"
    save = _begin(scenario, root)
    before = numbered(root)
    with recording(root) as recorder:
        for number in range(1, _RECORDED_SAVES + 1):
            save(scenario.saves_before + number)
            recorder.returned()
    assert replayed(str(root), before, recorder.trace) == folder_content(root)
    states = crash_states(
        str(root), before, recorder.trace, seed=seed, draws=40 if long_form else 2
    )
    tried, distinct = 0, {}
    for state in states:
        tried += 1
        distinct.setdefault(hash((frozenset(state.files.items()), state.returned)), state)
    checked = list(distinct.values())
    if not long_form:
        checked = random.Random(seed).sample(checked, min(len(checked), _SHORT_FORM))
    for state in checked:
        _check(state, scenario, root, tmp_path / "after")
    assert newest_in(root) == scenario.saves_before + _RECORDED_SAVES
    tell(
        f"{scenario}: {len(recorder.trace)} operations, {tried:,} crash states, "
        f"{len(distinct):,} of them different, {len(checked):,} of these looked at"
    )


def _check(state: State, scenario: Scenario, root: Path, after: Path) -> None:
    shutil.rmtree(after, ignore_errors=True)
    state.materialise(str(root), after)
    told = f"after {state.operations} operations"
    for name, data in STRANGERS.items():
        assert (after / name).read_bytes() == data, told
    confirmed = scenario.saves_before + state.returned
    found = newest_in(after)
    if confirmed:
        assert found in (confirmed, confirmed + 1), told
    else:
        assert found in (None, 1), told


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_the_next_save_clears_up_after_a_crash(
    scenario: Scenario, tmp_path: Path, long_form: bool, seed: int
) -> None:
    """Whatever a crash left, the save after it works, and nothing staged stays."""
    root = tmp_path / "run"
    save = _begin(scenario, root)
    before = numbered(root)
    with recording(root) as recorder:
        save(scenario.saves_before + 1)
    states = list(crash_states(str(root), before, recorder.trace, seed=seed, draws=2))
    for state in states[:: max(1, len(states) // (200 if long_form else 3))]:
        after = tmp_path / f"after-{state.operations}"
        shutil.rmtree(after, ignore_errors=True)
        state.materialise(str(root), after)
        scenario.start(after)(9)
        assert newest_in(after) == 9
        assert not [path for path in ours_in(after) if path.endswith(STAGED_SUFFIX)]
        for name, data in STRANGERS.items():
            assert (after / name).read_bytes() == data


def test_the_check_finds_a_rename_before_the_sync(tmp_path: Path, seed: int) -> None:
    """A writer that forgets to sync loses the file in some crash: the check can fail."""
    root, scenario = tmp_path / "run", SCENARIOS[0]
    save = _begin(scenario, root)
    before = numbered(root)
    with recording(root) as recorder:
        save(2)
    _expect_loss(root, scenario, before, recorder.trace, "sync", seed)


def test_the_check_finds_a_removal_before_the_commit(tmp_path: Path, seed: int) -> None:
    """A rotation that removes the old file before the new one's name is durable loses both."""
    root, scenario = tmp_path / "run", SCENARIOS[5]
    save = _begin(scenario, root)
    before = numbered(root)
    with recording(root) as recorder:
        save(2)
    _expect_loss(root, scenario, before, recorder.trace, "sync_directory", seed)


def _expect_loss(
    root: Path,
    scenario: Scenario,
    before: dict[str, tuple[int, bytes]],
    trace: list[Operation],
    forgotten: str,
    seed: int,
) -> None:
    careless = [operation for operation in trace if operation.kind != forgotten]
    assert len(careless) < len(trace)
    losses = 0
    for state in crash_states(str(root), before, careless, seed=seed, draws=4):
        try:
            _check(state, scenario, root, root.parent / "after")
        except AssertionError:
            losses += 1
    assert losses
