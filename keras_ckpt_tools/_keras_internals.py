"""The one door to `keras.src`.

Keras gives no public way to walk what a model saves, so a few names have to be borrowed. Each
stands here with the reason, and with what to do where a Keras version lacks it; nothing else in
the package imports from `keras.src`. Tested on Keras 3.10 and the newest 3.x.
"""

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

# Writes and reads whole-model HDF5 files. Public `model.save("x.h5")` overwrites its target in
# place; this takes an open `h5py.File`, which can be a staged one.
from keras.src.legacy.saving.legacy_h5_format import (
    load_model_from_hdf5 as load_model_from_hdf5,
)
from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5 as save_model_to_hdf5

# Every variable that Keras makes is one of these. Its constructor is where memory can be refused
# before it is taken; there is no public hook.
from keras.src.backend.common.variables import Variable as Variable

# Prints a line in Keras' own manner (under or above a progress bar, or through absl).
from keras.src.utils.io_utils import print_msg as print_msg

CUSTOM_OBJECTS_SCOPE = "custom_objects_scope_dict"
