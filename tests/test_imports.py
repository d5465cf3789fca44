"""What reads imports neither Keras nor TensorFlow: seen in a fresh interpreter.

The import contracts in `setup.cfg` read the sources, and so cannot tell an import that runs from
one inside a function that never does. This looks at what is loaded.
"""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_ckpt_tools

PACKAGE = Path(keras_ckpt_tools.__file__).parent

FRAMEWORKS = ("jax", "keras", "tensorflow", "torch")
FOLDERS = (
    "cli",
    "formats",
    "inspection",
    "matching",
    "pictures",
    "runs",
    "showing",
    "storage",
    "tools",
)
SINGLE = ("", ".data.parallel", ".data.positions", ".errors", ".loading", ".metadata", ".registry")


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys, json; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout))


def first_loading_a_framework(modules: list[str]) -> str | None:
    """Return the first of these modules that loads a framework, in a fresh interpreter."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    found = {{*sys.modules}} & {set(FRAMEWORKS)!r}\n"
        "    if found: sys.exit(f'{name} imports {found}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    return done.stderr if done.returncode else None


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_imported_without_a_framework(folder):
    """Importing each module of the folder loads neither Keras nor any of its backends."""
    package = f"{keras_ckpt_tools.__name__}.{folder}"
    names = [info.name for info in pkgutil.walk_packages([str(PACKAGE / folder)], f"{package}.")]
    # They are started by their own folder, in a process of its own.
    names = [name for name in names if not name.endswith((".hdf5_child", ".hdf5_survey"))]
    assert names
    assert first_loading_a_framework([package, *names]) is None


def test_modules_above_them_are_imported_without_a_framework():
    """The package itself, its lowest layer, and the entry points of the rest."""
    assert first_loading_a_framework([f"keras_ckpt_tools{name}" for name in SINGLE]) is None


def test_inspecting_a_file_of_ours_needs_no_numpy_either():
    """What reads a record is the standard library and a digest."""
    loaded = loaded_after("import keras_ckpt_tools as kct; kct.inspect, kct.verify")
    assert not loaded & {*FRAMEWORKS, "h5py", "ml_dtypes", "numpy", "rich"}


def test_names_that_need_no_framework_load_none():
    """Looking at the names for reading, retention and registering is free, too."""
    loaded = loaded_after(
        "import keras_ckpt_tools as kct\n"
        "kct.inspect, kct.TrainingProgress, kct.KeepLast, kct.errors, kct.registry, kct.register"
    )
    assert not loaded & set(FRAMEWORKS)


def test_the_probe_sees_keras_where_it_is_imported():
    """The check above can fail: a callback, which derives from Keras' own, brings Keras in."""
    assert "keras" in loaded_after("import keras_ckpt_tools as kct; kct.ModelCheckpoint")
    names = ["keras_ckpt_tools", "keras_ckpt_tools.live.state"]
    assert "live.state imports" in first_loading_a_framework(names)


def test_tensorflow_that_another_thread_is_importing_is_waited_for(tmp_path: Path) -> None:
    """Its module is there before its classes are."""
    (tmp_path / "tensorflow.py").write_text(
        "import time, __main__\n__main__.begun.set()\ntime.sleep(0.3)\nclass Variable: ...\n"
    )
    program = (
        "import importlib, sys, threading\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from keras_ckpt_tools._tensorflow import tf_kinds\n"
        "begun = threading.Event()\n"
        "other = threading.Thread(target=importlib.import_module, args=('tensorflow',))\n"
        "other.start()\nbegun.wait()\n"
        "assert tf_kinds('Variable')[0].__name__ == 'Variable'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
