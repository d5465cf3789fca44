"""An open file is taken where a path is, and is as it was afterwards."""

from __future__ import annotations

import io
import os
import tempfile
import warnings

import h5py
import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    CkptError,
    DamagedArtefactError,
    OverBudgetError,
)
from keras_ckpt_tools.formats.common.file_objects import on_disk
from keras_ckpt_tools.formats.common.limits import Limits

X = np.ones((2, 3), "float32")


@pytest.fixture
def model():
    """A compiled model that has trained."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(X, np.ones((2, 2), "float32"))
    return model


def saved(model, path, *, stock):
    """Save with Keras or with this package."""
    if stock:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(path)
        return path
    saver = kct.ModelCheckpoint(path, monitor="loss")
    saver.set_model(model)
    saver.on_epoch_begin(0)
    saver.on_epoch_end(0, {"loss": 1.0})
    return path


def check(model, opened):
    """Load, inspect, compare and load weights, all from one open file."""
    loaded = kct.safe_load_model(opened, compile=True)
    assert np.array_equal(model(X), loaded(X))
    assert loaded.optimizer.iterations == 1
    report = kct.inspect(opened)
    assert report
    assert str(report).startswith("file: ")
    assert kct.compare(loaded, opened)
    assert kct.compare(opened, opened)
    assert kct.load_weights(loaded, opened).path == "file"


@pytest.mark.parametrize("stock", [True, False])
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_binary_file_is_read_from_its_beginning(model, stock, ending, tmp_path):
    """Wherever it stands, as `zipfile` reads it; it stands there afterwards."""
    path = saved(model, tmp_path / f"net.{ending}", stock=stock)
    memory = io.BytesIO(path.read_bytes())
    memory.seek(0, os.SEEK_END)
    check(model, memory)
    assert memory.tell() == path.stat().st_size
    with open(path, "rb") as file:
        check(model, file)
        assert file.tell() == 0


@pytest.mark.parametrize("stock", [True, False])
@pytest.mark.parametrize("how", ["r", "r+", "core", "memory"])
def test_an_open_hdf5_file_is_taken(model, stock, how, tmp_path):
    """As `load_model_from_hdf5` takes one, whichever driver has opened it."""
    path = saved(model, tmp_path / "net.h5", stock=stock)
    if how == "memory":
        opened = h5py.File(io.BytesIO(path.read_bytes()), "r")
    elif how == "core":
        opened = h5py.File(path, "r", driver="core", backing_store=False)
    else:
        opened = h5py.File(path, how)
    with opened:
        check(model, opened)
        assert opened["model_weights"] is not None


def test_what_keras_saves_into_a_file_object_opens(model):
    """The round trip of Keras' own test."""
    from keras.src.saving import saving_lib

    memory = io.BytesIO()
    saving_lib.save_model(model, memory)
    check(model, memory)


def test_nothing_is_left_of_the_copy(model, tmp_path, monkeypatch):
    """The temporary directory is as it was, after a failure too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = saved(model, tmp_path / "net.keras", stock=True)
    kct.safe_load_model(io.BytesIO(path.read_bytes()))
    with pytest.raises(DamagedArtefactError):
        kct.safe_load_model(io.BytesIO(path.read_bytes()[:-100]))
    assert os.listdir(tmp_path) == ["net.keras"]


def test_messages_show_the_file_and_not_its_copy(model, tmp_path):
    """The copy is gone when somebody reads the message."""
    model.save_weights(tmp_path / "net.weights.h5")
    with open(tmp_path / "net.weights.h5", "rb") as file:
        with pytest.raises(ArtefactKindError) as caught:
            kct.safe_load_model(file)
        assert "`kct.load_weights(model, file)`" in str(caught.value)
        assert "/" not in str(caught.value)
        assert kct.load_weights(model, file)


def test_advice_about_a_checkpoint_names_no_temporary_directory(model, tmp_path):
    """It named the directory of the copy, which is gone by then."""
    manager = kct.CheckpointManager(tmp_path, one=model, two=keras.models.clone_model(model))
    with open(manager.save(), "rb") as file:
        for load in (kct.safe_load_model, lambda file: kct.load_weights(model, file)):
            with pytest.raises(ArtefactKindError) as caught:
                load(file)
            assert "`kct.CheckpointManager(directory, " in str(caught.value)
            assert tempfile.gettempdir() not in str(caught.value)


def test_bytes_are_refused_with_what_to_pass_in_their_place(model, tmp_path):
    """Neither a path nor a file; the content of a file is not shown whole."""
    path = saved(model, tmp_path / "net.keras", stock=True)
    for given in (os.fsencode(path), path.read_bytes()):
        for call in (kct.safe_load_model, kct.inspect, kct.verify):
            with pytest.raises(ArgumentError, match=r"these are bytes.*io\.BytesIO") as caught:
                call(given)
            assert len(str(caught.value)) < 1000
    assert kct.safe_load_model(os.fsdecode(os.fsencode(path)))
    assert kct.safe_load_model(io.BytesIO(path.read_bytes()))


def test_a_stream_that_cannot_go_back_is_read_from_where_it_is(tmp_path):
    """What a program has received over a pipe."""
    reader, writer = os.pipe()
    os.write(writer, b"some bytes")
    os.close(writer)
    with (
        open(reader, "rb") as stream,
        on_disk(stream, Limits.of()) as place,
        open(place, "rb") as copy,
    ):
        assert copy.read() == b"some bytes"


def closed(path):
    """Return a file that was closed."""
    with open(path, "rb") as file:
        pass
    return file


def closed_hdf5(path):
    """Return an HDF5 file that was closed."""
    with h5py.File(path, "w") as file:
        pass
    return file


@pytest.mark.parametrize(
    "make", [closed, closed_hdf5, lambda path: io.StringIO("text"), lambda path: open(path, "wb")]
)
def test_a_file_that_cannot_be_read_is_an_error_of_the_argument(make, tmp_path):
    """It is closed, it is text, or it is open for writing."""
    (tmp_path / "file").write_bytes(b"")
    file = make(tmp_path / "file")
    with pytest.raises(ArgumentError, match=r"The file cannot be read: .*binary mode"):
        kct.safe_load_model(file)
    file.close()


@pytest.mark.parametrize("driver", [{}, {"driver": "core"}])
def test_a_link_to_another_file_is_not_followed_in_an_open_file_either(model, driver, tmp_path):
    """One with a user block is copied object by object."""
    path, forged = tmp_path / "m.h5", tmp_path / "forged.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of `.h5`
        model.save(path)
    with h5py.File(forged, "w", userblock_size=512) as file, h5py.File(path) as source:
        file.attrs.update(source.attrs)
        for name in source:
            file[name] = h5py.ExternalLink(str(path), name)
    mode = "r" if driver else "r+"
    with h5py.File(forged, mode, **driver) as opened, pytest.raises(CkptError):
        kct.safe_load_model(opened, compile=False)


class Endless(io.RawIOBase):
    """A stream that does not end; `taken` is what was read of it."""

    taken = 0

    def readable(self):
        return True

    def seekable(self):
        return False

    def read(self, size=-1):
        self.taken += size
        return bytes(size)


class Huge(io.BytesIO):
    """A file that says it is a terabyte."""

    def seek(self, offset, whence=os.SEEK_SET):
        return 1 << 40 if whence == os.SEEK_END else super().seek(offset, whence)


SMALL = Limits(max_bytes=3 << 20, json_bytes=1 << 20)


@pytest.mark.parametrize("hdf5", ["r", "core", False])
def test_a_file_that_is_larger_than_allowed_is_not_copied(hdf5, tmp_path, monkeypatch):
    """Only free space on the disk bounded the copy; nothing is left of it."""
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["big"] = np.zeros(5 << 20, "uint8")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    size = (tmp_path / "big.h5").stat().st_size
    kind = {"driver": "core"} if hdf5 == "core" else {}
    opened = (
        h5py.File(tmp_path / "big.h5", "r", **kind) if hdf5 else open(tmp_path / "big.h5", "rb")
    )
    with (
        opened,
        pytest.raises(OverBudgetError, match=f"allow it: `max_bytes={size}`") as caught,
        on_disk(opened, SMALL),
    ):
        pass
    assert caught.value.needed == size
    assert os.listdir(tmp_path) == ["big.h5"]


def test_a_stream_without_an_end_is_left_where_too_much_has_come(tmp_path, monkeypatch):
    """Its size is not known before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stream = Endless()
    refused = pytest.raises(OverBudgetError, match="pass a larger `max_bytes=`")
    with refused, on_disk(stream, SMALL):
        pass
    assert stream.taken <= 6 << 20
    assert os.listdir(tmp_path) == []


def test_every_reader_of_open_files_bounds_the_copy(model):
    """A report has it as a problem, as it has all that is too much."""
    with pytest.raises(OverBudgetError):
        kct.safe_load_model(Huge(), max_bytes=1)
    with pytest.raises(OverBudgetError):
        kct.load_weights(model, Huge(), max_bytes=1)
    report = kct.inspect(Huge(), max_bytes=1)
    assert [problem.kind for problem in report.problems] == ["OverBudgetError"]
    assert str(report).startswith("file: unknown")
