"""What fits and what does not."""

from __future__ import annotations

from keras_ckpt_tools.formats.comparison import compare_tensors
from keras_ckpt_tools.formats.report import RestoreReport
from keras_ckpt_tools.metadata import TensorInfo


def _tensors(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {
        name.replace("__", "/"): TensorInfo(name.replace("__", "/"), shape, "float32")
        for name, shape in shapes.items()
    }


def test_everything_matched_is_true() -> None:
    """`bool(report)` is "everything matched"."""
    both = _tensors(a=(2,), b=(3,))
    assert compare_tensors("x", both, both)


def test_each_difference_is_listed_with_both_sides() -> None:
    """Missing, unexpected, shape and dtype, by path."""
    model = {**_tensors(a=(2,), b=(3,), c=(4,)), "d": TensorInfo("d", (1,), "float32")}
    file = {**_tensors(a=(2,), b=(9,), e=(5,)), "d": TensorInfo("d", (1,), "float16")}
    report = compare_tensors("x", model, file)
    assert not report
    assert report.matched == ("a",)
    assert report.missing == ("c",)
    assert report.unexpected == ("e",)
    assert "in the checkpoint (9,), in the model (3,)" in str(report)
    assert "in the checkpoint float16, in the model float32" in str(report)


def test_a_renamed_layer_is_suggested() -> None:
    """A missing path of the same shape as an unexpected one of a similar name."""
    report = compare_tensors(
        "x", _tensors(layers__conv_b__vars__0=(3, 3)), _tensors(layers__conv_a__vars__0=(3, 3))
    )
    assert report.nearest == {"layers/conv_b/vars/0": "layers/conv_a/vars/0"}
    assert report.suggestions == {"layers/conv_a/*": "layers/conv_b/*"}
    assert "renamed from layers/conv_a/vars/0?" in str(report)


def test_optimizer_state_on_one_side_is_set_apart() -> None:
    """A model that was not compiled loads the weights of one that was."""
    report = compare_tensors("x", _tensors(a=(2,)), _tensors(a=(2,), optimizer__vars__0=(1,)))
    assert report
    assert report.skipped_optimizer == ("optimizer/vars/0",)


def test_another_optimizers_state_is_a_difference() -> None:
    """Where both sides have one, it has to fit."""
    report = compare_tensors(
        "x",
        _tensors(optimizer__vars__0=(), optimizer__vars__1=(3,)),
        _tensors(optimizer__vars__0=()),
    )
    assert report.missing == ("optimizer/vars/1",)


def test_paths_are_escaped_in_a_notebook() -> None:
    """A file can name its tensors as it likes."""
    report = RestoreReport("<b>", missing=("<script>alert(1)</script>",))
    shown = report._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
