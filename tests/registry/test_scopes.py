"""Names for the time of a `with` block, for this package and for stock Keras."""

from __future__ import annotations

import itertools
import threading

import keras
import pytest

from keras_ckpt_tools.errors import ArgumentError

keras_objects = keras.saving.get_custom_objects()
look = keras.saving.get_registered_object


def a(x):
    """Stand for an object."""
    return x


def b(x):
    """Stand for another."""
    return x


def c(x):
    """Stand for a third."""
    return x


def in_thread(function):
    """Return what a function returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_an_inner_scope_of_keras_hides_the_outer_one_and_ours_does_not(mirrored):
    """The fault itself, and the merge in its place."""
    with keras.saving.custom_object_scope({"A": a}), keras.saving.custom_object_scope({"B": b}):
        assert look("A") is None
    with mirrored.scope({"A": a}), mirrored.scope({"B": b}):
        assert (look("A"), look("B")) == (a, b)
        assert (mirrored.get("A"), mirrored.get("B")) == (a, b)


def test_other_threads_see_a_scope(mirrored):
    """Stock Keras keeps its scopes to the thread; ours are found in both ways of asking."""
    with keras.saving.custom_object_scope({"A": a}):
        assert in_thread(lambda: look("A")) is None
    with mirrored.scope({"A": a}):
        assert in_thread(lambda: (look("A"), mirrored.get("A"))) == (a, a)
    assert in_thread(lambda: (look("A"), mirrored.get("A"))) == (None, None)


def test_stock_keras_loads_under_a_scope_in_both_threads(mirrored, tmp_path):
    """An undecorated class, saved and loaded with plain Keras."""

    class Extra(keras.layers.Layer):
        pass

    keras.Sequential([keras.Input((2,)), Extra()]).save(tmp_path / "m.keras")

    def load():
        return type(keras.models.load_model(tmp_path / "m.keras").layers[-1])

    with mirrored.scope({"Extra": Extra}):
        assert load() is Extra
        assert in_thread(load) is Extra
    with pytest.raises(TypeError, match="Extra"):
        load()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_scopes_may_be_closed_in_any_order(mirrored, order):
    """Whatever closes first, the innermost of those still open wins, and Keras is put back."""
    keras_objects["N"] = mirrored
    before = dict(keras_objects)
    scopes = [mirrored.scope({"N": f, f.__name__: f}) for f in (a, b, c)]
    for scope in scopes:
        scope.__enter__()
    still = [a, b, c]
    for number in order:
        assert look("N") is mirrored.get("N") is still[-1]
        scopes[number].__exit__(None, None, None)
        still.remove((a, b, c)[number])
    assert keras_objects == before
    assert list(keras_objects) == list(before)
    assert mirrored.get("N") is None


def test_keras_is_put_back_after_an_error(mirrored):
    """An exception closes a scope like any other exit."""
    keras_objects["A"] = b

    def fail():
        with mirrored.scope({"A": a, "B": b}):
            assert look("A") is a
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert look("A") is b
    assert "B" not in keras_objects
    assert mirrored.get("A") is None


def test_what_is_registered_under_a_scope_stays(mirrored):
    """By us and by Keras' own decorator; the scope wins as long as it is open."""
    with mirrored.scope({"p>a": b, "p>c": b}):
        mirrored.register("p")(a)
        keras.saving.register_keras_serializable("p")(c)
        assert look("p>a") is b
        assert mirrored.find("p>a").how == "scope"
    assert look("p>a") is a
    assert look("p>c") is c


def test_a_scope_may_be_closed_by_another_thread(mirrored):
    """A generator that owns one can be finalised anywhere."""
    before = dict(keras_objects)
    with keras.saving.custom_object_scope({"A": b}):
        scope = mirrored.scope({"A": a})
        scope.__enter__()
        in_thread(lambda: scope.__exit__(None, None, None))
        assert mirrored.get("A") is b
    assert keras_objects == before
    assert look("A") is None


def test_our_scope_inside_one_of_keras_wins_and_theirs_comes_back(mirrored):
    """The innermost counts, whichever package opened it."""
    with keras.saving.custom_object_scope({"A": b, "B": b}):
        with mirrored.scope({"A": a}):
            assert look("A") is a
            assert look("B") is b
            assert mirrored.get("A") is a
            assert mirrored.get("B") is b
        assert look("A") is b
        assert mirrored.get("A") is b
    assert look("A") is None
    assert mirrored.get("A") is None


def test_threads_that_open_and_close_at_once_leave_nothing(mirrored):
    """Many overlapping scopes, one clean table."""
    before = dict(keras_objects)
    failures = []

    def work(function):
        for _ in range(200):
            with mirrored.scope({"N": function, function.__name__: function}):
                if look(function.__name__) is not function:
                    failures.append(function)

    threads = [threading.Thread(target=work, args=(f,)) for f in (a, b, c)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert keras_objects == before


def test_one_scope_may_be_entered_again(mirrored):
    """Recursion through a loader does not lose the outer one."""
    scope = mirrored.scope({"A": a})
    with scope:
        with scope:
            pass
        assert mirrored.get("A") is a
        assert "open" in repr(scope)
    assert mirrored.get("A") is None
    assert "closed" in repr(scope)


def test_all_wrong_entries_are_told_at_once(names):
    """An object in place of its class, a number, a key that is no name."""
    with pytest.raises(ArgumentError) as caught:
        names.scope({"Dense": keras.layers.Dense(2), "n": 3, 4: a, "": a, "good": a})
    text = str(caught.value)
    assert all(part in text for part in ("pass Dense itself", "'n' is 3", "key 4", "key ''"))
    assert "'good' is" not in text


@pytest.mark.parametrize("objects", [[a], "A", a])
def test_a_scope_takes_a_mapping(names, objects):
    """The message shows how to write one."""
    with pytest.raises(ArgumentError, match=r'objects=\{"Name": Name\}'):
        names.scope(objects)
