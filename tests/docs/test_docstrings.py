"""Every example in a docstring is run, and everything public has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import pkgutil

import pytest

import keras_ckpt_tools as kct

MODULES = sorted(
    ["keras_ckpt_tools"]
    + [found.name for found in pkgutil.walk_packages(kct.__path__, "keras_ckpt_tools.")]
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    """Each `>>>` of the module gives what stands below it, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = io.StringIO()
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.write)
    assert runner.summarize(verbose=False).failed == 0, report.getvalue()


@pytest.mark.parametrize("name", sorted(set(kct.__all__) - {"__version__", "errors", "registry"}))
def test_public_name_has_an_example(name):
    """Whoever asks for `help()` gets a line of code that works."""
    documented = getattr(kct, name)
    text = inspect.getdoc(documented) or ""
    assert ">>>" in text, f"kct.{name} has no example"
    assert text.splitlines()[0].endswith("."), f"kct.{name} does not open with one full sentence"
