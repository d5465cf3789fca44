"""What an artefact is, is told by its content, whatever it is called."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from keras_ckpt_tools.errors import ArgumentError, ArtefactError, ArtefactNotFoundError
from keras_ckpt_tools.formats.common.contents import Snapshot
from keras_ckpt_tools.formats.hdf5.writer import write_weights
from keras_ckpt_tools.formats.kinds import Kind, tell
from keras_ckpt_tools.formats.record.userblock import block_size, encode, encode_json
from keras_ckpt_tools.metadata import Record


def zip_of(**members: bytes) -> bytes:
    """Return a zip, all members stored, as Keras writes them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return stream.getvalue()


def hdf5_of(build, **options) -> bytes:
    """Return an HDF5 file that `build(file)` filled."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        build(file)
    return stream.getvalue()


def whole_model(file):
    """Fill a file as Keras' legacy format does."""
    file.attrs["model_config"] = "{}"
    file.create_dataset("model_weights/dense/kernel", data=np.zeros(5000))


def legacy_weights(file):
    """Fill a file as Keras 2's `save_weights` does."""
    file.attrs["layer_names"] = [b"dense"]
    file.create_group("dense")


def weights(file):
    """Fill a file as Keras 3's `save_weights` does."""
    file.create_dataset("layers/dense/vars/0", data=np.zeros(5000))


def weights_of_an_attribute(file):
    """Fill a file as Keras 3 does for a subclassed model with one layer attribute."""
    file.create_dataset("head/vars/0", data=np.zeros(3))


def something_else(file):
    """Fill a file that has nothing to do with Keras."""
    file.create_dataset("measurements", data=np.zeros(3))


KERAS = zip_of(config__json=b"{}", metadata__json=b"{}", model__weights__h5=b"x" * 9000)
NPZ = io.BytesIO()
np.savez(NPZ, a=np.zeros(3))

FILES = {
    "keras": (KERAS, Kind.KERAS),
    "npz": (NPZ.getvalue(), Kind.NPZ),
    "torch zip": (zip_of(**{"archive/data__pkl": b"x"}), Kind.PICKLE),
    "some zip": (zip_of(readme__txt=b"x"), Kind.UNKNOWN),
    "npy": (b"\x93NUMPY\x01\x00v\x00", Kind.NPZ),
    "whole model": (hdf5_of(whole_model), Kind.H5_MODEL),
    "whole model behind a user block": (hdf5_of(whole_model, userblock_size=512), Kind.H5_MODEL),
    "whole model, new HDF5": (hdf5_of(whole_model, libver="latest"), Kind.H5_MODEL),
    "legacy weights": (hdf5_of(legacy_weights), Kind.H5_WEIGHTS_LEGACY),
    "weights": (hdf5_of(weights), Kind.H5_WEIGHTS),
    "weights of an attribute": (hdf5_of(weights_of_an_attribute), Kind.H5_WEIGHTS),
    "other HDF5": (hdf5_of(something_else), Kind.UNKNOWN),
    "pickle": (pickle.dumps({"a": [1, 2]}), Kind.PICKLE),
    "safetensors": ((2).to_bytes(8, "little") + b"{}", Kind.SAFETENSORS),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", Kind.GIT_LFS),
    "web page": (b"\n <!DOCTYPE html><html></html>", Kind.HTML),
    "error of a store": (b'<?xml version="1.0"?><Error/>', Kind.HTML),
    "checkpoint file": (b'model_checkpoint_path: "ckpt-1"\n', Kind.TF_CHECKPOINT),
    "text": (b"hello", Kind.UNKNOWN),
    "empty": (b"", Kind.EMPTY),
}


@pytest.mark.parametrize("case", FILES)
def test_file_is_told_by_its_content(case, tmp_path):
    """Each kind of file is recognised under the name of another."""
    content, kind = FILES[case]
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    told = tell(path)
    assert (told.kind, told.size, told.path) == (kind, len(content), str(path))
    assert told.damage is None or kind is Kind.EMPTY


@pytest.mark.parametrize("record_kind", ["model", "weights", "checkpoint"])
def test_files_of_ours_are_told_by_their_record(record_kind, tmp_path):
    """The record says what it is, and libhdf5 is not asked."""
    path = tmp_path / "any.bin"
    with path.open("wb") as file:
        write_weights(
            file.write, Snapshot({"layers/dense/vars/0": np.zeros(3)}), Record(kind=record_kind)
        )
    expected = {
        "model": Kind.H5_MODEL,
        "weights": Kind.H5_WEIGHTS,
        "checkpoint": Kind.CHECKPOINT,
    }
    assert tell(path).kind is expected[record_kind]
    assert tell(path).damage is None


def test_truncated_file_of_ours_says_how_much_is_there(tmp_path):
    """The record knows how long the file should be."""
    path = tmp_path / "ckpt-00000001.weights.h5"
    with path.open("wb") as file:
        record = write_weights(
            file.write, Snapshot({"a/vars/0": np.zeros(9000)}), Record(kind="checkpoint")
        )
    os.truncate(path, record.size - 1000)
    assert tell(path).damage == f"truncated at {record.size - 1000:,} of {record.size:,} bytes"
    with path.open("ab") as file:
        file.write(b"x" * 1500)
    assert tell(path).damage == f"500 bytes too long: it should have {record.size:,}"


def test_damaged_record_is_damage(tmp_path):
    """A flipped byte in the record is found by its own digest."""
    path = tmp_path / "a.weights.h5"
    with path.open("wb") as file:
        write_weights(file.write, Snapshot({"a/vars/0": np.zeros(3)}), Record())
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    assert "the bytes of its record have changed" in tell(path).damage


def test_record_of_a_later_version_is_no_damage(tmp_path):
    """Whether it can be read is for whoever opens it, who can say what to install."""
    record = Record(format_version=99)
    path = tmp_path / "a.weights.h5"
    path.write_bytes(encode(record, block_size(len(encode_json(record)))))
    assert tell(path).damage is None


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 1024}])
@pytest.mark.parametrize(
    ("build", "kind"), [(whole_model, Kind.H5_MODEL), (weights, Kind.H5_WEIGHTS)]
)
def test_truncated_hdf5_says_how_much_is_there(build, kind, options, tmp_path):
    """The superblock of an HDF5 file says where it ends, user block or not."""
    content = hdf5_of(build, **options)
    path = tmp_path / "model.h5"
    path.write_bytes(content[: len(content) - 7000])
    told = tell(path)
    assert told.damage == f"truncated at {len(content) - 7000:,} of {len(content):,} bytes"
    assert told.kind is kind


@pytest.mark.parametrize("left", [12, 40, 200, 5000, len(KERAS) - 30])
def test_truncated_archive_is_damage(left, tmp_path):
    """A zip without its directory is followed by its local headers."""
    path = tmp_path / "model.keras"
    path.write_bytes(KERAS[:left])
    told = tell(path)
    assert told.damage.startswith(f"truncated at {left:,}")
    if left >= 200:
        assert told.kind is Kind.KERAS


def test_truncated_archive_says_how_much_its_members_need(tmp_path):
    """The header of the member that is cut off says how long it should be."""
    path = tmp_path / "model.keras"
    path.write_bytes(KERAS[:5000])
    at_least = KERAS.index(b"x" * 9000) + 9000
    assert tell(path).damage == f"truncated at 5,000 of at least {at_least:,} bytes"


def test_archive_without_weights_is_damage(tmp_path):
    """An archive that lacks a member says which."""
    path = tmp_path / "model.keras"
    path.write_bytes(zip_of(config__json=b"{}"))
    assert tell(path).damage == "model.weights.h5 missing in the archive"


DIRECTORIES = {
    Kind.SAVED_MODEL: ["saved_model.pb", "variables/variables.index"],
    Kind.KERAS_DIR: ["config.json", "metadata.json", "model.weights.h5"],
    Kind.TF_CHECKPOINT: ["checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001"],
    Kind.ORBAX: ["3/_CHECKPOINT_METADATA"],
    Kind.DIRECTORY: ["notes.txt"],
}


@pytest.mark.parametrize("kind", DIRECTORIES)
def test_directory_is_told_by_its_members(kind, tmp_path):
    """Directories are recognised by what is in them, and nothing in them is opened."""
    for name in DIRECTORIES[kind]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert tell(tmp_path).kind is kind
    assert tell(tmp_path).damage is None


def test_directory_of_checkpoints_has_records_of_ours(tmp_path):
    """A file that only has the name of a checkpoint does not make a directory of checkpoints."""
    (tmp_path / "ckpt-00000001.weights.h5").write_bytes(hdf5_of(weights))
    assert tell(tmp_path).kind is Kind.DIRECTORY
    with (tmp_path / "ckpt-00000002.weights.h5").open("wb") as file:
        write_weights(file.write, Snapshot({"a/vars/0": np.zeros(3)}), Record(kind="checkpoint"))
    assert tell(tmp_path).kind is Kind.CHECKPOINT_DIR


def test_prefix_and_parts_of_a_tensorflow_checkpoint_are_told(tmp_path):
    """A prefix is no file, and its data has no magic: both are known by the index beside them."""
    (tmp_path / "ckpt-1.index").write_bytes(b"\0" * 60 + bytes.fromhex("57fb808b247547db"))
    (tmp_path / "ckpt-1.data-00000-of-00001").write_bytes(b"\1\2\3")
    for name in ("ckpt-1", "ckpt-1.index", "ckpt-1.data-00000-of-00001"):
        assert tell(tmp_path / name).kind is Kind.TF_CHECKPOINT
    assert tell(tmp_path / "ckpt-1").size == 71


def test_pipe_and_socket_are_told_without_opening_them(tmp_path, monkeypatch):
    """Opening a pipe would wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    assert tell(tmp_path / "pipe").kind is Kind.SPECIAL
    assert tell("/dev/null").kind is Kind.SPECIAL
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the name of a socket is limited to about 100 bytes
        server.bind("socket")
        assert tell(tmp_path / "socket").kind is Kind.SPECIAL


def test_link_to_a_file_is_followed(tmp_path):
    """Model caches hand out links."""
    (tmp_path / "blob").write_bytes(KERAS)
    (tmp_path / "model.keras").symlink_to(tmp_path / "blob")
    assert tell(tmp_path / "model.keras").kind is Kind.KERAS


def test_missing_file_names_what_is_nearby(tmp_path):
    """The nearest name comes first; other files are not listed then."""
    for name in ("model.keras", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtefactNotFoundError) as caught:
        tell(tmp_path / "modle.keras")
    assert caught.value.nearby == ("model.keras",)
    assert str(caught.value) == (
        f"There is nothing at the path. Received: path={str(tmp_path / 'modle.keras')!r}. "
        f"Check the path; in {str(tmp_path)!r} there is: 'model.keras'."
    )
    assert isinstance(caught.value, FileNotFoundError)


def test_missing_directory_is_named(tmp_path):
    """The first directory on the way that is not there is the one to look at."""
    (tmp_path / "runs").mkdir()
    with pytest.raises(ArtefactNotFoundError, match="has no 'digits'") as caught:
        tell(tmp_path / "runs" / "digits" / "model.keras")
    assert f"in {str(tmp_path / 'runs')!r} there is: nothing." in str(caught.value)


def test_file_on_the_way_is_named(tmp_path):
    """A file where a directory is meant is said to be one."""
    (tmp_path / "runs").write_bytes(b"x")
    with pytest.raises(ArtefactNotFoundError, match="is a file, not a directory"):
        tell(tmp_path / "runs" / "model.keras")


def test_dangling_link_is_named(tmp_path):
    """The path is there and leads nowhere."""
    (tmp_path / "model.keras").symlink_to(tmp_path / "gone")
    with pytest.raises(ArtefactNotFoundError, match="a link to something that is not there"):
        tell(tmp_path / "model.keras")


def test_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    """No permission is no damage; the remedy is another right."""
    path = tmp_path / "model.keras"
    path.write_bytes(KERAS)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ArtefactError, match=r"cannot be read: Permission denied.*chmod u\+r"):
        tell(path)


@pytest.mark.parametrize("path", [b"model.keras", 3, None, "", "a\0b"])
def test_what_is_no_path_is_refused(path):
    """Bytes, numbers and empty names are errors at once."""
    with pytest.raises(ArgumentError, match="A path is a non-empty string"):
        tell(path)


def test_telling_runs_nothing_and_needs_no_framework(tmp_path):
    """A pickle that would leave a mark when loaded leaves none."""
    mark = tmp_path / "mark"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    (tmp_path / "model.keras").write_bytes(pickle.dumps(Payload()))
    code = (
        "import json, sys; from keras_ckpt_tools.formats.kinds import tell\n"
        f"kind = tell({str(tmp_path / 'model.keras')!r}).kind\n"
        "print(json.dumps([kind, 'keras' in sys.modules, 'tensorflow' in sys.modules]))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert json.loads(done.stdout) == [Kind.PICKLE, False, False]
    assert not mark.exists()
