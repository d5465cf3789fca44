"""The random generators of the process go on after a restart, all of them or none."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import drawing
import keras
import numpy as np
import pytest
import state_files
import tensorflow as tf
from processes import run
from tensorflow.python.ops import stateful_random_ops

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.training.state.random_generators import RandomStates, state_access


@pytest.fixture(autouse=True)
def global_generator_put_back() -> Any:
    """Give TensorFlow its global generator back, or none."""
    before = internals.tensorflow_global_generator()
    yield
    stateful_random_ops.global_generator = before


@pytest.mark.parametrize("seed", [None, 99], ids=["fresh", "seeded and drawn from"])
def test_a_restarted_process_draws_what_the_uninterrupted_one_would_have(
    seed: int | None, tmp_path: Path
) -> None:
    """From every generator, in two real processes."""
    path = str(tmp_path / "state")
    expected = run(drawing.begin, 7, path)
    assert run(drawing.resume, path, seed) == expected


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """Another seed gives other numbers from each of them, so that equality means something."""
    first = run(drawing.begin, 7, str(tmp_path / "a"))
    second = run(drawing.begin, 8, str(tmp_path / "b"))
    assert all(first[name] != second[name] for name in first)


def test_what_kernels_count_is_not_restored_and_what_variables_hold_is(tmp_path: Path) -> None:
    """A random op inside a `tf.function` begins again; the docstring says so."""
    path = str(tmp_path / "state")
    whole = run(drawing.draw_in_functions, path, False)
    resumed = run(drawing.draw_in_functions, path, True)
    assert resumed["first"]["variable"] == whole["second"]["variable"]
    for name in ("kernel", "eager with a seed"):
        assert whole["second"][name] != whole["first"][name]
        assert resumed["first"][name] == whole["first"][name], "it goes on: say so, and rejoice"


def test_kernels_begin_again_after_a_restore_in_the_same_process() -> None:
    """As the docstring says."""
    tf.random.set_seed(3)
    function = tf.function(lambda: tf.random.uniform([]))
    drawn = [float(function()), float(function())]
    RandomStates().set_state(RandomStates().get_state())
    assert float(function()) == drawn[0] != drawn[1]


def test_looking_makes_no_generator() -> None:
    """TensorFlow's and Keras' global ones come into being when they are asked for."""
    stateful_random_ops.global_generator = None
    internals.global_state.set_global_attribute(internals.GLOBAL_SEED_GENERATOR, None)
    before = random.getstate()
    state = RandomStates().get_state()
    assert state["tensorflow"]["generator"] is None
    assert state["keras"]["generator"] is None
    RandomStates().set_state(state)
    assert internals.tensorflow_global_generator() is None
    assert internals.global_state.get_global_attribute(internals.GLOBAL_SEED_GENERATOR) is None
    assert random.getstate() == before


def test_a_generator_of_keras_that_did_not_exist_yet_is_made_of_the_same_seed() -> None:
    """It draws its seed from Python's generator when it is first needed."""
    internals.global_state.set_global_attribute(internals.GLOBAL_SEED_GENERATOR, None)
    state = state_files.again(RandomStates().get_state())
    expected = np.asarray(keras.random.normal((3,)))
    RandomStates().set_state(state)
    assert np.array_equal(np.asarray(keras.random.normal((3,))), expected)


def test_making_the_generators_of_a_checkpoint_uses_up_no_name() -> None:
    """Keras numbers what it names, and later layers would be called something else."""
    keras.random.normal((1,))
    state = state_files.again(RandomStates().get_state())
    keras.utils.clear_session(free_memory=False)
    RandomStates().set_state(state)
    assert keras.random.SeedGenerator().name == "seed_generator"


def test_variables_of_generators_stay_the_same_objects() -> None:
    """A traced function holds them, so their values change and they do not."""
    tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    keras.random.normal((1,))
    ours = internals.global_state.get_global_attribute(internals.GLOBAL_SEED_GENERATOR)
    variables = [tf.random.get_global_generator().state, ours.state]
    state = RandomStates().get_state()
    drawing.draw()
    RandomStates().set_state(state)
    assert variables[0] is tf.random.get_global_generator().state
    assert np.array_equal(np.asarray(variables[1]), state["keras"]["generator"]["state"])


def test_the_seed_that_keras_notes_comes_back() -> None:
    """`set_random_seed` leaves it for Keras' own use."""
    keras.utils.set_random_seed(11)
    state = state_files.again(RandomStates().get_state())
    keras.utils.set_random_seed(12)
    RandomStates().set_state(state)
    assert internals.global_state.get_global_attribute(internals.GLOBAL_SEED) == 11
    assert internals.eager_seed() == 11


def test_no_seed_at_all_is_a_state_too() -> None:
    """A process that never called `tf.random.set_seed` gives and takes that."""
    tf.random.set_seed(None)
    state = state_files.again(RandomStates().get_state())
    tf.random.set_seed(3)
    RandomStates().set_state(state)
    assert internals.eager_seed() is None


def numbers() -> list[Any]:
    """Draw from what every process has."""
    return [random.random(), float(np.random.random()), float(tf.random.uniform([]))]


def _of_another_python(state: Any) -> None:
    state["python"]["version"] = 99


def _of_another_bit_generator(state: Any) -> None:
    state["numpy"]["bit_generator"] = "PCG64"


def _of_another_algorithm(state: Any) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(1, alg="philox"))
    state["tensorflow"]["generator"] = {"algorithm": 2, "state": np.zeros(2, np.int64)}


def _too_short(state: Any) -> None:
    state["python"]["words"] = state["python"]["words"][:5]


def _of_another_shape(state: Any) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(1, alg="philox"))
    state["tensorflow"]["generator"] = {"algorithm": 1, "state": np.zeros(7, np.int64)}


def _not_whole(state: Any) -> None:
    del state["keras"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_of_another_python, "another kind"),
        (_of_another_bit_generator, "PCG64.*MT19937"),
        (_of_another_algorithm, "another kind"),
        (_too_short, "could not restore"),
        (_of_another_shape, "could not restore"),
        (_not_whole, "missing: keras"),
    ],
)
def test_if_one_refuses_none_is_changed(spoil: Any, words: str) -> None:
    """Whether that is seen before the first is set, or in the middle."""
    state = RandomStates().get_state()
    spoil(state)
    drawing.draw()
    keras.utils.set_random_seed(21)
    here = RandomStates().get_state()
    expected = numbers()
    RandomStates().set_state(here)
    with pytest.raises(ArgumentError, match=words):
        RandomStates().set_state(state)
    assert numbers() == expected


@pytest.mark.parametrize(
    ("make", "draws"),
    [
        (random.Random, lambda g: [g.random(), g.gauss(0, 1)]),
        (np.random.RandomState, lambda g: g.normal(size=3).tolist()),
        (lambda s: np.random.RandomState(np.random.PCG64(s)), lambda g: g.normal(size=3).tolist()),
        (np.random.default_rng, lambda g: g.normal(size=3).tolist()),
        (lambda s: np.random.Generator(np.random.SFC64(s)), lambda g: g.normal(size=3).tolist()),
        (lambda s: np.random.Generator(np.random.Philox(s)), lambda g: g.normal(size=3).tolist()),
    ],
    ids=["random.Random", "RandomState", "RandomState of PCG64", "PCG64", "SFC64", "Philox"],
)
def test_a_generator_of_ones_own_goes_on(make: Any, draws: Any) -> None:
    """Through a file, into another object."""
    saved, restored = make(1), make(2)
    draws(saved)
    state = state_files.again(state_access(saved)[0]())
    expected = draws(saved)
    assert draws(restored) != expected
    state_access(restored)[1](state)
    assert draws(restored) == expected


@pytest.mark.parametrize(
    ("saved", "restored"),
    [
        (np.random.RandomState(1), np.random.RandomState(np.random.PCG64(1))),
        (np.random.default_rng(1), np.random.Generator(np.random.SFC64(1))),
        (random.Random(1), np.random.RandomState(1)),
        (np.random.RandomState(1), random.Random(1)),
    ],
    ids=lambda generator: type(generator).__name__,
)
def test_the_state_of_another_kind_of_generator_is_refused(saved: Any, restored: Any) -> None:
    """The error says which kind was found and which is here."""
    with pytest.raises(ArgumentError, match="another kind"):
        state_access(restored)[1](state_access(saved)[0]())


@pytest.mark.parametrize("target", [random.SystemRandom(), 3, None, tf.Variable(1.0)])
def test_what_is_no_generator_of_python_or_numpy_is_none(target: Any) -> None:
    """A `SystemRandom` has no state: it asks the operating system."""
    assert state_access(target) is None


def test_the_generators_of_pytorch_go_on() -> None:
    """Where the program uses it; drawing again after `set_state` gives the same numbers."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    states = RandomStates()
    state = state_files.again(states.get_state())
    expected = torch.rand(3)
    torch.manual_seed(6)
    states.set_state(state)
    assert torch.equal(torch.rand(3), expected)


def test_a_state_without_pytorch_is_taken_and_one_with_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checkpoints of earlier versions have none; where PyTorch is not imported, that is said."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    states = RandomStates()
    state = states.get_state()
    assert "torch" not in state
    states.set_state(state)
    with pytest.warns(UserWarning, match="Import `torch` before training starts"):
        states.set_state(state | {"torch": {"cpu": np.zeros(3, np.uint8), "cuda": []}})


def test_pytorch_is_not_imported_for_its_state() -> None:
    """Nor is its import waited for, where it is there and nobody uses it."""
    assert run(drawing.modules_after_a_state) == []
