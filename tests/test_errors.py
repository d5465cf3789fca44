"""The tree of errors: each one travels, keeps its promises, and says what to do."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
from pathlib import Path

import keras
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools import errors
from keras_ckpt_tools.formats.record.userblock import MAGIC

TREE = [getattr(errors, name) for name in errors.__all__]

# A value for every attribute that any error promises.
FACTS = {
    "available": ("loss", "val_loss"),
    "arguments": ("units",),
    "class_name": "Price",
    "errno": 28,
    "existing": "a.py:3",
    "found": 2,
    "from_version": 1,
    "how": "it ends after 12 bytes",
    "to_version": 3,
    "key": "acc",
    "kind": "pickle",
    "lost": ("units",),
    "missing": ("shop>Price",),
    "monitor": "val_acc",
    "name": "shop>Price",
    "nearby": ("b.keras",),
    "new": "b.py:7",
    "package": "matplotlib",
    "path": "a.keras",
    "places": ("'gru' has time_major=True: save it without",),
    "report": {"missing": ("layers/dense/vars/0",)},
    "supported": 1,
    "untracked": (("layer 'a' (A).scale", "a tf.Variable", "track it"),),
    "untrusted": ("other>Thing",),
    "refused": ("keras>Thing",),
    "limit": "max_bytes",
    "needed": 2_000,
    "allowed": 1_000,
}
BUILTINS = {
    "ArgumentError": ValueError,
    "ArtefactKindError": ValueError,
    "ArtefactNotFoundError": FileNotFoundError,
    "CommitError": OSError,
    "ConfigError": ValueError,
    "DamagedArtefactError": OSError,
    "FilepathKeyError": KeyError,
    "MigrationError": ValueError,
    "MissingPackageError": ImportError,
    "NewerFormatError": ValueError,
    "NotBuiltError": ValueError,
    "NotSerializableError": TypeError,
    "ObjectsNotFoundError": ValueError,
    "OverBudgetError": MemoryError,
    "RegistryError": ValueError,
    "RestoreError": ValueError,
    "ResumeError": RuntimeError,
    "UnsafeArtefactError": ValueError,
    "UntrackedStateError": ValueError,
    "UntranslatableError": ValueError,
}


def promised(kind: type[errors.CkptError]) -> set[str]:
    """Return the attributes that a class's docstring promises, those of its bases included."""
    names: set[str] = set()
    for base in kind.__mro__:
        if issubclass(base, errors.CkptError) and base is not errors.CkptError:
            text = base.__doc__ or ""
            _, _, promise = text.partition("Attribute")
            names |= set(re.findall(r"`(\w+)`", promise))
    return names


def make(kind: type[errors.CkptError]) -> errors.CkptError:
    """Return an error of that kind with every fact that it promises."""
    return kind(
        "The file is not there.",
        remedy="Call `model.save()` first.",
        received="path='a.keras'",
        **{name: FACTS[name] for name in promised(kind)},
    )


every_error = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)


@every_error
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_pickling(kind, protocol):
    """An error raised in a worker process arrives whole."""
    error = make(kind)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert again.args == error.args


@every_error
@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_error_survives_copying(kind, copier):
    """A copy says the same and has the same facts."""
    error = make(kind)
    again = copier(error)
    assert again is not error
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error)


@every_error
def test_error_has_the_attributes_it_promises(kind):
    """Each attribute named in a docstring is there, and annotated unless the built-in has it."""
    error = make(kind)
    annotated = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    for name in promised(kind):
        assert getattr(error, name) == FACTS[name]
        assert name in annotated | {"errno"}, f"{kind.__name__}.{name} is not annotated"
    assert annotated - {"what", "remedy", "received", "facts"} <= promised(kind)


@every_error
def test_message_says_what_happened_what_was_received_and_the_remedy(kind):
    """The message has all three parts, plain, also where the built-in would quote it."""
    expected = "The file is not there. Received: path='a.keras'. Call `model.save()` first."
    assert str(make(kind)) == expected


@every_error
def test_remedy_cannot_be_left_out(kind):
    """An error that does not say what to do cannot be made."""
    with pytest.raises(TypeError, match="remedy"):
        kind("The file is not there.")


@every_error
def test_error_is_the_built_in_that_a_caller_expects(kind):
    """`except ValueError` and the like go on working."""
    assert issubclass(kind, errors.CkptError)
    assert issubclass(kind, BUILTINS.get(kind.__name__, Exception))


def test_what_keras_raises_as_value_error_is_one():
    """`except ValueError` around `keras.models.load_model` goes on working around ours."""
    of_a_file = (
        errors.ArtefactKindError,
        errors.ArtefactNotFoundError,
        errors.DamagedArtefactError,
        errors.ObjectsNotFoundError,
        errors.OverBudgetError,
        errors.RestoreError,
    )
    assert all(issubclass(kind, ValueError) for kind in of_a_file)


def test_every_error_of_the_module_is_public():
    """`__all__` lists each error class that the module defines."""
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


def test_docstring_draws_the_tree_as_it_is():
    """Each class is in the drawing once, under its own base, beside its built-in."""
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for indent, name, rest in re.findall(
        r"^ {4}([│├└─ ]*)(\w+Error)\b(.*)$", errors.__doc__ or "", flags=re.MULTILINE
    ):
        depth = len(indent) // 4
        path[depth:] = [name]
        assert name not in drawn, f"{name} is drawn twice"
        drawn[name] = path[depth - 1] if depth else None
        beside = re.match(r"\s*\(([\w, ]+)\)", rest)
        kind = getattr(errors, name)
        built_in = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"]
        built_in = [one for one in built_in if one != "Exception"]
        assert (beside[1].split(", ") if beside else []) == built_in, name
    assert drawn == {
        kind.__name__: None if kind is errors.CkptError else kind.__bases__[0].__name__
        for kind in TREE
    }


def test_message_leaves_out_what_was_not_received():
    """Where no value led to the error, the message does not pretend there was one."""
    error = errors.ResumeError("The run has ended.", remedy="Start another one.", path="runs/a")
    assert str(error) == "The run has ended. Start another one."
    assert error.received is None


def test_every_error_about_damage_says_how():
    """Callers put the clause into sentences of their own, and never take a sentence apart."""
    lacking = []
    for file in sorted(Path(errors.__file__).parent.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert 'removeprefix("The file' not in text
        for node in ast.walk(ast.parse(text)):
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "")
            if called == "DamagedArtefactError" and "how" not in {k.arg for k in node.keywords}:
                lacking.append(f"{file.name}:{node.lineno}")
    assert lacking == []


def test_damage_of_a_record_is_said_once(tmp_path):
    """The error about a checkpoint whose record has changed has one sentence about that."""
    path = tmp_path / "cut.weights.h5"
    path.write_bytes(MAGIC + bytes(12))
    with pytest.raises(errors.DamagedArtefactError) as caught:
        kct.load_weights(keras.layers.Dense(1), path)
    assert str(caught.value).count("is damaged") == 1
    assert caught.value.how == "it ends after 20 bytes, within its record's header"
