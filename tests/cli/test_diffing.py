"""`keras-ckpt diff` says what differs between two files, and how far the values have moved."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from hostile.parts import PAYLOAD, dense, members, node, sequential, weights, written, zipped
from hostile.records import our_archive, our_weights

KERNEL = "layers/dense/vars/0"
BIAS = "layers/dense/vars/1"


def _file(path: Path, **tensors: np.ndarray) -> Path:
    """Write weights as stock Keras lays them out: tensors by path, with `.` in place of `/`."""
    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            made = file.create_dataset(f"layers/{name}/vars/0", data=value)
            if value.dtype.isbuiltin == 2:
                del file[f"layers/{name}/vars/0"]
                raw = value.view(f"V{value.dtype.itemsize}")
                made = file.create_dataset(f"layers/{name}/vars/0", data=raw)
                made.attrs["dtype"] = value.dtype.name
    return path


def _diff(first: Path, second: Path, **options: object):
    from keras_ckpt_tools.tools.diff import diff

    return diff(first, second, **options)


def _by_name(report) -> dict[str, object]:
    return {change.name.split("/")[1]: change for change in report.tensors}


def test_like_files_exit_with_0_whoever_wrote_them(keras_ckpt, tmp_path):
    """The same tensors and the same config: as an archive of ours and as one of stock Keras."""
    folder = tmp_path / "my models ünï 模型"
    folder.mkdir()
    ours = written(folder / "our model.keras", our_archive())
    stock = written(folder / "stock.keras", zipped(members()))
    done = keras_ckpt("diff", ours, stock)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"same: {ours} -> {stock}: 2 equal\n")
    assert keras_ckpt("diff", ours, ours, "--no-values").returncode == 0
    assert done.stderr == ""


def test_moved_value_exits_with_1_and_says_how_far(keras_ckpt, tmp_path):
    """The norm of the difference, relative to the first, and the largest of one number."""
    one = written(tmp_path / "a.weights.h5", weights())
    kernel = np.full((4, 2), 0.5, "float32")
    kernel[0, 0] = 1.0
    other = written(tmp_path / "b.weights.h5", weights({KERNEL: kernel, BIAS: np.zeros(2, "f4")}))
    done = keras_ckpt("diff", "--json", one, other)
    assert done.returncode == 1, done
    found = json.loads(done.stdout)
    assert (found["status"], found["counts"]) == ("different", {"equal": 1, "changed": 1})
    (change,) = found["tensors"]
    assert (change["name"], change["verdict"], change["changed"]) == (KERNEL, "changed", 1)
    assert change["l2"] == change["largest"] == 0.5
    assert change["relative"] == pytest.approx(0.5 / math.sqrt(8 * 0.25))
    shown = keras_ckpt("diff", one, other).stdout
    assert "moved 35.36%" in shown
    for tolerance, status in (("0.5", 0), ("0.49", 1)):
        assert keras_ckpt("diff", "--tolerance", tolerance, one, other).returncode == status
    assert keras_ckpt("diff", "--only", BIAS, one, other).returncode == 0
    assert keras_ckpt("diff", "--only", "layers/*", one, other).returncode == 1


def test_trouble_exits_with_2(keras_ckpt, tmp_path):
    """Nothing there, something else, a pattern that fits nothing, and bytes that have changed."""
    good = written(tmp_path / "good.weights.h5", our_weights())
    data = bytearray(our_weights())
    data[-9] ^= 1
    bad = written(tmp_path / "bad.weights.h5", bytes(data))
    page = written(tmp_path / "page.keras", "<!DOCTYPE html>")
    for other, words in (
        (tmp_path / "nothing", "There is nothing at the path"),
        (page, "web page"),
        (bad, "have changed"),
    ):
        done = keras_ckpt("diff", good, other)
        assert done.returncode == 2, done
        assert done.stdout.startswith("trouble: ")
        assert words in done.stdout
    assert json.loads(keras_ckpt("diff", "--json", good, page).stdout)["status"] == "trouble"
    assert keras_ckpt("diff", "--only", "no/such", good, good).returncode == 2


def test_structure_shapes_and_dtypes_are_told_apart(tmp_path):
    """Gone, new, of another shape; of another type with the same numbers; and a likely rename."""
    f4 = np.ones(3, "f4")
    first = {"same": f4, "wider": f4, "half": f4, "conv_a": np.ones((2, 5), "f4")}
    second = {"same": f4, "wider": np.ones(4, "f4"), "half": f4.astype(ml_dtypes.bfloat16),
              "conv_b": np.ones((2, 5), "f4")}  # fmt: skip
    report = _diff(_file(tmp_path / "a.weights.h5", **first),
                   _file(tmp_path / "b.weights.h5", **second))  # fmt: skip
    found = _by_name(report)
    verdicts = {name: change.verdict for name, change in found.items()}
    assert verdicts == {
        "same": "equal", "wider": "shape", "half": "dtype", "conv_a": "gone", "conv_b": "new",
    }  # fmt: skip
    assert found["half"].distance.changed == 0
    assert found["conv_a"].nearest == "layers/conv_b/vars/0"
    assert not report
    assert "bfloat16[3]" in str(report)
    assert "<td>gone</td>" in report._repr_html_()


@pytest.mark.parametrize(
    ("dtype", "first", "second", "l2"),
    [
        ("float64", [1e200, 0], [1e200, 3e199], 3e199),
        ("float64", [0, 0], [3, 4], 5.0),
        ("float64", [1e-200, 0], [2e-200, 0], 1e-200),
        ("int64", [2**62 + 1, 5], [2**62, 5], 1.0),
        ("int64", [-(2**63)], [2**63 - 1], float(2**64 - 1)),
        ("uint8", [1, 255], [2, 254], math.sqrt(2)),
        ("bool", [True, False], [True, True], 1.0),
        ("complex64", [3 + 4j], [0], 5.0),
        ("bfloat16", [1.5, 2], [1, 2], 0.5),
        ("float8_e4m3fn", [1.5, 2], [1, 2], 0.5),
        ("int4", [7, -8], [7, -7], 1.0),
    ],
)
def test_distance_of_every_kind_of_number(dtype, first, second, l2):
    """Neither overflow, nor rounding of large integers, nor a type that NumPy does not know."""
    from keras_ckpt_tools.formats.common.dtypes import numpy_dtype
    from keras_ckpt_tools.tools.distance import Meter

    meter = Meter()
    for a, b in zip(first, second, strict=True):  # In pieces, as a large tensor comes.
        meter.add(
            np.array([a]).astype(numpy_dtype(dtype)), np.array([b]).astype(numpy_dtype(dtype))
        )
    assert meter.distance.l2 == pytest.approx(l2)
    assert meter.distance.elements == len(first)
    assert meter.distance.changed == sum(a != b for a, b in zip(first, second, strict=True))


def test_nan_is_like_nan_and_unlike_a_number():
    """No distance says how far NaN is from 1, so such places are counted and left out."""
    from keras_ckpt_tools.tools.distance import Meter

    meter = Meter()
    inf, nan = np.inf, np.nan
    meter.add(np.array([nan, inf, nan, inf, 1.0]), np.array([nan, inf, 1.0, -inf, 3.0]))
    found = meter.distance
    assert (found.changed, found.not_finite, found.l2, found.norm) == (3, 2, 2.0, 1.0)


def test_large_tensors_are_read_in_pieces(tmp_path, monkeypatch):
    """The same answer whatever the size of the pieces, packed and plain, and damage is found."""
    from keras_ckpt_tools.tools import chunks, diff

    values = np.arange(5000, dtype="f4")
    moved = values.copy()
    moved[4999] += 3
    with h5py.File(tmp_path / "packed.weights.h5", "w") as file:
        file.create_dataset("layers/a/vars/0", data=moved, compression="gzip")
    plain, packed = _file(tmp_path / "a.weights.h5", a=values), tmp_path / "packed.weights.h5"
    whole = _diff(plain, packed).tensors
    for module in (chunks, diff):
        monkeypatch.setattr(module, "TOGETHER", 100)
    monkeypatch.setattr(diff, "_ELEMENTS", 7)
    (change,) = _diff(plain, packed).tensors
    assert change.distance.l2 == whole[0].distance.l2 == 3.0
    data = bytearray(our_weights())
    good = written(tmp_path / "good.weights.h5", bytes(data))
    monkeypatch.setattr(chunks, "TOGETHER", 1)
    monkeypatch.setattr(diff, "TOGETHER", 1)
    assert _diff(good, good)
    data[data.index(np.full(8, 0.5, "f4").tobytes())] ^= 1
    bad = written(tmp_path / "bad.weights.h5", bytes(data))
    with pytest.raises(OSError, match="the bytes of layers/dense/vars/0 have changed"):
        _diff(good, bad)


def test_configs_are_held_against_each_other_by_the_names_of_layers(keras_ckpt, tmp_path):
    """One layer more in the middle is one change; custom objects and control characters, too."""
    scale = {**node("Scale\x1b[2J", PAYLOAD, name="scale"), "registered_name": "my>Scale\x1b[2J"}
    one = written(tmp_path / "a.keras", zipped(members(sequential(dense()))))
    other = written(tmp_path / "b.keras", zipped(members(sequential(scale, dense(3)))))
    done = keras_ckpt("diff", one, other)
    assert done.returncode == 1, done
    assert "\x1b" not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines if line[0] == "config"] == [
        "config.layers[dense].config.units", "config.layers[scale]",
    ]  # fmt: skip
    assert [line[1] for line in lines if line[0] == "object"] == ["my>Scale\\x1b[2J"]
    assert keras_ckpt("diff", "--only", "*", one, other).returncode == 0


def test_run_is_compared_with_a_file_of_its_model(tmp_path):
    """A group for each object there, the model at the root here; a folder is its newest file."""
    import keras

    import keras_ckpt_tools as kct
    from keras_ckpt_tools.cli.places import one_of_folder

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    manager = kct.CheckpointManager(tmp_path / "run", model=model, max_to_keep=None)
    x = np.ones((2, 2), "f4")
    for _ in manager.epochs(2):
        manager.log(loss=model.train_on_batch(x, x[:, :1]))
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    run = str(tmp_path / "run")
    report = _diff(run, path)
    assert report, str(report)
    assert len(report.tensors) == 8
    assert report.first.progress.epochs_completed == 2
    first, which = one_of_folder(f"{run}@0")
    earlier = _diff(first, run, which=(which, "latest"))
    assert earlier.counts == {"equal": 1, "changed": 7} | earlier.counts
    assert not earlier
    assert ("progress", "epochs completed", "1", "2", "") in earlier.rows()
    assert any(
        " -> " not in row[1] and "/kernel (model/layers/dense/vars/0)" in row[1]
        for row in earlier.rows()
    )


def test_many_rows_are_cut_and_can_be_asked_for(keras_ckpt, tmp_path):
    """In the order of how far they moved, or by path."""
    tensors = {f"dense_{n:02}": np.full(1, n + 1.0, "f4") for n in range(50)}
    one = _file(tmp_path / "a.weights.h5", **tensors)
    other = _file(tmp_path / "b.weights.h5", **{n: v + 1 for n, v in tensors.items()})
    shown = keras_ckpt("diff", one, other).stdout
    assert shown.count("  changed  ") == 40
    assert "10 more tensors" in shown
    places = [line.split()[1:3] for line in shown.splitlines() if "changed  " in line]
    assert places[0] == ["dense_00/kernel", "(layers/dense_00/vars/0)"]
    whole = keras_ckpt("diff", "--all", "--sort", "path", one, other).stdout
    assert whole.count("  changed  ") == 50


def test_no_framework_is_imported(tmp_path):
    """Seen in a fresh interpreter, with every kind of file but TensorFlow's own."""
    ours = written(tmp_path / "ours.keras", our_archive())
    stock = written(tmp_path / "stock.weights.h5", weights())
    code = (
        "import sys\nfrom keras_ckpt_tools.cli import main\n"
        "try:\n"
        f"    main(['diff', {str(ours)!r}, {str(stock)!r}])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "print(sorted({'keras', 'tensorflow', 'rich'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.splitlines()[-1] == "[]", done
