"""Processes that save without end are killed by SIGKILL, at random instants: nothing is lost.

Each goes on where the one before was killed, in the same directory, and clears up after it.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torture.scenarios import KILLED, STRANGERS, newest_in, ours_in, save_for_ever

from keras_ckpt_tools.storage.commit import STAGED_SUFFIX

_PATIENCE_S = 120
# Some saves long: most kills strike inside one.
_WINDOW_S = 0.25


def _killed(arguments: tuple[Any, ...], delay: float) -> int | None:
    """Run a process that saves, kill it some time after it began; return what it had confirmed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras", "tensorflow", "torture.scenarios"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=save_for_ever, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    assert here.poll(_PATIENCE_S), "it never began"
    here.recv()
    time.sleep(delay)
    process.kill()
    process.join()
    confirmed = None
    try:
        while here.poll():
            confirmed = here.recv()
    except EOFError:
        pass
    here.close()
    return confirmed


@pytest.mark.parametrize("kind", KILLED)
def test_a_process_killed_at_a_random_instant_loses_nothing(
    kind: str, tmp_path: Path, long_form: bool, seed: int, tell: Callable[[str], None]
) -> None:
    """What was confirmed is there, or what came after it; all of it, checked byte for byte."""
    chosen, kills = random.Random(seed), 200 if long_form else 10
    roots = [tmp_path / str(n) for n in range(len(KILLED[kind]))]
    newest = [0] * len(roots)
    inside = 0
    for root in roots:
        root.mkdir()
        for name, data in STRANGERS.items():
            (root / name).write_bytes(data)
    for kill in range(kills):
        which = kill % len(roots)
        delay = chosen.uniform(0, _WINDOW_S)
        told = f"kill {kill} ({KILLED[kind][which]}), after {delay:.4f} s"
        confirmed = _killed((kind, which, str(roots[which]), newest[which]), delay)
        staged = [path for path in ours_in(roots[which]) if path.endswith(STAGED_SUFFIX)]
        inside += bool(staged)
        assert len(staged) <= 1, told
        newest[which] = max(newest[which], confirmed or 0)
        found = newest_in(roots[which])
        assert found or not newest[which], told
        if found:
            assert found in (newest[which], newest[which] + 1), told
            newest[which] = found
    for root in roots:
        assert newest_in(root) is not None
        assert all((root / name).read_bytes() == data for name, data in STRANGERS.items())
    tell(
        f"{kind}: {kills} kills (seed {seed}), {inside} of them with a file half written; "
        f"{sum(newest)} saves, 0 lost"
    )
