"""Save and restore the global random generators of the process.

A run uses generators that belong to no model: those of Python, NumPy, TensorFlow and Keras. If they
started over at a restart, the shuffles and augmentations of the first epochs would be repeated, and
all later results would differ.

Reading the state has no side effects: the global generators of TensorFlow and Keras are created at
their first use, so they are only read if they exist. Either all states are restored or none: a
state of another kind is refused before anything changes, and if a generator raises an error, the
others get their previous states back.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.showing.messages import warn

Access = tuple[Callable[[], Any], Callable[[Any], None]]


class RandomStates:
    """All random generators that belong to the process as a whole.

    | generator | set by |
    |---|---|
    | Python's `random` | `random.seed` |
    | NumPy's old global one | `np.random.seed` |
    | the seed of TensorFlow, and its seeds for eager ops | `tf.random.set_seed` |
    | `tf.random.get_global_generator()`, if it exists | `tf.random.set_global_generator` |
    | Keras' global seed generator, if it exists, and its seed | `keras.utils.set_random_seed` |
    | PyTorch's, on CPU and CUDA devices, if the program uses PyTorch | `torch.manual_seed` |

    Keras' part belongs to a thread, so use this in the thread that trains.

    Not restored, because TensorFlow keeps the counts inside its kernels and gives no access:

    * how often a random op *inside a `tf.function`* has drawn (`tf.random.uniform` and the like,
      also in a `map` of tf.data). After a restart such an op starts again with its first number,
      and also after `set_state` in the same process.
    * the same for an eager op with a seed of its own: `tf.random.uniform([2], seed=5)`.

    Inside a `tf.function`, generators that keep their state in a variable resume exactly:
    `keras.random` and Keras' layers (dropout, augmentation), `tf.random.Generator`; and so do the
    stateless ops.

    Example:

    >>> import random
    >>> states = RandomStates()
    >>> state = states.get_state()
    >>> drawn = random.random()
    >>> states.set_state(state)
    >>> random.random() == drawn
    True
    """

    def get_state(self) -> dict[str, Any]:
        """Return all states as numbers and arrays; no generator is created or used."""
        seeds = internals.eager_operation_seeds()
        return {
            "python": _of_python(random),
            "numpy": np.random.get_state(legacy=False),
            "tensorflow": {
                "seed": _plain_seed(internals.eager_seed()),
                "operation_seeds": None if seeds is None else _of_python(seeds),
                "generator": _of_tensorflow(internals.tensorflow_global_generator()),
            },
            "keras": {
                "seed": internals.global_state.get_global_attribute(internals.GLOBAL_SEED),
                "generator": _of_keras(),
            },
        } | _of_torch()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore all states from the result of `get_state`, or none.

        Raises:
            ArgumentError: a state is invalid or of another kind of generator than the present one.
                All generators are unchanged.
        """
        _check(state)
        before = self.get_state()
        try:
            _set_all(state)
        except BaseException as error:
            _set_all(before)
            if not isinstance(error, Exception):
                raise
            raise ArgumentError(
                f"A random generator could not restore its state: {error}",
                received=f"{type(error).__name__}",
                remedy="All generators are unchanged. Check that the state is the result of "
                "`get_state`.",
            ) from error


def state_access(target: Any) -> Access | None:
    """Return the functions that get and set the state of a random generator of Python or NumPy.

    Args:
        target: A `random.Random`, `np.random.RandomState` or `np.random.Generator`. For anything
            else the result is `None`, also for `random.SystemRandom`, which has no state.

    Returns:
        `get()`, which returns numbers and arrays, and `set(state)`, which raises `ArgumentError`
        if the state is one of another kind of generator.

    >>> generator = np.random.RandomState(3)
    >>> get, put = state_access(generator)
    >>> state = get()
    >>> drawn = generator.normal()
    >>> put(state)
    >>> generator.normal() == drawn
    True
    """
    if isinstance(target, random.SystemRandom):
        return None
    if isinstance(target, random.Random):
        return lambda: _of_python(target), lambda state: _to_python(target, state)
    if isinstance(target, np.random.RandomState):

        def put(state: Any) -> None:
            _check_numpy(state, target.get_state(legacy=False), "numpy.random.RandomState")
            target.set_state(state)

        return lambda: target.get_state(legacy=False), put
    if isinstance(target, np.random.Generator):
        bits = target.bit_generator

        def put_bits(state: Any) -> None:
            _check_numpy(state, bits.state, "numpy.random.Generator")
            bits.state = state

        return lambda: bits.state, put_bits
    return None


# Python and NumPy. The module `random` has the functions of a `random.Random`.


def _of_python(generator: Any) -> dict[str, Any]:
    version, words, gauss = generator.getstate()
    # 625 words of 32 bits: as a tuple they would be most of the file's JSON.
    return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}


def _to_python(generator: Any, state: Mapping[str, Any]) -> None:
    _check_python(state, "random.Random")
    words = tuple(int(word) for word in state["words"])
    generator.setstate((state["version"], words, state["gauss"]))


def _check_python(state: Any, name: str) -> None:
    version = random.getstate()[0]
    found = state.get("version") if isinstance(state, Mapping) else None
    if found != version:
        raise _of_another_kind(name, found, version)


def _check_numpy(state: Any, here: Any, name: str) -> None:
    found = state.get("bit_generator") if isinstance(state, Mapping) else None
    if found != here["bit_generator"]:
        raise _of_another_kind(name, found, here["bit_generator"])


def _of_another_kind(name: str, found: Any, expected: Any) -> ArgumentError:
    return ArgumentError(
        f"The state is of another kind of random generator than {name} has here; nothing was "
        "changed.",
        received=f"{found!r}, expected {expected!r}",
        remedy=f"Create {name} with the same kind of generator as when the state was saved.",
    )


# TensorFlow and Keras.


def program_seed() -> Any:
    """Return the global seed that the program set with Keras or TensorFlow, or `None`."""
    seed = internals.global_state.get_global_attribute(internals.GLOBAL_SEED)
    return _plain_seed(internals.eager_seed() if seed is None else seed)


def _plain_seed(seed: Any) -> Any:
    # `tf.random.set_seed` also accepts NumPy numbers and tensors.
    return seed if seed is None else int(np.asarray(seed))


def _of_tensorflow(generator: Any) -> dict[str, Any] | None:
    if generator is None:
        return None
    return {"algorithm": int(generator.algorithm), "state": to_numpy(generator.state)}


def _keras_generator() -> Any:
    return internals.global_state.get_global_attribute(internals.GLOBAL_SEED_GENERATOR)


def _of_keras() -> dict[str, Any] | None:
    generator = _keras_generator()
    if generator is None:
        return None
    return {"name": generator.name, "state": to_numpy(generator.state)}


# PyTorch: if it is the backend, or if the program has imported it (to use a `DataLoader`, for
# example). It is never imported here.


def _torch() -> Any:
    return sys.modules.get("torch")


def _cuda(torch: Any) -> bool:
    # An unused device has drawn no numbers, and a query would initialize it.
    return bool(torch.cuda.is_available() and torch.cuda.is_initialized())


def _of_torch() -> dict[str, Any]:
    torch = _torch()
    if torch is None or not hasattr(torch, "get_rng_state"):
        return {}
    devices = torch.cuda.get_rng_state_all() if _cuda(torch) else []
    return {
        "torch": {
            "cpu": torch.get_rng_state().numpy().copy(),
            "cuda": [one.cpu().numpy().copy() for one in devices],
        }
    }


def _set_torch(state: Mapping[str, Any]) -> None:
    torch, saved = _torch(), state.get("torch")
    if saved is None:
        return
    if torch is None:
        warn(
            "The checkpoint contains the state of PyTorch's random generators, but PyTorch is not "
            "imported here: they start over. Import `torch` before training starts.",
            UserWarning,
            stacklevel=2,
        )
        return
    torch.set_rng_state(torch.from_numpy(np.array(saved["cpu"], np.uint8)))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(saved["cuda"]) > devices:
        warn(
            f"The checkpoint contains the state of the random generators of {len(saved['cuda'])} "
            f"CUDA devices, but there are {devices} here: those of the others start over.",
            UserWarning,
            stacklevel=2,
        )
    for index, one in enumerate(saved["cuda"][:devices]):
        torch.cuda.set_rng_state(torch.from_numpy(np.array(one, np.uint8)), index)


def _check(state: Mapping[str, Any]) -> None:
    try:
        _check_parts(state)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(
            "The state of the random generators is not one that this package writes; nothing was "
            "changed.",
            received=f"{type(error).__name__}: {error}",
            remedy="Pass the result of `RandomStates().get_state()`.",
        ) from error


def _check_parts(state: Mapping[str, Any]) -> None:
    lacking = {"python", "numpy", "tensorflow", "keras"} - set(state)
    if lacking:
        raise ArgumentError(
            "The state of the random generators is incomplete.",
            received=f"missing: {', '.join(sorted(lacking))}",
            remedy="Pass the result of `RandomStates().get_state()`.",
        )
    _check_python(state["python"], "random")
    _check_numpy(state["numpy"], np.random.get_state(legacy=False), "numpy.random")
    generator = internals.tensorflow_global_generator()
    saved = state["tensorflow"]["generator"]
    if generator is not None and saved is not None:
        if int(generator.algorithm) != saved["algorithm"]:
            raise _of_another_kind(
                "tf.random.get_global_generator()", saved["algorithm"], int(generator.algorithm)
            )
    for part in ("tensorflow", "keras"):
        seed = state[part]["seed"]
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer))):
            raise ValueError(f"the seed of {part} is not an integer")
    named = state["keras"]["generator"]
    if named is not None and not isinstance(named["name"], str):
        raise ValueError("the name of Keras' generator is not a string")


def _set_all(state: Mapping[str, Any]) -> None:
    _set_keras(state["keras"])
    _set_tensorflow(state["tensorflow"])
    _set_torch(state)
    np.random.set_state(state["numpy"])
    # Last, because the code above may have used it.
    _to_python(random, state["python"])


def _set_tensorflow(state: Mapping[str, Any]) -> None:
    if "tensorflow" not in sys.modules:
        if any(value is not None for value in state.values()):
            warn(
                "The checkpoint contains the state of TensorFlow's random generators, but it is "
                "not imported here: they start over.",
                UserWarning,
                stacklevel=2,
            )
        return
    import tensorflow as tf

    # This also makes TensorFlow discard its kernels and their counts.
    tf.random.set_seed(state["seed"])
    seeds = internals.eager_operation_seeds()
    if state["operation_seeds"] is not None:
        if seeds is None:
            warn(
                f"TensorFlow {tf.__version__} does not expose its seeds of eager random ops: they "
                "start over. Use `tf.random.Generator`, which resumes.",
                UserWarning,
                stacklevel=2,
            )
        else:
            _to_python(seeds, state["operation_seeds"])
    saved, generator = state["generator"], internals.tensorflow_global_generator()
    if saved is None:
        return  # It would have been created without a seed, so any state is equivalent.
    if generator is None:
        made = tf.random.Generator.from_state(saved["state"], saved["algorithm"])
        tf.random.set_global_generator(made)
    else:
        # In place: traced functions reference its variable.
        generator.state.assign(saved["state"])


def _set_keras(state: Mapping[str, Any]) -> None:
    put = internals.global_state.set_global_attribute
    put(internals.GLOBAL_SEED, state["seed"])
    saved, generator = state["generator"], _keras_generator()
    if saved is None:
        # Keras creates it with the next number of Python's generator.
        put(internals.GLOBAL_SEED_GENERATOR, None)
        return
    if generator is None:
        # With its name and a seed, so that no name is counted and no generator is used.
        generator = keras.random.SeedGenerator(seed=0, name=saved["name"])
        put(internals.GLOBAL_SEED_GENERATOR, generator)
    generator.state.assign(saved["state"])
