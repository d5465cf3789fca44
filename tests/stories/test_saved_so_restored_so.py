"""Saved so, restored so: what the report says when a model has changed since it was saved.

One table. Each row has a model that was saved, the form that it was saved in, the model that it is
restored into, and the report that is expected. What the report says is then held against what the
restore does: every tensor that matched has the value of the one in the checkpoint that the report
names, and everything else is as it was.

Another format is a function in `FORMATS`, and rows that name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import NotBuiltError, RestoreError
from keras_ckpt_tools.live import state
from keras_ckpt_tools.training.writing import save_model

Build = Callable[[], keras.Model]


def dense(spec: str, **arguments: Any) -> Any:
    """Return a `Dense` layer of so many units: `"4"`, or `"4 head"` with a name."""
    units, _, name = spec.partition(" ")
    return layers.Dense(int(units), name=name or None, **arguments)


def compiled(model: keras.Model, optimizer: Any) -> keras.Model:
    """Return the model with an optimizer, which has made a step where there are variables."""
    if optimizer is not None:
        optimizer = optimizer() if callable(optimizer) else keras.optimizers.get(optimizer)
        model.compile(optimizer, loss="mse")
        if model.built:
            step(model)
    return model


def with_momentum() -> Any:
    """An optimizer with as many variables as RMSprop, of the same shapes."""
    return keras.optimizers.SGD(momentum=0.9)


def step(model: keras.Model) -> None:
    """Let the optimizer make a step with random gradients, so that it has state of its own."""
    rng = np.random.default_rng()
    gradients = [rng.normal(size=v.shape).astype(v.dtype) for v in model.trainable_variables]
    model.optimizer.apply(
        [keras.ops.convert_to_tensor(g) for g in gradients], model.trainable_variables
    )


def sequential(*specs: str, optimizer: Any = None, dtype: Any = None, frozen: int = 0) -> Build:
    """A `Sequential` of `Dense` layers for four numbers."""

    def build() -> keras.Model:
        stack = [dense(spec, dtype=dtype) for spec in specs]
        for layer in stack[:frozen]:
            layer.trainable = False
        return compiled(keras.Sequential([keras.Input((4,)), *stack]), optimizer)

    return build


def functional(*specs: str, optimizer: Any = None) -> Build:
    """The same as a functional model."""

    def build() -> keras.Model:
        x = inputs = keras.Input((4,))
        for spec in specs:
            x = dense(spec)(x)
        return compiled(keras.Model(inputs, x), optimizer)

    return build


def nested(*inner: str, head: str = "4 head", first: str = "") -> Build:
    """A `Sequential` with one inside."""

    def build() -> keras.Model:
        encoder = keras.Sequential(
            [keras.Input((4,)), *(dense(spec) for spec in inner)], name="encoder"
        )
        before = [keras.Sequential([keras.Input((4,)), dense("4")], name=first)] if first else []
        return keras.Sequential([keras.Input((4,)), *before, encoder, dense(head)])

    return build


def shared() -> keras.Model:
    """A functional model that uses one layer twice."""
    inputs = keras.Input((4,))
    twice, once = dense("4 twice"), dense("4 once")
    return keras.Model(inputs, once(twice(twice(inputs))))


def not_shared() -> keras.Model:
    """The same with a layer of its own for each use."""
    inputs = keras.Input((4,))
    x = dense("4 first")(inputs)
    return keras.Model(inputs, dense("4 once")(dense("4 twice")(x)))


class Attributes(keras.Model):
    """A subclassed model: its layers are attributes, by names of the user's."""

    def __init__(self, *names: str, **named: str):
        super().__init__()
        self.order = [*names, *named]
        for name in names:
            setattr(self, name, layers.Dense(4))
        for name, given in named.items():
            setattr(self, name, layers.Dense(4, name=given))

    def call(self, x: Any) -> Any:
        for name in self.order:
            x = getattr(self, name)(x)
        return x


class Listed(keras.Model):
    """A subclassed model with a list of layers."""

    def __init__(self, *specs: str):
        super().__init__()
        self.blocks = [dense(spec) for spec in specs]

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


class Renamed(layers.Dense):
    """A layer of another class, with the same variables."""


def called(kind: Any, *arguments: str, optimizer: Any = None, **named: str) -> Build:
    """A subclassed model that was called once."""

    def build() -> keras.Model:
        model = kind(*arguments, **named)
        model(np.zeros((1, 4), "float32"))
        return compiled(model, optimizer)

    return build


def unbuilt(*specs: str) -> Build:
    """A `Sequential` without a shape."""
    return lambda: keras.Sequential([dense(spec) for spec in specs])


def of_class(kind: Any, name: str = "b") -> Build:
    """A `Sequential` with a layer of a class between two others."""
    return lambda: keras.Sequential(
        [keras.Input((4,)), dense("4 a"), kind(4, name=name), dense("4 c")]
    )


def with_lora() -> keras.Model:
    """Two layers, of which one has adapters."""
    model = sequential("4 a", "4 b")()
    model.layers[0].enable_lora(2)
    return model


def normalized(*names: str) -> Build:
    """Layers with variables that are not trained."""
    return lambda: keras.Sequential(
        [keras.Input((4,)), *(layers.BatchNormalization(name=name) for name in names)]
    )


def two_orders(*names: str, optimizer: Any) -> Build:
    """Two attributes, of which one or the other is trained on first."""

    def build() -> keras.Model:
        model = called(Attributes, "one", "two")()
        model.compile(keras.optimizers.get(optimizer), loss="mse")
        variables = [v for name in names for v in getattr(model, name).trainable_variables]
        model.optimizer.build(variables)
        model.optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
        return model

    return build


def ours_weights(model: keras.Model, folder: Path) -> Path:
    """A `.weights.h5` of ours."""
    save_model(str(folder / "a.weights.h5"), model, kct.TrainingProgress(), ".weights.h5")
    return folder / "a.weights.h5"


def stock_weights(model: keras.Model, folder: Path) -> Path:
    """A `.weights.h5` of stock Keras."""
    model.save_weights(folder / "a.weights.h5")
    return folder / "a.weights.h5"


def ours_keras(model: keras.Model, folder: Path) -> Path:
    """A `.keras` of ours."""
    save_model(str(folder / "a.keras"), model, kct.TrainingProgress(), ".keras")
    return folder / "a.keras"


def stock_keras(model: keras.Model, folder: Path) -> Path:
    """A `.keras` of stock Keras."""
    model.save(folder / "a.keras")
    return folder / "a.keras"


def manager(model: keras.Model, folder: Path) -> Path:
    """A checkpoint of a manager."""
    kct.CheckpointManager(folder, model=model).save()
    return folder


def backup(model: keras.Model, folder: Path) -> Path:
    """What `BackupAndRestore` keeps."""
    callback = kct.BackupAndRestore(folder, delete_checkpoint=False)
    model.fit(
        np.ones((2, 4), "float32"), np.ones((2, 4)), verbose=0, batch_size=2, callbacks=[callback]
    )
    return folder


FORMATS = {
    "ours": ours_weights,
    "stock": stock_weights,
    "ours.keras": ours_keras,
    "stock.keras": stock_keras,
    "manager": manager,
    "backup": backup,
}


@dataclass(frozen=True)
class Row:
    """One pair, and the report that is expected.

    Layers stand for all their tensors. `renamed` and `misnamed` are `(in the checkpoint, in the
    model)`; `optimizer` is `"loaded"`, `"skipped"` or a part of the sentence that says why it is
    left; `fits` follows from the rest.
    """

    what: str
    format: str
    saved: Build
    restored: Build
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shape: tuple[str, ...] = ()
    dtype: tuple[str, ...] = ()
    cast: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    misnamed: tuple[tuple[str, str], ...] = ()
    optimizer: str = "none"
    suggests: Mapping[str, str] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether a strict load goes through."""
        wrong = (self.missing, self.unexpected, self.shape, self.dtype, self.misnamed)
        return not any(wrong) and self.optimizer in ("none", "loaded", "skipped")


D = "layers/dense"
ABC = ("4 a", "4 b", "4 c")
SWAPPED = ((D, f"{D}_1"), (f"{D}_1", D))
SHIFTED = ((f"{D}_1", D), (f"{D}_2", f"{D}_1"))

ROWS = [
    # Nothing has changed.
    Row("the same", "ours", sequential(*ABC), sequential(*ABC)),
    Row("the same", "stock", functional(*ABC), functional(*ABC)),
    Row("another builder", "ours.keras", sequential(*ABC), functional(*ABC)),
    Row("names that Keras made up", "manager", sequential("4", "4"), sequential("4", "4")),
    Row("a name given later", "stock", sequential("4", "4"), sequential("4", "4 head")),
    Row("a shared layer", "stock", shared, shared),
    Row("attributes", "stock.keras", called(Attributes, "a", "b"), called(Attributes, "a", "b")),
    Row("not built", "manager", sequential("4", "3"), unbuilt("4", "3")),
    Row("nested", "ours", nested("4 a", "4 b"), nested("4 a", "4 b")),
    # Layers.
    Row(
        "one more at the end", "ours", sequential("4 a"), sequential(*ABC[:2]), missing=(f"{D}_1",)
    ),
    Row(
        "one more in front",
        "stock",
        sequential("4 b", "4 c"),
        sequential(*ABC),
        missing=(D,),
        renamed=((D, f"{D}_1"), (f"{D}_1", f"{D}_2")),
    ),
    Row(
        "one more in front, without names",
        "stock",
        sequential("4", "4"),
        sequential("4", "4", "4"),
        missing=(f"{D}_2",),
    ),
    Row(
        "one less",
        "ours.keras",
        functional(*ABC),
        functional("4 b", "4 c"),
        unexpected=(D,),
        renamed=SHIFTED,
    ),
    Row(
        "changed places", "manager", sequential(*ABC[:2]), sequential("4 b", "4 a"), renamed=SWAPPED
    ),
    Row(
        "one of them has no name",
        "ours",
        sequential("4", "4 head"),
        sequential("4 head", "4"),
        renamed=SWAPPED,
    ),
    Row(
        "called otherwise",
        "stock",
        sequential("4 a", "4 old"),
        sequential("4 a", "4 new"),
        missing=(f"{D}_1",),
        unexpected=(f"{D}_1",),
        misnamed=(("old", "new"),),
        suggests={f"{D}_1/*": f"{D}_1/*"},
    ),
    Row(
        "called otherwise",
        "manager",
        sequential("4 old"),
        sequential("4 new"),
        missing=(D,),
        unexpected=(D,),
        misnamed=(("old", "new"),),
        suggests={f"model/{D}/*": f"{D}/*"},
    ),
    Row(
        "called otherwise, and renamed",
        "stock",
        sequential("4 a", "4 old"),
        sequential("4 a", "4 new"),
        how={"rename": {f"{D}_1/*": f"{D}_1/*"}},
    ),
    Row(
        "called otherwise, and renamed crosswise",
        "ours",
        sequential("4 a", "4 b"),
        sequential("4 x", "4 y"),
        renamed=SWAPPED,
        how={"rename": {f"{D}/*": f"{D}_1/*", f"{D}_1/*": f"{D}/*"}},
    ),
    Row("wider", "ours", sequential("4 a", "3 b"), sequential("4 a", "5 b"), shape=(f"{D}_1",)),
    Row(
        "wider, and moved",
        "stock",
        sequential("3 a", "4 b"),
        sequential("4 n", "5 a", "4 b"),
        missing=(D,),
        shape=(f"{D}_1", f"{D}_2"),
        renamed=((D, f"{D}_1"), (f"{D}_1", f"{D}_2")),
    ),
    Row(
        "another dtype",
        "ours",
        sequential("4 a"),
        sequential("4 a", dtype="float16"),
        cast=(D,),
    ),
    Row(
        "another class",
        "stock",
        of_class(layers.Dense),
        of_class(Renamed),
        renamed=((f"{D}_1", "layers/renamed"), (f"{D}_2", f"{D}_1")),
    ),
    Row(
        "another class and another name",
        "ours",
        of_class(layers.Dense),
        of_class(Renamed, "x"),
        missing=("layers/renamed",),
        unexpected=(f"{D}_1",),
        renamed=((f"{D}_2", f"{D}_1"),),
    ),
    Row(
        "in a nested model",
        "stock",
        nested("4 a", "4 b"),
        nested("4 b", "4 a"),
        renamed=(
            (f"layers/sequential/{D}", f"layers/sequential/{D}_1"),
            (f"layers/sequential/{D}_1", f"layers/sequential/{D}"),
        ),
    ),
    Row(
        "a nested model moved",
        "ours",
        nested("4 a"),
        nested("4 a", first="stem"),
        missing=(f"layers/sequential/{D}",),
        renamed=((f"layers/sequential/{D}", f"layers/sequential_1/{D}"),),
    ),
    Row(
        "shared no more",
        "ours",
        shared,
        not_shared,
        missing=(D,),
        renamed=((D, f"{D}_1"), (f"{D}_1", f"{D}_2")),
    ),
    Row(
        "statistics moved",
        "stock",
        normalized("n", "m"),
        normalized("m", "n"),
        renamed=(
            ("layers/batch_normalization", "layers/batch_normalization_1"),
            ("layers/batch_normalization_1", "layers/batch_normalization"),
        ),
    ),
    Row("adapters", "ours", sequential("4 a", "4 b"), with_lora),
    Row(
        "an attribute renamed",
        "stock",
        called(Attributes, "encoder"),
        called(Attributes, "encoder_net"),
        missing=("encoder_net",),
        unexpected=("encoder",),
        suggests={"encoder/*": "encoder_net/*"},
    ),
    Row(
        "an attribute renamed, and told",
        "stock",
        called(Attributes, "encoder"),
        called(Attributes, "encoder_net"),
        renamed=(("encoder", "encoder_net"),),
        how={"rename": lambda path: path.replace("encoder", "encoder_net")},
    ),
    Row(
        "attributes are names",
        "stock",
        called(Attributes, body="a", first="b"),
        called(Attributes, body="b", first="a"),
    ),
    Row(
        "a list that grew",
        "ours.keras",
        called(Listed, "4 b"),
        called(Listed, "4 a", "4 b"),
        missing=("blocks/dense",),
        renamed=(("blocks/dense", "blocks/dense_1"),),
    ),
    Row(
        "a part of it",
        "ours",
        sequential(*ABC),
        sequential("4 a", "9 b"),
        how={"include": D},
    ),
    Row(
        "all but a part",
        "stock",
        sequential("4 a", "3 b"),
        sequential("4 a", "5 b"),
        how={"exclude": [f"{D}_1/*"]},
    ),
    # Optimizers.
    Row("compiled", "ours", *[sequential(*ABC, optimizer="adam")] * 2, optimizer="loaded"),
    Row("compiled", "stock.keras", *[functional("4", optimizer="rmsprop")] * 2, optimizer="loaded"),
    Row("compiled", "manager", *[sequential("4", optimizer="adamw")] * 2, optimizer="loaded"),
    Row("compiled", "backup", *[sequential("4", optimizer="sgd")] * 2, optimizer="loaded"),
    Row(
        "never compiled",
        "stock",
        sequential("4", optimizer="adam"),
        sequential("4"),
        optimizer="skipped",
    ),
    Row(
        "compiled later",
        "ours",
        sequential("4"),
        sequential("4", optimizer="adam"),
        optimizer="skipped",
    ),
    *(
        Row(
            f"Adam's into {name}",
            file,
            sequential("4", optimizer="adam"),
            sequential("4", optimizer=name),
            optimizer=f"it is of Adam, and the model has {name}",
        )
        for name, file in (
            ("AdamW", "ours"),
            ("AdamW", "stock"),
            ("Lion", "stock"),
            ("RMSprop", "stock.keras"),
            ("Nadam", "ours.keras"),
            ("Adamax", "manager"),
        )
    ),
    Row(
        "RMSprop's into SGD with momentum, of the same shapes",
        "stock",
        sequential("4", optimizer="rmsprop"),
        sequential("4", optimizer=with_momentum),
        optimizer="it is of RMSprop, and the model has SGD",
    ),
    Row(
        "another optimizer, and told to leave it",
        "ours",
        sequential("4", optimizer="adam"),
        sequential("4", optimizer="lion"),
        how={"exclude": "optimizer/*"},
    ),
    Row(
        "variables in another order",
        "ours",
        two_orders("one", "two", optimizer="adam"),
        two_orders("two", "one", optimizer="adam"),
        optimizer="the variables it was built with are in another order",
    ),
    Row(
        "frozen since",
        "ours",
        sequential("4", "4", optimizer="adam"),
        sequential("4", "4", optimizer="adam", frozen=1),
        optimizer="it was built with 4 variables, and the model's with 2",
    ),
    Row(
        "layers changed places",
        "manager",
        sequential("4 a", "4 b", optimizer="adam"),
        sequential("4 b", "4 a", optimizer="adam"),
        renamed=SWAPPED,
        optimizer="the variables it was built with are in another order",
    ),
    Row(
        "layers changed places, and the file does not say whose state it is",
        "stock",
        sequential("4 a", "4 b", optimizer="adam"),
        sequential("4 b", "4 a", optimizer="adam"),
        renamed=SWAPPED,
        optimizer="does not contain the variables",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.what} ({row.format})")
def test_saved_so_restored_so(row: Row, tmp_path: Path) -> None:
    """The report is the expected one, and the restore does what the report says."""
    model = scattered(row.saved())
    path = FORMATS[row.format](model, tmp_path)
    held = values(model)
    target = row.restored()
    if target.built:
        scattered(target)
        check(kct.compare(target, path, **row.how), row)
    else:
        with pytest.raises(NotBuiltError):
            kct.compare(target, path, **row.how)
    before = values(target)
    if row.fits:
        report = kct.load_weights(target, path, **row.how)
    else:
        with pytest.raises(RestoreError) as caught:
            kct.load_weights(target, path, **row.how)
        check(caught.value.report, row)
        assert same(values(target), before)
        report = kct.load_weights(target, path, strict=False, **row.how)
    check(report, row)
    if report.suggestions:
        again = kct.compare(target, path, rename=report.suggestions)
        assert len(again.missing) < len(report.missing)
    theirs = {ours: there.removeprefix("model/") for there, ours in report.renamed}
    after = values(target)
    for name in after:
        if name in report.matched:
            there = held[theirs.get(name, name)]
            assert np.array_equal(after[name], there.astype(after[name].dtype)), name
        elif name in before:
            assert np.array_equal(after[name], before[name]), name


def check(report: kct.RestoreReport, row: Row) -> None:
    """Hold a report against the row that expects it."""
    assert bool(report) == row.fits, report
    assert groups(report.missing) == set(row.missing)
    assert groups(report.unexpected) == set(row.unexpected)
    assert groups(m.path for m in report.shape_mismatch) <= {*row.shape, "optimizer"}
    assert groups(m.path for m in report.shape_mismatch) >= set(row.shape)
    assert groups(m.path for m in report.dtype_mismatch) == set(row.dtype)
    assert groups(m.path for m in report.cast) == set(row.cast)
    assert {(layer(a), layer(b)) for a, b in report.renamed} == set(row.renamed)
    assert {(m.name_in_file, m.name_in_model) for m in report.misnamed} == set(row.misnamed)
    assert row.suggests.items() <= report.suggestions.items()
    loaded = any(path.startswith("optimizer/") for path in report.matched)
    assert loaded == (row.optimizer == "loaded")
    assert bool(report.skipped_optimizer) == (row.optimizer not in ("none", "loaded"))
    if row.optimizer not in ("none", "loaded", "skipped"):
        assert row.optimizer in " ".join(report.optimizer_differs)


def layer(path: str) -> str:
    """Return the layer that a tensor is of."""
    return path.partition("/vars/")[0].removeprefix("model/")


def groups(paths: Any) -> set[str]:
    """Return the layers that tensors are of."""
    return {layer(path) for path in paths}


def scattered(model: keras.Model) -> keras.Model:
    """Give every variable of a model values of its own, so that none is mistaken for another."""
    rng = np.random.default_rng()
    for variable in state.variables_of(model):
        if "float" in variable.dtype:
            variable.assign(rng.uniform(0.1, 1.0, variable.shape).astype(variable.dtype))
    return model


def values(model: keras.Model) -> dict[str, Any]:
    """Return the value of each tensor that Keras would save, by path."""
    captured = state.capture(model)
    return {path: state.to_numpy(value) for path, value in captured.values.items()}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two have the same tensors, of the same values."""
    return all(np.array_equal(other[name], value) for name, value in one.items())
