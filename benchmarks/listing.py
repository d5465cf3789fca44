"""How long `keras-ckpt ls` takes for a large directory, its start included.

python -m benchmarks.listing                       10,000 checkpoints
python -m benchmarks.listing --checkpoints 1000 --epochs 1000
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_ckpt_tools.formats.record.userblock import block_size, encode, encode_json
from keras_ckpt_tools.metadata import Record, TensorInfo, TrackedObject, TrainingProgress

_TENSORS = 50


def main() -> None:
    """Make a directory, list it, and print the median of five calls."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listing")
    parser.add_argument("--checkpoints", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10, help="which are in each history")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kct-bench-") as folder:
        _make(Path(folder), options.checkpoints, options.epochs)
        for arguments in (["ls"], ["ls", "--json"]):
            taken = [_time([*arguments, folder]) for _ in range(5)]
            wall, cpu = (sorted(times)[2] for times in zip(*taken, strict=True))
            print(
                f"{wall:8.3f} s, {cpu:.3f} s of the processor: keras-ckpt {' '.join(arguments)}, "
                f"{options.checkpoints:,} checkpoints"
            )


def _make(folder: Path, count: int, epochs: int) -> None:
    tensors = tuple(
        TensorInfo(f"model/layers/dense_{n}/vars/0", (8, 8), "float32", 0, 256, "0" * 32)
        for n in range(_TENSORS)
    )
    tracked = {name: TrackedObject("model") for name in ("model", "optimizer")}
    for number in range(1, count + 1):
        done = number * epochs // count
        progress = TrainingProgress(
            epochs_completed=done,
            step=number,
            logs={"loss": 1 / number, "val_loss": 2 / number},
            history={"loss": tuple(1 / (n + 1) for n in range(done))},
            history_epochs={"loss": tuple(range(done))},
            run_id="0123456789abcdef",
            saved_at=1.7e9 + number,
        )
        record = Record("checkpoint", progress=progress, tracked=tracked, tensors=tensors)
        # Room for the size, which is not known before.
        block = block_size(len(encode_json(record)) + 16)
        data = encode(dataclasses.replace(record, size=block), block)
        (folder / f"ckpt-{number:08d}.weights.h5").write_bytes(data)


def _time(arguments: list[str]) -> tuple[float, float]:
    command = [sys.executable, "-m", "keras_ckpt_tools", *arguments]
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with Path(os.devnull).open("w") as nowhere:
        subprocess.run(command, check=True, stdout=nowhere)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - begin, cpu


if __name__ == "__main__":
    main()
