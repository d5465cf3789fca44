"""By which names Keras called the group of an object whose class had another name.

Keras derives the place of a layer in a list from the name of its class (`layers/residual_block_1`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from keras_ckpt_tools.formats.naming import group_name

__all__ = ["old_groups"]


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
    now = group_name(former.cls.__name__)
    found = re.fullmatch(rf"{re.escape(now)}(_\d+)?", last)
    if found:
        for name in former.called:
            yield "/".join(filter(None, (above, f"{group_name(name)}{found[1] or ''}")))
