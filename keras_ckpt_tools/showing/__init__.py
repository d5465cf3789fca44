"""How values are shown to people: text for a terminal, HTML for a notebook, a bar for a long wait.

It stands on the lowest floor, because every floor above it has something to show. Nothing here
knows what it shows, and rich is imported only when a bar is really drawn.
"""
