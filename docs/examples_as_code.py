"""Show the `>>>` examples of docstrings as code on the reference page.

Markdown would read them as quotations and their results as links. An extension of griffe, which
mkdocstrings reads docstrings with; `.mkdocs.yml` names it.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

# From a `>>>` to the next empty line, or to the end.
_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class ExamplesAsCode(griffe.Extension):
    """Put the examples of each docstring between code fences."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
