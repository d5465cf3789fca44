"""What registering does, and the order in which names are looked up."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import ArgumentError, DuplicateNameError, RegistryError
from keras_ckpt_tools.registry import Registry


def one(x):
    """Stand for an object."""
    return x


def two(x):
    """Stand for another object."""
    return x


def test_what_is_decorated_comes_back_as_it_is(names):
    """A decorator that changes its class would break pickling and `super()`."""
    assert names.register(one) is one
    assert names.register("p", name="second")(two) is two


def test_names_aliases_and_bare_names_are_found(names):
    """Every spelling that a file may have leads to the object."""
    names.register("p", aliases=["Old", "oldp>One"])(one)
    how = {name: names.find(name).how for name in ("p>one", "one", "Old", "p>Old", "oldp>One")}
    assert how == {
        "p>one": "registered",
        "one": "registered",
        "Old": "alias",
        "p>Old": "alias",
        "oldp>One": "alias",
    }
    assert names.find("q>one") is None
    assert names.find("q>Old") is None


def test_another_object_under_a_taken_name_names_both_places(names):
    """File and line of both, or one has to search."""
    names.register("p", name="same")(one)
    with pytest.raises(DuplicateNameError) as caught:
        names.register("p", name="same")(two)
    first, second = (f"{__file__}:{f.__code__.co_firstlineno}" for f in (one, two))
    assert (caught.value.existing, caught.value.new, caught.value.name) == (first, second, "p>same")
    assert first in str(caught.value)
    assert second in str(caught.value)
    assert names.get("p>same") is one


def test_all_clashes_come_in_one_error(names):
    """A name and two aliases that are taken are told at once."""
    names.register("p", aliases=["x>A", "x>B"])(one)
    with pytest.raises(DuplicateNameError) as caught:
        names.register("x", name="A", aliases=["p>one", "B"])(two)
    assert all(key in str(caught.value) for key in ("'x>A'", "'p>one'", "'x>B'"))
    assert two not in names
    assert len(names) == 1


def test_replace_takes_the_name_and_the_aliases(names):
    """The object that had the name is gone; one that had an alias keeps the rest."""
    names.register("p", name="A")(one)
    names.register("q", name="B", aliases=["x>C", "x>D"])(two)

    def three(x):
        return x

    names.register("p", name="A", aliases=["x>C"], replace=True)(three)
    assert names.get("p>A") is three
    assert one not in names
    assert names.get("x>C") is three
    assert names.get("x>D") is two
    assert names.entry(two).aliases == ("x>D",)


def test_one_object_has_one_name(names):
    """The name in a file must not depend on which import came last."""
    names.register("p")(one)
    with pytest.raises(RegistryError, match=r"aliases=\['q>one'\]"):
        names.register("q")(one)
    names.register("q", replace=True)(one)
    assert [entry.name for entry in names] == ["q>one"]


def test_registering_the_same_again_changes_the_aliases(names):
    """The last run of a definition counts, with all that it says."""
    names.register("p", aliases=["Old"])(one)
    names.register("p", aliases=["Older"], version=2)(one)
    assert names.get("Old") is None
    assert names.get("Older") is one
    assert names.entry(one).version == 2


def test_the_nearest_to_the_call_wins(names):
    """Explicit objects, then scopes from the inside out, then the registry."""
    names.register("p", name="A")(one)
    inner, outer, given = (lambda x: x), (lambda x: x), (lambda x: x)
    with names.scope({"A": outer}):
        with names.scope({"p>A": inner}):
            assert names.find("p>A", {"A": given}).obj is given
            assert names.find("p>A", {"B": given}).how == "scope"
            assert names.get("p>A") is inner
        assert names.get("p>A") is outer
    assert names.find("p>A").how == "registered"


def test_a_found_object_comes_with_its_entry(names):
    """Also where an explicit argument led to it: its version matters to the loader."""
    names.register("p", version=3)(one)
    assert names.find("X", {"X": one}).entry.version == 3
    assert names.find("X", {"X": two}).entry is None


def test_a_bare_name_of_two_packages_is_refused(names):
    """Neither is taken by chance; the full names work."""
    names.register("p", name="A")(one)
    names.register("q", name="A")(two)
    with pytest.raises(RegistryError, match="p>A, q>A"):
        names.get("A")
    assert names.get("q>A") is two
    assert "A" in names


def test_the_name_of_what_is_not_registered_is_its_own(names):
    """As Keras writes it; whether it is registered is another question."""
    assert names.name_of(one) == "one"
    assert one not in names
    names.register("p")(one)
    assert names.name_of(one) == "p>one"
    assert one in names


def test_an_object_goes_by_the_name_of_its_class(mirrored):
    """Layers of a model are asked for, not their classes."""
    import keras

    @mirrored.register("p")
    class Block(keras.layers.Layer):
        pass

    assert mirrored.name_of(Block()) == "p>Block"
    assert mirrored.entry(Block()).obj is Block
    assert Block() in mirrored


def test_names_that_are_no_names_are_not_found(names):
    """Files hold anything."""
    assert [names.find(name) for name in ("", None, 3, [])] == [None] * 4
    assert names.get("x", 5) == 5
    assert [] not in names
    assert names.entry({}) is None


def test_the_version_and_migration_are_kept(names):
    """The loader asks the entry for both."""

    def migrate(config, from_version):
        return {**config, "from": from_version}

    names.register("p", version=2, migrate=migrate)(one)
    entry = names.entry("p>one")
    assert entry.version == 2
    assert entry.migrate({}, 1) == {"from": 1}


def test_the_version_of_an_installed_package_is_known(names):
    """The record of a file says which release wrote a class."""
    import numpy

    def act(x):
        return x

    act.__module__ = "numpy.somewhere"
    names.register("np")(act)
    assert next(iter(names)).package_version == numpy.__version__


def test_near_names_come_from_every_table(names):
    """What the user meant may be registered, scoped or passed."""
    names.register("p", name="Block", aliases=["Blok"])(one)
    with names.scope({"Blocks": two}):
        near = names.nearest("q>Block", {"q>Block2": two})
    assert near[0] == "p>Block"
    assert {"Blocks", "q>Block2"} <= set(near)


def test_all_wrong_arguments_are_told_at_once(names):
    """One run shows them all, at the line of the decorator."""
    with pytest.raises(ArgumentError) as caught:
        names.register("a>b", name="", aliases="Old", version=0, migrate=3)
    text = str(caught.value)
    assert all(part in text for part in ("package=", "name=''", "'Old'", "version=0", "migrate=3"))
    for wrong in ({"aliases": ["a>b>c"]}, {"aliases": [3]}, {"version": True}, {"version": 1.5}):
        with pytest.raises(ArgumentError):
            names.register("p", **wrong)
    with pytest.raises(ArgumentError, match="older than version 1"):
        names.register("p", migrate=one)


def test_an_empty_registry_is_not_false():
    """`given or default` must not pass over it."""
    assert Registry()
    assert len(Registry()) == 0


def test_registering_functions_imports_no_framework():
    """A private registry has no need of Keras."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from keras_ckpt_tools.registry import Registry\n"
        "names = Registry()\n"
        "@names.register('p')\n"
        "def f(x): return x\n"
        "str(names), names.get('f'), names.nearest('g')\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_may_register_at_the_same_time(names):
    """No entry is lost."""
    import threading

    def work(number):
        for n in range(50):
            source = f"def f_{number}_{n}(x): return x"
            space = {"__name__": "m"}
            exec(source, space)
            names.register("p")(space[f"f_{number}_{n}"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 200
