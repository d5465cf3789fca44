"""Where an object was defined, and what counts as the same definition."""

from __future__ import annotations

import linecache

import pytest

from keras_ckpt_tools.errors import DuplicateNameError, NotSerializableError, RegistryError

SOURCE = """
    def register(fn):
        return fn

    @register
    class Plain(dict):
        pass

    class Outer:
        class Inner:
            x = 1

    def function():
        return 1
"""


def cell(number, source, **names):
    """Run source the way a notebook does: in `__main__`, from a file of its own."""
    file = f"/tmp/ipykernel_1/{number}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    space = {"__name__": "__main__", **names}
    exec(compile(source, file, "exec"), space)
    return space


def test_places_are_the_lines_of_the_first_decorator(write_module):
    """A class without methods is found as well, and a nested one."""
    from keras_ckpt_tools.registry.definitions import place_of

    module = write_module("places_module", SOURCE)
    found = [place_of(o) for o in (module.Plain, module.Outer.Inner, module.function)]
    assert found == [(module.__file__, line) for line in (5, 10, 13)]


def test_a_notebook_cell_that_runs_again_replaces(names):
    """Each run has a file of its own; the name stays with the latest class."""
    source = "@register\nclass Block(dict):\n    def get_config(self): ...\n    from_config = 1\n"
    cell(1, source, register=names.register)
    second = cell(2, "\n" + source, register=names.register)
    assert names.get("Custom>Block") is second["Block"]
    assert len(names) == 1
    assert names.entry("Block").place == "/tmp/ipykernel_1/2.py:2"


def test_objects_of_a_replaced_class_keep_their_name(names):
    """A model that was built before the cell ran again is still saved under the name."""
    source = "@register\ndef act(x):\n    return x\n"
    first = cell(1, source, register=names.register)
    cell(2, source, register=names.register)
    assert names.name_of(first["act"]) == "Custom>act"


def test_an_edited_and_reloaded_module_replaces(names, write_module, monkeypatch):
    """The definition moved to another line, and is the same."""
    import builtins

    monkeypatch.setattr(builtins, "the_registry", names, raising=False)
    source = "@the_registry.register('p')\ndef f(x):\n    return {}\n"
    write_module("reloaded_module", source.format(1))
    module = write_module("reloaded_module", "x = 1\n\n\n" + source.format(2000))
    assert names.get("p>f") is module.f
    assert names.entry("p>f").line == 4


def test_a_copied_definition_in_one_file_is_a_different_object(names, write_module, monkeypatch):
    """A class that was copied and not renamed would else replace the first in silence."""
    import builtins

    monkeypatch.setattr(builtins, "the_registry", names, raising=False)
    source = "@the_registry.register('p')\ndef f(x):\n    return 1\n"
    with pytest.raises(DuplicateNameError) as caught:
        write_module("copied_module", source + "\n" + source)
    assert caught.value.existing.endswith("copied_module.py:1")
    assert caught.value.new.endswith("copied_module.py:5")


def test_one_file_imported_under_two_names_is_one_definition(names, write_module, monkeypatch):
    """A script that a worker imports again does not clash with itself."""
    import builtins
    import importlib.util

    monkeypatch.setattr(builtins, "the_registry", names, raising=False)
    first = write_module("twice_module", "@the_registry.register('p')\ndef f(x):\n    return 1\n")
    spec = importlib.util.spec_from_file_location("other_name", first.__file__)
    second = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(second)
    assert names.get("p>f") is second.f


def test_a_factory_may_run_twice(names):
    """A class defined in a function is the same definition each time."""

    def make():
        @names.register("p")
        def inner(x):
            return x

        return inner

    make()
    latest = make()
    assert names.get("inner") is latest


@pytest.mark.parametrize("main", ["__main__", "__mp_main__"])
def test_scripts_and_their_workers_use_the_package_of_keras(names, main):
    """A spawned process finds what its parent saved."""
    space = {"__name__": main, "register": names.register}
    exec("@register\ndef act(x):\n    return x\n", space)
    assert names.name_of(space["act"]) == "Custom>act"


def test_bare_register_takes_the_top_level_package(names):
    """That is the package that a user would name."""

    def act(x):
        return x

    act.__module__ = "pkg.sub.module"
    names.register(act)
    assert names.name_of(act) == "pkg>act"


def test_a_lambda_is_refused_with_what_to_write(names):
    """Keras would save its bytecode, whatever it was registered as."""
    with pytest.raises(NotSerializableError, match="def my_function"):
        names.register("p", name="double")(lambda x: 2 * x)


@pytest.mark.parametrize("thing", [3, len, "text", object()])
def test_only_classes_and_functions_can_be_registered(names, thing):
    """Whatever else is decorated is named by its type."""
    with pytest.raises(RegistryError, match=type(thing).__name__):
        names.register("p")(thing)
