"""Make text of others harmless: names out of files -> *escaped* -> terminal, log, warning, error.

What a file says its layers, metrics and paths are called is somebody else's text. Control
characters move the cursor and rewrite what stands above them; bidirectional ones show a name
otherwise than it is compared; line separators begin lines that we did not write. Everything that
Unicode does not call printable is shown as its escape, here, in the one place: each error and each
warning of the package goes through it, and each table (`tables`) does. Values themselves, for
programs (attributes of errors and reports, JSON), are never changed.

Code that a message suggests is made of names too. `literal` writes one as Python reads it back.
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
