"""Reading what we and others wrote, and finding every damage to what we wrote."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_ckpt_tools.errors import ArtefactKindError, CkptError, DamagedArtefactError
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.record.userblock import MAGIC

FORMATS = [".keras", ".weights.h5", ".h5"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_tensors_come_back_bit_by_bit(suffix: str, trained: Any, save: Callable[..., Path]) -> None:
    """The arrays that are read are those of the model."""
    with open_source(save(trained, suffix)) as source:
        found = [source.read(path) for path in source.tensors]
    for variable in trained.weights:
        value = variable.numpy()
        assert any(np.array_equal(value, array) for array in found if array.shape == value.shape)


@pytest.mark.parametrize("suffix", FORMATS)
def test_progress_and_versions_are_on_record(
    suffix: str, trained: Any, save: Callable[..., Path]
) -> None:
    """Any of the formats says where training was and who wrote it."""
    import keras

    with open_source(save(trained, suffix, epochs_completed=7)) as source:
        assert source.record is not None
        assert source.record.progress.epochs_completed == 7
        assert source.record.versions["keras"] == keras.__version__


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_whole_file_verifies(suffix: str, trained: Any, save: Callable[..., Path]) -> None:
    """There is nothing to complain about in what was just written."""
    with open_source(save(trained, suffix)) as source:
        assert source.verify() == ()


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_flipped_bit_goes_unseen(suffix: str, trained: Any, save: Callable[..., Path]) -> None:
    """300 random single-bit flips a format: each is found, opening or verifying."""
    path = save(trained, suffix)
    whole = path.read_bytes()
    chosen = random.Random(suffix)
    for _ in range(300):
        bit = chosen.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert not _loads_in_silence(path), f"byte {bit // 8}, bit {bit % 8}"


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_truncation_goes_unseen(suffix: str, trained: Any, save: Callable[..., Path]) -> None:
    """A file cut off anywhere is found to be."""
    path = save(trained, suffix)
    whole = path.read_bytes()
    chosen = random.Random(suffix)
    for length in [0, 1, len(whole) - 1, *(chosen.randrange(len(whole)) for _ in range(60))]:
        path.write_bytes(whole[:length])
        assert not _loads_in_silence(path), f"cut off at {length} of {len(whole)}"


def _loads_in_silence(path: Path) -> bool:
    try:
        with open_source(path) as source:
            return not source.verify()
    except CkptError:
        return False


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_changed_tensor_is_not_handed_out(
    suffix: str, trained: Any, save: Callable[..., Path]
) -> None:
    """A load finds what `verify` finds."""
    path = save(trained, suffix)
    whole = bytearray(path.read_bytes())
    value = trained.weights[0].numpy().tobytes()
    whole[whole.index(value)] ^= 1
    path.write_bytes(whole)
    with open_source(path) as source, pytest.raises(DamagedArtefactError, match="vars/0"):
        source.read("layers/dense/vars/0")


def test_a_file_replaced_while_open_is_not_mixed_in(
    trained: Any, save: Callable[..., Path], tmp_path: Path
) -> None:
    """One descriptor serves from the first look to the last tensor."""
    path = save(trained, ".weights.h5")
    expected = trained.weights[0].numpy()
    with open_source(path) as source:
        other = tmp_path / "other"
        other.write_bytes(b"somebody else's")
        os.replace(other, path)
        assert np.array_equal(source.read("layers/dense/vars/0"), expected)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_files_of_stock_keras_are_read_too(suffix: str, trained: Any, tmp_path: Path) -> None:
    """Without a record, tensors come through libhdf5."""
    path = tmp_path / f"stock{suffix}"
    trained.save(path) if suffix == ".keras" else trained.save_weights(path)
    with open_source(path) as source:
        assert source.record is None
        assert np.array_equal(source.read("layers/dense/vars/0"), trained.weights[0].numpy())
        assert source.verify() == ()


def test_an_unzipped_directory_is_read(trained: Any, tmp_path: Path) -> None:
    """Keras writes its archive unzipped too."""
    from keras.src.saving.saving_lib import save_model

    save_model(trained, tmp_path / "unzipped", zipped=False)
    with open_source(tmp_path / "unzipped") as source:
        assert (source.config or {})["class_name"] == "Sequential"
        assert np.array_equal(source.read("layers/dense/vars/0"), trained.weights[0].numpy())


def test_a_text_is_no_source(tmp_path: Path) -> None:
    """What is no model and no weights is named."""
    path = tmp_path / "notes.keras"
    path.write_text("dear diary")
    with pytest.raises(ArtefactKindError, match="unknown"):
        open_source(path)


def test_our_weights_begin_with_the_magic(trained: Any, save: Callable[..., Path]) -> None:
    """So that a file of ours is told from its first eight bytes."""
    assert save(trained, ".weights.h5").read_bytes().startswith(MAGIC)


@pytest.mark.parametrize("flag", ["compressed", "unknown method", "encrypted"])
def test_a_bit_that_hides_the_record_is_damage_too(
    flag: str, trained: Any, save: Callable[..., Path]
) -> None:
    """A member that claims to be compressed or encrypted is not taken for somebody else's."""
    path = save(trained, ".keras")
    whole = bytearray(path.read_bytes())
    entry = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"model.weights.h5"))
    place, mask = {"compressed": (10, 8), "unknown method": (10, 64), "encrypted": (8, 1)}[flag]
    whole[entry + place] ^= mask
    path.write_bytes(whole)
    with pytest.raises(DamagedArtefactError), open_source(path) as source:
        source.check()
