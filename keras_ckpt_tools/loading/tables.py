"""Reports as text and as HTML, made harmless: what `showing.tables` has, for this floor."""

from __future__ import annotations

from keras_ckpt_tools.showing.tables import as_html, as_text, printable

__all__ = ["as_html", "as_text", "printable"]
