"""Import what is private in Keras and TensorFlow; no other module does.

Keras has no public way to walk what a model saves, so a few private names are needed. Each is
listed here with the reason, and with what happens where a Keras version lacks it. Tested with Keras
3.10 and the newest 3.x, and with TensorFlow 2.18 and the newest 2.x.
"""

import importlib
import random
import sys
from typing import Any

# Walks layers, optimizers and metrics in the order, and under the paths, of Keras' own files. There
# is no public equivalent. A Keras without them would need a copy of the walk.
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
# view of the first. The second (object to name) and the thread's open scopes have no public view.
from keras.src.saving.object_registration import GLOBAL_CUSTOM_NAMES as GLOBAL_CUSTOM_NAMES
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS as GLOBAL_CUSTOM_OBJECTS
from keras.src.backend.common import global_state as global_state

# Functions with which Keras looks up names in a config. While a model is built from a file, they
# return only what was allowed. Keras has no public setting for that.
from keras.src.layers.preprocessing.index_lookup import IndexLookup as IndexLookup
from keras.src.legacy.saving import json_utils as legacy_json_utils
from keras.src.legacy.saving import serialization as legacy_serialization
from keras.src.saving import object_registration as object_registration
from keras.src.saving import serialization_lib as serialization_lib
from keras.src.utils import python_utils as python_utils

# The module with the settings of the process. The other settings are in `global_state`.
from keras.src.backend import config as backend_config

# Writes and reads whole-model HDF5 files. Public `model.save("x.h5")` overwrites its target in
# place. This writer takes an open `h5py.File`, which can be a staged file.
from keras.src.legacy.saving.legacy_h5_format import (
    load_model_from_hdf5 as load_model_from_hdf5,
)
from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5 as save_model_to_hdf5

# Gives `fit()` its batches. Its facts about the data, and the first step of an epoch, are not
# public. Where it is missing, an interrupted epoch starts over.
from keras.src.trainers.epoch_iterator import EpochIterator as EpochIterator

# Every variable of Keras is one of these. Its constructor can refuse memory before it is taken.
# There is no public hook.
from keras.src.backend.common.variables import Variable as Variable

# The module that Keras' layers take operations from (`keras.ops` is another, with the same
# functions). One layer makes arrays with the shape of its input through it.
from keras.src import ops as layer_ops

# Prints a line as Keras does (under or above a progress bar, or through absl).
from keras.src.utils.io_utils import print_msg as print_msg

# Choose how `fit()` reads its data, and read a `PyDataset`. Keras shuffles its batches without a
# hook. A Keras without these names would need another way to restore their order.
from keras.src.trainers import data_adapters as data_adapters
from keras.src.trainers.data_adapters.py_dataset_adapter import (
    PyDatasetAdapter as PyDatasetAdapter,
)

CUSTOM_OBJECTS_SCOPE = "custom_objects_scope_dict"

# The seed of `keras.utils.set_random_seed`, and the generator behind `keras.random.normal(...)`
# without a seed. Keras' functions that return them would create the generator. In a Keras that
# stores them elsewhere, they are left out of the state.
GLOBAL_SEED = "global_random_seed"
GLOBAL_SEED_GENERATOR = "global_seed_generator"


# TensorFlow's eager context has the seed of `tf.random.set_seed`, and a Python generator from
# which each eager random op without its own seed draws one. Neither can be read in a public way.
# `tf.random.get_global_generator()` creates the generator where there is none. Where TensorFlow
# stores one of these elsewhere, or is not imported, it is left out of the state.


def _of_tensorflow(module: str) -> Any:
    return importlib.import_module(module) if "tensorflow" in sys.modules else None


def eager_seed() -> Any:
    """Return the last seed of `tf.random.set_seed`, or `None`."""
    return getattr(_eager_context(), "_seed", None)


def _eager_context() -> Any:
    found = _of_tensorflow("tensorflow.python.eager.context")
    return None if found is None else found.context()


def eager_operation_seeds() -> random.Random | None:
    """Return the generator of operation seeds; `None` where there is no seed or no generator."""
    found = getattr(_eager_context(), "_rng", None)
    return found if isinstance(found, random.Random) else None


def tensorflow_global_generator() -> Any:
    """Return `tf.random`'s global generator if it exists, or `None`."""
    found = _of_tensorflow("tensorflow.python.ops.stateful_random_ops")
    return getattr(found, "global_generator", None)
