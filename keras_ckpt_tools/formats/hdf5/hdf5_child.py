"""The program of the child process that scans an HDF5 file.

libhdf5 is a million lines of C, and a damaged file can crash it, make it loop, or make it allocate
any amount of memory. So a third-party file is opened here first. `scan.py` starts this process with
limits on memory, CPU time and files, without HDF5 plug-ins, and with an open descriptor. It reads
the whole structure and every byte of data once, and prints one line of JSON. If the process dies,
the file is damaged; only files that pass reach libhdf5 in the user's process. Several files (the
shards of one set of weights) are scanned one after the other.

It is run by its path, with `-I -S`, and imports only two modules of this package, which import
nothing of it either. So it starts in the time that importing h5py takes.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any


def main(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is in each of the files that a request describes."""
    _limit_process(request)
    sys.path.extend(request["packages"])
    # Not the package: importing that would take longer than all of this.
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    for place in request["places"]:
        yield look_through(place, request["limits"])


def look_through(place: list[int], limits: dict[str, int]) -> dict[str, Any]:
    """Return what is in the file at a place: a descriptor, and where in it the file is."""
    import h5py
    from hdf5_survey import Over, Survey
    from window import Window

    part = Window(*place)
    try:
        with h5py.File(io.BufferedReader(part), "r") as file:
            return {"survey": Survey(file, part, limits).run()}
    except Over as error:
        limit, what, needed, allowed = error.args
        return {"over": {"limit": limit, "what": what, "needed": needed, "allowed": allowed}}
    except MemoryError:
        return {"damaged": "reading it takes more memory than any model's needs"}
    except RecursionError:
        return {"damaged": "its groups are nested deeper than any model's"}
    except Exception as error:  # noqa: BLE001 - whatever libhdf5 makes of it is the answer.
        return {"damaged": f"libhdf5 cannot read it ({str(error)[:300]})"}


def _limit_process(request: dict[str, Any]) -> None:
    try:
        import resource
    except ImportError:
        return  # Not POSIX: wall time alone, which the parent keeps.
    memory, seconds = request["memory"], request["seconds"]
    for name, limit in (
        ("RLIMIT_AS", memory),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
    ):
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        most = resource.getrlimit(kind)[1]
        allowed = limit if most == resource.RLIM_INFINITY else min(limit, most)
        try:
            resource.setrlimit(kind, (allowed, allowed))
        except (ValueError, OSError):
            continue  # macOS knows RLIMIT_AS and refuses it.


if __name__ == "__main__":
    for answer in main(json.loads(sys.argv[1])):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    # libhdf5's own cleaning up is one more thing that a damaged file could disturb.
    os._exit(0)
