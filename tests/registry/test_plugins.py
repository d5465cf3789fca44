"""Names that installed packages declare."""

from __future__ import annotations

import sys

import pytest

from keras_ckpt_tools.errors import RegistryError

SOURCE = """
    def act(x):
        return x

    number = 3
"""


def test_a_plugin_is_imported_only_when_its_name_is_needed(names, install_plugin):
    """Asking for another name, or for near ones, reads metadata only."""
    install_plugin("plug_lazy", SOURCE, {"plug>act": "plug_lazy:act"})
    assert names.find("plug>other") is None
    assert "plug>act" in names.nearest("plugs>act")
    assert names.find("plug>act", plugins=False) is None
    assert "plug_lazy" not in sys.modules
    found = names.find("plug>act")
    assert found.how == "plug-in"
    assert found.obj is sys.modules["plug_lazy"].act


def test_bare_and_qualified_declarations_answer_for_both_spellings(names, install_plugin):
    """As everywhere else."""
    install_plugin("plug_both", SOURCE, {"plug>act": "plug_both:act", "bare": "plug_both:act"})
    assert names.get("act") is names.get("bare") is names.get("any>bare")
    assert names.get("other>act") is None


def test_what_the_user_registered_wins_over_a_plugin(names, install_plugin):
    """An installed package cannot change what a program says itself."""
    install_plugin("plug_late", SOURCE, {"p>act": "plug_late:act"})

    @names.register("p")
    def act(x):
        return x

    assert names.get("p>act") is act
    assert "plug_late" not in sys.modules


def test_a_plugin_may_register_its_object_when_imported(names, install_plugin, monkeypatch):
    """Then the version that it gives is known, and a bare one serves its package only."""
    import builtins

    monkeypatch.setattr(builtins, "the_registry", names, raising=False)
    source = "@the_registry.register('plug', version=3)\ndef act(x):\n    return x\n"
    install_plugin("plug_self", source, {"act": "plug_self:act"})
    assert names.find("foreign>act") is None
    assert names.find("plug>act").entry.version == 3


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_module_here", "ModuleNotFoundError"),
        ("raise SystemError('boom')", "boom"),
        ("x = 1", "AttributeError"),
        ("act = 3", "neither a class nor a function"),
    ],
)
def test_a_broken_plugin_gives_a_warning_and_is_not_found(names, install_plugin, source, why):
    """A load that does not need it goes on; one that does learns why."""
    install_plugin("plug_broken", source, {"p>act": "plug_broken:act"})
    with pytest.warns(UserWarning, match=why) as caught:
        assert names.find("p>act") is None
    assert "p>act = plug_broken:act of dist-of-plug-broken 1.5" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_two_plugins_of_one_name_are_refused(names, install_plugin):
    """Which was meant depends on the order of installation: nobody's choice."""
    install_plugin("plug_one", SOURCE, {"p>act": "plug_one:act"})
    install_plugin("plug_two", SOURCE, {"p>act": "plug_two:act"})
    with pytest.raises(RegistryError, match=r"(?s)dist-of-plug-.*dist-of-plug-"):
        names.get("p>act")


def test_a_plugin_that_is_installed_twice_is_one(names, install_plugin):
    """An editable install beside a wheel declares the same object twice."""
    install_plugin("plug_same", SOURCE, {"p>act": "plug_same:act"})
    install_plugin("plug_same", SOURCE, {"p>act": "plug_same:act"}, name="copy")
    assert names.find("p>act").how == "plug-in"
