"""`resumable`: one dataset from a function that creates the dataset of an epoch.

A shuffling tf.data pipeline keeps its order in its iterators, which `fit()` does not expose. But a
pipeline is cheap to create. So it is created again for each epoch, with a seed that depends on the
epoch, and `skip` starts it at any batch. The result is a `tf.data.Dataset` for Keras, so batches
never pass through Python. Only its iterators differ: each creates its pipeline when its first batch
is requested. Keras creates an iterator at the end of each epoch that it does not use; and so an
error in the user's function is raised in the user's own call.

Transformations are applied inside the function. `skip` has to be the last one, and a dataset
derived from one pipeline could not use the next one. For the same reason the dataset has no variant
tensor: TensorFlow would use it as the pipeline of one epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from keras_ckpt_tools._tensorflow import needed_for
from keras_ckpt_tools.data.positions import NextPass, is_whole_number
from keras_ckpt_tools.errors import ArgumentError

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = needed_for("kct.data.resumable", "kct.data.resumable")

PipelineOf = Callable[[int], Any]

# The iterators of eager datasets: what `fit()` hands to its compiled function.
_Iterator: Any = tf.data.IteratorSpec(tf.TensorSpec(())).value_type


def resumable(fn: PipelineOf, *, first_epoch: int = 0) -> ResumableDataset:
    """Make one dataset from a function that creates the dataset of an epoch.

    Use it for tf.data pipelines. Pass the result to `fit()`, or iterate over it, like any
    `tf.data.Dataset`; each pass is the next epoch. If the pipeline depends only on the epoch, a
    resumed run gets exactly the same batches: pass `seed=epoch`, or a seed made from it, to
    `shuffle`, and use stateless random operations for augmentation.

    Args:
        fn: `epoch -> tf.data.Dataset`, with `epoch` zero-based. Called for each pass, and once
            immediately. Each epoch must have the same element spec and, for `fit()`, the same
            number of batches.
        first_epoch: Zero-based epoch of the first pass.

    Returns:
        A `tf.data.Dataset` that can start at any batch: `dataset.start(epoch, batch)`. Methods such
        as `map` and `prefetch` return one too, at the same position.

    Raises:
        ArgumentError: `fn` does not return a dataset, or `first_epoch` is not a zero-based index.
            While iterating: the dataset of an epoch has another element spec than the first.

    Example:

    >>> import keras_ckpt_tools as kct
    >>> import tensorflow as tf
    >>> dataset = kct.data.resumable(
    ...     lambda epoch: tf.data.Dataset.range(6).shuffle(6, seed=epoch).batch(2)
    ... )
    >>> epochs = [[batch.numpy().tolist() for batch in dataset] for _ in range(3)]
    >>> dataset.start(epoch=1, batch=2)
    >>> [batch.numpy().tolist() for batch in dataset] == epochs[1][2:]
    True
    """
    if not callable(fn):
        raise ArgumentError(
            "resumable() needs a function that makes the dataset of an epoch.",
            received=f"fn={type(fn).__name__}",
            remedy="Pass `lambda epoch: ...`, which returns a tf.data.Dataset.",
        )
    if not is_whole_number(first_epoch) or first_epoch < 0:
        raise ArgumentError(
            "first_epoch is a zero-based index.",
            received=f"first_epoch={first_epoch!r}",
            remedy="Pass 0, or the epoch that the first pass shall be.",
        )
    return ResumableDataset(fn, NextPass(first_epoch), _checked(fn(first_epoch), first_epoch))


class ResumableDataset(tf.data.Dataset):
    """What `resumable` returns; see there."""

    def __init__(self, fn: PipelineOf, position: NextPass, first: Any):
        self._fn = fn
        self._position = position
        self._first = first
        super().__init__(None)

    def start(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass be that of `epoch`, from `batch` on; later passes follow on.

        Args:
            epoch: Zero-based.
            batch: Zero-based. What comes before it is passed over by `tf.data.Dataset.skip`, which
                takes the time to make it but where the source can be indexed.

        Raises:
            ArgumentError: There is no such batch.
        """
        batches = int(self._first.cardinality())
        self._position.set(epoch, batch, batches if batches >= 0 else None)

    def __iter__(self) -> Any:
        if not tf.executing_eagerly():
            self._refuse("a loop inside tf.function")
        return _PassIterator(self._begin, self.element_spec)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} element_spec={self.element_spec}; "
            f"next is epoch {self._position.epoch}, batch {self._position.batch}>"
        )

    @property
    def element_spec(self) -> Any:
        """The type of an element; the same in every epoch."""
        return self._first.element_spec

    def cardinality(self) -> Any:
        """Return how many batches a whole epoch has, as `tf.data.Dataset.cardinality` does."""
        return self._first.cardinality()

    def options(self) -> Any:
        """Return the options of the first epoch's dataset."""
        return self._first.options()

    def repeat(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Refuse: each pass is another epoch already."""
        raise ArgumentError(
            "A resumable dataset is not repeated: each pass over it is the next epoch already.",
            remedy="Pass it to `fit(epochs=...)` or iterate over it again. If one epoch itself "
            "shall have no end, call `.repeat()` inside the function given to `resumable`.",
        )

    def _inputs(self) -> list[Any]:
        return []

    @property
    def _variant_tensor(self) -> NoReturn:
        self._refuse("this use of a tf.data.Dataset")

    def _refuse(self, use: str) -> NoReturn:
        raise ArgumentError(
            f"TensorFlow takes one pipeline for {use}, and a resumable dataset makes one for each "
            "epoch.",
            remedy="Do it inside the function given to `resumable`, iterate over the dataset in "
            "Python, or pass it to `fit()` without a distribution strategy.",
        )

    def _begin(self) -> Any:
        epoch, batch = self._position.take()
        pipeline = _checked(self._fn(epoch), epoch)
        if pipeline.element_spec != self.element_spec:
            raise ArgumentError(
                f"The dataset of epoch {epoch} has other elements than the first had.",
                received=f"element_spec={pipeline.element_spec}, expected {self.element_spec}",
                remedy="Let the function given to `resumable` return the same structure, dtypes "
                "and shapes for each epoch; `batch(..., drop_remainder=True)` for all or for none.",
            )
        return iter(pipeline.skip(batch) if batch else pipeline)


def _checked(pipeline: Any, epoch: int) -> Any:
    if not isinstance(pipeline, tf.data.Dataset) or isinstance(pipeline, ResumableDataset):
        raise ArgumentError(
            "The function given to `resumable` has to return a tf.data.Dataset.",
            received=f"fn({epoch})={type(pipeline).__name__}",
            remedy="Return the pipeline of that one epoch, as "
            "`tf.data.Dataset.from_tensor_slices(...).shuffle(n, seed=epoch).batch(32)` does; for "
            "arrays, `kct.data.ArrayDataset` does all of this.",
        )
    return pipeline


class _PassIterator(_Iterator):
    """An iterator of a dataset that is made when the first batch is asked for.

    All that TensorFlow asks of an iterator, from `next` to a compiled training step, it asks of the
    resource behind it.
    """

    def __init__(self, begin: Callable[[], Any], element_spec: Any):
        self._begin = begin
        self._begun: Any = None
        super().__init__(components=(None,), element_spec=element_spec)

    @property
    def _iterator_resource(self) -> Any:
        if self._begun is None:
            self._begun = self._begin()
        return self._begun._iterator_resource

    @_iterator_resource.setter
    def _iterator_resource(self, nothing_yet: None) -> None:
        """The base class would keep what it is given, and there is nothing yet."""

    @property
    def _dataset(self) -> Any:
        return None if self._begun is None else self._begun._dataset


def _inside_the_function(name: str) -> Callable[..., ResumableDataset]:
    original = getattr(tf.data.Dataset, name)

    def transform(self: ResumableDataset, *arguments: Any, **keywords: Any) -> ResumableDataset:
        def composed(epoch: int) -> Any:
            return original(_checked(self._fn(epoch), epoch), *arguments, **keywords)

        first = original(self._first, *arguments, **keywords)
        # Keras itself maps class weights over the dataset, and `start` is called on the original.
        return ResumableDataset(composed, self._position, first)

    transform.__name__ = name
    transform.__doc__ = f"Do as `tf.data.Dataset.{name}` does, in the pipeline of each epoch."
    return transform


for _name in """
    apply batch bucket_by_sequence_length cache concatenate enumerate filter flat_map
    group_by_window ignore_errors interleave map padded_batch prefetch ragged_batch rebatch
    rejection_resample scan shard shuffle skip snapshot sparse_batch take take_while unbatch unique
    window with_options
""".split():
    setattr(ResumableDataset, _name, _inside_the_function(_name))
