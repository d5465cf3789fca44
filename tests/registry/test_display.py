"""The registry as a table."""

from __future__ import annotations


def test_the_terminal_shows_name_kind_version_aliases_and_place(mirrored):
    """Everything one asks of a name stands in one row."""
    import keras

    @mirrored.register("p", aliases=["Old"], version=4)
    class Block(keras.layers.Layer):
        pass

    @mirrored.register("p")
    class Net(keras.Model):
        pass

    lines = str(mirrored).splitlines()
    assert lines[0].split() == ["name", "kind", "version", "aliases", "defined", "at"]
    assert lines[2].split()[:4] == ["p>Block", "layer", "4", "Old"]
    assert __file__ in lines[2]
    assert lines[3].split()[1] == "model"


def test_an_empty_registry_says_how_to_fill_it(names):
    """An empty table tells nothing."""
    assert "@register" in repr(names)


def test_html_is_escaped(names):
    """Names come from anybody's code."""

    def act(x):
        return x

    names.register("p", name="<script>".replace(">", ""), aliases=["<b>x", "a&b"])(act)
    html = names._repr_html_()
    assert "<b" not in html.replace("<tbody", "")
    assert "<script" not in html
    assert "&lt;b&gt;x" in html
    assert "a&amp;b" in html
    assert "p&gt;&lt;script" in html
