"""Directories of runs, made without a framework: a real checkpoint, its record changed.

What is written has the layout of a save, byte for byte, but for the numbers in the record.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

from keras_ckpt_tools.formats.keras_zip.seal import container_digest, member_range, seal_comment
from keras_ckpt_tools.formats.record.userblock import (
    block_size,
    decode,
    encode,
    encode_json,
    read_at,
)
from keras_ckpt_tools.metadata import Record, TrackedObject

SAVED = Path(__file__).parents[1] / "files" / "0.1.0" / "backup" / "ckpt-00000002.weights.h5"
BEGAN = 1_700_000_000.0


def weights(*, size: int | None = None, **changes: Any) -> bytes:
    """Return a checkpoint whose progress has changed; other fields of the record go by `record=`.

    Args:
        size: What the record says of its length, if that is another than it has.
        **changes: Of its `TrainingProgress`; `record` is a dict of changes to the record itself.
    """
    data = SAVED.read_bytes()
    found = decode(read_at(data), str(SAVED))
    assert found is not None
    record, block = found
    of_record = changes.pop("record", {})
    progress = dataclasses.replace(record.progress, **changes)
    record = dataclasses.replace(record, progress=progress, **of_record)
    wanted = block_size(len(encode_json(record)))
    # A record that grew would move the tensors; these are told of no one who reads heads.
    length = size or max(wanted, block) + len(data) - block
    return encode(dataclasses.replace(record, size=length), max(wanted, block)) + data[block:]


def progress_of(number: int, run_id: str = "one", every: float = 60.0) -> dict[str, Any]:
    """Return the progress at the n-th save of a run that saves once in each epoch."""
    loss = 1 / number if number != 3 else 0.01
    return {
        "epochs_completed": number,
        "batches_completed": 0,
        "step": 10 * number,
        "run_id": run_id,
        "logs": {"loss": 1 / number, "val_loss": loss},
        "history": {"loss": tuple(1 / n for n in range(1, number + 1))},
        "history_epochs": {"loss": tuple(range(number))},
        "started_at": BEGAN,
        "saved_at": BEGAN + every * number,
        "elapsed_s": every * number,
    }


def manager_run(folder: Path, numbers: Any, run_id: str = "one", **record: Any) -> Path:
    """Make the directory of a `CheckpointManager` with checkpoints of these numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    tracked = {"model": TrackedObject("model"), "_loop": TrackedObject("run", state={})}
    for number in numbers:
        change = {"tracked": tracked, **record}
        data = weights(**progress_of(number, run_id), record=change)
        (folder / f"ckpt-{number:08d}.weights.h5").write_bytes(data)
    return folder


def archive(pattern: str, **progress: Any) -> bytes:
    """Return a `.keras` of a `ModelCheckpoint` with that pattern."""
    change = {"kind": "model", "tracked": {}, "state": {"filepath": pattern}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("metadata.json", '{"keras_version": "3.10.0"}')
        file.writestr("config.json", '{"class_name": "Sequential", "config": {"layers": []}}')
        file.writestr("model.weights.h5", weights(**progress, record=change))
        file.comment = seal_comment("0" * 32)
    return buffer.getvalue()


def sealed(path: Path, data: bytes) -> Path:
    """Write an archive of ours, with the digest at its end that belongs to it."""
    path.write_bytes(data)
    with path.open("r+b") as file, zipfile.ZipFile(path) as found:
        start, end = member_range(file.fileno(), found.getinfo("model.weights.h5"))
        digest = container_digest(file.fileno(), start, end)
        file.seek(-len(digest), io.SEEK_END)
        file.write(digest.encode())
    return path


def file_run(folder: Path, pattern: str, numbers: Any, run_id: str = "one") -> Path:
    """Make the directory of a `ModelCheckpoint` with a pattern that names epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        values = progress_of(number, run_id)
        name = pattern.format(epoch=number, **values["logs"])
        sealed(folder / name, archive(pattern, **values))
    return folder


def record_of(path: Path) -> Record:
    """Return the whole record of a weights file."""
    found = decode(read_at(path.read_bytes()), str(path))
    assert found is not None
    return found[0]


def written_files() -> list[Path]:
    """Return the weights files that versions of this package wrote, for their records."""
    return sorted(SAVED.parents[1].glob("*/ckpt-*.h5")) + sorted(SAVED.parents[1].glob("*.h5"))
