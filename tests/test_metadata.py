"""The records: JSON there and back, and tolerant of older and newer versions."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_ckpt_tools.metadata import (
    FORMAT_VERSION,
    Best,
    CustomObject,
    Record,
    TensorInfo,
    TrackedObject,
    TrainingProgress,
)

RECORDS = (Best, CustomObject, Record, TensorInfo, TrackedObject, TrainingProgress)
REQUIRED: dict[type, dict[str, Any]] = {
    CustomObject: {"registered_name": "shop>Price"},
    TensorInfo: {"path": "vars/0", "shape": [2, 3], "dtype": "float32"},
    TrackedObject: {"kind": "model"},
}

names = st.text(min_size=1, max_size=12)
counts = st.integers(min_value=0, max_value=2**53)
metrics = st.floats(width=64)  # NaN and infinity too
times = st.floats(min_value=0, max_value=4e9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
bests = st.builds(
    Best,
    monitor=names,
    mode=st.sampled_from(["min", "max"]),
    value=st.none() | metrics,
    epoch=st.none() | counts,
)
histories = st.dictionaries(names, st.lists(st.tuples(counts, metrics), max_size=4), max_size=3)


@st.composite
def progresses_of_any_kind(draw: st.DrawFn) -> TrainingProgress:
    """Draw a progress whose values in the history each have their epoch."""
    history = draw(histories)
    return TrainingProgress(
        epochs_completed=draw(counts),
        batches_completed=draw(counts),
        step=draw(counts),
        logs=draw(st.dictionaries(names, metrics, max_size=3)),
        history={name: tuple(v for _, v in pairs) for name, pairs in history.items()},
        history_epochs={name: tuple(e for e, _ in pairs) for name, pairs in history.items()},
        best=draw(st.none() | bests),
        run_id=draw(st.text(max_size=12)),
        started_at=draw(times),
        saved_at=draw(times),
        elapsed_s=draw(times),
        restarts=tuple(draw(st.lists(st.tuples(counts, counts, counts, times), max_size=2))),
        saves=tuple(draw(st.lists(st.tuples(counts, counts, counts), max_size=2))),
    )


progresses = progresses_of_any_kind()
tensors = st.builds(
    TensorInfo,
    path=names,
    shape=st.lists(counts, max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "bfloat16", "int64", "bool"]),
    offset=st.none() | counts,
    nbytes=counts,
    digest=st.text("0123456789abcdef", max_size=32),
)
custom_objects = st.builds(
    CustomObject,
    registered_name=names,
    module=st.none() | names,
    qualname=st.none() | names,
    package_version=st.none() | names,
    version=st.integers(1, 99),
)
tracked = st.builds(
    TrackedObject,
    kind=st.sampled_from(["model", "optimizer", "variable"]),
    build_config=st.none() | st.dictionaries(names, json_values, max_size=3),
    built_on=st.none() | st.lists(names, max_size=3).map(tuple),
    state=json_values,
)
records = st.builds(
    Record,
    kind=st.sampled_from(("model", "weights", "checkpoint")),
    versions=st.dictionaries(names, names, max_size=3),
    progress=progresses,
    objects=st.lists(custom_objects, max_size=2).map(tuple),
    tracked=st.dictionaries(names, tracked, max_size=2),
    state=st.dictionaries(names, json_values, max_size=2),
    tensors=st.lists(tensors, max_size=2).map(tuple),
    skeleton_digest=st.text("0123456789abcdef", max_size=32),
    size=counts,
)


def same(one: Any, other: Any) -> bool:
    """Compare as `==` does, except that NaN is the same as NaN."""
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return bool(one == other) and type(one) is type(other)


@given(st.one_of(bests, progresses, tensors, custom_objects, tracked, records))
def test_record_comes_back_from_json_as_it_was(record):
    """Written as strict JSON, which has no NaN, and read back, a record is the same."""
    text = json.dumps(record.to_json(), allow_nan=False)
    assert same(type(record).from_json(json.loads(text)), record)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_come_back(value):
    """A loss of NaN or infinity is kept in logs, history and best."""
    progress = TrainingProgress(
        logs={"loss": value},
        history={"loss": (0.5, value)},
        history_epochs={"loss": (0, 1)},
        best=Best(value=value),
    )
    again = TrainingProgress.from_json(json.loads(json.dumps(progress.to_json(), allow_nan=False)))
    assert same(again, progress)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_unknown_keys_are_ignored(kind):
    """A file written by a later version can be read."""
    data = REQUIRED.get(kind, {})
    assert kind.from_json({**data, "from_the_future": {"a": 1}}) == kind.from_json(data)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_missing_keys_are_filled_in(kind):
    """A file written by an earlier version can be read: absent fields have their defaults."""
    record = kind.from_json(REQUIRED.get(kind, {}))
    for field in dataclasses.fields(kind):
        if field.name not in REQUIRED.get(kind, {}):
            default = (
                field.default_factory()
                if field.default_factory is not dataclasses.MISSING
                else field.default
            )
            assert getattr(record, field.name) == default


def test_history_without_epochs_counts_them_from_zero():
    """A history whose writer kept no epochs has one value for each, from the first on."""
    progress = TrainingProgress.from_json({"history": {"loss": [0.5, 0.25]}})
    assert progress.history_epochs == {"loss": (0, 1)}


def test_fields_that_a_writer_left_null_are_filled_in():
    """`null` for a mapping or a list reads as an empty one."""
    record = Record.from_json({"progress": None, "objects": None, "tracked": None, "tensors": None})
    assert record == Record()
    assert record.format_version == FORMAT_VERSION


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_records_are_frozen(kind):
    """A record cannot drift from what was written."""
    record = kind.from_json(REQUIRED.get(kind, {}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(kind)[0].name, "other")


@pytest.mark.parametrize(
    ("mode", "best", "value", "better"),
    [
        ("min", None, 0.5, True),
        ("min", 0.5, 0.4, True),
        ("min", 0.5, 0.5, False),
        ("min", 0.5, 0.6, False),
        ("max", None, 0.5, True),
        ("max", 0.5, 0.6, True),
        ("max", 0.5, 0.5, False),
        ("max", 0.5, 0.4, False),
        ("min", None, math.nan, False),
        ("min", 0.5, math.nan, False),
        ("min", 0.5, -math.inf, False),
        ("max", 0.5, math.inf, False),
        ("max", None, -math.inf, False),
        ("min", math.nan, 0.5, True),
        ("max", math.nan, 0.5, True),
        ("min", math.inf, 0.5, True),
        ("max", -math.inf, 0.5, True),
    ],
)
def test_best_is_improved_by_finite_better_values_only(mode, best, value, better):
    """NaN and infinity never win, an equal value does not, and a NaN on record always loses."""
    assert Best(mode=mode, value=best).improved_by(value) is better


@pytest.mark.parametrize(
    ("progress", "trained"),
    [
        (TrainingProgress(), False),
        (TrainingProgress(run_id="a", started_at=1.0), False),
        (TrainingProgress(epochs_completed=1), True),
        (TrainingProgress(batches_completed=1), True),
        (TrainingProgress(step=1), True),
    ],
)
def test_progress_tells_whether_there_was_any_training(progress, trained):
    """The zero record of a model that was never trained says so."""
    assert progress.trained is trained


def test_progress_shows_itself_as_a_table_in_a_notebook():
    """Counters, logs and the best value are in the table."""
    html = TrainingProgress(
        epochs_completed=3, logs={"loss": 0.25}, best=Best(value=0.125, epoch=2)
    )._repr_html_()
    for part in ("<table>", "epochs completed", ">3<", "loss", "0.25", "best val_loss", "0.125"):
        assert part in html
