"""What fits and what does not."""

from __future__ import annotations

import json

from keras_ckpt_tools.matching.compare import compare_tensors
from keras_ckpt_tools.matching.report import Mismatch, Misnamed, RestoreReport
from keras_ckpt_tools.matching.suggestions import nearest
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


def test_a_renamed_layer_is_shown_on_both_sides() -> None:
    """By its path there and its path here."""
    report = RestoreReport("x", ("b",), renamed=(("a", "b"),), names={"c": "head"}, missing=("c",))
    assert report.rows() == [
        ("renamed", "a", "b", ""),
        ("missing", "", "c", "of 'head', in the model, not in the checkpoint"),
    ]
    assert report.summary == "1 matched, 1 renamed, 1 missing in the checkpoint"


def test_a_long_report_is_shortened_and_the_dictionary_is_not() -> None:
    """A model of thousands of tensors is no reason for an error of thousands of lines."""
    report = RestoreReport("x", missing=tuple(f"p{n}" for n in range(1000)))
    assert len(str(report).splitlines()) == 33
    assert "... and 970 more" in str(report)
    assert "... and 970 more" in report._repr_html_()
    assert len(report.to_dict()["missing"]) == len(report.rows()) == 1000


def test_the_dictionary_is_json() -> None:
    """All of it, with what follows from it."""
    report = RestoreReport(
        "x",
        shape_mismatch=(Mismatch("a", "(1,)", "(2,)", "b"),),
        misnamed=(Misnamed("f", "old", "m", "new"),),
        nearest={"m/vars/0": "f/vars/0"},
        renamed=(("b", "a"),),
    )
    told = json.loads(json.dumps(report.to_dict()))
    assert told["fits"] is False
    assert told["shape_mismatch"] == [
        {"path": "a", "in_file": "(1,)", "in_model": "(2,)", "path_in_file": "b"}
    ]
    assert told["misnamed"][0]["name_in_file"] == "old"
    assert told["suggestions"] == {"f/*": "m/*"}
    assert told["renamed"] == [["b", "a"]]


def test_suggestions_of_a_large_model_do_not_take_long() -> None:
    """Another model altogether has as many missing tensors as unexpected ones."""
    shapes = {f"layers/dense_{n}/vars/0": (n % 7,) for n in range(3000)}
    other = {path.replace("dense", "conv"): shape for path, shape in shapes.items()}
    assert nearest(shapes, other) == {}


def test_optimizer_state_that_does_not_fit_as_a_whole_is_left_as_a_whole() -> None:
    """Its arrays have numbers for names: the half that fits by its shapes is not known to."""
    report = compare_tensors(
        "x",
        _tensors(a=(1,), optimizer__vars__0=(), optimizer__vars__1=(3,)),
        _tensors(a=(1,), optimizer__vars__0=(), optimizer__vars__1=(4,)),
    )
    assert report.matched == ("a",)
    assert report.skipped_optimizer == ("optimizer/vars/0",)
    assert "1 of its tensors do not fit" in str(report)
