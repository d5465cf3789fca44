"""Starts the process that libhdf5 runs in by a fork, in place of a new Python.

What runs there is the same function with the same limits. But a Python with h5py takes a tenth of a
second to start, and thousands of mutants have to go through it; a fork of one that is ready takes
two milliseconds. The zygote is a process of its own, small and without threads; it opens the file
that is asked about by the number that it has in the asking process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any


def _serve(requests: int, answers: int, parent: int) -> None:
    import h5py  # noqa: F401 - what takes long to import

    from keras_ckpt_tools.formats.hdf5 import hdf5_child

    stream = os.fdopen(requests, "rb")
    for line in stream:
        asked = json.loads(line)
        asked["places"] = [
            (os.open(f"/proc/{parent}/fd/{descriptor}", os.O_RDONLY), start, end)
            for descriptor, start, end in asked["places"]
        ]
        code, output = _in_a_fork(hdf5_child, asked)
        for descriptor, _, _ in asked["places"]:
            os.close(descriptor)
        head = json.dumps([code, len(output)]).encode() + b"\n"
        _write(answers, head + output)


def _in_a_fork(hdf5_child: Any, asked: dict[str, Any]) -> tuple[int | None, bytes]:
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for answer in hdf5_child.main(asked):
                _write(there, json.dumps(answer).encode() + b"\n")
            code = 0
        finally:
            os._exit(code)
    os.close(there)
    end, output = time.monotonic() + 10, b""
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([here], [], [], left)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(here)
            return None, b""
        data = os.read(here, 1 << 16)
        if not data:
            break
        output += data
    os.close(here)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class Zygote:
    """Takes the place of `scan._run`."""

    def __init__(self) -> None:
        theirs, self._requests = os.pipe()
        answers, mine = os.pipe()
        parent = os.getpid()
        if os.fork() == 0:
            os.close(self._requests)
            os.close(answers)
            try:
                _serve(theirs, mine, parent)
            except BaseException as error:  # noqa: BLE001 - the asking process sees the pipe close
                sys.stderr.write(f"{error}\n")
            os._exit(0)
        os.close(theirs)
        os.close(mine)
        self._answers = os.fdopen(answers, "rb")

    def run(
        self, request: str, descriptors: list[int], patience: float, path: str
    ) -> tuple[int | None, list[bytes]]:
        """Return the exit status, `None` where it took too long, and the lines of the output."""
        _write(self._requests, request.encode() + b"\n")
        code, length = json.loads(self._answers.readline())
        return code, self._answers.read(length).split(b"\n")[:-1]
