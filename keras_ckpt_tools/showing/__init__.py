"""Show values to users: text in a terminal, HTML in a notebook, progress bars.

This is in the lowest layer, because all others use it. rich is imported only to draw a bar.
"""
