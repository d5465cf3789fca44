"""Whose is a variable that both a model and its optimizer have: never the optimizer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, RestoreError
from keras_ckpt_tools.tools.export import export
from keras_ckpt_tools.tools.export_report import Exported, Wish

FOLDER = Path(__file__).parents[2] / "files" / "keras2_checkpoints"


def network(*sizes: int) -> keras.Model:
    """Return a model with a dense layer of each size."""
    return keras.Sequential([keras.Input((4,)), *map(keras.layers.Dense, sizes)])


def compiled() -> keras.Model:
    """Return a model with its optimizer, built."""
    model = network(3, 2)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def write(path: Path, **objects: Any) -> str:
    """Write a checkpoint as TensorFlow does; return its prefix."""
    return str(tf.train.Checkpoint(**objects).write(str(path)))


def exported(prefix: str, **wish: Any) -> Exported:
    """Export a checkpoint to safetensors."""
    return export(prefix, f"{prefix}.safetensors", Wish(force=True, **wish))


@pytest.mark.parametrize("where", ["beside", "inside", "other names"])
def test_weights_are_the_models_and_stay_without_an_optimizer(where: str, tmp_path: Path) -> None:
    """Wherever the optimizer stands, which refers to them by a shorter path."""
    model = compiled()
    objects = {
        "beside": {"model": model, "optimizer": model.optimizer},
        "inside": {"model": model},
        "other names": {"net": model, "an_optimizer": model.optimizer},
    }[where]
    prefix = write(tmp_path / "x", **objects)
    whole = exported(prefix).tensors
    assert len(whole) == len(model.variables) + len(model.optimizer.variables)
    alone = exported(prefix, optimizer=False)
    top = "net/" if "net" in objects else "model/"
    assert sorted(info.shape for info in alone.tensors.values()) == [(2,), (3,), (3, 2), (4, 3)]
    assert all(name.startswith(top) and "optimizer" not in name for name in alone.tensors)
    assert [part.why for part in alone.left] == ["--no-optimizer"]
    assert {info.path for info in kct.inspect(prefix).tensors} == whole.keys()


def test_a_checkpoint_of_an_optimizer_alone_has_nothing_without_it(tmp_path: Path) -> None:
    """An export without a tensor is refused; a count of saves is none."""
    prefix = tf.train.Checkpoint(optimizer=compiled().optimizer).save(str(tmp_path / "x"))
    with pytest.raises(ArgumentError, match="No tensor is left"):
        exported(prefix, optimizer=False)
    assert list(tmp_path.glob("*.safetensors")) == []


def test_slots_of_keras_2_are_state(tmp_path: Path) -> None:
    """They hang at a variable of the model, in no object's own path."""
    target = tmp_path / "a.safetensors"
    report = export(FOLDER / "legacy_adam" / "ckpt-3", target, Wish(optimizer=False))
    assert not any(".OPTIMIZER_SLOT" in name or "optimizer" in name for name in report.tensors)
    assert sum(name.startswith("model/") for name in report.tensors) == 4


@pytest.mark.parametrize("name", ["model", "net"])
def test_state_of_an_optimizer_that_the_model_lacks_is_skipped(name: str, tmp_path: Path) -> None:
    """As in other formats; what is left of the model itself is not taken for such."""
    model = compiled()
    extra = {"opt": model.optimizer, "epoch": tf.Variable(3)} if name == "net" else {}
    prefix = write(tmp_path / "x", **{name: model}, **extra)
    for target in (network(3, 2), {name: network(3, 2)}):
        report = kct.load_weights(target, prefix)
        assert report
        assert len(report.skipped_optimizer) == len(model.optimizer.variables)
        filled = target[name] if isinstance(target, dict) else target
        for ours, theirs in zip(filled.weights, model.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        report = kct.compare(target, prefix, exclude="optimizer/*")
        assert report
        assert not report.skipped_optimizer
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(network(3), prefix)
    assert len(caught.value.report.unexpected) == 2
    other = network(3, 2)
    other.compile("rmsprop", "mse")
    with pytest.raises(RestoreError):
        kct.load_weights(other, prefix)
