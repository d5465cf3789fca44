"""`ArrayDataset`: batches of arrays, in an order that depends on seed and epoch only.

With arrays, `fit()` shuffles inside its tf.data pipeline, whose state cannot be saved. Here nothing
has to be saved: batch 120 of epoch 3 is computed from these two numbers. Earlier batches are not
read.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.data.keras_adapter import InOrderDataset
from keras_ckpt_tools.data.parallel import in_order
from keras_ckpt_tools.data.positions import NextPass, is_whole_number, shuffled
from keras_ckpt_tools.errors import ArgumentError


class ArrayDataset(InOrderDataset):
    """Batches of arrays, in an order that can be replayed when a run resumes.

    Use it instead of passing arrays to `fit()` with `shuffle=True`, or shuffling them in a loop.
    Pass it to `fit()`, `evaluate()` and `predict()`. `for x, y in dataset:` is one epoch, and the
    next such loop is the next epoch. `fit(shuffle=...)` has no effect on the order.

    Args:
        x: The inputs: an array, or dicts, lists and tuples of arrays. Any object works that has
            a length and can be indexed with an array of integers: NumPy arrays, memory maps, h5py
            datasets, tensors, pandas' tables and columns (by position).
        y: The targets, in the same form; `None` if there are none.
        sample_weight: The weights of the samples; `None` if all are one.
        batch_size: How many samples a batch has, at least 1.
        shuffle: Whether each epoch has its own order. Requires a `seed`.
        seed: A non-negative integer. The order of an epoch is a function of it and of the epoch,
            and the same with every version of NumPy.
        drop_remainder: Whether an incomplete last batch is dropped.
        workers: How many threads or processes read ahead while `fit()` trains; with 0 or 1 threads
            nothing is read ahead. As in `keras.utils.PyDataset`, custom loops do not read ahead.
        use_multiprocessing: Whether to use processes instead of threads.
        max_queue_size: How many batches may wait.

    Raises:
        ArgumentError: An argument cannot work. The message lists all problems.

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
        # The last order and its epoch. It can always be computed again.
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


_PIPELINE = "put the pipeline into a function of the epoch, `kct.data.resumable(fn)`"
_MATERIALIZE = "collect it into arrays with `np.stack(list(...))`"


def check_arguments(data: Mapping[str, Any], **options: Any) -> None:
    """Raise one error for all that cannot work.

    Args:
        data: `x`, and `y` and `sample_weight` where they are given.
        **options: The other arguments of `ArrayDataset`, by name.

    Raises:
        ArgumentError: Something cannot work.
    """
    problems = [*_problems_of_data(data), *_problems_of_options(**options)]
    if not problems:
        samples = len(next(leaves(data["x"], "x"))[1])
        if options["drop_remainder"] and samples < options["batch_size"]:
            problems.append(
                f"with drop_remainder=True, batch_size={options['batch_size']} leaves no batch of "
                f"{samples} samples: use a smaller one"
            )
    if problems:
        raise ArgumentError(
            "An ArrayDataset cannot be created from these arguments:\n  * "
            + "\n  * ".join(problems)
            + "\n",
            remedy="Change the listed arguments.",
        )


def _problems_of_data(data: Mapping[str, Any]) -> Iterator[str]:
    lengths: dict[str, int] = {}
    for name, structure in data.items():
        found = list(leaves(structure, name))
        if not found:
            yield f"{name} holds no array"
        for place, leaf in found:
            problem = _problem_of(leaf)
            if problem:
                yield f"{place} {problem}"
            else:
                lengths[place] = len(leaf)
    if "sample_weight" in data and "y" not in data:
        yield "sample_weight is given and y is not: there is no loss to weigh"
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{place} has {length}" for place, length in lengths.items())
        yield f"all need the same number of samples: {each}"
    elif 0 in lengths.values():
        yield f"there are no samples in {', '.join(lengths)}"


def _problem_of(leaf: Any) -> str | None:
    """Return why rows cannot be taken from a leaf, or `None`."""
    kind = f"is a {type(leaf).__name__}"
    if isinstance(leaf, keras.utils.PyDataset):
        return f"{kind}, which already makes batches: pass it to `fit()` unchanged"
    if isinstance(leaf, tf_kinds("data.Dataset")):
        return f"{kind}: {_PIPELINE}"
    if inspect.isgenerator(leaf) or (hasattr(leaf, "__iter__") and not _can_be_indexed(leaf)):
        return f"{kind}, which can only start at its beginning: {_MATERIALIZE}"
    if isinstance(leaf, (str, bytes)) or not _can_be_indexed(leaf):
        return f"is {leaf!r:.40}, not an array; a list of values becomes one by `np.asarray(...)`"
    try:
        if len(leaf) and len(take(leaf, np.array([0]))) != 1:
            return f"{kind}: an array of one index does not give one row"
    except Exception as error:  # noqa: BLE001 - whatever a source of the user's may raise
        return f"{kind} and cannot be indexed with an array of integers: {error!r:.200}"
    return None


def _can_be_indexed(leaf: Any) -> bool:
    try:
        len(leaf)
    except TypeError:
        return False
    return hasattr(leaf, "__getitem__")


def _problems_of_options(
    *,
    batch_size: Any,
    shuffle: Any,
    seed: Any,
    drop_remainder: Any,
    workers: Any,
    max_queue_size: Any,
) -> Iterator[str]:
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("workers", workers, 0),
        ("max_queue_size", max_queue_size, 1),
    ):
        if not is_whole_number(value) or value < least:
            yield f"{name}={value!r} has to be an integer of at least {least}"
    for name, value in (("shuffle", shuffle), ("drop_remainder", drop_remainder)):
        if not isinstance(value, (bool, np.bool_)):
            yield f"{name}={value!r} has to be True or False"
    if seed is not None and (not is_whole_number(seed) or seed < 0):
        yield f"seed={seed!r} has to be a non-negative integer"
    elif seed is None and shuffle is True:
        yield (
            "shuffle=True needs a seed, because without one no other process could make the same "
            "order, and a resumed run would train on other batches: pass any integer, such as "
            "seed=0"
        )


def as_source(given: Any) -> Any:
    """Return what rows are taken from: `given`, or its values where it would index by label."""
    if hasattr(given, "iloc"):
        return given.to_numpy()
    if keras.ops.is_tensor(given):
        return keras.ops.convert_to_numpy(given)
    return given


def leaves(structure: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each leaf of dicts, lists and tuples, with how one would write its place."""
    if isinstance(structure, Mapping):
        for key, value in structure.items():
            yield from leaves(value, f"{name}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for index, value in enumerate(structure):
            yield from leaves(value, f"{name}[{index}]")
    else:
        yield name, structure


def take(source: Any, rows: slice | NDArray[np.intp]) -> NDArray[Any]:
    """Return rows of a source as an array of their own.

    Args:
        source: See `as_source`.
        rows: A slice, or indices in any order, each at most once.
    """
    if isinstance(rows, slice):
        found = np.asarray(source[rows])
        # A view would let a loop that works in place change the user's data.
        return found.copy() if isinstance(source, np.ndarray) else found
    if type(source) is np.ndarray:
        return np.asarray(source[rows])
    order = np.argsort(rows)
    ascending = np.asarray(source[rows[order]])
    found = np.empty_like(ascending)
    found[order] = ascending
    return found
