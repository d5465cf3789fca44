"""Names for custom objects: `register`, `scope`, `check_serializable`, the default registry.

    decorate ──► entry ──► name in the file ──► find ──► the object again
                   │
                   └─ mirrored into Keras' own registry (the default registry only)

Keras is imported only when something is registered, scoped or checked: reading the metadata of a
file, and the command line, need names but no framework.
"""

from __future__ import annotations

from keras_ckpt_tools.registry.entries import Entry, Found
from keras_ckpt_tools.registry.registries import Registry
from keras_ckpt_tools.registry.serializable import check_serializable

__all__ = ["Entry", "Found", "Registry", "check_serializable", "register", "registry", "scope"]

registry = Registry(mirror=True)
register = registry.register
scope = registry.scope
