"""Scan a third-party HDF5 file in a child process.

This module starts `hdf5_child.py`, waits for it, and converts its output to a `Survey`, or to an
error that says what is wrong with the file. The output is validated, because the file may have
taken over the child.

The child gets the open descriptor, not the path, so the file that was scanned is the file that is
loaded. It is started without a shell, in the root directory, and without the user's environment
except for the paths of shared libraries. Without the `resource` module (not on Linux or macOS),
wall time is the only limit.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools.errors import (
    ArtefactError,
    CkptError,
    UnsafeArtefactError,
    damaged,
)
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.hdf5.structure import FoundTensor
from keras_ckpt_tools.metadata import TensorInfo

_CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hdf5_child.py")
_MEMORY = 2 << 30
_ANSWER = 256 << 20
_PIECE = 1 << 20
_GRACE = 5.0
_BYTES_PER_SECOND = 20_000_000
_NO_SENSE = "the process that scanned it gave no valid answer"
_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "SYSTEMROOT")
_damaged = functools.partial(damaged, remedy="Fetch or copy it again, or load an earlier one.")


@dataclass(frozen=True)
class Survey:
    """What is in an HDF5 file.

    Attributes:
        attributes: Attributes of the root: text, or `None` where it is something else.
        members: Names in the root.
        with_vars: Paths of groups that have a member `vars`, as Keras 3 writes them.
        tensors: Every dataset, by path.
        plain: NumPy's type of each dataset whose bytes can be taken from the file as they are.
        not_finite: Paths of tensors with NaN or infinity.
        names: What Keras notes that layers and optimizers are called, by group.
    """

    attributes: Mapping[str, str | None]
    members: frozenset[str]
    with_vars: frozenset[str]
    tensors: Mapping[str, TensorInfo]
    plain: Mapping[str, str] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def as_found(self, infos: Iterable[TensorInfo]) -> dict[str, FoundTensor]:
        """Return its tensors, to be compared with those in a record.

        Left out are second names of the groups of `model` at the root, which only a checkpoint has.
        """
        known = {info.path for info in infos}
        found = {
            path: (
                one.shape,
                _name_of(one, self.plain),
                one.offset if one.nbytes else None,
                one.nbytes,
            )
            for path, one in self.tensors.items()
        }
        return {
            path: one
            for path, one in found.items()
            if path in known or found.get(f"model/{path}") != one
        }


Look = Callable[[int, int, int, str, Limits], Survey]
"""What `survey` is, or has its answer already."""


def _name_of(info: TensorInfo, plain: Mapping[str, str]) -> str:
    layout = plain.get(info.path, "")
    return layout if layout.startswith("|S") else info.dtype


def survey(descriptor: int, start: int, end: int, path: str, limits: Limits) -> Survey:
    """Return what is in the HDF5 file between two offsets of an open file.

    Raises:
        DamagedArtefactError: it cannot be read, or reading it ended the process.
        UnsafeArtefactError: it has links, data in other files, or what needs plug-ins.
        OverBudgetError: it would take more than it may.
        ArtefactError: no process could be started.
    """
    found = surveys([(descriptor, start, end)], path, limits)[0]
    if isinstance(found, CkptError):
        raise found
    return found


def surveys(
    places: Sequence[tuple[int, int, int]], path: str, limits: Limits
) -> list[Survey | CkptError]:
    """Return what is in each of several HDF5 files, or its error, by one process for all.

    If one of them ends the process, the list ends with its error: of those behind it nothing is
    known. One that takes the process over could lie about those, as it could about itself; what
    reads them afterwards believes no more than of one file.

    Args:
        places: The descriptor of each, and where in it the HDF5 file begins and ends.
        path: The artefact, for messages.
        limits: What each may take; time, all of them together.

    Raises:
        ArtefactError: no process could be started.
    """
    size = sum(end - start for _, start, end in places)
    seconds = limits.seconds + size / _BYTES_PER_SECOND
    patience = limits.patience + size / _BYTES_PER_SECOND
    request = {
        "places": list(places),
        "packages": _places_of("h5py", "numpy"),
        "memory": _MEMORY,
        "seconds": int(seconds) + 1,
        "limits": {
            "max_bytes": limits.max_bytes,
            "objects": limits.objects,
            "levels": limits.levels,
            "attribute_bytes": limits.attribute_bytes,
            "chunk_bytes": limits.chunk_bytes,
        },
    }
    code, lines = _run(json.dumps(request), [place[0] for place in places], patience, path)
    found = [
        _answer(line, end - start, path)
        for line, (_, start, end) in zip(lines, places, strict=False)
    ]
    if code != 0:
        # Where all is said, and it did not come to its end then, the last word is not believed.
        found[len(places) - 1 :] = []
        found.append(_damaged(path, _death(code, seconds)))
    return found or [_damaged(path, _NO_SENSE)]


def _answer(line: bytes, size: int, path: str) -> Survey | CkptError:
    try:
        answer = json.loads(line)
        if "damaged" in answer:
            raise _damaged(path, str(answer["damaged"]))
        if "over" in answer:
            over = answer["over"]
            raise over_budget(path, over["what"], over["limit"], over["needed"], over["allowed"])
        return _read(answer["survey"], size, path)
    except CkptError as error:
        return error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return _damaged(path, _NO_SENSE)


def _places_of(*packages: str) -> list[str]:
    """Return the folders from which this process imports packages, without importing them."""
    places: list[str] = []
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            place = os.path.dirname(os.path.dirname(os.path.abspath(found.origin)))
            if place not in places:
                places.append(place)
    return places


def _run(
    request: str, descriptors: Sequence[int], patience: float, path: str
) -> tuple[int | None, list[bytes]]:
    """Return the exit status, `None` where it took too long, and the whole lines of output."""
    environment = {name: os.environ[name] for name in _LIBRARIES if name in os.environ}
    environment |= {
        "HDF5_PLUGIN_PRELOAD": "::",
        "HDF5_PLUGIN_PATH": "::",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", _CHILD, request],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=os.path.abspath(os.sep),
            env=environment,
            pass_fds=descriptors,
        )
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(
            f"The file cannot be checked: no Python process can be started to scan it ({error}).",
            received=f"path={path!r}, sys.executable={sys.executable!r}",
            remedy="Load it on a machine where Python can start processes, and save it again with "
            "keras_ckpt_tools, whose files need no such check.",
            path=path,
        ) from error
    heard: list[bytes] = []
    with child:
        try:
            ended = _listen(child, patience, heard)
            code = child.wait(_GRACE) if ended else None
        except subprocess.TimeoutExpired:
            code = None
        finally:
            child.kill()
    return code, b"".join(heard).split(b"\n")[:-1]


def _listen(child: subprocess.Popen[bytes], patience: float, heard: list[bytes]) -> bool:
    """Take what the child says; return whether it came to an end, in time and with not too much."""
    assert child.stdout is not None
    deadline = time.monotonic() + patience
    size = 0
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([child.stdout], [], [], left)
        if ready:
            data = os.read(child.stdout.fileno(), _PIECE)
            if not data:
                return True
            heard.append(data)
            size += len(data)
            if size > _ANSWER:
                return False  # A child that was taken over could fill this process's memory.
    return False


def _death(code: int | None, seconds: float) -> str:
    if code is None or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"libhdf5 did not finish reading it in {seconds:.0f} seconds"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"libhdf5 crashes on it ({name})"
    return "libhdf5 cannot read it"


def _read(answer: dict[str, Any], size: int, path: str) -> Survey:
    refused = answer["refused"]
    if refused:
        raise UnsafeArtefactError(
            "Refused, because the file has parts that Keras never writes or that lead out of it: "
            f"{'; '.join(map(str, refused))}.",
            received=f"path={path!r}",
            remedy="Get the original file, as Keras saved it, from its source.",
            path=path,
        )
    tensors: dict[str, TensorInfo] = {}
    plain: dict[str, str] = {}
    for name, shape, dtype, offset, nbytes, layout in answer["tensors"]:
        info = TensorInfo(str(name), tuple(map(int, shape)), str(dtype), offset, int(nbytes))
        if info.nbytes < 0 or (offset is not None and not 0 <= offset <= size - info.nbytes):
            raise ValueError("a tensor is outside the file")
        tensors[info.path] = info
        if layout is not None:
            plain[info.path] = str(layout)
    return Survey(
        attributes={str(k): None if v is None else str(v) for k, v in answer["attributes"].items()},
        members=frozenset(map(str, answer["members"])),
        with_vars=frozenset(map(str, answer["with_vars"])),
        tensors=tensors,
        plain=plain,
        not_finite=tuple(map(str, answer["not_finite"])),
        names={str(group): str(name) for group, name in dict(answer["names"]).items()},
    )
