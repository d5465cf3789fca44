"""The public names: which there are, that each is there, and that no import order breaks one."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import public_signatures
import pytest

import keras_ckpt_tools as kct

PUBLIC = {
    # name: the version it came in
    "BackupAndRestore": "0.1.0",
    "CheckpointManager": "0.1.0",
    "KeepBest": "0.1.0",
    "KeepEvery": "0.1.0",
    "KeepLast": "0.1.0",
    "ModelCheckpoint": "0.1.0",
    "Policy": "0.1.0",
    "RestoreReport": "0.1.0",
    "TrainingProgress": "0.1.0",
    "__version__": "0.1.0",
    "check_serializable": "0.1.0",
    "compare": "0.1.0",
    "data": "0.1.0",
    "errors": "0.1.0",
    "inspect": "0.1.0",
    "load_weights": "0.1.0",
    "plot": "0.1.0",
    "register": "0.1.0",
    "registry": "0.1.0",
    "safe_load_model": "0.1.0",
    "scope": "0.1.0",
    "training_progress": "0.1.0",
    "verify": "0.1.0",
}


def run(code: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names_are_these():
    """A name that comes or goes is a decision, so it is written down here too."""
    assert sorted(kct.__all__) == sorted(PUBLIC)
    assert dir(kct) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_resolves(name):
    """Every public name leads to something."""
    assert getattr(kct, name) is not None


def test_type_checkers_and_python_find_each_name_in_the_same_module():
    """The imports under `TYPE_CHECKING` and the table of homes name the same modules."""
    tree = ast.parse(Path(kct.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == {
        name: "keras_ckpt_tools" + (f".{home}" if home else "") for name, home in kct._HOMES.items()
    }
    assert sorted([*seen, "__version__"]) == sorted(kct.__all__)


def test_unknown_name_is_an_attribute_error():
    """A misspelt name fails as it would on any module."""
    with pytest.raises(AttributeError, match="no attribute 'ModelCheckpiont'"):
        _ = kct.ModelCheckpiont


def test_version_is_the_one_that_is_installed():
    """The version has one place, and the metadata of the installed package repeat it."""
    from importlib.metadata import version

    assert kct.__version__ == version("keras_ckpt_tools")


IMPORTS_FIRST = [
    "import keras_ckpt_tools",
    "import keras_ckpt_tools.registry",
    "from keras_ckpt_tools.registry import Registry",
    "from keras_ckpt_tools import registry",
    "import importlib; importlib.import_module('keras_ckpt_tools.registry')",
    "import keras_ckpt_tools.inspection.inspect",
]


@pytest.mark.parametrize("first", IMPORTS_FIRST)
def test_registry_is_the_registry_whatever_is_imported_first(first):
    """The folder of the same name never takes the place of the default registry."""
    code = f"""
{first}
import keras_ckpt_tools as kct
from keras_ckpt_tools import registry
from keras_ckpt_tools.registry import Registry
import keras_ckpt_tools.registry
assert type(kct.registry) is Registry, kct.registry
assert registry is kct.registry
assert callable(kct.inspect) and callable(kct.scope)
print("fine")
"""
    assert run(code) == "fine"


def test_registry_can_be_replaced_in_a_test(monkeypatch):
    """Only modules are kept from taking the name; anything else may be patched in."""
    marker = object()
    monkeypatch.setattr(kct, "registry", marker)
    assert kct.registry is marker


def test_names_are_loaded_once():
    """The second look at a name finds the very same object."""
    assert kct.KeepLast is kct.KeepLast
    assert kct.errors is sys.modules["keras_ckpt_tools.errors"]


def test_public_signatures_are_these():
    """A parameter that goes breaks programs, and one that comes is a promise."""
    before = json.loads(public_signatures.FILE.read_text(encoding="utf-8"))
    changed = public_signatures.differences(before, public_signatures.signatures())
    assert not changed, "\n" + "\n".join(changed)


SIGNATURE = {"f": ["x", "y=1", "*", "z=None"]}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({}, "kct.f is gone: programs that use it break"),
        (SIGNATURE | {"g": []}, "kct.g is new: it is a promise"),
        ({"f": ["x", "y=1"]}, "kct.f has lost `z`: programs that use it break"),
        ({"f": ["x", "y=1", "*", "a", "z=None"]}, "kct.f has a new `a`: it is a promise"),
        ({"f": ["x", "y=2", "*", "z=None"]}, "kct.f: `y=1` has become `y=2`: programs that rely"),
        ({"f": ["y=1", "x", "*", "z=None"]}, "kct.f takes its positional arguments in another"),
        ({"f": ["x", "*", "y=1", "z=None"]}, "kct.f takes its positional arguments in another"),
    ],
)
def test_a_changed_signature_is_told_with_what_to_do(now, told):
    """The guard above can fail, and each of its sentences ends with the next step."""
    (sentence,) = public_signatures.differences(SIGNATURE, now)
    assert sentence.startswith(told)
    assert "CHANGELOG.md" in sentence
    assert "`python tests/helpers/public_signatures.py`" in sentence
    assert public_signatures.differences(SIGNATURE, SIGNATURE) == []
