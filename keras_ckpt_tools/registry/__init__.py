"""Names for custom objects: what a file calls a class or function, and where to find it.

    decorate ──► entry ──► name in the file ──► find ──► the object again
                   │
                   └─ mirrored into Keras' own registry (the default registry only)

    names           how a qualified or bare name matches, and which one is nearest
    definitions     where an object was defined; whether two objects are one definition, run twice
    entries         the frozen record of one registered object
    rebuildable     refuses a class that could be saved and never be built again
    scopes          names for the time of a `with` block
    mirror          the same names in Keras' own tables
    plugins         names that installed packages declare, imported when one is needed
    options         what `register` was asked for
    table           the entries: which names are taken, what replaces what
    registries      the face of it all, and the order of lookup
    display         the table, for people
    serializable    tries the round trip of one object

Nothing here imports Keras until something is registered, scoped or checked: reading a file's
metadata, and the command line, need names but no framework.
"""

from __future__ import annotations

from keras_ckpt_tools.registry.entries import Entry, Found
from keras_ckpt_tools.registry.registries import Registry
from keras_ckpt_tools.registry.serializable import check_serializable

__all__ = ["Entry", "Found", "Registry", "check_serializable", "register", "registry", "scope"]

registry = Registry(mirror=True)
register = registry.register
scope = registry.scope
