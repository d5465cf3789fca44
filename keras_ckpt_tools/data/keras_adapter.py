"""Make `fit()` read an `ArrayDataset` in the dataset's own order.

With `fit(shuffle=True)`, the default, Keras shuffles the batches of every `PyDataset` with Python's
global generator (`PyDatasetAdapter` and `OrderedEnqueuer` in
keras/src/trainers/data_adapters/py_dataset_adapter.py, 3.10 to 3.15). This order could not be
replayed, and Keras' draws would change the program's own random numbers. Also, `dataset[i]` does
not contain the epoch. So these datasets need their own adapter.

Keras accepts an adapter instead of data, but then ignores `class_weight`. So the function that
chooses adapters is wrapped when this module is imported: it works as before, except for an
`InOrderDataset`. If a version of Keras does not call this function, the dataset raises an error,
because a wrong order would not be noticed.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator
from typing import Any

import keras

from keras_ckpt_tools._keras_internals import PyDatasetAdapter, data_adapters
from keras_ckpt_tools.errors import CkptError


class InOrderDataset(keras.utils.PyDataset, abc.ABC):
    """A dataset whose batches Keras takes in the order that the dataset has."""

    @abc.abstractmethod
    def batches(self) -> Iterator[Any]:
        """Yield the batches of the next pass, which begins when the first is asked for."""

    @abc.abstractmethod
    def sample(self) -> Any:
        """Return a batch of one sample, which shows what batches are like."""

    def on_epoch_begin(self) -> None:
        """Refuse an order that Keras would make; `InOrderAdapter` never calls this."""
        raise CkptError(
            f"Keras iterates over this {type(self).__name__} in an order of its own.",
            received=f"keras.__version__={keras.__version__!r}",
            remedy="Something has replaced Keras' choice of data adapters after keras_ckpt_tools "
            "was imported, or this version of Keras is not known: iterate over the dataset in a "
            "loop of your own, or report this.",
        )


class InOrderAdapter(PyDatasetAdapter):
    """Gives Keras the batches of an `InOrderDataset` as they come."""

    def __init__(self, dataset: InOrderDataset, class_weight: Any = None):
        super().__init__(dataset, class_weight=class_weight, shuffle=False)
        # The dataset reads ahead by itself; see `parallel`.
        self.enqueuer = None

    def _get_iterator(self) -> Iterator[Any]:
        # A generator, so that the pass is begun when its first batch is asked for.
        for batch in self.py_dataset.batches():
            yield self._standardize_batch(batch)

    def _standardize_batch(self, batch: Any) -> Any:
        # tf.data takes a list for a tensor. Keras does the same with arrays that `fit()` is given.
        return keras.tree.lists_to_tuples(super()._standardize_batch(batch))

    def get_tf_dataset(self) -> Any:
        import tensorflow as tf

        # Keras would read two batches to see what they are like.
        self._output_signature = keras.tree.map_structure(
            lambda row: tf.TensorSpec((None, *row.shape[1:]), row.dtype),
            self._standardize_batch(self.py_dataset.sample()),
        )
        return super().get_tf_dataset()

    def on_epoch_begin(self) -> None:
        """Do nothing: a pass begins with its first batch."""

    def on_epoch_end(self) -> None:
        """Do nothing: a pass ends with its last batch."""


def _install() -> None:
    """Let Keras use `InOrderAdapter` for each `InOrderDataset`."""
    choose = data_adapters.get_data_adapter

    @functools.wraps(choose)
    def get_data_adapter(*args: Any, **kwargs: Any) -> Any:
        adapter = choose(*args, **kwargs)
        dataset = getattr(adapter, "py_dataset", None)
        if isinstance(dataset, InOrderDataset) and not isinstance(adapter, InOrderAdapter):
            return InOrderAdapter(dataset, adapter.class_weight)
        return adapter

    data_adapters.get_data_adapter = get_data_adapter


_install()
