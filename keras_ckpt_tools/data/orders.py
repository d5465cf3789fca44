"""The order of an epoch: (seed, epoch) -> permutation, the same on every machine and NumPy.

NumPy promises that `SeedSequence` and the raw 64-bit stream of a bit generator such as `Philox`
never change; it makes no such promise for the methods of `Generator`, among them `permutation`
(NEP 19, and "Compatibility policy" in NumPy's manual). So the order is built from the promised
parts: one raw number for each sample, and a stable sort by them. Two samples with equal numbers, of
which there is one chance in 36 million for a million samples, keep the order of their indices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shuffled(samples: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """Return the indices of all samples in the order of one epoch.

    Args:
        samples: How many there are.
        seed: Non-negative.
        epoch: Zero-based.

    Example:

    >>> shuffled(8, seed=7, epoch=0)
    array([0, 5, 2, 3, 4, 7, 6, 1])
    """
    # As a list, `[seed, epoch]` would be one number for some pairs of seeds and epochs.
    stream = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return np.argsort(stream.random_raw(samples), kind="stable")
