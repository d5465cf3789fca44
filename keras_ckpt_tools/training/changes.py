"""Compare a program with the run that it resumes, and decide about each difference.

There are three cases. A harmless difference (another batch size at the start of an epoch) gives a
warning, and the run resumes. A difference that could change the result unexpectedly is an error,
which names the argument that allows it and what it costs. A difference named in `changed=` is
intended: the program's setting is used instead of the saved one.

A checkpoint records the settings at the start of the run. So a learning rate that a callback has
lowered is not a change of the program, but another value in `compile()` is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.state import random_generators

CHANGEABLE = ("data", "learning_rate", "optimizer", "metrics", "callbacks", "seed")


def check_changed(changed: Any) -> frozenset[str]:
    """Return the argument `changed` as a set, if it is valid.

    Raises:
        ArgumentError: it is invalid.

    >>> sorted(check_changed(("data", "seed"))), sorted(check_changed("optimizer"))
    (['data', 'seed'], ['optimizer'])
    """
    given = (changed,) if isinstance(changed, str) else changed
    names = tuple(given) if isinstance(given, Iterable) else (given,)
    if all(isinstance(name, str) and name in CHANGEABLE for name in names):
        return frozenset(names)
    raise ArgumentError(
        "`changed` names the intended changes of the program since the checkpoint was written.",
        received=f"changed={changed!r}",
        remedy=f"Pass one or more of {', '.join(map(repr, CHANGEABLE))}.",
    )


def begun_with(optimizer: Any, loss: Any = None) -> dict[str, Any]:
    """Return the settings of a program at the start of a run, as JSON."""
    values: dict[str, Any] = {"seed": random_generators.program_seed()}
    if optimizer is not None:
        values["optimizer"] = type(_inner(optimizer)).__name__
        values["learning_rate"] = learning_rate_of(optimizer)
        values |= {f"{_ARGUMENT}{name}": each for name, each in _arguments_of(optimizer)}
    if loss is not None:
        values["loss"] = _shown_loss(loss)
    return values


_ARGUMENT = "optimizer's "
_NO_ARGUMENTS = ("name", "learning_rate")


def _arguments_of(optimizer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of an optimizer that only the program's code sets, as JSON."""
    try:
        config = _inner(optimizer).get_config()
    except NotImplementedError:
        return
    for name, value in config.items():
        if name not in _NO_ARGUMENTS:
            plain = value is None or type(value) in (str, int, float)
            yield name, value if plain else json.dumps(value, default=_kind_of, sort_keys=True)


def _shown_loss(loss: Any) -> str:
    """Return a text that differs if losses do; Keras has several names for each.

    >>> _shown_loss("mse") == _shown_loss(keras.losses.MeanSquaredError()) != _shown_loss("mae")
    True
    """
    if isinstance(loss, Mapping):
        return f"{{{', '.join(f'{name}: {_shown_loss(one)}' for name, one in loss.items())}}}"
    if isinstance(loss, (list, tuple)):
        return f"[{', '.join(map(_shown_loss, loss))}]"
    try:
        found = keras.losses.get(loss)
    except (ValueError, TypeError):
        found = loss
    name = str(getattr(found, "__name__", type(found).__name__))
    return name.replace("_", "").lower()


def _kind_of(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)


def learning_rate_of(optimizer: Any) -> float | str | None:
    """Return the learning rate: a number, or a text for a schedule.

    >>> learning_rate_of(keras.optimizers.SGD(0.5))
    0.5
    """
    rate = getattr(_inner(optimizer), "_learning_rate", None)
    if rate is None:
        return None
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        try:
            config = json.dumps(rate.get_config(), default=str, sort_keys=True)
        except NotImplementedError:
            config = ""
        return f"{type(rate).__name__}({config})"
    if hasattr(rate, "dtype"):
        return float(to_numpy(rate))
    return str(getattr(rate, "__qualname__", type(rate).__name__))


class Changes:
    """The differences between a program and the run that it resumes.

    Args:
        changed: Names of the intended changes.

    Attributes:
        begun: The settings at the start of the run, for the next checkpoint.
        refused: Reasons why the run is not resumed, as sentences.
        said: Warnings, as sentences.
        applied: Names in `changed` that really differ: the program's setting is used.
        explained: Whether `refused` explains what to do about the optimizer.
    """

    def __init__(self, changed: frozenset[str] = frozenset()):
        self.changed = changed
        self.begin(None, same=False)
        self._noted = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Changes:
        # Tuners copy callbacks; the comparison belongs to one run.
        return Changes(self.changed)

    def begin_once(self, optimizer: Any, *, same: bool) -> None:
        """Note the program's settings, unless that was done with this optimizer; see `begin`."""
        if self._optimizer is not optimizer or not self._noted:
            self.begin(optimizer, same=same)
        self._same = same

    def begin(self, optimizer: Any, *, same: bool, loss: Any = None) -> None:
        """Note the program's settings before anything is restored.

        Args:
            optimizer: The optimizer, or `None`.
            loss: The loss of `compile()`, or `None`.
            same: Whether the same objects were trained before. Then their values are no longer
                those that the program set.
        """
        self._optimizer = optimizer
        self._same, self._noted = same, True
        self.begun = begun_with(optimizer, loss)
        self.look_again()

    def look_again(self) -> None:
        """Reset the comparison, because another checkpoint is tried."""
        self.refused: list[str] = []
        self.said: list[str] = []
        self.applied: set[str] = set()
        self.explained = False
        self._kept: dict[str, Any] = {}
        self._code: dict[str, Any] = {}

    def may(self, what: str) -> bool:
        """Return whether a difference is intended, and note that it exists."""
        if what in self.changed:
            self.applied.add(what)
        return what in self.changed

    def compare(self, begun: Mapping[str, Any]) -> None:
        """Compare the program's settings with those at the start of the run."""
        here = self.begun
        self._kept = dict(begun)
        if begun.get("optimizer") and here.get("optimizer"):
            self._compare_optimizers(begun, here)
        if not self._same and begun.get("optimizer") == here.get("optimizer"):
            self._compare_code(begun, here)
        seeds = (begun.get("seed"), here["seed"])
        if None not in seeds and seeds[0] != seeds[1] and not self.may("seed"):
            self.said.append(
                f"the global seed was {begun['seed']} at the start of the run and is now "
                f"{here['seed']}. The random generators of the checkpoint are used; to use the "
                "program's, pass `changed='seed'`"
            )

    def _compare_optimizers(self, begun: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        if begun["optimizer"] != here["optimizer"]:
            if not self.may("optimizer"):
                self.explained = True
                self.refused.append(
                    f"optimizer: expected {begun['optimizer']}, found {here['optimizer']}. "
                    f"{OPTIMIZER_REMEDY}"
                )
            return
        before, now = begun.get("learning_rate"), here.get("learning_rate")
        if before == now or (self._same and "learning_rate" not in self.changed):
            return
        if isinstance(before, str) != isinstance(now, str) and "learning_rate" not in self.changed:
            if not self.may("optimizer"):
                self.explained = True
                self.refused.append(
                    f"learning rate: expected {_shown(before)}, found {_shown(now)}. Pass "
                    "`changed='learning_rate'` to continue with the program's, at the same step."
                )
        elif not self.may("learning_rate"):
            counts = "the program's schedule is used from here on"
            if not isinstance(now, str):
                counts = "that of the checkpoint is used"
            self.said.append(
                f"the learning rate was {_shown(before)} at the start of the run, and the program "
                f"now has {_shown(now)}: {counts}. "
                + ("To confirm the change, " if isinstance(now, str) else "To use the program's, ")
                + "pass `changed='learning_rate'`"
            )

    def _compare_code(self, begun: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        """Note differences in what no checkpoint restores: the program's setting is used."""
        for name, value in here.items():
            said_so = name == "loss" or name.startswith(_ARGUMENT)
            if said_so and name in begun and begun[name] != value:
                self._code[name] = value
                self.said.append(
                    f"the {name} was {_shown(begun[name])} at the start of the run and is now "
                    f"{_shown(value)}: the program's is used from here on"
                )

    def warn(self) -> None:
        """Warn about the differences after a restore."""
        if self.said:
            warn(
                "The program differs from the saved run; training continues. "
                + "; ".join(sentence.rstrip(".") for sentence in self.said)
                + ".",
                UserWarning,
                stacklevel=5,
            )

    @property
    def rate_kinds(self) -> tuple[bool, bool] | None:
        """Whether the learning rate was a schedule, and is one now, if that differs."""
        before, now = self._kept.get("learning_rate"), self.begun.get("learning_rate")
        kinds = isinstance(before, str), isinstance(now, str)
        return kinds if "learning_rate" in self.applied and kinds[0] != kinds[1] else None

    def resume(self) -> None:
        """Use the program's settings for intended changes, after a restore."""
        rate = self.begun.get("learning_rate")
        if "learning_rate" in self.applied and isinstance(rate, float):
            _inner(self._optimizer).learning_rate = rate
        applied = self.applied | ({"learning_rate"} if "optimizer" in self.applied else set())
        # Differences with a warning only are reported again at the next restart.
        self.begun |= {name: each for name, each in self._kept.items() if name not in applied}
        self.begun |= self._code  # These are used now, so they are reported once.


OPTIMIZER_REMEDY = (
    "Pass `changed='optimizer'` to continue with the program's: its momentum values and its step "
    "count start over."
)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else "none" if value is None else value
