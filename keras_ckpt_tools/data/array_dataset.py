"""Arrays -> batches in an order that is a function of seed and epoch alone.

With arrays, `fit()` shuffles by a generator inside its tf.data pipeline, which no checkpoint
reaches. Here nothing has to be saved: batch 120 of epoch 3 is computed, and read, from these two
numbers. That also makes it cheap to begin there, because what comes before is not read.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_ckpt_tools.data.array_arguments import check_arguments
from keras_ckpt_tools.data.keras_adapter import InOrderDataset
from keras_ckpt_tools.data.orders import shuffled
from keras_ckpt_tools.data.parallel import in_order
from keras_ckpt_tools.data.positions import NextPass
from keras_ckpt_tools.data.rows import as_source, leaves, take


class ArrayDataset(InOrderDataset):
    """Batches of arrays, in an order that a resumed run can be given again.

    Reach for it wherever arrays would be passed to `fit()` with `shuffle=True`, or would be
    shuffled by hand in a loop. It is passed to `fit()`, `evaluate()` and `predict()` as it is, and
    `for x, y in dataset:` is one epoch, the next such loop the next epoch. `fit(shuffle=...)` has
    no say in the order.

    Args:
        x: The inputs: an array, or dicts, lists and tuples of arrays. Anything serves that has a
            length and can be indexed with an array of integers: NumPy arrays, memory maps, h5py
            datasets, tensors, pandas' tables and columns (by position).
        y: The targets, likewise; `None` where there are none.
        sample_weight: The weights of the samples; `None` where all are one.
        batch_size: How many samples a batch has, at least 1.
        shuffle: Whether each epoch has an order of its own. Needs a `seed`.
        seed: A non-negative integer. The order of an epoch is a function of it and of the epoch,
            and the same with every version of NumPy.
        drop_remainder: Whether a last batch that is not full is left out.
        workers: How many threads or processes read ahead while `fit()` trains; with 0 or 1 threads
            nothing is read ahead. As in `keras.utils.PyDataset`, loops of yours read by themselves.
        use_multiprocessing: Processes in place of threads.
        max_queue_size: How many batches may wait.

    Raises:
        ArgumentError: An argument cannot work. All that is wrong is listed.

    Example:

    >>> import numpy as np
    >>> import keras_ckpt_tools as kct
    >>> x, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> dataset = kct.data.ArrayDataset(x, y, batch_size=2, shuffle=True, seed=7)
    >>> dataset
    <ArrayDataset of 5 samples: 3 batches of 2, shuffle=True, seed=7; next is epoch 0, batch 0>
    >>> first = [labels.tolist() for _, labels in dataset]
    >>> dataset.start(epoch=0, batch=1)
    >>> [labels.tolist() for _, labels in dataset] == first[1:]
    True
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ):
        given = {"x": x, "y": y, "sample_weight": sample_weight}
        data = {
            name: keras.tree.map_structure(as_source, value)
            for name, value in given.items()
            if name == "x" or value is not None
        }
        check_arguments(
            data,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            workers=workers,
            max_queue_size=max_queue_size,
        )
        super().__init__(workers, use_multiprocessing, max_queue_size)
        self._data = data
        self.num_samples = len(next(leaves(data["x"], "x"))[1])
        self.batch_size = operator.index(batch_size)
        self.shuffle = bool(shuffle)
        self.seed = None if seed is None else operator.index(seed)
        self.drop_remainder = bool(drop_remainder)
        self._next = NextPass()
        # The order that was asked for last, beside its epoch. It can always be computed again.
        self._order: tuple[int, NDArray[np.intp]] | None = None

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + bool(rest and not self.drop_remainder)

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.shuffle else ""
        return (
            f"<{type(self).__name__} of {self.num_samples} samples: {len(self)} batches of "
            f"{self.batch_size}, shuffle={self.shuffle}{seed}; "
            f"next is epoch {self._next.epoch}, batch {self._next.batch}>"
        )

    def start(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass be that of `epoch`, from `batch` on; later passes follow on.

        Args:
            epoch: Zero-based.
            batch: Zero-based; what comes before it is not read.

        Raises:
            ArgumentError: There is no such batch.
        """
        self._next.set(epoch, batch, len(self))

    def batch(self, epoch: int, index: int) -> Any:
        """Return one batch of one epoch, whatever is being iterated over.

        Args:
            epoch: Zero-based.
            index: Zero-based, below `len(dataset)`.

        Returns:
            `x`, `(x, y)` or `(x, y, sample_weight)`, as `keras.utils.pack_x_y_sample_weight` packs
            them, each in the structure that was given.

        Raises:
            IndexError: There is no such batch.
        """
        return self._read(self._rows(index, self._order_of(epoch)))

    def __getitem__(self, index: int) -> Any:
        """Return a batch of the epoch that comes next."""
        return self.batch(self._next.epoch, operator.index(index))

    def __iter__(self) -> Iterator[Any]:
        # Begins with the first batch, as in `fit()`: an iterator that is not used is no epoch.
        current = self._begin()
        yield from map(current.read, range(len(current)))

    def batches(self) -> Iterator[Any]:
        """Yield the batches of the next pass, read ahead by the workers; Keras uses this."""
        current = self._begin()
        yield from in_order(
            current.read,
            len(current),
            workers=self.workers,
            use_multiprocessing=self.use_multiprocessing,
            ahead=self.max_queue_size,
        )

    def sample(self) -> Any:
        """Return a batch of the first sample alone, which shows what batches are like."""
        return self._read(slice(0, 1))

    def _begin(self) -> _Pass:
        epoch, batch = self._next.take()
        return _Pass(self, self._order_of(epoch), batch)

    def _order_of(self, epoch: int) -> NDArray[np.intp] | None:
        if self.seed is None or not self.shuffle:
            return None
        known = self._order
        if known is None or known[0] != epoch:
            known = self._order = epoch, shuffled(self.num_samples, self.seed, epoch)
        return known[1]

    def _rows(self, index: int, order: NDArray[np.intp] | None) -> slice | NDArray[np.intp]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        rows = slice(index * self.batch_size, min((index + 1) * self.batch_size, self.num_samples))
        return rows if order is None else order[rows]

    def _read(self, rows: slice | NDArray[np.intp]) -> Any:
        return keras.utils.pack_x_y_sample_weight(
            **{
                name: keras.tree.map_structure(lambda source: take(source, rows), structure)
                for name, structure in self._data.items()
            }
        )


@dataclass(frozen=True)
class _Pass:
    """One pass over a dataset, which nothing that happens to the dataset meanwhile changes."""

    dataset: ArrayDataset
    order: NDArray[np.intp] | None
    first: int

    def __len__(self) -> int:
        return len(self.dataset) - self.first

    def read(self, index: int) -> Any:
        """Return batch `index` of this pass."""
        return self.dataset._read(self.dataset._rows(self.first + index, self.order))
