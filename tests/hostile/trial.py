"""Puts artefacts before the judge, whatever becomes of the judge.

A judge is a process that lives as long as nothing takes it down. What takes it down is an answer,
too (`died`, `hung`), and the next artefact gets a new one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# All that makes the corpus; each module puts what it makes on the list.
from hostile import (  # noqa: F401
    assets,
    configs,
    disguises,
    documents,
    foreign,
    paths,
    records,
    sizes,
    zips,
)
from hostile.parts import CORPUS, Artefact

HERE = Path(__file__).parent
FAMILIES = tuple(dict.fromkeys(artefact.family for artefact in CORPUS.values()))
OURS = ("inspect", "safe_load_model", "load_weights")
_START_S = 120.0

Answers = dict[str, dict[str, Any]]


def of_family(family: str) -> list[str]:
    """Return the names of the artefacts of one class."""
    return [name for name, artefact in CORPUS.items() if artefact.family == family]


class Judge:
    """Asks a process about artefacts.

    Args:
        patience_s: Seconds that a call may take before the process is ended.
        memory: Bytes of address space that the process may have; `None` for no limit.
    """

    def __init__(self, patience_s: float = 30.0, memory: int | None = None):
        self._patience = patience_s
        self._arguments = [] if memory is None else [str(memory)]
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def ask(self, path: str | Path, folder: Path, calls: Sequence[str], **more: Any) -> Answers:
        """Return what became of each call on a path."""
        process = self._running()
        job = {"path": str(path), "folder": str(folder), "calls": list(calls), **more}
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        answers: Answers = {}
        for call in calls:
            answer = self._next_answer(self._patience)
            answers[call] = answer
            if answer["outcome"] in ("died", "hung"):
                left = [other for other in calls if other not in answers]
                return {**answers, **(self.ask(path, folder, left, **more) if left else {})}
        return answers

    def _next_answer(self, patience: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        end = time.monotonic() + patience
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                self.close()
                return {"outcome": "hung", "ours": False, "noticed": []}
            data = os.read(descriptor, 1 << 16)
            if not data:
                status = self._process.wait()
                self.close()
                how = signal.Signals(-status).name if status < 0 else f"exit {status}"
                return {"outcome": "died", "ours": False, "error": how, "noticed": []}
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return dict(json.loads(line))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._buffer = b""
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "judge.py"), *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
            ready = self._next_answer(_START_S)
            assert ready["outcome"] == "ready", ready
        assert self._process is not None
        return self._process

    def close(self) -> None:
        """End the process, and what it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def tried(
    judge: Judge, artefact: Artefact, folder: Path, calls: Sequence[str] = OURS
) -> dict[str, Any]:
    """Make an artefact and put it before the judge; return what became of each call."""
    place = folder / artefact.name.replace("/", "-")
    (place / "in").mkdir(parents=True)
    path = artefact.make(place / "in")
    return judge.ask(path, place, calls, plant="global" in artefact.name)


Try = Callable[[str], Mapping[str, Mapping[str, Any]]]
