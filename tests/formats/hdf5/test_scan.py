"""What a hostile or damaged HDF5 file does to the process that looks through it, and to ours."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from keras_ckpt_tools.errors import (
    ArtefactError,
    DamagedArtefactError,
    OverBudgetError,
    UnsafeArtefactError,
)
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.hdf5 import scan
from keras_ckpt_tools.formats.hdf5.scan import Survey, survey

MIB = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file by its descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def look(path: Path, **limits: Any) -> Survey:
    """Return what the other process says of a file."""
    allowed = dataclasses.replace(Limits.of(256 * MIB), **limits)
    with opened(path) as descriptor:
        return survey(descriptor, 0, path.stat().st_size, str(path), allowed)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Callable[[h5py.File], Any]], Path]:
    """A function that writes an HDF5 file by a function of the file."""

    def write(fill: Callable[[h5py.File], Any]) -> Path:
        path = tmp_path / "file.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    return write


def test_everything_that_keras_writes_comes_through(make):
    """Tensors of every type, packed ones, texts and attributes."""

    def fill(file: h5py.File) -> None:
        file.attrs["model_config"] = '{"class_name": "Model"}'
        file.attrs["weight_names"] = [b"a", b"b"]
        group = file.create_group("layers/dense/vars")
        group["0"] = np.arange(6, dtype="f4").reshape(2, 3)
        group.create_dataset("1", data=np.ones((100, 10)), compression="gzip", shuffle=True)
        group["2"] = np.array(["one", "two"], dtype=object)
        group["3"] = np.array([True, False])
        half = group.create_dataset("4", data=np.zeros(3, "V2"))
        half.attrs["dtype"] = "bfloat16"

    found = look(make(fill))
    assert found.attributes["model_config"] == '{"class_name": "Model"}'
    assert found.members == {"layers"}
    assert found.with_vars == {"layers/dense"}
    dtypes = [found.tensors[f"layers/dense/vars/{i}"].dtype for i in range(5)]
    assert dtypes == ["float32", "float64", "object", "bool", "bfloat16"]
    # What lies there as it is can be read without libhdf5; the rest cannot.
    assert set(found.plain) == {"layers/dense/vars/0", "layers/dense/vars/4"}
    assert found.not_finite == ()


def test_tensors_with_nan_and_infinity_are_named(make):
    """Also where the type is one that NumPy does not know, and where it is packed."""

    def fill(file: h5py.File) -> None:
        file["good"] = np.full(
            4, np.finfo("f4").max, "f4"
        )  # The sum overflows, the numbers do not.
        file["nan"] = np.array([1, np.nan], "f4")
        file.create_dataset("packed", data=np.array([np.inf] * 100), compression="gzip")
        bits = np.array([0x3F80, 0x7F80], "<u2").view("V2")
        file.create_dataset("brain", data=bits).attrs["dtype"] = "bfloat16"

    assert set(look(make(fill)).not_finite) == {"nan", "packed", "brain"}


def _external(file: h5py.File) -> None:
    file.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    file.create_virtual_dataset("x", layout)


def _plug_in(file: h5py.File) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((4,))
    # Optional, or libhdf5 would not write what it cannot pack.
    creation.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, creation)


def _reference(file: h5py.File) -> None:
    file["x"] = np.array([file.ref], h5py.ref_dtype)


def _lengths(file: h5py.File) -> None:
    file.create_dataset("x", (2,), h5py.vlen_dtype("f4"))


def _compound(file: h5py.File) -> None:
    file["x"] = np.zeros(2, [("a", "f4"), ("b", "i4")])


def _ring(file: h5py.File) -> None:
    inner = file.create_group("x/y")
    inner["back"] = file["x"]


REFUSED = {
    "an external link": lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")),
    "a soft link": lambda file: file.__setitem__("x", h5py.SoftLink("/somewhere")),
    "its data in another file": _external,
    "a virtual dataset": _virtual,
    "a plug-in": _plug_in,
    "references to objects": _reference,
    "data of variable length": _lengths,
    "a compound": _compound,
    "a group that contains itself": _ring,
    "a named datatype": lambda file: file.__setitem__("x", np.dtype("f4")),
    "an attribute with references": lambda file: file.attrs.__setitem__("x", file.ref),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_keras_never_writes_is_refused_by_its_name(what, make):
    """It would lead out of the file, or into code that reads little-used corners of the format."""
    with pytest.raises(UnsafeArtefactError, match=what) as caught:
        look(make(REFUSED[what]))
    assert "x" in caught.value.what


def test_declared_terabytes_are_refused_before_they_are_made(make):
    """Of a dataset without data, only the declaration is large."""
    path = make(lambda file: file.create_dataset("x", (1 << 40,), "f8", chunks=(1024,)))
    with pytest.raises(OverBudgetError, match="8,796,093,022,208") as caught:
        look(path)
    assert (caught.value.limit, caught.value.allowed) == ("max_bytes", 256 * MIB)


def test_a_dataset_that_declares_what_it_does_not_store_is_damaged(make):
    """No compression that HDF5 has packs a hundred megabytes into nothing."""
    path = make(lambda file: file.create_dataset("x", (100 * MIB,), "u1", chunks=(1024,)))
    with pytest.raises(DamagedArtefactError, match=r"declares 104,857,600 bytes and has 0"):
        look(path)


@pytest.mark.parametrize(
    ("limit", "fill"),
    [
        ("objects", lambda file: [file.create_group(str(i)) for i in range(30)]),
        ("levels", lambda file: file.create_group("/".join("abcdefghijklmnop"))),
        ("attribute_bytes", lambda file: file.attrs.__setitem__("a", "x" * 1000)),
        ("chunk_bytes", lambda file: file.create_dataset("x", (999,), "f8", chunks=(999,))),
    ],
)
def test_each_count_has_its_limit(limit, fill, make):
    """The error says how many there are, and how many there may be."""
    with pytest.raises(OverBudgetError) as caught:
        look(make(fill), **{limit: 10})
    assert caught.value.limit == limit
    assert caught.value.needed > caught.value.allowed == 10


def test_many_references_to_one_text_are_counted_each(make):
    """Each element of a dataset can point at the same megabyte."""

    def fill(file: h5py.File) -> None:
        texts = file.create_dataset("x", (64,), h5py.string_dtype())
        texts[:] = "x" * MIB

    with pytest.raises(OverBudgetError, match="its tensors take"):
        look(make(fill), max_bytes=8 * MIB)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"crashes on it \(SIGSEGV\)"),
        ("import time; time.sleep(60)", "did not finish"),
        ("import sys; sys.exit(3)", "libhdf5 cannot read it"),
        ("print('{')", "no valid answer"),
        ("print('[]')", "no valid answer"),
        ('print(\'{"survey": {"refused": 1}}\')', "no valid answer"),
    ],
)
def test_however_the_other_process_ends_it_is_damage(program, said, make, tmp_path, monkeypatch):
    """A crash, a hang, nonsense: one error, and ours lives."""
    child = tmp_path / "child.py"
    child.write_text(program)
    monkeypatch.setattr(scan, "_CHILD", str(child))
    with pytest.raises(DamagedArtefactError, match=said):
        look(make(lambda file: None), patience=1.0)


def test_a_process_that_says_too_much_is_not_heard_out(make, tmp_path, monkeypatch):
    """If a file takes it over, it still cannot fill our memory."""
    child = tmp_path / "child.py"
    child.write_text("import sys\nwhile True: sys.stdout.write('x' * 100_000)")
    monkeypatch.setattr(scan, "_CHILD", str(child))
    monkeypatch.setattr(scan, "_ANSWER", 1 << 20)
    with pytest.raises(DamagedArtefactError, match="did not finish"):
        look(make(lambda file: None))


def test_endless_work_is_cut_off_by_processor_time(make, tmp_path, monkeypatch):
    """The limits are those of the real child: set before anything of the file is read."""
    text = Path(scan._CHILD).read_text()
    child = tmp_path / "child.py"
    child.write_text(text.replace("    import h5py\n", "    while True:\n        pass\n", 1))
    monkeypatch.setattr(scan, "_CHILD", str(child))
    with pytest.raises(DamagedArtefactError, match="did not finish"):
        look(make(lambda file: None), seconds=0.1)


def test_the_other_process_has_little_to_lose(make, tmp_path, monkeypatch):
    """Neither files, environment, working directory nor memory of the user's are within reach."""
    monkeypatch.setenv("SECRET", "x")
    text = Path(scan._CHILD).read_text()
    probe = (
        "    import resource\n"
        "    facts = {'env': sorted(os.environ), 'cwd': os.getcwd(), 'argv': sys.flags.isolated,\n"
        "        'size': resource.getrlimit(resource.RLIMIT_FSIZE)[0],\n"
        "        'memory': resource.getrlimit(resource.RLIMIT_AS)[0],\n"
        "        'open': len(os.listdir('/proc/self/fd'))}\n"
        "    return {'damaged': json.dumps(facts)}\n"
        "    import h5py\n"
    )
    child = tmp_path / "child.py"
    child.write_text(text.replace("    import h5py\n", probe, 1))
    monkeypatch.setattr(scan, "_CHILD", str(child))
    with open(__file__), pytest.raises(DamagedArtefactError) as caught:
        look(make(lambda file: None))
    said = caught.value.what
    assert "SECRET" not in said
    assert '"HDF5_PLUGIN_PATH", "HDF5_PLUGIN_PRELOAD"' in said
    assert '"cwd": "/"' in said
    assert '"size": 0' in said
    assert f'"memory": {2 << 30}' in said
    assert '"argv": 1' in said
    assert '"open": 5' in said  # In, out, error, the file, and the folder that counts them.


def test_without_a_python_to_start_it_is_said_so(make, monkeypatch):
    """An interpreter inside another program may have none."""
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(ArtefactError, match="no Python process can be started"):
        look(make(lambda file: None))


@pytest.mark.parametrize("seed", range(12))
def test_no_damage_ends_anything_but_the_other_process(seed, make):
    """Bytes overwritten at random, and files cut off: a survey or one of our errors."""

    def fill(file: h5py.File) -> None:
        file.attrs["model_config"] = "{}" * 50
        for i in range(5):
            file.create_group(f"layers/{i}/vars")["0"] = np.ones((8, 8))
        file.create_dataset("packed", data=np.zeros((64, 64)), compression="gzip")

    path = make(fill)
    whole = bytearray(path.read_bytes())
    chosen = np.random.default_rng(seed)
    for place in chosen.integers(0, len(whole), 40):
        whole[place] = chosen.integers(256)
    path.write_bytes(whole[: len(whole) - int(seed % 3) * 100])
    with contextlib.suppress(ArtefactError):
        assert look(path).members


def test_it_takes_no_time_to_speak_of(make):
    """Of h5py and NumPy alone; nothing of the package, or of a framework, is imported there."""
    code = (
        "import sys, runpy; sys.argv = ['x'];"
        f"runpy.run_path({scan._CHILD!r}, run_name='child');"
        "print([m for m in sys.modules if m.partition('.')[0] in"
        " ('keras', 'tensorflow', 'keras_ckpt_tools', 'h5py', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
