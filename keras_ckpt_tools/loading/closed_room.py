"""Let Keras build from a file, with nothing in reach but what was resolved: verdicts -> *build*.

Keras looks names up in process-wide tables, and there a global entry wins over an explicit argument
in silence (3.15). So for the time of a build those tables say, for every name that the file
contains, exactly what was resolved: the object, or nothing. Names that the file does not contain
are left as they are, because code of the user's own may look them up while it builds. Keras' safe
mode is on whatever the process-wide switch says, except where code in the file was trusted by name.

One build at a time; afterwards all is as it was, after a failure too: the tables, and what holds
for the whole process (epsilon, float type, data format, dtype policy). What was registered
meanwhile (a module that a custom class imports) stays registered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals

__all__ = ["closed_room", "strings_of"]

# Names under which Keras keeps its state of the thread: safe mode, and the objects that several
# places of one config share. Keras has public switches for neither.
_SAFE_MODE = "safe_mode_saving"
_SHARED = ("shared_objects/id_to_obj_map", "shared_objects/id_to_config_map")

_building = threading.RLock()

# What holds for the whole process, and how it is put back.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], None]], ...] = (
    (keras.config.epsilon, keras.config.set_epsilon),
    (keras.config.floatx, keras.config.set_floatx),
    (keras.config.image_data_format, keras.config.set_image_data_format),
    (keras.config.dtype_policy, keras.config.set_dtype_policy),
)


@contextmanager
def closed_room(
    objects: Mapping[str, Any], strings: Iterable[str], *, runs_code: bool = False
) -> Iterator[None]:
    """Give Keras exactly these objects for the names of a file.

    Args:
        objects: What was resolved, by the names that the file uses.
        strings: All strings of the file: none of them reaches anything else.
        runs_code: Whether code in the file may run.
    """
    state = internals.global_state
    said = frozenset(strings)
    with _building:
        everything = internals.GLOBAL_CUSTOM_OBJECTS
        hidden = {
            name: obj
            for name, obj in list(everything.items())
            if name in objects or name in said or name.rpartition(">")[2] in said
        }
        attributes = (internals.CUSTOM_OBJECTS_SCOPE, _SAFE_MODE, *_SHARED)
        before = {name: state.get_global_attribute(name) for name in attributes}
        settings = [get() for get, _ in _SETTINGS]
        for name in hidden:
            del everything[name]
        everything.update(objects)
        state.set_global_attribute(internals.CUSTOM_OBJECTS_SCOPE, dict(objects))
        state.set_global_attribute(_SAFE_MODE, not runs_code)
        for name in _SHARED:
            state.set_global_attribute(name, {})
        try:
            yield
        finally:
            for name, obj in objects.items():
                if everything.get(name) is obj:
                    del everything[name]
            for name, obj in hidden.items():
                everything.setdefault(name, obj)
            for name, value in before.items():
                state.set_global_attribute(name, value)
            for (get, put), setting in zip(_SETTINGS, settings, strict=True):
                if get() != setting:
                    put(setting)


def strings_of(*configs: Any) -> set[str]:
    """Return every string in configs, keys left out.

    >>> sorted(strings_of({"class_name": "Dense", "config": {"inner": ["relu"]}}))
    ['Dense', 'relu']
    """
    found: set[str] = set()
    todo = list(configs)
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, Mapping):
            todo.extend(value.values())
        elif isinstance(value, (list, tuple)):
            todo.extend(value)
    return found
