"""The one door to `keras.src`, and to what TensorFlow keeps to itself.

Keras gives no public way to walk what a model saves, so a few names have to be borrowed. Each
stands here with the reason, and with what to do where a Keras version lacks it; nothing else in
the package imports from `keras.src` or `tensorflow.python`. Tested on Keras 3.10 and the newest
3.x, with TensorFlow 2.18 and the newest 2.x.
"""

import importlib
import random
import sys
from typing import Any

# Walks layers, optimizers and metrics in the order, and under the paths, of Keras' own files. There
# is no public equivalent; a Keras without them could only be served by a copy of the walk.
from keras.src.saving.saving_lib import DiskIOStore as DiskIOStore
from keras.src.saving.saving_lib import H5IOStore as H5IOStore
from keras.src.saving.saving_lib import _load_state as load_state
from keras.src.saving.saving_lib import _save_state as save_state
from keras.src.saving.saving_lib import get_attr_skipset as get_attr_skipset

# Writes the two JSON members of a `.keras` archive exactly as Keras does.
from keras.src.saving.saving_lib import _serialize_model_as_json as serialize_model_as_json

# What can be tracked and saved at all: layers, models, optimizers, losses, metrics.
from keras.src.saving.keras_saveable import KerasSaveable as KerasSaveable

# The registries that `deserialize_keras_object` looks into. `get_custom_objects()` is the public
# view of the first; the second (object to name) and the thread's open scopes have none.
from keras.src.saving.object_registration import GLOBAL_CUSTOM_NAMES as GLOBAL_CUSTOM_NAMES
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS as GLOBAL_CUSTOM_OBJECTS
from keras.src.backend.common import global_state as global_state

# Where Keras looks up what a config names. While a model is built from a file, these answer only
# for what was allowed; there is no public way to say so.
from keras.src.layers.preprocessing.index_lookup import IndexLookup as IndexLookup
from keras.src.legacy.saving import json_utils as legacy_json_utils
from keras.src.legacy.saving import serialization as legacy_serialization
from keras.src.saving import object_registration as object_registration
from keras.src.saving import serialization_lib as serialization_lib
from keras.src.utils import python_utils as python_utils

# The module whose variables are the settings of the process; the rest of them is in `global_state`.
from keras.src.backend import config as backend_config

# Writes and reads whole-model HDF5 files. Public `model.save("x.h5")` overwrites its target in
# place; this takes an open `h5py.File`, which can be a staged one.
from keras.src.legacy.saving.legacy_h5_format import (
    load_model_from_hdf5 as load_model_from_hdf5,
)
from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5 as save_model_to_hdf5

# Gives `fit()` its batches. What it says about the data, and where an epoch's enumeration of steps
# begins, has no public door; where it is missing, an interrupted epoch begins anew.
from keras.src.trainers.epoch_iterator import EpochIterator as EpochIterator

# Every variable that Keras makes is one of these. Its constructor is where memory can be refused
# before it is taken; there is no public hook.
from keras.src.backend.common.variables import Variable as Variable

# The module that Keras' layers take operations from (`keras.ops` is another, with the same
# functions): by way of it, one makes arrays by the shape of its input.
from keras.src import ops as layer_ops

# Prints a line in Keras' own manner (under or above a progress bar, or through absl).
from keras.src.utils.io_utils import print_msg as print_msg

# Chooses how `fit()` takes its data, and takes a `PyDataset`. Keras shuffles the batches of one by
# itself and asks nobody; a Keras without these names would need another way to keep their order.
from keras.src.trainers import data_adapters as data_adapters
from keras.src.trainers.data_adapters.py_dataset_adapter import (
    PyDatasetAdapter as PyDatasetAdapter,
)

CUSTOM_OBJECTS_SCOPE = "custom_objects_scope_dict"

# What `keras.utils.set_random_seed` leaves, and the generator behind `keras.random.normal(...)`
# without a seed. Asking Keras for either by its functions would make the second. A Keras that keeps
# them elsewhere shows neither here, and they are left out of the state.
GLOBAL_SEED = "global_random_seed"
GLOBAL_SEED_GENERATOR = "global_seed_generator"


# TensorFlow's eager context has the seed of `tf.random.set_seed`, and a generator of Python's from
# which each eager random op without a seed of its own draws one; neither has a public way to be
# read. `tf.random.get_global_generator()` makes the generator that it is asked for. A TensorFlow
# that has one of these elsewhere, or is not imported, shows none here: it is left out of the state.


def _of_tensorflow(module: str) -> Any:
    return importlib.import_module(module) if "tensorflow" in sys.modules else None


def eager_seed() -> Any:
    """Return what `tf.random.set_seed` was last given, or `None`."""
    return getattr(_eager_context(), "_seed", None)


def _eager_context() -> Any:
    found = _of_tensorflow("tensorflow.python.eager.context")
    return None if found is None else found.context()


def eager_operation_seeds() -> random.Random | None:
    """Return the generator of operation seeds; `None` before a seed is set, or where it is gone."""
    found = getattr(_eager_context(), "_rng", None)
    return found if isinstance(found, random.Random) else None


def tensorflow_global_generator() -> Any:
    """Return `tf.random`'s global generator if it exists, or `None`."""
    found = _of_tensorflow("tensorflow.python.ops.stateful_random_ops")
    return getattr(found, "global_generator", None)
