"""Escape text from files, write names as code, and give warnings.

Names of layers, metrics and paths in files are third-party text. Control characters move the
cursor, bidirectional characters change what a name looks like, and line separators begin new lines.
So every character that Unicode does not consider printable is escaped here; all errors, warnings
and tables of the package use this. Values for programs (attributes of errors and reports, JSON) are
not changed.

Names also appear in code that a message suggests: `literal` writes a name as a Python literal.
"""

from __future__ import annotations

import keyword
import warnings


def harmless(text: str) -> str:
    r"""Return text with the escapes of all that is not printable, but for the ends of its lines.

    >>> harmless("a\x1b[2J\u202eb\nc")
    'a\\x1b[2J\\u202eb\nc'
    """
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def literal(text: str) -> str:
    r"""Return text as a literal of Python, whatever is in it.

    >>> print(literal("pkg>Name"), literal('a"]; b["'), literal("a\u202e"))
    "pkg>Name" 'a"]; b["' 'a\u202e'
    """
    plain = text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if plain else repr(text)


def as_name(text: str, otherwise: str) -> str:
    """Return text where it can be a name in code; something else where it cannot.

    >>> as_name("Scale", "TheClass"), as_name("a b", "TheClass"), as_name("class", "TheClass")
    ('Scale', 'TheClass', 'TheClass')
    """
    fits = text.isidentifier() and text.isprintable() and not keyword.iskeyword(text)
    return text if fits else otherwise


def warn(message: str, category: type[Warning] = UserWarning, stacklevel: int = 1) -> None:
    """Warn, as `warnings.warn` does, with everything in the message made harmless."""
    warnings.warn(harmless(message), category, stacklevel=stacklevel + 1)
