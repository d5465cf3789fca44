"""By which names Keras called the group of an object whose class had another name.

Keras derives the place of a layer in a list from the name of its class (`layers/residual_block_1`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["old_groups", "place_name"]


def place_name(class_name: str) -> str:
    """Return what Keras calls the group of an object of a class in a list.

    Source: `keras/src/utils/naming.py`, `to_snake_case`.

    >>> place_name("ResidualBlock"), place_name("Conv2DBlock")
    ('residual_block', 'conv2d_block')
    """
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def old_groups(group: str, former: Any) -> Iterator[str]:
    """Yield the groups where the weights of an object may be, the likeliest first.

    Args:
        group: Where they would be by the name that its class has now.
        former: The class, as `registry.formers` says it.

    >>> from types import SimpleNamespace
    >>> former = SimpleNamespace(cls=type("Block", (), {}), called=("OldBlock",))
    >>> list(old_groups("layers/block_1", former))
    ['layers/block_1', 'layers/old_block_1']
    """
    yield group
    above, _, last = group.rpartition("/")
    now = place_name(former.cls.__name__)
    found = re.fullmatch(rf"{re.escape(now)}(_\d+)?", last)
    if found:
        for name in former.called:
            yield "/".join(filter(None, (above, f"{place_name(name)}{found[1] or ''}")))
