"""What the tests of the registry share: registries, modules on disk, installed plug-ins."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def names() -> Any:
    """A registry of the test's own, which Keras does not see."""
    from keras_ckpt_tools.registry import Registry

    return Registry()


@pytest.fixture
def mirrored() -> Iterator[Any]:
    """A registry of the test's own that shows its names to Keras, whose tables are put back."""
    from keras_ckpt_tools.registry import Registry

    registry = Registry(mirror=True)
    with registry._isolated():
        yield registry


@pytest.fixture
def write_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], ModuleType]]:
    """A function that writes a module's source, and imports it or runs it again."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    # A reload within a second would take the old bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written: list[str] = []

    def write(name: str, source: str) -> ModuleType:
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        written.append(name)
        return importlib.import_module(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def install_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """A function that installs a distribution of one module that declares objects."""
    modules: list[str] = []

    def install(module: str, source: str, points: dict[str, str], *, name: str = "") -> None:
        name = name or f"dist-of-{module}".replace("_", "-")
        site = tmp_path / f"site_{name}"
        info = site / f"{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        text = "\n".join(["[keras_ckpt_tools.objects]", *lines])
        (info / "entry_points.txt").write_text(text)
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        modules.append(module)

    yield install
    for module in modules:
        sys.modules.pop(module, None)
