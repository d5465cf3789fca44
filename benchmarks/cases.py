"""The models that are measured: fully connected ones with Adam, by the size of their state.

With Adam the state is three times the weights. Large states come from a few wide layers, as in most
models; the last case is the opposite, where each variable costs more than its bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

_SLOTS = 3  # The weight itself and Adam's two moments.
_FLOAT = 4


@dataclass(frozen=True)
class Case:
    """One model to measure.

    Attributes:
        name: What it is called in the results.
        layers: How many layers.
        units: Width of each; a layer has `units * units` weights and `units` biases.
        quick: Whether the quick form measures it.
        chains: The layers stand in so many chains side by side, whose results are added. Keras
            follows a chain by recursion, so a single one of 1,000 layers cannot be built.
    """

    name: str
    layers: int
    units: int
    quick: bool = False
    chains: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of its state."""
        return self.layers * self.units * (self.units + 1) * _SLOTS * _FLOAT

    def build(self) -> keras.Model:
        """Return the model, compiled and with the state of its optimizer."""
        keras.utils.set_random_seed(0)
        start = keras.Input((self.units,))
        ends = [self._chain(start) for _ in range(self.chains)]
        model = keras.Model(start, keras.layers.add(ends) if len(ends) > 1 else ends[0])
        model.compile(keras.optimizers.Adam(1e-6), "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    def _chain(self, end: Any) -> Any:
        for _ in range(self.layers // self.chains):
            end = keras.layers.Dense(self.units)(end)
        return end

    def batch(self) -> tuple[Any, Any]:
        """Return one batch to train on."""
        random = np.random.default_rng(0)
        x = random.standard_normal((16, self.units), "float32")
        return x, np.zeros_like(x)


def _wide(name: str, megabytes: int, *, quick: bool = False) -> Case:
    layers = 12
    units = math.isqrt(megabytes * 10**6 // (layers * _SLOTS * _FLOAT))
    return Case(name, layers, units, quick)


CASES = (
    _wide("10 MB", 10, quick=True),
    _wide("100 MB", 100, quick=True),
    _wide("500 MB", 500),
    _wide("1,500 MB", 1500),
    # 1,000 kernels and 1,000 biases, and two moments of each.
    Case("6,000 variables", 1000, 44, chains=100),
)


def case_named(name: str) -> Case:
    """Return a case by its name."""
    return next(case for case in CASES if case.name == name)
