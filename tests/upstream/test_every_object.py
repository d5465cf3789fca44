"""Every object of Keras, saved by Keras and by us, opened by us and by Keras, is equal.

`arguments.json` holds the arguments that Keras' own tests give them (`make_arguments.py` says how
they were found). Layers stand side by side in one model, each on an input of its own, with
different numbers in all of their weights; those that no model can be made of stand in a config.
Losses and metrics are what a model is compiled with; an optimizer too, each with state in all of
its variables. What Keras' tests do not hand over has the arguments of `keras_catalogue`.

What is compared is the whole config and every variable, to the bit. One set of arguments of each
class is tried, and every eighth; `KCT_UPSTREAM=1` tries all.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras_catalogue import classes, make
from upstream.in_place_of_keras import Held

import keras_ckpt_tools as kct

ALL = bool(os.environ.get("KCT_UPSTREAM"))
EVERY = 1 if ALL else 8
ARGUMENTS = json.loads((Path(__file__).parent / "arguments.json").read_text(encoding="utf-8"))
# Classes, and sets of arguments: in all of arguments.json.
COUNTS = {
    "constraints": (4, 7),
    "initializers": (12, 62),
    "layers": (119, 463),
    "losses": (22, 112),
    "metrics": (44, 214),
    "optimizers": (15, 180),
    "regularizers": (4, 20),
    "schedules": (6, 29),
}
TOGETHER = 40  # So many layers in one model: a file for each would take longer than all the rest.

pytestmark = pytest.mark.filterwarnings("ignore")


class Case(NamedTuple):
    """A class of Keras', and arguments for it; `None` where Keras' tests do not hand it over."""

    name: str
    number: int = 0
    arguments: Any = None
    inputs: Any = None

    def __str__(self) -> str:
        return f"{self.name}-{self.number}"


def cases_of(group: str) -> list[Case]:
    """Return the cases of a group, each class that this Keras has at least once."""
    found = []
    for name in classes()[group]:
        cases = [
            Case(name, number, case["arguments"], case.get("inputs"))
            for number, case in enumerate(ARGUMENTS[group].get(name, ()))
            if number % EVERY == 0
        ]
        found += cases or [Case(name)]
    return found


def made(group: str, case: Case) -> Any:
    """Return the object of a case."""
    kind = classes()[group][case.name]
    if case.arguments is None:
        return make(kind)
    arguments = keras.saving.deserialize_keras_object(case.arguments)
    return kind(*arguments.pop("args", ()), **arguments)


# Saving and opening.


def _saved_by_keras(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def _saved_by_us(model: Any, path: Path) -> Path:
    callback = kct.ModelCheckpoint(path)
    callback.set_model(model)
    callback.on_epoch_end(0)
    return path


def require_equal_everywhere(model: Any, folder: Path) -> list[Any]:
    """Save a model by Keras and by us, open both by us and by Keras; return what was opened.

    What Keras makes of its own file is what the others are held against, and so is the model: but
    for the adapters (LoRA) in it, which Keras merges when it saves.
    """
    opened: dict[str, Any] = {}
    for writer, save in (("Keras", _saved_by_keras), ("us", _saved_by_us)):
        path = save(model, folder / f"{writer}.keras")
        opened[f"saved by {writer}, opened by Keras"] = keras.saving.load_model(
            path, {"Held": Held}
        )
        opened[f"saved by {writer}, opened by us"] = kct.safe_load_model(path, {"Held": Held})
    reference = next(iter(opened.values()))
    require_equal(model, reference, "Keras alone", but_adapters=True)
    for how, other in opened.items():
        require_equal(reference, other, how)
    return list(opened.values())


def as_a_file_has_it(value: Any) -> Any:
    """Return a config as JSON, without what counts the objects of a process."""
    text = json.dumps(keras.saving.serialize_keras_object(value))
    return json.loads(text, object_hook=_without_ids)


def _without_ids(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "shared_object_id"}


def filled(variables: Any) -> None:
    """Give each variable numbers of its own."""
    for place, variable in enumerate(variables):
        count = int(np.prod(variable.shape))
        numbers = (np.arange(count) % 97 + place % 89) / 64
        variable.assign(numbers.reshape(variable.shape).astype(variable.dtype))


def require_equal(one: Any, other: Any, how: str, but_adapters: bool = False) -> None:
    """Hold two models against each other: config, weights, state of the optimizer."""
    assert as_a_file_has_it(one) == as_a_file_has_it(other), how
    pairs = list(zip(one.weights, other.weights, strict=True))
    if getattr(one, "optimizer", None) is not None:
        pairs += zip(one.optimizer.variables, other.optimizer.variables, strict=True)
    adapted = [layer.path for layer in one.layers if getattr(layer, "lora_enabled", False)]
    for first, second in pairs:
        assert first.dtype == second.dtype, f"{how}: {first.path}"
        if not (but_adapters and first.path.startswith(tuple(f"{path}/" for path in adapted))):
            np.testing.assert_array_equal(first, second, err_msg=f"{how}: {first.path}")


# Layers.


def _symbolic(inputs: Any) -> Any:
    if isinstance(inputs, list):
        return [_symbolic(one) for one in inputs]
    if "shape" not in inputs:
        return {name: _symbolic(one) for name, one in inputs.items()}
    return keras.Input(batch_shape=tuple(inputs["shape"]), dtype=inputs["dtype"])


def _branch(layer: Any, inputs: Any) -> tuple[Any, Any] | None:
    """Return inputs and outputs of a layer in a model; `None` if it cannot be in one."""
    try:
        symbolic = _symbolic(inputs)
        outputs = layer(**symbolic) if isinstance(symbolic, dict) else layer(symbolic)
        keras.Model(keras.tree.flatten(symbolic), keras.tree.flatten(outputs))
    except Exception:  # noqa: BLE001 - whatever a layer has against symbolic inputs
        return None
    return keras.tree.flatten(symbolic), keras.tree.flatten(outputs)


def models_of_layers(cases: list[Case]) -> Iterator[tuple[Any, Counter[str]]]:
    """Yield models with the layers of cases side by side, and how many stand where."""
    for start in range(0, len(cases), TOGETHER):
        ends: list[Any] = []
        alone: list[Any] = []
        for place, case in enumerate(cases[start : start + TOGETHER]):
            layer = made("layers", case)
            layer.name = f"{layer.name}_of_{start + place}"
            branch = case.inputs and _branch(layer, case.inputs)
            if branch:
                ends.append(branch)
            else:
                alone.append(made("layers", case))
        entry = keras.Input((1,), name="entry")
        ends.append(([entry], [Held(alone, name="alone")(entry)]))
        model = keras.Model(*(list(chain(*side)) for side in zip(*ends, strict=True)))
        filled(model.weights)
        yield model, Counter(in_models=len(ends) - 1, in_configs=len(alone))


def test_layers_are_equal_whoever_saves_and_opens_them(tmp_path):
    """Arguments, weights and their dtypes: of every layer, in files of both, opened by both."""
    cases = cases_of("layers")
    where: Counter[str] = Counter()
    for number, (model, counts) in enumerate(models_of_layers(cases)):
        folder = tmp_path / str(number)
        folder.mkdir()
        require_equal_everywhere(model, folder)
        where += counts
    assert where.total() == len(cases)
    assert where["in_models"] > where["in_configs"] * 4, where


# What a model is compiled with, and what its layers are made with.


def test_losses_and_metrics_are_equal_whoever_saves_and_opens_them(tmp_path):
    """One output for each loss; a metric is anywhere."""
    losses = [made("losses", case) for case in cases_of("losses")]
    metrics = [made("metrics", case) for case in cases_of("metrics")]
    inputs = keras.Input((4,))
    outputs = {
        f"out_{i}": keras.layers.Identity(name=f"out_{i}")(inputs) for i in range(len(losses))
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", dict(zip(outputs, losses, strict=True)), metrics={"out_0": metrics})
    for other in require_equal_everywhere(model, tmp_path):
        assert len(other.get_compile_config()["loss"]) == len(losses)


@pytest.mark.parametrize("case", cases_of("optimizers"), ids=str)
def test_optimizers_are_equal_whoever_saves_and_opens_them(case, tmp_path):
    """Arguments, and the state of each, in every variable."""
    require_equal_when_compiled_with(made("optimizers", case), tmp_path)


@pytest.mark.parametrize("case", cases_of("schedules"), ids=str)
def test_schedules_are_equal_whoever_saves_and_opens_them(case, tmp_path):
    """As the learning rate of an optimizer."""
    require_equal_when_compiled_with(keras.optimizers.SGD(made("schedules", case)), tmp_path)


def require_equal_when_compiled_with(optimizer: Any, folder: Path) -> None:
    """Hold what both write and open of a model with this optimizer against the model."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    filled([*model.weights, *optimizer.variables])
    require_equal_everywhere(model, folder)


@pytest.mark.parametrize("group", ["initializers", "regularizers", "constraints"])
def test_what_layers_are_made_with_is_equal_whoever_saves_and_opens_it(group, tmp_path):
    """As arguments of a layer."""
    held = [made(group, case) for case in cases_of(group)]
    model = keras.Sequential([keras.Input((1,)), Held(held)])
    for other in require_equal_everywhere(model, tmp_path):
        assert list(map(type, other.layers[0].kept.value)) == list(map(type, held))


def test_most_classes_have_arguments_of_keras_own_tests():
    """The numbers that the documentation states; a list that has lost its cases is noticed."""
    counts = {
        group: (len(cases), sum(map(len, cases.values())))
        for group, cases in ARGUMENTS.items()
        if group != "keras"
    }
    assert counts == COUNTS
