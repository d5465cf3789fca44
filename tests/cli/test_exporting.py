"""`keras-ckpt export` makes one file of another, whole or not at all, and says what stayed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hostile.parts import weights, written
from hostile.records import our_archive, our_weights

from keras_ckpt_tools.errors import ArgumentError, CkptError, RestoreError

ROOT = Path(__file__).parents[2]


def _export(source, target, **options):
    from keras_ckpt_tools.tools.export import export
    from keras_ckpt_tools.tools.export_report import Wish

    return export(source, target, Wish(**options))


def _tensors(path) -> dict[str, np.ndarray]:
    from keras_ckpt_tools.loading.open_tensors import open_tensors

    with open_tensors(path) as opened:
        return opened.read_all(opened.tensors)


def _model_tensors(path) -> dict[str, bytes]:
    """Return what a file of one model holds of model and optimizer, by Keras' paths."""
    return {
        name: value.tobytes()
        for name, value in _tensors(path).items()
        if not name.startswith(("random_state", "_"))
    }


@pytest.mark.parametrize("last", [".keras", ".weights.h5", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("first", ["run", ".keras", "ours", ".weights.h5", "old.h5", "tf"])
def test_every_format_becomes_every_other_bit_for_bit(first, last, files, tmp_path):
    """Through the third, too: what comes out at the end is what went in, optimizer included."""
    needs_config = files[".keras"] if first in ("tf", "run", ".weights.h5") else None
    middle = tmp_path / "m.safetensors"
    target = tmp_path / f"größer 模型{last}"
    report = _export(files[first], middle, config_from=needs_config)
    assert {"layers", "optimizer"} <= {part.name for part in report.went}
    _export(middle, target, config_from=files[".keras"], bare=True)
    expected = _model_tensors(files[".weights.h5"])
    assert len(expected) == 14
    assert _model_tensors(target) == expected


@pytest.mark.parametrize("first", ["run", ".keras", "ours", "tf"])
def test_stock_keras_opens_what_is_written(first, files, tmp_path):
    """Both formats: the same predictions, and the optimizer goes on where it was."""
    import keras

    expected = keras.models.load_model(files[".keras"])
    path, alone = tmp_path / "a.keras", tmp_path / "a.weights.h5"
    config = None if first in (".keras", "ours") else files[".keras"]
    _export(files[first], path, config_from=config)
    _export(files[first], alone, config_from=config)
    fresh = keras.models.clone_model(expected)
    fresh.compile("adam", "mse")
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.load_weights(alone)
    for model in (keras.models.load_model(path), fresh):
        pairs = zip(
            [*model.variables, *model.optimizer.variables],
            [*expected.variables, *expected.optimizer.variables],
            strict=True,
        )
        assert all(np.array_equal(a, b) for a, b in pairs if "seed" not in a.path)
        assert int(model.optimizer.iterations) == 2


def test_tensorflow_restores_what_is_written(files, tmp_path):
    """The model's own objects where the model is known, and variables by path where it is not."""
    import keras
    import tensorflow as tf

    expected = keras.models.load_model(files[".keras"])
    report = _export(files["ours"], tmp_path / "a.ckpt")
    assert {"progress", "config", "random_state"} <= {part.name for part in report.left}
    fresh = keras.models.clone_model(expected)
    fresh.compile("adam", "mse")
    fresh.optimizer.build(fresh.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer)
    checkpoint.restore(str(tmp_path / "a.ckpt")).assert_consumed()
    assert all(map(np.array_equal, fresh.get_weights(), expected.get_weights()))
    assert int(fresh.optimizer.iterations) == 2
    _export(files[".weights.h5"], tmp_path / "bare", to="tf")
    reader = tf.train.load_checkpoint(str(tmp_path / "bare"))
    key = "layers/dense/vars/0/.ATTRIBUTES/VARIABLE_VALUE"
    assert np.array_equal(reader.get_tensor(key), expected.layers[0].kernel)
    with pytest.raises(ArgumentError, match="The target exists already"):
        _export(files[".weights.h5"], tmp_path / "bare", to="tf", force=True)


def test_progress_goes_along_where_there_is_a_place(files, tmp_path):
    """A record of ours in `.weights.h5` and `.keras`, a text in the head of a safetensors file."""
    import keras_ckpt_tools as kct

    for name in ("a.weights.h5", "a.safetensors"):
        _export(files["run"], tmp_path / name)
        assert kct.inspect(tmp_path / name).progress.epochs_completed == 2
    _export(tmp_path / "a.safetensors", tmp_path / "b.keras", config_from=str(files["ours"]))
    assert kct.training_progress(kct.safe_load_model(tmp_path / "b.keras")).step == 2
    assert kct.verify(tmp_path)


def test_epoch_and_object_of_a_run_are_chosen(keras_ckpt, files, tmp_path):
    """By `@`, and by name; what there is otherwise is in the report."""
    done = keras_ckpt("export", "--json", f"{files['run']}@0", tmp_path / "a.weights.h5")
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert found["status"] == "written"
    assert all(part["name"].startswith("_") for part in found["left"])
    assert {"name": "optimizer", "what": "10 tensors"} in found["went"]
    assert keras_ckpt("diff", f"{files['run']}@0", tmp_path / "a.weights.h5").returncode == 0
    assert keras_ckpt("diff", files["run"], tmp_path / "a.weights.h5").returncode == 1
    report = _export(files["run"], tmp_path / "o.safetensors", object="optimizer")
    assert set(report.tensors) == {f"vars/{n}" for n in range(10)}
    with pytest.raises(ArgumentError, match=r"no object 'nobody'; it has model \(model\)"):
        _export(files["run"], tmp_path / "x.safetensors", object="nobody")


def test_no_optimizer_leaves_an_uncompiled_model(files, tmp_path):
    """Weights alone, to give away."""
    import keras

    report = _export(files["ours"], tmp_path / "a.keras", optimizer=False)
    assert [(part.name, part.why) for part in report.left] == [("optimizer", "--no-optimizer")]
    assert getattr(keras.models.load_model(tmp_path / "a.keras"), "optimizer", None) is None


def test_foreign_names_are_renamed_or_refused(keras_ckpt, tmp_path):
    """Names that Keras would not find are told; a rule with a star gives them Keras' own."""
    import keras

    kernel, bias = np.arange(8, dtype="f4").reshape(4, 2), np.ones(2, "f4")
    source = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file({"net.0.weight": kernel, "net.0.bias": bias}, source)
    target = tmp_path / "a.weights.h5"
    done = keras_ckpt("export", source, target)
    assert (done.returncode, target.exists()) == (1, False)
    assert "Keras would not find" in done.stdout
    kernels, biases = "net.0.weight=layers/dense/vars/0", "net.*.bias=layers/dense/vars/1"
    done = keras_ckpt("export", source, target, "--rename", kernels, "--rename", biases)
    assert done.returncode == 0, done
    assert "net.0.weight" in done.stdout
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.load_weights(target)
    assert np.array_equal(model.layers[0].kernel, kernel)
    for rule, words in (("x=y", "has a name like 'x'"), ("net.*=a/vars/0", "Two tensors")):
        with pytest.raises(ArgumentError, match=words):
            _export(source, target, rename=(tuple(rule.split("=")),), force=True)
    assert keras_ckpt("export", source, target, "--rename", "x").returncode == 2


def test_state_of_the_other_file_is_not_mixed_in(files, tmp_path):
    """`--config-from` says what the model is, and gives neither weights nor optimizer."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(files[".keras"], compile=False)
    model.set_weights([np.zeros_like(value) for value in model.get_weights()])
    tf.train.Checkpoint(model=model).write(str(tmp_path / "alone"))
    report = _export(tmp_path / "alone", tmp_path / "a.weights.h5", config_from=files["ours"])
    assert {part.name for part in report.went} == {"layers"}
    assert not any(value.any() for value in _tensors(tmp_path / "a.weights.h5").values())


def test_weights_of_another_model_are_refused(files, tmp_path):
    """Before anything is written, with the report of what does not fit."""
    source = written(tmp_path / "other.weights.h5", weights())
    with pytest.raises(RestoreError, match="do not fit the model") as caught:
        _export(source, tmp_path / "a.keras", config_from=str(files[".keras"]))
    assert caught.value.report.missing
    assert not (tmp_path / "a.keras").exists()


def test_what_a_format_cannot_hold_is_told(tmp_path):
    """Types that safetensors have no name for, all in one error; without them it works."""
    more = {"layers/text/vars/0": np.array([b"ab", b"c"], "S2")}
    source = written(
        tmp_path / "a.weights.h5", weights({"layers/dense/vars/0": np.ones(2), **more})
    )
    with pytest.raises(ArgumentError, match=r"no type for .*: layers/text/vars/0"):
        _export(source, tmp_path / "a.safetensors")
    report = _export(source, tmp_path / "a.safetensors", exclude=("layers/text",))
    assert list(report.tensors) == ["layers/dense/vars/0"]


def test_existing_file_is_replaced_only_by_force(keras_ckpt, tmp_path):
    """Refused with exit status 1; a dry run writes nothing either; a folder never goes."""
    source = written(tmp_path / "a.weights.h5", our_weights())
    target = written(tmp_path / "b.safetensors", "mine")
    assert keras_ckpt("export", source, target).returncode == 1
    assert keras_ckpt("export", "--force", "--dry-run", source, target).returncode == 0
    assert target.read_text() == "mine"
    assert keras_ckpt("export", "--force", source, target).returncode == 0
    assert list(_tensors(target)) == list(safetensors.numpy.load_file(target))
    (tmp_path / "folder.keras").mkdir()
    for name, words in (("folder.keras", "exists already"), ("x.bin", "format is not clear")):
        with pytest.raises(ArgumentError, match=words):
            _export(source, tmp_path / name, force=True)
    assert keras_ckpt("export", tmp_path / "nothing", tmp_path / "c.keras").returncode == 2


def test_damaged_source_leaves_the_target_as_it_was(tmp_path):
    """A changed byte is found on the way, and nothing of it is written."""
    data = bytearray(our_weights())
    data[data.index(np.full(8, 0.5, "f4").tobytes())] ^= 1
    source = written(tmp_path / "bad.weights.h5", bytes(data))
    for name in ("a.safetensors", "b.weights.h5", "c.ckpt"):
        target = written(tmp_path / name, "old")
        with pytest.raises(CkptError):
            _export(source, target, force=True)
        assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["a.safetensors", "a.weights.h5", "a.keras"])
def test_full_disk_leaves_the_target_as_it_was(name, keras_ckpt, tmp_path):
    """A file that may not grow, as a disk that is full; nothing is left beside it."""
    source = written(tmp_path / "source.keras", our_archive())
    target = written(tmp_path / name, "old")

    def may_not_grow() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))

    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    done = keras_ckpt("export", "--force", source, target, preexec_fn=may_not_grow, env=environment)
    assert done.returncode == 1, done
    assert "save failed" in done.stdout
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_kill_before_the_commit_leaves_the_target_as_it_was(keras_ckpt, tmp_path):
    """A SIGKILL at the very rename; the next export removes what was staged."""
    source = written(tmp_path / "source.keras", our_archive())
    target = written(tmp_path / "a.safetensors", "old")
    code = (
        "import os, signal, sys\n"
        "from keras_ckpt_tools.cli import main\n"
        "sys.addaudithook(lambda event, _: event == 'os.rename' and os.kill(os.getpid(), 9))\n"
        f"main(['export', '--force', {str(source)!r}, {str(target)!r}])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 3
    assert keras_ckpt("export", "--force", source, target).returncode == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_no_framework_is_imported(tmp_path):
    """From a `.keras` to weights, to safetensors and back: bytes and JSON are enough."""
    source = written(tmp_path / "a.keras", our_archive())
    names = ("a.keras", "b.safetensors", "c.keras", "d.weights.h5")
    paths = [str(tmp_path / name) for name in names]
    code = (
        "import sys\nfrom keras_ckpt_tools.tools.export import export\n"
        f"for one, other in {list(pairwise(paths))!r}:\n    export(one, other)\n"
        "print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.splitlines()[-1] == "[]", done
    assert _model_tensors(tmp_path / "d.weights.h5") == _model_tensors(source)


def test_what_cannot_be_built_is_told_in_lines_with_the_way_around_it(keras_ckpt, tmp_path):
    """Each object on lines of its own, and `--bare`, which does without all of them."""
    program = (
        "import sys, keras, numpy\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class Mine(keras.layers.Dense):\n    pass\n"
        "keras.Sequential([keras.Input((2,)), Mine(1)]).save(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.keras"], check=True)
    done = keras_ckpt("export", tmp_path / "a.keras", tmp_path / "b.ckpt")
    assert done.returncode != 0
    assert done.stdout.startswith("refused: The file needs 1 object that cannot be used: 1 missing")
    assert "\\n" not in done.stdout
    assert done.stdout.splitlines()[1].startswith("  missing    mine>Mine")
    assert "`--bare` writes the tensors by path" in done.stdout
    assert keras_ckpt("export", tmp_path / "a.keras", tmp_path / "b.ckpt", "--bare").returncode == 0
