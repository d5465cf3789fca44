"""What loads cost: into a model that is there, and from a file to a model."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import keras
import numpy as np

import keras_ckpt_tools as kct
from benchmarks import floors, ours, peers
from benchmarks.cases import Case
from benchmarks.timing import Contender, Timings, interleaved

_CHUNK = 8 << 20
# After so long the memory that a process has given up may have left a virtual machine.
_GONE_S = 3.0
RAW_READ = "floor: raw read + assign"
RAW_ALL = "floor: raw read of all before the first assign"
OURS_WEIGHTS = "**ours** `load_weights` (.weights.h5)"
OURS_MODEL = "**ours** `safe_load_model`"
OURS_INSPECT = "**ours** `inspect`"
RAW_MODEL = "floor: build without initializers + raw read + assign"


def measure_weights(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure loading into a built model, optimizer included. Files are in the page cache."""
    model = case.build()
    contenders = _floors_and_ours(model, folder)
    stock = folder / "stock.weights.h5"
    model.save_weights(stock)
    contenders.append(Contender("Keras `model.load_weights`", lambda: model.load_weights(stock)))
    for saver in peers.safetensors_saver(model, folder):
        saver.save()
        contenders.append(Contender(saver.name, peers.safetensors_loader(model, folder)))
    checkpoint = peers.tensorflow_checkpoint(model)
    written = checkpoint.write(str(folder / "tf"))
    contenders.append(
        Contender("`tf.train.Checkpoint.restore`", lambda: checkpoint.restore(written))
    )
    return interleaved([_with_all_at_hand(one, folder, case) for one in contenders], rounds)


def measure_fresh(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure loading where memory that was given up before has left the machine."""
    contenders = [
        dataclasses.replace(one, before=lambda: (_read_all(folder), time.sleep(_GONE_S)))
        for one in _floors_and_ours(case.build(), folder)
    ]
    return interleaved(contenders, rounds)


def _floors_and_ours(model: keras.Model, folder: Path) -> list[Contender]:
    raw = str(folder / "raw.bin")
    floors.write_raw(raw, floors.reader_of(model)())
    variables = floors.variables_of(model)
    contenders = [
        Contender(RAW_READ, lambda: floors.read_raw(raw, variables)),
        Contender(RAW_ALL, lambda: floors.read_raw_then_assign(raw, variables)),
    ]
    for suffix in (".weights.h5", ".keras"):
        ours.model_checkpoint(model, folder, suffix).save()
        path = folder / f"ours{False}{suffix}"
        name = OURS_WEIGHTS.replace(".weights.h5", suffix)
        contenders.append(Contender(name, lambda p=path: kct.load_weights(model, p)))
    return contenders


def _with_all_at_hand(one: Contender, folder: Path, case: Case) -> Contender:
    """Have the files in the page cache, and free memory in the machine: both are chance else.

    A virtual machine gives free memory back to its host, and gets it again slowly. Who of several
    contenders meets that would depend on who was before; `measure_fresh` measures it by itself.
    """

    def prepare() -> None:
        _read_all(folder)
        np.ones(2 * case.nbytes, np.uint8)

    return dataclasses.replace(one, before=prepare)


def _read_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(_CHUNK):
                    pass


def measure_model(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure loading a whole model; ours is inspected and verified on the way."""
    model = case.build()
    raw = str(folder / "raw.bin")
    floors.write_raw(raw, floors.reader_of(model)())
    ours.model_checkpoint(model, folder).save()
    path = folder / f"ours{False}.keras"
    stock = folder / "stock.keras"
    model.save(stock)
    config = json.dumps(keras.saving.serialize_keras_object(model))
    del model
    clear = keras.backend.clear_session
    return interleaved(
        [
            _with_all_at_hand(one, folder, case)
            for one in (
                Contender(RAW_MODEL, lambda: floors.load_raw(config, raw), after=clear),
                Contender(OURS_MODEL, lambda: kct.safe_load_model(path), after=clear),
                Contender(
                    "Keras `load_model`", lambda: keras.models.load_model(stock), after=clear
                ),
            )
        ],
        rounds,
    )


def measure_inspection(case: Case, folder: Path, rounds: int) -> Timings:
    """Measure what looking at a file costs beside loading it, for one of ours and a stock one."""
    model = case.build()
    ours.model_checkpoint(model, folder).save()
    model.save(folder / "stock.keras")
    del model
    clear = keras.backend.clear_session
    paths = {"": folder / f"ours{False}.keras", " of stock Keras' file": folder / "stock.keras"}
    contenders = [
        one
        for what, path in paths.items()
        for one in (
            Contender(OURS_MODEL + what, lambda p=path: kct.safe_load_model(p), after=clear),
            Contender(OURS_INSPECT + what, lambda p=path: kct.inspect(p)),
        )
    ]
    return interleaved([_with_all_at_hand(one, folder, case) for one in contenders], rounds)
